"""The lab itself: it must be real, strict, repeatable, and gone afterwards."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import base
from tests.lab.endpoints import Endpoints
from tests.lab.hosts import STATE, Lab, LabError, LabHost, Sessions, Setup, Slot, count_sessions, mounts_below

ROOT = Path(__file__).parents[2]
RULE = """\
polkit.addRule(function(action, subject) {
    if (action.id == "org.freedesktop.systemd1.manage-units" && subject.user == "admin") {
        return polkit.Result.YES;
    }
});
"""
OWNER = """\
import signal, sys, time
# Whoever starts tests in the background may have Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.lab.hosts import Lab
with Lab("solo") as lab:
    print(lab.slot.number, flush=True)
    time.sleep(600)
"""

Pristine = Callable[..., LabHost]


def leftovers(number: int) -> list[str]:
    """What still exists on this machine that carries a slot's number."""
    name = f"rl{number}"
    found = [str(path) for path in mounts_below(STATE / str(number))]
    found += [str(path) for path in [STATE / str(number), Slot._group(number)] if path.exists()]
    found += [str(path) for pattern in (name, f"{name}-*") for path in Path("/run/netns").glob(pattern)]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{STATE}/{number}/" in command or f"--machine={name}-" in command:
            found.append(f"{process.name}: {command}")
    return found


def test_three_hosts_are_up_and_nothing_failed(lab: Lab) -> None:
    """Not merely reachable: systemd says `running`, so no unit failed."""
    assert [host.name for host in lab] == ["web1", "web2", "db1"]
    for host in lab:
        assert host.wait() == "running", host.run("systemctl --failed --no-legend").stdout
        assert host.run("hostname").stdout.strip() == host.name
        assert host.run("cat /proc/1/comm").stdout.strip() == "systemd"
    assert len({host.read("/etc/machine-id") for host in lab}) == 3


def test_people_and_their_privileges(lab: Lab) -> None:
    """Three accounts with one key: root, admin with no rights at all, deploy with sudo."""
    web1 = lab["web1"]
    assert web1.run("id", "-u").stdout == "0\n"
    assert web1.run("id", "-u", user="admin").stdout == "1000\n"
    assert web1.run("id", "-Gn", user="admin").stdout == "admin\n"
    assert web1.run("sudo -n id -u", user="admin", check=False).returncode != 0
    assert web1.run("sudo", "-n", "id", "-u", user="deploy").stdout == "0\n"
    assert web1.run("echo $((6 * 7)); cat", input="from here").stdout == "42\nfrom here"


def test_a_failing_command_says_where_and_what(lab: Lab) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        lab["web1"].run("echo nope >&2; exit 3")
    assert caught.value.returncode == 3
    assert caught.value.__notes__ == ["on web1 as root: nope\n"]


def test_host_keys_are_verified(lab: Lab) -> None:
    """A host that shows another host's key is refused, and a stranger is, too."""
    ssh = ["ssh", "-F", str(lab.ssh_config)]
    for alias in ("web2", "stranger"):
        swapped = subprocess.run(
            lab.command([*ssh, "-o", f"HostKeyAlias={alias}", "web1", "true"]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert swapped.returncode == 255
        assert "Host key verification failed" in swapped.stderr
    by_address = ["ssh", "-F", "none", "-i", str(lab.key), "-o", f"UserKnownHostsFile={lab.known_hosts}"]
    options = ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    subprocess.run(lab.command([*by_address, *options, lab["web1"].address, "true"]), check=True)


def test_sessions_are_counted_by_the_server(lab: Lab, tmp_path: Path) -> None:
    """One connection with three commands and one sftp is told apart from four connections."""
    web1 = lab["web1"]
    web1.reset_sessions()
    assert web1.sessions() == Sessions(0, 0, 0, 0)
    ssh = ["ssh", "-F", str(lab.ssh_config), "-S", str(tmp_path / "control")]
    subprocess.run(lab.command([*ssh, "-M", "-f", "-N", "web1"]), check=True)
    for _ in range(3):
        subprocess.run(lab.command([*ssh, "web1", "true"]), check=True)
    sftp = ["sftp", "-F", str(lab.ssh_config), "-o", f"ControlPath={tmp_path / 'control'}", "web1"]
    subprocess.run(lab.command(sftp), input="pwd\n", text=True, stdout=subprocess.DEVNULL, check=True)
    subprocess.run(lab.command([*ssh, "-O", "exit", "web1"]), stderr=subprocess.DEVNULL, check=True)
    assert web1.sessions() == Sessions(connections=1, commands=3, subsystems=1, shells=0)
    for _ in range(2):
        web1.run("true", user="admin")
    assert web1.sessions() == Sessions(connections=3, commands=5, subsystems=1, shells=0)
    assert web1.sessions().sessions == 6
    web1.reset_sessions()
    assert web1.sessions().connections == 0


def test_session_counts_read_what_sshd_writes() -> None:
    log = """\
Accepted key ED25519 SHA256:x found at /root/.ssh/authorized_keys:1
Accepted publickey for root from 10.0.0.1 port 5 ssh2: ED25519 SHA256:x
Starting session: command for root from 10.0.0.1 port 5 id 0
Starting session: forced-command (config) 'x' for root from 10.0.0.1 port 5 id 1
Starting session: subsystem 'sftp' for root from 10.0.0.1 port 5 id 2
Starting session: shell on pts/0 for root from 10.0.0.1 port 5 id 3
"""
    assert count_sessions(log) == Sessions(1, 2, 1, 1)


def test_the_disk_survives_poweroff_and_power_cut(lab: Lab, pristine: Pristine) -> None:
    """And a new disk does not know what was on the old one."""
    host = pristine("web2")
    identity = host.read("/etc/machine-id")
    host.run("echo kept >/root/kept; sync")
    host.poweroff()
    assert not host.running
    assert host.read("/root/kept") == "kept\n"
    host.start()
    assert host.run("cat /root/kept").stdout == "kept\n"
    host.run("systemd-run --quiet --unit=doomed sleep infinity")
    host.kill()
    assert not host.running
    host.start()
    assert host.run("cat /root/kept").stdout == "kept\n"
    assert host.run("systemctl is-active doomed", check=False).stdout == "inactive\n"
    assert host.read("/etc/machine-id") == identity
    assert not pristine("web2").exists("/root/kept")
    assert host.wait() == "running"
    assert lab["web1"].running


def test_reboot_by_the_lab_and_from_within(lab: Lab, pristine: Pristine) -> None:
    """A host that reboots itself comes back by itself, with its network."""
    host = pristine("web2")
    boots = [host.run("cat /proc/sys/kernel/random/boot_id").stdout]
    host.reboot()
    boots.append(host.run("cat /proc/sys/kernel/random/boot_id").stdout)
    leader = host.leader()
    host.run("systemctl reboot", check=False)
    while Path(f"/proc/{leader}").exists():
        time.sleep(0.02)
    assert host.wait() == "running"
    boots.append(host.run("cat /proc/sys/kernel/random/boot_id").stdout)
    assert len(set(boots)) == 3


def test_real_packages_without_a_network(pristine: Pristine) -> None:
    """Install, upgrade, hold, remove and purge, by apt itself; a service starts as in any Debian package."""
    host = pristine("web1")
    apt = "DEBIAN_FRONTEND=noninteractive apt-get -q -y"
    host.run(f"apt-get -q update && {apt} install lab-daemon lab-hello=1.0")
    states = "systemctl is-active lab-daemon; systemctl is-enabled lab-daemon"
    assert host.run(states).stdout == "active\nenabled\n"
    assert host.run("lab-hello").stdout == "hello from lab-hello 1.0\n"
    host.run(f"apt-mark hold lab-hello && {apt} upgrade")
    assert host.run("lab-hello").stdout == "hello from lab-hello 1.0\n"
    host.run(f"apt-mark unhold lab-hello && {apt} upgrade")
    assert host.run("lab-hello").stdout == "hello from lab-hello 1.1\n"
    host.run(f"{apt} remove lab-daemon")
    assert host.run("systemctl is-active lab-daemon", check=False).stdout == "inactive\n"
    assert host.exists("/etc/lab-daemon.conf")
    host.run(f"{apt} purge lab-daemon")
    assert not host.exists("/etc/lab-daemon.conf")
    assert not host.exists("/etc/systemd/system/multi-user.target.wants/lab-daemon.service")
    host.run(f"{apt} install tmate && systemctl start tmate")
    assert "/usr/bin/tmate" in host.run("systemctl show -P ExecStart tmate").stdout
    assert host.run("systemctl is-system-running").stdout == "running\n"


def test_run0_follows_polkit(pristine: Pristine) -> None:
    """Refused without a rule; with one it gives exactly what the rule names."""
    host = pristine("web1")
    refused = host.run("run0 id -u", user="admin", check=False)
    assert refused.returncode == 1
    assert "Interactive authentication required" in refused.stderr
    host.write("/etc/polkit-1/rules.d/50-admin.rules", RULE)
    deadline = time.monotonic() + 5  # polkitd notices by itself, within two seconds
    while host.run("run0 id -u", user="admin", check=False).stdout != "0\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert host.run("pkexec id -u", user="admin", check=False).returncode != 0
    assert host.run("systemctl reboot", user="admin", check=False).returncode != 0


def test_user_managers_run(lab: Lab) -> None:
    """A login has its own systemd, as on a real server: user units and lingering can be tested."""
    assert lab["db1"].run("systemctl --user is-system-running --wait", user="admin").stdout == "running\n"


def test_paths_stay_in_the_host(lab: Lab) -> None:
    """Absolute and climbing links mean what they mean in the host, and never this machine's files."""
    host = lab["db1"]
    host.run("ln -sfn /etc/hostname /root/absolute; ln -sfn ../../../../etc/hostname /root/climbing")
    assert host.path("/root/absolute") == host.root / "etc/hostname"
    assert host.read("/root/climbing") == "db1\n"
    host.write("/etc/odd/new.conf", "x\n", mode=0o600)
    assert host.run("stat -c '%a %U' /etc/odd/new.conf").stdout == "600 root\n"
    host.run("ln -sfn loop /root/loop")
    with pytest.raises(LabError, match="loop of symbolic links"):
        host.path("/root/loop")


def test_a_cable_can_be_pulled(lab: Lab) -> None:
    """A host without a network is unreachable but keeps running."""
    host = lab["db1"]
    host.unplug()
    with lab.inside(), pytest.raises(TimeoutError):
        socket.create_connection((host.address, 22), timeout=0.5)
    assert host.running
    host.plug()
    assert host.run("hostname", timeout=20).stdout == "db1\n"


def test_inside_moves_one_thread_and_its_children(lab: Lab) -> None:
    """This thread and those it starts see the lab; others do not, and afterwards it does not either."""

    def here() -> int:
        return Path("/proc/thread-self/ns/net").stat().st_ino

    look = ["stat", "-Lc", "%i", "/proc/self/ns/net"]
    outside = here()
    seen: list[int] = []
    waiting = threading.Event()

    def wait_and_see() -> None:
        waiting.wait()
        seen.append(here())

    other = threading.Thread(target=wait_and_see)
    other.start()
    with lab.inside():
        inside = here()
        child = threading.Thread(target=lambda: seen.append(here()))
        child.start()
        child.join()
        program = subprocess.run(look, capture_output=True, check=True)
        waiting.set()
        other.join()
    assert inside != outside
    assert seen == [inside, outside]
    assert int(program.stdout) == inside
    assert here() == outside
    wrapped = subprocess.run(lab.command(look), capture_output=True, check=True)
    assert int(wrapped.stdout) == inside


def test_two_labs_do_not_know_of_each_other(lab: Lab) -> None:
    """Same names, other slot, address, keys; closing one does not touch the other."""
    with Lab("web1") as second:
        assert second.slot.number != lab.slot.number
        assert second["web1"].address != lab["web1"].address
        assert second["web1"].public_host_key != lab["web1"].public_host_key
        with lab.inside(), pytest.raises(OSError, match="unreachable"):
            socket.create_connection((second["web1"].address, 22), timeout=0.5)
        second["web1"].write("/root/second", "")
        assert not lab["web1"].exists("/root/second")
        number = second.slot.number
    assert leftovers(number) == []
    assert [host.wait() for host in lab] == ["running"] * 3


def test_layers_add_packages_and_setups_add_rights(tmp_path: Path) -> None:
    """A layer is built once; a host on it has the package, and a host beside it has not."""
    (tmp_path / "shown").write_text("seen\n")
    top = base.layer("hello", ["hello"])
    assert base.layer("hello", ["hello"]) == top
    setup = Setup(layers=[top], capabilities=["CAP_NET_ADMIN"], binds=[f"{tmp_path}:/mnt"])
    with Lab("plain", "more", setups={"more": setup}) as lab:
        assert lab["more"].run("hello").stdout == "Hello, world!\n"
        assert lab["more"].run("cat /mnt/shown").stdout == "seen\n"
        lab["more"].run("ip link add dummy0 type veth")
        assert lab["plain"].run("command -v hello", check=False).returncode != 0
        assert lab["plain"].run("ip link add dummy0 type veth", check=False).returncode != 0
        assert [host.wait() for host in lab] == ["running"] * 2


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_owner_leaves_nothing(end: signal.Signals) -> None:
    """SIGTERM and Ctrl-C close the lab; what SIGKILL leaves behind, the next lab sweeps."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    assert owner.stdout
    number = int(owner.stdout.readline())
    assert leftovers(number)
    owner.send_signal(end)
    assert owner.wait(30) == -end
    owner.stdout.close()
    if end == signal.SIGKILL:
        assert leftovers(number)
        with Lab():
            pass
    assert leftovers(number) == []


def test_endpoints_are_many_and_separate() -> None:
    """Twelve endpoints: own name, files and host key each; counted each; nothing is left."""
    with Endpoints(12) as fleet:
        number = fleet.slot.number
        assert len({(endpoint.name, endpoint.address, endpoint.host_key) for endpoint in fleet}) == 12
        ssh = ["ssh", "-F", str(fleet.ssh_config)]
        for user, endpoint in zip(("root", "admin", "deploy"), fleet, strict=False):
            command = fleet.command([*ssh, "-l", user, endpoint.name, "hostname; id -un"])
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            assert result.stdout == f"{endpoint.name}\n{user}\n"
            assert endpoint.sessions() == Sessions(1, 1, 0, 0)
            endpoint.reset_sessions()
            assert endpoint.sessions() == Sessions(0, 0, 0, 0)
        assert fleet[5].sessions() == Sessions(0, 0, 0, 0)
        (fleet[0].root / "etc/only-here").write_text("")
        assert not (fleet[1].root / "etc/only-here").exists()
        swapped = fleet.command([*ssh, "-o", "HostKeyAlias=e002", "e001", "true"])
        assert subprocess.run(swapped, stderr=subprocess.DEVNULL, check=False).returncode == 255
    assert leftovers(number) == []


def test_the_mirror_is_read_from_both_formats(tmp_path: Path) -> None:
    """deb822 and one line each; comments, options, disabled and security sources do not confuse it."""
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://commented.invalid/debian trixie main\n"
        "deb [arch=amd64 signed-by=/k] http://security.invalid/debian-security trixie-security main\n"
        "deb-src http://source.invalid/debian trixie main\n"
        "deb [ signed-by=/k ] http://oneline.invalid/debian/ trixie main contrib # why\n"
    )
    assert base.mirror(tmp_path) == "http://oneline.invalid/debian"
    (parts / "off.sources").write_text(
        "Enabled: no\nTypes: deb\nURIs: http://off.invalid/debian\nSuites: trixie\nComponents: main\n"
    )
    (parts / "on.sources").write_text(
        "Types: deb deb-src\n# a comment\nURIs:\n http://folded.invalid/debian\n"
        "Suites: trixie trixie-updates\nComponents: main\n\n"
        "Types: deb\nURIs: http://other.invalid\nSuites: ./\n"
    )
    assert base.mirror(tmp_path) == "http://folded.invalid/debian"
    with pytest.raises(base.BuildError, match="no source in"):
        base.mirror(tmp_path / "empty")
