"""host.pamProfile: a profile of Debian's pam-auth-update, and whether it is enabled."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

from pydantic import Field, field_validator

from reconciler.fields import Rule
from reconciler.model import (
    CONTROL,
    IDENTITY,
    UNOBSERVABLE,
    Change,
    Keep,
    Probe,
    ResourceType,
    Risk,
    Script,
    Sh,
    Spec,
    State,
    Step,
)
from reconciler.probe import expect
from reconciler.types.host import folders_above, printable
from reconciler.types.host.pam_service import MODULES, PamModule

FOLDER: Final = "/usr/share/pam-configs"
ProfileName = Annotated[str, Rule(r"[a-z0-9][a-z0-9_.-]*", "a name of lower-case letters, digits and . _ -", 64)]


class PamProfile(Spec):
    """Authentication rules for all services, by Debian's pam-auth-update.

    That tool writes /etc/pam.d/common-auth; where somebody edited its part of it by hand, it changes nothing, and
    neither do we.
    """

    name: Annotated[ProfileName, IDENTITY] = Field(description=f"Its file in {FOLDER}.")
    text: str | None = Field(None, description="The profile, as pam-auth-update(8) describes it; only its Auth part.")
    enabled: bool | None = Field(None, description="Its rules are in common-auth.")
    modules: Annotated[tuple[PamModule, ...], CONTROL] = Field(
        (), description="Modules that the rules name; without them nothing is changed."
    )
    after: Annotated[tuple[str, ...], CONTROL] = Field((), description="Tokens of what comes first.")

    @field_validator("text")
    @classmethod
    def _whole(cls, text: str | None) -> str | None:
        if text is not None and (not text.startswith("Name: ") or not _rules(text, "Auth:")):
            raise ValueError("is no profile with an Auth part. Begin with `Name: `, and see pam-auth-update(8).")
        return text

    @property
    def path(self) -> str:
        """Its file."""
        return f"{FOLDER}/{self.name}"

    @property
    def rules(self) -> tuple[str, str]:
        """What stands in common-auth after other rules of its sort, and what where it is the first."""
        later = _rules(self.text or "", "Auth:")
        return later, _rules(self.text or "", "Auth-Initial:") or later


def _rules(text: str, part: str) -> str:
    """The lines of a part, each without its indentation."""
    on, out = False, []
    for line in text.splitlines():
        if line[:1].strip():
            on = line.strip() == part
        elif on and line.strip():
            out.append(line.strip())
    return "".join(f"{line}\n" for line in out)


# What pam-auth-update remembers of a profile (its file /var/lib/pam/auth), each line with = if common-auth has it, too,
# and with ! if not. The control before a module is written anew there.
LINES: Final = r"""lines() {
    stack=$1/etc/pam.d/common-auth saved=$1/var/lib/pam/auth
    [ -f "$stack" ] || stack=/dev/null
    [ -f "$saved" ] || saved=/dev/null
    N=$2 S=$saved awk '
    function module(line) {
        sub(/^(\[[^]]*\]|[a-z]+)[ \t]+/, "", line)
        gsub(/[ \t]+/, " ", line)
        sub(/ $/, "", line)
        return line
    }
    FILENAME != ENVIRON["S"] { if (sub(/^auth[ \t]+/, "")) there[module($0)]; next }
    /^Module: / { on = substr($0, 9) == ENVIRON["N"]; next }
    on { print (module($0) in there ? "=" : "!") $0 }' "$stack" "$saved"
}
able() { [ -z "$ROOT" ] && command -v pam-auth-update >/dev/null; }
"""
READ: Final = (
    LINES
    + r"""able && echo able || echo "${OFFLINE:+blind}"
for n; do
    echo "@$n"
    f=$ROOT/usr/share/pam-configs/$n
    [ ! -f "$f" ] || { printf '+'; base64 -- "$f" | tr -d '\n'; echo; }
    lines "$ROOT" "$n"
done
"""
)


def probe(profiles: Sequence[PamProfile]) -> Probe:
    """The files, and what pam-auth-update and common-auth say of them."""
    (reply,) = yield [Script(READ, [profile.name for profile in profiles])]
    able, *rows = expect(reply, "the probe of PAM profiles").rstrip("\n").split("\n")
    found: dict[str, list[str]] = {}
    name = ""
    for row in rows:
        if row.startswith("@"):
            name = row[1:]
            found[name] = []
        else:
            found[name].append(row)
    return [_state(profile, found[profile.name], blind=able == "blind") for profile in profiles]


def _state(profile: PamProfile, rows: Sequence[str], *, blind: bool) -> State | None:
    texts = [row[1:] for row in rows if row.startswith("+")]
    if not texts:
        return None
    text = base64.b64decode(texts[0]).decode("utf-8", "surrogateescape")
    lines = [row for row in rows if row.startswith(("=", "!"))]
    enabled: Any = bool(lines)
    if blind:
        enabled = UNOBSERVABLE
    elif any(row.startswith("!") for row in lines):
        enabled = "by pam-auth-update, but common-auth was edited by hand"
    elif lines and profile.text is not None and "".join(f"{row[1:]}\n" for row in lines) not in profile.rules:
        enabled = "with other rules"
    return {"text": text if text == profile.text else printable(text), "enabled": enabled}


# $1 = path of the profile, $2 = its name, $3 = enable or remove or nothing, $4 and $5 = its rules in both forms.
# pam-auth-update says nothing and ends well where it does not dare to write; so it is tried on a copy first.
SET: Final = f"""{LINES}
path=$1 name=$2 how=$3 later=$4 initial=$5
shift 5
inside "$path"
[ ! -L "$ROOT$path" ] || {{ echo "$path is a symbolic link; it stays"; exit 1; }}
[ -d "$ROOT${{path%/*}}" ] || {{ echo "there is no folder ${{path%/*}}: no host with pam-auth-update"; exit 1; }}
w=$(mktemp -d)
trap 'rm -rf -- "$w"' EXIT
cat >"$w/text"
done_in() {{
    found=$(lines "$1" "$name" && echo .)
    case $how in
        enable) {{ [ -z "$later" ] && [ "$found" != . ]; }} ||
            [ "$found" = "$(printf %s "$later" | sed 's/^/=/'; echo .)" ] ||
            [ "$found" = "$(printf %s "$initial" | sed 's/^/=/'; echo .)" ] ;;
        remove) [ "$found" = . ] ;;
    esac
}}
if [ "$how" = enable ]; then
    {MODULES}
fi
if [ -n "$how" ] && able; then
    mkdir -p "$w/etc" "$w/usr/share" "$w/var/lib"
    cp -a /etc/pam.d "$w/etc/"
    cp -a /usr/share/pam-configs "$w/usr/share/"
    cp -a /var/lib/pam "$w/var/lib/"
    [ ! -s "$w/text" ] || cp "$w/text" "$w$path"
    said=$(pam-auth-update --root "$w" --package "--$how" "$name" 2>&1 </dev/null) || :
    done_in "$w" || {{
        echo "pam-auth-update does not $how $name, so nothing was changed. $said"
        echo "It leaves /etc/pam.d/common-* alone where its part was edited by hand. Put your own lines before or"
        echo "after that part; or take its own version by: pam-auth-update --force"
        exit 1
    }}
elif [ -n "$how" ] && [ -z "$OFFLINE" ]; then
    echo "there is no pam-auth-update on this host; on Red Hat's systems authselect has its place"
    exit 1
fi
put_text() {{ base64 "$w/text" >"$w/64"; put "$path" 0644 root root <"$w/64"; }}
set_it() {{
    [ -n "$how" ] && able || return 0
    pam-auth-update --package "--$how" "$name" </dev/null
    done_in "" || {{ echo "pam-auth-update did not $how $name"; exit 1; }}
}}
"""


def steps(change: Change[PamProfile]) -> Iterable[Step]:
    """On a copy first. What comes goes file first, what goes goes rules first."""
    profile = change.spec
    arguments = (profile.path, profile.name)
    if change.after is None:
        yield Sh(
            f'{SET}set_it\nrm -f -- "$ROOT$path"',
            (*arguments, "remove", "", ""),
            stdin="",
            title=f"take the profile {profile.name} out of common-auth, and remove it",
        )
        return
    how = {None: "", True: "enable", False: "remove"}[profile.enabled]
    if profile.text is not None and (change.before is None or "text" in change.changed):
        yield Sh(
            f"{SET}put_text\nset_it",
            (*arguments, how, *profile.rules, *profile.modules),
            stdin=profile.text,
            title=f"write the profile {profile.name}" + (f" and {how} it" if how else ""),
        )
    else:
        yield Sh(
            f"{SET}set_it",
            (*arguments, how, *profile.rules, *profile.modules),
            stdin="",
            title=f"{how} the profile {profile.name}",
        )


def risk(change: Change[PamProfile]) -> Risk:
    """It concerns every service."""
    if change.after is None or change.spec.enabled is False:
        return Risk("lock-out", "all services ask again only for what they asked for before")
    return Risk("lock-out", "a mistake here keeps everybody out of every service; stay logged in as root meanwhile")


def provides(profile: PamProfile) -> Iterable[str]:
    """Its file."""
    return (f"path:{profile.path}",)


STACKS: Final = tuple(
    f"/etc/pam.d/common-{name}" for name in ("account", "auth", "password", "session", "session-noninteractive")
)


TYPE = ResourceType(
    "host.pamProfile",
    PamProfile,
    probe,
    steps,
    provides=provides,
    needs=lambda profile: (*folders_above(profile.path), *profile.after),
    risk=risk,
    # Together they are what pam-auth-update would write, so that it need not run again.
    keeps=lambda change: Keep((change.spec.path, *STACKS, "/var/lib/pam")),
)
