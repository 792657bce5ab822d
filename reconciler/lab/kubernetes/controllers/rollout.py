"""Deployments, their ReplicaSets and Pods, and a stand-in for scheduler and kubelet.

Sources: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/ and the recorded sequences of status.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from datetime import UTC, datetime
from typing import Any

from reconciler.lab.kubernetes.controllers import Cluster
from reconciler.lab.kubernetes.deletion import DeleteOptions
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import ApiError
from reconciler.lab.kubernetes.typed import same

MANAGER = "kube-controller-manager"
HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
NEVER_READY = ("fake/state", "never-ready")
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def _owned(cluster: Cluster, place: str, owner: Object) -> list[Object]:
    uid = owner["metadata"]["uid"]
    return [
        value
        for value in cluster.store.view(place, owner["metadata"]["namespace"])
        if any(one["uid"] == uid and one.get("controller") for one in value["metadata"].get("ownerReferences") or [])
    ]


def _owner(kind: str, value: Object) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "name": value["metadata"]["name"],
        "uid": value["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _template_of(replica_set: Object) -> Object:
    template = copy.deepcopy(replica_set["spec"]["template"])
    labels = template["metadata"].get("labels") or {}
    labels.pop(HASH, None)
    result: Object = template
    return result


def _hash(template: Object) -> str:
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:10])


def _number(value: Any, total: int, up: bool) -> int:
    if isinstance(value, str) and value.endswith("%"):
        part = total * int(value[:-1]) / 100
        return math.ceil(part) if up else math.floor(part)
    return int(value)


def _limits(spec: Object) -> tuple[int, int]:
    """How many Pods more, and how many available ones fewer, a rolling update may have."""
    if spec["strategy"]["type"] == "Recreate":
        return 0, 0
    rolling = spec["strategy"]["rollingUpdate"]
    surge = _number(rolling["maxSurge"], spec["replicas"], up=True)
    unavailable = _number(rolling["maxUnavailable"], spec["replicas"], up=False)
    return surge, unavailable if surge or unavailable else 1


def deployments(cluster: Cluster) -> float | None:
    """Moves every Deployment one step on."""
    due: list[float] = []
    for value in cluster.store.view("apps/deployments"):
        if "deletionTimestamp" not in value["metadata"]:
            at = _Rollout(cluster, value).step()
            if at is not None:
                due.append(at)
    return min(due) if due else None


class _Rollout:
    """One Deployment."""

    def __init__(self, cluster: Cluster, deployment: Object) -> None:
        self.cluster = cluster
        self.resource = cluster.resource("apps", "deployments")
        self.sets = cluster.resource("apps", "replicasets")
        self.value = deployment
        self.spec = deployment["spec"]
        self.all = [
            one for one in _owned(cluster, self.sets.place, deployment) if "deletionTimestamp" not in one["metadata"]
        ]
        fits = [one for one in self.all if same(_template_of(one), self.spec["template"])]
        self.new = fits[0] if fits else None
        self.old = [one for one in self.all if one is not self.new]

    def step(self) -> float | None:
        """Creates or scales one ReplicaSet, or writes the status. Gives back the deadline that runs."""
        if self.spec.get("paused"):
            return self._paused()
        surge, unavailable = _limits(self.spec)
        recreate = self.spec["strategy"]["type"] == "Recreate"
        if self.new is None:
            waiting = recreate and (
                any(one["spec"]["replicas"] for one in self.old) or any(self._pods(one) for one in self.old)
            )
            if not waiting:
                self._create(surge)
                return None
        elif self._found():
            return None
        if self._scale(surge, unavailable, recreate):
            return None
        return self._status()

    def _pods(self, replica_set: Object) -> list[Object]:
        return _owned(self.cluster, "/pods", replica_set)

    def _total(self) -> int:
        return sum(one["spec"]["replicas"] for one in self.all)

    def _create(self, surge: int) -> None:
        template = copy.deepcopy(self.spec["template"])
        name = _hash(template)
        labels = {**(template["metadata"].get("labels") or {}), HASH: name}
        template["metadata"]["labels"] = labels
        replicas = self.spec["replicas"]
        count = replicas
        if self.spec["strategy"]["type"] == "RollingUpdate":
            count = max(0, min(replicas + surge - self._total(), replicas))
        revision = str(max((self._revision(one) for one in self.all), default=0) + 1)
        selector = copy.deepcopy(self.spec["selector"])
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH: name}
        meta = self.value["metadata"]
        value = {
            "metadata": {
                "name": f"{meta['name']}-{name}",
                "namespace": meta["namespace"],
                "labels": labels,
                "annotations": {
                    "deployment.kubernetes.io/desired-replicas": str(replicas),
                    "deployment.kubernetes.io/max-replicas": str(replicas + surge),
                    REVISION: revision,
                },
                "ownerReferences": [_owner("Deployment", self.value)],
            },
            "spec": {"replicas": count, "selector": selector, "template": template},
        }
        made = self.cluster.writes.controller_create(self.sets, value, MANAGER)
        new = copy.deepcopy(self.value)
        new["metadata"]["annotations"] = {**(meta.get("annotations") or {}), REVISION: revision}
        text = f'Created new replica set "{made["metadata"]["name"]}"'
        self._set(new["status"], "Progressing", "True", "NewReplicaSetCreated", text)
        self._write(new)

    def _revision(self, replica_set: Object) -> int:
        return int((replica_set["metadata"].get("annotations") or {}).get(REVISION, "0"))

    def _found(self) -> bool:
        """An older template again: its ReplicaSet becomes the newest revision."""
        assert self.new is not None
        newest = max((self._revision(one) for one in self.old), default=0)
        if self._revision(self.new) > newest:
            return False
        revision = str(newest + 1)
        again = copy.deepcopy(self.new)
        again["metadata"]["annotations"] = {**(again["metadata"].get("annotations") or {}), REVISION: revision}
        self.cluster.writes.controller_update(self.sets, self.new, again, MANAGER)
        new = copy.deepcopy(self.value)
        new["metadata"]["annotations"] = {**(new["metadata"].get("annotations") or {}), REVISION: revision}
        name = self.new["metadata"]["name"]
        self._set(new["status"], "Progressing", "True", "FoundNewReplicaSet", f'Found new replica set "{name}"')
        self._write(new)
        return True

    def _scale(self, surge: int, unavailable: int, recreate: bool) -> bool:
        """Scales one ReplicaSet; False where nothing is to be scaled."""
        wanted = self.spec["replicas"]
        if recreate:
            for one in self.old:
                if one["spec"]["replicas"]:
                    return self._resize(one, 0)
            if self.new is not None and self.new["spec"]["replicas"] != wanted:
                return self._resize(self.new, wanted)
            return False
        assert self.new is not None
        have = self.new["spec"]["replicas"]
        if have > wanted:
            return self._resize(self.new, wanted)
        room = wanted + surge - self._total()
        if have < wanted and room > 0:
            return self._resize(self.new, min(wanted, have + room))
        active = [one for one in self.old if one["spec"]["replicas"]]
        if not active:
            return False
        least = wanted - unavailable
        lacking = have - self.new["status"].get("availableReplicas", 0)
        spare = self._total() - least - lacking
        for one in active:
            idle = one["spec"]["replicas"] - one["status"].get("availableReplicas", 0)
            if idle > 0 and spare > 0:
                return self._resize(one, one["spec"]["replicas"] - min(idle, spare))
        spare = sum(one["status"].get("availableReplicas", 0) for one in self.all) - least
        if spare > 0:
            count = active[0]["spec"]["replicas"]
            return self._resize(active[0], count - min(count, spare))
        return False

    def _resize(self, replica_set: Object, count: int) -> bool:
        new = copy.deepcopy(replica_set)
        new["spec"]["replicas"] = count
        self.cluster.writes.controller_update(self.sets, replica_set, new, MANAGER)
        return True

    def _paused(self) -> float | None:
        """A paused Deployment is scaled, but a new template is not rolled out."""
        now: Object = next(
            (one for one in self.value["status"].get("conditions") or [] if one["type"] == "Progressing"), {}
        )
        if now.get("reason") != "DeploymentPaused":
            new = copy.deepcopy(self.value)
            self._set(new["status"], "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
            self._write(new)
            return None
        active = [one for one in self.all if one["spec"]["replicas"]]
        newest = max(self.all, key=self._revision, default=None)
        target = active[0] if len(active) == 1 else (newest if not active else None)
        if target is not None and target["spec"]["replicas"] != self.spec["replicas"]:
            self._resize(target, self.spec["replicas"])
            return None
        return self._status()

    def _set(self, status: Object, kind: str, state: str, reason: str, message: str) -> None:
        """Sets a condition as the server does: an equal one stays, another goes to the end."""
        conditions = status.setdefault("conditions", [])
        old = next((one for one in conditions if one["type"] == kind), None)
        if old and (old["status"], old["reason"]) == (state, reason):
            return
        now = self.cluster.writes.now()
        conditions[:] = [one for one in conditions if one["type"] != kind]
        at = old["lastTransitionTime"] if old and old["status"] == state else now
        conditions.append(_condition(kind, state, now, at, reason, message))

    def _write(self, new: Object) -> None:
        self.cluster.writes.controller_update(self.resource, self.value, new, MANAGER, "status")

    def _counts(self) -> Object:
        def total(key: str, sets: list[Object]) -> int:
            return sum(one["status"].get(key, 0) for one in sets)

        available = total("availableReplicas", self.all)
        found: Object = {
            "observedGeneration": self.value["metadata"]["generation"],
            "replicas": total("replicas", self.all),
            "updatedReplicas": total("replicas", [self.new] if self.new else []),
            "readyReplicas": total("readyReplicas", self.all),
            "availableReplicas": available,
            "unavailableReplicas": max(0, self._total() - available),
        }
        found = {key: count for key, count in found.items() if count}
        found["terminatingReplicas"] = total("terminatingReplicas", self.all)
        return found

    def _status(self) -> float | None:
        old = self.value["status"]
        new: Object = {**self._counts(), "conditions": copy.deepcopy(old.get("conditions") or [])}
        _, unavailable = _limits(self.spec)
        if new.get("availableReplicas", 0) >= self.spec["replicas"] - unavailable:
            self._set(new, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        else:
            text = "Deployment does not have minimum availability."
            self._set(new, "Available", "False", "MinimumReplicasUnavailable", text)
        due = None if self.spec.get("paused") else self._progress(old, new)
        self._failures(new)
        if not same(old, new):
            self._write({**self.value, "status": new})
        return due

    def _progress(self, old: Object, new: Object) -> float | None:
        """The condition Progressing: done, going on, or out of time."""
        current = next((one for one in new["conditions"] if one["type"] == "Progressing"), None)
        replicas, updated = new.get("replicas", 0), new.get("updatedReplicas", 0)
        if replicas == updated and current and current["reason"] == "NewReplicaSetAvailable":
            return None
        name = self.new["metadata"]["name"] if self.new else self.value["metadata"]["name"]
        wanted = self.spec["replicas"]
        if wanted == replicas == updated == new.get("availableReplicas", 0):
            text = f'ReplicaSet "{name}" has successfully progressed.'
            self._set(new, "Progressing", "True", "NewReplicaSetAvailable", text)
            return None
        gone = old.get("replicas", 0) - old.get("updatedReplicas", 0)
        more = any(
            new.get(key, 0) > old.get(key, 0) for key in ("updatedReplicas", "readyReplicas", "availableReplicas")
        )
        if more or replicas - updated < gone:
            now = self.cluster.writes.now()
            kept = current and current["status"] == "True"
            at = current["lastTransitionTime"] if current and kept else now
            conditions = [one for one in new["conditions"] if one["type"] != "Progressing"]
            text = f'ReplicaSet "{name}" is progressing.'
            new["conditions"] = [*conditions, _condition("Progressing", "True", now, at, "ReplicaSetUpdated", text)]
            return self._deadline(now)
        if current is None or current["reason"] == "ProgressDeadlineExceeded":
            return None
        end = self._deadline(current["lastUpdateTime"])
        if self.cluster.time >= end:
            text = f'ReplicaSet "{name}" has timed out progressing.'
            self._set(new, "Progressing", "False", "ProgressDeadlineExceeded", text)
            return None
        return end

    def _deadline(self, since: str) -> float:
        at = datetime.strptime(since, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        return float(at + self.spec["progressDeadlineSeconds"])

    def _failures(self, new: Object) -> None:
        sets = [one for one in (self.new, *self.old) if one is not None]
        found = [
            condition
            for one in sets
            for condition in one["status"].get("conditions") or []
            if condition["type"] == "ReplicaFailure"
        ]
        new["conditions"] = [one for one in new["conditions"] if one["type"] != "ReplicaFailure" or found]
        if found:
            self._set(new, "ReplicaFailure", found[0]["status"], found[0]["reason"], found[0]["message"])


def _condition(kind: str, state: str, updated: str, changed: str, reason: str, message: str) -> Object:
    return {
        "type": kind,
        "status": state,
        "lastUpdateTime": updated,
        "lastTransitionTime": changed,
        "reason": reason,
        "message": message,
    }


def _ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def replica_sets(cluster: Cluster) -> float | None:
    """Makes and removes Pods until there are as many as wanted; counts them in the status."""
    for value in cluster.store.view("apps/replicasets"):
        if "deletionTimestamp" not in value["metadata"]:
            _replica_set(cluster, value)
    return None


def _replica_set(cluster: Cluster, value: Object) -> None:
    resource, pods_resource = cluster.resource("apps", "replicasets"), cluster.resource("", "pods")
    pods = _owned(cluster, "/pods", value)
    active = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    wanted = value["spec"]["replicas"]
    failure = ""
    if len(active) < wanted:
        for _ in range(wanted - len(active)):
            try:
                active.append(_pod(cluster, value))
            except ApiError as error:
                failure = str(error)
                break
    elif len(active) > wanted:
        # Pods that are not ready go first, then the youngest.
        active.sort(key=lambda pod: (_ready(pod), -int(pod["metadata"]["resourceVersion"])))
        for pod in active[: len(active) - wanted]:
            cluster.writes.delete(pods_resource, pod["metadata"]["namespace"], pod["metadata"]["name"], DeleteOptions())
        pods = _owned(cluster, "/pods", value)
        active = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    ready = sum(_ready(pod) for pod in active)
    terminating = sum("deletionTimestamp" in pod["metadata"] for pod in pods)
    status: Object = {"replicas": len(active)}
    if active:
        status["fullyLabeledReplicas"] = len(active)
    if ready:
        status["readyReplicas"] = status["availableReplicas"] = ready
    status["terminatingReplicas"] = terminating
    status["observedGeneration"] = value["metadata"]["generation"]
    if failure:
        old = next(iter(value["status"].get("conditions") or []), None)
        # A refused Pod gets another generated name at every try: the first message stays.
        status["conditions"] = [old] if old else [_refused(cluster, failure)]
    if not same(status, value["status"]):
        cluster.writes.controller_update(resource, value, {**value, "status": status}, MANAGER, "status")


def _refused(cluster: Cluster, message: str) -> Object:
    return {
        "type": "ReplicaFailure",
        "status": "True",
        "lastTransitionTime": cluster.writes.now(),
        "reason": "FailedCreate",
        "message": message,
    }


def _pod(cluster: Cluster, replica_set: Object) -> Object:
    template = copy.deepcopy(replica_set["spec"]["template"])
    meta = template["metadata"]
    pod_meta: Object = {
        "generateName": f"{replica_set['metadata']['name']}-",
        "namespace": replica_set["metadata"]["namespace"],
        "labels": meta.get("labels") or {},
        "ownerReferences": [_owner("ReplicaSet", replica_set)],
    }
    if meta.get("annotations"):
        pod_meta["annotations"] = meta["annotations"]
    value = {"metadata": pod_meta, "spec": template["spec"]}
    return cluster.writes.controller_create(cluster.resource("", "pods"), value, MANAGER)


def kubelet(cluster: Cluster) -> float | None:
    """Binds Pods to the node `fake`, makes them Ready after a while, and removes them when they are deleted."""
    resource = cluster.resource("", "pods")
    due: list[float] = []
    for pod in cluster.store.view(resource.place):
        meta = pod["metadata"]
        if "deletionTimestamp" in meta:
            if not meta.get("finalizers"):
                cluster.writes.delete(resource, meta["namespace"], meta["name"], DeleteOptions(grace_seconds=0))
            continue
        if not pod["spec"].get("nodeName"):
            new = copy.deepcopy(pod)
            new["spec"]["nodeName"] = "fake"
            new["status"]["conditions"] = [_pod_condition("PodScheduled", "True", cluster.writes.now())]
            new["status"]["startTime"] = cluster.writes.now()
            cluster.store.put(resource.place, new)
            cluster.memory.setdefault("bound", {})[meta["uid"]] = cluster.time
            continue
        at = cluster.memory.setdefault("bound", {}).get(meta["uid"], 0.0) + cluster.pod_start_seconds
        if pod["status"]["phase"] == "Pending":
            if cluster.time < at:
                due.append(at)
            else:
                _start(cluster, pod)
    return min(due) if due else None


def _pod_condition(kind: str, state: str, now: str) -> Object:
    return {"type": kind, "status": state, "lastProbeTime": None, "lastTransitionTime": now}


def _start(cluster: Cluster, pod: Object) -> None:
    now = cluster.writes.now()
    ready = (pod["metadata"].get("annotations") or {}).get(NEVER_READY[0]) != NEVER_READY[1]
    state = "True" if ready else "False"
    new = copy.deepcopy(pod)
    kept = [one for one in pod["status"].get("conditions") or [] if one["type"] == "PodScheduled"]
    added = [("Initialized", "True"), ("Ready", state), ("ContainersReady", state)]
    address = f"10.128.{cluster.store.revision // 250 % 250}.{cluster.store.revision % 250 + 2}"
    new["status"].update(
        phase="Running",
        conditions=[*kept, *(_pod_condition(kind, value, now) for kind, value in added)],
        podIP=address,
        podIPs=[{"ip": address}],
        hostIP="192.0.2.1",
        containerStatuses=[
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": f"sha256:{hashlib.sha256(one['image'].encode()).hexdigest()}",
                "ready": ready,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
                "lastState": {},
            }
            for one in pod["spec"]["containers"]
        ],
    )
    cluster.writes.controller_update(cluster.resource("", "pods"), pod, new, "kubelet", "status")
