"""Bring data back from a snapshot, to a new path or in place, and prove that it could be done (a drill).

In place, the subvolume stays the same one, with its mounts, exports and open folders: a copy of the snapshot that
shares its blocks is made next to the data, then each entry at the top is exchanged by two renames, then what was there
is removed. Killed anywhere, the same command goes on. Runs on hosts: Python 3.9, standard library only.
"""

# File names of any bytes, many of them: strings, as the system calls take them.
# ruff: noqa: PTH102, PTH104, PTH106, PTH112, PTH114, PTH115, PTH116, PTH118, PTH119, PTH120

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from reconciler.tools.snapshots.btrfs import Trouble, call, filesystem, is_mounted, nested, remove, snapshot
from reconciler.tools.snapshots.folder import Entry, Folder, is_roots, read, write

WORK, DONE = ".reconciler-restore", ".reconciler-restored"
"""Folders in the subvolume while a restore in place goes on: the copy and what was there; and what may go."""
SCRATCH = ".drill-"
PLACEHOLDER_INODE = 2
"""Stands in a snapshot for a subvolume that lay in its source."""
SHOWN_PROBLEMS = 20


def to_new_path(entry: Entry, inside: str, to: str) -> None:
    """Restore a snapshot, or a path in it, to a path that does not exist yet.

    A whole snapshot on the same file system becomes a writable snapshot, which takes no time and no space.

    Raises:
        Trouble: it cannot be done; nothing is left behind.
    """
    source = _source(entry, inside)
    above = os.path.dirname(to)
    if os.path.lexists(to):
        raise Trouble(f"{to} is there already. Choose another path.")
    if not os.path.isdir(above):
        raise Trouble(f"there is no folder {above}. Make it, or choose another path.")
    if not inside and filesystem(above) == filesystem(entry.path):
        snapshot(entry.path, to, read_only=False)
        return
    draft = os.path.join(above, f".{os.path.basename(to)}.partial-{os.getpid()}")
    try:
        _copy(source, draft)
        os.rename(draft, to)
    except BaseException:
        call("rm", "-rf", "--one-file-system", "--", draft)
        raise


def _source(entry: Entry, inside: str) -> str:
    if not inside:
        return entry.path
    source = os.path.join(entry.path, inside)
    # A link on the way could lead out of the snapshot, to what is there now.
    above = os.path.realpath(os.path.dirname(source))
    if above != os.path.normpath(os.path.join(os.path.realpath(entry.path), os.path.dirname(inside))):
        raise Trouble(f"{inside}: a symbolic link is on the way. Name the path that it leads to.")
    if not os.path.lexists(source):
        raise Trouble(f"the snapshot {entry.name} has no {inside}. Look into {entry.path}.")
    return source


def _copy(source: str, to: str) -> None:
    call("cp", "-a", "--reflink=auto", "--no-target-directory", "--", source, to)


# ------------------------------------------------------------------------------------------------ in place


@dataclass(frozen=True)
class InPlace:
    """A restore of a whole subvolume, or of one path in it, over what is there.

    Each method may be called again after a kill.
    """

    entry: Entry
    folder: Folder
    inside: str = ""

    @property
    def _work(self) -> str:
        return os.path.join(self.folder.source, WORK)

    @property
    def _mark(self) -> dict[str, Any]:
        return {"uuid": self.entry.volume.uuid, "inside": self.inside, "name": self.entry.name}

    @property
    def _above(self) -> str:
        """The folder, relative to the subvolume, whose entries are exchanged."""
        return os.path.dirname(self.inside)

    @property
    def _origin(self) -> str:
        """The same folder in the snapshot."""
        return os.path.join(self.entry.path, self._above)

    def copy(self) -> None:
        """Make the copy.

        Raises:
            Trouble: it cannot be done; nothing was changed.
        """
        source = _source(self.entry, self.inside)
        self._refuse_what_would_be_lost()
        if os.path.lexists(self._work) and is_roots(self._work):
            begun = read(os.path.join(self._work, "ready"))
            if begun == self._mark:
                return
            old = os.path.join(self._work, "old")
            if os.path.isdir(old) and os.listdir(old):
                what = f"of {begun.get('inside') or 'everything'} from {begun.get('name', 'another snapshot')} in place"
                raise Trouble(
                    f"an earlier restore {what} was stopped half-way. Finish it with the same command, or look into "
                    f"{old} and remove {self._work}."
                )
        self.clean()
        os.mkdir(self._work, 0o700)
        os.mkdir(os.path.join(self._work, "old"), 0o700)
        new = os.path.join(self._work, "new")
        if self.inside:
            os.mkdir(new, 0o700)
            _copy(source, os.path.join(new, os.path.basename(self.inside)))
        else:
            _copy(source, new)
        write(os.path.join(self._work, "ready"), self._mark)

    def _refuse_what_would_be_lost(self) -> None:
        """Subvolumes in the subvolume are in no snapshot: they stay, if there is a place for them."""
        start = os.path.join(self.folder.source, self.inside)
        if not os.path.isdir(start) or os.path.islink(start):
            return
        for one in nested(start):
            path = os.path.join(self.inside, one)
            if path.split("/")[0] in (WORK, DONE) or os.path.join(self.folder.source, path) == self.folder.path.rstrip(
                "/"
            ):
                continue
            place = os.path.join(self.entry.path, path)
            if is_mounted(os.path.join(self.folder.source, path)):
                raise Trouble(f"something is mounted at {path}. Unmount it first, or restore to a new path.")
            if not os.path.isdir(os.path.dirname(place)) or (os.path.isdir(place) and os.listdir(place)):
                raise Trouble(f"the subvolume {path} has no place in the snapshot. Move it away, or restore elsewhere.")

    def swap(self) -> None:
        """Exchange what is there for the copy.

        Raises:
            Trouble: there is no copy.
        """
        if not is_roots(self._work) or read(os.path.join(self._work, "ready")) != self._mark:
            raise Trouble("there is no copy to exchange. Begin again.")
        old, new = os.path.join(self._work, "old"), os.path.join(self._work, "new")
        above = os.path.join(self.folder.source, self._above)
        if self.inside:
            wanted, there = [os.path.basename(self.inside)], []
            self._make_above()
        else:
            wanted, there = os.listdir(self.entry.path), os.listdir(above)
        stays = {WORK, DONE, os.path.relpath(self.folder.path, above)}
        for name in sorted({*wanted, *there} - stays):
            fresh, place = os.path.join(new, name), os.path.join(above, name)
            if os.path.isdir(place) and os.lstat(place).st_ino == 256:
                continue
            if name in wanted and not os.path.lexists(fresh):
                continue
            if os.path.lexists(place):
                os.rename(place, os.path.join(old, name))
            if name in wanted:
                os.rename(fresh, place)
        for path in nested(old):
            place = os.path.join(above, path)
            if os.path.isdir(place) and not os.path.islink(place):
                os.rmdir(place)
            os.rename(os.path.join(old, path), place)
            shutil.copystat(os.path.dirname(os.path.join(self._origin, path)), os.path.dirname(place))
        call("btrfs", "filesystem", "sync", self.folder.source)

    def clean(self) -> None:
        """Remove what an earlier restore left.

        Raises:
            Trouble: it cannot be removed.
        """
        done = os.path.join(self.folder.source, DONE)
        call("rm", "-rf", "--one-file-system", "--", done)
        # First under another name, so that a kill in between does not look like a restore that is to be finished.
        if os.path.lexists(self._work):
            os.rename(self._work, done)
            call("rm", "-rf", "--one-file-system", "--", done)

    def _make_above(self) -> None:
        """The folders that a path lies in, as they are in the snapshot."""
        inside = ""
        for name in filter(None, self._above.split("/")):
            inside = os.path.join(inside, name)
            place, original = os.path.join(self.folder.source, inside), os.path.join(self.entry.path, inside)
            if not os.path.isdir(place):
                seen = os.stat(original)
                os.mkdir(place, 0o700)
                os.chown(place, seen.st_uid, seen.st_gid)
                shutil.copystat(original, place)

    def finish(self) -> None:
        """Remove what was there before, and give the subvolume itself the owner, mode and time that it had.

        Raises:
            Trouble: it cannot be removed.
        """
        self.clean()
        if not self.inside:
            root = os.stat(self.entry.path)
            os.chown(self.folder.source, root.st_uid, root.st_gid)
            shutil.copystat(self.entry.path, self.folder.source)


# ------------------------------------------------------------------------------------------------ drill


@dataclass
class Comparison:
    """What came of comparing two trees. `problems` are sentences; `count` of them, not all are kept."""

    files: int = 0
    bytes: int = 0
    count: int = 0
    problems: list[str] = field(default_factory=list)
    digest: str = ""

    def wrong(self, problem: str) -> None:
        """Note a problem."""
        self.count += 1
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append(problem)


def drill(entry: Entry, folder: Folder) -> Comparison:
    """Restore a snapshot into a scratch place, compare every byte, remove the scratch.

    Raises:
        Trouble: it cannot be restored at all.
    """
    for name in os.listdir(folder.path):
        if name.startswith(SCRATCH):
            remove(os.path.join(folder.path, name))
    scratch = os.path.join(folder.path, f"{SCRATCH}{os.getpid()}")
    to_new_path(entry, "", scratch)
    try:
        found = compare(entry.path, scratch)
    finally:
        remove(scratch)
    record = entry.record
    if not entry.volume.read_only:
        found.wrong("the snapshot is writable: somebody made it so.")
    if record.get("changed") not in (None, entry.volume.changed):
        found.wrong("the snapshot was changed after it was taken.")
    if record.get("digest") not in (None, found.digest) and not found.count:
        found.wrong("its content is not what it was at the last drill.")
    if record and not found.count and "digest" not in record:
        folder.note(entry.name, {**record, "digest": found.digest})
    return found


def compare(original: str, copy: str) -> Comparison:
    """Compare two trees: names, kinds, owners, modes, times, link targets, and SHA-256 of the contents."""
    found = Comparison()
    digest = hashlib.sha256()
    for path in _paths(original, found):
        there, here = os.path.join(original, path), os.path.join(copy, path)
        try:
            first, second = os.lstat(there), os.lstat(here)
        except OSError as error:
            found.wrong(f"{path}: {error.strerror}")
            continue
        if first.st_ino == PLACEHOLDER_INODE:
            continue
        if _facts(first) != _facts(second):
            found.wrong(f"{path}: owner, mode, size or time is not the same.")
        content = ""
        try:
            if stat.S_ISREG(first.st_mode):
                content = sha256(there)
                if sha256(here) != content:
                    found.wrong(f"{path}: another content.")
                found.files, found.bytes = found.files + 1, found.bytes + first.st_size
            elif stat.S_ISLNK(first.st_mode):
                content = os.readlink(there)
                if os.readlink(here) != content:
                    found.wrong(f"{path}: leads elsewhere.")
        except OSError as error:
            found.wrong(f"{path}: {error.strerror}")
        digest.update(repr((path, _facts(first), content)).encode("utf-8", "surrogateescape"))
    missing = set(_paths(copy, Comparison())) ^ set(_paths(original, Comparison()))
    for path in sorted(missing):
        found.wrong(f"{path}: is in one of them only.")
    found.digest = digest.hexdigest()
    return found


def _facts(seen: os.stat_result) -> tuple[int, ...]:
    size = 0 if stat.S_ISDIR(seen.st_mode) else seen.st_size
    return seen.st_mode, seen.st_uid, seen.st_gid, size, seen.st_mtime_ns, seen.st_rdev


def _paths(root: str, found: Comparison) -> Iterator[str]:
    """Every path below a folder, relative to it, in one order; what cannot be listed is noted."""

    def unreadable(error: OSError) -> None:
        found.wrong(f"{os.path.relpath(str(error.filename), root)}: {error.strerror}")

    for folder, folders, files in os.walk(root, onerror=unreadable):
        folders.sort()
        for name in sorted([*folders, *files]):
            yield os.path.relpath(os.path.join(folder, name), root)


def sha256(path: str) -> str:
    """The digest (hexadecimal) of a file.

    Raises:
        OSError: it cannot be read, as where the disk gives back other bytes than were written.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            block = file.read(1 << 20)
            if not block:
                return digest.hexdigest()
            digest.update(block)
