"""Law 3 and 4 for every resource type, on an offline image managed in folder mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.contract.laws import Subject, examine, image, law_ids, laws, obey, prune_together

LAWS, AUDITS = laws("laws", "image"), laws("audit", "image")


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    one = image(tmp_path / "image", tmp_path / "state")
    yield one
    one.close()


@pytest.mark.parametrize(("name", "entry"), LAWS, ids=law_ids(LAWS))
def test_what_is_applied_holds_and_drift_is_repaired(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    obey(subject, name, entry)


@pytest.mark.parametrize(("name", "entry"), AUDITS, ids=law_ids(AUDITS))
def test_audits_find_what_is_wrong_and_change_nothing(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    examine(subject, name, entry)


def test_an_account_and_its_group_go_in_one_apply(subject: Subject) -> None:
    prune_together(subject)
