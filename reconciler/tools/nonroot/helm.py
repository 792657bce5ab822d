"""Examines Helm charts as they are written: defaults, templates, the schema of values.

Rendered charts are manifests like others (`workloads`). What matters here shows only before rendering: whether whoever
installs the chart on OpenShift can take a fixed user away with `null`.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from reconciler.tools.nonroot.rules import Flaw
from reconciler.tools.nonroot.users import LOWEST, RESERVED
from reconciler.tools.nonroot.yamlfile import Document, Where, documents, mapping, number, truth

IDS: Final = ("runAsUser", "runAsGroup", "fsGroup")
_FIELD: Final = re.compile(r"^\s*(?:-\s+)?(runAsUser|runAsGroup|fsGroup)\s*:\s*(.*?)\s*$")
_ACTION: Final = re.compile(r"\{\{-?(.*?)-?\}\}")
_VALUES_FILE: Final = re.compile(r"values(?:[-_.][A-Za-z0-9_.-]+)?\.ya?ml")
MOST: Final = 100_000
"""Values of a file that are looked at."""


def chart_of(path: str, charts: Sequence[str]) -> str | None:
    """The folder of the chart that a file belongs to, the innermost one."""
    inside = [c for c in charts if c in ("", ".") or path.startswith(c + "/")]
    return max(inside, key=len) if inside else None


def is_template(path: str, chart: str) -> bool:
    """Whether a file of a chart is a template."""
    return posixpath.relpath(path, chart or ".").startswith("templates/")


def is_values(path: str) -> bool:
    """Whether a file is named as files of values are."""
    return _VALUES_FILE.fullmatch(posixpath.basename(path)) is not None


def values(file: str, text: str) -> list[Flaw]:
    """The flaws of a file of values.

    Raises:
        InvalidInput: it is no YAML that can be read.
    """
    out: list[Flaw] = []
    for one in documents(text, file):
        for at, key, value in _walk(one.data):
            out += _value(file, one, at, key, value)
    return sorted(dict.fromkeys(out), key=lambda f: (f.line, f.rule))


def _walk(data: Any) -> Iterator[tuple[Where, str, Any]]:
    todo: list[tuple[Where, Any]] = [((), data)]
    count = 0
    while todo and count < MOST:
        at, value = todo.pop()
        count += 1
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield (*at, key), str(key), inner
                todo.append(((*at, key), inner))
        elif isinstance(value, list):
            todo += [((*at, i), inner) for i, inner in enumerate(value)]


def _value(file: str, one: Document, at: Where, key: str, value: Any) -> Iterator[Flaw]:
    name = ".".join(map(str, at))
    line = one.line(at)
    own = number(value)
    if key in IDS and own is not None:
        if key == "runAsUser" and own == 0:
            yield Flaw("run-as-root", file, line, f"{name} is 0 by default")
            return
        if own == 0:
            yield Flaw("group-root", file, line, f"{name} is 0 by default", platforms=("kubernetes",))
            if key == "runAsGroup":
                return
        if key == "runAsUser" and own in RESERVED:
            yield Flaw("user-reserved", file, line, f"{name} is {own} by default, which is reserved for nobody")
        elif key == "runAsUser" and own < LOWEST:
            yield Flaw("user-low", file, line, f"{name} is {own} by default, below {LOWEST}")
        if key in ("runAsUser", "fsGroup"):
            yield Flaw("helm-fixed-id", file, line, f"{name} is {own} by default")
    elif key == "privileged" and truth(value):
        yield Flaw("privileged", file, line, f"{name} is true by default")
    elif key == "runAsNonRoot" and truth(value) is False:
        yield Flaw("run-as-root", file, line, f"{name} is false by default", platforms=("kubernetes",))
    elif key == "allowPrivilegeEscalation" and truth(value):
        yield Flaw("privilege-escalation", file, line, f"{name} is true by default")


def template(file: str, text: str) -> list[Flaw]:
    """The flaws of a template, line by line: it is no YAML before it is rendered."""
    out: list[Flaw] = []
    for index, line in enumerate(text.split("\n"), 1):
        found = _FIELD.match(line[:2000])
        if not found:
            continue
        name, value = found.groups()
        bare = value.partition(" #")[0].strip().strip("\"'")
        if bare.isdecimal():
            if name != "runAsGroup":
                out.append(Flaw("helm-hard-coded", file, index, f"{name} is always {bare}"))
            if name == "runAsUser" and not bare.strip("0"):
                out.append(Flaw("run-as-root", file, index, "runAsUser is 0"))
            continue
        action = _ACTION.search(value)
        if not action:
            continue
        words = set(re.findall(r"[A-Za-z0-9]+", re.sub(r"[\"'][^\"']*[\"']", "", action[1])))
        again = sorted(words & {"default", "coalesce", "ternary", "int", "int64", "required"})
        if again:
            how = "fails on null" if again == ["required"] else "makes a number of null again"
            out.append(Flaw("helm-not-nullable", file, index, f"{name}: {again[0]} {how}"))
    return out


def schema(file: str, text: str) -> list[Flaw]:
    """The flaws of a `values.schema.json`: whether null is refused where a user or a group stands.

    Raises:
        ValueError: it is no JSON.
    """
    out: list[Flaw] = []
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    for at, key, value in _walk(data):
        if key in IDS and len(at) > 1 and at[-2] == "properties":
            kind = mapping(value).get("type")
            if kind in ("integer", "number") or (isinstance(kind, list) and "null" not in kind):
                # JSON has no places: the first line that names the field as often as we have met it.
                met = sum(f.message.startswith(f"{key} ") for f in out)
                lines = [i for i, text_line in enumerate(text.split("\n"), 1) if f'"{key}"' in text_line] or [1]
                message = f"{key} must be {kind if isinstance(kind, str) else ' or '.join(map(str, kind))}"
                line = lines[min(met, len(lines) - 1)]
                out.append(Flaw("helm-not-nullable", file, line, message, fix='Write "type": ["integer", "null"].'))
    return sorted(out, key=lambda f: f.line)
