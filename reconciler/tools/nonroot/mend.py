"""Carries out the edits of flaws: lines of Containerfiles, fields of manifests with everything else kept as it is.

Pure: text in, text out. An edit counts only if the file that comes out has its flaw no more, and no new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from reconciler.tools.nonroot.dockerfile import parse
from reconciler.tools.nonroot.rules import Edit, Flaw, Insert, Replace, SetField
from reconciler.tools.nonroot.yamledit import set_field

Examine = Callable[[str], Sequence[Flaw]]
"""The flaws of a text in place of the file's."""
ROUNDS: Final = 100


def mend(text: str, examine: Examine) -> tuple[str, list[Flaw]]:
    """Mend what can be mended without a person.

    Returns:
        the text, and the flaws that are gone.
    """
    mended: list[Flaw] = []
    hopeless: set[tuple[str, str]] = set()
    for _ in range(ROUNDS):
        flaws = list(examine(text))
        # The last line first, so that the lines of the others stay; a new pass follows each edit anyway.
        todo = [f for f in flaws if f.edits and (f.rule, f.message) not in hopeless]
        if not todo:
            break
        one = todo[-1]
        after = apply(text, one.edits)
        if after is None or after == text or not _better(one, flaws, list(examine(after))):
            hopeless.add((one.rule, one.message))
            continue
        text = after
        mended.append(one)
    return text, mended


def _better(one: Flaw, before: Sequence[Flaw], after: Sequence[Flaw]) -> bool:
    """Whether the flaw is gone and nothing came in its place, but for warnings in place of an error."""
    known = {(f.rule, f.subject) for f in before}
    new = [f for f in after if (f.rule, f.subject) not in known]
    same = [f for f in after if (f.rule, f.message) == (one.rule, one.message)]
    count = sum((f.rule, f.message) == (one.rule, one.message) for f in before)
    return len(same) < count and not [f for f in new if f.level == "error" or one.level == "warning"]


def apply(text: str, edits: Sequence[Edit]) -> str | None:
    """A text with edits carried out; None where that is not possible without touching more than is meant."""
    fields = [e for e in edits if isinstance(e, SetField)]
    if fields:
        now: str | None = text
        for field in fields:
            now = None if now is None else set_field(now, field)
        return now
    # Each line keeps its own end.
    lines = text.split("\n")
    for edit in sorted((e for e in edits if isinstance(e, Replace)), key=lambda e: e.line):
        if not 0 < edit.line <= len(lines) or edit.old not in lines[edit.line - 1]:
            return None
        lines[edit.line - 1] = lines[edit.line - 1].replace(edit.old, edit.new, 1)
    inserted = [e for e in edits if isinstance(e, Insert)]
    return _inserted(lines, inserted) if inserted else "\n".join(lines)


def _inserted(lines: list[str], inserts: Sequence[Insert]) -> str | None:
    """The text with instructions inserted; None where one of them would become a part of what stands before it."""
    before = _instructions("\n".join(lines))
    end = "\r" if lines[0].endswith("\r") else ""
    if lines[-1]:
        lines[-1] += end
        lines.append("")
    count = 0
    for new in sorted(inserts, key=lambda e: -e.after):
        texts = new.text.split("\n")
        lines[new.after : new.after] = [one + end for one in texts]
        count += len(texts)
    text = "\n".join(lines)
    after = _instructions(text)
    rest = iter(after)
    return text if len(after) == len(before) + count and all(one in rest for one in before) else None


def _instructions(text: str) -> list[tuple[object, ...]]:
    return [
        (i.name, i.text, [(h.name, h.text) for h in i.heredocs]) for s in parse(text).stages for i in s.instructions
    ]
