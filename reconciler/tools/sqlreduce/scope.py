"""What can be known of a candidate without asking: that its names cannot be resolved, or that the error has left."""

from __future__ import annotations

from pglast import ast
from pglast.parser import scan

from reconciler.tools.sqlreduce.oracle import Failure
from reconciler.tools.sqlreduce.tree import Script, every

# What a column may be qualified with although no table of the query has this name.
QUALIFIED = 2  # parts of the name of a column with its table
_IMPLICIT = frozenset({"excluded", "new", "old"})


def dangling(script: Script) -> bool:
    """Whether a column names a table that the whole script does not have.

    Such a query fails while it is parsed, so where the error shows later, the candidate need not be run.
    """
    tables: set[str] = set(_IMPLICIT)
    wanted: set[str] = set()
    plain = relations = False
    for node in every(script):
        if isinstance(node, ast.ColumnRef):
            parts = node.fields or ()
            if parts and isinstance(parts[0], ast.String):
                if len(parts) == QUALIFIED:
                    wanted.add(parts[0].sval or "")
                plain = plain or len(parts) == 1
        for name in ("relname", "ctename", "aliasname", "funcname", "name", "defname"):
            value = getattr(node, name, None)
            if isinstance(value, str):
                tables.add(value)
            elif isinstance(value, tuple):
                tables.update(item.sval or "" for item in value if isinstance(item, ast.String))
        if type(node).__name__.startswith("Range") or not isinstance(script[0].stmt, ast.SelectStmt):
            relations = True
    return not wanted <= tables or (plain and not relations)


def required_text(sql: str, target: Failure) -> str:
    """What the query must keep: the token that the server points at, if the message quotes it.

    Returns:
        a part of the query; empty if nothing is certain
    """
    if not target.exact or target.stage != "parse" or not target.position:
        return ""
    tokens = scan(sql)
    for at, token in enumerate(tokens):
        if token.start == target.position - 1:
            text = sql[token.start : token.end + 1].strip("'")
            if at + 2 < len(tokens) and tokens[at + 1].name == "ASCII_46":
                longer = text + "." + sql[tokens[at + 2].start : tokens[at + 2].end + 1]
                if longer in target.message:
                    return longer
                return (
                    sql[tokens[at + 2].start : tokens[at + 2].end + 1]
                    if sql[tokens[at + 2].start : tokens[at + 2].end + 1] in target.message
                    else ""
                )
            return text if text in target.message else ""
    return ""


def lead(sql: str, target: Failure) -> str:
    """The first line of a query whose message quotes the query, as `current_query()` makes it; else empty.

    Only the first line of a message is compared, so a candidate that begins with the same line has the same message.
    """
    first, newline, _ = sql.partition("\n")
    quoted = target.first_line.rpartition('"')[2]
    return first + newline if target.exact and newline and first and quoted == first else ""
