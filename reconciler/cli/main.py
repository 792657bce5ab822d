"""The program `reconciler`: finds the command, and turns errors into messages and exit statuses.

Exit status: 0 nothing to change (or all done), 1 error, 2 there are changes.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import typer

from reconciler import __version__
from reconciler.cli.commands import Commands, spare

app = typer.Typer(
    name="reconciler",
    cls=Commands,
    help="Compare the desired state in a folder of YAML with the live systems, and make them equal.\n\n"
    "Start with `reconciler demo`, or write documents into desired-state/ (`reconciler kinds` lists what there is, "
    "`reconciler explain File` tells how), then `validate`, `plan` and `apply`.\n\n"
    "Exit status: 0 nothing to change or all done, 1 error, 2 there are changes.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reconciler {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    # Nearly all that we make lives to the end: looking for garbage as often as Python does costs a tenth of the time,
    # and one look at the 100,000 objects that a fleet of twenty hosts makes costs another.
    gc.set_threshold(1_000_000, 20, 50)
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        the exit status.
    """
    from reconciler.errors import InvalidInput, ReconcilerError

    words = list(sys.argv[1:] if argv is None else argv)
    asked = {f"{option}={value}".lower() for option, value in pairwise(words)} | {w.lower() for w in words}
    as_json = not asked.isdisjoint({"--output=json", "--format=json"})
    try:
        command = typer.main.get_command(app)
        spare(command)
        status = command.main(words, prog_name="reconciler", standalone_mode=False)
        sys.stdout.flush()
    except InvalidInput as error:
        return _fail(as_json, [p.to_json() for p in error.problems], [str(p) for p in error.problems])
    except ReconcilerError as error:
        return _fail(as_json, [{"message": str(error)}], [str(error)])
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A folder on the way that we may not enter, a full disk.
        text = f"{error.filename}: {error.strerror}." if error.filename else f"{error}."
        # Without a file it may be our own output that cannot be written.
        return _fail(as_json and bool(error.filename), [{"message": text}], [text])
    except Exception as error:
        # Wrong usage is an error, and 2 means "there are changes": so it ends with 1.
        show = getattr(error, "show", None)
        if show is not None:
            if hasattr(error, "message"):
                error.message = str(error.message).removeprefix("Value error, ")  # typer's library speaks
            if as_json:
                return _fail(as_json, [{"message": error.format_message()}], [])  # type: ignore[attr-defined]
            show()
            return 1
        if type(error).__name__ == "Abort":
            typer.echo("Nothing was changed.", err=True)
            return 1
        raise
    return status if isinstance(status, int) else 0


def _fail(as_json: bool, problems: Sequence[object], lines: Sequence[str]) -> int:
    from reconciler.render.terminal import clean, errors_console

    if as_json:
        import json

        typer.echo(json.dumps({"version": 1, "event": "error", "problems": problems}, ensure_ascii=False))
    else:
        console = errors_console()
        for line in lines:
            console.print(clean(line), style="red", markup=False, highlight=False, soft_wrap=True)
        if len(lines) > 1:
            console.print(f"{len(lines)} problems. Nothing was changed.", style="bold red", highlight=False)
    return 1


if __name__ == "__main__":
    main()
