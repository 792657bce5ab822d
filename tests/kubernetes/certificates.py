"""Describes certificates in the fields that the transcripts keep of them."""

from __future__ import annotations

import base64
import re
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtensionOID

_USAGES = [
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
]
_EXTENDED = {"1.3.6.1.5.5.7.3.1": "serverAuth", "1.3.6.1.5.5.7.3.2": "clientAuth"}
_SIGNATURES = {"1.2.840.113549.1.1.11": "sha256WithRSAEncryption"}


def describe(body: Any, path: str) -> Any:
    """What `described` says of one field of an answer: certificates, or the kind of a key."""
    part, _, key = path.partition(".")
    raw = ((body or {}).get(part) or {}).get(key, "")
    text = base64.b64decode(raw).decode() if body.get("kind") == "Secret" else raw
    if "PRIVATE KEY" in text:
        found = re.search(r"-----BEGIN ([A-Z ]+)-----", text)
        return f"{found[1]} (PEM)" if found else "none"
    return [_certificate(one) for one in x509.load_pem_x509_certificates(text.encode())]


def _certificate(one: x509.Certificate) -> dict[str, Any]:
    key = one.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    found: dict[str, Any] = {
        "subject": one.subject.rfc4514_string(),
        "issuer": one.issuer.rfc4514_string(),
        "serial_number": str(one.serial_number),
        "public_key": f"RSA {key.key_size}",
        "signature": _SIGNATURES[one.signature_algorithm_oid.dotted_string],
        "validity_days": (one.not_valid_after_utc - one.not_valid_before_utc).days,
    }
    for extension in one.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints):
            found["is_ca"] = value.ca
        elif isinstance(value, x509.KeyUsage):
            found["key_usage"] = [name for name in _USAGES if getattr(value, name)]
        elif isinstance(value, x509.ExtendedKeyUsage):
            found["extended_key_usage"] = [_EXTENDED[oid.dotted_string] for oid in value]
        elif isinstance(value, x509.SubjectAlternativeName):
            found["dns_names"] = value.get_values_for_type(x509.DNSName)
        elif isinstance(value, x509.SubjectKeyIdentifier):
            found["subject_key_id"] = value.digest.hex()
        elif extension.oid == ExtensionOID.AUTHORITY_KEY_IDENTIFIER:
            assert isinstance(value, x509.AuthorityKeyIdentifier)
            found["authority_key_id"] = (value.key_identifier or b"").hex()
    found["extension_oids"] = [
        extension.oid.dotted_string + (" critical" if extension.critical else "") for extension in one.extensions
    ]
    return found
