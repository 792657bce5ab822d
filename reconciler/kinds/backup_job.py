"""BackupJob: a scheduled backup of guests of a Proxmox VE cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Line, Ref, Word
from reconciler.kinds.proxmox_cluster import check_name
from reconciler.model import Discovery, Document, Kind, Resource, Spec, Target, declared
from reconciler.types.api import Retention, document_name
from reconciler.types.proxmox.backup_job import ENTRIES
from reconciler.types.proxmox.backup_job import TYPE as pve_backup_job
from reconciler.types.proxmox.names import BackupId, NodeName, Schedule, VmId


class BackupJobSpec(Spec):
    """A scheduled backup of guests of a Proxmox VE cluster.

    Says what is backed up (`guests`, `pool` or `all`), where to and when. The cluster itself checks neither that the
    storage nor that the guests exist; `validate` does where they have documents.

    Example:

        apiVersion: reconciler/v1
        kind: BackupJob
        metadata:
          name: nightly
        spec:
          cluster: dc01
          storage: backup1
          schedule: "21:00"
          all: true
          exclude: ["900"]
          mode: snapshot
          retention: {keepDaily: 7, keepWeekly: 4}
    """

    cluster: Annotated[str, Ref("ProxmoxCluster")] = Field(description="The ProxmoxCluster.")
    id: BackupId | None = Field(None, description="Its id in the cluster; the document's name by default.")
    storage: Word = Field(description="Id of the storage that takes the backups.")
    schedule: Schedule = Field(description="A calendar event.")
    guests: tuple[VmId, ...] | None = Field(None, min_length=1, description="Numbers of the guests.")
    pool: Word | None = Field(None, description="All guests of this pool.")
    all: bool | None = Field(None, description="All guests.")
    exclude: tuple[VmId, ...] | None = Field(None, description="With `all`: but not these.")
    node: NodeName | None = Field(None, description="Only guests on this node.")
    mode: Literal["snapshot", "suspend", "stop"] | None = Field(None, description="How a running guest is caught.")
    compress: Literal["0", "gzip", "lzo", "zstd"] | None = Field(None, description="Not for backup servers.")
    retention: Retention | None = Field(None, description="Which backups are kept, in place of the storage's rule.")
    enabled: bool | None = Field(None, description="Whether it runs by its schedule.")
    comment: Line | None = Field(None, description="For people.")
    bandwidth: int | None = Field(None, ge=0, description="Limit in KiB/s; 0 = none.")
    notes: Line | None = Field(None, description="Template of the notes on each backup, such as `{{guestname}}`.")


def expand(document: Document[BackupJobSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The job."""
    spec = document.spec
    names = [name for name in type(spec).model_fields if name not in ("cluster", "id")]
    yield pve_backup_job(spec.cluster, id=spec.id or document.name, **declared(spec, *names))


def check(document: Document[BackupJobSpec], catalog: Catalog) -> Iterable[Problem]:
    """Exactly one way to say which guests."""
    spec = document.spec
    ways = [name for name in ("guests", "pool", "all") if getattr(spec, name)]
    if len(ways) != 1:
        message = "says in two ways which guests it takes." if ways else "does not say which guests it takes."
        yield catalog.problem(document, ("spec",), message, "Write one of guests, pool and all.")
    if spec.exclude and not spec.all:
        message, fix = "`exclude` goes with `all: true`.", "Take it out."
        yield catalog.problem(document, ("spec", "exclude"), message, fix)
    yield from check_name(document, catalog, "id", BackupId)


def discover(target: Target) -> Discovery | None:
    """The backup jobs of a cluster."""
    return _discover(target.name) if target.settings.get("service") == "PVE" else None


def _discover(cluster: str) -> Discovery:
    found = yield from ENTRIES.discover()
    return [(document_name(cluster, name), {"cluster": cluster, "id": name, **values}) for name, values in found]


KIND = Kind("BackupJob", BackupJobSpec, expand, check, discover=discover)
