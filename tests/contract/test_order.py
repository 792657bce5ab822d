"""Law 5: the sample data centre in any order of files, documents and keys gives the identical plan, byte for byte."""

from __future__ import annotations

import json
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.lab.stage import Stage
from reconciler.load import load
from reconciler.planfile import to_text
from reconciler.project import Project
from reconciler.secrets import Secrets
from tests.contract.tables import AnyEnvironment

SAMPLE = Path(__file__).parents[2] / "desired-state"
NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)


def shuffled(value: Any, luck: random.Random) -> Any:
    """The same data with the keys of every mapping in another order; lists mean their order and keep it."""
    if isinstance(value, dict):
        return {k: shuffled(value[k], luck) for k in luck.sample(list(value), len(value))}
    if isinstance(value, list):
        return [shuffled(item, luck) for item in value]
    return value


def scatter(repo: Path, luck: random.Random) -> None:
    """Deal the documents of each folder anew to files with other names. JSON is YAML."""
    by_folder: dict[Path, list[Any]] = {}
    for document in load(SAMPLE).documents:
        by_folder.setdefault(Path(document.file).absolute().parent.relative_to(SAMPLE), []).append(document.data)
    if repo.exists():
        shutil.rmtree(repo)
    shutil.copytree(SAMPLE, repo, ignore=shutil.ignore_patterns("*.yaml", "*.yml"))
    for folder, documents in by_folder.items():
        luck.shuffle(documents)
        for number, document in enumerate(documents):
            with (repo / folder / f"{luck.choice('abc')}{number % 3}.yaml").open("a") as file:
                file.write(f"---\n{json.dumps(shuffled(document, luck))}\n")


def test_order_of_input_does_not_matter(tmp_path: Path) -> None:
    secrets = Secrets(lambda: b"k" * 32, AnyEnvironment())
    secrets.reveal = lambda secret: "canary-secret123"  # type: ignore[method-assign]
    stage = Stage(tmp_path / "hosts", Project(SAMPLE, tmp_path / "state").validate(), secrets.reveal)
    texts = []
    try:
        for seed in range(4):
            scatter(tmp_path / "repo", random.Random(seed))
            project = Project(tmp_path / "repo", tmp_path / "state", retarget=stage.stand_in)
            project.secrets = secrets
            texts.append(to_text(project.plan(now=NOW)))
    finally:
        stage.close()
    assert len(texts[0]) > 2000
    assert len(set(texts)) == 1
