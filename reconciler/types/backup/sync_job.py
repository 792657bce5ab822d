"""pbs.syncJob: when a datastore gets the backups of another one, here or on another server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.fields import Line
from reconciler.model import IDENTITY, Change, Probe, ResourceType, Risk, Spec, Step
from reconciler.types.api import FLAG, NUMBER, Api, Entries
from reconciler.types.proxmox.names import JobName, Schedule


class SyncJob(Spec):
    """When a datastore gets the backups of another one, here or on another server."""

    id: Annotated[JobName, IDENTITY]
    direction: Annotated[Literal["pull", "push"] | None, Api("sync-direction", default="pull")] = None
    store: Annotated[JobName | None, Api()] = None
    namespace: Annotated[Line | None, Api("ns", default="")] = None
    remote: Annotated[JobName | None, Api(default="")] = None
    remote_store: Annotated[JobName | None, Api()] = None
    remote_namespace: Annotated[Line | None, Api("remote-ns", default="")] = None
    schedule: Annotated[Schedule | None, Api(default="")] = None
    owner: Annotated[str | None, Api(default="root@pam")] = None
    remove_vanished: Annotated[bool | None, Api(codec=FLAG, default=False)] = None
    max_depth: Annotated[int | None, Api(codec=NUMBER), Field(ge=0, le=7)] = None
    transfer_last: Annotated[int | None, Api(codec=NUMBER), Field(ge=1)] = None
    rate_in: Annotated[str | None, Api()] = None
    rate_out: Annotated[str | None, Api()] = None
    comment: Annotated[Line | None, Api(default="")] = None


ENTRIES = Entries(
    what="sync jobs",
    spec=SyncJob,
    listing="/config/sync",
    key="id",
    privileges=("Datastore.Audit",),
    acl=lambda job: f"/datastore/{job.store}" if job.store else "/datastore",
    unset="repeat",
    params={"sync-direction": "all"},
)


def probe(jobs: Sequence[SyncJob]) -> Probe:
    """One list, of both directions."""
    return (yield from ENTRIES.probe(jobs))


def steps(change: Change[SyncJob]) -> Iterable[Step]:
    """One request."""
    yield from ENTRIES.steps(change)


def risk(change: Change[SyncJob]) -> Risk | None:
    """With `removeVanished` what is deleted there is deleted here."""
    if change.after is not None and "removeVanished" in change.changed and change.after.get("removeVanished"):
        return Risk("data-loss", "backups that the other side no longer has are removed by the next run")
    return None


TYPE: ResourceType[Any] = ResourceType(
    "pbs.syncJob",
    SyncJob,
    probe,
    steps,
    immutable=frozenset(("direction",)),
    needs=lambda job: [f"datastore:{job.store}"] * bool(job.store) + [f"remote:{job.remote}"] * bool(job.remote),
    risk=risk,
)
