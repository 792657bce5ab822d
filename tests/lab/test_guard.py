"""Guarded changes on real hosts: what would lock everybody out is taken back, whoever dies meanwhile."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.lab.hosts import Lab, LabHost
from tests.lab.test_spine import Answer, Site, document, end, file, until

DENY = "account required pam_deny.so\n"
SSHD = "/etc/ssh/sshd_config.d/50-guarded.conf"
NOBODY = "AllowUsers nobody\n"
RELOAD = {"unit": "ssh.service", "watch": [SSHD], "onChange": "reload"}


@pytest.fixture
def site(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """One of the hosts is new; that one is `host(site)`."""
    lab.fresh("web1")
    return Site(lab, tmp_path / "site", capsys)


def host(site: Site) -> LabHost:
    return site.lab["web1"]


def sshd(text: str, *hosts: str, **guard: Any) -> list[dict[str, Any]]:
    """A file of sshd's configuration, and the reload by which it counts."""
    written = file("sshd", SSHD, *hosts, content=text)
    if guard:
        written["lifecycle"] = {"guard": guard}
    return [written, document("Service", "ssh", {"hosts": list(hosts), **RELOAD})]


def left_behind(one: LabHost) -> str:
    """Everything of a guard that is on a host."""
    look = (
        "find /var/lib/reconciler /etc/systemd/system /etc/systemd/system/sysinit.target.wants -name '*reconciler*' "
        "2>/dev/null; systemctl list-units --all --no-legend 'reconciler-guard*'; find /etc /root -name '.reconciler.*'"
    )
    return one.run(look, check=False).stdout


def reasons(answer: Answer) -> str:
    return " / ".join(answer.reasons.values())


def armed(one: LabHost) -> bool:
    return any((one.root / "var/lib/reconciler/guard").glob("*/armed"))


# ------------------------------------------------------------------------------------------------ the good way


def test_a_good_change_is_confirmed_and_leaves_nothing_behind(site: Site) -> None:
    """One login more than without a guard: the one that proves that there is a way in."""
    one = host(site)
    one.write(SSHD, "# before us\n", 0o600)
    site.put("sshd", *sshd("MaxAuthTries 5\n", "web1"))
    one.reset_sessions()
    answer = site("apply", "--yes")
    assert answer.status == 0, answer
    assert one.sessions().connections == 2
    assert [e["event"] for e in answer.events if e["event"].startswith("guard")] == ["guard_armed", "guard_confirmed"]
    assert one.read(SSHD) == "MaxAuthTries 5\n"
    assert "maxauthtries 5" in one.run("sshd -T").stdout
    assert left_behind(one) == ""
    assert not one.exists("/var/lib/reconciler")
    assert site("plan").status == 0
    one.reboot()
    assert one.read(SSHD) == "MaxAuthTries 5\n", "confirmed is confirmed"


def test_the_plan_marks_what_may_lock_out(site: Site) -> None:
    site.put("sshd", *sshd(NOBODY, "web1", "web2", "db1", canary=2, confirmWithin="45s"))
    site.put("never", {**file("pam", "/etc/pam.d/x", "web1", content=DENY), "lifecycle": {"guard": "Never"}})
    text = site("plan", output="").text
    assert "! lock-out: a mistake here can keep everybody from logging in" in text
    assert "guarded: the host takes it back unless a new login works within 45s; db1, web1 first, then 1 more" in text
    assert "not guarded: File/pam says `guard: Never`" in text
    risks = {c["address"]: c["risk"] for c in site("plan").plan["changes"] if c["type"] == "host.file"}
    assert risks[f"host.file[web2:{SSHD}]"]["guard"].startswith("guarded: ")


# ------------------------------------------------------------------------------------------------ reverts


def test_a_pam_file_that_locks_everybody_out_is_taken_back(site: Site) -> None:
    one = host(site)
    before = one.run("stat -c '%a %U %G %Y' /etc/pam.d/sshd; cat /etc/pam.d/sshd").stdout
    site.put("pam", file("pam", "/etc/pam.d/sshd", "web1", content=DENY, mode="0600"))
    answer = site("apply", "--yes")
    assert answer.status == 1
    assert set(answer.outcomes.values()) == {"failed"}
    assert "a new login did not work" in reasons(answer)
    assert "It was reverted: the old state is back." in reasons(answer)
    assert one.run("stat -c '%a %U %G %Y' /etc/pam.d/sshd; cat /etc/pam.d/sshd").stdout == before
    again = site("plan")
    assert again.changes == {"host.file[web1:/etc/pam.d/sshd]": {"content", "mode"}}
    assert one.run("systemctl is-system-running", check=False).stdout == "running\n"


def test_an_sshd_that_lets_nobody_in_is_taken_back(site: Site) -> None:
    """The file was not there before; the server reads its configuration again after it has gone."""
    one = host(site)
    site.put("sshd", *sshd(NOBODY, "web1"))
    answer = site("apply", "--yes")
    assert set(answer.outcomes.values()) == {"failed"}, answer
    assert not one.exists(SSHD)
    assert "allowusers" not in one.run("sshd -T").stdout


def test_a_broken_file_that_breaks_nothing_yet_is_taken_back(site: Site) -> None:
    """Until sshd or sudo reads it, everybody gets in as before."""
    site.put(
        "files",
        file("sshd", SSHD, "web1", content="NoSuchOption yes\n"),
    )
    answer = site("apply", "--yes")
    assert "the host says: " in reasons(answer)
    assert "NoSuchOption" in reasons(answer)
    site.put("files", file("sudo", "/etc/sudoers.d/x", "web1", content="admin ALL=(ALL\n", mode="0440"))
    answer = site("apply", "--yes")
    assert "/etc/sudoers.d/x" in reasons(answer)
    assert not host(site).exists(SSHD)
    assert not host(site).exists("/etc/sudoers.d/x")


def test_sudoers_that_keep_us_from_root_are_taken_back(site: Site) -> None:
    """We log in as admin: the login goes well, the privilege test does not."""
    one = host(site)
    one.write("/etc/sudoers.d/admin", "admin ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    site.describe(web1={"user": "admin", "become": "sudo"})
    site.put("sudo", file("sudo", "/etc/sudoers.d/zz", "web1", content="admin ALL=(ALL) !ALL\n", mode="0440"))
    answer = site("apply", "--yes")
    assert "a new login did not work" in reasons(answer)
    assert not one.exists("/etc/sudoers.d/zz")
    assert one.run("sudo -n id -u", user="admin").stdout == "0\n"
    site.drop("sudo")
    site.put("user", document("User", "admin", {"hosts": ["web1"], "locked": False, "expires": "2020-01-01"}))
    planned = site("plan", output="").text
    assert "it concerns how we log in" in planned
    answer = site("apply", "--yes")
    assert "the old state is back" in reasons(answer), answer
    assert one.run("chage -l admin | grep Account").stdout.split(":")[1].strip() == "never"
    assert site("plan").changes == {"host.user[web1:admin]": {"expires"}}


def test_without_the_rights_of_root(site: Site) -> None:
    """Our own key, as nobody special: the copies lie in the own home folder, and the timer is a process."""
    one = host(site)
    key = site.lab.slot.public_key
    before = one.read("/home/admin/.ssh/authorized_keys")
    site.describe(web1={"user": "admin"})

    def keys(*lines: str) -> None:
        site.put("user", document("User", "admin", {"hosts": ["web1"], "authorizedKeys": list(lines)}))

    keys(f'command="/bin/false" {key}')
    answer = site("apply", "--yes")
    assert "the old state is back" in reasons(answer), answer
    assert one.read("/home/admin/.ssh/authorized_keys") == before
    keys(f"{key} admin@lab")
    assert site("apply", "--yes").status == 0
    assert one.read("/home/admin/.ssh/authorized_keys") == f"{key} admin@lab\n"
    assert (
        one.run("find ~/.local ~/.ssh -name '*reconciler*'; pgrep -u admin sleep", user="admin", check=False).stdout
        == ""
    )


def test_by_the_openssh_client_that_shares_connections(site: Site) -> None:
    """A shared connection is no new login, and proves nothing."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        shared = Path(folder, "config")
        shared.write_text(f"Host *\n  ControlMaster auto\n  ControlPersist 30\n  ControlPath {folder}/%C\n")
        site.describe(web1={"client": "openssh", "configFile": str(shared)})
        site.put("pam", file("pam", "/etc/pam.d/sshd", "web1", content=DENY))
        answer = site("apply", "--yes")
        assert [path.is_socket() for path in Path(folder).iterdir()].count(True) == 1
        assert "the old state is back" in reasons(answer), answer
        site.put("pam", file("pam", "/etc/pam.d/other-service", "web1", content=DENY))
        assert site("apply", "--yes").status == 0


# ------------------------------------------------------------------------------------------------ who dies


def killed_in_the_window(site: Site, seconds: int) -> LabHost:
    """kill -9 of the tool after it wrote the file, before it was confirmed."""
    one = host(site)
    one.write(SSHD, "MaxAuthTries 4\n", 0o640)
    site.put("sshd", *sshd(NOBODY, "web1", confirmWithin=f"{seconds}s"))
    process = site.start("apply", "--yes")
    until(lambda: one.read(SSHD) == NOBODY, process)
    process.kill()
    process.wait()
    assert armed(one)
    return one


def assert_reverted(site: Site, one: LabHost) -> None:
    """The old state is on the host, and a resume says so, and ends the run."""
    assert one.run(f"stat -c '%a %U' {SSHD}; cat {SSHD}").stdout == "640 root\nMaxAuthTries 4\n"
    answer = site("resume")
    assert answer.status == 1
    assert "it was reverted: the old state is back. Plan again." in reasons(answer), answer
    assert "was killed" not in site("plan").errors
    assert not armed(one)
    assert one.run(f"cat {SSHD}").stdout == "MaxAuthTries 4\n"


def test_the_host_reverts_by_itself_when_the_tool_is_killed(site: Site) -> None:
    one = killed_in_the_window(site, 8)
    until(lambda: not armed(one), seconds=30)
    until(lambda: one.read(SSHD) == "MaxAuthTries 4\n", seconds=5)
    until(lambda: one.run("true", check=False).returncode == 0, seconds=10)
    assert_reverted(site, one)


def test_a_resume_inside_the_window_reverts_at_once(site: Site) -> None:
    one = killed_in_the_window(site, 600)
    one.run("true", check=False)
    # Nobody gets in: the host still waits. Only a connection that is there could ask; so the server is set right.
    one.path(SSHD).unlink()
    subprocess.run(["kill", "-HUP", _sshd(one)], check=True)
    until(lambda: one.run("true", check=False).returncode == 0, seconds=10)
    answer = site("apply", "--yes")
    assert "another guarded change" in reasons(answer), answer
    assert not one.exists(SSHD)
    answer = site("resume")
    assert "it was reverted" in reasons(answer), answer
    assert one.read(SSHD) == "MaxAuthTries 4\n"
    assert not armed(one)


def _sshd(one: LabHost) -> str:
    """The number of the listening sshd, as this machine counts."""
    for group in sorted((one._group).rglob("ssh.service/cgroup.procs")):
        return group.read_text().split()[0]
    raise AssertionError("there is no sshd")


@pytest.mark.parametrize("how", ["power cut", "reboot"])
def test_a_host_that_goes_down_in_the_window_comes_up_as_before(site: Site, how: str) -> None:
    """The timer is gone with its boot; the unit that runs at boot is not."""
    one = killed_in_the_window(site, 600)
    if how == "reboot":
        one.reboot()
    else:
        one.kill()
        one.start()
    assert one.run("systemctl is-system-running --wait", check=False).stdout == "running\n"
    assert "systemd" not in left_behind(one)
    assert_reverted(site, one)


def test_what_cannot_be_put_back_now_is_put_back_soon(site: Site) -> None:
    """The time is over while nothing can be written: it is tried again, with nobody's help and without a reboot."""
    one = host(site)
    one.write(SSHD, "MaxAuthTries 4\n", 0o640)
    site.put("sshd", *sshd("MaxAuthTries 3\n", "web1", confirmWithin="8s"))
    process = site.start("apply", "--yes")
    until(lambda: one.read(SSHD) == "MaxAuthTries 3\n", process)
    process.kill()
    process.wait()
    folder = SSHD.rpartition("/")[0]
    one.run(f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}")
    until(lambda: any((one.root / "var/lib/reconciler/guard").glob("*/reverting")), seconds=30)
    # The server restarts meanwhile.
    until(lambda: one.run(f"umount {folder} && cat {SSHD}", check=False).stdout == "MaxAuthTries 3\n", seconds=30)
    until(lambda: not list((one.root / "var/lib/reconciler/guard").glob("*/reverting")), seconds=40)
    until(lambda: one.run("true", check=False).returncode == 0, seconds=10)
    assert_reverted(site, one)
    assert "systemd" not in left_behind(one)


def test_remains_of_a_guard_go_at_the_next_boot(site: Site) -> None:
    """The host went down just after a change was confirmed, before the copies (of /etc/shadow, say) were removed."""
    one = killed_in_the_window(site, 600)
    (marker,) = (one.root / "var/lib/reconciler/guard").glob("*/armed")
    marker.rename(marker.with_name("confirmed"))
    one.kill()
    one.path(SSHD).write_text("MaxAuthTries 5\n")
    one.start()
    assert one.run("systemctl is-system-running --wait", check=False).stdout == "running\n"
    assert one.read(SSHD) == "MaxAuthTries 5\n", "what was confirmed is not taken back"
    assert "systemd" not in left_behind(one)
    assert not list((one.root / "var/lib/reconciler/guard").glob("*"))
    site("resume")
    assert one.read(SSHD) == "MaxAuthTries 5\n"
    assert "was killed" not in site("plan").errors


def test_a_host_that_cannot_be_reached_any_more(site: Site) -> None:
    """The tool lives, and waits until it can say what became of the change."""
    one = host(site)
    site.put("sshd", *sshd("MaxAuthTries 3\n", "web1", confirmWithin="10s"))
    process = site.start("apply", "--yes")
    until(lambda: one.exists(SSHD), process)
    one.unplug()
    until(lambda: not one.exists(SSHD), process, seconds=30)
    one.plug()
    answer = end(process, 120)
    assert set(answer.outcomes.values()) == {"failed"}, answer
    assert "It was reverted" in reasons(answer)


# ------------------------------------------------------------------------------------------------ canary


def test_the_canary_stops_the_rest(site: Site) -> None:
    """The first host takes the change back; the others are not touched. A good change reaches all of them."""
    lab = site.lab
    lab.fresh("web2", "db1")
    before = {one.name: one.read("/etc/pam.d/sshd") for one in lab}
    names = [one.name for one in lab]
    site.put(
        "pam",
        file("pam", "/etc/pam.d/sshd", *names, content=DENY),
        file("motd", "/etc/motd", *names, content="Hello.\n"),
    )
    lab["web2"].reset_sessions()
    answer = site("apply", "--yes")
    assert answer.outcomes == {
        "host.file[db1:/etc/pam.d/sshd]": "failed",
        "host.file[web1:/etc/pam.d/sshd]": "skipped",
        "host.file[web2:/etc/pam.d/sshd]": "skipped",
        **{f"host.file[{name}:/etc/motd]": "done" for name in names},
    }
    assert answer.reasons["host.file[web1:/etc/pam.d/sshd]"] == (
        "db1 goes first and was not confirmed: host.file[db1:/etc/pam.d/sshd] is failed"
    )
    assert {one.name: one.read("/etc/pam.d/sshd") for one in lab} == before
    assert not any((one.root / "var/lib/reconciler").exists() for one in lab if one.name != "db1")
    site.put("pam", file("pam", "/etc/pam.d/sshd", *names, content=before["web1"] + "# ours\n"))
    answer = site("apply", "--yes")
    assert answer.status == 0, answer
    confirmed = [e["target"] for e in answer.events if e["event"] == "guard_confirmed"]
    assert confirmed[0] == "db1"
    assert sorted(confirmed) == sorted(names)


# ------------------------------------------------------------------------------------------------ what is kept


def test_folders_links_and_units_come_back(site: Site) -> None:
    """A document with a guard of its own; one of its changes fails, so that none stays."""
    one = host(site)
    one.run(
        "mkdir -p /etc/sudoers.d/; echo '# a' >/etc/sudoers.d/a; chmod 440 /etc/sudoers.d/a; ln -s a /etc/sudoers.d/b; "
        "apt-get -qq install -y lab-daemon >/dev/null 2>&1; echo '# old' >/etc/lab-daemon.conf"
    )
    look = (
        "ls -lR --time-style=full-iso /etc/sudoers.d; cat /etc/sudoers.d/a /etc/lab-daemon.conf; "
        "systemctl is-enabled lab-daemon; systemctl is-active lab-daemon"
    )
    before = one.run(look).stdout
    guard: Mapping[str, Any] = {"guard": {"confirmWithin": "60s"}}
    documents: Sequence[dict[str, Any]] = [
        document("File", "purged", {"hosts": ["web1"], "path": "/etc/sudoers.d", "directory": {"purge": True}}),
        document(
            "File", "conf", {"hosts": ["web1"], "path": "/etc/lab-daemon.conf", "content": "GREETING=new\n"}, **guard
        ),
        document(
            "Service",
            "daemon",
            {"hosts": ["web1"], "unit": "lab-daemon.service", "enabled": False, "running": False},
            **guard,
        ),
        document("File", "bad", {"hosts": ["web1"], "path": SSHD, "content": "NoSuchOption yes\n"}),
    ]
    site.put("all", *documents)
    answer = site("apply", "--yes")
    assert set(answer.outcomes.values()) == {"failed"}, json.dumps(answer.reasons)
    assert one.run(look).stdout == before
