"""What is read of a folder: nothing outside of it, nothing too large, nothing that waits, and images of all forms."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from reconciler.connections import connect
from reconciler.errors import ConnectError, ContractError
from reconciler.model import Get, Script, Target
from reconciler.tools.nonroot import files


def test_links_large_binary_and_odd_files(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "Containerfile").write_text("FROM secret\n")
    (root / "Containerfile").symlink_to(outside / "Containerfile")
    (root / "linked").symlink_to(outside)
    (root / "sub/Dockerfile").write_text("FROM x\n")
    (root / "sub/loop").symlink_to(root)
    os.mkfifo(root / "Dockerfile")
    with (root / "huge.yaml").open("wb") as huge:
        huge.truncate(3 * 1024**3)
    (root / "binary.Dockerfile").write_bytes(b"FROM x\0\n")
    (root / "latin.Dockerfile").write_bytes("FROM x\n# \xe9\n".encode("latin-1"))
    (root / "binary.yaml").write_bytes(b"\0")
    (root / ".git").mkdir()
    (root / ".git/x.yaml").write_text("kind: Pod\n")
    (root / "node_modules").mkdir()
    (root / "node_modules/Dockerfile").write_text("FROM x\n")
    (root / "escape\x1b.yaml").write_text("a: 1\n")
    os.close(os.open(os.fsencode(root) + b"/\xff.yaml", os.O_CREAT))
    found = files.read(root)
    assert found.texts == {"sub/Dockerfile": "FROM x\n"}
    assert found.unreadable == {
        "Dockerfile": "it is no regular file",
        "huge.yaml": "it is larger than 1024 KiB",
        "binary.Dockerfile": "it is no text",
        "latin.Dockerfile": "line 2 is no UTF-8",
    }


def test_include_and_exclude(tmp_path: Path) -> None:
    for name in ("a/Dockerfile", "a/b/Dockerfile", "c/web.Dockerfile", "c/Dockerfile.md", "c/x.dockerignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("FROM x\n")
    assert list(files.read(tmp_path).texts) == ["a/Dockerfile", "a/b/Dockerfile", "c/web.Dockerfile"]
    assert list(files.read(tmp_path, ["a/**"], ["a/b"]).texts) == ["a/Dockerfile"]
    assert list(files.read(tmp_path, ["*/Dockerfile"]).texts) == ["a/Dockerfile"]
    assert list(files.read(tmp_path, ["**/*.Dockerfile"]).texts) == ["c/web.Dockerfile"]


def test_start_scripts_lie_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "root/a").mkdir(parents=True)
    (tmp_path / "root/a/x").write_text("1")
    (tmp_path / "out").write_text("2")
    (tmp_path / "root/link").symlink_to(tmp_path)
    (tmp_path / "root/a/l").symlink_to(tmp_path / "out")
    asked = ["a/x", "../out", "/etc/passwd", "link/out", "a/l", "a/missing", "a", "a\0b"]
    assert files.scripts(tmp_path / "root", asked) == {"a/x": "1"}


# ------------------------------------------------------------------------------------------------ images

CONFIG = json.dumps({"config": {"User": "1001:0"}})


def layout(digest: str = "c1", **notes: str) -> dict[str, str]:
    """An OCI layout with one image behind an index of platforms, and an attestation."""
    attest = {"digest": "sha256:no", "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    inner = {"manifests": [{"digest": "sha256:m1"}, attest]}
    top = {"manifests": [{"digest": "sha256:i1", "annotations": notes}]}
    return {
        "oci-layout": '{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(top),
        "blobs/sha256/i1": json.dumps(inner),
        "blobs/sha256/m1": json.dumps({"config": {"digest": f"sha256:{digest}"}}),
        "blobs/sha256/c1": CONFIG,
    }


def pack(path: Path, members: dict[str, str]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))


def test_images_of_all_forms(tmp_path: Path) -> None:
    members = layout(**{"org.opencontainers.image.ref.name": "web:1"})
    for name, text in members.items():
        (tmp_path / "oci" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "oci" / name).write_text(text)
    pack(tmp_path / "oci.tar", members)
    manifest = json.dumps([{"Config": "abc.json", "RepoTags": ["web:2"]}])
    pack(tmp_path / "docker.tar", {"manifest.json": manifest, "abc.json": CONFIG})
    pack(tmp_path / "other.tar", {"a": "b"})
    found = files.read(tmp_path)
    assert [(i.file, i.name, i.text) for i in found.images] == [
        ("docker.tar", "web:2", CONFIG),
        ("oci.tar", "web:1", CONFIG),
        ("oci", "web:1", CONFIG),
    ]
    assert found.unreadable == {}
    assert files.image(tmp_path / "oci")[0].text == CONFIG


@pytest.mark.parametrize(
    "members",
    [
        {"manifest.json": "{"},
        {"manifest.json": '[{"Config": "missing"}]'},
        {"manifest.json": "[5]"},
        {"index.json": '{"manifests": [{"digest": "../../etc/passwd"}]}'},
        {"index.json": '{"manifests": [{"digest": "sha256:../x"}]}'},
        {
            "index.json": '{"manifests": [{"digest": "sha256:i"}]}',
            "blobs/sha256/i": '{"manifests": [{"digest": "sha256:i"}]}',
        },
        {"index.json": "[]"},
        {"index.json": json.dumps({"manifests": [{"digest": "sha256:i"}] * 2000})},
        {"manifest.json": "x" * (5 * 1024 * 1024)},
    ],
    ids=range(9),
)
def test_broken_and_hostile_archives_are_told(members: dict[str, str], tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", members)
    found = files.read(tmp_path)
    assert found.images == []
    assert list(found.unreadable) == ["a.tar"]
    with pytest.raises(ValueError, match=r"a\.tar"):
        files.image(tmp_path / "a.tar")


def test_a_layout_does_not_follow_links(tmp_path: Path) -> None:
    for name, text in layout().items():
        (tmp_path / "oci" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "oci" / name).write_text(text)
    (tmp_path / "secret").write_text(CONFIG)
    (tmp_path / "oci/blobs/sha256/c1").unlink()
    (tmp_path / "oci/blobs/sha256/c1").symlink_to(tmp_path / "secret")
    assert files.read(tmp_path).images == []
    (tmp_path / "cut.tar").write_bytes(b"\x1f\x8b nothing")
    assert "cut.tar" in files.read(tmp_path).unreadable


# ------------------------------------------------------------------------------------------------ the connection


def test_the_connection_reads_only_inside_of_the_working_tree(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    (repo / "policies").mkdir(parents=True)
    (repo / ".git").mkdir()

    def read(root: Path) -> str:
        target = Target("p", "repository", {"root": str(root), "beside": str(repo / "policies")})
        return connect(target).read([Get("files", {"include": ["**"], "exclude": []})])[0].text

    assert json.loads(read(repo))["texts"] == {}
    for outside in (tmp_path, Path("/etc"), repo / "policies/missing"):
        with pytest.raises(ConnectError):
            read(outside)
    (repo / "link").symlink_to("/etc")
    with pytest.raises(ConnectError, match="outside"):
        read(repo / "link")


def test_the_connection_never_writes(tmp_path: Path) -> None:
    one = connect(Target("p", "repository", {"root": str(tmp_path), "beside": str(tmp_path)}))
    with pytest.raises(ContractError):
        list(one.execute([], lambda secret: ""))
    with pytest.raises(ContractError):
        one.read([Script("true")])
    with pytest.raises(ContractError):
        one.read([Get("elsewhere")])
    one.settle([])
    one.close()
