"""The folder that holds a subvolume's snapshots, and the records that tell which of them are ours.

A record (`.records/NAME.json`) names the snapshot's UUID. What has no record, or another UUID than its record says, is
foreign: other programs and people may keep snapshots in the same folder, and if the records are lost, nothing is
removed. Runs on hosts: Python 3.9, standard library only.
"""

# File names of any bytes, many of them: strings, as the system calls take them.
# ruff: noqa: PTH102, PTH103, PTH105, PTH108, PTH112, PTH118, PTH120

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.tools.snapshots.btrfs import (
    Subvolume,
    Trouble,
    call,
    is_subvolume,
    look,
    remove,
    sizes,
    snapshot,
    subvolume,
)
from reconciler.tools.snapshots.names import moment_of, name_of
from reconciler.tools.snapshots.retention import Snapshot

RECORDS = ".records"
WAIT_SECONDS = 60.0
BEGUN_SECONDS = 30
"""How much later than its record a snapshot may have been made to be the one that the record announced."""


@dataclass(frozen=True)
class Entry:
    """A snapshot that is there.

    Attributes:
        name: as people call it.
        path: where the subvolume is.
        created: seconds since the epoch.
        record: what we know of it beyond that; empty for foreign ones.
        note: what its own tool says of it.
    """

    name: str
    path: str
    created: int
    volume: Subvolume
    record: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    note: str = ""

    def retained(self, policy: str) -> Snapshot:
        """As retention sees it."""
        record = self.record
        return Snapshot(
            self.name,
            self.created,
            self.size,
            locked=bool(record.get("locked")),
            parent=bool(record.get("parent")) or bool(self.volume.received_uuid),
            foreign=record.get("policy") != policy,
            aside=self.aside,
        )

    @property
    def aside(self) -> bool:
        """It shows how things were before a restore, and is the way back from that."""
        return self.record.get("by") == "restore"

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        record = self.record
        return {
            "name": self.name,
            "path": self.path,
            "created": self.created,
            "size": self.size,
            "readOnly": self.volume.read_only,
            "policy": record.get("policy"),
            "by": record.get("by"),
            "locked": record.get("locked"),
            "parent": bool(record.get("parent")) or bool(self.volume.received_uuid),
            "note": self.note,
        }


class Folder:
    """The snapshots of one subvolume.

    Args:
        source: the subvolume.
        path: the folder of its snapshots, absolute or relative to the subvolume.
    """

    def __init__(self, source: str, path: str) -> None:
        self.source, self.path = source, os.path.join(source, path)
        self._records = os.path.join(self.path, RECORDS)

    def prepare(self) -> None:
        """Make the folder; as a subvolume where it lies in the source, so that snapshots do not hold it.

        Raises:
            Trouble: it cannot be made, or lies on another file system.
        """
        source = subvolume(self.source)
        try:
            if os.path.lexists(self.path) and not is_roots(self.path):
                # Whoever owns the subvolume could lead us elsewhere by it.
                raise Trouble(f"{self.path} is a link, or belongs to somebody else than root. Choose another `folder`.")
            if not os.path.isdir(self.path):
                above = os.path.dirname(self.path.rstrip("/"))
                os.makedirs(above, mode=0o755, exist_ok=True)
                where = look(above)
                if where is not None and where.uuid == source.uuid:
                    call("btrfs", "-q", "subvolume", "create", "--", self.path)
                else:
                    os.mkdir(self.path, 0o755)
            os.makedirs(self._records, mode=0o700, exist_ok=True)
        except OSError as error:
            raise Trouble(f"{self.path} cannot be made: {error.strerror}.") from None
        if look(self.path) is None:
            raise Trouble(f"{self.path} is not on Btrfs. Choose a folder on the file system of {self.source}.")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One program at a time works here.

        Raises:
            Trouble: another one goes on and on.
        """
        self.prepare()
        with open(os.path.join(self._records, "lock"), "w") as handle:
            deadline = time.monotonic() + WAIT_SECONDS
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise Trouble(f"another program works on the snapshots in {self.path}. Try later.") from None
                    time.sleep(0.1)
            yield

    def entries(self, *, sized: bool = False) -> list[Entry]:
        """All snapshots in the folder, oldest first. Other subvolumes and plain folders are none.

        Args:
            sized: also ask quota how much each holds.
        """
        found = []
        try:
            names = os.listdir(self.path)
        except OSError:
            return []
        known = sizes(self.path) if sized else {}
        for name in names:
            path = os.path.join(self.path, name)
            if name.startswith(".") or not is_subvolume(path):
                continue
            volume = look(path)
            if volume is None:
                continue
            record = self._record(name, volume)
            moment = moment_of(name)
            created = int(record.get("created") or (volume.created if moment is None else moment))
            found.append(Entry(name, path, created, volume, record, known.get(volume.number)))
        return sorted(found, key=lambda e: (e.created, e.name))

    def take(self, policy: str, by: str, zone: Any = None, now: int | None = None) -> Entry:
        """Take a snapshot, and note that it is ours.

        Args:
            by: `schedule`, `person` or `restore`; the last one is locked, because it is the way back.
            zone: for names in local time.

        Raises:
            Trouble: it cannot be taken.
        """
        for _ in range(5):
            created = int(time.time()) if now is None else now
            name = name_of(created, zone)
            path = os.path.join(self.path, name)
            if not os.path.lexists(path):
                break
            time.sleep(1.05 - time.time() % 1)
        else:
            raise Trouble(f"{path} is there already.")
        record: dict[str, Any] = {"policy": policy, "by": by, "created": created}
        if by == "restore":
            record["locked"] = "before a restore"
        # First without its UUID: killed before the second record, the snapshot is ours all the same.
        self.note(name, {**record, "of": subvolume(self.source).uuid})
        snapshot(self.source, path)
        volume = subvolume(path)
        record |= {"uuid": volume.uuid, "changed": volume.changed}
        self.note(name, record)
        return Entry(name, path, created, volume, record)

    def remove(self, entry: Entry) -> None:
        """Remove a snapshot of ours, then its record: killed in between, a record without a snapshot is left.

        Raises:
            Trouble: it cannot be removed.
        """
        now = look(entry.path)
        if now is None or not entry.record or entry.record.get("uuid") != now.uuid:
            raise Trouble(f"{entry.path} is not the snapshot that it was; it stays.")
        remove(entry.path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(entry.name))

    def note(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a record, atomically."""
        write(self._file(name), record)

    def _file(self, name: str) -> str:
        return os.path.join(self._records, f"{name}.json")

    def _record(self, name: str, volume: Subvolume) -> dict[str, Any]:
        record = read(self._file(name))
        if record.get("uuid") == volume.uuid:
            return record
        begun = "uuid" not in record and record.get("of") == volume.parent_uuid and volume.read_only
        if begun and abs(volume.created - int(record.get("created", 0))) <= BEGUN_SECONDS:
            return {**record, "uuid": volume.uuid}
        return {}


def is_roots(path: str) -> bool:
    """Whether a path is a folder of root's, and no link to one."""
    seen = os.lstat(path)
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.geteuid()


def write(path: str, content: Mapping[str, Any]) -> None:
    """Write JSON, all or nothing, and on disk before this returns."""
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w", encoding="utf-8") as out:
        json.dump(content, out, sort_keys=True)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(draft, path)


def read(path: str) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none, or nothing that we wrote."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
