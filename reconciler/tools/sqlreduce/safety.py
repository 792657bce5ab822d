"""What must not reach the server, because a rollback would not take it back."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from pglast import ast, enums
from pglast.error import Error as PglastError
from pglast.parser import parse_sql

from reconciler.tools.sqlreduce.oracle import Refused, Unparsable
from reconciler.tools.sqlreduce.tree import Script

_KIND = enums.TransactionStmtKind
# These say where a transaction begins and ends. The script runs in one that is rolled back, so they are left out.
_FRAME = {_KIND.TRANS_STMT_BEGIN, _KIND.TRANS_STMT_START, _KIND.TRANS_STMT_COMMIT, _KIND.TRANS_STMT_ROLLBACK}
_INSIDE = {_KIND.TRANS_STMT_SAVEPOINT, _KIND.TRANS_STMT_RELEASE, _KIND.TRANS_STMT_ROLLBACK_TO}
LARGE = 50_000  # characters from which the parser is tried in another process first
_EXPLAINABLE = ("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt")


@dataclass(frozen=True, slots=True)
class Input:
    """A script that may be run.

    Attributes:
        sql: its text, without what was left out.
        left_out: one sentence for each statement that was left out.
    """

    sql: str
    left_out: tuple[str, ...]


def admit(sql: str) -> Input:
    """Parses the input and takes out what would end the transaction around it.

    Raises:
        Unparsable: the parser does not know this SQL
        Refused: it holds a statement whose effect no rollback takes back, or nothing else
    """
    if len(sql) > LARGE and _crashes_parser(sql):
        raise Unparsable("The query is nested too deeply for the parser.")
    try:
        script = parse_sql(sql)
    except PglastError as error:
        raise Unparsable(f"The query does not parse: {error.args[0] if error.args else error}") from error
    if not script:
        raise Unparsable("There is no query: the input is empty.")
    for raw in script:
        problem = lasting(raw.stmt)
        if problem:
            raise Refused(problem)
    frames = [raw for raw in script if isinstance(raw.stmt, ast.TransactionStmt) and raw.stmt.kind in _FRAME]
    if not frames:
        return Input(sql.strip().rstrip(";").rstrip(), ())
    kept = [raw for raw in script if raw not in frames]
    if not kept:
        raise Refused("The input only begins or ends transactions: there is nothing to reduce.")
    text = "; ".join(statement_text(sql, raw) for raw in kept)
    return Input(
        text,
        tuple(
            f"{statement_text(sql, raw)}: left out, the script runs in one transaction that is rolled back"
            for raw in frames
        ),
    )


def _crashes_parser(sql: str) -> bool:
    """Whether parsing ends the process, tried in another one: the parser has no limit of its own for operators."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pglast.parser as p\ntry: p.parse_sql(sys.stdin.read())\nexcept p.ParseError: pass",
        ],
        input=sql,
        text=True,
        capture_output=True,
        check=False,
    )
    return done.returncode < 0


def statement_text(sql: str, raw: ast.RawStmt) -> str:
    """The part of the script that is one statement."""
    start = raw.stmt_location or 0
    return sql[start : start + raw.stmt_len if raw.stmt_len else None].strip()


def lasting(stmt: object) -> str:
    """Why a statement must not be run, as a sentence; empty if it may."""
    if isinstance(stmt, ast.TransactionStmt) and stmt.kind not in _FRAME | _INSIDE:
        name = stmt.kind.name if stmt.kind else ""
        return f"{name.removeprefix('TRANS_STMT_').replace('_', ' ')} outlives every rollback: refused."
    if isinstance(stmt, ast.CopyStmt) and stmt.filename is not None:
        return (
            f"COPY with the {'program' if stmt.is_program else 'file'} {stmt.filename!r} acts outside "
            "the database: refused. Use STDIN or STDOUT instead, the error may be the same."
        )
    return ""


def harmless(script: Script) -> bool:
    """Whether a candidate may be run: it neither ends the transaction nor acts outside it."""
    return not any(
        lasting(raw.stmt) or (isinstance(raw.stmt, ast.TransactionStmt) and raw.stmt.kind in _FRAME) for raw in script
    )


def explainable(script: Script) -> bool:
    """Whether EXPLAIN knows the script: one statement that the planner sees."""
    return len(script) == 1 and type(script[0].stmt).__name__ in _EXPLAINABLE
