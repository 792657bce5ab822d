"""Host keys that are known: `known_hosts` files as OpenSSH writes and reads them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import ConnectError


@dataclass(frozen=True, slots=True)
class HostKey:
    """One key of a host.

    Attributes:
        kind: `ssh-ed25519`.
        text: the key in base64, as it stands in the file.
        marker: `@revoked`, `@cert-authority` or empty.
        place: file and line.
    """

    kind: str
    text: str
    marker: str = ""
    place: str = ""

    @property
    def fingerprint(self) -> str:
        """Kind and SHA-256, as `ssh-keygen -l` prints it."""
        try:
            blob = base64.b64decode(self.text)
        except binascii.Error:
            return f"{self.kind} (damaged)"
        return f"{self.kind} SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"


class KnownHosts:
    """The keys in one file, found by name: plain names at once, patterns and hashed names one by one.

    Args:
        file: where they stand; a file that does not exist knows nobody.

    Raises:
        ConnectError: the file cannot be read.
    """

    def __init__(self, file: str) -> None:
        self._plain: dict[str, list[HostKey]] = {}
        self._patterns: list[tuple[Sequence[str], HostKey]] = []
        self._hashed: list[tuple[bytes, bytes, HostKey]] = []
        try:
            text = Path(file).read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise ConnectError(f"the known hosts in {file} cannot be read: {error.strerror}.") from None
        for number, line in enumerate(text.splitlines(), 1):
            self._add(line, f"{file}:{number}")

    def _add(self, line: str, place: str) -> None:
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            return
        names, kind, text = words[:3]
        key = HostKey(kind, text, marker, place)
        if names.startswith("|1|"):
            try:
                salt, digest = (base64.b64decode(part) for part in names[3:].split("|"))
            except ValueError:
                return
            self._hashed.append((salt, digest, key))
        elif any(c in names for c in "*?!"):
            self._patterns.append((names.lower().split(","), key))
        else:
            for name in names.lower().split(","):
                self._plain.setdefault(name, []).append(key)

    def lookup(self, name: str) -> list[HostKey]:
        """All keys of a host. With another port than 22 its name is `[name]:port`."""
        name = name.lower()
        found = list(self._plain.get(name, ()))
        found += [key for patterns, key in self._patterns if _matches(name, patterns)]
        word = name.encode()
        found += [key for salt, digest, key in self._hashed if hmac.digest(salt, word, "sha1") == digest]
        return found


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """OpenSSH's pattern lists: `*`, `?`, and `!` for what must not match."""
    hit = False
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        expression = re.escape(bare).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(expression, name):
            if bare != pattern:
                return False
            hit = True
    return hit
