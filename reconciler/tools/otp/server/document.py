"""The JSON document by which the reconciler says who may use the server::

    {"version": 1,
     "ksmKeys": {"1": "<32, 48 or 64 hexadecimal digits>"},
     "clients": [{"id": 1, "secret": "<base64>", "active": true, "notes": "", "email": "", "replace": false}],
     "keys": [{"publicId": "credtivccccc", "privateId": "<12 hex digits>", "aesKey": "<32 hex digits>",
               "handle": "1", "active": true, "notes": "", "replace": false}],
     "removeClients": [2],
     "removeKeys": ["vvcccccccccc"]}

Every part is optional. `secret`, and `privateId` with `aesKey`, may be left out for what exists already. A secret that
is there and differs is refused unless `replace` is true: nothing is overwritten by accident. `ksmKeys` is the whole of
keys.json; a handle whose key changes is refused while AEADs under it would become unreadable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from . import modhex
from .aead import Credential
from .ksm import KsmError, handle_number, parse_keys
from .signature import decode_secret
from .token import KEY_BYTES, PRIVATE_ID_BYTES

VERSION: Final = 1
_LARGEST_ID: Final = 0x7FFFFFFF


class RosterError(Exception):
    """The document is wrong, or asks for something that is refused. Nothing was changed.

    Attributes:
        problems: all of them; none carries a secret.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class WantedClient:
    """A client as it should be; a secret of `None` stays as it is."""

    number: int
    secret: str | None = field(repr=False)
    active: bool
    notes: str
    email: str
    replace: bool


@dataclass(frozen=True)
class WantedKey:
    """A YubiKey as it should be; a credential of `None` stays as it is."""

    public_id: str
    credential: Credential | None = field(repr=False)
    handle: str
    active: bool
    notes: str
    replace: bool


@dataclass(frozen=True)
class Roster:
    """A document that was read."""

    ksm_keys: Mapping[int, bytes] | None = field(repr=False)
    clients: tuple[WantedClient, ...]
    keys: tuple[WantedKey, ...]
    remove_clients: tuple[int, ...]
    remove_keys: tuple[str, ...]


def parse(text: str, default_handle: str) -> Roster:
    """Read a document.

    Args:
        default_handle: for keys that name none.

    Raises:
        RosterError: with all that is wrong.
    """
    reader = _Reader()
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise RosterError(["The document is no JSON."]) from None
    top = reader.object(raw, "the document")
    if reader.take(top, "version", "the document", int) != VERSION:
        reader.problems.append(f"the document: version must be {VERSION}")
    ksm_keys = None
    if "ksmKeys" in top:
        try:
            ksm_keys = parse_keys(json.dumps(top.pop("ksmKeys")))
        except KsmError as error:
            reader.problems.append(f"ksmKeys: {error}".replace("keys.json", "ksmKeys"))
    clients = tuple(reader.client(c, i) for i, c in enumerate(reader.take(top, "clients", "the document", list, []), 1))
    keys = tuple(
        reader.key(k, i, default_handle) for i, k in enumerate(reader.take(top, "keys", "the document", list, []), 1)
    )
    gone_clients = tuple(map(reader.client_id, reader.take(top, "removeClients", "the document", list, [])))
    gone_keys = tuple(map(reader.public_id, reader.take(top, "removeKeys", "the document", list, [])))
    reader.nothing_left(top, "the document")
    reader.only_once([c.number for c in clients] + list(gone_clients), "client")
    reader.only_once([k.public_id for k in keys] + list(gone_keys), "public id")
    if reader.problems:
        raise RosterError(reader.problems)
    return Roster(ksm_keys, clients, keys, gone_clients, gone_keys)


class _Reader:
    """Collects problems while it takes a document apart."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def object(self, raw: Any, place: str) -> dict[str, Any]:
        if isinstance(raw, dict):
            return dict(raw)
        self.problems.append(f"{place} must be a JSON object")
        return {}

    def take(self, source: dict[str, Any], name: str, place: str, kind: type, default: Any = None) -> Any:
        value = source.pop(name, default)
        if value is default or type(value) is kind:
            return value
        self.problems.append(f"{place}: {name} has the wrong type")
        return default

    def nothing_left(self, source: dict[str, Any], place: str) -> None:
        self.problems.extend(f"{place}: {name!r} is not known" for name in source)

    def only_once(self, names: list[Any], what: str) -> None:
        seen = set()
        for name in names:
            if name and name in seen:
                self.problems.append(f"{what} {name} is named twice")
            seen.add(name)

    def text(self, source: dict[str, Any], name: str, place: str, longest: int) -> str:
        value: str = self.take(source, name, place, str, "")
        if len(value) > longest or not value.isprintable():
            self.problems.append(f"{place}: {name} must be one line of at most {longest} characters")
        return value

    def client_id(self, raw: Any) -> int:
        if type(raw) is int and 0 < raw <= _LARGEST_ID:
            return raw
        self.problems.append("the id of a client must be a number from 1 to 2147483647")
        return 0

    def public_id(self, raw: Any) -> str:
        if isinstance(raw, str) and modhex.is_public_id(raw):
            return raw
        self.problems.append(
            f"{raw if isinstance(raw, str) else type(raw).__name__!r} is no public id: "
            f"2 to 16 of the letters {modhex.ALPHABET}, an even number of them"
        )
        return ""

    def client(self, raw: Any, number: int) -> WantedClient:
        source = self.object(raw, f"client number {number}")
        found = self.client_id(source.pop("id", None))
        place = f"client {found}"
        secret = self.take(source, "secret", place, str)
        if secret is not None:
            try:
                usable = bool(decode_secret(secret)) and len(secret) <= 60
            except ValueError:
                usable = False
            if not usable:
                self.problems.append(f"{place}: secret must be base64 of at most 60 characters")
        wanted = WantedClient(
            found,
            secret,
            self.take(source, "active", place, bool, True),
            self.text(source, "notes", place, 100),
            self.text(source, "email", place, 255),
            self.take(source, "replace", place, bool, False),
        )
        self.nothing_left(source, place)
        return wanted

    def key(self, raw: Any, number: int, default_handle: str) -> WantedKey:
        source = self.object(raw, f"key number {number}")
        public_id = self.public_id(source.pop("publicId", ""))
        place = f"key {public_id or number}"
        private_id = self.hex(source, "privateId", place, PRIVATE_ID_BYTES)
        aes_key = self.hex(source, "aesKey", place, KEY_BYTES)
        credential = Credential(aes_key, private_id) if aes_key and private_id else None
        if (aes_key is None) != (private_id is None):
            self.problems.append(f"{place}: privateId and aesKey belong together")
        handle = self.take(source, "handle", place, str, default_handle)
        try:
            handle_number(handle)
        except ValueError as error:
            self.problems.append(f"{place}: {error}")
        wanted = WantedKey(
            public_id,
            credential,
            handle,
            self.take(source, "active", place, bool, True),
            self.text(source, "notes", place, 100),
            self.take(source, "replace", place, bool, False),
        )
        self.nothing_left(source, place)
        return wanted

    def hex(self, source: dict[str, Any], name: str, place: str, size: int) -> bytes | None:
        value = self.take(source, name, place, str)
        if value is None:
            return None
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raw = b""
        if len(raw) != size or len(value) != 2 * size:
            self.problems.append(f"{place}: {name} must be {2 * size} hexadecimal digits")
            return bytes(size)
        return raw
