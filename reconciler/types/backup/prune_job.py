"""pbs.pruneJob: which backups of a datastore are kept, and when the others go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field

from reconciler.fields import Line
from reconciler.model import IDENTITY, Change, Probe, ResourceType, Risk, Spec, Step
from reconciler.types.api import NOT, NUMBER, Api, Entries
from reconciler.types.proxmox.names import JobName, Schedule


class PruneJob(Spec):
    """Which backups of a datastore are kept, and when the others go."""

    id: Annotated[JobName, IDENTITY]
    store: Annotated[JobName | None, Api()] = None
    schedule: Annotated[Schedule | None, Api()] = None
    namespace: Annotated[Line | None, Api("ns", default="")] = None
    max_depth: Annotated[int | None, Api(codec=NUMBER), Field(ge=0, le=7)] = None
    keep_last: Annotated[int | None, Api(codec=NUMBER, default=0, unset=True), Field(ge=0)] = None
    keep_hourly: Annotated[int | None, Api(codec=NUMBER, default=0, unset=True), Field(ge=0)] = None
    keep_daily: Annotated[int | None, Api(codec=NUMBER, default=0, unset=True), Field(ge=0)] = None
    keep_weekly: Annotated[int | None, Api(codec=NUMBER, default=0, unset=True), Field(ge=0)] = None
    keep_monthly: Annotated[int | None, Api(codec=NUMBER, default=0, unset=True), Field(ge=0)] = None
    keep_yearly: Annotated[int | None, Api(codec=NUMBER, default=0, unset=True), Field(ge=0)] = None
    enabled: Annotated[bool | None, Api("disable", NOT, default=True)] = None
    comment: Annotated[Line | None, Api(default="")] = None


ENTRIES = Entries(
    what="prune jobs",
    spec=PruneJob,
    listing="/config/prune",
    key="id",
    privileges=("Datastore.Audit",),
    acl=lambda job: f"/datastore/{job.store}" if job.store else "/datastore",
    unset="repeat",
)


def probe(jobs: Sequence[PruneJob]) -> Probe:
    """One list."""
    return (yield from ENTRIES.probe(jobs))


def steps(change: Change[PruneJob]) -> Iterable[Step]:
    """One request."""
    yield from ENTRIES.steps(change)


def risk(change: Change[PruneJob]) -> Risk | None:
    """Fewer backups are kept from now on."""
    before, after = change.before, change.after
    if before is None or after is None:
        return None
    fewer = [n for n in change.changed if n.startswith("keep") and (before.get(n) or 0) > (after.get(n) or 0)]
    return Risk("data-loss", "backups that were kept so far are removed by the next run") if fewer else None


TYPE: ResourceType[Any] = ResourceType(
    "pbs.pruneJob",
    PruneJob,
    probe,
    steps,
    needs=lambda job: [f"datastore:{job.store}"] if job.store else [],
    risk=risk,
)
