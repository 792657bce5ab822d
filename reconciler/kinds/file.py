"""File: a file on hosts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from reconciler.expand import Catalog
from reconciler.fields import AbsolutePath, Account, HostSelector, LocalPath, Mode
from reconciler.model import Document, Kind, Resource, Secret, Spec
from reconciler.types.host.file import TYPE as host_file


class FileBody(Spec):
    """One path on a host."""

    path: AbsolutePath = Field(description="Where it stands.")
    content: str | Secret | None = Field(None, description="The whole text, or a secret.")
    source: LocalPath | None = Field(None, description="A file of this repo, relative to the document, to copy.")
    mode: Mode | None = Field(None, description="Permissions, quoted; `0644` for new files.")
    owner: Account | None = Field(None, description="Owner; `root` for new files.")
    group: Account | None = Field(None, description="Group; `root` for new files.")
    sensitive: bool = Field(False, description="Never show the content, only whether it differs.")


class FileSpec(FileBody):
    """A file on hosts.

    Example:

        apiVersion: reconciler/v1
        kind: File
        metadata:
          name: motd
        spec:
          hosts: [web1]
          path: /etc/motd
          mode: "0644"
          content: |
            This host is managed. Edit the repo, not the host.
    """

    hosts: HostSelector


def resources(host: str, body: FileBody, document: Document[Any], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The objects of one path on one host."""
    content = body.content
    if body.source is not None:
        content = catalog.source(document, ("spec", "source"), body.source)
    yield host_file(
        host,
        path=body.path,
        content=content,
        mode=body.mode,
        owner=body.owner,
        group=body.group,
        sensitive=body.sensitive,
    )


def expand(document: Document[FileSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The path on every selected host."""
    for host in catalog.hosts(document.spec.hosts):
        yield from resources(host, document.spec, document, catalog)


KIND = Kind("File", FileSpec, expand)
