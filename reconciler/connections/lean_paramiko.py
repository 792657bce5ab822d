"""paramiko without what it seldom needs.

For `Match exec` in SSH configurations alone it loads `invoke`, a framework for tasks; that takes longer than to load
paramiko itself, and would read our standard input. Here such a command is run as OpenSSH runs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

_LOADED = "invoke" in sys.modules
if not _LOADED:
    sys.modules["invoke"] = None  # type: ignore[assignment]  # what Python knows as "not installed"
try:
    import paramiko
    from paramiko.pkey import UnknownKeyType
finally:
    if not _LOADED:
        del sys.modules["invoke"]

__all__ = ["UnknownKeyType", "paramiko"]


def _run(command: str, **options: Any) -> SimpleNamespace:
    """Whether a command of `Match exec` succeeds, with the one attribute that paramiko looks at."""
    shell = os.environ.get("SHELL") or "/bin/sh"
    done = subprocess.run([shell, "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    return SimpleNamespace(ok=done.returncode == 0)


setattr(paramiko.config, "invoke", SimpleNamespace(run=_run))  # noqa: B010  it has no declared type
