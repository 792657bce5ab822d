"""dsm.snapshots: an audit of the snapshots of a shared folder: do they appear, and is there room for more?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, Final

from pydantic import Field

from reconciler.model import CONTROL, IDENTITY, Change, Get, Probe, ResourceType, Spec
from reconciler.types.dsm import RETENTION, SNAPSHOT, ShareName, data
from reconciler.types.dsm.schedule import fires
from reconciler.types.host.snapshots import ago

LIMIT: Final = 1024
"""Of each share; without retention, DSM stops there."""
NEAR: Final = 0.9
NAME: Final = re.compile(r"@?GMT(?:([+-])(\d\d)(?::?(\d\d))?)?-(\d{4}\.\d\d\.\d\d-\d\d\.\d\d\.\d\d)")

Problem = tuple[str, str, str]


class Snapshots(Spec):
    """How the snapshots of a shared folder are (an audit)."""

    share: Annotated[ShareName, IDENTITY]
    max_age: Annotated[int, CONTROL] = Field(description="Seconds after which the newest snapshot is too old.")
    problems: tuple[Problem, ...] = Field((), description="Rule, message and fix of each thing that is wrong: none.")


def probe(audits: Sequence[Snapshots]) -> Probe:
    """The snapshots, the schedule and the retention of each share, and the NAS's own clock."""
    reads = [Get("SYNO.Core.System.Utilization/get", {"version": 1})]
    for audit in audits:
        reads += [
            Get(f"{SNAPSHOT}/list", {"version": 2, "name": audit.share, "offset": 0, "limit": -1}),
            Get(f"{SNAPSHOT}/get_schedule", {"version": 1, "name": audit.share}),
            Get(f"{RETENTION}/get", {"version": 1, "type": "Share", "name": audit.share}),
        ]
    clock, *replies = yield reads
    now = int(data(clock, "the NAS's clock").get("time") or 0)
    states = []
    for audit, listed, schedule, retention in zip(audits, replies[::3], replies[1::3], replies[2::3], strict=True):
        found = problems(
            audit,
            now,
            data(listed, f"the snapshots of {audit.share}"),
            data(schedule, f"the schedule of {audit.share}"),
            data(retention, f"the retention of {audit.share}"),
        )
        states.append({"problems": [list(p) for p in found]})
    return states


def moment(name: str) -> int | None:
    """When a snapshot was taken, by its name: `GMT+01-2026.11.22-04.00.00`, or with `@GMT-`.

    Returns:
        seconds since the epoch; `None` for another name.
    """
    match = NAME.fullmatch(name)
    if not match:
        return None
    offset = timedelta(hours=int(match[2] or 0), minutes=int(match[3] or 0))
    zone = timezone(-offset if match[1] == "-" else offset)
    try:
        return int(datetime.strptime(match[4], "%Y.%m.%d-%H.%M.%S").replace(tzinfo=zone).timestamp())
    except ValueError:
        return None


def problems(
    audit: Snapshots,
    now: int,
    listed: Mapping[str, Any],
    schedule: Mapping[str, Any],
    retention: Mapping[str, Any],
) -> Iterator[Problem]:
    """Everything that is wrong, by DSM's own answers."""
    share = audit.share
    rows = listed.get("snapshots") or []
    times = [m for row in rows if (m := moment(str(row.get("time")))) is not None]
    enabled = bool(schedule.get("enable_snapshot_schedule"))
    if not enabled:
        yield "timer-off", f"{share}: no schedule takes snapshots.", "Apply the policy, or switch it on in DSM."
    elif not fires(schedule.get("schedule") or {}):
        message = f"{share}: DSM stored a schedule that its own dialog cannot make; such ones are known never to fire."
        yield "schedule-never-fires", message, "Apply the policy, or save it again in Snapshot Replication."
    if not times and enabled:
        message = f"{share}: there is no snapshot yet."
        yield "no-snapshot", message, "If none appears at the next time of the schedule, look into DSM's log."
    elif times and now - max(times) > audit.max_age:
        fix = "Look into the log of Snapshot Replication: a schedule that is stored need not fire."
        yield "too-old", f"{share}: the newest snapshot is {ago(now - max(times))} old.", fix
    if enabled and not retention.get("policyType"):
        message = f"{share}: nothing is ever removed, and DSM stops at {LIMIT} snapshots."
        yield "no-retention", message, "Add `keep:` to the policy, or set a retention in DSM."
    count = int(listed.get("total") or len(rows))
    if count >= LIMIT * NEAR:
        yield "count-near-limit", f"{share}: {count} snapshots of {LIMIT} at most.", "Keep fewer."


def findings(change: Change[Snapshots]) -> Iterable[Problem]:
    """The problems, as they are."""
    for rule, message, fix in (change.before or {}).get("problems") or ():
        yield rule, f"{change.resource.target}: {message}", fix


TYPE: ResourceType[Any] = ResourceType(
    "dsm.snapshots",
    Snapshots,
    probe,
    None,
    findings=findings,
    needs=lambda audit: (f"schedule:{audit.share}", f"retention:{audit.share}"),
)
