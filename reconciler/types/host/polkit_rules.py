"""host.polkitRules: an audit that reads all of polkit's rules files of a host, whoever wrote them."""

from __future__ import annotations

import base64
import binascii
import io
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.errors import ProbeFailed
from reconciler.fields import AbsolutePath
from reconciler.model import CONTROL, IDENTITY, Change, Probe, ResourceType, Script, Spec
from reconciler.probe import expect
from reconciler.types.host import Meta, parse_meta, printable
from reconciler.types.host.polkit_lint import Problem, is_script, lint

FOLDERS: Final = (
    "/etc/polkit-1/rules.d",
    "/run/polkit-1/rules.d",
    "/usr/local/share/polkit-1/rules.d",
    "/usr/share/polkit-1/rules.d",
)
"""Where polkitd reads rules from."""
LARGEST: Final = 4 * 1024 * 1024
"""Bytes of all rules files of a host together."""


class PolkitRules(Spec):
    """Polkit's rules files, all of a host's, without a mistake that the engine keeps silent about (an audit)."""

    scope: Annotated[Literal["all"], IDENTITY] = "all"
    after: Annotated[tuple[AbsolutePath, ...], CONTROL] = Field((), description="Rules files of ours: read after them.")
    problems: tuple[tuple[str, str, str], ...] = Field(
        (), description="Rule, message and fix of each mistake that was found: none."
    )


# Prints `meta` of the folders and of what lies in them.
META: Final = r"""
n=$# newline='
'
while [ "$n" -gt 0 ]; do
    folder=$1 n=$((n - 1))
    shift
    [ -d "$ROOT$folder" ] && inside "$folder/x" >/dev/null || continue
    [ -r "$ROOT$folder" ] && [ -x "$ROOT$folder" ] || { echo "$folder cannot be read"; exit 1; }
    set -- "$@" "$folder"
    for file in "$ROOT$folder"/* "$ROOT$folder"/.[!.]*; do
        case $file in *"$newline"*) continue ;; esac
        if [ -e "$file" ] || [ -L "$file" ]; then set -- "$@" "${file#"$ROOT"}"; fi
    done
done
meta "$@"
"""

# One archive holds names and contents, whatever they are, and never waits at a pipe. Links are followed where they
# cannot lead out of an image.
CONTENT: Final = r"""
follow=
[ -n "$ROOT" ] || follow=-h
n=$# limit=$1
shift
while [ "$((n -= 1))" -gt 0 ]; do
    folder=$1
    shift
    [ -d "$ROOT$folder" ] && inside "$folder/x" >/dev/null && set -- "$@" "${folder#/}"
done
[ $# -eq 0 ] || tar -C "$ROOT/" $follow -b 1 -cf - -- "$@" | head -c "$limit" | base64
"""

# The groups of the user that polkitd runs as; nothing where there is no such user.
READER: Final = r"""
cd "$ROOT/etc" && awk -F: '
    FILENAME == "passwd" { if ($1 == "polkitd") { gid = $4; print "." }; next }
    gid != "" && ($3 == gid || ("," $4 ",") ~ /,polkitd,/) { print $1 }' passwd group
exit 0
"""


def probe(audits: Sequence[PolkitRules]) -> Probe:
    """Everything in one round; there is one such audit on a host."""
    metas, content, reader = yield [
        Script(META, FOLDERS),
        Script(CONTENT, [str(2 * LARGEST), *FOLDERS]),
        Script(READER),
    ]
    found = parse_meta(expect(metas, "reading polkit's rules"))
    groups = expect(reader, "/etc/group").split()
    state = {"problems": [list(problem) for problem in problems(found, unpack(content.text), groups)]}
    return [state for _ in audits]


def unpack(text: str) -> dict[str, bytes | None]:
    """The rules files by path; the content is None of what is no regular file.

    Raises:
        ProbeFailed: it is no archive, or too large.
    """
    try:
        raw = base64.b64decode(text, validate=False)
    except binascii.Error as error:
        raise ProbeFailed(f"polkit's rules cannot be read: {error}") from None
    if not raw:
        return {}
    out: dict[str, bytes | None] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:", encoding="utf-8") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() else None
                out[f"/{member.name}"] = file.read() if file else None
    except tarfile.TarError as error:
        raise ProbeFailed(f"polkit's rules cannot be read, or are larger than {LARGEST} bytes: {error}") from None
    return out


def problems(
    found: Mapping[str, Meta], contents: Mapping[str, bytes | None], reader: Sequence[str]
) -> Iterable[Problem]:
    """What is wrong, by path.

    Args:
        found: metadata of the folders and the files in them.
        contents: the files that could be read.
        reader: groups of the user that polkitd runs as, with "." in front; empty where there is no such user.
    """
    out: list[tuple[str, Problem]] = []
    scripts: dict[str, str] = {}
    for path, meta in sorted(found.items()):
        shown = printable(path)
        if meta.kind == "directory":
            if path in FOLDERS:
                out += [(path, p) for p in _access(shown, meta, reader, need=5)]
            continue
        content = contents.get(path)
        if not path.endswith(".rules"):
            out += [(path, p) for p in _ignored(path, shown, content)]
            continue
        out += [(path, p) for p in _access(shown, meta, reader, need=4)]
        if content is None:
            waits = "it is a pipe: polkitd waits at it, and answers nobody"
            message = (
                f"{shown}: {waits if meta.kind == 'fifo' else 'it is no file, or a link to none; polkit skips it'}."
            )
            out.append((path, ("unreadable", message, "Remove it, or put a file there.")))
            continue
        try:
            scripts[shown] = content.decode()
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            message = f"{shown}:{line}: it is not UTF-8; polkit skips this file."
            out.append((path, ("not-utf8", message, "Save it as UTF-8; in comments, too.")))
    return [p for _, p in sorted(out)] + lint(scripts)


def _access(shown: str, meta: Meta, reader: Sequence[str], need: int) -> Iterable[Problem]:
    """Who may write it, and whether polkitd may read it."""
    if meta.kind == "symbolic link":
        return
    mode = int(meta.mode, 8)
    if meta.owner not in ("root", "polkitd") or mode & 0o002 or (mode & 0o020 and meta.group != "root"):
        message = f"{shown}: others than root may write it ({meta.mode} {meta.owner}:{meta.group}), and so become root."
        yield "writable", message, f"Run `chown root {shown}` and `chmod go-w {shown}`."
    shift = 6 if meta.owner == "polkitd" else 3 if meta.group in reader else 0
    if reader and mode >> shift & need != need:
        message = f"{shown}: polkitd may not read it ({meta.mode} {meta.owner}:{meta.group}), so it counts for nothing."
        # A change of mode alone does not make polkitd look again.
        yield "unreadable", message, f"Run `chmod a+r {shown}`, then `systemctl reload polkit`."


KEPT_ASIDE: Final = re.compile(r"~|\.(?:bak|orig|old|save|disabled|swp|tmp|rej|dpkg-\w+|ucf-\w+|rpm\w+)")


def _ignored(path: str, shown: str, content: bytes | None) -> Iterable[Problem]:
    """Rules in a file whose name polkitd does not take, unless somebody put it aside."""
    name = path.rpartition("/")[2]
    if KEPT_ASIDE.search(name) or name.startswith(".reconciler."):
        return
    if content and is_script(content.decode("utf-8", "replace")):
        message = f"{shown}: polkit reads only names that end in .rules, so it counts for nothing."
        yield "ignored-name", message, f"Rename it to {printable(path.rpartition('.')[0] or path)}.rules, or remove it."


def findings(change: Change[PolkitRules]) -> Iterable[tuple[str, str, str]]:
    """The problems, as they are."""
    for rule, message, fix in (change.before or {}).get("problems") or ():
        yield rule, f"{change.resource.target}: {message}", fix


TYPE: ResourceType[Any] = ResourceType(
    "host.polkitRules",
    PolkitRules,
    probe,
    None,
    findings=findings,
    needs=lambda rules: (f"path:{path}" for path in rules.after),
)
