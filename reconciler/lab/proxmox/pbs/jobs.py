"""Prune, sync and verify jobs, and remotes of a backup server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from reconciler.lab.proxmox.pbs.datastores import next_run
from reconciler.lab.proxmox.pbs.verify import Refused, bad_parameter
from reconciler.lab.proxmox.pbs.world import Call, Full, route
from reconciler.lab.proxmox.pve.state import sealed
from reconciler.lab.proxmox.world import State

STEERING: Final = frozenset({"id", "name", "digest", "delete", "password"})


def _path(job: State) -> str:
    """Where the rights on a job are looked up."""
    namespace = job.get("ns", "")
    return f"/datastore/{job['store']}" + (f"/{namespace}" if namespace else "")


def _remote_path(job: State) -> str:
    return "/remote/" + "/".join(str(job[key]) for key in ("remote", "remote-store") if key in job)


def _may_read_sync(call: Call, job: State) -> bool:
    if not call.may(_path(job), "Datastore.Audit"):
        return False
    return "remote" not in job or call.may(_remote_path(job), "Remote.Audit")


def _may_write_sync(call: Call, job: State) -> bool:
    if job.get("sync-direction") == "push":
        wanted = "Remote.DatastoreBackup" + ("&Remote.DatastoreModify" if job.get("remove-vanished") else "")
        own = "Datastore.Read&Datastore.Audit&Datastore.Modify"
        return call.may(_remote_path(job), wanted) and call.may(_path(job), own)
    wanted = "Datastore.Backup" + ("&Datastore.Prune" if job.get("remove-vanished") else "")
    if job.get("owner", call.caller.name) != call.caller.name:
        wanted += "&Datastore.Modify"
    return call.may(_path(job), wanted) and ("remote" not in job or call.may(_remote_path(job), "Remote.Read"))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job: where it is kept, what it is called, who may see and change it."""

    key: str
    section: str
    read: Callable[[Call, State], bool]
    write: Callable[[Call, State], bool]
    quiet: frozenset[str] = frozenset()
    """Flags that are kept only when they are true."""


KINDS: Final = (
    Kind(
        "prune",
        "prune",
        lambda call, job: call.may(_path(job), "Datastore.Audit"),
        lambda call, job: call.may(_path(job), "Datastore.Modify"),
        frozenset({"disable"}),
    ),
    Kind("sync", "sync", _may_read_sync, _may_write_sync),
    Kind(
        "verify",
        "verification",
        lambda call, job: call.may(_path(job), "Datastore.Audit|Datastore.Verify"),
        lambda call, job: call.may(_path(job), "Datastore.Verify"),
    ),
)


def _write(call: Call, job: State, kind: Kind) -> State:
    changed = dict(job)
    for key in call.get("delete", []):
        changed.pop(key, None)
    for key, value in call.values.items():
        if key in STEERING:
            continue
        if value == "" or (value is False and key in kind.quiet):
            changed.pop(key, None)
        else:
            changed[key] = value
    return changed


def _check(kind: Kind, job: State) -> None:
    if kind.key != "sync":
        return
    if "remote" not in job:
        if job.get("sync-direction") == "push":
            raise bad_parameter("remote", "push jobs need a remote")
        same = job["store"] == job["remote-store"] and job.get("ns", "") == job.get("remote-ns", "")
        if same:
            raise bad_parameter("remote-store", "source and target must not be the same")


def _refuse(allowed: bool) -> None:
    if not allowed:
        raise Refused("permission check failed", 403)


def _make(kind: Kind) -> None:
    def digest(call: Call) -> dict[str, str]:
        return {"digest": call.world.digest(kind.key)}

    def existing(call: Call) -> State:
        found: State | None = call.state[kind.key].get(call.get("id"))
        if found is None:
            raise Refused(f"no such {kind.section} '{call.get('id')}'")
        return found

    def listed(call: Call, path: str) -> list[tuple[str, State]]:
        return [
            (name, job)
            for name, job in sorted(call.state[kind.key].items())
            if kind.read(call, job)
            and call.get("store", job["store"]) == job["store"]
            and (kind.key != "sync" or call.get("sync-direction", "pull") in ("all", job.get("sync-direction", "pull")))
        ]

    @route(f"GET /config/{kind.key}")
    def jobs(call: Call) -> Full:
        return Full([{"id": name, **job} for name, job in listed(call, "config")], digest(call))

    @route(f"GET /config/{kind.key}/{{id}}")
    def job(call: Call) -> Full:
        found = existing(call)
        _refuse(kind.read(call, found))
        return Full({"id": call.get("id"), **found}, digest(call))

    @route(f"POST /config/{kind.key}")
    def create(call: Call) -> None:
        made = _write(call, {}, kind)
        _refuse(kind.write(call, made))
        if call.get("id") in call.state[kind.key]:
            raise bad_parameter("id", f"job '{call.get('id')}' already exists.")
        _check(kind, made)
        call.state[kind.key][call.get("id")] = made

    @route(f"PUT /config/{kind.key}/{{id}}")
    def change(call: Call) -> None:
        found = existing(call)
        _refuse(kind.write(call, found))
        call.world.check_digest(call.get("digest"), kind.key)
        changed = _write(call, found, kind)
        _refuse(kind.write(call, changed))
        _check(kind, changed)
        call.state[kind.key][call.get("id")] = changed

    @route(f"DELETE /config/{kind.key}/{{id}}")
    def delete(call: Call) -> None:
        found = call.state[kind.key].get(call.get("id"))
        if found is None:
            raise Refused(f"job '{call.get('id')}' does not exist.", 404)
        _refuse(kind.write(call, found))
        call.world.check_digest(call.get("digest"), kind.key)
        del call.state[kind.key][call.get("id")]

    @route(f"GET /admin/{kind.key}")
    def states(call: Call) -> Full:
        answer = []
        for name, about in listed(call, "admin"):
            following = {} if about.get("disable") else next_run(about.get("schedule"), call.world.now())
            run: dict[str, Any] = call.state["runs"].get(f"{kind.key}:{name}", {})
            answer.append({"id": name, **about, **following, **run})
        return Full(answer, digest(call))

    @route(f"POST /admin/{kind.key}/{{id}}/run")
    def run(call: Call) -> str:
        _refuse(kind.write(call, existing(call)))
        word = {"prune": "prunejob", "sync": "syncjob", "verify": "verificationjob"}[kind.key]
        return call.start(word, call.get("id"), "run", {"key": f"{kind.key}:{call.get('id')}"})


for _kind in KINDS:
    _make(_kind)


# remotes


def _remote(call: Call) -> State:
    found: State | None = call.state["remotes"].get(call.get("name"))
    if found is None:
        raise Refused(f"no such remote '{call.get('name')}'")
    return found


def _shown(name: str, entry: State) -> State:
    return {"name": name, **{key: value for key, value in entry.items() if key != "sealed"}}


def _digest(call: Call) -> dict[str, str]:
    return {"digest": call.world.digest("remotes")}


@route("GET /config/remote")
def remotes(call: Call) -> Full:
    """The remotes that the caller may see, without passwords."""
    found = [
        _shown(name, entry)
        for name, entry in sorted(call.state["remotes"].items())
        if call.may(f"/remote/{name}", "Remote.Audit")
    ]
    return Full(found, _digest(call))


@route("GET /config/remote/{name}")
def remote(call: Call) -> Full:
    """One remote, without its password."""
    return Full(_shown(call.get("name"), _remote(call)), _digest(call))


def _put(call: Call, entry: State) -> None:
    for key in call.get("delete", []):
        entry.pop(key, None)
    for key, value in call.values.items():
        if key == "password":
            entry["sealed"] = sealed(value)
        elif key not in STEERING and value != "":
            entry[key] = value


@route("POST /config/remote")
def create_remote(call: Call) -> None:
    """A new remote. It is not tried out."""
    name = call.get("name")
    if name in call.state["remotes"]:
        raise bad_parameter("name", f"remote '{name}' already exists.")
    entry: State = {}
    _put(call, entry)
    call.state["remotes"][name] = entry


@route("PUT /config/remote/{name}")
def change_remote(call: Call) -> None:
    """Change a remote."""
    entry = _remote(call)
    call.world.check_digest(call.get("digest"), "remotes")
    _put(call, entry)


@route("DELETE /config/remote/{name}")
def delete_remote(call: Call) -> None:
    """Delete a remote that no sync job needs."""
    name = call.get("name")
    for job, about in call.state["sync"].items():
        if about.get("remote") == name:
            raise bad_parameter("name", f"remote '{name}' is used by sync job '{job}' (datastore '{about['store']}')")
    if name not in call.state["remotes"]:
        raise Refused(f"remote '{name}' does not exist.", 404)
    call.world.check_digest(call.get("digest"), "remotes")
    del call.state["remotes"][name]
