"""pve.guest: settings of a virtual machine or container that exists.

A guest is found by its number, or by its name, wherever in the cluster it is; moving it changes nothing here. Guests
are neither made nor removed: only the settings that are listed are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from reconciler.fields import Line, Word
from reconciler.model import IDENTITY, Change, Get, Probe, Request, ResourceType, Spec, State, Step, Unprobed
from reconciler.types.api import FLAG, NUMBER, PERMISSIONS, WORDS, Api, answer, observe, require, updated
from reconciler.types.proxmox.names import GuestName, Place, one_of, places


class Guest(Spec):
    """Settings of a virtual machine or container that exists."""

    guest: Annotated[GuestName, IDENTITY]
    name: Annotated[Line | None, Api()] = None
    description: Annotated[str | None, Api(default="")] = None
    tags: Annotated[tuple[Word, ...] | None, Api(codec=WORDS, default=[])] = None
    on_boot: Annotated[bool | None, Api("onboot", FLAG, default=False)] = None
    protection: Annotated[bool | None, Api(codec=FLAG, default=False)] = None
    cores: Annotated[int | None, Api(codec=NUMBER, default=1), Field(ge=1)] = None
    sockets: Annotated[int | None, Api(codec=NUMBER, default=1), Field(ge=1)] = None
    memory: Annotated[int | None, Api(codec=NUMBER, default=512), Field(ge=16)] = None
    balloon: Annotated[int | None, Api(codec=NUMBER), Field(ge=0)] = None
    startup: Annotated[Line | None, Api(default="")] = None
    options: dict[Word, Line] | None = None


def probe(guests: Sequence[Guest]) -> Probe:
    """Where the guests are, then their settings, side by side."""
    rights, rows = yield [PERMISSIONS, Get("/cluster/resources", {"type": "vm"})]
    known = places(answer(rows, "guests"))
    found = [one_of(guest.guest, known) for guest in guests]
    paths = [f"/vms/{place.vmid}" for place in found if isinstance(place, Place)]
    require(rights, "guests", paths or ["/vms"], ("VM.Audit",))
    configs = list(dict.fromkeys(_config(place) for place in found if isinstance(place, Place)))
    replies = yield [Get(path) for path in configs]
    texts = {path: answer(reply, path) for path, reply in zip(configs, replies, strict=True)}
    return [
        Unprobed(place) if isinstance(place, str) else _state(guest, texts[_config(place)], _config(place))
        for guest, place in zip(guests, found, strict=True)
    ]


def _config(place: Place) -> str:
    return f"/nodes/{place.node}/{place.kind}/{place.vmid}/config"


def _state(guest: Guest, row: Mapping[str, Any], path: str) -> State:
    state = dict(observe(Guest, row) or {})
    # A container calls its name otherwise, and a description comes back with an end of line.
    state["name"] = row.get("name") or row.get("hostname")
    state["description"] = str(state["description"]).rstrip("\n")
    options = {key: str(row[key]) for key in guest.options or () if key in row}
    return {**state, "options": options, "config": path}


def steps(change: Change[Guest]) -> Iterable[Step]:
    """One request, guarded by the digest of the guest's file."""
    if change.after is None or change.before is None:
        return
    spec, path = change.spec, str(change.seen.get("config", ""))
    params = updated(spec, change, "comma")
    if "options" in change.changed:
        seen = change.before.get("options") or {}
        params |= {k: v for k, v in (spec.options or {}).items() if not same_property(v, seen.get(k, ""))}
    if "/lxc/" in path and "name" in params:
        params["hostname"] = params.pop("name")
    title = f"set {', '.join(sorted(change.changed))} of guest {spec.guest}"
    yield Request("PUT", path, params, digest_from=path, title=title)


def normalize(desired: State, observed: State) -> State:
    """Tags have no order; options come back sorted and completed."""
    out = dict(desired)
    if "tags" in out and sorted(tag.lower() for tag in out["tags"]) == observed.get("tags"):
        out["tags"] = observed["tags"]
    if "description" in out and str(out["description"]).rstrip("\n") == observed.get("description"):
        out["description"] = observed["description"]
    options, seen = out.get("options"), observed.get("options") or {}
    if options and options.keys() == seen.keys() and all(same_property(options[k], seen[k]) for k in options):
        out["options"] = seen
    return out


def same_property(desired: str, observed: str) -> bool:
    """Whether an option says what is desired.

    The cluster sorts the parts of an option, leaves out the name of the first one (`cputype=host` comes back as
    `host`), puts a made-up address behind a network model (`virtio` comes back as `virtio=BC:24:11:...`), and adds a
    disk's size.

    >>> same_property("virtio,bridge=vmbr0", "virtio=BC:24:11:00:00:01,bridge=vmbr0")
    True
    >>> same_property("virtio,bridge=vmbr0", "virtio=BC:24:11:00:00:01,bridge=vmbr1")
    False
    """
    if desired == observed:
        return True
    wanted, seen = _parts(desired), _parts(observed)
    for key, value in wanted:
        short = ("", value) in seen if key else any(name == value for name, _ in seen)
        if (key, value) not in seen and not short:
            return False
    more = seen - wanted
    return len(seen) == len(wanted) or (len(seen) == len(wanted) + 1 and any(name == "size" for name, _ in more))


def _parts(text: str) -> set[tuple[str, str]]:
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {(key, value) if equals else ("", key) for key, equals, value in pairs}


TYPE: ResourceType[Any] = ResourceType(
    "pve.guest", Guest, probe, steps, normalize=normalize, provides=lambda guest: (f"guest:{guest.guest}",)
)
