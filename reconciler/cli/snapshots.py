"""Snapshots by hand: snapshots list, restore, drill, lock, unlock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption, StateOption, project

if TYPE_CHECKING:
    from reconciler.project import Project
    from reconciler.tools.snapshots.session import Place, Session

app = typer.Typer()
snapshots = typer.Typer(
    help="List the snapshots of SnapshotPolicy documents, restore from them, and prove that this works.",
    no_args_is_help=True,
)
app.add_typer(snapshots, name="snapshots")

PolicyArgument = Annotated[str, typer.Argument(metavar="POLICY", help="Name of a SnapshotPolicy document.")]
SnapshotArgument = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Name of the snapshot, or `latest`.")]
PathOption = Annotated[Path, typer.Option("--path", help="The folder (or one file) of the desired state.")]
HostOption = Annotated[str | None, typer.Option("--host", help="Only this host.")]
SubvolumeOption = Annotated[str | None, typer.Option("--subvolume", "-s", help="Only this subvolume.")]


@snapshots.command("list")
def list_(
    policy: Annotated[str | None, typer.Argument(metavar="[POLICY]", help="Only this policy.")] = None,
    host: HostOption = None,
    subvolume: SubvolumeOption = None,
    path: PathOption = DESIRED,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List snapshots, newest last, with what keeps each one, or that the next run removes it."""
    import json

    from reconciler.tools.snapshots.session import listing, places

    here = project(path, state)
    catalog = here.validate()
    chosen = places(catalog, policy, host=host, subvolume=subvolume)
    rows: list[dict[str, Any]] = []
    failed = False
    with here.pool(here.desired(catalog).targets, read_only=True) as pool:
        for place, answer in listing(pool, chosen):
            failed = failed or "error" in answer
            rows.append({"policy": place.policy, "host": place.host, "subvolume": place.subvolume, **answer})
    if output is Output.JSON:
        typer.echo(json.dumps({"version": 1, "places": rows}, ensure_ascii=False))
    else:
        for row in rows:
            _show_place(row)
        if not rows:
            typer.echo("No snapshot policies.")
    raise typer.Exit(1 if failed else 0)


@snapshots.command()
def restore(
    policy: PolicyArgument,
    snapshot: SnapshotArgument,
    host: HostOption = None,
    subvolume: SubvolumeOption = None,
    inside: Annotated[
        str, typer.Option("--inside", metavar="PATH", help="Only this file or folder, relative to the subvolume.")
    ] = "",
    to: Annotated[
        str, typer.Option("--to", metavar="PATH", help="A new path on the host; by default beside the original.")
    ] = "",
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Put it over what is there, instead of a new path.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    path: PathOption = DESIRED,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Restore a subvolume, or one path in it, from a snapshot.

    By default to a new path, which changes nothing that is there. With --in-place everything there becomes as it was;
    stop what writes there first. In both cases a snapshot of how things are now is taken before. A restore in place
    that was killed half-way is finished by the same command.
    """
    from reconciler.errors import InvalidInput, Problem
    from reconciler.render.terminal import is_interactive
    from reconciler.tools.snapshots.session import only, places
    from reconciler.tools.snapshots.session import restore as carry_out

    problems = []
    if in_place and to:
        problems.append(Problem("--in-place and --to contradict each other.", "Keep one."))
    if to and not to.startswith("/"):
        problems.append(Problem("--to is no absolute path.", "Begin with a slash."))
    inside = inside.strip("/")
    if any(part in ("", ".", "..") for part in inside.split("/")) and inside:
        problems.append(Problem("--inside is no plain path.", "Write it relative to the subvolume, without `..`."))
    if problems:
        raise InvalidInput(problems)
    here = project(path, state)
    catalog = here.validate()
    place = only(places(catalog, policy, host=host, subvolume=subvolume))
    if in_place and not yes:
        what = f"{place.subvolume}/{inside}" if inside else f"everything in {place.subvolume}"
        typer.echo(f"On {place.host}, {what} becomes as it was at {snapshot}. What is there now is kept as a snapshot.")
        if output is Output.JSON or not is_interactive():
            typer.echo("Nobody is here to confirm. Use --yes.", err=True)
            raise typer.Exit(1)
        typer.confirm("Overwrite what is there?", abort=True)
    with (
        here.pool(here.desired(catalog).targets) as pool,
        _session(here, pool, place, output).run("restore") as session,
    ):
        where = carry_out(session, snapshot, inside=inside, to=to, in_place=in_place)
    if output is Output.JSON:
        _event("result", ok=True, path=where, host=place.host)
    else:
        typer.echo(f"Restored to {where} on {place.host}.")


@snapshots.command()
def drill(
    policy: PolicyArgument,
    snapshot: Annotated[str, typer.Argument(metavar="[SNAPSHOT]", help="Name of the snapshot.")] = "latest",
    host: HostOption = None,
    subvolume: SubvolumeOption = None,
    path: PathOption = DESIRED,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Prove that a restore works: restore into a scratch place, compare every byte, clean up, keep the outcome.

    Reads all data of the snapshot twice. The host keeps the outcome: a drill that failed, or that is longer ago than
    the policy's `drill.every`, is a finding of `plan` and `drift`. Exit status 1 if any drill failed.
    """
    from reconciler.errors import ReconcilerError
    from reconciler.tools.snapshots.session import drill as carry_out
    from reconciler.tools.snapshots.session import places

    here = project(path, state)
    catalog = here.validate()
    ok = True
    with here.pool(here.desired(catalog).targets) as pool:
        for place in places(catalog, policy, host=host, subvolume=subvolume):
            try:
                with _session(here, pool, place, output).run("drill") as session:
                    found = carry_out(session, snapshot)
            except ReconcilerError as error:
                found = {"ok": False, "problems": [str(error)], "count": 1}
            ok = ok and bool(found["ok"])
            if output is Output.JSON:
                _event("drill", host=place.host, subvolume=place.subvolume, **found)
            else:
                _show_drill(place, found)
    raise typer.Exit(0 if ok else 1)


@snapshots.command()
def lock(
    policy: PolicyArgument,
    snapshot: SnapshotArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; shown by `list`.")] = "locked by hand",
    parent: Annotated[
        bool, typer.Option("--parent", help="It is the parent of a replication (btrfs send -p), until unlocked.")
    ] = False,
    host: HostOption = None,
    subvolume: SubvolumeOption = None,
    path: PathOption = DESIRED,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Keep one snapshot, whatever the policy says, until `unlock`."""
    words = ("parent" if parent else "lock", snapshot, reason or "locked by hand")
    _mark(words, f"lock {snapshot}", policy, host, subvolume, path, state, output)


@snapshots.command()
def unlock(
    policy: PolicyArgument,
    snapshot: SnapshotArgument,
    parent: Annotated[
        bool, typer.Option("--parent", help="Only what `lock --parent` said; a lock for another reason stays.")
    ] = False,
    host: HostOption = None,
    subvolume: SubvolumeOption = None,
    path: PathOption = DESIRED,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Leave a snapshot to the policy again."""
    words = ("unlock", snapshot, *(["parent"] if parent else []))
    _mark(words, f"unlock {snapshot}", policy, host, subvolume, path, state, output)


# ------------------------------------------------------------------------------------------------ parts


def _mark(
    words: tuple[str, ...],
    title: str,
    policy: str,
    host: str | None,
    subvolume: str | None,
    path: Path,
    state: Path | None,
    output: Output,
) -> None:
    from reconciler.tools.snapshots.session import only, places

    here = project(path, state)
    catalog = here.validate()
    place = only(places(catalog, policy, host=host, subvolume=subvolume))
    command, *rest = words
    with here.pool(here.desired(catalog).targets) as pool, _session(here, pool, place, output).run(words[0]) as session:
        session.step(title, command, *rest)
    if output is Output.JSON:
        _event("result", ok=True, host=place.host)


def _session(here: Project, pool: Any, place: Place, output: Output) -> Session:
    from reconciler.tools.snapshots.session import Session

    def say(title: str, answer: Mapping[str, Any] | None) -> None:
        if output is Output.JSON:
            _event("step_finished" if answer is not None else "step_started", step=title, answer=answer)
        elif answer is None:
            typer.echo(_clean(f"{place}: {title} ..."))

    return Session(here, pool, place, say)


def _event(event: str, **fields: Any) -> None:
    from reconciler.render.lines import JsonLines

    JsonLines()(event, **fields)


def _clean(text: str) -> str:
    from reconciler.render.terminal import clean

    return clean(text)


def _show_place(row: Mapping[str, Any]) -> None:
    typer.echo(_clean(f"{row['host']}:{row['subvolume']}  ({row['policy']})"))
    if "error" in row:
        typer.echo(_clean(f"  {row['error']}"))
    for one in row["snapshots"]:
        reasons = ", ".join(one.get("reasons") or ([one["note"]] if one["note"] else []))
        verdict = reasons if one.get("kept", True) else f"goes at the next run: {reasons}"
        marks = [f"locked: {one['locked']}"] if one["locked"] else []
        size = f"{_size(one['size']):>10}" if one["size"] is not None else ""
        typer.echo(_clean(f"  {one['name']:<26}{size}  {'; '.join([verdict, *marks])}".rstrip()))
    if not row["snapshots"] and "error" not in row:
        typer.echo("  No snapshots.")


def _show_drill(place: Place, found: Mapping[str, Any]) -> None:
    if found["ok"]:
        amount = f"{found['files']} files, {_size(found['bytes'])}, {found['seconds']:.1f} s"
        typer.echo(_clean(f"{place}: {found['snapshot']} can be restored ({amount})."))
        return
    typer.echo(_clean(f"{place}: the drill FAILED."))
    for problem in found["problems"]:
        typer.echo(_clean(f"  {problem}"))
    if found["count"] > len(found["problems"]):
        typer.echo(f"  and {found['count'] - len(found['problems'])} more")


def _size(amount: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
