"""Follows the build of a Containerfile's last stage, as far as text can tell: variables, users, owners, modes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.tools.nonroot import shell
from reconciler.tools.nonroot.dockerfile import (
    Containerfile,
    Heredoc,
    Instruction,
    Stage,
    assignments,
    expand,
    words,
)
from reconciler.tools.nonroot.permissions import MOST, Permissions, is_root_group, mode_and_paths, mode_of, normal
from reconciler.tools.nonroot.users import user_of


@dataclass(frozen=True)
class Account:
    """An account that a RUN makes."""

    name: str
    number: int | None
    home: str
    line: int


@dataclass(frozen=True)
class Given:
    """A path that is given to a user who is not root.

    Attributes:
        number: the user's, where it is known.
        must_write: it was given by chown, whose sense is to let the user write.
        as_root: the build is root there.
    """

    path: str
    owner: str
    number: int | None
    line: int
    instruction: Instruction
    must_write: bool
    as_root: bool


class Build:
    """What is known after the last instruction.

    Attributes:
        env: variables of the image; None where a value is not known.
        user, user_line: the last USER with its variables replaced (None: they are not known), and where it stands.
        runs: the commands of each RUN.
    """

    def __init__(self, parsed: Containerfile, chain: Sequence[Stage]) -> None:
        self._parsed, self._escape = parsed, parsed.escape
        self.env: dict[str, str | None] = {}
        self._args: dict[str, str | None] = {}
        self.arguments: set[str] = set()
        self.user: str | None = None
        self.user_line: Instruction | None = None
        self.home_line: Instruction | None = None
        self.workdir = "/"
        self.ports: list[tuple[int, str]] = []
        self.entrypoint: Instruction | None = None
        self.cmd: Instruction | None = None
        self.runs: list[tuple[Instruction, list[shell.Command]]] = []
        self.accounts: list[Account] = []
        self.given: list[Given] = []
        self.bad_flags: list[Instruction] = []
        self.permissions = Permissions()
        self._copies: list[tuple[list[str], str, Instruction]] = []
        for stage in chain:
            self._args = {}
            for one in stage.instructions:
                self._take(one)

    def declares(self, text: str) -> bool:
        """Whether some ARG of the stages names a variable of a text."""
        return any(re.search(rf"\$\{{?{re.escape(name)}\b", text) for name in self.arguments if name)

    def account(self, name: str) -> Account | None:
        """The account of a name or a number."""
        return next((a for a in self.accounts if name in (a.name, str(a.number))), None)

    def source_of(self, path: str) -> str | None:
        """What was copied from the build's context to a path of the image."""
        for sources, target, _ in reversed(self._copies):
            for source in sources:
                name = posixpath.basename(source.rstrip("/"))
                if "/" not in path and name == path:
                    return source  # looked for in PATH
                if target == normal(path) or posixpath.join(target, name) == normal(path):
                    return source
                if posixpath.dirname(normal(path)) == target and source in (".", "./"):
                    return posixpath.basename(path)
        return None

    def written_script(self, path: str) -> Heredoc | None:
        """The here-document that was copied to a path."""
        for _, target, one in reversed(self._copies):
            if one.heredocs and target == normal(path):
                return one.heredocs[0]
        return None

    # ------------------------------------------------------------------------------------------------ instructions

    @property
    def _values(self) -> Mapping[str, str | None]:
        return {**self._args, **self.env}

    @property
    def _is_root(self) -> bool:
        user = user_of(self.user) if self.user else None
        return self.user_line is None or (user is not None and user.is_root)

    def _expand(self, text: str) -> str | None:
        return expand(text, self._values, self._escape)

    def _take(self, one: Instruction) -> None:
        match one.name:
            case "ARG":
                for name, value in assignments(one.text, self._escape):
                    default = self._parsed.arguments.get(name) if value is None else self._expand(value)
                    self._args[name] = default
                    self.arguments.add(name)
            case "ENV":
                new = {n: self._expand(v) for n, v in assignments(one.text, self._escape) if v is not None}
                self.env.update(new)
                if "HOME" in new:
                    self.home_line = one
            case "USER":
                self.user, self.user_line = self._expand(one.text), one
            case "WORKDIR":
                self.workdir = posixpath.join(self.workdir, self._expand(one.text) or "$")
            case "EXPOSE":
                self.ports += [(one.line, self._expand(w) or "") for w in words(one.text, self._escape)]
            case "ENTRYPOINT":
                self.entrypoint = one
            case "CMD":
                self.cmd = one
            case "RUN":
                self._run(one)
            case "COPY" | "ADD":
                self._copy(one)

    def _run(self, one: Instruction) -> None:
        argv = one.exec_form
        if argv is not None:
            found = [shell.Command(tuple(argv), 0)] if argv else []
        else:
            found = shell.commands(one.text, self._values)
            for document in one.heredocs:
                found += shell.commands(document.text, self._values)
        self.runs.append((one, found))
        for command in found:
            self._command(one, command)

    def _command(self, one: Instruction, command: shell.Command) -> None:
        arguments = [w for w in command.words[1:] if not w.startswith("--")]
        match command.program:
            case "adduser" | "useradd":
                self.accounts.append(_account(command, one))
            case "chown":
                owner, *paths = [w for w in arguments if not w.startswith("-")] or [""]
                self._chown(one, owner, paths)
            case "chgrp":
                group, *paths = [w for w in arguments if not w.startswith("-")] or [""]
                for path in map(self._absolute, paths):
                    self.permissions.group(path, group in ("0", "root"))
            case "chmod":
                text, paths = mode_and_paths(command.words[1:])
                mode = mode_of(text)
                for path in map(self._absolute, paths):
                    if mode and mode.group_writes is not None:
                        self.permissions.mode(path, mode.group_writes)
            case "mkdir" | "install":
                self._make(command)
            case "fix-permissions":
                for path in map(self._absolute, command.operands):
                    self.permissions.group(path, True)
                    self.permissions.mode(path, True)

    def _make(self, command: shell.Command) -> None:
        """`mkdir -m 775 DIR` and `install -d -m 775 -g 0 DIR`."""
        mode, group, paths = None, "0", []
        rest = list(command.words[1:])
        while rest:
            word = rest.pop(0)
            if word in ("-m", "-g", "-o", "--mode", "--group", "--owner") and rest:
                value = rest.pop(0)
                mode = value if word in ("-m", "--mode") else mode
                group = value if word in ("-g", "--group") else group
            elif word.startswith("--mode="):
                mode = word.partition("=")[2]
            elif not word.startswith("-"):
                paths.append(word)
        seen = mode_of(mode) if mode else None
        for path in map(self._absolute, paths):
            if seen and seen.group_writes:
                self.permissions.group(path, group in ("0", "root"))
                self.permissions.mode(path, True)

    def _chown(self, one: Instruction, owner: str, paths: Sequence[str]) -> None:
        zero = is_root_group(owner)
        name = owner.partition(":")[0]
        line = one.line_of("chown")
        for path in map(self._absolute, paths):
            if zero is not None:
                self.permissions.group(path, zero)
            if name not in ("", "0", "root") and len(self.given) < MOST:
                number = self._number(name)
                self.given.append(Given(path, owner, number, line, one, True, self._is_root))

    def _copy(self, one: Instruction) -> None:
        argv = one.exec_form
        found = argv if argv is not None else words(one.text, self._escape)
        flags = dict(one.flags)
        for name in ("chown", "chmod"):
            if name in flags and flags[name] is None and found:
                # What follows is meant for its value, though the builder does not take it so.
                self.bad_flags.append(one)
                flags[name], found = found[0], found[1:]
        if len(found) < 2:
            return
        *sources, target = [self._expand(w) or w for w in found]
        target = self._absolute(target)
        if "from" not in one.flags:
            self._copies.append((sources, normal(target), one))
        owner = self._expand(flags.get("chown") or "")
        mode = mode_of(self._expand(flags.get("chmod") or "") or "")
        if owner:
            # `--chown=1001` alone means the group 1001, too.
            zero = is_root_group(owner if ":" in owner else f"{owner}:{owner}")
            name = owner.partition(":")[0]
            # The folder belongs to the engine; what lies in it is what was copied.
            self.permissions.group(target, bool(zero))
            if name not in ("0", "root") and len(self.given) < MOST:
                self.given.append(Given(target, owner, self._number(name), one.line, one, False, self._is_root))
        if mode and mode.group_writes is not None:
            self.permissions.mode(target, mode.group_writes)

    def _number(self, name: str) -> int | None:
        account = self.account(name)
        return int(name) if name.isdecimal() and len(name) < 20 else account.number if account else None

    def _absolute(self, path: str) -> str:
        if path.startswith(("~", "$")):
            return path
        whole = posixpath.join(self.workdir, path)
        return whole if "$" in whole else normal(whole)


def _account(command: shell.Command, one: Instruction) -> Account:
    """What adduser (Debian, BusyBox) and useradd are told."""
    number, home = None, ""
    # Perl's Getopt::Long, which Debian's adduser uses, takes long options with one dash, too.
    rest, operands = list(command.words[1:]), []
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        if word in ("-u", "--uid", "-uid", "-h", "-d", "--home", "-home", "--home-dir"):
            value = value if equals else rest.pop(0) if rest else ""
            if word in ("-u", "--uid", "-uid"):
                number = int(value) if value.isdecimal() and len(value) < 20 else None
            else:
                home = value
        elif word in (
            "-G",
            "-g",
            "--gid",
            "--ingroup",
            "--groups",
            "-s",
            "--shell",
            "-c",
            "--gecos",
            "--comment",
            "-k",
        ):
            if not equals and rest:
                rest.pop(0)
        elif not word.startswith("-"):
            operands.append(word)
    name = (operands[-1] if command.program == "useradd" else operands[0]) if operands else ""
    return Account(name, number, home, one.line_of(command.words[0]))
