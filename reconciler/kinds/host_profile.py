"""HostProfile: what hosts of one sort have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Account, HostSelector
from reconciler.kinds import file, package, service, user
from reconciler.model import Document, Kind, Resource, Spec
from reconciler.types.host.group import LAST_ID
from reconciler.types.host.group import TYPE as host_group
from reconciler.types.host.sysctl import TYPE as host_sysctl
from reconciler.types.host.sysctl import SysctlKey, SysctlValue


class GroupBody(Spec):
    """One group of accounts."""

    name: Account = Field(description="Its name. Who is in it, the accounts say with their `groups`.")
    gid: int | None = Field(None, ge=0, le=LAST_ID, description="Its number; the next free one by default.")
    system: bool = Field(False, description="A group for a service: it gets a number for system groups.")
    ensure: Literal["present", "absent"] = Field("present", description="`absent` removes the group.")


class HostProfileSpec(Spec):
    """What hosts of one sort have in common: files, packages, services, users, groups and kernel parameters.

    Each item is written as in the kind of its own: File, Package, Service, User. Hosts are best chosen by label, so
    that a new host gets the profile with its label.

    Example:

        apiVersion: reconciler/v1
        kind: HostProfile
        metadata:
          name: web
        spec:
          hosts: {matchLabels: {role: web}}
          packages:
            - name: nginx
          services:
            - unit: nginx.service
              enabled: true
              running: true
              watch: [/etc/nginx/nginx.conf]
          files:
            - path: /etc/nginx/nginx.conf
              source: files/nginx.conf
          groups:
            - name: release
          users:
            - name: deploy
              groups: [www-data, release]
          sysctls:
            net.core.somaxconn: "4096"
    """

    hosts: HostSelector
    files: tuple[file.FileBody, ...] = Field((), description="Files, links, directories, lines and blocks; see File.")
    packages: tuple[package.PackageBody, ...] = Field((), description="Debian packages; see Package.")
    services: tuple[service.ServiceBody, ...] = Field((), description="systemd units; see Service.")
    users: tuple[user.UserBody, ...] = Field((), description="Accounts; see User.")
    groups: tuple[GroupBody, ...] = Field((), description="Groups of accounts.")
    sysctls: dict[SysctlKey, SysctlValue] = Field(
        default_factory=dict, description="Kernel parameters, set now and at every boot: name to quoted value."
    )


def expand(document: Document[HostProfileSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """Everything in it on every selected host."""
    spec = document.spec
    for host in catalog.hosts(spec.hosts):
        for index, body in enumerate(spec.files):
            yield from file.resources(host, body, document, catalog, ("spec", "files", index))
        removed = [p.name for p in spec.packages if p.ensure == "absent"]
        for item in spec.packages:
            together = [name for name in removed if name != item.name]
            yield from package.resources(host, item, document, catalog, together)
        for unit in spec.services:
            yield from service.resources(host, unit, document, catalog)
        for account in spec.users:
            yield from user.resources(host, account, document, catalog)
        for group in spec.groups:
            if group.ensure == "absent":
                yield host_group(host, absent=True, name=group.name)
            else:
                yield host_group(host, name=group.name, gid=group.gid, system=group.system)
        for key, value in spec.sysctls.items():
            yield host_sysctl(host, key=key, value=value)


def check(document: Document[HostProfileSpec], catalog: Catalog) -> Iterable[Problem]:
    """What the kinds say of their parts; and names, because here the document's own cannot stand in."""
    spec = document.spec
    if not any((spec.files, spec.packages, spec.services, spec.users, spec.groups, spec.sysctls)):
        message = "spec asks for nothing."
        yield catalog.problem(document, ("spec",), message, "Add files, packages, services, users, groups or sysctls.")
    hosts = catalog.hosts(spec.hosts)
    for index, body in enumerate(spec.files):
        yield from file.problems(body, document, catalog, ("spec", "files", index))
    for index, unit in enumerate(spec.services):
        if unit.unit is None:
            message = f"spec.services[{index}].unit is missing."
            yield catalog.problem(document, ("spec", "services", index), message, "Add `unit:`.")
        for path, message, fix in service.mistakes(unit):
            yield catalog.problem(document, ("spec", "services", index, *path), message, fix)
    for index, account in enumerate(spec.users):
        if account.name is None:
            message = f"spec.users[{index}].name is missing."
            yield catalog.problem(document, ("spec", "users", index), message, "Add `name:`.")
        yield from user.check_body(hosts, account, document, catalog, ("spec", "users", index))


KIND = Kind("HostProfile", HostProfileSpec, expand, check)
