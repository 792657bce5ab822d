"""The key storage: keys.json and the folder of AEADs. Reads the files at each request, so a change needs no reload."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from . import modhex
from .aead import KSM_KEY_BYTES, Aead, AeadError, Credential, path_in
from .token import InvalidOtp, Token, decrypt, split

LONGEST_OTP: Final = 16 + 32
_MOST_BYTES: Final = 1 << 20
_HANDLE: Final = re.compile(r"0[xX]([0-9a-fA-F]{1,8})|([0-9]{1,10})", re.ASCII)


class KsmError(Exception):
    """The key storage cannot do its work: a file is missing, unreadable or damaged. Never carries a secret."""


class UnknownPublicId(Exception):
    """There is no AEAD for this public id."""


def parse_keys(text: str) -> dict[int, bytes]:
    """Handle -> key, of a keys.json: `{"1": "<hex of 16, 24 or 32 bytes>"}`.

    Raises:
        KsmError: it is not of that form; the message says where, and never quotes a key.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise KsmError("keys.json is no JSON") from None
    if not isinstance(raw, dict):
        raise KsmError('keys.json must be an object such as {"1": "<hex>"}')
    keys: dict[int, bytes] = {}
    for number, (handle, text_of_key) in enumerate(raw.items(), 1):
        if not handle.isascii() or not handle.isdecimal() or len(handle) > 10 or int(handle) > 0xFFFFFFFF:
            raise KsmError(f"entry {number} of keys.json: the handle must be a decimal number up to 4294967295")
        if int(handle) in keys:
            raise KsmError(f"keys.json has the handle {int(handle)} twice")
        try:
            key = bytes.fromhex(text_of_key)
        except (TypeError, ValueError):
            key = b""
        if len(key) not in KSM_KEY_BYTES:
            raise KsmError(f"the key of handle {handle} in keys.json must be 32, 48 or 64 hexadecimal digits")
        keys[int(handle)] = key
    return keys


def format_keys(keys: Mapping[int, bytes]) -> str:
    """The text of a keys.json."""
    return json.dumps({str(handle): keys[handle].hex() for handle in sorted(keys)}, indent=2) + "\n"


def handle_number(handle: str) -> int:
    """The number of a handle as it is written in the settings: decimal, or hexadecimal after 0x.

    Raises:
        ValueError: it is no such number.
    """
    match = _HANDLE.fullmatch(handle)
    number = int(match[1], 16) if match and match[1] else int(match[2]) if match else -1
    if not 0 <= number <= 0xFFFFFFFF:
        raise ValueError(f"{handle!r} is no key handle")
    return number


class KeyStorage:
    """Decrypts OTPs.

    Attributes:
        keys_file: keys.json.
        aeads: the folder of AEADs.
        handles: the handles to look under, in this order, as they are written: each names a folder.
    """

    def __init__(self, keys_file: Path, aeads: Path, handles: Sequence[str]) -> None:
        self.keys_file, self.aeads, self.handles = keys_file, aeads, tuple(handles)

    def keys(self) -> dict[int, bytes]:
        """Handle -> key.

        Raises:
            KsmError: keys.json cannot be read.
        """
        try:
            with open(self.keys_file, "rb") as file:
                raw = file.read(_MOST_BYTES)
            return parse_keys(raw.decode("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no UTF-8"
            raise KsmError(f"{self.keys_file} cannot be read: {reason}") from None

    def find(self, public_id: str) -> tuple[str, Aead]:
        """The AEAD of a public id and the handle, as it is written, under which it lies.

        Raises:
            UnknownPublicId: there is none.
            KsmError: the file is damaged or cannot be read.
        """
        for handle in self.handles:
            try:
                with open(path_in(self.aeads, handle, public_id), "rb") as file:
                    raw = file.read(1024)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise KsmError(f"the AEAD of {public_id} cannot be read: {error.strerror}") from None
            try:
                return handle, Aead.parse(raw, handle=handle_number(handle), public_id=public_id)
            except AeadError as error:
                raise KsmError(f"{public_id}: {error}") from None
        # A folder that cannot be looked into must not pass as empty.
        if not self.aeads.is_dir():
            raise KsmError(f"there is no folder {self.aeads}")
        raise UnknownPublicId(public_id)

    def credential(self, public_id: str, keys: Mapping[int, bytes] | None = None) -> Credential:
        """What the server shares with a YubiKey.

        Raises:
            UnknownPublicId: there is no AEAD.
            KsmError: it cannot be opened.
        """
        handle, aead = self.find(public_id)
        key = (self.keys() if keys is None else keys).get(aead.handle)
        if key is None:
            raise KsmError(f"keys.json has no key {handle}, which the AEAD of {public_id} needs")
        try:
            return aead.open(key)
        except AeadError as error:
            raise KsmError(f"{public_id}: {error}") from None

    def decrypt(self, typed: str) -> tuple[str, Token]:
        """The public id and the token of an OTP, typed in upper or lower case, with an ordinary layout or Dvorak.

        Raises:
            InvalidOtp: it has not the form of an OTP, or is none of that YubiKey.
            UnknownPublicId: no reading of it has a public id that is known.
            KsmError: the key storage does not work.
        """
        if len(typed) > LONGEST_OTP:
            raise InvalidOtp("too long")
        failure: Exception = InvalidOtp("no ModHex")
        for otp in modhex.readings(typed):
            try:
                public_id, block = split(otp)
                credential = self.credential(public_id)
                return public_id, decrypt(credential.aes_key, credential.private_id, block)
            except (InvalidOtp, UnknownPublicId) as error:
                # A wrong reading is most often unknown: what was found out about the other one says more.
                if not isinstance(error, UnknownPublicId) or "no ModHex" in str(failure):
                    failure = error
        raise failure
