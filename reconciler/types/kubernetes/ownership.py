"""kubernetes.ownership: an audit of who else has a say in an object.

A server-side apply does not see what others added, and leaves what it was told to leave: this names both, with the
field managers. What controllers and the server itself keep in objects is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import field_validator

from reconciler.model import CONTROL, IDENTITY, Change, Get, Probe, ResourceType, Secret, Spec, Unprobed
from reconciler.types.kubernetes import fieldpaths as paths
from reconciler.types.kubernetes import places
from reconciler.types.kubernetes.fieldpaths import MISSING
from reconciler.types.kubernetes.manifest import KubernetesObject, declared_leaves, plain
from reconciler.types.kubernetes.names import MANAGER, ApiVersion, FieldPath, KindName, NoNamespace, ObjectName

CONTROLLERS: Final = ("kube-", "service-ca-operator", "openshift-", "cluster-", "reconciler")
"""How managers begin whose fields are no surprise."""

Problem = tuple[str, str, str]


class Ownership(Spec):
    """An audit of the fields of an object that others own: those left to them, and those that they added."""

    api_version: Annotated[ApiVersion, IDENTITY]
    kind: Annotated[KindName, IDENTITY]
    namespace: Annotated[NoNamespace, IDENTITY] = ""
    name: Annotated[ObjectName, IDENTITY]
    manifest: Annotated[Mapping[str, Any], CONTROL] = {}
    leave: Annotated[tuple[FieldPath, ...], CONTROL] = ()
    problems: tuple[Problem, ...] = ()

    @field_validator("manifest", mode="before")
    @classmethod
    def _revived(cls, value: Any) -> Any:
        return plain(value)


def probe(wanted: Sequence[Ownership]) -> Probe:
    """What the cluster serves, then the objects."""
    known = places.served(wanted, (yield places.catalogues(wanted)))
    paths_ = [
        places.path_of(one, how) if isinstance(how := known.get((one.api_version, one.kind)), places.Served) else ""
        for one in wanted
    ]
    there = [path for path in paths_ if path]
    replies = iter((yield [Get(path) for path in there]) if there else ())
    states: list[Any] = []
    for one, path in zip(wanted, paths_, strict=True):
        reply = next(replies) if path else None
        if reply is None or reply.status == 404:
            states.append({"problems": []})
        elif reply.status:
            states.append(Unprobed(places.refusal(reply, f"show {places.display(one)}")))
        else:
            states.append({"problems": [list(problem) for problem in _problems(one, places.parsed(reply))]})
    return states


def _problems(one: Ownership, live: Mapping[str, Any]) -> Iterator[Problem]:
    what = places.display(one)
    names = {n: getattr(one, n) for n in ("api_version", "kind", "namespace", "name", "manifest")}
    declared = list(declared_leaves(KubernetesObject(**names)))
    for path, value in declared:
        text, now = paths.spelled(path), paths.value_at(live, path)
        if any(paths.covers(left, text) for left in one.leave) and now != value:
            others = _names(paths.owners(live, path))
            shown = (
                "a secret" if isinstance(value, Secret) or one.kind == "Secret" else "gone" if now is MISSING else now
            )
            yield (
                "left-to-others",
                f"{text} of {what} is {shown}, as {others or 'nobody'} set it, and is left so.",
                "Take it out of `ignoreChanges` if it shall be as declared.",
            )
    held = [paths.spelled(path) for path, _ in declared]
    for entry in paths.entries(live):
        manager = str(entry.get("manager", ""))
        if manager.startswith(CONTROLLERS) or manager == MANAGER:
            continue
        found = dict.fromkeys(paths.spelled(p) for p in paths.owned_leaves(entry.get("fieldsV1") or {}) if p)
        foreign = [
            text
            for text in found
            if not any(paths.covers(h, text) or paths.covers(text, h) for h in held) and not text.startswith("status")
        ]
        if foreign:
            yield (
                "foreign-field",
                f"{manager} added {', '.join(foreign)} to {what}, which no document declares.",
                "Declare it, or take it away there.",
            )


def _names(found: Sequence[paths.Owner]) -> str:
    return ", ".join(owner.name for owner in found if owner.name != MANAGER)


def findings(change: Change[Ownership]) -> Iterable[Problem]:
    """The problems, as they are."""
    yield from (change.before or {}).get("problems") or ()


TYPE: ResourceType[Any] = ResourceType(
    "kubernetes.ownership",
    Ownership,
    probe,
    None,
    findings=findings,
    needs=lambda s: (f"object:{s.api_version.rpartition('/')[0]}/{s.kind}/{s.namespace}/{s.name}",),
)
