"""kubernetes.servingCertificate: OpenShift's service CA gives a Service a certificate.

The Service may belong to another document, to Helm or to anybody: this sets one annotation on it, as a field manager of
its own, and waits for the Secret that the operator makes. The operator gives up after ten tries where a Secret of that
name belongs to somebody else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from reconciler.model import (
    CONTROL,
    IDENTITY,
    Absent,
    Change,
    Get,
    Probe,
    Readiness,
    Reply,
    Request,
    ResourceType,
    Spec,
    State,
    Step,
    Unprobed,
)
from reconciler.types.kubernetes import fieldpaths as paths
from reconciler.types.kubernetes import places
from reconciler.types.kubernetes.certificates import (
    BETA,
    SECRET_NAME,
    certificates,
    fits,
    hosts,
    text_of,
)
from reconciler.types.kubernetes.names import Namespace, ObjectName

OWN_MANAGER: Final = "reconciler-service-ca"
OPENSHIFT: Final = "route.openshift.io"
"""The API group by which OpenShift is known."""


class ServingCertificate(Spec):
    """The annotation by which OpenShift's service CA gives a Service a certificate, and the Secret with it."""

    namespace: Annotated[Namespace, IDENTITY]
    service: Annotated[ObjectName, IDENTITY]
    secret: ObjectName | None = None
    given: Annotated[tuple[str, ...], CONTROL] = ()


def _token(one: ServingCertificate) -> str:
    return f"object:/Service/{one.namespace}/{one.service}"


def service_path(namespace: str, service: str) -> str:
    """Where a Service is."""
    return f"{places.collection('v1', 'services', namespace)}/{service}"


def secret_path(namespace: str, secret: str) -> str:
    """Where a Secret is."""
    return f"{places.collection('v1', 'secrets', namespace)}/{secret}"


def probe(wanted: Sequence[ServingCertificate]) -> Probe:
    """Whether it is OpenShift, then Services and Secrets."""
    reads = [Get("/apis")]
    for one in wanted:
        reads.append(Get(service_path(one.namespace, one.service)))
        reads.append(Get(secret_path(one.namespace, one.secret or one.service)))
    groups, *replies = yield reads
    if groups.status:
        return [Unprobed(places.refusal(groups, "tell what it serves"))] * len(wanted)
    if not is_openshift(groups):
        reason = (
            "this is not an OpenShift cluster, so nobody issues serving certificates. Add `issuer:` with a CA of your "
            "own, or use another cluster."
        )
        return [Unprobed(reason)] * len(wanted)
    return [_state(one, replies[2 * index], replies[2 * index + 1]) for index, one in enumerate(wanted)]


def is_openshift(groups: Reply) -> bool:
    """Whether the answer of `/apis` has OpenShift's Routes."""
    return any(one.get("name") == OPENSHIFT for one in places.parsed(groups).get("groups") or ())


def _state(one: ServingCertificate, service: Reply, secret: Reply) -> State | Absent | Unprobed | None:
    if service.status == 404:
        if _token(one) in one.given:
            return Absent({})
        return Unprobed(f"there is no Service {one.namespace}/{one.service} to give a certificate to. Declare it.")
    if service.status:
        return Unprobed(places.refusal(service, f"show Service {one.namespace}/{one.service}"))
    if secret.status not in (0, 404):
        return Unprobed(places.refusal(secret, f"show Secret {one.namespace}/{one.secret}"))
    live = places.parsed(service)
    annotations = places.meta(live).get("annotations") or {}
    named = annotations.get(SECRET_NAME)
    if named is None:
        return None
    path = ("metadata", "annotations", SECRET_NAME)
    others = [owner.name for owner in paths.owners(live, path) if owner.name != OWN_MANAGER]
    works, trouble = _works(one, live, places.parsed(secret) if secret.status == 0 else None)
    return {"secret": named, "owners": others, "works": works, "trouble": trouble}


def _works(
    one: ServingCertificate, service: Mapping[str, Any], secret: Mapping[str, Any] | None
) -> tuple[Readiness, str]:
    """Whether the Secret is there and goes with the Service."""
    annotations = places.meta(service).get("annotations") or {}
    error = annotations.get(f"{BETA}serving-cert-generation-error")
    if error:
        return Readiness.FAILED, str(error)
    if secret is None:
        return Readiness.WAITING, "the operator has not made the Secret yet"
    of = (places.meta(secret).get("annotations") or {}).get(f"{BETA}originating-service-uid")
    if of != places.meta(service).get("uid"):
        return Readiness.WAITING, "the Secret belongs to another Service, or to somebody else"
    chain = certificates(text_of(secret, "tls.crt"))
    if not chain or hosts(one.service, one.namespace)[0] not in chain[0].names:
        return Readiness.WAITING, "the Secret has no certificate for this Service"
    if not fits(text_of(secret, "tls.key"), chain[0]):
        return Readiness.WAITING, "key and certificate in the Secret do not go together"
    return Readiness.READY, ""


def steps(change: Change[ServingCertificate]) -> Iterable[Step]:
    """One apply of one annotation."""
    spec = change.spec
    metadata: dict[str, Any] = {"name": spec.service, "namespace": spec.namespace}
    title = f"take the serving certificate from Service {spec.namespace}/{spec.service}"
    if change.after is not None:
        metadata["annotations"] = {SECRET_NAME: spec.secret}
        title = f"ask for a serving certificate for Service {spec.namespace}/{spec.service} in Secret {spec.secret}"
    body = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
    params = {"fieldManager": OWN_MANAGER, "force": "true"}
    yield Request("PATCH", service_path(spec.namespace, spec.service), params, body, title=title)


def why(change: Change[ServingCertificate]) -> Iterable[str]:
    """Who set the annotation."""
    others = change.seen.get("owners") or ()
    if others and change.after is not None:
        yield f"{', '.join(others)} set the annotation"


def ready(state: State) -> Readiness:
    """The Secret is there, and goes with the Service."""
    found: Readiness = state.get("works", Readiness.READY)
    return found


def among(spec: ServingCertificate, tokens: Collection[str]) -> ServingCertificate:
    """With the Service, where that comes in the same plan."""
    given = (_token(spec),) if _token(spec) in tokens else ()
    return spec if given == spec.given else spec.model_copy(update={"given": given})


TYPE: ResourceType[Any] = ResourceType(
    "kubernetes.servingCertificate",
    ServingCertificate,
    probe,
    steps,
    ready=ready,
    among=among,
    provides=lambda s: (f"certificate:{s.namespace}/{s.service}", f"object:/Secret/{s.namespace}/{s.secret}"),
    needs=lambda s: (_token(s), f"namespace:{s.namespace}"),
    why=why,
)
