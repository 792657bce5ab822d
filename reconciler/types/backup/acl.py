"""pbs.acl: one entry of the access list of a backup server: who has which role where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from reconciler.model import IDENTITY, Absent, Change, Get, Probe, Request, ResourceType, Spec, State, Step, Unprobed
from reconciler.types.api import FLAG, PERMISSIONS, Api, answer, observe, require
from reconciler.types.proxmox.names import AclPath, AnyRole, Principal


class Acl(Spec):
    """An entry of the access list of a backup server: who has which role where."""

    path: Annotated[AclPath, IDENTITY]
    who: Annotated[Principal, IDENTITY]
    role: Annotated[AnyRole, IDENTITY]
    propagate: Annotated[bool | None, Api(codec=FLAG, default=True)] = None


def probe(entries: Sequence[Acl]) -> Probe:
    """One list."""
    rights, rows = yield [PERMISSIONS, Get("/access/acl")]
    require(rights, "the access list", ["/access/acl"], ("Sys.Audit",))
    known = {(row["path"], row["ugid"], row["roleid"]): row for row in answer(rows, "the access list")}
    states: list[State | Absent | Unprobed | None] = []
    for entry in entries:
        states.append(observe(Acl, known.get((entry.path, entry.who, entry.role))))
    return states


def steps(change: Change[Acl]) -> Iterable[Step]:
    """One request, which adds, changes `propagate`, or deletes."""
    spec = change.spec
    params = {"path": spec.path, "auth-id": spec.who, "role": spec.role}
    if change.after is None:
        title = f"take {spec.role} on {spec.path} from {spec.who}"
        yield Request("PUT", "/access/acl", {**params, "delete": 1}, title=title)
    else:
        flag = {"propagate": int(spec.propagate)} if spec.propagate is not None else {}
        yield Request("PUT", "/access/acl", {**params, **flag}, title=f"give {spec.who} {spec.role} on {spec.path}")


def needs(acl: Acl) -> Iterable[str]:
    """Who gets the role; and the datastore or remote that the path names, so that it goes before them."""
    yield f"principal:{acl.who}"
    parts = acl.path.split("/")
    if len(parts) > 2 and parts[1] in ("datastore", "remote"):
        yield f"{parts[1]}:{parts[2]}"


TYPE: ResourceType[Any] = ResourceType(
    "pbs.acl", Acl, probe, steps, provides=lambda acl: (f"acl:{acl.path}:{acl.who}:{acl.role}",), needs=needs
)
