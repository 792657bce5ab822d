"""The inventory: what we created or took over, so that prune may delete it. What is not in it is never pruned."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from reconciler.model import Lifecycle, Resource, canonical, digest
from reconciler.registry import Registry
from reconciler.store import Store


@dataclass(frozen=True, slots=True)
class Entry:
    """One object that is ours.

    Attributes:
        spec: the spec that was last applied, secrets as references.
        created: whether we made it; False = it was there already and we took it over.
        run: the run that last applied it.
        sent: keyed digests of the attributes that it never shows, as they were last sent.
    """

    address: str
    type: str
    target: str
    key: str
    spec: Mapping[str, Any]
    origin: str
    created: bool
    lifecycle: Lifecycle
    run: str
    at: str
    sent: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec_digest(self) -> str:
        """Digest of the spec, to tell drift from a change in Git."""
        return digest(self.spec)

    def resource(self, registry: Registry) -> Resource[Any] | None:
        """The object as something that must go; `None` where this version does not know it any more."""
        kind = registry.types.get(self.type)
        if kind is None:
            return None
        try:
            spec = kind.spec.model_validate(self.spec)
        except ValidationError:
            return None
        return Resource(self.type, self.target, self.key, spec, self.origin, True, self.lifecycle)


def load(store: Store) -> dict[str, Entry]:
    """All entries by address."""
    with store.read() as db:
        if db is None:
            return {}
        rows = db.execute(
            "SELECT address, type, target, key, spec, origin, created, lifecycle, run, at, sent "
            "FROM inventory ORDER BY address"
        )
        return {
            address: Entry(
                address,
                kind,
                target,
                key,
                json.loads(spec),
                origin,
                bool(created),
                Lifecycle.model_validate_json(lifecycle),
                run,
                at,
                json.loads(sent),
            )
            for address, kind, target, key, spec, origin, created, lifecycle, run, at, sent in rows
        }


def record(
    db: sqlite3.Connection,
    resource: Resource[Any],
    run: str,
    *,
    created: bool,
    sent: Mapping[str, str] | None = None,
) -> None:
    """Note, in the caller's transaction, that an object is ours. What we once created stays created.

    Args:
        sent: see `Entry`; `None` keeps what was noted before.
    """
    record_all(db, [(resource, created, sent)], run)


def record_all(
    db: sqlite3.Connection, objects: Iterable[tuple[Resource[Any], bool, Mapping[str, str] | None]], run: str
) -> None:
    """`record` for many objects: `(resource, created, sent)` each."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    db.executemany(
        "INSERT INTO inventory VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(address) DO UPDATE SET "
        "spec=excluded.spec, origin=excluded.origin, lifecycle=excluded.lifecycle, run=excluded.run, at=excluded.at, "
        "created=max(created, excluded.created), sent=coalesce(nullif(excluded.sent, '{}'), sent)",
        [
            (
                resource.address,
                resource.type,
                resource.target,
                resource.key,
                canonical(resource.declared),
                resource.origin,
                int(created),
                _lifecycle(resource.lifecycle),
                run,
                now,
                canonical(dict(sent)) if sent else "{}",
            )
            for resource, created, sent in objects
        ],
    )


@lru_cache(maxsize=256)
def _lifecycle(lifecycle: Lifecycle) -> str:
    """Most objects of a run share one."""
    return canonical(lifecycle.model_dump(mode="json"))


def forget(db: sqlite3.Connection, addresses: Iterable[str]) -> None:
    """Note, in the caller's transaction, that objects are not ours any more."""
    db.executemany("DELETE FROM inventory WHERE address=?", [(a,) for a in addresses])
