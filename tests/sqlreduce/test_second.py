"""Queries of many kinds of statements and errors, on which the edits were also improved: a regression set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from reconciler.tools.sqlreduce import PostgresOracle, Trial, reduce
from reconciler.tools.sqlreduce.outline import outline
from tests.sqlreduce.minimal import neighbours
from tests.sqlreduce.server import FIXTURES, Server
from tests.sqlreduce.test_benchmark import connect, failure

pytestmark = pytest.mark.lab

CASES: list[dict[str, str]] = json.loads((FIXTURES / "second.json").read_text())["cases"]
STATE = """
SELECT string_agg(t, ' ' ORDER BY t) FROM (
  SELECT 'c' || oid || relname || relfilenode || coalesce(relacl::text, '') || relnatts AS t FROM pg_class
   WHERE relpersistence <> 't' AND relname NOT LIKE 'pg_toast%%'
  UNION ALL SELECT 'p' || oid || proname FROM pg_proc
  UNION ALL SELECT 'e' || enumlabel FROM pg_enum
  UNION ALL SELECT 'k' || oid || conname FROM pg_constraint
  UNION ALL SELECT 's' || setrole || setconfig::text FROM pg_db_role_setting
  UNION ALL SELECT 'x' || gid FROM pg_prepared_xacts
  UNION ALL SELECT 'q' || sequencename || coalesce(last_value, 0) FROM pg_sequences
  UNION ALL SELECT 'r' || relname || n FROM (
    SELECT 'dept' AS relname, (SELECT sum(hashtext(d::text)) FROM dept d) AS n
    UNION ALL SELECT 'emp', (SELECT sum(hashtext(e::text)) FROM emp e)
    UNION ALL SELECT 'orders', (SELECT sum(hashtext(o::text)) FROM orders o)
    UNION ALL SELECT 'base', (SELECT sum(hashtext(b::text)) FROM base b)
  ) rows
) state
"""


@pytest.fixture(scope="module")
def observer(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_any_failing_query_is_reduced(server: Server, observer: psycopg.Connection[Any], case: dict[str, str]) -> None:
    """The same error on a fresh connection, no single edit left, no query twice, and nothing that persists."""
    before = observer.execute(STATE).fetchone()
    trials: list[Trial] = []
    with PostgresOracle(server.dsn()) as oracle:
        found = reduce(case["sql"], oracle, on_trial=trials.append)
    assert observer.execute(STATE).fetchone() == before
    queries = [trial.query for trial in trials]
    assert len(queries) == len(set(queries))
    assert outline(found.minimal).nodes <= outline(case["sql"]).nodes
    target = (case["sqlstate"], case["message"])
    with connect(server) as connection:
        assert failure(connection, found.minimal) == target
    with connect(server) as connection:
        smaller = [text for text in sorted(neighbours(found.minimal)) if failure(connection, text) == target]
    assert smaller == []
