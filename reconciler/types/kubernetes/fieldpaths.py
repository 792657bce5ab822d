"""Fields of Kubernetes objects: their paths as people write them, their values, and who owns them.

A path is `spec.template.spec.containers[name=web].image`; a key that holds dots or slashes stands in brackets, as in
`metadata.annotations[example.org/team]`. Items of a list are found by the key by which the API merges them; lists
without one are compared as a whole. Ownership is read from `managedFields`
(https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reconciler.secrets import as_secret

Selector = tuple[tuple[str, Any], ...]
Path = tuple[str | Selector, ...]

MISSING: Final = object()
"""Stands for what is not there."""
MERGE_KEYS: Final = (
    ("mountPath",),
    ("devicePath",),
    ("containerPort", "protocol"),
    ("port", "protocol"),
    ("ip",),
    ("topologyKey", "whenUnsatisfiable"),
    ("uid",),
    ("name",),
)
"""By what the API merges lists of its own kinds; the first that is there in all items and tells them apart. Items that
have another key have names as well, and those need not be unique: a volume may be mounted twice."""
_DEFAULTS: Final = {"protocol": "TCP"}
"""Parts of keys that the server fills in."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_BOOKKEEPING: Final = frozenset(
    ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink", "deletionTimestamp")
)


# ------------------------------------------------------------------------------------------------ paths


def spelled(path: Path) -> str:
    """A path as text.

    >>> spelled(("spec", "containers", (("name", "web"),), "image"))
    'spec.containers[name=web].image'
    """
    out = ""
    for part in path:
        if isinstance(part, tuple):
            out += f"[{','.join(f'{key}={value}' for key, value in part)}]"
        elif _PLAIN.fullmatch(part):
            out += f".{part}" if out else part
        else:
            out += f"[{part}]"
    return out


def covers(path: str, other: str) -> bool:
    """Whether a field is another one, or holds it.

    >>> covers("spec.template", "spec.template.spec"), covers("spec.rep", "spec.replicas")
    (True, False)
    """
    return other == path or (other.startswith(path) and other[len(path)] in ".[")


def prefixes(path: Path) -> Iterator[str]:
    """The path and all that hold it, as text."""
    for end in range(1, len(path) + 1):
        yield spelled(path[:end])


def selectors(items: Any) -> list[Selector] | None:
    """What tells the items of a list apart; `None` where the list is one value."""
    if not isinstance(items, list | tuple) or not items or not all(isinstance(one, Mapping) for one in items):
        return None
    for keys in MERGE_KEYS:
        if all(isinstance(one.get(keys[0]), str | int) for one in items):
            keyed = [{**{key: _DEFAULTS[key] for key in keys if key in _DEFAULTS}, **one} for one in items]
            found = [tuple((key, one[key]) for key in keys if key in one) for one in keyed]
            if len(set(found)) == len(found):
                return found
    return None


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that has a value of its own: scalars, secrets, empty mappings, and lists without keys."""
    if isinstance(value, Mapping) and value and as_secret(value) is None:
        for key, inner in value.items():
            yield from leaves(inner, (*path, str(key)))
        return
    found = selectors(value)
    if found is None:
        yield path, value
        return
    for key_of_item, item in zip(found, value, strict=True):
        yield from leaves(item, (*path, key_of_item))


def value_at(value: Any, path: Path) -> Any:
    """What stands at a path, or `MISSING`."""
    for part in path:
        if isinstance(part, tuple):
            items = value if isinstance(value, list) else []
            fit = [one for one in items if isinstance(one, Mapping) and all(_same(one, k, v) for k, v in part)]
            if len(fit) != 1:
                return MISSING
            value = fit[0]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return MISSING
    return value


def _same(item: Mapping[str, Any], key: str, value: Any) -> bool:
    return bool(item.get(key, _DEFAULTS.get(key)) == value)


def lost(live: Any, made: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Fields of one object that another one lacks, or has with another value; bookkeeping and status left out."""
    if isinstance(live, Mapping) and isinstance(made, Mapping):
        for key, inner in live.items():
            if (path == () and key == "status") or (path == ("metadata",) and key in _BOOKKEEPING):
                continue
            if key in made:
                yield from lost(inner, made[key], (*path, key))
            else:
                yield from leaves(inner, (*path, key))
        return
    mine, theirs = selectors(live), selectors(made)
    if mine is not None and theirs is not None:
        for found, item in zip(mine, live, strict=True):
            other = value_at(made, (found,))
            if other is MISSING:
                yield from leaves(item, (*path, found))
            else:
                yield from lost(item, other, (*path, found))
    elif live != made:
        yield path, live


def without(value: Any, omitted: Sequence[str], replaced: Mapping[str, Any], path: Path = ()) -> Any:
    """A manifest without some fields, and with other values in some.

    Args:
        omitted: paths, with all that they hold.
        replaced: path -> value.
    """
    if not omitted and not replaced:
        return value
    found = selectors(value)
    if isinstance(value, Mapping) and value and as_secret(value) is None:
        parts: list[tuple[str | Selector, Any]] = [(str(key), inner) for key, inner in value.items()]
    elif found is not None:
        parts = list(zip(found, value, strict=True))
    else:
        return value
    kept: list[tuple[Any, Any]] = []
    for part, inner in parts:
        text = spelled((*path, part))
        if text in omitted:
            continue
        kept.append((part, replaced[text] if text in replaced else without(inner, omitted, replaced, (*path, part))))
    return [inner for _, inner in kept] if found is not None else dict(kept)


# ------------------------------------------------------------------------------------------------ ownership


@dataclass(frozen=True, slots=True)
class Owner:
    """Who set a field last.

    Attributes:
        name: the field manager.
        operation: `Apply` or `Update`.
        time: RFC 3339, or nothing.
    """

    name: str
    operation: str
    time: str = ""


def entries(live: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of `managedFields` that are about the object itself, not about its status."""
    found = (live.get("metadata") or {}).get("managedFields") or []
    return [one for one in found if not one.get("subresource")]


def owners(live: Mapping[str, Any], path: Path) -> list[Owner]:
    """The managers of a field."""
    return [
        Owner(str(one.get("manager", "")), str(one.get("operation", "")), str(one.get("time", "")))
        for one in entries(live)
        if owns(one.get("fieldsV1") or {}, path)
    ]


def owns(fields: Mapping[str, Any], path: Path) -> bool:
    """Whether a set of fields (FieldsV1) holds a path, or a list or mapping as a whole that holds it."""
    node: Any = fields
    for depth, part in enumerate(path):
        if depth and not node.keys() - {"."}:
            return True
        node = _child(node, part)
        if node is None:
            return False
    return True


def _child(node: Mapping[str, Any], part: str | Selector) -> Any:
    if isinstance(part, str):
        return node.get(f"f:{part}")
    for key, inner in node.items():
        if key.startswith("k:"):
            found = json.loads(key[2:])
            if all(found.get(name) == value for name, value in part if name in found) and any(
                name in found for name, _ in part
            ):
                return inner
    return None


def owned_leaves(fields: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """The paths that a set of fields (FieldsV1) holds."""
    below = [key for key in fields if key != "."]
    if not below:
        yield path
    for key in below:
        if key.startswith("f:"):
            yield from owned_leaves(fields[key], (*path, key[2:]))
        elif key.startswith("k:"):
            selector = tuple(json.loads(key[2:]).items())
            yield from owned_leaves(fields[key], (*path, selector))
    if any(key.startswith(("v:", "i:")) for key in below):
        yield path


def united(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What two sets of fields (FieldsV1) hold together."""
    return {key: united(first.get(key) or {}, second.get(key) or {}) for key in {**first, **second}}
