"""pve.acl: one entry of the access list of a Proxmox VE cluster: who has which role where.

The API adds and deletes entries and never replaces one: another role is another entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from reconciler.model import IDENTITY, Absent, Change, Get, Probe, Request, ResourceType, Spec, State, Step, Unprobed
from reconciler.types.api import FLAG, PERMISSIONS, Api, answer, observe, require
from reconciler.types.proxmox.names import AclPath, AnyRole, Principal


class Acl(Spec):
    """An entry of the access list of a Proxmox VE cluster: who has which role where."""

    path: Annotated[AclPath, IDENTITY]
    who: Annotated[Principal, IDENTITY]
    role: Annotated[AnyRole, IDENTITY]
    propagate: Annotated[bool | None, Api(codec=FLAG, default=True)] = None


def probe(entries: Sequence[Acl]) -> Probe:
    """One list."""
    rights, rows = yield [PERMISSIONS, Get("/access/acl")]
    require(rights, "the access list", ["/access"], ("Sys.Audit", "Permissions.Modify"))
    known = {
        (row["path"], ("@" if row["type"] == "group" else "") + row["ugid"], row["roleid"]): row
        for row in answer(rows, "the access list")
    }
    states: list[State | Absent | Unprobed | None] = []
    for entry in entries:
        states.append(observe(Acl, known.get((entry.path, entry.who, entry.role))))
    return states


def steps(change: Change[Acl]) -> Iterable[Step]:
    """One request, which adds, changes `propagate`, or deletes."""
    spec = change.spec
    kind = "groups" if spec.who.startswith("@") else "tokens" if "!" in spec.who else "users"
    params = {"path": spec.path, kind: spec.who.removeprefix("@"), "roles": spec.role}
    if change.after is None:
        title = f"take {spec.role} on {spec.path} from {spec.who}"
        yield Request("PUT", "/access/acl", {**params, "delete": 1}, title=title)
    else:
        flag = {"propagate": int(spec.propagate)} if spec.propagate is not None else {}
        yield Request("PUT", "/access/acl", {**params, **flag}, title=f"give {spec.who} {spec.role} on {spec.path}")


TYPE: ResourceType[Any] = ResourceType(
    "pve.acl",
    Acl,
    probe,
    steps,
    needs=lambda acl: (f"principal:{acl.who}", f"role:{acl.role}"),
)
