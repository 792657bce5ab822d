"""Plan and apply in one go, on a folder image: what goes out, and what is noticed that changed in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.connections.shell import Shell
from reconciler.model import Outcome
from reconciler.project import Project
from tests.texts import HEAD, registry

DOCUMENT = HEAD + "kind: File\nmetadata: {name: %s}\nspec: {hosts: [web1], path: /etc/%s, content: new}\n---\n"


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps each message to a shell held."""
    seen: list[int] = []
    ask = Shell._ask

    def counted(self: Shell, script: str, keep: int, steps: int = 0) -> Any:
        seen.append(steps)
        return ask(self, script, keep, steps)

    monkeypatch.setattr(Shell, "_ask", counted)
    return seen


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (root / "etc" / name).write_text("old")
    documents = "".join(DOCUMENT % (name, name) for name in ("a", "b", "c"))
    host = f"{HEAD}kind: Host\nmetadata: {{name: web1}}\nspec: {{connection: image, root: {root}}}\n"
    (tmp_path / "desired").mkdir()
    (tmp_path / "desired" / "all.yaml").write_text(documents + host)
    return root


def contents(root: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in sorted((root / "etc").iterdir())}


def test_looking_changing_and_looking_again_is_one_message(image: Path, messages: list[int]) -> None:
    project = Project(image.parent / "desired", image.parent / "state", registry())
    with project.pool() as pool:
        made = project.plan(pool=pool)
        looks = len(messages)
        assert project.apply(made, pool).ok
    assert contents(image) == dict.fromkeys("abc", "new")
    assert messages[:looks] == [0, 0], "metadata and digests, then the contents that differ"
    assert messages[looks:] == [3]
    assert project.plan().empty


@pytest.mark.parametrize("content", ["foreign", "", "new", None])
def test_what_somebody_else_changed_after_the_plan_is_noticed(
    image: Path, messages: list[int], content: str | None
) -> None:
    """Its own change is refused, or not needed any more; those beside it are done."""
    project = Project(image.parent / "desired", image.parent / "state", registry())
    with project.pool() as pool:
        made = project.plan(pool=pool)
        if content is None:
            (image / "etc" / "b").unlink()
        else:
            (image / "etc" / "b").write_text(content)
        looks = len(messages)
        result = project.apply(made, pool)
    ended = {address.partition("/etc/")[2].rstrip("]"): end for address, end in result.ended.items()}
    assert ended["a"].outcome is ended["c"].outcome is Outcome.DONE
    if content == "new":
        assert ended["b"].outcome is Outcome.DONE
        assert ended["b"].reason == "it is as desired already"
    else:
        assert ended["b"].outcome is Outcome.FAILED
        assert ended["b"].reason.startswith("it changed since the plan was made (")
    there = contents(image)
    assert (there["a"], there.get("b"), there["c"]) == ("new", content, "new")
    assert messages[looks] == 3, "it was sent, and the target did not carry it out"
    assert messages.count(2) == 1


def test_the_same_change_of_somebody_who_put_it_back_is_none(image: Path) -> None:
    """What is compared is what the probe reads: a file written anew with the old content has another time, so the
    target lets the tool decide; and the tool sees that nothing has changed."""
    project = Project(image.parent / "desired", image.parent / "state", registry())
    with project.pool() as pool:
        made = project.plan(pool=pool)
        (image / "etc" / "b").write_text("old")
        assert project.apply(made, pool).ok
    assert contents(image) == dict.fromkeys("abc", "new")
