"""Resolve: order from tokens and `requires`, cycles, clashes; and order depends on nothing but names."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import InvalidInput
from reconciler.model import Document
from reconciler.resolve import Desired, cycles, topological
from tests.simulated import Rig, World, server, thing
from tests.texts import FILE, HOST, desired_of, problems_of


def resolved(folder: Path, *documents: Document[Any]) -> Desired:
    return Rig(folder, World(), [server("s1"), server("s2"), *documents]).desired()


def order(desired: Desired) -> list[str]:
    return [node for node in topological(desired.edges) if node in desired.resources]


def test_tokens_make_order_on_one_target_only(tmp_path: Path) -> None:
    found = resolved(tmp_path, thing("a", needs=["z"]), thing("z"), thing("y", "s2", needs=["z"]))
    assert order(found) == ["sim.item[s1:z]", "sim.item[s1:a]", "sim.item[s2:y]"]
    assert found.edges["sim.item[s2:y]"] == []


def test_what_goes_is_ordered_the_other_way_round(tmp_path: Path) -> None:
    found = resolved(tmp_path, thing("a", absent=True), thing("b", absent=True, needs=["a"]))
    assert order(found) == ["sim.item[s1:b]", "sim.item[s1:a]"]


def test_requires_does_not_hold_up_what_goes_together(tmp_path: Path) -> None:
    """A token says that b goes first, `requires` that it comes last: both were written for the time when they stay."""
    found = resolved(
        tmp_path,
        thing("a", absent=True),
        thing("b", absent=True, needs=["a"], lifecycle={"requires": ["Thing/a"]}),
        thing("c", lifecycle={"requires": ["Thing/a"]}),
    )
    assert order(found) == ["sim.item[s1:b]", "sim.item[s1:a]", "sim.item[s1:c]"]


def test_needing_what_must_be_absent_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"sim.item\[s1:b\] needs sim.item\[s1:a\], which Thing/a says must be absent"
    ):
        resolved(tmp_path, thing("a", absent=True), thing("b", needs=["a"]))


def test_requires_is_per_target_where_both_are_there(tmp_path: Path) -> None:
    found = resolved(tmp_path, thing("b", ["s1", "s2"], lifecycle={"requires": ["Thing/z"]}), thing("z", ["s1", "s2"]))
    assert found.edges["sim.item[s1:b]"] == ["Thing/z@s1"]
    assert found.edges["Thing/z@s1"] == ["sim.item[s1:z]"]


def test_requires_reaches_across_targets_where_they_differ(tmp_path: Path) -> None:
    found = resolved(tmp_path, thing("b", "s1", lifecycle={"requires": ["Thing/z"]}), thing("z", "s2"))
    assert order(found) == ["sim.item[s2:z]", "sim.item[s1:b]"]


def test_requiring_a_document_with_many_objects_costs_one_edge_each(tmp_path: Path) -> None:
    servers = [server(f"t{i:03}") for i in range(200)]
    names = [s.name for s in servers]
    rig = Rig(tmp_path, World(), [*servers, thing("a", names), thing("b", names, lifecycle={"requires": ["Thing/a"]})])
    assert sum(map(len, rig.desired().edges.values())) == 400


def test_a_cycle_is_shown_as_the_way_round(tmp_path: Path) -> None:
    a = thing("a", lifecycle={"requires": ["Thing/c"]})
    with pytest.raises(InvalidInput) as caught:
        resolved(tmp_path, a, thing("b", needs=["a"]), thing("c", needs=["b"]))
    (problem,) = caught.value.problems
    assert "Thing/c@s1 -> sim.item[s1:c] -> sim.item[s1:b] -> sim.item[s1:a] -> Thing/c@s1" in problem.message
    assert problem.fix == "Take one `requires` away."
    assert problem.subject.startswith("Thing/")
    assert problem.position


def test_a_document_that_requires_itself(tmp_path: Path) -> None:
    (one,) = problems_of(tmp_path, HOST + FILE + "  content: x\nlifecycle: {requires: [File/motd]}\n")
    assert one.startswith(
        "a.yaml:5:1: File/motd: needs itself, by way of File/motd@web1 -> host.file[web1:/etc/motd] -> "
    )


def test_a_file_comes_after_its_folder_and_owner(tmp_path: Path) -> None:
    from reconciler.registry import default

    needs = default().type_of("host.file").needs
    (file,) = desired_of(tmp_path, HOST + FILE + "  content: x\n  owner: bob\n  group: adm\n").resources.values()
    assert {"path:/etc", "path:/", "user:bob", "group:adm"} <= set(needs(file.spec))


@given(st.integers(0, 9), st.randoms(use_true_random=False))
def test_order_is_a_function_of_the_graph(count: int, shuffle: random.Random) -> None:
    """Law 5, at its root: neither the order of nodes nor that of edges matters."""
    nodes = [f"n{i}" for i in range(count)]
    edges = {n: [m for m in nodes[:i] if shuffle.random() < 0.4] for i, n in enumerate(nodes)}
    wanted = topological(edges)
    assert sorted(wanted) == sorted(nodes)
    position = {n: i for i, n in enumerate(wanted)}
    assert all(position[m] < position[n] for n, before in edges.items() for m in before)
    mixed = list(edges.items())
    shuffle.shuffle(mixed)
    assert topological({n: shuffle.sample(before, len(before)) for n, before in mixed}) == wanted
    assert cycles(edges) == []


@pytest.mark.parametrize(
    ("edges", "wanted"),
    [
        ({"a": ["a"]}, ["a", "a"]),
        ({"a": ["b"], "b": ["a"], "c": []}, ["a", "b", "a"]),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, ["b", "c", "b"]),
    ],
)
def test_one_cycle_is_found(edges: dict[str, Sequence[str]], wanted: list[str]) -> None:
    assert cycles(edges) == [wanted]


def test_a_long_chain_is_no_recursion() -> None:
    edges = {f"n{i:06}": [f"n{i - 1:06}"] if i else [] for i in range(50_000)}
    assert len(topological(edges)) == 50_000
    edges["n000000"] = ["n049999"]
    assert len(cycles(edges)[0]) == 50_001
