"""ServiceCertificate: TLS inside a cluster, from OpenShift's service CA or from a CA of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from reconciler.errors import InvalidInput, Problem
from reconciler.expand import Catalog
from reconciler.fields import LocalPath, Ref
from reconciler.kinds.guacamole_app import HostName
from reconciler.model import Document, Kind, Resource, Secret, Spec
from reconciler.types.kubernetes.certificates import BUNDLE_KEY, INJECT, certificates, hosts
from reconciler.types.kubernetes.issued_certificate import TYPE as kubernetes_issued_certificate
from reconciler.types.kubernetes.issued_certificate import issuer_of
from reconciler.types.kubernetes.names import DnsLabel, Namespace, ObjectName
from reconciler.types.kubernetes.object import TYPE as kubernetes_object
from reconciler.types.kubernetes.serving_certificate import TYPE as kubernetes_serving_certificate
from reconciler.types.kubernetes.serving_health import TYPE as kubernetes_serving_health


class ReencryptRoute(Spec):
    """A Route that ends TLS at the router and begins it again towards the Service."""

    name: ObjectName | None = Field(None, description="Its name; the Service's by default.")
    host: HostName | None = Field(None, description="The host name; OpenShift makes one up by default.")
    port: DnsLabel | int = Field("https", description="The port of the Service, by name or number.")


class Issuer(Spec):
    """A CA of one's own, for clusters without the service CA."""

    certificate: LocalPath = Field(description="Its certificate: a PEM file, relative to the document.")
    key: Secret = Field(description="Its private key, in PEM without a passphrase.")
    days: int = Field(90, ge=2, le=825, description="How long a certificate is valid.")
    renew_days: int = Field(30, ge=1, description="It is issued anew when fewer days are left.")


class ServiceCertificateSpec(Spec):
    """A certificate for a Service inside a cluster, kept fresh in a Secret that Pods mount.

    On OpenShift the service CA issues it: the Service gets an annotation, the operator makes the Secret with `tls.crt`
    and `tls.key`, and renews it. The Service itself may belong to another document or to Helm. `caBundle` makes a
    ConfigMap for clients, into which the operator writes the CA (`service-ca.crt`); `route` a Route that encrypts again
    towards the Service. Elsewhere, name a CA of your own as `issuer`.

    Mount it with `volumes: [{name: tls, secret: {secretName: web-tls}}]`. Plan and drift report certificates that
    expire or are older than the CA, Secrets of others in the way, Pods that may still serve an old one, and clients
    whose copy of the CA is about to break.

    Example:

        apiVersion: reconciler/v1
        kind: ServiceCertificate
        metadata:
          name: web
        spec:
          cluster: prod
          namespace: web
          service: web
          secret: web-tls
          caBundle: web-ca
          route: {host: web.example.org, port: https}
          clients: [batch-ca]
    """

    cluster: Annotated[str, Ref("KubernetesCluster")] = Field(description="The KubernetesCluster.")
    namespace: Namespace = Field("default", description="The namespace of the Service.")
    service: DnsLabel = Field(description="The Service.")
    secret: ObjectName | None = Field(None, description="The Secret; the Service's name with `-tls` by default.")
    ca_bundle: ObjectName | None = Field(None, description="A ConfigMap with the CA, for clients; it is made.")
    route: ReencryptRoute | None = Field(None, description="A Route to the Service; it is made.")
    issuer: Issuer | None = Field(None, description="A CA of your own, where there is no service CA.")
    clients: tuple[ObjectName, ...] = Field(
        (), description="More ConfigMaps with a CA that clients trust; those that would break are reported."
    )
    warn_days: int = Field(30, ge=0, description="Report a certificate that expires within so many days.")
    reloads: bool = Field(False, description="The programs read a new certificate by themselves.")


def expand(document: Document[ServiceCertificateSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """Annotation or Secret, ConfigMap, Route, and an audit.

    Raises:
        InvalidInput: the CA's certificate cannot be read.
    """
    spec = document.spec
    secret = spec.secret or f"{spec.service}-tls"
    place: dict[str, Any] = {"namespace": spec.namespace}
    authority = ""
    if spec.issuer:
        authority = catalog.source(document, ("spec", "issuer", "certificate"), spec.issuer.certificate)
        yield kubernetes_issued_certificate(
            spec.cluster,
            **place,
            secret=secret,
            authority=authority,
            key=spec.issuer.key,
            days=spec.issuer.days,
            renew_days=spec.issuer.renew_days,
            names=hosts(spec.service, spec.namespace),
            issuer=issuer_of(authority),
            outworn=False,
        )
    else:
        yield kubernetes_serving_certificate(spec.cluster, **place, service=spec.service, secret=secret)
    if spec.ca_bundle:
        # On OpenShift the operator owns the data: whatever stood there would be replaced.
        content = {"data": {BUNDLE_KEY: authority}} if authority else {}
        annotations = {} if authority else {"annotations": {INJECT: "true"}}
        yield _object(spec, "v1", "ConfigMap", {"metadata": {"name": spec.ca_bundle, **annotations}, **content})
    if spec.route:
        yield _object(spec, "route.openshift.io/v1", "Route", _route(spec, spec.route, authority))
    audited: dict[str, Any] = {"clients": spec.clients} if spec.clients else {}
    if spec.ca_bundle and not authority:
        audited["ca_bundle"] = spec.ca_bundle
    if spec.route:
        audited["route"] = spec.route.name or spec.service
    if authority:
        audited["authority"] = authority
    yield kubernetes_serving_health(
        spec.cluster,
        **place,
        service=spec.service,
        secret=secret,
        warn_days=spec.warn_days,
        reloads=spec.reloads,
        **audited,
    )


def _object(spec: ServiceCertificateSpec, version: str, kind: str, manifest: dict[str, Any]) -> Resource[Any]:
    return kubernetes_object(
        spec.cluster,
        api_version=version,
        kind=kind,
        namespace=spec.namespace,
        name=manifest["metadata"]["name"],
        manifest=manifest,
        fixed={},
        client_side=False,
    )


def _route(spec: ServiceCertificateSpec, route: ReencryptRoute, authority: str) -> dict[str, Any]:
    """Without a CA of its own: the router knows the service CA, and a copy would be old after the next rotation."""
    tls: dict[str, Any] = {"termination": "reencrypt", "insecureEdgeTerminationPolicy": "Redirect"}
    if authority:
        tls["destinationCACertificate"] = authority
    host = {"host": route.host} if route.host else {}
    inside = {**host, "to": {"kind": "Service", "name": spec.service}, "port": {"targetPort": route.port}, "tls": tls}
    return {"metadata": {"name": route.name or spec.service, "labels": {"app": spec.service}}, "spec": inside}


def check(document: Document[ServiceCertificateSpec], catalog: Catalog) -> Iterable[Problem]:
    """A CA must be one, and a bundle must not be the copy of somebody else."""
    spec = document.spec
    if spec.issuer is not None:
        where = ("spec", "issuer", "certificate")
        try:
            found = certificates(catalog.source(document, where, spec.issuer.certificate))
        except InvalidInput as error:
            yield from error.problems
            return
        if not found or not found[0].key_id:
            message = "is no certificate of a CA in PEM, with a key identifier."
            yield catalog.problem(document, where, message, "Name the CA's own certificate.")
        if spec.issuer.renew_days >= spec.issuer.days:
            message = "would issue a certificate at every apply."
            yield catalog.problem(document, ("spec", "issuer", "renewDays"), message, "Write less than `days`.")
    if spec.ca_bundle is not None and spec.ca_bundle in spec.clients:
        message, fix = f"{spec.ca_bundle} is the bundle that is made here.", "Take it out of `clients`."
        yield catalog.problem(document, ("spec", "clients", spec.clients.index(spec.ca_bundle)), message, fix)


KIND = Kind("ServiceCertificate", ServiceCertificateSpec, expand, check)
