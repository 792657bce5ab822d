"""pbs.datastore: a datastore of a backup server. Removing it leaves the backups on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from reconciler.fields import AbsolutePath, Line
from reconciler.model import CONTROL, IDENTITY, Change, Probe, Request, ResourceType, Risk, Spec, Step
from reconciler.types.api import FLAG, Api, Entries
from reconciler.types.proxmox.names import JobName, Schedule


class Datastore(Spec):
    """A datastore of a backup server."""

    name: Annotated[JobName, IDENTITY]
    path: Annotated[AbsolutePath | None, Api()] = None
    comment: Annotated[Line | None, Api(default="")] = None
    gc_schedule: Annotated[Schedule | None, Api(default="")] = None
    verify_new: Annotated[bool | None, Api(codec=FLAG, default=False)] = None
    notify_user: Annotated[str | None, Api(default="")] = None
    tuning: Annotated[str | None, Api(default="")] = None
    reuse: Annotated[bool | None, Api("reuse-datastore", FLAG, hidden=True), CONTROL] = None


ENTRIES = Entries(
    what="datastores",
    spec=Datastore,
    listing="/config/datastore",
    key="name",
    privileges=("Datastore.Audit",),
    acl=lambda store: f"/datastore/{store.name}",
    unset="repeat",
)


def probe(stores: Sequence[Datastore]) -> Probe:
    """One list."""
    return (yield from ENTRIES.probe(stores))


def steps(change: Change[Datastore]) -> Iterable[Step]:
    """One request. Making a chunk store takes minutes on slow disks. Jobs and rights are objects of their own, so that
    they stay when a datastore goes; its backups stay, too."""
    for request in ENTRIES.steps(change):
        if request.method == "DELETE":
            yield Request("DELETE", request.path, {"keep-job-configs": 1, "destroy-data": 0}, title=request.title)
        else:
            yield request


def risk(change: Change[Datastore]) -> Risk | None:
    """Backups cannot be made nor read while the datastore is away."""
    if change.before is not None and (change.after is None or "path" in change.changed):
        return Risk("downtime", "no backup can be made or restored without the datastore; the data stays on the disk")
    return None


TYPE: ResourceType[Any] = ResourceType(
    "pbs.datastore",
    Datastore,
    probe,
    steps,
    immutable=frozenset(("path",)),
    provides=lambda store: (f"datastore:{store.name}",),
    needs=lambda store: [f"path:{store.path}"] if store.path else [],
    risk=risk,
)
