"""Text with secrets in it: each is checked, and spelled as its place wants it; none is in a message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from reconciler.composed import compose
from reconciler.errors import SecretError
from reconciler.model import Composed, Secret, dump
from reconciler.secrets import Secrets

SECRET = Secret(secret_ref="env:ONE")

SPELLED = [
    ("verbatim", " a b\n", " a b\n"),
    ("json", 'a"b\n', '"a\\"b\\n"'),
    ("base32", "JBSWY3DPEHPK3PXP", "JBSWY3DPEHPK3PXP"),
    ("base32", "jbsw y3dp-ehpk 3pxp==\n", "JBSWY3DPEHPK3PXP"),
    ("base32AsHex", "gezdgnbvgy3tqojqgezdgnbvgy3tqojq", "3132333435363738393031323334353637383930"),
    ("base64", "AAECAwQFBgcICQoLDA0ODxAREhM=\n", "AAECAwQFBgcICQoLDA0ODxAREhM="),
    ("hex6", "8792EBFE26CC", "8792ebfe26cc"),
    ("hex16", "ecde18dbe76fbd0c33330f1c354871db", "ecde18dbe76fbd0c33330f1c354871db"),
    ("hexAes", "00" * 32, "00" * 32),
]


@pytest.mark.parametrize(("form", "value", "wanted"), SPELLED)
def test_a_secret_is_spelled_as_its_place_wants_it(form: Any, value: str, wanted: str) -> None:
    text = Composed(parts=("<", SECRET, ">", SECRET), form=form)
    assert compose(text, lambda secret: value) == f"<{wanted}>{wanted}"


WRONG = [
    ("base32", "JBSWY3DPEHPK3PX1"),
    ("base32", "J"),
    ("base32", ""),
    ("base32AsHex", "ecde18dbe76fbd0c"),
    ("base32AsHex", "J\u00e9"),
    ("base64", "AAE"),
    ("base64", ""),
    ("base64", "AAAA\nauth sufficient pam_permit.so"),
    ("hex6", "8792ebfe26"),
    ("hex6", "8792ebfe26cc00"),
    ("hex16", "x" * 32),
    ("hexAes", "00" * 20),
]


@pytest.mark.parametrize(("form", "value"), WRONG)
def test_a_wrong_one_is_named_and_not_shown(form: Any, value: str) -> None:
    with pytest.raises(SecretError, match=r"^the secret env:ONE is not .*\.$") as caught:
        compose(Composed(parts=("a", SECRET), form=form), lambda secret: value)
    assert not value or value not in str(caught.value)
    assert caught.value.__cause__ is None


def test_it_stands_wherever_a_secret_may() -> None:
    """Revealed, sealed, redacted in each of its spellings, and the same after a way through JSON."""
    secrets = Secrets(lambda: b"k" * 32, {"ONE": "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"})
    text = Composed(parts=(SECRET,), form="base32AsHex")
    spelled = secrets.reveal(text)
    assert bytes.fromhex(spelled).startswith(b"Hello!")
    assert secrets.seal(text) == secrets.seal(spelled)
    assert secrets.redact(f"x {spelled} y JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP") == "x (secret) y (secret)"
    content: TypeAdapter[Any] = TypeAdapter(str | Secret | Composed | None)
    assert content.validate_python(json.loads(json.dumps(dump(text)))) == text
    assert content.validate_python(dump(SECRET)) == SECRET
    assert str(text) == "(text with (secret env:ONE))"
