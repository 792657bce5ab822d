"""Package: Debian packages on hosts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import HostSelector, PackageName
from reconciler.model import Document, Kind, Resource, Spec
from reconciler.types.host.package import TYPE as host_package
from reconciler.types.host.package import Version


class PackageItem(Spec):
    """A package of a list, with what goes for it alone."""

    name: PackageName = Field(description="The package's name.")
    version: Version | None = Field(None, description="Exactly this version, also if that means a downgrade.")
    hold: bool | None = Field(None, description="Whether upgrades leave it alone (`apt-mark hold`).")


class PackageBody(PackageItem):
    """One package on a host."""

    ensure: Literal["present", "absent"] = Field("present", description="Whether it is installed or must not be.")
    purge: bool = Field(False, description="Where it is removed, delete its configuration files, too.")
    recommends: bool = Field(False, description="Install the packages that it recommends, too.")


class PackageSpec(Spec):
    """Debian packages on hosts, installed or removed with apt.

    A package of which no version is asked for is installed once and then left to the host's upgrades. Installing
    never removes other packages, and removing one never takes along others than those of the same list: apply says
    what stands in the way. Package sources are files below `/etc/apt`: name their documents in `lifecycle.requires`.

    Example:

        apiVersion: reconciler/v1
        kind: Package
        metadata:
          name: web-server
        spec:
          hosts: {matchLabels: {role: web}}
          packages:
            - curl
            - name: nginx
              version: 1.26.3-3+deb13u1
              hold: true
    """

    hosts: HostSelector
    packages: tuple[PackageName | PackageItem, ...] = Field(
        min_length=1, description="Names of packages, or mappings with `name`, `version` and `hold`."
    )
    ensure: Literal["present", "absent"] = Field("present", description="Whether they are installed or must not be.")
    purge: bool = Field(False, description="Where they are removed, delete their configuration files, too.")
    recommends: bool = Field(False, description="Install the packages that they recommend, too.")


def resources(
    host: str, body: PackageBody, document: Document[Any], catalog: Catalog, together: Sequence[str] = ()
) -> Iterable[Resource[Any]]:
    """One package on one host; `together` are packages that may be removed with it."""
    if body.ensure == "absent":
        yield host_package(host, absent=True, name=body.name, purge=body.purge, together=tuple(together))
        return
    yield host_package(
        host,
        name=body.name,
        version=body.version,
        hold=body.hold,
        recommends=body.recommends,
        purge=body.purge,
        provided=True,
    )


def expand(document: Document[PackageSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """Each package on every selected host."""
    spec = document.spec
    bodies = [
        PackageBody(
            name=item.name,
            version=item.version,
            hold=item.hold,
            ensure=spec.ensure,
            purge=spec.purge,
            recommends=spec.recommends,
        )
        for item in _items(spec)
    ]
    names = sorted({body.name for body in bodies})
    for host in catalog.hosts(spec.hosts):
        for body in bodies:
            yield from resources(host, body, document, catalog, [name for name in names if name != body.name])


def check(document: Document[PackageSpec], catalog: Catalog) -> Iterable[Problem]:
    """No package twice; no version of a package that must be absent."""
    seen = set()
    for index, item in enumerate(_items(document.spec)):
        at = ("spec", "packages", index)
        if item.name in seen:
            yield catalog.problem(document, at, f"{item.name} is in the list twice.", "Delete one.")
        seen.add(item.name)
        if document.spec.ensure == "absent" and (item.version is not None or item.hold is not None):
            message = f"{item.name} must be absent, so it has no version and cannot be held."
            yield catalog.problem(document, at, message, "Write its name only.")


def _items(spec: PackageSpec) -> list[PackageItem]:
    return [PackageItem(name=item) if isinstance(item, str) else item for item in spec.packages]


KIND = Kind("Package", PackageSpec, expand, check)
