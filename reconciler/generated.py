"""Secrets that a machine makes: what `generate:` beside a `secretRef` asks for."""

from __future__ import annotations

import base64
import secrets as random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from reconciler.model import GenerateForm

FORMS: Final[Mapping[GenerateForm, Callable[[], str]]] = MappingProxyType(
    {
        "password": lambda: random.token_urlsafe(24),
        "base32": lambda: base64.b32encode(random.token_bytes(20)).decode(),
        "hex16": lambda: random.token_hex(16),
        "hex6": lambda: random.token_hex(6),
        "base64-20": lambda: base64.b64encode(random.token_bytes(20)).decode(),
        "base64-32": lambda: base64.b64encode(random.token_bytes(32)).decode(),
    }
)
"""Each form from the operating system's random numbers. To add one, add it here and to `GenerateForm`."""
