"""Service: a systemd unit on hosts, with its own unit file and drop-ins if wished."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import AbsolutePath, HostSelector, Rule
from reconciler.model import Document, Kind, Resource, Spec
from reconciler.types.host.directory import TYPE as host_directory
from reconciler.types.host.file import TYPE as host_file
from reconciler.types.host.unit import TYPE as host_unit
from reconciler.types.host.unit import UnitInstance

FOLDER = "/etc/systemd/system"

DropInName = Annotated[
    str, Rule(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "a file name without the suffix .conf, such as limits", 200)
]
UnitText = Annotated[str, StringConstraints(min_length=1)]


class ServiceBody(Spec):
    """One unit on a host."""

    unit: UnitInstance | None = Field(
        None, description="Full name of the unit; by default the document's name followed by `.service`."
    )
    enabled: bool | None = Field(None, description="Whether it starts at boot.")
    running: bool | None = Field(None, description="Whether it runs now.")
    masked: bool | None = Field(None, description="Whether nothing at all may start it.")
    watch: tuple[AbsolutePath, ...] = Field(
        (),
        description="Files after whose change a running unit restarts. Name each; its own unit file and drop-ins "
        "are watched in any case.",
    )
    on_change: Literal["restart", "reload", "none"] = Field(
        "restart", description="What a change of the watched files asks for."
    )
    unit_file: UnitText | None = Field(None, description=f"Text of `{FOLDER}/UNIT`.")
    drop_ins: dict[DropInName, UnitText] = Field(
        default_factory=dict, description=f"Texts of `{FOLDER}/UNIT.d/NAME.conf`, by name."
    )


class ServiceSpec(ServiceBody):
    """A systemd unit on hosts: a service, socket, timer, mount, ...

    Only what is declared is looked at. Whether a unit has restarted since its files changed is read from the host, so
    no restart is lost when something fails in between. When the document goes, a unit that came with it is stopped and
    disabled; one that was enabled or running before stays as it is. Name the document of its package, and others that
    must come first, in `lifecycle.requires`.

    Example:

        apiVersion: reconciler/v1
        kind: Service
        metadata:
          name: nginx
        spec:
          hosts: {matchLabels: {role: web}}
          enabled: true
          running: true
          watch: [/etc/nginx/nginx.conf]
          onChange: reload
          dropIns:
            restart: |
              [Service]
              Restart=on-failure
    """

    hosts: HostSelector


def unit_name(body: ServiceBody, document: Document[Any]) -> str:
    """The unit that a body means."""
    return body.unit or f"{document.name}.service"


def resources(host: str, body: ServiceBody, document: Document[Any], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The objects of one unit on one host: its files, and the unit."""
    unit = unit_name(body, document)
    files = {}
    if body.unit_file is not None:
        files[f"{FOLDER}/{unit}"] = body.unit_file
    if body.drop_ins:
        yield host_directory(host, path=f"{FOLDER}/{unit}.d")
    for name, text in sorted(body.drop_ins.items()):
        files[f"{FOLDER}/{unit}.d/{name}.conf"] = text
    for path, text in files.items():
        yield host_file(host, path=path, content=text if text.endswith("\n") else f"{text}\n", mode="0644")
    tokens = _spoken_of("\n".join(files.values()))
    after: dict[str, Any] = {"after": tokens} if tokens else {}
    yield host_unit(
        host,
        unit=unit,
        enabled=body.enabled,
        running=body.running,
        masked=body.masked,
        watch=tuple(dict.fromkeys((*files, *body.watch))),
        on_change=body.on_change,
        **after,
    )


def _spoken_of(text: str) -> tuple[str, ...]:
    """Tokens of the accounts that unit files run as and of the programs that they start."""
    accounts = re.findall(r"^\s*(?:User|Group)\s*=\s*([a-z_][a-z0-9_-]*)\s*$", text, re.MULTILINE)
    programs = re.findall(r"^\s*Exec\w+\s*=\s*[-@:+!|]*(/[^\s\"']+)", text, re.MULTILINE)
    found = [f"{what}:{name}" for name in accounts for what in ("user", "group")] + [f"path:{p}" for p in programs]
    return tuple(dict.fromkeys(found))


def expand(document: Document[ServiceSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The unit on every selected host."""
    for host in catalog.hosts(document.spec.hosts):
        yield from resources(host, document.spec, document, catalog)


def check(document: Document[ServiceSpec], catalog: Catalog) -> Iterable[Problem]:
    """What no unit can be, and texts that systemd would not read."""
    for path, message, fix in mistakes(document.spec):
        yield catalog.problem(document, ("spec", *path), message, fix)


def mistakes(body: ServiceBody) -> Iterable[tuple[tuple[str, ...], str, str]]:
    """Place in the body, message and fix of everything that is wrong with it."""
    if body.masked and (body.enabled or body.running):
        yield ("masked",), "a masked unit can be neither enabled nor running.", "Leave out one of them."
    if body.masked and body.unit_file is not None:
        yield ("masked",), "a unit with a file of its own in that place cannot be masked.", "Leave out one of them."
    if all(v is None for v in (body.enabled, body.running, body.masked, body.unit_file)) and not (
        body.watch or body.drop_ins
    ):
        yield (), "says nothing about the unit.", "Add `enabled: true` or `running: true`."
    texts = [(("unitFile",), body.unit_file), *((("dropIns", name), text) for name, text in body.drop_ins.items())]
    for path, text in texts:
        if text is not None:
            for message, fix in _lint(text):
                yield path, message, fix
    settings = dict(re.findall(r"^\s*(Type|RemainAfterExit)\s*=\s*(\S+)", body.unit_file or "", re.MULTILINE))
    if body.running and settings.get("Type") == "oneshot" and settings.get("RemainAfterExit", "no") in _NO:
        message = "a unit of Type=oneshot ends by itself, so it cannot be kept running."
        yield ("running",), message, "Leave `running` out, or add RemainAfterExit=yes."


_NO = ("no", "false", "off", "0", "n", "f")


def _lint(text: str) -> Iterable[tuple[str, str]]:
    """What is wrong with the text of a unit file, and how to mend it."""
    if "\0" in text:
        yield "holds a NUL character.", "Take it out."
        return
    section, continued = False, False
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if continued or not words or words.startswith(("#", ";")):
            continued = continued and (words.endswith("\\") or words.startswith(("#", ";")))
            continue
        if re.fullmatch(r"\[[^\[\]]+\]", words):
            section = True
        elif words.startswith("["):
            yield f"line {number}: {words[:40]!r} is no section header.", "Write it as [Service]."
            section = True
        elif "=" not in words:
            yield f"line {number}: {words[:40]!r} is no setting.", "Write NAME=VALUE."
        elif not section:
            yield f"line {number}: the setting stands before any section.", "Begin with a header such as [Service]."
            section = True
        continued = words.endswith("\\")
    if not section:
        yield "has no section.", "Begin with a header such as [Service]."


KIND = Kind("Service", ServiceSpec, expand, check)
