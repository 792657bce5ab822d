"""Issues a serving certificate from a CA whose key lies in the secret store."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final

from reconciler.errors import SecretError

CLOCK_SKEW: Final = datetime.timedelta(minutes=5)


def issue(authority: str, key: str, names: Sequence[str], days: int) -> dict[str, str]:
    """A new key, and a certificate for it with the CA's behind.

    Args:
        authority: the CA's certificate, PEM.
        key: the CA's private key, PEM, without a passphrase.
        names: DNS names; the first one is the subject.
        days: how long it is valid, at most as long as the CA.

    Returns:
        `tls.crt` and `tls.key`, as a Secret of type kubernetes.io/tls has them.

    Raises:
        SecretError: key or certificate of the CA cannot be used, or do not go together.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    try:
        ca = x509.load_pem_x509_certificates(authority.encode())[0]
        known = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        signer = serialization.load_pem_private_key(key.encode(), None)
    except (ValueError, TypeError, IndexError, x509.ExtensionNotFound):
        raise SecretError(
            "the CA's certificate or its key cannot be used: it is no PEM, or the key has a passphrase."
        ) from None
    if not isinstance(signer, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) or signer.public_key() != ca.public_key():
        raise SecretError("the key is not the one of the CA's certificate.")
    own = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(ca.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + datetime.timedelta(days=days), ca.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False)
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = certificate.public_bytes(pem) + ca.public_bytes(pem)
    return {"tls.crt": chain.decode(), "tls.key": plain.decode()}
