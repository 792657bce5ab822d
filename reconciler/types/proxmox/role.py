"""pve.role: a role of a Proxmox VE cluster, a name for a set of privileges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from reconciler.fields import Word
from reconciler.model import IDENTITY, Change, Probe, Request, ResourceType, Spec, Step
from reconciler.types.api import WORDS, Api, Entries
from reconciler.types.proxmox.names import RoleId


class Role(Spec):
    """A role of a Proxmox VE cluster, a name for a set of privileges."""

    roleid: Annotated[RoleId, IDENTITY]
    privs: Annotated[tuple[Word, ...] | None, Api(codec=WORDS, default=[])] = None


ENTRIES = Entries(
    what="roles",
    spec=Role,
    listing="/access/roles",
    key="roleid",
    privileges=(),
    acl=lambda role: "/access",
    unset="empty",
    digest=False,
)


def probe(roles: Sequence[Role]) -> Probe:
    """One list, which everybody may read."""
    return (yield from ENTRIES.probe(roles))


def steps(change: Change[Role]) -> Iterable[Step]:
    """One request. A PUT without privileges empties a role, so they are always sent."""
    for request in ENTRIES.steps(change):
        if request.method == "PUT":
            privs = ",".join(change.spec.privs or ())
            yield Request("PUT", request.path, {"privs": privs}, title=request.title)
        else:
            yield request


TYPE: ResourceType[Any] = ResourceType(
    "pve.role", Role, probe, steps, normalize=ENTRIES.normalize, provides=lambda role: (f"role:{role.roleid}",)
)
