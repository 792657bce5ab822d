"""What is done with guests: status, start and stop, resizing, moving, migrating, templates."""

from __future__ import annotations

import re
from typing import Any

from reconciler.lab.proxmox.pve import devices, volumes
from reconciler.lab.proxmox.pve.guests import digest, listed
from reconciler.lab.proxmox.pve.refusal import TaskFailed, bad_parameters, failed
from reconciler.lab.proxmox.pve.replication import replicated
from reconciler.lab.proxmox.pve.routes import Call, route
from reconciler.lab.proxmox.pve.scheduler import Log, run, turn_round
from reconciler.lab.proxmox.pve.state import State
from reconciler.lab.proxmox.pve.world import World, effect


def _guest(call: Call, kind: str = "qemu") -> State:
    return call.world.guest_at(call.text("vmid"), call.node, kind)


def _task(call: Call, kind: str, then: str, arguments: dict[str, Any] | None = None) -> str:
    return call.world.start_task(call.node, kind, call.text("vmid"), call.caller.name, then, arguments)


@route("GET /nodes/{node}/qemu/{vmid}")
def about(call: Call) -> list[State]:
    """What there is to ask about a machine."""
    return [{"subdir": name} for name in ("config", "migrate", "pending", "status")]


@route("GET /nodes/{node}/lxc/{vmid}")
def about_container(call: Call) -> list[State]:
    """What there is to ask about a container."""
    return [{"subdir": "config"}]


@route("GET /nodes/{node}/qemu/{vmid}/status")
def about_status(call: Call) -> list[State]:
    """What there is to do with its status."""
    words = ("current", "reboot", "reset", "resume", "shutdown", "start", "stop", "suspend")
    return [{"subdir": name} for name in words]


@route("GET /nodes/{node}/qemu/{vmid}/status/current")
def current(call: Call) -> State:
    """The status of a machine."""
    guest = _guest(call)
    lock = {"lock": guest["config"]["lock"]} if "lock" in guest["config"] else {}
    return {**listed(call.text("vmid"), guest), "qmpstatus": guest["status"], "ha": {"managed": 0}, **lock}


def _set_status(call: Call, kind: str, status: str) -> str:
    guest = _guest(call)
    if kind == "qmstart" and guest["config"].get("template"):
        raise failed("you can't start a vm if it's a template")
    if kind in ("qmreset", "qmsuspend", "qmresume", "qmreboot") and guest["status"] == "stopped":
        raise failed(f"VM {call.text('vmid')} not running")
    return _task(call, kind, "set status", {"status": status})


@effect("set status")
def _status_set(world: World, task: State) -> None:
    world.guest_at(task["id"], task["node"])["status"] = task["arguments"]["status"]


@route("POST /nodes/{node}/qemu/{vmid}/status/start")
def start(call: Call) -> str:
    """Start a machine."""
    if _guest(call)["status"] == "running":
        raise failed(f"VM {call.text('vmid')} already running")
    return _set_status(call, "qmstart", "running")


@route("POST /nodes/{node}/qemu/{vmid}/status/stop")
def stop(call: Call) -> str:
    """Stop a machine; one that is stopped is no error."""
    return _set_status(call, "qmstop", "stopped")


@route("POST /nodes/{node}/qemu/{vmid}/status/shutdown")
def shutdown(call: Call) -> str:
    """Shut a machine down; one that is stopped is no error."""
    return _set_status(call, "qmshutdown", "stopped")


@route("POST /nodes/{node}/qemu/{vmid}/status/reboot")
def reboot(call: Call) -> str:
    """Restart a machine."""
    return _set_status(call, "qmreboot", "running")


@route("POST /nodes/{node}/qemu/{vmid}/status/reset")
def reset(call: Call) -> str:
    """Reset a machine."""
    return _set_status(call, "qmreset", "running")


@route("POST /nodes/{node}/qemu/{vmid}/status/suspend")
def suspend(call: Call) -> str:
    """Suspend a machine."""
    return _set_status(call, "qmsuspend", "stopped" if call.flag("todisk") else "paused")


@route("POST /nodes/{node}/qemu/{vmid}/status/resume")
def resume(call: Call) -> str:
    """Resume a machine."""
    return _set_status(call, "qmresume", "running")


# disks


@route("PUT /nodes/{node}/qemu/{vmid}/resize")
def resize(call: Call) -> str:
    """Enlarge a disk, as a task that checks everything."""
    _guest(call)
    arguments = {"disk": call.text("disk"), "size": call.text("size"), "digest": call.get("digest")}
    return _task(call, "resize", "resize disk", arguments)


@effect("resize disk")
def _resized(world: World, task: State) -> None:
    arguments, config = task["arguments"], world.guest_at(task["id"], task["node"])["config"]
    if arguments["digest"] and arguments["digest"] != digest(config):
        raise TaskFailed("checksum mismatch (file change by other user?)")
    slot = arguments["disk"]
    if slot not in config:
        raise TaskFailed(f"disk '{slot}' does not exist")
    drive = devices.parse_drive("qemu", slot, config[slot])
    volume = volumes.find(world, task["node"], drive["file"])
    wanted = volumes.bytes_of(arguments["size"].removeprefix("+"))
    size = volume["size"] + wanted if arguments["size"].startswith("+") else wanted
    if size < volume["size"]:
        raise TaskFailed("shrinking disks is not supported")
    volume["size"] = size
    config[slot] = devices.print_drive({**drive, "size": volumes.size_text(size)})


@route("POST /nodes/{node}/qemu/{vmid}/move_disk")
def move_disk(call: Call) -> str:
    """Copy a disk to another storage, as a task; the old volume becomes unused or is deleted."""
    guest, slot = _guest(call), call.text("disk")
    if slot not in guest["config"]:
        raise failed(f"disk '{slot}' does not exist")
    if not call.has("storage"):
        raise bad_parameters({"storage": "property is missing and it is not optional"})
    volumes.storage(call.world, call.text("storage"))
    call.require(f"/storage/{call.text('storage')}", "Datastore.AllocateSpace")
    if call.has("digest") and call.text("digest") != digest(guest["config"]):
        raise failed("checksum mismatch (file change by other user?)")
    arguments = {
        "disk": slot,
        "storage": call.text("storage"),
        "format": call.get("format"),
        "delete": call.flag("delete"),
    }
    return _task(call, "qmmove", "move disk", arguments)


@effect("move disk")
def _moved(world: World, task: State) -> None:
    arguments, config = task["arguments"], world.guest_at(task["id"], task["node"])["config"]
    slot, target = arguments["disk"], arguments["storage"]
    disks = devices.Disks(world, task["node"], task["id"], config, task["log"])
    drive = devices.parse_drive("qemu", slot, config[slot])
    old = drive["file"]
    source = volumes.parse(old)[0]
    size = volumes.find(world, task["node"], old)["size"]
    task["log"] += [
        f"copying volume '{old}' from current storage '{source}' to target storage '{target}'",
        f"create full clone of drive {slot} ({old})",
    ]
    new = volumes.allocate(world, task["node"], target, task["id"], size, arguments["format"])
    disks.tell_format(new, size)
    task["log"] += [
        f"allocated target volume '{new}'",
        f"transferred {volumes.size_text(size)}iB of {volumes.size_text(size)}iB (100.00%)",
    ]
    config[slot] = devices.print_drive({**drive, "file": new, "size": volumes.size_text(size)})
    if arguments["delete"]:
        volumes.free(world, task["node"], old)
    else:
        unused = disks.free_unused()
        config[unused] = old
        task["log"].append(f"adding source volume '{old}' as '{unused}' to config")


@route("PUT /nodes/{node}/qemu/{vmid}/unlink")
def unlink(call: Call) -> None:
    """Take disks out of their slots."""
    guest = _guest(call)
    disks = devices.Disks(call.world, call.node, call.text("vmid"), guest["config"], [])
    for slot in call.list("idlist"):
        disks.delete(slot, force=call.flag("force"))


@route("POST /nodes/{node}/qemu/{vmid}/template")
def template(call: Call) -> str:
    """Make a machine a template, as a task."""
    if _guest(call)["config"].get("template"):
        raise failed("you can't convert a template to a template")
    return _task(call, "qmtemplate", "make template")


@effect("make template")
def _made_template(world: World, task: State) -> None:
    guest = world.guest_at(task["id"], task["node"])
    for slot, drive in list(devices.drives(guest)):
        if ":" not in drive["file"] or drive.get("media") == "cdrom":
            continue
        name, volume = volumes.parse(drive["file"])
        shelf = volumes.shelf(world, task["node"], volumes.storage(world, name))
        volumes.find(world, task["node"], drive["file"])
        renamed = re.sub(r"(^|/)vm-", r"\1base-", volume)
        shelf[renamed] = shelf.pop(volume)
        guest["config"][slot] = devices.print_drive({**drive, "file": f"{name}:{renamed}"})
    guest["config"]["template"] = 1


# migration


def _local_disks(world: World, guest: State) -> list[tuple[str, dict[str, str]]]:
    return [
        (slot, drive)
        for slot, drive in devices.drives(guest)
        if ":" in drive["file"]
        and drive.get("media") != "cdrom"
        and not volumes.is_shared(volumes.storage(world, volumes.parse(drive["file"])[0]))
    ]


@route("GET /nodes/{node}/qemu/{vmid}/migrate")
def can_migrate(call: Call) -> State:
    """Where a machine could go, and what is in the way."""
    guest = _guest(call)
    others = [name for name in call.world.nodes() if name != call.node and call.world.online(name)]
    targets = [call.text("target")] if call.has("target") else others
    return {
        "running": int(guest["status"] == "running"),
        "has-dbus-vmstate": 1,
        "allowed_nodes": [name for name in targets if name in others],
        "not_allowed_nodes": {name: {} for name in targets},
        "local_disks": [
            {
                "drivename": slot,
                "volid": drive["file"],
                "size": volumes.find(call.world, call.node, drive["file"])["size"],
                "replicate": int(drive.get("replicate", "1")),
                "cdrom": 0,
                "shared": 0,
                "is_attached": 1,
                "is_unused": 0,
                "is_vmstate": 0,
                "is_cloudinit": 0,
                "is_tpmstate": 0,
            }
            for slot, drive in _local_disks(call.world, guest)
        ],
        "local_resources": [],
        "mapped-resources": [],
        "mapped-resource-info": {},
    }


@route("POST /nodes/{node}/qemu/{vmid}/migrate")
def migrate(call: Call) -> str:
    """Move a machine with its local disks to another node, as a task."""
    guest, target = _guest(call), call.text("target")
    if target not in call.world.nodes():
        raise failed(f"no such cluster node '{target}'")
    if target == call.node:
        raise bad_parameters({"target": "target is local node."})
    if guest["status"] == "running" and not call.flag("online"):
        raise bad_parameters({"online": "can't migrate running VM without --online"})
    return _task(call, "qmigrate", "migrate guest", {"target": target})


@effect("migrate guest")
def _migrated(world: World, task: State) -> None:
    vmid, node, target = task["id"], task["node"], task["arguments"]["target"]
    guest = world.guest_at(vmid, node)
    if not world.quorate():
        raise TaskFailed("cluster not ready - no quorum?")
    if not world.online(target):
        raise TaskFailed(f"target node '{target}' is offline")
    log = Log(world.clock())
    log.add(f"starting migration of VM {vmid} to node '{target}' ({world.nodes()[target]['ip']})")
    job = next(
        (
            (name, job)
            for name, job in world.state["replication"].items()
            if name.partition("-")[0] == vmid and job["target"] == target and "remove_job" not in job
        ),
        None,
    )
    disks = _local_disks(world, guest)
    copied = replicated(world, guest) if job else []
    for _, drive in disks:
        how = "local, replicated" if drive["file"] in copied else "local"
        log.add(f"found {how} disk '{drive['file']}' (attached)")
    if job:
        _replicate(world, job[0], job[1], guest, log)
    _copy(world, node, target, [drive["file"] for _, drive in disks if drive["file"] not in copied], log)
    if job:
        name = f"-e none -o 'BatchMode=yes' -o 'HostKeyAlias={target}' -o 'UserKnownHostsFile=/etc/pve/nodes/{target}"
        name += f"/ssh_known_hosts' -o 'GlobalKnownHostsFile=none' root@{world.nodes()[target]['ip']}"
        log.add(f"# /usr/bin/ssh {name} pvesr set-state {vmid} {{}}")
    log.add("migration finished successfully (duration 00:00:01)")
    task["log"] += log.lines
    guest["node"] = target
    guest["moved"] = world.clock()


def _replicate(world: World, name: str, job: State, guest: State, log: Log) -> None:
    state = job["state"]
    log.add("replicating disk images")
    log.add("start replication job")
    first = not state["last_sync"]
    state.update(last_try=world.now(), last_sync=world.now(), duration=world.pace.replication, fail_count=0)
    run(world, name, job, guest, log, full=first)
    log.add("end replication job")
    turn_round(job)


def _copy(world: World, node: str, target: str, volids: list[str], log: Log) -> None:
    if volids:
        log.add("copying local disk images")
    for volid in volids:
        name, volume = volumes.parse(volid)
        entry = volumes.storage(world, name)
        if not volumes.on_node(entry, target):
            raise TaskFailed(f"storage '{name}' is not available on node '{target}'")
        volumes.find(world, node, volid)
        about = volumes.shelf(world, node, entry).pop(volume)
        volumes.shelf(world, target, entry)[volume] = about
        if entry["type"] in volumes.FOLDERS:
            path = volumes.file_of(world, volid)
            log.add(f"Formatting '{path}', fmt=raw size={about['size']} preallocation=off")
            log.add(f"{about['size']} bytes copied, 1 s, {about['size']} B/s")
        log.add(f"successfully imported '{volid}'")
        log.add(f"volume '{volid}' is '{volid}' on the target")
