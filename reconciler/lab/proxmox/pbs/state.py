"""What a simulated backup server knows, as JSON."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from typing import Any

from reconciler.lab.proxmox.pve.state import pool, seal
from reconciler.lab.proxmox.world import State


def empty_server(name: str = "pbs") -> State:
    """A fresh server: the user root@pam (password "secret123"), one ZFS pool, three unused disks."""
    return {
        "name": name,
        "port": 0,
        "users": {"root@pam": {"comment": "Superuser", "password": "secret123"}},
        "acl": [],
        "datastores": {},
        "namespaces": {},
        "leftovers": [],
        "prune": {},
        "sync": {},
        "verify": {},
        "remotes": {},
        "runs": {},
        "pools": {"rpool": pool()},
        "disks": ["sdb", "sdc", "sdd"],
        "used_disks": [],
        "tasks": {},
        "serial": 0,
        "ticket_key": secrets.token_hex(16),
        "certificates": {},
    }


def server_from(given: Mapping[str, Any] | None) -> State:
    """A whole state from parts of one: keys that are not given are those of an empty server; secrets are sealed."""
    state = empty_server()
    state.update(copy.deepcopy(dict(given or {})))
    for user in state["users"].values():
        seal(user)
    return state
