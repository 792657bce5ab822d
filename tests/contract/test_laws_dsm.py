"""Laws 3 and 4 for the types of Synology DSM, on a simulator of its API.

In the tables `setup`, `mutate` and `cleanup` are lines: what (`schedule`, `retention` or `protect`), a shared folder,
and the parameters that differ from what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.connections.dsm import Dsm
from reconciler.lab.dsm import TIMES, DsmSimulator
from reconciler.model import Get, Request, Target, Work
from reconciler.types.dsm import RETENTION, SNAPSHOT, data
from tests.contract.laws import Subject, examine, law_ids, laws, obey

LAWS, AUDITS = laws("laws", "dsm"), laws("audit", "dsm")
PASSWORD = "secret123"
GIVEN = {"version": 1, "type": "Share"}


def by_hand(connection: Dsm) -> Callable[[str], None]:
    """Does what a table says, as somebody would in DSM."""

    def ask(path: str, params: Mapping[str, Any]) -> Any:
        (reply,) = connection.read([Get(path, params)])
        return data(reply, path)

    def do(script: str) -> None:
        for line in filter(None, map(str.strip, script.splitlines())):
            what, share, *words = line.split()
            changed: dict[str, Any] = {}
            for word in words:
                name, _, value = word.partition("=")
                changed[name] = int(value) if value.isdigit() and name != "week_name" else value
            match what:
                case "schedule":
                    seen = ask(f"{SNAPSHOT}/get_schedule", {"version": 1, "name": share})
                    times = {n: v for n, v in {**seen.get("schedule", {}), **changed}.items() if n in TIMES}
                    path, params = f"{SNAPSHOT}/set_schedule", {"version": 1, "name": share, "schedule": times}
                    params |= {"task_id": seen["task_id"], "enable_snapshot_schedule": True}
                case "retention":
                    seen = ask(f"{RETENTION}/get", {**GIVEN, "name": share})
                    kept = {n: v for n, v in seen.items() if n.startswith("adv") or n in ("recently", "retainDay")}
                    path, params = f"{RETENTION}/set", {**GIVEN, "name": share, "tid": seen["tid"], **kept}
                    params |= {"policyType": seen["policyType"], **changed}
                case _:
                    changed["worm_lock_enable"] = changed["worm_lock_enable"] == "true"
                    path, params = f"{RETENTION}/set_worm_lock", {**GIVEN, "name": share, **changed}
            for result in connection.execute([Work("table", [Request("POST", path, params)])], lambda secret: ""):
                assert not result.status, f"{line}: {result.output}"

    return do


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    with DsmSimulator({"admin": PASSWORD}, ("photos",)) as simulator:
        settings = {"url": simulator.url, "user": "admin", "password": {"secretRef": "env:PASSWORD"}}
        settings["fingerprint"] = simulator.fingerprint
        behind = Dsm("dsm", settings, lambda secret: PASSWORD)

        def listing() -> Any:
            """Whatever was asked for that is no look."""
            return [r for r in simulator.requests if r[1].startswith(("set", "create", "delete"))]

        one = Subject("dsm", Target("dsm", "dsm", settings), by_hand(behind), listing, tmp_path / "state")
        one.pool._reveal = one.looking._reveal = lambda secret: PASSWORD
        yield one
        one.close()
        behind.close()


@pytest.mark.parametrize(("name", "entry"), LAWS, ids=law_ids(LAWS))
def test_what_is_applied_holds_and_drift_is_repaired(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    obey(subject, name, entry)


@pytest.mark.parametrize(("name", "entry"), AUDITS, ids=law_ids(AUDITS))
def test_audits_find_what_is_wrong_and_change_nothing(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    examine(subject, name, entry)
