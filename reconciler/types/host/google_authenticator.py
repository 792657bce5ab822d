"""host.googleAuthenticator: the file of pam_google_authenticator for a user, without its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.errors import ProbeFailed
from reconciler.fields import AbsolutePath, Account, Rule
from reconciler.model import (
    IDENTITY,
    Change,
    Composed,
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
from reconciler.types.host import Meta, folders_above, parse_meta

Base32 = Annotated[str, Rule(r"[A-Z2-7]{8,}", "base32 text: A-Z and 2-7, without = at its end", 255)]
RateLimit = Annotated[
    str, Rule(r"[1-9]\d{0,1}/[1-9]\d{0,3}", "logins and seconds, such as 3/30: at most 3 within 30 seconds", 7)
]
HomeOrPath = Annotated[str, Rule(r"~/(?!\.\.?(?:/|$))[A-Za-z0-9_.-]+", "~/ and a file name", 255)] | AbsolutePath
DEFAULT = "~/.google_authenticator"


class GoogleAuthenticator(Spec):
    """The file of pam_google_authenticator for a user.

    What the module keeps in it (used codes, the counter, the clock's skew, times of logins) is neither compared nor
    reset, and codes for emergencies that were used up do not come back. A new secret starts without any of that.
    """

    user: Annotated[Account, IDENTITY]
    path: Annotated[HomeOrPath, IDENTITY] = Field(
        DEFAULT, description="In the home folder it is the user's own; anywhere else it is root's."
    )
    secret: Base32 | Secret | Composed | None = Field(None, description="The secret, as base32 text.")
    factor: Literal["totp", "hotp"] | None = Field(None, description="What a code depends on: time or a counter.")
    reuse: Literal["refused"] | None = Field(None, description="A code that was used is refused.")
    period: int | None = Field(None, ge=1, le=60, description="Seconds for which a code holds; 30 by default.")
    window: int | None = Field(None, ge=1, le=100, description="How many codes around the right one are accepted.")
    rate_limit: RateLimit | None = Field(None, description="At most so many logins within so many seconds.")
    permissions: Literal["private"] = Field("private", description="Nobody but its owner may read it.")


# Secrets stay on the host: only their digests leave it. $1 = user, $2 = path; and so on.
READ = """at=0
while [ $# -gt 0 ]; do
    user=$1 p=$2 home=
    shift 2
    case $p in "~/"*)
        home=$(getent passwd "$user" | cut -d : -f 6)
        [ -n "$home" ] && [ -d "$ROOT$home" ] || { at=$((at + 1)); continue; }
        [ -x "$ROOT$home" ] || { echo "$user"; exit 99; }
        p=$home/${p#"~/"} ;;
    esac
    seen=$(meta "$p") || { printf '%s\\n' "$seen"; exit 1; }
    [ -z "$seen" ] || printf '@%s %s\\n' "$at" "$seen"
    case $seen in regular*)
        [ -r "$ROOT$p" ] || { echo "$user"; exit 99; }
        digest=$(awk 'NR == 1 { gsub(/[ \\t\\r=-]/, ""); printf "%s", toupper($0) }' "$ROOT$p" | sha256sum)
        printf '=%s secret %s\\n' "$at" "${digest%% *}"
        N=$at awk '/^" [A-Z_]+/ {
            if ($2 == "TOTP_AUTH" || $2 == "HOTP_COUNTER" || $2 == "DISALLOW_REUSE") print "=" ENVIRON["N"], $2
            if ($2 == "STEP_SIZE" || $2 == "WINDOW_SIZE") print "=" ENVIRON["N"], $2, $3
            if ($2 == "RATE_LIMIT") print "=" ENVIRON["N"], $2, $3 "/" $4
        }' "$ROOT$p" ;;
    esac
    at=$((at + 1))
done
"""


def probe(files: Sequence[GoogleAuthenticator]) -> Probe:
    """Permissions, options and the digest of the secret, for each."""
    (reply,) = yield [Script(READ, [word for f in files for word in (f.user, f.path)])]
    if reply.status == 99:
        raise ProbeFailed("Keys of other users can be read by root only. Log in as root, or set `become` in the Host.")
    metas: dict[int, Meta] = {}
    options: dict[int, dict[str, str]] = {}
    for row in expect(reply, "the probe of google-authenticator files").split("\n"):
        at, _, rest = row[1:].partition(" ")
        if row.startswith("@"):
            (metas[int(at)],) = parse_meta(rest).values()
        elif row.startswith("="):
            name, _, value = rest.partition(" ")
            options.setdefault(int(at), {})[name] = value
    return [_state(f, metas.get(at), options.get(at, {})) for at, f in enumerate(files)]


def _state(file: GoogleAuthenticator, meta: Meta | None, options: Mapping[str, str]) -> State | None:
    if meta is None:
        return None
    factors = [name for name, option in (("totp", "TOTP_AUTH"), ("hotp", "HOTP_COUNTER")) if option in options]
    state: dict[str, Any] = {
        "secret": Sha256(options["secret"]) if "secret" in options else None,
        "factor": factors[0] if len(factors) == 1 else " and ".join(factors) or "none: the module refuses everybody",
        "reuse": "refused" if "DISALLOW_REUSE" in options else "accepted",
        "period": _number(options.get("STEP_SIZE", "30")),
        "window": _number(options.get("WINDOW_SIZE", "3")),
        "rateLimit": options.get("RATE_LIMIT", "none"),
        "permissions": "private",
    }
    owner = file.user if file.path.startswith("~/") else "root"
    if meta.kind != "regular file" or meta.owner != owner or int(meta.mode, 8) & 0o177:
        state["permissions"] = f"a {meta.kind} {meta.mode} {meta.owner}:{meta.group}"
    return state


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


# As root for nothing but ownership: in a folder of the user's, root would follow whatever link the user puts there.
OPEN = """p=$2 uid=0 gid=0 owner=root
case $p in "~/"*)
    account=$(getent passwd "$1") || { echo "there is no user $1"; exit 1; }
    IFS=: read -r owner _ uid gid _ home _ <<.
$account
.
    p=$home/${p#"~/"} ;;
esac
group=$(getent group "$gid" | cut -d : -f 1)
group=${group:-$gid}
inside "$p"
f=$ROOT$p
[ -d "${f%/*}" ] || { echo "there is no folder ${p%/*}"; exit 1; }
if [ -L "$f" ]; then echo "$p is a symbolic link; it stays"; exit 1; fi
if [ -e "$f" ] && [ ! -f "$f" ]; then echo "$p is no regular file; it stays"; exit 1; fi
[ ! -e "$f" ] || [ "$(stat -c %h -- "$f")" = 1 ] || { echo "$p has a second name; it stays"; exit 1; }
as() {
    if [ -n "$ROOT" ] || [ "$uid" = 0 ] || [ "$(id -u)" != 0 ]; then "$@"; return; fi
    setpriv --reuid "$uid" --regid "$gid" --clear-groups -- "$@"
}
private() {
    [ ! -e "$f" ] || case $(meta "$p") in
        *"|$owner|"*) ;;
        *) own "$p" "$owner" "$group" ;;
    esac
    [ ! -e "$f" ] || as chmod 600 -- "$f"
}
"""

# The module keeps no lock: it writes a new file and renames it, and looks first whether the old one is still what it
# has read. So do we, and we try again where a login came in between.
EDIT = """private
as sh -c '
set -e
umask 077
cd -P -- "$1"
name=$2
t=$(mktemp "./$name~XXXXXX")
trap '\\''rm -f -- "$t" "$t.s"'\\'' EXIT
cat >"$t.s"
tries=0
while :; do
    old=./$name
    [ -e "$old" ] || old=/dev/null
    before=$(stat -c "%i %Y %Z %s" -- "$old")
    awk "$8" F="$3" R="$4" P="$5" W="$6" L="$7" "$t.s" "$old" >"$t"
    [ "$(stat -c "%i %Y %Z %s" -- "$old")" != "$before" ] || break
    tries=$((tries + 1))
    [ $tries -lt 20 ] || { echo "somebody else writes the file all the time"; exit 1; }
done
sync "$t"
mv -fT -- "$t" "$name"
sync .
' sh "${f%/*}" "${f##*/}" "$3" "$4" "$5" "$6" "$7" '
function canonical(text) { gsub(/[ \\t\\r=-]/, "", text); return toupper(text) }
function once(name, line) { if (!(name in met)) print line; met[name] }
function rest() {
    if (done) return
    done = 1
    if (L != "") once("RATE_LIMIT", "\\" RATE_LIMIT " limit)
    if (P != "") once("STEP_SIZE", "\\" STEP_SIZE " P)
    if (W != "") once("WINDOW_SIZE", "\\" WINDOW_SIZE " W)
    if (R != "") once("DISALLOW_REUSE", "\\" DISALLOW_REUSE")
    if (factor == "totp") once("TOTP_AUTH", "\\" TOTP_AUTH")
    if (factor == "hotp") once("HOTP_COUNTER", "\\" HOTP_COUNTER 1")
}
FNR == 1 { part++ }
part == 1 { if (FNR == 1) secret = canonical($0); next }
part == 2 && FNR == 1 {
    begun = 1
    same = secret == "" || canonical($0) == secret
    factor = F
    limit = L
    sub("/", " ", limit)
    print (same ? $0 : secret)
    next
}
/^"/ {
    # Of another secret, only what is no state stays.
    if (!same && ($2 ~ /^LAST[0-9]+$/ || $2 == "TIME_SKEW" || $2 == "RESETTING_TIME_SKEW")) next
    if (!same && $2 == "HOTP_COUNTER") $0 = "\\" HOTP_COUNTER 1"
    if (!same && $2 == "DISALLOW_REUSE") $0 = "\\" DISALLOW_REUSE"
    if (!same && $2 == "RATE_LIMIT") $0 = "\\" RATE_LIMIT " $3 " " $4
    if ($2 == "TOTP_AUTH" && factor == "hotp" || $2 == "HOTP_COUNTER" && factor == "totp") next
    if ($2 == "STEP_SIZE" && P != "") $0 = "\\" STEP_SIZE " P
    if ($2 == "WINDOW_SIZE" && W != "") $0 = "\\" WINDOW_SIZE " W
    if ($2 == "RATE_LIMIT" && L != "" && $3 "/" $4 != L) $0 = "\\" RATE_LIMIT " limit
    if ($2 in met) next
    met[$2]
    print
    next
}
{ rest(); if (same) print }
END {
    if (!begun) {
        if (secret == "") exit 1
        factor = F == "" ? "totp" : F
        limit = L
        sub("/", " ", limit)
        print secret
    }
    rest()
}
'
[ -z "$ROOT" ] || own "$p" "$owner" "$group"
"""


def steps(change: Change[GoogleAuthenticator]) -> Iterable[Step]:
    """One edit on the host, as the user whose file it is."""
    file = change.spec
    where = f"{file.path} of {file.user}"
    if change.after is None:
        yield Sh(
            f'{OPEN}[ ! -e "$f" ] || as rm -f -- "$f"', (file.user, file.path), title=f"remove {where}, with its state"
        )
    elif change.before is not None and change.changed == {"permissions"}:
        yield Sh(f"{OPEN}private", (file.user, file.path), title=f"make {where} private")
    else:
        options = (file.factor, file.reuse, file.period, file.window, file.rate_limit)
        yield Sh(f"{OPEN}true", (file.user, file.path), title=f"see whether {where} can be written")
        yield Sh(
            f"{OPEN}{EDIT}",
            (file.user, file.path, *("" if option is None else str(option) for option in options)),
            stdin=file.secret,
            title=f"{'write' if change.before is None else 'edit'} {where}",
        )


def risk(change: Change[GoogleAuthenticator]) -> Risk | None:
    """Who loses or changes a secret cannot log in with the old one."""
    user = change.spec.user
    if change.after is None:
        return Risk("lock-out", f"{user} loses this second factor; what was used up can be used again if it returns")
    if change.before is not None and "secret" in change.changed:
        return Risk("lock-out", f"the authenticator of {user} needs the new secret; its emergency codes go")
    return None


def needs(file: GoogleAuthenticator) -> Iterable[str]:
    """The account, and the folder."""
    yield f"user:{file.user}"
    if not file.path.startswith("~/"):
        yield from folders_above(file.path)


TYPE = ResourceType(
    "host.googleAuthenticator",
    GoogleAuthenticator,
    probe,
    steps,
    hidden=lambda file: ("secret",),
    provides=lambda file: (f"oath:{file.user}:{file.path}",),
    needs=needs,
    risk=risk,
)
