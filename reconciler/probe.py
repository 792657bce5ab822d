"""Stage 5, probe: read the live state, in as few round trips as a target allows.

The probes of all types on a target advance in lockstep; the reads of one round go out together. The engine never
hands a probe anything but a `read` function, so a probe cannot write.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field
from typing import Any

from reconciler.errors import ConnectError, ConnectionLost, ContractError, ProbeFailed, ReconcilerError, SecretError
from reconciler.model import Absent, Connection, Probe, Read, Reply, Resource, State, Unprobed
from reconciler.registry import Registry

Observed = State | Absent | None | Unprobed
Observations = Mapping[str, Observed]
"""By address."""

ReadAll = Callable[[Sequence[Read]], Sequence[Reply]]


@dataclass(frozen=True)
class Look:
    """What was heard when a target was looked at.

    Attributes:
        heard: by type, each read with its reply.
        at: when, as `time.monotonic` counts.
    """

    heard: dict[str, list[tuple[Read, Reply]]] = field(default_factory=dict)
    at: float = field(default_factory=time.monotonic)


def probe_target(
    resources: Iterable[Resource[Any]], registry: Registry, read: ReadAll, look: Look | None = None
) -> dict[str, Observed]:
    """The state of resources of one target.

    Args:
        resources: all on the same target.
        read: answers a round of reads in one round trip.
        look: where to note what was heard.

    Raises:
        ConnectError, ConnectionLost: the target cannot be reached.
    """
    groups: dict[str, list[Resource[Any]]] = {}
    for resource in resources:
        groups.setdefault(resource.type, []).append(resource)
    states: dict[str, Observed] = {}
    active: list[tuple[str, Probe, Sequence[Read]]] = []

    def advance(name: str, probe: Probe, replies: Sequence[Reply] | None) -> None:
        try:
            wanted = next(probe) if replies is None else probe.send(replies)
        except StopIteration as stop:
            _settle(name, groups[name], stop.value, states)
        except ProbeFailed as error:
            states.update((r.address, Unprobed(str(error))) for r in groups[name])
        else:
            active.append((name, probe, wanted))

    for name in sorted(groups):
        advance(name, registry.type_of(name).probe([r.spec for r in groups[name]]), None)
    while active:
        waiting, active = active, []
        replies = read([one for _, _, wanted in waiting for one in wanted])
        start = 0
        for name, probe, wanted in waiting:
            answers = replies[start : start + len(wanted)]
            if look is not None:
                look.heard.setdefault(name, []).extend(zip(wanted, answers, strict=True))
            advance(name, probe, answers)
            start += len(wanted)
    return states


def _settle(name: str, group: Sequence[Resource[Any]], found: Any, states: dict[str, Observed]) -> None:
    if not isinstance(found, Sequence) or len(found) != len(group):
        raise ContractError(name, f"The probe of {name} did not return one state for each of {len(group)} objects.")
    states.update((r.address, state) for r, state in zip(group, found, strict=True))


def probe_all(
    by_target: Mapping[str, Sequence[Resource[Any]]],
    registry: Registry,
    connect: Callable[[str], Connection],
    executor: Executor,
    seen: Callable[[str, str | None], None] = lambda target, error: None,
    looks: dict[str, Look] | None = None,
) -> dict[str, Observed]:
    """Probe every target side by side. A target that does not answer makes its own resources `Unprobed`.

    Args:
        connect: gives the connection to a target, by name.
        seen: is told each target as it is finished, with the reason if it could not be read.
        looks: where to note what was heard of each target.
    """

    def one(target: str) -> dict[str, Observed]:
        look = None if looks is None else looks.setdefault(target, Look())
        return probe_target(by_target[target], registry, connect(target).read, look)

    states: dict[str, Observed] = {}
    futures = {executor.submit(one, target): target for target in by_target}
    for future in as_completed(futures):
        target = futures[future]
        reason = None
        try:
            states.update(future.result())
        except (ConnectError, ConnectionLost, ProbeFailed, SecretError) as error:
            # A login whose secret is missing is one more target that cannot be reached.
            reason = str(error)
            states.update((r.address, Unprobed(reason)) for r in by_target[target])
        except ReconcilerError:
            for other in futures:
                other.cancel()
            raise
        seen(target, reason)
    return states


def expect(reply: Reply, what: str) -> str:
    """The text of a reply that must have succeeded.

    Raises:
        ProbeFailed: it did not.
    """
    if reply.status != 0:
        raise ProbeFailed(f"{what} failed with exit status {reply.status}: {reply.text.strip()[-300:]}")
    return reply.text
