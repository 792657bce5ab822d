"""One SOPS file: opened and verified, changed, closed again.

What is not touched keeps its ciphertext byte for byte, so that a change in Git shows what changed and nothing else
(but for `mac` and `lastmodified`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from reconciler.errors import InvalidInput, Problem, SecretError
from reconciler.sops import age
from reconciler.sops.cipher import (
    KEY_BYTES,
    Path,
    Scalar,
    additional_data,
    decrypt,
    encrypt,
    is_encrypted,
    mac,
)
from reconciler.sops.jsontext import JsonText
from reconciler.sops.yamltext import METADATA_KEY, YamlText

VERSION: Final = "3.9.0"
"""The version of sops whose format we write. Its readers use it to allow for errors of older versions."""
DEFAULT_RULE: Final = ("unencrypted_suffix", "_unencrypted")
_SUFFIXES: Final = ("unencrypted_suffix", "encrypted_suffix")
_PATTERNS: Final = ("unencrypted_regex", "encrypted_regex")
_BY_COMMENT: Final = ("unencrypted_comment_regex", "encrypted_comment_regex")
RULES: Final = (*_SUFFIXES, *_PATTERNS)
_OTHER_KEYS: Final = ("kms", "gcp_kms", "azure_kv", "hc_vault", "pgp", "hckms", "barbican")

Text = YamlText | JsonText


@dataclass(frozen=True)
class Rule:
    """Which values of a file are encrypted: those with (or without) a key on their path that fits.

    Attributes:
        name: of the metadata field, such as `encrypted_regex`.
        value: the suffix or regular expression.
    """

    name: str
    value: str

    @cached_property
    def _fits(self) -> Callable[[str], Any]:
        if self.name in _SUFFIXES:
            return lambda key: key.endswith(self.value)
        return re.compile(self.value).search

    def check(self) -> None:
        """Compile the pattern.

        Raises:
            ValueError: it is not one that Python and Go both know.
        """
        try:
            self._fits("")
        except re.error as error:
            raise ValueError(f"{self.name} is no regular expression: {error}") from None

    def encrypts(self, path: Sequence[str | int]) -> bool:
        """Whether a value at this path is encrypted."""
        fits = any(self._fits(key) for key in path if isinstance(key, str))
        return fits if self.name.startswith("encrypted_") else not fits


def parse(text: str, file: str) -> Text:
    """The text of a file with its places; JSON where the name says so.

    Raises:
        InvalidInput: it is not YAML or JSON.
    """
    return JsonText(text, file) if file.endswith(".json") else YamlText(text, file)


class Encrypted:
    """A file as it stands in the repo. Its keys are plain, its values are not.

    Args:
        text: of the file.
        file: its name, for messages.

    Raises:
        InvalidInput: it is no SOPS file, or one of a kind that we do not know.
    """

    def __init__(self, text: str, file: str) -> None:
        self.text = parse(text, file)
        self.file = file
        metadata = self.text.metadata
        if metadata is None:
            raise self._problem(
                "is not encrypted: it has no sops section.",
                "Secrets that lay in the clear are known: change them, and write them with `reconciler secrets set`.",
            )
        self.metadata = metadata
        for name in ("mac", "lastmodified"):
            if not isinstance(metadata.get(name), str) or not metadata[name]:
                raise self._problem(f"sops.{name} is missing: the file is damaged.", "Restore it from Git.")
        if metadata.get("key_groups"):
            raise self._problem(
                "has key groups (Shamir's secret sharing), which are not supported.",
                "Use one group: `sops updatekeys` with a .sops.yaml without key_groups.",
            )
        rules = [Rule(name, str(metadata[name])) for name in RULES if metadata.get(name)]
        if len(rules) > 1:
            raise self._problem(f"has both {rules[0].name} and {rules[1].name}.", "Keep one: sops refuses it, too.")
        self.rule = rules[0] if rules else Rule(*DEFAULT_RULE)
        self.rule_by_comment = next((name for name in _BY_COMMENT if metadata.get(name)), "")
        try:
            self.rule.check()
        except ValueError as error:
            raise self._problem(f"sops.{error}.") from None
        self.mac_only_encrypted = str(metadata.get("mac_only_encrypted", "")).lower() in ("true", "1", "t")

    def _problem(self, message: str, fix: str = "", path: Path = (METADATA_KEY,)) -> InvalidInput:
        return InvalidInput([Problem(message, fix, position=self.text.position(path))])

    @property
    def recipients(self) -> list[str]:
        """For whom the file is encrypted by age."""
        return [str(entry.get("recipient", "?")) for entry in self.entries]

    @property
    def entries(self) -> list[Mapping[str, Any]]:
        """`sops.age`."""
        found = self.metadata.get("age")
        return [e for e in found if isinstance(e, Mapping)] if isinstance(found, list) else []

    @property
    def other_keys(self) -> list[str]:
        """Names of the other key services that can open the file, such as pgp: kept, and never used."""
        return [name for name in _OTHER_KEYS if self.metadata.get(name)]

    def must_be_encrypted(self, path: Path, written: Scalar) -> bool:
        """Whether a value is encrypted; where comments decide, what is written tells."""
        if self.rule_by_comment:
            return is_encrypted(written.text)
        return self.rule.encrypts(path)

    def unlock(self, have: Callable[[], age.Identities]) -> Opened:
        """Decrypt everything and verify it.

        Raises:
            SecretError: no identity opens it, or it was tampered with; the text names file, line and key.
        """
        return Opened(self, age.unwrap(self.entries, have, self.file))


class Opened:
    """A file whose values are known and proven right. Never printed."""

    def __init__(self, encrypted: Encrypted, data_key: bytes) -> None:
        self._encrypted, self._key = encrypted, data_key
        self._text = encrypted.text
        self.values: dict[Path, Scalar] = {}
        broken = []
        for leaf in self._text.leaves:
            value = leaf.written
            if value.type == "str" and encrypted.must_be_encrypted(leaf.path, value):
                try:
                    value = decrypt(value.text, data_key, additional_data(leaf.path))
                except ValueError as error:
                    broken.append(f"{self._text.position(leaf.path)}: {dotted(leaf.path)} {error}.")
            elif value.type != "null" and encrypted.must_be_encrypted(leaf.path, value):
                broken.append(
                    f"{self._text.position(leaf.path)}: {dotted(leaf.path)} is not encrypted as SOPS does it."
                )
            self.values[leaf.path] = value
        if broken:
            raise SecretError("\n".join(broken) + "\nRestore the file from Git.")
        self._verify()

    def __repr__(self) -> str:
        return f"Opened({self._encrypted.file})"

    @property
    def recipients(self) -> list[str]:
        """For whom the file is encrypted by age."""
        return self._encrypted.recipients

    def _verify(self) -> None:
        metadata = self._encrypted.metadata
        place = self._text.position((METADATA_KEY, "mac"))
        try:
            wanted = decrypt(metadata["mac"], self._key, metadata["lastmodified"].encode()).text
        except ValueError:
            raise SecretError(
                f"{place}: sops.mac or sops.lastmodified was changed. Restore the file from Git."
            ) from None
        if wanted != self._mac(self._text, self.values):
            raise SecretError(
                f"{place}: sops.mac does not fit the values: a key was removed, added, or put in another place, or a "
                "plain value or a rule of the sops section was edited by hand. Restore the file from Git, and edit it "
                "with `reconciler secrets edit`."
            )

    def _mac(self, text: Text, values: Mapping[Path, Scalar]) -> str:
        only = self._encrypted.mac_only_encrypted
        return mac(
            (
                values[leaf.path]
                for leaf in text.leaves
                if values[leaf.path].type != "null"
                and not (only and not self._encrypted.must_be_encrypted(leaf.path, leaf.written))
            ),
            only_encrypted=only,
        )

    def value(self, path: Path) -> Scalar | None:
        """The value at a path, if one stands there."""
        return self.values.get(path)

    def with_values(self, values: Mapping[Path, Scalar]) -> str:
        """The file with some values set or added.

        Raises:
            SecretError: something else is in the way, or the file's rule leaves this key in the clear.
        """
        self._writable()
        sealed = {}
        for path, value in values.items():
            if not self._encrypted.rule.encrypts(path):
                rule = f"{self._encrypted.rule.name}: {self._encrypted.rule.value}"
                raise SecretError(f"{self._encrypted.file}: {dotted(path)} would not be encrypted ({rule}).")
            sealed[path] = Scalar("str", encrypt(value, self._key, additional_data(path)))
        text = self._text.edited({path: value for path, value in sealed.items() if path in self.values})
        new = {path: value for path, value in sealed.items() if path not in self.values}
        try:
            text = parse(text, self._encrypted.file).inserted(new)
        except KeyError as error:
            what = dotted(error.args[0])
            raise SecretError(f"{self._encrypted.file}: {what} is a value or a list, no mapping.") from None
        return self._closed(text, {**self.values, **values}, self._key)

    def plaintext(self) -> str:
        """The file as a person edits it: without encryption and without the sops section."""
        comments = {}
        for comment in self._text.comments:
            opened = self._comment(comment.text, comment.paths)
            if opened is not None:
                comments[comment.start] = opened
        return self._text.edited(self.values, comments, None)

    def _comment(self, text: str, paths: Sequence[Path]) -> str | None:
        for path in paths if is_encrypted(text) else ():
            try:
                return decrypt(text, self._key, additional_data(path)).text
            except ValueError:
                continue
        return None

    def with_plaintext(self, plain: str) -> str:
        """The file with what a person made of its `plaintext`. Unchanged values keep their ciphertext.

        Raises:
            InvalidInput: it is no YAML or JSON that can be encrypted.
        """
        self._writable()
        if plain == self.plaintext():
            return self._text.text
        known = {}
        for leaf in self._text.leaves:
            if is_encrypted(leaf.written.text):
                known[additional_data(leaf.path), self.values[leaf.path]] = leaf.written.text
        for comment in self._text.comments:
            opened = self._comment(comment.text, comment.paths)
            for path in comment.paths if opened is not None else ():
                known.setdefault((additional_data(path), Scalar("comment", opened or "")), comment.text)
        sealed, values = _sealed(plain, self._encrypted.file, self._encrypted.rule, self._key, known)
        text = parse(sealed, self._encrypted.file).edited({}, None, self._encrypted.metadata)
        return self._closed(text, values, self._key)

    def rotated(self, recipients: Sequence[str] | None = None) -> str:
        """The file with a new data key, so that who has the old one cannot read what is written from now on.

        Args:
            recipients: for whom; by default for the same.

        Raises:
            SecretError: the key is wrapped by other services, too, which only sops can do.
        """
        self._writable()
        if self._encrypted.other_keys:
            raise SecretError(
                f"{self._encrypted.file} is also encrypted by {', '.join(self._encrypted.other_keys)}: a new data key "
                "cannot be wrapped for that. Use `sops rotate`, or remove it there first."
            )
        readers = self.recipients if recipients is None else recipients
        if not readers:
            raise SecretError(f"{self._encrypted.file} would be encrypted for nobody.")
        key = os.urandom(KEY_BYTES)
        entries = age.wrap(key, readers)
        sealed, values = _sealed(self.plaintext(), self._encrypted.file, self._encrypted.rule, key, {})
        metadata = {**self._encrypted.metadata, "age": entries}
        text = parse(sealed, self._encrypted.file).edited({}, None, metadata)
        return self._closed(text, values, key)

    def with_recipients(self, added: Sequence[str]) -> str:
        """The file with its data key wrapped for more recipients. Everything else stays as it is."""
        self._writable()
        added = [recipient for recipient in added if recipient not in map(age.bare, self.recipients)]
        if not added:
            return self._text.text
        entries = [*self._encrypted.entries, *age.wrap(self._key, added)]
        text = self._text.edited({}, None, {**self._encrypted.metadata, "age": entries})
        return self._closed(text, self.values, self._key, touch=False)

    def _writable(self) -> None:
        if self._encrypted.rule_by_comment:
            raise SecretError(
                f"{self._encrypted.file}: by {self._encrypted.rule_by_comment}, comments decide what is encrypted. "
                "Such files are only read here; change it with sops."
            )

    def _closed(self, text: str, values: Mapping[Path, Scalar], key: bytes, *, touch: bool = True) -> str:
        """The text with a MAC that fits, opened once more before anybody writes it."""
        if touch:
            text = _with_mac(text, self._encrypted.file, lambda parsed: self._mac(parsed, values), key)
        again = Opened(Encrypted(text, self._encrypted.file), key)
        if again.values != values:
            raise SecretError(f"{self._encrypted.file} would not be read back as it was meant; nothing was written.")
        return text


def new(plain: str, file: str, recipients: Sequence[str], rule: Rule | None = None) -> str:
    """A new SOPS file.

    Args:
        plain: its content in YAML (or JSON, where the name says so).
        recipients: who may read it.
        rule: which values are encrypted; by default all whose keys do not end in `_unencrypted`.

    Raises:
        InvalidInput: the content cannot be encrypted.
        SecretError: a recipient is none.
    """
    key, rule = os.urandom(KEY_BYTES), rule or Rule(*DEFAULT_RULE)
    sealed, values = _sealed(plain, file, rule, key, {})
    metadata = {
        "age": age.wrap(key, recipients),
        "lastmodified": "0",
        "mac": "0",
        rule.name: rule.value,
        "version": VERSION,
    }
    text = parse(sealed, file).edited({}, None, metadata)
    return _with_mac(text, file, lambda parsed: mac(v for p in _paths(parsed) if (v := values[p]).type != "null"), key)


def _paths(text: Text) -> list[Path]:
    return [leaf.path for leaf in text.leaves]


def _with_mac(text: str, file: str, digest: Callable[[Text], str], key: bytes) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    parsed = parse(text, file)
    sealed = encrypt(Scalar("str", digest(parsed)), key, now.encode())
    return parsed.edited(
        {(METADATA_KEY, "lastmodified"): Scalar("str", now), (METADATA_KEY, "mac"): Scalar("str", sealed)}
    )


def _sealed(
    plain: str, file: str, rule: Rule, key: bytes, known: Mapping[tuple[bytes, Scalar], str]
) -> tuple[str, dict[Path, Scalar]]:
    """Plain text encrypted in place, without metadata; and its values.

    Args:
        known: ciphertexts to use again, by additional data and value.
    """
    text = parse(plain, file)
    if text.has_metadata_key:
        raise InvalidInput(
            [Problem("the key sops is reserved.", "Rename it.", position=text.position((METADATA_KEY,)))]
        )
    problems, values, edits = [], {}, {}
    for leaf in text.leaves:
        value = values[leaf.path] = leaf.written
        if not rule.encrypts(leaf.path) or value.type == "null":
            continue
        large = value.type == "int" and not -(2**63) <= int(value.text) < 2**63  # more than sops can read back
        if value.type == "time" or large or (value.type != "str" and leaf.source not in ("", value.shown)):
            what = {"time": "a date", "bool": "true or false"}.get(value.type, f"the number {value.shown}")
            message = f"{dotted(leaf.path)} would be read as {what}."
            fix = f'Quote it: "{leaf.source or value.shown}".'
            problems.append(Problem(message, fix, position=text.position(leaf.path)))
        bound_to = additional_data(leaf.path)
        edits[leaf.path] = Scalar("str", known.get((bound_to, value)) or encrypt(value, key, bound_to))
    if problems:
        raise InvalidInput(problems)
    comments = {}
    for comment in text.comments:
        if rule.encrypts(comment.paths[0]) and comment.text:
            said = Scalar("comment", comment.text)
            old = next((old for p in comment.paths if (old := known.get((additional_data(p), said)))), None)
            comments[comment.start] = old or encrypt(said, key, additional_data(comment.paths[0]))
    return text.edited(edits, comments), values


def dotted(path: Sequence[str | int]) -> str:
    """A path as people read it: `vpn.users[0]`."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out
