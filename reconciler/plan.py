"""Stage 7, plan: changes in order, with their risks and the digest of what each of them was made from."""

from __future__ import annotations

import fnmatch
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from reconciler.diff import SCALARS, Seal, diff
from reconciler.errors import PlanError, PlanRefused
from reconciler.guard import Guarding
from reconciler.inventory import Entry
from reconciler.model import (
    UNOBSERVABLE,
    Absent,
    Action,
    Change,
    Finding,
    Resource,
    Sealed,
    Target,
    Unprobed,
    digest,
)
from reconciler.probe import Look, Observations
from reconciler.registry import Registry
from reconciler.resolve import SHARED, Desired, Edges, connect, place, topological

LIFETIME: Final = timedelta(hours=24)
DELETE_SHARE: Final = 0.3
DELETE_FROM: Final = 10
"""More than this share of deletions on a target that holds at least so many objects needs `--force`."""


@dataclass(frozen=True)
class Plan:
    """What would be done, and all that is needed to do it.

    Attributes:
        created, expires: UTC, ISO 8601.
        commit: the Git commit of the desired state, with `+` for uncommitted edits; empty outside Git.
        changes: in the order in which they are applied.
        drifted: addresses of changes whose desired state is the one that was applied last.
        adopt: objects that are as desired already, and will be noted as ours, or noted anew.
        release: inventory entries that will be forgotten, with the reason; the objects stay.
        unknown: address -> why it could not be read.
        findings: what audits saw.
        audits: audits to look at again after the apply.
        unchanged: how many objects are as desired.
        edges: what comes before what; also nodes without a change that changes wait for by way of others.
        key_id: names the key of the sealed secrets.
        source: the desired state, as it was named.
        looks: by target, what the probe heard. They live in memory only.
    """

    created: str
    expires: str
    commit: str
    changes: Sequence[Change[Any]]
    targets: Mapping[str, Target]
    edges: Edges
    drifted: Collection[str] = ()
    adopt: Sequence[Resource[Any]] = ()
    release: Mapping[str, str] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    audits: Sequence[Resource[Any]] = ()
    unchanged: int = 0
    key_id: str = ""
    source: str = ""
    looks: Mapping[str, Look] = field(default_factory=dict, repr=False, compare=False)

    @property
    def empty(self) -> bool:
        """Nothing to change (there may be findings and unknowns)."""
        return not self.changes

    def count(self, action: Action) -> int:
        """How many changes do this."""
        return sum(c.action is action for c in self.changes)

    @cached_property
    def unreachable(self) -> Mapping[str, list[str]]:
        """Reason -> addresses that could not be read."""
        out: dict[str, list[str]] = {}
        for address, reason in self.unknown.items():
            out.setdefault(reason, []).append(address)
        return out


# ------------------------------------------------------------------------------------------------ making a plan


@dataclass(frozen=True)
class Scope:
    """Which part of the desired state is meant: `--target` and `--exclude`.

    A term is `Kind/name`, `kind=File`, `name=motd`, `target=web1` or a label such as `team=ops`; all may hold `*`.
    """

    targets: Sequence[str] = ()
    excludes: Sequence[str] = ()

    def select(self, resources: Iterable[Resource[Any]], edges: Edges) -> set[str]:
        """Addresses in scope: what matches, and what that stands on."""
        resources = list(resources)
        if not self.targets and not self.excludes:
            return {r.address for r in resources}
        for terms in (self.targets, self.excludes):
            for term in terms:
                if not any(_matches(r, term) for r in resources):
                    near = _nearest(term, resources)
                    fix = "Write Kind/name, kind=, name=, target= or a label such as team=ops."
                    raise PlanError(f"Nothing matches {term}. {f'Did you mean {near}?' if near else fix}")
        excluded = {r.address for r in resources if any(_matches(r, t) for t in self.excludes)}
        chosen = {r.address for r in resources if not self.targets or any(_matches(r, t) for t in self.targets)}
        todo = sorted(chosen)
        while todo:
            for before in edges.get(todo.pop(), ()):
                if before not in chosen:
                    chosen.add(before)
                    todo.append(before)
        return chosen - excluded


def _matches(resource: Resource[Any], term: str) -> bool:
    key, equals, pattern = term.partition("=")
    kind, _, name = resource.origin.partition("/")
    if not equals:
        return fnmatch.fnmatchcase(resource.origin, term) or fnmatch.fnmatchcase(resource.address, term)
    value = {"kind": kind, "name": name, "target": resource.target}.get(key, resource.labels.get(key))
    return value is not None and fnmatch.fnmatchcase(value, pattern)


def _nearest(term: str, resources: Iterable[Resource[Any]]) -> str:
    """The term that was meant by a bare word, or by one with a typing mistake; empty if there is none."""
    known: dict[str, str] = {}
    for resource in resources:
        kind, _, name = resource.origin.partition("/")
        pairs = [("target", resource.target), ("name", name), ("kind", kind), *resource.labels.items()]
        known |= {resource.origin: "", **{f"{key}={value}": value for key, value in pairs}}
    near = [one for one, value in known.items() if value == term] or get_close_matches(term, known, 1, 0.75)
    return near[0] if near else ""


def to_prune(
    desired: Desired, inventory: Mapping[str, Entry], registry: Registry
) -> tuple[list[Resource[Any]], dict[str, str]]:
    """What is in the inventory and not desired any more.

    Returns:
        objects to delete, and addresses to forget with the reason.
    """
    providers = {
        place(r, token)
        for r in desired.resources.values()
        for token in registry.type_of(r.type).provides(r.spec)
        if not token.startswith(SHARED)
    }
    gone: list[Resource[Any]] = []
    release: dict[str, str] = {}
    for address, entry in inventory.items():
        if address in desired.resources:
            continue
        resource = entry.resource(registry)
        if resource is None:
            release[address] = "this version does not know it any more"
        elif entry.target not in desired.targets:
            release[address] = f"{entry.target} is not described any more"
        elif not entry.created and entry.lifecycle.adopt != "Always":
            release[address] = "it was there before us, so it stays"
        elif taken := [
            t for t in registry.type_of(entry.type).provides(resource.spec) if place(resource, t) in providers
        ]:
            shared = taken[0].startswith("@")
            release[address] = "others share it" if shared else "another object takes its place"
        else:
            gone.append(resource)
    return gone, release


def make(
    desired: Desired,
    prune: Sequence[Resource[Any]],
    release: Mapping[str, str],
    observed: Observations,
    inventory: Mapping[str, Entry],
    registry: Registry,
    seal: Seal,
    *,
    key_id_of: Callable[[], str] = str,
    force: bool = False,
    refuse: bool = True,
    commit: str = "",
    source: str = "",
    now: datetime | None = None,
    looks: Mapping[str, Look] | None = None,
) -> Plan:
    """Compare everything that was probed with what is desired.

    Args:
        prune: what `to_prune` found, as far as it is in scope.
        observed: states by address; what is not in it is out of scope.
        key_id_of: names the key of sealed secrets; asked only if there are any.
        force: let plans pass that delete a lot.
        refuse: let no plan pass that must not be applied; a report refuses nothing.
        looks: what was heard of each target, for an apply that follows at once.

    Raises:
        PlanRefused: too many deletions, an empty desired state, or an object that must not be destroyed.
    """
    edges = dict(desired.edges)
    prune_edges, _, _ = connect(prune, registry, {})
    edges |= prune_edges
    watched = _watchers_of_pruned(desired, prune, inventory, registry)
    for address, gone in watched.items():
        edges[address] = sorted({*edges[address], *gone})
        watched[address] = [*desired.watched.get(address, ()), *gone]
    everything = {**desired.resources, **{r.address: r for r in prune}}
    order = topological(edges)

    changes: dict[str, Change[Any]] = {}
    findings: list[Finding] = []
    adopt: list[Resource[Any]] = []
    audits: list[Resource[Any]] = []
    unknown: dict[str, str] = {}
    blocked: dict[str, str] = {}
    unchanged = 0
    for address in order:
        before = edges[address]
        cause = next((blocked[b] for b in before if b in blocked), None)
        resource = everything.get(address)
        if resource is None or address not in observed:
            if cause:
                blocked[address] = cause
            continue
        kind = registry.type_of(resource.type)
        state = observed[address]
        if isinstance(state, Unprobed) or cause:
            reason = state.reason if isinstance(state, Unprobed) else cause
            unknown[address] = reason or ""
            blocked[address] = f"it waits for {resource.address}, which is unknown"
            continue
        if kind.is_audit:
            audits.append(resource)
            # What this plan changes is audited after the change, not before.
            if not any(b in changes for b in before):
                findings.extend(audit(resource, state, kind, seal))
            continue
        movers = [w for w in watched.get(address, desired.watched.get(address, ())) if w in changes]
        seen = state
        if movers and state is not None and not isinstance(state, Absent):
            seen = {**state, **{n: v for n, v in kind.stale.items() if state.get(n) is not UNOBSERVABLE}}
        sent = inventory[address].sent if kind.write_only and address in inventory else {}
        change = diff(resource, seen, kind, seal, sent)
        if movers and change.action is Action.UPDATE:
            change = replace(change, before=diff(resource, state, kind, seal, sent).before)
        if change.action is Action.NOOP:
            unchanged += not resource.absent
            if not resource.absent and (address not in inventory or _is_outdated(inventory[address], resource)):
                adopt.append(resource)
            continue
        if refuse:
            _check_adoption(change, inventory)
        why = (*_why(change, movers, address in inventory), *kind.why(change))
        changes[address] = replace(change, why=why) if why else change
    if refuse and not force:
        _guard(changes, desired, inventory)
    if refuse:
        _protect(changes, inventory)
    changes = Guarding(changes, desired.targets, registry).marked()
    instant = now or datetime.now(UTC)
    return Plan(
        created=instant.isoformat(timespec="seconds"),
        expires=(instant + LIFETIME).isoformat(timespec="seconds"),
        commit=commit,
        changes=[changes[a] for a in order if a in changes],
        targets={
            name: desired.targets[name]
            for name in sorted({r.target for r in (*everything.values(),)} & set(desired.targets))
        },
        edges=_between(changes, edges, order),
        drifted=sorted(a for a in changes if a in inventory and _is_drift(changes[a], inventory[a])),
        adopt=adopt,
        release=dict(sorted(release.items())),
        unknown=dict(sorted(unknown.items())),
        findings=findings,
        audits=audits,
        unchanged=unchanged,
        key_id=key_id_of() if any(_has_sealed(c) for c in changes.values()) else "",
        source=source,
        looks=looks or {},
    )


def _watchers_of_pruned(
    desired: Desired, prune: Sequence[Resource[Any]], inventory: Mapping[str, Entry], registry: Registry
) -> dict[str, list[str]]:
    """Who watches what will be pruned: its document may have lost the object together with the reason to watch it, so
    what it watched when it was last applied counts, too."""
    providers = {(r.target, t): r.address for r in prune for t in registry.type_of(r.type).provides(r.spec)}
    out: dict[str, list[str]] = {}
    for address, resource in desired.resources.items() if providers else ():
        kind = registry.type_of(resource.type)
        tokens = set(kind.watches(resource.spec))
        if kind.stale and address in inventory and (last := inventory[address].resource(registry)) is not None:
            tokens.update(kind.watches(last.spec))
        gone = {providers[resource.target, t] for t in tokens if (resource.target, t) in providers}
        if gone:
            out[address] = sorted(gone)
    return out


def audit(resource: Resource[Any], state: Any, kind: Any, seal: Seal) -> list[Finding]:
    """The findings of one audit."""
    change = diff(resource, state, kind, seal)
    if change.action is Action.NOOP:
        return []
    return [
        Finding(resource.address, rule, text, fix, origin=resource.origin) for rule, text, fix in kind.findings(change)
    ]


def _why(change: Change[Any], movers: Sequence[str], owned: bool) -> Iterable[str]:
    if change.action is Action.DELETE:
        if change.resource.position is None:
            yield f"{change.resource.origin} does not ask for it any more"
        else:
            yield f"{change.resource.origin} says that it must be absent"
    if change.action is Action.UPDATE and not owned:
        yield "it is there already and will be taken over"
    for address in movers:
        yield f"{address} changes"


def _is_drift(change: Change[Any], entry: Entry) -> bool:
    """The same spec was applied before, so the live object moved."""
    return change.action is not Action.DELETE and _is_same(entry, change.resource)


def _is_outdated(entry: Entry, resource: Resource[Any]) -> bool:
    """Its document says something new of an object that is as desired: another lifecycle, another spec."""
    same = (entry.origin, entry.lifecycle) == (resource.origin, resource.lifecycle)
    return not same or not _is_same(entry, resource)


def _is_same(entry: Entry, resource: Resource[Any]) -> bool:
    """The same spec as was applied last."""
    return entry.spec == resource.declared or entry.spec_digest == digest(resource.declared)


def _check_adoption(change: Change[Any], inventory: Mapping[str, Entry]) -> None:
    resource = change.resource
    there = change.before is not None
    if resource.lifecycle.adopt == "Never" and there and not resource.absent and resource.address not in inventory:
        raise PlanRefused(
            f"{resource.address} exists already and {resource.origin} says `adopt: Never`. "
            "Remove the object, or allow its adoption."
        )


def _protect(changes: Mapping[str, Change[Any]], inventory: Mapping[str, Entry]) -> None:
    for address, change in changes.items():
        protected = change.resource.lifecycle.prevent_destroy or (
            address in inventory and inventory[address].lifecycle.prevent_destroy
        )
        if protected and change.action in (Action.DELETE, Action.REPLACE):
            raise PlanRefused(
                f"{address} would be destroyed, and {change.resource.origin} says `preventDestroy: true`. "
                "Put its document back, or apply once with `preventDestroy: false`."
            )


def _guard(changes: Mapping[str, Change[Any]], desired: Desired, inventory: Mapping[str, Entry]) -> None:
    if not desired.resources and inventory:
        raise PlanRefused(
            f"The desired state is empty, but the inventory holds {len(inventory)}. "
            "If all of that shall go, use --force."
        )
    doomed: dict[str, int] = {}
    for change in changes.values():
        if change.action is Action.DELETE and change.resource.position is None:
            doomed[change.resource.target] = doomed.get(change.resource.target, 0) + 1
    held: dict[str, int] = {}
    for entry in inventory.values():
        held[entry.target] = held.get(entry.target, 0) + 1
    for target, count in sorted(doomed.items()):
        if held.get(target, 0) >= DELETE_FROM and count > DELETE_SHARE * held[target]:
            raise PlanRefused(
                f"{count} of {held[target]} objects on {target} would be deleted, more than {DELETE_SHARE:.0%}. "
                "If that is meant, use --force."
            )


def _between(changes: Collection[str], edges: Edges, order: Sequence[str]) -> dict[str, list[str]]:
    """The edges that matter to the changes, in linear time: nodes that a change stands behind, directly or not, and
    that stand before another change."""
    behind: set[str] = set()
    for node in order:
        if node in changes or any(b in behind for b in edges[node]):
            behind.add(node)
    needed = set(changes)
    for node in reversed(order):
        if node in needed:
            needed.update(b for b in edges[node] if b in behind)
    return {n: [b for b in edges[n] if b in needed] for n in sorted(needed)}


def _has_sealed(change: Change[Any]) -> bool:
    def sealed(value: Any) -> bool:
        if type(value) in SCALARS:
            return False
        if isinstance(value, Mapping | list):
            return any(map(sealed, value.values() if isinstance(value, Mapping) else value))
        return isinstance(value, Sealed)

    return sealed(change.before) or sealed(change.after)


def git_commit(path: Path) -> str:
    """The commit that `path` is at, with `+` where it was edited since; empty outside a Git repository."""

    def git(*argv: str) -> str:
        out = subprocess.run(
            ["git", "-C", str(path if path.is_dir() else path.parent), *argv], capture_output=True, check=False
        )
        return out.stdout.decode("utf-8", "replace").strip() if out.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+" if commit and git("status", "--porcelain", "--", ".") else "")
    except OSError:
        return ""
