"""Stand-ins for the clusters of a desired state: emulators of the Kubernetes API."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reconciler.expand import expand
from reconciler.lab.kubernetes import KubernetesEmulator
from reconciler.model import Resource, Target

if TYPE_CHECKING:
    from reconciler.lab.stage import Stage


def stand_in(target: Target, stage: Stage) -> Target:
    """Start an emulator with the namespaces that the documents count on. It is OpenShift where one of them needs it."""
    objects = [r for r in _resources(stage) if r.target == target.name]
    openshift = any(_is_openshift(one) for one in objects)
    emulator = stage.open.enter_context(KubernetesEmulator(openshift=openshift, pod_start_seconds=0.1))
    spaces = {getattr(one.spec, "namespace", "") for one in objects}
    made = {one.spec.name for one in objects if getattr(one.spec, "kind", "") == "Namespace"}
    for name in sorted(spaces - made - {"", "default"}):
        emulator.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, manager="stage")
    return behind(target, emulator, stage)


def behind(target: Target, emulator: KubernetesEmulator, stage: Stage) -> Target:
    """The target, reached at an emulator."""
    folder = stage.folder / ".kubeconfigs"
    folder.mkdir(parents=True, exist_ok=True)
    file = emulator.write_kubeconfig(folder / f"{target.name}.json")
    return replace(target, settings={"kubeconfig": str(file)})


def _resources(stage: Stage) -> list[Resource[Any]]:
    """The objects of all documents; several clusters ask for them."""
    if "resources" not in stage.shared:
        stage.shared["resources"] = expand(stage.catalog)
    found: list[Resource[Any]] = stage.shared["resources"]
    return found


def _is_openshift(one: Resource[Any]) -> bool:
    version = str(getattr(one.spec, "api_version", ""))
    return version.split("/", maxsplit=1)[0].endswith(".openshift.io") or one.type.startswith("kubernetes.serving")
