"""The validation server as one Python text: a file like any other on its host, to be read and compared there."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

PACKAGE: Final = "otp_server"
_HEAD: Final = f'''\
#!/usr/bin/python3
"""Key storage and validation server for Yubico OTP. Written by reconciler, which replaces what is edited here."""

import importlib.abc
import importlib.util
import sys


class Sources(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the modules whose texts stand below."""

    def find_spec(self, name, path=None, target=None):
        if name in SOURCES:
            return importlib.util.spec_from_loader(name, self, is_package=name == "{PACKAGE}")

    def is_package(self, name):
        return name == "{PACKAGE}"

    def get_source(self, name):
        return "".join(SOURCES[name])


'''
_TAIL: Final = f"""\
sys.meta_path.insert(0, Sources())
if __name__ == "__main__":
    from {PACKAGE}.__main__ import main

    main()
"""


@cache
def single_file() -> str:
    """The text: what Debian's python3 runs with the arguments of `reconciler.tools.otp.server.__main__`.

    The same sources give the same text.
    """
    folder = resources.files("reconciler.tools.otp.server")
    texts = {f.name.removesuffix(".py"): f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".py")}
    parts = [_HEAD, "SOURCES = {\n"]
    for name, text in sorted(texts.items()):
        parts.append(f"    {PACKAGE if name == '__init__' else f'{PACKAGE}.{name}'!r}: [\n")
        parts += [f"        {line!r},\n" for line in text.splitlines(keepends=True)]
        parts.append("    ],\n")
    return "".join([*parts, "}\n", _TAIL])
