"""ProxmoxStorage: a storage of a Proxmox VE cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import AbsolutePath, Line, Ref, Word
from reconciler.kinds.proxmox_cluster import Fingerprint, check_name
from reconciler.model import Discovery, Document, Kind, Resource, Secret, Spec, Target
from reconciler.types.api import Retention, document_name
from reconciler.types.proxmox.names import NodeName
from reconciler.types.proxmox.storage import ENTRIES, StorageId
from reconciler.types.proxmox.storage import TYPE as pve_storage

Content = Literal["images", "rootdir", "backup", "iso", "vztmpl", "snippets", "import", "none"]
StorageType = Literal["dir", "zfspool", "lvm", "lvmthin", "nfs", "cifs", "pbs", "btrfs", "cephfs", "rbd", "esxi"]

_FILES: Final = frozenset(
    ("pruneBackups", "maxProtectedBackups", "createBasePath", "createSubdirs", "preallocation", "shared")
)
OPTIONS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    "dir": (frozenset(("path",)), _FILES | {"isMountpoint"}),
    "btrfs": (frozenset(("path",)), _FILES | {"isMountpoint"}),
    "zfspool": (frozenset(("pool",)), frozenset(("sparse", "blocksize", "mountpoint"))),
    "lvm": (frozenset(("vgname",)), frozenset(("shared",))),
    "lvmthin": (frozenset(("vgname", "thinpool")), frozenset()),
    "nfs": (frozenset(("server", "export")), (_FILES | {"path", "options"}) - {"shared"}),
    "cifs": (
        frozenset(("server", "share")),
        (_FILES | {"path", "options", "username", "password", "domain", "smbversion", "subdir"}) - {"shared"},
    ),
    "pbs": (
        frozenset(("server", "datastore")),
        frozenset(
            (
                "username",
                "password",
                "fingerprint",
                "namespace",
                "port",
                "encryptionKey",
                "pruneBackups",
                "maxProtectedBackups",
            )
        ),
    ),
    "cephfs": (frozenset(), frozenset(("path", "username", "subdir", "options", "pruneBackups"))),
    "rbd": (frozenset(), frozenset(("pool", "username", "namespace"))),
    "esxi": (frozenset(("server", "username")), frozenset(("password", "port"))),
}
"""Storage type -> options that it needs, and options that it takes besides."""
_ALL_TYPES: Final = frozenset(("cluster", "id", "type", "content", "nodes", "enabled"))


class ProxmoxStorageSpec(Spec):
    """A storage of a Proxmox VE cluster.

    Each type takes options of its own; `validate` says which. Path, pool, server and the like are fixed: another value
    takes the definition away and makes it again, which leaves volumes alone. A password is sent when the storage is
    made and whenever the secret changes; an encryption key is never replaced, because old backups would be lost with
    it.

    Example:

        apiVersion: reconciler/v1
        kind: ProxmoxStorage
        metadata:
          name: tank-vm
        spec:
          cluster: dc01
          type: zfspool
          pool: tank/vm
          sparse: true
          content: [images, rootdir]
          nodes: [pve1, pve2]
    """

    cluster: Annotated[str, Ref("ProxmoxCluster")] = Field(description="The ProxmoxCluster.")
    id: StorageId | None = Field(None, description="Its id in the cluster; the document's name by default.")
    type: StorageType = Field(description="What kind of storage it is.")
    content: tuple[Content, ...] | None = Field(None, min_length=1, description="What may lie on it.")
    nodes: tuple[NodeName, ...] | None = Field(None, description="The nodes that have it; all by default.")
    enabled: bool | None = Field(None, description="Whether it is used. A disabled one is not contacted.")
    shared: bool | None = Field(None, description="The same on every node.")
    path: AbsolutePath | None = Field(None, description="Folder, or mount point of a network share.")
    pool: Word | None = Field(None, description="ZFS dataset or Ceph pool.")
    sparse: bool | None = Field(None, description="Thin volumes on ZFS.")
    blocksize: Word | None = Field(None, description="Block size of ZFS volumes.")
    mountpoint: AbsolutePath | None = Field(None, description="Where the ZFS dataset is mounted.")
    vgname: Word | None = Field(None, description="LVM volume group.")
    thinpool: Word | None = Field(None, description="LVM thin pool.")
    server: Word | None = Field(None, description="Name or address of the server.")
    port: int | None = Field(None, ge=1, le=65535, description="TCP port of the server.")
    export: AbsolutePath | None = Field(None, description="NFS export.")
    options: Line | None = Field(None, description="Mount options.")
    share: Word | None = Field(None, description="CIFS share.")
    domain: Word | None = Field(None, description="CIFS domain.")
    smbversion: Literal["default", "2.0", "2.1", "3", "3.0", "3.11"] | None = Field(None, description="CIFS dialect.")
    subdir: Line | None = Field(None, description="Folder inside the share.")
    username: Word | None = Field(None, description="Whom to log in as on the server.")
    password: Secret | None = Field(None, description="The password or token secret of `username`.")
    datastore: Word | None = Field(None, description="Datastore of a backup server.")
    namespace: Line | None = Field(None, description="Namespace in the datastore.")
    fingerprint: Fingerprint | None = Field(None, description="SHA-256 fingerprint of the backup server.")
    encryption_key: Literal["autogen"] | Secret | None = Field(
        None, description="Encrypts backups: a key from the secret store. Sent once, when the storage is made."
    )
    prune_backups: Retention | None = Field(None, description="Which backups are kept.")
    is_mountpoint: bool | None = Field(None, description="Use the folder only while something is mounted there.")
    create_base_path: bool | None = Field(None, description="Make the folder if it is missing.")
    create_subdirs: bool | None = Field(None, description="Make the usual folders in it.")
    max_protected_backups: int | None = Field(None, ge=-1, description="Protected backups per guest; -1 = any number.")
    preallocation: Literal["off", "metadata", "falloc", "full"] | None = Field(None, description="For raw and qcow2.")


def expand(document: Document[ProxmoxStorageSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The definition."""
    spec = document.spec
    fields = {
        name: getattr(spec, name)
        for name in type(spec).model_fields
        if name not in ("cluster", "id") and getattr(spec, name) is not None
    }
    yield pve_storage(spec.cluster, storage=spec.id or document.name, **fields)


def check(document: Document[ProxmoxStorageSpec], catalog: Catalog) -> Iterable[Problem]:
    """Each type takes options of its own."""
    spec = document.spec
    needed, allowed = OPTIONS[spec.type]
    given = {
        field.alias or name: name
        for name, field in type(spec).model_fields.items()
        if name in spec.model_fields_set and getattr(spec, name) is not None
    }
    for option in sorted(needed - given.keys()):
        yield catalog.problem(document, ("spec", "type"), f"{spec.type} needs {option}.", f"Add `{option}:`.")
    for option in sorted(given.keys() - needed - allowed - _ALL_TYPES):
        takes = ", ".join(sorted(needed | allowed))
        yield catalog.problem(document, ("spec", option), f"{spec.type} takes no {option}.", f"It takes: {takes}.")
    if spec.content and "none" in spec.content and len(spec.content) > 1:
        message, fix = "`none` stands alone.", "Take it out, or the others."
        yield catalog.problem(document, ("spec", "content"), message, fix)
    yield from check_name(document, catalog, "id", StorageId)
    keep = spec.prune_backups
    if keep is not None and keep.keep_all and len(keep.model_dump(exclude_none=True)) > 1:
        message, fix = "`keepAll` stands alone.", "Take it out, or the numbers."
        yield catalog.problem(document, ("spec", "pruneBackups"), message, fix)


def discover(target: Target) -> Discovery | None:
    """The storages of a cluster."""
    return _discover(target.name) if target.settings.get("service") == "PVE" else None


def _discover(cluster: str) -> Discovery:
    found = yield from ENTRIES.discover()
    return [
        (document_name(cluster, name), {"cluster": cluster, "id": name, **_known(values)}) for name, values in found
    ]


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the document takes for such a storage; the answer shows derived values, too."""
    needed, allowed = OPTIONS.get(values["type"], (frozenset(), frozenset()))
    takes = needed | allowed | _ALL_TYPES
    return {name: value for name, value in values.items() if name in takes}


KIND = Kind("ProxmoxStorage", ProxmoxStorageSpec, expand, check, discover=discover)
