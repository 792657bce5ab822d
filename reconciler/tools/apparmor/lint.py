"""What is wrong with the text of a profile, line by line; before any parser has seen it.

It names the line where apparmor_parser names none (an undeclared variable, conflicting ways to start a program) or a
wrong one (a missing comma), and says what no parser says: rules that mean more, or less, than they seem to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from reconciler.tools.apparmor.globs import BUILT_IN, GLOBAL_NAMES, TUNABLES, Patterns, is_literal, variables_in
from reconciler.tools.apparmor.reading import Include, ReadProfile, ReadRule, ReadText, is_access, read
from reconciler.tools.apparmor.rules import CAPABILITIES

FATAL: Final = frozenset({"syntax", "undeclared-variable", "exec-conflict", "no-profile"})
"""What no document can accept: apparmor_parser refuses it."""
RULES: Final[Mapping[str, str]] = {
    "syntax": "A rule without its comma, a brace without its partner, letters that mean nothing.",
    "no-profile": "The text holds no profile.",
    "undeclared-variable": "A variable that no include and no line before declares.",
    "exec-conflict": "Two rules start one program in different ways.",
    "include-in-comment": "`#include` is an include. With a space after the # it is a comment.",
    "wide-file": "A rule about all files, or one that writes where programs and settings are.",
    "wide-capability": "All capabilities, or one that undoes AppArmor itself.",
    "wide-network": "All of the network.",
    "wide-rule": "A rule without any limit: `all`, `mount`, `change_profile`, `file`.",
    "unconfined-exec": "A program that starts without any profile.",
    "wide-exec": "Any program at all may be started.",
    "missing-map": "A library, or the program itself, may be read and not mapped as code (`m`).",
    "duplicate": "A rule that says nothing new.",
    "silent-deny": "Refusals that leave no log entry.",
}
"""Every rule of this lint, and what it finds."""
_KNOWN_TUNABLES: Final = re.compile(r"(?:/etc/apparmor\.d/)?(?:tunables/global|abstractions/.*)")
_WHOLE: Final = ("/**", "/{,**}", "/{**,}", "/**/*", "/*/**", "**")
_DELICATE: Final = (
    "/etc/**",
    "/usr/**",
    "/bin/**",
    "/sbin/**",
    "/lib/**",
    "/boot/**",
    "/dev/**",
    "/root/**",
    "/var/**",
)
_UNDOING: Final = ("mac_admin", "mac_override")
_LIBRARY: Final = re.compile(r"\.so(?:[.*{?\[]|$)")


class Mistake(NamedTuple):
    """Something wrong: the line of the text (from 1), the name of the rule, what is wrong, how to mend it."""

    line: int
    rule: str
    message: str
    fix: str


def lint(text: str) -> list[Mistake]:
    """Every mistake of a text, by line."""
    found = read(text)
    out = [Mistake(line, "syntax", message, fix) for line, message, fix in found.mistakes]
    if not found.profiles:
        out.append(Mistake(1, "no-profile", "there is no profile in it.", "Begin with `profile NAME PATH {`."))
    out += _includes(found)
    known = Patterns({**TUNABLES, **found.variables})
    out += _variables(found)
    for profile in found.profiles:
        out += _profile(profile, known)
    return sorted(set(out))


# ------------------------------------------------------------------------------------------------ preamble


def _includes(found: ReadText) -> Iterator[Mistake]:
    for includes in (found.includes, *(p.includes for p in found.profiles)):
        seen: dict[str, int] = {}
        for one in includes:
            if one.hashed:
                fix = "Write `include`; or `# include`, with a space, if it shall be a comment."
                yield Mistake(
                    one.line, "include-in-comment", f"`#include <{one.name}>` is an include, no comment.", fix
                )
            if one.name in seen:
                message = f"{one.name} is included in line {seen[one.name]} already."
                yield Mistake(one.line, "duplicate", message, "Keep one of them.")
            seen.setdefault(one.name, one.line)


def _variables(found: ReadText) -> Iterator[Mistake]:
    """Variables that nothing declares. Files with variables that we do not know may declare any."""
    if any(not _is_known(one) for one in found.includes):
        return
    declared = {*found.variables, *BUILT_IN, *(GLOBAL_NAMES if found.includes else ())}
    places: list[tuple[int, str]] = [(p.line, p.attachment) for p in found.profiles]
    places += [(r.line, " ".join(r.words)) for p in found.profiles for r in p.rules]
    for line, words in places:
        for name in variables_in(words):
            if name not in declared:
                fix = f"Declare it: `@{{{name}}} = VALUE` before the profile"
                near = [n for n in declared if _is_near(n, name)]
                fix += f", or write @{{{sorted(near)[0]}}}." if near else "."
                if not found.includes and name in GLOBAL_NAMES:
                    fix = "Put `include <tunables/global>` at the top."
                yield Mistake(line, "undeclared-variable", f"the variable @{{{name}}} is not declared.", fix)


def _is_known(include: Include) -> bool:
    return _KNOWN_TUNABLES.fullmatch(include.name) is not None


def _is_near(one: str, other: str) -> bool:
    """Whether two names differ by one letter, or in case only."""
    if one.lower() == other.lower():
        return True
    if abs(len(one) - len(other)) > 1 or min(len(one), len(other)) < 3:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[start + 1 :] in (other[start:], other[start + 1 :]) or one[start:] == other[start + 1 :]


# ------------------------------------------------------------------------------------------------ one profile


def _profile(profile: ReadProfile, known: Patterns) -> Iterator[Mistake]:
    files = [r for r in profile.rules if r.kind == "file" and r.path]
    for rule in profile.rules:
        yield from _rule(rule)
    yield from _exec_conflicts(files, known)
    yield from _missing_map(profile, files, known)
    yield from _duplicates(profile.rules, known)


def _rule(rule: ReadRule) -> Iterator[Mistake]:
    words = " ".join(rule.words)
    if rule.kind == "file" and rule.path:
        yield from _file(rule)
    elif rule.kind == "file" and rule.words not in ((), ("file",)):
        message = f"{words[:60]!r} is no rule."
        yield Mistake(rule.line, "syntax", message, "Write a path and letters such as r, rw, mr.")
    elif rule.kind == "capability":
        yield from _capability(rule)
    elif rule.deny:
        pass
    elif rule.kind == "network" and len(rule.words) == 1:
        message = "allows every kind of network, packets of its own making included."
        yield Mistake(rule.line, "wide-network", message, "Name families and types: `network inet stream,`.")
    elif rule.kind in ("all", "mount", "change_profile", "file") and len(rule.words) <= 1:
        message = f"`{words or rule.kind},` has no limit."
        yield Mistake(rule.line, "wide-rule", message, "Say what exactly is needed; `reconciler apparmor suggest`.")
    if rule.deny and not rule.audit:
        message = f"`deny {words[:60]}` refuses without a log entry, so nobody finds out why something fails."
        yield Mistake(rule.line, "silent-deny", message, "Add `audit`, unless the silence is what it is for.")


def _file(rule: ReadRule) -> Iterator[Mistake]:
    letters = rule.access + rule.exec
    if not is_access(letters):
        message = f"{letters!r} are no permissions."
        yield Mistake(rule.line, "syntax", message, "Use the letters r w a m k l, and ix, Px, Cx or Ux to start it.")
        return
    if "w" in rule.access and "a" in rule.access:
        message = f"{letters!r} holds w and a, which exclude each other."
        yield Mistake(rule.line, "syntax", message, "Keep w, which appends, too; or a, which is less.")
    if rule.exec == "x" and not rule.deny:
        message = f"{rule.path}: x alone does not say under which profile it starts."
        yield Mistake(rule.line, "syntax", message, "Write ix (this one), Px (its own), Cx (a child).")
    if rule.deny:
        return
    if rule.path in _WHOLE:
        message = f"`{rule.path} {letters}` is about every file of the host."
        yield Mistake(rule.line, "wide-file", message, "Name folders; `reconciler apparmor suggest` finds them.")
    elif set(rule.access) & set("wal") and rule.path in _DELICATE and not rule.owner:
        message = f"`{rule.path} {letters}` writes anywhere in there."
        yield Mistake(rule.line, "wide-file", message, "Name the files that it writes.")
    if "u" in rule.exec.lower():
        how = "without any profile"
        if rule.exec[0] == "u" or rule.exec[:2] in ("pu", "cu"):
            how += ", with LD_PRELOAD and the like as its caller wishes"
        message = f"{rule.path} may start {how}: whoever takes over this program is free."
        yield Mistake(
            rule.line, "unconfined-exec", message, "Give it a profile (Px) or a child (Cx), or let it inherit."
        )
    if rule.exec and rule.path in (*_WHOLE, "/{usr/,}bin/**", "/usr/bin/**", "/bin/**", "/usr/bin/*", "/bin/*"):
        message = f"`{rule.path} {letters}` starts any program."
        yield Mistake(rule.line, "wide-exec", message, "Name the programs.")


def _capability(rule: ReadRule) -> Iterator[Mistake]:
    names = rule.words[1:]
    for name in names:
        if name not in CAPABILITIES:
            message = f"there is no capability {name[:40]}."
            yield Mistake(rule.line, "syntax", message, "See capabilities(7); without CAP_, in lower case.")
        elif name in _UNDOING and not rule.deny:
            message = f"capability {name} lets it change the policy that confines it."
            yield Mistake(rule.line, "wide-capability", message, "Leave it out.")
    if not names and not rule.deny:
        yield Mistake(rule.line, "wide-capability", "allows all capabilities.", "Name those that it needs.")


def _exec_conflicts(files: Sequence[ReadRule], known: Patterns) -> Iterator[Mistake]:
    """Rules that start the same path in different ways. A path that is spelled out goes before a pattern."""
    starts = [r for r in files if r.exec and not r.deny]
    for index, rule in enumerate(starts):
        for before in starts[:index]:
            if (before.exec, before.target) == (rule.exec, rule.target) or before.owner != rule.owner:
                continue
            if _is_exact(before.path) != _is_exact(rule.path):
                continue
            if before.path == rule.path or known.overlap(before.path, rule.path):
                message = f"{rule.path} starts with {rule.exec} here, and with {before.exec} in line {before.line}."
                yield Mistake(rule.line, "exec-conflict", message, "Keep one of them.")
                break


def _is_exact(path: str) -> bool:
    """Whether it has neither stars nor question marks: the parser lets such a path go before patterns."""
    return "*" not in path and "?" not in path


def _missing_map(profile: ReadProfile, files: Sequence[ReadRule], known: Patterns) -> Iterator[Mistake]:
    allowed = [r for r in files if not r.deny]
    for rule in allowed:
        if _LIBRARY.search(rule.path) and "r" in rule.access and "m" not in rule.access and not rule.exec:
            if any("m" in r.access and known.covers(r.path, rule.path) for r in allowed):
                continue
            message = f"{rule.path} is a library: to load it, a program maps it as code, too."
            yield Mistake(rule.line, "missing-map", message, "Write mr.")
    program = profile.attachment or (profile.name if profile.name.startswith("/") else "")
    if program and is_literal(program) and not any("m" in r.access and known.matches(r.path, program) for r in allowed):
        message = f"no rule lets {program} map its own program file as code."
        yield Mistake(profile.line, "missing-map", message, f"Add `{program} mr,`.")


def _duplicates(rules: Sequence[ReadRule], known: Patterns) -> Iterator[Mistake]:
    seen: dict[tuple[object, ...], int] = {}
    for rule in rules:
        if rule.kind == "file" and rule.path:
            continue
        key = (rule.kind, rule.words, rule.deny)
        if key in seen:
            message = f"`{' '.join(rule.words)}` stands in line {seen[key]} already."
            yield Mistake(rule.line, "duplicate", message, "Keep one of them.")
        seen.setdefault(key, rule.line)
    files = [r for r in rules if r.kind == "file" and r.path]
    for index, rule in enumerate(files):
        wider = next((o for i, o in enumerate(files) if i != index and _includes_all(o, rule, i < index, known)), None)
        if wider is not None:
            what = "stands" if wider.path == rule.path else f"is part of {wider.path}"
            message = f"`{rule.path} {rule.access}{rule.exec}` {what} in line {wider.line} already."
            yield Mistake(rule.line, "duplicate", message, "Keep the one that says what is needed.")


def _includes_all(wide: ReadRule, narrow: ReadRule, is_before: bool, known: Patterns) -> bool:
    """Whether a rule makes another one needless. Of two that mean the same, the first one stays."""
    if wide.deny != narrow.deny or (wide.owner and not narrow.owner) or wide.audit != narrow.audit:
        return False
    if not set(narrow.access) <= set(wide.access) | ({"a"} if "w" in wide.access else set()):
        return False
    if narrow.exec and (narrow.exec, narrow.target) != (wide.exec, wide.target):
        return False
    if not known.covers(wide.path, narrow.path):
        return False
    same = (
        known.covers(narrow.path, wide.path)
        and set(wide.access) <= set(narrow.access)
        and bool(narrow.exec or not wide.exec)
    )
    same = same and wide.owner == narrow.owner
    return is_before or not same


def by_rule(found: Iterable[Mistake], accepted: Iterable[str]) -> list[Mistake]:
    """Without what a document accepts by name; what the parser refuses cannot be accepted."""
    left_out = set(accepted) - FATAL
    return [one for one in found if one.rule not in left_out]
