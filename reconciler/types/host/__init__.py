"""Objects on Linux hosts. All reads are POSIX sh; see `reconciler/connections/prelude.sh` for the shared words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from reconciler.model import State


@dataclass(frozen=True, slots=True)
class Meta:
    """What the prelude's `meta` prints of one path. `modified` and `changed` in seconds since the epoch."""

    kind: str
    mode: str
    owner: str
    group: str
    size: int
    modified: float
    changed: float
    path: str


def parse_meta(text: str) -> dict[str, Meta]:
    """The lines of `meta`, by path."""
    out = {}
    # Only a line feed ends a line here; a name may hold other characters that `splitlines` takes for an end.
    for line in filter(None, text.split("\n")):
        kind, mode, owner, group, size, modified, changed, path = line.split("|", 7)
        kind = {"regular empty file": "regular file"}.get(kind, kind)
        out[path] = Meta(kind, mode.zfill(4), owner, group, int(size), float(modified), float(changed), path)
    return out


def folders_above(path: str) -> Iterator[str]:
    """Tokens of the folders that a path lies in, the nearest first."""
    if path == "/":
        return
    while folder := path.rpartition("/")[0]:
        path = folder
        yield f"path:{path}"
    yield "path:/"


def package_of(path: str) -> Iterable[str]:
    """Token of the package whose folder in /etc a path lies in, if it is called like that: nginx for /etc/nginx/a.

    What installs packages comes before them, so nothing there waits for a package.
    """
    if path.startswith("/etc/"):
        name, inside, _ = path.removeprefix("/etc/").partition("/")
        if inside and name not in ("apt", "dpkg"):
            yield f"package:{name}"


def owners(owner: str | None, group: str | None) -> Iterable[str]:
    """Tokens of the accounts that a path belongs to."""
    if owner:
        yield f"user:{owner}"
    if group:
        yield f"group:{group}"


def same_mode(desired: State, observed: State) -> State:
    """A `normalize` by which "644" and "0644" are one mode."""
    wanted, seen = desired.get("mode"), observed.get("mode")
    if wanted is None or seen is None or wanted == seen or int(wanted, 8) != int(seen, 8):
        return desired
    return {**desired, "mode": seen}


def printable(text: str) -> str:
    r"""Text from a host for people to read: bytes that are no UTF-8 and control characters become `\xNN`."""
    return "".join(
        f"\\x{ord(c) & 0xFF:02x}" if "\udc80" <= c <= "\udcff" or (c < " " and c not in "\n\t") or c == "\x7f" else c
        for c in text
    )
