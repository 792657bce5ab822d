"""HTTPS on loopback for simulators: requests, answers, certificates, faults. Nothing here knows an API.

A server is a `ThreadingHTTPServer` with keep-alive; the TLS handshake happens in the connection's own thread. An answer
may carry any status and any reason phrase, as the real servers put their errors there.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import ipaddress
import re
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

IDLE: Final = 75
"""Seconds that an idle connection is kept."""
LONGEST_BODY: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in: `path` without query, still percent-encoded; header names in lower case."""

    verb: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. `reason` is the reason phrase; None = the usual one."""

    status: int
    body: bytes = b""
    content_type: str | None = "application/json;charset=UTF-8"
    reason: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match. Made by `fail_request`."""

    verb: str | None
    path: re.Pattern[str]
    status: int | None
    text: str
    delay: float
    broken: str | None
    """`before` or `after` the effect: the connection is closed without an answer."""
    times: int


class Broken(Exception):
    """The connection is to be closed without an answer."""


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, PEM in one text."""

    pem: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate as the web interfaces show it: 32 pairs of upper-case hex digits."""
        return fingerprint(self.public)

    @property
    def public(self) -> str:
        """The certificate alone, PEM."""
        return self.pem[self.pem.index("-----BEGIN CERTIFICATE-----") :]


def fingerprint(pem: str) -> str:
    """SHA-256 of a certificate in PEM, as pairs of hex digits."""
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, 64, 2))


def self_signed(name: str) -> Certificate:
    """A new self-signed certificate for 127.0.0.1, localhost and `name`, valid for ten years."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.datetime(2025, 1, 1)
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today)
        .not_valid_after(today + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([*names, x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate((private + certificate.public_bytes(serialization.Encoding.PEM)).decode())


class Endpoint:
    """One HTTPS server on a port of 127.0.0.1. `answer` runs in the thread of the connection; it may raise Broken."""

    def __init__(self, answer: Callable[[Asked], Answer], certificate: Certificate, port: int = 0) -> None:
        self._answer = answer
        self._certificate = certificate
        self.port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """It listens."""
        return self._server is not None

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`. The port is known after the first start, and stays."""
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen. OSError: the port is taken."""
        if self._server is not None:
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(self._certificate.pem)
            file.flush()
            context.load_cert_chain(file.name)
        self._server = _Server(("127.0.0.1", self.port), self._answer, context)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve, name=f"simulator:{self.port}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        if self._server is None:
            return
        self._server.close()
        if self._thread is not None:
            self._thread.join(5)
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], answer: Callable[[Asked], Answer], context: ssl.SSLContext) -> None:
        super().__init__(address, _Handler)
        self.answer = answer
        self.context = context
        self.closing = False
        self.open: set[socket.socket] = set()
        self.lock = threading.Lock()

    def serve(self) -> None:
        """Accept until closed."""
        while not self.closing:
            self.handle_request()

    def close(self) -> None:
        self.closing = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.server_close()
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.lock:
            self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self.lock:
            self.open.discard(request)
        super().shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(IDLE)
        with contextlib.suppress(OSError):  # a client that goes away or dislikes the certificate is no news
            secure = self.context.wrap_socket(request, server_side=True)
            with self.lock:
                self.open.add(secure)
            try:
                super().finish_request(secure, client_address)
            finally:
                with self.lock:
                    self.open.discard(secure)
                with contextlib.suppress(OSError):
                    secure.unwrap()
                secure.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not self.closing:
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def answer_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > LONGEST_BODY:
            self.close_connection = True
            return
        body = self.rfile.read(length)
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            answer = self.server.answer(Asked(self.command, path, query, headers, body))
        except Broken:
            self.close_connection = True
            return
        self._send(answer)

    do_GET = answer_any  # noqa: N815 - the names are those that http.server looks for
    do_POST = answer_any  # noqa: N815
    do_PUT = answer_any  # noqa: N815
    do_DELETE = answer_any  # noqa: N815
    do_PATCH = answer_any  # noqa: N815
    do_HEAD = answer_any  # noqa: N815

    def _send(self, answer: Answer) -> None:
        reason = answer.reason if answer.reason is not None else self.responses.get(answer.status, ("", ""))[0]
        reason = reason.split("\n", 1)[0]
        lines = [f"HTTP/1.1 {answer.status} {reason}", f"Date: {self.date_time_string()}", "Cache-Control: max-age=0"]
        if answer.content_type:
            lines.append(f"Content-Type: {answer.content_type}")
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines.append(f"Content-Length: {len(answer.body)}")
        if self.close_connection:
            lines.append("Connection: close")
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("utf-8", "replace"))
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what was asked stands in the simulator's `requests`."""


class Faults:
    """The faults that wait for their request. Safe to use from several threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Wait for the next matching request."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Forget those that are left."""
        with self._lock:
            self._faults.clear()

    def take(self, verb: str, path: str) -> Fault | None:
        """The fault for this request, if any; it is used up once."""
        with self._lock:
            for fault in self._faults:
                if fault.verb in (None, verb) and fault.path.search(path):
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                    return fault
        return None

    @contextlib.contextmanager
    def around(self, verb: str, path: str) -> Iterator[Fault | None]:
        """What may go wrong with a request: its delay, a break before it or after it."""
        fault = self.take(verb, path)
        if fault is not None:
            if fault.delay:
                time.sleep(fault.delay)
            if fault.broken == "before":
                raise Broken
        yield fault
        if fault is not None and fault.broken == "after":
            raise Broken
