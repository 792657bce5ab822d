"""Benchmarks: run by hand, with figures in docs/benchmarks.md. No test asserts a time."""

from __future__ import annotations

import compileall
from pathlib import Path


def as_installed() -> None:
    """Compile the package, as pip does: where Python may write no bytecode, a file that was edited is compiled anew by
    each process, which costs a third of its start."""
    compileall.compile_dir(Path(__file__).parents[2] / "reconciler", quiet=2)
