"""One-time passwords on real hosts: real PAM modules, our validation server, keys that keep what they counted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.apply import Result
from reconciler.model import Outcome
from reconciler.plan import Plan
from reconciler.project import Project
from reconciler.tools.otp.software_yubikey import SoftwareYubiKey
from tests.lab.base import layer
from tests.lab.hosts import Lab, LabHost, Setup

PACKAGES = ("libpam-google-authenticator", "libpam-oath", "libpam-yubico", "oathtool", "pamtester")
ALICE, BOB, CAROL = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", "KRUGKIDROVUWG2ZAMJZG653OEBTG66BA", "GEZDGNBVGY3TQOJQGEZDGNBV"
KSM, OTHER_KSM = "000102030405060708090a0b0c0d0e0f", "f0e0d0c0b0a090807060504030201000"
CLIENT = "AAECAwQFBgcICQoLDA0ODxAREhM="
USERS = "/etc/users.oath"
HOME_FILE = "/home/alice/.google_authenticator"
DATABASE = "/var/lib/otp-server/ykval.sqlite"
COUNTERS = (
    f"import sqlite3; [print(*row) for row in sqlite3.connect('file:{DATABASE}?mode=ro', uri=True).execute("
    "'SELECT yk_publicname, active, yk_counter, yk_use, nonce, modified FROM yubikeys ORDER BY 1')]"
)


@pytest.fixture(scope="session")
def otp_lab() -> Iterator[Lab]:
    """One host with the modules that Debian has; Python's cryptography is what a validation server needs."""
    layers = [layer("otp", [*PACKAGES, "python3-cryptography"])]
    with Lab("web1", setups={"web1": Setup(layers=layers)}) as lab:
        yield lab


class Site:
    """A desired state for one host, with its secrets in the environment."""

    def __init__(self, host: LabHost, folder: Path, environment: Callable[[str, str], None]) -> None:
        self.host, self.folder, self.environment = host, folder / "desired", environment
        self.folder.mkdir()
        lab = host.lab
        spec = {"address": host.address, "user": "root", "identityFile": str(lab.key)}
        self.put("Host", host.name, {**spec, "knownHosts": str(lab.known_hosts)})
        self.put("File", "other", {"hosts": [host.name], "path": "/etc/other", "content": "other\n"})
        self.state = folder / "state"

    def put(self, kind: str, name: str, spec: Any) -> None:
        document = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        (self.folder / f"{kind}-{name}.yaml").write_text(json.dumps(document))

    def drop(self, kind: str, name: str) -> None:
        (self.folder / f"{kind}-{name}.yaml").unlink()

    def secret(self, name: str, value: str) -> dict[str, str]:
        """A reference to a secret of this value."""
        self.environment(name, value)
        return {"secretRef": f"env:{name}"}

    def plan(self, *, force: bool = False) -> Plan:
        """On connections that cannot write."""
        with self.host.lab.inside():
            made = self.project().plan(force=force)
        assert not made.unknown, made.unknown
        return made

    def project(self) -> Project:
        """A new one each time: values of secrets are looked up once."""
        return Project(self.folder, self.state)

    def run(self, *, force: bool = False) -> Result:
        """Whatever becomes of it."""
        project = self.project()
        made = self.plan(force=force)
        with self.host.lab.inside(), project.pool(made.targets) as pool:
            return project.apply(made, pool)

    def apply(self, *, force: bool = False) -> None:
        """Everything is done, and nothing is left to do."""
        result = self.run(force=force)
        assert {e.outcome for e in result.ended.values()} <= {Outcome.DONE}, result.ended
        assert [(c.address, c.differences) for c in self.plan().changes] == []

    # ---------------------------------------------------------------------------------------- logging in

    def logs_in(self, service: str, user: str, *answers: str) -> bool:
        """Whether a PAM service lets a user in who gives these answers."""
        told = "".join(f"{answer}\n" for answer in answers)
        done = self.host.run("pamtester", service, user, "authenticate", input=told, check=False)
        assert ("successfully authenticated" in done.stdout) == (done.returncode == 0), done
        return done.returncode == 0

    def code(self, secret: str, *options: str, steps: int = 0) -> str:
        """A code of oathtool's; of TOTP the one that holds so many periods of 30 s from now."""
        later = ["-N", f"now {steps * 30:+d} seconds"] if steps else []
        return self.host.run("oathtool", "--base32", *(options or ("--totp",)), *later, secret).stdout.strip()


ACCOUNTS = "for u in alice bob carol; do useradd -m $u; echo $u:pass-$u; done | chpasswd"


@pytest.fixture
def site(otp_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    one = Site(otp_lab.fresh("web1"), tmp_path, monkeypatch.setenv)
    one.host.run(ACCOUNTS)
    return one


# ------------------------------------------------------------------------------------------------ TotpKey


def oath(site: Site, users: dict[str, str], **fields: Any) -> None:
    keys = [{"user": user, "secret": site.secret(f"OTP_{user.upper()}", secret)} for user, secret in users.items()]
    site.put("TotpKey", "vpn", {"hosts": ["web1"], "users": keys, **fields})


CODE_ALONE = {"services": ["vpn"], "prompt": "code"}


def test_a_code_of_oathtool_logs_in_once(site: Site) -> None:
    """And a replay is refused, before and after another user's key was changed, and after one was taken away."""
    oath(site, {"alice": ALICE, "bob": BOB}, pam=CODE_ALONE)
    assert not site.host.exists("/etc/pam.d/vpn")
    site.apply()
    code = site.code(ALICE)
    assert not site.logs_in("vpn", "alice", site.code(BOB))
    assert site.logs_in("vpn", "alice", code)
    assert not site.logs_in("vpn", "alice", code)
    assert not site.logs_in("vpn", "carol", code)
    kept = [line for line in site.host.read(USERS).splitlines() if "alice" in line]
    assert re.search(rf"\t{code}\t20\d\d-", kept[0])
    assert site.plan().empty, "what the module wrote is no drift"
    oath(site, {"bob": CAROL, "alice": ALICE, "carol": BOB}, pam=CODE_ALONE)
    site.apply()
    assert [line for line in site.host.read(USERS).splitlines() if "alice" in line] == kept
    assert not site.logs_in("vpn", "alice", code)
    assert not site.logs_in("vpn", "bob", site.code(BOB))
    assert site.logs_in("vpn", "bob", site.code(CAROL))
    oath(site, {"alice": ALICE}, pam=CODE_ALONE)
    site.apply()
    assert not site.logs_in("vpn", "bob", site.code(CAROL, steps=1))
    assert not site.logs_in("vpn", "alice", code)
    assert site.logs_in("vpn", "alice", site.code(ALICE, steps=1))
    assert site.host.run("stat", "-c", "%a %U", USERS).stdout == "600 root\n"
    assert site.host.run("ls -A /etc | grep oath").stdout == "users.oath\n"


def test_a_counter_is_not_set_back(site: Site) -> None:
    """HOTP: neither by another apply, nor by another number of digits."""
    oath(site, {"alice": ALICE}, factor="hotp", window=5, pam=CODE_ALONE)
    site.apply()
    codes = [site.code(ALICE, "--hotp", f"--counter={n}") for n in range(4)]
    assert site.logs_in("vpn", "alice", codes[2])
    site.apply()
    assert not site.logs_in("vpn", "alice", codes[2])
    assert not site.logs_in("vpn", "alice", codes[0])
    oath(site, {"alice": ALICE}, factor="hotp", window=5, digits=8, pam=CODE_ALONE)
    site.apply()
    assert not site.logs_in("vpn", "alice", site.code(ALICE, "--hotp", "--counter=2", "--digits=8"))
    assert site.logs_in("vpn", "alice", site.code(ALICE, "--hotp", "--counter=3", "--digits=8"))


def test_password_and_code(site: Site) -> None:
    """In one answer or in two; sshd's own file keeps what was in it."""
    before = site.host.read("/etc/pam.d/sshd")
    oath(site, {"alice": ALICE}, pam={"services": ["sshd"], "withoutKey": "pass"})
    site.put(
        "TotpKey",
        "joined",
        {
            "hosts": ["web1"],
            "users": [{"user": "bob", "secret": site.secret("OTP_BOB", BOB)}],
            "path": "/etc/vpn.oath",
            "pam": {"services": ["openvpn"], "prompt": "joined"},
        },
    )
    site.apply()
    code = site.code(ALICE)
    assert not site.logs_in("sshd", "alice", code, "wrong")
    assert not site.logs_in("sshd", "alice", "pass-alice", "pass-alice")
    assert site.logs_in("sshd", "alice", site.code(ALICE, steps=1), "pass-alice")
    assert site.logs_in("sshd", "bob", "pass-bob"), "who has no key gives the password alone"
    assert not site.logs_in("openvpn", "bob", "pass-bob")
    assert not site.logs_in("openvpn", "bob", site.code(BOB))
    assert not site.logs_in("openvpn", "bob", "wrong" + site.code(BOB, steps=1))
    assert not site.logs_in("openvpn", "carol", "pass-carol")
    assert site.logs_in("openvpn", "bob", "pass-bob" + site.code(BOB, steps=2))
    assert site.host.read("/etc/pam.d/sshd").endswith(before)
    site.drop("TotpKey", "vpn")
    site.drop("TotpKey", "joined")
    site.apply()
    assert site.host.read("/etc/pam.d/sshd") == before
    assert not site.host.exists("/etc/pam.d/openvpn")
    assert not site.host.exists(USERS)


def test_all_services(site: Site) -> None:
    """By pam-auth-update; and not where somebody edited its files, or where the module is missing."""
    host = site.host
    before = host.read("/etc/pam.d/common-auth")
    oath(site, {"alice": ALICE}, pam={"allServices": True})
    host.run("sed -i '/pam_unix/i auth optional pam_permit.so' /etc/pam.d/common-auth")
    edited = host.read("/etc/pam.d/common-auth")
    result = site.run()
    (reason,) = [e.reason for a, e in result.ended.items() if e.outcome is not Outcome.DONE]
    assert "edited by hand" in reason
    assert host.read("/etc/pam.d/common-auth") == edited
    assert not host.exists("/usr/share/pam-configs/reconciler-oath")
    host.write("/etc/pam.d/common-auth", before)
    site.apply()
    assert not site.logs_in("sudo", "alice", "pass-alice", "000000")
    assert site.logs_in("sudo", "alice", "pass-alice", site.code(ALICE))
    assert site.logs_in("sudo", "bob", "pass-bob"), "who has no key gives the password alone"
    assert site.logs_in("login", "alice", "pass-alice", site.code(ALICE, steps=1))
    site.drop("TotpKey", "vpn")
    site.apply()
    assert host.read("/etc/pam.d/common-auth") == before
    assert not host.exists("/usr/share/pam-configs/reconciler-oath")


@pytest.mark.parametrize("pam", [{"allServices": True}, {"services": ["sshd", "vpn"]}], ids=["all", "some"])
def test_a_missing_module_changes_no_stack(site: Site, pam: Any) -> None:
    """A rule for a module that is not there would lock everybody out."""
    oath(site, {"alice": ALICE}, pam=pam)
    site.host.run("rm /usr/lib/*/security/pam_oath.so")
    stacks = site.host.run("cd /etc/pam.d && sha256sum * /usr/share/pam-configs/* /var/lib/pam/*").stdout
    result = site.run()
    reasons = [e.reason for a, e in result.ended.items() if e.outcome is Outcome.FAILED]
    assert len(reasons) == len(pam.get("services", ["all"]))
    assert all("There is no PAM module pam_oath.so on this host" in reason for reason in reasons), reasons
    assert site.host.run("cd /etc/pam.d && sha256sum * /usr/share/pam-configs/* /var/lib/pam/*").stdout == stacks
    assert site.logs_in("sshd", "alice", "pass-alice")


def test_a_busy_lock_is_waited_for_and_a_stale_one_named(site: Site) -> None:
    host = site.host
    site.apply()
    oath(site, {"alice": ALICE})
    host.write(f"{USERS}.lock", "")
    (ended,) = site.run().ended.values()
    assert ended.outcome is Outcome.FAILED
    assert f"{USERS}.lock is there since 20" in ended.reason
    assert f"rm {USERS}.lock" in ended.reason
    assert not host.exists(USERS)
    host.run(f"(sleep 1; rm {USERS}.lock) >/dev/null 2>&1 &")
    site.apply()


def test_logins_during_changes_lose_no_counter(site: Site) -> None:
    """bob logs in all the time while alice's key changes. A login may meet the lock; none counts twice."""
    fields: dict[str, Any] = {"factor": "hotp", "window": 50, "pam": CODE_ALONE}
    oath(site, {"alice": ALICE, "bob": BOB}, **fields)
    site.apply()
    codes = [site.code(BOB, "--hotp", f"--counter={n}") for n in range(40)]
    site.host.write("/root/codes", "".join(f"{code}\n" for code in codes))
    script = "while read -r c; do echo $c | pamtester vpn bob authenticate >/dev/null 2>&1 && echo $c; sleep 0.1; done"
    site.host.run(f"({script}) </root/codes >/root/accepted 2>/dev/null; touch /root/done", check=False, input="")
    accepted = site.host.read("/root/accepted").split()
    assert accepted == codes, "nobody disturbs"
    site.host.run("rm /root/accepted /root/done")
    codes = [site.code(BOB, "--hotp", f"--counter={n}") for n in range(40, 80)]
    site.host.write("/root/codes", "".join(f"{code}\n" for code in codes))
    site.host.run(f"(({script}) </root/codes >/root/accepted; touch /root/done) >/dev/null 2>&1 &")
    changes = 0
    while not site.host.exists("/root/done"):
        changes += 1
        oath(site, {"alice": (ALICE, CAROL)[changes % 2], "bob": BOB}, **fields)
        site.run()
    assert changes > 1
    accepted = site.host.read("/root/accepted").split()
    assert len(accepted) > len(codes) // 2
    script = "while read -r c; do echo $c | pamtester vpn bob authenticate >/dev/null 2>&1 && echo $c; done"
    assert site.host.run(f"({script}) </root/accepted || :").stdout == ""
    site.apply()


def test_google_authenticator(site: Site) -> None:
    """Used codes stay used, in the file of a user and in root's; emergency codes of an old secret go with it."""
    host = site.host
    oath(site, {"alice": ALICE}, format="google-authenticator", rateLimit="3/30", pam=CODE_ALONE)
    site.apply()
    assert host.run("stat", "-c", "%a %U", HOME_FILE).stdout == "600 alice\n"
    host.run(f"echo 12345678 >>{HOME_FILE}")
    code = site.code(ALICE)
    assert site.logs_in("vpn", "alice", code)
    assert not site.logs_in("vpn", "alice", code)
    assert not site.logs_in("vpn", "bob", code)
    assert site.plan().empty, "what the module wrote is no drift"
    kept = host.read(HOME_FILE)
    oath(site, {"alice": ALICE}, format="google-authenticator", rateLimit="9/30", window=5, pam=CODE_ALONE)
    site.apply()
    assert re.search('" DISALLOW_REUSE \\d+', kept)
    assert set(kept.splitlines()) - set(host.read(HOME_FILE).splitlines()) == {
        line for line in kept.splitlines() if "RATE_LIMIT" in line
    }
    assert not site.logs_in("vpn", "alice", code)
    assert site.logs_in("vpn", "alice", site.code(ALICE, steps=1))
    assert site.logs_in("vpn", "alice", "12345678")
    assert not site.logs_in("vpn", "alice", "12345678")
    host.run(f"echo 87654321 >>{HOME_FILE}")
    oath(site, {"alice": BOB}, format="google-authenticator", rateLimit="9/30", window=5, pam=CODE_ALONE)
    site.apply()
    assert not site.logs_in("vpn", "alice", "87654321")
    assert site.logs_in("vpn", "alice", site.code(BOB))


def test_google_authenticator_in_a_folder_of_roots_by_counter(site: Site) -> None:
    site.put("File", "otp", {"hosts": ["web1"], "path": "/etc/otp", "directory": {}, "mode": "0700"})
    fields: dict[str, Any] = {"format": "google-authenticator", "factor": "hotp", "path": "/etc/otp"}
    oath(site, {"alice": ALICE}, **fields, pam=CODE_ALONE)
    site.apply()
    assert site.logs_in("vpn", "alice", site.code(ALICE, "--hotp", "--counter=1"))
    oath(site, {"alice": ALICE, "bob": BOB}, **fields, window=4, pam=CODE_ALONE)
    site.apply()
    assert site.logs_in("vpn", "alice", site.code(ALICE, "--hotp", "--counter=2"))
    assert not site.logs_in("vpn", "alice", site.code(ALICE, "--hotp", "--counter=1"))
    assert not site.logs_in("vpn", "alice", site.code(ALICE, "--hotp", "--counter=2"))
    # Each refused code counts, too, which is how the module slows down who guesses.
    assert site.logs_in("vpn", "alice", site.code(ALICE, "--hotp", "--counter=5"))


# ------------------------------------------------------------------------------------------------ Yubico OTP


class Keys:
    """Software YubiKeys, and their documents."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.keys: dict[str, SoftwareYubiKey] = {}

    def add(self, name: str, owner: str, key: SoftwareYubiKey | None = None, **fields: Any) -> SoftwareYubiKey:
        key = self.keys[name] = key or self.keys.get(name) or SoftwareYubiKey.new()
        word = name.upper().replace("-", "_")
        spec = {
            "server": "otp",
            "owner": owner,
            "publicId": key.public_id,
            "privateId": self.site.secret(f"{word}_PRIVATE", key.private_id.hex()),
            "aesKey": self.site.secret(f"{word}_AES", key.aes_key.hex()),
        }
        self.site.put("YubikeyOtp", name, {**spec, **fields})
        return key


def server(site: Site, **fields: Any) -> None:
    site.put("OtpServer", "otp", {"hosts": ["web1"], "ksmKeys": {"1": site.secret("KSM", KSM)}, **fields})


def login(site: Site, **fields: Any) -> None:
    site.put("OtpClient", "web1", {"server": "otp", "id": 1, "secret": site.secret("CLIENT", CLIENT)})
    spec = {"hosts": ["web1"], "client": "web1", "services": ["vpn"], "prompt": "code"}
    site.put("OtpLogin", "web1", {**spec, **fields})


def counters(site: Site) -> str:
    return site.host.run("python3", "-c", COUNTERS).stdout


def test_from_an_empty_host_in_one_apply(site: Site) -> None:
    """OTPs by pam_yubico, our server and sealed secrets: used once; revoked; rotated; counters never moved."""
    server(site)
    login(site)
    keys = Keys(site)
    alice, spare, bob = keys.add("alice-1", "alice"), keys.add("alice-2", "alice"), keys.add("bob", "bob")
    site.apply()
    otp = alice.press()
    assert site.logs_in("vpn", "alice", otp)
    assert not site.logs_in("vpn", "alice", otp), "it was used"
    assert not site.logs_in("vpn", "alice", bob.press()), "it is somebody else's"
    assert site.logs_in("vpn", "alice", spare.press())
    assert site.logs_in("vpn", "bob", bob.press())
    assert not site.logs_in("vpn", "carol", bob.press()), "she has no key"
    before = counters(site)
    site.apply()
    assert counters(site) == before

    keys.add("alice-1", "alice", state="revoked", notes="lost on 2026-11-20")
    site.apply()
    assert not site.logs_in("vpn", "alice", alice.press())
    assert site.logs_in("vpn", "alice", spare.press())
    before = counters(site)
    site.drop("YubikeyOtp", "alice-1")
    site.apply()
    assert counters(site) == before, "the row of a key that is gone stays"
    keys.add("alice-1", "alice", alice)
    site.apply()
    assert counters(site) == before.replace(f"{alice.public_id} 0", f"{alice.public_id} 1")
    assert not site.logs_in("vpn", "alice", otp), "it was used, and still is"
    assert site.logs_in("vpn", "alice", alice.press())

    sealed = {name: site.host.read(path) for name, path in _aeads(site).items()}
    old = bob
    bob = keys.add("bob", "bob", SoftwareYubiKey.new())
    site.apply()
    assert not site.logs_in("vpn", "bob", old.press()), "another key has taken its place"
    assert site.logs_in("vpn", "bob", bob.press())
    assert site.logs_in("vpn", "alice", alice.press())
    assert site.logs_in("vpn", "alice", spare.press())
    assert {n: site.host.read(p) for n, p in _aeads(site).items() if n in sealed} == {
        n: t for n, t in sealed.items() if n != old.public_id
    }
    assert site.host.run("stat", "-c", "%a %U", "/etc/pam.d/vpn", "/etc/otp-server/keys.json").stdout == (
        "600 root\n400 otp-server\n"
    )


def _aeads(site: Site) -> dict[str, str]:
    """Public id -> file with its sealed secrets."""
    found = site.host.run("find /var/lib/otp-server/aeads -type f").stdout.split()
    return {path.rpartition("/")[2]: path for path in found}


def test_a_new_key_of_the_key_storage_keeps_all_yubikeys_valid(site: Site) -> None:
    """A new handle, and then the old one goes; what was used stays used."""
    server(site)
    login(site)
    keys = Keys(site)
    alice, bob = keys.add("alice", "alice"), keys.add("bob", "bob")
    site.apply()
    used = alice.press()
    assert site.logs_in("vpn", "alice", used)
    before = counters(site)
    both = {"1": site.secret("KSM", KSM), "2": site.secret("KSM_2", OTHER_KSM)}
    server(site, ksmKeys=both, handle="2")
    site.apply()
    assert {path.split("/")[5] for path in _aeads(site).values()} == {"2"}
    server(site, ksmKeys={"2": both["2"]})
    site.apply()
    assert counters(site) == before
    assert not site.logs_in("vpn", "alice", used)
    assert site.logs_in("vpn", "alice", alice.press())
    server(site, ksmKeys={"2": site.secret("KSM_2", KSM)})
    site.apply()
    assert site.logs_in("vpn", "alice", alice.press()), "under the same handle, too"
    assert site.logs_in("vpn", "bob", bob.press())


def test_a_server_that_goes_and_comes_back_still_knows_what_was_used(site: Site) -> None:
    server(site)
    login(site)
    keys = Keys(site)
    alice = keys.add("alice", "alice")
    site.apply()
    used = alice.press()
    assert site.logs_in("vpn", "alice", used)
    for kind, name in (("OtpLogin", "web1"), ("YubikeyOtp", "alice"), ("OtpClient", "web1"), ("OtpServer", "otp")):
        site.drop(kind, name)
    site.apply(force=True)
    host = site.host
    for path in ("/etc/otp-server", "/usr/local/lib/otp-server", "/etc/pam.d/vpn", "/etc/yubikey_mappings"):
        assert not host.exists(path), path
    assert host.run("systemctl is-active otp-server", check=False).stdout == "inactive\n"
    assert host.run("getent passwd otp-server", check=False).stdout == ""
    assert host.run("find /var/lib/otp-server/aeads -type f").stdout == ""
    host.run("useradd --system another")  # takes the number that the account had
    server(site)
    login(site)
    keys.add("alice", "alice")
    site.apply()
    assert not site.logs_in("vpn", "alice", used)
    assert site.logs_in("vpn", "alice", alice.press())


def test_the_server_is_hardened_and_restarts_when_its_files_change(site: Site) -> None:
    server(site)
    login(site)
    alice = Keys(site).add("alice", "alice")
    site.apply()
    host = site.host
    exposure = host.run("systemd-analyze security otp-server.service --no-pager | tail -n 1").stdout
    assert float(re.findall(r"\d+\.\d+", exposure)[0]) < 2.0, exposure
    status = host.run("cat /proc/$(systemctl show -p MainPID --value otp-server)/status").stdout
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^Uid:\s+[1-9]", status, re.MULTILINE)
    first = host.run("systemctl show -p MainPID --value otp-server").stdout
    server(site, listen=["127.0.0.1:8581"])
    site.apply()
    assert host.run("systemctl show -p MainPID --value otp-server").stdout != first
    assert "8581" in host.read("/etc/pam.d/vpn")
    assert site.logs_in("vpn", "alice", alice.press())
    host.run("systemctl stop otp-server")
    assert not site.logs_in("vpn", "alice", alice.press()), "without an answer nobody gets in"
    site.apply()
    assert site.logs_in("vpn", "alice", alice.press())


def test_password_and_otp(site: Site) -> None:
    server(site)
    login(site, services=["openvpn"], prompt="joined")
    spec = {"hosts": ["web1"], "client": "web1", "services": ["sshd"], "withoutKey": "pass"}
    site.put("OtpLogin", "ssh", spec)
    alice = Keys(site).add("alice", "alice")
    site.apply()
    assert site.logs_in("openvpn", "alice", "pass-alice" + alice.press())
    assert not site.logs_in("openvpn", "alice", "wrong" + alice.press())
    assert not site.logs_in("openvpn", "alice", alice.press())
    assert not site.logs_in("openvpn", "bob", "pass-bob")
    assert site.logs_in("sshd", "alice", alice.press(), "pass-alice")
    assert not site.logs_in("sshd", "alice", alice.press(), "wrong")
    assert not site.logs_in("sshd", "alice", "pass-alice", "pass-alice")
    assert site.logs_in("sshd", "bob", "pass-bob"), "who has no key gives the password alone"
    assert site.host.run("stat", "-c", "%a", "/etc/pam.d/sshd").stdout == "600\n"


def test_a_secret_of_the_wrong_form_is_named_before_anything_is_changed(site: Site) -> None:
    server(site)
    alice = Keys(site).add("alice", "alice")
    site.secret("ALICE_AES", "00112233")
    with site.host.lab.inside():
        made = site.project().plan()
    assert made.unknown == {
        f"host.otpKey[web1:{alice.public_id}]": "the secret env:ALICE_AES is not 16 bytes as 32 hexadecimal digits."
    }


@pytest.fixture
def postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A host with PostgreSQL, and a role and a database for the server in it."""
    packages = ["libpam-yubico", "pamtester", "postgresql", "python3-cryptography", "python3-psycopg2"]
    with Lab("web1", setups={"web1": Setup(layers=[layer("otp-postgresql", packages)])}) as lab:
        one = Site(lab["web1"], tmp_path, monkeypatch.setenv)
        one.host.run(ACCOUNTS)
        for sql in ("CREATE ROLE otp LOGIN PASSWORD 'pass otp'", "CREATE DATABASE otp OWNER otp"):
            one.host.run("su", "postgres", "-c", f'psql -qc "{sql}"')
        yield one


def test_on_postgresql(postgresql: Site) -> None:
    """The address with its password is a secret of the configuration file."""
    site = postgresql
    server(site, database=site.secret("DATABASE", "postgresql://otp:pass%20otp@127.0.0.1/otp"))
    login(site)
    keys = Keys(site)
    alice, bob = keys.add("alice", "alice"), keys.add("bob", "bob")
    site.apply()
    otp = alice.press()
    assert site.logs_in("vpn", "alice", otp)
    assert not site.logs_in("vpn", "alice", otp)
    rows = "su postgres -c 'psql -Atc \"SELECT * FROM yubikeys ORDER BY 1, 4\" otp'"
    before = site.host.run(rows).stdout
    assert alice.public_id in before
    site.apply()
    assert site.host.run(rows).stdout == before
    keys.add("bob", "bob", state="revoked")
    site.apply()
    assert not site.logs_in("vpn", "bob", bob.press())
    assert not site.logs_in("vpn", "alice", otp)
    site.host.run("systemctl stop 'postgresql@*' postgresql")
    assert not site.logs_in("vpn", "alice", alice.press()), "without its database the server accepts nothing"
    with site.host.lab.inside():
        made = site.project().plan()
    reasons = {address.partition("[")[0]: reason for address, reason in made.unknown.items()}
    assert "PostgreSQL cannot be reached" in reasons.pop("host.otpKey")
    assert "PostgreSQL cannot be reached" in reasons.pop("host.otpClient")
    assert reasons.keys() == {"host.pamService"}, "what stands on them"
    site.host.run("systemctl start postgresql")
    assert site.logs_in("vpn", "alice", alice.press())
    assert site.plan().empty
    assert site.host.run("stat", "-c", "%a %U %G", "/etc/otp-server/config.json").stdout == "640 root otp-server\n"
