"""What Proxmox Backup Server knows by itself: privileges, roles, where rights can be given, patterns of the tables."""

from __future__ import annotations

import re
from typing import Final

VERSION: Final = {"release": "1", "repoid": "5c1a0f1e", "version": "4.1"}

_SAFE: Final = r"[A-Za-z0-9_][A-Za-z0-9._\-]*"
_USER: Final = rf"[^\s:/\x00-\x1f\x7f]+@{_SAFE}"
PATTERNS: Final = {
    "ID": _SAFE,
    "USER": _USER,
    "AUTH": rf"{_USER}(?:!{_SAFE})?",
    "TEXT": r"[^\x00-\x1f\x7f]*",
    "NAMESPACE": rf"(?:(?:{_SAFE}/){{0,7}}{_SAFE})?",
    "NODE": r"[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?",
    "ACL_PATH": rf"/|(?:/{_SAFE})+",
    "FINGERPRINT": r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){31}",
    "SHA256": r"[a-f0-9]{64}",
    "UPID": r"UPID:[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?:[0-9A-Fa-f]{8}:[0-9A-Fa-f]{8,9}:[0-9A-Fa-f]{8,16}"
    r":[0-9A-Fa-f]{8}:[^:\s]+:[^:\s]*:[^:\s]+:",
}
"""What `~NAME` means in the tables. Whole values; no newline at the end."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PRIVILEGES: Final = _words(
    """
    Datastore.Allocate Datastore.Audit Datastore.Backup Datastore.Modify Datastore.Prune Datastore.Read Datastore.Verify
    Permissions.Modify Realm.Allocate Remote.Audit Remote.DatastoreBackup Remote.DatastoreModify Remote.DatastorePrune
    Remote.Modify Remote.Read Sys.Audit Sys.Console Sys.Modify Sys.PowerManagement Tape.Audit Tape.Modify Tape.Read
    Tape.Write
    """
)
ROLES: Final[dict[str, tuple[str, ...]]] = {
    "Admin": PRIVILEGES,
    "Audit": ("Datastore.Audit", "Sys.Audit"),
    "NoAccess": (),
    "DatastoreAdmin": _words(
        "Datastore.Audit Datastore.Backup Datastore.Modify Datastore.Prune Datastore.Read Datastore.Verify"
    ),
    "DatastoreReader": ("Datastore.Audit", "Datastore.Read", "Datastore.Verify"),
    "DatastoreBackup": ("Datastore.Backup",),
    "DatastorePowerUser": ("Datastore.Backup", "Datastore.Prune"),
    "DatastoreAudit": ("Datastore.Audit",),
    "RemoteAudit": ("Remote.Audit",),
    "RemoteAdmin": ("Remote.Audit", "Remote.Modify", "Remote.Read"),
    "RemoteSyncOperator": ("Remote.Audit", "Remote.Read"),
    "RemoteSyncPushOperator": ("Remote.Audit", "Remote.DatastoreBackup"),
    "RemoteDatastorePowerUser": ("Remote.Audit", "Remote.DatastoreBackup", "Remote.DatastorePrune"),
    "RemoteDatastoreAdmin": _words("Remote.Audit Remote.DatastoreBackup Remote.DatastoreModify Remote.DatastorePrune"),
    "TapeAudit": ("Tape.Audit",),
    "TapeAdmin": ("Tape.Audit", "Tape.Modify", "Tape.Read", "Tape.Write"),
    "TapeOperator": ("Tape.Audit", "Tape.Read", "Tape.Write"),
    "TapeReader": ("Tape.Audit", "Tape.Read"),
}
"""All roles; there are no others."""

_ACL_PATHS: Final = re.compile(
    r"/|/access(/(acl|users|domains|openid(/[^/]+)?))?"
    r"|/datastore(/[^/]+){0,8}"
    r"|/remote(/[^/]+){0,2}"
    r"|/system(/(certificates|disks|log|notifications|status|tasks|time|services(/[^/]+)?"
    r"|network(/(dns|interfaces(/[^/]+)?))?))?"
    r"|/tape(/(device|pool|job)(/[^/]+)?)?"
)


def normalised(path: str) -> str:
    """A path of rights without empty segments."""
    return "/" + "/".join(part for part in path.split("/") if part)


def can_hold_rights(path: str) -> bool:
    """Rights can be given on this path."""
    return _ACL_PATHS.fullmatch(path) is not None


DISKS_OF_LEVEL: Final = {"single": 1, "mirror": 2, "raid10": 4, "raidz": 3, "raidz2": 4, "raidz3": 5}
"""The fewest disks of a ZFS pool, by RAID level."""
