"""AppArmor by hand: apparmor suggest, lint, render."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption, StateOption, project

if TYPE_CHECKING:
    from reconciler.expand import Catalog
    from reconciler.model import Document
    from reconciler.tools.apparmor.records import Access
    from reconciler.tools.apparmor.suggest import Suggestion

app = typer.Typer()
apparmor = typer.Typer(
    help="Turn what AppArmor logged into rules, find mistakes in profiles, print the text of a document.",
    no_args_is_help=True,
)
app.add_typer(apparmor, name="apparmor")

PathOption = Annotated[Path, typer.Option("--path", help="The folder (or one file) of the desired state.")]


@apparmor.command()
def suggest(
    document: Annotated[
        str | None, typer.Argument(metavar="[DOCUMENT]", help="Name of an AppArmorProfile; all of them by default.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Only the log of this host.")] = None,
    log: Annotated[
        str | None,
        typer.Option("--log", metavar="FILE", help="Read this log (- for standard input), and ask no host."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="A profile without a document, by the kernel's name; needs --log.")
    ] = None,
    path: PathOption = DESIRED,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Propose rules for what was logged and is not allowed: ALLOWED in complain mode, DENIED otherwise.

    Prints only what is new, as YAML to be put into the document. Abstractions are preferred to single files; process
    ids, versions and random names become patterns. Read each line before you take it: a log also holds what an
    intruder tried. Exit status 2 if there is something new.
    """
    import json

    from reconciler.errors import InvalidInput, Problem
    from reconciler.tools.apparmor.records import accesses

    if profile is not None and log is None:
        raise InvalidInput([Problem("--profile needs --log.", "Name a document, or a log to read.")])
    found: list[tuple[str, Suggestion]] = []
    if profile is not None and log is not None:
        from reconciler.tools.apparmor.suggest import suggest as propose

        found = [("", propose(list(accesses(_lines(log))), profile))]
    else:
        here = project(path, state)
        catalog = here.validate()
        chosen = _documents(catalog, document)
        if log is not None:
            records = list(accesses(_lines(log)))
            heard: Mapping[str, list[Access]] = {d.address: records for d in chosen}
        else:
            heard = _heard(here, catalog, chosen, host)
        for one in chosen:
            found += [(one.address, s) for s in _suggestions(one, catalog, heard.get(one.address, []))]
    if output is Output.JSON:
        typer.echo(json.dumps({"version": 1, "suggestions": [_as_json(a, s) for a, s in found]}, ensure_ascii=False))
    else:
        for address, suggestion in found:
            _show(address, suggestion)
        if not found:
            typer.echo("No AppArmorProfile documents.")
    raise typer.Exit(2 if any(s.proposals for _, s in found) else 0)


@apparmor.command()
def lint(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Texts of profiles; without any, the documents of the desired state."),
    ] = None,
    path: PathOption = DESIRED,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Find what is wrong with profiles: mistakes that the parser refuses, with their line, and what it is silent about.

    Also shows what documents `accept`. Exit status 1 if there is anything.
    """
    import json

    from reconciler.errors import InvalidInput, Position, Problem
    from reconciler.tools.apparmor.lint import lint as examine

    problems: list[tuple[str, Problem]] = []
    for file in files or ():
        try:
            text = file.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput([Problem(f"{file} cannot be read: {error}", "Name a text of a profile.")]) from None
        for one in examine(text):
            problem = Problem(f"{one.rule}: {one.message}", one.fix, "", Position(str(file), one.line))
            problems.append((one.rule, problem))
    if not files:
        from reconciler.kinds.apparmor_profile import compose

        catalog = project(path, state).validate()
        for document in _documents(catalog, None):
            found = compose(document, catalog)
            for one in examine(found.text):
                place = found.line(one.line, document, catalog)
                accepted = " It is accepted." if one.rule in document.spec.accept else ""
                message = f"{one.rule}: {one.message}{accepted}"
                problems.append((one.rule, Problem(message, one.fix, document.address, place)))
    if output is Output.JSON:
        shown = [{"rule": rule, **p.to_json()} for rule, p in problems]
        typer.echo(json.dumps({"version": 1, "problems": shown}, ensure_ascii=False))
    else:
        for _, problem in problems:
            typer.echo(_clean(str(problem)))
        if not problems:
            typer.echo("Nothing is wrong.")
    raise typer.Exit(1 if problems else 0)


@apparmor.command()
def render(
    document: Annotated[str, typer.Argument(metavar="DOCUMENT", help="Name of an AppArmorProfile.")],
    path: PathOption = DESIRED,
    state: StateOption = None,
) -> None:
    """Print the text of a profile as it would be written to the host."""
    from reconciler.kinds.apparmor_profile import compose

    catalog = project(path, state).validate()
    (one,) = _documents(catalog, document)
    typer.echo(compose(one, catalog).text, nl=False)


# ------------------------------------------------------------------------------------------------ parts


def _documents(catalog: Catalog, name: str | None) -> list[Document[Any]]:
    """The documents that are meant.

    Raises:
        PlanError: there is none of that name.
    """
    from reconciler.errors import PlanError

    every = [d for d in catalog if d.kind == "AppArmorProfile" and d.spec.ensure == "present"]
    found = [d for d in every if name in (None, d.name)]
    if name is not None and not found:
        known = ", ".join(d.name for d in every) or "none"
        raise PlanError(f"There is no AppArmorProfile/{name}. There are: {known}.")
    return found


def _lines(log: str) -> Iterable[str]:
    import sys

    from reconciler.errors import InvalidInput, Problem

    try:
        raw = sys.stdin.buffer.read() if log == "-" else Path(log).read_bytes()
    except OSError as error:
        problem = Problem(f"{log} cannot be read: {error.strerror}.", "Name a log, or - for standard input.")
        raise InvalidInput([problem]) from None
    return raw.decode("utf-8", "surrogateescape").split("\n")


def _heard(
    here: Any, catalog: Catalog, chosen: Sequence[Document[Any]], only: str | None
) -> Mapping[str, list[Access]]:
    """By document, the records of its hosts; each host is asked once, on a connection that cannot write."""
    from reconciler.errors import PlanError
    from reconciler.probe import expect
    from reconciler.tools.apparmor.records import accesses
    from reconciler.types.host.apparmor_host import RECORDS_READ

    hosts = {d.address: [h for h in catalog.hosts(d.spec.hosts) if only in (None, h)] for d in chosen}
    wanted = sorted({h for found in hosts.values() for h in found})
    if only is not None and not wanted:
        raise PlanError(f"No such profile is on {only}. See `reconciler plan --target target={only}`.")
    by_host: dict[str, list[Access]] = {}
    with here.pool(here.desired(catalog).targets, read_only=True) as pool:
        for name in wanted:
            (reply,) = pool.get(name).read([RECORDS_READ])
            by_host[name] = list(accesses(expect(reply, f"the log of {name}").split("\n")))
    return {address: [a for h in found for a in by_host[h]] for address, found in hosts.items()}


def _suggestions(document: Document[Any], catalog: Catalog, records: Sequence[Access]) -> list[Suggestion]:
    """One for each profile of a document."""
    from reconciler.kinds.apparmor_profile import compose
    from reconciler.tools.apparmor.reading import read
    from reconciler.tools.apparmor.suggest import suggest as propose

    existing = read(compose(document, catalog).text)
    return [propose(records, one.full_name, existing) for one in existing.profiles]


def _as_json(address: str, suggestion: Suggestion) -> dict[str, Any]:
    proposals = [
        {
            "section": p.section,
            "value": p.value,
            "count": p.count,
            "example": p.example,
            "denied": p.denied,
            "instead": p.instead,
        }
        for p in suggestion.proposals
    ]
    return {
        "document": address,
        "profile": suggestion.profile,
        "records": suggestion.records,
        "covered": suggestion.covered,
        "unclear": suggestion.unclear,
        "proposals": proposals,
    }


def _show(address: str, suggestion: Suggestion) -> None:
    """As YAML, so that all of it can be pasted; what is no rule is a comment."""
    title = f"{address}, profile {suggestion.profile}" if address else f"profile {suggestion.profile}"
    amount = f"{suggestion.records} records, {suggestion.covered} of them need nothing new"
    typer.echo(_clean(f"# {title}: {amount}."))
    for text in dict.fromkeys(suggestion.unclear):
        typer.echo(_clean(f"# No rule comes of this: {' '.join(text.split())}"))
    if not suggestion.proposals:
        typer.echo("# Nothing new.")
        return
    below = suggestion.profile.split("//")[1:]
    lines = ["spec:"]
    if below:
        lines += ["  children:", f"    {below[-1]}:"]
    indent = "  " * len(lines)
    section = ""
    for one in suggestion.proposals:
        if one.section != section:
            section = one.section
            lines.append(f"{indent}{section}:")
        note = f"{one.count}x, {' '.join(one.example.split())}" + (
            f"; in place of {one.instead}" if one.instead else ""
        )
        lines.append(f"{indent}  # {note}")
        lines.append(f"{indent}  - {_flow(one.value)}")
    typer.echo(_clean("\n".join(lines)))


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    import json
    import re

    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z/][A-Za-z0-9/._*+-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _clean(text: str) -> str:
    from reconciler.render.terminal import clean

    return clean(text)
