"""Who may use the server: made as a document says, shown as it is, and never at the cost of a counter."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.tools.otp.server import aead, document, roster
from reconciler.tools.otp.server.aead import Credential
from reconciler.tools.otp.server.document import RosterError
from reconciler.tools.otp.server.ksm import KeyStorage, KsmError
from reconciler.tools.otp.server.verification import Status
from reconciler.tools.otp.software_yubikey import SoftwareYubiKey
from tests.otp.installation import NONCE, Installation, key_document
from tests.otp.test_verification import ask
from tests.otp.vectors import AEAD, CLIENT_SECRET, KSM_KEY

OTHER_SECRET = "AAAAAAAAAAAAAAAAAAAAAAAAAAA="
GOOD: dict[str, Any] = {
    "version": 1,
    "ksmKeys": {"1": KSM_KEY.hex()},
    "clients": [{"id": 1, "secret": CLIENT_SECRET, "active": True, "notes": "web1", "email": "", "replace": False}],
    "keys": [
        {
            "publicId": "credtivccccc",
            "privateId": "8792ebfe26cc",
            "aesKey": "ecde18dbe76fbd0c33330f1c354871db",
            "handle": "1",
            "active": True,
            "notes": "alice",
            "replace": False,
        }
    ],
    "removeClients": [2],
    "removeKeys": ["vvcccccccccc"],
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def changed_at(place: str, value: object) -> dict[str, Any]:
    """The good document with one value changed; `None` takes it away."""
    made: Any = copy.deepcopy(GOOD)
    *folders, last = (int(name) if name.isdecimal() else name for name in place.split("."))
    where = made
    for name in folders:
        where = where[name]
    if value is None:
        del where[last]
    else:
        where[last] = value
    result: dict[str, Any] = made
    return result


class TestDocument:
    def test_good(self) -> None:
        wanted = document.parse(json.dumps(GOOD), "1")
        assert wanted.clients[0].notes == "web1"
        assert wanted.keys[0].credential == Credential(
            bytes.fromhex("ecde18dbe76fbd0c33330f1c354871db"), bytes.fromhex("8792ebfe26cc")
        )
        for secret in (CLIENT_SECRET, "8792ebfe26cc", "ecde18db", KSM_KEY.hex()):
            assert secret not in repr(wanted)

    def test_everything_has_a_default(self) -> None:
        wanted = document.parse('{"version": 1}', "1")
        assert (wanted.clients, wanted.keys, wanted.ksm_keys) == ((), (), None)

    @pytest.mark.parametrize(
        ("place", "value", "message"),
        [
            ("version", 2, "version must be 1"),
            ("version", True, "version"),
            ("what", 1, "'what' is not known"),
            ("ksmKeys", {"1": "00"}, "the key of handle 1 in ksmKeys"),
            ("clients", {}, "clients has the wrong type"),
            ("clients.0.id", 0, "the id of a client"),
            ("clients.0.id", "1", "the id of a client"),
            ("clients.0.id", True, "the id of a client"),
            ("clients.0.id", 2, "client 2 is named twice"),
            ("clients.0.secret", "hunter2!", "secret must be base64"),
            ("clients.0.secret", "", "secret must be base64"),
            ("clients.0.secret", "A" * 64, "secret must be base64"),
            ("clients.0.notes", "x" * 101, "notes must be one line"),
            ("clients.0.notes", "a\nb", "notes must be one line"),
            ("clients.0.active", 1, "active has the wrong type"),
            ("clients.0.more", 1, "'more' is not known"),
            ("keys.0.publicId", "", "is no public id"),
            ("keys.0.publicId", "../../../etc", "is no public id"),
            ("keys.0.publicId", "c" * 18, "is no public id"),
            ("keys.0.publicId", 5, "is no public id"),
            ("keys.0.publicId", "vvcccccccccc", "public id vvcccccccccc is named twice"),
            ("keys.0.privateId", "8792ebfe26", "privateId must be 12 hexadecimal digits"),
            ("keys.0.privateId", None, "belong together"),
            ("keys.0.aesKey", "zz" * 16, "aesKey must be 32 hexadecimal digits"),
            ("keys.0.aesKey", "00 " * 16, "aesKey must be 32 hexadecimal digits"),
            ("keys.0.handle", "../1", "is no key handle"),
            ("removeKeys.0", "x", "is no public id"),
            ("removeClients.0", -1, "the id of a client"),
        ],
    )
    def test_wrong_values(self, place: str, value: object, message: str) -> None:
        with pytest.raises(RosterError) as error:
            document.parse(json.dumps(changed_at(place, value)), "1")
        assert message in str(error.value)
        assert "hunter2" not in str(error.value)
        assert "zz" not in str(error.value)

    def test_all_at_once(self) -> None:
        with pytest.raises(RosterError) as error:
            document.parse('{"clients": [{"id": 0}, {"id": "a"}], "keys": [{}], "x": 1}', "1")
        assert len(error.value.problems) == 5

    @given(
        st.text(max_size=40)
        | st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4).map(json.dumps)
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(RosterError):
            document.parse(text, "1")


class TestApply:
    def test_from_nothing_and_again(self, site: Installation) -> None:
        wanted = {k: v for k, v in GOOD.items() if k != "version"}
        assert site.apply(**wanted) == [
            "key credtivccccc: AEAD written",
            "keys.json written",
            "client 1 created",
            "key credtivccccc created",
        ]
        before = {
            path: (path.read_bytes(), path.stat().st_mtime_ns) for path in site.folder.rglob("*") if path.is_file()
        }
        assert site.apply(**wanted) == []
        kept = [p for p in before if "sqlite" not in p.name]
        assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in kept} == {p: before[p] for p in kept}

    def test_state(self, site: Installation, key: SoftwareYubiKey) -> None:
        assert site.present() == {
            "version": 1,
            "ksmKeys": None,
            "clients": [],
            "keys": [],
            "problems": [f"{site.keys_file} cannot be read: No such file or directory"],
        }
        site.set_up(key)
        found = site.present()
        assert found["ksmKeys"] == {"1": digest(KSM_KEY.hex())}
        assert found["problems"] == []
        assert found["clients"] == [
            {
                "id": 7,
                "active": True,
                "created": 1_795_322_096,
                "secretSha256": digest(CLIENT_SECRET),
                "notes": "",
                "email": "",
            }
        ]
        assert found["keys"] == [
            {
                "publicId": key.public_id,
                "active": True,
                "notes": "",
                "created": 1_795_322_096,
                "modified": 1_795_322_096,
                "counter": -1,
                "use": -1,
                "handle": "1",
                "privateIdSha256": digest(key.private_id.hex()),
                "aesKeySha256": digest(key.aes_key.hex()),
                "removed": False,
                "problem": "",
            }
        ]
        text = json.dumps(found)
        for secret in (KSM_KEY.hex(), CLIENT_SECRET, key.aes_key.hex(), key.private_id.hex()):
            assert secret not in text

    def test_state_writes_nothing(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.database.close()
        before = sorted(site.folder.rglob("*"))
        site.present()
        assert sorted(site.folder.rglob("*")) == before

    def test_files_are_private(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        umask = os.umask(0)
        try:
            site.set_up(key)
        finally:
            os.umask(umask)
        path = aead.path_in(site.aeads, "1", key.public_id)
        assert stat.S_IMODE(site.keys_file.stat().st_mode) == 0o400
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(path.read_bytes()) == 54
        assert not list(site.folder.rglob(".*")), "no drafts are left"
        assert {stat.S_IMODE(p.stat().st_mode) for p in site.aeads.rglob("*") if p.is_dir()} == {0o700}

    def test_counters_are_never_touched(self, site: Installation) -> None:
        keys = [SoftwareYubiKey.new() for _ in range(3)]
        site.set_up(*keys)
        for n, key in enumerate(keys):
            for _ in range(n + 1):
                assert ask(site.validator(), key.press()).status is Status.OK
        memory = ("counter", "use", "modified", "created")

        def counters() -> list[list[Any]]:
            return [[site.row(key)[name] for name in memory] for key in keys]

        before = counters()
        with site.database.transaction(writing=False) as execute:
            rows = execute("SELECT yk_low, yk_high, nonce FROM yubikeys ORDER BY yk_publicname").fetchall()
        site.apply(keys=[key_document(key, active=False, notes="away") for key in keys])
        site.apply(removeKeys=[keys[0].public_id], keys=[{"publicId": keys[1].public_id, "notes": "x"}])
        site.apply(keys=[key_document(key, notes="back") for key in keys])
        site.apply(keys=[key_document(SoftwareYubiKey.new(keys[2].public_id), replace=True)])
        assert counters() == before
        with site.database.transaction(writing=False) as execute:
            assert execute("SELECT yk_low, yk_high, nonce FROM yubikeys ORDER BY yk_publicname").fetchall() == rows

    def test_other_secrets_are_not_overwritten_by_accident(self, site: Installation, key: SoftwareYubiKey) -> None:
        site.set_up(key)
        other = SoftwareYubiKey.new(key.public_id)
        before = site.present()
        with pytest.raises(RosterError) as error:
            site.apply(
                clients=[{"id": 7, "secret": OTHER_SECRET}, {"id": 8}, {"id": 9, "secret": OTHER_SECRET}],
                keys=[key_document(other), {"publicId": "cccc"}],
            )
        assert error.value.problems == [
            "client 7 exists with another secret, which is overwritten only with replace: true",
            "client 8 does not exist: its secret is needed",
            f"key {key.public_id} exists with other secrets, which are overwritten only with replace: true",
            "key cccc does not exist: privateId and aesKey are needed",
        ]
        assert site.present() == before, "nothing was changed, not even client 9"
        assert ask(site.validator(), key.press()).status is Status.OK

    def test_replacing_one_leaves_the_others(self, site: Installation, key: SoftwareYubiKey) -> None:
        neighbour = SoftwareYubiKey.new()
        site.set_up(key, neighbour)
        old_file = aead.path_in(site.aeads, "1", key.public_id).read_bytes()
        other = SoftwareYubiKey.new(key.public_id)
        assert site.apply(keys=[key_document(other, replace=True)]) == [f"key {key.public_id}: AEAD written"]
        assert ask(site.validator(), key.press()).status is Status.BAD_OTP
        assert ask(site.validator(), other.press()).status is Status.OK
        assert ask(site.validator(), neighbour.press()).status is Status.OK
        new_file = aead.path_in(site.aeads, "1", key.public_id).read_bytes()
        assert new_file[18:24] != old_file[18:24], "the nonce is never used twice"

    def test_a_damaged_aead_is_replaced_only_on_demand(
        self, make: Callable[..., Installation], key: SoftwareYubiKey
    ) -> None:
        site = make()
        site.set_up(key)
        path = aead.path_in(site.aeads, "1", key.public_id)
        path.write_bytes(AEAD[:20])
        assert site.row(key)["problem"] == f"{key.public_id}: the AEAD file has 20 bytes instead of 54"
        with pytest.raises(RosterError, match="other secrets"):
            site.apply(keys=[key_document(key)])
        assert path.read_bytes() == AEAD[:20]
        site.apply(keys=[key_document(key, replace=True)])
        assert ask(site.validator(), key.press()).status is Status.OK

    def test_the_ksm_key_goes_only_with_all_its_aeads(
        self, make: Callable[..., Installation], key: SoftwareYubiKey
    ) -> None:
        site = make()
        other = SoftwareYubiKey.new()
        site.set_up(key, other)
        new = {"1": bytes(16).hex()}
        with pytest.raises(RosterError, match=f"the AEAD of {other.public_id} needs it"):
            site.apply(ksmKeys=new, keys=[key_document(key)])
        assert ask(site.validator(), other.press()).status is Status.OK
        site.apply(ksmKeys=new, keys=[key_document(key), key_document(other)])
        assert site.storage.keys() == {1: bytes(16)}
        assert ask(site.validator(), other.press()).status is Status.OK
        assert ask(site.validator(), key.press()).status is Status.OK

    @pytest.mark.parametrize("files", range(3))
    def test_a_new_ksm_key_after_an_interruption(
        self, make: Callable[..., Installation], key: SoftwareYubiKey, files: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed between any two of its files, the same document finishes the work."""
        site = make()
        other = SoftwareYubiKey.new()
        site.set_up(key, other)
        wanted = {"ksmKeys": {"1": bytes(16).hex()}, "keys": [key_document(key), key_document(other)]}
        write, left = roster.write_private, [files]

        def interrupted(path: Path, content: bytes, mode: int = 0o600) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write(path, content, mode)

        monkeypatch.setattr(roster, "write_private", interrupted)
        with pytest.raises(KeyboardInterrupt):
            site.apply(**wanted)
        monkeypatch.undo()
        site.apply(**wanted)
        assert site.apply(**wanted) == []
        assert ask(site.validator(), key.press()).status is Status.OK
        assert ask(site.validator(), other.press()).status is Status.OK

    def test_moving_to_another_handle(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> None:
        site = make()
        site.set_up(key)
        site.storage = KeyStorage(site.keys_file, site.aeads, ["2", "1"])
        site.apply(ksmKeys={"1": KSM_KEY.hex(), "2": bytes(16).hex()}, keys=[key_document(key, handle="2")])
        assert site.row(key)["handle"] == "2"
        assert not aead.path_in(site.aeads, "1", key.public_id).exists()
        assert ask(site.validator(), key.press()).status is Status.OK
        site.apply(ksmKeys={"2": bytes(16).hex()})
        assert ask(site.validator(), key.press()).status is Status.OK
        with pytest.raises(RosterError, match="has no key 1"):
            site.apply(keys=[key_document(key, handle="1")])
        with pytest.raises(RosterError, match="the handle 3 is not among those of the settings"):
            site.apply(ksmKeys={"2": bytes(16).hex(), "3": KSM_KEY.hex()}, keys=[key_document(key, handle="3")])

    def test_removal(self, site: Installation, key: SoftwareYubiKey) -> None:
        site.set_up(key)
        ask(site.validator(), key.press())
        assert site.apply(removeClients=[7, 9], removeKeys=[key.public_id, "cccc"]) == [
            "client 7 removed",
            f"key {key.public_id} deactivated",
            f"key {key.public_id}: AEAD removed",
        ]
        row = site.row(key)
        assert (row["removed"], row["counter"], row["handle"]) == (True, 1, None)
        assert site.present()["clients"] == []
        assert site.apply(removeClients=[7], removeKeys=[key.public_id]) == []

    def test_without_keys_json_nothing_can_be_sealed(
        self, make: Callable[..., Installation], key: SoftwareYubiKey
    ) -> None:
        with pytest.raises(KsmError, match="cannot be read"):
            make().apply(keys=[key_document(key)])

    def test_a_full_disk_is_named_with_the_file_and_leaves_no_half(
        self, make: Callable[..., Installation], key: SoftwareYubiKey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = make()
        site.set_up(key)
        before = {p: p.read_bytes() for p in site.folder.rglob("*") if p.is_file() and "sqlite" not in p.name}

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        another = SoftwareYubiKey.new()
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left on device") as caught:
                site.apply(keys=[key_document(another)])
        assert caught.value.filename == str(aead.path_in(site.aeads, "1", another.public_id))
        left = {p: p.read_bytes() for p in site.folder.rglob("*") if p.is_file() and "sqlite" not in p.name}
        assert left == before
        assert [row["publicId"] for row in site.present()["keys"]] == [key.public_id]

    def test_hostile_notes_are_text(self, site: Installation, key: SoftwareYubiKey) -> None:
        notes = "'; DROP TABLE clients; -- $(id) %s ? \\ \""
        site.set_up(key)
        site.apply(clients=[{"id": 7, "notes": notes}], keys=[key_document(key, notes=notes)])
        assert site.row(key)["notes"] == site.present()["clients"][0]["notes"] == notes


class TestSeveralServers:
    """On one PostgreSQL, each applies the same document to an empty database in the same moment."""

    HOSTS = 4

    def test_each_is_done(
        self, make: Callable[..., Installation], key: SoftwareYubiKey, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        first = make("postgresql")
        hosts = [Installation(tmp_path_factory.mktemp("host"), first.url) for _ in range(self.HOSTS)]
        keys = [key, *(SoftwareYubiKey.new() for _ in range(20))]
        together = threading.Barrier(self.HOSTS)

        def one(host: Installation) -> None:
            together.wait()
            host.set_up(*keys)

        try:
            with ThreadPoolExecutor(self.HOSTS) as pool:
                list(pool.map(one, hosts))
            otp = key.press()
            assert [ask(host.validator(), otp, f"{n:032d}").status for n, host in enumerate(hosts)] == [
                Status.OK,
                *[Status.REPLAYED_OTP] * (self.HOSTS - 1),
            ]
        finally:
            for host in hosts:
                host.close()

    def test_what_one_removes_is_gone_for_all_and_counts_on_when_it_is_back(
        self, make: Callable[..., Installation], key: SoftwareYubiKey, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        stays = make("postgresql")
        leaves = Installation(tmp_path_factory.mktemp("host"), stays.url)
        try:
            stays.set_up(key)
            leaves.set_up(key)
            used = key.press()
            assert ask(stays.validator(), used).status is Status.OK
            leaves.apply(removeKeys=[key.public_id], removeClients=[7])
            assert ask(stays.validator(), key.press()).status is Status.NO_SUCH_CLIENT
            stays.set_up(key)
            assert ask(stays.validator(), used, NONCE[::-1]).status is Status.REPLAYED_OTP
            assert ask(stays.validator(), key.press()).status is Status.OK
        finally:
            leaves.close()


class TestOldInstallation:
    """Files and rows that the old programs left behind go on working."""

    OLD = (
        "CREATE TABLE clients (id INT NOT NULL UNIQUE, active BOOLEAN DEFAULT TRUE, created INT NOT NULL, "
        "secret VARCHAR(60) NOT NULL DEFAULT '', email VARCHAR(255), notes VARCHAR(100) DEFAULT '', "
        "otp VARCHAR(100) DEFAULT '', PRIMARY KEY (id))",
        "CREATE TABLE yubikeys (active BOOLEAN DEFAULT TRUE, created INT NOT NULL, modified INT NOT NULL, "
        "yk_publicname VARCHAR(16) UNIQUE NOT NULL, yk_counter INT NOT NULL, yk_use INT NOT NULL, "
        "yk_low INT NOT NULL, yk_high INT NOT NULL, nonce VARCHAR(40) DEFAULT '', notes VARCHAR(100) DEFAULT '', "
        "PRIMARY KEY (yk_publicname))",
        "CREATE TABLE queue (queued INT DEFAULT NULL, modified INT DEFAULT NULL, server_nonce VARCHAR(32) NOT NULL, "
        "otp VARCHAR(100) NOT NULL, server VARCHAR(100) NOT NULL, info VARCHAR(256) NOT NULL)",
        "INSERT INTO clients (id, created, secret, email, notes) VALUES (1, 1619686861, '"
        + CLIENT_SECRET
        + "', NULL, NULL)",
        "INSERT INTO yubikeys (active, created, modified, yk_publicname, yk_counter, yk_use, yk_low, yk_high, nonce, "
        "notes) VALUES (TRUE, 1, 2, 'vvcccccccccc', 18, 4, 5, 6, 'abc', NULL)",
    )

    def test_goes_on_where_it_was(self, site: Installation) -> None:
        with site.database.transaction() as execute:
            for statement in self.OLD:
                execute(statement)
        key = SoftwareYubiKey.new("vvcccccccccc")
        (site.folder / "keys.json").write_text(json.dumps({"1": KSM_KEY.hex()}))
        path = aead.path_in(site.aeads, "1", key.public_id)
        path.parent.mkdir(parents=True)
        # As the old tool wrote it: with the nonce that it used for every key.
        path.write_bytes(aead.seal(KSM_KEY, 1, Credential(key.aes_key, key.private_id), bytes(6)).to_bytes())
        key.counter, key.use = 18, 4
        assert ask(site.validator(), key.press(), NONCE, id="1").status is Status.REPLAYED_OTP
        assert ask(site.validator(), key.press(), NONCE, id="1").status is Status.OK
        written = path.read_bytes()
        assert site.apply(
            clients=[{"id": 1, "secret": CLIENT_SECRET, "notes": "openvpn"}], keys=[key_document(key, notes="bob")]
        ) == ["client 1 changed", f"key {key.public_id} changed"]
        assert path.read_bytes() == written, "what opens to the same secrets stays as it is"
        assert (site.row(key)["counter"], site.row(key)["use"]) == (18, 5)
