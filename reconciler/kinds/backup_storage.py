"""BackupStorage: backups of a Proxmox VE cluster on a backup server, both ends in one document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import AbsolutePath, Line, Ref, Word
from reconciler.kinds.datastore import Pool
from reconciler.kinds.datastore import resources as datastore
from reconciler.kinds.proxmox_cluster import check_name
from reconciler.kinds.prune_job import numbers
from reconciler.model import Document, Kind, Resource, Secret, Spec, declared
from reconciler.types.api import Retention
from reconciler.types.backup.acl import TYPE as pbs_acl
from reconciler.types.backup.namespace import TYPE as pbs_namespace
from reconciler.types.backup.namespace import NamespacePath
from reconciler.types.backup.prune_job import TYPE as pbs_prune_job
from reconciler.types.backup.user import TYPE as pbs_user
from reconciler.types.proxmox.names import AnyRole, JobName, NodeName, Schedule, UserId
from reconciler.types.proxmox.storage import TYPE as pve_storage
from reconciler.types.proxmox.storage import StorageId


class BackupStorageSpec(Spec):
    """Backups of a Proxmox VE cluster on a backup server, both ends in one document.

    On the server: the datastore (with `zfs` also its pool), an account with a password for the cluster, its role on the
    datastore, and a prune job. On the cluster: the storage of type pbs that logs in with that account and trusts just
    the server's certificate. The server's end comes first, because the storage logs in when it is made.

    With `encryptionKey` backups are encrypted before they leave the nodes. Keep that key outside of the cluster, too:
    without it no backup can be read. It is sent once and never replaced.

    Example:

        apiVersion: reconciler/v1
        kind: BackupStorage
        metadata:
          name: backup1
        spec:
          cluster: dc01
          server: backup1
          datastore: dc01
          user: dc01@pbs
          password: {secretRef: env:DC01_BACKUP_PASSWORD}
          keep: {keepDaily: 14, keepWeekly: 8}
    """

    cluster: Annotated[str, Ref("ProxmoxCluster")] = Field(description="The ProxmoxCluster whose guests are backed up.")
    server: Annotated[str, Ref("BackupServer")] = Field(description="The BackupServer that takes the backups.")
    storage: StorageId | None = Field(None, description="Id of the storage; the document's name by default.")
    address: Word | None = Field(None, description="How nodes reach the server; by its first endpoint by default.")
    datastore: JobName = Field(description="Name of the datastore on the server.")
    path: AbsolutePath | None = Field(None, description="Its folder; /mnt/datastore/NAME by default.")
    zfs: Pool | None = Field(None, description="Make a ZFS pool of this name for it first.")
    gc_schedule: Schedule | None = Field(None, description="When space is freed: a calendar event.")
    verify_new: bool | None = Field(None, description="Read each backup back as soon as it is made.")
    user: UserId = Field(description="The account that the cluster logs in with.")
    password: Secret = Field(description="Its password.")
    role: AnyRole = Field("DatastoreBackup", description="Its role on the datastore: may back up and restore its own.")
    namespace: NamespacePath | None = Field(None, description="Namespace in the datastore; it is made.")
    keep: Retention | None = Field(None, description="Which backups the server keeps: a prune job.")
    prune_schedule: Schedule = Field("daily", description="When the others go.")
    nodes: tuple[NodeName, ...] | None = Field(None, description="The nodes that have the storage; all by default.")
    encryption_key: Secret | None = Field(None, description="Encrypts backups on the nodes (Proxmox's JSON form).")
    comment: Line | None = Field(None, description="For people.")
    reuse: bool | None = Field(None, description="Take over a chunk store that lies in the folder already.")


def expand(document: Document[BackupStorageSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The server's end, then the cluster's."""
    spec = document.spec
    yield from datastore(spec.server, spec.datastore, spec)
    yield pbs_user(spec.server, userid=spec.user, password=spec.password, enabled=True)
    parts = (spec.namespace or "").split("/")
    for depth in range(1, len(parts) + 1) if spec.namespace else ():
        yield pbs_namespace(spec.server, store=spec.datastore, name="/".join(parts[:depth]))
    where = f"/datastore/{spec.datastore}" + (f"/{spec.namespace}" if spec.namespace else "")
    yield pbs_acl(spec.server, path=where, who=spec.user, role=spec.role, propagate=True)
    if spec.keep is not None:
        namespace = declared(spec, "namespace")
        yield pbs_prune_job(
            spec.server,
            id=f"{spec.datastore}-{document.name}"[:32],
            store=spec.datastore,
            schedule=spec.prune_schedule,
            **namespace,
            **numbers(spec.keep),
        )
    server = catalog.get(f"BackupServer/{spec.server}")
    first = urlsplit(server.spec.endpoints[0]) if server else urlsplit("")
    fields: dict[str, Any] = declared(spec, "namespace", "nodes", "encryption_key")
    if first.port not in (None, 8007) and spec.address is None:
        fields["port"] = first.port
    if server is not None and server.spec.fingerprint:
        fields["fingerprint"] = server.spec.fingerprint
    yield pve_storage(
        spec.cluster,
        storage=spec.storage or document.name,
        type="pbs",
        content=("backup",),
        server=spec.address or first.hostname or "",
        datastore=spec.datastore,
        username=spec.user,
        password=spec.password,
        # Making the storage logs in and looks for the datastore.
        after=tuple(
            f"@{spec.server}/{token}"
            for token in (
                f"datastore:{spec.datastore}",
                f"principal:{spec.user}",
                f"acl:{where}:{spec.user}:{spec.role}",
            )
        ),
        **fields,
    )


def check(document: Document[BackupStorageSpec], catalog: Catalog) -> Iterable[Problem]:
    """The account must be one whose password can be set, and the storage must have a name that it can have."""
    if document.spec.user.rpartition("@")[2] != "pbs":
        message = "the account must be of the realm pbs, because its password is set here."
        yield catalog.problem(document, ("spec", "user"), message, f"Write {document.spec.user.partition('@')[0]}@pbs.")
    yield from check_name(document, catalog, "storage", StorageId)


KIND = Kind("BackupStorage", BackupStorageSpec, expand, check)
