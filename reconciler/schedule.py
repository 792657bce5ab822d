"""Which changes can go out next, and which never will: the order in which apply works.

Nodes fall into islands that have no edge and no target in common. What ended on an island concerns that island alone,
so that the work per batch does not grow with the number of targets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from reconciler.resolve import Edges, topological

Verdict = Callable[[str], bool | None]
"""Of a change: True = done, False = it ended otherwise, None = it has not ended."""

Batch = list[tuple[str, list[str]]]
"""Changes of one target in order, each with the nearest changes of the batch that it stands on."""


class Schedule:
    """The order of a plan.

    Args:
        edges: what comes before what, including nodes without a change.
        places: change -> the target that it is on.
    """

    def __init__(self, edges: Edges, places: Mapping[str, str]) -> None:
        self._edges, self._places = edges, places
        self.islands = self._split(topological(edges))

    def batches(
        self, island: Sequence[str], busy: Collection[str], started: Collection[str], verdict: Verdict
    ) -> dict[str, Batch]:
        """For each target that is not busy, the changes of an island that can go out now.

        Args:
            started: changes that went out already, or never will.
        """
        batches: dict[str, Batch] = {}
        # node -> the target whose batch it would be in ("" = it is done), and its nearest changes in that batch
        placed: dict[str, tuple[str, list[str]]] = {}
        for node in island:
            done = verdict(node)
            if done is not None:
                if done:
                    placed[node] = ("", [])
                continue
            before = self._edges[node]
            if node in started or not all(b in placed for b in before):
                continue
            targets = {placed[b][0] for b in before} - {""}
            nearest = list(dict.fromkeys(a for b in before for a in placed[b][1]))
            target = self._places.get(node)
            if target is None:
                if len(targets) <= 1:
                    placed[node] = (targets.pop() if targets else "", nearest)
            elif target not in busy and targets <= {target}:
                placed[node] = (target, [node])
                batches.setdefault(target, []).append((node, nearest))
        return batches

    def hopeless(self, island: Sequence[str], started: Collection[str], verdict: Verdict) -> dict[str, str]:
        """Changes of an island that stand on one that did not work, with that one."""
        causes: dict[str, str] = {}
        for node in island:
            if verdict(node) is False:
                causes[node] = node
            elif node not in started:
                cause = next((causes[b] for b in self._edges[node] if b in causes), None)
                if cause is not None:
                    causes[node] = cause
        return {a: cause for a, cause in causes.items() if a in self._places and a != cause}

    def _split(self, order: Sequence[str]) -> list[list[str]]:
        """The islands, each in order (union-find)."""
        parent: dict[str, str] = {}

        def root(node: str) -> str:
            parent.setdefault(node, node)
            while parent[node] != node:
                parent[node] = parent[parent[node]]
                node = parent[node]
            return node

        for node in order:
            if node in self._places:
                parent[root(f"@{self._places[node]}")] = root(node)
            for before in self._edges[node]:
                parent[root(before)] = root(node)
        groups: dict[str, list[str]] = {}
        for node in order:
            groups.setdefault(root(node), []).append(node)
        return list(groups.values())
