"""host.otpKey: a YubiKey that the validation server of a host knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

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
from reconciler.types.host.otp_roster import KEYS, Entry, needs, provides, reads, rows, tell

PublicId = Annotated[
    str,
    Rule(
        r"(?:[cbdefghijklnrtuv]{2}){1,8}",
        "a public id: 2 to 16 of the letters cbdefghijklnrtuv, an even number of them",
    ),
]
Handle = Annotated[str, Rule(r"[1-9][0-9]{0,8}", 'the number of a key in keys.json, quoted: "1"', 9)]
PrivateId = Annotated[str, Rule(r"[0-9a-f]{12}", "12 lower-case hexadecimal digits", 12)]
AesKey = Annotated[str, Rule(r"[0-9a-f]{32}", "32 lower-case hexadecimal digits", 32)]
SEEN: Final = ("privateId", "aesKey", "handle", "active", "notes", "sealed")


class OtpKey(Entry):
    """A YubiKey: its secrets, sealed in a file, and whether it counts.

    Counters, nonces and times of use are the server's own: they are neither compared nor changed. A key that goes is
    revoked and keeps its row, because a row that is made again would accept OTPs that were used before.
    """

    public_id: Annotated[PublicId, IDENTITY] = Field(description="What each of its OTPs begins with.")
    private_id: PrivateId | Secret | Composed | None = Field(None, description="6 bytes, as hexadecimal digits.")
    aes_key: AesKey | Secret | Composed | None = Field(None, description="16 bytes, as hexadecimal digits.")
    handle: Handle | None = Field(None, description="The key of keys.json that seals its secrets.")
    sealed: Literal[True] = Field(True, description="Its file opens with that key.")


def probe(keys: Sequence[OtpKey]) -> Probe:
    """One look at the server for all YubiKeys."""
    replies = yield reads(keys)
    states: list[State | None] = []
    for key, found in zip(keys, rows(keys, replies, "keys"), strict=True):
        if found is None:
            states.append(dict.fromkeys(SEEN, UNOBSERVABLE))
        else:
            states.append(_state(next((row for row in found if row["publicId"] == key.public_id), None)))
    return states


def _state(row: Mapping[str, Any] | None) -> State | None:
    if row is None or row["removed"]:
        return None
    return {
        "privateId": _digest(row["privateIdSha256"]),
        "aesKey": _digest(row["aesKeySha256"]),
        "handle": row["handle"],
        "active": row["active"],
        "notes": row["notes"],
        "sealed": row["handle"] is not None and not row["problem"],
    }


def _digest(text: str | None) -> Sha256 | None:
    return None if text is None else Sha256(text)


def steps(change: Change[OtpKey]) -> Iterable[Step]:
    """One document to the server. What is not declared stays as it is."""
    key = change.spec
    if change.after is None:
        yield from tell(key, "removeKeys", key.public_id, {}, f"revoke {key.public_id} for good")
        return
    kept = {name: change.seen[name] for name in ("active", "notes", "handle") if change.seen.get(name) is not None}
    declared = {name: getattr(key, name) for name in ("active", "notes", "handle") if getattr(key, name) is not None}
    # What the plan says of the secrets has been seen by whoever applies it.
    content: dict[str, Any] = {**kept, **declared, "publicId": key.public_id, "replace": True}
    secrets: dict[str, str | Secret] = {}
    if key.private_id is not None and key.aes_key is not None:
        secrets = {"privateId": key.private_id, "aesKey": key.aes_key}
    verb = "add" if change.before is None else "set"
    yield from tell(key, "keys", content, secrets, f"{verb} the YubiKey {key.public_id}")


def risk(change: Change[OtpKey]) -> Risk | None:
    """Who loses a key; what new secrets mean for the counters."""
    key = change.spec
    if change.after is None:
        return Risk("lock-out", f"{key.public_id} is revoked; its row stays, so that no used OTP counts again")
    if change.before is None:
        return None
    if "active" in change.changed and key.active is False:
        return Risk("lock-out", f"OTPs of {key.public_id} are refused from now on")
    if change.changed & {"privateId", "aesKey"} and change.before.get("sealed"):
        return Risk(
            "lock-out",
            f"{key.public_id} gets other secrets and keeps its counters: a YubiKey that was programmed anew counts "
            "from 1 and is refused until it has passed them. Give it a new public id instead",
        )
    return None


TYPE = ResourceType(
    "host.otpKey",
    OtpKey,
    probe,
    steps,
    hidden=lambda key: ("privateId", "aesKey"),
    provides=lambda key: provides(key, f"otpkey:{key.public_id}"),
    needs=needs,
    watches=lambda key: (f"path:{KEYS}",),
    stale={"sealed": False},
    risk=risk,
)
