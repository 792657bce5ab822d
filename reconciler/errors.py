"""Every error that this package raises on purpose.

ReconcilerError                 shown to the user without a traceback, exit status 1
├── InvalidInput                the desired state or an argument is wrong; carries all problems at once
├── PlanError                   a plan cannot be made, read or used
│   ├── PlanTampered            the file does not match its own digest
│   ├── PlanExpired             too old to be applied
│   └── PlanRefused             a guard says no (too many deletions, empty desired state, ...)
├── ConnectError                a target cannot be reached or does not prove who it is
│   └── HostKeyError            unknown or changed host key
├── ConnectionLost              a connection broke while work was under way: the outcome is unknown
├── ProbeFailed                 a target answered, but not with what the probe needs
├── TargetMoved                 a target is not as it was expected to be any more; nothing was done
├── StepFailed                  a step ended with an error on the target
├── SecretError                 a secret cannot be found or read (never carries its value)
├── StoreError                  the local store cannot be read or written
│   └── LeaseLost               another run took over this target; nothing more is written
└── ContractError               a resource type or kind broke its contract: a bug, named as such
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file; line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where, and how to mend it."""

    message: str
    fix: str = ""
    subject: str = ""
    position: Position | None = None

    def __str__(self) -> str:
        place = f"{self.position}: " if self.position else ""
        subject = f"{self.subject}: " if self.subject else ""
        return f"{place}{subject}{self.message}" + (f" {self.fix}" if self.fix else "")

    def to_json(self) -> dict[str, object]:
        """The problem as a JSON object; `file`, `line` and `column` only where a place is known."""
        out: dict[str, object] = {"message": self.message, "fix": self.fix, "subject": self.subject}
        if self.position:
            out |= {"file": self.position.file, "line": self.position.line, "column": self.position.column}
        return out


class ReconcilerError(Exception):
    """Base of all; its text is what the user reads."""


class InvalidInput(ReconcilerError):
    """The desired state or an argument is wrong.

    Attributes:
        problems: all that were found, in file order.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = sorted(
            dict.fromkeys(problems),
            key=lambda p: (p.position is None, p.position or Position("", 0, 0), p.subject, p.message),
        )
        super().__init__("\n".join(map(str, self.problems)))


class PlanError(ReconcilerError):
    """A plan cannot be made, read or used."""


class PlanTampered(PlanError):
    """The plan file does not match its own digest."""


class PlanExpired(PlanError):
    """The plan is older than it may be."""


class PlanRefused(PlanError):
    """A guard refuses the plan; the text says which, and how to override it."""


class ConnectError(ReconcilerError):
    """A target cannot be reached or authenticated."""


class HostKeyError(ConnectError):
    """A host key is unknown or changed; the text names the fingerprints."""


class ConnectionLost(ReconcilerError):
    """The connection broke while work was under way, so that the outcome is unknown."""


class ProbeFailed(ReconcilerError):
    """A target answered, but not with what the probe needs."""


class TargetMoved(ReconcilerError):
    """A target is not as it was expected to be any more, and nothing was done there."""


class StepFailed(ReconcilerError):
    """A step ended with an error on its target.

    Attributes:
        status: exit status or code of the step.
        output: the last lines that it printed, redacted.
    """

    def __init__(self, title: str, status: int, output: str) -> None:
        self.title, self.status, self.output = title, status, output
        tail = output.strip().splitlines()[-5:]
        super().__init__(f"{title}: exit status {status}" + ("".join(f"\n    {line}" for line in tail)))


class SecretError(ReconcilerError):
    """A secret cannot be found or read. Never carries its value."""


class StoreError(ReconcilerError):
    """The local store cannot be read or written."""


class LeaseLost(StoreError):
    """Another run holds this target's lease now; this run must not write any more."""


class ContractError(ReconcilerError):
    """A resource type or kind broke its contract."""

    def __init__(self, culprit: str, message: str) -> None:
        super().__init__(f"{message} This is a bug in {culprit}, please report it.")
