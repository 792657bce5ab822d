"""How a method of the API finds its function, and what the function gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reconciler.lab.proxmox.pve.rights import Caller, Rights
from reconciler.lab.proxmox.pve.state import State
from reconciler.lab.proxmox.pve.verify import Value, split_list
from reconciler.lab.proxmox.pve.world import World


@dataclass(frozen=True, slots=True)
class Full:
    """An answer with keys beside `data`."""

    data: Any
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One request after authentication and the check of its parameters."""

    world: World
    rights: Rights
    caller: Caller
    asked: str
    """The node whose endpoint was asked."""
    parameters: Mapping[str, Value]

    @property
    def state(self) -> State:
        """The state of the cluster."""
        return self.world.state

    @property
    def node(self) -> str:
        """The node in the path."""
        return self.text("node")

    def has(self, name: str) -> bool:
        """The parameter was given."""
        return name in self.parameters

    def get(self, name: str) -> str | None:
        """A parameter as text, or None."""
        value = self.parameters.get(name)
        return ",".join(value) if isinstance(value, list) else value

    def text(self, name: str, default: str = "") -> str:
        """A parameter as text."""
        value = self.get(name)
        return default if value is None else value

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean parameter."""
        value = self.get(name)
        return default if value is None else value == "1"

    def number(self, name: str, default: int = 0) -> int:
        """An integer parameter."""
        value = self.get(name)
        return default if value is None else int(value)

    def list(self, name: str) -> list[str]:
        """The elements of a list parameter."""
        return split_list(self.text(name))

    def may(self, path: str, privileges: str) -> bool:
        """The caller has the privileges (`A&B`: all, `A|B`: any) on a path."""
        return self.rights.may(self.caller, path, privileges)

    def require(self, path: str, privileges: str) -> None:
        """Refused (403): the caller lacks the privileges."""
        self.rights.require(self.caller, path, privileges)


Function = Callable[[Call], Any]
ROUTES: Final[dict[tuple[str, str], Function]] = {}


def route(call: str) -> Callable[[Function], Function]:
    """Make a function the answer to `METHOD /path/{part}`, as it stands in the table of methods."""
    verb, _, path = call.partition(" ")

    def keep(function: Function) -> Function:
        ROUTES[verb, path] = function
        return function

    return keep
