"""Objects on Linux hosts. All reads are POSIX sh; see `reconciler/connections/prelude.sh` for the shared words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath


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
    for line in text.splitlines():
        kind, mode, owner, group, size, modified, changed, path = line.split("|", 7)
        kind = {"regular empty file": "regular file"}.get(kind, kind)
        out[path] = Meta(kind, mode.zfill(4), owner, group, int(size), float(modified), float(changed), path)
    return out


def folders_above(path: str) -> Iterator[str]:
    """Tokens of the folders that a path lies in."""
    return (f"path:{parent}" for parent in PurePosixPath(path).parents)


def owners(owner: str | None, group: str | None) -> Iterable[str]:
    """Tokens of the accounts that a path belongs to."""
    if owner:
        yield f"user:{owner}"
    if group:
        yield f"group:{group}"
