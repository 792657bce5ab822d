"""Datastore: a datastore of a backup server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import AbsolutePath, Line, Ref
from reconciler.kinds.proxmox_cluster import check_name
from reconciler.model import Discovery, Document, Kind, Resource, Spec, Target, declared
from reconciler.types.api import document_name
from reconciler.types.backup.datastore import ENTRIES
from reconciler.types.backup.datastore import TYPE as pbs_datastore
from reconciler.types.backup.zpool import TYPE as pbs_zpool
from reconciler.types.backup.zpool import Disk
from reconciler.types.proxmox.names import JobName, Schedule

Raid = Literal["single", "mirror", "raid10", "raidz", "raidz2", "raidz3"]


class Pool(Spec):
    """A ZFS pool made of empty disks."""

    disks: tuple[Disk, ...] = Field(min_length=1, description="Names of disks without /dev/, such as sdb.")
    raid: str = Field(
        "single", pattern="^(single|mirror|raid10|raidz|raidz2|raidz3)$", description="How disks are used."
    )


class DatastoreSpec(Spec):
    """A datastore of a backup server.

    With `zfs` the server first makes a pool of empty disks, mounted where the datastore then lies. Taking the document
    away removes the datastore from the server's configuration; backups and pool stay on the disks.

    Example:

        apiVersion: reconciler/v1
        kind: Datastore
        metadata:
          name: dc01
        spec:
          server: backup1
          path: /mnt/datastore/dc01
          gcSchedule: daily
    """

    server: Annotated[str, Ref("BackupServer")] = Field(description="The BackupServer.")
    name: JobName | None = Field(None, description="Its name on the server; the document's name by default.")
    path: AbsolutePath | None = Field(None, description="Its folder; /mnt/datastore/NAME by default.")
    zfs: Pool | None = Field(None, description="Make a ZFS pool of this name for it first.")
    gc_schedule: Schedule | None = Field(None, description="When space is freed: a calendar event.")
    verify_new: bool | None = Field(None, description="Read each backup back as soon as it is made.")
    comment: Line | None = Field(None, description="For people.")
    reuse: bool | None = Field(None, description="Take over a chunk store that lies in the folder already.")


def expand(document: Document[DatastoreSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The pool, where one is asked for, and the datastore."""
    spec = document.spec
    name = spec.name or document.name
    yield from resources(spec.server, name, spec)


def resources(server: str, name: str, spec: Any) -> Iterable[Resource[Any]]:
    """A datastore and its pool."""
    if spec.zfs is not None:
        yield pbs_zpool(server, name=name, devices=spec.zfs.disks, raid=spec.zfs.raid)
    fields = declared(spec, "gc_schedule", "verify_new", "comment", "reuse")
    yield pbs_datastore(server, name=name, path=spec.path or f"/mnt/datastore/{name}", **fields)


def check(document: Document[DatastoreSpec], catalog: Catalog) -> Iterable[Problem]:
    """What it is called on the server must be a name there."""
    yield from check_name(document, catalog, "name", JobName)


def discover(target: Target) -> Discovery | None:
    """The datastores of a server."""
    return _discover(target.name) if target.settings.get("service") == "PBS" else None


def _discover(server: str) -> Discovery:
    found = yield from ENTRIES.discover()
    takes = ("path", "gcSchedule", "verifyNew", "comment")
    documents = []
    for name, values in found:
        spec = {"server": server, "name": name, **{k: v for k, v in values.items() if k in takes}}
        documents.append((document_name(server, name), spec))
    return documents


KIND = Kind("Datastore", DatastoreSpec, expand, check, discover=discover)
