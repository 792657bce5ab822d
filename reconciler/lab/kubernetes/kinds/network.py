"""NetworkPolicy, Ingress, PersistentVolumeClaim: defaults and the checks that a plan can meet."""

from __future__ import annotations

from reconciler.lab.kubernetes.kinds import Behaviour
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import Problem, forbidden_field, required, unsupported


def _policy_defaults(value: Object) -> None:
    spec = value["spec"]
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    for rule in [*(spec.get("ingress") or []), *(spec.get("egress") or [])]:
        for port in rule.get("ports") or []:
            port.setdefault("protocol", "TCP")


def _policy(value: Object) -> list[Problem]:
    return [
        unsupported(f"spec.policyTypes[{index}]", kind, ["Ingress", "Egress"])
        for index, kind in enumerate(value["spec"].get("policyTypes") or [])
        if kind not in ("Ingress", "Egress")
    ]


NETWORK_POLICY = Behaviour(
    defaults=_policy_defaults, validate=_policy, validate_update=lambda new, old: _policy(new), generation=True
)


def _ingress_create(value: Object) -> None:
    value["status"] = {"loadBalancer": {}}


def _keep_status(new: Object, old: Object) -> None:
    new["status"] = old["status"]


_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")


def _ingress(value: Object) -> list[Problem]:
    spec = value["spec"]
    found: list[Problem] = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        text = "either `defaultBackend` or `rules` must be specified"
        found.append(Problem("spec", "FieldValueInvalid", f"Invalid value: {text}"))
    for index, rule in enumerate(spec.get("rules") or []):
        for number, path in enumerate((rule.get("http") or {}).get("paths") or []):
            at = f"spec.rules[{index}].http.paths[{number}].pathType"
            if not path.get("pathType"):
                found.append(required(at, "pathType must be specified"))
            elif path["pathType"] not in _PATH_TYPES:
                found.append(unsupported(at, path["pathType"], _PATH_TYPES))
    return found


INGRESS = Behaviour(
    create=_ingress_create,
    update=_keep_status,
    validate=_ingress,
    validate_update=lambda new, old: _ingress(new),
    generation=True,
)


def _claim_defaults(value: Object) -> None:
    value["spec"].setdefault("volumeMode", "Filesystem")
    value["status"].setdefault("phase", "Pending")


def _claim(value: Object) -> list[Problem]:
    spec = value["spec"]
    found = [] if spec.get("accessModes") else [required("spec.accessModes", "at least 1 access mode is required")]
    if "storage" not in (spec["resources"].get("requests") or {}):
        found.append(required("spec.resources[storage]"))
    return found


def _claim_update(new: Object, old: Object) -> list[Problem]:
    ours, theirs = ({k: v for k, v in value["spec"].items() if k != "resources"} for value in (new, old))
    if ours != theirs and old["spec"].get("volumeName"):
        text = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        return [forbidden_field("spec", text)]
    return _claim(new)


CLAIM = Behaviour(defaults=_claim_defaults, update=_keep_status, validate=_claim, validate_update=_claim_update)
