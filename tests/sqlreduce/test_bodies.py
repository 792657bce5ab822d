"""Bodies of functions and DO blocks: shorter ones are proposed only where their own parser allows it."""

from __future__ import annotations

import pytest
from pglast.parser import parse_sql

from reconciler.tools.sqlreduce.bodies import is_body, language, parser, shorter_bodies, statements
from reconciler.tools.sqlreduce.tree import Place, walk
from tests.sqlreduce.test_reduce import minimal


def body(sql: str) -> Place:
    (found,) = filter(is_body, walk(parse_sql(sql)))
    return found


def proposed(sql: str) -> set[str]:
    """The shorter bodies that may cost a query, without regard to space."""
    place = body(sql)
    sound = parser(place)
    assert sound is not None
    return {" ".join(text.split()) for text in shorter_bodies(place, lambda _: ()) if sound(text)}


def test_what_the_language_cannot_parse_is_not_proposed() -> None:
    found = proposed("DO $$ DECLARE a int; BEGIN a := 1; PERFORM f(a); END $$")
    assert "DECLARE a int; BEGIN PERFORM f(a); END" in found
    assert "BEGIN a := 1; PERFORM f(a); END" not in found  # what is a?
    assert not any(text.endswith("PERFORM f(a);") for text in found)


def test_what_is_around_a_statement_goes() -> None:
    found = proposed("DO $$ BEGIN IF x() > 1 THEN LOOP PERFORM f(); END LOOP; END IF; END $$")
    assert "BEGIN LOOP PERFORM f(); END LOOP; END" in found
    assert "BEGIN IF x() > 1 THEN PERFORM f(); END IF; END" in found


@pytest.mark.parametrize(
    ("head", "text", "expected"),
    [
        ("FUNCTION f(a int) RETURNS void", "BEGIN PERFORM a; RETURN; END", "BEGIN RETURN; END"),
        ("FUNCTION f(a int, OUT b int)", "BEGIN PERFORM a; b := a; RETURN; END", "BEGIN b := a; RETURN; END"),
        ("FUNCTION f() RETURNS SETOF emp", "BEGIN PERFORM 1; RETURN QUERY SELECT 1; END", "BEGIN PERFORM 1; END"),
        ("FUNCTION f() RETURNS TABLE (i int)", "BEGIN PERFORM 1; RETURN NEXT; END", "BEGIN RETURN NEXT; END"),
        ("FUNCTION f() RETURNS trigger", "BEGIN NEW.v := 1; NEW.w := 2; RETURN NEW; END", "BEGIN NEW.v := 1; END"),
        ("PROCEDURE f(INOUT a int)", "BEGIN a := 1; COMMIT; RETURN; END", "BEGIN a := 1; COMMIT; END"),
    ],
)
def test_the_parser_knows_the_function_around(head: str, text: str, expected: str) -> None:
    """Each body is without errors, so only bodies without errors are proposed."""
    sql = f"CREATE {head} LANGUAGE plpgsql AS $$ {text} $$"
    found = proposed(sql)
    assert expected in found
    assert "BEGIN" not in found
    assert "END" not in found


def test_a_body_that_does_not_parse_keeps_its_error() -> None:
    """The error may be the one that is looked for."""
    found = proposed("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT a, b FROM t WHERE AND c $$")
    assert "WHERE AND c" not in found  # another error
    assert "SELECT a FROM t WHERE AND c" in found
    assert "SELECT WHERE AND c" in found


def test_other_languages_are_left_alone() -> None:
    place = body("CREATE FUNCTION f() RETURNS int LANGUAGE plpython3u AS $$ import os; return 1; return 2 $$")
    assert language(place) == "plpython3u"
    assert parser(place) is None
    assert statements(place) == ()


def test_a_statement_of_a_function_may_do_alone() -> None:
    sql = "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS $$ SELECT 1; SELECT a, culprit FROM t WHERE i = a $$"
    assert minimal(sql, "culprit") == "SELECT culprit"


def test_loops_and_conditions_go() -> None:
    sql = (
        "DO $$ DECLARE r record; n int := 0; BEGIN FOR r IN SELECT id FROM emp WHERE id > 3 ORDER BY id LOOP "
        "IF r.id > 3 THEN n := n + culprit(r.id); END IF; END LOOP; RAISE NOTICE '%', n; END $$"
    )
    assert minimal(sql, "DO", "culprit(") == "DO $$DECLARE n int ; BEGIN n := culprit(); END$$"


def test_a_long_body_takes_few_queries() -> None:
    """Halves and quarters of the statements go first."""
    from reconciler.tools.sqlreduce import reduce
    from tests.sqlreduce.test_reduce import Words

    steps = " ".join(f"IF a > {n} THEN PERFORM f{n}(a); ELSE DELETE FROM t{n} WHERE i = a; END IF;" for n in range(60))
    sql = f"CREATE FUNCTION f(a int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN {steps} PERFORM culprit(a); END $$"
    oracle = Words(lambda query: "plpgsql" in query and "culprit" in query)
    assert len(reduce(sql, oracle).minimal) < 120
    assert len(oracle.run) < 150
