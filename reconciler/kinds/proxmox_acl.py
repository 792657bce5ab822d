"""ProxmoxAcl: who has which role where, on a Proxmox VE cluster or a backup server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.kinds.proxmox_user import Place, one_place
from reconciler.model import Discovery, Document, Get, Kind, Resource, Target
from reconciler.types.api import PERMISSIONS, answer, document_name, require
from reconciler.types.backup.acl import TYPE as pbs_acl
from reconciler.types.proxmox.acl import TYPE as pve_acl
from reconciler.types.proxmox.names import AclPath, AnyRole, Principal


class ProxmoxAclSpec(Place):
    """Who has which role where, on a Proxmox VE cluster or a backup server.

    Every combination of `to` and `roles` is one entry of the access list. The list is additive: entries that no
    document names are left alone. root@pam has all rights anyway and cannot be listed.

    Example:

        apiVersion: reconciler/v1
        kind: ProxmoxAcl
        metadata:
          name: operators-on-web1
        spec:
          cluster: dc01
          path: /vms/100
          to: ["@operators"]
          roles: [PVEVMUser]
    """

    path: AclPath = Field(description="What the role is given on, such as /, /vms/100, /storage/tank-vm.")
    to: tuple[Principal, ...] = Field(
        min_length=1, description="Users (ops@pve), groups (@admins), tokens (ops@pve!ci)."
    )
    roles: tuple[AnyRole, ...] = Field(min_length=1, description="Names of roles.")
    propagate: bool = Field(True, description="Whether it counts below the path, too.")


def expand(document: Document[ProxmoxAclSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """An entry for each combination."""
    spec = document.spec
    entry = pve_acl if spec.cluster else pbs_acl
    for who in spec.to:
        for role in spec.roles:
            yield entry(spec.target, path=spec.path, who=who, role=role, propagate=spec.propagate)


def check(document: Document[ProxmoxAclSpec], catalog: Catalog) -> Iterable[Problem]:
    """What the servers would take silently and not store."""
    yield from one_place(document, catalog)
    for index, who in enumerate(document.spec.to):
        if who == "root@pam":
            message, fix = "root@pam has all rights anyway, and entries for it are not stored.", "Take it out."
            yield catalog.problem(document, ("spec", "to", index), message, fix)
        if document.spec.server and who.startswith("@"):
            message, fix = "a backup server has no groups.", "Name the users."
            yield catalog.problem(document, ("spec", "to", index), message, fix)


def discover(target: Target) -> Discovery | None:
    """The access list of a cluster or a server."""
    if target.connection != "proxmox":
        return None
    return _discover(target.name, "cluster" if target.settings["service"] == "PVE" else "server")


def _discover(target: str, place: str) -> Discovery:
    rights, reply = yield [PERMISSIONS, Get("/access/acl")]
    where = "/access" if place == "cluster" else "/access/acl"
    require(rights, "the access list", [where], ("Sys.Audit", *["Permissions.Modify"] * (place == "cluster")))
    found = []
    for row in answer(reply, "the access list"):
        who = ("@" if row.get("type") == "group" else "") + row["ugid"]
        spec = {place: target, "path": row["path"], "to": [who], "roles": [row["roleid"]]}
        if not int(row.get("propagate", 1)):
            spec["propagate"] = False
        found.append((document_name(target, who, row["roleid"], row["path"]), spec))
    return sorted(found, key=lambda one: one[0])


KIND = Kind("ProxmoxAcl", ProxmoxAclSpec, expand, check, discover=discover)
