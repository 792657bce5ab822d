"""SnapshotPolicy on a real host with a real Btrfs: timers, retention, restore, drills, and what others left behind."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import run as command_line
from reconciler.connections import Pool
from reconciler.journal import runs
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


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A Btrfs of these tests alone: the image, and where it is mounted."""
    folder = tmp_path_factory.mktemp("btrfs")
    image, place = folder / "disk", folder / "mnt"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(512 << 20)
    make = ["unshare", "--mount", "--propagation=private", "sh", "-c", MAKE_FILE_SYSTEM, "mkfs"]
    call(*make, f"{tools()}:{base.base()}", str(place), str(image))
    call("mount", "-o", "loop", str(image), str(place))
    yield image, place
    call("umount", "--lazy", str(place))


@pytest.fixture(scope="module")
def nas(disk: tuple[Path, Path]) -> Iterator[LabHost]:
    setup = Setup(layers=[tools()], binds=[f"{disk[1]}:{POOL}"])
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


@pytest.fixture
def site(nas: LabHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    nas.run(CLEAN)
    one = Site(nas, tmp_path, capsys)
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


# ------------------------------------------------------------------------------------------------ timers, retention


def test_the_timer_fires_and_old_ones_go(site: Site) -> None:
    """What others put into the same folder stays, and so does what is locked."""
    host = site.host
    host.run(f"btrfs -q subvolume create {SNAPSHOTS} && btrfs -q subvolume snapshot -r {DATA} {SNAPSHOTS}/by-hand")
    host.run(f"btrfs -q subvolume snapshot -r {DATA} {SNAPSHOTS}/@GMT-2020.01.01-00.00.00")
    foreign = {"by-hand", "@GMT-2020.01.01-00.00.00"}
    assert not site.settle(schedule={"calendar": "*:*:0/2"}, keep={"last": 3})
    wait(lambda: len(site.names() - foreign) >= 2, "the timer never fired")
    locked = sorted(site.names() - foreign)[0]
    status, said = site.command("lock", "hourly", locked, "--reason", "evidence")
    assert status == 0, said
    seen: set[str] = set()

    def many() -> bool:
        seen.update(site.names() - foreign)
        return len(seen) >= 7

    wait(many, "the timer does not go on firing")
    host.run(f"systemctl stop {UNIT}.timer; while systemctl is-active -q {UNIT}.service; do sleep 0.1; done")
    left = sorted(site.names() - foreign)
    taken = sorted(seen | set(left))
    assert left == [locked, *taken[-3:]]
    assert foreign <= site.names()
    assert all(name.startswith("@GMT-") for name in taken)
    host.run(f"! touch {SNAPSHOTS}/{left[-1]}/x")
    status, said = site.command("list", "--output", "json")
    (place,) = json.loads(said)["places"]
    reasons = {s["name"]: s["reasons"] for s in place["snapshots"]}
    assert reasons[locked][0] == "locked"
    assert reasons["by-hand"] == ["foreign"]
    assert "newest" in reasons[left[-1]]
    assert site.command("unlock", "hourly", locked)[0] == 0
    host.run(f"systemctl start {UNIT}.service")
    assert locked not in site.names()
    assert foreign <= site.names()


def test_a_replication_parent_stays_until_it_is_unlocked(site: Site) -> None:
    """And what was received by hand is foreign, whatever it is called."""
    host = site.host
    site.settle(keep={"last": 1})
    parent = site.take()
    assert site.command("lock", "hourly", parent, "--parent")[0] == 0
    host.run(f"mkdir -p {POOL}/copy && btrfs send -q {SNAPSHOTS}/{parent} | btrfs receive {POOL}/copy")
    second = site.take()
    third = site.take()
    assert site.names() == {parent, third}, second
    host.run(f"btrfs send -q -p {SNAPSHOTS}/{parent} {SNAPSHOTS}/{third} | btrfs receive {POOL}/copy")
    assert site.command("unlock", "hourly", parent)[0] == 0
    fourth = site.take()
    assert site.names() == {fourth}


def test_names_in_local_time(site: Site) -> None:
    site.host.run("ln -sf /usr/share/zoneinfo/Asia/Kathmandu /etc/localtime")
    site.settle(names="local", keep={"daily": 2})
    name = site.take()
    assert name.endswith("+0545")
    here = site.host.run("date +%Y.%m.%d-%H").stdout.strip()
    assert name.startswith(here[:10])
    site.host.run("rm -f /etc/localtime")


def test_no_space_takes_none_or_makes_room(site: Site) -> None:
    host = site.host
    site.settle(keep={"last": 9})
    first = site.take()
    site.take()
    site.settle(keep={"last": 9}, freeSpace={"minimum": "99%"})
    host.run(f"! systemctl start {UNIT}.service")
    assert len(site.names()) == 2
    assert site.rules() == ["no-space"]
    site.settle(keep={"last": 9}, freeSpace={"minimum": "99%", "whenLow": "remove"})
    host.run(f"! systemctl start {UNIT}.service")
    assert len(site.names()) == 1, "the newest stays"
    assert first not in site.names()
    site.settle(keep={"last": 9}, freeSpace={"minimum": "1M"})
    assert site.take()
    assert not site.rules()


def test_quota_gives_sizes(site: Site) -> None:
    host = site.host
    host.run(f"btrfs quota enable {POOL}; btrfs quota rescan -w {POOL}", check=False)
    site.settle(keep={"last": 9, "maxSize": "5M"})
    names = []
    for _ in range(4):
        host.run(f"head -c 3000000 /dev/urandom >{DATA}/file; sync -f {DATA}")
        names.append(site.take())
        time.sleep(1)
    host.run(f"btrfs subvolume sync {POOL}; sync -f {POOL}; systemctl start {UNIT}.service")
    left = site.names()
    # Each held three megabytes of its own, but for the newest two, which share them with the living file.
    assert not set(names[:2]) & left
    assert names[-1] in left
    sizes = {
        s["name"]: s["size"] for s in json.loads(site.command("list", "--output", "json")[1])["places"][0]["snapshots"]
    }
    assert all(isinstance(size, int) for size in sizes.values())
    assert 0 < sum(sizes.values()) <= 5 << 20


# ------------------------------------------------------------------------------------------------ drift, prune

MUTATIONS = {
    "the program": (f"echo '# edited' >>{PROGRAM}", f"host.snapshotProgram[nas1:{PROGRAM}]", {"content"}),
    "its mode": (f"chmod 700 {PROGRAM}", f"host.snapshotProgram[nas1:{PROGRAM}]", {"mode"}),
    "the policy": (
        'sed -i \'s/"last": 3/"last": 1/\' /etc/reconciler/snapshots/hourly.json',
        "host.file[nas1:/etc/reconciler/snapshots/hourly.json]",
        {"content"},
    ),
    "the folder": ("chmod 777 /etc/reconciler", "host.directory[nas1:/etc/reconciler]", {"mode"}),
    "the timer's state": (f"systemctl stop {UNIT}.timer", f"host.unit[nas1:{UNIT}.timer]", {"running"}),
    "the next boot": (f"systemctl disable {UNIT}.timer", f"host.unit[nas1:{UNIT}.timer]", {"enabled"}),
}


def test_each_change_by_hand_is_named_and_repaired(site: Site) -> None:
    host = site.host
    site.settle(keep={"last": 3})
    site.take()
    for what, (script, address, attributes) in MUTATIONS.items():
        host.run(script)
        made = site.plan()
        assert [(c.address, set(c.changed)) for c in made.changes] == [(address, attributes)], what
        assert made.drifted == [address]
        assert not site.apply(), what
        assert site.plan().empty
    for suffix in ("timer", "service"):
        host.run(f"sleep 0.1; echo '# edited' >>/etc/systemd/system/{UNIT}.{suffix}")
        made = site.plan()
        changed = {c.address: c.changed for c in made.changes}
        assert changed[f"host.file[nas1:/etc/systemd/system/{UNIT}.{suffix}]"] == {"content"}
        assert changed.keys() <= {
            f"host.file[nas1:/etc/systemd/system/{UNIT}.{suffix}]",
            f"host.unit[nas1:{UNIT}.{suffix}]",
        }
        site.apply()
        assert site.plan().empty
    assert (
        host.run(f"systemctl show -p NeedDaemonReload --value {UNIT}.service {UNIT}.timer").stdout.split() == ["no"] * 2
    )


def test_prune_takes_the_timer_and_leaves_the_snapshots(site: Site) -> None:
    host = site.host
    site.put("File", "motd", {"hosts": [host.name], "path": "/etc/motd", "content": "hello\n"})
    site.settle(keep={"last": 3})
    names = {site.take(), site.take()}
    (site.folder / "SnapshotPolicy-hourly.yaml").unlink()
    site.apply()
    assert site.plan().empty
    assert site.names() == names
    host.run(f"! systemctl cat {UNIT}.timer; ! test -e {PROGRAM}; ! test -e /etc/reconciler")
    assert host.run("systemctl list-timers --all --no-legend 'reconciler*'").stdout == ""
    assert host.run("systemctl --failed --no-legend").stdout == ""


# ------------------------------------------------------------------------------------------------ findings


def test_findings_about_schedules(site: Site) -> None:
    host = site.host
    site.settle(schedule={"calendar": "2001-01-01 00:00"}, alertAfter="1s")
    time.sleep(2.1)
    assert site.rules() == ["schedule-never-fires"]
    site.settle(schedule={"calendar": NEVER}, alertAfter="1s")
    time.sleep(2.1)
    assert site.rules() == ["schedule-never-fired"]
    site.settle(schedule={"calendar": NEVER}, alertAfter="1s", countLimit=2)
    site.take()
    site.take()
    time.sleep(2.1)
    assert site.rules() == ["count-near-limit", "schedule-never-fired", "too-old"]
    name = site.take()
    host.run(f"btrfs property set -f {SNAPSHOTS}/{name} ro false")
    assert "writable" in site.rules()


def test_findings_about_the_host(site: Site) -> None:
    host = site.host
    site.settle(subvolumes=[DATA, "/srv/plain", f"{POOL}/folder"])
    host.run(f"mkdir -p /srv/plain {POOL}/folder; ! systemctl start {UNIT}.service")
    assert site.names(), "what is right is done all the same"
    found = {(f.rule, f.message.split(": ")[1]) for f in site.plan().findings}
    wanted = {(rule, path) for rule in ("no-subvolume", "last-run-failed") for path in ("/srv/plain", f"{POOL}/folder")}
    assert found == wanted
    site.settle(subvolumes=[DATA])
    future = host.run("date -u -d '+400 days' +@GMT-%Y.%m.%d-%H.%M.%S").stdout.strip()
    name = site.take()
    record = json.loads(host.run(f"cat {SNAPSHOTS}/.records/{name}.json").stdout)
    record["created"] += 400 * 86_400
    host.run(f"mv {SNAPSHOTS}/{name} {SNAPSHOTS}/{future}; rm {SNAPSHOTS}/.records/{name}.json")
    host.run(f"cat >{SNAPSHOTS}/.records/{future}.json", input=json.dumps(record))
    assert site.rules() == ["from-the-future"]
    site.settle(subvolumes=[DATA], keep={"last": 1})
    newest = site.take()
    assert {future, newest} <= site.names()


# ------------------------------------------------------------------------------------------------ restore


def corrupt(host: LabHost) -> None:
    host.run(
        f"cd {DATA} && echo junk >docs/big && rm -r docs/deep empty && chmod 0 docs/link 2>/dev/null; "
        "echo new >new; mkdir newer; echo x >newer/x; mv 'with space' elsewhere; chown 12:13 .; chmod 700 ."
    )


def test_restore_in_place_brings_everything_back(site: Site) -> None:
    host = site.host
    host.run(TREE)
    site.settle(keep={"last": 9})
    name = site.take()
    before = tree(host, DATA)
    owner = host.run(f"stat -c '%u %g %a' {DATA}; btrfs inspect-internal rootid {DATA}").stdout
    corrupt(host)
    spoilt = tree(host, DATA)
    assert spoilt != before
    host.run(f"sleep 600 <{DATA}/docs/nested/file >/dev/null 2>&1 & cd {DATA}; sleep 600 >/dev/null 2>&1 &")
    status, said = site.command("restore", "hourly", name, "--in-place")
    assert status == 1, "nobody confirmed"
    assert tree(host, DATA) == spoilt
    status, said = site.command("restore", "hourly", name, "--in-place", "--yes")
    assert status == 0, said
    assert f"Restored to {DATA} on nas1." in said
    assert tree(host, DATA) == before
    assert host.run(f"stat -c '%u %g %a' {DATA}; btrfs inspect-internal rootid {DATA}").stdout == owner
    assert (
        host.read(f"{DATA}/docs/nested/file") if False else host.run(f"cat {DATA}/docs/nested/file").stdout == "inner\n"
    )
    (kept,) = site.names() - {name}
    site.settle(keep={"last": 1})
    host.run(f"systemctl start {UNIT}.service")
    assert kept in site.names(), "the way back stays until somebody unlocks it"
    site.settle(keep={"last": 9})
    assert tree(host, f"{SNAPSHOTS}/{kept}") == spoilt, "how it was before the restore is kept"
    assert host.run(f"ls -A {DATA}").stdout.split("\n")[:1] == [".snapshots"]
    assert site.plan().empty
    record = next(r for r in runs(site.project.store) if r.command == "snapshots restore")
    assert record.status == "done"
    # And back again: that snapshot is as good as any other.
    assert site.command("restore", "hourly", kept, "--in-place", "--yes")[0] == 0
    assert tree(host, DATA) == spoilt
    host.run("pkill -x sleep", check=False)


def test_a_restore_that_was_killed_goes_on(site: Site) -> None:
    host = site.host
    host.run(TREE)
    site.settle(keep={"last": 9})
    name = site.take()
    before = tree(host, DATA)
    corrupt(host)
    policy = host.run("cat /etc/reconciler/snapshots/hourly.json").stdout
    # After the second rename of many: some entries are old, some are new.
    killer = (
        "import os, runpy, sys\ncount = 0\nreal = os.rename\n"
        "def rename(*a):\n    global count\n    count += 1\n    if count > int(os.environ['AFTER']): os._exit(9)\n"
        "    real(*a)\nos.rename = rename\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    host.write("/root/killer.py", killer)
    host.run(PROGRAM, "copy", policy, DATA, name, "")
    for after in (1, 2, 3):
        done = host.run(
            "env", f"AFTER={after}", "python3", "/root/killer.py", PROGRAM, "swap", policy, DATA, name, "", check=False
        )
        assert done.returncode == 9
    other = site.take()
    status, said = site.command("restore", "hourly", other, "--in-place", "--yes")
    assert status == 1
    assert "an earlier restore was stopped half-way" in said
    status, said = site.command("restore", "hourly", name, "--in-place", "--yes")
    assert status == 0, said
    assert tree(host, DATA) == before
    assert host.run(f"ls -A {DATA}").stdout.split().count(".reconciler-restore") == 0


def test_restore_to_a_new_path_and_of_a_part(site: Site) -> None:
    host = site.host
    host.run(TREE)
    site.settle(keep={"last": 9})
    name = site.take()
    before = tree(host, DATA)
    corrupt(host)
    spoilt = tree(host, DATA)
    status, said = site.command("restore", "hourly", name, "--output", "json")
    assert status == 0, said
    where = json.loads(said.splitlines()[-1])["path"]
    assert where == f"{DATA}.restored-{name.lstrip('@')}"
    assert tree(host, where) == before
    assert host.run(f"cmp {where}/docs/big {SNAPSHOTS}/{name}/docs/big; touch {where}/writable").returncode == 0
    assert tree(host, DATA) == spoilt
    status, said = site.command("restore", "hourly", name)
    assert status == 1
    assert "is there already. Choose another path." in said
    assert site.command("restore", "hourly", name, "--inside", "docs/deep", "--to", "/root/deep")[0] == 0
    assert host.run("stat -c '%U %G %a %n' /root/deep/file").stdout == "admin deploy 4750 /root/deep/file\n"
    assert site.command("restore", "hourly", name, "--inside", "docs/deep", "--in-place", "--yes")[0] == 0
    assert host.run(f"cat {DATA}/docs/link").stdout == "one\n"
    host.run(f"rm -r {DATA}/docs/deep; mv {DATA}/docs/nested {DATA}/docs/big {POOL}/; rm -r {DATA}/docs")
    assert site.command("restore", "hourly", name, "--inside", "docs/deep/file", "--in-place", "--yes")[0] == 0
    assert host.run(f"cd {DATA}; stat -c '%U %a %n' docs docs/deep docs/deep/file").stdout == (
        "root 755 docs\nroot 755 docs/deep\nadmin 4750 docs/deep/file\n"
    )
    host.run(f"mv {POOL}/nested {POOL}/big {DATA}/docs/")
    assert host.run(f"cat {DATA}/docs/big").stdout == "junk\n", "nothing else was touched"
    for words, message in (
        (["nosuch"], "has no snapshot nosuch"),
        ([name, "--inside", "nosuch"], "has no nosuch"),
        ([name, "--inside", "../../etc"], "--inside is no plain path"),
        ([name, "--to", "relative"], "--to is no absolute path"),
        ([name, "--to", "/nosuch/x"], "there is no folder /nosuch"),
        ([name, "--host", "nosuch"], "Nothing matches"),
    ):
        status, said = site.command("restore", "hourly", *words)
        assert status == 1
        assert message in said
        assert "Traceback" not in said


def test_a_link_in_place_of_the_folder_is_refused(site: Site) -> None:
    """Whoever owns the subvolume could otherwise have root write elsewhere."""
    host = site.host
    host.run(f"mkdir /root/elsewhere; ln -s /root/elsewhere {SNAPSHOTS}")
    site.settle()
    host.run(f"! systemctl start {UNIT}.service")
    (finding,) = site.plan().findings
    assert finding.rule == "last-run-failed"
    assert "is a link, or belongs to somebody else than root" in finding.message
    host.run(f"rm {SNAPSHOTS}; mkdir {SNAPSHOTS}; chown admin {SNAPSHOTS}; ! systemctl start {UNIT}.service")
    assert site.names() == set()
    assert host.run("ls -A /root/elsewhere").stdout == ""


def test_a_link_does_not_lead_a_restore_out_of_the_snapshot(site: Site) -> None:
    host = site.host
    host.run(f"ln -s /etc {DATA}/out; mkdir /root/secret; echo s >/root/secret/file")
    site.settle()
    name = site.take()
    status, said = site.command("restore", "hourly", name, "--inside", "out/passwd", "--to", "/root/p")
    assert status == 1
    assert "a symbolic link is on the way" in said


# ------------------------------------------------------------------------------------------------ drill


def flip(image: Path, pattern: bytes) -> int:
    """Damage every copy of a pattern on the disk behind the file system's back; how many there were."""
    found = 0
    with image.open("r+b") as file:
        start, chunk = 0, 1 << 24
        while True:
            file.seek(start)
            block = file.read(chunk + len(pattern))
            at = block.find(pattern)
            while at >= 0:
                file.seek(start + at + 100)
                file.write(b"\xff" * 50)
                found += 1
                at = block.find(pattern, at + 1)
            if len(block) < chunk:
                return found
            start += chunk


def test_drills(site: Site, disk: tuple[Path, Path]) -> None:
    host = site.host
    host.run(TREE)
    site.settle(keep={"last": 9}, drill={"every": "1s"})
    site.take()
    time.sleep(2.1)
    assert site.rules() == ["drill-overdue"]
    status, said = site.command("drill", "hourly")
    assert status == 0, said
    assert "can be restored" in said
    site.settle(keep={"last": 9}, drill={"every": "30d"})
    assert not site.rules()
    assert not [n for n in host.run(f"ls -A {SNAPSHOTS}").stdout.split() if n.startswith(".drill")]
    # Somebody opens a snapshot, changes it, and closes it again.
    name = site.take()
    change = f"echo x >>{name}/docs/big && btrfs property set {name} ro true"
    host.run(f"cd {SNAPSHOTS} && btrfs property set -f {name} ro false && {change}")
    status, said = site.command("drill", "hourly", name, "--output", "json")
    assert status == 1
    assert json.loads(said.splitlines()[-1])["problems"] == ["the snapshot was changed after it was taken."]
    (finding,) = site.plan().findings
    assert finding.rule == "drill-failed"
    # The disk gives back other bytes than were written.
    secret = hashlib.sha256(b"unlikely").digest() * 4096
    host.write("/root/pattern", secret.hex())
    unhex = f"open('{DATA}/precious', 'wb').write(bytes.fromhex(open('/root/pattern').read()))"
    host.run(f'python3 -c "{unhex}"; sync -f {DATA}')
    sound = site.take()
    assert site.command("drill", "hourly", sound)[0] == 0
    assert not site.rules()
    host.run(f"sync -f {DATA}")
    assert flip(disk[0], secret[:4096]) >= 1
    subprocess.run(["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"], check=True)
    status, said = site.command("drill", "hourly", sound)
    assert status == 1, said
    assert "precious: Input/output error" in said
    (finding,) = site.plan().findings
    assert finding.rule == "drill-failed"
    assert "precious" in finding.message
    assert not [n for n in host.run(f"ls -A {SNAPSHOTS}").stdout.split() if n.startswith(".drill")]
    host.run(f"rm {DATA}/precious")
    good = site.take()
    assert site.command("drill", "hourly", good)[0] == 0
    assert not site.rules()


# ------------------------------------------------------------------------------------------------ other tools


def test_snapper_is_adopted_as_it_is(site: Site) -> None:
    host = site.host
    host.run(f"snapper --no-dbus -c data create-config {DATA}")
    settings = host.read("/etc/snapper/configs/data")
    host.run(f"echo one >{DATA}/file; snapper --no-dbus -c data create -c timeline -d first")
    spec = {"hosts": ["nas1"], "subvolumes": [DATA], "tool": "snapper"}
    assert site.found() == [("nas1-snapper-data", spec)]
    site.policy("adopted", tool="snapper")
    site.apply()
    assert not site.found()
    rules = site.rules()
    assert {"snapper-defaults", "snapper-no-quota"} <= set(rules)
    assert "not-set-up" not in rules
    assert host.read("/etc/snapper/configs/data") == settings
    status, said = site.command("list", "adopted")
    assert status == 0
    assert "  1 " in said
    assert "first timeline" in said
    host.run(f"echo two >{DATA}/file")
    assert site.command("drill", "adopted", "1")[0] == 0
    status, said = site.command("restore", "adopted", "1", "--in-place", "--yes")
    assert status == 0, said
    assert host.run(f"cat {DATA}/file").stdout == "one\n"
    assert "first" in host.run("snapper --no-dbus -c data list").stdout, "snapper's own snapshots are still there"
    host.run("sed -i -E 's/^(TIMELINE_LIMIT_YEARLY|SPACE_LIMIT)=.*/\\1=\"0\"/' /etc/snapper/configs/data")
    assert not {"snapper-defaults", "snapper-no-quota"} & set(site.rules())
    # Our own policy on the same subvolume leaves them alone.
    site.policy("hourly", keep={"last": 1})
    site.apply()
    host.run(f"systemctl start {UNIT}.service; sleep 1; systemctl start {UNIT}.service")
    assert host.run(f"test -d {SNAPSHOTS}/1/snapshot").returncode == 0
    assert "another-tool" in site.rules()


BTRBK = f"""\
timestamp_format long
snapshot_preserve 14d 8w
volume {POOL}
  snapshot_dir btrbk
  subvolume data
"""


def test_btrbk_is_adopted_as_it_is(site: Site) -> None:
    host = site.host
    host.run("mkdir -p /etc/btrbk; cat >/etc/btrbk/btrbk.conf", input=BTRBK)
    ((name, spec),) = site.found()
    assert (name, spec["tool"], spec["subvolumes"]) == ("nas1-btrbk-btrbk", "btrbk", [DATA])
    site.policy("adopted", tool="btrbk")
    site.apply()
    found = {f.rule: f.message for f in site.plan().findings}
    assert "snapshot_preserve 14d 8w` does nothing" in found["btrbk-keeps-everything"]
    assert "btrbk-no-folder" in found
    host.run(f"mkdir {POOL}/btrbk; echo one >{DATA}/file; btrbk run")
    host.run("sed -i '1i snapshot_preserve_min 2d' /etc/btrbk/btrbk.conf")
    rules = set(site.rules())
    assert not {"btrbk-keeps-everything", "btrbk-no-folder", "not-set-up"} & rules
    (name,) = host.run(f"ls {POOL}/btrbk").stdout.split()
    assert name in site.command("list", "adopted")[1]
    assert site.command("drill", "adopted")[0] == 0
    host.run(f"echo two >{DATA}/file")
    assert site.command("restore", "adopted", name, "--in-place", "--yes")[0] == 0
    assert host.run(f"cat {DATA}/file").stdout == "one\n"
    assert host.run("btrbk list snapshots").stdout.count(name) == 1
