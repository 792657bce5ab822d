"""Who asks a backup server, and what may be done: tickets, API tokens, roles along paths."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reconciler.lab.proxmox.pbs import known
from reconciler.lab.proxmox.pbs.verify import Refused
from reconciler.lab.proxmox.pbs.world import World
from reconciler.lab.proxmox.pve.state import sealed
from reconciler.lab.proxmox.world import State

TICKET_LIFE: Final = 7200
ROOT: Final = "root@pam"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `user@realm`, or `user@realm!token`."""

    name: str

    @property
    def user(self) -> str:
        """Without the token."""
        return self.name.partition("!")[0]


NOBODY: Final = Caller("")


class Rights:
    """Authentication and authorisation over the state of a server."""

    def __init__(self, world: World) -> None:
        self._world = world

    def active(self, name: str) -> State | None:
        """An enabled, unexpired user or token."""
        user, _, token = name.partition("!")
        entry: State | None = self._world.state["users"].get(user)
        for one in [entry, (entry or {}).get("tokens", {}).get(token)] if token else [entry]:
            if one is None or not one.get("enable", True):
                return None
            if one.get("expire") and one["expire"] <= self._world.now():
                return None
            entry = one
        return entry

    def admits(self, name: str, secret: str) -> bool:
        """User and password, or token and secret, are right. The secret is sealed."""
        entry = self.active(name)
        return entry is not None and entry.get("sealed") == secret

    def _sign(self, text: str) -> str:
        key = str(self._world.state["ticket_key"]).encode()
        return base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode().rstrip("=")

    def ticket(self, user: str) -> str:
        """A new ticket."""
        plain = f"PBS:{user}:{self._world.now():08X}"
        return f"{plain}::{self._sign(plain)}"

    def csrf(self, user: str) -> str:
        """A new CSRF prevention token."""
        stamp = f"{self._world.now():08X}"
        return f"{stamp}:{self._sign(f'{stamp}:{user}')}"

    def user_of_ticket(self, ticket: str) -> str | None:
        """The user of a valid ticket."""
        match = re.fullmatch(r"(PBS:([^:]+):([0-9A-F]{8}))::(.+)", ticket)
        if not match or not hmac.compare_digest(self._sign(match[1]), match[4]):
            return None
        age = self._world.now() - int(match[3], 16)
        return match[2] if -300 < age < TICKET_LIFE and self.active(match[2]) is not None else None

    def authenticate(self, headers: Mapping[str, str], *, write: bool) -> Caller:
        """Who asks. Refused (401): nobody that we know."""
        authorization = headers.get("authorization", "")
        if authorization.startswith("PBSAPIToken="):
            name, _, secret = authorization.removeprefix("PBSAPIToken=").partition(":")
            if "!" not in name or not self.admits(name, sealed(secret)):
                raise Refused("authentication failed - invalid token", 401)
            return Caller(name)
        match = re.search(r"(?:^|;\s*)(?:__Host-)?PBSAuthCookie=([^;]*)", headers.get("cookie", ""))
        if not match:
            raise Refused("authentication failed - no authentication credentials provided.", 401)
        user = self.user_of_ticket(urllib.parse.unquote(match[1]))
        if user is None:
            raise Refused("authentication failed - invalid ticket", 401)
        if write:
            stamp, _, signature = headers.get("csrfpreventiontoken", "").partition(":")
            if not signature or signature != self._sign(f"{stamp}:{user}"):
                raise Refused("authentication failed - missing or invalid CSRF prevention token", 401)
        return Caller(user)

    # rights

    def _of(self, name: str, path: str) -> dict[str, bool]:
        if name == ROOT:
            return dict.fromkeys(known.PRIVILEGES, True)
        parts = [part for part in path.split("/") if part]
        steps = ["/", *("/" + "/".join(parts[: i + 1]) for i in range(len(parts)))]
        roles: dict[str, bool] = {}
        for step in steps:
            here = {
                entry["roleid"]: entry["propagate"]
                for entry in self._world.state["acl"]
                if entry["ugid"] == name and entry["path"] == step and (entry["propagate"] or step == steps[-1])
            }
            roles = here or roles
        if "NoAccess" in roles:
            return {}
        found: dict[str, bool] = {}
        for role, propagate in roles.items():
            for privilege in known.ROLES[role]:
                found[privilege] = found.get(privilege, False) or propagate
        return found

    def privileges(self, caller: Caller, path: str) -> dict[str, bool]:
        """The privileges on a path; True = they hold below it too. A token has those that its user has as well."""
        of_user = self._of(caller.user, path)
        if caller.name == caller.user:
            return of_user
        of_token = self._of(caller.name, path)
        return {name: flag and of_user[name] for name, flag in of_token.items() if name in of_user}

    def may(self, caller: Caller, path: str, privileges: str) -> bool:
        """All (`A&B`) or any (`A|B`) of the privileges."""
        have = self.privileges(caller, path)
        if "|" in privileges:
            return any(name in have for name in privileges.split("|"))
        return all(name in have for name in privileges.split("&"))

    def may_below(self, caller: Caller, path: str, privileges: str) -> bool:
        """Any of the privileges on any path below that the access list names."""
        below = {entry["path"] for entry in self._world.state["acl"] if entry["path"].startswith(f"{path}/")}
        return any(self.may(caller, one, privileges) for one in below)

    def require(self, caller: Caller, path: str, privileges: str) -> None:
        """Refused (403): they are missing."""
        if not self.may(caller, path, privileges):
            raise Refused("permission check failed", 403)

    def check(self, who: str, caller: Caller, values: Mapping[str, Any]) -> None:
        """The check that stands in the table of methods. Refused (403): it fails."""
        if who in ("all", "world"):
            return
        rule, _, also = who.partition(" or ")
        if also == "self" and caller.user == values.get("userid"):
            return
        template, _, privileges = rule.partition(" ")
        path = re.sub(r"\{([^}]+)\}", lambda match: str(values.get(match[1], "")), template)
        self.require(caller, path, privileges)
