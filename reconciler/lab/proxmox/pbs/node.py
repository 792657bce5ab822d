"""The backup server as a machine: version, certificate, ZFS pools, tasks."""

from __future__ import annotations

import datetime
from typing import Any

from reconciler.lab.proxmox.pbs import known
from reconciler.lab.proxmox.pbs.verify import Refused
from reconciler.lab.proxmox.pbs.world import Call, Full, World, effect, route
from reconciler.lab.proxmox.pve.state import pool
from reconciler.lab.proxmox.world import State, TaskFailed

SIZE = 1 << 40


@route("GET /version")
def version(call: Call) -> State:
    """The version of the server."""
    return dict(known.VERSION)


@route("GET /nodes/{node}/certificates/info")
def certificates(call: Call) -> list[State]:
    """The certificate that the API shows, with its fingerprint in lower case."""
    pem = next(iter(call.state["certificates"].values()))
    return [
        {
            "filename": "proxy.pem",
            "fingerprint": str(call.state["fingerprint"]).lower(),
            "subject": f"CN={call.node}",
            "issuer": f"CN={call.node}",
            "notbefore": 1735689600,
            "notafter": 2051049600,
            "pem": pem[pem.index("-----BEGIN CERTIFICATE-----") :],
            "public-key-type": "id-ecPublicKey",
            "public-key-bits": 256,
            "san": ["DNS:localhost", "IP:127.0.0.1", f"DNS:{call.node}"],
        }
    ]


@route("GET /nodes/{node}/disks/zfs")
def pools(call: Call) -> list[State]:
    """The ZFS pools."""
    return [
        {"name": name, **entry, "free": entry["size"] - entry["alloc"], "frag": 1, "dedup": 1.0}
        for name, entry in sorted(call.state["pools"].items())
    ]


@route("POST /nodes/{node}/disks/zfs")
def create_pool(call: Call) -> str:
    """A new ZFS pool, as a task; with `add-datastore` also a datastore on it."""
    name, devices = call.get("name"), call.get("devices").split(",")
    fewest = known.DISKS_OF_LEVEL[call.get("raidlevel")]
    for device in devices:
        if device in call.state["used_disks"]:
            raise Refused(f"disk '{device}' is already in use.")
        if device not in call.state["disks"]:
            raise Refused(f"no such disk '{device}'")
    if len(devices) < fewest:
        raise Refused(f"{call.get('raidlevel')} needs at least {fewest} disks.")
    if name in call.state["pools"]:
        raise Refused(f"zpool '{name}' already exists")
    arguments = {"name": name, "devices": devices, "add": call.get("add-datastore", False)}
    return call.start("zfscreate", name, "create pool", arguments)


@effect("create pool")
def _created(world: World, task: State) -> None:
    arguments, state = task["arguments"], world.state
    name = arguments["name"]
    if name in state["pools"]:
        raise TaskFailed(f"zpool '{name}' already exists")
    task["log"].append(f"create zpool '{name}' on devices '{','.join(arguments['devices'])}'")
    state["pools"][name] = pool(SIZE * len(arguments["devices"]), 0)
    state["used_disks"] += arguments["devices"]
    if arguments["add"]:
        state["datastores"][name] = {"path": f"/mnt/datastore/{name}"}


# tasks


def _owns(call: Call, task: State) -> bool:
    owner = f"{task['user']}!{task['tokenid']}" if "tokenid" in task else task["user"]
    return call.caller.name in (owner, task["user"]) or call.may("/system/tasks", "Sys.Audit")


def _listed(task: State) -> State:
    shown = {key: task[key] for key in ("upid", "node", "pid", "pstart", "starttime")}
    user = f"{task['user']}!{task['tokenid']}" if "tokenid" in task else task["user"]
    shown |= {"worker_type": task["type"], "worker_id": task["id"], "user": user}
    if "exitstatus" in task:
        shown |= {"endtime": task["endtime"], "status": task["exitstatus"]}
    return shown


def _word(task: State) -> str:
    status = task.get("exitstatus", "unknown")
    if status == "OK":
        return "ok"
    return "warning" if status.startswith("WARNINGS") else "unknown" if status == "unknown" else "error"


@route("GET /nodes/{node}/tasks")
def tasks(call: Call) -> Full:
    """The tasks, newest first."""
    found = [
        _listed(task)
        for task in reversed(call.state["tasks"].values())
        if _owns(call, task)
        and not (call.get("running") and "exitstatus" in task)
        and not (call.get("errors") and task.get("exitstatus", "OK") == "OK")
        and str(call.get("typefilter", "")) in task["type"]
        and str(call.get("userfilter", "")) in task["user"]
        and call.get("since", 0) <= task["starttime"] <= call.get("until", task["starttime"])
        and ("statusfilter" not in call.values or _word(task) in call.get("statusfilter"))
        and call.get("store", "") in task["id"]
    ]
    start, limit = call.get("start", 0), call.get("limit", 50)
    return Full(found[start : start + limit if limit else None], {"total": len(found)})


def _task(call: Call) -> State:
    task: State | None = call.state["tasks"].get(call.get("upid"))
    if task is None:
        raise Refused("no such task")
    if not _owns(call, task):
        raise Refused("permission check failed", 403)
    return task


@route("GET /nodes/{node}/tasks/{upid}")
def about(call: Call) -> list[State]:
    """What there is to ask about a task."""
    return [{"subdir": "log"}, {"subdir": "status"}]


@route("GET /nodes/{node}/tasks/{upid}/status")
def status(call: Call) -> State:
    """Whether a task runs, and how it ended."""
    task = _task(call)
    keys = ("upid", "node", "pid", "pstart", "starttime", "type", "id", "user", "tokenid")
    shown: dict[str, Any] = {key: task[key] for key in keys if key in task}
    if "exitstatus" in task:
        return {**shown, "status": "stopped", "exitstatus": task["exitstatus"]}
    return {**shown, "status": "running"}


@route("GET /nodes/{node}/tasks/{upid}/log")
def log(call: Call) -> Full:
    """A part of a task's log; each line with its time."""
    task = _task(call)
    moment = datetime.datetime.fromtimestamp(task["starttime"], datetime.UTC).isoformat()
    lines = [{"n": number, "t": f"{moment}: {text}"} for number, text in enumerate(task["log"], 1)]
    start, limit = call.get("start", 0), call.get("limit", 50)
    beside: State = {"total": len(lines)}
    if call.get("test-status"):
        beside["active"] = "exitstatus" not in task
    return Full(lines[start : start + limit if limit else None], beside)


@route("DELETE /nodes/{node}/tasks/{upid}")
def stop(call: Call) -> None:
    """Stop a task; one that has ended is no error."""
    task = _task(call)
    if "exitstatus" not in task:
        task["endtime"] = call.world.now()
        call.world.give_up(task, "task was aborted")
