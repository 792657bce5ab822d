"""The tables of an API: methods, parameters, property strings, in a compact notation.

    PARAMETERS       NAME TYPE [@FORMAT] [len=A..B] [range=A..B] [{a|b}] [=DEFAULT] [requires=NAME] [~ REGEX | ~PATTERN]
    METHODS          METHOD /path/{part} : WHO MAY [; open] [no-token]
                         name name? name=DEFINITION +SET
    PROPERTY_STRINGS GROUP [+OTHER GROUP]
                         KEY as a parameter; besides: required, bare, alias=KEY, key=KEY

Types: s string, i integer, n number, b boolean, a array (the rest then describes its items). `scsi0..30` in braces are
31 values. `[n]` in a name stands for the numbers of `SLOTS`. A line that is indented deeper goes on where the last one
ended. Tables are read when they are first needed, method by method, so that a simulator starts at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

TYPES: Final = {"s": "string", "i": "integer", "n": "number", "b": "boolean", "a": "array"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a value must be. `pattern` is a regular expression for the whole value."""

    type: str = "string"
    optional: bool = True
    format: str | None = None
    length: tuple[int | None, int | None] = (None, None)
    range: tuple[float | None, float | None] = (None, None)
    enum: tuple[str, ...] = ()
    default: str | None = None
    requires: str | None = None
    pattern: str | None = None
    bare: bool = False
    alias: str | None = None
    key_alias: str | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the API: who may call it, and with what."""

    verb: str
    path: str
    who: str
    open: bool
    """Parameters that are not listed are accepted."""
    tokens: bool
    """API tokens may call it."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def _number(text: str) -> float | None:
    if not text:
        return None
    return float(text) if "." in text else int(text)


def _bounds(text: str) -> tuple[float | None, float | None]:
    low, _, high = text.partition("..")
    return _number(low), _number(high)


def _values(text: str) -> Iterator[str]:
    for word in text.split("|"):
        many = re.fullmatch(r"([a-z]+)0\.\.([0-9]+)", word)
        if many:
            yield from (f"{many[1]}{number}" for number in range(int(many[2]) + 1))
        else:
            yield word


def parse_parameter(text: str, patterns: Mapping[str, str], *, required: bool = False) -> Parameter:
    """A definition such as `s len=..40 ~ [a-z]+`. With `required`, only the word `required` makes it so."""
    pattern = None
    if " ~ " in text:
        text, pattern = text.split(" ~ ", 1)
    optional, kind, format_, default, requires, alias, key_alias = True, "string", None, None, None, None, None
    length: tuple[int | None, int | None] = (None, None)
    limits: tuple[float | None, float | None] = (None, None)
    enum: tuple[str, ...] = ()
    bare = False
    for word in text.split(" "):
        if word in TYPES:
            kind = TYPES[word]
        elif word == "required":
            optional = False
        elif word == "bare":
            bare = True
        elif word.startswith("@"):
            format_ = word[1:]
        elif word.startswith("{"):
            enum = tuple(_values(word[1:-1]))
        elif word.startswith("~"):
            pattern = patterns[word[1:]]
        elif word.startswith("len="):
            low, high = _bounds(word[4:])
            length = (None if low is None else int(low), None if high is None else int(high))
        elif word.startswith("range="):
            limits = _bounds(word[6:])
        elif word.startswith("requires="):
            requires = word[9:]
        elif word.startswith("alias="):
            alias = word[6:]
        elif word.startswith("key="):
            key_alias = word[4:]
        elif word.startswith("="):
            default = word[1:]
        else:
            raise ValueError(f"{word!r} in {text!r} is not known in a table of parameters")
    return Parameter(
        kind,
        optional and not required,
        format_,
        length,
        limits,
        enum,
        default,
        requires,
        pattern,
        bare,
        alias,
        key_alias,
    )


def lines_of(table: str, indent: int) -> Iterator[str]:
    """The lines of a table; one that is indented deeper than `indent` blanks is glued to the one before."""
    deeper = " " * (indent + 1)
    line = ""
    for text in table.strip("\n").split("\n"):
        if line and text.startswith(deeper):
            line += text.strip()
        else:
            if line:
                yield line
            line = text
    if line:
        yield line


class Tables:
    """The tables of one API, read when needed.

    `slots`: how many numbers each `[n]` stands for, by name; `patterns`: the names after `~`.
    """

    def __init__(
        self,
        parameters: str,
        methods: str,
        *,
        sets: str = "",
        property_strings: str = "",
        slots: Mapping[str, int] | None = None,
        patterns: Mapping[str, str] | None = None,
    ) -> None:
        self._patterns = dict(patterns or {})
        self._slots = dict(slots or {})
        self._parameters = dict(line.split(" ", 1) for line in lines_of(parameters, 0))
        self._sets = {title: words.split() for title, words in _blocks(sets)}
        self._texts: dict[tuple[str, str], tuple[str, str]] = {}
        self._methods: dict[tuple[str, str], Method] = {}
        self._tree: dict[str, dict[str, object]] = {}
        for title, words in _blocks(methods):
            call, _, who = title.partition(" : ")
            verb, _, path = call.partition(" ")
            self._texts[verb, path] = (who, words)
            self._grow(path, verb)
        self._groups = {
            title.split(" ")[0]: (title.split(" ")[1:], lines) for title, lines in _groups(property_strings)
        }
        self._group: dict[str, dict[str, Parameter]] = {}

    def _grow(self, path: str, verb: str) -> None:
        node: dict[str, object] = self._tree  # type: ignore[assignment]
        for part in path.strip("/").split("/"):
            step = "{}" if part.startswith("{") else part
            node = node.setdefault(step, {})  # type: ignore[assignment]
        node[f" {verb}"] = path

    def all(self) -> list[tuple[str, str]]:
        """(method, path) of everything in the table."""
        return list(self._texts)

    def find(self, verb: str, parts: list[str]) -> tuple[Method, dict[str, str]] | None:
        """The method for a path that was split at its slashes, and what stands in the place of {parts}."""

        def look(node: Mapping[str, object], rest: list[str]) -> str | None:
            if not rest:
                path = node.get(f" {verb}")
                return path if isinstance(path, str) else None
            for step in (rest[0], "{}"):
                child = node.get(step)
                if isinstance(child, dict):
                    found = look(child, rest[1:])
                    if found is not None:
                        return found
            return None

        path = look(self._tree, parts)
        if path is None:
            return None
        words = path.strip("/").split("/")
        values = {word[1:-1]: part for word, part in zip(words, parts, strict=True) if word.startswith("{")}
        return self.method(verb, path), values

    def method(self, verb: str, path: str) -> Method:
        """One method with its parameters. KeyError: there is none."""
        method = self._methods.get((verb, path))
        if method is None:
            who, words = self._texts[verb, path]
            who, _, flags = who.partition(" ; ")
            parameters: dict[str, Parameter] = {}
            for word in words.split():
                self._add(word, parameters)
            method = self._methods[verb, path] = Method(
                verb, path, who, "open" in flags, "no-token" not in flags, parameters
            )
        return method

    def _add(self, word: str, into: dict[str, Parameter]) -> None:
        if word.startswith("+"):
            for inner in self._sets[word[1:]]:
                self._add(inner, into)
            return
        name, _, definition = word.partition("=")
        required = not name.endswith("?")
        name = name.rstrip("?")
        parameter = parse_parameter(self._parameters[definition or name], self._patterns, required=required)
        if name.endswith("[n]"):
            for number in range(self._slots[definition or name]):
                into[f"{name[:-3]}{number}"] = parameter
        else:
            into[name] = parameter

    def group(self, name: str) -> Mapping[str, Parameter] | None:
        """The keys of a property string, by the name of its format."""
        found = self._group.get(name)
        if found is None and name in self._groups:
            found = self._group[name] = {}
            others, lines = self._groups[name]
            for other in others:
                found.update(self.group(other[1:]) or {})
            for line in lines:
                key, _, definition = line.partition(" ")
                found[key] = parse_parameter(definition, self._patterns)
        return found

    def groups(self) -> list[str]:
        """The names of all property strings."""
        return list(self._groups)


def _blocks(table: str) -> Iterator[tuple[str, str]]:
    title, words = "", ""
    for line in table.strip("\n").split("\n"):
        if line.startswith(" "):
            words += line
        else:
            if title:
                yield title, words
            title, words = line, ""
    if title:
        yield title, words


def _groups(table: str) -> Iterator[tuple[str, list[str]]]:
    title = ""
    lines: list[str] = []
    for line in table.strip("\n").split("\n"):
        if line.startswith("     "):
            lines[-1] += line.strip()
        elif line.startswith(" "):
            lines.append(line.strip())
        else:
            if title:
                yield title, lines
            title, lines = line, []
    if title:
        yield title, lines
