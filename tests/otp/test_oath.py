"""HOTP and TOTP: the vectors of the RFCs, oathtool, and what people type."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.tools.otp import oath
from reconciler.tools.otp.oath import OathKey

SEED = b"12345678901234567890"
LONG_SEED = SEED * 4
# RFC 4226, appendix D; RFC 6238, appendix B.
HOTP = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]
TOTP = [
    (59, "94287082", "46119246", "90693936"),
    (1111111109, "07081804", "68084774", "25091201"),
    (1111111111, "14050471", "67062674", "99943326"),
    (1234567890, "89005924", "91819424", "93441116"),
    (2000000000, "69279037", "90698825", "38618901"),
    (20000000000, "65353130", "77737706", "47863826"),
]
KEYS = st.builds(
    OathKey,
    st.binary(min_size=1, max_size=64),
    st.sampled_from(["totp", "hotp"]),
    st.sampled_from(oath.ALGORITHMS),
    st.sampled_from(oath.DIGITS),
    st.integers(1, 3600),
    st.integers(0, 1 << 40),
)


def test_hotp_vectors() -> None:
    assert [OathKey(SEED, "hotp", counter=n).code() for n in range(10)] == HOTP


@pytest.mark.parametrize(("moment", "sha1", "sha256", "sha512"), TOTP)
def test_totp_vectors(moment: int, sha1: str, sha256: str, sha512: str) -> None:
    assert OathKey(SEED, digits=8).code(moment) == sha1
    assert OathKey(LONG_SEED[:32], algorithm="SHA256", digits=8).code(moment) == sha256
    assert OathKey(LONG_SEED[:64], algorithm="SHA512", digits=8).code(moment) == sha512


@pytest.mark.skipif(shutil.which("oathtool") is None, reason="oathtool is not installed")
@pytest.mark.parametrize("digits", oath.DIGITS)
@pytest.mark.parametrize("algorithm", oath.ALGORITHMS)
def test_oathtool_says_the_same(digits: int, algorithm: oath.Algorithm) -> None:
    key = OathKey(b"some secret of mine!", algorithm=algorithm, digits=digits, period=60)
    argv = ["oathtool", f"--totp={algorithm}", "-d", str(digits), "-s", "60s", "-N", "@1795322096", key.secret.hex()]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == key.code(1795322096)


class TestVerify:
    def test_totp_window(self) -> None:
        key = OathKey(SEED)
        code = key.code(1000)
        assert key.verify(code, 1000) == 33
        assert key.verify(code, 1000 + 30) == key.verify(code, 1000 - 30) == 33
        assert key.verify(code, 1000 + 60) is key.verify(code, 1000 - 60) is None
        assert key.verify(code, 1000 + 60, window=2) == 33
        assert key.verify(code, 1000 + 30, window=0) is None

    def test_hotp_looks_ahead_only(self) -> None:
        key = OathKey(SEED, "hotp", counter=4)
        assert [key.verify(HOTP[n], window=3) for n in range(10)] == [None] * 4 + [4, 5, 6, 7] + [None] * 2

    @pytest.mark.parametrize("typed", ["", "75522", "7552244", "75522x", "755 225", "７５５２２４", "755224\n755224"])
    def test_wrong_codes(self, typed: str) -> None:
        assert OathKey(SEED, "hotp").verify(typed) is None

    def test_people_type_spaces(self) -> None:
        assert OathKey(SEED, "hotp").verify("755 224") == 0
        assert OathKey(SEED, "hotp").verify("755-224") == 0

    @given(KEYS, st.integers(0, 1 << 40))
    def test_every_code_is_verified(self, key: OathKey, moment: int) -> None:
        code = key.code(moment)
        assert len(code) == key.digits
        assert key.verify(code, moment, window=0) == (key.counter if key.type == "hotp" else moment // key.period)

    def test_at_the_beginning_of_time(self) -> None:
        assert OathKey(SEED).verify(OathKey(SEED).code(0), 0) == 0

    @pytest.mark.parametrize(("moment", "left"), [(0, 30), (1, 29), (29.9, 1), (30, 30)])
    def test_seconds_left(self, moment: float, left: int) -> None:
        assert OathKey(SEED).seconds_left(moment) == left


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"secret": b""}, "empty"),
        ({"type": "x"}, "totp or hotp"),
        ({"algorithm": "MD5"}, "SHA1, SHA256 or SHA512"),
        ({"digits": 5}, "6, 7 or 8"),
        ({"digits": 9}, "6, 7 or 8"),
        ({"period": 0}, "period"),
        ({"counter": -1}, "counter"),
        ({"counter": 1 << 64}, "counter"),
    ],
)
def test_wrong_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OathKey(**{"secret": SEED, **values})


class TestSecrets:
    @given(st.binary(min_size=1, max_size=64))
    def test_round_trip(self, raw: bytes) -> None:
        text = oath.format_secret(raw)
        assert "=" not in text
        assert oath.parse_secret(text) == raw
        assert oath.parse_secret(" ".join(text.lower())) == raw

    @pytest.mark.parametrize("text", ["", "=", "A", "ABC", "ABCDEF", "MZXW6YT1", "MZXW6YT0", "MZXW6YTBÄ", "MZ\nXW"])
    def test_no_base32(self, text: str) -> None:
        with pytest.raises(ValueError, match="must be base32") as error:
            oath.parse_secret(text)
        assert len(text) < 4 or text not in str(error.value)

    def test_new_ones(self) -> None:
        one, two = oath.new_secret(), oath.new_secret()
        assert one != two
        assert len(oath.parse_secret(one)) == 20

    def test_not_shown(self) -> None:
        assert "1234567890" not in repr(OathKey(SEED))

    def test_weak(self) -> None:
        assert OathKey(bytes(15)).is_weak
        assert not OathKey(bytes(16)).is_weak
