"""A validation server in a temporary folder, and clients that talk to it as real ones do."""

from __future__ import annotations

import base64
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from reconciler.tools.otp.server import document, roster, settings
from reconciler.tools.otp.server.database import Database
from reconciler.tools.otp.server.ksm import KeyStorage
from reconciler.tools.otp.server.signature import sign
from reconciler.tools.otp.server.verification import Policy, Validator
from reconciler.tools.otp.single_file import single_file
from reconciler.tools.otp.software_yubikey import SoftwareYubiKey
from tests.otp.vectors import CLIENT_SECRET, KSM_KEY
from tests.ports import free_port

NOW = 1_795_322_096.695
NONCE = "abcdefghijklmnop"


def key_document(key: SoftwareYubiKey, **more: Any) -> dict[str, Any]:
    """A YubiKey as a document names it."""
    return {
        "publicId": key.public_id,
        "privateId": key.private_id.hex(),
        "aesKey": key.aes_key.hex(),
        **more,
    }


def fields(body: str) -> dict[str, str]:
    """The fields of a response; asserts its form."""
    assert body.endswith("\r\n\r\n")
    assert body.count("\n") == body.count("\r\n")
    return dict(line.split("=", 1) for line in body.rstrip("\r\n").split("\r\n"))


def is_signed(answer: Mapping[str, str], secret: str = CLIENT_SECRET) -> bool:
    """Whether a response carries the signature of this secret."""
    return answer["h"] == sign(answer, base64.b64decode(secret))


@dataclass
class Installation:
    """The files of a server, and what it takes to run it."""

    folder: Path
    url: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    ksm_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.url = self.url or f"sqlite:{self.folder}/ykval.sqlite"
        self.keys_file = self.folder / "keys.json"
        self.aeads = self.folder / "aeads"
        self.log = self.folder / "log"
        self.program = self.folder / "otp-server.py"
        self.storage = KeyStorage(self.keys_file, self.aeads, ["1"])
        self.database = Database(self.url, create=True)

    @property
    def configuration(self) -> dict[str, Any]:
        return {
            "listen": [f"127.0.0.1:{self.port}"],
            "database": self.url,
            "ksm": {
                "keys": str(self.keys_file),
                "aeads": str(self.aeads),
                "handles": ["1"],
                "listen": [f"127.0.0.1:{self.ksm_port}"],
            },
            **self.more,
        }

    @property
    def config(self) -> Path:
        """The configuration file, written anew."""
        path = self.folder / "otp-server.json"
        path.write_text(json.dumps(self.configuration))
        settings.load(path)
        return path

    def apply(self, **parts: Any) -> list[str]:
        """Apply a document here and now; gives what was changed."""
        wanted = document.parse(json.dumps({"version": 1, **parts}), "1")
        result = roster.apply(wanted, self.database, self.storage, int(NOW))
        changed: list[str] = result["changed"]
        return changed

    def set_up(self, *keys: SoftwareYubiKey) -> None:
        """A KSM key, client 7, and these YubiKeys."""
        self.apply(
            ksmKeys={"1": KSM_KEY.hex()},
            clients=[{"id": 7, "secret": CLIENT_SECRET}],
            keys=[key_document(key) for key in keys],
        )

    def validator(self, **policy: Any) -> Validator:
        """The server without its HTTP."""
        return Validator(self.storage, self.database, Policy(**policy), lambda: NOW)

    def present(self) -> dict[str, Any]:
        """What is there."""
        return roster.present(self.database, self.storage)

    def row(self, key: SoftwareYubiKey) -> dict[str, Any]:
        """What is there of one YubiKey."""
        (found,) = [k for k in self.present()["keys"] if k["publicId"] == key.public_id]
        return dict(found)

    # ------------------------------------------------------------------------------------------ the daemon

    def command(self, *words: str, python: str = sys.executable) -> list[str]:
        """The server's program, as the one file that it is shipped as."""
        self.program.write_text(single_file())
        return [python, "-I", str(self.program), *words, "--config", str(self.config)]

    def run(self, *words: str, stdin: str = "", python: str = sys.executable) -> subprocess.CompletedProcess[str]:
        """Run an administrative command."""
        return subprocess.run(
            self.command(*words, python=python),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd="/",
        )

    def start(self, python: str = sys.executable) -> None:
        """Start the daemon, and wait until it says that it is ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            path = self.folder / "notify"
            path.unlink(missing_ok=True)
            ready.bind(str(path))
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command("serve", python=python),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "NOTIFY_SOCKET": str(path)},
                    cwd="/",
                )
            deadline = time.monotonic() + 30
            while not select.select([ready], [], [], 0.1)[0]:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, "the daemon does not become ready"
            assert ready.recv(100) == b"READY=1"

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon; gives its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        self.process = None
        return status

    def close(self) -> None:
        """Whatever still runs, ends."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.database.close()

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """One GET: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def ask(self, otp: str, nonce: str = NONCE, client: int = 7, secret: str = CLIENT_SECRET) -> dict[str, str]:
        """Verify an OTP over HTTP as a client does: signed, and checking the signature of the answer."""
        parameters = {"id": str(client), "otp": otp, "nonce": nonce}
        parameters["h"] = sign(parameters, base64.b64decode(secret))
        status, body = self.get(f"/wsapi/2.0/verify?{urlencode(parameters)}")
        assert status == 200
        answer = fields(body)
        assert answer["status"] == "NO_SUCH_CLIENT" or is_signed(answer, secret)
        return answer
