"""The simulated cluster behind the API: its state, its clock, its quorum, its tasks. No HTTP here."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from reconciler.lab.proxmox.clock import Pace
from reconciler.lab.proxmox.pve.refusal import Refused, TaskFailed, failed
from reconciler.lab.proxmox.pve.state import State

Effect = Callable[["World", State], None]
"""What a task does when it ends: it changes the world, adds lines to the task's log, or raises TaskFailed."""

EFFECTS: dict[str, Effect] = {}


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


class World:
    """State and services of a simulated cluster. Not locked: the simulator lets one request in at a time."""

    def __init__(self, state: State, clock: Callable[[], float], pace: Pace) -> None:
        self.state = state
        self.clock = clock
        self.pace = pace
        self.backup_servers: dict[str, BackupServer] = {}
        self.failing_tasks: list[dict[str, Any]] = []
        self.failing_replications: dict[str, dict[str, Any]] = {}

    def now(self) -> int:
        """Seconds since the epoch."""
        return int(self.clock())

    def serial(self) -> int:
        """The next number of a series."""
        self.state["serial"] += 1
        return int(self.state["serial"])

    def uuid(self) -> str:
        """A random UUID."""
        return str(uuid.uuid4())

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
        """The node is up."""
        return bool(self.nodes()[node]["online"])

    def quorate(self) -> bool:
        """More than half of the nodes are up, unless it is forced."""
        forced = self.state["quorate"]
        if forced is not None:
            return bool(forced)
        votes = [entry["online"] for entry in self.nodes().values()]
        return sum(votes) * 2 > len(votes)

    def require_quorum(self, file: str) -> None:
        """A write to a cluster-wide file. Refused: there is no quorum."""
        if not self.quorate():
            raise failed(f"cfs-lock 'file-{file}' error: no quorum!")

    # tasks

    def start_task(
        self,
        node: str,
        kind: str,
        item: str,
        caller: str,
        then: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """Begin a task and return its UPID. What it does happens when it ends, `pace.task` seconds later."""
        number = self.serial()
        began = self.now()
        upid = f"UPID:{node}:{number + 0x1000:08X}:{number + 0xABC00:08X}:{began:08X}:{kind}:{item}:{caller}:"
        user, _, token = caller.partition("!")
        self.state["tasks"][upid] = {
            "upid": upid,
            "node": node,
            "pid": number + 0x1000,
            "pstart": number + 0xABC00,
            "starttime": began,
            "type": kind,
            "id": item,
            "user": user,
            **({"tokenid": token} if token else {}),
            "ends": self.clock() + self.pace.task,
            "log": [],
            "then": then,
            "arguments": dict(arguments or {}),
        }
        return upid

    def end_tasks(self) -> None:
        """End the tasks whose time has come, oldest first."""
        tasks = [task for task in self.state["tasks"].values() if "exitstatus" not in task]
        for task in sorted(tasks, key=lambda task: task["ends"]):
            if task["ends"] <= self.clock():
                self._end(task)

    def _end(self, task: State) -> None:
        task["endtime"] = int(task["ends"])
        try:
            broken = self._injected(task)
            if broken is not None:
                raise TaskFailed(broken)
            if task["then"] and not task.get("stopped"):
                EFFECTS[task["then"]](self, task)
        except TaskFailed as error:
            task["exitstatus"] = str(error)
            task["log"].append(f"TASK ERROR: {error}")
        except Refused as error:
            task["exitstatus"] = error.text
            task["log"].append(f"TASK ERROR: {error.text}")
        else:
            task["exitstatus"] = "OK"
            task["log"].append("TASK OK")

    def _injected(self, task: State) -> str | None:
        for entry in self.failing_tasks:
            if entry["type"] in (None, task["type"]) and entry["id"] in (None, task["id"]):
                entry["times"] -= 1
                if entry["times"] <= 0:
                    self.failing_tasks.remove(entry)
                task["log"] += entry["log"]
                return str(entry["text"])
        return None

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
