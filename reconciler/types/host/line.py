"""host.line: a line in a text file that others own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

from reconciler.errors import ProbeFailed
from reconciler.fields import AbsolutePath, Rule
from reconciler.model import CONTROL, IDENTITY, Change, Keep, Probe, ResourceType, Risk, Script, Sh, Spec, State, Step
from reconciler.types.host import folders_above, package_of, printable
from reconciler.types.host.file import lock_out

TextLine = Annotated[
    str, Rule(r"[^\u0000-\u0008\u000a-\u001f\u007f\u0085\u2028\u2029]+", "one line of text, without control characters")
]

OPEN = """inside "$1"
f=$ROOT$1
if [ -L "$f" ]; then echo "$1 is a symbolic link; name the file that it leads to"; exit 1; fi
if [ -e "$f" ] && [ ! -f "$f" ]; then echo "$1 is no regular file; it stays"; exit 1; fi
w=$(mktemp -d)
trap 'rm -rf -- "$w"' EXIT
if [ -e "$f" ]; then cat -- "$f" >"$w/old"; else : >"$w/old"; fi
ended() { [ ! -s "$1" ] || [ "$(tail -c 1 "$1" | wc -l)" -eq 1 ]; }
"""
"""Begins an edit of the text file `$1`: its content is in `$w/old`; `ended` tells whether a text ends with a line
end. All that an edit leaves alone is copied with head and tail, so it stays the same byte for byte."""

SAVE = """
if [ ! -e "$f" ] || ! cmp -s "$w/old" "$w/new"; then base64 "$w/new" >"$w/64"; put "$1" '' '' '' <"$w/64"; fi
"""
"""Ends an edit: `$w/new` takes the place of the file."""

FIND = """matching() {
    {
        [ -z "$3" ] || grep -naE -e "$3" -- "$1" || :
        [ -z "$2" ] || grep -naxF -e "$2" -- "$1" || :
    } | cut -d : -f 1 | sort -nu
}
"""
"""`matching FILE LINE REGEX`: the numbers of the lines that are this line, or match."""


class Line(Spec):
    """A line of a text file; whatever else is in the file stays."""

    path: Annotated[AbsolutePath, IDENTITY]
    name: Annotated[TextLine, IDENTITY] = Field(description="Tells the lines of one file apart.")
    line: TextLine | None = Field(None, description="The line.")
    match: Annotated[TextLine | None, CONTROL] = Field(
        None, description="A POSIX extended regular expression: the line that it matches is the one that is meant."
    )


READ = """while [ $# -gt 0 ]; do
    p=$ROOT$1 texts=$2 n=$3
    shift 3
    [ -f "$p" ] || [ -x "${p%/*}" ] || look stat -c '' -- "$p" || exit 3
    [ ! -f "$p" ] || [ -z "$texts" ] || look grep -naxF -e "$texts" -- "$p" || exit 3
    printf '\\0'
    while [ "$n" -gt 0 ]; do
        [ ! -f "$p" ] || grep -naE -e "$1" -- "$p" || [ $? -eq 1 ] || { printf '%s' "$1"; exit 2; }
        printf '\\0'
        n=$((n - 1))
        shift
    done
done
exit 0
"""


def probe(lines: Sequence[Line]) -> Probe:
    """One grep for each file and one for each expression; a grep takes several texts, one on each line."""
    by_path: dict[str, list[Line]] = {}
    for line in lines:
        by_path.setdefault(line.path, []).append(line)
    arguments: list[str] = []
    wanted: list[tuple[str, str | None]] = []
    for path, found in by_path.items():
        texts = sorted({line.line for line in found if line.line})
        expressions = sorted({line.match for line in found if line.match})
        arguments += [path, "\n".join(texts), str(len(expressions)), *expressions]
        wanted += [(path, None), *((path, expression) for expression in expressions)]
    (reply,) = yield [Script(READ, arguments)]
    *parts, last = reply.text.split("\0")
    if reply.status == 3:
        raise ProbeFailed(printable(last))
    if reply.status:
        raise ProbeFailed(f"grep on the host does not take the expression {printable(last)}")
    rows = {key: _rows(part) for key, part in zip(wanted, parts, strict=True)}
    states: list[State | None] = []
    for line in lines:
        same = {n: text for n, text in rows[line.path, None].items() if text == line.line}
        there = same | (rows[line.path, line.match] if line.match else {})
        found_texts = dict.fromkeys(there[number] for number in sorted(there))
        states.append({"line": printable("\n".join(found_texts))} if found_texts else None)
    return states


def _rows(part: str) -> dict[int, str]:
    """What grep -n found: line number -> text."""
    return {int(number): text for number, _, text in (row.partition(":") for row in part.split("\n") if row)}


def steps(change: Change[Line]) -> Iterable[Step]:
    """One edit on the host: read, change, rename. The first line that is meant is replaced, more of them go."""
    line = change.spec
    arguments = (line.path, line.line or "", line.match or "")
    if change.after is None:
        yield Sh(
            f"{OPEN}{FIND}"
            'matching "$w/old" "$2" "$3" | sed "s/$/d/" >"$w/script"\nsed -f "$w/script" "$w/old" >"$w/new"\n'
            f'[ ! -e "$f" ] || {{ {SAVE}}}',
            arguments,
            title=f"remove a line from {line.path}",
        )
        return
    yield Sh(
        f"{OPEN}{FIND}"
        """matching "$w/old" "$2" "$3" >"$w/numbers"
if [ -s "$w/numbers" ]; then
    read -r n <"$w/numbers"
    sed '1d; s/$/d/' "$w/numbers" >"$w/script"
    sed -f "$w/script" "$w/old" >"$w/rest"
    { head -n $((n - 1)) "$w/rest"; printf '%s\\n' "$2"; tail -n +$((n + 1)) "$w/rest"; } >"$w/new"
else
    cat "$w/old" >"$w/new"
    ended "$w/new" || echo >>"$w/new"
    printf '%s\\n' "$2" >>"$w/new"
fi"""
        f"{SAVE}",
        arguments,
        title=f"{'add a line to' if change.before is None else 'replace a line in'} {line.path}",
    )


def risk(change: Change[Line]) -> Risk | None:
    """Edits of files by which people lock themselves out."""
    return lock_out(change.spec.path)


TYPE = ResourceType(
    "host.line",
    Line,
    probe,
    steps,
    provides=lambda line: (f"edit:{line.path}",),
    needs=lambda line: (f"path:{line.path}", *folders_above(line.path), *package_of(line.path)),
    risk=risk,
    keeps=lambda change: Keep((change.spec.path,)),
)
