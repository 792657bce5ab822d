# Shared by dpkg-query, apt-get, apt-mark and apt-cache: the package database of an image that is managed without
# root. Read this first: it is simulated. Installing a package adds its stanza to $ROOT/var/lib/dpkg/status and, where
# the list of packages names a unit, a unit file that is not enabled; no archive is fetched, nothing is unpacked, no
# dependency is looked at, no script runs. To install real packages into an image, run as root.
#
# The list of packages is $ROOT/var/lib/reconciler-lab/packages: lines "NAME VERSION [UNIT]", the newest version of a
# name last. Without that file every name is known, in version 1.0.
: "${ROOT:?this program is for images only}"
database=$ROOT/var/lib/dpkg/status
list=$ROOT/var/lib/reconciler-lab/packages

# versions NAME: the versions that are known, the newest last.
versions() {
    [ -e "$list" ] || { echo 1.0; return; }
    awk -v name="$1" '$1 == name { print $2 }' "$list"
}

# unit_of NAME: the unit that the list gives it, or nothing.
unit_of() {
    [ ! -e "$list" ] || awk -v name="$1" '$1 == name && $3 != "" { unit = $3 } END { print unit }' "$list"
}

# there NAME: "WANT VERSION STATUS" of a package that is installed, if only in part.
there() {
    [ ! -e "$database" ] || awk -v RS= -F '\n' -v name="$1" '
        { delete field
          for (i = 1; i <= NF; i++) if (match($i, /^[^ :]+:/)) field[substr($i, 1, RLENGTH - 1)] = substr($i, RLENGTH + 2)
          split(field["Status"], word, " ")
          if (field["Package"] == name && word[3] !~ /^(not-installed|config-files)$/)
              print word[1], field["Version"], word[3] }' "$database"
}

# replace NAME <STANZA: put a stanza, or nothing, in place of the one of a package.
replace() {
    for one in "$ROOT"/var/lib/dpkg/info/*.list; do
        [ ! -e "$one" ] || { echo "This image has a real package database. Run as root to change it."; exit 1; }
    done
    mkdir -p -- "${database%/*}"
    new=$(mktemp -- "$database.XXXXXX") || exit 1
    {
        [ ! -e "$database" ] || awk -v RS= -v ORS='\n\n' -v name="$1" '
            { split($0, line, "\n")
              for (i in line) if (line[i] == "Package: " name) next
              print }' "$database"
        cat
    } >"$new" && chmod 644 "$new" && mv -f -- "$new" "$database"
}

# stanza NAME WANT STATUS VERSION
stanza() {
    printf 'Package: %s\nStatus: %s ok %s\nArchitecture: all\nVersion: %s\nDescription: simulated\n\n' "$@"
}
