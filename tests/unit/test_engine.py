"""The engine as a whole, over random graphs in a world in memory: failures, lost connections, kills at every moment."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler import inventory, journal
from reconciler.errors import ConnectionLost
from reconciler.model import Document, Outcome, Step
from reconciler.planfile import from_text, to_text
from reconciler.resolve import Edges
from tests.simulated import TYPES, Fuse, Killed, Rig, World, fuse_steps, server, thing

SERVERS = ("s1", "s2", "s3")
FEW = settings(max_examples=settings().max_examples // 3)
"""For tests that run many times in each example."""


@dataclass(frozen=True)
class Scenario:
    """A desired state, a world as it is before, and what is in the inventory.

    Attributes:
        world: server -> object -> attributes.
        owned: (server, object) in the inventory that no document asks for.
        foreign: (server, object) that are nobody's business.
        transacts: see `Rig`.
    """

    documents: Sequence[Document[Any]]
    world: Mapping[str, Mapping[str, Mapping[str, Any]]]
    owned: Sequence[tuple[str, str]]
    foreign: Sequence[tuple[str, str]]
    transacts: bool = False

    def rig(self, folder: Path) -> Rig:
        rig = Rig(folder, World(self.world), [*map(server, SERVERS), *self.documents], transacts=self.transacts)
        with rig.store.write() as db:
            for where, name in self.owned:
                inventory.record(db, TYPES["item"](where, name=name, value="old"), "run-0", created=True)
        rig.fuse = rig.store.fuse = Fuse()
        return rig


@st.composite
def scenarios(draw: st.DrawFn, most: int = 7) -> Scenario:
    """Documents only need, watch and require earlier ones, so that there are no cycles."""
    count = draw(st.integers(1, most))
    names = [f"d{i}" for i in range(count)]
    documents = []
    world: dict[str, dict[str, dict[str, Any]]] = {s: {} for s in SERVERS}
    kinds: dict[str, str] = {}
    for index, name in enumerate(names):
        earlier = st.lists(st.sampled_from(names[:index]), unique=True, max_size=2) if index else st.just([])
        kind: Literal["item", "parts", "service"] = draw(st.sampled_from(("item", "item", "parts", "service")))
        kinds[name] = kind
        on = draw(st.lists(st.sampled_from(SERVERS), unique=True, min_size=1, max_size=2))
        needs = draw(earlier)
        fields: dict[str, Any] = {"needs": needs}
        if kind == "service":
            fields["watches"] = draw(earlier)
        else:
            fields |= {"value": draw(st.sampled_from("xy")), "size": draw(st.integers(1, 2))}
        absent = kind == "item" and not draw(st.integers(0, 5))
        # What must be absent goes the other way round, so that `requires` could contradict `needs`.
        life = {"requires": [] if absent else [f"Thing/{d}" for d in draw(earlier)]}
        documents.append(thing(name, on, kind, lifecycle=life, absent=absent, **fields))
        for where in on:
            if draw(st.booleans()):
                world[where][name] = {"value": draw(st.sampled_from("xyz")), "size": draw(st.integers(1, 3))}
    documents = _without_needs_of_the_absent(documents)
    owned = draw(
        st.lists(st.tuples(st.sampled_from(SERVERS), st.sampled_from(("old1", "old2"))), unique=True, max_size=3)
    )
    foreign = [(s, "foreign") for s in SERVERS]
    for where, name in (*owned, *foreign):
        world[where][name] = {"value": "old"}
    return Scenario(documents, world, owned, foreign, draw(st.booleans()))


def _without_needs_of_the_absent(documents: Sequence[Document[Any]]) -> list[Document[Any]]:
    """To need what must be absent is refused; that has a test of its own."""
    gone = {d.name for d in documents if d.spec.absent}
    out = []
    for d in documents:
        fields = dict(d.spec.fields)
        for name in ("needs", "watches"):
            if name in fields and not d.spec.absent:
                fields[name] = [n for n in fields[name] if n not in gone]
        out.append(
            thing(
                d.name,
                d.spec.on,
                d.spec.type,
                lifecycle=d.lifecycle.model_dump(by_alias=True),
                absent=d.spec.absent,
                **fields,
            )
        )
    return out


@contextmanager
def folder() -> Iterator[Path]:
    """A state folder, in memory where there is one: hypothesis runs many examples in one test."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as name:
        yield Path(name) / "state"


def ancestors(edges: Edges) -> dict[str, set[str]]:
    """All that comes before each node, directly or not. Quadratic, so for tests only."""
    out: dict[str, set[str]] = {}

    def above(node: str) -> set[str]:
        if node not in out:
            out[node] = set()
            for first in edges.get(node, ()):
                out[node] |= {first} | above(first)
        return out[node]

    for node in edges:
        above(node)
    return out


def assert_settled(rig: Rig, world: Mapping[str, Any] | None = None, where: str = "") -> None:
    """Nothing is left to do, every service is fresh, and the foreign object is as it was."""
    again = rig.plan(force=True)
    assert [(c.address, c.action, c.differences) for c in again.changes] == [], where
    assert not again.unknown, where
    for name in SERVERS:
        assert rig.world.snapshot()[name]["foreign"] == {"value": "old"}, where
    if world is not None:
        assert rig.world.snapshot() == world, where


@given(scenarios())
def test_apply_then_plan_is_empty_and_foreign_objects_stay(scenario: Scenario) -> None:
    with folder() as state:
        rig = scenario.rig(state)
        made = rig.plan(force=True)
        result = rig.apply(made)
        assert result.ok, result.ended
        assert set(result.ended) == {c.address for c in made.changes}
        assert_settled(rig)
        for where, name in scenario.owned:
            assert name not in rig.world.servers[where]


@given(scenarios())
def test_order_is_kept(scenario: Scenario) -> None:
    """No step runs before those of what its object stands on; deletions run the other way round."""
    with folder() as state:
        rig = scenario.rig(state)
        made = rig.plan(force=True)
        above = ancestors(made.edges)
        address = {(c.resource.target, c.resource.key): c.address for c in made.changes}
        rig.apply(made)
        done: list[str] = [address[where, argv[1]] for where, argv in rig.world.effects]
        changed = {c.address for c in made.changes}
        last = {a: i for i, a in enumerate(done)}
        first = {a: i for i, a in reversed(list(enumerate(done)))}
        for node in changed:
            for before in above[node] & changed:
                # A service may run twice: what it watches may move after it, in the second pass.
                assert first[before] < last[node], (before, node, done)


@given(scenarios(), st.data())
def test_failures_stay_in_their_subtree(scenario: Scenario, data: st.DataObject) -> None:
    """What does not stand on a failed change is done; what does is skipped, and says why."""
    with folder() as state:
        rig = scenario.rig(state)
        made = rig.plan(force=True)
        places = sorted((c.resource.target, c.resource.key) for c in made.changes)
        broken = data.draw(st.lists(st.sampled_from(places), unique=True) if places else st.just([]))
        rig.world.broken = set(broken)
        result = rig.apply(made)
        above = ancestors(made.edges)
        for change in made.changes:
            end = result.ended[change.address]
            bad = [
                a for a in above[change.address] if a in result.ended and result.ended[a].outcome is not Outcome.DONE
            ]
            if bad:
                assert end.outcome is Outcome.SKIPPED, (change.address, end)
                assert end.reason.startswith("it needs "), end
                assert end.reason.split()[2].rstrip(",") in bad, (end, bad)
            elif (change.resource.target, change.resource.key) in rig.world.broken:
                assert end.outcome is Outcome.FAILED
                assert "the disk is on fire" in end.reason
            else:
                assert end.outcome is Outcome.DONE, (change.address, end)
        rig.world.broken.clear()
        again = rig.reborn()
        assert again.apply(again.plan(force=True), "run-2").ok
        assert_settled(again)


@given(scenarios(), st.sets(st.sampled_from(SERVERS)))
def test_unreachable_servers_make_only_their_subtree_unknown(scenario: Scenario, down: set[str]) -> None:
    with folder() as state:
        rig = scenario.rig(state)
        rig.world.down = down
        made = rig.plan(force=True)
        desired = rig.desired()
        above = ancestors(desired.edges)
        for address, resource in desired.resources.items():
            lost = resource.target in down or any(
                desired.resources[a].target in down for a in above[address] if a in desired.resources
            )
            assert (address in made.unknown) == lost, address
        result = rig.apply(made)
        assert result.ok
        assert not any(where in down for where, _ in rig.world.effects)
        rig.world.down = set()
        again = rig.reborn()
        assert again.apply(again.plan(force=True), "run-2").ok
        assert_settled(again)


@given(scenarios(), st.sets(st.sampled_from(SERVERS), min_size=1))
def test_servers_that_go_down_between_plan_and_apply(scenario: Scenario, down: set[str]) -> None:
    """Nothing hangs, nothing is done there, what does not depend on them is done."""
    with folder() as state:
        rig = scenario.rig(state)
        made = rig.plan(force=True)
        rig.world.down = down
        result = rig.apply(made)
        above = ancestors(made.edges)
        by_address = {c.address: c for c in made.changes}
        for change in made.changes:
            lost = change.resource.target in down or any(
                by_address[a].resource.target in down for a in above[change.address] if a in by_address
            )
            assert (result.ended[change.address].outcome is Outcome.SKIPPED) == lost
            assert (result.ended[change.address].outcome is Outcome.DONE) != lost


@given(scenarios(), st.data())
def test_lost_connections_converge(scenario: Scenario, data: st.DataObject) -> None:
    """A connection breaks before or after the effect of some step: the outcome is told truly, another run mends it."""
    with folder() as state:
        rig = scenario.rig(state)
        rig.world.goes_on = data.draw(st.booleans())
        moments = Counter[str]()
        losing = data.draw(st.sets(st.integers(1, 12), min_size=1, max_size=3))

        def lose(where: str, step: Step, when: str) -> None:
            moments["all"] += 1
            if moments["all"] in losing:
                raise ConnectionLost(f"{where} went away")

        rig.world.on_step = lose
        made = rig.plan(force=True)
        result = rig.apply(made)
        assert set(result.ended) == {c.address for c in made.changes}
        left = {c.address for c in rig.plan(force=True).changes}
        for address, end in result.ended.items():
            if end.outcome is Outcome.DONE:
                assert address not in left, (address, end)
            elif end.outcome is Outcome.FAILED:
                assert "ended well" not in end.reason, (address, end)
        rig.world.on_step = lambda where, step, when: None
        again = rig.reborn()
        assert again.apply(again.plan(force=True), "run-2").ok
        assert_settled(again)


def killed_everywhere(scenario: Scenario, *, goes_on: bool, twice: int = 0) -> None:
    """Kill at every moment, resume, compare with the world of a run that was not killed.

    Args:
        twice: also kill the resume, at this moment of it, and resume again.
    """
    with folder() as state:
        rig = scenario.rig(state)
        rig.apply(rig.plan(force=True))
        assert_settled(rig)
        wanted, usual = rig.world.snapshot(), Counter(rig.world.effects)
    for moment in itertools.count(1):
        with folder() as state:
            rig = scenario.rig(state)
            rig.world.goes_on = goes_on
            made = rig.plan(force=True)
            rig = rig.reborn(moment)
            fuse_steps(rig)
            with suppress(Killed):
                rig.apply(made)
                return
            where = f"killed at moment {moment}, {rig.fuse.where}"
            if twice:
                rig = rig.reborn(twice)
                fuse_steps(rig)
                with suppress(Killed):
                    resume_all(rig)
                where += f", then at moment {twice}, {rig.fuse.where}"
            rig = rig.reborn()
            rig.world.on_step = lambda server, step, when: None
            if not journal.runs(rig.store):
                # Killed before the run was on disk: then nothing was done.
                assert not rig.world.effects, where
                continue
            resume_all(rig)
            assert_settled(rig, wanted, where)
            effects = Counter(rig.world.effects)
            assert not effects - usual, (where, effects - usual)


def resume_all(rig: Rig) -> None:
    """What `reconciler resume` does, where there is something to resume."""
    for record in journal.runs(rig.store):
        if record.ended is None:
            result = rig.resume(record.id)
            assert result.ok, result.ended


@FEW
@given(scenarios(4), st.booleans())
@example(
    Scenario(
        [thing("d0", value="x", size=1), thing("d1", type="service", watches=["d0"])],
        {
            "s1": {"d0": {"value": "z"}, "d1": {}, "foreign": {"value": "old"}},
            "s2": {"foreign": {"value": "old"}},
            "s3": {"foreign": {"value": "old"}},
        },
        (),
        [(s, "foreign") for s in SERVERS],
    ),
    False,
)
def test_killed_at_every_moment_resume_converges(scenario: Scenario, goes_on: bool) -> None:
    """Law 6: the same world as without the kill, and no effect twice."""
    killed_everywhere(scenario, goes_on=goes_on)


@FEW
@given(scenarios(3), st.booleans(), st.integers(1, 14))
def test_killed_twice(scenario: Scenario, goes_on: bool, twice: int) -> None:
    """The resume is killed as well."""
    killed_everywhere(scenario, goes_on=goes_on, twice=twice)


@FEW
@given(scenarios(5), st.integers(1, 40))
def test_killed_while_several_servers_are_worked_on(scenario: Scenario, moment: int) -> None:
    """As above with threads, where the moment of death is a matter of luck."""
    with folder() as state:
        rig = scenario.rig(state)
        rig.parallel = 3
        made = rig.plan(force=True)
        rig = rig.reborn(moment)
        fuse_steps(rig)
        with suppress(Killed):
            rig.apply(made)
        rig = rig.reborn()
        rig.world.on_step = lambda server, step, when: None
        resume_all(rig)
        if journal.runs(rig.store):
            assert_settled(rig)


@pytest.mark.parametrize("transacts", [False, True])
def test_a_live_change_after_the_plan_is_refused_for_that_change_only(transacts: bool, tmp_path: Path) -> None:
    """The plan is bound to what the probe saw, whoever compares."""
    world = World({"s1": {"a": {"value": "1"}, "b": {"value": "1"}, "c": {"value": "1"}}})
    docs = [server("s1"), thing("a", value="2"), thing("b", value="2"), thing("c", value="2", needs=["a"])]
    rig = Rig(tmp_path, world, docs, transacts=transacts)
    made = rig.plan()
    world.edit("s1", "a", {"value": "someone else's"})
    result = rig.apply(made)
    assert result.ended["sim.item[s1:a]"].outcome is Outcome.FAILED
    assert "changed since the plan was made (value)" in result.ended["sim.item[s1:a]"].reason
    assert result.ended["sim.item[s1:b]"].outcome is Outcome.DONE
    assert result.ended["sim.item[s1:c]"].outcome is Outcome.SKIPPED
    assert world.snapshot()["s1"] == {"a": {"value": "someone else's"}, "b": {"value": "2"}, "c": {"value": "1"}}


@pytest.mark.parametrize("transacts", [False, True])
def test_what_somebody_else_did_already_counts_as_done(transacts: bool, tmp_path: Path) -> None:
    world = World({"s1": {"a": {"value": "1"}}})
    rig = Rig(tmp_path, world, [server("s1"), thing("a", value="2")], transacts=transacts)
    made = rig.plan()
    world.edit("s1", "a", {"value": "2"})
    result = rig.apply(made)
    assert result.ok
    assert not world.effects


def test_a_killed_change_that_somebody_else_moved_is_left_to_a_person(tmp_path: Path) -> None:
    """Neither as before nor as desired: unknown, that branch stops, the rest goes on."""
    world = World({"s1": {"a": {"value": "1"}, "b": {"value": "1"}}, "s2": {"c": {"value": "1"}}})
    docs = [
        server("s1"),
        server("s2"),
        thing("a", value="2"),
        thing("b", value="2", needs=["a"]),
        thing("c", "s2", value="2"),
    ]
    rig = Rig(tmp_path, world, docs)
    made = rig.plan()
    world.on_step = lambda where, step, when: _blow(rig.fuse)
    with pytest.raises(Killed):
        rig.apply(made)
    world.on_step = lambda where, step, when: None
    world.edit("s1", "a", {"value": "someone else's"})
    rig = rig.reborn()
    result = rig.resume()
    assert result.ended["sim.item[s1:a]"].outcome is Outcome.UNKNOWN
    assert "neither as before nor as desired (value)" in result.ended["sim.item[s1:a]"].reason
    assert result.ended["sim.item[s1:b]"].outcome is Outcome.SKIPPED
    assert result.ended["sim.item[s2:c]"].outcome is Outcome.DONE
    assert world.snapshot()["s1"]["a"] == {"value": "someone else's"}


def _blow(fuse: Fuse) -> None:
    fuse.at = fuse.count + 1
    fuse.tick("here")


def test_one_round_trip_each_to_look_to_do_and_to_look_again(tmp_path: Path) -> None:
    """However many objects depend on each other on a server, it is one batch."""
    docs = [server("s1"), *(thing(f"t{i:02}", value="x", needs=[f"t{i - 1:02}"] if i else []) for i in range(50))]
    rig = Rig(tmp_path, World({"s1": {}}), docs)
    made = rig.plan()
    assert rig.world.rounds["s1"] == 1
    assert rig.apply(made).ok
    assert rig.world.rounds["s1"] == 4


def test_a_server_that_compares_by_itself_takes_one_round_trip_for_all_of_it(tmp_path: Path) -> None:
    docs = [server("s1"), *(thing(f"t{i:02}", value="x", needs=[f"t{i - 1:02}"] if i else []) for i in range(50))]
    rig = Rig(tmp_path, World({"s1": {}}), docs, transacts=True)
    made = rig.plan()
    assert rig.apply(made).ok
    assert rig.world.rounds["s1"] == 2


def test_what_was_seen_long_ago_is_looked_at_again_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that nobody used for a while may be dead, and looking is what opens it anew."""
    rig = Rig(tmp_path, World({"s1": {}}), [server("s1"), thing("a", value="x")], transacts=True)
    made = rig.plan()
    monkeypatch.setattr("reconciler.batch.LOOK_SECONDS", -1.0)
    assert rig.apply(made).ok
    assert rig.world.rounds["s1"] == 3


def test_a_plan_from_a_file_is_looked_at_again_first(tmp_path: Path) -> None:
    rig = Rig(tmp_path, World({"s1": {}}), [server("s1"), thing("a", value="x")], transacts=True)
    made = from_text(to_text(rig.plan()), rig.registry)
    assert rig.apply(made).ok
    assert rig.world.rounds["s1"] == 3


def test_only_the_first_batch_of_a_server_finds_it_as_it_was_planned(tmp_path: Path) -> None:
    """The others find what the first one made of it."""
    docs = [
        server("s1"),
        server("s2"),
        thing("a", value="x"),
        thing("b", "s2", value="x", lifecycle={"requires": ["Thing/a"]}),
        thing("c", value="x", lifecycle={"requires": ["Thing/b"]}),
    ]
    rig = Rig(tmp_path, World({"s1": {}, "s2": {}}), docs, transacts=True)
    made = rig.plan()
    assert rig.apply(made).ok
    assert rig.world.rounds == {"s1": 4, "s2": 2}


@pytest.mark.parametrize("shape", ["alone", "chain", "fan"])
def test_work_grows_linearly(shape: str, tmp_path: Path) -> None:
    """Twice the objects, twice the operations (calls of Python functions), at most; no clock is looked at."""

    def operations(count: int) -> int:
        needs: dict[str, Callable[[int], list[str]]] = {
            "alone": lambda i: [],
            "chain": lambda i: [f"t{i - 1:05}"] if i else [],
            "fan": lambda i: ["t00000"] if i else [],
        }
        docs = [server("s1"), *(thing(f"t{i:05}", value="x", needs=needs[shape](i)) for i in range(count))]
        rig = Rig(tmp_path / f"{shape}{count}", World({"s1": {}}), docs)
        calls = 0

        def count_calls(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count_calls)
        try:
            made = rig.plan()
        finally:
            sys.setprofile(None)
        assert len(made.changes) == count
        return calls

    operations(10)
    small, large = operations(250), operations(1000)
    assert large < 4.5 * small, (small, large)
