"""docs/kinds.md: every kind and every resource type, from the models. What stands there cannot be out of date."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reconciler.model import Kind, ResourceType, Spec
from reconciler.registry import Registry
from reconciler.schema import model_schema, schema

Node = Mapping[str, Any]
"""A part of a JSON Schema."""

_HEAD = """\
# Kinds and resource types

Generated from the models by `reconciler kinds --output markdown`; edit the models, not this page.

A **kind** is what you write in a document. A **resource type** is what a kind stands on: one sort of object on a
target, with the attributes that plans and drift reports name. [words.md](words.md) explains the words,
[documents.md](documents.md) what surrounds the `spec` of a kind.
"""


def kinds_markdown(registry: Registry) -> str:
    """The page as Markdown (CommonMark with tables). The same registry gives the same text, byte for byte."""
    parts = [_HEAD, "## Kinds\n", _contents((k.name, k.summary) for k in registry.kinds.values())]
    parts += [_kind(kind) for kind in registry.kinds.values()]
    parts += ["## Resource types\n", _contents((t.name, t.summary) for t in registry.types.values())]
    parts += [_type(one) for one in registry.types.values()]
    return "\n".join(parts)


def _contents(entries: Iterable[tuple[str, str]]) -> str:
    return "".join(f"- [{name}](#{_anchor(name)}): {_prose(summary)}\n" for name, summary in entries)


def _anchor(heading: str) -> str:
    """As GitHub makes it from a heading."""
    return re.sub(r"[^a-z0-9 _-]", "", heading.casefold()).replace(" ", "-")


# ------------------------------------------------------------------------------------------------ kinds


def _kind(kind: Kind[Any]) -> str:
    text, example = _split(kind.spec)
    whole = schema(kind)
    spec: Node = whole["properties"]["spec"]
    out = [f"### {kind.name}\n", f"{_prose(text)}\n"]
    if example:
        out.append(f"```yaml\n{example}\n```\n")
    rows = list(_rows(spec, whole, "", ()))
    if rows:
        out += ["| field of `spec` | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""]
    else:
        out.append("It has no fields.\n")
    return "\n".join(out)


def _split(spec: type[Spec]) -> tuple[str, str]:
    """A docstring's text, and its example without the indentation."""
    text, _, example = inspect.cleandoc(spec.__doc__ or "").partition("\nExample:\n")
    return text.strip(), inspect.cleandoc(example)


def _rows(node: Node, whole: Node, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    """The fields of a mapping, each followed by the fields inside it."""
    required = node.get("required", ())
    for name, field in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        default = "required" if name in required else _default(field)
        yield _row(f"`{path}`", _type_text(field, whole), default, _meaning(field))
        for reference, inner, mark in _inner(field, whole):
            if reference not in above:
                yield from _rows(inner, whole, f"{path}{mark}.", (*above, reference))


def _inner(field: Node, whole: Node) -> Iterator[tuple[str, Node, str]]:
    """The mappings that a field may hold: their name, themselves, and `[]` or `.*` for lists and maps of them."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        inner = whole["definitions"][name]
        # A secret is explained once, in documents.md, not below every field that takes one.
        if "properties" in inner and name != "Secret":
            yield name, inner, ""
        elif "properties" not in inner:
            yield from _inner(inner, whole)
    for choice in field.get("anyOf", ()):
        yield from _inner(choice, whole)
    for key, mark in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(field.get(key), Mapping):
            for name, inner, rest in _inner(field[key], whole):
                yield name, inner, mark + rest


_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
}


def _type_text(node: Node, whole: Node) -> str:
    """The type of a field in words."""
    match node:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            if name == "Secret":
                return "[secret](documents.md#secrets)"
            inner = whole["definitions"][name]
            return "mapping" if "properties" in inner else _type_text(inner, whole)
        case {"const": value}:
            return f"`{_json(value)}`"
        case {"enum": values}:
            return " or ".join(f"`{_json(value)}`" for value in values)
        case {"anyOf": choices}:
            return " or ".join(dict.fromkeys(_type_text(choice, whole) for choice in choices))
        case {"type": "array", "items": Mapping() as items}:
            return f"list of {_type_text(items, whole)}"
        case {"type": "object", "additionalProperties": Mapping() as values}:
            return f"mapping of {_type_text(values, whole)}"
    return _WORDS.get(node.get("type", ""), "anything")


def _default(field: Node) -> str:
    value = field.get("default")
    return "" if value in (None, [], {}, "") else f"`{_json(value)}`"


def _meaning(field: Node) -> str:
    """The description, and the rule that a text has to keep."""
    parts = [field.get("description", "")]
    for node in (field, field.get("items", {}), *field.get("anyOf", ())):
        if isinstance(node, Mapping):
            parts.append(node.get("patternErrorMessage", ""))
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        parts.append(f"From {low} to {high}.")
    return _prose(" ".join(dict.fromkeys(filter(None, parts))))


# ------------------------------------------------------------------------------------------------ resource types


def _type(one: ResourceType[Any]) -> str:
    text, _ = _split(one.spec)
    model: type[Spec] = one.spec
    whole = model_schema(model)
    fields: Mapping[str, Node] = whole["properties"]
    alias = {name: field.alias or name for name, field in model.model_fields.items()}
    compared = set(one.compared.values())
    identity = [alias[name] for name in one.identity]
    control = [a for a in alias.values() if a not in compared and a not in identity]
    out = [f"### {one.name}\n", f"{_prose(text)}\n"]
    if one.is_audit:
        out.append("An **audit**: it only looks. What it finds is shown, and never changed.\n")
    out.append(f"Named by {', '.join(f'`{name}`' for name in identity)}.\n")
    rows = [_row(f"`{a}`", _type_text(fields[a], whole), _meaning(fields[a])) for a in alias.values() if a in compared]
    if rows:
        title = "looked at" if one.is_audit else "compared"
        out += [f"| {title} | type | meaning |", "| --- | --- | --- |", *rows, ""]
    else:
        out.append("Nothing is compared but whether it is there.\n")
    if one.immutable:
        out.append(f"A change of {', '.join(f'`{a}`' for a in sorted(one.immutable))} replaces the object.\n")
    if control:
        out += ["Steers the work, and is not compared:\n", *_control(control, fields), ""]
    return "\n".join(out)


def _control(names: Iterable[str], fields: Mapping[str, Node]) -> Iterator[str]:
    for name in names:
        meaning = fields[name].get("description", "")
        yield f"- `{name}`" + (f": {_prose(meaning)}" if meaning else "")


# ------------------------------------------------------------------------------------------------ text


def _prose(text: str) -> str:
    """Text of a docstring as Markdown, where it is the same but for angle brackets outside code."""
    return "".join(
        part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(re.split(r"(`[^`]*`)", text))
    )


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
