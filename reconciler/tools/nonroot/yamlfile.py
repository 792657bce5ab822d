"""YAML documents with the line of every value, for manifests and Helm values.

The reader is that of the desired state (`reconciler.load`), with its limits on aliases, depth and size; what Kubernetes
reads as a truth value though YAML 1.2 does not (`yes`, `on`) is told apart here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from reconciler.load import parse, places

_TRUE: Final = frozenset(("yes", "Yes", "YES", "on", "On", "ON", "y", "Y"))
_FALSE: Final = frozenset(("no", "No", "NO", "off", "Off", "OFF", "n", "N"))

Where = tuple[str | int, ...]


@dataclass(frozen=True)
class File:
    """A text, and where everything in it stands."""

    text: str
    name: str

    @cached_property
    def places(self) -> Mapping[tuple[int, Where, bool], tuple[int, int]]:
        """See `reconciler.load.places`."""
        return places(self.text, self.name)


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        index: which one of the file, from 0.
    """

    data: Any
    index: int
    file: File

    def line(self, path: Where) -> int:
        """Where the key at a path stands, or its closest parent that exists."""
        for end in range(len(path), -1, -1):
            for is_key in (True, False):
                found = self.file.places.get((self.index, path[:end], is_key))
                if found:
                    return found[0]
        return 1


def documents(text: str, file: str) -> list[Document]:
    """The documents of a file.

    Raises:
        InvalidInput: it is no YAML that can be read.
    """
    whole = File(text, file)
    return [Document(raw.data, raw.index, whole) for raw in parse(text, file)]


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, if it is a mapping; else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> Sequence[Any]:
    """The value, if it is a list; else an empty one."""
    return value if isinstance(value, list) else []


def truth(value: Any) -> bool | None:
    """A truth value as Kubernetes reads it; None for everything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return True if value in _TRUE else False if value in _FALSE else None
    return None


def number(value: Any) -> int | None:
    """A whole number; None for everything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
