"""The simulator of a Proxmox VE cluster: HTTP on the outside, the world inside."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Final

from reconciler.lab.proxmox.clock import Pace
from reconciler.lab.proxmox.pve import (  # noqa: F401 - the routes are made by importing their modules
    access,
    backups,
    cluster,
    disks,
    guests,
    operations,
    replication,
    roles,
    storages,
    tasks,
)
from reconciler.lab.proxmox.pve import scheduler as rounds
from reconciler.lab.proxmox.pve.refusal import Refused, denied
from reconciler.lab.proxmox.pve.rights import NOBODY, Caller, Rights
from reconciler.lab.proxmox.pve.routes import ROUTES, Call, Full
from reconciler.lab.proxmox.pve.state import cluster_from, sealed
from reconciler.lab.proxmox.pve.verify import TABLES, Value, parameters
from reconciler.lab.proxmox.pve.world import BackupServer, World
from reconciler.lab.proxmox.simulator import Simulator
from reconciler.lab.proxmox.wire import Answer, Asked

FORM: Final = "application/x-www-form-urlencoded"
BROKEN_JSON: Final = (
    '\'"\' expected, at character offset 1 (before "(end of string)") '
    "at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 1230."
)


class PveSimulator(Simulator):
    """A simulated Proxmox VE cluster with one HTTPS endpoint per node. See the package's docstring.

    `backup_servers`: simulators (or anything like `BackupServer`) by "HOST" or "HOST:PORT", where storages of type pbs
    log in.
    """

    def __init__(
        self,
        state: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], float] | None = None,
        pace: Pace | None = None,
        backup_servers: Mapping[str, BackupServer] | None = None,
    ) -> None:
        super().__init__(clock, pace)
        self._world = World(cluster_from(state), self.clock, self.pace)
        self.world.backup_servers.update(backup_servers or {})
        self.rights = Rights(self.world)
        self._prepare(self.world.nodes(), self.world.state["certificates"])

    @property
    def world(self) -> World:
        """What is behind the API."""
        return self._world

    @property
    def backup_servers(self) -> dict[str, BackupServer]:
        """The backup servers that the cluster can reach, by "HOST" or "HOST:PORT"."""
        return self.world.backup_servers

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what `snapshot` gave. The endpoints stay where they are. ValueError: it has other nodes."""
        if list(state["nodes"]) != list(self._endpoints):
            raise ValueError("the state is one of a cluster with other nodes")
        with self._lock:
            certificates, ports = self.state["certificates"], {n: e["port"] for n, e in self.world.nodes().items()}
            self.world.state = cluster_from(state)
            self.world.state["certificates"] = certificates
            for name, entry in self.world.nodes().items():
                entry["port"] = ports.get(name, 0)

    def _up(self, name: str) -> bool:
        return self.world.online(name)

    def _remember(self, name: str, port: int) -> None:
        self.world.nodes()[name]["port"] = port

    def _advance(self) -> None:
        self.world.end_tasks()
        rounds.catch_up(self.world)

    # switches for tests

    @property
    def quorate(self) -> bool | None:
        """None: by the votes of the nodes that are up; True or False: forced."""
        forced: bool | None = self.state["quorate"]
        return forced

    @quorate.setter
    def quorate(self, value: bool | None) -> None:
        with self._lock:
            self.state["quorate"] = value

    def stop_node(self, name: str) -> None:
        """A node goes down: its port refuses connections, it has no vote, its guests are unknown."""
        with self._lock:
            self.world.nodes()[name]["online"] = False
        self._endpoints[name].stop()

    def start_node(self, name: str) -> None:
        """A node comes back, on the same port."""
        with self._lock:
            self.world.nodes()[name]["online"] = True
        self._endpoints[name].start()

    def fail_replication(self, job: str, text: str = "command failed", times: int = 1) -> None:
        """The next runs of a replication job fail with this error."""
        with self._lock:
            self.world.failing_replications[job] = {"text": text, "times": times}

    def move_guest(self, vmid: str | int, node: str) -> None:
        """A guest is suddenly on another node, as after a failover: no job is turned round by this."""
        with self._lock:
            guest = self.state["guests"][str(vmid)]
            guest["node"], guest["moved"] = node, self.clock()

    def mint_token(self, name: str, *, separated: bool = False) -> str:
        """A new API token `USER@REALM!ID`; the user must exist. Returns the secret."""
        user, _, token = name.partition("!")
        secret = self.world.uuid()
        with self._lock:
            kept = {"privsep": int(separated), "expire": 0, "sealed": sealed(secret)}
            self.state["users"][user].setdefault("tokens", {})[token] = kept
        return secret

    # one request

    def _answer(self, name: str, asked: Asked) -> Answer:
        try:
            data = self._call(name, asked)
        except Refused as error:
            return _refusal(error)
        full = data if isinstance(data, Full) else Full(data)
        return Answer(200, json.dumps({"data": full.data, **full.beside}).encode())

    def _call(self, asked_node: str, asked: Asked) -> Any:
        path = asked.path.removeprefix("/api2/json")
        parts = [urllib.parse.unquote(part) for part in path.split("/") if part]
        found = TABLES.find(asked.verb, parts)
        open_to_all = found is not None and found[0].who == "world"
        caller = NOBODY
        if not open_to_all:
            caller = self.rights.authenticate(asked.headers, write=asked.verb != "GET")
        given = _given(asked)
        if found is None:
            raise Refused(501, f"Method '{asked.verb} /{'/'.join(parts)}' not implemented")
        method, in_path = found
        self._log(asked.verb, "/" + "/".join(parts), given)
        self._reach(in_path.get("node"))
        if caller.token is not None and not method.tokens:
            raise denied(f"URI '{method.path}' not available with API token, need proper ticket.")
        self.rights.check(method.who, caller, {**given, **in_path})
        values = parameters(method, given, in_path)
        function = ROUTES.get((method.verb, method.path))
        if function is None:
            raise Refused(501, f"Method '{asked.verb} {method.path}' is not simulated")
        return function(Call(self.world, self.rights, caller, asked_node, values))

    def _reach(self, node: str | None) -> None:
        """Requests about another node are forwarded to it."""
        if node is None:
            return
        if node not in self.world.nodes():
            text = f"hostname lookup '{node}' failed - failed to get address info for: {node}: "
            raise Refused(500, text + "Name or service not known")
        if not self.world.online(node):
            raise Refused(595, "No route to host", plain="")


def _given(asked: Asked) -> dict[str, Value]:
    """Parameters of query and body. Refused: the body is not understood."""
    pairs = urllib.parse.parse_qsl(asked.query, keep_blank_values=True)
    found: dict[str, Value] = {}
    kind = asked.headers.get("content-type", FORM).partition(";")[0].strip().lower()
    if asked.body and kind == "application/json":
        found |= _json(asked.body)
    elif asked.body and kind == FORM:
        pairs += urllib.parse.parse_qsl(asked.body.decode("utf-8", "replace"), keep_blank_values=True)
    elif asked.body:
        text = f"upload 'Content-Type '{kind}' not implemented"
        raise Refused(506, text, plain=text)
    for name, value in pairs:
        if name in found:
            before = found[name]
            found[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            found[name] = value
    return found


def _json(body: bytes) -> dict[str, Value]:
    try:
        read = json.loads(body)
    except ValueError:
        raise Refused(500, BROKEN_JSON, plain=f"{BROKEN_JSON}\n") from None
    if not isinstance(read, dict):
        raise Refused(500, "Not a HASH reference")

    def text(value: Any) -> str:
        return str(int(value)) if isinstance(value, bool) else str(value)

    return {
        name: [text(item) for item in value] if isinstance(value, list) else text(value)
        for name, value in read.items()
        if value is not None
    }


def _refusal(error: Refused) -> Answer:
    if error.plain is not None:
        return Answer(error.status, error.plain.encode(), "text/plain" if error.plain else None, error.text)
    body: dict[str, Any] = {"data": None, "message": error.text if error.status == 501 else f"{error.text}\n"}
    if error.errors:
        body["errors"] = error.errors
    return Answer(error.status, json.dumps(body).encode(), reason=error.text)


__all__ = ["Caller", "PveSimulator"]
