"""PolkitRule on real hosts: run0 by SSH, what polkit really answers, and the published mistake.

The tables of tests/unit/test_polkit_lint.py say what our reader of polkit's JavaScript makes of a script; here polkitd
itself is asked about the same scripts.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reconciler.connections import Pool
from reconciler.model import Finding, Outcome
from reconciler.plan import Plan
from reconciler.project import Project
from reconciler.types.host.polkit_lint import lint
from tests.lab.hosts import Lab, LabHost
from tests.unit.test_polkit_lint import ARTICLE, COMPILES, REFUSED, rule

RULES = "/etc/polkit-1/rules.d"
RUN0 = "org.freedesktop.systemd1.manage-units"
REBOOT = "org.freedesktop.login1.reboot"
EXEC = "org.freedesktop.policykit.exec"
HOSTNAME = "org.freedesktop.hostname1.set-hostname"

# Prints "CASE USER ACTION STATUS" of pkcheck. $1 = users, $2 = files of rules to try, each alone; the rest = actions.
# A polkitd that does not answer (137) is killed.
ASK = """\
users=$1 files=$2 helpers=
shift 2
for user in $users; do
    setpriv --reuid="$user" --regid="$user" --init-groups sleep 60 >/dev/null 2>&1 &
    helpers="$helpers $user:$!"
done
sleep 0.2
ask() {
    for helper in $helpers; do
        for action; do
            timeout -s KILL 3 pkcheck --action-id "$action" --process "${helper#*:}" >/dev/null 2>&1
            status=$?
            echo "$case ${helper%:*} $action $status"
            [ $status -ne 137 ] || { systemctl kill -s KILL polkit; return; }
        done
    done
}
case=-
[ -n "$files" ] || ask "$@"
for file in $files; do
    case=${file##*/}
    cp "$file" /etc/polkit-1/rules.d/99-run0.rules
    sleep 0.2
    ask "$@"
done
for helper in $helpers; do kill "${helper#*:}"; done
"""

Pristine = Callable[..., LabHost]


class Site:
    """A desired state for one host."""

    def __init__(self, host: LabHost, folder: Path) -> None:
        self.host, self.folder = host, folder / "desired"
        self.folder.mkdir()
        lab = host.lab
        spec = {
            "address": host.address,
            "user": "root",
            "identityFile": str(lab.key),
            "knownHosts": str(lab.known_hosts),
        }
        self.put("Host", host.name, spec)
        self.project = Project(self.folder, folder / "state")

    def put(self, kind: str, name: str, spec: Any) -> None:
        document = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        (self.folder / f"{kind}-{name}.yaml").write_text(json.dumps(document))

    def grant(self, name: str, *allow: Any, **fields: Any) -> None:
        self.put("PolkitRule", name, {"hosts": [self.host.name], "allow": allow, **fields})

    def drop(self, name: str) -> None:
        (self.folder / f"PolkitRule-{name}.yaml").unlink()

    def plan(self) -> Plan:
        """On connections that cannot write."""
        with self.host.lab.inside():
            made = self.project.plan()
        assert not made.unknown
        return made

    def apply(self) -> Sequence[Finding]:
        """Everything is done; what the audits then find."""
        with self.host.lab.inside(), Pool(self.project.desired().targets) as pool:
            result = self.project.apply(self.project.plan(pool=pool), pool)
        assert {e.outcome for e in result.ended.values()} <= {Outcome.DONE}, result.ended
        return result.findings


@pytest.fixture
def site(pristine: Pristine, tmp_path: Path) -> Iterator[Site]:
    one = Site(pristine("web1"), tmp_path)
    yield one
    one.project.store.close()


def verdicts(host: LabHost, users: str, *actions: str) -> dict[tuple[str, str], int]:
    """What pkcheck says for each user and action."""
    lines = host.run("sh", "-c", ASK, "ask", users, "", *actions).stdout.splitlines()
    return {(user, action): int(status) for _, user, action, status in (line.split() for line in lines)}


def plant(host: LabHost, script: str, name: str = "99-run0.rules") -> None:
    """Write rules behind everybody's back, and wait until polkitd has read them."""
    host.run(f"cat >{RULES}/{name}; sleep 0.5", input=script)


def found(findings: Sequence[Finding]) -> set[tuple[str, str]]:
    """(type, rule) of each."""
    return {(f.address.partition("[")[0], f.rule) for f in findings}


def refused(host: LabHost, command: str, user: str = "admin") -> bool:
    answer = host.run(command, user=user, check=False)
    return answer.returncode != 0


# ------------------------------------------------------------------------------------------------ what is granted


def test_run0_is_refused_without_the_rule_and_works_with_it(site: Site) -> None:
    """And nothing else is opened; and when the document goes, so does the privilege."""
    host = site.host
    denied = host.run("run0 id -u", user="admin", check=False)
    assert denied.returncode != 0
    assert "Interactive authentication required" in denied.stderr
    site.grant("admins-may-run0", {"action": RUN0, "users": ["admin"]})
    made = site.plan()
    (change,) = made.changes
    assert change.risk
    assert change.risk.kind == "lock-out"
    assert "can become root" in (change.after or {})["content"]
    assert not made.findings, "what this plan changes is asked after the change"
    assert not site.apply(), "polkitd has read the new rule when it is asked"
    assert host.run("run0 id -u", user="admin").stdout.strip() == "0"
    assert refused(host, "systemctl reboot")
    assert refused(host, "pkexec id -u")
    assert refused(host, "hostnamectl hostname other")
    assert refused(host, "run0 id -u", user="deploy")
    again = site.plan()
    assert again.empty
    assert not again.findings
    assert host.run("pgrep -x sleep", check=False).stdout == "", "the questions left a process behind"
    assert host.run("stat -c '%a %U %G' /etc/polkit-1/rules.d/50-admins-may-run0.rules").stdout == "644 root root\n"
    site.put("File", "motd", {"hosts": [host.name], "path": "/etc/motd", "content": "Hello.\n"})
    site.drop("admins-may-run0")
    site.apply()
    assert not host.exists(f"{RULES}/50-admins-may-run0.rules")
    host.run("sleep 0.5")
    assert refused(host, "run0 id -u")


def test_a_group_may_restart_one_unit_and_nothing_more(site: Site) -> None:
    host = site.host
    host.run(
        "groupadd web; usermod -aG web admin; printf '[Service]\\nExecStart=sleep 999' >/etc/systemd/system/w.service"
    )
    grant = {"action": RUN0, "groups": ["web"], "units": ["w.service"], "verbs": ["start", "restart"]}
    site.grant("web", grant, {"action": HOSTNAME, "users": ["deploy"], "result": "auth_self"})
    assert not site.apply()
    host.run("systemctl restart w.service", user="admin")
    assert host.run("systemctl is-active w.service").stdout == "active\n"
    for command in ("systemctl stop w.service", "systemctl restart ssh.service", "run0 id", "systemctl reboot"):
        assert refused(host, command), command
    assert refused(host, "systemctl restart w.service", user="deploy")
    made = site.plan()
    assert made.empty
    assert not made.findings


def test_documents_of_one_host_do_not_contradict_each_other(site: Site) -> None:
    """What one grants is no finding of the other."""
    site.grant("units", {"action": RUN0, "users": ["admin"], "units": ["w.service"]})
    site.grant("exec", {"actions": [EXEC, HOSTNAME], "users": ["deploy", "admin"]}, priority="10")
    assert not site.apply()
    assert site.plan().empty
    assert site.host.run("pkexec id -u", user="deploy").stdout == "0\n"
    site.grant("exec", {"action": EXEC, "users": ["deploy"]}, priority="10", mustStayDenied=[RUN0, REBOOT])
    assert not site.apply()
    site.grant("exec", {"action": EXEC, "users": ["admin"]}, priority="10", mustStayDenied=[HOSTNAME])
    site.grant("names", {"action": HOSTNAME, "users": ["admin"]})
    assert [(f.rule, "admin" in f.message) for f in site.apply()] == [("granted-too-much", True)]


def test_what_cannot_be_granted_is_said(site: Site) -> None:
    """Accounts and actions that do not exist, and a rule that another one overrules."""
    host = site.host
    plant(host, rule(f'if (action.id == "{REBOOT}" && subject.pid) return polkit.Result.NO;'), "00-first.rules")
    site.grant("a", {"action": REBOOT, "users": ["admin", "nosuch"], "groups": ["users", "nosuch"]})
    site.grant("b", {"action": "org.example.typo", "users": ["admin"]})
    findings = site.apply()
    messages = {f.message for f in findings}
    assert {f.rule for f in findings} == {"not-granted", "unknown-account", "unknown-action"}
    assert f"{host.name}: admin, {REBOOT}: it is granted, but polkit says: no." in messages
    assert f"{host.name}: there is no user nosuch on this host." in messages
    assert f"{host.name}: there is no group nosuch on this host." in messages
    host.run(f"rm {RULES}/00-first.rules")
    host.run("apt-get -qq purge -y polkitd pkexec >/dev/null 2>&1", check=False)
    if host.run("command -v pkcheck", check=False).returncode:
        assert "polkit-missing" in {f.rule for f in site.plan().findings}


# ------------------------------------------------------------------------------------------------ the mistake


def test_the_published_rule_opens_everything_and_both_audits_say_so(site: Site) -> None:
    """It is written by hand, next to a rule of ours that is right."""
    host = site.host
    site.grant("admins-may-run0", {"action": RUN0, "users": ["admin"]})
    site.apply()
    actions = host.run("pkaction").stdout.split()
    assert len(actions) >= 70
    before = verdicts(host, "deploy", *actions)
    plant(host, ARTICLE)
    after = verdicts(host, "admin deploy", *actions)
    assert [a for a in actions if after["admin", a] == 0] == actions, "the mistake opens every action"
    assert {key: status for key, status in after.items() if key[0] == "deploy"} == before
    made = site.plan()
    assert made.empty, "audits change nothing"
    assert found(made.findings) == {
        ("host.polkitRules", "assignment-in-condition"),
        ("host.polkitVerdicts", "granted-too-much"),
    }
    assert f"{RULES}/99-run0.rules:2:" in next(f.message for f in made.findings if f.rule == "assignment-in-condition")
    assert len([f for f in made.findings if f.rule == "granted-too-much"]) == 4
    assert host.read(f"{RULES}/99-run0.rules") == ARTICLE
    host.run(f"rm {RULES}/99-run0.rules")
    assert not site.plan().findings


def test_our_own_file_edited_by_hand_is_repaired(site: Site) -> None:
    host = site.host
    site.grant("admins-may-run0", {"action": RUN0, "users": ["admin"]})
    site.apply()
    path = f"{RULES}/50-admins-may-run0.rules"
    host.run(f"sed -i 's/action.id ===/action.id =/' {path}; sleep 0.5")
    assert verdicts(host, "admin", REBOOT) == {("admin", REBOOT): 0}
    made = site.plan()
    (change,) = made.changes
    assert change.changed == {"content"}
    assert made.drifted == [change.address]
    assert not site.apply()
    assert verdicts(host, "admin", REBOOT) == {("admin", REBOOT): 2}


def test_a_repaired_mode_alone_is_not_taken_for_a_working_rule(site: Site) -> None:
    """polkitd does not read a file again because its mode changed; the audit sees that, and names the cure."""
    host = site.host
    site.grant("admins-may-run0", {"action": RUN0, "users": ["admin"]})
    site.apply()
    path = f"{RULES}/50-admins-may-run0.rules"
    host.run(f"chmod 600 {path}; systemctl reload polkit")
    made = site.plan()
    assert [c.changed for c in made.changes] == [{"mode"}]
    (finding,) = site.apply()
    assert finding.rule == "not-granted"
    assert "`systemctl reload polkit`" in finding.fix
    host.run("systemctl reload polkit")
    assert not site.plan().findings


YES, NO, PASSWORD, SILENT = 0, 1, 2, 137
# Script -> rules that the audit finds; what pkcheck says to admin, then deploy, of rebooting and the host's name.
CONSEQUENCES = {
    "a right rule": (
        rule(f'if (action.id == "{REBOOT}" && subject.user == "admin") return polkit.Result.YES;'),
        [],
        [YES, PASSWORD, PASSWORD, PASSWORD],
    ),
    "assignment, then and": (
        rule(f'if (action.id = "{REBOOT}" && subject.user == "admin") return polkit.Result.YES;'),
        ["assignment-in-condition"],
        [YES, YES, PASSWORD, PASSWORD],
    ),
    "assignment of the user": (
        rule('if (subject.user = "deploy") return polkit.Result.YES;'),
        ["assignment-in-condition"],
        [YES, YES, YES, YES],
    ),
    "assignment of the user, in parentheses": (
        rule(f'if (action.id == "{REBOOT}" && (subject.user = "x")) return polkit.Result.YES;'),
        ["assignment-in-condition"],
        [YES, PASSWORD, YES, PASSWORD],
    ),
    "assignment to an and": (
        rule('if (action.id && subject.user = "admin") return polkit.Result.YES;'),
        ["assignment-in-condition"],
        [NO, NO, NO, NO],
    ),
    "polkit.Result.Yes": (
        rule('if (subject.user == "admin") return polkit.Result.Yes;'),
        ["unknown-result"],
        [PASSWORD, PASSWORD, PASSWORD, PASSWORD],
    ),
    "wrong text": (
        rule('if (subject.user == "admin") return "YES";'),
        ["invalid-result"],
        [NO, NO, PASSWORD, PASSWORD],
    ),
    "unknown name": (rule("if (subject.active) return YES;"), ["undefined-name"], [NO, NO, NO, NO]),
    "unknown name in a word": (rule('if (subjct.user == "admin") return null;'), ["undefined-name"], [NO, NO, NO, NO]),
    "unknown method": (rule('if (subject.isIngroup("a")) return null;'), ["unknown-property"], [NO, NO, NO, NO]),
    "unknown property": (
        rule('if (subject.username == "admin") return polkit.Result.YES;'),
        ["unknown-property"],
        [PASSWORD, PASSWORD, PASSWORD, PASSWORD],
    ),
    "newer method": (rule('if (subject.groups.includes("a")) return null;'), ["newer-javascript"], [NO, NO, NO, NO]),
    "newer JavaScript": (
        'polkit.addRule((action, subject) => "yes");',
        ["newer-javascript"],
        [PASSWORD, PASSWORD, PASSWORD, PASSWORD],
    ),
    "syntax error": (
        rule('if (subject.active { return "yes" }'),
        ["syntax-error"],
        [PASSWORD, PASSWORD, PASSWORD, PASSWORD],
    ),
    "everybody": (
        rule(f'if (action.id == "{REBOOT}") return polkit.Result.YES;'),
        ["everybody"],
        [YES, PASSWORD, YES, PASSWORD],
    ),
    "an answer of the subject": (
        rule('return subject.isInGroup("nosuch") && polkit.Result.YES;'),
        [],
        [PASSWORD, PASSWORD, PASSWORD, PASSWORD],
    ),
    "no text, and it counts as true": (
        rule(f'if (action.id == "{REBOOT}") return subject.user == "admin";'),
        ["invalid-result"],
        [SILENT],
    ),
}


def test_each_mistake_has_the_consequence_that_its_finding_names(lab: Lab, pristine: Pristine) -> None:
    host = pristine("web1")
    for index, (script, _, _) in enumerate(CONSEQUENCES.values()):
        host.write(f"/root/cases/{index}", script)
    files = " ".join(f"/root/cases/{index}" for index in range(len(CONSEQUENCES)))
    seen: dict[str, list[int]] = {name: [] for name in CONSEQUENCES}
    for line in host.run("sh", "-c", ASK, "ask", "admin deploy", files, REBOOT, HOSTNAME).stdout.splitlines():
        case, _, _, status = line.split()
        seen[list(CONSEQUENCES)[int(case)]].append(int(status))
    said = {name: [found for found, _, _ in lint({"/x": script})] for name, (script, _, _) in CONSEQUENCES.items()}
    assert said == {name: rules for name, (_, rules, _) in CONSEQUENCES.items()}
    assert seen == {name: answers for name, (_, _, answers) in CONSEQUENCES.items()}


def test_a_wrong_rule_makes_right_rules_after_it_wrong(site: Site) -> None:
    """It changes the action that they are asked about: whoever they let manage units may then do anything."""
    host = site.host
    site.grant("a", {"action": RUN0, "users": ["deploy"]})
    site.apply()
    plant(host, ARTICLE, "10-run0.rules")
    assert verdicts(host, "deploy", HOSTNAME, REBOOT) == {("deploy", HOSTNAME): YES, ("deploy", REBOOT): YES}
    assert {f.rule for f in site.plan().findings} == {"assignment-in-condition", "granted-too-much"}


def test_files_that_polkitd_cannot_use(site: Site) -> None:
    host = site.host
    grant = rule(f'if (action.id == "{REBOOT}" && subject.user == "admin") return polkit.Result.YES;')
    site.grant("a", {"action": RUN0, "users": ["deploy"]})
    site.apply()
    for name, prepare, wanted in (
        ("50-x.rules", "chmod 600", "unreadable"),
        ("50-x.rule", "chmod 644", "ignored-name"),
        ("50-x.rules", "sed -i '1i // caf\\xe9'", "not-utf8"),
    ):
        host.run(f"cat >/root/x && {prepare} /root/x && mv /root/x {RULES}/{name}; sleep 0.5", input=grant)
        assert verdicts(host, "admin", REBOOT) == {("admin", REBOOT): PASSWORD}, wanted
        assert {f.rule for f in site.plan().findings} == {wanted}
        host.run(f"rm {RULES}/{name}")
    host.run(f"cat >{RULES}/.hidden.rules; systemctl reload polkit; sleep 0.5", input=ARTICLE)
    assert verdicts(host, "admin", REBOOT) == {("admin", REBOOT): YES}, "polkitd reads hidden files"
    assert {f.rule for f in site.plan().findings} >= {"assignment-in-condition"}
    host.run(f"rm {RULES}/.hidden.rules; systemctl reload polkit")
    host.run("mkdir -p /run/polkit-1/rules.d; chmod 777 /run/polkit-1/rules.d")
    assert {f.rule for f in site.plan().findings} == {"writable"}


def test_a_polkit_that_hangs_does_not_hang_the_plan(site: Site) -> None:
    """A rule that returns `true`, and a pipe in the folder: polkitd answers nobody any more."""
    host = site.host
    site.grant("a", {"action": RUN0, "users": ["admin"]})
    site.apply()
    plant(host, rule("return true;"))
    host.run(f"mkfifo {RULES}/p.rules")
    started = time.monotonic()
    findings = site.plan().findings
    assert time.monotonic() - started < 25
    assert found(findings) == {
        ("host.polkitRules", "invalid-result"),
        ("host.polkitRules", "unreadable"),
        ("host.polkitVerdicts", "polkit-hangs"),
    }
    assert any("polkitd waits at it" in f.message for f in findings)
    host.run(f"rm {RULES}/99-run0.rules {RULES}/p.rules; systemctl kill -s KILL polkit")
    assert not site.plan().findings


# ------------------------------------------------------------------------------------------------ the reader


COMPILER = re.compile(r"Error compiling script \S*/zz-(\d+)\.rules: (\S+)")


def test_polkit_and_our_reader_agree_on_what_compiles(lab: Lab, pristine: Pristine) -> None:
    """Every script of the unit tests' tables, given to polkitd itself at once."""
    host = pristine("db1")
    scripts = [*COMPILES.values(), *(script for script, _, _ in REFUSED.values())]
    for index, script in enumerate(scripts):
        host.write(f"{RULES}/zz-{index:03}.rules", script)
    host.run("systemctl restart polkit; sleep 1")
    log = host.run("journalctl --no-pager -o cat -u polkit").stdout
    refused_by_polkit = {int(number) for number, kind in COMPILER.findall(log) if kind == "SyntaxError:"}
    ours = {
        i for i, script in enumerate(scripts) if any(r in ("syntax-error", "newer-javascript") for r in _rules(script))
    }
    assert refused_by_polkit
    assert {scripts[i] for i in ours ^ refused_by_polkit} == set()


def _rules(script: str) -> set[str]:
    return {name for name, _, _ in lint({"/x": script})}


def test_what_debian_ships_has_no_findings(lab: Lab, pristine: Pristine, tmp_path: Path) -> None:
    site = Site(pristine("web2"), tmp_path)
    site.grant("a", {"action": RUN0, "users": ["admin"]})
    assert not site.apply()
    assert len(site.host.run("ls /usr/share/polkit-1/rules.d").stdout.split()) >= 2
    site.project.store.close()
