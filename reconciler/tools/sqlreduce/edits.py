"""Every single change that may make a query smaller, found from the shape of the tree and not from a table.

The algorithm is delta debugging over trees (Zeller and Hildebrandt 2002; Misherghi and Su, "HDD", 2006): what the
grammar allows to be absent is removed, a list loses a part, a node gives way to one below it. A tree that an edit
made into nonsense does not print or does not parse, and costs no query.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeAlias

from pglast import ast, enums
from pglast.error import Error as PglastError
from pglast.parser import parse_sql

from reconciler.tools.sqlreduce.bodies import is_body, parser, shorter_bodies
from reconciler.tools.sqlreduce.outline import outline
from reconciler.tools.sqlreduce.printing import Known, Unprintable, to_sql
from reconciler.tools.sqlreduce.tree import (
    Change,
    Node,
    Place,
    Script,
    branches,
    by_class,
    children,
    make,
    segments,
    walk,
    with_item,
)

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
LONG = 3  # characters from which a constant is worth being made shorter


@by_class
def category_of(kind: type[Any]) -> str:
    """What may stand in for what: nodes of one category fit the same places of the grammar."""
    name: str = kind.__name__
    if name in EXPRESSIONS:
        return "expression"
    if name in RELATIONS:
        return "relation"
    if name.endswith("Stmt") and name != "RawStmt":
        return "statement"
    return name


def category(node: Node) -> str:
    """The category of a node's class."""
    return category_of(type(node))


Changes: TypeAlias = tuple[Change, ...]


@dataclass(slots=True, eq=False)
class Edit:
    """One way to make the query smaller.

    Attributes:
        kind: what sort of edit this is; the search learns which sorts succeed.
        key: tells the edit apart from others, also after other edits were made.
        changes: says which fields are to be written, in the tree as it is when it is called.
        gone: the subtrees that are lost.
        kept: subtrees inside them that stay.
        added: nodes that are new.
        odds: how likely this is to give valid SQL that fails no sooner than the query; only the order depends on it.
        lone: whether what is kept becomes the only thing which the query computes in a place.
    """

    kind: str
    key: tuple[Any, ...]
    changes: Callable[[], Changes]
    gone: tuple[Place, ...]
    kept: tuple[Place, ...] = ()
    added: int = 0
    odds: float = 1.0
    lone: bool = False


def apply(changes: Changes) -> Changes:
    """Makes changes.

    Returns:
        the changes that take them back
    """
    before = [(node, field, getattr(node, field)) for node, field, _ in changes]
    for node, field, value in changes:
        object.__setattr__(node, field, value)
    before.reverse()
    return tuple(before)


def write(node: Any, field: str, value: Any) -> Changes:
    """One field gets another value."""
    return ((node, field, value),)


class Root:
    """Holds the statements of the script, so that dropping one is an edit like any other."""

    def __init__(self, script: Script) -> None:
        self.script = script


def find_edits(root: Root, places: list[Place]) -> list[Edit]:
    """All edits of a tree; some give a tree that does not print or parse.

    Args:
        root: the script
        places: what `walk` says of it
    """
    tops = [place for place in places if place.parent is None]
    edits = list(_drops(root, "script", root.script, tops, ()))
    for place in places:
        if place.cuts is None:
            place.cuts = [*_clears(place, places), *_flags(place), *_hoists(root, place, places)]
            if category(place.node) == "expression":
                place.cuts += _constants(root, place)
            if is_body(place):
                place.cuts += _bodies(place)
        edits += place.cuts
    return edits


def _slot(root: Root, place: Place) -> tuple[Any, str, Any]:
    """The object and field that hold a place, and the field's value."""
    if place.parent is None:
        return root, "script", root.script
    return place.parent.node, place.field, getattr(place.parent.node, place.field)


def put(root: Root, place: Place, *nodes: Node) -> Changes:
    """Other nodes come where one was."""
    holder, field, value = _slot(root, place)
    return write(holder, field, with_item(value, place.index, *nodes) if place.index else nodes[0])


def put_made(root: Root, place: Place, making: Callable[[], Node]) -> Changes:
    """A new node comes where one was."""
    return put(root, place, making())


def _clear_odds(place: Place, name: str, places: list[Place]) -> float:
    """A function needs its arguments, columns need their tables, a scalar subquery needs its column."""
    if name == "args":
        return 0.1
    if name == "fromClause":
        return 0.2 if any(isinstance(p.node, ast.ColumnRef) for p in places[place.order : place.end]) else 1.0
    if name == "targetList" and place.parent is not None and isinstance(place.parent.node, ast.SubLink):
        return 0.1
    return 1.0


def _clears(place: Place, places: list[Place]) -> Iterator[Edit]:
    node = place.node
    below = children(place, places)
    for name in branches(type(node)):
        value = getattr(node, name, None)
        if value is None or (name == "val" and isinstance(node, ast.ResTarget)):
            continue  # without its value the alias of a result would print as a column
        inside = [child for child in below if child.field == name]
        if name not in MANDATORY:
            key = ("clear", id(node), name)
            odds = _clear_odds(place, name, places)
            yield Edit("clear", key, partial(write, node, name, None), tuple(inside), odds=odds)
        if isinstance(value, tuple):
            yield from _drops(node, name, value, inside, ())


def _drops(
    holder: Any, field: str, value: tuple[Any, ...], below: list[Place], path: tuple[int, ...]
) -> Iterator[Edit]:
    """Removes parts of a list: halves, quarters, ... down to one item."""
    depth = len(path)
    owners = [child.index[depth] for child in below]  # sorted
    ids = tuple([id(item) for item in value])
    name = all(isinstance(item, ast.String) for item in value)
    for start, stop in segments(len(value)):
        if stop - start == len(value) and not path:
            continue  # clearing the field does the same
        gone = tuple(below[bisect_left(owners, start) : bisect_left(owners, stop)])
        kind = "name" if name else "drop"
        key = (kind, id(holder), field, path, ids[start:stop])
        yield Edit(kind, key, partial(_cut, holder, field, path, start, stop), gone)
    for at, item in enumerate(value):
        if isinstance(item, tuple) and item:
            inside = below[bisect_left(owners, at) : bisect_left(owners, at + 1)]
            yield from _drops(holder, field, item, inside, (*path, at))


def _cut(holder: Any, field: str, path: tuple[int, ...], start: int, stop: int) -> Changes:
    whole = value = getattr(holder, field)
    for at in path:
        value = value[at]
    rest = value[:start] + value[stop:]
    return write(holder, field, (with_item(whole, path, rest) if path else rest) or None)


@by_class
def _variants(kind: Any) -> tuple[tuple[str, str], ...]:
    """The fields of a class of nodes that say which variant of a construct it is, and the types of these fields."""
    slots: dict[str, Any] = kind.__slots__
    return tuple(
        (name, slot[0])
        for name, slot in slots.items()
        if name not in IDENTITY | MANDATORY
        and (slot[0] in ("bool", "char*") or name == "relpersistence" or hasattr(enums, slot[0]))
    )


def _flags(place: Place) -> Iterator[Edit]:
    node = place.node
    for name, kind in _variants(type(node)):
        value = getattr(node, name, None)
        new: Any = None
        if value is None:
            continue
        if kind == "bool":
            if value is (name == "inh"):
                continue  # what is not said costs nothing; ONLY is said
            new = not value
        elif name == "relpersistence":
            if value == "p":
                continue
            new = "p"
        elif kind != "char*":
            if not value or not isinstance(value, int):
                continue
            new = type(value)(0)
        yield Edit("flag", ("flag", id(node), name), partial(write, node, name, new), ())


_TRUTHS = frozenset({"A_Expr", "BoolExpr", "BooleanTest", "NullTest", "FuncCall"})


def _hoists(root: Root, place: Place, places: list[Place]) -> Iterator[Edit]:
    """A node gives way to one below it that fits."""
    kind = type(place.node)
    wanted = category_of(kind)
    only_indirect = wanted == kind.__name__
    topmost = place.parent is None or category(place.parent.node) != wanted
    boolean = place.field in ("whereClause", "havingClause", "quals")
    lone = isinstance(place.parent and place.parent.node, ast.ResTarget)
    nearest = place.size > MANY and not topmost
    at, end = place.order + 1, place.end
    while at < end:
        low = places[at]
        at += 1
        low_kind = type(low.node)
        if category_of(low_kind) == wanted and not (only_indirect and low.parent is place):
            yield Edit(
                "hoist",
                ("hoist", id(place.node), id(low.node)),
                partial(put, root, place, low.node),
                (place,),
                (low,),
                odds=1.0 if not boolean or low_kind.__name__ in _TRUTHS else 0.15,
                lone=lone,
            )
            if nearest:
                at = low.end  # of a big tree only the nearest


def _constants(root: Root, place: Place) -> Iterator[Edit]:
    node = place.node
    if type(node).__name__ == "A_Const":
        value = node.val
        key = ("constant", id(value))
        if isinstance(value, ast.String) and len(value.sval or "") >= LONG:
            yield Edit("constant", key, partial(write, value, "sval", ""), ())
        elif isinstance(value, ast.Integer) and abs(value.ival or 0) >= 10**LONG:
            yield Edit("constant", key, partial(write, value, "ival", 1), ())
        elif isinstance(value, ast.Float) and len(value.fval or "") > LONG:
            yield Edit("constant", key, partial(write, node, "val", ast.Integer(ival=1)), ())
        if node.isnull:
            return
    yield Edit(
        "null",
        ("null", id(node)),
        partial(put_made, root, place, partial(make, ast.A_Const, isnull=True)),
        (place,),
        added=1,
        lone=isinstance(place.parent and place.parent.node, ast.ResTarget),
    )


def _bodies(place: Place) -> Iterator[Edit]:
    """The body of a function or a DO block, made shorter."""
    text, sound = place.node.sval, parser(place)
    if sound is None:
        return
    for shorter in shorter_bodies(place, _edited):
        yield Edit(
            "body",
            ("body", id(place.node), shorter),
            partial(_shortened, place.node, shorter, sound),
            (),
            odds=1 - len(shorter) / len(text) / 2,
        )


def _shortened(node: Node, text: str, sound: Callable[[str], bool]) -> Changes:
    return write(node, "sval", text) if sound(text) else ()


@lru_cache(maxsize=1024)
def _edited(text: str) -> tuple[str, ...]:
    """What the edits of a piece of SQL give."""
    try:
        root = Root(parse_sql(text))
        places = walk(root.script)
        known = Known(root.script, places)
    except (PglastError, Unprintable):
        return ()
    out = []
    for edit in find_edits(root, places):
        changes = edit.changes()
        before = apply(changes)
        try:
            shorter = to_sql(root.script, known, changes)
            outline(shorter)
        except (Unprintable, PglastError):
            continue
        finally:
            apply(before)
        if not re.search(r"\bNone\b", shorter):
            out.append(shorter)
    return tuple(out)
