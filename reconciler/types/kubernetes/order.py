"""What objects of Kubernetes stand on: namespaces, definitions, and what Pods name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from reconciler.types.kubernetes import fieldpaths as paths
from reconciler.types.kubernetes.manifest import KubernetesObject, declared_leaves


def provides(spec: KubernetesObject) -> Iterable[str]:
    """The object; a namespace; the kinds that a CustomResourceDefinition defines."""
    group = spec.api_version.rpartition("/")[0]
    yield f"object:{group}/{spec.kind}/{spec.namespace}/{spec.name}"
    if spec.kind in ("Namespace", "Project"):
        yield f"namespace:{spec.name}"
    if spec.kind == "CustomResourceDefinition":
        inside = spec.manifest.get("spec") or {}
        names = inside.get("names") or {}
        defines, kind, plural = inside.get("group"), names.get("kind"), names.get("plural")
        if defines and kind and plural:
            yield f"kind:{defines}/{kind}"
            for version in inside.get("versions") or ():
                yield f"resource:{defines}/{version.get('name')}/{kind}/{plural}/{inside.get('scope')}"


def needs(spec: KubernetesObject) -> Iterable[str]:
    """Its namespace, its definition, and what a Pod of it mounts or reads."""
    if spec.namespace:
        yield f"namespace:{spec.namespace}"
    yield f"kind:{spec.api_version.rpartition('/')[0]}/{spec.kind}"
    if spec.kind != "CustomResourceDefinition":
        for kind, name in dict.fromkeys(_mentions(spec.manifest)):
            yield f"object:/{kind}/{spec.namespace}/{name}"


_REFERENCES: Final = {
    "secretKeyRef": ("Secret", "name"),
    "configMapKeyRef": ("ConfigMap", "name"),
    "secretRef": ("Secret", "name"),
    "configMapRef": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
    "configMap": ("ConfigMap", "name"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
}


def _mentions(value: Any) -> Iterator[tuple[str, str]]:
    """Objects of the same namespace that a Pod template names."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _REFERENCES and isinstance(inner, Mapping):
                kind, field = _REFERENCES[key]
                if isinstance(inner.get(field), str):
                    yield kind, inner[field]
            elif key == "serviceAccountName" and isinstance(inner, str):
                yield "ServiceAccount", inner
            yield from _mentions(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _mentions(inner)


def among(spec: KubernetesObject, tokens: Collection[str]) -> KubernetesObject:
    """With what comes in the same plan: its namespace, and the definition of its kind."""
    given = [f"namespace:{spec.namespace}"] if spec.namespace and f"namespace:{spec.namespace}" in tokens else []
    start = f"resource:{spec.api_version}/{spec.kind}/"
    if f"kind:{spec.api_version.rpartition('/')[0]}/{spec.kind}" in tokens:
        given += sorted(token for token in tokens if token.startswith(start))
    if tuple(given) == spec.given:
        return spec
    return spec.model_copy(update={"given": tuple(given)})


def parts(spec: KubernetesObject) -> Iterable[str]:
    """Every field, and all that hold it."""
    for path, _ in declared_leaves(spec):
        yield from paths.prefixes(path)
