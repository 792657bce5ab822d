"""The bodies of functions and of DO blocks: to the parser each is one string, in which most of the query may stand.

A shorter body is only tried if the body's own parser (of SQL, or of PL/pgSQL) finds no error in it, or the same one as
in the whole: most of what makes no sense costs no query.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from pglast import ast, enums
from pglast.error import Error as PglastError
from pglast.parser import parse_plpgsql_json, parse_sql_json, scan

from reconciler.tools.sqlreduce.tokens import joined
from reconciler.tools.sqlreduce.tree import Node, Place, segments

BODY = 12  # characters from which the body of a function is looked into
CUTS = 800  # parts of a body that are tried to be left out, long ones only of short bodies
WIDEST = 24  # tokens
NESTED = 12  # ends among which the end of a block is looked for
_QUOTE, _QUOTED = "$sqlreduce$", '"'
_MODE = enums.FunctionParameterMode
_MODES = {_MODE.FUNC_PARAM_OUT: "OUT", _MODE.FUNC_PARAM_INOUT: "INOUT", _MODE.FUNC_PARAM_TABLE: "OUT"}
_OPENERS = frozenset({"THEN", "ELSE", "LOOP", "BEGIN"})
_EDGES = _OPENERS | {";", "DECLARE", "END"}
_PERFORM = re.compile(r"\s*perform\b", re.IGNORECASE)
_SELECT = re.compile(r"select\b", re.IGNORECASE)

Span: TypeAlias = tuple[int, int]


def is_body(place: Place) -> bool:
    """Whether a node is the text of a function or a DO block."""
    above = place.parent.node if place.parent else None
    return (
        isinstance(place.node, ast.String)
        and isinstance(above, ast.DefElem)
        and above.defname == "as"
        and len(place.node.sval or "") >= BODY
    )


def statements(place: Place) -> tuple[Node, ...]:
    """The statements of a body in SQL; nothing if it is in another language, or does not parse."""
    from pglast.parser import parse_sql

    if language(place) != "sql":
        return ()
    try:
        return tuple([raw.stmt for raw in parse_sql(place.node.sval)])
    except PglastError:
        return ()


def language(place: Place) -> str:
    """The language of a body."""
    stmt = _statement(place)
    options: Any = getattr(stmt, "options", None) or getattr(stmt, "args", None) or ()
    for option in options:
        if isinstance(option, ast.DefElem) and option.defname == "language":
            return str(getattr(option.arg, "sval", ""))
    return "plpgsql" if isinstance(stmt, ast.DoStmt) else "sql"


def _statement(place: Place) -> Node:
    at: Place | None = place
    while at is not None and not isinstance(at.node, (ast.DoStmt, ast.CreateFunctionStmt)):
        at = at.parent
    return None if at is None else at.node


def shorter_bodies(place: Place, edited: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """What may come instead of a body, if `parser` says so; long cuts first.

    Args:
        place: the body
        edited: gives what the edits of a piece of SQL give
    """
    text = place.node.sval
    tried: set[str] = {text}
    for shorter in (*edited(text), *_cut(text), *_inside(text, edited)):
        if shorter not in tried and len(shorter) < len(text):
            tried.add(shorter)
            yield shorter


def parser(place: Place) -> Callable[[str], bool] | None:
    """What tells whether a text is worth being tried instead of a body; None if we do not know its language."""
    verdict = {"sql": _sql_verdict, "plpgsql": _block_verdict(place)}.get(language(place))
    if verdict is None:
        return None
    accepted = ("", verdict(place.node.sval))
    return lambda text: verdict(text) in accepted


def _sql_verdict(text: str) -> str | None:
    try:
        parse_sql_json(text)
    except PglastError as error:
        return str(error.args[0])
    return ""


def _block_verdict(place: Place) -> Callable[[str], str | None]:
    """What the parser of PL/pgSQL says of a body in its function, whose parameters are names that it knows."""
    stmt = _statement(place)
    head = "DO"
    if isinstance(stmt, ast.CreateFunctionStmt):
        names = [
            " ".join(filter(None, (_MODES.get(parameter.mode), _quoted(parameter.name), "int")))
            for parameter in stmt.parameters or ()
        ]
        head = f"CREATE PROCEDURE f({', '.join(names)}) LANGUAGE plpgsql AS"
        if not stmt.is_procedure:
            head = f"CREATE FUNCTION f({', '.join(names)}) RETURNS {_result(stmt)} LANGUAGE plpgsql AS"

    def verdict(text: str) -> str | None:
        try:
            parse_plpgsql_json(f"{head} {_QUOTE}{text}{_QUOTE}")
        except PglastError as error:
            return str(error.args[0])
        return ""

    return verdict


def _quoted(name: str | None) -> str:
    return f'"{name.replace(_QUOTED, 2 * _QUOTED)}"' if name else ""


def _result(stmt: Node) -> str:
    """What a function returns, as far as PL/pgSQL's parser tells one type from another."""
    names: Any = getattr(stmt.returnType, "names", None) or ()
    name = names[-1].sval if names else "int"
    outs = sum(parameter.mode in _MODES for parameter in stmt.parameters or ())
    if name in ("trigger", "event_trigger", "void"):
        simple = str(name)
    else:
        simple = "record" if outs > 1 or (name == "record" and not outs) else "int"
    return f"SETOF {simple}" if getattr(stmt.returnType, "setof", False) else simple


def _spans(text: str) -> list[Span]:
    try:
        return [(token.start, token.end + 1) for token in scan(text)]
    except PglastError:
        return []


def _without(text: str, spans: list[Span], *cuts: Span) -> str:
    """A text without some ranges of its tokens."""
    parts, start = [], 0
    for first, last in cuts:
        parts.append((start, spans[first][0]))
        start = spans[last - 1][1]
    return joined(text, [*parts, (start, len(text))])


def _cut(text: str) -> Iterator[str]:
    """A body without neighbouring statements or tokens, and without what is around a statement."""
    spans = _spans(text)
    words = [text[start:stop].upper() for start, stop in spans]
    edges = [0, *(at + 1 for at, word in enumerate(words) if word in _EDGES)]
    if edges[-1] < len(words):
        edges.append(len(words))
    near = CUTS // len(edges)  # so few statements are left out together, or halves, quarters, ...
    ranges: set[Span] = {(a, b) for at, a in enumerate(edges) for b in edges[at + 1 : at + 1 + near]}
    ranges |= {(edges[a], edges[b]) for a, b in segments(len(edges) - 1)}
    widest = min(WIDEST, max(2, CUTS // max(1, len(spans))))
    ranges |= {(a, a + width) for width in range(1, widest + 1) for a in range(len(spans) - width + 1)}
    for first, last in sorted(ranges, key=lambda cut: spans[cut[0]][0] - spans[cut[1] - 1][1]):
        yield _without(text, spans, (first, last))
    ends = [at for at, word in enumerate(words) if word == "END"]
    for at, word in enumerate(words):
        if word in _OPENERS:
            start = max(edge for edge in edges if edge <= at)
            for end in [end for end in ends if end > at][:NESTED]:
                stop = next((after + 1 for after in range(end, len(words)) if words[after] == ";"), 0)
                if stop:
                    yield _without(text, spans, (start, at + 1), (end, stop))


def _inside(text: str, edited: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """A block with one of its SQL statements made smaller."""
    parts = re.split(r"(;|\b(?:begin|then|else|loop|declare)\b)", text, flags=re.IGNORECASE)
    for at, part in enumerate(parts):
        performs = _PERFORM.match(part) is not None
        for shorter in edited(_PERFORM.sub("SELECT", part, count=1).strip()):
            if performs and not _SELECT.match(shorter):
                continue
            one = _SELECT.sub("PERFORM", shorter, count=1) if performs else shorter
            yield "".join([*parts[:at], " ", one, *parts[at + 1 :]]).strip()
