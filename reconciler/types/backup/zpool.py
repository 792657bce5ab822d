"""pbs.zpool: a ZFS pool that a backup server makes from empty disks. It is never changed and never destroyed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.fields import Rule
from reconciler.model import (
    CONTROL,
    IDENTITY,
    Absent,
    Change,
    Get,
    Probe,
    Request,
    ResourceType,
    Risk,
    Spec,
    State,
    Step,
    Unprobed,
)
from reconciler.types.api import answer
from reconciler.types.proxmox.names import JobName

DISKS: Final = "/nodes/localhost/disks/zfs"
Disk = Annotated[str, Rule(r"[A-Za-z0-9!._-]+", "the name of a disk without /dev/, such as sdb", 64)]


class Zpool(Spec):
    """A ZFS pool that a backup server makes from empty disks."""

    name: Annotated[JobName, IDENTITY]
    devices: Annotated[tuple[Disk, ...], CONTROL, Field(min_length=1)]
    raid: Annotated[Literal["single", "mirror", "raid10", "raidz", "raidz2", "raidz3"], CONTROL] = "single"
    ashift: Annotated[int, CONTROL, Field(ge=9, le=16)] = 12
    compression: Annotated[Literal["on", "off", "lz4", "zstd", "gzip", "lzjb", "zle"], CONTROL] = "on"
    healthy: Literal[True] | None = None


def probe(pools: Sequence[Zpool]) -> Probe:
    """One list."""
    (reply,) = yield [Get(DISKS)]
    known = {row["name"]: row for row in answer(reply, "ZFS pools")}
    states: list[State | Absent | Unprobed | None] = []
    for pool in pools:
        row = known.get(pool.name)
        states.append(None if row is None else {"healthy": row.get("health", "ONLINE") == "ONLINE"})
    return states


def steps(change: Change[Zpool]) -> Iterable[Step]:
    """A pool that is missing is made; one that is there is left alone whatever its state."""
    spec = change.spec
    if change.before is None and change.after is not None:
        params = {
            "name": spec.name,
            "devices": ",".join(spec.devices),
            "raidlevel": spec.raid,
            "ashift": spec.ashift,
            "compression": spec.compression,
        }
        yield Request("POST", DISKS, params, title=f"make the ZFS pool {spec.name} of {', '.join(spec.devices)}")


def risk(change: Change[Zpool]) -> Risk | None:
    """What was on the disks is gone."""
    if change.before is None and change.after is not None:
        return Risk("data-loss", f"whatever is on {', '.join(change.spec.devices)} is overwritten")
    return None


TYPE: ResourceType[Any] = ResourceType(
    "pbs.zpool", Zpool, probe, steps, provides=lambda pool: (f"path:/mnt/datastore/{pool.name}",), risk=risk
)
