"""Certificates: of the service CA as OpenShift's operator makes them, and of the emulator's own HTTPS.

Source of the form: the recorded exchanges (`service-ca.json`), which describe every certificate field by field.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = rsa.RSAPrivateKey
CA_DAYS = 790
LEAF_DAYS = 730
SERVICE_UID = x509.ObjectIdentifier("1.3.6.1.4.1.2312.17.100.2.1")


def new_key() -> Key:
    """An RSA key of 2048 bits."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_pem(key: Key) -> str:
    """A key as `RSA PRIVATE KEY`."""
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def read_key(pem: str) -> Key:
    """A key from PEM. Its arithmetic is not checked again: that takes longer than all else here."""
    key = serialization.load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def pem(*certificates: x509.Certificate) -> str:
    """Certificates as PEM, one after the other."""
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


def key_id(certificate: x509.Certificate) -> bytes:
    """Its subject key id."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def signer_id(certificate: x509.Certificate) -> bytes | None:
    """The key id of who signed it."""
    found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    return found.key_identifier


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _start(subject: str, issuer: str, key: Key, at: float, days: int) -> x509.CertificateBuilder:
    begin = datetime.fromtimestamp(int(at), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
    )


def _authority(key: Key) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest, None, None)


def authority(name: str, key: Key, signer: Key, at: float) -> x509.Certificate:
    """A CA certificate for `key`, signed by `signer` (itself, or another key of the same name)."""
    builder = _start(name, name, key, at, CA_DAYS)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(_authority(signer), critical=False)
    return builder.sign(signer, hashes.SHA256())


def serving(
    names: list[str], service_uid: str, key: Key, signer_name: str, signer: Key, at: float, days: int = LEAF_DAYS
) -> x509.Certificate:
    """A serving certificate for DNS names; the first one is its subject."""
    builder = _start(names[0], signer_name, key, at, days)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(_authority(signer), critical=False)
    names_value = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = builder.add_extension(names_value, critical=False)
    raw = service_uid.encode()
    text = x509.UnrecognizedExtension(SERVICE_UID, bytes([0x0C, len(raw)]) + raw)  # a DER UTF8String
    return builder.add_extension(text, critical=False).sign(signer, hashes.SHA256())


def serving_files(host: str, at: float) -> tuple[str, contextlib.AbstractContextManager[str]]:
    """For the emulator's HTTPS: the CA as PEM, and a context with the path of key and certificate in one file."""
    ca_key, key = new_key(), new_key()
    ca = authority("kubernetes-emulator", ca_key, ca_key, at - 60)
    builder = _start(host, "kubernetes-emulator", key, at - 60, LEAF_DAYS)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(_authority(ca_key), critical=False)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host)), x509.DNSName("localhost")])
    leaf = builder.add_extension(names, critical=False).sign(ca_key, hashes.SHA256())
    return pem(ca), _private_file(key_pem(key) + pem(leaf))


@contextlib.contextmanager
def _private_file(text: str) -> Iterator[str]:
    handle, path = tempfile.mkstemp(suffix=".pem")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        yield path
    finally:
        Path(path).unlink()
