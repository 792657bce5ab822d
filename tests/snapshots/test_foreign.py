"""Reading what snapper and btrbk are set up for; and the text of units."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.kinds.snapshot_policy import Schedule, calendar, quoted, size_in_bytes
from reconciler.tools.snapshots.btrfs import Trouble
from reconciler.tools.snapshots.foreign import Setup, btrbk_moment, btrbk_settings, setups, snapper_settings
from reconciler.tools.snapshots.names import moment_of
from reconciler.tools.snapshots.program import folder_of, rules_of

SNAPPER = """\
# subvolume to snapshot
SUBVOLUME="/home"
FSTYPE="btrfs"
QGROUP=""
SPACE_LIMIT="0.5"   # of the file system
TIMELINE_CREATE="yes"
TIMELINE_CLEANUP='no'
TIMELINE_LIMIT_HOURLY="10"
BROKEN="
"""

BTRBK = """\
# comment
snapshot_preserve_min   2d
timestamp_format        long-iso   # another comment
snapshot_preserve       14d 8w

volume /mnt/pool
  snapshot_dir _btrbk
  target send-receive ssh://backup/mnt
  subvolume home
    snapshot_name people
    snapshot_preserve_min all
  subvolume srv/www
    snapshot_preserve no
    target /mnt/disk
      target_preserve_min 4w

volume /mnt/other
  subvolume .
"""


def rules(setup: Setup) -> list[str]:
    return [rule for rule, _, _ in setup.traps()]


def test_snapper() -> None:
    found = snapper_settings(SNAPPER)
    assert found["SUBVOLUME"] == "/home"
    assert found["SPACE_LIMIT"] == "0.5"
    assert found["QGROUP"] == ""
    assert found["TIMELINE_CLEANUP"] == "no"
    assert "BROKEN" not in found
    wrong = Setup("snapper", "/etc/snapper/configs/home", "/home", found)
    assert rules(wrong) == ["snapper-keeps-everything", "snapper-defaults", "snapper-no-quota"]
    assert all("/etc/snapper/configs/home, /home: " in message for _, message, _ in wrong.traps())
    right = {**found, "TIMELINE_CLEANUP": "yes", "TIMELINE_LIMIT_YEARLY": "0", "QGROUP": "1/0"}
    assert not rules(Setup("snapper", "x", "/home", right))
    assert not rules(Setup("snapper", "x", "/home", {"TIMELINE_CREATE": "no"}))


def test_btrbk(tmp_path: Path) -> None:
    home, www, other = btrbk_settings(BTRBK)
    assert (home["path"], home["folder"], home["snapshot_name"]) == ("/mnt/pool/home", "/mnt/pool/_btrbk", "people")
    assert (www["path"], www["snapshot_name"]) == ("/mnt/pool/srv/www", "www")
    assert (other["path"], other["folder"]) == ("/mnt/other", "/mnt/other")
    assert home["snapshot_preserve_min"] == "all"
    assert www["snapshot_preserve_min"] == "2d"
    assert www["snapshot_preserve"] == "no"
    assert "target_preserve_min" not in www, "that belongs to the target"
    assert "target" not in other
    there = {"folder": str(tmp_path)}
    assert rules(Setup("btrbk", "x", "/a", home | there)) == ["btrbk-keeps-everything"] * 2
    assert rules(Setup("btrbk", "x", "/a", other | there)) == []
    assert rules(Setup("btrbk", "x", "/a", other)) == ["btrbk-no-folder"]
    ((_, message, _),) = Setup("btrbk", "x", "/a", {"snapshot_preserve": "14d", **there}).traps()
    assert "`snapshot_preserve 14d` does nothing, because snapshot_preserve_min is by default all." in message
    ((_, message, _),) = Setup("btrbk", "x", "/a", there).traps()
    assert "no snapshot is ever removed" in message


def test_both_on_one_host(tmp_path: Path) -> None:
    (tmp_path / "etc/snapper/configs").mkdir(parents=True)
    (tmp_path / "etc/snapper/configs/home").write_text(SNAPPER)
    (tmp_path / "etc/snapper/configs/lvm").write_text('SUBVOLUME="/x"\nFSTYPE="ext4"\n')
    (tmp_path / "etc/btrbk").mkdir()
    (tmp_path / "etc/btrbk/btrbk.conf").write_text(BTRBK)
    found = setups(str(tmp_path))
    assert [(s.tool, s.path) for s in found] == [
        ("snapper", "/home"),
        ("btrbk", "/mnt/pool/home"),
        ("btrbk", "/mnt/pool/srv/www"),
        ("btrbk", "/mnt/other"),
    ]
    assert found[0].timers == ("snapper-timeline.timer", "snapper-cleanup.timer")
    assert found[1].timers == ("btrbk.timer",)
    (tmp_path / "etc/cron.daily").mkdir()
    (tmp_path / "etc/cron.daily/btrbk").touch()
    assert setups(str(tmp_path))[1].timers == ()
    assert setups(str(tmp_path / "nothing")) == []


def test_moments_of_btrbk() -> None:
    assert btrbk_moment("20261122T040000+0100") == moment_of("2026.11.22-04.00.00+0100")
    assert btrbk_moment("20261122T040000+0100_1") == btrbk_moment("20261122T040000+0100")
    assert btrbk_moment("20261122T0400") is not None
    assert btrbk_moment("20261122_2") is not None
    assert btrbk_moment("20261322") is None
    assert btrbk_moment("old") is None


@pytest.mark.parametrize(
    ("schedule", "names", "wanted"),
    [
        ({"every": "15min"}, "GMT", "*-*-* *:00/15:00 UTC"),
        ({"every": "1h"}, "local", "*-*-* 00/1:00:00"),
        ({"every": "12h"}, "GMT", "*-*-* 00/12:00:00 UTC"),
        ({"every": "1d", "at": "03:30"}, "local", "*-*-* 03:30:00"),
        ({"every": "1d"}, "GMT", "*-*-* 00:00:00 UTC"),
        ({"calendar": "Mon..Fri 08:00"}, "GMT", "Mon..Fri 08:00 UTC"),
        ({"calendar": "Mon..Fri 08:00 Europe/Vienna"}, "GMT", "Mon..Fri 08:00 Europe/Vienna"),
        ({"calendar": "daily"}, "GMT", "daily UTC"),
        ({"calendar": "daily"}, "local", "daily"),
    ],
)
def test_calendars(schedule: dict[str, str], names: str, wanted: str) -> None:
    assert calendar(Schedule.model_validate(schedule), names) == wanted


def test_words_of_units_and_sizes() -> None:
    assert quoted("/a\\b") == '"/a\\\\b"'
    assert quoted('/srv/a "b" 100%') == '"/srv/a \\"b\\" 100%%"'
    assert [size_in_bytes(s) for s in ("1M", "2G", "3T")] == [1 << 20, 2 << 30, 3 << 40]


def test_policies_as_the_host_reads_them() -> None:
    found = rules_of({"names": "GMT", "keep": {"last": 3, "minAge": 60, "maxSize": 10}})
    assert (found.last, found.daily, found.min_age, found.max_bytes, found.max_count) == (3, 0, 60, 10, None)
    with pytest.raises(Trouble, match="is no subvolume of this policy"):
        folder_of({"subvolumes": ["/a"], "folder": "x", "tool": "reconciler"}, "/b")
