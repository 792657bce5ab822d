"""pve.token: an API token of a user of a Proxmox VE cluster.

The cluster makes the token's secret and shows it once: it goes straight into the secret store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from reconciler.fields import Line
from reconciler.model import CONTROL, IDENTITY, Change, Get, Probe, Request, ResourceType, Secret, Spec, Step
from reconciler.types.api import FLAG, NUMBER, PERMISSIONS, Api, answer, created, observe, require, updated
from reconciler.types.proxmox.names import SecretName, TokenName, UserId


class Token(Spec):
    """An API token of a user of a Proxmox VE cluster."""

    user: Annotated[UserId, IDENTITY]
    token: Annotated[TokenName, IDENTITY]
    comment: Annotated[Line | None, Api(default="")] = None
    expire: Annotated[int | None, Api(codec=NUMBER, default=0)] = None
    separated: Annotated[bool | None, Api("privsep", FLAG, default=True)] = None
    keep_in: Annotated[SecretName | None, CONTROL] = None

    @property
    def path(self) -> str:
        """Where it is read and written."""
        return f"/access/users/{self.user}/token/{self.token}"


def probe(tokens: Sequence[Token]) -> Probe:
    """The list of users shows their tokens."""
    rights, users = yield [PERMISSIONS, Get("/access/users", {"full": 1})]
    require(rights, "tokens", ["/access/users"], ("Sys.Audit", "User.Modify"))
    known = {
        (user["userid"], token["tokenid"]): token
        for user in answer(users, "users")
        for token in user.get("tokens") or ()
    }
    return [observe(Token, known.get((t.user, t.token))) for t in tokens]


def steps(change: Change[Token]) -> Iterable[Step]:
    """One request; the answer to a creation carries the secret."""
    spec = change.spec
    name = f"{spec.user}!{spec.token}"
    if change.after is None:
        yield Request("DELETE", spec.path, title=f"remove the token {name}")
    elif change.before is None:
        keep = ("value", Secret(secret_ref=spec.keep_in)) if spec.keep_in else None
        yield Request("POST", spec.path, created(spec), title=f"create the token {name}", keep=keep)
    else:
        title = f"set {', '.join(sorted(change.changed))} of the token {name}"
        yield Request("PUT", spec.path, updated(spec, change, "empty"), title=title)


TYPE: ResourceType[Any] = ResourceType(
    "pve.token",
    Token,
    probe,
    steps,
    provides=lambda token: (f"principal:{token.user}!{token.token}",),
    needs=lambda token: (f"principal:{token.user}",),
)
