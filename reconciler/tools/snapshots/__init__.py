"""Btrfs snapshots: retention, and the program that hosts run.

The modules that `MODULES` names run on hosts, so they need no more than Python 3.9 and its standard library.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

MODULES: Final = ("names", "retention", "btrfs", "folder", "foreign", "restoring", "program")
"""In this order they make one program: each uses only those before it."""

PROGRAM: Final = "/usr/local/bin/reconciler-snapshots"
"""Where the program is on a host."""

_OWN_IMPORT: Final = re.compile(r"^from reconciler\.\S+ import (?:\([^)]*\)|[^\n(]*)\n", re.MULTILINE)
_FUTURE: Final = re.compile(r"^from __future__ import annotations\n", re.MULTILINE)


@cache
def program_text() -> str:
    """The program as one file for hosts: the modules one after the other, without their imports of each other."""
    parts = ["#!/usr/bin/env python3\n# Made by reconciler: takes, removes and restores Btrfs snapshots.\n"]
    parts.append("from __future__ import annotations\n")
    for name in MODULES:
        text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        text = _FUTURE.sub("", _OWN_IMPORT.sub("", text))
        parts.append(f"\n\n# {'-' * 30} {name}\n\n{text.strip()}\n")
    return "".join(parts)
