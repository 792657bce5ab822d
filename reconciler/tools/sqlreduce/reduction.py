"""From a query and an oracle to the reduction."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from reconciler.tools.sqlreduce.oracle import Failure, Oracle, Trial, Unstable
from reconciler.tools.sqlreduce.outline import outline
from reconciler.tools.sqlreduce.safety import admit, harmless, has_options
from reconciler.tools.sqlreduce.search import Counts, Search
from reconciler.tools.sqlreduce.tokens import without_noise
from reconciler.tools.sqlreduce.tree import measure

ATTEMPTS = 2  # the oracle may have been hasty, and is thorough after the first `confirm` that says no


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a reduction took.

    Attributes:
        executed: queries that were run, with the input and the last check.
        accepted: edits that kept the error.
        seconds: wall time.
        bytes, tokens, nodes: size of the minimal query.
        seen_bytes: of all queries that were run.
    """

    executed: int
    accepted: int
    seconds: float
    bytes: int
    tokens: int
    nodes: int
    seen_bytes: int


@dataclass(frozen=True, slots=True)
class Reduction:
    """The result.

    Attributes:
        query: the input.
        minimal: the smallest query found.
        error: how both fail.
        statistics: what it took.
        left_out: sentences about statements of the input that were not run.
    """

    query: str
    minimal: str
    error: Failure
    statistics: Statistics
    left_out: tuple[str, ...] = ()


def reduce(
    query: str, oracle: Oracle, *, tokens: bool = False, on_trial: Callable[[Trial], None] = lambda _: None
) -> Reduction:
    """Finds a minimal query that fails like `query`.

    Args:
        query: one or more statements.
        oracle: runs queries and compares failures.
        tokens: a last pass that removes single tokens where the text still parses.
        on_trial: called for each query that was run.

    Returns:
        the reduction; its query is 1-minimal: no single edit makes it smaller and keeps the error
    Raises:
        SqlReduceError: the input does not fail, is refused, ...: see `oracle.py`
    """
    began = time.monotonic()
    counts = Counts(executed=1)
    source = admit(query)
    target = oracle.start(source.sql)
    on_trial(Trial(source.sql, True, target))
    for _ in range(ATTEMPTS):
        with _without_collector():
            search = Search(oracle, source.sql, target, on_trial, counts, harmless)
            search.run()
            while (tokens or has_options(outline(search.sql))) and search.run_tokens():
                unplaced = replace(target, position=0)  # which says where it was in the input
                search = Search(oracle, search.sql, unplaced, on_trial, counts, harmless, search.seen)
                search.run()
        minimal = _confirmed(search, oracle, counts)
        if minimal:
            break
    else:
        raise Unstable(f"The reduced query does not fail the same way on a fresh connection: {search.sql}")
    size = measure(minimal)
    return Reduction(
        query,
        minimal,
        target,
        Statistics(
            counts.executed,
            counts.accepted,
            time.monotonic() - began,
            size.bytes,
            size.tokens,
            size.nodes,
            counts.seen_bytes,
        ),
        source.left_out,
    )


@contextmanager
def _without_collector() -> Iterator[None]:
    """Stops the garbage collector: trees come and go without cycles, and looking for some takes a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _confirmed(search: Search, oracle: Oracle, counts: Counts) -> str:
    """The result without noise, if it still fails on a fresh connection; else the result as it was run.

    Returns:
        the minimal query; empty if it does not fail any more
    """
    printed = search.known.text if search.known and not counts.accepted else search.sql
    texts = list(dict.fromkeys((without_noise(printed), without_noise(search.sql), search.sql)))
    if not counts.accepted:  # the input itself, which needs no proof, or the same with fewer parentheses and comments
        size = measure(search.sql).tokens
        texts = [text for text in texts if measure(text).tokens < size]
    for text in texts:
        counts.executed += 1
        if oracle.confirm(text):
            return text
    return "" if counts.accepted else search.sql
