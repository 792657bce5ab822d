"""The simulated backup server behind the API: its state, its tasks, its digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from reconciler.lab.proxmox.world import State, Tasks

if TYPE_CHECKING:
    from reconciler.lab.proxmox.pbs.rights import Caller, Rights

Effect = Callable[["World", State], None]
EFFECTS: Final[dict[str, Effect]] = {}


def effect(name: str) -> Callable[[Effect], Effect]:
    """Make a function the effect of tasks under this name."""

    def keep(function: Effect) -> Effect:
        EFFECTS[name] = function
        return function

    return keep


class World(Tasks):
    """State and tasks of a simulated server."""

    effects = EFFECTS

    def upid(self, node: str, number: int, began: int, kind: str, item: str, caller: str) -> str:
        """The name of a task: node, pid, its start, number, time, type, item, user."""
        head = f"UPID:{node}:{number + 0x1000:08X}:{number + 0xABC00:08X}:{number:08X}:{began:08X}"
        escaped = item.replace(":", "\\x3a")
        return f"{head}:{kind}:{escaped}:{caller}:"

    def digest(self, *keys: str) -> str:
        """The digest of a configuration file: of these parts of the state."""
        content = json.dumps([self.state[key] for key in keys], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def check_digest(self, given: str | None, *keys: str) -> None:
        """Refused: the file is not the one that the caller has seen."""
        from reconciler.lab.proxmox.pbs.verify import Refused

        if given is not None and given != self.digest(*keys):
            raise Refused("detected modified configuration - file changed by other user? Try again.")


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
    values: Mapping[str, Any]

    @property
    def state(self) -> State:
        """The state of the server."""
        return self.world.state

    @property
    def node(self) -> str:
        """The name of the server."""
        return str(self.world.state["name"])

    def get(self, name: str, default: Any = None) -> Any:
        """A parameter, typed."""
        return self.values.get(name, default)

    def may(self, path: str, privileges: str) -> bool:
        """The caller has the privileges on a path."""
        return self.rights.may(self.caller, path, privileges)

    def require(self, path: str, privileges: str) -> None:
        """Refused (403): the caller lacks them."""
        self.rights.require(self.caller, path, privileges)

    def start(self, kind: str, item: str, then: str, arguments: Mapping[str, Any] | None = None) -> str:
        """Begin a task; its UPID."""
        return self.world.start_task(self.node, kind, item, self.caller.name, then, arguments)


Function = Callable[[Call], Any]
ROUTES: Final[dict[tuple[str, str], Function]] = {}


def route(call: str) -> Callable[[Function], Function]:
    """Make a function the answer to `METHOD /path/{part}`, as it stands in the table of methods."""
    verb, _, path = call.partition(" ")

    def keep(function: Function) -> Function:
        ROUTES[verb, path] = function
        return function

    return keep
