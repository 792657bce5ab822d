"""ProxmoxCluster: a Proxmox VE cluster, or a single node of it, by its API."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address
from pathlib import PurePath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import LocalPath, Rule
from reconciler.model import Document, Kind, Resource, Secret, Spec, Target, dump
from reconciler.types.proxmox.names import TokenName, UserId

Endpoint = Annotated[
    str,
    Rule(r"https://[A-Za-z0-9._\[\]:-]+/?", "the address of the API, such as https://pve1.example.org:8006", 300),
]
Fingerprint = Annotated[
    str,
    Rule(
        r"(?:[0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}",
        "the SHA-256 fingerprint of the certificate: 32 pairs of hex digits with colons",
    ),
]


class Login(Spec):
    """How to log in to an API of Proxmox, and how to know that it is the right one."""

    endpoints: tuple[Endpoint, ...] = Field(
        min_length=1, description="Addresses of the API; one stands in for another."
    )
    user: UserId = Field(description="Whom to log in as, such as `reconciler@pve`.")
    token: TokenName | None = Field(None, description="Name of the user's API token; `secret` goes with it.")
    secret: Secret | None = Field(None, description="The token's secret.")
    password: Secret | None = Field(None, description="The user's password, in place of a token.")
    fingerprint: Fingerprint | None = Field(None, description="Trust just this certificate (SHA-256).")
    ca: LocalPath | None = Field(None, description="Trust what this CA signed: a PEM file, relative to the document.")


class ProxmoxClusterSpec(Login):
    """A Proxmox VE cluster that other documents put things on.

    Give the addresses of several nodes: when one is down, the next one is asked. A token with the role PVEAuditor is
    enough for plan and drift; what apply needs is in docs/proxmox.md. Lists are filtered by what the login may see, so
    a login that lacks a right makes objects unknown, with the right that it needs.

    Example:

        apiVersion: reconciler/v1
        kind: ProxmoxCluster
        metadata:
          name: dc01
        spec:
          endpoints: [https://pve1.example.org:8006, https://pve2.example.org:8006]
          user: reconciler@pve
          token: ci
          secret: {secretRef: env:DC01_TOKEN}
          ca: pve-root-ca.pem
    """


def expand(document: Document[Any], catalog: Catalog) -> Iterable[Resource[Any]]:
    """A cluster is a target; it means no objects by itself."""
    return ()


def check(document: Document[Any], catalog: Catalog) -> Iterable[Problem]:
    """Addresses that can be one, one way to log in, and one way to trust."""
    spec: Login = document.spec
    for index, endpoint in enumerate(spec.endpoints):
        if not _is_address(endpoint):
            message = f"{endpoint} is no address: the host or the port cannot be one."
            fix = "Write https://HOST:PORT, an IPv6 address in brackets."
            yield catalog.problem(document, ("spec", "endpoints", index), message, fix)
    if spec.password is not None and spec.token is not None:
        message, fix = "takes a token or a password, not both.", "Keep `token:` and `secret:`."
        yield catalog.problem(document, ("spec", "password"), message, fix)
    elif spec.password is None and (spec.token is None or spec.secret is None):
        message, fix = "has no way to log in.", "Add `token:` with `secret:`, or `password:`."
        yield catalog.problem(document, ("spec", "user"), message, fix)
    if spec.fingerprint and spec.ca:
        message, fix = "takes `fingerprint` or `ca`, not both.", "Keep one."
        yield catalog.problem(document, ("spec", "ca"), message, fix)
    if spec.fingerprint and len(spec.endpoints) > 1:
        message = "several endpoints have several certificates, and one fingerprint fits only one of them."
        yield catalog.problem(document, ("spec", "fingerprint"), message, "Write `ca:` with the cluster's CA instead.")


def check_name(document: Document[Any], catalog: Catalog, field: str, kind: Any) -> Iterable[Problem]:
    """Where a field that names an object is left out, the document's name has to do.

    Args:
        kind: the type of such names, with its `Rule`.
    """
    rule: Rule = kind.__metadata__[0]
    try:
        if getattr(document.spec, field) is None:
            rule.check(document.name)
    except ValueError:
        message, fix = f"{document.name} cannot be its {field}.", f"Add `{field}:`, {rule.hint}."
        yield catalog.problem(document, ("metadata", "name"), message, fix)


def _is_address(endpoint: str) -> bool:
    """Whether it has a host name or an IP address, and a port of 1 to 65535 or none."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
        if "[" in parts.netloc:
            IPv6Address(host)
    except ValueError:
        return False
    return bool(host) and (":" not in host or "[" in parts.netloc) and port != 0


def settings(document: Document[Any], service: str) -> dict[str, Any]:
    """What the connection needs, paths made relative to the document."""
    found = dump(document.spec) | {"service": service}
    if "ca" in found and not str(found["ca"]).startswith("~"):
        found["ca"] = str(PurePath(document.position.file).parent / found["ca"])
    return found


def target(document: Document[ProxmoxClusterSpec]) -> Target:
    """How to reach the cluster."""
    return Target(document.name, "proxmox", settings(document, "PVE"), document.metadata.labels)


KIND = Kind("ProxmoxCluster", ProxmoxClusterSpec, expand, check, target)
