"""Ways to targets. Each module here has `connect(target) -> Connection`; a target names its module."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from reconciler.errors import ContractError
from reconciler.model import Connection, Read, Reply, Secret, StepResult, Target, Work


def connect(target: Target) -> Connection:
    """A connection to a target. It is opened when it is first used."""
    module = importlib.import_module(f"reconciler.connections.{target.connection}")
    connection: Connection = module.connect(target)
    return connection


class ReadOnly:
    """A connection that cannot write: what plan and drift get."""

    def __init__(self, inner: Connection) -> None:
        self._inner = inner

    def read(self, reads: Sequence[Read]) -> Sequence[Reply]:
        """See `Connection.read`."""
        return self._inner.read(reads)

    def execute(self, batch: Sequence[Work], reveal: Callable[[Secret], str]) -> Iterable[StepResult]:
        """Never.

        Raises:
            ContractError: always.
        """
        raise ContractError("the caller", "A read-only connection was asked to write.")

    def close(self) -> None:
        """See `Connection.close`."""
        self._inner.close()


class Pool:
    """The connections of one run, one for each target, closed together.

    Args:
        targets: by name.
        read_only: hand out connections that cannot write.
        opener: how a connection is made.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        *,
        read_only: bool = False,
        opener: Callable[[Target], Connection] = connect,
    ) -> None:
        self.targets, self._read_only, self._opener = targets, read_only, opener
        self._open: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Connection:
        """The connection to a target."""
        with self._lock:
            if name not in self._open:
                connection = self._opener(self.targets[name])
                self._open[name] = ReadOnly(connection) if self._read_only else connection
            return self._open[name]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            for connection in self._open.values():
                connection.close()
            self._open.clear()
