"""What `validate` says about documents that no cluster or server would take."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.cli.main import run as cli
from tests.proxmox.world import CLUSTER, SERVER, document

SECRET = "password: {secretRef: 'env:PASSWORD'}"
LONG = "a-name-that-is-longer-than-32-characters"


@pytest.mark.parametrize(
    ("kind", "name", "spec", "field"),
    [
        ("BackupJob", "9x", "cluster: dc01, storage: local, schedule: daily, all: true", "id"),
        ("PruneJob", "ab", "server: backup1, datastore: main, schedule: daily, keep: {keepLast: 3}", "id"),
        ("SyncJob", "ab", "server: backup1, datastore: main, remoteDatastore: other", "id"),
        ("VerifyJob", LONG, "server: backup1, datastore: main", "id"),
        ("Datastore", LONG, "server: backup1", "name"),
        ("BackupRemote", "ab", f"server: backup1, host: h, login: a@pbs, {SECRET}", "name"),
        ("BackupStorage", "9x", f"cluster: dc01, server: backup1, datastore: main, user: a@pbs, {SECRET}", "storage"),
        ("ProxmoxStorage", "9x", "cluster: dc01, type: dir, path: /a", "id"),
        ("ProxmoxGroup", "a" * 101, "cluster: dc01", "group"),
    ],
)
def test_a_name_that_cannot_be_an_id_is_said_with_its_place(
    kind: str, name: str, spec: str, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(CLUSTER + "---\n" + SERVER + document(kind, name, spec))
    assert cli(["validate", str(tmp_path)]) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert f"{kind}/{name}: {name} cannot be its {field}. Add `{field}:`" in shown
    file.write_text(CLUSTER + "---\n" + SERVER + document(kind, name, f"{spec}, {field}: good"))
    assert cli(["validate", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("{delete: scsi0}", "delete is no setting of a guest"),
        ("{force: '1'}", "force is no setting of a guest"),
        ("{memory: '1'}", "memory has a field of its own. Write it as `memory:`."),
        ("{onboot: '1'}", "onboot has a field of its own. Write it as `onBoot:`."),
        ("{hostname: a}", "hostname has a field of its own. Write it as `name:`."),
    ],
)
def test_options_of_a_guest_are_settings_without_a_field(
    options: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`delete: scsi0` would take a disk away, at every apply."""
    guest = document("Guest", "g", f'cluster: dc01, guest: "100", options: {options}')
    (tmp_path / "all.yaml").write_text(CLUSTER + guest)
    assert cli(["validate", str(tmp_path)]) == 1
    assert problem in capsys.readouterr().err


def test_to_keep_everything_stands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = document(
        "PruneJob", "nightly", "server: backup1, datastore: main, schedule: daily, keep: {keepAll: true, keepLast: 3}"
    )
    (tmp_path / "all.yaml").write_text(SERVER + job)
    assert cli(["validate", str(tmp_path)]) == 1
    assert "`keepAll` stands alone" in capsys.readouterr().err
