"""YAML texts for tests, and a way to the problems that they have. Only the kinds Host and File take part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reconciler.errors import InvalidInput
from reconciler.expand import Catalog, expand
from reconciler.kinds.file import KIND as FILE_KIND
from reconciler.kinds.host import KIND as HOST_KIND
from reconciler.load import load
from reconciler.registry import Registry, default
from reconciler.resolve import Desired, resolve
from reconciler.validate import validate

HEAD = "apiVersion: reconciler/v1\n"
HOST = f"""\
{HEAD}kind: Host
metadata: {{name: web1, labels: {{role: web}}}}
spec: {{connection: image, root: /srv/web1}}
---
"""
FILE = f"{HEAD}kind: File\nmetadata:\n  name: motd\nspec:\n  hosts: [web1]\n  path: /etc/motd\n"
"""Ends inside `spec`, so that lines can be added. With `HOST` before it, `spec.path` is at line 12, column 9."""


def registry() -> Registry:
    """Two kinds, and every resource type."""
    return Registry.of([FILE_KIND, HOST_KIND], default().types.values())


def catalog_of(folder: Path, text: str | bytes | None = None, name: str = "a.yaml") -> Catalog:
    """The documents of a folder, after a text was put there."""
    if text is not None:
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        (folder / name).write_bytes(content)
    return validate(load(folder), registry())


def desired_of(folder: Path, text: str | bytes | None = None) -> Desired:
    """What a text means."""
    catalog = catalog_of(folder, text)
    return resolve(expand(catalog), catalog)


def problems_of(folder: Path, text: str | bytes | None = None) -> list[str]:
    """The problems of a text, without the folder's own name; none if it is fine."""
    try:
        desired_of(folder, text)
    except InvalidInput as error:
        for problem in error.problems:
            assert problem.position, f"no position: {problem}"
        return [str(p).replace(f"{folder}/", "") for p in error.problems]
    return []


def only_resource(desired: Desired) -> Any:
    """The spec of the only object."""
    (resource,) = desired.resources.values()
    return resource.spec
