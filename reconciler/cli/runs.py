"""Commands that look at live systems and change them: plan, apply, drift, resume, show, history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconciler.cli.options import (
    DESIRED,
    ExcludeOption,
    ForceOption,
    ImagesOption,
    Output,
    OutputOption,
    ParallelOption,
    PathArgument,
    StateOption,
    TargetOption,
    project,
)

if TYPE_CHECKING:
    from reconciler.apply import Result
    from reconciler.plan import Plan
    from reconciler.project import Project

app = typer.Typer()

PARALLEL = 20


@app.command()
def plan(
    path: PathArgument = DESIRED,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the plan to a file for `apply`.")] = None,
    target: TargetOption = None,
    exclude: ExcludeOption = None,
    force: ForceOption = False,
    parallel: ParallelOption = PARALLEL,
    state: StateOption = None,
    images: ImagesOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what `apply` would do. Changes nothing. Exit status 2 if there are changes."""
    here = project(path, state, images, parallel=parallel)
    with _watched(here, output):
        made = here.plan(_scope(target, exclude), force=force)
    if out is not None:
        _write(out, made)
    _show_plan(here, made, output)
    _warn_unfinished(here, output)
    raise typer.Exit(2 if made.changes else 1 if made.unknown else 0)


@app.command()
def apply(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH|PLAN.json]", help="The desired state, or a plan file of `plan -o`.")
    ] = DESIRED,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    target: TargetOption = None,
    exclude: ExcludeOption = None,
    force: ForceOption = False,
    parallel: ParallelOption = PARALLEL,
    state: StateOption = None,
    images: ImagesOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make the live systems as desired: plan, ask, then change; or carry out a reviewed plan file."""
    from reconciler.render.terminal import console, is_interactive

    planned = path.is_file() and path.suffix == ".json"
    if planned:
        _refuse_to_reshape({"--target": target, "--exclude": exclude, "--force": force, "--images": images})
    here = project(_source_of(path) if planned else path, state, images, parallel=parallel)
    with here.pool() as pool:
        with _watched(here, output):
            made = _read(path, here) if planned else here.plan(_scope(target, exclude), force=force, pool=pool)
        pool.targets = made.targets
        if not planned or not yes or not made.changes:
            _show_plan(here, made, output, event="plan")
        _warn_unfinished(here, output)
        if made.empty and not made.adopt and not made.release:
            raise typer.Exit(1 if made.unknown else 0)
        if made.changes and not yes:
            if output is Output.JSON or not is_interactive():
                typer.echo(
                    "Nobody is here to confirm. Use --yes, or `plan -o plan.json` and `apply plan.json --yes`.",
                    err=True,
                )
                raise typer.Exit(1)
            typer.confirm("Apply this plan?", abort=True)
        with _stoppable(here, output) as means:
            result = here.apply(made, pool, **means)
    if made.changes:
        _show_result(result, output, console())
    raise typer.Exit(0 if result.ok and not result.unknown else 1)


@app.command()
def drift(
    path: PathArgument = DESIRED,
    target: TargetOption = None,
    exclude: ExcludeOption = None,
    parallel: ParallelOption = PARALLEL,
    state: StateOption = None,
    images: ImagesOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Report what changed behind our back, and what audits find. Cannot change anything. Exit status 2 on drift."""
    here = project(path, state, images, parallel=parallel)
    with _watched(here, output):
        made = here.plan(_scope(target, exclude), refuse=False)
    _show_plan(here, made, output, event="drift")
    raise typer.Exit(2 if made.changes or made.findings else 1 if made.unknown else 0)


@app.command()
def resume(
    run: Annotated[
        str | None, typer.Argument(help="The run, or how its id begins; the newest unfinished by default.")
    ] = None,
    path: Annotated[Path, typer.Option("--path", help="The desired state, to find the state folder.")] = DESIRED,
    parallel: ParallelOption = PARALLEL,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Finish a run that was killed: look at what it had begun, then go on."""
    from reconciler.journal import find_run
    from reconciler.render.terminal import console

    here = project(path, state, parallel=parallel)
    record = find_run(here.store, run, unfinished=run is None)
    with _stoppable(here, output) as means:
        result = here.resume(record, **means)
    _show_result(result, output, console())
    raise typer.Exit(0 if result.ok and not result.unknown else 1)


@app.command()
def show(
    run: Annotated[str | None, typer.Argument(help="The run, or how its id begins; the newest by default.")] = None,
    path: Annotated[Path, typer.Option("--path", help="The desired state, to find the state folder.")] = DESIRED,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show a run: its plan, and how each change ended. A plan file can be shown, too."""
    import json

    from reconciler import journal
    from reconciler.apply import Ended
    from reconciler.model import Outcome
    from reconciler.planfile import from_text
    from reconciler.render.terminal import console, show_ended, show_plan

    here = project(path, state)
    if run and run.endswith(".json"):
        _show_plan(here, _read(Path(run), here), output)
        return
    record = journal.find_run(here.store, run)
    lines = journal.records(here.store, record.id)
    if output is Output.JSON:
        typer.echo(
            json.dumps(
                {
                    "version": 1,
                    "run": record.id,
                    "started": record.started,
                    "ended": record.ended,
                    "status": record.status,
                    "plan": json.loads(record.plan),
                    "journal": [{"at": r.at, "event": r.event, "address": r.address, **r.body} for r in lines],
                }
            )
        )
        return
    out = console()
    out.print(f"Run {record.id} ({record.command}), {record.started}, {record.status}", style="bold")
    show_plan(from_text(record.plan, here.registry, resume=True), here.registry, out)
    show_ended(
        ((r.address or "", Ended(Outcome(r.body["outcome"]), r.body["reason"])) for r in lines if r.event == "end"), out
    )
    if record.ended is None:
        out.print("It did not come to its end. `reconciler resume` finishes it.", style="magenta")


@app.command()
def history(
    path: Annotated[Path, typer.Option("--path", help="The desired state, to find the state folder.")] = DESIRED,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many runs.")] = 20,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the runs, newest first."""
    import json

    from reconciler.journal import runs

    found = runs(project(path, state).store)[:limit]
    if output is Output.JSON:
        fields = ("id", "started", "ended", "command", "status", "summary")
        typer.echo(json.dumps({"version": 1, "runs": [{f: getattr(r, f) for f in fields} for r in found]}))
        return
    for record in found:
        status = record.status if record.ended else "unfinished"
        typer.echo(
            f"{record.id}  {record.started[:19]}  {record.command:<8} {status:<10} {record.summary or ''}".rstrip()
        )
    if not found:
        typer.echo("No runs yet.")


@app.command()
def inventory(path: PathArgument = DESIRED, state: StateOption = None, output: OutputOption = Output.TEXT) -> None:
    """List what is ours: objects that were created or taken over, and that prune may therefore delete."""
    import json

    from reconciler.inventory import load
    from reconciler.render.terminal import console, show_inventory

    entries = load(project(path, state).store).values()
    if output is Output.JSON:
        fields = ("address", "origin", "created", "run", "at")
        typer.echo(json.dumps({"version": 1, "objects": [{f: getattr(e, f) for f in fields} for e in entries]}))
        return
    show_inventory(entries, console())


# ------------------------------------------------------------------------------------------------ parts


def _scope(targets: list[str] | None, excludes: list[str] | None) -> Any:
    from reconciler.plan import Scope

    return Scope(tuple(targets or ()), tuple(excludes or ())) if targets or excludes else None


def _write(file: Path, made: Plan) -> None:
    """Atomically, and readable for the owner only: a plan shows what stands on hosts."""
    import os

    from reconciler.errors import PlanError
    from reconciler.planfile import to_text

    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(to_text(made))
        temporary.replace(file)
    except OSError as error:
        raise PlanError(f"{file} cannot be written: {error.strerror}.") from None


def _read(file: Path, here: Project) -> Plan:
    from reconciler.errors import PlanError, PlanTampered
    from reconciler.planfile import MAX_FILE_BYTES, from_text

    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise PlanTampered(f"{file} is too large for a plan file.")
        text = file.read_bytes().decode()
    except OSError as error:
        raise PlanError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise PlanTampered(f"{file} is not a plan file.") from None
    return from_text(text, here.registry)


def _refuse_to_reshape(options: Mapping[str, object]) -> None:
    """A plan file says what will be done where. Who narrows it down here, or turns it to images, must not be ignored.

    Raises:
        PlanError: one of the options is given.
    """
    from reconciler.errors import PlanError

    for name, value in options.items():
        if value:
            raise PlanError(f"{name} does not go with a plan file. Give it to `plan -o` instead.")


def _source_of(file: Path) -> Path:
    """The desired state that a plan file was made from, so that its state folder is found."""
    import json

    try:
        source = json.loads(file.read_bytes()).get("source")
    except (OSError, ValueError, AttributeError, RecursionError):
        return DESIRED
    return Path(source) if isinstance(source, str) else DESIRED


@contextmanager
def _watched(here: Project, output: Output) -> Iterator[None]:
    """Progress while targets are looked at; nothing where a program reads the output."""
    if output is Output.JSON:
        yield
        return
    from reconciler.apply import silent
    from reconciler.render.terminal import Live, console

    live = Live(console())
    here.emit = live
    try:
        with live.running():
            yield
    finally:
        here.emit = silent


@contextmanager
def _stoppable(here: Project, output: Output) -> Iterator[dict[str, Any]]:
    """Progress while changes are made. The first Ctrl-C lets what has begun come to its end."""
    import signal
    import threading

    from reconciler.render.lines import JsonLines
    from reconciler.render.terminal import Live, console

    stop = threading.Event()

    def interrupted(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        typer.echo("\nStopping after what has begun. `reconciler resume` goes on. Once more to stop at once.", err=True)

    previous = {number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if output is Output.JSON:
            here.emit = JsonLines()
            yield {"stop": stop}
        else:
            live = Live(console())
            here.emit = live
            with live.running():
                yield {"stop": stop}
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _show_plan(here: Project, made: Plan, output: Output, *, event: str = "") -> None:
    """For programs: the plan file itself, or, with an event's name, a line of an event stream."""
    if output is Output.JSON:
        from reconciler.planfile import to_json, to_text

        if event:
            from reconciler.render.lines import JsonLines

            JsonLines()(event, plan=to_json(made))
        else:
            typer.echo(to_text(made), nl=False)
        return
    from reconciler.render.terminal import console, show_plan

    show_plan(made, here.registry, console(), drift=event == "drift")


def _show_result(result: Result, output: Output, out: Any) -> None:
    if output is Output.JSON:
        from reconciler.planfile import finding_json
        from reconciler.render.lines import JsonLines

        JsonLines()(
            "result",
            run=result.run,
            ok=result.ok and not result.unknown,
            changes=[
                {"address": a, "outcome": e.outcome.value, "reason": e.reason} for a, e in sorted(result.ended.items())
            ],
            unknown=result.unknown,
            findings=[finding_json(f) for f in result.findings],
        )
        return
    from reconciler.render.terminal import show_result

    show_result(result, out)


def _warn_unfinished(here: Project, output: Output) -> None:
    from reconciler.journal import runs
    from reconciler.lease import held

    alive = {lease.run for lease in held(here.store) if not lease.orphaned}
    for record in runs(here.store):
        if record.ended is None and record.id not in alive:
            typer.echo(f"Run {record.id} was killed before its end. `reconciler resume` finishes it.", err=True)
            return
