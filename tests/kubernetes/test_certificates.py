"""Certificates for Services, from OpenShift's service CA and from a CA of one's own, on an emulator."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from reconciler.connections.issuing import issue
from reconciler.errors import SecretError
from reconciler.model import Outcome
from reconciler.types.kubernetes.certificates import certificates, fits
from tests.kubernetes.world import World, document, objects, outcomes, world

FIXTURES = Path(__file__).parents[1] / "fixtures" / "kubernetes"
SECRET = "/api/v1/namespaces/web/secrets/web-tls"
SERVICE = "/api/v1/namespaces/web/services/web"
BETA = "service.beta.openshift.io/"
WEB = (
    "{apiVersion: v1, kind: Service, metadata: {name: web}, "
    "spec: {selector: {app: web}, ports: [{name: https, port: 8443}]}}"
)
PODS = (
    "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {selector: {matchLabels: {app: web}}, "
    "template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: registry.example.org/a}], "
    "volumes: [{name: tls, secret: {secretName: web-tls}}]}}}}"
)
CERTIFICATE = document(
    "ServiceCertificate",
    "web",
    "cluster: prod, namespace: web, service: web, secret: web-tls, caBundle: web-ca, "
    "route: {host: web.example.org}, clients: [copy]",
)
CERTIFICATE_ALONE = document("ServiceCertificate", "web", "cluster: prod, namespace: web, service: web")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, openshift=True) as made:
        yield made


def rules(one: World) -> list[str]:
    """The rules of what an audit finds now."""
    return sorted(finding.rule for finding in one.plan().findings)


def leaf(one: World) -> x509.Certificate:
    """The certificate in the Secret."""
    return x509.load_pem_x509_certificates(base64.b64decode(one.live(SECRET)["data"]["tls.crt"]))[0]


def copy_of_the_bundle(one: World) -> None:
    """A client that took a copy of the CA, once."""
    data = one.live("/api/v1/namespaces/web/configmaps/web-ca")["data"]
    meta = {"name": "copy", "namespace": "web"}
    one.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}, manager="somebody")


def test_a_service_gets_its_certificate_bundle_and_route(one: World) -> None:
    """As the article does by hand: an annotation, a Secret that is mounted, a Route that encrypts again."""
    one.write(objects(WEB, PODS), CERTIFICATE)
    one.settle()
    annotations = one.live(SERVICE)["metadata"]["annotations"]
    assert annotations[f"{BETA}serving-cert-secret-name"] == "web-tls"
    assert "web.web.svc" in leaf(one).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value.get_values_for_type(x509.DNSName)
    assert "BEGIN CERTIFICATE" in one.live("/api/v1/namespaces/web/configmaps/web-ca")["data"]["service-ca.crt"]
    route = one.live("/apis/route.openshift.io/v1/namespaces/web/routes/web")
    assert route["spec"]["tls"] == {"termination": "reencrypt", "insecureEdgeTerminationPolicy": "Redirect"}
    assert route["status"]["ingress"][0]["conditions"][0]["status"] == "True"
    copy_of_the_bundle(one)
    assert rules(one) == []


def test_another_manager_who_takes_the_annotation_is_named_and_it_is_set_again(one: World) -> None:
    one.write(objects(WEB, PODS), CERTIFICATE)
    one.settle()
    named = {f"{BETA}serving-cert-secret-name": "theirs"}
    metadata = {"name": "web", "namespace": "web", "annotations": named}
    one.cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata}, manager="helm")
    made = one.plan()
    (change,) = made.changes
    assert change.changed == {"secret"}
    assert "helm set the annotation" in change.why
    one.settle()
    one.write(objects(WEB, PODS))
    one.settle()
    assert f"{BETA}serving-cert-secret-name" not in one.live(SERVICE)["metadata"].get("annotations", {})


def test_a_secret_that_was_deleted_comes_back(one: World) -> None:
    one.write(objects(WEB, PODS), CERTIFICATE_ALONE)
    one.settle()
    serial = leaf(one).serial_number
    code, _ = one.cluster.call("DELETE", SECRET)
    assert code == 200
    one.settle()
    assert leaf(one).serial_number != serial


def test_after_a_rotation_stale_leaves_old_processes_and_clients_with_a_copy_are_found(one: World) -> None:
    one.write(objects(WEB, PODS), CERTIFICATE)
    one.settle()
    copy_of_the_bundle(one)
    old = one.live(SECRET)
    # Certificates begin at full seconds.
    time.sleep(1.1)
    one.cluster.rotate_service_ca()
    found = {f.rule: f for f in one.plan().findings}
    assert sorted(found) == ["client-breaks", "old-in-use"]
    assert "ConfigMap copy" in found["client-breaks"].message
    assert "web-" in found["old-in-use"].message
    # Where the operator does not get to it, the leaf itself is older than the CA.
    with world(one.folder / "second", openshift=True, controllers=False) as second:
        bundle = one.live("/api/v1/namespaces/web/configmaps/web-ca")
        second.cluster.load(one.live(SERVICE), old, bundle, one.live("/api/v1/namespaces/web/configmaps/copy"))
        second.write(CERTIFICATE.replace("route: {host: web.example.org}, ", ""))
        assert rules(second) == ["client-breaks", "stale"]


def test_a_client_that_would_break_is_named_before_the_server_changes(one: World) -> None:
    """The old certificate is still in use; the copy works until it is replaced."""
    one.write(objects(WEB, PODS), CERTIFICATE)
    one.settle()
    copy_of_the_bundle(one)
    assert rules(one) == []
    one.cluster.rotate_service_ca()
    (found,) = [f for f in one.plan().findings if f.rule == "client-breaks"]
    assert "fail with the next certificate" in found.message
    assert "inject-cabundle" in found.fix


def test_a_secret_of_somebody_else_is_not_touched_and_said(one: World) -> None:
    meta = {"name": "web-tls", "namespace": "web"}
    theirs = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"password": "eA=="}}
    one.cluster.apply(theirs, manager="somebody")
    one.write(objects(WEB), CERTIFICATE_ALONE)
    result = one.apply()
    assert outcomes(result)["kubernetes.servingCertificate[prod:web:web]"] is Outcome.FAILED
    assert one.live(SECRET)["data"] == {"password": "eA=="}
    assert {"foreign-secret", "generation-error"} <= set(rules(one))


def test_a_cluster_without_the_operator_says_so(tmp_path: Path) -> None:
    with world(tmp_path) as plain:
        plain.write(objects(WEB), CERTIFICATE_ALONE)
        made = plain.plan()
        assert any("this is not an OpenShift cluster" in reason for reason in made.unknown.values())
        assert plain.apply(made).ok
        assert plain.live(SERVICE) is not None


def test_a_ca_of_ones_own_issues_where_there_is_no_operator(tmp_path: Path) -> None:
    authority = (FIXTURES / "contract-ca.pem").read_text()
    with world(tmp_path) as plain:
        plain.environ["CA_KEY"] = (FIXTURES / "contract-ca-key.pem").read_text()
        own = document(
            "ServiceCertificate",
            "web",
            "cluster: prod, namespace: web, service: web, caBundle: web-ca, "
            "issuer: {certificate: ca.pem, key: {secretRef: 'env:CA_KEY'}}",
        )
        plain.write(objects(WEB, PODS), own, **{"ca.pem": authority})
        plain.settle()
        data = {key: base64.b64decode(value).decode() for key, value in plain.live(SECRET)["data"].items()}
        chain = x509.load_pem_x509_certificates(data["tls.crt"].encode())
        chain[0].verify_directly_issued_by(chain[1])
        assert fits(data["tls.key"], certificates(data["tls.crt"])[0])
        assert plain.live("/api/v1/namespaces/web/configmaps/web-ca")["data"] == {"service-ca.crt": authority}
        assert rules(plain) == []
        key = plain.environ["CA_KEY"].splitlines()[1]
        assert key not in repr(plain.events)
        code, _ = plain.cluster.call("DELETE", SECRET)
        assert code == 200
        plain.settle()


def test_a_key_that_is_not_the_cas_is_refused_without_being_shown() -> None:
    authority = (FIXTURES / "contract-ca.pem").read_text()
    made: dict[str, Any] = issue(authority, (FIXTURES / "contract-ca-key.pem").read_text(), ["a.b.svc"], 10)
    with pytest.raises(SecretError, match="not the one of the CA") as caught:
        issue(authority, made["tls.key"], ["a.b.svc"], 10)
    assert "PRIVATE" not in str(caught.value)
    with pytest.raises(SecretError, match="cannot be used"):
        issue(authority, "no key", ["a.b.svc"], 10)


OWN = (
    "cluster: prod, namespace: web, service: web, clients: [theirs], "
    "issuer: {certificate: ca.pem, key: {secretRef: 'env:CA_KEY'}}"
)


def test_a_ca_of_ones_own_is_not_measured_by_openshifts(one: World) -> None:
    """OpenShift keeps its own CA in each namespace; what another CA signed is not older than it."""
    authority = (FIXTURES / "contract-ca.pem").read_text()
    one.environ["CA_KEY"] = (FIXTURES / "contract-ca-key.pem").read_text()
    inject = {"name": "openshift-service-ca.crt", "namespace": "web", "annotations": {f"{BETA}inject-cabundle": "true"}}
    one.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": inject})
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "namespace": "web"}}
    one.cluster.apply({**theirs, "data": {"ca.crt": authority}})
    one.write(objects(WEB, PODS), document("ServiceCertificate", "web", OWN), **{"ca.pem": authority})
    one.settle()
    assert rules(one) == []
    # Clients are looked at without a bundle of ours, too.
    one.cluster.apply({**theirs, "data": {"ca.crt": "rubbish"}})
    (found,) = one.plan().findings
    assert found.rule == "client-breaks"
    assert "inject-cabundle" not in found.fix


def test_a_certificate_for_a_service_that_is_not_there_is_said(tmp_path: Path) -> None:
    with world(tmp_path) as plain:
        plain.environ["CA_KEY"] = (FIXTURES / "contract-ca-key.pem").read_text()
        authority = (FIXTURES / "contract-ca.pem").read_text()
        plain.write(document("ServiceCertificate", "web", OWN), **{"ca.pem": authority})
        assert rules(plain) == []
        assert plain.apply().ok
        assert rules(plain) == ["no-service"]


def test_what_may_not_be_read_is_not_called_absent(one: World) -> None:
    one.write(objects(WEB, PODS), CERTIFICATE)
    one.settle()
    copy_of_the_bundle(one)
    one.cluster.fail_request("GET", "/configmaps/copy", status=403)
    made = one.plan()
    assert not made.findings
    (reason,) = made.unknown.values()
    assert "the login may not show the certificate of web/web" in reason
