"""KubernetesManifest: objects of any kind on a cluster, written here or rendered by another tool."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from reconciler.errors import InvalidInput, ProbeFailed, Problem
from reconciler.expand import Catalog
from reconciler.fields import LocalPath, Ref
from reconciler.load import parse
from reconciler.model import Discovery, Document, Get, Kind, Resource, Secret, Spec, Target
from reconciler.secrets import is_reference
from reconciler.types.api import document_name
from reconciler.types.kubernetes import fieldpaths as paths
from reconciler.types.kubernetes import places
from reconciler.types.kubernetes.looking import CLIENT_SIDE
from reconciler.types.kubernetes.names import CLUSTER_SCOPED, LABEL, Namespace
from reconciler.types.kubernetes.object import PRECIOUS
from reconciler.types.kubernetes.object import TYPE as kubernetes_object
from reconciler.types.kubernetes.ownership import TYPE as kubernetes_ownership

_ENDINGS: Final = (".yaml", ".yml", ".json")
_OWN_ATTRIBUTES: Final = frozenset(kubernetes_object.compared.values())


class KubernetesManifestSpec(Spec):
    """Objects of any kind on a Kubernetes cluster: written here, or files that another tool rendered.

    They are applied on the server. What the documents do not declare belongs to others and is left alone; a declared
    field that another manager changed is named with that manager, and set right. Fields that others shall change, such
    as the replicas under an autoscaler, are named in `lifecycle.ignoreChanges`.

    `files` are YAML or JSON files, or folders of them, such as what kustomize or Helm rendered. Since every YAML file
    of the desired state is read as a document, rendered YAML lies in a folder whose name begins with a dot. A value of
    an object may be `{secretRef: ...}`; in Secrets write them under `stringData`.

    Example:

        apiVersion: reconciler/v1
        kind: KubernetesManifest
        metadata:
          name: web
        spec:
          cluster: prod
          namespace: web
          objects:
            - apiVersion: v1
              kind: Namespace
              metadata: {name: web}
            - apiVersion: v1
              kind: ConfigMap
              metadata: {name: greeting}
              data: {text: hello}
            - apiVersion: v1
              kind: Secret
              metadata: {name: login}
              stringData: {password: {secretRef: env:WEB_PASSWORD}}
    """

    cluster: Annotated[str, Ref("KubernetesCluster")] = Field(description="The KubernetesCluster.")
    namespace: Namespace = Field("default", description="The namespace of objects that name none.")
    objects: tuple[dict[str, Any], ...] = Field((), description="Objects, as the API has them.")
    files: tuple[LocalPath, ...] = Field((), description="Files and folders of objects, relative to the document.")
    conflicts: Literal["take", "fail"] = Field(
        "take",
        description="What to do with declared fields that another manager changed: `take` them, or let the apply "
        "`fail`. The plan names the manager either way.",
    )
    immutable: Literal["replace", "fail"] = Field(
        "replace",
        description="What to do when a field differs that cannot be changed in place: `replace` the object, or `fail`. "
        "Namespaces, volumes, claims and definitions are never replaced.",
    )
    client_side_fields: Literal["take", "leave"] = Field(
        "take",
        description="Fields that `kubectl apply` without --server-side left behind: `take` them over, so that what is "
        "not declared goes, or `leave` them.",
    )
    report_others: bool = Field(
        False, description="Report fields that other managers added, and those that are left to them, as findings."
    )


# ------------------------------------------------------------------------------------------------ documents


def expand(document: Document[KubernetesManifestSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """One object for each.

    Raises:
        InvalidInput: a file cannot be read, or holds what is no object.
    """
    spec = document.spec
    problems: list[Problem] = []
    found: dict[str, Resource[Any]] = {}
    for path, where, manifest in manifests(document, catalog):
        if path[1] == "files":
            # What is written in the document itself is found by `check`.
            for secret in in_the_clear(manifest):
                message = f"{where} has a secret in the clear: {'.'.join(secret)}."
                problems.append(catalog.problem(document, path, message, _REFER))
        lacks = _lacking(manifest)
        if lacks:
            problems.append(catalog.problem(document, path, f"{where} has no {lacks}.", "Every object has one."))
            continue
        try:
            one = _resource(document, manifest)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            name = {"api_version": "apiVersion", "name": "metadata.name", "namespace": "metadata.namespace"}
            field = name.get(str(detail["loc"][0]), ".".join(map(str, detail["loc"])))
            text = detail["msg"].removeprefix("Value error, ")
            problems.append(catalog.problem(document, path, f"{where}: {field} {text}"))
            continue
        if one.key in found and found[one.key].spec != one.spec:
            problems.append(catalog.problem(document, path, f"{where}: {one.key} is there twice.", "Keep one of them."))
        found[one.key] = one
    if problems:
        raise InvalidInput(problems)
    left = [name for name in document.lifecycle.ignore_changes if name not in _OWN_ATTRIBUTES]
    for one in found.values():
        leave = tuple(name for name in left if any(paths.covers(name, path) for path in one.spec.fields))
        left_alone: dict[str, Any] = {"leave": leave} if leave else {}
        yield kubernetes_object(spec.cluster, **{**_declared(one.spec), **left_alone})
        if spec.report_others:
            audited = {n: v for n, v in _declared(one.spec).items() if n in kubernetes_ownership.spec.model_fields}
            yield kubernetes_ownership(spec.cluster, **audited, **left_alone)


def _lacking(manifest: Mapping[str, Any]) -> str:
    """What every object must have, and this one has not."""
    metadata = manifest.get("metadata")
    named = isinstance(metadata, Mapping) and isinstance(metadata.get("name"), str)
    found = {name: isinstance(manifest.get(name), str) for name in ("apiVersion", "kind")} | {"metadata.name": named}
    return ", no ".join(name for name, there in found.items() if not there)


def _declared(spec: Any) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.model_fields_set}


def _resource(document: Document[KubernetesManifestSpec], manifest: Mapping[str, Any]) -> Resource[Any]:
    spec = document.spec
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    kind = manifest.get("kind")
    more: dict[str, Any] = {}
    if kind not in CLUSTER_SCOPED:
        more["namespace"] = metadata.get("namespace") or spec.namespace
    if spec.conflicts != "take":
        more["conflicts"] = spec.conflicts
    if spec.immutable == "replace" and kind not in PRECIOUS:
        more["fixed"] = {}
    if spec.client_side_fields == "take" and spec.conflicts == "take":
        more["client_side"] = False
    return kubernetes_object(
        spec.cluster,
        api_version=manifest.get("apiVersion"),
        kind=kind,
        name=metadata.get("name"),
        manifest=manifest,
        **more,
    )


def manifests(
    document: Document[KubernetesManifestSpec], catalog: Catalog
) -> Iterator[tuple[tuple[str | int, ...], str, Mapping[str, Any]]]:
    """Every object with its place in the document and words for that place.

    Raises:
        InvalidInput: a file cannot be read.
    """
    for index, one in enumerate(document.spec.objects):
        for inner in _unpacked(one):
            yield ("spec", "objects", index), f"objects[{index}]", inner
    for index, name in enumerate(document.spec.files):
        path = ("spec", "files", index)
        for file in _files(document, catalog, path, name):
            for raw in parse(catalog.source(document, path, file), file):
                if not isinstance(raw.data, Mapping):
                    raise InvalidInput([catalog.problem(document, path, f"{file}:{raw.line} is no object.")])
                for inner in _unpacked(raw.data):
                    yield path, f"{file}:{raw.line}", inner


def _unpacked(one: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The items of a List, or the object itself."""
    if _is_list(one):
        yield from (item for item in one["items"] if isinstance(item, Mapping))
    else:
        yield one


def _is_list(one: Mapping[str, Any]) -> bool:
    return one.get("kind") == "List" and isinstance(one.get("items"), list)


def _files(
    document: Document[KubernetesManifestSpec], catalog: Catalog, path: tuple[str | int, ...], name: str
) -> list[str]:
    base = Path(document.position.file).parent
    folder = base / name
    if "\0" in name or not folder.is_dir():
        return [name]
    if not folder.resolve().is_relative_to(catalog.root.resolve()):
        message, fix = f"{name} lies outside the desired state.", "Copy it next to the document."
        raise InvalidInput([catalog.problem(document, path, message, fix)])
    found = sorted(file for file in folder.rglob("*") if file.name.endswith(_ENDINGS) and file.is_file())
    if not found:
        message = f"{name} holds no file that ends in {', '.join(_ENDINGS)}."
        raise InvalidInput([catalog.problem(document, path, message, "Render into it first.")])
    return [str(file.relative_to(base)) for file in found if file.name != "kustomization.yaml"]


def check(document: Document[KubernetesManifestSpec], catalog: Catalog) -> Iterable[Problem]:
    """Objects there must be, nothing secret in the clear, and texts where the API has texts."""
    spec = document.spec
    if not spec.objects and not spec.files:
        message, fix = "has no objects.", "Add `objects:` or `files:`."
        yield catalog.problem(document, ("spec", "cluster"), message, fix)
    for index, one in enumerate(spec.objects):
        path: tuple[str | int, ...] = ("spec", "objects", index)
        items = list(enumerate(one["items"])) if _is_list(one) else []
        for where, inner in [(path, one), *(((*path, "items", number), item) for number, item in items)]:
            for field in in_the_clear(inner):
                message = f"has a secret in the clear: {'.'.join(field)}."
                yield catalog.problem(document, (*where, *field), message, _REFER)
            for field in _no_certificates(inner):
                message = f"{'.'.join(field)} is no certificate in PEM, and the cluster would take it all the same."
                yield catalog.problem(document, (*where, *field), message, "Paste the whole certificate.")
            for field, value in _no_text(inner):
                message = f"{'.'.join(field)} is {json.dumps(value)}, where the API wants text."
                yield catalog.problem(document, (*where, *field), message, "Put it in quotes.")


_REFER: Final = "Write `{secretRef: path/key}` there; in a Secret under stringData."


def _no_text(manifest: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Numbers and truth values where the API has texts alone: what YAML makes of `1` and `yes` without quotes."""
    manifest = manifest if isinstance(manifest, Mapping) else {}
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    found: list[tuple[tuple[str, ...], Any]] = [
        (("metadata", name), metadata.get(name)) for name in ("labels", "annotations")
    ]
    if manifest.get("kind") == "ConfigMap":
        found.append((("data",), manifest.get("data")))
    for path, values in found:
        for key, value in values.items() if isinstance(values, Mapping) else ():
            if isinstance(value, bool | int | float):
                yield (*path, str(key)), value


def in_the_clear(manifest: Any) -> Iterator[tuple[str, ...]]:
    """Where values of a Secret, or the key of a Route, are written down: inventories and plans would keep them."""
    kind = manifest.get("kind") if isinstance(manifest, Mapping) else None
    if kind == "Route" and isinstance(_tls(manifest).get("key"), str):
        yield "spec", "tls", "key"
    if kind != "Secret":
        return
    for part in ("data", "stringData"):
        values = manifest.get(part)
        for key, value in values.items() if isinstance(values, Mapping) else ():
            written = value is not None and value != "" and not is_reference(value) and not isinstance(value, Secret)
            if written and not str(key).endswith((".crt", ".pub")):
                yield part, str(key)


def _tls(route: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = route.get("spec")
    tls = spec.get("tls") if isinstance(spec, Mapping) else None
    return tls if isinstance(tls, Mapping) else {}


def _no_certificates(manifest: Any) -> Iterator[tuple[str, ...]]:
    """Certificates of a Route that are none: the API does not look at them, and the router refuses the Route later."""
    if isinstance(manifest, Mapping) and manifest.get("kind") == "Route":
        for name in ("certificate", "caCertificate", "destinationCACertificate"):
            text = _tls(manifest).get(name)
            if isinstance(text, str) and text and "-----BEGIN CERTIFICATE-----" not in text:
                yield "spec", "tls", name


# ------------------------------------------------------------------------------------------------ import

_IMPORTED: Final = (
    ("v1", "namespaces"),
    ("v1", "configmaps"),
    ("v1", "services"),
    ("v1", "serviceaccounts"),
    ("v1", "persistentvolumeclaims"),
    ("apps/v1", "deployments"),
    ("apps/v1", "statefulsets"),
    ("apps/v1", "daemonsets"),
    ("batch/v1", "cronjobs"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
    ("policy/v1", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "ingresses"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("rbac.authorization.k8s.io/v1", "roles"),
    ("rbac.authorization.k8s.io/v1", "rolebindings"),
    ("route.openshift.io/v1", "routes"),
)
"""What is imported, where it is served. Secrets are not: what is secret belongs into the secret store."""
_SYSTEM: Final = ("kube-", "openshift-")
_MADE_BY_CLUSTERS: Final = frozenset(
    (
        ("ConfigMap", "kube-root-ca.crt"),
        ("ConfigMap", "openshift-service-ca.crt"),
        ("ServiceAccount", "default"),
        ("ServiceAccount", "builder"),
        ("ServiceAccount", "deployer"),
        ("Namespace", "default"),
        ("Namespace", "openshift"),
    )
)
_GENERATED: Final = "openshift.io/host.generated"
_TRACES: Final = re.compile(
    r"kubectl\.kubernetes\.io/last-applied-configuration|deployment\.kubernetes\.io/revision|openshift\.io/sa\.scc\..*"
    r"|service\.(?:alpha|beta)\.openshift\.io/serving-cert-(?:signed-by|generation-error(?:-num)?)"
    r"|pv\.kubernetes\.io/.*|volume\.(?:beta\.)?kubernetes\.io/(?:storage-provisioner|selected-node)"
    rf"|{re.escape(_GENERATED)}"
)
"""Annotations that clusters, controllers and kubectl write."""


def discover(target: Target) -> Discovery | None:
    """The objects of a cluster that nobody else makes, one document for each."""
    return _discover(target.name) if target.connection == "kubernetes" else None


def _discover(cluster: str) -> Discovery:
    versions = list(dict.fromkeys(version for version, _ in _IMPORTED))
    catalogues = yield [Get(places.root(version)) for version in versions]
    kinds: dict[tuple[str, str], str] = {}
    for version, reply in zip(versions, catalogues, strict=True):
        for one in places.parsed(reply).get("resources") or () if reply.status == 0 else ():
            kinds[version, str(one["name"])] = str(one["kind"])
    wanted = [(version, plural) for version, plural in _IMPORTED if (version, plural) in kinds]
    replies = yield [Get(places.collection(version, plural)) for version, plural in wanted]
    refused = [reply for reply in (*catalogues, *replies) if reply.status not in (0, 404)]
    if refused and all(reply.status for reply in replies):
        raise ProbeFailed(f"{cluster}: {places.refusal(refused[-1], 'list what is there')}")
    documents: list[tuple[str, Mapping[str, Any]]] = []
    for (version, plural), reply in zip(wanted, replies, strict=True):
        kind = kinds[version, plural]
        for live in places.parsed(reply).get("items") or () if reply.status == 0 else ():
            metadata = places.meta(live)
            if _is_somebodys(kind, metadata):
                continue
            manifest = manifest_of({**live, "apiVersion": version, "kind": kind})
            spec: dict[str, Any] = {"cluster": cluster}
            if metadata.get("namespace"):
                spec["namespace"] = metadata["namespace"]
            spec["objects"] = [manifest]
            if any(one.get("manager") in CLIENT_SIDE for one in paths.entries(live)):
                spec["clientSideFields"] = "leave"
            name = document_name(cluster, str(metadata.get("namespace") or ""), kind, str(metadata["name"]))
            documents.append((name, spec))
    return documents


def _is_somebodys(kind: str, metadata: Mapping[str, Any]) -> bool:
    """Whether the cluster or a controller made it."""
    space, name = str(metadata.get("namespace") or ""), str(metadata.get("name"))
    return (
        bool(metadata.get("ownerReferences"))
        or space.startswith(_SYSTEM)
        or (kind == "Namespace" and name.startswith(_SYSTEM))
        or (kind, name) in _MADE_BY_CLUSTERS
        or (kind == "Service" and (space, name) == ("default", "kubernetes"))
    )


def manifest_of(live: Mapping[str, Any]) -> dict[str, Any]:
    """A live object as somebody would write it: without status, bookkeeping, and what the cluster allotted."""
    metadata = places.meta(live)
    kept: dict[str, Any] = {"name": metadata["name"]}
    labels = {
        k: v for k, v in (metadata.get("labels") or {}).items() if k not in (LABEL, "kubernetes.io/metadata.name")
    }
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if not _TRACES.fullmatch(k)}
    kept |= {name: value for name, value in (("labels", labels), ("annotations", annotations)) if value}
    rest = {k: v for k, v in live.items() if k not in ("apiVersion", "kind", "metadata", "status")}
    spec = dict(rest.get("spec") or {})
    match live["kind"]:
        case "Namespace":
            rest.pop("spec", None)
        case "Service" if spec.get("clusterIP") != "None":
            for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(name, None)
        case "Route":
            if (metadata.get("annotations") or {}).get(_GENERATED) == "true":
                spec.pop("host", None)
            if "tls" in spec:
                spec["tls"] = {name: value for name, value in spec["tls"].items() if name != "key"}
        case "PersistentVolumeClaim":
            spec.pop("volumeName", None)
        case "ServiceAccount":
            rest.pop("secrets", None)
            rest.pop("imagePullSecrets", None)
        case "ConfigMap" if any(k.endswith("inject-cabundle") for k in annotations):
            rest.pop("data", None)
    if "spec" in rest:
        rest["spec"] = spec
    scaled = [one for one in metadata.get("managedFields") or () if one.get("subresource") == "scale"]
    if any(paths.owns(one.get("fieldsV1") or {}, ("spec", "replicas")) for one in scaled):
        spec.pop("replicas", None)
    return {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": kept, **rest}


KIND = Kind("KubernetesManifest", KubernetesManifestSpec, expand, check, discover=discover)
