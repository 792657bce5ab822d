"""The scripts of `host.containerUnit`: constant POSIX sh. Values travel as arguments; names in lists hold no spaces."""

from __future__ import annotations

from typing import Final

from reconciler.types.host.podman import WORDS

_PLACES: Final = (
    WORDS
    + r"""
set -f
# places UNIT, after `who`: sets service, and the two files that the unit can have.
places() {
    case $1 in
        *.container) service=${1%.*}.service ;;
        *) service=${1%.*}-${1##*.}.service ;;
    esac
    if [ "$uid" = 0 ]; then
        as_quadlet=/etc/containers/systemd/$1 as_service=/etc/systemd/system/$service
    else
        as_quadlet=/etc/containers/systemd/users/$uid/$1 as_service=$home/.config/systemd/user/$service
    fi
}
# container_of UNIT: what Podman calls the container that tells the unit's state.
container_of() {
    case $1 in
        *.container) printf '%s\n' "${1%.*}" ;;
        *.pod) printf '%s\n' "${1%.*}-infra" ;;
    esac
}
"""
)

FILES: Final = (
    _PLACES
    + r"""
if [ -n "$OFFLINE" ]; then
    echo offline
    printf 'podman|%s\n' "$(dpkg-query -W -f '${Version}' podman 2>/dev/null)"
else
    printf 'podman|%s\n' "$(podman --version 2>/dev/null)"
fi
list=$(
    while [ $# -gt 1 ]; do
        name=$1 units=$2
        shift 2
        who "$name" || continue
        for unit in $units; do
            places "$unit"
            printf 'unit|%s|%s|%s|%s\n' "$name" "$unit" "$as_quadlet" "$as_service"
        done
    done
)
[ -n "$list" ] || exit 0
printf '%s\n' "$list"
set --
while IFS='|' read -r _ _ _ as_quadlet as_service; do set -- "$@" "$as_quadlet" "$as_service"; done <<.
$list
.
found=$(meta "$@") || { printf '%s\n' "$found"; exit 1; }
[ -z "$found" ] || printf '%s\n' "$found" | sed 's/^/meta|/'
for p; do [ -L "$ROOT$p" ] || [ ! -f "$ROOT$p" ] || printf '%s\0' "$ROOT$p"; done | xargs -0 -r sha256sum -- |
    while read -r digest path; do printf 'sum|%s|%s\n' "$digest" "${path#"$ROOT"}"; done
set +f
for p; do
    for link in "$ROOT${p%/*}"/*.wants/"${p##*/}"; do [ ! -L "$link" ] || printf 'enabled|%s\n' "$p"; done
done
"""
)
"""Arguments: account, its units, and so on. Podman's release, where the units' files are, and what they are."""

SYSTEMD: Final = (
    WORDS
    + r"""
[ -z "$OFFLINE" ] || exit 0
set -f
while [ $# -gt 1 ]; do
    name=$1 services=$2
    shift 2
    who "$name" || continue
    awake || { printf 'user|%s|asleep\n' "$name"; continue; }
    printf 'user|%s|awake\n' "$name"
    ctl show -p Id,LoadState,ActiveState,SubState,Result,ExecMainStatus,UnitFileState,WantedBy,NeedDaemonReload \
        -- $services
    echo
done
"""
)
"""Arguments: account, its services, and so on."""

INSPECT: Final = (
    WORDS
    + r"""
[ -z "$OFFLINE" ] || exit 0
set -f
about='container|{{.Name}}|{{.Image}}|{{.State.Status}}|{{.State.ExitCode}}|{{.Created.UnixNano}}|'
about=$about'{{with .State.Health}}{{.Status}}{{end}}'
while [ $# -gt 2 ]; do
    name=$1 containers=$2 secrets=$3
    shift 3
    who "$name" && stored || continue
    printf 'user|%s\n' "$name"
    [ -z "$containers" ] || as podman container inspect --format "$about" $containers
    [ -z "$secrets" ] || as podman secret inspect --format 'secret|{{.Spec.Name}}|{{.UpdatedAt.UnixNano}}' $secrets
done
exit 0
"""
)
"""Arguments: account, its containers, its secrets, and so on. What is not there is not printed."""

WRITE: Final = (
    _PLACES
    + r"""
who "$1" || { echo "There is no user $1 on this host."; exit 1; }
places "$2"
unit=$2 form=$3 enable=$4
if [ "$form" = quadlet ]; then path=$as_quadlet other=$as_service; else path=$as_service other=$as_quadlet; fi
[ -n "$OFFLINE" ] || able
draft=$(mktemp -d)
trap 'rm -rf -- "$draft"' EXIT
chmod 755 "$draft"
cat >"$draft/$unit"

# The generator must make a service of it, together with the units that are there already.
check() {
    for generator in /usr/lib/systemd/system-generators/podman-system-generator /usr/libexec/podman/quadlet \
        /usr/lib/podman/quadlet ''; do [ ! -x "$generator" ] || break; done
    [ -n "$generator" ] || { echo "This Podman has no generator for Quadlet units: it is older than 4.4."; exit 1; }
    set +f
    for file in "${path%/*}"/*.container "${path%/*}"/*.pod "${path%/*}"/*.volume "${path%/*}"/*.network; do
        [ ! -f "$file" ] || [ "${file##*/}" = "$unit" ] || cp -- "$file" "$draft/"
    done
    set -f
    [ "$uid" = 0 ] && session= || session=--user
    said=$(QUADLET_UNIT_DIRS=$draft "$generator" --dryrun $session 2>&1 >/dev/null) || {
        said=$(printf '%s\n' "$said" | grep -F "\"$unit\"" | grep -v 'Loading source unit' | sed 's/^[^:]*: //')
        [ -z "$said" ] || { printf '%s\n' "Podman does not take this unit, so it was not written:" "$said"; exit 1; }
    }
}
[ "$form" = service ] || [ -n "$OFFLINE" ] || check

same() { [ -f "$ROOT$path" ] && [ ! -L "$ROOT$path" ] && cmp -s -- "$draft/$unit" "$ROOT$path"; }
if same; then
    # A new file would look as if what runs were older.
    :
elif [ "$form" = service ] && [ "$uid" != 0 ] && [ -z "$OFFLINE" ]; then
    # In the account's own folders, so with its own rights.
    as sh -c 'umask 022; mkdir -p -- "${1%/*}" && { [ ! -L "$1" ] || rm -f -- "$1"; } &&
        cat >"$1.new" && mv -fT -- "$1.new" "$1"' sh "$path" <"$draft/$unit"
else
    inside "$path"
    mkdir -p -- "$ROOT${path%/*}"
    [ "$(readlink -- "$ROOT$path")" != /dev/null ] || rm -f -- "$ROOT$path"
    owner=root group=root
    [ "$form" = quadlet ] || [ "$uid" = 0 ] || owner=$user group=$gid
    base64 <"$draft/$unit" | put "$path" 0644 "$owner" "$group"
fi
if [ -z "$OFFLINE" ] && [ "$uid" != 0 ] && [ "$form" = quadlet ]; then as rm -f -- "$other"
else inside "$other"; rm -f -- "$ROOT$other"; fi
if [ -n "$OFFLINE" ]; then
    if [ "$form$enable" = serviceenable ]; then
        target=$(sed -n 's/^WantedBy=//p' "$draft/$unit" | head -n 1)
        mkdir -p -- "$ROOT${path%/*}/$target.wants"
        ln -sfnT -- "$path" "$ROOT${path%/*}/$target.wants/$service"
    fi
    exit 0
fi
awake || { echo "The systemd of $user does not run. Let the document say linger: true."; exit 1; }
ctl daemon-reload
[ "$form$enable" != serviceenable ] || ctl enable -q -- "$service" 2>&1
"""
)
"""$1 = account, $2 = unit, $3 = quadlet or service, $4 = `enable` if a service starts at boot; stdin = its text."""

START: Final = (
    _PLACES
    + r"""
[ -z "$OFFLINE" ] || { echo "nothing runs in an image"; exit 0; }
who "$1" || { echo "There is no user $1 on this host."; exit 1; }
places "$2"
unit=$2 must=$3 watch=$4 secrets=$5 container=$(container_of "$2")
able
awake || { echo "The systemd of $user does not run. Let the document say linger: true."; exit 1; }
property() { ctl show -p "$1" --value -- "$service"; }
# Not what containers print: it may hold anything. Nor the events, which Podman writes into the journal as well.
why() {
    ctl show -p ActiveState,SubState,Result,ExecMainStatus -- "$service" | paste -s -d ' '
    if [ "$uid" = 0 ]; then set -- -u "$service"; else set -- "_SYSTEMD_USER_UNIT=$service" "_UID=$uid"; fi
    journalctl --quiet --no-pager --output=cat --since=-2min "$@" _COMM=podman 2>/dev/null |
        grep -v ' m=+[0-9]' | tail -n 5
    [ -z "$container" ] || echo "\`podman logs $container\` tells what it printed."
    exit 1
}
fresh() {
    moment='{{printf "%d.%09d" .Created.Unix .Created.Nanosecond}}'
    made=$(as podman container inspect --format "$moment" "$container") || return 1
    for one in "$unit" $watch; do
        places "$one"
        stat -c %.9Z -- "$as_quadlet" "$as_service" 2>/dev/null || :
    done >"$times"
    places "$unit"
    [ -z "$secrets" ] || as podman secret inspect \
        --format '{{printf "%d.%09d" .UpdatedAt.Unix .UpdatedAt.Nanosecond}}' $secrets >>"$times"
    awk -v made="$made" '$1 + 0 > made + 0 { late = 1 } END { exit late }' "$times"
}
times=$(mktemp)
trap 'rm -f -- "$times"' EXIT
case $(property NeedDaemonReload)/$(property LoadState) in yes/* | */not-found | */error) ctl daemon-reload ;; esac
case $(property LoadState) in
    loaded) ;;
    not-found) echo "systemd has no service $service: no generator made one of $unit."; exit 1 ;;
    *) echo "systemd cannot load $service: $(property LoadState)."; exit 1 ;;
esac
ctl reset-failed -- "$service" 2>/dev/null || :
ctl start -- "$service" 2>&1 || why
if [ -n "$must" ] || ! fresh; then ctl restart -- "$service" 2>&1 || why; fi
# A program that ends right after its start would still look well at first.
well=0 looks=0
while [ "$well" -lt 5 ]; do
    sleep 0.1
    looks=$((looks + 1))
    case $(property ActiveState) in active) well=$((well + 1)) ;; *) well=0 ;; esac
    [ "$looks" -lt 50 ] || { echo "$service was started and does not stay up:"; why; }
done
"""
)
"""$1 = account, $2 = unit, $3 = `must` if it restarts in any case, $4 = units and $5 = secrets that it is made with."""

REMOVE: Final = (
    _PLACES
    + r"""
who "$1" || exit 0
places "$2"
name=${2%.*}
if [ -z "$OFFLINE" ] && awake; then
    [ "$(ctl show -p LoadState --value -- "$service")" = not-found ] || ctl stop -- "$service" 2>&1
    [ ! -f "$as_service" ] || ctl disable -q -- "$service" 2>&1
fi
if [ -z "$OFFLINE" ] && stored; then
    case $2 in
        *.container) as podman rm -f --ignore -- "$name" 2>&1 ;;
        *.pod) as podman pod rm -f --ignore -- "$name" 2>&1 ;;
        # Somebody else may use it.
        *.network) as podman network rm -- "$name" >/dev/null 2>&1 || : ;;
    esac
fi
inside "$as_quadlet"
inside "$as_service"
set +f
if [ -n "$OFFLINE" ]; then rm -f -- "$ROOT${as_service%/*}"/*.wants/"$service"; fi
if [ -z "$OFFLINE" ] && [ "$uid" != 0 ]; then as rm -f -- "$as_service"; else rm -f -- "$ROOT$as_service"; fi
rm -f -- "$ROOT$as_quadlet"
if [ -z "$OFFLINE" ] && awake; then
    ctl daemon-reload
    ctl reset-failed -- "$service" 2>/dev/null || :
fi
"""
)
"""$1 = account, $2 = unit."""
