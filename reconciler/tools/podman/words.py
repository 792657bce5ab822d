"""Words of unit files, and the arguments of Podman that Quadlet's keys and `podman run` have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from reconciler.fields import seconds
from reconciler.tools.podman.pod import Container, ContainerSecret, HealthCheck, Pod

_BARE = re.compile(r"[A-Za-z0-9_@+=:,./-]+")


def word(text: str) -> str:
    r"""One word of a unit file's value: it means exactly this text, whatever is in it (systemd.syntax(7), quoting).

    >>> word("a")
    'a'
    >>> word('50% of "$HOME"')
    '"50%% of \\"$$HOME\\""'
    """
    if _BARE.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{unexpanded(escaped)}"'


def unexpanded(text: str) -> str:
    """A text in which systemd finds neither specifiers nor variables.

    >>> unexpanded("50% of $HOME")
    '50%% of $$HOME'
    """
    return text.replace("%", "%%").replace("$", "$$")


def words(texts: Iterable[str]) -> str:
    """Words of a unit file's value."""
    return " ".join(map(word, texts))


def object_name(document: str, name: str) -> str:
    """What Podman calls a container, volume, network or secret of a document."""
    return f"{document}-{name}"


def service_name(unit: str) -> str:
    """The systemd service of a Quadlet unit (podman-systemd.unit(5)).

    >>> service_name("a.pod"), service_name("a-b.container")
    ('a-pod.service', 'a-b.service')
    """
    name, _, kind = unit.rpartition(".")
    return f"{name}.service" if kind == "container" else f"{name}-{kind}.service"


def secret_name(document: str, secret: ContainerSecret) -> str:
    """What Podman calls a secret: those of others keep their name."""
    return object_name(document, secret.name) if secret.value is not None else secret.name


def secret_option(document: str, secret: ContainerSecret) -> str:
    """The value of `--secret`, and of `Secret=`."""
    name = secret_name(document, secret)
    if secret.env is not None:
        return f"{name},type=env,target={secret.env}"
    # Podman puts it at /run/secrets/NAME; what it is called there must not depend on the document's name.
    mode = f",mode={secret.mode}" if secret.mode else ""
    return f"{name},type=mount,target={secret.path or '/run/secrets/' + secret.name}{mode}"


def network_options(document: str, pod: Pod, *, quadlet: bool) -> Iterator[str]:
    """The values of `--network`, or of `Network=`."""
    if pod.host_network:
        yield "host"
    for network in pod.networks:
        yield object_name(document, network.name) + (".network" if quadlet else "")


def further_arguments(container: Container) -> Iterator[str]:
    """Arguments of `podman run` for which Quadlet has no key, or has one only since lately."""
    if container.command:
        yield f"--entrypoint={json.dumps(container.command, ensure_ascii=False)}"
    if container.working_dir:
        yield f"--workdir={container.working_dir}"
    if container.stop_timeout is not None:
        yield f"--stop-timeout={container.stop_timeout}"
    limits = container.resources
    if limits.memory:
        yield f"--memory={limits.memory.lower()}"
    if limits.cpus:
        yield f"--cpus={limits.cpus}"
    if limits.processes:
        yield f"--pids-limit={limits.processes}"


def stop_seconds(container: Container) -> tuple[int, int]:
    """How long a container may take to stop, and how long its service may, which waits for that."""
    seconds = 10 if container.stop_timeout is None else container.stop_timeout
    return seconds, seconds + 30


def health_options(check: HealthCheck) -> Iterator[tuple[str, str]]:
    """Names as in `--health-NAME`, and values."""
    yield "cmd", json.dumps(check.command, ensure_ascii=False)
    yield "interval", f"{seconds(check.interval)}s"
    if check.timeout:
        yield "timeout", f"{seconds(check.timeout)}s"
    if check.retries:
        yield "retries", str(check.retries)
    if check.start_period:
        yield "start-period", f"{seconds(check.start_period)}s"
    if check.on_failure:
        yield "on-failure", check.on_failure


def text_of(sections: Sequence[tuple[str, Sequence[tuple[str, str]]]], origin: str) -> str:
    """A unit file: sections with their settings; empty sections are left out."""
    lines = [f"# Written by reconciler for {origin}; changes here are taken back."]
    for name, settings in sections:
        if settings:
            lines += ["", f"[{name}]", *(f"{key}={value}" for key, value in settings)]
    return "\n".join(lines) + "\n"
