"""What the types of Podman's objects have in common: whose they are, and how to call Podman on their behalf.

Each object belongs to an account. Root's are those of the system; anybody else's are rootless and live under that
account's own systemd, which runs while the account lingers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from reconciler.fields import Account, Rule
from reconciler.model import IDENTITY, Spec

ROOT: Final = "root"
PACKAGE: Final = "package:podman"

PodmanName = Annotated[
    str, Rule(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "a name for Podman: letters, digits and any of _ . -", 253)
]

WORDS: Final = r"""
# who NAME: sets user, uid, gid and home. Fails where there is no such account.
who() {
    user=$1 uid= gid= home=
    [ "$1" != root ] || { uid=0 gid=0 home=/root; return 0; }
    _entry=$(getent passwd "$1") || return 1
    IFS=: read -r _ _ uid gid _ home _ <<.
$_entry
.
    [ -n "$uid" ]
}
# as PROGRAM ARGUMENT...: as that account, with nothing of ours in the environment.
as() {
    if [ "$uid" = 0 ]; then ( cd / && exec "$@" ); return; fi
    ( cd / && exec setpriv --reuid "$uid" --regid "$gid" --init-groups env -i PATH="$PATH" LC_ALL=C HOME="$home" \
        USER="$user" LOGNAME="$user" XDG_RUNTIME_DIR="/run/user/$uid" \
        DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$uid/bus" "$@" )
}
# ctl ARGUMENT...: systemctl of that account's systemd.
ctl() { if [ "$uid" = 0 ]; then systemctl "$@"; else as systemctl --user "$@"; fi; }
# awake: that account's systemd runs.
awake() { [ "$uid" = 0 ] || systemctl is-active -q "user@$uid.service"; }
# stored: Podman has been used by that account. To ask Podman would make its folders.
stored() {
    command -v podman >/dev/null || return 1
    if [ "$uid" = 0 ]; then [ -d /var/lib/containers/storage ] || [ -f /etc/containers/storage.conf ]
    else [ -d "$home/.local/share/containers" ] || [ -f "$home/.config/containers/storage.conf" ]; fi
}
# able: that account can use Podman; says why not.
able() {
    command -v podman >/dev/null || { echo "There is no podman on this host. Install its package."; return 1; }
    [ "$uid" = 0 ] || [ -d "/run/user/$uid" ] ||
        { echo "$user does not linger, so that nothing of it runs. Let the document say linger: true."; return 1; }
}
"""
"""Shell words for scripts; call `who` before the others."""


class Owned(Spec):
    """Something of Podman that belongs to an account."""

    user: Annotated[Account, IDENTITY] = Field(ROOT, description="Whose it is; root's belong to the system.")


def by_user(specs: Iterable[Any], name: str) -> Mapping[str, list[str]]:
    """Account -> the values that a field of its objects has, without repetition."""
    found: dict[str, dict[str, None]] = {}
    for spec in specs:
        found.setdefault(spec.user, {})[getattr(spec, name)] = None
    return {user: list(values) for user, values in found.items()}


def account(user: str) -> Sequence[str]:
    """Tokens of what an account needs before Podman works for it."""
    return (PACKAGE,) if user == ROOT else (PACKAGE, f"user:{user}", f"linger:{user}", f"subids:{user}")
