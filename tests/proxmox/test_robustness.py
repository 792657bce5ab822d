"""Whatever is asked, the simulators answer or refuse, and never crash; and they always find the same."""

from __future__ import annotations

import random
import urllib.parse
from typing import Any

import pytest

from reconciler.lab.proxmox import REAL, ManualClock, PbsSimulator, PveSimulator
from reconciler.lab.proxmox.pbs.verify import TABLES as PBS_TABLES
from reconciler.lab.proxmox.pve.verify import TABLES as PVE_TABLES
from reconciler.lab.proxmox.schema import Parameter, Tables
from reconciler.lab.proxmox.simulator import Simulator
from reconciler.lab.proxmox.wire import Asked
from tests.proxmox.client import root_of_cluster, root_of_server
from tests.proxmox.test_seeding import furnish_cluster

TURNS = 12
NAMES: dict[str, list[str]] = {
    "node": ["pve1", "pve2", "pbs", "localhost", "nope"],
    "vmid": ["100", "200", "300", "301"],
    "storage": ["vm", "local", "iso", "none", "more1"],
    "userid": ["a@pve", "a@pbs", "root@pam", "new@pve"],
    "tokenid": ["ci", "other"],
    "token-name": ["ci", "other"],
    "groupid": ["ops", "others"],
    "roleid": ["Repl", "PVEAdmin", "More"],
    "poolid": ["prod", "none"],
    "id": ["100-0", "200-0", "nightly", "daily", "weekly", "push", "fresh"],
    "store": ["main", "none"],
    "name": ["main", "fresh", "other", "tank"],
    "path": ["/vms/100", "/", "/storage", "/srv/x", "bogus"],
    "target": ["pve1", "pve2", "nope"],
    "role": ["Admin", "Audit"],
    "roles": ["Repl", "PVEAuditor", "Nope"],
    "users": ["a@pve", "nobody@pve"],
    "schedule": ["daily", "*/15", "25:99"],
    "scsi0": ["vm:1", "vm:vm-100-disk-0", "none,media=cdrom", "vm:0,import-from=/x", "local:1"],
    "delete": ["comment", "scsi0", "sparse", "nope", "1"],
    "disk": ["scsi0", "scsi1", "unused0"],
    "size": ["+1G", "4G", "1M"],
    "rootfs": ["vm:2", "vm:subvol-200-disk-0"],
    "pool": ["prod", "tank/vm"],
    "content": ["images", "iso,backup", "none", "import"],
    "volume": ["vm:vm-100-disk-0", "local:iso/x.iso", "vm-100-disk-0"],
    "boot": ["order=scsi0", "order=", "cdn"],
    "tags": ["", "a;B,c"],
    "devices": ["sdb", "sdb,sdc"],
    "datastore": ["main"],
    "server": ["nas", "10.0.0.1"],
    "password": ["password", "x"],
    "auth-id": ["a@pbs", "a@pbs!ci"],
    "max-depth": ["0", "7"],
}


def value(name: str, parameter: Parameter, dice: random.Random) -> Any:
    """Something for a parameter: mostly well formed, sometimes not."""
    if dice.random() < 0.05:
        return dice.choice(["", "x", "-1", "ü", "a,b", "1" * 300, "%00"])
    if name in NAMES:
        return dice.choice(NAMES[name])
    if parameter.enum:
        return dice.choice(parameter.enum)
    if parameter.type == "boolean":
        return dice.choice("01")
    if parameter.type in ("integer", "number"):
        low = parameter.range[0] or 0
        return str(int(low) + dice.randrange(5))
    return dice.choice(
        ["text", "a=b", "1G", "vm:1", "none", "x" * 20, "10.0.0.1", "virtio,bridge=vmbr0", "keep-last=3"]
    )


def ask_everything(
    simulator: Simulator, tables: Tables, headers: dict[str, str], nodes: list[str], seed: int
) -> list[int]:
    """Every method several times, with parameters by chance; the statuses."""
    dice = random.Random(seed)
    found = []
    calls = [call for call in tables.all() for _ in range(TURNS)]
    dice.shuffle(calls)
    for verb, path in calls:
        method = tables.method(verb, path)
        in_path = [word[1:-1] for word in path.split("/") if word.startswith("{")]
        filled = path
        for name in in_path:
            parameter = method.parameters.get(name, Parameter())
            filled = filled.replace(f"{{{name}}}", urllib.parse.quote(value(name, parameter, dice) or "x", safe=""))
        required = [name for name, one in method.parameters.items() if not one.optional and name not in in_path]
        others = [name for name, one in method.parameters.items() if one.optional and name not in in_path]
        names = required + dice.sample(others, min(len(others), dice.randrange(3)))
        given = {name: value(name, method.parameters[name], dice) for name in names if dice.random() > 0.03}
        text = urllib.parse.urlencode(given)
        asked = Asked(verb, f"/api2/json{filled}", text, headers, b"")
        if "root" in filled and verb in ("PUT", "DELETE"):
            continue  # nobody could ask anything any more
        found.append(simulator._answering(dice.choice(nodes))(asked).status)
        if dice.random() < 0.2 and isinstance(simulator.clock, ManualClock):
            simulator.clock.advance(3)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_cluster_never_crashes(seed: int) -> None:
    """Thousands of requests, many of which have an effect."""
    clock = ManualClock()
    with PveSimulator(clock=clock, pace=REAL) as pve:
        api = root_of_cluster(pve.url)
        furnish_cluster(api, clock)
        headers = {"authorization": f"PVEAPIToken=root@pam!x={pve.mint_token('root@pam!x')}"}
        with pve.edit() as state:
            state["users"]["root@pam"]["tokens"]["x"]["privsep"] = 0
        statuses = ask_everything(pve, PVE_TABLES, headers, ["pve1", "pve2"], seed)
        assert pve.crashes == []
        assert statuses.count(200) > 300
        assert statuses.count(400) > 50
        pve.snapshot()


@pytest.mark.parametrize("seed", range(3))
def test_a_backup_server_never_crashes(seed: int) -> None:
    """Hundreds of requests, many of which have an effect."""
    clock = ManualClock()
    with PbsSimulator(clock=clock, pace=REAL) as pbs:
        api = root_of_server(pbs.url)
        api.post("/config/datastore", name="main", path="/srv/main")
        api.post("/access/users", userid="a@pbs")
        clock.advance(5)
        headers = {"authorization": f"PBSAPIToken=root@pam!x:{pbs.mint_token('root@pam!x')}"}
        statuses = ask_everything(pbs, PBS_TABLES, headers, ["pbs"], seed)
        assert pbs.crashes == []
        assert statuses.count(200) > 150
        assert statuses.count(400) > 50
        pbs.snapshot()


def test_a_fault_of_the_simulator_is_told() -> None:
    """It is a 500 that says so, and is kept for the test to find."""
    with PveSimulator() as pve:
        api = root_of_cluster(pve.url)
        with pve.edit() as state:
            state["groups"] = None
        reply = api.send("GET", "/access/groups")
        assert reply.status == 500
        assert reply.reason.startswith("the simulator is at fault: AttributeError")
        assert len(pve.crashes) == 1


def test_every_method_of_a_cluster_refuses_an_unknown_parameter() -> None:
    """Whatever the method, but for the one that takes anything."""
    with PveSimulator() as pve:
        api = root_of_cluster(pve.url)
        names = {
            "node": "pve1",
            "vmid": "100",
            "storage": "local",
            "id": "100-0",
            "userid": "root@pam",
            "tokenid": "abc",
        }
        names |= {
            "groupid": "g",
            "roleid": "r",
            "poolid": "p",
            "name": "tank",
            "volume": "v",
            "upid": "u",
            "realm": "pam",
        }
        asked = 0
        for verb, path in PVE_TABLES.all():
            if PVE_TABLES.method(verb, path).open:
                continue
            reply = api.form(verb, path.format(**names), {"nosuch": "1"})
            assert reply.status == 400, (verb, path, reply.text)
            assert reply.whole["errors"]["nosuch"].startswith("property is not defined in schema")
            asked += 1
        assert asked > 90


def test_every_method_of_a_backup_server_refuses_an_unknown_parameter() -> None:
    """Whatever the method, but for the one that takes anything."""
    with PbsSimulator() as pbs:
        api = root_of_server(pbs.url)
        asked = 0
        for verb, path in PBS_TABLES.all():
            method = PBS_TABLES.method(verb, path)
            if method.open:
                continue
            names = dict.fromkeys(method.parameters, "abc") | {"node": "localhost", "userid": "a@pbs"}
            reply = api.form(verb, path.format(**names), {"nosuch": "1"})
            assert reply.status == 400, (verb, path, reply.text)
            assert "nosuch" in reply.text
            asked += 1
        assert asked > 60
