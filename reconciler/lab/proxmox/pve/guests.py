"""Guests: lists, creation, configuration, deletion; virtual machines and containers."""

from __future__ import annotations

import re
from typing import Any, Final

from reconciler.lab.proxmox.pve import volumes
from reconciler.lab.proxmox.pve.devices import (
    Disks,
    check_boot,
    check_drives,
    default_boot,
    drives,
    keep,
    used_storages,
)
from reconciler.lab.proxmox.pve.refusal import Refused, TaskFailed, bad_parameters, denied, failed
from reconciler.lab.proxmox.pve.routes import Call, route
from reconciler.lab.proxmox.pve.schema_of_guests import is_drive, options
from reconciler.lab.proxmox.pve.state import State
from reconciler.lab.proxmox.pve.world import World, effect, sha1, undoing

QEMU_VERSION: Final = "10.1.2"
DEFAULT_MEMORY: Final = 512


def digest(config: State) -> str:
    """The digest of a guest's file."""
    return sha1(config)


def name_of(vmid: str, guest: State) -> str:
    """The name that lists show."""
    config = guest["config"]
    return str(config.get("name") or config.get("hostname") or f"{'VM' if guest['type'] == 'qemu' else 'CT'} {vmid}")


def memory_of(guest: State) -> int:
    """The memory in bytes."""
    match = re.search(r"\d+", str(guest["config"].get("memory", DEFAULT_MEMORY)))
    return int(match[0] if match else DEFAULT_MEMORY) << 20


def cpus_of(guest: State) -> int:
    """The number of virtual processors."""
    return int(guest["config"].get("cores", 1)) * int(guest["config"].get("sockets", 1))


def disk_of(guest: State) -> int:
    """The size of the first disk in bytes."""
    sizes = [drive["size"] for _, drive in drives(guest) if "size" in drive and drive.get("media") != "cdrom"]
    return volumes.bytes_of(sizes[0]) if sizes else 0


def listed(vmid: str, guest: State) -> State:
    """A guest as the list of its node shows it."""
    config = guest["config"]
    return {
        "vmid": int(vmid),
        "name": name_of(vmid, guest),
        "status": guest["status"],
        "cpus": cpus_of(guest),
        "cpu": 0,
        "maxmem": memory_of(guest),
        "mem": 0,
        "memhost": 0,
        "maxdisk": disk_of(guest),
        "disk": 0,
        "netin": 0,
        "netout": 0,
        "uptime": 0,
        **({"tags": config["tags"]} if "tags" in config else {}),
        **({"template": 1} if config.get("template") else {}),
        **({"type": "lxc"} if guest["type"] == "lxc" else {}),
    }


def _kind(call: Call, word: str) -> list[tuple[str, State]]:
    return [
        (vmid, guest)
        for vmid, guest in sorted(call.state["guests"].items(), key=lambda item: int(item[0]))
        if guest["node"] == call.node and guest["type"] == word and call.may(f"/vms/{vmid}", "VM.Audit")
    ]


@route("GET /nodes/{node}/qemu")
def machines(call: Call) -> list[State]:
    """The virtual machines of a node that the caller may see."""
    return [listed(vmid, guest) for vmid, guest in _kind(call, "qemu")]


@route("GET /nodes/{node}/lxc")
def containers(call: Call) -> list[State]:
    """The containers of a node that the caller may see."""
    return [listed(vmid, guest) for vmid, guest in _kind(call, "lxc")]


# creation


def given_options(call: Call, kind: str) -> dict[str, str]:
    """The options of the configuration that were sent."""
    known = options(kind)
    return {key: call.text(key) for key in call.parameters if key in known}


def _may_create(call: Call, vmid: str) -> None:
    pool = call.get("pool")
    if not call.may(f"/vms/{vmid}", "VM.Allocate") and not (pool and call.may(f"/pool/{pool}", "VM.Allocate")):
        raise denied()


def _create(call: Call, kind: str) -> str:
    vmid = call.text("vmid")
    given = given_options(call, kind)
    _may_create(call, vmid)
    _root_only(call, given)
    for storage in used_storages(kind, given):
        if storage in call.state["storages"]:
            call.require(f"/storage/{storage}", "Datastore.AllocateSpace")
    if not call.world.quorate():
        raise failed("cluster not ready - no quorum?")
    there = call.world.guest(vmid)
    if there is not None:
        word = "VM" if kind == "qemu" else "CT"
        raise failed(f"unable to create {word} {vmid} - {_word(there)} {vmid} already exists on node '{there['node']}'")
    check_drives(call.world, call.node, kind, given, root=call.caller.root)
    if call.has("pool") and call.text("pool") not in call.state["pools"]:
        raise denied(f"pool '{call.text('pool')}' does not exist")
    call.state["guests"][vmid] = {
        "type": kind,
        "node": call.node,
        "status": "stopped",
        "config": {"lock": "create"},
        "moved": call.world.clock(),
    }
    arguments = {"kind": kind, "given": given, "pool": call.get("pool"), "start": call.flag("start")}
    return call.world.start_task(
        call.node, "qmcreate" if kind == "qemu" else "vzcreate", vmid, call.caller.name, "create guest", arguments
    )


def _word(guest: State) -> str:
    return "VM" if guest["type"] == "qemu" else "CT"


@route("POST /nodes/{node}/qemu")
def create_machine(call: Call) -> str:
    """A new virtual machine, as a task. If it fails, nothing stays."""
    return _create(call, "qemu")


@route("POST /nodes/{node}/lxc")
def create_container(call: Call) -> str:
    """A new container, as a task."""
    return _create(call, "lxc")


@effect("create guest")
def _created(world: World, task: State) -> None:
    vmid, arguments = task["id"], task["arguments"]
    kind, given = arguments["kind"], arguments["given"]
    guest = world.state["guests"][vmid]
    config: State = {}
    disks = Disks(world, task["node"], vmid, config, task["log"], kind)
    try:
        _write(world, disks, given, creating=True)
    except (TaskFailed, Refused) as error:
        disks.undo()
        word = "VM" if kind == "qemu" else "CT"
        raise TaskFailed(f"unable to create {word} {vmid} - {error}") from None
    if kind == "qemu":
        config.setdefault("boot", default_boot(config))
        config.setdefault("smbios1", f"uuid={world.uuid()}")
        config.setdefault("vmgenid", world.uuid())
        config["meta"] = f"creation-qemu={QEMU_VERSION},ctime={world.now()}"
    else:
        for key, value in {"arch": "amd64", "memory": 512, "swap": 512, "ostype": "debian"}.items():
            config.setdefault(key, value)
    guest["config"] = config
    if arguments["start"]:
        guest["status"] = "running"
    if arguments["pool"] in world.state["pools"]:
        world.state["pools"][arguments["pool"]]["vms"].append(vmid)


@undoing("create guest")
def _not_created(world: World, task: State) -> None:
    if world.state["guests"].get(task["id"], {}).get("config") == {"lock": "create"}:
        del world.state["guests"][task["id"]]


def _write(world: World, disks: Disks, given: dict[str, str], *, creating: bool) -> None:
    config, kind = disks.config, disks.kind
    for key in sorted(given):
        if is_drive(kind, key):
            disks.fill(key, given[key], creating=creating)
    for key, text in given.items():
        if is_drive(kind, key):
            continue
        if key == "description" and not text:
            config.pop(key, None)
        elif key == "boot":
            check_boot(config | dict.fromkeys(given, ""), text)
            config[key] = text or " "
        else:
            config[key] = keep(kind, key, text, world)


# configuration


def _guest(call: Call, kind: str = "qemu") -> State:
    return call.world.guest_at(call.text("vmid"), call.node, kind)


@route("GET /nodes/{node}/qemu/{vmid}/config")
def machine_config(call: Call) -> State:
    """The configuration, with its digest; the password for cloud-init is hidden."""
    config = _guest(call)["config"]
    hidden = {"cipassword": "**********"} if "cipassword" in config else {}
    return {**config, **hidden, "digest": digest(config)}


@route("GET /nodes/{node}/lxc/{vmid}/config")
def container_config(call: Call) -> State:
    """The configuration, with its digest."""
    config = _guest(call, "lxc")["config"]
    return {**config, "digest": digest(config)}


@route("GET /nodes/{node}/qemu/{vmid}/pending")
def machine_pending(call: Call) -> list[State]:
    """The configuration as a list; changes that wait for a restart are not simulated."""
    return [{"key": key, "value": value} for key, value in sorted(machine_config(call).items())]


def _root_only(call: Call, given: dict[str, str]) -> None:
    if call.caller.root:
        return
    for key, text in given.items():
        if key == "args":
            raise failed(f"only root can set '{key}' config")
        if re.fullmatch(r"hostpci\d+", key) and "mapping=" not in text:
            raise failed(f"only root can set '{key}' config for non-mapped devices")
        if re.fullmatch(r"(serial|parallel)\d+", key) and text != "socket":
            raise failed(f"only root can set '{key}' config for real devices")


def _changes(call: Call, kind: str) -> tuple[State, dict[str, str], list[str]]:
    """Everything that is checked before a change to a configuration."""
    given, gone = given_options(call, kind), call.list("delete")
    for key in gone:
        if key in given:
            raise bad_parameters({"delete": f"you can't use '-{key}' and -delete {key}' at the same time"})
        if key not in options(kind):
            raise bad_parameters({"delete": f"unknown option '{key}'"})
    if not given and not gone and not call.has("revert"):
        raise failed("no options specified")
    _root_only(call, given)
    guest = _guest(call, kind)
    for storage in used_storages(kind, given):
        if storage in call.state["storages"] and any(":" in text for text in given.values()):
            call.require(f"/storage/{storage}", "Datastore.AllocateSpace|Datastore.Audit")
    if call.has("digest") and call.text("digest") != digest(guest["config"]):
        raise failed("checksum mismatch (file change by other user?)")
    if guest["config"].get("lock") and not call.flag("skiplock"):
        word = "VM" if kind == "qemu" else "CT"
        raise failed(f"{word} is locked ({guest['config']['lock']})")
    if not call.world.quorate():
        vmid, folder = call.text("vmid"), "qemu-server" if kind == "qemu" else "lxc"
        raise failed(
            f"unable to open file '/etc/pve/nodes/{call.node}/{folder}/{vmid}.conf.tmp.4711' - Permission denied"
        )
    check_drives(call.world, call.node, kind, given, root=call.caller.root)
    if "boot" in given and kind == "qemu":
        check_boot({**guest["config"], **given}, given["boot"])
    return guest, given, gone


def _apply(
    world: World,
    node: str,
    vmid: str,
    guest: State,
    given: dict[str, str],
    gone: list[str],
    force: bool,
    log: list[str],
) -> None:
    config = dict(guest["config"])
    disks = Disks(world, node, vmid, config, log, guest["type"])
    for key in gone:
        disks.delete(key, force=force)
    try:
        _write(world, disks, given, creating=False)
    except (TaskFailed, Refused):
        disks.undo()
        raise
    guest["config"] = config


@route("PUT /nodes/{node}/qemu/{vmid}/config")
def change_machine(call: Call) -> None:
    """Change the configuration at once, disks included."""
    guest, given, gone = _changes(call, "qemu")
    try:
        _apply(call.world, call.node, call.text("vmid"), guest, given, gone, call.flag("force"), [])
    except TaskFailed as error:
        raise failed(str(error)) from None


@route("PUT /nodes/{node}/lxc/{vmid}/config")
def change_container(call: Call) -> None:
    """Change the configuration at once."""
    guest, given, gone = _changes(call, "lxc")
    _apply(call.world, call.node, call.text("vmid"), guest, given, gone, False, [])


@route("POST /nodes/{node}/qemu/{vmid}/config")
def change_machine_later(call: Call) -> str:
    """Change the configuration as a task."""
    _, given, gone = _changes(call, "qemu")
    arguments = {"given": given, "gone": gone, "force": call.flag("force")}
    return call.world.start_task(
        call.node, "qmconfig", call.text("vmid"), call.caller.name, "change machine", arguments
    )


@effect("change machine")
def _changed(world: World, task: State) -> None:
    arguments: dict[str, Any] = task["arguments"]
    guest = world.guest_at(task["id"], task["node"])
    words = [f"-{key} {text}" for key, text in sorted(arguments["given"].items())]
    words += [f"-delete {','.join(arguments['gone'])}"] if arguments["gone"] else []
    task["log"].append(f"update VM {task['id']}: {' '.join(words)}")
    _apply(
        world, task["node"], task["id"], guest, arguments["given"], arguments["gone"], arguments["force"], task["log"]
    )


# deletion


def _delete(call: Call, kind: str) -> str:
    vmid = call.text("vmid")
    guest = _guest(call, kind)
    word = "VM" if kind == "qemu" else "CT"
    if guest["config"].get("protection"):
        raise failed(f"can't remove {word} {vmid} - protection mode enabled")
    if not call.flag("purge"):
        for name in call.state["replication"]:
            if name.partition("-")[0] == vmid:
                text = f"There is a replication job '{name}' for guest '{vmid}' - Please remove that first."
                raise failed(text)
    if guest["status"] == "running" and not (kind == "lxc" and call.flag("force")):
        raise failed(f"{word} {vmid} is running - destroy failed")
    return call.world.start_task(
        call.node,
        "qmdestroy" if kind == "qemu" else "vzdestroy",
        vmid,
        call.caller.name,
        "destroy guest",
        {"purge": call.flag("purge")},
    )


@route("DELETE /nodes/{node}/qemu/{vmid}")
def delete_machine(call: Call) -> str:
    """Destroy a machine with its disks, as a task; with `purge` also its jobs."""
    return _delete(call, "qemu")


@route("DELETE /nodes/{node}/lxc/{vmid}")
def delete_container(call: Call) -> str:
    """Destroy a container with its volumes, as a task."""
    return _delete(call, "lxc")


@effect("destroy guest")
def _destroyed(world: World, task: State) -> None:
    vmid = task["id"]
    guest = world.guest(vmid)
    if guest is None:
        raise TaskFailed(f"Configuration file 'nodes/{task['node']}/qemu-server/{vmid}.conf' does not exist")
    if not world.quorate():
        path = f"/etc/pve/nodes/{task['node']}/qemu-server/{vmid}.conf.tmp.4711"
        raise TaskFailed(f"unable to open file '{path}' - Permission denied")
    for _, drive in drives(guest):
        if ":" in drive["file"] and drive.get("media") != "cdrom":
            volumes.free(world, task["node"], drive["file"])
    for key, value in guest["config"].items():
        if re.fullmatch(r"unused\d+", key):
            volumes.free(world, task["node"], value)
    del world.state["guests"][vmid]
    for pool in world.state["pools"].values():
        pool["vms"] = [member for member in pool["vms"] if member != vmid]
    world.state["acl"] = [entry for entry in world.state["acl"] if entry["path"] != f"/vms/{vmid}"]
    if task["arguments"]["purge"]:
        task["log"].append(f"purging {_word(guest)} {vmid} from related configurations..")
        _purge(world, vmid)


def _purge(world: World, vmid: str) -> None:
    jobs = world.state["replication"]
    for name in [name for name in jobs if name.partition("-")[0] == vmid]:
        del jobs[name]
    for job in world.state["backup_jobs"].values():
        for key in ("vmid", "exclude"):
            if key in job:
                left = [one for one in job[key].split(",") if one != vmid]
                job[key] = ",".join(left)
                if not left:
                    del job[key]
