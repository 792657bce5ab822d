"""Real Debian hosts, booted by systemd-nspawn in namespaces of their own within a second or two.

    with Lab("web1", "db1") as lab:
        lab["web1"].run("hostname")                            # as root, over SSH
        subprocess.run(lab.command(["reconciler", "plan", ...]))  # a program that sees only the lab's network
        with lab.inside():                                     # the same for this thread and those it starts
            ...

A lab takes a free slot (a lock that dies with its owner) and names everything after it: several labs live
side by side, and what a killed owner left behind is swept by the next lab that starts. Nothing is reachable
from the lab except the lab, and nothing outside reaches it.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Self

from tests.lab import base
from tests.lab.base import write
from tests.lab.prepare import SEARCH, missing

STATE = Path("/run/reconciler-lab")
SLOTS = 64
INSTANCES = 8192  # fs.inotify.max_user_instances: at the kernel's 128 hosts come up degraded at random
CLONE_NEWNET = 0x40000000
POWEROFF, REBOOT = signal.SIGRTMIN + 4, signal.SIGRTMIN + 5  # what systemd as PID 1 understands
ENVIRONMENT = os.environ | {"PATH": SEARCH, "LC_ALL": "C"}


class LabError(Exception):
    """The lab itself failed; the text says which host, and what its console said last."""


@dataclass(frozen=True)
class Setup:
    """How one host differs from a plain one."""

    layers: Sequence[Path] = ()
    """From `base.layer`, lowest first."""
    capabilities: Sequence[str] = ()
    """For example `CAP_NET_ADMIN`, for a host that changes its own network."""
    binds: Sequence[str] = ()
    """`/source:/destination` or `/dev/fuse`: shown inside the host as well."""
    system_calls: str = ""
    """More system calls than nspawn allows, for example `add_key keyctl bpf @keyring` for Podman."""
    writable_sys: bool = False
    """Mount all of /proc/sys and /sys writable, not only what belongs to the network (Podman wants it)."""
    arguments: Sequence[str] = ()
    """Further arguments of systemd-nspawn."""


@dataclass(frozen=True)
class Sessions:
    """What an SSH server itself says that it accepted."""

    connections: int
    commands: int
    subsystems: int
    shells: int

    @property
    def sessions(self) -> int:
        """All of them: each is one channel, and at least one round trip, on some connection."""
        return self.commands + self.subsystems + self.shells


def count_sessions(log: str) -> Sessions:
    """Read the counts out of what sshd logs at level VERBOSE."""
    return Sessions(
        connections=len(re.findall(r"\bAccepted \S+ for ", log)),
        commands=len(re.findall(r"\bStarting session: (?:forced-)?command\b", log)),
        subsystems=len(re.findall(r"\bStarting session: subsystem\b", log)),
        shells=len(re.findall(r"\bStarting session: shell\b", log)),
    )


def call(*command: str, text: str | None = None) -> str:
    """Run a program of this machine; its stderr is in the exception if it fails."""
    result = subprocess.run(command, input=text, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    if result.returncode:
        raise LabError(f"{shlex.join(command)} ended with {result.returncode}: {result.stderr.strip()}")
    return result.stdout


def ip(*lines: str, namespace: str | None = None) -> None:
    """Change network settings, all lines by one process."""
    where = ["-n", namespace] if namespace else []
    call("ip", *where, "-batch", "-", text="\n".join(lines) + "\n")


def mounts_below(folder: Path) -> list[Path]:
    """Where something is mounted under `folder`, innermost first."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    points = [Path(line.split()[1]) for line in lines]
    return [point for point in reversed(points) if point.is_relative_to(folder)]


def _cgroups() -> Path:
    """The machine's cgroup2 hierarchy, wherever it is mounted; made available if it is not."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    point = STATE / "cgroup"
    point.mkdir(parents=True, exist_ok=True)
    call("mount", "-t", "cgroup2", "cgroup2", str(point))
    return point


# Labs that are open in this process, to be closed whichever way it ends.
_open: dict[int, Callable[[], None]] = {}
_owner = os.getpid()


def _close_all() -> None:
    if os.getpid() == _owner:  # a forked child inherits the hook, but not the labs
        for close in list(_open.values()):
            close()


def _terminated(_number: int, _frame: FrameType | None) -> None:
    _close_all()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


atexit.register(_close_all)


def close_at_exit(owner: object, close: Callable[[], None]) -> None:
    """Have `close` called at exit and on SIGTERM as well, unless `closed` is called first."""
    global _owner  # noqa: PLW0603  after a fork, labs opened in the child are the child's
    if _owner != os.getpid():
        _open.clear()
        _owner = os.getpid()
    _open[id(owner)] = close
    untouched = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if untouched and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)


def closed(owner: object) -> None:
    """Forget what `close_at_exit` was told."""
    _open.pop(id(owner), None)


class Slot:
    """A number that one owner has at a time, and everything on this machine that is named after it."""

    def __init__(self) -> None:
        if reason := missing():
            raise LabError(reason)
        STATE.mkdir(parents=True, exist_ok=True)
        self._lock, self.number = self._claim()
        self.folder = STATE / str(self.number)
        self.namespace = f"rl{self.number}"
        self.cgroup = self._group(self.number)
        self.key = self.folder / "key"
        self.known_hosts = self.folder / "known_hosts"
        self.ssh_config = self.folder / "ssh_config"
        self.folder.mkdir()
        self.cgroup.mkdir(parents=True)
        ip(f"netns add {self.namespace}")
        ip("link set lo up", namespace=self.namespace)
        self.make_key(self.key)
        self.known_hosts.touch()

    @classmethod
    def _claim(cls) -> tuple[IO[str], int]:
        """Take the lowest free slot, and sweep whatever dead owners left in this and the other free ones."""
        mine: tuple[IO[str], int] | None = None
        for number in range(SLOTS):
            if mine and not (STATE / str(number)).exists():
                continue
            lock = (STATE / f"{number}.lock").open("w", encoding="ascii")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            cls._sweep(number)
            if mine:
                lock.close()
            else:
                mine = lock, number
        if not mine:
            raise LabError(f"all {SLOTS} slots in {STATE} are taken")
        return mine

    @staticmethod
    def _group(number: int) -> Path:
        return _cgroups() / "reconciler-lab" / str(number)

    @classmethod
    def _sweep(cls, number: int) -> None:
        """Remove everything that carries this number. Its owner is dead, or is we."""
        folder, group, namespace = STATE / str(number), cls._group(number), f"rl{number}"
        kill_group(group)
        remove_group(group)
        for point in mounts_below(folder):
            call("umount", "--lazy", str(point))
        for entry in sorted(Path("/run/netns").glob(f"{namespace}*")):
            if entry.name == namespace or entry.name.startswith(f"{namespace}-"):
                ip(f"netns del {entry.name}")
        for leftover in Path("/run/systemd/nspawn").glob(f"*/{namespace}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if left := mounts_below(folder):
            raise LabError(f"{left[0]} could not be unmounted")
        if folder.exists():
            shutil.rmtree(folder)

    def close(self) -> None:
        """Give the slot back, empty."""
        if not self._lock.closed:  # afterwards the number may be somebody else's
            self._sweep(self.number)
            self._lock.close()

    @staticmethod
    def make_key(path: Path) -> str:
        """Make an SSH key pair; return the public one as `ssh-ed25519 AAAA...`."""
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path))
        return path.with_name(f"{path.name}.pub").read_text(encoding="ascii").strip()

    @property
    def public_key(self) -> str:
        return self.key.with_name("key.pub").read_text(encoding="ascii").strip()

    def know(self, hosts: Iterable[tuple[str, str, int, str]]) -> None:
        """Write known_hosts and ssh_config for these (name, address, port, public host key)."""
        known, blocks = [], []
        for name, address, port, public in hosts:
            where = address if port == 22 else f"[{address}]:{port}"
            known.append(f"{name},{where} {public}\n")
            blocks.append(f"Host {name}\n    HostName {address}\n    Port {port}\n    HostKeyAlias {name}\n")
        blocks.append(
            f"Host *\n    User root\n    IdentityFile {self.key}\n    IdentitiesOnly yes\n"
            f"    UserKnownHostsFile {self.known_hosts}\n    GlobalKnownHostsFile /dev/null\n"
            "    StrictHostKeyChecking yes\n    UpdateHostKeys no\n    BatchMode yes\n    ConnectTimeout 10\n"
        )
        write(self.known_hosts, "".join(known))
        write(self.ssh_config, "".join(blocks))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move the calling thread into the slot's network; threads and programs it starts are there, too."""
        libc = ctypes.CDLL(None, use_errno=True)
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._enter(libc, there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                self._enter(libc, before)
        finally:
            os.close(before)

    @staticmethod
    def _enter(libc: ctypes.CDLL, namespace: int) -> None:
        if libc.setns(namespace, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")

    def command(self, argv: Sequence[str]) -> list[str]:
        """The same command, in the slot's network. Not `ip netns exec`: that one remounts /sys."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *argv]


def kill_group(group: Path) -> None:
    """SIGKILL to all processes of a cgroup and those below it at once, and wait until they are gone."""
    if not group.exists():
        return
    (group / "cgroup.kill").write_text("1", encoding="ascii")
    deadline = time.monotonic() + 20
    while "populated 1" in (group / "cgroup.events").read_text(encoding="ascii"):
        if time.monotonic() > deadline:
            raise LabError(f"processes in {group} survive SIGKILL")
        time.sleep(0.005)


def remove_group(group: Path) -> None:
    """Remove an empty cgroup with those below it."""
    if group.exists():
        for path, _, _ in os.walk(group, topdown=False):
            Path(path).rmdir()


# $1 = the host's cgroup, $2 = the next script, $3 = the host's root; the rest is systemd-nspawn's.
LAUNCH = 'set -e; echo $$ >"$1/cgroup.procs"; shift; exec unshare --mount --propagation=private sh -c "$@"'

# In a mount namespace of its own: a cgroup2 as a container expects it, whatever the machine has, and nothing
# of the other hosts, whose memory would otherwise be held for as long as this one runs. With --keep-unit
# nspawn leaves rebooting to its supervisor and asks for it by status 133.
ISOLATE = f"""\
set -e
root=$0
for point in $(cut -d' ' -f2 /proc/self/mounts); do
    case $point in
        "$root") ;;
        {STATE}/*/root | {STATE}/*/disk) umount --lazy "$point" ;;
    esac
done
umount --recursive /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
while status=0; systemd-nspawn "$@" || status=$?; [ $status = 133 ]; do :; done
exit $status
"""


class LabHost:
    """One host of a lab. Made by `Lab`."""

    def __init__(self, lab: Lab, name: str, index: int, setup: Setup) -> None:
        self.lab = lab
        self.name = name
        self.setup = setup
        self.index = index
        self.address = f"10.77.{lab.slot.number}.{index + 10}"
        self.namespace = f"{lab.slot.namespace}-{name}"
        self.folder = lab.slot.folder / name
        self.root = self.folder / "root"
        self.host_key = self.folder / "host_key"
        self._group = lab.slot.cgroup / name
        self._process: subprocess.Popen[bytes] | None = None
        self._cursor: str | None = None

    # --- making it --------------------------------------------------------------------------------------

    def create(self) -> None:
        """Everything but the boot: network, host key, and an empty disk."""
        self.folder.mkdir()
        self.root.mkdir()
        self._group.mkdir()
        self.public_host_key = Slot.make_key(self.host_key)
        ip(f"netns add {self.namespace}")
        ip(
            f"link add v{self.index} type veth peer name eth0 netns {self.namespace}",
            f"link set v{self.index} master br0 up",
            namespace=self.lab.slot.namespace,
        )
        ip(
            "link set lo up",
            f"addr add {self.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {self.lab.gateway}",
            namespace=self.namespace,
        )
        self.make_disk()

    def make_disk(self) -> None:
        """An empty upper layer in memory, with what makes this host itself and lets us in."""
        disk = self.folder / "disk"
        disk.mkdir(exist_ok=True)
        call("mount", "-t", "tmpfs", "-o", "mode=755,nr_inodes=0", self.namespace, str(disk))
        (disk / "upper").mkdir()
        (disk / "upper").chmod(0o755)  # whatever the umask: it becomes the host's own /
        (disk / "work").mkdir()
        lower = ":".join(str(path) for path in [*reversed(self.setup.layers), self.lab.base])
        options = f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work"
        call("mount", "-t", "overlay", "-o", options, self.namespace, str(self.root))
        self.write("/etc/hostname", f"{self.name}\n")
        self.write("/etc/machine-id", f"{secrets.token_hex(16)}\n", mode=0o444)
        self.write("/etc/hosts", self.lab.hosts_file())
        self.write("/etc/ssh/ssh_host_ed25519_key", self.host_key.read_text(encoding="ascii"), mode=0o600)
        self.write("/etc/ssh/ssh_host_ed25519_key.pub", f"{self.public_host_key}\n")
        authorize(self.root, self.lab.slot.public_key)

    def drop_disk(self) -> None:
        """Throw away everything that was ever written on this host."""
        for point in (self.root, self.folder / "disk"):
            call("umount", "--lazy", str(point))

    # --- power ------------------------------------------------------------------------------------------

    def start(self, wait: bool = True) -> None:
        """Boot, on the disk as it is."""
        if self.running:
            raise LabError(f"{self.name} runs already")
        remove_group(self._group)
        self._group.mkdir()
        self._cursor = None
        arguments = [
            "--quiet",
            f"--directory={self.root}",
            f"--machine={self.namespace}",
            f"--hostname={self.name}",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
            f"--network-namespace-path=/run/netns/{self.namespace}",
            "--console=read-only",
            *(f"--capability={name}" for name in self.setup.capabilities),
            *(f"--bind={path}" for path in self.setup.binds),
            *([f"--system-call-filter={self.setup.system_calls}"] if self.setup.system_calls else []),
            *self.setup.arguments,
        ]
        writable = "yes" if self.setup.writable_sys else "network"
        with (self.folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                ["sh", "-c", LAUNCH, "launch", str(self._group), ISOLATE, str(self.root), *arguments],
                env=ENVIRONMENT | {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": writable},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests, which then close the lab in order
            )
        if wait:
            self.wait()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout: float = 120) -> str:
        """Wait until it answers SSH and has started all that it starts; the state that systemd reports.

        `running` is what one wants; `degraded` means that a unit failed.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.running:
                raise LabError(f"{self.name} went down while it started:\n{self.console()}")
            if self._listens():
                try:
                    answer = self.run(
                        "systemctl is-system-running --wait", check=False, timeout=deadline - time.monotonic()
                    )
                except subprocess.TimeoutExpired:
                    break
                if (state := answer.stdout.strip()) in {"running", "degraded", "maintenance"}:
                    return state
            time.sleep(0.03)
        raise LabError(f"{self.name} did not come up within {timeout:g} s:\n{self.console()}")

    def _listens(self) -> bool:
        with self.lab.inside():
            try:
                socket.create_connection((self.address, 22), timeout=1).close()
            except OSError:
                return False
        return True

    def console(self, lines: int = 20) -> str:
        """The last lines of its console."""
        text = (self.folder / "console").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def leader(self) -> int:
        """The host's PID 1, as this machine numbers it."""
        if not self.running:
            raise LabError(f"{self.name} is off")
        for group, _, _ in os.walk(self._group):  # unlike rglob it forgives what vanishes under its feet
            with suppress(OSError):
                for pid in Path(group, "cgroup.procs").read_text(encoding="ascii").split():
                    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                    # Two numbers: here and there. A container in the host has a third one.
                    if re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE):
                        return int(pid)
        raise LabError(f"{self.name} has no PID 1 at the moment")

    def poweroff(self, timeout: float = 30) -> None:
        """Shut down in order, as the power button does."""
        if not self.running or self._process is None:
            return
        os.kill(self.leader(), POWEROFF)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            console = self.console()
            self.kill()
            raise LabError(f"{self.name} did not power off within {timeout:g} s:\n{console}") from None

    def kill(self) -> None:
        """Cut the power: every process is gone at once. What was written stays."""
        kill_group(self._group)
        if self._process is not None:
            self._process.wait()

    def reboot(self) -> None:
        """Reboot in order, and wait until it is up again."""
        before = self.leader()
        os.kill(before, REBOOT)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{before}").exists():
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} does not go down for its reboot:\n{self.console()}")
            time.sleep(0.01)
        self._cursor = None
        self.wait()

    def unplug(self) -> None:
        """Pull the network cable: packets vanish, connections hang."""
        ip(f"link set v{self.index} nomaster", namespace=self.lab.slot.namespace)

    def plug(self) -> None:
        """Put the network cable back."""
        ip(f"link set v{self.index} master br0", namespace=self.lab.slot.namespace)

    # --- looking and poking -----------------------------------------------------------------------------

    def run(
        self,
        *command: str,
        user: str = "root",
        check: bool = True,
        input: str | None = None,
        timeout: float | None = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command over SSH: one string is a shell script, several are an argv.

        Each call is a connection and a session of its own, and counts in `sessions`.
        """
        script = command[0] if len(command) == 1 else shlex.join(command)
        # The client's own default protects against quantum computers and costs 67 ms of CPU per connection.
        options = ["-F", str(self.lab.ssh_config), "-o", "KexAlgorithms=curve25519-sha256", "-l", user]
        result = subprocess.run(
            self.lab.command(["ssh", *options, self.name, "--", script]),
            input=input if input is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            env=ENVIRONMENT,
            timeout=timeout,
            check=False,
        )
        if check and result.returncode:
            error = subprocess.CalledProcessError(result.returncode, script, result.stdout, result.stderr)
            error.add_note(f"on {self.name} as {user}: {result.stdout}{result.stderr}")
            raise error
        return result

    def path(self, path: str) -> Path:
        """Where a path of the host is on this machine. Symbolic links are followed as the host would.

        (Following them as this machine does would write into its own /etc sooner or later.)
        """
        found, rest, hops = self.root, [part for part in path.split("/") if part], 0
        while rest:
            part = rest.pop(0)
            if part == "..":
                found = found.parent if found != self.root else found
            elif part != ".":
                step = found / part
                if step.is_symlink():
                    if (hops := hops + 1) > 40:
                        raise LabError(f"{path} on {self.name} is a loop of symbolic links")
                    to = step.readlink()
                    found = self.root if to.is_absolute() else found
                    rest = [item for item in to.parts if item != "/"] + rest
                else:
                    found = step
        return found

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file behind everybody's back, owned by root."""
        write(self.path(path), text, mode)

    def read(self, path: str) -> str:
        return self.path(path).read_text(encoding="utf-8", errors="surrogateescape")

    def exists(self, path: str) -> bool:
        return self.path(path).exists()

    def sessions(self) -> Sessions:
        """What its sshd accepted since it booted, or since `reset_sessions`. Read without SSH."""
        after = [f"--after-cursor={self._cursor}"] if self._cursor else ["--boot"]
        self._journal("--sync")
        return count_sessions(self._journal("--output=cat", *SSHD_TAGS, *after))

    def reset_sessions(self) -> None:
        """Count from here."""
        self._journal("--sync")
        lines = self._journal("--boot", "--lines=1", "--show-cursor").splitlines()
        self._cursor = lines[-1].removeprefix("-- cursor: ")

    def _journal(self, *arguments: str) -> str:
        enter = ["nsenter", f"--target={self.leader()}", "--mount", "--pid", "--root", "--wd", "--"]
        return call(*enter, "journalctl", "--quiet", "--no-pager", *arguments)


SSHD_TAGS = ("--identifier=sshd", "--identifier=sshd-session", "--identifier=sshd-auth")


def authorize(root: Path, public: str) -> None:
    """Let this key in as root, admin and deploy."""
    for home, uid in (("root", 0), ("home/admin", 1000), ("home/deploy", 1001)):
        folder = root / home / ".ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        write(folder / "authorized_keys", f"{public}\n", 0o600)
        for path in (folder, folder / "authorized_keys"):
            os.chown(path, uid, uid)


class Lab:
    """Some hosts on a network of their own. A context manager: outside of it, nothing of the lab exists."""

    def __init__(self, *names: str, setups: Mapping[str, Setup] | None = None) -> None:
        self._wanted = {name: (setups or {}).get(name, Setup()) for name in names}
        self.hosts: dict[str, LabHost] = {}

    def __enter__(self) -> Self:
        self.base = base.base()
        self._raise_limits()
        self.slot = Slot()
        close_at_exit(self, self.close)
        self.key, self.known_hosts = self.slot.key, self.slot.known_hosts
        self.ssh_config = self.slot.ssh_config
        self.inside, self.command = self.slot.inside, self.slot.command
        self.gateway = f"10.77.{self.slot.number}.254"
        try:
            ip(
                "link add br0 type bridge",
                f"addr add {self.gateway}/24 dev br0",
                "link set br0 up",
                namespace=self.slot.namespace,
            )
            self.boot(self._wanted)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> LabHost:
        return self.hosts[name]

    def __iter__(self) -> Iterator[LabHost]:
        return iter(list(self.hosts.values()))

    @staticmethod
    def _raise_limits() -> None:
        limit = Path("/proc/sys/fs/inotify/max_user_instances")
        if int(limit.read_text(encoding="ascii")) < INSTANCES:
            limit.write_text(str(INSTANCES), encoding="ascii")

    def hosts_file(self) -> str:
        """/etc/hosts of a host: all of the lab by name."""
        known = "".join(f"{host.address} {host.name}\n" for host in self)
        return f"127.0.0.1 localhost\n::1 localhost\n{known}"

    def boot(self, setups: Mapping[str, Setup]) -> None:
        """Add hosts, boot them side by side, and wait until they are up."""
        for name in setups:
            if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name) or name in self.hosts:
                raise LabError(f"{name!r} cannot be the name of a new host")
        if len(self.hosts) + len(setups) > 240:
            raise LabError("a lab has room for 240 hosts")
        new = []
        for name, setup in setups.items():
            self.hosts[name] = host = LabHost(self, name, len(self.hosts) + 1, setup)
            new.append(host)
        for host in new:
            host.create()
            host.start(wait=False)
        self.slot.know((host.name, host.address, 22, host.public_host_key) for host in self)
        self._each(LabHost.wait, new)

    def fresh(self, *names: str) -> LabHost:
        """Put brand-new disks into these hosts and boot them; return the first. Their host keys stay."""
        chosen = [self.hosts[name] for name in names]
        for host in chosen:
            host.kill()
            host.drop_disk()
            host.make_disk()
            host.plug()
            host.start(wait=False)
        self._each(LabHost.wait, chosen)
        return chosen[0]

    @staticmethod
    def _each(action: Callable[[LabHost], object], hosts: Sequence[LabHost]) -> None:
        with ThreadPoolExecutor(max_workers=max(1, min(8, len(hosts)))) as pool:
            list(pool.map(action, hosts))

    def close(self) -> None:
        """Stop and remove everything, at once."""
        for host in self:
            host.kill()
        self.hosts.clear()
        self.slot.close()
        closed(self)
