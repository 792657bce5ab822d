"""Law 4 for audits of a folder of files. In the tables `setup` is a script that runs in that folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.model import Target
from tests.contract.laws import Subject, examine, law_ids, laws, tree

AUDITS = laws("audit", "repo")


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    root = tmp_path / "files"
    root.mkdir()

    def sh(script: str) -> None:
        subprocess.run(["sh", "-ec", script], cwd=root, check=True)

    settings = {"root": str(root), "beside": str(tmp_path)}
    one = Subject("repo", Target("repo", "repository", settings), sh, lambda: tree(root), tmp_path / "state")
    yield one
    one.close()


@pytest.mark.parametrize(("name", "entry"), AUDITS, ids=law_ids(AUDITS))
def test_audits_find_what_is_wrong_and_change_nothing(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    examine(subject, name, entry)
