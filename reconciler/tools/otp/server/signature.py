"""Signatures of WSAPI 2.0: HMAC-SHA-1 over the sorted parameters, joined by `&`, values as they are."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

NO_SECRET: Final = b""
"""Signs answers to clients that are not known."""


def decode_secret(text: str) -> bytes:
    """The bytes of a client's secret, which is kept in base64.

    Raises:
        ValueError: no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("the secret of a client must be base64") from None


def sign(parameters: Mapping[str, str], secret: bytes) -> str:
    """The value of `h` for these parameters; an `h` among them is left out."""
    text = "&".join(f"{name}={parameters[name]}" for name in sorted(parameters) if name != "h")
    return base64.b64encode(hmac.new(secret, text.encode(), hashlib.sha1).digest()).decode("ascii")


def matches(parameters: Mapping[str, str], secret: bytes) -> bool:
    """Whether `h` among the parameters signs the others.

    Some clients sign the OTP in lower case, whatever was typed: the old server signed what it had lowered.
    """
    given = parameters.get("h", "").encode("utf-8", "replace")
    lowered = {**parameters, "otp": parameters.get("otp", "").lower()}
    # Both are always computed: the time taken tells nothing.
    verdicts = [hmac.compare_digest(sign(p, secret).encode(), given) for p in (parameters, lowered)]
    return any(verdicts)
