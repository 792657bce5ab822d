"""What a further host costs a controller that runs already: ours beside the floor, without the start of Python.

    python -m tests.bench.warm [--hosts 20] [--rounds 8]

The same cases as `tests.bench.hosts`. Each contestant is one process that runs them again and again, in turns with the
other, and measures its own CPU; so neither imports nor what else the machine does between two starts is in the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import as_installed
from tests.bench.hosts import MAKERS, TITLES, bare, wrong
from tests.lab.endpoints import Endpoints

CASES = ("first", "second", "check", "change")
NAMES = ("ours", "floor")


def serve(name: str, program: str) -> None:
    """Run one command for each line of standard input; answer with its CPU seconds and exit status."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from reconciler.cli.main import main as command

    code = compile(Path(program).read_text(), "floor", "exec") if name == "floor" else None
    for line in sys.stdin:
        sys.argv = json.loads(line)
        before, status = time.process_time(), 0
        try:
            if code is None:
                command()
            else:
                exec(code, {"__name__": "floor"})
        except SystemExit as end:
            status = int(end.code or 0)
        sys.stdout.flush()
        print(json.dumps([time.process_time() - before, status]), file=answers, flush=True)


def measure(count: int, rounds: int) -> dict[tuple[str, str, int], list[float]]:
    """CPU seconds of each contestant, case and number of hosts; the first round warms up and does not count."""
    seconds: dict[tuple[str, str, int], list[float]] = {}
    with Endpoints(count) as fleet, tempfile.TemporaryDirectory(prefix="bench-") as top:
        environ = {**os.environ, "HOME": str(fleet.slot.folder), "NO_COLOR": "1"}
        contestants, servers = {}, {}
        for name in NAMES:
            for hosts in (1, count):
                folder = Path(top) / f"{name}-{hosts}"
                folder.mkdir()
                contestants[name, hosts] = MAKERS[name](fleet, hosts, folder), folder
            argv = [sys.executable, "-m", "tests.bench.warm", "--serve", name, f"{top}/{name}-1/floor.py"]
            servers[name] = subprocess.Popen(
                fleet.command(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
            )
        for turn in range(rounds + 1):
            for (name, hosts), (contestant, folder) in contestants.items():
                endpoints = list(fleet)[:hosts]
                for endpoint in endpoints:
                    bare(endpoint)
                shutil.rmtree(folder / "state", ignore_errors=True)
                for case in CASES:
                    revision = 2 if case == "change" else 1
                    contestant.prepare(revision)
                    words = contestant.command(case)
                    server = servers[name]
                    assert server.stdin is not None
                    assert server.stdout is not None
                    print(json.dumps(words[words.index("-m") + 1 :] if "-m" in words else words[1:]), file=server.stdin)
                    server.stdin.flush()
                    used, status = json.loads(server.stdout.readline())
                    bad = [f"{e.name}: {w}" for e in endpoints for w in wrong(e, revision)]
                    if status or bad:
                        raise SystemExit(f"{name}, {case}, {hosts} hosts: exit status {status}, {bad[:3]}")
                    if turn:
                        seconds.setdefault((name, case, hosts), []).append(used)
        for server in servers.values():
            server.communicate()
    return seconds


def main() -> None:
    """Print milliseconds of CPU of a further host: from the least and from the medians of all rounds."""
    as_installed()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hosts", type=int, default=20, help="how many endpoints, two at least")
    parser.add_argument("--rounds", type=int, default=8, help="how often")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    seconds = measure(arguments.hosts, arguments.rounds)
    print("| case | least: ours / floor | medians: ours / floor |\n| --- | --- | --- |")
    for case in CASES:
        cells = []
        for pick in (_least, _median):
            mine, least = (
                1000 * (pick(seconds[n, case, arguments.hosts]) - pick(seconds[n, case, 1])) / (arguments.hosts - 1)
                for n in NAMES
            )
            cells.append(f"{mine:.1f} ms / {least:.1f} ms = {mine / least:.2f}")
        print(f"| {TITLES[case]} | {' | '.join(cells)} |")


def _least(values: Sequence[float]) -> float:
    return min(values)


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


if __name__ == "__main__":
    main()
