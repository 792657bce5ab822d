"""Probe: lockstep, one round trip a round, and a failure that stays where it is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from reconciler.connections import ReadOnly
from reconciler.errors import ConnectError, ContractError, ProbeFailed
from reconciler.model import Identity, Probe, Read, Reply, ResourceType, Script, Spec, Unprobed
from reconciler.probe import expect, probe_all, probe_target
from reconciler.registry import Registry
from tests.simulated import REGISTRY, TYPES, SimulatedConnection, World


class Thing(Spec):
    """A thing."""

    name: Identity
    value: str | None = None


def type_of(name: str, probe: Any) -> ResourceType[Thing]:
    return ResourceType(name, Thing, probe, lambda change: ())


def one_round(specs: Sequence[Thing]) -> Probe:
    (reply,) = yield [Script("one", [s.name for s in specs])]
    return [{"value": reply.text}] * len(specs)


def two_rounds(specs: Sequence[Thing]) -> Probe:
    first, second = yield [Script("two-a"), Script("two-b")]
    (third,) = yield [Script("two-c")]
    return [{"value": first.text + second.text + third.text}] * len(specs)


def no_round(specs: Sequence[Thing]) -> Probe:
    return [None] * len(specs)
    yield []


def complains(specs: Sequence[Thing]) -> Probe:
    yield [Script("bad")]
    expect(Reply("no such program", 127), "thing")
    return []


def forgetful(specs: Sequence[Thing]) -> Probe:
    yield [Script("x")]
    return []


def texts(reads: Sequence[Read]) -> list[str]:
    return [one.sh for one in reads if isinstance(one, Script)]


def echo(reads: Sequence[Read]) -> list[Reply]:
    return [Reply(text) for text in texts(reads)]


def test_reads_of_a_round_go_out_together() -> None:
    types = [type_of("t.one", one_round), type_of("t.two", two_rounds), type_of("t.zero", no_round)]
    registry = Registry.of([], types)
    rounds: list[list[str]] = []

    def read(reads: Sequence[Read]) -> list[Reply]:
        rounds.append(texts(reads))
        return echo(reads)

    states = probe_target([t("s1", name=f"n{i}") for t in types for i in range(100)], registry, read)
    assert rounds == [["one", "two-a", "two-b"], ["two-c"]]
    assert states["t.one[s1:n7]"] == {"value": "one"}
    assert states["t.two[s1:n99]"] == {"value": "two-atwo-btwo-c"}
    assert states["t.zero[s1:n0]"] is None


def test_a_probe_that_fails_does_not_spoil_the_others() -> None:
    types = [type_of("t.bad", complains), type_of("t.one", one_round)]
    states = probe_target([t("s1", name="n") for t in types], Registry.of([], types), echo)
    assert states["t.bad[s1:n]"] == Unprobed("thing failed with exit status 127: no such program")
    assert states["t.one[s1:n]"] == {"value": "one"}


def test_a_probe_that_forgets_an_object_is_a_bug_with_a_name() -> None:
    kind = type_of("t.forgetful", forgetful)
    with pytest.raises(
        ContractError, match=r"did not return one state for each of 1 objects. This is a bug in t.forgetful"
    ):
        probe_target([kind("s1", name="n")], Registry.of([], [kind]), echo)


def test_a_target_that_does_not_answer_makes_only_its_own_unknown() -> None:
    world = World({"s1": {"a": {"value": "1"}}, "s2": {"a": {"value": "1"}}})
    world.down = {"s2"}
    seen: dict[str, str | None] = {}
    by_target = {s: [TYPES["item"](s, name="a", value="1")] for s in ("s1", "s2")}
    with ThreadPoolExecutor(4) as executor:
        states = probe_all(
            by_target, REGISTRY, lambda name: ReadOnly(SimulatedConnection(world, name)), executor, seen.__setitem__
        )
    assert states["sim.item[s1:a]"] == {"value": "1"}
    assert states["sim.item[s2:a]"] == Unprobed("s2: there is no route to it.")
    assert seen == {"s1": None, "s2": "s2: there is no route to it."}


def test_a_connection_that_only_reads_never_writes() -> None:
    """Law 4."""
    connection = ReadOnly(SimulatedConnection(World(), "s1"))
    with pytest.raises(ContractError, match="A read-only connection was asked to write"):
        connection.execute([], lambda secret: "")


def test_expect_says_what_failed_and_how() -> None:
    assert expect(Reply("fine"), "stat") == "fine"
    with pytest.raises(ProbeFailed, match=r"stat failed with exit status 1: x+$"):
        expect(Reply("x" * 1000, 1), "stat")


def test_errors_of_ours_are_no_unknowns() -> None:
    """A bug in a type must not look like an unreachable host."""
    kind = type_of("t.forgetful", forgetful)

    class Echo:
        def read(self, reads: Sequence[Read]) -> Sequence[Reply]:
            return echo(reads)

        def execute(self, *args: Any) -> Any:
            raise AssertionError

        def settle(self, witnesses: Sequence[str]) -> None:
            pass

        def close(self) -> None:
            pass

    with ThreadPoolExecutor(1) as executor, pytest.raises(ContractError):
        probe_all({"s1": [kind("s1", name="n")]}, Registry.of([], [kind]), lambda name: Echo(), executor)


def test_connecting_may_fail_as_well() -> None:
    def refuse(name: str) -> Any:
        raise ConnectError(f"{name}: the host key changed")

    with ThreadPoolExecutor(1) as executor:
        states = probe_all({"s1": [TYPES["item"]("s1", name="a")]}, REGISTRY, refuse, executor)
    assert states == {"sim.item[s1:a]": Unprobed("s1: the host key changed")}
