"""Puts a `Composed` together: text with secrets in it, each checked and spelled as its place wants it.

A wrong secret is named here, before anything is changed, because the output of a step that handles one is withheld.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping
from typing import Final

from reconciler.errors import SecretError
from reconciler.model import Composed, Secret


def compose(text: Composed, reveal: Callable[[Secret], str]) -> str:
    """The text, with its secrets in place.

    Args:
        reveal: looks up one secret.

    Raises:
        SecretError: a secret is not there, or not of the form that its place wants. The value is not in the message.
    """
    spell, wanted = _FORMS[text.form]
    out = []
    for part in text.parts:
        if isinstance(part, str):
            out.append(part)
            continue
        try:
            out.append(spell(reveal(part)))
        except ValueError:
            raise SecretError(f"the secret {part.secret_ref} is not {wanted}.") from None
    return "".join(out)


def _base32(value: str) -> str:
    """Canonical: upper case, without padding and what people put between groups."""
    letters = value.upper().translate(str.maketrans("", "", " -\t\n")).rstrip("=")
    if len(_bytes_of(letters)) < 1:
        raise ValueError("empty")
    return letters


def _bytes_of(letters: str) -> bytes:
    return base64.b32decode(letters + "=" * (-len(letters) % 8))


def _base32_as_hex(value: str) -> str:
    return _bytes_of(_base32(value)).hex()


def _base64(value: str) -> str:
    raw = base64.b64decode(value.strip(), validate=True)
    if not raw:
        raise ValueError("empty")
    return base64.b64encode(raw).decode()


def _hex(*sizes: int) -> Callable[[str], str]:
    def spell(value: str) -> str:
        raw = binascii.unhexlify(value.strip())
        if len(raw) not in sizes:
            raise ValueError("wrong size")
        return raw.hex()

    return spell


def _sha256(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _xml(value: str) -> str:
    """As text or as an attribute; XML 1.0 cannot hold every character, not even as a reference."""
    if not _XML.fullmatch(value):
        raise ValueError("not for XML")
    # Parsers read a carriage return as a line feed, unless it is a reference.
    return html.escape(value).replace("\r", "&#13;")


_XML: Final = re.compile("[\\t\\n\\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
_FORMS: Final[Mapping[str, tuple[Callable[[str], str], str]]] = {
    "verbatim": (str, "text"),
    "json": (json.dumps, "text"),
    "base32": (_base32, "base32 text (A-Z and 2-7)"),
    "base32AsHex": (_base32_as_hex, "base32 text (A-Z and 2-7)"),
    "base64": (_base64, "base64 text"),
    "hex6": (_hex(6), "6 bytes as 12 hexadecimal digits"),
    "hex16": (_hex(16), "16 bytes as 32 hexadecimal digits"),
    "sha256": (_sha256, "text"),
    "xml": (_xml, "text that XML can hold: it has control characters"),
    "sealed": (str, "text"),
    "hexAes": (_hex(16, 24, 32), "an AES key: 16, 24 or 32 bytes as hexadecimal digits"),
}
"""How each secret of a text is spelled, and what it has to be, completing "the secret is not ..."."""
