"""Backup jobs of the cluster."""

from __future__ import annotations

from typing import Any, Final

from reconciler.lab.proxmox import calendar
from reconciler.lab.proxmox.pve.refusal import bad_inside, bad_parameters, denied, failed
from reconciler.lab.proxmox.pve.routes import Call, route
from reconciler.lab.proxmox.pve.state import State
from reconciler.lab.proxmox.pve.verify import TABLES, parse_string

WEEK: Final = "mon,tue,wed,thu,fri,sat,sun"
STEERING: Final = frozenset({"id", "delete", "starttime", "dow"})
ROOT_ONLY: Final = ("dumpdir", "script", "tmpdir")
STRINGS: Final = {
    "prune-backups": "prune-backups",
    "fleecing": "backup-fleecing",
    "performance": "backup-performance",
}
"""Options that answers show as objects, and the formats of their property strings."""


def _typed(key: str, text: str) -> Any:
    parameter = TABLES.method("POST", "/cluster/backup").parameters[key]
    return int(text) if parameter.type in ("boolean", "integer") else text


def _shown(call: Call, name: str, job: State, *, with_next: bool) -> State:
    shown = {"id": name, "type": "vzdump", **job}
    for key, group in STRINGS.items():
        if key in job:
            shown[key] = _object(group, job[key])
    if with_next and job["enabled"]:
        following = calendar.next_event(job["schedule"], call.world.now())
        if following is not None:
            shown["next-run"] = following
    return shown


def _object(name: str, text: str) -> State:
    group = TABLES.group(name) or {}
    found = parse_string(name, text)
    return {key: int(value) if group[key].type == "boolean" else value for key, value in found.items()}


@route("GET /cluster/backup")
def jobs(call: Call) -> list[State]:
    """All jobs, with their next run."""
    return [_shown(call, name, job, with_next=True) for name, job in sorted(call.state["backup_jobs"].items())]


@route("GET /cluster/backup/{id}")
def job(call: Call) -> State:
    """One job."""
    name = call.text("id")
    if name not in call.state["backup_jobs"]:
        raise bad_parameters({"id": f"No such job '{name}'"})
    return _shown(call, name, call.state["backup_jobs"][name], with_next=False)


def _given(call: Call) -> State:
    given: State = {}
    for key, value in call.parameters.items():
        if key in STEERING:
            continue
        given[key] = list(value) if isinstance(value, list) else _typed(key, value)
    for key in ROOT_ONLY:
        if key in given and not call.caller.root:
            raise denied(f"{key} is only allowed for root@pam")
    if call.has("starttime"):
        if call.has("schedule"):
            raise bad_parameters({"starttime": "'starttime' and 'schedule' cannot both be set"})
        days = call.text("dow", WEEK)
        given["schedule"] = call.text("starttime") if days == WEEK else f"{days} {call.text('starttime')}"
    if "pool" in given and given["pool"] not in call.state["pools"]:
        raise denied(f"pool '{given['pool']}' does not exist")
    return given


def _check_guests(job: State) -> None:
    """Exactly one of vmid, all, pool; exclude only with all."""
    if job.get("vmid"):
        for key in ("all", "exclude", "pool"):
            if job.get(key):
                raise bad_inside({key: "option conflicts with option 'vmid'"})
    elif not job.get("all") and not job.get("pool"):
        raise bad_inside({"vmid": "property is missing"})


@route("POST /cluster/backup")
def create_job(call: Call) -> None:
    """A new job. Neither storage nor guests need to exist."""
    given = _given(call)
    if "schedule" not in given:
        raise bad_parameters({"schedule": "neither 'starttime' nor 'schedule' were set"})
    _check_guests(given)
    name = call.text("id") or call.world.uuid()
    call.world.require_quorum("jobs_cfg")
    if name in call.state["backup_jobs"]:
        raise failed(f"Job '{name}' already exists")
    call.state["backup_jobs"][name] = {"enabled": 1, **{key: value for key, value in given.items() if value != ""}}


@route("PUT /cluster/backup/{id}")
def change_job(call: Call) -> None:
    """Change a job. A new choice of guests takes the place of the old one."""
    given, gone = _given(call), call.list("delete")
    call.world.require_quorum("jobs_cfg")
    name = call.text("id")
    if name not in call.state["backup_jobs"]:
        raise failed("no such vzdump job")
    job = dict(call.state["backup_jobs"][name])
    known = TABLES.method("PUT", "/cluster/backup/{id}").parameters
    for key in gone:
        if key not in known or key in (*STEERING, "schedule"):
            raise bad_inside({"delete": f"unknown option '{key}'"})
        job.pop(key, None)
    if given.get("vmid") or given.get("pool"):
        for key in ("all", "exclude", "vmid", "pool"):
            job.pop(key, None)
    elif given.get("all"):
        for key in ("vmid", "pool"):
            job.pop(key, None)
    for key, value in given.items():
        if value == "":
            job.pop(key, None)
        else:
            job[key] = value
    _check_guests(job)
    call.state["backup_jobs"][name] = job


@route("DELETE /cluster/backup/{id}")
def delete_job(call: Call) -> None:
    """Delete a job."""
    call.world.require_quorum("jobs_cfg")
    name = call.text("id")
    if call.state["backup_jobs"].pop(name, None) is None:
        raise bad_inside({"id": f"No such job '{name}'"})
