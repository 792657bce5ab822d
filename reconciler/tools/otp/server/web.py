"""The HTTP server: few words of HTTP, read by ourselves, so that every size and every wait has a limit.

One request per connection. At most `requests` connections are worked on; the others wait in the kernel's queue.
"""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from .ksm import KeyStorage, KsmError, UnknownPublicId
from .settings import Address
from .token import InvalidOtp
from .verification import Validator

LOG: Final = logging.getLogger("otp-server")
_LONGEST_REQUEST: Final = 8192
_MOST_PARAMETERS: Final = 20
_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Server Error"}

Reply = tuple[int, str]
Route = Callable[[Mapping[str, str], str], Reply]
"""Parameters and the address of whoever asks -> status and body."""


class BadRequest(Exception):
    """No HTTP request that we answer.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(_REASONS[status])


def verify_route(validator: Validator) -> Route:
    """Answers `/wsapi/2.0/verify`."""

    def route(parameters: Mapping[str, str], address: str) -> Reply:
        answer = validator.verify(parameters, address)
        why = f" ({answer.reason})" if answer.reason else ""
        LOG.info("verify client=%s key=%s from=%s %s%s", answer.client, answer.public_id, address, answer.status, why)
        return 200, answer.text

    return route


def decrypt_route(storage: KeyStorage) -> Route:
    """Answers `/wsapi/decrypt`, in the words of the old key storage module."""

    def route(parameters: Mapping[str, str], address: str) -> Reply:
        try:
            public_id, token = storage.decrypt(parameters.get("otp", ""))
        except UnknownPublicId:
            public_id, text = "-", "ERR Unknown public_id"
        except InvalidOtp:
            public_id, text = "-", "ERR Invalid OTP"
        except KsmError as error:
            LOG.error("decrypt: %s", error)
            public_id, text = "-", "ERR"
        else:
            text = f"OK counter={token.counter:04x} low={token.low:04x} high={token.high:02x} use={token.use:02x}"
        LOG.info("decrypt key=%s from=%s %s", public_id, address, text if text.startswith("ERR") else "OK")
        return 200, text + "\n"

    return route


class Server:
    """Listens, and answers until it is told to stop.

    Args:
        routes: per listening address, path -> route.
        requests: how many at once.
        seconds: how long one may take from the first byte to the last.

    Raises:
        OSError: an address cannot be listened on.
    """

    def __init__(
        self, routes: Sequence[tuple[Address, Mapping[str, Route]]], *, requests: int = 32, seconds: float = 10
    ) -> None:
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(requests)
        self._workers = ThreadPoolExecutor(requests, thread_name_prefix="request")
        self._stopping = False
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._sockets: dict[socket.socket, Mapping[str, Route]] = {}
        try:
            for address, paths in routes:
                self._sockets[_listen(address)] = paths
        except OSError:
            self._close()
            raise

    @property
    def ports(self) -> list[int]:
        """The ports, in the order of the routes."""
        return [int(s.getsockname()[1]) for s in self._sockets]

    def replace_routes(self, routes: Sequence[Mapping[str, Route]]) -> None:
        """Answer by other routes from now on: in the order of the first ones."""
        self._sockets = dict(zip(self._sockets, routes, strict=True))

    def run(self) -> None:
        """Answer until `stop` is called; requests that have begun are finished."""
        try:
            while self._accept_next():
                pass
        finally:
            self._close()
            self._workers.shutdown(wait=True)

    def stop(self) -> None:
        """End `run`. May be called from a signal handler or another thread, and more than once."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def wake_on_signals(self) -> None:
        """Let each signal end the waiting in `run`: one that another thread is interrupted by, or that comes just
        before the waiting begins, does not, and its handler would not be called before the next request."""
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    def _accept_next(self) -> bool:
        ready, _, _ = select.select([self._woken, *self._sockets], [], [])
        if self._woken in ready:
            ready.remove(self._woken)
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        if self._stopping:
            return False
        for listening in ready:
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, ConnectionError):
                continue
            except OSError as error:
                # Out of file descriptors or memory: the others must end first.
                LOG.error("cannot accept: %s", error.strerror)
                time.sleep(0.1)
                continue
            while not self._places.acquire(timeout=1):
                if self._stopping:
                    connection.close()
                    return False
            self._workers.submit(self._answer, connection, str(peer[0]), self._sockets[listening])
        return True

    def _answer(self, connection: socket.socket, address: str, routes: Mapping[str, Route]) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                deadline = time.monotonic() + self._seconds
                try:
                    method, path, parameters = parse_request(_receive(connection, deadline))
                    if path not in routes:
                        raise BadRequest(404)
                    if method != "GET":
                        raise BadRequest(405)
                    status, body = routes[path](parameters, address)
                except BadRequest as error:
                    status, body = error.status, f"{error}\n"
                except TimeoutError:
                    return
                except OSError:
                    return
                except Exception as error:
                    # Its text might hold what was sent.
                    LOG.error("a request failed: %s", type(error).__name__)
                    status, body = 500, "Server Error\n"
                connection.settimeout(max(0.1, deadline - time.monotonic()))
                connection.sendall(_response(status, body))
                _drain(connection, deadline)
        finally:
            self._places.release()

    def _close(self) -> None:
        for listening in self._sockets:
            listening.close()


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.create_server((address.host, address.port), family=family, backlog=128)
    listening.setblocking(False)
    return listening


def _receive(connection: socket.socket, deadline: float) -> bytes:
    """The head of a request. Whatever a body would be is not read.

    Raises:
        BadRequest: it is too long, or ends too early.
        TimeoutError: it takes too long.
    """
    head = bytearray()
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        block = connection.recv(4096)
        if not block:
            raise BadRequest(400)
        head += block
        if len(head) > _LONGEST_REQUEST:
            raise BadRequest(400)
    return bytes(head)


def _drain(connection: socket.socket, deadline: float) -> None:
    """Read a little of what was sent too much: a connection closed with unread input is reset, and the answer lost."""
    connection.shutdown(socket.SHUT_WR)
    for _ in range(16):
        connection.settimeout(max(0.01, min(0.5, deadline - time.monotonic())))
        if not connection.recv(4096):
            return


def parse_request(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, path and parameters of a request.

    Raises:
        BadRequest: it is no HTTP/1 request, or has a parameter twice or too many.
    """
    line = head.replace(b"\r\n", b"\n").partition(b"\n")[0]
    try:
        method, target, version = line.decode("ascii").split(" ")
        if version not in ("HTTP/1.0", "HTTP/1.1") or not target.isprintable():
            raise ValueError
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise BadRequest(400) from None
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise BadRequest(400)
    if "h" in parameters:
        # Base64 has no space: a client did not escape its plus sign.
        parameters["h"] = parameters["h"].replace(" ", "+")
    return method, parts.path, parameters


def _response(status: int, body: str) -> bytes:
    content = body.encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + content
