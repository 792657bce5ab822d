"""Guest: settings of a virtual machine or container that a Proxmox VE cluster has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Line, Ref, Word
from reconciler.model import Discovery, Document, Get, Kind, Resource, Spec, Target, declared
from reconciler.types.api import PERMISSIONS, answer, document_name, fields_of, require
from reconciler.types.proxmox.guest import TYPE as pve_guest
from reconciler.types.proxmox.names import GuestName


class GuestSpec(Spec):
    """Settings of a virtual machine or container that a Proxmox VE cluster has.

    The guest is found by its number or its name, on whatever node it is; a guest that moved is the same guest. It is
    neither made nor removed: the settings that are listed are kept, all others are left alone. Most settings of a
    running guest count from its next start on.

    Example:

        apiVersion: reconciler/v1
        kind: Guest
        metadata:
          name: web1
        spec:
          cluster: dc01
          guest: "100"
          onBoot: true
          protection: true
          tags: [prod, web]
          options:
            agent: enabled=1
    """

    cluster: Annotated[str, Ref("ProxmoxCluster")] = Field(description="The ProxmoxCluster.")
    guest: GuestName = Field(description="Number, or name where that is unique in the cluster.")
    name: Line | None = Field(None, description="Its name.")
    description: str | None = Field(None, description="Notes, shown in the web interface.")
    tags: tuple[Word, ...] | None = Field(None, description="Labels; lower-case, without order.")
    on_boot: bool | None = Field(None, description="Start with the node.")
    protection: bool | None = Field(None, description="Refuse to remove the guest or its disks.")
    cores: int | None = Field(None, ge=1, description="Cores of each socket.")
    sockets: int | None = Field(None, ge=1, description="Sockets.")
    memory: int | None = Field(None, ge=16, description="MiB.")
    balloon: int | None = Field(None, ge=0, description="Least memory in MiB; 0 switches ballooning off.")
    startup: Line | None = Field(None, description="Order and delays, such as `order=1,up=30`.")
    options: dict[Word, Line] | None = Field(None, description="Further options of the guest, as the API calls them.")


NO_SETTINGS: Final = frozenset(
    ("background_delay", "delete", "digest", "force", "import-working-storage", "node", "revert", "skiplock", "vmid")
)
"""Parameters of the API beside the settings."""


def expand(document: Document[GuestSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The settings."""
    spec = document.spec
    names = [name for name in type(spec).model_fields if name != "cluster"]
    yield pve_guest(spec.cluster, **declared(spec, *names))


def check(document: Document[GuestSpec], catalog: Catalog) -> Iterable[Problem]:
    """Options are settings, and none that has a field of its own."""
    own = {api.name or name: alias for name, (alias, api) in fields_of(pve_guest.spec).items()} | {"hostname": "name"}
    for option in document.spec.options or ():
        if option in own:
            message, fix = f"{option} has a field of its own.", f"Write it as `{own[option]}:`."
            yield catalog.problem(document, ("spec", "options", option), message, fix)
        elif option in NO_SETTINGS:
            message = f"{option} is no setting of a guest, but says what the API is to do."
            yield catalog.problem(document, ("spec", "options", option), message, "Take it out.")


def discover(target: Target) -> Discovery | None:
    """The guests of a cluster, without settings: list those that are to be kept."""
    return _discover(target.name) if target.settings.get("service") == "PVE" else None


def _discover(cluster: str) -> Discovery:
    rights, reply = yield [PERMISSIONS, Get("/cluster/resources", {"type": "vm"})]
    require(rights, "all guests", ["/vms"], ("VM.Audit",))
    return [
        (document_name(cluster, str(row["vmid"])), {"cluster": cluster, "guest": str(row["vmid"])})
        for row in sorted(answer(reply, "guests"), key=lambda row: int(row["vmid"]))
    ]


KIND = Kind("Guest", GuestSpec, expand, check, discover=discover)
