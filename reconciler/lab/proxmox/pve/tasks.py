"""Tasks: lists, status, logs."""

from __future__ import annotations

import re
from typing import Any

from reconciler.lab.proxmox.pve.refusal import bad_parameters, denied
from reconciler.lab.proxmox.pve.replication import page
from reconciler.lab.proxmox.pve.routes import Call, Full, route
from reconciler.lab.proxmox.pve.state import State

UPID = re.compile(r"UPID:[a-zA-Z0-9-]+:[0-9A-Fa-f]{8}:[0-9A-Fa-f]{8,9}:[0-9A-Fa-f]{8}:[^:\s]+:[^:\s]*:[^:\s]+:")
KEYS = ("upid", "node", "pid", "pstart", "starttime", "type", "id", "user", "tokenid")


def _owns(call: Call, task: State) -> bool:
    name = f"{task['user']}!{task['tokenid']}" if "tokenid" in task else task["user"]
    return call.caller.name == name or (call.caller.token is None and call.caller.user == task["user"])


def _shown(task: State) -> State:
    shown = {key: task[key] for key in KEYS if key in task}
    if "exitstatus" in task:
        shown |= {"endtime": task["endtime"], "status": task["exitstatus"]}
    return shown


@route("GET /nodes/{node}/tasks")
def tasks(call: Call) -> Full:
    """The tasks of a node, newest first; without `source` only those that have ended."""
    audit = call.may(f"/nodes/{call.node}", "Sys.Audit")
    found = [
        _shown(task)
        for task in reversed(call.state["tasks"].values())
        if task["node"] == call.node and (audit or _owns(call, task)) and _wanted(call, task)
    ]
    start, limit = call.number("start"), call.number("limit", 50)
    return Full(found[start : start + limit if limit else None], {"total": len(found)} if found else {})


def _wanted(call: Call, task: State) -> bool:
    """The task passes the filters of the request."""
    ended = "exitstatus" in task
    words = [word.lower() for word in call.list("statusfilter")]
    return (
        (call.text("source", "archive"), ended) not in (("archive", False), ("active", True))
        and not (call.flag("errors") and task.get("exitstatus", "OK") == "OK")
        and (not words or _word(task) in words)
        and call.text("typefilter", task["type"]) == task["type"]
        and call.text("vmid", task["id"]) == task["id"]
        and call.text("userfilter") in task["user"]
        and call.number("since") <= task["starttime"] <= call.number("until", task["starttime"])
    )


def _word(task: State) -> str:
    status = task.get("exitstatus", "unknown")
    if status == "OK":
        return "ok"
    return "warning" if status.startswith("WARNINGS") else "unknown" if status == "unknown" else "error"


@route("GET /cluster/tasks")
def cluster_tasks(call: Call) -> list[State]:
    """The tasks of the whole cluster."""
    answer = []
    for task in reversed(call.state["tasks"].values()):
        if _owns(call, task) or call.may(f"/nodes/{task['node']}", "Sys.Audit"):
            shown = _shown(task)
            for key in ("pid", "pstart"):
                del shown[key]
            answer.append({**shown, **({"saved": 1} if "exitstatus" in task else {})})
    return answer[:50]


def _task(call: Call) -> State | None:
    upid = call.text("upid")
    if not UPID.fullmatch(upid):
        raise bad_parameters({"upid": "unable to parse worker upid"})
    task: State | None = call.state["tasks"].get(upid)
    if task is not None and task["node"] != call.node:
        task = None
    user = task["user"] if task else upid.split(":")[7].partition("!")[0]
    if user != call.caller.user and not call.may(f"/nodes/{call.node}", "Sys.Audit"):
        raise denied(f"/nodes/{call.node}, Sys.Audit")
    return task


@route("GET /nodes/{node}/tasks/{upid}")
def about(call: Call) -> list[State]:
    """What there is to ask about a task."""
    return [{"name": "log"}, {"name": "status"}]


@route("GET /nodes/{node}/tasks/{upid}/status")
def status(call: Call) -> State:
    """Whether a task runs, and how it ended."""
    task = _task(call)
    if task is None:
        raise bad_parameters({"upid": "no such task"})
    shown: dict[str, Any] = {key: task[key] for key in KEYS if key in task}
    if "exitstatus" in task:
        return {**shown, "status": "stopped", "exitstatus": task["exitstatus"]}
    return {**shown, "status": "running"}


@route("GET /nodes/{node}/tasks/{upid}/log")
def log(call: Call) -> Full:
    """A part of a task's log."""
    task = _task(call)
    return page(task["log"] if task else ["unable to open file - No such file or directory"], call)


@route("DELETE /nodes/{node}/tasks/{upid}")
def stop(call: Call) -> None:
    """Stop a task; one that has ended is no error."""
    task = _task(call)
    if task is not None and "exitstatus" not in task:
        task["endtime"] = call.world.now()
        call.world.give_up(task, "unexpected status")
