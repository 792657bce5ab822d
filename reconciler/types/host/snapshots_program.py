"""host.snapshotProgram: the program that takes, removes and restores snapshots on a host, in this version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Annotated, Final, Literal

from reconciler.fields import AbsolutePath, Account, Mode
from reconciler.model import IDENTITY, Change, Probe, Put, ResourceType, Risk, Script, Sh, Spec, State, Step
from reconciler.probe import expect
from reconciler.tools.snapshots import program_text
from reconciler.types.host import folders_above, parse_meta, same_mode
from reconciler.types.host.file import REFUSE

OURS: Final = "of this version"


class SnapshotProgram(Spec):
    """The program of snapshot policies. Plans show whether it is the one of this version, not its text."""

    path: Annotated[AbsolutePath, IDENTITY]
    content: Literal["of this version"] = "of this version"
    mode: Mode | None = None
    owner: Account | None = None


@cache
def digest() -> str:
    """SHA-256 (hex) of the program."""
    return hashlib.sha256(program_text().encode()).hexdigest()


def probe(programs: Sequence[SnapshotProgram]) -> Probe:
    """Metadata and digests, in two programs."""
    paths = [p.path for p in programs]
    (metas, sums) = yield [
        Script('meta "$@"', paths),
        Script('for p; do [ ! -f "$ROOT$p" ] || printf "%s %s\\n" "$(sha256sum <"$ROOT$p")" "$p"; done', paths),
    ]
    meta = parse_meta(expect(metas, "stat"))
    found = {}
    for line in expect(sums, "sha256sum").splitlines():
        digest_, _, path = line.partition("  - ")
        found[path] = digest_
    return [_state(meta[p.path], found.get(p.path, "")) if p.path in meta else None for p in programs]


def _state(meta: object, seen: str) -> State:
    kind, mode, owner = (getattr(meta, name) for name in ("kind", "mode", "owner"))
    content = OURS if seen == digest() else f"SHA-256 {seen}" if seen else f"a {kind}"
    return {"content": content, "mode": mode, "owner": owner}


def steps(change: Change[SnapshotProgram]) -> Iterable[Step]:
    """Write it, or only what is around it."""
    program = change.spec
    path = program.path
    if change.after is None:
        yield Sh('inside "$1" && rm -f -- "$ROOT$1"', (path,), title=f"remove {path}")
    elif change.before is None or "content" in change.changed:
        yield Put(path, program_text(), program.mode, program.owner)
    else:
        yield Sh(
            REFUSE + 'own "$1" "$2" ""\n[ -z "$3" ] || chmod -- "$3" "$ROOT$1"',
            (path, program.owner or "", program.mode or ""),
            title=f"set {path} to {' '.join(filter(None, (program.mode, program.owner)))}",
        )


def risk(change: Change[SnapshotProgram]) -> Risk | None:
    """Something else of that name."""
    if change.before is not None and change.after is not None and str(change.before["content"]).startswith("a "):
        return Risk("data-loss", f"{change.before['content']} is in the way; apply refuses to replace it")
    return None


TYPE = ResourceType(
    "host.snapshotProgram",
    SnapshotProgram,
    probe,
    steps,
    normalize=same_mode,
    provides=lambda program: (f"path:{program.path}",),
    needs=lambda program: folders_above(program.path),
    risk=risk,
)
