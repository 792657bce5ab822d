"""host.file: a regular file with its content, mode and owner."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler.fields import AbsolutePath, Account, Mode
from reconciler.model import (
    CONTROL,
    IDENTITY,
    Change,
    Composed,
    Keep,
    Probe,
    Put,
    ResourceType,
    Risk,
    Script,
    Secret,
    Sh,
    Sha256,
    Spec,
    Step,
)
from reconciler.probe import expect
from reconciler.types.host import folders_above, owners, package_of, parse_meta, same_mode

SHOWN_BYTES = 64 * 1024
"""Larger files are compared by digest and not shown."""


class File(Spec):
    """A regular file, written atomically."""

    path: Annotated[AbsolutePath, IDENTITY]
    type: Literal["regular file"] = "regular file"
    content: str | Secret | Composed | None = Field(None, description="All of the text.")
    mode: Mode | None = None
    owner: Account | None = None
    group: Account | None = None
    sensitive: Annotated[bool, CONTROL] = Field(
        False,
        description="Show only whether the content differs. The plan file still holds it; a secret is not even there.",
    )


def hidden(file: File) -> Iterable[str]:
    """Content that must not be shown."""
    return ("content",) if file.sensitive or isinstance(file.content, Secret) else ()


def probe(files: Sequence[File]) -> Probe:
    """First metadata and digests of all, in two programs; then the content of those few that differ."""
    paths = [f.path for f in files]
    (metas, sums) = yield [
        Script('meta "$@"', paths),
        Script(
            # Linear, and no matter how many they are: a list that exceeds one command line would look empty.
            'for p; do [ -L "$ROOT$p" ] || [ ! -f "$ROOT$p" ] || printf "%s\\0" "$ROOT$p"; done | '
            'look xargs -0 -r sha256sum -- && echo "root $ROOT"',
            [f.path for f in files if f.content is not None],
        ),
    ]
    meta = parse_meta(expect(metas, "stat"))
    digests = _digests(expect(sums, "sha256sum"))
    differing = [
        f.path
        for f in files
        if isinstance(f.content, str)
        and not hidden(f)
        and f.path in digests
        and digests[f.path] != Sha256.of(f.content).hex
        and meta[f.path].size <= SHOWN_BYTES
    ]
    shown: dict[str, str] = {}
    if differing:
        (content,) = yield [Script('for p; do base64 -- "$ROOT$p"; echo .; done', differing)]
        texts = content.text.split(".\n")
        shown = {p: text for p, raw in zip(differing, texts, strict=False) if (text := _text(raw)) is not None}
    return [_state(f, meta, digests, shown) for f in files]


def _digests(text: str) -> dict[str, str]:
    *lines, last = text.rstrip("\n").split("\n")
    root = last.removeprefix("root ")
    out = {}
    for line in lines:
        # coreutils escapes a backslash in a name and says so by a leading one.
        digest, _, name = line.lstrip("\\").partition("  ")
        out[(name.replace("\\\\", "\\") if line[0] == "\\" else name).removeprefix(root)] = digest
    return out


def _text(raw: str) -> str | None:
    content = base64.b64decode(raw)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _state(file: File, meta: Any, digests: dict[str, str], shown: dict[str, str]) -> dict[str, Any] | None:
    seen = meta.get(file.path)
    if seen is None:
        return None
    state = {"type": seen.kind, "mode": seen.mode, "owner": seen.owner, "group": seen.group}
    digest = digests.get(file.path)
    if digest is None:
        return state | {"content": None}
    if hidden(file):
        return state | {"content": Sha256(digest)}
    if isinstance(file.content, str) and digest == Sha256.of(file.content).hex:
        return state | {"content": file.content}
    return state | {"content": shown.get(file.path, f"(binary or large: {seen.size} bytes, SHA-256 {digest})")}


REFUSE = 'inside "$1"\n[ -f "$ROOT$1" ] && [ ! -L "$ROOT$1" ] || { echo "$1 is no regular file; it stays"; exit 1; }\n'


def steps(change: Change[File]) -> Iterable[Step]:
    """Write the file, or only what is around it."""
    file = change.spec
    if change.after is None:
        yield Sh('inside "$1" && rm -f -- "$ROOT$1"', (file.path,), title=f"remove {file.path}", quick=True)
        return
    if file.content is not None and (change.before is None or change.changed & {"content", "type"}):
        yield Put(file.path, file.content, file.mode, file.owner, file.group)
        return
    if change.before is None:
        yield Put(file.path, "", file.mode, file.owner, file.group)
        return
    if change.changed & {"type", "owner", "group"}:
        account = f"{file.owner or ''}{':' + file.group if file.group else ''}"
        yield Sh(
            REFUSE + 'own "$1" "$2" "$3"',
            (file.path, file.owner or "", file.group or ""),
            title=f"chown {account} {file.path}" if account else f"see to {file.path}",
            quick=True,
        )
    # After a change of owner, because that may clear the set-user-ID bit.
    if file.mode and change.changed & {"owner", "group", "mode"}:
        yield Sh(
            REFUSE + 'chmod -- "$2" "$ROOT$1"',
            (file.path, file.mode),
            title=f"chmod {file.mode} {file.path}",
            quick=True,
        )


LOCK_OUT = (
    "/etc/NetworkManager/",
    "/etc/doas.conf",
    "/etc/firewalld/",
    "/etc/hosts.allow",
    "/etc/hosts.deny",
    "/etc/iptables/",
    "/etc/netplan/",
    "/etc/network/",
    "/etc/nftables.",
    "/etc/nsswitch.conf",
    "/etc/pam.conf",
    "/etc/pam.d/",
    "/etc/polkit-1/",
    "/etc/security/",
    "/etc/ssh/sshd_config",
    "/etc/sudoers",
    "/etc/systemd/network/",
    "/etc/systemd/system/ssh.",
    "/etc/systemd/system/sshd.",
    "/etc/ufw/",
    "/root/.ssh/",
    "/usr/share/pam-configs/",
)


def risk(change: Change[File]) -> Risk | None:
    """Things in the way, and files by which people lock themselves out."""
    if change.before is not None and "type" in change.changed:
        return Risk("data-loss", f"a {change.before['type']} is in the way; apply refuses to replace it")
    return lock_out(change.spec.path)


def lock_out(path: str) -> Risk | None:
    """The risk of touching one of those files by which people lock themselves out."""
    if not path.startswith(LOCK_OUT):
        return None
    return Risk("lock-out", "a mistake here can keep everybody from logging in or becoming root")


TYPE = ResourceType(
    "host.file",
    File,
    probe,
    steps,
    hidden=hidden,
    normalize=same_mode,
    provides=lambda f: (f"path:{f.path}",),
    needs=lambda f: (*folders_above(f.path), *package_of(f.path), *owners(f.owner, f.group)),
    risk=risk,
    keeps=lambda change: Keep((change.spec.path,)),
)
