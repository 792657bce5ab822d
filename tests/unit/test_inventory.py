"""Inventory: what we made and what we took over, so that prune deletes no more than that."""

from __future__ import annotations

from pathlib import Path

from reconciler import inventory
from reconciler.model import Secret
from reconciler.store import Store
from tests.simulated import ITEM, REGISTRY, Rig, World, server, thing


def rig(folder: Path, *documents: object) -> Rig:
    return Rig(folder, World({"s1": {"b": {"value": "y"}, "c": {"value": "x"}}}), [server("s1"), *documents])  # type: ignore[list-item]


def test_what_is_recorded(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"), thing("b", value="x"), thing("c", value="x"))
    assert one.apply().ok
    found = inventory.load(one.store)
    assert {e.key: e.created for e in found.values()} == {"a": True, "b": False, "c": False}
    entry = found["sim.item[s1:a]"]
    assert (entry.type, entry.target, entry.origin, entry.run) == ("sim.item", "s1", "Thing/a", "run-1")
    gone = entry.resource(REGISTRY)
    assert gone
    assert gone.absent
    assert gone.address == "sim.item[s1:a]"


def test_what_we_made_stays_ours_through_updates(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"))
    assert one.apply().ok
    one.documents = [server("s1"), thing("a", value="new")]
    assert one.apply(one.plan(), "run-2").ok
    (entry,) = inventory.load(one.store).values()
    assert entry.created
    assert entry.run == "run-2"
    assert dict(entry.spec)["value"] == "new"


def test_a_failed_creation_is_not_ours(tmp_path: Path) -> None:
    one = rig(tmp_path, thing("a", value="x"))
    one.world.broken = {("s1", "a")}
    assert not one.apply().ok
    assert inventory.load(one.store) == {}


def test_secrets_are_kept_as_references(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.write() as db:
        inventory.record(db, ITEM("s1", name="a", label=Secret(secret_ref="env:A")), "run-1", created=True)
    assert dict(inventory.load(store)["sim.item[s1:a]"].spec)["label"] == {"secretRef": "env:A"}


def test_what_this_version_cannot_read_is_no_object(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.write() as db:
        inventory.record(db, ITEM("s1", name="a", value="x"), "run-1", created=True)
        db.execute("""UPDATE inventory SET spec='{"name": "a", "gone": 1}'""")
    assert inventory.load(store)["sim.item[s1:a]"].resource(REGISTRY) is None


def test_nothing_was_ever_kept(tmp_path: Path) -> None:
    assert inventory.load(Store(tmp_path / "state")) == {}


def test_losing_the_inventory_loses_no_infrastructure(tmp_path: Path) -> None:
    """The live system is the truth: everything is found again, and taken over."""
    one = rig(tmp_path / "one", thing("a", value="x"), thing("b", value="x"))
    assert one.apply().ok
    other = Rig(tmp_path / "two", one.world, one.documents)
    made = other.plan()
    assert made.empty
    assert [r.key for r in made.adopt] == ["a", "b"]
