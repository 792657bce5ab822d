"""The API of a Proxmox VE cluster or of a Proxmox Backup Server.

One session for all requests; the reads of a round go out side by side. Several addresses of one cluster stand in for
each other. A request whose answer does not arrive may have had its effect: the engine looks again, nothing is sent
twice. What the API starts as a task is waited for, and its name (UPID) is told before the wait.

The logins (ticket, token) are proxmoxer's; what goes over the wire is read here, because a digest, the text of a
refusal and the difference between 595 and 500 decide what is done next.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from reconciler.connections import Reveal, no_secrets
from reconciler.errors import ConnectError, ConnectionLost, ContractError
from reconciler.model import CONFLICT, Get, Read, Reply, Request, Secret, Step, StepResult, Target, Work

if TYPE_CHECKING:
    import requests

PORTS: Final = {"PVE": 8006, "PBS": 8007}
CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 60.0
"""Writes wait for locks of the cluster for 10 s and more."""
SIDE_BY_SIDE: Final = 8
AGAIN_SECONDS: Final = 180.0
"""How long a request is repeated while an earlier object is on its way out: replication jobs go within a minute."""
LOG_LINES: Final = 5
"""Lines of a failed task's log that are shown."""
GATEWAY: Final = frozenset((595, 596, 599))
"""What a node answers in place of another one that it cannot reach."""
_CHANGED: Final = ("detected modified configuration", "checksum mismatch (file change by other user?)")


def connect(target: Target, reveal: Reveal = no_secrets) -> Proxmox:
    """The API of a cluster or a backup server. Settings are those of the kinds ProxmoxCluster and BackupServer."""
    return Proxmox(target.name, target.settings, reveal)


class Proxmox:
    """See the module.

    Args:
        name: the target, for messages.
        settings: `service` (PVE or PBS), `endpoints` (URLs), `user`, `token` and `secret`, or `password`;
            `fingerprint` or `ca`.
        reveal: looks up secrets.
        sleep: waits; replaced in tests.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        reveal: Callable[[Secret], str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._name, self._settings, self._reveal, self._sleep = name, settings, reveal, sleep
        port = PORTS[settings["service"]]
        self._endpoints = [
            url.rstrip("/") if urlsplit(url).port else f"{url.rstrip('/')}:{port}" for url in settings["endpoints"]
        ]
        self._session: requests.Session | None = None
        self._digests: dict[str, str] = {}

    # -------------------------------------------------------------------------------------------- the contract

    def read(self, reads: Sequence[Read]) -> list[Reply]:
        """See `Connection.read`. What is asked for twice in a round is fetched once."""
        wanted: dict[tuple[str, str], Get] = {}
        for one in reads:
            if not isinstance(one, Get):
                raise ContractError("a resource type", f"{self._name} answers GETs, not {one}.")
            wanted.setdefault(_key(one), one)
        if not wanted:
            return []
        self._open()
        with ThreadPoolExecutor(min(SIDE_BY_SIDE, len(wanted))) as executor:
            answers = dict(zip(wanted, executor.map(self._get, wanted.values()), strict=True))
        return [answers[_key(one)] for one in reads if isinstance(one, Get)]

    def execute(self, batch: Sequence[Work], reveal: Callable[[Secret], str]) -> Iterator[StepResult]:
        """See `Connection.execute`."""
        failed: set[str] = set()
        self._open()
        for work in batch:
            broken = any(address in failed for address in work.after)
            for index, step in enumerate(work.steps):
                if broken:
                    yield StepResult(work.address, index, None)
                    continue
                result = yield from self._step(work.address, index, step, reveal)
                broken = result.status != 0
                yield result
            if broken:
                failed.add(work.address)

    def settle(self, witnesses: Sequence[str]) -> None:
        """See `Connection.settle`. Witnesses are UPIDs."""
        self._open()
        for upid in witnesses:
            self._outcome(upid)

    def close(self) -> None:
        """See `Connection.close`."""
        if self._session is not None:
            self._session.close()
            self._session = None

    # -------------------------------------------------------------------------------------------- reads

    def _get(self, one: Get) -> Reply:
        status, text = self._send("GET", one.path, one.params)
        if status == 0:
            self._remember(one.path, text)
        return Reply(text, status)

    def _remember(self, path: str, text: str) -> None:
        """Keep the digest of what was seen: a write may only replace that."""
        if '"digest"' not in text:
            return
        answer = json.loads(text)
        held = answer.get("data")
        if isinstance(answer.get("digest"), str):
            self._digests[path] = answer["digest"]
        elif isinstance(held, dict) and isinstance(held.get("digest"), str):
            self._digests[path] = held["digest"]
        elif isinstance(held, list):
            # One file holds all objects of such a list.
            digests = {row["digest"] for row in held if isinstance(row, dict) and "digest" in row}
            if len(digests) == 1:
                self._digests[path] = digests.pop()

    def _digest(self, path: str) -> str | None:
        """The digest that the last look saw, or, after a write of ours, the one of now."""
        for known in (path, path.rpartition("/")[0]):
            if known in self._digests:
                return self._digests[known]
        status, text = self._send("GET", path, {})
        if status == 0:
            self._remember(path, text)
        return self._digests.get(path)

    # -------------------------------------------------------------------------------------------- steps

    def _step(
        self, address: str, index: int, step: Step, reveal: Callable[[Secret], str]
    ) -> Generator[StepResult, None, StepResult]:
        if not isinstance(step, Request):
            raise ContractError("a resource type", f"{self._name} takes requests, not `{step}`.")
        params = {name: _revealed(value, reveal) for name, value in step.params.items()}
        if step.digest_from and (digest := self._digest(step.digest_from)):
            params["digest"] = digest
        waited = 0.0
        while True:
            try:
                status, text = self._send(step.method, step.path, params, writes=True)
            except ConnectionLost as error:
                if step.keep is None:
                    raise
                # Looking again would find the object, and nobody would miss what it will never show again.
                words = (
                    f"{error} What was to be kept came with it: if the object is there now, remove it, and apply again."
                )
                return StepResult(address, index, 1, words)
            if not (step.again_while and step.again_while in text and status and waited < AGAIN_SECONDS):
                break
            self._sleep(1.0)
            waited += 1.0
        self._forget(step.path)
        if status:
            conflict = any(words in text for words in _CHANGED)
            return StepResult(address, index, CONFLICT if conflict else status, text)
        made = _data(text)
        if step.keep and isinstance(made, dict) and step.keep[0] in made:
            return StepResult(address, index, 0, kept=((step.keep[1], str(made[step.keep[0]])),))
        upid = made
        if isinstance(upid, str) and upid.startswith("UPID:"):
            yield StepResult(address, index, None, witness=upid)
            outcome = self._outcome(upid)
            if outcome:
                return StepResult(address, index, 1, outcome)
        return StepResult(address, index, 0)

    def _forget(self, path: str) -> None:
        """Our own write made other digests: one file holds many objects."""
        family = path.split("/")[1]
        for known in [k for k in self._digests if k.split("/")[1] == family]:
            del self._digests[known]

    def _outcome(self, upid: str) -> str:
        """Wait for a task to end; its error with the last lines of its log, or nothing where it ended well."""
        node = upid.split(":")[1]
        where = f"/nodes/{quote(node)}/tasks/{quote(upid, safe='')}"
        pause = 0.05
        while True:
            status, text = self._send("GET", f"{where}/status", {})
            if status in GATEWAY:
                raise ConnectionLost(f"{self._name}: what became of the task {upid} is not known: {text}")
            if status:
                return f"the task {upid} is not known any more: {text}"
            task = _data(text)
            if task.get("status") == "stopped":
                break
            self._sleep(pause)
            pause = min(pause * 1.5, 2.0)
        ending = str(task.get("exitstatus", ""))
        if ending == "OK" or ending.startswith("WARNINGS"):
            return ""
        # The first answer tells how long the log is, the second one has its end.
        _, text = self._send("GET", f"{where}/log", {"limit": LOG_LINES})
        total = _total(text)
        if total > LOG_LINES:
            _, text = self._send("GET", f"{where}/log", {"start": total - LOG_LINES, "limit": LOG_LINES})
        lines = [str(row.get("t", "")) for row in _data(text) or () if isinstance(row, dict)]
        return "\n".join([ending, *lines])

    # -------------------------------------------------------------------------------------------- the wire

    def _send(self, method: str, path: str, params: Mapping[str, Any], *, writes: bool = False) -> tuple[int, str]:
        """One request, to the first address that answers.

        Returns:
            0 and the body where it worked, else the HTTP status and the API's words. A status of `GATEWAY`: a node that
            a look is about cannot be reached, neither directly nor by way of another one.

        Raises:
            ConnectError: nobody answers.
            ConnectionLost: a write was sent, and what became of it is not known.
        """
        import requests

        assert self._session is not None
        in_query = method in ("GET", "DELETE")
        problems = []
        relayed = 0
        for endpoint in self._endpoints:
            try:
                answer = self._session.request(
                    method,
                    f"{endpoint}/api2/json{path}",
                    params=params if in_query else None,
                    data=None if in_query else params,
                    timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                )
            except requests.exceptions.SSLError as error:
                if not _about_trust(error):
                    problems.append(f"{_host(endpoint)}: {_why(error)}")
                    continue
                raise ConnectError(self._untrusted(endpoint, error)) from None
            except (requests.exceptions.ConnectTimeout, requests.exceptions.ConnectionError) as error:
                if writes and not _never_sent(error):
                    raise ConnectionLost(_lost(self._name, method, path)) from None
                problems.append(f"{_host(endpoint)}: {_why(error)}")
            except requests.exceptions.RequestException as error:
                if writes:
                    raise ConnectionLost(_lost(self._name, method, path)) from None
                problems.append(f"{_host(endpoint)}: {_why(error)}")
            else:
                if answer.status_code in GATEWAY:
                    words = f"{_host(endpoint)}: {answer.status_code} {answer.reason}"
                    if writes:
                        raise ConnectionLost(f"{_lost(self._name, method, path)} ({words})")
                    problems.append(words)
                    relayed = answer.status_code
                    continue
                self._prefer(endpoint)
                return self._judged(answer)
        if relayed:
            # The cluster is there; only what this one request is about is not.
            return relayed, "; ".join(problems)
        raise ConnectError(f"{self._name}: no address answers. {'; '.join(problems)}")

    def _prefer(self, endpoint: str) -> None:
        if self._endpoints[0] != endpoint:
            # A new list: other threads go through the one that they have.
            self._endpoints = [endpoint, *(one for one in self._endpoints if one != endpoint)]

    def _judged(self, answer: requests.Response) -> tuple[int, str]:
        if answer.ok:
            return 0, answer.text
        if answer.status_code == 401:
            raise ConnectError(
                f"{self._name}: the login of {self._settings['user']} is refused: {answer.reason}. Check the user, "
                "the token's name and its secret, and that neither is disabled or expired."
            )
        return answer.status_code, refusal(answer.reason or "", answer.text)

    def _untrusted(self, endpoint: str, error: Exception) -> str:
        pinned = self._settings.get("fingerprint")
        if pinned:
            return (
                f"{self._name}: the certificate of {_host(endpoint)} is not the pinned one. Pinned: "
                f"{colons(pinned)}. Presented: {colons(presented(endpoint))}. If the certificate was renewed on "
                "purpose, write the new fingerprint."
            )
        return (
            f"{self._name}: the certificate of {_host(endpoint)} is not trusted: {_why(error)}. Write `ca:` (the file "
            f"of the CA) or pin it with `fingerprint: {colons(presented(endpoint))}`, after comparing it on the "
            "server's console."
        )

    def _open(self) -> None:
        """Log in, once.

        Raises:
            ConnectError: nobody answers, or the login is refused.
        """
        if self._session is not None:
            return
        try:
            from proxmoxer.backends.https import ProxmoxHTTPApiTokenAuth, ProxmoxHttpSession
        except ImportError:
            fix = "Install it with: pip install 'reconciler[proxmox]'"
            raise ConnectError(f"{self._name}: the library for Proxmox is not installed. {fix}") from None
        session: requests.Session = ProxmoxHttpSession()
        verify: bool | str = True
        if self._settings.get("fingerprint"):
            session.mount("https://", _pinned(self._settings["fingerprint"]))
            verify = False  # the pin says more than any authority
        elif self._settings.get("ca"):
            verify = self._authority(self._settings["ca"])
        service, user = self._settings["service"], self._settings["user"]
        common = {"verify_ssl": verify, "timeout": ANSWER_SECONDS, "service": service}
        self._session = session
        if self._settings.get("token"):
            value = self._reveal(Secret(**self._settings["secret"]))
            session.auth = ProxmoxHTTPApiTokenAuth(user, self._settings["token"], value, **common)
        else:
            try:
                self._log_in(session, user, common)
            except BaseException:
                self._session = None
                raise

    def _authority(self, path: str) -> str:
        """The file of the CA.

        Raises:
            ConnectError: it is missing, or holds no certificate.
        """
        import ssl

        file = str(Path(path).expanduser())
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except OSError as error:  # also what is no PEM file
            why = (
                error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else "it holds no certificate"
            )
            raise ConnectError(
                f"{self._name}: the CA {path} cannot be used: {why}. Put the cluster's CA there as a PEM file; a node "
                "has it as /etc/pve/pve-root-ca.pem."
            ) from None
        return file

    def _log_in(self, session: requests.Session, user: str, common: Mapping[str, Any]) -> None:
        """By password, over the pinned session itself: proxmoxer's own login would go out without the pin."""
        from proxmoxer.backends.https import ProxmoxHTTPAuth, ProxmoxHTTPAuthBase

        this = self

        class Login(ProxmoxHTTPAuth):  # type: ignore[misc]
            pve_auth_ticket: str

            def _get_new_tokens(self, password: str | None = None, otp: Any = None, otptype: Any = None) -> None:
                # An empty login for this one request; a ticket that is still valid renews itself.
                session.auth = ProxmoxHTTPAuthBase(**common)
                word = self.pve_auth_ticket if password is None else password
                status, text = this._send("POST", "/access/ticket", {"username": user, "password": word})
                if status:
                    raise ConnectError(f"{this._name}: the login of {user} is refused: {text}")
                found = _data(text)
                if found.get("NeedTFA"):
                    raise ConnectError(f"{this._name}: {user} needs a second factor. Use an API token instead.")
                self.birth_time = time.monotonic()
                self.pve_auth_ticket = found["ticket"]
                self.csrf_prevention_token = found["CSRFPreventionToken"]
                session.auth = self

        Login(user, self._reveal(Secret(**self._settings["password"])), **common)


# ------------------------------------------------------------------------------------------------ small parts


def refusal(reason: str, body: str) -> str:
    """The API's words for a refusal: PVE's reason phrase and its errors by parameter, or PBS's plain text."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body.strip() or reason
    if not isinstance(answer, dict):
        return body.strip() or reason
    errors = answer.get("errors")
    words = str(answer.get("message") or reason).strip()
    if isinstance(errors, dict) and errors:
        return f"{words} " + "; ".join(f"{name}: {str(text).strip()}" for name, text in sorted(errors.items()))
    return words


def colons(fingerprint: str) -> str:
    """A SHA-256 fingerprint as Proxmox shows it: pairs of upper-case hex digits with colons."""
    plain = fingerprint.replace(":", "").upper()
    return ":".join(plain[i : i + 2] for i in range(0, len(plain), 2))


def presented(endpoint: str) -> str:
    """The SHA-256 fingerprint (hex) of the certificate that a server shows; nothing is trusted by that.

    Raises:
        ConnectError: it shows none.
    """
    import hashlib
    import socket
    import ssl

    parts = urlsplit(endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    where = (parts.hostname or "", parts.port or 443)
    try:
        with (
            socket.create_connection(where, CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as tls,
        ):
            return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
    except OSError as error:
        raise ConnectError(f"{_host(endpoint)} shows no certificate: {error}") from None


def _pinned(fingerprint: str) -> Any:
    from requests.adapters import HTTPAdapter

    class Pinned(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs, assert_fingerprint=fingerprint.replace(":", "").lower())

    return Pinned(pool_maxsize=SIDE_BY_SIDE)


def _revealed(value: Any, reveal: Callable[[Secret], str]) -> Any:
    if isinstance(value, Secret):
        return reveal(value)
    if isinstance(value, bool):
        return int(value)
    return value


def _data(text: str) -> Any:
    try:
        return json.loads(text)["data"]
    except (ValueError, KeyError, TypeError):
        return {}


def _total(text: str) -> int:
    """How many lines a log has, of which an answer shows some."""
    try:
        return int(json.loads(text)["total"])
    except (ValueError, KeyError, TypeError):
        return 0


def _key(one: Get) -> tuple[str, str]:
    return one.path, json.dumps(one.params, sort_keys=True)


def _host(endpoint: str) -> str:
    return urlsplit(endpoint).netloc


def _lost(name: str, method: str, path: str) -> str:
    return f"{name}: the answer to {method} {path} did not arrive."


def _never_sent(error: Exception) -> bool:
    """Whether the connection could not be made at all, so that a write cannot have had an effect."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    inner: Any = error.args[0] if error.args else None
    return isinstance(getattr(inner, "reason", inner), NewConnectionError | ConnectTimeoutError)


def _about_trust(error: Exception) -> bool:
    """Whether a certificate was seen and refused; else the connection broke while it was being made."""
    return bool(re.search("certificate|fingerprint", str(error), re.IGNORECASE))


def _why(error: Exception) -> str:
    """The innermost words of one of requests' errors."""
    inner: Any = error.args[0] if error.args else error
    inner = getattr(inner, "reason", inner)
    words = re.sub(r"^HTTPS?Connection(?:Pool)?\([^)]*\): ", "", str(inner))
    return words.rpartition(": ")[2].rstrip(")'\"") if "object at 0x" in words else words
