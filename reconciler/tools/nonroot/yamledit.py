"""Sets fields of YAML text, and nothing else: comments, quotes, order and indentation stay as they are.

First by a line of its own in the text, which suits every style of indentation. Where that is not possible, by a round
trip of ruamel.yaml, if it gives back the text as it was but for the field. Either way the result is read again, and
counts only if its data are those that were meant.
"""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from reconciler.errors import InvalidInput
from reconciler.load import parse, places
from reconciler.tools.nonroot.rules import SetField

Marks = Mapping[tuple[int, tuple[str | int, ...], bool], tuple[int, int]]
_LAYOUTS: Final = ((2, 2, 0), (2, 4, 2), (4, 4, 2), (4, 4, 0), (4, 6, 4), (4, 6, 2))
"""Indentation of mappings and sequences, and the dash's, that people use."""
LONGEST: Final = 200_000
"""Characters of a text that is tried by a round trip."""


def set_field(text: str, edit: SetField) -> str | None:
    """The text with one field set; None where that is not possible without touching more."""
    try:
        wanted = [copy.deepcopy(raw.data) for raw in parse(text)]
    except InvalidInput:
        return None
    if edit.document >= len(wanted) or not _put(wanted[edit.document], edit, {}):
        return None
    for way in (_by_line, _by_round_trip):
        after = way(text, edit)
        if after is not None and _reads_as(after, wanted):
            return after
    return None


def _reads_as(text: str, wanted: Sequence[Any]) -> bool:
    try:
        return [raw.data for raw in parse(text)] == list(wanted)
    except InvalidInput:
        return False


def _put(node: Any, edit: SetField, empty: Any) -> bool:
    """Set the field in data; what is missing on the way becomes a copy of `empty`."""
    *way, last = edit.path
    for step in way:
        if isinstance(step, int):
            if not isinstance(node, list) or step >= len(node):
                return False
        elif not isinstance(node, dict):
            return False
        elif node.get(step) is None:
            node[step] = copy.deepcopy(empty)
        node = node[step]
    if not isinstance(node, dict):
        return False
    node[last] = edit.value
    return True


# ------------------------------------------------------------------------------------------------ in the text


def _by_line(text: str, edit: SetField) -> str | None:
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.split(end)
    marks = places(text)
    there = marks.get((edit.document, edit.path, False))
    if (edit.document, edit.path, True) in marks and there:
        return _replaced(lines, there, edit, marks, end)
    known = next(n for n in range(len(edit.path) - 1, -1, -1) if (edit.document, edit.path[:n], False) in marks)
    above, new = edit.path[:known], edit.path[known:]
    if not all(isinstance(step, str) for step in new):
        return None
    for place in _keys(marks, edit.document, above):
        line, column = place[0] - 1, place[1] - 1
        if line < len(lines) and not lines[line][:column].strip():
            lines[line:line] = _written([str(s) for s in new], edit.value, " " * column)
            return end.join(lines)
    return None


def _keys(marks: Marks, document: int, above: tuple[str | int, ...]) -> list[tuple[int, int]]:
    """Where the keys of a mapping stand, in order."""
    depth = len(above) + 1
    found = [
        place
        for (index, path, is_key), place in marks.items()
        if is_key and index == document and len(path) == depth and path[:-1] == above
    ]
    return sorted(found)


def _replaced(lines: list[str], there: tuple[int, int], edit: SetField, marks: Marks, end: str) -> str | None:
    """Another value in place of one that stands in one line."""
    old = re.compile(r"\[[^\]\n#]*\]|[^\s,\]}#]+")
    line, column = there[0] - 1, there[1] - 1
    if isinstance(edit.value, list):
        first = marks.get((edit.document, (*edit.path, 0), False))
        if first and not lines[line][column:].startswith("[") and len(edit.value) == 1:
            line, column = first[0] - 1, first[1] - 1
            shown = json.dumps(edit.value[0]).strip('"')
        else:
            shown = _scalar(edit.value)
    elif isinstance(edit.value, dict):
        return None
    else:
        shown = _scalar(edit.value)
    found = old.match(lines[line], column) if line < len(lines) else None
    if not found:
        return None
    lines[line] = lines[line][:column] + shown + lines[line][found.end() :]
    return end.join(lines)


def _written(names: Sequence[str], value: object, indent: str) -> list[str]:
    name, *inner = names
    if inner:
        return [f"{indent}{name}:", *_written(inner, value, indent + "  ")]
    if isinstance(value, dict):
        return [f"{indent}{name}:", *(f"{indent}  {k}: {_scalar(v)}" for k, v in value.items())]
    return [f"{indent}{name}: {_scalar(value)}"]


def _scalar(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_scalar(v) for v in value)}]"
    text = json.dumps(value)
    return text[1:-1] if re.fullmatch(r'"[A-Z][A-Za-z_]*"', text) else text


# ------------------------------------------------------------------------------------------------ by a round trip


def _by_round_trip(text: str, edit: SetField) -> str | None:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    value = edit.value
    if isinstance(value, list):
        value = CommentedSeq(value)
        value.fa.set_flow_style()
    elif isinstance(value, dict):
        value = CommentedMap(value)
    layout = _layout_of(text)
    if layout is None:
        return None
    reader, documents = _load(text, layout)
    whole = SetField(edit.document, edit.path, value)
    return _dump(reader, documents) if _put(documents[edit.document], whole, CommentedMap()) else None


@lru_cache(maxsize=8)
def _layout_of(text: str) -> tuple[int, int, int] | None:
    """The layout in which a round trip changes nothing. JSON, and what is very long, is not tried: ruamel is slow."""
    if len(text) > LONGEST or text.lstrip().startswith(("{", "[")):
        return None
    return next((layout for layout in _LAYOUTS if _dump(*_load(text, layout)) == text), None)


def _load(text: str, layout: tuple[int, int, int]) -> tuple[Any, list[Any]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    reader = YAML()
    reader.preserve_quotes = True
    reader.width = 1_000_000
    mapping, sequence, offset = layout
    reader.indent(mapping=mapping, sequence=sequence, offset=offset)
    reader.explicit_start = text.startswith("---")
    try:
        return reader, list(reader.load_all(text))
    except (YAMLError, ValueError, RecursionError):
        return reader, []


def _dump(reader: Any, documents: list[Any]) -> str:
    out = io.StringIO()
    try:
        reader.dump_all(documents, out)
    except (AttributeError, TypeError, ValueError, RecursionError):
        return ""
    return out.getvalue()
