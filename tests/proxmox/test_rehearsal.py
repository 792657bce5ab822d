"""Rehearsals: they touch nothing, and say truthfully what would be done and what would be left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli.main import run as cli
from reconciler.errors import PlanError
from reconciler.rehearse import rehearse
from tests.proxmox.test_clusters import BACKUP, JOB
from tests.proxmox.world import World, document, world

GROUP = document("ProxmoxGroup", "operators", "cluster: dc01")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_a_rehearsal_says_that_a_plan_converges_and_touches_nothing(one: World) -> None:
    one.write(JOB, BACKUP, document("ProxmoxGroup", "operators", "cluster: dc01"))
    before = one.writes()
    done = rehearse(one.project())
    assert done.converges, (done.failed, done.left)
    assert len(done.live.changes) > 5
    assert one.writes() == before
    assert len(one.plan().changes) == len(done.live.changes)


def test_a_rehearsal_says_what_would_fail(one: World) -> None:
    one.write(
        document("ProxmoxStorage", "d1", "cluster: dc01, type: zfspool, pool: nosuch/pool"),
        document("ProxmoxUser", "a", "cluster: dc01, user: a@pve, groups: [nosuch]"),
    )
    done = rehearse(one.project())
    assert not done.converges
    assert "no such group 'nosuch'" in done.failed["pve.user[dc01:a@pve]"].reason


def test_what_would_be_pruned_is_rehearsed_also_where_nothing_is_wanted_any_more(one: World) -> None:
    one.write(GROUP, document("Datastore", "main", "server: backup1, path: /mnt/main"))
    one.settle()
    one.write(GROUP)
    done = rehearse(one.project())
    assert [c.address for c in done.live.changes] == ["pbs.datastore[backup1:main]"]
    assert done.converges


def test_a_login_that_may_not_see_the_cluster_has_nothing_to_rehearse(one: World) -> None:
    one.root(("POST", "/access/users", {"userid": "weak@pve", "password": "secret123"}))
    one.write(GROUP, document("Datastore", "main", "server: backup1, path: /mnt/main"))
    file = one.folder / "desired" / "all.yaml"
    file.write_text(file.read_text().replace("root@pam", "weak@pve", 1))
    done = rehearse(one.project())
    assert "Sys.Audit on /" in done.unreached["dc01"]
    assert not done.failed
    assert not done.converges, "half of the plan was not looked at"
    file.write_text(file.read_text().partition("---\napiVersion: reconciler/v1\nkind: Datastore")[0])
    with pytest.raises(PlanError, match=r"nothing to rehearse\. dc01: the login may not see the nodes"):
        rehearse(one.project())


def test_objects_that_cannot_be_judged_are_no_success(one: World) -> None:
    """Nothing to do, but also nothing known."""
    one.write(document("ReplicationJob", "x", "cluster: dc01, guest: nosuch, between: [pve1, pve2]"))
    done = rehearse(one.project())
    assert done.left is None
    assert sorted(done.unknown) == ["pve.replicationHealth[dc01:nosuch:0]", "pve.replication[dc01:nosuch:0]"]
    assert not done.converges


def test_a_system_that_does_not_answer_is_no_success(
    one: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOT", "secret123")
    one.write(GROUP, document("Datastore", "main", "server: backup1, path: /mnt/main"))
    file = one.folder / "desired" / "all.yaml"
    ca = one.folder / "desired" / "ca.pem"
    ca.write_text(one.pve.certificates["pve1"])
    text = file.read_text().replace("https://pve1.example.org:8006], ", f"{one.pve.url}], ca: ca.pem, ")
    file.write_text(text.replace("https://backup1.example.org:8007", "https://127.0.0.1:9"))
    words = ["rehearse", str(file.parent), "--state", str(one.folder / "other")]
    assert cli(words) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "backup1 could not be looked at: no address answers. 127.0.0.1:9:" in shown
    assert "The plan does not converge: 1 not looked at." in shown
    assert cli([*words, "--output", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["converges"]
    assert list(found["unreached"]) == ["backup1"]
    assert found["left"] == []
    assert found["failed"] == found["unknown"] == found["unseen"] == {}


def test_a_plan_that_deletes_much_can_be_rehearsed_all_the_same(one: World) -> None:
    one.write(*(document("ProxmoxGroup", f"group{n}", "cluster: dc01") for n in range(12)))
    one.settle()
    one.write(GROUP)
    with pytest.raises(PlanError, match="--force"):
        rehearse(one.project())
    done = rehearse(one.project(), force=True)
    assert len(done.live.changes) == 13
    assert done.converges


def test_a_login_that_the_server_would_refuse_is_seen_behind_any_port(one: World) -> None:
    """The likeness of a cluster reaches the likeness of the server by the address that the storage would have."""
    place, _, port = one.pbs.url.removeprefix("https://").rpartition(":")
    spec = f"cluster: dc01, type: pbs, server: {place}, port: {port}, datastore: nosuch, username: a@pbs"
    one.write(document("ProxmoxStorage", "b1", f"{spec}, password: {{secretRef: 'env:PASSWORD'}}"), GROUP)
    done = rehearse(one.project())
    assert list(done.failed) == ["pve.storage[dc01:b1]"]
    assert not done.converges


def test_a_password_that_the_live_server_does_not_show_is_taken_to_be_right(one: World) -> None:
    """The account is there already, and a new storage logs in with it."""
    one.write(document("Datastore", "main", "server: backup1, path: /mnt/main"))
    one.settle()
    one.root(
        ("POST", "/access/users", {"userid": "a@pbs", "password": "secret123"}),
        ("PUT", "/access/acl", {"path": "/datastore/main", "auth-id": "a@pbs", "role": "DatastoreBackup"}),
        server=True,
    )
    place, _, port = one.pbs.url.removeprefix("https://").rpartition(":")
    spec = f"cluster: dc01, type: pbs, server: {place}, port: {port}, datastore: main, username: a@pbs"
    login = f"password: {{secretRef: 'env:PASSWORD'}}, fingerprint: '{one.pbs.fingerprint}'"
    file = one.folder / "desired" / "all.yaml"
    one.write(
        document("ProxmoxStorage", "b1", f"{spec}, {login}"),
        document("Datastore", "main", "server: backup1, path: /mnt/main"),
    )
    pin = f'spec: {{fingerprint: "{one.pbs.fingerprint}", endpoints: [https://backup1'
    file.write_text(file.read_text().replace("spec: {endpoints: [https://backup1", pin))
    done = rehearse(one.project())
    assert done.converges, (done.failed, done.left)
    one.root(("PUT", "/access/users/a@pbs", {"enable": "0"}), server=True)
    assert list(rehearse(one.project()).failed) == ["pve.storage[dc01:b1]"]
