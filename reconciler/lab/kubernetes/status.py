"""Answers that are not objects: Status bodies, spelled as the API server spells them.

`ApiError` carries one; the functions make the kinds of it. Source of the wording: the recorded exchanges, and
https://kubernetes.io/docs/reference/using-api/api-concepts/ for the form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class ApiError(Exception):
    """A request was refused. `body` is the Status, or plain text where the server answers text."""

    def __init__(
        self,
        code: int,
        message: str,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        text: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.text = text
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
        }
        if reason:
            self.body["reason"] = reason
        if details is not None:
            self.body["details"] = dict(details)
        self.body["code"] = code


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a field: what the server lists as a cause."""

    field: str
    reason: str
    message: str


def quoted(value: object) -> str:
    """A value as the server prints it in messages: JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def required(field: str, detail: str = "") -> Problem:
    """A field is missing."""
    return Problem(field, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))


def invalid(field: str, value: object, detail: str) -> Problem:
    """A field has a value that it must not have."""
    return Problem(field, "FieldValueInvalid", f"Invalid value: {quoted(value)}: {detail}")


def invalid_text(field: str, text: str) -> Problem:
    """As `invalid`, with the text after `Invalid value: ` as it stands."""
    return Problem(field, "FieldValueInvalid", f"Invalid value: {text}")


def duplicate(field: str, value: object) -> Problem:
    """A value stands twice."""
    return Problem(field, "FieldValueDuplicate", f"Duplicate value: {quoted(value)}")


def unsupported(field: str, value: object, supported: Iterable[str]) -> Problem:
    """A value is not one of an enumeration."""
    names = ", ".join(quoted(name) for name in supported)
    return Problem(field, "FieldValueNotSupported", f"Unsupported value: {quoted(value)}: supported values: {names}")


def forbidden_field(field: str, detail: str) -> Problem:
    """A field must not be set, or not be changed."""
    return Problem(field, "FieldValueForbidden", f"Forbidden: {detail}")


def too_long(field: str, limit: int) -> Problem:
    """A value is longer than `limit` bytes."""
    return Problem(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def not_found(resource: str, group: str, name: str) -> ApiError:
    """404 for an object."""
    return ApiError(404, f'{qualified(resource, group)} "{name}" not found', "NotFound", named(resource, group, name))


def no_such_path() -> ApiError:
    """404 for a path outside the API: plain text."""
    return ApiError(404, "not found", text="404 page not found\n")


def no_such_resource() -> ApiError:
    """404 for an unknown resource of a known version."""
    return ApiError(404, "the server could not find the requested resource", "NotFound", {})


def already_exists(resource: str, group: str, name: str, deleting: bool = False) -> ApiError:
    """409 of a POST."""
    start = "object is being deleted: " if deleting else ""
    message = f'{start}{qualified(resource, group)} "{name}" already exists'
    return ApiError(409, message, "AlreadyExists", named(resource, group, name))


def conflict(resource: str, group: str, name: str, why: str) -> ApiError:
    """409: somebody else was faster, or another object was meant."""
    message = f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}'
    return ApiError(409, message, "Conflict", named(resource, group, name))


STALE = "the object has been modified; please apply your changes to the latest version and try again"


def forbidden(resource: str, group: str, name: str, why: str, causes: list[dict[str, str]] | None = None) -> ApiError:
    """403."""
    shown = f'{qualified(resource, group)} "{name}"' if name else qualified(resource, group)
    details = named(resource, group, name)
    if causes:
        details["causes"] = causes
    return ApiError(403, f"{shown} is forbidden: {why}", "Forbidden", details)


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, message, "BadRequest")


def server_error(message: str) -> ApiError:
    """500 without a reason, as typed apply answers."""
    return ApiError(500, message)


def unprocessable(kind: str, group: str, name: str, problems: list[Problem]) -> ApiError:
    """422 with one cause per problem. The message names equal ones once."""
    texts = list(dict.fromkeys(f"{problem.field}: {problem.message}" for problem in problems))
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = named(kind, group, name)
    details["causes"] = [{"reason": p.reason, "message": p.message, "field": p.field} for p in problems]
    return ApiError(422, f'{qualified(kind, group)} "{name}" is invalid: {text}', "Invalid", details)


def qualified(resource: str, group: str) -> str:
    """`deployments.apps`, or `pods`."""
    return f"{resource}.{group}" if group else resource


def named(resource: str, group: str, name: str) -> dict[str, Any]:
    """The start of `details`."""
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    details["kind"] = resource
    return details
