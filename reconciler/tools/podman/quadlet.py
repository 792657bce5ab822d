"""Quadlet units of a pod: `.pod`, `.container`, `.volume` and `.network` (podman-systemd.unit(5))."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from reconciler.tools.podman.pod import Container, Mount, Network, Pod
from reconciler.tools.podman.words import (
    further_arguments,
    health_options,
    network_options,
    object_name,
    secret_option,
    service_name,
    stop_seconds,
    text_of,
    unexpanded,
    word,
    words,
)

Settings = list[tuple[str, str]]

RESTART_AFTER: Final = "2s"
"""So slow that systemd never gives up: it does after five starts in ten seconds."""

POD_START: Final = "30"
"""Seconds. When an account's first Podman commands after a boot run side by side, a pod's conmon can end up outside its
service, and systemd waits for it in vain: better to give up soon, and to start again."""
UNAIDED: Final = [("DefaultDependencies", "false")]
"""Else an account's units wait for the system's network-online.target, which is never reached where nothing of the
system asks for it. A Podman before 5.3 neither does that nor knows this."""
CONTAINER_START: Final = "60"
"""Seconds; the image is there already."""

_SINCE: Final = {
    "Pod": (5, 0),
    "VolumeName": (4, 8),
    "NetworkName": (4, 8),
    "Subnet": (4, 8),
    "Tmpfs": (4, 5),
    "Secret": (4, 5),
    "HealthCmd": (4, 5),
}
"""Podman's release that first read a key; where that is uncertain, a later one."""
FIRST: Final = (4, 4)
"""Podman's release that came with Quadlet."""


def units(document: str, pod: Pod, *, root: bool) -> Mapping[str, str]:
    """File name -> text, in an order in which each can start.

    Args:
        document: name of the document; what Podman makes is named after it.
        root: they belong to the system, and not to a user.
    """
    origin = f"ContainerPod/{document}"
    found: dict[str, Sequence[tuple[str, Settings]]] = {}
    for volume in pod.volumes:
        name = object_name(document, volume.name)
        found[f"{name}.volume"] = [("Volume", [("VolumeName", name)])]
    for network in pod.networks:
        found[f"{object_name(document, network.name)}.network"] = [("Network", list(_network(document, network)))]
    if pod.shared:
        found[f"{document}.pod"] = [
            # What it does not need at once comes before it all the same: see `POD_START`.
            ("Unit", [("Description", f"Pod {document}"), *(("After", service_name(unit)) for unit in found)]),
            ("Pod", list(_pod(document, pod))),
            ("Service", [("Restart", "always"), ("RestartSec", RESTART_AFTER), ("TimeoutStartSec", POD_START)]),
            ("Install", _install(root)),
        ]
    for container in pod.containers:
        name = object_name(document, container.name)
        found[f"{name}.container"] = [
            ("Unit", [("Description", f"Container {container.name} of {document}")]),
            ("Container", list(_container(document, pod, container))),
            ("Service", _service(container)),
            ("Install", [] if pod.shared else _install(root)),
        ]
    around = [] if root else [("Quadlet", UNAIDED)]
    return {name: text_of([*sections, *around], origin) for name, sections in found.items()}


def since(texts: Mapping[str, str]) -> tuple[int, int]:
    """The oldest Podman that reads these units."""
    keys = {line.partition("=")[0] for text in texts.values() for line in text.splitlines()}
    return max((release for key, release in _SINCE.items() if key in keys), default=FIRST)


def _service(container: Container) -> Settings:
    out = [("Restart", container.restart), ("RestartSec", RESTART_AFTER), ("TimeoutStartSec", CONTAINER_START)]
    return [*out, ("TimeoutStopSec", str(stop_seconds(container)[1]))]


def _install(root: bool) -> Settings:
    return [("WantedBy", "multi-user.target" if root else "default.target")]


def _network(document: str, network: Network) -> Iterator[tuple[str, str]]:
    yield "NetworkName", object_name(document, network.name)
    if network.subnet:
        yield "Subnet", network.subnet
    if network.internal:
        yield "Internal", "true"


def _pod(document: str, pod: Pod) -> Iterator[tuple[str, str]]:
    yield "PodName", document
    for network in network_options(document, pod, quadlet=True):
        yield "Network", network
    for container in pod.containers:
        for port in container.ports:
            yield "PublishPort", str(port)
    # Else the pod stops when its only container is killed, and takes it along.
    yield "PodmanArgs", "--exit-policy=continue"


def _container(document: str, pod: Pod, container: Container) -> Iterator[tuple[str, str]]:
    yield "ContainerName", object_name(document, container.name)
    yield "Image", container.image
    if pod.shared:
        yield "Pod", f"{document}.pod"
    else:
        for network in network_options(document, pod, quadlet=True):
            yield "Network", network
        for port in container.ports:
            yield "PublishPort", str(port)
    for name, value in sorted(container.environment.items()):
        yield "Environment", word(f"{name}={value}")
    for secret in container.secrets:
        yield "Secret", secret_option(document, secret)
    for mount in container.mounts:
        yield _mount(document, mount)
    if container.run_as_user is not None:
        yield "User", str(container.run_as_user)
    if container.run_as_group is not None:
        yield "Group", str(container.run_as_group)
    if container.read_only:
        yield "ReadOnly", "true"
    if container.no_new_privileges:
        yield "NoNewPrivileges", "true"
    for name in container.drop_capabilities:
        yield "DropCapability", name if name == "ALL" else f"CAP_{name}"
    for name in container.add_capabilities:
        yield "AddCapability", f"CAP_{name}"
    if container.health_check is not None:
        for name, value in health_options(container.health_check):
            yield "Health" + "".join(part.capitalize() for part in name.split("-")), unexpanded(value)
    if container.auto_update:
        yield "Label", f"io.containers.autoupdate={container.auto_update}"
    further = words(further_arguments(container))
    if further:
        yield "PodmanArgs", further
    if container.args:
        yield "Exec", words(container.args)


def _mount(document: str, mount: Mount) -> tuple[str, str]:
    if mount.volume is not None:
        return "Volume", f"{object_name(document, mount.volume)}.volume:{mount.path}{mount.options}"
    if mount.host_path is not None:
        return "Volume", f"{mount.host_path}:{mount.path}{mount.options}"
    # A `Mount` has one of the three.
    return "Tmpfs", f"{mount.path}:size={(mount.memory or '').lower()}{',ro' if mount.read_only else ''}"
