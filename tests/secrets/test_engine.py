"""Secrets inside the engine: any source, any depth, any form in which they may come back."""

from __future__ import annotations

import base64
import html
import json
import os
import shlex
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import quote, quote_plus

import pytest

from reconciler import secrets as secrets_module
from reconciler.diff import as_json, diff
from reconciler.errors import SecretError
from reconciler.generated import FORMS
from reconciler.load import load
from reconciler.model import (
    IDENTITY,
    Action,
    Composed,
    GenerateForm,
    Kind,
    Resource,
    ResourceType,
    Sealed,
    Secret,
    Sha256,
    Spec,
    canonical,
)
from reconciler.planfile import _value
from reconciler.registry import Registry, default
from reconciler.secret_mentions import to_generate
from reconciler.secrets import REDACTED, Secrets, is_reference, references, reveal_in

VALUE = "p4ss 'word\"/+&<ü"


def secrets(value: str = VALUE, **stored: str) -> Secrets:
    def lookup(reference: str) -> str:
        if reference not in stored:
            raise SecretError(f"the secret {reference} is not in the store.")
        return stored[reference]

    return Secrets(lambda: b"k" * 32, {"TOKEN": value}, lookup)


def ref(text: str) -> Secret:
    return Secret(secret_ref=text)


# ------------------------------------------------------------------------------------------------ sources


def test_the_store_is_one_source_among_others() -> None:
    one = secrets(**{"otp/alice": "x"})
    assert (one.reveal(ref("otp/alice")), one.reveal(ref("env:TOKEN"))) == ("x", VALUE)
    with pytest.raises(SecretError, match=r"otp/bob is not in the store\. Or run `reconciler secrets generate`"):
        one.reveal(Secret(secret_ref="otp/bob", generate="hex6"))
    with pytest.raises(SecretError, match="there is no store here"):
        Secrets(lambda: b"k").reveal(ref("otp/alice"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\xff", "no UTF-8 text"),
        (b"hunter2" * (secrets_module.MAX_BYTES // 7 + 1), "is larger than"),
        (None, "No such file"),
    ],
)
def test_a_file_that_holds_no_secret(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "s").write_bytes(content)
    with pytest.raises(SecretError, match=message) as caught:
        secrets().reveal(ref(f"file:{tmp_path / 's'}"))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SecretError, match="there is no such home folder"):
        secrets().reveal(ref("file:~nobody-of-that-name/s"))


def test_a_variable_that_holds_no_secret() -> None:
    """A CI system gives an empty one for what it does not have; and a variable may hold any bytes."""
    environ = {"EMPTY": "", "BYTES": os.fsdecode(b"hunter2\xff")}
    one = Secrets(lambda: b"k" * 32, environ)
    for name, message in (("EMPTY", "env:EMPTY is empty"), ("BYTES", "no UTF-8 text"), ("GONE", "is not there")):
        with pytest.raises(SecretError, match=message):
            one.seal(ref(f"env:{name}"))


def test_a_command_is_run_without_a_shell(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    command = f"printf %s 'two words' '$(touch {marker})' ; touch {marker}"
    assert secrets().reveal(ref(f"command:{command}")) == f"two words$(touch {marker});touch{marker}"
    assert not marker.exists()
    assert secrets().reveal(ref("command:echo value")) == "value"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("sh -c 'echo hunter2 >&2; echo hunter2; exit 3'", "exit status 3"),
        ("/does/not/exist", "No such file"),
        ("true", "printed nothing"),
        ("printf '\\377hunter2'", "no UTF-8 text"),
        ("echo 'open", "No closing quotation"),
    ],
)
def test_a_command_that_fails_says_how_and_not_what_it_printed(
    command: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SecretError, match=message) as caught:
        secrets().reveal(ref(f"command:{command}"))
    assert "hunter2" not in str(caught.value).replace(command, "")
    assert "hunter2" not in "".join(capfd.readouterr())


def test_a_command_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets_module, "COMMAND_SECONDS", 0.05)
    with pytest.raises(SecretError, match="took longer than"):
        secrets().reveal(ref("command:sleep 60"))


def test_a_command_cannot_ask() -> None:
    """It reads nothing: a plan must not wait for a person."""
    with pytest.raises(SecretError, match="printed nothing"):
        secrets().reveal(ref("command:cat"))


def test_only_the_store_is_generated_into() -> None:
    with pytest.raises(ValueError, match="has generate, which writes to the store, but names env:"):
        Secret(secret_ref="env:X", generate="hex6")


# ------------------------------------------------------------------------------------------------ generated


def test_generated_forms() -> None:
    """Each has the length and the alphabet that it promises, and is another one each time."""
    assert FORMS.keys() == set(get_args(GenerateForm))
    url_safe = string.ascii_letters + string.digits + "-_"
    promised = {
        "password": (32, url_safe),
        "base32": (32, string.ascii_uppercase + "234567"),
        "hex16": (32, "0123456789abcdef"),
        "hex6": (12, "0123456789abcdef"),
        "base64-20": (28, string.ascii_letters + string.digits + "+/="),
        "base64-32": (44, string.ascii_letters + string.digits + "+/="),
    }
    key = json.loads(FORMS["proxmox-key"]())
    assert len(base64.b64decode(key["data"])) == 32
    assert key["kdf"] is None
    for form, make in FORMS.items():
        if form == "proxmox-key":
            continue
        length, alphabet = promised[form]
        made = {make() for _ in range(50)}
        assert len(made) == 50
        assert {len(m) for m in made} == {length}
        assert set("".join(made)) <= set(alphabet)
    assert len(base64.b32decode(FORMS["base32"]())) == len(base64.b64decode(FORMS["base64-20"]())) == 20
    assert len(base64.b64decode(FORMS["base64-32"]())) == 32


class TokensSpec(Spec):
    """Files whose secrets the kind names itself."""

    hosts: tuple[str, ...]


def _tokens(document: Any, catalog: Any) -> Any:
    own = Secret(secret_ref=f"tokens/{document.name}", generate="hex16")
    inner = Secret(secret_ref="tokens/inner", generate="base32")
    file = default().type_of("host.file")
    yield file("web1", path="/etc/one", content=own)
    yield file("web1", path="/etc/two", content=Composed(parts=("token=", inner, "\n")))


def test_what_a_kind_asks_for_is_generated_like_what_a_document_asks_for(tmp_path: Path) -> None:
    head = "apiVersion: reconciler/v1\nkind: "
    (tmp_path / "a.yaml").write_text(
        f"{head}Host\nmetadata: {{name: web1}}\nspec: {{connection: image, root: /srv}}\n---\n"
        f"{head}Tokens\nmetadata: {{name: mine}}\nspec: {{hosts: [web1]}}\n---\n"
        f"{head}File\nmetadata: {{name: f}}\nspec: {{hosts: [web1], path: /etc/three, "
        "content: {secretRef: other/x, generate: hex6}}\n"
    )
    registry = Registry.of(
        [Kind("Tokens", TokensSpec, _tokens), default().kinds["Host"], default().kinds["File"]],
        default().types.values(),
    )
    wanted = {"tokens/mine": "hex16", "tokens/inner": "base32", "other/x": "hex6"}
    assert to_generate(load(tmp_path), registry) == wanted
    (tmp_path / "b.yaml").write_text("broken: yes\n")
    assert to_generate(load(tmp_path), registry) == {"other/x": "hex6"}


# ------------------------------------------------------------------------------------------------ any depth


class Inner(Spec):
    """A part with a secret."""

    name: str
    token: Secret | None = None


class Outer(Spec):
    """An object with secrets at several depths."""

    key: Annotated[str, IDENTITY]
    one: Secret | None = None
    parts: tuple[Inner, ...] = ()
    manifest: dict[str, Any] = {}


SPEC = Outer(
    key="k",
    one=ref("a/one"),
    parts=(Inner(name="x"), Inner(name="y", token=ref("a/two"))),
    manifest={"data": [{"password": {"secretRef": "a/three"}}], "kube": {"secretRef": {"name": "n"}}},
)
STORED = {"a/one": "1-secret", "a/two": "2-secret", "a/three": "3-secret"}
KIND: ResourceType[Outer] = ResourceType("test.outer", Outer, lambda specs: iter(()), lambda change: ())  # type: ignore[arg-type, return-value]


def test_references_at_any_depth() -> None:
    assert [s.secret_ref for s in references(SPEC)] == ["a/one", "a/two", "a/three"]
    missing = secrets(**{"a/one": "x", "a/two": "y"}).missing([Resource("t", "h", "k", SPEC)])
    assert missing == {"t[h:k]": "the secret a/three is not in the store."}
    assert not is_reference({"secretRef": {"name": "n"}})
    assert not is_reference({"secretRef": "a/b", "name": "n"})
    with pytest.raises(SecretError, match="is not allowed"):
        list(references({"x": {"secretRef": "TOKEN"}}))


def test_reveal_in_a_body() -> None:
    one = secrets(**STORED)
    body = {"spec": SPEC, "list": (ref("a/one"), 1, None), "env": {"secretRef": "env:TOKEN"}}
    assert reveal_in(body, one.reveal) == {
        "spec": {
            "key": "k",
            "one": "1-secret",
            "parts": [{"name": "x"}, {"name": "y", "token": "2-secret"}],
            "manifest": {"data": [{"password": "3-secret"}], "kube": {"secretRef": {"name": "n"}}},
        },
        "list": ["1-secret", 1, None],
        "env": VALUE,
    }


def test_nested_secrets_are_sealed_and_compared() -> None:
    one = secrets(**STORED)
    wanted = as_json(SPEC, one.seal)
    assert wanted["parts"][1]["token"] == one.seal("2-secret")
    assert wanted["manifest"]["data"][0]["password"] == one.seal("3-secret")
    text = canonical(wanted)
    assert "-secret" not in text
    assert _value(json.loads(text)) == wanted, "a plan file gives the same back"

    def observed(three: str) -> Mapping[str, Any]:
        return {
            "one": Sha256.of("1-secret"),
            "parts": [{"name": "x"}, {"name": "y", "token": Sha256.of("2-secret")}],
            "manifest": {"data": [{"password": Sha256.of(three)}], "kube": {"secretRef": {"name": "n"}}},
        }

    resource = Resource("test.outer", "h", "k", SPEC)
    same = diff(resource, {"key": "k", **observed("3-secret")}, KIND, one.seal)
    assert same.action is Action.NOOP
    other = diff(resource, {"key": "k", **observed("old")}, KIND, one.seal)
    assert [d.attribute for d in other.differences] == ["manifest"]
    assert isinstance(other.differences[0].before["data"][0]["password"], Sealed)
    assert Sha256.of("old").hex not in canonical(other.before)


# ------------------------------------------------------------------------------------------------ redaction


@pytest.mark.parametrize(
    "printed",
    [
        VALUE,
        json.dumps(VALUE),
        json.dumps({"token": VALUE}, ensure_ascii=False),
        quote(VALUE),
        quote(VALUE, safe=""),
        quote_plus(VALUE),
        VALUE.encode().hex(),
        VALUE.encode().hex().upper(),
        html.escape(VALUE),
        f"curl -d {shlex.quote(VALUE)}",
        base64.b64encode(VALUE.encode()).decode(),
        base64.urlsafe_b64encode(VALUE.encode()).decode(),
        base64.b64encode(b"user:" + VALUE.encode()).decode(),
        base64.b64encode(b"users:" + VALUE.encode()).decode(),
        base64.b64encode(b"user1::" + VALUE.encode() + b"tail").decode(),
    ],
)
def test_redaction_of_every_form(printed: str) -> None:
    one = secrets()
    assert one.redact(printed) == printed
    one.reveal(ref("env:TOKEN"))
    shown = one.redact(f"said: {printed}.")
    assert REDACTED in shown
    # Not even the middle of it is left, in any spelling.
    core = "word"
    for spelled in (core, core.encode().hex(), core.encode().hex().upper()):
        assert spelled not in shown
    for offset in range(3):
        assert base64.b64encode(b"x" * offset + VALUE.encode()).decode()[4:16] not in shown


def test_redaction_follows_what_is_revealed() -> None:
    one = secrets("abcdefgh", **{"a/b": "ijklmnop"})
    one.reveal(ref("env:TOKEN"))
    assert one.redact("abcdefgh ijklmnop") == f"{REDACTED} ijklmnop"
    one.reveal(ref("a/b"))
    assert one.redact("abcdefgh ijklmnop") == f"{REDACTED} {REDACTED}"
