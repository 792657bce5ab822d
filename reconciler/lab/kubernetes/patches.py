"""JSON patch, JSON merge patch, and the strategic merge patch of the built-in kinds.

Sources: RFC 6902, RFC 7386, and for the strategic merge patch
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from __future__ import annotations

import copy
from typing import Any

from reconciler.lab.kubernetes.schema import Json, Listing, Object, Type, child
from reconciler.lab.kubernetes.status import ApiError, bad_request
from reconciler.lab.kubernetes.typed import same


def json_patch(document: Object, operations: Json) -> Object:
    """Applies a JSON patch. Raises ApiError: 400 for what is none, 422 where it cannot be applied."""
    if not isinstance(operations, list) or not all(isinstance(one, dict) for one in operations):
        kind = "object" if isinstance(operations, dict) else "string" if isinstance(operations, str) else "number"
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
        )
    result: Json = copy.deepcopy(document)
    try:
        for operation in operations:
            result = _operate(result, operation)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        text = "the server rejected our request due to an error in our request"
        raise ApiError(422, text, "Invalid", {}) from error
    assert isinstance(result, dict)
    return result


def _operate(document: Json, operation: Object) -> Json:
    kind, path = operation["op"], _pointer(operation["path"])
    if kind == "test":
        if not same(_get(document, path), operation.get("value")):
            raise ValueError("test failed")
        return document
    if kind == "remove":
        return _remove(document, path)
    if kind == "add":
        return _add(document, path, copy.deepcopy(operation["value"]))
    if kind == "replace":
        _get(document, path)
        if not path:
            return operation["value"]
        return _add(_remove(document, path), path, copy.deepcopy(operation["value"]))
    if kind in ("copy", "move"):
        source = _pointer(operation["from"])
        value = copy.deepcopy(_get(document, source))
        if kind == "move":
            document = _remove(document, source)
        return _add(document, path, value)
    raise ValueError(f"unknown operation {kind}")


def _pointer(text: str) -> list[str]:
    if text == "":
        return []
    if not text.startswith("/"):
        raise ValueError("not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _index(items: list[Any], key: str, end: int) -> int:
    number = int(key)
    if not 0 <= number < end:
        raise IndexError(key)
    return number


def _get(document: Json, path: list[str]) -> Json:
    for key in path:
        document = document[_index(document, key, len(document))] if isinstance(document, list) else document[key]
    return document


def _remove(document: Json, path: list[str]) -> Json:
    parent, key = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.pop(_index(parent, key, len(parent)))
    else:
        del parent[key]
    return document


def _add(document: Json, path: list[str], value: Json) -> Json:
    if not path:
        return value
    parent, key = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if key == "-" else _index(parent, key, len(parent) + 1), value)
    else:
        parent[key] = value
    return document


def merge_patch(document: Json, patch: Json) -> Json:
    """Applies a JSON merge patch: null removes, lists are replaced."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_merge(document: Json, patch: Json, type_: Type) -> Json:
    """Applies a strategic merge patch: lists with merge keys are merged, directives are obeyed."""
    if isinstance(patch, dict):
        return _strategic_map(document if isinstance(document, dict) else {}, patch, type_)
    if isinstance(patch, list) and isinstance(type_, Listing) and _merge_key(type_):
        return _strategic_list(document if isinstance(document, list) else [], patch, type_)
    return copy.deepcopy(patch)


def _merge_key(type_: Listing) -> str:
    """Strategic merge knows one key of a list."""
    for name in ("containerPort", "port", "topologyKey"):
        if name in type_.keys:
            return name
    return type_.keys[0] if type_.keys else ""


def _strategic_map(document: Object, patch: Object, type_: Type) -> Object:
    directive = patch.get("$patch")
    plain = {key: value for key, value in patch.items() if not key.startswith("$")}
    if directive == "replace":
        return plain
    if directive == "delete":
        return {}
    result = dict(document)
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [item for item in result.get(name) or [] if item not in value]
    for key, value in plain.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = strategic_merge(result.get(key), value, child(type_, key))
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            name = key.partition("/")[2]
            result[name] = _ordered(result.get(name) or [], order, child(type_, name))
    return result


def _strategic_list(document: list[Json], patch: list[Json], type_: Listing) -> list[Json]:
    key = _merge_key(type_)
    if any(isinstance(item, dict) and item.get("$patch") == "replace" and len(item) == 1 for item in patch):
        return [item for item in patch if item.get("$patch") != "replace"]
    server = [item.get(key) for item in document]
    left = {item.get(key): item for item in document}
    merged = []
    for item in patch:
        old = left.pop(item.get(key), None)
        if item.get("$patch") != "delete":
            merged.append(_strategic_map(old or {}, item, type_.item))
    return _interleaved([item for item in document if item.get(key) in left], merged, server, key)


def _interleaved(untouched: list[Json], patched: list[Json], server: list[Json], key: str) -> list[Json]:
    """Items in the server's order where both have a place in it; otherwise those of the patch come first."""
    out = []
    while untouched and patched:
        ours, theirs = untouched[0].get(key), patched[0].get(key)
        first = theirs in server and server.index(ours) < server.index(theirs)
        out.append((untouched if first else patched).pop(0))
    return [*out, *untouched, *patched]


def _ordered(items: list[Json], order: list[Json], type_: Type) -> list[Json]:
    key = _merge_key(type_) if isinstance(type_, Listing) else ""
    wanted = [item.get(key) if isinstance(item, dict) else item for item in order]

    def place(item: Json) -> int:
        value = item.get(key) if isinstance(item, dict) else item
        return wanted.index(value) if value in wanted else len(wanted)

    return sorted(items, key=place)
