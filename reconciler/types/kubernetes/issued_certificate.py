"""kubernetes.issuedCertificate: a Secret with a serving certificate that reconciler issues from a CA of its own.

It is issued anew when it runs out, when its names change, and when the CA is another one. The key of the CA is revealed
only where the certificate is made; that of the certificate is never seen by anybody but the cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.model import (
    CONTROL,
    IDENTITY,
    Change,
    Get,
    Probe,
    Reply,
    Request,
    ResourceType,
    Secret,
    Spec,
    State,
    Step,
    Unprobed,
)
from reconciler.types.kubernetes import places
from reconciler.types.kubernetes.certificates import ISSUE, certificates, fits, text_of
from reconciler.types.kubernetes.names import LABEL, MANAGER, Namespace, ObjectName
from reconciler.types.kubernetes.serving_certificate import secret_path


class IssuedCertificate(Spec):
    """A Secret with a serving certificate, issued from a CA in the secret store."""

    namespace: Annotated[Namespace, IDENTITY]
    secret: Annotated[ObjectName, IDENTITY]
    authority: Annotated[str, CONTROL] = ""
    key: Annotated[Secret | None, CONTROL] = None
    days: Annotated[int, CONTROL, Field(ge=1)] = 90
    renew_days: Annotated[int, CONTROL, Field(ge=0)] = 30
    names: tuple[str, ...] | None = None
    issuer: str | None = None
    outworn: Literal[False] | None = None


def issuer_of(authority: str) -> str:
    """What tells a CA from others: a digest of its public key."""
    found = certificates(authority)
    return _short(found[0].key_id or found[0].public_key) if found else ""


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def probe(wanted: Sequence[IssuedCertificate]) -> Probe:
    """The Secrets."""
    replies = yield [Get(secret_path(one.namespace, one.secret)) for one in wanted]
    now = datetime.now(UTC)
    return [_state(one, reply, now) for one, reply in zip(wanted, replies, strict=True)]


def _state(one: IssuedCertificate, reply: Reply, now: datetime) -> State | Unprobed | None:
    if reply.status == 404:
        return None
    if reply.status:
        return Unprobed(places.refusal(reply, f"show Secret {one.namespace}/{one.secret}"))
    live = places.parsed(reply)
    metadata = places.meta(live)
    if (metadata.get("labels") or {}).get(LABEL) != "true":
        return Unprobed(
            f"Secret {one.namespace}/{one.secret} belongs to somebody else: it does not carry our label {LABEL}. "
            "Choose another `secret:`, or delete it."
        )
    chain = certificates(text_of(live, "tls.crt"))
    seen = {"uid": metadata.get("uid"), "resourceVersion": metadata.get("resourceVersion")}
    if not chain or not fits(text_of(live, "tls.key"), chain[0]):
        return {"names": [], "issuer": "", "outworn": True, **seen}
    leaf = chain[0]
    short = leaf.days_left(now) < min(one.renew_days, one.days // 2 + 1)
    return {"names": sorted(leaf.names), "issuer": _short(leaf.signer_id), "outworn": short, **seen}


def steps(change: Change[IssuedCertificate]) -> Iterable[Step]:
    """A new key and certificate each time."""
    spec, seen = change.spec, change.seen
    path = secret_path(spec.namespace, spec.secret)
    what = f"Secret {spec.namespace}/{spec.secret}"
    found = {key: seen[key] for key in ("uid", "resourceVersion") if seen.get(key)}
    if change.after is None:
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        yield Request(
            "DELETE", path, body={**options, "preconditions": found} if found else options, title=f"delete {what}"
        )
        return
    orders = {"authority": spec.authority, "key": spec.key, "names": list(spec.names or ()), "days": spec.days}
    labels = {LABEL: "true"}
    metadata = {"name": spec.secret, "namespace": spec.namespace, "labels": labels}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {**metadata, **(found if change.before is not None else {})},
        "stringData": {ISSUE: orders},
    }
    params = {"fieldManager": MANAGER, "force": "true" if change.before is not None else "false"}
    yield Request("PATCH", path, params, body, title=f"issue a certificate into {what}")


def normalize(desired: State, observed: State) -> State:
    """Names have no order."""
    return {
        name: observed[name] if name == "names" and sorted(value) == observed.get(name) else value
        for name, value in desired.items()
    }


TYPE: ResourceType[Any] = ResourceType(
    "kubernetes.issuedCertificate",
    IssuedCertificate,
    probe,
    steps,
    normalize=normalize,
    provides=lambda s: (f"object:/Secret/{s.namespace}/{s.secret}",),
    needs=lambda s: (f"namespace:{s.namespace}",),
)
