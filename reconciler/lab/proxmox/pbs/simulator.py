"""The simulator of a Proxmox Backup Server: HTTP on the outside, the world inside."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Final

from reconciler.lab.proxmox.clock import Pace
from reconciler.lab.proxmox.pbs import access, datastores, jobs, node  # noqa: F401 - importing makes the routes
from reconciler.lab.proxmox.pbs.rights import NOBODY, Caller, Rights
from reconciler.lab.proxmox.pbs.state import server_from
from reconciler.lab.proxmox.pbs.verify import TABLES, Refused, parameters
from reconciler.lab.proxmox.pbs.world import ROUTES, Call, Full, World
from reconciler.lab.proxmox.pve.state import sealed
from reconciler.lab.proxmox.simulator import Simulator
from reconciler.lab.proxmox.wire import Answer, Asked

FORM: Final = "application/x-www-form-urlencoded"


class PbsSimulator(Simulator):
    """A simulated Proxmox Backup Server. See the package's docstring.

    It can stand in `PveSimulator(backup_servers=...)`: storages of type pbs then log in here.
    """

    def __init__(
        self,
        state: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], float] | None = None,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(clock, pace)
        self._world = World(server_from(state), self.clock, self.pace)
        self.rights = Rights(self._world)
        name = str(self.state["name"])
        entry = {"port": self.state["port"]}
        self._prepare({name: entry}, self.state["certificates"])
        self.state["fingerprint"] = entry["fingerprint"]

    @property
    def world(self) -> World:
        """What is behind the API."""
        return self._world

    def _advance(self) -> None:
        self._world.end_tasks()

    def _remember(self, name: str, port: int) -> None:
        self.state["port"] = port

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `snapshot` gave. The endpoint stays where it is, with its certificate."""
        with self._lock:
            kept = {key: self.state[key] for key in ("certificates", "fingerprint", "port", "name")}
            self._world.state = {**server_from(state), **kept}

    def mint_token(self, name: str, *, roles: Mapping[str, str] | None = None) -> str:
        """A new API token `USER@REALM!ID` with roles by path; the user must exist. Returns the secret.

        Without `roles` the token is Admin everywhere; it may still do no more than its user.
        """
        user, _, token = name.partition("!")
        secret = self._world.uuid()
        with self._lock:
            self.state["users"][user].setdefault("tokens", {})[token] = {"sealed": sealed(secret)}
            for path, role in (roles if roles is not None else {"/": "Admin"}).items():
                entry = {"path": path, "ugid": name, "ugid_type": "user", "roleid": role, "propagate": True}
                self.state["acl"].append(entry)
        return secret

    # what storages of a cluster see

    def admits(self, auth_id: str, secret: str) -> bool:
        """The login is right, and the server is up. `secret` is sealed."""
        with self._lock:
            return self.rights.admits(auth_id, secret)

    def shows(self, auth_id: str) -> list[str]:
        """The datastores that this login may see."""
        with self._lock:
            self._advance()
            caller = Caller(auth_id)
            return [
                name
                for name in self.state["datastores"]
                if self.rights.may(caller, f"/datastore/{name}", datastores.SEEN)
                or self.rights.may_below(caller, f"/datastore/{name}", datastores.SEEN_BELOW)
            ]

    # one request

    def _answer(self, name: str, asked: Asked) -> Answer:
        try:
            data = self._call(asked)
        except Refused as error:
            return Answer(error.status, error.text.encode(), "text/plain")
        full = data if isinstance(data, Full) else Full(data)
        return Answer(200, json.dumps({"data": full.data, **full.beside}).encode())

    def _call(self, asked: Asked) -> Any:
        path = asked.path.removeprefix("/api2/json")
        parts = [urllib.parse.unquote(part) for part in path.split("/") if part]
        found = TABLES.find(asked.verb, parts)
        caller = NOBODY
        if found is None or found[0].who != "world":
            caller = self.rights.authenticate(asked.headers, write=asked.verb != "GET")
        if found is None:
            raise Refused(f"Path '{asked.path}' not found.", 404)
        method, in_path = found
        given = _given(asked)
        self._log(asked.verb, "/" + "/".join(parts), given)
        self.rights.check(method.who, caller, in_path)
        values = parameters(method, given, in_path)
        if in_path.get("node", self.state["name"]) not in (self.state["name"], "localhost"):
            raise Refused(f"no such node '{in_path['node']}'")
        function = ROUTES.get((method.verb, method.path))
        if function is None:
            raise Refused(f"'{method.verb} {method.path}' is not simulated", 501)
        return function(Call(self._world, self.rights, caller, values))


def _given(asked: Asked) -> dict[str, Any]:
    """Parameters of query and body; a repeated key is a list."""
    pairs = urllib.parse.parse_qsl(asked.query, keep_blank_values=True)
    found: dict[str, Any] = {}
    kind = asked.headers.get("content-type", FORM).partition(";")[0].strip().lower()
    if asked.body and kind == "application/json":
        try:
            found = json.loads(asked.body)
        except ValueError as error:
            raise Refused(f"unable to parse json: {error}") from None
        if not isinstance(found, dict):
            raise Refused("expected an object")
        found = {name: value for name, value in found.items() if value is not None}
    elif asked.body and kind == FORM:
        pairs += urllib.parse.parse_qsl(asked.body.decode("utf-8", "replace"), keep_blank_values=True)
    elif asked.body:
        raise Refused(f"unsupported content type '{kind}'")
    for name, value in pairs:
        if name in found:
            before = found[name]
            found[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            found[name] = value
    return found
