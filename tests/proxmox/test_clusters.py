"""Clusters and backup servers as desired state, on simulators: what a user of Proxmox meets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.apply import Result
from reconciler.cli.main import run as cli
from reconciler.discover import discover, text_of
from reconciler.lab.proxmox import Pace
from reconciler.model import Action, Outcome
from tests.proxmox.world import PASSWORD, World, document, outcomes, world

JOB = document("ReplicationJob", "mail", 'cluster: dc01, guest: "100", between: [pve1, pve2], schedule: "*/30"')
BACKUP = document(
    "BackupStorage",
    "backup1",
    "cluster: dc01, server: backup1, datastore: dc01, zfs: {disks: [sdb]}, user: dc01@pbs, "
    "password: {secretRef: 'env:PASSWORD'}, keep: {keepDaily: 14}",
)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def order(one: World) -> list[str]:
    """Addresses in the order in which their changes ended."""
    return [f["address"] for event, f in one.events if event == "change_finished"]


# ------------------------------------------------------------------------------------------------ the whole sample


def test_the_sample_data_centre_is_made_and_then_nothing_is_left(tmp_path: Path) -> None:
    from reconciler.lab.stage import Stage
    from reconciler.project import Project
    from tests.contract.tables import AnyEnvironment

    sample = Path(__file__).parents[2] / "desired-state" / "proxmox"
    project = Project(sample, tmp_path / "state")
    project.secrets._environ = AnyEnvironment()
    stage = Stage(tmp_path, project.validate(), project.secrets.reveal)
    project.retarget = stage.stand_in
    try:
        made = project.plan()
        assert len({c.resource.target for c in made.changes}) == 4
        with project.pool(made.targets) as pool:
            result = project.apply(made, pool)
        assert result.ok, {a: e for a, e in result.ended.items() if e.outcome is not Outcome.DONE}
        again = project.plan()
        assert not again.changes
        assert not again.unknown
    finally:
        stage.close()


def test_the_way_of_a_backup_comes_in_an_order_that_works_across_systems(one: World) -> None:
    """The storage logs in when it is made: by then the server must know account, right and datastore."""
    one.write(BACKUP)
    file = one.folder / "desired" / "all.yaml"
    file.write_text(
        file.read_text().replace(
            "spec: {endpoints: [https://backup1.example.org:8007], user: root@pam, ",
            f'spec: {{fingerprint: "{one.pbs.fingerprint}", endpoints: [https://backup1.example.org:8007], '
            "user: root@pam, ",
        )
    )
    one.settle()
    done = order(one)
    storage = done.index("pve.storage[dc01:backup1]")
    assert done.index("pbs.zpool[backup1:dc01]") < done.index("pbs.datastore[backup1:dc01]") < storage
    assert done.index("pbs.user[backup1:dc01@pbs]") < storage
    assert done.index("pbs.acl[backup1:/datastore/dc01:dc01@pbs:DatastoreBackup]") < storage
    (found,) = [s for s in one.look("/storage") if s["storage"] == "backup1"]
    assert found["fingerprint"] == one.pbs.fingerprint
    one.write()
    one.events.clear()
    result = one.apply()
    assert result.ok, result.ended
    done = order(one)
    assert done.index("pve.storage[dc01:backup1]") < done.index("pbs.user[backup1:dc01@pbs]")
    assert one.look("/config/datastore", server=True) == []


def test_a_backup_may_go_into_a_namespace(one: World) -> None:
    """A right on the namespace alone is enough to log in: the server shows the datastore then."""
    one.write(BACKUP.replace("user: dc01@pbs", "namespace: a/b, user: dc01@pbs"))
    file = one.folder / "desired" / "all.yaml"
    login = "spec: {endpoints: [https://backup1.example.org:8007]"
    file.write_text(file.read_text().replace(login, f'{login}, fingerprint: "{one.pbs.fingerprint}"'))
    one.settle()
    assert one.pbs.shows("dc01@pbs") == ["dc01"]
    assert [e["path"] for e in one.look("/access/acl", server=True)] == ["/datastore/dc01/a/b"]


# ------------------------------------------------------------------------------------------------ prune and order


def test_only_what_is_ours_is_pruned_and_in_the_right_order(one: World) -> None:
    """Replication before the storage of its guest, rights before accounts, members before groups."""
    one.root(("POST", "/access/users", {"userid": "foreign@pve"}), ("POST", "/access/groups", {"groupid": "theirs"}))
    one.write(
        document("ProxmoxGroup", "operators", "cluster: dc01"),
        document("ProxmoxUser", "night", "cluster: dc01, user: night@pve, groups: [operators]"),
        document("ProxmoxRole", "power", "cluster: dc01, role: Power, privileges: [VM.PowerMgmt]"),
        document("ProxmoxAcl", "rights", 'cluster: dc01, path: /vms, to: ["@operators", night@pve], roles: [Power]'),
        document("ProxmoxToken", "ci", "cluster: dc01, user: night@pve, token: ci"),
        document("ProxmoxStorage", "aaa", "cluster: dc01, type: zfspool, pool: tank/vm"),
        JOB,
    )
    one.settle()
    one.write()
    one.events.clear()
    made = one.plan()
    assert {c.action for c in made.changes} == {Action.DELETE}
    result = one.apply(made)
    assert result.ok, result.ended
    done = order(one)
    acl = max(i for i, address in enumerate(done) if address.startswith("pve.acl"))
    assert acl < done.index("pve.user[dc01:night@pve]") < done.index("pve.group[dc01:operators]")
    assert acl < done.index("pve.role[dc01:Power]")
    assert done.index("pve.replication[dc01:100:0]") < done.index("pve.storage[dc01:aaa]")
    assert done.index("pve.token[dc01:night@pve:ci]") < done.index("pve.user[dc01:night@pve]")
    assert {u["userid"] for u in one.look("/access/users")} == {"root@pam", "foreign@pve"}
    assert [g["groupid"] for g in one.look("/access/groups")] == ["theirs"]
    assert one.look("/cluster/replication") == []


def test_a_job_on_its_way_out_is_waited_for_and_made_anew(tmp_path: Path) -> None:
    slow = Pace(task=0.05, scheduler=4.0, replication=0.1, broadcast=0.1)
    with world(tmp_path, pace=slow) as one:
        one.write(JOB)
        one.settle()
        one.root(("DELETE", "/cluster/replication/100-0"))
        made = one.plan()
        assert [sorted(c.changed) for c in made.changes] == [["removing"]]
        assert made.changes[0].action is Action.REPLACE
        one.settle()


def test_another_pair_of_nodes_means_another_job(tmp_path: Path) -> None:
    from reconciler.lab.proxmox.pve.state import node

    with world(tmp_path, nodes={f"pve{n}": node(n) for n in (1, 2, 3)}) as one:
        one.write(JOB)
        one.settle()
        one.write(JOB.replace("[pve1, pve2]", "[pve3, pve1]"))
        made = one.plan()
        assert [c.action for c in made.changes] == [Action.REPLACE]
        assert made.changes[0].risk is not None
        assert made.changes[0].risk.kind == "data-loss"
        one.settle()
        (job,) = one.look("/cluster/replication")
        assert (job["source"], job["target"]) == ("pve1", "pve3")


def test_a_guest_that_a_document_names_otherwise_now_does_not_lose_its_job(one: World) -> None:
    """Its number in place of its name: the same job, which must not go as one that nobody asks for."""
    one.write(JOB.replace('guest: "100"', "guest: mail"))
    one.settle()
    one.write(JOB)
    made = one.plan()
    assert not made.changes
    assert "several names of its guest: 100 and mail" in made.unknown["pve.replication[dc01:100:0]"]
    assert len(one.look("/cluster/replication")) == 1


def test_a_guest_may_be_called_like_the_number_of_another_one(one: World) -> None:
    one.root(("PUT", "/nodes/pve1/qemu/101/config", {"name": "100"}))
    one.write(JOB)
    one.settle()
    (job,) = one.look("/cluster/replication")
    assert job["guest"] == 100


def test_a_job_to_a_node_that_another_job_has_is_refused_at_once(one: World) -> None:
    """Only a job of the same number may be on its way out, and is waited for."""
    one.root(("POST", "/cluster/replication", {"id": "100-0", "type": "local", "target": "pve2"}))
    one.write(JOB.replace("between", "number: 1, between"))
    (ended,) = one.apply().ended.values()
    assert "to target 'local/pve2' already exists" in ended.reason
    assert one.writes().count(("POST", "/cluster/replication")) == 2


# ------------------------------------------------------------------------------------------------ pains of others


def test_bpg_2081_and_1256_a_guest_that_moved_is_the_same_guest(one: World) -> None:
    one.write(JOB, document("Guest", "mail", "cluster: dc01, guest: mail, onBoot: true"))
    one.settle()
    one.root(("POST", "/nodes/pve1/qemu/100/migrate", {"target": "pve2"}))
    # For a moment the cluster does not tell the name of a guest that has moved, and nothing is known of it then.
    deadline = time.monotonic() + 20
    while (made := one.plan()).unknown:
        assert not made.changes
        assert time.monotonic() < deadline
    assert not made.changes
    one.root(("PUT", "/nodes/pve2/qemu/100/config", {"onboot": "0"}))
    made = one.plan()
    assert [c.address for c in made.changes] == ["pve.guest[dc01:mail]"]
    one.settle()


def test_bpg_2199_and_telmate_1164_values_that_come_back_otherwise_are_no_differences(one: World) -> None:
    one.write(
        document(
            "Guest",
            "mail",
            'cluster: dc01, guest: "100", tags: [Web, prod], memory: 2048, description: "a\\n\\nb\\n", '
            "options: {net0: 'virtio,bridge=vmbr0', cpu: 'cputype=host', agent: 'enabled=1', "
            "scsi0: 'tank:vm-100-disk-0,ssd=1,discard=on'}",
        ),
        document(
            "ProxmoxStorage",
            "d1",
            "cluster: dc01, type: dir, path: /srv/d1, content: [snippets, iso, backup], "
            "pruneBackups: {keepWeekly: 2, keepLast: 3}, nodes: [pve2, pve1]",
        ),
        document("BackupJob", "nightly", 'cluster: dc01, storage: local, schedule: "21:00", guests: ["101", "100"]'),
    )
    one.settle()
    for _ in range(3):
        assert not one.plan().changes


def test_bpg_646_a_task_that_is_still_running_when_we_die_is_waited_for_and_not_begun_again(one: World) -> None:
    """The UPID is on disk before the wait; resume waits for it, and sends nothing again."""
    from reconciler import journal
    from reconciler.connections.proxmox import Proxmox

    one.write(document("Datastore", "dc01", "server: backup1, path: /mnt/datastore/dc01"))
    project = one.project()
    made = project.plan()
    wait = Proxmox._outcome

    class Killed(BaseException):
        pass

    def die(self: Proxmox, upid: str) -> str:
        raise Killed

    Proxmox._outcome = die  # type: ignore[method-assign]
    try:
        with pytest.raises(Killed):
            one.apply(made, project)
    finally:
        Proxmox._outcome = wait  # type: ignore[method-assign]
    project = one.project()
    (run,) = [r for r in journal.runs(project.store) if r.ended is None]
    events = [(r.event, r.body) for r in journal.records(project.store, run.id)]
    (witness,) = [body["witness"] for event, body in events if event == "witness"]
    assert witness.startswith("UPID:")
    asked = len(one.writes())
    result = project.resume(run)
    assert result.ok, result.ended
    assert one.writes()[asked:] == []
    assert any(r.verb == "GET" and "/tasks/" in r.path for r in one.pbs.requests)


def test_bpg_2866_and_3002_rights_of_others_are_neither_taken_nor_taken_over(one: World) -> None:
    one.root(
        ("POST", "/access/users", {"userid": "a@pve"}),
        ("POST", "/access/users", {"userid": "b@pve"}),
        ("PUT", "/access/acl", {"path": "/vms", "users": "b@pve", "roles": "PVEAdmin"}),
        ("PUT", "/access/acl", {"path": "/vms", "users": "a@pve", "roles": "PVEAuditor"}),
    )
    one.write(document("ProxmoxAcl", "a", "cluster: dc01, path: /vms, to: [a@pve], roles: [PVEVMUser, PVEAuditor]"))
    one.settle()
    one.write()
    result = one.apply()
    assert result.ok
    left = {(e["ugid"], e["roleid"]) for e in one.look("/access/acl")}
    assert left == {("b@pve", "PVEAdmin"), ("a@pve", "PVEAuditor")}, "what was there before us stays"


# ------------------------------------------------------------------------------------------------ others at work


def test_another_role_on_a_backup_server_takes_the_old_one_away(one: World) -> None:
    """The new entry does not stand in for the old one, which would stay for ever."""
    user = document("ProxmoxUser", "a", "server: backup1, user: a@pbs")
    entry = document("ProxmoxAcl", "a", "server: backup1, path: /datastore, to: [a@pbs], roles: [DatastoreAdmin]")
    one.write(user, entry)
    one.settle()
    one.write(user, entry.replace("DatastoreAdmin", "DatastoreReader"))
    one.settle()
    assert [e["roleid"] for e in one.look("/access/acl", server=True)] == ["DatastoreReader"]


def test_a_digest_conflict_is_decided_anew(one: World) -> None:
    """Somebody writes another storage between our look and our write: ours is still wanted, and is written."""
    one.write(document("ProxmoxStorage", "d1", "cluster: dc01, type: dir, path: /srv/d1, content: [iso]"))
    one.settle()
    one.root(("PUT", "/storage/d1", {"content": "images"}))
    project = one.project()
    made = project.plan()
    times: list[str] = []

    def meddle(event: str, **fields: Any) -> None:
        if event == "change_started" and not times:
            times.append(event)
            one.root(("PUT", "/storage/tank", {"content": "images"}))

    project.emit = meddle
    result = one.apply(made, project)
    assert result.ok, result.ended
    assert next(s for s in one.look("/storage") if s["storage"] == "d1")["content"] == "iso"


def test_a_conflict_over_the_very_object_is_left_to_a_person(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler.connections.proxmox import Proxmox

    one.write(document("ProxmoxStorage", "d1", "cluster: dc01, type: dir, path: /srv/d1, content: [iso]"))
    one.settle()
    one.root(("PUT", "/storage/d1", {"content": "images"}))
    project = one.project()
    made = project.plan()
    step = Proxmox._step

    def late(self: Proxmox, *args: Any) -> Any:
        monkeypatch.setattr(Proxmox, "_step", step)
        one.root(("PUT", "/storage/d1", {"content": "snippets"}))
        return (yield from step(self, *args))

    monkeypatch.setattr(Proxmox, "_step", late)
    result = one.apply(made, project)
    (ended,) = result.ended.values()
    assert ended.outcome is Outcome.FAILED
    assert "changed since the plan was made (content)" in ended.reason
    assert next(s for s in one.look("/storage") if s["storage"] == "d1")["content"] == "snippets"


def test_two_applies_of_one_cluster_do_not_mix(one: World) -> None:
    from reconciler.errors import PlanRefused
    from reconciler.lease import Leases

    one.write(JOB)
    project = one.project()
    made = project.plan()
    leases = Leases(project.store, "another")
    leases.take(["dc01"])
    try:
        with pytest.raises(PlanRefused, match="dc01"):
            one.apply(made, project)
    finally:
        leases.free()
    assert one.apply(made, project).ok


# ------------------------------------------------------------------------------------------------ trouble


def test_a_weak_login_makes_objects_unknown_and_says_what_it_lacks(one: World) -> None:
    """An empty list would look as if everything had to be created."""
    one.root(("POST", "/access/users", {"userid": "weak@pve", "password": "secret123"}))
    one.write(JOB, document("ProxmoxGroup", "operators", "cluster: dc01"))
    one.changed |= {"user": "weak@pve"}
    made = one.plan()
    assert not made.changes
    assert "VM.Audit on /vms/100" in made.unknown["pve.replication[dc01:100:0]"]
    assert "/access/groups/operators" in made.unknown["pve.group[dc01:operators]"]


def test_a_refused_login_says_who_and_why(one: World) -> None:
    one.write(JOB)
    one.environ["ROOT"] = "wrong"
    (reason,) = set(one.plan().unknown.values())
    assert "the login of root@pam is refused: authentication failure" in reason
    assert "wrong" not in reason


def test_a_changed_certificate_is_an_error_that_shows_both(one: World) -> None:
    one.write(JOB)
    pinned = ":".join(["AB"] * 32)
    one.changed |= {"fingerprint": pinned}
    reason = one.plan().unknown["pve.replication[dc01:100:0]"]
    assert pinned in reason
    assert one.pve.fingerprint in reason


def test_without_pin_and_authority_nothing_is_trusted(one: World) -> None:
    one.write(JOB)
    one.changed |= {"fingerprint": None}
    reason = one.plan().unknown["pve.replication[dc01:100:0]"]
    assert "is not trusted" in reason
    assert f"`fingerprint: {one.pve.fingerprint}`" in reason


def test_a_certificate_is_trusted_by_its_authority(one: World) -> None:
    one.write(JOB)
    ca = one.folder / "ca.pem"
    ca.write_text(one.pve.certificates["pve1"])
    one.changed |= {"fingerprint": None, "ca": str(ca)}
    assert len(one.plan().changes) == 1


def test_the_next_address_is_asked_when_a_node_is_down(one: World) -> None:
    one.write(document("ProxmoxGroup", "operators", "cluster: dc01"))
    ca = one.folder / "ca.pem"
    ca.write_text("".join(one.pve.certificates.values()))
    one.endpoints = [one.pve.urls["pve1"], one.pve.urls["pve2"]]
    one.changed |= {"fingerprint": None, "ca": str(ca)}
    one.pve.stop_node("pve1")
    one.pve.quorate = True
    one.settle()
    one.pve.stop_node("pve2")
    reason = one.plan().unknown["pve.group[dc01:operators]"]
    assert "no address answers" in reason


def test_without_quorum_writes_fail_with_the_reason_and_the_plan_holds_later(one: World) -> None:
    one.write(document("ProxmoxGroup", "operators", "cluster: dc01"))
    project = one.project()
    made = project.plan()
    one.pve.quorate = False
    result = one.apply(made, project)
    (ended,) = result.ended.values()
    assert ended.outcome is Outcome.FAILED
    assert "no quorum" in ended.reason
    one.pve.quorate = True
    one.settle()


def test_a_task_that_fails_is_reported_with_the_end_of_its_log(one: World) -> None:
    one.write(document("Datastore", "dc01", "server: backup1, path: /mnt/datastore/dc01"))
    one.pbs.fail_task("create-datastore", "EIO: the disk is broken", None)
    result = one.apply()
    (ended,) = result.ended.values()
    assert ended.outcome is Outcome.FAILED
    assert "EIO: the disk is broken" in ended.reason
    assert "TASK ERROR" in ended.reason


def test_a_node_that_cannot_reach_another_one_is_no_empty_world(one: World) -> None:
    """595 is what a node answers in place of one that it cannot reach."""
    one.write(document("ProxmoxGroup", "operators", "cluster: dc01"))
    one.pve.fail_request("GET", "^/access/groups", status=595, text="no route to host", times=5)
    reason = one.plan().unknown["pve.group[dc01:operators]"]
    assert "595" in reason
    one.pve.forget_faults()
    one.pve.fail_request("POST", "^/access/groups", status=595, text="no route to host")
    (ended,) = one.apply().ended.values()
    assert ended.outcome is Outcome.FAILED
    assert "did not arrive" in ended.reason
    one.settle()


def test_an_encryption_key_is_sent_once_and_never_replaced(one: World) -> None:
    """Old backups could not be read any more."""
    from reconciler.generated import FORMS

    one.environ["KEY"] = FORMS["proxmox-key"]()
    one.write(
        document(
            "ProxmoxStorage",
            "pbs1",
            "cluster: dc01, type: pbs, server: pbs.example.org, datastore: dc01, username: dc01@pbs, enabled: false, "
            "password: {secretRef: 'env:PASSWORD'}, encryptionKey: {secretRef: 'env:KEY'}, content: [backup]",
        )
    )
    one.settle()
    assert one.environ["KEY"] not in everything_kept(one, one.apply())
    one.environ["KEY"] = FORMS["proxmox-key"]()
    assert not one.plan().changes


def test_an_answer_that_does_not_arrive_is_no_failure(one: World) -> None:
    """The request had its effect: that is found by looking, and nothing is sent again."""
    one.write(document("ProxmoxGroup", "operators", "cluster: dc01"))
    project = one.project()
    made = project.plan()
    one.pve.fail_request("POST", "/access/groups", broken="after")
    result = one.apply(made, project)
    assert outcomes(result) == {"pve.group[dc01:operators]": Outcome.DONE}, result.ended
    assert one.writes().count(("POST", "/access/groups")) == 1


def test_a_request_that_never_arrived_is_said_to_be_open(one: World) -> None:
    one.write(document("ProxmoxGroup", "operators", "cluster: dc01"))
    project = one.project()
    made = project.plan()
    one.pve.fail_request("POST", "/access/groups", broken="before")
    result = one.apply(made, project)
    (ended,) = result.ended.values()
    assert ended.outcome is Outcome.FAILED
    assert "did not arrive" in ended.reason
    one.settle()


# ------------------------------------------------------------------------------------------------ secrets


def everything_kept(one: World, result: Result) -> str:
    texts = [repr(result), repr(one.events)]
    for file in one.folder.rglob("*"):
        if file.is_file() and "secrets" not in file.parts:
            texts.append(file.read_bytes().decode("utf-8", "replace"))
    return "\n".join(texts)


def test_a_password_is_sent_once_and_again_when_it_changes(one: World) -> None:
    one.write(document("ProxmoxUser", "a", "cluster: dc01, user: a@pve, password: {secretRef: 'env:PASSWORD'}"))
    result = one.settle()
    assert PASSWORD not in everything_kept(one, result)
    before = len(one.writes())
    one.environ["PASSWORD"] = "another-password"
    made = one.plan()
    assert [sorted(c.changed) for c in made.changes] == [["password"]]
    assert "another-password" not in repr(made)
    one.settle()
    assert one.writes()[before:] == [("PUT", "/access/password")]


@pytest.fixture
def with_token(one: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A token whose secret goes into the store, which is not there yet."""
    monkeypatch.setenv("HOME", str(one.folder / "home"))
    monkeypatch.delenv("SOPS_AGE_KEY", raising=False)
    monkeypatch.delenv("SOPS_AGE_KEY_FILE", raising=False)
    one.write(
        document("ProxmoxUser", "a", "cluster: dc01, user: a@pve"),
        document("ProxmoxToken", "ci", "cluster: dc01, user: a@pve, token: ci, keepIn: proxmox/ci"),
    )
    return one


def init_store(one: World) -> None:
    assert cli(["secrets", "init", "--path", str(one.folder / "desired")]) == 0


def test_the_secret_of_a_new_token_goes_into_the_store_and_nowhere_else(with_token: World) -> None:
    one = with_token
    init_store(one)
    result = one.settle()
    secret = one.project().secret_store.value("proxmox/ci")
    assert len(secret) == 36
    assert secret not in everything_kept(one, result)


def test_a_token_is_not_made_where_its_secret_has_no_place(with_token: World) -> None:
    one = with_token
    ended = one.apply().ended["pve.token[dc01:a@pve:ci]"]
    assert ended.outcome is Outcome.FAILED
    assert "reconciler secrets init" in ended.reason
    assert ended.reason.endswith("Nothing was changed.")
    init_store(one)
    one.settle()
    assert one.project().secret_store.has("proxmox/ci")


def test_a_secret_that_is_lost_on_its_way_is_no_success(with_token: World) -> None:
    """The token is there when we look again, but nobody will ever know its secret."""
    one = with_token
    init_store(one)
    one.pve.fail_request("POST", "/token/ci", broken="after")
    ended = one.apply().ended["pve.token[dc01:a@pve:ci]"]
    assert ended.outcome is Outcome.FAILED
    assert "if the object is there now, remove it, and apply again" in ended.reason


# ------------------------------------------------------------------------------------------------ import


def test_import_writes_documents_over_which_the_plan_is_empty(one: World) -> None:
    one.root(
        ("POST", "/access/groups", {"groupid": "ops", "comment": "yes"}),
        ("POST", "/access/users", {"userid": "a@pve", "groups": "ops", "email": "a@b.org"}),
        ("POST", "/access/users/a@pve/token/ci", {"privsep": "0"}),
        ("POST", "/access/roles", {"roleid": "Power", "privs": "VM.PowerMgmt"}),
        ("PUT", "/access/acl", {"path": "/vms", "groups": "ops", "roles": "Power", "propagate": "0"}),
        ("POST", "/cluster/replication", {"id": "100-0", "type": "local", "target": "pve2", "rate": "10"}),
        ("POST", "/cluster/backup", {"id": "nn", "storage": "local", "all": "1", "schedule": "daily"}),
    )
    one.root(
        ("POST", "/config/datastore", {"name": "main", "path": "/mnt/main"}),
        ("POST", "/config/prune", {"id": "ppp", "store": "main", "schedule": "daily", "keep-last": "3"}),
        ("POST", "/config/verify", {"id": "vvv", "store": "main"}),
        server=True,
    )
    one.write()
    project = one.project()
    texts = []
    for name in ("dc01", "backup1"):
        catalog = project.validate()
        target = one.behind(catalog.targets[name])
        with project.pool({name: target}, read_only=True) as pool:
            found, left = discover(target, catalog, pool.get(name).read)
        assert not left
        texts.append(text_of(found))
    kinds = {line.removeprefix("kind: ") for text in texts for line in text.splitlines() if line.startswith("kind: ")}
    assert kinds == {
        "BackupJob", "Datastore", "Guest", "ProxmoxAcl", "ProxmoxGroup", "ProxmoxRole", "ProxmoxStorage",
        "ProxmoxToken", "ProxmoxUser", "PruneJob", "ReplicationJob", "VerifyJob",
    }  # fmt: skip
    (one.folder / "desired" / "imported.yaml").write_text("".join(texts))
    made = one.plan()
    assert not made.unknown
    assert [(c.address, c.differences) for c in made.changes] == []
    catalog = project.validate()
    with project.pool({"dc01": one.behind(catalog.targets["dc01"])}, read_only=True) as pool:
        assert discover(one.behind(catalog.targets["dc01"]), catalog, pool.get("dc01").read) == ([], [])


# ------------------------------------------------------------------------------------------------ health


def test_a_stale_job_is_a_finding_with_its_age(tmp_path: Path) -> None:
    idle = Pace(task=0.05, scheduler=3600.0, replication=0.1, broadcast=0.1)
    with world(tmp_path, pace=idle) as one:
        one.write(JOB.replace('schedule: "*/30"', 'schedule: "sat 03:00", staleAfter: 1h, maxFailures: 1'))
        one.settle()
        assert one.plan().findings == [], "its time has not come"
        with one.pve.edit() as state:
            state["replication"]["100-0"]["created"] -= 8 * 86_400
        assert [f.rule for f in one.plan().findings] == ["never-synced"]
        with one.pve.edit() as state:
            seen = state["replication"]["100-0"]["state"]
            seen |= {"last_sync": time.time() - 3.5 * 3600, "fail_count": 2, "error": "EIO"}
        found = {f.rule: f.message for f in one.plan().findings}
        assert found["stale"].endswith("stale for 3 h.")
        assert "failed 2 times in a row: EIO" in found["failing"]


def test_a_login_without_its_secret_does_not_hold_up_others(one: World) -> None:
    one.write(document("ProxmoxGroup", "operators", "cluster: dc01"), document("Datastore", "main", "server: backup1"))
    file = one.folder / "desired" / "all.yaml"
    file.write_text(file.read_text().replace("env:ROOT", "env:NOT_THERE", 1))
    made = one.plan()
    assert "environment variable NOT_THERE" in made.unknown["pve.group[dc01:operators]"]
    assert [c.address for c in made.changes] == ["pbs.datastore[backup1:main]"]


def test_unreachable_clusters_do_not_hold_up_others(one: World) -> None:
    one.write(document("ProxmoxGroup", "operators", "cluster: dc01"), document("Datastore", "main", "server: backup1"))
    one.pve.stop()
    made = one.plan()
    assert list(made.unknown) == ["pve.group[dc01:operators]"]
    assert [c.address for c in made.changes] == ["pbs.datastore[backup1:main]"]


def test_what_a_login_may_not_see_is_said_and_hides_nothing_else(one: World) -> None:
    """A login for storages alone: they are imported, and each other kind says what it lacks."""
    one.root(
        ("POST", "/access/users", {"userid": "weak@pve", "password": "secret123"}),
        ("PUT", "/access/acl", {"path": "/storage", "users": "weak@pve", "roles": "PVEDatastoreAdmin"}),
    )
    one.write()
    one.changed |= {"user": "weak@pve"}
    one.environ["ROOT"] = "secret123"
    project = one.project()
    catalog = project.validate()
    target = one.behind(catalog.targets["dc01"])
    with project.pool({"dc01": target}, read_only=True) as pool:
        found, left = discover(target, catalog, pool.get("dc01").read)
    assert {document.kind for document in found} >= {"ProxmoxStorage"}
    assert any(sentence.startswith("ReplicationJob was not looked for: ") for sentence in left), left
