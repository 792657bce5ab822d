"""Login, users, groups, API tokens, permissions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from reconciler.lab.proxmox.pve.refusal import Refused, bad_parameters, failed
from reconciler.lab.proxmox.pve.rights import ROOT, Caller
from reconciler.lab.proxmox.pve.routes import Call, route
from reconciler.lab.proxmox.pve.state import State, sealed
from reconciler.lab.proxmox.pve.world import prefixed

CAPABILITIES: Final = {
    "access": ("/access", r"User\.|Group\.|Permissions\.Modify$"),
    "dc": ("/", r"Sys\.Audit|Sys\.Modify|SDN\."),
    "mapping": ("/mapping", r"Mapping\.|Permissions\.Modify$"),
    "nodes": ("/nodes", r"Sys\.|Permissions\.Modify$"),
    "sdn": ("/sdn", r"SDN\.|Permissions\.Modify$"),
    "storage": ("/storage", r"Datastore\.|Permissions\.Modify$"),
    "vms": ("/vms", r"VM\.|Permissions\.Modify$"),
}
"""What the answer to a login tells the web interface: where to look, and which privileges count."""

TEXTS: Final = ("comment", "email", "firstname", "lastname", "keys")


# login


@route("GET /access/ticket")
def no_ticket(call: Call) -> None:
    """Nothing, whatever is sent."""


@route("POST /access/ticket")
def login(call: Call) -> dict[str, Any]:
    """A ticket for a password, or for a ticket."""
    user = call.text("username")
    if call.has("realm"):
        user = f"{user}@{call.text('realm')}"
    if not call.rights.login(user, call.text("password")):
        raise Refused(401, "authentication failure")
    return {
        "CSRFPreventionToken": call.rights.csrf(user),
        "cap": _capabilities(call, Caller(user)),
        "ticket": call.rights.ticket(user),
        "username": user,
        **({"clustername": call.state["name"]} if call.rights.may(Caller(user), "/", "Sys.Audit") else {}),
    }


def _capabilities(call: Call, caller: Caller) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, (top, pattern) in CAPABILITIES.items():
        privileges = call.rights.privileges(caller, top)
        found[name] = {privilege: 1 for privilege in privileges if re.match(pattern, privilege)}
    return found


@route("GET /access/domains")
def domains(call: Call) -> list[State]:
    """The realms."""
    return [{"realm": name, **entry} for name, entry in call.state["domains"].items()]


@route("GET /access/permissions")
def permissions(call: Call) -> dict[str, dict[str, int]]:
    """Own rights, or those of somebody else."""
    caller = call.caller
    if call.has("userid"):
        user, _, token = call.text("userid").partition("!")
        caller = Caller(user, token or None)
        if caller != call.caller:
            call.require("/access", "Sys.Audit")
        if user not in call.state["users"]:
            return {}
    if call.has("path"):
        path = call.text("path")
        return {path: call.rights.privileges(caller, "/" + path.strip("/"))}
    return call.rights.all(caller)


@route("PUT /access/password")
def change_password(call: Call) -> None:
    """Change the own password, or that of somebody else; the own one is asked for again unless root asks."""
    entry = existing(call, call.text("userid"))
    own = call.text("confirmation-password")
    if not call.caller.root and not call.rights.login(call.caller.user, own):
        raise Refused(401, "authentication failure")
    with prefixed("change password failed"):
        call.world.require_quorum("user_cfg")
        account, _, realm = call.text("userid").rpartition("@")
        if realm != "pve" and call.text("userid") != ROOT:
            raise failed(f"user '{account}' does not exist")
        entry["sealed"] = sealed(call.text("password"))


# users


def _shown(call: Call, user: str, entry: State) -> State:
    """A user as answers show it. An e-mail address that is not set shows up as "" as soon as a later field is set."""
    shown = {"enable": entry["enable"], "expire": entry["expire"]}
    shown.update({name: entry[name] for name in TEXTS if entry.get(name)})
    if "email" not in shown and (entry.get("comment") or entry.get("keys")):
        shown["email"] = ""
    return shown


def groups_of(call: Call, user: str) -> list[str]:
    """The groups of a user, sorted."""
    return sorted(name for name, entry in call.state["groups"].items() if user in entry.get("users", []))


def shown_token(token: State) -> State:
    """A token as answers show it."""
    comment = {"comment": token["comment"]} if token.get("comment") else {}
    return {**comment, "expire": token["expire"], "privsep": token["privsep"]}


@route("GET /access/users")
def users(call: Call) -> list[State]:
    """The users that the caller may see."""
    answer = []
    for user, entry in sorted(call.state["users"].items()):
        own = call.caller.user == user and call.caller.token is None
        if not own and not call.rights.group_of_user(call.caller, user, "User.Modify|Sys.Audit"):
            continue
        if call.has("enabled") and bool(entry["enable"]) != call.flag("enabled"):
            continue
        shown = {"userid": user, **_shown(call, user, entry)}
        realm = call.state["domains"].get(user.rpartition("@")[2])
        if realm:
            shown["realm-type"] = realm["type"]
        if call.flag("full"):
            tokens = entry.get("tokens")
            shown["groups"] = ",".join(groups_of(call, user))
            shown["tokens"] = (
                [{"tokenid": name, **shown_token(token)} for name, token in tokens.items()] if tokens else None
            )
        answer.append(shown)
    return answer


@route("GET /access/users/{userid}")
def user(call: Call) -> State:
    """One user."""
    name = call.text("userid")
    entry = existing(call, name)
    tokens = entry.get("tokens")
    return {
        **_shown(call, name, entry),
        "groups": groups_of(call, name),
        "tokens": {key: shown_token(token) for key, token in tokens.items()} if tokens else None,
    }


def existing(call: Call, name: str) -> State:
    """A user. Refused: there is none."""
    entry: State | None = call.state["users"].get(name)
    if entry is None:
        raise failed(f"no such user ('{name}')")
    return entry


def _write_user(call: Call, name: str, entry: State) -> None:
    for key in TEXTS:
        if call.has(key):
            entry[key] = call.text(key)
    for key in ("enable", "expire"):
        if call.has(key):
            entry[key] = call.number(key)
    if call.has("groups"):
        wanted = call.list("groups")
        for group in wanted:
            if group not in call.state["groups"]:
                raise failed(f"no such group '{group}'")
        for group, members in call.state["groups"].items():
            users = set(members.get("users", []))
            if group in wanted:
                users.add(name)
            elif not call.flag("append"):
                users.discard(name)
            members["users"] = sorted(users)


@route("POST /access/users")
def create_user(call: Call) -> None:
    """A new user. Its realm need not exist; only the realm pve keeps passwords."""
    name = call.text("userid")
    with prefixed("create user failed"):
        call.world.require_quorum("user_cfg")
        if name in call.state["users"]:
            raise failed(f"user '{name}' already exists")
        account, _, realm = name.rpartition("@")
        entry: State = {"enable": 1, "expire": 0}
        if call.has("password"):
            if realm != "pve":
                raise failed(f"change password failed: user '{account}' does not exist")
            entry["sealed"] = sealed(call.text("password"))
        _write_user(call, name, entry)
        call.state["users"][name] = entry


@route("PUT /access/users/{userid}")
def change_user(call: Call) -> None:
    """Change a user."""
    with prefixed("update user failed"):
        call.world.require_quorum("user_cfg")
        name = call.text("userid")
        _write_user(call, name, existing(call, name))


@route("DELETE /access/users/{userid}")
def delete_user(call: Call) -> None:
    """Delete a user with its rights and tokens. root@pam stays, an unknown one is no error."""
    name = call.text("userid")
    with prefixed("delete user failed"):
        call.world.require_quorum("user_cfg")
        if name == ROOT:
            return
        call.state["users"].pop(name, None)
        for group in call.state["groups"].values():
            group["users"] = [member for member in group.get("users", []) if member != name]
        forget(call, lambda entry: entry["ugid"] == name or entry["ugid"].startswith(f"{name}!"))


def forget(call: Call, gone: Any) -> None:
    """Drop the entries of the ACL for which `gone` is true."""
    call.state["acl"] = [entry for entry in call.state["acl"] if not gone(entry)]


# groups


@route("GET /access/groups")
def groups(call: Call) -> list[State]:
    """The groups that the caller may see."""
    return [
        {"groupid": name, "users": ",".join(sorted(entry.get("users", []))), **_comment(entry)}
        for name, entry in sorted(call.state["groups"].items())
        if call.may(f"/access/groups/{name}", "User.Modify|Sys.Audit|Group.Allocate")
    ]


def _comment(entry: Mapping[str, Any]) -> State:
    return {"comment": entry["comment"]} if entry.get("comment") else {}


@route("GET /access/groups/{groupid}")
def group(call: Call) -> State:
    """One group."""
    entry = _group(call)
    return {"members": sorted(entry.get("users", [])), **_comment(entry)}


def _group(call: Call) -> State:
    name = call.text("groupid")
    entry: State | None = call.state["groups"].get(name)
    if entry is None:
        raise failed(f"group '{name}' does not exist")
    return entry


@route("POST /access/groups")
def create_group(call: Call) -> None:
    """A new group."""
    name = call.text("groupid")
    with prefixed("create group failed"):
        call.world.require_quorum("user_cfg")
        if name in call.state["groups"]:
            raise failed(f"group '{name}' already exists")
        call.state["groups"][name] = {"users": [], "comment": call.text("comment")}


@route("PUT /access/groups/{groupid}")
def change_group(call: Call) -> None:
    """Change a group's comment."""
    with prefixed("update group failed"):
        call.world.require_quorum("user_cfg")
        entry = _group(call)
        if call.has("comment"):
            entry["comment"] = call.text("comment")


@route("DELETE /access/groups/{groupid}")
def delete_group(call: Call) -> None:
    """Delete a group with its rights."""
    with prefixed("delete group failed"):
        call.world.require_quorum("user_cfg")
        _group(call)
        name = call.text("groupid")
        del call.state["groups"][name]
        forget(call, lambda entry: entry["type"] == "group" and entry["ugid"] == name)


# tokens


def _token(call: Call) -> State:
    user, name = call.text("userid"), call.text("tokenid")
    token: State | None = existing(call, user).get("tokens", {}).get(name)
    if token is None:
        raise failed(f"no such token '{name}' for user '{user}'")
    return token


@route("GET /access/users/{userid}/token")
def tokens(call: Call) -> list[State]:
    """The tokens of a user."""
    entry = existing(call, call.text("userid"))
    return [{"tokenid": name, **shown_token(token)} for name, token in entry.get("tokens", {}).items()]


@route("GET /access/users/{userid}/token/{tokenid}")
def token(call: Call) -> State:
    """One token."""
    return shown_token(_token(call))


def _as_sent(call: Call) -> State:
    """Answers to writes repeat what was sent as text."""
    return {key: call.text(key) for key in ("comment", "expire", "privsep") if call.text(key)}


@route("POST /access/users/{userid}/token/{tokenid}")
def create_token(call: Call) -> State:
    """A new token; its secret is told once."""
    user, name = call.text("userid"), call.text("tokenid")
    entry = existing(call, user)
    if name in entry.get("tokens", {}):
        raise bad_parameters({"tokenid": "Token already exists."})
    with prefixed("generating token failed"):
        call.world.require_quorum("user_cfg")
    secret = call.world.uuid()
    made = {"expire": call.number("expire"), "privsep": call.number("privsep", 1), "sealed": sealed(secret)}
    if call.text("comment"):
        made["comment"] = call.text("comment")
    entry.setdefault("tokens", {})[name] = made
    return {"full-tokenid": f"{user}!{name}", "info": {"privsep": 1, **_as_sent(call)}, "value": secret}


@route("PUT /access/users/{userid}/token/{tokenid}")
def change_token(call: Call) -> State:
    """Change a token; `regenerate` makes a new secret."""
    with prefixed("updating token info failed"):
        call.world.require_quorum("user_cfg")
    token = _token(call)
    for key in call.list("delete"):
        if key == "comment":
            token.pop("comment", None)
        elif key in ("expire", "privsep"):
            token[key] = {"expire": 0, "privsep": 1}[key]
    if call.has("comment"):
        token["comment"] = call.text("comment")
    for key in ("expire", "privsep"):
        if call.has(key):
            token[key] = call.number(key)
    answer = {**shown_token(token), **_as_sent(call)}
    if call.flag("regenerate"):
        secret = call.world.uuid()
        token["sealed"] = sealed(secret)
        answer |= {"full-tokenid": f"{call.text('userid')}!{call.text('tokenid')}", "value": secret}
    return answer


@route("DELETE /access/users/{userid}/token/{tokenid}")
def delete_token(call: Call) -> None:
    """Delete a token with its rights."""
    _token(call)
    with prefixed("deleting token failed"):
        call.world.require_quorum("user_cfg")
    user, name = call.text("userid"), call.text("tokenid")
    del call.state["users"][user]["tokens"][name]
    forget(call, lambda entry: entry["type"] == "token" and entry["ugid"] == f"{user}!{name}")
