"""Time for simulators: how long things take, and a clock that tests move by hand."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take in a simulator, in seconds."""

    task: float
    """From the start of a task to its end."""
    scheduler: float
    """Between two rounds of the replication scheduler."""
    replication: float
    """One run of a replication job."""
    broadcast: float
    """Until the cluster knows status and name of a guest that is new or has just moved."""


REAL: Final = Pace(task=2.0, scheduler=60.0, replication=5.0, broadcast=10.0)
"""As measured on a small idle cluster."""

QUICK: Final = Pace(task=0.05, scheduler=0.5, replication=0.1, broadcast=0.1)
"""For people who watch and for tests with the real clock: still asynchronous, but short."""


class ManualClock:
    """A clock that stands still until it is moved. Callable: seconds since the epoch."""

    def __init__(self, now: float = 1_780_000_000.0) -> None:
        self._now = now
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Seconds since the epoch."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        if seconds < 0:
            raise ValueError("a clock does not run backwards")
        with self._lock:
            self._now += seconds
