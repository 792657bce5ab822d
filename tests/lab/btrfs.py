"""A host with a Btrfs of its own, and a desired state with snapshot policies for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import run as command_line
from reconciler.connections import Pool
from reconciler.model import Finding, Outcome
from reconciler.plan import Plan
from reconciler.project import Project
from tests.lab import base
from tests.lab.base import layer
from tests.lab.hosts import Lab, LabHost, Setup, call

POOL = "/srv/pool"
DATA = f"{POOL}/data"
SNAPSHOTS = f"{DATA}/.snapshots"
PROGRAM = "/usr/local/bin/reconciler-snapshots"
UNIT = "reconciler-snapshots-hourly"
NEVER = "2099-01-01 00:00"

# The machine itself needs no Btrfs tools: those of the host's layer make the file system. $1 = lower folders,
# $2 = an empty folder, $3 = the image. In a mount namespace, so that nothing stays.
MAKE_FILE_SYSTEM = """\
set -e
mount -t tmpfs none "$2"
mkdir "$2/upper" "$2/work" "$2/tree"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/tree"
mount -t proc proc "$2/tree/proc"
touch "$2/tree/disk"
mount --bind "$3" "$2/tree/disk"
chroot "$2/tree" mkfs.btrfs --quiet /disk
"""


def tools() -> Path:
    return layer("snapshots", ["btrfs-progs", "snapper", "btrbk"])


@contextmanager
def file_system(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A Btrfs of these tests alone: the image, and where it is mounted."""
    image, place = folder / "disk", folder / "mnt"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(512 << 20)
    make = ["unshare", "--mount", "--propagation=private", "sh", "-c", MAKE_FILE_SYSTEM, "mkfs"]
    call(*make, f"{tools()}:{base.base()}", str(place), str(image))
    call("mount", "-o", "loop", str(image), str(place))
    yield image, place
    call("umount", "--lazy", str(place))


@contextmanager
def host_on(place: Path) -> Iterator[LabHost]:
    """A host that sees the file system that is mounted there."""
    setup = Setup(layers=[tools()], binds=[f"{place}:{POOL}"])
    with Lab("nas1", setups={"nas1": setup}) as lab:
        yield lab["nas1"]


class Site:
    """A desired state for the host, and the command line on it."""

    def __init__(self, host: LabHost, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.host, self.folder, self.capsys = host, folder / "desired", capsys
        self.folder.mkdir()
        lab = host.lab
        login = {"address": host.address, "user": "root", "identityFile": str(lab.key)}
        self.put("Host", host.name, login | {"knownHosts": str(lab.known_hosts)})
        self.project = Project(self.folder, folder / "state")

    def put(self, kind: str, name: str, spec: Any) -> None:
        document = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        (self.folder / f"{kind}-{name}.yaml").write_text(json.dumps(document))

    def policy(self, name: str = "hourly", **fields: Any) -> None:
        spec: dict[str, Any] = {"hosts": [self.host.name], "subvolumes": [DATA]}
        if fields.get("tool", "reconciler") == "reconciler":
            spec |= {"schedule": {"calendar": NEVER}}
        self.put("SnapshotPolicy", name, spec | fields)

    def plan(self) -> Plan:
        with self.host.lab.inside():
            made = self.project.plan()
        assert not made.unknown
        return made

    def apply(self) -> Sequence[Finding]:
        with self.host.lab.inside(), Pool(self.project.desired().targets) as pool:
            result = self.project.apply(self.project.plan(pool=pool), pool)
        assert not [e.reason for e in result.ended.values() if e.outcome is not Outcome.DONE]
        return result.findings

    def settle(self, **fields: Any) -> Sequence[Finding]:
        self.policy(**fields)
        findings = self.apply()
        assert self.plan().empty
        return findings

    def command(self, *words: str) -> tuple[int, str]:
        """`reconciler snapshots ...`: exit status and what it printed."""
        options = ["--path", str(self.folder), "--state", str(self.project.state)]
        self.capsys.readouterr()
        with self.host.lab.inside():
            status = command_line(["snapshots", *words, *options])
        shown = self.capsys.readouterr()
        return status, shown.out + shown.err

    def found(self) -> list[Any]:
        """What `reconciler import` writes about snapshots."""
        self.capsys.readouterr()
        words = ["--from", f"Host/{self.host.name}", "--kind", "SnapshotPolicy", "--output", "json"]
        with self.host.lab.inside():
            assert command_line(["import", str(self.folder), "--state", str(self.project.state), *words]) == 0
        return [(d["name"], d["spec"]) for d in json.loads(self.capsys.readouterr().out)["documents"]]

    def take(self) -> str:
        """A snapshot as the timer takes it; its name."""
        before = self.names()
        self.host.run(f"systemctl start {UNIT}.service")
        (name,) = self.names() - before
        return name

    def names(self) -> set[str]:
        """What is in the folder of snapshots."""
        return set(self.host.run(f"ls {SNAPSHOTS} 2>/dev/null", check=False).stdout.split())

    def rules(self) -> list[str]:
        return sorted(f.rule for f in self.plan().findings)


CLEAN = f"""
pkill -x sleep; pkill -x btrfs
systemctl stop 'reconciler-snapshots-*.timer' 'reconciler-snapshots-*.service' 2>/dev/null
rm -rf /etc/reconciler /var/lib/reconciler {PROGRAM} /etc/systemd/system/*reconciler* /etc/btrbk/btrbk.conf
rm -rf /etc/systemd/system/timers.target.wants/reconciler* /etc/snapper/configs/*
rm -rf /var/lib/systemd/timers/stamp-reconciler*
systemctl daemon-reload
btrfs quota disable {POOL} 2>/dev/null
for i in 1 2 3 4; do
    find {POOL} -inum 256 -mindepth 1 -depth | while read -r one; do
        btrfs property set -f "$one" ro false; btrfs -q subvolume delete "$one"
    done
done
rm -rf {POOL}/* && btrfs -q subvolume create {DATA}
"""


def clean_site(host: LabHost, folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    """The host without anything that a test before left on it."""
    host.run(CLEAN)
    one = Site(host, folder, capsys)
    yield one
    one.project.store.close()


TREE = f"""
cd {DATA}
mkdir -p docs/deep 'with space'
head -c 300000 /dev/urandom >docs/big
echo one >docs/deep/file; echo two >'with space/é'; : >empty
ln docs/big docs/hard; ln -s deep/file docs/link; ln -s /nonexistent docs/dangling
mkfifo pipe; chown admin:deploy docs/deep/file; chmod 4750 docs/deep/file; chmod 1777 'with space'
touch -d '2020-02-03 04:05:06.123456789' docs/deep
btrfs -q subvolume create docs/nested && echo inner >docs/nested/file
"""


LISTING = """\
others='( -path ./.snapshots -o -path ./docs/nested ) -prune -o'
{
    find . $others -type d -printf '%P|%m|%u|%g|%T@\\n'
    find . $others ! -type d -printf '%P|%y|%m|%u|%g|%n|%l|%s|%T@\\n'
} | sort
find . $others -type f -print0 | sort -z | xargs -0 sha256sum
"""


def tree(host: LabHost, path: str) -> str:
    """Everything at and below a path but subvolumes in it: names, kinds, owners, modes, times, links, digests."""
    return host.run(f"cd {path} && {LISTING}").stdout


def wait(until: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)
