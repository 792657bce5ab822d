"""`reconciler otp`, as somebody at the command line gets it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.cli.main import run
from reconciler.secret_store import SecretStore
from reconciler.tools.otp import otpauth
from reconciler.tools.otp.oath import OathKey, parse_secret
from reconciler.tools.otp.software_yubikey import SoftwareYubiKey
from tests.otp.test_credentials import KEY, UID, ksm, log
from tests.otp.vectors import AES_KEY, PRIVATE_ID, PUBLIC_ID

SECRET, BOBS = "4LRW4HZQCC52QP7NIEMCIT4FXYOLWI75", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
HOSTS = """\
apiVersion: reconciler/v1
kind: Host
metadata: {{name: bastion}}
spec: {{connection: image, root: {root}}}
---
apiVersion: reconciler/v1
kind: OtpServer
metadata: {{name: otp}}
spec:
  hosts: [bastion]
  ksmKeys:
    "1": {{secretRef: otp-server/ksm-1, generate: hex16}}
---
apiVersion: reconciler/v1
kind: TotpKey
metadata: {{name: vpn}}
spec:
  hosts: [bastion]
  users:
    - {{user: alice, secret: {{secretRef: otp/alice}}}}
---
apiVersion: reconciler/v1
kind: TotpKey
metadata: {{name: door}}
spec:
  hosts: [bastion]
  path: /etc/door.oath
  factor: hotp
  digits: 8
  users:
    - {{user: alice, secret: {{secretRef: otp/alice}}}}
    - {{user: bob, secret: {{secretRef: otp/bob}}}}
"""
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A desired state with a store of secrets, in the current folder."""
    (tmp_path / "desired-state").mkdir()
    (tmp_path / "desired-state/all.yaml").write_text(HOSTS.format(root=tmp_path / "bastion"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECONCILER_STATE", raising=False)
    for name in ("SOPS_AGE_KEY", "SOPS_AGE_KEY_CMD", "SOPS_AGE_SSH_PRIVATE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(tmp_path / "identity"))
    assert run(["secrets", "init", "--identity", str(tmp_path / "identity")]) == 0
    SecretStore(Path("desired-state")).set({"otp/alice": SECRET, "otp/bob": BOBS.lower()})
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line; gives status, output and errors."""

    def call(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(argv)
        out, err = capsys.readouterr()
        return status, out, err

    return call


class TestQr:
    def test_uri(self, repo: Path, cli: Cli) -> None:
        status, out, err = cli("otp", "qr", "vpn", "--uri")
        assert (status, out) == (0, f"otpauth://totp/-?secret={SECRET}\n")
        assert err == (
            "This discloses to whoever sees it:\n"
            "  - the secret: whoever photographs this code can make the same passwords\n"
        )

    def test_what_is_asked_for_is_warned_about(self, repo: Path, cli: Cli) -> None:
        status, out, err = cli("otp", "qr", "vpn", "--uri", "--label", "VPN at work", "--issuer", "ACME")
        assert (status, out) == (0, f"otpauth://totp/VPN%20at%20work?secret={SECRET}&issuer=ACME\n")
        assert "  - the label 'VPN at work'\n  - the issuer 'ACME'\n" in err
        assert SECRET not in err

    def test_no_label(self, repo: Path, cli: Cli) -> None:
        assert cli("otp", "qr", "vpn", "--uri", "--no-label")[1] == f"otpauth://totp/?secret={SECRET}\n"

    def test_hotp(self, repo: Path, cli: Cli) -> None:
        status, out, _ = cli("otp", "qr", "TotpKey/door", "-u", "bob", "--uri", "--counter", "42")
        assert (status, out) == (0, f"otpauth://hotp/-?secret={BOBS}&digits=8&counter=42\n")
        assert "counter=0" in cli("otp", "qr", "door", "-u", "bob", "--uri")[1]

    def test_pictures(self, repo: Path, cli: Cli) -> None:
        status, out, _ = cli("otp", "qr", "vpn", "--png", "a.png", "--svg", "a.svg")
        assert (status, out) == (0, "")
        assert {(repo / name).stat().st_mode & 0o777 for name in ("a.png", "a.svg")} == {0o600}
        if shutil.which("zbarimg"):
            done = subprocess.run(["zbarimg", "-q", "--raw", "a.png"], capture_output=True, text=True, check=True)
            assert done.stdout == f"otpauth://totp/-?secret={SECRET}\n"
        status, _, err = cli("otp", "qr", "vpn", "--png", "a.png")
        assert (status, err) == (1, "a.png exists already. Name another file, or remove it.\n")

    def test_terminal(self, repo: Path, cli: Cli) -> None:
        status, out, _ = cli("otp", "qr", "vpn")
        assert status == 0
        assert set(out) == set("█▀▄ \n"), "no escape sequences where no terminal is"

    def test_json(self, repo: Path, cli: Cli) -> None:
        found = json.loads(cli("otp", "qr", "vpn", "--output", "json", "--png", "x.png")[1])
        assert found["files"] == ["x.png"]
        assert len(found["discloses"]) == 1
        assert SECRET not in str(found)

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["vnp"], "there is no TotpKey vnp. Did you mean vpn?"),
            (["door"], "TotpKey/door has keys of alice, bob. Choose one: --user alice."),
            (["door", "-u", "carol"], "TotpKey/door has no key of carol; it has those of alice, bob."),
            (["vpn", "--counter", "1"], "TotpKey/vpn depends on the time and has no counter. Leave --counter out."),
            (["vpn", "--label", "a:b"], "the label must not hold a colon"),
            (["vpn", "--label", "x", "--no-label"], "contradict each other"),
            (["vpn", "--png", "/nowhere/x.png"], "/nowhere/x.png cannot be written: No such file or directory."),
        ],
    )
    def test_mistakes(self, repo: Path, cli: Cli, argv: list[str], message: str) -> None:
        status, out, err = cli("otp", "qr", *argv)
        assert (status, out) == (1, "")
        assert message in err
        assert "Traceback" not in err

    def test_a_secret_that_is_none(self, repo: Path, cli: Cli) -> None:
        text = (repo / "desired-state/all.yaml").read_text().replace("secretRef: otp/alice", "secretRef: 'env:WRONG'")
        (repo / "desired-state/all.yaml").write_text(text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WRONG", "hunter2-is-no-base32")
            status, _, err = cli("otp", "qr", "vpn")
        assert (status, err) == (
            1,
            "TotpKey/vpn, user alice: the secret must be base32: letters A to Z and digits 2 to 7.\n",
        )


class TestCodes:
    def test_show_and_verify(self, repo: Path, cli: Cli) -> None:
        key = OathKey(parse_secret(SECRET))
        before = time.time()
        status, out, err = cli("otp", "show", "vpn")
        assert status == 0
        assert out.strip() in {key.code(before), key.code(time.time())}
        assert re.fullmatch(r"\d+ s left\n", err)
        status, said, _ = cli("otp", "verify", "vpn", out.strip())
        assert (status, said.startswith("Right: ")) == (0, True)
        found = json.loads(cli("otp", "show", "vpn", "--output", "json")[1])
        assert 1 <= found["seconds"] <= 30

    def test_a_clock_that_is_wrong(self, repo: Path, cli: Cli) -> None:
        old = OathKey(parse_secret(SECRET)).code(time.time() - 300)
        status, out, _ = cli("otp", "verify", "vpn", old)
        assert (status, out.startswith("Wrong: no code of this time")) == (1, True)
        status, out, _ = cli("otp", "verify", "vpn", old, "--window", "20")
        assert status == 0
        assert re.fullmatch(r"Right: off by -(300|330) s\.\n", out)

    def test_hotp(self, repo: Path, cli: Cli) -> None:
        key = OathKey(parse_secret(BOBS), "hotp", digits=8, counter=17)
        assert cli("otp", "verify", "door", key.code(), "-u", "bob")[:2] == (0, "Right: the code of counter 17.\n")
        status, _, err = cli("otp", "show", "door", "-u", "bob")
        assert (status, "counts logins" in err) == (1, True)

    def test_yubikey(self, repo: Path, cli: Cli) -> None:
        (repo / "k.csv").write_text(ksm(f"1,{PUBLIC_ID},{UID},{KEY},,,,"))
        assert cli("otp", "import", "k.csv", "--server", "otp")[0] == 0
        otp = SoftwareYubiKey(PUBLIC_ID, PRIVATE_ID, AES_KEY, counter=19, use=17).press()
        assert cli("otp", "verify", PUBLIC_ID, otp)[:2] == (0, "Right: power-up 19, use 17.\n")
        assert cli("otp", "verify", PUBLIC_ID, otp.upper())[0] == 0
        for wrong, why in (
            (SoftwareYubiKey.new(PUBLIC_ID).press(), "no OTP of this YubiKey, or its secrets are others"),
            (SoftwareYubiKey.new("cccc").press(), f"an OTP of cccc, and not of {PUBLIC_ID}"),
            ("hello", "no OTP of a YubiKey"),
        ):
            assert cli("otp", "verify", PUBLIC_ID, wrong)[:2] == (1, f"Wrong: {why}.\n")

    def test_from_standard_input(self, repo: Path) -> None:
        code = OathKey(parse_secret(SECRET)).code(time.time())
        argv = [sys.executable, "-m", "reconciler.cli.main", "otp", "verify", "vpn", "--output", "json"]
        done = subprocess.run(argv, input=f"{code}\n", capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["right"] is True


class TestImport:
    @pytest.mark.parametrize(
        "text",
        [
            ksm(f"1,{PUBLIC_ID},{UID},{KEY},,,,", f"2,vvcccccccccc,{UID},{'00' * 16},,,,"),
            f"1234,{PUBLIC_ID},{UID},{KEY},,2026-11-22T09:41:31,\n1235,vvcccccccccc,{UID},{'00' * 16},,2026-11-22,\n",
            log("Yubico OTP,22. Nov 2026, 09:41") + log("Yubico OTP,x", public="vvcccccccccc", key="00" * 16),
        ],
        ids=["ykksm", "ykman", "log"],
    )
    def test_documents_and_secrets(self, repo: Path, cli: Cli, text: str) -> None:
        (repo / "k.csv").write_text(text)
        status, out, err = cli("otp", "import", "k.csv", "--server", "otp")
        assert (status, err) == (0, "k.csv still holds the secrets: shred it.\n")
        assert out.startswith(f"2 imported, in desired-state/yubikeys/{PUBLIC_ID}.yaml;")
        written = (repo / f"desired-state/yubikeys/{PUBLIC_ID}.yaml").read_text()
        assert UID not in written
        assert KEY not in written
        assert cli("validate")[0] == 0
        again = cli("otp", "export", "vvcccccccccc", "--for", "ksm")[1]
        assert again == ksm(f"1,vvcccccccccc,{UID},{'00' * 16},,,,")
        for file in (repo / "desired-state/secrets").rglob("*.yaml"):
            assert KEY not in file.read_text()

    def test_nothing_is_overwritten(self, repo: Path, cli: Cli) -> None:
        (repo / "k.csv").write_text(ksm(f"1,{PUBLIC_ID},{UID},{KEY},,,,"))
        assert cli("otp", "import", "k.csv", "--server", "otp")[0] == 0
        before = {p: p.read_bytes() for p in (repo / "desired-state").rglob("*") if p.is_file()}
        (repo / "k.csv").write_text(ksm(f"1,{PUBLIC_ID},{UID},{'00' * 16},,,,", f"2,vvcc,{UID},{KEY},,,,"))
        status, _, err = cli("otp", "import", "k.csv", "--server", "otp", "--to", "desired-state/more.yaml")
        assert status == 1
        assert f"k.csv:2:1: The public id {PUBLIC_ID} is in use already, and is not overwritten." in err
        (repo / f"desired-state/yubikeys/{PUBLIC_ID}.yaml").rename(repo / "gone.yaml")
        status, _, err = cli("otp", "import", "k.csv", "--server", "otp")
        assert (status, err) == (
            1,
            f"the secret yubikeys/{PUBLIC_ID}-private exists already. Choose another place: --secrets NAME.\n",
        )
        (repo / "gone.yaml").rename(repo / f"desired-state/yubikeys/{PUBLIC_ID}.yaml")
        assert {p: p.read_bytes() for p in (repo / "desired-state").rglob("*") if p.is_file()} == before

    def test_one_bad_line_and_nothing_is_written(self, repo: Path, cli: Cli) -> None:
        before = sorted((repo / "desired-state").rglob("*"))
        (repo / "k.csv").write_text(ksm(f"1,{PUBLIC_ID},{UID},{KEY},,,,", f"2,,{UID},{KEY},,,,", "3,vvcc,x,y"))
        status, _, err = cli("otp", "import", "k.csv", "--server", "otp")
        assert status == 1
        assert "k.csv:3:1: The public id is empty." in err
        assert "k.csv:4:1: The AES key must be 32 hexadecimal digits, and has 1 characters." in err
        assert "3 problems. Nothing was changed." in err
        assert sorted((repo / "desired-state").rglob("*")) == before

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["nowhere.csv", "--server", "otp"], "nowhere.csv cannot be read: No such file or directory."),
            (["k.csv", "--server", "opt"], "there is no OtpServer opt. Did you mean otp?"),
            (["k.csv", "--server", "otp", "--to", "../x.yaml"], "lies outside the desired state"),
            (["k.csv", "--server", "otp", "--to", "desired-state/all.yaml"], "exists already"),
            (["k.csv", "--server", "otp", "--to", "desired-state/all.yaml/x.yaml"], "cannot be made: "),
            (["k.csv", "--server", "otp", "--secrets", "../../etc"], "is no place for a secret"),
            (["latin.csv", "--server", "otp"], "is not UTF-8 text"),
        ],
    )
    def test_mistakes(self, repo: Path, cli: Cli, argv: list[str], message: str) -> None:
        (repo / "k.csv").write_text(ksm(f"1,{PUBLIC_ID},{UID},{KEY},,,,"))
        (repo / "latin.csv").write_bytes("Clé".encode("latin-1"))
        before = sorted((repo / "desired-state").rglob("*"))
        status, out, err = cli("otp", "import", *argv)
        assert (status, out) == (1, "")
        assert message in err
        assert sorted((repo / "desired-state").rglob("*")) == before

    def test_a_full_disk_leaves_no_half(self, repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither documents without secrets, nor secrets without documents, nor half a file."""
        (repo / "k.csv").write_text(ksm(f"1,{PUBLIC_ID},{UID},{KEY},,,,"))
        (repo / "desired-state/yubikeys").mkdir()
        before = {p: p.read_bytes() for p in repo.rglob("*") if p.is_file()}

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            for argv in (["import", "k.csv", "--server", "otp"], ["qr", "vpn", "--svg", "a.svg"]):
                status, _, err = cli("otp", *argv)
                assert (status, "cannot be written: No space left on device" in err) == (1, True)
                assert {p: p.read_bytes() for p in repo.rglob("*") if p.is_file()} == before
        assert cli("otp", "import", "k.csv", "--server", "otp")[0] == 0

    def test_json(self, repo: Path, cli: Cli) -> None:
        (repo / "k.csv").write_text("LOGGING START,x 1\n" + log("Yubico OTP,x"))
        found = json.loads(cli("otp", "import", "k.csv", "--server", "otp", "--output", "json")[1])
        assert found["documents"] == [PUBLIC_ID]
        assert found["skipped"] == [{"line": 1, "why": "no credential"}]


class TestKeygenAndExport:
    def test_one(self, repo: Path, cli: Cli) -> None:
        status, out, err = cli("otp", "keygen", "alice-1", "--server", "otp", "--owner", "alice")
        assert status == 0
        public_id = re.match(r"alice-1: (vv[cbdefghijklnrtuv]{10})\n", out)
        assert public_id
        assert "reconciler otp export alice-1 --for ykman | sh" in err
        written = (repo / "desired-state/yubikeys/alice-1.yaml").read_text()
        assert f'publicId: "{public_id[1]}"' in written
        assert 'owner: "alice"' in written
        assert cli("validate")[0] == 0
        status, out, err = cli("otp", "export", "alice-1", "--for", "ykman")
        assert (status, err) == (0, "")
        assert f"ykman otp yubiotp 1 --public-id {public_id[1]} <<'END'" in out
        assert "-ouid -a -y" in cli("otp", "export", "alice-1", "--for", "ykpersonalize", "--slot", "2")[1]

    def test_a_series(self, repo: Path, cli: Cli) -> None:
        status, out, _ = cli("otp", "keygen", "k", "--server", "otp", "-c", "3", "--public-id", "credtivccccv")
        assert status == 0
        assert out.splitlines()[:3] == ["k-1: credtivccccv", "k-2: credtivcccbc", "k-3: credtivcccbb"]
        exported = {cli("otp", "export", f"k-{n}", "--for", "ksm")[1] for n in (1, 2, 3)}
        secrets = {tuple(text.splitlines()[1].split(",")[2:4]) for text in exported}
        assert len({s for pair in secrets for s in pair}) == 6
        assert cli("validate")[0] == 0

    def test_names_that_yaml_would_misread(self, repo: Path, cli: Cli) -> None:
        for name in ("null", "1e5", "on", "0x1"):
            assert cli("otp", "keygen", name, "--server", "otp", "--to", f"desired-state/{name}.yaml")[0] == 0
        assert cli("validate")[0] == 0

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["Alice", "--server", "otp"], "'Alice' is no name of a document"),
            (['a"\nkind: Host', "--server", "otp"], "is no name of a document"),
            (["a", "--server", "otp", "--owner", "root; id"], "'root; id' is no account"),
            (["a", "--server", "otp", "--public-id", "xyz"], "'xyz' is no public id"),
            (
                ["a", "--server", "otp", "-c", "2", "--public-id", "vv"],
                "there are no 2 public ids of 2 letters from vv on",
            ),
        ],
    )
    def test_mistakes(self, repo: Path, cli: Cli, argv: list[str], message: str) -> None:
        before = sorted((repo / "desired-state").rglob("*"))
        status, out, err = cli("otp", "keygen", *argv)
        assert (status, out) == (1, "")
        assert message in err
        assert sorted((repo / "desired-state").rglob("*")) == before

    def test_existing_ids_and_names(self, repo: Path, cli: Cli) -> None:
        assert cli("otp", "keygen", "a", "--server", "otp", "--public-id", "vvcc")[0] == 0
        assert (
            "the public id vvcc is in use already"
            in cli("otp", "keygen", "b", "--server", "otp", "--public-id", "vvcc")[2]
        )
        assert (
            "YubikeyOtp/a exists already"
            in cli("otp", "keygen", "a", "--server", "otp", "--to", "desired-state/b.yaml")[2]
        )

    def test_secrets_are_not_shown_on_a_terminal(self, repo: Path) -> None:
        assert run(["otp", "keygen", "a", "--server", "otp"]) == 0
        argv = f"{sys.executable} -m reconciler.cli.main otp export a --for ykman"
        done = subprocess.run(["script", "-qec", argv, "/dev/null"], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "this would show secrets on the terminal" in done.stdout
        assert "ykman otp" not in done.stdout


def test_colors_on_a_terminal_only(repo: Path) -> None:
    argv = f"{sys.executable} -m reconciler.cli.main otp qr vpn"
    done = subprocess.run(["script", "-qec", argv, "/dev/null"], capture_output=True, text=True, check=True)
    assert "\x1b[97;40m█" in done.stdout


def test_serve_says_what_is_wrong(tmp_path: Path, cli: Cli) -> None:
    status, _, err = cli("otp", "serve", "--config", str(tmp_path / "x.json"))
    assert status == 1
    assert "x.json cannot be read" in err


def test_help_loads_nothing() -> None:
    """The command line stays quick: no cryptography, no segno for those who do not use them."""
    code = (
        "import sys; from reconciler.cli.main import run; run(['otp', '--help']);"
        "sys.exit(any(m.split('.')[0] in ('cryptography', 'segno') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_the_uri_of_the_article() -> None:
    """It named the service; ours does so on request only."""
    assert otpauth.uri(OathKey(parse_secret(SECRET)), "OpenVPN") == f"otpauth://totp/OpenVPN?secret={SECRET}"
