"""host.oathUser: the one-time password token of a user in the file of pam_oath, without its state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

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

TokenType = Annotated[
    str,
    Rule(r"HOTP/(?:E|T30|T60)/[678]", "the type of a token with its digits, such as HOTP/T30/6 or HOTP/E/6", 10),
]
HexSecret = Annotated[str, Rule(r"(?:[0-9a-f]{2})+", "bytes as lower-case hexadecimal digits", 512)]


class OathUser(Spec):
    """The token of a user of pam_oath: one line of its users file.

    Counter, last password and time, which the module writes into the same line, are its own: they are neither compared
    nor reset, because without them passwords that were used would be accepted again.
    """

    path: Annotated[AbsolutePath, IDENTITY]
    user: Annotated[Account, IDENTITY]
    token: TokenType | None = Field(
        None, description="`HOTP/T30/6` is TOTP with 30 seconds and 6 digits; `HOTP/E/6` counts logins."
    )
    secret: HexSecret | Secret | Composed | None = Field(
        None, description="The secret, as lower-case hexadecimal digits."
    )
    pin: Literal["-", "+"] | None = Field(
        None, description="What stands before the code in an answer: `-` nothing, `+` a password that PAM checks."
    )
    lines: Literal[1] = Field(1, description="The user has this token and no other one in this file.")
    permissions: Literal["private"] = Field("private", description="The file is root's, and nobody else may read it.")


# Secrets stay on the host: only digests leave it, and only as standard input of sha256sum. $1 = a path, $2 = how many
# users of it follow.
READ = """at=0
while [ $# -gt 0 ]; do
    p=$1 n=$2 users=' '
    shift 2
    while [ "$n" -gt 0 ]; do users="$users$1 "; n=$((n - 1)); shift; done
    seen=$(meta "$p") || { printf '%s\\n' "$seen"; exit 1; }
    [ -z "$seen" ] || printf '@%s\\n' "$seen"
    case $seen in regular*)
        rows=$(U=$users look awk '/^[ \\t]*HOTP/ && NF > 3 && index(ENVIRON["U"], " " $2 " ") {
            print $2, $1, $3 ~ /^[-+]$/ ? $3 : "pin", tolower($4) }' "$ROOT$p") || { printf '%s\\n' "$rows"; exit 1; }
        printf '%s\\n' "$rows" | while read -r user token pin secret; do
            [ -n "$user" ] || continue
            digest=$(printf %s "$secret" | sha256sum)
            printf '=%s %s %s %s %s\\n' "$at" "$user" "$token" "$pin" "${digest%% *}"
        done ;;
    esac
    at=$((at + 1))
done
"""


def probe(users: Sequence[OathUser]) -> Probe:
    """One awk for each file; a digest for each line that is asked for."""
    by_path: dict[str, list[str]] = {}
    for user in users:
        by_path.setdefault(user.path, []).append(user.user)
    arguments = [word for path, names in by_path.items() for word in (path, str(len(names)), *names)]
    (reply,) = yield [Script(READ, arguments)]
    rows = expect(reply, "the probe of one-time password users").split("\n")
    meta = parse_meta("\n".join(row[1:] for row in rows if row.startswith("@")))
    paths = list(by_path)
    found: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for row in rows:
        if row.startswith("="):
            at, name, token, pin, digest = row[1:].split(" ")
            found.setdefault((paths[int(at)], name), []).append((_whole(token), digest, pin))
    return [_state(user, found.get((user.path, user.user), ()), meta) for user in users]


def _whole(token: str) -> str:
    """A type with all that it leaves out: HOTP is HOTP/E/6."""
    match = re.fullmatch(r"HOTP(?:/(E|T\d+))?(?:/(\d))?", token)
    return f"HOTP/{match[1] or 'E'}/{match[2] or '6'}" if match else token


def _state(user: OathUser, lines: Sequence[tuple[str, str, str]], meta: Mapping[str, Meta]) -> State | None:
    if not lines:
        return None
    # Of several, the one that the module may go on with; that there are several is a difference of its own.
    found = next((line for line in lines if line[0] == user.token), lines[0])
    if isinstance(user.secret, str):
        wanted = (user.token, Sha256.of(user.secret).hex)
        found = next((line for line in lines if line[:2] == wanted), found)
    token, digest, pin = found
    return {
        "token": token,
        "secret": Sha256(digest),
        "pin": pin,
        "lines": len(lines),
        "permissions": _permissions(meta[user.path]),
    }


def _permissions(seen: Meta) -> str:
    if seen.kind == "regular file" and seen.owner == "root" and not int(seen.mode, 8) & 0o077:
        return "private"
    return f"a {seen.kind} {seen.mode} {seen.owner}:{seen.group}"


# The locks of liboath: PATH.lock and PATH.new, both made with O_EXCL, which is what the shell's noclobber does.
WAIT = """inside "$1"
f=$ROOT$1
if [ -L "$f" ]; then echo "$1 is a symbolic link; name the file that it leads to"; exit 1; fi
if [ -e "$f" ] && [ ! -f "$f" ]; then echo "$1 is no regular file; it stays"; exit 1; fi
[ -d "${f%/*}" ] || { echo "there is no folder ${1%/*}; describe it, too"; exit 1; }
looks=0
while [ -e "$f.lock" ]; do
    looks=$((looks + 1))
    if [ $looks -gt 50 ]; then
        echo "$1.lock is there since $(stat -c %y -- "$f.lock" | cut -c -19)."
        echo "A login that was killed has left it, and as long as it is there, nobody can log in with a password of"
        echo "this file. If no login is under way, remove it: rm $1.lock"
        exit 1
    fi
    sleep 0.1
done
"""

# Two passes over the file: the first finds the line that can stay as it is, with the state that it holds.
MERGE = """f=$ROOT$1
inside "$1"
[ ! -L "$f" ]
umask 077
trap 'exit 1' HUP INT TERM
tries=0
until (set -C; : >"$f.lock") 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -le 50 ] || { echo "$1.lock stays there"; exit 1; }
    sleep 0.1
done
trap 'rm -f -- "$f.new" "$f.lock"' EXIT
rm -f -- "$f.new"
old=$f
[ -e "$f" ] || old=/dev/null
U=$2 T=$3 P=$4 awk '
function whole(type,   n, part) {
    n = split(type, part, "/")
    if (n == 1) return "HOTP/E/6"
    if (n == 2) return part[2] ~ /^[0-9]$/ ? "HOTP/E/" part[2] : type "/6"
    return type
}
# What a counter counts: logins, or spans of 30 or 60 seconds.
function factor(type,   part) { split(whole(type), part, "/"); return part[2] }
function ours() { return $1 ~ /^HOTP/ && NF > 3 && $2 == ENVIRON["U"] }
BEGIN {
    getline secret <"-"
    secret = tolower(secret)
    token = ENVIRON["T"]
    OFS = "\\t"
    if (secret ~ /[^0-9a-f]/ || length(secret) % 2) { bad = "the secret is no hexadecimal text"; exit 1 }
    pin = "-"
}
# Without a secret, that of the line stays.
function same() { return secret == "" || tolower($4) == secret }
FNR == 1 { pass++ }
pass == 1 {
    if (ours() && token != "") {
        if (!keep || !exact) {
            if (same() && whole($1) == token) { keep = FNR; exact = 1 }
            else if (same() && factor($1) == factor(token) && !keep) keep = FNR
        }
        if (pin == "-") pin = $3
        if (last == "") last = $4
    }
    next
}
!ours() { print; next }
token == "" { next }
keep && FNR == keep {
    if (!exact) {
        # The module refuses the last code by its text. One with other digits reads otherwise, so it has to count on.
        if (factor(token) == "E" && NF > 5) $5 = $5 + 1
        $1 = token
    }
    if (ENVIRON["P"] != "" && $3 != ENVIRON["P"]) $3 = ENVIRON["P"]
    print
    next
}
keep || placed { next }
{ add() }
function add() {
    if (secret == "") secret = last
    if (secret == "") { bad = "there is no secret for " ENVIRON["U"]; exit 1 }
    print token, ENVIRON["U"], ENVIRON["P"] == "" ? pin : ENVIRON["P"], secret
    placed = 1
}
END {
    if (!bad && token != "" && !keep && !placed) add()
    if (bad) { print bad >"/dev/stderr"; exit 1 }
}
' "$old" "$old" >"$f.new"
if [ -s "$f.new" ]; then
    chown root:root "$f.new"
    sync -- "$f.new"
    mv -fT -- "$f.new" "$f"
    [ -z "$ROOT" ] || own "$1" root root
else
    rm -f -- "$f"
fi
sync -- "${f%/*}"
"""


DEFAULT = "HOTP/T30/6"
"""What apps make of a secret about which nothing is said."""


def steps(change: Change[OathUser]) -> Iterable[Step]:
    """Wait for other writers; then one edit under the module's own locks."""
    user = change.spec
    wait = Sh(WAIT, (user.path,), title=f"wait until nobody else writes {user.path}")
    if change.after is None:
        yield wait
        yield Sh(MERGE, (user.path, user.user, "", ""), title=f"remove the token of {user.user} from {user.path}")
        return
    if change.before is None or change.changed & {"token", "secret", "pin", "lines"}:
        yield wait
        yield Sh(
            MERGE,
            (user.path, user.user, user.token or DEFAULT, user.pin or ""),
            stdin=user.secret,
            title=f"{'add' if change.before is None else 'set'} the token of {user.user} in {user.path}",
        )
    elif "permissions" in change.changed:
        yield Sh(
            'inside "$1"\n[ -f "$ROOT$1" ] && [ ! -L "$ROOT$1" ] || { echo "$1 is no regular file"; exit 1; }\n'
            'own "$1" root root\nchmod 600 -- "$ROOT$1"',
            (user.path,),
            title=f"make {user.path} private",
        )


def risk(change: Change[OathUser]) -> Risk | None:
    """Who loses or changes a token cannot log in with the old one."""
    user = change.spec
    if change.after is None:
        return Risk(
            "lock-out", f"{user.user} loses this second factor; what was used up can be used again if it returns"
        )
    if change.before is not None and "secret" in change.changed:
        return Risk("lock-out", f"the authenticator of {user.user} needs the new secret")
    return None


TYPE = ResourceType(
    "host.oathUser",
    OathUser,
    probe,
    steps,
    hidden=lambda user: ("secret",),
    provides=lambda user: (f"edit:{user.path}",),
    needs=lambda user: (f"path:{user.path}", *folders_above(user.path), f"user:{user.user}"),
    risk=risk,
)
