"""One PostgreSQL for all tests of this folder, and the reductions of the benchmark, made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.tools.sqlreduce import Match, PostgresOracle, Reduction, reduce
from tests.sqlreduce.server import FIXTURES, Server, binaries, running

CASES: list[dict[str, Any]] = json.loads((FIXTURES / "manifest.json").read_text())["cases"]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed: python -m tests.sqlreduce.prepare")
    with running() as found:
        yield found


class Benchmark:
    """Reduces a case when it is first asked for."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.found: dict[str, Reduction] = {}

    def __getitem__(self, case: dict[str, Any]) -> Reduction:
        name = case["file"]
        if name not in self.found:
            sql = (FIXTURES / name).read_text()
            with PostgresOracle(self.server.dsn(), match=Match.parse(mode(case))) as oracle:
                self.found[name] = reduce(sql, oracle)
        return self.found[name]


def mode(case: dict[str, Any]) -> str:
    """How a case is matched."""
    return str(case["kind"]) if case["kind"] in ("crash", "timeout") else "message"


@pytest.fixture(scope="session")
def benchmark(server: Server) -> Benchmark:
    return Benchmark(server)
