"""What a guard runs on a host: POSIX sh and coreutils, with systemd where there is one.

On the host a guard is a folder of root's, /var/lib/reconciler/guard/NAME, with `N.path` and `N.copy` or `N.absent` for
each thing that is kept, `N.unit` for each unit, and a marker that is renamed, which nothing can do twice: `armed`
becomes `confirmed` or `reverting`. Who has no root's rights keeps it below the own home folder, and without a boot-time
unit.
"""

from __future__ import annotations

from typing import Final

_WHERE: Final = r"""
[ "$(id -u)" = 0 ] && g=/var/lib/reconciler/guard || g=$HOME/.local/state/reconciler/guard
d=$g/$1 u=reconciler-guard-$1
"""

# Bare of what it is installed as: $0 is its place. Run by the timer, by systemd at the next boot, or by us.
REVERT: Final = r"""#!/bin/sh
# Written by reconciler. Takes back a change that nobody confirmed in time.
PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin
export PATH LC_ALL=C
umask 077
d=${0%/*}
g=${d%/*}
u=reconciler-guard-${d##*/}
booted=
[ "$(cat /proc/sys/kernel/random/boot_id)" = "$(cat "$d/boot" 2>/dev/null)" ] || booted=1
[ "$(id -u)" = 0 ] && [ -d /run/systemd/system ] && systemd=1 || systemd=
tidy() {
    rm -rf -- "$d"
    [ -z "$systemd" ] ||
        rm -f -- "/etc/systemd/system/sysinit.target.wants/$u.service" "/etc/systemd/system/$u.service"
}
again=
if ! mv -T -- "$d/armed" "$d/reverting" 2>/dev/null; then
    again=1
    if [ ! -e "$d/reverting" ]; then
        # The host went down just before it was armed, or just after it was confirmed: these are remains.
        [ -z "$booted" ] || tidy
        exit 0
    fi
fi
how=${1:-"its time was over"}
[ ! -e "$d/asked" ] || how="it was asked to"
[ -z "$booted" ] || how="it booted"
bad=
as() {
    if [ "$uid" = 0 ] || [ "$(id -u)" != 0 ]; then "$@"; return; fi
    setpriv --reuid "$uid" --regid "$gid" --clear-groups -- "$@"
}
# In a home folder nothing is done as root: its owner may have put links in the way.
home() {
    { read -r uid; read -r gid; IFS= read -r folder; IFS= read -r name; } <"$1.home"
    if [ -e "$1.absent" ]; then
        as rm -f -- "$folder/$name"
    else
        as sh -c 'set -e
umask 077
cd -P -- "$1"
t=$(mktemp ./.reconciler.XXXXXX)
cat >"$t"
chmod "$3" "$t"
sync "$t"
mv -fT "$t" "$2"' sh "$folder" "$name" "$(stat -c %a "$1.copy")" <"$1.copy"
    fi
}
place() {
    path=$(cat "$1.path")
    if [ -e "$1.absent" ]; then rm -rf -- "$path"; return; fi
    t=${path%/*}/.reconciler.${d##*/}
    rm -rf -- "$t"
    [ -d "${path%/*}/" ] || mkdir -p -- "${path%/*}/" || return 1
    cp -a -- "$1.copy" "$t" || return 1
    # A folder cannot be renamed over another one.
    if [ -d "$path" ] && [ ! -L "$path" ]; then rm -rf -- "$path"; fi
    mv -fT -- "$t" "$path" && sync -f "${path%/*}/"
}
for one in "$d"/*.path; do [ ! -e "$one" ] || place "${one%.path}" || bad=1; done
for one in "$d"/*.home; do [ ! -e "$one" ] || home "${one%.home}" || bad=1; done
# Services are not restarted again and again while files cannot be put back.
if [ -n "$systemd" ] && { [ -z "$again" ] || [ -z "$bad" ]; }; then
    systemctl daemon-reload || bad=1
    for one in "$d"/*.unit; do
        [ -e "$one" ] || continue
        read -r name enabled active <"$one"
        case $enabled in
            masked) systemctl mask -- "$name" || bad=1 ;;
            enabled) systemctl unmask -- "$name" && systemctl enable -- "$name" || bad=1 ;;
            disabled) systemctl unmask -- "$name" && systemctl disable -- "$name" || bad=1 ;;
            *) systemctl unmask -- "$name" || : ;;
        esac
        systemctl reset-failed -- "$name" 2>/dev/null || :
        case $how/$active in
            "it booted"/active)
                systemctl is-active --quiet -- "$name" && verb=restart || verb=start
                systemctl --no-block "$verb" -- "$name" || bad=1 ;;
            */active) systemctl restart -- "$name" || bad=1 ;;
            *) systemctl --no-block stop -- "$name" 2>/dev/null || : ;;
        esac
    done
fi
sync
# What could not be put back, because the disk is full, say, is tried again soon, and at the next boot.
if [ -n "$bad" ]; then
    [ -z "$systemd" ] || systemd-run --quiet --on-active=15s --timer-property=AccuracySec=1s \
        systemctl --no-block start "$u.service"
    exit 1
fi
printf '%s, %s\n' "$how" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$g/${d##*/}.reverted"
sync -f "$g"
timer=$(cat "$d/timer" 2>/dev/null)
tidy
[ "${timer:-$$}" = $$ ] || kill -- "-$timer" 2>/dev/null
[ -z "$systemd" ] || systemctl --no-block stop "$u.timer" 2>/dev/null || :
exit 0
"""

# $1 = name, $2 = seconds; then path:/etc/x, path:~alice/x and unit:x.service. Standard input: the script above. Its
# last words are the user number.
ARM: Final = (
    _WHERE
    + r"""
[ -z "$ROOT$OFFLINE" ] || { echo "nobody is logged in to an image"; exit 1; }
name=$1 seconds=$2
shift 2
mkdir -p -- "${g%/*}"
umask 077
mkdir -p -- "$g"
for other in "$g"/*/armed "$g"/*/reverting; do
    [ ! -e "$other" ] || {
        other=${other%/*}
        echo "another guarded change (${other##*/}) of this host is not confirmed yet, or could not be taken back."
        echo "If nobody is at work on it any more: reconciler resume, or on the host: sh $other/revert"
        exit 1
    }
done
rm -f -- "$g"/*.reverted
rm -rf -- "$d"
mkdir -- "$d"
ok=
# Half of an arming must not strike.
trap '[ -n "$ok" ] || { rm -rf -- "$d" "/etc/systemd/system/$u.service" \
    "/etc/systemd/system/sysinit.target.wants/$u.service" 2>/dev/null; }' EXIT
cat >"$d/revert"
cat /proc/sys/kernel/random/boot_id >"$d/boot"
as() {
    if [ "$uid" = 0 ] || [ "$(id -u)" != 0 ]; then "$@"; return; fi
    setpriv --reuid "$uid" --regid "$gid" --clear-groups -- "$@"
}
n=0
for word; do
    n=$((n + 1))
    case $word in
        path:~*)
            file=${word#path:~}
            account=$(getent passwd "${file%%/*}") || continue
            IFS=: read -r _ _ uid gid _ folder _ <<.
$account
.
            file=${file#*/}
            case $file in */*) folder=$folder/${file%/*} ;; esac
            [ ! -L "$folder" ] || { echo "$folder is a symbolic link; it cannot be kept"; exit 1; }
            printf '%s\n' "$uid" "$gid" "$folder" "${file##*/}" >"$d/$n.home"
            f=$folder/${file##*/}
            if [ -L "$f" ]; then
                echo "$f is a symbolic link; it cannot be kept"
                exit 1
            elif [ -e "$f" ]; then
                as cat -- "$f" >"$d/$n.copy"
                chmod -- "$(stat -c %a -- "$f")" "$d/$n.copy"
            else
                : >"$d/$n.absent"
            fi ;;
        path:*)
            f=${word#path:}
            printf %s "$f" >"$d/$n.path"
            if [ -e "$f" ] || [ -L "$f" ]; then cp -a -- "$f" "$d/$n.copy"; else : >"$d/$n.absent"; fi ;;
        unit:*)
            unit=${word#unit:}
            command -v systemctl >/dev/null || continue
            enabled=$(systemctl is-enabled -- "$unit" 2>/dev/null | head -n 1) || :
            active=$(systemctl is-active -- "$unit" 2>/dev/null) || :
            case $active in activating | reloading | refreshing) active=active ;; esac
            printf '%s %s %s\n' "$unit" "${enabled:-none}" "${active:-none}" >"$d/$n.unit" ;;
    esac
done
if [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ] && command -v systemd-run >/dev/null; then
    s=/etc/systemd/system
    printf '%s\n' '[Unit]' \
        'Description=Take back a change of reconciler that nobody confirmed' \
        'DefaultDependencies=no' "RequiresMountsFor=$d" 'After=local-fs.target' \
        'Before=sysinit.target network-pre.target systemd-networkd.service nftables.service shutdown.target' \
        'Conflicts=shutdown.target' '[Service]' 'Type=oneshot' "ExecStart=/bin/sh $d/revert" \
        '[Install]' 'WantedBy=sysinit.target' >"$s/$u.service"
    chmod 644 "$s/$u.service"
    mkdir -p "$s/sysinit.target.wants"
    chmod 755 "$s/sysinit.target.wants"
    ln -sfn "$s/$u.service" "$s/sysinit.target.wants/$u.service"
    sync -f "$s"
    : >"$d/armed"
    sync -f "$d"
    systemd-run --quiet --on-active="${seconds}s" --timer-property=AccuracySec=100ms --unit="$u.service" 2>&1
    systemctl is-active --quiet "$u.timer"
else
    : >"$d/armed"
    sync -f "$d"
    command -v setsid >/dev/null || { echo "there is neither systemd nor setsid on this host"; exit 1; }
    setsid sh -c 'echo $$ >"$2/timer"; sleep "$1"; exec sh "$2/revert"' sh "$seconds" "$d" </dev/null >/dev/null 2>&1 &
fi
ok=1
echo "user $(id -u)"
"""
)

# $1 = name. Before each change but the first: what took too long must not begin after the host has taken all back.
STILL: Final = _WHERE + '[ -e "$d/armed" ]\n'

# $1 = name.
DISARM: Final = (
    _WHERE
    + r"""
if ! mv -T -- "$d/armed" "$d/confirmed" 2>/dev/null; then
    [ -e "$d/confirmed" ] || { echo "the host has taken it back already"; exit 1; }
fi
sync -f "$d"
# It is confirmed; what follows is only tidiness.
if [ -e "$d/timer" ]; then kill -- "-$(cat "$d/timer")" 2>/dev/null || :; fi
if [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ]; then
    systemctl stop "$u.timer" 2>/dev/null || :
    s=/etc/systemd/system
    rm -f -- "$s/sysinit.target.wants/$u.service" "$s/$u.service" || :
    rmdir -- "$s/sysinit.target.wants" 2>/dev/null || :
fi
rm -rf -- "$d" || :
rm -f -- "$g"/*.reverted || :
rmdir -- "$g" "${g%/*}" 2>/dev/null || :
"""
)

STATE: Final = (
    _WHERE
    + r"""
if [ -e "$g/$1.reverted" ]; then
    echo reverted
elif [ -e "$d/armed" ]; then
    echo armed
elif [ -e "$d/reverting" ]; then
    echo reverting
elif [ -e "$d/confirmed" ]; then
    echo confirmed
elif [ -e "$g" ] && [ ! -x "$g" ]; then
    exit 1
else
    echo gone
fi
"""
)

# Prints what `STATE` does. By systemd, so that it does not run twice at once and survives the end of our session.
REVERT_NOW: Final = (
    _WHERE
    + r"""
if [ -e "$d/armed" ] || [ -e "$d/reverting" ]; then
    : >"$d/asked" || :
    if [ -e "/etc/systemd/system/$u.service" ]; then
        systemctl start "$u.service" || :
    else
        sh "$d/revert" || :
    fi
fi
"""
    + STATE.removeprefix(_WHERE)
)
