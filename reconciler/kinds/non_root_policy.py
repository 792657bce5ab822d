"""NonRootPolicy: what a repository builds and deploys must run without root."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from datetime import date
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Rule
from reconciler.model import Document, Kind, Resource, Spec, Target
from reconciler.tools.nonroot.rules import PLATFORMS, RULES
from reconciler.tools.nonroot.scan import matches
from reconciler.types.repo.non_root import TYPE as repo_non_root
from reconciler.types.repo.non_root import KnownImage, NamespaceRange, NonRootException, Pattern

Folder = Annotated[
    str,
    Rule(
        r"(?:\.\.?|[A-Za-z0-9_][^/\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]*)"
        r"(?:/(?:\.\.?|[^/.\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]"
        r"[^/\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]*))*",
        "a folder relative to this document, such as ../..",
        500,
    ),
]


class NonRootPolicySpec(Spec):
    """What a repository builds and deploys must run without root: reported in plan and drift, never changed.

    Examined are Containerfiles, image archives and layouts, Kubernetes manifests, and Helm charts (values, templates)
    below a folder. Each finding says why it matters on which platform, and how to mend it. `reconciler nonroot` shows
    the same by hand, as SARIF if wished, and mends what is safe to mend.

    Example:

        apiVersion: reconciler/v1
        kind: NonRootPolicy
        metadata:
          name: containers
        spec:
          path: ../..
          include: [images/**, deploy/**]
          platforms: [docker, kubernetes, openshift]
          exceptions:
            - rule: user-low
              path: images/legacy/**
              reason: its data belongs to 999; moves with the next release
              expires: 2027-03-31
          images:
            - {image: "registry.example.org/base/*", user: "1001:0", home: /opt/app}
          namespaces:
            - {namespace: team-web, users: 1000650000/10000}
    """

    path: Folder = Field(
        description="The folder that is examined, relative to this document; inside of its Git working tree."
    )
    include: tuple[Pattern, ...] = Field(
        ("**",), min_length=1, description="Files of it, by `*` and `**`; a folder stands for all below it."
    )
    exclude: tuple[Pattern, ...] = Field((), description="Files that are left out.")
    platforms: tuple[Literal["docker", "kubernetes", "openshift"], ...] = Field(
        PLATFORMS, min_length=1, description="Where the containers run; `docker` stands for Podman, too."
    )
    exceptions: tuple[NonRootException, ...] = Field((), description="Findings that are accepted, until a day.")
    images: tuple[KnownImage, ...] = Field((), description="What base images set, where it cannot be read here.")
    namespaces: tuple[NamespaceRange, ...] = Field(
        (), description="Ranges of namespaces on OpenShift. Namespace objects among the files say theirs themselves."
    )


def expand(document: Document[NonRootPolicySpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """One audit, of the folder."""
    spec = document.spec
    yield repo_non_root(
        document.name,
        include=spec.include,
        exclude=spec.exclude,
        platforms=spec.platforms,
        exceptions=spec.exceptions,
        images=spec.images,
        namespaces=spec.namespaces,
    )


def check(document: Document[NonRootPolicySpec], catalog: Catalog) -> Iterable[Problem]:
    """Exceptions name rules that exist and days that do."""
    for index, one in enumerate(document.spec.exceptions):
        at = ("spec", "exceptions", index)
        if "*" not in one.rule and one.rule not in RULES:
            from difflib import get_close_matches

            near = get_close_matches(one.rule, RULES, 1)
            fix = f"Did you mean {near[0]}?" if near else "`reconciler nonroot --rules` lists them."
            yield catalog.problem(document, (*at, "rule"), f"there is no rule {one.rule}.", fix)
        elif "*" in one.rule and not any(matches(rule, one.rule) for rule in RULES):
            yield catalog.problem(document, (*at, "rule"), f"no rule fits {one.rule}.", "Name one.")
        try:
            date.fromisoformat(one.expires)
        except ValueError:
            yield catalog.problem(document, (*at, "expires"), f"there is no day {one.expires}.", "Write another.")
    for index, known in enumerate(document.spec.namespaces):
        for name in ("users", "groups"):
            text = getattr(known, name) or "0/1"
            first, _, second = text.partition("-")
            if second and int(second) < int(first):
                where = ("spec", "namespaces", index, name)
                yield catalog.problem(document, where, f"{text} ends before it begins.", "Swap the two numbers.")


def target(document: Document[NonRootPolicySpec]) -> Target:
    """The folder: the audit's own target, which is always there."""
    folder = PurePath(document.position.file).parent
    root = posixpath.normpath(str(folder / document.spec.path))
    settings = {"root": root, "beside": str(folder)}
    return Target(document.name, "repository", settings, document.metadata.labels)


KIND = Kind("NonRootPolicy", NonRootPolicySpec, expand, check, target=target)
