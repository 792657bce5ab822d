"""Btrfs subvolumes of the machine that this runs on: the kernel's own answers, and `btrfs` for what changes.

Runs on hosts: Python 3.9, standard library only.
"""

# File names of any bytes, many of them: strings, as the system calls take them.
# ruff: noqa: PTH116, PTH118

from __future__ import annotations

import fcntl
import os
import re
import stat
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

# struct btrfs_ioctl_get_subvol_info_args of <linux/btrfs.h>, since Linux 4.18; needs no privileges.
_GET_SUBVOL_INFO = 0x81F8943C
_INFO_BYTES = 504
_FS_INFO = 0x8400941F
_FS_INFO_BYTES = 1024
_ROOT_INODE = 256
_READ_ONLY = 1


class Trouble(Exception):
    """Something that people have to see to; the text says what, and what to do."""


@dataclass(frozen=True)
class Subvolume:
    """One subvolume. UUIDs in hexadecimal, empty where there is none; `created` in seconds since the epoch; `changed`
    is the transaction that last changed something in it."""

    path: str
    number: int
    changed: int
    read_only: bool
    uuid: str
    parent_uuid: str
    received_uuid: str
    created: int


def is_subvolume(path: str) -> bool:
    """Whether a path is the root of a Btrfs subvolume (and no link to one)."""
    try:
        seen = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(seen.st_mode) and seen.st_ino == _ROOT_INODE and look(path) is not None


def look(path: str) -> Subvolume | None:
    """The subvolume that a path lies in; `None` where that is no Btrfs.

    Raises:
        OSError: there is no such path, or we may not look.
    """
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        answer = bytearray(_INFO_BYTES)
        try:
            fcntl.ioctl(handle, _GET_SUBVOL_INFO, answer)
        except OSError:
            return None
    finally:
        os.close(handle)
    (number,) = struct.unpack_from("=Q", answer, 0)
    (flags,) = struct.unpack_from("=Q", answer, 288)
    uuids = [bytes(answer[start : start + 16]) for start in (296, 312, 328)]
    (changed,) = struct.unpack_from("=Q", answer, 344)
    (created,) = struct.unpack_from("=Q", answer, 392)
    own, parent, received = (one.hex() if any(one) else "" for one in uuids)
    return Subvolume(path, number, changed, bool(flags & _READ_ONLY), own, parent, received, created)


def filesystem(path: str) -> str:
    """The UUID (hexadecimal) of the Btrfs that a folder is on; empty where that is no Btrfs.

    Raises:
        OSError: there is no such folder, or we may not look.
    """
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        answer = bytearray(_FS_INFO_BYTES)
        fcntl.ioctl(handle, _FS_INFO, answer)
    except OSError:
        return ""
    finally:
        os.close(handle)
    return bytes(answer[16:32]).hex()


def subvolume(path: str) -> Subvolume:
    """The subvolume at a path.

    Raises:
        Trouble: there is none.
    """
    try:
        seen = os.stat(path)
        found = look(path)
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}. Create it, or correct the policy.") from None
    if found is None:
        raise Trouble(f"{path} is not on Btrfs. Snapshots need a Btrfs subvolume.")
    if seen.st_ino != _ROOT_INODE:
        fix = "`btrfs subvolume create` makes one; move the files into it."
        raise Trouble(f"{path} is a folder, not a subvolume. {fix}")
    return found


def call(*words: str) -> str:
    """Run a program.

    Raises:
        Trouble: it failed; with its last words.
    """
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise Trouble(f"{words[0]} cannot be run: {error.strerror}. Install the package that has it.") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-400:]
        raise Trouble(f"`{' '.join(words)}` failed: {said}")
    return done.stdout.decode("utf-8", "surrogateescape")


def snapshot(source: str, destination: str, *, read_only: bool = True) -> None:
    """Take a snapshot of a subvolume.

    Raises:
        Trouble: it failed.
    """
    call("btrfs", "-q", "subvolume", "snapshot", *(["-r"] if read_only else []), "--", source, destination)


def remove(path: str) -> None:
    """Remove a subvolume.

    Raises:
        Trouble: it failed, for example because it is being sent.
    """
    call("btrfs", "-q", "subvolume", "delete", "--", path)


def sizes(path: str) -> dict[int, int]:
    """Bytes that only this subvolume holds, by the number of the subvolume; empty where quota is off."""
    try:
        rows = call("btrfs", "qgroup", "show", "--raw", "--", path)
    except Trouble:
        return {}
    return {int(m[1]): int(m[2]) for m in re.finditer(r"^0/(\d+)\s+\d+\s+(\d+)", rows, re.MULTILINE)}


def is_mounted(path: str) -> bool:
    """Whether something is mounted at a path. (`os.path.ismount` takes every subvolume for a mount.)"""
    wanted = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as rows:
        points = (re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), row.split(" ")[4]) for row in rows)
        return wanted in points


def nested(path: str) -> Sequence[str]:
    """Paths, relative to a subvolume's root, of the subvolumes that lie in it, as far as they can be reached."""
    found = []
    todo = [""]
    device = os.lstat(path).st_dev
    while todo:
        folder = todo.pop()
        with os.scandir(os.path.join(path, folder)) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    continue
                inside = os.path.join(folder, entry.name)
                if entry.inode() == _ROOT_INODE or entry.stat(follow_symlinks=False).st_dev != device:
                    found.append(inside)
                else:
                    todo.append(inside)
    return sorted(found)
