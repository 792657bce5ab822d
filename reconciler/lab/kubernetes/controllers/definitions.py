"""CustomResourceDefinitions are accepted (NamesAccepted, Established), and go together with their objects."""

from __future__ import annotations

import copy

from reconciler.lab.kubernetes.controllers import Cluster
from reconciler.lab.kubernetes.deletion import DEFINITION_FINALIZER, DeleteOptions
from reconciler.lab.kubernetes.schema import Object

PLACE = ("apiextensions.k8s.io", "customresourcedefinitions")


def definitions(cluster: Cluster) -> float | None:
    """Gives new definitions their conditions."""
    resource = cluster.resource(*PLACE)
    for old in cluster.store.view(resource.place):
        status = old.get("status") or {}
        if "deletionTimestamp" in old["metadata"]:
            _remove(cluster, old)
            continue
        if status.get("conditions"):
            continue
        now = cluster.writes.now()
        new = copy.deepcopy(old)
        new["status"] = {
            "conditions": [
                {
                    "type": "NamesAccepted",
                    "status": "True",
                    "lastTransitionTime": now,
                    "reason": "NoConflicts",
                    "message": "no conflicts found",
                },
                {
                    "type": "Established",
                    "status": "True",
                    "lastTransitionTime": now,
                    "reason": "InitialNamesAccepted",
                    "message": "the initial names have been accepted",
                },
            ],
            "acceptedNames": copy.deepcopy(old["spec"]["names"]),
            "storedVersions": status.get("storedVersions"),
        }
        cluster.writes.controller_update(resource, old, new, "kube-apiserver", "status")
    return None


def _remove(cluster: Cluster, definition: Object) -> None:
    """Deletes the objects of a definition that is being deleted, then the definition itself."""
    place = f"{definition['spec']['group']}/{definition['spec']['names']['plural']}"
    served = [one for one in cluster.api.resources() if one.place == place]
    for value in cluster.store.view(place):
        meta = value["metadata"]
        if served and "deletionTimestamp" not in meta:
            cluster.writes.delete(served[0], meta.get("namespace", ""), meta["name"], DeleteOptions())
    finalizers = definition["metadata"].get("finalizers") or []
    if not cluster.store.view(place) and DEFINITION_FINALIZER in finalizers:
        new = copy.deepcopy(definition)
        new["metadata"]["finalizers"] = [one for one in finalizers if one != DEFINITION_FINALIZER]
        cluster.writes.update(cluster.resource(*PLACE), definition, new, subresource="finalize")
