"""Discover: the way back, from a live system to documents. `reconciler import` writes what it finds.

Each kind says by `discover` which reads it needs and which documents the replies mean. The reads of all kinds go out
together, round by round, as those of a plan do. What the desired state describes already is left out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.errors import InvalidInput, Position, ProbeFailed
from reconciler.expand import Catalog
from reconciler.model import API_VERSION, Discovery, Document, Kind, Lifecycle, Metadata, Read, Reply, Target


@dataclass(frozen=True, slots=True)
class Found:
    """A document for something that exists."""

    kind: str
    name: str
    spec: Mapping[str, Any]

    @property
    def address(self) -> str:
        """`Kind/name`."""
        return f"{self.kind}/{self.name}"


def discover(
    target: Target,
    catalog: Catalog,
    read: Callable[[Sequence[Read]], Sequence[Reply]],
    kinds: Iterable[str] = (),
) -> tuple[list[Found], list[str]]:
    """The documents that describe what a target has and that the desired state does not describe yet.

    Args:
        target: where to look.
        catalog: the desired state.
        read: answers a round of reads.
        kinds: only these; all by default.

    Returns:
        the documents, and sentences about what no document could say.

    Raises:
        ConnectError, ConnectionLost: the target cannot be read.
        ProbeFailed: it refuses whatever was asked for.
    """
    wanted = set(kinds)
    active: list[tuple[Kind[Any], Discovery, Sequence[Read]]] = []
    found: list[tuple[Kind[Any], Iterable[tuple[str, Mapping[str, Any]]]]] = []
    refused: dict[str, ProbeFailed] = {}

    def advance(kind: Kind[Any], discovery: Discovery, replies: Sequence[Reply] | None) -> None:
        try:
            reads = next(discovery) if replies is None else discovery.send(replies)
        except StopIteration as stop:
            found.append((kind, stop.value))
        except ProbeFailed as error:
            refused[kind.name] = error
        else:
            active.append((kind, discovery, reads))

    for kind in catalog.registry.kinds.values():
        discovery = kind.discover(target) if kind.discover and (not wanted or kind.name in wanted) else None
        if discovery is not None:
            advance(kind, discovery, None)
    while active:
        waiting, active = active, []
        replies = read([one for _, _, reads in waiting for one in reads])
        start = 0
        for kind, discovery, reads in waiting:
            advance(kind, discovery, replies[start : start + len(reads)])
            start += len(reads)
    if refused and not found:
        raise next(iter(refused.values()))
    known = {r.address for document in catalog for r in _objects(document, catalog)}
    taken = {document.address for document in catalog}
    out = []
    left = [f"{name} was not looked for: {error}" for name, error in sorted(refused.items())]
    for kind, documents in sorted(found, key=lambda one: one[0].name):
        for name, spec in documents:
            one = Found(kind.name, _free(kind.name, name, taken), spec)
            try:
                typed = kind.spec.model_validate(spec)
            except ValueError as error:
                left.append(f"{one.address} was left out: {_first(error)}")
                continue
            document = Document(kind.name, Metadata(name=one.name), typed, Lifecycle(), Position("import", 1))
            if known.issuperset(r.address for r in _objects(document, catalog)):
                continue
            taken.add(one.address)
            out.append(one)
    return out, left


def _first(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    detail = errors(include_url=False)[0]
    return f"{'.'.join(map(str, detail['loc']))} {detail['msg'].removeprefix('Value error, ')}"


def _objects(document: Document[Any], catalog: Catalog) -> list[Any]:
    try:
        kind = catalog.registry.kinds[document.kind]
        return [r for r in kind.expand(document, catalog) if not catalog.registry.type_of(r.type).is_audit]
    except InvalidInput:
        return []


def _free(kind: str, name: str, taken: set[str]) -> str:
    found, number = name, 2
    while f"{kind}/{found}" in taken:
        found = f"{name}-{number}"
        number += 1
    return found


def text_of(documents: Iterable[Found]) -> str:
    """Documents as YAML, in their order."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 4096
    out = io.StringIO()
    for document in documents:
        out.write("---\n")
        spec = {key: _plain(value) for key, value in document.spec.items()}
        head = {"apiVersion": API_VERSION, "kind": document.kind, "metadata": {"name": document.name}}
        yaml.dump({**head, "spec": spec}, out)
    return out.getvalue()


def _plain(value: Any) -> Any:
    """Texts of several lines as blocks, everything else as it is."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

    if isinstance(value, str):
        if "\n" in value.rstrip("\n") and all(c.isprintable() or c == "\n" for c in value):
            return LiteralScalarString(value)
        return DoubleQuotedScalarString(value) if _looks_different(value) else value
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _looks_different(text: str) -> bool:
    """Words that other readers of YAML take for a truth value, a time or a number."""
    return text.lower() in ("yes", "no", "on", "off", "y", "n", "null", "~") or text[:1].isdigit()
