"""Debian versions sort as dpkg sorts them: a downgrade is a risk, so the plan has to know one."""

from __future__ import annotations

from itertools import pairwise

import pytest

from reconciler.types.host.package import version_key

ASCENDING = [
    "1.0~~",
    "1.0~rc1",
    "1.0",
    "1.0-1~bpo12+1",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1+deb13u1",
    "1.0a",
    "1.0+dfsg",
    "1.0.1",
]
ASCENDING += ["1.2", "1.10", "2", "1:0.5", "2:0"]


@pytest.mark.parametrize(("older", "newer"), list(pairwise(ASCENDING)))
def test_older_sorts_before_newer(older: str, newer: str) -> None:
    assert version_key(older) < version_key(newer)


@pytest.mark.parametrize(("one", "other"), [("1.0", "1.00"), ("0:1", "1"), ("1-0", "1"), ("1.0", "1.")])
def test_spellings_of_one_version_are_equal(one: str, other: str) -> None:
    assert version_key(one) == version_key(other)
