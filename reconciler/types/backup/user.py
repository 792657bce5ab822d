"""pbs.user: an account of a backup server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from reconciler.fields import Line
from reconciler.model import IDENTITY, Change, Probe, ResourceType, Risk, Secret, Spec, Step
from reconciler.types.api import FLAG, NUMBER, Api, Entries
from reconciler.types.proxmox.names import UserId


class User(Spec):
    """An account of a backup server."""

    userid: Annotated[UserId, IDENTITY]
    enabled: Annotated[bool | None, Api("enable", FLAG, default=True)] = None
    expire: Annotated[int | None, Api(codec=NUMBER, default=0)] = None
    firstname: Annotated[Line | None, Api(default="")] = None
    lastname: Annotated[Line | None, Api(default="")] = None
    email: Annotated[Line | None, Api(default="")] = None
    comment: Annotated[Line | None, Api(default="")] = None
    password: Annotated[Secret | None, Api(hidden=True)] = None


ENTRIES = Entries(
    what="users",
    spec=User,
    listing="/access/users",
    key="userid",
    privileges=("Sys.Audit",),
    acl=lambda user: "/access/users",
    unset="repeat",
)


def probe(users: Sequence[User]) -> Probe:
    """One list."""
    return (yield from ENTRIES.probe(users))


def steps(change: Change[User]) -> Iterable[Step]:
    """One request. The password goes along whenever it changed in the secret store."""
    yield from ENTRIES.steps(change)


def risk(change: Change[User]) -> Risk | None:
    """root@pam is the way in when everything else is broken."""
    if change.spec.userid == "root@pam" and (change.after is None or change.after.get("enabled") is False):
        return Risk("lock-out", "root@pam is locked out")
    return None


TYPE: ResourceType[Any] = ResourceType(
    "pbs.user",
    User,
    probe,
    steps,
    write_only=frozenset(("password",)),
    provides=lambda user: (f"principal:{user.userid}",),
    risk=risk,
)
