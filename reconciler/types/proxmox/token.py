"""pve.token: an API token of a user of a Proxmox VE cluster.

The cluster makes the token's secret and shows it once: it goes straight into the secret store. Backup servers do the
same; what is said of tokens there, too, is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from reconciler.fields import Line
from reconciler.model import CONTROL, IDENTITY, Change, Get, Probe, Request, ResourceType, Secret, Spec, Step
from reconciler.types.api import FLAG, NUMBER, PERMISSIONS, Api, answer, created, observe, require, updated
from reconciler.types.proxmox.names import SecretName, TokenName, UserId


class Issued(Spec):
    """An API token, wherever it is."""

    user: Annotated[UserId, IDENTITY]
    token: Annotated[TokenName, IDENTITY]
    comment: Annotated[Line | None, Api(default="")] = None
    expire: Annotated[int | None, Api(codec=NUMBER, default=0)] = None
    keep_in: Annotated[SecretName | None, CONTROL] = None

    @property
    def name(self) -> str:
        """`USER@REALM!TOKEN`."""
        return f"{self.user}!{self.token}"

    @property
    def principal(self) -> str:
        """What entries of the access list need."""
        return f"principal:{self.name}"

    @property
    def owner(self) -> str:
        """What the token needs."""
        return f"principal:{self.user}"


class Token(Issued):
    """An API token of a user of a Proxmox VE cluster."""

    separated: Annotated[bool | None, Api("privsep", FLAG, default=True)] = None


def probe(tokens: Sequence[Token]) -> Probe:
    """The list of users shows their tokens."""
    rights, users = yield [PERMISSIONS, Get("/access/users", {"full": 1})]
    require(rights, "tokens", ["/access/users"], ("Sys.Audit", "User.Modify"))
    known = {f"{u['userid']}!{t['tokenid']}": t for u in answer(users, "users") for t in u.get("tokens") or ()}
    return [observe(Token, known.get(token.name)) for token in tokens]


def steps(change: Change[Token]) -> Iterable[Step]:
    """See `request`."""
    yield request(change, "empty")


def request(change: Change[Any], unset: Literal["empty", "repeat"]) -> Request:
    """One request; the answer to a creation carries the secret."""
    spec: Issued = change.spec
    path = f"/access/users/{spec.user}/token/{spec.token}"
    if change.after is None:
        return Request("DELETE", path, title=f"remove the token {spec.name}")
    if change.before is None:
        keep = ("value", Secret(secret_ref=spec.keep_in)) if spec.keep_in else None
        return Request("POST", path, created(spec), title=f"create the token {spec.name}", keep=keep)
    title = f"set {', '.join(sorted(change.changed))} of the token {spec.name}"
    return Request("PUT", path, updated(spec, change, unset), title=title)


TYPE: ResourceType[Any] = ResourceType(
    "pve.token", Token, probe, steps, provides=lambda t: (t.principal,), needs=lambda t: (t.owner,)
)
