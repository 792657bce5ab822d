"""host.authorizedKey: one public key that may log in as a user."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from reconciler.errors import ProbeFailed
from reconciler.fields import Account, Line, Rule
from reconciler.model import IDENTITY, Change, Keep, Probe, ResourceType, Risk, Script, Sh, Spec, State, Step
from reconciler.probe import expect
from reconciler.types.host import Meta, parse_meta, printable

TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_TYPE = "|".join(re.escape(name).replace("\\-", "-") for name in TYPES)


def _whole(key: str) -> str:
    name, blob = key.split(" ")[:2]
    try:
        raw = base64.b64decode(blob, validate=True)
    except binascii.Error:
        raise ValueError("is cut off or mistyped: its second word is no base64.") from None
    size = int.from_bytes(raw[:4], "big")
    if raw[4 : 4 + size] != name.encode() or len(raw) <= 4 + size:
        raise ValueError(f"is cut off or mistyped: its second word is no {name} key.")
    return key


KeyMaterial = Annotated[
    str,
    Rule(rf"(?:{_TYPE}) [A-Za-z0-9+/]+={{0,3}}", "type and key as in id_ed25519.pub: ssh-ed25519 AAAA...", 16384),
    AfterValidator(_whole),
]
_LINE = re.compile(rf"(?:(.*?)[ \t]+)?((?:{_TYPE})[ \t]+[A-Za-z0-9+/]+={{0,3}})(?:[ \t]+(.*))?")


def split(line: str) -> tuple[str, str, str]:
    """A line of authorized_keys, or of a .pub file: options, type and key, comment. Options and comment may be empty.

    Raises:
        ValueError: there is no key in it.
    """
    found = _LINE.fullmatch(line.strip())
    if found is None:
        raise ValueError("is not allowed here. Write one line as in id_ed25519.pub: ssh-ed25519 AAAA... alice@laptop.")
    return found[1] or "", " ".join(found[2].split()), (found[3] or "").strip()


class AuthorizedKey(Spec):
    """A public key in the authorized_keys of a user, with what sshd wants of its permissions."""

    user: Annotated[Account, IDENTITY]
    key: Annotated[KeyMaterial, IDENTITY] = Field(
        description="Type and base64 text. A whole line of authorized_keys is taken apart into key, options, comment."
    )
    comment: Line | None = Field(None, description="What follows the key; mostly whose it is.")
    options: Line | None = Field(
        None, description='What precedes it, such as `restrict,command="..."`; none by default.'
    )
    permissions: Literal["private"] = Field(
        "private", description="Folder and file belong to the user, and nobody else can write there."
    )

    @model_validator(mode="before")
    @classmethod
    def _take_apart(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or not isinstance(fields.get("key"), str):
            return fields
        options, key, comment = split(fields["key"])
        return {"options": options} | ({"comment": comment} if comment else {}) | fields | {"key": key}


READ = """
found=$(getent passwd "$@")
status=$?
[ $status -eq 0 ] || [ $status -eq 2 ] || exit $status
printf '%s\\n' "$found"
printf '\\0'
set --
while IFS=: read -r name _ _ _ _ home _; do
    [ -n "$home" ] || continue
    for p in "$ROOT$home" "$ROOT$home/.ssh"; do
        [ ! -d "$p" ] || [ -x "$p" ] || { echo "$name"; exit 99; }
    done
    set -- "$@" "$home/.ssh" "$home/.ssh/authorized_keys"
done <<.
$found
.
meta "$@"
printf '\\0'
[ $# -gt 0 ] || exit 0
[ -z "$ROOT" ] || for p; do set -- "$@" "$ROOT$p"; shift; done
R=$ROOT find "$@" -maxdepth 0 -type f -exec awk '
    FNR == 1 { print "@" substr(FILENAME, length(ENVIRON["R"]) + 1) }
    !/^[ \\t]*#/ { print "=" $0 }' {} +
exit 0
"""


def probe(keys: Sequence[AuthorizedKey]) -> Probe:
    """Accounts, permissions and key files of all users, in three programs."""
    (reply,) = yield [Script(READ, sorted({key.user for key in keys}))]
    if reply.status == 99:
        raise ProbeFailed("Keys of other users can be read by root only. Log in as root, or set `become` in the Host.")
    accounts, metas, files = expect(reply, "getent passwd").split("\0")
    home = {f[0]: f[5] for row in accounts.split("\n") if len(f := row.split(":")) == 7}
    meta = parse_meta(metas)
    rows: dict[str, list[str]] = {}
    path = ""
    for row in files.split("\n"):
        if row.startswith("@"):
            path = row[1:]
        elif row:
            rows.setdefault(path, []).append(row[1:])
    return [_state(key, home.get(key.user), meta, rows) for key in keys]


def _state(
    key: AuthorizedKey, home: str | None, meta: Mapping[str, Meta], rows: Mapping[str, Sequence[str]]
) -> State | None:
    folder = f"{home}/.ssh"
    for row in rows.get(f"{folder}/authorized_keys", ()) if home else ():
        found = re.search(rf"(?:^|[ \t])({re.escape(key.key)})(?:[ \t]|$)", row)
        if found:
            wrong = [
                problem
                for path, kind in ((folder, "directory"), (f"{folder}/authorized_keys", "regular file"))
                if (problem := _wrong(meta[path], kind, key.user))
            ]
            return {
                "comment": printable(row[found.end(1) :].strip(" \t")),
                "options": printable(row[: found.start(1)].strip(" \t")),
                "permissions": "; ".join(wrong) or "private",
            }
    return None


def _wrong(seen: Meta, kind: str, user: str) -> str:
    if seen.kind == kind and seen.owner == user and not int(seen.mode, 8) & 0o022:
        return ""
    return f"{seen.path} is a {seen.kind} {seen.mode} {seen.owner}:{seen.group}"


# As root for nothing but ownership: in a folder of the user's, root would follow whatever link the user puts there.
OPEN = """account=$(getent passwd "$1") || { echo "there is no user $1"; exit 1; }
IFS=: read -r _ _ uid gid _ home _ <<.
$account
.
group=$(getent group "$gid" | cut -d : -f 1)
[ -d "$ROOT$home" ] || { echo "$1 has no home folder $home"; exit 1; }
d=$home/.ssh
k=$d/authorized_keys
inside "$k"
for p in "$d" "$k"; do
    if [ -L "$ROOT$p" ]; then echo "$p is a symbolic link; it stays"; exit 1; fi
done
as() {
    if [ -n "$ROOT" ] || [ "$uid" = 0 ] || [ "$(id -u)" != 0 ]; then "$@"; return; fi
    setpriv --reuid "$uid" --regid "$gid" --clear-groups -- "$@"
}
"""
ADD = """if [ ! -e "$ROOT$d" ]; then mkdir -m 700 -- "$ROOT$d"; own "$d" "$1" "${group:-$gid}"; fi
for p in "$d" "$k"; do
    case $(meta "$p") in
        '' | *"|$1|"*"|"*"|"*"|"*"|"*"|"*) ;;
        regular*) [ "$(stat -c %h -- "$ROOT$p")" = 1 ] || { echo "$p has a second name; it stays"; exit 1; }
            own "$p" "$1" "${group:-$gid}" ;;
        *) own "$p" "$1" "${group:-$gid}" ;;
    esac
done
"""
EDIT = """as sh -c '
set -e
umask 077
cd -P -- "$1"
chmod go-w .
old=./authorized_keys
[ -e "$old" ] || old=/dev/null
t=$(mktemp ./.reconciler.XXXXXX)
K=$2 C=$3 O=$4 GONE=$5 awk "$6" "$old" >"$t" && sync "$t" && mv -fT "$t" authorized_keys && sync . ||
    { rm -f "$t"; exit 1; }
' sh "$ROOT$d" "$2" "$3" "$4" "$5" '
# Where the key stands in a line as words of its own; 0 = it does not.
function place(line,   from, i, before, after) {
    if (line ~ /^[ \\t]*#/) return 0
    from = 0
    while ((i = index(substr(line, from + 1), key)) > 0) {
        i += from
        before = i == 1 ? " " : substr(line, i - 1, 1)
        after = substr(line, i + length(key), 1)
        if ((before == " " || before == "\\t") && (after == "" || after == " " || after == "\\t")) return i
        from = i
    }
    return 0
}
function trim(text) { sub(/^[ \\t]+/, "", text); sub(/[ \\t]+$/, "", text); return text }
function spell(options, comment) {
    if (ENVIRON["O"] != "") options = substr(ENVIRON["O"], 2)
    if (ENVIRON["C"] != "") comment = substr(ENVIRON["C"], 2)
    print (options == "" ? "" : options " ") key (comment == "" ? "" : " " comment)
}
BEGIN { key = ENVIRON["K"]; gone = ENVIRON["GONE"] != "" }
{ at = place($0) }
!at { print; next }
!met && !gone { spell(trim(substr($0, 1, at - 1)), trim(substr($0, at + length(key)))) }
{ met = 1 }
END { if (!met && !gone) spell("", "") }
'
[ -z "$ROOT" ] || own "$k" "$1" "${group:-$gid}"
"""


def steps(change: Change[AuthorizedKey]) -> Iterable[Step]:
    """One edit on the host, as the user whose file it is. What is not declared of a line stays as it is."""
    key = change.spec
    shown = f"{key.key[:24]}...{key.key[-8:]}"
    if change.after is None:
        yield Sh(
            f'{OPEN}[ -f "$ROOT$k" ] || exit 0\n{EDIT}',
            (key.user, key.key, "", "", "gone"),
            title=f"remove {shown} from the keys of {key.user}",
        )
        return
    # "=" tells an empty text from one that is not declared.
    declared = tuple("" if text is None else f"={text}" for text in (key.comment, key.options))
    yield Sh(
        f"{OPEN}{ADD}{EDIT}",
        (key.user, key.key, *declared, ""),
        title=f"{'add' if change.before is None else 'set'} {shown} {'to' if change.before is None else 'in'} "
        f"the keys of {key.user}",
    )


def risk(change: Change[AuthorizedKey]) -> Risk | None:
    """Taking a key away may take away the last one."""
    if change.after is None:
        return Risk("lock-out", f"whoever has only this key cannot log in as {change.spec.user} any more")
    return None


TYPE = ResourceType(
    "host.authorizedKey",
    AuthorizedKey,
    probe,
    steps,
    needs=lambda key: (f"user:{key.user}",),
    risk=risk,
    keeps=lambda change: Keep((f"~{change.spec.user}/.ssh/authorized_keys",), accounts=(change.spec.user,)),
)
