"""pbs.remote: another backup server, as a source or target of sync jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field

from reconciler.fields import Line, Word
from reconciler.model import IDENTITY, Change, Probe, ResourceType, Secret, Spec, Step
from reconciler.types.api import NUMBER, Api, Entries
from reconciler.types.proxmox.names import JobName, Principal


class Remote(Spec):
    """Another backup server, as a source or target of sync jobs."""

    name: Annotated[JobName, IDENTITY]
    host: Annotated[Word | None, Api()] = None
    port: Annotated[int | None, Api(codec=NUMBER, default=8007), Field(ge=1, le=65535)] = None
    auth_id: Annotated[Principal | None, Api()] = None
    password: Annotated[Secret | None, Api(hidden=True)] = None
    fingerprint: Annotated[str | None, Api(default="")] = None
    comment: Annotated[Line | None, Api(default="")] = None


ENTRIES = Entries(
    what="remotes",
    spec=Remote,
    listing="/config/remote",
    key="name",
    privileges=("Remote.Audit",),
    acl=lambda remote: f"/remote/{remote.name}",
    unset="repeat",
)


def probe(remotes: Sequence[Remote]) -> Probe:
    """One list."""
    return (yield from ENTRIES.probe(remotes))


def steps(change: Change[Remote]) -> Iterable[Step]:
    """One request. The password goes along whenever it changed in the secret store."""
    yield from ENTRIES.steps(change)


TYPE: ResourceType[Any] = ResourceType(
    "pbs.remote",
    Remote,
    probe,
    steps,
    write_only=frozenset(("password",)),
    provides=lambda remote: (f"remote:{remote.name}",),
)
