"""ContainerPod: containers of Podman on hosts, as systemd services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Annotated, Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Account, HostSelector
from reconciler.model import Document, Kind, Resource
from reconciler.tools.podman import quadlet, services
from reconciler.tools.podman.pod import Container, Pod
from reconciler.tools.podman.words import object_name, secret_name, service_name
from reconciler.types.host.container_unit import TYPE as host_container_unit
from reconciler.types.host.container_unit import Version
from reconciler.types.host.linger import TYPE as host_linger
from reconciler.types.host.podman import ROOT
from reconciler.types.host.podman_image import TYPE as host_podman_image
from reconciler.types.host.podman_secret import TYPE as host_podman_secret
from reconciler.types.host.subordinate_ids import TYPE as host_subordinate_ids
from reconciler.types.host.subordinate_ids import Range


class ContainerPodSpec(Pod):
    """Containers of Podman on hosts, as systemd services that start at boot and start again when they end.

    Images are named by digest, so that what runs is what was reviewed: another running image is drift, and so is a
    container that has exited or is unhealthy. Each part becomes a Quadlet unit; where the host's Podman is too old for
    it, a systemd service that calls Podman. Secrets are Podman secrets. With `user`, everything belongs to that account
    and none of it to root. When the document goes, containers, pod, secrets and networks go; volumes and images stay.

    The hosts need Podman; a pod also needs catatonit, and rootless containers need uidmap, passt and dbus-user-session.

    Example:

        apiVersion: reconciler/v1
        kind: ContainerPod
        metadata:
          name: shop
        spec:
          hosts: {matchLabels: {role: db}}
          user: containers
          volumes: [{name: data}]
          containers:
            - name: db
              image: docker.io/library/postgres@sha256:45e4ff8a39cb1a36c8b9b8b0c0eb75cd2b79b2e4b7b1fd9a2c4bbd3cbc1ad8f7
              ports: [{container: 5432, address: 127.0.0.1}]
              environment: {POSTGRES_DB: shop}
              secrets:
                - {name: password, path: /run/secrets/password, value: {secretRef: shop/password, generate: password}}
              mounts: [{volume: data, path: /var/lib/postgresql/data}]
              healthCheck: {command: [pg_isready, -U, postgres], interval: 30s}
    """

    hosts: HostSelector
    user: Account = Field(ROOT, description="The account that they belong to; with any but root they are rootless.")
    linger: bool = Field(True, description="Rootless: let the account's services run from boot on, without a login.")
    subordinate_ids: Annotated[
        Range, Field(description="Rootless: the numbers FIRST:COUNT for users in containers.")
    ] = "enough"
    podman: Version | None = Field(
        None, description="Podman's release on the hosts, such as 4.3, if the hosts shall not be asked for it."
    )


def expand(document: Document[ContainerPodSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """Images, secrets and units on every selected host, and what a rootless account needs."""
    for host in catalog.hosts(document.spec.hosts):
        yield from _on_host(host, document.name, document.spec)


def _on_host(host: str, name: str, spec: ContainerPodSpec) -> Iterable[Resource[Any]]:
    user = spec.user
    if user != ROOT:
        ids = spec.subordinate_ids
        yield host_subordinate_ids(host, user=user, uids=ids, gids=ids)
        if spec.linger:
            yield host_linger(host, user=user)
    for container in spec.containers:
        archive: dict[str, Any] = {"archive": container.archive} if container.archive else {}
        yield host_podman_image(host, user=user, reference=container.image, pull=container.pull, **archive)
    for secret in spec.secrets:
        if secret.value is not None:
            yield host_podman_secret(host, user=user, name=object_name(name, secret.name), value=secret.value)
    yield from _units(host, name, spec)


def _units(host: str, name: str, spec: ContainerPodSpec) -> Iterable[Resource[Any]]:
    root = spec.user == ROOT
    files, older = quadlet.units(name, spec, root=root), services.units(name, spec, root=root)
    since = ".".join(map(str, quadlet.since(files)))
    containers = {f"{object_name(name, one.name)}.container": one for one in spec.containers}
    for unit, text in files.items():
        fields: dict[str, Any] = {"user": spec.user, "name": unit, "text": text, "service": older[unit]}
        fields |= {"since": since} | ({"version": spec.podman} if spec.podman else {})
        container = containers.get(unit)
        if container is not None:
            fields |= _of_container(name, spec, container)
        elif unit.endswith(".pod"):
            fields |= {"enabled": True, "running": True, "fresh": True} | _watched(_networks(name, spec))
        yield host_container_unit(host, **fields)


def _of_container(name: str, spec: ContainerPodSpec, container: Container) -> Mapping[str, Any]:
    volumes = [f"{object_name(name, mount.volume)}.volume" for mount in container.mounts if mount.volume]
    around = [f"{name}.pod"] if spec.shared else _networks(name, spec)
    fields: dict[str, Any] = {"running": True, "fresh": True, "image": container.image}
    fields |= {} if spec.shared else {"enabled": True}
    fields |= {"health": "healthy"} if container.health_check is not None else {}
    paths = [mount.host_path for mount in container.mounts if mount.host_path]
    fields |= {"paths": tuple(paths)} if paths else {}
    fields |= _watched([*around, *volumes])
    secrets = dict.fromkeys(secret_name(name, secret) for secret in container.secrets)
    return fields | ({"secrets": tuple(secrets)} if secrets else {})


def _watched(units: Iterable[str]) -> dict[str, Any]:
    names = tuple(dict.fromkeys(units))
    return {"watch": names} if names else {}


def _networks(name: str, spec: ContainerPodSpec) -> tuple[str, ...]:
    return tuple(f"{object_name(name, network.name)}.network" for network in spec.networks)


# ---------------------------------------------------------------------------------------------- checks

LONGEST = 60
"""Characters of a document's name: it is in the names of all that Podman makes."""


def check(document: Document[ContainerPodSpec], catalog: Catalog) -> Iterable[Problem]:
    """What the schema cannot say."""
    spec = document.spec

    def problem(path: Sequence[str | int], message: str, fix: str) -> Problem:
        return catalog.problem(document, ("spec", *path), message, fix)

    if len(document.name) > LONGEST:
        yield catalog.problem(
            document, ("metadata", "name"), f"has a name of more than {LONGEST} characters.", "Shorten it."
        )
    if not spec.containers:
        yield problem(("containers",), "spec.containers is empty.", "Describe at least one container.")
    yield from _names(document.name, spec, problem)
    for index, container in enumerate(spec.containers):
        yield from _container(spec, container, ("containers", index), problem)
    yield from _ports(spec, problem)
    yield from _same_secrets(spec, problem)
    if spec.user == ROOT:
        for name in ("linger", "subordinate_ids"):
            if name in spec.model_fields_set:
                alias = ContainerPodSpec.model_fields[name].alias or name
                yield problem((alias,), f"spec.{alias} is for rootless containers, and these are root's.", "Remove it.")
    for index, network in enumerate(spec.networks):
        if network.subnet is not None and not _is_subnet(network.subnet):
            message = f"spec.networks[{index}].subnet is {network.subnet}, which is none."
            yield problem(("networks", index, "subnet"), message, "Write one such as 10.89.5.0/24, without host bits.")
    if spec.host_network and spec.networks:
        yield problem(("networks",), "has hostNetwork and networks, which exclude each other.", "Keep one of them.")


def _names(document: str, spec: ContainerPodSpec, problem: Any) -> Iterable[Problem]:
    """Names are unique, also as those of systemd services."""
    taken = {service_name(f"{document}.pod"): "the pod"} if spec.shared else {}
    for part, kind in (("volumes", "volume"), ("networks", "network"), ("containers", "container")):
        for index, one in enumerate(getattr(spec, part)):
            service = service_name(f"{object_name(document, one.name)}.{kind}")
            if service in taken:
                message = (
                    f"spec.{part}[{index}] has the name {one.name}: its service {service} is that of {taken[service]}."
                )
                yield problem((part, index, "name"), message, "Choose another name.")
            taken.setdefault(service, f"the {kind} {one.name}")


def _container(
    spec: ContainerPodSpec, container: Container, at: tuple[str | int, ...], problem: Any
) -> Iterable[Problem]:
    where = f"spec.containers[{at[1]}]"
    if container.digest is None and container.auto_update is None:
        fix = "Write NAME@sha256:DIGEST (`podman image inspect --format '{{.RepoDigests}}'`), or add `autoUpdate`."
        yield problem((*at, "image"), f"{where}.image has a tag, which can mean another image tomorrow.", fix)
    if container.digest is not None and container.auto_update is not None:
        message = f"{where} has autoUpdate, and its image has a digest, which never means another image."
        yield problem((*at, "autoUpdate"), message, "Name the image by tag, or remove `autoUpdate`.")
    if container.run_as_group is not None and container.run_as_user is None:
        yield problem((*at, "runAsGroup"), f"{where} has runAsGroup without runAsUser.", "Add `runAsUser`.")
    if container.health_check is not None and not container.health_check.command:
        message = f"{where}.healthCheck.command is empty."
        yield problem((*at, "healthCheck", "command"), message, "Write the program and its arguments.")
    volumes = {volume.name for volume in spec.volumes}
    for index, mount in enumerate(container.mounts):
        given = [name for name in ("volume", "host_path", "memory") if getattr(mount, name) is not None]
        if len(given) != 1:
            message = f"{where}.mounts[{index}] has to name one of volume, hostPath and memory."
            yield problem((*at, "mounts", index), message, "Give one of them.")
        if mount.volume is not None and mount.volume not in volumes:
            message = f"{where}.mounts[{index}].volume is {mount.volume}, which is not under volumes."
            yield problem((*at, "mounts", index, "volume"), message, f"Add `- name: {mount.volume}` to volumes.")
    seen = set()
    for index, mount in enumerate(container.mounts):
        if mount.path in seen:
            yield problem((*at, "mounts", index, "path"), f"{where} mounts {mount.path} twice.", "Remove one.")
        seen.add(mount.path)
    for index, secret in enumerate(container.secrets):
        if secret.env is not None and (secret.path is not None or secret.mode is not None):
            message = f"{where}.secrets[{index}] is an environment variable, and has a path or mode."
            yield problem((*at, "secrets", index, "env"), message, "Remove `env`, or `path` and `mode`.")
        if secret.env is not None and secret.env in container.environment:
            message = f"{where}.secrets[{index}].env is {secret.env}, which environment sets, too."
            yield problem((*at, "secrets", index, "env"), message, "Remove one of them.")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_subnet(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _ports(spec: ContainerPodSpec, problem: Any) -> Iterable[Problem]:
    seen: dict[tuple[int, str], set[str | None]] = {}
    for number, container in enumerate(spec.containers):
        for index, port in enumerate(container.ports):
            at = ("containers", number, "ports", index)
            taken = seen.setdefault((port.host or port.container, port.protocol), set())
            if taken and (port.address is None or None in taken or port.address in taken):
                message = f"the host's port {port.host or port.container} is published twice."
                yield problem(at, message, "Give one of them another `host`.")
            taken.add(port.address)
            if port.address is not None and not _is_address(port.address.strip("[]")):
                yield problem((*at, "address"), f"{port.address} is no IP address.", "Write one such as 127.0.0.1.")
            if spec.host_network:
                yield problem(at, "ports are published although the host's network is used.", "Remove `ports`.")


def _same_secrets(spec: ContainerPodSpec, problem: Any) -> Iterable[Problem]:
    """One name is one value in a document, and one image comes from one place."""
    values: dict[str, Any] = {}
    images: dict[str, tuple[Any, Any]] = {}
    for number, container in enumerate(spec.containers):
        for index, secret in enumerate(container.secrets):
            if values.setdefault(secret.name, secret.value) != secret.value:
                message = f"the secret {secret.name} has another value elsewhere in this document."
                yield problem(("containers", number, "secrets", index), message, "Give it another name.")
        whence = (container.archive, container.pull)
        if images.setdefault(container.image, whence) != whence:
            message = f"the image {container.image} has another archive or pull elsewhere in this document."
            yield problem(("containers", number, "image"), message, "Write the same for both containers.")


KIND = Kind("ContainerPod", ContainerPodSpec, expand, check)
