"""Installs what these tests and the benchmark need: `python -m tests.sqlreduce.prepare` (Debian, root)."""

from __future__ import annotations

import os
import shutil
import subprocess

from tests.sqlreduce.server import binaries


def missing() -> list[str]:
    """The Debian packages that are needed and not there."""
    wanted = {"postgresql": binaries() is not None, "sqlreduce": shutil.which("sqlreduce") is not None}
    return [package for package, there in wanted.items() if not there]


def prepare() -> None:
    """Installs what is missing.

    Raises:
        subprocess.CalledProcessError: apt-get failed
    """
    packages = missing()
    if not packages:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", "update"], check=True, env=environment)
    subprocess.run(
        ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *packages],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    prepare()
