"""The search itself, against oracles in Python: no server is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pglast.parser import parse_sql

from reconciler.tools.sqlreduce import Failure, NoError, Trial, Unparsable, Unstable, reduce
from reconciler.tools.sqlreduce.printing import to_sql
from reconciler.tools.sqlreduce.scope import required_text
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


@pytest.mark.parametrize(
    ("sql", "words", "expected"),
    [
        ("LOCK TABLE a, culprit IN SHARE ROW EXCLUSIVE MODE NOWAIT", ("LOCK",), "LOCK culprit"),
        ("DROP FUNCTION IF EXISTS f(int), culprit(text, int) CASCADE", ("FUNCTION",), "DROP FUNCTION culprit"),
        (
            "CREATE TABLE t (a int NOT NULL, b int REFERENCES culprit (c) ON DELETE SET NULL)",
            ("CREATE", "REFERENCES", "int"),
            "CREATE TABLE t (b int4 REFERENCES culprit)",
        ),
        ("CREATE POLICY p ON culprit AS RESTRICTIVE TO u", ("CREATE",), "CREATE POLICY p ON culprit"),
    ],
)
def test_words_without_a_node_go(sql: str, words: tuple[str, ...], expected: str) -> None:
    """Statements other than queries hold words that are no more than a number in the tree."""
    assert minimal(sql, "culprit", *words) == expected


def test_what_the_printer_does_not_know_is_no_candidate() -> None:
    """Of SIMILAR TO without its pattern the printer makes an exception of a kind of its own."""
    sql = "SELECT culprit(a SIMILAR TO 'x', b NOT SIMILAR TO 'y' ESCAPE 'z') FROM t"
    assert minimal(sql, "culprit(", "SIMILAR") == "SELECT culprit(NULL NOT SIMILAR TO NULL)"


def test_casts_are_printed_short() -> None:
    for sql in (
        "SELECT (a || b)::text",
        "SELECT f(a)::text::int",
        "SELECT (a + 1)::int::text || 'x'",
        "SELECT ARRAY[a]::text[]",
        "SELECT (CASE WHEN a THEN b END)::date",
    ):
        text = to_sql(parse_sql(sql))
        assert "CAST" not in text
        assert shape(parse_sql(text)) == shape(parse_sql(sql))
    signed = parse_sql("SELECT (-5)::d")  # and not -(5::d)
    assert shape(parse_sql(to_sql(signed))) == shape(signed)


@pytest.mark.parametrize(
    ("sql", "at", "sqlstate", "message", "expected"),
    [
        ("SELECT e.zz FROM emp e", "e.zz", "42703", "column e.zz does not exist", "e.zz"),
        ("SELECT e.zz FROM emp e GROUP BY 1", "e.zz", "42803", 'column "e.zz" must appear in', "zz"),
        ("SELECT f(a)", "f(", "42883", "function f(text) does not exist", "f"),
        ("SELECT a = ANY (b)", "=", "42883", "operator does not exist: int = text", ""),
        ("SELECT a && b", "&&", "42883", "operator does not exist: int && text", "&&"),
        ("SELECT x.a", "x.a", "42P01", 'missing FROM-clause entry for table "x"', ""),
    ],
)
def test_what_the_message_quotes_is_kept(sql: str, at: str, sqlstate: str, message: str, expected: str) -> None:
    """The server qualifies columns by itself in some messages, and knows more than one word for an operator."""
    target = Failure(message, sqlstate, position=sql.index(at) + 1, stage="parse", exact=True)
    assert required_text(sql, target) == expected


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


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select /* the */ ((( culprit ))) -- end", "SELECT culprit"),
        ("SELECT " + "(" * 400 + "culprit" + ")" * 400, "SELECT culprit"),
    ],
)
def test_an_input_whose_tree_is_minimal_loses_its_noise(sql: str, expected: str) -> None:
    fails = Words(lambda query: "culprit" in query and query[:4].lower() in sql.lower())
    found = reduce(sql, fails)
    assert (found.minimal, found.statistics.accepted) == (expected, 0)


def test_noise_that_is_needed_stays() -> None:
    """Where the message depends on the text, the input is returned as it is."""
    sql = "SELECT (((culprit)))"
    assert reduce(sql, Words(lambda query: "(((culprit)))" in query)).minimal == sql


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
        (
            "CREATE TRIGGER t AFTER INSERT ON a FOR EACH STATEMENT EXECUTE FUNCTION f()",
            "CREATE TRIGGER t AFTER INSERT ON a EXECUTE FUNCTION f()",
        ),
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
