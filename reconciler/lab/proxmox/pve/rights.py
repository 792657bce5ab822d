"""Who asks, and what may be done: tickets, API tokens, roles along paths, the declared checks of methods."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reconciler.lab.proxmox.pve import known
from reconciler.lab.proxmox.pve.refusal import Refused, denied
from reconciler.lab.proxmox.pve.state import State, sealed
from reconciler.lab.proxmox.pve.verify import split_list
from reconciler.lab.proxmox.pve.world import World

TICKET_LIFE: Final = 7200
ROOT: Final = "root@pam"
TOP: Final = ("/", "/access", "/access/groups", "/mapping", "/nodes", "/pool", "/sdn", "/storage", "/vms")
"""The paths that are looked at when somebody asks for all rights, besides those with entries."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a user, perhaps by a token (`token` = its name)."""

    user: str
    token: str | None = None

    @property
    def name(self) -> str:
        """`user@realm` or `user@realm!token`."""
        return f"{self.user}!{self.token}" if self.token else self.user

    @property
    def root(self) -> bool:
        """root@pam itself; its tokens are not."""
        return self.user == ROOT and self.token is None


NOBODY: Final = Caller("")


class Rights:
    """Authentication and authorisation over the state of a cluster."""

    def __init__(self, world: World) -> None:
        self._world = world

    # who asks

    def _user(self, name: str) -> State | None:
        user: State | None = self._world.state["users"].get(name)
        if user is None or not user["enable"]:
            return None
        return None if user["expire"] and user["expire"] <= self._world.now() else user

    def _sign(self, text: str) -> str:
        key = str(self._world.state["ticket_key"]).encode()
        return base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()

    def ticket(self, user: str) -> str:
        """A new ticket."""
        plain = f"PVE:{user}:{self._world.now():08X}"
        return f"{plain}::{self._sign(plain)}"

    def csrf(self, user: str) -> str:
        """A new CSRF prevention token."""
        stamp = f"{self._world.now():08X}"
        return f"{stamp}:{self._sign(f'{stamp}:{user}').rstrip('=')}"

    def user_of_ticket(self, ticket: str) -> str | None:
        """The user of a valid ticket."""
        match = re.fullmatch(r"(PVE:([^:]+):([0-9A-F]{8}))::(.+)", ticket)
        if not match or not hmac.compare_digest(self._sign(match[1]), match[4]):
            return None
        age = self._world.now() - int(match[3], 16)
        return match[2] if -300 < age < TICKET_LIFE and self._user(match[2]) else None

    def login(self, user: str, password: str) -> bool:
        """The password, or a valid ticket in its place, is right."""
        entry = self._user(user)
        if entry is None or user.rpartition("@")[2] not in self._world.state["domains"]:
            return False
        return entry.get("sealed") == sealed(password) or self.user_of_ticket(password) == user

    def authenticate(self, headers: Mapping[str, str], *, write: bool) -> Caller:
        """Who asks, by the headers. Refused (401): nobody that we know."""
        authorization = headers.get("authorization", "")
        if authorization.startswith("PVEAPIToken="):
            return self._token(authorization.removeprefix("PVEAPIToken="))
        ticket = authorization.removeprefix("PVEAuthCookie=") if authorization.startswith("PVEAuthCookie=") else None
        if ticket is None:
            match = re.search(r"(?:^|;\s*)PVEAuthCookie=([^;]*)", headers.get("cookie", ""))
            ticket = match[1] if match else None
        if not ticket:
            raise Refused(401, "No ticket", plain="")
        user = self.user_of_ticket(urllib.parse.unquote(ticket))
        if user is None:
            raise Refused(401, "Authentication failed!", plain="")
        if write:
            stamp, _, signature = headers.get("csrfpreventiontoken", "").partition(":")
            if not signature or signature != self._sign(f"{stamp}:{user}").rstrip("="):
                raise Refused(401, "Permission denied - invalid csrf token", plain="")
        return Caller(user)

    def _token(self, text: str) -> Caller:
        name, _, secret = text.partition("=")
        user, _, token = name.partition("!")
        entry = self._user(user)
        found = (entry or {}).get("tokens", {}).get(token)
        if found is None or not secret or found.get("sealed") != sealed(secret):
            raise Refused(401, "Authentication failed!", plain="")
        if found["expire"] and found["expire"] <= self._world.now():
            raise Refused(401, "Authentication failed!", plain="")
        return Caller(user, token)

    # what may be done

    def role(self, name: str) -> tuple[str, ...]:
        """The privileges of a role; none for an unknown one."""
        own = self._world.state["roles"].get(name)
        return tuple(own["privs"]) if own is not None else known.ROLES.get(name, ())

    def _roles(self, name: str, kind: str, path: str) -> dict[str, int]:
        """The roles of a user or token on a path, with their propagate flag: the nearest entry upwards counts."""
        groups = [group for group, entry in self._world.state["groups"].items() if name in entry.get("users", [])]
        parts = [part for part in path.split("/") if part]
        steps = ["/", *("/" + "/".join(parts[: i + 1]) for i in range(len(parts)))]
        found: dict[str, int] = {}
        for step in steps:
            last = step == steps[-1]
            here = [
                entry for entry in self._world.state["acl"] if entry["path"] == step and (last or entry["propagate"])
            ]
            own = {
                entry["roleid"]: entry["propagate"] for entry in here if entry["type"] == kind and entry["ugid"] == name
            }
            by_group = {
                entry["roleid"]: entry["propagate"]
                for entry in here
                if kind == "user" and entry["type"] == "group" and entry["ugid"] in groups
            }
            if own or by_group:
                found = own or by_group
        return {} if "NoAccess" in found else found

    def _of(self, name: str, kind: str, path: str) -> dict[str, int]:
        if kind == "user" and name == ROOT:
            return dict.fromkeys(known.PRIVILEGES, 1)
        paths = [path, *self._pools(path)]
        privileges: dict[str, int] = {}
        for one in paths:
            for role, propagate in self._roles(name, kind, one).items():
                for privilege in self.role(role):
                    privileges[privilege] = max(privileges.get(privilege, 0), propagate)
        return privileges

    def _pools(self, path: str) -> list[str]:
        match = re.fullmatch(r"/(vms|storage)/([^/]+)", path)
        if not match:
            return []
        key = "vms" if match[1] == "vms" else "storage"
        pools = self._world.state["pools"].items()
        return [f"/pool/{name}" for name, pool in pools if match[2] in pool.get(key, [])]

    def privileges(self, caller: Caller, path: str) -> dict[str, int]:
        """The privileges on a path; 1 = they hold below it too."""
        if caller.token is None:
            return self._of(caller.user, "user", path)
        token = self._world.state["users"].get(caller.user, {}).get("tokens", {}).get(caller.token)
        if token is None:
            return {}
        of_user = self._of(caller.user, "user", path)
        if not token["privsep"]:
            return of_user
        of_token = self._of(caller.name, "token", path)
        return {name: min(flag, of_user[name]) for name, flag in of_token.items() if name in of_user}

    def may(self, caller: Caller, path: str, privileges: str) -> bool:
        """All (`A&B`) or any (`A|B`) of the privileges."""
        if caller.root:
            return True
        have = self.privileges(caller, path)
        if "|" in privileges:
            return any(name in have for name in privileges.split("|"))
        return all(name in have for name in privileges.split("&"))

    def require(self, caller: Caller, path: str, privileges: str) -> None:
        """Refused (403): they are missing."""
        if not self.may(caller, path, privileges):
            raise denied(f"{path}, {privileges.replace('&', ',')}")

    def all(self, caller: Caller) -> dict[str, dict[str, int]]:
        """All rights, by the paths that have entries and the top ones."""
        paths = sorted({*TOP, *(entry["path"] for entry in self._world.state["acl"])})
        found = {path: self.privileges(caller, path) for path in paths}
        return {path: privileges for path, privileges in found.items() if privileges}

    # the declared checks

    def check(self, who: str, caller: Caller, values: Mapping[str, Any]) -> None:
        """The check that stands in the table of methods. Refused (403): it fails."""
        if who in ("all", "world") or caller.root:
            return
        if who.startswith("/"):
            template, _, privileges = who.partition(" ")
            path = re.sub(r"\{([^}]+)\}", lambda match: str(values.get(match[1], "")), template)
            self.require(caller, path, known.GROUPS_OF_PRIVILEGES.get(privileges, privileges))
            return
        _SPECIAL[who](self, caller, values)

    def _modify_acl(self, caller: Caller, values: Mapping[str, Any]) -> None:
        path = str(values.get("path", "/"))
        path = "/" + "/".join(part for part in path.split("/") if part)
        self.require(caller, path, "Permissions.Modify")

    def _create_user(self, caller: Caller, values: Mapping[str, Any]) -> None:
        realm = str(values.get("userid", "")).rpartition("@")[2]
        self.require(caller, f"/access/realm/{realm}", "Realm.AllocateUser")
        groups = split_list(str(values.get("groups", "")))
        for path in [f"/access/groups/{group}" for group in groups] or ["/access/groups"]:
            self.require(caller, path, "User.Modify")

    def group_of_user(self, caller: Caller, user: str, privileges: str) -> bool:
        """The privileges on all groups, or on one of the user's."""
        groups = [name for name, entry in self._world.state["groups"].items() if user in entry.get("users", [])]
        paths = ["/access/groups", *(f"/access/groups/{name}" for name in groups)]
        return any(self.may(caller, path, privileges) for path in paths)

    def _read_user(self, caller: Caller, values: Mapping[str, Any]) -> None:
        if not self.group_of_user(caller, str(values.get("userid")), "User.Modify|Sys.Audit"):
            raise denied()

    def _update_user(self, caller: Caller, values: Mapping[str, Any]) -> None:
        if not self.group_of_user(caller, str(values.get("userid")), "User.Modify"):
            raise denied("/access/groups, User.Modify")

    def _delete_user(self, caller: Caller, values: Mapping[str, Any]) -> None:
        realm = str(values.get("userid", "")).rpartition("@")[2]
        self.require(caller, f"/access/realm/{realm}", "Realm.AllocateUser")
        self._update_user(caller, values)

    def _own_token(self, caller: Caller, values: Mapping[str, Any]) -> None:
        if caller.user != values.get("userid") and not self.group_of_user(
            caller, str(values.get("userid")), "User.Modify"
        ):
            raise denied()

    def _password(self, caller: Caller, values: Mapping[str, Any]) -> None:
        if caller.user != values.get("userid"):
            self._delete_user(caller, values)

    def _root(self, caller: Caller, values: Mapping[str, Any]) -> None:
        raise denied("user != root@pam")


_SPECIAL: Final = {
    "modify-acl": Rights._modify_acl,
    "create-user": Rights._create_user,
    "read-user": Rights._read_user,
    "update-user": Rights._update_user,
    "delete-user": Rights._delete_user,
    "own-token": Rights._own_token,
    "password": Rights._password,
    "root": Rights._root,
}
