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
from pglast.parser import parse_sql

from reconciler.tools.sqlreduce.edits import Edit, Root, find_edits, undo
from reconciler.tools.sqlreduce.oracle import Failure, Oracle, Trial
from reconciler.tools.sqlreduce.printing import Known, Unprintable, to_sql
from reconciler.tools.sqlreduce.rewrites import find_rewrites
from reconciler.tools.sqlreduce.scope import dangling, lead, required_text
from reconciler.tools.sqlreduce.tokens import shorter_texts
from reconciler.tools.sqlreduce.tree import Measure, Place, measure, parsed, walk, weigh

SMALL = 32  # nodes up to which the clauses are tried in reading order, which people can follow
NEEDED, POINTED = 4.0, 1.5  # nodes that are needed, as a first guess; the same if the server names a place
LEAST, MOST = 0.001, 0.98
BROKEN = 0.2  # an edit that gives another error says less about what it took than one that gives none
TINY = 0.05  # the gain of an edit that takes no node: it waits until the big ones are through
BLAME = {"clear": 1.0, "drop": 1.0, "null": 0.7, "hoist": 0.5, "select": 0.3}
STAKE = {"clear": 0.5, "drop": 0.7}  # a clause or an item hangs together: it is needed or not as one
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

_ALWAYS = frozenset({"pg_catalog"})  # the parser itself puts it before the names of some types
REWRITES = frozenset({"select", "move", "inline", "flatten", "alias"})
LAZY = frozenset({"BoolExpr", "CaseExpr", "CoalesceExpr", "SubLink"})  # they need not compute all their parts


@dataclass(slots=True)
class Candidate:
    """An edit that gives valid and smaller SQL."""

    edit: Edit
    sql: str
    size: Measure


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
        size: its size.
        on_trial: called for each query that was run.
        refuse: says why a script must not be run; empty if it may.
    """

    oracle: Oracle
    sql: str
    target: Failure
    on_trial: Callable[[Trial], None]
    counts: Counts
    allowed: Callable[[Any], bool] = lambda _: True
    seen: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = Root(parse_sql(self.sql))
        self.places = walk(self.root.script)
        self.known: Known | None = None
        self.size, names = weigh(self.sql, self.root.script)
        self.input_names = names | _ALWAYS | ({"None"} if "None" in self.sql else set())
        with contextlib.suppress(Unprintable, PglastError):
            printed = to_sql(self.root.script)  # may be longer than what the user wrote
            size, names = weigh(printed, parsed(printed))
            self.size = max(self.size, size, key=lambda size: size.cost)
            self.input_names |= names
            self.known = Known(self.root.script, self.places)
        self.input_names |= {p.node.sval or "" for p in walk(self.root.script) if isinstance(p.node, ast.String)}
        self.in_order = self.size.nodes <= SMALL
        self.rates: dict[str, list[float]] = {kind: [2.0 * rate, 2.0] for kind, rate in TRUST.items()}
        self.failed: set[tuple[Any, ...]] = set()
        self.settled: set[tuple[Any, ...]] = set()  # edits that need no second look at the query as it is now
        self.needed: dict[int, float] = {}
        self.past: list[list[Place]] = []  # keeps nodes alive: what is known of one is kept under its id
        self.harmless: list[tuple[int, int, int]] = []
        self.lead = lead(self.sql, self.target)
        self.required = required_text(self.sql, self.target)
        self.resolved = self.target.stage in ("plan", "run") and not dangling(self.root.script)
        self._guess()

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
        sweeping = False
        edits = self._edits()
        while True:
            batch = self._choose(edits, sweeping)
            if not batch:
                if sweeping:
                    return
                sweeping = True
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
                edits = self._edits()
                sweeping = False

    def run_tokens(self) -> None:
        """The last pass: removes neighbouring tokens from the text as long as one removal succeeds."""
        shorter = True
        while shorter:
            shorter = False
            for text in shorter_texts(self.sql):
                if text in self.seen or not self.allowed(parsed(text)) or measure(text).tokens >= self.size.tokens:
                    continue
                (trial,) = self.oracle.first([text])
                self.note(trial)
                if trial.matched:
                    self.counts.accepted += 1
                    self.sql, self.size, shorter = text, measure(text), True
                    break

    def _edits(self) -> list[Edit]:
        return [*find_edits(self.root, self.places), *find_rewrites(self.root, self.places)]

    def note(self, trial: Trial) -> None:
        """Counts and reports one query that was run."""
        self.counts.executed += 1
        self.seen[trial.query] = trial.matched
        self.counts.seen_bytes += len(trial.query.encode())
        self.on_trial(trial)

    def _accept(self, won: Candidate) -> None:
        won.edit.apply()
        self.counts.accepted += 1
        self.harmless.clear()
        self.settled.clear()
        self.sql, self.size = won.sql, won.size
        self.past.append(self.places)
        self.places = walk(self.root.script)
        self.known = Known(self.root.script, self.places)

    def _learn(self, edit: Edit, trial: Trial) -> None:
        rate = self.rates[edit.kind]
        rate[0] += trial.matched
        rate[1] += 1
        if trial.matched:
            return
        self.failed.add(edit.key)
        self.settled.add(edit.key)
        if edit.lone and trial.failure is None:
            self.harmless.append((edit.key[1], *edit.lone))
        chance = math.exp(-self._weight(edit))
        blame = BLAME.get(edit.kind, 0.0) * (1 if trial.failure is None else BROKEN)
        if not blame or chance >= 1:
            return
        for place in self._gone(edit):
            old = self.needed.get(id(place.node), LEAST)
            self.needed[id(place.node)] = min(MOST, old + (old / (1 - chance) - old) * blame)

    def _gone(self, edit: Edit) -> Iterator[Place]:
        for start, stop in edit.gone:
            at = start
            while at < stop:
                skip = next((end for begin, end in edit.kept if begin == at), 0)
                if skip:
                    at = skip
                else:
                    yield self.places[at]
                    at += 1

    def _weight(self, edit: Edit) -> float:
        return sum(-math.log1p(-self.needed.get(id(p.node), LEAST)) for p in self._gone(edit))

    def _scores(self, edits: list[Edit]) -> list[tuple[float, int]]:
        """The edits, the most promising first."""
        weights = [0.0]
        for place in self.places:
            weights.append(weights[-1] - math.log1p(-self.needed.get(id(place.node), LEAST)))
        rates = {kind: won / tried for kind, (won, tried) in self.rates.items()}
        scores = []
        for at, edit in enumerate(edits):
            weight, nodes = 0.0, -edit.added
            for start, stop in edit.gone:
                weight += weights[stop] - weights[start]
                nodes += stop - start
            for start, stop in edit.kept:
                weight -= weights[stop] - weights[start]
                nodes -= stop - start
            gain = max(nodes, TINY) * math.exp(-weight * STAKE.get(edit.kind, 1.0)) * rates[edit.kind] * edit.odds
            if edit.kind == "name":
                gain *= TINY
            scores.append((gain, at))
        if self.in_order:
            return sorted(((-gain, at) for gain, at in scores), key=lambda item: reading_order(edits[item[1]]))
        return sorted(((-gain, at) for gain, at in scores))

    def _choose(self, edits: list[Edit], sweeping: bool) -> list[Candidate]:
        batch: list[Candidate] = []
        chosen: set[str] = set()
        wanted = max(1, self.oracle.batch)
        for _, at in self._scores(edits):
            edit = edits[at]
            if edit.key in self.settled or (not sweeping and edit.key in self.failed):
                continue
            candidate = None if self._implied(edit) else self._candidate(edit)
            if candidate is None:
                self.failed.add(edit.key)
                self.settled.add(edit.key)
            elif candidate.sql not in chosen:
                chosen.add(candidate.sql)
                batch.append(candidate)
                if len(batch) == wanted:
                    break
        return batch

    def _implied(self, edit: Edit) -> bool:
        """Whether the edit computes only a part of what was computed in this place without any error."""
        if edit.lone is None:
            return False
        return any(
            slot == edit.key[1]
            and (edit.lone[0] < 0 or start <= edit.lone[0] < end)
            and not any(type(p.node).__name__ in LAZY for p in self.places[max(start, 0) : end])
            for slot, start, end in self.harmless
        )

    def _candidate(self, edit: Edit) -> Candidate | None:
        """The SQL of an edit; None if it is none, not smaller, or was run before."""
        before = edit.apply()
        try:
            sql = to_sql(self.root.script, self.known, edit.changes)
        except Unprintable:
            return None
        finally:
            undo(before)
        if self.lead and sql.lower().startswith(self.lead.strip().lower()):
            sql = self.lead + sql[len(self.lead.strip()) :].lstrip()
        if not sql or sql in self.seen:
            return None
        try:
            script = parsed(sql)
        except PglastError:
            return None
        size, names = weigh(sql, script)
        if "None" in sql and "None" not in self.input_names and re.search(r"\bNone\b", sql):
            return None
        if not size.improves(self.size, edit.kind in REWRITES) or not names <= self.input_names:
            return None
        if not self.allowed(script):
            return None
        if self.required not in sql or (self.resolved and dangling(script)):
            return None
        return Candidate(edit, sql, size)


def reading_order(edit: Edit) -> tuple[object, ...]:
    """Whole clauses before parts, outer before inner: LIMIT and ORDER BY first, then the heart of the statement."""
    start = min((start for start, _ in edit.gone), default=1 << 30)
    last = edit.kind == "clear" and edit.key[2] in ("limitCount", "limitOffset", "sortClause", "lockingClause")
    rank = {"clear": 0, "drop": 1, "null": 2, "hoist": 3}.get(edit.kind, 4)
    return rank, not last, -start if last else start
