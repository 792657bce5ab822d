"""Host: a Linux machine, or an offline image of one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.expand import Catalog
from reconciler.fields import Account, LocalPath, Rule
from reconciler.model import Document, Kind, Resource, Spec, Target, dump


class HostSpec(Spec):
    """A Linux host that other documents put things on.

    By default it is reached by SSH under the document's name, with what `~/.ssh/config` says about that name. Host
    keys are checked strictly and never added silently. Labels in `metadata` are what selectors choose by.

    Example:

        apiVersion: reconciler/v1
        kind: Host
        metadata:
          name: web1
          labels: {role: web}
        spec:
          address: web1.example.org
          user: admin
          become: sudo
    """

    connection: Literal["ssh", "local", "image"] = Field(
        "ssh", description="`ssh`; `local`: the machine that reconciler runs on; `image`: the folder `root`, offline."
    )
    address: Annotated[str, Rule(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*", "a host name or an IP address", 253)] | None = Field(
        None, description="Name or IP address, or an alias from the SSH configuration; the document's name by default."
    )
    port: int | None = Field(None, ge=1, le=65535, description="TCP port of sshd.")
    user: Account | None = Field(None, description="Whom to log in as.")
    become: Literal["none", "sudo", "run0", "doas"] = Field(
        "none", description="How to get root after the login; it must work without a password."
    )
    identity_file: LocalPath | None = Field(None, description="Private key; by default what SSH would use.")
    known_hosts: LocalPath | None = Field(None, description="File of known host keys, instead of the usual.")
    config_file: LocalPath | None = Field(None, description="SSH configuration, instead of `~/.ssh/config`.")
    client: Literal["paramiko", "openssh"] = Field(
        "paramiko",
        description="`openssh` runs the OpenSSH client: slower, but it knows host certificates and hardware keys.",
    )
    root: LocalPath | None = Field(None, description="The folder of an `image`.")


def expand(document: Document[HostSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """A host is a target; it means no objects by itself."""
    return ()


ONLY_SSH = ("address", "port", "user", "identity_file", "known_hosts", "config_file", "client")


def check(document: Document[HostSpec], catalog: Catalog) -> Iterable[Any]:
    """`root` belongs to images, and only to them. What says how to log in must not stand where nobody logs in: whoever
    wrote the address of another machine does not mean this one."""
    spec = document.spec
    if spec.connection != "ssh":
        without = ONLY_SSH if spec.connection == "local" else (*ONLY_SSH, "become")
        for name in (n for n in without if n in spec.model_fields_set):
            alias = HostSpec.model_fields[name].alias or name
            message = f"spec.{alias} says nothing about the connection {spec.connection}."
            fix = f"Remove `{alias}:`, or correct `connection:`."
            yield catalog.problem(document, ("spec", alias), message, fix)
    if (spec.connection == "image") != (spec.root is not None):
        message, fix = "an image needs `root`, and nothing else takes it.", "Add `root:`, or correct `connection:`."
        yield catalog.problem(document, ("spec", "connection"), message, fix)


def target(document: Document[HostSpec]) -> Target:
    """How to reach the host. Paths are relative to the document, as everywhere in it."""
    folder = PurePath(document.position.file).parent
    settings = {k: v for k, v in dump(document.spec).items() if k != "connection"}
    for name in ("root", "identityFile", "knownHosts", "configFile"):
        if name in settings and not settings[name].startswith("~"):
            settings[name] = str(folder / settings[name])
    return Target(document.name, document.spec.connection, settings, document.metadata.labels)


KIND = Kind("Host", HostSpec, expand, check, target)
