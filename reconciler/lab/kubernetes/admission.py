"""Admission: what the server changes in a request, or refuses, before it validates the object.

Namespaces must exist; on OpenShift Pods need a security context constraint and Routes a host; Pod security warns or
refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reconciler.lab.kubernetes import pod_security, security_constraints
from reconciler.lab.kubernetes.authorization import Deed
from reconciler.lab.kubernetes.kinds import pod, route
from reconciler.lab.kubernetes.resources import Resource
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import Problem, forbidden, not_found
from reconciler.lab.kubernetes.store import Store

SYSTEM = "system:apiserver"  # who controllers are: no rights are checked


@dataclass
class Admission:
    """The admission plugins of a cluster."""

    store: Store
    may: Callable[[str, Deed], bool]
    warn: Callable[[str], None]
    suffix: Callable[[], str]
    openshift: bool
    pod_security_default: str
    ingress_domain: str

    def admit_new(self, resource: Resource, value: Object, user: str) -> None:
        """What comes before a create: the namespace must be there, a Pod is completed. Raises ApiError 403 and 404."""
        if resource.namespaced:
            self._namespace(resource, value)
        if resource.place == "/pods":
            pod.pod_admission(value)
            if self.openshift:
                self._constrain(value, user)

    def complete(self, resource: Resource, value: Object) -> None:
        """What OpenShift fills in into a Route, in a create or an update."""
        if self.openshift and _is_route(resource):
            route.admit(value, self.ingress_domain)

    def _namespace(self, resource: Resource, value: Object) -> None:
        namespace, name = value["metadata"].get("namespace", ""), value["metadata"].get("name", "")
        found = self.store.get("/namespaces", "", namespace)
        if found is None:
            raise not_found("namespaces", "", namespace)
        if "deletionTimestamp" in found["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise forbidden(resource.plural, resource.group, name, why, [cause])

    def _constrain(self, value: Object, user: str) -> None:
        """OpenShift's admission of a Pod: its ServiceAccount, then its security context constraint."""
        namespace = value["metadata"]["namespace"]
        spec = value["spec"]
        name = spec.get("serviceAccountName") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = self.store.get("/serviceaccounts", namespace, name)
        if account is None:
            shown = value["metadata"].get("name") or value["metadata"].get("generateName", "")
            why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
            raise forbidden("pods", "", shown, why)
        security_constraints.service_account(value, account, self.suffix)

        def may_use(constraint: str) -> str:
            deed = Deed("use", "security.openshift.io", "securitycontextconstraints", namespace, constraint)
            is_open = any(one.open for one in security_constraints.CONSTRAINTS if one.name == constraint)
            if is_open or (user != SYSTEM and self.may(user, deed)):
                return "user"
            return "serviceaccount" if self.may(f"system:serviceaccount:{namespace}:{name}", deed) else ""

        found = self.store.get("/namespaces", "", namespace) or {"metadata": {}}
        security_constraints.admit(value, found["metadata"].get("annotations") or {}, may_use)

    def host_problems(self, resource: Resource, value: Object, old: Object | None, user: str) -> list[Problem]:
        """What a user must not set in a Route."""
        if not (self.openshift and _is_route(resource)):
            return []
        namespace = value["metadata"].get("namespace", "")
        verb = "create" if old is None else "update"
        if self.may(user, Deed(verb, route.GROUP, "routes/custom-host", namespace)):
            return []
        return route.custom_host(value, old)

    def pod_security(self, resource: Resource, value: Object, old: Object | None) -> None:
        """Warns, or raises ApiError 403 for a Pod that its namespace does not allow."""
        if resource.place == "/namespaces":
            self._namespace_levels(value, old)
            return
        spec = _pod_spec(resource, value)
        if spec is None:
            return
        namespace = self.store.get("/namespaces", "", value["metadata"].get("namespace", ""))
        if resource.kind == "Pod" and (old is None or old["spec"] != value["spec"]):
            level, version = pod_security.level_of(namespace, "enforce", self.pod_security_default)
            if found := pod_security.violations(level, spec):
                why = f'violates PodSecurity "{level}:{version}": {pod_security.text(found)}'
                raise forbidden("pods", "", value["metadata"]["name"], why)
        level, version = pod_security.level_of(namespace, "warn", self.pod_security_default)
        if found := pod_security.violations(level, spec):
            self.warn(f'would violate PodSecurity "{level}:{version}": {pod_security.text(found)}')

    def _namespace_levels(self, value: Object, old: Object | None) -> None:
        if old is None:
            return
        level, version = pod_security.level_of(value, "enforce", self.pod_security_default)
        if (level, version) == pod_security.level_of(old, "enforce", self.pod_security_default):
            return
        name = value["metadata"]["name"]
        groups: dict[str, list[str]] = {}
        for one in self.store.view("/pods", name):
            if found := pod_security.violations(level, one["spec"]):
                groups.setdefault(", ".join(what for what, _ in found), []).append(one["metadata"]["name"])
        if groups:
            self.warn(
                f'existing pods in namespace "{name}" violate the new PodSecurity enforce level "{level}:{version}"'
            )
            for what, pods in groups.items():
                more = f" (and {len(pods) - 1} other pod{'s' if len(pods) > 2 else ''})" if len(pods) > 1 else ""
                self.warn(f"{pods[0]}{more}: {what}")


def _is_route(resource: Resource) -> bool:
    return resource.place == f"{route.GROUP}/routes"


def _pod_spec(resource: Resource, value: Object) -> Object | None:
    if resource.custom:
        return None
    if resource.kind == "Pod":
        found: Any = value["spec"]
    elif resource.kind == "CronJob":
        found = value["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    elif resource.group in ("apps", "batch"):
        found = value["spec"]["template"]["spec"]
    else:
        return None
    return found if isinstance(found, dict) else None
