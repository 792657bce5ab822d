"""The API of a Kubernetes cluster.

Logins, TLS and proxies are those of the `kubernetes` package, so that every kubeconfig works that works there; what
goes over the wire is written and read here, because warnings stand in headers that its clients hide, and because its
own cache of what a cluster serves is a file that everybody can write. One pool of connections, reads side by side;
what a cluster serves is asked once in a run.

A PATCH with a mapping is a server-side apply, one with a list a JSON patch. What stands under `stringData` of a Secret
goes out as `data`: the server would give the field to nobody. Where a certificate shall be issued there, it is issued
here, because only here the key of the CA may be known.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from reconciler.connections import Reveal, no_secrets
from reconciler.connections.issuing import issue
from reconciler.errors import ConnectError, ConnectionLost, ContractError, SecretError
from reconciler.model import CONFLICT, DryRun, Get, Read, Reply, Request, Secret, Step, StepResult, Target, Work
from reconciler.secrets import reveal_in
from reconciler.types.kubernetes.certificates import ISSUE

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 60.0
SIDE_BY_SIDE: Final = 8
AGAIN_SECONDS: Final = 120.0
"""How long a step is repeated while something before it takes effect: a definition, a deletion."""
NOT_SENT: Final = 1
"""The status of a dry run that was not sent, because a secret is not there."""
BUSY: Final = frozenset((429, 503))
BUSY_TRIES: Final = 5
NOT_SERVED: Final = "the server could not find the requested resource"
_CATALOGUE: Final = re.compile(r"/api(s|/v1|s/[^/]+/[^/]+)?")
"""Paths that tell what a cluster serves."""
_WARNING: Final = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_SHORTEST: Final = 4


def connect(target: Target, reveal: Reveal = no_secrets) -> Kubernetes:
    """The API of a cluster. Settings are those of the kind KubernetesCluster."""
    return Kubernetes(target.name, target.settings, reveal)


class Kubernetes:
    """See the module.

    Args:
        name: the target, for messages.
        settings: `kubeconfig` and `context`; or `inCluster`; or `server`, `token`, `ca`.
        reveal: looks up secrets: the token, and what stands in the bodies of dry runs.
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
        self._client: Any = None
        self._catalogue: dict[str, Reply] = {}
        self._shown: set[str] = set()
        self._lock = threading.RLock()

    # -------------------------------------------------------------------------------------------- the contract

    def read(self, reads: Sequence[Read]) -> list[Reply]:
        """See `Connection.read`. What is asked for twice in a round is fetched once."""
        wanted: dict[str, Get | DryRun] = {}
        for one in reads:
            if not isinstance(one, Get | DryRun):
                raise ContractError("a resource type", f"{self._name} answers GETs and dry runs, not {one}.")
            wanted.setdefault(repr(one), one)
        if not wanted:
            return []
        self._open()
        with ThreadPoolExecutor(min(SIDE_BY_SIDE, len(wanted))) as executor:
            answers = dict(zip(wanted, executor.map(self._look, wanted.values()), strict=True))
        return [answers[repr(one)] for one in reads]

    def execute(self, batch: Sequence[Work], reveal: Callable[[Secret], str]) -> Iterator[StepResult]:
        """See `Connection.execute`. What the server warns of is the output of a step."""
        failed: set[str] = set()
        self._open()
        for work in batch:
            broken = any(address in failed for address in work.after)
            for index, step in enumerate(work.steps):
                if broken:
                    yield StepResult(work.address, index, None)
                    continue
                result = self._step(work.address, index, step, reveal)
                broken = result.status != 0
                yield result
            if broken:
                failed.add(work.address)

    def settle(self, witnesses: Sequence[str]) -> None:
        """See `Connection.settle`. A request is done when it is answered, so there is nothing to wait for."""

    def close(self) -> None:
        """See `Connection.close`."""
        if self._client is not None:
            self._client.rest_client.pool_manager.clear()
            self._client = None

    # -------------------------------------------------------------------------------------------- reads

    def _look(self, one: Get | DryRun) -> Reply:
        if isinstance(one, DryRun):
            # Whatever a type forgot: a look changes nothing.
            try:
                body = self._prepared(one.body, self._reveal)
            except SecretError as error:
                return Reply(json.dumps({"message": str(error)}), NOT_SENT)
            status, text, warnings = self._send(one.method, one.path, {**one.params, "dryRun": "All"}, body)
            if warnings and status == 0:
                text = json.dumps({**json.loads(text), "warnings": warnings})
            return Reply(self._masked(text) if status else text, status)
        with self._lock:
            known = self._catalogue.get(one.path)
        if known is not None:
            return known
        status, text, _ = self._send("GET", one.path, one.params)
        reply = Reply(text, status)
        if status == 0 and _CATALOGUE.fullmatch(one.path):
            with self._lock:
                self._catalogue[one.path] = reply
        return reply

    # -------------------------------------------------------------------------------------------- steps

    def _step(self, address: str, index: int, step: Step, reveal: Callable[[Secret], str]) -> StepResult:
        if not isinstance(step, Request):
            raise ContractError("a resource type", f"{self._name} takes requests, not `{step}`.")
        body = self._prepared(step.body, reveal)
        waited = 0.0
        while True:
            status, text, warnings = self._send(step.method, step.path, step.params, body, writes=True)
            if not (status and step.again_while and step.again_while in text and waited < AGAIN_SECONDS):
                break
            self._sleep(0.25)
            waited += 0.25
        if "/customresourcedefinitions" in step.path:
            with self._lock:
                self._catalogue.clear()
        if status == 404 and step.method == "DELETE":
            return StepResult(address, index, 0, "it was gone already")
        if status:
            return StepResult(address, index, _judged(status, text), self._masked(message(text)))
        return StepResult(address, index, 0, self._masked("\n".join(f"warning: {one}" for one in warnings)))

    def _prepared(self, body: Any, reveal: Callable[[Secret], str]) -> Any:
        """A body as it goes out: secrets in place, `stringData` as `data`."""
        if body is None:
            return None

        def revealed(secret: Secret) -> str:
            value = reveal(secret)
            with self._lock:
                self._shown.update(_forms(value))
            return value

        plain = reveal_in(body, revealed)
        if isinstance(plain, dict) and isinstance(plain.get("stringData"), Mapping) and plain.get("kind") == "Secret":
            texts = plain.pop("stringData")
            if ISSUE in texts:
                texts = issue(**texts[ISSUE])
            encoded = {key: base64.b64encode(str(text).encode()).decode() for key, text in texts.items()}
            plain["data"] = {**(plain.get("data") or {}), **encoded}
        return plain

    def _masked(self, text: str) -> str:
        """What the server says about a body may quote it."""
        for form in sorted(self._shown, key=len, reverse=True):
            text = text.replace(form, "(secret)")
        return text

    # -------------------------------------------------------------------------------------------- the wire

    def _send(
        self, method: str, path: str, params: Mapping[str, Any], body: Any = None, *, writes: bool = False
    ) -> tuple[int, str, list[str]]:
        """One request.

        Returns:
            0 or the HTTP status where it was refused, the body, and what the server warns of.

        Raises:
            ConnectError: nobody answers, or the login is refused.
            ConnectionLost: a write was sent, and what became of it is not known.
        """
        import urllib3

        query = f"?{urlencode(params)}" if params else ""
        headers = {"Accept": "application/json", "User-Agent": "reconciler"}
        raw = None
        if body is not None:
            raw = json.dumps(body).encode()
            headers["Content-Type"] = _content_type(method, body)
        for left in reversed(range(BUSY_TRIES)):
            client = self._client
            try:
                answer = client.rest_client.pool_manager.request(
                    method,
                    f"{client.configuration.host}{path}{query}",
                    body=raw,
                    headers={**headers, **_login(client.configuration)},
                    timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
                    # A connection that the server closed meanwhile is no reason to fail a look.
                    retries=urllib3.Retry(0 if writes else 2, redirect=0, backoff_factor=0.1),
                )
            except urllib3.exceptions.HTTPError as error:
                if writes and not _never_sent(error):
                    raise ConnectionLost(f"{self._name}: the answer to {method} {path} did not arrive.") from None
                raise ConnectError(self._unreachable(error)) from None
            if answer.status in BUSY and left:
                self._sleep(_pause(answer))
                continue
            break
        if answer.status == 401:
            raise ConnectError(
                f"{self._name}: the login is refused (401 Unauthorized). The token or certificate is wrong or has "
                "expired; renew it, or name another context."
            )
        text = answer.data.decode("utf-8", "replace")
        if 200 <= answer.status < 300:
            return 0, text, _warnings(answer)
        if answer.status == 404 and text.startswith("404 page not found"):
            # A whole group of the API; the words for one kind of it are these, and both mean the same.
            text = json.dumps({"kind": "Status", "message": NOT_SERVED, "code": 404})
        return answer.status, text, _warnings(answer)

    def _unreachable(self, error: Exception) -> str:
        where = self._client.configuration.host
        words = _innermost(error)
        if "certificate" in words.lower() or "SSL" in words:
            return (
                f"{self._name}: {where} does not prove who it is: {words}. Name the cluster's CA (`ca:`, or "
                "certificate-authority in the kubeconfig)."
            )
        return f"{self._name}: {where} does not answer: {words}"

    def _open(self) -> None:
        with self._lock:
            if self._client is None:
                self._client = self._made()

    def _made(self) -> Any:
        try:
            from kubernetes import client, config
        except ImportError:
            raise ConnectError("The package for Kubernetes is missing. Install reconciler[kubernetes].") from None
        settings = self._settings
        made = client.Configuration()
        made.connection_pool_maxsize = SIDE_BY_SIDE
        try:
            if settings.get("server"):
                made.host = settings["server"].rstrip("/")
                made.api_key = {"authorization": f"Bearer {self._reveal(Secret(**settings['token']))}"}
                if settings.get("ca"):
                    made.ssl_ca_cert = str(Path(settings["ca"]).expanduser())
                    Path(made.ssl_ca_cert).read_bytes()
            elif settings.get("inCluster"):
                config.load_incluster_config(client_configuration=made)  # type: ignore[no-untyped-call]
            else:
                path = settings.get("kubeconfig")
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=str(Path(path).expanduser()) if path else None,
                    context=settings.get("context"),
                    client_configuration=made,
                    persist_config=False,
                )
            return client.ApiClient(made)
        except (config.ConfigException, OSError, ValueError, TypeError, KeyError) as error:
            raise ConnectError(f"{self._name}: the way to the cluster cannot be read: {error}") from None


# ------------------------------------------------------------------------------------------------ small parts


def message(text: str) -> str:
    """The words of a refusal: the message of a Status, or the body as it is."""
    try:
        answer = json.loads(text)
    except ValueError:
        return text.strip()[:500]
    return str(answer.get("message") or text) if isinstance(answer, dict) else text


def _judged(status: int, text: str) -> int:
    """What a refusal means to the engine: somebody was faster, or it will not work."""
    if status == 422 and "metadata.uid" in text:
        return CONFLICT
    if status == 409 and '"FieldManagerConflict"' in text:
        return 1
    return status


def _content_type(method: str, body: Any) -> str:
    if method != "PATCH":
        return "application/json"
    return "application/json-patch+json" if isinstance(body, list) else "application/apply-patch+yaml"


def _login(configuration: Any) -> dict[str, str]:
    """Headers; a token of an exec plugin is renewed by this."""
    found = configuration.auth_settings().values()
    return {one["key"]: one["value"] for one in found if one.get("in") == "header" and one.get("value")}


def _warnings(answer: BaseHTTPResponse) -> list[str]:
    """The texts of RFC 7234 warnings with code 299."""
    whole = ", ".join(answer.headers.getlist("Warning"))
    return [re.sub(r"\\(.)", r"\1", text) for text in _WARNING.findall(whole)]


def _pause(answer: BaseHTTPResponse) -> float:
    wanted = str(answer.headers.get("Retry-After") or "1")
    return min(float(wanted) if wanted.isdigit() else 1.0, 30.0)


def _forms(value: str) -> Iterator[str]:
    """How a secret may come back in a refusal."""
    if len(value) >= _SHORTEST:
        yield value
        yield json.dumps(value)[1:-1]
        yield base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()


def _never_sent(error: Exception) -> bool:
    """Whether the connection could not be made at all, so that a write cannot have had an effect."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, SSLError

    reason = getattr(error, "reason", error)
    return isinstance(reason, NewConnectionError | ConnectTimeoutError | SSLError)


def _innermost(error: Exception) -> str:
    """The last words of one of urllib3's errors."""
    inner: Any = getattr(error, "reason", None) or error
    words = str(inner)
    return words.rpartition(": ")[2].rstrip(")'\"") if "object at 0x" in words or "Connection" in words else words
