"""Snapshots that snapper and btrbk take: where they are, and what their settings do that people do not expect.

Formats: snapper-configs(5) and the `info.xml` that snapper writes; btrbk.conf(5). Nothing of theirs is ever changed.
Runs on hosts: Python 3.9, standard library only.
"""

# File names of any bytes, many of them: strings, as the system calls take them.
# ruff: noqa: PTH112, PTH113, PTH118, PTH119, PTH207

from __future__ import annotations

import glob
import os
import re
import shlex
import time
from calendar import timegm
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.tools.snapshots.btrfs import is_subvolume, look
from reconciler.tools.snapshots.folder import Entry
from reconciler.tools.snapshots.names import moment_of

SNAPPER_CONFIGS = "/etc/snapper/configs"
BTRBK_CONFIGS = ("/etc/btrbk/btrbk.conf", "/etc/btrbk.conf")


@dataclass(frozen=True)
class Setup:
    """What another tool does with one subvolume.

    Attributes:
        tool: `snapper` or `btrbk`.
        config: the file that says so.
        path: the subvolume.
        settings: its own settings that hold there.
        timers: systemd timers that must run for it.
    """

    tool: str
    config: str
    path: str
    settings: Mapping[str, str] = field(default_factory=dict)
    timers: tuple[str, ...] = ()

    def traps(self) -> list[tuple[str, str, str]]:
        """Rule, message and fix of everything in the settings that does not do what it seems to."""
        found = _snapper_traps(self.settings) if self.tool == "snapper" else _btrbk_traps(self.settings)
        return [(rule, f"{self.config}, {self.path}: {message}", fix) for rule, message, fix in found]

    def entries(self) -> list[Entry]:
        """Its snapshots, oldest first."""
        found = _snapper_entries(self.path) if self.tool == "snapper" else _btrbk_entries(self.settings)
        return sorted(found, key=lambda e: (e.created, e.name))


def setups(root: str = "") -> list[Setup]:
    """All that snapper and btrbk are set up for on this host."""
    found = []
    for file in sorted(glob.glob(f"{root}{SNAPPER_CONFIGS}/*")):
        settings = snapper_settings(_text(file))
        if settings.get("FSTYPE", "btrfs") == "btrfs" and settings.get("SUBVOLUME"):
            found.append(
                Setup("snapper", file[len(root) :], settings["SUBVOLUME"], settings, _snapper_timers(settings))
            )
    for name in BTRBK_CONFIGS:
        if os.path.isfile(root + name):
            for settings in btrbk_settings(_text(root + name)):
                timers = () if glob.glob(f"{root}/etc/cron.*/btrbk*") else ("btrbk.timer",)
                found.append(Setup("btrbk", name, settings["path"], settings, timers))
            break
    return found


def _text(file: str) -> str:
    with open(file, encoding="utf-8", errors="replace") as handle:
        return handle.read()


# ------------------------------------------------------------------------------------------------ snapper

SNAPPER_DEFAULTS = {
    "TIMELINE_CREATE": "yes",
    "TIMELINE_CLEANUP": "yes",
    "TIMELINE_LIMIT_HOURLY": "10",
    "TIMELINE_LIMIT_DAILY": "10",
    "TIMELINE_LIMIT_WEEKLY": "0",
    "TIMELINE_LIMIT_MONTHLY": "10",
    "TIMELINE_LIMIT_QUARTERLY": "0",
    "TIMELINE_LIMIT_YEARLY": "10",
    "SPACE_LIMIT": "0.5",
    "QGROUP": "",
}


def snapper_settings(text: str) -> dict[str, str]:
    """The settings of one configuration file: lines `NAME="value"`, as a shell reads them."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"\s*([A-Z_0-9]+)=(.*?)\s*", line)
        if match:
            try:
                words = shlex.split(match[2], comments=True)
            except ValueError:
                continue
            found[match[1]] = words[0] if words else ""
    return found


def _snapper_timers(settings: Mapping[str, str]) -> tuple[str, ...]:
    full = {**SNAPPER_DEFAULTS, **settings}
    timeline = ("snapper-timeline.timer",) if full["TIMELINE_CREATE"] == "yes" else ()
    return (*timeline, "snapper-cleanup.timer")


def _snapper_traps(settings: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    full = {**SNAPPER_DEFAULTS, **settings}
    timeline = full["TIMELINE_CREATE"] == "yes"
    if timeline and full["TIMELINE_CLEANUP"] != "yes":
        message = "a snapshot every hour, and TIMELINE_CLEANUP=no: none is ever removed."
        yield "snapper-keeps-everything", message, 'Set TIMELINE_CLEANUP="yes".'
    limits = [n for n in SNAPPER_DEFAULTS if n.startswith("TIMELINE_LIMIT_")]
    if timeline and all(full[n] == SNAPPER_DEFAULTS[n] for n in limits):
        message = "the limits are snapper's defaults: ten months and ten years are kept, and not one week."
        yield "snapper-defaults", message, "Choose TIMELINE_LIMIT_* yourself; 0 for what you do not want."
    if not full["QGROUP"] and "SPACE_LIMIT" in settings and full["SPACE_LIMIT"] not in ("", "0"):
        message = f"SPACE_LIMIT={full['SPACE_LIMIT']} does nothing, because QGROUP is empty."
        yield "snapper-no-quota", message, "Run `snapper setup-quota`, or do not rely on the limit."


def _snapper_entries(path: str) -> Iterable[Entry]:
    folder = os.path.join(path, ".snapshots")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        place = os.path.join(folder, name, "snapshot")
        if name.isdigit() and is_subvolume(place):
            volume = look(place)
            if volume is not None:
                about = _text(xml) if os.path.isfile(xml := os.path.join(folder, name, "info.xml")) else ""
                words = {m[1]: m[2] for m in re.finditer(r"<(date|description|cleanup)>([^<]*)<", about)}
                created = _utc(words.get("date", "")) or volume.created
                note = " ".join(filter(None, (words.get("description"), words.get("cleanup"))))
                yield Entry(name, place, created, volume, note=note)


def _utc(date: str) -> int:
    try:
        return timegm(time.strptime(date, "%Y-%m-%d %H:%M:%S"))
    except ValueError:
        return 0


# ------------------------------------------------------------------------------------------------ btrbk

BTRBK_DEFAULTS = {
    "snapshot_create": "always",
    "snapshot_preserve_min": "all",
    "snapshot_preserve": "no",
    "target_preserve_min": "all",
    "target_preserve": "no",
}


def btrbk_settings(text: str) -> list[dict[str, str]]:
    """The settings that hold for each subvolume, with those inherited from its volume and from the top.

    Besides btrbk's own: `path` (of the subvolume), `folder` (of its snapshots), `target` (the first one, if any).
    """
    top: dict[str, str] = {}
    volume: dict[str, str] = {}
    found: list[dict[str, str]] = []
    inside = top
    for line in text.splitlines():
        words = re.sub(r"(^|\s)#.*", "", line).split(None, 1)
        if not words:
            continue
        name, value = words[0], words[1].strip().strip("\"'") if len(words) > 1 else ""
        if name == "volume":
            inside = volume = {**top, "volume": value}
        elif name == "subvolume":
            above = volume or top
            path = os.path.normpath(os.path.join(above.get("volume", "/"), value))
            inside = {**above, "path": path}
            found.append(inside)
        elif name == "target":
            inside.setdefault("target", value.split()[-1] if value else "")
            if "path" in inside:
                # What follows belongs to the target alone.
                inside = {}
        elif name:
            inside[name] = value
    for one in found:
        one["folder"] = os.path.normpath(os.path.join(one.get("volume", "/"), one.get("snapshot_dir", "")))
        one.setdefault("snapshot_name", os.path.basename(one["path"]))
    return found


def _btrbk_traps(settings: Mapping[str, str]) -> Iterable[tuple[str, str, str]]:
    full = {**BTRBK_DEFAULTS, **settings}
    for what in ("snapshot", "target") if "target" in full else ("snapshot",):
        if full[f"{what}_preserve_min"] == "all":
            setting = f"{what}_preserve {full[f'{what}_preserve']}"
            seems = f"`{setting}` does nothing" if full[f"{what}_preserve"] != "no" else f"no {what} is ever removed"
            why = "set to" if f"{what}_preserve_min" in settings else "by default"
            fix = f"Set {what}_preserve_min, for example to 2d or latest."
            yield "btrbk-keeps-everything", f"{seems}, because {what}_preserve_min is {why} all.", fix
    if not os.path.isdir(full.get("folder", "/")):
        message = f"the folder {full['folder']} does not exist, and btrbk does not make it."
        yield "btrbk-no-folder", message, f"mkdir -p {full['folder']}"


def _btrbk_entries(settings: Mapping[str, str]) -> Iterable[Entry]:
    folder, stem = settings["folder"], settings["snapshot_name"] + "."
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        place = os.path.join(folder, name)
        moment = btrbk_moment(name[len(stem) :]) if name.startswith(stem) else None
        if moment is not None and is_subvolume(place):
            volume = look(place)
            if volume is not None:
                yield Entry(name, place, moment, volume)


def btrbk_moment(stamp: str) -> int | None:
    """Seconds since the epoch of `20261122`, `20261122T0400` or `20261122T040000+0100`, with or without `_1`."""
    stamp = stamp.partition("_")[0]
    match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)([+-]\d{4})", stamp)
    if match:
        return moment_of("{}.{}.{}-{}.{}.{}{}".format(*match.groups()))
    for form in ("%Y%m%dT%H%M", "%Y%m%d"):
        try:
            # Local time, and nothing to tell the hour that DST repeats.
            return int(time.mktime(time.strptime(stamp, form)))
        except (ValueError, OverflowError):
            continue
    return None
