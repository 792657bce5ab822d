"""Addresses, certificates, tasks and lists, as the connection and what stands on it meet them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli.main import run as cli
from reconciler.connections import proxmox
from reconciler.connections.proxmox import Proxmox
from reconciler.model import Outcome
from tests.proxmox.test_clusters import JOB
from tests.proxmox.world import CLUSTER, World, document, world

GROUP = document("ProxmoxGroup", "operators", "cluster: dc01")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def cluster(folder: Path, **settings: str) -> Path:
    """A folder with a cluster and a group."""
    text = CLUSTER
    for name, value in settings.items():
        text = text.replace("[https://pve1.example.org:8006]", value) if name == "endpoints" else text
        text = text if name == "endpoints" else text.replace("{endpoints", f"{{{name}: {value}, endpoints")
    file = folder / "desired" / "all.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text + GROUP)
    return file.parent


@pytest.mark.parametrize(
    "endpoint",
    ["https://h:99999", "https://h:0", "https://h:abc", "https://[::1:8006", "https://[:::::]:1", "https://::1"],
)
def test_what_cannot_be_an_address_is_said_by_validate(
    endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["validate", str(cluster(tmp_path, endpoints=f'["https://[::1]:8006", "{endpoint}"]'))]) == 1
    shown = capsys.readouterr().err
    assert f"{endpoint} is no address" in shown
    assert "https://[::1]:8006 is no address" not in shown


def test_an_address_without_a_port_means_the_one_of_the_service() -> None:
    for service, port in (("PVE", 8006), ("PBS", 8007)):
        settings = {"service": service, "endpoints": ["https://a.example.org/", "https://[::1]", "https://b:443"]}
        found = Proxmox("x", settings, lambda secret: "")._endpoints
        assert found == [f"https://a.example.org:{port}", f"https://[::1]:{port}", "https://b:443"]


@pytest.mark.parametrize(("content", "why"), [(None, "No such file or directory"), ("nothing\n", "it holds no")])
def test_a_ca_that_cannot_be_used_is_said(one: World, content: str | None, why: str) -> None:
    ca = one.folder / "ca.pem"
    if content is not None:
        ca.write_text(content)
    one.write(GROUP)
    one.changed |= {"fingerprint": None, "ca": str(ca)}
    reason = one.plan().unknown["pve.group[dc01:operators]"]
    assert f"the CA {ca} cannot be used: {why}" in reason


def test_a_ca_may_lie_in_the_home(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(one.folder))
    (one.folder / "ca.pem").write_text(one.pve.certificates["pve1"])
    one.write(GROUP)
    one.changed |= {"fingerprint": None, "ca": "~/ca.pem"}
    one.settle()


def test_a_node_that_is_down_hides_only_what_lies_on_it(one: World) -> None:
    """Its replication jobs are unknown; accounts, storages and the rest of the cluster are not."""
    one.write(JOB, GROUP)
    one.settle()
    one.write(JOB, GROUP.replace("cluster: dc01", "cluster: dc01, comment: new"))
    one.pve.fail_request("GET", "^/nodes/pve1/replication", status=595, text="No route to host", times=9)
    made = one.plan()
    assert [c.address for c in made.changes] == ["pve.group[dc01:operators]"]
    assert list(made.unknown) == ["pve.replicationHealth[dc01:100:0]"]
    assert "595 No route to host" in made.unknown["pve.replicationHealth[dc01:100:0]"]


def test_a_write_goes_to_the_next_address_when_the_first_one_is_silent(
    one: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is off answers nothing: the connection was never made, so that nothing was sent."""
    monkeypatch.setattr(proxmox, "CONNECT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        waiting = []
        for _ in range(4):  # a full queue of connections: further ones are not answered
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(silent.getsockname())
        settings = {
            "service": "PVE",
            "endpoints": [f"https://127.0.0.1:{silent.getsockname()[1]}", one.pve.url],
            "user": "root@pam",
            "password": {"secretRef": "env:ROOT"},
            "fingerprint": one.pve.fingerprint,
        }
        connection = Proxmox("dc01", settings, lambda secret: "secret123")
        connection._open()
        connection._endpoints.reverse()
        assert connection._send("POST", "/access/groups", {"groupid": "new"}, writes=True)[0] == 0
        connection.close()
        for one_socket in waiting:
            one_socket.close()
    assert one.writes().count(("POST", "/access/groups")) == 1


def test_a_connection_that_breaks_while_it_is_made_is_no_wrong_certificate(one: World) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{deaf.getsockname()[1]}"
        deaf.listen()
        deaf.settimeout(10)
        one.write(GROUP)
        one.endpoints = [address]

        def hang_up() -> None:
            peer, _ = deaf.accept()
            peer.recv(1)
            peer.sendall(b"HTTP/1.0 400 plain\r\n\r\n")
            peer.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        reason = one.plan().unknown["pve.group[dc01:operators]"]
        thread.join()
    assert "no address answers" in reason
    assert "Pinned" not in reason


def test_a_failed_task_shows_the_end_of_a_long_log(one: World) -> None:
    one.write(document("Datastore", "dc01", "server: backup1, path: /mnt/datastore/dc01"))
    one.pbs.fail_task("create-datastore", "EIO", None, log=tuple(f"line {n}" for n in range(700)))
    (ended,) = one.apply().ended.values()
    assert ended.outcome is Outcome.FAILED
    assert "line 699" in ended.reason
    assert "TASK ERROR: EIO" in ended.reason
    assert "line 690" not in ended.reason


@pytest.mark.parametrize(
    "kind", ["Guest", "ProxmoxAcl", "ProxmoxGroup", "ProxmoxStorage", "ProxmoxToken", "ProxmoxUser", "ReplicationJob"]
)
def test_an_import_by_a_weak_login_is_no_empty_world(
    one: World, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOT", "secret123")
    one.root(("POST", "/access/users", {"userid": "weak@pve", "password": "secret123"}))
    ca = one.folder / "ca.pem"
    ca.write_text(one.pve.certificates["pve1"])
    folder = cluster(one.folder, endpoints=f"[{one.pve.url}]", ca="../ca.pem")
    file = folder / "all.yaml"
    file.write_text(file.read_text().replace("root@pam", "weak@pve"))
    assert cli(["import", str(folder), "--from", "ProxmoxCluster/dc01", "--kind", kind]) == 1
    shown = capsys.readouterr()
    assert "the login may not see" in shown.err
    assert shown.out == ""
