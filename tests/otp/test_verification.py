"""Every verdict of the validation server, on both databases."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.tools.otp.server.database import Client, Counters, Database, DatabaseError
from reconciler.tools.otp.server.signature import decode_secret, matches, sign
from reconciler.tools.otp.server.token import InvalidOtp, Token
from reconciler.tools.otp.server.verification import Answer, Policy, Status, Validator, respond
from reconciler.tools.otp.software_yubikey import SoftwareYubiKey
from tests.otp.installation import NONCE, NOW, Installation, fields, is_signed, key_document
from tests.otp.test_yubico_formats import to_dvorak
from tests.otp.vectors import CLIENT_SECRET, OTP, REQUEST, REQUEST_SIGNATURE

OTHER_NONCE = NONCE[::-1]


def ask(validator: Validator, otp: str, nonce: str = NONCE, **more: str) -> Answer:
    """An unsigned request."""
    return validator.verify({"id": "7", "otp": otp, "nonce": nonce} | more, "192.0.2.1")


def signed(parameters: dict[str, str], secret: str = CLIENT_SECRET) -> dict[str, str]:
    """The request with its signature."""
    return {**parameters, "h": sign(parameters, base64.b64decode(secret))}


class TestSignature:
    def test_vector(self) -> None:
        secret = decode_secret(CLIENT_SECRET)
        assert secret == bytes(range(20))
        assert sign(REQUEST, secret) == REQUEST_SIGNATURE
        assert matches({**REQUEST, "h": REQUEST_SIGNATURE}, secret)

    @pytest.mark.parametrize("name", ["id", "nonce", "otp", "timestamp", "h"])
    def test_each_parameter_is_signed(self, name: str) -> None:
        request = {**REQUEST, "h": REQUEST_SIGNATURE}
        assert not matches({**request, name: request[name] + "x"}, decode_secret(CLIENT_SECRET))
        assert not matches({**REQUEST, "h": REQUEST_SIGNATURE, "more": "1"}, decode_secret(CLIENT_SECRET))

    @pytest.mark.parametrize("text", ["a", "====", "AA=A", "ä", "AAECAw==\n"])
    def test_no_base64(self, text: str) -> None:
        with pytest.raises(ValueError, match="base64"):
            decode_secret(text)

    @given(st.dictionaries(st.text(max_size=8), st.text(max_size=8)), st.binary(max_size=20))
    def test_any_request_that_is_signed_matches(self, request: dict[str, str], secret: bytes) -> None:
        encodable = {
            k.encode("utf-8", "replace").decode(): v.encode("utf-8", "replace").decode() for k, v in request.items()
        }
        assert matches({**encodable, "h": sign(encodable, secret)}, secret)


class TestResponse:
    def test_form(self) -> None:
        text = respond(Status.OK, 1_795_322_096.695, {"otp": OTP, "nonce": NONCE, "sl": "100"}, b"secret")
        lines = text.split("\r\n")
        assert [line.partition("=")[0] for line in lines] == ["h", "t", "otp", "nonce", "sl", "status", "", ""]
        assert lines[1] == "t=2026-11-22T04:34:56Z0695"
        answer = fields(text)
        assert answer["h"] == sign(answer, b"secret")


class TestVerdicts:
    def test_ok_once(self, site: Installation, key: SoftwareYubiKey) -> None:
        site.set_up(key)
        otp = key.press()
        answer = site.validator().verify(signed({"id": "7", "otp": otp, "nonce": NONCE}), "192.0.2.1")
        found = fields(answer.text)
        assert (answer.status, answer.client, answer.public_id) == (Status.OK, "7", key.public_id)
        assert is_signed(found)
        assert (found["otp"], found["nonce"], found["sl"]) == (otp, NONCE, "100")
        assert "timestamp" not in found
        row = site.row(key)
        assert (row["counter"], row["use"], row["modified"]) == (1, 0, int(NOW))

    def test_replays(self, site: Installation, key: SoftwareYubiKey) -> None:
        site.set_up(key)
        validator = site.validator()
        first, second = key.press(), key.press()
        key.plug_in()
        third = key.press()
        assert ask(validator, second).status is Status.OK
        assert ask(validator, second).status is Status.REPLAYED_REQUEST
        assert ask(validator, second, OTHER_NONCE).status is Status.REPLAYED_OTP
        assert ask(validator, first).status is Status.REPLAYED_OTP
        assert ask(validator, third).status is Status.OK
        assert ask(validator, second).status is Status.REPLAYED_OTP
        assert ask(validator, key.press()).status is Status.OK

    def test_counters_survive_a_restart(self, site: Installation, key: SoftwareYubiKey) -> None:
        site.set_up(key)
        otp = key.press()
        assert ask(site.validator(), otp).status is Status.OK
        site.database.close()
        site.database = Database(site.url)
        assert ask(site.validator(), otp, OTHER_NONCE).status is Status.REPLAYED_OTP
        assert ask(site.validator(), key.press()).status is Status.OK

    @pytest.mark.parametrize("typed", [str.upper, to_dvorak, str.title])
    def test_other_ways_of_typing(
        self, make: Callable[..., Installation], key: SoftwareYubiKey, typed: Callable[[str], str]
    ) -> None:
        site = make()
        site.set_up(key)
        otp = key.press()
        answer = site.validator().verify(signed({"id": "7", "otp": typed(otp), "nonce": NONCE}), "::1")
        assert answer.status is Status.OK
        assert fields(answer.text)["otp"] == typed(otp), "the client compares it with what it sent"
        assert ask(site.validator(), otp, OTHER_NONCE).status is Status.REPLAYED_OTP

    def test_some_clients_sign_the_otp_in_lower_case(
        self, make: Callable[..., Installation], key: SoftwareYubiKey
    ) -> None:
        site = make()
        site.set_up(key)
        otp = key.press()
        request = {**signed({"id": "7", "otp": otp, "nonce": NONCE}), "otp": otp.upper()}
        assert site.validator().verify(request, "::1").status is Status.OK

    def test_timestamp(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        key.timestamp, key.counter, key.use = 0x123456, 0x13, 0x11
        found = fields(ask(site.validator(), key.press(), timestamp="1").text)
        assert (found["timestamp"], found["sessioncounter"], found["sessionuse"]) == (str(0x123456), "19", "17")
        assert is_signed(found)

    def test_bad_otp(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        stranger = SoftwareYubiKey.new()
        impostor = SoftwareYubiKey(key.public_id, key.private_id, os.urandom(16))
        other_id = SoftwareYubiKey(key.public_id, os.urandom(6), key.aes_key)
        damaged = key.press()
        for otp in (
            stranger.press(),
            impostor.press(),
            other_id.press(),
            damaged[:-1] + ("c" if damaged[-1] != "c" else "b"),
            damaged[1:],
            "c" * 32,
            "x",
            "123456",
            "ccccccccccccé",
            "c" * 64,
            "a\r\nstatus=OK",
        ):
            answer = ask(site.validator(), otp)
            assert answer.status is Status.BAD_OTP, otp
            assert fields(answer.text)["status"] == "BAD_OTP"
            assert is_signed(fields(answer.text))
        assert site.row(key)["counter"] == -1

    def test_inactive_and_removed_keys(self, site: Installation, key: SoftwareYubiKey) -> None:
        site.set_up(key)
        site.apply(keys=[key_document(key, active=False)])
        otp = key.press()
        assert ask(site.validator(), otp).status is Status.BAD_OTP
        site.apply(keys=[key_document(key)])
        assert ask(site.validator(), otp).status is Status.OK
        site.apply(removeKeys=[key.public_id])
        assert ask(site.validator(), key.press()).status is Status.BAD_OTP
        site.apply(keys=[key_document(key)])
        assert ask(site.validator(), otp, OTHER_NONCE).status is Status.REPLAYED_OTP, "old OTPs stay used"
        assert ask(site.validator(), key.press()).status is Status.OK

    def test_a_key_that_is_not_enrolled(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        """An AEAD alone lets nobody in: the old server made rows by itself, which made old OTPs good again."""
        site = make()
        site.set_up(key)
        with site.database.transaction() as execute:
            execute("DELETE FROM yubikeys")
        answer = ask(site.validator(), key.press())
        assert (answer.status, answer.reason) == (Status.BAD_OTP, "the YubiKey is not enrolled")
        assert site.database.counters(key.public_id) is None

    @pytest.mark.parametrize("change", [{"id": "8"}, {"id": "2147483647"}])
    def test_no_such_client(
        self, make: Callable[..., Installation], key: SoftwareYubiKey, change: dict[str, str]
    ) -> None:
        site = make()
        site.set_up(key)
        answer = site.validator().verify(signed({"id": "7", "otp": key.press(), "nonce": NONCE} | change), "::1")
        assert answer.status is Status.NO_SUCH_CLIENT
        assert is_signed(fields(answer.text), "")

    def test_inactive_client(self, site: Installation, key: SoftwareYubiKey) -> None:
        site.set_up(key)
        site.apply(clients=[{"id": 7, "active": False}])
        answer = ask(site.validator(), key.press())
        assert answer.status is Status.NO_SUCH_CLIENT
        assert is_signed(fields(answer.text), "")
        assert site.row(key)["counter"] == -1

    @pytest.mark.parametrize(
        "change",
        [
            {"id": ""},
            {"id": "0"},
            {"id": "-7"},
            {"id": "seven"},
            {"id": "٧"},
            {"id": "2147483648"},
            {"id": "9" * 50},
            {"nonce": ""},
            {"nonce": "a" * 15},
            {"nonce": "a" * 41},
            {"nonce": "a" * 15 + "\n"},
            {"nonce": "a" * 16 + "\r\nstatus=OK"},
            {"nonce": "é" * 16},
            {"otp": ""},
            {"sl": "101"},
            {"sl": "-1"},
            {"sl": "quick"},
            {"timeout": "soon"},
        ],
    )
    def test_missing_parameters(
        self, make: Callable[..., Installation], key: SoftwareYubiKey, change: dict[str, str]
    ) -> None:
        site = make()
        site.set_up(key)
        answer = site.validator().verify({"id": "7", "otp": key.press(), "nonce": NONCE} | change, "::1")
        assert answer.status is Status.MISSING_PARAMETER
        found = fields(answer.text)
        assert found["status"] == "MISSING_PARAMETER"
        assert is_signed(found, "" if "id" in change else CLIENT_SECRET)
        assert site.row(key)["counter"] == -1

    @pytest.mark.parametrize("level", ["", "0", "100", "fast", "secure"])
    def test_levels(self, make: Callable[..., Installation], key: SoftwareYubiKey, level: str) -> None:
        site = make()
        site.set_up(key)
        assert ask(site.validator(), key.press(), sl=level, timeout="8").status is Status.OK

    def test_bad_signature(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        request = {"id": "7", "otp": key.press(), "nonce": NONCE}
        for h in ("", "x", "é", sign(request, b"other"), sign(request, base64.b64decode(CLIENT_SECRET))[:-1]):
            answer = site.validator().verify({**request, "h": h}, "::1")
            assert answer.status is Status.BAD_SIGNATURE
            assert is_signed(fields(answer.text))
        assert site.row(key)["counter"] == -1

    def test_signatures_may_be_demanded(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        request = {"id": "7", "otp": key.press(), "nonce": NONCE}
        for policy in ({"signed": True}, {"signed_clients": frozenset({7})}):
            answer = site.validator(**policy).verify(request, "::1")
            assert (answer.status, answer.reason) == (Status.BAD_SIGNATURE, "not signed")
        validator = site.validator(signed_clients=frozenset({8}))
        assert validator.verify(request, "::1").status is Status.OK
        again = {"id": "7", "otp": key.press(), "nonce": NONCE}
        assert site.validator(signed=True).verify(signed(again), "::1").status is Status.OK

    @pytest.mark.parametrize(
        ("address", "admitted"),
        [
            ("192.0.2.1", True),
            ("192.0.3.1", False),
            ("::1", True),
            ("::2", False),
            ("::ffff:192.0.2.9", True),
            ("x", False),
        ],
    )
    def test_operation_not_allowed(
        self, make: Callable[..., Installation], key: SoftwareYubiKey, address: str, admitted: bool
    ) -> None:
        site = make()
        site.set_up(key)
        validator = site.validator(allowed=(ip_network("192.0.2.0/24"), ip_network("::1/128")))
        answer = validator.verify({"id": "7", "otp": key.press(), "nonce": NONCE}, address)
        assert answer.status is (Status.OK if admitted else Status.OPERATION_NOT_ALLOWED)

    def test_nothing_secret_is_in_a_reason(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        otp = key.press()
        for answer in (ask(site.validator(), otp), ask(site.validator(), otp), ask(site.validator(), otp[:-1] + "x")):
            kept = repr(dataclasses.replace(answer, text=""))
            assert otp[12:] not in kept
            assert CLIENT_SECRET not in kept

    @given(
        st.dictionaries(
            st.sampled_from(["id", "otp", "nonce", "h", "sl", "timeout", "timestamp", "x"]),
            st.text(max_size=50) | st.sampled_from(["7", NONCE, OTP, "1", "\r\n", "status=OK"]),
        )
    )
    def test_no_request_breaks_the_answer(self, parameters: dict[str, str]) -> None:
        answer = Validator(_NoStorage(), _NoDatabase(), Policy(), lambda: NOW).verify(parameters, "::1")
        found = fields(answer.text)
        assert found["status"] == answer.status != "OK"
        assert found.keys() <= {"h", "t", "otp", "nonce", "status"}
        assert found["h"] == sign(found, b"s") or found["h"] == sign(found, b"")


class _NoStorage:
    def decrypt(self, typed: str) -> tuple[str, Token]:
        raise InvalidOtp("no ModHex")


class _NoDatabase:
    def client(self, number: int) -> Client | None:
        return Client(True, base64.b64encode(b"s").decode()) if number == 7 else None

    def counters(self, public_id: str) -> Counters | None:
        return None

    def accept(self, public_id: str, token: Token, nonce: str, now: int) -> bool:
        raise AssertionError("nothing is accepted here")


class TestFailsClosed:
    """What does not work refuses, and says BACKEND_ERROR."""

    def test_keys_json_is_unreadable(self, site: Installation, key: SoftwareYubiKey) -> None:
        site.set_up(key)
        otp = key.press()
        text = site.keys_file.read_text()
        for broken in (None, "", "{", text.replace("0", "1")):
            site.keys_file.unlink(missing_ok=True)
            if broken is not None:
                site.keys_file.write_text(broken)
            answer = ask(site.validator(), otp)
            assert answer.status is Status.BACKEND_ERROR
            assert is_signed(fields(answer.text))
        site.keys_file.write_text(text)
        assert ask(site.validator(), otp).status is Status.OK

    def test_sqlite_cannot_be_written(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        otp = key.press()
        with site.database.transaction() as execute:
            execute("CREATE TRIGGER full BEFORE UPDATE ON yubikeys BEGIN SELECT RAISE(FAIL, 'disk full'); END")
        assert ask(site.validator(), otp).status is Status.BACKEND_ERROR
        with site.database.transaction() as execute:
            execute("DROP TRIGGER full")
            execute("CREATE TRIGGER silent BEFORE UPDATE ON yubikeys BEGIN SELECT RAISE(IGNORE); END")
        assert ask(site.validator(), otp).status is Status.BACKEND_ERROR, "no row was changed"

    def test_sqlite_is_gone_or_damaged(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        site.database.close()
        path = site.folder / "ykval.sqlite"
        good = path.read_bytes()
        for content in (None, b"no database" * 1000):
            path.unlink()
            if content:
                path.write_bytes(content)
            site.database = Database(site.url)
            answer = ask(site.validator(), key.press())
            assert answer.status is Status.BACKEND_ERROR
            path.write_bytes(good)

    def test_sqlite_is_read_only(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        """As somebody who may only read: root may always write."""
        site = make()
        site.set_up(key)
        site.database.close()
        for path in site.folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        for folder in site.folder.parents:
            if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
                folder.chmod(0o755)
        script = (
            "import os\n"
            "from reconciler.tools.otp.server.database import Database, DatabaseError\n"
            "from reconciler.tools.otp.server.token import Token\n"
            "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"try: print(Database({site.url!r}).accept({key.public_id!r}, Token(b'', 1, 1, 1, 1), 'n' * 16, 1))\n"
            "except DatabaseError as error: print('DatabaseError', error)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.stdout.startswith("DatabaseError"), done
        assert site.row(key)["counter"] == -1

    def test_postgres_is_read_only_or_gone(
        self, make: Callable[..., Installation], key: SoftwareYubiKey, postgres: Any
    ) -> None:
        site = make("postgresql")
        site.set_up(key)
        otp = key.press()
        with site.database.transaction() as execute:
            execute("SET default_transaction_read_only = on")
        assert ask(site.validator(), otp).status is Status.BACKEND_ERROR
        site.database.close()
        postgres.stop()
        try:
            answer = ask(site.validator(), otp)
            assert (answer.status, answer.client) == (Status.BACKEND_ERROR, "-")
        finally:
            postgres.start()
        assert ask(site.validator(), otp).status is Status.OK

    def test_postgres_was_restarted_meanwhile(
        self, make: Callable[..., Installation], key: SoftwareYubiKey, postgres: Any
    ) -> None:
        """Connections of before are dead; nobody needs to restart the daemon for it."""
        site = make("postgresql")
        site.set_up(key)
        validator = site.validator()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: ask(validator, "x"), range(16)))
        postgres.stop()
        postgres.start()
        assert ask(validator, key.press()).status is Status.OK

    def test_damaged_secret_of_a_client(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        with site.database.transaction() as execute:
            execute("UPDATE clients SET secret = 'no base64'")
        assert ask(site.validator(), key.press()).status is Status.BACKEND_ERROR

    def test_a_client_without_secret_can_sign_nothing(
        self, make: Callable[..., Installation], key: SoftwareYubiKey
    ) -> None:
        site = make()
        site.set_up(key)
        with site.database.transaction() as execute:
            execute("UPDATE clients SET secret = ''")
        request = signed({"id": "7", "otp": key.press(), "nonce": NONCE}, "")
        assert site.validator().verify(request, "::1").status is Status.BAD_SIGNATURE


class TestParallel:
    """8 workers send the same 200 OTPs at once: each is accepted exactly once."""

    WORKERS, OTPS = 8, 200

    @pytest.mark.parametrize("same_nonce", [False, True], ids=["own nonces", "one nonce"])
    def test_each_is_accepted_once(self, site: Installation, key: SoftwareYubiKey, same_nonce: bool) -> None:
        site.set_up(key)
        otps = [key.press() for _ in range(self.OTPS)]
        validators = [Validator(site.storage, Database(site.url), Policy(), lambda: NOW) for _ in range(self.WORKERS)]

        def one(job: tuple[str, int]) -> Status:
            otp, worker = job
            nonce = hashlib.sha256(f"{otp}{0 if same_nonce else worker}".encode()).hexdigest()[:32]
            return ask(validators[worker], otp, nonce).status

        accepted: list[int] = []
        with ThreadPoolExecutor(self.WORKERS) as pool:
            for otp in otps:
                verdicts = list(pool.map(one, [(otp, worker) for worker in range(self.WORKERS)]))
                accepted.append(verdicts.count(Status.OK))
                others = {v for v in verdicts if v is not Status.OK}
                assert others <= {Status.REPLAYED_REQUEST if same_nonce else Status.REPLAYED_OTP}
        assert accepted == [1] * self.OTPS

    def test_in_any_order(self, site: Installation) -> None:
        """Many YubiKeys, each OTP sent by every worker, in one heap: never twice, and the newest of each key wins."""
        keys = [SoftwareYubiKey.new() for _ in range(20)]
        site.set_up(*keys)
        otps = [key.press() for _ in range(5) for key in keys]
        validator = site.validator()

        def one(job: tuple[str, int]) -> tuple[str, Status]:
            otp, worker = job
            return otp, ask(validator, otp, f"{worker:032d}").status

        with ThreadPoolExecutor(self.WORKERS) as pool:
            verdicts = list(pool.map(one, [(otp, worker) for otp in otps for worker in range(self.WORKERS)]))
        times = {otp: verdicts.count((otp, Status.OK)) for otp in otps}
        assert set(times.values()) <= {0, 1}
        assert [times[otp] for otp in otps[-20:]] == [1] * 20
        assert {status for _, status in verdicts} <= {Status.OK, Status.REPLAYED_OTP}
        for key in keys:
            assert (site.row(key)["counter"], site.row(key)["use"]) == (1, 4)

    def test_revoked_between_look_and_count(self, site: Installation, key: SoftwareYubiKey) -> None:
        """Whoever is revoked while an OTP is examined is not let in any more."""
        site.set_up(key)

        class Slow(Database):
            def accept(self, public_id: str, token: Token, nonce: str, now: int) -> bool:
                site.apply(keys=[{"publicId": public_id, "active": False}])
                return super().accept(public_id, token, nonce, now)

        validator = Validator(site.storage, Slow(site.url), Policy(), lambda: NOW)
        assert ask(validator, key.press()).status is Status.BAD_OTP
        assert site.row(key)["counter"] == -1

    def test_changes_of_the_roster_disturb_nobody(self, site: Installation, key: SoftwareYubiKey) -> None:
        """Who reads and then writes in one transaction does not fail because somebody else wrote meanwhile."""
        site.set_up(key)
        validator, otps = site.validator(), [key.press() for _ in range(60)]
        with ThreadPoolExecutor(2) as pool:
            verdicts = pool.submit(lambda: [ask(validator, otp).status for otp in otps])
            number = 0
            while not verdicts.done():
                number += 1
                assert site.apply(keys=[key_document(key, notes=str(number))])
            assert set(verdicts.result()) == {Status.OK}

    def test_without_the_condition_it_fails(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        """The test above can fail: a database that forgets to look at the number of rows lets several in."""
        site = make()
        site.set_up(key)

        class Careless(Database):
            def accept(self, public_id: str, token: Token, nonce: str, now: int) -> bool:
                super().accept(public_id, token, nonce, now)
                return True

        validator = Validator(site.storage, Careless(site.url), Policy(), lambda: NOW)
        with ThreadPoolExecutor(self.WORKERS) as pool:
            counts = []
            for _ in range(self.OTPS):
                otp = key.press()
                verdicts = pool.map(lambda n, otp=otp: ask(validator, otp, f"{n:032d}").status, range(self.WORKERS))
                counts.append(list(verdicts).count(Status.OK))
        assert max(counts) > 1


class TestModel:
    """Whatever happens in whatever order: an OTP is accepted if it is newer than all that were, and never else."""

    OPERATIONS = ("press", "plug in", "send", "send again", "revoke", "return", "remove", "apply", "forget nothing")

    @given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 30)), max_size=25))
    def test_any_story(self, story: list[tuple[str, int]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            site = Installation(Path(folder))
            key = SoftwareYubiKey.new()
            site.set_up(key)
            self.play(site, key, story)
            site.close()

    def play(self, site: Installation, key: SoftwareYubiKey, story: list[tuple[str, int]]) -> None:
        pressed: list[tuple[tuple[int, int], str]] = []
        last, active, sent = (-1, -1), True, 0
        for operation, number in story:
            match operation:
                case "press":
                    pressed.append(((key.counter, key.use), key.press()))
                case "plug in":
                    key.plug_in()
                case "send" | "send again" if pressed:
                    count, otp = pressed[number % len(pressed)]
                    sent += 1
                    verdict = ask(site.validator(), otp, f"{sent:016d}").status
                    expected = Status.OK if count > last else Status.REPLAYED_OTP
                    assert verdict is (expected if active else Status.BAD_OTP)
                    last = count if verdict is Status.OK else last
                case "revoke":
                    site.apply(keys=[{"publicId": key.public_id, "active": False}])
                    active = False
                case "remove":
                    site.apply(removeKeys=[key.public_id])
                    active = False
                case "return" | "apply":
                    site.apply(keys=[key_document(key, notes=str(number))])
                    active = True
                case "forget nothing":
                    site.database.close()
                    site.database = Database(site.url)
            row = site.row(key)
            assert (row["counter"], row["use"]) == last


def test_a_database_of_another_kind() -> None:
    for url in ("", "sqlite:relative", "mysql://x", "/var/lib/x.sqlite"):
        with pytest.raises(DatabaseError, match="must be sqlite:/path"):
            Database(url)


def test_a_password_of_the_database_is_not_in_the_error() -> None:
    database = Database("postgresql://u:hunter2secret@127.0.0.1:1/x?connect_timeout=1")
    with pytest.raises(DatabaseError) as error:
        database.client(1)
    assert "hunter2secret" not in str(error.value)
