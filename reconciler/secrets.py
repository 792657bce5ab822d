"""Secrets: references become values only inside `Connection.execute`, and keyed digests everywhere else.

Sources in this version: `env:NAME` and `file:PATH`. A keyed digest is HMAC-SHA-256 over the SHA-256 of the value,
with a random key that stays in the state folder: it shows whether a secret changed and cannot be searched by guessing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets as random
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from reconciler.composed import compose
from reconciler.errors import SecretError
from reconciler.model import Composed, Resource, Sealed, Secret, Sha256

REDACTED: Final = "(secret)"
KEY_BYTES: Final = 32
_SHORTEST: Final = 6  # shorter values are ordinary words; the output of steps that use them is withheld anyway


class Secrets:
    """Looks secrets up, seals them, and takes them out of text that a target printed."""

    def __init__(self, key: Callable[[], bytes], environ: Mapping[str, str] | None = None) -> None:
        self._new_key = key
        self._environ = os.environ if environ is None else environ
        self._values: dict[str, str] = {}

    @cached_property
    def _key(self) -> bytes:
        return self._new_key()

    @property
    def key_id(self) -> str:
        """Names the key without telling it: digests of two keys must not be compared."""
        return hmac.new(self._key, b"key id", hashlib.sha256).hexdigest()[:16]

    def reveal(self, secret: Secret) -> str:
        """The value.

        Raises:
            SecretError: it cannot be found.
        """
        if isinstance(secret, Composed):
            return compose(secret, self.reveal)
        ref = secret.secret_ref
        if ref not in self._values:
            self._values[ref] = self._look_up(ref)
        return self._values[ref]

    def _look_up(self, ref: str) -> str:
        source, _, name = ref.partition(":")
        match source:
            case "env":
                if name not in self._environ:
                    raise SecretError(f"the secret {ref} is not there. Set the environment variable {name}.")
                return self._environ[name]
            case "file":
                try:
                    return Path(name).expanduser().read_text().removesuffix("\n")
                except (OSError, UnicodeDecodeError) as error:
                    reason = getattr(error, "strerror", None) or "no UTF-8 text"
                    raise SecretError(f"the secret {ref} cannot be read: {reason}.") from None
        raise SecretError(f"the secret {ref} has no known source. Write env:NAME or file:PATH.")

    def seal(self, value: Secret | Sha256 | str) -> Sealed:
        """The keyed digest of a value."""
        if isinstance(value, Secret):
            value = self.reveal(value)
        plain = value if isinstance(value, Sha256) else Sha256.of(value)
        return Sealed(hmac.new(self._key, plain.hex.encode(), hashlib.sha256).hexdigest())

    def missing(self, resources: Iterable[Resource[Any]]) -> dict[str, str]:
        """Address -> reason, for each of these objects that has a secret which cannot be read."""
        found = {}
        for resource in resources:
            for name in type(resource.spec).model_fields:
                value = getattr(resource.spec, name)
                if isinstance(value, Secret):
                    try:
                        self.reveal(value)
                    except SecretError as error:
                        found[resource.address] = str(error)
        return found

    def redact(self, text: str) -> str:
        """The text without any value that was revealed so far, as it stands, by line, or in base64."""
        for value in self._values.values():
            forms = {value, base64.b64encode(value.encode()).decode().rstrip("="), *value.splitlines()}
            for form in sorted((f for f in forms if len(f) >= _SHORTEST), key=len, reverse=True):
                text = text.replace(form, REDACTED)
        return text


def key_in(folder: Path) -> Callable[[], bytes]:
    """The key of a state folder, made when it is first needed."""

    def key() -> bytes:
        file = folder / "key"
        try:
            if not file.exists():
                _make_key(file)
            found = file.read_bytes()
        except OSError as error:
            raise SecretError(f"the key for digests cannot be made or read in {folder}: {error.strerror}.") from None
        if len(found) < KEY_BYTES:
            raise SecretError(f"{file} is damaged. Restore it, or delete it: then plans that exist are void.")
        return found

    return key


def _make_key(file: Path) -> None:
    """All or nothing, and once: another program may be doing the same."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_name(f".key-{random.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(random.token_bytes(KEY_BYTES))
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()
