"""Small container images made here, without a registry: one static program and a few links to it, as an OCI archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LINKS = ("sh", "httpd", "sleep", "cat", "wget", "env", "test", "echo", "kill", "printf", "rm")


def archive(
    path: Path, program: bytes, name: str, *, note: str = "", machine: str = "x86_64", command: Sequence[str] = ()
) -> str:
    """Write an OCI archive with one image; its manifest digest, `sha256:...`.

    Args:
        program: a static BusyBox.
        name: the image's name and tag, such as `localhost/tiny:1`.
        note: what stands in /note; another note makes another image.
        machine: as `uname -m` says it.
        command: what it runs by default.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in ("bin", "www", "tmp", "data"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        _add(tar, "bin/busybox", program, 0o755)
        _add(tar, "note", note.encode(), 0o644)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\nweb:x:101:101:web:/:/bin/sh\n", 0o644)
        for link in LINKS:
            entry = tarfile.TarInfo(f"bin/{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    raw = layer.getvalue()
    packed = gzip.compress(raw, compresslevel=1, mtime=0)
    config = _json(
        {
            "architecture": ARCHITECTURES[machine],
            "os": "linux",
            "config": {"Cmd": list(command or ("sleep", "86400")), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(raw)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
        }
    )
    named = {"annotations": {"org.opencontainers.image.ref.name": name}}
    about = {**_descriptor("application/vnd.oci.image.manifest.v1+json", manifest), **named}
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(_index([about]))}
    for blob in (packed, config, manifest):
        files[f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}"] = blob
    with tarfile.open(path, "w") as tar:
        for file, content in files.items():
            _add(tar, file, content, 0o644)
    return _digest(manifest)


def _index(manifests: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    return {"schemaVersion": 2, "manifests": list(manifests)}


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _descriptor(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
