"""How `host.otpClient` and `host.otpKey` ask the validation server of a host, and tell it.

The server's program does both (see `reconciler.tools.otp.server`): `state` prints what is there as JSON, with digests
in place of secrets; `apply` takes a document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from reconciler.fields import AbsolutePath, Rule
from reconciler.model import CONTROL, Composed, Reply, Script, Secret, Sh, Spec, Step
from reconciler.probe import expect

PROGRAM: Final = "/usr/local/lib/otp-server/otp-server.py"
FOLDER: Final = "/etc/otp-server"
CONFIG: Final = f"{FOLDER}/config.json"
KEYS: Final = f"{FOLDER}/keys.json"
UNIT: Final = "otp-server.service"
STORE: Final = "/var/lib/otp-server"
"""Of the unit, which makes it; it stays when the server goes, because of what was counted."""
USER: Final = "otp-server"
PACKAGE: Final = "python3-cryptography"

Note = Annotated[
    str,
    Rule(r"[^\u0000-\u001f\u007f-\u00a0\u00ad\u2000-\u200f\u2028-\u202f]*", "one line of at most 100 characters", 100),
]


class Entry(Spec):
    """What the validation server knows by name."""

    active: bool | None = Field(None, description="Requests that concern it are answered.")
    notes: Note | None = Field(None, description="For people.")
    database: Annotated[str | None, CONTROL] = Field(None, description="Names the database that several servers share.")
    program: Annotated[AbsolutePath, CONTROL] = Field(PROGRAM, description="The server's program.")
    config: Annotated[AbsolutePath, CONTROL] = Field(CONFIG, description="The server's configuration.")


READ: Final = """[ -z "$OFFLINE" ] || { echo offline; exit 0; }
d=${2%/*}
[ ! -d "$d" ] || [ -x "$d" ] || { echo "Log in as root, or set become."; exit 1; }
[ -e "$1" ] && [ -e "$2" ] || exit 0
found=$(python3 "$1" state --config "$2" 2>&1) || { printf '%s\\n' "$found" | tail -n 3; exit 1; }
printf '%s\\n' "$found"
"""
"""What the server has, as JSON; nothing where there is no server yet."""


def reads(entries: Sequence[Entry]) -> list[Script]:
    """One look at each server; there is one on a host."""
    return [Script(READ, places) for places in _servers(entries)]


def _servers(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((entry.program, entry.config) for entry in entries))


def rows(entries: Sequence[Entry], replies: Sequence[Reply], part: str) -> list[list[Mapping[str, Any]] | None]:
    """For each entry all that its server has of this part, or `None` where nobody can see it (an image)."""
    found: dict[tuple[str, str], list[Mapping[str, Any]] | None] = {}
    for places, reply in zip(_servers(entries), replies, strict=True):
        text = expect(reply, "the validation server").strip()
        found[places] = None if text == "offline" else json.loads(text)[part] if text else []
    return [found[entry.program, entry.config] for entry in entries]


_APPLY: Final = """[ -z "$OFFLINE" ] || { echo "there is no validation server in an image"; exit 1; }
python3 "$1" apply --config "$2"
"""


def tell(entry: Entry, part: str, content: Any, secrets: Mapping[str, str | Secret], title: str) -> Iterable[Step]:
    """Give the server a document with one object.

    The first step changes nothing and says in words what is wrong with the server; what the second one says is withheld
    where it handles secrets.

    Args:
        part: the document's key, such as `clients`.
        content: the object, without secrets.
        secrets: its further keys.
    """
    places = (entry.program, entry.config)
    yield Sh(_APPLY, places, stdin='{"version": 1}', title="see that the validation server can be written to")
    whole = json.dumps({"version": 1, part: [content]})
    if not secrets:
        yield Sh(_APPLY, places, stdin=whole, title=title)
        return
    head, tail = whole[: -len("}]}")], whole[-len("}]}") :]
    words: list[str | Secret] = [head]
    for name, secret in secrets.items():
        words += [f", {json.dumps(name)}: ", json.dumps(secret) if isinstance(secret, str) else secret]
    yield Sh(_APPLY, places, stdin=Composed(parts=(*words, tail), form="json"), title=title)


def provides(entry: Entry, token: str) -> Iterable[str]:
    """An entry of this server, and of the database that others may share: it stays as long as one of them wants it."""
    return (token,) if entry.database is None else (token, f"@{entry.database}/{token}")


def needs(entry: Entry) -> Iterable[str]:
    """As much of the server as it takes to write to it."""
    files = (entry.program, entry.config, KEYS)
    return (*(f"path:{path}" for path in files), f"user:{USER}", f"package:{PACKAGE}", f"unit:{UNIT}")
