"""host.group: a group of accounts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

from reconciler.fields import Account
from reconciler.model import CONTROL, IDENTITY, Change, Keep, Probe, ResourceType, Risk, Script, Sh, Spec, Step, run
from reconciler.probe import expect

LAST_ID = 4294967294
"""The highest number that an account or a group can have; the one above it means "none"."""
FILES = tuple(f"/etc/{name}" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"))
"""Where accounts and groups stand."""
PRIVILEGED = ("sudo", "wheel")


class Group(Spec):
    """A group of accounts."""

    name: Annotated[Account, IDENTITY]
    gid: int | None = Field(None, ge=0, le=LAST_ID, description="Its number.")
    system: Annotated[bool, CONTROL] = Field(False, description="Take a number for system groups when it is made.")


def probe(groups: Sequence[Group]) -> Probe:
    """One `getent` for all."""
    (reply,) = yield [Script('getent group "$@"', [g.name for g in groups])]
    if reply.status != 2:  # which says that some of them are not there
        expect(reply, "getent group")
    gids = {line.split(":")[0]: int(line.split(":")[2]) for line in reply.text.splitlines()}
    return [{"gid": gids[g.name]} if g.name in gids else None for g in groups]


# `userdel` takes the group of an account's own with it, maybe a moment ago.
DELETE = """
found=$(getent group "$1") || case $? in 2) exit 0 ;; *) echo "$found"; exit 1 ;; esac
groupdel -- "$1"
"""


def steps(change: Change[Group]) -> Iterable[Step]:
    """One program each."""
    group = change.spec
    number = () if group.gid is None else ("-g", str(group.gid))
    if change.after is None:
        yield Sh(DELETE, (group.name,), title=f"groupdel {group.name}")
    elif change.before is None:
        yield run("groupadd", *(("-r",) if group.system else ()), *number, "--", group.name)
    else:
        yield run("groupmod", *number, "--", group.name)


def risk(change: Change[Group]) -> Risk | None:
    """A new number leaves the files behind, and some groups are the way to root."""
    if change.after is None and change.spec.name in PRIVILEGED:
        return Risk("lock-out", f"whoever becomes root by the group {change.spec.name} cannot any more")
    if change.before is not None and "gid" in change.changed:
        return Risk("lock-out", f"files of the group keep the number {change.before['gid']}; give them the new one")
    return None


TYPE = ResourceType(
    "host.group",
    Group,
    probe,
    steps,
    provides=lambda g: (f"group:{g.name}",),
    risk=risk,
    keeps=lambda change: Keep(FILES),
)
