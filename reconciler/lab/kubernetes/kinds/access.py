"""Role, ClusterRole, RoleBinding, ClusterRoleBinding."""

from __future__ import annotations

from functools import partial

from reconciler.lab.kubernetes import metadata
from reconciler.lab.kubernetes.kinds import Behaviour
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import Problem, invalid, invalid_text, quoted, required, unsupported

GROUP = "rbac.authorization.k8s.io"


def _role(value: Object) -> list[Problem]:
    found: list[Problem] = []
    for index, rule in enumerate(value.get("rules") or []):
        at = f"rules[{index}]"
        if not rule.get("verbs"):
            found.append(required(f"{at}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if value["kind"] == "Role":
                text = "namespaced rules cannot apply to non-resource URLs"
                found.append(invalid(f"{at}.nonResourceURLs", rule["nonResourceURLs"], text))
            continue
        if not rule.get("apiGroups"):
            found.append(required(f"{at}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            found.append(required(f"{at}.resources", "resource rules must supply at least one resource"))
    return found


ROLE = Behaviour(
    validate=_role, validate_update=lambda new, old: _role(new), name=metadata.path_segment, metadata_checks=2
)


def _binding_defaults(value: Object) -> None:
    role = value["roleRef"]
    if not role.get("apiGroup"):
        role["apiGroup"] = GROUP
    for subject in value.get("subjects") or []:
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = GROUP


def _binding(value: Object, kinds: tuple[str, ...] = ("Role", "ClusterRole")) -> list[Problem]:
    found: list[Problem] = []
    role = value["roleRef"]
    if role.get("apiGroup") != GROUP:
        found.append(unsupported("roleRef.apiGroup", role.get("apiGroup"), [GROUP]))
    if role.get("kind") not in kinds:
        found.append(unsupported("roleRef.kind", role.get("kind", ""), kinds))
    if not role.get("name"):
        found.append(required("roleRef.name"))
    for index, subject in enumerate(value.get("subjects") or []):
        at = f"subjects[{index}]"
        if not subject.get("name"):
            found.append(required(f"{at}.name"))
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            found.append(unsupported(f"{at}.kind", subject.get("kind"), ["ServiceAccount", "User", "Group"]))
    return found


def _binding_update(new: Object, old: Object, kinds: tuple[str, ...] = ("Role", "ClusterRole")) -> list[Problem]:
    found = _binding(new, kinds)
    if new["roleRef"] != old["roleRef"]:
        role = new["roleRef"]
        shown = quoted({"APIGroup": role.get("apiGroup"), "Kind": role.get("kind"), "Name": role.get("name")})
        found.append(invalid_text("roleRef", f"{shown}: cannot change roleRef"))
    return found


ROLE_BINDING = Behaviour(
    defaults=_binding_defaults,
    validate=_binding,
    validate_update=_binding_update,
    name=metadata.path_segment,
    metadata_checks=2,
)
CLUSTER_ROLE_BINDING = Behaviour(
    defaults=_binding_defaults,
    validate=partial(_binding, kinds=("ClusterRole",)),
    validate_update=partial(_binding_update, kinds=("ClusterRole",)),
    name=metadata.path_segment,
    metadata_checks=2,
)
