"""The benchmark on a real server: each result fails as the input does, and no single edit makes it smaller."""

from __future__ import annotations

import statistics
import time
from typing import Any

import psycopg
import pytest
from pglast.parser import parse_sql, split

from reconciler.tools.sqlreduce.session import Session
from tests.sqlreduce.conftest import CASES, Benchmark, mode
from tests.sqlreduce.minimal import neighbours
from tests.sqlreduce.server import Server

pytestmark = pytest.mark.lab

names = [case["file"].removeprefix("queries/") for case in CASES]


def failure(connection: psycopg.Connection[Any], sql: str) -> tuple[str | None, str]:
    """How a query fails in a transaction that is rolled back, as psycopg tells it."""
    try:
        connection.execute("BEGIN")
        for statement in split(sql):
            if statement.lstrip().upper().startswith("COPY"):
                with connection.cursor().copy(statement) as copy:
                    for _ in copy:
                        pass
            else:
                connection.execute(statement)
    except psycopg.Error as error:
        return error.sqlstate, (error.diag.message_primary or "").partition("\n")[0]
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK")
    return None, ""


def connect(server: Server) -> psycopg.Connection[Any]:
    deadline = time.monotonic() + 30
    while True:
        try:
            return psycopg.connect(server.dsn(), autocommit=True, options="-c statement_timeout=500ms")
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize("case", CASES, ids=names)
def test_result_fails_like_the_input_on_a_fresh_connection(benchmark: Benchmark, case: dict[str, Any]) -> None:
    """Who pastes the minimal query into psql sees the error of the long one."""
    minimal = benchmark[case].minimal
    if case["kind"] == "crash":
        with pytest.raises(psycopg.OperationalError), connect(benchmark.server) as connection:
            connection.execute(minimal)
        Session(benchmark.server.dsn(), 0.5, connect_within=30).close()
        return
    with connect(benchmark.server) as connection:
        assert failure(connection, minimal) == (case["sqlstate"], case["message"].partition("\n")[0])


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c["kind"] != "crash"],
    ids=[n for c, n in zip(CASES, names, strict=True) if c["kind"] != "crash"],
)
def test_no_single_edit_makes_the_result_smaller(benchmark: Benchmark, case: dict[str, Any]) -> None:
    """The result is 1-minimal by AST node."""
    reduction = benchmark[case]
    lead, newline, _ = reduction.minimal.partition("\n")
    target = (case["sqlstate"], case["message"].partition("\n")[0])
    smaller = []
    with connect(benchmark.server) as connection:
        for text in sorted(neighbours(reduction.minimal)):
            query = lead + newline + text[len(lead.strip()) :] if newline else text
            if failure(connection, query) == target:
                smaller.append(query)
    assert smaller == []


def test_the_crash_is_minimal_too(benchmark: Benchmark) -> None:
    """Of a query that crashes the server, nothing can go, either."""
    (case,) = [c for c in CASES if c["kind"] == "crash"]
    minimal = benchmark[case].minimal
    for text in sorted(neighbours(minimal)):
        with connect(benchmark.server) as connection:
            failure(connection, text)
            assert not connection.closed, text


def test_results_are_much_smaller_than_the_peers_with_fewer_queries(benchmark: Benchmark) -> None:
    """At least 45% fewer tokens, in the median and in total; each case counts."""
    ours = [benchmark[case].statistics for case in CASES]
    peers = [case["peer"] for case in CASES]
    assert len(ours) == len(CASES) == 76
    assert sum(s.tokens for s in ours) <= 0.55 * sum(p["tokens"] for p in peers)
    assert statistics.median(s.tokens for s in ours) <= 0.55 * statistics.median(p["tokens"] for p in peers)
    assert sum(s.executed for s in ours) < sum(p["queries"] for p in peers)


@pytest.mark.parametrize("case", CASES, ids=names)
def test_result_is_valid_sql_and_not_larger(benchmark: Benchmark, case: dict[str, Any]) -> None:
    reduction = benchmark[case]
    assert parse_sql(reduction.minimal)
    assert reduction.statistics.tokens <= case["tokens"]
    assert mode(case) in ("crash", "timeout") or reduction.error.sqlstate == case["sqlstate"]
