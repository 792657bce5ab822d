"""What commands cost before they do anything: CPU of whole processes, start of Python included.

    python -m tests.bench.start [--rounds 10]

The least of all rounds counts: what else the machine does only ever adds. A round runs every case once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench import as_installed

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-c", "from reconciler.cli.main import main; main()")
DOCUMENTS = """\
apiVersion: reconciler/v1
kind: Host
metadata: {name: web1}
spec: {connection: image, root: ROOT}
---
apiVersion: reconciler/v1
kind: File
metadata: {name: motd}
spec: {hosts: [web1], path: /etc/motd, content: "Welcome\\n"}
"""
QUERY = "SELECT a, nothing FROM (SELECT 1 AS a) AS one ORDER BY a LIMIT 1"


def cpu(argv: Sequence[str], *, status: int = 0, folder: Path = ROOT) -> float:
    """CPU seconds (user and system) of a process and what it started.

    Raises:
        SystemExit: it ended with another exit status than this one.
    """
    quiet = subprocess.DEVNULL
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    started = subprocess.Popen(argv, cwd=folder, env=env, stdin=quiet, stdout=quiet, stderr=quiet)
    _, ended, used = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(ended)
    if started.returncode != status:
        raise SystemExit(f"{' '.join(argv)}: exit status {started.returncode}")
    return used.ru_utime + used.ru_stime


def measure(rounds: int) -> dict[str, float]:
    """The least CPU seconds of each case."""
    from tests.sqlreduce.server import binaries, running

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        (folder / "web1/etc").mkdir(parents=True)
        (folder / "desired-state").mkdir()
        (folder / "desired-state/all.yaml").write_text(DOCUMENTS.replace("ROOT", str(folder / "web1")))
        cases: dict[str, tuple[Sequence[str], int]] = {
            "python -c pass": ((sys.executable, "-c", "pass"), 0),
            "--help": ((*PROGRAM, "--help"), 0),
            "plan --help": ((*PROGRAM, "plan", "--help"), 0),
            "validate, 2 documents": ((*PROGRAM, "validate"), 0),
            "validate, the sample": ((*PROGRAM, "validate", str(ROOT / "desired-state")), 0),
            "plan, 1 image": ((*PROGRAM, "plan"), 2),
            "sqlreduce --help": ((*PROGRAM, "sqlreduce", "--help"), 0),
        }
        if binaries() is not None:
            dsn = stack.enter_context(running()).dsn()
            cases["sqlreduce, 1 small query"] = ((*PROGRAM, "sqlreduce", "--dsn", dsn, QUERY), 0)
        found: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, (argv, status) in cases.items():
                found[name].append(cpu(argv, status=status, folder=folder))
    return {name: min(seconds) for name, seconds in found.items()}


def main() -> None:
    """Print a table in milliseconds."""
    as_installed()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="how often")
    print("| command | CPU ms |\n| --- | --- |")
    for name, seconds in measure(parser.parse_args().rounds).items():
        print(f"| {name} | {1000 * seconds:.0f} |")


if __name__ == "__main__":
    main()
