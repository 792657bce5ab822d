"""An emulated cluster, and a desired state for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.apply import Result
from reconciler.lab.kubernetes import KubernetesEmulator
from reconciler.model import Outcome, Target
from reconciler.plan import Plan
from reconciler.project import Project
from reconciler.registry import default
from reconciler.render.terminal import console, show_plan
from reconciler.secrets import Secrets, key_in

PASSWORD = "canary-secret-123"
CLUSTER = """\
apiVersion: reconciler/v1
kind: KubernetesCluster
metadata: {name: prod}
spec: {kubeconfig: kubeconfig, context: emulator}
"""
MAPS = "/api/v1/namespaces/web/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/web/deployments"
MAP = "kubernetes.object[prod:v1:ConfigMap:web:c]"
ROLLOUT = "kubernetes.object[prod:apps/v1:Deployment:web:web]"


def shown(made: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """A plan as people see it."""
    capsys.readouterr()
    show_plan(made, default(), console())
    return capsys.readouterr().out


def document(kind: str, name: str, spec: str, more: str = "") -> str:
    """One document; `spec` in flow style without braces."""
    return f"---\napiVersion: reconciler/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n{more}"


def objects(*manifests: str, name: str = "web", spec: str = "", more: str = "") -> str:
    """A KubernetesManifest in the namespace `web`; manifests in flow style with braces."""
    return document(
        "KubernetesManifest", name, f"cluster: prod, namespace: web, {spec} objects: [{', '.join(manifests)}]", more
    )


def config_map(name: str = "c", data: str = 'a: "1"') -> str:
    """A ConfigMap in flow style."""
    return f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{{data}}}}}"


def deployment(
    name: str = "web", replicas: int = 2, label: str = "web", image: str = "registry.example.org/a:1"
) -> str:
    """A Deployment in flow style."""
    return (
        f"{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}, spec: {{replicas: {replicas}, "
        f"selector: {{matchLabels: {{app: {label}}}}}, template: {{metadata: {{labels: {{app: {label}}}}}, "
        f'spec: {{containers: [{{name: c, image: "{image}"}}]}}}}}}}}'
    )


@dataclass
class World:
    """A cluster, and a project that manages it.

    Attributes:
        user: whom the project logs in as.
    """

    folder: Path
    cluster: KubernetesEmulator
    user: str = "admin"
    environ: dict[str, str] = field(default_factory=lambda: {"PASSWORD": PASSWORD})
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def write(self, *documents: str, **files: str) -> None:
        """Replace the desired state."""
        desired = self.folder / "desired"
        desired.mkdir(parents=True, exist_ok=True)
        (desired / "all.yaml").write_text(CLUSTER + "".join(documents))
        for name, text in files.items():
            (desired / name).write_text(text)

    def project(self) -> Project:
        """A project as a process of its own would make it."""
        one = Project(self.folder / "desired", self.folder / "state", emit=self.emit, retarget=self.behind)
        one.secrets = Secrets(key_in(one.state), self.environ)
        return one

    def emit(self, event: str, **fields: Any) -> None:
        """Keeps what happened."""
        self.events.append((event, fields))

    def behind(self, target: Target) -> Target:
        """The emulator in place of what the documents name."""
        file = self.folder / f"kubeconfig-{self.user}"
        self.cluster.write_kubeconfig(file, self.user)
        return replace(target, settings={"kubeconfig": str(file)})

    def plan(self, project: Project | None = None) -> Plan:
        """What would be done, also where everything goes."""
        return (project or self.project()).plan(force=True)

    def apply(self, made: Plan | None = None) -> Result:
        """Plan and apply."""
        project = self.project()
        made = made or project.plan(force=True)
        with project.pool(made.targets) as pool:
            return project.apply(made, pool)

    def settle(self) -> Result:
        """Apply; then nothing is left to do."""
        result = self.apply()
        assert result.ok, result.ended
        self.assert_nothing_to_do()
        return result

    def assert_nothing_to_do(self) -> None:
        """The plan is empty."""
        again = self.plan()
        assert not again.unknown, again.unknown
        assert [(c.address, c.differences) for c in again.changes] == []

    def live(self, path: str) -> Any:
        """An object by its path; None where there is none."""
        return self.cluster.get(path)

    def writes(self) -> list[tuple[str, str]]:
        """All that was asked of the API that is no look."""
        return [(m, p.partition("?")[0]) for m, p, _ in self.cluster.log if m != "GET" and "dryRun=All" not in p]


@contextmanager
def world(folder: Path, **settings: Any) -> Iterator[World]:
    """A cluster with the namespace `web`."""
    with KubernetesEmulator(**{"pod_start_seconds": 0.05, **settings}) as cluster:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"}})
        yield World(folder, cluster)


def outcomes(result: Result) -> dict[str, Outcome]:
    """How each change ended."""
    return {address: end.outcome for address, end in result.ended.items()}


def as_object(text: str, namespace: str = "web") -> dict[str, Any]:
    """A manifest in flow style as the emulator takes it."""
    from ruamel.yaml import YAML

    found: dict[str, Any] = YAML(typ="safe").load(text)
    found["metadata"]["namespace"] = namespace
    return found
