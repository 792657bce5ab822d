# What every script on a host may use. POSIX sh, coreutils. $ROOT prefixes paths of an offline image and is empty
# on a live host; $OFFLINE is 1 where nothing runs.
umask 022
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin
case $PATH in :*) PATH=${PATH#:} ;; esac

# meta PATH...: "type|mode|owner|group|size|mtime|ctime|path" for each path that exists. Fails where we may not look:
# a path in a closed folder is not an absent one.
meta() {
    [ $# -gt 0 ] || return 0
    if [ -z "$ROOT" ]; then
        { _e=$(_stat "$@" 2>&1 >&3); } 3>&1
    else
        for _p; do set -- "$@" "$ROOT$_p"; shift; done
        { _e=$(_stat "$@" 2>&1 >&3); } 3>&1 | owned
    fi
    case $_e in
        *": Permission denied"*) printf '%s\n%s\n' "$_e" "Log in as root, or set become."; return 1 ;;
    esac
    return 0
}

# By xargs, because more paths than fit into one command line would all look absent.
_stat() { printf '%s\0' "$@" | xargs -0 stat -c '%F|%a|%U|%G|%s|%.9Y|%.9Z|%n' --; }

# look PROGRAM ARGUMENT...: run what only reads. What it does not find is not there; what it may not see is an error.
look() {
    { _e=$("$@" 2>&1 >&3); } 3>&1
    case $_e in
        *"Permission denied"*) printf '%s\n%s\n' "$_e" "Log in as root, or set become."; return 1 ;;
    esac
    return 0
}

# inside PATH: the folder of a path lies, links resolved, inside the image. Always true on a live host.
inside() {
    [ -z "$ROOT" ] && return 0
    _d=$ROOT${1%/*}
    while [ ! -d "$_d" ]; do _d=${_d%/*}; done
    case $(cd -P -- "$_d" && pwd -P)/ in
        "$(cd -P -- "$ROOT" && pwd -P)"/*) return 0 ;;
    esac
    echo "$1: a symbolic link on the way leads out of the image"
    return 1
}

# own PATH OWNER GROUP: give a path away; an empty OWNER or GROUP keeps what is there.
own() {
    [ -z "$2$3" ] || chown -h -- "$2${3:+:$3}" "$ROOT$1"
}

# put PATH MODE OWNER GROUP <base64: write a file atomically. An empty MODE, OWNER or GROUP keeps what is there.
put() {
    _f=$ROOT$1
    inside "$1" || return 1
    if [ -L "$_f" ]; then echo "$1 is a symbolic link; it is not replaced by a file"; return 1; fi
    if [ -d "$_f" ]; then echo "$1 is a directory; it is not replaced by a file"; return 1; fi
    if [ -e "$_f" ] && [ ! -f "$_f" ]; then echo "$1 is no regular file; it is not replaced by one"; return 1; fi
    if [ ! -d "${_f%/*}" ]; then echo "there is no folder ${1%/*}; describe it, too"; return 1; fi
    _t=$(mktemp -- "${_f%/*}/.reconciler.XXXXXX") || return 1
    # In an image, who owned an earlier file of that name does not matter any more.
    [ -z "$ROOT" ] || [ -e "$_f" ] || own "$1" "${3:-root}" "${4:-root}" || return 1
    # Opened while it is still 0600 and ours; the content comes last, so that nobody reads it under the old mode.
    {
        if [ -e "$_f" ]; then cp --attributes-only --preserve=all -- "$_f" "$_t"; else chmod 644 "$_t"; fi &&
            { [ -z "$3$4" ] || chown -- "$3${4:+:$4}" "$_t"; } &&
            { [ -z "$2" ] || chmod -- "$2" "$_t"; } &&
            base64 -d >&3 &&
            case $2 in *[1-7]???) chmod -- "$2" "$_t" ;; esac # writing may have cleared the set-user-ID bit
    } 3>"$_t" &&
        sync -- "$_t" &&
        mv -fT -- "$_t" "$_f" &&
        { [ -z "$ROOT" ] || own "$1" "$3" "$4"; } &&
        sync -- "${_f%/*}" && return 0
    rm -f -- "$_t"
    return 1
}
