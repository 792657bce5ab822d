"""Subresources that are more than a part of an object: scale, token, finalize."""

from __future__ import annotations

import copy
import time

from reconciler.lab.kubernetes import patches
from reconciler.lab.kubernetes.decode import load_json
from reconciler.lab.kubernetes.resources import Resource
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import STALE, conflict, no_such_resource
from reconciler.lab.kubernetes.wire import Goal, Request, Response, WriteOptions
from reconciler.lab.kubernetes.writes import Writes


def answer(writes: Writes, request: Request, goal: Goal, owner: Object, text: str) -> Response:
    """Answers a request to a subresource of an object; `text` is the request's body. Raises ApiError."""
    if goal.part == "scale":
        return _scale(writes, request, goal, owner, text)
    if goal.part == "token":
        return _token(writes, request, goal, owner, text)
    if goal.part == "finalize":
        body, _ = load_json(text)
        new = copy.deepcopy(owner)
        new["spec"]["finalizers"] = (body.get("spec") or {}).get("finalizers") or []
        return Response(200, writes.update(goal.resource, owner, new, subresource="finalize"))
    if goal.part == "log":
        return Response(200, text="", content_type="text/plain")
    raise no_such_resource()


def _scale_of(resource: Resource, value: Object) -> Object:
    meta = value["metadata"]
    keys = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": (value.get("status") or {}).get("replicas", 0)}
    if not resource.custom:
        chosen = (value["spec"].get("selector") or {}).get("matchLabels") or {}
        status["selector"] = ",".join(f"{key}={label}" for key, label in sorted(chosen.items()))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in keys if key in meta},
        "spec": {"replicas": value["spec"].get("replicas", 0)},
        "status": status,
    }


def _scale(writes: Writes, request: Request, goal: Goal, old: Object, text: str) -> Response:
    scale = _scale_of(goal.resource, old)
    if request.method == "GET":
        return Response(200, scale)
    kind = "UpdateOptions" if request.method == "PUT" else "PatchOptions"
    options = WriteOptions.read(request, kind)
    body, _ = load_json(text)
    new = body if request.method == "PUT" else patches.merge_patch(scale, body)
    given = (new.get("metadata") or {}).get("resourceVersion")
    if given and given != old["metadata"]["resourceVersion"]:
        raise conflict(goal.resource.plural, goal.resource.group, goal.name, STALE)
    replicas = (new.get("spec") or {}).get("replicas", 0)
    done = writes.scaled(goal.resource, old, replicas, options.manager, options.dry_run)
    return Response(200, _scale_of(goal.resource, done))


def _token(writes: Writes, request: Request, goal: Goal, owner: Object, text: str) -> Response:
    options = WriteOptions.read(request, "CreateOptions")
    body, _ = load_json(text)
    spec = body.get("spec") or {}
    spec.setdefault("expirationSeconds", 3600)
    tracker = writes.tracker(goal.resource)
    entry = {
        "manager": options.manager,
        "operation": "Update",
        "apiVersion": "authentication.k8s.io/v1",
        "time": tracker.now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {f"f:{key}": {} for key in sorted(spec)}},
        "subresource": "token",
    }
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(writes.clock() + spec["expirationSeconds"]))
    value = {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": goal.name,
            "namespace": goal.namespace,
            "uid": owner["metadata"]["uid"],
            "creationTimestamp": writes.now(),
            "managedFields": [entry],
        },
        "spec": {**spec, "boundObjectRef": spec.get("boundObjectRef")},
        "status": {"token": f"{goal.namespace}-{goal.name}-token", "expirationTimestamp": stamp},
    }
    return Response(201, value)
