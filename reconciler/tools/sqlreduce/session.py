"""One connection to PostgreSQL that runs candidates, each in a transaction of its own that is rolled back.

libpq's pipeline mode sends a whole batch in one round trip. In it each message holds one statement, so that nothing
can be smuggled in behind a quote that the server reads differently. COPY and parameters need the plain mode.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import DiagnosticField, ExecStatus, PGconn, Ping, PollingStatus

from reconciler.tools.sqlreduce.oracle import Failure, ServerUnavailable

Stage: TypeAlias = Literal["parse", "plan", "run"]

PATIENCE = 30.0  # seconds that a server may take to come back, or to answer beyond its own timeouts
FAR = 0.002  # seconds of a round trip from which a server is far
PIECE = 500  # rows
PAUSE = 0.01  # seconds between two attempts to connect
PARAMETERS: dict[str, Any] = {"connect_timeout": 10, "fallback_application_name": "reconciler sqlreduce"}
ROLLBACK = b"ROLLBACK"
UNLOCK = b"SELECT pg_catalog.pg_advisory_unlock_all()"
DEALLOCATE = b"DEALLOCATE ALL"


@dataclass(frozen=True, slots=True)
class Job:
    """One script to be run.

    Attributes:
        statements: its statements, one text each.
        explain: whether EXPLAIN comes between parsing and running.
        plain: it needs a mode without pipeline.
    """

    statements: tuple[str, ...]
    explain: bool = False
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended, and at which stage if it failed."""

    failure: Failure | None
    stage: Stage = "run"


def nothing() -> bool:
    """There is nothing to be done meanwhile."""
    return False


class Lost(Exception):
    """The connection broke.

    Attributes:
        failure: the server's last word, if it had one.
        late: whether it broke after the job before, so that the one to be run is not to blame.
    """

    def __init__(self, failure: Failure | None, text: str, *, late: bool = False) -> None:
        self.failure, self.late = failure, late
        super().__init__(text)


class Opening:
    """A connection that is made while other things are done, so that nobody waits for it."""

    def __init__(self, dsn: str) -> None:
        self.pgconn = PGconn.connect_start(make_conninfo(dsn, **PARAMETERS).encode())
        self.status = PollingStatus.WRITING  # as libpq wants it
        self.advance()

    def advance(self, within: float = 0.0) -> bool:
        """Does what can be done now, or within some seconds.

        Returns:
            whether the connection has been made, or has failed
        """
        deadline = time.monotonic() + within
        try:
            while self.status in (PollingStatus.READING, PollingStatus.WRITING):
                here, none = [self.pgconn.socket], list[int]()
                wanted = (here, none) if self.status == PollingStatus.READING else (none, here)
                if not any(select.select(*wanted, none, max(0.0, deadline - time.monotonic()))):
                    return False
                self.status = PollingStatus(self.pgconn.connect_poll())
        except psycopg.Error:
            self.status = PollingStatus.FAILED
        return True

    def connection(self) -> psycopg.Connection[Any] | None:
        """The connection; None if it could not be made, for whatever reason."""
        if self.advance(PARAMETERS["connect_timeout"]) and self.status == PollingStatus.OK:
            connection: psycopg.Connection[Any] = psycopg.Connection(self.pgconn)
            connection.autocommit = True
            return connection
        self.close()
        return None

    def close(self) -> None:
        """Gives it up."""
        self.pgconn.finish()


class Session:
    """A connection and its settings.

    Attributes:
        begin: how a candidate's transaction begins.
        stage: how far candidates go: a query that fails to parse need not run.
        exploring: whether the stage is still to be found, for which a query is parsed, planned and run by turns.
        clean: what undoes the effects on the session that a rollback leaves.
    """

    def __init__(
        self, dsn: str, timeout: float, *, connect_within: float = 0.0, opening: Opening | None = None
    ) -> None:
        self.dsn, self.timeout = dsn, timeout
        self.begin: tuple[bytes, ...] = (b"BEGIN TRANSACTION READ ONLY",)
        self.stage: Stage = "run"
        self.exploring = True
        self.clean: tuple[bytes, ...] = (UNLOCK,)
        self.pipeline = False
        self.owed = False  # whether the end of the last job's transaction is still to be heard of
        self.patient = False  # whether to wait for that end before the next job is chosen
        self.meanwhile: Callable[[], bool] = nothing
        self.broken: Lost | None = None  # a loss that the next run has to tell
        ready = opening.connection() if opening else None
        try:
            if ready is not None:
                self._settings(ready)
        except psycopg.OperationalError:  # it was made, and lost since
            ready = None
        self.connection = ready or self._connect(connect_within)

    def _connect(self, within: float) -> psycopg.Connection[Any]:
        """Connects and sets the timeouts; waits for a server that is starting, as after a crash.

        Raises:
            ServerUnavailable: there is no server
        """
        start = time.monotonic()
        while True:
            try:
                connection = psycopg.connect(self.dsn, autocommit=True, **PARAMETERS)
                self._settings(connection)
                return connection
            except psycopg.OperationalError as error:
                state = PGconn.ping(self.dsn.encode())
                while True:
                    if time.monotonic() - start >= (max(within, PATIENCE) if state == Ping.REJECT else within):
                        raise ServerUnavailable(f"Cannot connect to PostgreSQL: {str(error).strip()}") from error
                    time.sleep(PAUSE)
                    state = PGconn.ping(self.dsn.encode())
                    if state == Ping.OK:
                        break
            except psycopg.ProgrammingError as error:
                raise ServerUnavailable(f"The connection string is wrong: {str(error).strip()}") from error

    def _settings(self, connection: psycopg.Connection[Any]) -> None:
        """Sets the timeouts; they come back by themselves after a rollback."""
        limit = max(1, round(self.timeout * 1000))
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),"
            " set_config('idle_in_transaction_session_timeout', %s, false),"
            " set_config('standard_conforming_strings', 'on', false)",
            (str(limit), str(max(1, limit // 2)), str(limit + 60_000)),
        )

    def is_far(self) -> bool:
        """Whether a round trip takes so long that candidates should travel in batches."""
        address = self.connection.info.hostaddr
        if not address or address == "::1" or address.startswith("127."):
            return False
        start = time.monotonic()
        self.connection.execute("SELECT")
        return time.monotonic() - start >= FAR

    def reconnect(self, within: float) -> None:
        """Replaces a connection that broke.

        Raises:
            ServerUnavailable: the server does not come back within this time
        """
        self.pipeline, self.broken, self.owed = False, None, False
        self.connection = self._connect(within)

    def set_timeout(self, timeout: float) -> None:
        """Gives statements another time limit."""
        if timeout != self.timeout:
            self.timeout = timeout
            self._leave_pipeline()
            self._settings(self.connection)

    def settle(self) -> None:
        """Waits until the last job's transaction has ended.

        Raises:
            Lost: the connection broke
            ServerUnavailable: the server does not answer
        """
        if not self.owed:
            return
        try:
            self._read([], time.monotonic() + PATIENCE)
        except (Lost, psycopg.OperationalError) as error:
            raise Lost(getattr(error, "failure", None), str(error).strip(), late=True) from error
        finally:
            self.owed = False

    def _leave_pipeline(self) -> None:
        self.settle()
        if self.pipeline:
            self.connection.pgconn.exit_pipeline_mode()
            self.pipeline = False
        self.connection.pgconn.nonblocking = 0

    def close(self) -> None:
        """Ends the connection; the server rolls back what is open."""
        self.connection.close()

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Runs jobs, each in its own transaction.

        Returns:
            a result for each job; fewer if the connection broke at the one after the last
        Raises:
            Lost: the connection broke at the first job
            ServerUnavailable: the server does not answer
        """
        if self.broken is not None:
            raise self.broken
        results: list[Result] = []
        todo = list(jobs)
        while todo:
            plain = todo[0].plain
            count = 1 if plain else next((at for at, job in enumerate(todo) if job.plain), len(todo))
            try:
                if plain:
                    results.append(self._plain(todo[0]))
                else:
                    self._piped(todo[:count], results)
            except Lost as lost:
                if not results:
                    raise
                self.broken = lost
                return results
            del todo[:count]
        return results

    # --- pipeline mode

    def _piped(self, jobs: Sequence[Job], results: list[Result]) -> None:
        pgconn = self.connection.pgconn
        deadline = time.monotonic() + self.timeout * len(jobs) * 3 + PATIENCE
        plans: list[list[Stage]] = []
        try:
            if not self.pipeline:
                pgconn.nonblocking = 1
                pgconn.enter_pipeline_mode()
                self.pipeline = True
            for job in jobs:
                plans.append(self._send(job))
            self._flush(deadline)
            for plan in plans:
                self.settle()
                results.append(self._read(plan, deadline))
                self.owed = True
            if self.exploring or self.patient:
                self.settle()
        except psycopg.OperationalError as error:
            raise Lost(None, str(error).strip(), late=self.owed) from error

    def _send(self, job: Job) -> list[Stage]:
        """Queues one job.

        Returns:
            the stage of each message before the first sync
        """
        pgconn = self.connection.pgconn
        plan: list[Stage] = []
        for text in self.begin:
            pgconn.send_query_params(text, None)
            plan.append("parse")
        if len(job.statements) == 1:
            sql = job.statements[0].encode()
            if self.exploring or self.stage != "run":
                pgconn.send_prepare(b"", sql)
                plan.append("parse")
            if job.explain and (self.exploring or self.stage == "plan"):
                pgconn.send_query_params(b"EXPLAIN " + sql, None)
                plan.append("plan")
            if self.stage == "run":
                pgconn.send_query_params(sql, None)
                plan.append("run")
        else:
            for statement in job.statements:
                pgconn.send_query_params(statement.encode(), None)
                plan.append("run")
        pgconn.pipeline_sync()
        pgconn.send_query_params(ROLLBACK, None)
        if self.stage == "run":
            for text in self.clean:
                pgconn.send_query_params(text, None)
        pgconn.pipeline_sync()
        return plan

    def _flush(self, deadline: float) -> None:
        pgconn = self.connection.pgconn
        while pgconn.flush():
            readable, _, _ = select.select([pgconn.socket], [pgconn.socket], [], self._left(deadline))
            if readable:
                pgconn.consume_input()

    def _left(self, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ServerUnavailable("The server does not answer any more.")
        return left

    def _in_pieces(self) -> None:
        """Has a result come in pieces, which are thrown away: a candidate may give any number of rows."""
        try:
            self.connection.pgconn.set_chunked_rows_mode(PIECE)
        except psycopg.NotSupportedError:
            self.connection.pgconn.set_single_row_mode()

    def _result(self, deadline: float) -> Any:
        pgconn = self.connection.pgconn
        while pgconn.is_busy():
            readable = select.select([pgconn.socket], [], [], 0)[0]
            if not readable and self.meanwhile():
                continue
            if readable or select.select([pgconn.socket], [], [], self._left(deadline))[0]:
                pgconn.consume_input()
        return pgconn.get_result()

    def _read(self, plan: list[Stage], deadline: float) -> Result:
        """Reads replies up to the next sync: those to a job, or those to the end of its transaction.

        Args:
            plan: the stage of each message of the job; empty for the end of a transaction
            deadline: when to give up
        """
        outcome = Result(None)
        at, gaps, fresh = 0, 0, True
        fatal = None
        while True:
            if fresh and at < len(plan) and plan[at] == "run" and outcome.failure is None:
                self._in_pieces()
            reply = self._result(deadline)
            fresh = reply is None
            if reply is None:
                at += 1
                gaps += 1
                if gaps > len(plan) + len(self.clean) + 4:
                    raise Lost(fatal, "the server closed the connection unexpectedly")
                continue
            gaps = 0
            if reply.status == ExecStatus.PIPELINE_SYNC:
                return outcome
            if reply.status == ExecStatus.FATAL_ERROR:
                failure = failure_of(reply)
                if failure is None:
                    raise Lost(fatal, (reply.error_message or b"").decode(errors="replace").strip())
                if _severity(reply) in ("FATAL", "PANIC"):
                    fatal = failure
                elif plan and outcome.failure is None:
                    outcome = Result(failure, plan[min(at, len(plan) - 1)])

    # --- plain mode

    def _plain(self, job: Job) -> Result:
        deadline = time.monotonic() + self.timeout * len(job.statements) * 3 + PATIENCE
        try:
            self._leave_pipeline()
            for text in self.begin:
                self._exchange(text, deadline)
            failure = None
            for statement in job.statements:
                failure = self._exchange(statement.encode(), deadline)
                if failure is not None:
                    break
            for text in (ROLLBACK, *self.clean):
                self._exchange(text, deadline)
        except psycopg.OperationalError as error:
            raise Lost(None, str(error).strip()) from error
        return Result(failure)

    def _exchange(self, sql: bytes, deadline: float) -> Failure | None:
        pgconn = self.connection.pgconn
        pgconn.send_query(sql)
        self._in_pieces()
        self._flush(deadline)
        failure = fatal = None
        while True:
            reply = self._result(deadline)
            if reply is None:
                if fatal:
                    raise Lost(fatal, fatal.message)
                return failure
            if reply.status == ExecStatus.COPY_OUT:
                while pgconn.get_copy_data(0)[0] > 0:
                    pass
            elif reply.status == ExecStatus.COPY_IN:
                pgconn.put_copy_end(None)
                self._flush(deadline)
            elif reply.status == ExecStatus.FATAL_ERROR:
                found = failure_of(reply)
                if found is None:
                    raise Lost(fatal, (reply.error_message or b"").decode(errors="replace").strip())
                if _severity(reply) in ("FATAL", "PANIC"):
                    fatal = found
                failure = failure or found


def _severity(reply: Any) -> str:
    return (reply.error_field(DiagnosticField.SEVERITY_NONLOCALIZED) or b"ERROR").decode()


def failure_of(reply: Any) -> Failure | None:
    """What the server says of an error; None if it is libpq that speaks, because the connection broke."""

    def read(field: DiagnosticField) -> str:
        value: bytes | None = reply.error_field(field)
        return (value or b"").decode(errors="replace")

    sqlstate = read(DiagnosticField.SQLSTATE)
    if not sqlstate:
        return None
    interrupted = read(DiagnosticField.SOURCE_FUNCTION) == "ProcessInterrupts"
    source = (DiagnosticField.SOURCE_FILE, DiagnosticField.SOURCE_LINE, DiagnosticField.SOURCE_FUNCTION)
    return Failure(
        message=read(DiagnosticField.MESSAGE_PRIMARY),
        sqlstate=sqlstate,
        position=int(read(DiagnosticField.STATEMENT_POSITION) or 0),
        source=":".join(map(read, source)),
        kind="timeout" if sqlstate == "57014" and interrupted else "error",
    )
