"""Laws 3 and 4 for the types of Proxmox VE and Proxmox Backup Server, on simulators of their APIs.

In the tables `setup`, `mutate` and `cleanup` are requests, one in a line: `PUT /storage/tank content=images`. Several
values of a list that is sent repeatedly are written `delete=a delete=b`. Values are split like words of a shell.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.connections.proxmox import Proxmox
from reconciler.lab.proxmox import PbsSimulator, PveSimulator
from reconciler.model import Request, Target, Work
from tests.contract.laws import Subject, examine, law_ids, laws, obey
from tests.contract.test_secrets import ON_APIS, keep_quiet

LAWS = [(place, *law) for place in ("pve", "pbs") for law in laws("laws", place)]
AUDITS = [(place, *law) for place in ("pve", "pbs") for law in laws("audit", place)]
QUIET = [law for law in ON_APIS if law[0] in ("pve", "pbs")]
PASSWORD = "secret123"
LOGIN = {"user": "root@pam", "password": {"secretRef": "env:PASSWORD"}}
WORLD = {
    "pve": """
POST /storage storage=tank type=zfspool pool=tank/vm content=images,rootdir
POST /nodes/pve1/qemu vmid=100 name=web1 scsi0=tank:1
POST /nodes/pve1/qemu vmid=101 name=db1 scsi0=tank:1
POST /access/groups groupid=operators
POST /access/users userid=ops@pve
POST /access/roles roleid=Operator privs=VM.Audit
""",
    "pbs": """
POST /config/datastore name=main path=/mnt/datastore/main
POST /access/users userid=ops@pbs
""",
}


def requests(connection: Proxmox) -> Callable[[str], None]:
    """Does what a table says, as root@pam."""

    def do(script: str) -> None:
        for line in filter(None, map(str.strip, script.splitlines())):
            method, path, *words = shlex.split(line)
            params: dict[str, Any] = {}
            for word in words:
                name, _, value = word.partition("=")
                params[name] = [*params[name], value] if name in params else [value]
            params = {name: values[0] if len(values) == 1 else values for name, values in params.items()}
            step: Any = Request(method, path, params)  # type: ignore[arg-type]
            for result in connection.execute([Work("table", [step])], lambda secret: ""):
                assert not result.status, f"{line}: {result.output}"

    return do


class Patient(PveSimulator):
    """The replication scheduler does nothing about what somebody else wrote until we write, so that a plan sees it."""

    elsewhere = False

    def _log(self, verb: str, path: str, given: Mapping[str, Any]) -> None:
        super()._log(verb, path, given)
        if verb != "GET":
            self.state["next_round"] = math.inf if self.elsewhere else time.time()


@pytest.fixture(params=["pve", "pbs"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    place = request.param
    simulator: Any = Patient() if place == "pve" else PbsSimulator()
    with simulator:
        endpoints = list(simulator.urls.values()) if place == "pve" else [simulator.url]
        settings = {**LOGIN, "service": place.upper(), "endpoints": endpoints[:1], "fingerprint": simulator.fingerprint}
        behind = Proxmox(place, settings, lambda secret: PASSWORD)
        sh = requests(behind)
        sh(WORLD[place])

        def listing() -> Any:
            """Whatever was asked for that is no look; the state itself moves with the clock."""
            return [r for r in simulator.requests if r.verb != "GET" and not r.path.endswith("/access/ticket")]

        def elsewhere(script: str) -> None:
            simulator.elsewhere = True
            sh(script)
            simulator.elsewhere = False

        one = Subject(place, Target(place, "proxmox", settings), elsewhere, listing, tmp_path / "state")
        one.pool._reveal = one.looking._reveal = lambda secret: PASSWORD
        yield one
        one.close()
        behind.close()


@pytest.mark.parametrize(
    ("subject", "name", "entry"),
    LAWS,
    indirect=["subject"],
    ids=law_ids((name, entry) for _, name, entry in LAWS),
)
def test_what_is_applied_holds_and_drift_is_repaired(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    obey(subject, name, entry)


@pytest.mark.parametrize(
    ("subject", "name", "entry"),
    AUDITS,
    indirect=["subject"],
    ids=law_ids((name, entry) for _, name, entry in AUDITS),
)
def test_audits_find_what_is_wrong_and_change_nothing(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    examine(subject, name, entry)


@pytest.mark.parametrize(
    ("subject", "name", "entry"),
    QUIET,
    indirect=["subject"],
    ids=law_ids((name, entry) for _, name, entry in QUIET),
)
def test_secrets_go_to_the_api_and_nowhere_else(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    keep_quiet(subject, name, entry, "canary-Zq7!-secret", "another-Zq7!-secret")
