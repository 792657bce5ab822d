"""Journal: on disk before a step starts, complete, in order, and readable by people."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler import journal
from reconciler.errors import PlanError
from reconciler.model import Step
from reconciler.store import Store
from tests.simulated import Rig, World, server, thing


def test_run_ids_sort_by_time() -> None:
    ids = [journal.new_run_id(datetime(2026, 11, day, tzinfo=UTC)) for day in (1, 2, 30)]
    assert ids == sorted(ids)
    assert ids[0].startswith("20261101-000000-")


def test_an_intent_is_on_disk_before_its_step_starts(tmp_path: Path) -> None:
    """Law 6, seen by another program's eyes."""
    rig = Rig(tmp_path, World(), [server("s1"), thing("a", value="x"), thing("b", value="x", needs=["a"])])
    checked = []

    def look(where: str, step: Step, when: str) -> None:
        other = Store(tmp_path)
        events = [(e.event, e.address) for e in journal.records(other, "run-1")]
        other.close()
        assert ("intent", f"sim.item[s1:{step.argv[1]}]") in events  # type: ignore[union-attr]
        assert not any(event == "end" for event, _ in events)
        checked.append(when)

    rig.world.on_step = look
    assert rig.apply().ok
    assert checked == ["before", "after"] * 2


def test_records_of_a_run(tmp_path: Path) -> None:
    rig = Rig(
        tmp_path, World({"s1": {"b": {"value": "y"}}}), [server("s1"), thing("a", value="x"), thing("b", value="x")]
    )
    rig.world.broken = {("s1", "b")}
    made = rig.plan()
    rig.apply(made)
    found = [(e.event, e.address, e.body) for e in journal.records(rig.store, "run-1")]
    assert [(e, a) for e, a, _ in found] == [
        ("intent", "sim.item[s1:a]"),
        ("intent", "sim.item[s1:b]"),
        ("end", "sim.item[s1:b]"),  # what went wrong is known before the rest is verified
        ("end", "sim.item[s1:a]"),
    ]
    intents = {a: b for e, a, b in found if e == "intent"}
    ends = {a: b for e, a, b in found if e == "end"}
    assert intents["sim.item[s1:b]"]["observed"] == made.changes[1].digest
    assert intents["sim.item[s1:b]"]["action"] == "update"
    assert intents["sim.item[s1:b]"]["steps"] == ['set b \'{"value": "x"}\'']
    assert ends["sim.item[s1:a]"] == {"outcome": "done", "reason": "", "again": False}
    assert ends["sim.item[s1:b]"]["outcome"] == "failed"
    (run,) = journal.runs(rig.store)
    assert (run.status, run.summary, run.command) == ("failed", "1 done, 1 failed", "apply")
    assert run.ended


def test_runs_are_found_by_the_start_of_their_id(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for run in ("20261122-01", "20261122-02", "20261123-01"):
        journal.Journal(store, run).begin("apply", "{}")
    journal.Journal(store, "20261123-01").end("done", "1 done")
    assert journal.find_run(store, "20261123").id == "20261123-01"
    assert journal.find_run(store, None).id == "20261123-01"
    assert journal.find_run(store, None, unfinished=True).id == "20261122-02"
    with pytest.raises(PlanError, match="Several runs begin with 20261122: 20261122-02, 20261122-01"):
        journal.find_run(store, "20261122")
    with pytest.raises(PlanError, match="There is no run 2027"):
        journal.find_run(store, "2027")


def test_nothing_was_ever_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    assert journal.runs(store) == []
    assert journal.records(store, "x") == []
    with pytest.raises(PlanError, match="There is no unfinished run"):
        journal.find_run(store, None, unfinished=True)


def test_a_run_that_came_to_its_end_cannot_be_resumed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, World(), [server("s1"), thing("a", value="x")])
    assert rig.apply().ok
    with pytest.raises(PlanError, match=r"Run run-1 came to its end \(done\). Make a new plan instead."):
        rig.resume()
