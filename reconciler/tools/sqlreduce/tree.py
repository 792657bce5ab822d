"""The parse tree of a script: walk it and measure it. Nothing here recurses with the depth of the input.

The nodes are pglast's own and are changed in place; a change is undone by writing the old value back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from pglast import ast
from pglast.parser import parse_sql, scan

Node: TypeAlias = Any  # an instance of pglast.ast.Node
Script: TypeAlias = tuple[Node, ...]  # one RawStmt per statement


@dataclass(slots=True, eq=False)
class Place:
    """One node where it hangs in the tree; `order` counts in preorder, so a subtree is a range of it."""

    node: Node
    parent: Place | None
    field: str
    index: tuple[int, ...]  # where in the (nested) list of the field; () for a single node
    order: int
    size: int = 1

    @property
    def end(self) -> int:
        """One past the order of the last node below."""
        return self.order + self.size

    def below(self, other: Place) -> bool:
        """Whether this is in the subtree of `other` (which is below itself)."""
        return other.order <= self.order < other.order + other.size


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


def walk(script: Script) -> list[Place]:
    """All nodes of a script in preorder."""
    places: list[Place] = []
    todo: list[tuple[Node, Place | None, str, tuple[int, ...]]] = [
        (statement, None, "", (at,)) for at, statement in reversed(list(enumerate(script)))
    ]
    while todo:
        node, parent, field, index = todo.pop()
        place = Place(node, parent, field, index, len(places))
        places.append(place)
        children = [(child, place, name, path) for name, value in fields(node) for path, child in items(value)]
        todo.extend(reversed(children))
    for place in reversed(places):
        if place.parent is not None:
            place.parent.size += place.size
    return places


def every(script: Script) -> Iterator[Node]:
    """All nodes of a script, in no order to rely on."""
    todo: list[Node] = list(script)
    while todo:
        node = todo.pop()
        yield node
        for name in node:
            value = getattr(node, name, None)
            if isinstance(value, ast.Node):
                todo.append(value)
            elif isinstance(value, tuple):
                todo.extend(child for _, child in items(value))


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


_WORD = re.compile(r"[a-z_]", re.IGNORECASE)


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


def weigh(sql: str, script: Script) -> tuple[Measure, frozenset[str]]:
    """The size of a query, and its identifiers as they are written: an edit may drop some, but never invents one."""
    tokens = scan(sql)
    words = (sql[token.start : token.end + 1] for token in tokens if token.name == "IDENT")
    return Measure(count_nodes(script), len(tokens), len(sql.encode())), frozenset(filter(_WORD.match, words))


def measure(sql: str) -> Measure:
    """The size of a query.

    Raises:
        pglast.parser.ParseError: it does not parse
    """
    return weigh(sql, parsed(sql))[0]
