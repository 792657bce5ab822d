# What the account programs of this folder have in common: they stand in for programs of the same name where an image
# is managed without root, and edit passwd, shadow, group and gshadow below $ROOT/etc.
: "${ROOT:?these programs are for images only}"
. "${0%/*}/../prelude.sh"
. "${0%/*}/prelude.sh"
set -e

fail() {
    echo "${0##*/}: $2"
    exit "$1"
}

stage=
trap '[ -z "$stage" ] || rm -rf -- "$stage"' EXIT

# begin: copy the four files, so that a change of all of them shows at once or not at all.
begin() {
    inside /etc/passwd || exit 1
    mkdir -p -- "$ROOT/etc"
    stage=$(mktemp -d -- "$ROOT/etc/.reconciler.XXXXXX")
    for file in passwd group shadow gshadow; do
        [ ! -L "$ROOT/etc/$file" ] || fail 1 "/etc/$file is a symbolic link"
        if [ -e "$ROOT/etc/$file" ]; then
            cp -p -- "$ROOT/etc/$file" "$stage/$file"
        elif [ "$file" = passwd ] || [ "$file" = group ]; then
            : >"$stage/$file"
        else
            : >"$stage/$file"
            chmod 600 -- "$stage/$file"
        fi
    done
}

# edit FILE PROGRAM: rewrite a copied file by awk. Values travel in exported variables, where awk reads no escapes.
edit() {
    awk -F: -v OFS=: "$2" "$stage/$1" >"$stage/new"
    cat -- "$stage/new" >"$stage/$1"
}

# commit: put the files in place; passwd last, because an account is there once it stands in passwd.
commit() {
    rm -f -- "$stage/new"
    sync -- "$stage"/*
    for file in gshadow group shadow passwd; do
        mv -fT -- "$stage/$file" "$ROOT/etc/$file"
    done
    sync -- "$ROOT/etc"
}

# field FILE NAME NUMBER: a field of the live entry; nothing if there is none.
field() {
    [ -e "$ROOT/etc/$1" ] || return 0
    N=$2 F=$3 awk -F: '$1 == ENVIRON["N"] { print $ENVIRON["F"]; exit }' "$ROOT/etc/$1"
}

# exists FILE NAME
exists() {
    [ -n "$(field "$1" "$2" 1)" ]
}

# taken FILE ID: whether an account or a group has this number.
taken() {
    [ -e "$ROOT/etc/$1" ] && I=$2 awk -F: '$3 == ENVIRON["I"] { found = 1 } END { exit !found }' "$ROOT/etc/$1"
}

# free SYSTEM: a number that neither accounts nor groups have: from 1000 up, or for the system from 999 down.
free() {
    for file in passwd group; do [ ! -e "$ROOT/etc/$file" ] || cat -- "$ROOT/etc/$file"; done |
        S=$1 awk -F: '{ taken[$3] } END {
            if (ENVIRON["S"]) { for (i = 999; i >= 100 && (i in taken); i--); }
            else { for (i = 1000; i in taken; i++); }
            print i
        }'
}

# gid GROUP: the number of a group that is given by name or number.
gid() {
    case $1 in
        '' | *[!0-9]*) field group "$1" 3 ;;
        *) ! taken group "$1" || echo "$1" ;;
    esac
}

# known NAME,NAME...: all these groups are there.
known() {
    rest=$1,
    while [ -n "$rest" ]; do
        one=${rest%%,*}
        rest=${rest#*,}
        [ -z "$one" ] || exists group "$one" || fail 6 "group '$one' does not exist"
    done
}

# entry VALUE: it can stand in a field.
entry() {
    case $1 in *:* | *"
"*) fail 3 "a field can hold neither a colon nor a line end" ;; esac
}

# days DATE: since the epoch; nothing for no date.
days() {
    [ -z "$1" ] || echo $(($(date -u -d "$1" +%s) / 86400))
}

# Members of a group list, without U; with U added where the group's name is one of G.
MEMBERS='
function members(list, group,    n, i, part, out) {
    n = split(list, part, ",")
    for (i = 1; i <= n; i++)
        if (part[i] != ENVIRON["U"] || (ENVIRON["KEEP"] != "" && !index("," ENVIRON["G"] ",", "," group ",")))
            out = out (out == "" ? "" : ",") part[i]
    if (index("," ENVIRON["G"] ",", "," group ",")) out = out (out == "" ? "" : ",") ENVIRON["U"]
    return out
}
{ $4 = members($4, $1); print }'

# join USER GROUPS KEEP: make the account a member of these groups, and with an empty KEEP of no others.
join() {
    export U="$1" G="$2" KEEP="$3"
    edit group "$MEMBERS"
    edit gshadow "$MEMBERS"
}
