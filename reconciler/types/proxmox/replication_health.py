"""pve.replicationHealth: an audit of a replication job: when it last synced, and how often it failed since.

What a job did is known to the node on which its guest is, and to no other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from reconciler.model import CONTROL, IDENTITY, Change, Get, Probe, ResourceType, Spec, State
from reconciler.types.api import answer
from reconciler.types.proxmox.names import GuestName, Place, one_of, places

ROUNDS: Final = 120.0
"""Seconds until a job that is due has been begun: the scheduler comes once a minute."""


class ReplicationHealth(Spec):
    """An audit of a replication job: when it last synced, how long that took, how often it failed since."""

    guest: Annotated[GuestName, IDENTITY]
    number: Annotated[int, IDENTITY, Field(ge=0)] = 0
    stale_after: Annotated[int, CONTROL, Field(gt=0)] = 3600
    slow_after: Annotated[int | None, CONTROL, Field(gt=0)] = None
    max_failures: Annotated[int, CONTROL, Field(ge=0)] = 0
    problems: tuple[tuple[str, str, str], ...] = ()


def probe(jobs: Sequence[ReplicationHealth]) -> Probe:
    """Where the guests are, then what the jobs of those nodes did."""
    (rows,) = yield [Get("/cluster/resources", {"type": "vm"})]
    known = places(answer(rows, "guests"))
    found = [one_of(job.guest, known) for job in jobs]
    nodes = list(dict.fromkeys(place.node for place in found if isinstance(place, Place)))
    replies = yield [Get(f"/nodes/{node}/replication") for node in nodes]
    states = {row["id"]: row for reply in replies for row in answer(reply, "the state of replication jobs")}
    now = time.time()
    return [
        {"problems": []} if isinstance(place, str) else _state(job, states.get(f"{place.vmid}-{job.number}"), now)
        for job, place in zip(jobs, found, strict=True)
    ]


def _state(job: ReplicationHealth, row: Mapping[str, Any] | None, now: float) -> State:
    """A job that does not exist, is switched off or on its way out is no matter of health."""
    if row is None or row.get("disable") or row.get("remove_job"):
        return {"problems": []}
    return {"problems": [list(problem) for problem in _problems(job, row, now)]}


def _problems(job: ReplicationHealth, row: Mapping[str, Any], now: float) -> Iterable[tuple[str, str, str]]:
    name = f"guest {job.guest} from {row.get('source')} to {row.get('target')}"
    failures = int(row.get("fail_count") or 0)
    if failures > job.max_failures:
        why = str(row.get("error") or "no reason is given").strip()
        yield "failing", f"{name}: failed {failures} times in a row: {why}", "Look at the job's log on its node."
    last = float(row.get("last_sync") or 0)
    if not last:
        if not _is_new(row, now):
            yield "never-synced", f"{name}: has never synced.", "Run it once: schedule now, on the node of the guest."
    elif now - last > job.stale_after:
        yield "stale", f"{name}: stale for {spoken(now - last)}.", "Look at the schedule and at the other node."
    took = float(row.get("duration") or 0)
    if job.slow_after is not None and took > job.slow_after:
        yield "slow", f"{name}: the last sync took {spoken(took)}.", "Sync more often, or raise the rate."


def _is_new(row: Mapping[str, Any], now: float) -> bool:
    """Whether a job that never synced could not have by now: it is under way, or was neither tried nor due."""
    tried = row.get("last_try") or row.get("fail_count")
    return bool(row.get("pid")) or (not tried and now < float(row.get("next_sync") or 0) + ROUNDS)


def spoken(seconds: float) -> str:
    """A duration for people, in its largest unit.

    >>> spoken(3 * 3600 + 100)
    '3 h'
    """
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def findings(change: Change[ReplicationHealth]) -> Iterable[tuple[str, str, str]]:
    """The problems, as they are."""
    yield from (change.before or {}).get("problems") or ()


TYPE: ResourceType[Any] = ResourceType(
    "pve.replicationHealth",
    ReplicationHealth,
    probe,
    None,
    findings=findings,
    needs=lambda j: (f"replication:{j.guest}:{j.number}",),
)
