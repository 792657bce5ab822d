"""host.apparmorSyntax: an audit that asks the host's own parser about a profile before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field

from reconciler.model import CONTROL, IDENTITY, UNOBSERVABLE, Change, Probe, ResourceType, Script, Sha256, Spec
from reconciler.probe import expect
from reconciler.types.host.apparmor_host import PARSE, ProfileFile, explained


class AppArmorSyntax(Spec):
    """Whether the parser of the host takes a profile that is to be written there (an audit).

    Where the host has no parser yet, and of files that the profile includes and that are not there yet, nothing is
    said: the step that writes the profile asks again.
    """

    name: Annotated[ProfileFile, IDENTITY]
    text: Annotated[str, CONTROL] = Field(description="The profile.")
    lines: Annotated[str, CONTROL] = Field("", exclude=True, description="Where the lines of the text come from.")
    problems: tuple[str, ...] = Field((), description="What the parser says: nothing.")


def probe(audits: Sequence[AppArmorSyntax]) -> Probe:
    """All texts that are not there yet, in one read."""
    words = [word for a in audits for word in (a.name, a.text, Sha256.of(a.text).hex)]
    (reply,) = yield [Script(PARSE, words)]
    said: dict[str, list[str]] = {}
    name = ""
    for row in expect(reply, "asking apparmor_parser").splitlines():
        if row.startswith("@"):
            name = row[1:]
        else:
            said.setdefault(name, []).append(row)
    return [{"problems": _problems(a, said.get(a.name, ()))} for a in audits]


def _problems(audit: AppArmorSyntax, said: Sequence[str]) -> Any:
    if any("Could not open" in row or "Could not find" in row for row in said):
        return UNOBSERVABLE
    return explained("\n".join(said), audit.lines)


def findings(change: Change[AppArmorSyntax]) -> Iterable[tuple[str, str, str]]:
    """What the parser says, in one finding."""
    said = list((change.before or {}).get("problems") or ())
    if said:
        host, name = change.resource.target, change.spec.name
        message = f"{host}: apparmor_parser refuses the profile {name}: {'; '.join(said)}"
        yield "parser-refuses", message, "Correct the document; apply would refuse to write it."


TYPE: ResourceType[Any] = ResourceType("host.apparmorSyntax", AppArmorSyntax, probe, None, findings=findings)
