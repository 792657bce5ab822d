"""Plan: guards, scope, adoption, drift, and plan files that cannot be edited, outlived or misread."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler import inventory
from reconciler.errors import PlanError, PlanExpired, PlanRefused, PlanTampered
from reconciler.model import Action, Outcome, Secret, digest
from reconciler.plan import Scope, git_commit
from reconciler.planfile import from_text, to_text
from tests.simulated import REGISTRY, Rig, World, server, thing

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)


def rig(folder: Path, *documents: Any, world: Any = None, servers: str = "s1 s2") -> Rig:
    return Rig(folder, World(world or {}), [*map(server, servers.split()), *documents])


def owned(rig: Rig, *names: str, created: bool = True, lifecycle: Any = None) -> None:
    """Pretend that an earlier run created these on s1."""
    from dataclasses import replace

    from reconciler.model import Lifecycle
    from tests.simulated import ITEM

    life = Lifecycle.model_validate(lifecycle or {})
    with rig.store.write() as db:
        for name in names:
            one = replace(ITEM("s1", name=name, value="x"), origin=f"Thing/{name}", lifecycle=life)
            inventory.record(db, one, "run-0", created=created)


# ------------------------------------------------------------------------------------------------ what is planned


def test_counts_order_and_reasons(tmp_path: Path) -> None:
    world = {"s1": {"b": {"value": "y"}, "old": {"value": "x"}, "same": {"value": "x"}}}
    one = rig(
        tmp_path, thing("a", value="x"), thing("b", value="x", needs=["a"]), thing("same", value="x"), world=world
    )
    owned(one, "old")
    made = one.plan()
    assert [(c.resource.key, c.action.value) for c in made.changes] == [
        ("a", "create"),
        ("b", "update"),
        ("old", "delete"),
    ]
    assert made.unchanged == 1
    assert [r.key for r in made.adopt] == ["same"]
    why = {c.resource.key: c.why for c in made.changes}
    assert why["b"] == ("it is there already and will be taken over",)
    assert why["old"] == ("Thing/old does not ask for it any more",)
    assert not made.empty


def test_a_service_is_started_again_when_what_it_watches_changes(tmp_path: Path) -> None:
    world = {"s1": {"conf": {"value": "y"}, "web": {}, "other": {}}}
    one = rig(
        tmp_path,
        thing("conf", value="x"),
        thing("web", type="service", watches=["conf"]),
        thing("other", type="service"),
        world=world,
    )
    made = one.plan()
    assert [c.resource.key for c in made.changes] == ["conf", "web"]
    assert made.changes[1].why == ("it is there already and will be taken over", "sim.item[s1:conf] changes")


def test_a_restart_that_a_failure_left_out_is_not_lost(tmp_path: Path) -> None:
    """Whether it was started since is read from the live system, and not remembered."""
    one = rig(
        tmp_path,
        thing("conf", value="x"),
        thing("web", type="service", watches=["conf"]),
        world={"s1": {"conf": {"value": "y"}, "web": {}}},
    )
    one.world.broken = {("s1", "web")}
    assert not one.apply().ok
    one.world.broken = set()
    made = one.plan()
    assert [c.resource.key for c in made.changes] == ["web"]
    assert one.apply(made, "run-2").ok
    assert one.plan().empty


def test_drift_is_told_from_a_change_in_git(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"), thing("b", value="x"))
    assert one.apply().ok
    one.world.edit("s1", "a", {"value": "z"})
    one.world.edit("s1", "b", {"value": "z"})
    one.documents = [server("s1"), server("s2"), thing("a", value="x"), thing("b", value="new")]
    made = one.plan()
    assert made.drifted == ["sim.item[s1:a]"]
    assert len(made.changes) == 2


def test_audits_find_and_never_change(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", type="inspection", value="good"), world={"s1": {"a": {"value": "bad"}}})
    made = one.plan()
    assert made.empty
    assert [(f.rule, f.message, f.fix) for f in made.findings] == [("wrong-value", "a is bad", "Correct it.")]


def test_what_a_plan_changes_is_audited_after_the_change(tmp_path: Path) -> None:
    one = rig(
        tmp_path,
        thing("a", value="good"),
        thing("look", type="inspection", key="a", value="good", needs=["a"]),
        world={"s1": {"a": {"value": "bad"}}},
    )
    made = one.plan()
    assert not made.findings
    result = one.apply(made)
    assert result.ok
    assert not result.findings


# ------------------------------------------------------------------------------------------------ what is deleted


def test_what_is_not_in_the_inventory_is_never_deleted(tmp_path: Path) -> None:
    """Law 7."""
    one = rig(tmp_path, world={"s1": {"foreign": {"value": "x"}}})
    assert one.plan().empty
    one.documents = [server("s1"), server("s2"), thing("a", value="x")]
    assert one.apply().ok
    one.documents = [server("s1"), server("s2"), thing("b", value="x")]
    assert one.apply(one.plan(force=True), "run-2").ok
    assert set(one.world.snapshot()["s1"]) == {"foreign", "b"}


def test_what_was_there_before_us_stays_when_its_document_goes(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"), thing("b", value="x"), world={"s1": {"a": {"value": "y"}}})
    assert one.apply().ok
    one.documents = [server("s1"), server("s2"), thing("c", value="x")]
    made = one.plan()
    assert [(c.resource.key, c.action) for c in made.changes] == [("b", Action.DELETE), ("c", Action.CREATE)]
    assert made.release == {"sim.item[s1:a]": "it was there before us, so it stays"}
    assert one.apply(made, "run-2").ok
    assert one.world.snapshot()["s1"] == {"a": {"value": "x"}, "c": {"value": "x"}}
    assert set(inventory.load(one.store)) == {"sim.item[s1:c]"}


def test_adopt_always_deletes_it_all_the_same(tmp_path: Path) -> None:
    life = {"adopt": "Always"}
    one = rig(tmp_path, thing("a", value="x", lifecycle=life), world={"s1": {"a": {"value": "x"}}})
    assert one.apply().ok
    one.documents = [server("s1"), server("s2"), thing("c", value="x")]
    assert [c.resource.key for c in one.plan().changes] == ["a", "c"]


def test_adopt_never_refuses_what_exists(tmp_path: Path) -> None:
    life = {"adopt": "Never"}
    one = rig(tmp_path, thing("a", value="x", lifecycle=life), world={"s1": {"a": {"value": "y"}}})
    with pytest.raises(PlanRefused, match=r"sim.item\[s1:a\] exists already and Thing/a says `adopt: Never`"):
        one.plan()


def test_adopt_never_is_fine_with_what_we_made(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x", lifecycle={"adopt": "Never"}))
    assert one.apply().ok
    one.world.edit("s1", "a", {"value": "drifted"})
    assert one.apply(one.plan(), "run-2").ok


def test_a_target_that_is_not_described_any_more_is_released(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", ["s1", "s2"], value="x"))
    assert one.apply().ok
    one.documents = [server("s2"), thing("a", "s2", value="x")]
    made = one.plan()
    assert made.empty
    assert made.release == {"sim.item[s1:a]": "s1 is not described any more"}


def test_what_another_object_replaces_is_not_deleted(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"))
    assert one.apply().ok
    one.documents = [server("s1"), server("s2"), thing("a", type="parts", value="x")]
    made = one.plan()
    assert made.release == {"sim.item[s1:a]": "another object takes its place"}
    assert made.empty


def test_a_type_that_this_version_does_not_know_is_released(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("b", value="x"))
    owned(one, "a")
    with one.store.write() as db:
        db.execute("UPDATE inventory SET type='old.plugin' WHERE address='sim.item[s1:a]'")
    assert one.plan().release == {"sim.item[s1:a]": "this version does not know it any more"}


# ------------------------------------------------------------------------------------------------ guards


def names(count: int, start: int = 0) -> list[str]:
    return [f"n{i:02}" for i in range(start, start + count)]


@pytest.mark.parametrize(
    ("held", "kept", "refused"), [(10, 7, False), (10, 6, True), (9, 0, False), (20, 13, True), (20, 14, False)]
)
def test_more_than_30_percent_deletions_need_force(held: int, kept: int, refused: bool, tmp_path: Path) -> None:
    documents = [thing(n, value="x") for n in names(held)]
    one = rig(tmp_path, *documents)
    assert one.apply().ok
    one.documents = [server("s1"), server("s2"), *documents[:kept], thing("other", "s2", value="x")]
    if refused:
        with pytest.raises(PlanRefused, match=rf"{held - kept} of {held} objects on s1 would be deleted.*--force"):
            one.plan()
    else:
        one.plan()
    assert one.plan(force=True).count(Action.DELETE) == held - kept


def test_explicit_absence_is_no_accident(tmp_path: Path) -> None:
    documents = [thing(n, value="x") for n in names(12)]
    one = rig(tmp_path, *documents)
    assert one.apply().ok
    one.documents = [server("s1"), server("s2"), *(thing(n, absent=True) for n in names(12))]
    made = one.plan()
    # These resources carry positions in real life; without one they count as pruned.
    assert made.count(Action.DELETE) == 12


def test_an_empty_desired_state_deletes_nothing_without_force(tmp_path: Path) -> None:
    """A broken checkout is not a wish."""
    one = rig(tmp_path, thing("a", value="x"))
    assert one.apply().ok
    one.documents = []
    with pytest.raises(PlanRefused, match=r"The desired state is empty, but the inventory holds 1.*--force"):
        one.plan()
    one.documents = [server("s1")]
    with pytest.raises(PlanRefused, match="The desired state is empty"):
        one.plan()
    assert one.plan(force=True).count(Action.DELETE) == 1


def test_prevent_destroy_holds_even_with_force_and_after_the_document_is_gone(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x", lifecycle={"preventDestroy": True}), thing("b", value="x"))
    assert one.apply().ok
    one.documents = [server("s1"), server("s2"), thing("b", value="x")]
    with pytest.raises(
        PlanRefused, match=r"sim.item\[s1:a\] would be destroyed, and Thing/a says `preventDestroy: true`"
    ):
        one.plan(force=True)


def test_prevent_destroy_covers_replacement(tmp_path: Path) -> None:
    world = {"s1": {"a": {"fixed": "1"}}}
    one = rig(tmp_path, thing("a", fixed="2", lifecycle={"preventDestroy": True}), world=world)
    with pytest.raises(PlanRefused, match="would be destroyed"):
        one.plan()
    one.documents = [server("s1"), thing("a", fixed="2")]
    made = one.plan()
    assert [c.action for c in made.changes] == [Action.REPLACE]
    assert one.apply(made).ok
    assert [argv[0] for _, argv in one.world.effects] == ["delete", "set"]


# ------------------------------------------------------------------------------------------------ scope


@pytest.mark.parametrize(
    ("targets", "excludes", "wanted"),
    [
        ((), (), "a b c d"),
        (("Thing/a",), (), "a"),
        (("name=b",), (), "a b"),
        (("name=c",), (), "a b c"),
        (("kind=Thing",), (), "a b c d"),
        (("target=s2",), (), "d"),
        (("team=ops",), (), "a b d"),
        (("name=[ab]",), (), "a b"),
        ((), ("name=d",), "a b c"),
        (("name=c",), ("name=a",), "b c"),
        (("sim.item[[]s1:a]",), (), "a"),
        (("Thing/*",), ("team=ops",), "a c"),
    ],
)
def test_scope(targets: tuple[str, ...], excludes: tuple[str, ...], wanted: str, tmp_path: Path) -> None:
    """What is chosen brings what it stands on."""
    one = rig(
        tmp_path,
        thing("a", value="x"),
        thing("b", value="x", needs=["a"], labels={"team": "ops"}),
        thing("c", value="x", needs=["b"]),
        thing("d", "s2", value="x", labels={"team": "ops"}),
    )
    assert [c.resource.key for c in one.plan(Scope(targets, excludes)).changes] == wanted.split()


@pytest.mark.parametrize(
    ("term", "help_"),
    [
        ("Thing/b", r"Did you mean Thing/a\?$"),
        ("nmae=a", r"Did you mean name=a\?$"),
        ("s1", r"Did you mean target=s1\?$"),
        ("ops", r"Did you mean team=ops\?$"),
        ("zzz", r"Write Kind/name, kind=, "),
    ],
)
def test_a_term_that_matches_nothing_is_an_error(term: str, help_: str, tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x", labels={"team": "ops"}))
    with pytest.raises(PlanError, match=rf"^Nothing matches {term}\. {help_}"):
        one.plan(Scope((term,)))


def test_scope_bounds_deletions_as_well(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"), thing("b", value="x"), thing("c", "s2", value="x"))
    assert one.apply().ok
    one.documents = [server("s1"), server("s2"), thing("c", "s2", value="y")]
    assert [c.resource.key for c in one.plan(Scope(("target=s2",))).changes] == ["c"]
    assert one.plan(Scope(("target=s2",))).release == {}


# ------------------------------------------------------------------------------------------------ plan files


def planned(folder: Path) -> str:
    one = rig(folder, thing("a", value="x"), thing("b", "s2", value="y", size=1), world={"s2": {"b": {"value": "z"}}})
    return to_text(one.plan(now=NOW))


def test_a_plan_file_reads_back_as_it_was_written(tmp_path: Path) -> None:
    text = planned(tmp_path)
    assert text.count("\n") == 1
    assert to_text(from_text(text, REGISTRY, now=NOW)) == text


def test_a_plan_can_be_applied_from_its_file(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"), thing("b", value="y", needs=["a"]))
    assert one.apply(from_text(to_text(one.plan()), REGISTRY)).ok
    assert one.plan().empty


def test_every_edit_is_noticed(tmp_path: Path) -> None:
    """Each value of the file, one after the other."""
    text = planned(tmp_path)
    values = json.loads(text)
    edits = 0

    def walk(node: Any) -> None:
        nonlocal edits
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            kept = node[key]
            node[key] = f"{kept}!" if not isinstance(kept, bool) else not kept
            with pytest.raises(PlanTampered):
                from_text(json.dumps(values), REGISTRY, now=NOW)
            edits += 1
            node[key] = kept
            walk(kept)

    walk(values)
    assert edits > 80


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "5", "not json", '{"digest": 5}', "[" * 100_000, '{"digest": {}, "a": NaN}', "\0"]
)
def test_what_is_no_plan_file(text: str) -> None:
    with pytest.raises(PlanTampered):
        from_text(text, REGISTRY)


def test_a_plan_file_that_was_cut_off(tmp_path: Path) -> None:
    text = planned(tmp_path)
    for end in range(0, len(text) - 2, 97):
        with pytest.raises(PlanTampered, match="Make a new one"):
            from_text(text[:end], REGISTRY, now=NOW)


def sealed(text: str, **edits: Any) -> str:
    """A file with other values and a digest that fits, as an attacker or another version might write it."""
    values = {k: v for k, v in json.loads(text).items() if k != "digest"} | edits
    return json.dumps({**values, "digest": digest(values)})


def test_a_plan_expires(tmp_path: Path) -> None:
    text = planned(tmp_path)
    assert from_text(text, REGISTRY, now=NOW + timedelta(hours=24)).changes
    with pytest.raises(PlanExpired, match="The plan expired at 2026-11-23T08:00:00"):
        from_text(text, REGISTRY, now=NOW + timedelta(hours=24, seconds=1))
    assert from_text(text, REGISTRY, now=NOW + timedelta(days=400), resume=True).changes


@pytest.mark.parametrize("edits", [{"format": 2}, {"format": 0}, {"tool": "99.0.0"}, {"format": None}])
def test_a_plan_of_another_version(edits: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"The plan was made by version .* Make it anew"):
        from_text(sealed(planned(tmp_path), **edits), REGISTRY, now=NOW)


@pytest.mark.parametrize(
    "edits",
    [
        {"changes": [{}]},
        {"changes": 5},
        {"targets": []},
        {"expires": "soon"},
        {"expires": None},
        {"summary": {}},
        {"edges": None},
        {"tool": 5},
    ],
)
def test_a_plan_file_with_a_fitting_digest_and_a_wrong_shape_is_an_error_without_a_traceback(
    edits: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(PlanError):
        from_text(sealed(planned(tmp_path), **edits), REGISTRY, now=NOW)


def test_a_plan_that_is_applied_twice_does_nothing_the_second_time(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"), thing("b", value="x"))
    text = to_text(one.plan())
    assert one.apply(from_text(text, REGISTRY)).ok
    count = len(one.world.effects)
    again = one.apply(from_text(text, REGISTRY), "run-2")
    assert again.ok
    assert len(one.world.effects) == count


def test_a_plan_that_is_replayed_after_other_changes_is_refused_change_by_change(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="1"), world={"s1": {"a": {"value": "0"}}})
    text = to_text(one.plan())
    assert one.apply(from_text(text, REGISTRY)).ok
    one.world.edit("s1", "a", {"value": "2"})
    result = one.apply(from_text(text, REGISTRY), "run-2")
    assert result.ended["sim.item[s1:a]"].outcome is Outcome.FAILED
    assert one.world.snapshot()["s1"]["a"] == {"value": "2"}


def test_a_plan_sealed_with_another_key_is_refused(tmp_path: Path) -> None:
    from reconciler.secrets import Secrets

    one = rig(tmp_path, thing("a", label=Secret(secret_ref="env:A")))
    one.environ["A"] = "hunter22"
    made = one.plan()
    assert made.key_id
    one.secrets = Secrets(lambda: b"another key", one.environ)
    with pytest.raises(PlanError, match="seals secrets with another key"):
        one.apply(made)
    assert not one.world.effects


def test_the_same_input_gives_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    """Law 5."""
    import random

    shuffle = random.Random(1)
    world = {"s1": {"d3": {"value": "z"}, "d1": {"value": "x"}}, "s2": {}}
    documents = [
        thing(f"d{i}", ["s1", "s2"], value="x", needs=[f"d{j}" for j in range(i)], labels={"b": "1", "a": "2"})
        for i in range(8)
    ]
    texts = set()
    for turn in range(6):
        mixed = shuffle.sample(documents, len(documents))
        one = Rig(tmp_path / str(turn), World(world), [server("s2"), *mixed, server("s1")])
        texts.add(to_text(one.plan(now=NOW)))
    assert len(texts) == 1


# ------------------------------------------------------------------------------------------------ Git


def test_the_commit_is_noted_with_a_plus_for_edits(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x", "--allow-empty"]):
        subprocess.run([*git, *command], check=True)
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "a.yaml").write_text("x")
    assert git_commit(tmp_path) == f"{commit}+"
    assert git_commit(tmp_path / "a.yaml") == f"{commit}+"
