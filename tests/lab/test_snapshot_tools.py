"""Snapper and btrbk on a real host are adopted as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.btrfs import DATA, POOL, SNAPSHOTS, UNIT, Site, clean_site
from tests.lab.hosts import LabHost


@pytest.fixture
def site(nas: LabHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    yield from clean_site(nas, tmp_path, capsys)


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
