"""host.directory: a directory with its mode and owner, if wished without strangers in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reconciler.fields import AbsolutePath, Account, Mode
from reconciler.model import CONTROL, IDENTITY, Change, Keep, Probe, ResourceType, Risk, Script, Sh, Spec, State, Step
from reconciler.probe import expect
from reconciler.types.host import folders_above, owners, package_of, parse_meta, same_mode
from reconciler.types.host.file import lock_out


class Directory(Spec):
    """A directory. What lies in it is left alone, unless `purge` is set."""

    path: Annotated[AbsolutePath, IDENTITY]
    type: Literal["directory"] = "directory"
    mode: Mode | None = None
    owner: Account | None = None
    group: Account | None = None
    strangers: tuple[str, ...] | None = Field(
        None, description="Files right in it that nothing describes: none, with `purge`. Folders do not count."
    )
    purge: Annotated[bool, CONTROL] = Field(False, description="Remove files in it that nothing describes.")
    keep: Annotated[tuple[str, ...], CONTROL] = Field((), description="Names that a purge leaves in place.")

    @model_validator(mode="before")
    @classmethod
    def _no_strangers(cls, fields: Any) -> Any:
        return {**fields, "strangers": ()} if isinstance(fields, dict) and fields.get("purge") else fields


def among(directory: Directory, tokens: Collection[str]) -> Directory:
    """Keep what anything else on the host puts here."""
    if not directory.purge:
        return directory
    folder = "path:" + directory.path.rstrip("/") + "/"
    described = {token[len(folder) :].partition("/")[0] for token in tokens if token.startswith(folder)}
    return directory.model_copy(update={"keep": tuple(sorted({*directory.keep, *described}))})


# By xargs, because more paths than fit into one command line would all look empty.
READ = """echo "$ROOT"
for p; do printf '%s\\0' "$ROOT$p"; done |
    look xargs -0 -r sh -c 'find "$@" -mindepth 1 -maxdepth 1 ! -type d -printf "%H\\0%f\\0"' sh
"""


def probe(directories: Sequence[Directory]) -> Probe:
    """Metadata of all, and the files in those that are purged, in two programs."""
    (metas, names) = yield [
        Script('meta "$@"', [d.path for d in directories]),
        Script(READ, [d.path for d in directories if d.purge]),
    ]
    meta = parse_meta(expect(metas, "stat"))
    root, _, rest = expect(names, "find").partition("\n")
    words = iter(rest.split("\0"))
    files: dict[str, list[str]] = {}
    for folder, name in zip(words, words, strict=False):
        files.setdefault(folder.removeprefix(root), []).append(name)
    states: list[State | None] = []
    for directory in directories:
        seen = meta.get(directory.path)
        if seen is None:
            states.append(None)
            continue
        strangers = sorted(set(files.get(directory.path, ())) - set(directory.keep))
        states.append(
            {"type": seen.kind, "mode": seen.mode, "owner": seen.owner, "group": seen.group}
            | {"strangers": [written(name) for name in strangers]}
        )
    return states


def written(name: str) -> str:
    """Any file name as printable text; `literal` turns it back."""
    raw = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return "".join(
        "\\\\" if c == "\\" else f"\\x{ord(c) & 0xFF:02x}" if c < " " or c == "\x7f" or "\udc80" <= c <= "\udcff" else c
        for c in raw
    )


def literal(text: str) -> str:
    """The file name that `written` made this of."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "\\\\":
            return "\\"
        return bytes([int(match[1], 16)]).decode("utf-8", "surrogateescape")

    return re.sub(r"\\\\|\\x([0-9a-f]{2})", one, text)


REFUSE = '[ -d "$ROOT$1" ] && [ ! -L "$ROOT$1" ] || { echo "$1 is no directory; it is not replaced"; exit 1; }\n'


def steps(change: Change[Directory]) -> Iterable[Step]:
    """Make it, set what differs, remove the strangers that the plan names. Only an empty directory is removed."""
    directory = change.spec
    path, mode, owner, group = directory.path, directory.mode, directory.owner or "", directory.group or ""
    if change.after is None:
        yield Sh(
            'inside "$1"\n'
            '[ -L "$ROOT$1" ] || [ ! -d "$ROOT$1" ] || [ -z "$(ls -A -- "$ROOT$1")" ] || '
            '{ echo "$1 is not empty, so it stays:"; ls -A -- "$ROOT$1" | head -n 5; exit 1; }\n'
            '[ ! -e "$ROOT$1" ] || rmdir -- "$ROOT$1"',
            (path,),
            title=f"remove the empty directory {path}",
            quick=True,
        )
        return
    if change.before is None:
        yield Sh(
            'inside "$1"\nd=${1%/*}\n[ -d "$ROOT$d/" ] || { echo "there is no folder $d; describe it, too"; exit 1; }\n'
            '[ -e "$ROOT$1" ] || mkdir -m "$2" -- "$ROOT$1"\n'
            f'{REFUSE}own "$1" "$3" "$4"\nchmod -- "$2" "$ROOT$1"\nsync -- "$ROOT${{1%/*}}/"',
            (path, mode or "0755", owner, group),
            title=" ".join(filter(None, ("make the directory", path, _access(mode or "0755", owner, group)))),
            quick=True,
        )
    elif change.changed & {"type", "mode", "owner", "group"}:
        yield Sh(
            f'inside "$1"\n{REFUSE}own "$1" "$3" "$4"\n[ -z "$2" ] || chmod -- "$2" "$ROOT$1"',
            (path, mode or "", owner, group),
            title=f"set {path} to {_access(mode or '', owner, group) or 'a directory'}",
            quick=True,
        )
    strangers = tuple(change.before["strangers"] or ()) if change.before and "strangers" in change.changed else ()
    if strangers:
        yield Sh(
            f'inside "$1/."\n{REFUSE}d=$ROOT$1; shift\ncd -P -- "$d"\nfor n; do rm -f -- "$n"; done',
            (path, *map(literal, strangers)),
            title=f"remove from {path}: {', '.join(strangers)}",
            quick=True,
        )


def _access(mode: str, owner: str, group: str) -> str:
    account = f"{owner}:{group}" if group else owner
    return " ".join(filter(None, (mode, account)))


def risk(change: Change[Directory]) -> Risk | None:
    """Purged files are lost."""
    if change.before is not None and change.after is not None:
        if "type" in change.changed:
            return Risk("data-loss", f"a {change.before['type']} is in the way; apply refuses to replace it")
        if "strangers" in change.changed:
            count = len(change.before["strangers"] or ())
            kind: Literal["lock-out", "data-loss"] = "lock-out" if lock_out(change.spec.path + "/") else "data-loss"
            return Risk(kind, f"{count} file{'s' * (count != 1)} that nothing describes will be removed")
    return lock_out(change.spec.path + "/")


def keeps(change: Change[Directory]) -> Keep | None:
    """The whole folder, where that is a few files that decide who gets in."""
    return Keep((change.spec.path,)) if lock_out(change.spec.path + "/") else None


TYPE = ResourceType(
    "host.directory",
    Directory,
    probe,
    steps,
    normalize=same_mode,
    among=among,
    provides=lambda d: (f"path:{d.path}",),
    needs=lambda d: (*folders_above(d.path), *package_of(d.path), *owners(d.owner, d.group)),
    risk=risk,
    keeps=keeps,
)
