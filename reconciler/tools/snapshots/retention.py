"""Which snapshots stay and which go: one pure function, the same on the host as in the tests.

A rule such as `daily: 7` keeps the newest snapshot of each of the last seven days *in which there is one* (as
restic, Borg and Proxmox Backup Server count). It does not look at how long ago that was, so a host that was off for a
month, or whose clock jumps ahead, loses nothing. Because the newest of a period is kept, pruning often or rarely comes
to the same.

Runs on hosts, too: Python 3.9, standard library only, no import of this package but of files that are shipped with it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo

UTC = timezone.utc  # noqa: UP017  datetime.UTC is newer than the Python of some hosts


@dataclass(frozen=True)
class Snapshot:
    """What retention needs to know of a snapshot.

    Attributes:
        name: unique among those that are looked at together.
        created: seconds since the epoch.
        size: bytes that only this snapshot holds; `None` where quota does not tell.
        locked: somebody wants to keep it.
        parent: replication needs it.
        foreign: another program, or a person, made it.
        aside: how things were before a restore, so perhaps spoilt. It stands for no period and is none of the `last`
            ones, where it would take the place of a good one.
    """

    name: str
    created: int
    size: int | None = None
    locked: bool = False
    parent: bool = False
    foreign: bool = False
    aside: bool = False


@dataclass(frozen=True)
class Policy:
    """What to keep. Without any number, everything is kept.

    Attributes:
        last: the newest ones, whatever their age.
        hourly, daily, weekly, monthly, yearly: periods of the calendar of `zone` of which the newest one is kept.
        min_age: seconds for which a snapshot is never removed.
        max_count: of ours; the oldest go first.
        max_bytes: that only snapshots of ours hold, as far as sizes are known; the oldest go first.
        zone: whose hours, days and weeks count.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    min_age: int = 0
    max_count: int | None = None
    max_bytes: int | None = None
    zone: tzinfo = UTC


@dataclass(frozen=True)
class Verdict:
    """Whether a snapshot stays, and why.

    Attributes:
        reasons: `newest`, `locked`, `replication parent`, `foreign`, `from the future`, `younger than the minimum
            age`, `last`, `hourly` ... `yearly`, `no rule removes it`; or `no rule keeps it`, `too many`, `too large`.
        protected: not even a lack of space removes it.
    """

    snapshot: Snapshot
    kept: bool
    reasons: tuple[str, ...]
    protected: bool = False


PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")


def keep(now: int, snapshots: Iterable[Snapshot], policy: Policy) -> list[Verdict]:
    """Decide about all snapshots of one place.

    Args:
        now: seconds since the epoch.

    Returns:
        one verdict for each, newest first; of two with one time, the later name counts as newer.

    Raises:
        ValueError: two have one name.
    """
    ordered = sorted(snapshots, key=lambda s: (s.created, s.name), reverse=True)
    if len({s.name for s in ordered}) != len(ordered):
        raise ValueError("two snapshots have one name")
    # Taken while the clock was ahead: they would push real ones out of their periods, so they wait for their time.
    ours = [s for s in ordered if not s.foreign and s.created <= now]
    protecting: dict[str, list[str]] = {s.name: _protections(s, now, policy) for s in ordered}
    regular = [s for s in ours if not s.aside]
    for name in {s.name for s in (*ours[:1], *regular[:1])}:
        protecting[name].insert(0, "newest")
    rules = _rules(ours, policy)
    kept = [s for s in ours if protecting[s.name] or rules[s.name]]
    limits = _over_limits(kept, {s.name for s in kept if protecting[s.name]}, policy)
    verdicts = []
    for one in ordered:
        protections = protecting[one.name]
        reasons = (*protections, *rules.get(one.name, ()))
        if one.name in limits:
            verdicts.append(Verdict(one, False, (limits[one.name],)))
        elif reasons:
            verdicts.append(Verdict(one, True, reasons, bool(protections)))
        else:
            verdicts.append(Verdict(one, False, ("no rule keeps it",)))
    return verdicts


def sacrifices(verdicts: Iterable[Verdict]) -> list[Snapshot]:
    """What may go when space runs out, the oldest first: kept by a rule only, and by nothing stronger."""
    return [v.snapshot for v in reversed(list(verdicts)) if v.kept and not v.protected]


def _protections(one: Snapshot, now: int, policy: Policy) -> list[str]:
    """What keeps a snapshot whatever the rules say."""
    found = []
    if one.foreign:
        found.append("foreign")
    if one.locked:
        found.append("locked")
    if one.parent:
        found.append("replication parent")
    if one.created > now:
        found.append("from the future")
    elif one.created > now - policy.min_age:
        found.append("younger than the minimum age")
    return found


def _rules(ours: list[Snapshot], policy: Policy) -> dict[str, list[str]]:
    """Which rules keep each one. `ours` is newest first."""
    found: dict[str, list[str]] = {s.name: [] for s in ours}
    if not any(getattr(policy, rule) for rule in ("last", *PERIODS)):
        return {name: ["no rule removes it"] for name in found}
    regular = [s for s in ours if not s.aside]
    for one in regular[: policy.last]:
        found[one.name].append("last")
    for rule in PERIODS:
        seen: set[Hashable] = set()
        for one in regular:
            if len(seen) >= getattr(policy, rule):
                break
            period = _KEYS[rule](_local(one.created, policy.zone))
            if period not in seen:
                seen.add(period)
                found[one.name].append(rule)
    return found


def _local(created: int, zone: tzinfo) -> datetime:
    try:
        return datetime.fromtimestamp(created, zone)
    except (OverflowError, ValueError, OSError):
        # Beyond the calendar, which ends with the year 9999.
        return datetime.max.replace(tzinfo=UTC) if created > 0 else datetime.min.replace(tzinfo=UTC)


# The offset tells the two hours apart that DST makes of one.
_KEYS: dict[str, Callable[[datetime], Hashable]] = {
    "hourly": lambda t: (t.year, t.month, t.day, t.hour, t.utcoffset()),
    "daily": lambda t: (t.year, t.month, t.day),
    "weekly": lambda t: tuple(t.isocalendar())[:2],
    "monthly": lambda t: (t.year, t.month),
    "yearly": lambda t: t.year,
}


def _over_limits(kept: list[Snapshot], protected: set[str], policy: Policy) -> dict[str, str]:
    """Those of the kept ones (newest first) that exceed a limit, with the reason."""
    out: dict[str, str] = {}
    count, size = len(kept), sum(s.size or 0 for s in kept)
    for one in reversed(kept):
        many = policy.max_count is not None and count > policy.max_count
        large = policy.max_bytes is not None and size > policy.max_bytes
        if not many and not large:
            break
        # To remove what holds nothing, or nobody knows what, would make no room.
        if one.name in protected or not (many or one.size):
            continue
        out[one.name] = "too many" if many else "too large"
        count, size = count - 1, size - (one.size or 0)
    return out
