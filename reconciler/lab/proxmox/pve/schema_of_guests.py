"""Which options of guests are what: the definitions of the parameters of `config`, by the kind of the guest."""

from __future__ import annotations

import functools
import re
from typing import Final

from reconciler.lab.proxmox.pve.verify import TABLES
from reconciler.lab.proxmox.schema import Parameter

_DRIVES: Final = {
    "qemu": re.compile(r"(ide|sata|scsi|virtio)\d+|efidisk0|tpmstate0"),
    "lxc": re.compile(r"rootfs|mp\d+"),
}
NOT_KEPT: Final = (
    "node vmid digest delete revert force skiplock background_delay import-working-storage archive bwlimit ha-managed "
    "live-restore pool start storage unique ostemplate password ignore-unpack-errors restore ssh-public-keys cdrom"
)
"""Parameters that steer the call and do not belong to the configuration."""


@functools.cache
def options(kind: str) -> dict[str, Parameter]:
    """The options of a guest of a kind (`qemu`, `lxc`)."""
    method = TABLES.method("PUT", f"/nodes/{{node}}/{kind}/{{vmid}}/config")
    return {name: parameter for name, parameter in method.parameters.items() if name not in NOT_KEPT.split()}


def parameter_of(kind: str, key: str) -> Parameter:
    """The definition of an option."""
    return options(kind)[key]


def is_drive(kind: str, key: str) -> bool:
    """The option holds a volume or a CD."""
    return _DRIVES[kind].fullmatch(key) is not None


def group_of(kind: str, key: str) -> str:
    """The name of an option's property string."""
    return (parameter_of(kind, key).format or "").removeprefix("@")
