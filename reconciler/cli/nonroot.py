"""Find what keeps containers from running without root: nonroot."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reconciler.tools.nonroot.rules import Flaw, Rule
    from reconciler.tools.nonroot.scan import Found, Policy
    from reconciler.tools.nonroot.scan import Result as Scanned
    from reconciler.types.repo.non_root import NonRoot

app = typer.Typer()


class Format(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


class On(StrEnum):
    """Where containers run."""

    DOCKER = "docker"
    KUBERNETES = "kubernetes"
    OPENSHIFT = "openshift"


@app.command()
def nonroot(
    path: Annotated[
        Path | None,
        typer.Argument(help="A folder or one file; by default the policy's folder, or this one.", show_default=False),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Take platforms, exceptions and ranges from a NonRootPolicy's file.")
    ] = None,
    platform: Annotated[
        list[On] | None, typer.Option("--platform", help="Where the containers run; may be repeated. Default: all.")
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            help="Only this image: an OCI layout, an archive of Docker or OCI, or, where skopeo is installed, a "
            "reference such as containers-storage:localhost/web:1. May be repeated.",
        ),
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what is safe to mend; shows a diff and asks.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules, and why they are there.")] = False,
    output: Annotated[Format, typer.Option("--output", help="sarif is what forges read.")] = Format.TEXT,
) -> None:
    """Find what keeps containers from running without root, on Docker, Kubernetes and OpenShift.

    Examines Containerfiles, images, manifests, and Helm charts. Exit status: 0 nothing found, 1 error, 2 findings.
    """
    import json
    from dataclasses import replace
    from datetime import UTC, datetime

    from reconciler.tools.nonroot.scan import scan, wanted
    from reconciler.types.repo.non_root import policy_of

    if rules:
        _list_rules(output)
        return
    spec, folder = _policy(policy)
    chosen = policy_of(spec)
    if platform:
        chosen = replace(chosen, platforms=[p.value for p in On if p in platform])
    root, found = _read(path or folder or Path(), spec, image or [])
    today = datetime.now(UTC).date()

    def examine(now: Found) -> Scanned:
        from reconciler.tools.nonroot import files

        return scan(now, chosen, today, files.scripts(root, wanted(now)))

    if fix:
        found = _fix(root, found, examine, yes=yes, quiet=output is not Format.TEXT)
    result = examine(found)
    match output:
        case Format.TEXT:
            _show(result, chosen)
        case Format.JSON:
            typer.echo(json.dumps(_json(result, chosen), ensure_ascii=False))
        case Format.SARIF:
            typer.echo(json.dumps(_sarif(root, result, chosen), indent=2, ensure_ascii=False))
    raise typer.Exit(2 if result.flaws else 0)


# ------------------------------------------------------------------------------------------------ reading


def _policy(file: Path | None) -> tuple[NonRoot, Path | None]:
    """What the policy of a file asks for, and its folder; the defaults where there is no file."""
    from reconciler.errors import InvalidInput, Problem
    from reconciler.load import load
    from reconciler.registry import Registry
    from reconciler.types.repo.non_root import TYPE, NonRoot

    if file is None:
        return NonRoot(), None
    from reconciler.kinds.non_root_policy import KIND
    from reconciler.load import Loaded
    from reconciler.validate import validate

    loaded = load(file)
    mine = tuple(d for d in loaded.documents if isinstance(d.data, dict) and d.data.get("kind") == KIND.name)
    if len(mine) != 1:
        raise InvalidInput([Problem(f"{file} holds {len(mine)} documents NonRootPolicy.", "Name a file with one.")])
    catalog = validate(Loaded(loaded.root, mine), Registry.of([KIND], [TYPE]))
    (document,) = catalog
    (resource,) = KIND.expand(document, catalog)
    assert KIND.target is not None
    return resource.spec, Path(KIND.target(document).settings["root"])


def _read(path: Path, spec: NonRoot, images: Sequence[str]) -> tuple[Path, Found]:
    from reconciler.errors import InvalidInput, Problem
    from reconciler.tools.nonroot import files
    from reconciler.tools.nonroot.scan import Found

    if images:
        return Path(), Found({}, [one for name in images for one in _image(name)])
    if not path.exists():
        raise InvalidInput([Problem(f"{path} does not exist.", "Name a folder or a file.")])
    try:
        if path.is_dir():
            return path, files.read(path, spec.include, spec.exclude)
        text, why = files.text_of(path)
    except OSError as error:
        raise InvalidInput([Problem(f"{path} cannot be read: {error.strerror}.")]) from None
    if text is None:
        raise InvalidInput([Problem(f"{path}: {why or 'it is a link'}.", "Name a text file.")])
    return path.parent, Found({path.name: text})


def _image(name: str) -> Sequence[Any]:
    from reconciler.errors import InvalidInput, Problem
    from reconciler.tools.nonroot import files
    from reconciler.tools.nonroot.scan import ImageConfig

    if Path(name).exists():
        try:
            return files.image(Path(name))
        except ValueError as error:
            raise InvalidInput([Problem(str(error))]) from None
    import shutil
    import subprocess

    if shutil.which("skopeo") is None:
        message = f"{name} is no file, and to read it from a store skopeo is needed, which is not installed."
        raise InvalidInput([Problem(message, "Save it first: podman save --format oci-archive -o image.tar NAME.")])
    reference = name if ":" in name and not name.startswith("-") else f"containers-storage:{name}"
    done = subprocess.run(
        ["skopeo", "inspect", "--config", "--", reference], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InvalidInput([Problem(f"skopeo cannot read {reference}: {done.stderr.strip()[-300:]}")])
    return [ImageConfig(reference, "", done.stdout)]


# ------------------------------------------------------------------------------------------------ fixing


def _fix(root: Path, found: Found, examine: Callable[[Found], Scanned], *, yes: bool, quiet: bool) -> Found:
    """Show what would be mended, ask, write. Gives the files as they are afterwards."""
    import difflib
    from dataclasses import replace

    from reconciler.render.terminal import clean, is_interactive
    from reconciler.tools.nonroot.mend import mend

    changed: dict[str, str] = {}
    # What decides about other files: charts, and the ranges of namespaces.
    around = {f: t for f, t in found.texts.items() if f.endswith("Chart.yaml") or "openshift.io/sa.scc." in t}
    for file, text in found.texts.items():

        def flaws(now: str, file: str = file) -> Sequence[Flaw]:
            seen = examine(replace(found, texts={**around, file: now}, images=(), unreadable={}))
            return [f for f in seen.flaws if f.file == file]

        after, mended = mend(text, flaws) if flaws(text) else (text, [])
        if mended:
            changed[file] = after
            old, new = text.splitlines(keepends=True), after.splitlines(keepends=True)
            for line in difflib.unified_diff(old, new, file, file):
                typer.echo(clean(line.rstrip("\n")), err=quiet)
    if not changed:
        typer.echo("Nothing here can be mended without a person.", err=True)
        return found
    if not yes:
        if quiet or not is_interactive():
            typer.echo("Nobody is here to confirm. Use --yes.", err=True)
            raise typer.Exit(1)
        typer.confirm(f"Write {len(changed)} {'file' if len(changed) == 1 else 'files'}?", abort=True)
    for file, text in changed.items():
        _write(root / file, found.texts[file], text)
    return replace(found, texts={**found.texts, **changed})


def _write(path: Path, before: str, text: str) -> None:
    """Replace a file by another one with its mode, unless somebody changed it meanwhile."""
    import os
    import tempfile

    from reconciler.errors import InvalidInput, Problem
    from reconciler.tools.nonroot.files import text_of

    if text_of(path)[0] != before:
        raise InvalidInput([Problem(f"{path} changed meanwhile.", "Start again.")])
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(text.encode())
            os.fchmod(out.fileno(), path.stat().st_mode & 0o7777)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise InvalidInput([Problem(f"{path} cannot be written: {error.strerror}.")]) from None


# ------------------------------------------------------------------------------------------------ showing


def _show(result: Scanned, policy: Policy) -> None:
    from rich.text import Text

    from reconciler.render.terminal import clean, console, many, show

    out = console()
    file = ""
    for flaw in result.flaws:
        if flaw.file != file:
            file = flaw.file
            show(Text(clean(file), style="bold"), out)
        style = "red" if flaw.level == "error" else "yellow"
        show(Text(f"  {flaw.line}: {flaw.level}: {flaw.rule}: {clean(flaw.message)}", style=style), out)
        for reason in flaw.reasons(policy.platforms):
            show(Text(f"      {clean(reason)}"), out)
        show(Text(f"      Fix: {clean(flaw.mended)}", style="dim"), out)
    errors = sum(f.level == "error" for f in result.flaws)
    counts = f"{many(errors, 'error')}, {many(len(result.flaws) - errors, 'warning')}"
    accepted = f", {len(result.accepted)} accepted" if result.accepted else ""
    show(Text(f"{many(result.examined, 'file')} examined: {counts}{accepted}.", style="bold"), out)


def _json(result: Scanned, policy: Policy) -> dict[str, Any]:
    return {
        "version": 1,
        "examined": result.examined,
        "findings": [_flaw_json(f, policy) for f in result.flaws],
        "accepted": [
            {**_flaw_json(f, policy), "reason": e.reason, "expires": e.expires.isoformat()} for f, e in result.accepted
        ],
    }


def _flaw_json(flaw: Flaw, policy: Policy) -> dict[str, Any]:
    from reconciler.tools.nonroot.rules import RULES

    return {
        "rule": flaw.rule,
        "severity": flaw.level,
        "file": flaw.file,
        "line": flaw.line,
        "subject": flaw.subject,
        "message": flaw.message,
        "why": {p: RULES[flaw.rule].why[p] for p in flaw.matters_on(policy.platforms)},
        "fix": flaw.mended,
        "fixable": bool(flaw.edits),
    }


def _sarif(root: Path, result: Scanned, policy: Policy) -> dict[str, Any]:
    import os

    from reconciler.connections.repository import working_tree
    from reconciler.render.sarif import Result, RuleText, sarif
    from reconciler.tools.nonroot.rules import NAMES, RULES

    # Forges want paths from the root of the repository.
    here = root.resolve()
    top = working_tree(here) or here

    def one(flaw: Flaw, accepted: str = "") -> Result:
        text = f"{flaw.message}. {' '.join(flaw.reasons(policy.platforms))} {flaw.mended}"
        whole = os.path.normpath(here / flaw.file)
        file = os.path.relpath(whole, top)
        file = whole if file.startswith("..") else file
        return Result(flaw.rule, flaw.level, text, file, flaw.line, flaw.subject, accepted)

    rules = []
    for rule in RULES.values():
        why = [f"{NAMES[p]}: {text}" for p, text in rule.why.items()]
        markdown = "\n".join([f"**{rule.title}.**", "", *(f"- {line}" for line in why), "", rule.fix])
        text = f"{rule.title}. {' '.join(why)} {rule.fix}"
        rules.append(RuleText(rule.id, rule.title, text, markdown, rule.severity, ["security", *rule.why]))
    accepted = [one(f, f"{e.reason} (until {e.expires.isoformat()})") for f, e in result.accepted]
    return sarif(rules, [*(one(f) for f in result.flaws), *accepted])


def _why(rule: Rule) -> dict[str, str]:
    return {platform: text for platform, text in rule.why.items()}  # noqa: C416 - the keys are plain text in JSON


def _list_rules(output: Format) -> None:
    import json

    from reconciler.tools.nonroot.rules import NAMES, RULES

    if output is Format.JSON:
        listed = [
            {"id": r.id, "severity": r.severity, "title": r.title, "why": _why(r), "fix": r.fix} for r in RULES.values()
        ]
        typer.echo(json.dumps({"version": 1, "rules": listed}, ensure_ascii=False))
        return
    for rule in RULES.values():
        typer.echo(f"{rule.id} ({rule.severity}): {rule.title}.")
        for platform, text in rule.why.items():
            typer.echo(f"    {NAMES[platform]}: {text}")
