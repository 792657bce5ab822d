"""Published and recomputed values that everything here is held against."""

from __future__ import annotations

PUBLIC_ID = "credtivccccc"
PRIVATE_ID = bytes.fromhex("8792ebfe26cc")
AES_KEY = bytes.fromhex("ecde18dbe76fbd0c33330f1c354871db")
OTP = "credtivccccchknhfjbrjnlnldnhcujvddbikngjrtgh"
"""Of the key above: counter 0x13, session use 0x11, timestamp 0x00c230, random number 0x9fc8."""

KSM_KEY = bytes(range(32))
KSM_HANDLE = 1
AEAD_NONCE = bytes.fromhex("0c32d7f00000")
AEAD = bytes.fromhex(
    "5975626948534d20414541440a01010000000c32d7f0000010973c7e7183429ca1c21051a09c92308f592c4cb79e5cd78eb31d28fb4f"
)

CLIENT_SECRET = "AAECAwQFBgcICQoLDA0ODxAREhM="
REQUEST = {"id": "7", "nonce": "jrFwbaYFhn0HoxZIsd9LQ6w2ceU", "otp": OTP, "timestamp": "1"}
REQUEST_SIGNATURE = "HG7znIDNVrV6WdvhbqqwLVphKL0="
