"""The program that runs on the host: `serve`, `apply`, `state`, `check`.

Exit status: 0 done, 1 something is wrong (standard error says what), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import pwd
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import document, roster, settings
from .database import Database, DatabaseError
from .ksm import KeyStorage, KsmError, handle_number
from .settings import Settings, SettingsError
from .verification import Validator
from .web import LOG, Route, Server, decrypt_route, verify_route

_MOST_INPUT = 64 << 20


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        the exit status.
    """
    parser = argparse.ArgumentParser(
        prog="otp-server", description="Key storage and validation server for Yubico OTP (WSAPI 2.0)."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, explanation in (
        ("serve", "answer requests until SIGTERM; SIGHUP reads the configuration file again"),
        ("apply", "make clients and YubiKeys as a JSON document on standard input says; counters stay as they are"),
        ("state", "print clients and YubiKeys as JSON, with digests in place of secrets"),
        ("check", "say whether configuration, database and key storage can be used"),
    ):
        command = commands.add_parser(name, help=explanation, description=explanation)
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration file (JSON)")
    arguments = parser.parse_args(argv)
    before = os.umask(0o077)
    try:
        chosen = settings.load(arguments.config)
        if os.geteuid() == 0 and chosen.user:
            become(chosen.user)
        work = {"serve": serve, "apply": apply, "state": state, "check": check}[arguments.command]
        return work(chosen, arguments.config)
    except (SettingsError, document.RosterError) as error:
        return _fail(error.problems)
    except (DatabaseError, KsmError) as error:
        return _fail([str(error)])
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail([f"{place}{error.strerror or type(error).__name__}"])
    finally:
        os.umask(before)  # who calls this from a program of its own goes on with what was its own


def _fail(problems: Sequence[str]) -> int:
    for problem in problems:
        sys.stderr.write(f"otp-server: {problem}\n")
    return 1


def become(user: str) -> None:
    """Give up root for good.

    Raises:
        SettingsError: there is no such user.
        OSError: it is not possible.
    """
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise SettingsError([f"there is no user {user}"]) from None
    os.initgroups(user, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def storage_of(chosen: Settings) -> KeyStorage:
    """The key storage that the settings describe."""
    return KeyStorage(chosen.keys_file, chosen.aeads, chosen.handles)


def apply(chosen: Settings, config: Path) -> int:
    """`apply`: see `roster`."""
    text = sys.stdin.buffer.read(_MOST_INPUT + 1)
    if len(text) > _MOST_INPUT:
        return _fail(["the document is too large"])
    try:
        wanted = document.parse(text.decode("utf-8"), chosen.handles[0])
    except UnicodeDecodeError:
        return _fail(["the document is no UTF-8"])
    database = Database(chosen.database, create=True)
    result = roster.apply(wanted, database, storage_of(chosen), int(time.time()))
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def state(chosen: Settings, config: Path) -> int:
    """`state`: see `roster`."""
    found = roster.present(Database(chosen.database), storage_of(chosen))
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def check(chosen: Settings, config: Path) -> int:
    """`check`: opens everything that `serve` needs, and changes nothing."""
    problems = []
    try:
        if not Database(chosen.database).is_prepared():
            problems.append("the database has no tables yet; `apply` or `serve` makes them")
    except DatabaseError as error:
        problems.append(str(error))
    try:
        keys = storage_of(chosen).keys()
        problems += [f"keys.json has no key {h}" for h in chosen.handles if handle_number(h) not in keys]
    except KsmError as error:
        problems.append(str(error))
    if not chosen.aeads.is_dir():
        problems.append(f"there is no folder {chosen.aeads}")
    return _fail(problems) if problems else 0


def serve(chosen: Settings, config: Path) -> int:
    """`serve`: answers until SIGTERM or SIGINT."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    database = Database(chosen.database, most=chosen.requests, create=True)
    database.prepare()
    routes = _routes(chosen, database)
    addresses = [*chosen.listen, *chosen.ksm_listen]
    server = Server(list(zip(addresses, routes, strict=True)), requests=chosen.requests, seconds=chosen.request_seconds)

    def leave(number: int, frame: Any) -> None:
        notify("STOPPING=1")
        server.stop()

    def reload(number: int, frame: Any) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            again = settings.load(config)
            if [*again.listen, *again.ksm_listen] != addresses or again.database != chosen.database:
                raise SettingsError(["addresses and database are read at the start only: restart the server"])
            server.replace_routes(_routes(again, database))
            LOG.info("configuration read again")
        except SettingsError as error:
            LOG.error("the old configuration stays: %s", "; ".join(error.problems))
        notify("READY=1")

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGHUP, reload)
    server.wake_on_signals()
    LOG.info("listening on %s", ", ".join(map(str, addresses)))
    notify("READY=1")
    server.run()
    database.close()
    return 0


def _routes(chosen: Settings, database: Database) -> list[Mapping[str, Route]]:
    """Per address what is answered there: first the validation server's, then the key storage's."""
    storage = storage_of(chosen)
    verify: Mapping[str, Route] = {"/wsapi/2.0/verify": verify_route(Validator(storage, database, chosen.policy))}
    decrypt: Mapping[str, Route] = {"/wsapi/decrypt": decrypt_route(storage)}
    return [verify] * len(chosen.listen) + [decrypt] * len(chosen.ksm_listen)


def notify(message: str) -> None:
    """Tell systemd how we are, if it wants to know (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.connect("\0" + path[1:] if path.startswith("@") else path)
            out.send(message.encode())


if __name__ == "__main__":
    main()
