"""What a YubiKey types: a public id, and a block that AES-128 encrypts.

The block: private id (6 bytes), use counter (LE16), timestamp low (LE16), timestamp high (1 byte), session use
(1 byte), a random number (LE16) and the complement of the CRC-16 of all before (LE16). After Yubico's description of
the YubiKey.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from . import modhex

KEY_BYTES: Final = 16
PRIVATE_ID_BYTES: Final = 6
CODE_LETTERS: Final = 32
_RESIDUE: Final = 0xF0B8
_FIELDS: Final = struct.Struct("<6sHHBBH")


class InvalidOtp(ValueError):
    """This is no OTP of that key. Never carries the OTP."""


@dataclass(frozen=True)
class Token:
    """The decrypted block of one OTP.

    Attributes:
        private_id: 6 bytes.
        counter: 16 bits, how often the YubiKey was powered up; the highest bit says that caps lock typed the OTP.
        low, high: 16 and 8 bits of a clock that ticks 8 times a second.
        use: 8 bits, the number of the OTP since power-up.
        random: 16 bits.
    """

    private_id: bytes = field(repr=False)
    counter: int
    low: int
    high: int
    use: int
    random: int = field(default=0, repr=False)

    @property
    def session(self) -> int:
        """The counter without the mark of caps lock: what grows, and must be compared."""
        return self.counter & 0x7FFF

    @property
    def timestamp(self) -> int:
        """Ticks of an eighth of a second; 24 bits."""
        return self.high << 16 | self.low

    def pack(self) -> bytes:
        """The block in plain text, with its checksum."""
        plain = _FIELDS.pack(self.private_id, self.counter, self.low, self.high, self.use, self.random)
        return plain + struct.pack("<H", ~crc16(plain) & 0xFFFF)

    @classmethod
    def unpack(cls, block: bytes) -> Token:
        """Read 16 bytes of plain text.

        Raises:
            InvalidOtp: the checksum is wrong.
        """
        if len(block) != KEY_BYTES or crc16(block) != _RESIDUE:
            raise InvalidOtp("wrong checksum")
        private_id, counter, low, high, use, random = _FIELDS.unpack(block[:14])
        return cls(private_id, counter, low, high, use, random)


def crc16(raw: bytes) -> int:
    """CRC-16 of ISO 13239: starts with ffff, polynomial 8408 (reflected)."""
    crc = 0xFFFF
    for byte in raw:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8408 if crc & 1 else 0)
    return crc


def encrypt(public_id: str, key: bytes, token: Token) -> str:
    """The OTP that a YubiKey types for this token.

    Raises:
        ValueError: the key has not 16 bytes, or the token not the sizes that it should.
    """
    cipher = Cipher(_aes(key), modes.ECB()).encryptor()  # noqa: S305  one block: that is the format
    return public_id + modhex.encode(cipher.update(token.pack()) + cipher.finalize())


def split(otp: str) -> tuple[str, bytes]:
    """The public id and the encrypted block of an OTP in lower-case ModHex.

    Raises:
        InvalidOtp: it has not the form of an OTP with a public id.
    """
    public_id, code = otp[:-CODE_LETTERS], otp[-CODE_LETTERS:]
    if not modhex.is_public_id(public_id):
        raise InvalidOtp("no public id of 2 to 16 letters before 32 letters of code")
    try:
        return public_id, modhex.decode(code)
    except ValueError:
        raise InvalidOtp("no ModHex") from None


def decrypt(key: bytes, private_id: bytes, block: bytes) -> Token:
    """The token in an encrypted block.

    Raises:
        InvalidOtp: the block was encrypted by another key, or carries another private id.
    """
    cipher = Cipher(_aes(key), modes.ECB()).decryptor()  # noqa: S305  one block: that is the format
    token = Token.unpack(cipher.update(block) + cipher.finalize())
    if not hmac.compare_digest(token.private_id, private_id):
        raise InvalidOtp("wrong private id")
    return token


def _aes(key: bytes) -> algorithms.AES:
    if len(key) != KEY_BYTES:
        raise ValueError("an AES-128 key has 16 bytes")
    return algorithms.AES(key)
