"""What runs on a host: takes snapshots by a timer, removes old ones, restores, drills, and tells how things are.

The host gets one file that is made of the modules of this folder (see `reconciler.tools.snapshots.program_text`), so
that the retention on the host is the function that the tests are about, byte for byte.

Commands: `run FILE` (a policy's file; what the service calls), and for `reconciler` itself, with policies as JSON:
`status POLICY...`, `list POLICY`, `take`, `lock`, `parent`, `unlock`, `find`, `copy-new`, `copy`, `swap`, `finish`,
`drill`. Each prints one JSON object as its last line. Python 3.9, standard library only.
"""

# File names of any bytes, many of them: strings, as the system calls take them.
# ruff: noqa: PTH103, PTH118
# ruff: noqa: T201

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

from reconciler.tools.snapshots.btrfs import Trouble, call, is_mounted, subvolume
from reconciler.tools.snapshots.folder import Entry, Folder, read, write
from reconciler.tools.snapshots.foreign import Setup, setups
from reconciler.tools.snapshots.names import GMT
from reconciler.tools.snapshots.restoring import InPlace, drill, to_new_path
from reconciler.tools.snapshots.retention import Policy, Verdict, keep, sacrifices

STATE = "/var/lib/reconciler/snapshots"
OWN_FOLDER = ".reconciler-snapshots"
"""Where snapshots before a restore go, where another tool owns the usual folder."""


def zone_of(policy: Mapping[str, Any]) -> tzinfo:
    """The zone whose calendar counts: GMT, or that of this host."""
    if policy.get("names") == "local":
        try:
            from zoneinfo import ZoneInfo

            with open("/etc/localtime", "rb") as file:
                return ZoneInfo.from_file(file)
        except (ImportError, OSError, ValueError):
            pass
    return GMT


def rules_of(policy: Mapping[str, Any]) -> Policy:
    """The retention that a policy's JSON means."""
    rules = policy.get("keep") or {}
    counts = {name: int(rules.get(name) or 0) for name in ("last", "hourly", "daily", "weekly", "monthly", "yearly")}
    return Policy(
        **counts,
        min_age=int(rules.get("minAge") or 0),
        max_count=rules.get("maxCount"),
        max_bytes=rules.get("maxSize"),
        zone=zone_of(policy),
    )


def folder_of(policy: Mapping[str, Any], path: str) -> Folder:
    """The folder of one subvolume's snapshots.

    Raises:
        Trouble: the policy does not name the subvolume.
    """
    if path not in policy["subvolumes"]:
        raise Trouble(f"{path} is no subvolume of this policy. There are: {', '.join(policy['subvolumes'])}.")
    return Folder(path, policy["folder"] if policy["tool"] == "reconciler" else OWN_FOLDER)


def entries_of(policy: Mapping[str, Any], path: str, *, sized: bool = False) -> list[Entry]:
    """All snapshots of a subvolume that the policy is about, oldest first."""
    own = folder_of(policy, path).entries(sized=sized)
    if policy["tool"] == "reconciler":
        return own
    theirs = [e for one in setups() if one.tool == policy["tool"] and one.path == path for e in one.entries()]
    return sorted([*own, *theirs], key=lambda e: (e.created, e.name))


def find(policy: Mapping[str, Any], path: str, name: str) -> Entry:
    """A snapshot by its name; `latest` is the newest that the policy's own tool took.

    Raises:
        Trouble: there is none.
    """
    entries = entries_of(policy, path)
    for entry in entries:
        if entry.name == name:
            return entry
    regular = [e for e in own(policy, entries) if not e.aside]
    if name == "latest" and regular:
        # What was taken while the clock was ahead is not new for as long as that.
        now = int(time.time())
        return max(regular, key=lambda e: (e.created <= now, e.created, e.name))
    raise Trouble(f"{path} has no snapshot {name}. `reconciler snapshots list` shows what there is.")


def own(policy: Mapping[str, Any], entries: Sequence[Entry]) -> list[Entry]:
    """Those that the policy's own tool took; not what people and other programs put beside them."""
    if policy["tool"] == "reconciler":
        return [e for e in entries if e.record.get("policy") == policy["name"]]
    return [e for e in entries if not e.record]


# ------------------------------------------------------------------------------------------------ the timer's work


def run(policy: Mapping[str, Any]) -> int:
    """Take a snapshot of each subvolume, remove what the policy removes, note how it went. Gives the exit status."""
    paths = {path: one_run(policy, path) for path in policy["subvolumes"]}
    well = not any(p.keys() & {"error", "held", "stuck"} for p in paths.values())
    now = int(time.time())
    first = read(os.path.join(STATE, "run", f"{policy['name']}.json")).get("first") or now
    note("run", policy["name"], {"at": now, "first": first, "ok": well, "paths": paths})
    for path, outcome in paths.items():
        print(f"{path}: {json.dumps(outcome, sort_keys=True)}")
    return 0 if well else 1


def one_run(policy: Mapping[str, Any], path: str) -> dict[str, Any]:
    """One subvolume: taken, removed, and why not (`held` by the guard, `error`; `stuck` = what could not be removed,
    which keeps no new snapshot from being taken)."""
    outcome: dict[str, Any] = {}
    try:
        subvolume(path)
        folder = folder_of(policy, path)
        with folder.locked():
            removed, stuck = prune(policy, folder)
            outcome["removed"] = removed
            low = lack(policy, path)
            if low and (policy.get("freeSpace") or {}).get("whenLow") == "remove":
                more, failed = make_room(policy, folder)
                removed += more
                stuck += failed
                low = lack(policy, path)
            if low:
                outcome["held"] = low
            else:
                zone = zone_of(policy) if policy.get("names") == "local" else None
                outcome["taken"] = folder.take(policy["name"], "schedule", zone).name
                more, stuck = prune(policy, folder)
                removed += more
            if stuck:
                outcome["stuck"] = " ".join(stuck)
    except (Trouble, OSError) as error:
        outcome["error"] = str(error)
    return outcome


def judge(policy: Mapping[str, Any], folder: Folder) -> tuple[dict[str, Entry], list[Verdict]]:
    """The verdict on every snapshot of a folder, and the snapshots by name."""
    rules = rules_of(policy)
    entries = {e.name: e for e in folder.entries(sized=rules.max_bytes is not None)}
    return entries, keep(int(time.time()), [e.retained(policy["name"]) for e in entries.values()], rules)


def prune(policy: Mapping[str, Any], folder: Folder) -> tuple[list[str], list[str]]:
    """Remove what the policy removes. Gives the names of what is gone, and why others could not be removed."""
    entries, verdicts = judge(policy, folder)
    return _remove(folder, [entries[v.snapshot.name] for v in reversed(verdicts) if not v.kept])


def make_room(policy: Mapping[str, Any], folder: Folder) -> tuple[list[str], list[str]]:
    """Remove the oldest that nothing but a rule keeps, until there is space; gives the same as `prune`."""
    removed: list[str] = []
    stuck: list[str] = []
    entries, verdicts = judge(policy, folder)
    for snapshot in sacrifices(verdicts):
        if not lack(policy, folder.source):
            break
        gone, failed = _remove(folder, [entries[snapshot.name]])
        removed += gone
        stuck += failed
        if gone:
            call("btrfs", "subvolume", "sync", folder.path)
    return removed, stuck


def _remove(folder: Folder, entries: Sequence[Entry]) -> tuple[list[str], list[str]]:
    removed, failed = [], []
    for entry in entries:
        try:
            folder.remove(entry)
            removed.append(entry.name)
        except (Trouble, OSError) as error:
            failed.append(str(error))
    return removed, failed


def lack(policy: Mapping[str, Any], path: str) -> str:
    """Why there is too little space; empty where there is enough."""
    guard = policy.get("freeSpace")
    if not guard:
        return ""
    usage = shutil.disk_usage(path)
    least = guard["bytes"] if "bytes" in guard else usage.total * guard["percent"] // 100
    if usage.free >= least:
        return ""
    return f"{usage.free >> 20} MiB are free, and the policy wants {least >> 20} MiB."


def note(what: str, name: str, content: Mapping[str, Any]) -> None:
    """Keep the outcome of a run or drill for `status`."""
    folder = os.path.join(STATE, what)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    write(os.path.join(folder, f"{name}.json"), content)


# ------------------------------------------------------------------------------------------------ how things are


def status(policy: Mapping[str, Any], others: Sequence[Setup]) -> dict[str, Any]:
    """Facts about a policy; what is wrong with them is decided where they are read."""
    name = policy["name"]
    mine = [o for o in others if o.path in policy["subvolumes"]]
    tooling = [o for o in mine if o.tool == policy["tool"]]
    timers = [f"reconciler-snapshots-{name}.timer"] if policy["tool"] == "reconciler" else []
    timers += sorted({t for o in tooling for t in o.timers})
    return {
        "name": name,
        "now": int(time.time()),
        "btrfs": shutil.which("btrfs") is not None,
        "paths": {path: _path_status(policy, path) for path in policy["subvolumes"]},
        "timers": {timer: _timer(timer) for timer in timers},
        "run": read(os.path.join(STATE, "run", f"{name}.json")),
        "drill": read(os.path.join(STATE, "drill", f"{name}.json")).get("paths") or {},
        "others": [[o.tool, o.path] for o in mine if o.tool != policy["tool"]],
        "adopted": [o.path for o in tooling],
        "traps": [list(t) for o in mine for t in o.traps()],
    }


def _path_status(policy: Mapping[str, Any], path: str) -> dict[str, Any]:
    try:
        subvolume(path)
        now = int(time.time())
        entries = entries_of(policy, path)
    except (Trouble, OSError) as error:
        return {"problem": str(error)}
    foreign = policy["tool"] != "reconciler"
    ours = own(policy, entries)
    # That somebody restored something does not mean that the schedule works.
    past = [e.created for e in ours if e.created <= now and not e.aside]
    return {
        "count": len(ours),
        "foreign": len(entries) - len(ours),
        "newest": max(past, default=None),
        "oldest": min(past, default=None),
        "future": [e.name for e in ours if e.created > now],
        "writable": [e.name for e in ours if not foreign and not e.volume.read_only],
        "lack": lack(policy, path),
    }


def _timer(unit: str) -> dict[str, Any]:
    """Whether it is active and enabled, has a next time, and since when it is active, in seconds since the epoch."""
    names = "LoadState,ActiveState,SubState,UnitFileState,ActiveEnterTimestamp"
    words = ["systemctl", "show", "--timestamp=us+utc", "-p", names, "--", unit]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return {}
    seen = dict(line.split("=", 1) for line in done.stdout.decode("utf-8", "replace").splitlines() if "=" in line)
    return {
        "loaded": seen.get("LoadState") == "loaded",
        "active": seen.get("ActiveState") == "active",
        "enabled": seen.get("UnitFileState") == "enabled",
        "elapsed": seen.get("SubState") == "elapsed",
        "since": _seconds(seen.get("ActiveEnterTimestamp", "")),
    }


def _seconds(moment: str) -> int | None:
    """`Sun 2026-11-22 06:58:57 UTC`, with or without a fraction, in seconds since the epoch; `None` = never."""
    try:
        parsed = datetime.strptime(moment.partition(" ")[2][:19], "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return None
    return int(parsed.replace(tzinfo=GMT).timestamp())


def listing(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Every snapshot of every subvolume, with what retention would do with it now."""
    paths: dict[str, Any] = {}
    for path in policy["subvolumes"]:
        try:
            subvolume(path)
            entries = entries_of(policy, path, sized=True)
        except (Trouble, OSError) as error:
            paths[path] = {"error": str(error), "snapshots": []}
            continue
        verdicts = {}
        if policy["tool"] == "reconciler":
            found = keep(int(time.time()), [e.retained(policy["name"]) for e in entries], rules_of(policy))
            verdicts = {v.snapshot.name: {"kept": v.kept, "reasons": list(v.reasons)} for v in found}
        paths[path] = {"snapshots": [{**e.shown(), **verdicts.get(e.name, {})} for e in entries]}
    return {"paths": paths}


# ------------------------------------------------------------------------------------------------ commands


def lock(policy: Mapping[str, Any], path: str, name: str, marks: Mapping[str, str]) -> dict[str, Any]:
    """Lock a snapshot.

    Args:
        marks: the reason for each of `locked` and `parent`; an empty one takes that mark away. Others stay.

    Raises:
        Trouble: it is not ours.
    """
    folder = folder_of(policy, path)
    with folder.locked():
        entry = find(policy, path, name)
        if not entry.record:
            raise Trouble(f"{entry.path} is not ours, so nothing of ours removes it and there is nothing to lock.")
        record = {k: v for k, v in {**entry.record, **marks}.items() if v or k not in marks}
        folder.note(entry.name, record)
    return {"name": entry.name, "locked": record.get("locked"), "parent": record.get("parent")}


def drilled(policy: Mapping[str, Any], path: str, name: str) -> dict[str, Any]:
    """A drill, and its outcome on record.

    Raises:
        Trouble: there is no such snapshot.
    """
    folder = folder_of(policy, path)
    started = time.monotonic()
    with folder.locked():
        # What was written to a snapshot shows in its transaction only when that is on disk.
        call("btrfs", "filesystem", "sync", folder.source)
        entry = find(policy, path, name)
        outcome: dict[str, Any] = {"at": int(time.time()), "snapshot": entry.name}
        try:
            found = drill(entry, folder)
            outcome |= {"ok": not found.count, "files": found.files, "bytes": found.bytes, "digest": found.digest}
            outcome |= {"problems": found.problems, "count": found.count}
        except (Trouble, OSError) as error:
            outcome |= {"ok": False, "files": 0, "bytes": 0, "problems": [str(error)], "count": 1}
        outcome["seconds"] = round(time.monotonic() - started, 3)
        before = read(os.path.join(STATE, "drill", f"{policy['name']}.json")).get("paths") or {}
        note("drill", policy["name"], {"paths": {**before, path: outcome}})
    return outcome


def command(words: Sequence[str]) -> dict[str, Any]:
    """Carry out one command and give its answer.

    Raises:
        Trouble: it cannot be done.
    """
    name, policy, *rest = words
    if name == "status":
        others = setups()
        return {"policies": [status(json.loads(one), others) for one in words[1:]]}
    spec = json.loads(policy)
    if name == "list":
        return listing(spec)
    path, *rest = rest
    if name == "take":
        folder = folder_of(spec, path)
        subvolume(path)
        with folder.locked():
            zone = zone_of(spec) if spec.get("names") == "local" else None
            return {"name": folder.take(spec["name"], rest[0], zone).name}
    if name in ("lock", "parent"):
        return lock(spec, path, rest[0], {"parent" if name == "parent" else "locked": rest[1]})
    if name == "unlock":
        return lock(spec, path, rest[0], dict.fromkeys(rest[1:] or ("locked", "parent"), ""))
    if name == "drill":
        return drilled(spec, path, rest[0])
    entry = find(spec, path, rest[0])
    if name == "find":
        return {"name": entry.name}
    inside = rest[1]
    if name == "copy-new":
        to = rest[2] or default_place(path, entry, inside)
        to_new_path(entry, inside, to)
        return {"path": to}
    here = InPlace(entry, folder_of(spec, path), inside)
    {"copy": here.copy, "swap": here.swap, "finish": here.finish}[name]()
    return {"path": os.path.join(path, inside) if inside else path}


def default_place(path: str, entry: Entry, inside: str) -> str:
    """Where a restore goes when nobody says: beside what it came from, on the same file system."""
    stem = os.path.join(path, inside) if inside else path
    name = entry.name.lstrip("@")
    if not inside and is_mounted(path):
        return os.path.join(path, f"restored-{name}")
    return f"{stem}.restored-{name}"


def main(words: Sequence[str]) -> int:
    """Run one command; gives the exit status."""
    try:
        if words and words[0] == "run":
            with open(words[1], encoding="utf-8") as file:
                return run(json.load(file))
        answer = command(words)
    except (Trouble, OSError) as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
