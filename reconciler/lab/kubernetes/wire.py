"""Requests and answers without HTTP, and what stands in a request's query."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from reconciler.lab.kubernetes.resources import Resource
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import (
    Problem,
    forbidden_field,
    invalid,
    quoted,
    required,
    too_long,
    unprocessable,
    unsupported,
)

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


@dataclass
class Request:
    """One request: method, path, query, lower-case headers, body. `user` is who it is from."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    user: str
    raw_dry_run: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, method: str, target: str, headers: dict[str, str], body: bytes, user: str) -> Request:
        """Reads a request target such as `/api/v1/pods?limit=1`."""
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        dry = [value for key, value in pairs if key == "dryRun"]
        return cls(method, parts.path.rstrip("/") or "/", dict(pairs), headers, body, user, dry)

    @property
    def content_type(self) -> str:
        """The media type of the body without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Goal:
    """What a path names."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    part: str = ""  # a subresource


@dataclass
class Response:
    """An answer: a JSON body, or text, or a stream of watch events."""

    code: int
    body: Object | None = None
    text: str | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    stream: Iterator[Object] | None = None


def warning_header(text: str) -> str:
    """A warning as its header's value (RFC 7234, as the server spells it)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


@dataclass(frozen=True)
class WriteOptions:
    """What the query of a write says."""

    manager: str
    dry_run: bool = False
    force: bool = False
    validation: str = "Warn"  # fieldValidation: Ignore, Warn, Strict

    @classmethod
    def read(cls, request: Request, kind: str) -> WriteOptions:
        """Reads and checks them. Raises ApiError 422 on behalf of `kind` (`PatchOptions`)."""
        apply = request.content_type == APPLY and kind == "PatchOptions"
        problems: list[Problem] = []
        force = "force" in request.query and request.query["force"].lower() not in ("false", "0", "")
        if kind == "PatchOptions" and force and not apply:
            problems.append(forbidden_field("force", "may not be specified for non-apply patch"))
        manager = request.query.get("fieldManager", "")
        if apply and not manager:
            problems.append(required("fieldManager", "is required for apply patch"))
        if len(manager) > 128:
            problems.append(too_long("fieldManager", 128))
        for index, char in enumerate(manager):
            if not char.isprintable():
                text = f"invalid character U+{ord(char):04X} (at position {index})"
                problems.append(invalid("fieldManager", manager, text))
        problems += dry_run_problems(request.raw_dry_run)
        validation = request.query.get("fieldValidation") or "Warn"
        if validation not in ("Ignore", "Strict", "Warn"):
            problems.append(unsupported("fieldValidation", validation, ["", "Ignore", "Strict", "Warn"]))
        if problems:
            raise unprocessable(kind, "meta.k8s.io", "", problems)
        if not manager:
            manager = re.split(r"/", request.headers.get("user-agent", ""), maxsplit=1)[0][:128] or "unknown"
        return cls(manager, bool(request.raw_dry_run), force, validation)


def dry_run_problems(values: list[str]) -> list[Problem]:
    """Problems of `dryRun`: it takes only `All`."""
    if not values or values == ["All"]:
        return []
    text = f'Unsupported value: {quoted(values)}: supported values: "All"'
    return [Problem("dryRun", "FieldValueNotSupported", text)]
