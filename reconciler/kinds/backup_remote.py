"""BackupRemote: another backup server that a backup server knows, for sync jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Line, Ref, Word
from reconciler.kinds.proxmox_cluster import Fingerprint, check_name
from reconciler.model import Document, Kind, Resource, Secret, Spec, declared
from reconciler.types.backup.remote import TYPE as pbs_remote
from reconciler.types.proxmox.names import JobName, Principal


class BackupRemoteSpec(Spec):
    """Another backup server that a backup server knows, as a source or target of sync jobs.

    Example:

        apiVersion: reconciler/v1
        kind: BackupRemote
        metadata:
          name: backup1-at-backup2
        spec:
          server: backup2
          name: backup1
          host: backup1.example.org
          login: sync@pbs
          password: {secretRef: env:SYNC_PASSWORD}
    """

    server: Annotated[str, Ref("BackupServer")] = Field(description="The BackupServer that knows it.")
    name: JobName | None = Field(None, description="What it is called there; the document's name by default.")
    host: Word = Field(description="Name or address of the other server.")
    port: int | None = Field(None, ge=1, le=65535, description="Its TCP port.")
    login: Principal = Field(description="User or token on the other server.")
    password: Secret = Field(description="Its password or the token's secret.")
    fingerprint: Fingerprint | None = Field(None, description="SHA-256 fingerprint of its certificate.")
    comment: Line | None = Field(None, description="For people.")


def expand(document: Document[BackupRemoteSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The entry."""
    spec = document.spec
    fields = declared(spec, "host", "port", "password", "fingerprint", "comment")
    yield pbs_remote(spec.server, name=spec.name or document.name, auth_id=spec.login, **fields)


def check(document: Document[BackupRemoteSpec], catalog: Catalog) -> Iterable[Problem]:
    """What it is called on the server must be a name there."""
    yield from check_name(document, catalog, "name", JobName)


KIND = Kind("BackupRemote", BackupRemoteSpec, expand, check)
