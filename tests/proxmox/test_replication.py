"""The life of replication jobs in the simulated cluster: runs, failures, removal, migration, failover."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.lab.proxmox import REAL, ManualClock, PveSimulator
from tests.proxmox.client import Api, root_of_cluster

START = 1_780_000_000.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def pve(clock: ManualClock) -> Iterator[PveSimulator]:
    with PveSimulator(clock=clock, pace=REAL) as simulator:
        yield simulator


@pytest.fixture
def api(pve: PveSimulator, clock: ManualClock) -> Api:
    """A machine 100 on pve1 with one disk that can be replicated, and a job for it that runs every 15 minutes."""
    client = root_of_cluster(pve.url)
    client.post("/storage", storage="vm", type="zfspool", pool="tank/vm")
    client.post("/nodes/pve1/qemu", vmid="100", scsi0="vm:1")
    clock.advance(REAL.task)
    client.post("/cluster/replication", id="100-0", type="local", target="pve2")
    return client


def status(api: Api, node: str = "pve1") -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/nodes/{node}/replication/100-0/status")
    return found


def copies(api: Api, node: str) -> list[str]:
    return [volume["volid"] for volume in api.get(f"/nodes/{node}/storage/vm/content")]


def wait(pve: PveSimulator, clock: ManualClock, minutes: float) -> None:
    """Let minutes pass; the simulator notices each."""
    for _ in range(int(minutes * 4)):
        clock.advance(15)
        pve.settle()


def test_a_job_runs_by_its_schedule(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """Not before its time; then once in 15 minutes, and the copy is there."""
    assert status(api)["last_sync"] == 0
    due = status(api)["next_sync"]
    assert due % 900 == 0
    wait(pve, clock, (due - clock()) / 60 - 1)
    assert status(api)["last_sync"] == 0
    wait(pve, clock, 2.5)
    ran = status(api)
    assert ran["fail_count"] == 0
    assert 0 <= ran["last_sync"] - due <= REAL.scheduler
    assert ran["duration"] == REAL.replication
    assert ran["next_sync"] == due + 900
    assert copies(api, "pve2") == ["vm:vm-100-disk-0"]
    wait(pve, clock, 15)
    assert status(api)["last_sync"] > ran["last_sync"]


def test_during_a_run_there_is_a_pid(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """last_sync has moved already, but nothing is copied yet."""
    api.post("/nodes/pve1/replication/100-0/schedule_now")
    for _ in range(100):
        clock.advance(1)
        now = status(api)
        if "pid" in now:
            break
    else:
        pytest.fail("it never ran")
    assert now["last_sync"] > 0
    assert copies(api, "pve2") == []
    clock.advance(REAL.replication)
    assert "pid" not in status(api)
    assert copies(api, "pve2") == ["vm:vm-100-disk-0"]


def test_a_disabled_job_does_not_run(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """Not even when it is due."""
    api.put("/cluster/replication/100-0", disable="1")
    wait(pve, clock, 40)
    assert status(api)["last_sync"] == 0


def test_failures_are_counted_and_retried(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """After 5 minutes, then 10; last_sync stays what it was; a success clears the error."""
    api.post("/nodes/pve1/replication/100-0/schedule_now")
    wait(pve, clock, 2)
    good = status(api)["last_sync"]
    assert good
    pve.fail_replication("100-0", "no space left", times=2)
    api.post("/nodes/pve1/replication/100-0/schedule_now")
    wait(pve, clock, 2)
    bad = status(api)
    assert (bad["fail_count"], bad["error"], bad["last_sync"]) == (1, "no space left", good)
    assert bad["next_sync"] == bad["last_try"] + 300
    wait(pve, clock, 7)
    again = status(api)
    assert (again["fail_count"], again["next_sync"]) == (2, again["last_try"] + 600)
    wait(pve, clock, 12)
    fine = status(api)
    assert fine["fail_count"] == 0
    assert "error" not in fine
    assert fine["last_sync"] > good
    log = [line["t"] for line in api.get("/nodes/pve1/replication/100-0/log")]
    assert log[-1].endswith("100-0: end replication job")


def test_a_target_without_the_dataset(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """It is noticed by the run, not when the job is made."""
    with pve.edit() as state:
        state["nodes"]["pve2"]["datasets"].remove("tank/vm")
    api.post("/nodes/pve1/replication/100-0/schedule_now")
    wait(pve, clock, 2)
    assert "dataset does not exist" in status(api)["error"]


def test_removal_waits_for_the_scheduler(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """The job stays as `removing` until a round; then it is gone with its copy."""
    api.post("/nodes/pve1/replication/100-0/schedule_now")
    wait(pve, clock, 2)
    api.delete("/cluster/replication/100-0")
    assert api.get("/cluster/replication/100-0")["remove_job"] == "full"
    assert api.send("POST", "/cluster/replication", id="100-0", type="local", target="pve2").status == 500
    wait(pve, clock, 1.25)
    assert api.get("/cluster/replication") == []
    assert copies(api, "pve2") == []
    api.post("/cluster/replication", id="100-0", type="local", target="pve2")


def test_removal_with_keep_leaves_the_copy(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """`keep` only forgets the job."""
    api.post("/nodes/pve1/replication/100-0/schedule_now")
    wait(pve, clock, 2)
    api.delete("/cluster/replication/100-0", keep="1")
    wait(pve, clock, 1.25)
    assert api.get("/cluster/replication") == []
    assert copies(api, "pve2") == ["vm:vm-100-disk-0"]


def test_removal_hangs_while_the_target_is_down(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """Until it is back, or until somebody forces it."""
    api.delete("/cluster/replication/100-0")
    pve.quorate = True
    pve.stop_node("pve2")
    wait(pve, clock, 30)
    assert api.get("/cluster/replication/100-0")["remove_job"] == "full"
    pve.start_node("pve2")
    wait(pve, clock, 1.25)
    assert api.get("/cluster/replication") == []


def test_runs_fail_while_the_target_is_down(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """With an error that says so."""
    pve.quorate = True
    pve.stop_node("pve2")
    api.post("/nodes/pve1/replication/100-0/schedule_now")
    wait(pve, clock, 2)
    assert status(api)["error"] == "target node 'pve2' is offline"


def test_migration_turns_the_job_round(api: Api, clock: ManualClock) -> None:
    """Source and target change places, at once; the state goes along."""
    upid = api.post("/nodes/pve1/qemu/100/migrate", target="pve2")
    assert api.get("/cluster/replication/100-0")["source"] == "pve1"
    clock.advance(REAL.task)
    assert api.get(f"/nodes/pve1/tasks/{upid}/status")["exitstatus"] == "OK"
    job = api.get("/cluster/replication/100-0")
    assert (job["source"], job["target"]) == ("pve2", "pve1")
    assert status(api, "pve2")["last_sync"] > 0
    assert api.send("GET", "/nodes/pve1/replication/100-0/status").status == 500


def test_a_failover_is_noticed_by_the_scheduler(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """Until its round the job is the wrong way round."""
    pve.move_guest(100, "pve2")
    assert api.get("/cluster/replication/100-0")["source"] == "pve1"
    wait(pve, clock, 1.25)
    assert api.get("/cluster/replication/100-0")["source"] == "pve2"


def test_a_long_sleep_is_caught_up(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """After a year without requests the jobs have run, and the answer does not take long."""
    clock.advance(365 * 86400)
    api.login("PVEAuthCookie", "root@pam", "secret123")
    assert clock() - status(api)["last_sync"] < 1000
