"""Apply: what the user is told, what goes out together, what stops, and what goes on."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import journal
from reconciler.apply import Result
from reconciler.errors import ConnectionLost, ContractError, StoreError
from reconciler.model import PATIENCE, Outcome, Readiness, Secret, Step
from reconciler.registry import Registry
from tests.simulated import ITEM, SERVER, THING, Killed, Rig, World, fuse_steps, server, thing


def rig(folder: Path, *documents: Any, world: Any = None) -> Rig:
    return Rig(folder, World(world or {}), [server("s1"), server("s2"), *documents])


def outcomes(result: Result) -> dict[str, str]:
    return {address.partition(":")[2].rstrip("]"): end.outcome.value for address, end in result.ended.items()}


def test_events_tell_the_story_in_order(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"))
    one.apply()
    assert [e for e, _ in one.events] == [
        "apply_started",
        "change_started",
        "step_finished",
        "change_finished",
        "apply_finished",
    ]
    assert one.events[2][1] | {"output": ""} == {
        "address": "sim.item[s1:a]",
        "step": 'set a \'{"value": "x"}\'',
        "status": 0,
        "output": "",
    }
    assert one.events[-1][1] == {"run": "run-1", "done": 1, "failed": 0, "skipped": 0, "unknown": 0}


def test_a_failed_step_is_shown_with_what_it_printed(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"))
    one.world.broken = {("s1", "a")}
    result = one.apply()
    assert result.ended["sim.item[s1:a]"].reason == 'set a \'{"value": "x"}\': exit status 1\n    the disk is on fire'
    assert result.summary == "1 failed"
    assert not result.ok


def test_steps_that_end_well_without_effect_are_a_failure(tmp_path: Path) -> None:
    """A fix counts only when the state after it is right."""
    one = rig(tmp_path, thing("a", value="x"))
    lying = replace(ITEM, steps=lambda change: ())
    one.registry = Registry.of([SERVER, THING], [lying])
    result = one.apply()
    assert result.ended["sim.item[s1:a]"].outcome is Outcome.FAILED
    assert "its steps ended well, but it is still not as desired (value)" in result.ended["sim.item[s1:a]"].reason


def test_a_type_whose_steps_raise_fails_that_change_and_no_other(tmp_path: Path) -> None:
    def broken(change: Any) -> Any:
        if change.spec.name == "a":
            raise ContractError("sim.item", "It cannot do that.")
        return ITEM.steps(change)  # type: ignore[misc]

    one = rig(tmp_path, thing("a", value="x"), thing("b", value="x"), thing("c", value="x", needs=["a"]))
    one.registry = Registry.of([SERVER, THING], [replace(ITEM, steps=broken)])
    result = one.apply()
    assert outcomes(result) == {"a": "failed", "b": "done", "c": "skipped"}
    assert result.ended["sim.item[s1:a]"].reason.endswith("Nothing was changed.")
    assert result.ended["sim.item[s1:c]"].reason == "it needs sim.item[s1:a], which is failed"


def test_a_secret_that_is_missing_changes_nothing(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", label=Secret(secret_ref="env:A")))
    one.environ["A"] = "hunter22"
    made = one.plan()
    again = one.reborn()
    again.environ.clear()
    result = again.apply(made)
    assert result.ended["sim.item[s1:a]"].outcome is Outcome.FAILED
    assert "the secret env:A is not there" in result.ended["sim.item[s1:a]"].reason


def test_a_secret_reaches_the_object_and_nothing_else(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", label=Secret(secret_ref="env:A")))
    one.environ["A"] = "hunter22"
    made = one.plan()
    assert one.apply(made).ok
    assert one.world.snapshot()["s1"]["a"]["label"] == "hunter22"
    assert "hunter22" not in repr((one.events, made, one.world.effects))
    assert b"hunter22" not in b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert one.plan().empty
    one.environ["A"] = "hunter23"
    assert [c.changed for c in one.reborn().plan().changes] == [{"label"}]


def test_changes_of_a_target_go_out_as_one_batch_and_other_targets_wait_only_where_they_must(tmp_path: Path) -> None:
    one = rig(
        tmp_path,
        thing("a", "s1", value="x"),
        thing("b", "s2", value="x", lifecycle={"requires": ["Thing/a"]}),
        thing("c", "s1", value="x", lifecycle={"requires": ["Thing/b"]}),
        thing("d", "s1", value="x"),
    )
    assert one.apply().ok
    assert [(where, argv[1]) for where, argv in one.world.effects] == [
        ("s1", "a"),
        ("s1", "d"),
        ("s2", "b"),
        ("s1", "c"),
    ]


def test_a_user_who_interrupts_can_resume(tmp_path: Path) -> None:
    """Ctrl-C: what is under way ends, nothing new starts, the run stays open."""
    one = rig(tmp_path, thing("a", "s1", value="x"), thing("b", "s2", value="x", lifecycle={"requires": ["Thing/a"]}))
    stop = threading.Event()
    one.world.on_step = lambda where, step, when: stop.set()
    result = one.apply(stop=stop)
    assert outcomes(result) == {"a": "done"}
    again = one.reborn()
    assert outcomes(again.resume()) == {"a": "done", "b": "done"}
    assert len(one.world.effects) == 2


def test_what_needs_time_to_work_is_waited_for(tmp_path: Path) -> None:
    looks: list[Any] = []

    def ready(state: Any) -> Readiness:
        looks.append(state)
        return Readiness.READY if len(looks) >= 3 else Readiness.WAITING

    one = rig(tmp_path, thing("a", value="x"))
    one.registry = Registry.of([SERVER, THING], [replace(ITEM, ready=ready)])
    assert one.apply().ok
    assert len(looks) == 3


def test_what_is_as_desired_and_does_not_work_failed(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"))
    one.registry = Registry.of([SERVER, THING], [replace(ITEM, ready=lambda state: Readiness.FAILED)])
    assert one.apply().ended["sim.item[s1:a]"].reason == "it is as desired, but it does not work."


def test_waiting_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, int(PATIENCE // 3)))
    monkeypatch.setattr("reconciler.batch.time.monotonic", lambda: float(next(clock)))
    one = rig(tmp_path, thing("a", value="x"))
    one.registry = Registry.of([SERVER, THING], [replace(ITEM, ready=lambda state: Readiness.WAITING)])
    assert one.apply().ended["sim.item[s1:a]"].outcome is Outcome.FAILED


def test_a_target_that_dies_midway_is_unknown_until_somebody_looks(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"), thing("b", value="x", needs=["a"]), thing("c", "s2", value="x"))

    def die(where: str, step: Step, when: str) -> None:
        if where == "s1":
            one.world.down.add("s1")
            raise ConnectionLost("s1: the power is gone")

    one.world.on_step = die
    result = one.apply()
    assert outcomes(result) == {"a": "unknown", "b": "unknown", "c": "done"}, "s1 may have gone on by itself"
    assert "reconciler resume" in result.ended["sim.item[s1:a]"].reason
    one.world.down.clear()
    one.world.on_step = lambda where, step, when: None
    again = one.reborn()
    assert outcomes(again.resume()) == {"a": "done", "b": "done", "c": "done"}
    assert again.plan().empty


def test_a_target_that_stays_away_leaves_the_run_open(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"), thing("b", value="x", needs=["a"]))

    def die(where: str, step: Step, when: str) -> None:
        one.world.down.add("s1")
        raise ConnectionLost("s1: the power is gone")

    one.world.on_step = die
    one.apply()
    for _ in range(2):
        one = one.reborn()
        assert set(outcomes(one.resume()).values()) == {"unknown"}
        assert journal.runs(one.store)[0].ended is None
    one.world.down.clear()
    one.world.on_step = lambda where, step, when: None
    assert one.reborn().resume().ok


def test_an_empty_plan_is_a_run_that_ends_well(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"), world={"s1": {"a": {"value": "x"}}})
    result = one.apply()
    assert result.ok
    assert result.summary == "nothing to do"
    assert not one.world.effects


def test_the_dead_write_nothing(tmp_path: Path) -> None:
    """The fuse of the tests itself: after a kill, neither journal nor world moves."""
    one = rig(tmp_path, thing("a", value="x")).reborn(at=1)
    with pytest.raises(Killed):
        one.apply()
    with pytest.raises(Killed):
        one.apply()
    assert not one.world.effects


# ------------------------------------------------------------------------------------------------ what goes on alone

JOBS = [thing("a", type="job", value="x"), thing("b", value="y", needs=["a"])]
DONE = {"a": {"value": "x"}, "b": {"value": "y"}}


def test_a_witness_is_on_disk_before_it_is_waited_for(tmp_path: Path) -> None:
    one = rig(tmp_path, *JOBS)
    kept: list[Any] = []

    def look(witness: str) -> None:
        kept.extend((r.event, r.body.get("witness")) for r in journal.records(one.store, "run-1") if r.address)

    one.world.on_task = look
    assert one.apply().ok
    assert kept == [("intent", None), ("intent", None), ("witness", "task-1")]
    assert one.world.snapshot()["s1"] == DONE
    assert not one.world.settled, "it was waited for where it was begun"
    assert [(e, f["witness"]) for e, f in one.events if e == "step_started"] == [("step_started", "task-1")]


def test_killed_while_a_task_goes_on_resume_waits_for_it_and_repeats_nothing(tmp_path: Path) -> None:
    one = rig(tmp_path, *JOBS)
    one.world.tells_tasks = False
    made = one.plan()

    def kill(witness: str) -> None:
        one.fuse.at = one.fuse.count + 1
        one.fuse.tick("while the task goes on")

    one.world.on_task = kill
    with pytest.raises(Killed):
        one.apply(made)
    assert one.world.tasks
    assert "a" not in one.world.snapshot().get("s1", {}), "a probe alone would take it for something to do again"
    again = one.reborn()
    looked: list[int] = []
    again.world.on_read = lambda where: looked.append(len(again.world.tasks))
    again.world.on_task = lambda witness: pytest.fail("begun a second time")
    assert again.resume().ok
    assert again.world.settled == ["task-1"]
    assert set(looked) == {0}, "it is looked at only after the task has ended"
    assert [argv[0] for _, argv in one.world.effects] == ["launch", "set"]
    assert again.world.snapshot()["s1"] == DONE


def test_killed_at_any_moment_a_task_is_begun_once(tmp_path: Path) -> None:
    """Also between its beginning and its witness, where the server tells which tasks we began."""
    for moment in itertools.count(1):
        one = rig(tmp_path / str(moment), *JOBS)
        made = one.plan()
        one = one.reborn(moment)
        fuse_steps(one)
        one.world.on_task = lambda witness, fuse=one.fuse: fuse.tick("while the task goes on")  # type: ignore[misc]
        try:
            one.apply(made)
        except Killed:
            where = f"killed at moment {moment}, {one.fuse.where}"
            one = one.reborn()
            one.world.on_step = lambda server, step, when: None
            one.world.on_task = lambda witness: None
            for record in journal.runs(one.store):
                if record.ended is None:
                    assert one.resume(record.id).ok, where
            if journal.runs(one.store):
                assert one.world.snapshot()["s1"] == DONE, where
                assert Counter(argv[0] for _, argv in one.world.effects) == {"launch": 1, "set": 1}, where
            continue
        assert moment > 10, "there are more moments than that"
        return


def test_a_task_that_was_lost_sight_of_is_waited_for_before_anybody_judges(tmp_path: Path) -> None:
    """The connection breaks and comes back at once: what still goes on has not failed."""
    one = rig(tmp_path, *JOBS)
    one.world.tells_tasks = False

    def lose(witness: str) -> None:
        raise ConnectionLost("s1: the session ended")

    one.world.on_task = lose
    result = one.apply()
    assert one.world.settled == ["task-1"]
    assert outcomes(result) == {"a": "done", "b": "failed"}
    assert "It was not finished" in result.ended["sim.item[s1:b]"].reason
    assert [argv[0] for _, argv in one.world.effects] == ["launch"]


def test_a_task_whose_server_stays_away_is_unknown_and_waited_for_later(tmp_path: Path) -> None:
    one = rig(tmp_path, *JOBS)
    one.world.tells_tasks = False

    def lose(witness: str) -> None:
        one.world.down.add("s1")
        raise ConnectionLost("s1: the session ended")

    one.world.on_task = lose
    assert outcomes(one.apply()) == {"a": "unknown", "b": "unknown"}
    one = one.reborn()
    assert outcomes(one.resume()) == {"a": "unknown", "b": "unknown"}
    one.world.down.clear()
    one = one.reborn()
    assert one.resume().ok
    assert [argv[0] for _, argv in one.world.effects] == ["launch", "set"]


def test_a_witness_that_cannot_be_written_leaves_the_run_open(tmp_path: Path) -> None:
    """A full disk: what was begun is not called failed."""
    one = rig(tmp_path, *JOBS)
    made = one.plan()
    write = one.store.write

    @contextmanager
    def full() -> Iterator[Any]:
        if one.world.tasks:
            raise StoreError("the disk is full")
        with write() as db:
            yield db

    one.store.write = full  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        one.apply(made)
    one.world.finish("s1", ["task-1"])
    again = one.reborn()
    assert journal.runs(again.store)[0].ended is None
    assert again.resume().ok
    assert [argv[0] for _, argv in one.world.effects] == ["launch", "set"]
