"""What Proxmox VE knows by itself: privileges, roles, storage types, paths of rights, CPU models, device slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

VERSION: Final = {"release": "9.2", "repoid": "14a22df3", "version": "9.2.11"}

SLOTS: Final = {
    "net[n]": 32,
    "net[n].2": 32,
    "scsi[n]": 31,
    "virtio[n]": 16,
    "sata[n]": 6,
    "ide[n]": 4,
    "unused[n]": 256,
    "unused[n].2": 256,
    "serial[n]": 4,
    "parallel[n]": 3,
    "usb[n]": 14,
    "hostpci[n]": 16,
    "numa[n]": 8,
    "ipconfig[n]": 32,
    "virtiofs[n]": 10,
    "mp[n]": 256,
    "dev[n]": 256,
}
"""How many devices of a kind there may be, as the tables name them."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PRIVILEGES: Final = _words(
    """
    Datastore.Allocate Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit Group.Allocate Mapping.Audit
    Mapping.Modify Mapping.Use Permissions.Modify Pool.Allocate Pool.Audit Realm.Allocate Realm.AllocateUser
    SDN.Allocate SDN.Audit SDN.Use Sys.AccessNetwork Sys.Audit Sys.Console Sys.Incoming Sys.Modify Sys.PowerMgmt
    Sys.Syslog User.Modify VM.Allocate VM.Audit VM.Backup VM.Clone VM.Config.CDROM VM.Config.CPU VM.Config.Cloudinit
    VM.Config.Disk VM.Config.HWType VM.Config.Memory VM.Config.Network VM.Config.Options VM.Console
    VM.GuestAgent.Audit VM.GuestAgent.FileRead VM.GuestAgent.FileSystemMgmt VM.GuestAgent.FileWrite
    VM.GuestAgent.Unrestricted VM.Migrate VM.PowerMgmt VM.Replicate VM.Snapshot VM.Snapshot.Rollback
    """
)
"""All there are; the role Administrator has them."""
_NOT_FOR_ADMINS: Final = _words(
    """
    Mapping.Modify Permissions.Modify Realm.Allocate Sys.AccessNetwork Sys.Incoming Sys.Modify Sys.PowerMgmt
    """
)


def _of(prefix: str) -> tuple[str, ...]:
    return tuple(privilege for privilege in PRIVILEGES if privilege.startswith(prefix))


ROLES: Final[dict[str, tuple[str, ...]]] = {
    "Administrator": PRIVILEGES,
    "NoAccess": (),
    "PVEAdmin": tuple(privilege for privilege in PRIVILEGES if privilege not in _NOT_FOR_ADMINS),
    "PVEAuditor": _words("Datastore.Audit Mapping.Audit Pool.Audit SDN.Audit Sys.Audit VM.Audit VM.GuestAgent.Audit"),
    "PVEDatastoreAdmin": _of("Datastore."),
    "PVEDatastoreUser": ("Datastore.AllocateSpace", "Datastore.Audit"),
    "PVEMappingAdmin": _of("Mapping."),
    "PVEMappingUser": ("Mapping.Audit", "Mapping.Use"),
    "PVEPoolAdmin": _of("Pool."),
    "PVEPoolUser": ("Pool.Audit",),
    "PVESDNAdmin": _of("SDN."),
    "PVESDNUser": ("SDN.Audit", "SDN.Use"),
    "PVESysAdmin": ("Sys.Audit", "Sys.Console", "Sys.Syslog"),
    "PVETemplateUser": ("VM.Audit", "VM.Clone"),
    "PVEUserAdmin": ("Group.Allocate", "Realm.AllocateUser", "User.Modify"),
    "PVEVMAdmin": _of("VM."),
    "PVEVMUser": _words(
        """
        VM.Audit VM.Backup VM.Config.CDROM VM.Config.Cloudinit VM.Console VM.GuestAgent.Audit VM.GuestAgent.FileRead
        VM.GuestAgent.FileSystemMgmt VM.GuestAgent.FileWrite VM.PowerMgmt
        """
    ),
}
"""The roles that cannot be changed, with their privileges, sorted."""

GROUPS_OF_PRIVILEGES: Final = {
    "%qemu-config": "VM.Config.Disk|VM.Config.CDROM|VM.Config.CPU|VM.Config.Memory|VM.Config.Network|VM.Config.HWType"
    "|VM.Config.Options|VM.Config.Cloudinit",
    "%lxc-config": "VM.Config.Disk|VM.Config.CPU|VM.Config.Memory|VM.Config.Network|VM.Config.Options",
}
"""What `%NAME` means in the table of methods."""

_NAME: Final = r"[A-Za-z0-9._-]+"
ACL_PATH: Final = (
    rf"/|/access|/access/groups(/{_NAME})?|/access/realm(/{_NAME})?|/nodes(/{_NAME})?|/pool(/{_NAME}){{0,3}}"
    rf"|/sdn(/[A-Za-z0-9._/-]+)?|/storage(/{_NAME})?|/vms(/[1-9][0-9]{{2,}})?|/mapping(/{_NAME}){{0,2}}"
)
"""Where rights can be given, after the path was normalised."""

CONTENT: Final = ("images", "rootdir", "vztmpl", "iso", "backup", "snippets", "none", "import")

_EVERY: Final = "content disable nodes"
_FOLDERS: Final = "content-dirs create-base-path create-subdirs max-protected-backups mkdir prune-backups"


@dataclass(frozen=True, slots=True)
class StorageType:
    """The options of one type of storage. `shared`: always there for all nodes."""

    required: frozenset[str]
    optional: frozenset[str]
    fixed: frozenset[str]
    content: frozenset[str]
    content_default: tuple[str, ...]
    secret: frozenset[str] = frozenset()
    formats: tuple[str, ...] = ()
    shared: bool = False


def _type(
    required: str,
    optional: str,
    fixed: str,
    content: str,
    default: str,
    *,
    hidden: str = "",
    formats: str = "",
    shared: bool = False,
) -> StorageType:
    words = frozenset(f"{optional} {_EVERY}".split())
    return StorageType(
        frozenset(required.split()),
        words,
        frozenset(fixed.split()),
        frozenset(content.split()),
        tuple(default.split()),
        frozenset(hidden.split()),
        tuple(formats.split()),
        shared,
    )


STORAGE_TYPES: Final[dict[str, StorageType]] = {
    "btrfs": _type(
        "path",
        "create-base-path create-subdirs format is_mountpoint max-protected-backups mkdir nocow preallocation"
        " prune-backups shared",
        "path",
        "backup images import iso none rootdir snippets vztmpl",
        "images rootdir",
        formats="raw subvol",
    ),
    "cephfs": _type(
        "path",
        f"{_FOLDERS} bwlimit format fs-name fuse keyring monhost options subdir username",
        "path",
        "backup import iso snippets vztmpl",
        "backup",
        hidden="keyring",
        shared=True,
    ),
    "cifs": _type(
        "path server share",
        f"{_FOLDERS} bwlimit domain format options password preallocation smbversion snapshot-as-volume-chain subdir"
        " username",
        "path server share snapshot-as-volume-chain",
        "backup images import iso rootdir snippets vztmpl",
        "images",
        hidden="password",
        formats="raw qcow2 vmdk",
        shared=True,
    ),
    "dir": _type(
        "path",
        f"{_FOLDERS} bwlimit format is_mountpoint preallocation shared snapshot-as-volume-chain",
        "path snapshot-as-volume-chain",
        "backup images import iso none rootdir snippets vztmpl",
        "images rootdir",
        formats="raw qcow2 subvol vmdk",
    ),
    "esxi": _type(
        "server username",
        "password port shared skip-cert-verification",
        "",
        "import",
        "import",
        hidden="password",
        formats="raw qcow2 vmdk",
        shared=True,
    ),
    "iscsi": _type("portal target", "bwlimit", "portal target", "images none", "images", shared=True),
    "iscsidirect": _type("portal target", "bwlimit", "portal target", "images none", "images", shared=True),
    "lvm": _type(
        "vgname",
        "base bwlimit saferemove saferemove-stepsize saferemove_throughput shared snapshot-as-volume-chain tagged_only",
        "base vgname",
        "images rootdir",
        "images",
        formats="raw qcow2",
    ),
    "lvmthin": _type("thinpool vgname", "bwlimit", "thinpool vgname", "images rootdir", "images rootdir"),
    "nfs": _type(
        "export path server",
        f"{_FOLDERS} bwlimit format options preallocation snapshot-as-volume-chain",
        "export path server snapshot-as-volume-chain",
        "backup images import iso rootdir snippets vztmpl",
        "images",
        formats="raw qcow2 vmdk",
        shared=True,
    ),
    "pbs": _type(
        "datastore server",
        "encryption-key fingerprint master-pubkey max-protected-backups namespace password port prune-backups username",
        "datastore server",
        "backup none",
        "backup",
        hidden="encryption-key master-pubkey password",
        shared=True,
    ),
    "rbd": _type(
        "",
        "bwlimit data-pool keyring krbd monhost namespace pool username",
        "",
        "images rootdir",
        "images",
        hidden="keyring",
        shared=True,
    ),
    "zfs": _type(
        "blocksize iscsiprovider pool portal target",
        "bwlimit comstar_hg comstar_tg lio_tpg nowritecache sparse zfs-base-path",
        "blocksize iscsiprovider pool portal target",
        "images",
        "images",
        shared=True,
    ),
    "zfspool": _type(
        "pool",
        "blocksize bwlimit mountpoint sparse",
        "pool",
        "images rootdir",
        "images rootdir",
        formats="raw subvol",
    ),
}

CPU_MODELS: Final = _words(
    """
    host max kvm32 kvm64 qemu32 qemu64 486 athlon core2duo coreduo pentium pentium2 pentium3 phenom Conroe Penryn
    Nehalem Nehalem-IBRS Westmere Westmere-IBRS SandyBridge SandyBridge-IBRS IvyBridge IvyBridge-IBRS Haswell
    Haswell-IBRS Haswell-noTSX Haswell-noTSX-IBRS Broadwell Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS
    Skylake-Client Skylake-Client-IBRS Skylake-Client-noTSX-IBRS Skylake-Server Skylake-Server-IBRS
    Skylake-Server-noTSX-IBRS Cascadelake-Server Cascadelake-Server-noTSX Cooperlake Icelake-Client
    Icelake-Client-noTSX Icelake-Server Icelake-Server-noTSX KnightsMill SapphireRapids GraniteRapids SierraForest
    Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4 Opteron_G5 EPYC EPYC-IBPB EPYC-Rome EPYC-Milan EPYC-Genoa EPYC-Turin
    x86-64 x86-64-v2-AES cortex-a57 cortex-a72 cortex-a76 neoverse-n1 neoverse-v1
    """
)
"""CPU models without their -vN variants, which are accepted too."""
