"""Typed values: validate, merge, compare and cut objects by their types, field by field.

These are the operations that server-side apply is made of. Source of their meaning:
https://github.com/kubernetes-sigs/structured-merge-diff (documentation), checked against the recorded exchanges.
`MISSING` stands for no value; `None` is JSON's null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from reconciler.lab.kubernetes.fieldset import EMPTY, Element, Path, Paths, key_text
from reconciler.lab.kubernetes.schema import ANY, Anything, Json, Listing, Mapped, Scalar, Struct, Type, child

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING", "__bool__": lambda self: False})()


def errors(value: Json, type_: Type, duplicates: bool = False) -> list[str]:
    """What is wrong with a value: unknown fields, wrong types, doubled list keys (unless `duplicates` are allowed)."""
    return list(_errors(value, type_, "", duplicates))


def error_text(found: list[str]) -> str:
    """Several errors as one message."""
    return found[0] if len(found) == 1 else "errors:\n" + "\n".join(f"  {text}" for text in found)


def _errors(value: Json, type_: Type, at: str, duplicates: bool) -> Iterator[str]:
    if value is None:
        return
    if isinstance(type_, Scalar):
        yield from _scalar_errors(value, type_.name, at)
    elif isinstance(type_, Listing):
        if not isinstance(value, list):
            yield f"{at}: expected list, got {_shown(value)}"
            return
        seen: set[Element] = set()
        for index, item in enumerate(value):
            if type_.atomic:
                yield from _errors(item, type_.item, f"{at}[{index}]", duplicates)
                continue
            element, why = _item_element(item, index, type_)
            if element is None:
                yield f"{at}: element {index}: {why}"
                continue
            if element in seen and not duplicates:
                yield f"{at}: duplicate entries for key {key_text(element)}"
            seen.add(element)
            yield from _errors(item, type_.item, at + key_text(element), duplicates)
    elif isinstance(type_, Mapped | Struct):
        if not isinstance(value, dict):
            yield f"{at}: expected map, got {_shown(value)}"
            return
        for key in sorted(value):
            if isinstance(type_, Struct) and key not in type_.fields and not type_.open:
                yield f"{at}.{key}: field not declared in schema"
            else:
                yield from _errors(value[key], child(type_, key), f"{at}.{key}", duplicates)


def _scalar_errors(value: Json, name: str, at: str) -> Iterator[str]:
    if name in ("string", "bytes", "time"):
        if not isinstance(value, str):
            yield f"{at}: expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}"
    elif name in ("int", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{at}: expected numeric (int or float), got {_go_type(value)}"
    elif name == "bool":
        if not isinstance(value, bool):
            yield f"{at}: expected boolean, got {_shown(value)}"
    elif isinstance(value, dict | list):
        yield f"{at}: expected scalar, got {_shown(value)}"


def _shown(value: Json) -> str:
    return "&{" + go_text(value) + "}"


def go_text(value: Json) -> str:
    """A value as Go prints it with %v."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(go_text(item) for item in value) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_text(item)}" for key, item in sorted(value.items())) + "]"
    return str(value)


def _go_syntax(value: Json) -> str:
    if isinstance(value, dict):
        return "map[string]interface {}{" + ", ".join(f'"{k}":{_go_syntax(v)}' for k, v in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[]interface {}{" + ", ".join(_go_syntax(item) for item in value) + "}"
    return json.dumps(value) if isinstance(value, str) else go_text(value)


def _go_type(value: Json) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    return "map[string]interface {}" if isinstance(value, dict) else "[]interface {}"


def _item_element(item: Json, index: int, type_: Listing) -> tuple[Element | None, str]:
    if type_.members:
        if isinstance(item, dict | list) or item is None:
            return None, "associative list without keys has an element that's a map type or null"
        return ("v", item), ""
    if not isinstance(item, dict):
        return None, "associative list with keys may not have non-map elements"
    if not any(key in item or key in type_.defaults for key in type_.keys):
        names = " ".join(json.dumps(key) for key in type_.keys)
        return None, (
            f"associative list with keys has an element that omits all key fields [{names}] "
            "(and doesn't have default values for any key fields)"
        )
    pairs = []
    for key in type_.keys:
        value = item.get(key)
        if value is None:
            value = type_.defaults.get(key)
        pairs.append((key, value))
    return ("k", tuple(pairs)), ""


def element_of(item: Json, index: int, type_: Listing) -> Element:
    """The path element of a list item. Items without a usable key are told apart by their index."""
    element, _ = _item_element(item, index, type_)
    return element if element is not None else ("v", index)


def fields(value: Json, type_: Type) -> Paths:
    """The paths that whoever applies this value owns."""
    found: set[Path] = set()
    _collect(value, type_, (), found)
    found.discard(())
    return frozenset(found)


def _collect(value: Json, type_: Type, at: Path, found: set[Path]) -> None:
    if isinstance(type_, Anything):
        type_ = _deduced(value)
    if isinstance(type_, Scalar) or _atomic(type_):
        found.add(at)
    elif isinstance(type_, Listing):
        for index, item in enumerate(value or ()):
            here = (*at, element_of(item, index, type_))
            found.add(here)
            _collect(item, type_.item, here, found)
    else:
        for key, item in (value or {}).items():
            here = (*at, ("f", key))
            _collect(item, child(type_, key), here, found)
            declared = isinstance(type_, Struct) and key in type_.fields
            if item is None or item == {} or not declared:
                found.add(here)


def _atomic(type_: Type) -> bool:
    if isinstance(type_, Listing):
        return type_.atomic
    return isinstance(type_, Struct | Mapped) and type_.atomic


_FREE_MAP = Mapped(ANY)
_FREE_LIST = Listing(ANY)
_LEAF = Scalar("any")


def _deduced(value: Json) -> Type:
    if isinstance(value, dict):
        return _FREE_MAP
    return _FREE_LIST if isinstance(value, list) else _LEAF


def merge(live: Json, config: Json, type_: Type) -> Json:
    """The live value with the applied one laid over it; MISSING where both are."""
    if isinstance(type_, Anything):
        type_ = _deduced(config if config is not MISSING and config is not None else live)
    if isinstance(type_, Scalar) or _atomic(type_):
        return live if config is MISSING else config
    ours = None if live is MISSING else live
    theirs = None if config is MISSING else config
    if not ours and not theirs:
        return live if config is MISSING else config
    if isinstance(type_, Listing):
        merged: Json = _merged_list(ours or [], theirs or [], type_)
        return merged or MISSING
    ours, theirs = ours or {}, theirs or {}
    out = {}
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        value = merge(ours.get(key, MISSING), theirs.get(key, MISSING), child(type_, key))
        if value is not MISSING:
            out[key] = value
    return out or MISSING


def _merged_list(live: list[Json], config: list[Json], type_: Listing) -> list[Json]:
    """Items in the order of the applied list, with live ones that it does not name in their places between."""
    left = [element_of(item, index, type_) for index, item in enumerate(live)]
    right = [element_of(item, index, type_) for index, item in enumerate(config)]
    old: dict[Element, Json] = {}
    for element, item in zip(left, live, strict=True):
        old.setdefault(element, item)
    new = dict(zip(right, config, strict=True))
    shared = [element for element in right if element in old]
    wanted = shared.pop(0) if shared else None
    done: set[Element] = set()
    out: list[Json] = []

    def add(element: Element, ours: Json, theirs: Json) -> None:
        value = merge(ours, theirs, type_.item)
        if value is not MISSING:
            out.append(value)

    i = j = 0
    while i < len(left) or j < len(right):
        if i < len(left) and j < len(right):
            if left[i] == right[j]:
                done.add(left[i])
                add(left[i], old[left[i]], new[left[i]])
                i, j = i + 1, j + 1
                wanted = shared.pop(0) if shared else None
                continue
            if left[i] in new and wanted is not None and wanted != left[i]:
                i += 1
                continue
        if i < len(left):
            if left[i] not in new:
                add(left[i], live[i], MISSING)
                i += 1
                continue
            if left[i] in done:
                i += 1
                continue
        if j < len(right):
            done.add(right[j])
            add(right[j], old.get(right[j], MISSING), new[right[j]])
            if wanted is not None and wanted == right[j]:
                wanted = shared.pop(0) if shared else None
            j += 1
    return out


@dataclass
class Comparison:
    """What differs between two values."""

    added: set[Path] = field(default_factory=set)
    removed: set[Path] = field(default_factory=set)
    modified: set[Path] = field(default_factory=set)


def compare(before: Json, after: Json, type_: Type) -> Comparison:
    """The paths that came, went or changed."""
    result = Comparison()
    _compare(before, after, type_, (), result)
    for paths in (result.added, result.removed, result.modified):
        paths.discard(())
    return result


def _compare(before: Json, after: Json, type_: Type, at: Path, result: Comparison) -> None:
    if isinstance(type_, Anything):
        first, second = _deduced(before), _deduced(after)
        if before is not MISSING and after is not MISSING and None not in (before, after) and first != second:
            result.modified.add(at)
            return
        type_ = second if after is not MISSING and after is not None else first
    leaf = isinstance(type_, Scalar) or _atomic(type_)
    ours = None if before is MISSING else before
    theirs = None if after is MISSING else after
    if not leaf and not ours and not theirs:
        leaf = True
    if before is MISSING:
        result.added.add(at)
    elif after is MISSING:
        result.removed.add(at)
    elif leaf and not same(before, after):
        result.modified.add(at)
    if leaf:
        return
    if isinstance(type_, Listing):
        _compare_lists(ours or [], theirs or [], type_, at, result)
        return
    ours, theirs = ours or {}, theirs or {}
    for key in {**ours, **theirs}:
        _compare(ours.get(key, MISSING), theirs.get(key, MISSING), child(type_, key), (*at, ("f", key)), result)


def _compare_lists(before: list[Json], after: list[Json], type_: Listing, at: Path, result: Comparison) -> None:
    ours = {element_of(item, index, type_): item for index, item in enumerate(before)}
    theirs = {element_of(item, index, type_): item for index, item in enumerate(after)}
    for element in {**ours, **theirs}:
        _compare(ours.get(element, MISSING), theirs.get(element, MISSING), type_.item, (*at, element), result)


def same(one: Json, other: Json) -> bool:
    """JSON equality: True is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def without(value: Json, type_: Type, paths: Paths) -> Json:
    """The value without what is at these paths. A map or list that gets empty becomes null."""
    below: dict[Element, set[Path]] = {}
    gone: set[Element] = set()
    for path in paths:
        if len(path) == 1:
            gone.add(path[0])
        elif path:
            below.setdefault(path[0], set()).add(path[1:])
    return _without(value, type_, gone, below)


def _without(value: Json, type_: Type, gone: set[Element], below: dict[Element, set[Path]]) -> Json:
    if isinstance(type_, Anything):
        type_ = _deduced(value)
    if value is None or isinstance(type_, Scalar) or _atomic(type_):
        return value
    if isinstance(type_, Listing):
        kept = []
        for index, item in enumerate(value):
            element = element_of(item, index, type_)
            if element in gone:
                continue
            kept.append(without(item, type_.item, frozenset(below[element])) if element in below else item)
        return kept or None
    out = {}
    for key, item in value.items():
        element = ("f", key)
        if element in gone:
            continue
        out[key] = without(item, child(type_, key), frozenset(below[element])) if element in below else item
    return out or None


def named_members(paths: Paths, type_: Type) -> Paths:
    """The paths with the fields of structs above them: what must go when all that is below goes."""
    found = set(paths)
    for path in paths:
        here: Type = type_
        for depth, (kind, key) in enumerate(path[:-1], start=1):
            if isinstance(here, Struct) and kind == "f":
                found.add(path[:depth])
            here = _step(here, kind, key)
    return frozenset(found)


def _step(type_: Type, kind: str, key: Any) -> Type:
    if kind == "f":
        return child(type_, key)
    return type_.item if isinstance(type_, Listing) else ANY


__all__ = [
    "EMPTY",
    "MISSING",
    "Comparison",
    "compare",
    "element_of",
    "error_text",
    "errors",
    "fields",
    "go_text",
    "merge",
    "named_members",
    "same",
    "without",
]
