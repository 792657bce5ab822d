# Replaces parts of the prelude in an image that is managed without root: ownership is kept in $ROOT/.owners, one
# line "path|owner|group" for each path that does not belong to root:root.
chown() { :; }

own() {
    [ -n "$2$3" ] || return 0
    touch -- "$ROOT/.owners"
    _o=$(mktemp -- "$ROOT/.owners.XXXXXX") &&
        P=$1 O=$2 G=$3 awk -F'|' 'BEGIN { p = ENVIRON["P"]; o = ENVIRON["O"]; g = ENVIRON["G"] }
            $1 == p { if (o == "") o = $2; if (g == "") g = $3; next } { print }
            END { print p "|" (o == "" ? "root" : o) "|" (g == "" ? "root" : g) }' "$ROOT/.owners" >"$_o" &&
        mv -f -- "$_o" "$ROOT/.owners"
}

# Reads what stat printed; cuts the image's folder off the paths and puts the kept owners in.
owned() {
    _k=$ROOT/.owners
    [ -e "$_k" ] || _k=/dev/null
    R=$ROOT awk -F'|' -v OFS='|' 'BEGIN { n = length(ENVIRON["R"]) }
        FILENAME != "-" { owner[$1] = $2; group[$1] = $3; next }
        { p = $8; for (i = 9; i <= NF; i++) p = p "|" $i; p = substr(p, n + 1)
          print $1, $2, (p in owner ? owner[p] : "root"), (p in group ? group[p] : "root"), $5, $6, $7, p }' \
        "$_k" -
}
