"""Finds kinds and resource types: every module below `reconciler.kinds` and `reconciler.types`, and plugins.

A kind's module holds `KIND`, a type's module `TYPE`. Plugins announce such objects through the entry points
`reconciler.kinds` and `reconciler.types`. There is no list to edit.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from reconciler.errors import ContractError
from reconciler.model import Kind, ResourceType


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
        by_kind: dict[str, Kind[Any]] = {}
        by_type: dict[str, ResourceType[Any]] = {}
        for kind in sorted(kinds, key=lambda k: k.name):
            if kind.name in by_kind:
                raise ContractError(kind.name, f"Two kinds are called {kind.name}.")
            by_kind[kind.name] = kind
        for kind_of_object in sorted(types, key=lambda t: t.name):
            if kind_of_object.name in by_type:
                raise ContractError(kind_of_object.name, f"Two resource types are called {kind_of_object.name}.")
            if not kind_of_object.identity:
                raise ContractError(kind_of_object.name, f"{kind_of_object.name} has no IDENTITY field.")
            by_type[kind_of_object.name] = kind_of_object
        return cls(by_kind, by_type)

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
    """Everything that is installed."""
    return Registry.of(_members("kinds", "KIND"), _members("types", "TYPE"))


def _members(package: str, attribute: str) -> Iterator[Any]:
    for module in _modules(f"reconciler.{package}"):
        if hasattr(module, attribute):
            yield getattr(module, attribute)
    for point in entry_points(group=f"reconciler.{package}"):
        yield point.load()


def _modules(name: str) -> Iterator[ModuleType]:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, f"{name}."):
        yield importlib.import_module(found.name)
