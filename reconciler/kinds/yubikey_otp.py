"""YubikeyOtp: a YubiKey that an OtpServer knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Account
from reconciler.kinds.otp_client import no_server
from reconciler.kinds.otp_server import DocumentName
from reconciler.model import Composed, Document, Kind, Resource, Secret, Spec
from reconciler.types.host.otp_key import TYPE as host_otp_key
from reconciler.types.host.otp_key import PublicId
from reconciler.types.host.otp_roster import Note


class YubikeyOtpSpec(Spec):
    """A YubiKey with Yubico OTP, as an OtpServer knows it.

    What its server counts is never touched. When the document goes, the key is revoked, its secrets are removed, and
    its counters stay: without them, OTPs that were used would be accepted again. A YubiKey that is programmed anew
    starts counting anew, so give it a new public id and revoke the old one.

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
        kind: YubikeyOtp
        metadata:
          name: alice-1
        spec:
          server: otp
          owner: alice
          publicId: vvccccbbtvhl
          privateId: {secretRef: yubikeys/alice-1-private, generate: hex6}
          aesKey: {secretRef: yubikeys/alice-1-aes, generate: hex16}
    """

    server: DocumentName = Field(description="Name of the OtpServer.")
    public_id: PublicId = Field(
        description="What each of its OTPs begins with: 12 letters as a rule, and first `vv` if you choose it yourself."
    )
    private_id: Secret = Field(description="6 bytes, as 12 hexadecimal digits.")
    aes_key: Secret = Field(description="16 bytes, as 32 hexadecimal digits.")
    state: Literal["active", "revoked"] = Field("active", description="`revoked`: its OTPs are refused.")
    owner: Account | None = Field(None, description="The account that OtpLogin lets in with it.")
    notes: Note = Field("", description="For people, on the server.")


def expand(document: Document[YubikeyOtpSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The key, on every host of its server."""
    spec = document.spec
    server = catalog.get(f"OtpServer/{spec.server}")
    if server is None:
        return
    for host in catalog.hosts(server.spec.hosts):
        yield host_otp_key(
            host,
            public_id=spec.public_id,
            private_id=Composed(parts=(spec.private_id,), form="hex6"),
            aes_key=Composed(parts=(spec.aes_key,), form="hex16"),
            handle=server.spec.current,
            active=spec.state == "active",
            notes=spec.notes,
            database=server.spec.shared,
        )


def check(document: Document[YubikeyOtpSpec], catalog: Catalog) -> Iterable[Problem]:
    """Its server, and keys that say they are the same."""
    spec = document.spec
    yield from no_server(document, spec.server, catalog)
    for other in catalog:
        if other.kind == document.kind and other.name < document.name and other.spec.public_id == spec.public_id:
            message = f"{other.address} has the same public id {spec.public_id}."
            yield catalog.problem(document, ("spec", "publicId"), message, "Give each YubiKey one of its own.")


KIND = Kind("YubikeyOtp", YubikeyOtpSpec, expand, check)
