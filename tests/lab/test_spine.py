"""The main job on real hosts: plan, apply, drift and repair, and everything that may go wrong on the way.

Runs of the tool that are killed, interrupted or locked out are processes of their own; the others are the same command
line, called in this process, because a hundred starts of Python would cost more than all that they prove.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler import journal
from reconciler.cli.main import run as command_line
from reconciler.connections import Pool
from reconciler.expand import Catalog
from reconciler.fields import HostSelector
from reconciler.model import Action, Document, Kind, Outcome, Resource, Spec
from reconciler.project import Project
from reconciler.registry import Registry, default
from tests.lab.hosts import Lab, LabHost

ALICE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILLC7u/rhg9nprc/jcF5As5udG0tC7TEy+BPCxl9WH/G"
SLEEPER = """\
[Unit]
Description=Sleeps

[Service]
{before}ExecStart=/usr/bin/sleep infinity

[Install]
WantedBy=multi-user.target
"""


def document(kind: str, name: str, spec: Mapping[str, Any], **lifecycle: Any) -> dict[str, Any]:
    body = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}
    return body | ({"lifecycle": lifecycle} if lifecycle else {})


def file(name: str, path: str, *hosts: str, requires: Sequence[str] = (), **spec: Any) -> dict[str, Any]:
    lifecycle = {"requires": requires} if requires else {}
    return document("File", name, {"hosts": list(hosts), "path": path, **spec}, **lifecycle)


def service(name: str, *hosts: str, requires: Sequence[str] = (), before: str = "", **spec: Any) -> dict[str, Any]:
    lifecycle = {"requires": requires} if requires else {}
    spec = {"hosts": list(hosts), "unitFile": SLEEPER.format(before=before), "running": True, **spec}
    return document("Service", name, spec, **lifecycle)


def slow(name: str, *hosts: str, seconds: float = 2.0, requires: Sequence[str] = ()) -> dict[str, Any]:
    """A service that takes its time to start, and counts how often it did in /root/NAME.starts."""
    before = f"ExecStartPre=/bin/sh -c 'echo start >>/root/{name}.starts; sleep {seconds}'\n"
    return service(name, *hosts, before=before, requires=requires)


@dataclass
class Answer:
    """What the command line said."""

    status: int
    text: str
    errors: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]

    @property
    def plan(self) -> dict[str, Any]:
        """The plan in it, as `plan`, `drift` and `apply` print it."""
        first = self.events[0]
        found: dict[str, Any] = first.get("plan", first)
        return found

    @property
    def changes(self) -> dict[str, str | set[str]]:
        """Address -> the attributes that differ, or what else happens to it."""
        return {
            c["address"]: {d["attribute"] for d in c["differences"]} if c["action"] == "update" else c["action"]
            for c in self.plan["changes"]
        }

    @property
    def outcomes(self) -> dict[str, str]:
        (result,) = [e for e in self.events if e["event"] == "result"]
        return {c["address"]: c["outcome"] for c in result["changes"]}

    @property
    def reasons(self) -> dict[str, str]:
        (result,) = [e for e in self.events if e["event"] == "result"]
        return {c["address"]: c["reason"] for c in result["changes"]}


@dataclass
class Site:
    """A desired state in a folder, and the command line on it."""

    lab: Lab
    folder: Path
    capture: pytest.CaptureFixture[str]
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "desired").mkdir(parents=True)
        self.describe()

    def describe(self, **settings: Mapping[str, Any]) -> None:
        """Write the hosts, with other settings where they are given."""
        common = {"user": "root", "identityFile": str(self.lab.key), "knownHosts": str(self.lab.known_hosts)}
        specs = {h.name: {**common, "address": h.address, **settings.get(h.name, {})} for h in self.lab}
        self.put("hosts", *(document("Host", name, spec) for name, spec in specs.items()))

    def put(self, name: str, *documents: Mapping[str, Any]) -> None:
        """Write a file of the desired state (JSON is YAML)."""
        (self.folder / f"desired/{name}.yaml").write_text("---\n".join(f"{json.dumps(d)}\n" for d in documents))

    def drop(self, name: str) -> None:
        (self.folder / f"desired/{name}.yaml").unlink()

    def words(self, *words: str) -> list[str]:
        """The full command: `plan` and the like on this desired state."""
        if words[0] in ("resume", "show", "history", "lock"):
            words = (*words, "--path", str(self.folder / "desired"))
        else:
            words = (words[0], str(self.folder / "desired"), *words[1:])
        return [*words, "--state", str(self.folder / "state")]

    def __call__(self, *words: str, output: str = "json") -> Answer:
        """Run it in this process."""
        self.capture.readouterr()
        with self.lab.inside():
            status = command_line([*self.words(*words), f"--output={output}"] if output else self.words(*words))
        return Answer(status, *self.capture.readouterr())

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run it as a program of its own."""
        argv = [sys.executable, "-m", "reconciler.cli.main", *self.words(*words), "--output=json"]
        return subprocess.Popen(self.lab.command(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def settle(self) -> Answer:
        """Apply, and make sure that it worked and that nothing is left to do."""
        answer = self("apply", "--yes")
        assert answer.status == 0, answer
        again = self("plan")
        assert (again.status, again.changes) == (0, {}), again
        return answer

    def project(self) -> Project:
        return Project(self.folder / "desired", self.folder / "state")


def end(process: subprocess.Popen[str], timeout: float = 60) -> Answer:
    text, errors = process.communicate(timeout=timeout)
    return Answer(process.returncode, text, errors)


def until(look: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 20) -> None:
    """Wait for something to come true, and fail at once when the process that shall bring it about has ended."""
    deadline = time.monotonic() + seconds
    while not look():
        assert process is None or process.poll() is None, end(process) if process else ""
        assert time.monotonic() < deadline, "it did not come to this in time"
        time.sleep(0.02)


def starts(host: LabHost, name: str) -> int:
    return host.read(f"/root/{name}.starts").count("\n") if host.exists(f"/root/{name}.starts") else 0


@pytest.fixture
def site(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """An empty desired state on three hosts that are new."""
    lab.fresh(*(h.name for h in lab))
    return Site(lab, tmp_path / "site", capsys)


@pytest.fixture
def bare(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """The same on the hosts as they are; for tests that leave nothing behind that another one would mind."""
    for host in lab:
        if not host.running:
            host.start()
    return Site(lab, tmp_path / "site", capsys)


# ------------------------------------------------------------------------------------------------ the main job

EVERYWHERE: dict[str, Any] = {"matchLabels": {}}
DOCUMENTS: dict[str, list[dict[str, Any]]] = {
    "File": [
        document(
            "File",
            "motd",
            {
                "hosts": EVERYWHERE,
                "path": "/etc/motd",
                "content": "Managed.\n",
                "mode": "0640",
                "owner": "deploy",
                "group": "adm",
            },
        ),
        document(
            "File", "app", {"hosts": EVERYWHERE, "path": "/srv/app", "directory": {}, "mode": "0750", "owner": "deploy"}
        ),
        document("File", "tidy", {"hosts": EVERYWHERE, "path": "/srv/tidy", "directory": {"purge": True}}),
        document("File", "current", {"hosts": EVERYWHERE, "path": "/srv/current", "link": "/srv/app"}),
        document(
            "File", "line", {"hosts": EVERYWHERE, "path": "/etc/issue", "line": {"text": "A line", "match": "^A "}}
        ),
        document("File", "block", {"hosts": EVERYWHERE, "path": "/etc/profile", "block": {"text": "export A=1\n"}}),
        document("File", "gone", {"hosts": EVERYWHERE, "path": "/etc/unwanted", "ensure": "absent"}),
    ],
    "Package": [
        document(
            "Package",
            "tools",
            {"hosts": EVERYWHERE, "packages": ["lab-daemon", {"name": "lab-hello", "version": "1.0", "hold": True}]},
        ),
        document("Package", "bad", {"hosts": EVERYWHERE, "packages": ["cowsay"], "ensure": "absent"}),
    ],
    "Service": [
        document(
            "Service",
            "lab-daemon",
            {"hosts": EVERYWHERE, "enabled": True, "running": True, "watch": ["/etc/lab-daemon.conf"]},
            requires=["Package/tools"],
        ),
        document(
            "Service",
            "sleeper",
            {
                "hosts": EVERYWHERE,
                "enabled": True,
                "running": True,
                "unitFile": SLEEPER.format(before=""),
                "dropIns": {"limits": "[Service]\nLimitNOFILE=512\n"},
            },
        ),
        document("Service", "off", {"hosts": EVERYWHERE, "unit": "systemd-timesyncd.service", "running": False}),
    ],
    "User": [
        document(
            "User",
            "alice",
            {
                "hosts": EVERYWHERE,
                "groups": ["adm", "games"],
                "shell": "/bin/bash",
                "uid": 4242,
                "comment": "Alice",
                "expires": "2099-03-31",
                "authorizedKeys": [f"{ALICE} alice@x"],
            },
        ),
    ],
    "HostProfile": [
        document(
            "HostProfile",
            "all",
            {
                "hosts": EVERYWHERE,
                "sysctls": {"net.ipv4.conf.all.log_martians": "1"},
                "files": [{"path": "/etc/profiled", "content": "p\n"}],
            },
        ),
    ],
    "ForbiddenSoftware": [
        document(
            "ForbiddenSoftware",
            "bad",
            {"hosts": EVERYWHERE, "software": [{"name": "tmate", "reason": "unmaintained since 2019"}]},
        ),
    ],
    "PolkitRule": [
        document(
            "PolkitRule",
            "units",
            {"hosts": EVERYWHERE, "allow": [{"action": "org.freedesktop.systemd1.manage-units", "users": ["admin"]}]},
        ),
    ],
}

# What is done by hand, on which object it must be found, and by which attributes (or "create": it is gone).
DRIFT: list[tuple[str, str, str | set[str]]] = [
    ("echo other >/etc/motd", "host.file[{}:/etc/motd]", {"content"}),
    ("chmod 600 /etc/motd", "host.file[{}:/etc/motd]", {"mode"}),
    ("chown admin /etc/motd", "host.file[{}:/etc/motd]", {"owner"}),
    ("chgrp games /etc/motd", "host.file[{}:/etc/motd]", {"group"}),
    ("rm /etc/motd", "host.file[{}:/etc/motd]", "create"),
    ("chmod 700 /srv/app", "host.directory[{}:/srv/app]", {"mode"}),
    ("chown admin /srv/app", "host.directory[{}:/srv/app]", {"owner"}),
    ("echo x >/srv/tidy/stranger", "host.directory[{}:/srv/tidy]", {"strangers"}),
    ("ln -sfn /etc /srv/current", "host.symlink[{}:/srv/current]", {"to"}),
    ("sed -i 's/^A line/A lie/' /etc/issue", "host.line[{}:/etc/issue:^A ]", {"line"}),
    ("sed -i 's/A=1/A=2/' /etc/profile", "host.block[{}:/etc/profile:block]", {"text"}),
    ("echo x >/etc/unwanted", "host.file[{}:/etc/unwanted]", "delete"),
    ("apt-get -q -y --allow-change-held-packages purge lab-hello", "host.package[{}:lab-hello]", "create"),
    (
        "apt-get -q -y --allow-change-held-packages install lab-hello=1.1 && apt-mark hold lab-hello",
        "host.package[{}:lab-hello]",
        {"version"},
    ),
    ("apt-mark unhold lab-hello", "host.package[{}:lab-hello]", {"hold"}),
    ("systemctl stop lab-daemon", "host.unit[{}:lab-daemon.service]", {"running"}),
    ("systemctl disable lab-daemon", "host.unit[{}:lab-daemon.service]", {"enabled"}),
    ("echo '# edited' >>/etc/lab-daemon.conf", "host.unit[{}:lab-daemon.service]", {"fresh"}),
    ("systemctl disable sleeper", "host.unit[{}:sleeper.service]", {"enabled"}),
    ("usermod -s /bin/sh alice", "host.user[{}:alice]", {"shell"}),
    ("usermod -c Malice alice", "host.user[{}:alice]", {"comment"}),
    ("gpasswd -d alice games", "host.user[{}:alice]", {"groups"}),
    ("chage -E 2030-01-01 alice", "host.user[{}:alice]", {"expires"}),
    (": >/home/alice/.ssh/authorized_keys", f"host.authorizedKey[{{}}:alice:{ALICE}]", "create"),
    ("chmod 666 /home/alice/.ssh/authorized_keys", f"host.authorizedKey[{{}}:alice:{ALICE}]", {"permissions"}),
    ("echo 0 >/proc/sys/net/ipv4/conf/all/log_martians", "host.sysctl[{}:net.ipv4.conf.all.log_martians]", {"value"}),
]


ELSEWHERE = {
    "AppArmorProfile": "test_apparmor.py",
    "ContainerPod": "test_podman.py",
    "OtpClient": "test_otp.py",
    "OtpLogin": "test_otp.py",
    "OtpServer": "test_otp.py",
    "SnapshotPolicy": "test_snapshots.py",
    "TotpKey": "test_otp.py",
}
"""Kinds that need more of a host than every host has, and where they are tried on one."""


def test_no_kind_of_host_is_left_out() -> None:
    """Law 10, on real hosts."""
    of_hosts = {name for name, kind in default().kinds.items() if "hosts" in kind.spec.model_fields}
    assert of_hosts <= set(DOCUMENTS) | set(ELSEWHERE)
    for kind, file in ELSEWHERE.items():
        if kind in default().kinds:
            assert kind in (Path(__file__).parent / file).read_text(), f"{file} has no {kind}"


def test_every_kind_on_three_hosts(site: Site) -> None:
    """plan -> apply -> plan is empty; then one thing at a time is changed by hand, found by name, and repaired."""
    for kind, documents in DOCUMENTS.items():
        site.put(kind.lower(), *documents)
    for host in site.lab:
        host.write("/etc/unwanted", "x\n")
        host.reset_sessions()
    planned = site("plan")
    assert planned.status == 2
    assert planned.plan["summary"]["unknown"] == 0
    counts = Counter(c["target"] for c in planned.plan["changes"])
    assert len(set(counts.values())) == 1
    assert counts["web1"] >= 18, counts
    for host in site.lab:
        assert (host.sessions().connections, host.sessions().commands) == (1, 1)
        assert host.exists("/etc/unwanted"), "a plan changes nothing"
    done = site("apply", "--yes")
    assert {a: done.reasons[a] for a, outcome in done.outcomes.items() if outcome != "done"} == {}
    assert done.status == 0, done
    assert set(done.outcomes) == set(planned.changes)
    for host in site.lab:
        assert (host.sessions().connections, host.sessions().commands) == (3, 3), (
            "planned; then applied, in one session; then a new login, for what is guarded"
        )
        assert host.run("stat -c '%a %U %G' /etc/motd; readlink /srv/current").stdout == "640 deploy adm\n/srv/app\n"
        assert host.run("lab-hello; id -nG alice; systemctl is-active lab-daemon sleeper").stdout == (
            "hello from lab-hello 1.0\nalice adm games\nactive\nactive\n"
        )
        assert host.wait() == "running"
    for command in ("plan", "drift", "apply"):
        clean = site(command)
        assert (clean.status, clean.changes) == (0, {}), clean

    # On each host one thing at a time; three hosts side by side.
    hosts = list(site.lab)
    for first in range(0, len(DRIFT), len(hosts)):
        expected = {}
        for host, (by_hand, address, attributes) in zip(hosts, DRIFT[first:], strict=False):
            host.run(by_hand)
            expected[address.format(host.name)] = attributes
        found = site("drift")
        assert (found.status, found.changes) == (2, expected)
        assert all(c["drift"] for c in found.plan["changes"] if c["action"] != "delete")
        repaired = site("apply", "--yes")
        assert (repaired.status, repaired.outcomes) == (0, dict.fromkeys(expected, "done")), repaired
    clean = site("drift")
    assert (clean.status, clean.changes) == (0, {})
    for host in site.lab:
        assert host.wait() == "running"


# ------------------------------------------------------------------------------------------------ one round trip


class ObjectsSpec(Spec):
    """Any objects, by the names of their types."""

    hosts: HostSelector
    objects: tuple[tuple[str, dict[str, Any]], ...]


def objects(document: Document[ObjectsSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    for host in catalog.hosts(document.spec.hosts):
        for name, fields in document.spec.objects:
            yield default().type_of(name)(host, **fields)


OBJECTS = Registry.of([*default().kinds.values(), Kind("Objects", ObjectsSpec, objects)], default().types.values())


def test_two_hundred_objects_of_ten_types_cost_one_session(site: Site) -> None:
    """Probed over one connection with one exec, applied with one more; as the server counts them."""
    host = site.lab["web1"]
    n = range(20)
    units = [f"/etc/systemd/system/many{i}.service" for i in range(3)]
    keys = host.run(
        "sysctl -aN 2>/dev/null | grep -E '^net.ipv4.conf.(all|default|lo|eth0).(accept|log|send|shared|arp)'"
    ).stdout.split()
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("host.directory", {"path": "/srv/many"}),
        *(("host.directory", {"path": f"/srv/many/d{i}", "mode": "0750"}) for i in n),
        *(("host.file", {"path": f"/srv/many/d{i}/f", "content": f"{i}\n", "mode": "0640"}) for i in n),
        *(("host.file", {"path": f"/srv/many/d{i}/g", "content": f"{i}\n", "owner": "deploy"}) for i in n),
        *(("host.symlink", {"path": f"/srv/many/d{i}/l", "to": "f"}) for i in n),
        *(("host.line", {"path": "/etc/issue", "name": f"line {i}", "line": f"line {i}"}) for i in n),
        *(("host.block", {"path": "/etc/profile", "name": f"b{i}", "text": f"export B{i}=1\n"}) for i in n),
        *(("host.group", {"name": f"g{i}", "gid": 5000 + i}) for i in n),
        *(("host.user", {"name": f"u{i}", "uid": 5000 + i, "group": f"g{i}", "createHome": True}) for i in n),
        *(("host.authorizedKey", {"user": f"u{i}", "key": ALICE}) for i in n),
        *(("host.file", {"path": unit, "content": SLEEPER.format(before="")}) for unit in units),
        *(("host.unit", {"unit": Path(u).name, "enabled": True, "running": True, "watch": [u]}) for u in units),
        *(("host.sysctl", {"key": key, "value": "1"}) for key in keys[:20]),
        *(
            ("host.package", {"name": name})
            for name in ("lab-daemon", "lab-hello", "sudo", "dbus", "polkitd", "procps")
        ),
    ]
    types = {name for name, _ in wanted}
    assert len(wanted) >= 200
    assert len(types) >= 10
    site.put("many", document("Objects", "many", {"hosts": ["web1"], "objects": wanted}))
    here = site.project()
    here.registry = OBJECTS
    with site.lab.inside():
        host.reset_sessions()
        begun = time.monotonic()
        made = here.plan()
        planning = time.monotonic() - begun
        assert (host.sessions().connections, host.sessions().sessions) == (1, 1)
        assert not made.unknown
        assert made.count(Action.CREATE) >= 180
        host.reset_sessions()
        begun = time.monotonic()
        with Pool(made.targets) as pool:
            result = here.apply(made, pool)
        applying = time.monotonic() - begun
        assert {a: e for a, e in result.ended.items() if e.outcome is not Outcome.DONE} == {}
        assert (host.sessions().connections, host.sessions().sessions) == (1, 1)
        host.reset_sessions()
        assert here.plan().empty
        assert (host.sessions().connections, host.sessions().sessions) == (1, 1)
    assert host.run("systemctl is-active many{0..2}.service | sort | uniq -c").stdout.split() == ["3", "active"]
    print(f"{len(wanted)} objects of {len(types)} types: plan {planning:.2f} s, apply {applying:.2f} s")
    assert planning < 5
    assert applying < 60


# ------------------------------------------------------------------------------------------------ restarts


def started(host: LabHost, unit: str) -> str:
    return host.run(f"systemctl show -P ExecMainStartTimestampMonotonic {unit}").stdout.strip()


def test_a_service_restarts_when_its_file_changes(bare: Site) -> None:
    """And not otherwise; the plan says why."""
    host = bare.lab["web1"]
    conf = file("watched", "/etc/watched.conf", "web1", content="1\n")
    bare.put("service", service("watcher", "web1", watch=["/etc/watched.conf"]))
    bare.put("conf", conf)
    bare.settle()
    first = started(host, "watcher")
    bare.put("other", file("other", "/etc/other.conf", "web1", content="1\n"))
    bare.settle()
    assert started(host, "watcher") == first
    conf["spec"]["content"] = "2\n"
    bare.put("conf", conf)
    planned = bare("plan")
    unit = "host.unit[web1:watcher.service]"
    assert planned.changes == {"host.file[web1:/etc/watched.conf]": {"content"}, unit: {"fresh"}}
    (why,) = (c["why"] for c in planned.plan["changes"] if c["address"] == unit)
    assert why == ["host.file[web1:/etc/watched.conf] changes"]
    bare.settle()
    second = started(host, "watcher")
    assert int(second) > int(first)
    bare.settle()
    assert started(host, "watcher") == second


def test_a_failure_between_a_file_and_its_restart_loses_no_restart(bare: Site) -> None:
    """The tool is killed after it wrote the file: what is on the host tells the next plan that a restart is due."""
    host = bare.lab["web1"]
    conf = file("app-conf", "/etc/app.conf", "web1", content="1\n")
    app = service("app", "web1", watch=["/etc/app.conf"], requires=["Service/slowly"])
    bare.put("app", app, conf, service("slowly", "web1"))
    bare.settle()
    before = started(host, "app")
    conf["spec"]["content"] = "2\n"
    gate = slow("slowly", "web1", requires=["File/app-conf"])
    bare.put("app", app, conf, gate)
    process = bare.start("apply", "--yes")
    until(lambda: starts(host, "slowly") == 1, process)
    assert host.read("/etc/app.conf") == "2\n"
    process.kill()
    end(process)
    until(lambda: host.run("systemctl is-active slowly", check=False).stdout == "active\n")
    time.sleep(0.3)  # time in which a batch that lives on would restart it
    assert started(host, "app") == before
    planned = bare("plan")
    assert "host.unit[web1:app.service]" in planned.changes
    assert planned.changes["host.unit[web1:app.service]"] == {"fresh"}
    assert "was killed before its end" in planned.errors
    bare("lock", "break", "web1", output="")
    done = bare("resume")
    assert done.status == 0, done
    assert int(started(host, "app")) > int(before)
    assert starts(host, "slowly") == 1
    assert bare("plan").changes == {}


# ------------------------------------------------------------------------------------------------ what breaks


def test_a_host_that_loses_power_in_the_middle(bare: Site) -> None:
    """The others are finished; its own change is unknown, what stands on that is skipped; then it converges."""
    dead = bare.lab["web2"]
    everywhere = [h.name for h in bare.lab]
    bare.put(
        "power",
        file("first", "/etc/first", *everywhere, content="1\n"),
        slow("plugged", *everywhere, seconds=1.5, requires=["File/first"]),
        file("then", "/etc/then", *everywhere, content="1\n", requires=["Service/plugged"]),
        file("only", "/etc/only", "web2", content="1\n", requires=["Service/plugged"]),
        file("last", "/etc/last", "db1", content="1\n", requires=["File/only"]),
    )
    begun = time.monotonic()
    process = bare.start("apply", "--yes")
    until(lambda: starts(dead, "plugged") == 1, process)
    dead.kill()
    ended = end(process)
    assert time.monotonic() - begun < 30
    assert ended.status == 1, ended
    outcomes = ended.outcomes
    for name in ("web1", "db1"):
        assert outcomes[f"host.unit[{name}:plugged.service]"] == "done"
        assert outcomes[f"host.file[{name}:/etc/then]"] == "done"
        assert bare.lab[name].read("/etc/then") == "1\n"
    assert outcomes["host.unit[web2:plugged.service]"] == "unknown"
    assert "not known" in ended.reasons["host.unit[web2:plugged.service]"]
    assert outcomes["host.file[web2:/etc/then]"] == "unknown"
    assert outcomes["host.file[db1:/etc/last]"] == "skipped", "it stands on web2, too"
    assert not dead.exists("/etc/then")
    down = bare("plan")
    assert all("web2" in a for a in down.plan["unknown"] if "db1" not in a)
    dead.start()
    assert bare("apply", "--yes").status == 0
    assert bare("plan").changes == {}
    assert dead.read("/etc/then") == "1\n"
    assert bare.lab["db1"].read("/etc/last") == "1\n"


def test_a_killed_tool_is_resumed_and_nothing_is_done_twice(bare: Site) -> None:
    """kill -9 in the middle: plan warns, the lock is broken, resume finishes; the world is as if it never was."""
    killed, control = bare.lab["web1"], bare.lab["db1"]

    def world(prefix: str, host: str) -> list[dict[str, Any]]:
        return [
            file(f"{prefix}-a", "/etc/resume.a", host, content="a\n", mode="0600"),
            slow(f"{prefix}-slow", host, requires=[f"File/{prefix}-a"]),
            file(f"{prefix}-b", "/etc/resume.b", host, content="b\n", requires=[f"Service/{prefix}-slow"]),
            document("File", f"{prefix}-log", {"hosts": [host], "path": "/etc/resume.log", "line": {"text": "once"}},
                     requires=[f"File/{prefix}-b"]),
        ]  # fmt: skip

    for host in (killed, control):
        host.write("/etc/resume.log", "what others wrote\n")
    bare.put("killed", *world("k", "web1"))
    process = bare.start("apply", "--yes")
    until(lambda: starts(killed, "k-slow") == 1, process)
    os.kill(process.pid, signal.SIGKILL)
    end(process)
    warned = bare("plan", output="text")
    assert "reconciler resume" in warned.errors + warned.text
    (lock,) = bare("lock", "ls").events[0]["locks"]
    assert lock["target"] == "web1"
    assert bare("lock", "break", "web1", output="").status == 0
    assert bare("lock", "ls").events[0]["locks"] == []
    resumed = bare("resume")
    assert resumed.status == 0, resumed.reasons
    assert set(resumed.outcomes.values()) == {"done"}
    assert bare("plan").changes == {}
    assert bare("history").events[0]["runs"][0]["status"] == "done"
    again = bare("resume")
    assert again.status == 1
    assert "no unfinished run" in again.text

    bare.put("control", *world("c", "db1"))
    bare.settle()
    look = "cd /etc; stat -c '%n %a %U %s' resume.*; cat resume.*"
    assert killed.run(look).stdout == control.run(look).stdout
    assert [starts(killed, "k-slow"), starts(control, "c-slow")] == [1, 1]


def test_ctrl_c_lets_the_batch_end_and_resume_goes_on(bare: Site) -> None:
    host, other = bare.lab["web1"], bare.lab["web2"]
    bare.put(
        "stop",
        slow("stopped", "web1"),
        file("stop-b", "/etc/stop.b", "web2", content="b\n", requires=["Service/stopped"]),
    )
    process = bare.start("apply", "--yes")
    until(lambda: starts(host, "stopped") == 1, process)
    process.send_signal(signal.SIGINT)
    ended = end(process)
    assert ended.status == 1, ended
    assert ended.outcomes == {"host.file[web1:/etc/systemd/system/stopped.service]": "done",
                              "host.unit[web1:stopped.service]": "done"}  # fmt: skip
    assert "Stopping after what has begun" in ended.errors
    assert "Traceback" not in ended.errors
    assert host.run("systemctl is-active stopped").stdout == "active\n"
    assert not other.exists("/etc/stop.b")
    assert bare("lock", "ls").events[0]["locks"] == []
    resumed = bare("resume")
    assert resumed.status == 0, resumed
    assert other.read("/etc/stop.b") == "b\n"
    assert starts(host, "stopped") == 1
    assert bare("plan").changes == {}


def test_two_applies_at_once(bare: Site) -> None:
    """The second one changes nothing, and says who is at it."""
    host = bare.lab["web1"]
    bare.put("locked", slow("locked", "web1"))
    process = bare.start("apply", "--yes")
    until(lambda: starts(host, "locked") == 1, process)
    bare.put("more", file("locked-out", "/etc/locked.out", "web1", content="1\n"))
    second = bare("apply", "--yes")
    assert second.status == 1, second
    assert f":{process.pid})" in second.text
    assert "web1 is locked by run" in second.text
    assert not host.exists("/etc/locked.out")
    assert end(process).status == 0
    assert starts(host, "locked") == 1
    assert bare("apply", "--yes").status == 0


def test_a_host_that_is_down_holds_nothing_up(bare: Site) -> None:
    """Its objects are unknown, the rest is planned and applied, and the exit status says so."""
    names = [h.name for h in bare.lab]
    bare.put(
        "down",
        file("down", "/etc/down", *names, content="1\n"),
        file("down-only", "/etc/down.only", "db1", content="1\n"),
        file("down-after", "/etc/down.after", "web1", content="1\n", requires=["File/down-only"]),
    )
    bare.lab["db1"].kill()
    try:
        begun = time.monotonic()
        done = bare("apply", "--yes")
        assert time.monotonic() - begun < 15
        assert done.status == 1
        assert done.outcomes == {"host.file[web1:/etc/down]": "done", "host.file[web2:/etc/down]": "done"}
        unknown = done.plan["unknown"]
        assert "cannot be reached" in unknown["host.file[db1:/etc/down]"]
        assert "host.file[db1:/etc/down.only], which is unknown" in unknown["host.file[web1:/etc/down.after]"]
        left = bare("plan")
        assert (left.status, left.changes) == (1, {})
    finally:
        bare.lab["db1"].start()
    assert bare("apply", "--yes").status == 0
    assert bare.lab["web1"].read("/etc/down.after") == "1\n"


# ------------------------------------------------------------------------------------------------ plan files


def test_a_plan_file_holds_only_while_the_world_does(bare: Site) -> None:
    """What was edited meanwhile is refused, the rest applied; an edited plan is refused before anything."""
    hosts = list(bare.lab)
    bare.put("planned", file("planned", "/etc/planned", *(h.name for h in hosts), content="new\n"))
    for host in hosts:
        host.write("/etc/planned", "old\n")
    planned = bare.folder / "plan.json"
    assert bare("plan", "-o", str(planned)).status == 2
    assert planned.stat().st_mode & 0o777 == 0o600

    tampered = bare.folder / "tampered.json"
    tampered.write_text(planned.read_text().replace("new\\n", "bad\\n"))
    for name in ("tampered", "cut"):
        (bare.folder / "cut.json").write_text(planned.read_text()[:-200])
        refused = apply_file(bare, bare.folder / f"{name}.json")
        assert refused.status == 1
        assert "does not match its digest" in refused.text or "not a plan file" in refused.text
    assert {host.read("/etc/planned") for host in hosts} == {"old\n"}

    hosts[1].write("/etc/planned", "edited\n")
    done = apply_file(bare, planned)
    assert done.status == 1
    refused_address = f"host.file[{hosts[1].name}:/etc/planned]"
    assert done.outcomes[refused_address] == "failed"
    assert "changed since the plan was made (content). Plan again." in done.reasons[refused_address]
    assert [host.read("/etc/planned") for host in hosts] == ["new\n", "edited\n", "new\n"]
    bare.settle()


def apply_file(site: Site, plan: Path) -> Answer:
    site.capture.readouterr()
    with site.lab.inside():
        status = command_line(["apply", str(plan), "--yes", "--state", str(site.folder / "state"), "--output=json"])
    return Answer(status, *site.capture.readouterr())


# ------------------------------------------------------------------------------------------------ who we are there


def test_root_by_sudo_by_run0_and_not_at_all(bare: Site) -> None:
    """sudo and run0 work for who may; who may not gets the program's own words, and nothing else suffers."""
    rule = (
        'polkit.addRule(function(action, subject) { if (action.id == "org.freedesktop.systemd1.manage-units" '
        '&& subject.user == "admin") { return polkit.Result.YES; } });\n'
    )
    bare.put("become", file("become", "/etc/become", "web1", "web2", "db1", content="1\n", owner="root", mode="0600"))
    bare.lab["web2"].write("/etc/polkit-1/rules.d/40-test.rules", rule)
    until(lambda: bare.lab["web2"].run("run0 id -u", user="admin", check=False).stdout == "0\n")
    bare.describe(
        web1={"user": "deploy", "become": "sudo"},
        web2={"user": "admin", "become": "run0"},
        db1={"user": "admin", "become": "sudo"},
    )
    done = bare("apply", "--yes")
    assert done.status == 1
    assert done.outcomes == {"host.file[web1:/etc/become]": "done", "host.file[web2:/etc/become]": "done"}
    assert "sudo: a password is required" in done.plan["unknown"]["host.file[db1:/etc/become]"]
    for name in ("web1", "web2"):
        assert bare.lab[name].run("stat -c '%a %U' /etc/become").stdout == "600 root\n"
    bare.lab["web2"].path("/etc/polkit-1/rules.d/40-test.rules").unlink()
    bare.describe(db1={"user": "admin"})
    denied = bare("apply", "--yes")
    assert denied.status == 1
    assert denied.outcomes == {"host.file[db1:/etc/become]": "failed"}
    assert "Permission denied" in denied.reasons["host.file[db1:/etc/become]"]
    assert not bare.lab["db1"].exists("/etc/become")


# ------------------------------------------------------------------------------------------------ prune


def test_only_what_is_ours_goes_with_its_document(bare: Site) -> None:
    """What we made is deleted; what was there before stays, and so does what was never ours."""
    host = bare.lab["web1"]
    host.write("/etc/prune.old", "older than us\n")
    host.write("/etc/prune.foreign", "not ours\n")
    bare.put("keep", *(file(f"prune-{i}", f"/etc/prune.{i}", "web1", content="x\n") for i in range(12)))
    bare.put(
        "go",
        file("prune-new", "/etc/prune.new", "web1", content="ours\n"),
        file("prune-old", "/etc/prune.old", "web1", content="taken over\n"),
        service("prune-unit", "web1", enabled=True),
        document("User", "prune-user", {"hosts": ["web1"], "shell": "/bin/sh"}),
    )
    bare.settle()
    bare.drop("go")
    planned = bare("plan")
    assert set(planned.changes.values()) == {"delete"}
    assert "host.file[web1:/etc/prune.new]" in planned.changes
    assert "host.file[web1:/etc/prune.old]" not in planned.changes
    assert planned.plan["release"] == {"host.file[web1:/etc/prune.old]": "it was there before us, so it stays"}
    bare.settle()
    assert not host.exists("/etc/prune.new")
    assert host.read("/etc/prune.old") == "taken over\n"
    assert host.read("/etc/prune.foreign") == "not ours\n"
    assert not host.exists("/etc/systemd/system/prune-unit.service")
    assert host.run("systemctl is-active prune-unit; id prune-user", check=False).stdout == "inactive\n"
    assert host.wait() == "running", host.run("systemctl --failed; systemctl status --failed --no-pager").stdout
    bare.drop("keep")
    refused = bare("plan")
    assert refused.status == 1
    assert "empty" in refused.text or "more than 30%" in refused.text
    assert host.exists("/etc/prune.0")


def test_the_journal_tells_the_whole_story(bare: Site) -> None:
    """An intent before each end, for each change; `show` prints it."""
    bare.put("story", file("story", "/etc/story", "web1", "web2", content="1\n"))
    bare.settle()
    run = bare("history").events[0]["runs"][0]["id"]
    events = [(r.event, r.address) for r in journal.records(bare.project().store, run)]
    for name in ("web1", "web2"):
        address = f"host.file[{name}:/etc/story]"
        assert [event for event, of in events if of == address] == ["intent", "end"]
    shown = bare("show", run, output="text")
    assert "host.file[web1:/etc/story]" in shown.text
    shutil.rmtree(bare.folder / "state")
    lost = bare("plan")
    assert (lost.status, lost.changes) == (0, {}), "what is kept helps; losing it loses nothing"
