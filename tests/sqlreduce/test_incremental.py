"""What the search keeps from tree to tree, and what it reads off the text, against the same made from scratch."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from pglast import ast
from pglast.parser import ParseError, parse_sql

from reconciler.tools.sqlreduce import Failure, Trial
from reconciler.tools.sqlreduce.edits import Edit, find_edits
from reconciler.tools.sqlreduce.outline import identifiers, invents, outline
from reconciler.tools.sqlreduce.printing import to_sql
from reconciler.tools.sqlreduce.rewrites import find_rewrites
from reconciler.tools.sqlreduce.search import KEYWORDS, Candidate, Counts, Search
from reconciler.tools.sqlreduce.tree import count_nodes, every, shape, walk
from tests.sqlreduce.conftest import CASES
from tests.sqlreduce.server import FIXTURES

QUERIES = {case["file"].removeprefix("queries/"): (FIXTURES / case["file"]).read_text() for case in CASES}
STEPS = 8

TRICKY = [
    "SELECT '{'",
    "SELECT '{\"a\": {}}', '{}', '[{}]', 'x{', '\"List\":', E'\\\\\"{\"'",
    'SELECT "{", a."{" FROM "{"',
    "SELECT 0, '', B'0', NULL, true",
    "SELECT 'ä'; SELECT 'ö' ;; SELECT 3 -- €",
    " /* x */ SELECT 1;",
    'SELECT "\\", "a""b".c FROM "\\", "a""b"',
    "SELECT a.b.c.d, x.*, (t).y FROM t",
    "SELECT (f(x)).y, (z).b FROM ROWS FROM (f(x) AS (a int), g(y))",
    "VALUES (1, NULL), (0, '')",
    "SELECT generate_series.a FROM generate_series(1, 2)",
    "SELECT e.a FROM d",
    "SELECT a",
    "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.b",
    "PREPARE p AS SELECT $1",
    "COPY t FROM STDIN; BEGIN; ROLLBACK TO x; COMMIT PREPARED 'TRANS_STMT_BEGIN'",
]


def dangling(script: Any) -> bool:
    """Whether a column names a table that the tree does not have, in so many words."""
    nodes = list(every(script))
    named = [n.fields for n in nodes if isinstance(n, ast.ColumnRef) and n.fields]
    columns = [fields for fields in named if isinstance(fields[0], ast.String)]
    tables: set[str | None] = {"excluded", "new", "old"}
    for node in nodes:
        for name in ("relname", "ctename", "aliasname", "name", "defname"):
            tables |= {getattr(node, name, None)} if isinstance(getattr(node, name, None), str) else set()
        tables |= {n.sval for n in getattr(node, "funcname", None) or () if isinstance(n, ast.String)}
    reads = any(type(n).__name__.startswith("Range") for n in nodes) or not isinstance(script[0].stmt, ast.SelectStmt)
    return any(
        fields[0].sval not in tables if len(fields) == 2 else len(fields) == 1 and not reads for fields in columns
    )


@pytest.mark.parametrize("sql", [*QUERIES.values(), *TRICKY], ids=[*QUERIES, *map(str, range(len(TRICKY)))])
def test_an_outline_says_what_the_tree_says(sql: str) -> None:
    """Quotes, braces and whole JSON documents in the strings of a query change nothing."""
    script, found = parse_sql(sql), outline(sql)
    assert found.nodes == count_nodes(script)
    assert found.dangling() == dangling(script)
    assert found.has("ParamRef") == any(isinstance(node, ast.ParamRef) for node in every(script))
    assert [s.kind for s in found.statements] == [type(raw.stmt).__name__ for raw in script]
    for statement, raw in zip(found.statements, script, strict=True):
        assert shape(parse_sql(statement.text)) == shape((ast.RawStmt(stmt=raw.stmt),))
        if isinstance(raw.stmt, ast.TransactionStmt) and raw.stmt.kind is not None:
            assert statement.transaction == raw.stmt.kind.name.removeprefix("TRANS_STMT_")


def test_an_outline_of_no_sql_is_an_error() -> None:
    with pytest.raises(ParseError):
        outline("SELECT FROM FROM")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a FROM t", False),
        ("SELECT a FROM u", True),
        ("SELECT 'u' FROM t", False),
        ("SELECT A FROM t", True),
        ("SELECT 'it''s u', a FROM t -- u", False),
        ("SELECT E'\\'' || u FROM t WHERE a = 'x'", True),
    ],
)
def test_invented_identifiers_are_found(sql: str, expected: bool) -> None:
    known = identifiers("SELECT a, b FROM t")
    assert invents(sql, known, known | KEYWORDS) == expected
    assert invents(sql, known, ()) == expected


class Chance:
    """An oracle that lets a part of all queries fail, always the same."""

    batch = 1

    def start(self, query: str) -> Failure:
        return Failure("it fails", "XX000")

    def first(self, queries: Sequence[str]) -> Sequence[Trial]:
        return [Trial(queries[0], zlib.crc32(queries[0].encode()) % 4 == 0, None)]

    def confirm(self, query: str) -> bool:
        return True


def content(edits: list[Edit]) -> list[tuple[Any, ...]]:
    return [
        (e.kind, e.key, e.odds, e.added, e.lone, *((p.node, p.order, p.end) for p in (*e.gone, *e.kept))) for e in edits
    ]


class Enough(Exception):
    """Ends a search."""


class Checked(Search):
    """A search that makes everything anew after each step, and compares."""

    steps = 0

    def _accept(self, won: Candidate) -> None:
        super()._accept(won)
        script = self.root.script
        fresh = walk(script)
        assert [(p.node, p.field, p.index, p.order, p.end) for p in self.places] == [
            (p.node, p.field, p.index, p.order, p.end) for p in fresh
        ]
        assert content(self._edits()) == content([*find_edits(self.root, fresh), *find_rewrites(self.root, fresh)])
        assert self.known is not None
        text = self.known.text
        assert text == to_sql(script)
        assert self.size.nodes == count_nodes(parse_sql(won.sql))
        self.steps += 1
        if self.steps == STEPS:
            raise Enough


@pytest.mark.parametrize("name", QUERIES)
def test_what_is_kept_from_tree_to_tree_stays_true(name: str) -> None:
    """Places, edits and texts of the parts that an accepted edit did not touch are the same as if made anew."""
    search = Checked(Chance(), QUERIES[name], Failure("it fails", "XX000"), lambda _: None, Counts())
    with contextlib.suppress(Enough):
        search.run()
    assert search.steps or search.counts.executed > 3
