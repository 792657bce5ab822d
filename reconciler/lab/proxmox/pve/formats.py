"""The named formats of Proxmox VE parameters: what a value must look like, and the text when it does not."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

from reconciler.lab.proxmox import calendar
from reconciler.lab.proxmox.pve import known

PATTERNS: Final = {"REPLICATION_JOB": r"[1-9][0-9]{2,8}-\d{1,9}"}
"""What `~NAME` means in the tables."""

_NAME: Final = r"[A-Za-z0-9.\-_]+"
_HOST: Final = r"([a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?"
_STORAGE: Final = r"(?i:[a-z][a-z0-9\-_.]*[a-z0-9])"
_BOOT_DEVICE: Final = (
    r"(ide[0-3]|scsi([0-9]|[12][0-9]|30)|virtio([0-9]|1[0-5])|sata[0-5])"
    r"|net([0-9]|[12][0-9]|3[01])|usb([0-9]|1[0-3])|hostpci([0-9]|1[0-5])"
)
_MAIL: Final = r"[\w+\-~]+(\.[\w+\-~]+)*"
_DOMAIN: Final = r"@[a-zA-Z0-9\-]+(\.[a-zA-Z0-9\-]+)*"

REGEXES: Final[dict[str, tuple[str, str]]] = {
    "disk-size": (r"(\d+(\.\d+)?)([KMGT](?:iB)?)?", "value does not look like a valid disk size: {v}"),
    "dns-name": (_HOST, "value does not look like a valid DNS name"),
    "email": (_MAIL + _DOMAIN, "value does not look like a valid email address"),
    "email-or-username": (f"{_MAIL}({_DOMAIN})?", "value does not look like a valid email address or user name"),
    "mac-addr": (r"(?i:[a-f0-9][02468ace](?::[a-f0-9]{2}){5})", "value does not look like a valid unicast MAC address"),
    "pve-bridge-id": (r"[-_.\w\d]+", "invalid bridge ID '{v}'"),
    "pve-configid": (r"(?i:[a-z][a-z0-9_-]+)", "invalid configuration ID '{v}'"),
    "pve-cpuset": (r"\d+(-\d+)?(,\d+(-\d+)?)*", "value does not look like a list of CPUs: {v}"),
    "pve-ct-timezone": (r"[A-Za-z0-9_+\-/]+", "invalid time zone '{v}'"),
    "pve-day-of-week": (r"mon|tue|wed|thu|fri|sat|sun", "invalid day '{v}'"),
    "pve-dir-override": (r"[a-z]+=[^/;()][^;()]*", "invalid override '{v}'"),
    "pve-groupid": (_NAME, "group name '{v}' contains invalid characters"),
    "pve-hotplug-features": (
        r"[01]|((network|disk|cpu|memory|usb|cloudinit)([,; ](network|disk|cpu|memory|usb|cloudinit))*)?",
        "unable to parse hotplug option",
    ),
    "pve-iface": (r"(?i:[a-z][a-z0-9_]{1,20}([:.]\d+)?)", "invalid network interface name '{v}'"),
    "pve-lxc-dev-string": (r"/dev/.+", "not a device below /dev: '{v}'"),
    "pve-node": (r"[a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?", "value does not look like a valid node name"),
    "pve-phys-bits": (r"host|[89]|[1-5][0-9]|6[0-4]", "value must be an integer between 8 and 64 or 'host'"),
    "pve-poolid": (rf"{_NAME}(?:/{_NAME}){{0,2}}", "pool name '{v}' contains invalid characters"),
    "pve-qm-bootdev": (_BOOT_DEVICE, "invalid boot device '{v}'"),
    "pve-qm-bootdisk": (r"(ide|sata|scsi|virtio)\d+", "invalid boot disk '{v}'"),
    "pve-realm": (r"[A-Za-z][A-Za-z0-9.\-_]+", "value does not look like a valid realm"),
    "pve-roleid": (_NAME, "role name '{v}' contains invalid characters"),
    "pve-startup-order": (
        r"((order=)?\d+|up=\d+|down=\d+|\s*)(,((order=)?\d+|up=\d+|down=\d+|\s*))*",
        "unable to parse startup options",
    ),
    "pve-storage-options": (r"\S+", "invalid options '{v}'"),
    "pve-storage-portal-dns": (rf"({_HOST}|\[[0-9A-Fa-f:]+\])(:\d+)?", "unable to parse portal '{v}'"),
    "pve-storage-server": (_HOST, "value does not look like a valid server name or IP address"),
    "pve-storage-vgname": (r"(?i:[a-z0-9][a-z0-9\-_.]*[a-z0-9])", "lvm name '{v}' contains illegal characters"),
    "pve-tag": (r"(?i:[a-z0-9_][a-z0-9_\-+.]*)", "invalid characters in tag"),
    "pve-task-status-type": (r"(?i:ok|error|warning|unknown)", "invalid status '{v}'"),
    "pve-tokenid": (
        r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+![A-Za-z][A-Za-z0-9.\-_]+",
        "value '{v}' does not look like a valid token ID",
    ),
    "pve-vmid": (r"[1-9][0-9]{2,8}", "value does not look like a valid VM ID"),
    "pve-volume-id": (rf"{_STORAGE}:(.+)", "unable to parse volume ID '{v}'"),
    "urlencoded": (r"[-%a-zA-Z0-9_.!~*'()]*", "invalid urlencoded string: {v}"),
}
"""Formats that are one regular expression for the whole value, and the complaint. A newline at the end passes."""


def _ip(value: str) -> str | None:
    return None if _is_address(value) else "value does not look like a valid IP address: " + value


def _is_address(value: str, version: int | None = None) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return "%" not in value and version in (None, address.version)


def _is_network(value: str, version: int | None = None) -> bool:
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError:
        return False
    if "/" not in value or version not in (None, interface.version):
        return False
    return interface.network.prefixlen >= 8


def _address(value: str) -> str | None:
    fine = _is_address(value) or re.fullmatch(_HOST, value)
    return None if fine else f"value does not look like a valid address: {value}"


def _interface_address(value: str) -> str | None:
    return _ip(value.partition("%")[0])


def _ip_configuration(version: int, words: frozenset[str]) -> Callable[[str], str | None]:
    def check(value: str) -> str | None:
        fine = value in words or _is_network(value, version)
        return None if fine else f"value does not look like a valid ipv{version} network configuration"

    return check


def _storage_id(value: str) -> str | None:
    if len(value) < 2:
        return f"storage ID '{value}' cannot be shorter than 2 characters"
    return None if _whole(_STORAGE, value) else f"storage ID '{value}' contains illegal characters"


def _storage_path(value: str) -> str | None:
    return None if re.match(r"/[^;()]+", value) else "value does not look like a valid absolute path"


def _user_id(value: str) -> str | None:
    if len(value) < 3:
        return f"user name '{value}' is too short"
    if len(value) > 64:
        return f"user name '{value}' is too long ({len(value)} > 64)"
    fine = _whole(r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+", value)
    return None if fine else f"value '{value}' does not look like a valid user name"


def _replication_job(value: str) -> str | None:
    if not _whole(r"\d+-\d+", value):
        return f"invalid replication job id '{value}'"
    if int(value.partition("-")[0]) < 100:
        return f"invalid replication job id '{value}' (guest IDs < 100 are reserved)"
    return None


def _event(value: str) -> str | None:
    try:
        calendar.parse(value)
    except calendar.BadEvent as error:
        return f"invalid calendar event '{value}' - {error}\n\n"
    return None


def _privilege(value: str) -> str | None:
    return None if value in known.PRIVILEGES else f"invalid privilege '{value}'"


def _content(value: str) -> str | None:
    return None if value in known.CONTENT else f"invalid content type '{value}'"


def _block_size(value: str) -> str | None:
    match = re.fullmatch(r"([1-9]\d*)([km]?)", value, re.I)
    if value and match:
        size = int(match[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[match[2].lower()]
        if 512 <= size <= 16 * 1024 * 1024 and size & (size - 1) == 0:
            return None
    return None if not value else "value must be a power of 2 between 512 and 16M"


def _volume_or_path(value: str) -> str | None:
    if value.startswith("/") or _whole(REGEXES["pve-volume-id"][0], value):
        return None
    return f"unable to parse volume ID '{value}'"


def _volume_or_drive(value: str) -> str | None:
    return None if value in ("none", "cdrom") else _volume_or_path(value)


def _mount_point(value: str) -> str | None:
    parts = value.split("/")
    fine = value and not any(part in (".", "..") for part in parts)
    return None if fine else f"invalid mount point '{value}'"


def _storage_pair(value: str) -> str | None:
    fine = value == "1" or all(not _storage_id(part) for part in value.split(":", 1))
    return None if fine else f"unable to parse storage pair '{value}'"


CHECKS: Final[dict[str, Callable[[str], str | None]]] = {
    "CIDR": lambda value: None if _is_network(value) else "value does not look like a valid CIDR network",
    "address": _address,
    "ip": _ip,
    "ipv4": lambda value: None if _is_address(value, 4) else "value does not look like a valid IPv4 address",
    "ipv6": lambda value: None if _is_address(value, 6) else "value does not look like a valid IPv6 address",
    "lxc-ip-with-ll-iface": _interface_address,
    "pve-calendar-event": _event,
    "pve-ipv4-config": _ip_configuration(4, frozenset({"dhcp", "manual"})),
    "pve-ipv6-config": _ip_configuration(6, frozenset({"auto", "dhcp", "manual"})),
    "pve-lxc-mp-string": _mount_point,
    "pve-priv": _privilege,
    "pve-qm-ide": _volume_or_drive,
    "pve-replication-job-id": _replication_job,
    "pve-storage-content": _content,
    "pve-storage-id": _storage_id,
    "pve-storage-path": _storage_path,
    "pve-storage-zfs-blocksize": _block_size,
    "pve-userid": _user_id,
    "pve-volume-id-or-absolute-path": _volume_or_path,
    "pve-volume-id-or-qm-path": _volume_or_drive,
    "storage-pair": _storage_pair,
    "string": lambda _: None,
}
"""Formats that need more than a regular expression. The answer is the complaint, or None."""


def _whole(pattern: str, value: str) -> re.Match[str] | None:
    """The whole value matches; one newline at its very end does not count (Perl's $)."""
    return re.fullmatch(f"(?:{pattern})\n?", value)


def complaint(name: str, value: str) -> str | None:
    """What is wrong with a value of this format, or None. KeyError: the format is not known."""
    check = CHECKS.get(name)
    if check:
        return check(value)
    pattern, text = REGEXES[name]
    return None if _whole(pattern, value) else text.replace("{v}", value)
