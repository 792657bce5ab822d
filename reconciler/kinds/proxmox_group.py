"""ProxmoxGroup: a group of users of a Proxmox VE cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Line, Ref
from reconciler.kinds.proxmox_cluster import check_name
from reconciler.model import Discovery, Document, Kind, Resource, Spec, Target, declared
from reconciler.types.api import document_name
from reconciler.types.proxmox.group import ENTRIES
from reconciler.types.proxmox.group import TYPE as pve_group
from reconciler.types.proxmox.names import GroupId


class ProxmoxGroupSpec(Spec):
    """A group of users of a Proxmox VE cluster. Who is in it is said by the users.

    Example:

        apiVersion: reconciler/v1
        kind: ProxmoxGroup
        metadata:
          name: operators
        spec:
          cluster: dc01
          comment: may start and stop guests
    """

    cluster: Annotated[str, Ref("ProxmoxCluster")] = Field(description="The ProxmoxCluster.")
    group: GroupId | None = Field(None, description="Its name in the cluster; the document's name by default.")
    comment: Line | None = Field(None, description="For people.")


def expand(document: Document[ProxmoxGroupSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The group."""
    spec = document.spec
    yield pve_group(spec.cluster, groupid=spec.group or document.name, **declared(spec, "comment"))


def check(document: Document[ProxmoxGroupSpec], catalog: Catalog) -> Iterable[Problem]:
    """What it is called on the server must be a name there."""
    yield from check_name(document, catalog, "group", GroupId)


def discover(target: Target) -> Discovery | None:
    """The groups of a cluster."""
    return _discover(target.name) if target.settings.get("service") == "PVE" else None


def _discover(cluster: str) -> Discovery:
    found = yield from ENTRIES.discover()
    return [(document_name(cluster, name), {"cluster": cluster, "group": name, **values}) for name, values in found]


KIND = Kind("ProxmoxGroup", ProxmoxGroupSpec, expand, check, discover=discover)
