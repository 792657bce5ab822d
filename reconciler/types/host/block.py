"""host.block: lines of ours, between two marks, in a text file that others own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field, field_validator

from reconciler.fields import AbsolutePath, Rule
from reconciler.model import CONTROL, IDENTITY, Change, Keep, Probe, ResourceType, Risk, Script, Sh, Spec, State, Step
from reconciler.probe import expect
from reconciler.types.host import folders_above, package_of, printable
from reconciler.types.host.file import lock_out
from reconciler.types.host.line import OPEN, SAVE

BlockName = Annotated[
    str,
    Rule(r"[A-Za-z0-9_](?:[A-Za-z0-9 ._@+-]*[A-Za-z0-9_])?", "a name of letters, digits, spaces and . _ @ + -", 128),
]
CommentPrefix = Annotated[
    str, Rule(r"[^\s\u0000-\u001f\u007f]+", "what starts a comment in that file, such as # or // or ;", 16)
]
BEGIN, END = " BEGIN reconciler: ", " END reconciler: "


class Block(Spec):
    """Lines between two marks in a text file; whatever else is in the file stays, byte for byte."""

    path: Annotated[AbsolutePath, IDENTITY]
    name: Annotated[BlockName, IDENTITY] = Field(description="Stands in the marks.")
    text: str | None = Field(None, description="The lines between the marks.")
    comment: Annotated[CommentPrefix, CONTROL] = Field("#", description="What starts a comment line in that file.")
    create: Annotated[bool, CONTROL] = Field(True, description="Make the file if it is missing.")

    @field_validator("text")
    @classmethod
    def _ended(cls, text: str | None) -> str | None:
        if text is None:
            return None
        if BEGIN in text or END in text:
            raise ValueError(f'holds "{BEGIN.strip()}" or "{END.strip()}", which are kept for the marks.')
        return text if text.endswith("\n") or not text else text + "\n"

    @property
    def marks(self) -> tuple[str, str]:
        """The lines before and after the text."""
        return f"{self.comment}{BEGIN}{self.name}", f"{self.comment}{END}{self.name}"


READ = """export R="$ROOT"
for p; do printf '%s\\0' "$ROOT$p"; done | look xargs -0 -r sh -c 'find "$@" -maxdepth 0 -type f -exec awk "
    FNR == 1 { print \\"@\\" substr(FILENAME, length(ENVIRON[\\"R\\"]) + 1); marked = 0 }
    / BEGIN reconciler: / { marked = 1 }
    marked || / END reconciler: / { print \\"=\\" \\$0 }
    / END reconciler: / { marked = 0 }" {} +' sh
"""


def probe(blocks: Sequence[Block]) -> Probe:
    """Everything between marks, of all files, in one awk."""
    (reply,) = yield [
        Script(READ, sorted({block.path for block in blocks})),
    ]
    marked: dict[str, list[str]] = {}
    path = ""
    for row in expect(reply, "awk").split("\n"):
        if row.startswith("@"):
            path = row[1:]
        elif row:
            marked.setdefault(path, []).append(row[1:])
    return [_state(block, marked.get(block.path, [])) for block in blocks]


def _state(block: Block, rows: Sequence[str]) -> State | None:
    first, last = block.marks
    begins = [i for i, row in enumerate(rows) if row == first]
    ends = [i for i, row in enumerate(rows) if row == last]
    if not begins and not ends:
        return None
    if len(begins) == len(ends) == 1 and begins[0] < ends[0]:
        text = "".join(f"{row}\n" for row in rows[begins[0] + 1 : ends[0]])
        return {"text": text if text == block.text else printable(text)}
    return {"text": DAMAGED}


DAMAGED = "(one of the two marks is missing, or they are there more than once)"


LOCATE = """b=$(grep -naxF -e "$2" -- "$w/old" | cut -d : -f 1)
e=$(grep -naxF -e "$3" -- "$w/old" | cut -d : -f 1)
if [ -n "$b$e" ]; then
    case $b,$e in ,* | *, | *[!0-9,]*) damaged=1 ;; *) [ "$b" -lt "$e" ] || damaged=1 ;; esac
    if [ "${damaged-}" ]; then
        echo "$1: the lines '$2' and '$3' must be there once each, in this order; mend that by hand"
        exit 1
    fi
fi
"""


def steps(change: Change[Block]) -> Iterable[Step]:
    """One edit on the host: read, change, rename."""
    block = change.spec
    arguments = (block.path, *block.marks)
    if change.after is None:
        yield Sh(
            f"{OPEN}{LOCATE}"
            'if [ -n "$b" ]; then\n{ head -n $((b - 1)) "$w/old"; tail -n +$((e + 1)) "$w/old"; } >"$w/new"\n'
            f"{SAVE}fi",
            arguments,
            title=f"remove the block {block.name} from {block.path}",
        )
        return
    yield Sh(
        f"{OPEN}{LOCATE}"
        """cat >"$w/text"
if [ ! -e "$f" ] && [ -z "$4" ]; then echo "$1 does not exist, and create is false"; exit 1; fi
if [ -n "$b" ]; then
    { head -n "$b" "$w/old"; cat "$w/text"; tail -n +"$e" "$w/old"; } >"$w/new"
else
    cat "$w/old" >"$w/new"
    ended "$w/new" || echo >>"$w/new"
    { printf '%s\\n' "$2"; cat "$w/text"; printf '%s\\n' "$3"; } >>"$w/new"
fi"""
        f"{SAVE}",
        (*arguments, "1" if block.create else ""),
        stdin=block.text or "",
        title=f"{'add' if change.before is None else 'replace'} the block {block.name} "
        f"{'to' if change.before is None else 'in'} {block.path}",
    )


def risk(change: Change[Block]) -> Risk | None:
    """Edits of files by which people lock themselves out."""
    return lock_out(change.spec.path)


TYPE = ResourceType(
    "host.block",
    Block,
    probe,
    steps,
    provides=lambda block: (f"edit:{block.path}",),
    needs=lambda block: (f"path:{block.path}", *folders_above(block.path), *package_of(block.path)),
    risk=risk,
    keeps=lambda change: Keep((change.spec.path,)),
)
