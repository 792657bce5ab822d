"""A simulated cluster that looks like a real one: its state, from what the real one answered.

`wanted` says which GETs are missing (below /api2/json, query included); it is asked again with the answers until it
wants no more, which takes two rounds. `cluster_from_answers` makes the state for `PveSimulator`. What was refused is
given as None and is empty then. Passwords and secrets are not known: users cannot log in but for root@pam (password
"secret123"), tokens can be minted anew, and servers outside are taken to be there (`trusting`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from reconciler.lab.proxmox.pve import volumes
from reconciler.lab.proxmox.pve.devices import parse_drive
from reconciler.lab.proxmox.pve.schema_of_guests import is_drive
from reconciler.lab.proxmox.pve.state import State, node, pool
from reconciler.lab.proxmox.pve.verify import split_list

FIRST: Final = (
    "/cluster/status",
    "/storage",
    "/access/domains",
    "/access/users?full=1",
    "/access/groups",
    "/access/roles",
    "/access/acl",
    "/pools",
    "/cluster/replication",
    "/cluster/backup",
    "/cluster/resources?type=vm",
)


def wanted(answers: Mapping[str, Any]) -> list[str]:
    """The paths that are still to be read."""
    missing = [path for path in FIRST if path not in answers]
    if missing:
        return missing
    paths = [f"/nodes/{name}/{what}" for name in _nodes(answers) for what in ("disks/zfs", "replication")]
    paths += [f"/nodes/{guest['node']}/{guest['type']}/{guest['vmid']}/config" for guest in _guests(answers)]
    paths += [f"/pools/{entry['poolid']}" for entry in answers["/pools"] or []]
    return [path for path in paths if path not in answers]


def _nodes(answers: Mapping[str, Any]) -> dict[str, State]:
    return {entry["name"]: entry for entry in answers["/cluster/status"] or [] if entry["type"] == "node"}


def _guests(answers: Mapping[str, Any]) -> list[State]:
    return answers["/cluster/resources?type=vm"] or []


def _without(entry: Mapping[str, Any], *keys: str) -> State:
    return {key: value for key, value in entry.items() if key not in keys}


def cluster_from_answers(answers: Mapping[str, Any]) -> State:
    """The state of a cluster that answers like this. KeyError: an answer of `wanted` is missing."""
    storages = {entry["storage"]: _without(entry, "storage", "digest") for entry in answers["/storage"] or []}
    state: State = {
        "name": next(
            (entry["name"] for entry in answers["/cluster/status"] or [] if entry["type"] == "cluster"), "lab"
        ),
        "nodes": _node_states(answers, storages),
        "storages": storages,
        "domains": {entry["realm"]: _without(entry, "realm") for entry in answers["/access/domains"] or []},
        "users": _users(answers),
        "groups": {
            entry["groupid"]: {"comment": entry.get("comment", ""), "users": split_list(entry.get("users", ""))}
            for entry in answers["/access/groups"] or []
        },
        "roles": {
            entry["roleid"]: {"privs": split_list(entry["privs"])}
            for entry in answers["/access/roles"] or []
            if not entry.get("special")
        },
        "acl": [dict(entry) for entry in answers["/access/acl"] or []],
        "pools": {entry["poolid"]: _pool(answers, entry) for entry in answers["/pools"] or []},
        "backup_jobs": {
            entry["id"]: {key: _text(value) for key, value in _without(entry, "id", "type", "next-run").items()}
            for entry in answers["/cluster/backup"] or []
        },
        "guests": {
            str(guest["vmid"]): {
                "type": guest["type"],
                "node": guest["node"],
                "status": guest["status"] if guest["status"] != "unknown" else "stopped",
                "config": _without(
                    answers[f"/nodes/{guest['node']}/{guest['type']}/{guest['vmid']}/config"] or {}, "digest"
                ),
            }
            for guest in _guests(answers)
        },
        "volumes": {},
        "replication": _jobs(answers),
        "trusting": True,
    }
    _shelve(state)
    return state


def _text(value: Any) -> Any:
    """Property strings that answers show as objects, as text again."""
    return ",".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, dict) else value


def _node_states(answers: Mapping[str, Any], storages: Mapping[str, State]) -> dict[str, State]:
    found: dict[str, State] = {}
    for name, entry in _nodes(answers).items():
        datasets = {one["pool"] for one in storages.values() if one["type"] == "zfspool" and volumes.on_node(one, name)}
        pools = {
            one["name"]: {key: one[key] for key in ("size", "alloc", "health")}
            for one in answers[f"/nodes/{name}/disks/zfs"] or []
        }
        for dataset in datasets:
            pools.setdefault(dataset.partition("/")[0], pool())
        there = node(int(entry["nodeid"]))
        found[name] = {
            **there,
            "ip": entry.get("ip", there["ip"]),
            "pools": pools,
            "datasets": sorted({*pools, *datasets}),
        }
    return found


def _users(answers: Mapping[str, Any]) -> dict[str, State]:
    users: dict[str, State] = {"root@pam": {}}
    for entry in answers["/access/users?full=1"] or []:
        tokens = {token["tokenid"]: _without(token, "tokenid") for token in entry.get("tokens") or []}
        about = _without(entry, "userid", "groups", "tokens", "realm-type")
        users[entry["userid"]] = {**about, **({"tokens": tokens} if tokens else {})}
    users["root@pam"] |= {"password": "secret123", "enable": 1, "expire": 0}
    return users


def _pool(answers: Mapping[str, Any], entry: State) -> State:
    members = (answers[f"/pools/{entry['poolid']}"] or {}).get("members", [])
    return {
        "comment": entry.get("comment", ""),
        "vms": [str(member["vmid"]) for member in members if "vmid" in member],
        "storage": [member["storage"] for member in members if member["type"] == "storage"],
    }


def _jobs(answers: Mapping[str, Any]) -> dict[str, State]:
    states = {
        entry["id"]: {
            key: entry[key] for key in ("duration", "error", "fail_count", "last_sync", "last_try") if key in entry
        }
        for name in _nodes(answers)
        for entry in answers[f"/nodes/{name}/replication"] or []
    }
    fresh = {"fail_count": 0, "last_sync": 0, "last_try": 0}
    return {
        entry["id"]: {**_without(entry, "id", "guest", "jobnum"), "state": {**fresh, **states.get(entry["id"], {})}}
        for entry in answers["/cluster/replication"] or []
    }


def _shelve(state: State) -> None:
    """Put the volumes that guests name where they must be; those of replicated guests on the target too."""
    for vmid, guest in state["guests"].items():
        places = [guest["node"]]
        places += [job["target"] for name, job in state["replication"].items() if name.partition("-")[0] == vmid]
        for slot, text in guest["config"].items():
            if not is_drive(guest["type"], slot):
                continue
            drive = parse_drive(guest["type"], slot, str(text))
            name, volume = volumes.parse(drive["file"])
            entry = state["storages"].get(name)
            if entry is None or not volume:
                continue
            about = {
                "content": "images" if guest["type"] == "qemu" else "rootdir",
                "format": volume.rpartition(".")[2]
                if entry["type"] in volumes.FOLDERS
                else volumes.default_format(entry),
                "size": volumes.bytes_of(drive.get("size", "0")),
                "vmid": int(vmid),
                "ctime": 0,
            }
            for place in ["*"] if volumes.is_shared(entry) else places:
                state["volumes"].setdefault(place, {}).setdefault(volumes.backing(entry), {})[volume] = about
