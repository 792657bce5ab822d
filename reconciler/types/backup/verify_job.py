"""pbs.verifyJob: when the backups of a datastore are read back and compared with their checksums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field

from reconciler.fields import Line
from reconciler.model import IDENTITY, Change, Probe, ResourceType, Spec, Step
from reconciler.types.api import FLAG, NUMBER, Api, Entries
from reconciler.types.proxmox.names import JobName, Schedule


class VerifyJob(Spec):
    """When the backups of a datastore are read back and compared with their checksums."""

    id: Annotated[JobName, IDENTITY]
    store: Annotated[JobName | None, Api()] = None
    schedule: Annotated[Schedule | None, Api(default="")] = None
    namespace: Annotated[Line | None, Api("ns", default="")] = None
    max_depth: Annotated[int | None, Api(codec=NUMBER), Field(ge=0, le=7)] = None
    ignore_verified: Annotated[bool | None, Api(codec=FLAG, default=True)] = None
    outdated_after: Annotated[int | None, Api(codec=NUMBER), Field(ge=0)] = None
    comment: Annotated[Line | None, Api(default="")] = None


ENTRIES = Entries(
    what="verify jobs",
    spec=VerifyJob,
    listing="/config/verify",
    key="id",
    privileges=("Datastore.Audit", "Datastore.Verify"),
    acl=lambda job: f"/datastore/{job.store}" if job.store else "/datastore",
    unset="repeat",
)


def probe(jobs: Sequence[VerifyJob]) -> Probe:
    """One list."""
    return (yield from ENTRIES.probe(jobs))


def steps(change: Change[VerifyJob]) -> Iterable[Step]:
    """One request."""
    yield from ENTRIES.steps(change)


TYPE: ResourceType[Any] = ResourceType(
    "pbs.verifyJob", VerifyJob, probe, steps, needs=lambda job: [f"datastore:{job.store}"] if job.store else []
)
