"""VerifyJob: when the backups of a datastore are read back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Line, Ref
from reconciler.kinds.proxmox_cluster import check_name
from reconciler.model import Discovery, Document, Kind, Resource, Spec, Target, declared
from reconciler.types.api import document_name
from reconciler.types.backup.verify_job import ENTRIES
from reconciler.types.backup.verify_job import TYPE as pbs_verify_job
from reconciler.types.proxmox.names import JobName, Schedule


class VerifyJobSpec(Spec):
    """When the backups of a datastore are read back and compared with their checksums.

    Example:

        apiVersion: reconciler/v1
        kind: VerifyJob
        metadata:
          name: dc01-weekly
        spec:
          server: backup1
          datastore: dc01
          schedule: sat 03:00
          outdatedAfter: 30
    """

    server: Annotated[str, Ref("BackupServer")] = Field(description="The BackupServer.")
    id: JobName | None = Field(None, description="Its id on the server; the document's name by default.")
    datastore: JobName = Field(description="Name of the datastore on the server.")
    schedule: Schedule | None = Field(None, description="A calendar event; without one it runs by hand.")
    namespace: Line | None = Field(None, description="Only this namespace.")
    max_depth: int | None = Field(None, ge=0, le=7, description="How deep below the namespace.")
    ignore_verified: bool | None = Field(None, description="Skip backups that were verified already.")
    outdated_after: int | None = Field(None, ge=1, description="Days after which a verified backup is verified again.")
    comment: Line | None = Field(None, description="For people.")


FIELDS = ("schedule", "namespace", "max_depth", "ignore_verified", "outdated_after", "comment")


def expand(document: Document[VerifyJobSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The job."""
    spec = document.spec
    fields = declared(spec, *FIELDS)
    yield pbs_verify_job(spec.server, id=spec.id or document.name, store=spec.datastore, **fields)


def check(document: Document[VerifyJobSpec], catalog: Catalog) -> Iterable[Problem]:
    """What it is called on the server must be a name there."""
    yield from check_name(document, catalog, "id", JobName)


def discover(target: Target) -> Discovery | None:
    """The verify jobs of a server."""
    return _discover(target.name) if target.settings.get("service") == "PBS" else None


def _discover(server: str) -> Discovery:
    found = yield from ENTRIES.discover()
    return [
        (document_name(server, name), {"server": server, "id": name, "datastore": values.pop("store"), **values})
        for name, values in found
    ]


KIND = Kind("VerifyJob", VerifyJobSpec, expand, check, discover=discover)
