"""Synology: a DiskStation, by the web API of its DSM."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import LocalPath, Rule
from reconciler.model import Document, Kind, Resource, Secret, Spec, Target, dump

Url = Annotated[
    str,
    Rule(
        r"https://[A-Za-z0-9._\[\]:-]+(?:/[A-Za-z0-9._/-]*)?",
        "the address of DSM with https, such as https://nas.example.org:5001",
        300,
    ),
]
Fingerprint = Annotated[
    str,
    Rule(
        r"(?:[0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}",
        "the SHA-256 fingerprint of the certificate: 32 pairs of hex digits with colons",
    ),
]
UserName = Annotated[str, Rule(r"[^\s\u0000-\u001f\u007f\"/\\\[\]:;|=,+*?<>']+", "the name of a DSM account", 64)]


class SynologySpec(Spec):
    """A Synology DiskStation that snapshot policies are put on.

    DSM 7 with the package Snapshot Replication, and a Btrfs volume. The login has to be an administrator without a
    second factor; make one for this purpose, and let DSM's firewall admit it from here only. The server is proved by a
    CA (the system's, or `ca`), or by the fingerprint of its certificate; there is no way to leave that out.

    Example:

        apiVersion: reconciler/v1
        kind: Synology
        metadata:
          name: nas1
        spec:
          url: https://nas1.example.org:5001
          user: reconciler
          password: {secretRef: env:NAS1_PASSWORD}
          ca: nas-ca.pem
    """

    url: Url = Field(description="The address of DSM.")
    user: UserName = Field(description="Whom to log in as.")
    password: Secret = Field(description="That account's password.")
    fingerprint: Fingerprint | None = Field(None, description="Trust just this certificate (SHA-256).")
    ca: LocalPath | None = Field(None, description="Trust what this CA signed: a PEM file, relative to the document.")


def expand(document: Document[SynologySpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """A DiskStation is a target; it means no objects by itself."""
    return ()


def check(document: Document[SynologySpec], catalog: Catalog) -> Iterable[Problem]:
    """One way to trust."""
    if document.spec.fingerprint and document.spec.ca:
        message, fix = "takes `fingerprint` or `ca`, not both.", "Keep one."
        yield catalog.problem(document, ("spec", "ca"), message, fix)


def target(document: Document[SynologySpec]) -> Target:
    """How to reach it. Paths are relative to the document."""
    settings = dump(document.spec)
    if "ca" in settings and not settings["ca"].startswith("~"):
        settings["ca"] = str(PurePath(document.position.file).parent / settings["ca"])
    return Target(document.name, "dsm", settings, document.metadata.labels)


KIND = Kind("Synology", SynologySpec, expand, check, target)
