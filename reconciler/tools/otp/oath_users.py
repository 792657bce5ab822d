"""The users file of pam_oath (`/etc/users.oath`): `TYPE USER PIN HEXSECRET [counter last_otp timestamp]`.

The columns at the end are the module's memory: which passwords were used. Where they are lost, used passwords are
accepted again. So a line whose user, type and secret stay is kept verbatim, down to its spaces.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

NO_PIN: Final = "-"
_TYPE: Final = re.compile(r"HOTP(?:/(E|T[0-9]+))?(?:/([678]))?", re.ASCII)
_NAME: Final = re.compile(r"[^\s#:\x00-\x1f\x7f][^\s:\x00-\x1f\x7f]*")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+", re.ASCII)


@dataclass(frozen=True)
class UserToken:
    """One line as it should be.

    Attributes:
        user: an account.
        secret: hexadecimal digits, SHA-1 only.
        type: `HOTP/T30/6` (TOTP), `HOTP/E/6` (HOTP); periods of 30 and 60 s, 6 to 8 digits.
        pin: asked for before the code; `-` for none. `None` keeps what is there.

    Raises:
        ValueError: a value does not fit into the file. Never carries the secret.
    """

    user: str
    secret: str = field(repr=False)
    type: str = "HOTP/T30/6"
    pin: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.user):
            raise ValueError(f"{self.user!r} cannot be a user of pam_oath: one word, not beginning with #")
        if not _HEX.fullmatch(self.secret):
            raise ValueError(f"the secret of {self.user} must be an even number of hexadecimal digits")
        if whole_type(self.type) is None:
            raise ValueError(f"{self.type!r} must be HOTP/E, HOTP/T30 or HOTP/T60, and /6, /7 or /8")
        if self.pin is not None and not re.fullmatch(r"[^\s\x00-\x1f\x7f]+", self.pin):
            raise ValueError(f"the PIN of {self.user} must be one word")

    @property
    def identity(self) -> tuple[str, str, str]:
        """What says whose memory the columns at the end are."""
        return self.user, whole_type(self.type) or self.type, self.secret.lower()


@dataclass(frozen=True)
class Line:
    """One line of a file; `token` is None for comments and what the module skips."""

    text: str = field(repr=False)
    user: str = ""
    type: str = ""
    pin: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    memory: Sequence[str] = ()

    @property
    def identity(self) -> tuple[str, str, str] | None:
        """As in `UserToken`; None where the line is no user's."""
        return (self.user, whole_type(self.type) or self.type, self.secret.lower()) if self.user else None


def whole_type(text: str) -> str | None:
    """The type with what it leaves out: `HOTP` is `HOTP/E/6`. None if the module would not know it."""
    match = _TYPE.fullmatch(text)
    if match is None or (match[1] or "E") not in ("E", "T30", "T60"):
        return None
    return f"HOTP/{match[1] or 'E'}/{match[2] or '6'}"


def parse(text: str) -> list[Line]:
    """The lines of a file, in order. Never fails: what it does not know is kept as it is."""
    return [_line(row) for row in text.splitlines(keepends=True)]


def _line(text: str) -> Line:
    fields = text.split()
    if len(fields) < 4 or not fields[0].startswith("HOTP"):
        return Line(text)
    return Line(text, fields[1], fields[0], fields[2], fields[3], tuple(fields[4:]))


def merge(text: str, wanted: Iterable[UserToken], owned: Collection[str] = ()) -> str:
    """The file as it should be.

    Users that are neither wanted nor owned, comments and blank lines stay verbatim. A wanted token that is there with
    the same secret keeps its line, and so what the module remembers; a new secret starts without memory, at the place
    of the user's old line.

    Args:
        text: the file as it is; empty if there is none.
        wanted: at most one for each user and type.
        owned: users that we may remove.

    Raises:
        ValueError: a user and type is wanted twice.
    """
    tokens = list(wanted)
    slots = [token.identity[:2] for token in tokens]
    if len(set(slots)) != len(slots):
        raise ValueError("a user has two tokens of one type")
    ours = {*owned, *(token.user for token in tokens)}
    lines = parse(text)
    kept = _kept(lines, tokens)
    left = [token for token in tokens if token not in kept.values()]
    out: list[str] = []
    for number, line in enumerate(lines):
        if line.user not in ours:
            out.append(line.text)
        elif number in kept:
            out.append(_with_pin(line, kept[number]))
        else:
            same = [token for token in left if token.user == line.user]
            out += [_fresh(token) for token in same]
            left = [token for token in left if token not in same]
    if out and not out[-1].endswith("\n"):
        out[-1] += "\n"
    return "".join([*out, *map(_fresh, left)])


def _kept(lines: Sequence[Line], tokens: Sequence[UserToken]) -> dict[int, UserToken]:
    """Number of a line -> the token that it is; of several alike the first, which is the one that the module uses."""
    kept: dict[int, UserToken] = {}
    for token in tokens:
        number = next((n for n, line in enumerate(lines) if line.identity == token.identity), None)
        if number is not None:
            kept[number] = token
    return kept


def _with_pin(line: Line, token: UserToken) -> str:
    if token.pin in (None, line.pin):
        return line.text
    return "\t".join([line.type, line.user, str(token.pin), line.secret, *line.memory]) + "\n"


def _fresh(token: UserToken) -> str:
    return "\t".join([token.type, token.user, token.pin or NO_PIN, token.secret.lower()]) + "\n"
