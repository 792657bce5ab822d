"""Diff: only what was declared is compared, secrets are sealed before anybody sees them, contracts are enforced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from reconciler.diff import diff
from reconciler.errors import ContractError
from reconciler.model import UNOBSERVABLE, Action, Change, Lifecycle, Risk, Sealed, Secret, Sha256
from reconciler.secrets import Secrets
from tests.simulated import ITEM, PARTS

SECRETS = Secrets(lambda: b"k" * 32, {"A": "hunter22", "B": "other"})


def compare(
    before: Mapping[str, Any] | None, kind: Any = ITEM, lifecycle: Any = None, absent: bool = False, **fields: Any
) -> Change[Any]:
    one = kind("s1", name="a", absent=absent, **fields)
    return diff(replace(one, lifecycle=Lifecycle.model_validate(lifecycle or {})), before, kind, SECRETS.seal)


@pytest.mark.parametrize(
    ("before", "fields", "action", "changed"),
    [
        (None, {"value": "x"}, Action.CREATE, {"value"}),
        (None, {}, Action.CREATE, set()),
        ({"value": "x"}, {"value": "x"}, Action.NOOP, set()),
        ({"value": "x"}, {}, Action.NOOP, set()),
        ({"value": "x", "size": 5, "more": "y"}, {"value": "x"}, Action.NOOP, set()),
        ({"value": "y", "size": 1}, {"value": "x", "size": 1}, Action.UPDATE, {"value"}),
        ({}, {"value": "x"}, Action.UPDATE, {"value"}),
        ({"value": None}, {"value": "x"}, Action.UPDATE, {"value"}),
        ({"value": "x", "fixed": "1"}, {"value": "x", "fixed": "2"}, Action.REPLACE, {"fixed"}),
        ({"value": UNOBSERVABLE, "size": 1}, {"value": "x", "size": 1}, Action.NOOP, set()),
        ({"value": UNOBSERVABLE, "size": 1}, {"value": "x", "size": 2}, Action.UPDATE, {"size"}),
    ],
)
def test_actions(before: Mapping[str, Any] | None, fields: dict[str, Any], action: Action, changed: set[str]) -> None:
    change = compare(before, **fields)
    assert change.action is action
    assert change.changed == changed


def test_absence() -> None:
    assert compare(None, absent=True).action is Action.NOOP
    gone = compare({"value": "x"}, absent=True)
    assert (gone.action, gone.after, gone.before) == (Action.DELETE, None, {"value": "x"})


def test_what_others_may_change_is_set_once_and_not_compared_afterwards() -> None:
    life = {"ignoreChanges": ["value"]}
    assert compare({"value": "y"}, lifecycle=life, value="x").action is Action.NOOP
    assert compare(None, lifecycle=life, value="x").changed == {"value"}
    assert compare({"value": "y", "size": 1}, lifecycle=life, value="x", size=2).changed == {"size"}


def test_the_digest_covers_what_is_declared_and_visible_only() -> None:
    one = compare({"value": "y", "size": 1, "more": "a"}, value="x")
    two = compare({"value": "y", "size": 2, "more": "b"}, value="x")
    three = compare({"value": "z"}, value="x")
    assert one.digest == two.digest != three.digest


def test_secrets_are_sealed_on_both_sides() -> None:
    secret = Secret(secret_ref="env:A")
    same = compare({"label": Sha256.of("hunter22")}, label=secret)
    assert same.action is Action.NOOP
    other = compare({"label": Sha256.of("hunter23")}, label=secret)
    (difference,) = other.differences
    assert isinstance(difference.before, Sealed)
    assert isinstance(difference.after, Sealed)
    assert "hunter" not in repr(other)
    assert Sha256.of("hunter22").hex not in repr(other), "a plain digest can be searched by guessing"
    assert "hunter" not in str(difference.after)


def test_a_probe_that_reports_a_hidden_attribute_in_the_clear_is_covered() -> None:
    change = compare({"label": "hunter23"}, label=Secret(secret_ref="env:A"))
    assert "hunter23" not in repr(change)


def test_normalize_may_only_choose_the_observed_value() -> None:
    lower = replace(ITEM, normalize=lambda desired, observed: {**desired, "value": observed["value"]})
    assert compare({"value": "X"}, lower, value="x").action is Action.NOOP
    answers: list[Mapping[str, Any]] = [{"value": "neither"}, {"value": "x", "size": 7}, {}]

    def wrong(desired: Mapping[str, Any], observed: Mapping[str, Any]) -> Mapping[str, Any]:
        return answers.pop()

    bad = replace(ITEM, normalize=wrong)
    while answers:
        with pytest.raises(ContractError, match=r"This is a bug in sim.item"):
            compare({"value": "X", "size": 1}, bad, value="x")


def test_normalize_never_meets_what_cannot_be_seen() -> None:
    def strict(desired: Mapping[str, Any], observed: Mapping[str, Any]) -> Mapping[str, Any]:
        assert "value" not in desired
        return desired

    assert compare({"value": UNOBSERVABLE}, replace(ITEM, normalize=strict), value="x").action is Action.NOOP


def test_risks_are_asked_for_changes_only() -> None:
    risky = replace(PARTS, risk=lambda change: Risk("downtime", "it stops"))
    assert compare({"value": "x"}, risky, value="y").risk == Risk("downtime", "it stops")
    assert compare({"value": "x"}, risky, value="x").risk is None
