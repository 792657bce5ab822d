"""Reads Containerfiles: the grammar of the Dockerfile reference (https://docs.docker.com/reference/dockerfile/).

Parser directives, comments, line continuations, here-documents, flags, exec forms, stages, and the substitution of
ARG and ENV. It takes any text, and says what it could not make sense of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_DIRECTIVE: Final = re.compile(r"\s*#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*?)\s*")
_HEREDOC: Final = re.compile(r"\d*<<(-?)([\"']?)([^<\"']+)\2")
_FLAG: Final = re.compile(r"--([a-z][a-z-]*)(?:=(\S*))?(?:\s+|$)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LONGEST: Final = 65_536
"""Characters of a value; longer ones, which double themselves line by line, count as not known."""
WITH_HEREDOC: Final = frozenset(("RUN", "COPY", "ADD"))
KNOWN: Final = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)


@dataclass(frozen=True)
class Heredoc:
    """A here-document.

    Attributes:
        name: its delimiter, which `COPY <<name` shows as the source.
        line: where its first line stands.
    """

    name: str
    text: str
    line: int


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name: in capitals.
        text: what follows the name, continuations joined, flags and here-documents left out.
        flags: `--name=value`; the value is None where there is no `=`.
        line, end: first and last line, counted from 1.
        lines: the lines as they stand in the file.
    """

    name: str
    text: str
    flags: Mapping[str, str | None]
    line: int
    end: int
    lines: Sequence[str] = field(repr=False)
    heredocs: Sequence[Heredoc] = ()

    @property
    def exec_form(self) -> list[str] | None:
        """The words of an exec form (a JSON list of texts); None for a shell form."""
        if not self.text.startswith("["):
            return None
        try:
            words = json.loads(self.text)
        except (ValueError, RecursionError):
            return None
        return words if isinstance(words, list) and all(isinstance(w, str) for w in words) else None

    def line_of(self, word: str) -> int:
        """The first of its lines that holds a word; its first line, if none does."""
        return next((self.line + i for i, text in enumerate(self.lines) if word in text), self.line)


@dataclass(frozen=True)
class Stage:
    """One `FROM` and what follows it.

    Attributes:
        base: the image or the earlier stage, arguments replaced; None where that cannot be told.
        name: in lower case; empty where it has none.
    """

    base: str | None
    name: str
    line: int
    instructions: Sequence[Instruction]


@dataclass(frozen=True)
class Containerfile:
    """A parsed file.

    Attributes:
        stages: in order.
        arguments: defaults of the ARGs before the first FROM; None where there is no default.
        problems: line, and what could not be understood.
        count: of lines.
    """

    stages: Sequence[Stage]
    arguments: Mapping[str, str | None]
    problems: Sequence[tuple[int, str]]
    escape: str
    count: int

    def chain(self) -> list[Stage]:
        """The last stage and the stages that it is built from, the first one first."""
        parents: list[int] = []
        latest: dict[str, int] = {}
        for index, stage in enumerate(self.stages):
            # The last earlier stage of that name counts.
            parents.append(latest.get((stage.base or "").lower(), -1))
            if stage.name:
                latest[stage.name] = index
        out: list[Stage] = []
        index = len(self.stages) - 1
        while index >= 0:
            out.append(self.stages[index])
            index = parents[index]
        return out[::-1]


def parse(text: str) -> Containerfile:
    """Read a Containerfile; never fails."""
    # Lines end as git and editors see it, not at form feeds and the like.
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    escape, start = _directives(lines)
    problems: list[tuple[int, str]] = []
    instructions = _instructions(lines, start, escape, problems)
    arguments: dict[str, str | None] = {}
    stages: list[Stage] = []
    body: list[Instruction] = []
    for one in instructions:
        if one.name == "FROM":
            words = one.text.split()
            named = len(words) == 3 and words[1].lower() == "as"
            if len(words) != 1 and not named:
                problems.append((one.line, "FROM wants an image, and perhaps `AS name`"))
            base = expand(words[0], arguments, escape) if words else None
            body = []
            stages.append(Stage(base, words[2].lower() if named else "", one.line, body))
        elif stages:
            body.append(one)
        elif one.name == "ARG":
            for name, value in assignments(one.text, escape):
                arguments[name] = None if value is None else expand(value, arguments, escape)
        else:
            problems.append((one.line, f"{one.name} stands before the first FROM"))
    if not stages:
        problems.append((1, "there is no FROM"))
    return Containerfile(stages, arguments, problems, escape, len(lines))


def _directives(lines: Sequence[str]) -> tuple[str, int]:
    """The escape character, and where the rest begins. Directives stand on top, before anything else."""
    escape = "\\"
    for index, line in enumerate(lines):
        found = _DIRECTIVE.fullmatch(line)
        if not found:
            return escape, index
        if found[1].lower() == "escape" and found[2] in ("\\", "`"):
            escape = found[2]
    return escape, len(lines)


def _instructions(lines: Sequence[str], start: int, escape: str, problems: list[tuple[int, str]]) -> list[Instruction]:
    out: list[Instruction] = []
    index = start
    # The escape at the end of a line, if none stands before it; spaces may follow.
    goes_on = re.compile(rf"(?:^|(?<!{re.escape(escape)})){re.escape(escape)}[ \t]*$")
    while index < len(lines):
        first = index
        stripped = lines[index].strip()
        if not stripped or stripped.startswith("#"):
            index += 1
            continue
        parts: list[str] = []
        while index < len(lines):
            line = lines[index]
            index += 1
            if parts and (not line.strip() or line.lstrip().startswith("#")):
                continue
            found = goes_on.search(line)
            parts.append(line[: found.start()] if found else line)
            if not found:
                break
        name, _, rest = "".join(parts).strip().partition(" ")
        if "\t" in name:
            name, _, after = name.partition("\t")
            rest = f"{after} {rest}"
        name = name.upper()
        if name not in KNOWN:
            problems.append((first + 1, f"{name[:40]} is no instruction"))
        rest = rest.strip()
        carrier = rest.partition(" ")[0].upper() if name == "ONBUILD" else name
        heredocs: list[Heredoc] = []
        if carrier in WITH_HEREDOC and "<<" in rest:
            index = _heredocs(lines, index, rest, heredocs, problems)
        flags: dict[str, str | None] = {}
        while found_flag := _FLAG.match(rest):
            flags[found_flag[1]] = found_flag[2]
            rest = rest[found_flag.end() :]
        out.append(Instruction(name, rest, flags, first + 1, index, lines[first:index], heredocs))
    return out


def _heredocs(
    lines: Sequence[str], index: int, text: str, found: list[Heredoc], problems: list[tuple[int, str]]
) -> int:
    """Take the bodies of the here-documents that a line announces; gives the index of the line after them."""
    # As the builder does: a word of its own, outside of quotes.
    for announced in filter(None, map(_HEREDOC.fullmatch, words(text))):
        tabs, _, name = announced.groups()
        begin = index
        body: list[str] = []
        while index < len(lines):
            line = lines[index].lstrip("\t") if tabs else lines[index]
            index += 1
            if line == name:
                break
            body.append(line)
        else:
            problems.append((begin, f"the here-document {name[:40]} has no end"))
        found.append(Heredoc(name, "\n".join(body), begin + 1))
    return index


# ------------------------------------------------------------------------------------------------ words


def words(text: str, escape: str = "\\") -> list[str]:
    """Split at spaces outside of quotes; the quotes stay."""
    out: list[str] = []
    word, quote, index = "", "", 0
    while index < len(text):
        char = text[index]
        if char == escape and quote != "'" and index + 1 < len(text):
            word += text[index : index + 2]
            index += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            if word:
                out.append(word)
            word = ""
            index += 1
            continue
        word += char
        index += 1
    return [*out, word] if word else out


def assignments(text: str, escape: str = "\\") -> list[tuple[str, str | None]]:
    """`NAME=value NAME` of ENV and ARG, values as written; also the old `ENV NAME value`."""
    found = words(text, escape)
    if found and "=" not in found[0] and len(found) > 1:
        return [(found[0], text.strip()[len(found[0]) :].strip())]
    out: list[tuple[str, str | None]] = []
    for word in found:
        name, equals, value = word.partition("=")
        out.append((name, value if equals else None))
    return out


def expand(text: str, values: Mapping[str, str | None], escape: str = "\\") -> str | None:
    """Replace variables and take quotes away, as the builder does. None where a value is not known."""
    out, quote, index = "", "", 0
    while index < len(text):
        if len(out) > LONGEST:
            return None
        char = text[index]
        if char == escape and quote != "'" and index + 1 < len(text):
            out += text[index + 1]
            index += 2
        elif quote and char == quote:
            quote = ""
            index += 1
        elif not quote and char in "\"'":
            quote = char
            index += 1
        elif char == "$" and quote != "'":
            value, index = _variable(text, index + 1, values, escape)
            if value is None:
                return None
            out += value
        else:
            out += char
            index += 1
    return out if len(out) <= LONGEST else None


def _variable(text: str, index: int, values: Mapping[str, str | None], escape: str) -> tuple[str | None, int]:
    """The value of what begins after a `$`, and where it ends."""
    if text[index : index + 1] != "{":
        found = _NAME.match(text, index)
        if not found:
            return "$", index
        return values.get(found[0]), found.end()
    end, depth = index, 0
    while end < len(text):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            break
        end += 1
    inner = text[index + 1 : end]
    found = _NAME.match(inner)
    if depth or not found or inner.count("${") > 16:
        return None, end + 1
    value, rest = values.get(found[0]), inner[found.end() :]
    if not rest:
        return value, end + 1
    operator = rest[:2] if rest[0] == ":" else rest[0]
    word = rest[len(operator) :]
    is_set = bool(value) if operator[0] == ":" else value is not None
    match operator[-1]:
        case "-":
            return (value if is_set else expand(word, values, escape)), end + 1
        case "+":
            return (expand(word, values, escape) if is_set else ""), end + 1
        case "?":
            return (value if is_set else None), end + 1
    return None, end + 1
