"""The configuration of a guest: how values are kept, what happens to disks, network cards and the boot order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from reconciler.lab.proxmox.pve import volumes
from reconciler.lab.proxmox.pve.refusal import Refused, TaskFailed, bad_parameters, failed
from reconciler.lab.proxmox.pve.schema_of_guests import group_of, is_drive, parameter_of
from reconciler.lab.proxmox.pve.state import State
from reconciler.lab.proxmox.pve.verify import parse_string
from reconciler.lab.proxmox.pve.world import World

NEW: Final = re.compile(r"([^:/]+):(\d+(?:\.\d+)?)")
"""`STORAGE:GIB`: a volume is to be made."""
ROOT_ONLY: Final = "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 668."
EMPTY: Final = frozenset({"none", "cdrom"})


def drives(guest: State) -> Iterator[tuple[str, dict[str, str]]]:
    """The slots of a guest that hold a volume or a CD, with the keys of their property string."""
    for slot, text in sorted(guest["config"].items()):
        if is_drive(guest["type"], slot):
            yield slot, parse_drive(guest["type"], slot, text)


def parse_drive(kind: str, slot: str, text: str) -> dict[str, str]:
    """The keys of a slot; the volume is under `file`, for containers too."""
    found = parse_string(group_of(kind, slot), text)
    if "volume" in found:
        found["file"] = found.pop("volume")
    return found


def print_drive(found: Mapping[str, str]) -> str:
    """A slot as it is kept: the volume, then the keys in order."""
    return ",".join([found["file"], *(f"{key}={value}" for key, value in sorted(found.items()) if key != "file")])


def keep(kind: str, key: str, text: str, world: World, before: str | None = None) -> Any:
    """An option as it is kept. Disks are not for this function."""
    parameter = parameter_of(kind, key)
    if parameter.type in ("boolean", "integer"):
        return int(text)
    if parameter.type == "number":
        return float(text) if "." in text else int(text)
    if key == "tags":
        words = sorted({word.lower() for word in re.split(r"[,;\s]+", text) if word})
        return ";".join(words) or " "
    if re.fullmatch(r"net\d+", key):
        return _network_card(kind, key, text, world, before)
    if key == "cpu":
        found = parse_string("pve-vm-cpu-conf", text)
        model = found.pop("cputype", None)
        return ",".join(([model] if model else []) + [f"{name}={value}" for name, value in sorted(found.items())])
    return text or " "


def _network_card(kind: str, key: str, text: str, world: World, before: str | None) -> str:
    found = parse_string(group_of(kind, key), text)
    if kind == "lxc":
        found.setdefault("hwaddr", world.mac())
        found.setdefault("type", "veth")
        return ",".join([f"name={found.pop('name')}", *(f"{name}={value}" for name, value in sorted(found.items()))])
    model = found.pop("model")
    mac = found.pop("macaddr", None) or world.mac()
    return ",".join([f"{model}={mac}", *(f"{name}={value}" for name, value in sorted(found.items()))])


def used_storages(kind: str, given: Mapping[str, str]) -> list[str]:
    """The storages that options name."""
    found = []
    for slot, text in given.items():
        if is_drive(kind, slot):
            file = parse_drive(kind, slot, text)["file"]
            if ":" in file:
                found.append(volumes.parse(file)[0])
    return found


def check_drives(world: World, node: str, kind: str, given: Mapping[str, str], *, root: bool) -> None:
    """What is refused at once: unknown storages, storages without images, the wrong form of an import."""
    for slot, text in sorted(given.items()):
        if not is_drive(kind, slot):
            continue
        found = parse_drive(kind, slot, text)
        made = NEW.fullmatch(found["file"])
        if "import-from" in found and not (made and float(made[2]) == 0):
            hint = "use <storage ID>:0,import-from=<source>"
            raise bad_parameters({slot: f"'import-from' requires special syntax - {hint}"})
        if not root and any(found.get(key, "").startswith("/") for key in ("file", "import-from")):
            raise failed(ROOT_ONLY)
        if made:
            entry = volumes.storage(world, made[1])
            wanted = "images" if kind == "qemu" else "rootdir"
            if wanted not in volumes.contents(entry):
                what = "vm images" if kind == "qemu" else "container directories"
                raise bad_parameters({"storage": f"storage '{made[1]}' does not support {what}"})
        elif ":" in found["file"]:
            volumes.find(world, node, found["file"])


class Disks:
    """Changes to the disks of one guest on its node; `log` gets what the task's log says."""

    def __init__(self, world: World, node: str, vmid: str, config: State, log: list[str], kind: str = "qemu") -> None:
        self.world = world
        self.node = node
        self.vmid = vmid
        self.config = config
        self.log = log
        self.kind = kind
        self.made: list[str] = []

    def fill(self, slot: str, text: str, *, creating: bool) -> None:
        """Put a disk into a slot. What was there becomes unused. TaskFailed, Refused: it does not work."""
        found = parse_drive(self.kind, slot, text)
        made = NEW.fullmatch(found["file"])
        container = self.kind == "lxc"
        if made:
            kind = found.pop("format", None)
            source = found.pop("import-from", None)
            if source:
                size = self._import_size(source)
                if ":" in source and not source.startswith("/"):
                    self.log.append(f"create full clone of drive ({source})")
            else:
                size = int(float(made[2]) * (1 << 30))
            volid = volumes.allocate(self.world, self.node, made[1], self.vmid, size, kind, container=container)
            self.made.append(volid)
            self.tell_format(volid, size)
            if source:
                if ":" in source and not source.startswith("/"):
                    self.log.append(f"allocated target volume '{volid}'")
                self.log.append(f"transferred {volumes.size_text(size)}iB of {volumes.size_text(size)}iB (100.00%)")
            found = {**found, "file": volid, "size": volumes.size_text(size)}
            self.log.append(f"{slot}: successfully created disk '{print_drive(found)}'")
        elif ":" in found["file"]:
            found["size"] = volumes.size_text(volumes.find(self.world, self.node, found["file"])["size"])
            for key, value in list(self.config.items()):
                if re.fullmatch(r"unused\d+", key) and value == found["file"]:
                    del self.config[key]
        self._set_aside(slot, found["file"])
        fresh = slot not in self.config
        self.config[slot] = print_drive(found)
        if fresh and not creating and found.get("media") == "cdrom" and "boot" in self.config:
            self._append_to_boot(slot)

    def tell_format(self, volid: str, size: int) -> None:
        """The line of qemu-img, which is used for files only."""
        name, volume = volumes.parse(volid)
        entry = volumes.storage(self.world, name)
        if entry["type"] not in volumes.FOLDERS or self.kind == "lxc":
            return
        kind = volume.rpartition(".")[2]
        options = {
            "raw": f"fmt=raw size={size} preallocation=off",
            "qcow2": f"fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=metadata compression_type=zlib "
            f"size={size} lazy_refcounts=off refcount_bits=16",
        }.get(kind, f"fmt={kind} size={size}")
        self.log.append(f"Formatting '{volumes.file_of(self.world, volid)}', {options}")

    def _import_size(self, source: str) -> int:
        if source.startswith("/"):
            about = self.world.nodes()[self.node]["files"].get(source)
            if about is None:
                raise TaskFailed(f"can't find file '{source}'")
            path = source
        else:
            about = volumes.find(self.world, self.node, source)
            path = str(about.get("path", source))
        if about.get("split"):
            raise TaskFailed(f"{path}: multiple children or extents are not allowed!")
        return int(about["size"])

    def _set_aside(self, slot: str, new: str) -> None:
        old = self.config.get(slot)
        if old is None:
            return
        file = parse_drive(self.kind, slot, old)["file"]
        if file not in EMPTY and file != new and "media=cdrom" not in old:
            self.config[self.free_unused()] = file

    def free_unused(self) -> str:
        """The first unusedN that is free."""
        return next(f"unused{number}" for number in range(256) if f"unused{number}" not in self.config)

    def _append_to_boot(self, slot: str) -> None:
        order = str(self.config["boot"]).removeprefix("order=").strip()
        self.config["boot"] = f"order={order};{slot}" if order else f"order={slot}"

    def delete(self, key: str, *, force: bool) -> None:
        """Take an option away; a disk becomes unused, or is destroyed with `force` and when it was unused."""
        old = self.config.pop(key, None)
        if old is None:
            return
        if re.fullmatch(r"unused\d+", key):
            volumes.free(self.world, self.node, old)
        elif is_drive(self.kind, key):
            file = parse_drive(self.kind, key, old)["file"]
            if file not in EMPTY and "media=cdrom" not in old:
                if force:
                    volumes.free(self.world, self.node, file)
                else:
                    self.config[self.free_unused()] = file
        boot = str(self.config.get("boot", ""))
        if boot.startswith("order="):
            left = [device for device in boot.removeprefix("order=").split(";") if device != key]
            self.config["boot"] = f"order={';'.join(left)}" if left else " "

    def undo(self) -> None:
        """Destroy what was made."""
        for volid in self.made:
            volumes.free(self.world, self.node, volid)


def default_boot(config: State) -> str:
    """The boot order of a new machine: its first disk, first CD, first network card."""
    disks = [slot for slot in ordered(config) if is_drive("qemu", slot) and re.match(r"(ide|sata|scsi|virtio)\d", slot)]
    hard = [slot for slot in disks if "media=cdrom" not in config[slot]]
    cds = [slot for slot in disks if "media=cdrom" in config[slot]]
    cards = [slot for slot in ordered(config) if re.fullmatch(r"net\d+", slot)]
    order = hard[:1] + cds[:1] + cards[:1]
    return f"order={';'.join(order)}" if order else " "


def ordered(config: State) -> list[str]:
    """Keys by name and number."""
    return sorted(config, key=lambda key: (re.sub(r"\d+$", "", key), int((re.search(r"\d+$", key) or ["0"])[0])))


def check_boot(config: Mapping[str, Any], text: str) -> None:
    """Refused: a device of the boot order does not exist."""
    order = parse_string("pve-qm-boot", text).get("order", "") if text.strip() else ""
    for device in order.split(";"):
        if device and device not in config:
            raise failed(f"invalid bootorder: device '{device}' does not exist'")


__all__ = ["Disks", "Refused", "check_boot", "check_drives", "default_boot", "drives", "keep", "print_drive"]
