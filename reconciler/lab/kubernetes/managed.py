"""Field management: who owns which field of an object, for applies and for all other writes.

`updated` and `applied` do for one write what the server does: they return the new object with the new
`metadata.managedFields`. Sources: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and the recorded
exchanges (entries without `time`, `before-first-apply`, clearing by an empty list).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.lab.kubernetes import typed
from reconciler.lab.kubernetes.decode import DecodeError
from reconciler.lab.kubernetes.fieldset import EMPTY, Path, Paths, decode, encode, ordered, text
from reconciler.lab.kubernetes.schema import Object, Struct
from reconciler.lab.kubernetes.status import ApiError, bad_request, quoted, server_error

# Never owned by anybody.
META: Paths = frozenset(
    [(("f", "apiVersion"),), (("f", "kind"),), (("f", "metadata"),)]
    + [
        (("f", "metadata"), ("f", name))
        for name in [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ]
    ]
)
BEFORE_FIRST_APPLY = "before-first-apply"


@dataclass(frozen=True, order=True)
class Writer:
    """Who owns fields: a manager name, how it wrote (`Apply` or `Update`), at which version, at which subresource."""

    name: str
    operation: str
    version: str = ""  # of Update only: an applier is one whatever version it applies
    subresource: str = ""

    def __str__(self) -> str:
        shown = quoted(self.name)
        if self.subresource:
            shown += f" with subresource {quoted(self.subresource)}"
        return f"{shown} using {self.version}" if self.operation == "Update" else shown


@dataclass
class Ownership:
    """What `metadata.managedFields` says."""

    fields: dict[Writer, Paths]
    times: dict[Writer, str | None]
    versions: dict[Writer, str]

    def set(self, writer: Writer, paths: Paths, version: str) -> None:
        """Gives a writer these paths, or takes it out when there are none."""
        if paths:
            self.fields[writer] = paths
            self.versions[writer] = version
        else:
            self.fields.pop(writer, None)


def read(entries: list[Object] | None) -> Ownership:
    """Reads `metadata.managedFields`. Raises ValueError for entries that are none."""
    found = Ownership({}, {}, {})
    for entry in entries or []:
        operation = entry.get("operation")
        if operation not in ("Apply", "Update"):
            raise ValueError(f"invalid operation {operation}")
        version = entry.get("apiVersion", "")
        writer = Writer(
            entry.get("manager", ""), operation, version if operation == "Update" else "", entry.get("subresource", "")
        )
        found.fields[writer] = decode(entry.get("fieldsV1") or {})
        found.times[writer] = entry.get("time")
        found.versions[writer] = version
    return found


def write(ownership: Ownership) -> list[Object]:
    """The entries in the server's order: applies first, then by time, then by name."""
    entries = []
    for writer, paths in ownership.fields.items():
        if not paths:
            continue
        time = ownership.times.get(writer)
        entry: Object = {
            "manager": writer.name,
            "operation": writer.operation,
            "apiVersion": ownership.versions[writer],
            **({"time": time} if time else {}),
            "fieldsType": "FieldsV1",
            "fieldsV1": encode(paths),
        }
        if writer.subresource:
            entry["subresource"] = writer.subresource
        entries.append(entry)
    return sorted(
        entries,
        key=lambda e: (e["operation"], e.get("time", ""), e["manager"], e["apiVersion"], e.get("subresource", "")),
    )


@dataclass(frozen=True)
class FieldTracker:
    """Tracks the fields of one kind at one version. `prepare` makes of a merged object what is stored: it converts
    and defaults; `reset` are the fields that a write to this (sub)resource cannot change."""

    type: Struct
    kind: str
    version: str
    now: Callable[[], str]
    prepare: Callable[[Object], Object]
    blank: Object  # an object of the kind in which nothing is set
    subresource: str = ""
    reset: Paths = EMPTY

    def updated(self, live: Object | None, new: Object, manager: str) -> Object:
        """A write that is no apply: what changed becomes the manager's."""
        new = copy.deepcopy(new)
        given = new["metadata"].pop("managedFields", None)
        old = (live or {}).get("metadata", {}).get("managedFields")
        ownership = self._current(given, old)
        if ownership.fields or not new["metadata"].get("uid"):
            before = live if live is not None else self.blank
            self._update(ownership, before, new, Writer(manager, "Update", self.version, self.subresource))
        return _with_entries(new, ownership)

    def _current(self, given: list[Object] | None, old: list[Object] | None) -> Ownership:
        if given is not None and (not given or given == [{}]) and not self.subresource:
            return Ownership({}, {}, {})
        if given and not self.subresource:
            try:
                return read(given)
            except ValueError:
                return read(old)
        return read(old)

    def _update(self, ownership: Ownership, before: Object, after: Object, writer: Writer) -> None:
        comparison = self._compared(_bare(before), _bare(after))
        changed = frozenset(comparison.added | comparison.modified)
        for other in list(ownership.fields):
            left = ownership.fields[other] - changed - comparison.removed
            ownership.set(other, left, ownership.versions[other])
        taken = changed - META
        if taken:
            ownership.set(writer, ownership.fields.get(writer, EMPTY) | taken, self.version)
            ownership.times[writer] = self.now()

    def _compared(self, before: Object, after: Object) -> typed.Comparison:
        """What changes, but for the fields that this write cannot change."""
        found = typed.compare(before, after, self.type)
        if self.reset:
            for paths in (found.added, found.removed, found.modified):
                paths.intersection_update(self._ignoring(frozenset(paths)))
        return found

    def _ignoring(self, paths: Paths) -> Paths:
        if not self.reset:
            return paths
        return frozenset(path for path in paths if not any(path[: len(root)] == root for root in self.reset))

    def applied(self, live: Object | None, patch: Object, manager: str, force: bool) -> Object:
        """An apply. `live` is None when the object does not exist yet.

        Raises ApiError: 400 for another kind or given managedFields, 409 for conflicts, 500 for what does not fit
        the type.
        """
        version, kind = patch.get("apiVersion") or "", patch.get("kind") or ""
        if version != self.version or kind != self.kind:
            shown = version if "/" in version else f"/{version}"
            raise bad_request(f"invalid object type: {shown}, Kind={kind}")
        metadata = patch.get("metadata")
        if isinstance(metadata, dict) and metadata.get("managedFields") is not None:
            raise bad_request("metadata.managedFields must be nil")
        if found := typed.errors(patch, self.type):
            shown = self._place(patch)
            raise server_error(f"failed to create typed patch object ({shown}): {typed.error_text(found)}")
        before = live if live is not None else {"apiVersion": version, "kind": kind, "metadata": {}}
        ownership = read(before["metadata"].get("managedFields"))
        bare = _bare(before)
        if not ownership.fields and live is not None:
            self._update(ownership, self.blank, bare, Writer(BEFORE_FIRST_APPLY, "Update", self.version))
        writer = Writer(manager, "Apply", "", self.subresource)
        last = ownership.fields.get(writer)
        merged = typed.merge(bare, patch, self.type)
        mine = self._ignoring(typed.fields(patch, self.type))
        ownership.fields[writer] = mine
        ownership.versions[writer] = self.version
        merged = self._pruned(merged, ownership, last)
        self._take(ownership, bare, merged, writer, force)
        ownership.set(writer, ownership.fields.get(writer, EMPTY) - META, self.version)
        if typed.same(bare, merged) and live is not None:
            return _with_entries(copy.deepcopy(bare), ownership)
        ownership.times[writer] = self.now()
        try:
            new = self.prepare(merged)
        except DecodeError as error:
            shown = f"{self._place(patch)}"
            raise server_error(
                f"failed to convert new object ({shown}) to proper version: unable to convert unstructured object "
                f"to {_gvk(self.version, self.kind)}: error decoding from json: {error}"
            ) from error
        return _with_entries(new, ownership)

    def _place(self, patch: Object) -> str:
        metadata = patch.get("metadata") or {}
        return f"{metadata.get('namespace') or ''}/{metadata.get('name') or ''}; {_gvk(self.version, self.kind)}"

    def _pruned(self, merged: Object, ownership: Ownership, last: Paths | None) -> Object:
        """Takes out what the manager applied before, does not apply now, and nobody else owns."""
        if not last:
            return merged

        def named(paths: Paths) -> Paths:
            return typed.named_members(paths, self.type)

        pruned = typed.without(merged, self.type, named(last))
        everything = named(typed.fields(merged, self.type))
        owned: set[Path] = set()
        for paths in ownership.fields.values():
            owned |= paths
        removed = everything - named(typed.fields(pruned or {}, self.type)) - named(frozenset(owned))
        pruned = typed.without(merged, self.type, removed)
        dangling = everything - named(typed.fields(pruned or {}, self.type))
        result = typed.without(merged, self.type, dangling & named(last))
        return result if isinstance(result, dict) else {}

    def _take(self, ownership: Ownership, before: Object, after: Object, writer: Writer, force: bool) -> None:
        comparison = self._compared(before, after)
        changed = frozenset(comparison.added | comparison.modified)
        conflicts = {
            other: paths & changed for other, paths in ownership.fields.items() if other != writer and paths & changed
        }
        if conflicts and not force:
            raise conflict_error(conflicts)
        for other in list(ownership.fields):
            if other == writer:
                continue
            left = ownership.fields[other] - conflicts.get(other, EMPTY) - comparison.removed
            ownership.set(other, left, ownership.versions[other])


def conflict_error(conflicts: dict[Writer, Paths]) -> ApiError:
    """409 with one cause per field and manager."""
    listed = [(writer, path) for writer in sorted(conflicts) for path in ordered(conflicts[writer])]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {writer}", "field": text(path)}
        for writer, path in listed
    ]
    if len(listed) == 1:
        message = f"Apply failed with 1 conflict: conflict with {listed[0][0]}: {text(listed[0][1])}"
    else:
        lines = []
        for writer in sorted(conflicts):
            lines.append(f"conflicts with {writer}:")
            lines += [f"- {text(path)}" for path in ordered(conflicts[writer])]
        message = f"Apply failed with {len(listed)} conflicts: " + "\n".join(lines)
    return ApiError(409, message, "Conflict", {"causes": causes})


def _gvk(version: str, kind: str) -> str:
    return f"{version if '/' in version else '/' + version}, Kind={kind}"


def _bare(value: Object) -> Object:
    """The object without managedFields, which is not a field among others."""
    if "managedFields" not in value.get("metadata", {}):
        return value
    metadata = {key: item for key, item in value["metadata"].items() if key != "managedFields"}
    return {**value, "metadata": metadata}


def _with_entries(value: Object, ownership: Ownership) -> Object:
    entries = write(ownership)
    metadata = {key: item for key, item in (value.get("metadata") or {}).items() if key != "managedFields"}
    return {**value, "metadata": {**metadata, **({"managedFields": entries} if entries else {})}}
