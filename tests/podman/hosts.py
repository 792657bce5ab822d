"""Lab hosts that can run containers, as root and rootless."""

from __future__ import annotations

from tests.lab.base import layer
from tests.lab.hosts import LabHost, Setup

PACKAGES = (
    "aardvark-dns",
    "busybox-static",  # what the images hold
    "catatonit",  # pods
    "crun",
    "dbus-user-session",
    "fuse-overlayfs",
    "iptables",
    "netavark",
    "nftables",
    "passt",
    "podman",
    "slirp4netns",
    "uidmap",
)
# A lab host lies in a container itself, without some controllers and above some limits.
SETTINGS = '[containers]\npids_limit=0\ndefault_ulimits=["nofile=1024:16384","nproc=4096:4096"]\n'


def podman_setup() -> Setup:
    """How a lab host has to be made for Podman."""
    return Setup(
        layers=[layer("podman-hosts", PACKAGES)],
        capabilities=["all"],
        binds=["/dev/fuse", "/dev/net/tun"],
        system_calls="add_key keyctl bpf @keyring",
        writable_sys=True,
    )


def prepare(host: LabHost) -> bytes:
    """Let Podman run on a host that is up; the static program for its images."""
    host.write("/etc/containers/containers.conf.d/lab.conf", SETTINGS)
    return host.path("/usr/bin/busybox").read_bytes()
