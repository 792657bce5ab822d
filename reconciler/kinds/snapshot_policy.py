"""SnapshotPolicy: Btrfs snapshots: when they are taken, which ones are kept, and whether they could be restored."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import AbsolutePath, Duration, HostSelector, Ref, Rule, seconds
from reconciler.model import Discovery, Document, Kind, Resource, Script, Spec, Target
from reconciler.probe import expect
from reconciler.tools.snapshots import PROGRAM
from reconciler.tools.snapshots.foreign import btrbk_settings, snapper_settings
from reconciler.types.dsm import ShareName
from reconciler.types.dsm.immutability import TYPE as dsm_immutability
from reconciler.types.dsm.retention import TYPE as dsm_retention
from reconciler.types.dsm.schedule import TYPE as dsm_schedule
from reconciler.types.dsm.schedule import WEEK, last_hour
from reconciler.types.dsm.snapshots import TYPE as dsm_snapshots
from reconciler.types.host.directory import TYPE as host_directory
from reconciler.types.host.file import TYPE as host_file
from reconciler.types.host.snapshots import TYPE as host_snapshots
from reconciler.types.host.snapshots_program import TYPE as host_snapshot_program
from reconciler.types.host.unit import TYPE as host_unit

CONFIGURATION: Final = "/etc/reconciler/snapshots"
UNITS: Final = "/etc/systemd/system"

Every = Literal["5min", "15min", "30min", "1h", "2h", "3h", "4h", "6h", "8h", "12h", "1d"]
ClockTime = Annotated[str, Rule(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", 'a time of the day, such as "03:00"')]
Calendar = Annotated[
    str,
    Rule(
        r"[A-Za-z0-9*][A-Za-z0-9*:/.,~ _+-]*", "a calendar expression of systemd.time(7), such as Mon..Fri 08:00", 200
    ),
]
FolderName = Annotated[
    str,
    Rule(
        r"\.?[A-Za-z0-9_#@][A-Za-z0-9_.#@+-]*|/[^\u0000-\u001f\u007f]+",
        "the name of a folder in the subvolume, such as .snapshots, or an absolute path elsewhere on its file system",
        255,
    ),
]
Percent = Annotated[str, Rule(r"[1-9][0-9]?%", 'a share, such as "10%"')]
Size = Annotated[str, Rule(r"[1-9][0-9]{0,8}(?:M|G|T)", 'a size, such as "500M", "20G" or "2T" (powers of 1,024)')]


class Schedule(Spec):
    """When snapshots are taken."""

    every: Every | None = Field(None, description="The interval, counted from midnight.")
    at: ClockTime | None = Field(None, description="With `every: 1d`: when. GMT, or local time, as `names` says.")
    calendar: Calendar | None = Field(None, description="A calendar expression of systemd, in place of `every`.")


class Keep(Spec):
    """Which snapshots stay: those that any of these rules keeps. Without any, all of them.

    A period counts only if there is a snapshot in it, and its newest one is kept.
    """

    last: int | None = Field(None, ge=1, description="The newest ones.")
    hourly: int | None = Field(None, ge=1, description="Hours of which one is kept.")
    daily: int | None = Field(None, ge=1, description="Days of which one is kept.")
    weekly: int | None = Field(None, ge=1, description="ISO weeks of which one is kept.")
    monthly: int | None = Field(None, ge=1, description="Months of which one is kept.")
    yearly: int | None = Field(None, ge=1, description="Years of which one is kept.")
    min_age: Duration | None = Field(None, description="Younger ones are never removed.")
    max_count: int | None = Field(None, ge=1, description="At most so many of each subvolume; the oldest go first.")
    max_size: Size | None = Field(
        None, description="What only snapshots of a subvolume hold, at most; needs quota (`btrfs quota enable`)."
    )


class FreeSpace(Spec):
    """What happens when space runs out."""

    minimum: Percent | Size = Field(description="Of the file system: a share or a size.")
    when_low: Literal["skip", "remove"] = Field(
        "skip", description="`skip`: take none, and say so. `remove`: first remove the oldest that only a rule keeps."
    )


class Drill(Spec):
    """How often somebody proves that a restore works (`reconciler snapshots drill`)."""

    every: Duration = Field(description="Longer ago, and it is a finding.")


class SnapshotPolicySpec(Spec):
    """Btrfs snapshots: when they are taken, which ones are kept, and whether they could be restored.

    On hosts, a systemd timer takes read-only snapshots into a folder, and removes what no rule keeps. Never removed:
    the newest, locked ones, replication parents, and whatever this policy did not take. Plan and drift report when
    snapshots stop to appear, when there is no space, and when a drill failed or is overdue. When the document goes, the
    timer goes; snapshots stay.

    With `tool: snapper` or `tool: btrbk`, an existing setup is adopted as it is: nothing of it is changed, but it is
    watched, and `reconciler snapshots` lists, restores and drills.

    Hosts need python3 and btrfs-progs. On a Synology, `shares` of the DiskStation get DSM's own schedule and retention;
    those of DSM decide then, in the NAS's own time.

    Example:

        apiVersion: reconciler/v1
        kind: SnapshotPolicy
        metadata:
          name: databases
        spec:
          hosts: {matchLabels: {role: db}}
          subvolumes: [/srv/data]
          schedule: {every: 1h}
          keep: {last: 24, daily: 14, weekly: 8, monthly: 12}
          freeSpace: {minimum: 10%}
          drill: {every: 30d}
    """

    hosts: HostSelector | None = Field(
        None, description="The hosts: a list of names, or `{matchLabels: {role: db}}`; in place of `synology`."
    )
    subvolumes: tuple[AbsolutePath, ...] = Field(
        (), description="On hosts: paths of the subvolumes, each with snapshots of its own."
    )
    synology: Annotated[str | None, Ref("Synology")] = Field(
        None, description="The DiskStation, a document of kind Synology; in place of `hosts`."
    )
    shares: tuple[ShareName, ...] = Field((), description="On a Synology: names of shared folders.")
    immutable: Duration | None = Field(
        None, description="On a Synology: for 1d to 30d nobody can remove a new snapshot, not even an administrator."
    )
    tool: Literal["reconciler", "snapper", "btrbk"] = Field(
        "reconciler", description="Who takes and removes the snapshots; the others are only watched."
    )
    schedule: Schedule | None = Field(None, description="When snapshots are taken.")
    keep: Keep = Field(default_factory=Keep, description="Which snapshots stay; all of them by default.")
    names: Literal["GMT", "local"] = Field(
        "GMT", description="The time in their names, and whose days and weeks count: GMT, or the host's own."
    )
    folder: FolderName = Field(
        ".snapshots", description="Where they are kept: a folder in each subvolume, or elsewhere on its file system."
    )
    free_space: FreeSpace | None = Field(None, description="The guard against a full file system.")
    alert_after: Duration | None = Field(
        None, description="When the newest is too old; by default twice the interval and 15 min, or 2d with a calendar."
    )
    count_limit: int = Field(1024, ge=1, description="From 90% of it on, the number of snapshots is a finding.")
    drill: Drill | None = Field(None, description="How often a restore is to be proved.")


def policy(name: str, spec: SnapshotPolicySpec) -> dict[str, Any]:
    """The policy as the program on the host reads it; times in seconds, sizes in bytes."""
    keep: dict[str, Any] = spec.keep.model_dump(by_alias=True, exclude_none=True)
    if spec.keep.min_age:
        keep["minAge"] = seconds(spec.keep.min_age)
    if spec.keep.max_size:
        keep["maxSize"] = size_in_bytes(spec.keep.max_size)
    out: dict[str, Any] = {"name": name, "tool": spec.tool, "subvolumes": list(spec.subvolumes)}
    out |= {"folder": spec.folder, "names": spec.names, "keep": keep}
    if spec.free_space is not None:
        least = spec.free_space.minimum
        amount = {"percent": int(least[:-1])} if least.endswith("%") else {"bytes": size_in_bytes(least)}
        out["freeSpace"] = {**amount, "whenLow": spec.free_space.when_low}
    return out


def size_in_bytes(size: str) -> int:
    """A `Size` in bytes.

    >>> size_in_bytes("20G")
    21474836480
    """
    return int(size[:-1]) << {"M": 20, "G": 30, "T": 40}[size[-1]]


def calendar(schedule: Schedule, names: str) -> str:
    """The `OnCalendar=` of a schedule."""
    zone = " UTC" if names == "GMT" else ""
    if schedule.calendar is not None:
        # A zone of its own is a last word such as UTC or Europe/Vienna.
        own = re.search(r"\s[A-Za-z_]+(?:/[A-Za-z0-9_+-]+)*$", schedule.calendar)
        return schedule.calendar + ("" if own else zone)
    every = schedule.every or "1d"
    if every == "1d":
        return f"*-*-* {schedule.at or '00:00'}:00{zone}"
    number = int(re.sub(r"\D", "", every))
    return (f"*-*-* *:00/{number}:00" if every.endswith("min") else f"*-*-* 00/{number}:00:00") + zone


def oldest_allowed(spec: SnapshotPolicySpec) -> int:
    """Seconds after which the newest snapshot is too old."""
    if spec.alert_after is not None:
        return seconds(spec.alert_after)
    if spec.schedule is None or spec.schedule.every is None:
        return seconds("2d")
    return 2 * seconds(spec.schedule.every) + seconds("15min")


SERVICE: Final = """\
[Unit]
Description=Btrfs snapshots of the policy {name}
RequiresMountsFor={mounts}

[Service]
Type=oneshot
ExecStart=/usr/bin/env python3 -I {program} run {configuration}/{name}.json
Nice=10
IOSchedulingClass=idle
"""
TIMER: Final = """\
[Unit]
Description=Btrfs snapshots of the policy {name}

[Timer]
OnCalendar={calendar}
AccuracySec=1s
Persistent=true

[Install]
WantedBy=timers.target
"""


def quoted(path: str) -> str:
    r"""A path as one word of a unit file.

    >>> quoted('/srv/a "b" 100%')
    '"/srv/a \\"b\\" 100%%"'
    """
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def expand(document: Document[SnapshotPolicySpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """What the policy means on every selected host, or on the DiskStation."""
    if document.spec.synology is not None:
        yield from _on_synology(document.spec.synology, document.spec)
    elif document.spec.hosts is not None:
        for host in catalog.hosts(document.spec.hosts):
            yield from _on_host(host, document.name, document.spec)


def _on_host(host: str, name: str, spec: SnapshotPolicySpec) -> Iterable[Resource[Any]]:
    """The program, the policy, the timer, and the audit that watches them."""
    written = policy(name, spec)
    packages = ("package:python3", "package:btrfs-progs")
    stem = f"{UNITS}/reconciler-snapshots-{name}"
    yield host_snapshot_program(host, path=PROGRAM, mode="0755", owner="root")
    after: tuple[str, ...] = packages
    if spec.tool == "reconciler" and spec.schedule is not None:
        for folder in ("/etc/reconciler", CONFIGURATION):
            yield host_directory(host, path=folder, mode="0755", owner="root", group="root")
        file = f"{CONFIGURATION}/{name}.json"
        text = json.dumps(written, indent=2, ensure_ascii=False) + "\n"
        mounts = " ".join(map(quoted, spec.subvolumes))
        service = SERVICE.format(name=name, mounts=mounts, program=PROGRAM, configuration=CONFIGURATION)
        timer = TIMER.format(name=name, calendar=calendar(spec.schedule, spec.names))
        files = {file: text, f"{stem}.service": service, f"{stem}.timer": timer}
        for path, content in files.items():
            yield host_file(host, path=path, content=content, mode="0644", owner="root", group="root")
        before = tuple(f"path:{path}" for path in (PROGRAM, *files))
        unit = f"reconciler-snapshots-{name}"
        # Neither enabled nor kept running: only so that systemd reads a changed file anew.
        yield host_unit(host, unit=f"{unit}.service", watch=(f"{stem}.service",), on_change="restart")
        yield host_unit(
            host,
            unit=f"{unit}.timer",
            enabled=True,
            running=True,
            watch=(f"{stem}.timer",),
            after=(*before, f"unit:{unit}.service", *packages),
        )
        after = (f"unit:{unit}.timer", f"path:{file}", *packages)
    yield host_snapshots(
        host,
        name=name,
        policy=json.dumps(written, sort_keys=True),
        max_age=oldest_allowed(spec),
        count_limit=spec.count_limit,
        drill_every=seconds(spec.drill.every) if spec.drill else None,
        after=after,
    )


def _on_synology(target: str, spec: SnapshotPolicySpec) -> Iterable[Resource[Any]]:
    """DSM's own schedule, retention and protection of each share, and the audit that watches them."""
    schedule = spec.schedule or Schedule(every="1d")
    every = schedule.every or "1d"
    hour, minute = map(int, (schedule.at or "00:00").split(":"))
    last = hour if every == "1d" else last_hour(0, int(every[:-1]) if every.endswith("h") else 0)
    for share in spec.shares:
        retention = _retention(spec.keep)
        if retention:
            yield dsm_retention(target, share=share, **retention)
        yield dsm_schedule(target, share=share, every=every, hour=hour, minute=minute, last_hour=last, weekdays=WEEK)
        if spec.immutable is not None:
            yield dsm_immutability(target, share=share, days=seconds(spec.immutable) // 86_400)
        yield dsm_snapshots(target, share=share, max_age=oldest_allowed(spec))


def _retention(keep: Keep) -> dict[str, Any]:
    """The fields of `dsm.retention`. DSM knows "the newest", and its smart retention for everything else."""
    periods = {name: getattr(keep, name) for name in ("hourly", "daily", "weekly", "monthly", "yearly")}
    if not any(periods.values()) and keep.min_age is None:
        return {"mode": "newest", "newest": keep.last} if keep.last else {}
    days = seconds(keep.min_age) // 86_400 if keep.min_age else 0
    counts = {name: number or 0 for name, number in periods.items()}
    return {"mode": "smart", "minimum": keep.last or 0, "all_days": days, **counts}


def check(document: Document[SnapshotPolicySpec], catalog: Catalog) -> Iterable[Problem]:
    """Schedules that say two things or nothing, settings that nobody reads, and folders in the wrong place."""
    for path, message, fix in mistakes(document.spec):
        yield catalog.problem(document, ("spec", *path), message, fix)


def mistakes(spec: SnapshotPolicySpec) -> Iterable[tuple[tuple[str | int, ...], str, str]]:
    """Place in the spec, message and fix of everything that is wrong with it."""
    declared = {type(spec).model_fields[n].alias or n for n in spec.model_fields_set if getattr(spec, n) is not None}
    if (spec.hosts is None) == (spec.synology is None):
        yield (), "needs one of `hosts` and `synology`.", "Write where the snapshots are taken."
        return
    if spec.synology is None:
        for field in sorted(declared & {"shares", "immutable"}):
            yield (field,), "is for a Synology only.", "Take it out; snapshots on hosts are read-only in any case."
        yield from _host_mistakes(spec, declared)
    else:
        for field in sorted(declared & {"subvolumes", "tool", "folder", "freeSpace", "drill", "names", "countLimit"}):
            yield (field,), "is for hosts only; on a Synology, DSM decides it.", "Take it out."
        yield from _synology_mistakes(spec)


def _synology_mistakes(spec: SnapshotPolicySpec) -> Iterable[tuple[tuple[str | int, ...], str, str]]:
    if not spec.shares:
        yield (), "names no shared folder.", "Add `shares: [photos]`."
    if spec.schedule is None:
        yield (), "has no schedule.", "Add `schedule: {every: 1d}`."
    elif spec.schedule.calendar is not None:
        message = "is for hosts: DSM is known to store schedules that it then never fires."
        yield ("schedule", "calendar"), message, "Write `every:`, which has the intervals of DSM's own dialog."
    else:
        yield from _schedule_mistakes(spec.schedule)
    for name in ("max_count", "max_size"):
        if getattr(spec.keep, name) is not None:
            field = Keep.model_fields[name].alias or name
            yield ("keep", field), "is nothing that DSM can do.", "Write `last:` and periods."
    for path, duration in ((("keep", "minAge"), spec.keep.min_age), (("immutable",), spec.immutable)):
        if duration is not None and seconds(duration) % 86_400:
            yield path, "is no whole number of days, which is what DSM counts in.", "Write 1d, for example."
    if spec.immutable is not None and not 1 <= seconds(spec.immutable) / 86_400 <= 30:
        yield ("immutable",), "is not between 1d and 30d.", "DSM's own dialog takes no other period."


def _host_mistakes(
    spec: SnapshotPolicySpec, declared: Collection[str]
) -> Iterable[tuple[tuple[str | int, ...], str, str]]:
    if not spec.subvolumes:
        yield (), "names no subvolume.", "Add `subvolumes: [/srv/data]`."
    if spec.tool != "reconciler":
        for field in ("schedule", "keep", "freeSpace"):
            if field in declared:
                message = f"{spec.tool} is adopted as it is, so this would have no effect."
                yield (field,), message, f"Take it out, and set it up in {spec.tool}'s own configuration."
    elif spec.schedule is None:
        yield (), "has no schedule.", "Add `schedule: {every: 1h}`, or `tool: snapper` to watch what snapper does."
    else:
        yield from _schedule_mistakes(spec.schedule)
    seen: set[str] = set()
    for index, path in enumerate(spec.subvolumes):
        if path in seen:
            yield ("subvolumes", index), "is named twice.", "Keep one of them."
        seen.add(path)
        if spec.folder.startswith("/") and (spec.folder + "/").startswith(path.rstrip("/") + "/"):
            message = f"lies in {path}, where a single name is enough."
            yield ("folder",), message, "Write a name such as .snapshots, or a folder outside of it."
    if spec.folder.startswith("/") and len(spec.subvolumes) > 1:
        message = "is one folder for the snapshots of several subvolumes."
        yield ("folder",), message, "Write a name such as .snapshots, or make a document for each subvolume."
    if re.search(r"/(?:\.\.?(?:/|$)|/)|.(?<!^)/$", spec.folder):
        yield ("folder",), "is no plain absolute path.", "Write it without `.`, `..` and slashes at its end."


def _schedule_mistakes(schedule: Schedule) -> Iterable[tuple[tuple[str, ...], str, str]]:
    if (schedule.every is None) == (schedule.calendar is None):
        yield ("schedule",), "needs one of `every` and `calendar`.", "Write `every: 1h`, for example."
    if schedule.at is not None and schedule.every != "1d":
        yield ("schedule", "at"), "goes with `every: 1d` only.", "Take it out, or write `every: 1d`."


# ------------------------------------------------------------------------------------------------ what is there

READ: Final = r"""
for f in "$ROOT"/etc/snapper/configs/* "$ROOT/etc/btrbk/btrbk.conf"; do
    [ -f "$f" ] || continue
    printf '%s\0' "${f#"$ROOT"}"
    cat -- "$f"
    printf '\0'
done
"""


def discover(target: Target) -> Discovery | None:
    """What snapper and btrbk are set up for on a host; other systems have nothing of that kind."""
    return _discover(target.name) if target.connection in ("ssh", "local", "image") else None


def _discover(host: str) -> Discovery:
    (reply,) = yield [Script(READ)]
    words = iter(expect(reply, "reading the settings of snapper and btrbk").split("\0"))
    found: dict[str, Mapping[str, Any]] = {}
    for file, text in zip(words, words, strict=False):
        if "/snapper/" in file:
            settings = snapper_settings(text)
            paths = [settings["SUBVOLUME"]] if settings.get("SUBVOLUME") else []
            tool, name = "snapper", file.rpartition("/")[2]
        else:
            paths, tool, name = [one["path"] for one in btrbk_settings(text)], "btrbk", "btrbk"
        if paths:
            plain = re.sub(r"[^a-z0-9.-]+", "-", f"{host}-{tool}-{name}".lower()).strip("-.")
            found[plain] = {"hosts": [host], "subvolumes": sorted(set(paths)), "tool": tool}
    return found.items()


KIND = Kind("SnapshotPolicy", SnapshotPolicySpec, expand, check, discover=discover)
