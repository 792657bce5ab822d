"""What the commands of a Containerfile do to owners and modes: who may write where in the image."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

ALWAYS_WRITABLE: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - names inside of images
MOST: Final = 500
"""Paths that are followed in one file; nobody writes more."""
_NUMERIC: Final = re.compile(r"[0-7]{3,4}")
_SYMBOLIC: Final = re.compile(r"([ugoa]*)([-+=])([rwxXstugo]*)")


@dataclass(frozen=True)
class Mode:
    """What a mode of chmod does.

    Attributes:
        group_writes: the group may write afterwards; None where the mode leaves that as it was.
        group_lacks: the owner may do what the group may not (read, execute).
        world_writes: everybody may write.
        special: it sets the setuid or setgid bit.
    """

    group_writes: bool | None = None
    group_lacks: bool = False
    world_writes: bool = False
    special: bool = False


def mode_of(text: str) -> Mode | None:
    """Read a mode of chmod or `--chmod`; None where it is none."""
    if _NUMERIC.fullmatch(text):
        digits = [int(d) for d in text]
        special, owner, group, other = digits if len(digits) == 4 else (0, *digits)
        return Mode(bool(group & 2), bool(owner & 5 & ~group), bool(other & 2) and not special & 1, bool(special & 6))
    writes: bool | None = None
    lacks = world = setuid = False
    for part in text.split(","):
        found = _SYMBOLIC.fullmatch(part)
        if not found or not (found[2] == "=" or found[3]):
            return None
        who, operator, bits = found.groups()
        if "g" in who or "a" in who or not who:
            if operator == "-":
                writes = False if "w" in bits else writes
                lacks = lacks or bool(set("rx") & set(bits))
            elif "w" in bits or "u" in bits:
                writes = True
            elif operator == "=":
                writes = False
        if operator != "-" and "w" in bits and ("o" in who or "a" in who):
            world = True
        if operator != "-" and "s" in bits and ("u" in who or not who or "a" in who):
            setuid = True
    return Mode(writes, lacks, world, setuid)


def mode_and_paths(words: Sequence[str]) -> tuple[str, list[str]]:
    """The mode and the paths among the arguments of chmod."""
    found = [w for w in words if not re.fullmatch(r"-[RvcfHLP]+|--[a-z-]+(?:=.*)?", w)]
    return (found[0], found[1:]) if found else ("", [])


def is_root_group(owner: str) -> bool | None:
    """Whether `user:group` of chown gives the files to group 0; None where it leaves the group as it is."""
    user, colon, group = owner.partition(":") if ":" in owner else owner.partition(".")
    if not colon:
        return None
    # `chown user:` takes the login group of the user.
    return group in ("0", "root") if group else user in ("0", "root")


@dataclass
class _Path:
    """What was last done to a path and all below it."""

    group_zero: bool = True
    group_writes: bool = False


@dataclass
class Permissions:
    """Follows chown, chgrp and chmod through a build. New files belong to group 0 and are not open to it."""

    paths: dict[str, _Path] = field(default_factory=dict)
    unknown_grant: bool = False
    """Some path could not be told, and was opened to the group."""
    unknown_group: bool = False
    """Some path could not be told, and was given to group 0."""

    def group(self, path: str, zero: bool) -> None:
        """A path, and all below it, gets a group."""
        if zero and _is_unknown(path):
            self.unknown_group = True
        for one in self._set(path):
            one.group_zero = zero

    def mode(self, path: str, writes: bool) -> None:
        """The group of a path, and of all below it, may write or not."""
        if writes and _is_unknown(path):
            self.unknown_grant = True
        for one in self._set(path):
            one.group_writes = writes

    def writable(self, path: str) -> bool:
        """Whether group 0 can write there, as far as can be told."""
        path = normal(path)
        if any(_covers(p, path) for p in ALWAYS_WRITABLE) or self.unknown_grant:
            return True
        found = self._nearest(path)
        return found is not None and found.group_zero and found.group_writes

    def open_to_group(self, path: str) -> bool:
        """Whether a path belongs to group 0."""
        found = self._nearest(normal(path))
        return found is None or found.group_zero or self.unknown_group

    def _nearest(self, path: str) -> _Path | None:
        while path not in self.paths:
            if path == "/":
                return None
            path = posixpath.dirname(path)
        return self.paths[path]

    def _set(self, path: str) -> Iterable[_Path]:
        path = normal(path.rstrip("*"))
        if path not in self.paths:
            if len(self.paths) >= MOST:
                return []
            above = self._nearest(path)
            self.paths[path] = _Path(above.group_zero, above.group_writes) if above else _Path()
        return [one for other, one in self.paths.items() if _covers(path, other)]


def normal(path: str) -> str:
    """An absolute path in its shortest form, as long as paths may be."""
    return posixpath.normpath("/" + path[:4096].strip("/"))


def _is_unknown(path: str) -> bool:
    return "$" in path or "`" in path or not path.startswith("/")


def _covers(above: str, path: str) -> bool:
    return above in ("/", path) or path.startswith(above + "/")
