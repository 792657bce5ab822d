"""Objects of a cluster as desired state, on an emulator: what a user of Kubernetes meets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.connections.kubernetes import Kubernetes
from reconciler.errors import InvalidInput
from reconciler.model import Action, Outcome
from tests.kubernetes.world import (
    DEPLOYMENTS,
    MAP,
    MAPS,
    ROLLOUT,
    World,
    as_object,
    config_map,
    deployment,
    document,
    objects,
    outcomes,
    shown,
    world,
)

JSON_PATCH = {"content-type": "application/json-patch+json"}


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


def test_items_of_others_do_not_hide_what_they_did_to_ours(one: World) -> None:
    """A volume may be mounted twice and a port be open for UDP as well: names and numbers alone are no keys."""
    inside = "image: x, volumeMounts: [{name: v, mountPath: /a, readOnly: true}]"
    mounted = deployment().replace('image: "registry.example.org/a:1"', inside)
    mounted = mounted.replace("spec: {containers:", "spec: {volumes: [{name: v, emptyDir: {}}], containers:")
    service = (
        "{apiVersion: v1, kind: Service, metadata: {name: dns}, "
        "spec: {selector: {app: web}, ports: [{name: dns, port: 53, targetPort: 5353}]}}"
    )
    one.write(objects(mounted, service))
    one.settle()
    mounts = [{"mountPath": "/a", "name": "v", "readOnly": False}, {"mountPath": "/b", "name": "v"}]
    theirs = {"spec": {"template": {"spec": {"containers": [{"name": "c", "volumeMounts": mounts}]}}}}
    named = {"namespace": "web"}
    one.cluster.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", **named}, **theirs}, manager="them"
    )
    ports = [
        {"port": 53, "protocol": "TCP", "targetPort": 1},
        {"port": 53, "protocol": "UDP", "name": "udp", "targetPort": 1},
    ]
    one.cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns", **named}, "spec": {"ports": ports}},
        manager="them",
    )
    found = " ".join(why for change in one.plan().changes for why in change.why)
    assert "set spec.template.spec.containers[name=c].volumeMounts[mountPath=/a].readOnly" in found
    assert "set spec.ports[port=53,protocol=TCP].targetPort" in found
    one.settle()
    assert len(one.live("/api/v1/namespaces/web/services/dns")["spec"]["ports"]) == 2


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


def test_a_password_that_somebody_rotates_is_left_when_that_is_wanted(one: World) -> None:
    secret = (
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, "
        "stringData: {user: 'app', password: {secretRef: 'env:PASSWORD'}}}"
    ).replace("user: 'app'", "user.crt: app")
    left = "lifecycle: {ignoreChanges: [data.password]}\n"
    one.write(objects(secret, more=left))
    one.settle()
    path = "/api/v1/namespaces/web/secrets/s"
    one.write(objects(secret.replace("crt: app", "crt: web"), more=left))
    one.environ["PASSWORD"] = "ours, changed"
    one.settle()
    assert one.live(path)["data"]["password"] == "Y2FuYXJ5LXNlY3JldC0xMjM="
    theirs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "web"}}
    one.cluster.apply({**theirs, "data": {"password": "dGhlaXJz"}}, manager="rotator")
    one.assert_nothing_to_do()
    one.write(objects(secret.replace("crt: app", "crt: other"), more=left))
    one.settle()
    assert one.live(path)["data"] == {"password": "dGhlaXJz", "user.crt": "b3RoZXI="}


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


def test_an_object_of_which_nobody_knows_who_set_it_is_taken_in_one_go(one: World) -> None:
    """The first apply notes what was there as of somebody; with that, what is dropped later would stay for ever."""
    one.cluster.apply(as_object(config_map(data='theirs: "x", a: "0", b: "2"')), manager="somebody")
    clear = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
    code, live = one.cluster.call("PATCH", f"{MAPS}/c", clear, headers=JSON_PATCH)
    assert code == 200
    assert "managedFields" not in live["metadata"]
    one.write(objects(config_map(data='a: "1", b: "2"')))
    one.settle()
    assert [m["manager"] for m in one.live(f"{MAPS}/c")["metadata"]["managedFields"]] == ["reconciler"]
    one.write(objects(config_map(data='a: "1"')))
    one.settle()
    assert one.live(f"{MAPS}/c")["data"] == {"a": "1", "theirs": "x"}


def test_an_object_with_nothing_in_it_has_no_mark_to_forget(one: World) -> None:
    code, live = one.cluster.call("POST", MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}})
    assert code == 201
    assert "managedFields" not in live["metadata"]
    one.write(objects(config_map()))
    one.settle()


def test_the_mark_of_the_server_goes_and_what_nobody_declares_stays(one: World) -> None:
    one.cluster.apply(as_object(config_map(data='theirs: "x", a: "1"')), manager="somebody")
    clear = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
    one.cluster.call("PATCH", f"{MAPS}/c", clear, headers=JSON_PATCH)
    one.cluster.apply(as_object(config_map(data='more: "y"')), manager="another")
    managers = [m["manager"] for m in one.live(f"{MAPS}/c")["metadata"]["managedFields"]]
    assert managers == ["another", "before-first-apply"]
    one.write(objects(config_map(data='a: "1"')))
    one.settle()
    live = one.live(f"{MAPS}/c")
    assert live["data"] == {"a": "1", "more": "y", "theirs": "x"}
    assert {m["manager"] for m in live["metadata"]["managedFields"]} == {"another", "reconciler"}


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


def test_what_was_never_ours_is_not_deleted_to_make_it_anew(one: World) -> None:
    secret = "{apiVersion: v1, kind: Secret, type: example.org/b, metadata: {name: s}}"
    theirs = {"apiVersion": "v1", "kind": "Secret", "type": "example.org/a", "data": {"key": "eA=="}}
    one.cluster.apply({**theirs, "metadata": {"name": "s", "namespace": "web"}}, manager="somebody")
    one.write(objects(secret))
    made = one.plan()
    assert not made.changes
    (reason,) = made.unknown.values()
    assert "type of Secret web/s cannot be changed in place" in reason
    assert "it does not carry our label reconciler/managed. Delete it yourself." in reason


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
