"""Simulators in the likeness of live systems: what a rehearsal works on.

The likeness is made of what the API shows to the login: definitions, accounts, rights, jobs, guests. Passwords and
secrets are not shown; logins of the rehearsal itself work, others do not matter there. Servers that storages point to
are taken for granted, unless they are rehearsed, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from reconciler.lab.proxmox import PbsSimulator, PveSimulator
from reconciler.lab.proxmox.pve.state import node as fresh_node
from reconciler.lab.stage import Stage
from reconciler.model import Get, Read, Reply, Secret, Target
from reconciler.types.api import KEEP

ReadAll = Callable[[Sequence[Read]], Sequence[Reply]]
_DISK = re.compile(r"(?:scsi|virtio|sata|ide|mp)[0-9]+|rootfs")
_SIZE = re.compile(r"size=([0-9]+)([KMGT]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def mirror(target: Target, read: ReadAll, stage: Stage) -> Target:
    """A simulator that shows what a live system shows.

    Args:
        read: answers reads of the live system.

    Raises:
        ConnectError: the live system cannot be reached.
    """
    if target.settings["service"] == "PBS":
        return _server(target, read, stage)
    servers: dict[str, tuple[Target, Any]] = stage.shared.setdefault("mirrored servers", {})
    known = {
        urlsplit(endpoint).hostname or "": _Known(simulator, live.settings.get("fingerprint", ""))
        for live, simulator in servers.values()
        for endpoint in live.settings["endpoints"]
    }
    state = cluster(read)
    _admit(state, target, stage)
    simulator = stage.open.enter_context(PveSimulator(state, backup_servers=known))
    return _behind(target, simulator.url, simulator.fingerprint)


def _server(target: Target, read: ReadAll, stage: Stage) -> Target:
    state = server(target.name, read)
    _admit(state, target, stage)
    simulator = stage.open.enter_context(PbsSimulator(state))
    stage.shared.setdefault("mirrored servers", {})[target.name] = target, simulator
    return _behind(target, simulator.url, simulator.fingerprint)


class _Known:
    """A rehearsed backup server as clusters see it, with the certificate that its document pins."""

    def __init__(self, inner: PbsSimulator, fingerprint: str) -> None:
        self._inner, self.fingerprint = inner, fingerprint

    def admits(self, auth_id: str, secret: str) -> bool:
        return self._inner.admits(auth_id, secret)

    def shows(self, auth_id: str) -> list[str]:
        return self._inner.shows(auth_id)


def _behind(target: Target, url: str, fingerprint: str) -> Target:
    settings = {k: v for k, v in target.settings.items() if k != "ca"}
    return replace(target, settings={**settings, "endpoints": [url], "fingerprint": fingerprint})


def _admit(state: dict[str, Any], target: Target, stage: Stage) -> None:
    """The login works as it does there: with its own rights, whatever they are."""
    settings = target.settings
    account = state["users"].setdefault(settings["user"], {"enable": 1, "expire": 0})
    if settings.get("token"):
        token = account.setdefault("tokens", {}).setdefault(settings["token"], {"privsep": 0})
        token["secret"] = stage.reveal(Secret(**settings["secret"]))
    else:
        account["password"] = stage.reveal(Secret(**settings["password"]))


# ------------------------------------------------------------------------------------------------ reading


def _rows(reply: Reply) -> list[dict[str, Any]]:
    """The rows of a list; what the login may not see does not exist in its mirror, either."""
    if reply.status:
        return []
    found = json.loads(reply.text).get("data")
    return [row for row in found or () if isinstance(row, dict)]


def _named(rows: Sequence[Mapping[str, Any]], key: str, *leave: str) -> dict[str, dict[str, Any]]:
    return {str(row[key]): {k: v for k, v in row.items() if k not in (key, "digest", *leave)} for row in rows}


def cluster(read: ReadAll) -> dict[str, Any]:
    """What a cluster shows, as the state of a simulator."""
    paths = {
        "status": Get("/cluster/status"),
        "storages": Get("/storage"),
        "users": Get("/access/users", {"full": 1}),
        "groups": Get("/access/groups"),
        "roles": Get("/access/roles"),
        "acl": Get("/access/acl"),
        "replication": Get("/cluster/replication"),
        "backup": Get("/cluster/backup"),
        "guests": Get("/cluster/resources", {"type": "vm"}),
        "pools": Get("/pools"),
    }
    rows = dict(zip(paths, map(_rows, read(list(paths.values()))), strict=True))
    storages = _named(rows["storages"], "storage")
    guests = rows["guests"]
    configs = read([Get(f"/nodes/{g['node']}/{g['type']}/{g['vmid']}/config") for g in guests])
    state: dict[str, Any] = {
        "nodes": _nodes(rows["status"], storages),
        "storages": storages,
        "users": _users(rows["users"]),
        "groups": {
            name: {"comment": group.get("comment", ""), "users": _words(group.get("users"))}
            for name, group in _named(rows["groups"], "groupid").items()
        },
        "roles": {
            r["roleid"]: {"privs": _words(r.get("privs"))} for r in rows["roles"] if not int(r.get("special") or 0)
        },
        "acl": [{k: row[k] for k in ("path", "type", "ugid", "roleid", "propagate")} for row in rows["acl"]],
        "replication": {
            name: {**job, "created": 0, "state": {"fail_count": 0, "last_sync": 0, "last_try": 0}}
            for name, job in _named(rows["replication"], "id", "guest", "jobnum").items()
        },
        "backup_jobs": {name: _backup(job) for name, job in _named(rows["backup"], "id", "next-run", "type").items()},
        "guests": {},
        "volumes": {},
        "pools": {name: {"comment": pool.get("comment", "")} for name, pool in _named(rows["pools"], "poolid").items()},
        "storage_secrets": {name: {} for name in storages},
        "trusting": True,
    }
    for guest, reply in zip(guests, configs, strict=True):
        config = {} if reply.status else json.loads(reply.text)["data"]
        config.pop("digest", None)
        vmid, node = str(guest["vmid"]), guest["node"]
        entry = {"type": guest["type"], "node": node, "status": guest.get("status", "stopped"), "config": config}
        state["guests"][vmid] = {**entry, "moved": 0.0}
        for place, name, size in _disks(config, storages):
            volume = {"content": "images", "format": "raw", "size": size, "vmid": int(vmid), "ctime": 0}
            state["volumes"].setdefault(node, {}).setdefault(place, {})[name] = volume
    return state


def _words(value: Any) -> list[str]:
    return [w for w in re.split(r"[,; ]+", str(value or "")) if w]


def _nodes(rows: Sequence[Mapping[str, Any]], storages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    datasets = sorted({s["pool"] for s in storages.values() if s.get("type") == "zfspool" and "pool" in s})
    pools = tuple(sorted({name.partition("/")[0] for name in datasets} | {"rpool"}))
    names = sorted(str(row["name"]) for row in rows if row.get("type") == "node") or ["pve1"]
    inside = tuple(name for name in datasets if "/" in name)
    return {name: fresh_node(number, pools=pools, datasets=inside) for number, name in enumerate(names, 1)}


def _users(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = _named(rows, "userid", "realm-type", "tfa-locked-until", "totp-locked")
    for user in found.values():
        user.pop("groups", None)  # groups know their users
        tokens = user.pop("tokens", None) or ()
        if tokens:
            user["tokens"] = {
                str(t["tokenid"]).rpartition("!")[2]: {k: v for k, v in t.items() if k != "tokenid"} for t in tokens
            }
            for token in user["tokens"].values():
                if "privsep" in token:
                    token["privsep"] = int(token["privsep"])
    return found


def _backup(job: dict[str, Any]) -> dict[str, Any]:
    keep = job.get("prune-backups")
    return {**job, "prune-backups": KEEP.write(KEEP.read(keep))} if isinstance(keep, Mapping) else job


def _disks(config: Mapping[str, Any], storages: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """Place, name and size in bytes of each disk of a guest. Places are as simulators call them: `zfspool:tank/vm`."""
    found = []
    for key, value in config.items():
        storage, colon, rest = str(value).partition(":")
        if not _DISK.fullmatch(key) or not colon or storage not in storages:
            continue
        entry = storages[storage]
        where = entry.get("pool") or entry.get("path") or entry.get("vgname") or storage
        size = _SIZE.search(rest)
        number = int(size[1]) * _UNITS[size[2]] if size else 1 << 30
        found.append((f"{entry.get('type')}:{where}", rest.partition(",")[0], number))
    return found


def server(name: str, read: ReadAll) -> dict[str, Any]:
    """What a backup server shows, as the state of a simulator."""
    paths = {
        "users": Get("/access/users", {"include_tokens": 1}),
        "acl": Get("/access/acl"),
        "datastores": Get("/config/datastore"),
        "prune": Get("/config/prune"),
        "sync": Get("/config/sync", {"sync-direction": "all"}),
        "verify": Get("/config/verify"),
        "remotes": Get("/config/remote"),
        "pools": Get("/nodes/localhost/disks/zfs"),
    }
    rows = dict(zip(paths, map(_rows, read(list(paths.values()))), strict=True))
    stores = _named(rows["datastores"], "name")
    spaces = read([Get(f"/admin/datastore/{store}/namespace") for store in stores])
    return {
        "name": name,
        "users": _users(rows["users"]),
        "acl": [{k: row[k] for k in ("path", "ugid", "ugid_type", "roleid", "propagate")} for row in rows["acl"]],
        "datastores": stores,
        "namespaces": {
            store: [row["ns"] for row in _rows(reply) if row.get("ns")]
            for store, reply in zip(stores, spaces, strict=True)
        },
        "prune": _named(rows["prune"], "id"),
        "sync": _named(rows["sync"], "id"),
        "verify": _named(rows["verify"], "id"),
        "remotes": _named(rows["remotes"], "name"),
        "pools": _named(rows["pools"], "name", "free", "frag", "dedup"),
        "disks": [f"sd{letter}" for letter in "bcdefghijklmnopqrstuvwxyz"],
    }
