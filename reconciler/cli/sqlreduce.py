"""Reduce a failing SQL query: sqlreduce."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from reconciler.cli.options import Output, OutputOption

if TYPE_CHECKING:
    from reconciler.tools.sqlreduce import Reduction, Trial

app = typer.Typer()

UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0}


@app.command("sqlreduce")
def sqlreduce(
    query: Annotated[str | None, typer.Argument(help="The query; - or nothing reads it from standard input.")] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="Read the query from this file.")] = None,
    dsn: Annotated[
        str, typer.Option("--dsn", "-d", help="Connection string. Default: libpq's own (PGHOST, PGSERVICE, ...).")
    ] = "",
    match: Annotated[
        str,
        typer.Option(help="What is the same error: message, sqlstate, location, regex=PATTERN, crash or timeout."),
    ] = "message",
    timeout: Annotated[str, typer.Option(help="Limit for each statement: 500ms, 2s, 1min.")] = "500ms",
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Parallel connections.")] = 1,
    tokens: Annotated[bool, typer.Option("--tokens", help="A last pass that takes single tokens away.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Never run anything that can write.")] = False,
    advance_sequences: Annotated[
        bool, typer.Option("--advance-sequences", help="Accept that sequences owned by others advance.")
    ] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Show each attempt on standard error.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Reduce a query that fails on PostgreSQL to a minimal one that fails the same way.

    Nothing persists on the server: each attempt runs in a transaction that is rolled back, and can write only if the
    error does not show otherwise.

    Exit status: 0 done, 1 wrong usage, 3 the query raises no error, 4 it does not parse, 5 it fails in another way
    than --match asks for, 6 no server, 7 refused, because it would leave something behind, 8 the error is not stable.
    """
    import sys

    as_json = output is Output.JSON
    try:
        from reconciler.tools.sqlreduce import Match, PostgresOracle, SqlReduceError, reduce
    except ImportError as error:
        _leave(as_json, f"sqlreduce needs the packages of the extra `sql` ({error.name}).", 1)
    try:
        rule, limit = Match.parse(match), _seconds(timeout)
    except ValueError as error:
        _leave(as_json, str(error), 1)
    sql = _read(query, file, as_json)
    progress = _Progress(trace, not trace and not as_json and sys.stderr.isatty())
    try:
        with PostgresOracle(
            dsn, match=rule, timeout=limit, jobs=jobs, read_only=read_only, advance_sequences=advance_sequences
        ) as oracle:
            reduction = reduce(sql, oracle, tokens=tokens, on_trial=progress)
    except SqlReduceError as error:
        progress.clear()
        _leave(as_json, str(error), error.status)
    progress.clear()
    if as_json:
        _print_json(reduction)
    else:
        _print_text(reduction)


def _seconds(text: str) -> float:
    """A duration as PostgreSQL writes it; without a unit: milliseconds."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    try:
        seconds = float(number) * UNITS[text[len(number) :].strip() or "ms"]
    except (ValueError, KeyError):
        seconds = 0.0
    if not 0.001 <= seconds <= 86_400:
        raise ValueError(f"{text!r} is no time limit: write 500ms, 2s or 1min, at least 1ms and at most a day")
    return seconds


def _read(query: str | None, file: str | None, as_json: bool) -> str:
    import sys
    from pathlib import Path

    if query not in (None, "-") and file is not None:
        _leave(as_json, "Give the query or --file, not both.", 1)
    if query is not None and query != "-":
        return query
    try:
        raw = sys.stdin.buffer.read() if file in (None, "-") else Path(str(file)).read_bytes()
        return raw.decode()
    except OSError as error:
        _leave(as_json, f"Cannot read {file}: {error.strerror}.", 1)
    except UnicodeDecodeError as error:
        _leave(as_json, f"The query is not UTF-8: byte {error.start} is wrong.", 1)


def _leave(as_json: bool, message: str, status: int) -> NoReturn:
    if as_json:
        import json

        typer.echo(json.dumps({"version": 1, "event": "error", "problems": [{"message": message}]}, ensure_ascii=False))
    _paint(message, "red")
    raise typer.Exit(status)


def _clean(text: str) -> str:
    """Text from a query or a server, without what would control the terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _paint(text: str, color: str | None, end: str = "\n") -> None:
    """Prints to standard error, in colour only on a terminal and only if NO_COLOR is not set."""
    import os
    import sys

    plain = os.environ.get("NO_COLOR") or not sys.stderr.isatty()
    typer.secho(_clean(text) + end, fg=None if plain else color, err=True, nl=False)


class _Progress:
    """Shows each attempt, or one line that counts them."""

    def __init__(self, trace: bool, line: bool) -> None:
        self.trace, self.line, self.count, self.hits = trace, line, 0, 0

    def __call__(self, trial: Trial) -> None:
        self.count += 1
        self.hits += trial.matched
        if self.trace:
            mark = "✔" if trial.matched else "✘"
            why = "" if trial.matched else f" {trial.failure or 'no error'}"
            if self.count == 1:
                _paint(f"Input query: {trial.query}\nQuery returns: {mark} {trial.failure}", None)
            else:
                _paint(f"{trial.query} {mark}{why}", "green" if trial.matched else None)
        elif self.line:
            typer.echo(
                f"\r{self.count} queries, {max(0, self.hits - 1)} steps, now {len(trial.query)} characters   ",
                err=True,
                nl=False,
            )

    def clear(self) -> None:
        """Takes the line away."""
        if self.line and self.count:
            typer.echo("\r\033[K", err=True, nl=False)


def _pretty(sql: str) -> str:
    from pglast import prettify
    from pglast.error import Error

    try:
        return prettify(sql, comma_at_eoln=True)
    except (Error, RecursionError, NotImplementedError):
        return sql


def _print_text(reduction: Reduction) -> None:
    for sentence in reduction.left_out:
        _paint(f"note: {sentence}", None)
    stats = reduction.statistics
    typer.echo(f"Minimal query yielding the same error:\n{_clean(reduction.minimal)}\n")
    typer.echo(f"Pretty-printed minimal query:\n{_clean(_pretty(reduction.minimal))}")
    _paint(
        f"\n{reduction.error}\n"
        f"Seen: {stats.executed} items, {stats.seen_bytes} Bytes\n"
        f"Iterations: {stats.executed}, {stats.accepted} of them successful\n"
        f"Runtime: {stats.seconds:.3f} s, {stats.executed / max(stats.seconds, 1e-6):.1f} q/s",
        None,
    )


def _print_json(reduction: Reduction) -> None:
    import json

    stats = reduction.statistics
    typer.echo(
        json.dumps(
            {
                "version": 1,
                "query": reduction.query,
                "minimal": reduction.minimal,
                "error": {"sqlstate": reduction.error.sqlstate, "message": reduction.error.message},
                "stats": {
                    "executed": stats.executed,
                    "accepted": stats.accepted,
                    "seconds": round(stats.seconds, 3),
                    "bytes": stats.bytes,
                    "tokens": stats.tokens,
                    "nodes": stats.nodes,
                },
                "leftOut": list(reduction.left_out),
            },
            ensure_ascii=False,
        )
    )
