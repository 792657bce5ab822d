"""What is behind the API of a simulator: a state, a clock, tasks. No HTTP here."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.lab.proxmox.clock import Pace

State = dict[str, Any]


class TaskFailed(Exception):
    """A task ends with this exit status."""


class Tasks:
    """State, clock and tasks of a simulator. Not locked: the simulator lets one request in at a time.

    A task does nothing until it ends, `pace.task` seconds after its start; then its effect runs. Tasks carry the name
    of their effect and its arguments, so that they fit into JSON.
    """

    effects: Mapping[str, Callable[[Any, State], None]]
    undoing: Mapping[str, Callable[[Any, State], None]] = {}
    """What is cleared away when a task ends without its effect, by the name of the effect."""

    def __init__(self, state: State, clock: Callable[[], float], pace: Pace) -> None:
        self.state = state
        self.clock = clock
        self.pace = pace
        self.failing_tasks: list[dict[str, Any]] = []
        self.crashes: list[BaseException] = []

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

    def upid(self, node: str, number: int, began: int, kind: str, item: str, caller: str) -> str:
        """The name of a task."""
        raise NotImplementedError

    def start_task(
        self,
        node: str,
        kind: str,
        item: str,
        caller: str,
        then: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """Begin a task whose effect is `then`, and return its UPID."""
        number, began = self.serial(), self.now()
        upid = self.upid(node, number, began, kind, item, caller)
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
        running = [task for task in self.state["tasks"].values() if "exitstatus" not in task]
        for task in sorted(running, key=lambda task: task["ends"]):
            if task["ends"] <= self.clock():
                self._end(task)

    def _end(self, task: State) -> None:
        task["endtime"] = int(task["ends"])
        try:
            broken = self._injected(task)
            if broken is not None:
                raise TaskFailed(broken)
            if task["then"]:
                self.effects[task["then"]](self, task)
        except TaskFailed as error:
            self.give_up(task, str(error))
        except Exception as error:
            self.crashes.append(error)
            self.give_up(task, f"the simulator is at fault: {type(error).__name__}: {error}")
        else:
            task["exitstatus"] = "OK"
            task["log"].append("TASK OK")

    def give_up(self, task: State, text: str) -> None:
        """The task ends with an error."""
        task["exitstatus"] = text
        task["log"].append(f"TASK ERROR: {text}")
        undo = self.undoing.get(str(task["then"]))
        if undo is not None:
            undo(self, task)

    def _injected(self, task: State) -> str | None:
        for entry in self.failing_tasks:
            if entry["type"] in (None, task["type"]) and entry["id"] in (None, task["id"]):
                entry["times"] -= 1
                if entry["times"] <= 0:
                    self.failing_tasks.remove(entry)
                task["log"] += entry["log"]
                return str(entry["text"])
        return None
