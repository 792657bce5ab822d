"""Examines a Containerfile: who the image runs as, what that user may write, and what happens at the start."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from reconciler.tools.nonroot import shell
from reconciler.tools.nonroot.build import Build, Given
from reconciler.tools.nonroot.dockerfile import Containerfile, Instruction, parse
from reconciler.tools.nonroot.permissions import Mode, mode_and_paths, mode_of
from reconciler.tools.nonroot.rules import Edit, Flaw, Insert, Platform, Replace
from reconciler.tools.nonroot.users import HIGHEST, LOWEST, User, judge, user_of

Reader = Callable[[str], str | None]
"""The text of a file below the folder that is examined; None where there is none."""

_PLAIN: Final = re.compile(r"/[A-Za-z0-9_./-]+")
_WITHOUT_SHELL: Final = re.compile(r"(?:^|/)scratch$|distroless|-micro|chainguard")
DEFAULT_UID: Final = 1001
DEFAULT_HOME: Final = "/home/app"


@dataclass(frozen=True)
class KnownImage:
    """What is known of images that are not built here.

    Attributes:
        image: their names, `*` matches anything.
        user: the USER that they set.
        home: the HOME that they set; empty where they set none.
    """

    image: str
    user: str
    home: str = ""


def known(images: Sequence[KnownImage], name: str | None) -> KnownImage | None:
    """What is known of an image."""
    return next((i for i in images if name and fnmatch.fnmatchcase(name, i.image)), None)


def nothing(path: str) -> str | None:
    """A `Reader` for where nothing else can be read."""
    return None


def examine(file: str, text: str, *, images: Sequence[KnownImage] = (), read: Reader = nothing) -> list[Flaw]:
    """The flaws of a Containerfile, by line.

    Args:
        file: its path below the folder that is examined.
        images: what is known of base images.
        read: gives start scripts that it copies into the image.
    """
    parsed = parse(text)
    flaws = [
        Flaw("unreadable", file, line, f"this is no Containerfile that can be understood: {problem}")
        for line, problem in parsed.problems[:5]
    ]
    if parsed.stages:
        flaws += _Examination(file, parsed, images, read).flaws()
    return sorted(dict.fromkeys(flaws), key=lambda f: (f.line, f.rule, f.message))


def wanted(file: str, text: str) -> list[str]:
    """Files that `examine` would ask its reader for."""
    asked: list[str] = []

    def note(path: str) -> str | None:
        asked.append(path)
        return None

    examine(file, text, read=note)
    return list(dict.fromkeys(asked))


class _Examination:
    """One look at one file."""

    def __init__(self, file: str, parsed: Containerfile, images: Sequence[KnownImage], read: Reader) -> None:
        self.file, self.parsed, self.read = file, parsed, read
        self.chain = parsed.chain()
        self.build = Build(parsed, self.chain)
        self.base = known(images, self.chain[0].base)
        self.home = self.build.env.get("HOME") or (self.base.home if self.base else "")

    def flaws(self) -> Iterator[Flaw]:
        """All of them."""
        yield from self._user()
        yield from self._home()
        yield from self._files()
        yield from self._runs()
        yield from self._ports()
        yield from self._start()

    def _flaw(self, rule: str, line: int, message: str, *edits: Edit, **more: object) -> Flaw:
        return Flaw(rule, self.file, line, message, edits=edits, **more)  # type: ignore[arg-type]

    # ---------------------------------------------------------------- USER

    def _user(self) -> Iterator[Flaw]:
        build, last = self.build, self.chain[-1]
        if build.user_line is None:
            if self.base:
                for rule, message in _judged(self.base.user):
                    yield self._flaw(rule, last.line, f"{message}, which is what {last.base} sets", *self._append())
            else:
                message = "the last stage sets no USER"
                yield self._flaw("user-missing", last.line, message, *self._append())
            return
        one, written = build.user_line, build.user
        if written is None:
            if build.declares(one.text):
                yield self._flaw("user-unresolved", one.line, f"USER {one.text} depends on an ARG without a default")
            else:
                message = f"USER {one.text} depends on a variable that is not set here"
                fix = "Write the number that the base image means."
                yield self._flaw("user-unresolved", one.line, message, fix=fix, severity="warning")
            return
        user = user_of(written)
        if user is None:
            yield self._flaw("user-malformed", one.line, f"USER {written[:80] or one.text[:80]} cannot be understood")
            return
        for rule, message in judge(user):
            yield self._flaw(rule, one.line, message, *self._user_edits(rule, user, one), **self._known_fix(rule, user))

    def _user_edits(self, rule: str, user: User, one: Instruction) -> Sequence[Edit]:
        if rule == "user-root":
            return self._append()
        if user.written not in one.text or one.line != one.end:
            return ()
        number = user.number
        if rule == "user-by-name":
            account = self.build.account(user.name)
            number = account.number if account else None
        if number is None or not LOWEST <= number <= HIGHEST:
            return ()
        if rule == "group-not-root" and user.number is None:
            return ()  # the edit of the name puts the group there
        if rule in ("user-by-name", "group-unset", "group-not-root"):
            return (Replace(one.line, user.written, f"{number}:0"),)
        return ()

    def _known_fix(self, rule: str, user: User) -> dict[str, str]:
        account = self.build.account(user.name) if rule == "user-by-name" else None
        if account is None or account.number is None:
            return {}
        return {"fix": f"Write USER {account.number}:0: line {account.line} gives {user.name} that number."}

    def _append(self) -> Sequence[Edit]:
        """A USER at the end of the last stage."""
        stage = self.chain[-1]
        after = stage.instructions[-1].end if stage.instructions else stage.line
        return (Insert(after, f"USER {self._number()}:0"),)

    def _number(self) -> int:
        """The number that the file gives its files or its account already."""
        found = [g.number for g in self.build.given] + [a.number for a in self.build.accounts]
        return next((n for n in found if n is not None and LOWEST <= n <= HIGHEST), DEFAULT_UID)

    # ---------------------------------------------------------------- HOME

    def _home(self) -> Iterator[Flaw]:
        build, last = self.build, self.chain[-1]
        line = build.user_line.line if build.user_line else last.line
        if "HOME" not in build.env and not self.home:
            user = user_of(build.user) if build.user else None
            account = build.account(user.name) if user else None
            platforms: tuple[Platform, ...] = ("openshift",)
            if self.chain[0].base == "scratch":
                platforms = ("docker", "openshift")
            message = "HOME is not set"
            if account and account.home:
                message = f"HOME is set by the account {account.name} alone, which OpenShift does not use"
            home = account.home if account and _PLAIN.fullmatch(account.home) else DEFAULT_HOME
            yield self._flaw("home-missing", line, message, *self._make_home(home, env=True), platforms=platforms)
        elif self.home and "HOME" in build.env and not build.permissions.writable(self.home):
            one = build.home_line
            message = f"HOME={self.home} is not open to group 0"
            edits = self._make_home(self.home) if _PLAIN.fullmatch(self.home) and self.home != "/root" else ()
            yield self._flaw("home-not-writable", one.line if one else line, message, *edits)

    def _make_home(self, home: str, *, env: bool = False) -> Sequence[Edit]:
        """Lines that make a home, at the last place where the build is still root."""
        if not self._has_shell() or self.base:
            return ()
        stage, user = self.chain[-1], self.build.user_line
        if user is not None and user not in stage.instructions:
            return ()
        if any(i.name == "USER" and i is not user for s in self.chain for i in s.instructions):
            return ()
        after = user.line - 1 if user else stage.instructions[-1].end if stage.instructions else stage.line
        line = f"RUN mkdir -p {home} && chgrp -R 0 {home} && chmod -R g=u {home}"
        return (Insert(after, line + (f"\nENV HOME={home}" if env else "")),)

    def _has_shell(self) -> bool:
        base = self.chain[0].base
        return bool(base) and not _WITHOUT_SHELL.search(str(base).partition("@")[0].partition(":")[0])

    # ---------------------------------------------------------------- files

    def _files(self) -> Iterator[Flaw]:
        for one in self.build.bad_flags:
            flag = next(n for n, v in one.flags.items() if v is None and n in ("chown", "chmod"))
            value = one.text.partition(" ")[0]
            fixed = f"{value.partition(':')[0]}:0" if flag == "chown" and ":" in value else value
            edit = Replace(one.line, f"--{flag} {value}", f"--{flag}={fixed}")
            yield self._flaw(
                "flag-syntax", one.line, f"--{flag} {value} has no =", edit, fix=f"Write --{flag}={fixed}."
            )
        permissions = self.build.permissions
        for given in self.build.given:
            if not permissions.open_to_group(given.path):
                message = f"{given.path} belongs to {given.owner}, and nothing gives it to group 0 afterwards"
                # What is only copied can mostly be read by everybody; what was given by chown is to be written.
                severity = None if given.must_write else "warning"
                yield self._flaw("group-access", given.line, message, *self._open(given), severity=severity)
            elif given.must_write and not permissions.writable(given.path):
                message = f"{given.path} is given to {given.owner}, but its group may not write it"
                yield self._flaw("group-access", given.line, message, *self._open(given), severity="warning")

    def _open(self, given: Given) -> Sequence[Edit]:
        one = given.instruction
        if one.name in ("COPY", "ADD"):
            old = one.flags.get("chown") or ""
            if f"--chown={old}" in one.lines[0]:
                return (Replace(one.line, f"--chown={old}", f"--chown={old.partition(':')[0]}:0"),)
            return ()
        if given.as_root and _PLAIN.fullmatch(given.path) and self._has_shell():
            return (Insert(one.end, f"RUN chgrp -R 0 {given.path} && chmod -R g=u {given.path}"),)
        return ()

    # ---------------------------------------------------------------- RUN

    def _runs(self) -> Iterator[Flaw]:
        for one, found in self.build.runs:
            accounts = [c.program for c in found if c.program in ("adduser", "useradd", "addgroup", "groupadd")]
            if accounts:
                message = f"{' and '.join(dict.fromkeys(accounts))} make an account that USER does not need"
                yield self._flaw("user-created", one.line_of(accounts[0]), message)
            for command in found:
                yield from self._command(one, command)

    def _command(self, one: Instruction, command: shell.Command) -> Iterator[Flaw]:
        program, line = command.program, one.line_of(command.words[0])
        if program == "sudo":
            yield self._flaw("sudo", line, "a RUN calls sudo")
        elif program in ("apt", "apt-get", "apk", "dnf", "microdnf", "yum", "zypper") and (
            {"install", "add"} & set(command.words) and "sudo" in command.words
        ):
            yield self._flaw("sudo", one.line_of("sudo"), "sudo is installed")
        elif program == "setcap":
            yield self._flaw("setuid", line, "setcap gives a program capabilities")
        elif program == "chmod" and command.operands:
            text, paths = mode_and_paths(command.words[1:])
            mode = mode_of(text)
            if mode:
                yield from self._chmod(mode, text, paths, one.line_of(text))

    def _chmod(self, mode: Mode, text: str, paths: Sequence[str], line: int) -> Iterator[Flaw]:
        if mode.special:
            yield self._flaw("setuid", line, f"chmod {text} sets the setuid or setgid bit")
        if mode.group_writes and "/etc/passwd" in paths:
            yield self._flaw("passwd-writable", line, f"chmod {text} /etc/passwd lets the group write it")
        opened = [p for p in paths if p.rstrip("/") not in ("/tmp", "/var/tmp")]  # noqa: S108 - inside of an image
        if mode.world_writes and opened:
            yield self._flaw("world-writable", line, f"chmod {text} lets everybody write {opened[0]}")
        given = {g.path for g in self.build.given}
        lacking = [p for p in paths if p.rstrip("/") in given]
        if mode.group_lacks and lacking:
            yield self._flaw("group-mode", line, f"chmod {text} takes {lacking[0]} from the group")

    # ---------------------------------------------------------------- ports and start

    def _ports(self) -> Iterator[Flaw]:
        for line, text in self.build.ports:
            for part in text.replace("/tcp", "").replace("/udp", "").split("-"):
                if part.isdigit() and len(part) < 6 and 0 < int(part) < 1024:
                    yield self._flaw("privileged-port", line, f"EXPOSE {text} is below 1024")
                    break

    def _start(self) -> Iterator[Flaw]:
        for one in (self.build.entrypoint, self.build.cmd):
            if one is None:
                continue
            argv = one.exec_form
            text = one.text if argv is None else shell.called(argv)
            for rule, _, message in shell.at_start(text):
                yield self._flaw(rule, one.line, f"{one.name} {message}")
            words = argv if argv is not None else text.split()
            for word in words[:3]:
                yield from self._script(word)

    def _script(self, word: str) -> Iterator[Flaw]:
        """What a start script does, if the repo has it."""
        inline = self.build.written_script(word)
        if inline:
            yield from (
                self._flaw(rule, inline.line + line, f"the start script {message}")
                for rule, line, message in shell.at_start(inline.text)
            )
            return
        source = self.build.source_of(word)
        if source is None:
            return
        folder = posixpath.dirname(self.file)
        for path in dict.fromkeys((posixpath.normpath(posixpath.join(folder, source)), posixpath.normpath(source))):
            text = None if path.startswith("..") else self.read(path)
            if text is not None:
                for rule, line, message in shell.at_start(text):
                    yield Flaw(rule, path, line + 1, f"the start script of {self.file} {message}")
                return


def _judged(written: str) -> list[tuple[str, str]]:
    user = user_of(written)
    return list(judge(user)) if user else [("user-malformed", f"USER {written} cannot be understood")]
