"""The search: which edit to try next, until none is left.

Each node has a probability of being needed, as in probabilistic delta debugging (Wang et al., ESEC/FSE 2021), here
on a tree: the next edit is the one with the most nodes to be expected gone. A failure makes the nodes that were
taken more likely to be needed. When no new edit is left, all edits of what remains are tried again, until the last
sweep over the whole tree found nothing: the result is 1-minimal.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pglast import ast
from pglast.error import Error as PglastError
from pglast.keywords import COL_NAME_KEYWORDS, RESERVED_KEYWORDS, TYPE_FUNC_NAME_KEYWORDS, UNRESERVED_KEYWORDS
from pglast.parser import parse_sql

from reconciler.tools.sqlreduce.bodies import is_body
from reconciler.tools.sqlreduce.edits import Edit, Root, apply, find_edits
from reconciler.tools.sqlreduce.oracle import Failure, Oracle, Trial, Waiting
from reconciler.tools.sqlreduce.outline import Outline, identifiers, invents, outline
from reconciler.tools.sqlreduce.printing import Known, Unprintable, to_sql
from reconciler.tools.sqlreduce.ranking import Queue
from reconciler.tools.sqlreduce.rewrites import find_rewrites
from reconciler.tools.sqlreduce.scope import lead, required_text
from reconciler.tools.sqlreduce.tokens import shorter_texts
from reconciler.tools.sqlreduce.tree import Measure, Place, measure, walk

SMALL = 32  # nodes up to which the clauses are tried in reading order, which people can follow
NEEDED, POINTED = 4.0, 1.5  # nodes that are needed, as a first guess; the same if the server names a place
LEAST, MOST = 0.001, 0.98
DEAR = 50.0  # failures for the price of a success, where that crashes the server or lasts until the timeout
AHEAD = 2  # candidates that are made while a server computes
BROKEN = 0.2  # an edit that gives another error says less about what it took than one that gives none
BLAME = {"clear": 1.0, "drop": 1.0, "null": 0.7, "hoist": 0.5, "select": 0.3}
TRUST = {
    "clear": 1.0,
    "drop": 1.0,
    "flatten": 0.8,
    "hoist": 0.7,
    "select": 0.6,
    "null": 0.7,
    "move": 0.5,
    "inline": 0.5,
    "body": 0.5,
    "names": 2.0,
    "alias": 0.5,
    "flag": 0.5,
    "name": 0.3,
    "constant": 0.3,
}

_LOWER = COL_NAME_KEYWORDS | RESERVED_KEYWORDS | TYPE_FUNC_NAME_KEYWORDS | UNRESERVED_KEYWORDS
KEYWORDS = _LOWER | {word.upper() for word in _LOWER}
_ALWAYS = frozenset({"pg_catalog"})  # the parser itself puts it before the names of some types
REWRITES = frozenset({"select", "move", "inline", "flatten", "alias"})
LAZY = frozenset({"BoolExpr", "CaseExpr", "CoalesceExpr", "SubLink"})  # they need not compute all their parts


@dataclass(slots=True)
class Candidate:
    """An edit that gives valid and smaller SQL."""

    edit: Edit
    sql: str


@dataclass(slots=True)
class Counts:
    """What the search did."""

    executed: int = 0
    accepted: int = 0
    seen_bytes: int = 0


@dataclass
class Search:
    """Reduces one script.

    Attributes:
        oracle: says what still fails.
        sql: the smallest query so far.
        on_trial: called for each query that was run.
        allowed: whether a query may be run.
    """

    oracle: Oracle
    sql: str
    target: Failure
    on_trial: Callable[[Trial], None]
    counts: Counts
    allowed: Callable[[Outline], bool] = lambda _: True
    seen: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = Root(parse_sql(self.sql))
        self.places = walk(self.root.script)
        self.known: Known | None = None
        self.measured: Measure | None = measure(self.sql)
        self.input_names = identifiers(self.sql) | _ALWAYS | ({"None"} if "None" in self.sql else set())
        with contextlib.suppress(Unprintable, PglastError):
            known = Known(self.root.script, self.places)
            size = measure(known.text)  # may be longer than what the user wrote
            self.measured = max(self.size, size, key=lambda size: size.cost)
            self.input_names |= identifiers(known.text)
            self.known = known
        self.input_names |= {p.node.sval or "" for p in self.places if isinstance(p.node, ast.String)}
        for body in filter(is_body, self.places):
            with contextlib.suppress(PglastError):
                self.input_names |= identifiers(body.node.sval)
        self.words = self.input_names | KEYWORDS
        self.price = 1.0 if self.target.kind == "error" else DEAR
        self.nodes = self.size.nodes
        self.in_order = self.nodes <= SMALL
        self.rates: dict[str, list[float]] = {kind: [2.0 * rate, 2.0] for kind, rate in TRUST.items()}
        self.failed: set[tuple[Any, ...]] = set()
        self.settled: set[tuple[Any, ...]] = set()  # edits that need no second look at the query as it is now
        self.needed: dict[int, float] = {}
        self.past: list[list[Place]] = []  # keeps nodes alive: what is known of one is kept under its id
        self.harmless: list[tuple[int, Place]] = []
        self.ahead: dict[tuple[Any, ...], Candidate | None] = {}  # made before they were asked for
        self.queue = Queue(self)
        self.lead = lead(self.sql, self.target)
        self.required = required_text(self.sql, self.target)
        self.resolved = self.target.stage in ("plan", "run") and not outline(self.sql).dangling()
        self._guess()
        if isinstance(self.oracle, Waiting):
            self.oracle.meanwhile = self._work_ahead

    def _guess(self) -> None:
        """The probabilities before anything is known: the place of the error is needed, so is what its text names."""
        pointed = self.target.position > 0
        base = min(max((POINTED if pointed else NEEDED) / len(self.places), LEAST), 0.4)
        words = {word.strip('".,:') for word in self.target.message.split()}
        words |= {part for word in words for part in word.split(".")}
        for place in self.places:
            node = place.node
            guess = base
            if type(node).__name__ in ("RangeVar", "RangeSubselect"):
                guess = min(2 * base, 0.5)
            if getattr(node, "sval", None) in words:
                guess = max(guess, 0.5)
            if self.target.position and getattr(node, "location", None) == self.target.position - 1:
                guess = 0.9
            self.needed[id(node)] = guess

    def run(self) -> None:
        """Makes the query 1-minimal; `sql` and `size` hold the result."""
        self.queue.fill(self._edits())
        while True:
            batch = self._choose()
            if not batch:
                if self.queue.sweeping:
                    return
                self.queue.fill(self.queue.edits, sweeping=True)
                continue
            trials = self.oracle.first([candidate.sql for candidate in batch])
            won = None
            for candidate, trial in zip(batch, trials, strict=False):
                self.note(trial)
                if trial.matched:
                    won = won or candidate
                    self._learn(candidate.edit, trial)
                elif won is None:
                    self._learn(candidate.edit, trial)
            if won:
                self._accept(won)
                self.queue.fill(self._edits())

    def run_tokens(self) -> bool:
        """The last pass: removes neighbouring tokens from the text as long as one removal succeeds.

        Returns:
            whether one did; the tree is still the one before
        """
        before, shorter = self.sql, True
        while shorter:
            shorter = False
            for text in shorter_texts(self.sql):
                if text in self.seen or not self.allowed(outline(text)) or not self._smaller(text):
                    continue
                (trial,) = self.oracle.first([text])
                self.note(trial)
                if trial.matched:
                    self.counts.accepted += 1
                    self.sql, self.measured, shorter = text, measure(text), True
                    break
        return self.sql != before

    def _smaller(self, text: str) -> bool:
        size = measure(text)
        return size.tokens < self.size.tokens and size.nodes <= self.size.nodes

    @property
    def size(self) -> Measure:
        """The size of the smallest query so far, measured when it is asked for."""
        if self.measured is None:
            self.measured = measure(self.sql)
        return self.measured

    def _edits(self) -> list[Edit]:
        return [*find_edits(self.root, self.places), *find_rewrites(self.root, self.places)]

    def note(self, trial: Trial) -> None:
        """Counts and reports one query that was run."""
        self.counts.executed += 1
        self.seen[trial.query] = trial.matched
        self.counts.seen_bytes += len(trial.query.encode())
        self.on_trial(trial)

    def _accept(self, won: Candidate) -> None:
        changes = won.edit.changes()
        apply(changes)
        self.counts.accepted += 1
        self.harmless.clear()
        self.settled.clear()
        self.ahead.clear()
        self.sql, self.nodes, self.measured = won.sql, outline(won.sql).nodes, None
        self.past.append(self.places)
        self.places = walk(self.root.script, self.places)
        by_node = {id(place.node): place for place in self.places}
        for holder, _, _ in changes:
            place = by_node.get(id(holder))
            while place is not None:
                place.cuts = place.rewrites = None
                place = place.parent
        try:
            if self.known is None:
                self.known = Known(self.root.script, self.places)
            else:
                self.known.follow(self.root.script, self.places, changes)
        except Unprintable:
            self.known = None

    def _learn(self, edit: Edit, trial: Trial) -> None:
        rate = self.rates[edit.kind]
        rate[0] += trial.matched
        rate[1] += 1
        if trial.matched:
            return
        self.failed.add(edit.key)
        self.settled.add(edit.key)
        if edit.lone and trial.failure is None:
            self.harmless += [(edit.key[1], place) for place in edit.kept]
        if self.in_order:
            return
        chance = math.exp(-self._weight(edit))
        blame = BLAME.get(edit.kind, 0.0) * (1 if trial.failure is None else BROKEN)
        if not blame or chance >= 1:
            return
        for place in self._gone(edit):
            old = self.needed.get(id(place.node), LEAST)
            self.needed[id(place.node)] = min(MOST, old + (old / (1 - chance) - old) * blame)
        self.queue.weigh()

    def _gone(self, edit: Edit) -> Iterator[Place]:
        for top in edit.gone:
            at = top.order
            while at < top.end:
                skip = next((low.end for low in edit.kept if low.order == at), 0)
                if skip:
                    at = skip
                else:
                    yield self.places[at]
                    at += 1

    def weight(self, place: Place) -> float:
        """How much speaks for a node to be needed: the logarithm of the probability that it is not."""
        return -math.log1p(-self.needed.get(id(place.node), LEAST))

    def _weight(self, edit: Edit) -> float:
        return sum([self.weight(place) for place in self._gone(edit)])

    def _choose(self) -> list[Candidate]:
        """The next candidates, the most promising first."""
        batch: list[Candidate] = []
        later: list[int] = []
        chosen: set[str] = set()
        wanted = max(1, self.oracle.batch)
        while len(batch) < wanted:
            at = self.queue.pop()
            if at is None:
                break
            edit = self.queue.edits[at]
            candidate = None if self._implied(edit) else self._candidate(edit)
            if candidate is None:
                self.failed.add(edit.key)
                self.settled.add(edit.key)
            elif candidate.sql in chosen:
                later.append(at)
            else:
                chosen.add(candidate.sql)
                batch.append(candidate)
        self.queue.push(later)
        return batch

    def _work_ahead(self) -> bool:
        """Makes a candidate that will be wanted soon, as long as a server computes.

        Returns:
            whether there is more to be made
        """
        if sum(candidate is not None for candidate in self.ahead.values()) >= AHEAD:
            return False
        at = self.queue.borrow()
        if at is None:
            return False
        edit = self.queue.edits[at]
        if edit.key not in self.ahead and not self._implied(edit):
            self.ahead[edit.key] = self._made(edit)
        return True

    def _implied(self, edit: Edit) -> bool:
        """Whether the edit computes only a part of what was computed in this place without any error."""
        if not edit.lone:
            return False
        return any(
            slot == edit.key[1]
            and (not edit.kept or edit.kept[0].below(place))
            and not any(type(p.node).__name__ in LAZY for p in self.places[place.order : place.end])
            for slot, place in self.harmless
        )

    def _candidate(self, edit: Edit) -> Candidate | None:
        """The SQL of an edit; None if it is none, not smaller, or was run before."""
        found = self.ahead.pop(edit.key) if edit.key in self.ahead else self._made(edit)
        return None if found is None or found.sql in self.seen else found

    def _made(self, edit: Edit) -> Candidate | None:
        changes = edit.changes()
        if not changes:
            return None
        before = apply(changes)
        try:
            sql = to_sql(self.root.script, self.known, changes)
        except Unprintable:
            return None
        finally:
            apply(before)
        if self.lead and sql.lower().startswith(self.lead.strip().lower()):
            sql = self.lead + sql[len(self.lead.strip()) :].lstrip()
        if not sql or sql in self.seen or self.required not in sql:
            return None
        if "None" in sql and "None" not in self.input_names and re.search(r"\bNone\b", sql):
            return None
        try:
            known = outline(sql)
        except PglastError:
            return None
        rewrite = edit.kind in REWRITES
        if known.nodes > self.nodes and not rewrite:
            return None
        if (rewrite or known.nodes == self.nodes) and not measure(sql).improves(self.size, rewrite):
            return None
        if not self.allowed(known) or (self.resolved and known.dangling()):
            return None
        return None if invents(sql, self.input_names, self.words) else Candidate(edit, sql)
