"""Stage 4, resolve: references become edges, and everything is put in order.

Edges come from three places: `lifecycle.requires` (documents), the tokens that types need and provide, and, for what
must go, the same edges turned round. A node `Kind/name@target` stands for all objects of a document on a target, so
that a document with many objects costs as many edges as it has objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import Any

from reconciler.errors import InvalidInput, Problem
from reconciler.expand import Catalog
from reconciler.model import Resource, Target, alone
from reconciler.registry import Registry

Edges = Mapping[str, Sequence[str]]
"""Node -> the nodes that come before it. Nodes are addresses and `Kind/name@target`."""

EXCLUSIVE = "path:"
"""Tokens of this kind have one provider: two objects cannot stand at one path."""
SHARED = "edit:"
"""Tokens of this kind have many providers, each for a part of a file: none of them takes the place of another."""


@dataclass(frozen=True)
class Desired:
    """What should be: resources by address (sorted), their targets, what comes before what, who watches whom."""

    resources: Mapping[str, Resource[Any]]
    targets: Mapping[str, Target]
    edges: Edges
    watched: Mapping[str, Sequence[str]]


def resolve(resources: Iterable[Resource[Any]], catalog: Catalog) -> Desired:
    """Find what stands on what.

    Raises:
        InvalidInput: a cycle, two objects at one path, or an object that needs what another document removes.
    """
    by_address = {r.address: r for r in _completed(list(resources), catalog.registry)}
    requires = {d.address: d.lifecycle.requires for d in catalog if d.lifecycle.requires}
    edges, watched, problems = connect(by_address.values(), catalog.registry, requires)
    if not problems:
        problems = [_circle(cycle, by_address) for cycle in cycles(edges)[:1]]
    if problems:
        raise InvalidInput(problems)
    return Desired(by_address, catalog.targets, edges, watched)


def _completed(resources: list[Resource[Any]], registry: Registry) -> Iterable[Resource[Any]]:
    """Specs that depend on what else is on their target, filled in."""
    if all(registry.type_of(r.type).among is alone for r in resources):
        return resources
    tokens: dict[str, set[str]] = {}
    for resource in resources:
        tokens.setdefault(resource.target, set()).update(registry.type_of(resource.type).provides(resource.spec))
    return [_completed_one(r, registry.type_of(r.type).among(r.spec, tokens[r.target])) for r in resources]


def _completed_one(resource: Resource[Any], spec: Any) -> Resource[Any]:
    return resource if spec is resource.spec else replace(resource, spec=spec)


def connect(
    resources: Iterable[Resource[Any]], registry: Registry, requires: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], dict[str, list[str]], list[Problem]]:
    """Edges and watches among resources, in time linear in both.

    Args:
        requires: document -> documents that come first.

    Returns:
        edges, watches (address -> addresses that it watches), problems.
    """
    resources = list(resources)
    providers: dict[tuple[str, str], list[Resource[Any]]] = {}
    places: dict[str, dict[str, list[str]]] = {}  # document -> target -> addresses
    problems: list[Problem] = []
    for resource in resources:
        places.setdefault(resource.origin, {}).setdefault(resource.target, []).append(resource.address)
        for token in registry.type_of(resource.type).provides(resource.spec):
            known = providers.setdefault(place(resource, token), [])
            if token.startswith(EXCLUSIVE) and known:
                problems.append(_clash(resource, known[0], token))
            known.append(resource)

    edges: dict[str, list[str]] = {r.address: [] for r in resources}
    watched: dict[str, list[str]] = {}
    known_tokens: dict[tuple[str, int], tuple[list[str], list[str]]] = {}  # many targets have the same spec
    for resource in resources:
        same = resource.type, id(resource.spec)
        if same not in known_tokens:
            kind = registry.type_of(resource.type)
            watches = list(kind.watches(resource.spec))
            known_tokens[same] = sorted({*kind.needs(resource.spec), *watches}), watches
        needs, watches = known_tokens[same]
        for token in needs:
            for provider in providers.get(place(resource, token), ()):
                if provider is resource:
                    continue
                if provider.absent and not resource.absent:
                    problems.append(_removed(resource, provider))
                elif resource.absent:
                    if provider.absent:
                        edges[provider.address].append(resource.address)
                else:
                    edges[resource.address].append(provider.address)
        for token in watches:
            for provider in providers.get((resource.target, token), ()):
                watched.setdefault(resource.address, []).append(provider.address)

    absent = {r.address for r in resources if r.absent}
    for document, firsts in requires.items():
        for target, addresses in places.get(document, {}).items():
            for first in firsts:
                found = places.get(first, {})
                # On a shared target the order is a matter of that target; else it is one between targets.
                for where in [target] if target in found else sorted(found):
                    gate = f"{first}@{where}"
                    edges.setdefault(gate, found[where])
                    # What goes does not wait for what goes, too: their own edges are turned round already.
                    leaving = absent if absent.issuperset(found[where]) else ()
                    for address in addresses:
                        if address not in leaving:
                            edges[address].append(gate)
    return {node: sorted(set(before)) for node, before in edges.items()}, watched, problems


def place(resource: Resource[Any], token: str) -> tuple[str, str]:
    """Target and token: of the same target, or, written `@PLACE/TOKEN`, of another one or of none."""
    if not token.startswith("@"):
        return resource.target, token
    target, _, other = token[1:].partition("/")
    return target, other


def topological(edges: Edges) -> list[str]:
    """Every node after all that come before it; among equals by name, so that the order depends on nothing else.

    Kahn's algorithm with a heap. Nodes on a cycle are left out.
    """
    missing = {node: len(before) for node, before in edges.items()}
    after: dict[str, list[str]] = {node: [] for node in edges}
    for node, before in edges.items():
        for first in before:
            after[first].append(node)
    ready = [node for node, count in missing.items() if count == 0]
    heapify(ready)
    out = []
    while ready:
        node = heappop(ready)
        out.append(node)
        for later in after[node]:
            missing[later] -= 1
            if missing[later] == 0:
                heappush(ready, later)
    return out


def cycles(edges: Edges) -> list[list[str]]:
    """One cycle, as the list of its nodes with the first repeated at the end; none gives an empty list."""
    left = edges.keys() - set(topological(edges))
    if not left:
        return []
    node = min(left)
    walked: dict[str, int] = {}
    path: list[str] = []
    while node not in walked:
        walked[node] = len(path)
        path.append(node)
        node = min(n for n in edges[node] if n in left)
    return [[*path[walked[node] :], node]]


def _circle(cycle: Sequence[str], by_address: Mapping[str, Resource[Any]]) -> Problem:
    # A cycle of documents alone has objects in between: a document without objects has no node.
    resource = next(by_address[node] for node in cycle if node in by_address)
    way = " -> ".join(cycle)
    return Problem(f"needs itself, by way of {way}.", "Take one `requires` away.", resource.origin, resource.position)


def _clash(resource: Resource[Any], other: Resource[Any], token: str) -> Problem:
    return Problem(
        f"{resource.address} and {other.address} (from {other.origin}) both want {token.removeprefix(EXCLUSIVE)}.",
        "Keep one of them.",
        resource.origin,
        resource.position,
    )


def _removed(resource: Resource[Any], provider: Resource[Any]) -> Problem:
    return Problem(
        f"{resource.address} needs {provider.address}, which {provider.origin} says must be absent.",
        "Keep both or remove both.",
        resource.origin,
        resource.position,
    )
