"""The simulated cluster gives what a real one gave: 899 recorded exchanges, compared one by one."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.proxmox.replay import FIXTURES, SCENARIOS, Bindings, Replay, matches

LISTED: dict[str, Any] = YAML(typ="safe").load(FIXTURES / "differences.yaml")
REASONS: dict[str, str] = {entry["exchange"]: entry["reason"] for entry in LISTED["differences"]}
EXCHANGES = 899


def recorded(name: str) -> list[dict[str, Any]]:
    exchanges: list[dict[str, Any]] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))["exchanges"]
    return exchanges


def test_all_scenarios_are_here() -> None:
    """Nothing was left out of what was recorded."""
    assert len(SCENARIOS) == 8
    assert sum(len(recorded(name)) for name in SCENARIOS) == EXCHANGES


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str) -> None:
    """Each exchange matches, or stands in the list of differences with its reason; what stands there does differ."""
    found = {f"{name}/{exchange}": text for exchange, text in Replay(name).differences() if text is not None}
    listed = {exchange for exchange in REASONS if exchange.startswith(f"{name}/")}
    assert {exchange: text for exchange, text in found.items() if exchange not in listed} == {}
    assert listed - set(found) == set(), "these match now: take them out of the list"


def test_the_list_only_shrinks() -> None:
    """The list names exchanges that there are, each with a reason, and is no longer than it was."""
    known = {f"{name}/{exchange['id']}" for name in SCENARIOS for exchange in recorded(name)}
    assert set(REASONS) <= known
    assert all(len(reason) > 40 for reason in REASONS.values())
    assert len(LISTED["differences"]) == len(REASONS) <= LISTED["most"] <= 1


def scalars(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values that are neither objects nor lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return [path]
    return [found for key, item in items for found in scalars(item, (*path, key))]


def changed(body: Any, path: tuple[Any, ...]) -> Any:
    """The body with another value at one place."""
    other = copy.deepcopy(body)
    inside = other
    for key in path[:-1]:
        inside = inside[key]
    old = inside[path[-1]]
    inside[path[-1]] = old + 1 if isinstance(old, int | float) else f"{old}!" if isinstance(old, str) else "something"
    return other


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_comparison_sees_every_change(name: str) -> None:
    """A recorded body without placeholders matches itself and nothing that differs from it in one value."""
    compared = 0
    for exchange in recorded(name):
        if "body" not in exchange or "<" in json.dumps(exchange["body"]):
            continue
        body = exchange["body"]
        assert matches(body, copy.deepcopy(body), Bindings({})) is None
        for path in scalars(body):
            assert matches(body, changed(body, path), Bindings({})), (exchange["id"], path)
            compared += 1
        assert matches(body, {**body, "more": 1}, Bindings({}))
    assert compared > 30


def test_placeholders_stand_for_one_value_each() -> None:
    """The same number is the same value, another number another one; forms are checked."""
    bindings = Bindings({})
    one, two = "1" * 40, "2" * 40
    assert matches({"a": "<digest:1>"}, {"a": one}, bindings) is None
    assert matches({"a": "<digest:1>"}, {"a": one}, bindings) is None
    assert matches({"a": "<digest:1>"}, {"a": two}, bindings) is not None
    assert matches({"a": "<digest:2>"}, {"a": one}, bindings) is not None
    assert matches({"a": "<digest:2>"}, {"a": two}, bindings) is None
    assert matches({"a": "<digest:3>"}, {"a": "xyz"}, bindings) is not None
    assert matches({"a": "<time>"}, {"a": "soon"}, bindings) is not None
    assert matches({"a": "<int>"}, {"a": True}, bindings) is not None


def test_order_counts_where_the_server_has_one() -> None:
    """Lists of objects have no order, logs have one; so have comma lists but for the three that the server shuffles."""
    lines = [{"n": 1}, {"n": 2}]
    assert matches(lines, lines[::-1], Bindings({})) is None
    assert matches(lines, lines[::-1], Bindings({}), ordered=True) is not None
    assert matches({"nodes": "a,b"}, {"nodes": "b,a"}, Bindings({})) is None
    assert matches({"vmid": "1,2"}, {"vmid": "2,1"}, Bindings({})) is not None
