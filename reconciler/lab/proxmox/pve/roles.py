"""Roles, the ACL, pools."""

from __future__ import annotations

import re
from typing import Any

from reconciler.lab.proxmox.pve import known
from reconciler.lab.proxmox.pve.access import forget
from reconciler.lab.proxmox.pve.refusal import bad_parameters, failed
from reconciler.lab.proxmox.pve.rights import ROOT
from reconciler.lab.proxmox.pve.routes import Call, route
from reconciler.lab.proxmox.pve.state import State
from reconciler.lab.proxmox.pve.world import prefixed


@route("GET /access/roles")
def roles(call: Call) -> list[State]:
    """All roles."""
    built_in = [{"roleid": name, "privs": ",".join(privs), "special": 1} for name, privs in known.ROLES.items()]
    own = [
        {"roleid": name, "privs": ",".join(sorted(entry["privs"])), "special": 0}
        for name, entry in sorted(call.state["roles"].items())
    ]
    return [*built_in, *own]


def _require_role(call: Call, name: str) -> None:
    if name not in known.ROLES and name not in call.state["roles"]:
        raise failed(f"role '{name}' does not exist")


@route("GET /access/roles/{roleid}")
def role(call: Call) -> dict[str, int]:
    """The privileges of a role."""
    name = call.text("roleid")
    _require_role(call, name)
    return dict.fromkeys(sorted(call.rights.role(name)), 1)


@route("POST /access/roles")
def create_role(call: Call) -> None:
    """A new role."""
    name = call.text("roleid")
    if name.lower().startswith("pve"):
        text = "cannot use role ID starting with the (case-insensitive) 'PVE' namespace"
        raise bad_parameters({"roleid": text})
    with prefixed("create role failed"):
        call.world.require_quorum("user_cfg")
        if name in call.state["roles"] or name in known.ROLES:
            raise failed(f"role '{name}' already exists")
        call.state["roles"][name] = {"privs": sorted(set(call.list("privs")))}


@route("PUT /access/roles/{roleid}")
def change_role(call: Call) -> None:
    """Replace the privileges of a role; without `privs` it has none afterwards."""
    name = call.text("roleid")
    if name in known.ROLES:
        raise failed(f"auto-generated role '{name}' cannot be modified")
    with prefixed("update role failed"):
        call.world.require_quorum("user_cfg")
        _require_role(call, name)
        entry = call.state["roles"][name]
        before = entry["privs"] if call.flag("append") else []
        entry["privs"] = sorted({*before, *call.list("privs")})


@route("DELETE /access/roles/{roleid}")
def delete_role(call: Call) -> None:
    """Delete a role with its entries in the ACL."""
    name = call.text("roleid")
    if name in known.ROLES:
        raise failed(f"auto-generated role '{name}' cannot be deleted")
    with prefixed("delete role failed"):
        call.world.require_quorum("user_cfg")
        _require_role(call, name)
        del call.state["roles"][name]
        forget(call, lambda entry: entry["roleid"] == name)


@route("GET /access/acl")
def acl(call: Call) -> list[State]:
    """The entries on paths whose rights the caller may change, or all for an auditor."""
    audit = call.may("/access", "Sys.Audit")
    return [entry for entry in call.state["acl"] if audit or call.may(entry["path"], "Permissions.Modify")]


@route("PUT /access/acl")
def change_acl(call: Call) -> None:
    """Add entries, or delete them; both may be repeated. Entries of root@pam are dropped without a word."""
    path = "/" + "/".join(part for part in call.text("path").split("/") if part)
    if not re.fullmatch(known.ACL_PATH, path):
        raise bad_parameters({"path": f"invalid ACL path '{path}'"})
    if not (call.has("users") or call.has("groups") or call.has("tokens")):
        text = "either 'users', 'groups' or 'tokens' is required."
        raise bad_parameters(dict.fromkeys(("groups", "tokens", "users"), text))
    with prefixed("ACL update failed"):
        call.world.require_quorum("user_cfg")
        for name in call.list("roles"):
            _require_role(call, name)
        principals = _principals(call)
        for name in call.list("roles"):
            for kind, principal in principals:
                key = {"path": path, "type": kind, "ugid": principal, "roleid": name}
                forget(call, lambda entry, key=key: all(entry[part] == value for part, value in key.items()))
                if not call.flag("delete") and principal != ROOT:
                    call.state["acl"].append({**key, "propagate": call.number("propagate", 1)})


def _principals(call: Call) -> list[tuple[str, str]]:
    found = []
    for name in call.list("groups"):
        if name not in call.state["groups"]:
            raise failed(f"group '{name}' does not exist")
        found.append(("group", name))
    for name in call.list("users"):
        if name not in call.state["users"]:
            raise failed(f"user '{name}' does not exist")
        found.append(("user", name))
    for name in call.list("tokens"):
        user, _, token = name.partition("!")
        if token not in call.state["users"].get(user, {}).get("tokens", {}):
            raise failed(f"no such token '{token}' for user '{user}'")
        found.append(("token", name))
    return found


# pools


@route("GET /pools")
def pools(call: Call) -> list[State]:
    """The pools that the caller may see, or one with its members."""
    if call.has("poolid"):
        call.require(f"/pool/{call.text('poolid')}", "Pool.Audit")
        return [_with_members(call)]
    return [
        {"poolid": name, **({"comment": entry["comment"]} if entry.get("comment") else {})}
        for name, entry in sorted(call.state["pools"].items())
        if call.may(f"/pool/{name}", "Pool.Audit")
    ]


@route("GET /pools/{poolid}")
def pool(call: Call) -> State:
    """One pool with its members."""
    return _with_members(call)


def _pool(call: Call) -> State:
    name = call.text("poolid")
    entry: State | None = call.state["pools"].get(name)
    if entry is None:
        raise failed(f"pool '{name}' does not exist")
    return entry


def _with_members(call: Call) -> State:
    entry = _pool(call)
    kind = call.get("type")
    members: list[State] = []
    for vmid in entry.get("vms", []):
        guest = call.world.guest(vmid)
        if guest and kind in (None, guest["type"]):
            name = guest["config"].get("name") or guest["config"].get("hostname") or f"VM {vmid}"
            members.append(
                {
                    "id": f"{guest['type']}/{vmid}",
                    "node": guest["node"],
                    "type": guest["type"],
                    "vmid": int(vmid),
                    "name": name,
                    "status": guest["status"],
                }
            )
    for storage in entry.get("storage", []):
        found = call.state["storages"].get(storage)
        if found and kind in (None, "storage"):
            node = next(iter(call.world.nodes()))
            members.append(
                {
                    "id": f"storage/{node}/{storage}",
                    "node": node,
                    "type": "storage",
                    "storage": storage,
                    "plugintype": found["type"],
                    "content": found.get("content", ""),
                    "shared": int(found.get("shared", 0)),
                    "status": "unknown",
                }
            )
    comment = {"comment": entry["comment"]} if entry.get("comment") else {}
    return {"poolid": call.text("poolid"), "members": members, **comment}


@route("POST /pools")
def create_pool(call: Call) -> None:
    """A new pool."""
    name = call.text("poolid")
    with prefixed("create pool failed"):
        call.world.require_quorum("user_cfg")
        if name in call.state["pools"]:
            raise failed(f"pool '{name}' already exists")
        call.state["pools"][name] = {"comment": call.text("comment"), "vms": [], "storage": []}


@route("PUT /pools")
@route("PUT /pools/{poolid}")
def change_pool(call: Call) -> None:
    """Change the comment, add members, or remove them with `delete`."""
    with prefixed("update pools failed"):
        call.world.require_quorum("user_cfg")
        entry = _pool(call)
        if call.has("comment"):
            entry["comment"] = call.text("comment")
        for key in ("vms", "storage"):
            for member in call.list(key):
                _member(call, entry, key, member)


def _member(call: Call, entry: State, key: str, member: str) -> None:
    label = "VM" if key == "vms" else "Storage"
    call.require(f"/{key}/{member}", "Permissions.Modify")
    if call.flag("delete"):
        if member not in entry[key]:
            raise failed(f"{label} {member} is not a pool member")
        entry[key].remove(member)
        return
    if key == "vms" and call.world.guest(member) is None:
        raise failed(f"VM {member} does not exist")
    holders: list[Any] = [name for name, other in call.state["pools"].items() if member in other.get(key, [])]
    if key == "vms" and holders and entry is not call.state["pools"][holders[0]]:
        if not call.flag("allow-move"):
            raise failed(f"VM {member} belongs already to pool '{holders[0]}' and 'allow-move' is not set")
        call.state["pools"][holders[0]][key].remove(member)
    if member not in entry[key]:
        entry[key].append(member)


@route("DELETE /pools")
@route("DELETE /pools/{poolid}")
def delete_pool(call: Call) -> None:
    """Delete an empty pool with its rights."""
    with prefixed("delete pool failed"):
        call.world.require_quorum("user_cfg")
        entry = _pool(call)
        name = call.text("poolid")
        for key, label in (("vms", "VM"), ("storage", "storage")):
            for member in entry.get(key, []):
                text = f"'{member}'" if key == "storage" else member
                raise failed(f"pool '{name}' is not empty (contains {label} {text})")
        del call.state["pools"][name]
        forget(call, lambda acl_entry: acl_entry["path"] == f"/pool/{name}")
