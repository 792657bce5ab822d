"""pve.user: an account of a Proxmox VE cluster.

A password is set when the account is made and whenever it changes in the secret store; the cluster never shows it, so
that a password changed there by hand is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from reconciler.fields import Line
from reconciler.model import IDENTITY, Change, Probe, Request, ResourceType, Risk, Secret, Spec, Step
from reconciler.types.api import FLAG, NUMBER, WORDS, Api, Entries
from reconciler.types.proxmox.names import GroupId, UserId


class User(Spec):
    """An account of a Proxmox VE cluster."""

    userid: Annotated[UserId, IDENTITY]
    enabled: Annotated[bool | None, Api("enable", FLAG, default=True)] = None
    expire: Annotated[int | None, Api(codec=NUMBER, default=0)] = None
    firstname: Annotated[Line | None, Api(default="")] = None
    lastname: Annotated[Line | None, Api(default="")] = None
    email: Annotated[Line | None, Api(default="")] = None
    comment: Annotated[Line | None, Api(default="")] = None
    groups: Annotated[tuple[GroupId, ...] | None, Api(codec=WORDS, default=[])] = None
    password: Annotated[Secret | None, Api(hidden=True)] = None


ENTRIES = Entries(
    what="users",
    spec=User,
    listing="/access/users",
    key="userid",
    privileges=("Sys.Audit", "User.Modify"),
    acl=lambda user: "/access/users",
    unset="empty",
    digest=False,
    params={"full": 1},
)


def probe(users: Sequence[User]) -> Probe:
    """One list, with groups and tokens."""
    return (yield from ENTRIES.probe(users))


def steps(change: Change[User]) -> Iterable[Step]:
    """One request, and another one for a changed password: an update takes none."""
    for request in ENTRIES.steps(change):
        if request.method != "PUT":
            yield request
        elif request.params.keys() - {"password"}:
            params = {k: v for k, v in request.params.items() if k != "password"}
            yield Request("PUT", request.path, params, title=request.title)
    if change.before is not None and change.after is not None and "password" in change.changed:
        params = {"userid": change.spec.userid, "password": change.spec.password}
        yield Request("PUT", "/access/password", params, title=f"set the password of {change.spec.userid}")


def risk(change: Change[User]) -> Risk | None:
    """root@pam is the way in when everything else is broken."""
    if change.spec.userid == "root@pam" and (change.after is None or change.after.get("enabled") is False):
        return Risk("lock-out", "root@pam is locked out at once, sessions included")
    return None


TYPE: ResourceType[Any] = ResourceType(
    "pve.user",
    User,
    probe,
    steps,
    normalize=ENTRIES.normalize,
    write_only=frozenset(("password",)),
    provides=lambda user: (f"principal:{user.userid}",),
    needs=lambda user: [f"principal:@{name}" for name in user.groups or ()],
    risk=risk,
)
