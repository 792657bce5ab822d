"""The oracle that asks a PostgreSQL server."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

import psycopg

from reconciler.tools.sqlreduce.oracle import (
    Failure,
    Match,
    NoError,
    Refused,
    ServerUnavailable,
    Trial,
    WrongTarget,
)
from reconciler.tools.sqlreduce.outline import outline
from reconciler.tools.sqlreduce.safety import explainable
from reconciler.tools.sqlreduce.session import DEALLOCATE, PATIENCE, Job, Lost, Opening, Result, Session, nothing
from reconciler.tools.sqlreduce.tree import every, parsed

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

BATCH = 4  # candidates that travel together to a server that is far
READ_ONLY = "25006"  # SQLSTATE: a write in a read-only transaction
CRASHED_ELSEWHERE = "57P02"
HASTY = 0.1  # of the timeout, after which a candidate counts as slow until `confirm` says otherwise
SETTLE = 0.1  # seconds from the end of one connection until a crashed server has ended all others
SLOWER = 20  # times as long as the input, at most, runs a candidate that is worth waiting for
SOON = 0.2  # of the timeout, which a candidate may take in any case
LOSSES = 5  # lost connections in a row that are no candidate's fault before we give up


class PostgresOracle:
    """Runs candidates on PostgreSQL. Nothing persists: each has its own transaction, which is rolled back.

    The input runs in a read-only transaction first. Where its error shows while it is parsed or planned, the
    candidates are only parsed or planned, too. Only if it must write, and may, a transaction can write; then the
    sequences are put aside, whose values no rollback takes back.

    Args:
        dsn: connection string; empty: the defaults and environment of libpq.
        match: what counts as the same error.
        timeout: seconds for each statement.
        jobs: parallel connections.
        read_only: never write.
        advance_sequences: write even where sequences of others would advance.

    Raises:
        ServerUnavailable: it cannot be reached
    """

    def __init__(
        self,
        dsn: str = "",
        *,
        match: Match | None = None,
        timeout: float = 0.5,
        jobs: int = 1,
        read_only: bool = False,
        advance_sequences: bool = False,
    ) -> None:
        self.dsn, self.match, self.timeout = dsn, match or Match(), timeout
        self.jobs = 1 if self.match.kind == "crash" else max(1, jobs)
        self.read_only, self.advance_sequences = read_only, advance_sequences
        self.target = Failure("")
        self.losses = 0
        self.grace = timeout  # seconds to look whether slow candidates fail like the input after all
        self.sessions = [Session(dsn, timeout)]
        self.sessions[0].patient = self.match.kind == "crash"  # what happens is the last job's doing
        self.far = self.sessions[0].is_far()
        self.meanwhile: Callable[[], bool] = nothing
        # When the server crashes, all connections end: an idle one tells a crash from a connection that broke.
        self.witness = Session(dsn, timeout) if self.match.kind == "crash" else None
        self.pool: ThreadPoolExecutor | None = None
        self.opening: Opening | None = None  # of the connection for the last check

    def __enter__(self) -> PostgresOracle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        if self.pool:
            self.pool.shutdown()
        if self.opening:
            self.opening.close()
        for session in (*self.sessions, *filter(None, [self.witness])):
            session.close()

    @property
    def batch(self) -> int:
        """One candidate for each job; more where the server is far away."""
        return self.jobs * (BATCH if self.far and self.match.kind == "error" else 1)

    def start(self, query: str) -> Failure:
        """Runs the input, first so that it cannot write.

        Raises:
            NoError, WrongTarget, Refused, ServerUnavailable: see there
        """
        session = self.sessions[0]
        job = job_of(query)
        began = time.monotonic()
        result = self._one(job)
        if result.failure is not None and result.failure.sqlstate == READ_ONLY:
            if self.read_only:
                raise WrongTarget(
                    f"The query needs to write before it fails: {result.failure.message}. "
                    "Without --read-only it runs in a transaction that is rolled back."
                )
            session.begin = (b"BEGIN", *self._protect(query))
            began = time.monotonic()
            result = self._one(job)
        took = time.monotonic() - began
        if result.failure is None:
            raise NoError("The query raises no error.")
        stage = result.stage if job.explain and not job.plain else ""  # of others, names are looked up when they run
        self.target = replace(result.failure, stage=stage, exact=self.match.mode == "message")
        if self.target.sqlstate == "55P03" and "ProcessInterrupts" in self.target.source:
            raise WrongTarget(f"The query waits for a lock that others hold: {self.target.message}.")
        problem = self.match.accepts(self.target)
        if problem:
            raise WrongTarget(problem)
        if len(job.statements) == 1 and not job.plain and self.match.kind != "timeout":
            session.stage = result.stage  # where a timeout strikes is chance
        session.exploring = False
        if any(statement.kind in ("PrepareStmt", "DoStmt", "CallStmt") for statement in outline(query).statements):
            session.clean = (*session.clean, DEALLOCATE)
        for _ in range(self.jobs - 1):
            self._add_session()
        if self.match.kind == "timeout":
            self._limit(max(HASTY * self.timeout, 0.05))
        elif self.match.kind == "error":
            self._limit(min(max(SLOWER * took, SOON * self.timeout), self.timeout))
        if self.match.kind != "crash":
            with contextlib.suppress(psycopg.Error):
                self.opening = Opening(self.dsn)
        return self.target

    def _limit(self, seconds: float) -> None:
        for session in self.sessions:
            session.set_timeout(seconds)

    def _add_session(self) -> None:
        first = self.sessions[0]
        more = Session(self.dsn, self.timeout)
        more.begin, more.stage, more.clean, more.exploring = first.begin, first.stage, first.clean, False
        self.sessions.append(more)

    def _protect(self, query: str) -> tuple[bytes, ...]:
        """Statements that give each sequence a new, private file: what `nextval` takes goes with the rollback.

        Raises:
            Refused: a sequence that the query may advance belongs to others
        """
        from psycopg import sql as compose

        words = {word.lower() for word in _words(query)}
        with contextlib.closing(psycopg.connect(self.dsn, autocommit=True)) as connection:
            rows = connection.execute(_SEQUENCES).fetchall()
        mine, others = [], []
        for schema, name, increment, table, owned in rows:
            named = name in words or table in words
            if owned and (named or len(rows) <= 64):
                mine.append(
                    compose.SQL("ALTER SEQUENCE {} INCREMENT BY {}")
                    .format(compose.Identifier(schema, name), compose.Literal(increment))
                    .as_string(None)
                    .encode()
                )
            elif named and not owned:
                others.append(f"{schema}.{name}")
        if others and not self.advance_sequences:
            raise Refused(
                f"The query may advance {', '.join(sorted(others))}: no rollback takes that back, and only "
                "the owner of a sequence can protect it. --advance-sequences accepts it."
            )
        return tuple(mine)

    def first(self, queries: Sequence[str]) -> Sequence[Trial]:
        """Runs candidates up to the first that matches; a batch that is on its way runs to its end."""
        jobs = [job_of(query) for query in queries]
        results: list[Result] = []
        if self.opening:
            self.opening.advance()
        if self.jobs > 1 and len(jobs) > 1:
            if self.pool is None:
                from concurrent.futures import ThreadPoolExecutor  # which a run with one job need not load

                self.pool = ThreadPoolExecutor(self.jobs)
            share = -(-len(jobs) // self.jobs)
            parts = [jobs[at : at + share] for at in range(0, len(jobs), share)]
            for part in self.pool.map(self._many, self.sessions[: len(parts)], parts):
                results += part
        else:
            self.sessions[0].meanwhile = self.meanwhile
            results = self._many(self.sessions[0], jobs)
            self.sessions[0].meanwhile = nothing
        if self.match.kind == "error":
            results = [self._again(job, result) for job, result in zip(jobs, results, strict=True)]
        return [
            Trial(query, self.match.same(self.target, result.failure), result.failure)
            for query, result in zip(queries, results, strict=True)
        ]

    def _again(self, job: Job, result: Result) -> Result:
        """Gives a candidate that was cut short all of its time, as long as such candidates have not cost too much."""
        hasty = self.sessions[0].timeout
        if result.failure is None or result.failure.kind != "timeout" or hasty >= self.timeout or self.grace <= 0:
            return result
        self._limit(self.timeout)
        began = time.monotonic()
        result = self._one(job)
        self.grace -= time.monotonic() - began
        if not self.match.same(self.target, result.failure):
            self._limit(hasty)
        return result

    def confirm(self, query: str) -> bool:
        """Runs the query on a fresh connection, in full, and compares. After a no, slowness is measured in full."""
        for session in self.sessions:
            with contextlib.suppress(Lost):
                session.settle()
        session = Session(self.dsn, self.timeout, opening=self.opening)
        self.opening = None
        session.begin = self.sessions[0].begin
        with contextlib.closing(session):
            (result,) = self._many(session, [job_of(query)])
        same = self.match.same(self.target, result.failure)
        if not same:
            self._limit(self.timeout)
        return same

    def _one(self, job: Job) -> Result:
        return self._many(self.sessions[0], [job])[0]

    def _many(self, session: Session, jobs: Sequence[Job]) -> list[Result]:
        """Runs jobs on one connection, on another one after a loss.

        Raises:
            ServerUnavailable: the connection is lost again and again
        """
        results: list[Result] = []
        while len(results) < len(jobs):
            try:
                results += session.run(jobs[len(results) :])
                if len(results) == len(jobs):
                    self.losses = 0
                    break
                continue  # the connection broke behind these results; the next run tells how
            except Lost as lost:
                failure = self._after(session, lost)
            if failure is not None:
                results.append(Result(failure))
            if failure is None or self.match.kind != "crash":
                self.losses += 1
            if self.losses > LOSSES:
                raise ServerUnavailable(f"The connection was lost {self.losses} times in a row.")
        return results

    def _after(self, session: Session, lost: Lost) -> Failure | None:
        """Connects again after a connection broke.

        Returns:
            how the job failed that was running; None if another process crashed, and the job is to run again
        """
        failure = lost.failure
        if failure is None and self.witness is not None:
            pgconn = self.witness.connection.pgconn
            fell = bool(select.select([pgconn.socket], [], [], PATIENCE / 10)[0])
            failure = Failure(str(lost), kind="crash" if fell else "error")
        elif failure is None:
            time.sleep(SETTLE)  # the server may still be about to end all other connections
            failure = Failure(str(lost), kind="crash")
        with contextlib.suppress(psycopg.Error):
            session.close()
        session.reconnect(PATIENCE)
        if self.witness is not None:
            self.witness.close()
            self.witness.reconnect(PATIENCE)
        if session is not self.sessions[0] and failure.kind == "crash":
            self.sessions[0].close()
            self.sessions[0].reconnect(PATIENCE)
        return None if lost.late or failure.sqlstate == CRASHED_ELSEWHERE else failure


_SEQUENCES = """
SELECT n.nspname, c.relname, s.seqincrement, t.relname, pg_has_role(c.relowner, 'USAGE')
  FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
       AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
  LEFT JOIN pg_class t ON t.oid = d.refobjid
 WHERE c.relpersistence <> 't' AND (pg_has_role(c.relowner, 'USAGE') OR has_sequence_privilege(c.oid, 'USAGE, UPDATE'))
"""


def _words(query: str) -> list[str]:
    out: list[str] = []
    for node in every(parsed(query)):
        for name in ("relname", "sval"):
            value = getattr(node, name, None)
            if isinstance(value, str):
                out += value.replace('"', "").replace(".", " ").split()
    return out


def job_of(query: str) -> Job:
    """How a query has to be run."""
    known = outline(query)
    statements = known.statements
    kinds = {statement.kind for statement in statements}
    parameters = known.has("ParamRef") and "PrepareStmt" not in kinds
    texts = tuple(statement.text for statement in statements)
    return Job(texts, explainable(known), parameters or "CopyStmt" in kinds)
