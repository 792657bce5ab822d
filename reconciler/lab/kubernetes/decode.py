"""What the server makes of a request body: YAML or JSON to an object, and an object to the form that it stores.

`load_json` and `load_yaml` read text and note doubled keys; `decode` checks types as Go's decoder does and leaves out
what Go's encoder leaves out (empty strings, zero numbers, empty lists of optional fields).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from typing import Any

from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.main import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from reconciler.lab.kubernetes import quantity
from reconciler.lab.kubernetes.schema import Anything, Field, Json, Listing, Mapped, Object, Scalar, Struct, Type
from reconciler.lab.kubernetes.status import bad_request


class DecodeError(Exception):
    """A value does not fit its field. The text is Go's."""


class DoubledKeys(list[str]):
    """Dotted paths of keys that stood twice in one JSON text."""


def load_json(text: str) -> tuple[Json, DoubledKeys]:
    """JSON text as a value, and the doubled keys in it. Raises ValueError with Go's wording."""
    doubled = DoubledKeys()

    def pairs(items: list[tuple[str, Any]]) -> Object:
        found: Object = {}
        for key, value in items:
            if key in found:
                doubled.append(key)
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=pairs), doubled
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()):
            raise ValueError("unexpected end of JSON input") from error
        shown = text[error.pos : error.pos + 1]
        raise ValueError(f"invalid character {shown!r} looking for beginning of value") from error


_BOOLS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_INT = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|[0-9][0-9_]*)$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")


def load_yaml(text: str) -> tuple[Json, list[str]]:
    """The first document of YAML 1.1 text, and messages on doubled keys. Raises ValueError with Go's wording."""
    yaml = YAML(typ="safe", pure=True)
    try:
        _, parser = yaml.get_constructor_parser(text)
        composer = yaml.composer
        assert isinstance(composer, Composer)
        node = composer.get_node() if composer.check_node() else None
        del parser
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = (error.problem or "").replace("are not allowed here", "are not allowed in this context")
        raise ValueError(f"yaml: line {line}: {problem}") from error
    except YAMLError as error:
        raise ValueError(f"yaml: {error}") from error
    doubled: list[str] = []
    return (None if node is None else _from_node(node, doubled)), doubled


def _from_node(node: Node, doubled: list[str]) -> Json:
    if isinstance(node, ScalarNode):
        return _scalar(node)
    if isinstance(node, SequenceNode):
        return [_from_node(item, doubled) for item in node.value]
    assert isinstance(node, MappingNode)
    found: Object = {}
    for key_node, value_node in node.value:
        key = _from_node(key_node, doubled)
        name = key if isinstance(key, str) else json.dumps(key)
        if name in found:
            doubled.append(f'line {key_node.start_mark.line + 1}: key "{name}" already set in map')
        found[name] = _from_node(value_node, doubled)
    return found


def _scalar(node: ScalarNode) -> Json:
    text = node.value
    if node.style in ("'", '"', "|", ">"):
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.match(text):
        plain = text.replace("_", "")
        octal = re.match(r"[-+]?0[0-7]+$", plain)
        return int(plain, 8) if octal else int(plain, 0)
    if _FLOAT.match(text):
        return float(text)
    return text


def as_object(value: Json) -> Object:
    """A decoded apply body as a map. Raises ApiError 400 where it is none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        kind = {str: "string", list: "array", bool: "bool"}.get(type(value), "number")
        raise bad_request(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
            f"{kind} into Go value of type map[string]interface {{}}"
        )
    return value


def decode(value: Json, type_: Struct, unknown: list[str] | None = None) -> Object:
    """The object as it is stored. Names of unknown fields are put into `unknown`. Raises DecodeError."""
    decoded = _struct(value or {}, type_, type_.name, "", unknown)
    return decoded


def _struct(value: Json, type_: Struct, owner: str, at: str, unknown: list[str] | None) -> Object:
    if not isinstance(value, dict):
        raise _mismatch(value, owner, at, type_.name)
    out: Object = {}
    names = type_.fields
    for key, item in value.items():
        place = f"{at}.{key}" if at else key
        known = names.get(key)
        if known is None:
            if type_.open:
                out[key] = item
            elif unknown is not None:
                unknown.append(place)
            continue
        result = _value(item, known.type, type_.name, place, unknown)
        if type_.custom or not _left_out(result, known):
            nothing = known.always and not type_.custom and isinstance(known.type, Listing | Mapped) and not result
            out[key] = None if nothing else result
    if not type_.custom:
        for key, known in names.items():
            if known.always and key not in out:
                out[key] = _zero(known)
    return out


def _zero(known: Field) -> Json:
    kind = known.type
    if isinstance(kind, Struct):
        return None if known.pointer else _struct({}, kind, "", "", None)
    if isinstance(kind, Scalar):
        return {"string": "", "bytes": "", "bool": False, "time": None}.get(kind.name, 0)
    return None


def _left_out(value: Json, known: Field) -> bool:
    if known.always:
        return value is None and not isinstance(known.type, Listing | Mapped)
    if value is None:
        return True
    if isinstance(known.type, Scalar):
        return not known.pointer and (value in ("", 0) or value is False)
    if isinstance(known.type, Listing | Mapped):
        return not value
    return False


def _value(value: Json, type_: Type, owner: str, at: str, unknown: list[str] | None) -> Json:
    if isinstance(type_, Anything):
        return value
    if value is None:
        return None
    if isinstance(type_, Scalar):
        return _leaf(value, type_.name, owner, at)
    if isinstance(type_, Struct):
        return _struct(value, type_, owner, at, unknown)
    if isinstance(type_, Listing):
        if not isinstance(value, list):
            raise _mismatch(value, owner, at, f"[]{_go_name(type_.item)}")
        out = [_value(item, type_.item, owner, f"{at}[{index}]", unknown) for index, item in enumerate(value)]
        return [_null_item(type_.item) if item is None else item for item in out]
    if not isinstance(value, dict):
        raise _mismatch(value, owner, at, f"map[string]{_go_name(type_.item)}")
    decoded = {key: _value(item, type_.item, owner, at, unknown) for key, item in value.items()}
    return {key: _null_item(type_.item) if item is None else item for key, item in decoded.items()}


def _null_item(type_: Type) -> Json:
    if isinstance(type_, Struct):
        return _struct({}, type_, "", "", None)
    if isinstance(type_, Scalar):
        return {"string": "", "bytes": "", "bool": False}.get(type_.name, 0)
    return None


def _go_name(type_: Type) -> str:
    if isinstance(type_, Scalar):
        return {"int": "int32", "bytes": "uint8"}.get(type_.name, type_.name)
    return type_.name if isinstance(type_, Struct) else "interface {}"


_ACCEPTED: dict[str, Any] = {
    "string": str,
    "bytes": str,
    "time": str,
    "bool": bool,
    "int": int,
    "number": (int, float),
    "quantity": (str, int, float),
    "intstr": (str, int),
}


def _leaf(value: Json, name: str, owner: str, at: str) -> Json:
    if name == "int" and isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    if not isinstance(value, _ACCEPTED[name]) or (isinstance(value, bool) and name != "bool"):
        raise _mismatch(value, owner, at, {"int": "int32"}.get(name, name))
    if name == "quantity":
        try:
            return quantity.canonical(value)
        except ValueError as error:
            raise DecodeError(str(error)) from error
    if name == "bytes":
        return _base64(value)
    return value


def _base64(text: str) -> str:
    plain = text.replace("\n", "").replace("\r", "")
    match = re.match(r"[A-Za-z0-9+/]*", plain)
    end = match.end() if match else 0
    if plain[end:] not in ("", "=", "=="):
        raise DecodeError(f"illegal base64 data at input byte {end}")
    try:
        base64.b64decode(plain, validate=True)
    except binascii.Error as error:
        raise DecodeError(f"illegal base64 data at input byte {len(plain)}") from error
    return plain


def _mismatch(value: Json, owner: str, at: str, wanted: str) -> DecodeError:
    names: dict[Any, str] = {bool: "bool", str: "string", list: "array", dict: "object"}
    kind = names.get(type(value), "number")
    place = re.sub(r"\[\d+\]", "", at)
    return DecodeError(f"json: cannot unmarshal {kind} into Go struct field {owner}.{place} of type {wanted}")
