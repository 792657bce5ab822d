"""Store: nothing is made before it is needed; full disks, damage and newer versions are errors in words."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import StoreError
from reconciler.store import SCHEMA_VERSION, Store
from tests.simulated import Rig, World, server, thing


def test_reading_makes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    assert not store.exists
    with store.read() as db:
        assert db is None
    assert not (tmp_path / "state").exists()


def test_what_is_written_is_there_afterwards_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    store = Store(folder)
    with store.write() as db:
        db.execute("INSERT INTO run VALUES ('r', 'now', NULL, 'apply', 'running', '{}', NULL)")
    store.close()
    with Store(folder).read() as again:
        assert again is not None
        assert again.execute("SELECT id FROM run").fetchall() == [("r",)]
        assert again.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert again.execute("PRAGMA synchronous").fetchone() == (2,)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"


def test_a_transaction_that_raises_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.write() as db:
        db.execute("INSERT INTO run VALUES ('r', 'now', NULL, 'apply', 'running', '{}', NULL)")
        raise KeyboardInterrupt
    with store.read() as again:
        assert again is not None
        assert again.execute("SELECT count(*) FROM run").fetchone() == (0,)


def test_many_threads(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def insert(number: int) -> None:
        for i in range(20):
            with store.write() as db:
                db.execute(
                    "INSERT INTO run VALUES (?, 'now', NULL, 'apply', 'running', '{}', NULL)", (f"{number}-{i}",)
                )

    threads = [threading.Thread(target=insert, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as db:
        assert db is not None
        assert db.execute("SELECT count(*) FROM run").fetchone() == (160,)


@pytest.mark.parametrize("damage", [b"this is no database" * 100, b"\0" * 8192])
def test_a_damaged_file_is_an_error_in_words(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(damage)
    with (
        pytest.raises(StoreError, match=r"state\.db: .*Is the disk full, or the file damaged\?"),
        Store(tmp_path).write() as db,
    ):
        db.execute("SELECT * FROM run")


def test_a_file_damaged_in_the_middle(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for i in range(200):
        with store.write() as db:
            db.execute("INSERT INTO run VALUES (?, 'now', NULL, 'apply', 'running', ?, NULL)", (str(i), "x" * 500))
    store.close()
    content = bytearray((tmp_path / "state.db").read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    (tmp_path / "state.db").write_bytes(content)
    with pytest.raises(StoreError), Store(tmp_path).read() as again:
        assert again is not None
        again.execute("SELECT id, plan FROM run").fetchall()


def test_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    Store(tmp_path).write().__enter__()
    with sqlite3.connect(tmp_path / "state.db") as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with (
        pytest.raises(StoreError, match=r"is from a newer version of reconciler. Upgrade this one."),
        Store(tmp_path).read(),
    ):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match=r"the state folder .* cannot be written"),
        Store(tmp_path / "file" / "state").write(),
    ):
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "reconciler-test", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_a_full_disk_stops_the_apply_before_it_changes_anything(small_disk: Path) -> None:
    """Hostile input 25: what cannot be journalled is not done."""
    rig = Rig(small_disk / "state", World(), [server("s1"), thing("a", value="x")])
    made = rig.plan()
    assert rig.apply(made).ok
    rig.documents = [server("s1"), thing("a", value="y"), thing("b", value="y")]
    made = rig.plan()
    effects = len(rig.world.effects)
    (small_disk / "filler").write_bytes(b"")
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(b"x" * 4096)
    with pytest.raises(StoreError, match="Is the disk full"):
        for number in range(2, 60):
            rig.apply(made, f"run-{number}")
            rig.world.edit("s1", "a", {"value": "x"})
            effects = len(rig.world.effects)
    # Whatever was begun when the disk was full had its intent on disk before it.
    (small_disk / "filler").unlink()
    from reconciler import journal

    after = rig.reborn()
    open_runs = [r for r in journal.runs(after.store) if r.ended is None]
    intended = {e.address for r in open_runs for e in journal.records(after.store, r.id) if e.event == "intent"}
    done = {f"sim.item[{where}:{argv[1]}]" for where, argv in rig.world.effects[effects:]}
    assert done <= intended
    for record in open_runs:
        after.resume(record.id)
    assert after.apply(after.plan(), "run-last").ok
    assert after.plan().empty
