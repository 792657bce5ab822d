"""The search itself, against oracles in Python: no server is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pglast.parser import parse_sql

from reconciler.tools.sqlreduce import Failure, NoError, Trial, Unparsable, Unstable, reduce
from reconciler.tools.sqlreduce.printing import to_sql
from reconciler.tools.sqlreduce.tokens import without_noise
from reconciler.tools.sqlreduce.tree import count_nodes, shape


class Words:
    """An oracle: a query fails as long as a test says so."""

    batch = 1

    def __init__(self, fails: Callable[[str], bool]) -> None:
        self.fails = fails
        self.run: list[str] = []

    def start(self, query: str) -> Failure:
        if not self.fails(query):
            raise NoError("The query raises no error.")
        return Failure("it fails", "XX000")

    def first(self, queries: Sequence[str]) -> Sequence[Trial]:
        trials: list[Trial] = []
        for query in queries:
            self.run.append(query)
            trials.append(Trial(query, self.fails(query), None))
            if trials[-1].matched:
                break
        return trials

    def confirm(self, query: str) -> bool:
        return self.fails(query)


def minimal(sql: str, *words: str) -> str:
    return reduce(sql, Words(lambda query: all(word in query for word in words))).minimal


@pytest.mark.parametrize(
    ("sql", "word", "expected"),
    [
        ("SELECT a, culprit(b, c) FROM t WHERE x > 1 ORDER BY 2 LIMIT 3", "culprit", "SELECT culprit()"),
        ("SELECT a FROM t GROUP BY a HAVING count(*) > culprit", "culprit", "SELECT culprit"),
        ("SELECT a FROM t WINDOW w AS (PARTITION BY b ORDER BY culprit)", "culprit", "SELECT culprit"),
        ("SELECT a FROM t FOR UPDATE OF culprit NOWAIT", "culprit", "SELECT FOR UPDATE OF culprit"),
        ("SELECT GREATEST(1, culprit, 3) FROM t", "culprit", "SELECT culprit"),
        ("SELECT a FROM t GROUP BY GROUPING SETS ((a), (culprit))", "culprit", "SELECT culprit"),
        ("UPDATE t SET a = 1, b = culprit FROM u WHERE t.i = u.i", "culprit", "SELECT culprit"),
        (
            "WITH x AS (SELECT 1), y AS (SELECT culprit) DELETE FROM t USING x WHERE t.i = x.i",
            "culprit",
            "SELECT culprit",
        ),
        ("EXPLAIN (COSTS off) SELECT a, culprit FROM t", "culprit", "SELECT culprit"),
        ("PREPARE p AS SELECT a, culprit FROM t", "culprit", "SELECT culprit"),
        ("CREATE VIEW v AS SELECT a, culprit FROM t", "culprit", "SELECT culprit"),
        ("DECLARE c CURSOR FOR SELECT a, culprit FROM t", "culprit", "SELECT culprit"),
        ("COPY (SELECT a, culprit FROM t) TO STDOUT", "culprit", "SELECT culprit"),
        ("GRANT SELECT, INSERT ON a, culprit, b TO x, y WITH GRANT OPTION", "culprit", None),
        ("VACUUM (ANALYZE, VERBOSE) a, culprit, b", "culprit", "VACUUM culprit"),
        ("SELECT 1; SELECT culprit; SELECT 3", "culprit", "SELECT culprit"),
        ('SELECT a COLLATE "C" FROM s.t WHERE x IN (1, culprit)', "culprit", "SELECT culprit"),
        ("ALTER TABLE s.t ADD COLUMN a int, ADD COLUMN culprit text NOT NULL DEFAULT 'x'", "culprit", None),
        ("SELECT a FROM t UNION SELECT b FROM u EXCEPT SELECT culprit FROM v", "culprit", "SELECT culprit"),
        ("SELECT CASE WHEN a THEN b WHEN c THEN culprit END", "culprit", "SELECT culprit"),
    ],
)
def test_what_is_not_needed_goes(sql: str, word: str, expected: str | None) -> None:
    """Whatever clause holds the culprit, little else remains."""
    found = minimal(sql, word)
    if expected is None:
        assert word in found
        assert count_nodes(parse_sql(found)) <= 8
    else:
        assert found == expected


def test_bodies_of_functions_are_reduced() -> None:
    sql = (
        "CREATE FUNCTION f(a int, b text DEFAULT 'x') RETURNS int LANGUAGE sql STABLE AS "
        "$$ SELECT a + length(b), culprit FROM dept WHERE id = a ORDER BY budget $$"
    )
    assert minimal(sql, "CREATE FUNCTION", "culprit").endswith("$$SELECT culprit$$")


def test_blocks_are_reduced_by_statement() -> None:
    sql = "DO $$ DECLARE a int; BEGIN PERFORM 1; a := 2; PERFORM culprit(3); IF a > 1 THEN a := 3; END IF; END $$"
    found = minimal(sql, "BEGIN", "culprit", "END")
    assert "a :=" not in found
    assert "PERFORM 1" not in found


def test_merge_keeps_what_it_must() -> None:
    sql = (
        "MERGE INTO t USING (SELECT a, b FROM u WHERE c > 1) s ON t.i = s.a AND t.j > 0 "
        "WHEN MATCHED AND s.b > 1 THEN UPDATE SET x = 1, y = culprit WHEN NOT MATCHED THEN INSERT VALUES (1)"
    )
    assert minimal(sql, "MERGE", "culprit") == "MERGE INTO t USING u ON NULL WHEN MATCHED THEN UPDATE SET y = culprit"


def test_an_alias_goes_with_its_uses() -> None:
    assert minimal("SELECT x.a FROM s.t AS x, u AS y WHERE x.b = y.c", "a", "t", "WHERE") in (
        "SELECT a FROM t WHERE NULL",
        "SELECT FROM t WHERE a",
    )


def test_a_query_is_never_run_twice() -> None:
    oracle = Words(lambda query: "culprit" in query)
    found = reduce("SELECT a, b, culprit(a, b) FROM t, u WHERE a > b AND c = ANY (ARRAY[1, 2]) ORDER BY a", oracle)
    assert len(oracle.run) == len(set(oracle.run))
    assert found.statistics.executed == len(oracle.run) + 2


def test_an_input_that_cannot_shrink_is_returned_as_it_is() -> None:
    found = reduce("SELECT culprit", Words(lambda query: "culprit" in query))
    assert (found.minimal, found.statistics.accepted) == ("SELECT culprit", 0)


def test_the_pass_over_tokens_takes_what_edits_leave() -> None:
    oracle = Words(lambda query: "culprit" in query and "INSERT" in query)
    sql = "INSERT INTO t (culprit) SELECT 1, 2"
    assert len(reduce(sql, oracle, tokens=True).minimal) <= len(reduce(sql, oracle).minimal)


def test_an_error_that_does_not_come_back_is_told() -> None:
    class Fickle(Words):
        def confirm(self, query: str) -> bool:
            return False

    with pytest.raises(Unstable):
        reduce("SELECT a, culprit FROM t", Fickle(lambda query: "culprit" in query))


@pytest.mark.parametrize("depth", [200, 2000])
def test_deep_inputs_meet_no_recursion_limit(depth: int) -> None:
    """Operators, parentheses and subqueries nested far beyond Python's own limit."""
    operators = " || ".join(["'a'"] * depth) + " || culprit()"
    script = parse_sql(f"SELECT {operators}")
    assert shape(parse_sql(to_sql(script))) == shape(script)
    subqueries = "(SELECT " * depth + "culprit" + ")" * depth
    script = parse_sql(f"SELECT {subqueries}")
    assert shape(parse_sql(to_sql(script))) == shape(script)


def test_a_deep_query_is_reduced() -> None:
    sql = "SELECT " + " || ".join(["'a'"] * 400 + ["culprit"] + ["'b'"] * 400) + " FROM t"
    assert minimal(sql, "culprit") == "SELECT culprit"


def test_nesting_that_would_end_the_process_is_refused() -> None:
    """The parser itself would crash; that happens in another process."""
    with pytest.raises(Unparsable, match="nested too deeply"):
        minimal("SELECT " + "||".join(["culprit"] * 200_000), "culprit")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ((p)).zz FROM emp AS e INNER JOIN d ON a", "SELECT (p).zz FROM emp e JOIN d ON a"),
        ("GRANT ALL PRIVILEGES ON TABLE t TO u", "GRANT ALL ON t TO u"),
        ("SELECT (a + b) * c", "SELECT (a + b) * c"),
        ("SELECT 'x' AS \"order\"", "SELECT 'x' \"order\""),
    ],
)
def test_tokens_without_meaning_go_at_the_end(sql: str, expected: str) -> None:
    assert without_noise(sql) == expected
    assert shape(parse_sql(expected)) == shape(parse_sql(sql))


WORDS = st.sampled_from(["a", "b", "1", "'x'", "NULL", "f(a, culprit)", "culprit", "(SELECT b FROM u)", "a + 1"])


@given(
    targets=st.lists(WORDS, min_size=1, max_size=5),
    tables=st.lists(st.sampled_from(["t", "s.u", "v AS w"]), max_size=3),
    where=WORDS,
    order=WORDS,
)
def test_any_query_with_a_culprit_ends_at_the_culprit(
    targets: list[str], tables: list[str], where: str, order: str
) -> None:
    """Wherever the culprit stands and however often, one is left."""
    sql = f"SELECT {', '.join(targets)} {'FROM ' if tables else ''}{', '.join(tables)} WHERE {where} ORDER BY {order}"
    if "culprit" in sql:
        assert minimal(sql, "culprit") == "SELECT culprit"
