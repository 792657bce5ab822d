"""Reads a folder for the analysers: the only module here that touches the file system, and it only reads.

Links are not followed, neither to files nor to folders, so nothing outside of the folder is read. Large files, binary
files, and what is no regular file are told by name.
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from reconciler.tools.nonroot.scan import Found, ImageConfig, is_containerfile, is_interesting, matches

LARGEST: Final = 1024 * 1024
"""Bytes of a text that is examined."""
LARGEST_CONFIG: Final = 4 * 1024 * 1024
MOST: Final = 20_000
"""Files of a folder."""
SKIPPED: Final = frozenset(
    (
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        "node_modules",
        "__pycache__",
        ".tox",
        ".mypy_cache",
        ".reconciler",
        "vendor",
    )
)
"""Folders that are not written by whoever owns the repo."""


def read(root: Path, include: Sequence[str] = ("**",), exclude: Sequence[str] = ()) -> Found:
    """Read what can be examined below a folder.

    Args:
        include, exclude: patterns of paths, see `scan.matches`.

    Raises:
        OSError: the folder cannot be read.
    """
    texts: dict[str, str] = {}
    images: list[ImageConfig] = []
    unreadable: dict[str, str] = {}
    count = 0
    for path, full in _walk(root, exclude):
        if not any(matches(path, p) for p in include):
            continue
        name = posixpath.basename(path)
        if name == "oci-layout":
            _images(images, unreadable, posixpath.dirname(path) or ".", lambda f=full: _layout(f.parent))
        elif name.endswith((".tar", ".oci")):
            _images(images, unreadable, path, lambda f=full: _archive(f))
        elif is_interesting(path):
            count += 1
            if count > MOST:
                unreadable["."] = f"there are more than {MOST} files; exclude some"
                break
            text, why = text_of(full)
            if text is not None:
                texts[path] = text
            elif why and (is_containerfile(path) or why.startswith("it is larger")):
                unreadable[path] = why
    return Found(texts, images, unreadable)


def scripts(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """The texts of files below a folder, as far as they exist there and are texts."""
    out = {}
    for path in paths:
        parts = path.split("/")
        if path.startswith("/") or ".." in parts or not path.isprintable():
            continue
        folder = root
        for part in parts[:-1]:
            folder = folder / part
            if folder.is_symlink():
                break
        else:
            text, _ = text_of(root / path)
            if text is not None:
                out[path] = text
    return out


def _walk(root: Path, exclude: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Files below a folder, sorted; links and skipped folders left out."""

    def fail(error: OSError) -> None:
        if Path(error.filename or "") == root:
            raise error

    for folder, folders, files in os.walk(root, onerror=fail, followlinks=False):
        here = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if here == "." else f"{here}/"
        kept = [d for d in folders if d not in SKIPPED and not _is_excluded(prefix + d, exclude)]
        folders[:] = sorted(d for d in kept if not Path(folder, d).is_symlink())
        for name in sorted(files):
            path = prefix + name
            # A name that is no text cannot be named either.
            if not _is_excluded(path, exclude) and path.isprintable() and path.encode("utf-8", "ignore"):
                yield path, Path(folder) / name


def _is_excluded(path: str, exclude: Sequence[str]) -> bool:
    return any(matches(path, p) for p in exclude)


def text_of(file: Path) -> tuple[str | None, str]:
    """The text of a regular file, or why there is none; nothing of a link is read."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return None, "" if file.is_symlink() else f"it cannot be opened: {error.strerror}"
    try:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode):
            return None, "it is no regular file"
        if seen.st_size > LARGEST:
            return None, f"it is larger than {LARGEST // 1024} KiB"
        with open(handle, "rb", closefd=False) as opened:
            raw = opened.read(LARGEST + 1)
    except OSError as error:
        return None, f"it cannot be read: {error.strerror}"
    finally:
        os.close(handle)
    if b"\0" in raw:
        return None, "it is no text"
    try:
        return raw.decode(), ""
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return None, f"line {line} is no UTF-8"


# ------------------------------------------------------------------------------------------------ images


def _images(out: list[ImageConfig], unreadable: dict[str, str], path: str, read_them: Any) -> None:
    try:
        out += [ImageConfig(path, name, text) for name, text in read_them()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, tarfile.TarError, EOFError) as error:
        unreadable[path] = f"it is no image that can be read: {str(error)[:200] or type(error).__name__}"


def image(path: Path) -> list[ImageConfig]:
    """The configs of an image by its path: a folder with an OCI layout, or an archive of Docker or OCI.

    Raises:
        ValueError: it is none.
    """
    out: list[ImageConfig] = []
    failed: dict[str, str] = {}
    _images(out, failed, str(path), lambda: _layout(path) if path.is_dir() else _archive(path))
    if failed:
        raise ValueError(f"{path}: {failed[str(path)]}.")
    return out


def _layout(folder: Path) -> list[tuple[str, str]]:
    """The images of an OCI layout in a folder."""

    def blob(name: str) -> bytes:
        file = folder / name
        if file.is_symlink() or any(p.is_symlink() for p in list(file.parents)[: name.count("/")]):
            raise ValueError(f"{name} is a link")
        with file.open("rb") as opened:
            return _limited(opened, name)

    return list(_of_index(blob))


def _archive(file: Path) -> list[tuple[str, str]]:
    """The images of an archive: `docker save`, or an OCI layout in a tar. Other archives hold none."""
    if file.is_symlink() or not file.is_file():
        return []
    with tarfile.open(file, mode="r:") as archive:
        members = {}
        for member in archive:
            members[posixpath.normpath(member.name)] = member
            if len(members) > MOST:
                raise ValueError("it holds too many files")

        def blob(name: str) -> bytes:
            member = members[posixpath.normpath(name)]
            # Older `docker save` links equal layers, never configs.
            opened = archive.extractfile(member) if member.isreg() else None
            if opened is None:
                raise ValueError(f"{name} is no file")
            return _limited(opened, name)

        if "index.json" in members:
            return list(_of_index(blob))
        if "manifest.json" not in members:
            return []
        out = []
        for one in json.loads(blob("manifest.json")):
            out.append((", ".join(one.get("RepoTags") or ()), blob(one["Config"]).decode()))
        return out


def _limited(opened: IO[bytes], name: str) -> bytes:
    raw = opened.read(LARGEST_CONFIG + 1)
    if len(raw) > LARGEST_CONFIG:
        raise ValueError(f"{name} is larger than {LARGEST_CONFIG} bytes")
    return raw


def _of_index(blob: Any) -> Iterator[tuple[str, str]]:
    """The configs that an OCI index leads to, platforms and attestations told apart."""
    todo: list[tuple[dict[str, Any], str, int]] = [(json.loads(blob("index.json")), "", 0)]
    count = 0
    while todo:
        index, name, depth = todo.pop()
        for one in index.get("manifests") or ():
            count += 1
            if count > 1000 or depth > 4:
                raise ValueError("its index is too large")
            notes = one.get("annotations") or {}
            if notes.get("vnd.docker.reference.type"):
                continue
            own = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name") or name
            manifest = json.loads(blob(_path(one["digest"])))
            if "manifests" in manifest:
                todo.append((manifest, own, depth + 1))
            elif "config" in manifest:
                yield own, blob(_path(manifest["config"]["digest"])).decode()


def _path(digest: str) -> str:
    algorithm, colon, hexadecimal = str(digest).partition(":")
    if not colon or not algorithm.isalnum() or not hexadecimal.isalnum():
        raise ValueError("its index holds no digest")
    return f"blobs/{algorithm}/{hexadecimal}"
