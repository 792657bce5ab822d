"""The emulator answers as the recorded API server did, exchange by exchange."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.kubernetes.replay import FIXTURES, Bindings, Replay, differences

SCENARIOS = sorted(path.stem for path in FIXTURES.glob("*.json"))
IN_FULL = {
    "conflicts",
    "delete",
    "patches",
    "routes-openshift",
    "service-ca",
    "ssa-configmap",
    "ssa-deployment",
    "ssa-rbac",
    "ssa-secret",
    "ssa-service",
    "ssa-serviceaccount",
}
LISTED: list[dict[str, str]] = YAML(typ="safe").load((Path(__file__).parent / "differences.yaml").read_text("utf-8"))
AT_MOST = 9  # only ever less
EXCHANGES = 929


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_answers_are_the_recorded_ones(scenario: str) -> None:
    found = Replay(scenario).run()
    listed = {entry["exchange"] for entry in LISTED if entry["scenario"] == scenario}
    unlisted = {key: problems for key, problems in found.items() if key not in listed}
    assert not unlisted, json.dumps(unlisted, indent=1)[:4000]
    assert not listed - set(found), "these match by now: take them out of differences.yaml"


def test_the_list_of_differences_gets_only_shorter() -> None:
    assert len(LISTED) <= AT_MOST
    assert all(entry["reason"] for entry in LISTED)
    known = {
        (name, exchange["id"])
        for name in SCENARIOS
        for exchange in json.loads((FIXTURES / f"{name}.json").read_text("utf-8"))["exchanges"]
    }
    assert len(known) == EXCHANGES
    assert {(entry["scenario"], entry["exchange"]) for entry in LISTED} <= known
    assert set(SCENARIOS) >= IN_FULL
    assert not IN_FULL & {entry["scenario"] for entry in LISTED}


def test_the_transcripts_are_the_shared_ones() -> None:
    shared = Path(__file__).parents[3] / "shared" / "kubernetes-transcripts"
    if not shared.is_dir():
        return
    for path in shared.glob("*.json"):
        assert (FIXTURES / path.name).read_bytes() == path.read_bytes(), path.name


UIDS = ("0b6e1a52-0000-4000-8000-000000000001", "0b6e1a52-0000-4000-8000-000000000002")


@pytest.mark.parametrize(
    ("expected", "actual", "problems"),
    [
        ({"a": 1}, {"a": 1}, 0),
        ({"a": 1}, {"a": True}, 1),
        ({"a": 1}, {"a": 1, "b": 2}, 1),
        ({"a": 1, "b": 2}, {"a": 1}, 1),
        ([1, 2], [1], 1),
        (["<uid:1>", "<uid:1>"], [UIDS[0], UIDS[0]], 0),
        (["<uid:1>", "<uid:1>"], [UIDS[0], UIDS[1]], 1),
        (["<uid:1>", "<uid:2>"], [UIDS[0], UIDS[0]], 1),
        (["<uid:1>"], ["not a uid"], 1),
        (["<listrv:1>", "<listrv:2>"], ["7", "7"], 0),
        (["<rv:1>", "<rv:2>"], ["7", "7"], 1),
        (["uid <uid:1> is wrong"], [f"uid {UIDS[0]} is wrong"], 0),
        (["uid <uid:1> is wrong"], [f"uid {UIDS[0]} is right"], 1),
        ({'k:{"uid":"<uid:1>"}': {}}, {f'k:{{"uid":"{UIDS[0]}"}}': {}}, 0),
        (["<nodePort:1>"], [30080], 0),
        (["<time>"], ["2026-01-01T00:00:00Z"], 0),
        (["<time>"], ["yesterday"], 1),
    ],
)
def test_the_comparison_sees_differences(expected: Any, actual: Any, problems: int) -> None:
    assert len(differences(expected, actual, Bindings())) == problems
