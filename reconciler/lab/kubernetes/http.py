"""HTTP in front of the API server: one thread per connection, bearer tokens, optional TLS."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from reconciler.lab.kubernetes.api import BODY_LIMIT, ApiServer
from reconciler.lab.kubernetes.authorization import ANONYMOUS
from reconciler.lab.kubernetes.status import ApiError
from reconciler.lab.kubernetes.wire import Request, Response, warning_header

Log = Callable[[str, str, int], None]


@dataclass
class Failure:
    """What goes wrong with requests that match, `times` times: an answer with `status`, or none at all (0).

    `after`: the request is done, but the client is not told.
    """

    method: str
    path: re.Pattern[str]
    status: int = 503
    times: int = 1
    retry_after: int | None = None
    after: bool = False

    def response(self) -> Response:
        """The refusal as the server words it."""
        texts = {
            429: ("Too many requests, please try again later.", "TooManyRequests"),
            503: ("the server is currently unable to handle the request", "ServiceUnavailable"),
        }
        message, reason = texts.get(self.status, ("an error on the server has prevented the request", "InternalError"))
        details = {"retryAfterSeconds": self.retry_after} if self.retry_after is not None else None
        headers = {"retry-after": str(self.retry_after)} if self.retry_after is not None else {}
        return Response(self.status, ApiError(self.status, message, reason, details).body, headers=headers)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "emulator"
    disable_nagle_algorithm = True  # headers and body are two writes
    # Set by `listen` on a subclass.
    api: ClassVar[ApiServer]
    tokens: ClassVar[dict[str, str]]
    log_request_seen: ClassVar[Log]
    after: ClassVar[Callable[[], None]]
    failures: ClassVar[list[Failure]]

    def log_message(self, format: str, *args: Any) -> None:
        """Writes nothing to stderr: `KubernetesEmulator.log` has it all."""

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(min(length, 4 * BODY_LIMIT))
        if length > len(body):
            self.close_connection = True
        headers = {key.lower(): value for key, value in self.headers.items()}
        user = self._user(headers)
        if user is None:
            error = ApiError(401, "Unauthorized", "Unauthorized")
            self._send(Response(401, error.body))
            self._note(401)
            return
        failure = self._failure()
        if failure is not None and not failure.after:
            self._fail(failure)
            return
        response = self.api.answer(Request.of(self.command, self.path, headers, body, user))
        if failure is not None:
            type(self).after()
            self._fail(failure)
            return
        self._note(response.code)
        if response.stream is not None:
            self._stream(response)
        else:
            self._send(response)
            if self.command != "GET":
                type(self).after()

    def _failure(self) -> Failure | None:
        for one in self.failures:
            if one.times > 0 and self.command == one.method and one.path.search(self.path):
                one.times -= 1
                return one
        return None

    def _fail(self, failure: Failure) -> None:
        self._note(failure.status)
        if failure.status:
            self._send(failure.response())
            return
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _note(self, code: int) -> None:
        type(self).log_request_seen(self.command, self.path, code)

    def _user(self, headers: dict[str, str]) -> str | None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if not kind:
            return ANONYMOUS
        return self.tokens.get(token.strip()) if kind.lower() == "bearer" else None

    def _send(self, response: Response) -> None:
        if response.text is not None:
            raw = response.text.encode()
        else:
            raw = json.dumps(response.body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        self.send_response(response.code)
        self.send_header("content-type", response.content_type)
        self.send_header("content-length", str(len(raw)))
        for key, value in response.headers.items():
            self.send_header(key, value)
        for text in response.warnings:
            self.send_header("warning", warning_header(text))
        self.end_headers()
        self.wfile.write(raw)

    def _stream(self, response: Response) -> None:
        self.send_response(response.code)
        self.send_header("content-type", response.content_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        assert response.stream is not None
        try:
            for event in response.stream:
                raw = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
                self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_GET(self) -> None:
        """Any method is served alike."""
        try:
            self._serve()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in a TLS handshake is not worth a traceback."""


def listen(
    api: ApiServer,
    tokens: dict[str, str],
    log: Log,
    after: Callable[[], None],
    failures: list[Failure],
    port: int = 0,
    context: ssl.SSLContext | None = None,
) -> ThreadingHTTPServer:
    """Starts to serve on loopback in a thread of its own. `after` runs when a write has been answered."""
    members = {
        "api": api,
        "tokens": tokens,
        "log_request_seen": staticmethod(log),
        "after": staticmethod(after),
        "failures": failures,
    }
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), members))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.05,), name="kubernetes-emulator", daemon=True).start()
    return server
