"""The web API of a Synology DSM: one session, one request at a time.

`Get` and `Request` name a method as `API/method` (`SYNO.Core.Share.Snapshot/list`) and give `version` among their
parameters. DSM answers 200 to everything; what it refuses carries a number, which becomes the reply's status.

The API is not documented by Synology, but for logins and errors (DSM Login Web API Guide). Everything goes in the body
of a POST, so that no session stands in a log of addresses; the session's token goes in a header.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import select
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from reconciler.connections import Reveal, no_secrets
from reconciler.errors import ConnectError, ConnectionLost, ContractError
from reconciler.model import Get, Read, Reply, Request, Secret, StepResult, Target, Work

SECONDS: Final = 60.0
AUTH: Final = "SYNO.API.Auth"
AUTH_VERSION: Final = 6
"""The first with the token against forged requests in DSM 7; 7 adds nothing that is used here."""
EXPIRED: Final = frozenset((106, 107, 119))
"""The session timed out, was replaced by another login, or is not known: log in again."""
ERRORS: Final = {
    100: "unknown error",
    101: "no such API, method or version in the request",
    102: "there is no such API on this DSM; is the package Snapshot Replication installed?",
    103: "there is no such method in this version of the API",
    104: "this version of the API does not exist here",
    105: "the login lacks the privilege; it has to be an administrator",
    106: "the session timed out",
    107: "another login took the session over",
    114: "a parameter is missing or has a wrong form",
    119: "the session is not valid",
    120: "a parameter has a wrong value",
}
LOGIN_ERRORS: Final = {
    400: "no such account, or a wrong password",
    401: "the account is disabled",
    402: "the account may not log in here",
    403: "the account needs a second factor. Use an account of its own without one, allowed from here only",
    404: "the second factor is wrong",
    406: "the account must set up a second factor first",
    407: "this address is blocked, after too many failed logins",
    408: "the password expired and cannot be changed here",
    409: "the password expired",
    410: "the password must be changed first",
}


def connect(target: Target, reveal: Reveal = no_secrets) -> Dsm:
    """The API of a DiskStation. Settings are those of the kind Synology."""
    return Dsm(target.name, target.settings, reveal)


class Dsm:
    """See the module.

    Args:
        name: the target, for messages.
        settings: `url` (https), `user`, `password` (a secret), and `fingerprint` or `ca`, if the system's own list of
            authorities is not what proves the server.
        reveal: looks up secrets.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], reveal: Callable[[Secret], str]) -> None:
        self._name, self._settings, self._reveal = name, settings, reveal
        self._connection: http.client.HTTPSConnection | None = None
        self._session: tuple[str, str] | None = None
        self._paths: dict[str, str] = {}
        self._lock = threading.RLock()

    # -------------------------------------------------------------------------------------------- the contract

    def read(self, reads: Sequence[Read]) -> list[Reply]:
        """See `Connection.read`. What is asked for twice in a round is fetched once."""
        answers: dict[str, Reply] = {}
        out = []
        for one in reads:
            if not isinstance(one, Get):
                raise ContractError("a resource type", f"{self._name} answers GETs, not {one}.")
            key = json.dumps([one.path, one.params], sort_keys=True)
            if key not in answers:
                status, data = self._ask(one.path, one.params, writes=False)
                answers[key] = Reply(json.dumps(data) if status == 0 else str(data), status)
            out.append(answers[key])
        return out

    def execute(self, batch: Sequence[Work], reveal: Callable[[Secret], str]) -> Iterator[StepResult]:
        """See `Connection.execute`."""
        failed: set[str] = set()
        for work in batch:
            broken = any(address in failed for address in work.after)
            for index, step in enumerate(work.steps):
                if not isinstance(step, Request):
                    raise ContractError("a resource type", f"{self._name} takes requests, not `{step}`.")
                if broken:
                    yield StepResult(work.address, index, None)
                    continue
                params = {k: reveal(v) if isinstance(v, Secret) else v for k, v in step.params.items()}
                status, data = self._ask(step.path, params, writes=True)
                broken = status != 0
                yield StepResult(work.address, index, status, str(data) if status else "")
            if broken:
                failed.add(work.address)

    def settle(self, witnesses: Sequence[str]) -> None:
        """See `Connection.settle`. A request ends with its answer, so that there is nothing to wait for."""

    def close(self) -> None:
        """See `Connection.close`. Logs out, so that DSM's list of sessions does not fill up."""
        with self._lock:
            if self._session is not None:
                with contextlib.suppress(ConnectError, ConnectionLost):
                    self._send(AUTH, self._paths[AUTH], {"version": AUTH_VERSION, "method": "logout"}, writes=False)
                self._session = None
            self._hang_up()

    # -------------------------------------------------------------------------------------------- requests

    def _ask(self, path: str, params: Mapping[str, Any], *, writes: bool) -> tuple[int, Any]:
        """One call: 0 and its data, or the error's number and words."""
        api, _, method = path.partition("/")
        fields = {"method": method} | {k: v if k == "version" else json.dumps(v) for k, v in params.items()}
        with self._lock:
            for again in (True, False):
                self._log_in()
                where = self._where(api)
                if where is None:
                    return 102, f"{api}: {ERRORS[102]}"
                answer = self._send(api, where, fields, writes=writes)
                if answer.get("success") is True:
                    return 0, answer.get("data", {})
                code = _code(answer)
                if code in EXPIRED and again:
                    # It was refused, so that nothing was done.
                    self._session = None
                    continue
                return code, f"{path}: DSM says {code}: {ERRORS.get(code, 'an error of this API')}"
        raise AssertionError("unreachable")

    def _where(self, api: str) -> str | None:
        """The path of an API on this DSM."""
        if api not in self._paths:
            answer = self._send(
                "SYNO.API.Info", "query.cgi", {"version": 1, "method": "query", "query": api}, writes=False
            )
            found = (answer.get("data") or {}).get(api) if answer.get("success") else None
            if not isinstance(found, Mapping) or not isinstance(found.get("path"), str):
                return None
            self._paths[api] = found["path"]
        return self._paths[api]

    def _log_in(self) -> None:
        """Once.

        Raises:
            ConnectError: the login is refused, or nobody answers.
        """
        if self._session is not None:
            return
        where = self._where(AUTH)
        if where is None:
            raise ConnectError(f"{self._name}: {self._settings['url']} is no DSM.")
        fields = {
            "version": AUTH_VERSION,
            "method": "login",
            "account": self._settings["user"],
            "passwd": self._reveal(Secret(**self._settings["password"])),
            "format": "sid",
            "enable_syno_token": "yes",
        }
        answer = self._send(AUTH, where, fields, writes=False)
        if answer.get("success") is not True:
            code = _code(answer)
            why = LOGIN_ERRORS.get(code) or ERRORS.get(code, "unknown error")
            raise ConnectError(f"{self._name}: the login of {self._settings['user']} is refused ({code}): {why}.")
        data = answer.get("data") or {}
        if not data.get("sid") or not data.get("synotoken"):
            raise ConnectError(f"{self._name}: DSM gave no session with a token. DSM 6.2 or newer is needed.")
        self._session = (str(data["sid"]), str(data["synotoken"]))

    def _send(self, api: str, where: str, fields: Mapping[str, Any], *, writes: bool) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            ConnectError: nobody answers, or the certificate is not the right one.
            ConnectionLost: a write was sent, and what became of it is not known.
        """
        form: dict[str, Any] = {"api": api, **fields}
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"}
        if self._session is not None:
            form["_sid"], headers["X-SYNO-TOKEN"] = self._session
        body = urlencode(form)
        used = self._connection is not None
        for again in (used and not writes, False):
            connection = self._dial()
            try:
                connection.request("POST", f"{self._base}/webapi/{where}", body, headers)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                if again:
                    continue  # an idle connection was closed meanwhile, and looking twice does no harm
                if writes:
                    raise ConnectionLost(f"{self._name}: the answer to {api} did not arrive: {error}") from None
                raise ConnectError(f"{self._name}: {self._settings['url']} does not answer: {error}") from None
            if answer.status != http.client.OK:
                raise ConnectError(f"{self._name}: {self._settings['url']} answers {answer.status} {answer.reason}.")
            try:
                found = json.loads(text)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise ConnectError(f"{self._name}: the answer to {api} is no JSON. Is {self._settings['url']} a DSM?")
            return found
        raise AssertionError("unreachable")

    # -------------------------------------------------------------------------------------------- the wire

    @property
    def _base(self) -> str:
        return urlsplit(str(self._settings["url"])).path.rstrip("/")

    def _dial(self) -> http.client.HTTPSConnection:
        """The connection, made and proved to lead to the right server before anything is said."""
        if self._connection is not None:
            if not _is_over(self._connection):
                return self._connection
            self._hang_up()
        parts = urlsplit(self._settings["url"])
        pinned, ca = self._settings.get("fingerprint"), self._settings.get("ca")
        try:
            context = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise ConnectError(f"{self._name}: the CA's file {ca} cannot be read: {error}") from None
        if pinned:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 5001, timeout=SECONDS, context=context
        )
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise ConnectError(
                f"{self._name}: the certificate of {parts.netloc} is not trusted: {error.verify_message}. Write `ca:` "
                "(the file of its CA), or pin it with `fingerprint:`, after comparing it in DSM's control panel."
            ) from None
        except OSError as error:
            raise ConnectError(f"{self._name}: {parts.netloc} does not answer: {error}") from None
        if pinned:
            assert isinstance(connection.sock, ssl.SSLSocket)
            shown = hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").hexdigest()
            if shown != pinned.replace(":", "").lower():
                connection.close()
                raise ConnectError(
                    f"{self._name}: the certificate of {parts.netloc} is not the pinned one. Pinned: "
                    f"{colons(pinned)}. Presented: {colons(shown)}. If it was renewed on purpose, write the new one."
                )
        self._connection = connection
        return connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _is_over(connection: http.client.HTTPSConnection) -> bool:
    """Whether the server has closed an idle connection. A write that is sent into one looks as if its answer had got
    lost."""
    if connection.sock is None:
        return True
    look = select.poll()
    look.register(connection.sock, select.POLLIN)
    # Between an answer and the next request nothing is to be read but the end.
    return bool(look.poll(0))


def colons(fingerprint: str) -> str:
    """A SHA-256 fingerprint as pairs of upper-case hex digits with colons."""
    plain = fingerprint.replace(":", "").upper()
    return ":".join(plain[i : i + 2] for i in range(0, len(plain), 2))


def _code(answer: Mapping[str, Any]) -> int:
    error = answer.get("error")
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) and code else 100
