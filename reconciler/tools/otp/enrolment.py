"""New YubiKeys in the desired state: a document for each, and its two secrets for the store."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.tools.otp.credentials import YubikeyCredential
from reconciler.tools.otp.server import modhex
from reconciler.tools.otp.server.token import KEY_BYTES, PRIVATE_ID_BYTES

OWN_PREFIX = "vv"
"""Public ids that begin so are never given out by Yubico."""
_ID_BYTES = 6


@dataclass(frozen=True)
class Enrolment:
    """What is written for some YubiKeys.

    Attributes:
        documents: YAML, without secrets.
        secrets: reference -> value.
    """

    documents: str
    secrets: Mapping[str, str] = field(repr=False)


def enrol(
    keys: Mapping[str, YubikeyCredential], server: str, folder: str = "yubikeys", owner: str | None = None
) -> Enrolment:
    """Documents and secrets of YubiKeys.

    Args:
        keys: by the names of their documents.
        server: name of the OtpServer.
        folder: where the references of the secrets begin.
        owner: account that OtpLogin lets in with them.
    """
    documents: list[str] = []
    secrets: dict[str, str] = {}
    for name, key in keys.items():
        private_id, aes_key = f"{folder}/{name}-private", f"{folder}/{name}-aes"
        secrets |= {private_id: key.private_id, aes_key: key.aes_key}
        lines = [
            "apiVersion: reconciler/v1",
            "kind: YubikeyOtp",
            "metadata:",
            f"  name: {_text(name)}",
            "spec:",
            f"  server: {_text(server)}",
            *([f"  owner: {_text(owner)}"] if owner else []),
            f"  publicId: {_text(key.public_id)}",
            f"  privateId: {{secretRef: {_text(private_id)}}}",
            f"  aesKey: {{secretRef: {_text(aes_key)}}}",
        ]
        documents.append("\n".join(lines) + "\n")
    return Enrolment("---\n".join(documents), secrets)


def _text(word: str) -> str:
    """A word that no reader of YAML takes for anything but text: `null`, `1e5` and `on` are names, too."""
    return f'"{word}"'


def new_credentials(count: int, first: str | None = None, existing: Collection[str] = ()) -> list[YubikeyCredential]:
    """Fresh credentials.

    Args:
        first: public id of the first one; the others count on from it. By default random ones that begin with `vv`.
        existing: public ids that are in use.

    Raises:
        ValueError: a public id is in use, or counting leaves its length.
    """
    return [
        YubikeyCredential(public_id, os.urandom(PRIVATE_ID_BYTES).hex(), os.urandom(KEY_BYTES).hex())
        for public_id in (_random_ids(count, existing) if first is None else _counted_ids(count, first, existing))
    ]


def _random_ids(count: int, existing: Collection[str]) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        public_id = OWN_PREFIX + modhex.encode(os.urandom(_ID_BYTES - 1))
        if public_id not in existing and public_id not in found:
            found.append(public_id)
    return found


def _counted_ids(count: int, first: str, existing: Collection[str]) -> Sequence[str]:
    if not modhex.is_public_id(first):
        raise ValueError(f"{first!r} is no public id: write 2 to 16 of the letters {modhex.ALPHABET}, an even number")
    start, size = int.from_bytes(modhex.decode(first), "big"), len(first) // 2
    if start + count > 1 << 8 * size:
        raise ValueError(f"there are no {count} public ids of {len(first)} letters from {first} on")
    found = [modhex.encode((start + n).to_bytes(size, "big")) for n in range(count)]
    taken = [public_id for public_id in found if public_id in existing]
    if taken:
        raise ValueError(f"the public id {', '.join(taken)} is in use already")
    return found
