"""From the tree to SQL: pglast's printers, without their recursion, and only what a change touches is printed anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

from pglast import ast
from pglast.error import Error as PglastError
from pglast.precedence import ExprContext
from pglast.stream import RawStream
from pglast.visitors import Ancestor

from reconciler.tools.sqlreduce.tree import Change, Node, Place, Script, branches

Around: TypeAlias = tuple[ExprContext, bool, bool]  # what around a node decides about its text
Key: TypeAlias = tuple[int, ExprContext, bool, bool]  # the same with the node's id
Printed: TypeAlias = dict[int, dict[Around, str]]

_NOTHING: AbstractContextManager[None] = nullcontext()
DEEPEST_PRINT = 40  # nested nodes that are printed in one go, see Printer

_AROUND_CASTS = frozenset(
    {
        "A_ArrayExpr",
        "A_Expr",
        "BoolExpr",
        "BooleanTest",
        "CaseExpr",
        "CaseWhen",
        "CoalesceExpr",
        "FuncCall",
        "JoinExpr",
        "MinMaxExpr",
        "NullTest",
        "ResTarget",
        "RowExpr",
        "SelectStmt",
        "SortBy",
        "TypeCast",
    }
)
_CAST = (
    ast.A_ArrayExpr,
    ast.A_Const,
    ast.A_Expr,
    ast.A_Indirection,
    ast.BoolExpr,
    ast.CaseExpr,
    ast.CoalesceExpr,
    ast.ColumnRef,
    ast.FuncCall,
    ast.MinMaxExpr,
    ast.NullTest,
    ast.ParamRef,
    ast.RowExpr,
    ast.SQLValueFunction,
    ast.SubLink,
    ast.TypeCast,
)


class _TooDeep(Exception):
    """Raised by the printer to have a node printed on its own first."""

    def __init__(self, key: Key, node: Node) -> None:
        self.key, self.node = key, node


class Printer(RawStream):
    """Prints a tree whatever its depth: below a limit a node is printed first by itself and then inserted.

    `deep_texts` holds such texts, `printed` those of a tree that is known, except of the nodes that are `stale`. What
    surrounds a node decides about its parentheses and is part of the key.
    """

    def __init__(self, printed: Printed, stale: Set[int], deep_texts: dict[Key, str]) -> None:
        super().__init__()
        self.printed, self.stale, self.deep_texts = printed, stale, deep_texts
        self.record: list[tuple[int, Around, int, int]] = []
        self.depth = 0

    def push_indent(self, amount: int = 0, relative: bool = True) -> AbstractContextManager[None]:
        """Indent what comes; part of pglast's protocol. There are no lines here."""
        return _NOTHING

    def expression(self, need_parens: bool) -> AbstractContextManager[None]:
        """Put parentheses around what comes, if they are needed; part of pglast's protocol."""
        return super().expression(need_parens) if need_parens else _NOTHING

    def write(self, s: str) -> int:
        """Write a piece of text; part of pglast's protocol. Older servers do not know the long form of MERGE."""
        return int(super().write("NOT MATCHED" if s == "NOT MATCHED BY TARGET" else s))

    def print_node(self, node: Node, is_name: bool = False, is_symbol: bool = False) -> None:
        """Print one node; part of pglast's protocol. Casts are printed in their short form where it may stand."""
        at = id(node)
        around = (self.expr_context, is_name, is_symbol)
        text = None
        if at not in self.stale:
            texts = self.printed.get(at)
            if texts is not None:
                text = texts.get(around)
        if text is None and self.deep_texts:
            text = self.deep_texts.get((at, *around))
        if text is not None:
            self.write(text)
            self.separator()
            return
        if self.depth >= DEEPEST_PRINT and isinstance(node, ast.Node):
            raise _TooDeep((at, *around), node)
        start = self.tell()
        self.depth += 1
        if self._short_cast(node):
            if isinstance(node.arg, ast.TypeCast):
                self.print_node(node.arg)
            else:
                self.print_c_expr(node.arg)
            self.pending_separator = False
            self.write("::")
            self.print_node(node.typeName)
        else:
            super().print_node(node, is_name=is_name, is_symbol=is_symbol)
        self.depth -= 1
        if isinstance(node, ast.Node):
            self.record.append((at, around, start, self.tell()))

    def _short_cast(self, node: Node) -> bool:
        return (
            isinstance(node, ast.TypeCast)
            and self.expr_context is not ExprContext.C_EXPR
            and isinstance(node.arg, _CAST)
            and not _is_negative(node.arg)
            and type(abs(node.ancestors).node).__name__ in _AROUND_CASTS
        )

    def _concat_nodes(self, nodes: Any, sep: str = " ", are_names: bool = False, item_needs_parens: Any = None) -> str:
        stream = Printer(self.printed, self.stale, self.deep_texts)
        stream.depth = self.depth
        stream.print_list(nodes, sep, are_names=are_names, standalone_items=False, item_needs_parens=item_needs_parens)
        return str(stream.getvalue())


def _is_negative(node: Node) -> bool:
    """Whether a node is a constant with a sign, which binds less than a cast."""
    value = getattr(node, "val", None) if isinstance(node, ast.A_Const) else None
    return str(getattr(value, "ival", None) or getattr(value, "fval", None) or "").startswith("-")


class Unprintable(Exception):
    """A tree that is no SQL, which is the usual fate of an edit that took too much."""


class Known:
    """The texts of all nodes of a tree, so that a changed tree prints only what the change touches.

    Attributes:
        text: the tree as SQL.

    Raises:
        Unprintable: pglast cannot print the tree
    """

    def __init__(self, script: Script, places: list[Place]) -> None:
        self.script = script
        self.places: dict[int, Place] = {}  # of each node that was in the tree once, which also keeps their ids alive
        self.parents: dict[int, int] = {}
        self.printed: Printed = {}
        self.text = ""
        self.follow(script, places, ())

    def follow(self, script: Script, places: list[Place], changes: Sequence[Change]) -> set[int]:
        """Makes the changes of the tree its own, after they were made.

        Args:
            script: the tree
            places: all of its nodes
            changes: what was changed: a node, a field, its value
        Returns:
            ids of the nodes whose subtrees changed
        """
        with _unprintable():
            if changes:
                for holder, field, value in changes:
                    if isinstance(holder, ast.Node) and value is not None:
                        _link(Ancestor(holder.ancestors, holder, field), value)
            else:
                _link(Ancestor(), script)
            self.places.update((id(place.node), place) for place in places)
            parents = {id(place.node): 0 if place.parent is None else id(place.parent.node) for place in places}
            stale = self.touched(changes)
            before = self.parents
            for at in (*stale, *(at for at, parent in parents.items() if before.get(at) != parent)):
                self.printed.pop(at, None)
            self.parents = parents
            self.text = _join(script, self.printed, frozenset(), keep=True)
        return stale

    def touched(self, changes: Iterable[Change]) -> set[int]:
        """The nodes above a change, which print another text than before."""
        stale: set[int] = set()
        for node, _, _ in changes:
            place = self.places.get(id(node))
            while place is not None and id(place.node) not in stale:
                stale.add(id(place.node))
                place = place.parent
        return stale


@contextmanager
def _unprintable() -> Iterator[None]:
    """Whatever pglast raises for a tree that is no SQL, as one exception."""
    try:
        yield
    except (
        PglastError,
        AttributeError,
        TypeError,
        ValueError,
        KeyError,
        IndexError,
        NotImplementedError,
        AssertionError,
        RuntimeError,
    ) as error:
        raise Unprintable(str(error)) from error


def to_sql(script: Script, known: Known | None = None, changes: Sequence[Change] = ()) -> str:
    """The script as SQL text.

    Args:
        script: the tree, with the changes made
        known: the texts of the tree before the changes
        changes: what was changed: a node, a field, its value
    Returns:
        the statements, separated by "; "
    Raises:
        Unprintable: the tree lacks what its grammar needs
    """
    with _unprintable():
        if known is None:
            _link(Ancestor(), script)
            return _join(script, {}, frozenset())
        stale = known.touched(changes)
        moved: list[tuple[Node, Any]] = []
        try:
            for node, field, value in changes:
                if value is not None and isinstance(node, ast.Node) and hasattr(node, "ancestors"):
                    _link(Ancestor(node.ancestors, node, field), value, known, stale, moved)
            return _join(script, known.printed, stale)
        finally:
            for node, ancestors in reversed(moved):
                object.__setattr__(node, "ancestors", ancestors)


def _join(script: Script, printed: Printed, stale: Set[int], *, keep: bool = False) -> str:
    return "; ".join(filter(None, [_print(statement, printed, stale, keep=keep) for statement in script]))


def _link(
    above: Any,
    value: Any,
    known: Known | None = None,
    stale: set[int] | None = None,
    moved: list[tuple[Node, Any]] | None = None,
) -> None:
    """Tells each node where it hangs, which pglast's printers look at; of known nodes only those that were moved."""
    todo: list[tuple[Any, Any]] = [(above, value)]
    while todo:
        above, value = todo.pop()
        if isinstance(value, tuple):
            todo.extend(
                (Ancestor(above, value, at), item)
                for at, item in enumerate(value)
                if isinstance(item, (ast.Node, tuple))
            )
            continue
        if not isinstance(value, ast.Node):
            continue
        if known is not None and stale is not None and moved is not None and id(value) in known.parents:
            holder = abs(above)
            if holder is None or known.parents[id(value)] != id(holder.node):
                stale.add(id(value))
            moved.append((value, value.ancestors))
            object.__setattr__(value, "ancestors", above)
            continue
        object.__setattr__(value, "ancestors", above)
        for name in branches(type(value)):
            child = getattr(value, name, None)
            if child is not None:
                todo.append((Ancestor(above, value, name), child))


def _print(statement: Node, printed: Printed, stale: Set[int], *, keep: bool) -> str:
    stack: list[tuple[Key | None, Node]] = [(None, statement)]
    deep_texts: dict[Key, str] = {}
    text = ""
    while stack:
        key, node = stack[-1]
        stream = Printer(printed, stale, deep_texts)
        if key is not None:
            stream.expr_context = key[1]
        try:
            if key is None:
                stream.print_node(node)
            else:
                stream.print_node(node, is_name=key[2], is_symbol=key[3])
        except _TooDeep as deep:
            stack.append((deep.key, deep.node))
            continue
        stack.pop()
        text = str(stream.getvalue())
        if keep:
            for part, around, start, stop in stream.record:
                printed.setdefault(part, {})[around] = text[start:stop].strip()
        text = text.strip()
        if key is not None:
            deep_texts[key] = text
    return text
