"""Login, users, API tokens, the ACL of a backup server."""

from __future__ import annotations

from typing import Any, Final

from reconciler.lab.proxmox.pbs import known
from reconciler.lab.proxmox.pbs.rights import Caller
from reconciler.lab.proxmox.pbs.verify import Refused
from reconciler.lab.proxmox.pbs.world import Call, Full, route
from reconciler.lab.proxmox.pve.state import sealed
from reconciler.lab.proxmox.world import State

USER: Final = ("comment", "email", "enable", "expire", "firstname", "lastname")
TOKEN: Final = ("comment", "enable", "expire")


@route("POST /access/ticket")
def login(call: Call) -> State:
    """A ticket for a password, or for a ticket."""
    user, password = call.get("username"), str(call.get("password", ""))
    if not call.rights.admits(user, sealed(password)) and call.rights.user_of_ticket(password) != user:
        raise Refused("permission check failed.", 401)
    return {"ticket": call.rights.ticket(user), "CSRFPreventionToken": call.rights.csrf(user), "username": user}


@route("DELETE /access/ticket")
def logout(call: Call) -> None:
    """Nothing is kept of tickets."""


@route("GET /access/domains")
def domains(call: Call) -> list[State]:
    """The realms."""
    return [
        {"realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication", "default": True},
        {"realm": "pbs", "type": "pbs", "comment": "Proxmox Backup authentication server"},
    ]


@route("GET /access/roles")
def roles(call: Call) -> list[State]:
    """The roles; they are fixed."""
    return [{"roleid": name, "privs": list(privileges)} for name, privileges in known.ROLES.items()]


@route("GET /access/permissions")
def permissions(call: Call) -> dict[str, dict[str, bool]]:
    """Own rights, or those of somebody else."""
    caller = Caller(call.get("auth-id", call.caller.name))
    if call.caller.name not in (caller.name, caller.user):
        call.require("/access", "Sys.Audit")
    if "path" in call.values:
        return {call.get("path"): call.rights.privileges(caller, call.get("path"))}
    top = ["/", "/access", "/access/acl", "/access/users", "/datastore", "/remote", "/system", "/tape"]
    paths = sorted({*top, *(entry["path"] for entry in call.state["acl"])})
    found = {path: call.rights.privileges(caller, path) for path in paths}
    return {path: privileges for path, privileges in found.items() if privileges}


# users


def _shown(name: str, entry: State) -> State:
    return {"userid": name, **{key: entry[key] for key in USER if key in entry}}


def _digest(call: Call) -> dict[str, str]:
    return {"digest": call.world.digest("users")}


def _user(call: Call) -> State:
    name = call.get("userid")
    entry: State | None = call.state["users"].get(name)
    if entry is None:
        raise Refused(f"no such user '{name}'")
    return entry


@route("GET /access/users")
def users(call: Call) -> Full:
    """All users, or only the own one without Sys.Audit."""
    all_of_them = call.may("/access/users", "Sys.Audit")
    answer = []
    for name, entry in sorted(call.state["users"].items()):
        if not all_of_them and name != call.caller.user:
            continue
        shown = _shown(name, entry)
        if call.get("include_tokens") and entry.get("tokens"):
            shown["tokens"] = [_shown_token(name, token, about) for token, about in entry["tokens"].items()]
        answer.append(shown)
    return Full(answer, _digest(call))


@route("GET /access/users/{userid}")
def user(call: Call) -> Full:
    """One user."""
    return Full(_shown(call.get("userid"), _user(call)), _digest(call))


def _write(call: Call, entry: State, keys: tuple[str, ...]) -> None:
    for key in call.get("delete", []):
        entry.pop(key, None)
    for key in keys:
        if key in call.values:
            if call.values[key] == "":
                entry.pop(key, None)
            else:
                entry[key] = call.values[key]


@route("POST /access/users")
def create_user(call: Call) -> None:
    """A new user."""
    name = call.get("userid")
    if name in call.state["users"]:
        raise Refused(f"user '{name}' already exists.")
    if name.rpartition("@")[2] not in ("pam", "pbs"):
        raise Refused(f"realm '{name.rpartition('@')[2]}' does not exist.")
    entry: State = {}
    _write(call, entry, USER)
    if "password" in call.values:
        entry["sealed"] = sealed(call.get("password"))
    call.state["users"][name] = entry


@route("PUT /access/users/{userid}")
def change_user(call: Call) -> None:
    """Change a user."""
    call.world.check_digest(call.get("digest"), "users")
    entry = _user(call)
    _write(call, entry, USER)
    if "password" in call.values:
        entry["sealed"] = sealed(call.get("password"))


@route("DELETE /access/users/{userid}")
def delete_user(call: Call) -> None:
    """Delete a user with its tokens. Its entries in the ACL stay until somebody deletes them."""
    call.world.check_digest(call.get("digest"), "users")
    name = call.get("userid")
    if name not in call.state["users"]:
        raise Refused(f"user '{name}' does not exist.")
    if name == "root@pam":
        raise Refused("unable to delete system user 'root@pam'.")
    del call.state["users"][name]


@route("PUT /access/password")
def change_password(call: Call) -> None:
    """Change the own password, or that of somebody else."""
    if call.caller.name != call.get("userid"):
        call.require("/access/users", "Permissions.Modify")
    _user(call)["sealed"] = sealed(call.get("password"))


# tokens


def _shown_token(user: str, name: str, token: State) -> State:
    return {"tokenid": f"{user}!{name}", **{key: token[key] for key in TOKEN if key in token}}


def _token(call: Call) -> State:
    name = call.get("token-name")
    token: State | None = _user(call).get("tokens", {}).get(name)
    if token is None:
        raise Refused(f"token '{name}' of user '{call.get('userid')}' does not exist.")
    return token


@route("GET /access/users/{userid}/token")
def tokens(call: Call) -> Full:
    """The tokens of a user."""
    user = call.get("userid")
    found = _user(call).get("tokens", {}).items()
    return Full([{**_shown_token(user, name, token), "token-name": name} for name, token in found], _digest(call))


@route("GET /access/users/{userid}/token/{token-name}")
def token(call: Call) -> Full:
    """One token."""
    return Full(_shown_token(call.get("userid"), call.get("token-name"), _token(call)), _digest(call))


@route("POST /access/users/{userid}/token/{token-name}")
def create_token(call: Call) -> State:
    """A new token; its secret is told once."""
    call.world.check_digest(call.get("digest"), "users")
    user, name = call.get("userid"), call.get("token-name")
    tokens = _user(call).setdefault("tokens", {})
    if name in tokens:
        raise Refused(f"token '{name}' for user '{user}' already exists.")
    secret = call.world.uuid()
    tokens[name] = {"sealed": sealed(secret)}
    _write(call, tokens[name], TOKEN)
    return {"tokenid": f"{user}!{name}", "value": secret}


@route("PUT /access/users/{userid}/token/{token-name}")
def change_token(call: Call) -> State:
    """Change a token; `regenerate` makes a new secret."""
    call.world.check_digest(call.get("digest"), "users")
    token = _token(call)
    _write(call, token, TOKEN)
    if not call.get("regenerate"):
        return {}
    secret = call.world.uuid()
    token["sealed"] = sealed(secret)
    return {"secret": secret}


@route("DELETE /access/users/{userid}/token/{token-name}")
def delete_token(call: Call) -> None:
    """Delete a token."""
    call.world.check_digest(call.get("digest"), "users")
    _token(call)
    del _user(call)["tokens"][call.get("token-name")]


# ACL


@route("GET /access/acl")
def acl(call: Call) -> Full:
    """The entries; without Sys.Audit only those of own tokens."""
    all_of_them = call.may("/access/acl", "Sys.Audit")
    path = known.normalised(call.get("path")) if "path" in call.values else None
    found = []
    for entry in call.state["acl"]:
        if not all_of_them and not entry["ugid"].startswith(f"{call.caller.user}!"):
            continue
        below = path is None or entry["path"] == path or path == "/" or entry["path"].startswith(f"{path}/")
        if below and not (call.get("exact") and entry["path"] != path):
            found.append(entry)
    return Full(found, {"digest": call.world.digest("acl")})


@route("PUT /access/acl")
def change_acl(call: Call) -> None:
    """Add or delete one entry. Path and principal are checked when adding only."""
    principal: Any = call.get("auth-id")
    if not call.may("/access/acl", "Permissions.Modify") and not str(principal).startswith(f"{call.caller.user}!"):
        raise Refused("permission check failed", 403)
    call.world.check_digest(call.get("digest"), "acl")
    if "group" in call.values:
        raise Refused("parameter 'group' - groups are currently not supported.")
    if principal is None:
        raise Refused("missing 'userid' or 'group' parameter.")
    path, delete = known.normalised(call.get("path")), call.get("delete", False)
    if not delete:
        user, _, token = principal.partition("!")
        if user not in call.state["users"]:
            raise Refused("no such user.")
        if token and token not in call.state["users"][user].get("tokens", {}):
            raise Refused("no such API token.")
        if not known.can_hold_rights(path):
            raise Refused(f"invalid ACL path '{path}'")
    key = {"path": path, "ugid": principal, "roleid": call.get("role")}
    call.state["acl"] = [
        entry for entry in call.state["acl"] if any(entry[part] != value for part, value in key.items())
    ]
    if not delete:
        call.state["acl"].append({**key, "ugid_type": "user", "propagate": call.get("propagate", True)})
