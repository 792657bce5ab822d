"""Sets of field paths: who owns what in `metadata.managedFields`.

A path is a tuple of elements: `("f", name)` a field or map key, `("k", ((key, value), ...))` a list item by its merge
keys, `("v", value)` a member of a set. `encode` and `decode` are the wire format FieldsV1.
Source of the format: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/ (FieldsV1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

Element = tuple[str, Any]
Path = tuple[Element, ...]
Paths = frozenset[Path]

EMPTY: Paths = frozenset()


def encode(paths: Iterable[Path]) -> dict[str, Any]:
    """Paths as FieldsV1. A node with children that is itself owned has the key `.`."""
    root: dict[str, Any] = {}
    for path in paths:
        node = root
        for element in path:
            node = node.setdefault(_key(element), {})
        node["."] = {}
    return _without_lonely_dots(root)


def _without_lonely_dots(node: dict[str, Any]) -> dict[str, Any]:
    if set(node) == {"."}:
        return {}
    return {key: value if key == "." else _without_lonely_dots(value) for key, value in sorted(node.items())}


def decode(fields: dict[str, Any]) -> Paths:
    """FieldsV1 as paths. Raises ValueError where it is none."""
    return frozenset(_walk(fields, ()))


def _walk(node: dict[str, Any], at: Path) -> Iterator[Path]:
    if at and (not node or "." in node):
        yield at
    for key, value in node.items():
        if key != ".":
            if not isinstance(value, dict):
                raise ValueError(f"not FieldsV1: {key}")
            yield from _walk(value, (*at, _element(key)))


def _key(element: Element) -> str:
    kind, value = element
    if kind == "f":
        return f"f:{value}"
    if kind == "k":
        return "k:" + json.dumps(dict(value), separators=(",", ":"), ensure_ascii=False)
    return "v:" + json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _element(key: str) -> Element:
    kind, _, rest = key.partition(":")
    if kind == "f":
        return ("f", rest)
    if kind == "k":
        return ("k", tuple(sorted(json.loads(rest).items())))
    if kind in ("v", "i"):
        return ("v", json.loads(rest))
    raise ValueError(f"not FieldsV1: {key}")


def text(path: Path) -> str:
    """A path as conflicts show it: `.spec.containers[name="c"].image`."""
    return "".join(_shown(element) for element in path)


def _shown(element: Element) -> str:
    kind, value = element
    if kind == "f":
        return f".{value}"
    return key_text(element)


def key_text(element: Element) -> str:
    """A list item's place: `[name="c"]`, `[="x"]`."""
    kind, value = element
    if kind == "k":
        return "[" + ",".join(f"{key}={json.dumps(item, ensure_ascii=False)}" for key, item in value) + "]"
    return f"[={json.dumps(value, ensure_ascii=False)}]"


def ordered(paths: Iterable[Path]) -> list[Path]:
    """Paths in the order in which the server lists conflicts: members of a node first, then what is below."""
    return sorted(paths, key=_rank)


def _rank(path: Path) -> tuple[Any, ...]:
    if not path:
        return ()
    parts: list[Any] = [(1, _order(element)) for element in path[:-1]]
    parts.append((0, _order(path[-1])))
    return tuple(parts)


def _order(element: Element) -> tuple[int, str]:
    kind, value = element
    return ("fkv".index(kind), value if kind == "f" else json.dumps(value))
