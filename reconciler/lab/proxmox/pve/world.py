"""The simulated cluster behind the API: its state, its clock, its quorum, its tasks. No HTTP here."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from reconciler.lab.proxmox.clock import Pace
from reconciler.lab.proxmox.pve.refusal import Refused, failed
from reconciler.lab.proxmox.world import State, Tasks

Effect = Callable[["World", State], None]
"""What a task does when it ends: it changes the world, adds lines to the task's log, or raises TaskFailed."""

EFFECTS: dict[str, Effect] = {}


UNDOING: dict[str, Effect] = {}


def undoing(name: str) -> Callable[[Effect], Effect]:
    """Make a function what clears away when a task with this effect fails or is stopped."""

    def keep(function: Effect) -> Effect:
        UNDOING[name] = function
        return function

    return keep


def effect(name: str) -> Callable[[Effect], Effect]:
    """Make a function the effect of tasks under this name; tasks carry the name, so that they fit into JSON."""

    def keep(function: Effect) -> Effect:
        EFFECTS[name] = function
        return function

    return keep


class BackupServer(Protocol):
    """What a storage of type pbs sees of its server."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate."""

    def admits(self, auth_id: str, secret: str) -> bool:
        """The login is right. `secret` is sealed."""

    def shows(self, auth_id: str) -> list[str]:
        """The datastores that this login may see."""


class World(Tasks):
    """State and services of a simulated cluster."""

    effects = EFFECTS
    undoing = UNDOING

    def __init__(self, state: State, clock: Callable[[], float], pace: Pace) -> None:
        super().__init__(state, clock, pace)
        self.backup_servers: dict[str, BackupServer] = {}
        self.failing_replications: dict[str, dict[str, Any]] = {}

    def upid(self, node: str, number: int, began: int, kind: str, item: str, caller: str) -> str:
        """The name of a task: node, pid, its start, time, type, item, user."""
        return f"UPID:{node}:{number + 0x1000:08X}:{number + 0xABC00:08X}:{began:08X}:{kind}:{item}:{caller}:"

    def mac(self) -> str:
        """A random MAC address with the prefix of Proxmox."""
        text = uuid.uuid4().hex.upper()
        return f"BC:24:11:{text[0:2]}:{text[2:4]}:{text[4:6]}"

    # nodes and quorum

    def nodes(self) -> dict[str, State]:
        """All nodes by name."""
        nodes: dict[str, State] = self.state["nodes"]
        return nodes

    def online(self, node: str) -> bool:
        """The node is up. One that does not exist is not."""
        return bool(self.nodes().get(node, {}).get("online"))

    def quorate(self) -> bool:
        """More than half of the nodes are up, unless it is forced."""
        forced = self.state["quorate"]
        if forced is not None:
            return bool(forced)
        votes = [entry["online"] for entry in self.nodes().values()]
        return bool(sum(votes) * 2 > len(votes))

    def require_quorum(self, file: str) -> None:
        """A write to a cluster-wide file. Refused: there is no quorum."""
        if not self.quorate():
            raise failed(f"cfs-lock 'file-{file}' error: no quorum!")

    # guests

    def guest(self, vmid: str) -> State | None:
        """A guest by its number."""
        found: State | None = self.state["guests"].get(vmid)
        return found

    def guest_at(self, vmid: str, node: str, kind: str = "qemu") -> State:
        """A guest that must run on this node. Refused: it does not."""
        found = self.guest(vmid)
        if found is None or found["node"] != node or found["type"] != kind:
            folder = "qemu-server" if kind == "qemu" else "lxc"
            raise failed(f"Configuration file 'nodes/{node}/{folder}/{vmid}.conf' does not exist")
        return found


def sha1(content: Any) -> str:
    """The digest of a configuration file with this content."""
    return hashlib.sha1(json.dumps(content, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


@contextmanager
def prefixed(prefix: str) -> Iterator[None]:
    """Refusals inside are told with a prefix, as `create storage failed: ...`."""
    try:
        yield
    except Refused as error:
        if error.status == 500:
            raise failed(f"{prefix}: {error.text}") from None
        raise
