"""Installations that are gone at the end, and one PostgreSQL for all tests of this folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from reconciler.tools.otp.software_yubikey import SoftwareYubiKey
from tests.otp.installation import Installation
from tests.sqlreduce.server import Server, binaries, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A real server."""
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed: python -m tests.sqlreduce.prepare")
    with running() as found:
        yield found


_numbers = itertools.count(1)


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Installation]]:
    """Makes installations: `make()` with SQLite, `make("postgresql")` with a database of its own there."""
    made: list[Installation] = []

    def new(kind: str = "sqlite", **more: object) -> Installation:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        url = ""
        if kind == "postgresql":
            server: Server = request.getfixturevalue("postgres")
            name = f"ykval{next(_numbers)}"
            with psycopg.connect(server.dsn("postgres", "postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            url = "postgresql:" + server.dsn("postgres", name)
        made.append(Installation(folder, url, dict(more)))
        return made[-1]

    yield new
    for installation in made:
        installation.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, make: Callable[..., Installation]) -> Installation:
    """An installation, once with each database."""
    return make(request.param)


@pytest.fixture
def key() -> SoftwareYubiKey:
    """A YubiKey."""
    return SoftwareYubiKey.new()
