"""Calendar events as Proxmox writes them (`mon..fri 22:00`, `*/15`, `daily`): checking them, and the next time of one.

A subset of systemd.time: weekdays, date, time, each optional, in this order; UTC only (`next_event` takes the clock to
be UTC, as the nodes of the lab are).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

NAMES: Final = {
    "minutely": "*:*",
    "hourly": "*:0",
    "daily": "0:0",
    "weekly": "mon 0:0",
    "monthly": "*-1 0:0",
    "yearly": "1-1 0:0",
    "annually": "1-1 0:0",
    "quarterly": "1,4,7,10-1 0:0",
    "semiannually": "1,7-1 0:0",
    "semi-annually": "1,7-1 0:0",
}
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY: Final = re.compile(
    r"mon(?:day)?|tue(?:sday)?|wed(?:nesday)?|thu(?:rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?", re.I
)
_ITEM: Final = re.compile(r"(\*|[0-9]+)(?:\.\.([0-9]+))?(?:/([0-9]+))?")
YEARS: Final = 12
"""How far ahead a next event is looked for: a 29 February may be eight years away."""


class BadEvent(ValueError):
    """The text is no calendar event; the message is the one of the real parser, as far as it is known."""


@dataclass(frozen=True, slots=True)
class Event:
    """A parsed calendar event; an empty set of years, months, days or weekdays stands for all."""

    weekdays: frozenset[int]
    years: frozenset[int]
    months: frozenset[int]
    days: frozenset[int]
    hours: frozenset[int]
    minutes: frozenset[int]
    seconds: frozenset[int]


def _field(text: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        match = _ITEM.fullmatch(part)
        if not match:
            raise ValueError(text)
        start, end, step = match.groups()
        width = int(step) if step else None
        if width == 0 or (start == "*" and end):
            raise ValueError(text)
        first = low if start == "*" else int(start)
        last = int(end) if end else (high if start == "*" or width else first)
        if first < low or first > high or last > high or last < first:
            raise ValueError(text)
        values.update(range(first, last + 1, width or 1))
    return frozenset(values)


def _days(text: str) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        ends = part.split("..")
        if len(ends) > 2 or not all(_DAY.fullmatch(end) for end in ends):
            raise ValueError(text)
        first, last = (
            next(i for i, day in enumerate(WEEKDAYS) if day.startswith(end[:3].lower())) for end in (ends[0], ends[-1])
        )
        values.update((first + offset) % 7 for offset in range((last - first) % 7 + 1))
    return frozenset(values)


def _time(text: str) -> tuple[frozenset[int], frozenset[int], frozenset[int]]:
    parts = text.split(":")
    if len(parts) > 3:
        raise ValueError(text)
    if len(parts) == 1:
        return frozenset(range(24)), _field(parts[0], 0, 59), frozenset([0])
    hours = frozenset([0]) if parts[0] == "24" else _field(parts[0], 0, 23)
    return hours, _field(parts[1], 0, 59), _field(parts[2], 0, 59) if len(parts) == 3 else frozenset([0])


@lru_cache(maxsize=512)
def parse(text: str) -> Event:
    """The event that a text means. BadEvent: it means none."""
    try:
        return _parse(text)
    except ValueError:
        raise BadEvent(_complaint(text)) from None


def _parse(text: str) -> Event:
    words = NAMES.get(text.lower(), text).split(" ")
    if len(words) > 1 and words[-1] == "UTC":
        words.pop()
    if not words or not all(words):
        raise ValueError(text)
    weekdays: frozenset[int] = frozenset()
    years: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    dated = False
    if words and re.match(r"[a-z]", words[0], re.I):
        weekdays, dated = _days(words.pop(0)), True
    if words and re.fullmatch(r"[0-9*,./]+(?:-[0-9*,./]+){1,2}", words[0]):
        date = words.pop(0).split("-")
        dated = True
        if len(date) == 3:
            years = frozenset() if date[0] == "*" else _field(date[0], 1970, 2200)
        months = frozenset() if date[-2] == "*" else _field(date[-2], 1, 12)
        days = frozenset() if date[-1] == "*" else _field(date[-1], 1, 31)
    if len(words) > 1 or (not words and not dated):
        raise ValueError(text)
    midnight = (frozenset([0]), frozenset([0]), frozenset([0]))
    hours, minutes, seconds = _time(words[0]) if words else midnight
    return Event(weekdays, years, months, days, hours, minutes, seconds)


def _complaint(text: str) -> str:
    """What the real parser says: it names where it stopped; only two of its forms are known."""
    start = re.match(r"[0-9]+(?=:[0-9])", text)
    place, reason = (text[start.end() :], "Nom(Eof)") if start else (text, 'Context("date or time specification")')
    return f"unable to parse calendar event at '{place}' - {reason}"


def next_event(text: str, after: float) -> int | None:
    """The first second later than `after` (seconds since the epoch) at which the event happens; None: never again."""
    event = parse(text)
    moment = datetime.datetime.fromtimestamp(int(after) + 1, datetime.UTC)
    first = (moment.hour, moment.minute, moment.second)
    for day in _dates(event, moment.date()):
        for hour in sorted(event.hours):
            for minute in sorted(event.minutes):
                for second in sorted(event.seconds):
                    if day > moment.date() or (hour, minute, second) >= first:
                        time = datetime.time(hour, minute, second, tzinfo=datetime.UTC)
                        return int(datetime.datetime.combine(day, time).timestamp())
    return None


def _dates(event: Event, start: datetime.date) -> Iterator[datetime.date]:
    for offset in range(366 * YEARS):
        day = start + datetime.timedelta(days=offset)
        if (
            (not event.years or day.year in event.years)
            and (not event.months or day.month in event.months)
            and (not event.days or day.day in event.days)
            and (not event.weekdays or day.weekday() in event.weekdays)
        ):
            yield day
