"""dsm.schedule: when DSM takes snapshots of a shared folder.

`get_schedule` and `set_schedule` exist in version 1 only. DSM stores any numbers, but fires reliably only for those
that its own dialog writes; so only those can be declared here. `task_id` -1 makes DSM create the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.model import IDENTITY, Absent, Change, Get, Probe, Request, ResourceType, Risk, Spec, State, Step
from reconciler.types.dsm import SNAPSHOT, ShareName, data

Every = Literal["5min", "15min", "30min", "1h", "2h", "3h", "4h", "6h", "8h", "12h", "1d"]
WEEK: Final = (0, 1, 2, 3, 4, 5, 6)
HOURS: Final = (1, 2, 3, 4, 6, 8, 12)
MINUTES: Final = (5, 15, 30)


class Schedule(Spec):
    """When snapshots of a shared folder are taken; in the NAS's own time. It is absent where it is disabled."""

    share: Annotated[ShareName, IDENTITY]
    every: Every | None = Field(None, description="The interval.")
    hour: int | None = Field(None, ge=0, le=23, description="The hour of the first one of a day.")
    minute: int | None = Field(None, ge=0, le=59, description="The minute; 0 for intervals of minutes.")
    last_hour: int | None = Field(None, ge=0, le=23, description="The last hour of a day in which one is taken.")
    weekdays: tuple[int, ...] | None = Field(None, description="0 is Sunday.")


def fires(seen: Mapping[str, Any]) -> bool:
    """Whether DSM is known to fire for such a schedule: its own dialog could have written it."""
    hours, minutes = seen.get("repeat_hour"), seen.get("repeat_min")
    first, last, minute = seen.get("hour"), seen.get("last_work_hour"), seen.get("min")
    numbers = (hours, minutes, first, last, minute)
    if not all(isinstance(n, int) for n in numbers) or not str(seen.get("week_name") or "").strip():
        return False
    assert isinstance(first, int)
    assert isinstance(last, int)
    if (hours, minutes) == (0, 0):
        return last == first
    if last < first:
        return False
    if minutes == 0 and isinstance(hours, int):
        return hours in HOURS and first + hours <= 23 and (last - first) % hours == 0
    return hours == 0 and minutes in MINUTES and minute == 0


def probe(schedules: Sequence[Schedule]) -> Probe:
    """One call for each share."""
    shares = [s.share for s in schedules]
    replies = yield [Get(f"{SNAPSHOT}/get_schedule", {"version": 1, "name": share}) for share in shares]
    return [_state(data(reply, f"the schedule of {share}")) for share, reply in zip(shares, replies, strict=True)]


def _state(answer: Mapping[str, Any]) -> State | Absent:
    if not answer.get("enable_snapshot_schedule"):
        # What was switched off keeps its task.
        return Absent({"taskId": answer.get("task_id", -1)})
    seen = answer.get("schedule") or {}
    return {
        "every": interval(seen),
        "hour": seen.get("hour"),
        "minute": seen.get("min"),
        "lastHour": seen.get("last_work_hour"),
        "weekdays": sorted(int(day) for day in str(seen.get("week_name") or "").split(",") if day.strip().isdigit()),
        "taskId": answer.get("task_id", -1),
    }


def interval(seen: Mapping[str, Any]) -> str:
    """The interval as it is declared here, or in words that fit none."""
    hours, minutes = seen.get("repeat_hour") or 0, seen.get("repeat_min") or 0
    if not hours and not minutes:
        return "1d"
    if hours and minutes:
        return f"{hours}h {minutes}min"
    return f"{hours}h" if hours else f"{minutes}min"


def steps(change: Change[Schedule]) -> Iterable[Step]:
    """One call, which sets all of it or switches it off."""
    spec = change.spec
    task = change.seen.get("taskId", -1)
    common: dict[str, Any] = {"version": 1, "name": spec.share, "task_id": task}
    if change.after is None:
        params = {**common, "enable_snapshot_schedule": False, "schedule": written(spec)}
        yield Request("POST", f"{SNAPSHOT}/set_schedule", params, title=f"switch the schedule of {spec.share} off")
        return
    params = {**common, "enable_snapshot_schedule": True, "schedule": written(spec)}
    yield Request("POST", f"{SNAPSHOT}/set_schedule", params, title=f"set the schedule of {spec.share}")


def written(spec: Schedule) -> dict[str, Any]:
    """A schedule in the shape that DSM's own dialog writes."""
    every = spec.every or "1d"
    hours = int(every[:-1]) if every.endswith("h") else 0
    minutes = int(every[:-3]) if every.endswith("min") else 0
    first = spec.hour or 0
    last = first if every == "1d" else spec.last_hour if spec.last_hour is not None else last_hour(first, hours)
    return {
        "date_type": 0,
        "week_name": ",".join(map(str, spec.weekdays or WEEK)),
        "hour": first,
        "min": 0 if minutes else spec.minute or 0,
        "repeat_hour": hours,
        "repeat_min": minutes,
        "last_work_hour": last,
    }


def last_hour(first: int, hours: int) -> int:
    """The last hour of a day that an interval of hours (0: of minutes) reaches from the first one.

    >>> last_hour(1, 4), last_hour(0, 0)
    (21, 23)
    """
    step = hours or 1
    return first + (23 - first) // step * step


def risk(change: Change[Schedule]) -> Risk | None:
    """Without a schedule there will be no snapshots."""
    if change.after is None:
        return Risk("data-loss", "no more snapshots will be taken of this share; those that are there stay")
    return None


TYPE = ResourceType(
    "dsm.schedule",
    Schedule,
    probe,
    steps,
    provides=lambda s: (f"schedule:{s.share}",),
    needs=lambda s: (f"retention:{s.share}",),
    risk=risk,
)
