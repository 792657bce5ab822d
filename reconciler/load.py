"""Stage 1, load: a folder of YAML files -> raw documents with positions.

One pass over the events of libyaml (through ruamel.yaml) builds plain data without recursion. Plain scalars follow
the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema), so `no` and `on` are text. Positions are
found on demand, by a second pass over the one file that has a problem.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from reconciler.errors import InvalidInput, Position, Problem

MAX_FILE_BYTES: Final = 10 * 1024 * 1024
MAX_DEPTH: Final = 64
SOPS_ENDINGS: Final = (".sops.yaml", ".sops.yml")
"""Files of secrets, which hold no documents."""
MAX_ALIASES: Final = 64
MAX_ALIASED_NODES: Final = 10_000

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_A_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN)")
_INVISIBLE = re.compile("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class RawDocument:
    """One YAML document before validation.

    Attributes:
        data: plain dicts, lists and scalars.
        file: path as shown to the user.
        index: which document of the file it is, from 0.
        line: where it starts, from 1.
    """

    data: Any
    file: str
    index: int
    line: int
    text: str = field(repr=False)

    @property
    def position_of_document(self) -> Position:
        """Where the document starts; costs nothing."""
        return Position(self.file, self.line, 1)

    def position(self, path: Path_ = (), *, key: bool = False) -> Position:
        """Where the value (or the key) at `path` stands; the closest parent where the path does not exist."""
        marks = _marks(self.text, self.file)
        for end in range(len(path), -1, -1):
            for is_key in (key, True, False):
                mark = marks.get((self.index, path[:end], is_key))
                if mark:
                    return Position(self.file, *mark)
        return self.position_of_document

    def written(self, path: Path_) -> str:
        """A scalar as it stands in the file, up to the first character that may end it: `0755`, not 755."""
        place = self.position(path)
        line = self.text.split("\n")[place.line - 1]
        return re.split(r"[\s,\]}#]", line[place.column - 1 :], maxsplit=1)[0]


@lru_cache(maxsize=2)
def _marks(text: str, file: str) -> Mapping[tuple[int, Path_, bool], tuple[int, int]]:
    """Where everything in a file stands; whoever asks once mostly asks again."""
    marks: dict[tuple[int, Path_, bool], tuple[int, int]] = {}
    _documents(text, file, marks)
    return marks


@dataclass(frozen=True)
class Loaded:
    """What a folder held: documents in the order of file names, and the folder itself for `source:` files."""

    root: Path
    documents: tuple[RawDocument, ...]


def load(path: Path) -> Loaded:
    """Read every `*.yaml` and `*.yml` below a folder (or one file), but for SOPS files (`*.sops.yaml`).

    Hidden files and folders are left out. Links to folders, links that lead out of the folder, and whatever cannot be
    read are refused: what was not seen must not look as if it were not wanted any more.

    Raises:
        InvalidInput: with all problems of all files.
    """
    problems: list[Problem] = []
    documents: list[RawDocument] = []
    if not _exists(path):
        raise InvalidInput([Problem(f"{path} does not exist.", "Name the folder that holds your desired state.")])
    root = path if path.is_dir() else path.parent
    for file in sorted(_files(path, problems), key=str):
        shown = _shown(file)
        if not file.resolve().is_relative_to(root.resolve()):
            problems.append(
                Problem("is a link that leads out of the desired state.", "Copy the file.", position=Position(shown))
            )
            continue
        try:
            documents.extend(_read(file, shown))
        except InvalidInput as error:
            problems.extend(error.problems)
    if problems:
        raise InvalidInput(problems)
    return Loaded(root, tuple(documents))


def parse(text: str, file: str = "<text>") -> list[RawDocument]:
    """The documents of a text.

    Raises:
        InvalidInput: the text is not the YAML that we take.
    """
    invisible = _INVISIBLE.search(text.removeprefix("\ufeff"))
    if invisible:
        before = text.removeprefix("\ufeff")[: invisible.start()]
        position = Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise InvalidInput(
            [
                Problem(
                    f"holds the invisible character U+{ord(invisible.group()):04X}.",
                    "Delete it: such characters make text look like something else.",
                    position=position,
                )
            ]
        )
    return [
        RawDocument(data, file, index, line, text)
        for index, (data, line) in enumerate(_documents(text, file, None))
        if data is not None
    ]


def places(text: str, file: str = "<text>") -> Mapping[tuple[int, Path_, bool], tuple[int, int]]:
    """Line and column (from 1) of everything in a text that `parse` has read: by document, path, and whether the key
    is meant (True) or the value. One pass, for who needs many positions."""
    marks: dict[tuple[int, Path_, bool], tuple[int, int]] = {}
    _documents(text, file, marks)
    return marks


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise InvalidInput(
            [Problem(f"{path} cannot be read: {error.strerror}.", "Check the permissions of its folders.")]
        ) from None


def _shown(file: Path) -> str:
    name = os.path.relpath(file)
    return str(file) if name.startswith("..") else name


def _files(path: Path, problems: list[Problem]) -> Iterator[Path]:
    if path.is_file():
        yield path
        return

    def unreadable(error: OSError) -> None:
        at = Position(_shown(Path(error.filename)))
        problems.append(Problem(f"cannot be read: {error.strerror}.", "Check its permissions.", position=at))

    for folder, folders, files in os.walk(path, onerror=unreadable):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in folders:
            link = Path(folder) / name
            if link.is_symlink():
                fix = "Put the folder itself here, or hide the link (.NAME)."
                problems.append(Problem("is a link to a folder.", fix, position=Position(_shown(link))))
        for name in files:
            if name.endswith((".yaml", ".yml")) and not name.startswith(".") and not name.endswith(SOPS_ENDINGS):
                yield Path(folder) / name


def _read(file: Path, shown: str) -> list[RawDocument]:
    try:
        seen = file.stat()
        if not stat.S_ISREG(seen.st_mode):
            raise InvalidInput([Problem("is not a regular file.", "Delete or rename it.", position=Position(shown))])
        if seen.st_size > MAX_FILE_BYTES:
            limit = f"{MAX_FILE_BYTES >> 20} MiB"
            raise InvalidInput(
                [Problem(f"is larger than {limit}.", "Split it into several files.", position=Position(shown))]
            )
        return parse(file.read_bytes().decode("utf-8-sig"), shown)
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        position = Position(shown, before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
        raise InvalidInput([Problem("is not UTF-8.", "Save the file as UTF-8.", position=position)]) from None
    except OSError as error:
        raise InvalidInput(
            [Problem(f"cannot be read: {error.strerror}.", "Check its permissions.", position=Position(shown))]
        ) from None


class _Alias:
    """An anchor's value and how many nodes it stands for."""

    __slots__ = ("nodes", "open", "value")

    def __init__(self, value: Any) -> None:
        self.value, self.nodes, self.open = value, 1, True


def _documents(
    text: str, file: str, marks: dict[tuple[int, Path_, bool], tuple[int, int]] | None
) -> list[tuple[Any, int]]:
    """Build each document from libyaml's events, without recursion; optionally note where everything stands."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        try:
            return list(_build(YAML(typ="safe").parse(text), file, marks))
        except MarkedYAMLError as error:
            if error.problem != "found unexpected ':'":
                raise
            # ruamel's libyaml does not know that YAML 1.2 allows `{secretRef: env:NAME}`; its own parser does.
            if marks is not None:
                marks.clear()
            return list(_build(YAML(typ="safe", pure=True).parse(text), file, marks))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file)
        raise InvalidInput([_syntax_problem(str(error.problem or error.context), position, text)]) from None
    except YAMLError as error:
        message = str(error)
        first = message.partition("\n")[0].rstrip(".")
        raise InvalidInput([Problem(f"is not YAML: {first}.", position=_place(message, text, file))]) from None


def _place(message: str, text: str, file: str) -> Position:
    """Libyaml's reader names a character's offset only in its message."""
    found = re.search(r"position (\d+)", message)
    before = text[: int(found.group(1))] if found else ""
    return Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _syntax_problem(message: str, position: Position, text: str) -> Problem:
    lines = text.splitlines()
    line = lines[position.line - 1] if position.line <= len(lines) else ""
    fix = ""
    if "tab character" in message or line[position.column - 1 : position.column] == "\t":
        message, fix = "a tab in the indentation", "Indent with spaces."
    elif "mapping values are not allowed" in message:
        fix = 'Quote the text that holds ": ", or fix the indentation.'
    elif "could not find expected ':'" in message:
        fix = "Add a colon after the key, or fix the indentation."
    return Problem(f"is not YAML: {message}.", fix, position=position)


def _build(
    events: Iterator[Any], file: str, marks: dict[tuple[int, Path_, bool], tuple[int, int]] | None
) -> Iterator[tuple[Any, int]]:
    from ruamel.yaml import events as ev

    index = -1
    root: Any = None
    line = 1
    # Each open collection: container, pending key (mappings), path, anchor to close, merges to apply.
    stack: list[list[Any]] = []
    anchors: dict[str, _Alias] = {}
    aliases = aliased = 0
    no_key: Any = object()

    def fail(event: Any, message: str, fix: str) -> InvalidInput:
        mark = event.start_mark
        return InvalidInput([Problem(message, fix, position=Position(file, mark.line + 1, mark.column + 1))])

    for event in events:
        kind = event.__class__
        if kind is ev.ScalarEvent:
            value: Any = event.value
            if event.tag is not None and event.tag not in ("!", "tag:yaml.org,2002:str"):
                raise fail(event, f"has the tag {event.tag}.", "Remove it: only plain YAML is read.")
            if event.implicit[0] and not event.style and event.tag is None:
                value = _scalar(value, event, fail)
            if event.anchor is not None:
                anchors[event.anchor] = alias = _Alias(value)
                alias.open = False
        elif kind is ev.MappingStartEvent or kind is ev.SequenceStartEvent:
            if event.tag is not None:
                raise fail(event, f"has the tag {event.tag}.", "Remove it: only plain YAML is read.")
            if len(stack) >= MAX_DEPTH:
                raise fail(event, f"is nested deeper than {MAX_DEPTH} levels.", "Flatten it.")
            value = {} if kind is ev.MappingStartEvent else []
            opened = None
            if event.anchor is not None:
                anchors[event.anchor] = opened = _Alias(value)
        elif kind is ev.MappingEndEvent or kind is ev.SequenceEndEvent:
            container, _, _, closed, merges = stack.pop()
            for merge in merges:
                for name, item in merge.items():
                    container.setdefault(name, item)
            if closed is not None:
                closed.open = False
                closed.nodes = _count(container)
            continue
        elif kind is ev.AliasEvent:
            known = anchors.get(event.anchor)
            if known is None:
                raise fail(event, f"refers to the unknown anchor &{event.anchor}.", "Define it above.")
            aliases += 1
            aliased += known.nodes
            if known.open:
                raise fail(event, f"the alias *{event.anchor} contains itself.", "Remove it.")
            if aliases > MAX_ALIASES or aliased > MAX_ALIASED_NODES:
                raise fail(event, "uses too many YAML aliases.", "Write it out, or bundle it in a HostProfile.")
            value = known.value
        elif kind is ev.DocumentStartEvent:
            index += 1
            line = event.start_mark.line + 1
            root, stack, anchors, aliases, aliased = None, [], {}, 0, 0
            continue
        elif kind is ev.DocumentEndEvent:
            yield root, line
            continue
        else:
            continue

        # Put the value where it belongs.
        path: Path_ = ()
        is_key = False
        if not stack:
            root = value
        else:
            top = stack[-1]
            container = top[0]
            if isinstance(container, list):
                path = (*top[2], len(container)) if marks is not None else ()
                container.append(value)
            elif top[1] is no_key:
                is_key = True
                if not isinstance(value, str) or kind is ev.AliasEvent:
                    shown = event.value if kind is ev.ScalarEvent else "this"
                    raise fail(event, f"the key {shown} is not text.", f'Quote it: "{shown}".')
                merge_key = value == "<<" and not event.style
                if value in container and not merge_key:
                    raise fail(event, f'the key "{value}" is there twice.', "Keep one of them.")
                top[1] = value
                path = (*top[2], value) if marks is not None else ()
            else:
                name = top[1]
                path = (*top[2], name) if marks is not None else ()
                top[1] = no_key
                if name == "<<":
                    sources = value if isinstance(value, list) else [value]
                    if kind is not ev.AliasEvent or not all(isinstance(s, dict) for s in sources):
                        raise fail(event, "the merge key << takes an alias of a mapping.", "Write it out.")
                    top[4].extend(sources)
                else:
                    container[name] = value
        if marks is not None:
            mark = event.start_mark
            marks.setdefault((index, path, is_key), (mark.line + 1, mark.column + 1))
        if kind is ev.MappingStartEvent or kind is ev.SequenceStartEvent:
            stack.append([value, no_key, path, opened, []])


def _scalar(text: str, event: Any, fail: Any) -> Any:
    """A plain scalar by the YAML 1.2 core schema."""
    first = text[:1]
    if first not in "-+.0123456789tTfFnN~":  # the common case: a word; the empty text passes on
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        if len(text) > 19:
            raise fail(event, "is a number with too many digits.", "Quote it if it is meant as text.")
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise fail(event, "is a number that is too large.", "Quote it if it is meant as text.")
        return number
    if _NOT_A_NUMBER.fullmatch(text):
        raise fail(event, f"{text} is not a number that means anything here.", "Quote it if it is meant as text.")
    return text


def _count(value: Any) -> int:
    """Number of nodes in a tree that has no cycles."""
    total, todo = 0, [value]
    while todo and total <= MAX_ALIASED_NODES:
        item = todo.pop()
        total += 1
        if isinstance(item, Mapping):
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)
    return total
