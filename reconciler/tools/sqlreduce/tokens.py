"""Work on the text of the result: tokens that mean nothing to the parser, and the pass over single tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pglast.error import Error as PglastError
from pglast.parser import parse_sql_json, scan

from reconciler.tools.sqlreduce.outline import outline

# In a string of the query all quotes are escaped, so none of this matches there.
_POSITION = re.compile(r',?"(?:\w*location|\w+_(?:start|end|len))":-?\d+')
LARGEST = 300  # tokens up to which a result is polished
RANGE = 4  # neighbours that the pass over tokens takes at once


def without_noise(sql: str) -> str:
    """The same query without tokens that change nothing for the parser: INNER, the AS of an alias, FOR STATEMENT.

    Returns:
        SQL with the same tree
    """
    if len(scan(sql)) > LARGEST:
        return sql
    wanted = _meaning(sql)
    while True:
        shorter = next((text for text in _all_cuts(sql) if _means(text, wanted)), None)
        if shorter is None:
            return sql
        sql = shorter


def _means(sql: str, wanted: str) -> bool:
    try:
        return _meaning(sql) == wanted
    except PglastError:
        return False


def _meaning(sql: str) -> str:
    """The parse result without positions in the text: equal for queries that mean the same to the parser.

    Raises:
        pglast.parser.ParseError: it does not parse
    """
    return _POSITION.sub("", parse_sql_json(sql))


def shorter_texts(sql: str) -> Iterator[str]:
    """The query without some neighbouring tokens or parentheses, with what is in them or not; long cuts first.

    Yields:
        texts that parse
    """
    if len(scan(sql)) > LARGEST:
        return
    for text in _all_cuts(sql):
        try:
            if outline(text).nodes:
                yield text
        except PglastError:
            continue


def _all_cuts(sql: str) -> Iterator[str]:
    for width in range(RANGE, 0, -1):
        yield from _cuts(sql, width)


def _cuts(sql: str, width: int) -> Iterator[str]:
    spans = [(token.start, token.end + 1, token.name) for token in scan(sql)]
    for at in range(len(spans) - width + 1):
        yield joined(sql, [(0, spans[at][0]), (spans[at + width - 1][1], len(sql))])
    if width > 1:
        return
    opened: list[tuple[int, int, str]] = []
    for span in spans:
        if span[2] == "ASCII_40":
            opened.append(span)
        elif span[2] == "ASCII_41" and opened:
            start = opened.pop()
            yield joined(sql, [(0, start[0]), (span[1], len(sql))])
            yield joined(sql, [(0, start[0]), (start[1], span[0]), (span[1], len(sql))])


def joined(sql: str, parts: list[tuple[int, int]]) -> str:
    """The parts of a text, with one space between two that would grow together."""
    out = ""
    for start, stop in parts:
        piece = sql[start:stop]
        before, after = out[-1:], piece[:1]
        if before == " " and after == " ":
            piece = piece[1:]
        elif (
            before
            and after
            and not before.isspace()
            and not after.isspace()
            and (before.isalnum() or before in "_\"'")
            and (after.isalnum() or after in "_\"'")
        ):
            piece = " " + piece
        out += piece
    return out.strip()
