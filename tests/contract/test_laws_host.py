"""Law 3 and 4 for every resource type, on a real systemd host over SSH. One host and one connection for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.contract.laws import Subject, examine, law_ids, laws, obey, prune_together

pytestmark = pytest.mark.lab

LAWS, AUDITS = laws("laws", "host"), laws("audit", "host")


@pytest.mark.parametrize(("name", "entry"), LAWS, ids=law_ids(LAWS))
def test_what_is_applied_holds_and_drift_is_repaired(
    name: str, entry: Mapping[str, Any], subject_host: Subject
) -> None:
    obey(subject_host, name, entry)


@pytest.mark.parametrize(("name", "entry"), AUDITS, ids=law_ids(AUDITS))
def test_audits_find_what_is_wrong_and_change_nothing(
    name: str, entry: Mapping[str, Any], subject_host: Subject
) -> None:
    examine(subject_host, name, entry)


def test_an_account_and_its_group_go_in_one_apply(subject_host: Subject) -> None:
    prune_together(subject_host)
