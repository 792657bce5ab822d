"""Datastores of a backup server, and what is in them."""

from __future__ import annotations

from typing import Any, Final

from reconciler.lab.proxmox import calendar
from reconciler.lab.proxmox.pbs.verify import Refused, bad_parameter
from reconciler.lab.proxmox.pbs.world import Call, Full, World, effect, route
from reconciler.lab.proxmox.world import State, TaskFailed

KEEP: Final = ("keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly")
STEERING: Final = frozenset(
    {"name", "digest", "delete", "prune-schedule", "reuse-datastore", "overwrite-in-use", "destroy-data", *KEEP}
)
SEEN: Final = "Datastore.Audit|Datastore.Backup"
SEEN_BELOW: Final = "Datastore.Audit|Datastore.Modify|Datastore.Read|Datastore.Verify|Datastore.Backup|Datastore.Prune"
"""One of them on a namespace shows its datastore."""
TOTAL: Final = 1 << 42
USED: Final = 1 << 38


def _digest(call: Call) -> dict[str, str]:
    return {"digest": call.world.digest("datastores")}


def _existing(call: Call, key: str = "name") -> State:
    name = call.get(key)
    found: State | None = call.state["datastores"].get(name)
    if found is None:
        raise Refused(f"no such datastore '{name}'")
    return found


@route("GET /config/datastore")
def datastores(call: Call) -> Full:
    """The datastores that the caller may see."""
    found = [
        {"name": name, **entry}
        for name, entry in sorted(call.state["datastores"].items())
        if call.may(f"/datastore/{name}", "Datastore.Audit")
    ]
    return Full(found, _digest(call))


@route("GET /config/datastore/{name}")
def datastore(call: Call) -> Full:
    """One datastore."""
    return Full({"name": call.get("name"), **_existing(call)}, _digest(call))


@route("POST /config/datastore")
def create_datastore(call: Call) -> str:
    """A new datastore, as a task that makes the chunk store."""
    name, path = call.get("name"), call.get("path")
    if name in call.state["datastores"]:
        raise bad_parameter("name", f"datastore '{name}' already exists.")
    if not path.startswith("/") and "backing-device" not in call.values:
        raise bad_parameter("path", "value does not match the regex pattern")
    for other, entry in call.state["datastores"].items():
        if f"{entry['path']}/".startswith(f"{path}/") or f"{path}/".startswith(f"{entry['path']}/"):
            raise Refused(f"nested datastores not allowed: '{other}' already in '{entry['path']}'")
    entry = {key: value for key, value in call.values.items() if key not in STEERING and value != ""}
    return call.start(
        "create-datastore",
        name,
        "create datastore",
        {
            "name": name,
            "entry": entry,
            "reuse": call.get("reuse-datastore", False),
            "prune": {key: call.values[key] for key in ("prune-schedule", *KEEP) if key in call.values},
        },
    )


@effect("create datastore")
def _created(world: World, task: State) -> None:
    arguments = task["arguments"]
    name, entry = arguments["name"], arguments["entry"]
    if arguments["reuse"]:
        if entry["path"] not in world.state["leftovers"]:
            raise TaskFailed(f"Chunkstore '{entry['path']}' not found")
    elif entry["path"] in world.state["leftovers"]:
        raise TaskFailed("datastore path not empty")
    else:
        task["log"].append(f"Chunkstore create: 100% - {entry['path']}")
    if name in world.state["datastores"]:
        raise TaskFailed(f"datastore '{name}' already exists.")
    world.state["leftovers"] = [path for path in world.state["leftovers"] if path != entry["path"]]
    world.state["datastores"][name] = entry
    prune = arguments["prune"]
    if "prune-schedule" in prune and len(prune) > 1:
        job = f"default-{name}-{world.uuid()}"[:32]
        schedule = prune.pop("prune-schedule")
        world.state["prune"][job] = {"store": name, "schedule": schedule, **prune}


@route("PUT /config/datastore/{name}")
def change_datastore(call: Call) -> None:
    """Change a datastore. Retention is refused: that is what prune jobs are for."""
    entry = _existing(call)
    call.world.check_digest(call.get("digest"), "datastores")
    for key in (*KEEP, "prune-schedule"):
        if key in call.values:
            raise bad_parameter(key, "datastore prune settings have been replaced by prune jobs")
    for key in call.get("delete", []):
        entry.pop(key, None)
    for key, value in call.values.items():
        if key in STEERING:
            continue
        if value == "":
            entry.pop(key, None)
        else:
            entry[key] = value


@route("DELETE /config/datastore/{name}")
def delete_datastore(call: Call) -> str:
    """Delete a datastore, as a task; its jobs and rights go with it, its backups only with `destroy-data`."""
    name = call.get("name")
    if name not in call.state["datastores"]:
        raise Refused(f"datastore '{name}' does not exist.", 404)
    call.world.check_digest(call.get("digest"), "datastores")
    arguments = {
        "name": name,
        "keep": call.get("keep-job-configs", False),
        "destroy": call.get("destroy-data", False),
    }
    return call.start("delete-datastore", name, "delete datastore", arguments)


@effect("delete datastore")
def _deleted(world: World, task: State) -> None:
    arguments, state = task["arguments"], world.state
    name = arguments["name"]
    entry = state["datastores"].pop(name, None)
    if entry is None:
        raise TaskFailed(f"datastore '{name}' does not exist.")
    state["namespaces"].pop(name, None)
    if not arguments["destroy"]:
        state["leftovers"].append(entry["path"])
    if not arguments["keep"]:
        for kind in ("prune", "sync", "verify"):
            state[kind] = {job: about for job, about in state[kind].items() if about["store"] != name}
        path = f"/datastore/{name}"
        state["acl"] = [
            entry for entry in state["acl"] if entry["path"] != path and not entry["path"].startswith(f"{path}/")
        ]


# what is in them


@route("GET /admin/datastore")
def seen(call: Call) -> list[State]:
    """The datastores that the caller may use; those of which only a namespace may be used, without comment."""
    found = []
    for name, entry in sorted(call.state["datastores"].items()):
        whole = call.may(f"/datastore/{name}", SEEN)
        if whole or call.rights.may_below(call.caller, f"/datastore/{name}", SEEN_BELOW):
            row = {"store": name, "mount-status": "nonremovable", "backend-type": "filesystem"}
            if whole and "comment" in entry:
                row["comment"] = entry["comment"]
            if "maintenance-mode" in entry:
                row["maintenance"] = entry["maintenance-mode"]
            found.append(row)
    return found


@route("GET /status/datastore-usage")
def usage(call: Call) -> list[State]:
    """How full the datastores are."""
    return [
        {"store": name, "mount-status": "nonremovable", "backend-type": "filesystem", **_figures()}
        for name in sorted(call.state["datastores"])
        if call.may(f"/datastore/{name}", SEEN)
    ]


def _figures() -> dict[str, int]:
    return {"total": TOTAL, "used": USED, "avail": TOTAL - USED}


@route("GET /admin/datastore/{store}/status")
def status(call: Call) -> State:
    """How full one is."""
    call.require(f"/datastore/{call.get('store')}", SEEN)
    _existing(call, "store")
    return {**_figures(), "backend-type": "filesystem"}


@route("GET /admin/datastore/{store}/snapshots")
@route("GET /admin/datastore/{store}/groups")
def nothing(call: Call) -> list[Any]:
    """No backups: nothing is ever backed up here."""
    call.require(f"/datastore/{call.get('store')}", "Datastore.Audit|Datastore.Backup|Datastore.Read")
    _existing(call, "store")
    return []


@route("GET /admin/datastore/{store}/namespace")
def namespaces(call: Call) -> list[State]:
    """The namespaces, the empty one for the root included."""
    store = call.get("store")
    call.require(f"/datastore/{store}", "Datastore.Audit|Datastore.Backup|Datastore.Modify")
    _existing(call, "store")
    parent = call.get("parent", "")
    inside = [
        name for name in call.state["namespaces"].get(store, []) if not parent or f"{name}/".startswith(f"{parent}/")
    ]
    deepest = call.get("max-depth", 7) + len(parent.split("/")) * bool(parent)
    found = [] if parent else [""]
    return [{"ns": name} for name in [*found, *sorted(inside)] if not name or len(name.split("/")) <= deepest]


@route("POST /admin/datastore/{store}/namespace")
def create_namespace(call: Call) -> str:
    """A new namespace; its parent must exist."""
    store, parent = call.get("store"), call.get("parent", "")
    call.require(f"/datastore/{store}" + (f"/{parent}" if parent else ""), "Datastore.Modify")
    _existing(call, "store")
    known = call.state["namespaces"].setdefault(store, [])
    if parent and parent not in known:
        raise Refused(f"cannot create new namespace, parent {parent} doesn't already exists")
    name = f"{parent}/{call.get('name')}" if parent else str(call.get("name"))
    if name in known:
        raise Refused(f"namespace '{name}' already exists")
    if len(name.split("/")) > 7:
        raise Refused("namespace would exceed maximum depth of 7")
    known.append(name)
    return name


@route("DELETE /admin/datastore/{store}/namespace")
def delete_namespace(call: Call) -> None:
    """Delete a namespace with those below it."""
    store, name = call.get("store"), call.get("ns")
    call.require(f"/datastore/{store}/{name}", "Datastore.Modify")
    _existing(call, "store")
    known = call.state["namespaces"].get(store, [])
    if name not in known:
        raise Refused(f"namespace '{name}' does not exist")
    call.state["namespaces"][store] = [one for one in known if not f"{one}/".startswith(f"{name}/")]


@route("GET /admin/datastore/{store}/gc")
def collection(call: Call) -> State:
    """The last garbage collection, and the next."""
    entry = _existing(call, "store")
    store = call.get("store")
    shown: State = {"store": store, "disk-bytes": USED, "disk-chunks": 4096, "pending-bytes": 0, "pending-chunks": 0}
    shown |= {"index-data-bytes": USED, "index-file-count": 0}
    shown |= dict.fromkeys(("removed-bad", "removed-bytes", "removed-chunks", "still-bad"), 0)
    if "gc-schedule" in entry:
        following = calendar.next_event(entry["gc-schedule"], call.world.now())
        shown |= {"schedule": entry["gc-schedule"], **({"next-run": following} if following else {})}
    return {**shown, **call.state["runs"].get(f"gc:{store}", {})}


@route("POST /admin/datastore/{store}/gc")
def collect(call: Call) -> str:
    """Collect garbage, as a task."""
    _existing(call, "store")
    return call.start("garbage_collection", call.get("store"), "run", {"key": f"gc:{call.get('store')}"})


@route("POST /admin/datastore/{store}/verify")
def verify(call: Call) -> str:
    """Verify all backups, as a task."""
    call.require(f"/datastore/{call.get('store')}", "Datastore.Verify")
    _existing(call, "store")
    return call.start("verify", call.get("store"), "run", {"key": f"verify-store:{call.get('store')}"})


@route("POST /admin/datastore/{store}/prune-datastore")
def prune(call: Call) -> str:
    """Prune all backups, as a task."""
    call.require(f"/datastore/{call.get('store')}", "Datastore.Modify")
    _existing(call, "store")
    return call.start("prune", call.get("store"), "run", {"key": f"prune-store:{call.get('store')}"})


@effect("run")
def _run(world: World, task: State) -> None:
    world.state["runs"][task["arguments"]["key"]] = {
        "last-run-upid": task["upid"],
        "last-run-state": "OK",
        "last-run-endtime": task["endtime"],
    }


def next_run(schedule: str | None, now: int) -> dict[str, int]:
    """`next-run` of a schedule, if there is one."""
    following = calendar.next_event(schedule, now) if schedule else None
    return {"next-run": following} if following else {}
