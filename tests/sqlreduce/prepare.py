"""Installs what these tests and the benchmark need: `python -m tests.sqlreduce.prepare` (Debian, root)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.sqlreduce.server import binaries


def missing() -> list[str]:
    """The Debian packages that are needed and not there."""
    wanted = {"postgresql": binaries() is not None, "sqlreduce": shutil.which("sqlreduce") is not None}
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
        print(f"tests of sqlreduce are left out: they need {' and '.join(packages)}, and this is not Debian as root")
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
