"""Secrets: references become values only inside `Connection.execute`, and keyed digests everywhere else.

Sources: `path/key` (the store, see `secret_store.py`), `env:NAME`, `file:PATH`, and `command:PROGRAM ARGUMENTS`. A
keyed digest is HMAC-SHA-256 over the SHA-256 of the value, with a random key that stays in the state folder: it shows
whether a secret changed and cannot be searched by guessing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import html
import json
import os
import re
import secrets as random
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

from pydantic import BaseModel, ValidationError

from reconciler.composed import compose
from reconciler.errors import SecretError
from reconciler.model import Composed, Resource, Sealed, Secret, Sha256

REDACTED: Final = "(secret)"
KEY_BYTES: Final = 32
MAX_BYTES: Final = 16 << 20
"""Of a `file:`."""
COMMAND_SECONDS: Final = 60
"""How long a `command:` may take: some ask a person to touch a key."""
_SHORTEST: Final = 6  # shorter values are ordinary words; the output of steps that use them is withheld anyway

Lookup = Callable[[str], str]
"""Gives the value of `path/key`, or raises SecretError."""


class Secrets:
    """Looks secrets up, seals them, and takes them out of text that a target printed. Threads may share it.

    Args:
        key: gives the key for digests.
        environ: for `env:`.
        store: looks `path/key` up.
        write: puts a value into the store, in place of an older one.
    """

    def __init__(
        self,
        key: Callable[[], bytes],
        environ: Mapping[str, str] | None = None,
        store: Lookup | None = None,
        write: Callable[[str, str], object] | None = None,
        check_writable: Callable[[str], object] = lambda reference: None,
    ) -> None:
        self._new_key = key
        self._environ = os.environ if environ is None else environ
        self._store, self._write, self._check_writable = store, write, check_writable
        self._values: dict[str, str] = {}
        self._lock = threading.RLock()
        self._search: re.Pattern[str] | None = None

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
            return self._spelled(secret)
        ref = secret.secret_ref
        with self._lock:
            if ref not in self._values:
                value = self._look_up(secret)
                if not value:
                    # What a CI system gives for a secret that it does not have.
                    raise SecretError(f"the secret {ref} is empty.")
                self._values[ref] = value
                self._search = None
            return self._values[ref]

    def check_keep(self, secret: Secret) -> None:
        """Make sure that `keep` would work, before the value is made.

        Raises:
            SecretError, InvalidInput: it would not.
        """
        if self._write is None or not secret.in_store:
            raise SecretError(f"the secret {secret.secret_ref} cannot be written: it does not lie in the store.")
        self._check_writable(secret.secret_ref)

    def keep(self, secret: Secret, value: str) -> None:
        """Put a value that a target made into the store, in place of an older one.

        Raises:
            SecretError: there is no store, or it cannot be written. The value is lost then.
        """
        with self._lock:
            self._values[secret.secret_ref] = value
            self._search = None
        if self._write is None or not secret.in_store:
            raise SecretError(f"the secret {secret.secret_ref} cannot be written: it does not lie in the store.")
        self._write(secret.secret_ref, value)

    def _spelled(self, composed: Composed) -> str:
        text = compose(composed, self.reveal)
        if composed.form == "sealed":
            # For places that everybody may read: it changes with the secrets and does not tell them.
            return self.seal(text).digest
        if len(composed.parts) == 1:
            # A secret in another spelling, which must not be seen either.
            with self._lock:
                if text not in self._values.values():
                    self._values[f"{composed.form} {len(self._values)}"] = text
                    self._search = None
        return text

    def _look_up(self, secret: Secret) -> str:
        ref = secret.secret_ref
        if secret.in_store:
            if self._store is None:
                raise SecretError(f"the secret {ref} cannot be read: there is no store here.")
            try:
                return self._store(ref)
            except SecretError as error:
                if secret.generate and re.search(r" is not (there:|in )", str(error)):
                    raise SecretError(f"{error} Or run `reconciler secrets generate`.") from None
                raise
        source, _, name = ref.partition(":")
        match source:
            case "env":
                if name not in self._environ:
                    raise SecretError(f"the secret {ref} is not there. Set the environment variable {name}.")
                return _text(ref, os.fsencode(self._environ[name]))
            case "command":
                return printed(ref, name)
        try:
            with Path(name).expanduser().open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except (OSError, RuntimeError) as error:  # RuntimeError: no home folder of that name
            reason = getattr(error, "strerror", None) or "there is no such home folder"
            raise SecretError(f"the secret {ref} cannot be read: {reason}.") from None
        if len(raw) > MAX_BYTES:
            raise SecretError(f"the secret {ref} is larger than {MAX_BYTES >> 20} MiB.")
        return _text(ref, raw).removesuffix("\n")

    def seal(self, value: Secret | Sha256 | str) -> Sealed:
        """The keyed digest of a value."""
        if isinstance(value, Secret):
            value = self.reveal(value)
        plain = value if isinstance(value, Sha256) else Sha256.of(value)
        return Sealed(hmac.new(self._key, plain.hex.encode(), hashlib.sha256).hexdigest())

    def missing(self, resources: Iterable[Resource[Any]]) -> dict[str, str]:
        """Address -> reason, for each of these objects that has a secret which cannot be read."""
        found = {}
        resources = list(resources)
        reasons: dict[int, str] = {}  # many targets have the same spec
        for resource in resources:
            spec = resource.spec
            if id(spec) not in reasons:
                try:
                    for secret in references(spec):
                        self.reveal(secret)
                    reasons[id(spec)] = ""
                except SecretError as error:
                    reasons[id(spec)] = str(error)
            if reasons[id(spec)]:
                found[resource.address] = reasons[id(spec)]
        return found

    def redact(self, text: str) -> str:
        """The text without any value that was revealed so far: as it stands, by line, in base64, in hex, and escaped
        for JSON, URLs, XML and the shell."""
        if not text:
            return text
        with self._lock:
            if self._search is None and self._values:
                forms = {form for value in self._values.values() for form in _forms(value) if len(form) >= _SHORTEST}
                longest_first = sorted(forms, key=len, reverse=True)
                self._search = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
            search = self._search
        return search.sub(REDACTED, text) if search else text


def _forms(value: str) -> Iterator[str]:
    raw = value.encode("utf-8", "surrogateescape")
    yield from (value, *value.splitlines())
    # The middle of base64 is the same wherever the value stands in a longer text.
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            whole = encode(b"\0" * offset + raw).decode()
            yield whole[4 if offset else 0 : (offset + len(raw)) * 8 // 6]
    yield from (raw.hex(), raw.hex().upper())
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
    yield from (quote(raw), quote(raw, safe=""), quote_plus(raw))
    yield from (html.escape(value), html.escape(value, quote=False))
    yield value.replace("'", "'\"'\"'")


def _text(ref: str, raw: bytes) -> str:
    """The value as text; the error carries nothing of it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise SecretError(f"the secret {ref} cannot be read: no UTF-8 text.") from None


def printed(ref: str, command: str) -> str:
    """What a program prints. What it says on standard error is not passed on: it may hold anything.

    Args:
        ref: what the value is called in messages.
        command: the program and its arguments, quoted as for sh.

    Raises:
        SecretError: it failed, or printed nothing.
    """
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise SecretError(f"the secret {ref} cannot be read: {error}.") from None
    if not argv:
        raise SecretError(f"the secret {ref} names no program.")
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SecretError(f"the secret {ref} took longer than {COMMAND_SECONDS} s. Run the command by hand.") from None
    except OSError as error:
        raise SecretError(f"the secret {ref} cannot be read: {argv[0]}: {error.strerror}.") from None
    if done.returncode:
        raise SecretError(f"the secret {ref} cannot be read: exit status {done.returncode}. Run the command by hand.")
    text = _text(ref, done.stdout).removesuffix("\n")
    if not text:
        raise SecretError(f"the secret {ref} cannot be read: the command printed nothing.")
    return text


# ------------------------------------------------------------------------------------------------ inside values


def is_reference(value: Any) -> bool:
    """Whether a plain mapping stands for a secret: `{secretRef: text}`, maybe with `generate`, and nothing else."""
    return isinstance(value, Mapping) and isinstance(value.get("secretRef"), str) and value.keys() <= _KEYS


_KEYS: Final = frozenset(("secretRef", "generate"))


def as_secret(value: Any) -> Secret | None:
    """A `Secret`, or a mapping that stands for one; None for anything else.

    Raises:
        SecretError: the mapping names no source that there is.
    """
    if isinstance(value, Secret):
        return value
    if not is_reference(value):
        return None
    try:
        return Secret.model_validate(value)
    except ValidationError:
        raise SecretError(
            f"secretRef {value['secretRef']!r} is not allowed. Write path/key, env:NAME, file:PATH or command:PROGRAM."
        ) from None


def references(value: Any) -> Iterator[Secret]:
    """Every secret inside a value, at any depth of models, lists and mappings (also as `{"secretRef": ...}`).

    Raises:
        SecretError: a mapping that looks like a reference is none.
    """
    secret = as_secret(value)
    if secret is not None:
        yield secret
        if isinstance(secret, Composed):
            yield from (part for part in secret.parts if isinstance(part, Secret))
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            inner = getattr(value, name)
            if not isinstance(inner, str | int | None):
                yield from references(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from references(inner)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, Any]]]:
    """Every mapping inside plain data that stands for a secret, with its path."""
    if is_reference(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def reveal_in(value: Any, reveal: Callable[[Secret], str]) -> Any:
    """A body for an API as plain JSON values, with every secret in it revealed; for inside `Connection.execute` only.

    Raises:
        SecretError: one cannot be revealed.
    """
    secret = as_secret(value)
    if secret is not None:
        return reveal(secret)
    if isinstance(value, BaseModel):
        declared = value.model_fields_set
        fields = type(value).model_fields.items()
        value = {
            about.alias or name: inner
            for name, about in fields
            if name in declared and (inner := getattr(value, name)) is not None
        }
    if isinstance(value, Mapping):
        return {key: reveal_in(inner, reveal) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [reveal_in(inner, reveal) for inner in value]
    return value


# ------------------------------------------------------------------------------------------------ the key for digests


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
