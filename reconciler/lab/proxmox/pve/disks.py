"""ZFS pools of the nodes."""

from __future__ import annotations

from typing import Any, Final

from reconciler.lab.proxmox.pve.refusal import TaskFailed, failed
from reconciler.lab.proxmox.pve.routes import Call, route
from reconciler.lab.proxmox.pve.state import State, pool
from reconciler.lab.proxmox.pve.world import World, effect

DISK: Final = 1 << 40
"""The size of each disk in bytes."""


@route("GET /nodes/{node}/disks/zfs")
def pools(call: Call) -> list[State]:
    """The ZFS pools of a node."""
    return [
        {"name": name, **entry, "free": entry["size"] - entry["alloc"], "frag": 3, "dedup": 1}
        for name, entry in sorted(call.world.nodes()[call.node]["pools"].items())
    ]


@route("GET /nodes/{node}/disks/zfs/{name}")
def one(call: Call) -> State:
    """One pool."""
    name = call.text("name")
    if name not in call.world.nodes()[call.node]["pools"]:
        raise failed(f"cannot open '{name}': no such pool")
    device: dict[str, Any] = {"name": name, "state": "ONLINE", "leaf": 0, "children": []}
    return {"name": name, "state": "ONLINE", "errors": "No known data errors", "children": [device]}


@route("POST /nodes/{node}/disks/zfs")
def create(call: Call) -> str:
    """A new pool, as a task; with `add_storage` also a storage for it. Any device is taken to be there and unused."""
    name = call.text("name")
    if name in call.world.nodes()[call.node]["pools"]:
        raise failed(f"pool '{name}' already exists on node '{call.node}'")
    if call.flag("add_storage"):
        call.require("/storage", "Datastore.Allocate")
        if name in call.state["storages"]:
            raise failed(f"storage ID '{name}' already defined")
    arguments = {"name": name, "devices": call.list("devices"), "add": call.flag("add_storage")}
    return call.world.start_task(call.node, "zfscreate", name, call.caller.name, "create pool", arguments)


@effect("create pool")
def _created(world: World, task: State) -> None:
    arguments, node = task["arguments"], world.nodes()[task["node"]]
    name = arguments["name"]
    if name in node["pools"]:
        raise TaskFailed(f"pool '{name}' already exists on node '{task['node']}'")
    node["pools"][name] = pool(DISK * len(arguments["devices"]), 0)
    node["datasets"].append(name)
    if arguments["add"]:
        entry = {"type": "zfspool", "pool": name, "content": "images,rootdir", "mountpoint": f"/{name}"}
        world.state["storages"][name] = {**entry, "nodes": task["node"]}
        world.state["storage_writes"] += 1


@route("DELETE /nodes/{node}/disks/zfs/{name}")
def destroy(call: Call) -> str:
    """Destroy a pool with everything in it, as a task; with `cleanup-config` also its storages."""
    name = call.text("name")
    if call.flag("cleanup-config"):
        call.require("/storage", "Datastore.Allocate")
    arguments = {"name": name, "clean": call.flag("cleanup-config")}
    return call.world.start_task(call.node, "zfsremove", name, call.caller.name, "destroy pool", arguments)


@effect("destroy pool")
def _destroyed(world: World, task: State) -> None:
    name, node = task["arguments"]["name"], world.nodes()[task["node"]]
    if node["pools"].pop(name, None) is None:
        raise TaskFailed(f"cannot open '{name}': no such pool")
    inside = [dataset for dataset in node["datasets"] if f"{dataset}/".startswith(f"{name}/")]
    node["datasets"] = [dataset for dataset in node["datasets"] if dataset not in inside]
    for dataset in inside:
        world.state["volumes"].get(task["node"], {}).pop(f"zfspool:{dataset}", None)
    if task["arguments"]["clean"]:
        storages = world.state["storages"]
        for storage in [
            key for key, entry in storages.items() if entry["type"] == "zfspool" and entry["pool"] in inside
        ]:
            del storages[storage]
        world.state["storage_writes"] += 1
