"""A simulated backup server that looks like a real one: its state, from what the real one answered.

Used like reconciler/lab/proxmox/pve/seed.py: `wanted` until it wants no more, then `server_from_answers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from reconciler.lab.proxmox.pve.state import pool
from reconciler.lab.proxmox.world import State

FIRST: Final = (
    "/config/datastore",
    "/access/users?include_tokens=1",
    "/access/acl",
    "/config/prune",
    "/config/sync?sync-direction=all",
    "/config/verify",
    "/config/remote",
    "/nodes/localhost/disks/zfs",
)


def wanted(answers: Mapping[str, Any]) -> list[str]:
    """The paths that are still to be read."""
    missing = [path for path in FIRST if path not in answers]
    if missing:
        return missing
    paths = [f"/admin/datastore/{entry['name']}/namespace" for entry in answers["/config/datastore"] or []]
    return [path for path in paths if path not in answers]


def _named(entries: list[State] | None, key: str) -> dict[str, State]:
    return {entry[key]: {name: value for name, value in entry.items() if name != key} for entry in entries or []}


def server_from_answers(answers: Mapping[str, Any]) -> State:
    """The state of a server that answers like this. KeyError: an answer of `wanted` is missing."""
    users = _named(answers["/access/users?include_tokens=1"], "userid")
    for user in users.values():
        tokens = user.pop("tokens", None) or []
        if tokens:
            user["tokens"] = {
                token["tokenid"].partition("!")[2]: {key: one for key, one in token.items() if key != "tokenid"}
                for token in tokens
            }
    users.setdefault("root@pam", {})["password"] = "secret123"  # noqa: S105 - the simulator's own
    datastores = _named(answers["/config/datastore"], "name")
    return {
        "users": users,
        "acl": [dict(entry) for entry in answers["/access/acl"] or []],
        "datastores": datastores,
        "namespaces": {
            name: [entry["ns"] for entry in answers[f"/admin/datastore/{name}/namespace"] or [] if entry["ns"]]
            for name in datastores
        },
        "prune": _named(answers["/config/prune"], "id"),
        "sync": _named(answers["/config/sync?sync-direction=all"], "id"),
        "verify": _named(answers["/config/verify"], "id"),
        "remotes": _named(answers["/config/remote"], "name"),
        "pools": {
            entry["name"]: {**pool(), **{key: entry[key] for key in ("size", "alloc", "health")}}
            for entry in answers["/nodes/localhost/disks/zfs"] or []
        },
    }
