"""The cluster as a whole: version, nodes, quorum, resources."""

from __future__ import annotations

from typing import Any

from reconciler.lab.proxmox.pve import known, volumes
from reconciler.lab.proxmox.pve.guests import cpus_of, disk_of, listed, memory_of, name_of
from reconciler.lab.proxmox.pve.refusal import bad_parameters
from reconciler.lab.proxmox.pve.routes import Call, route
from reconciler.lab.proxmox.pve.state import State
from reconciler.lab.proxmox.pve.storages import TOTAL, USED, is_active

FIGURES = {"cpu": 0, "maxcpu": 8, "mem": 4 << 30, "maxmem": 32 << 30, "disk": 8 << 30, "maxdisk": 128 << 30}


@route("GET /version")
@route("GET /nodes/{node}/version")
def version(call: Call) -> State:
    """The version of the node."""
    return dict(known.VERSION)


@route("GET /cluster/status")
def status(call: Call) -> list[State]:
    """Quorum and nodes."""
    head: State = {
        "id": "cluster",
        "type": "cluster",
        "name": call.state["name"],
        "nodes": len(call.world.nodes()),
        "quorate": int(call.world.quorate()),
        "version": len(call.world.nodes()),
    }
    nodes = [
        {
            "id": f"node/{name}",
            "type": "node",
            "name": name,
            "nodeid": entry["number"],
            "ip": entry["ip"],
            "local": int(name == call.asked),
            "online": int(entry["online"]),
            "level": "",
        }
        for name, entry in call.world.nodes().items()
    ]
    return [head, *nodes]


def _node(call: Call, name: str) -> State:
    online = call.world.online(name)
    shown: State = {"id": f"node/{name}", "type": "node", "node": name, "status": "online" if online else "offline"}
    if online:
        shown["level"] = ""
        if call.may(f"/nodes/{name}", "Sys.Audit"):
            shown |= {**FIGURES, "uptime": 86400}
    return shown


@route("GET /nodes")
def nodes(call: Call) -> list[State]:
    """The nodes; their figures for auditors only."""
    return [
        {**_node(call, name), "ssl_fingerprint": entry.get("fingerprint", "")}
        for name, entry in call.world.nodes().items()
    ]


def _guest(call: Call, vmid: str, guest: State) -> State:
    shown: State = {"id": f"{guest['type']}/{vmid}", "type": guest["type"], "vmid": int(vmid), "node": guest["node"]}
    known_to_all = call.world.clock() - guest.get("moved", 0) >= call.world.pace.broadcast
    if not known_to_all or not call.world.online(guest["node"]):
        return {**shown, "status": "unknown", "template": int(guest["config"].get("template", 0))}
    figures = listed(vmid, guest)
    shown |= {key: figures[key] for key in ("cpu", "disk", "mem", "memhost", "netin", "netout", "uptime", "status")}
    shown |= {"maxcpu": cpus_of(guest), "maxmem": memory_of(guest), "maxdisk": disk_of(guest)}
    shown |= {"diskread": 0, "diskwrite": 0, "name": name_of(vmid, guest), "template": figures.get("template", 0)}
    pool = next((name for name, entry in call.state["pools"].items() if vmid in entry.get("vms", [])), None)
    tags = {"tags": figures["tags"]} if "tags" in figures else {}
    return {**shown, **tags, **({"pool": pool} if pool else {})}


def _storage(call: Call, node: str, name: str, entry: State) -> State:
    active = call.world.online(node) and is_active(call.world, node, name, entry)
    return {
        "id": f"storage/{node}/{name}",
        "type": "storage",
        "storage": name,
        "node": node,
        "plugintype": entry["type"],
        "content": entry["content"],
        "shared": int(volumes.is_shared(entry)),
        "status": "available" if active else "unknown",
        **({"disk": USED, "maxdisk": TOTAL} if active else {}),
    }


@route("GET /cluster/resources")
def resources(call: Call) -> list[State]:
    """Everything in one list, by what the caller may see."""
    kind = call.get("type")
    found: list[State] = []
    if kind in (None, "vm"):
        guests = sorted(call.state["guests"].items(), key=lambda item: int(item[0]))
        found += [_guest(call, vmid, guest) for vmid, guest in guests if call.may(f"/vms/{vmid}", "VM.Audit")]
    if kind in (None, "node"):
        found += [_node(call, name) for name in call.world.nodes()]
    if kind in (None, "storage"):
        found += [
            _storage(call, node, name, entry)
            for node in call.world.nodes()
            for name, entry in call.state["storages"].items()
            if volumes.on_node(entry, node)
            and not entry.get("disable")
            and call.may(f"/storage/{name}", "Datastore.Audit")
        ]
    if kind in (None, "sdn"):
        found += [_zone(call, node) for node in call.world.nodes() if call.may("/sdn/zones/localnetwork", "SDN.Audit")]
    return found


def _zone(call: Call, node: str) -> dict[str, Any]:
    return {
        "id": f"network/{node}/zone/localnetwork",
        "type": "network",
        "network": "localnetwork",
        "network-type": "zone",
        "node": node,
        "status": "ok",
    }


@route("GET /cluster/nextid")
def next_id(call: Call) -> str:
    """A free number for a guest, or whether this one is free. It is not reserved."""
    taken = call.state["guests"]
    if call.has("vmid"):
        if call.text("vmid") in taken:
            raise bad_parameters({"vmid": f"VM {call.text('vmid')} already exists"})
        return call.text("vmid")
    return next(str(number) for number in range(100, 1_000_000) if str(number) not in taken)
