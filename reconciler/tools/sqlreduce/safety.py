"""What must not reach the server, because a rollback would not take it back."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass

from pglast.error import Error as PglastError

from reconciler.tools.sqlreduce.oracle import Refused, Unparsable
from reconciler.tools.sqlreduce.outline import Outline, Statement, outline

# These say where a transaction begins and ends. The script runs in one that is rolled back, so they are left out.
_FRAME = {"BEGIN", "START", "COMMIT", "ROLLBACK"}
_INSIDE = {"SAVEPOINT", "RELEASE", "ROLLBACK_TO"}
_FILE = re.compile(r'"filename":("(?:[^"\\]|\\.)*")')
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
    if "\0" in sql:
        raise Unparsable("The query holds a NUL character, behind which the parser sees nothing: remove it.")
    if len(sql) > LARGE and _crashes_parser(sql):
        raise Unparsable("The query is nested too deeply for the parser.")
    try:
        statements = outline(sql).statements
    except PglastError as error:
        raise Unparsable(f"The query does not parse: {error.args[0] if error.args else error}") from error
    if not statements:
        raise Unparsable("There is no query: the input is empty.")
    for statement in statements:
        problem = lasting(statement)
        if problem:
            raise Refused(problem)
    frames = [statement for statement in statements if statement.transaction in _FRAME]
    if not frames:
        return Input(sql.strip().rstrip(";").rstrip(), ())
    kept = [statement for statement in statements if statement.transaction not in _FRAME]
    if not kept:
        raise Refused("The input only begins or ends transactions: there is nothing to reduce.")
    text = "; ".join(statement.text for statement in kept)
    return Input(
        text,
        tuple(
            f"{statement.text}: left out, the script runs in one transaction that is rolled back"
            for statement in frames
        ),
    )


def _crashes_parser(sql: str) -> bool:
    """Whether parsing ends the process, tried in another one: the parser has no limit of its own for operators."""
    import subprocess

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


def lasting(statement: Statement) -> str:
    """Why a statement must not be run, as a sentence; empty if it may."""
    if statement.kind == "TransactionStmt" and statement.transaction not in _FRAME | _INSIDE:
        return f"{statement.transaction.replace('_', ' ')} outlives every rollback: refused."
    if statement.kind == "CopyStmt":
        name = _FILE.search(statement.json)
        program = '"is_program":' in statement.json
        if name or program:
            return (
                f"COPY with the {'program' if program else 'file'} {json.loads(name[1]) if name else ''!r} acts "
                "outside the database: refused. Use STDIN or STDOUT instead, the error may be the same."
            )
    return ""


def harmless(query: Outline) -> bool:
    """Whether a candidate may be run: it neither ends the transaction nor acts outside it."""
    if not query.has("TransactionStmt") and not query.has("CopyStmt"):
        return True
    return not any(lasting(statement) or statement.transaction in _FRAME for statement in query.statements)


def has_options(query: Outline) -> bool:
    """Whether a query holds statements other than queries: those have words for which the tree has no node."""
    return any(statement.kind not in _EXPLAINABLE for statement in query.statements)


def explainable(query: Outline) -> bool:
    """Whether EXPLAIN knows the query: one statement that the planner sees."""
    statements = query.statements
    return len(statements) == 1 and statements[0].kind in _EXPLAINABLE
