"""What works in a cluster without being asked: each controller looks at the objects and moves them one step on.

A controller is a function of the `Cluster`. It returns when it will have something to do by itself (POSIX seconds),
or None. `run` calls all of them until none changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reconciler.lab.kubernetes.api import ApiServer
from reconciler.lab.kubernetes.resources import Resource
from reconciler.lab.kubernetes.store import Store
from reconciler.lab.kubernetes.writes import Writes

Controller = Callable[["Cluster"], float | None]
ROUNDS = 200  # more than any object here needs to come to rest


@dataclass
class Cluster:
    """What controllers work with. `memory` is for what they keep for themselves (JSON: it goes into snapshots)."""

    api: ApiServer
    pod_start_seconds: float = 0.3
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """The objects."""
        return self.api.store

    @property
    def writes(self) -> Writes:
        """How they are changed."""
        return self.api.writes

    @property
    def time(self) -> float:
        """POSIX seconds by the emulator's clock."""
        return self.writes.clock()

    def resource(self, group: str, plural: str) -> Resource:
        """A resource that is served."""
        return self.api.resource(group, plural)


def run(cluster: Cluster, controllers: list[Controller]) -> float | None:
    """Runs controllers until nothing changes. Gives back when the next one is due."""
    due: list[float] = []
    for _ in range(ROUNDS):
        before = cluster.store.revision
        due = [at for at in (controller(cluster) for controller in controllers) if at is not None]
        if cluster.store.revision == before:
            break
    return min(due) if due else None
