"""URIs that say no more than they must, and QR codes that a real reader reads."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.tools.otp import otpauth, qr
from reconciler.tools.otp.oath import OathKey, parse_secret
from tests.otp.test_oath import KEYS

SECRET = "4LRW4HZQCC52QP7NIEMCIT4FXYOLWI75"
KEY = OathKey(parse_secret(SECRET))
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters=":"), max_size=20
).filter(lambda text: text not in (".", "..") and text.isprintable())
# (key, label, issuer, URI)
URIS: list[tuple[OathKey, str, str, str]] = [
    (KEY, "-", "", f"otpauth://totp/-?secret={SECRET}"),
    (KEY, "", "", f"otpauth://totp/?secret={SECRET}"),
    (KEY, "OpenVPN", "", f"otpauth://totp/OpenVPN?secret={SECRET}"),
    (KEY, "-", "Work & Club/1", f"otpauth://totp/-?secret={SECRET}&issuer=Work%20%26%20Club%2F1"),
    (KEY, "Büro/1?#%", "", f"otpauth://totp/B%C3%BCro%2F1%3F%23%25?secret={SECRET}"),
    (
        OathKey(KEY.secret, algorithm="SHA256", digits=8, period=60),
        "-",
        "",
        f"otpauth://totp/-?secret={SECRET}&algorithm=SHA256&digits=8&period=60",
    ),
    (OathKey(KEY.secret, "hotp"), "-", "", f"otpauth://hotp/-?secret={SECRET}&counter=0"),
    (OathKey(KEY.secret, "hotp", counter=5, period=60), "-", "", f"otpauth://hotp/-?secret={SECRET}&counter=5"),
]
IDS = [uri.partition("?")[0][10:] + str(n) for n, (*_, uri) in enumerate(URIS)]


@pytest.mark.parametrize(("key", "label", "issuer", "uri"), URIS, ids=IDS)
class TestUri:
    def test_is(self, key: OathKey, label: str, issuer: str, uri: str) -> None:
        assert otpauth.uri(key, label, issuer) == uri

    def test_is_read_again(self, key: OathKey, label: str, issuer: str, uri: str) -> None:
        found = otpauth.parse(uri)
        assert (found.label, found.issuer, found.others) == (label, issuer, [])
        assert found.key.code(1000) == key.code(1000)


def test_the_default_says_nothing_but_the_secret() -> None:
    assert otpauth.uri(KEY) == f"otpauth://totp/-?secret={SECRET}"
    (only,) = otpauth.disclosures(KEY)
    assert only.startswith("the secret")


@given(KEYS, WORDS, WORDS)
def test_round_trip(key: OathKey, label: str, issuer: str) -> None:
    uri = otpauth.uri(key, label, issuer)
    assert uri.isascii()
    found = otpauth.parse(uri)
    assert (found.label, found.issuer, found.key.secret) == (label, issuer, key.secret)
    assert found.key.code(12345) == key.code(12345)


def test_every_datum_is_disclosed() -> None:
    key = OathKey(KEY.secret, algorithm="SHA512", digits=7, period=60)
    found = otpauth.disclosures(key, "vpn", "Work")
    assert found[1:] == [
        "the label 'vpn'",
        "the issuer 'Work'",
        "the algorithm SHA512, which is not the default",
        "7 digits, which is not the default",
        "a period of 60 s, which is not the default",
    ]
    assert otpauth.disclosures(OathKey(KEY.secret, "hotp", counter=3), "")[1:] == ["the counter, 3"]
    assert SECRET not in str(found)


@pytest.mark.parametrize("text", ["a:b", "a\nb", "\x1b[31m", "x" * 101, ".", "..", "a\u202eb"])
def test_what_apps_misread_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        otpauth.uri(KEY, text)
    with pytest.raises(ValueError, match="must"):
        otpauth.uri(KEY, "-", text)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "must begin"),
        ("https://totp/x?secret=AAAA", "must begin"),
        (f"otpauth://steam/x?secret={SECRET}", "must begin"),
        (f"otpauth://totp/x?secret={SECRET}&secret={SECRET}", "once"),
        ("otpauth://totp/x", "must be base32"),
        ("otpauth://totp/x?secret=1", "must be base32"),
        (f"otpauth://hotp/x?secret={SECRET}", "needs a counter"),
        (f"otpauth://hotp/x?secret={SECRET}&counter=-1", "counter must be a number"),
        (f"otpauth://totp/x?secret={SECRET}&digits=5", "6, 7 or 8"),
        (f"otpauth://totp/x?secret={SECRET}&digits=²", "digits must be a number"),
        (f"otpauth://totp/x?secret={SECRET}&algorithm=MD5", "SHA1"),
        (f"otpauth://totp/x?secret={SECRET}&issuer=%ff", "no URI"),
        ("otpauth://[/", "no URI"),
    ],
)
def test_wrong_uris(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        otpauth.parse(uri)
    assert SECRET not in str(error.value)


def test_the_form_of_others_is_read() -> None:
    found = otpauth.parse(f"otpauth://totp/ACME%20Co:john@example.org?secret={SECRET.lower()}&algorithm=sha-1&image=x")
    assert (found.label, found.issuer, found.others) == ("john@example.org", "ACME Co", ["image"])


@given(st.text(max_size=60) | st.text(max_size=40).map(lambda text: f"otpauth://totp/{text}"))
def test_anything_else_is_refused(text: str) -> None:
    try:
        otpauth.parse(text)
    except ValueError:
        return
    assert "secret=" in text


@pytest.mark.skipif(shutil.which("zbarimg") is None, reason="zbarimg is not installed: the package zbar-tools")
@pytest.mark.parametrize(("key", "label", "issuer", "uri"), URIS, ids=IDS)
class TestQr:
    def read(self, path: Path) -> str:
        done = subprocess.run(
            ["zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.removesuffix("\n")

    def test_png(self, key: OathKey, label: str, issuer: str, uri: str, tmp_path: Path) -> None:
        (tmp_path / "qr.png").write_bytes(qr.png(uri))
        assert self.read(tmp_path / "qr.png") == uri

    def test_terminal(self, key: OathKey, label: str, issuer: str, uri: str, tmp_path: Path) -> None:
        """As a terminal with light letters on dark ground shows it."""
        rows = qr.terminal(uri).splitlines()
        assert len({len(row) for row in rows}) == 1
        assert len(rows[0]) <= 80
        (tmp_path / "qr.png").write_bytes(screenshot(rows))
        assert self.read(tmp_path / "qr.png") == uri

    def test_svg(self, key: OathKey, label: str, issuer: str, uri: str, tmp_path: Path) -> None:
        (tmp_path / "qr.png").write_bytes(draw_svg(qr.svg(uri)))
        assert self.read(tmp_path / "qr.png") == uri


def screenshot(rows: list[str]) -> bytes:
    """Half blocks as pixels: a letter is light where it has ink."""
    upper = {"█": 1, "▀": 1, "▄": 0, " ": 0}
    lower = {"█": 1, "▀": 0, "▄": 1, " ": 0}
    return picture([[half[c] for c in row] for row in rows for half in (upper, lower)])


def draw_svg(svg: bytes) -> bytes:
    """Draws what segno writes: light ground, and dark horizontal strokes of one module."""
    import re
    from xml.etree import ElementTree

    root = ElementTree.fromstring(svg)
    scale = 10
    size = int(root.attrib["width"]) // scale
    pixels = [[1] * size for _ in range(size)]
    (dark,) = [p for p in root.iter() if p.tag.endswith("path") and "stroke" in p.attrib]
    x = y = 0.0
    for command, a, b in re.findall(r"([MmHh])(-?[0-9.]+)(?:[ ,]?(-?[0-9.]+))?", dark.attrib["d"]):
        match command:
            case "M":
                x, y = float(a), float(b)
            case "m":
                x, y = x + float(a), y + float(b)
            case _:
                for column in range(int(x), int(x + float(a))):
                    pixels[int(y)][column] = 0
                x += float(a)
    return picture(pixels)


def picture(pixels: list[list[int]], scale: int = 8) -> bytes:
    """A grey PNG; 1 is white."""
    rows = b"".join((b"\0" + b"".join(bytes([255 * p]) * scale for p in row)) * scale for row in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", len(pixels[0]) * scale, len(pixels) * scale, 8, 0, 0, 0, 0)
    parts: list[tuple[bytes, Any]] = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
