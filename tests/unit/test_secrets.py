"""Secrets: found by reference, shown as keyed digests, taken out of what targets print."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from reconciler.errors import SecretError
from reconciler.model import Secret, Sha256
from reconciler.secrets import REDACTED, Secrets, key_in

SECRET = Secret(secret_ref="env:TOKEN")


def secrets(value: str = "correct horse battery", key: bytes = b"k") -> Secrets:
    return Secrets(lambda: key, {"TOKEN": value})


def test_sources(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    assert secrets().reveal(SECRET) == "correct horse battery"
    assert secrets().reveal(Secret(secret_ref=f"file:{tmp_path}/token")) == "from a file"


@pytest.mark.parametrize(
    ("ref", "wanted"),
    [
        ("env:NOTHING", "the secret env:NOTHING is not there. Set the environment variable NOTHING."),
        ("file:/does/not/exist", "the secret file:/does/not/exist cannot be read: No such file or directory."),
    ],
)
def test_what_cannot_be_found_says_why(ref: str, wanted: str) -> None:
    with pytest.raises(SecretError, match=wanted):
        secrets().reveal(Secret(secret_ref=ref))


@pytest.mark.parametrize(
    "ref", ["vault:x", "TOKEN", "", "env:", "env:A B", "env:A\n", "file:", "file:a\0b", "env:$(id)"]
)
def test_what_is_no_reference_is_refused_by_validate(ref: str) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        Secret(secret_ref=ref)


def test_a_file_that_is_no_text_does_not_show_up_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"hunter22\xff")
    with pytest.raises(SecretError) as caught:
        secrets().reveal(Secret(secret_ref=f"file:{tmp_path}/token"))
    assert "hunter22" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_digest_tells_change_and_nothing_else() -> None:
    one = secrets()
    assert one.seal(SECRET) == one.seal("correct horse battery") == one.seal(Sha256.of("correct horse battery"))
    assert one.seal(SECRET) != one.seal("another")
    assert one.seal(SECRET) != secrets(key=b"other").seal(SECRET)
    assert Sha256.of("correct horse battery").hex not in one.seal(SECRET).digest


def test_key_ids_tell_keys_apart_without_telling_them() -> None:
    assert secrets().key_id == secrets("x").key_id != secrets(key=b"other").key_id
    assert len(secrets().key_id) == 16


@pytest.mark.parametrize(
    "printed",
    [
        "error: bad token correct horse battery in line 1",
        base64.b64encode(b"correct horse battery").decode(),
        "x" + base64.b64encode(b"correct horse battery").decode().rstrip("=") + "==",
        "correct horse battery correct horse battery",
    ],
)
def test_redaction(printed: str) -> None:
    one = secrets()
    one.reveal(SECRET)
    shown = one.redact(printed)
    assert "horse" not in shown
    assert "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5" not in shown
    assert REDACTED in shown


def test_a_secret_of_several_lines_is_redacted_line_by_line() -> None:
    one = secrets("-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n")
    one.reveal(SECRET)
    shown = one.redact("line 2: kqhkiG9w0BAQEF\nand MIIEvQIBADANBg")
    assert "kqhkiG9w" not in shown
    assert "MIIEv" not in shown


def test_a_secret_that_is_an_ordinary_word_does_not_eat_the_output() -> None:
    """Hostile input 24: `root` as a password would make every message unreadable; such output is withheld instead."""
    one = secrets("root")
    one.reveal(SECRET)
    assert one.redact("chown root /etc") == "chown root /etc"


def test_what_was_not_revealed_is_not_looked_for() -> None:
    assert secrets().redact("correct horse battery") == "correct horse battery"


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    key = key_in(folder)()
    assert len(key) == 32
    assert key_in(folder)() == key
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert key_in(tmp_path / "other")() != key


def test_a_key_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SecretError, match="the key for digests cannot be made or read"):
        key_in(tmp_path / "file" / "state")()


def test_a_reference_may_be_shown() -> None:
    assert str(SECRET) == "(secret env:TOKEN)"
    assert "horse" not in repr(SECRET)


def test_a_damaged_key_is_not_used(tmp_path: Path) -> None:
    """An empty key would make every digest one that can be guessed."""
    (tmp_path / "key").write_bytes(b"")
    with pytest.raises(SecretError, match="is damaged"):
        key_in(tmp_path)()


def test_many_programs_make_one_key(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as executor:
        keys = set(executor.map(lambda _: key_in(tmp_path / "state")(), range(32)))
    assert len(keys) == 1
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["key"]
