"""Retention as a pure function: properties, an oracle that counts in another way, and five years of life."""

from __future__ import annotations

import ast
import inspect
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reconciler.tools.snapshots import program_text, retention
from reconciler.tools.snapshots.names import moment_of, name_of
from reconciler.tools.snapshots.retention import PERIODS, Policy, Snapshot, keep, sacrifices

ZONES = [
    "UTC",
    "Europe/Vienna",
    "America/New_York",
    "America/Havana",  # DST changes at midnight: a day begins twice
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",  # one day of 2011 does not exist
    "Asia/Kathmandu",  # +05:45
]
# Hours around changes of DST, and the skipped day.
EDGES = [
    datetime(2026, 3, 29, tzinfo=UTC),
    datetime(2026, 10, 25, tzinfo=UTC),
    datetime(2026, 3, 8, tzinfo=UTC),
    datetime(2026, 11, 1, tzinfo=UTC),
    datetime(2026, 4, 4, tzinfo=UTC),
    datetime(2011, 12, 30, tzinfo=UTC),
    datetime(2026, 12, 31, tzinfo=UTC),
]

FORMS = {"hourly": "%Y-%m-%d %H %z", "daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m", "yearly": "%Y"}


def oracle(now: int, snapshots: Collection[Snapshot], policy: Policy) -> set[str]:
    """Names of what stays, straight from the words: for each snapshot, does it have a right to stay?"""
    ours = [s for s in snapshots if not s.foreign and s.created <= now]
    rank = {s.name: i for i, s in enumerate(sorted(ours, key=lambda s: (s.created, s.name)))}
    texts = {
        rule: {s.name: datetime.fromtimestamp(s.created, UTC).astimezone(policy.zone).strftime(form) for s in ours}
        for rule, form in FORMS.items()
    }

    def by_rule(one: Snapshot) -> bool:
        if one.aside:
            return False
        newer = [s for s in ours if rank[s.name] > rank[one.name] and not s.aside]
        if len(newer) < policy.last:
            return True
        for rule in PERIODS:
            text = texts[rule]
            periods = {text[s.name] for s in newer}
            if text[one.name] not in periods and len(periods) < getattr(policy, rule):
                return True
        return False

    rules = any(getattr(policy, rule) for rule in ("last", *PERIODS))
    newest = {
        max(names, key=lambda name: rank[name], default=None) for names in (rank, [s.name for s in ours if not s.aside])
    }
    strong = {
        s.name
        for s in snapshots
        if s.foreign or s.locked or s.parent or s.created > now or now - s.created < policy.min_age or s.name in newest
    }
    stay = {s.name for s in ours if s.name in strong or not rules or by_rule(s)}
    for one in sorted(ours, key=lambda s: rank[s.name]):
        held = [s for s in ours if s.name in stay]
        many = policy.max_count is not None and len(held) > policy.max_count
        large = policy.max_bytes is not None and sum(s.size or 0 for s in held) > policy.max_bytes
        if one.name in stay and one.name not in strong and (many or (large and one.size)):
            stay.remove(one.name)
    return stay | strong


def kept(now: int, snapshots: Iterable[Snapshot], policy: Policy) -> set[str]:
    return {v.snapshot.name for v in keep(now, snapshots, policy) if v.kept}


moments = st.one_of(
    st.builds(
        lambda edge, offset: int(edge.timestamp()) + offset, st.sampled_from(EDGES), st.integers(-129_600, 129_600)
    ),
    st.builds(lambda day: 1_700_000_000 + day * 86_400, st.integers(0, 1500)),
    st.sampled_from([0, 1_767_225_599, 1_767_225_600]),  # ties are likely
)
histories = st.lists(
    st.builds(
        Snapshot,
        st.just(""),
        moments,
        st.one_of(st.none(), st.integers(0, 10)),
        *[st.sampled_from([False, False, False, True])] * 4,
    ),
    max_size=30,
).map(lambda found: [replace(s, name=f"s{i}") for i, s in enumerate(found)])
counts = st.one_of(st.just(0), st.integers(0, 6))
plain_policies = st.builds(
    Policy, counts, counts, counts, counts, counts, counts, zone=st.sampled_from(ZONES).map(ZoneInfo)
)
policies = st.builds(
    lambda policy, age, count, size: replace(policy, min_age=age, max_count=count, max_bytes=size),
    plain_policies,
    st.sampled_from([0, 0, 3600, 86_400 * 30]),
    st.one_of(st.none(), st.integers(1, 10)),
    st.one_of(st.none(), st.integers(0, 40)),
)


@given(moments, histories, policies)
@settings(max_examples=600, deadline=None)
def test_it_keeps_what_the_words_say(now: int, history: list[Snapshot], policy: Policy) -> None:
    assert kept(now, history, policy) == oracle(now, history, policy)


@given(moments, histories, policies)
@settings(max_examples=300, deadline=None)
def test_what_must_never_go_never_goes(now: int, history: list[Snapshot], policy: Policy) -> None:
    verdicts = keep(now, history, policy)
    assert sorted(v.snapshot.name for v in verdicts) == sorted(s.name for s in history)
    for verdict in verdicts:
        one = verdict.snapshot
        must = one.foreign or one.locked or one.parent or one.created > now - policy.min_age
        assert verdict.kept or not must
        assert verdict.reasons
    ours = [v for v in verdicts if not v.snapshot.foreign and v.snapshot.created <= now]
    for newest in (ours, [v for v in ours if not v.snapshot.aside]):
        if newest:
            assert newest[0].kept
            assert newest[0].protected
            assert newest[0].snapshot.created == max(v.snapshot.created for v in newest)
    gone = {s.name for s in sacrifices(verdicts)}
    assert not gone & {v.snapshot.name for v in verdicts if v.protected or not v.kept}


@given(moments, histories, policies, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_order_does_not_matter_and_twice_is_once(
    now: int, history: list[Snapshot], policy: Policy, luck: random.Random
) -> None:
    first = keep(now, history, policy)
    shuffled = history[:]
    luck.shuffle(shuffled)
    assert keep(now, shuffled, policy) == first
    left = [v.snapshot for v in first if v.kept]
    assert kept(now, left, policy) == {s.name for s in left}


@given(moments, moments, histories, plain_policies, st.sampled_from([0, 86_400]))
@settings(max_examples=300, deadline=None)
def test_pruning_often_comes_to_the_same_as_pruning_once(
    one: int, other: int, history: list[Snapshot], policy: Policy, age: int
) -> None:
    """What an early run removes, a later one would have removed, too."""
    early, late = sorted((one, other))
    policy = replace(policy, min_age=age)
    before = [s for s in history if s.created <= early]
    left = kept(early, before, policy)
    rest = [s for s in history if s.created > early or s.name in left]
    assert kept(late, rest, policy) == kept(late, history, policy)


@given(moments, histories, plain_policies, st.sampled_from(["last", *PERIODS]))
@settings(max_examples=200, deadline=None)
def test_a_larger_number_never_keeps_less(now: int, history: list[Snapshot], policy: Policy, rule: str) -> None:
    assume(any(getattr(policy, r) for r in ("last", *PERIODS)))
    more = replace(policy, **{rule: getattr(policy, rule) + 1})
    assert kept(now, history, policy) <= kept(now, history, more)


def test_ties_are_decided_by_the_name() -> None:
    same = [Snapshot("b", 100), Snapshot("a", 100), Snapshot("c", 100)]
    assert kept(200, same, Policy(last=1)) == {"c"}
    assert kept(200, same, Policy(daily=9)) == {"c"}
    with pytest.raises(ValueError, match="two snapshots have one name"):
        keep(200, [Snapshot("a", 1), Snapshot("a", 2)], Policy())


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    start = int(datetime(2026, 10, 25, 0, 0, tzinfo=UTC).timestamp())
    hours = [Snapshot(f"h{i}", start + i * 3600) for i in range(4)]  # 02:00 CEST, 02:00 CET, 03:00, 04:00
    policy = Policy(hourly=4, zone=ZoneInfo("Europe/Vienna"))
    assert kept(start + 9000, hours, policy) == {"h0", "h1", "h2", "h3"}


def test_a_week_does_not_end_with_the_year() -> None:
    days = [datetime(2026, 12, 27, tzinfo=UTC) + timedelta(days=i) for i in range(7)]  # Sunday to Saturday
    history = [Snapshot(f"{day:%m-%d}", int(day.timestamp())) for day in days]
    now = history[-1].created
    assert kept(now, history, Policy(weekly=2)) == {"01-02", "12-27"}
    assert kept(now, history, Policy(yearly=2)) == {"01-02", "12-31"}


def test_limits_take_the_oldest_and_spare_what_is_protected() -> None:
    history = [Snapshot(f"s{i}", i * 100, size=10, locked=i == 0) for i in range(6)]
    reasons = {v.snapshot.name: v.reasons for v in keep(600, history, Policy(max_count=3))}
    assert reasons["s0"] == ("locked", "no rule removes it")
    assert reasons["s1"] == reasons["s3"] == ("too many",)
    assert kept(600, history, Policy(max_bytes=30)) == {"s0", "s4", "s5"}
    unknown = [replace(s, size=None) for s in history]
    assert kept(600, unknown, Policy(max_bytes=30)) == {s.name for s in unknown}, "nobody knows how large they are"


def test_what_a_restore_put_aside_takes_no_good_ones_place() -> None:
    """It may show spoilt files: the newest good one of the day stays beside it, and it goes when it is unlocked."""
    history = [Snapshot("good", 100), Snapshot("aside", 200, locked=True, aside=True)]
    for policy in (Policy(last=1), Policy(daily=1), Policy(max_count=1)):
        assert kept(300, history, policy) == {"good", "aside"}
    unlocked = [history[0], replace(history[1], locked=False), Snapshot("next", 300)]
    assert kept(400, unlocked, Policy(last=2)) == {"good", "next"}


def test_beyond_the_calendar() -> None:
    far = [Snapshot("far", 10**14), Snapshot("near", 100)]
    assert kept(10**15, far, Policy(hourly=1, daily=1, weekly=1, monthly=1, yearly=1)) == {"far"}


# ------------------------------------------------------------------------------------------------ five years


HOUR = 3600
LIFE = Policy(
    last=3, hourly=24, daily=14, weekly=8, monthly=12, yearly=3, min_age=2 * HOUR, zone=ZoneInfo("Europe/Vienna")
)


def wall(real: int, start: int) -> int:
    """What the clock shows: for five hours of the second year it is 400 days ahead, in the third three days behind."""
    year = 365 * 24 * HOUR
    if start + year + 4000 * HOUR <= real < start + year + 4005 * HOUR:
        return real + 400 * 24 * HOUR
    if start + 2 * year + 4000 * HOUR <= real < start + 2 * year + 4006 * HOUR:
        return real - 3 * 24 * HOUR + 60
    return real


def test_five_years_with_dst_and_clock_jumps() -> None:
    """A snapshot and a prune each hour: at every step just what the words say is there, and nothing was lost early."""
    start = int(datetime(2022, 1, 1, tzinfo=UTC).timestamp())
    there: list[Snapshot] = []
    ever: list[Snapshot] = []
    dst_changes = 0
    offset: Any = None
    watched = 0
    checked = 0
    for step in range(5 * 365 * 24 + 30):
        real = start + step * HOUR
        now = wall(real, start)
        local = datetime.fromtimestamp(now, LIFE.zone).utcoffset()
        jumped = now != real or wall(real - HOUR, start) != real - HOUR
        if local != offset or jumped:
            dst_changes += local != offset and not jumped
            offset, watched = local, step + 30
        one = Snapshot(f"{now:012}-{step:06}", now, locked=step == 5000, foreign=step == 7000)
        ever.append(one)
        there.append(one)
        verdicts = keep(now, there, LIFE)
        stays = {v.snapshot.name for v in verdicts if v.kept}
        assert stays <= {s.name for s in there}
        if step < watched or step % 97 == 0:
            assert stays == oracle(now, there, LIFE), datetime.fromtimestamp(now, LIFE.zone)
            checked += 1
        there = [s for s in there if s.name in stays]
    assert dst_changes >= 11  # the first look, and two in each year
    assert checked > 700
    # Nobody would keep more or less who had never removed anything before today.
    recent = [s for s in ever if s.created > now - 4 * 365 * 24 * HOUR or s.locked or s.foreign]
    assert {s.name for s in there} == kept(now, recent, LIFE) | {ever[5000].name, ever[7000].name}
    assert len(there) == len(kept(now, ever, LIFE))
    by_day = {datetime.fromtimestamp(s.created, LIFE.zone).date() for s in there}
    today = datetime.fromtimestamp(now, LIFE.zone).date()
    assert {today - timedelta(days=i) for i in range(14)} <= by_day


# ------------------------------------------------------------------------------------------------ names


@given(st.integers(0, 4_000_000_000), st.one_of(st.none(), st.sampled_from(ZONES).map(ZoneInfo)))
@settings(deadline=None)
def test_a_name_tells_its_moment(created: int, zone: ZoneInfo | None) -> None:
    assert moment_of(name_of(created, zone)) == created


def test_names() -> None:
    moment = int(datetime(2026, 11, 22, 4, tzinfo=UTC).timestamp())
    assert name_of(moment) == "@GMT-2026.11.22-04.00.00"
    assert name_of(moment, ZoneInfo("Europe/Vienna")) == "2026.11.22-05.00.00+0100"
    twice = int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp())
    assert name_of(twice, ZoneInfo("Europe/Vienna")) == "2026.10.25-02.30.00+0200"
    assert name_of(twice + HOUR, ZoneInfo("Europe/Vienna")) == "2026.10.25-02.30.00+0100"
    for wrong in ("", "@GMT-2026.13.01-00.00.00", "2026.01.01-00.00.00", "@GMT-2026.01.01-00.00.00x", "1", "data.2026"):
        assert moment_of(wrong) is None


# ------------------------------------------------------------------------------------------------ what hosts run


def shipped() -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "shipped"}
    import sys
    import types

    module = types.ModuleType("shipped")
    sys.modules["shipped"] = module
    exec(compile(program_text(), "shipped", "exec"), module.__dict__)
    return space | module.__dict__


def test_hosts_run_this_very_function() -> None:
    assert inspect.getsource(retention.keep) in program_text()
    ast.parse(program_text(), feature_version=(3, 9))
    assert "reconciler." not in "".join(n for n in program_text().splitlines() if n.startswith(("import", "from")))


@given(moments, histories, policies)
@settings(max_examples=150, deadline=None)
def test_the_shipped_function_gives_the_same_verdicts(now: int, history: list[Snapshot], policy: Policy) -> None:
    theirs: Callable[..., Sequence[Any]] = SHIPPED["keep"]
    there = [SHIPPED["Snapshot"](**vars(s)) for s in history]
    found = theirs(now, there, SHIPPED["Policy"](**vars(policy)))
    assert [(v.snapshot.name, v.kept, v.reasons, v.protected) for v in found] == [
        (v.snapshot.name, v.kept, v.reasons, v.protected) for v in keep(now, history, policy)
    ]


SHIPPED = shipped()
