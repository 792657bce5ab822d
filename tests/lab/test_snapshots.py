"""SnapshotPolicy on a real host with a real Btrfs: timers, retention, drift, findings."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.btrfs import DATA, NEVER, POOL, PROGRAM, SNAPSHOTS, UNIT, Site, clean_site, wait
from tests.lab.hosts import LabHost


@pytest.fixture
def site(nas: LabHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    yield from clean_site(nas, tmp_path, capsys)


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
    # Two reasons to keep it: it goes when both have gone.
    assert site.command("lock", "hourly", locked, "--parent")[0] == 0
    assert site.command("unlock", "hourly", locked, "--parent")[0] == 0
    host.run(f"systemctl start {UNIT}.service")
    assert locked in site.names()
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


def test_what_cannot_be_removed_keeps_no_new_one_from_being_taken(site: Site) -> None:
    """A snapshot that is being sent, perhaps for hours, goes later."""
    host = site.host
    site.settle(keep={"last": 1})
    host.run(f"head -c 4000000 /dev/urandom >{DATA}/file")
    held = site.take()
    host.run(f"(btrfs send -q {SNAPSHOTS}/{held} | sleep 600) >/dev/null 2>&1 & sleep 0.5")
    for _ in range(2):
        before = site.names()
        host.run(f"! systemctl start {UNIT}.service")
        assert len(site.names() - before) == 1
    assert len(site.names()) == 2, "the others go all the same"
    (finding,) = site.plan().findings
    assert finding.rule == "not-removed"
    assert held in finding.message
    host.run("pkill -x sleep; while pgrep -x btrfs; do sleep 0.1; done", check=False)
    site.take()
    assert held not in site.names()
    assert not site.rules()


def test_an_incremental_replication_that_breaks_off(site: Site) -> None:
    """Half of a snapshot that was being received is nobody's latest one; the parent of the next try is still there."""
    host = site.host
    site.settle(keep={"last": 1})
    parent = site.take()
    assert site.command("lock", "hourly", parent, "--parent")[0] == 0
    host.run(f"head -c 4000000 /dev/urandom >{DATA}/file")
    second = site.take()
    receive = f"mkdir -p {POOL}/copy; btrfs send -q {SNAPSHOTS}/{parent} | btrfs receive {POOL}/copy"
    send = f"btrfs send -q -p {SNAPSHOTS}/{parent} {SNAPSHOTS}/{second}"
    host.run(f"{receive}; {send} | head -c 1000000 | btrfs receive {SNAPSHOTS}", check=False)
    third = site.take()
    assert parent in site.names()
    host.run(f"! test -e {POOL}/copy/{third}; btrfs send -q -p {SNAPSHOTS}/{parent} {SNAPSHOTS}/{third} >{POOL}/sent")
    half = host.run(f"{send.replace(second, third)} | head -c 1000000 | btrfs receive {POOL}/copy 2>&1", check=False)
    assert half.returncode or "ERROR" in half.stdout
    host.run(f"btrfs -q subvolume delete {POOL}/copy/{third}; btrfs receive -f {POOL}/sent {POOL}/copy")
    assert host.run(f"cmp {POOL}/copy/{third}/file {DATA}/file").returncode == 0


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
