"""`reconciler sqlreduce` as people call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sqlreduce.server import Server

EXAMPLE = (
    "select pg_database.reltuples / 1000 from pg_database, pg_class where 0 < pg_database.reltuples / 1000 "
    "order by 1 desc limit 10"
)


def call(*arguments: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return subprocess.run(
        [sys.executable, "-c", "import sys; from reconciler.cli.main import main; main()", "sqlreduce", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**kept, **environment},
    )


@pytest.mark.lab
def test_the_well_known_example(server: Server) -> None:
    done = call("--dsn", server.dsn(), EXAMPLE)
    assert done.returncode == 0, done.stderr
    minimal, _, pretty = done.stdout.partition("\n\nPretty-printed minimal query:\n")
    assert minimal == "Minimal query yielding the same error:\nSELECT pg_database.reltuples FROM pg_database"
    assert pretty == "SELECT pg_database.reltuples\nFROM pg_database\n"
    assert "ERROR:  column pg_database.reltuples does not exist" in done.stderr
    for word in ("Seen: ", "Bytes", "Iterations: ", "Runtime: ", "q/s"):
        assert word in done.stderr


@pytest.mark.lab
def test_the_trace_shows_each_attempt_with_its_mark(server: Server) -> None:
    """LIMIT, ORDER BY, the target list, FROM entries and operands in turn; where one failed, the other error."""
    done = call("--trace", "--dsn", server.dsn(), EXAMPLE, NO_COLOR="1")
    lines = done.stderr.splitlines()
    text = "SELECT pg_database.reltuples / 1000 FROM pg_database, pg_class WHERE 0 < pg_database.reltuples / 1000"
    steps = [
        f"{text} ORDER BY 1 DESC ✔",
        f"{text} ✔",
        "SELECT FROM pg_database, pg_class WHERE 0 < pg_database.reltuples / 1000 ✔",
        'SELECT WHERE 0 < pg_database.reltuples / 1000 ✘ ERROR:  missing FROM-clause entry for table "pg_database"',
        "SELECT FROM pg_class WHERE 0 < pg_database.reltuples / 1000 ✘ ERROR:  "
        'missing FROM-clause entry for table "pg_database"',
        "SELECT FROM pg_database WHERE 0 < pg_database.reltuples / 1000 ✔",
        "SELECT FROM pg_database WHERE pg_database.reltuples ✔",
    ]
    places = [lines.index(step) for step in steps]
    assert places == sorted(places)
    assert "\033" not in done.stderr


@pytest.mark.lab
def test_json_is_one_object(server: Server) -> None:
    done = call("--output", "json", "--trace", "-", "-d", server.dsn(), text="SELECT 1, nosuch, 2 FROM emp\n")
    found = json.loads(done.stdout)
    assert found["query"] == "SELECT 1, nosuch, 2 FROM emp\n"
    assert found["minimal"] == "SELECT nosuch"
    assert found["error"] == {"sqlstate": "42703", "message": 'column "nosuch" does not exist'}
    assert set(found["stats"]) == {"executed", "accepted", "seconds", "bytes", "tokens", "nodes"}
    assert (found["stats"]["bytes"], found["stats"]["tokens"], found["stats"]["nodes"]) == (13, 2, 5)


@pytest.mark.lab
def test_libpq_environment_and_file(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "query.sql"
    path.write_text("SELECT id, 1 / 0 FROM emp;\n")
    done = call(
        "-f", str(path), PGHOST=str(server.directory), PGPORT=str(server.port), PGUSER="bench_user", PGDATABASE="bench"
    )
    assert done.returncode == 0, done.stderr
    assert "\nSELECT 1 / 0\n" in done.stdout


@pytest.mark.lab
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("sqlstate", "SELECT nosuch"),
        ("location", "SELECT nosuch"),
        ("regex=nosuch", "SELECT nosuch"),
        ("message", "SELECT e.nosuch FROM emp e"),
    ],
)
def test_ways_to_match(server: Server, rule: str, expected: str) -> None:
    done = call("--match", rule, "-d", server.dsn(), "--output", "json", "SELECT e.id, e.nosuch FROM emp AS e")
    assert json.loads(done.stdout)["minimal"] == expected


@pytest.mark.lab
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["SELECT 1"], 3, "raises no error"),
        (["SELEC 1"], 4, "does not parse"),
        (["--timeout", "50ms", "SELECT pg_sleep(9)"], 5, "--match timeout"),
        (["--match", "crash", "SELECT 1 / 0"], 5, "not with a crash"),
        (["--read-only", "INSERT INTO base SELECT 1 / (id - 3) FROM emp"], 5, "needs to write"),
        (["PREPARE TRANSACTION 'x'"], 7, "refused"),
    ],
)
def test_each_failure_has_a_message_and_a_status(
    server: Server, arguments: list[str], status: int, message: str
) -> None:
    done = call("--dsn", server.dsn(), *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    done = call("--dsn", server.dsn(), "--output", "json", *arguments)
    assert message in json.loads(done.stdout)["problems"][0]["message"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--dsn", "host=127.0.0.1 port=1", "SELECT 1"], 6, "Cannot connect"),
        (["--dsn", "nonsense", "SELECT 1"], 6, "connection string"),
        (["--match", "nothing", "SELECT 1"], 1, "unknown way to match"),
        (["--match", "regex=(", "SELECT 1"], 1, "does not compile"),
        (["--timeout", "soon", "SELECT 1"], 1, "no time limit"),
        (["-f", "/nonexistent", "SELECT 1"], 1, "not both"),
        (["-f", "/nonexistent"], 1, "Cannot read /nonexistent"),
    ],
)
def test_wrong_usage_needs_no_server(arguments: list[str], status: int, message: str) -> None:
    done = call(*arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.lab
def test_escape_sequences_of_a_query_do_not_reach_the_terminal(server: Server) -> None:
    done = call("--trace", "--dsn", server.dsn(), "SELECT '\033[31mred\033[0m'::int, 2")
    assert done.returncode == 0
    assert "\033" not in done.stdout + done.stderr
