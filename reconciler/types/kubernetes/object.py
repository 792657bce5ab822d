"""kubernetes.object: an object of any kind that a Kubernetes API serves, by server-side apply.

What would change is what a dry run of the apply says, compared with what is live: defaults of the server, other
spellings of a quantity, and fields that nobody declared never differ. Each difference is the path of a field; who set
it is read from `managedFields`. A dry run cannot see three things: Pods of a Deployment that will be refused (the
server warns, and the plan shows it), node ports that are taken, and fields that other tools added.

What was planned is what is changed: an update carries uid and resourceVersion of the last look, and the server refuses
it where somebody was faster. What an object must not change in place is listed under `fixed`, and means a new object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from reconciler.model import Change, Readiness, Request, ResourceType, Risk, State, Step
from reconciler.types.kubernetes import places
from reconciler.types.kubernetes.fieldpaths import MISSING
from reconciler.types.kubernetes.looking import BEFORE, body, probe
from reconciler.types.kubernetes.manifest import KubernetesObject, complete
from reconciler.types.kubernetes.names import MANAGER
from reconciler.types.kubernetes.order import among, needs, parts, provides

PATIENCE: Final = 300.0
"""Seconds that a rollout may take."""
PRECIOUS: Final = frozenset(("Namespace", "PersistentVolumeClaim", "PersistentVolume", "CustomResourceDefinition"))
"""Kinds whose objects hold data, or other objects: never replaced."""
_SERVING: Final = frozenset(("Deployment", "StatefulSet", "DaemonSet", "Service", "Ingress", "Route", "Pod"))


def steps(change: Change[KubernetesObject]) -> Iterable[Step]:
    """One apply; before it, a take-over from client-side tools where that is wanted."""
    spec, seen = change.spec, change.seen
    path = str(seen.get("path") or places.guessed(spec))
    what = places.display(spec)
    if change.after is None:
        if seen.get("keep") and change.resource.absent:
            return
        found = {key: seen[key] for key in ("uid", "resourceVersion") if seen.get(key)}
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        checked: dict[str, Any] = {**options, "preconditions": found} if found else options
        yield Request("DELETE", path, body=checked, title=f"delete {what}")
        return
    guard: dict[str, Any] = {}
    if change.before is not None and seen.get("uid"):
        guard = {"uid": seen["uid"]}
        if seen.get("managedFields"):
            yield _take_over(path, seen, what)
        else:
            guard["resourceVersion"] = seen["resourceVersion"]
    sent = complete(spec)
    if change.before is not None:
        sent = body(spec, seen.get("omitted") or (), seen.get("kept") or {})
    sent = {**sent, "metadata": {**sent["metadata"], **guard}}
    # What is made must not be there yet: where it is, a forced apply would overwrite it.
    force = "true" if change.before is not None and spec.conflicts == "take" else "false"
    yield Request(
        "PATCH",
        path,
        {"fieldManager": MANAGER, "force": force},
        sent,
        again_while="could not find the requested resource" if change.before is None else "",
        title=_title(change, what),
    )
    if change.before is not None and seen.get("managedFields") == []:
        mark = "/metadata/managedFields/1"
        forget = [{"op": "test", "path": f"{mark}/manager", "value": BEFORE}, {"op": "remove", "path": mark}]
        yield Request("PATCH", path, body=forget, title=f"forget that others set the fields of {what} before")


def _take_over(path: str, seen: State, what: str) -> Request:
    operations = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": seen["resourceVersion"]},
        {"op": "replace", "path": "/metadata/managedFields", "value": seen["managedFields"]},
    ]
    return Request("PATCH", path, body=operations, title=f"take over the fields of client-side tools in {what}")


def _title(change: Change[KubernetesObject], what: str) -> str:
    if change.before is None:
        return f"create {what}"
    names = sorted(differing(change))
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"apply {what}" + (f": {shown}" if names else "")


def differing(change: Change[KubernetesObject]) -> list[str]:
    """The paths of fields that differ."""
    found: dict[str, None] = {}
    for difference in change.differences:
        before, after = difference.before, difference.after
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found.update(
                dict.fromkeys(k for k in {**after, **before} if before.get(k, MISSING) != after.get(k, MISSING))
            )
    return list(found)


def why(change: Change[KubernetesObject]) -> Iterable[str]:
    """Who set what differs, what goes, and what the server warns of."""
    seen = change.seen
    if change.after is None:
        return
    by_owner: dict[str, list[str]] = {}
    for path, owner in (seen.get("owners") or {}).items():
        by_owner.setdefault(owner, []).append(path)
    for owner, found in by_owner.items():
        refused = "; `conflicts: fail` lets the apply fail" if change.spec.conflicts == "fail" else ""
        yield f"{owner} set {', '.join(found)}{refused}"
    if seen.get("dropped"):
        yield f"{', '.join(seen['dropped'])} is not declared any more"
    if seen.get("managedFields"):
        gone = seen.get("leftovers") or []
        yield "a client-side tool owns fields, which are taken over" + (f"; {', '.join(gone)} goes" if gone else "")
    if seen.get("fixed"):
        yield f"{', '.join(seen['fixed'])} cannot be changed in place"
    for text in seen.get("warnings") or ():
        yield f"the server warns: {text}"


def ready(state: State) -> Readiness:
    """By the rules of its kind."""
    found: Readiness = state.get("works", Readiness.READY)
    return found


def risk(change: Change[KubernetesObject]) -> Risk | None:
    """What goes with an object, or while it is made anew."""
    if change.before is None or (change.after is not None and "fixed" not in change.changed):
        return None
    kind = change.spec.kind
    if kind in PRECIOUS:
        inside = {"Namespace": "everything in it", "CustomResourceDefinition": "all objects of its kind"}
        return Risk(
            "data-loss", f"{inside.get(kind, 'the data on the volume')} goes with {places.display(change.spec)}"
        )
    if kind in _SERVING:
        return Risk(
            "downtime", f"{places.display(change.spec)} is not there" + (" for a while" if change.after else "")
        )
    return None


TYPE: ResourceType[Any] = ResourceType(
    "kubernetes.object",
    KubernetesObject,
    probe,
    steps,
    ready=ready,
    patience=PATIENCE,
    immutable=frozenset(("fixed",)),
    provides=provides,
    needs=needs,
    among=among,
    risk=risk,
    why=why,
    parts=parts,
)
