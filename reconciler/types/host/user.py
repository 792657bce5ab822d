"""host.user: an account with its number, groups, home, shell, expiry and password."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from reconciler.errors import ProbeFailed
from reconciler.fields import Account, Rule
from reconciler.model import (
    CONTROL,
    IDENTITY,
    Change,
    Keep,
    Probe,
    ResourceType,
    Risk,
    Run,
    Script,
    Secret,
    Sh,
    Sha256,
    Spec,
    Step,
)
from reconciler.probe import expect
from reconciler.types.host import folders_above
from reconciler.types.host.group import FILES, LAST_ID

EPOCH = date(1970, 1, 1)


def _real_date(text: str) -> str:
    if text != "never":
        try:
            date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"is not allowed here: there is no day {text}.") from None
    return text


PasswdPath = Annotated[
    str,
    Rule(
        r"(?!(?:.*/)?\.\.?(?:/|$))/(?:[^/:\u0000-\u001f\u007f]+(?:/[^/:\u0000-\u001f\u007f]+)*)?",
        'an absolute path without ":", "..", double or trailing slashes and control characters, such as /home/alice',
        4095,
    ),
]
Comment = Annotated[
    str, Rule(r"[^:\u0000-\u001f\u007f\u2028\u2029]*", 'one line without ":" and control characters', 1000)
]
ExpiryDate = Annotated[
    str,
    Rule(
        r"never|(?:19[7-9][0-9]|2[0-9]{3})-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])",
        'a quoted day such as "2027-03-31", or never',
    ),
    AfterValidator(_real_date),
]
Groups = Annotated[tuple[Account, ...], AfterValidator(lambda names: tuple(sorted(set(names))))]
"""A set: order and repetition mean nothing."""


class User(Spec):
    """An account."""

    name: Annotated[Account, IDENTITY]
    uid: int | None = Field(None, ge=0, le=LAST_ID, description="Its number.")
    group: Account | None = Field(None, description="Primary group; a group of the account's own by default.")
    groups: Groups | None = Field(None, description="Further groups, as a set.")
    home: PasswdPath | None = Field(None, description="Home folder.")
    create_home: Literal[True] | None = Field(None, description="The home folder is there; made from /etc/skel.")
    shell: PasswdPath | None = Field(None, description="Login shell.")
    comment: Comment | None = Field(None, description="The GECOS field: mostly the full name.")
    expires: ExpiryDate | None = Field(None, description="The day from which on nobody can log in, or `never`.")
    password: Secret | None = Field(None, description="The crypt(3) hash of the password, never the password.")
    locked: bool | None = Field(None, description="The password is locked. Keys still work; `expires` stops them.")
    system: Annotated[bool, CONTROL] = Field(False, description="Take a number for system accounts when it is made.")
    exclusive_groups: Annotated[bool, CONTROL] = Field(False, description="Leave all groups that are not listed.")
    remove_home: Annotated[bool, CONTROL] = Field(False, description="Remove the home folder with the account.")


READ_ACCOUNTS = """
found=$(getent passwd "$@")
status=$?
[ $status -eq 0 ] || [ $status -eq 2 ] || exit $status
printf '%s\\n' "$found" | while IFS= read -r line; do
    rest=${line%:*}
    [ -d "$ROOT${rest##*:}" ] && h=1 || h=0
    printf '%s:%s\\n' "$h" "$line"
done
"""

# Hashes stay on the host: only digests of those that are asked for leave it, and only as standard input of sha256sum.
READ_SHADOW = """
asked=" $1 "
shift
[ -r "$ROOT/etc/shadow" ] || echo unreadable
getent shadow "$@" | while IFS=: read -r name hash last min max warn inactive expires rest; do
    bare=${hash#!}
    [ "$bare" = "$hash" ] && locked=0 || locked=1
    while [ "$bare" != "${bare#!}" ]; do bare=${bare#!}; done
    digest=
    case $asked in *" $name "*) digest=$(printf %s "$bare" | sha256sum) ;; esac
    printf '%s:%s:%s:%s\\n' "$name" "$locked" "$expires" "${digest%% *}"
done
"""


def probe(users: Sequence[User]) -> Probe:
    """One look at each of passwd, shadow and group for all accounts."""
    names = [u.name for u in users]
    asked = " ".join(u.name for u in users if u.password is not None)
    passwd, shadow, groups = yield [
        Script(READ_ACCOUNTS, names),
        Script(READ_SHADOW, [asked, *names]),
        Script("getent group"),
    ]
    lines = expect(passwd, "getent passwd").splitlines()
    accounts = {f[1]: f for line in lines if len(f := line.split(":")) == 8}
    secrets = {f[0]: f for line in expect(shadow, "getent shadow").splitlines() if len(f := line.split(":")) == 4}
    group_of: dict[str, str] = {}
    member_of: dict[str, list[str]] = {}
    if groups.status != 2:  # which says that there is none, as in an empty image
        expect(groups, "getent group")
    for line in groups.text.splitlines():
        name, _, gid, members = line.split(":", 3)
        group_of.setdefault(gid, name)
        for member in filter(None, members.split(",")):
            member_of.setdefault(member, []).append(name)
    blind = "unreadable" in shadow.text.splitlines()
    if blind and any(u.name in accounts and (u.expires, u.password, u.locked) != (None, None, None) for u in users):
        raise ProbeFailed("/etc/shadow can be read by root only. Log in as root, or set `become` in the Host.")
    return [_state(u, accounts.get(u.name), secrets.get(u.name), group_of, member_of) for u in users]


def _state(
    user: User,
    account: Sequence[str] | None,
    secret: Sequence[str] | None,
    group_of: Mapping[str, str],
    member_of: Mapping[str, Sequence[str]],
) -> dict[str, Any] | None:
    if account is None:
        return None
    has_home, _, _, uid, gid, comment, home, shell = account
    _, locked, expires, digest = secret or ("", "0", "", "")
    groups = set(member_of.get(user.name, ()))
    if not user.exclusive_groups:
        groups &= set(user.groups or ())
    state = {
        "uid": int(uid),
        "group": group_of.get(gid, gid),
        "groups": sorted(groups),
        "home": home,
        "createHome": has_home == "1",
        "shell": shell or "/bin/sh",
        "comment": comment,
        "expires": _day(expires),
        "locked": locked == "1",
    }
    return state | ({"password": Sha256(digest) if digest else Sha256.of("")} if user.password is not None else {})


def _day(days: str) -> str:
    """The ISO date of a day that is counted from the epoch."""
    return (EPOCH + timedelta(days=int(days))).isoformat() if days.isdigit() and int(days) < 2_900_000 else "never"


CREATE = """
name=$1
shift
if getent group "$name" >/dev/null; then set -- -g "$name" "$@"; else set -- -U "$@"; fi
useradd -M "$@" -- "$name"
"""
# A package that was purged a moment ago may have taken its account with it.
DELETE = """
for name; do :; done
entry=$(getent passwd "$name") || case $? in 2) exit 0 ;; *) echo "$entry"; exit 1 ;; esac
if [ "$(printf %s "$entry" | cut -d: -f3)" = 0 ]; then
    echo "$name has the uid 0; such an account is never removed"
    exit 1
fi
userdel "$@"
"""
HOME = """
entry=$(getent passwd "$1")
rest=${entry%:*}
home=${rest##*:}
[ ! -d "$ROOT$home" ] || exit 0
inside "$home"
mkdir -p -- "$ROOT${home%/*}"
new=$(mktemp -d -- "$ROOT${home%/*}/.reconciler.XXXXXX")
if [ -d "$ROOT/etc/skel" ]; then cp -R -- "$ROOT/etc/skel/." "$new"; fi
gid=$(printf %s "$entry" | cut -d: -f4)
chown -hR -- "$1:$gid" "$new"
chmod 700 -- "$new"
mv -T -- "$new" "$ROOT$home"
if [ -n "$ROOT" ]; then
    group=$(getent group "$gid" | cut -d: -f1)
    find "$ROOT$home" | while IFS= read -r path; do own "${path#"$ROOT"}" "$1" "${group:-$gid}"; done
fi
"""
# The hash goes through a pipe between built-in words, so that it stands in no process list.
SET_HASH = """
hash=$(cat)
case $hash in
    *[!./0-9A-Za-z\\$=,_-]*) echo "the secret is not a crypt(3) hash"; exit 1 ;;
    \\$[0-9a-z]*\\$?*\\$?*) ;;
    *) echo "the secret is not a crypt(3) hash"; exit 1 ;;
esac
old=$(getent shadow "$1" | cut -d: -f2)
lock=
case $2,$old in
    yes,*) lock=! ;;
    ,!! | ,!\\*) ;;
    ,!?*) lock=! ;;
esac
printf '%s:%s%s\\n' "$1" "$lock" "$hash" | chpasswd -e
"""
# `usermod -U` refuses to open a password that was never set. `*` stands for "no password, not locked".
UNLOCK = """
case $(getent shadow "$1" | cut -d: -f2) in
    ! | !!) printf '%s:*\\n' "$1" | chpasswd -e ;;
    *) usermod -U -- "$1" ;;
esac
"""


def steps(change: Change[User]) -> Iterable[Step]:
    """One useradd or usermod for everything that it can set at once; then home, password and lock where needed."""
    user = change.spec
    name = user.name
    flags: tuple[str, ...]
    if change.after is None:
        flags = ("-r",) if user.remove_home else ()
        yield Sh(DELETE, (*flags, "--", name), title=f"userdel {' '.join((*flags, name))}")
        return
    if change.before is None:
        flags = (*(("-r",) if user.system else ()), *_flags(user, _FLAGS))
        if user.group is not None:
            yield Run(("useradd", "-M", *flags, "--", name))
        else:
            yield Sh(CREATE, (name, *flags), title=f"useradd {' '.join((*flags, name))}")
    else:
        flags = _flags(user, [a for a in _FLAGS if a in change.changed], change.before)
        if "locked" in change.changed and user.locked and "password" not in change.changed:
            flags = (*flags, "-L")
        if flags:
            yield Run(("usermod", *flags, "--", name))
    # Not by `useradd -m`: that would not mend a home folder whose making was interrupted.
    if user.create_home and (change.before is None or change.changed & {"home", "createHome"}):
        yield Sh(HOME, (name,), title=f"make the home folder of {name}")
    if user.password is not None and (change.before is None or "password" in change.changed):
        lock = {True: "yes", False: "no", None: ""}[user.locked]
        yield Sh(SET_HASH, (name, lock), user.password, title=f"set the password of {name} (must be a crypt(3) hash)")
    elif user.locked is False and (change.before is None or "locked" in change.changed):
        yield Sh(UNLOCK, (name,), title=f"unlock the password of {name}")


_FLAGS = {"uid": "-u", "group": "-g", "groups": "-G", "home": "-d", "shell": "-s", "comment": "-c", "expires": "-e"}


def _flags(user: User, attributes: Iterable[str], before: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Options that useradd and usermod share. Groups are added to those of `before` unless they are exclusive."""
    out: list[str] = []
    for attribute in attributes:
        value = getattr(user, attribute)
        if value is None or (attribute == "groups" and before is None and not value):
            continue
        if attribute == "groups":
            if before is not None and not user.exclusive_groups:
                out.append("-a")
            value = ",".join(value)
        elif attribute == "expires":
            value = "" if value == "never" else value
        out += [_FLAGS[attribute], str(value)]
    return tuple(out)


def risk(change: Change[User]) -> Risk | None:
    """What may lock people out, or lose what they have."""
    user = change.spec
    if change.after is None:
        if user.remove_home:
            return Risk("data-loss", f"the home folder of {user.name} is removed with all that is in it")
        return None
    if change.before is None:
        return None
    if user.name == "root" and change.changed & {"uid", "home", "shell", "expires", "password", "locked"}:
        return Risk("lock-out", "a mistake in root's account can keep everybody from becoming root")
    if "uid" in change.changed:
        old = change.before["uid"]
        return Risk("lock-out", f"files of {user.name} outside the home folder keep the number {old}")
    return None


def needs(user: User) -> Iterable[str]:
    """Groups, the folder that the home lies in, and the package that is named like the shell."""
    yield f"group:{user.group or user.name}"
    yield from (f"group:{name}" for name in user.groups or ())
    if user.home is not None:
        yield from folders_above(user.home)
    if user.shell is not None:
        yield f"package:{PurePosixPath(user.shell).name}"


def provides(user: User) -> Iterable[str]:
    """The account, and the group of its own if there is one."""
    yield f"user:{user.name}"
    if user.group is None:
        yield f"group:{user.name}"


TYPE = ResourceType(
    "host.user",
    User,
    probe,
    steps,
    provides=provides,
    needs=needs,
    risk=risk,
    keeps=lambda change: Keep(FILES, accounts=(change.spec.name,)),
)
