"""pve.backupJob: a scheduled backup (vzdump) of a Proxmox VE cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.fields import Line
from reconciler.model import IDENTITY, Change, Probe, ResourceType, Spec, Step
from reconciler.types.api import FLAG, KEEP, NUMBER, WORDS, Api, Entries, Retention
from reconciler.types.proxmox.names import BackupId, NodeName, Schedule, VmId


class BackupJob(Spec):
    """A scheduled backup of guests of a Proxmox VE cluster."""

    id: Annotated[BackupId, IDENTITY]
    schedule: Annotated[Schedule | None, Api()] = None
    storage: Annotated[str | None, Api()] = None
    guests: Annotated[tuple[VmId, ...] | None, Api("vmid", WORDS, default=[])] = None
    all: Annotated[bool | None, Api(codec=FLAG, default=False)] = None
    pool: Annotated[str | None, Api(default="")] = None
    exclude: Annotated[tuple[VmId, ...] | None, Api(codec=WORDS, default=[])] = None
    node: Annotated[NodeName | None, Api(default="")] = None
    mode: Annotated[Literal["snapshot", "suspend", "stop"] | None, Api(default="snapshot")] = None
    compress: Annotated[Literal["0", "gzip", "lzo", "zstd"] | None, Api(default="0")] = None
    retention: Annotated[Retention | None, Api("prune-backups", KEEP)] = None
    enabled: Annotated[bool | None, Api(codec=FLAG, default=True)] = None
    comment: Annotated[Line | None, Api(default="")] = None
    bandwidth: Annotated[int | None, Api("bwlimit", NUMBER, default=0), Field(ge=0)] = None
    notes: Annotated[Line | None, Api("notes-template", default="")] = None


ENTRIES = Entries(
    what="backup jobs",
    spec=BackupJob,
    listing="/cluster/backup",
    key="id",
    privileges=("Sys.Audit",),
    acl=lambda job: "/",
    digest=False,
)


def probe(jobs: Sequence[BackupJob]) -> Probe:
    """One list."""
    return (yield from ENTRIES.probe(jobs))


def steps(change: Change[BackupJob]) -> Iterable[Step]:
    """One request. An own id is always sent: the answer to a creation does not tell a generated one."""
    for request in ENTRIES.steps(change):
        if "notes-template" in request.params and change.spec.storage:
            # A template is only taken together with the storage.
            yield replace(request, params={"storage": change.spec.storage, **request.params})
        else:
            yield request


TYPE: ResourceType[Any] = ResourceType(
    "pve.backupJob",
    BackupJob,
    probe,
    steps,
    normalize=ENTRIES.normalize,
    needs=lambda job: [f"storage:{job.storage}"] * bool(job.storage) + [f"guest:{g}" for g in job.guests or ()],
)
