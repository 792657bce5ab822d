"""The simulated cluster beyond what was recorded: endpoints, tasks, faults, snapshots, rights, storages, containers."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.lab.proxmox import REAL, ManualClock, PbsSimulator, PveSimulator
from reconciler.lab.proxmox.pve.state import node
from tests.proxmox.client import Api, root_of_cluster, root_of_server

UNPRIVILEGED = {"users": {"root@pam": {"password": "secret123"}, "low@pve": {"password": "lowlowlow"}}}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pve(clock: ManualClock) -> Iterator[PveSimulator]:
    with PveSimulator(UNPRIVILEGED, clock=clock, pace=REAL) as simulator:
        yield simulator


@pytest.fixture
def api(pve: PveSimulator) -> Iterator[Api]:
    client = root_of_cluster(pve.url)
    yield client
    client.close()


def finish(api: Api, clock: ManualClock, upid: str) -> dict[str, Any]:
    """Wait for a task's end."""
    clock.advance(REAL.task)
    status: dict[str, Any] = api.get(f"/nodes/{upid.split(':')[1]}/tasks/{upid}/status")
    assert status["status"] == "stopped"
    return status


def machine(api: Api, clock: ManualClock, vmid: str, **options: Any) -> None:
    """A new machine on pve1."""
    upid = api.form("POST", "/nodes/pve1/qemu", {"vmid": vmid, **options}).data
    assert finish(api, clock, upid)["exitstatus"] == "OK"


# endpoints


def test_each_node_has_an_endpoint_and_a_certificate(pve: PveSimulator) -> None:
    """Two ports, two certificates; each can be pinned, or checked as its own CA."""
    assert list(pve.urls) == ["pve1", "pve2"]
    assert len(set(pve.fingerprints.values())) == len(set(pve.urls.values())) == 2
    for name, url in pve.urls.items():
        checked = Api(url, ca=pve.certificates[name])
        assert checked.fingerprint() == pve.fingerprints[name]
        assert checked.send("GET", "/access/domains").status == 200
        local = [entry["name"] for entry in root_of_cluster(url).get("/cluster/status") if entry.get("local")]
        assert local == [name]
    shown = {entry["node"]: entry["ssl_fingerprint"] for entry in root_of_cluster(pve.url).get("/nodes")}
    assert shown == pve.fingerprints


def test_connections_are_kept(pve: PveSimulator, api: Api) -> None:
    """Hundreds of requests go through one connection, refusals included."""
    sock = api._connection.sock
    for number in range(200):
        assert api.send("GET", "/version" if number % 2 else "/nosuch").status == (200 if number % 2 else 501)
    assert api._connection.sock is sock is not None
    assert pve.requests[-1].path == "/version"


def test_a_node_that_is_down(pve: PveSimulator, api: Api) -> None:
    """Its port refuses, requests about it are a 595 elsewhere; it comes back on the same port."""
    url = pve.urls["pve2"]
    pve.stop_node("pve2")
    with pytest.raises(ConnectionRefusedError):
        Api(url).send("GET", "/version")
    reply = api.send("GET", "/nodes/pve2/qemu")
    assert (reply.status, reply.text) == (595, "")
    assert [entry["online"] for entry in api.get("/cluster/status")[1:]] == [1, 0]
    assert api.send("POST", "/access/groups", groupid="g").status == 500
    pve.start_node("pve2")
    assert pve.urls["pve2"] == url
    assert root_of_cluster(url).get("/version")["release"] == "9.2"
    api.post("/access/groups", groupid="g")


def test_three_nodes_keep_their_quorum() -> None:
    """One of three may be down; quorum can be forced either way."""
    state = {"nodes": {f"n{number}": node(number) for number in (1, 2, 3)}}
    with PveSimulator(state) as pve:
        api = root_of_cluster(pve.url)
        pve.stop_node("n3")
        api.post("/access/groups", groupid="a")
        pve.quorate = False
        assert api.send("POST", "/access/groups", groupid="b").reason.endswith("no quorum!")
        assert api.get("/cluster/status")[0]["quorate"] == 0
        pve.quorate = None
        api.post("/access/groups", groupid="b")


def test_proxmoxer_gets_along(pve: PveSimulator) -> None:
    """The client library that the real clusters are reached with works, with a token."""
    proxmoxer = pytest.importorskip("proxmoxer")
    secret = pve.mint_token("root@pam!ci")
    host, _, port = pve.url.removeprefix("https://").partition(":")
    there = proxmoxer.ProxmoxAPI(
        host, port=int(port), user="root@pam", token_name="ci", token_value=secret, verify_ssl=False
    )
    there.access.groups.post(groupid="ops", comment="a\nb ü")
    assert there.access.groups("ops").get()["comment"] == "a\nb ü"
    with pytest.raises(proxmoxer.ResourceException, match="already exists"):
        there.access.groups.post(groupid="ops")


def test_many_at_once(pve: PveSimulator) -> None:
    """Requests from many threads do not lose each other's writes."""

    def make(number: int) -> None:
        api = root_of_cluster(pve.urls["pve1" if number % 2 else "pve2"])
        for turn in range(10):
            api.post("/access/groups", groupid=f"g{number}-{turn}")
        api.close()

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pve.snapshot()["groups"]) == 80


def test_the_examples_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/lab-proxmox.md shows what works."""
    page = (Path(__file__).parents[2] / "docs" / "lab-proxmox.md").read_text(encoding="utf-8")
    first, faults, time = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict[str, Any] = {"ManualClock": ManualClock, "REAL": REAL, "PveSimulator": PveSimulator, "input": print}
    exec(first, names)
    assert "https://127.0.0.1:" in capsys.readouterr().out
    with PveSimulator({"guests": {"100": {"type": "qemu", "node": "pve1", "config": {}, "status": "stopped"}}}) as pve:
        exec(faults, {"pve": pve})
        assert pve.snapshot()["guests"]["100"]["node"] == "pve2"
    exec(time, names)


# tasks


def test_a_task_takes_its_time(api: Api, clock: ManualClock) -> None:
    """Until its end it is running and the guest is locked; then it is done."""
    upid = api.post("/nodes/pve1/qemu", vmid="100", name="a")
    assert api.get(f"/nodes/pve1/tasks/{upid}/status")["status"] == "running"
    assert [task["upid"] for task in api.get("/nodes/pve1/tasks", source="active")] == [upid]
    assert api.get("/nodes/pve1/tasks") == []
    assert api.get("/nodes/pve1/qemu/100/config")["lock"] == "create"
    assert api.send("PUT", "/nodes/pve1/qemu/100/config", memory="512").reason == "VM is locked (create)"
    assert api.send("POST", "/nodes/pve2/qemu", vmid="100").status == 500
    assert finish(api, clock, upid)["exitstatus"] == "OK"
    assert "lock" not in api.get("/nodes/pve1/qemu/100/config")
    assert [task["status"] for task in api.get("/nodes/pve1/tasks")] == ["OK"]


def test_a_task_that_is_made_to_fail(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """It ends with the text, its log says so, and it has done nothing; the next one works."""
    pve.fail_task("qmcreate", "out of luck", "100", log=("trying", "trying harder"))
    upid = api.post("/nodes/pve1/qemu", vmid="100")
    other = api.post("/nodes/pve1/qemu", vmid="101")
    assert finish(api, clock, upid)["exitstatus"] == "out of luck"
    log = [line["t"] for line in api.get(f"/nodes/pve1/tasks/{upid}/log")]
    assert log == ["trying", "trying harder", "TASK ERROR: out of luck"]
    assert api.get(f"/nodes/pve1/tasks/{other}/status")["exitstatus"] == "OK"


def test_a_create_that_is_made_to_fail_leaves_no_guest(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """The number is free again."""
    pve.fail_task("qmcreate", "out of luck")
    finish(api, clock, api.post("/nodes/pve1/qemu", vmid="100"))
    assert api.get("/cluster/nextid") == "100"
    machine(api, clock, "100")


def test_a_task_can_be_stopped(api: Api, clock: ManualClock) -> None:
    """It ends with an error and never has its effect."""
    machine(api, clock, "100")
    upid = api.delete("/nodes/pve1/qemu/100")
    api.delete(f"/nodes/pve1/tasks/{upid}")
    assert finish(api, clock, upid)["exitstatus"] == "unexpected status"
    assert api.get("/nodes/pve1/qemu/100/config")["boot"] == " "


def test_the_cluster_learns_of_a_guest_after_a_while(api: Api, clock: ManualClock) -> None:
    """A new guest has no name and an unknown status in the resources at first."""
    machine(api, clock, "100", name="a")
    (seen,) = api.get("/cluster/resources", type="vm")
    assert (seen["status"], seen.get("name")) == ("unknown", None)
    clock.advance(REAL.broadcast)
    (seen,) = api.get("/cluster/resources", type="vm")
    assert (seen["status"], seen["name"]) == ("stopped", "a")


# faults


@pytest.mark.parametrize(("broken", "made"), [("before", []), ("after", ["g"])])
def test_a_connection_that_breaks(pve: PveSimulator, api: Api, broken: str, made: list[str]) -> None:
    """Before or after the effect: the client cannot tell."""
    pve.fail_request("POST", "^/access/groups", broken=broken)
    with pytest.raises(ConnectionError):
        api.send("POST", "/access/groups", groupid="g")
    api.close()
    assert [group["groupid"] for group in api.get("/access/groups")] == made


def test_another_status(pve: PveSimulator, api: Api) -> None:
    """As often as wanted, for matching requests only, without effect."""
    pve.fail_request("POST", "/groups$", status=599, text="Too many redirections", times=2)
    assert api.send("GET", "/access/groups").status == 200
    for _ in range(2):
        reply = api.send("POST", "/access/groups", groupid="g")
        assert (reply.status, reply.reason) == (599, "Too many redirections")
    api.post("/access/groups", groupid="g")
    pve.fail_request(None, "/version", status=500, text="x", delay=0.01)
    assert api.send("GET", "/version").status == 500
    pve.fail_request(None, "/version", status=500)
    pve.forget_faults()
    assert api.send("GET", "/version").status == 200
    with pytest.raises(ValueError, match="before"):
        pve.fail_request(None, "/", broken="sometimes")


# state


def test_a_snapshot_is_the_whole_world(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """It is JSON; a new simulator goes on from it, with the running task and the same certificates."""
    machine(api, clock, "100")
    upid = api.delete("/nodes/pve1/qemu/100")
    state = json.loads(json.dumps(pve.snapshot()))
    text = json.dumps(state)
    assert "secret123" not in text
    assert "lowlowlow" not in text
    pve.stop()
    with PveSimulator(state, clock=clock, pace=REAL) as again:
        assert again.fingerprints == pve.fingerprints
        assert again.urls == pve.urls
        there = root_of_cluster(again.url)
        there.headers = api.headers
        assert there.get(f"/nodes/pve1/tasks/{upid}/status")["status"] == "running"
        assert finish(there, clock, upid)["exitstatus"] == "OK"
        assert there.get("/nodes/pve1/qemu") == []


def test_restore_needs_the_same_nodes(pve: PveSimulator) -> None:
    """A state of another cluster is no state of this one."""
    with pytest.raises(ValueError, match="other nodes"):
        pve.restore({"nodes": {"elsewhere": node(1)}})


def test_restore(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """Back to a snapshot, on the same ports; tickets stay good."""
    before = pve.snapshot()
    machine(api, clock, "100")
    pve.restore(before)
    assert api.get("/nodes/pve1/qemu") == []
    with pve.edit() as state:
        state["groups"]["behind"] = {"users": []}
    assert [group["groupid"] for group in api.get("/access/groups")] == ["behind"]


# rights


def test_tickets_end(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """After two hours a ticket is no longer good."""
    clock.advance(7100)
    assert api.send("GET", "/version").status == 200
    clock.advance(200)
    assert api.send("GET", "/version").reason == "Authentication failed!"


def test_passwords(pve: PveSimulator, api: Api) -> None:
    """root changes anybody's, others their own with the old one; tokens may not."""
    api.put("/access/password", userid="low@pve", password="new-password")
    low = Api(pve.url).login("PVEAuthCookie", "low@pve", "new-password")
    assert low.send("PUT", "/access/password", userid="low@pve", password="newer-password").status == 401
    fields = {"userid": "low@pve", "password": "newer-password", "confirmation-password": "new-password"}
    assert low.form("PUT", "/access/password", fields).status == 200
    assert Api(pve.url).send("POST", "/access/ticket", username="low@pve", password="new-password").status == 401
    reply = low.form("PUT", "/access/password", {**fields, "userid": "root@pam"})
    assert reply.reason == "Permission check failed (/access/realm/pam, Realm.AllocateUser)"
    by_token = token(pve, "root@pam!ci", separated=False)
    assert "need proper ticket" in by_token.form("PUT", "/access/password", fields).reason


def token(pve: PveSimulator, name: str, *, separated: bool) -> Api:
    secret = pve.mint_token(name, separated=separated)
    return Api(pve.url, {"Authorization": f"PVEAPIToken={name}={secret}"})


def test_a_weak_token_sees_empty_lists(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """Not an error: no guest, no storage, no job; what it may is told by /access/permissions."""
    machine(api, clock, "100")
    weak = token(pve, "low@pve!weak", separated=True)
    for path in (
        "/storage",
        "/cluster/replication",
        "/nodes/pve1/qemu",
        "/nodes/pve1/storage",
        "/pools",
        "/access/acl",
    ):
        assert weak.get(path) == [], path
    assert weak.get("/access/permissions") == {}
    api.put("/access/acl", path="/", users="low@pve", roles="PVEAuditor")
    assert weak.get("/nodes/pve1/qemu") == []
    api.put("/access/acl", path="/vms", tokens="low@pve!weak", roles="PVEVMAdmin")
    assert [guest["vmid"] for guest in weak.get("/nodes/pve1/qemu")] == [100]
    assert weak.get("/access/permissions")["/vms"] == {"VM.Audit": 1, "VM.GuestAgent.Audit": 1}
    assert weak.send("PUT", "/nodes/pve1/qemu/100/config", memory="512").status == 403
    assert weak.get("/storage") == []


def test_the_nearest_entry_counts(pve: PveSimulator, api: Api) -> None:
    """An entry further down replaces those above; NoAccess takes all; a user's own entry replaces its groups'."""
    low = token(pve, "low@pve!full", separated=False)
    api.post("/access/groups", groupid="g")
    api.put("/access/users/low@pve", groups="g")
    api.put("/access/acl", path="/", groups="g", roles="PVEAuditor")
    assert "Datastore.Audit" in low.get("/access/permissions", path="/storage/a")["/storage/a"]
    api.put("/access/acl", path="/storage", users="low@pve", roles="PVEDatastoreUser")
    assert set(low.get("/access/permissions", path="/storage/a")["/storage/a"]) == {
        "Datastore.Audit",
        "Datastore.AllocateSpace",
    }
    api.put("/access/acl", path="/storage/a", groups="g", roles="NoAccess")
    assert low.get("/access/permissions", path="/storage/a") == {"/storage/a": {}}
    assert "VM.Audit" in low.get("/access/permissions", path="/vms/1")["/vms/1"]


def test_rights_through_a_pool(pve: PveSimulator, api: Api, clock: ManualClock) -> None:
    """Who has rights on a pool has them on its guests."""
    machine(api, clock, "100")
    low = token(pve, "low@pve!full", separated=False)
    api.post("/pools", poolid="prod")
    api.put("/access/acl", path="/pool/prod", users="low@pve", roles="PVEVMUser")
    assert low.get("/nodes/pve1/qemu") == []
    api.put("/pools", poolid="prod", vms="100")
    assert [guest["vmid"] for guest in low.get("/nodes/pve1/qemu")] == [100]
    assert api.send("DELETE", "/pools", poolid="prod").reason.endswith("(contains VM 100)")
    finish(api, clock, api.delete("/nodes/pve1/qemu/100"))
    api.delete("/pools", poolid="prod")


# storages


def test_a_storage_on_a_simulated_backup_server(clock: ManualClock) -> None:
    """The cluster logs in at the backup server: its fingerprint, its users, its datastores count."""
    with PbsSimulator(clock=clock) as pbs, PveSimulator(clock=clock, backup_servers={"pbs1": pbs}) as pve:
        api, there = root_of_cluster(pve.url), root_of_server(pbs.url)
        there.post("/access/users", userid="sync@pbs", password="password")
        there.post("/config/datastore", name="main", path="/srv/main")
        clock.advance(1)
        wanted = {"storage": "bk", "type": "pbs", "server": "pbs1", "datastore": "main", "username": "sync@pbs"}
        wanted |= {"password": "password", "fingerprint": pbs.fingerprint}
        reply = api.form("POST", "/storage", {**wanted, "password": "wrong"})
        assert reply.reason.endswith("bk: error fetching datastores - 401 Unauthorized")
        other = ":".join(["00"] * 32)
        assert "not verified" in api.form("POST", "/storage", {**wanted, "fingerprint": other}).reason
        assert "Cannot find datastore 'main'" in api.form("POST", "/storage", wanted).reason
        there.form("PUT", "/access/acl", {"path": "/datastore/main", "role": "DatastoreBackup", "auth-id": "sync@pbs"})
        assert api.form("POST", "/storage", wanted).data == {"storage": "bk", "type": "pbs", "config": {}}
        assert api.get("/nodes/pve1/storage/bk/status")["active"] == 1
        there.put("/access/users/sync@pbs", password="another1")
        assert api.get("/nodes/pve1/storage/bk/status")["active"] == 0
        assert api.form("POST", "/storage", {**wanted, "storage": "cc", "server": "pbs2"}).reason.endswith("refused)")
        assert "password" not in json.dumps(api.get("/storage/bk"))


def test_a_trusting_cluster_reaches_everything() -> None:
    """For rehearsals: servers that are not simulated are taken to be there."""
    with PveSimulator({"trusting": True}) as pve:
        api = root_of_cluster(pve.url)
        api.post("/storage", storage="nfs", type="nfs", server="nas", export="/x", content="iso")
        api.post("/storage", storage="bk", type="pbs", server="s", datastore="d", username="u@pbs")
        assert api.get("/nodes/pve1/storage/bk/status")["active"] == 1
        assert api.form("POST", "/storage", {"storage": "zz", "type": "zfspool", "pool": "nope"}).status == 500


def test_options_of_each_storage_type(api: Api) -> None:
    """Every type takes what it needs while disabled, refuses the others' options, and does not change what is fixed."""
    needed = {
        "btrfs": {"path": "/b"},
        "cephfs": {},
        "cifs": {"server": "nas", "share": "s", "username": "u", "password": "p"},
        "dir": {"path": "/d"},
        "esxi": {"server": "e", "username": "root", "password": "p"},
        "iscsi": {"portal": "10.0.0.1", "target": "iqn.2020-01.x:y"},
        "iscsidirect": {"portal": "10.0.0.1", "target": "iqn.2020-01.x:y"},
        "lvm": {"vgname": "vg0"},
        "lvmthin": {"vgname": "vg0", "thinpool": "data"},
        "nfs": {"server": "nas", "export": "/e"},
        "pbs": {"server": "p", "datastore": "store"},
        "rbd": {"monhost": "10.0.0.1", "pool": "rbd"},
        "zfs": {"portal": "10.0.0.1", "target": "t", "pool": "p", "iscsiprovider": "LIO", "blocksize": "4k"},
        "zfspool": {"pool": "tank/vm"},
    }
    for kind, options in needed.items():
        name = f"s-{kind}"
        reply = api.form("POST", "/storage", {"storage": name, "type": kind, "disable": "1", **options})
        assert reply.status == 200, (kind, reply.text)
        read = api.get(f"/storage/{name}")
        assert {key: read.get(key) for key in options if key != "password"} == {
            key: value for key, value in options.items() if key != "password"
        }
        assert "password" not in read
        foreign = "krbd" if kind != "rbd" else "sparse"
        reply = api.form("PUT", f"/storage/{name}", {foreign: "1"})
        assert reply.reason == f"update storage failed: unexpected property '{foreign}'"
    reply = api.form("PUT", "/storage/s-nfs", {"server": "other"})
    assert reply.reason == "update storage failed: can't change value of fixed parameter 'server'"


def test_a_digest_covers_all_storages(api: Api) -> None:
    """A change to one invalidates the digest held for another, even one that changes nothing."""
    for name in ("a1", "b1"):
        api.post("/storage", storage=name, type="dir", path=f"/{name}")
    held = api.get("/storage/a1")["digest"]
    api.put("/storage/b1", content="iso")
    reply = api.send("PUT", "/storage/a1", content="iso", digest=held)
    assert reply.reason.endswith("detected modified configuration - file changed by other user? Try again.")
    api.put("/storage/a1", content="iso", digest=api.get("/storage/a1")["digest"])


def test_pools_of_a_node(api: Api, clock: ManualClock) -> None:
    """A ZFS pool is made and destroyed by tasks, with its storage."""
    upid = api.send("POST", "/nodes/pve2/disks/zfs", name="fast", devices="/dev/sdb", raidlevel="single").data
    assert finish(api, clock, upid)["exitstatus"] == "OK"
    assert "fast" in {entry["name"] for entry in api.get("/nodes/pve2/disks/zfs")}
    api.post("/storage", storage="fast", type="zfspool", pool="fast", nodes="pve2")
    assert finish(api, clock, api.form("DELETE", "/nodes/pve2/disks/zfs/fast", {"cleanup-config": "1"}).data)
    assert api.send("GET", "/storage/fast").status == 500


# guests


def test_containers(api: Api, clock: ManualClock) -> None:
    """Created by a task, with a digest, changed at once, destroyed by a task."""
    api.post("/storage", storage="vm", type="zfspool", pool="tank/vm")
    given = {
        "vmid": "200",
        "ostemplate": "local:vztmpl/debian.tar.zst",
        "hostname": "ct",
        "rootfs": "vm:8",
        "memory": "1024",
    }
    given |= {"net0": "name=eth0,bridge=vmbr0,ip=dhcp", "unprivileged": "1"}
    upid = api.form("POST", "/nodes/pve1/lxc", given).data
    assert ":vzcreate:200:" in upid
    assert finish(api, clock, upid)["exitstatus"] == "OK"
    config = api.get("/nodes/pve1/lxc/200/config")
    assert config["rootfs"] == "vm:subvol-200-disk-0,size=8G"
    assert (config["memory"], config["hostname"], config["unprivileged"]) == (1024, "ct", 1)
    assert re.fullmatch(r"name=eth0,bridge=vmbr0,hwaddr=BC:24:11:[0-9A-F:]{8},ip=dhcp,type=veth", config["net0"])
    api.put("/nodes/pve1/lxc/200/config", memory="2048", digest=config["digest"])
    reply = api.send("PUT", "/nodes/pve1/lxc/200/config", memory="512", digest=config["digest"])
    assert reply.reason == "checksum mismatch (file change by other user?)"
    assert api.send("GET", "/nodes/pve1/qemu/200/config").status == 500
    assert [guest["name"] for guest in api.get("/nodes/pve1/lxc")] == ["ct"]
    finish(api, clock, api.delete("/nodes/pve1/lxc/200"))
    assert api.get("/nodes/pve1/lxc") == []


def test_starting_and_stopping(api: Api, clock: ManualClock) -> None:
    """A running machine cannot be destroyed nor started again."""
    machine(api, clock, "100")
    finish(api, clock, api.post("/nodes/pve1/qemu/100/status/start"))
    assert api.get("/nodes/pve1/qemu/100/status/current")["status"] == "running"
    assert api.send("POST", "/nodes/pve1/qemu/100/status/start").reason == "VM 100 already running"
    assert api.send("DELETE", "/nodes/pve1/qemu/100").reason == "VM 100 is running - destroy failed"
    assert api.send("POST", "/nodes/pve1/qemu/100/migrate", target="pve2").status == 400
    finish(api, clock, api.post("/nodes/pve1/qemu/100/status/stop"))
    finish(api, clock, api.delete("/nodes/pve1/qemu/100"))


def test_rights_of_a_guest_go_with_it(api: Api, clock: ManualClock) -> None:
    """Destroying a guest takes its entries in the ACL along."""
    machine(api, clock, "100")
    api.put("/access/acl", path="/vms/100", users="low@pve", roles="PVEVMUser")
    finish(api, clock, api.delete("/nodes/pve1/qemu/100"))
    assert api.get("/access/acl") == []
