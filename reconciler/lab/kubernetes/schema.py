"""Types of Kubernetes objects: what the server knows about the fields of a kind.

Built-in kinds come from `types.json` (notation: see `tests/kubernetes/make_types.py`), custom kinds from the
`openAPIV3Schema` of their CustomResourceDefinition. A type tells three things: which fields exist (an apply of any
other is refused), how lists and maps are merged and owned (by key, as a set, or as a whole), and what the server
leaves out when it writes an object.

Source of the merge rules: https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

Json = Any
Object = dict[str, Any]


@dataclass(frozen=True)
class Scalar:
    """A leaf: `string int bool number quantity intstr time bytes`."""

    name: str


@dataclass(frozen=True)
class Anything:
    """No type is known: maps are merged key by key, lists are atomic, as the server does without a schema."""


@dataclass(frozen=True)
class Listing:
    """A list. `keys` are its merge keys, `members` says that it is a set; with neither it is owned as a whole."""

    item: Type
    keys: tuple[str, ...] = ()
    members: bool = False
    defaults: Mapping[str, Json] = field(default_factory=dict, hash=False, compare=False)  # of merge keys left out

    @property
    def atomic(self) -> bool:
        """Whether the list is owned as a whole."""
        return not self.keys and not self.members


@dataclass(frozen=True)
class Mapped:
    """A map with free keys."""

    item: Type
    atomic: bool = False


@dataclass(frozen=True)
class Field:
    """One field of a struct, and how Go's encoder writes it."""

    type: Type
    pointer: bool = False  # zero values are kept
    always: bool = False  # written also when it is empty


@dataclass(eq=False)
class Struct:
    """A map with known fields."""

    name: str
    fields: dict[str, Field] = field(default_factory=dict)
    atomic: bool = False
    open: bool = False  # unknown fields are kept (x-kubernetes-preserve-unknown-fields)
    custom: bool = False  # from a CRD: nothing is left out, nothing is converted
    schema: Object = field(default_factory=dict)  # the CRD's own schema, for validation

    def __hash__(self) -> int:
        return id(self)


Type = Scalar | Anything | Listing | Mapped | Struct

ANY = Anything()
SCALARS = {name: Scalar(name) for name in ["string", "int", "bool", "number", "quantity", "intstr", "time", "bytes"]}
# What a merge key counts as when an item leaves it out; the API gives zero values to all required fields.
KEY_DEFAULTS: dict[str, Json] = {"protocol": "TCP", "containerPort": 0, "port": 0}


@cache
def builtin(name: str) -> Struct:
    """A built-in type by its name, such as `Deployment`. Raises KeyError for an unknown one."""
    entry = _table()[name]
    struct = _made.get(name)
    if struct is None:
        struct = _made[name] = Struct(name, atomic=bool(entry.get("atomic")))
        struct.fields.update({key: _field(text) for key, text in entry["fields"].items()})
    return struct


_made: dict[str, Struct] = {}


@cache
def _table() -> dict[str, Any]:
    text = (files("reconciler.lab.kubernetes") / "types.json").read_text("utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def _field(text: str) -> Field:
    match = re.fullmatch(r"(.*?)([*!~]*)", text)
    assert match is not None
    spelling, flags = match[1], match[2]
    return Field(_type(spelling, atomic="~" in flags), pointer="*" in flags, always="!" in flags)


def _type(spelling: str, atomic: bool = False) -> Type:
    if spelling.startswith("["):
        inner, _, keys = spelling[1:].rpartition("]")
        if keys == "set":
            return Listing(_type(inner), members=True)
        names = tuple(sorted(key for key in keys.split(",") if key))
        return Listing(_type(inner), names, defaults={key: KEY_DEFAULTS.get(key, "") for key in names})
    if spelling.startswith("{"):
        return Mapped(_type(spelling[1:-1]), atomic)
    if spelling == "any":
        return ANY
    return SCALARS.get(spelling) or builtin(spelling)


def custom(kind: str, schema: Object) -> Struct:
    """The type of a custom resource from its `openAPIV3Schema`: `apiVersion`, `kind` and `metadata` are added."""
    struct = _from_openapi(kind, schema)
    if not isinstance(struct, Struct):
        struct = Struct(kind, open=True, custom=True, schema=schema)
    struct.fields.setdefault("apiVersion", Field(SCALARS["string"]))
    struct.fields.setdefault("kind", Field(SCALARS["string"]))
    struct.fields["metadata"] = Field(builtin("ObjectMeta"), always=True)
    return struct


def _from_openapi(name: str, schema: Object) -> Type:
    keep = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if schema.get("x-kubernetes-int-or-string"):
        return SCALARS["intstr"]
    kind = schema.get("type")
    if kind == "array":
        item = _from_openapi(name, schema.get("items", {}))
        how = schema.get("x-kubernetes-list-type", "atomic")
        if how == "map":
            keys = tuple(sorted(schema.get("x-kubernetes-list-map-keys", ())))
            properties = schema.get("items", {}).get("properties", {})
            given = {key: properties[key]["default"] for key in keys if "default" in properties.get(key, {})}
            return Listing(item, keys, defaults=given)
        return Listing(item, members=how == "set")
    if kind == "object" or "properties" in schema:
        atomic = schema.get("x-kubernetes-map-type") == "atomic"
        if "properties" in schema:
            struct = Struct(name, atomic=atomic, open=keep, custom=True, schema=schema)
            struct.fields = {key: Field(_from_openapi(key, sub)) for key, sub in schema["properties"].items()}
            return struct
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            return Mapped(_from_openapi(name, extra), atomic)
        return ANY if keep or extra else Struct(name, atomic=atomic, custom=True, schema=schema)
    if kind in ("string", "boolean", "integer", "number"):
        return SCALARS[{"boolean": "bool", "integer": "int"}.get(kind, str(kind))]
    return ANY


def child(type_: Type, key: str) -> Type:
    """The type of a map's or struct's member; `ANY` where nothing is declared."""
    if isinstance(type_, Struct):
        known = type_.fields.get(key)
        return known.type if known else ANY
    return type_.item if isinstance(type_, Mapped) else ANY
