"""Every single change that may make a query smaller, found from the shape of the tree and not from a table.

The algorithm is delta debugging over trees (Zeller and Hildebrandt 2002; Misherghi and Su, "HDD", 2006): what the
grammar allows to be absent is removed, a list loses a part, a node gives way to one below it. A tree that an edit
made into nonsense does not print or does not parse, and costs no query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pglast import ast
from pglast.error import Error as PglastError
from pglast.parser import parse_sql

from reconciler.tools.sqlreduce.printing import Unprintable, to_sql
from reconciler.tools.sqlreduce.tree import Node, Place, Script, fields, make, walk, with_item

EXPRESSIONS = frozenset(
    {
        "A_ArrayExpr",
        "A_Const",
        "A_Expr",
        "A_Indirection",
        "BoolExpr",
        "BooleanTest",
        "CaseExpr",
        "CoalesceExpr",
        "CollateClause",
        "ColumnRef",
        "CurrentOfExpr",
        "FuncCall",
        "GroupingFunc",
        "JsonArrayAgg",
        "JsonArrayConstructor",
        "JsonArrayQueryConstructor",
        "JsonFuncExpr",
        "JsonIsPredicate",
        "JsonObjectAgg",
        "JsonObjectConstructor",
        "JsonParseExpr",
        "JsonScalarExpr",
        "JsonSerializeExpr",
        "MinMaxExpr",
        "NamedArgExpr",
        "NullTest",
        "ParamRef",
        "RowExpr",
        "SQLValueFunction",
        "SubLink",
        "TypeCast",
        "XmlExpr",
        "XmlSerialize",
    }
)
RELATIONS = frozenset(
    {
        "JoinExpr",
        "JsonTable",
        "RangeFunction",
        "RangeSubselect",
        "RangeTableFunc",
        "RangeTableSample",
        "RangeVar",
    }
)
# Enumerations that say what a construct is, rather than a variant of it.
IDENTITY = frozenset(
    {"op", "isnull", "kind", "boolop", "contype", "subLinkType", "funcformat", "limitOption", "location"}
)
# What no grammar rule leaves out, so that trying it would be time lost.
MANDATORY = frozenset({"fields", "funcname", "names", "relname", "stmt", "subselect", "sval", "typeName"})
MANY = 60  # nodes below which every descendant is tried in place of its ancestor
BODY = 12  # characters from which the body of a function is looked into
MINIMUM_PARTS = 5  # of a block, with the semicolons and keywords between them
LONG = 3  # characters from which a constant is worth being made shorter


def category(node: Node) -> str:
    """What may stand in for what: nodes of one category fit the same places of the grammar."""
    name = type(node).__name__
    if name in EXPRESSIONS:
        return "expression"
    if name in RELATIONS:
        return "relation"
    if name.endswith("Stmt") and name != "RawStmt":
        return "statement"
    return name


Change = tuple[Any, str, Any]  # object, field, new value


@dataclass(slots=True, eq=False)
class Edit:
    """One way to make the query smaller.

    Attributes:
        kind: what sort of edit this is; the search learns which sorts succeed.
        key: tells the edit apart from others, also after other edits were made.
        changes: the fields to be written.
        gone: preorder ranges of the nodes that are lost.
        kept: ranges inside them that stay.
        added: nodes that are new.
        odds: how likely this is to give valid SQL that fails no sooner than the query; only the order depends on it.
        lone: the node that becomes the only thing which the query computes in a place, where that is so.
    """

    kind: str
    key: tuple[Any, ...]
    changes: tuple[Change, ...]
    gone: tuple[tuple[int, int], ...]
    kept: tuple[tuple[int, int], ...] = ()
    added: int = 0
    odds: float = 1.0
    lone: tuple[int, int] | None = None

    def apply(self) -> list[Change]:
        """Makes the change.

        Returns:
            what `undo` needs
        """
        before = [(node, field, getattr(node, field)) for node, field, _ in self.changes]
        for node, field, value in self.changes:
            object.__setattr__(node, field, value)
        return before


def undo(before: list[Change]) -> None:
    """Takes an edit back."""
    for node, field, value in reversed(before):
        object.__setattr__(node, field, value)


class Root:
    """Holds the statements of the script, so that dropping one is an edit like any other."""

    def __init__(self, script: Script) -> None:
        self.script = script


def find_edits(root: Root, places: list[Place]) -> Iterator[Edit]:
    """All edits of a tree.

    Args:
        root: the script
        places: what `walk` says of it
    Yields:
        edits; some give a tree that does not print or parse
    """
    children: dict[int, list[Place]] = {place.order: [] for place in places}
    tops: list[Place] = []
    for place in places:
        if place.parent is None:
            tops.append(place)
        else:
            children[place.parent.order].append(place)
    yield from _drops(root, "script", root.script, tops, ())
    for place in places:
        below = children[place.order]
        yield from _clears(place, below, places)
        yield from _flags(place)
        yield from _hoists(root, place, places)
        if category(place.node) == "expression":
            yield from _constants(root, place)
        if isinstance(place.node, ast.String) and isinstance(place.parent and place.parent.node, ast.DefElem):
            yield from _bodies(place)


def ranges(places: Iterable[Place]) -> tuple[tuple[int, int], ...]:
    """The preorder ranges of subtrees."""
    return tuple((place.order, place.end) for place in places)


def _slot(root: Root, place: Place) -> tuple[Any, str, Any]:
    """The object and field that hold a place, and the field's value."""
    if place.parent is None:
        return root, "script", root.script
    return place.parent.node, place.field, getattr(place.parent.node, place.field)


def replaced(
    root: Root,
    place: Place,
    kind: str,
    *nodes: Node,
    key: tuple[Any, ...] = (),
    kept: tuple[tuple[int, int], ...] = (),
    added: int = 0,
    odds: float = 1.0,
    lone: tuple[int, int] | None = None,
) -> Edit:
    """An edit that puts other nodes where one was."""
    holder, field, value = _slot(root, place)
    new = with_item(value, place.index, *nodes) if place.index else nodes[0]
    key = (kind, id(place.node), *key)
    return Edit(kind, key, ((holder, field, new),), ranges([place]), kept, added, odds, lone)


def _clear_odds(place: Place, name: str, places: list[Place]) -> float:
    """A function needs its arguments, columns need their tables, a scalar subquery needs its column."""
    if name == "args":
        return 0.1
    if name == "fromClause":
        rest = (p for p in places[place.order : place.end] if isinstance(p.node, ast.ColumnRef))
        return 0.2 if any(rest) else 1.0
    if name == "targetList" and place.parent is not None and isinstance(place.parent.node, ast.SubLink):
        return 0.1
    return 1.0


def _clears(place: Place, below: list[Place], places: list[Place]) -> Iterator[Edit]:
    for name, value in fields(place.node):
        if isinstance(place.node, ast.ResTarget) and name == "val":
            continue  # would print the alias as a column
        if isinstance(value, (ast.Node, tuple)):
            gone = ranges(child for child in below if child.field == name)
            if name not in MANDATORY:
                yield Edit(
                    "clear",
                    ("clear", id(place.node), name),
                    ((place.node, name, None),),
                    gone,
                    odds=_clear_odds(place, name, places),
                )
            if isinstance(value, tuple):
                yield from _drops(place.node, name, value, [c for c in below if c.field == name], ())


def _drops(
    holder: Any, field: str, value: tuple[Any, ...], below: list[Place], path: tuple[int, ...]
) -> Iterator[Edit]:
    """Removes parts of a list: halves, quarters, ... down to one item."""
    whole = getattr(holder, field)
    depth = len(path)

    def owned(start: int, stop: int) -> list[Place]:
        return [c for c in below if c.index[:depth] == path and start <= c.index[depth] < stop]

    for start, stop in segments(len(value)):
        rest = value[:start] + value[stop:]
        new = with_item(whole, path, rest) if path else rest
        ids = tuple(id(item) for item in value[start:stop])
        if rest or path:
            kind = "name" if all(isinstance(item, ast.String) for item in value) else "drop"
            yield Edit(
                kind, (kind, id(holder), field, path, ids), ((holder, field, new or None),), ranges(owned(start, stop))
            )
    for at, item in enumerate(value):
        if isinstance(item, tuple) and item:
            yield from _drops(holder, field, item, below, (*path, at))


def segments(length: int) -> Iterator[tuple[int, int]]:
    """The parts of a list, big ones first: both halves, their halves, ... each item; of two or three each item."""
    level = [(0, length)]
    while level:
        halves = [
            part
            for start, stop in level
            if stop - start > 1
            for part in ((start, (start + stop) // 2), ((start + stop) // 2, stop))
        ]
        yield from halves
        level = halves
    if length == 1:
        yield 0, 1


def _flags(place: Place) -> Iterator[Edit]:
    for name, value in fields(place.node):
        new: Any
        if name in IDENTITY or name in MANDATORY:
            continue
        if isinstance(value, bool):
            if value is (name == "inh"):
                continue  # what is not said costs nothing; ONLY is said
            new = not value
        elif name == "relpersistence" and value != "p":
            new = "p"
        elif isinstance(value, str) and name != "relpersistence" and place.node.__slots__[name][0] == "char*":
            new = None
        elif isinstance(value, int) and hasattr(value, "name") and value:
            new = type(value)(0)
        else:
            continue
        yield Edit("flag", ("flag", id(place.node), name), ((place.node, name, new),), ())


_TRUTHS = frozenset({"A_Expr", "BoolExpr", "BooleanTest", "NullTest", "FuncCall"})


def _hoists(root: Root, place: Place, places: list[Place]) -> Iterator[Edit]:
    """A node gives way to one below it that fits."""
    wanted = category(place.node)
    topmost = place.parent is None or category(place.parent.node) != wanted
    boolean = place.field in ("whereClause", "havingClause", "quals")
    lone = isinstance(place.parent and place.parent.node, ast.ResTarget)
    at = place.order + 1
    while at < place.end:
        low = places[at]
        if category(low.node) == wanted and not (low.parent is place and wanted == type(place.node).__name__):
            yield replaced(
                root,
                place,
                "hoist",
                low.node,
                key=(id(low.node),),
                kept=ranges([low]),
                odds=1.0 if not boolean or type(low.node).__name__ in _TRUTHS else 0.15,
                lone=(low.order, low.end) if lone else None,
            )
            if place.size > MANY and not topmost:
                at = low.end  # of a big tree only the nearest
                continue
        at += 1


def _constants(root: Root, place: Place) -> Iterator[Edit]:
    node = place.node
    if type(node).__name__ == "A_Const":
        value = node.val
        if isinstance(value, ast.String) and len(value.sval or "") >= LONG:
            yield Edit("constant", ("constant", id(value)), ((value, "sval", ""),), ())
        elif isinstance(value, ast.Integer) and abs(value.ival or 0) >= 10**LONG:
            yield Edit("constant", ("constant", id(value)), ((value, "ival", 1),), ())
        elif isinstance(value, ast.Float) and len(value.fval or "") > LONG:
            yield Edit("constant", ("constant", id(value)), ((node, "val", ast.Integer(ival=1)),), ())
        if node.isnull:
            return
    yield replaced(
        root,
        place,
        "null",
        make(ast.A_Const, isnull=True),
        added=1,
        lone=(-1, -1) if isinstance(place.parent and place.parent.node, ast.ResTarget) else None,
    )


def _bodies(place: Place) -> Iterator[Edit]:
    """The body of a function or a DO block: edits of the SQL in it, and of the statements between semicolons."""
    text = place.node.sval
    if len(text) < BODY:
        return
    tried: set[str] = {text}
    for shorter in (*_edited(text), *_without_parts(text)):
        if shorter not in tried and len(shorter) < len(text):
            tried.add(shorter)
            yield Edit(
                "body",
                ("body", id(place.node), shorter),
                ((place.node, "sval", shorter),),
                (),
                odds=1 - len(shorter) / len(text) / 2,
            )


def _edited(text: str) -> Iterator[str]:
    """What the edits of a piece of SQL give."""
    try:
        root = Root(parse_sql(text))
    except PglastError:
        return
    for edit in find_edits(root, walk(root.script)):
        before = edit.apply()
        try:
            shorter = to_sql(root.script)
            parse_sql(shorter)
        except (Unprintable, PglastError):
            continue
        finally:
            undo(before)
        if not re.search(r"\bNone\b", shorter):
            yield shorter


def _without_parts(text: str) -> Iterator[str]:
    """A block without some of its statements, or with one of them made smaller."""
    parts = re.split(r"(;|\b(?:begin|then|else|loop|declare)\b)", text, flags=re.IGNORECASE)
    if len(parts) < MINIMUM_PARTS:
        return
    for start, stop in segments(len(parts)):
        yield "".join(parts[:start] + parts[stop:]).strip()
    for at in range(len(parts) - 1):
        if parts[at + 1] == ";":
            yield "".join(parts[:at] + parts[at + 2 :]).strip()
    for at, part in enumerate(parts):
        for shorter in _edited(part.strip()):
            yield "".join([*parts[:at], " ", shorter, *parts[at + 1 :]]).strip()
