"""DELETE: preconditions, propagation, finalizers, and what kinds do in their own way.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/ and the recorded exchanges.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from reconciler.lab.kubernetes.resources import Resource
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import (
    Problem,
    conflict,
    forbidden,
    invalid,
    not_found,
    unprocessable,
    unsupported,
)
from reconciler.lab.kubernetes.store import ordered
from reconciler.lab.kubernetes.typed import same

if TYPE_CHECKING:
    from reconciler.lab.kubernetes.writes import Writes

PROTECTED = ("default", "kube-system", "kube-public")
DEFINITION_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


@dataclass(frozen=True)
class DeleteOptions:
    """What a DELETE says."""

    policy: str = ""
    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


def delete_options(body: Object, query: dict[str, str], dry_run: list[str]) -> DeleteOptions:
    """Reads what a DELETE says, in its body or its query. Raises ApiError 422."""
    policy = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
    orphan = body.get("orphanDependents", query.get("orphanDependents"))
    problems: list[Problem] = []
    if policy and orphan is not None:
        text = "orphanDependents and deletionPropagation cannot be both set"
        problems.append(invalid("propagationPolicy", policy, text))
    elif policy and policy not in ("Foreground", "Background", "Orphan"):
        problems.append(unsupported("propagationPolicy", policy, ["Foreground", "Background", "Orphan", "nil"]))
    if orphan is not None and not policy:
        policy = "Orphan" if orphan in (True, "true") else "Background"
    grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    given = body.get("preconditions") or {}
    if problems:
        raise unprocessable("DeleteOptions", "meta.k8s.io", "", problems)
    return DeleteOptions(
        policy,
        None if grace is None else int(grace),
        given.get("uid") or "",
        given.get("resourceVersion") or "",
        bool(dry_run or body.get("dryRun")),
    )


def delete(
    writes: Writes, resource: Resource, namespace: str, name: str, options: DeleteOptions
) -> tuple[Object, bool]:
    """Deletes an object, or marks it as being deleted. Gives back the object and whether it is gone."""
    old = writes.store.get(resource.place, namespace, name)
    if old is None:
        raise not_found(resource.plural, resource.group, name)
    if resource.place == "/namespaces" and name in PROTECTED:
        raise forbidden("namespaces", "", name, "this namespace may not be deleted")
    meta = old["metadata"]
    _preconditions(resource, meta, options)
    if resource.place == "/namespaces":
        return _delete_namespace(writes, resource, old, options.dry_run)
    if resource.place == "apiextensions.k8s.io/customresourcedefinitions":
        return _delete_definition(writes, resource, old, options.dry_run), False
    if resource.kind == "Pod" and old["spec"].get("nodeName") and options.grace_seconds != 0:
        return _delete_gracefully(writes, resource, old, options), False
    marks = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
    finalizers = [name for name in meta.get("finalizers") or [] if name not in marks.values()]
    if options.policy in marks:
        finalizers.append(marks[options.policy])
    elif not options.policy:
        finalizers = list(meta.get("finalizers") or [])
    new = copy.deepcopy(old)
    if finalizers:
        new["metadata"]["finalizers"] = finalizers
    else:
        new["metadata"].pop("finalizers", None)
    if "deletionTimestamp" not in meta:
        _mark(writes, resource, new, 0)
    elif resource.kind == "Pod":
        new["metadata"]["deletionGracePeriodSeconds"] = 0
    if finalizers:
        if same(new, old) or options.dry_run:
            return ordered(new), False
        return writes.store.put(resource.place, new), False
    if options.dry_run:
        return old, True
    gone = writes.store.delete(resource.place, namespace, name)
    if resource.kind == "Pod":
        new["metadata"]["resourceVersion"] = gone["metadata"]["resourceVersion"]
        gone = ordered(new)
    return gone, True


def _mark(writes: Writes, resource: Resource, value: Object, grace: int) -> None:
    meta = value["metadata"]
    at = datetime.fromtimestamp(writes.clock(), UTC) + timedelta(seconds=grace)
    meta["deletionTimestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    meta["deletionGracePeriodSeconds"] = grace
    if meta.get("generation"):
        meta["generation"] += 1


def _preconditions(resource: Resource, meta: Object, options: DeleteOptions) -> None:
    if options.uid and options.uid != meta["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta['uid']}). "
            "The object might have been deleted and then recreated"
        )
        raise conflict(resource.kind, resource.group, meta["name"], why)
    if options.resource_version and options.resource_version != meta["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
            f"ResourceVersion in record ({meta['resourceVersion']}). The object might have been modified"
        )
        raise conflict(resource.kind, resource.group, meta["name"], why)


def _delete_namespace(writes: Writes, resource: Resource, old: Object, dry_run: bool) -> tuple[Object, bool]:
    if "deletionTimestamp" in old["metadata"]:
        return old, False
    new = copy.deepcopy(old)
    new["metadata"]["deletionTimestamp"] = writes.now()
    new["status"]["phase"] = "Terminating"
    return (ordered(new) if dry_run else writes.store.put(resource.place, new)), False


def _delete_definition(writes: Writes, resource: Resource, old: Object, dry_run: bool) -> Object:
    """A definition stays until its objects are gone: see `controllers.definitions`."""
    if "deletionTimestamp" in old["metadata"]:
        return old
    new = copy.deepcopy(old)
    new["metadata"]["deletionTimestamp"] = writes.now()
    new["metadata"]["finalizers"] = [*(new["metadata"].get("finalizers") or []), DEFINITION_FINALIZER]
    return ordered(new) if dry_run else writes.store.put(resource.place, new)


def _delete_gracefully(writes: Writes, resource: Resource, old: Object, options: DeleteOptions) -> Object:
    grace = options.grace_seconds
    if grace is None:
        grace = old["spec"].get("terminationGracePeriodSeconds", 30)
    if "deletionTimestamp" in old["metadata"]:
        return old
    new = copy.deepcopy(old)
    _mark(writes, resource, new, grace)
    return ordered(new) if options.dry_run else writes.store.put(resource.place, new)
