"""AppArmorProfile: what a program may do, as the kernel enforces it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from reconciler.errors import InvalidInput, Position, Problem
from reconciler.expand import Catalog
from reconciler.fields import Duration, HostSelector, LocalPath, UnitName, seconds
from reconciler.model import Document, Kind, Resource
from reconciler.tools.apparmor import file_name
from reconciler.tools.apparmor.globs import TUNABLES, values
from reconciler.tools.apparmor.lint import FATAL, Mistake, by_rule, lint
from reconciler.tools.apparmor.reading import ReadText, read
from reconciler.tools.apparmor.render import Path, profile
from reconciler.tools.apparmor.render import text as as_text
from reconciler.tools.apparmor.rules import PathPattern, ProfileBody, ProfileName
from reconciler.types.host.apparmor_health import TYPE as host_health
from reconciler.types.host.apparmor_host import FOLDER, ProfileFile, as_lines
from reconciler.types.host.apparmor_profile import TYPE as host_profile
from reconciler.types.host.apparmor_syntax import TYPE as host_syntax

Accepted = Literal[
    "include-in-comment",
    "wide-file",
    "wide-capability",
    "wide-network",
    "wide-rule",
    "unconfined-exec",
    "wide-exec",
    "missing-map",
    "duplicate",
    "silent-deny",
]
OF_PROFILE = frozenset(ProfileBody.model_fields)
"""Fields that say what stands in the text."""
SHORTEST = 60
"""Seconds of a soak."""


class AppArmorProfileSpec(ProfileBody):
    """An AppArmor profile on hosts: what a program may do, and all else is refused.

    Written from its rules as a person would write it, or given as `text` or `source`. The host's own apparmor_parser
    reads it before it lands; if that says no, nothing is written. Mistakes that the parser is silent about are found
    by `validate`.

    In `complain` mode what is not allowed happens, and is logged. With `soak: 3d` a profile complains first, and is
    enforced as soon as the log has held no new access for three days; `reconciler apparmor suggest` turns those
    accesses into rules. Loading a profile does not confine what runs already: `plan` names such processes, and units
    under `restart` are restarted for it.

    Example:

        apiVersion: reconciler/v1
        kind: AppArmorProfile
        metadata:
          name: report
        spec:
          hosts: [web1]
          program: /usr/local/bin/report
          soak: 3d
          includes: [abstractions/base]
          network:
            - {family: inet, type: stream}
          files:
            - {path: /usr/local/bin/report, access: mr}
            - {path: /var/lib/report/**, access: rw, owner: true}
          exec:
            - {path: /usr/bin/gzip, to: inherit, access: mr}
    """

    hosts: HostSelector
    program: PathPattern | None = Field(None, description="The program that it is for; a pattern will do.")
    profile: ProfileName | None = Field(None, description="Name of the profile; the program by default.")
    file: ProfileFile | None = Field(
        None,
        description="Its file in /etc/apparmor.d; by default the program's path without the first slash, slashes as "
        "dots.",
    )
    text: str | None = Field(None, min_length=1, description="The whole text, in place of rules.")
    source: LocalPath | None = Field(None, description="A file of this repo with the text, relative to the document.")
    mode: Literal["enforce", "complain"] = Field("enforce", description="`complain` only logs what it would refuse.")
    soak: Duration | None = Field(
        None, description="Complain first; enforce when the log has held no new access for so long, such as 3d."
    )
    restart: tuple[UnitName, ...] = Field(
        (), description="Units to restart where a process of the program runs without the profile."
    )
    accept: tuple[Accepted, ...] = Field((), description="Findings of the lint that are meant so, by name.")
    ensure: Literal["present", "absent"] = Field("present", description="`absent` unloads and removes it.")


@dataclass(frozen=True)
class Composition:
    """The text of a profile, and where its lines come from.

    Attributes:
        paths: for rules: the place in the spec of each line.
        source: the file that holds the text, and the line there before its first one; for texts.
    """

    text: str
    paths: Sequence[Path] = ()
    source: tuple[str, int] | None = None

    def line(self, number: int, document: Document[Any], catalog: Catalog) -> Position:
        """Where a line of the text (from 1) comes from."""
        if self.source is not None:
            file, before = self.source
            return Position(file, before + number, 1) if before >= 0 else catalog.position(document, "spec", "text")
        path = self.paths[number - 1] if number <= len(self.paths) else ()
        return catalog.position(document, "spec", *path)

    def lines(self, document: Document[Any], catalog: Catalog) -> str:
        """Where all lines come from, as the types take it."""
        count = self.text.count("\n")
        places = [self.line(n, document, catalog) for n in range(1, count + 1)]
        return as_lines(places[0].file if places else document.position.file, [p.line for p in places])


def compose(document: Document[AppArmorProfileSpec], catalog: Catalog) -> Composition:
    """The text that a document means.

    Raises:
        InvalidInput: its source cannot be read.
    """
    spec = document.spec
    if spec.source is not None:
        content = catalog.source(document, ("spec", "source"), spec.source)
        folder = document.position.file.rpartition("/")[0]
        return Composition(
            _ended(content), source=(f"{folder}/{spec.source}".lstrip("/") if folder else spec.source, 0)
        )
    if spec.text is not None:
        start = catalog.position(document, "spec", "text")
        # Of a block of text, the lines of the file are the lines of the text.
        is_block = catalog.written(document, "spec", "text").startswith("|")
        return Composition(_ended(spec.text), source=(start.file, start.line if is_block else -1))
    program = spec.program or ""
    name = spec.profile or program or document.name
    header = [f"Managed by reconciler: AppArmorProfile/{document.name}. Edits of this file are undone."]
    lines = profile(spec, name, program, path_of(spec, document.name), header)
    return Composition(as_text(lines), [line.path for line in lines])


def _ended(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def path_of(spec: AppArmorProfileSpec, name: str, content: ReadText | None = None) -> str:
    """The name of the file in /etc/apparmor.d."""
    if spec.file:
        return spec.file
    first = spec.program or spec.profile or ""
    if content is not None and content.profiles:
        top = content.profiles[0]
        first = top.attachment or top.name
    found = file_name(first)
    plain = "".join(c if c.isalnum() or c in "._+-" else "_" for c in found).lstrip(".")
    return plain if plain and "@" not in found and "{" not in found and "*" not in found else name


def expand(document: Document[AppArmorProfileSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The file, whether the parser takes it, and whether it does what it is for; on every selected host."""
    spec = document.spec
    found = compose(document, catalog)
    content = read(found.text)
    name = path_of(spec, document.name, content if spec.text is not None or spec.source is not None else None)
    hosts = catalog.hosts(spec.hosts)
    if spec.ensure == "absent":
        yield from (host_profile(host, name=name, absent=True) for host in hosts)
        return
    names = tuple(dict.fromkeys(p.full_name for p in content.profiles if not any(c.isspace() for c in p.full_name)))
    known = {**TUNABLES, **content.variables}
    attached = [p.attachment or (p.name if p.name.startswith("/") else "") for p in content.profiles if not p.parent]
    programs = tuple(dict.fromkeys(v for one in attached if one for v in values(one, known)))
    ours = [i.name for i in content.includes if i.name != "tunables/global"]
    ours += [i.name for p in content.profiles for i in p.includes if not i.name.startswith("abstractions/")]
    lines = found.lines(document, catalog)
    soak: dict[str, Any] = {"soak": seconds(spec.soak)} if spec.soak else {}
    extra: dict[str, Any] = {}
    if spec.restart:
        extra |= {"restart": spec.restart, "confined": True}
    if ours:
        extra["after"] = tuple(dict.fromkeys(f"path:{FOLDER}/{one}" for one in ours))
    for host in hosts:
        yield host_profile(
            host,
            name=name,
            text=found.text,
            mode=spec.mode,
            loaded=True,
            profiles=names,
            programs=programs,
            lines=lines,
            **soak,
            **extra,
        )
        yield host_syntax(host, name=name, text=found.text, lines=lines)
        yield host_health(
            host,
            name=name,
            profiles=names,
            programs=programs,
            document=document.name,
            **soak,
        )


# ------------------------------------------------------------------------------------------------ checks


def check(document: Document[AppArmorProfileSpec], catalog: Catalog) -> Iterable[Problem]:
    """Contradictions, and what the lint finds, at the line of the document."""
    spec = document.spec
    given = spec.model_fields_set

    def problem(field: str, message: str, fix: str) -> Problem:
        return catalog.problem(document, ("spec", field), message, fix)

    if spec.ensure == "absent":
        if not (spec.file or spec.program or spec.text or spec.source or spec.profile):
            yield problem("ensure", "does not say which profile.", "Name its `program` or its `file`.")
        return
    texts = [name for name in ("text", "source") if getattr(spec, name) is not None]
    if len(texts) > 1:
        yield problem("source", "spec has text and source, which exclude each other.", "Keep one of them.")
        return
    if texts:
        for name in sorted(given & (OF_PROFILE | {"program", "profile"})):
            yield problem(name, f"spec.{name} says nothing beside `{texts[0]}`.", f"Write it in the {texts[0]}.")
    elif spec.program is None and spec.profile is None:
        yield problem("program", "spec does not say what the profile is for.", "Add `program`, or a name as `profile`.")
        return
    if spec.soak and spec.mode == "complain":
        yield problem("soak", "spec.soak ends in enforcing, and mode is complain.", "Leave out one of them.")
    if spec.soak and seconds(spec.soak) < SHORTEST:
        yield problem("soak", f"a soak of {spec.soak} proves nothing.", "Let it last at least 1min; days are usual.")
    yield from _children(document, catalog)
    try:
        found = compose(document, catalog)
    except InvalidInput as error:
        yield from error.problems
        return
    for top in read(found.text).profiles:
        if spec.mode == "enforce" and "complain" in top.flags:
            message = f"the profile {top.full_name} complains by a flag, whatever the mode is."
            fix = "Take the flag out, and write `mode: complain` or `soak` if it shall complain."
            yield Problem(message, fix, document.address, found.line(top.line, document, catalog))
    everything = lint(found.text)
    for index, name in enumerate(spec.accept):
        if all(one.rule != name for one in everything):
            path = ("spec", "accept", index)
            yield catalog.problem(document, path, f"spec.accept[{index}]: there is no {name}.", "Take it out.")
    for one in by_rule(everything, spec.accept):
        yield _problem(one, found, document, catalog)


def _problem(one: Mistake, found: Composition, document: Document[Any], catalog: Catalog) -> Problem:
    fix = one.fix if one.rule in FATAL else f"{one.fix} If it is meant so: `accept: [{one.rule}]`."

    def line(match: re.Match[str]) -> str:
        return f"in line {found.line(int(match[1]), document, catalog).line}"

    message = re.sub(r"\bin line (\d+)", line, one.message)
    return Problem(f"{one.rule}: {message}", fix, document.address, found.line(one.line, document, catalog))


def _children(document: Document[AppArmorProfileSpec], catalog: Catalog) -> Iterator[Problem]:
    """Programs that start under a child that there is not."""
    spec = document.spec
    for index, rule in enumerate(spec.exec):
        if rule.to == "child" and rule.fallback is None:
            for path in [rule.name] if rule.name else rule.all_paths:
                if path not in spec.children:
                    place = ("spec", "exec", index)
                    message = (
                        f"spec.exec[{index}] starts {rule.all_paths[0]} under the child {path}, which there is not."
                    )
                    fix = "Describe it under `children`" + (", and name it: `name: CHILD`." if not rule.name else ".")
                    yield catalog.problem(document, place, message, fix)


KIND = Kind("AppArmorProfile", AppArmorProfileSpec, expand, check)
