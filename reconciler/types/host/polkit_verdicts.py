"""host.polkitVerdicts: an audit that asks polkit itself what people may do, and what they may not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.errors import ProbeFailed
from reconciler.fields import AbsolutePath, Account, Rule, UnitName
from reconciler.model import CONTROL, IDENTITY, UNOBSERVABLE, Change, Probe, ResourceType, Script, Spec
from reconciler.probe import expect
from reconciler.types.host import printable
from reconciler.types.host.polkit_rules import FOLDERS

ActionId = Annotated[
    str,
    Rule(
        r"[A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)+",
        "the full name of one polkit action, such as org.freedesktop.systemd1.manage-units (`pkaction` lists them)",
        255,
    ),
]
Verb = Annotated[str, Rule(r"[a-z][a-z-]*", "what is done to a unit, such as start or restart", 64)]


class PolkitCheck(Spec):
    """One question to polkit: a user, or some member of a group, and an action with its details."""

    user: Account | None = None
    group: Account | None = None
    action: ActionId
    unit: UnitName | None = None
    verb: Verb | None = None
    expect: Literal["yes", "auth", "denied"] = Field(
        description="`auth`: after a password. `denied`: not without a password, or not at all."
    )

    def __str__(self) -> str:
        who = self.user or f"a member of {self.group}"
        detail = " ".join(filter(None, (self.verb, self.unit)))
        return f"{who}, {self.action}" + (f" ({detail})" if detail else "")


class PolkitVerdicts(Spec):
    """What polkit answers for certain people: yes where it must, and no where it must (an audit)."""

    name: Annotated[str, IDENTITY]
    checks: Annotated[tuple[PolkitCheck, ...], CONTROL]
    after: Annotated[tuple[AbsolutePath, ...], CONTROL] = Field(
        (), description="Rules files of ours: asked after them."
    )
    problems: tuple[tuple[str, str, str], ...] = Field(
        (), description="Rule, message and fix of each answer that was not expected: none."
    )


# pkcheck needs a process of the user. A `sleep` with the user's IDs and without our environment serves, which ends
# with this read; no login takes place. polkitd reads changed files by itself, so what is younger than two seconds is
# given the time (2.5 s at most, if the clock is wrong). A rule can make polkitd hang: after one answer that does not
# come, no more are asked for.
ASK: Final = r"""
[ -z "$OFFLINE" ] || { echo offline; exit 0; }
[ "$(id -u)" -eq 0 ] || { echo 'it needs root'; exit 1; }
folders=$1
shift
command -v pkcheck >/dev/null || { echo absent; exit 0; }

cd / && set -f && set -- $folders "$@"
tries=0
while [ -n "$(find "$1" "$2" "$3" "$4" -maxdepth 1 -newerct '2 seconds ago' -printf x -quit)" ] &&
    [ $((tries += 1)) -le 10 ]; do sleep 0.25; done
shift 4

helpers=
trap '[ -z "$helpers" ] || kill $helpers' EXIT
trap 'exit 1' HUP INT TERM

# member GROUP: prints somebody in it who is not root.
member() {
    entry=$(getent group -- "$1") || return 1
    gid=${entry%:*} gid=${gid##*:}
    for one in $(printf %s "${entry##*:}" | tr , ' ') $(getent passwd | awk -F: -v g="$gid" '$4 == g { print $1 }'); do
        number=$(id -u -- "$one") && [ "$number" -ne 0 ] && { printf %s "$one"; return 0; }
    done
    return 0
}

# start USER: sets `asker` to "PID,START,UID" of a process of that user.
start() {
    uid=$(id -u -- "$1") && gid=$(id -g -- "$1") || return 1
    eval "asker=\${asker_$uid-}"
    [ -z "$asker" ] || return 0
    env -i PATH="$PATH" setpriv --reuid="$uid" --regid="$gid" --init-groups -- sleep 120 </dev/null >/dev/null 2>&1 &
    helpers="$helpers $!" tries=0
    # It belongs to the user once it has become `sleep`.
    while [ "$(stat -c %u "/proc/$!")" != "$uid" ] && [ $((tries += 1)) -lt 100 ]; do sleep 0.02; done
    asker=$!,$(cut -d ' ' -f 22 "/proc/$!/stat"),$uid
    eval "asker_$uid=\$asker"
}

# ask ACTION UNIT VERB: prints the answer.
ask() {
    action=$1 unit=$2 verb=$3
    set -- --action-id "$action" --process "$asker"
    [ -z "$unit" ] || set -- "$@" --detail unit "$unit"
    [ -z "$verb" ] || set -- "$@" --detail verb "$verb"
    said=$(timeout -s KILL 10 pkcheck "$@" 2>&1 >/dev/null)
    case $? in
        0) echo yes ;;
        1) echo no ;;
        2 | 3) echo auth ;;
        124 | 137) hanging=1; echo hangs ;;
        *) case $said in *'is not registered'*) echo unknown ;; *) printf 'error %s\n' "$said" | head -n 1 ;; esac ;;
    esac
}

hanging=
while [ $# -ge 5 ]; do
    name=$2
    if [ -n "$hanging" ]; then echo hangs
    elif [ "$1" = group ] && ! name=$(member "$2"); then echo nobody
    elif [ -z "$name" ]; then echo empty
    elif ! start "$name"; then echo nobody
    else ask "$3" "$4" "$5"; fi
    shift 5
done
"""


def probe(audits: Sequence[PolkitVerdicts]) -> Probe:
    """All questions of a host in one read, each asked once."""
    checks = list(dict.fromkeys(_question(check) for audit in audits for check in audit.checks))
    (reply,) = yield [Script(ASK, [" ".join(FOLDERS), *(word for check in checks for word in check)])]
    answers = expect(reply, "asking polkit").splitlines()
    if answers == ["offline"]:
        return [{"problems": UNOBSERVABLE} for _ in audits]
    if answers == ["absent"]:
        fix = "Install the package polkitd, or take the rule away."
        missing = ["polkit-missing", "polkit is not installed, so nobody may do what is granted.", fix]
        return [{"problems": [missing]} for _ in audits]
    if len(answers) != len(checks):
        raise ProbeFailed(f"polkit gave {len(answers)} answers to {len(checks)} questions")
    given = dict(zip(checks, answers, strict=True))
    states = []
    for audit in audits:
        found = [p for check in audit.checks if (p := problem(check, given[_question(check)]))]
        states.append({"problems": [list(p) for p in dict.fromkeys(found)]})
    return states


def _question(check: PolkitCheck) -> tuple[str, ...]:
    kind = "user" if check.user else "group"
    return kind, check.user or check.group or "", check.action, check.unit or "", check.verb or ""


def problem(check: PolkitCheck, answer: str) -> tuple[str, str, str] | None:
    """What is wrong with an answer.

    Args:
        answer: `yes`, `no`, `auth`; `unknown` (action), `nobody` (there is no such account), `empty` (group without
            members), `hangs`, or `error` with what was said.
    """
    match answer:
        case "empty":
            return None
        case "yes" if check.expect == "denied":
            fix = "Look for `=` in place of `===` in polkit's rules; host.polkitRules names the line if it is one."
            return "granted-too-much", f"{check}: polkit says yes, and nobody granted it.", fix
        case "no" | "auth" if check.expect not in ("denied", answer):
            said = "no" if answer == "no" else "it takes a password"
            fix = "Look for a rules file that sorts before ours, and into `journalctl -u polkit`; "
            fix += "`systemctl reload polkit` reads all rules again."
            return "not-granted", f"{check}: it is granted, but polkit says: {said}.", fix
        case "yes" if check.expect == "auth":
            fix = "Look for a rules file that sorts before ours and says yes."
            return "granted-too-much", f"{check}: polkit says yes, where a password is asked for.", fix
        case "unknown" if check.expect != "denied":
            fix = "Compare it with what `pkaction` prints, or install what brings it."
            return "unknown-action", f"{check.action} is no action on this host.", fix
        case "nobody":
            what = f"user {check.user}" if check.user else f"group {check.group}"
            return "unknown-account", f"there is no {what} on this host.", "Create it, or take it out of the rule."
        case "hangs":
            fix = "A rule that returns true, or never ends, does this: mend it, then `systemctl restart polkit`."
            return "polkit-hangs", "polkitd does not answer within 10 s.", fix
        case _ if answer.startswith("error"):
            text = printable(answer.removeprefix("error").strip())
            return "no-answer", f"{check}: polkit gives no answer: {text}", "See `journalctl -u polkit`."
    return None


def findings(change: Change[PolkitVerdicts]) -> Iterable[tuple[str, str, str]]:
    """The problems, as they are."""
    for rule, message, fix in (change.before or {}).get("problems") or ():
        yield rule, f"{change.resource.target}: {message}", fix


def needs(verdicts: PolkitVerdicts) -> Iterable[str]:
    """Rules files, accounts and polkit itself come before the question."""
    yield "package:polkitd"
    yield from (f"path:{path}" for path in verdicts.after)
    for check in verdicts.checks:
        yield f"user:{check.user}" if check.user else f"group:{check.group}"


TYPE: ResourceType[Any] = ResourceType(
    "host.polkitVerdicts", PolkitVerdicts, probe, None, findings=findings, needs=needs
)
