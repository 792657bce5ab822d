"""Storage replication: the jobs, and what a node says about those whose guest it runs."""

from __future__ import annotations

from typing import Any, Final

from reconciler.lab.proxmox import calendar
from reconciler.lab.proxmox.pve import devices, volumes
from reconciler.lab.proxmox.pve.refusal import bad_parameters, denied, failed
from reconciler.lab.proxmox.pve.routes import Call, Full, route
from reconciler.lab.proxmox.pve.state import State
from reconciler.lab.proxmox.pve.world import World, sha1

OPTIONS: Final = ("comment", "disable", "rate", "remove_job", "schedule", "source")
EVERY: Final = "*/15"


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() else value


def digest(world: World) -> str:
    """The digest of replication.cfg."""
    return sha1({name: _written(job) for name, job in world.state["replication"].items()})


def _written(job: State) -> State:
    """The keys of a job that stand in the file."""
    return {key: value for key, value in job.items() if key not in ("state", "log", "marked", "created")}


def _shown(name: str, job: State) -> State:
    guest, _, number = name.partition("-")
    return {"id": name, "guest": int(guest), "jobnum": int(number), **_written(job)}


def _job(call: Call, text: str = "no such job '{}'") -> State:
    name = call.text("id")
    found: State | None = call.state["replication"].get(name)
    if found is None:
        raise failed(text.format(name))
    return found


def _guest_path(name: str) -> str:
    return f"/vms/{name.partition('-')[0]}"


@route("GET /cluster/replication")
def jobs(call: Call) -> list[State]:
    """The jobs of guests that the caller may see. Without digest."""
    return [
        _shown(name, job)
        for name, job in sorted(call.state["replication"].items())
        if call.may(_guest_path(name), "VM.Audit")
    ]


@route("GET /cluster/replication/{id}")
def job(call: Call) -> State:
    """One job, with the digest."""
    name = call.text("id")
    call.require(_guest_path(name), "VM.Audit")
    return {**_shown(name, _job(call, "no such replication job '{}'")), "digest": digest(call.world)}


def _put(call: Call, job: State) -> None:
    for key in OPTIONS:
        if not call.has(key):
            continue
        text = call.text(key)
        if text == "" or (key == "disable" and text == "0"):
            job.pop(key, None)
        elif key == "disable":
            job[key] = 1
        elif key == "rate":
            job[key] = _number(text)
        else:
            job[key] = text


@route("POST /cluster/replication")
def create_job(call: Call) -> None:
    """A new job."""
    name, target = call.text("id"), call.text("target")
    vmid = name.partition("-")[0]
    call.require(_guest_path(name), "VM.Replicate")
    call.world.require_quorum("replication_cfg")
    if name in call.state["replication"]:
        raise failed(f"replication job '{name}' already exists")
    guest = call.world.guest(vmid)
    if guest is None:
        raise failed(f"Guest '{vmid}' does not exist.")
    source = guest["node"]
    if call.text("source", source) != source:
        raise failed(f"Source '{call.text('source')}' does not match current node of guest '{vmid}' ({source})")
    if target not in call.world.nodes():
        raise failed(f"Target '{target}' does not exist.")
    if target == source:
        raise failed("Source and target must not be identical")
    for other, entry in call.state["replication"].items():
        if other.partition("-")[0] == vmid and entry["target"] == target:
            raise failed(f"replication job for guest '{vmid}' to target 'local/{target}' already exists")
    if not replicated(call.world, guest):
        raise failed("No replicatable volumes found")
    job: State = {"type": "local", "target": target}
    _put(call, job)
    job["source"] = source
    job["created"] = call.world.now()
    job["state"] = {"fail_count": 0, "last_sync": 0, "last_try": 0}
    call.state["replication"][name] = job


def replicated(world: World, guest: State) -> list[str]:
    """The volumes of a guest that replication copies. Refused: one of them cannot be."""
    found = []
    for _, drive in devices.drives(guest):
        volid = drive["file"]
        if drive.get("replicate") == "0" or ":" not in volid or drive.get("media") == "cdrom":
            continue
        entry = volumes.storage(world, volumes.parse(volid)[0])
        if volumes.is_shared(entry):
            continue
        if entry["type"] != "zfspool":
            raise failed(f"missing replicate feature on volume '{volid}'")
        found.append(volid)
    return found


@route("PUT /cluster/replication/{id}")
def change_job(call: Call) -> None:
    """Change a job. `source` is not checked."""
    call.require(_guest_path(call.text("id")), "VM.Replicate")
    call.world.require_quorum("replication_cfg")
    job = _job(call)
    if call.has("digest") and call.text("digest") != digest(call.world):
        raise failed("detected modified configuration - file changed by other user? Try again.")
    for key in call.list("delete"):
        if key == "target":
            raise failed(f"unable to delete required option '{key}'")
        if key not in OPTIONS:
            raise failed(f"no such option '{key}'")
        if call.has(key):
            raise failed(f"cannot set and delete property '{key}' at the same time!")
    for key in call.list("delete"):
        job.pop(key, None)
    _put(call, job)


@route("DELETE /cluster/replication/{id}")
def delete_job(call: Call) -> None:
    """Mark a job for removal; with `force` it is gone at once and its copies stay."""
    call.require(_guest_path(call.text("id")), "VM.Replicate")
    if call.flag("keep") and call.flag("force"):
        raise bad_parameters({"keep": "conflicts with parameter 'force'"})
    call.world.require_quorum("replication_cfg")
    job = _job(call)
    if call.flag("force"):
        del call.state["replication"][call.text("id")]
    else:
        job["remove_job"] = "local" if call.flag("keep") else "full"


# what a node says


def next_sync(world: World, job: State) -> int:
    """When the job runs next: by its schedule, or 5, 10, 15, then every 30 minutes after a failure."""
    state = job["state"]
    if state["fail_count"]:
        minutes = 5 * state["fail_count"] if state["fail_count"] <= 3 else 30
        return int(state["last_try"]) + 60 * minutes
    after = 0 if job.get("disable") else max(state["last_try"], job.get("created", 0))
    return calendar.next_event(job.get("schedule", EVERY), after) or 0


def _status(world: World, name: str, job: State) -> State:
    guest = world.guest(name.partition("-")[0])
    kind = {"vmtype": guest["type"]} if guest else {}
    state = {key: value for key, value in job["state"].items() if key not in ("ends", "before", "began", "mark")}
    return {**_shown(name, job), **state, "next_sync": next_sync(world, job), **kind}


def _here(call: Call) -> tuple[str, State]:
    name = call.text("id")
    call.require(_guest_path(name), "VM.Audit")
    job = call.state["replication"].get(name)
    if job is None or job["source"] != call.node:
        raise failed(f"no such replication job '{name}'")
    return name, job


@route("GET /nodes/{node}/replication")
def node_jobs(call: Call) -> list[State]:
    """The jobs whose source is this node, with their state."""
    return [
        _status(call.world, name, job)
        for name, job in sorted(call.state["replication"].items())
        if job["source"] == call.node
        and call.get("guest") in (None, name.partition("-")[0])
        and call.may(_guest_path(name), "VM.Audit")
    ]


@route("GET /nodes/{node}/replication/{id}")
def node_job(call: Call) -> list[State]:
    """What there is to ask about a job."""
    return [{"name": name} for name in ("log", "schedule_now", "status")]


@route("GET /nodes/{node}/replication/{id}/status")
def node_job_status(call: Call) -> State:
    """The state of a job, on its source."""
    return _status(call.world, *_here(call))


@route("GET /nodes/{node}/replication/{id}/log")
def node_job_log(call: Call) -> Full:
    """The log of the last run."""
    guest_path = _guest_path(call.text("id"))
    if not call.may(guest_path, "VM.Audit") and not call.may(f"/nodes/{call.node}", "Sys.Audit"):
        raise denied(f"{guest_path}, VM.Audit")
    job: Any = call.state["replication"].get(call.text("id")) or {}
    lines = job.get("log") or ["unable to open file - No such file or directory"]
    return page(lines, call)


def page(lines: list[str], call: Call) -> Full:
    """A part of a log as answers show it: numbered lines, and how many there are."""
    start, limit = call.number("start"), call.number("limit", 50)
    shown = [{"n": number, "t": text} for number, text in enumerate(lines, 1)][start : start + limit if limit else None]
    return Full(shown, {"total": len(lines)})


@route("POST /nodes/{node}/replication/{id}/schedule_now")
def schedule_now(call: Call) -> str:
    """Run a job at the scheduler's next round; on a node that is not the source nothing happens, without an error."""
    name = call.text("id")
    call.require(_guest_path(name), "VM.Replicate")
    job = _job(call, "no such replication job '{}'")
    if job["source"] == call.node:
        job["marked"] = True
    return ""
