"""Ways to targets. Each module here has `connect(target, reveal) -> Connection`; a target names its module."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from reconciler.errors import ContractError
from reconciler.model import Connection, Read, Reply, Secret, StepResult, Target, Work

Reveal = Callable[[Secret], str]


def no_secrets(secret: Secret) -> str:
    """The default of `reveal`: for targets that are reached without a secret.

    Raises:
        ContractError: always.
    """
    raise ContractError("the caller", f"{secret} is needed to connect, and nobody gave a way to look it up.")


def connect(target: Target, reveal: Reveal = no_secrets) -> Connection:
    """A connection to a target. It is opened when it is first used.

    Args:
        reveal: looks up what the connection logs in with, and the secrets in the bodies of reads.
    """
    module = importlib.import_module(f"reconciler.connections.{target.connection}")
    connection: Connection = module.connect(target, reveal)
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

    def settle(self, witnesses: Sequence[str]) -> None:
        """See `Connection.settle`."""
        self._inner.settle(witnesses)

    def close(self) -> None:
        """See `Connection.close`."""
        self._inner.close()


class Pool:
    """The connections of one run, one for each target, and the threads that use them side by side; closed together.

    Args:
        targets: by name.
        parallel: how many targets are worked on at once.
        read_only: hand out connections that cannot write.
        reveal: looks up secrets for connections.
        opener: how a connection is made.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        *,
        parallel: int = 20,
        read_only: bool = False,
        reveal: Reveal = no_secrets,
        opener: Callable[[Target, Reveal], Connection] = connect,
    ) -> None:
        self.targets, self._read_only, self._reveal, self._opener = targets, read_only, reveal, opener
        self.executor = ThreadPoolExecutor(parallel, thread_name_prefix="target")
        self._open: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Connection:
        """The connection to a target."""
        with self._lock:
            if name not in self._open:
                connection = self._opener(self.targets[name], self._reveal)
                self._open[name] = ReadOnly(connection) if self._read_only else connection
            return self._open[name]

    def fresh(self, name: str) -> Connection:
        """Another connection to a target, which logs in anew and shares nothing with others. The caller closes it."""
        target = self.targets[name]
        return self._opener(replace(target, settings={**target.settings, "fresh": True}), self._reveal)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.executor.shutdown()
        with self._lock:
            for connection in self._open.values():
                connection.close()
            self._open.clear()
