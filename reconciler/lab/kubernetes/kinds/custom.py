"""CustomResourceDefinitions, and what the server does to custom resources: defaults, pruning, validation by schema.

Rules in CEL are not evaluated, but for those of Routes (see `route`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reconciler.lab.kubernetes.kinds import Behaviour
from reconciler.lab.kubernetes.schema import Json, Object
from reconciler.lab.kubernetes.status import (
    Problem,
    duplicate,
    invalid,
    invalid_text,
    quoted,
    required,
    too_long,
    unsupported,
)

_BLOCKING = {
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
}
UNCHECKED = Problem(
    "<nil>",
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing "
    "errors to complete validation",
)


def blocking(problems: list[Problem]) -> bool:
    """Whether these problems keep the server from going on to CEL rules."""
    return any(problem.reason in _BLOCKING for problem in problems)


def fill_defaults(value: Json, schema: Object) -> None:
    """Fills in the defaults of a structural schema."""
    if isinstance(value, dict):
        for key, part in (schema.get("properties") or {}).items():
            if "default" in part and (key not in value or (value[key] is None and not part.get("nullable"))):
                value[key] = _copy(part["default"])
            if key in value:
                fill_defaults(value[key], part)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for part_value in value.values():
                fill_defaults(part_value, extra)
    elif isinstance(value, list):
        for item in value:
            fill_defaults(item, schema.get("items") or {})


def _copy(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def drop_nulls(value: Json, schema: Object) -> None:
    """Takes out nulls of fields that are not nullable and have no default."""
    if isinstance(value, dict):
        for key, part in (schema.get("properties") or {}).items():
            if key in value and value[key] is None and not part.get("nullable") and "default" not in part:
                if part.get("type") and not part.get("x-kubernetes-preserve-unknown-fields"):
                    del value[key]
            elif key in value:
                drop_nulls(value[key], part)
    elif isinstance(value, list):
        for item in value:
            drop_nulls(item, schema.get("items") or {})


def schema_problems(value: Object, schema: Object) -> list[Problem]:
    """What is wrong with a custom resource by its schema."""
    return list(_problems(value, schema, ""))


def _join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def _problems(value: Json, schema: Object, at: str) -> Iterator[Problem]:
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        return
    wanted = schema.get("type")
    if wanted and not _fits(value, wanted):
        kind = _json_type(value)
        text = f'Invalid value: "{kind}": {at} in body must be of type {wanted}: "{kind}"'
        yield Problem(at, "FieldValueTypeInvalid", text)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield unsupported(at, value, schema["enum"])
    if isinstance(value, str):
        yield from _string_problems(value, schema, at)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            text = f"{at} in body should be greater than or equal to {schema['minimum']}"
            yield invalid(at, value, text)
        if "maximum" in schema and value > schema["maximum"]:
            yield invalid(at, value, f"{at} in body should be less than or equal to {schema['maximum']}")
    elif isinstance(value, list):
        yield from _list_problems(value, schema, at)
    elif isinstance(value, dict):
        for key in schema.get("required") or []:
            if key not in value:
                yield required(_join(at, key))
        properties = schema.get("properties") or {}
        for key in sorted(value):
            if key in properties:
                yield from _problems(value[key], properties[key], _join(at, key))
            elif isinstance(schema.get("additionalProperties"), dict):
                yield from _problems(value[key], schema["additionalProperties"], _join(at, key))


def _fits(value: Json, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    return isinstance(value, _TYPES[wanted])


def _json_type(value: Json) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", dict: "object", list: "array", int: "integer", float: "number"}
    return names.get(type(value), "null")


def _string_problems(value: str, schema: Object, at: str) -> Iterator[Problem]:
    if len(value) < schema.get("minLength", 0):
        yield invalid(at, value, f"{at} in body should be at least {schema['minLength']} chars long")
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield too_long(at, schema["maxLength"])
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield invalid(at, value, f"{at} in body should match '{schema['pattern']}'")


def _list_problems(value: list[Json], schema: Object, at: str) -> Iterator[Problem]:
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        text = f"Too many: {len(value)}: must have at most {schema['maxItems']} items"
        yield Problem(at, "FieldValueTooMany", text)
    if len(value) < schema.get("minItems", 0):
        yield invalid(at, len(value), f"{at} in body should have at least {schema['minItems']} items")
    for index, item in enumerate(value):
        yield from _problems(item, schema.get("items") or {}, f"{at}[{index}]")
    keys = schema.get("x-kubernetes-list-map-keys") or []
    seen: list[Json] = []
    for index, item in enumerate(value):
        how = schema.get("x-kubernetes-list-type")
        key = {name: item.get(name) for name in keys} if how == "map" and isinstance(item, dict) else item
        if how in ("map", "set"):
            if key in seen:
                yield duplicate(f"{at}[{index}]", key)
            seen.append(key)


def _definition_defaults(value: Object) -> None:
    spec = value["spec"]
    names = spec["names"]
    names.setdefault("singular", names.get("kind", "").lower())
    names.setdefault("listKind", f"{names.get('kind', '')}List")
    spec.setdefault("conversion", {}).setdefault("strategy", "None")


def _definition_create(value: Object) -> None:
    stored = [version["name"] for version in value["spec"].get("versions") or [] if version.get("storage")]
    value["status"] = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}


def _definition_update(new: Object, old: Object) -> None:
    new["status"] = old["status"]


def _definition(value: Object) -> list[Problem]:
    found: list[Problem] = []
    spec = value["spec"]
    wanted = f"{spec['names'].get('plural', '')}.{spec.get('group', '')}"
    if value["metadata"].get("name") != wanted:
        text = 'must be spec.names.plural+"."+spec.group'
        found.append(invalid("metadata.name", value["metadata"].get("name"), text))
    for key in ("group", "scope"):
        if not spec.get(key):
            found.append(required(f"spec.{key}"))
    for index, version in enumerate(spec.get("versions") or []):
        if "openAPIV3Schema" not in (version.get("schema") or {}):
            found.append(required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required"))
    if sum(bool(version.get("storage")) for version in spec.get("versions") or []) != 1:
        text = "must have exactly one version marked as storage version"
        found.append(invalid_text("spec.versions", f"{quoted(spec.get('versions'))}: {text}"))
    return found


DEFINITION = Behaviour(
    defaults=_definition_defaults,
    create=_definition_create,
    update=_definition_update,
    validate=_definition,
    validate_update=lambda new, old: _definition(new),
    generation=True,
)


def behaviour(schema: Object) -> Behaviour:
    """The behaviour of custom resources of one schema."""

    def validate(value: Object) -> list[Problem]:
        found = schema_problems(value, schema)
        return [*found, UNCHECKED] if blocking(found) else found

    def defaults(value: Object) -> None:
        drop_nulls(value, schema)
        fill_defaults(value, schema)

    return Behaviour(
        defaults=defaults,
        validate=validate,
        validate_update=lambda new, old: validate(new),
        generation=True,
    )
