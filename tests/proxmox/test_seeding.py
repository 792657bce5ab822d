"""A simulator that is seeded from what another one answered gives the same answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reconciler.lab.proxmox import REAL, ManualClock, PbsSimulator, PveSimulator
from reconciler.lab.proxmox.pbs import seed as pbs_seed
from reconciler.lab.proxmox.pve import seed as pve_seed
from tests.proxmox.client import Api, root_of_cluster, root_of_server

Wanted = Callable[[Mapping[str, Any]], list[str]]


def read_all(api: Api, wanted: Wanted) -> dict[str, Any]:
    """Everything that is wanted, and how many rounds it took."""
    answers: dict[str, Any] = {}
    rounds = 0
    while paths := wanted(answers):
        rounds += 1
        assert rounds <= 2
        for path in paths:
            reply = api.ask("GET", path)
            answers[path] = reply.data if reply.status == 200 else None
    return answers


def plain(value: Any) -> Any:
    """Without digests and without what depends on the moment."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if key not in ("digest", "next_sync")}
    return [plain(one) for one in value] if isinstance(value, list) else value


def furnish_cluster(api: Api, clock: ManualClock) -> None:
    """Some of everything."""
    api.post("/storage", storage="vm", type="zfspool", pool="tank/vm", sparse="1", nodes="pve1,pve2")
    api.post("/storage", storage="iso", type="nfs", server="nas", export="/x", content="iso", disable="1")
    api.post("/nodes/pve1/qemu", vmid="100", name="a", scsi0="vm:2", net0="virtio,bridge=vmbr0", memory="2048")
    api.post("/nodes/pve2/lxc", vmid="200", ostemplate="local:vztmpl/x", hostname="ct", rootfs="vm:4")
    clock.advance(20)
    api.post("/cluster/replication", id="100-0", type="local", target="pve2", rate="10.5", comment="c")
    api.post("/nodes/pve1/replication/100-0/schedule_now")
    clock.advance(200)
    api.post("/access/groups", groupid="ops", comment="Ops")
    api.post("/access/users", userid="a@pve", password="password", groups="ops", comment="A")
    api.post("/access/users/a@pve/token/ci", comment="t", privsep="0")
    api.post("/access/roles", roleid="Repl", privs="VM.Audit,VM.Replicate")
    api.put("/access/acl", path="/vms", groups="ops", roles="Repl", propagate="0")
    api.put("/access/acl", path="/", tokens="a@pve!ci", roles="PVEAuditor")
    api.post("/pools", poolid="prod", comment="P")
    api.put("/pools", poolid="prod", vms="100", storage="vm")
    fields = {"id": "nightly", "schedule": "02:30", "pool": "prod", "prune-backups": "keep-last=3,keep-daily=7"}
    assert api.form("POST", "/cluster/backup", {**fields, "fleecing": "enabled=1,storage=vm"}).status == 200


def test_a_cluster() -> None:
    """Every answer that went into the seed comes out again; what can be changed there can be changed here."""
    clock = ManualClock()
    with PveSimulator(clock=clock, pace=REAL) as real:
        api = root_of_cluster(real.url)
        furnish_cluster(api, clock)
        answers = read_all(api, pve_seed.wanted)
    assert answers["/cluster/replication"][0]["rate"] == 10.5
    with PveSimulator(pve_seed.cluster_from_answers(answers), clock=clock, pace=REAL) as copy:
        there = root_of_cluster(copy.url)
        again = read_all(there, pve_seed.wanted)
        assert plain(again) == plain(answers)
        assert there.get("/nodes/pve2/storage/vm/content") != []
        there.post("/nodes/pve1/qemu/100/migrate", target="pve2")
        clock.advance(5)
        assert there.get("/cluster/replication")[0]["source"] == "pve2"


def test_a_cluster_that_hides_things() -> None:
    """What was refused is empty, and no error."""
    clock = ManualClock()
    with PveSimulator({"users": {"root@pam": {"password": "secret123"}, "low@pve": {}}}, clock=clock) as real:
        secret = real.mint_token("low@pve!x")
        answers = read_all(Api(real.url, {"Authorization": f"PVEAPIToken=low@pve!x={secret}"}), pve_seed.wanted)
    assert answers["/cluster/status"] is None
    state = pve_seed.cluster_from_answers(answers)
    assert state["storages"] == state["guests"] == {}
    assert list(state["users"]) == ["root@pam"]


def test_a_backup_server() -> None:
    """Every answer that went into the seed comes out again."""
    clock = ManualClock()
    with PbsSimulator(clock=clock, pace=REAL) as real:
        api = root_of_server(real.url)
        api.post("/config/datastore", name="main", path="/srv/main", comment="c")
        clock.advance(5)
        api.post("/admin/datastore/main/namespace", name="dc01")
        api.post("/access/users", userid="a@pbs", password="password")
        api.post("/access/users/a@pbs/token/ci", comment="t")
        api.put("/access/acl", path="/datastore/main", role="DatastoreBackup", auth_id="a@pbs!ci")
        api.post("/config/prune", id="daily", store="main", schedule="daily", keep_last="3")
        api.post("/config/verify", id="weekly", store="main", schedule="weekly", ignore_verified="1")
        api.post("/config/remote", name="other", host="pbs2", auth_id="s@pbs", password="password")
        api.post("/config/sync", id="push", store="main", remote="other", remote_store="far", sync_direction="push")
        answers = read_all(api, pbs_seed.wanted)
    with PbsSimulator(pbs_seed.server_from_answers(answers), clock=clock, pace=REAL) as copy:
        there = root_of_server(copy.url)
        assert plain(read_all(there, pbs_seed.wanted)) == plain(answers)
        there.put("/config/prune/daily", keep_last="5")
