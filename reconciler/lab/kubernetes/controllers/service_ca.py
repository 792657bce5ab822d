"""OpenShift's service CA: serving certificates for annotated Services, CA bundles into annotated ConfigMaps.

Sources: https://docs.redhat.com/en/documentation/openshift_container_platform (Securing service traffic using service
serving certificate secrets) for what it does, the recorded exchanges for every detail.
"""

from __future__ import annotations

import base64
import copy
from datetime import datetime

from cryptography import x509

from reconciler.lab.kubernetes import certificates
from reconciler.lab.kubernetes.controllers import Cluster
from reconciler.lab.kubernetes.schema import Object

MANAGER = "service-ca-operator"
BETA, ALPHA = "service.beta.openshift.io/", "service.alpha.openshift.io/"
NAME = f"{BETA}serving-cert-secret-name"
INJECT = "inject-cabundle"
ROTATE_BEFORE_DAYS = 395  # of a CA
RENEW_BEFORE_SECONDS = 3600  # of a leaf
TRIES = 10
_OWNER = {"openshift.io/owning-component": "service-ca"}
_BUNDLE_TEXT = (
    "Configmap is added/updated with a data item containing the CA signing bundle that can be used to verify "
    "service-serving certificates"
)


class Authority:
    """The signing CA. Its keys live in the cluster's memory, so that a snapshot keeps them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        if "service_ca" not in cluster.memory:
            key = certificates.new_key()
            name = f"openshift-service-serving-signer@{int(cluster.time)}"
            certificate = certificates.authority(name, key, key, cluster.time)
            pem = certificates.pem(certificate)
            cluster.memory["service_ca"] = {
                "name": name,
                "key": certificates.key_pem(key),
                "certificate": pem,
                "intermediates": "",  # the CA's key, signed by the CA before it
                "bundle": pem,
            }
        self.kept: dict[str, str] = cluster.memory["service_ca"]

    @property
    def name(self) -> str:
        """Its common name; a rotation keeps it."""
        return self.kept["name"]

    @property
    def certificate(self) -> x509.Certificate:
        """Its own certificate."""
        return x509.load_pem_x509_certificate(self.kept["certificate"].encode())

    def rotate(self) -> None:
        """A new key of the same name. Old and new vouch for each other."""
        old = certificates.read_key(self.kept["key"])
        key = certificates.new_key()
        at = self.cluster.time
        certificate = certificates.authority(self.name, key, key, at)
        new_by_old = certificates.authority(self.name, key, old, at)
        old_by_new = certificates.authority(self.name, old, key, at)
        self.kept.update(
            key=certificates.key_pem(key),
            certificate=certificates.pem(certificate),
            intermediates=certificates.pem(new_by_old),
            bundle=certificates.pem(certificate, old_by_new),
        )

    def issue(self, service: Object) -> tuple[str, str, datetime]:
        """Chain and key for a Service, and when the leaf expires."""
        meta = service["metadata"]
        host = f"{meta['name']}.{meta['namespace']}.svc"
        names = [host, f"{host}.cluster.local"]
        if service["spec"].get("clusterIP") == "None":
            names = [f"*.{host}", f"*.{host}.cluster.local", *names]
        key = certificates.new_key()
        signer = certificates.read_key(self.kept["key"])
        leaf = certificates.serving(names, meta["uid"], key, self.name, signer, self.cluster.time)
        chain = certificates.pem(leaf) + self.kept["certificate"] + self.kept["intermediates"]
        return chain, certificates.key_pem(key), leaf.not_valid_after_utc


def rotate(cluster: Cluster) -> None:
    """Rotates the CA now."""
    Authority(cluster).rotate()


def service_ca(cluster: Cluster) -> float | None:
    """Looks after certificates and bundles, and rotates the CA in time."""
    services = [one for one in cluster.store.view("/services") if NAME in (one["metadata"].get("annotations") or {})]
    maps = [one for one in cluster.store.view("/configmaps") if _wants_bundle(one)]
    if not services and not maps:
        return None
    authority = Authority(cluster)
    end = authority.certificate.not_valid_after_utc.timestamp() - ROTATE_BEFORE_DAYS * 86400
    if cluster.time >= end:
        authority.rotate()
    for service in services:
        _serve(cluster, authority, service)
    for config_map in maps:
        _inject(cluster, authority, config_map)
    return None


def _wants_bundle(config_map: Object) -> bool:
    annotations = config_map["metadata"].get("annotations") or {}
    return "true" in (annotations.get(BETA + INJECT), annotations.get(ALPHA + INJECT))


def _inject(cluster: Cluster, authority: Authority, old: Object) -> None:
    annotations = old["metadata"]["annotations"]
    wanted = {**annotations, "openshift.io/description": _BUNDLE_TEXT, **_OWNER}
    data = {"service-ca.crt": authority.kept["bundle"]}
    if old.get("data") == data and annotations == wanted:
        return
    new = copy.deepcopy(old)
    new["data"] = data
    new.pop("binaryData", None)
    new["metadata"]["annotations"] = wanted
    cluster.writes.controller_update(cluster.resource("", "configmaps"), old, new, MANAGER)


def _serve(cluster: Cluster, authority: Authority, service: Object) -> None:
    meta = service["metadata"]
    annotations = meta["annotations"]
    if "deletionTimestamp" in meta or int(annotations.get(f"{BETA}serving-cert-generation-error-num", "0")) >= TRIES:
        return
    name = annotations[NAME]
    secrets = cluster.resource("", "secrets")
    secret = cluster.store.get(secrets.place, meta["namespace"], name)
    if secret is None:
        value = _secret(cluster, authority, service, name)
        cluster.writes.controller_create(secrets, value, MANAGER)
    elif (secret["metadata"].get("annotations") or {}).get(f"{BETA}originating-service-uid") != meta["uid"]:
        _fail(cluster, service, name)
        return
    elif not _good(cluster, authority, secret):
        fresh = _secret(cluster, authority, service, name)
        new = copy.deepcopy(secret)
        new["data"] = fresh["data"]
        new["metadata"]["annotations"] = {
            **(secret["metadata"].get("annotations") or {}),
            **fresh["metadata"]["annotations"],
        }
        cluster.writes.controller_update(secrets, secret, new, MANAGER)
    elif set(secret.get("data") or {}) != {"tls.crt", "tls.key"}:
        new = copy.deepcopy(secret)
        new["data"] = {key: secret["data"][key] for key in ("tls.crt", "tls.key")}
        cluster.writes.controller_update(secrets, secret, new, MANAGER)
    _sign(cluster, authority, service)


def _sign(cluster: Cluster, authority: Authority, service: Object) -> None:
    annotations = service["metadata"]["annotations"]
    errors = ("serving-cert-generation-error", "serving-cert-generation-error-num")
    wanted = {
        key: value
        for key, value in annotations.items()
        if key not in {prefix + error for prefix in (ALPHA, BETA) for error in errors}
    }
    wanted |= {prefix + "serving-cert-signed-by": authority.name for prefix in (ALPHA, BETA)}
    if wanted != annotations:
        _annotate(cluster, service, wanted)


def _fail(cluster: Cluster, service: Object, secret: str) -> None:
    meta = service["metadata"]
    tries = int(meta["annotations"].get(f"{BETA}serving-cert-generation-error-num", "0")) + 1
    text = f"secret {meta['namespace']}/{secret} does not have corresponding service UID {meta['uid']}"
    wanted = dict(meta["annotations"])
    for prefix in (ALPHA, BETA):
        wanted[f"{prefix}serving-cert-generation-error"] = text
        wanted[f"{prefix}serving-cert-generation-error-num"] = str(tries)
    _annotate(cluster, service, wanted)


def _annotate(cluster: Cluster, service: Object, annotations: dict[str, str]) -> None:
    new = copy.deepcopy(service)
    new["metadata"]["annotations"] = annotations
    cluster.writes.controller_update(cluster.resource("", "services"), service, new, MANAGER)


def _good(cluster: Cluster, authority: Authority, secret: Object) -> bool:
    """Whether a certificate can be read, is of the CA's present key, and does not run out."""
    data = secret.get("data") or {}
    try:
        leaf = x509.load_pem_x509_certificates(base64.b64decode(data["tls.crt"]))[0]
        key = certificates.read_key(base64.b64decode(data["tls.key"]).decode())
        signed_by = certificates.signer_id(leaf)
    except (KeyError, ValueError, UnicodeDecodeError, x509.ExtensionNotFound):
        return False
    if key.public_key() != leaf.public_key() or signed_by != certificates.key_id(authority.certificate):
        return False
    return cluster.time < leaf.not_valid_after_utc.timestamp() - RENEW_BEFORE_SECONDS


def _secret(cluster: Cluster, authority: Authority, service: Object, name: str) -> Object:
    meta = service["metadata"]
    chain, key, expires = authority.issue(service)
    expiry = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    host = f"{meta['name']}.{meta['namespace']}.svc"
    text = (
        "Secret contains a pair signed serving certificate/key that is generated by Service CA operator for "
        f"service/{meta['name']} with hostname {host} and is annotated to the service with annotating a service "
        f"resource with '{NAME}: {name}'. The certificate is valid for 2 years."
    )
    return {
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "annotations": {
                "openshift.io/description": text,
                **_OWNER,
                f"{ALPHA}expiry": expiry,
                f"{BETA}expiry": expiry,
                f"{BETA}originating-service-name": meta["name"],
                f"{BETA}originating-service-uid": meta["uid"],
            },
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": meta["name"], "uid": meta["uid"]},
            ],
        },
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": base64.b64encode(chain.encode()).decode(),
            "tls.key": base64.b64encode(key.encode()).decode(),
        },
    }
