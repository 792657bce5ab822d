"""systemd services of a pod that call Podman themselves: for a Podman whose Quadlet is too old, or that has none.

They do what those of `podman generate systemd --new` do: each start makes the container anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from reconciler.tools.podman.pod import Container, Mount, Network, Pod
from reconciler.tools.podman.quadlet import CONTAINER_START, POD_START, RESTART_AFTER, Settings
from reconciler.tools.podman.words import (
    further_arguments,
    health_options,
    network_options,
    object_name,
    secret_option,
    service_name,
    stop_seconds,
    text_of,
    word,
    words,
)

PODMAN = "/usr/bin/podman"


def units(document: str, pod: Pod, *, root: bool) -> Mapping[str, str]:
    """Name of the Quadlet unit that each stands for -> text of the service, in an order in which each can start.

    Args:
        document: name of the document; what Podman makes is named after it.
        root: they belong to the system, and not to a user.
    """
    origin = f"ContainerPod/{document}"
    found: dict[str, Sequence[tuple[str, Settings]]] = {}
    for volume in pod.volumes:
        name = object_name(document, volume.name)
        found[f"{name}.volume"] = _once(f"Volume {name}", "volume", [name])
    for network in pod.networks:
        name = object_name(document, network.name)
        found[f"{name}.network"] = _once(f"Network {name}", "network", _network(name, network))
    further = [service_name(unit) for unit in found]
    install = [("WantedBy", "multi-user.target" if root else "default.target")]
    if pod.shared:
        found[f"{document}.pod"] = [*_pod(document, pod, further), ("Install", install)]
    for container in pod.containers:
        sections = _container(document, pod, container, further)
        unit = f"{object_name(document, container.name)}.container"
        found[unit] = [*sections, ("Install", [] if pod.shared else install)]
    return {name: text_of(sections, origin) for name, sections in found.items()}


def _unit(description: str, needed: Sequence[str] = (), *more: tuple[str, str]) -> tuple[str, Settings]:
    out = [("Description", description), ("Wants", "network-online.target"), ("After", "network-online.target")]
    out.append(("RequiresMountsFor", "%t/containers"))
    for name in needed:
        out += [("Requires", name), ("After", name)]
    return "Unit", [*out, *more]


def _call(key: str, *arguments: str) -> tuple[str, str]:
    return key, f"{PODMAN} {' '.join(arguments)}"


def _once(description: str, what: str, arguments: Sequence[str]) -> list[tuple[str, Settings]]:
    # Podman 4.3 has no `--ignore`. No argument has anything in it that a shell would read.
    create = f"{PODMAN} {what} exists {arguments[-1]} || exec {PODMAN} {what} create {' '.join(arguments)}"
    service = [("Type", "oneshot"), ("RemainAfterExit", "yes"), ("ExecStart", f"/bin/sh -c {word(create)}")]
    return [_unit(description), ("Service", service)]


def _network(name: str, network: Network) -> list[str]:
    subnet = [f"--subnet={network.subnet}"] if network.subnet else []
    return [*subnet, *(["--internal"] if network.internal else []), name]


def _pod(document: str, pod: Pod, needed: Sequence[str]) -> list[tuple[str, Settings]]:
    members = [service_name(f"{object_name(document, container.name)}.container") for container in pod.containers]
    options = ["--exit-policy=continue", "--replace", f"--infra-name={document}-infra", f"--name={document}"]
    options += [f"--network={network}" for network in network_options(document, pod, quadlet=False)]
    options += [f"--publish={port}" for container in pod.containers for port in container.ports]
    service = [
        ("Environment", "PODMAN_SYSTEMD_UNIT=%n"),
        ("Type", "forking"),
        ("Restart", "always"),
        ("RestartSec", RESTART_AFTER),
        ("TimeoutStartSec", POD_START),
        ("PIDFile", "%t/%N.pid"),
        ("ExecStartPre", "/bin/rm -f %t/%N.pid %t/%N.pod-id"),
        _call("ExecStartPre", "pod create --infra-conmon-pidfile=%t/%N.pid --pod-id-file=%t/%N.pod-id", words(options)),
        _call("ExecStart", "pod start --pod-id-file=%t/%N.pod-id"),
        _call("ExecStop", "pod stop --ignore --time=10 --pod-id-file=%t/%N.pod-id"),
        _call("ExecStopPost", "pod rm --ignore --force --pod-id-file=%t/%N.pod-id"),
    ]
    wanted = [(key, name) for name in members for key in ("Wants", "Before")]
    return [_unit(f"Pod {document}", needed, *wanted), ("Service", service)]


def _container(document: str, pod: Pod, container: Container, needed: Sequence[str]) -> list[tuple[str, Settings]]:
    bound = service_name(f"{document}.pod")
    bonds = [("BindsTo", bound), ("After", bound)] if pod.shared else []
    # Its own option, because the path has specifiers that must be expanded.
    member = "--pod-id-file=%t/" + bound.removesuffix(".service") + ".pod-id" if pod.shared else ""
    command = ["run --cidfile=%t/%N.cid --conmon-pidfile=%t/%N.pid --cgroups=no-conmon --replace --rm --detach", member]
    stop, patience = stop_seconds(container)
    service = [
        ("Environment", "PODMAN_SYSTEMD_UNIT=%n"),
        # Not `notify`: of an account, Podman 4.3 puts conmon outside the service, and systemd refuses its message.
        ("Type", "forking"),
        ("PIDFile", "%t/%N.pid"),
        ("KillMode", "mixed"),
        ("Restart", container.restart),
        ("RestartSec", RESTART_AFTER),
        ("TimeoutStartSec", CONTAINER_START),
        ("ExecStartPre", "/bin/rm -f %t/%N.pid %t/%N.cid"),
        _call("ExecStart", *filter(None, command), words(_arguments(document, pod, container))),
        _call("ExecStop", f"stop --ignore --time={stop} --cidfile=%t/%N.cid"),
        _call("ExecStopPost", "rm --force --ignore --volumes --cidfile=%t/%N.cid"),
        ("TimeoutStopSec", str(patience)),
    ]
    return [_unit(f"Container {container.name} of {document}", needed, *bonds), ("Service", service)]


def _arguments(document: str, pod: Pod, container: Container) -> Iterator[str]:
    yield f"--name={object_name(document, container.name)}"
    if not pod.shared:
        yield from (f"--network={network}" for network in network_options(document, pod, quadlet=False))
        yield from (f"--publish={port}" for port in container.ports)
    for name, value in sorted(container.environment.items()):
        yield f"--env={name}={value}"
    yield from (f"--secret={secret_option(document, secret)}" for secret in container.secrets)
    yield from (_mount(document, mount) for mount in container.mounts)
    if container.run_as_user is not None:
        group = "" if container.run_as_group is None else f":{container.run_as_group}"
        yield f"--user={container.run_as_user}{group}"
    if container.read_only:
        yield "--read-only"
    if container.no_new_privileges:
        yield "--security-opt=no-new-privileges"
    yield from (f"--cap-drop={name if name == 'ALL' else 'CAP_' + name}" for name in container.drop_capabilities)
    yield from (f"--cap-add=CAP_{name}" for name in container.add_capabilities)
    if container.health_check is not None:
        yield from (f"--health-{name}={value}" for name, value in health_options(container.health_check))
    if container.auto_update:
        yield f"--label=io.containers.autoupdate={container.auto_update}"
    yield from further_arguments(container)
    yield container.image
    yield from container.args


def _mount(document: str, mount: Mount) -> str:
    if mount.volume is not None:
        return f"--volume={object_name(document, mount.volume)}:{mount.path}{mount.options}"
    if mount.host_path is not None:
        return f"--volume={mount.host_path}:{mount.path}{mount.options}"
    return f"--tmpfs={mount.path}:size={(mount.memory or '').lower()}{',ro' if mount.read_only else ''}"
