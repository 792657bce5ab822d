"""ConfigMap, Secret, Namespace, ServiceAccount."""

from __future__ import annotations

import base64
import json
import re

from reconciler.lab.kubernetes import metadata
from reconciler.lab.kubernetes.kinds import Behaviour
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import (
    Problem,
    forbidden_field,
    invalid,
    invalid_text,
    required,
    too_long,
)

SIZE_LIMIT = 1024 * 1024
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_IMMUTABLE = "field is immutable when `immutable` is set"


def _key_problems(value: Object, part: str) -> list[Problem]:
    found = []
    for key in sorted(value.get(part) or {}):
        if not _KEY.fullmatch(key):
            found.append(invalid(f"{part}[{key}]", key, _KEY_TEXT))
        elif key in (".", "..") or len(key) > 253:
            found.append(invalid(f"{part}[{key}]", key, f"must not be {key!r}" if len(key) < 3 else "too long"))
    return found


def _config_map(value: Object) -> list[Problem]:
    found = _key_problems(value, "data")
    for key in sorted(value.get("data") or {}):
        if key in (value.get("binaryData") or {}):
            found.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
    found += _key_problems(value, "binaryData")
    size = sum(len(text.encode()) for text in (value.get("data") or {}).values())
    size += sum(len(text) * 3 // 4 for text in (value.get("binaryData") or {}).values())
    return [*found, too_long("[]", SIZE_LIMIT)] if size > SIZE_LIMIT else found


def _immutable(new: Object, old: Object, parts: tuple[str, ...]) -> list[Problem]:
    if not old.get("immutable"):
        return []
    found = [] if new.get("immutable") else [forbidden_field("immutable", _IMMUTABLE)]
    for part in parts:
        if (new.get(part) or {}) != (old.get(part) or {}):
            found.append(forbidden_field(part, _IMMUTABLE))
    return found


CONFIG_MAP = Behaviour(
    validate=_config_map,
    validate_update=lambda new, old: [*_immutable(new, old, ("data", "binaryData")), *_config_map(new)],
    metadata_checks=2,
)


def _string_data(value: Object) -> None:
    """`stringData` is written into `data` and never kept."""
    strings = value.pop("stringData", None)
    if strings:
        encoded = {key: base64.b64encode((text or "").encode()).decode() for key, text in strings.items()}
        value["data"] = {**(value.get("data") or {}), **encoded}


def _secret_type(value: Object) -> None:
    value["type"] = value.get("type") or "Opaque"


_REQUIRED_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def _secret(value: Object) -> list[Problem]:
    found = _key_problems(value, "data")
    data = value.get("data") or {}
    if sum(len(text) * 3 // 4 for text in data.values()) > SIZE_LIMIT:
        found.append(too_long("data", SIZE_LIMIT))
    kind = value.get("type", "")
    for key in _REQUIRED_KEYS.get(kind, ()):
        if key not in data:
            found.append(required(f"data[{key}]"))
        elif kind.startswith("kubernetes.io/dockerc") and (why := _json_problem(data[key])):
            found.append(invalid_text(f"data[{key}]", f'"<secret contents redacted>": {why}'))
    if kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        found += [required("data[username]"), required("data[password]")]
    if kind == "kubernetes.io/service-account-token":
        name = (value["metadata"].get("annotations") or {}).get("kubernetes.io/service-account.name")
        if not name:
            found.append(required("metadata.annotations[kubernetes.io/service-account.name]"))
    return found


def _json_problem(text: str) -> str:
    raw = base64.b64decode(text or "").decode("utf-8", "replace")
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        if error.pos >= len(raw.rstrip()):
            return "unexpected end of JSON input"
        return f"invalid character {raw[error.pos]!r} looking for beginning of value"
    return ""


def _secret_update(new: Object, old: Object) -> list[Problem]:
    found = []
    if new.get("type") != old.get("type"):
        found.append(invalid("type", new.get("type"), "field is immutable"))
    return [*found, *_immutable(new, old, ("data",)), *_secret(new)]


def _secret_warnings(value: Object) -> list[str]:
    if value.get("type") == "kubernetes.io/tls":
        certificate = base64.b64decode((value.get("data") or {}).get("tls.crt") or "")
        if b"-----BEGIN" not in certificate:
            return ["tls: failed to find any PEM data in certificate input"]
    return []


SECRET = Behaviour(
    convert=_string_data,
    defaults=_secret_type,
    validate=_secret,
    validate_update=_secret_update,
    warnings=_secret_warnings,
    metadata_checks=2,
)


def _namespace_defaults(value: Object) -> None:
    """The name as a label: a client can neither leave it out nor change it."""
    if name := value["metadata"].get("name"):
        value["metadata"]["labels"] = {**(value["metadata"].get("labels") or {}), "kubernetes.io/metadata.name": name}


def _namespace_create(value: Object) -> None:
    finalizers = (value.get("spec") or {}).get("finalizers") or []
    value["spec"] = {"finalizers": finalizers if "kubernetes" in finalizers else [*finalizers, "kubernetes"]}
    value["status"] = {"phase": "Active"}


def _namespace_update(new: Object, old: Object) -> None:
    new["spec"], new["status"] = old["spec"], old["status"]


POD_SECURITY_LEVELS = ("privileged", "baseline", "restricted")


def _namespace(value: Object) -> list[Problem]:
    found = []
    for key, level in sorted((value["metadata"].get("labels") or {}).items()):
        if re.fullmatch(r"pod-security\.kubernetes\.io/(enforce|audit|warn)", key) and level not in POD_SECURITY_LEVELS:
            names = ", ".join(POD_SECURITY_LEVELS)
            found.append(invalid(f"metadata.labels[{key}]", level, f"must be one of {names}"))
    return found


NAMESPACE = Behaviour(
    defaults=_namespace_defaults,
    create=_namespace_create,
    update=_namespace_update,
    validate=_namespace,
    validate_update=lambda new, old: _namespace(new),
    name=metadata.dns_label,
    answers_object=True,
)

SERVICE_ACCOUNT = Behaviour(answers_object=True, metadata_checks=2)
