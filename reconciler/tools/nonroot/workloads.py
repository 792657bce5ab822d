"""Examines Kubernetes objects: the security contexts of all that makes pods, and who may use wider ones.

What a field means, and which of two levels counts: Pod Security Standards
(https://kubernetes.io/docs/concepts/security/pod-security-standards/), and the security context constraint
`restricted-v2` of OpenShift (https://docs.redhat.com/documentation/en-us/openshift_container_platform, "Managing
security context constraints").
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from reconciler.tools.nonroot.containerfile import KnownImage, known
from reconciler.tools.nonroot.pod import Pod
from reconciler.tools.nonroot.rules import Flaw
from reconciler.tools.nonroot.users import user_of
from reconciler.tools.nonroot.yamlfile import Document, Where, documents, items, mapping

PODS: Final[Mapping[str, Where]] = {
    "Pod": ("spec",),
    "PodTemplate": ("template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    **dict.fromkeys(
        (
            "Deployment",
            "ReplicaSet",
            "ReplicationController",
            "StatefulSet",
            "DaemonSet",
            "Job",
            "DeploymentConfig",
            "Service",  # Knative's; Kubernetes' own has no template
            "Rollout",
        ),
        ("spec", "template", "spec"),
    ),
}
"""Kind -> where its pod's spec is."""
WIDE: Final = frozenset(
    ("anyuid", "privileged", "nonroot", "nonroot-v2", "hostaccess", "hostmount-anyuid", "hostnetwork")
)
"""Security context constraints that admit more users than restricted-v2."""
MOST: Final = 10_000
"""Objects of a file that are looked at."""


@dataclass(frozen=True)
class Range:
    """Numbers that OpenShift gives a namespace: `first` and as many as `size`."""

    first: int
    size: int

    def __contains__(self, number: int) -> bool:
        return self.first <= number < self.first + self.size

    def __str__(self) -> str:
        return f"{self.first}-{self.first + self.size - 1}"


@dataclass(frozen=True)
class Namespaces:
    """What is known of namespaces on OpenShift, by name; a pattern may hold `*`."""

    users: Mapping[str, Range] = field(default_factory=dict)
    groups: Mapping[str, Range] = field(default_factory=dict)

    def find(self, ranges: Mapping[str, Range], name: str) -> Range | None:
        """The range of a namespace."""
        if name in ranges:
            return ranges[name]
        return next((r for pattern, r in sorted(ranges.items()) if fnmatch.fnmatchcase(name, pattern)), None)


def range_of(text: str) -> Range | None:
    """`1000650000/10000` or `1000650000-1000659999`; of several blocks the first one."""
    block = text.partition(",")[0].strip()
    for separator in "/-":
        first, found, second = block.partition(separator)
        if found and first.isdecimal() and second.isdecimal() and max(len(first), len(second)) <= 12:
            size = int(second) if separator == "/" else int(second) - int(first) + 1
            return Range(int(first), size) if size > 0 else None
    return None


def objects(found: Document) -> Iterator[tuple[Mapping[str, Any], Where]]:
    """The Kubernetes objects of a document, also those in lists and those that documents of ours carry."""
    todo: list[tuple[Any, Where]] = [(found.data, ())]
    count = 0
    while todo and count < MOST:
        data, at = todo.pop()
        count += 1
        if not isinstance(data, Mapping):
            continue
        kind, version = data.get("kind"), data.get("apiVersion")
        if not isinstance(kind, str) or not isinstance(version, str):
            continue
        if version.startswith("reconciler/"):
            inside = mapping(data.get("spec"))
            for name, value in inside.items():
                many = [(value, (*at, "spec", name))] if isinstance(value, Mapping) else []
                many += [(one, (*at, "spec", name, i)) for i, one in enumerate(items(value))]
                todo += reversed(many)
        elif kind == "List" or (kind == "Template" and "objects" in data):
            key = "items" if kind == "List" else "objects"
            todo += reversed([(one, (*at, key, i)) for i, one in enumerate(items(data.get(key)))])
        else:
            yield data, at


def namespaces_in(found: Sequence[Document]) -> Namespaces:
    """What Namespace objects say of their ranges."""
    users: dict[str, Range] = {}
    groups: dict[str, Range] = {}
    for one in found:
        for data, _ in objects(one):
            metadata = mapping(data.get("metadata"))
            notes = mapping(metadata.get("annotations"))
            if data.get("kind") not in ("Namespace", "Project"):
                continue
            for key, ranges in (("uid-range", users), ("supplemental-groups", groups)):
                seen = range_of(str(notes.get(f"openshift.io/sa.scc.{key}", "")))
                if seen:
                    ranges[str(metadata.get("name"))] = seen
    return Namespaces(users, groups)


def examine(
    file: str, text: str, *, namespaces: Namespaces | None = None, images: Sequence[KnownImage] = ()
) -> list[Flaw]:
    """The flaws of the objects in a file, by line.

    Raises:
        InvalidInput: it is no YAML that can be read.
    """
    found = documents(text, file)
    of_file = namespaces_in(found)
    given = namespaces or Namespaces()
    ranges = Namespaces({**of_file.users, **given.users}, {**of_file.groups, **given.groups})
    out: list[Flaw] = []
    for one in found:
        for data, at in objects(one):
            kind = str(data["kind"])
            if kind in PODS:
                out += _pod(file, one, data, at, ranges, images)
            elif kind in ("RoleBinding", "ClusterRoleBinding"):
                out += _binding(file, one, data, at)
            elif kind == "SecurityContextConstraints":
                out += _constraint(file, one, data, at)
    return sorted(dict.fromkeys(out), key=lambda f: (f.line, f.rule, f.message))


def _pod(
    file: str,
    document: Document,
    data: Mapping[str, Any],
    at: Where,
    ranges: Namespaces,
    images: Sequence[KnownImage],
) -> Iterator[Flaw]:
    kind = str(data["kind"])
    spec: Any = data
    for step in PODS[kind]:
        spec = mapping(spec).get(str(step))
    if not isinstance(spec, Mapping) or not isinstance(spec.get("containers"), list):
        return
    metadata = mapping(data.get("metadata"))
    namespace = str(metadata.get("namespace") or "default")
    name = f"{kind}/{metadata.get('name') or metadata.get('generateName') or '?'}"

    def user_of_image(image: str) -> str | None:
        found = known(images, image)
        return found.user if found else None

    yield from Pod(
        file,
        document,
        name,
        spec,
        (*at, *PODS[kind]),
        (str(r) if (r := ranges.find(ranges.users, namespace)) else ""),
        lambda number: _outside(ranges.find(ranges.users, namespace), number),
        lambda number: _outside(ranges.find(ranges.groups, namespace), number),
        namespace,
        lambda image: bool((u := user_of_image(image)) and (parsed := user_of(u)) and parsed.number is None),
    ).flaws()


def _outside(known_range: Range | None, number: int) -> bool | None:
    """Whether a number lies outside of a range; None where the range is not known and the number might be in it."""
    if known_range is not None:
        return number not in known_range
    # Where nobody configured it otherwise, namespaces get numbers from 1000000000 on.
    return None if number >= 1_000_000_000 else True


def _binding(file: str, document: Document, data: Mapping[str, Any], at: Where) -> Iterator[Flaw]:
    role = str(mapping(data.get("roleRef")).get("name"))
    scc = role.removeprefix("system:openshift:scc:")
    if scc != role and scc in WIDE:
        who = ", ".join(str(mapping(s).get("name")) for s in items(data.get("subjects"))[:5])
        name = f"{data['kind']}/{mapping(data.get('metadata')).get('name')}"
        yield Flaw("scc-granted", file, document.line((*at, "roleRef")), f"{who} may use the SCC {scc}", name)


def _constraint(file: str, document: Document, data: Mapping[str, Any], at: Where) -> Iterator[Flaw]:
    if mapping(data.get("runAsUser")).get("type") == "RunAsAny" and (data.get("users") or data.get("groups")):
        name = f"{data['kind']}/{mapping(data.get('metadata')).get('name')}"
        yield Flaw("scc-granted", file, document.line((*at, "runAsUser")), "this SCC lets its users run as root", name)
