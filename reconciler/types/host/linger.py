"""host.linger: an account's own systemd runs without a login, from boot on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from reconciler.fields import Account
from reconciler.model import (
    IDENTITY,
    UNOBSERVABLE,
    Change,
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


class Linger(Spec):
    """That services of an account run although nobody is logged in."""

    user: Annotated[Account, IDENTITY]
    awake: Literal[True] | None = Field(True, description="Its systemd runs now.")


READ = r"""
for user; do
    kept=no awake=no
    [ ! -f "$ROOT/var/lib/systemd/linger/$user" ] || kept=yes
    uid=$(getent passwd "$user" | cut -d: -f3)
    [ -z "$OFFLINE" ] || awake=unseen
    [ -n "$OFFLINE" ] || [ -z "$uid" ] || ! systemctl is-active -q "user@$uid.service" || awake=yes
    printf '%s|%s|%s\n' "$user" "$kept" "$awake"
done
"""


def probe(lingers: Sequence[Linger]) -> Probe:
    """What logind keeps on disk, and whether the account's systemd runs."""
    (reply,) = yield [Script(READ, [linger.user for linger in lingers])]
    found: dict[str, State | None] = {}
    for line in expect(reply, "the probe of lingering").splitlines():
        user, kept, awake = line.split("|")
        state = {"awake": UNOBSERVABLE if awake == "unseen" else awake == "yes"}
        found[user] = state if kept == "yes" else None
    return [found[linger.user] for linger in lingers]


ENABLE = r"""
entry=$(getent passwd "$1") || { echo "There is no user $1 on this host."; exit 1; }
if [ -n "$OFFLINE" ]; then
    inside /var/lib/systemd/linger/.
    mkdir -p -- "$ROOT/var/lib/systemd/linger"
    : >"$ROOT/var/lib/systemd/linger/$1"
    exit 0
fi
loginctl enable-linger "$1"
systemctl start "user@$(printf %s "$entry" | cut -d: -f3).service"
"""
DISABLE = r"""
if [ -n "$OFFLINE" ]; then inside /var/lib/systemd/linger/.; rm -f -- "$ROOT/var/lib/systemd/linger/$1"; exit 0; fi
if getent passwd "$1" >/dev/null; then loginctl disable-linger "$1"; else rm -f -- "/var/lib/systemd/linger/$1"; fi
"""


def steps(change: Change[Linger]) -> Iterable[Step]:
    """Tell logind, and wait for the account's systemd."""
    user = change.spec.user
    if change.after is None:
        yield Sh(DISABLE, (user,), title=f"let services of {user} run only while it is logged in")
    else:
        yield Sh(ENABLE, (user,), title=f"let services of {user} run without a login")


def risk(change: Change[Linger]) -> Risk | None:
    """Everything of the account stops."""
    if change.after is None:
        return Risk("downtime", f"every service of {change.spec.user} stops when it is not logged in")
    return None


TYPE = ResourceType(
    "host.linger",
    Linger,
    probe,
    steps,
    provides=lambda linger: (f"linger:{linger.user}",),
    needs=lambda linger: (f"user:{linger.user}", "package:dbus-user-session", "package:libpam-systemd"),
    risk=risk,
)
