"""Whether an object works: the rules of kstatus, and those of Routes.

Source: https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus (its README tells the rules). Two rules
differ on purpose: a PersistentVolumeClaim that waits for its first consumer is no trouble, and a Job that runs counts
as ready.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from reconciler.model import Readiness

Verdict = tuple[Readiness, str]
"""And a reason, where it is not ready."""

READY: Final[Verdict] = (Readiness.READY, "")


def readiness(live: Mapping[str, Any]) -> Verdict:
    """Whether a live object works."""
    metadata = live.get("metadata") or {}
    if metadata.get("deletionTimestamp"):
        return Readiness.WAITING, "it is being deleted"
    status = live.get("status") or {}
    seen = status.get("observedGeneration")
    if seen is not None and metadata.get("generation") not in (None, seen):
        return Readiness.WAITING, "its controller has not seen the change yet"
    group = str(live.get("apiVersion", "")).rpartition("/")[0]
    rule = _RULES.get((group, str(live.get("kind", ""))))
    return rule(live, status) if rule else _by_conditions(status)


def conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Conditions by type."""
    return {str(one.get("type")): one for one in status.get("conditions") or () if isinstance(one, Mapping)}


def _says(condition: Mapping[str, Any] | None) -> str:
    if not condition:
        return ""
    return f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")


def _by_conditions(status: Mapping[str, Any]) -> Verdict:
    """Of any kind: the conditions that kstatus standardizes, then Ready."""
    found = conditions(status)
    for name, verdict in (("Stalled", Readiness.FAILED), ("Reconciling", Readiness.WAITING)):
        if (found.get(name) or {}).get("status") == "True":
            return verdict, _says(found[name])
    ready = found.get("Ready")
    if ready and ready.get("status") != "True":
        return Readiness.WAITING, _says(ready)
    return READY


def _deployment(live: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    found = conditions(status)
    progressing = found.get("Progressing") or {}
    if (
        progressing.get("reason") == "ProgressDeadlineExceeded"
        or (found.get("ReplicaFailure") or {}).get("status") == "True"
    ):
        cause = found.get("ReplicaFailure") or progressing
        return Readiness.FAILED, _says(cause)
    return _replicas(live, status, "updatedReplicas", "availableReplicas")


def _replicas(live: Mapping[str, Any], status: Mapping[str, Any], *counted: str) -> Verdict:
    wanted = (live.get("spec") or {}).get("replicas", 1)
    if status.get("observedGeneration") is None:
        return Readiness.WAITING, "its controller has not seen it yet"
    for name in counted:
        if (status.get(name) or 0) < wanted:
            return Readiness.WAITING, f"{name} is {status.get(name) or 0} of {wanted}"
    if (status.get("replicas") or 0) > wanted:
        return Readiness.WAITING, f"{status['replicas'] - wanted} old Pods are still there"
    return READY


def _stateful_set(live: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    spec = live.get("spec") or {}
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return _replicas(live, status, "readyReplicas")
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    verdict = _replicas(live, status, "readyReplicas")
    if verdict[0] is not Readiness.READY:
        return verdict
    wanted = spec.get("replicas", 1) - partition
    if (status.get("updatedReplicas") or 0) < wanted:
        return Readiness.WAITING, f"updatedReplicas is {status.get('updatedReplicas') or 0} of {wanted}"
    if not partition and status.get("currentRevision") != status.get("updateRevision"):
        return Readiness.WAITING, "old Pods are still there"
    return READY


def _daemon_set(live: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    if status.get("observedGeneration") is None:
        return Readiness.WAITING, "its controller has not seen it yet"
    wanted = status.get("desiredNumberScheduled") or 0
    for name in ("updatedNumberScheduled", "numberAvailable"):
        if (status.get(name) or 0) < wanted:
            return Readiness.WAITING, f"{name} is {status.get(name) or 0} of {wanted}"
    return READY


def _job(live: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    found = conditions(status)
    if (found.get("Failed") or {}).get("status") == "True":
        return Readiness.FAILED, _says(found["Failed"])
    if (live.get("spec") or {}).get("suspend") or status.get("startTime"):
        return READY
    return Readiness.WAITING, "it has not started"


def _pod(live: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    phase = status.get("phase")
    ready = conditions(status).get("Ready") or {}
    if phase == "Succeeded" or (phase == "Running" and ready.get("status") == "True"):
        return READY
    if phase == "Failed":
        return Readiness.FAILED, str(status.get("message") or status.get("reason") or "it failed")
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in ("CrashLoopBackOff", "InvalidImageName", "CreateContainerConfigError"):
            return Readiness.FAILED, f"{container.get('name')}: {waiting['reason']}"
    return Readiness.WAITING, _says(ready) or f"it is {phase or 'not scheduled'}"


def _claim(live: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    return (Readiness.FAILED, "its volume is lost") if status.get("phase") == "Lost" else READY


def _definition(live: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    found = conditions(status)
    refused = found.get("NamesAccepted") or {}
    if refused.get("status") == "False":
        return Readiness.FAILED, _says(refused)
    if (found.get("Established") or {}).get("status") == "True":
        return READY
    return Readiness.WAITING, "it is not established yet"


def _namespace(live: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    return READY if status.get("phase") == "Active" else (Readiness.WAITING, f"it is {status.get('phase')}")


def _service(live: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    spec = live.get("spec") or {}
    if spec.get("type") == "LoadBalancer" and not (status.get("loadBalancer") or {}).get("ingress"):
        return Readiness.WAITING, "it has no address of a load balancer yet"
    return READY


def _route(live: Mapping[str, Any], status: Mapping[str, Any]) -> Verdict:
    """Every router that saw it must have admitted it."""
    ingress = status.get("ingress") or []
    if not ingress:
        return Readiness.WAITING, "no router has seen it yet"
    for one in ingress:
        admitted = conditions(one).get("Admitted") or {}
        if admitted.get("status") != "True":
            refused = admitted.get("status") == "False"
            return (Readiness.FAILED if refused else Readiness.WAITING), _says(admitted) or "it is not admitted yet"
    return READY


_RULES: Final[Mapping[tuple[str, str], Callable[[Mapping[str, Any], Mapping[str, Any]], Verdict]]] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): lambda live, status: _replicas(live, status, "availableReplicas"),
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("batch", "Job"): _job,
    ("", "Pod"): _pod,
    ("", "PersistentVolumeClaim"): _claim,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("", "Namespace"): _namespace,
    ("", "Service"): _service,
    ("route.openshift.io", "Route"): _route,
}
