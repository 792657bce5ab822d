"""Leases: at most one run changes a target, and a dead run's lock frees itself.

A lease has a time to live that a heartbeat renews, and an epoch that grows with every new holder. A run may write
only while its own epoch is the current one: a run that was paused and wakes up late finds a higher epoch and stops.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from reconciler.errors import LeaseLost, PlanRefused
from reconciler.store import Store

TIME_TO_LIVE: Final = 30.0
"""Seconds that a lease lives without a heartbeat."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lock on a target as others see it; `expires` in seconds since the epoch."""

    target: str
    holder: str
    run: str
    epoch: int
    expires: float

    @property
    def orphaned(self) -> bool:
        """Whether its holder was a program on this machine that does not run any more."""
        return _is_dead(self.holder)


class Leases:
    """Takes, renews, checks and frees the leases of one run.

    Args:
        store: where leases are kept.
        run: the run's id.
        clock: seconds since the epoch.
    """

    def __init__(
        self, store: Store, run: str, clock: Callable[[], float] = time.time, time_to_live: float = TIME_TO_LIVE
    ) -> None:
        self._store, self._run, self._clock, self._time_to_live = store, run, clock, time_to_live
        self._epochs: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, targets: Iterable[str]) -> None:
        """Lock all targets or none, and keep them until `free`.

        A lease whose holder died on this machine is free at once, one from elsewhere when its time is over.

        Raises:
            PlanRefused: another run, or the same run in another program, holds one of them.
        """
        now = self._clock()
        holder = f"{socket.gethostname()}:{os.getpid()}"
        with self._store.write() as db:
            for target in sorted(targets):
                row = db.execute("SELECT holder, run, epoch, expires FROM lease WHERE target=?", (target,)).fetchone()
                ours = row and row[0] == holder and row[1] == self._run
                if row and row[3] > now and not ours and not _is_dead(row[0]):
                    raise PlanRefused(
                        f"{target} is locked by run {row[1]} ({row[0]}) for {row[3] - now:.0f} s more. "
                        f"Wait for it, or `reconciler lock break {target}` if it is dead."
                    )
                epoch = row[2] + 1 if row else 1
                db.execute(
                    "INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?)",
                    (target, holder, self._run, epoch, now + self._time_to_live),
                )
                self._epochs[target] = epoch
        self._thread = threading.Thread(target=self._beat, name="lease heartbeat", daemon=True)
        self._thread.start()

    def check(self, db: sqlite3.Connection, target: str) -> None:
        """Make sure, inside the caller's transaction, that this run may still write to a target.

        Raises:
            LeaseLost: it may not.
        """
        row = db.execute("SELECT run, epoch FROM lease WHERE target=?", (target,)).fetchone()
        if row is None or row[1] != self._epochs.get(target):
            who = f"run {row[0]}" if row else "`lock break`"
            raise LeaseLost(f"{target}: {who} took the lock over; this run does not write there any more.")

    def renew(self) -> None:
        """Prolong the leases that are still ours."""
        expires = self._clock() + self._time_to_live
        with self._store.write() as db:
            for target, epoch in self._epochs.items():
                db.execute("UPDATE lease SET expires=? WHERE target=? AND epoch=?", (expires, target, epoch))

    def free(self) -> None:
        """Give the leases back; the epochs stay, so that they only ever grow."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        with self._store.write() as db:
            for target, epoch in self._epochs.items():
                db.execute("UPDATE lease SET expires=0 WHERE target=? AND epoch=?", (target, epoch))

    def _beat(self) -> None:
        while not self._stop.wait(self._time_to_live / 4):
            self.renew()


def _is_dead(holder: str) -> bool:
    """Whether a holder was a program of this machine that runs no more."""
    host, _, number = holder.rpartition(":")
    if host != socket.gethostname() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def held(store: Store, clock: Callable[[], float] = time.time) -> Sequence[Lease]:
    """The leases that are alive, by target."""
    with store.read() as db:
        if db is None:
            return []
        rows = db.execute(
            "SELECT target, holder, run, epoch, expires FROM lease WHERE expires > ? ORDER BY target", (clock(),)
        )
        return [Lease(*row) for row in rows]


def break_lease(store: Store, target: str, clock: Callable[[], float] = time.time) -> Lease | None:
    """End a lease by force: its holder cannot write any more, even if it is alive. Gives what was broken."""
    found = next((lease for lease in held(store, clock) if lease.target == target), None)
    if found:
        with store.write() as db:
            db.execute("UPDATE lease SET epoch=epoch+1, expires=0, run='broken' WHERE target=?", (target,))
    return found
