"""What says whether a candidate still fails the same way.

`Oracle` is a protocol: reducing against another database, a linter or a function in a test needs no PostgreSQL.

    SqlReduceError (a ReconcilerError)      its `status` is the exit status of `reconciler sqlreduce`
    ├── NoError             3               the input raises no error
    ├── Unparsable          4               the input is no SQL that the parser knows
    ├── WrongTarget         5               it fails in another way than the one asked for (a timeout, a crash, ...)
    ├── ServerUnavailable   6               no connection, or it was lost and does not come back
    ├── Refused             7               the input would leave something behind
    └── Unstable            8               the error does not come back on a fresh connection
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from reconciler.errors import ReconcilerError


class SqlReduceError(ReconcilerError):
    """A reduction is not possible; the text says why."""

    status = 1


class NoError(SqlReduceError):
    """The input raises no error."""

    status = 3


class Unparsable(SqlReduceError):
    """The input is no SQL that the parser knows."""

    status = 4


class WrongTarget(SqlReduceError):
    """The input fails in another way than the one that was asked for."""

    status = 5


class ServerUnavailable(SqlReduceError):
    """The server cannot be reached, or went away and does not come back."""

    status = 6


class Refused(SqlReduceError):
    """The input would leave something behind on the server."""

    status = 7


class Unstable(SqlReduceError):
    """The error does not come back when the query runs again."""

    status = 8


Kind: TypeAlias = Literal["error", "timeout", "crash"]


@dataclass(frozen=True, slots=True)
class Failure:
    """How a query failed.

    Attributes:
        message: the server's primary message.
        sqlstate: five characters; empty after a crash.
        position: character in the query, from 1; 0 if the server gave none.
        source: where in the server's source the error was raised, as `file:line:function`.
        stage: how far the query came: to its parsing (names and types are looked up), its planning, or its run;
            empty where the oracle does not know.
        exact: only a failure with the same first line counts as this one.
    """

    message: str
    sqlstate: str = ""
    position: int = 0
    source: str = ""
    kind: Kind = "error"
    stage: Literal["parse", "plan", "run", ""] = ""
    exact: bool = False

    def __str__(self) -> str:
        return {"error": "ERROR:  ", "timeout": "ERROR:  ", "crash": "CRASH:  "}[self.kind] + self.message

    @property
    def first_line(self) -> str:
        """The first line of the message: what follows may quote the query."""
        return self.message.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate that was run."""

    query: str
    matched: bool
    failure: Failure | None


class Oracle(Protocol):
    """Runs queries and compares how they fail with how the input failed."""

    @property
    def batch(self) -> int:
        """How many candidates to hand over at once. 1: each answer decides what is tried next."""

    def start(self, query: str) -> Failure:
        """Runs the input and remembers its failure.

        Raises:
            SqlReduceError: it does not fail, or not in a way to be reduced
        """

    def first(self, queries: Sequence[str]) -> Sequence[Trial]:
        """Runs candidates in order, up to the first that fails like the input; later ones may have run, too.

        Returns:
            a trial for each that was run, in order
        """

    def confirm(self, query: str) -> bool:
        """Whether the query fails like the input from a clean start, for example on a fresh connection."""


@runtime_checkable
class Waiting(Protocol):
    """An oracle that lets the search work on while others compute.

    Attributes:
        meanwhile: set by the search; to be called from the thread that called `first`, as often as there is time.
            Each call does a small piece of work, and says whether there is more.
    """

    meanwhile: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Match:
    """What counts as the same failure.

    Attributes:
        mode: `message` = SQLSTATE and first line of the message; `sqlstate`; `location` = SQLSTATE and the place in
            the server's source; `regex` = the message contains `pattern`; `crash`; `timeout`.
    """

    mode: Literal["message", "sqlstate", "location", "regex", "crash", "timeout"] = "message"
    pattern: re.Pattern[str] | None = field(default=None)

    @classmethod
    def parse(cls, text: str) -> Match:
        """What `--match` says.

        Raises:
            ValueError: no such mode, or a regular expression that does not compile
        """
        mode, _, pattern = text.partition("=")
        if mode == "regex" and pattern:
            try:
                return cls("regex", re.compile(pattern))
            except re.error as error:
                raise ValueError(f"the regular expression {pattern!r} does not compile: {error}") from error
        for known in ("message", "sqlstate", "location", "crash", "timeout"):
            if text == known:
                return cls(known)
        raise ValueError(f"unknown way to match {text!r}: use message, sqlstate, location, regex=.., crash or timeout")

    @property
    def kind(self) -> Kind:
        """The kind of failure that is reduced."""
        if self.mode in ("crash", "timeout"):
            return self.mode
        return "error"

    def accepts(self, target: Failure) -> str:
        """Why the input's failure is not one for this mode; empty if it is."""
        if target.kind == "timeout" and self.kind != "timeout":
            return (
                "The query ran into the statement timeout, so its error is not known. "
                "Raise --timeout, or reduce the slowness itself with --match timeout."
            )
        if target.kind == "crash" and self.kind != "crash":
            return (
                "The query crashed its server process. --match crash reduces it, "
                "and every attempt that succeeds restarts the server: use one of your own."
            )
        if target.kind != self.kind:
            return f"The query ends with {str(target)!r}, not with a {self.kind}."
        if self.pattern and not self.pattern.search(target.message):
            return f"The message {target.message!r} does not match {self.pattern.pattern!r}."
        return ""

    def same(self, target: Failure, other: Failure | None) -> bool:
        """Whether a candidate's failure counts as the input's."""
        if other is None or other.kind != target.kind:
            return False
        if self.mode == "regex" and self.pattern:
            return self.pattern.search(other.message) is not None
        if self.mode == "location":
            return (other.sqlstate, other.source) == (target.sqlstate, target.source)
        if self.mode == "message":
            return (other.sqlstate, other.first_line) == (target.sqlstate, target.first_line)
        return self.mode != "sqlstate" or other.sqlstate == target.sqlstate
