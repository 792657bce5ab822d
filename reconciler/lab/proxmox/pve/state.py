"""What a simulated cluster knows, as JSON. `empty_cluster` is the state of a fresh cluster of two nodes."""

from __future__ import annotations

import copy
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from reconciler.lab.proxmox.world import State

__all__ = ["State", "cluster_from", "empty_cluster", "node", "pool", "seal", "sealed"]


def sealed(secret: str) -> str:
    """What is kept of a password or a token's secret."""
    return hashlib.sha256(f"reconciler-lab\0{secret}".encode()).hexdigest()


def pool(size: int = 1 << 40, used: int = 1 << 35) -> State:
    """A ZFS pool; sizes in bytes."""
    return {"size": size, "alloc": used, "health": "ONLINE"}


def node(number: int, *, pools: tuple[str, ...] = ("rpool", "tank"), datasets: tuple[str, ...] = ("tank/vm",)) -> State:
    """A node with ZFS pools. `files`: what lies on it, path -> size in bytes (and `format`, `split`: in extents)."""
    return {
        "number": number,
        "ip": f"10.99.0.{10 + number}",
        "port": 0,
        "online": True,
        "pools": {name: pool() for name in pools},
        "datasets": [*pools, *datasets],
        "files": {},
    }


def empty_cluster(name: str = "lab", nodes: int = 2) -> State:
    """A fresh cluster: nodes pve1, pve2, ..., the user root@pam (password "secret123"), the storage `local`."""
    return {
        "name": name,
        "nodes": {f"pve{number}": node(number) for number in range(1, nodes + 1)},
        "users": {"root@pam": {"enable": 1, "expire": 0, "password": "secret123"}},
        "groups": {},
        "roles": {},
        "acl": [],
        "domains": {
            "pam": {"type": "pam", "comment": "Linux PAM standard authentication"},
            "pve": {"type": "pve", "comment": "Proxmox VE authentication server"},
        },
        "storages": {
            "local": {"type": "dir", "path": "/var/lib/vz", "content": "iso,vztmpl,backup,snippets,import"},
        },
        "storage_writes": 0,
        "storage_secrets": {},
        "reachable": [],
        "peers": {},
        "trusting": False,
        "replication": {},
        "backup_jobs": {},
        "guests": {},
        "volumes": {},
        "pools": {},
        "tasks": {},
        "serial": 0,
        "next_round": None,
        "quorate": None,
        "ticket_key": secrets.token_hex(16),
        "certificates": {},
    }


def cluster_from(given: Mapping[str, Any] | None) -> State:
    """A whole state from parts of one: keys that are not given are those of an empty cluster; secrets are sealed."""
    state = empty_cluster()
    state.update(copy.deepcopy(dict(given or {})))
    for user in state["users"].values():
        user.setdefault("enable", 1)
        user.setdefault("expire", 0)
        for token in user.get("tokens", {}).values():
            token.setdefault("privsep", 1)
            token.setdefault("expire", 0)
        seal(user)
    for peer in state["peers"].values():
        logins = peer.pop("logins", {})
        peer.setdefault("sealed", {}).update({name: sealed(secret) for name, secret in logins.items()})
    for number, (name, entry) in enumerate(list(state["nodes"].items()), 1):
        state["nodes"][name] = {**node(number), **entry}
    return state


def seal(user: State) -> None:
    """Replace the clear text of a user's password and of its tokens' secrets by digests."""
    if "password" in user:
        user["sealed"] = sealed(user.pop("password"))
    for token in user.get("tokens", {}).values():
        if "secret" in token:
            token["sealed"] = sealed(token.pop("secret"))
