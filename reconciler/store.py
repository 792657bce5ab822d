"""Where the tool keeps what helps it: one SQLite file with journal, runs, inventory and leases.

WAL with `synchronous=FULL`: a record that was committed survives a power cut. Losing the file loses no
infrastructure, only the knowledge of what may be pruned and resumed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from reconciler.errors import StoreError

SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE run (
    id TEXT PRIMARY KEY, started TEXT NOT NULL, ended TEXT, command TEXT NOT NULL, status TEXT NOT NULL,
    plan TEXT NOT NULL, summary TEXT
);
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL REFERENCES run(id), at TEXT NOT NULL,
    event TEXT NOT NULL, address TEXT, body TEXT NOT NULL
);
CREATE INDEX journal_run ON journal(run, address);
CREATE TABLE inventory (
    address TEXT PRIMARY KEY, type TEXT NOT NULL, target TEXT NOT NULL, key TEXT NOT NULL, spec TEXT NOT NULL,
    origin TEXT NOT NULL, created INTEGER NOT NULL, lifecycle TEXT NOT NULL, run TEXT NOT NULL, at TEXT NOT NULL,
    sent TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE lease (
    target TEXT PRIMARY KEY, holder TEXT NOT NULL, run TEXT NOT NULL, epoch INTEGER NOT NULL, expires REAL NOT NULL
);
"""
_UPGRADES = {1: "ALTER TABLE inventory ADD COLUMN sent TEXT NOT NULL DEFAULT '{}'"}
"""Version -> the statement that makes it the next one."""


class Store:
    """One SQLite file, safe to use from several threads and processes.

    Args:
        folder: the state folder; it is made when something is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "state.db"
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept here.

        Raises:
            StoreError: we may not look.
        """
        try:
            return self._file.exists()
        except OSError as error:
            raise StoreError(f"the state folder {self.folder} cannot be read: {error.strerror}.") from None

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection | None]:
        """A connection to look things up; `None` where nothing was ever kept.

        Raises:
            StoreError: the file is damaged or from a newer version.
        """
        if self._connection is None and not self.exists:
            yield None
            return
        with self._lock, _translated(self._file):
            yield self._open()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: on disk when the block ends, undone when it raises.

        Raises:
            StoreError: the file cannot be written (a full disk, for example), is damaged, or from a newer version.
        """
        with self._lock, _translated(self._file):
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                ignore = self.folder / ".gitignore"
                if not ignore.exists():
                    ignore.write_text("*\n")
                # Readable for the owner only, whoever made the folder; SQLite gives its other files the same mode.
                os.close(os.open(self._file, os.O_CREAT | os.O_WRONLY, 0o600))
            except OSError as error:
                raise StoreError(f"the state folder {self.folder} cannot be written: {error.strerror}.") from None
            connection = sqlite3.connect(self._file, timeout=30, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            self._migrate(connection)
            self._connection = connection
        return self._connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
        for older in range(version, SCHEMA_VERSION) if version else ():
            connection.execute(_UPGRADES[older])
        if version < SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
        if version > SCHEMA_VERSION:
            raise StoreError(f"{self._file} is from a newer version of reconciler. Upgrade this one.")


@contextlib.contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{file}: {error}. Is the disk full, or the file damaged?") from error
