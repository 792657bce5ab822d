"""The validation server as one file, for hosts that have nothing of ours but what we put there."""

from __future__ import annotations

import io
import zipfile
from importlib import resources
from typing import Final

PACKAGE: Final = "otp_server"
_MAIN: Final = f"from {PACKAGE}.__main__ import main\n\nmain()\n"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def bundle() -> bytes:
    """A `.pyz` that Debian's python3 runs: `python3 reconciler-otp.pyz serve --config FILE`.

    The same sources give the same bytes, whatever the machine, its clock and its zlib: so a host's file is compared
    like any other.
    """
    folder = resources.files("reconciler.tools.otp.server")
    sources = {f"{PACKAGE}/{f.name}": f.read_bytes() for f in folder.iterdir() if f.name.endswith(".py")}
    sources["__main__.py"] = _MAIN.encode()
    out = io.BytesIO()
    out.write(b"#!/usr/bin/python3\n")
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, sources[name])
    return out.getvalue()
