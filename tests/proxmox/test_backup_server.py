"""The simulated Proxmox Backup Server: errors as plain text, digests everywhere, datastores as tasks, jobs, rights.

None of this was recorded from a real server; the expectations are those of its documentation and schemas.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.lab.proxmox import REAL, ManualClock, PbsSimulator
from reconciler.lab.proxmox.pbs.api import METHODS
from tests.proxmox.client import Api, root_of_server

MODIFIED = "detected modified configuration - file changed by other user? Try again."
WRONG = "0" * 64


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pbs(clock: ManualClock) -> Iterator[PbsSimulator]:
    with PbsSimulator(clock=clock, pace=REAL) as simulator:
        yield simulator


@pytest.fixture
def api(pbs: PbsSimulator) -> Iterator[Api]:
    client = root_of_server(pbs.url)
    yield client
    client.close()


def finish(api: Api, clock: ManualClock, upid: str) -> str:
    """How a task ends."""
    running = api.get(f"/nodes/localhost/tasks/{upid}/status")
    assert running["status"] == "running"
    clock.advance(REAL.task)
    status: dict[str, Any] = api.get(f"/nodes/localhost/tasks/{upid}/status")
    assert status["status"] == "stopped"
    return str(status["exitstatus"])


def datastore(api: Api, clock: ManualClock, name: str = "main", **options: Any) -> None:
    """A new datastore."""
    upid = api.post("/config/datastore", name=name, path=f"/srv/{name}", **options)
    assert finish(api, clock, upid) == "OK"


def refused(api: Api, verb: str, path: str, status: int, text: str, /, **parameters: Any) -> None:
    """The request is refused with this text as the whole body."""
    reply = api.send(verb, path, **parameters)
    assert (reply.status, reply.text) == (status, text)


# who asks


def test_login(pbs: PbsSimulator, api: Api) -> None:
    """A ticket in the cookie, a CSRF token for writes; both are needed, neither lasts."""
    assert api.get("/version")["version"]
    nobody = Api(pbs.url)
    assert nobody.send("GET", "/version").status == 401
    assert nobody.send("GET", "/version").text.startswith("authentication failed")
    assert nobody.send("POST", "/access/ticket", username="root@pam", password="wrong").status == 401
    assert nobody.send("GET", "/access/domains").status == 200
    without = Api(pbs.url, {"Cookie": api.headers["Cookie"]})
    assert without.send("GET", "/access/users").status == 200
    assert without.send("POST", "/access/users", userid="a@pbs").status == 401
    other = Api(pbs.url, {"Cookie": api.headers["Cookie"].replace("PBSAuthCookie", "__Host-PBSAuthCookie")})
    assert other.send("GET", "/access/users").status == 200


def test_tickets_end(api: Api, clock: ManualClock) -> None:
    """After two hours."""
    clock.advance(7300)
    assert api.send("GET", "/version").status == 401


def test_a_token_can_do_what_both_may(pbs: PbsSimulator, api: Api) -> None:
    """Its own rights and its user's, at once; the secret stands behind a colon."""
    api.post("/access/users", userid="ops@pbs", password="password")
    made = api.post("/access/users/ops@pbs/token/ci")
    assert made["tokenid"] == "ops@pbs!ci"
    ci = Api(pbs.url, {"Authorization": f"PBSAPIToken={made['tokenid']}:{made['value']}"})
    equals = Api(pbs.url, {"Authorization": f"PBSAPIToken={made['tokenid']}={made['value']}"})
    assert equals.send("GET", "/version").status == 401
    assert ci.get("/access/permissions") == {}
    assert ci.get("/access/users") == [{"userid": "ops@pbs"}]
    assert ci.get("/config/datastore") == []
    assert ci.send("POST", "/config/datastore", name="abc", path="/x").text == "permission check failed"
    api.put("/access/acl", path="/datastore", role="DatastoreAudit", auth_id="ops@pbs!ci")
    assert ci.get("/access/permissions") == {}
    api.put("/access/acl", path="/", role="DatastoreAdmin", auth_id="ops@pbs", propagate="0")
    assert ci.get("/access/permissions") == {}
    api.put("/access/acl", path="/", role="DatastoreAdmin", auth_id="ops@pbs")
    assert ci.get("/access/permissions") == {"/datastore": {"Datastore.Audit": True}}
    secret = api.put("/access/users/ops@pbs/token/ci", regenerate="true")["secret"]
    assert ci.send("GET", "/version").status == 401
    ci.headers["Authorization"] = f"PBSAPIToken=ops@pbs!ci:{secret}"
    api.put("/access/users/ops@pbs", enable="false")
    assert ci.send("GET", "/version").status == 401


def test_minted_tokens(pbs: PbsSimulator) -> None:
    """For tests and the demo: a token with rights, in one step."""
    secret = pbs.mint_token("root@pam!ci")
    assert Api(pbs.url, {"Authorization": f"PBSAPIToken=root@pam!ci:{secret}"}).get("/config/remote") == []
    weak = pbs.mint_token("root@pam!weak", roles={"/datastore": "DatastoreAudit"})
    there = Api(pbs.url, {"Authorization": f"PBSAPIToken=root@pam!weak:{weak}"})
    assert there.send("POST", "/config/remote", name="abc", host="h", auth_id="a@pbs", password="p").status == 403


# parameters


def test_parameters(api: Api) -> None:
    """One wrong parameter in one line, several as a list; values may be JSON; unknown paths are a 404."""
    failed = "parameter verification failed"
    refused(
        api, "POST", "/access/users", 400, f"{failed} - 'userid': value does not match the regex pattern", userid="x y"
    )
    reply = api.send("POST", "/config/prune", id="ab", store="main", keep_last="0", nosuch="1")
    assert reply.text == (
        f"{failed}:\n"
        "- 'id': value must be at least 3 characters long\n"
        "- 'keep-last': value must have a minimum value of 1 (got 0)\n"
        "- 'nosuch': schema does not allow additional properties\n"
        "- 'schedule': parameter is missing and it is not optional."
    )
    reply = api.send("POST", "/config/prune", id="abc", store="main", schedule="25:99", disable="perhaps")
    assert "unable to parse calendar event" in reply.text
    assert "'disable': Unable to parse boolean option." in reply.text
    body = json.dumps({"id": "abc", "store": "main", "schedule": "daily", "keep-last": 3, "disable": False, "ns": None})
    assert api.ask("POST", "/config/prune", body.encode(), **{"Content-Type": "application/json"}).status == 200
    assert api.get("/config/prune") == [{"id": "abc", "store": "main", "schedule": "daily", "keep-last": 3}]
    assert api.send("GET", "/nosuch").status == 404
    assert api.ask("POST", "/config/prune", b"{", **{"Content-Type": "application/json"}).status == 400


@pytest.mark.parametrize("word", ["1", "true", "yes", "on", "TRUE"])
def test_words_for_true(api: Api, word: str) -> None:
    """Many in requests, JSON's in answers."""
    api.post("/config/prune", id="abc", store="main", schedule="daily", disable=word)
    assert api.get("/config/prune/abc")["disable"] is True


# users and rights


def test_users(api: Api) -> None:
    """With a digest beside the data; `delete` is a repeated key."""
    api.post("/access/users", userid="a@pbs", comment="c", email="a@b.example", firstname="Al", password="password")
    refused(api, "POST", "/access/users", 400, "user 'a@pbs' already exists.", userid="a@pbs")
    whole = api.send("GET", "/access/users/a@pbs").whole
    assert whole["data"] == {"userid": "a@pbs", "comment": "c", "email": "a@b.example", "firstname": "Al"}
    refused(api, "PUT", "/access/users/a@pbs", 400, MODIFIED, comment="d", digest=WRONG)
    api.put("/access/users/a@pbs", delete=["comment", "email"], digest=whole["digest"])
    assert api.get("/access/users/a@pbs") == {"userid": "a@pbs", "firstname": "Al"}
    assert api.send("GET", "/access/users").whole["digest"] != whole["digest"]
    assert api.send("PUT", "/access/users/a@pbs", delete="userid").status == 400
    refused(api, "GET", "/access/users/b@pbs", 400, "no such user 'b@pbs'")
    refused(api, "DELETE", "/access/users/b@pbs", 400, "user 'b@pbs' does not exist.")
    api.post("/access/users/a@pbs/token/one", comment="t")
    with_tokens = api.form("GET", "/access/users", {"include_tokens": "1"}).data
    assert with_tokens[0]["tokens"] == [{"tokenid": "a@pbs!one", "comment": "t"}]
    assert api.get("/access/users/a@pbs/token/one") == {"tokenid": "a@pbs!one", "comment": "t"}
    assert api.send("POST", "/access/users/a@pbs/token/one").status == 400
    api.delete("/access/users/a@pbs/token/one")
    assert api.get("/access/users/a@pbs/token") == []
    api.delete("/access/users/a@pbs")
    assert [user["userid"] for user in api.get("/access/users")] == ["root@pam"]


def test_acl(api: Api) -> None:
    """One entry per call; checks when adding, none when deleting."""
    api.post("/access/users", userid="a@pbs")
    entry = {"path": "/datastore/main", "role": "DatastoreBackup", "auth_id": "a@pbs"}
    api.put("/access/acl", **entry)
    read = {
        "path": "/datastore/main",
        "roleid": "DatastoreBackup",
        "ugid": "a@pbs",
        "ugid_type": "user",
        "propagate": True,
    }
    assert api.get("/access/acl") == [read]
    api.put("/access/acl", **entry, propagate="0")
    assert api.get("/access/acl") == [{**read, "propagate": False}]
    assert api.get("/access/acl", path="/datastore") == [{**read, "propagate": False}]
    assert api.get("/access/acl", path="/datastore", exact="1") == []
    refused(api, "PUT", "/access/acl", 400, "no such user.", **{**entry, "auth_id": "b@pbs"})
    refused(api, "PUT", "/access/acl", 400, "no such API token.", **{**entry, "auth_id": "a@pbs!x"})
    refused(api, "PUT", "/access/acl", 400, "invalid ACL path '/bogus'", **{**entry, "path": "/bogus"})
    text = "parameter 'group' - groups are currently not supported."
    refused(api, "PUT", "/access/acl", 400, text, path="/", role="Admin", group="ops")
    refused(api, "PUT", "/access/acl", 400, MODIFIED, **entry, digest=WRONG)
    assert "is not defined in the enumeration" in api.send("PUT", "/access/acl", **{**entry, "role": "King"}).text
    api.put("/access/acl", **{**entry, "path": "/bogus", "auth_id": "b@pbs"}, delete="1")
    api.delete("/access/users/a@pbs")
    assert len(api.get("/access/acl")) == 1
    api.put("/access/acl", **entry, delete="1")
    assert api.get("/access/acl") == []


# datastores


def test_a_datastore(api: Api, clock: ManualClock) -> None:
    """Made, changed, deleted; making and deleting are tasks; its jobs and rights go with it."""
    datastore(api, clock, comment="c", gc_schedule="daily")
    whole = api.send("GET", "/config/datastore/main").whole
    assert whole["data"] == {"name": "main", "path": "/srv/main", "comment": "c", "gc-schedule": "daily"}
    text = "parameter verification failed - 'name': datastore 'main' already exists."
    refused(api, "POST", "/config/datastore", 400, text, name="main", path="/srv/other")
    assert api.send("POST", "/config/datastore", name="inner", path="/srv/main/x").status == 400
    text = "parameter verification failed - 'keep-last': datastore prune settings have been replaced by prune jobs"
    refused(api, "PUT", "/config/datastore/main", 400, text, keep_last="3")
    refused(api, "PUT", "/config/datastore/main", 400, MODIFIED, comment="d", digest=WRONG)
    api.put("/config/datastore/main", verify_new="1", delete=["comment", "gc-schedule"], digest=whole["digest"])
    assert api.get("/config/datastore") == [{"name": "main", "path": "/srv/main", "verify-new": True}]
    assert api.get("/admin/datastore")[0]["store"] == "main"
    api.post("/access/users", userid="a@pbs")
    api.put("/access/acl", path="/datastore/main", role="DatastoreBackup", auth_id="a@pbs")
    api.post("/config/prune", id="daily", store="main", schedule="daily", keep_last="3")
    refused(api, "DELETE", "/config/datastore/nope", 404, "datastore 'nope' does not exist.")
    refused(api, "GET", "/config/datastore/nope", 400, "no such datastore 'nope'")
    assert finish(api, clock, api.delete("/config/datastore/main")) == "OK"
    assert api.get("/config/datastore") == api.get("/config/prune") == api.get("/access/acl") == []


def test_jobs_can_be_kept(api: Api, clock: ManualClock) -> None:
    """With keep-job-configs jobs and rights survive their datastore."""
    datastore(api, clock)
    api.post("/config/verify", id="weekly", store="main", schedule="weekly")
    finish(api, clock, api.delete("/config/datastore/main", keep_job_configs="1"))
    assert len(api.get("/config/verify")) == 1


def test_data_outlives_the_datastore(api: Api, clock: ManualClock) -> None:
    """Its folder stays unless it is destroyed too; making it again needs reuse-datastore."""
    datastore(api, clock)
    finish(api, clock, api.delete("/config/datastore/main"))
    upid = api.post("/config/datastore", name="main", path="/srv/main")
    assert finish(api, clock, upid) == "datastore path not empty"
    assert api.get("/config/datastore") == []
    datastore(api, clock, reuse_datastore="1")
    finish(api, clock, api.delete("/config/datastore/main", destroy_data="1"))
    datastore(api, clock)


def test_retention_given_with_a_datastore_becomes_a_job(api: Api, clock: ManualClock) -> None:
    """Its name begins with default- and is cut at 32 characters."""
    datastore(api, clock, prune_schedule="daily", keep_last="3")
    (job,) = api.get("/config/prune")
    assert job["id"].startswith("default-main-")
    assert len(job["id"]) == 32
    assert (job["store"], job["schedule"], job["keep-last"]) == ("main", "daily", 3)
    assert "keep-last" not in api.get("/config/datastore/main")


def test_a_task_that_is_made_to_fail(pbs: PbsSimulator, api: Api, clock: ManualClock) -> None:
    """It ends with the text; its log, with the time before each line, says so; nothing was made."""
    pbs.fail_task("create-datastore", "disk is full")
    upid = api.post("/config/datastore", name="main", path="/srv/main")
    assert finish(api, clock, upid) == "disk is full"
    (line,) = api.get(f"/nodes/pbs/tasks/{upid}/log")
    assert line["t"].endswith(": TASK ERROR: disk is full")
    assert api.get("/config/datastore") == []
    (listed,) = api.get("/nodes/pbs/tasks", errors="1")
    assert (listed["worker_type"], listed["worker_id"], listed["status"]) == (
        "create-datastore",
        "main",
        "disk is full",
    )


def test_namespaces(api: Api, clock: ManualClock) -> None:
    """The parent must exist; the root is the empty one; deleting takes those below along."""
    datastore(api, clock)
    assert api.get("/admin/datastore/main/namespace") == [{"ns": ""}]
    assert api.send("POST", "/admin/datastore/main/namespace", name="b", parent="a").status == 400
    assert api.post("/admin/datastore/main/namespace", name="a") == "a"
    assert api.post("/admin/datastore/main/namespace", name="b", parent="a") == "a/b"
    assert [entry["ns"] for entry in api.get("/admin/datastore/main/namespace")] == ["", "a", "a/b"]
    assert [entry["ns"] for entry in api.get("/admin/datastore/main/namespace", max_depth="1")] == ["", "a"]
    api.delete("/admin/datastore/main/namespace", ns="a")
    assert api.get("/admin/datastore/main/namespace") == [{"ns": ""}]


# jobs


JOBS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "prune": ({"schedule": "daily", "keep-last": 3, "ns": "a/b", "comment": "c"}, {"keep-last": 5}),
    "verify": (
        {"schedule": "weekly", "ignore-verified": True, "outdated-after": 30, "comment": "c"},
        {"outdated-after": 7},
    ),
    "sync": (
        {"remote": "other", "remote-store": "far", "schedule": "hourly", "owner": "a@pbs", "comment": "c"},
        {"remote-store": "farther"},
    ),
}


@pytest.mark.parametrize("kind", JOBS)
def test_jobs(api: Api, clock: ManualClock, kind: str) -> None:
    """The same for each kind: create, read, change with a digest, unset, run, delete."""
    fields, change = JOBS[kind]
    path = f"/config/{kind}"
    sent = {"id": "nightly", "store": "main", **fields}
    assert api.form("POST", path, sent).status == 200
    text = "parameter verification failed - 'id': job 'nightly' already exists."
    assert api.form("POST", path, sent).text == text
    whole = api.form("GET", f"{path}/nightly", {}).whole
    assert whole["data"] == sent
    assert api.send("GET", path).whole == {"data": [sent], "digest": whole["digest"]}
    assert api.form("PUT", f"{path}/nightly", {**change, "digest": WRONG}).text == MODIFIED
    assert (
        api.form("PUT", f"{path}/nightly", {**change, "digest": whole["digest"], "delete": ["comment"]}).status == 200
    )
    expected = {**sent, **change}
    del expected["comment"]
    assert api.get(f"{path}/nightly") == expected
    (state,) = api.get(f"/admin/{kind}")
    assert state["next-run"] > clock()
    assert "last-run-state" not in state
    assert finish(api, clock, api.post(f"/admin/{kind}/nightly/run")) == "OK"
    assert api.get(f"/admin/{kind}")[0]["last-run-state"] == "OK"
    assert api.form("PUT", f"{path}/nope", change).status == 400
    refused(api, "DELETE", f"{path}/nope", 404, "job 'nope' does not exist.")
    refused(api, "DELETE", f"{path}/nightly", 400, MODIFIED, digest=WRONG)
    api.delete(f"{path}/nightly")
    assert api.get(path) == []


def test_sync_jobs_by_direction(api: Api) -> None:
    """The list shows pull jobs unless it is asked for others; a push needs a remote."""
    api.post("/config/sync", id="pull", store="main", remote="other", remote_store="far")
    api.post("/config/sync", id="push", store="main", remote="other", remote_store="far", sync_direction="push")
    assert [job["id"] for job in api.get("/config/sync")] == ["pull"]
    assert [job["id"] for job in api.get("/config/sync", sync_direction="push")] == ["push"]
    assert len(api.get("/config/sync", sync_direction="all")) == 2
    assert api.send("POST", "/config/sync", id="bad", store="s1x", remote_store="s1x").status == 400
    assert (
        api.send("POST", "/config/sync", id="bad", store="s1x", remote_store="s2x", sync_direction="push").status == 400
    )


def test_jobs_are_filtered_by_their_datastore(pbs: PbsSimulator, api: Api) -> None:
    """Who may see one datastore sees its jobs, and may change only what the role allows."""
    api.post("/access/users", userid="a@pbs", password="password")
    for store in ("one", "two"):
        api.post("/config/prune", id=f"job-{store}", store=store, schedule="daily")
    api.put("/access/acl", path="/datastore/one", role="DatastoreAudit", auth_id="a@pbs")
    low = Api(pbs.url).login("PBSAuthCookie", "a@pbs", "password")
    assert [job["id"] for job in low.get("/config/prune")] == ["job-one"]
    refused(low, "PUT", "/config/prune/job-one", 403, "permission check failed", keep_last="1")
    refused(low, "GET", "/config/prune/job-two", 403, "permission check failed")
    refused(low, "POST", "/access/users", 403, "permission check failed", userid="x@pbs")
    assert [user["userid"] for user in low.get("/access/users")] == ["a@pbs"]


# remotes, disks, certificate


def test_remotes(api: Api) -> None:
    """The password is never shown; one that a job needs stays."""
    fine = {"name": "other", "host": "pbs2.example", "auth_id": "sync@pbs", "password": "canary"}
    api.post("/config/remote", **fine, fingerprint=":".join(["ab"] * 32))
    text = "parameter verification failed - 'name': remote 'other' already exists."
    refused(api, "POST", "/config/remote", 400, text, **fine)
    whole = api.send("GET", "/config/remote/other")
    assert "canary" not in whole.text
    assert whole.data["auth-id"] == "sync@pbs"
    api.put("/config/remote/other", port="8008", delete="fingerprint", digest=whole.whole["digest"])
    refused(api, "PUT", "/config/remote/other", 400, MODIFIED, port="1", digest=WRONG)
    expected = {"name": "other", "host": "pbs2.example", "auth-id": "sync@pbs", "port": 8008}
    assert api.get("/config/remote") == [expected]
    api.post("/config/sync", id="pull", store="main", remote="other", remote_store="far")
    assert "is used by sync job 'pull'" in api.send("DELETE", "/config/remote/other").text
    api.delete("/config/sync/pull")
    api.delete("/config/remote/other")
    refused(api, "DELETE", "/config/remote/other", 404, "remote 'other' does not exist.")
    bad = {**fine, "host": "not a host"}
    assert "'host': value does not match the regex pattern" in api.send("POST", "/config/remote", **bad).text


def test_a_pool_with_a_datastore(api: Api, clock: ManualClock) -> None:
    """One task makes both; disks are used once, and there must be enough."""
    wanted = {"name": "tank", "raidlevel": "mirror", "devices": "sdb,sdc", "add_datastore": "1"}
    refused(api, "POST", "/nodes/pbs/disks/zfs", 400, "mirror needs at least 2 disks.", **{**wanted, "devices": "sdb"})
    assert finish(api, clock, api.post("/nodes/pbs/disks/zfs", **wanted)) == "OK"
    assert {pool["name"] for pool in api.get("/nodes/pbs/disks/zfs")} == {"rpool", "tank"}
    assert api.get("/config/datastore/tank")["path"] == "/mnt/datastore/tank"
    text = "disk 'sdc' is already in use."
    refused(api, "POST", "/nodes/pbs/disks/zfs", 400, text, **{**wanted, "name": "more", "devices": "sdc,sdd"})
    assert api.send("POST", "/nodes/pbs/disks/zfs", **{**wanted, "devices": "sdd,../x"}).status == 400
    assert api.send("GET", "/nodes/elsewhere/disks/zfs").status == 400


def test_the_certificate(pbs: PbsSimulator, api: Api) -> None:
    """The API tells the fingerprint of the certificate that it shows."""
    (shown,) = api.get("/nodes/localhost/certificates/info")
    assert shown["fingerprint"].upper() == pbs.fingerprint == Api(pbs.url).fingerprint()
    assert shown["pem"] == next(iter(pbs.certificates.values()))
    assert Api(pbs.url, ca=shown["pem"]).send("GET", "/access/domains").status == 200


# state


def test_a_snapshot_is_the_whole_server(pbs: PbsSimulator, api: Api, clock: ManualClock) -> None:
    """JSON without secrets in clear text; a new simulator goes on from it, running tasks included."""
    api.post("/access/users", userid="a@pbs", password="canary-canary")
    upid = api.post("/config/datastore", name="main", path="/srv/main")
    text = json.dumps(pbs.snapshot())
    assert "canary" not in text
    pbs.stop()
    with PbsSimulator(json.loads(text), clock=clock, pace=REAL) as again:
        assert (again.url, again.fingerprint) == (pbs.url, pbs.fingerprint)
        there = root_of_server(again.url)
        assert finish(there, clock, upid) == "OK"
        before = again.snapshot()
        there.delete("/access/users/a@pbs")
        again.restore(before)
        assert len(there.get("/access/users")) == 2


def test_every_method_refuses_an_unknown_parameter(api: Api, clock: ManualClock) -> None:
    """Whatever the method, but for the one that takes anything."""
    datastore(api, clock)
    names = {"node": "pbs", "store": "main", "name": "main", "id": "abc", "userid": "root@pam", "token-name": "abc"}
    names["upid"] = "UPID:pbs:00001000:000ABC00:00000001:60000000:type:id:root@pam:"
    asked = 0
    for line in METHODS.splitlines():
        if not line or line.startswith(" ") or "; open" in line:
            continue
        verb, path = line.split(" : ")[0].split(" ")
        reply = api.form(verb, path.format(**names), {"nosuch": "1"})
        assert reply.status == 400, (verb, path, reply.text)
        assert "'nosuch': schema does not allow additional properties" in reply.text
        asked += 1
    assert asked > 70
