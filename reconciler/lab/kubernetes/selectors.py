"""Label and field selectors of lists and watches.

Source of the syntax: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import bad_request

Predicate = Callable[[Object], bool]
_TOKEN = re.compile(r"\s*(==|!=|[=!,()<>]|[^\s=!,()<>]+)")


@dataclass(frozen=True)
class _Requirement:
    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: dict[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "exists":
            return value is not None
        if self.operator == "!":
            return value is None
        if self.operator == "in":
            return value in self.values
        if self.operator == "notin":
            return value not in self.values
        try:
            number, limit = int(value or ""), int(self.values[0])
        except ValueError:
            return False
        return number > limit if self.operator == ">" else number < limit


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = [match[1] for match in _TOKEN.finditer(text)]

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self) -> str:
        return self.tokens.pop(0) if self.tokens else ""

    def all(self) -> list[_Requirement]:
        found = []
        while self.tokens:
            found.append(self._one())
            if not self.tokens:
                break
            if self.peek() != ",":
                raise bad_request(f"found '{self.peek()}', expected: ',' or 'end of string'")
            self.take()
        return found

    def _one(self) -> _Requirement:
        if self.peek() == "!":
            self.take()
            return _Requirement(self.take(), "!")
        key = self.take()
        word = self.peek()
        if word in ("", ","):
            return _Requirement(key, "exists")
        if word in ("=", "==", "!="):
            self.take()
            value = "" if self.peek() in ("", ",") else self.take()
            return _Requirement(key, "notin" if word == "!=" else "in", (value,))
        if word in ("in", "notin"):
            self.take()
            return _Requirement(key, word, self._values())
        if word in (">", "<"):
            self.take()
            return _Requirement(key, word, (self.take(),))
        raise bad_request(f"unable to parse requirement: found '{word}', expected: in, notin, =, ==, !=, gt, lt")

    def _values(self) -> tuple[str, ...]:
        if self.take() != "(":
            raise bad_request("unable to parse requirement: found '', expected: '('")
        values = []
        while self.tokens:
            word = self.take()
            if word == ")":
                break
            if word != ",":
                values.append(word)
        return tuple(values) or ("",)


def labels(text: str) -> Predicate:
    """A predicate for a `labelSelector`. Raises ApiError 400 for what is none."""
    requirements = _Parser(text).all()
    return lambda value: all(one.holds(value["metadata"].get("labels") or {}) for one in requirements)


_FIELDS: dict[str, tuple[str, ...]] = {
    "Pod": ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase"),
    "Secret": ("type",),
    "Namespace": ("status.phase",),
    "Event": ("involvedObject.kind", "involvedObject.name", "involvedObject.namespace", "reason", "type"),
}


def fields(text: str, kind: str) -> Predicate:
    """A predicate for a `fieldSelector`: names, and the few fields that a kind has. Raises ApiError 400."""
    known = ("metadata.name", "metadata.namespace", *_FIELDS.get(kind, ()))
    checks: list[tuple[str, bool, str]] = []
    for term in filter(None, text.split(",")):
        match = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", term)
        if not match:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        if match[1] not in known:
            names = ", ".join(f'"{name}"' for name in ("metadata.name", "metadata.namespace"))
            raise bad_request(f'"{match[1]}" is not a known field selector: only {names}')
        checks.append((match[1], match[2] != "!=", match[3]))
    return lambda value: all((_at(value, path) == wanted) == equal for path, equal, wanted in checks)


def _at(value: Object, path: str) -> str:
    here: object = value
    for key in path.split("."):
        here = here.get(key) if isinstance(here, dict) else None
    return str(here or "")
