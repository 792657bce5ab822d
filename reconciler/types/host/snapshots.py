"""host.snapshots: an audit of a snapshot policy on a host: do snapshots appear, and could they be restored?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from reconciler.errors import ProbeFailed
from reconciler.model import CONTROL, IDENTITY, UNOBSERVABLE, Change, Probe, ResourceType, Script, Spec
from reconciler.probe import expect
from reconciler.tools.snapshots import PROGRAM
from reconciler.types.host import printable
from reconciler.types.host.snapshots_program import digest

NEAR: Final = 0.9
"""This share of the limit is near it."""

Problem = tuple[str, str, str]
"""Rule, message, fix."""


class Snapshots(Spec):
    """How the snapshots of a policy are on a host (an audit)."""

    name: Annotated[str, IDENTITY]
    policy: Annotated[str, CONTROL] = Field(description="The policy as its program reads it, JSON.")
    max_age: Annotated[int, CONTROL] = Field(description="Seconds after which the newest snapshot is too old.")
    count_limit: Annotated[int, CONTROL] = Field(1024, description="Snapshots of a subvolume that are too many.")
    drill_every: Annotated[int | None, CONTROL] = Field(None, description="Seconds between two drills.")
    after: Annotated[tuple[str, ...], CONTROL] = Field((), description="Tokens of what comes first.")
    problems: tuple[Problem, ...] = Field((), description="Rule, message and fix of each thing that is wrong: none.")


# Only the program of this version is run: until it is there, the plan says so, and there is nothing to tell.
STATUS: Final = """
[ -z "$OFFLINE" ] || { echo offline; exit 0; }
program=$1 digest=$2
shift 2
found=$(sha256sum <"$program" 2>/dev/null) || :
[ "${found%% *}" = "$digest" ] || { echo absent; exit 0; }
[ "$(id -u)" -eq 0 ] || { echo 'it needs root'; exit 1; }
command -v python3 >/dev/null || { echo no-python; exit 0; }
python3 -I "$program" status "$@"
"""


def probe(audits: Sequence[Snapshots]) -> Probe:
    """The program's own report on all policies of a host."""
    (reply,) = yield [Script(STATUS, [PROGRAM, digest(), *(audit.policy for audit in audits)])]
    text = expect(reply, "asking for the state of snapshots").strip()
    match text:
        case "offline" | "absent":
            return [{"problems": UNOBSERVABLE} for _ in audits]
        case "no-python":
            fix = "Install the package python3, for example with a Package document that this one requires."
            return [{"problems": [["tools-missing", "there is no python3 on this host.", fix]]} for _ in audits]
    try:
        answer = json.loads(text.splitlines()[-1])
        if "error" in answer:
            raise ProbeFailed(f"the state of snapshots: {printable(str(answer['error']))}")
        reports = answer["policies"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ProbeFailed(f"the state of snapshots cannot be read: {printable(text[-300:])}") from error
    if len(reports) != len(audits):
        raise ProbeFailed(f"{len(reports)} reports about {len(audits)} snapshot policies")
    return [
        {"problems": [[rule, printable(message), fix] for rule, message, fix in problems(audit, report)]}
        for audit, report in zip(audits, reports, strict=True)
    ]


def problems(audit: Snapshots, facts: Mapping[str, Any]) -> Iterator[Problem]:
    """Everything that is wrong by the program's report (see `reconciler.tools.snapshots.program.status`)."""
    name, now = audit.name, facts["now"]
    if not facts["btrfs"]:
        yield "tools-missing", "there is no `btrfs` on this host.", "Install the package btrfs-progs."
    for path, seen in facts["paths"].items():
        yield from _of_path(audit, path, seen, now)
    for timer, seen in facts["timers"].items():
        yield from _of_timer(audit, timer, seen, facts)
    run = facts["run"]
    for path, outcome in (run.get("paths") or {}).items():
        if "error" in outcome:
            fix = f"See to it, then `systemctl start reconciler-snapshots-{name}.service`."
            yield "last-run-failed", f"{path}: the last run failed: {outcome['error']}", fix
        if "stuck" in outcome:
            fix = "Is it being sent, or does it hold a subvolume or a mount? New snapshots are taken all the same."
            yield "not-removed", f"{path}: the last run could not remove what has to go: {outcome['stuck']}", fix
        if "held" in outcome:
            fix = "Make room, or let the policy keep fewer snapshots; `freeSpace.whenLow: remove` does that by itself."
            yield "no-space", f"{path}: the last run took no snapshot: {outcome['held']}", fix
    yield from _of_drills(audit, facts)
    for tool, path in facts["others"]:
        fix = f"Set `tool: {tool}` to leave them to it, or take {path} out of its configuration."
        yield "another-tool", f"{path}: {tool} takes snapshots of it, too; this policy leaves those alone.", fix
    for path in facts["paths"]:
        tool = json.loads(audit.policy)["tool"]
        if tool != "reconciler" and path not in facts["adopted"]:
            yield "not-set-up", f"{path}: {tool} has no configuration for it on this host.", f"Set {tool} up there."
    for rule, message, fix in facts["traps"]:
        yield rule, message, fix


def _of_path(audit: Snapshots, path: str, seen: Mapping[str, Any], now: int) -> Iterator[Problem]:
    if "problem" in seen:
        yield "no-subvolume", f"{path}: no snapshots are possible.", seen["problem"]
        return
    newest = seen["newest"]
    if newest is not None and now - newest > audit.max_age:
        fix = "Look into the journal of the timer's service."
        yield "too-old", f"{path}: the newest snapshot is {ago(now - newest)} old.", fix
    if seen["count"] >= audit.count_limit * NEAR:
        fix = "Keep fewer, or raise `countLimit`."
        yield "count-near-limit", f"{path}: {seen['count']} snapshots of {audit.count_limit} at most.", fix
    if seen["future"]:
        fix = "Correct the clock. They stay until their time has come; remove them by hand if nobody needs them."
        yield "from-the-future", f"{path}: {len(seen['future'])} snapshots are from the future.", fix
    for name in seen["writable"]:
        fix = (
            "Do not rely on it. `btrfs property set PATH ro true` closes it; `reconciler snapshots drill` looks at it."
        )
        yield "writable", f"{path}: the snapshot {name} is writable, so anybody may have changed it.", fix


def _of_timer(audit: Snapshots, timer: str, seen: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[Problem]:
    now = facts["now"]
    if not seen.get("loaded") or not seen.get("active"):
        yield "timer-off", f"{timer} does not run.", f"systemctl enable --now {timer}"
        return
    if not seen["enabled"]:
        yield "timer-off", f"{timer} will not start at the next boot.", f"systemctl enable {timer}"
    if seen["elapsed"]:
        fix = "Correct `schedule.calendar`; `systemd-analyze calendar` tells when one elapses."
        yield "schedule-never-fires", f"{timer} never fires: its calendar has no next time.", fix
    elif timer == f"reconciler-snapshots-{audit.name}.timer" and seen["since"] is not None:
        # systemd's own "last trigger" tells of a first start, too, where a timer is persistent.
        quiet = now - max(seen["since"], facts["run"].get("at", 0))
        if quiet > audit.max_age:
            yield "schedule-never-fired", f"{timer} has not fired for {ago(quiet)}.", "Correct its schedule."


def _of_drills(audit: Snapshots, facts: Mapping[str, Any]) -> Iterator[Problem]:
    again = f"Run `reconciler snapshots drill {audit.name}`."
    for path, seen in facts["paths"].items():
        drill = facts["drill"].get(path)
        if drill and not drill["ok"]:
            what = "; ".join(drill["problems"][:3])
            more = f" and {drill['count'] - 3} more" if drill["count"] > 3 else ""
            message = f"{path}: the drill of {drill['snapshot']} failed: {what}{more}."
            yield "drill-failed", message, f"Find out why (the disk? `btrfs scrub start`). {again}"
        elif audit.drill_every is not None and "problem" not in seen:
            since = drill["at"] if drill else facts["run"].get("first") or seen["oldest"]
            if since is not None and facts["now"] - since > audit.drill_every:
                late = f"the last drill was {ago(facts['now'] - since)} ago." if drill else "there never was a drill."
                yield "drill-overdue", f"{path}: {late}", again


def ago(seconds: int) -> str:
    """A length of time for people: `3 days`, `90 min`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def findings(change: Change[Snapshots]) -> Iterable[Problem]:
    """The problems, as they are."""
    for rule, message, fix in (change.before or {}).get("problems") or ():
        yield rule, f"{change.resource.target}: {message}", fix


TYPE: ResourceType[Any] = ResourceType(
    "host.snapshots",
    Snapshots,
    probe,
    None,
    findings=findings,
    needs=lambda audit: (f"path:{PROGRAM}", *audit.after),
)
