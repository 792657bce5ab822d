"""Secrets that a machine makes: what `generate:` beside a `secretRef` asks for."""

from __future__ import annotations

import base64
import json
import secrets as random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from reconciler.model import GenerateForm


def proxmox_key() -> str:
    """An encryption key of Proxmox's backup clients: JSON with 32 random bytes, not protected by a password."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    data = base64.b64encode(random.token_bytes(32)).decode()
    return json.dumps({"kdf": None, "created": now, "modified": now, "data": data})


FORMS: Final[Mapping[GenerateForm, Callable[[], str]]] = MappingProxyType(
    {
        "password": lambda: random.token_urlsafe(24),
        "base32": lambda: base64.b32encode(random.token_bytes(20)).decode(),
        "hex16": lambda: random.token_hex(16),
        "hex6": lambda: random.token_hex(6),
        "base64-20": lambda: base64.b64encode(random.token_bytes(20)).decode(),
        "base64-32": lambda: base64.b64encode(random.token_bytes(32)).decode(),
        "proxmox-key": proxmox_key,
    }
)
"""Each form from the operating system's random numbers. To add one, add it here and to `GenerateForm`."""
