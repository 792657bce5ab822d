"""`.sops.yaml` (https://getsops.io/docs/#using-sops-yaml-conf-to-select-kms-pgp-and-age-for-new-files): for whom a new
file is encrypted, and which of its values."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reconciler.errors import InvalidInput, SecretError
from reconciler.sops.cipher import Scalar
from reconciler.sops.document import DEFAULT_RULE, RULES, Rule
from reconciler.sops.yamltext import YamlText

NAME: Final = ".sops.yaml"
PATH_REGEX: Final = r"(^|/)secrets/.*\.sops\.(ya?ml|json)$"


@dataclass(frozen=True)
class Creation:
    """The rule that a new file falls under.

    Attributes:
        config: the `.sops.yaml`.
        index: which of its rules.
        recipients: of age.
        rule: which values are encrypted.
    """

    config: Path
    index: int
    recipients: tuple[str, ...]
    rule: Rule


def shown(file: Path) -> str:
    """A path as messages name it: relative to here where it is below."""
    name = os.path.relpath(file)
    return str(file) if name.startswith("..") else name


def configuration(folder: Path) -> Path | None:
    """The `.sops.yaml` of a folder or the nearest one above it."""
    for above in (folder.absolute(), *folder.absolute().parents):
        if (above / NAME).is_file():
            return above / NAME
    return None


def creation(file: Path) -> Creation | None:
    """The rule for a file, if a `.sops.yaml` has one.

    Raises:
        SecretError: the `.sops.yaml` cannot be read, or asks for what we cannot do.
    """
    config = configuration(file.parent)
    if config is None:
        return None
    relative = file.absolute().relative_to(config.parent).as_posix()
    for index, rule in enumerate(_rules(config)):
        pattern = rule.get("path_regex", "")
        try:
            fits = re.search(str(pattern), relative)
        except re.error as error:
            raise SecretError(f"{shown(config)}: path_regex {pattern}: {error}.") from None
        if fits:
            return _creation(config, index, rule)
    return None


def _rules(config: Path) -> list[Mapping[str, Any]]:
    from reconciler.load import parse

    try:
        documents = parse(config.read_text(encoding="utf-8"), shown(config))
    except InvalidInput as error:
        raise SecretError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise SecretError(f"{shown(config)} cannot be read: {reason}.") from None
    rules = documents[0].data.get("creation_rules") if documents and isinstance(documents[0].data, dict) else None
    return [r for r in rules if isinstance(r, Mapping)] if isinstance(rules, list) else []


def _creation(config: Path, index: int, rule: Mapping[str, Any]) -> Creation:
    groups = rule.get("key_groups")
    if isinstance(groups, list) and len(groups) == 1 and isinstance(groups[0], Mapping):
        rule = {**rule, **groups[0]}
    elif groups:
        raise SecretError(f"{shown(config)}: several key_groups are not supported. Use one list of age recipients.")
    others = [k for k in ("kms", "gcp_kms", "azure_keyvault", "hc_vault_transit_uri", "pgp") if rule.get(k)]
    if others:
        raise SecretError(
            f"{shown(config)}: new files would also be encrypted by {', '.join(others)}, which only sops can do. "
            "Make the file with sops; then it can be changed here."
        )
    named = [Rule(name, str(rule[name])) for name in RULES if rule.get(name)]
    if len(named) > 1:
        raise SecretError(f"{shown(config)}: a rule has both {named[0].name} and {named[1].name}. Keep one.")
    recipients = _list(rule.get("age"))
    if any(recipient.startswith("AGE-SECRET-KEY-") for recipient in recipients):
        raise SecretError(
            f"{shown(config)}: a recipient is a private identity, so whoever sees the repository can open everything. "
            "Name its public key, age1...; and as the identity is known now, make a new one, and change the secrets."
        )
    if not recipients:
        raise SecretError(f"{shown(config)}: the rule for this file names no age recipient. Add `age: age1...`.")
    return Creation(config, index, tuple(recipients), named[0] if named else Rule(*DEFAULT_RULE))


def _list(written: Any) -> list[str]:
    words = written if isinstance(written, list) else str(written or "").split(",")
    return [w for word in words if (w := str(word).strip())]


def new_configuration(recipient: str) -> str:
    """The text of a `.sops.yaml` for the store of a desired state."""
    return f"creation_rules:\n    - path_regex: {PATH_REGEX}\n      age: {recipient}\n"


def with_recipients(found: Creation, recipients: Sequence[str]) -> str:
    """The text of the `.sops.yaml` with other recipients in one rule; all else stays as it is.

    Raises:
        SecretError: the list is written in a way that only a person should edit.
    """
    text = found.config.read_text(encoding="utf-8")
    path = ("creation_rules", found.index, "age")
    by_hand = SecretError(
        f"{shown(found.config)}: write the recipients of new files there by hand: {', '.join(recipients)}."
    )
    try:
        parsed = YamlText(text, shown(found.config))
    except InvalidInput:
        raise by_hand from None  # YAML aliases, for example
    if not any(leaf.path == path for leaf in parsed.leaves):
        raise by_hand
    return parsed.edited({path: Scalar("str", ",".join(recipients))})
