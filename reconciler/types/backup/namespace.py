"""pbs.namespace: a namespace in a datastore of a backup server. It is made, and never removed: backups lie in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from reconciler.fields import Rule
from reconciler.model import IDENTITY, Absent, Change, Get, Probe, Request, ResourceType, Spec, State, Step, Unprobed
from reconciler.types.api import answer
from reconciler.types.proxmox.names import JobName

NamespacePath = Annotated[
    str, Rule(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*){0,6}", "a namespace, such as prod/web", 256)
]


class Namespace(Spec):
    """A namespace in a datastore of a backup server."""

    store: Annotated[JobName, IDENTITY]
    name: Annotated[NamespacePath, IDENTITY]


def probe(namespaces: Sequence[Namespace]) -> Probe:
    """One list for each datastore. A datastore that is not there yet has none."""
    stores = list(dict.fromkeys(one.store for one in namespaces))
    replies = yield [Get("/config/datastore"), *(Get(f"/admin/datastore/{store}/namespace") for store in stores)]
    there = {row["name"] for row in answer(replies[0], "datastores")}
    known = {
        (store, row.get("ns"))
        for store, reply in zip(stores, replies[1:], strict=True)
        if store in there
        for row in answer(reply, f"namespaces of {store}")
    }
    states: list[State | Absent | Unprobed | None] = []
    for one in namespaces:
        states.append({} if (one.store, one.name) in known else None)
    return states


def steps(change: Change[Namespace]) -> Iterable[Step]:
    """One request."""
    spec = change.spec
    if change.after is not None and change.before is None:
        parent, _, name = spec.name.rpartition("/")
        params = {"name": name, **({"parent": parent} if parent else {})}
        title = f"make the namespace {spec.name} in {spec.store}"
        yield Request("POST", f"/admin/datastore/{spec.store}/namespace", params, title=title)


def above(one: Namespace) -> Iterable[str]:
    """The datastore, and the namespace that it lies in."""
    yield f"datastore:{one.store}"
    parent = one.name.rpartition("/")[0]
    if parent:
        yield f"namespace:{one.store}:{parent}"


TYPE: ResourceType[Any] = ResourceType(
    "pbs.namespace",
    Namespace,
    probe,
    steps,
    provides=lambda one: (f"namespace:{one.store}:{one.name}",),
    needs=above,
)
