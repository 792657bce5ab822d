"""pve.group: a group of users of a Proxmox VE cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from reconciler.fields import Line
from reconciler.model import IDENTITY, Change, Probe, ResourceType, Spec, Step
from reconciler.types.api import Api, Entries
from reconciler.types.proxmox.names import GroupId


class Group(Spec):
    """A group of users of a Proxmox VE cluster."""

    groupid: Annotated[GroupId, IDENTITY]
    comment: Annotated[Line | None, Api(default="")] = None


ENTRIES = Entries(
    what="groups",
    spec=Group,
    listing="/access/groups",
    key="groupid",
    privileges=("Sys.Audit", "Group.Allocate", "User.Modify"),
    acl=lambda group: f"/access/groups/{group.groupid}",
    unset="empty",
    digest=False,
)


def probe(groups: Sequence[Group]) -> Probe:
    """One list."""
    return (yield from ENTRIES.probe(groups))


def steps(change: Change[Group]) -> Iterable[Step]:
    """One request. Deleting a group takes its entries of the access list with it."""
    yield from ENTRIES.steps(change)


TYPE: ResourceType[Any] = ResourceType(
    "pve.group", Group, probe, steps, provides=lambda group: (f"principal:@{group.groupid}",)
)
