"""An emulator in the likeness of a live cluster: what a rehearsal works on.

The likeness holds the objects that the login may see, of all kinds that the emulator knows and of those that their
definitions declare, with uid, version and owners of fields. Secrets are in it for as long as the rehearsal lasts, in
memory. Rights, webhooks and quotas are not: the rehearsal's login may do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from reconciler.lab.kubernetes import KubernetesEmulator
from reconciler.lab.kubernetes.resources import Resource
from reconciler.lab.kubernetes.stand_in import behind
from reconciler.lab.stage import Stage
from reconciler.model import Get, Read, Reply, Target
from reconciler.types.kubernetes.places import collection, parsed
from reconciler.types.kubernetes.serving_certificate import is_openshift

ReadAll = Callable[[Sequence[Read]], Sequence[Reply]]
NOT_LIKE: Final = frozenset(("events", "endpoints", "endpointslices", "leases"))
"""What only says what happens, and changes all the time."""


def mirror(target: Target, read: ReadAll, stage: Stage) -> Target:
    """An emulator that holds what a live cluster shows.

    Args:
        read: answers reads of the live cluster.

    Raises:
        ConnectError: the live cluster cannot be reached.
    """
    (groups,) = read([Get("/apis")])
    emulator = KubernetesEmulator(openshift=is_openshift(groups), pod_start_seconds=0.1)
    known = [one for one in emulator.api.resources() if one.stored and one.plural not in NOT_LIKE]
    emulator.load(*_objects(known, read))
    custom = [one for one in emulator.api.resources() if one.definition and one not in known]
    emulator.load(*_objects(custom, read))
    return behind(target, stage.open.enter_context(emulator), stage)


def _objects(kinds: Sequence[Resource], read: ReadAll) -> list[dict[str, Any]]:
    """All objects of these kinds; what the login may not see, or the cluster does not serve, does not exist."""
    replies = read([Get(collection(one.api_version, one.plural)) for one in kinds]) if kinds else ()
    found = []
    for kind, reply in zip(kinds, replies, strict=True):
        for live in parsed(reply).get("items") or () if reply.status == 0 else ():
            if not (live.get("metadata") or {}).get("deletionTimestamp"):
                found.append({**live, "apiVersion": kind.api_version, "kind": kind.kind})
    return found
