"""The order in which edits are tried."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush, heapreplace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from reconciler.tools.sqlreduce.edits import Edit

if TYPE_CHECKING:
    from reconciler.tools.sqlreduce.search import Search

TINY = 0.05  # the gain of an edit that takes no node: it waits until the big ones are through
STAKE = {"clear": 0.5, "drop": 0.7}  # a clause or an item hangs together: it is needed or not as one


class Queue:
    """The edits of a tree that are still to be tried, the most promising first.

    What is learned from failures only makes edits less promising. So what an edit was worth once is a bound, and only
    those that come first are weighed again.

    Attributes:
        edits: all edits of the tree.
        sweeping: whether edits are tried again which failed in an earlier state of the tree.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        self.edits: list[Edit] = []
        self.sweeping = False
        self.heap: list[tuple[Any, int]] = []
        self.borrowed: list[int] = []
        self.sums: list[float] = []

    def fill(self, edits: list[Edit], *, sweeping: bool = False) -> None:
        """Begins anew."""
        self.edits, self.sweeping = edits, sweeping
        self.borrowed.clear()
        search = self.search
        skipped = search.settled if sweeping else search.failed
        wanted = [(at, edit) for at, edit in enumerate(edits) if edit.key not in skipped]
        if search.in_order:
            self.heap = [(reading_order(edit), at) for at, edit in wanted]
        else:
            self.weigh()
            self.heap = [(-self._gain(edit), at) for at, edit in wanted]
        heapify(self.heap)

    def weigh(self) -> None:
        """Takes note of what was learned."""
        if not self.search.in_order:
            self.sums = list(accumulate(map(self.search.weight, self.search.places), initial=0.0))

    def pop(self) -> int | None:
        """Takes the most promising edit out.

        Returns:
            where it is among the edits; None if there is none
        """
        if self.borrowed:
            self.push(self.borrowed)
            self.borrowed.clear()
        return self._pop()

    def borrow(self) -> int | None:
        """The next edit behind those that were borrowed already; `pop` gives them all back first."""
        at = self._pop()
        if at is not None:
            self.borrowed.append(at)
        return at

    def _pop(self) -> int | None:
        settled = self.search.settled
        while self.heap:
            bound, at = self.heap[0]
            edit = self.edits[at]
            if edit.key in settled:
                heappop(self.heap)
                continue
            if not self.search.in_order:
                now = -self._gain(edit)
                if now > bound:
                    heapreplace(self.heap, (now, at))
                    continue
            heappop(self.heap)
            return at
        return None

    def push(self, popped: list[int]) -> None:
        """Puts edits back."""
        for at in popped:
            edit = self.edits[at]
            heappush(self.heap, (reading_order(edit) if self.search.in_order else -self._gain(edit), at))

    def _gain(self, edit: Edit) -> float:
        """How many nodes an edit can be expected to take away, by what it can be expected to cost."""
        sums = self.sums
        weight, nodes = 0.0, -edit.added
        for place in edit.gone:
            weight += sums[place.end] - sums[place.order]
            nodes += place.end - place.order
        for place in edit.kept:
            weight -= sums[place.end] - sums[place.order]
            nodes -= place.end - place.order
        won, tried = self.search.rates[edit.kind]
        odds = math.exp(-weight * STAKE.get(edit.kind, 1.0)) * (won / tried) * edit.odds
        gain = max(nodes, TINY) * odds / (1 + (self.search.price - 1) * min(odds, 1.0))
        return gain * TINY if edit.kind == "name" else gain


def reading_order(edit: Edit) -> tuple[object, ...]:
    """Whole clauses before parts, outer before inner: LIMIT and ORDER BY first, then the heart of the statement."""
    start = min([place.order for place in edit.gone], default=1 << 30)
    last = edit.kind == "clear" and edit.key[2] in ("limitCount", "limitOffset", "sortClause", "lockingClause")
    rank = {"clear": 0, "drop": 1, "null": 2, "hoist": 3}.get(edit.kind, 4)
    return rank, not last, -start if last else start
