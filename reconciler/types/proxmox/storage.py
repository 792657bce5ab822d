"""pve.storage: a storage definition of a Proxmox VE cluster.

Deleting a definition never touches volumes; making it again shows them again. What is fixed at creation is changed by
doing both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from reconciler.fields import Line, Rule
from reconciler.model import CONTROL, IDENTITY, Change, Probe, ResourceType, Risk, Secret, Spec, Step
from reconciler.types.api import FLAG, KEEP, NOT, NUMBER, TEXT, WORDS, Api, Entries, Retention

StorageId = Annotated[
    str,
    Rule(r"[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]", "a storage id: letters, digits, . - _, starting with a letter", 100),
]


class Storage(Spec):
    """A storage definition of a Proxmox VE cluster."""

    storage: Annotated[StorageId, IDENTITY]
    type: Annotated[str | None, Api()] = None
    content: Annotated[tuple[str, ...] | None, Api(codec=WORDS)] = None
    nodes: Annotated[tuple[str, ...] | None, Api(codec=WORDS, default=[])] = None
    enabled: Annotated[bool | None, Api("disable", NOT, default=True)] = None
    shared: Annotated[bool | None, Api(codec=FLAG, default=False)] = None
    path: Annotated[str | None, Api()] = None
    pool: Annotated[str | None, Api()] = None
    sparse: Annotated[bool | None, Api(codec=FLAG, default=False)] = None
    blocksize: Annotated[str | None, Api()] = None
    mountpoint: Annotated[str | None, Api()] = None
    vgname: Annotated[str | None, Api()] = None
    thinpool: Annotated[str | None, Api()] = None
    server: Annotated[str | None, Api()] = None
    port: Annotated[int | None, Api(codec=NUMBER)] = None
    export: Annotated[str | None, Api()] = None
    options: Annotated[str | None, Api(default="")] = None
    share: Annotated[str | None, Api()] = None
    domain: Annotated[str | None, Api(default="")] = None
    smbversion: Annotated[str | None, Api()] = None
    subdir: Annotated[str | None, Api(default="")] = None
    username: Annotated[str | None, Api()] = None
    password: Annotated[Secret | None, Api(hidden=True)] = None
    datastore: Annotated[str | None, Api()] = None
    namespace: Annotated[Line | None, Api(default="")] = None
    fingerprint: Annotated[str | None, Api()] = None
    encryption_key: Annotated[Literal["autogen"] | Secret | None, Api(hidden=True), CONTROL] = None
    prune_backups: Annotated[Retention | None, Api(codec=KEEP)] = None
    is_mountpoint: Annotated[bool | None, Api("is_mountpoint", FLAG, default=False)] = None
    create_base_path: Annotated[bool | None, Api(codec=FLAG)] = None
    create_subdirs: Annotated[bool | None, Api(codec=FLAG)] = None
    max_protected_backups: Annotated[int | None, Api(codec=NUMBER)] = None
    preallocation: Annotated[str | None, Api(codec=TEXT)] = None
    after: Annotated[tuple[str, ...], CONTROL] = ()


ENTRIES = Entries(
    "storages",
    Storage,
    "/storage",
    "storage",
    ("Datastore.Audit", "Datastore.Allocate"),
    lambda s: f"/storage/{s.storage}",
)


def probe(storages: Sequence[Storage]) -> Probe:
    """One list; its digest guards what is written next."""
    return (yield from ENTRIES.probe(storages))


def steps(change: Change[Storage]) -> Iterable[Step]:
    """One request. Creation activates the storage, so that a wrong pool or server is refused here."""
    yield from ENTRIES.steps(change)


def risk(change: Change[Storage]) -> Risk | None:
    """Guests lose the storage while it is made again."""
    if change.before is not None and (change.after is None or TYPE.immutable & change.changed):
        return Risk("downtime", "what uses the storage cannot reach it while the definition is away; volumes stay")
    return None


TYPE: ResourceType[Any] = ResourceType(
    "pve.storage",
    Storage,
    probe,
    steps,
    normalize=ENTRIES.normalize,
    immutable=frozenset(("type", "path", "pool", "vgname", "thinpool", "server", "export", "share", "datastore")),
    write_only=frozenset(("password",)),
    # Jobs copy what lies on ZFS, and remove the copies when they go: such storages come before them and go after them.
    provides=lambda s: (f"storage:{s.storage}", *["edit:zfs storages"] * (s.type == "zfspool")),
    needs=lambda s: s.after,
    risk=risk,
)
