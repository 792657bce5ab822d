"""What a `USER` of an image means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

RESERVED: Final = frozenset((65534, 65535))
RESERVED_NAMES: Final = frozenset(("nobody", "nfsnobody", "nogroup"))
LOWEST: Final = 1000
HIGHEST: Final = 65533
_NUMBER: Final = re.compile(r"[0-9]+")
LARGEST: Final = 2**31 - 1
"""What engines take for a number of a user."""


@dataclass(frozen=True)
class User:
    """`USER` taken apart. Numbers are None where there is a name, `group` is None where there is none."""

    written: str
    name: str
    number: int | None
    group: str | None
    group_number: int | None

    @property
    def is_root(self) -> bool:
        """It is user 0, however it is spelled."""
        return self.number == 0 or self.name == "root"


def user_of(written: str) -> User | None:
    """Take a USER apart; None where engines cannot make sense of it."""
    name, colon, group = written.partition(":")
    if not name or (colon and not group) or ":" in group or re.search(r"\s|[#/\\]", written) or name[0] in "+-":
        return None
    number, group_number = _number(name), _number(group)
    if any(n is not None and n > LARGEST for n in (number, group_number)):
        return None
    return User(written, name, number, group if colon else None, group_number)


def _number(text: str) -> int | None:
    # Longer ones are no numbers of users, and Python refuses to read very long ones.
    return int(text) if _NUMBER.fullmatch(text) and len(text) <= 20 else None


def judge(user: User) -> Iterator[tuple[str, str]]:
    """Rules that a USER breaks, each with what is wrong."""
    written = user.written
    if user.is_root:
        yield "user-root", f"USER {written} is root"
    elif user.number in RESERVED or user.name in RESERVED_NAMES:
        yield "user-reserved", f"USER {written} is reserved for nobody"
    elif user.number is None:
        yield "user-by-name", f"USER {written} is a name"
    elif user.number < LOWEST:
        yield "user-low", f"USER {written} is below {LOWEST}"
    elif user.number > HIGHEST:
        yield "user-too-high", f"USER {written} is above {HIGHEST}"
    if user.is_root:
        return
    if user.group is None:
        if user.number is not None:
            yield "group-unset", f"USER {written} names no group"
    elif user.group_number != 0 and user.group != "root":
        yield "group-not-root", f"USER {written} has the group {user.group}"
