"""Validation of `metadata`: names, labels, annotations, owners, finalizers, and what must not change in an update."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import Problem, forbidden_field, invalid, required, too_long

NameRule = Callable[[str], list[str]]

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = rf"({_QUALIFIED})?"

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
    "is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
STANDARD_FINALIZERS = {"orphan", "foregroundDeletion", "kubernetes"}
ANNOTATIONS_LIMIT = 262144


def dns_subdomain(name: str) -> list[str]:
    """What is wrong with a name as a DNS subdomain."""
    found = ["must be no more than 253 characters"] if len(name) > 253 else []
    return found if re.fullmatch(_SUBDOMAIN, name) else [*found, _SUBDOMAIN_TEXT]


def dns_label(name: str) -> list[str]:
    """What is wrong with a name as a DNS label."""
    found = ["must be no more than 63 characters"] if len(name) > 63 else []
    if "." in name and re.fullmatch(_SUBDOMAIN, name):
        return [*found, "must not contain dots"]
    return found if re.fullmatch(_LABEL, name) else [*found, _LABEL_TEXT]


def path_segment(name: str) -> list[str]:
    """What is wrong with a name as a part of a URL: RBAC allows all else."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in name]


def qualified_name(name: str) -> list[str]:
    """What is wrong with a key of a label or an annotation."""
    prefix, slash, rest = name.rpartition("/")
    found = []
    if slash:
        if not prefix:
            found.append("prefix part must be non-empty")
        else:
            found += [f"prefix part {text}" for text in dns_subdomain(prefix)]
    if not rest:
        found.append("name part must be non-empty")
    elif len(rest) > 63:
        found.append("name part must be no more than 63 characters")
    return found if re.fullmatch(_QUALIFIED, rest) else [*found, _QUALIFIED_TEXT]


def label_value(value: str) -> list[str]:
    """What is wrong with a label's value."""
    found = ["must be no more than 63 characters"] if len(value) > 63 else []
    return found if re.fullmatch(_LABEL_VALUE, value) else [*found, _LABEL_VALUE_TEXT]


def label_problems(values: dict[str, str], at: str) -> list[Problem]:
    """Problems of labels."""
    found = []
    for key, value in values.items():
        found += [invalid(at, key, text) for text in qualified_name(key)]
        found += [invalid(at, value, text) for text in label_value(value)]
    return found


def annotation_problems(values: dict[str, str], at: str) -> list[Problem]:
    """Problems of annotations."""
    found = [invalid(at, key, text) for key in values for text in qualified_name(key.lower())]
    if sum(len(key.encode()) + len(value.encode()) for key, value in values.items()) > ANNOTATIONS_LIMIT:
        found.append(too_long(at, ANNOTATIONS_LIMIT))
    return found


def validate(metadata: Object, rule: NameRule, at: str = "metadata") -> list[Problem]:
    """Problems of an object's metadata by itself."""
    found: list[Problem] = []
    if prefix := metadata.get("generateName"):
        found += [invalid(f"{at}.generateName", prefix, text) for text in rule(prefix.rstrip("-."))]
    name = metadata.get("name")
    if not name:
        found.append(required(f"{at}.name", "name or generateName is required"))
    else:
        found += [invalid(f"{at}.name", name, text) for text in rule(name)]
    found += label_problems(metadata.get("labels") or {}, f"{at}.labels")
    found += annotation_problems(metadata.get("annotations") or {}, f"{at}.annotations")
    found += _owners(metadata.get("ownerReferences") or [], f"{at}.ownerReferences")
    for index, finalizer in enumerate(metadata.get("finalizers") or []):
        where = f"{at}.finalizers[{index}]"
        found += [invalid(where, finalizer, text) for text in qualified_name(finalizer)]
        if "/" not in finalizer and finalizer not in STANDARD_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            found.append(invalid(where, finalizer, text))
    return found


def _owners(owners: list[Any], at: str) -> list[Problem]:
    found = []
    for owner in owners:
        if not owner.get("apiVersion"):
            found.append(invalid(f"{at}.apiVersion", "", "version must not be empty"))
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                found.append(invalid(f"{at}.{key}", "", "must not be empty"))
    return found


def validate_update(new: Object, old: Object, at: str = "metadata") -> list[Problem]:
    """Problems of metadata in an update: what is immutable."""
    found: list[Problem] = []
    if old.get("deletionTimestamp"):
        fresh = [name for name in new.get("finalizers") or [] if name not in (old.get("finalizers") or [])]
        if fresh:
            names = ", ".join(f'"{name}"' for name in fresh)
            text = (
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                f"[]string{{{names}}}"
            )
            found.append(forbidden_field(f"{at}.finalizers", text))
    for key in ("name", "namespace", "uid", "creationTimestamp"):
        if new.get(key) != old.get(key):
            found.append(invalid(f"{at}.{key}", new.get(key), "field is immutable"))
    found += label_problems(new.get("labels") or {}, f"{at}.labels")
    found += annotation_problems(new.get("annotations") or {}, f"{at}.annotations")
    found += _owners(new.get("ownerReferences") or [], f"{at}.ownerReferences")
    return found
