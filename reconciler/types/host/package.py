"""host.package: a Debian package, its version and whether it is held."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.fields import PackageName, Rule
from reconciler.model import CONTROL, IDENTITY, Change, Probe, ResourceType, Risk, Script, Sh, Spec, State, Step
from reconciler.probe import expect

Version = Annotated[
    str, Rule(r"[0-9A-Za-z][0-9A-Za-z.+~:-]*", 'a full version as apt prints it, such as "1.26.3-3+deb13u1"', 128)
]


class Package(Spec):
    """A Debian package, installed with apt.

    An installed package is present; one that is removed but left its configuration files counts as absent, unless
    `purge` says that they must go, too.
    """

    name: Annotated[PackageName, IDENTITY]
    status: Literal["installed"] = "installed"
    version: Version | None = Field(None, description="Exactly this version, also if that means a downgrade.")
    hold: bool | None = Field(None, description="Whether upgrades leave it alone (`apt-mark hold`).")
    recommends: Annotated[bool, CONTROL] = Field(False, description="Install the packages that it recommends, too.")
    purge: Annotated[bool, CONTROL] = Field(False, description="Remove its configuration files with it.")
    provided: Annotated[bool, CONTROL] = Field(
        False, description="An installed package that provides this name will do as well, as `mawk` does for `awk`."
    )
    together: Annotated[tuple[PackageName, ...], CONTROL] = Field(
        (), description="Packages that may be removed with it; any other one that needs it stops the removal."
    )


# One look at the whole database (8 ms for 150 packages) costs no more than one at a few packages, and it tells what
# provides a name that is no package itself.
_DATABASE: Final = """\
command -v dpkg-query >/dev/null || { echo "there is no dpkg-query: not a Debian system"; exit 1; }
{ dpkg-query -W -f '${Package}\\t${Version}\\t${db:Status-Want}\\t${db:Status-Status}\\t${Provides}\\n' && echo .; } |
    awk -F '\\t' '
        BEGIN { for (i = 1; i < ARGC; i++) wanted[ARGV[i]]; ARGC = 1 }
        $1 == "." { print; next }
        $1 in wanted { print; next }
        { n = split($5, provided, /, */)
          for (i = 1; i <= n; i++) {
              name = provided[i]; sub(/[ :(].*/, "", name)
              if (name in wanted) { print; next } } }' "$@"
"""


def probe(packages: Sequence[Package]) -> Probe:
    """One `dpkg-query` for all."""
    (reply,) = yield [Script(_DATABASE, sorted({p.name for p in packages}))]
    lines = expect(reply, "dpkg-query").splitlines()
    if not lines or lines.pop() != ".":
        expect(type(reply)(reply.text, 1), "dpkg-query")
    own: dict[str, dict[str, Any]] = {}
    provided: dict[str, dict[str, Any]] = {}
    for line in lines:
        name, version, want, status, provides = line.split("\t")
        # A package may be there for several architectures; the one that is installed speaks for it.
        if name not in own or status == "installed":
            own[name] = {"status": _STATUS.get(status, status), "version": version, "hold": want == "hold"}
        if status == "installed":
            for virtual, of in _PROVIDES.findall(provides):
                state = {"status": "installed", "version": of or None, "hold": False, "providedBy": name}
                provided.setdefault(virtual, state)
    return [_state(p, own.get(p.name), provided.get(p.name)) for p in packages]


_STATUS: Final = {"triggers-awaited": "installed", "triggers-pending": "installed"}
"""Its files and its configuration are in place; another package still has something to do."""
_PROVIDES: Final = re.compile(r"(?:^|,) *([^ ,:(]+)[^ ,(]*(?: *\( *= *([^ )]+) *\))?")


def _state(package: Package, own: State | None, provided: State | None) -> State | None:
    if own is not None and own["status"] not in ("not-installed", "config-files"):
        return own
    if package.provided and provided is not None:
        return provided
    if own is not None and own["status"] == "config-files" and package.purge:
        return {**own, "hold": False}
    return None


# ---------------------------------------------------------------------------------------------- steps

_APT: Final = r"""
export NEEDRESTART_SUSPEND=1 NEEDRESTART_MODE=l APT_LISTCHANGES_FRONTEND=none UCF_FORCE_CONFFOLD=1
apt() {
    apt-get -qq -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef \
        -o Dpkg::Options::=--force-confold "$@"
}
# What is installed: "STATUS WANT VERSION", for example "installed hold 1.0".
there() {
    dpkg-query -W -f '${db:Status-Status} ${db:Status-Want} ${Version}\n' -- "$1" 2>/dev/null |
        awk '$1 == "installed" || $1 ~ /^trig/ { $1 = "installed"; print; found = 1; exit }
             { last = $0 } END { if (!found) print last }'
}
known() { [ -n "$(apt-cache show --no-all-versions -- "$1" 2>/dev/null)" ]; }
# Update the package lists, unless that was done within the hour and no source has changed since.
refresh() {
    lists=$ROOT/var/lib/apt/lists stamp=$ROOT/var/lib/apt/periodic/update-success-stamp
    [ "$1" = now ] || [ -z "$(find "$lists" "$lists/partial" "$stamp" -maxdepth 0 -mmin -60 2>/dev/null)" ] ||
        { [ -e "$stamp" ] || stamp=$lists; [ -n "$(find "$ROOT/etc/apt" -cnewer "$stamp" 2>/dev/null)" ]; } || return 1
    tries=0
    until said=$(apt update 2>&1); do
        # apt waits for dpkg's lock, but not for the one of its lists.
        case $said in
            *"Could not get lock"*) tries=$((tries + 1)); [ "$tries" -gt 24 ] || { sleep 5; continue; } ;;
        esac
        printf 'the package lists could not be updated:\n%s\n' "$said"
        return 0
    done
    stamp=$ROOT/var/lib/apt/periodic/update-success-stamp
    mkdir -p -- "${stamp%/*}" && touch -- "$stamp"
}
# Finish what an interrupted dpkg left behind; dpkg itself does not wait for its lock.
repair() {
    tries=0
    while ls -- "$ROOT/var/lib/dpkg/updates" 2>/dev/null | grep -q '^[0-9][0-9]*$'; do
        echo "dpkg was interrupted; finishing its work first"
        said=$(dpkg --configure -a --force-confdef --force-confold 2>&1) && break
        case $said in
            *"was locked by "*) tries=$((tries + 1)); [ "$tries" -gt 24 ] || { sleep 5; continue; } ;;
        esac
        printf '%s\n' "$said"
        return 1
    done
}
# Packages must not start anything in an image.
quiet() {
    [ -n "$OFFLINE" ] && [ -z "$ROOT" ] || return 0
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\n# reconciler: nothing runs in an image\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    if grep -q '^# reconciler: ' "$policy"; then at_exit="$at_exit rm -f $policy;"; fi
}
at_exit=
trap 'eval "$at_exit"' EXIT
"""

_LOOK_UP: Final = (
    _APT
    + r"""
name=$1 version=$2 exact=$1${2:+=$2}
set -- $(there "$name")
if [ "$1" = installed ] && { [ -z "$version" ] || [ "$3" = "$version" ]; }; then exit 0; fi
known "$exact" || { refresh && known "$exact"; } && exit 0
if known "$name"; then
    echo "apt knows no version $version of $name. It knows:" \
        $(apt-cache madison -- "$name" | awk -F '|' '{ gsub(/ /, "", $2); print $2 }' | sort -u)
else
    by=$(apt-cache showpkg -- "$name" 2>/dev/null |
        awk 'seen && !($1 in out) { out[$1]; print $1 } /^Reverse Provides:/ { seen = 1 }')
    if [ -n "$by" ]; then echo "$name is no package itself. Name one of those that provide it:" $by
    else echo "apt knows no package $name. Check its name and the package sources of this host."; fi
fi
exit 1
"""
)

_INSTALL: Final = (
    _APT
    + r"""
name=$1 version=$2 hold=$3 exact=$1${2:+=$2} recommends=$4
set -- $(there "$name")
if [ "$1" = installed ] && { [ -z "$version" ] || [ "$3" = "$version" ]; }; then
    # Something before this installed it, maybe for its own needs only.
    apt-mark manual -- "$name" >/dev/null
else
    if [ "$2" = hold ]; then
        [ -n "$hold" ] || {
            echo "$name is held at $3. Write \`hold: true\` to change it and hold it again, or \`hold: false\`."
            exit 1
        }
        apt-mark unhold -- "$name"
        [ "$hold" = no ] || at_exit='apt-mark hold -- "$name" >/dev/null;'
    fi
    quiet
    repair
    attempt() {
        said=$(apt --no-remove --allow-downgrades -o APT::Install-Recommends="$recommends" install -- "$exact" 2>&1)
    }
    attempt || case $said in
        *"404 "*|*"Failed to fetch"*|*"Hash Sum mismatch"*) refresh now; attempt ;;
        *) false ;;
    esac || {
        printf '%s\n' "$said"
        case $said in *"remove is disabled"*)
            echo "$name would replace other packages. Declare them absent, in a document that this one requires." ;;
        esac
        exit 1
    }
    printf '%s\n' "$said"
fi
"""
)

_HOLD: Final = 'apt-mark "$2" -- "$1"'

_REMOVE: Final = (
    _APT
    + r"""
name=$1 verb=$2 provided=$3
shift 3
set -- "$name" "$@"
case $(there "$name") in
    ""|not-installed*)
        # Gone with another one of the same list; or it was never there under this name.
        [ -n "$provided" ] || exit 0
        echo "$name is not installed itself; $provided provides it. Remove that one."
        exit 1 ;;
    config-files*) apt-get -qq -y purge -- "$name"; exit ;;
esac
quiet
repair
if doomed=$(apt -s --allow-change-held-packages "$verb" -- "$name" 2>/dev/null); then
    doomed=$(printf '%s\n' "$doomed" | awk '
        BEGIN { for (i = 1; i < ARGC; i++) wanted[ARGV[i]]; ARGC = 1 }
        ($1 == "Remv" || $1 == "Purg") { sub(/:.*/, "", $2); if (!($2 in wanted)) print $2 }' "$@" | sort -u)
    [ -z "$doomed" ] || {
        echo "Other packages need $name and would go with it:" $doomed
        echo "Declare them absent in the same document, or keep $name."
        exit 1
    }
fi
apt --allow-change-held-packages "$verb" -- "$name"
"""
)


def steps(change: Change[Package]) -> Iterable[Step]:
    """Look up and install; or only hold; or remove."""
    package = change.spec
    name, hold = package.name, {None: "", True: "yes", False: "no"}[package.hold]
    if change.after is None:
        verb = "purge" if package.purge else "remove"
        provider = str((change.before or {}).get("providedBy") or "")
        yield Sh(_REMOVE, (name, verb, provider, *package.together), title=f"{verb} {name}")
        return
    if change.before is None or change.changed & {"status", "version"}:
        version = package.version or ""
        title = f"{name} {version}".rstrip()
        yield Sh(_LOOK_UP, (name, version), title=f"look up {title}, with new package lists if need be")
        recommends = "true" if package.recommends else "false"
        yield Sh(_INSTALL, (name, version, hold, recommends), title=f"install {title}")
    if "hold" in change.changed and (package.hold or change.before is not None):
        verb = "hold" if package.hold else "unhold"
        yield Sh(_HOLD, (name, verb), title=f"{verb} {name}")


def risk(change: Change[Package]) -> Risk | None:
    """Downgrades, purged configuration, services that restart."""
    package = change.spec
    if change.after is None:
        if package.purge:
            return Risk("data-loss", "its configuration files are deleted, and what its scripts delete with them")
        return None
    if change.before is None or "version" not in change.changed:
        return None
    before = change.before["version"]
    if before and package.version and version_key(package.version) < version_key(before):
        return Risk("data-loss", f"a downgrade from {before}: the older version may not read what the newer one wrote")
    return Risk("downtime", "its services may restart")


def version_key(version: str) -> tuple[Any, ...]:
    """Sorts Debian versions as dpkg does."""
    epoch, _, rest = version.rpartition(":")
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return (int(epoch) if epoch.isdigit() else 0, _part_key(upstream), _part_key(revision))


def _part_key(text: str) -> list[tuple[tuple[int, ...], int]]:
    # Alternately characters and numbers. `~` sorts before the end, the end before letters, letters before the rest.
    key = [
        ((*(-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in words), 0), int(number or 0))
        for words, number in re.findall(r"(\D*)(\d*)", text)
    ]
    while key and key[-1] == ((0,), 0):
        key.pop()
    return [*key, ((0,), 0), ((0,), 0)]


TYPE = ResourceType(
    "host.package",
    Package,
    probe,
    steps,
    provides=lambda p: (f"package:{p.name}",),
    risk=risk,
)
