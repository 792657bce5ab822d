"""dsm.immutability: for how long nobody, not even an administrator, can remove new snapshots of a shared folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field

from reconciler.model import IDENTITY, Change, Get, Probe, Request, ResourceType, Risk, Spec, State, Step
from reconciler.types.dsm import RETENTION, ShareName, data


class Immutability(Spec):
    """The protection period of new snapshots. It is absent where they can be removed at once."""

    share: Annotated[ShareName, IDENTITY]
    days: int | None = Field(None, ge=1, le=30, description="DSM stores other numbers, too; its dialog does not.")


def probe(all_: Sequence[Immutability]) -> Probe:
    """One call for each share."""
    shares = [one.share for one in all_]
    replies = yield [
        Get(f"{RETENTION}/get_worm_lock", {"version": 1, "type": "Share", "name": share}) for share in shares
    ]
    states: list[State | None] = []
    for share, reply in zip(shares, replies, strict=True):
        seen: dict[str, Any] = data(reply, f"the protection period of {share}")
        states.append({"days": int(seen.get("worm_lock_day") or 0)} if seen.get("worm_lock_enable") else None)
    return states


def steps(change: Change[Immutability]) -> Iterable[Step]:
    """One call."""
    spec = change.spec
    on = change.after is not None
    days = spec.days or (change.seen.get("days") if on else None) or 7
    params = {"version": 1, "type": "Share", "name": spec.share, "worm_lock_enable": on, "worm_lock_day": days}
    title = f"protect new snapshots of {spec.share} for {days} days" if on else f"protect {spec.share} no more"
    yield Request("POST", f"{RETENTION}/set_worm_lock", params, title=title)


def risk(change: Change[Immutability]) -> Risk | None:
    """What is protected cannot be taken back."""
    if change.after is None:
        return Risk("data-loss", "new snapshots can be removed at once; those that are protected stay so")
    return None


TYPE = ResourceType("dsm.immutability", Immutability, probe, steps, risk=risk)
