"""SyncJob: when a datastore gets the backups of another one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Line, Ref, Word
from reconciler.kinds.proxmox_cluster import check_name
from reconciler.model import Discovery, Document, Kind, Resource, Spec, Target, declared
from reconciler.types.api import document_name
from reconciler.types.backup.sync_job import ENTRIES
from reconciler.types.backup.sync_job import TYPE as pbs_sync_job
from reconciler.types.proxmox.names import JobName, Principal, Schedule


class SyncJobSpec(Spec):
    """When a datastore gets the backups of another one, on the same server or on a remote one.

    Example:

        apiVersion: reconciler/v1
        kind: SyncJob
        metadata:
          name: dc01-offsite
        spec:
          server: backup2
          datastore: offsite
          remote: backup1
          remoteDatastore: dc01
          schedule: hourly
    """

    server: Annotated[str, Ref("BackupServer")] = Field(description="The BackupServer that runs the job.")
    id: JobName | None = Field(None, description="Its id on the server; the document's name by default.")
    direction: Literal["pull", "push"] = Field("pull", description="Whether it fetches or sends.")
    datastore: JobName = Field(description="The datastore here.")
    namespace: Line | None = Field(None, description="Its namespace.")
    remote: JobName | None = Field(None, description="Name of the remote; by default the other one is here, too.")
    remote_datastore: JobName = Field(description="The other datastore.")
    remote_namespace: Line | None = Field(None, description="Its namespace.")
    schedule: Schedule | None = Field(None, description="A calendar event; without one it runs by hand.")
    owner: Principal | None = Field(None, description="Whose the fetched backups are; root@pam by default.")
    remove_vanished: bool | None = Field(None, description="Remove what is gone on the other side.")
    max_depth: int | None = Field(None, ge=0, le=7, description="How deep below the namespace.")
    transfer_last: int | None = Field(None, ge=1, description="Only the last N backups of each guest.")
    rate_in: Word | None = Field(None, description="Limit of what comes in, such as 100MiB.")
    rate_out: Word | None = Field(None, description="Limit of what goes out.")
    comment: Line | None = Field(None, description="For people.")


FIELDS = (
    "direction",
    "namespace",
    "remote",
    "remote_namespace",
    "schedule",
    "owner",
    "remove_vanished",
    "max_depth",
    "transfer_last",
    "rate_in",
    "rate_out",
    "comment",
)


def expand(document: Document[SyncJobSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The job."""
    spec = document.spec
    stores: dict[str, Any] = {"store": spec.datastore, "remote_store": spec.remote_datastore}
    yield pbs_sync_job(spec.server, id=spec.id or document.name, **stores, **declared(spec, *FIELDS))


def check(document: Document[SyncJobSpec], catalog: Catalog) -> Iterable[Problem]:
    """A datastore cannot be its own copy, and pushing needs somebody to push to."""
    spec = document.spec
    same = (spec.datastore, spec.namespace or "") == (spec.remote_datastore, spec.remote_namespace or "")
    if spec.remote is None and same:
        message, fix = "fetches a datastore from itself.", "Add `remote:`, or name another datastore."
        yield catalog.problem(document, ("spec", "remoteDatastore"), message, fix)
    if spec.direction == "push" and spec.remote is None:
        yield catalog.problem(document, ("spec", "direction"), "pushes to nobody.", "Add `remote:`.")
    if spec.direction == "push" and spec.owner is not None:
        message, fix = "the owner of what is pushed is the remote's login.", "Take it out."
        yield catalog.problem(document, ("spec", "owner"), message, fix)
    yield from check_name(document, catalog, "id", JobName)


def discover(target: Target) -> Discovery | None:
    """The sync jobs of a server."""
    return _discover(target.name) if target.settings.get("service") == "PBS" else None


def _discover(server: str) -> Discovery:
    found = yield from ENTRIES.discover()
    documents = []
    for name, values in found:
        stores = {"datastore": values.pop("store"), "remoteDatastore": values.pop("remoteStore")}
        if "remoteNamespace" in values and not values["remoteNamespace"]:
            del values["remoteNamespace"]
        documents.append((document_name(server, name), {"server": server, "id": name, **stores, **values}))
    return documents


KIND = Kind("SyncJob", SyncJobSpec, expand, check, discover=discover)
