"""kubernetes.servingHealth: an audit of a serving certificate and of those who trust it.

A certificate is replaced in its Secret, but a program goes on with the one that it has read: its Pod started before
that certificate began. When the CA rotates, the name of the signer stays; what tells is the id of its key. A client
that holds a copy of the old CA breaks when the server begins to use the new certificate, so that is said before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from reconciler.model import CONTROL, IDENTITY, Change, Get, Probe, Reply, ResourceType, Spec, Unprobed
from reconciler.types.kubernetes import places
from reconciler.types.kubernetes.certificates import (
    BETA,
    BUNDLE_KEY,
    ROTATION_DAYS,
    Seen,
    certificates,
    fits,
    hosts,
    text_of,
)
from reconciler.types.kubernetes.names import Namespace, ObjectName
from reconciler.types.kubernetes.serving_certificate import secret_path, service_path

EVERYWHERE = "openshift-service-ca.crt"
"""The ConfigMap with the CA that OpenShift keeps in each namespace."""

Problem = tuple[str, str, str]


class ServingHealth(Spec):
    """An audit of the serving certificate of a Service, of the Pods that use it, and of those who trust its CA."""

    namespace: Annotated[Namespace, IDENTITY]
    service: Annotated[ObjectName, IDENTITY]
    secret: Annotated[ObjectName, IDENTITY]
    ca_bundle: Annotated[ObjectName | None, CONTROL] = None
    clients: Annotated[tuple[ObjectName, ...], CONTROL] = ()
    route: Annotated[ObjectName | None, CONTROL] = None
    warn_days: Annotated[int, CONTROL] = 30
    reloads: Annotated[bool, CONTROL] = False
    authority: Annotated[str, CONTROL] = ""
    problems: tuple[Problem, ...] = ()


def probe(wanted: Sequence[ServingHealth]) -> Probe:
    """Services, Secrets and bundles; then the Pods behind the Services."""
    names = [_maps(one) for one in wanted]
    reads: list[Get] = []
    for one, maps in zip(wanted, names, strict=True):
        config_maps = places.collection("v1", "configmaps", one.namespace)
        routes = places.collection("route.openshift.io/v1", "routes", one.namespace)
        reads += [Get(service_path(one.namespace, one.service)), Get(secret_path(one.namespace, one.secret))]
        reads += [Get(f"{config_maps}/{name}") for name in maps]
        reads += [Get(f"{routes}/{one.route}")] if one.route else []
    replies = iter((yield reads))
    found: list[tuple[Reply, Reply, dict[str, Reply], Reply | None]] = []
    for one, maps in zip(wanted, names, strict=True):
        first, second = next(replies), next(replies)
        found.append((first, second, {name: next(replies) for name in maps}, next(replies) if one.route else None))
    pods = yield [_pods(one, parts[0]) for one, parts in zip(wanted, found, strict=True)]
    now = datetime.now(UTC)
    states: list[Any] = []
    for one, (service, secret, bundles, route), running in zip(wanted, found, pods, strict=True):
        looked = (service, secret, *bundles.values(), *([route] if route is not None else []), running)
        refused = next((r for r in looked if r.status not in (0, 404)), None)
        if refused is not None:
            states.append(Unprobed(places.refusal(refused, f"show the certificate of {one.namespace}/{one.service}")))
            continue
        look = _Look(one, _body(service), _body(secret), {n: _body(r) for n, r in bundles.items()}, now)
        look.route = _body(route) if route is not None else None
        look.pods = [p for p in places.parsed(running).get("items") or () if isinstance(p, Mapping)]
        states.append({"problems": [list(problem) for problem in look.problems()]})
    return states


def _maps(one: ServingHealth) -> list[str]:
    if one.authority:
        return list(one.clients)
    return list(dict.fromkeys([*([one.ca_bundle] if one.ca_bundle else []), EVERYWHERE, *one.clients]))


def _body(reply: Reply) -> Mapping[str, Any] | None:
    return places.parsed(reply) if reply.status == 0 else None


def _pods(one: ServingHealth, service: Reply) -> Get:
    """The Pods that a Service stands for; none where it chooses none."""
    chosen = (places.parsed(service).get("spec") or {}).get("selector") or {"reconciler/none": "none"}
    selector = ",".join(f"{key}={value}" for key, value in sorted(chosen.items()))
    return Get(places.collection("v1", "pods", one.namespace), {"labelSelector": selector})


class _Look:
    """All that is known of one certificate, and what is wrong with it."""

    def __init__(
        self,
        one: ServingHealth,
        service: Mapping[str, Any] | None,
        secret: Mapping[str, Any] | None,
        bundles: Mapping[str, Mapping[str, Any] | None],
        now: datetime,
    ) -> None:
        self.one, self.service, self.secret, self.bundles, self.now = one, service, secret, bundles, now
        self.route: Mapping[str, Any] | None = None
        self.pods: list[Mapping[str, Any]] = []
        self.name = f"Service {one.namespace}/{one.service}"

    def problems(self) -> Iterator[Problem]:
        if self.service is None:
            if self.secret is not None:
                yield (
                    "no-service",
                    f"Secret {self.one.secret} is there for {self.name}, but that Service is not.",
                    "Declare the Service, or correct `service:`.",
                )
            return
        yield from self._generation()
        if self.secret is None:
            yield (
                "no-secret",
                f"{self.name} has no Secret {self.one.secret}.",
                "Apply."
                if self.one.authority
                else "Apply; if it stays away, look at the logs of the service-ca operator.",
            )
            return
        yield from self._owner()
        chain = certificates(text_of(self.secret, "tls.crt"))
        if not chain:
            yield "unreadable", f"Secret {self.one.secret} holds no certificate that can be read.", self._anew()
            return
        leaf, authority = chain[0], self._authority()
        yield from self._leaf(leaf)
        if authority is not None:
            yield from self._signer(leaf, authority)
            yield from self._clients(authority)
        yield from self._running(leaf)

    def _anew(self) -> str:
        if self.one.authority:
            return "Apply: it is issued anew."
        return f"Delete Secret {self.one.namespace}/{self.one.secret}: it is issued anew."

    def _generation(self) -> Iterator[Problem]:
        annotations = places.meta(self.service or {}).get("annotations") or {}
        error = annotations.get(f"{BETA}serving-cert-generation-error")
        if error:
            tries = annotations.get(f"{BETA}serving-cert-generation-error-num", "?")
            yield (
                "generation-error",
                f"{self.name}: no certificate was made in {tries} tries: {error}.",
                f"Remove the cause, then the annotations {BETA}serving-cert-generation-error and -error-num; after ten "
                "tries the operator waits for that.",
            )

    def _owner(self) -> Iterator[Problem]:
        if self.one.authority:
            return
        annotations = places.meta(self.secret or {}).get("annotations") or {}
        of = annotations.get(f"{BETA}originating-service-uid")
        if of != places.meta(self.service or {}).get("uid"):
            whose = annotations.get(f"{BETA}originating-service-name")
            words = f"was made for Service {whose}" if whose else "was not made by the service CA"
            yield (
                "foreign-secret",
                f"Secret {self.one.secret} {words}, not for {self.name}.",
                "Choose another `secret:`, or delete that one if nobody needs it.",
            )

    def _leaf(self, leaf: Seen) -> Iterator[Problem]:
        days = leaf.days_left(self.now)
        if leaf.ends <= self.now:
            yield "expired", f"the certificate of {self.name} expired on {leaf.ends:%Y-%m-%d}.", self._anew()
        elif days < self.one.warn_days:
            yield (
                "expires",
                f"the certificate of {self.name} expires in {days} days ({leaf.ends:%Y-%m-%d}).",
                self._anew(),
            )
        if not fits(text_of(self.secret or {}, "tls.key"), leaf):
            yield "key-mismatch", f"key and certificate in Secret {self.one.secret} do not go together.", self._anew()
        wanted = hosts(self.one.service, self.one.namespace)[0]
        if wanted not in leaf.names:
            yield "wrong-name", f"the certificate in Secret {self.one.secret} is not for {wanted}.", self._anew()

    def _authority(self) -> Seen | None:
        """The CA of now: one's own, or the first one in a bundle that the operator keeps."""
        if self.one.authority:
            return next(iter(certificates(self.one.authority)), None)
        for name in (self.one.ca_bundle, EVERYWHERE):
            found = self._bundle(name) if name else []
            if found:
                return found[0]
        return None

    def _bundle(self, name: str) -> list[Seen]:
        data = (self.bundles.get(name) or {}).get("data") or {}
        return [one for key in sorted(data, key=lambda k: k != BUNDLE_KEY) for one in certificates(str(data[key]))]

    def _signer(self, leaf: Seen, authority: Seen) -> Iterator[Problem]:
        if leaf.signer_id != authority.key_id:
            yield (
                "stale",
                f"the certificate of {self.name} is older than the CA, which has rotated since.",
                f"See that clients trust the new CA, then: {self._anew()}",
            )
        days = authority.days_left(self.now)
        if not self.one.authority and days < ROTATION_DAYS + self.one.warn_days:
            yield (
                "rotation",
                f"the service CA is about to rotate: it has {days} days left, and rotates below {ROTATION_DAYS}.",
                "Let clients read an injected bundle, not a copy, and see that they reload it.",
            )

    def _clients(self, authority: Seen) -> Iterator[Problem]:
        """Who does not trust the CA of now breaks as soon as a server uses a certificate of it."""
        for name in self.one.clients:
            trusted = {one.key_id for one in self._bundle(name)}
            if authority.key_id not in trusted:
                there = "has no certificate of a CA" if self.bundles.get(name) and not trusted else "does not hold it"
                text = f"ConfigMap {name} {there}" if self.bundles.get(name) else f"there is no ConfigMap {name}"
                yield (
                    "client-breaks",
                    f"clients of {self.name} with ConfigMap {name} do not trust its CA: {text}. They fail with the "
                    "next certificate, if they do not now.",
                    "Put the certificate of the CA into it."
                    if self.one.authority
                    else f'Annotate the ConfigMap: {BETA}inject-cabundle: "true".',
                )
        tls = ((self.route or {}).get("spec") or {}).get("tls") or {}
        copy = tls.get("destinationCACertificate")
        if copy and authority.key_id not in {one.key_id for one in certificates(str(copy))}:
            yield (
                "client-breaks",
                f"Route {self.one.route} holds a copy of an old CA, and does not trust the one of now.",
                "Take destinationCACertificate out: the router knows the service CA.",
            )

    def _running(self, leaf: Seen) -> Iterator[Problem]:
        """Pods that mount the Secret and began before the certificate did."""
        mounting = [pod for pod in self.pods if self.one.secret in _secrets(pod)]
        if self.pods and not mounting:
            yield (
                "not-mounted",
                f"no Pod of {self.name} mounts Secret {self.one.secret}.",
                f"volumes: [{{name: tls, secret: {{secretName: {self.one.secret}}}}}], and in the container "
                "volumeMounts: [{name: tls, mountPath: /etc/tls, readOnly: true}].",
            )
        old = [places.meta(pod)["name"] for pod in mounting if _started(pod) < leaf.begins]
        if old and not self.one.reloads:
            shown = ", ".join(old[:3]) + (f" and {len(old) - 3} more" if len(old) > 3 else "")
            yield (
                "old-in-use",
                f"{shown} started before the certificate of {self.name} was issued, and may still serve the old one.",
                "Restart them, or say `reloads: true` if the program reads the file again by itself.",
            )


def _secrets(pod: Mapping[str, Any]) -> set[str]:
    found: set[Any] = set()
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        found.add((volume.get("secret") or {}).get("secretName"))
        for source in (volume.get("projected") or {}).get("sources") or ():
            found.add((source.get("secret") or {}).get("name"))
    return found - {None}


def _started(pod: Mapping[str, Any]) -> datetime:
    """When its first container started; the end of time where none runs."""
    times = [
        ((container.get("state") or {}).get("running") or {}).get("startedAt")
        for container in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    known = [time for time in times if time] or [(pod.get("status") or {}).get("startTime")]
    if not known[0]:
        return datetime.max.replace(tzinfo=UTC)
    return min(datetime.fromisoformat(str(time)) for time in known)


def findings(change: Change[ServingHealth]) -> Iterable[Problem]:
    """The problems, as they are."""
    yield from (change.before or {}).get("problems") or ()


TYPE: ResourceType[Any] = ResourceType(
    "kubernetes.servingHealth",
    ServingHealth,
    probe,
    None,
    findings=findings,
    needs=lambda s: (f"certificate:{s.namespace}/{s.service}", f"object:/Secret/{s.namespace}/{s.secret}"),
)
