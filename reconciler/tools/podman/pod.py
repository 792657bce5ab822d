"""What a pod is made of: containers, ports, volumes, networks, secrets and health checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from reconciler.fields import AbsolutePath, Duration, Line, Rule
from reconciler.model import Secret, Spec

Name = Annotated[
    str, Rule(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", "a short name: lower-case letters, digits and -, such as db", 63)
]
ImageReference = Annotated[
    str,
    Rule(
        r"[a-z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+"
        r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})",
        "the full name of an image with its digest: REGISTRY/NAME@sha256:DIGEST",
        500,
    ),
]
VariableName = Annotated[str, Rule(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable", 255)]
PlainPath = Annotated[
    str,
    Rule(
        r"(?!(?:.*/)?\.\.?(?:/|$))(?:/[A-Za-z0-9_.@+-]+)+",
        'an absolute path of letters, digits and any of _ . @ + -, without "..", such as /srv/data',
        4095,
    ),
]
"""A path that means itself in unit files and in Podman's own lists, which use `:` `,` and spaces."""
Address = Annotated[
    str, Rule(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-f:]+\]", "an IP address such as 127.0.0.1 or [::1]", 45)
]
Memory = Annotated[str, Rule(r"[1-9][0-9]{0,8}(?:K|M|G)", 'an amount of memory, such as "512M" (powers of 1,024)')]
Cpus = Annotated[
    str, Rule(r"(?!0+(?:\.0+)?$)[0-9]{1,4}(?:\.[0-9]{1,3})?", 'a quoted number of CPUs, such as "0.5" or "2"')
]
Capability = Annotated[str, Rule(r"[A-Z][A-Z_]{1,40}", "a capability without CAP_, such as NET_BIND_SERVICE")]
Subnet = Annotated[
    str,
    Rule(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}/[0-9]{1,2}|[0-9a-f:]+/[0-9]{1,3}", "a subnet, such as 10.89.5.0/24", 60),
]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


class Port(Spec):
    """A port of a container that the host answers on."""

    container: PortNumber = Field(description="The port in the container.")
    host: PortNumber | None = Field(None, description="The port of the host; the same number by default.")
    address: Address | None = Field(None, description="Only on this address of the host; on all by default.")
    protocol: Literal["tcp", "udp"] = Field("tcp", description="The protocol.")

    def __str__(self) -> str:
        address = f"{self.address}:" if self.address else ""
        protocol = "" if self.protocol == "tcp" else f"/{self.protocol}"
        return f"{address}{self.host or self.container}:{self.container}{protocol}"


class Mount(Spec):
    """Where a container sees a volume, a path of the host, or an empty place in memory. Give one of the three."""

    path: PlainPath = Field(description="Where the container sees it.")
    volume: Name | None = Field(None, description="The name of a volume under `volumes`.")
    host_path: PlainPath | None = Field(None, description="A path of the host. It has to be there.")
    memory: Memory | None = Field(None, description="An empty place in memory, at most so large (tmpfs).")
    read_only: bool = Field(False, description="The container cannot write there.")
    relabel: Literal["shared", "private"] | None = Field(
        None,
        description="On hosts with SELinux: give a volume or path the label that containers, or this one, may use.",
    )

    @property
    def options(self) -> str:
        """What follows a volume or a path of the host in Podman's `--volume`: nothing, or `:ro,Z`."""
        label = {"shared": "z", "private": "Z", None: ""}[self.relabel]
        given = ",".join(filter(None, ("ro" if self.read_only else "", label)))
        return f":{given}" if given else ""


class ContainerSecret(Spec):
    """A secret that a container gets, as a file or as an environment variable."""

    name: Name = Field(description="Its name in the document; Podman knows it as DOCUMENT-NAME.")
    value: Secret | None = Field(
        None, description="Where its value comes from. Without it, somebody else puts the Podman secret `name` there."
    )
    env: VariableName | None = Field(None, description="The environment variable that holds it, in place of a file.")
    path: PlainPath | None = Field(None, description="The file that holds it; /run/secrets/NAME by default.")
    mode: Annotated[str, Rule(r"0[0-7]{3}", 'the permissions, such as "0400"')] | None = Field(
        None, description='Permissions of the file, quoted; "0444" by default.'
    )


class HealthCheck(Spec):
    """A program in the container that tells whether it works."""

    command: tuple[Line, ...] = Field(description="The program and its arguments; 0 means healthy.")
    interval: Duration = Field("30s", description="How often.")
    timeout: Duration | None = Field(None, description="How long it may take; 30s by default.")
    retries: int | None = Field(None, ge=1, le=100, description="Failures in a row that make it unhealthy; 3.")
    start_period: Duration | None = Field(None, description="Failures in this time after the start do not count.")
    on_failure: Literal["none", "kill", "restart", "stop"] | None = Field(
        None,
        description="What Podman does with an unhealthy container; nothing by default. `kill` lets systemd restart.",
    )


class Resources(Spec):
    """Limits. They need a host whose cgroups have the controllers."""

    memory: Memory | None = Field(None, description="At most so much memory.")
    cpus: Cpus | None = Field(None, description="At most so many CPUs.")
    processes: int | None = Field(None, ge=1, le=1_000_000, description="At most so many processes.")


class Container(Spec):
    """One container."""

    name: Name = Field(description="Unique in the document; Podman knows it as DOCUMENT-NAME.")
    image: ImageReference = Field(description="Its image by digest; by tag only with `autoUpdate`.")
    archive: AbsolutePath | None = Field(
        None, description="A file on the host that the image is loaded from (`podman save`), in place of a registry."
    )
    pull: Literal["missing", "never"] = Field(
        "missing", description="`never`: an image that is neither there nor in `archive` is an error."
    )
    command: tuple[Line, ...] = Field((), description="What runs, in place of the image's entry point.")
    args: tuple[Line, ...] = Field((), description="Its arguments, in place of those of the image.")
    environment: dict[VariableName, Line] = Field(default_factory=dict, description="Variables that are no secrets.")
    secrets: tuple[ContainerSecret, ...] = Field((), description="Secrets that it gets.")
    ports: tuple[Port, ...] = Field((), description="Ports that the host answers on.")
    mounts: tuple[Mount, ...] = Field((), description="What it sees of volumes, the host and memory.")
    health_check: HealthCheck | None = Field(None, description="How to tell whether it works.")
    auto_update: Literal["registry", "local"] | None = Field(
        None, description="`podman auto-update` replaces it when its tag means another image: in the registry, or here."
    )
    restart: Literal["always", "on-failure"] = Field("always", description="When systemd starts it again.")
    working_dir: PlainPath | None = Field(None, description="The folder that it starts in.")
    run_as_user: int | None = Field(None, ge=0, le=4_294_967_294, description="The number of the user in it.")
    run_as_group: int | None = Field(None, ge=0, le=4_294_967_294, description="The number of the group in it.")
    read_only: bool = Field(False, description="It cannot write outside its mounts.")
    add_capabilities: tuple[Capability, ...] = Field((), description="Capabilities that it gets.")
    drop_capabilities: tuple[Capability, ...] = Field((), description="Capabilities that it loses; `ALL` is one.")
    no_new_privileges: bool = Field(False, description="No program in it gains privileges.")
    stop_timeout: int | None = Field(
        None, ge=0, le=3600, description="Seconds from asking it to stop to killing it; 10."
    )
    resources: Resources = Field(default_factory=Resources, description="Limits.")

    @property
    def digest(self) -> str | None:
        """`sha256:...` where the image is named by digest."""
        _, at, digest = self.image.partition("@")
        return digest if at else None


class Volume(Spec):
    """A volume of Podman. Its data stays when the document goes."""

    name: Name = Field(description="Unique in the document; Podman knows it as DOCUMENT-NAME.")


class Network(Spec):
    """A network of Podman."""

    name: Name = Field(description="Unique in the document; Podman knows it as DOCUMENT-NAME.")
    subnet: Subnet | None = Field(None, description="Its addresses; Podman chooses by default.")
    internal: bool = Field(False, description="No way out of it.")


class Pod(Spec):
    """Containers that belong together, with their volumes and networks."""

    shared: bool = Field(
        True, description="The containers form one pod: they reach each other on localhost. Else each stands alone."
    )
    containers: tuple[Container, ...] = Field(description="The containers.")
    volumes: tuple[Volume, ...] = Field((), description="Volumes for the containers' mounts.")
    networks: tuple[Network, ...] = Field((), description="Networks that all of it joins; Podman's own by default.")
    host_network: bool = Field(False, description="Use the network of the host, without one of its own.")

    @property
    def secrets(self) -> Iterator[ContainerSecret]:
        """Every mention of a secret."""
        return (secret for container in self.containers for secret in container.secrets)
