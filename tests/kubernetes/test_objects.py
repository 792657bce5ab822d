"""Objects of a cluster as desired state, on an emulator: what a user of Kubernetes meets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.connections.kubernetes import Kubernetes
from reconciler.discover import discover, text_of
from reconciler.errors import ConnectError, InvalidInput
from reconciler.model import Action, Get, Outcome
from reconciler.planfile import from_text, to_text
from reconciler.registry import default
from reconciler.render.terminal import console, show_plan
from tests.kubernetes.world import (
    PASSWORD,
    World,
    as_object,
    config_map,
    deployment,
    document,
    objects,
    outcomes,
    world,
)

MAPS = "/api/v1/namespaces/web/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/web/deployments"
MAP = "kubernetes.object[prod:v1:ConfigMap:web:c]"
ROLLOUT = "kubernetes.object[prod:apps/v1:Deployment:web:web]"


@pytest.fixture
def one(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def shown(made: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """A plan as people see it."""
    capsys.readouterr()
    show_plan(made, default(), console())
    return capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ drift and owners


def test_each_field_that_another_manager_changed_is_named_with_that_manager_and_repaired(
    one: World, capsys: pytest.CaptureFixture[str]
) -> None:
    one.write(objects(config_map(data='a: "1", b: "2"'), deployment()))
    one.settle()
    one.cluster.apply(as_object(config_map(data='a: "5"')), manager="kubectl-edit")
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "web"}}
    one.cluster.apply({**patch, "spec": {"replicas": 7}}, manager="autoscaler")
    inside = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "registry.example.org/a:9"}]}}}}
    one.cluster.apply({**patch, **inside}, manager="ci")
    made = one.plan()
    assert sorted(made.drifted) == sorted([ROLLOUT, MAP])
    by_address = {c.address: c for c in made.changes}
    assert by_address[MAP].differences[0].before["data.a"] == "5"
    assert by_address[MAP].differences[0].after["data.a"] == "1"
    text = shown(made, capsys)
    assert "kubectl-edit (" in text
    assert ") set data.a\n" in text
    assert ") set spec.replicas\n" in text
    assert ") set spec.template.spec.containers[name=c].image\n" in text
    assert "> apply Deployment web/web: spec.replicas, spec.template.spec.containers[name=c].image" in text
    one.settle()
    assert one.live(f"{DEPLOYMENTS}/web")["spec"]["replicas"] == 2


def test_fields_that_others_own_on_purpose_are_left(one: World) -> None:
    """By `ignoreChanges`; what is not declared is left anyhow."""
    one.write(objects(deployment(replicas=2), more="lifecycle: {ignoreChanges: [spec.replicas]}\n"))
    one.settle()
    assert one.live(f"{DEPLOYMENTS}/web")["spec"]["replicas"] == 2
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "web"}}
    one.cluster.apply({**patch, "spec": {"replicas": 7}}, manager="autoscaler")
    one.cluster.apply({**patch, "metadata": {**patch["metadata"], "labels": {"team": "x"}}}, manager="others")  # type: ignore[dict-item]
    one.assert_nothing_to_do()
    one.write(
        objects(deployment(image="registry.example.org/a:2"), more="lifecycle: {ignoreChanges: [spec.replicas]}\n")
    )
    made = one.plan()
    assert [c.address for c in made.changes] == [ROLLOUT]
    one.settle()
    live = one.live(f"{DEPLOYMENTS}/web")
    assert live["spec"]["replicas"] == 7
    assert live["metadata"]["labels"]["team"] == "x"
    with pytest.raises(InvalidInput, match=r"Did you mean spec\.replicas\?"):
        one.write(objects(deployment(), more="lifecycle: {ignoreChanges: [spec.replica]}\n"))
        one.plan()


def test_a_field_that_is_left_stays_as_it_is_where_nobody_took_it(one: World) -> None:
    """Dropping an owned `replicas` would set it to 1."""
    one.write(objects(deployment(replicas=3), more="lifecycle: {ignoreChanges: [spec.replicas]}\n"))
    one.settle()
    one.write(
        objects(
            deployment(replicas=9, image="registry.example.org/a:2"),
            more="lifecycle: {ignoreChanges: [spec.replicas]}\n",
        )
    )
    one.settle()
    assert one.live(f"{DEPLOYMENTS}/web")["spec"]["replicas"] == 3


def test_what_others_own_is_said_where_that_is_wanted(one: World) -> None:
    wanted = objects(
        deployment(replicas=2), spec="reportOthers: true,", more="lifecycle: {ignoreChanges: [spec.replicas]}\n"
    )
    one.write(wanted)
    one.settle()
    assert not one.plan().findings
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "web"}}
    one.cluster.apply({**patch, "spec": {"replicas": 7, "minReadySeconds": 5}}, manager="autoscaler")
    one.assert_nothing_to_do()
    found = {f.rule: f.message for f in one.plan().findings}
    assert found["left-to-others"] == "spec.replicas of Deployment web/web is 7, as autoscaler set it, and is left so."
    assert "autoscaler added spec.minReadySeconds to Deployment web/web" in found["foreign-field"]


def test_conflicts_that_shall_fail_are_named_in_the_plan_and_refused(
    one: World, capsys: pytest.CaptureFixture[str]
) -> None:
    one.write(objects(config_map(), spec="conflicts: fail,"))
    one.settle()
    one.cluster.apply(as_object(config_map(data='a: "5"')), manager="kubectl-edit")
    made = one.plan()
    assert "set data.a; `conflicts: fail` lets the apply fail" in shown(made, capsys)
    result = one.apply(made)
    assert outcomes(result) == {MAP: Outcome.FAILED}
    assert 'conflict with "kubectl-edit"' in result.ended[MAP].reason
    assert one.live(f"{MAPS}/c")["data"] == {"a": "5"}


def test_what_is_not_declared_any_more_goes_and_is_named(one: World, capsys: pytest.CaptureFixture[str]) -> None:
    one.write(objects(config_map(data='a: "1", b: "2"')))
    one.settle()
    one.cluster.apply(as_object(config_map(data='theirs: "x"')), manager="others")
    one.write(objects(config_map(data='a: "1"')))
    made = one.plan()
    assert "because data.b is not declared any more" in shown(made, capsys)
    one.settle()
    assert one.live(f"{MAPS}/c")["data"] == {"a": "1", "theirs": "x"}


def test_fields_of_client_side_apply_are_taken_over_so_that_dropped_ones_go(
    one: World, capsys: pytest.CaptureFixture[str]
) -> None:
    last = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    old = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "annotations": last}}
    path = f"{MAPS}?fieldManager=kubectl-client-side-apply"
    code, _ = one.cluster.call("POST", path, {**old, "data": {"a": "1", "gone": "x"}})
    assert code == 201
    one.write(objects(config_map(), spec="clientSideFields: leave,"))
    one.assert_nothing_to_do()
    one.write(objects(config_map()))
    made = one.plan()
    text = shown(made, capsys)
    assert "a client-side tool owns fields, which are taken over; " in text
    assert "data.gone" in text
    one.settle()
    live = one.live(f"{MAPS}/c")
    assert live["data"] == {"a": "1"}
    assert "annotations" not in live["metadata"]
    assert {m["manager"] for m in live["metadata"]["managedFields"]} == {"reconciler"}


# ------------------------------------------------------------------------------------------------ guards


def test_what_changed_between_plan_and_apply_is_not_overwritten(one: World) -> None:
    one.write(objects(config_map()))
    one.settle()
    one.write(objects(config_map(data='a: "2"')))
    made = one.plan()
    one.cluster.apply(as_object(config_map(data='a: "9"')), manager="kubectl-edit")
    result = one.apply(made)
    assert outcomes(result) == {MAP: Outcome.FAILED}
    assert "changed since the plan was made" in result.ended[MAP].reason
    assert one.live(f"{MAPS}/c")["data"] == {"a": "9"}


def test_somebody_who_is_faster_makes_us_look_again(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the last look and the request: 409, and then the change is decided anew."""
    one.write(objects(config_map()))
    one.settle()
    one.write(objects(config_map(data='a: "2"')))
    inner, left = Kubernetes._step, [1]

    def meanwhile(self: Kubernetes, *args: Any) -> Any:
        if left:
            left.clear()
            one.cluster.apply(as_object(config_map(data='theirs: "x"')), manager="others")
        return inner(self, *args)

    monkeypatch.setattr(Kubernetes, "_step", meanwhile)
    one.settle()
    assert one.live(f"{MAPS}/c")["data"] == {"a": "2", "theirs": "x"}
    assert [status for method, path, status in one.cluster.log if method == "PATCH" and "dryRun" not in path][-2:] == [
        409,
        200,
    ]


def test_an_object_that_appeared_meanwhile_is_not_overwritten(one: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one.write(objects(config_map()))
    inner, left = Kubernetes._step, [1]

    def meanwhile(self: Kubernetes, *args: Any) -> Any:
        if left:
            left.clear()
            one.cluster.apply(as_object(config_map(data='a: "theirs"')), manager="others")
        return inner(self, *args)

    monkeypatch.setattr(Kubernetes, "_step", meanwhile)
    result = one.apply()
    assert outcomes(result) == {MAP: Outcome.FAILED}
    assert one.live(f"{MAPS}/c")["data"] == {"a": "theirs"}


def test_prune_takes_only_what_is_ours_and_labelled_and_not_kept(one: World) -> None:
    one.write(objects(*(config_map(name) for name in ("plain", "unlabelled", "kept", "owned"))))
    one.settle()
    one.cluster.apply(as_object(config_map("foreign")), manager="others")
    patches: dict[str, Any] = {
        "unlabelled": [{"op": "remove", "path": "/metadata/labels/reconciler~1managed"}],
        "kept": [{"op": "add", "path": "/metadata/annotations", "value": {"reconciler/keep": "true"}}],
        "owned": [
            {
                "op": "add",
                "path": "/metadata/ownerReferences",
                "value": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "foreign", "uid": "u"}],
            }
        ],
    }
    uid = one.live(f"{MAPS}/foreign")["metadata"]["uid"]
    patches["owned"][0]["value"][0]["uid"] = uid
    for name, patch in patches.items():
        code, body = one.cluster.call(
            "PATCH", f"{MAPS}/{name}", patch, headers={"content-type": "application/json-patch+json"}
        )
        assert code == 200, body
    one.write()
    made = one.plan()
    assert [(c.action, c.address) for c in made.changes] == [
        (Action.DELETE, "kubernetes.object[prod:v1:ConfigMap:web:plain]")
    ]
    assert one.apply(made).ok
    left = {o["metadata"]["name"] for o in one.live(MAPS)["items"]}
    assert left >= {"unlabelled", "kept", "owned", "foreign"}
    assert "plain" not in left


def test_another_version_of_an_api_is_the_same_object(one: World) -> None:
    """What is pruned under the old version would be the object itself."""
    old = "{apiVersion: stable.example.com/v1beta1, kind: CronTab, metadata: {name: t}, spec: {n: 1}}"
    versions = ", ".join(
        f"{{name: {v}, served: true, storage: {s}, schema: {{openAPIV3Schema: {{type: object, "
        "x-kubernetes-preserve-unknown-fields: true}}}"
        for v, s in (("v1beta1", "true"), ("v1", "false"))
    )
    definition = (
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: "
        "{name: crontabs.stable.example.com}, spec: {group: stable.example.com, scope: Namespaced, names: "
        f"{{plural: crontabs, kind: CronTab}}, versions: [{versions}]}}}}"
    )
    one.write(objects(definition, old))
    one.settle()
    one.write(objects(definition, old.replace("v1beta1", "v1")))
    made = one.plan()
    assert not any(c.action is Action.DELETE for c in made.changes)
    assert "another object takes its place" in made.release.values()


# ------------------------------------------------------------------------------------------------ what cannot be


def test_a_kind_that_is_not_served_is_unknown_and_the_rest_is_done(one: World) -> None:
    one.write(objects(config_map(), "{apiVersion: example.org/v1, kind: Widget, metadata: {name: w}}"))
    made = one.plan()
    assert [c.address for c in made.changes] == [MAP]
    (reason,) = made.unknown.values()
    assert "serves no Widget of example.org/v1" in reason
    assert one.apply(made).ok


def test_what_the_server_would_refuse_is_known_when_planning(one: World) -> None:
    bad = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicaz: 2}}"
    one.write(objects(config_map(), bad))
    made = one.plan()
    assert [c.address for c in made.changes] == [MAP]
    assert "replicaz" in next(iter(made.unknown.values()))
    one.write(document("KubernetesManifest", "lost", f"cluster: prod, namespace: nowhere, objects: [{config_map()}]"))
    assert "there is no namespace nowhere" in next(iter(one.plan().unknown.values()))


def test_warnings_of_the_server_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with world(tmp_path, openshift=True) as one:
        label = {"pod-security.kubernetes.io/warn": "restricted"}
        one.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web", "labels": label}})
        one.write(objects(deployment()))
        made = one.plan()
        assert "because the server warns: would violate PodSecurity" in shown(made, capsys)
        one.apply(made)
        warned = [f["output"] for event, f in one.events if event == "step_finished"]
        assert any("would violate PodSecurity" in text for text in warned)


def test_what_cannot_be_changed_in_place_is_made_anew_or_said(one: World, capsys: pytest.CaptureFixture[str]) -> None:
    one.write(objects(deployment()))
    one.settle()
    uid = one.live(f"{DEPLOYMENTS}/web")["metadata"]["uid"]
    one.write(objects(deployment(label="other"), spec="immutable: fail,"))
    assert "cannot be changed in place" in next(iter(one.plan().unknown.values()))
    one.write(objects(deployment(label="other")))
    made = one.plan()
    assert [c.action for c in made.changes] == [Action.REPLACE]
    assert made.changes[0].risk is not None
    assert "spec.selector.matchLabels.app cannot be changed in place" in shown(made, capsys)
    one.settle()
    assert one.live(f"{DEPLOYMENTS}/web")["metadata"]["uid"] != uid


def test_a_rollout_that_hangs_is_a_failure(tmp_path: Path) -> None:
    from reconciler.types.kubernetes.readiness import readiness

    with world(tmp_path, pod_start_seconds=0.0) as one:
        stuck = deployment().replace(
            "template: {metadata: {", "template: {metadata: {annotations: {fake/state: never-ready}, "
        )
        stuck = stuck.replace("replicas: 2,", "replicas: 2, progressDeadlineSeconds: 1,")
        one.write(objects(stuck))
        result = one.apply()
        assert outcomes(result) == {ROLLOUT: Outcome.FAILED}
        assert "it does not work: ProgressDeadlineExceeded" in result.ended[ROLLOUT].reason
        verdict, reason = readiness(one.live(f"{DEPLOYMENTS}/web"))
        assert verdict == "failed"
        assert "ProgressDeadlineExceeded" in reason


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
