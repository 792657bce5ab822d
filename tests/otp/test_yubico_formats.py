"""ModHex, OTPs, AEAD files and keys.json: the vectors, round trips, and what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.tools.otp.server import aead, modhex, token
from reconciler.tools.otp.server.aead import Aead, AeadError, Credential
from reconciler.tools.otp.server.ksm import (
    KeyStorage,
    KsmError,
    UnknownPublicId,
    format_keys,
    handle_number,
    parse_keys,
)
from reconciler.tools.otp.server.token import InvalidOtp, Token
from reconciler.tools.otp.software_yubikey import SoftwareYubiKey
from tests.otp.vectors import AEAD, AEAD_NONCE, AES_KEY, KSM_HANDLE, KSM_KEY, OTP, PRIVATE_ID, PUBLIC_ID

CREDENTIAL = Credential(AES_KEY, PRIVATE_ID)
TOKEN = Token(PRIVATE_ID, 0x13, 0xC230, 0x00, 0x11, 0x9FC8)
PUBLIC_IDS = st.binary(min_size=1, max_size=8).map(modhex.encode)
TOKENS = st.builds(
    Token,
    st.binary(min_size=6, max_size=6),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFF),
    st.integers(0, 0xFF),
    st.integers(0, 0xFFFF),
)


def to_dvorak(text: str) -> str:
    """What the same keys type with a Dvorak layout."""
    return text.translate(str.maketrans(modhex.ALPHABET, modhex.DVORAK))


class TestModHex:
    def test_alphabet(self) -> None:
        assert modhex.encode(bytes.fromhex("0123456789abcdef")) == modhex.ALPHABET
        assert modhex.decode(modhex.ALPHABET) == bytes.fromhex("0123456789abcdef")

    @given(st.binary(max_size=40))
    def test_round_trip(self, raw: bytes) -> None:
        assert modhex.decode(modhex.encode(raw)) == raw

    @pytest.mark.parametrize("text", ["c", "ccc", "CC", "ab", "c c", "c\n", "cc\n", "çç", "ᴄᴄ", "K" * 2])
    def test_not_modhex(self, text: str) -> None:
        with pytest.raises(ValueError, match="no ModHex"):
            modhex.decode(text)

    @given(st.binary(min_size=17, max_size=24))
    def test_every_way_of_typing_is_among_the_readings(self, raw: bytes) -> None:
        text = modhex.encode(raw)
        for typed in (text, text.upper(), to_dvorak(text), to_dvorak(text).upper()):
            assert text in modhex.readings(typed)

    @given(st.text(max_size=60))
    def test_readings_of_anything_are_modhex(self, typed: str) -> None:
        for reading in modhex.readings(typed):
            assert set(reading) <= set(modhex.ALPHABET)

    @pytest.mark.parametrize("text", ["", "c", "ccc", "c" * 18, "../../", "cc/c", "CREDTIVCCCCC", "credtivccccc\n"])
    def test_no_public_id(self, text: str) -> None:
        assert not modhex.is_public_id(text)
        with pytest.raises(ValueError, match="no public id"):
            aead.path_in(Path("/a"), "1", text)


class TestToken:
    def test_vector(self) -> None:
        assert token.encrypt(PUBLIC_ID, AES_KEY, TOKEN) == OTP
        public_id, block = token.split(OTP)
        assert public_id == PUBLIC_ID
        assert token.decrypt(AES_KEY, PRIVATE_ID, block) == TOKEN
        assert TOKEN.timestamp == 0x00C230

    @pytest.mark.parametrize(
        ("raw", "crc"), [(b"", 0xFFFF), (b"123456789", 0x6F91), (TOKEN.pack(), 0xF0B8)], ids=["empty", "check", "whole"]
    )
    def test_crc(self, raw: bytes, crc: int) -> None:
        assert token.crc16(raw) == crc

    @given(PUBLIC_IDS, st.binary(min_size=16, max_size=16), TOKENS)
    def test_round_trip(self, public_id: str, key: bytes, made: Token) -> None:
        found, block = token.split(token.encrypt(public_id, key, made))
        assert (found, token.decrypt(key, made.private_id, block)) == (public_id, made)

    @given(st.integers(0, 127))
    def test_one_flipped_bit_is_refused(self, bit: int) -> None:
        block = bytearray(token.split(OTP)[1])
        block[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidOtp):
            token.decrypt(AES_KEY, PRIVATE_ID, bytes(block))

    def test_another_private_id_is_refused(self) -> None:
        with pytest.raises(InvalidOtp, match="private id"):
            token.decrypt(AES_KEY, bytes(6), token.split(OTP)[1])

    @pytest.mark.parametrize("otp", ["", OTP[1:], OTP[-32:], OTP[-20:], "cccccccc" + OTP, OTP + "\n", OTP.upper()])
    def test_no_otp(self, otp: str) -> None:
        with pytest.raises(InvalidOtp):
            token.split(otp)

    def test_caps_lock_does_not_count(self) -> None:
        assert Token(PRIVATE_ID, 0x8013, 0, 0, 0).session == 0x13

    def test_nothing_secret_is_shown(self) -> None:
        for shown in (repr(TOKEN), repr(CREDENTIAL), repr(SoftwareYubiKey(PUBLIC_ID, PRIVATE_ID, AES_KEY))):
            assert PRIVATE_ID.hex() not in shown
            assert repr(PRIVATE_ID) not in shown
            assert repr(AES_KEY) not in shown


class TestSoftwareYubiKey:
    def test_counts_like_the_device(self) -> None:
        key = SoftwareYubiKey(PUBLIC_ID, PRIVATE_ID, AES_KEY, counter=5, use=0xFE)
        found = [token.decrypt(AES_KEY, PRIVATE_ID, token.split(key.press())[1]) for _ in range(3)]
        assert [(t.session, t.use) for t in found] == [(5, 0xFE), (6, 0), (6, 1)]
        assert found[2].timestamp > found[1].timestamp

    def test_new_ones_differ(self) -> None:
        one, two = SoftwareYubiKey.new(), SoftwareYubiKey.new()
        assert one.public_id.startswith("vv")
        assert modhex.is_public_id(one.public_id)
        assert len({one.public_id, two.public_id}) == len({one.aes_key, two.aes_key}) == 2


class TestAead:
    def test_vector(self) -> None:
        sealed = aead.seal(KSM_KEY, KSM_HANDLE, CREDENTIAL, AEAD_NONCE)
        assert sealed.to_bytes() == AEAD
        assert len(AEAD) == 54
        found = Aead.parse(AEAD, handle=1, public_id=PUBLIC_ID)
        assert found == sealed
        assert found.open(KSM_KEY) == CREDENTIAL

    def test_line_ends_of_windows(self) -> None:
        raw = AEAD.replace(b"AEAD\n", b"AEAD\r\n", 1)
        assert Aead.parse(raw, handle=1, public_id=PUBLIC_ID).open(KSM_KEY) == CREDENTIAL

    def test_version_0_takes_nonce_and_handle_from_its_place(self) -> None:
        # The old tool took the public id for a nonce, which is that of the vector.
        assert modhex.decode(PUBLIC_ID) == AEAD_NONCE
        assert Aead.parse(AEAD[-30:], handle=1, public_id=PUBLIC_ID).open(KSM_KEY) == CREDENTIAL
        with pytest.raises(AeadError, match="handle 2"):
            Aead.parse(AEAD[-30:], handle=2, public_id=PUBLIC_ID).open(KSM_KEY)
        with pytest.raises(AeadError, match="12 letters"):
            Aead.parse(AEAD[-30:], handle=1, public_id="c" * 14)

    @given(
        st.sampled_from([16, 24, 32]).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
        st.integers(0, 0xFFFFFFFF),
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=6, max_size=6),
    )
    def test_round_trip(self, key: bytes, handle: int, aes_key: bytes, private_id: bytes) -> None:
        credential = Credential(aes_key, private_id)
        raw = aead.seal(key, handle, credential).to_bytes()
        assert Aead.parse(raw, handle=handle, public_id=PUBLIC_ID).open(key) == credential

    def test_nonces_are_fresh(self) -> None:
        assert len({aead.seal(KSM_KEY, 1, CREDENTIAL).nonce for _ in range(50)}) == 50

    @pytest.mark.parametrize("size", [*range(54), 55, 70])
    def test_wrong_sizes_are_refused(self, size: int) -> None:
        raw = (AEAD + bytes(20))[:size]
        with pytest.raises(AeadError):
            Aead.parse(raw, handle=1, public_id=PUBLIC_ID).open(KSM_KEY)

    @given(st.integers(0, 54 * 8 - 1))
    def test_one_flipped_bit_is_refused(self, bit: int) -> None:
        raw = bytearray(AEAD)
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AeadError):
            Aead.parse(bytes(raw), handle=1, public_id=PUBLIC_ID).open(KSM_KEY)

    @given(st.binary(max_size=80))
    def test_anything_else_is_refused(self, raw: bytes) -> None:
        with pytest.raises(AeadError):
            Aead.parse(raw, handle=1, public_id=PUBLIC_ID).open(KSM_KEY)

    def test_another_key_does_not_open_it(self) -> None:
        with pytest.raises(AeadError, match="does not open"):
            Aead.parse(AEAD, handle=1, public_id=PUBLIC_ID).open(bytes(32))

    @pytest.mark.parametrize(("aes_key", "private_id"), [(bytes(15), bytes(6)), (bytes(16), bytes(5))])
    def test_sizes_of_a_credential(self, aes_key: bytes, private_id: bytes) -> None:
        with pytest.raises(ValueError, match="16 bytes"):
            Credential(aes_key, private_id)

    def test_path(self) -> None:
        path = aead.path_in(Path("/var/cache/yubikey-ksm/aeads"), "1", PUBLIC_ID)
        assert str(path) == "/var/cache/yubikey-ksm/aeads/1/cr/ed/ti/vc/cc/cc/credtivccccc"
        assert str(aead.path_in(Path("/a"), "0x1", "cc")) == "/a/0x1/cc/cc"


class TestKeysJson:
    @given(
        st.dictionaries(
            st.integers(0, 0xFFFFFFFF),
            st.sampled_from([16, 24, 32]).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
            max_size=5,
        )
    )
    def test_round_trip(self, keys: dict[int, bytes]) -> None:
        assert parse_keys(format_keys(keys)) == keys

    def test_the_published_form(self) -> None:
        text = '{\n  "1": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"\n}'
        assert parse_keys(text) == {1: KSM_KEY}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no JSON"),
            ("[" * 100_000, "no JSON"),
            ("[]", "must be an object"),
            ('{"a": "00"}', "the handle must be a decimal"),
            ('{"0x1": "00"}', "the handle must be a decimal"),
            ('{"²": "00"}', "the handle must be a decimal"),
            ('{"4294967296": "00"}', "the handle must be a decimal"),
            ('{"1": "00"}', "the key of handle 1"),
            ('{"1": 5}', "the key of handle 1"),
            ('{"1": "' + "zz" * 16 + '"}', "the key of handle 1"),
            ('{"1": "' + "00" * 16 + '", "01": "' + "00" * 16 + '"}', "twice"),
        ],
    )
    def test_wrong_files(self, text: str, message: str) -> None:
        with pytest.raises(KsmError, match=message):
            parse_keys(text)

    @given(st.text(max_size=60) | st.recursive(st.none() | st.text(), st.lists, max_leaves=4).map(json.dumps))
    def test_anything_else_is_refused_or_read(self, text: str) -> None:
        try:
            keys = parse_keys(text)
        except KsmError:
            return
        assert all(len(key) in (16, 24, 32) for key in keys.values())

    @pytest.mark.parametrize("handle", ["", "-1", " 1", "1/..", "..", "4294967296", "0x", "1_0", "²"])
    def test_no_handle(self, handle: str) -> None:
        with pytest.raises(ValueError, match=r".*"):
            handle_number(handle)

    def test_handles(self) -> None:
        assert [handle_number(h) for h in ("1", "0x1", "01", "4294967295")] == [1, 1, 1, 0xFFFFFFFF]


class TestKeyStorage:
    @pytest.fixture
    def storage(self, tmp_path: Path) -> KeyStorage:
        (tmp_path / "keys.json").write_text(format_keys({1: KSM_KEY}))
        path = aead.path_in(tmp_path / "aeads", "1", PUBLIC_ID)
        path.parent.mkdir(parents=True)
        path.write_bytes(AEAD)
        return KeyStorage(tmp_path / "keys.json", tmp_path / "aeads", ["2", "1"])

    @pytest.mark.parametrize("typed", [OTP, OTP.upper(), to_dvorak(OTP), to_dvorak(OTP).upper()])
    def test_decrypts_whatever_the_layout(self, storage: KeyStorage, typed: str) -> None:
        assert storage.decrypt(typed) == (PUBLIC_ID, TOKEN)

    def test_what_has_two_readings_is_read_right(self, storage: KeyStorage, tmp_path: Path) -> None:
        """Typed with either layout it consists of letters that both alphabets have: decryption decides."""
        both = set(modhex.ALPHABET) & set(modhex.DVORAK)
        key = SoftwareYubiKey("c" * 12, bytes(6), bytes(16))
        otp = next(o for o in (_press(key, n) for n in range(10**7)) if set(o) <= both)
        path = aead.path_in(tmp_path / "aeads", "1", key.public_id)
        path.parent.mkdir(parents=True)
        path.write_bytes(aead.seal(KSM_KEY, 1, Credential(bytes(16), bytes(6))).to_bytes())
        assert len(modhex.readings(otp)) == 2
        assert storage.decrypt(otp)[0] == key.public_id

    @pytest.mark.parametrize(
        "typed", ["", "c" * 31, OTP[:-1], OTP[:-1] + "c", "x" * 44, OTP * 2, "../../../../etc/passwd"]
    )
    def test_no_otp(self, storage: KeyStorage, typed: str) -> None:
        with pytest.raises((InvalidOtp, UnknownPublicId)):
            storage.decrypt(typed)

    def test_unknown(self, storage: KeyStorage) -> None:
        with pytest.raises(UnknownPublicId):
            storage.decrypt("vv" + OTP[2:])

    @pytest.mark.parametrize("damage", ["no keys.json", "no key", "other key", "cut off", "no folder"])
    def test_damage_is_no_wrong_otp(self, storage: KeyStorage, tmp_path: Path, damage: str) -> None:
        """What is broken is said to be broken, so that nobody takes it for a wrong password."""
        match damage:
            case "no keys.json":
                storage.keys_file.unlink()
            case "no key":
                storage.keys_file.write_text(format_keys({2: KSM_KEY}))
            case "other key":
                storage.keys_file.write_text(format_keys({1: bytes(32)}))
            case "cut off":
                aead.path_in(storage.aeads, "1", PUBLIC_ID).write_bytes(AEAD[:40])
            case _:
                storage.aeads = tmp_path / "nowhere"
        with pytest.raises(KsmError) as error:
            storage.decrypt(OTP)
        assert KSM_KEY.hex() not in str(error.value)


def _press(key: SoftwareYubiKey, number: int) -> str:
    made = Token(key.private_id, number >> 8 & 0x7FFF, number >> 23, 0, number & 0xFF, 0)
    return token.encrypt(key.public_id, key.aes_key, made)
