r"""AEAD files: a YubiKey's AES key and private id, encrypted under a key of the key storage module.

54 bytes: `YubiHSM AEAD\n` (`\r\n` is read, too), 01, key handle (LE32), nonce (6), and 30 bytes of AES-CCM over AES
key and private id: 22 bytes of ciphertext, 8 of tag. CCM as in RFC 3610 without associated data, with the 13-byte
nonce LE32(handle), nonce, 000000. Files of version 0 are the 30 bytes alone; their handle is the folder's, and their
nonce is the public id.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from . import modhex
from .token import KEY_BYTES, PRIVATE_ID_BYTES

MAGIC: Final = b"YubiHSM AEAD\n"
CRLF_MAGIC: Final = b"YubiHSM AEAD\r\n"
NONCE_BYTES: Final = 6
TAG_BYTES: Final = 8
SEALED_BYTES: Final = KEY_BYTES + PRIVATE_ID_BYTES + TAG_BYTES
KSM_KEY_BYTES: Final = (16, 24, 32)
_HEADER: Final = struct.Struct("<I6s")


class AeadError(ValueError):
    """An AEAD cannot be read or opened. Never carries a secret."""


@dataclass(frozen=True)
class Credential:
    """What a YubiKey and its server share.

    Attributes:
        aes_key: 16 bytes.
        private_id: 6 bytes.
    """

    aes_key: bytes = field(repr=False)
    private_id: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.aes_key) != KEY_BYTES or len(self.private_id) != PRIVATE_ID_BYTES:
            raise ValueError("a YubiKey has an AES key of 16 bytes and a private id of 6")


@dataclass(frozen=True)
class Aead:
    """A sealed credential."""

    handle: int
    nonce: bytes
    sealed: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """The file, in version 1."""
        return MAGIC + b"\x01" + _HEADER.pack(self.handle, self.nonce) + self.sealed

    @classmethod
    def parse(cls, raw: bytes, *, handle: int, public_id: str) -> Aead:
        """Read a file.

        Args:
            handle: of the folder that the file is in; files of version 0 do not say it.
            public_id: of the file's name; files of version 0 use it as nonce.

        Raises:
            AeadError: it is no AEAD file, is cut off, too long, or has another handle than its folder.
        """
        body = raw.removeprefix(CRLF_MAGIC).removeprefix(MAGIC) if raw.startswith((CRLF_MAGIC, MAGIC)) else None
        if body is None:
            if len(raw) != SEALED_BYTES:
                raise AeadError(f"no AEAD file: {len(raw)} bytes without the mark of one; version 0 has {SEALED_BYTES}")
            nonce = modhex.decode(public_id).rjust(NONCE_BYTES, b"\0")
            if len(nonce) > NONCE_BYTES:
                raise AeadError("a version 0 AEAD cannot belong to a public id of more than 12 letters")
            return cls(handle, nonce, raw)
        if body[:1] != b"\x01":
            raise AeadError("an AEAD file of a version that is not known" if body else "the AEAD file is cut off")
        if len(body) != 1 + _HEADER.size + SEALED_BYTES:
            wanted = len(raw) - len(body) + 1 + _HEADER.size + SEALED_BYTES
            raise AeadError(f"the AEAD file has {len(raw)} bytes instead of {wanted}")
        found, nonce = _HEADER.unpack_from(body, 1)
        if found != handle:
            raise AeadError(f"the AEAD file is for key handle {found} and lies in the folder of {handle}")
        return cls(found, nonce, body[1 + _HEADER.size :])

    def open(self, ksm_key: bytes) -> Credential:
        """Decrypt.

        Raises:
            AeadError: another key sealed it, or it was changed.
        """
        try:
            plain = AESCCM(ksm_key, tag_length=TAG_BYTES).decrypt(self._ccm_nonce, self.sealed, None)
        except InvalidTag:
            raise AeadError(f"the AEAD does not open with the key of handle {self.handle}") from None
        return Credential(plain[:KEY_BYTES], plain[KEY_BYTES:])

    @property
    def _ccm_nonce(self) -> bytes:
        return _HEADER.pack(self.handle, self.nonce) + bytes(3)


def seal(ksm_key: bytes, handle: int, credential: Credential, nonce: bytes | None = None) -> Aead:
    """Encrypt a credential.

    Args:
        nonce: for test vectors only. By default a fresh random one, which is what keeps two credentials under one key
            from showing their difference.

    Raises:
        ValueError: the key has not 16, 24 or 32 bytes, or the nonce not 6.
    """
    nonce = os.urandom(NONCE_BYTES) if nonce is None else nonce
    if len(nonce) != NONCE_BYTES:
        raise ValueError("the nonce of an AEAD has 6 bytes")
    blank = Aead(handle, nonce, b"")
    sealed = AESCCM(ksm_key, tag_length=TAG_BYTES).encrypt(
        blank._ccm_nonce, credential.aes_key + credential.private_id, None
    )
    return Aead(handle, nonce, sealed)


def path_in(folder: Path, handle: str, public_id: str) -> Path:
    """Where the AEAD of a public id lies: `<folder>/1/cr/ed/ti/vc/cc/cc/credtivccccc`.

    Args:
        handle: as it is written in the settings; it names a folder.

    Raises:
        ValueError: no public id.
    """
    if not modhex.is_public_id(public_id):
        raise ValueError("no public id: 2 to 16 letters of ModHex, an even number of them")
    pairs = [public_id[i : i + 2] for i in range(0, len(public_id), 2)]
    return folder.joinpath(handle, *pairs, public_id)
