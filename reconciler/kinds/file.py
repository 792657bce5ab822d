"""File: a file, a link, a directory, a line or a block of lines on hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import AbsolutePath, Account, HostSelector, LocalPath, Mode, Rule
from reconciler.model import Document, Kind, Resource, Secret, Spec
from reconciler.types.host.block import BEGIN, END, BlockName, CommentPrefix
from reconciler.types.host.block import TYPE as host_block
from reconciler.types.host.directory import TYPE as host_directory
from reconciler.types.host.file import TYPE as host_file
from reconciler.types.host.line import TYPE as host_line
from reconciler.types.host.line import TextLine
from reconciler.types.host.symlink import TYPE as host_symlink
from reconciler.types.host.symlink import LinkTarget

FileName = Annotated[str, Rule(r"(?!\.\.?$)[^/\u0000-\u001f\u007f]+", "the name of a file, without a slash", 255)]
At = Sequence[str | int]
"""Where a body stands in its document."""


class DirectoryBody(Spec):
    """A directory."""

    purge: bool = Field(
        False,
        description="Remove every file right in it that no document describes. Folders in it stay as they are.",
    )
    keep: tuple[FileName, ...] = Field((), description="With `purge`: names that stay all the same.")


class LineBody(Spec):
    """A line of a file that others own."""

    text: TextLine = Field(description="The line.")
    match: TextLine | None = Field(
        None,
        description="A POSIX extended regular expression for the line that `text` replaces. Without a match, `text` is "
        "added at the end.",
    )


class BlockBody(Spec):
    """Lines of a file that others own."""

    text: str = Field(min_length=1, description="The lines.")
    name: BlockName | None = Field(
        None, description="Stands in the marks around the lines; the document's name by default."
    )
    comment: CommentPrefix = Field("#", description="What starts a comment line in that file.")
    create: bool = Field(True, description="Make the file if it is missing.")


class FileBody(Spec):
    """One path on a host."""

    path: AbsolutePath = Field(description="Where it stands.")
    content: str | Secret | None = Field(None, description="The whole text, or a secret.")
    source: LocalPath | None = Field(None, description="A file of this repo, relative to the document, to copy.")
    link: LinkTarget | None = Field(None, description="Make it a symbolic link that leads there.")
    directory: DirectoryBody | None = Field(None, description="Make it a directory; `{}` will do.")
    line: LineBody | None = Field(None, description="One line of a file whose other lines belong to others.")
    block: BlockBody | None = Field(None, description="Lines between two marks in a file that belongs to others.")
    mode: Mode | None = Field(None, description="Permissions, quoted; `0644` for new files, `0755` for directories.")
    owner: Account | None = Field(None, description="Owner; `root` for new files.")
    group: Account | None = Field(None, description="Group; `root` for new files.")
    sensitive: bool = Field(
        False,
        description="Show only whether the content differs. The plan file still holds it; a secret is not even there.",
    )
    ensure: Literal["present", "absent"] = Field(
        "present", description="`absent` removes the file, the link, the empty directory, the line or the block."
    )


class FileSpec(FileBody):
    """A file on hosts, or a part of one.

    Give `content` or `source` for a file as a whole, `link` for a symbolic link, `directory` for a directory, `line` or
    `block` for a part of a file that others own, or none of them to set only `mode`, `owner` and `group`. Files are
    replaced atomically and keep what is not declared here.

    Example:

        apiVersion: reconciler/v1
        kind: File
        metadata:
          name: motd
        spec:
          hosts: [web1]
          path: /etc/motd
          mode: "0644"
          content: |
            This host is managed. Edit the repo, not the host.
    """

    hosts: HostSelector


def resources(
    host: str, body: FileBody, document: Document[Any], catalog: Catalog, at: At = ("spec",)
) -> Iterable[Resource[Any]]:
    """The object of one path on one host.

    Args:
        at: where the body stands in the document.
    """
    path, absent = body.path, body.ensure == "absent"
    if body.link is not None:
        yield host_symlink(host, absent=absent, path=path, to=body.link)
    elif body.directory is not None:
        access = {"mode": body.mode, "owner": body.owner, "group": body.group}
        purge, keep = body.directory.purge, body.directory.keep
        yield host_directory(host, absent=absent, path=path, **access, purge=purge, keep=keep)
    elif body.line is not None:
        text, match = body.line.text, body.line.match
        yield host_line(host, absent=absent, path=path, name=match or text, line=text, match=match)
    elif body.block is not None:
        name, block = body.block.name or document.name, body.block
        fields = {"text": block.text, "comment": block.comment, "create": block.create}
        yield host_block(host, absent=absent, path=path, name=name, **fields)
    else:
        content = body.content if body.source is None else catalog.source(document, (*at, "source"), body.source)
        access = {"mode": body.mode, "owner": body.owner, "group": body.group}
        yield host_file(host, absent=absent, path=path, content=content, **access, sensitive=body.sensitive)


def expand(document: Document[FileSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The path on every selected host."""
    for host in catalog.hosts(document.spec.hosts):
        yield from resources(host, document.spec, document, catalog)


# ---------------------------------------------------------------------------------------------- checks

SHAPES: Final = ("content", "source", "link", "directory", "line", "block")
ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "content": frozenset({"mode", "owner", "group", "sensitive"}),
    "source": frozenset({"mode", "owner", "group", "sensitive"}),
    "link": frozenset(),
    "directory": frozenset({"mode", "owner", "group"}),
    "line": frozenset(),
    "block": frozenset(),
    "": frozenset({"mode", "owner", "group"}),
}
"""What goes together with each shape of a body."""
TOP: Final = re.compile(r"/[^/]*")


def check(document: Document[FileSpec], catalog: Catalog) -> Iterable[Problem]:
    """What the schema cannot say."""
    yield from problems(document.spec, document, catalog, ("spec",))


def problems(body: FileBody, document: Document[Any], catalog: Catalog, at: At) -> Iterable[Problem]:
    """What is wrong with one body, at its place in the document."""

    def problem(field: str | Sequence[str | int], message: str, fix: str) -> Problem:
        path = (*at, *((field,) if isinstance(field, str) else field))
        return catalog.problem(document, path, f"{_dotted(at)} {message}", fix)

    shapes = [name for name in SHAPES if getattr(body, name) is not None]
    if len(shapes) > 1:
        yield problem(shapes[1], f"has {' and '.join(shapes)}, which exclude each other.", "Keep one of them.")
        return
    shape = shapes[0] if shapes else ""
    absent = body.ensure == "absent"
    for name in ("mode", "owner", "group", "sensitive"):
        given = getattr(body, name) not in (None, False)
        if given and (absent or name not in ALLOWED[shape]):
            fix = f"Remove `{name}`."
            if not absent and shape in ("line", "block"):
                fix = f"Put `{name}` in a File of its own for {body.path}, without a {shape}."
            yield problem(name, f"has {name}, which says nothing about {_said(shape, absent)}.", fix)
    if absent and shape in ("content", "source"):
        yield problem(shape, f"has {shape} although it must be absent.", f"Remove `{shape}`, or `ensure: absent`.")
    if not absent and not shape and body.mode is body.owner is body.group is None:
        yield problem("path", "says nothing about the path.", f"Add one of {', '.join(SHAPES)}, mode, owner, group.")
    if body.directory is not None:
        yield from _check_directory(body, body.directory, absent, problem)
    if body.line is not None and body.line.match is not None:
        wrong = _no_expression(body.line.match)
        if wrong:
            fix = "Write a POSIX extended regular expression, for example ^#?PermitRootLogin[[:space:]]."
            yield problem(("line", "match"), f"has a match that is no expression: {wrong}.", fix)
    if body.block is not None and (BEGIN in body.block.text or END in body.block.text):
        fix = "Give only the lines between the marks."
        yield problem(("block", "text"), "has a block with marks of a block in it.", fix)
    if shape in ("line", "block"):
        for host in catalog.hosts(document.spec.hosts):
            owner = _whole_files(catalog).get((host, body.path))
            if owner is not None:
                message = f"changes a part of {body.path} on {host}, and {owner} describes all of its content."
                yield problem("path", message, f"Write it there, or take `content` or `source` out of {owner}.")
                break


def _check_directory(body: FileBody, directory: DirectoryBody, absent: bool, problem: Any) -> Iterable[Problem]:
    if directory.purge and absent:
        yield problem(("directory", "purge"), "purges what must be absent.", "Remove `purge`.")
    if directory.keep and not directory.purge:
        yield problem(("directory", "keep"), "keeps names although nothing is purged.", "Add `purge: true`.")
    if directory.purge and TOP.fullmatch(body.path):
        message = f"purges {body.path}, in which others put files, too."
        yield problem(("directory", "purge"), message, "Purge a directory below it that is all yours.")


def _said(shape: str, absent: bool) -> str:
    if absent:
        return "what must be absent"
    return {"": "mode and owner alone", "link": "a symbolic link"}.get(shape, f"a {shape}")


def _dotted(at: At) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")


def _no_expression(text: str) -> str:
    """Why a text is no POSIX extended regular expression; empty if it seems to be one. The host's grep decides."""
    found = re.search(r"\(\?|\\[dDsSwWhvAZ]", text)
    if found:
        return f"{found[0]} is not POSIX"
    try:
        re.compile(re.sub(r"\[:[a-z]+:\]", "a-z", text))
    except re.error as error:
        return str(error)
    return ""


@lru_cache(maxsize=1)
def _whole_files(catalog: Catalog) -> Mapping[tuple[str, str], str]:
    """(host, path) of every file whose whole content is described, with the document that does."""
    return {
        (host, body.path): document.address
        for document in catalog
        for body in _bodies(document)
        if body.content is not None or body.source is not None
        for host in catalog.hosts(document.spec.hosts)
    }


def _bodies(document: Document[Any]) -> Iterable[FileBody]:
    """Every description of a path in a document of any kind."""
    spec = document.spec
    found = (spec,) if isinstance(spec, FileBody) else getattr(spec, "files", ())
    return (body for body in found if isinstance(body, FileBody))


KIND = Kind("File", FileSpec, expand, check)
