"""From records of a log to rules of a document."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reconciler.cli.main import run as main
from reconciler.tools.apparmor.globs import matches
from reconciler.tools.apparmor.reading import read
from reconciler.tools.apparmor.records import accesses
from reconciler.tools.apparmor.render import profile, text
from reconciler.tools.apparmor.rules import ProfileBody
from reconciler.tools.apparmor.suggest import Suggestion, general, letters_of, suggest

PROFILE = """\
include <tunables/global>
@{DATA}=/srv/data
profile app /usr/bin/app {
  include <abstractions/base>
  capability chown,
  network inet stream,
  signal (send) set=(term) peer=helper,
  /usr/bin/app mr,
  @{DATA}/** r,
  owner /tmp/app/** rw,
  /var/log/app.log r,
  audit deny /etc/shadow r,
  /usr/bin/id ix,
  profile child {
    /c r,
  }
}
"""
KERNEL = (
    'Nov 22 10:00:00 h kernel: audit: type=1400 audit({at}.5:{n}): apparmor="{v}" operation="{op}" profile="{p}" {rest}'
)


def record(op: str, rest: str, *, v: str = "ALLOWED", p: str = "app", n: int = 1) -> str:
    """A line as auditd writes it."""
    return (
        f'type=AVC msg=audit(1700000000.123:{n}): apparmor="{v}" operation="{op}" profile="{p}" pid=1 comm="app" {rest}'
    )


def opened(name: str, mask: str = "r", ids: str = "fsuid=0 ouid=0") -> str:
    """What a record of a file says."""
    return f'name="{name}" requested_mask="{mask}" denied_mask="{mask}" {ids}'


def proposals(*lines: str, p: str = "app") -> Suggestion:
    return suggest(accesses(lines), p, read(PROFILE))


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a file": (record("open", opened("/etc/app.conf")), {"files": [{"path": "/etc/app.conf", "access": "r"}]}),
    "created and deleted": (record("mknod", opened("/srv/x", "c")), {"files": [{"path": "/srv/x", "access": "w"}]}),
    "allowed meanwhile": (record("open", opened("/srv/data/a/b")), {}),
    "by an abstraction that it has": (record("open", opened("/etc/ld.so.cache")), {}),
    "by an abstraction that it has not": (
        record("open", opened("/etc/nsswitch.conf")),
        {"includes": ["abstractions/nameservice"]},
    ),
    "wider than its rule": (
        record("open", opened("/var/log/app.log", "wc")),
        {"files": [{"path": "/var/log/app.log", "access": "rw"}]},
    ),
    "owned": (
        record("open", opened("/home/eve/.app", "r", "fsuid=1000 ouid=1000")),
        {"files": [{"path": "@{HOME}/.app", "access": "r", "owner": True}]},
    ),
    "somebody else's": (
        record("open", opened("/tmp/app/x", "r", "fsuid=0 ouid=1000")),
        {"files": [{"path": "/tmp/app/x", "access": "r"}]},
    ),
    "in hex": (
        record("open", 'name=2F7372762F74776F20776F726473 requested_mask="r" denied_mask="r" fsuid=0 ouid=0'),
        {"files": [{"path": "/srv/two words", "access": "r"}]},
    ),
    "a start": (
        record("exec", opened("/usr/bin/gzip", "x") + ' target="app//null-/usr/bin/gzip"'),
        {"exec": [{"path": "/usr/bin/gzip", "to": "inherit", "access": "mr"}]},
    ),
    "a start that it may": (record("exec", opened("/usr/bin/id", "x")), {}),
    "of a program without a rule": (
        record("open", opened("/etc/x"), p="app//null-/usr/bin/gzip"),
        {"files": [{"path": "/etc/x", "access": "r"}]},
    ),
    "a capability": (
        record("capable", 'capability=10 capname="net_bind_service"'),
        {"capabilities": ["net_bind_service"]},
    ),
    "a capability that it has": (record("capable", 'capability=0 capname="chown"'), {}),
    "a socket": (
        record("create", 'family="netlink" sock_type="raw" protocol=0 requested_mask="create" denied_mask="create"'),
        {"network": [{"family": "netlink", "type": "raw"}]},
    ),
    "a socket that it may": (record("create", 'family="inet" sock_type="stream" requested_mask="create"'), {}),
    "a signal": (
        record("signal", 'requested_mask="send" denied_mask="send" signal=hup peer="helper"'),
        {"signals": [{"access": ["send"], "signals": ["hup"], "peer": "helper"}]},
    ),
    "a signal that it may": (
        record("signal", 'requested_mask="send" denied_mask="send" signal=term peer="helper"'),
        {},
    ),
    "tracing": (
        record("ptrace", 'requested_mask="read" denied_mask="read" peer="unconfined"'),
        {"ptrace": [{"access": ["read"], "peer": "unconfined"}]},
    ),
    "a mount": (
        record("mount", 'name="/mnt/" fstype="tmpfs" srcname="tmpfs" flags="rw, nosuid"'),
        {"mount": [{"action": "mount", "options": ["rw", "nosuid"], "fstype": "tmpfs", "target": "/mnt/"}]},
    ),
    "D-Bus": (
        'type=USER_AVC msg=audit(1700000000.9:3): pid=1 uid=0 msg=\'apparmor="DENIED" operation="dbus_method_call"  '
        'bus="system" path="/org/x" interface="org.x.Y" member="Do" mask="send" name="org.x" pid=9 label="app" '
        'peer_pid=1 peer_label="unconfined"  exe="/usr/bin/dbus-daemon"\'',
        {
            "dbus": [
                {
                    "access": ["send"],
                    "bus": "system",
                    "path": "/org/x",
                    "interface": "org.x.Y",
                    "member": "Do",
                    "peerLabel": "unconfined",
                }
            ]
        },
    ),
    "the kernel's own log": (
        KERNEL.format(at=1700000001, n=7, v="DENIED", op="open", p="app", rest=opened("/srv/k")),
        {"files": [{"path": "/srv/k", "access": "r"}]},
    ),
    "a name that no document can hold": (
        record("open", f'name={b"/srv/a".hex().upper()}22620A63FF requested_mask="r" denied_mask="r"'),
        {"files": [{"path": "/srv/a?b?c?", "access": "r"}]},
    ),
    "an open file's number": (
        record("open", opened("/proc/17/fdinfo/12")),
        {"files": [{"path": "@{PROC}/@{pid}/fdinfo/[0-9]*", "access": "r", "owner": True}]},
    ),
    "a change of profile without a target": (
        record("change_onexec", 'info="label not found" error=-2 name="other"'),
        {"extraRules": ["change_profile -> other"]},
    ),
    "the same name in a container's namespace": (record("open", 'namespace="root//ct" ' + opened("/etc/x")), {}),
    "another profile's": (record("open", opened("/srv/x"), p="application"), {}),
    "a child's": (record("open", opened("/srv/x"), p="app//child"), {}),
    "the status of a load": ('type=AVC msg=audit(1.1:1): apparmor="STATUS" operation="profile_load" name="app"', {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_record_becomes_a_rule(name: str) -> None:
    line, expected = CASES[name]
    found = proposals(line)
    assert found.spec == expected
    assert found.records == found.covered + sum(p.count for p in found.proposals) + len(found.unclear)


@pytest.mark.parametrize("name", CASES)
def test_a_proposal_is_a_document_that_answers_the_record(name: str) -> None:
    """What is proposed is valid, and with it there is nothing more to propose."""
    line, expected = CASES[name]
    spec = {"includes": ["abstractions/base"], **expected}
    if "includes" in expected:
        spec["includes"] = ["abstractions/base", *expected["includes"]]
    written = text(profile(ProfileBody.model_validate(spec), "app", "/usr/bin/app", "usr.bin.app"))
    if expected and not expected.keys() & {"mount", "dbus"}:
        assert suggest(accesses([line]), "app", read(written)).spec == {}


def test_many_records_become_few_rules() -> None:
    lines = [record("open", opened(f"/srv/pages/{i}.html"), n=i) for i in range(6)]
    lines += [record("open", opened("/srv/pages/one.css"), n=20), record("open", opened("/proc/17/stat"), n=21)]
    lines += [record("open", opened("/proc/18/stat"), n=22), record("open", opened("/proc/18/stat", "w"), n=23)]
    found = proposals(*lines)
    assert found.spec == {
        "files": [
            {"path": "/srv/pages/*.html", "access": "r"},
            {"path": "/srv/pages/one.css", "access": "r"},
            {"path": "@{PROC}/@{pid}/stat", "access": "rw", "owner": True},
        ]
    }
    assert [p.count for p in found.proposals] == [6, 1, 3]


def test_one_record_in_two_logs_counts_once() -> None:
    rest = opened("/srv/k")
    kernel = KERNEL.format(at=1700000000, n=7, v="ALLOWED", op="open", p="app", rest=rest)
    audit = (
        f'type=AVC msg=audit(1700000000.5:7): apparmor="ALLOWED" operation="open" profile="app" {rest}\x1dUID="root"'
    )
    assert len(list(accesses([kernel, audit]))) == 1


def test_what_the_profile_denies_on_purpose_is_not_proposed() -> None:
    found = proposals(record("open", opened("/etc/shadow"), v="DENIED"))
    assert found.proposals == []
    assert "the profile denies it" in found.unclear[0]


def test_what_becomes_no_rule_says_why() -> None:
    """A socket of a mount that the process does not see: the profile needs a flag, not a rule."""
    why = 'info="Failed name lookup - disconnected path" error=-13 '
    found = proposals(record("sendmsg", why + opened("run/systemd/journal/dev-log", "w")))
    assert found.proposals == []
    assert found.unclear == [
        "allowed w sendmsg run/systemd/journal/dev-log by app: Failed name lookup - disconnected path"
    ]


def test_a_child_has_suggestions_of_its_own() -> None:
    found = proposals(record("open", opened("/d"), p="app//child"), p="app//child")
    assert found.spec == {"files": [{"path": "/d", "access": "r"}]}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/proc/1/task/2/comm", "@{PROC}/@{pid}/task/@{tid}/comm"),
        ("/proc/sys/kernel/osrelease", "@{PROC}/sys/kernel/osrelease"),
        ("/sys/devices/x", "@{sys}/devices/x"),
        ("/run/user/1000/bus", "@{run}/user/@{uid}/bus"),
        ("/usr/lib/x86_64-linux-gnu/libx.so.1.2", "/usr/lib/@{multiarch}/libx.so*"),
        ("/usr/share/app-1.2.3/a", "/usr/share/app-*/a"),
        ("/lib/modules/6.12.1-amd64/x", "/lib/modules/*/x"),
        ("/usr/lib/python3.13/os.py", "/usr/lib/python3.*/os.py"),
        ("/var/lib/a/550e8400-e29b-41d4-a716-446655440000/b", "/var/lib/a/*/b"),
        ("/tmp/tmpab12cd_3", "/tmp/tmp*"),
        ("/tmp/sort8sKd2X", "/tmp/sort*"),
        ("/var/lib/php/sessions/sess_abc123def456", "/var/lib/php/sessions/sess_*"),
        ("/run/app.1234", "/run/app.*"),
        ("/run/app.pid", "/run/app.pid"),
        ("/etc/app/10-main.conf", "/etc/app/10-main.conf"),
        ("/usr/bin/python3", "/usr/bin/python3"),
        ("/srv/a*b[c]", r"/srv/a\*b\[c\]"),
        ("/home/eve/x", "@{HOME}/x"),
    ],
)
def test_patterns_are_proposed(path: str, expected: str) -> None:
    assert general(path) == expected
    assert matches(expected, path)


@given(st.from_regex(r"/[A-Za-z0-9_.{}*\[\]^/-]{1,30}", fullmatch=True).filter(lambda p: "//" not in p))
def test_a_proposed_pattern_means_the_path(path: str) -> None:
    assert matches(general(path), path)


def test_letters() -> None:
    assert letters_of("wrc") == "rw"
    assert letters_of("aw") == "w"
    assert letters_of("ac") == "w"
    assert letters_of("mrk") == "rmk"
    assert letters_of("send") in ("w", "")


@given(st.text(max_size=80))
def test_no_line_of_a_log_is_a_traceback(line: str) -> None:
    for prefix in ("", 'apparmor="DENIED" '):
        for one in accesses([prefix + line]):
            suggest([one], one.confined)


# ------------------------------------------------------------------------------------------------ the command

HOST = "apiVersion: reconciler/v1\nkind: Host\nmetadata: {name: web1}\nspec: {connection: image, root: web1}\n---\n"
DOCUMENT = """\
apiVersion: reconciler/v1
kind: AppArmorProfile
metadata: {name: app}
spec:
  hosts: [web1]
  program: /usr/bin/app
  profile: app
  files: [{path: /usr/bin/app, access: mr}]
"""


@pytest.fixture
def desired(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_text(HOST + DOCUMENT)
    return tmp_path


def test_suggest_from_a_file_and_from_standard_input(
    desired: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = desired / "audit.log"
    log.write_text(f"{record('open', opened('/etc/x'))}\nnoise \xff\n{record('open', opened('/usr/bin/app'), n=2)}\n")
    assert main(["apparmor", "suggest", "app", "--path", str(desired), "--log", str(log)]) == 2
    said = capsys.readouterr().out
    assert YAML(typ="safe").load(said) == {"spec": {"files": [{"path": "/etc/x", "access": "r"}]}}
    assert "AppArmorProfile/app, profile app: 2 records, 1 of them need nothing new." in said
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(log.read_bytes())))
    assert main(["apparmor", "suggest", "--profile", "app", "--log", "-", "--output", "json"]) == 2
    (found,) = json.loads(capsys.readouterr().out)["suggestions"]
    assert [p["section"] for p in found["proposals"]] == ["files", "files"]
    log.write_text("")
    assert main(["apparmor", "suggest", "app", "--path", str(desired), "--log", str(log)]) == 0
    assert "Nothing new." in capsys.readouterr().out


def test_a_hostile_log_stays_text(desired: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name of a file is anybody's to choose: it becomes a quoted value, and no other YAML."""
    name = "/srv/x, access: rw}\n  - {path: /**\x1b[31m"
    log = desired / "audit.log"
    log.write_text(record("open", f'name={name.encode().hex().upper()} requested_mask="r" denied_mask="r"') + "\n")
    assert main(["apparmor", "suggest", "app", "--path", str(desired), "--log", str(log)]) == 2
    said = capsys.readouterr().out
    assert "\x1b" not in said
    (rule,) = YAML(typ="safe").load(said)["spec"]["files"]
    assert rule["access"] == "r"
    assert rule["path"].startswith("/srv/x, access: rw")


def test_lint_and_render(desired: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apparmor", "lint", "--path", str(desired)]) == 0
    assert main(["apparmor", "render", "app", "--path", str(desired)]) == 0
    said = capsys.readouterr().out
    assert "profile app /usr/bin/app {" in said
    file = desired / "x.profile"
    file.write_text("profile x {\n  deny /a r,\n}\n")
    assert main(["apparmor", "lint", str(file)]) == 1
    assert f"{file}:2:1: silent-deny:" in capsys.readouterr().out
    assert main(["apparmor", "lint", str(file), "--output", "json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["rule"], problem["line"]) == ("silent-deny", 2)


@pytest.mark.parametrize(
    "words",
    [
        ["suggest", "nosuch"],
        ["suggest", "--log", "/nonexistent/log"],
        ["suggest", "--profile", "x"],
        ["render", "nosuch"],
        ["lint", "/nonexistent/profile"],
    ],
)
def test_mistakes_on_the_command_line(desired: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = [] if words[0] == "lint" else ["--path", str(desired)]
    assert main(["apparmor", *words, *path]) == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert said.err.strip()
