"""Writes to objects, from the decoded request to the store: admission, field tracking, validation, deletion.

Controllers use the same functions as requests do.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from reconciler.lab.kubernetes import authorization, deletion, metadata
from reconciler.lab.kubernetes.admission import SYSTEM, Admission
from reconciler.lab.kubernetes.authorization import Deed
from reconciler.lab.kubernetes.decode import decode
from reconciler.lab.kubernetes.fieldset import EMPTY, Paths
from reconciler.lab.kubernetes.kinds.service import Allocator
from reconciler.lab.kubernetes.managed import FieldTracker, Writer, read, write
from reconciler.lab.kubernetes.resources import Resource
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import (
    STALE,
    Problem,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
    server_error,
    unprocessable,
)
from reconciler.lab.kubernetes.store import Store, ordered
from reconciler.lab.kubernetes.typed import same

_STATUS: Paths = frozenset([(("f", "status"),)])
_SPEC: Paths = frozenset([(("f", "spec"),), (("f", "metadata"), ("f", "labels"))])
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


@dataclass
class Writes:
    """The writing half of the server."""

    store: Store
    clock: Callable[[], float]
    allocator: Allocator
    openshift: bool = False
    pod_security_default: str = "privileged"
    ingress_domain: str = "apps.test.example.com"
    admins: set[str] = field(default_factory=lambda: {"admin"})
    random: random.Random = field(default_factory=random.Random)
    sink: list[str] = field(default_factory=list)  # warnings of the request that is being answered

    def __post_init__(self) -> None:
        self.admission = Admission(
            self.store,
            self.may,
            self.warn,
            self.suffix,
            self.openshift,
            self.pod_security_default,
            self.ingress_domain,
        )

    def now(self) -> str:
        """The time as objects carry it, in whole seconds."""
        return datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def warn(self, text: str) -> None:
        """Adds a warning to the answer."""
        if text not in self.sink:
            self.sink.append(text)

    def may(self, user: str, deed: Deed) -> bool:
        """Whether a user may do something."""
        return user == SYSTEM or user in self.admins or authorization.allowed(self.store, user, deed)

    def new_uid(self) -> str:
        """A UUID. From `random`, so that a rehearsal can repeat itself."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def suffix(self) -> str:
        """Five characters for a generated name."""
        return "".join(self.random.choice(_LETTERS) for _ in range(5))

    # ---- forms of an object

    def stored_form(self, resource: Resource, value: Object, unknown: list[str] | None = None) -> Object:
        """An object as it is stored: decoded, converted, defaulted. Raises DecodeError."""
        decoded = decode(value, resource.type, unknown)
        decoded.setdefault("metadata", {})
        resource.behaviour.convert(decoded)
        resource.behaviour.defaults(decoded)
        return {"kind": resource.kind, "apiVersion": resource.api_version, **_rest(decoded)}

    def tracker(self, resource: Resource, subresource: str = "") -> FieldTracker:
        """Field tracking for a resource, or for its `status`."""
        blank: Object = {"kind": resource.kind, "apiVersion": resource.api_version}
        if not resource.custom:
            blank |= _rest(decode({}, resource.type))
        separate_status = resource.subresource("status") is not None
        reset = EMPTY
        if subresource == "status":
            reset = _SPEC
        elif separate_status:
            reset = _STATUS
        return FieldTracker(
            resource.type,
            resource.kind,
            resource.api_version,
            self.now,
            lambda value: self.stored_form(resource, value),
            blank,
            subresource,
            reset,
        )

    # ---- create

    def create(self, resource: Resource, value: Object, *, user: str = SYSTEM, dry_run: bool = False) -> Object:
        """Creates an object whose fields are tracked already. Raises ApiError."""
        value = copy.deepcopy(value)
        behaviour = resource.behaviour
        meta = value["metadata"]
        self.admission.admit_new(resource, value, user)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + self.suffix()
        meta["uid"] = self.new_uid()
        meta["creationTimestamp"] = self.now()
        for key in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
            meta.pop(key, None)
        if behaviour.generation:
            meta["generation"] = 1
        self.admission.complete(resource, value)
        if resource.custom and resource.subresource("status"):
            value.pop("status", None)
        behaviour.create(value)
        problems = [*metadata.validate(meta, behaviour.name), *behaviour.validate(value)]
        problems += self.admission.host_problems(resource, value, None, user)
        self._refuse(resource, meta.get("name", ""), problems)
        self.admission.pod_security(resource, value, None)
        for text in behaviour.warnings(value):
            self.warn(text)
        namespace, name = meta.get("namespace", ""), meta["name"]
        if old := self.store.get(resource.place, namespace, name):
            raise already_exists(resource.plural, resource.group, name, "deletionTimestamp" in old["metadata"])
        self._allocate(resource, value, dry_run)
        return ordered(value) if dry_run else self.store.put(resource.place, value)

    def _refuse(self, resource: Resource, name: str, problems: list[Problem]) -> None:
        if problems:
            raise unprocessable(resource.kind, resource.group, name, problems)

    def _allocate(self, resource: Resource, value: Object, dry_run: bool) -> None:
        if resource.place != "/services":
            return
        own = (value["metadata"].get("namespace"), value["metadata"]["name"])
        others = [
            one
            for one in self.store.view("/services")
            if (one["metadata"]["namespace"], one["metadata"]["name"]) != own
        ]
        self._refuse(resource, own[1], self.allocator.fill(value, others, dry_run))

    # ---- update

    def update(
        self,
        resource: Resource,
        old: Object,
        new: Object,
        *,
        user: str = SYSTEM,
        dry_run: bool = False,
        subresource: str = "",
    ) -> Object:
        """Replaces an object. `new` carries its managedFields. Nothing is written when nothing changes."""
        new = copy.deepcopy(new)
        meta, before = new["metadata"], old["metadata"]
        given = meta.get("resourceVersion", "")
        if given:
            if not given.isdigit():
                raise server_error(f'strconv.ParseUint: parsing "{given}": invalid syntax')
            if given != before["resourceVersion"]:
                raise conflict(resource.plural, resource.group, before["name"], STALE)
        elif resource.custom:
            problem = invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise unprocessable(resource.plural, resource.group, before["name"], [problem])
        meta["resourceVersion"] = before["resourceVersion"]
        for key in ("uid", "creationTimestamp"):
            if not meta.get(key):
                meta[key] = before[key]
        for key in ("generation", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"):
            if key in before:
                meta[key] = before[key]
            else:
                meta.pop(key, None)
        problems = [*metadata.validate(meta, resource.behaviour.name), *metadata.validate_update(meta, before)]
        if subresource == "status":
            new = _only_status(resource, old, new)
        elif subresource == "":
            self._update_main(resource, old, new)
            self._allocate(resource, new, dry_run)
            problems += self._update_problems(resource, old, new, user)
        meta = new["metadata"]
        self._refuse(resource, before["name"], problems)
        if subresource == "":
            self.admission.pod_security(resource, new, old)
            for text in resource.behaviour.warnings(new):
                self.warn(text)
        if _same_but_times(old, new):
            return old
        released = "deletionTimestamp" in meta and not meta.get("finalizers")
        if released and resource.place == "/namespaces":
            released = not new["spec"].get("finalizers")
        if released and resource.kind == "Pod" and meta.get("deletionGracePeriodSeconds"):
            released = False
        if dry_run:
            return ordered(new)
        if released:
            self.store.delete(resource.place, meta.get("namespace", ""), meta["name"])
            return ordered(new)
        return self.store.put(resource.place, new)

    def _update_main(self, resource: Resource, old: Object, new: Object) -> None:
        behaviour = resource.behaviour
        self.admission.complete(resource, new)
        behaviour.update(new, old)
        if resource.custom and resource.subresource("status"):
            new.pop("status", None)
            if "status" in old:
                new["status"] = copy.deepcopy(old["status"])
        if behaviour.generation and _counts(resource, old, new):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def _update_problems(self, resource: Resource, old: Object, new: Object, user: str) -> list[Problem]:
        behaviour = resource.behaviour
        problems: list[Problem] = []
        problems += metadata.validate_update(new["metadata"], old["metadata"])
        if behaviour.metadata_checks > 1:
            problems += metadata.validate(new["metadata"], behaviour.name)
        problems += behaviour.validate_update(new, old)
        return [*problems, *self.admission.host_problems(resource, new, old, user)]

    # ---- apply and other requests

    def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Object,
        manager: str,
        *,
        force: bool = False,
        dry_run: bool = False,
        user: str = SYSTEM,
        subresource: str = "",
    ) -> tuple[Object, bool]:
        """Server-side apply. Gives back the object and whether it was created."""
        old = self.store.get(resource.place, namespace, name)
        if old is None and subresource:
            raise not_found(resource.plural, resource.group, name)
        new = self.tracker(resource, subresource).applied(old, patch, manager, force)
        self.check_place(resource, new, namespace, name)
        if old is not None:
            done = self.update(resource, old, new, user=user, dry_run=dry_run, subresource=subresource)
            return done, False
        if uid := new["metadata"].get("uid"):
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise conflict(resource.plural, resource.group, name, why)
        deed = Deed("create", resource.group, resource.plural, namespace, name)
        if not self.may(user, deed):
            raise forbidden(resource.plural, resource.group, name, authorization.refusal(user, deed))
        return self.create(resource, new, user=user, dry_run=dry_run), True

    def check_place(self, resource: Resource, value: Object, namespace: str, name: str) -> None:
        """An object must be the one that the URL names. Fills in what is left out."""
        meta = value["metadata"]
        given = meta.setdefault("name", name)
        if name and given != name:
            raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
        self.check_namespace(resource, value, namespace)

    def check_namespace(self, resource: Resource, value: Object, namespace: str) -> None:
        """The same for the namespace alone."""
        meta = value["metadata"]
        if resource.namespaced:
            if not meta.get("namespace"):
                meta["namespace"] = namespace
            if meta["namespace"] != namespace:
                text = "the namespace of the provided object does not match the namespace sent on the request"
                raise bad_request(text)
        else:
            meta.pop("namespace", None)

    def scaled(self, resource: Resource, old: Object, replicas: int, manager: str, dry_run: bool) -> Object:
        """Writes the scale subresource: `spec.replicas` becomes the manager's, in an entry without a time."""
        new = copy.deepcopy(old)
        new["spec"]["replicas"] = replicas
        path = (("f", "spec"), ("f", "replicas"))
        if new["spec"] != old["spec"]:
            ownership = read(old["metadata"].get("managedFields"))
            for other in list(ownership.fields):
                ownership.set(other, ownership.fields[other] - {path}, ownership.versions[other])
            writer = Writer(manager, "Update", resource.api_version, "scale")
            ownership.set(writer, ownership.fields.get(writer, EMPTY) | {path}, resource.api_version)
            new["metadata"]["managedFields"] = write(ownership)
        return self.update(resource, old, new, dry_run=dry_run)

    # ---- controllers

    def controller_update(
        self, resource: Resource, old: Object, new: Object, manager: str, subresource: str = ""
    ) -> Object:
        """An update by a controller: tracked, no rights checked."""
        tracked = self.tracker(resource, subresource).updated(old, new, manager)
        return self.update(resource, old, tracked, subresource=subresource)

    def controller_create(self, resource: Resource, value: Object, manager: str) -> Object:
        """A create by a controller."""
        new = self.stored_form(resource, value)
        tracked = self.tracker(resource).updated(None, new, manager)
        return self.create(resource, tracked)

    def delete(
        self, resource: Resource, namespace: str, name: str, options: deletion.DeleteOptions
    ) -> tuple[Object, bool]:
        """Deletes an object, or marks it as being deleted. Gives back the object and whether it is gone."""
        return deletion.delete(self, resource, namespace, name, options)


def _rest(value: Object) -> Object:
    return {key: part for key, part in value.items() if key not in ("kind", "apiVersion")}


def _counts(resource: Resource, old: Object, new: Object) -> bool:
    """Whether an update counts in `generation`."""
    if resource.custom:
        ours, theirs = (
            {key: part for key, part in value.items() if key not in ("metadata", "status")} for value in (new, old)
        )
        return not same(ours, theirs)
    if resource.kind == "Deployment":
        annotations = (value["metadata"].get("annotations") or {} for value in (new, old))
        if next(annotations) != next(annotations):
            return True
    return not same(new.get("spec"), old.get("spec"))


def _only_status(resource: Resource, old: Object, new: Object) -> Object:
    """A write to `status` changes the status, and what the server lets through of metadata."""
    kept = copy.deepcopy(old)
    if "status" in new:
        kept["status"] = new["status"]
    else:
        kept.pop("status", None)
    meta = kept["metadata"]
    if "managedFields" in new["metadata"]:
        meta["managedFields"] = new["metadata"]["managedFields"]
    else:
        meta.pop("managedFields", None)
    if not resource.custom and "annotations" in new["metadata"]:
        meta["annotations"] = new["metadata"]["annotations"]
    return kept


def _same_but_times(old: Object, new: Object) -> bool:
    """Whether two objects differ at most in the times of their managedFields."""

    def plain(value: Object) -> Object:
        meta = {key: part for key, part in value["metadata"].items() if key != "managedFields" and part not in ([], {})}
        entries = [
            {key: part for key, part in entry.items() if key != "time"}
            for entry in value["metadata"].get("managedFields") or []
        ]
        entries.sort(key=lambda entry: sorted((key, str(part)) for key, part in entry.items()))
        return {**value, "metadata": {**meta, "managedFields": entries}}

    return same(plain(old), plain(new))
