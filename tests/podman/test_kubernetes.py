"""ContainerPod to Kubernetes YAML and back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reconciler.cli.main import run
from reconciler.kinds.container_pod import ContainerPodSpec
from reconciler.tools.podman.kubernetes import exported, imported

IMAGE = f"docker.io/library/postgres@sha256:{'1' * 64}"
EVERYTHING: dict[str, Any] = {
    "hosts": ["db1"],
    "hostNetwork": False,
    "volumes": [{"name": "data"}],
    "containers": [
        {
            "name": "db",
            "image": IMAGE,
            "pull": "never",
            "command": ["postgres"],
            "args": ["-c", "a b"],
            "environment": {"A": "50% $HOME", "B": ""},
            "secrets": [
                {"name": "password", "value": {"secretRef": "shop/password"}, "env": "PW"},
                {"name": "token", "value": {"secretRef": "shop/token"}, "path": "/run/secrets/token"},
            ],
            "ports": [{"container": 5432, "address": "127.0.0.1"}, {"container": 53, "host": 5353, "protocol": "udp"}],
            "mounts": [
                {"path": "/data", "volume": "data"},
                {"path": "/certs", "hostPath": "/srv/certs", "readOnly": True},
                {"path": "/tmp", "memory": "64M"},
            ],
            "healthCheck": {
                "command": ["pg_isready"],
                "interval": "20s",
                "timeout": "5s",
                "retries": 2,
                "startPeriod": "60s",
                "onFailure": "kill",
            },
            "workingDir": "/srv",
            "runAsUser": 26,
            "runAsGroup": 27,
            "readOnly": True,
            "noNewPrivileges": True,
            "addCapabilities": ["NET_BIND_SERVICE"],
            "dropCapabilities": ["ALL"],
            "resources": {"memory": "512M", "cpus": "0.5"},
        },
        {"name": "side", "image": "quay.io/a/b:1", "autoUpdate": "registry"},
    ],
}


def dumped(spec: ContainerPodSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def test_a_round_trip_keeps_everything() -> None:
    """Whatever Kubernetes has a place for comes back as it was."""
    spec = ContainerPodSpec.model_validate(EVERYTHING)
    out = exported("shop", spec)
    assert out.left_out == ["the size of volumes: Podman's have none; the claims ask for 1Gi."]
    back = imported(json.loads(json.dumps(out.documents)), ["db1"])
    assert back.left_out == []
    (document,) = back.documents
    assert document["metadata"] == {"name": "shop"}
    assert dumped(ContainerPodSpec.model_validate(document["spec"])) == dumped(spec)


def test_no_value_of_a_secret_and_no_reference_to_a_store_is_exported() -> None:
    text = json.dumps(exported("shop", ContainerPodSpec.model_validate(EVERYTHING)).documents)
    assert "shop/password" not in text
    assert '{"name": "shop-password", "key": "password"}' in text


def test_what_kubernetes_has_no_place_for_is_named() -> None:
    container = {"name": "a", "image": IMAGE, "archive": "/srv/a.tar", "stopTimeout": 5, "resources": {"processes": 5}}
    container |= {"mounts": [{"path": "/x", "hostPath": "/x", "relabel": "private"}]}
    container |= {"healthCheck": {"command": ["x"], "onFailure": "stop"}}
    container |= {"secrets": [{"name": "s", "mode": "0400", "value": {"secretRef": "a/s"}}]}
    other = {"name": "b", "image": IMAGE, "archive": "/srv/a.tar", "restart": "on-failure"}
    spec = {"hosts": ["db1"], "shared": False, "networks": [{"name": "n"}], "containers": [container, other]}
    left = exported("shop", ContainerPodSpec.model_validate(spec)).left_out
    for word in (
        "archive",
        "stopTimeout",
        "processes",
        "relabel",
        "onFailure",
        "mode",
        "restart",
        "networks",
        "shared",
    ):
        assert any(word in sentence for sentence in left), word


def test_what_a_container_pod_has_no_place_for_is_named() -> None:
    container = {
        "name": "a",
        "image": "x.example/a:1",
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"containerPort": 80}],
        "volumeMounts": [{"name": "c", "mountPath": "/c"}, {"name": "e", "mountPath": "/e"}],
        "livenessProbe": {"httpGet": {"path": "/"}},
        "readinessProbe": {"exec": {"command": ["x"]}},
        "securityContext": {"privileged": True, "seccompProfile": {"type": "Unconfined"}},
        "resources": {"limits": {"memory": "1.5Gi", "cpu": "250m", "nvidia.com/gpu": 1}},
    }
    spec = {
        "containers": [container],
        "initContainers": [{"name": "i", "image": "y"}],
        "volumes": [{"name": "c", "configMap": {"name": "c"}}, {"name": "e", "emptyDir": {}}],
        "restartPolicy": "Never",
    }
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 3, "template": {"metadata": {}, "spec": spec}},
    }
    back = imported([deployment, {"kind": "Service", "metadata": {"name": "web"}}], ["h"])
    words: tuple[str, ...] = (
        "replicas",
        "Service/web",
        "initContainers",
        "restartPolicy",
        "the variable IP",
        "the port 80",
        "/c",
        "/e",
    )
    words += ("livenessProbe", "readinessProbe", "privileged", "seccompProfile", "1.5Gi", "nvidia.com/gpu")
    for word in words:
        assert any(word in sentence for sentence in back.left_out), word
    (document,) = back.documents
    assert document["spec"]["containers"][0]["resources"] == {"cpus": "0.25"}


@pytest.mark.parametrize("documents", [[], ["text"], [{"kind": "Service", "metadata": {"name": "x"}}]])
def test_what_is_no_pod_is_refused(documents: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"neither a Pod|no mapping"):
        imported(documents, ["h"])


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Export of the sample's pod, and import of what came out."""
    sample = Path(__file__).parents[2] / "desired-state"
    assert run(["podman", "export", "postgres-prod", "--path", str(sample)]) == 0
    shown = capsys.readouterr()
    pod = next(d for d in YAML(typ="safe").load_all(shown.out) if d["kind"] == "Pod")
    assert [c["name"] for c in pod["spec"]["containers"]] == ["db", "exporter"]
    assert "left out: db: stopTimeout" in shown.err
    file = tmp_path / "pod.yaml"
    file.write_text(shown.out)
    assert run(["podman", "import", str(file), "--host", "db1", "--secrets", "postgres"]) == 0
    document = YAML(typ="safe").load(capsys.readouterr().out)
    assert ContainerPodSpec.model_validate(document["spec"]).containers[1].name == "exporter"
    assert document["spec"]["containers"][0]["secrets"][0]["value"] == {"secretRef": "postgres/password"}
    assert run(["podman", "import", str(file), "--host", "db1", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"][0]["kind"] == "ContainerPod"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert run(["podman", "import", "-", "--host", "db1", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"][0]["kind"] == "ContainerPod"
    assert run(["podman", "export", "postgres-prd", "--path", str(sample)]) == 1
    assert "Did you mean postgres-prod?" in capsys.readouterr().err
    file.write_text("a: [")
    assert run(["podman", "import", str(file), "--host", "db1"]) == 1
    assert "is not YAML" in capsys.readouterr().err
    file.write_text("kind: Pod\nmetadata: {name: x}\nspec: {containers: [{image: a}]}\n")
    assert run(["podman", "import", str(file), "--host", "db1"]) == 1
    assert "name" in capsys.readouterr().err
