"""Which clients and YubiKeys go with a host that leaves its OtpServer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler import inventory
from reconciler.plan import to_prune
from reconciler.project import Project

ROWS = {"host.otpClient[{}:7]", "host.otpKey[{}:credtivccccc]"}


def write(folder: Path, hosts: list[str], *, database: bool, rows: bool = True) -> Project:
    """The desired state with a server on these hosts, a client and a YubiKey."""
    server: dict[str, Any] = {"hosts": hosts, "ksmKeys": {"1": {"secretRef": "env:KSM"}}}
    if database:
        server["database"] = {"secretRef": "otp-server/database", "generate": "password"}
    client = {"server": "otp", "id": 7, "secret": {"secretRef": "env:CLIENT"}}
    key = {
        "server": "otp",
        "owner": "alice",
        "publicId": "credtivccccc",
        "privateId": {"secretRef": "env:UID"},
        "aesKey": {"secretRef": "env:AES"},
    }
    documents: list[tuple[str, str, Mapping[str, Any]]] = [
        ("Host", name, {"address": "192.0.2.1"}) for name in ("a", "b")
    ]
    documents += [("OtpServer", "otp", server)]
    documents += [("OtpClient", "pam", client), ("YubikeyOtp", "alice", key)] if rows else []
    folder.mkdir(exist_ok=True)
    text = "---\n".join(json.dumps(document(*one)) + "\n" for one in documents)
    (folder / "all.yaml").write_text(text)
    return Project(folder, folder.parent / "state")


def document(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def applied(project: Project) -> None:
    """As if all of it had been made."""
    with project.store.write() as db:
        inventory.record_all(db, ((r, True, None) for r in project.desired().resources.values()), "run-1")


def gone(project: Project) -> tuple[set[str], dict[str, str]]:
    """Addresses of rows that would be deleted, and why others are only forgotten."""
    found, released = to_prune(project.desired(), inventory.load(project.store), project.registry)
    rows = {r.address for r in found if r.type in ("host.otpClient", "host.otpKey")}
    return rows, {a: why for a, why in released.items() if a.startswith("host.otp")}


def rows_of(*hosts: str) -> set[str]:
    return {row.format(host) for row in ROWS for host in hosts}


@pytest.mark.parametrize("left", [["b"], ["a"]])
def test_rows_that_others_share_stay(tmp_path: Path, left: list[str]) -> None:
    applied(write(tmp_path / "desired", ["a", "b"], database=True))
    deleted, released = gone(write(tmp_path / "desired", left, database=True))
    (leaves,) = {"a", "b"} - set(left)
    assert deleted == set()
    assert released == dict.fromkeys(rows_of(leaves), "others share it")


def test_a_document_that_goes_takes_its_row_out_everywhere(tmp_path: Path) -> None:
    applied(write(tmp_path / "desired", ["a", "b"], database=True))
    assert gone(write(tmp_path / "desired", ["a", "b"], database=True, rows=False)) == (rows_of("a", "b"), {})


def test_a_server_with_a_database_of_its_own_shares_nothing(tmp_path: Path) -> None:
    applied(write(tmp_path / "desired", ["a"], database=False))
    assert gone(write(tmp_path / "desired", ["b"], database=False)) == (rows_of("a"), {})
