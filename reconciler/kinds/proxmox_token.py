"""ProxmoxToken: an API token of a user of a Proxmox VE cluster or a backup server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Line
from reconciler.kinds.proxmox_user import Place, one_place
from reconciler.model import Discovery, Document, Get, Kind, Resource, Target, declared
from reconciler.types.api import PERMISSIONS, answer, document_name, observe, require
from reconciler.types.backup.token import TYPE as pbs_token
from reconciler.types.proxmox.names import SecretName, TokenName, UserId
from reconciler.types.proxmox.token import TYPE as pve_token


class ProxmoxTokenSpec(Place):
    """An API token of a user of a Proxmox VE cluster or a backup server.

    The server makes the secret of a token and shows it once: with `keepIn` it goes straight into the secret store of
    the repo, under that name, and nowhere else. A token of a cluster is `separated` by default: it has the rights that
    both the token and its user were given. A token of a backup server always is.

    Example:

        apiVersion: reconciler/v1
        kind: ProxmoxToken
        metadata:
          name: monitoring
        spec:
          cluster: dc01
          user: monitor@pve
          token: prometheus
          keepIn: proxmox/monitoring
    """

    user: UserId = Field(description="Whose token it is.")
    token: TokenName = Field(description="Its name.")
    comment: Line | None = Field(None, description="For people.")
    expire: int | None = Field(None, ge=0, description="When it ends, in seconds since 1970; 0 = never.")
    enabled: bool | None = Field(None, description="On a backup server: whether it may log in.")
    separated: bool | None = Field(None, description="On a cluster: whether it has rights of its own.")
    keep_in: SecretName | None = Field(None, description="Where the secret goes in the secret store.")


def expand(document: Document[ProxmoxTokenSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The token."""
    spec = document.spec
    fields = declared(spec, "user", "token", "comment", "expire", "keep_in")
    if spec.cluster:
        yield pve_token(spec.cluster, **fields, **declared(spec, "separated"))
    else:
        yield pbs_token(spec.target, **fields, **declared(spec, "enabled"))


def check(document: Document[ProxmoxTokenSpec], catalog: Catalog) -> Iterable[Problem]:
    """What the servers take."""
    yield from one_place(document, catalog)
    spec = document.spec
    if spec.cluster and spec.enabled is not None:
        message, fix = "a token of a cluster cannot be disabled by itself.", "Disable the user, or set `expire:`."
        yield catalog.problem(document, ("spec", "enabled"), message, fix)
    if spec.server and spec.separated is not None:
        message, fix = "a token of a backup server always has rights of its own.", "Take it out."
        yield catalog.problem(document, ("spec", "separated"), message, fix)


def discover(target: Target) -> Discovery | None:
    """The tokens of a cluster or a server, without their secrets."""
    if target.connection != "proxmox":
        return None
    return _discover(target.name, "cluster" if target.settings["service"] == "PVE" else "server")


def _discover(target: str, place: str) -> Discovery:
    rights, reply = yield [
        PERMISSIONS,
        Get("/access/users", {"full": 1} if place == "cluster" else {"include_tokens": 1}),
    ]
    require(rights, "all tokens", ["/access/users"], ("Sys.Audit", *["User.Modify"] * (place == "cluster")))
    model = (pve_token if place == "cluster" else pbs_token).spec
    found = []
    for user in answer(reply, "users"):
        for row in user.get("tokens") or ():
            name = str(row["tokenid"]).rpartition("!")[2]
            values = {k: v for k, v in (observe(model, row) or {}).items() if v not in (None, "", 0, True)}
            spec = {place: target, "user": user["userid"], "token": name, **values}
            found.append((document_name(target, user["userid"], name), spec))
    return sorted(found, key=lambda one: one[0])


KIND = Kind("ProxmoxToken", ProxmoxTokenSpec, expand, check, discover=discover)
