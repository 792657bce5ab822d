"""Leases: one run at a time, the dead let go, the late cannot write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import LeaseLost, PlanRefused
from reconciler.lease import TIME_TO_LIVE, Leases, break_lease, held
from reconciler.model import Outcome, Step
from reconciler.store import Store
from tests.simulated import Rig, World, server, thing


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def leases(store: Store, run: str, clock: Clock) -> Leases:
    return Leases(store, run, clock)


def as_held_by(store: Store, holder: str) -> None:
    with store.write() as db:
        db.execute("UPDATE lease SET holder=?", (holder,))


def test_one_run_at_a_time_and_all_targets_or_none(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    first, second = leases(store, "one", clock), leases(store, "two", clock)
    first.take(["web1"])
    with pytest.raises(
        PlanRefused,
        match=r"web1 is locked by run one \(.*\) for 30 s more. Wait for it, or `reconciler lock break web1`",
    ):
        second.take(["db1", "web1"])
    assert [lease.target for lease in held(store, clock)] == ["web1"]
    first.free()
    second.take(["db1", "web1"])
    assert [(lease.target, lease.run) for lease in held(store, clock)] == [("db1", "two"), ("web1", "two")]
    second.free()
    assert held(store, clock) == []


def test_the_lease_of_a_dead_run_elsewhere_frees_itself(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    leases(store, "one", clock).take(["web1"])
    as_held_by(store, "another-machine:1")
    late = leases(store, "two", clock)
    with pytest.raises(PlanRefused):
        late.take(["web1"])
    clock.now += TIME_TO_LIVE + 1
    late.take(["web1"])
    late.free()


def test_the_lease_of_a_dead_run_on_this_machine_is_free_at_once(tmp_path: Path) -> None:
    """After `kill -9`, nobody waits half a minute to resume."""
    import socket

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    store, clock = Store(tmp_path), Clock()
    leases(store, "one", clock).take(["web1"])
    as_held_by(store, f"{socket.gethostname()}:{dead.pid}")
    late = leases(store, "two", clock)
    late.take(["web1"])
    late.free()


def test_a_run_that_is_alive_cannot_be_resumed_by_another_program(tmp_path: Path) -> None:
    """The same run id is no ticket."""
    import socket

    store, clock = Store(tmp_path), Clock()
    leases(store, "one", clock).take(["web1"])
    as_held_by(store, f"{socket.gethostname()}:1")
    with pytest.raises(PlanRefused, match="web1 is locked by run one"):
        leases(store, "one", clock).take(["web1"])


def test_the_heartbeat_keeps_it(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    first = leases(store, "one", clock)
    first.take(["web1"])
    for _ in range(5):
        clock.now += TIME_TO_LIVE * 0.9
        first.renew()
        with pytest.raises(PlanRefused):
            leases(store, "two", clock).take(["web1"])
    first.free()


def test_who_was_paused_and_wakes_up_late_cannot_write(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    paused, other = leases(store, "one", clock), leases(store, "two", clock)
    paused.take(["web1"])
    clock.now += TIME_TO_LIVE + 1
    other.take(["web1"])
    with (
        store.write() as db,
        pytest.raises(LeaseLost, match="web1: run two took the lock over; this run does not write there any more"),
    ):
        paused.check(db, "web1")
    paused.renew()
    paused.free()
    (lease,) = held(store, clock)
    assert lease.run == "two", "the late one neither prolongs nor frees what is not its own any more"
    with store.write() as db:
        other.check(db, "web1")
    other.free()


def test_a_lock_that_was_broken_stops_its_holder_even_if_it_lives(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    first = leases(store, "one", clock)
    first.take(["web1"])
    broken = break_lease(store, "web1", clock)
    assert broken
    assert broken.run == "one"
    assert break_lease(store, "web1", clock) is None
    assert break_lease(store, "nothing", clock) is None
    with store.write() as db, pytest.raises(LeaseLost, match="took the lock over"):
        first.check(db, "web1")
    second = leases(store, "two", clock)
    second.take(["web1"])
    second.free()
    first.free()


def test_epochs_only_grow(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    seen = []
    for run in "abc":
        one = leases(store, run, clock)
        one.take(["web1"])
        seen.append(held(store, clock)[0].epoch)
        one.free()
        break_lease(store, "web1", clock)
    assert seen == sorted(set(seen))


def test_a_clock_that_jumps_back_locks_nobody_out_for_good(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    first = leases(store, "one", clock)
    first.take(["web1"])
    clock.now -= 500
    with pytest.raises(PlanRefused):
        leases(store, "two", clock).take(["web1"])
    first.free()
    second = leases(store, "two", clock)
    second.take(["web1"])
    second.free()


def test_nothing_was_ever_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    assert held(store) == []
    assert not (tmp_path / "state").exists()


def test_an_apply_whose_lock_is_taken_over_midway_stops_before_its_next_write(tmp_path: Path) -> None:
    """Hostile input 25: two applies at once, one paused past its lease."""
    docs = [
        server("s1"),
        server("s2"),
        thing("a", value="x"),
        thing("b", "s2", value="x"),
        thing("c", value="x", lifecycle={"requires": ["Thing/b"]}),
    ]
    rig = Rig(tmp_path, World(), docs)

    def paused(where: str, step: Step, when: str) -> None:
        if where == "s2" and when == "after":
            assert break_lease(rig.store, "s1")

    rig.world.on_step = paused
    result = rig.apply()
    assert result.ended["sim.item[s2:b]"].outcome is Outcome.DONE
    assert result.ended["sim.item[s1:c]"].outcome is Outcome.SKIPPED
    assert "took the lock over" in result.ended["sim.item[s1:c]"].reason
    assert "c" not in rig.world.servers["s1"]


def test_a_second_apply_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    rig = Rig(tmp_path, World(), [server("s1"), thing("a", value="x")])
    other = Rig(tmp_path, rig.world, rig.documents)
    made = other.plan()
    refused: list[Any] = []

    def meanwhile(where: str, step: Step, when: str) -> None:
        if when == "before":
            with pytest.raises(PlanRefused, match="s1 is locked by run run-1"):
                other.apply(made, "run-2")
            refused.append(True)

    rig.world.on_step = meanwhile
    assert rig.apply().ok
    assert refused == [True]
