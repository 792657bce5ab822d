"""The emulator as its users see it: by the Python client, by snapshots, by its clock."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from kubernetes import config, dynamic
from kubernetes.client import api_client
from kubernetes.dynamic.exceptions import ConflictError, ForbiddenError, NotFoundError, UnprocessibleEntityError

from reconciler.lab.kubernetes import KubernetesEmulator, ManualClock, certificates

DAY = 86400


def service(name: str = "web", secret: str = "web-tls", **spec: Any) -> dict[str, Any]:
    annotation = {"service.beta.openshift.io/serving-cert-secret-name": secret}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "annotations": annotation},
        "spec": {"selector": {"app": name}, "ports": [{"name": "https", "port": 8443}], **spec},
    }


def deployment(
    name: str = "web", replicas: int = 2, image: str = "registry.example.com/app:1", **pod: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image}], **pod},
            },
        },
    }


def conditions(value: dict[str, Any] | None) -> dict[str, tuple[str, str]]:
    assert value is not None
    return {one["type"]: (one["status"], one["reason"]) for one in value["status"].get("conditions") or []}


def certificate(secret: dict[str, Any] | None) -> x509.Certificate:
    assert secret is not None
    return x509.load_pem_x509_certificates(base64.b64decode(secret["data"]["tls.crt"]))[0]


@pytest.fixture
def plain() -> Iterator[KubernetesEmulator]:
    with KubernetesEmulator(clock=ManualClock()) as emulator:
        yield emulator


@pytest.fixture
def openshift() -> Iterator[KubernetesEmulator]:
    with KubernetesEmulator(openshift=True, clock=ManualClock()) as emulator:
        yield emulator


def untyped(function: Any) -> Any:
    """The client's package has types, but not for these."""
    return function


def client(emulator: KubernetesEmulator, tmp_path: Path, user: str = "admin") -> Any:
    path = emulator.write_kubeconfig(tmp_path / f"{user}.json", user)
    loaded = untyped(config.new_client_from_config)(str(path))
    return untyped(dynamic.DynamicClient)(loaded, cache_file=str(tmp_path / f"{user}-discovery.json"))


def test_the_python_client_discovers_applies_and_reads(plain: KubernetesEmulator, tmp_path: Path) -> None:
    api = client(plain, tmp_path)
    maps = api.resources.get(api_version="v1", kind="ConfigMap")
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default"},
        "data": {"a": "1"},
    }
    made = maps.server_side_apply(body=body, name="c", namespace="default", field_manager="one")
    assert made.metadata.managedFields[0].manager == "one"
    assert maps.get(name="c", namespace="default").data.a == "1"
    body["data"] = {"a": "2"}
    with pytest.raises(ConflictError) as refused:
        maps.server_side_apply(body=body, name="c", namespace="default", field_manager="two")
    causes = json.loads(refused.value.body or "{}")["details"]["causes"]
    assert causes == [{"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}]
    maps.server_side_apply(
        body=body, name="c", namespace="default", field_manager="two", force_conflicts=True, dry_run="All"
    )
    assert maps.get(name="c", namespace="default").data.a == "1"
    with pytest.raises(NotFoundError):
        maps.get(name="nosuch", namespace="default")
    with pytest.raises(UnprocessibleEntityError):
        maps.create(body={"metadata": {"name": "Bad_Name"}}, namespace="default")


def test_the_python_client_watches(plain: KubernetesEmulator, tmp_path: Path) -> None:
    api = client(plain, tmp_path)
    maps = api.resources.get(api_version="v1", kind="ConfigMap")
    begin = maps.get(namespace="default").metadata.resourceVersion
    writer = threading.Thread(target=lambda: plain.call("POST", "/api/v1/namespaces/default/configmaps", named("late")))
    writer.start()
    events = [
        (event["type"], event["object"].metadata.name)
        for event in maps.watch(namespace="default", resource_version=begin, timeout=2)
    ]
    writer.join()
    assert events == [("ADDED", "late")]


def named(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}}


def test_tls_with_an_own_ca(tmp_path: Path) -> None:
    with KubernetesEmulator(tls=True) as emulator:
        assert emulator.url.startswith("https://127.0.0.1:")
        api = client(emulator, tmp_path)
        names = api.resources.get(api_version="v1", kind="Namespace").get().items
        assert "default" in [one.metadata.name for one in names]
        path = emulator.write_kubeconfig(tmp_path / "k.json")
        assert path.stat().st_mode & 0o077 == 0


def test_users_have_the_rights_of_their_roles(tmp_path: Path) -> None:
    users = {"admin": "a", "eve": "e"}
    with KubernetesEmulator(users=users, clock=ManualClock()) as emulator:
        rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}
        rbac = "rbac.authorization.k8s.io"
        subject = {"kind": "User", "name": "eve", "apiGroup": rbac}
        emulator.apply(
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": [rule]},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "r"},
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "r"},
                "subjects": [subject],
            },
        )
        maps = client(emulator, tmp_path, "eve").resources.get(api_version="v1", kind="ConfigMap")
        assert [one.metadata.name for one in maps.get(namespace="default").items] == ["kube-root-ca.crt"]
        with pytest.raises(ForbiddenError):
            maps.create(body=named("c"), namespace="default")


def test_the_log_tells_reads_from_writes(plain: KubernetesEmulator, tmp_path: Path) -> None:
    api = client(plain, tmp_path)
    maps = api.resources.get(api_version="v1", kind="ConfigMap")
    plain.log.clear()
    maps.get(namespace="default")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    maps.server_side_apply(body=body, name="c", namespace="default", field_manager="one", dry_run="All")
    assert [(method, code) for method, _, code in plain.log] == [("GET", 200), ("PATCH", 201)]
    assert "dryRun=All" in plain.log[1][1]


def test_a_snapshot_is_json_and_can_be_gone_on_with(openshift: KubernetesEmulator) -> None:
    openshift.apply(service())
    before = openshift.get("/api/v1/namespaces/default/secrets/web-tls")
    state = json.loads(json.dumps(openshift.snapshot()))
    with KubernetesEmulator(openshift=True, clock=ManualClock(), state=state) as other:
        assert other.get("/api/v1/namespaces/default/secrets/web-tls") == before
        other.apply(service("more", "more-tls"))
        leaf = certificate(other.get("/api/v1/namespaces/default/secrets/more-tls"))
        assert certificates.signer_id(leaf) == certificates.signer_id(certificate(before))
        assert openshift.get("/api/v1/namespaces/default/secrets/more-tls") is None
        code, answer = other.call(
            "GET", "/api/v1/namespaces/default/secrets?watch=true&resourceVersion=1&timeoutSeconds=1"
        )
        assert (code, answer[0]["object"]["code"]) == (200, 410), "history is not part of a snapshot"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"format": "else"}, "not a snapshot"),
        ({"format": "reconciler/kubernetes-emulator/v1", "openshift": True}, "another flavour"),
    ],
)
def test_a_foreign_snapshot_is_refused(state: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KubernetesEmulator(state=state)


def test_a_rollout_needs_time(plain: KubernetesEmulator) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments/web"
    plain.apply(deployment())
    assert conditions(plain.get(path))["Available"] == ("False", "MinimumReplicasUnavailable")
    plain.settle(1)
    done = plain.get(path)
    assert conditions(done) == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    pods = plain.get("/api/v1/namespaces/default/pods")
    assert pods is not None
    assert [one["status"]["phase"] for one in pods["items"]] == ["Running", "Running"]


def test_a_rollout_that_gets_stuck_says_so(plain: KubernetesEmulator) -> None:
    value = deployment()
    value["spec"]["template"]["metadata"]["annotations"] = {"fake/state": "never-ready"}
    plain.apply(value)
    plain.settle(599)
    path = "/apis/apps/v1/namespaces/default/deployments/web"
    assert conditions(plain.get(path))["Progressing"][0] == "True"
    plain.settle(2)
    assert conditions(plain.get(path))["Progressing"] == ("False", "ProgressDeadlineExceeded")


def test_recreate_never_runs_old_and_new_together(plain: KubernetesEmulator) -> None:
    value = deployment()
    value["spec"]["strategy"] = {"type": "Recreate"}
    plain.apply(value)
    plain.settle(1)
    begin = plain.api.store.revision
    value["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/app:2"
    plain.apply(value)
    plain.settle(1)
    running: set[tuple[str, str]] = set()
    for pod in plain.api.store.all("/pods", at=begin):
        running.add((pod["metadata"]["name"], pod["spec"]["containers"][0]["image"]))
    for change in plain.api.store.since(begin, "/pods"):
        entry = (change.name, change.after["spec"]["containers"][0]["image"])
        running.discard(entry) if change.type == "DELETED" else running.add(entry)
        assert len({image for _, image in running}) <= 1
    assert {image for _, image in running} == {"registry.example.com/app:2"}


def test_an_older_template_again_is_the_newest_revision(plain: KubernetesEmulator) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments/web"
    for number in (1, 2, 1):
        plain.apply(deployment(image=f"registry.example.com/app:{number}"))
        plain.settle(1000)
        assert conditions(plain.get(path))["Progressing"] == ("True", "NewReplicaSetAvailable")
    done = plain.get(path)
    assert done is not None
    assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    pods = plain.get("/api/v1/namespaces/default/pods")
    assert pods is not None
    images = {one["spec"]["containers"][0]["image"] for one in pods["items"]}
    assert images == {"registry.example.com/app:1"}


def test_openshift_refuses_a_fixed_user(openshift: KubernetesEmulator) -> None:
    openshift.apply(deployment("fixed", 1, securityContext={"runAsUser": 1001}), deployment("free", 1))
    openshift.settle(1)
    base = "/apis/apps/v1/namespaces/default/deployments"
    refused = openshift.get(f"{base}/fixed")
    assert conditions(refused)["ReplicaFailure"] == ("True", "FailedCreate")
    assert refused is not None
    message = next(one["message"] for one in refused["status"]["conditions"] if one["type"] == "ReplicaFailure")
    assert "runAsUser: Invalid value: 1001: must be in the ranges: [10006" in message
    assert conditions(openshift.get(f"{base}/free"))["Available"][0] == "True"


def test_a_route_is_admitted_by_the_older_claim(openshift: KubernetesEmulator) -> None:
    def route(namespace: str) -> dict[str, Any]:
        return {
            "apiVersion": "route.openshift.io/v1",
            "kind": "Route",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"host": "web.example.com", "to": {"name": "web"}},
        }

    openshift.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}, route("default"))
    openshift.settle(5)
    openshift.apply(route("other"))

    def admitted(namespace: str) -> tuple[str, str | None]:
        value = openshift.get(f"/apis/route.openshift.io/v1/namespaces/{namespace}/routes/web")
        assert value is not None
        (ingress,) = value["status"]["ingress"]
        (condition,) = ingress["conditions"]
        return condition["status"], condition.get("reason")

    assert admitted("default") == ("True", None)
    assert admitted("other") == ("False", "HostAlreadyClaimed")
    openshift.call("DELETE", "/apis/route.openshift.io/v1/namespaces/default/routes/web")
    assert admitted("other") == ("True", None)


def test_the_service_ca_renews_in_time() -> None:
    clock = ManualClock()
    with KubernetesEmulator(openshift=True, clock=clock) as emulator:
        annotation = {"service.beta.openshift.io/inject-cabundle": "true"}
        bundle = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "annotations": annotation}}
        emulator.apply(service(), bundle)
        first = certificate(emulator.get("/api/v1/namespaces/default/secrets/web-tls"))
        emulator.settle(394 * DAY)
        assert certificate(emulator.get("/api/v1/namespaces/default/secrets/web-tls")) == first
        emulator.settle(2 * DAY)  # 394 of 790 days are left: the CA rotates
        second = certificate(emulator.get("/api/v1/namespaces/default/secrets/web-tls"))
        assert certificates.signer_id(second) != certificates.signer_id(first)
        found = emulator.get("/api/v1/namespaces/default/configmaps/ca")
        assert found is not None
        cas = x509.load_pem_x509_certificates(found["data"]["service-ca.crt"].encode())
        assert [certificates.key_id(ca) for ca in cas] == [
            certificates.signer_id(second),
            certificates.signer_id(first),
        ]
        for ca, leaf in zip(cas, (second, first), strict=True):
            leaf.verify_directly_issued_by(ca)


def test_the_emulator_seeds_only_what_it_serves(plain: KubernetesEmulator) -> None:
    with pytest.raises(ValueError, match="serves no Route"):
        plain.apply({"apiVersion": "route.openshift.io/v1", "kind": "Route", "metadata": {"name": "r"}})
    with pytest.raises(ValueError, match=r"ConfigMap/Bad_Name: .*RFC 1123"):
        plain.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Bad_Name"}})


def test_stop_ends_open_watches(tmp_path: Path) -> None:
    emulator = KubernetesEmulator().start()
    loaded = untyped(config.new_client_from_config_dict)(emulator.kubeconfig())
    assert isinstance(loaded, api_client.ApiClient)
    api = untyped(dynamic.DynamicClient)(loaded, cache_file=str(tmp_path / "discovery.json"))
    maps = api.resources.get(api_version="v1", kind="ConfigMap")
    seen: list[str] = []

    def follow() -> None:
        seen.extend(event["type"] for event in maps.watch(namespace="default", timeout=60))

    watcher = threading.Thread(target=follow)
    watcher.start()
    while not any("watch" in path for _, path, _ in emulator.log):
        time.sleep(0.02)
    emulator.stop()
    watcher.join(30)
    assert not watcher.is_alive()


def test_live_objects_are_loaded_as_they_are(openshift: KubernetesEmulator) -> None:
    openshift.apply(service(), manager="alpha")
    openshift.settle(1)
    paths = ("services/web", "secrets/web-tls")
    live = [openshift.get(f"/api/v1/namespaces/default/{path}") for path in paths]
    with KubernetesEmulator(clock=ManualClock()) as other:
        secret = live[1]
        assert secret is not None
        other.load(secret)
        other.settle(1)
        loaded = other.get("/api/v1/namespaces/default/secrets/web-tls")
        assert loaded == secret, "neither changed nor collected for an owner that is not here"
        code, answer = other.call(
            "PATCH",
            "/api/v1/namespaces/default/secrets/web-tls?fieldManager=me",
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web-tls"}, "data": {"tls.crt": ""}},
            headers={"content-type": "application/apply-patch+yaml"},
        )
        assert code == 409
        assert 'conflict with "service-ca-operator" using v1' in answer["message"]
        code, answer = other.call("DELETE", "/api/v1/namespaces/default/secrets/web-tls")
        assert code == 200
        assert int(other.snapshot()["store"]["revision"]) > int(secret["metadata"]["resourceVersion"])
        with pytest.raises(ValueError, match="serves no Route"):
            other.load({"apiVersion": "route.openshift.io/v1", "kind": "Route", "metadata": {"name": "r"}})


def test_what_an_owner_leaves_behind_goes(openshift: KubernetesEmulator) -> None:
    openshift.apply(service())
    openshift.call("DELETE", "/api/v1/namespaces/default/services/web")
    assert openshift.get("/api/v1/namespaces/default/secrets/web-tls") is None


def test_requests_fail_as_told(plain: KubernetesEmulator) -> None:
    path = "/api/v1/namespaces/default/configmaps"

    def post(name: str) -> tuple[int, str | None, dict[str, Any]]:
        connection = http.client.HTTPConnection(plain.host, plain.port, timeout=10)
        headers = {"authorization": "Bearer admin-token", "content-type": "application/json"}
        connection.request("POST", path, json.dumps(named(name)), headers)
        try:
            response = connection.getresponse()
            return response.status, response.getheader("retry-after"), json.loads(response.read())
        finally:
            connection.close()

    plain.fail_request("POST", "/configmaps$", status=429, retry_after=1)
    code, again, body = post("a")
    assert (code, again, body["reason"], body["details"]) == (429, "1", "TooManyRequests", {"retryAfterSeconds": 1})
    assert plain.get(f"{path}/a") is None
    assert post("a")[0] == 201
    plain.fail_request("POST", "/configmaps$", status=0, broken="after")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        post("b")
    assert plain.get(f"{path}/b") is not None


def test_many_clients_at_once_make_one_history(plain: KubernetesEmulator) -> None:
    base = "/api/v1/namespaces/default/configmaps"
    plain.settle()
    begin = plain.api.store.revision
    failures: list[tuple[int, Any]] = []

    def work(number: int) -> None:
        connection = http.client.HTTPConnection(plain.host, plain.port, timeout=30)
        headers = {"authorization": "Bearer admin-token", "content-type": "application/apply-patch+yaml"}
        for turn in range(10):
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "shared"},
                "data": {f"k{number}": str(turn)},
            }
            connection.request("PATCH", f"{base}/shared?fieldManager=m{number}", json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status >= 300:
                failures.append((response.status, answer))
        connection.close()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    value = plain.get(f"{base}/shared")
    assert value is not None
    assert value["data"] == {f"k{number}": "9" for number in range(6)}
    assert sorted(one["manager"] for one in value["metadata"]["managedFields"]) == [f"m{number}" for number in range(6)]
    _, events = plain.call("GET", f"{base}?watch=true&resourceVersion={begin}&timeoutSeconds=0.2")
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert len(versions) == 60
    assert versions == sorted(set(versions))
