"""Installs what these tests hold our programs against: `python -m tests.otp.prepare` (Debian, root)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from ctypes.util import find_library


def missing() -> list[str]:
    """The Debian packages that are needed and not there."""
    wanted = {
        "libykclient3": find_library("ykclient") is not None,
        "oathtool": shutil.which("oathtool") is not None,
        "zbar-tools": shutil.which("zbarimg") is not None,
    }
    return [package for package, there in wanted.items() if not there]


def main() -> int:
    """Installs what is missing, or says what is left out.

    Raises:
        subprocess.CalledProcessError: apt-get failed
    """
    packages = missing()
    if not packages:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"some tests of one-time passwords are left out: they need {' and '.join(packages)}")
        return 0
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", "update"], check=True, env=environment)
    subprocess.run(
        ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *packages],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
