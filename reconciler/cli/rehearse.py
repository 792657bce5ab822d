"""The command `rehearse`."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption, PathArgument, StateOption, project

app = typer.Typer()


@app.command()
def rehearse(
    path: PathArgument = DESIRED,
    force: Annotated[
        bool, typer.Option("--force", help="Let plans pass that delete more than 30% of a target, or everything.")
    ] = False,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Apply the plan to simulators in the likeness of the live systems, and say what would be left. Touches nothing.

    Reads the live clusters and backup servers, starts simulators that hold what was seen, carries the plan out there
    and plans again. Hosts and other systems without a simulator are left out. Exit status: 0 it would all be done, 1
    something fails, is left, or could not be looked at.
    """
    from reconciler.rehearse import rehearse as carry_out
    from reconciler.render.terminal import console, errors_console, many, show_plan

    here = project(path, state)
    quiet = output is Output.JSON
    notes = errors_console()

    def say(sentence: str) -> None:
        if not quiet:
            notes.print(f"{sentence} ...", style="dim", highlight=False, markup=False)

    done = carry_out(here, say, force=force)
    if output is Output.JSON:
        import json

        left = [c.address for c in done.left.changes] if done.left else []
        typer.echo(
            json.dumps(
                {
                    "version": 1,
                    "converges": done.converges,
                    "changes": [c.address for c in done.live.changes],
                    "failed": {a: {"outcome": e.outcome.value, "reason": e.reason} for a, e in done.failed.items()},
                    "left": left,
                    "unknown": done.unknown,
                    "unseen": done.unseen,
                    "unreached": done.unreached,
                },
                ensure_ascii=False,
            )
        )
        raise typer.Exit(0 if done.converges else 1)
    out = console()
    for name, reason in done.unseen.items():
        out.print(f"{name} is left out: {reason}.", highlight=False, markup=False, style="yellow")
    for name, reason in done.unreached.items():
        out.print(
            f"{name} could not be looked at: {reason.removeprefix(f'{name}: ')}",
            highlight=False,
            markup=False,
            style="red",
        )
    show_plan(done.live, here.registry, out)
    for address, ended in done.failed.items():
        words = f"{address} would end as {ended.outcome.value}: {ended.reason}"
        out.print(words, style="red", highlight=False, markup=False)
    if done.left is not None and (done.left.changes or done.left.unknown):
        out.print("\nA second plan would still find:", style="bold red", highlight=False)
        show_plan(done.left, here.registry, out)
    if done.converges:
        count = many(len(done.live.changes), "change")
        out.print(f"The plan converges: {count}, and nothing would be left.", style="green", highlight=False)
    else:
        counts = {
            "would fail": len(done.failed),
            "would be left": len(done.left.changes) if done.left else 0,
            "unknown": len(done.unknown),
            "not looked at": len(done.unreached),
        }
        words = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        out.print(f"The plan does not converge: {words}.", style="red", highlight=False)
    raise typer.Exit(0 if done.converges else 1)
