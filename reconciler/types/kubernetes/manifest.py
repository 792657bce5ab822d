"""An object of a Kubernetes API as it is declared: its manifest, and the fields that are compared."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import field_validator, model_validator

from reconciler.model import CONTROL, IDENTITY, Composed, Secret, Spec
from reconciler.secrets import as_secret, is_reference
from reconciler.types.kubernetes import fieldpaths as paths
from reconciler.types.kubernetes.fieldpaths import Path
from reconciler.types.kubernetes.names import LABEL, ApiVersion, FieldPath, KindName, NoNamespace, ObjectName

_SERVERS_OWN: Final = frozenset(
    ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "selfLink")
)


class KubernetesObject(Spec):
    """An object of a Kubernetes API, applied on the server."""

    api_version: Annotated[ApiVersion, IDENTITY]
    kind: Annotated[KindName, IDENTITY]
    namespace: Annotated[NoNamespace, IDENTITY] = ""
    name: Annotated[ObjectName, IDENTITY]
    manifest: Annotated[Mapping[str, Any], CONTROL] = {}
    conflicts: Annotated[Literal["take", "fail"], CONTROL] = "take"
    leave: Annotated[tuple[FieldPath, ...], CONTROL] = ()
    given: Annotated[tuple[str, ...], CONTROL] = ()
    fields: Mapping[str, Any] | None = None
    fixed: Mapping[str, Any] | None = None
    client_side: Literal[False] | None = None

    @field_validator("manifest", mode="before")
    @classmethod
    def _revived(cls, value: Any) -> Any:
        return plain(value)

    @model_validator(mode="after")
    def _flattened(self) -> KubernetesObject:
        # Derived, and therefore not among what was declared: plans and inventories keep the manifest alone.
        self.__dict__["fields"] = {paths.spelled(path): value for path, value in compared_leaves(self)}
        return self


def plain(value: Any) -> Any:
    """A manifest without what means nothing (null), secrets as such."""
    if isinstance(value, Composed):
        # Named, so that it is known again when a plan file or an inventory is read.
        parts = tuple(plain(one) for one in value.parts)
        return Composed(secret_ref="composed", parts=parts, form=value.form)  # noqa: S106 (a name)
    if isinstance(value, Secret):
        return value
    if isinstance(value, Mapping):
        if value.get("secretRef") == "composed" and "parts" in value:
            return plain(Composed.model_validate({**value, "parts": [plain(one) for one in value["parts"]]}))
        if is_reference(value):
            return as_secret(value)
        return {str(key): plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def complete(spec: KubernetesObject) -> dict[str, Any]:
    """The manifest with identity and our label, without what the server alone writes."""
    metadata = {k: v for k, v in (spec.manifest.get("metadata") or {}).items() if k not in _SERVERS_OWN}
    metadata["name"] = spec.name
    if spec.namespace:
        metadata["namespace"] = spec.namespace
    else:
        metadata.pop("namespace", None)
    metadata["labels"] = {**(metadata.get("labels") or {}), LABEL: "true"}
    rest = {k: v for k, v in spec.manifest.items() if k not in ("apiVersion", "kind", "metadata", "status")}
    return {"apiVersion": spec.api_version, "kind": spec.kind, "metadata": metadata, **rest}


def declared_leaves(spec: KubernetesObject) -> Iterator[tuple[Path, Any]]:
    """The fields that are compared, with their values. What stands in a Secret is one, whoever wrote it down."""
    left = [("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")]
    # Whoever takes our label away wants the object to stay when its document goes.
    left.append(("metadata", "labels", LABEL))
    for path, value in paths.leaves(complete(spec)):
        if path in left:
            continue
        if _in_secret(spec, path):
            yield ("data", *path[1:]), value if isinstance(value, Secret) else _sealable(str(value), path[0] == "data")
        else:
            yield path, value


def compared_leaves(spec: KubernetesObject) -> Iterator[tuple[Path, Any]]:
    """The same, without secrets that are left to others: whatever stands there is right."""
    for path, value in declared_leaves(spec):
        text = paths.spelled(path)
        if not (isinstance(value, Secret) and any(paths.covers(left, text) for left in spec.leave)):
            yield path, value


def _sealable(text: str, encoded: bool) -> Composed:
    """A text of a Secret as something that is never shown; base64 in the form in which it comes back."""
    if encoded:
        with contextlib.suppress(ValueError):
            text = base64.b64encode(base64.b64decode(text, validate=True)).decode()
    return Composed(parts=(text, ""))


def _in_secret(spec: KubernetesObject, path: Path) -> bool:
    return spec.kind == "Secret" and spec.api_version == "v1" and len(path) == 2 and path[0] in ("data", "stringData")
