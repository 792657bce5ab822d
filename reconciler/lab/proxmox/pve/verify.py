"""Checking parameters as Proxmox VE does: every parameter has at most one complaint, all are told at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from reconciler.lab.proxmox.pve import known
from reconciler.lab.proxmox.pve.api import METHODS, PARAMETERS, SETS
from reconciler.lab.proxmox.pve.formats import PATTERNS, complaint
from reconciler.lab.proxmox.pve.property_strings import PROPERTY_STRINGS
from reconciler.lab.proxmox.pve.refusal import bad_parameters
from reconciler.lab.proxmox.schema import Method, Parameter, Tables

TABLES: Final = Tables(
    PARAMETERS, METHODS, sets=SETS, property_strings=PROPERTY_STRINGS, slots=known.SLOTS, patterns=PATTERNS
)
"""The methods of Proxmox VE."""

UNKNOWN: Final = "property is not defined in schema and the schema does not allow additional properties"
MISSING: Final = "property is missing and it is not optional"
_NUMBER: Final = re.compile(r"[+-]?(\d+\.\d+|\d+\.|\.\d+|\d+)([eE][+-]?\d+)?")
_TYPES: Final = {
    "boolean": re.compile(r"[01]"),
    "integer": re.compile(r"[+-]?\d+"),
    "number": _NUMBER,
}
_WORDS: Final = {"1": "1", "on": "1", "yes": "1", "true": "1", "0": "0", "off": "0", "no": "0", "false": "0"}

Value = str | list[str]


class BadFormat(ValueError):
    """The value does not have the format; the message ends as the real one does, with a newline."""


def split_list(text: str) -> list[str]:
    """The elements of a list in one string: separated by commas, semicolons, blanks or NUL."""
    return [part for part in re.split(r"[,;\s\0]+", text) if part]


def parameters(method: Method, given: Mapping[str, Value], in_path: Mapping[str, str]) -> dict[str, Value]:
    """The parameters of a request after the check. Refused (400): some do not fit."""
    errors: dict[str, str] = {}
    values: dict[str, Value] = dict(in_path)
    for name, value in given.items():
        if name in in_path:
            if value != in_path[name]:
                errors[name] = "duplicate parameter (already defined in URI) with conflicting values!"
            continue
        values[name] = value
    for name, raw in list(values.items()):
        parameter = method.parameters.get(name)
        if parameter is None:
            if not method.open and name not in in_path:
                errors[name] = UNKNOWN
            continue
        value = values[name] = _as_declared(raw, parameter)
        found = check(name, value, parameter)
        if found and name not in errors:
            errors[name] = found
        if parameter.requires and parameter.requires not in values:
            errors.setdefault(parameter.requires, f"missing property required by '{name}'")
    for name, parameter in method.parameters.items():
        if not parameter.optional and name not in values:
            errors.setdefault(name, MISSING)
    if errors:
        raise bad_parameters(errors)
    return values


def _as_declared(value: Value, parameter: Parameter) -> Value:
    """One value for an array becomes a list, several for a list in one string become that string."""
    if parameter.type == "array":
        return [value] if isinstance(value, str) else value
    if isinstance(value, list) and (parameter.format or "").endswith("-list"):
        return ",".join(value)
    return value


def check(name: str, value: Value, parameter: Parameter) -> str | None:
    """What is wrong with a value, or None. The first complaint counts."""
    if isinstance(value, list):
        if parameter.type == "array":
            return next((found for item in value if (found := _check_text(name, item, parameter))), None)
        return f"type check ('{parameter.type}') failed - got ARRAY"
    pattern = _TYPES.get(parameter.type)
    if pattern and not pattern.fullmatch(value):
        return f"type check ('{parameter.type}') failed - got '{value}'"
    return _check_text(name, value, parameter)


def _check_text(name: str, value: str, parameter: Parameter) -> str | None:
    if parameter.format:
        try:
            check_format(parameter.format, value, name)
        except BadFormat as error:
            return f"invalid format - {error}"
    if parameter.pattern is not None and not re.fullmatch(f"(?:{parameter.pattern})\n?", value):
        return "value does not match the regex pattern"
    shortest, longest = parameter.length
    if longest is not None and len(value) > longest:
        return f"value may only be {longest} characters long"
    if shortest is not None and len(value) < shortest:
        return f"value must be at least {shortest} characters long"
    low, high = parameter.range
    if (low is not None or high is not None) and _NUMBER.fullmatch(value):
        if low is not None and float(value) < low:
            return f"value must have a minimum value of {low}"
        if high is not None and float(value) > high:
            return f"value must have a maximum value of {high}"
    if parameter.enum and value not in parameter.enum:
        return f"value '{value}' does not have a value in the enumeration '{', '.join(parameter.enum)}'"
    return None


def check_format(name: str, value: str, path: str) -> None:
    """Check a value against a format by its name. BadFormat: it does not fit."""
    group = TABLES.group(name.removeprefix("@"))
    if group is not None:
        _check_group(name.removeprefix("@"), parse_group(group, value), group, path)
        return
    if name.endswith("-list"):
        for part in split_list(value):
            check_format(name[:-5], part, path)
        return
    if name.endswith("-opt"):
        if value:
            check_format(name[:-4], value, path)
        return
    found = complaint(name, value)
    if found:
        raise BadFormat(f"{found}\n")


def parse_group(group: Mapping[str, Parameter], text: str) -> dict[str, str]:
    """The keys of a property string, aliases resolved, booleans as 0 and 1. BadFormat: it is none."""
    found: dict[str, str] = {}
    bare = next((key for key, parameter in group.items() if parameter.bare), None)

    def put(key: str, value: str) -> None:
        if key in found:
            raise BadFormat(f"duplicate key in comma-separated list property: {key}\n")
        found[key] = value

    for part in text.split(","):
        if not part:
            continue
        key, equals, value = part.partition("=")
        if equals and key and value:
            parameter = group.get(key)
            if parameter is not None and parameter.alias:
                if parameter.key_alias:
                    put(parameter.key_alias, key)
                key = parameter.alias
            put(key, value)
        elif equals:
            raise BadFormat("missing key in comma-separated list property\n")
        elif bare is None:
            raise BadFormat("value without key, but schema does not define a default key\n")
        else:
            put(bare, part)
    for key, value in found.items():
        if key in group and group[key].type == "boolean":
            found[key] = _WORDS.get(value.lower(), value)
    return found


def _check_group(name: str, found: Mapping[str, str], group: Mapping[str, Parameter], path: str) -> None:
    errors: dict[str, str] = {}
    for key, value in found.items():
        parameter = group.get(key)
        wrong = UNKNOWN if parameter is None else check(key, value, parameter)
        if wrong:
            errors[key] = wrong
        if parameter is not None and parameter.requires and parameter.requires not in found:
            errors.setdefault(parameter.requires, f"missing property required by '{key}'")
    for key, parameter in group.items():
        if not parameter.optional and not parameter.alias and key not in found:
            errors[key] = MISSING
    if errors:
        lines = "".join(f"{path}.{key}: {text.rstrip()}\n" for key, text in sorted(errors.items()))
        raise BadFormat(f"format error\n{lines}")
    if name == "prune-backups" and found.get("keep-all") == "1" and len(found) > 1:
        raise BadFormat("keep-all cannot be set together with other options.\n")
    if name == "pve-vm-cpu-conf":
        _check_cpu(found.get("cputype", "kvm64"))


def _check_cpu(model: str) -> None:
    if not model.startswith("custom-") and re.sub(r"-v\d+$", "", model) not in known.CPU_MODELS:
        raise BadFormat(f"Built-in cputype '{model}' is not defined (missing 'custom-' prefix?)\n")


def parse_string(name: str, text: str) -> dict[str, str]:
    """The keys of a property string that was checked before, by the name of its format."""
    group = TABLES.group(name.removeprefix("@"))
    if group is None:
        raise KeyError(name)
    return parse_group(group, text)
