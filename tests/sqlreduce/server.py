"""A PostgreSQL of our own: in a temporary directory, as another user than root, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.ports import free_port

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sqlreduce"
ROLE = "bench_user"


def binaries() -> Path | None:
    """The newest server's programs; None if there is no server on this machine."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


@dataclass(frozen=True)
class Server:
    """A running server with the schema of the benchmark."""

    directory: Path
    port: int
    programs: Path
    user: str

    def dsn(self, role: str = ROLE, database: str = "bench") -> str:
        """How to connect over the socket."""
        return f"host={self.directory} port={self.port} user={role} dbname={database}"

    def ctl(self, *arguments: str) -> None:
        """Runs pg_ctl as the server's user."""
        subprocess.run(
            [
                *self._become(),
                str(self.programs / "pg_ctl"),
                "-D",
                str(self.directory / "data"),
                "-w",
                "-s",
                "-l",
                str(self.directory / "log"),
                *arguments,
            ],
            check=True,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            timeout=60,
        )

    def start(self) -> None:
        """Starts the server and waits for it."""
        self.ctl(
            "-o",
            f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c fsync=off "
            "-c max_prepared_transactions=5 -c logging_collector=off",
            "start",
        )

    def stop(self) -> None:
        """Stops the server at once."""
        self.ctl("-m", "immediate", "stop")

    def _become(self) -> list[str]:
        return ["setpriv", "--reuid", self.user, "--regid", self.user, "--init-groups"] if os.geteuid() == 0 else []


@contextmanager
def running() -> Iterator[Server]:
    """A server with the benchmark's database; stopped and removed at the end, whatever happens."""
    programs = binaries()
    if programs is None:
        raise RuntimeError("no PostgreSQL server is installed: python -m tests.sqlreduce.prepare")
    user = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        user = "postgres"
    directory = Path(tempfile.mkdtemp(prefix="sqlreduce-", dir="/tmp"))
    shutil.chown(directory, user)
    server = Server(directory, free_port(), programs, user)
    try:
        subprocess.run(
            [
                *server._become(),
                str(programs / "initdb"),
                "-D",
                str(directory / "data"),
                "-A",
                "trust",
                "-U",
                "postgres",
                "-N",
                "--locale",
                "C.UTF-8",
            ],
            check=True,
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        server.start()
        try:
            with psycopg.connect(server.dsn("postgres", "postgres"), autocommit=True) as connection:
                connection.execute("CREATE DATABASE bench")
            with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
                connection.execute((FIXTURES / "schema.sql").read_bytes())
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
