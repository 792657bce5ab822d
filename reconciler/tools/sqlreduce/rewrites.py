"""Edits that give a statement another form: `SELECT e` instead of what is around e, a table instead of a join, ..."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from pglast import ast, enums

from reconciler.tools.sqlreduce.bodies import is_body, statements
from reconciler.tools.sqlreduce.edits import Changes, Edit, Root, category, category_of, put, put_made, write
from reconciler.tools.sqlreduce.tree import Change, Node, Place, by_class, children, every, make, segments, with_item


def find_rewrites(root: Root, places: list[Place]) -> list[Edit]:
    """All rewrites of a tree; some give a tree that does not print or parse.

    Args:
        root: the script
        places: what `walk` says of it
    """
    edits = list(_short_names(places))
    ctes = [place for place in places if isinstance(place.node, ast.CommonTableExpr)]
    for place in places:
        if place.rewrites is None:
            place.rewrites = list(_local(root, place, places))
        edits += place.rewrites
        if isinstance(place.node, ast.RangeVar):
            if place.node.alias is not None:
                edits += _rename(place, places)
            if ctes:
                edits += _inline(root, place, ctes)
    return edits


def _local(root: Root, place: Place, places: list[Place]) -> Iterator[Edit]:
    """The rewrites that concern nothing outside of a subtree."""
    if type(place.node).__name__ == "JoinExpr" and place.index:
        arms = tuple(p for p in children(place, places) if p.field in ("larg", "rarg"))
        yield Edit("flatten", ("flatten", id(place.node)), partial(_flatten, root, place), (place,), arms)
    if is_body(place):
        yield from _out_of_body(root, place)
    if category(place.node) == "statement":
        yield from _to_select(root, place, places)
        yield from _moves(place, places)
        yield from _columns(place, places)


def _out_of_body(root: Root, place: Place) -> Iterator[Edit]:
    """A statement of a function's body instead of the function's definition."""
    top: Place | None = place.parent
    while top is not None and category(top.node) != "statement":
        top = top.parent
    if top is None:
        return
    for at, stmt in enumerate(statements(place)):
        added = sum(1 for _ in every((stmt,)))
        key = ("select", id(place.node), place.node.sval, at)
        yield Edit("select", key, partial(put, root, top, stmt), (top,), added=added)


def _flatten(root: Root, place: Place) -> Changes:
    return put(root, place, place.node.larg, place.node.rarg)


def _to_select(root: Root, place: Place, places: list[Place]) -> Iterator[Edit]:
    """`SELECT e`, alone or from the same tables, instead of the statement around the expression e."""
    stmt = place.node
    values = getattr(stmt, "valuesLists", None)
    if values:
        first = tuple(p for p in children(place, places) if p.index[:1] == (0,) and p.field == "valuesLists")
        yield Edit(
            "select",
            ("select", id(stmt), "values"),
            partial(put_made, root, place, partial(_select, values[0])),
            (place,),
            first,
            added=1 + len(values[0]),
        )
    simple = isinstance(stmt, ast.SelectStmt) and len(stmt.targetList or ()) == 1 and _is_plain(stmt)
    read: dict[int, tuple[Place, ...]] = {}
    for low in places[place.order + 1 : place.end]:
        if category_of(type(low.node)) != "expression" or low.parent is None:
            continue
        if category_of(type(low.parent.node)) == "expression":
            continue
        if simple and low.field == "val" and low.parent.parent is place:
            continue
        columns = any(isinstance(p.node, ast.ColumnRef) for p in places[low.order : low.end])
        if place.field != "subselect":
            yield Edit(
                "select",
                ("select", id(stmt), "alone", id(low.node)),
                partial(put_made, root, place, partial(_select, (low.node,))),
                (place,),
                (low,),
                added=2,
                odds=0.2 if columns else 1.0,
            )
        at: Place | None = low.parent
        while at is not None and category_of(type(at.node)) != "statement":
            at = at.parent
        if at is None or not at.below(place):
            continue
        if at.order not in read:
            read[at.order] = _tables(at, places)
        tables = read[at.order]
        if tables and not any(table.order <= low.order < table.end for table in tables):
            yield Edit(
                "select",
                ("select", id(stmt), "from", id(low.node)),
                partial(put_made, root, place, partial(_select, (low.node,), tuple([table.node for table in tables]))),
                (place,),
                (*tables, low),
                added=2,
                odds=1.0 if columns else 0.2,
            )


def _select(values: tuple[Node, ...], tables: tuple[Node, ...] | None = None) -> Node:
    """A new statement."""
    targets = tuple([make(ast.ResTarget, val=value) for value in values])
    return make(ast.SelectStmt, targetList=targets, fromClause=tables, **_PLAIN)


_PLAIN: dict[str, Any] = {
    "limitOption": enums.LimitOption.LIMIT_OPTION_COUNT,
    "op": enums.SetOperation.SETOP_NONE,
    "groupDistinct": False,
    "all": False,
}


def _is_plain(stmt: Node) -> bool:
    """Whether a statement has nothing but a target list."""
    return all(getattr(stmt, name) is None for name in stmt if name not in {"targetList", *_PLAIN})


def _tables(stmt: Place, places: list[Place]) -> tuple[Place, ...]:
    """The tables that a statement reads, with joins taken apart."""
    found: list[Place] = []
    todo = [p for p in children(stmt, places) if p.field in ("fromClause", "relation", "usingClause", "sourceRelation")]
    todo.reverse()
    while todo:
        place = todo.pop()
        if type(place.node).__name__ == "JoinExpr":
            todo.extend(reversed([p for p in children(place, places) if p.field in ("larg", "rarg")]))
        elif category(place.node) == "relation":
            found.append(place)
    return tuple(found)


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
        lost = {id(value) for _, _, values, _ in lists for value in values[start:stop]}
        gone = tuple([p for p in places[place.order : place.end] if id(p.node) in lost])
        yield Edit(
            "drop", ("columns", id(stmt), tuple(sorted(lost))), partial(_without_columns, lists, start, stop), gone
        )


def _without_columns(lists: list[tuple[Any, str, tuple[Any, ...], tuple[int, ...]]], start: int, stop: int) -> Changes:
    changes: dict[tuple[int, str], Change] = {}
    for holder, field, values, path in lists:
        rest = values[:start] + values[stop:]
        whole = changes.get((id(holder), field), (holder, field, getattr(holder, field)))[2]
        new = with_item(whole, path, rest) if path else rest
        changes[id(holder), field] = (holder, field, new or None)
    return tuple(changes.values())


def _moves(place: Place, places: list[Place]) -> Iterator[Edit]:
    """The condition of a query becomes its only result."""
    stmt = place.node
    for name in ("whereClause", "havingClause"):
        condition = getattr(stmt, name, None)
        if condition is not None and isinstance(stmt, ast.SelectStmt):
            lost = tuple(p for p in children(place, places) if p.field == "targetList")
            yield Edit("move", ("move", id(stmt), name), partial(_moved, stmt, name), lost, added=1)


def _moved(stmt: Node, name: str) -> Changes:
    result = make(ast.ResTarget, val=getattr(stmt, name))
    return ((stmt, "targetList", (result,)), (stmt, name, None))


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
            yield Edit(
                "inline",
                ("inline", id(place.node), "table", id(cte.node)),
                partial(put_made, root, place, partial(_table, read[0], place.node)),
                (place,),
            )
        yield Edit("inline", ("inline", id(place.node), id(cte.node)), partial(_inlined, root, place, cte), ())


def _table(read: Node, name: Node) -> Node:
    """The table that a WITH query reads, instead of the query's name."""
    return make(
        ast.RangeVar,
        schemaname=read.schemaname,
        relname=read.relname,
        inh=True,
        relpersistence="p",
        alias=name.alias,
    )


def _inlined(root: Root, place: Place, cte: Place) -> Changes:
    alias = place.node.alias or make(ast.Alias, aliasname=place.node.relname)
    inner = make(ast.RangeSubselect, lateral=False, subquery=cte.node.ctequery, alias=alias)
    clause = cte.parent
    if clause is None or clause.parent is None:
        return ()
    rest = with_item(clause.node.ctes, cte.index)
    drop = write(clause.node, "ctes", rest) if rest else write(clause.parent.node, clause.field, None)
    return (*put(root, place, inner), *drop)


@by_class
def _named(kind: Any) -> tuple[str, ...]:
    """The fields of a class of nodes that hold names which may have a schema or table before them."""
    return tuple(name for name in ("schemaname", "funcname", "names", "fields") if name in kind.__slots__)


def _short_names(places: list[Place]) -> Iterator[Edit]:
    """All schema names at once, all qualifiers of columns, all aliases of results."""
    schemas: list[Change] = []
    columns: list[Change] = []
    aliases: list[Change] = []
    for place in places:
        node = place.node
        for field in _named(type(node)):
            names: Any = getattr(node, field, None)
            if field == "schemaname":
                if names:
                    schemas.append((node, field, None))
            elif isinstance(names, tuple) and len(names) > 1 and all(isinstance(item, ast.String) for item in names):
                (columns if field == "fields" else schemas).append((node, field, names[-1:]))
        if isinstance(node, ast.ResTarget) and node.name and node.val is not None:
            aliases.append((node, "name", None))
    for what, changes in (("schemas", schemas), ("columns", columns), ("aliases", aliases)):
        if len(changes) > 1:
            yield Edit(
                "names", ("names", what, tuple([id(node) for node, _, _ in changes])), partial(tuple, changes), ()
            )


def _rename(place: Place, places: list[Place]) -> Iterator[Edit]:
    """A table loses its alias; its columns lose it, too, or name the table instead."""
    alias = place.node.alias.aliasname
    changes: list[Change] = []
    last: list[Change] = []
    for other in places:
        if not isinstance(other.node, ast.ColumnRef):
            continue
        names: Any = other.node.fields or ()
        if len(names) > 1 and isinstance(names[0], ast.String) and names[0].sval == alias:
            last.append((other.node, "fields", (ast.String(sval=place.node.relname), *names[1:])))
            changes.append((other.node, "fields", names[1:]))
    clear = (place.node, "alias", None)
    if changes:
        yield Edit("alias", ("alias", id(place.node), len(changes)), partial(tuple, (clear, *changes)), ())
        yield Edit("alias", ("renamed", id(place.node), len(changes)), partial(tuple, (clear, *last)), ())
