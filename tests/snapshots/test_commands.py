"""`reconciler snapshots` where there is no host: wrong words, images, what the journal keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.cli.main import run
from reconciler.journal import records, runs
from reconciler.lab.image import make_image
from reconciler.lease import held
from reconciler.project import Project
from reconciler.tools.snapshots.session import Session, places

DOCUMENTS = """\
apiVersion: reconciler/v1
kind: Host
metadata: {name: db1}
spec: {connection: image, root: ../db1}
---
apiVersion: reconciler/v1
kind: Host
metadata: {name: db2}
spec: {connection: image, root: ../db1}
---
apiVersion: reconciler/v1
kind: Synology
metadata: {name: nas1}
spec: {url: "https://127.0.0.1:1", user: ops, password: {secretRef: env:NAS}}
---
apiVersion: reconciler/v1
kind: SnapshotPolicy
metadata: {name: data}
spec: {hosts: [db1], subvolumes: [/srv/data], schedule: {every: 1h}}
---
apiVersion: reconciler/v1
kind: SnapshotPolicy
metadata: {name: many}
spec: {hosts: [db1, db2], subvolumes: [/srv/a, /srv/b], schedule: {every: 1h}}
---
apiVersion: reconciler/v1
kind: SnapshotPolicy
metadata: {name: nas}
spec: {synology: nas1, shares: [photos], schedule: {every: 1h}}
"""

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    make_image(tmp_path / "db1", "db1")
    (tmp_path / "desired").mkdir()
    (tmp_path / "desired/all.yaml").write_text(DOCUMENTS)
    return tmp_path


@pytest.fixture
def command(repo: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def go(*words: str) -> tuple[int, str]:
        status = run(["snapshots", *words, "--path", str(repo / "desired"), "--state", str(repo / "state")])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return status, shown.out + shown.err

    return go


def test_wrong_words_say_what_there_is(command: Command) -> None:
    for words, message in (
        (["list", "nosuch"], "There is no SnapshotPolicy/nosuch. There are: data, many, nas."),
        (["list", "data", "--host", "db2"], "Nothing matches. There are: db1:/srv/data."),
        (["restore", "many", "latest"], "Say which one by --host and --subvolume. There are: db1:/srv/a, db1:/srv/b"),
        (["restore", "nas", "latest"], "is about a Synology. Restore in DSM"),
        (["drill", "nas"], "is about a Synology"),
        (["restore", "data", "x", "--in-place", "--to", "/x"], "--in-place and --to contradict each other."),
        (["restore", "data", "x", "--inside", "a/../b"], "--inside is no plain path."),
        (["restore", "data", "x", "--in-place"], "Nobody is here to confirm. Use --yes."),
    ):
        status, said = command(*words)
        assert status == 1, words
        assert message in said, said


def test_an_image_has_no_snapshots_and_this_machine_is_not_looked_at(command: Command, repo: Path) -> None:
    """Programs of an image that is managed from outside are those of this machine."""
    status, said = command("list", "data")
    assert status == 1
    assert "Nothing runs in an image, so it has no snapshots." in said
    status, said = command("drill", "data", "--output", "json")
    assert status == 1
    last = json.loads(said.splitlines()[-1])
    assert last["ok"] is False
    assert "Nothing runs in an image" in last["problems"][0]


def test_what_failed_is_in_the_journal_and_frees_the_lock(command: Command, repo: Path) -> None:
    assert command("restore", "data", "latest")[0] == 1
    project = Project(repo / "desired", repo / "state")
    (record,) = runs(project.store)
    assert (record.command, record.status) == ("snapshots restore", "failed")
    assert record.ended
    assert "data, db1:/srv/data" in str(record.summary)
    events = [(r.event, r.body.get("outcome")) for r in records(project.store, record.id)]
    assert events == [("intent", None), ("end", "failed")]
    assert not held(project.store)


def test_a_run_that_was_killed_can_be_shown_and_closed(
    command: Command, repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(repo / "desired", repo / "state")
    (place,) = places(project.validate(), "data")
    with project.pool() as pool:
        session = Session(project, pool, place, lambda title, answer: None)
        # As far as a kill lets it come.
        generator = session.run("drill")
        generator.__enter__()
        session._leases.free()
    (record,) = runs(project.store)
    assert record.ended is None
    options = ["--path", str(repo / "desired"), "--state", str(repo / "state")]
    assert run(["show", *options]) == 0
    assert "snapshots drill" in capsys.readouterr().out
    assert run(["resume", *options]) == 0
    (record,) = runs(Project(repo / "desired", repo / "state").store)
    assert record.status == "done"


def test_nothing_to_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(DOCUMENTS.split("---", maxsplit=1)[0])
    assert run(["snapshots", "list", "--path", str(tmp_path), "--state", str(tmp_path / "state")]) == 0
    assert "No snapshot policies." in capsys.readouterr().out
