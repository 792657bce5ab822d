"""repo.nonRoot: an audit of what a repository builds and deploys: does it run without root, on each platform?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.fields import Rule
from reconciler.model import CONTROL, IDENTITY, Change, Get, Probe, ResourceType, Spec
from reconciler.probe import expect
from reconciler.tools.nonroot.containerfile import KnownImage as Image
from reconciler.tools.nonroot.rules import PLATFORMS, Flaw
from reconciler.tools.nonroot.scan import Acceptance, Found, ImageConfig, Policy, scan, wanted
from reconciler.tools.nonroot.workloads import Namespaces, range_of

Pattern = Annotated[
    str,
    Rule(
        r"(?!(?:.*/)?\.\.(?:/|$))[^/\s\u0000-\u001f\u007f\u0080-\u009f\u2028\u2029\u202a-\u202e]"
        r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]*",
        "a path below the folder, with * for a part of a name and ** for any folders, such as apps/**",
        500,
    ),
]
RuleName = Annotated[str, Rule(r"[a-z*][a-z*-]*", "the name of a rule, such as user-low, or * for any", 60)]
Sentence = Annotated[
    str, Rule(r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]+", "the reason, in one line", 500)
]
Day = Annotated[str, Rule(r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])", "a day, such as 2027-06-30")]
ImageName = Annotated[
    str, Rule(r"[A-Za-z0-9*?._:/@-]+", "the name of an image as FROM and image: write it, * matches anything", 500)
]
ImageUser = Annotated[str, Rule(r"[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)?", "a USER, such as 1001:0", 100)]
HomePath = Annotated[str, Rule(r"/[A-Za-z0-9._/-]*", "an absolute path", 500)]
NamespaceName = Annotated[str, Rule(r"[a-z0-9*]([a-z0-9*-]{0,61}[a-z0-9*])?", "a namespace, * matches anything", 63)]
RangeText = Annotated[
    str, Rule(r"[0-9]{1,10}[/-][0-9]{1,10}", "a range as OpenShift writes it, such as 1000650000/10000")
]


class NonRootException(Spec):
    """A finding that is accepted, until a day."""

    rule: RuleName = Field(description="The rule, such as `user-low`; `*` matches any.")
    path: Pattern = Field(description="The files, relative to the policy's folder, such as `apps/**`.")
    subject: Sentence | None = Field(
        None, description="The object in the file, such as `Deployment/web, container *`; by default any."
    )
    reason: Sentence = Field(description="Why it is accepted.")
    expires: Day = Field(description="The last day on which it is; afterwards the finding is back.")


class KnownImage(Spec):
    """What images say that are not built here."""

    image: ImageName = Field(description="Their name, with `*`.")
    user: ImageUser = Field(description="The USER that they set.")
    home: HomePath | None = Field(None, description="The HOME that they set.")


class NamespaceRange(Spec):
    """The numbers that OpenShift gave a namespace."""

    namespace: NamespaceName = Field(description="Its name, with `*`.")
    users: RangeText = Field(description="Its annotation `openshift.io/sa.scc.uid-range`.")
    groups: RangeText | None = Field(
        None, description="Its annotation `openshift.io/sa.scc.supplemental-groups`; by default like `users`."
    )


class NonRoot(Spec):
    """Everything in a folder that makes containers runs without root (an audit)."""

    scope: Annotated[Literal["files"], IDENTITY] = "files"
    include: Annotated[tuple[Pattern, ...], CONTROL] = ("**",)
    exclude: Annotated[tuple[Pattern, ...], CONTROL] = ()
    platforms: Annotated[tuple[Literal["docker", "kubernetes", "openshift"], ...], CONTROL] = PLATFORMS
    exceptions: Annotated[tuple[NonRootException, ...], CONTROL] = ()
    images: Annotated[tuple[KnownImage, ...], CONTROL] = ()
    namespaces: Annotated[tuple[NamespaceRange, ...], CONTROL] = ()
    problems: tuple[tuple[str, str, str], ...] = Field(
        (), description="Rule, message and fix of each mistake that was found: none."
    )


def policy_of(spec: NonRoot) -> Policy:
    """The policy of a spec, as the analysers take it."""
    users, groups = {}, {}
    for one in spec.namespaces:
        if seen := range_of(one.users):
            users[one.namespace] = seen
        if seen := range_of(one.groups or one.users):
            groups[one.namespace] = seen
    return Policy(
        spec.platforms,
        [
            Acceptance(e.rule, e.path, e.reason, date.fromisoformat(e.expires), e.subject or "*")
            for e in spec.exceptions
        ],
        [Image(i.image, i.user, i.home or "") for i in spec.images],
        Namespaces(users, groups),
    )


def probe(audits: Sequence[NonRoot]) -> Probe:
    """All files in one round; in a second one the start scripts that Containerfiles name, if there are any."""
    replies = yield [Get("files", {"include": list(a.include), "exclude": list(a.exclude)}) for a in audits]
    answers = [json.loads(expect(reply, "reading files")) for reply in replies]
    found = [_found(answer) for answer in answers]
    asked = [wanted(one) for one in found]
    scripts: list[Mapping[str, str]] = [{} for _ in audits]
    if any(asked):
        more = yield [Get("texts", {"paths": paths}) for paths in asked]
        scripts = [json.loads(expect(reply, "reading start scripts")) for reply in more]
    states = []
    for spec, one, texts, answer in zip(audits, found, scripts, answers, strict=True):
        policy = policy_of(spec)
        result = scan(one, policy, date.fromisoformat(answer["today"]), texts)
        states.append({"problems": [list(problem_of(f, policy)) for f in result.flaws]})
    return states


def _found(answer: Mapping[str, Any]) -> Found:
    return Found(answer["texts"], [ImageConfig(*one) for one in answer["images"]], answer["unreadable"])


def problem_of(flaw: Flaw, policy: Policy) -> tuple[str, str, str]:
    """Rule, message and fix of a flaw, as findings show them."""
    reasons = " ".join(flaw.reasons(policy.platforms))
    return flaw.rule, f"{flaw.place}: {flaw.message} ({flaw.level}). {reasons}", flaw.mended


def findings(change: Change[NonRoot]) -> Iterable[tuple[str, str, str]]:
    """The problems, as they are."""
    yield from (change.before or {}).get("problems") or ()


TYPE: ResourceType[Any] = ResourceType("repo.nonRoot", NonRoot, probe, None, findings=findings)
