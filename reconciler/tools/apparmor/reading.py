"""Reads the text of a profile: its statements with their lines, as apparmor_parser would take them.

Not a full parser: it knows where statements begin and end, which profiles they belong to, and what a rule is about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

_WORDS: Final = (
    "capability network signal ptrace mount umount remount pivot_root dbus unix change_profile link rlimit set userns "
    "io_uring mqueue all file change_hat include abi alias profile hat"
)
KEYWORDS: Final = frozenset(_WORDS.split())
_QUALIFIERS: Final = frozenset({"audit", "deny", "allow", "owner", "other", "quiet", "prompt"})
_ACCESS: Final = re.compile(r"[rwamlk]*(?:[pPcC][iuU]?x|[uU]x|ix|x)?[rwamlk]*")
_EXEC: Final = re.compile(r"[pPcC][iuU]?x|[uU]x|ix|x")
_INCLUDE: Final = re.compile(r'(#?)include[ \t]+(if[ \t]+exists[ \t]+)?([<"]?)([^>"\n]+)[>"]?')
_VARIABLE: Final = re.compile(r"@\{([^}]*)\}[ \t]*(\+?=)(.*)")
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\([^)]*\)|[^\s"(]+(?:\([^)]*\))?')


@dataclass(frozen=True, slots=True)
class Include:
    """An include; `hashed` where it is spelled `#include`."""

    line: int
    name: str
    hashed: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ReadRule:
    """A rule.

    Attributes:
        kind: `file`, `capability`, `network`, ...
        path, access, exec, target: of a file rule: its pattern, letters without those of a start, those of a start
            such as `Pix`, and what stands after the arrow.
        words: all words after the qualifiers.
    """

    line: int
    kind: str
    words: tuple[str, ...]
    deny: bool = False
    audit: bool = False
    owner: bool = False
    path: str = ""
    access: str = ""
    exec: str = ""
    target: str = ""


@dataclass(slots=True)
class ReadProfile:
    """A profile, or a hat or child of one."""

    line: int
    name: str
    attachment: str = ""
    flags: tuple[str, ...] = ()
    parent: str = ""
    rules: list[ReadRule] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        """As the kernel calls it."""
        return f"{self.parent}//{self.name}" if self.parent else self.name


@dataclass(slots=True)
class ReadText:
    """What a file of profiles holds. `mistakes`: line, message and fix of what is no statement."""

    profiles: list[ReadProfile] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)
    variables: dict[str, list[str]] = field(default_factory=dict)
    mistakes: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def complain(self) -> bool:
        """Whether flags put every profile of the file into complain mode."""
        return bool(self.profiles) and all("complain" in one.flags for one in self.profiles)

    @property
    def some_complain(self) -> bool:
        """Whether flags put some profile of the file into complain mode."""
        return any("complain" in one.flags for one in self.profiles)


@dataclass(frozen=True, slots=True)
class _Statement:
    kind: Literal["rule", "open", "close", "include", "variable"]
    line: int
    text: str


def read(text: str) -> ReadText:
    """The profiles of a text."""
    out = ReadText()
    stack: list[ReadProfile | None] = []
    for one in _statements(text, out.mistakes):
        inside = next((p for p in reversed(stack) if p is not None), None)
        if one.kind == "include":
            found = _INCLUDE.match(one.text)
            if found:
                include = Include(one.line, found[4].strip(), bool(found[1]), bool(found[2]))
                (inside.includes if inside else out.includes).append(include)
        elif one.kind == "variable":
            found = _VARIABLE.match(one.text)
            if found:
                out.variables.setdefault(found[1], []).extend(found[3].split("#")[0].split())
        elif one.kind == "open":
            profile = _opened(one, inside)
            stack.append(profile)
            if profile is not None:
                out.profiles.append(profile)
        elif one.kind == "close":
            if stack:
                stack.pop()
            else:
                out.mistakes.append((one.line, "closes a brace that was never opened.", "Take the } out."))
        elif inside is not None:
            inside.rules += _rules(one, out.mistakes)
        elif one.text and one.text.split()[0] not in ("abi", "alias"):
            message = f"{one.text[:40]!r} stands outside of any profile."
            out.mistakes.append((one.line, message, "Put it between the braces of a profile."))
    if stack:
        line = next((p.line for p in reversed(stack) if p is not None), 1)
        out.mistakes.append((line, "the brace that opens here is never closed.", "Add a } at the end."))
    return out


def _statements(text: str, mistakes: list[tuple[int, str, str]]) -> Iterator[_Statement]:
    i, line, size = 0, 1, len(text)
    while i < size:
        char = text[i]
        if char == "\n":
            line += 1
            i += 1
        elif char in " \t,\r":
            i += 1
        elif (found := _INCLUDE.match(text, i)) is not None:
            yield _Statement("include", line, found[0])
            i = found.end()
        elif char == "#":
            i = _end_of_line(text, i)
        elif char == "}":
            yield _Statement("close", line, "}")
            i += 1
        elif text.startswith("@{", i) and _VARIABLE.match(text, i):
            end = _end_of_line(text, i)
            yield _Statement("variable", line, text[i:end])
            i = end
        else:
            end, kind = _end_of_statement(text, i)
            is_ended = text[end : end + 1] in (",", "{")
            words = text[i:end].strip()
            yield _Statement(kind, line, words)
            if not is_ended and words:
                last = line + words.count("\n")
                mistakes.append(
                    (last, f"{words.splitlines()[-1].strip()[:60]!r} has no comma.", "Add a comma at its end.")
                )
            line += text.count("\n", i, end)
            i = end + is_ended


def _end_of_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _end_of_statement(text: str, start: int) -> tuple[int, Literal["rule", "open"]]:
    """Where a rule's comma or a profile's brace is. Braces and commas inside of a word belong to that word."""
    i, depth, quoted, round_ = start, 0, False, 0
    while i < len(text):
        char = text[i]
        before, after = text[i - 1 : i] if i else " ", text[i + 1 : i + 2]
        if quoted:
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char == "\\":
            i += 1
        elif char == "(":
            round_ += 1
        elif char == ")":
            round_ -= 1
        elif char == "{":
            if depth == 0 and round_ <= 0 and before in " \t\n)" and after in ("", " ", "\t", "\n", "\r", "#"):
                return i, "open"
            depth += 1
        elif char == "}":
            if depth == 0:
                return i, "rule"
            depth -= 1
        elif char == "," and depth == 0 and round_ <= 0:
            return i, "rule"
        elif char == "#" and before in " \t\n" and i > start:
            i = _end_of_line(text, i) - 1
        elif char == "\n":
            depth = 0
        i += 1
    return len(text), "rule"


def words_of(text: str) -> list[str]:
    """The words of a statement; quoted ones and those in parentheses stay whole."""
    return _TOKEN.findall("\n".join(line.split(" #")[0] for line in text.split("\n")))


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] == '"' else word


def _opened(statement: _Statement, inside: ReadProfile | None) -> ReadProfile | None:
    words = words_of(statement.text)
    flags: tuple[str, ...] = ()
    kept = []
    for word in words:
        found = re.fullmatch(r"(?:flags=)?\((.*)\)", word, re.DOTALL)
        if found:
            flags = tuple(re.split(r"[\s,]+", found[1].strip()))
        elif word not in ("flags=", "flags", "=") and not word.startswith("xattrs="):
            kept.append(_unquoted(word))
    if not kept or kept[0] in ("if", "else"):
        return None
    if kept[0] in ("profile", "hat"):
        kept = kept[1:] or [""]
    name = kept[0].removeprefix("^")
    return ReadProfile(
        statement.line, name, kept[1] if len(kept) > 1 else "", flags, inside.full_name if inside else ""
    )


def _rules(statement: _Statement, mistakes: list[tuple[int, str, str]]) -> Iterator[ReadRule]:
    """The rule of a statement; several where a comma is missing between them, which is a mistake."""
    parts: list[tuple[int, list[str]]] = []
    for offset, row in enumerate(statement.text.split("\n")):
        words = words_of(row)
        if not words or words[0].startswith("#"):
            continue
        if parts and _begins(words, parts[-1][1]):
            line = parts[-1][0]
            mistakes.append((line, f"{' '.join(parts[-1][1])[:60]!r} has no comma.", "Add a comma at its end."))
            parts.append((statement.line + offset, words))
        elif parts:
            parts[-1][1].extend(words)
        else:
            parts.append((statement.line + offset, words))
    for line, words in parts:
        yield _rule(line, words)


def _begins(words: Sequence[str], before: Sequence[str]) -> bool:
    """Whether words at the start of a line begin another rule than the words before them."""
    first = next((w for w in words if w not in _QUALIFIERS), "")
    if first in KEYWORDS or words[0] in _QUALIFIERS:
        return True
    is_path = _unquoted(first).startswith(("/", "@{"))
    return is_path and len(before) >= 2 and before[-1] != "->" and _ACCESS.fullmatch(before[-1]) is not None


def _rule(line: int, words: Sequence[str]) -> ReadRule:
    rest = list(words)
    marks = set()
    while rest and (rest[0] in _QUALIFIERS or rest[0].startswith("priority=")):
        marks.add(rest.pop(0))
    deny, audit, owner = "deny" in marks, "audit" in marks, "owner" in marks
    if rest[:1] == ["file"] and len(rest) > 1:
        del rest[0]
    kind = rest[0] if rest and rest[0] in KEYWORDS else "file"
    if kind != "file" or len(rest) < 2:
        return ReadRule(line, kind, tuple(rest), deny, audit, owner)
    path, letters = rest[0], rest[1]
    if not _unquoted(path).startswith(("/", "@{", "{")):
        path, letters = letters, path
    target = rest[rest.index("->") + 1] if "->" in rest[:-1] else ""
    found = _EXEC.search(letters)
    start = found[0] if found else ""
    access = letters.replace(start, "", 1) if start else letters
    return ReadRule(
        line,
        "file",
        tuple(rest),
        deny,
        audit,
        owner,
        path=_unquoted(path),
        access=access,
        exec=start,
        target=_unquoted(target),
    )


def is_access(letters: str) -> bool:
    """Whether they are letters of a file rule."""
    return bool(letters) and _ACCESS.fullmatch(letters) is not None
