"""Reconciler's sqlreduce and Debian's package of the same name, side by side on one server, as a table.

python -m tests.bench.sqlreduce [--only 003,017] [--ours] [--commands] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pglast.error import Error as PglastError

from reconciler.tools.sqlreduce import Match, PostgresOracle, SqlReduceError, reduce
from reconciler.tools.sqlreduce.session import Session
from reconciler.tools.sqlreduce.tree import measure
from tests.bench import as_installed
from tests.sqlreduce.server import FIXTURES, Server, running

PEER_LIMIT = 300  # seconds after which a case of the peer counts as failed


@dataclass
class Row:
    """One tool's result for one case.

    Attributes:
        seconds: of the reduction, without the start of a process; with --commands of the whole process.
        cpu: seconds of CPU of the client, counted in the same way; the peer's always with the start of its process.
    """

    query: str = ""
    tokens: int = 0
    nodes: int = 0
    executed: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    problem: str = ""


def sized(row: Row) -> Row:
    """Adds the sizes of the result."""
    try:
        size = measure(row.query)
    except PglastError as error:
        row.problem = row.problem or f"result does not parse: {error}"
        return row
    row.tokens, row.nodes = size.tokens, size.nodes
    return row


def ours(server: Server, case: dict[str, Any], sql: str) -> Row:
    """Runs our reduction; its result is checked on a fresh connection by `confirm`."""
    row = Row()
    start, cpu = time.monotonic(), time.process_time()
    try:
        mode = mode_of(case)
        with PostgresOracle(server.dsn(), match=Match.parse(mode)) as oracle:
            reduction = reduce(sql, oracle)
            row.query, row.executed = reduction.minimal, reduction.statistics.executed
            row.seconds, row.cpu = time.monotonic() - start, time.process_time() - cpu
            if not oracle.confirm(reduction.minimal):
                row.problem = "another error on a fresh connection"
            elif mode == "message" and reduction.error.first_line != case["message"].partition("\n")[0]:
                row.problem = "another error than the benchmark says: " + reduction.error.first_line
    except SqlReduceError as error:
        row.problem = f"{type(error).__name__}: {error}"
    return sized(row)


def mode_of(case: dict[str, Any]) -> str:
    """How a case is matched."""
    return str(case["kind"]) if case["kind"] in ("crash", "timeout") else "message"


def command(words: list[str], sql: str) -> tuple[str, list[str], float, float]:
    """Runs a command.

    Returns:
        its output, the last line of its errors if it failed, seconds, seconds of CPU
    """
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(words, input=sql, capture_output=True, text=True, timeout=PEER_LIMIT, check=False)
        out, failure = done.stdout, done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired:
        out, failure = "", ["does not end"]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return out, failure, time.monotonic() - start, cpu


def our_command(server: Server, case: dict[str, Any], sql: str) -> Row:
    """Runs `reconciler sqlreduce`, which checks its result on a fresh connection itself."""
    program = [sys.executable, "-c", "from reconciler.cli.main import main; main()"]
    options = ["--dsn", server.dsn(), "--match", mode_of(case), "--output", "json"]
    row = Row()
    out, failure, row.seconds, row.cpu = command([*program, "sqlreduce", *options], sql)
    row.problem = "".join(failure)[:60]
    if not row.problem:
        answer = json.loads(out)
        row.query, row.executed = answer["minimal"], answer["stats"]["executed"]
    return sized(row)


def peers(server: Server, sql: str, *, whole: bool) -> Row:
    """Runs the peer; what it prints is all that it tells.

    Args:
        server: where
        sql: the query
        whole: whether to count the seconds of the process, not those that the peer names as its run time
    """
    row = Row()
    out, failure, row.seconds, row.cpu = command(["sqlreduce", "-d", server.dsn()], sql)
    row.problem = "".join(failure)[:60]
    row.executed = sum(line.rstrip().endswith("✔") or "✘" in line for line in out.splitlines())
    kept = [line.rpartition(" ✔")[0] for line in out.splitlines() if " ✔" in line]
    if row.problem and kept:
        row.query = kept[-1].replace("\033[32m", "").replace("\033[0m", "").strip()  # how far it came
    _, found, rest = out.partition("Minimal query yielding the same error:\n")
    if found:
        row.query = rest.partition("\n\nPretty-printed")[0].strip().replace("\033[1m", "").replace("\033[0m", "")
        took = [line for line in rest.splitlines() if line.startswith("Runtime:")]
        row.seconds = float(took[0].split()[1]) if took and not whole else row.seconds
        counted = [line for line in rest.splitlines() if line.startswith("Iterations:")]
        row.executed = int(counted[0].split()[1]) if counted else row.executed
    return sized(row)


def fastest(run: Callable[[], Row], server: Server, rows: list[Row]) -> Row:
    """Runs a tool once more, and keeps of all its rounds what took least."""
    rows.append(run())
    wait(server)
    best = Row(**vars(rows[-1]))
    best.seconds, best.cpu = min(row.seconds for row in rows), min(row.cpu for row in rows)
    best.problem = next((row.problem for row in rows if row.problem), "")
    return best


def wait(server: Server) -> None:
    """Waits until the server is back after a crash."""
    Session(server.dsn(), 0.5, connect_within=30).close()


def main() -> None:
    """Prints the table."""
    as_installed()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="numbers of cases, separated by commas")
    parser.add_argument("--ours", action="store_true", help="leave the peer out and use its figures of the manifest")
    parser.add_argument("--commands", action="store_true", help="count whole processes, with their start")
    parser.add_argument("--rounds", type=int, default=1, help="run both by turns, and count what took least")
    options = parser.parse_args()
    cases = json.loads((FIXTURES / "manifest.json").read_text())["cases"]
    numbers = set(filter(None, options.only.split(",")))
    rows: list[tuple[str, Row, Row]] = []
    print(f"{'case':28}{'tokens':>14}{'nodes':>14}{'queries':>14}{'seconds':>16}   (ours, peer)")
    with running() as server:
        for case in cases:
            if numbers and case["file"].removeprefix("queries/").removesuffix(".sql") not in numbers:
                continue
            sql = (FIXTURES / case["file"]).read_text()
            old = case["peer"]
            mine, other = Row(), Row("", old["tokens"], old["nodes"], old["queries"])
            all_mine: list[Row] = []
            all_others: list[Row] = []
            for _ in range(options.rounds):
                one = our_command if options.commands else ours
                mine = fastest(partial(one, server, case, sql), server, all_mine)
                if not options.ours:
                    other = fastest(partial(peers, server, sql, whole=options.commands), server, all_others)
            rows.append((case["name"], mine, other))
            print(
                f"{case['file'][8:11]} {case['name'][:23]:24}{mine.tokens:7}{other.tokens:7}{mine.nodes:7}"
                f"{other.nodes:7}{mine.executed:7}{other.executed:7}{mine.seconds:8.2f}{other.seconds:8.2f}   "
                f"{mine.problem and '!! ' + mine.problem}{other.problem and '  peer: ' + other.problem}",
                flush=True,
            )
    summary(rows)


def summary(rows: list[tuple[str, Row, Row]]) -> None:
    """Prints totals and medians: of all cases, and of those that both reduced."""
    both = [(mine, other) for _, mine, other in rows if not mine.problem and not other.problem]
    print(
        f"\nfailed: {sum(bool(mine.problem) for _, mine, _ in rows)} of {len(rows)}, "
        f"peer {sum(bool(other.problem) for _, _, other in rows)}"
    )
    for title, pairs in (("all cases", [(mine, other) for _, mine, other in rows]), ("both reduced", both)):
        print(f"{title}: {len(pairs)}")
        for name in ("tokens", "nodes", "executed", "seconds", "cpu"):
            ones, twos = [getattr(mine, name) for mine, _ in pairs], [getattr(other, name) for _, other in pairs]
            if not sum(twos):
                continue
            less = 100 * (1 - sum(ones) / sum(twos))
            print(
                f"  {name:9} total {sum(ones):9.2f} {sum(twos):9.2f}  {less:4.0f}% less, "
                f"{sum(twos) / sum(ones):5.1f} times   "
                f"median {statistics.median(ones):7.2f} {statistics.median(twos):7.2f}"
            )


if __name__ == "__main__":
    main()
