"""Simple commands in shell text, and what start scripts do that only root can.

No shell: it splits text into words and commands well enough to see which programs are called with which arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from reconciler.tools.nonroot.dockerfile import expand

_SEPARATORS: Final = frozenset(";&|()\n")
_KEYWORDS: Final = frozenset(
    ["if", "then", "else", "elif", "do", "while", "until", "!", "{", "}", "time", "exec", "command", "fi", "done"]
)
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=.*", re.DOTALL)
LARGEST: Final = 200_000
"""Characters of a script that are looked at."""


@dataclass(frozen=True)
class Command:
    """One simple command.

    Attributes:
        words: without quotes; a word that holds an unknown variable keeps its `$`.
        line: counted from 0 in the text.
        redirected: files that it writes to.
    """

    words: tuple[str, ...]
    line: int
    redirected: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """The last part of the program's path."""
        return self.words[0].rpartition("/")[2] if self.words else ""

    @property
    def operands(self) -> list[str]:
        """The arguments that are no options."""
        return [w for w in self.words[1:] if not w.startswith("-")]

    def has(self, *letters: str) -> bool:
        """Whether one of these one-letter options is among the arguments."""
        return any(re.fullmatch(r"-[A-Za-z]+", w) and set(letters) & set(w) for w in self.words[1:])


def commands(text: str, values: Mapping[str, str | None] | None = None) -> list[Command]:
    """The simple commands of shell text, in order.

    Args:
        values: variables that are known.
    """
    out: list[Command] = []
    found: list[str] = []
    writes: list[str] = []
    line, begun = 0, 0
    for kind, word, at in _tokens(text[:LARGEST]):
        if kind == "end":
            if found:
                out.append(Command(tuple(found), begun, tuple(writes)))
            found, writes = [], []
            line = at
            continue
        value = _known(word, values or {})
        if kind == "write":
            writes.append(value)
        elif found or not (value in _KEYWORDS or _ASSIGNMENT.fullmatch(value)):
            if not found:
                begun = at if at >= line else line
            found.append(value)
    if found:
        out.append(Command(tuple(found), begun, tuple(writes)))
    return out


def called(argv: Sequence[str]) -> str:
    """What an exec form runs, as shell text: the script of `sh -c`, or the words."""
    if len(argv) > 2 and argv[0].rpartition("/")[2] in ("sh", "bash", "ash", "dash") and "c" in argv[1]:
        return argv[2]
    return " ".join("'" + w.replace("'", "'\\''") + "'" for w in argv)


def _known(word: str, values: Mapping[str, str | None]) -> str:
    """The word without quotes, known variables replaced."""
    value = expand(word, values)
    if value is not None:
        return value
    return re.sub(r"[\"']", "", word)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """`(word, text, line)`, `(write, file, line)` and `(end, "", line)`."""
    word, quote, index, line = "", "", 0, 0
    write = False
    started = False

    while index < len(text):
        char = text[index]
        if char == "\n":
            line += 1
        if char == "\\" and quote != "'" and index + 1 < len(text):
            line += text[index + 1] == "\n"
            if text[index + 1] != "\n":
                word += text[index : index + 2]
                started = True
            index += 2
            continue
        if quote:
            quote = "" if char == quote else quote
            word += char
        elif char in "\"'":
            quote, started = char, True
            word += char
        elif char == "#" and not started:
            while index < len(text) and text[index] != "\n":
                index += 1
            continue
        elif char.isspace() or char in _SEPARATORS or char in "<>":
            # `2>` and `>&2` are no words of the command.
            if started and not (char in "<>" and word.isdigit()):
                yield ("write" if write else "word"), word, line - (char == "\n")
                write = False
            word, started = "", False
            if char == ">":
                write = True
                index += 1 if text[index + 1 : index + 2] in (">", "|") else 0
                if text[index + 1 : index + 2] == "&":
                    index += 1
            elif char in _SEPARATORS:
                write = False
                yield "end", "", line
        else:
            word += char
            started = True
        index += 1
    if started:
        yield ("write" if write else "word"), word, line


# ------------------------------------------------------------------------------------------------ what only root can


SWITCHES: Final = frozenset(
    ["gosu", "su-exec", "su", "runuser", "setpriv", "chroot", "start-stop-daemon", "s6-setuidgid", "chpst", "doas"]
)
"""Programs that become another user."""
ACCOUNTS: Final = frozenset(["adduser", "useradd", "addgroup", "groupadd", "usermod", "groupmod"])


def at_start(text: str) -> Iterator[tuple[str, int, str]]:
    """What a start script does that needs root or an account: rule, line (from 0), and the words for it."""
    told: set[tuple[str, int]] = set()
    for rule, line, what in _at_start(text):
        if (rule, line) not in told:
            told.add((rule, line))
            yield rule, line, what


def _at_start(text: str) -> Iterator[tuple[str, int, str]]:
    # Images that may start as root and as others ask first.
    asks = bool(re.search(r"\bid -u\b|\bEUID\b|\$UID\b", text))
    for one in commands(text):
        match one.program:
            case "sudo":
                yield "sudo", one.line, "calls sudo"
            case "chown" | "chgrp" if not asks:
                yield "root-at-start", one.line, f"calls {one.program}"
            case program if program in SWITCHES and not asks:
                yield "root-at-start", one.line, f"becomes another user with {program}"
            case program if program in ACCOUNTS and not asks:
                yield "root-at-start", one.line, f"calls {program}"
            case "whoami" | "logname":
                yield "passwd-needed", one.line, f"calls {one.program}, which fails for a user without a name"
            case "id" if one.has("n"):
                yield "passwd-needed", one.line, "asks for the name of its user"
        if "/etc/passwd" in one.redirected:
            yield "passwd-writable", one.line, "writes to /etc/passwd"
    for number, line in enumerate(text[:LARGEST].split("\n")):
        if not line.lstrip().startswith("#") and re.search(r"[$`]\(?\s*(?:whoami|logname|id -[ugr]*n)", line):
            yield "passwd-needed", number, "asks for the name of its user, which fails where it has none"
