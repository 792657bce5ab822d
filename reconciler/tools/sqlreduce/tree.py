"""The parse tree of a script: walk it and measure it. Nothing here recurses with the depth of the input.

The nodes are pglast's own and are changed in place; a change is undone by writing the old value back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, TypeAlias, TypeVar

from pglast import ast, enums
from pglast.parser import parse_sql, scan

from reconciler.tools.sqlreduce.outline import outline

Node: TypeAlias = Any  # an instance of pglast.ast.Node
Script: TypeAlias = tuple[Node, ...]  # one RawStmt per statement
Change: TypeAlias = tuple[Any, str, Any]  # object, field, new value


@dataclass(slots=True, eq=False)
class Place:
    """One node where it hangs in the tree; `order` counts in preorder, so a subtree is a range of it.

    A node that stays in the tree keeps its place, which moves along: what was found out about it stays true.
    """

    node: Node
    parent: Place | None
    field: str
    index: tuple[int, ...]  # where in the (nested) list of the field; () for a single node
    order: int
    end: int = 0  # one past the order of the last node below
    cuts: list[Any] | None = None  # the edits of this node, as long as its subtree does not change
    rewrites: list[Any] | None = None

    @property
    def size(self) -> int:
        """How many nodes the subtree has."""
        return self.end - self.order

    def below(self, other: Place) -> bool:
        """Whether this is in the subtree of `other` (which is below itself)."""
        return other.order <= self.order < other.end


def make(kind: type[Any], **values: Any) -> Node:
    """A new node, without pglast's costly checks of each value."""
    node = object.__new__(kind)
    for name in kind.__slots__:
        object.__setattr__(node, name, values.get(name))
    return node


@lru_cache(maxsize=64)
def parsed(sql: str) -> Script:
    """The tree of a query, to be read and not changed.

    Raises:
        pglast.parser.ParseError: it does not parse
    """
    script: Script = parse_sql(sql)
    return script


def fields(node: Node) -> Iterator[tuple[str, Any]]:
    """The fields of a node that are set.

    Yields:
        name and value
    """
    for name in node:
        value = getattr(node, name, None)
        if value is not None:
            yield name, value


def items(value: Any) -> Iterator[tuple[tuple[int, ...], Node]]:
    """The nodes directly in a field's value: itself, or the items of a list and of the lists inside.

    Yields:
        the path into the list, and the node
    """
    if isinstance(value, ast.Node):
        yield (), value
    elif isinstance(value, tuple):
        for at, item in enumerate(value):
            if isinstance(item, ast.Node):
                yield (at,), item
            elif isinstance(item, tuple):
                for path, node in items(item):
                    yield (at, *path), node


T = TypeVar("T")


def by_class(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """Remembers what a function says of a class of nodes."""
    return cache(function)


_SCALARS = frozenset({"AclMode", "AttrNumber", "Bitmapset*", "Cardinality", "Cost", "Index", "ParseLoc"}) | {
    *("RelFileNumber", "SubTransactionId", "bits32", "bool", "char", "char*", "int", "int16", "int32", "long")
}


@by_class
def branches(kind: Any) -> tuple[str, ...]:
    """The fields of a class of nodes in which other nodes may stand."""
    slots: dict[str, Any] = kind.__slots__
    return tuple(name for name, slot in slots.items() if slot[0] not in _SCALARS and not hasattr(enums, slot[0]))


def walk(script: Script, former: Iterable[Place] = ()) -> list[Place]:
    """All nodes of a script in preorder.

    Args:
        script: the tree
        former: the places in an earlier state of the tree; nodes that are left keep theirs
    """
    places: list[Place] = []
    known = {id(place.node): place for place in former}
    todo: list[tuple[Node, Place | None, str, tuple[int, ...]]] = [
        (statement, None, "", (at,)) for at, statement in reversed(list(enumerate(script)))
    ]
    while todo:
        node, parent, field, index = todo.pop()
        order = len(places)
        place = known.pop(id(node), None)
        if place is None:
            place = Place(node, parent, field, index, order)
        else:
            if place.parent is not parent or place.field != field:
                place.cuts = place.rewrites = None  # they depend on what is above, too
            place.parent, place.field, place.index, place.order = parent, field, index, order
        places.append(place)
        top = len(todo)
        for name in branches(type(node)):
            value = getattr(node, name, None)
            if value is None:
                continue
            if type(value) is tuple:
                todo.extend([(child, place, name, path) for path, child in items(value)])
            elif isinstance(value, ast.Node):
                todo.append((value, place, name, ()))
        todo[top:] = todo[: top - 1 if top else None : -1]
        place.end = 0
    for place in reversed(places):
        place.end = place.end or place.order + 1
        if place.parent is not None and not place.parent.end:
            place.parent.end = place.end  # of the last child, which comes first here
    for place in known.values():
        place.cuts = place.rewrites = None
    return places


def children(place: Place, places: list[Place]) -> list[Place]:
    """The nodes directly below a place, in order."""
    out: list[Place] = []
    at, end = place.order + 1, place.end
    while at < end:
        child = places[at]
        out.append(child)
        at = child.end
    return out


def every(script: Script) -> Iterator[Node]:
    """All nodes of a script, in no order to rely on."""
    todo: list[Node] = list(script)
    while todo:
        node = todo.pop()
        yield node
        for name in branches(type(node)):
            value = getattr(node, name, None)
            if value is None:
                continue
            if isinstance(value, ast.Node):
                todo.append(value)
            elif type(value) is tuple:
                todo.extend([child for _, child in items(value)])


def count_nodes(script: Script) -> int:
    """How many AST nodes a script has."""
    return sum(1 for _ in every(script))


def shape(script: Script) -> list[object]:
    """The content of a tree without source positions: equal for scripts that mean the same to the parser."""
    out: list[object] = []
    for place in walk(script):
        out.append((type(place.node).__name__, place.field, place.index, place.size))
        kinds = place.node.__slots__
        out.extend(
            (name, value)
            for name, value in fields(place.node)
            if not isinstance(value, (ast.Node, tuple))
            and "location" not in name
            and not name.endswith(("_start", "_end", "_len"))
            and kinds[name][0] != "ParseLoc"
        )
    return out


def with_item(value: tuple[Any, ...], path: tuple[int, ...], *replacement: Any) -> tuple[Any, ...]:
    """A copy of a (nested) list with the item at `path` replaced by any number of others."""
    at, *rest = path
    if rest:
        return (*value[:at], with_item(value[at], tuple(rest), *replacement), *value[at + 1 :])
    return (*value[:at], *replacement, *value[at + 1 :])


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


@dataclass(frozen=True, slots=True)
class Measure:
    """The size of a query; the smaller of two is what a reduction prefers."""

    nodes: int
    tokens: int
    bytes: int

    @property
    def cost(self) -> tuple[int, int, int]:
        """What a rewrite must make smaller, which may trade a node for a token."""
        return self.nodes + self.tokens, self.tokens, self.bytes

    def improves(self, other: Measure, rewrite: bool) -> bool:
        """Whether this is smaller. What takes something away is judged by nodes first: so results are 1-minimal."""
        if rewrite:
            return self.cost < other.cost
        return (self.nodes, self.tokens, self.bytes) < (other.nodes, other.tokens, other.bytes)


def measure(sql: str) -> Measure:
    """The size of a query.

    Raises:
        pglast.parser.ParseError: it does not parse
    """
    return Measure(outline(sql).nodes, len(scan(sql)), len(sql.encode()))
