"""pve.replication: a storage replication job.

A job belongs to a pair of nodes: when its guest moves to the other one, the cluster turns the job round. So the pair is
compared, not the target; and the target of a new job is the node of the pair on which the guest is not.
Deleting marks a job, and the scheduler removes it within a minute, with the copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.fields import Line
from reconciler.model import (
    IDENTITY,
    Absent,
    Change,
    Get,
    Probe,
    Readiness,
    Request,
    ResourceType,
    Risk,
    Spec,
    State,
    Step,
    Unprobed,
)
from reconciler.types.api import NOT, NUMBER, PERMISSIONS, Api, answer, created, observe, require, updated
from reconciler.types.proxmox.names import GuestName, NodeName, Place, Schedule, one_of, places

LIST: Final = "/cluster/replication"
PATIENCE: Final = 180.0
"""Seconds that a job may take to go: the scheduler looks once a minute."""


class Replication(Spec):
    """A storage replication job of a guest between two nodes."""

    guest: Annotated[GuestName, IDENTITY]
    number: Annotated[int, IDENTITY, Field(ge=0, le=999_999_999)] = 0
    between: tuple[NodeName, NodeName] | None = None
    schedule: Annotated[Schedule | None, Api(default="*/15")] = None
    rate: Annotated[float | None, Api(codec=NUMBER), Field(ge=1)] = None
    comment: Annotated[Line | None, Api(default="")] = None
    enabled: Annotated[bool | None, Api("disable", NOT, default=True)] = None
    removing: Literal[False] | None = None


def probe(jobs: Sequence[Replication]) -> Probe:
    """The jobs, and where their guests are."""
    rights, rows, guests = yield [PERMISSIONS, Get(LIST), Get("/cluster/resources", {"type": "vm"})]
    known = places(answer(guests, "guests"))
    found = [one_of(job.guest, known) for job in jobs]
    paths = [f"/vms/{p.vmid if isinstance(p, Place) else j.guest}" for j, p in zip(jobs, found, strict=True)]
    require(rights, "replication jobs", [p for p in paths if p[5:].isdigit()] or ["/vms"], ("VM.Audit",))
    by_id = {row["id"]: row for row in answer(rows, "replication jobs")}
    ids = [f"{p.vmid if isinstance(p, Place) else j.guest}-{j.number}" for j, p in zip(jobs, found, strict=True)]
    spelt: dict[str, list[str]] = {}
    for job, id_ in zip(jobs, ids, strict=True):
        spelt.setdefault(id_, []).append(job.guest)
    return [
        Unprobed(_twice(id_, spelt[id_])) if len(spelt[id_]) > 1 else _state(job, id_, place, by_id)
        for job, id_, place in zip(jobs, ids, found, strict=True)
    ]


def _twice(id_: str, guests: Sequence[str]) -> str:
    """One of them may be what a document no longer says; removing that would remove the job of the other."""
    return (
        f"the job {id_} is meant under several names of its guest: {' and '.join(sorted(guests))}. Documents name a "
        "guest always in the same way, and as they did when the job was made."
    )


def _state(
    job: Replication, id_: str, place: Place | str, jobs: Mapping[str, Mapping[str, Any]]
) -> State | Absent | Unprobed | None:
    row = jobs.get(id_)
    state = observe(Replication, row)
    if row is not None and state is not None:
        pair = sorted((row["source"], row["target"]))
        node = place.node if isinstance(place, Place) else row["source"]
        return {**state, "between": pair, "removing": bool(row.get("remove_job")), "id": id_, "node": node}
    if isinstance(place, str):
        return Unprobed(place)
    if job.between and place.node not in job.between:
        nodes = " and ".join(job.between)
        return Unprobed(
            f"guest {job.guest} is on {place.node}, which is not one of {nodes}. Move it, or name its node."
        )
    return Absent({"id": id_, "node": place.node})


def steps(change: Change[Replication]) -> Iterable[Step]:
    """One request."""
    spec = change.spec
    id_ = str(change.seen.get("id") or f"{spec.guest}-{spec.number}")
    path = f"{LIST}/{id_}"
    if change.after is None:
        yield Request("DELETE", path, title=f"remove the replication of guest {spec.guest}, with the copies")
    elif change.before is None:
        pair = spec.between or ("", "")
        target = pair[0] if change.seen.get("node") == pair[1] else pair[1]
        params = {"id": id_, "type": "local", "target": target, **created(spec)}
        title = f"replicate guest {spec.guest} between {pair[0]} and {pair[1]}"
        yield Request("POST", LIST, params, title=title, again_while=f"replication job '{id_}' already exists")
    else:
        title = f"set {', '.join(sorted(change.changed))} of the replication of guest {spec.guest}"
        yield Request("PUT", path, updated(spec, change, "comma"), digest_from=path, title=title)


def normalize(desired: State, observed: State) -> State:
    """A pair has no order."""
    return {
        name: observed[name] if name == "between" and sorted(value) == observed.get(name) else value
        for name, value in desired.items()
    }


def ready(state: State) -> Readiness:
    """A job on its way out is waited for."""
    return Readiness.WAITING if state.get("removing") else Readiness.READY


def risk(change: Change[Replication]) -> Risk | None:
    """The copies go with the job."""
    if change.before is not None and (change.after is None or TYPE.immutable & change.changed):
        return Risk("data-loss", "the copies on the other node are removed; a new job copies everything again")
    return None


TYPE: ResourceType[Any] = ResourceType(
    "pve.replication",
    Replication,
    probe,
    steps,
    normalize=normalize,
    ready=ready,
    patience=PATIENCE,
    immutable=frozenset(("between", "removing")),
    provides=lambda job: (f"replication:{job.guest}:{job.number}",),
    needs=lambda job: (f"guest:{job.guest}", "edit:zfs storages"),
    risk=risk,
)
