"""JSON Schemas (draft-07, what yaml-language-server reads) generated from the models."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from reconciler.model import API_VERSION, Kind, Lifecycle, Metadata, Spec


@cache
def schema(kind: Kind[Any]) -> dict[str, Any]:
    """The schema of a whole document of this kind."""
    definitions: dict[str, Any] = {}
    spec = _inline(kind.spec, definitions)
    properties = {
        "apiVersion": {"const": API_VERSION, "description": "The version of this document format."},
        "kind": {"const": kind.name, "description": kind.summary},
        "metadata": _inline(Metadata, definitions),
        "spec": spec,
        "lifecycle": _inline(Lifecycle, definitions),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": kind.name,
        "description": (kind.spec.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " "),
        "type": "object",
        "properties": properties,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
    } | ({"definitions": definitions} if definitions else {})


def text(kind: Kind[Any]) -> str:
    """The schema as it stands in `schemas/KIND.json`."""
    return json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"


@cache
def model_schema(model: type[Spec]) -> dict[str, Any]:
    """The schema of one model alone, such as the spec of a resource type."""
    definitions: dict[str, Any] = {}
    return _inline(model, definitions) | {"definitions": definitions}


def _inline(model: type[Spec], definitions: dict[str, Any]) -> dict[str, Any]:
    out = model.model_json_schema(
        by_alias=True, ref_template="#/definitions/{model}", schema_generator=GenerateJsonSchema
    )
    for name, definition in out.pop("$defs", {}).items():
        definitions[name] = _draft7(definition)
    simplified: dict[str, Any] = _draft7(out)
    return simplified


def _draft7(node: Any) -> Any:
    """Drop what draft-07 or editors have no use for: `null` alternatives (leave the key out instead), titles, and
    the indentation of docstrings."""
    if isinstance(node, list):
        return [_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {
        # A property may itself be called "title": only a title that is text is one.
        key: _draft7(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str)) and not (key == "default" and value is None)
    }
    choices = [c for c in out.get("anyOf", ()) if c != {"type": "null"}]
    if "anyOf" in out:
        del out["anyOf"]
        out = {**choices[0], **out} if len(choices) == 1 else {**out, "anyOf": choices}
    if isinstance(out.get("description"), str):
        out["description"] = " ".join(out["description"].partition("\n\n")[0].split())
    return out
