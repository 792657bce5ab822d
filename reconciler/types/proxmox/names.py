"""Names of Proxmox VE and Proxmox Backup Server, as their APIs take them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from reconciler.fields import Rule

GroupId = Annotated[str, Rule(r"[A-Za-z0-9._-]+", "a group name: letters, digits, . - _", 100)]
RoleId = Annotated[
    str,
    Rule(
        r"(?![Pp][Vv][Ee])[A-Za-z][A-Za-z0-9._-]*",
        "a role name: letters, digits, . - _, starting with a letter; names that start with PVE are reserved",
        100,
    ),
]
AnyRole = Annotated[str, Rule(r"[A-Za-z][A-Za-z0-9._-]*", "the name of a role, such as PVEAuditor", 100)]
UserId = Annotated[
    str, Rule(r"[^\s:/@\u0000-\u001f\u007f]+@[A-Za-z][A-Za-z0-9._-]*", "a user with its realm, such as ops@pve", 64)
]
TokenName = Annotated[
    str, Rule(r"[A-Za-z][A-Za-z0-9._-]+", "a token name: two or more letters, digits, . - _; a letter comes first", 64)
]
Principal = Annotated[
    str,
    Rule(
        r"@[A-Za-z0-9._-]+|[^\s:/@!\u0000-\u001f\u007f]+@[A-Za-z][A-Za-z0-9._-]*(?:![A-Za-z][A-Za-z0-9._-]+)?",
        "a user (ops@pve), a group (@admins) or a token (ops@pve!ci)",
        130,
    ),
]
AclPath = Annotated[
    str, Rule(r"/(?:[A-Za-z0-9._@-]+(?:/[A-Za-z0-9._@-]+)*)?", "a path of the access list, such as /vms/100 or /", 300)
]
NodeName = Annotated[str, Rule(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", "the name of a node, such as pve1", 63)]
VmId = Annotated[str, Rule(r"[1-9][0-9]{2,8}", "the number of a guest, 100 or more")]
GuestName = Annotated[
    str,
    Rule(
        r"[1-9][0-9]{2,8}|[A-Za-z](?:[A-Za-z0-9.-]*[A-Za-z0-9])?",
        "the number of a guest (100 or more) or its name in the cluster, such as web1",
        253,
    ),
]
"""A guest by its number, or by its name where that is unique in the cluster."""
JobName = Annotated[
    str, Rule(r"[A-Za-z0-9_][A-Za-z0-9._-]{2,31}", "an id of 3 to 32 letters, digits, . - _, not starting with . or -")
]
BackupId = Annotated[
    str, Rule(r"[A-Za-z][A-Za-z0-9_-]+", "an id of two or more letters, digits, - _; a letter comes first", 50)
]
SecretName = Annotated[
    str,
    Rule(
        r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:/[A-Za-z0-9_][A-Za-z0-9_-]*)+",
        "a name of the secret store, such as proxmox/ci",
        200,
    ),
]
Schedule = Annotated[
    str,
    Rule(
        r"[A-Za-z0-9*][A-Za-z0-9*/:., -]*",
        'a calendar event, such as "*/15", "daily", "mon..fri 22:00" or "sat 03:00"',
        128,
    ),
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a guest is: its number, `qemu` or `lxc`, and the node."""

    vmid: str
    kind: str
    node: str


def places(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Place]]:
    """Guests by their number and by their name, from the rows of `/cluster/resources?type=vm`."""
    found: dict[str, list[Place]] = {}
    for row in rows:
        place = Place(str(row["vmid"]), str(row.get("type", "")), str(row.get("node", "")))
        name = str(row.get("name") or "")
        found.setdefault(place.vmid, []).append(place)
        if not name.isdigit():  # a guest may be called like another one's number, and a number means the number
            found.setdefault(name, []).append(place)
    return found


def one_of(guest: str, known: Mapping[str, list[Place]]) -> Place | str:
    """The one guest that is meant, or a sentence that says why it is not clear."""
    found = known.get(guest, [])
    if len(found) == 1:
        return found[0]
    if found:
        numbers = ", ".join(sorted(place.vmid for place in found))
        return f"several guests are called {guest} ({numbers}). Write the number."
    return f"there is no guest {guest} in the cluster, or the login may not see it."
