"""pve.acl: one entry of the access list of a Proxmox VE cluster: who has which role where.

The API adds and deletes entries and never replaces one: another role is another entry. Backup servers do the same with
other parameters; what is said of entries there, too, is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from reconciler.model import IDENTITY, Change, Get, Probe, Request, ResourceType, Spec, Step
from reconciler.types.api import FLAG, PERMISSIONS, Api, answer, observe, require
from reconciler.types.proxmox.names import AclPath, AnyRole, Principal


class Entry(Spec):
    """An entry of an access list, wherever it is."""

    path: Annotated[AclPath, IDENTITY]
    who: Annotated[Principal, IDENTITY]
    role: Annotated[AnyRole, IDENTITY]
    propagate: Annotated[bool | None, Api(codec=FLAG, default=True)] = None


class Acl(Entry):
    """An entry of the access list of a Proxmox VE cluster: who has which role where."""


def probe(entries: Sequence[Acl]) -> Probe:
    """See `look`."""
    return (yield from look(entries, "/access", ("Sys.Audit", "Permissions.Modify")))


def look(entries: Sequence[Entry], where: str, privileges: Sequence[str]) -> Probe:
    """One list, which who has one of the privileges there sees whole."""
    rights, rows = yield [PERMISSIONS, Get("/access/acl")]
    require(rights, "the access list", [where], privileges)
    known = {
        (row["path"], ("@" if row.get("type") == "group" else "") + row["ugid"], row["roleid"]): row
        for row in answer(rows, "the access list")
    }
    return [observe(Entry, known.get((entry.path, entry.who, entry.role))) for entry in entries]


def steps(change: Change[Acl]) -> Iterable[Step]:
    """See `request`."""
    spec = change.spec
    kind = "groups" if spec.who.startswith("@") else "tokens" if "!" in spec.who else "users"
    yield request(change, {kind: spec.who.removeprefix("@"), "roles": spec.role})


def request(change: Change[Any], params: Mapping[str, str]) -> Request:
    """One request, which adds, changes `propagate`, or deletes.

    Args:
        params: who, and the role.
    """
    spec: Entry = change.spec
    there = {"path": spec.path, **params}
    if change.after is None:
        title = f"take {spec.role} on {spec.path} from {spec.who}"
        return Request("PUT", "/access/acl", {**there, "delete": 1}, title=title)
    flag = {"propagate": int(spec.propagate)} if spec.propagate is not None else {}
    return Request("PUT", "/access/acl", {**there, **flag}, title=f"give {spec.who} {spec.role} on {spec.path}")


TYPE: ResourceType[Any] = ResourceType(
    "pve.acl",
    Acl,
    probe,
    steps,
    needs=lambda acl: (f"principal:{acl.who}", f"role:{acl.role}"),
)
