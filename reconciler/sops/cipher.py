"""One value of a SOPS file, and the MAC over all of them.

Format: https://getsops.io/docs/ ("Message Authentication Code", "Encrypting only parts of a file") and what sops itself
writes. A value is AES-256-GCM with a nonce of 32 bytes; its additional data are the keys of its path, each followed by
a colon, so that a value cannot be moved. List indexes are left out of the path.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 32
_TAG_BYTES: Final = 16
TYPES: Final = frozenset(("str", "int", "int64", "float", "bytes", "bool", "time", "comment"))
_ENCRYPTED = re.compile(r"ENC\[AES256_GCM,data:([^,]+),iv:([^,]+),tag:([^,]+),type:([a-z0-9]+)\]")

Path = tuple[str | int, ...]
"""Where a value stands: keys, and indexes of lists."""


class Scalar(NamedTuple):
    """A value with its type, as the text that the format authenticates: `True`, `12`, `1.5`.

    Attributes:
        type: one of `TYPES`, or `null`.
        text: without loss; bytes that are no UTF-8 are surrogates.
    """

    type: str
    text: str

    @property
    def shown(self) -> str:
        """The text that a secret of this type stands for."""
        return self.text.lower() if self.type == "bool" else self.text


NULL: Final = Scalar("null", "")


def scalar(value: Any) -> Scalar:
    """A Python value (str, int, float, bool or None) as the format spells it."""
    match value:
        case None:
            return NULL
        case bool():
            return Scalar("bool", str(value))
        case int():
            return Scalar("int", str(value))
        case float():
            return Scalar("float", float_text(repr(value)))
    return Scalar("str", str(value))


def float_text(written: str) -> str:
    """A floating-point number with the fewest digits and no exponent."""
    text = format(Decimal(repr(float(written))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_encrypted(text: str) -> bool:
    """Whether this text is an encrypted value."""
    return _ENCRYPTED.fullmatch(text) is not None


def additional_data(path: Sequence[str | int]) -> bytes:
    """What binds a value to its place: the keys of its path."""
    return (":".join(part for part in path if isinstance(part, str)) + ":").encode()


def encrypt(value: Scalar, key: bytes, bound_to: bytes) -> str:
    """A value as it stands in the file. Empty text stays empty."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not value.text:
        return ""
    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, value.text.encode("utf-8", "surrogateescape"), bound_to)
    data, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
    parts = (base64.b64encode(part).decode() for part in (data, nonce, tag))
    return "ENC[AES256_GCM,data:{},iv:{},tag:{},type:{}]".format(*parts, value.type)


def decrypt(text: str, key: bytes, bound_to: bytes) -> Scalar:
    """The value behind `ENC[...]`.

    Raises:
        ValueError: it is damaged, or does not belong here. Carries nothing of it.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not text:
        return Scalar("str", "")
    found = _ENCRYPTED.fullmatch(text)
    if found is None or found.group(4) not in TYPES:
        raise ValueError("is not encrypted as SOPS does it")
    try:
        data, nonce, tag = (base64.b64decode(part, validate=True) for part in found.groups()[:3])
        plain = AESGCM(key).decrypt(nonce, data + tag, bound_to)
    except (InvalidTag, binascii.Error, ValueError):
        raise ValueError("was changed, or was moved here from another key") from None
    return Scalar(found.group(4), plain.decode("utf-8", "surrogateescape"))


MAC_ONLY_ENCRYPTED_SEED: Final = hashlib.sha256(b"sops").digest()
"""So that a MAC over the encrypted values alone never equals one over all."""


def mac(values: Iterable[Scalar], *, only_encrypted: bool = False) -> str:
    """The MAC before it is encrypted: SHA-512 (upper-case hex) over the values in the order of the file.

    Args:
        values: without `null`s and comments; only the encrypted ones if the file says `mac_only_encrypted`.
    """
    digest = hashlib.sha512(MAC_ONLY_ENCRYPTED_SEED if only_encrypted else b"")
    for value in values:
        digest.update(value.text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest().upper()
