"""What certificates in PEM say of themselves: for readiness, and for audits. Nothing is verified here."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cryptography import x509

BETA: Final = "service.beta.openshift.io/"
ALPHA: Final = "service.alpha.openshift.io/"
SECRET_NAME: Final = f"{BETA}serving-cert-secret-name"
INJECT: Final = f"{BETA}inject-cabundle"
ISSUE: Final = "reconciler/issue"
"""In place of the texts of a Secret, for the connection: `authority`, `key`, `names` and `days` of a certificate that
it issues when it sends the Secret."""
BUNDLE_KEY: Final = "service-ca.crt"
ROTATION_DAYS: Final = 395
"""The service CA is replaced when it has less left: https://docs.redhat.com (service CA certificates)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One certificate.

    Attributes:
        key_id: SubjectKeyIdentifier, in hex, or nothing.
        signer_id: AuthorityKeyIdentifier, in hex, or nothing.
        public_key: the key itself in DER, as hex.
    """

    names: tuple[str, ...]
    serial: int
    key_id: str
    signer_id: str
    public_key: str
    begins: datetime
    ends: datetime

    def days_left(self, now: datetime) -> int:
        """Whole days until it expires; negative afterwards."""
        return (self.ends - now).days


def certificates(pem: str) -> list[Seen]:
    """The certificates of a text, in their order; none where they cannot be read."""
    from cryptography import x509

    try:
        return [_seen(one) for one in x509.load_pem_x509_certificates(pem.encode())]
    except ValueError:
        return []


def _seen(one: x509.Certificate) -> Seen:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    def extension(kind: Any) -> Any:
        try:
            return one.extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None

    names = extension(x509.SubjectAlternativeName)
    subject, authority = extension(x509.SubjectKeyIdentifier), extension(x509.AuthorityKeyIdentifier)
    return Seen(
        tuple(names.get_values_for_type(x509.DNSName)) if names else (),
        one.serial_number,
        subject.digest.hex() if subject else "",
        (authority.key_identifier or b"").hex() if authority else "",
        one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex(),
        one.not_valid_before_utc,
        one.not_valid_after_utc,
    )


def fits(pem_of_key: str, leaf: Seen) -> bool:
    """Whether a private key goes with a certificate."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        key = load_pem_private_key(pem_of_key.encode(), None)
    except (ValueError, TypeError):
        return False
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex() == leaf.public_key


def text_of(secret: Mapping[str, Any], key: str) -> str:
    """A value of a live Secret as text; nothing where it is not there or no text."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "", validate=True).decode()
    except ValueError:
        return ""


def hosts(service: str, namespace: str) -> tuple[str, str]:
    """The names that a serving certificate of a Service holds."""
    name = f"{service}.{namespace}.svc"
    return name, f"{name}.cluster.local"
