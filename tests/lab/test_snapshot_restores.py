"""Restores and drills on a real Btrfs: byte for byte, after a kill, to a new place, from a disk that lies."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.journal import runs
from tests.lab.btrfs import DATA, POOL, PROGRAM, SNAPSHOTS, TREE, UNIT, Site, clean_site, tree
from tests.lab.hosts import LabHost


@pytest.fixture
def site(nas: LabHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    yield from clean_site(nas, tmp_path, capsys)


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
    assert host.run(f"cat {DATA}/docs/nested/file").stdout == "inner\n"
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
    assert f"an earlier restore of everything from {name} in place was stopped half-way" in said
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


def test_the_latest_is_what_the_schedule_took(site: Site) -> None:
    """Not how it was before the first restore, nor what others put beside it; and retention does not prefer these."""
    host = site.host
    site.settle(keep={"last": 1})
    host.run(f"echo good >{DATA}/file")
    name = site.take()
    host.run(f"echo spoilt >{DATA}/file; btrfs -q subvolume snapshot {DATA} {SNAPSHOTS}/received-by-half")
    for words in (["--to", f"{POOL}/first"], ["--to", f"{POOL}/second"]):
        status, said = site.command("restore", "hourly", "latest", *words)
        assert status == 0, said
        assert host.run(f"cat {words[1]}/file").stdout == "good\n"
    _, said = site.command("list", "--output", "json")
    shown = {s["name"]: s for s in json.loads(said)["places"][0]["snapshots"]}
    assert shown[name]["kept"]
    assert "last" in shown[name]["reasons"]
    assert [n for n, s in shown.items() if s["by"] == "restore"]
    assert site.command("restore", "hourly", "latest", "--in-place", "--yes")[0] == 0
    assert host.run(f"cat {DATA}/file").stdout == "good\n"


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
