"""Makes this machine ready for the lab: `python -m tests.lab.prepare`.

Installs only what is missing and builds the base tree once, so that a second run costs nothing. Where the
lab cannot run it says why in one line and succeeds: the rest of the test-suite needs none of this.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = {
    "debootstrap": "debootstrap",
    "dpkg-deb": "dpkg",
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
"""Program -> the Debian package that has it. No sshd: it runs in the hosts, never on this machine."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
CAP_SYS_ADMIN = 21


def _distribution() -> str:
    """The ID of os-release, which is `debian` on Debian only and not on what descends from it."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return sys.platform
    return next((line[3:].strip("\"'") for line in lines if line.startswith("ID=")), "unknown")


def _may_mount() -> bool:
    """Whether root here is root enough: in an ordinary container it may neither mount nor make namespaces."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    return False


def _load(module: str) -> bool:
    """Whether the kernel has this as a module."""
    try:
        return subprocess.run(["modprobe", "--quiet", module], check=False).returncode == 0
    except FileNotFoundError:
        return False


def unfit() -> str | None:
    """Why no installation would make the lab run here, or None."""
    if sys.platform != "linux" or _distribution() != "debian":
        return f"the lab needs Debian, and this is {_distribution()}"
    if os.geteuid() != 0:
        return "the lab needs root: it boots systems in namespaces"
    if not _may_mount():
        return "the lab needs CAP_SYS_ADMIN: this container may not mount"
    kernel = Path("/proc/filesystems").read_text(encoding="ascii").split()
    if "overlay" not in kernel and not _load("overlay"):
        return "the lab needs overlayfs, which this kernel does not have"
    return None


def absent() -> list[str]:
    """The Debian packages that are still to be installed."""
    packages = {package for tool, package in TOOLS.items() if shutil.which(tool, path=SEARCH) is None}
    if not KEYRING.exists():
        packages.add("debian-archive-keyring")
    return sorted(packages)


def missing() -> str | None:
    """Why the lab cannot run here; None if it can."""
    if reason := unfit():
        return reason
    if packages := absent():
        return f"the lab needs {', '.join(packages)}: run `python -m tests.lab.prepare`"
    return None


def install(packages: list[str]) -> None:
    """Install from the machine's own sources; refresh the package lists only if they prove too old."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if subprocess.run(command, env=environment, check=False).returncode:
        subprocess.run(["apt-get", "update", "-q"], env=environment, check=True)
        subprocess.run(command, env=environment, check=True)


def main() -> int:
    """Prepare what can be prepared, and say what was left out."""
    if reason := unfit():
        print(f"lab tests are left out: {reason}")
        return 0
    if packages := absent():
        install(packages)
    from tests.lab import base  # not before its tools are there

    print(f"lab base: {base.base()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
