"""Light SSH endpoints, by the hundred: a real sshd on a file system of its own, but no systemd.

    with Endpoints(100) as fleet:
        subprocess.run(fleet.command(["reconciler", "plan", ...]))
        fleet[0].sessions()

For benchmarks, where a fleet of booted hosts would measure the machine and not the program. Users, files,
processes and host keys are really per endpoint; the kernel, /dev and one loopback interface are shared.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import base
from tests.lab.hosts import (
    ENVIRONMENT,
    LabError,
    Sessions,
    Slot,
    authorize,
    call,
    close_at_exit,
    closed,
    count_sessions,
    ip,
    kill_group,
)

PORT = 22

# $1 = cgroup, $2 = the next script; the rest is for that one. The mounts live in a namespace of the endpoint:
# a hundred of them in the machine's own would be copied by every program that makes such a namespace.
LAUNCH = (
    'set -e; echo $$ >"$1/cgroup.procs"; shift; '
    'exec unshare --mount --propagation=private --pid --uts --fork --kill-child sh -c "$@"'
)

# $0 = overlay options, $1 = where it goes, $2 = host key, $3 = name, $4 = address, $5 = port.
SERVE = """\
set -e
mount -t overlay overlay -o "$0" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/sshd
cp "$2" etc/ssh/ssh_host_ed25519_key
hostname "$3"
echo "$3" >etc/hostname
printf '127.0.0.1 localhost\n%s %s\n' "$4" "$3" >etc/hosts
exec chroot . /usr/sbin/sshd -D -e -p "$5" -o "ListenAddress=$4" -o UsePAM=no
"""


class Endpoint:
    """One endpoint. Made by `Endpoints`."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        self.port = PORT
        self.folder = folder
        self.host_key = folder / "host_key"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._seen = 0

    @property
    def root(self) -> Path:
        """Its file system as this machine can see it, while it runs."""
        if self.process is None:
            raise LabError(f"{self.name} is not running")
        return Path(f"/proc/{self.process.pid}/root{self.folder}/root")

    def sessions(self) -> Sessions:
        """What its sshd accepted since it started, or since `reset_sessions`."""
        with self.log.open("rb") as log:
            log.seek(self._seen)
            return count_sessions(log.read().decode("utf-8", errors="replace"))

    def reset_sessions(self) -> None:
        """Count from here."""
        self._seen = self.log.stat().st_size


class Endpoints:
    """`count` endpoints on their own network. A context manager: outside of it nothing of them exists."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.endpoints: list[Endpoint] = []

    def __enter__(self) -> Self:
        self.base = base.base()
        self.slot = Slot()
        close_at_exit(self, self.close)
        self.key, self.known_hosts = self.slot.key, self.slot.known_hosts
        self.ssh_config = self.slot.ssh_config
        self.inside, self.command = self.slot.inside, self.slot.command
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, index: int) -> Endpoint:
        return self.endpoints[index]

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self.endpoints)

    def __len__(self) -> int:
        return len(self.endpoints)

    def _start(self) -> None:
        network = 128 + self.slot.number
        # The whole range is local to the namespace: no address has to be added one by one.
        ip(f"route add local 10.{network}.0.0/16 dev lo", namespace=self.slot.namespace)
        disks = self.slot.folder / "disks"
        disks.mkdir()
        call("mount", "-t", "tmpfs", "-o", "mode=755,nr_inodes=0", f"{self.slot.namespace}-disks", str(disks))
        common = self._common(disks / "common")
        for index in range(self.count):
            folder = disks / str(index)
            for part in ("upper", "work", "root"):
                (folder / part).mkdir(parents=True)
            address = f"10.{network}.{index // 250}.{index % 250 + 1}"
            self.endpoints.append(Endpoint(f"e{index + 1:03}", address, folder))
        with ThreadPoolExecutor(max_workers=4) as pool:
            keys = list(pool.map(lambda endpoint: Slot.make_key(endpoint.host_key), self.endpoints))
        group = self.slot.cgroup / "endpoints"
        group.mkdir()
        for endpoint in self.endpoints:
            folder = endpoint.folder
            options = f"lowerdir={common}:{self.base},upperdir={folder}/upper,workdir={folder}/work"
            where = [str(folder / "root"), str(endpoint.host_key)]
            what = [endpoint.name, endpoint.address, str(endpoint.port)]
            with endpoint.log.open("wb") as log:
                endpoint.process = subprocess.Popen(
                    self.command(["sh", "-c", LAUNCH, "launch", str(group), SERVE, options, *where, *what]),
                    env=ENVIRONMENT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        known = zip(self.endpoints, keys, strict=True)
        self.slot.know((endpoint.name, endpoint.address, endpoint.port, key) for endpoint, key in known)
        self._wait()

    def _common(self, folder: Path) -> Path:
        """What all endpoints share above the base: our key. A layer, so that it is written once."""
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        options = f"lowerdir={self.base},upperdir={folder}/upper,workdir={folder}/work"
        call("mount", "-t", "overlay", "-o", options, f"{self.slot.namespace}-common", str(folder / "root"))
        authorize(folder / "root", self.slot.public_key)
        call("umount", str(folder / "root"))
        return folder / "upper"

    def _wait(self, timeout: float = 60) -> None:
        """Until every sshd listens."""
        deadline = time.monotonic() + timeout
        with self.inside():
            for endpoint in self.endpoints:
                while not self._listens(endpoint):
                    dead = endpoint.process is None or endpoint.process.poll() is not None
                    if dead or time.monotonic() > deadline:
                        log = endpoint.log.read_text(encoding="utf-8", errors="replace")
                        raise LabError(f"{endpoint.name} does not listen:\n{log}")
                    time.sleep(0.02)
        for endpoint in self.endpoints:
            endpoint.reset_sessions()

    @staticmethod
    def _listens(endpoint: Endpoint) -> bool:
        try:
            socket.create_connection((endpoint.address, endpoint.port), timeout=5).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Stop and remove everything, at once."""
        kill_group(self.slot.cgroup / "endpoints")
        for endpoint in self.endpoints:
            if endpoint.process is not None:
                endpoint.process.wait()
        self.endpoints.clear()
        self.slot.close()
        closed(self)
