"""ProxmoxUser: an account of a Proxmox VE cluster or of a backup server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Line, Ref
from reconciler.model import Discovery, Document, Kind, Resource, Secret, Spec, Target, declared
from reconciler.types.api import document_name
from reconciler.types.backup.user import ENTRIES as SERVER_USERS
from reconciler.types.backup.user import TYPE as pbs_user
from reconciler.types.proxmox.names import GroupId, UserId
from reconciler.types.proxmox.user import ENTRIES as CLUSTER_USERS
from reconciler.types.proxmox.user import TYPE as pve_user


class Place(Spec):
    """Where an object is: on a cluster, or on a backup server."""

    cluster: Annotated[str | None, Ref("ProxmoxCluster")] = Field(None, description="The ProxmoxCluster.")
    server: Annotated[str | None, Ref("BackupServer")] = Field(None, description="The BackupServer.")

    @property
    def target(self) -> str:
        """The one that is given."""
        return self.cluster or self.server or ""


class ProxmoxUserSpec(Place):
    """An account of a Proxmox VE cluster or of a backup server.

    A password goes to the server when the account is made and whenever it changes in the secret store. It works in the
    realms `pve` and `pbs`, where it has eight characters or more.

    Example:

        apiVersion: reconciler/v1
        kind: ProxmoxUser
        metadata:
          name: backup-of-dc01
        spec:
          server: backup1
          user: dc01@pbs
          comment: backs up the cluster dc01
          password: {secretRef: env:DC01_BACKUP_PASSWORD}
    """

    user: UserId = Field(description="Name and realm.")
    enabled: bool | None = Field(None, description="Whether it may log in.")
    expire: int | None = Field(None, ge=0, description="When it ends, in seconds since 1970; 0 = never.")
    first_name: Line | None = Field(None, description="For people.")
    last_name: Line | None = Field(None, description="For people.")
    email: Line | None = Field(None, description="Where notices go.")
    comment: Line | None = Field(None, description="For people.")
    groups: tuple[GroupId, ...] | None = Field(None, description="Groups of the cluster; backup servers have none.")
    password: Secret | None = Field(None, description="Its password, never shown.")


def expand(document: Document[ProxmoxUserSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The account."""
    spec = document.spec
    fields = declared(spec, "enabled", "expire", "email", "comment", "password")
    names = {"firstname": spec.first_name, "lastname": spec.last_name}
    fields |= {name: value for name, value in names.items() if value is not None}
    if spec.cluster:
        yield pve_user(spec.cluster, userid=spec.user, **fields, **declared(spec, "groups"))
    else:
        yield pbs_user(spec.target, userid=spec.user, **fields)


def one_place(document: Document[Any], catalog: Catalog) -> Iterable[Problem]:
    """A cluster or a server."""
    if bool(document.spec.cluster) == bool(document.spec.server):
        message = "belongs to a cluster or to a backup server."
        yield catalog.problem(document, ("spec",), message, "Write one of `cluster:` and `server:`.")


def check(document: Document[ProxmoxUserSpec], catalog: Catalog) -> Iterable[Problem]:
    """What the realms and the servers take."""
    yield from one_place(document, catalog)
    spec = document.spec
    if spec.server and spec.groups is not None:
        message, fix = "a backup server has no groups.", "Take them out; grant rights to the user."
        yield catalog.problem(document, ("spec", "groups"), message, fix)
    realm = spec.user.rpartition("@")[2]
    if spec.password is not None and realm not in ("pve", "pbs"):
        message = f"a password cannot be set in the realm {realm}."
        yield catalog.problem(document, ("spec", "password"), message, "Take it out: that realm has its own.")


def discover(target: Target) -> Discovery | None:
    """The accounts of a cluster or a server."""
    if target.connection != "proxmox":
        return None
    return _discover(target.name, "cluster" if target.settings["service"] == "PVE" else "server")


def _discover(target: str, place: str) -> Discovery:
    found = yield from (CLUSTER_USERS if place == "cluster" else SERVER_USERS).discover()
    return [(document_name(target, name), {place: target, "user": name, **_renamed(values)}) for name, values in found]


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    names = {"firstname": "firstName", "lastname": "lastName"}
    return {names.get(name, name): value for name, value in values.items()}


KIND = Kind("ProxmoxUser", ProxmoxUserSpec, expand, check, discover=discover)
