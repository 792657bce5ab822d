"""Replays recorded exchanges with a real API server against the emulator, over HTTP, and says what differs.

The format of the transcripts is told in `tests/fixtures/kubernetes/INDEX.md`.
"""

from __future__ import annotations

import copy
import http.client
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reconciler.lab.kubernetes import KubernetesEmulator, ManualClock
from reconciler.lab.kubernetes.kinds import route
from tests.kubernetes import certificates

FIXTURES = Path(__file__).parents[1] / "fixtures" / "kubernetes"
USERS = {name: f"{name}-token" for name in ("admin", "viewer", "limited")}
PLACEHOLDER = re.compile(
    r"<(uid|rv|listrv|otherrv|time|ip|nodePort|hash|rand|continue|cert|key|bundle|serial|keyid|signer|age|address|"
    r"gitCommit|buildDate|goVersion|compiler|platform)(?::(\d+))?>"
)
FORMS = {
    "uid": r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "rv": r"\d+",
    "listrv": r"\d+",
    "otherrv": r"\d+",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z",
    "ip": r"\d+\.\d+\.\d+\.\d+",
    "nodePort": r"\d+",
    "hash": r"[a-z0-9]+",
    "rand": r"[a-z0-9]+",
}
MAY_BE_EQUAL = {"listrv", "otherrv", "age", "time"}  # by chance; all others are different where their numbers are


@dataclass
class Bindings:
    """What placeholders stand for in one scenario."""

    values: dict[str, str] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)

    def bind(self, kind: str, token: str, value: str) -> str | None:
        """Binds or compares; gives back what is wrong."""
        known = self.values.get(token)
        if known is not None:
            return None if known == value else f"{token} is {known}, not {value}"
        if kind not in MAY_BE_EQUAL:
            owner = self.owners.setdefault((kind, value), token)
            if owner != token:
                return f"{token} has the value of {owner}: {value}"
        self.values[token] = value
        return None

    def fill(self, value: Any) -> Any:
        """A request with the values in their places. Raises KeyError for an unbound one."""
        if isinstance(value, dict):
            return {self.fill(key): self.fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if not isinstance(value, str):
            return value
        whole = PLACEHOLDER.fullmatch(value)
        if whole and whole[1] == "nodePort":
            return int(self.values[value])
        return PLACEHOLDER.sub(
            lambda match: "2024-01-01T00:00:00Z" if match[1] == "time" else self.values[match[0]], value
        )

    def copy(self) -> Bindings:
        """Bindings to try with."""
        return Bindings(dict(self.values), dict(self.owners))


def differences(expected: Any, actual: Any, bindings: Bindings, at: str = "") -> list[str]:
    """Where an answer is not the recorded one. Binds placeholders on the way."""
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return [f"{at}: expected a map, got {actual!r}"]
        wanted = {_key(key, actual, bindings): value for key, value in expected.items()}
        found = [f"{at}.{key}: missing (expected {value!r})" for key, value in wanted.items() if key not in actual]
        found += [f"{at}.{key}: unexpected {value!r}" for key, value in actual.items() if key not in wanted]
        for key, value in wanted.items():
            if key in actual:
                found += differences(value, actual[key], bindings, f"{at}.{key}")
        return found
    if isinstance(expected, list):
        if not isinstance(actual, list) or len(expected) != len(actual):
            return [f"{at}: expected {expected!r}, got {actual!r}"]
        return [
            text
            for index, (one, other) in enumerate(zip(expected, actual, strict=True))
            for text in differences(one, other, bindings, f"{at}[{index}]")
        ]
    if isinstance(expected, str) and PLACEHOLDER.search(expected):
        return _text_differences(expected, actual, bindings, at)
    if type(expected) is not type(actual) or expected != actual:
        return [f"{at}: expected {expected!r}, got {actual!r}"]
    return []


def _key(key: str, actual: dict[str, Any], bindings: Bindings) -> str:
    """A key with placeholders in it: filled in, or bound to the only key that fits."""
    if not PLACEHOLDER.search(key):
        return key
    try:
        return str(bindings.fill(key))
    except KeyError:
        for candidate in actual:
            if not _text_differences(key, candidate, bindings, ""):
                return candidate
        return key


def _text_differences(expected: str, actual: Any, bindings: Bindings, at: str) -> list[str]:
    if isinstance(actual, int) and not isinstance(actual, bool):
        actual = str(actual)
    if not isinstance(actual, str):
        return [f"{at}: expected {expected!r}, got {actual!r}"]
    pattern, tokens, end = "", [], 0
    for match in PLACEHOLDER.finditer(expected):
        pattern += re.escape(expected[end : match.start()]) + f"({FORMS.get(match[1], '.+?')})"
        tokens.append((match[1], match[0]))
        end = match.end()
    found = re.fullmatch(pattern + re.escape(expected[end:]), actual, re.DOTALL)
    if not found:
        return [f"{at}: expected {expected!r}, got {actual!r}"]
    problems = []
    for (kind, token), value in zip(tokens, found.groups(), strict=True):
        if ":" in token and (problem := bindings.bind(kind, token, value)):
            problems.append(f"{at}: {problem}")
    return problems


@dataclass
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, Any]
    raw: bytes

    @property
    def body(self) -> Any:
        """The body as JSON, or None."""
        try:
            return json.loads(self.raw)
        except ValueError:
            return None

    @property
    def lines(self) -> list[Any]:
        """A watch's events."""
        return [json.loads(line) for line in self.raw.splitlines() if line.strip()]


def server_for(transcript: dict[str, Any]) -> KubernetesEmulator:
    """A fresh emulator of the flavour that the scenario was recorded with."""
    flavour = transcript["server"]
    emulator = KubernetesEmulator(
        openshift=flavour == "openshift",
        controllers=flavour in ("controllers", "openshift"),
        router=False,
        kubelet=transcript["scenario"] == "rollout",
        users=USERS,
        clock=ManualClock(),
        revision=FIRST_REVISION.get(transcript["scenario"], 100),
    )
    if flavour == "plain-crd":
        code, body = emulator.call(
            "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", copy.deepcopy(route.DEFINITION)
        )
        assert code == 201, body
    return emulator


# One request of `patches` carries the recorded number of <rv:4> as it stands, so the numbers must be the recorded ones.
FIRST_REVISION = {"patches": 437}


class Replay:
    """One scenario against one emulator."""

    def __init__(self, scenario: str) -> None:
        self.transcript = json.loads((FIXTURES / f"{scenario}.json").read_text("utf-8"))
        self.bindings = Bindings()

    def run(self) -> dict[str, list[str]]:
        """Exchange ids -> what differs; equal ones are not in it."""
        found = {}
        with server_for(self.transcript) as emulator:
            self.emulator = emulator
            for exchange in self.transcript["exchanges"]:
                if problems := self._exchange(exchange):
                    found[exchange["id"]] = problems
        return found

    def _exchange(self, exchange: dict[str, Any]) -> list[str]:
        if exchange.get("before") == "compact_storage":
            self.emulator.compact()
        if exchange.get("before") == "rotate_ca":
            self.emulator.rotate_service_ca()
        self.emulator.settle(exchange.get("settle_seconds", 0))
        problems: list[str] = []
        for _ in range(200 if exchange.get("poll") else 1):
            trial = self.bindings.copy()
            try:
                answer = self._send(exchange["request"])
            except KeyError as error:
                return [f"{error} was never bound: the exchange that shows it differs"]
            problems = self._compare(exchange, answer, trial)
            if not problems:
                break
            if exchange.get("poll"):
                self.emulator.settle(0.1)
        if not exchange.get("poll") or not problems:
            self.bindings = trial
        self.emulator.settle()
        return problems

    def _send(self, request: dict[str, Any]) -> Answer:
        path = self.bindings.fill(request["path"])
        # A recorded watch ended after seconds; nothing happens in them, so here they are short.
        path = re.sub(r"timeoutSeconds=\d+", "timeoutSeconds=0.3", path)
        if "body_text" in request:
            raw = self.bindings.fill(request["body_text"]).replace("@PAD@", "x" * request.get("pad", 0)).encode()
        else:
            raw = json.dumps(self.bindings.fill(request["body"])).encode() if "body" in request else b""
        headers = {"user-agent": "transcript/1", "accept": "application/json", **request.get("headers", {})}
        who = request.get("as", "admin")
        if who != "none":
            headers["authorization"] = f"Bearer {USERS.get(who, 'no-such-token')}"
        connection = http.client.HTTPConnection(self.emulator.host, self.emulator.port, timeout=60)
        try:
            connection.request(request["method"], quote(path, safe="/?&=%:;,+!~*'()@$"), raw, headers)
            response = connection.getresponse()
            body = response.read()
            found: dict[str, Any] = {key.lower(): value for key, value in response.getheaders()}
            if warnings := response.headers.get_all("warning"):
                found["warning"] = warnings
            return Answer(response.status, found, body)
        finally:
            connection.close()

    def _compare(self, exchange: dict[str, Any], answer: Answer, bindings: Bindings) -> list[str]:
        recorded = exchange["response"]
        if answer.status != recorded["status"]:
            return [f"status {answer.status}, not {recorded['status']}: {answer.raw[:600]!r}"]
        if exchange.get("compare") == "status":
            self._bind_only(recorded, answer, bindings)
            return []
        wanted = recorded.get("headers", {})
        names = ("content-type", "warning", "allow", "location", "retry-after", "www-authenticate")
        given = {key: value for key, value in answer.headers.items() if key in names}
        found = differences(wanted, given, bindings, "headers")
        if "lines" in recorded:
            lines, events = recorded["lines"], answer.lines
            if exchange.get("compare") == "first-and-last-line":
                lines, events = [lines[0], lines[-1]], [*events[:1], *events[-1:]]
            return [*found, *differences(lines, events, bindings, "lines")]
        if "text" in recorded:
            return [*found, *differences(recorded["text"], answer.raw.decode(), bindings, "text")]
        if "body" not in recorded:
            return found
        body = trimmed(answer.body, exchange.get("trim", {}))
        found += differences(recorded["body"], body, bindings, "body")
        for path, described in exchange.get("described", {}).items():
            found += differences(described, certificates.describe(answer.body, path), bindings, path)
        return found

    def _bind_only(self, recorded: dict[str, Any], answer: Answer, bindings: Bindings) -> None:
        trial = bindings.copy()
        if "body" in recorded and not differences(recorded["body"], answer.body, trial):
            bindings.values, bindings.owners = trial.values, trial.owners


def trimmed(body: Any, trim: dict[str, Any]) -> Any:
    """An answer without what was left out of the recording."""
    if not trim or not isinstance(body, dict):
        return body
    body = copy.deepcopy(body)
    kind = body.get("kind")
    if kind == "APIGroupList":
        body["groups"] = [one for one in body["groups"] if one["name"] in trim["groups"]]
    elif kind == "APIResourceList":
        body["resources"] = [one for one in body["resources"] if one["name"].partition("/")[0] in trim["resources"]]
    elif kind == "APIGroupDiscoveryList":
        body["items"] = [one for one in body["items"] if one["metadata"].get("name", "") in trim["groups"]]
        for item in body["items"]:
            for version in item["versions"]:
                version["resources"] = [one for one in version["resources"] if one["resource"] in trim["resources"]]
    for path in trim.get("drop", []):
        here: Any = body
        for key in path[:-1]:
            here = here.get(key, {}) if isinstance(here, dict) else {}
        here.pop(path[-1], None)
    return body


if __name__ == "__main__":
    import sys

    for name in sys.argv[1:]:
        result = Replay(name).run()
        print(f"== {name}: {len(result)} differ")
        for key, problems in result.items():
            print(f"  {key}")
            for problem in problems[:6]:
                print("     ", problem[:700])
