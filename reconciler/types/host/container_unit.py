"""host.containerUnit: a unit of Podman (container, pod, volume or network), and what runs from it.

Where Podman reads such Quadlet files, the unit is one; else it is a service that calls Podman itself and does the same.
Both texts are made of the same document, so the Quadlet file stands for both, and the service is only shown where it is
not as it should be.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import unified_diff
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.fields import Rule
from reconciler.model import (
    CONTROL,
    IDENTITY,
    UNOBSERVABLE,
    Absent,
    Change,
    Probe,
    Readiness,
    ResourceType,
    Risk,
    Script,
    Sh,
    Sha256,
    State,
    Step,
)
from reconciler.probe import expect
from reconciler.tools.podman.pod import ImageReference
from reconciler.tools.podman.words import service_name
from reconciler.types.host import Meta, owners, parse_meta
from reconciler.types.host.container_scripts import FILES, INSPECT, REMOVE, START, SYSTEMD, WRITE
from reconciler.types.host.podman import ROOT, Owned, PodmanName, account
from reconciler.types.host.podman_image import LIST, images_of

UnitName = Annotated[
    str,
    Rule(
        r"[A-Za-z0-9][A-Za-z0-9_.-]*\.(?:container|pod|volume|network)",
        "the file name of a Quadlet unit, such as web.container",
        200,
    ),
]
Form = Literal["quadlet", "service"]
Version = Annotated[str, Rule(r"[1-9][0-9]?\.[0-9]{1,2}", 'a release of Podman, such as "4.3"')]


class ContainerUnit(Owned):
    """A container, pod, volume or network of Podman as a systemd unit.

    Volumes stay when their unit goes. A pod or container is stopped and removed with it.
    """

    name: Annotated[UnitName, IDENTITY]
    text: str | None = Field(None, description="The Quadlet file.")
    service: Annotated[str | None, CONTROL] = Field(
        None, description="The systemd service in its place, where Podman is too old for `text`."
    )
    enabled: Literal[True] | None = Field(None, description="It starts at boot.")
    running: Literal[True] | None = Field(None, description="It runs.")
    image: ImageReference | None = Field(None, description="The image that the running container was made from.")
    health: Literal["healthy"] | None = Field(None, description="What its health check says.")
    fresh: Literal[True] | None = Field(
        None, description="It was made since its files and secrets changed for the last time."
    )
    since: Annotated[Version, CONTROL] = Field("4.4", description="The oldest Podman that reads `text`.")
    version: Annotated[Version | None, CONTROL] = Field(None, description="Podman's release; asked for by default.")
    watch: Annotated[tuple[UnitName, ...], CONTROL] = Field((), description="Units that it is made with.")
    secrets: Annotated[tuple[PodmanName, ...], CONTROL] = Field((), description="Podman secrets that it gets.")
    paths: Annotated[tuple[str, ...], CONTROL] = Field((), description="Paths of the host that it sees.")


def container_name(unit: str) -> str:
    """The container that a unit runs; of a pod that which holds it together. Empty where there is none.

    >>> container_name("a-db.container"), container_name("a.pod"), container_name("a.volume")
    ('a-db', 'a-infra', '')
    """
    name, _, kind = unit.rpartition(".")
    return {"container": name, "pod": f"{name}-infra"}.get(kind, "")


# ---------------------------------------------------------------------------------------------- probe


@dataclass
class _Seen:
    """All that a host says."""

    offline: bool = False
    version: tuple[int, ...] | None = None
    places: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    meta: dict[str, Meta] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    enabled: set[str] = field(default_factory=set)
    asleep: set[str] = field(default_factory=set)
    services: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    containers: dict[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    secrets: dict[tuple[str, str], float] = field(default_factory=dict)
    images: dict[str, dict[str, str]] = field(default_factory=dict)


def probe(units: Sequence[ContainerUnit]) -> Probe:
    """One look at the files, one at each systemd, one `podman inspect` for each account; then texts that differ."""
    users = sorted({unit.user for unit in units})
    mine = {user: [unit for unit in units if unit.user == user] for user in users}
    names = {user: _once(n for unit in mine[user] for n in (unit.name, *unit.watch)) for user in users}
    services = {user: _once(service_name(unit.name) for unit in mine[user]) for user in users}
    containers = {user: _once(c for unit in mine[user] if (c := container_name(unit.name))) for user in users}
    secrets = {user: _once(secret for unit in mine[user] for secret in unit.secrets) for user in users}
    imaged = [user for user in users if any(unit.image for unit in mine[user])]
    files, systemd, inspected, images = yield [
        Script(FILES, [word for user in users for word in (user, names[user])]),
        Script(SYSTEMD, [word for user in users for word in (user, services[user])]),
        Script(INSPECT, [word for user in users for word in (user, containers[user], secrets[user])]),
        Script(LIST, imaged),
    ]
    seen = _Seen()
    _read_files(expect(files, "the probe of units"), seen)
    _read_systemd(expect(systemd, "systemctl show"), seen)
    _read_inspected(expect(inspected, "podman inspect"), seen)
    if not seen.offline:
        seen.images = images_of(expect(images, "podman images"))
    differing = _once(path for unit in units for path in _differing(unit, seen)).split()
    if differing:
        (shown,) = yield [Script('for p; do base64 -- "$ROOT$p"; echo .; done', differing)]
        for path, raw in zip(differing, shown.text.split(".\n"), strict=False):
            seen.texts[path] = base64.b64decode(raw).decode("utf-8", "replace")
    return [_state(unit, seen) for unit in units]


def _once(words: Iterable[str]) -> str:
    """Words without repetition, as one argument; none of them can hold a space."""
    return " ".join(dict.fromkeys(words))


def _read_files(text: str, seen: _Seen) -> None:
    metas = []
    for line in text.split("\n"):
        tag, _, rest = line.partition("|")
        match tag:
            case "offline":
                seen.offline = True
            case "podman":
                found = re.search(r"(\d+)\.(\d+)", rest)
                seen.version = (int(found[1]), int(found[2])) if found else None
            case "unit":
                user, unit, quadlet, service = rest.split("|", 3)
                seen.places[user, unit] = quadlet, service
            case "meta":
                metas.append(rest)
            case "sum":
                digest, _, path = rest.partition("|")
                seen.digests[path] = digest
            case "enabled":
                seen.enabled.add(rest)
    seen.meta = parse_meta("\n".join(metas))


def _read_systemd(text: str, seen: _Seen) -> None:
    user, properties = "", dict[str, str]()
    for line in [*text.split("\n"), ""]:
        if line.startswith("user|"):
            _, user, awake = line.split("|")
            if awake != "awake":
                seen.asleep.add(user)
        elif "=" in line:
            name, _, value = line.partition("=")
            properties[name] = value
        elif properties:
            seen.services[user, properties.get("Id", "")] = properties
            properties = {}


def _read_inspected(text: str, seen: _Seen) -> None:
    user = ""
    for line in text.splitlines():
        tag, _, rest = line.partition("|")
        match tag:
            case "user":
                user = rest
            case "container":
                name, *about = rest.split("|")
                seen.containers[user, name] = about
            case "secret":
                name, _, moment = rest.partition("|")
                seen.secrets[user, name] = int(moment) / 1e9


def form_of(unit: ContainerUnit, version: tuple[int, ...] | None) -> Form:
    """Which text counts. Where Podman is not there yet, it will be a new one."""
    if unit.service is None:
        return "quadlet"
    if unit.version is not None:
        version = _release(unit.version)
    return "service" if version is not None and version < _release(unit.since) else "quadlet"


def _release(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _wanted(unit: ContainerUnit, form: Form) -> str | None:
    return unit.text if form == "quadlet" else unit.service


def _differing(unit: ContainerUnit, seen: _Seen) -> Iterable[str]:
    """Files whose text has to be shown; one whose path has a space in it is shown by its digest."""
    form = form_of(unit, seen.version)
    quadlet, service = seen.places.get((unit.user, unit.name), ("", ""))
    path, wanted = quadlet if form == "quadlet" else service, _wanted(unit, form)
    digest = seen.digests.get(path)
    if digest is not None and wanted is not None and digest != Sha256.of(wanted).hex and " " not in path:
        yield path


def _state(unit: ContainerUnit, seen: _Seen) -> State | Absent:
    quadlet, service = seen.places.get((unit.user, unit.name), ("", ""))
    form = form_of(unit, seen.version)
    if quadlet not in seen.meta and service not in seen.meta:
        return Absent({"form": form})
    state: dict[str, Any] = {"form": form, "text": _text(unit, form, quadlet if form == "quadlet" else service, seen)}
    if form == "quadlet" and service in seen.meta:
        state["text"] = f"(in the shadow of {service}, which systemd takes in its place)"
    if not seen.offline:
        live = _live(unit, seen)
        if form == "service":
            # systemd tells what it remembers.
            live["enabled"] = service in seen.enabled
        # Another text is why it is not fresh, and mending that makes it so.
        return state | live | ({"fresh": True} if state["text"] != unit.text else {})
    state |= dict.fromkeys(("enabled", "running", "image", "health", "fresh"), UNOBSERVABLE)
    return state | ({"enabled": service in seen.enabled} if form == "service" else {})


def _text(unit: ContainerUnit, form: Form, path: str, seen: _Seen) -> str | None:
    wanted, digest = _wanted(unit, form), seen.digests.get(path)
    if digest is None:
        return None if path not in seen.meta else f"(a {seen.meta[path].kind})"
    if wanted is not None and digest == Sha256.of(wanted).hex:
        return unit.text
    found = seen.texts.get(path, f"(another text, SHA-256 {digest})")
    if form == "quadlet":
        return found
    lines = unified_diff((wanted or "").splitlines(), found.splitlines(), "as it should be", path, lineterm="", n=0)
    return "\n".join([f"{unit.text or ''}(but the service that stands for it is not as it should be)", *lines])


def _live(unit: ContainerUnit, seen: _Seen) -> dict[str, Any]:
    properties = seen.services.get((unit.user, service_name(unit.name)), {})
    container = seen.containers.get((unit.user, container_name(unit.name)))
    running = _running(unit, properties, container, seen)
    state: dict[str, Any] = {
        "enabled": _enabled(properties),
        "running": running,
        "image": UNOBSERVABLE,
        "health": UNOBSERVABLE,
        "fresh": True,
        "activity": "starting" if properties.get("ActiveState") in ("activating", "reloading") else "",
    }
    if running is not True or container is None:
        return state
    image, _, _, created, health = container[:5]
    places = [p for name in (unit.name, *unit.watch) for p in seen.places.get((unit.user, name), ())]
    changed = [seen.meta[path].changed for path in places if path in seen.meta]
    changed += [seen.secrets.get((unit.user, secret), 0.0) for secret in unit.secrets]
    state["fresh"] = properties.get("NeedDaemonReload") != "yes" and int(created) / 1e9 >= max(changed, default=0.0)
    if unit.image is not None:
        state["image"] = _image(unit.image, image, seen.images.get(unit.user, {}))
    if health == "starting":
        state["activity"] = "starting"
    elif health:
        state["health"] = health
    elif unit.health is not None:
        state["health"] = "unknown"
    return state


def _running(
    unit: ContainerUnit, properties: Mapping[str, str], container: Sequence[str] | None, seen: _Seen
) -> bool | str:
    """True, or the words for what is the matter."""
    if unit.user in seen.asleep:
        return f"no: the systemd of {unit.user} does not run"
    active, load = properties.get("ActiveState", "inactive"), properties.get("LoadState", "not-found")
    if load != "loaded":
        return "no: systemd has no such service" if load == "not-found" else f"no: {load}"
    if active not in ("active", "reloading"):
        result, status = properties.get("Result", ""), properties.get("ExecMainStatus", "0")
        why = f", {result}" if result not in ("", "success") else ""
        why += f", exit status {status}" if status != "0" else ""
        return f"no: {active} ({properties.get('SubState', '')}{why})"
    if not container_name(unit.name):
        return True
    if container is None:
        return "no: the service is active, and its container is gone"
    status, code = container[1], container[2]
    return True if status == "running" else f"no: the container is {status}" + (f" ({code})" if code != "0" else "")


def _enabled(properties: Mapping[str, str]) -> bool | str:
    file = properties.get("UnitFileState", "")
    if file == "generated":
        return bool(properties.get("WantedBy"))
    return True if file == "enabled" else file or False


def _image(wanted: str, running: str, images: Mapping[str, str]) -> str:
    """The desired reference where it means the running image; else the best name of that."""
    if images.get(wanted) == running:
        return wanted
    names = sorted((name for name, number in images.items() if number == running), key=lambda n: ("@" not in n, n))
    return names[0] if names else f"an image without a name, {running[:12]}"


def ready(state: State) -> Readiness:
    """Whether it is still on its way up."""
    return Readiness.WAITING if state.get("activity") == "starting" else Readiness.READY


# ---------------------------------------------------------------------------------------------- steps


def steps(change: Change[ContainerUnit]) -> Iterable[Step]:
    """Check the unit and write it; then see that what runs was made from it."""
    unit = change.spec
    whose = "" if unit.user == ROOT else f" of {unit.user}"
    if change.after is None:
        verb = "remove" if unit.name.endswith((".volume", ".network")) else "stop and remove"
        kept = "; the volume stays" if unit.name.endswith(".volume") else ""
        yield Sh(REMOVE, (unit.user, unit.name), title=f"{verb} {unit.name}{whose}{kept}")
        return
    changed = change.changed
    form = "service" if change.seen.get("form", form_of(unit, None)) == "service" else "quadlet"
    text = unit.text if form == "quadlet" else unit.service
    if text is not None and changed & {"text", "enabled"}:
        title = f"write {unit.name}{whose}" + ("" if form == "quadlet" else f" as {service_name(unit.name)}")
        if "text" not in changed:
            title = f"enable {service_name(unit.name)}{whose}"
        yield Sh(WRITE, (unit.user, unit.name, form, "enable" if unit.enabled else ""), text, title=title)
    if unit.running and changed & {"text", "running", "fresh", "image", "health"}:
        must = change.before is not None and bool(changed & {"image", "health"})
        verb = "restart" if change.before is not None and changed - {"running"} else "start"
        arguments = (unit.user, unit.name, "must" if must else "", " ".join(unit.watch), " ".join(unit.secrets))
        yield Sh(START, arguments, title=f"{verb} {service_name(unit.name)}{whose}")


def risk(change: Change[ContainerUnit]) -> Risk | None:
    """Containers stop, or restart."""
    if change.before is None or not (change.spec.running or change.after is None):
        return None
    if change.after is None:
        return None if container_name(change.spec.name) == "" else Risk("downtime", "it stops")
    return Risk("downtime", "it restarts") if change.changed - {"running", "enabled"} else None


def needs(unit: ContainerUnit) -> Iterable[str]:
    """What Podman needs, the image, the secrets, and the units that it is made with."""
    yield from account(unit.user)
    yield from (f"containerunit:{unit.user}/{name}" for name in unit.watch)
    yield from (f"podmansecret:{unit.user}/{name}" for name in unit.secrets)
    yield from (f"path:{path}" for path in unit.paths)
    yield from owners(None if unit.user == ROOT else unit.user, None)
    if unit.image is not None:
        yield f"podmanimage:{unit.user}/{unit.image}"


def watches(unit: ContainerUnit) -> Iterable[str]:
    """What asks for a restart when it changes."""
    yield from (f"containerunit:{unit.user}/{name}" for name in unit.watch)
    yield from (f"podmansecret:{unit.user}/{name}" for name in unit.secrets)


TYPE = ResourceType(
    "host.containerUnit",
    ContainerUnit,
    probe,
    steps,
    ready=ready,
    patience=150,
    provides=lambda unit: (f"containerunit:{unit.user}/{unit.name}",),
    needs=needs,
    watches=watches,
    stale={"fresh": False},
    risk=risk,
)
