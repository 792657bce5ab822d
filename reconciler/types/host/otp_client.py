"""host.otpClient: who may ask the validation server of a host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field

from reconciler.fields import Rule
from reconciler.model import (
    IDENTITY,
    UNOBSERVABLE,
    Change,
    Composed,
    Probe,
    ResourceType,
    Risk,
    Secret,
    Sha256,
    State,
    Step,
)
from reconciler.types.host.otp_roster import Entry, needs, provides, reads, rows, tell

Base64 = Annotated[str, Rule(r"[A-Za-z0-9+/]+={0,2}", "base64 text", 60)]


class OtpClient(Entry):
    """A client of the validation server: its number, and the key with which both sign."""

    id: Annotated[int, IDENTITY] = Field(ge=1, le=2147483647, description="Its number.")
    secret: Base64 | Secret | Composed | None = Field(None, description="The key, as base64 text.")


def probe(clients: Sequence[OtpClient]) -> Probe:
    """One look at the server for all clients."""
    replies = yield reads(clients)
    states: list[State | None] = []
    for client, found in zip(clients, rows(clients, replies, "clients"), strict=True):
        if found is None:
            states.append(dict.fromkeys(("secret", "active", "notes"), UNOBSERVABLE))
            continue
        row = next((row for row in found if row["id"] == client.id), None)
        states.append(
            row
            and {
                "secret": Sha256(row["secretSha256"]),
                "active": row["active"],
                "notes": row["notes"],
                "email": row["email"],
            }
        )
    return states


def steps(change: Change[OtpClient]) -> Iterable[Step]:
    """One document to the server. What is not declared stays as it is."""
    client = change.spec
    if change.after is None:
        yield from tell(client, "removeClients", client.id, {}, f"remove the client {client.id}")
        return
    kept = {name: change.seen[name] for name in ("active", "notes", "email") if name in change.seen}
    declared = {name: getattr(client, name) for name in ("active", "notes") if getattr(client, name) is not None}
    # What the plan says of the secret has been seen by whoever applies it.
    content: dict[str, Any] = {**kept, **declared, "id": client.id, "replace": True}
    secrets = {} if client.secret is None else {"secret": client.secret}
    verb = "add" if change.before is None else "set"
    yield from tell(client, "clients", content, secrets, f"{verb} the client {client.id}")


def risk(change: Change[OtpClient]) -> Risk | None:
    """Who asks with an old key gets no answer."""
    client = change.spec
    if change.after is None or (change.before is not None and "active" in change.changed and client.active is False):
        return Risk("lock-out", f"nobody logs in any more where client {client.id} asks")
    if change.before is not None and "secret" in change.changed:
        return Risk("lock-out", f"nobody logs in where client {client.id} asks, until it signs with the new key, too")
    return None


TYPE = ResourceType(
    "host.otpClient",
    OtpClient,
    probe,
    steps,
    hidden=lambda client: ("secret",),
    provides=lambda client: provides(client, f"otpclient:{client.id}"),
    needs=needs,
    risk=risk,
)
