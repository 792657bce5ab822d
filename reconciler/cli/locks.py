"""Locks: lock ls, lock break."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption, StateOption, project

app = typer.Typer()
lock = typer.Typer(help="See and break the locks that runs hold on targets.", no_args_is_help=True)
app.add_typer(lock, name="lock")

PathOption = Annotated[Path, typer.Option("--path", help="The desired state, to find the state folder.")]


@lock.command("ls")
def list_(path: PathOption = DESIRED, state: StateOption = None, output: OutputOption = Output.TEXT) -> None:
    """List the locks that are held now. A dead run's lock frees itself within 30 s."""
    import json
    import time

    from reconciler.lease import held

    found = held(project(path, state).store)
    if output is Output.JSON:
        fields = ("target", "holder", "run", "epoch", "expires")
        typer.echo(json.dumps({"version": 1, "locks": [{f: getattr(lease, f) for f in fields} for lease in found]}))
        return
    for lease in found:
        left = lease.expires - time.time()
        typer.echo(f"{lease.target}  held by {lease.holder}, run {lease.run}, {left:.0f} s left unless renewed")
    if not found:
        typer.echo("No locks.")


@lock.command("break")
def break_(
    target: Annotated[str, typer.Argument(help="The target whose lock shall end.")],
    path: PathOption = DESIRED,
    state: StateOption = None,
) -> None:
    """End a lock by force. Its holder stops writing to this target, even if it is alive."""
    from reconciler.errors import PlanError
    from reconciler.lease import break_lease

    broken = break_lease(project(path, state).store, target)
    if broken is None:
        raise PlanError(f"{target} is not locked.")
    typer.echo(f"The lock of run {broken.run} ({broken.holder}) on {target} is broken.")
