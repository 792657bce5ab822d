"""What can be known of a candidate without asking: that the error has left it."""

from __future__ import annotations

import re

from pglast.parser import scan

from reconciler.tools.sqlreduce.oracle import Failure

NO_COLUMN = "42703"  # SQLSTATE; its message names a column as the query does, others as the server sees it
IMPLIED = frozenset({"="})  # operators that the server also takes for IN, CASE, NULLIF and USING


def required_text(sql: str, target: Failure) -> str:
    """What the query must keep: the token that the server points at, if the message quotes it.

    Returns:
        a part of the query; empty if nothing is certain
    """
    if not target.exact or target.stage != "parse" or not target.position:
        return ""
    tokens = scan(sql)
    texts = [sql[token.start : token.end + 1] for token in tokens]
    for at, token in enumerate(tokens):
        if token.start == target.position - 1:
            text = texts[at].strip("'")
            if at + 2 < len(tokens) and tokens[at + 1].name == "ASCII_46":
                last, longer = texts[at + 2], "".join(texts[at : at + 3])
                if longer in target.message and target.sqlstate == NO_COLUMN:
                    return longer
                return last if _quoted(last, target.message) else ""
            return text if _quoted(text, target.message) and text not in IMPLIED else ""
    return ""


def _quoted(text: str, message: str) -> bool:
    """Whether a text occurs in a message, and not only as a part of a word."""
    return bool(text) and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", message) is not None


def lead(sql: str, target: Failure) -> str:
    """The first line of a query whose message quotes the query, as `current_query()` makes it; else empty.

    Only the first line of a message is compared, so a candidate that begins with the same line has the same message.
    """
    first, newline, _ = sql.partition("\n")
    quoted = target.first_line.rpartition('"')[2]
    return first + newline if target.exact and newline and first and quoted == first else ""
