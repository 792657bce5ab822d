"""The journal: an append-only record of what a run intends and what came of it, on disk before each step starts.

Events of a change: `intent` (with the digest of what was seen before), `step`, `end` (with the outcome). Events of a
run: `begin`, `end`. A run without an end was killed; `apply.resume` looks at the live objects to learn what happened.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from reconciler.errors import PlanError
from reconciler.model import canonical
from reconciler.store import Store


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the journal."""

    seq: int
    at: str
    event: str
    address: str | None
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run: `status` is `running`, `done`, `failed` or `unfinished`; `plan` is the plan's JSON text."""

    id: str
    started: str
    ended: str | None
    command: str
    status: str
    plan: str = field(repr=False)
    summary: str | None = None


def new_run_id(now: datetime | None = None) -> str:
    """A run id that sorts by time: `20261122-081500-1a2b`."""
    return f"{(now or datetime.now(UTC)):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


class Journal:
    """Writes the records of one run. Every method is one transaction unless it takes `db`."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self.run = store, run

    def begin(self, command: str, plan: str) -> None:
        """The run starts. Its plan is kept, so that it can be resumed without the plan file."""
        with self._store.write() as db:
            db.execute(
                "INSERT INTO run (id, started, command, status, plan) VALUES (?, ?, ?, 'running', ?)",
                (self.run, _now(), command, plan),
            )

    def write(self, db: sqlite3.Connection, event: str, address: str | None = None, **body: Any) -> None:
        """One record, in the caller's transaction."""
        db.execute(
            "INSERT INTO journal (run, at, event, address, body) VALUES (?, ?, ?, ?, ?)",
            (self.run, _now(), event, address, canonical(body)),
        )

    def write_all(self, db: sqlite3.Connection, event: str, bodies: Mapping[str, Mapping[str, Any]]) -> None:
        """A record of one event for each address, in the caller's transaction.

        They share a row, which costs a fraction of one for each; `records` takes them apart again.
        """
        if bodies:
            self.write(db, event, None, each=list(bodies.items()))

    def end(self, status: str, summary: str) -> None:
        """The run is over."""
        with self._store.write() as db:
            db.execute("UPDATE run SET ended=?, status=?, summary=? WHERE id=?", (_now(), status, summary, self.run))


def runs(store: Store) -> Sequence[RunRecord]:
    """All runs, newest first."""
    with store.read() as db:
        if db is None:
            return []
        rows = db.execute(
            "SELECT id, started, ended, command, status, plan, summary FROM run ORDER BY started DESC, id DESC"
        )
        return [RunRecord(*row) for row in rows]


def find_run(store: Store, run: str | None, *, unfinished: bool = False) -> RunRecord:
    """A run by id or by the start of its id; without one, the newest (that was not finished).

    Raises:
        PlanError: there is none, or several begin like that.
    """
    known = [r for r in runs(store) if not unfinished or r.ended is None]
    found = [r for r in known if r.id.startswith(run)] if run else known[:1]
    if len(found) == 1:
        return found[0]
    if not found:
        what = f"run {run}" if run else ("unfinished run" if unfinished else "run")
        raise PlanError(f"There is no {what}. `reconciler history` lists them.")
    raise PlanError(f"Several runs begin with {run}: {', '.join(r.id for r in found)}.")


def records(store: Store, run: str) -> Sequence[Record]:
    """The records of a run, oldest first."""
    with store.read() as db:
        if db is None:
            return []
        rows = db.execute("SELECT seq, at, event, address, body FROM journal WHERE run=? ORDER BY seq", (run,))
        found = (Record(seq, at, event, address, json.loads(body)) for seq, at, event, address, body in rows)
        return [one for record in found for one in _apart(record)]


def _apart(record: Record) -> Iterable[Record]:
    if record.address is not None or "each" not in record.body:
        return [record]
    return [replace(record, address=address, body=body) for address, body in record.body["each"]]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
