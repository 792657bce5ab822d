"""OpenShift's Route: its CRD as far as it shows, and the admission that OpenShift adds to it.

Sources: https://docs.redhat.com/en/documentation/openshift_container_platform (Route [route.openshift.io/v1]) for the
fields; the recorded exchanges for limits and wording.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.lab.kubernetes.kinds import Behaviour
from reconciler.lab.kubernetes.kinds.custom import UNCHECKED, behaviour, blocking, schema_problems
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import Problem, forbidden_field, invalid, invalid_text, too_long

GROUP = "route.openshift.io"
HOST = (
    r"^([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])"
    r"(\.([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]{0,61}[a-zA-Z0-9]))*$"
)
_TARGET: Object = {
    "type": "object",
    "required": ["kind", "name"],
    "properties": {
        "kind": {"type": "string", "enum": ["Service", ""], "default": "Service"},
        "name": {"type": "string", "minLength": 1},
        "weight": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 256, "default": 100},
    },
}
_CONDITION: Object = {
    "type": "object",
    "required": ["status", "type"],
    "properties": {
        "type": {"type": "string"},
        "status": {"type": "string"},
        "reason": {"type": "string"},
        "message": {"type": "string"},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
    },
}
SCHEMA: Object = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["to"],
            "properties": {
                "alternateBackends": {
                    "type": "array",
                    "maxItems": 3,
                    "items": _TARGET,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name", "kind"],
                },
                "host": {"type": "string", "maxLength": 253, "pattern": HOST},
                "httpHeaders": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "path": {"type": "string", "pattern": "^/"},
                "port": {
                    "type": "object",
                    "required": ["targetPort"],
                    "properties": {"targetPort": {"x-kubernetes-int-or-string": True}},
                },
                "subdomain": {"type": "string", "maxLength": 253, "pattern": HOST},
                "tls": {
                    "type": "object",
                    "required": ["termination"],
                    "properties": {
                        "caCertificate": {"type": "string"},
                        "certificate": {"type": "string"},
                        "destinationCACertificate": {"type": "string"},
                        "externalCertificate": {
                            "type": "object",
                            "x-kubernetes-map-type": "atomic",
                            "properties": {"name": {"type": "string"}},
                        },
                        "insecureEdgeTerminationPolicy": {
                            "type": "string",
                            "enum": ["Allow", "None", "Redirect", ""],
                        },
                        "key": {"type": "string"},
                        "termination": {"type": "string", "enum": ["edge", "reencrypt", "passthrough"]},
                    },
                },
                "to": _TARGET,
                "wildcardPolicy": {
                    "type": "string",
                    "enum": ["None", "Subdomain", ""],
                    "default": "None",
                },
            },
        },
        "status": {
            "type": "object",
            "properties": {
                "ingress": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "conditions": {
                                "type": "array",
                                "items": _CONDITION,
                                "x-kubernetes-list-type": "map",
                                "x-kubernetes-list-map-keys": ["type"],
                            },
                            "host": {"type": "string"},
                            "routerCanonicalHostname": {"type": "string"},
                            "routerName": {"type": "string"},
                            "wildcardPolicy": {"type": "string"},
                        },
                    },
                    "x-kubernetes-list-type": "atomic",
                }
            },
        },
    },
}
DEFINITION: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"routes.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "routes", "singular": "route", "kind": "Route", "listKind": "RouteList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": SCHEMA},
                "subresources": {"status": {}},
            }
        ],
    },
}

_FORBIDDEN_BY_TERMINATION = {
    "passthrough": ("caCertificate", "certificate", "destinationCACertificate", "key"),
    "edge": ("destinationCACertificate",),
}


def _pile(at: str, field: str) -> list[Problem]:
    """The schema says such things by alternatives; the server lists all of them."""
    return [
        Problem("<nil>", "FieldValueInvalid", f'Invalid value: "": "{at}" must validate at least one schema (anyOf)'),
        too_long(f"{at}.{field}", 0),
        Problem("<nil>", "FieldValueInvalid", f'Invalid value: "": "{at}" must validate all the schemas (allOf)'),
    ]


def _alternatives(spec: Object) -> list[Problem]:
    found: list[Problem] = []
    tls = spec.get("tls") or {}
    termination = tls.get("termination")
    if spec.get("path") and termination == "passthrough":
        found += _pile("spec", "path")
    for field in _FORBIDDEN_BY_TERMINATION.get(str(termination), ()):
        if tls.get(field):
            found += _pile("spec.tls", field)
    if (spec.get("port") or {}).get("targetPort") in ("", 0):
        at = '"spec.port.targetPort"'
        for text in ("must not validate the schema (not)", "must validate all the schemas (allOf)"):
            found.append(Problem("<nil>", "FieldValueInvalid", f'Invalid value: "": {at} {text}'))
    return found


def _rules(spec: Object) -> list[Problem]:
    """The CEL rules of the CRD."""
    tls = spec.get("tls") or {}
    found = []
    if tls.get("termination") == "passthrough" and tls.get("insecureEdgeTerminationPolicy") == "Allow":
        text = "cannot have both spec.tls.termination: passthrough and spec.tls.insecureEdgeTerminationPolicy: Allow"
        found.append(invalid_text("spec.tls", text))
    if tls.get("certificate") and (tls.get("externalCertificate") or {}).get("name"):
        found.append(invalid_text("spec.tls", "cannot have both spec.tls.certificate and spec.tls.externalCertificate"))
    return found


def _validate(value: Object) -> list[Problem]:
    found = schema_problems(value, SCHEMA)
    spec = value.get("spec")
    if isinstance(spec, dict) and not any(problem.reason == "FieldValueTypeInvalid" for problem in found):
        found += _alternatives(spec)
        if not blocking(found):
            found += _rules(spec)
    return [*found, UNCHECKED] if blocking(found) else found


ROUTE: Behaviour = replace(
    behaviour(SCHEMA), validate=_validate, validate_update=lambda new, old: _validate(new), generation=True
)

CERTIFICATES = ("certificate", "key", "caCertificate", "destinationCACertificate")


def admit(value: Object, domain: str) -> None:
    """What OpenShift's admission fills in: the form of a full Route, and a host."""
    spec = value.setdefault("spec", {})
    target = spec.setdefault("to", {})
    target["kind"] = target.get("kind") or "Service"
    target.setdefault("name", "")
    if target.get("weight") is None:
        target["weight"] = 100
    spec["wildcardPolicy"] = spec.get("wildcardPolicy") or "None"
    if "tls" in spec and not (spec["tls"] or {}).get("termination"):
        spec["tls"] = {**(spec["tls"] or {}), "termination": "edge"}
    if "port" in spec and (spec["port"] or {}).get("targetPort") is None:
        spec["port"] = {"targetPort": ""}
    if not spec.get("host") and not spec.get("subdomain"):
        metadata = value["metadata"]
        spec["host"] = f"{metadata['name']}-{metadata['namespace']}.{domain}"
        metadata["annotations"] = {**(metadata.get("annotations") or {}), "openshift.io/host.generated": "true"}


def custom_host(value: Object, old: Object | None) -> list[Problem]:
    """What a user without `routes/custom-host` must not set."""
    spec, before = value.get("spec") or {}, (old or {}).get("spec") or {}
    text = "you do not have permission to set the host field of the route"
    found: list[Problem] = []
    if old is None:
        generated = (value["metadata"].get("annotations") or {}).get("openshift.io/host.generated") == "true"
        if spec.get("host") and not generated:
            found.append(forbidden_field("spec.host", text))
    elif spec.get("host") != before.get("host"):
        found.append(invalid("spec.host", spec.get("host"), text))
    tls, tls_before = spec.get("tls") or {}, before.get("tls") or {}
    for key in CERTIFICATES:
        if tls.get(key) and tls.get(key) != tls_before.get(key):
            why = "you do not have permission to set certificate fields on the route"
            at = f"spec.tls.{key}"
            found.append(forbidden_field(at, why) if old is None else invalid(at, tls[key], why))
    return found
