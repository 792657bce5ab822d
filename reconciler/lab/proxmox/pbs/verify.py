"""Checking parameters as Proxmox Backup Server does. Values leave typed: bool, int, str, list of str."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from reconciler.lab.proxmox import calendar
from reconciler.lab.proxmox.pbs.api import METHODS, PARAMETERS, PROPERTY_STRINGS
from reconciler.lab.proxmox.pbs.known import PATTERNS
from reconciler.lab.proxmox.schema import Method, Parameter, Tables
from reconciler.lab.proxmox.world import TaskFailed

TABLES: Final = Tables(PARAMETERS, METHODS, property_strings=PROPERTY_STRINGS, patterns=PATTERNS)
"""The methods of Proxmox Backup Server."""

UNKNOWN: Final = "schema does not allow additional properties"
MISSING: Final = "parameter is missing and it is not optional."
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class Refused(TaskFailed):
    """A request is refused: the text is the whole body. Inside a task it is the task's failure."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def bad_parameter(name: str, text: str) -> Refused:
    """One parameter is wrong."""
    return Refused(f"parameter verification failed - '{name}': {text}")


def parameters(method: Method, given: Mapping[str, Any], in_path: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of a request, checked and typed. Refused: some do not fit; all are told."""
    errors: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, raw in {**given, **in_path}.items():
        parameter = method.parameters.get(name)
        if parameter is None:
            if not method.open and name not in in_path:
                errors[name] = UNKNOWN
            continue
        try:
            values[name] = typed(raw, parameter)
        except ValueError as error:
            errors[name] = str(error)
    for name, parameter in method.parameters.items():
        if not parameter.optional and name not in values and name not in errors:
            errors[name] = MISSING
    if len(errors) == 1:
        raise bad_parameter(*next(iter(errors.items())))
    if errors:
        lines = "".join(f"\n- '{name}': {text}" for name, text in sorted(errors.items()))
        raise Refused(f"parameter verification failed:{lines}")
    return values


def typed(raw: Any, parameter: Parameter) -> Any:
    """One value. ValueError: it does not fit."""
    if parameter.type == "array":
        return [_text(str(item), parameter) for item in (raw if isinstance(raw, list) else [raw])]
    if isinstance(raw, list):
        raise ValueError(
            "Expected string value." if parameter.type == "string" else f"Expected {parameter.type} value."
        )
    if parameter.type == "boolean":
        return _boolean(raw)
    if parameter.type == "integer":
        return _integer(raw, parameter)
    return _text(str(raw), parameter)


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("Unable to parse boolean option.")
    return word in _TRUE


def _integer(raw: Any, parameter: Parameter) -> int:
    if isinstance(raw, bool) or not re.fullmatch(r"[+-]?\d+", str(raw)):
        raise ValueError("invalid digit found in string")
    value = int(raw)
    low, high = parameter.range
    if low is not None and value < low:
        raise ValueError(f"value must have a minimum value of {low} (got {value})")
    if high is not None and value > high:
        raise ValueError(f"value must have a maximum value of {high} (got {value})")
    return value


def _text(value: str, parameter: Parameter) -> str:
    shortest, longest = parameter.length
    if shortest is not None and len(value) < shortest:
        raise ValueError(f"value must be at least {shortest} characters long")
    if longest is not None and len(value) > longest:
        raise ValueError(f"value may only be {longest} characters long")
    if parameter.enum and value not in parameter.enum:
        raise ValueError(f"value '{value}' is not defined in the enumeration.")
    if parameter.pattern is not None and not re.fullmatch(parameter.pattern, value):
        raise ValueError("value does not match the regex pattern")
    if parameter.format:
        _format(parameter.format, value)
    return value


def _event(value: str) -> None:
    try:
        calendar.parse(value)
    except calendar.BadEvent as error:
        raise ValueError(str(error)) from None


def _host(value: str) -> None:
    if re.fullmatch(
        r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?\.)*[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?", value
    ):
        return
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("value does not match the regex pattern") from None


def _devices(value: str) -> None:
    for part in value.split(","):
        if not re.fullmatch(r"(?:h|s|x?v)d[a-z]+|nvme\d+n\d+", part):
            raise ValueError("value does not match the regex pattern")


_CHECKS: Final[dict[str, Callable[[str], None]]] = {
    "calendar-event": _event,
    "host": _host,
    "@inline-devices": _devices,
}


def _format(name: str, value: str) -> None:
    check = _CHECKS.get(name)
    if check:
        check(value)
        return
    group = TABLES.group(name.removeprefix("@"))
    if group is not None:
        parse_string(group, value)


def parse_string(group: Mapping[str, Parameter], text: str) -> dict[str, Any]:
    """The keys of a property string, typed. ValueError: it is none."""
    found: dict[str, Any] = {}
    bare = next((key for key, parameter in group.items() if parameter.bare), None)
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            if bare is None:
                raise ValueError("value without key, but schema does not define a default key")
            key, value = bare, part
        if key not in group:
            raise ValueError(f"'{key}': {UNKNOWN}")
        if key in found:
            raise ValueError(f"duplicate key '{key}'")
        found[key] = typed(value, group[key])
    for key, parameter in group.items():
        if not parameter.optional and key not in found:
            raise ValueError(f"'{key}': {MISSING}")
    return found
