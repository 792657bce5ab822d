"""host.apparmorHealth: an audit of a loaded profile: does it confine what runs, and how does its soak go?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from reconciler.model import CONTROL, IDENTITY, UNOBSERVABLE, Change, Probe, ResourceType, Script, Spec
from reconciler.probe import expect
from reconciler.types.host import printable
from reconciler.types.host.apparmor_host import (
    FACTS,
    FOLDER,
    LOG,
    PROCESSES,
    Facts,
    KernelName,
    Log,
    ProfileFile,
    Running,
    facts,
    log,
    processes,
    quiet_since,
)
from reconciler.types.host.apparmor_profile import unconfined
from reconciler.types.host.snapshots import ago

Problem = tuple[str, str, str]
SHOWN = 5
"""So many processes are named."""


class AppArmorHealth(Spec):
    """Whether a profile does what it is for (an audit).

    It finds programs that run without the profile, because they started before it was loaded; a kernel that has no
    AppArmor; accesses during a soak; and a soak that cannot end, because no log can be read.
    """

    name: Annotated[ProfileFile, IDENTITY]
    profiles: Annotated[tuple[KernelName, ...], CONTROL] = ()
    programs: Annotated[tuple[str, ...], CONTROL] = ()
    soak: Annotated[int | None, CONTROL] = Field(None, description="Seconds.")
    document: Annotated[str, CONTROL] = Field(
        "", description="Name of the document, for `reconciler apparmor suggest`."
    )
    problems: tuple[Problem, ...] = Field((), description="Rule, message and fix of each: none.")


def probe(audits: Sequence[AppArmorHealth]) -> Probe:
    """The kernel's list and the processes; the log where something soaks."""
    soaks = any(a.soak is not None for a in audits)
    reads = [Script(FACTS, [a.name for a in audits]), Script(PROCESSES), *([Script(LOG)] if soaks else [])]
    first, second, *rest = yield reads
    found = facts(expect(first, "the probe of AppArmor profiles"))
    running = processes(expect(second, "the list of processes"))
    heard = log(expect(rest[0], "the log of AppArmor")) if rest else log("")
    if found.blind:
        return [{"problems": UNOBSERVABLE} for _ in audits]
    return [{"problems": [list(p) for p in _problems(a, found, running, heard)]} for a in audits]


def _problems(audit: AppArmorHealth, found: Facts, running: Sequence[Running], heard: Log) -> Iterator[Problem]:
    if audit.name not in found.files:
        return
    if found.kernel is None:
        fix = "Boot a kernel with AppArmor (`apparmor=1 security=apparmor`); in a container, confine it from outside."
        yield "no-apparmor", f"the kernel has no AppArmor, so {FOLDER}/{audit.name} protects nothing.", fix
    free = unconfined(audit.programs, running)
    if free:
        shown = ", ".join(f"{r.pid} ({printable(r.program)}{f', {r.unit}' if r.unit else ''})" for r in free[:SHOWN])
        more = f" and {len(free) - SHOWN} more" if len(free) > SHOWN else ""
        units = sorted({r.unit for r in free if r.unit})
        fix = f"Run `systemctl restart {' '.join(units)}`, or name them under `restart`." if units else "Restart them."
        message = f"processes run without the profile {audit.name}, because they are older than it: {shown}{more}."
        yield "unconfined-process", message, fix
    record = found.records.get(audit.name)
    if audit.soak is not None and record is not None and record.phase == "complain":
        yield from _soak(audit, audit.soak, record.at, heard, quiet_since(record, heard, audit.profiles))


def _soak(audit: AppArmorHealth, soak: int, loaded: int, heard: Log, since: int | None) -> Iterator[Problem]:
    if since is None:
        fix = "Install auditd, or let the journal keep the kernel's messages."
        yield "soak-blind", f"the soak of {audit.name} cannot end: no log holds records of AppArmor.", fix
        return
    newest = max((heard.newest(p)[0] for p in audit.profiles), default=0)
    if newest >= loaded and heard.now - newest < soak:
        message = f"{audit.name} was asked for what it does not know, last {ago(max(0, heard.now - newest))} ago."
        fix = f"`reconciler apparmor suggest {audit.document}` shows what; add it, and the soak begins anew."
        yield "soak-new-access", message, fix
    elif heard.lost >= loaded and heard.now - heard.lost < soak:
        message = f"the kernel dropped records of its log, last {ago(max(0, heard.now - heard.lost))} ago: "
        yield "soak-log-lossy", f"{message}the soak of {audit.name} counts from there.", "Install auditd."
    elif heard.begins is not None and heard.begins > loaded and heard.now - heard.begins < soak:
        message = (
            f"the log of the host goes back only {ago(max(0, heard.now - heard.begins))}: the soak counts from there."
        )
        yield "soak-log-short", message, "Keep more of the log (max_log_file of auditd, SystemMaxUse of the journal)."


def findings(change: Change[AppArmorHealth]) -> Iterable[Problem]:
    """The problems, as they are."""
    for rule, message, fix in (change.before or {}).get("problems") or ():
        yield rule, f"{change.resource.target}: {message}", fix


TYPE: ResourceType[Any] = ResourceType(
    "host.apparmorHealth",
    AppArmorHealth,
    probe,
    None,
    findings=findings,
    needs=lambda audit: (f"path:{FOLDER}/{audit.name}",),
)
