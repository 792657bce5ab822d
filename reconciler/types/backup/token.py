"""pbs.token: an API token of a user of a backup server. Its secret is shown once and goes into the secret store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from reconciler.model import Change, Get, Probe, ResourceType, Step
from reconciler.types.api import FLAG, PERMISSIONS, Api, answer, observe, require
from reconciler.types.proxmox.token import Issued, request


class Token(Issued):
    """An API token of a user of a backup server."""

    enabled: Annotated[bool | None, Api("enable", FLAG, default=True)] = None


def probe(tokens: Sequence[Token]) -> Probe:
    """The list of users shows their tokens, with whole names."""
    rights, users = yield [PERMISSIONS, Get("/access/users", {"include_tokens": 1})]
    require(rights, "tokens", ["/access/users"], ("Sys.Audit",))
    known = {token["tokenid"]: token for user in answer(users, "users") for token in user.get("tokens") or ()}
    return [observe(Token, known.get(token.name)) for token in tokens]


def steps(change: Change[Token]) -> Iterable[Step]:
    """One request."""
    yield request(change, "repeat")


TYPE: ResourceType[Any] = ResourceType(
    "pbs.token", Token, probe, steps, provides=lambda t: (t.principal,), needs=lambda t: (t.owner,)
)
