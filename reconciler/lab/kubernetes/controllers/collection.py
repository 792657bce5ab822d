"""The garbage collector and the namespace controller: what goes when its owner or its namespace goes.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

import copy
from collections import Counter

from reconciler.lab.kubernetes.controllers import Cluster
from reconciler.lab.kubernetes.deletion import DeleteOptions
from reconciler.lab.kubernetes.resources import Resource
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.security_constraints import GROUPS, LEVEL, RANGE

MANAGER = "kube-controller-manager"
_MARKS = ("foregroundDeletion", "orphan")


def _objects(cluster: Cluster) -> list[tuple[Resource, Object]]:
    return [
        (resource, value)
        for resource in cluster.api.resources()
        if resource.stored
        for value in cluster.store.view(resource.place)
    ]


def collect(cluster: Cluster) -> float | None:
    """Deletes what has lost its owners; lets go what waits for its dependents."""
    everything = _objects(cluster)
    known = {value["metadata"]["uid"] for _, value in everything} | set(cluster.memory.get("elsewhere", []))
    dependents: dict[str, list[tuple[Resource, Object]]] = {}
    for resource, value in everything:
        for owner in value["metadata"].get("ownerReferences") or []:
            dependents.setdefault(owner["uid"], []).append((resource, value))
    for resource, value in everything:
        meta = value["metadata"]
        owners = meta.get("ownerReferences") or []
        if owners and not any(owner["uid"] in known for owner in owners) and "deletionTimestamp" not in meta:
            _delete(cluster, resource, value, "Background")
        for mark in _MARKS:
            if "deletionTimestamp" in meta and mark in (meta.get("finalizers") or []):
                _release(cluster, resource, value, mark, dependents)
    return None


def _release(
    cluster: Cluster,
    resource: Resource,
    owner: Object,
    mark: str,
    dependents: dict[str, list[tuple[Resource, Object]]],
) -> None:
    uid = owner["metadata"]["uid"]
    waiting = dependents.get(uid, [])
    if mark == "orphan":
        for kind, value in waiting:
            new = copy.deepcopy(value)
            left = [one for one in value["metadata"]["ownerReferences"] if one["uid"] != uid]
            new["metadata"]["ownerReferences"] = left
            if not left:
                del new["metadata"]["ownerReferences"]
            cluster.writes.controller_update(kind, value, new, MANAGER)
    elif waiting:
        for kind, value in waiting:
            if "deletionTimestamp" not in value["metadata"]:
                _delete(
                    cluster, kind, value, "Foreground" if dependents.get(value["metadata"]["uid"]) else "Background"
                )
        return
    new = copy.deepcopy(owner)
    new["metadata"]["finalizers"] = [one for one in owner["metadata"]["finalizers"] if one != mark]
    cluster.writes.controller_update(resource, owner, new, MANAGER)


def _delete(cluster: Cluster, resource: Resource, value: Object, policy: str) -> None:
    meta = value["metadata"]
    if cluster.store.get(resource.place, meta.get("namespace", ""), meta["name"]) is not None:
        cluster.writes.delete(resource, meta.get("namespace", ""), meta["name"], DeleteOptions(policy))


_ROOT_CA_TEXT = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


def furnish(cluster: Cluster) -> float | None:
    """Gives every namespace its ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`."""
    accounts, maps = cluster.resource("", "serviceaccounts"), cluster.resource("", "configmaps")
    for namespace in cluster.store.view("/namespaces"):
        if "deletionTimestamp" in namespace["metadata"]:
            continue
        name = namespace["metadata"]["name"]
        if cluster.store.get(accounts.place, name, "default") is None:
            value: Object = {"metadata": {"name": "default", "namespace": name}}
            cluster.writes.controller_create(accounts, value, MANAGER)
        if cluster.store.get(maps.place, name, "kube-root-ca.crt") is None:
            annotations = {"kubernetes.io/description": _ROOT_CA_TEXT}
            meta = {"name": "kube-root-ca.crt", "namespace": name, "annotations": annotations}
            value = {"metadata": meta, "data": {"ca.crt": cluster.memory.get("root_ca", "no TLS in this emulator\n")}}
            cluster.writes.controller_create(maps, value, MANAGER)
    return None


def empty_namespaces(cluster: Cluster) -> float | None:
    """Empties namespaces that are being deleted, and lets them go."""
    for namespace in cluster.store.view("/namespaces"):
        if "deletionTimestamp" in namespace["metadata"]:
            _empty(cluster, namespace)
    return None


def _empty(cluster: Cluster, namespace: Object) -> None:
    name = namespace["metadata"]["name"]
    for resource in cluster.api.resources():
        if not resource.namespaced or not resource.stored:
            continue
        for value in cluster.store.view(resource.place, name):
            if "deletionTimestamp" not in value["metadata"]:
                _delete(cluster, resource, value, "Background")
    left = [
        (resource, value)
        for resource in cluster.api.resources()
        if resource.namespaced and resource.stored
        for value in cluster.store.view(resource.place, name)
    ]
    spaces = cluster.resource("", "namespaces")
    new = copy.deepcopy(namespace)
    if left:
        new["status"]["conditions"] = _conditions(cluster, namespace, left)
        cluster.writes.controller_update(spaces, namespace, new, MANAGER, "status")
    elif "kubernetes" in (namespace["spec"].get("finalizers") or []):
        new["spec"]["finalizers"] = [one for one in namespace["spec"]["finalizers"] if one != "kubernetes"]
        cluster.writes.update(spaces, namespace, new, subresource="finalize")


def _conditions(cluster: Cluster, namespace: Object, left: list[tuple[Resource, Object]]) -> list[Object]:
    resources = Counter(f"{resource.plural}.{resource.group}" for resource, _ in left)
    shown = ", ".join(f"{kind} has {count} resource instances" for kind, count in sorted(resources.items()))
    finalizers = Counter(one for _, value in left for one in value["metadata"].get("finalizers") or [])
    held = ", ".join(f"{one} in {count} resource instances" for one, count in sorted(finalizers.items()))
    waiting = "All content successfully deleted, may be waiting on finalization"
    wanted = [
        ("DeletionDiscoveryFailure", "False", "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "DeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        ("DeletionContentFailure", "False", "ContentDeleted", waiting),
        ("ContentRemaining", "True", "SomeResourcesRemain", f"Some resources are remaining: {shown}"),
    ]
    if held:
        text = f"Some content in the namespace has finalizers remaining: {held}"
        wanted.append(("FinalizersRemaining", "True", "SomeFinalizersRemain", text))
    else:
        wanted.append(
            ("FinalizersRemaining", "False", "ContentHasNoFinalizers", "All content-preserving finalizers finished")
        )
    old = {one["type"]: one for one in namespace["status"].get("conditions") or []}
    found = []
    for kind, status, reason, message in wanted:
        before = old.get(f"Namespace{kind}", {})
        same = before.get("status") == status and before.get("message") == message
        at = before["lastTransitionTime"] if same else cluster.writes.now()
        found.append(
            {
                "type": f"Namespace{kind}",
                "status": status,
                "lastTransitionTime": at,
                "reason": reason,
                "message": message,
            }
        )
    return found


RANGE_START, RANGE_SIZE = 1_000_650_000, 10_000


def allot(cluster: Cluster) -> float | None:
    """Gives every namespace of an OpenShift cluster its ranges of user and group ids, and its SELinux level."""
    spaces = cluster.resource("", "namespaces")
    for old in cluster.store.view(spaces.place):
        annotations = old["metadata"].get("annotations") or {}
        if RANGE in annotations or "deletionTimestamp" in old["metadata"]:
            continue
        number = cluster.memory["ranges"] = cluster.memory.get("ranges", -1) + 1
        block = f"{RANGE_START + number * RANGE_SIZE}/{RANGE_SIZE}"
        given = {RANGE: block, GROUPS: block, LEVEL: f"s0:c{26 + number // 25},c{number % 25 * 5}"}
        new = copy.deepcopy(old)
        new["metadata"]["annotations"] = {**annotations, **given}
        cluster.writes.controller_update(spaces, old, new, "cluster-policy-controller")
    return None
