"""Who may use the server: clients and YubiKeys made as a document says, and as they are.

Existence, `active`, notes, secrets: that is what is managed. Counters, nonces and `modified` are the server's own, and
nothing here writes them: where they went back, old OTPs would be accepted again. For the same reason a YubiKey that is
removed keeps its row, inactive and without its AEAD.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import modhex
from .aead import AeadError, path_in, seal
from .database import Database
from .document import VERSION, Roster, RosterError, WantedKey
from .ksm import KeyStorage, KsmError, UnknownPublicId, format_keys, handle_number


def apply(roster: Roster, database: Database, storage: KeyStorage, now: int) -> dict[str, Any]:
    """Make clients and YubiKeys as they should be. Repeating it changes nothing.

    Rows change in one transaction. A secret goes before the row that makes it usable, and after the one that ends it.

    Args:
        now: seconds since 1970, for `created`.

    Returns:
        what was done: `{"changed": ["client 1 created", ...]}`.

    Raises:
        RosterError: something is refused, nothing was changed.
        DatabaseError, KsmError: it cannot be done.
        OSError: a file cannot be written; what is missing comes with the next `apply`.
    """
    changed: list[str] = []
    problems: list[str] = []
    keys = _ksm_keys(roster, storage, problems)
    stale = _stale_aeads(roster, storage, keys, problems)
    database.prepare()
    with database.transaction(writing=False) as execute:
        problems += _refused_clients(roster, _clients(execute))
        problems += _refused_keys(roster, _rows(execute), stale)
    if problems:
        raise RosterError(problems)
    for key in roster.keys:
        if key.credential is not None and stale[key.public_id]:
            number = handle_number(key.handle)
            aead = seal(keys[number], number, key.credential)
            write_private(path_in(storage.aeads, key.handle, key.public_id), aead.to_bytes())
            _remove_aeads(storage, key.public_id, keep=key.handle)
            changed.append(f"key {key.public_id}: AEAD written")
    # After the AEADs: whoever is interrupted between finds either key in the document or in the file, and goes on.
    if roster.ksm_keys is not None and roster.ksm_keys != _keys_or_none(storage):
        write_private(storage.keys_file, format_keys(roster.ksm_keys).encode(), mode=0o400)
        changed.append("keys.json written")
    with database.transaction(alone=True) as execute:
        _write_clients(roster, _clients(execute), execute, now, changed)
        _write_keys(roster, _rows(execute), execute, now, changed)
    for public_id in roster.remove_keys:
        if _remove_aeads(storage, public_id):
            changed.append(f"key {public_id}: AEAD removed")
    return {"version": VERSION, "changed": changed}


def _clients(execute: Callable[..., Any]) -> dict[int, Any]:
    return {row[0]: row[1:] for row in execute("SELECT id, active, secret, notes, email FROM clients").fetchall()}


def _rows(execute: Callable[..., Any]) -> dict[str, Any]:
    return {row[0]: row[1:] for row in execute("SELECT yk_publicname, active, notes FROM yubikeys").fetchall()}


def _keys_or_none(storage: KeyStorage) -> dict[int, bytes] | None:
    try:
        return storage.keys()
    except KsmError:
        return None


def _ksm_keys(roster: Roster, storage: KeyStorage, problems: list[str]) -> Mapping[int, bytes]:
    """The keys as they will be; notes a problem where an AEAD that is not written anew would lose its key."""
    if roster.ksm_keys is None:
        return storage.keys() if any(key.credential for key in roster.keys) else {}
    present = _keys_or_none(storage) or {}
    rewritten = {k.public_id for k in roster.keys if k.credential is not None} | set(roster.remove_keys)
    for handle, public_id in _aeads(storage):
        number = handle_number(handle)
        if number in present and roster.ksm_keys.get(number) != present[number] and public_id not in rewritten:
            problems.append(
                f"The KSM key {handle} cannot be changed: the AEAD of {public_id} needs it, and the document does not "
                "name its secrets. Add a new handle instead, or name this YubiKey, too."
            )
    return roster.ksm_keys


def _stale_aeads(roster: Roster, storage: KeyStorage, keys: Mapping[int, bytes], problems: list[str]) -> dict[str, str]:
    """Public id -> why its AEAD must be written: "new", "handle", "key" or "other"; empty if it is right."""
    stale = {}
    for key in roster.keys:
        if key.credential is None:
            continue
        if handle_number(key.handle) not in keys:
            problems.append(f"key {key.public_id}: keys.json has no key {key.handle}")
        if key.handle not in storage.handles:
            problems.append(f"key {key.public_id}: the handle {key.handle} is not among those of the settings")
        stale[key.public_id] = _staleness(key, storage, keys)
    return stale


def _staleness(key: WantedKey, storage: KeyStorage, keys: Mapping[int, bytes]) -> str:
    try:
        handle, aead = storage.find(key.public_id)
    except UnknownPublicId:
        return "new"
    except KsmError:
        # Damaged, or the folder is not there yet: whether a file would be overwritten decides.
        present = any(os.path.lexists(path_in(storage.aeads, h, key.public_id)) for h in storage.handles)
        return "other" if present else "new"
    for ksm_keys, why in ((keys, "handle" if handle != key.handle else ""), (_keys_or_none(storage) or {}, "key")):
        with contextlib.suppress(AeadError, KeyError):
            return why if aead.open(ksm_keys[aead.handle]) == key.credential else "other"
    return "other"


def _refused_clients(roster: Roster, clients: Mapping[int, Any]) -> Iterator[str]:
    for client in roster.clients:
        present = clients.get(client.number)
        if present is None and client.secret is None:
            yield f"client {client.number} does not exist: its secret is needed"
        elif present is not None and client.secret not in (None, present[1]) and not client.replace:
            yield f"client {client.number} exists with another secret, which is overwritten only with replace: true"


def _refused_keys(roster: Roster, rows: Mapping[str, Any], stale: Mapping[str, str]) -> Iterator[str]:
    for key in roster.keys:
        if key.credential is None:
            if key.public_id not in rows:
                yield f"key {key.public_id} does not exist: privateId and aesKey are needed"
        elif stale[key.public_id] == "other" and not key.replace:
            yield f"key {key.public_id} exists with other secrets, which are overwritten only with replace: true"


def _write_clients(
    roster: Roster, clients: Mapping[int, Any], execute: Callable[..., Any], now: int, changed: list[str]
) -> None:
    for client in roster.clients:
        present = clients.get(client.number)
        if present is None:
            execute(
                "INSERT INTO clients (id, active, created, secret, email, notes, otp) "
                "VALUES (%s, %s, %s, %s, %s, %s, '')",
                client.number,
                client.active,
                now,
                client.secret,
                client.email,
                client.notes,
            )
            changed.append(f"client {client.number} created")
            continue
        secret = present[1] if client.secret is None else client.secret
        if (bool(present[0]), present[1], present[2] or "", present[3] or "") != (
            client.active,
            secret,
            client.notes,
            client.email,
        ):
            execute(
                "UPDATE clients SET active = %s, secret = %s, notes = %s, email = %s WHERE id = %s",
                client.active,
                secret,
                client.notes,
                client.email,
                client.number,
            )
            changed.append(f"client {client.number} changed")
    for number in roster.remove_clients:
        if number in clients:
            execute("DELETE FROM clients WHERE id = %s", number)
            changed.append(f"client {number} removed")


def _write_keys(
    roster: Roster, rows: Mapping[str, Any], execute: Callable[..., Any], now: int, changed: list[str]
) -> None:
    for key in roster.keys:
        present = rows.get(key.public_id)
        if present is None:
            execute(
                "INSERT INTO yubikeys (active, created, modified, yk_publicname, yk_counter, yk_use, yk_low, yk_high, "
                "nonce, notes) VALUES (%s, %s, %s, %s, -1, -1, -1, -1, '0000000000000000', %s)",
                key.active,
                now,
                now,
                key.public_id,
                key.notes,
            )
            changed.append(f"key {key.public_id} created")
        elif (bool(present[0]), present[1] or "") != (key.active, key.notes):
            execute(
                "UPDATE yubikeys SET active = %s, notes = %s WHERE yk_publicname = %s",
                key.active,
                key.notes,
                key.public_id,
            )
            changed.append(f"key {key.public_id} changed")
    for public_id in roster.remove_keys:
        if public_id in rows and rows[public_id][0]:
            execute("UPDATE yubikeys SET active = %s WHERE yk_publicname = %s", False, public_id)
            changed.append(f"key {public_id} deactivated")


def _aeads(storage: KeyStorage) -> Iterator[tuple[str, str]]:
    """(handle as it is written, public id) of all AEAD files, in order.

    Raises:
        KsmError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise KsmError(f"the folder of AEADs cannot be read: {error.strerror}")

    for handle in storage.handles:
        found = []
        for folder, _, files in os.walk(storage.aeads / handle, onerror=fail):
            for name in files:
                if modhex.is_public_id(name) and path_in(storage.aeads, handle, name) == Path(folder, name):
                    found.append(name)
        yield from ((handle, name) for name in sorted(found))


def _remove_aeads(storage: KeyStorage, public_id: str, keep: str = "") -> bool:
    removed = False
    for handle in storage.handles:
        if handle != keep:
            with contextlib.suppress(FileNotFoundError):
                path_in(storage.aeads, handle, public_id).unlink()
                removed = True
    return removed


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that only its owner may read, all or nothing; folders are made as needed.

    Raises:
        OSError
    """
    folders = [folder for folder in path.parents if not folder.exists()]
    for folder in reversed(folders):
        folder.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None  # of a full disk, the error names no file
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder_handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_handle)
    finally:
        os.close(folder_handle)


# ---------------------------------------------------------------------------------------------- state


def present(database: Database, storage: KeyStorage) -> dict[str, Any]:
    """What is there, without secrets.

    Digests are SHA-256 (hex) over the text of a secret as a document writes it: `secretSha256` over the base64 of a
    client's, `privateIdSha256`, `aesKeySha256` and those of `ksmKeys` over lower-case hexadecimal digits. Whoever gets
    this output must seal them at once: a plain digest can be searched by guessing.

    Returns:
        `{"version", "ksmKeys": {handle: digest} | null, "clients": [...], "keys": [...], "problems": [...]}`. A key
        without row has `active: null`; one without AEAD has `handle: null`; `removed` is true of the row that a removed
        key leaves behind.

    Raises:
        DatabaseError: the database cannot be read.
    """
    problems: list[str] = []
    keys = None
    try:
        keys = storage.keys()
    except KsmError as error:
        problems.append(str(error))
    clients, rows = [], {}
    if database.is_prepared():
        with database.transaction(writing=False) as execute:
            clients = execute("SELECT id, active, created, secret, notes, email FROM clients ORDER BY id").fetchall()
            found = execute(
                "SELECT yk_publicname, active, notes, created, modified, yk_counter, yk_use FROM yubikeys"
            ).fetchall()
            rows = {row[0]: row[1:] for row in found}
    handles: dict[str, str] = {}
    try:
        for handle, public_id in _aeads(storage):
            handles.setdefault(public_id, handle)
    except KsmError as error:
        problems.append(str(error))
    return {
        "version": VERSION,
        "ksmKeys": None if keys is None else {str(h): _digest(key.hex()) for h, key in sorted(keys.items())},
        "clients": [
            {
                "id": row[0],
                "active": bool(row[1]),
                "created": row[2],
                "secretSha256": _digest(row[3] or ""),
                "notes": row[4] or "",
                "email": row[5] or "",
            }
            for row in clients
        ],
        "keys": [
            _present_key(public_id, rows.get(public_id), handles.get(public_id), storage, keys)
            for public_id in sorted({*rows, *handles})
        ],
        "problems": problems,
    }


def _present_key(
    public_id: str, row: Any, handle: str | None, storage: KeyStorage, keys: Mapping[int, bytes] | None
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "publicId": public_id,
        "active": None if row is None else bool(row[0]),
        "notes": (row[1] or "") if row else "",
        "created": row[2] if row else None,
        "modified": row[3] if row else None,
        "counter": row[4] if row else None,
        "use": row[5] if row else None,
        "handle": handle,
        "privateIdSha256": None,
        "aesKeySha256": None,
        "removed": row is not None and not row[0] and handle is None,
        "problem": "",
    }
    if handle is not None:
        try:
            credential = storage.credential(public_id, keys or {})
        except (KsmError, UnknownPublicId) as error:
            out["problem"] = str(error)
        else:
            out["privateIdSha256"] = _digest(credential.private_id.hex())
            out["aesKeySha256"] = _digest(credential.aes_key.hex())
    return out


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
