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


def terminal(text: str, *, colors: bool = False) -> str:
    """The code in half blocks, two modules high each; ends in a line feed.

    Letters are the light part, as on a dark ground.

    Args:
        colors: say so by escape sequences, so that it looks the same on a light ground; some apps read no inverse code.
    """
    out = io.StringIO()
    _symbol(text).terminal(out=out, compact=True)
    rows = out.getvalue().rstrip("\n").split("\n")
    return "".join(f"\033[97;40m{row}\033[0m\n" if colors else f"{row}\n" for row in rows)


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
