"""Clients and counters, in the tables of the old validation server, in SQLite or PostgreSQL.

SQLite runs with WAL and `synchronous=FULL`, PostgreSQL with `synchronous_commit` not off: an OTP that was accepted
stays used, whatever crashes.
"""

from __future__ import annotations

import contextlib
import importlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .token import Token

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS clients ("
    "id INT NOT NULL PRIMARY KEY, active BOOLEAN DEFAULT TRUE, created INT NOT NULL, "
    "secret VARCHAR(60) NOT NULL DEFAULT '', email VARCHAR(255), notes VARCHAR(100) DEFAULT '', "
    "otp VARCHAR(100) DEFAULT '')",
    "CREATE TABLE IF NOT EXISTS yubikeys ("
    "active BOOLEAN DEFAULT TRUE, created INT NOT NULL, modified INT NOT NULL, "
    "yk_publicname VARCHAR(16) NOT NULL PRIMARY KEY, yk_counter INT NOT NULL, yk_use INT NOT NULL, "
    "yk_low INT NOT NULL, yk_high INT NOT NULL, nonce VARCHAR(40) DEFAULT '', notes VARCHAR(100) DEFAULT '')",
)

_NEWER: Final = (
    "UPDATE yubikeys SET modified = %s, yk_counter = %s, yk_use = %s, yk_low = %s, yk_high = %s, nonce = %s "
    "WHERE yk_publicname = %s AND active AND (yk_counter < %s OR (yk_counter = %s AND yk_use < %s))"
)
_WAIT_SECONDS: Final = 5
_ALONE_SECONDS: Final = 60
_ALONE_KEY: Final = 0x6F747073
"""Of PostgreSQL's advisory locks: "otps" in ASCII."""


class DatabaseError(Exception):
    """The database cannot be reached, read or written. Never carries a secret."""


@dataclass(frozen=True)
class Client:
    """A client of the validation server: its secret in base64."""

    active: bool
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Counters:
    """The last OTP that was accepted of a YubiKey; -1 and -1 before the first."""

    active: bool
    counter: int
    use: int
    nonce: str = field(repr=False)


class Database:
    """A pool of connections; every method may be called by several threads at once.

    Args:
        url: `sqlite:/path/to/file`, or for PostgreSQL a URI (`postgresql://...`) or `postgresql:` and a connection
            string of libpq, which may be empty.
        most: connections at once.
        create: make the SQLite file if it is not there.
    """

    def __init__(self, url: str, *, most: int = 16, create: bool = False) -> None:
        self._dialect = _dialect(url, create)
        self._places = threading.BoundedSemaphore(most)
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()

    def prepare(self) -> None:
        """Make the tables if they are not there.

        Raises:
            DatabaseError: they are not there and cannot be made.
        """
        with self.transaction(alone=True) as execute:
            present = self._dialect.tables(execute)
            for name, statement in zip(("clients", "yubikeys"), TABLES, strict=True):
                # An old database may belong to somebody else, who lets us write rows and nothing more.
                if name not in present:
                    execute(statement)

    def is_prepared(self) -> bool:
        """Whether both tables are there. Writes nothing.

        Raises:
            DatabaseError: that cannot be found out.
        """
        if not self._dialect.exists():
            return False
        with self.transaction(writing=False) as execute:
            return self._dialect.tables(execute) >= {"clients", "yubikeys"}

    def client(self, number: int) -> Client | None:
        """A client by its id.

        Raises:
            DatabaseError
        """
        rows = self._read("SELECT active, secret FROM clients WHERE id = %s", number)
        return Client(bool(rows[0][0]), rows[0][1] or "") if rows else None

    def counters(self, public_id: str) -> Counters | None:
        """What is known of a YubiKey.

        Raises:
            DatabaseError
        """
        rows = self._read("SELECT active, yk_counter, yk_use, nonce FROM yubikeys WHERE yk_publicname = %s", public_id)
        return Counters(bool(rows[0][0]), rows[0][1], rows[0][2], rows[0][3] or "") if rows else None

    def accept(self, public_id: str, token: Token, nonce: str, now: int) -> bool:
        """Store the counters of an OTP, if they are newer than those there and the YubiKey is active.

        Of any number of calls at once with the same OTP exactly one gets True: the comparison and the change are one
        statement, and the number of rows that it changed decides.

        Raises:
            DatabaseError: nothing was stored, or it is not known whether it was.
        """
        counter, use = token.session, token.use
        arguments = (now, counter, use, token.low, token.high, nonce, public_id, counter, counter, use)
        with self.transaction() as execute:
            changed: int = execute(_NEWER, *arguments).rowcount
        return changed == 1

    @contextmanager
    def transaction(self, *, writing: bool = True, alone: bool = False) -> Iterator[Callable[..., Any]]:
        """`execute(sql, *arguments) -> cursor` in one transaction; `%s` stands for an argument.

        Args:
            writing: something may be changed.
            alone: wait until no other transaction says so, too, on whichever host: what is looked at first, to see
                whether it is there, is still so when it is made.

        Raises:
            DatabaseError: it was not committed, or nobody knows.
        """
        if not self._places.acquire(timeout=_WAIT_SECONDS):
            raise DatabaseError("the database is too busy")
        connection = None
        try:
            connection = self._take()
            self._dialect.begin(connection, writing)
            if alone:
                self._dialect.be_alone(connection)
            yield lambda sql, *arguments: self._dialect.execute(connection, sql, arguments)
            connection.commit()
        except self._dialect.errors as error:
            self._drop(connection)
            connection = None
            raise DatabaseError(self._dialect.reason(error)) from None
        except BaseException:
            self._drop(connection)
            connection = None
            raise
        finally:
            if connection is not None:
                self._idle.put(connection)
            self._places.release()

    def close(self) -> None:
        """Close all connections that nobody uses."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._drop(self._idle.get_nowait())

    def _read(self, sql: str, *arguments: Any) -> list[Any]:
        try:
            return self._read_once(sql, arguments)
        except DatabaseError:
            # The server was restarted since we last asked: all connections of that time are dead. Reading twice is
            # harmless; what writes is never tried again.
            self.close()
            return self._read_once(sql, arguments)

    def _read_once(self, sql: str, arguments: Sequence[Any]) -> list[Any]:
        with self.transaction(writing=False) as execute:
            rows: list[Any] = execute(sql, *arguments).fetchall()
            return rows

    def _take(self) -> Any:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._dialect.connect()

    def _drop(self, connection: Any) -> None:
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


class _Sqlite:
    """SQLite: one writer at a time, who waits for the others."""

    errors: tuple[type[BaseException], ...] = (sqlite3.Error,)

    def __init__(self, path: str, create: bool) -> None:
        self._path, self._create = path, create

    def connect(self) -> Any:
        mode = "rwc" if self._create else "rw"
        quoted = self._path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection = sqlite3.connect(
            f"file:{quoted}?mode={mode}",
            uri=True,
            timeout=_WAIT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        if self._create:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def exists(self) -> bool:
        return Path(self._path).exists()

    def begin(self, connection: Any, writing: bool) -> None:
        # Who begins by reading and writes later is refused if somebody else wrote in between; who waits first is not.
        connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")

    def be_alone(self, connection: Any) -> None:
        """Who writes is alone."""

    def execute(self, connection: Any, sql: str, arguments: Sequence[Any]) -> Any:
        return connection.execute(sql.replace("%s", "?"), arguments)

    def tables(self, execute: Callable[..., Any]) -> set[str]:
        return {row[0] for row in execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()}

    def reason(self, error: BaseException) -> str:
        return f"{self._path}: {error}"


class _Postgres:
    """PostgreSQL by psycopg or, where that is not installed, psycopg2."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        for name in ("psycopg", "psycopg2"):
            with contextlib.suppress(ImportError):
                self._driver = importlib.import_module(name)
                break
        else:
            raise DatabaseError("PostgreSQL needs the Debian package python3-psycopg or python3-psycopg2")
        self.errors: tuple[type[BaseException], ...] = (self._driver.Error,)

    def connect(self) -> Any:
        connection = self._driver.connect(self._conninfo, connect_timeout=_WAIT_SECONDS)
        cursor = connection.cursor()
        cursor.execute("SET statement_timeout = '5s'; SET lock_timeout = '5s'")
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.commit()
        return connection

    def exists(self) -> bool:
        return True

    def begin(self, connection: Any, writing: bool) -> None:
        """The driver begins by itself."""

    def be_alone(self, connection: Any) -> None:
        wait = f"SET LOCAL lock_timeout = '{_ALONE_SECONDS}s'; SET LOCAL statement_timeout = '{_ALONE_SECONDS}s'"
        connection.cursor().execute(wait)
        connection.cursor().execute("SELECT pg_advisory_xact_lock(%s)", (_ALONE_KEY,))

    def execute(self, connection: Any, sql: str, arguments: Sequence[Any]) -> Any:
        cursor = connection.cursor()
        cursor.execute(sql, tuple(arguments))
        return cursor

    def tables(self, execute: Callable[..., Any]) -> set[str]:
        # to_regclass finds what an unqualified name means here.
        found = execute("SELECT to_regclass('clients') IS NOT NULL, to_regclass('yubikeys') IS NOT NULL").fetchall()[0]
        return {name for name, there in zip(("clients", "yubikeys"), found, strict=True) if there}

    def reason(self, error: BaseException) -> str:
        # libpq quotes connection strings in some messages, and those may hold a password: the first line of what the
        # server says is enough, and connection errors get a name of their own.
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if state is None:
            return "PostgreSQL cannot be reached, or broke off"
        return f"PostgreSQL: {type(error).__name__} ({state})"


def _dialect(url: str, create: bool) -> _Sqlite | _Postgres:
    scheme, separator, rest = url.partition(":")
    if separator and scheme == "sqlite" and rest.startswith("/"):
        return _Sqlite(rest, create)
    if separator and scheme in ("postgresql", "postgres"):
        return _Postgres(url if rest.startswith("//") else rest)
    raise DatabaseError("the database must be sqlite:/path/to/file, postgresql://... or postgresql:dbname=...")
