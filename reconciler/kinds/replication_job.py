"""ReplicationJob: storage replication of a guest between two nodes of a Proxmox VE cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Duration, Line, Ref, seconds
from reconciler.model import Discovery, Document, Get, Kind, Resource, Spec, Target, declared
from reconciler.types.api import PERMISSIONS, answer, observe, require
from reconciler.types.proxmox.names import GuestName, NodeName, Schedule
from reconciler.types.proxmox.replication import LIST, Replication
from reconciler.types.proxmox.replication import TYPE as pve_replication
from reconciler.types.proxmox.replication_health import TYPE as pve_replication_health


class ReplicationJobSpec(Spec):
    """Storage replication of a guest between two nodes of a Proxmox VE cluster.

    The job belongs to the pair of nodes: when the guest moves to the other node, the cluster turns the job round, and
    that is no drift. Every disk of the guest must lie on a ZFS storage that both nodes have. Taking the document away
    removes the job and the copies on the other node, within a minute.

    Plan and drift also report a job that is stale, fails, or has never run.

    Example:

        apiVersion: reconciler/v1
        kind: ReplicationJob
        metadata:
          name: web1
        spec:
          cluster: dc01
          guest: "100"
          between: [pve1, pve2]
          schedule: "*/15"
          staleAfter: 3h
    """

    cluster: Annotated[str, Ref("ProxmoxCluster")] = Field(description="The ProxmoxCluster.")
    guest: GuestName = Field(description="The guest's number, or its name where that is unique in the cluster.")
    number: int = Field(0, ge=0, le=999_999_999, description="Tells several jobs of one guest apart.")
    between: tuple[NodeName, NodeName] = Field(description="The two nodes; the guest is on one of them.")
    schedule: Schedule | None = Field(None, description="A calendar event; every 15 minutes by default.")
    rate: float | None = Field(None, ge=1, description="Limit in MB/s.")
    comment: Line | None = Field(None, description="For people.")
    enabled: bool | None = Field(None, description="Whether it runs by its schedule.")
    stale_after: Duration = Field("1h", description="Report the job when its last sync is older.")
    slow_after: Duration | None = Field(None, description="Report the job when its last sync took longer.")
    max_failures: int = Field(0, ge=0, description="Report the job when it failed more often in a row.")


def expand(document: Document[ReplicationJobSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The job, and an audit of what it does."""
    spec = document.spec
    job: dict[str, Any] = {"guest": spec.guest, "number": spec.number}
    wanted = declared(spec, "between", "schedule", "rate", "comment", "enabled")
    yield pve_replication(spec.cluster, **job, removing=False, **wanted)
    limits: dict[str, Any] = {"stale_after": seconds(spec.stale_after), "max_failures": spec.max_failures}
    if spec.slow_after is not None:
        limits["slow_after"] = seconds(spec.slow_after)
    yield pve_replication_health(spec.cluster, **job, **limits)


def check(document: Document[ReplicationJobSpec], catalog: Catalog) -> Iterable[Problem]:
    """A node cannot be its own copy."""
    first, second = document.spec.between
    if first == second:
        message, fix = f"both nodes are {first}.", "Name the node that the copy goes to."
        yield catalog.problem(document, ("spec", "between", 1), message, fix)


def discover(target: Target) -> Discovery | None:
    """The jobs of a cluster."""
    return _discover(target.name) if target.settings.get("service") == "PVE" else None


def _discover(cluster: str) -> Discovery:
    rights, reply = yield [PERMISSIONS, Get(LIST)]
    require(rights, "all replication jobs", ["/vms"], ("VM.Audit",))
    documents: list[tuple[str, Mapping[str, Any]]] = []
    for row in answer(reply, "replication jobs"):
        state = observe(Replication, row) or {}
        spec = {
            "cluster": cluster,
            "guest": str(row["guest"]),
            "number": int(row["jobnum"]),
            "between": sorted((row["source"], row["target"])),
            **{name: state[name] for name in ("schedule", "rate", "comment", "enabled") if state.get(name) is not None},
        }
        documents.append((f"{cluster}-{row['id']}", spec))
    return documents


KIND = Kind("ReplicationJob", ReplicationJobSpec, expand, check, discover=discover)
