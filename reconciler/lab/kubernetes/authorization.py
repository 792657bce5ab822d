"""Who may do what: users by their tokens, rights by Roles and ClusterRoles.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.store import Store

RBAC = "rbac.authorization.k8s.io"
ANONYMOUS = "system:anonymous"


@dataclass(frozen=True)
class Deed:
    """What somebody wants to do."""

    verb: str
    group: str
    resource: str  # with its subresource: deployments/scale
    namespace: str = ""
    name: str = ""


def allowed(store: Store, user: str, deed: Deed) -> bool:
    """Whether a user may do something by the roles that are bound to it."""
    subjects = {("User", user)}
    if user == ANONYMOUS:
        subjects.add(("Group", "system:unauthenticated"))
    else:
        subjects.add(("Group", "system:authenticated"))
    if user.startswith("system:serviceaccount:"):
        _, _, namespace, name = user.split(":", 3)
        subjects |= {("ServiceAccount", f"{namespace}/{name}"), ("Group", "system:serviceaccounts")}
        subjects.add(("Group", f"system:serviceaccounts:{namespace}"))
    bindings = store.view(f"{RBAC}/clusterrolebindings")
    if deed.namespace:
        bindings += store.view(f"{RBAC}/rolebindings", deed.namespace)
    return any(_covers(rule, deed) for binding in bindings for rule in _rules(store, binding, subjects))


def _rules(store: Store, binding: Object, subjects: set[tuple[str, str]]) -> Iterable[Object]:
    namespace = binding["metadata"].get("namespace", "")
    for subject in binding.get("subjects") or []:
        name = subject.get("name", "")
        if subject.get("kind") == "ServiceAccount":
            name = f"{subject.get('namespace') or namespace}/{name}"
        if (subject.get("kind"), name) in subjects:
            break
    else:
        return
    role = binding["roleRef"]
    if role["kind"] == "ClusterRole":
        found = store.get(f"{RBAC}/clusterroles", "", role["name"])
    else:
        found = store.get(f"{RBAC}/roles", namespace, role["name"])
    yield from (found or {}).get("rules") or []


def _covers(rule: Object, deed: Deed) -> bool:
    def has(key: str, value: str) -> bool:
        values = rule.get(key) or []
        return value in values or "*" in values

    if not (has("verbs", deed.verb) and has("apiGroups", deed.group) and has("resources", deed.resource)):
        return False
    names = rule.get("resourceNames") or []
    return not names or deed.name in names


def refusal(user: str, deed: Deed) -> str:
    """The server's reason for a 403."""
    where = f'in the namespace "{deed.namespace}"' if deed.namespace else "at the cluster scope"
    return f'User "{user}" cannot {deed.verb} resource "{deed.resource}" in API group "{deed.group}" {where}'
