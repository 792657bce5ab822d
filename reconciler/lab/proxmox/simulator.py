"""What the simulators have in common: endpoints, clock, lock, faults, a record of what was asked."""

from __future__ import annotations

import copy
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from reconciler.lab.proxmox.clock import QUICK, Pace
from reconciler.lab.proxmox.wire import Answer, Asked, Certificate, Endpoint, Fault, Faults, self_signed
from reconciler.lab.proxmox.world import State, Tasks


@dataclass(frozen=True, slots=True)
class Request:
    """One request that reached the API, for tests. `status` 0: the connection was broken."""

    node: str
    verb: str
    path: str
    parameters: Mapping[str, Any]
    status: int


class Simulator:
    """Endpoints on loopback in front of a state. One request at a time.

    `requests`: what was asked.
    """

    def __init__(self, clock: Callable[[], float] | None, pace: Pace | None) -> None:
        self.clock = clock or time.time
        self.pace = pace or QUICK
        self.requests: list[Request] = []
        self._lock = threading.RLock()
        self._faults = Faults()
        self._endpoints: dict[str, Endpoint] = {}
        self._certificates: dict[str, Certificate] = {}
        self._last: tuple[str, Mapping[str, Any]] = ("", {})

    @property
    def world(self) -> Tasks:
        """What is behind the API."""
        raise NotImplementedError

    @property
    def crashes(self) -> list[BaseException]:
        """Exceptions of the simulator itself, which should never happen; answer or task said so."""
        return self.world.crashes

    @property
    def state(self) -> State:
        """The live state. Change it inside `edit()` only."""
        return self.world.state

    def _answer(self, name: str, asked: Asked) -> Answer:
        raise NotImplementedError

    def _advance(self) -> None:
        """Let happen what should have happened by now."""

    def _prepare(self, nodes: Mapping[str, dict[str, Any]], pems: dict[str, str]) -> None:
        """Make an endpoint for each node; certificates that are in the state already are used again."""
        for name, entry in nodes.items():
            if name not in pems:
                pems[name] = self_signed(name).pem
            certificate = self._certificates[name] = Certificate(pems[name])
            entry["fingerprint"] = certificate.fingerprint
            self._endpoints[name] = Endpoint(self._answering(name), certificate, int(entry.get("port", 0)))

    def _answering(self, name: str) -> Callable[[Asked], Answer]:
        def answer(asked: Asked) -> Answer:
            path = asked.path.removeprefix("/api2/json")
            with self._faults.around(asked.verb, path) as fault:
                if fault is not None and fault.status is not None:
                    return Answer(fault.status, b"", None, fault.text)
                with self._lock:
                    self._last = (path, {})
                    self._advance()
                    try:
                        found = self._answer(name, asked)
                    except Exception as error:
                        self.world.crashes.append(error)
                        text = f"the simulator is at fault: {type(error).__name__}: {error}"
                        found = Answer(500, text.encode(), "text/plain", text)
                    self.requests.append(Request(name, asked.verb, self._last[0], self._last[1], found.status))
            return found

        return answer

    def _log(self, verb: str, path: str, given: Mapping[str, Any]) -> None:
        self._last = (path, dict(given))

    # life

    def start(self) -> Self:
        """Listen on all endpoints of nodes that are up."""
        for name, endpoint in self._endpoints.items():
            if self._up(name):
                endpoint.start()
                self._remember(name, endpoint.port)
        return self

    def _up(self, name: str) -> bool:
        return True

    def _remember(self, name: str, port: int) -> None:
        """Keep the port, so that a later start finds the same."""

    def stop(self) -> None:
        """Stop listening."""
        for endpoint in self._endpoints.values():
            endpoint.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # where

    @property
    def urls(self) -> dict[str, str]:
        """`https://127.0.0.1:PORT` by node."""
        return {name: endpoint.url for name, endpoint in self._endpoints.items()}

    @property
    def url(self) -> str:
        """The first endpoint."""
        return next(iter(self.urls.values()))

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the certificates, 32 pairs of hex digits, by node."""
        return {name: certificate.fingerprint for name, certificate in self._certificates.items()}

    @property
    def fingerprint(self) -> str:
        """The first endpoint's fingerprint."""
        return next(iter(self.fingerprints.values()))

    @property
    def certificates(self) -> dict[str, str]:
        """The certificates, PEM, by node. Each is its own CA."""
        return {name: certificate.public for name, certificate in self._certificates.items()}

    # state

    def snapshot(self) -> dict[str, Any]:
        """Everything, as JSON."""
        with self._lock:
            self._advance()
            return copy.deepcopy(self.state)

    @contextmanager
    def edit(self) -> Iterator[dict[str, Any]]:
        """The live state, to change it behind everybody's back."""
        with self._lock:
            self._advance()
            yield self.state

    def settle(self) -> None:
        """Let happen what should have happened by now, without a request."""
        with self._lock:
            self._advance()

    # faults

    def fail_request(
        self,
        verb: str | None,
        path: str,
        *,
        status: int | None = None,
        text: str = "",
        delay: float = 0.0,
        broken: str | None = None,
        times: int = 1,
    ) -> None:
        """Let the next requests fail whose path (below /api2/json) matches the regular expression `path`.

        `status` and `text`: another answer, without effect (`status=599, text="..."`). `delay`: seconds before the
        request is looked at. `broken`: "before" or "after" the effect the connection is closed without an answer.
        """
        if broken not in (None, "before", "after"):
            raise ValueError("broken is 'before' or 'after'")
        self._faults.add(Fault(verb, re.compile(path), status, text, delay, broken, times))

    def fail_task(
        self, kind: str | None, text: str, item: str | None = None, *, times: int = 1, log: tuple[str, ...] = ()
    ) -> None:
        """The next tasks of a type (`qmcreate`; None: any), perhaps of one item, end with this error."""
        with self._lock:
            entry = {"type": kind, "id": item, "text": text, "times": times, "log": list(log)}
            self.world.failing_tasks.append(entry)

    def forget_faults(self) -> None:
        """Drop the faults that are left."""
        self._faults.clear()


def asked_paths(requests: Iterable[Request]) -> list[str]:
    """`METHOD /path` of requests, for tests."""
    return [f"{request.verb} {request.path}" for request in requests]
