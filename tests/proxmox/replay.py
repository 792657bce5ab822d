"""Replays a recorded scenario against a simulated cluster and says where the answers differ.

A recorded body contains placeholders. Numbered ones (`<digest:2>`) stand for one value each within a scenario, and
different numbers for different values; the others stand for anything of their form. Lists of objects and the comma
lists `content`, `nodes`, `privs` are compared without order, task lists and logs with it.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from reconciler.lab.proxmox import REAL, ManualClock, PveSimulator
from reconciler.lab.proxmox.pve.state import empty_cluster

FIXTURES: Final = Path(__file__).parent.parent / "fixtures" / "proxmox"
SCENARIOS: Final = sorted(path.stem for path in FIXTURES.glob("[0-9]-*.json"))
ROOT_PASSWORD: Final = "secret123"
FORMS: Final = {
    "time": r"\d{9,11}",
    "datetime": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d",
    "duration": r"[\d.:]+",
    "pid": r"\d+",
    "pstart": r"\d+",
    "int": r"-?\d+",
    "number": r"-?\d+(?:\.\d+)?",
    "n": r"\d+",
    "version": r"\d+(?:\.\d+)*",
    "progress": r".+",
    "copy statistics": r".+",
    "rate": r".+",
    "resolver message": r".*",
    "base64": r"[A-Za-z0-9+/]+=*",
    "state": r".*",
    "digest": r"[0-9a-f]{40}",
    "upid": r"UPID:[^:]+:[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8}:[^:]+:[^:]*:[^:]+:",
    "uuid": r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "mac": r"BC:24:11(?::[0-9A-F]{2}){3}",
    "ticket": r"PVE:[^:]+:[0-9A-F]{8}::\S+",
    "csrf": r"[0-9A-F]{8}:\S+",
    "fingerprint": r"[0-9A-F]{2}(?::[0-9A-F]{2}){31}",
    "jobid": r"backup-[0-9a-f]{8}-[0-9a-f]{4}",
    "key-fingerprint": r"[0-9a-f]{2}(?::[0-9a-f]{2}){7,31}",
}
LOOSE: Final = frozenset({"ticket", "csrf", "key-fingerprint"})
"""Numbered placeholders whose numbers say nothing: they depend on the second, or come from another program."""
PLACEHOLDER: Final = re.compile(r"<([a-z0-9 -]+?)(?::(\d+))?>")
UNORDERED: Final = frozenset({"content", "nodes", "privs"})
DISKS: Final = re.compile(r"boot|digest|unused\d+|(ide|sata|scsi|virtio|efidisk).*")


class Bindings:
    """The values that stand for numbered placeholders."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._values = dict(known)

    def copy(self) -> Bindings:
        return Bindings(self._values)

    def take(self, other: Bindings) -> None:
        self._values = dict(other._values)

    def get(self, name: str) -> str | None:
        return self._values.get(name)

    def put(self, name: str, value: str) -> None:
        self._values[name] = value

    def bind(self, name: str, value: str) -> bool:
        """The value fits: it is the one that is bound, or new for a new name."""
        kind = name.partition(":")[0]
        if name in self._values and kind not in LOOSE:
            return self._values[name] == value
        if kind not in LOOSE and any(
            other.partition(":")[0] == kind and bound == value for other, bound in self._values.items()
        ):
            return False
        self._values.setdefault(name, value)
        return True


def expand(text: str) -> str:
    """`<5000 times x>` written out."""
    return text.replace("<5000 times x>", "x" * 5000)


def matches(expected: Any, actual: Any, bindings: Bindings, key: str = "", *, ordered: bool = False) -> str | None:
    """Where an answer differs from what was recorded, or None. Binds placeholders on the way."""
    if isinstance(expected, str):
        return _matches_text(expand(expected), actual, bindings, key)
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in expected:
            if name not in actual:
                return f"{key}.{name} is missing"
        for name in actual:
            if name not in expected:
                return f"{key}.{name} = {actual[name]!r} is too much"
        return next(
            (
                found
                for name, value in sorted(expected.items(), key=lambda item: item[0] != "upid")
                if (found := matches(value, actual[name], bindings, f"{key}.{name}", ordered=ordered))
            ),
            None,
        )
    if isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return f"{key}: {len(actual)} entries instead of {len(expected)}: {_short(actual)}"
        if ordered or not any(isinstance(item, dict) for item in expected):
            pairs = enumerate(zip(expected, actual, strict=True))
            return next(
                (f for i, (e, a) in pairs if (f := matches(e, a, bindings, f"{key}[{i}]", ordered=ordered))), None
            )
        return _matches_set(expected, list(actual), bindings, key)
    if type(expected) is type(actual) and expected == actual:
        return None
    return f"{key}: {_short(actual)} instead of {_short(expected)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 160 else text[:157] + "..."


def _matches_set(expected: list[Any], left: list[Any], bindings: Bindings, key: str) -> str | None:
    for number, item in enumerate(expected):
        closest = None
        for other in left:
            trial = bindings.copy()
            found = matches(item, other, trial, f"{key}[{number}]")
            if found is None:
                bindings.take(trial)
                left.remove(other)
                break
            closest = found if closest is None or len(found) < len(closest) else closest
        else:
            return f"{key}[{number}]: nothing like {_short(item)} (closest: {closest})"
    return None


def _matches_text(expected: str, actual: Any, bindings: Bindings, key: str) -> str | None:
    if isinstance(actual, bool) or not isinstance(actual, str | int | float):
        return f"{key}: {_short(actual)} instead of {_short(expected)}"
    whole = PLACEHOLDER.fullmatch(expected)
    if not isinstance(actual, str) and not (whole and whole[1] in FORMS):
        return f"{key}: {_short(actual)} instead of {_short(expected)}"
    name = key.rpartition(".")[2]
    if name in UNORDERED and "<" not in expected:
        same = sorted(expected.split(",")) == sorted(str(actual).split(","))
        return None if same else f"{key}: {_short(actual)} instead of {_short(expected)}"
    names: list[str] = []
    pattern = ""
    end = 0
    for found in PLACEHOLDER.finditer(expected):
        if found[1] not in FORMS:
            continue
        pattern += re.escape(expected[end : found.start()]) + f"({FORMS[found[1]]})"
        names.append(f"{found[1]}:{found[2]}" if found[2] else "")
        end = found.end()
    pattern += re.escape(expected[end:])
    match = re.fullmatch(pattern, str(actual), re.S)
    if not match:
        return f"{key}: {_short(actual)} instead of {_short(expected)}"
    for placeholder, value in zip(names, match.groups(), strict=True):
        if placeholder and not bindings.bind(placeholder, value):
            return f"{key}: {value} cannot be <{placeholder}>, which is {bindings.get(placeholder)}"
    return None


def shorten(body: Any, what: str | None, expected: Any) -> Any:
    """Cut an answer as the recorded one was cut."""
    if what is None or not isinstance(body, dict) or "data" not in body:
        return body
    data = body["data"]
    if isinstance(data, list):
        if "storages of type pbs" in what:
            data = [item for item in data if item["type"] == "pbs"]
        elif "only pbs1" in what:
            data = [item for item in data if item["storage"] == "pbs1"]
        elif "/vms/200" in what:
            data = [item for item in data if item["path"] == "/vms/200"]
        else:
            names = {item["roleid"] for item in expected["data"]}
            data = [item for item in data if item["roleid"] in names]
    elif "status and exitstatus" in what:
        data = {key: value for key, value in data.items() if key not in ("status", "exitstatus")}
    elif "net*" in what:
        data = {key: value for key, value in data.items() if key.startswith("net")}
    elif "disks and digest" in what:
        data = {key: value for key, value in data.items() if DISKS.fullmatch(key)}
    else:
        data = {key: data[key] for key in ("digest", "memory")}
    return {**body, "data": data}


class Client:
    """Sends recorded requests: as a user with a ticket, as a token, or as nobody."""

    def __init__(self, simulator: PveSimulator) -> None:
        self._simulator = simulator
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._context = context
        self._connections: dict[str, http.client.HTTPSConnection] = {}
        self.passwords = {"root@pam": ROOT_PASSWORD}
        self.tickets: dict[str, tuple[str, str]] = {}
        self.secrets: dict[str, str] = {}

    def send(
        self, node: str, verb: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, str, bytes]:
        """Status, reason phrase, body."""
        connection = self._connections.get(node)
        if connection is None:
            host = self._simulator.urls[node].removeprefix("https://")
            connection = self._connections[node] = http.client.HTTPSConnection(host, context=self._context, timeout=20)
        connection.request(verb, "/api2/json" + path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.reason, answer.read()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def credentials(self, who: str | None, verb: str) -> dict[str, str]:
        """The headers that say who asks."""
        if who is None:
            return {}
        if "!" in who:
            return {"Authorization": f"PVEAPIToken={who}={self.secrets[who]}"}
        if who not in self.tickets:
            form = urllib.parse.urlencode({"username": who, "password": self.passwords[who]}).encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            _, _, text = self.send("pve1", "POST", "/access/ticket", form, kind)
            data = json.loads(text)["data"]
            self.tickets[who] = (data["ticket"], data["CSRFPreventionToken"])
        ticket, csrf = self.tickets[who]
        headers = {"Cookie": f"PVEAuthCookie={urllib.parse.quote(ticket, safe='')}"}
        return headers if verb == "GET" else {**headers, "CSRFPreventionToken": csrf}

    def learn(self, exchange: Mapping[str, Any], body: Any) -> None:
        """Remember passwords and secrets that a recorded write made."""
        form = exchange.get("form") or {}
        if exchange["path"] == "/access/users" and "password" in form:
            self.passwords[form["userid"]] = form["password"]
        if (
            exchange["method"] == "POST"
            and "/token/" in exchange["path"]
            and isinstance(body, dict)
            and body.get("data")
        ):
            self.secrets.setdefault(body["data"]["full-tokenid"], body["data"]["value"])


class Replay:
    """One scenario: `differences()` yields (id of the exchange, what differs)."""

    def __init__(self, name: str) -> None:
        self.recorded = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
        self.clock = ManualClock()
        state, known = start_of(self.recorded)
        self.simulator = PveSimulator(state, clock=self.clock, pace=REAL)
        self.bindings = Bindings(known)
        self.client = Client(self.simulator)

    def fill(self, text: str) -> str:
        """A text of a request, with the values for its placeholders; unknown ones are made up."""

        def value(match: re.Match[str]) -> str:
            name = f"{match[1]}:{match[2]}"
            bound = self.bindings.get(name)
            if bound is None:
                bound = self._made_up(match[1], match[2], match[0])
                self.bindings.put(name, bound)
            return bound

        text = expand(text).replace("<wrong uuid>", "00000000-0000-0000-0000-000000000000")
        return PLACEHOLDER.sub(lambda match: value(match) if match[2] else match[0], text)

    def _made_up(self, kind: str, number: str, whole: str) -> str:
        if kind == "upid":
            form = self.recorded["placeholders"][whole]
            for part, text in {"<pid>": "0000AAAA", "<pstart>": "0000BBBB", "<starttime>": "60000000"}.items():
                form = form.replace(part, text)
            return str(form)
        return {
            "uuid": str(uuid.uuid4()),
            "fingerprint": ":".join([f"{int(number):02X}"] * 32),
            "ticket": "PVE:root@pam:00000000::AAAA",
            "jobid": "backup-12345678-abcd",
        }[kind]

    def differences(self) -> Iterator[tuple[str, str | None]]:
        """Each exchange with what differs, or None."""
        with self.simulator:
            try:
                for exchange in self.recorded["exchanges"]:
                    self._stage(exchange["id"])
                    yield exchange["id"], self._exchange(exchange)
            finally:
                self.client.close()

    def _stage(self, exchange: str) -> None:
        """What happens to the cluster between two exchanges."""
        if self.recorded["scenario"] != "quorum":
            return
        if exchange == "lost":
            self.clock.advance(30)
            self.simulator.stop_node("pve2")
        elif exchange == "back":
            self.simulator.start_node("pve2")

    def _exchange(self, exchange: Mapping[str, Any]) -> str | None:
        found: str | None = ""
        for _ in range(60 if "repeat_until" in exchange else 1):
            trial = self.bindings.copy()
            status, reason, text = self._send(exchange)
            found = self._compare(exchange, status, reason, text, trial)
            if found is None:
                self.bindings.take(trial)
                break
            self.clock.advance(3)
        else:
            self.bindings.take(trial)
        return found

    def _send(self, exchange: Mapping[str, Any]) -> tuple[int, str, bytes]:
        verb, path = exchange["method"], urllib.parse.quote(self.fill(exchange["path"]), safe="/?=&%:!@")
        body: bytes | None = None
        if "headers" in exchange:
            headers = {name: self.fill(value) for name, value in exchange["headers"].items()}
            if "Cookie" in headers and exchange.get("note") != "sent without percent-encoding":
                name, _, ticket = headers["Cookie"].partition("=")
                headers["Cookie"] = f"{name}={urllib.parse.quote(ticket, safe='')}"
        else:
            headers = self.client.credentials(exchange["as"], verb)
        if "query" in exchange:
            path += "?" + self._encoded(exchange["query"])
        if "form" in exchange:
            body = self._encoded(exchange["form"]).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif "raw_body" in exchange:
            body = exchange["raw_body"].encode()
            headers["Content-Type"] = exchange["content_type"]
        return self.client.send(exchange.get("sent_to", "pve1"), verb, path, body, headers)

    def _encoded(self, form: Mapping[str, Any]) -> str:
        pairs = [
            (name, self.fill(item))
            for name, value in form.items()
            for item in (value if isinstance(value, list) else [value])
        ]
        return urllib.parse.urlencode(pairs)

    def _compare(
        self, exchange: Mapping[str, Any], status: int, reason: str, text: bytes, bindings: Bindings
    ) -> str | None:
        if status != exchange["status"]:
            return f"status {status} {reason} instead of {exchange['status']} {exchange['reason']}"
        found = _matches_text(exchange["reason"], reason, bindings, "reason")
        if found or "body_text" in exchange:
            return found or _matches_text(exchange["body_text"], text.decode(), bindings, "body")
        body = json.loads(text)
        self.client.learn(exchange, body)
        body = shorten(body, exchange.get("body_shortened"), exchange["body"])
        ordered = "/tasks" in exchange["path"] or exchange["path"].endswith("/log")
        return matches(exchange["body"], body, bindings, ordered=ordered)


def start_of(recorded: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The state from which a scenario starts, and the placeholders that are known from it."""
    state = empty_cluster()
    known: dict[str, str] = {}
    if recorded["scenario"] == "storage":
        lower = next(e["form"]["fingerprint"] for e in recorded["exchanges"] if e["id"] == "pbs-add-lower")
        known["fingerprint:1"] = lower.upper()
        state["peers"]["10.99.0.1:8007"] = {
            "fingerprint": lower.upper(),
            "logins": {"sync@pbs": "sekrit", "sync@pbs!pve": "sekrit-token"},
            "datastores": ["ds1", "ds2"],
        }
    if recorded["scenario"] == "vm":
        disk = 64 << 20
        state["nodes"]["pve1"]["files"] = {
            "/var/lib/vms/import/disk.raw": {"size": disk},
            "/var/lib/vms/import/disk.vmdk": {"size": 204, "split": True},
            "/var/lib/vms/import/disk-flat.vmdk": {"size": disk},
            "/var/lib/staging/disk.raw": {"size": disk},
            "/var/lib/staging/disk.vmdk": {"size": 204, "split": True},
            "/var/lib/staging/disk-flat.vmdk": {"size": disk},
        }
    return state, known
