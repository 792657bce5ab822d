"""Where objects stand in the API: what a cluster serves, and the paths that follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from reconciler.model import Get, Reply


class Named(Protocol):
    """What names an object of a cluster."""

    @property
    def api_version(self) -> str:
        """Such as `apps/v1`."""

    @property
    def kind(self) -> str:
        """Such as `Deployment`."""

    @property
    def namespace(self) -> str:
        """Empty where it stands in none."""

    @property
    def name(self) -> str:
        """Its name."""


@dataclass(frozen=True, slots=True)
class Served:
    """A kind of object that a cluster serves."""

    plural: str
    namespaced: bool


def root(api_version: str) -> str:
    """The path of an API version.

    >>> root("v1"), root("apps/v1")
    ('/api/v1', '/apis/apps/v1')
    """
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def catalogues(objects: Iterable[Named]) -> list[Get]:
    """Reads that tell what a cluster serves, for the versions of these objects."""
    return [Get(root(version)) for version in dict.fromkeys(one.api_version for one in objects)]


def served(objects: Iterable[Named], replies: Sequence[Reply]) -> dict[tuple[str, str], Served | Reply]:
    """(apiVersion, kind) -> how it is served, for all that these versions hold. Where a version could not be read at
    all, `(version, "")` has the refusal."""
    found: dict[tuple[str, str], Served | Reply] = {}
    versions = dict.fromkeys(one.api_version for one in objects)
    for version, reply in zip(versions, replies, strict=True):
        if reply.status:
            if reply.status != 404:
                found[version, ""] = reply
            continue
        for one in parsed(reply).get("resources") or ():
            if "/" not in str(one.get("name", "/")):
                found[version, str(one.get("kind"))] = Served(str(one["name"]), bool(one.get("namespaced")))
    return found


def collection(api_version: str, plural: str, namespace: str = "") -> str:
    """The path of all objects of a kind, in a namespace or everywhere."""
    space = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root(api_version)}{space}/{plural}"


def path_of(one: Named, how: Served) -> str:
    """The path of an object."""
    return (
        f"{collection(one.api_version, how.plural, one.namespace if how.namespaced else '')}/{quote(one.name, safe='')}"
    )


def guessed(one: Named) -> str:
    """A path for titles, where nobody has asked the cluster yet."""
    lower = one.kind.lower()
    plural = f"{lower}es" if lower.endswith("s") else f"{lower[:-1]}ies" if lower.endswith("y") else f"{lower}s"
    return path_of(one, Served(plural, bool(one.namespace)))


def parsed(reply: Reply) -> dict[str, Any]:
    """The body of an answer, or nothing where it is no JSON object."""
    try:
        found = json.loads(reply.text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def refusal(reply: Reply, what: str) -> str:
    """Why an answer does not help, as a sentence."""
    body = parsed(reply)
    words = str(body.get("message") or reply.text.strip()[:300] or "no reason is given").rstrip(".")
    if reply.status < 100:  # it was not sent
        return f"{words}."
    if reply.status == 403:
        return f"the login may not {what}: {words}. Give it the right, by a Role or ClusterRole."
    return f"the cluster does not {what}: {reply.status} {words}."


def display(one: Named) -> str:
    """`Deployment web/nginx`."""
    return f"{one.kind} {one.namespace}/{one.name}" if one.namespace else f"{one.kind} {one.name}"


def meta(live: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata of an object."""
    found = live.get("metadata")
    return found if isinstance(found, Mapping) else {}
