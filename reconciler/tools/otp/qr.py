"""A URI as QR code: for the terminal, as PNG, as SVG. Needs segno, of the extra `otp`."""

from __future__ import annotations

import io
from typing import Any, Final

SCALE: Final = 10
"""Pixels per module: large enough for any camera."""


def _symbol(text: str) -> Any:
    import segno

    # No Micro QR: authenticator apps do not read it.
    return segno.make(text, micro=False, error="l")


def terminal(text: str) -> str:
    """The code in half blocks, two modules high each, light on dark as a terminal is; ends in a line feed.

    Without colours: it is the same in every theme with a dark background, and readers take the inverse one, too.
    """
    out = io.StringIO()
    _symbol(text).terminal(out=out, compact=True)
    return out.getvalue().rstrip("\n") + "\n"


def png(text: str) -> bytes:
    """The code as a PNG picture."""
    out = io.BytesIO()
    _symbol(text).save(out, kind="png", scale=SCALE)
    return out.getvalue()


def svg(text: str) -> bytes:
    """The code as an SVG picture on white ground."""
    out = io.BytesIO()
    _symbol(text).save(out, kind="svg", scale=SCALE, light="white", nl=True)
    return out.getvalue()
