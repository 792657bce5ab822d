"""Files of keys: three formats, all mistakes at once with their lines, and commands that keep secrets out of argv."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import InvalidInput
from reconciler.tools.otp import credentials
from reconciler.tools.otp.credentials import Programmer, YubikeyCredential
from reconciler.tools.otp.server import modhex
from tests.otp.vectors import AES_KEY, PRIVATE_ID, PUBLIC_ID

UID, KEY = PRIVATE_ID.hex(), AES_KEY.hex()
ONE = YubikeyCredential(PUBLIC_ID, UID, KEY)
TAIL = "000000000000,000000000000,0,0,0,0,0,0,0,0,0,0"
CREDENTIALS = st.lists(
    st.builds(
        YubikeyCredential,
        st.binary(min_size=1, max_size=8).map(modhex.encode),
        st.binary(min_size=6, max_size=6).map(bytes.hex),
        st.binary(min_size=16, max_size=16).map(bytes.hex),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda c: c.public_id,
)


def ksm(*rows: str) -> str:
    return "\n".join(["# ykksm 1", *rows, ""])


def log(*events: str, public: str = PUBLIC_ID, uid: str = UID, key: str = KEY, slot: str = "1") -> str:
    return "".join(f"{event},{slot},{public},{uid},{key},{TAIL}\n" for event in events)


def problems(text: str, existing: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(InvalidInput) as error:
        credentials.parse(text, "keys.csv", existing)
    for secret in (UID, KEY, KEY[:-1], UID.upper(), "00" * 16):
        assert secret not in str(error.value)
    return [str(problem) for problem in error.value.problems]


class TestFormats:
    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            (ksm(f"1,{PUBLIC_ID},{UID},{KEY},,,,"), "ykksm"),
            (ksm(f"1,{PUBLIC_ID},{UID},{KEY}"), "ykksm"),
            (
                ksm(f"1,{PUBLIC_ID.upper()},{UID.upper()},{KEY.upper()},000000000000,,,,,").replace("\n", "\r\n"),
                "ykksm",
            ),
            (f"\ufeff# ykksm 1\n\n# a comment\n1,{PUBLIC_ID}, {UID}, {KEY},,,,", "ykksm"),
            (f"12345678,{PUBLIC_ID},{UID},{KEY},,2026-11-22T09:41:31,\n", "ykman"),
            (f"12345678,{PUBLIC_ID},{UID},{KEY},aabbccddeeff,2026-11-22T09:41:31,\n", "ykman"),
            (log("Yubico OTP,11/22/26 9:41 AM"), "log"),
            (log("Yubico OTP,Sonntag, 22. November 2026 09:41:31 CET"), "log"),
            (log("Clé Yubico,dimanche, 22 novembre 2026, 09 h 41"), "log"),
            (log("Yubico OTP,22.11.26 09:41", public="cred tivc cccc", uid="87 92 eb fe 26 cc"), "log"),
        ],
    )
    def test_one_key(self, text: str, kind: str) -> None:
        found = credentials.parse(text, "keys.csv")
        assert (found.format, found.credentials) == (kind, (ONE,))

    def test_a_log_of_all_kinds(self) -> None:
        text = (
            "LOGGING START,11/22/26 9:40 AM\n"
            + log("Yubico OTP,Nov 22, 2026, 9:41 AM")
            + log("Static Password,11/22/26 9:42 AM", public="vvcc")
            + log("OATH-HOTP,11/22/26 9:43 AM", public="", uid="", key="00" * 20)
            + log("Challenge-Response: HMAC-SHA1,11/22/26 9:43 AM", public="", uid="", key="00" * 20)
            + log("Antwort,22.11.26 09:43", public="", uid="", key="00" * 20)
            + log("Configuration Swap,11/22/26 9:44 AM", public="", uid="", key="")
            + "PROTOKOLL BEGINNT,22.11.26 10:00\n"
            + log("Yubico OTP,22.11.26 10:01", public="vvcccccccccc", slot="2")
        )
        found = credentials.parse(text, "configuration_log.csv")
        assert [c.public_id for c in found.credentials] == [PUBLIC_ID, "vvcccccccccc"]
        assert [c.line for c in found.credentials] == [2, 9]
        assert [line for line, _ in found.skipped] == [1, 3, 4, 5, 6, 7, 8]

    @given(CREDENTIALS)
    def test_round_trip(self, made: list[YubikeyCredential]) -> None:
        text = credentials.format_ksm(made)
        assert list(credentials.parse(text, "x").credentials) == made
        assert [c.line for c in credentials.parse(text, "x").credentials] == list(range(2, len(made) + 2))

    @given(
        st.text(max_size=200) | st.text(max_size=200).map(lambda t: f"# ykksm 1\n{t}") | st.text(",0cb\n", max_size=200)
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        try:
            found = credentials.parse(text, "x")
        except InvalidInput:
            return
        assert found.credentials
        assert all(modhex.is_public_id(c.public_id) for c in found.credentials)

    def test_nothing_secret_is_shown(self) -> None:
        assert UID not in repr(ONE)
        assert KEY not in repr(ONE)


class TestProblems:
    def test_all_at_once_with_their_lines(self) -> None:
        text = ksm(
            f"1,{PUBLIC_ID},{UID},{KEY},,,,",
            f"2,,{UID},{KEY},,,,",
            f"3,{PUBLIC_ID},{UID},{KEY},,,,",
            f"4,{'c' * 18},{UID},{KEY},,,,",
            f"5,vvc,{UID},{KEY},,,,",
            f"6,alice,{UID},{KEY},,,,",
            f"7,vvcc,{UID[:-2]},{KEY}00,,,,",
            "8,vvcccc",
            f"9,vvcccccccccc,{UID},{'x' * 32},,,,",
            f"10,cccccccccccc,{UID},{KEY},,,,",
        )
        fix = "Write 2 to 16 of the letters cbdefghijklnrtuv, an even number of them."
        assert problems(text, ("cccccccccccc",)) == [
            "keys.csv:3:1: The public id is empty. Give this YubiKey one: without it no server can find it.",
            f"keys.csv:4:1: The public id {PUBLIC_ID} was in line 2 already. Keep one of the two.",
            f"keys.csv:5:1: '{'c' * 18}' is no public id. {fix}",
            f"keys.csv:6:1: 'vvc' is no public id. {fix}",
            f"keys.csv:7:1: 'alice' is no public id. {fix}",
            "keys.csv:8:1: The AES key must be 32 hexadecimal digits, and has 34 characters.",
            "keys.csv:8:1: The private uid must be 12 hexadecimal digits, and has 10 characters.",
            "keys.csv:9:1: 2 fields instead of at least 4.",
            "keys.csv:10:1: The AES key must be 32 hexadecimal digits, and has other characters.",
            "keys.csv:11:1: The public id cccccccccccc is in use already, and is not overwritten. Leave the line out, "
            "or remove the old key first.",
        ]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "none of the formats"),
            ("hello", "none of the formats"),
            ("# ykksm 2\n1,a,b,c", "must be exactly '# ykksm 1'"),
            ("# ykksm 1 \n", "There is no Yubico OTP credential in it."),
            ("# ykksm 1\n", "There is no Yubico OTP credential in it."),
            (log("Yubico OTP,x", slot="3"), "must be the slot"),
            (log("Static Password,x"), "There is no Yubico OTP credential in it."),
            (log("Yubico OTP,x") + "1,2,3\n", "3 fields instead of at least 18"),
            (log("Yubico OTP,x", public=""), "The public id is empty"),
            (f"1,{PUBLIC_ID},{UID},{KEY},,,,,", "9 fields instead of the 7 of ykman"),
        ],
    )
    def test_one(self, text: str, message: str) -> None:
        assert any(message in problem for problem in problems(text))


class TestCommands:
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Path:
        """Programs that note what they are given, in place of those that need a YubiKey."""
        for name, version in (("ykman", "5.5.1"), ("ykpersonalize", "1.20.0")):
            script = tmp_path / name
            script.write_text(
                "#!/bin/sh\n"
                'if [ "$1" = --version ]; then\n'
                f'    echo "YubiKey Manager (ykman) version: ${{YKMAN:-{version}}}"; exit 0\n'
                "fi\n"
                'printf "%s\\n" "$0 $*" >"${0%/*}/argv"; cat >"${0%/*}/stdin"\n'
            )
            script.chmod(0o755)
        return tmp_path

    @pytest.mark.parametrize(
        ("programmer", "slot", "argv", "answers"),
        [
            ("ykman", 1, f"ykman otp yubiotp 1 --public-id {PUBLIC_ID}", [UID, KEY, "y"]),
            ("ykman", 2, f"ykman otp yubiotp 2 --public-id {PUBLIC_ID}", [UID, KEY, "y"]),
            ("ykpersonalize", 1, f"ykpersonalize -1 -ofixed=m:{PUBLIC_ID} -ouid -a -y", [UID, KEY]),
            (
                "ykpersonalize",
                2,
                "ykpersonalize -2 -o-static-ticket -o-strong-pw1 -o-strong-pw2 -o-man-update "
                f"-ofixed=m:{PUBLIC_ID} -ouid -a -y",
                [UID, KEY],
            ),
        ],
    )
    def test_secrets_go_to_standard_input(
        self, bench: Path, programmer: Programmer, slot: Literal[1, 2], argv: str, answers: list[str]
    ) -> None:
        script = credentials.commands(ONE, programmer, slot)
        environ = {**os.environ, "PATH": f"{bench}:{os.environ['PATH']}"}
        subprocess.run(["sh", "-e"], input=script, text=True, check=True, env=environ)
        assert (bench / "argv").read_text() == f"{bench}/{argv}\n"
        assert (bench / "stdin").read_text().splitlines() == answers

    @pytest.mark.parametrize("version", ["4.0.9", "3.1.1", "", "0.9"])
    def test_an_old_ykman_would_upload_them(self, bench: Path, version: str) -> None:
        environ = {**os.environ, "PATH": f"{bench}:{os.environ['PATH']}", "YKMAN": version or "unknown"}
        script = credentials.commands(ONE, "ykman")
        done = subprocess.run(["sh"], input=script, text=True, check=False, env=environ, capture_output=True)
        assert (done.returncode, done.stderr) == (1, "This needs ykman 5 or newer.\n")
        assert not (bench / "argv").exists()

    @pytest.mark.parametrize("version", ["5.0.0", "5.7.2", "6.0", "10.1"])
    def test_newer_ones(self, bench: Path, version: str) -> None:
        environ = {**os.environ, "PATH": f"{bench}:{os.environ['PATH']}", "YKMAN": version}
        subprocess.run(["sh"], input=credentials.commands(ONE, "ykman"), text=True, check=True, env=environ)
        assert (bench / "argv").exists()
