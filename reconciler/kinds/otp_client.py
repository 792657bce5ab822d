"""OtpClient: who may ask an OtpServer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.kinds.otp_server import DocumentName
from reconciler.model import Composed, Document, Kind, Resource, Secret, Spec
from reconciler.types.host.otp_client import TYPE as host_otp_client
from reconciler.types.host.otp_roster import Note
from reconciler.validate import did_you_mean


class OtpClientSpec(Spec):
    """A client of an OtpServer: a number, and a key with which requests and answers are signed.

    Give each consuming host or service one of its own, so that one can be locked out alone.

    Example:

        apiVersion: reconciler/v1
        kind: OtpServer
        metadata:
          name: otp
        spec:
          hosts: [bastion]
          ksmKeys:
            "1": {secretRef: otp-server/ksm-1, generate: hex16}
        ---
        apiVersion: reconciler/v1
        kind: OtpClient
        metadata:
          name: bastion
        spec:
          server: otp
          id: 1
          secret: {secretRef: otp-server/client-1, generate: base64-20}
    """

    server: DocumentName = Field(description="Name of the OtpServer.")
    id: int = Field(ge=1, le=2147483647, description="Its number, which requests carry.")
    secret: Secret = Field(description="Its key, as base64 text: 20 random bytes are usual (`generate: base64-20`).")
    active: bool = Field(True, description="`false`: its requests are refused, and it stays known.")
    notes: Note = Field("", description="For people, on the server.")
    ensure: Literal["present", "absent"] = Field("present", description="`absent` removes it.")


def expand(document: Document[OtpClientSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The client, on every host of its server."""
    spec = document.spec
    server = catalog.get(f"OtpServer/{spec.server}")
    if server is None:
        return
    row = {"id": spec.id, "database": server.spec.shared}
    for host in catalog.hosts(server.spec.hosts):
        if spec.ensure == "absent":
            yield host_otp_client(host, absent=True, **row)
        else:
            secret = Composed(parts=(spec.secret,), form="base64")
            yield host_otp_client(host, **row, secret=secret, active=spec.active, notes=spec.notes)


def check(document: Document[OtpClientSpec], catalog: Catalog) -> Iterable[Problem]:
    """Its server."""
    yield from no_server(document, document.spec.server, catalog)


def no_server(document: Document[Any], name: str, catalog: Catalog) -> Iterable[Problem]:
    """A problem where there is no such OtpServer."""
    if catalog.get(f"OtpServer/{name}") is None:
        fix = did_you_mean(name, [d.name for d in catalog if d.kind == "OtpServer"]) or "Add a document of that kind."
        yield catalog.problem(document, ("spec", "server"), f"there is no OtpServer/{name}.", fix)


KIND = Kind("OtpClient", OtpClientSpec, expand, check)
