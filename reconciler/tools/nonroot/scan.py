"""Examines many files, and applies a policy to what is found: platforms, exceptions, what is known of others."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from reconciler.errors import InvalidInput
from reconciler.tools.nonroot import containerfile, helm, images, workloads
from reconciler.tools.nonroot.containerfile import KnownImage
from reconciler.tools.nonroot.rules import PLATFORMS, Flaw, Platform
from reconciler.tools.nonroot.workloads import Namespaces, Range
from reconciler.tools.nonroot.yamlfile import documents

_CONTAINERFILE: Final = re.compile(r"(?:.+\.)?(?:Containerfile|Dockerfile)(?:[.-].+)?", re.IGNORECASE)
_NO_CONTAINERFILE: Final = (".dockerignore", ".containerignore", ".md", ".sh", ".yaml", ".yml", ".json", ".py", ".tar")
_OBJECT: Final = re.compile(r"[\"']?\bkind[\"']?\s*:")
_WORKLOAD: Final = re.compile(
    r"\bkind[\"']?\s*:\s*[\"']?(?:" + "|".join((*workloads.PODS, "RoleBinding", "ClusterRoleBinding")) + r")\b"
)


@dataclass(frozen=True)
class ImageConfig:
    """The config of an image in a layout or archive; `name` is its tag."""

    file: str
    name: str
    text: str


@dataclass(frozen=True)
class Found:
    """What was read of a folder.

    Attributes:
        texts: by path, relative to the folder.
        unreadable: path -> why.
    """

    texts: Mapping[str, str]
    images: Sequence[ImageConfig] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Acceptance:
    """A flaw that is accepted for a time.

    Attributes:
        rule, path, subject: patterns; all of them must match.
        expires: the last day on which it holds.
    """

    rule: str
    path: str
    reason: str
    expires: date
    subject: str = "*"

    def covers(self, flaw: Flaw) -> bool:
        """Whether it is about this flaw."""
        return (
            fnmatch.fnmatchcase(flaw.rule, self.rule)
            and matches(flaw.file, self.path)
            and fnmatch.fnmatchcase(flaw.subject, self.subject)
        )


@dataclass(frozen=True)
class Policy:
    """What is asked for, and what is known."""

    platforms: Sequence[Platform] = PLATFORMS
    exceptions: Sequence[Acceptance] = ()
    images: Sequence[KnownImage] = ()
    namespaces: Namespaces = field(default_factory=Namespaces)


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        flaws: by file and line.
        accepted: flaws that an exception covers.
        examined: how many files.
    """

    flaws: Sequence[Flaw]
    accepted: Sequence[tuple[Flaw, Acceptance]]
    examined: int


def matches(path: str, pattern: str) -> bool:
    """Whether a path fits a pattern: `*` stops at slashes, `**` does not; a folder stands for all below it."""
    return _compiled(pattern).match(path) is not None


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern not in _PATTERNS:
        out = ""
        for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/")):
            out += {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
        if len(_PATTERNS) > 1000:
            _PATTERNS.clear()
        _PATTERNS[pattern] = re.compile(rf"(?:{out})(?:/.*)?\Z")
    return _PATTERNS[pattern]


_PATTERNS: dict[str, re.Pattern[str]] = {}


def is_containerfile(path: str) -> bool:
    """Whether a file is one, by its name: Containerfile, Dockerfile, web.Dockerfile, Dockerfile.web."""
    name = posixpath.basename(path)
    return _CONTAINERFILE.fullmatch(name) is not None and not name.endswith(_NO_CONTAINERFILE)


def is_interesting(path: str) -> bool:
    """Whether a file's text is wanted, by its name."""
    name = posixpath.basename(path)
    return (
        is_containerfile(path)
        or name.endswith((".yaml", ".yml", ".tpl"))
        or (name.endswith(".json") and not name.startswith(("package", "tsconfig")))
    )


def wanted(found: Found) -> list[str]:
    """More files that should be read: start scripts that Containerfiles copy into their images."""
    out: dict[str, None] = {}
    for path, text in found.texts.items():
        if is_containerfile(path):
            out.update(dict.fromkeys(p for p in containerfile.wanted(path, text) if p not in found.texts))
    return list(out)


def scan(found: Found, policy: Policy, today: date, scripts: Mapping[str, str] | None = None) -> Result:
    """Examine everything that was read.

    Args:
        today: decides about exceptions.
        scripts: what `wanted` asked for, as far as it exists.
    """
    more = {**found.texts, **(scripts or {})}
    charts = [posixpath.dirname(p) for p in found.texts if posixpath.basename(p) == "Chart.yaml"]
    namespaces = _namespaces(found, policy)
    flaws: list[Flaw] = [Flaw("unreadable", path, 1, why) for path, why in found.unreadable.items()]
    for path, text in sorted(found.texts.items()):
        flaws += _one(path, text, charts, policy, namespaces, more.get)
    for image in found.images:
        flaws += _read(image.file, lambda one=image: images.examine(one.file, one.text, one.name))  # type: ignore[misc]
    flaws = [f for f in dict.fromkeys(flaws) if f.matters_on(policy.platforms)]
    return _judged(flaws, policy, today, len(found.texts) + len(found.images))


def _one(
    path: str,
    text: str,
    charts: Sequence[str],
    policy: Policy,
    namespaces: Namespaces,
    read: containerfile.Reader,
) -> Iterable[Flaw]:
    if is_containerfile(path):
        return containerfile.examine(path, text, images=policy.images, read=read)
    chart = helm.chart_of(path, charts)
    name = posixpath.basename(path)
    if chart is not None and helm.is_template(path, chart):
        return helm.template(path, text)
    if chart is not None and name == "values.schema.json":
        return _read(path, lambda: helm.schema(path, text))
    if chart is not None and helm.is_values(path):
        return _read(path, lambda: helm.values(path, text))
    if name.endswith((".yaml", ".yml", ".json")) and _OBJECT.search(text):
        examined = _read(path, lambda: workloads.examine(path, text, namespaces=namespaces, images=policy.images))
        # Other YAML than Kubernetes' may hold what we do not read.
        return examined if _WORKLOAD.search(text) else [f for f in examined if f.rule != "unreadable"]
    return ()


def _read(path: str, examine: Callable[[], Iterable[Flaw]]) -> list[Flaw]:
    try:
        return list(examine())
    except InvalidInput as error:
        first = error.problems[0]
        line = first.position.line if first.position else 1
        hint = " Render it first, if it is a template." if path.endswith((".yaml", ".yml")) else ""
        return [Flaw("unreadable", path, line, f"it cannot be read: {first.message}{hint}")]
    except ValueError as error:
        return [Flaw("unreadable", path, 1, f"it cannot be read: {str(error)[:200]}")]


def _namespaces(found: Found, policy: Policy) -> Namespaces:
    users: dict[str, Range] = {}
    groups: dict[str, Range] = {}
    for path, text in sorted(found.texts.items()):
        if "openshift.io/sa.scc." in text and path.endswith((".yaml", ".yml", ".json")):
            try:
                seen = workloads.namespaces_in(documents(text, path))
            except InvalidInput:
                continue  # said by the examination
            users.update(seen.users)
            groups.update(seen.groups)
    return Namespaces({**users, **policy.namespaces.users}, {**groups, **policy.namespaces.groups})


def _judged(flaws: Iterable[Flaw], policy: Policy, today: date, examined: int) -> Result:
    left: list[Flaw] = []
    accepted: list[tuple[Flaw, Acceptance]] = []
    used: set[int] = set()
    for flaw in flaws:
        covering = [i for i, one in enumerate(policy.exceptions) if one.covers(flaw)]
        used.update(covering)
        holding = [policy.exceptions[i] for i in covering if policy.exceptions[i].expires >= today]
        if holding:
            accepted.append((flaw, holding[0]))
        else:
            left.append(flaw)
    left += _of_exceptions(policy, used, today)
    return Result(sorted(left, key=lambda f: (f.file, f.line, f.rule, f.message)), accepted, examined)


def _of_exceptions(policy: Policy, used: set[int], today: date) -> Iterator[Flaw]:
    for index, one in enumerate(policy.exceptions):
        name = f"the exception of {one.rule} for {one.path} ({one.reason})"
        if index not in used:
            yield Flaw("exception-unused", one.path, 1, f"{name} covers nothing")
        elif one.expires < today:
            yield Flaw("exception-expired", one.path, 1, f"{name} ended on {one.expires}")
