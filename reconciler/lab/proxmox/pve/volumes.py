"""Where storages keep their volumes, and what these are called.

A volume belongs to what is behind a storage (a dataset, a folder, an export), not to the storage's definition: deleting
the definition loses nothing, and two definitions of one folder show the same volumes.
"""

from __future__ import annotations

import re
from typing import Final

from reconciler.lab.proxmox.pve import known
from reconciler.lab.proxmox.pve.refusal import failed
from reconciler.lab.proxmox.pve.state import State
from reconciler.lab.proxmox.pve.verify import split_list
from reconciler.lab.proxmox.pve.world import World

UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
FOLDERS: Final = frozenset({"btrfs", "cephfs", "cifs", "dir", "nfs"})
"""Types that keep images as files in a folder."""


def storage(world: World, name: str) -> State:
    """The definition of a storage. Refused: there is none."""
    found: State | None = world.state["storages"].get(name)
    if found is None:
        raise failed(f"storage '{name}' does not exist")
    return found


def contents(entry: State) -> list[str]:
    """What a storage may hold."""
    return split_list(str(entry.get("content", "")))


def on_node(entry: State, node: str) -> bool:
    """The storage is meant for this node."""
    nodes = split_list(str(entry.get("nodes", "")))
    return not nodes or node in nodes


def is_shared(entry: State) -> bool:
    """All nodes see the same volumes."""
    return known.STORAGE_TYPES[entry["type"]].shared or bool(entry.get("shared"))


def backing(entry: State) -> str:
    """What is behind a storage."""
    parts = [
        str(entry[key])
        for key in ("server", "portal", "export", "share", "datastore", "namespace", "target")
        if key in entry
    ]
    if not parts or entry["type"] == "zfs":
        parts += [str(entry[key]) for key in ("pool", "path", "vgname", "thinpool") if key in entry]
    return ":".join([entry["type"], *parts])


def shelf(world: World, node: str, entry: State) -> dict[str, State]:
    """The volumes of a storage as a node sees them, by name; may be written to."""
    place = "*" if is_shared(entry) else node
    found: dict[str, State] = world.state["volumes"].setdefault(place, {}).setdefault(backing(entry), {})
    return found


def parse(volid: str) -> tuple[str, str]:
    """Storage and name of a volume."""
    name, _, volume = volid.partition(":")
    return name, volume


def find(world: World, node: str, volid: str) -> State:
    """A volume. Refused: its storage or itself does not exist."""
    name, volume = parse(volid)
    entry = storage(world, name)
    found = shelf(world, node, entry).get(volume) or imports(world, node, entry).get(volume)
    if found is None:
        raise failed(f"volume '{volid}' does not exist")
    return found


def imports(world: World, node: str, entry: State) -> dict[str, State]:
    """The files in the folder `import` of a storage."""
    if entry["type"] not in FOLDERS or "import" not in contents(entry):
        return {}
    start = f"{entry['path']}/import/"
    return {
        f"import/{path.removeprefix(start)}": {
            "content": "import",
            "format": path.rpartition(".")[2],
            "ctime": world.now(),
            "path": path,
            **file,
        }
        for path, file in world.nodes()[node]["files"].items()
        if path.startswith(start)
    }


def default_format(entry: State) -> str:
    """The format of new images."""
    formats = known.STORAGE_TYPES[entry["type"]].formats
    return str(entry.get("format") or (formats[0] if formats else "raw"))


def allocate(
    world: World, node: str, name: str, vmid: str, size: int, kind: str | None, *, container: bool = False
) -> str:
    """A new volume for a guest; the volume id. Refused: the storage cannot."""
    entry = storage(world, name)
    kind = kind or ("subvol" if container and entry["type"] in ("zfspool", "btrfs") else default_format(entry))
    formats = known.STORAGE_TYPES[entry["type"]].formats
    if formats and kind not in formats:
        raise failed(f"unsupported format '{kind}'")
    volumes = shelf(world, node, entry)
    taken = {int(match[1]) for volume in volumes if (match := re.search(rf"-{vmid}-disk-(\d+)", volume))}
    number = next(number for number in range(len(taken) + 1) if number not in taken)
    stem = f"{'subvol' if kind == 'subvol' else 'vm'}-{vmid}-disk-{number}"
    volume = f"{vmid}/{stem}.{kind}" if entry["type"] in FOLDERS else stem
    volumes[volume] = {
        "content": "rootdir" if container else "images",
        "format": kind,
        "size": size,
        "vmid": int(vmid),
        "ctime": world.now(),
    }
    return f"{name}:{volume}"


def free(world: World, node: str, volid: str) -> None:
    """Destroy a volume, if it is there."""
    name, volume = parse(volid)
    entry = world.state["storages"].get(name)
    if entry is not None:
        shelf(world, node, entry).pop(volume, None)


def file_of(world: World, volid: str) -> str:
    """The path of a volume of a folder."""
    name, volume = parse(volid)
    return f"{storage(world, name)['path']}/images/{volume}"


def bytes_of(text: str) -> int:
    """A size such as 4G in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:iB)?", text)
    if not match:
        raise ValueError(text)
    return int(float(match[1]) * UNITS[match[2]])


def size_text(size: int) -> str:
    """Bytes as Proxmox writes them: with the largest unit that divides them."""
    for unit in ("T", "G", "M", "K"):
        if size and size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]}{unit}"
    return str(size)
