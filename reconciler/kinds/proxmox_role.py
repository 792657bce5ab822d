"""ProxmoxRole: a role of a Proxmox VE cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from reconciler.expand import Catalog
from reconciler.fields import Ref, Rule
from reconciler.model import Discovery, Document, Kind, Resource, Spec, Target
from reconciler.types.api import document_name
from reconciler.types.proxmox.names import RoleId
from reconciler.types.proxmox.role import ENTRIES
from reconciler.types.proxmox.role import TYPE as pve_role

Privilege = Annotated[str, Rule(r"[A-Z][A-Za-z]+(?:\.[A-Z][A-Za-z]+){1,2}", "a privilege, such as VM.PowerMgmt", 64)]


class ProxmoxRoleSpec(Spec):
    """A role of a Proxmox VE cluster: a name for a set of privileges. Backup servers have fixed roles.

    Example:

        apiVersion: reconciler/v1
        kind: ProxmoxRole
        metadata:
          name: power-operator
        spec:
          cluster: dc01
          role: PowerOperator
          privileges: [VM.Audit, VM.PowerMgmt]
    """

    cluster: Annotated[str, Ref("ProxmoxCluster")] = Field(description="The ProxmoxCluster.")
    role: RoleId = Field(description="Its name in the cluster.")
    privileges: tuple[Privilege, ...] = Field(description="All that it holds, and no more.")


def expand(document: Document[ProxmoxRoleSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The role."""
    spec = document.spec
    yield pve_role(spec.cluster, roleid=spec.role, privs=spec.privileges)


def discover(target: Target) -> Discovery | None:
    """The roles of a cluster that are not built in."""
    return _discover(target.name) if target.settings.get("service") == "PVE" else None


def _discover(cluster: str) -> Discovery:
    found = yield from ENTRIES.discover(lambda row: not int(row.get("special") or 0))
    return [
        (document_name(cluster, name), {"cluster": cluster, "role": name, "privileges": values.get("privs", [])})
        for name, values in found
    ]


KIND = Kind("ProxmoxRole", ProxmoxRoleSpec, expand, discover=discover)
