"""host.symlink: a symbolic link."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from reconciler.fields import AbsolutePath, Rule
from reconciler.model import IDENTITY, Change, Keep, Probe, ResourceType, Risk, Script, Sh, Spec, Step
from reconciler.probe import expect
from reconciler.types.host import folders_above, package_of, printable
from reconciler.types.host.file import lock_out

KINDS = {"l": "symbolic link", "f": "regular file", "d": "directory"}
"""What find's %y says."""


LinkTarget = Annotated[
    str, Rule(r"[^\u0000-\u001f\u007f]+", "where the link leads, absolute or relative to its folder", 4095)
]


class Symlink(Spec):
    """A symbolic link, replaced atomically."""

    path: Annotated[AbsolutePath, IDENTITY]
    type: Literal["symbolic link"] = "symbolic link"
    to: LinkTarget | None = Field(None, description="Where it leads.")


# By xargs, because more paths than fit into one command line would all look absent.
READ = """echo "$ROOT"
for p; do printf '%s\\0' "$ROOT$p"; done |
    look xargs -0 -r sh -c 'find "$@" -maxdepth 0 -printf "%p\\0%y\\0%l\\0"' sh
"""


def probe(links: Sequence[Symlink]) -> Probe:
    """All links in one program."""
    (reply,) = yield [
        Script(READ, [link.path for link in links]),
    ]
    root, _, rest = expect(reply, "find").partition("\n")
    words = iter(rest.split("\0"))
    seen = {path.removeprefix(root): (kind, to) for path, kind, to in zip(words, words, words, strict=False)}
    return [_state(*seen[link.path]) if link.path in seen else None for link in links]


def _state(kind: str, to: str) -> dict[str, str | None]:
    return {"type": KINDS.get(kind, "special file"), "to": printable(to) if kind == "l" else None}


def steps(change: Change[Symlink]) -> Iterable[Step]:
    """A new link under another name, then a rename; a folder in the way makes the rename fail."""
    link = change.spec
    if change.after is None:
        yield Sh(
            'inside "$1"\n'
            '[ -L "$ROOT$1" ] || [ ! -e "$ROOT$1" ] || { echo "$1 is no symbolic link any more; it stays"; exit 1; }\n'
            'rm -f -- "$ROOT$1"',
            (link.path,),
            title=f"remove the link {link.path}",
            quick=True,
        )
        return
    yield Sh(
        'inside "$1"\n'
        '[ -L "$ROOT$1" ] || [ ! -d "$ROOT$1" ] || { echo "$1 is a directory; it stays"; exit 1; }\n'
        't=$(mktemp -u -- "$ROOT${1%/*}/.reconciler.XXXXXX")\n'
        'ln -sT -- "$2" "$t"\n'
        'mv -fT -- "$t" "$ROOT$1" || { rm -f -- "$t"; exit 1; }\n'
        'sync -- "$ROOT${1%/*}/"',
        (link.path, link.to or ""),
        title=f"link {link.path} -> {link.to}",
        quick=True,
    )


def risk(change: Change[Symlink]) -> Risk | None:
    """What stands in the way is lost."""
    there = change.before["type"] if change.before else None
    if change.after is not None and there == "directory":
        return Risk("data-loss", "a directory is in the way; apply refuses to replace it")
    if change.after is not None and there not in (None, "symbolic link"):
        return Risk("data-loss", f"the {there} that is there is replaced by the link, and its content is lost")
    return lock_out(change.spec.path)


def needs(link: Symlink) -> Iterable[str]:
    """The folders that it lies in, and what it leads to."""
    yield from folders_above(link.path)
    yield from package_of(link.path)
    if link.to and link.to.startswith("/"):
        yield f"path:{link.to}"


TYPE = ResourceType(
    "host.symlink",
    Symlink,
    probe,
    steps,
    provides=lambda link: (f"path:{link.path}",),
    needs=needs,
    risk=risk,
    keeps=lambda change: Keep((change.spec.path,)),
)
