"""pbs.acl: one entry of the access list of a backup server: who has which role where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reconciler.model import Change, Probe, ResourceType, Step
from reconciler.types.proxmox.acl import Entry, look, request


class Acl(Entry):
    """An entry of the access list of a backup server: who has which role where."""


def probe(entries: Sequence[Acl]) -> Probe:
    """One list."""
    return (yield from look(entries, "/access/acl", ("Sys.Audit",)))


def steps(change: Change[Acl]) -> Iterable[Step]:
    """One request."""
    yield request(change, {"auth-id": change.spec.who, "role": change.spec.role})


def needs(acl: Acl) -> Iterable[str]:
    """Who gets the role; and the datastore or remote that the path names, so that it goes before them."""
    yield f"principal:{acl.who}"
    parts = acl.path.split("/")
    if len(parts) > 2 and parts[1] in ("datastore", "remote"):
        yield f"{parts[1]}:{parts[2]}"


# The role belongs to the token: an entry with another one does not take the place of this one.
TYPE: ResourceType[Any] = ResourceType(
    "pbs.acl", Acl, probe, steps, provides=lambda acl: (f"acl:{acl.path}:{acl.who}:{acl.role}",), needs=needs
)
