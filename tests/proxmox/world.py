"""Simulated clusters and backup servers, and a desired state for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reconciler.apply import Result
from reconciler.connections.proxmox import Proxmox
from reconciler.lab.proxmox import Pace, PbsSimulator, PveSimulator
from reconciler.model import Get, Outcome, Request, Target, Work
from reconciler.plan import Plan
from reconciler.project import Project
from reconciler.secrets import Secrets, key_in

PASSWORD = "canary-secret123"
CLUSTER = """\
apiVersion: reconciler/v1
kind: ProxmoxCluster
metadata: {name: dc01}
spec: {endpoints: [https://pve1.example.org:8006], user: root@pam, password: {secretRef: "env:ROOT"}}
"""
SERVER = """\
apiVersion: reconciler/v1
kind: BackupServer
metadata: {name: backup1}
spec: {endpoints: [https://backup1.example.org:8007], user: root@pam, password: {secretRef: "env:ROOT"}}
"""


def document(kind: str, name: str, spec: str, more: str = "") -> str:
    """One document; `spec` in flow style without braces."""
    return f"---\napiVersion: reconciler/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n{more}"


@dataclass
class World:
    """A cluster, a backup server, and a project that manages them."""

    folder: Path
    pve: PveSimulator
    pbs: PbsSimulator
    environ: dict[str, str] = field(default_factory=lambda: {"ROOT": "secret123", "PASSWORD": PASSWORD})
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    endpoints: list[str] = field(default_factory=list)
    changed: dict[str, Any] = field(default_factory=dict)

    def write(self, *documents: str) -> None:
        """Replace the desired state."""
        file = self.folder / "desired" / "all.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(CLUSTER + "---\n" + SERVER + "".join(documents))

    def project(self, state: str = "state") -> Project:
        """A project as a process of its own would make it."""
        one = Project(self.folder / "desired", self.folder / state, emit=self.emit, retarget=self.behind)
        store = one.secret_store
        one.secrets = Secrets(
            key_in(one.state),
            self.environ,
            store.value,
            lambda ref, value: store.set({ref: value}, force=True),
            store.check_writable,
        )
        return one

    def emit(self, event: str, **fields: Any) -> None:
        """Keeps what happened."""
        self.events.append((event, fields))

    def behind(self, target: Target) -> Target:
        """The simulator in place of what the documents name."""
        simulator: Any = self.pve if target.settings["service"] == "PVE" else self.pbs
        endpoints = (self.endpoints or [simulator.url]) if simulator is self.pve else [simulator.url]
        settings = {"endpoints": endpoints, "fingerprint": simulator.fingerprint, **self.changed}
        return replace(target, settings={**target.settings, **settings})

    def plan(self, project: Project | None = None) -> Plan:
        """What would be done, also where everything goes."""
        return (project or self.project()).plan(force=True)

    def apply(self, made: Plan | None = None, project: Project | None = None) -> Result:
        """Plan and apply."""
        project = project or self.project()
        made = made or project.plan(force=True)
        with project.pool(made.targets) as pool:
            return project.apply(made, pool)

    def settle(self) -> Result:
        """Apply; then nothing is left to do."""
        result = self.apply()
        assert result.ok, result.ended
        again = self.plan()
        assert not again.unknown
        assert [(c.address, c.differences) for c in again.changes] == []
        return result

    def root(self, *requests: tuple[str, str] | tuple[str, str, dict[str, Any]], server: bool = False) -> None:
        """Requests of somebody else, as root@pam."""
        simulator: Any = self.pbs if server else self.pve
        settings = {
            "service": "PBS" if server else "PVE",
            "endpoints": [simulator.url],
            "user": "root@pam",
            "password": {"secretRef": "env:ROOT"},
            "fingerprint": simulator.fingerprint,
        }
        connection = Proxmox("behind", settings, lambda secret: "secret123")
        steps: list[Any] = [Request(r[0], r[1], r[2] if len(r) > 2 else {}) for r in requests]  # type: ignore[arg-type]
        for result in connection.execute([Work("root", steps)], lambda secret: ""):
            assert not result.status, result.output
        connection.close()

    def look(self, path: str, *, server: bool = False) -> Any:
        """What an API shows root@pam."""
        import json

        simulator: Any = self.pbs if server else self.pve
        settings = {
            "service": "PBS" if server else "PVE",
            "endpoints": [simulator.url],
            "user": "root@pam",
            "password": {"secretRef": "env:ROOT"},
            "fingerprint": simulator.fingerprint,
        }
        connection = Proxmox("behind", settings, lambda secret: "secret123")
        (reply,) = connection.read([Get(path)])
        connection.close()
        assert reply.status == 0, reply.text
        return json.loads(reply.text)["data"]

    def writes(self) -> list[tuple[str, str]]:
        """All that was asked of both APIs that is no look and no login, in order of each."""
        return [
            (r.verb, r.path.removeprefix("/api2/json"))
            for simulator in (self.pve, self.pbs)
            for r in simulator.requests
            if r.verb != "GET" and not r.path.endswith("/access/ticket")
        ]


@contextmanager
def world(folder: Path, pace: Pace | None = None, **state: Any) -> Iterator[World]:
    """A cluster of two nodes with two guests on ZFS, and a backup server that it can reach."""
    with (
        PbsSimulator() as pbs,
        PveSimulator(state or None, pace=pace, backup_servers={"backup1.example.org": pbs}) as pve,
    ):
        one = World(folder, pve, pbs)
        one.root(
            ("POST", "/storage", {"storage": "tank", "type": "zfspool", "pool": "tank/vm"}),
            ("POST", "/nodes/pve1/qemu", {"vmid": "100", "name": "mail", "scsi0": "tank:1"}),
            ("POST", "/nodes/pve1/qemu", {"vmid": "101", "name": "web", "scsi0": "tank:1"}),
        )
        yield one


def outcomes(result: Result) -> dict[str, Outcome]:
    """How each change ended."""
    return {address: end.outcome for address, end in result.ended.items()}
