"""Stage 3, expand: documents -> the objects that they mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from reconciler.errors import ContractError, InvalidInput, Position, Problem
from reconciler.fields import HostLabels
from reconciler.load import RawDocument
from reconciler.model import Document, Resource, Target
from reconciler.registry import Registry

MAX_SOURCE_BYTES = 10 * 1024 * 1024


class Catalog:
    """All documents, to look things up in. Read only."""

    def __init__(
        self, documents: Iterable[Document[Any]], registry: Registry, root: Path, raw: Mapping[str, RawDocument]
    ) -> None:
        self.registry = registry
        self.root = root
        self._raw = raw
        self._documents = {d.address: d for d in sorted(documents, key=lambda d: d.address)}

    def __iter__(self) -> Iterator[Document[Any]]:
        return iter(self._documents.values())

    def __len__(self) -> int:
        return len(self._documents)

    def get(self, address: str) -> Document[Any] | None:
        """The document `Kind/name`, if there is one."""
        return self._documents.get(address)

    @cached_property
    def targets(self) -> Mapping[str, Target]:
        """Every system to connect to, by name."""
        found = (
            target(document) for document in self if (target := self.registry.kinds[document.kind].target) is not None
        )
        return {target.name: target for target in found}

    def hosts(self, selector: Sequence[str] | HostLabels) -> list[str]:
        """Names of the hosts that a selector means, sorted. Names that do not exist are left out (`check` tells)."""
        if isinstance(selector, HostLabels):
            wanted = selector.match_labels.items()
            return [n for n, t in self._host_items if wanted <= t.labels.items()]
        return sorted({name for name in selector if f"Host/{name}" in self._documents})

    @cached_property
    def _host_items(self) -> list[tuple[str, Target]]:
        return [(d.name, self.targets[d.name]) for d in self if d.kind == "Host"]

    def position(self, document: Document[Any], *path: str | int) -> Position:
        """Where a value of a document stands, for example `position(doc, "spec", "hosts", 0)`."""
        raw = self._raw.get(document.address)
        return raw.position(path) if raw else document.position

    def written(self, document: Document[Any], *path: str | int) -> str:
        """The first word of a value as it stands in the file: `|` for a block of text."""
        raw = self._raw.get(document.address)
        return raw.written(path) if raw else ""

    def problem(self, document: Document[Any], path: Sequence[str | int], message: str, fix: str = "") -> Problem:
        """A problem at a place inside a document."""
        return Problem(message, fix, document.address, self.position(document, *path))

    def source(self, document: Document[Any], path: Sequence[str | int], name: str) -> str:
        """The text of a file of the repo, named relative to the document's own folder.

        Raises:
            InvalidInput: it lies outside the desired state, is missing, too large, or no UTF-8 text.
        """
        base = Path(document.position.file).parent
        file = base / name
        try:
            if not file.resolve().is_relative_to(self.root.resolve()):
                message, fix = f"{name} lies outside the desired state.", "Copy it next to the document."
            elif file.stat().st_size > MAX_SOURCE_BYTES:
                message, fix = f"{name} is larger than 10 MiB.", "Ship large files as a package."
            else:
                return file.read_bytes().decode()
        except OSError as error:
            near = get_close_matches(name, [p.name for p in base.iterdir()] if base.is_dir() else (), 1)
            message = f"{name} cannot be read: {error.strerror}."
            fix = f"Did you mean {near[0]}?" if near else f"Paths are relative to {base}."
        except UnicodeDecodeError:
            message, fix = f"{name} is not UTF-8 text.", "Ship binary files as a package."
        raise InvalidInput([self.problem(document, path, message, fix)])


def expand(catalog: Catalog) -> list[Resource[Any]]:
    """The resources of all documents, sorted by address. What several documents mean alike is one resource.

    Raises:
        InvalidInput: two documents want different things of one object.
    """
    found: dict[str, Resource[Any]] = {}
    problems: list[Problem] = []
    for document in catalog:
        kind = catalog.registry.kinds[document.kind]
        address = document.address
        attributes: set[str] = set()
        try:
            for bare in kind.expand(document, catalog):
                resource = Resource(
                    bare.type,
                    bare.target,
                    bare.key,
                    bare.spec,
                    address,
                    bare.absent,
                    document.lifecycle,
                    document.metadata.labels,
                    document.position,
                )
                if resource.type not in catalog.registry.types:
                    raise ContractError(document.kind, f"{document.kind} uses the unknown type {resource.type}.")
                attributes.update(catalog.registry.types[resource.type].compared.values())
                if document.lifecycle.ignore_changes:
                    attributes.update(catalog.registry.types[resource.type].parts(resource.spec))
                other = found.setdefault(resource.address, resource)
                if other is not resource and (other.spec != resource.spec or other.absent != resource.absent):
                    problems.append(_conflict(resource, other))
        except InvalidInput as error:
            problems.extend(error.problems)
        for index, name in enumerate(document.lifecycle.ignore_changes):
            if attributes and name not in attributes:
                near = get_close_matches(name, attributes, 1)
                fix = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(sorted(attributes))}."
                message = f"lifecycle.ignoreChanges[{index}] is no attribute of its objects."
                problems.append(catalog.problem(document, ("lifecycle", "ignoreChanges", index), message, fix))
    if problems:
        raise InvalidInput(problems)
    return [found[address] for address in sorted(found)]


def _conflict(resource: Resource[Any], other: Resource[Any]) -> Problem:
    return Problem(
        f"wants {resource.address}, which {other.origin} ({other.position}) describes differently.",
        "Keep one of them.",
        resource.origin,
        resource.position,
    )
