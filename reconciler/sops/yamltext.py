"""YAML as text with places: what stands where, so that a value can be replaced and all else stays byte for byte.

Plain scalars are typed as sops types them (Go's yaml.v3: the YAML 1.2 core schema, `0755` and `0b1` are numbers, too),
because the MAC covers values that are not encrypted by their meaning.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from reconciler.errors import InvalidInput, Position, Problem
from reconciler.sops.cipher import NULL, Path, Scalar, float_text

METADATA_KEY: Final = "sops"
STEP: Final = 4
"""Indentation of new lines, as sops writes it."""
MAX_DEPTH: Final = 64

_INT = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_ODD_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TIME = re.compile(r"\d{4}-\d{1,2}-\d{1,2}(?:[Tt ].*)?")
_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./+=@-]*")
_UNPRINTABLE = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u2028\u2029\ufeff]")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One scalar: where it stands and what is written there."""

    path: Path
    written: Scalar
    start: int = 0
    end: int = 0
    style: str = ""
    flow: bool = False
    indent: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment: its text after the `#`, and the keys that it may be bound to, the likeliest first."""

    text: str
    start: int
    end: int
    paths: tuple[Path, ...]


@dataclass(slots=True)
class _Branch:
    path: Path
    is_map: bool
    flow: bool
    column: int
    start: int
    end: int
    keys: dict[str, None]  # in order, and found fast


class YamlText:
    """One YAML document.

    Args:
        text: of the whole file.
        file: its name, for messages.

    Raises:
        InvalidInput: it is not YAML, or more than sops can encrypt.
    """

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text.removeprefix("\ufeff"), file
        self._all: list[Leaf] = []
        self._branches: dict[Path, _Branch] = {}
        self._key_starts: dict[Path, int] = {}
        self._spans: list[tuple[int, int]] = []
        self._read()

    # -------------------------------------------------------------------------------------------- reading

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """Every value outside the metadata, in the order of the file."""
        return tuple(leaf for leaf in self._all if leaf.path[:1] != (METADATA_KEY,))

    @cached_property
    def written(self) -> Mapping[Path, Scalar]:
        """What is written outside the metadata, by path."""
        return {leaf.path: leaf.written for leaf in self.leaves}

    @cached_property
    def _written(self) -> Mapping[Path, Scalar]:
        return {leaf.path: leaf.written for leaf in self._all}

    @cached_property
    def metadata(self) -> dict[str, Any] | None:
        """What stands under `sops`: plain values."""
        branch = self._branches.get((METADATA_KEY,))
        return self._plain((METADATA_KEY,)) if branch is not None and branch.is_map else None

    @property
    def has_metadata_key(self) -> bool:
        """Whether anything stands under `sops`."""
        return (METADATA_KEY,) in self._key_starts

    def keys(self, path: Path) -> list[str] | None:
        """The keys of the mapping or list (`0`, `1`, ...) at a path; None where there is none."""
        branch = self._branches.get(path)
        if branch is None:
            return None
        return [k for k in branch.keys if path or k != METADATA_KEY]

    def is_map(self, path: Path) -> bool:
        """Whether a mapping stands at a path."""
        return path in self._branches and self._branches[path].is_map

    def position(self, path: Path) -> Position:
        """Where the key (or else the value) at a path stands; its closest parent where there is none."""
        for end in range(len(path), 0, -1):
            start = self._key_starts.get(path[:end])
            if start is not None:
                return self._position(start)
        return Position(self.file)

    @cached_property
    def comments(self) -> tuple[Comment, ...]:
        """Every comment outside the metadata."""
        return tuple(self._comments())

    def _position(self, offset: int) -> Position:
        line = bisect_right(self._lines, offset)
        return Position(self.file, line, offset - self._lines[line - 1] + 1)

    @cached_property
    def _lines(self) -> list[int]:
        """Where each line starts."""
        return [0, *(found.end() for found in re.finditer("\n", self.text))]

    def _problem(self, offset: int, message: str, fix: str = "") -> InvalidInput:
        return InvalidInput([Problem(message, fix, position=self._position(offset))])

    def _read(self) -> None:
        from ruamel.yaml import YAML
        from ruamel.yaml import events as ev
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        open_: list[_Branch] = []
        pending: str | None = None
        documents = 0
        try:
            for event in YAML(typ="safe").parse(self.text):
                kind, start = event.__class__, event.start_mark.index
                if kind is ev.DocumentStartEvent:
                    documents += 1
                    if documents > 1:
                        raise self._problem(start, "a second document begins.", "Make it a file of its own.")
                elif kind is ev.AliasEvent:
                    raise self._problem(start, "is a YAML alias.", "Write it out.")
                elif kind is ev.MappingEndEvent or kind is ev.SequenceEndEvent:
                    closed = open_.pop()
                    if closed.flow:
                        closed.end = event.end_mark.index
                    if open_:
                        open_[-1].end = max(open_[-1].end, closed.end)
                elif kind in (ev.ScalarEvent, ev.MappingStartEvent, ev.SequenceStartEvent):
                    pending = self._node(event, open_, pending, scalar=kind is ev.ScalarEvent)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self._problem(mark.index if mark else 0, f"is not YAML: {error.problem}.") from None
        except YAMLError:
            raise InvalidInput([Problem("is not YAML.", position=Position(self.file))]) from None
        if () not in self._branches or not self._branches[()].is_map:
            if self._all or () in self._branches:
                raise self._problem(0, "is not a mapping.", "Write `key: value` lines.")
            self._branches[()] = _Branch((), True, False, 0, 0, len(self.text), {})

    def _node(self, event: Any, open_: list[_Branch], pending: str | None, *, scalar: bool) -> str | None:
        """One value or key; gives the key that waits for its value."""
        start, end = event.start_mark.index, event.end_mark.index
        if event.tag is not None and not (scalar and event.tag in ("!", "tag:yaml.org,2002:str")):
            raise self._problem(start, f"has the tag {event.tag}.", "Remove it.")
        parent = open_[-1] if open_ else None
        if parent is not None and parent.is_map and pending is None:
            if not scalar:
                raise self._problem(start, "a key is no text.", "Quote it.")
            self._spans.append((start, end))
            key = str(event.value)
            if not event.style and _typed(key).type != "str":
                raise self._problem(start, f"the key {key} is not text.", f'Quote it: "{key}".')
            if key == "<<" and not event.style:
                raise self._problem(start, "is a YAML merge.", "Write it out.")
            if key in parent.keys:
                raise self._problem(start, f'the key "{key}" is there twice.', "Keep one of them.")
            parent.keys[key] = None
            parent.end = max(parent.end, end + 1)
            self._key_starts[(*parent.path, key)] = start
            return key
        path: Path = ()
        if parent is not None:
            path = (*parent.path, pending if parent.is_map and pending is not None else len(parent.keys))
            if not parent.is_map:
                parent.keys[str(len(parent.keys))] = None
                self._key_starts[path] = start
            parent.end = max(parent.end, end)
        if scalar:
            plain = not event.style and event.tag is None
            value = _typed(event.value) if plain else Scalar("str", event.value)
            self._spans.append((start, end))
            flow = bool(open_) and any(b.flow for b in open_)
            indent = parent.column if parent is not None else 0
            style = event.style or ""
            self._all.append(Leaf(path, value, start, end, style, flow, indent, self.text[start:end]))
        else:
            if len(open_) >= MAX_DEPTH:
                raise self._problem(start, f"is nested deeper than {MAX_DEPTH} levels.", "Flatten it.")
            is_map = type(event).__name__ == "MappingStartEvent"
            flow = bool(event.flow_style)
            branch = _Branch(path, is_map, flow, event.start_mark.column, start, end, {})
            self._branches[path] = branch
            open_.append(branch)
        return None

    def _plain(self, path: Path) -> Any:
        branch = self._branches.get(path)
        if branch is None:
            return _python(self._written[path])
        if branch.is_map:
            return {key: self._plain((*path, key)) for key in branch.keys}
        return [self._plain((*path, index)) for index in range(len(branch.keys))]

    def _comments(self) -> Iterator[Comment]:
        ends = [(0, 0), *sorted(self._spans), (len(self.text), len(self.text))]
        first, last = self._metadata_span()
        keys = sorted((start, path) for path, start in self._key_starts.items())
        for (_, after), (before, _) in pairwise(ends):
            for found in re.finditer(r"(?:^|(?<=\s))#([^\n\r]*)", self.text[after:before], re.MULTILINE):
                start, end = after + found.start(), after + found.end()
                separate = start > after or start == 0 or self.text[start - 1].isspace()
                if separate and not first <= start < last:
                    yield Comment(found.group(1), start, end, self._bound_to(start, keys))

    def _bound_to(self, start: int, keys: list[tuple[int, Path]]) -> tuple[Path, ...]:
        """The branches that a comment may belong to. A comment after a value belongs to the value's branch, one on a
        line of its own to the branch that it is indented like: of the next key, or else of the one before."""
        line_start = self.text.rfind("\n", 0, start) + 1
        column, alone = start - line_start, not self.text[line_start:start].strip()
        before = [path for offset, path in keys if offset < start][-1:]
        after = [path for offset, path in keys if offset > start and path[0] != METADATA_KEY][:1]
        order = (*after, *before) if alone else (*before, *after)
        found = [path[:end] for path in order for end in range(len(path) - 1, -1, -1)] or [()]
        if alone:
            found.sort(key=lambda path: self._branches[path].column != column)
        names = [tuple(part for part in path if isinstance(part, str)) for path in found]
        return tuple(dict.fromkeys(names))

    # -------------------------------------------------------------------------------------------- writing

    def edited(
        self,
        values: Mapping[Path, Scalar],
        comments: Mapping[int, str] | None = None,
        metadata: Mapping[str, Any] | bool | None = True,
    ) -> str:
        """The text with other values.

        Args:
            values: path of a leaf -> what shall stand there.
            comments: start of a comment -> its new text after the `#`.
            metadata: what shall stand under `sops`; None removes it, True keeps it.

        Raises:
            InvalidInput: the metadata cannot be changed, because the file is one mapping in braces.
        """
        edits = []
        for leaf in self._all:
            if leaf.path in values and values[leaf.path] != leaf.written:
                edits.append((leaf.start, leaf.end, self._spelled(leaf, values[leaf.path])))
        for comment in self.comments if comments else ():
            if comments and comment.start in comments:
                edits.append((comment.start, comment.end, "#" + comments[comment.start]))
        if metadata is not True:
            start, end = self._metadata_span()
            if self._branches[()].flow:
                raise self._problem(0, "is one mapping in braces.", "Write `key: value` lines, without braces.")
            edits = [e for e in edits if not start <= e[0] < end]
            block = "".join(_block({METADATA_KEY: metadata}, 0)) if metadata else ""
            if start == end:
                glue = "" if not self.text or self.text.endswith("\n") else "\n"
                edits.append((len(self.text), len(self.text), glue + block))
            else:
                edits.append((start, end, block))
        return _spliced(self.text, edits)

    def inserted(self, new: Mapping[Path, Scalar]) -> str:
        """The text with new keys at the ends of their mappings, and with the mappings on the way to them.

        Raises:
            KeyError: a value or a list is in the way.
        """
        text, left = self, dict(new)
        while left:
            # Whatever has its mapping goes in at once: to read the text anew for each would take long.
            ready = [path for path in left if text._has_room(path)]
            if ready:
                changed = text._with_lines({path: left.pop(path) for path in ready})
            else:
                path = next(iter(left))
                changed = text._with_key(path, left.pop(path))
            text = YamlText(changed, self.file)
        return text.text

    def _has_room(self, path: Path) -> bool:
        branch = self._branches.get(path[:-1])
        there = path in self._branches or path in self._written
        return branch is not None and branch.is_map and not branch.flow and not there

    def _with_lines(self, new: Mapping[Path, Scalar]) -> str:
        lines: dict[int, list[str]] = {}
        for path, value in new.items():
            branch = self._branches[path[:-1]]
            lines.setdefault(self._end_of(path[:-1]), []).extend(_block({str(path[-1]): value}, branch.column))
        return _spliced(self.text, [(at, at, self._glue(at) + "".join(found)) for at, found in lines.items()])

    def _end_of(self, path: Path) -> int:
        """Where a line can be added to a mapping in block style."""
        sops = self._key_starts.get((METADATA_KEY,))
        if not path and sops is not None:
            return self.text.rfind("\n", 0, sops) + 1
        return self._line_after(self._branches[path].end)

    def _glue(self, at: int) -> str:
        return "" if at == 0 or self.text[at - 1] == "\n" else "\n"

    def _with_key(self, path: Path, value: Scalar) -> str:
        depth = max(end for end in range(len(path)) if path[:end] in self._branches)
        branch = self._branches[path[:depth]]
        if not branch.is_map or path[: depth + 1] in self._written:
            raise KeyError(path[: depth + 1])
        if branch.flow:
            nested: Any = "".join(f"{json.dumps(str(k))}: " + "{" for k in path[depth + 1 :])
            entry = f"{_key(path[depth])}: {nested}{_quoted(value)}" + "}" * (len(path) - depth - 1)
            glue = ", " if branch.keys else ""
            return _spliced(self.text, [(branch.end - 1, branch.end - 1, glue + entry)])
        tree: Any = value
        for part in reversed(path[depth:]):
            tree = {str(part): tree}
        at = self._end_of(path[:depth])
        return _spliced(self.text, [(at, at, self._glue(at) + "".join(_block(tree, branch.column)))])

    def _line_after(self, offset: int) -> int:
        """The start of the line after the one that ends here."""
        if offset and self.text[offset - 1 : offset] == "\n":
            return offset
        end = self.text.find("\n", offset)
        return len(self.text) if end < 0 else end + 1

    def _metadata_span(self) -> tuple[int, int]:
        start = self._key_starts.get((METADATA_KEY,))
        if start is None:
            return (len(self.text), len(self.text))
        branch = self._branches.get((METADATA_KEY,))
        end = branch.end if branch else start
        return start, self._line_after(end)

    def _spelled(self, leaf: Leaf, value: Scalar) -> str:
        # A block scalar reaches to the start of the next line.
        tail = "\n" if leaf.source.endswith("\n") else ""
        if leaf.flow:
            return _quoted(value) + tail
        rest = self.text[leaf.end : self._line_after(leaf.end)]
        if "\n" in value.text and (tail or not rest.strip()) and value.type == "str":
            literal = _literal(value.text, leaf.indent + STEP)
            if literal is not None:
                return literal.removesuffix("\n") + tail
        spelled = _bare(value) + tail
        # An empty value starts right after its colon.
        return (
            f" {spelled}"
            if leaf.start == leaf.end and self.text[leaf.start - 1 : leaf.start] in (":", "-")
            else spelled
        )


def _spliced(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    out, at = [], 0
    for start, end, new in sorted(edits):
        out += [text[at:start], new]
        at = end
    return "".join([*out, text[at:]])


def _typed(text: str) -> Scalar:
    """A plain scalar with its type."""
    if text in ("", "~", "null", "Null", "NULL"):
        return NULL
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return Scalar("bool", text.title())
    if _INT.fullmatch(text) and not text.endswith("_"):
        digits = text.replace("_", "")
        sign, bare = ("-", digits[1:]) if digits[0] == "-" else ("", digits.lstrip("+"))
        old_octal = len(bare) > 1 and bare[0] == "0" and bare[1].isdigit()
        return Scalar("int", sign + str(int(bare, 8 if old_octal else 0)))
    if _FLOAT.fullmatch(text.replace("_", "")):
        return Scalar("float", float_text(text.replace("_", "")))
    if _ODD_FLOAT.fullmatch(text):
        word = text.strip("+-.").lower()
        return Scalar("float", "NaN" if word == "nan" else "-Inf" if text[0] == "-" else "+Inf")
    if _TIME.fullmatch(text):
        return Scalar("time", f"{text}T00:00:00Z" if len(text) == 10 else text)
    return Scalar("str", text)


def _python(value: Scalar) -> Any:
    match value.type:
        case "null":
            return None
        case "bool":
            return value.text == "True"
        case "int":
            return int(value.text)
    return value.text


def _bare(value: Scalar) -> str:
    """A value on one line in a block: plain where that says the same."""
    if value.type == "null":
        return "null"
    if value.type in ("int", "int64", "float", "bool", "time"):
        return value.shown
    text = value.text
    if text.startswith("ENC[AES256_GCM,") and _typed(text).type == "str":
        return text
    return text if _PLAIN.fullmatch(text) and _typed(text).type == "str" else _quoted(value)


def _quoted(value: Scalar) -> str:
    """A value on one line anywhere."""
    if value.type not in ("str", "bytes", "comment"):
        return _bare(value)
    text = json.dumps(value.text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda m: json.dumps(m.group())[1:-1], text.replace("\x7f", "\\u007f"))


def _literal(text: str, indent: int) -> str | None:
    """Text of several lines as a literal block, where that is exact."""
    lines = text.removesuffix("\n").split("\n")
    if _UNPRINTABLE.search(text) or not lines[0].strip() or not lines[-1].strip() or lines[0][0] in " \t":
        return None
    if any(line != line.rstrip() for line in lines):
        return None
    chomp = "" if text.endswith("\n") else "-"
    body = "".join((" " * indent + line if line else "") + "\n" for line in lines)
    return f"|{chomp}\n{body}"


def _key(key: str | int) -> str:
    return _bare(Scalar("str", str(key)))


def _block(tree: Any, indent: int) -> Iterator[str]:
    """Mappings, lists and values as lines of block YAML, in the style of sops."""
    pad = " " * indent
    for key, value in tree.items():
        name = f"{pad}{_key(key)}:"
        if isinstance(value, Scalar) or not isinstance(value, Mapping | list):
            one = value if isinstance(value, Scalar) else _scalar(value)
            literal = _literal(one.text, indent + STEP) if "\n" in one.text and one.type == "str" else None
            yield f"{name} {literal}" if literal else f"{name} {_bare(one)}\n"
        elif not value:
            yield f"{name} {'{}' if isinstance(value, Mapping) else '[]'}\n"
        elif isinstance(value, Mapping):
            yield f"{name}\n"
            yield from _block(value, indent + STEP)
        else:
            yield f"{name}\n"
            for item in value:
                if isinstance(item, Mapping) and item:
                    first, *others = _block(item, indent + STEP + 2)
                    yield " " * (indent + STEP) + "- " + first.lstrip(" ")
                    yield from others
                else:
                    shown = (
                        "{}" if isinstance(item, Mapping) else "[]" if isinstance(item, list) else _bare(_scalar(item))
                    )
                    yield " " * (indent + STEP) + f"- {shown}\n"


def _scalar(value: Any) -> Scalar:
    from reconciler.sops.cipher import scalar

    return scalar(value)
