"""Edits that give a statement another form: `SELECT e` instead of what is around e, a table instead of a join, ..."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast, enums

from reconciler.tools.sqlreduce.edits import Change, Edit, Root, category, ranges, replaced, segments
from reconciler.tools.sqlreduce.tree import Node, Place, fields, make, with_item


def find_rewrites(root: Root, places: list[Place]) -> Iterator[Edit]:
    """All rewrites of a tree.

    Args:
        root: the script
        places: what `walk` says of it
    Yields:
        edits; some give a tree that does not print or parse
    """
    yield from _short_names(places)
    ctes = [place for place in places if isinstance(place.node, ast.CommonTableExpr)]
    for place in places:
        kind = type(place.node).__name__
        if kind == "JoinExpr" and place.index:
            arms = [p for p in places[place.order + 1 : place.end] if p.parent is place and p.field in ("larg", "rarg")]
            yield replaced(root, place, "flatten", place.node.larg, place.node.rarg, kept=ranges(arms))
        if category(place.node) == "statement":
            yield from _to_select(root, place, places)
            yield from _moves(place, places)
            yield from _columns(place, places)
        if kind == "RangeVar":
            if place.node.alias is not None:
                yield from _rename(place, places)
            yield from _inline(root, place, ctes)


def _to_select(root: Root, place: Place, places: list[Place]) -> Iterator[Edit]:
    """`SELECT e`, alone or from the same tables, instead of the statement around the expression e."""
    stmt = place.node
    values = getattr(stmt, "valuesLists", None)
    if values:
        targets = tuple(make(ast.ResTarget, val=item) for item in values[0])
        first = [
            p
            for p in places[place.order + 1 : place.end]
            if p.parent is place and p.index[:1] == (0,) and p.field == "valuesLists"
        ]
        yield replaced(
            root,
            place,
            "select",
            make(ast.SelectStmt, targetList=targets, **_PLAIN),
            key=("values",),
            kept=ranges(first),
            added=1 + len(targets),
        )
    for low in places[place.order + 1 : place.end]:
        if category(low.node) != "expression" or low.parent is None or category(low.parent.node) == "expression":
            continue
        if (
            low.field == "val"
            and low.parent.parent is place
            and isinstance(stmt, ast.SelectStmt)
            and len(stmt.targetList or ()) == 1
            and sum(1 for _ in fields(stmt)) <= len(_PLAIN) + 1
        ):
            continue
        target = (make(ast.ResTarget, val=low.node),)
        columns = any(isinstance(p.node, ast.ColumnRef) for p in places[low.order : low.end])
        if place.field != "subselect":
            yield replaced(
                root,
                place,
                "select",
                make(ast.SelectStmt, targetList=target, **_PLAIN),
                key=("alone", id(low.node)),
                kept=ranges([low]),
                added=2,
                odds=0.2 if columns else 1.0,
            )
        tables, kept = _tables(low, place, places)
        if tables and not any(low.order in range(*part) for part in kept):
            yield replaced(
                root,
                place,
                "select",
                make(ast.SelectStmt, targetList=target, fromClause=tables, **_PLAIN),
                key=("from", id(low.node)),
                kept=(*kept, *ranges([low])),
                added=2,
                odds=1.0 if columns else 0.2,
            )


_PLAIN: dict[str, Any] = {
    "limitOption": enums.LimitOption.LIMIT_OPTION_COUNT,
    "op": enums.SetOperation.SETOP_NONE,
    "groupDistinct": False,
    "all": False,
}


def _tables(low: Place, top: Place, places: list[Place]) -> tuple[tuple[Node, ...], tuple[tuple[int, int], ...]]:
    """The tables that the statement nearest above an expression reads, with joins taken apart."""
    at = low.parent
    while at is not None and category(at.node) != "statement":
        at = at.parent
    if at is None or not at.below(top):
        return (), ()
    found: list[Place] = []
    todo = [
        p
        for p in places[at.order + 1 : at.end]
        if p.parent is at and p.field in ("fromClause", "relation", "usingClause", "sourceRelation")
    ]
    todo.reverse()
    while todo:
        place = todo.pop()
        if type(place.node).__name__ == "JoinExpr":
            todo.extend(
                reversed(
                    [
                        p
                        for p in places[place.order + 1 : place.end]
                        if p.parent is place and p.field in ("larg", "rarg")
                    ]
                )
            )
        elif category(place.node) == "relation":
            found.append(place)
    return tuple(place.node for place in found), ranges(found)


def _leaves(stmt: Node) -> list[Node]:
    """The arms of a set operation; the statement itself if it is none."""
    todo, out = [stmt], []
    while todo:
        node = todo.pop()
        if node.larg is not None and node.rarg is not None:
            todo += [node.rarg, node.larg]
        else:
            out.append(node)
    return out


def _columns(place: Place, places: list[Place]) -> Iterator[Edit]:
    """The same column of lists that must have one length: of INSERT, of VALUES, of the arms of a UNION."""
    stmt = place.node
    lists: list[tuple[Any, str, tuple[Any, ...], tuple[int, ...]]] = []
    select = stmt
    if isinstance(stmt, ast.InsertStmt):
        if stmt.cols:
            lists.append((stmt, "cols", stmt.cols, ()))
        select = stmt.selectStmt
    if isinstance(select, ast.SelectStmt):
        for leaf in _leaves(select):
            if leaf.targetList:
                lists.append((leaf, "targetList", leaf.targetList, ()))
            for row, values in enumerate(leaf.valuesLists or ()):
                lists.append((leaf, "valuesLists", values, (row,)))
    width = max((len(values) for _, _, values, _ in lists), default=0)
    if len(lists) < 2 or width < 2:
        return
    for start, stop in segments(width):
        changes: dict[tuple[int, str], Change] = {}
        lost: set[int] = set()
        for holder, field, values, path in lists:
            rest = values[:start] + values[stop:]
            whole = changes.get((id(holder), field), (holder, field, getattr(holder, field)))[2]
            new = with_item(whole, path, rest) if path else rest
            changes[id(holder), field] = (holder, field, new or None)
            lost.update(id(value) for value in values[start:stop])
        gone = ranges(p for p in places[place.order : place.end] if id(p.node) in lost)
        key = ("columns", id(stmt), tuple(sorted(lost)))
        yield Edit("drop", key, tuple(changes.values()), gone)


def _moves(place: Place, places: list[Place]) -> Iterator[Edit]:
    """The condition of a query becomes its only result."""
    stmt = place.node
    for name in ("whereClause", "havingClause"):
        condition = getattr(stmt, name, None)
        if condition is not None and isinstance(stmt, ast.SelectStmt):
            lost = [p for p in places[place.order + 1 : place.end] if p.parent is place and p.field == "targetList"]
            yield Edit(
                "move",
                ("move", id(stmt), name),
                ((stmt, "targetList", (make(ast.ResTarget, val=condition),)), (stmt, name, None)),
                ranges(lost),
                added=1,
            )


def _inline(root: Root, place: Place, ctes: list[Place]) -> Iterator[Edit]:
    """A WITH query takes the place of its name, and leaves the WITH clause."""
    for cte in ctes:
        clause = cte.parent
        if (
            clause is None
            or clause.parent is None
            or clause.node.recursive
            or place.node.schemaname
            or cte.node.ctename != place.node.relname
            or place.below(cte)
        ):
            continue
        read: Any = getattr(cte.node.ctequery, "fromClause", None) or ()
        if len(read) == 1 and isinstance(read[0], ast.RangeVar):
            table = ast.RangeVar(
                schemaname=read[0].schemaname,
                relname=read[0].relname,
                inh=True,
                relpersistence="p",
                alias=place.node.alias,
            )
            yield replaced(root, place, "inline", table, key=("table", id(cte.node)))
        alias = place.node.alias or ast.Alias(aliasname=place.node.relname)
        inner = ast.RangeSubselect(lateral=False, subquery=cte.node.ctequery, alias=alias)
        edit = replaced(root, place, "inline", inner)
        rest = with_item(clause.node.ctes, cte.index)
        drop: Change = (clause.node, "ctes", rest) if rest else (clause.parent.node, clause.field, None)
        yield Edit("inline", ("inline", id(place.node), id(cte.node)), (*edit.changes, drop), ())


def _short_names(places: list[Place]) -> Iterator[Edit]:
    """All schema names at once, all qualifiers of columns, all aliases of results."""
    schemas: list[Change] = []
    columns: list[Change] = []
    aliases: list[Change] = []
    for place in places:
        node = place.node
        if getattr(node, "schemaname", None):
            schemas.append((node, "schemaname", None))
        for field in ("funcname", "names", "fields"):
            names: Any = getattr(node, field, None)
            if isinstance(names, tuple) and len(names) > 1 and all(isinstance(item, ast.String) for item in names):
                (columns if field == "fields" else schemas).append((node, field, names[-1:]))
        if isinstance(node, ast.ResTarget) and node.name and node.val is not None:
            aliases.append((node, "name", None))
    for what, changes in (("schemas", schemas), ("columns", columns), ("aliases", aliases)):
        if len(changes) > 1:
            yield Edit("names", ("names", what, tuple(id(node) for node, _, _ in changes)), tuple(changes), ())


def _rename(place: Place, places: list[Place]) -> Iterator[Edit]:
    """A table loses its alias; its columns lose it, too, or name the table instead."""
    alias = place.node.alias.aliasname
    changes: list[Change] = []
    last: list[Change] = []
    for other in places:
        names: Any = getattr(other.node, "fields", None) or ()
        if (
            isinstance(other.node, ast.ColumnRef)
            and len(names) > 1
            and isinstance(names[0], ast.String)
            and names[0].sval == alias
        ):
            last.append((other.node, "fields", (ast.String(sval=place.node.relname), *names[1:])))
            changes.append((other.node, "fields", names[1:]))
    clear = (place.node, "alias", None)
    if changes:
        yield Edit("alias", ("alias", id(place.node), len(changes)), (clear, *changes), ())
        yield Edit("alias", ("renamed", id(place.node), len(changes)), (clear, *last), ())
