"""A thin client for the simulators in tests: tickets or tokens, forms, one connection that is kept."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Reply:
    """What came back. `data` is None where the body is no JSON."""

    status: int
    reason: str
    text: str

    @property
    def whole(self) -> dict[str, Any]:
        """The whole body, JSON."""
        read: dict[str, Any] = json.loads(self.text)
        return read

    @property
    def data(self) -> Any:
        """The key `data` of the body."""
        return self.whole["data"]


class Api:
    """One API endpoint. `headers` say who asks."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, *, ca: str | None = None) -> None:
        if ca is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context = ssl.create_default_context(cadata=ca)
        self._connection = http.client.HTTPSConnection(url.removeprefix("https://"), context=context, timeout=20)
        self.headers = dict(headers or {})

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def ask(self, verb: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request as it is."""
        self._connection.request(verb, f"/api2/json{path}", body, {**self.headers, **headers})
        answer = self._connection.getresponse()
        return Reply(answer.status, answer.reason, answer.read().decode())

    def send(self, verb: str, path: str, /, **parameters: Any) -> Reply:
        """One request with parameters; `_` in their names stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in parameters.items()}
        return self.form(verb, path, named)

    def form(self, verb: str, path: str, parameters: Mapping[str, Any]) -> Reply:
        """One request with parameters under their real names."""
        text = urllib.parse.urlencode(parameters, doseq=True)
        if verb in ("GET", "DELETE"):
            return self.ask(verb, f"{path}?{text}" if text else path)
        return self.ask(verb, path, text.encode(), **FORM)

    def get(self, path: str, /, **parameters: Any) -> Any:
        """The data of a GET that works."""
        return self._data(self.send("GET", path, **parameters))

    def post(self, path: str, /, **parameters: Any) -> Any:
        """The data of a POST that works."""
        return self._data(self.send("POST", path, **parameters))

    def put(self, path: str, /, **parameters: Any) -> Any:
        """The data of a PUT that works."""
        return self._data(self.send("PUT", path, **parameters))

    def delete(self, path: str, /, **parameters: Any) -> Any:
        """The data of a DELETE that works."""
        return self._data(self.send("DELETE", path, **parameters))

    @staticmethod
    def _data(reply: Reply) -> Any:
        assert reply.status == 200, (reply.status, reply.reason, reply.text)
        return reply.data

    def login(self, cookie: str, username: str, password: str) -> Api:
        """Use a ticket from now on."""
        data = self.post("/access/ticket", username=username, password=password)
        self.headers = {
            "Cookie": f"{cookie}={urllib.parse.quote(data['ticket'], safe='')}",
            "CSRFPreventionToken": data["CSRFPreventionToken"],
        }
        return self

    def fingerprint(self) -> str:
        """SHA-256 of the certificate that the server shows."""
        self._connection.connect()
        sock = self._connection.sock
        assert isinstance(sock, ssl.SSLSocket)
        digest = hashlib.sha256(sock.getpeercert(binary_form=True) or b"").hexdigest().upper()
        return ":".join(digest[i : i + 2] for i in range(0, 64, 2))


def root_of_cluster(url: str) -> Api:
    """root@pam with a ticket, on Proxmox VE."""
    return Api(url).login("PVEAuthCookie", "root@pam", "secret123")


def root_of_server(url: str) -> Api:
    """root@pam with a ticket, on Proxmox Backup Server."""
    return Api(url).login("PBSAuthCookie", "root@pam", "secret123")
