"""Nothing persists, nothing hangs, and every refusal says why; each on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from reconciler.tools.sqlreduce import (
    Match,
    NoError,
    PostgresOracle,
    Reduction,
    Refused,
    ServerUnavailable,
    Trial,
    Unparsable,
    WrongTarget,
    reduce,
)
from tests.sqlreduce.server import Server, running

pytestmark = pytest.mark.lab


@pytest.fixture
def admin(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        yield connection


def run(
    server: Server, sql: str, *, match: str = "message", seen: list[Trial] | None = None, **options: Any
) -> Reduction:
    with PostgresOracle(server.dsn(), match=Match.parse(match), **options) as oracle:
        return reduce(sql, oracle, on_trial=(seen if seen is not None else []).append)


def value(connection: psycopg.Connection[Any], sql: str) -> Any:
    row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return row[0]


def test_writes_are_rolled_back(server: Server, admin: psycopg.Connection[Any]) -> None:
    """A DELETE that succeeds as a candidate deletes nothing."""
    before = value(admin, "SELECT count(*) FROM lines")
    found = run(
        server,
        "DELETE FROM lines WHERE qty > 0; INSERT INTO base SELECT 1, 'x' FROM emp; "
        "SELECT id, 1 / (id - 3) FROM base WHERE id > 0",
    )
    assert found.minimal == "SELECT 1 / (id - 3) FROM base"
    assert value(admin, "SELECT count(*) FROM lines") == before


def test_sequences_do_not_advance(server: Server, admin: psycopg.Connection[Any]) -> None:
    """PostgreSQL does not roll back nextval, so the sequence itself is put aside."""
    admin.execute("SELECT setval('orders_id_seq', 500)")
    seen: list[Trial] = []
    found = run(
        server,
        "INSERT INTO orders (emp_id, total) SELECT id, 1 / (id - 30) FROM emp WHERE nextval('orders_id_seq') > 0",
        seen=seen,
    )
    assert found.error.message == "division by zero"
    assert len(seen) > 5
    assert admin.execute("SELECT last_value, is_called FROM orders_id_seq").fetchone() == (500, True)


def test_setval_does_not_persist(server: Server, admin: psycopg.Connection[Any]) -> None:
    admin.execute("SELECT setval('orders_id_seq', 500)")
    found = run(server, "SELECT setval('orders_id_seq', 900), 1 / (id - 3) FROM emp")
    assert found.minimal == "SELECT 1 / (id - 3) FROM emp"
    assert value(admin, "SELECT last_value FROM orders_id_seq") == 500


def test_a_sequence_of_others_is_not_touched_unless_asked(server: Server, admin: psycopg.Connection[Any]) -> None:
    """Only its owner can put a sequence aside; so the query is refused, and the sequence named."""
    admin.execute("CREATE SEQUENCE theirs; GRANT ALL ON SEQUENCE theirs TO bench_user")
    try:
        sql = "SELECT nextval('theirs'), 1 / (id - 3) FROM emp"
        with pytest.raises(Refused, match=r"public\.theirs.*--advance-sequences"):
            run(server, sql)
        assert admin.execute("SELECT last_value, is_called FROM theirs").fetchone() == (1, False)
        assert run(server, sql, advance_sequences=True).minimal == "SELECT 1 / (id - 3) FROM emp"
    finally:
        admin.execute("DROP SEQUENCE theirs")


def test_commit_in_the_input_commits_nothing(server: Server, admin: psycopg.Connection[Any]) -> None:
    """BEGIN and COMMIT are left out, and the result says so."""
    found = run(server, "BEGIN; CREATE TABLE leaked (i int); COMMIT; SELECT 1 / 0, 2")
    assert found.minimal == "SELECT 1 / 0"
    assert len(found.left_out) == 2
    assert "COMMIT" in found.left_out[1]
    assert value(admin, "SELECT to_regclass('leaked')") is None


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE leaked (i int); PREPARE TRANSACTION 'x'",
        "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'",
        "BEGIN; COMMIT",
        "COPY emp TO '/tmp/leaked'",
        "COPY (SELECT 1) TO PROGRAM 'touch /tmp/leaked'",
        "COPY base FROM PROGRAM 'echo 1'",
    ],
)
def test_what_outlives_a_rollback_is_refused(server: Server, admin: psycopg.Connection[Any], sql: str) -> None:
    seen: list[Trial] = []
    with pytest.raises(Refused):
        run(server, sql, seen=seen)
    assert seen == []
    assert value(admin, "SELECT count(*) FROM pg_prepared_xacts") == 0
    assert value(admin, "SELECT to_regclass('leaked')") is None


def test_commit_inside_a_block_commits_nothing(server: Server, admin: psycopg.Connection[Any]) -> None:
    found = run(server, "CREATE TABLE leaked (i int); DO $$ BEGIN COMMIT; PERFORM 1; END $$")
    assert found.error.message == "invalid transaction termination"
    assert value(admin, "SELECT to_regclass('leaked')") is None


def test_a_quote_cannot_smuggle_a_commit(server: Server, admin: psycopg.Connection[Any]) -> None:
    """Where backslashes escape, the server would read another text than the parser: it is told not to."""
    admin.execute("ALTER ROLE bench_user SET standard_conforming_strings = off")
    try:
        run(server, r"SELECT 1 / 0, 'a\'; CREATE TABLE leaked (i int); COMMIT; --'")
        assert value(admin, "SELECT to_regclass('leaked')") is None
    finally:
        admin.execute("ALTER ROLE bench_user RESET standard_conforming_strings")


def test_an_error_that_shows_early_runs_nothing(server: Server) -> None:
    """A missing column shows while parsing: no candidate is executed, so a function in it is never called."""
    with PostgresOracle(server.dsn()) as oracle:
        reduce("SELECT nosuch, loud(NULL) FROM emp", oracle)
        assert oracle.sessions[0].stage == "parse"
    with PostgresOracle(server.dsn()) as oracle:
        reduce("SELECT 1 / 0, loud(NULL) FROM emp", oracle)
        assert oracle.sessions[0].stage == "plan"


def test_candidates_cannot_write_unless_they_must(server: Server) -> None:
    with PostgresOracle(server.dsn()) as oracle:
        reduce("SELECT 1 / (id - 3) FROM emp", oracle)
        assert oracle.sessions[0].begin == (b"BEGIN TRANSACTION READ ONLY",)


def test_read_only_never_writes(server: Server) -> None:
    """With --read-only an error behind a write is not reachable, which is said."""
    with pytest.raises(WrongTarget, match="needs to write"):
        run(server, "INSERT INTO base SELECT 1 / (id - 3) FROM emp", read_only=True)


def test_no_error(server: Server) -> None:
    with pytest.raises(NoError):
        run(server, "SELECT 1")


@pytest.mark.parametrize("sql", ["SELEC 1", "", "  -- nothing", "SELECT 'open", "SELECT nosuch\0, 1"])
def test_unparsable(server: Server, sql: str) -> None:
    with pytest.raises(Unparsable):
        run(server, sql)


def test_timeout_is_no_silent_target(server: Server) -> None:
    """The statement timeout hides the real error; only --match timeout reduces the slowness itself."""
    with pytest.raises(WrongTarget, match="--match timeout"):
        run(server, "SELECT pg_sleep(9), 1 / (id - 3) FROM emp", timeout=0.1, match="sqlstate")
    assert run(server, "SELECT 1, pg_sleep(9) FROM base", timeout=0.1, match="timeout").minimal == "SELECT pg_sleep(9)"


def test_slow_candidates_are_cut_short(server: Server) -> None:
    """What takes much longer than the input is not waited for, so that many of them cost little."""
    sql = (
        "WITH RECURSIVE c(n) AS (SELECT 5 UNION ALL SELECT n - 1 FROM c WHERE n > -3) "
        "SELECT n, 100 / n AS q FROM c WHERE n IS NOT NULL ORDER BY n"
    )
    with PostgresOracle(server.dsn()) as oracle:
        found = reduce(sql, oracle)
        assert oracle.sessions[0].timeout < oracle.timeout
        assert oracle.grace <= 0  # one was given all of its time, and no more
    assert found.minimal == "WITH RECURSIVE c(n) AS (SELECT 5 UNION SELECT n - 1 FROM c) SELECT 100 / n FROM c"


def test_a_slow_error_is_found_all_the_same(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """If what was cut short fails like the input with more time, all others get this time, too."""
    monkeypatch.setattr("reconciler.tools.sqlreduce.postgres.SLOWER", 0)
    monkeypatch.setattr("reconciler.tools.sqlreduce.postgres.SOON", 0.01)
    found = run(server, "SELECT id, pg_sleep(0.05)::text::int, v FROM base ORDER BY id", timeout=2.0)
    assert found.minimal == "SELECT pg_sleep(1)::text::int4"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW vv AS SELECT id, nosuch FROM emp",
        "COPY (SELECT nosuch FROM emp) TO STDOUT",
        "CREATE TEMP TABLE tt AS SELECT id FROM emp; SELECT count(*), nosuch FROM tt GROUP BY nosuch",
    ],
)
def test_names_may_be_looked_up_late(server: Server, sql: str) -> None:
    """Where a statement is no query, its names are looked up while it runs."""
    assert run(server, sql).minimal == "SELECT nosuch"


def test_a_lock_of_others_is_no_target(server: Server, admin: psycopg.Connection[Any]) -> None:
    with admin.transaction():
        admin.execute("LOCK TABLE base IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(WrongTarget, match="lock"):
            run(server, "SELECT 1 / 0 FROM base")


def test_a_crash_is_reduced_only_if_asked(server: Server) -> None:
    with pytest.raises(WrongTarget, match="--match crash"):
        run(server, "SELECT bench_crash(5, 1)")


def test_an_unreachable_server(server: Server) -> None:
    with pytest.raises(ServerUnavailable):
        PostgresOracle(f"host={server.directory} port=1 dbname=bench")
    with pytest.raises(ServerUnavailable):
        PostgresOracle("no such = parameter")


def test_a_server_that_vanishes_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """No endless retry: when the server does not come back, that is said."""
    monkeypatch.setattr("reconciler.tools.sqlreduce.postgres.PATIENCE", 1.0)
    with running() as doomed:
        stopper = threading.Timer(0.5, doomed.stop)
        stopper.start()
        start = time.monotonic()
        sql = "SELECT pg_sleep(0.01), 1 / (id - 3), " + ", ".join(f"id + {n}" for n in range(300)) + " FROM emp"

        def until_it_is_gone() -> None:
            while time.monotonic() - start < 60:
                run(doomed, sql)

        with pytest.raises(ServerUnavailable):
            until_it_is_gone()
        stopper.join()
        doomed.start()


def test_session_state_does_not_leak_into_the_next_candidate(server: Server) -> None:
    """PREPARE survives a rollback; it is taken away after each candidate."""
    found = run(server, "PREPARE p AS SELECT 1 / 0, 2; EXECUTE p")
    assert found.error.message == "division by zero"


def test_parallel_jobs_find_a_minimal_query_too(server: Server) -> None:
    found = run(server, "SELECT id, name, 1 / (id - 3) FROM emp WHERE id > 0 AND name <> 'x' ORDER BY 2", jobs=3)
    assert found.minimal == "SELECT 1 / (id - 3) FROM emp"


@pytest.mark.parametrize("whose", ["idle", "all"])
def test_connections_that_others_end_do_no_harm(server: Server, admin: psycopg.Connection[Any], whose: str) -> None:
    """Neither the one that waits for the last check, nor the one in use between two candidates."""
    trials: list[Trial] = []

    def interfere(trial: Trial) -> None:
        trials.append(trial)
        if len(trials) == 4:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'reconciler sqlreduce' AND (%s = 'all' OR query = '')",
                (whose,),
            )

    sql = "SELECT e.id, 1 / (e.id - 3), d.name FROM emp e JOIN dept d ON d.id = e.dept_id WHERE e.salary > 0 ORDER BY 1"
    undisturbed = run(server, sql).minimal
    with PostgresOracle(server.dsn()) as oracle:
        found = reduce(sql, oracle, on_trial=interfere)
    assert len(trials) > 4
    assert found.minimal == undisturbed
    assert oracle.losses <= 1


def test_work_goes_on_while_the_server_computes(server: Server) -> None:
    """Candidates made ahead are those that would be made later: the queries and the result are the same."""

    class Alone(PostgresOracle):
        def first(self, queries: Sequence[str]) -> Sequence[Trial]:
            self.meanwhile = lambda: False
            return super().first(queries)

    sql = (
        "SELECT e.id, count(*) OVER (PARTITION BY d.id), (SELECT max(x.id) FROM emp x WHERE x.dept_id = d.id) "
        "FROM emp e JOIN dept d ON d.id = e.dept_id WHERE e.salary / (e.id - 3) > 0 AND d.name <> 'x' "
        "AND e.name LIKE 'emp%' ORDER BY e.id, d.name LIMIT 10"
    )
    ahead: list[Trial] = []
    found = run(server, sql, seen=ahead)
    alone: list[Trial] = []
    with Alone(server.dsn()) as oracle:
        assert reduce(sql, oracle, on_trial=alone.append).minimal == found.minimal
    assert [trial.query for trial in ahead] == [trial.query for trial in alone]
