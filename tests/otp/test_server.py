"""The daemon itself, as the one file that it is shipped as: HTTP, signals, hostile input, and many clients at once."""

from __future__ import annotations

import ast
import json
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.tools.otp import server
from reconciler.tools.otp.server import settings
from reconciler.tools.otp.server.settings import SettingsError
from reconciler.tools.otp.server.web import BadRequest, parse_request
from reconciler.tools.otp.single_file import single_file
from reconciler.tools.otp.software_yubikey import SoftwareYubiKey
from tests.otp.installation import NONCE, Installation, fields, key_document
from tests.otp.vectors import CLIENT_SECRET, KSM_KEY

SYSTEM_PYTHON = "/usr/bin/python3"
WORKERS, OTPS = 8, 200


def talk(port: int, sent: bytes, *, end: bool = True) -> bytes:
    """Send bytes, and read until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(sent)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            return b""
        out = b""
        try:
            while block := connection.recv(4096):
                out += block
        except ConnectionError:
            pass
        return out


class TestSingleFile:
    def test_same_sources_same_text(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", "from reconciler.tools.otp.single_file import *; print(single_file(), end='')"],
            env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONUTF8": "1"},
            capture_output=True,
            check=True,
            encoding="utf-8",
        )
        assert done.stdout == single_file()

    def test_what_it_imports(self) -> None:
        """Nothing of ours, and nothing that a Debian host has not."""
        folder = Path(server.__file__).parent
        for file in folder.glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [str(node.module)]
                for name in names:
                    assert name.split(".")[0] in {*sys.stdlib_module_names, "cryptography"}, file.name

    def test_runs_on_the_python_of_the_system(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        """Nothing of the virtual environment is needed."""
        has = subprocess.run([SYSTEM_PYTHON, "-Ic", "import cryptography"], check=False, capture_output=True)
        if has.returncode:
            pytest.skip("Debian's python3-cryptography is not installed")
        site = make()
        wanted = {
            "version": 1,
            "ksmKeys": {"1": KSM_KEY.hex()},
            "clients": [{"id": 7, "secret": CLIENT_SECRET}],
            "keys": [key_document(key)],
        }
        done = site.run("apply", stdin=json.dumps(wanted), python=SYSTEM_PYTHON)
        assert (done.returncode, done.stderr) == (0, "")
        site.start(python=SYSTEM_PYTHON)
        assert site.ask(key.press())["status"] == "OK"
        assert site.stop() == 0


class TestDaemon:
    @pytest.fixture
    def site(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> Installation:
        site = make()
        site.set_up(key)
        site.start()
        return site

    def test_verify_and_replay_and_restart(self, site: Installation, key: SoftwareYubiKey) -> None:
        otp = key.press()
        answer = site.ask(otp)
        assert (answer["status"], answer["otp"], answer["nonce"]) == ("OK", otp, NONCE)
        assert site.ask(otp)["status"] == "REPLAYED_REQUEST"
        assert site.ask(otp, NONCE[::-1])["status"] == "REPLAYED_OTP"
        assert site.stop() == 0
        site.start()
        assert site.ask(otp, NONCE[::-1])["status"] == "REPLAYED_OTP"
        assert site.ask(key.press())["status"] == "OK"

    def test_killed_it_forgets_nothing(self, site: Installation, key: SoftwareYubiKey) -> None:
        otp = key.press()
        assert site.ask(otp)["status"] == "OK"
        assert site.stop(signal.SIGKILL) == -signal.SIGKILL
        site.start()
        assert site.ask(otp, NONCE[::-1])["status"] == "REPLAYED_OTP"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_counts_whichever_thread_it_meets(
        self, site: Installation, key: SoftwareYubiKey, number: signal.Signals
    ) -> None:
        assert site.ask(key.press())["status"] == "OK"
        assert site.process is not None
        (other, *_) = {int(task.name) for task in Path(f"/proc/{site.process.pid}/task").iterdir()} - {site.process.pid}
        os.kill(other, number)
        assert site.process.wait(timeout=30) == 0

    def test_key_storage(self, site: Installation, key: SoftwareYubiKey) -> None:
        key.counter, key.use, key.timestamp = 0x13, 0x11, 0x00C230
        otp = key.press()
        for path, answer in (
            (f"/wsapi/decrypt?otp={otp}", "OK counter=0013 low=c230 high=00 use=11\n"),
            (f"/wsapi/decrypt?otp={otp}", "OK counter=0013 low=c230 high=00 use=11\n"),
            (f"/wsapi/decrypt?otp={otp[:-1]}{'c' if otp[-1] != 'c' else 'b'}", "ERR Invalid OTP\n"),
            (f"/wsapi/decrypt?otp=cc{otp[2:]}", "ERR Unknown public_id\n"),
            ("/wsapi/decrypt?otp=", "ERR Invalid OTP\n"),
            ("/wsapi/decrypt", "ERR Invalid OTP\n"),
        ):
            assert site.get(path, site.ksm_port) == (200, answer)
        site.keys_file.unlink()
        assert site.get(f"/wsapi/decrypt?otp={otp}", site.ksm_port) == (200, "ERR\n")
        assert site.get("/wsapi/2.0/verify", site.ksm_port)[0] == 404
        assert site.get(f"/wsapi/decrypt?otp={otp}")[0] == 404

    def test_changes_need_no_restart(self, site: Installation, key: SoftwareYubiKey) -> None:
        new = SoftwareYubiKey.new()
        assert site.ask(new.press())["status"] == "BAD_OTP"
        site.apply(clients=[{"id": 8, "secret": "AAAA"}], keys=[key_document(new)])
        assert site.ask(new.press(), client=8, secret="AAAA")["status"] == "OK"
        site.apply(keys=[key_document(new, active=False)])
        assert site.ask(new.press())["status"] == "BAD_OTP"

    def test_fails_closed(self, site: Installation, key: SoftwareYubiKey) -> None:
        otp = key.press()
        text = site.keys_file.read_text()
        site.keys_file.unlink()
        assert site.ask(otp)["status"] == "BACKEND_ERROR"
        site.keys_file.write_text(text)
        with site.database.transaction() as execute:
            execute("DROP TABLE yubikeys")
        assert site.ask(otp)["status"] == "BACKEND_ERROR"

    def test_hup_reads_the_configuration_again(self, site: Installation, key: SoftwareYubiKey) -> None:
        site.more["signatures"] = "required"
        config = site.config
        unsigned = f"/wsapi/2.0/verify?id=7&nonce={NONCE}&otp="

        def reload(said: str) -> None:
            assert site.process is not None
            site.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 20
            while said not in site.log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.02)

        assert fields(site.get(unsigned + key.press())[1])["status"] == "OK"
        reload("configuration read again")
        assert fields(site.get(unsigned + key.press())[1])["status"] == "BAD_SIGNATURE"
        config.write_text("{")
        reload("the old configuration stays")
        assert fields(site.get(unsigned + key.press())[1])["status"] == "BAD_SIGNATURE"
        assert site.ask(key.press())["status"] == "OK"

    def test_the_log_knows_who_and_never_what(self, site: Installation, key: SoftwareYubiKey) -> None:
        otps = [key.press() for _ in range(3)]
        for otp in otps:
            site.ask(otp)
            site.ask(otp)
            site.get(f"/wsapi/decrypt?otp={otp}", site.ksm_port)
            site.get(f"/{otp}?otp={otp}")
        log = site.log.read_text()
        assert f"verify client=7 key={key.public_id} from=127.0.0.1 OK\n" in log
        assert "REPLAYED_REQUEST (the same request again)\n" in log
        for secret in (*(otp[12:] for otp in otps), CLIENT_SECRET, NONCE, KSM_KEY.hex(), key.aes_key.hex()):
            assert secret not in log

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (b"", b"400"),
            (b"\r\n\r\n", b"400"),
            (b"GET\r\n\r\n", b"400"),
            (b"GET /wsapi/2.0/verify HTTP/9.9\r\n\r\n", b"400"),
            (b"GET /wsapi/2.0/verify?a=1&a=2 HTTP/1.1\r\n\r\n", b"400"),
            (b"GET /wsapi/2.0/verify?" + b"&".join(b"%d=1" % n for n in range(50)) + b" HTTP/1.1\r\n\r\n", b"400"),
            (b"GET /wsapi/2.0/verify?otp=%ff%fe HTTP/1.1\r\n\r\n", b"400"),
            (b"GET /wsapi/2.0/verify?\x00 HTTP/1.1\r\n\r\n", b"400"),
            (b"GET http://[::1/ HTTP/1.1\r\n\r\n", b"400"),
            ("GET /wsapi/2.0/verify?ä HTTP/1.1\r\n\r\n".encode(), b"400"),
            (b"GET / HTTP/1.1\r\n\r\n", b"404"),
            (b"GET /wsapi/2.0/verify/../../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
            (b"POST /wsapi/2.0/verify HTTP/1.1\r\nContent-Length: 5\r\n\r\nid=77", b"405"),
            (b"G\xffT / HTTP/1.1\r\n\r\n", b"400"),
            (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", b"400"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"400"),
        ],
    )
    def test_hostile_input(self, site: Installation, key: SoftwareYubiKey, sent: bytes, status: bytes) -> None:
        got = talk(site.port, sent)
        # A connection that was closed while we still sent may be reset before the answer is read.
        assert got.startswith(b"HTTP/1.1 " + status) or (not got and len(sent) > 8192)
        assert site.ask(key.press())["status"] == "OK"

    def test_noise(self, site: Installation, key: SoftwareYubiKey) -> None:
        """Whatever is sent, the server lives and nobody gets in."""
        noise = random.Random(4)
        heads = [b"GET /wsapi/2.0/verify?", b"GET /wsapi/decrypt?otp=", b"", b"GET "]
        for _ in range(150):
            sent = (
                noise.choice(heads) + noise.randbytes(noise.randrange(200)) + noise.choice([b"", b" HTTP/1.1\r\n\r\n"])
            )
            assert b"status=OK" not in talk(noise.choice([site.port, site.ksm_port]), sent)
        assert site.process is not None
        assert site.process.poll() is None
        assert site.row(key)["counter"] == -1
        assert site.ask(key.press())["status"] == "OK"
        assert "Traceback" not in site.log.read_text()

    def test_who_sends_nothing_is_put_out(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        """More silent connections than places: each is closed in time, and the next one is answered."""
        site = make(requests=2, requestSeconds=1)
        site.set_up(key)
        site.start()
        silent = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(4)]
        try:
            silent[0].sendall(b"GET /wsapi/2.0/ver")
            assert site.ask(key.press())["status"] == "OK"
            silent[0].settimeout(20)
            assert silent[0].recv(100) == b""
        finally:
            for connection in silent:
                connection.close()

    def test_one_who_drips_is_put_out(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        """A byte now and then does not stretch the time."""
        site = make(requestSeconds=1)
        site.set_up(key)
        site.start()
        with socket.create_connection(("127.0.0.1", site.port), timeout=0.1) as connection:
            for _ in range(200):
                try:
                    connection.sendall(b"G")
                    if connection.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            else:
                pytest.fail("it was allowed to drip for 20 s")

    def test_term_lets_requests_end(self, site: Installation, key: SoftwareYubiKey) -> None:
        otp = key.press()
        head = f"GET /wsapi/2.0/verify?id=7&nonce={NONCE}&otp={otp} HTTP/1.1\r\n".encode()
        with socket.create_connection(("127.0.0.1", site.port), timeout=20) as connection:
            connection.sendall(head)
            # Answered after ours was accepted: accepting is in order.
            assert site.ask(key.press()[:-1] + "x")["status"] == "BAD_OTP"
            assert site.process is not None
            site.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 20
            while _listens(site.port):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            connection.sendall(b"\r\n")
            assert b"status=OK" in connection.recv(4096)
        assert site.process.wait(timeout=30) == 0
        site.process = None

    def test_all_at_once(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        """8 clients send the same 200 OTPs to the daemon at once: each is accepted exactly once."""
        for kind in ("sqlite", "postgresql"):
            site = make(kind)
            site.set_up(key)
            site.start()
            otps = [key.press() for _ in range(OTPS)]

            def one(job: tuple[str, int], site: Installation = site) -> str:
                return site.ask(job[0], f"{job[1]:016d}")["status"]

            with ThreadPoolExecutor(WORKERS) as pool:
                for otp in otps:
                    verdicts = list(pool.map(one, [(otp, worker) for worker in range(WORKERS)]))
                    assert sorted(verdicts) == ["OK"] + ["REPLAYED_OTP"] * (WORKERS - 1)
            assert site.stop() == 0

    def test_two_daemons_on_one_database(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        """The database decides, not the process."""
        for kind in ("sqlite", "postgresql"):
            one = make(kind)
            one.set_up(key)
            one.start()
            other = make(kind)
            other.url, other.keys_file, other.aeads = one.url, one.keys_file, one.aeads
            other.start()
            otps = [key.press() for _ in range(50)]

            def ask(job: tuple[str, int], sites: tuple[Installation, ...] = (one, other)) -> str:
                return sites[job[1] % 2].ask(job[0], f"{job[1]:016d}")["status"]

            with ThreadPoolExecutor(WORKERS) as pool:
                for otp in otps:
                    verdicts = list(pool.map(ask, [(otp, worker) for worker in range(WORKERS)]))
                    assert verdicts.count("OK") == 1
            assert (one.stop(), other.stop()) == (0, 0)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class TestCommands:
    def test_apply_and_state(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        wanted = {
            "version": 1,
            "ksmKeys": {"1": KSM_KEY.hex()},
            "clients": [{"id": 7, "secret": CLIENT_SECRET}],
            "keys": [key_document(key)],
        }
        assert site.run("state").returncode == 0
        assert site.run("check").returncode == 1
        done = site.run("apply", stdin=json.dumps(wanted))
        assert (done.returncode, done.stderr) == (0, "")
        assert len(json.loads(done.stdout)["changed"]) == 4
        assert json.loads(site.run("apply", stdin=json.dumps(wanted)).stdout) == {"version": 1, "changed": []}
        state = site.run("state")
        assert json.loads(state.stdout) == json.loads(json.dumps(site.present()))
        check = site.run("check")
        assert (check.returncode, check.stderr) == (0, "")

    def test_refusals(self, make: Callable[..., Installation]) -> None:
        site = make()
        done = site.run("apply", stdin='{"version": 1, "clients": [{"id": 0, "secret": "hunter2!"}]}')
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr == (
            "otp-server: the id of a client must be a number from 1 to 2147483647\n"
            "otp-server: client 0: secret must be base64 of at most 60 characters\n"
        )
        assert site.run("apply", stdin="\udcff".encode("utf-8", "surrogateescape").decode("latin-1")).returncode == 1
        for python_error in ("Traceback", "hunter2"):
            assert python_error not in done.stderr

    def test_no_database(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        site.url = "postgresql://u:hunter2@127.0.0.1:1/x"
        for command in ("serve", "state", "check"):
            done = site.run(command)
            assert (done.returncode, done.stdout) == (1, "")
            assert "PostgreSQL cannot be reached" in done.stderr
            assert "hunter2" not in done.stderr

    def test_an_address_in_use(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        site.start()
        done = site.run("serve")
        assert done.returncode == 1
        assert "Address already in use" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    def test_root_becomes_the_user_of_the_server(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        """So that no file of root's lies in the way of the daemon."""
        user = pwd.getpwnam("nobody")
        site = make(user="nobody")
        for folder in (site.folder, *site.folder.parents):
            if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
                folder.chmod(0o755)
        os.chown(site.folder, user.pw_uid, user.pw_gid)
        wanted = {"version": 1, "ksmKeys": {"1": KSM_KEY.hex()}, "keys": [key_document(key)]}
        done = site.run("apply", stdin=json.dumps(wanted))
        assert (done.returncode, done.stderr) == (0, "")
        made = [p for p in site.folder.rglob("*") if p.name not in ("otp-server.py", "otp-server.json")]
        assert {p.stat().st_uid for p in made} == {user.pw_uid}
        assert len(made) >= 5


class TestSettings:
    GOOD: dict[str, Any] = {
        "listen": ["127.0.0.1:8580", "[::1]:8580"],
        "database": "sqlite:/var/lib/otp-server/ykval.sqlite",
        "ksm": {"keys": "/etc/yubico/yhsm/keys.json", "aeads": "/var/cache/yubikey-ksm/aeads", "handles": ["1"]},
    }

    def test_good(self) -> None:
        found = settings.parse(self.GOOD)
        assert [str(a) for a in found.listen] == ["127.0.0.1:8580", "[::1]:8580"]
        assert found.ksm_listen == ()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"listen": []}, "listen must name at least one"),
            ({"listen": "x"}, "listen must be a list"),
            ({"listen": ["8580"]}, "'8580' is no address"),
            ({"listen": ["::1:8580"]}, "is no address"),
            ({"listen": ["localhost:80"]}, "is no address"),
            ({"listen": ["127.0.0.1:0"]}, "is no address"),
            ({"listen": [5]}, "is no address"),
            ({"database": "mysql:"}, "database must be"),
            ({"database": "sqlite:x"}, "database must be"),
            ({"ksm": {}}, "ksm: keys must be an absolute path"),
            ({"ksm": 5}, "ksm must be an object"),
            ({"signatures": "maybe"}, "signatures must be optional or required"),
            ({"signedClients": ["1"]}, "signedClients must be"),
            ({"allowFrom": ["192.0.2.1/24"]}, "is no network"),
            ({"allowFrom": [5]}, "is no network"),
            ({"requests": 0}, "requests must be from 1"),
            ({"requestSeconds": "1"}, "requestSeconds must be a number"),
            ({"what": 1}, "'what' is not known"),
        ],
    )
    def test_wrong_values(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError) as error:
            settings.parse({**self.GOOD, **change})
        assert message in str(error.value)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"handles": []}, "handles must name at least one"),
            ({"handles": ["../1"]}, "is no key handle"),
            ({"handles": [1]}, "is no key handle"),
            ({"keys": "keys.json"}, "keys must be an absolute path"),
            ({"listen": ["0.0.0.0:8002"]}, "reachable from elsewhere"),
            ({"listen": ["192.0.2.1:8002"]}, "reachable from elsewhere"),
            ({"x": 1}, "ksm: 'x' is not known"),
        ],
    )
    def test_wrong_values_of_the_storage(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError) as error:
            settings.parse({**self.GOOD, "ksm": {**self.GOOD["ksm"], **change}})
        assert message in str(error.value)

    @given(
        st.dictionaries(
            st.sampled_from([*GOOD, "user", "signatures", "signedClients", "allowFrom", "requests", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["keys", "aeads", "handles", "listen"]), inner, max_size=4)
                ),
                max_leaves=6,
            ),
        )
    )
    def test_anything_is_read_or_refused(self, raw: dict[str, Any]) -> None:
        try:
            settings.parse({**self.GOOD, **raw})
        except SettingsError:
            return

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="cannot be read"):
            settings.load(tmp_path / "x")


@given(st.binary(max_size=300))
def test_any_head_is_read_or_refused(head: bytes) -> None:
    try:
        method, path, parameters = parse_request(head)
    except BadRequest:
        return
    assert method.isascii()
    assert isinstance(path, str)
    assert len(parameters) <= 20


def test_a_plus_sign_that_was_not_escaped() -> None:
    _, _, parameters = parse_request(b"GET /x?h=a+b%2Bc/d=&otp=a+b HTTP/1.1\r\n\r\n")
    assert parameters == {"h": "a+b+c/d=", "otp": "a b"}
