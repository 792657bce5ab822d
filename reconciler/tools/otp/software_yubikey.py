"""A YubiKey in software: what the button types, for tests and rehearsals."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from reconciler.tools.otp.server import modhex
from reconciler.tools.otp.server.token import KEY_BYTES, PRIVATE_ID_BYTES, Token, encrypt


@dataclass
class SoftwareYubiKey:
    """Counts as the device does: `counter` grows at each power-up, `use` with each OTP since then.

    Attributes:
        public_id: 2 to 16 letters of ModHex.
        private_id: 6 bytes.
        aes_key: 16 bytes.
        counter: power-ups so far; a newly programmed key has 1 after it was plugged in.
        use: OTPs since power-up.
        timestamp: ticks of an eighth of a second, 24 bits.
    """

    public_id: str
    private_id: bytes = field(repr=False)
    aes_key: bytes = field(repr=False)
    counter: int = 1
    use: int = 0
    timestamp: int = 0

    @classmethod
    def new(cls, public_id: str | None = None) -> SoftwareYubiKey:
        """One with random secrets, and a random public id if none is given."""
        # Ids that begin with vv are those that Yubico leaves to its users.
        chosen = public_id or "vv" + modhex.encode(os.urandom(5))
        return cls(chosen, os.urandom(PRIVATE_ID_BYTES), os.urandom(KEY_BYTES))

    def plug_in(self) -> None:
        """Power it up: a new session begins."""
        self.counter += 1
        self.use = 0
        self.timestamp = int.from_bytes(os.urandom(3), "big")

    def press(self) -> str:
        """The next OTP."""
        if self.use == 0xFF:
            self.plug_in()
        token = Token(
            self.private_id,
            self.counter,
            self.timestamp & 0xFFFF,
            self.timestamp >> 16 & 0xFF,
            self.use,
            int.from_bytes(os.urandom(2), "little"),
        )
        self.use += 1
        self.timestamp = self.timestamp + 8 & 0xFFFFFF
        return encrypt(self.public_id, self.aes_key, token)
