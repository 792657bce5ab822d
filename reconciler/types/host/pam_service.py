"""host.pamService: rules of ours at the head of one PAM service."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.fields import Mode, Rule
from reconciler.model import (
    CONTROL,
    IDENTITY,
    Change,
    Composed,
    Keep,
    Probe,
    ResourceType,
    Risk,
    Script,
    Secret,
    Sh,
    Sha256,
    Spec,
    State,
    Step,
)
from reconciler.probe import expect
from reconciler.types.host import folders_above, parse_meta, printable, same_mode
from reconciler.types.host.block import BEGIN, END, LOCATE, BlockName
from reconciler.types.host.line import OPEN

FOLDER: Final = "/etc/pam.d"
PamServiceName = Annotated[
    str, Rule(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "the name of a PAM service, such as sshd or openvpn", 64)
]
PamModule = Annotated[
    str, Rule(r"(?:/[A-Za-z0-9_./-]+/)?pam_[A-Za-z0-9_-]+\.so", "the name of a PAM module, such as pam_oath.so", 255)
]


class PamService(Spec):
    """Rules before all others of a PAM service; whatever else is in its file stays.

    A service without a file of its own gets one, which ends with `rest`.
    """

    service: Annotated[PamServiceName, IDENTITY]
    name: Annotated[BlockName, IDENTITY] = Field(description="Stands in the marks around the rules.")
    rules: str | Secret | Composed | None = Field(
        None, description="The rules, one on each line; no line end after the last."
    )
    place: Literal["first"] = Field("first", description="No rule of others comes before them.")
    mode: Mode | None = Field(None, description="Permissions of the file; `0600` if there is a secret in the rules.")
    modules: Annotated[tuple[PamModule, ...], CONTROL] = Field(
        (), description="Modules that the rules name; without them nothing is changed."
    )
    rest: Annotated[str, CONTROL] = Field("", description="What follows the rules in a file that is made new.")
    after: Annotated[tuple[str, ...], CONTROL] = Field((), description="Tokens of what comes first.")

    @property
    def path(self) -> str:
        """Its file."""
        return f"{FOLDER}/{self.service}"

    @property
    def marks(self) -> tuple[str, str]:
        """The lines before and after the rules."""
        return f"#{BEGIN}{self.name}", f"#{END}{self.name}"


# $1 = path, $2 and $3 = marks, $4 = whether the text may be shown; and so on. Without that only its digest leaves the
# host.
READ = r"""at=0 end='
'
while [ $# -gt 0 ]; do
    seen=$(meta "$1") || { printf '%s\n' "$seen"; exit 1; }
    [ -z "$seen" ] || printf '@%s\n' "$seen"
    case $seen in regular*)
        text=$(B=$2 E=$3 look awk '
            / BEGIN reconciler: / && $0 != ENVIRON["B"] { other = 1 }
            $0 == ENVIRON["B"] { begins++; at = NR; place = rules ? "later" : "first"; on = 1; next }
            $0 == ENVIRON["E"] { ends++; if (ends == 1) on = 0; next }
            on { text = text $0 "\n" }
            !on && !other && !/^[ \t]*(#|$)/ { rules = 1 }
            / END reconciler: / { other = 0 }
            END {
                print !begins && !ends ? "none" : begins != 1 || ends != 1 || on ? "damaged" : place
                printf "%s", text
            }' "$ROOT$1" && echo .) || { printf '%s\n' "$text"; exit 1; }
        found=${text%%"$end"*}
        text=${text#*"$end"}
        text=${text%.}
        text=${text%"$end"}
        digest=$(printf %s "$text" | sha256sum)
        shown=
        [ -z "$4" ] || shown=$(printf %s "$text" | base64 | tr -d '\n')
        printf '=%s %s %s %s\n' "$at" "$found" "${digest%% *}" "$shown" ;;
    esac
    shift 4
    at=$((at + 1))
done
"""


def hidden(service: PamService) -> Iterable[str]:
    """Rules with a secret in them."""
    return ("rules",) if isinstance(service.rules, Secret) else ()


def probe(services: Sequence[PamService]) -> Probe:
    """One awk for each service."""
    arguments = [word for s in services for word in (s.path, *s.marks, "" if hidden(s) else "show")]
    (reply,) = yield [Script(READ, arguments)]
    rows = expect(reply, "the probe of PAM services").split("\n")
    meta = parse_meta("\n".join(row[1:] for row in rows if row.startswith("@")))
    found = {int(words[0]): words[1:] for row in rows if row.startswith("=") and (words := row[1:].split(" "))}
    return [_state(service, found.get(at), meta) for at, service in enumerate(services)]


def _state(service: PamService, found: Sequence[str] | None, meta: Any) -> State | None:
    if found is None or found[0] == "none":
        return None
    place, digest, shown = found
    rules: Any = Sha256(digest)
    if place == "damaged":
        rules = DAMAGED
    elif not hidden(service):
        text = base64.b64decode(shown).decode("utf-8", "surrogateescape")
        rules = text if text == service.rules else printable(text)
    return {"rules": rules, "place": place, "mode": meta[service.path].mode}


DAMAGED: Final = "(one of the two marks is missing, or they are there more than once)"

MODULES: Final = """for m; do
    here= folders=
    for d in "$ROOT"/lib/*/security "$ROOT"/usr/lib/*/security "$ROOT"/lib/security "$ROOT"/usr/lib/security \\
        "$ROOT"/lib64/security "$ROOT"/usr/lib64/security; do
        [ -d "$d" ] || continue
        folders=1
        [ ! -f "$d/$m" ] || here=1
    done
    case $m in /*) [ ! -f "$ROOT$m" ] || here=1 ;; esac
    [ -n "$here" ] || { [ -z "$folders" ] && [ -n "$OFFLINE" ]; } || {
        echo "There is no PAM module $m on this host: with a rule for it, nobody could log in any more."
        echo "Nothing was changed. Install the package that has it."
        exit 1
    }
done
"""
"""Fails where one of the modules `$@` is missing. An image without any modules is no system that could be looked at."""

WRITE = f"""{OPEN}{LOCATE}{{ cat; echo; }} >"$w/text"
if [ -e "$f" ] && [ -n "$b" ]; then
    {{ head -n $((b - 1)) "$w/old"; tail -n +$((e + 1)) "$w/old"; }} >"$w/rest"
elif [ -e "$f" ]; then
    cat "$w/old" >"$w/rest"
else
    printf %s "$4" >"$w/rest"
fi
{{ printf '%s\\n' "$2"; cat "$w/text"; printf '%s\\n' "$3"; cat "$w/rest"; }} >"$w/new"
base64 "$w/new" >"$w/64"
put "$1" "$5" '' '' <"$w/64"
"""
REMOVE = f"""{OPEN}{LOCATE}
if [ -n "$b" ]; then
    {{ head -n $((b - 1)) "$w/old"; tail -n +$((e + 1)) "$w/old"; }} >"$w/new"
    printf %s "$4" >"$w/rest"
    if cmp -s "$w/new" "$w/rest"; then
        rm -f -- "$f"
    else
        base64 "$w/new" >"$w/64"
        put "$1" '' '' '' <"$w/64"
    fi
fi
"""


def steps(change: Change[PamService]) -> Iterable[Step]:
    """Look for the modules; then one edit: read, change, rename."""
    service = change.spec
    path, marks = service.path, service.marks
    if change.after is None:
        yield Sh(REMOVE, (path, *marks, service.rest), title=f"take the rules {service.name} out of {path}")
        return
    if change.before is None or change.changed & {"rules", "place"}:
        if service.modules:
            names = ", ".join(service.modules)
            yield Sh(MODULES, service.modules, title=f"see that there {_is(service.modules)} {names}")
        yield Sh(
            WRITE,
            (path, *marks, service.rest, service.mode or ""),
            stdin=service.rules or "",
            title=f"put the rules {service.name} at the head of {path}",
        )
    elif "mode" in change.changed:
        yield Sh(
            'inside "$1"\n[ -f "$ROOT$1" ] && [ ! -L "$ROOT$1" ] || { echo "$1 is no regular file"; exit 1; }\n'
            'chmod -- "$2" "$ROOT$1"',
            (path, service.mode or ""),
            title=f"chmod {service.mode} {path}",
        )


def _is(words: Sequence[str]) -> str:
    return "is" if len(words) == 1 else "are"


def risk(change: Change[PamService]) -> Risk:
    """A stack that does not work lets nobody in, or everybody."""
    service = change.spec
    if change.after is None:
        return Risk("lock-out", f"{service.service} asks again only for what it asked for before")
    return Risk("lock-out", f"a mistake here can keep everybody out of {service.service}; stay logged in meanwhile")


TYPE = ResourceType(
    "host.pamService",
    PamService,
    probe,
    steps,
    hidden=hidden,
    normalize=same_mode,
    provides=lambda s: (f"edit:{s.path}",),
    needs=lambda s: (f"path:{s.path}", *folders_above(s.path), *s.after),
    risk=risk,
    keeps=lambda change: Keep((change.spec.path,)),
)
