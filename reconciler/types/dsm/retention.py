"""dsm.retention: which snapshots of a shared folder DSM keeps.

`policyType` chooses what counts: 0 nothing is removed, 20 the newest `recently`, 64 those of `retainDay` days, 128 the
`adv*` counts. DSM shows each count twice and keeps the `adv*` copy. Among these, `advPolicyType` says by its bits which
counts count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.model import IDENTITY, Absent, Change, Get, Probe, Request, ResourceType, Risk, Spec, State, Step
from reconciler.types.dsm import RETENTION, ShareName, data

EVERYTHING, NEWEST, DAYS, SMART, BY_TIME = 0, 20, 64, 128, 32
MODES: Final = {EVERYTHING: "everything", NEWEST: "newest", DAYS: "days", SMART: "smart"}
BITS: Final = {"minimum": 1, "hourly": 2, "daily": 4, "weekly": 8, "monthly": 16, "yearly": 32, "allDays": 64}
COUNTS: Final = {
    "minimum": "advMinimum",
    "hourly": "advHourly",
    "daily": "advDaily",
    "weekly": "advWeekly",
    "monthly": "advMonthly",
    "yearly": "advYearly",
    "allDays": "advRetainDay",
}


class Retention(Spec):
    """Which snapshots of a shared folder are kept. It is absent where nothing is ever removed."""

    share: Annotated[ShareName, IDENTITY]
    mode: Literal["newest", "days", "smart"] | None = Field(None, description="What counts.")
    newest: int | None = Field(None, ge=1, le=1024, description="`newest`: how many.")
    days: int | None = Field(None, ge=1, description="`days`: how many.")
    minimum: int | None = Field(None, ge=0, description="`smart`: at least so many, whatever their age.")
    all_days: int | None = Field(None, ge=0, description="`smart`: all of so many days.")
    hourly: int | None = Field(None, ge=0, description="`smart`: hours of which the newest is kept.")
    daily: int | None = Field(None, ge=0, description="`smart`: days.")
    weekly: int | None = Field(None, ge=0, description="`smart`: weeks.")
    monthly: int | None = Field(None, ge=0, description="`smart`: months.")
    yearly: int | None = Field(None, ge=0, description="`smart`: years.")


def probe(retentions: Sequence[Retention]) -> Probe:
    """One call for each share."""
    shares = [r.share for r in retentions]
    replies = yield [Get(f"{RETENTION}/get", {"version": 1, "type": "Share", "name": share}) for share in shares]
    return [_state(data(reply, f"the retention of {share}")) for share, reply in zip(shares, replies, strict=True)]


def _state(answer: Mapping[str, Any]) -> State | Absent:
    # Whether it is triggered by time does not change what is kept.
    policy = int(answer.get("policyType") or 0) & ~BY_TIME
    if policy == EVERYTHING:
        return Absent({"taskId": answer.get("tid", -1)})
    bits = int(answer.get("advPolicyType") or 0)
    counts = {name: int(answer.get(field) or 0) if bits & BITS[name] else 0 for name, field in COUNTS.items()}
    return {
        "mode": MODES.get(policy, f"policyType {policy}"),
        "newest": answer.get("recently"),
        "days": answer.get("retainDay"),
        **counts,
        "taskId": answer.get("tid", -1),
    }


def steps(change: Change[Retention]) -> Iterable[Step]:
    """One call, which sets all of it."""
    spec = change.spec
    common = {"version": 1, "type": "Share", "name": spec.share, "tid": change.seen.get("taskId", -1)}
    if change.after is None:
        params = {**common, "policyType": EVERYTHING}
        yield Request("POST", f"{RETENTION}/set", params, title=f"let {spec.share} keep every snapshot")
        return
    counts = {n: getattr(spec, "all_days" if n == "allDays" else n) for n in COUNTS}
    # What is not declared keeps its number.
    full = {n: v if v is not None else int(change.seen.get(n) or 0) for n, v in counts.items()}
    policies = {mode: number for number, mode in MODES.items()}
    policy = policies.get(spec.mode or change.seen.get("mode", ""), NEWEST)
    params = {
        **common,
        "policyType": policy,
        "recently": spec.newest or change.seen.get("newest") or 1,
        "retainDay": spec.days or change.seen.get("days") or 1,
        "advPolicyType": sum(BITS[n] for n, v in full.items() if v),
        **{COUNTS[n]: v for n, v in full.items()},
    }
    yield Request("POST", f"{RETENTION}/set", params, title=f"set the retention of {spec.share}")


def risk(change: Change[Retention]) -> Risk | None:
    """DSM removes what the new rules do not keep, soon and by itself."""
    if change.after is None:
        return None
    return Risk("data-loss", "DSM removes snapshots that these rules do not keep")


TYPE = ResourceType("dsm.retention", Retention, probe, steps, provides=lambda r: (f"retention:{r.share}",), risk=risk)
