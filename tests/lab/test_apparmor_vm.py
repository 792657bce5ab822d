"""AppArmorProfile where a kernel enforces it: a virtual machine under software emulation. One machine, one story."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import run as main
from reconciler.connections import Pool
from reconciler.model import Finding, Outcome
from reconciler.plan import Plan
from reconciler.project import Project
from tests.lab.vm import Vm, unfit

pytestmark = pytest.mark.skipif(unfit() is not None, reason=str(unfit()))

PROGRAM = "/usr/local/bin/probe"
KEEPER = "/usr/local/bin/keeper"
UNIT = f"[Service]\nExecStart={KEEPER} infinity\n"
SETUP = f"""\
cp /usr/bin/cat {PROGRAM}
cp /usr/bin/sleep {KEEPER}
mkdir -p /srv/probe
echo known >/srv/probe/known.conf
echo other >/srv/probe/other.conf
cat >/etc/systemd/system/keeper.service
systemctl daemon-reload
systemctl start keeper.service
"""
# The profile was loaded two hours ago, and the log is older than that.
AGE = """\
cd /var/lib/reconciler/apparmor
awk '{ print $1, $2, $3 - 7200 }' usr.local.bin.keeper >/root/record
cat /root/record >usr.local.bin.keeper
printf 'type=DAEMON_START msg=audit(%s.001:1): op=start\n' $(($(date +%s) - 9000)) >/var/log/audit/audit.log.1
"""


class Site:
    """A desired state for the machine."""

    def __init__(self, vm: Vm, folder: Path) -> None:
        self.vm, self.folder = vm, folder / "desired"
        self.folder.mkdir()
        spec = {
            "address": "127.0.0.1",
            "port": vm.port,
            "user": "root",
            "identityFile": str(vm.key),
            "knownHosts": str(vm.known_hosts),
        }
        self.put("Host", "vm", spec)
        self.project = Project(self.folder, folder / "state")

    def put(self, kind: str, name: str, spec: Any) -> None:
        document = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        (self.folder / f"{kind}-{name}.yaml").write_text(json.dumps(document))

    def profile(self, name: str, **fields: Any) -> None:
        """A profile of /usr/local/bin/NAME, which may run and nothing more, and has its own rules besides."""
        program = f"/usr/local/bin/{name}"
        files = [{"path": program, "access": "mr"}, *fields.pop("files", [])]
        spec = {"hosts": ["vm"], "program": program, "profile": name, "includes": ["abstractions/base"]}
        self.put("AppArmorProfile", name, {**spec, "files": files, **fields})

    def plan(self) -> Plan:
        """On connections that cannot write."""
        made = self.project.plan()
        assert not made.unknown
        return made

    def apply(self) -> Sequence[Finding]:
        """Everything is done, and nothing is left to do; what the audits then find."""
        with Pool(self.project.desired().targets) as pool:
            result = self.project.apply(self.project.plan(pool=pool), pool)
        assert {e.outcome for e in result.ended.values()} <= {Outcome.DONE}, result.ended
        return result.findings

    def modes(self) -> dict[str, str]:
        """What the kernel itself says."""
        rows = self.vm.run("cat /sys/kernel/security/apparmor/profiles").stdout.splitlines()
        return {name: mode.rstrip(")") for name, _, mode in (row.rpartition(" (") for row in rows)}

    def suggest(self, name: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
        """What `reconciler apparmor suggest` says of a document, from the log of the machine."""
        capsys.readouterr()
        status = main(["apparmor", "suggest", name, "--path", str(self.folder), "--output", "json"])
        (found,) = json.loads(capsys.readouterr().out)["suggestions"]
        return status, found


@pytest.fixture(scope="module")
def vm() -> Iterator[Vm]:
    with Vm() as machine:
        machine.run(SETUP, input=UNIT)
        yield machine


@pytest.fixture
def site(vm: Vm, tmp_path: Path) -> Iterator[Site]:
    one = Site(vm, tmp_path)
    yield one
    one.project.store.close()


def test_complain_logs_suggest_proposes_enforce_denies(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    vm = site.vm
    site.profile("probe", mode="complain")
    assert not site.apply()
    assert site.modes() == {"probe": "complain"}
    assert site.plan().empty

    assert vm.run(f"{PROGRAM} /srv/probe/known.conf").stdout == "known\n", "complain mode lets it happen"
    assert 'apparmor="ALLOWED"' in vm.run("grep known.conf /var/log/audit/audit.log").stdout
    status, found = site.suggest("probe", capsys)
    assert status == 2
    assert [(p["section"], p["value"], p["denied"]) for p in found["proposals"]] == [
        ("files", {"path": "/srv/probe/known.conf", "access": "r"}, False)
    ]

    site.profile("probe", files=[p["value"] for p in found["proposals"]])
    assert not site.apply()
    assert site.modes() == {"probe": "enforce"}
    assert vm.run(f"{PROGRAM} /srv/probe/known.conf").stdout == "known\n"
    refused = vm.run(f"{PROGRAM} /srv/probe/other.conf", check=False)
    assert refused.returncode == 1
    assert "Permission denied" in refused.stderr
    assert 'apparmor="DENIED"' in vm.run("grep other.conf /var/log/audit/audit.log").stdout
    status, found = site.suggest("probe", capsys)
    assert status == 2
    assert found["covered"] >= 1, "the rule covers what was logged before it"
    assert [(p["value"], p["denied"]) for p in found["proposals"]] == [
        ({"path": "/srv/probe/other.conf", "access": "r"}, True)
    ]

    # Behind our back: until the next boot, and unloaded.
    vm.run("sed 's/{$/flags=(complain) {/' /etc/apparmor.d/usr.local.bin.probe | apparmor_parser --replace")
    assert site.modes() == {"probe": "complain"}
    (change,) = site.plan().changes
    assert change.changed == {"mode"}
    assert (change.before or {})["mode"] == "complain until the next boot, then enforce"
    assert not site.apply()
    assert site.modes() == {"probe": "enforce"}
    vm.run("apparmor_parser --remove /etc/apparmor.d/usr.local.bin.probe")
    (change,) = site.plan().changes
    assert change.changed == {"loaded"}
    assert not site.apply()
    assert site.modes() == {"probe": "enforce"}

    site.profile("probe", ensure="absent")
    assert not site.apply()
    assert site.modes() == {}
    assert vm.run(f"{PROGRAM} /srv/probe/other.conf").stdout == "other\n"


def test_what_runs_already_is_named_and_restarted_if_wished(site: Site) -> None:
    """And a soak ends, of which the machine's own records are made older."""
    vm = site.vm
    site.profile("keeper", soak="1h")
    (finding,) = site.apply()
    assert finding.rule == "unconfined-process"
    assert f"({KEEPER}, keeper.service)" in finding.message
    assert site.modes() == {"keeper": "complain"}
    site.profile("keeper", soak="1h", restart=["keeper.service"])
    vm.run(AGE)
    (change,) = site.plan().changes
    assert change.changed == {"confined", "mode"}
    assert not site.apply()
    assert site.modes() == {"keeper": "enforce"}
    pid = vm.run("systemctl show -p MainPID --value keeper.service").stdout.strip()
    assert vm.run(f"cat /proc/{pid}/attr/current").stdout.strip("\0\n") == "keeper (enforce)"
    assert site.plan().empty


def test_without_auditd_the_journal_is_read(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """As on a Debian on which nobody installed it. The last test: the machine stays like that."""
    vm = site.vm
    vm.run("kill $(pidof auditd); while pidof auditd; do sleep 0.2; done; rm -r /var/log/audit; auditctl -e 0")
    site.profile("probe", soak="1h")
    assert not site.apply(), "the journal has the kernel's word of its load, so the soak is not blind"
    assert vm.run(f"{PROGRAM} /srv/probe/known.conf").stdout == "known\n"
    vm.run("for i in $(seq 100); do journalctl -k | grep -q ALLOWED.*known.conf && exit; sleep 0.2; done; exit 1")
    status, found = site.suggest("probe", capsys)
    assert status == 2
    assert [p["value"] for p in found["proposals"]] == [{"path": "/srv/probe/known.conf", "access": "r"}]
    made = site.plan()
    assert made.empty
    assert {f.rule for f in made.findings} == {"soak-new-access"}
