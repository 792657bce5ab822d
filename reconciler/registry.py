"""Finds kinds and resource types: every module below `reconciler.kinds` and `reconciler.types`, and plugins.

A kind's module holds `KIND`, a type's module `TYPE`. Plugins announce such objects through the entry points
`reconciler.kinds` and `reconciler.types`. There is no list to edit.

A desired state uses a few of them, and importing all takes longer than a plan of one host. So their names are read
from the text of their modules, and a module is imported when its kind or type is first asked for.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from reconciler.errors import ContractError
from reconciler.model import Kind, ResourceType

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_PACKAGE: Final = __name__.partition(".")[0]


@dataclass(frozen=True)
class _Group:
    """The kinds, or the resource types.

    Attributes:
        package: where their modules are; entry points of plugins have this name, too.
        noun: what they are called.
        attribute: what a module holds.
        holds: finds the attribute in the text of a module, and its name where it is written there.
    """

    package: str
    noun: str
    attribute: str
    holds: re.Pattern[bytes]

    @classmethod
    def of(cls, package: str, noun: str, attribute: str, made_by: str) -> _Group:
        """A group whose members come from a call such as `KIND = Kind("File", ...)`."""
        written = rf'\n{attribute}\b(?:[^=\n]*= {made_by}(?:\[[^\n]*\])?\(\s*(?:name=)?"([^"\\\n]+)")?'
        return cls(f"{_PACKAGE}.{package}", noun, attribute, re.compile(written.encode()))


KINDS: Final = _Group.of("kinds", "kinds", "KIND", "Kind")
TYPES: Final = _Group.of("types", "resource types", "TYPE", "ResourceType")


@dataclass(frozen=True)
class Registry:
    """The kinds and resource types that are known, by name."""

    kinds: Mapping[str, Kind[Any]]
    types: Mapping[str, ResourceType[Any]]

    @classmethod
    def of(cls, kinds: Iterable[Kind[Any]], types: Iterable[ResourceType[Any]]) -> Registry:
        """A registry of just these.

        Raises:
            ContractError: a name is taken twice, or a type has no identity.
        """
        return cls(_by_name(KINDS, kinds), _by_name(TYPES, types))

    def type_of(self, name: str) -> ResourceType[Any]:
        """The resource type of this name.

        Raises:
            ContractError: there is none; a kind or an old inventory names it.
        """
        try:
            return self.types[name]
        except KeyError:
            raise ContractError(name, f"There is no resource type {name} (is a plugin missing?).") from None


@cache
def default() -> Registry:
    """Everything that is installed.

    Raises:
        ContractError: a name is taken twice, here or by a plugin.
    """
    return Registry(Installed(KINDS), Installed(TYPES))


class Installed(Mapping[str, Any]):
    """The installed members of a group, sorted by name. Going through the names, or asking whether there is one,
    imports nothing; a member is imported when it is asked for.

    Raises:
        ContractError: a name is taken twice.
    """

    def __init__(self, group: _Group) -> None:
        self._group = group
        self._ready: dict[str, Any] = {}
        self._modules: dict[str, str] = {}
        for module, name in _modules(group):
            if name:
                self._claim(name)
                self._modules[name] = module
            else:  # its name is not written there, but made
                self._take(getattr(importlib.import_module(module), group.attribute, None))
        for point in _plugins(group):
            self._take(point.load())
        self._names = sorted((*self._modules, *self._ready))

    def _take(self, member: Any) -> None:
        if member is not None:
            self._claim(member.name)
            self._ready[member.name] = _checked(member)

    def _claim(self, name: str) -> None:
        if name in self._modules or name in self._ready:
            raise ContractError(name, f"Two {self._group.noun} are called {name}.")

    def __getitem__(self, name: str) -> Any:
        """The member of this name.

        Raises:
            ContractError: a type has no identity, or the module holds something else than its text says.
        """
        if name not in self._ready:
            module = self._modules[name]
            member = getattr(importlib.import_module(module), self._group.attribute)
            if member.name != name:
                raise ContractError(name, f"{module} speaks of {name}, but holds {member.name}.")
            self._ready[name] = _checked(member)
        return self._ready[name]

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._ready

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _by_name(group: _Group, members: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for member in sorted(members, key=lambda m: m.name):
        if member.name in found:
            raise ContractError(member.name, f"Two {group.noun} are called {member.name}.")
        found[member.name] = _checked(member)
    return found


def _checked(member: Any) -> Any:
    if isinstance(member, ResourceType) and not member.identity:
        raise ContractError(member.name, f"{member.name} has no IDENTITY field.")
    return member


def _modules(group: _Group) -> Iterator[tuple[str, str]]:
    """The modules that hold a member of a group, each with the member's name; empty where its text does not tell."""
    for folder in importlib.import_module(group.package).__path__:
        for path, module in _files(folder, group.package):
            with open(path, "rb", buffering=0) as source:
                found = group.holds.search(source.read())
            if found:
                yield module, (found[1] or b"").decode()


def _files(folder: str, package: str) -> Iterator[tuple[str, str]]:
    """The path and the name of each module below a folder."""
    for entry in os.scandir(folder):
        stem, _, suffix = entry.name.partition(".")
        if suffix == "py" and stem.isidentifier():
            yield entry.path, package if stem == "__init__" else f"{package}.{stem}"
        elif stem.isidentifier() and stem != "__pycache__" and entry.is_dir():
            yield from _files(entry.path, f"{package}.{stem}")


def _plugins(group: _Group) -> Iterable[EntryPoint]:
    """What other packages announce."""
    if not _announced():
        return ()
    from importlib.metadata import entry_points

    return entry_points(group=group.package)


@cache
def _announced() -> bool:
    """Whether any installed package may have a plugin for us. To load what knows all about packages, and to have it
    read them all, takes ten times as long as this look at their lists of entry points."""
    words = [group.package.encode() for group in (KINDS, TYPES)]
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except NotADirectoryError:
            return True  # an archive: somebody else has to look into it
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(f"{folder or '.'}/{name}/entry_points.txt", "rb", buffering=0) as file:
                        text = file.read()
                except OSError:
                    continue
                if any(word in text for word in words):
                    return True
            elif name == "EGG-INFO":
                return True
    return False
