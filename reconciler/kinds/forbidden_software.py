"""ForbiddenSoftware: what must not be on hosts, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import HostSelector
from reconciler.model import Document, Kind, Resource, Spec
from reconciler.types.host.file import TYPE as host_file
from reconciler.types.host.package import TYPE as host_package
from reconciler.types.host.process import TYPE as host_process
from reconciler.types.host.software import TYPE as host_software
from reconciler.types.host.software import SoftwareItem, is_exact
from reconciler.types.host.unit import TYPE as host_unit


class ForbiddenSoftwareBody(Spec):
    """Forbidden software."""

    software: tuple[SoftwareItem, ...] = Field(min_length=1, description="What is forbidden.")
    enforce: bool = Field(
        False,
        description="Remove it, rather than only report it: packages are purged; units stopped and disabled; programs "
        "removed that are given as an absolute path without * ? []; processes ended that run from such a path, or "
        "from a usual folder for programs. What else is found stays a finding.",
    )


class ForbiddenSoftwareSpec(ForbiddenSoftwareBody):
    """Software that must not be on hosts: reported, or removed where `enforce: true`.

    It is found as an installed package, as a unit that could be started, as a program, and as a running process
    (not in offline images). Each item needs a reason, which is shown with every finding.

    Example:

        apiVersion: reconciler/v1
        kind: ForbiddenSoftware
        metadata:
          name: forbidden-software
        spec:
          hosts: {matchLabels: {}}
          enforce: false
          software:
            - name: tmate
              reason: its project has been unmaintained since 2019
              binaries: [tmate, /opt/tmate-*/tmate]
    """

    hosts: HostSelector


def resources(
    host: str, body: ForbiddenSoftwareBody, document: Document[Any], catalog: Catalog
) -> Iterable[Resource[Any]]:
    """The audit, and with `enforce` what removes things, on one host."""
    yield host_software(host, name=document.name, items=body.software, enforce=body.enforce)
    if not body.enforce:
        return
    packages: dict[str, set[str]] = {}
    units: set[str] = set()
    files: set[str] = set()
    programs: set[str] = set()
    for item in body.software:
        for name in item.package_names():
            packages.setdefault(name, set()).update(set(item.package_names()) - {name})
        units.update(name for name in item.unit_names() if "@." not in name)
        files.update(name for name in item.binary_names() if is_exact(name))
        programs.update(item.process_paths())
    for name in sorted(packages):
        yield host_package(host, absent=True, name=name, purge=True, together=tuple(sorted(packages[name])))
    for name in sorted(units):
        yield host_unit(host, unit=name, enabled=False, running=False)
    for path in sorted(files):
        yield host_file(host, absent=True, path=path)
    for path in sorted(files | programs):
        yield host_process(host, path=path)


def expand(document: Document[ForbiddenSoftwareSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The same on every selected host."""
    for host in catalog.hosts(document.spec.hosts):
        yield from resources(host, document.spec, document, catalog)


def check(document: Document[ForbiddenSoftwareSpec], catalog: Catalog) -> Iterable[Problem]:
    """See `check_body`."""
    yield from check_body(document.spec, document, catalog, ("spec",))


def check_body(
    body: ForbiddenSoftwareBody, document: Document[Any], catalog: Catalog, path: tuple[str | int, ...]
) -> Iterable[Problem]:
    """What is wrong beyond the shape. `path` is where the body stands in the document."""
    seen: set[str] = set()
    for index, item in enumerate(body.software):
        at = (*path, "software", index)
        if item.name in seen:
            yield catalog.problem(document, (*at, "name"), f"{item.name} is there twice.", "Join the two items.")
        seen.add(item.name)
        if not any((item.package_names(), item.unit_names(), item.binary_names(), item.process_names())):
            message = f"{item.name} can never be found: all its lists are empty."
            yield catalog.problem(document, at, message, "Leave the lists out, or name something in one of them.")
        if item.packages is None and len(item.name) < 2:
            message = f"{item.name} cannot be the name of a package."
            yield catalog.problem(document, (*at, "name"), message, "Give `packages:`; `[]` means none.")


KIND = Kind("ForbiddenSoftware", ForbiddenSoftwareSpec, expand, check)
