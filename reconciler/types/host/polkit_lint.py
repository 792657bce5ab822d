"""Finds mistakes in polkit's rules by reading them. Pure: text in, problems out, and nothing is evaluated.

What a mistake leads to was tried with polkit 126 on Debian 13; see docs/polkit.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal

from reconciler.types.host.polkit_script import Node, ScriptError, parse


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


RESULTS: Final = {
    "NO": "no",
    "YES": "yes",
    "AUTH_SELF": "auth_self",
    "AUTH_SELF_KEEP": "auth_self_keep",
    "AUTH_ADMIN": "auth_admin",
    "AUTH_ADMIN_KEEP": "auth_admin_keep",
    "NOT_HANDLED": "",
}
OBJECT: Final = frozenset(["toString", "hasOwnProperty", "valueOf", "constructor", "propertyIsEnumerable"])
ACTION: Final = frozenset(["id", "lookup"])
SUBJECT: Final = _words(
    "pid user groups seat session local active system_unit no_new_privileges isInGroup isInNetGroup"
)
POLKIT: Final = frozenset(["Result", "addRule", "addAdminRule", "log", "spawn"])
TRUTHS: Final = frozenset(["isInGroup", "isInNetGroup", "test", "startsWith", "endsWith", "includes"])
"""Methods that return true or false."""
BRANCHES: Final = frozenset(["if", "switch", "while", "for", "each", "conditional", "logical"])
COMPARISONS: Final = frozenset(["==", "===", "!=", "!==", "<", ">", "<=", ">=", "in", "instanceof"])
GLOBALS: Final = _words(
    "globalThis NaN Infinity undefined Object Function Array String Boolean Number Date RegExp Error EvalError "
    "RangeError ReferenceError SyntaxError TypeError URIError Math JSON CBOR Duktape Proxy Reflect Symbol Buffer "
    "ArrayBuffer DataView Int8Array Uint8Array Uint8ClampedArray Int16Array Uint16Array Int32Array Uint32Array "
    "Float32Array Float64Array parseInt parseFloat TextEncoder TextDecoder performance eval isNaN isFinite "
    "decodeURI decodeURIComponent encodeURI encodeURIComponent escape unescape polkit Action Subject arguments"
)
"""What the engine of polkit defines, as it says itself."""
MISSING_METHODS: Final = _words(
    "at copyWithin fill find findIndex findLast flat flatMap matchAll padEnd padStart replaceAll trimEnd trimStart"
)
"""Newer methods of arrays and strings that the engine lacks."""
MISSING_FUNCTIONS: Final = {"Object": {"entries", "fromEntries", "values"}, "Array": {"from", "of"}}
ASKED: Final = frozenset({"id", "user", "groups"})
"""What nobody ever assigns to on purpose: whom and what polkit asks about."""
CONSEQUENCE: Final = "polkit then denies every action to everybody"

Problem = tuple[str, str, str]
"""Rule, message, fix."""


@dataclass(frozen=True, slots=True)
class RuleFunction:
    """A function that polkit asks, and what it calls its two arguments."""

    node: Node
    action: str
    subject: str
    admin: bool

    @property
    def body(self) -> Node:
        """Its statements."""
        return self.node.part(-1)


def lint(scripts: Mapping[str, str]) -> list[Problem]:
    """The problems of all rules files of a machine, which share one global scope.

    Args:
        scripts: content by path.
    """
    problems: list[Problem] = []
    trees: dict[str, Node] = {}
    for path, script in scripts.items():
        try:
            trees[path] = parse(script)
        except ScriptError as error:
            problems.append(_uncompiled(path, error))
    shared = GLOBALS.union(*(_globals(tree) for tree in trees.values()))
    for path, tree in trees.items():
        try:
            problems.extend(_Lint(path, tree, shared).problems())
        except RecursionError:
            problems.append(("too-complex", f"{path}: it is nested too deeply to be understood.", "Simplify it."))
    return problems


def is_script(text: str) -> bool:
    """Whether a text that polkit does not read would add rules if it did."""
    try:
        return any(True for _ in _added(parse(text)))
    except ScriptError:
        return False


def _uncompiled(path: str, error: ScriptError) -> Problem:
    if error.newer:
        fix = "Write it as ECMAScript 5: `var`, `function`, and strings in plain quotes."
        return "newer-javascript", f"{path}:{error.line}: {error.message}; polkit skips this file.", fix
    fix = f"Mend line {error.line} or the one before it."
    return "syntax-error", f"{path}:{error.line}: {error.message}; polkit skips this file.", fix


class _Lint:
    """The checks of one file."""

    def __init__(self, path: str, tree: Node, known: frozenset[str]) -> None:
        self._path, self._tree, self._known = path, tree, known
        self._found: dict[tuple[int, str, str], Problem] = {}
        self._rules = list(_rule_functions(tree))

    def problems(self) -> list[Problem]:
        """All of them, by line."""
        self._assignments()
        self._properties()
        if not any(node.kind == "with" for node in self._tree.walk()):
            self._names(self._tree, self._known)
        for rule in self._rules:
            if not rule.admin:
                self._results(rule)
                self._everybody(rule)
        return [self._found[key] for key in sorted(self._found)]

    def _add(self, node: Node, rule: str, message: str, fix: str) -> None:
        self._found.setdefault((node.line, rule, message), (rule, f"{self._path}:{node.line}: {message}", fix))

    # -------------------------------------------------------------------------------------- assignments

    def _assignments(self) -> None:
        """`=` where a comparison is meant: in a condition, or to what polkit asks about."""
        for node in self._tree.walk():
            if node.kind == "assign" and node.part(0).kind not in ("name", "member", "index"):
                self._add(
                    node,
                    "assignment-in-condition",
                    f"`{_show(node.part(0))} = ...` cannot be assigned to; {CONSEQUENCE}, once it gets here.",
                    "Compare with `===`.",
                )
        for test in _conditions(self._tree):
            if test.kind == "assign" and test.text == "=" and not (test.parens and test.part(0).kind == "name"):
                whom = _root(test.part(0)) in {rule.subject for rule in self._rules if rule.subject}
                every = "user" if whom else "action"
                self._assigned(test, f"the condition no longer asks anything: the rule answers for every {every}")
        for rule in self._rules:
            for node in rule.body.walk():
                if node.kind == "assign" and _root(node.part(0)) in (rule.action, rule.subject):
                    self._assigned(node, "the rule forgets what it was asked")
        # A function that a rule calls is given what polkit asks about under any name.
        for function in (n for n in self._tree.walk() if n.kind in ("function", "declaration")):
            given = {p.text for p in function.parts[:-1] if p is not None}
            for node in _inside(function.part(-1)):
                if node.kind == "assign" and node.part(0).text in ASKED and _root(node.part(0)) in given:
                    self._assigned(node, "a rule that calls this forgets what it was asked")

    def _assigned(self, node: Node, consequence: str) -> None:
        target, value = _show(node.part(0)), _show(node.part(1))
        if any((node.line, "assignment-in-condition") == key[:2] for key in self._found):
            return
        self._add(
            node,
            "assignment-in-condition",
            f"`{target} = {value}` assigns and does not compare, so {consequence}.",
            f"Write `{target} === {_show(_leftmost(node.part(1)))}`.",
        )

    # -------------------------------------------------------------------------------------- names

    def _properties(self) -> None:
        """Members that polkit's objects do not have."""
        called = {id(node.part(0)) for node in self._tree.walk() if node.kind == "call"}
        for node in self._tree.walk():
            if node.kind == "member":
                base = node.part(0)
                if base.kind == "name" and base.text == "polkit":
                    self._member(node, POLKIT, "polkit", id(node) in called or node.text == "result")
                elif base.kind == "member" and base.text == "Result" and _show(base) == "polkit.Result":
                    self._result_name(node)
        for rule in self._rules:
            for node in rule.body.walk():
                if node.kind == "member" and node.part(0).kind == "name":
                    for name, members in ((rule.action, ACTION), (rule.subject, SUBJECT)):
                        if name and node.part(0).text == name:
                            self._member(node, members | OBJECT, name, id(node) in called)
        for node in self._tree.walk():
            if node.kind == "call" and node.part(0).kind == "member":
                self._method(node.part(0))

    def _member(self, node: Node, known: frozenset[str], name: str, fatal: bool) -> None:
        if node.text in known or node.text.startswith("_"):
            return
        result = f"using it fails, and {CONSEQUENCE}" if fatal else "it is always undefined"
        self._add(
            node,
            "unknown-property",
            f"{name}.{node.text} does not exist: {result}.",
            _near(node.text, known, lambda n: f"{name}.{n}") or f"There are: {', '.join(sorted(known - OBJECT))}.",
        )

    def _result_name(self, node: Node) -> None:
        if node.text not in RESULTS:
            self._add(
                node,
                "unknown-result",
                f"polkit.Result.{node.text} does not exist: the rule gives no answer, without any message.",
                _near(node.text, RESULTS, lambda n: f"polkit.Result.{n}") or f"There are: {', '.join(RESULTS)}.",
            )

    def _method(self, member: Node) -> None:
        base = member.part(0)
        static = MISSING_FUNCTIONS.get(base.text, ()) if base.kind == "name" else ()
        listed = base.kind == "array" or (base.kind == "member" and base.text == "groups")
        if member.text in static or (member.text in MISSING_METHODS and base.kind != "name"):
            pass
        elif member.text not in MISSING_METHODS and not (listed and member.text == "includes"):
            return
        self._add(
            member,
            "newer-javascript",
            f"polkit's JavaScript has no `{_show(member)}`; {CONSEQUENCE}, once it gets here.",
            "Use `indexOf`, or a loop.",
        )

    def _names(self, scope: Node, known: frozenset[str]) -> None:
        """Names that nobody defines."""
        todo = [(scope, known)]
        while todo:
            node, names = todo.pop()
            for part in node.parts:
                if part is None:
                    continue
                if part.kind in ("function", "declaration"):
                    todo.append((part.part(-1), names | _locals(part)))
                elif part.kind == "catch":
                    todo.append((part, names | {part.text}))
                elif node.kind == "unary" and node.text == "typeof" and part.kind == "name":
                    continue
                elif part.kind == "name":
                    if part.text not in names and not (node.kind == "assign" and part is node.parts[0]):
                        self._add(
                            part,
                            "undefined-name",
                            f"{part.text} is not defined: once a rule gets here, {CONSEQUENCE}.",
                            _near(part.text, names) or "Define it, or put it into quotes if it is text.",
                        )
                else:
                    todo.append((part, names))

    # -------------------------------------------------------------------------------------- answers

    def _results(self, rule: RuleFunction) -> None:
        for node in _inside(rule.body):
            if node.kind == "return" and node.parts:
                for value in _values(node.part(0), "true"):
                    self._answer(value)

    def _answer(self, value: Node) -> None:
        fix = "Return a polkit.Result, or nothing."
        if value.kind == "string":
            if value.text and value.text not in RESULTS.values():
                near = _near(value.text, [r for r in RESULTS.values() if r], lambda n: f'"{n}"')
                message = f"{_show(value)} is no answer that polkit knows: it denies the action."
                self._add(value, "invalid-result", message, near or fix)
        elif _is_no_text(value):
            self._add(
                value,
                "invalid-result",
                f"`{_show(value)}` may be returned, which is no text: polkitd then hangs and answers nobody.",
                fix,
            )

    def _everybody(self, rule: RuleFunction) -> None:
        """`YES` that no question about the subject stands before."""
        if any(n.kind == "name" and n.text == "arguments" for n in rule.body.walk()):
            return
        marked = _asking(rule)
        for node in _unguarded(rule.body, marked):
            if any(_is_yes(v) for v in _unasked(node.part(0), marked)):
                self._add(
                    node,
                    "everybody",
                    "YES is returned without a question about the subject: everybody may do it, even the user nobody.",
                    'Ask for a user or a group, for example `subject.isInGroup("sudo")`.',
                )


# ------------------------------------------------------------------------------------------------ reading a tree


def _added(tree: Node) -> Iterator[tuple[Node, bool]]:
    """Calls of polkit.addRule and polkit.addAdminRule."""
    for node in tree.walk():
        if node.kind == "call" and (name := _show(node.part(0))) in ("polkit.addRule", "polkit.addAdminRule"):
            yield node, name == "polkit.addAdminRule"


def _rule_functions(tree: Node) -> Iterator[RuleFunction]:
    named = {n.text: n for n in tree.walk() if n.kind == "declaration"}
    named |= {
        n.text: n.part(0) for n in tree.walk() if n.kind == "variable" and n.parts and n.part(0).kind == "function"
    }
    for call, admin in _added(tree):
        if len(call.parts) > 1:
            given = call.part(1)
            found = named.get(given.text) if given.kind == "name" else given
            if found is not None and found.kind in ("function", "declaration"):
                names = [p.text for p in found.parts[:-1] if p is not None]
                action, subject, *_ = [*names, "", ""]
                yield RuleFunction(found, action, subject, admin)


def _globals(tree: Node) -> set[str]:
    """Names that a file gives to all files: its own, and those that it assigns without a declaration."""
    own = {n.text for n in _inside(tree) if n.kind in ("variable", "declaration")}
    return own | {n.part(0).text for n in tree.walk() if n.kind == "assign" and n.part(0).kind == "name"}


def _locals(function: Node) -> set[str]:
    names = {p.text for p in function.parts[:-1] if p is not None} | {function.text}
    return names | {n.text for n in _inside(function.part(-1)) if n.kind in ("variable", "declaration")}


def _inside(body: Node) -> Iterator[Node]:
    """A body without the functions in it (but with those functions themselves)."""
    todo = [body]
    while todo:
        node = todo.pop()
        yield node
        if node.kind not in ("function", "declaration"):
            todo.extend(part for part in reversed(node.parts) if part is not None)


def _conditions(tree: Node) -> Iterator[Node]:
    """Every expression that is asked whether it is true."""
    for node in tree.walk():
        match node.kind:
            case "if" | "while" | "conditional":
                yield node.part(0)
            case "for":
                if node.parts[1] is not None:
                    yield node.part(1)
            case "logical":
                yield from (part for part in node.parts if part is not None)
            case "unary" if node.text == "!":
                yield node.part(0)
            case "sequence":
                yield node.part(-1)


def _root(target: Node) -> str:
    """The variable that a member belongs to; empty for a plain variable."""
    depth = 0
    while target.kind in ("member", "index"):
        target, depth = target.part(0), depth + 1
    return target.text if depth and target.kind == "name" else ""


def _leftmost(value: Node) -> Node:
    while value.kind in ("logical", "binary", "conditional"):
        value = value.part(0)
    return value


_Size = Literal["any", "true", "false"]


def _values(value: Node, wanted: _Size = "any") -> Iterator[Node]:
    """What an expression may turn out to be, as far as one can tell.

    Args:
        wanted: only what counts as true, or as false, in a condition.
    """
    match value.kind:
        case "conditional":
            yield from _values(value.part(1), wanted)
            yield from _values(value.part(2), wanted)
        case "sequence":
            yield from _values(value.part(-1), wanted)
        case "logical":
            *first, last = (part for part in value.parts if part is not None)
            stops: _Size = "false" if value.text == "&&" else "true"
            if wanted in ("any", stops):
                for part in first:
                    yield from _values(part, stops)
            yield from _values(last, wanted)
        case "assign" if value.text == "=":
            yield from _values(value.part(1), wanted)
        case _:
            if wanted == "any" or _may_be(value, wanted):
                yield value


def _may_be(value: Node, wanted: _Size) -> bool:
    always_true = value.kind in ("array", "object", "function", "regex") or (value.kind == "string" and value.text)
    always_false = value.text in ("null", "false", "0", "") and value.kind in ("constant", "number", "string")
    return not (always_false if wanted == "true" else always_true)


def _is_no_text(value: Node) -> bool:
    """It is certainly neither a string nor nothing."""
    match value.kind:
        case "constant":
            return value.text in ("true", "false")
        case "number" | "array" | "object" | "regex" | "function":
            return True
        case "binary":
            return value.text in COMPARISONS
        case "unary":
            return value.text == "!"
        case "call":
            return value.part(0).kind == "member" and value.part(0).text in TRUTHS
        case "member":
            return value.text in ("local", "active") and value.part(0).kind == "name"
    return False


def _is_yes(value: Node) -> bool:
    return (value.kind == "string" and value.text == "yes") or _show(value) == "polkit.Result.YES"


def _asking(rule: RuleFunction) -> Callable[[Node | None], bool]:
    """Whether an expression has to do with the subject, directly or by way of a variable."""
    names = {rule.subject} - {""}

    def marked(node: Node | None) -> bool:
        return node is not None and any(n.kind == "name" and n.text in names for n in node.walk())

    setters = ("variable", "assign", "declaration", "update")
    while True:
        found = {
            n.text if n.kind in ("variable", "declaration") else _root(n.part(0)) or n.part(0).text
            for asker in rule.body.walk()
            if asker.kind in setters or asker.kind in BRANCHES
            if any(marked(part) for part in (_asked(asker) if asker.kind in BRANCHES else asker.parts))
            for n in (asker.walk() if asker.kind in BRANCHES else [asker])
            if n.kind in setters
        }
        if found <= names:
            return marked
        names |= found


def _unguarded(node: Node, marked: Callable[[Node | None], bool]) -> Iterator[Node]:
    """Returns that are reached without any question about the subject."""
    match node.kind:
        case "return":
            if node.parts:
                yield node
        case "if":
            if not marked(node.part(0)):
                yield from _unguarded(node.part(1), marked)
                if node.parts[2] is not None:
                    yield from _unguarded(node.part(2), marked)
        case "block" | "case":
            for part in node.parts[node.kind == "case" :]:
                if part is not None:
                    yield from _unguarded(part, marked)
                    if _turns_away(part, marked):
                        return
        case "while" | "for" | "each" | "switch" | "with":
            if not any(marked(part) for part in _asked(node)):
                for part in node.parts:
                    if part is not None:
                        yield from _unguarded(part, marked)
        case "label" | "try" | "catch":
            for part in node.parts:
                if part is not None:
                    yield from _unguarded(part, marked)


def _turns_away(statement: Node, marked: Callable[[Node | None], bool]) -> bool:
    """A question about the subject that may end the rule without YES: what follows is for the others only."""
    return any(
        any(marked(part) for part in _asked(node))
        and any(n.kind == "throw" or (n.kind == "return" and not _may_return_yes(n)) for n in _inside(node))
        for node in _inside(statement)
        if node.kind in BRANCHES
    )


def _asked(node: Node) -> Sequence[Node | None]:
    """What is asked before one goes on to the rest."""
    return node.parts[:-1] if node.kind in ("for", "each", "logical") else node.parts[:1]


def _may_return_yes(node: Node) -> bool:
    return bool(node.parts) and any(_is_yes(value) for value in _values(node.part(0)))


def _unasked(value: Node, marked: Callable[[Node | None], bool]) -> Iterator[Node]:
    """What an expression may be without having asked about the subject."""
    match value.kind:
        case "conditional":
            if not marked(value.part(0)):
                yield from _unasked(value.part(1), marked)
                yield from _unasked(value.part(2), marked)
        case "logical":
            if not any(marked(part) for part in value.parts[:-1]):
                yield from _values(value)
        case "sequence" | "assign":
            yield from _unasked(value.part(-1), marked)
        case _:
            yield value


def _near(word: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    by_case = {k.casefold(): k for k in sorted(known)}
    folded = word.casefold()
    near = [folded] if folded in by_case else get_close_matches(folded, by_case, 1, 0.7)
    return f"Did you mean {shown(by_case[near[0]])}?" if near else ""


def _show(node: Node) -> str:
    """An expression, shortened, for messages."""
    match node.kind:
        case "name" | "number" | "regex" | "constant":
            text = node.text
        case "string":
            text = f'"{node.text}"'
        case "member":
            text = f"{_show(node.part(0))}.{node.text}"
        case "index":
            text = f"{_show(node.part(0))}[...]"
        case "call":
            text = f"{_show(node.part(0))}(...)"
        case "array":
            text = "[...]"
        case "unary":
            text = f"{node.text}{_show(node.part(0))}"
        case "binary" | "logical":
            text = f" {node.text} ".join(_show(part) for part in node.parts if part is not None)
        case _:
            text = "..."
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 80 else f"{text[:77]}..."
