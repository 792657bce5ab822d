"""ModHex: hexadecimal in the sixteen letters that nearly all keyboard layouts have in the same place."""

from __future__ import annotations

import re
from typing import Final

ALPHABET: Final = "cbdefghijklnrtuv"
HEX: Final = "0123456789abcdef"
DVORAK: Final = "jxe.uidchtnbpygk"
"""What the keys of `ALPHABET` type where the layout is Dvorak."""

_TO_MODHEX: Final = str.maketrans(HEX, ALPHABET)
_TO_HEX: Final = str.maketrans(ALPHABET, HEX)
_FROM_DVORAK: Final = str.maketrans(DVORAK, ALPHABET)
_MODHEX: Final = re.compile(f"[{ALPHABET}]*", re.ASCII)
_DVORAK: Final = re.compile(f"[{re.escape(DVORAK)}]*", re.ASCII)

PUBLIC_ID: Final = re.compile(f"(?:[{ALPHABET}]{{2}}){{1,8}}", re.ASCII)
"""A public id: 1 to 8 bytes, so 2 to 16 letters; the validation server's table holds no more."""


def encode(raw: bytes) -> str:
    """Bytes as ModHex."""
    return raw.hex().translate(_TO_MODHEX)


def decode(text: str) -> bytes:
    """ModHex as bytes. Lower case only.

    Raises:
        ValueError: it is no ModHex, or has an odd length.
    """
    if not _MODHEX.fullmatch(text) or len(text) % 2:
        raise ValueError(f"no ModHex: an even number of the letters {ALPHABET} is needed")
    return bytes.fromhex(text.translate(_TO_HEX))


def is_public_id(text: str) -> bool:
    """Whether this can be a public id: 2 to 16 letters of ModHex in lower case, an even number of them."""
    return PUBLIC_ID.fullmatch(text) is not None


def readings(typed: str) -> tuple[str, ...]:
    """What somebody may have meant who typed this: as it is (in lower case), and as typed with a Dvorak layout.

    Twelve letters stand in both alphabets, so that a text may have two readings; only decryption tells which is right.
    """
    # Not `lower()` of Unicode: the Kelvin sign would become a k.
    text = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in typed)
    found = []
    if _MODHEX.fullmatch(text):
        found.append(text)
    if _DVORAK.fullmatch(text):
        found.append(text.translate(_FROM_DVORAK))
    return tuple(found)
