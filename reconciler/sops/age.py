"""age (https://age-encryption.org/v1): whose identities we have, and the data key wrapped for recipients.

Identities are looked for where sops looks (https://getsops.io/docs/#encrypting-using-age): `SOPS_AGE_KEY`,
`SOPS_AGE_KEY_CMD`, `SOPS_AGE_KEY_FILE`, `$XDG_CONFIG_HOME/sops/age/keys.txt`, `SOPS_AGE_SSH_PRIVATE_KEY_FILE`,
`~/.ssh/id_ed25519` and `~/.ssh/id_rsa`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reconciler.errors import SecretError
from reconciler.sops.cipher import KEY_BYTES

NEEDS: Final = "Secrets in SOPS files need the packages pyrage and cryptography: pip install 'reconciler[secrets]'."
_X25519_RECIPIENT: Final = re.compile(r"age1[02-9ac-hj-np-z]{58}")


@dataclass(frozen=True)
class Identities:
    """The private keys that we have. Never printed.

    Attributes:
        keys: as pyrage knows them.
        recipients: their public sides, where known.
        left_out: what was found and cannot be used, in words.
    """

    keys: Sequence[Any]
    recipients: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Identities({', '.join(self.recipients) or 'none'})"


def library() -> Any:
    """The module pyrage, imported when it is needed.

    Raises:
        SecretError: it is not installed.
    """
    try:
        import pyrage
    except ImportError:
        raise SecretError(NEEDS) from None
    return pyrage


def default_key_file(environ: Mapping[str, str]) -> Path | None:
    """Where an identity belongs: what `SOPS_AGE_KEY_FILE` names, or sops' own place; None without a home."""
    if environ.get("SOPS_AGE_KEY_FILE"):
        return Path(environ["SOPS_AGE_KEY_FILE"])
    if environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"]) / "sops" / "age" / "keys.txt"
    return Path(environ["HOME"]) / ".config" / "sops" / "age" / "keys.txt" if environ.get("HOME") else None


def identities(environ: Mapping[str, str]) -> Identities:
    """All identities that these variables lead to.

    Raises:
        SecretError: one that was named is not there or is no identity.
    """
    library()
    keys: list[Any] = []
    recipients: list[str] = []
    left_out: list[str] = []

    def take(text: str, source: str) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            word = line.strip()
            if word and not word.startswith("#"):
                key = _x25519(word, f"{source}, line {number}")
                keys.append(key)
                recipients.append(str(key.to_public()))

    def read(file: Path, *, named: bool, ssh: bool) -> None:
        try:
            content = file.read_bytes()
        except OSError as error:
            if named:
                raise SecretError(f"the identity file {file} cannot be read: {error.strerror}.") from None
            return
        if ssh or content.startswith(b"-----BEGIN"):
            try:
                keys.append(library().ssh.Identity.from_buffer(content))
            except Exception:
                reason = f"{file} has a passphrase, or is no ssh-ed25519 or ssh-rsa key"
                if named:
                    raise SecretError(f"the identity {reason}. Use a key without one.") from None
                left_out.append(reason)
                return
            public = file.with_name(f"{file.name}.pub")
            recipients.append(bare(public.read_text()) if public.is_file() else str(file))
        else:
            take(content.decode("utf-8", "replace"), str(file))

    if environ.get("SOPS_AGE_KEY"):
        take(environ["SOPS_AGE_KEY"], "SOPS_AGE_KEY")
    if environ.get("SOPS_AGE_KEY_CMD"):
        from reconciler.secrets import printed

        take(printed("SOPS_AGE_KEY_CMD", environ["SOPS_AGE_KEY_CMD"]), "SOPS_AGE_KEY_CMD")
    named = bool(environ.get("SOPS_AGE_KEY_FILE"))
    file = default_key_file(environ)
    if file is not None:
        read(file, named=named, ssh=False)
    if environ.get("SOPS_AGE_SSH_PRIVATE_KEY_FILE"):
        read(Path(environ["SOPS_AGE_SSH_PRIVATE_KEY_FILE"]), named=True, ssh=True)
    elif environ.get("HOME"):
        for name in ("id_ed25519", "id_rsa"):
            read(Path(environ["HOME"]) / ".ssh" / name, named=False, ssh=True)
    return Identities(tuple(keys), tuple(recipients), tuple(left_out))


def _x25519(word: str, place: str) -> Any:
    """One line of an identity file. The line itself is never in a message."""
    if word.startswith("AGE-PLUGIN-"):
        raise SecretError(f"{place}: identities of age plugins are not supported. Use an X25519 or SSH key.")
    try:
        return library().x25519.Identity.from_str(word)
    except Exception:
        raise SecretError(f"{place}: is no age identity. It should start with AGE-SECRET-KEY-1.") from None


def new_identity() -> tuple[str, str]:
    """A new identity: its private and its public side."""
    made = library().x25519.Identity.generate()
    return str(made), str(made.to_public())


def check_recipient(text: str) -> str:
    """A recipient as it stands in a file.

    Raises:
        SecretError: it is none that we can encrypt for.
    """
    _recipient(text)
    return text


def bare(recipient: str) -> str:
    """A recipient without the comment that public keys of SSH end in: what to compare."""
    return " ".join(recipient.split()[:2])


def is_recipient(text: str) -> bool:
    """Whether this looks like a recipient that we can encrypt for; needs no library."""
    return bool(_X25519_RECIPIENT.fullmatch(text)) or text.startswith(("ssh-ed25519 ", "ssh-rsa "))


def _recipient(text: str) -> Any:
    rage = library()
    if text.startswith("AGE-SECRET-KEY-"):
        raise SecretError("that is a private identity, no recipient. Name its public key, age1...")
    try:
        return (rage.ssh if text.startswith("ssh-") else rage.x25519).Recipient.from_str(text)
    except Exception:
        raise SecretError(f"{text} is no recipient that we can encrypt for. Use age1... or ssh-ed25519 ....") from None


def wrap(data_key: bytes, recipients: Iterable[str]) -> list[dict[str, str]]:
    """The data key for each recipient, as in `sops.age`.

    Raises:
        SecretError: a recipient is none that we can encrypt for.
    """
    rage = library()
    return [
        {"recipient": name, "enc": rage.encrypt(data_key, [_recipient(name)], armored=True).decode()}
        for name in recipients
    ]


def unwrap(entries: Sequence[Mapping[str, Any]], have: Callable[[], Identities], file: str) -> bytes:
    """The data key of a file.

    Args:
        entries: `sops.age` of the file.
        have: our identities.
        file: its name, for messages.

    Raises:
        SecretError: none of our identities opens it, or what is inside is damaged.
    """
    rage = library()
    found = have()
    damaged = False
    for entry in entries if found.keys else ():
        try:
            data_key = bytes(rage.decrypt(str(entry.get("enc", "")).encode(), list(found.keys)))
        except rage.DecryptError as error:
            # Without an identity that fits, age cannot tell more than that.
            damaged = damaged or "No matching keys" not in str(error)
            continue
        if len(data_key) != KEY_BYTES:
            raise SecretError(f"{file}: sops.age holds a data key of {len(data_key)} bytes, not {KEY_BYTES}.")
        return data_key
    whom = ", ".join(str(entry.get("recipient", "?")) for entry in entries) or "nobody by age"
    if found.keys:
        why = f"no identity of yours ({', '.join(found.recipients)}) opens it"
        why += "; sops.age is damaged" if damaged else ""
    else:
        why = "there is no age identity here"
    hint = f" ({'; '.join(found.left_out)}.)" if found.left_out else ""
    raise SecretError(
        f"{file} is encrypted for {whom}, and {why}. Set SOPS_AGE_KEY_FILE (or SOPS_AGE_KEY) to an identity that may "
        f"read it, or ask somebody who can to add yours: `reconciler secrets recipients add`.{hint}"
    )
