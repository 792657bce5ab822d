"""PruneJob: which backups of a datastore are kept, and when the others go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Line, Ref
from reconciler.kinds.proxmox_cluster import check_name
from reconciler.model import Discovery, Document, Kind, Resource, Spec, Target, declared
from reconciler.types.api import Retention, document_name
from reconciler.types.backup.prune_job import ENTRIES
from reconciler.types.backup.prune_job import TYPE as pbs_prune_job
from reconciler.types.proxmox.names import JobName, Schedule


class PruneJobSpec(Spec):
    """Which backups of a datastore are kept, and when the others go.

    What is not counted in `keep` is removed by the next run, but a plan says so when it lowers a number.

    Example:

        apiVersion: reconciler/v1
        kind: PruneJob
        metadata:
          name: dc01-daily
        spec:
          server: backup1
          datastore: dc01
          schedule: daily
          keep: {keepLast: 3, keepDaily: 14, keepWeekly: 8}
    """

    server: Annotated[str, Ref("BackupServer")] = Field(description="The BackupServer.")
    id: JobName | None = Field(None, description="Its id on the server; the document's name by default.")
    datastore: JobName = Field(description="Name of the datastore on the server.")
    schedule: Schedule = Field(description="A calendar event.")
    keep: Retention = Field(description="Which backups are kept.")
    namespace: Line | None = Field(None, description="Only this namespace.")
    max_depth: int | None = Field(None, ge=0, le=7, description="How deep below the namespace.")
    enabled: bool | None = Field(None, description="Whether it runs by its schedule.")
    comment: Line | None = Field(None, description="For people.")


KEEPS = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


def numbers(keep: Retention) -> dict[str, Any]:
    """All six numbers; 0 = none of that kind."""
    return {name: getattr(keep, name) or 0 for name in KEEPS}


def expand(document: Document[PruneJobSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The job."""
    spec = document.spec
    fields = declared(spec, "schedule", "namespace", "max_depth", "enabled", "comment")
    id_ = spec.id or document.name
    yield pbs_prune_job(spec.server, id=id_, store=spec.datastore, **fields, **numbers(spec.keep))


def check(document: Document[PruneJobSpec], catalog: Catalog) -> Iterable[Problem]:
    """A job that keeps nothing by number keeps everything."""
    keep = document.spec.keep
    if not any(numbers(keep).values()):
        message = "keeps everything, so that it never removes a backup."
        yield catalog.problem(document, ("spec", "keep"), message, "Add a number such as keepDaily: 14.")
    if keep.keep_all and any(numbers(keep).values()):
        message, fix = "`keepAll` stands alone.", "Take it out, or the numbers."
        yield catalog.problem(document, ("spec", "keep"), message, fix)
    yield from check_name(document, catalog, "id", JobName)


def discover(target: Target) -> Discovery | None:
    """The prune jobs of a server."""
    return _discover(target.name) if target.settings.get("service") == "PBS" else None


def _discover(server: str) -> Discovery:
    found = yield from ENTRIES.discover()
    documents = []
    for name, values in found:
        keep = {k: values.pop(k) for k in list(values) if k.startswith("keep")}
        spec = {"server": server, "id": name, "datastore": values.pop("store"), **values, "keep": keep}
        if keep:
            documents.append((document_name(server, name), spec))
    return documents


KIND = Kind("PruneJob", PruneJobSpec, expand, check, discover=discover)
