"""Installs Debian's age, which reads what we wrap and wraps what we read: `python -m tests.secrets.prepare`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def missing() -> str | None:
    """Why the tests that need age cannot run; None if they can."""
    return None if shutil.which("age") else "Debian's age is not installed: python -m tests.secrets.prepare"


def main() -> int:
    """Install what is missing, or say what is left out.

    Raises:
        subprocess.CalledProcessError: apt-get failed
    """
    if missing() is None:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print("tests of secrets against age are left out: it is not installed, and this is not Debian as root")
        return 0
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "-qq", "-y", "--no-install-recommends", "install", "age"]
    if subprocess.run(install, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
        subprocess.run(["apt-get", "-qq", "update"], check=True, env=environment)
        subprocess.run(install, check=True, env=environment, stdout=subprocess.DEVNULL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
