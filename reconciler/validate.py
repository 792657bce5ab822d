"""Stage 2, validate: raw documents -> typed documents, or all problems at once.

Three layers, each for the documents that passed the one before: the JSON Schema (shape), the model (rules on
values), cross-checks (names, references, each kind's own lint). No network and no secrets. A document that its model
takes to the letter has passed the first two at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from reconciler.errors import InvalidInput, Problem
from reconciler.expand import Catalog
from reconciler.fields import Ref
from reconciler.load import Loaded, RawDocument
from reconciler.model import API_VERSION, Document, Kind, Lifecycle, Metadata
from reconciler.registry import Registry

_PLAIN = re.compile(r"[A-Za-z0-9._/?@-]{1,60}")
_TYPE_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def validate(loaded: Loaded, registry: Registry) -> Catalog:
    """Check all documents.

    Raises:
        InvalidInput: with every problem of every document.
    """
    problems: list[Problem] = []
    documents: list[Document[Any]] = []
    raw_by_address: dict[str, RawDocument] = {}
    for raw in loaded.documents:
        checked = _document(raw, registry)
        if isinstance(checked, list):
            problems.extend(checked)
            continue
        twin = raw_by_address.setdefault(checked.address, raw)
        if twin is not raw:
            message = f"is there twice; the other stands at {twin.position(('metadata', 'name'))}."
            at = raw.position(("metadata", "name"))
            problems.append(Problem(message, "Rename or delete one.", checked.address, at))
            continue
        documents.append(checked)
    catalog = Catalog(documents, registry, loaded.root, raw_by_address)
    # References are checked only where every document could be read: a broken one is not a missing one.
    complete = not problems
    problems.extend(_namesakes(catalog))
    if complete:
        for document in catalog:
            problems.extend(_cross_checks(document, catalog))
            problems.extend(registry.kinds[document.kind].check(document, catalog))
    if problems:
        raise InvalidInput(problems)
    return catalog


def _document(raw: RawDocument, registry: Registry) -> Document[Any] | list[Problem]:
    data = raw.data
    if not isinstance(data, dict):
        return [Problem("is not a mapping.", "A document starts with apiVersion, kind, ...", position=raw.position())]
    name = data.get("kind")
    if not isinstance(name, str):
        return [Problem("has no kind.", "Add `kind:`; `reconciler kinds` lists them.", position=raw.position())]
    metadata = data.get("metadata")
    subject = f"{_word(name)}/{_word(metadata.get('name', '?')) if isinstance(metadata, dict) else '?'}"
    kind = registry.kinds.get(name)
    if kind is None:
        return [
            Problem(
                f"there is no kind {_word(name)}.",
                did_you_mean(name, registry.kinds) or "`reconciler kinds` lists them.",
                subject,
                raw.position(("kind",)),
            )
        ]
    document = _at_once(kind, raw)
    if document is not None:
        return document
    errors = list(_validator(kind).iter_errors(data))
    if not errors:
        return _typed(kind, raw, subject)
    # The rules of its models on values that have the right shape are told, too.
    told = [tuple(e.absolute_path) for e in errors if e.validator not in ("required", "additionalProperties")]
    typed = _typed(kind, raw, subject, told)
    return [*_explain_all(errors, raw, subject), *(typed if isinstance(typed, list) else ())]


def _at_once(kind: Kind[Any], raw: RawDocument) -> Document[Any] | None:
    """The document, if its models take it as it is: without converting anything, by its YAML names only, without empty
    values. What they take like that, its schema takes, too. Most documents go this way, and it costs a thousandth of
    the other: making a schema and loading what checks it. `None` = look closely, something may be wrong."""
    from pydantic import ValidationError

    data = raw.data
    if data.get("apiVersion") != API_VERSION or not data.keys() <= _PARTS:
        return None
    parts: dict[str, Any] = {}
    try:
        for part, model in (("metadata", Metadata), ("spec", kind.spec), ("lifecycle", Lifecycle)):
            text = json.dumps(data[part] if part != "lifecycle" else data.get(part, {}), separators=(",", ":"))
            if _EMPTY.search(text):
                return None
            parts[part] = model.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except (KeyError, ValidationError):
        return None
    return Document(kind.name, parts["metadata"], parts["spec"], parts["lifecycle"], raw.position_of_document)


_PARTS = {"apiVersion", "kind", "metadata", "spec", "lifecycle"}
_EMPTY = re.compile(r"(?:^|[:,[])null")


def _typed(
    kind: Kind[Any], raw: RawDocument, subject: str, told: Sequence[Sequence[str | int]] | None = None
) -> Document[Any] | list[Problem]:
    """The document, or what its models say against it.

    Args:
        told: where its schema found it wrong already; of the rest, only rules on single values are told.
    """
    from pydantic import ValidationError

    parts: dict[str, Any] = {}
    problems = []
    for part, model in (("metadata", Metadata), ("spec", kind.spec), ("lifecycle", Lifecycle)):
        try:
            parts[part] = model.model_validate(raw.data.get(part, {}))
        except ValidationError as error:
            details = error.errors(include_url=False)
            # What stands below a key that cannot be there does not matter.
            wrong_keys = {detail["loc"][:-1] for detail in details if detail["loc"][-1:] == ("[key]",)}
            for detail in details:
                path = (part, *detail["loc"])
                known = told is not None and (
                    detail["type"] != "value_error" or any(path[: len(p)] == p or p[: len(path)] == path for p in told)
                )
                if detail["loc"] not in wrong_keys and not known:
                    at = raw.position(path[:-1], key=True) if path[-1] == "[key]" else raw.position(path)
                    problems.append(Problem(*_in_words(detail, _dotted(path)), subject, at))
    if problems or told is not None:
        return problems
    return Document(kind.name, parts["metadata"], parts["spec"], parts["lifecycle"], raw.position_of_document)


def _in_words(detail: Mapping[str, Any], where: str) -> tuple[str, str]:
    """What a model says, as message and fix: its rules speak for themselves, its library does not."""
    kind, value, bounds = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in ("too_short", "string_too_short", "too_long", "string_too_long"):
        return _wrong_size(where, value, bounds.get("min_length"), bounds.get("max_length"))
    if kind == "model_type" and bounds.get("class_name") == "Secret":
        return _written_out(where)
    if kind in _TYPE_ERRORS:
        return _wrong_type(where, value, _TYPE_NAMES[_TYPE_ERRORS[kind]])
    return f"{where} {detail['msg'].removeprefix('Value error, ')}", ""


_TYPE_ERRORS = {
    "string_type": "string",
    "int_type": "integer",
    "int_parsing": "integer",
    "int_parsing_size": "integer",
    "int_from_float": "integer",
    "float_type": "number",
    "float_parsing": "number",
    "bool_type": "boolean",
    "bool_parsing": "boolean",
    "tuple_type": "array",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
}


def _written_out(where: str) -> tuple[str, str]:
    """Where a secret is named: what stands there may be the secret itself, and is not repeated."""
    return (
        f"{where} is no reference to a secret.",
        "Write {secretRef: path/key}; `secrets set path/key` takes the value.",
    )


def _wrong_type(where: str, value: Any, wanted: str) -> tuple[str, str]:
    if value is None:
        return f"{where} is empty.", f"Write {wanted}, or leave the key out."
    return f"{where} is {_shown(value)}, not {wanted}.", ""


def _wrong_size(where: str, value: Any, least: int | None, most: int | None) -> tuple[str, str]:
    """Of text, lists and mappings."""
    if isinstance(value, str):
        if least and len(value) < least:
            return f"{where} is empty.", "Write some text, or leave the key out."
        return f"{where} is too long: {len(value)} characters.", f"Write at most {most}."
    wanted = f"exactly {most}" if least == most else f"at least {least}" if least else f"at most {most}"
    wanted = "at least one" if wanted == "at least 1" else wanted
    return f"{where} is empty." if not value else f"{where} has {len(value)}.", f"Give {wanted}."


@cache
def _validator(kind: Kind[Any]) -> Any:
    from jsonschema import Draft7Validator

    from reconciler.schema import schema

    return Draft7Validator(schema(kind))


def _explain_all(errors: Sequence[Any], raw: RawDocument, subject: str) -> Iterator[Problem]:
    """Text of a wrong length is told once, although it breaks the pattern, too."""
    sized = {tuple(e.absolute_path) for e in errors if e.validator in ("minLength", "maxLength")}
    for error in errors:
        if error.validator != "pattern" or tuple(error.absolute_path) not in sized:
            yield from _explain(error, raw, subject)


def _explain(error: Any, raw: RawDocument, subject: str) -> Iterator[Problem]:
    """One schema error in words, at the place that has to change."""
    path = tuple(error.absolute_path)
    where = _dotted(path)
    value = error.instance

    def problem(message: str, fix: str = "", at: Sequence[str | int] = path, key: bool = False) -> Problem:
        return Problem(message, fix, subject, raw.position(tuple(at), key=key))

    match error.validator:
        case "additionalProperties":
            known = error.schema.get("properties", {})
            for name in value:
                if name not in known:
                    full = _dotted((*path, _word(name)))
                    fix = did_you_mean(name, known) or f"Known here: {', '.join(known)}."
                    yield problem(f"{full} is not known.", fix, (*path, name), key=True)
        case "required":
            for name in error.validator_value:
                if name not in value:
                    yield problem(f"{_dotted((*path, name))} is missing.", f"Add `{name}:`.")
        case "type":
            wanted = error.validator_value
            wanted_text = " or ".join(_TYPE_NAMES.get(w, w) for w in ([wanted] if isinstance(wanted, str) else wanted))
            message, fix = _wrong_type(where, value, wanted_text)
            if "secretRef" in error.schema.get("properties", {}):
                message, fix = _written_out(where)
            if wanted == "string" and _is_scalar(value):
                fix = f'Quote it: "{raw.written(path)}".'
            yield problem(message, fix)
        case "const" if path == ("apiVersion",):
            yield problem(f"apiVersion is {_shown(value)}.", f"This version reads {API_VERSION}.")
        case "enum":
            allowed = [str(v) for v in error.validator_value]
            near = did_you_mean(str(value), allowed)
            yield problem(f"{where} is {_shown(value)}.", near or f"Choose one of {', '.join(allowed)}.")
        case "pattern":
            hint = error.schema.get("patternErrorMessage") or f"It must match {error.validator_value}."
            yield problem(f"{where} is {_shown(value)}, which is not allowed here.", hint)
        case "anyOf" | "oneOf":
            yield from _explain_choice(error, raw, subject)
        case "minItems" | "minProperties" | "minLength" | "maxItems" | "maxProperties" | "maxLength":
            name = error.validator.removeprefix("min").removeprefix("max")
            least, most = (error.schema.get(f"{bound}{name}") for bound in ("min", "max"))
            yield problem(*_wrong_size(where, value, least, most))
        case _:
            yield problem(f"{where}: {_cut(error.message)}.")


def _explain_choice(error: Any, raw: RawDocument, subject: str) -> Iterator[Problem]:
    """Of several alternatives, explain the one that was most likely meant: the one of the right type."""
    branches: dict[int, list[Any]] = {}
    for sub in error.context:
        branches.setdefault(sub.relative_schema_path[0], []).append(sub)
    meant = [b for b in branches.values() if not any(e.validator == "type" and not e.relative_path for e in b)]
    if len(meant) == 1:
        yield from _explain_all(meant[0], raw, subject)
        return
    path = tuple(error.absolute_path)
    choices = [c.get("type", "object") for c in error.validator_value]
    wanted = " or ".join(dict.fromkeys(_TYPE_NAMES.get(c, c) for c in choices))
    if "string" in choices and _is_scalar(error.instance):
        wanted += f'; as text: "{raw.written(path)}"'
    yield Problem(f"{_dotted(path)} is {_shown(error.instance)}.", f"Write {wanted}.", subject, raw.position(path))


def _namesakes(catalog: Catalog) -> Iterable[Problem]:
    """Systems to connect to share one space of names, because addresses, locks and reports name them alone."""
    known: dict[str, Document[Any]] = {}
    for document in catalog:
        if catalog.registry.kinds[document.kind].target is None:
            continue
        other = known.setdefault(document.name, document)
        if other is not document:
            message = f"{other.address} is a system to connect to of the same name."
            yield catalog.problem(document, ("metadata", "name"), message, "Rename one of them.")


def _cross_checks(document: Document[Any], catalog: Catalog) -> Iterable[Problem]:
    hosts = getattr(document.spec, "hosts", None)
    if isinstance(hosts, tuple):
        known = [d.name for d in catalog if d.kind == "Host"]
        for index, name in enumerate(hosts):
            if catalog.get(f"Host/{name}") is None:
                fix = did_you_mean(name, known) or "Add a document of kind Host."
                yield catalog.problem(document, ("spec", "hosts", index), f"there is no Host/{_word(name)}.", fix)
    elif hosts is not None and not catalog.hosts(hosts):
        labels = ", ".join(f"{_word(k)}: {_word(v)}" for k, v in hosts.match_labels.items())
        at = ("spec", "hosts", "matchLabels")
        yield catalog.problem(document, at, f"no host carries the labels {labels}.", "Check the labels of the hosts.")
    yield from _dangling(document, catalog)
    for index, address in enumerate(document.lifecycle.requires):
        if catalog.get(address) is None:
            fix = did_you_mean(address, [d.address for d in catalog]) or "Write Kind/name."
            yield catalog.problem(document, ("lifecycle", "requires", index), f"there is no {_word(address)}.", fix)


def _dangling(document: Document[Any], catalog: Catalog) -> Iterable[Problem]:
    """References by name to documents that do not exist."""
    for field, ref in _references(catalog.registry.kinds[document.kind]):
        value = getattr(document.spec, field)
        names: list[tuple[tuple[int, ...], str]] = []
        if isinstance(value, tuple):
            names = [((index,), name) for index, name in enumerate(value)]
        elif value is not None:
            names = [((), value)]
        for at, name in names:
            if catalog.get(f"{ref.kind}/{name}") is None:
                fix = did_you_mean(name, [d.name for d in catalog if d.kind == ref.kind])
                where = ("spec", type(document.spec).model_fields[field].alias or field, *at)
                message = f"there is no {ref.kind}/{_word(name)}."
                yield catalog.problem(document, where, message, fix or f"Add a document of kind {ref.kind}.")


@cache
def _references(kind: Kind[Any]) -> list[tuple[str, Ref]]:
    return [(name, m) for name, field in kind.spec.model_fields.items() for m in field.metadata if isinstance(m, Ref)]


def did_you_mean(word: str, known: Iterable[str] | Mapping[str, Any]) -> str:
    """`Did you mean X?`, or nothing where no known name is near."""
    names = list(known)
    folded = {n.casefold(): n for n in names}
    near = get_close_matches(word.casefold(), folded, 1, 0.6)
    return f"Did you mean {folded[near[0]]}?" if near else ""


def _dotted(path: Iterable[str | int]) -> str:
    out = ""
    for part in path:
        if part == "[key]":
            continue  # pydantic's word for "the key itself", which was named just before
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out or "the document"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float | bool)


def _word(value: Any) -> str:
    """A name inside a sentence: as it is where it can be one, else quoted and on one line."""
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else _shown(value)


def _shown(value: Any) -> str:
    """A wrong value for an error message: short, one line, no control characters."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else _cut(text, 57) + ('"' if isinstance(value, str) else "")


def _cut(text: str, length: int = 200) -> str:
    return text if len(text) <= length else text[:length] + "..."
