"""PolkitRule: privileged actions for named people, without a password, and proof that nothing else was opened."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Account, HostSelector, Rule, UnitName
from reconciler.model import Document, Kind, Resource, Spec
from reconciler.types.host.file import TYPE as host_file
from reconciler.types.host.polkit_rules import TYPE as host_polkit_rules
from reconciler.types.host.polkit_verdicts import TYPE as host_polkit_verdicts
from reconciler.types.host.polkit_verdicts import ActionId, Verb

MANAGE_UNITS: Final = "org.freedesktop.systemd1.manage-units"
UNIT_FILES: Final = "org.freedesktop.systemd1.manage-unit-files"
EXEC: Final = "org.freedesktop.policykit.exec"
CONTROLS: Final = (
    "org.freedesktop.hostname1.set-hostname",
    "org.freedesktop.login1.reboot-ignore-inhibit",
    EXEC,
    UNIT_FILES,
)
"""What nobody may do by default without a password, not even at the console: if it is allowed, a rule is wrong."""
IMPLIED: Final = {MANAGE_UNITS: (UNIT_FILES,)}
"""Who may do one of these may do the action, too; polkit's own policy says so."""
UNGRANTED_UNIT: Final = "reconciler-must-not.service"
"""A unit that no rule names."""


class Grant(Spec):
    """Who may do what."""

    action: ActionId | None = Field(None, description="One polkit action by its full name; `pkaction` lists them.")
    actions: tuple[ActionId, ...] = Field((), description="Several actions.")
    users: tuple[Account, ...] = Field((), description="Users who may do it.")
    groups: tuple[Account, ...] = Field((), description="Groups whose members may do it.")
    units: tuple[UnitName, ...] = Field(
        (), description="Only these systemd units (for org.freedesktop.systemd1.manage-units); run0 needs all units."
    )
    verbs: tuple[Verb, ...] = Field((), description="Only these verbs on units, such as start, stop, restart.")
    result: Literal["yes", "auth_self", "auth_admin", "auth_self_keep", "auth_admin_keep"] = Field(
        "yes",
        description="`yes`: without a password. `auth_self`: with one's own. `auth_admin`: with an administrator's. "
        "`..._keep`: and not again for some minutes.",
    )
    active: bool | None = Field(None, description="Only in a session that is (not) the active one.")
    local: bool | None = Field(None, description="Only in a session that is (not) at the machine itself.")

    @property
    def all_actions(self) -> Sequence[str]:
        """Every action, each once."""
        return list(dict.fromkeys(([self.action] if self.action else []) + list(self.actions)))


class PolkitRuleBody(Spec):
    """Grants of privileged actions."""

    priority: Annotated[str, Rule(r"[0-9]{2}", "two digits, quoted")] = Field(
        "50", description="Two digits before the name of the file. The rule that sorts first answers first."
    )
    allow: tuple[Grant, ...] = Field(min_length=1, description="Who may do what.")
    must_stay_denied: tuple[ActionId, ...] | None = Field(
        None,
        description="Actions of which the audit proves that these users may not do them without a password; by "
        f"default {', '.join(CONTROLS)}, as far as no PolkitRule of the host grants them.",
    )


class PolkitRuleSpec(PolkitRuleBody):
    """Lets people do privileged actions without a password, for example run0.

    It becomes one file of polkit's rules, generated so that text can never become code. After that polkit itself is
    asked: what is granted must be allowed, and other privileged actions must stay refused. All rules files of the
    host, whoever wrote them, are searched for the mistakes that polkit keeps silent about.

    Whoever may do org.freedesktop.systemd1.manage-units without a restriction to units can become root: that is what
    run0 is. Grant it as you would grant sudo.

    Example:

        apiVersion: reconciler/v1
        kind: PolkitRule
        metadata:
          name: admins-may-run0
        spec:
          hosts: {matchLabels: {role: bastion}}
          allow:
            - action: org.freedesktop.systemd1.manage-units
              users: [admin]
            - action: org.freedesktop.systemd1.manage-units
              groups: [deploy]
              units: [nginx.service]
              verbs: [reload, restart]
    """

    hosts: HostSelector


# ------------------------------------------------------------------------------------------------ the file


def path_of(document: Document[Any]) -> str:
    """Where the rules of a document are."""
    return f"/etc/polkit-1/rules.d/{document.spec.priority}-{document.name}.rules"


def rules_js(name: str, grants: Sequence[Grant]) -> str:
    """The rules as JavaScript of 2009, which is what polkit runs.

    Every value is written by a JSON encoder that leaves nothing but ASCII, so it stays a string whatever it holds.
    """
    lines = [f"// Managed by reconciler: PolkitRule/{name}. Edits of this file are undone.", ""]
    if any(_makes_root(grant) for grant in grants):
        lines += ["// Whoever this allows to manage all units can become root: that is what run0 is.", ""]
    lines.append("polkit.addRule(function (action, subject) {")
    for grant in grants:
        conditions = list(_conditions(grant))
        lines.append("    if (" + " &&\n        ".join(conditions) + ") {")
        lines += [f"        return polkit.Result.{grant.result.upper()};", "    }"]
    return "\n".join([*lines, "});", ""])


def _conditions(grant: Grant) -> Iterator[str]:
    yield _any(f"action.id === {_text(action)}" for action in grant.all_actions)
    yield _any(
        [
            *(f"subject.user === {_text(user)}" for user in grant.users),
            *(f"subject.isInGroup({_text(group)})" for group in grant.groups),
        ]
    )
    if grant.units:
        yield _any(f'action.lookup("unit") === {_text(unit)}' for unit in grant.units)
    if grant.verbs:
        yield _any(f'action.lookup("verb") === {_text(verb)}' for verb in grant.verbs)
    for name, wanted in (("active", grant.active), ("local", grant.local)):
        if wanted is not None:
            yield f"subject.{name} === {_text(wanted)}"


def _any(conditions: Iterable[str]) -> str:
    # `false` for an empty list: a rule for nobody, never one for everybody.
    found = list(conditions) or ["false"]
    return found[0] if len(found) == 1 else "(" + " ||\n         ".join(found) + ")"


def _text(value: str | bool) -> str:
    return json.dumps(value, ensure_ascii=True)


def _makes_root(grant: Grant) -> bool:
    return grant.result == "yes" and MANAGE_UNITS in grant.all_actions and not grant.units


# ------------------------------------------------------------------------------------------------ the questions


def checks(body: PolkitRuleBody, others: Sequence[Grant]) -> list[dict[str, str]]:
    """What polkit is asked after the file is there, as specs of `PolkitCheck`.

    Args:
        others: all that is granted on the host, by any document: none of that is expected to be denied.
    """
    out: list[dict[str, str]] = []
    for grant in body.allow:
        # The question is asked for a process without a session of its own.
        if grant.active is None and grant.local is None:
            out += _granted(grant)
            out += _beyond(grant, others)
    if body.must_stay_denied is None:
        denied = [action for action in CONTROLS if not _may_be_granted(others, action)]
    else:
        denied = list(body.must_stay_denied)
    subjects = dict.fromkeys(s for grant in body.allow for s in _subjects(grant))
    out += [{kind: name, "action": action, "expect": "denied"} for (kind, name), action in product(subjects, denied)]
    return [dict(fields) for fields in dict.fromkeys(tuple(check.items()) for check in out)]


def _subjects(grant: Grant) -> Iterator[tuple[str, str]]:
    yield from (("user", user) for user in grant.users)
    yield from (("group", group) for group in grant.groups)


def _granted(grant: Grant) -> Iterator[dict[str, str]]:
    answer = "yes" if grant.result == "yes" else "auth"
    details = [{"unit": unit, "verb": verb} for unit in grant.units or [""] for verb in (grant.verbs or [""])]
    for (kind, name), action, detail in product(_subjects(grant), grant.all_actions, details):
        yield {kind: name, "action": action, **{k: v for k, v in detail.items() if v}, "expect": answer}


def _beyond(grant: Grant, others: Sequence[Grant]) -> Iterator[dict[str, str]]:
    """What the restriction to units and verbs leaves out."""
    first = {"unit": grant.units[0]} if grant.units else {}
    questions: list[dict[str, str]] = []
    if grant.units and not _may_be_granted(others, MANAGE_UNITS, unit=UNGRANTED_UNIT):
        questions.append({"unit": UNGRANTED_UNIT, "verb": (grant.verbs or ("start",))[0]})
    if grant.verbs and not _may_be_granted(others, MANAGE_UNITS, unit=first.get("unit", ""), verb="set-property"):
        questions.append({**first, "verb": "set-property"})
    for (kind, name), question in product(_subjects(grant), questions):
        yield {kind: name, "action": MANAGE_UNITS, **question, "expect": "denied"}


def _may_be_granted(grants: Sequence[Grant], action: str, unit: str = "", verb: str = "") -> bool:
    """Whether somebody, anybody, gets it: who is in which group is not known here."""
    for grant in grants:
        if grant.result != "yes" or not {action, *IMPLIED.get(action, ())} & set(grant.all_actions):
            continue
        implied = action not in grant.all_actions
        if implied or (
            (not grant.units or unit in grant.units) and (not grant.verbs or not verb or verb in grant.verbs)
        ):
            return True
    return False


# ------------------------------------------------------------------------------------------------ the kind


def expand(document: Document[PolkitRuleSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The file, and the two audits, on every selected host."""
    spec = document.spec
    content = rules_js(document.name, spec.allow)
    hosts = catalog.hosts(spec.hosts)
    there: dict[str, list[Document[PolkitRuleSpec]]] = {host: [] for host in hosts}
    for other in catalog:
        if other.kind == KIND.name:
            for host in there.keys() & catalog.hosts(other.spec.hosts):
                there[host].append(other)
    for host in hosts:
        granted = [grant for other in there[host] for grant in other.spec.allow]
        files = tuple(path_of(other) for other in there[host])
        yield host_file(host, path=path_of(document), content=content, mode="0644", owner="root", group="root")
        yield host_polkit_verdicts(host, name=document.name, checks=checks(spec, granted), after=files)
        yield host_polkit_rules(host, after=files)


def check(document: Document[PolkitRuleSpec], catalog: Catalog) -> Iterable[Problem]:
    """Nothing for everybody, nothing that means nothing."""
    for index, grant in enumerate(document.spec.allow):
        where = f"spec.allow[{index}]"

        def problem(message: str, fix: str, *path: str | int, index: int = index) -> Problem:
            return catalog.problem(document, ("spec", "allow", index, *path), message, fix)

        actions = grant.all_actions
        if not actions:
            yield problem(f"{where} names no action.", "Add `action:`; `pkaction` lists them.")
        if not grant.users and not grant.groups:
            yield problem(f"{where} is for everybody.", "Name who may do it: add `users:` or `groups:`.")
        if "root" in grant.users:
            yield problem(f"{where}: root may do everything anyway.", "Leave it out.", "users")
        for field in ("units", "verbs"):
            if getattr(grant, field) and set(actions) != {MANAGE_UNITS}:
                message = f"{where}.{field} goes with {MANAGE_UNITS} only."
                yield problem(message, "Write a grant of its own for it.", field)
    denied = set(document.spec.must_stay_denied or ())
    granted = [g for g in document.spec.allow if g.result == "yes" and not g.units and not g.verbs]
    for action in sorted(denied & {action for grant in granted for action in grant.all_actions}):
        message = f"{action} is granted, and must stay denied."
        yield catalog.problem(document, ("spec", "mustStayDenied"), message, "Keep one of them.")


KIND = Kind("PolkitRule", PolkitRuleSpec, expand, check)
