"""One-time passwords of OATH: HOTP (RFC 4226) counts, TOTP (RFC 6238) looks at the clock."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from dataclasses import dataclass, field
from typing import Final, Literal

Algorithm = Literal["SHA1", "SHA256", "SHA512"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("SHA1", "SHA256", "SHA512")
DIGITS: Final = (6, 7, 8)
SHORTEST_SECRET: Final = 16
"""Bytes; RFC 4226 asks for at least 128 bits."""
NEW_SECRET: Final = 20
"""Bytes; RFC 4226 recommends 160 bits."""
_LARGEST_COUNTER: Final = (1 << 64) - 1


@dataclass(frozen=True)
class OathKey:
    """A secret, and how codes are made of it.

    Attributes:
        secret: raw bytes.
        type: `totp`, or `hotp`.
        algorithm: of the HMAC.
        digits: 6 to 8.
        period: seconds; TOTP only.
        counter: of the next code; HOTP only.

    Raises:
        ValueError: a value is out of range. Never carries the secret.
    """

    secret: bytes = field(repr=False)
    type: Literal["totp", "hotp"] = "totp"
    algorithm: Algorithm = "SHA1"
    digits: int = 6
    period: int = 30
    counter: int = 0

    def __post_init__(self) -> None:
        if not self.secret:
            raise ValueError("the secret is empty")
        if self.type not in ("totp", "hotp"):
            raise ValueError("the type must be totp or hotp")
        if self.algorithm not in ALGORITHMS:
            raise ValueError("the algorithm must be SHA1, SHA256 or SHA512")
        if self.digits not in DIGITS:
            raise ValueError("a code has 6, 7 or 8 digits")
        if not 1 <= self.period <= 3600:
            raise ValueError("the period must be from 1 to 3600 seconds")
        if not 0 <= self.counter <= _LARGEST_COUNTER:
            raise ValueError("the counter must be from 0 to 18446744073709551615")

    @property
    def is_weak(self) -> bool:
        """Whether the secret has less than the 128 bits that RFC 4226 asks for."""
        return len(self.secret) < SHORTEST_SECRET

    def step(self, moment: float) -> int:
        """The number of the period that a moment lies in.

        Args:
            moment: seconds since 1970.
        """
        return int(moment // self.period)

    def seconds_left(self, moment: float) -> int:
        """How long the code of this moment is shown: whole seconds, from `period` down to 1."""
        return self.period - int(moment) % self.period

    def code(self, moment: float = 0) -> str:
        """The code: of a moment (TOTP; seconds since 1970), or of `counter` (HOTP)."""
        return self.code_of(self.counter if self.type == "hotp" else self.step(moment))

    def code_of(self, number: int) -> str:
        """The code of a counter or period.

        Raises:
            ValueError: the number is negative or has more than 64 bits.
        """
        if not 0 <= number <= _LARGEST_COUNTER:
            raise ValueError("the counter must be from 0 to 18446744073709551615")
        mac = hmac.new(self.secret, number.to_bytes(8, "big"), getattr(hashlib, self.algorithm.lower())).digest()
        start = mac[-1] & 0xF
        truncated = int.from_bytes(mac[start : start + 4], "big") & 0x7FFFFFFF
        return str(truncated % 10**self.digits).zfill(self.digits)

    def verify(self, code: str, moment: float = 0, *, window: int = 1) -> int | None:
        """Whether somebody typed the right code.

        Looks without remembering: who authenticates people must refuse a number that was accepted before.

        Args:
            moment: seconds since 1970; TOTP only.
            window: periods to both sides of now (TOTP), or counters ahead (HOTP).

        Returns:
            the period or counter that the code belongs to, or None.
        """
        if self.type == "hotp":
            first, last = self.counter, self.counter + window
        else:
            first, last = self.step(moment) - window, self.step(moment) + window
        typed = re.sub(r"[ \t-]", "", code)
        if not re.fullmatch(r"[0-9]+", typed, re.ASCII) or len(typed) != self.digits:
            return None
        found = None
        for number in range(max(0, first), min(last, _LARGEST_COUNTER) + 1):
            # All are computed: the time taken does not tell which it was.
            if hmac.compare_digest(self.code_of(number), typed) and found is None:
                found = number
        return found


def parse_secret(text: str) -> bytes:
    """The bytes of a base32 secret, as people write it: in groups, in lower case, with or without `=`.

    Raises:
        ValueError: it is no base32. Never carries the text.
    """
    letters = re.sub(r"[ \t-]", "", text).rstrip("=").upper()
    # What remains must be what so many bytes give: 1, 3 and 6 letters over are no bytes.
    try:
        raw = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError):
        raw = b""
    if not raw:
        raise ValueError("the secret must be base32: letters A to Z and digits 2 to 7")
    return raw


def format_secret(secret: bytes) -> str:
    """Base32 in upper case without `=`, as apps and authenticators write it."""
    return base64.b32encode(secret).decode("ascii").rstrip("=")


def new_secret() -> str:
    """A fresh secret of 160 bits in base32."""
    return format_secret(os.urandom(NEW_SECRET))
