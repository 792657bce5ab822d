"""Where objects are kept: the current ones, and the history that watches and exact lists read.

Every write counts `revision` up by one; an object's resourceVersion is the revision of its last write.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass

from reconciler.lab.kubernetes.schema import Object

META_ORDER = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
]
HISTORY = 20_000  # events that are kept; older revisions are answered by 410


def ordered(value: Object) -> Object:
    """The object with its metadata in the server's order, without what is empty."""
    meta = value["metadata"]
    kept = {key: meta[key] for key in META_ORDER if meta.get(key) not in (None, "", [], {})}
    return {**value, "metadata": kept}


@dataclass(frozen=True)
class Change:
    """One write. `before` is None for a create; `after` of a delete is the last state with the delete's revision."""

    revision: int
    place: str  # "group/plural"
    namespace: str
    name: str
    type: str  # ADDED MODIFIED DELETED
    before: Object | None
    after: Object


class Store:
    """All objects of a cluster. Objects that come out are the caller's own copies."""

    def __init__(self, revision: int = 1) -> None:
        self.revision = revision
        self.compacted = 0
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._history: list[Change] = []

    def get(self, place: str, namespace: str, name: str) -> Object | None:
        """An object, or None."""
        found = self._objects.get(place, {}).get((namespace, name))
        return copy.deepcopy(found) if found is not None else None

    def all(self, place: str, namespace: str = "", at: int | None = None) -> list[Object]:
        """Objects of a resource by namespace and name, in all namespaces where it is empty; `at` an old revision."""
        objects = self._objects.get(place, {})
        if at is not None and at < self.revision:
            objects = dict(objects)
            for change in reversed(self._history):
                if change.revision <= at:
                    break
                if change.place == place:
                    if change.before is None:
                        objects.pop((change.namespace, change.name), None)
                    else:
                        objects[change.namespace, change.name] = change.before
        keys = sorted(key for key in objects if not namespace or key[0] == namespace)
        return [copy.deepcopy(objects[key]) for key in keys]

    def put(self, place: str, value: Object) -> Object:
        """Writes an object: creates it or replaces it. Gives it back with its resourceVersion."""
        with self.changed:
            metadata = value["metadata"]
            key = (metadata.get("namespace", ""), metadata["name"])
            objects = self._objects.setdefault(place, {})
            before = objects.get(key)
            self.revision += 1
            stored = copy.deepcopy(value)
            stored["metadata"]["resourceVersion"] = str(self.revision)
            stored = ordered(stored)
            objects[key] = stored
            kind = "ADDED" if before is None else "MODIFIED"
            self._record(Change(self.revision, place, *key, kind, before, stored))
            return copy.deepcopy(stored)

    def insert(self, place: str, value: Object) -> None:
        """Puts an object in with the resourceVersion that it has; the revision is never below it. Nobody is told."""
        with self.changed:
            stored = ordered(copy.deepcopy(value))
            metadata = stored["metadata"]
            version = metadata.get("resourceVersion", "")
            self.revision = max(self.revision + 1, int(version) if version.isdigit() else 0)
            metadata.setdefault("resourceVersion", str(self.revision))
            self._objects.setdefault(place, {})[metadata.get("namespace", ""), metadata["name"]] = stored

    def delete(self, place: str, namespace: str, name: str) -> Object:
        """Removes an object and gives it back with the delete's revision. Raises KeyError where there is none."""
        with self.changed:
            before = self._objects.get(place, {}).pop((namespace, name))
            self.revision += 1
            after = copy.deepcopy(before)
            after["metadata"]["resourceVersion"] = str(self.revision)
            self._record(Change(self.revision, place, namespace, name, "DELETED", before, after))
            return copy.deepcopy(after)

    def _record(self, change: Change) -> None:
        self._history.append(change)
        if len(self._history) > HISTORY:
            self.compacted = self._history[HISTORY // 2].revision
            del self._history[: HISTORY // 2 + 1]
        self.changed.notify_all()

    def view(self, place: str, namespace: str = "") -> list[Object]:
        """As `all`, but the stored objects themselves: quick, and not to be changed."""
        with self.changed:
            objects = self._objects.get(place, {})
            return [objects[key] for key in sorted(objects) if not namespace or key[0] == namespace]

    def since(self, revision: int, place: str) -> list[Change]:
        """What was written to a resource after a revision."""
        with self.changed:
            return [change for change in self._history if change.revision > revision and change.place == place]

    def compact(self) -> None:
        """Forgets the history up to now."""
        with self.changed:
            self.compacted = self.revision
            self._history.clear()

    def places(self) -> list[str]:
        """Resources that hold objects."""
        return sorted(place for place, objects in self._objects.items() if objects)

    def dump(self) -> Object:
        """All objects as JSON, without the history."""
        with self.changed:
            objects = {place: self.all(place) for place in self.places()}
            return {"revision": self.revision, "objects": objects}

    def load(self, dumped: Object) -> None:
        """Replaces everything by a dump. Open watches see nothing of it."""
        with self.changed:
            self.revision = dumped["revision"]
            self.compacted = self.revision
            self._history.clear()
            self._objects = {
                place: {
                    (value["metadata"].get("namespace", ""), value["metadata"]["name"]): copy.deepcopy(value)
                    for value in values
                }
                for place, values in dumped["objects"].items()
            }
            self.changed.notify_all()
