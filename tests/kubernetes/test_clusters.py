"""A cluster as a whole: secrets, the way in, import and rehearsals, the sample. On an emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.connections.kubernetes import Kubernetes
from reconciler.discover import discover, text_of
from reconciler.errors import ConnectError, ProbeFailed
from reconciler.kinds.kubernetes_manifest import manifest_of
from reconciler.model import Get, Outcome
from reconciler.planfile import from_text, to_text
from reconciler.registry import default
from tests.kubernetes.world import (
    MAPS,
    PASSWORD,
    World,
    as_object,
    config_map,
    deployment,
    objects,
    shown,
    world,
)

ROUTE = "/apis/route.openshift.io/v1/namespaces/web/routes/webapp"


# ------------------------------------------------------------------------------------------------ secrets


def test_secrets_reach_the_cluster_and_nothing_else(one: World, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {password: {secretRef: 'env:PASSWORD'}}}"
    one.write(objects(secret))
    one.settle()
    live = one.live("/api/v1/namespaces/web/secrets/s")
    assert live["data"] == {"password": "Y2FuYXJ5LXNlY3JldC0xMjM="}
    assert not any("stringData" in json.dumps(m) for m in live["metadata"]["managedFields"])
    evil = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "web"}}
    one.cluster.apply({**evil, "data": {"password": "ZXZpbCBzZWNyZXQ="}}, manager="evil")
    made = one.plan()
    text = shown(made, capsys) + to_text(made)
    for canary in (PASSWORD, "Y2FuYXJ5", "evil secret", "ZXZpbCBz"):
        assert canary not in text
        assert canary not in repr(one.events)
        for file in (one.folder / "state").rglob("*"):
            assert not file.is_file() or canary.encode() not in file.read_bytes()
    assert "set data.password" in text
    result = one.apply(from_text(to_text(made), default()))
    assert result.ok, result.ended
    one.assert_nothing_to_do()


def test_a_refusal_does_not_quote_a_secret(one: World) -> None:
    one.write(
        objects(
            "{apiVersion: v1, kind: Service, metadata: {name: s}, "
            "spec: {type: {secretRef: 'env:PASSWORD'}, ports: [{port: 80}]}}"
        )
    )
    (reason,) = one.plan().unknown.values()
    assert "(secret)" in reason
    assert PASSWORD not in reason


# ------------------------------------------------------------------------------------------------ the connection


def test_what_is_wrong_with_the_way_in_is_said(tmp_path: Path) -> None:
    def read(**settings: Any) -> str:
        with pytest.raises(ConnectError) as caught:
            Kubernetes("prod", settings, lambda secret: "wrong").read([Get("/api/v1")])
        return str(caught.value)

    token = {"secretRef": "env:T"}
    with world(tmp_path, tls=True) as one:
        ca = tmp_path / "ca.pem"
        ca.write_text(one.cluster.ca_pem)
        assert "401" in read(server=one.cluster.url, token=token, ca=str(ca))
        assert "does not prove who it is" in read(server=one.cluster.url, token=token)
        kubeconfig = one.cluster.write_kubeconfig(tmp_path / "config")
        assert "cannot be read" in read(kubeconfig=str(kubeconfig), context="none")
        connection = Kubernetes("prod", {"kubeconfig": str(kubeconfig)}, lambda secret: "")
        assert connection.read([Get("/api/v1")])[0].status == 0
        url = one.cluster.url
    assert "does not answer" in read(server=url.replace("https", "http"), token=token)
    assert "cannot be read" in read(kubeconfig=str(tmp_path / "none"))


def test_an_answer_that_is_lost_is_looked_for_and_nothing_is_sent_twice(one: World) -> None:
    one.write(objects(config_map()))
    one.cluster.fail_request("PATCH", "/configmaps/c\\?fieldManager=reconciler&force=false", status=0, broken="after")
    result = one.apply()
    assert result.ok, result.ended
    assert one.writes().count(("PATCH", f"{MAPS}/c")) == 1
    one.assert_nothing_to_do()


def test_a_busy_server_is_asked_again(one: World) -> None:
    one.write(objects(config_map()))
    one.cluster.fail_request("GET", "/api/v1$", status=429, retry_after=0)
    one.cluster.fail_request("PATCH", "/configmaps/", status=503, retry_after=0)
    one.settle()


def test_a_login_that_may_only_look_is_told_so(tmp_path: Path) -> None:
    with world(tmp_path, users={"admin": "admin-token", "viewer": "viewer-token"}) as one:
        meta: dict[str, Any] = {"metadata": {"name": "viewer"}}
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]
        version = {"apiVersion": "rbac.authorization.k8s.io/v1"}
        one.cluster.apply({**version, "kind": "ClusterRole", **meta, "rules": rules})
        bound = {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "viewer"},
            "subjects": [{"kind": "User", "name": "viewer", "apiGroup": "rbac.authorization.k8s.io"}],
        }
        one.cluster.apply({**version, "kind": "ClusterRoleBinding", **meta, **bound})
        one.user = "viewer"
        one.write(objects(config_map()))
        assert "a dry run needs the right, too" in next(iter(one.plan().unknown.values()))


def test_a_plan_only_looks(one: World) -> None:
    one.write(objects(config_map(), deployment()))
    before = len(one.cluster.log)
    one.plan()
    new = one.cluster.log[before:]
    assert new
    assert all(method == "GET" or "dryRun=All" in path for method, path, _ in new)


# ------------------------------------------------------------------------------------------------ import


def test_live_objects_become_documents_whose_plan_is_empty(one: World) -> None:
    for text in (config_map("kept"), deployment("app", replicas=1)):
        one.cluster.apply(as_object(text), manager="helm")
    service = (
        "{apiVersion: v1, kind: Service, metadata: {name: app}, spec: {selector: {app: web}, ports: [{port: 80}]}}"
    )
    one.cluster.apply(as_object(service), manager="helm")
    legacy = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "legacy"}, "data": {"a": "x"}}
    one.cluster.call("POST", f"{MAPS}?fieldManager=kubectl-client-side-apply", legacy)
    one.cluster.settle(0.5)
    one.write()
    project = one.project()
    catalog = project.validate()
    target = project.desired(catalog).targets["prod"]
    with project.pool({"prod": target}, read_only=True) as pool:
        found, left = discover(target, catalog, pool.get("prod").read, ["KubernetesManifest"])
    assert not left
    assert sorted(f.name for f in found) == [
        "prod-namespace-web",
        "prod-web-configmap-kept",
        "prod-web-configmap-legacy",
        "prod-web-deployment-app",
        "prod-web-service-app",
    ]
    one.write(text_of(found))
    made = one.plan()
    assert not made.unknown
    assert [(c.address, c.differences) for c in made.changes] == []
    assert len(made.adopt) == len(found)


def test_a_login_that_may_list_nothing_does_not_find_nothing(tmp_path: Path) -> None:
    with world(tmp_path, users={"admin": "admin-token", "nobody": "nobody-token"}) as one:
        one.user = "nobody"
        one.write()
        project = one.project()
        catalog = project.validate()
        target = project.desired(catalog).targets["prod"]
        with project.pool({"prod": target}, read_only=True) as pool, pytest.raises(ProbeFailed, match="may not list"):
            discover(target, catalog, pool.get("prod").read, ["KubernetesManifest"])


def test_what_the_cluster_wrote_itself_is_not_imported(tmp_path: Path) -> None:
    """The marks of the service CA and a host that was made up would be fought for, or be wrong elsewhere."""
    named = {"service.beta.openshift.io/serving-cert-secret-name": "webapp-tls"}
    service = {"selector": {"app": "webapp"}, "ports": [{"name": "https", "port": 8443}]}
    route = {"to": {"kind": "Service", "name": "webapp"}, "tls": {"termination": "reencrypt", "key": PASSWORD}}
    with world(tmp_path, openshift=True) as one:
        for version, kind, annotations, spec in (
            ("v1", "Service", named, service),
            ("route.openshift.io/v1", "Route", {"example.org/team": "a"}, route),
        ):
            metadata = {"name": "webapp", "namespace": "web", "annotations": annotations}
            one.cluster.apply({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}, manager="oc")
        one.cluster.settle(1)
        live = one.live("/api/v1/namespaces/web/services/webapp")
        assert "service.beta.openshift.io/serving-cert-signed-by" in live["metadata"]["annotations"]
        found = {manifest["kind"]: manifest for manifest in map(manifest_of, (live, one.live(ROUTE)))}
        assert found["Service"]["metadata"]["annotations"] == named
        assert found["Route"]["metadata"]["annotations"] == {"example.org/team": "a"}
        assert "host" not in found["Route"]["spec"]
        assert PASSWORD not in repr(found)
        one.write(objects(*(json.dumps(manifest) for manifest in found.values())))
        one.settle()
        assert one.live(ROUTE)["spec"]["host"] == "webapp-web.apps.test.example.com"


# ------------------------------------------------------------------------------------------------ rehearsals


def test_a_plan_is_rehearsed_on_a_likeness_and_the_cluster_is_not_touched(tmp_path: Path) -> None:
    from reconciler.rehearse import rehearse

    definition = (
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: "
        "{name: crontabs.stable.example.com}, spec: {group: stable.example.com, scope: Namespaced, "
        "names: {plural: crontabs, kind: CronTab}, versions: [{name: v1, served: true, storage: true, "
        "schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}"
    )
    custom = "{apiVersion: stable.example.com/v1, kind: CronTab, metadata: {name: t}, spec: {n: 1}}"
    with world(tmp_path, openshift=True) as one:
        one.write(objects(config_map(), deployment(), definition, custom))
        one.settle()
        before = one.writes()
        one.write(
            objects(config_map(data='a: "2"'), deployment(label="other"), definition, custom.replace("n: 1", "n: 2"))
        )
        rehearsal = rehearse(one.project())
        assert len(rehearsal.live.changes) == 3
        assert not rehearsal.failed
        assert rehearsal.converges
        assert not rehearsal.unseen
        assert one.writes() == before
        assert one.live(f"{MAPS}/c")["data"] == {"a": "1"}


def test_the_sample_data_centre_is_made_and_then_nothing_is_left(tmp_path: Path) -> None:
    from reconciler.lab.stage import Stage
    from reconciler.project import Project
    from tests.contract.tables import AnyEnvironment

    project = Project(Path(__file__).parents[2] / "desired-state" / "kubernetes", tmp_path / "state")
    project.secrets._environ = AnyEnvironment()
    stage = Stage(tmp_path, project.validate(), project.secrets.reveal)
    project.retarget = stage.stand_in
    try:
        made = project.plan()
        assert len({c.resource.target for c in made.changes}) == 2
        with project.pool(made.targets) as pool:
            result = project.apply(made, pool)
        assert result.ok, {a: e for a, e in result.ended.items() if e.outcome is not Outcome.DONE}
        again = project.plan()
        assert not again.changes
        assert not again.unknown
        assert not again.findings
    finally:
        stage.close()
