"""The order of documents or objects, as text, Mermaid, Graphviz DOT or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from reconciler.resolve import Desired, topological

Graph = Mapping[str, Sequence[str]]
"""Node -> the nodes that come before it."""


def of_resources(desired: Desired) -> Graph:
    """Every object; documents that are waited for as a whole are nodes, too."""
    return desired.edges


def of_documents(desired: Desired) -> Graph:
    """Documents only: the edges between their objects, once each."""
    origin = {address: r.origin for address, r in desired.resources.items()}
    out: dict[str, set[str]] = {r.origin: set() for r in desired.resources.values()}
    for node, before in desired.edges.items():
        if node in origin:
            out[origin[node]] |= {origin.get(b, b.rpartition("@")[0]) for b in before} - {origin[node]}
    return {node: sorted(before) for node, before in sorted(out.items())}


def to_text(graph: Graph) -> str:
    """Nodes in order, each with what it waits for."""
    order = topological(graph)
    order += sorted(graph.keys() - set(order))  # documents may wait for each other where their objects do not
    return "".join(f"{n}\n" + "".join(f"    after {b}\n" for b in graph[n]) for n in order)


def to_mermaid(graph: Graph) -> str:
    """A Mermaid flowchart."""
    number = {node: f"n{i}" for i, node in enumerate(sorted(graph.keys() | {b for bs in graph.values() for b in bs}))}
    lines = ["flowchart LR"]
    lines += [f'    {number[n]}["{n.replace(chr(34), "#quot;")}"]' for n in number]
    lines += [f"    {number[b]} --> {number[n]}" for n, before in graph.items() for b in before]
    return "\n".join(lines) + "\n"


def to_dot(graph: Graph) -> str:
    """Graphviz."""
    lines = ["digraph desired {", "    rankdir=LR;", "    node [shape=box];"]
    lines += [f"    {json.dumps(n)};" for n in graph]
    lines += [f"    {json.dumps(b)} -> {json.dumps(n)};" for n, before in graph.items() for b in before]
    return "\n".join([*lines, "}"]) + "\n"


def to_json(graph: Graph) -> str:
    """Node -> what comes before it."""
    return json.dumps({"version": 1, "edges": {n: list(b) for n, b in graph.items()}}, indent=2) + "\n"
