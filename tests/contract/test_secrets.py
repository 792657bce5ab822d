"""Law 8: a canary secret shows up in no output, plan, journal, event, exception or argument list, even on failure."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.model import Secret
from reconciler.planfile import to_text
from reconciler.registry import default
from reconciler.render.terminal import console, show_plan
from reconciler.secrets import Secrets
from tests.contract.laws import PLACES, Subject, image, laws
from tests.contract.tables import CANARY, ids, resource, table
from tests.contract.test_types import _takes

LINES = "canary-first-line-8a1\ncanary-second-line-9b2"
"""A secret of several lines: no line of it may show up either."""


def forms(secret: str) -> list[bytes]:
    """How a secret may show up: as it is, by line, in base64 at any offset, in hex, reversed, escaped for JSON."""
    out = [secret.encode(), *(line.encode() for line in secret.splitlines()), secret.encode().hex().encode()]
    out += [secret[::-1].encode(), json.dumps(secret)[1:-1].encode()]
    for offset in range(3):
        # The middle of it is the same wherever it stands in a longer text.
        whole = base64.b64encode(b"x" * offset + secret.encode()).rstrip(b"=")
        out.append(whole[4:-2])
    return out


def assert_nowhere(texts: Mapping[str, bytes | str], secret: str) -> None:
    for place, text in texts.items():
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        for form in forms(secret):
            assert form not in raw, f"{place} holds {form!r}"


def traces(subject: Subject, made: Any, result: Any) -> dict[str, bytes | str]:
    """Everything that a run leaves behind or shows."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        show_plan(made, default(), console())
    kept = {str(p): p.read_bytes() for p in subject.state.iterdir() if p.is_file()}
    return {
        "the plan": to_text(made),
        "the plan as a value": repr(made),
        "the terminal": shown.getvalue(),
        "the events": repr(subject.events),
        "the result": repr(result),
        **kept,
    }


def with_secrets(place: str, *, declared: bool = False) -> list[tuple[str, Mapping[str, Any]]]:
    """Law entries of types with a field that takes a secret, with each such field made one.

    Args:
        declared: only fields that the entry declares; an API takes others with other options only.
    """
    out: list[tuple[str, Mapping[str, Any]]] = []
    for name, entry in laws("laws", place):
        kind = default().type_of(name)
        for field, about in kind.spec.model_fields.items():
            alias = about.alias or field
            if not _takes(about.annotation) or (declared and alias not in entry["spec"]):
                continue
            spec = {**entry["spec"], alias: {"secretRef": "env:CANARY"}}
            try:
                kind.spec.model_validate(spec)
            except ValueError:
                continue
            # What takes secrets of one form only names it, for all of its fields or for each.
            form = entry.get("canary", "hash")
            form = form[alias] if isinstance(form, dict) else form
            out.append((name, {**entry, "name": f"{entry['name']}, {alias}", "spec": spec, "canary": form}))
    return out


OTHER = "$6$another$" + "y" * 86
ENTRIES, ON_HOSTS = with_secrets("image"), with_secrets("host")
ON_APIS = [(place, *law) for place in sorted(PLACES - {"image", "host"}) for law in with_secrets(place, declared=True)]
"""Tried where the laws of each place are tried, by `keep_quiet`."""
SECRETS = {
    "word": CANARY,
    "lines": LINES,
    "spaces": "canary with 'quotes' $(id) \\ and spaces",
    "hash": "$6$canary$" + "x" * 86,
}


@pytest.fixture(params=SECRETS)
def secret(request: pytest.FixtureRequest) -> str:
    return SECRETS[request.param]


def use(subject: Subject, secret: str) -> None:
    subject.secrets = Secrets(lambda: b"k" * 32, {"CANARY": secret})
    subject.events.clear()


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    one = image(tmp_path / "image", tmp_path / "state")
    yield one
    one.close()


@pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=ids(ENTRIES))
def test_on_an_image(name: str, entry: Mapping[str, Any], subject: Subject, secret: str) -> None:
    """Created, changed to another secret, changed back, failed."""
    kind = default().type_of(name)
    one = resource(kind, entry["spec"])
    use(subject, secret)
    if entry.get("setup"):
        subject.sh(entry["setup"])
    made = subject.plan(one)
    result = subject.apply(made)
    assert_nowhere(traces(subject, made, result), secret)
    use(subject, OTHER)
    made = subject.plan(one)
    result = subject.apply(made)
    assert_nowhere(traces(subject, made, result), OTHER)
    use(subject, secret)
    made = subject.plan(one)
    broken = replace(kind, steps=_failing(kind.steps))
    result = _apply_with(subject, made, broken)
    assert not result.ok
    assert_nowhere(traces(subject, made, result), secret)
    assert_nowhere(traces(subject, made, result), OTHER)


def keep_quiet(subject: Subject, name: str, entry: Mapping[str, Any], secret: str, other: str) -> None:
    """On an API: created with a secret, and changed to another one."""
    one = resource(default().type_of(name), entry["spec"])
    if entry.get("setup"):
        subject.sh(entry["setup"])
    for value in (secret, other):
        use(subject, value)
        made = subject.plan(one)
        result = subject.apply(made)
        assert result.ok, result.ended
        assert_nowhere(traces(subject, made, result), value)


def _failing(steps: Any) -> Callable[[Any], Any]:
    """The same steps, and then one that reads the secret, shows it in several forms and fails."""
    from reconciler.model import Sh

    loud = 's=$(cat); echo "$s"; echo "$s" >&2; printf %s "$s" | base64; printf \'x%s\' "$s" | base64 -w0; exit 3'

    def spelled(change: Any) -> Any:
        yield Sh(loud, stdin=Secret(secret_ref="env:CANARY"), title="a loud step")
        yield from steps(change)

    return spelled


def _apply_with(subject: Subject, made: Any, kind: Any) -> Any:
    from reconciler import apply as apply_stage
    from reconciler.registry import Registry

    subject.runs += 1
    registry = Registry.of([], [kind])
    means = apply_stage.Means(registry, subject.pool, subject.store, subject.secrets, subject.emit)
    return apply_stage.apply(made, f"run-{subject.runs}", means)


def test_every_type_that_takes_a_secret_takes_part() -> None:
    """Law 10: a type with a secret and no law entry would be left out in silence."""
    taking = {
        t.name
        for t in default().types.values()
        if t.steps and any(_takes(f.annotation) for f in t.spec.model_fields.values())
    }
    assert taking == {name for name, _ in ON_HOSTS} | {name for _, name, _ in ON_APIS}
    # What no image has can be tested on hosts only.
    assert taking & {name for name, _ in laws("laws", "image")} == {name for name, _ in ENTRIES}
    assert all(table("types", name) for name in taking)


def test_without_its_value_a_secret_fails_in_words(subject: Subject) -> None:
    one = resource(default().type_of("host.file"), {"path": "/etc/x", "content": {"secretRef": "env:NOT_THERE"}})
    subject.secrets = Secrets(lambda: b"k" * 32, {})
    subject.sh("mkdir -p $ROOT/etc")
    from reconciler.errors import SecretError

    with pytest.raises(
        SecretError, match=r"the secret env:NOT_THERE is not there. Set the environment variable NOT_THERE."
    ):
        subject.plan(one)


class Watcher:
    """Looks at every argument list and environment of a machine, again and again, while something happens."""

    def __init__(self, *secrets: str) -> None:
        self._forms = [form for secret in secrets for form in forms(secret)]
        self._stop = threading.Event()
        self.found: list[str] = []
        self.looks = 0
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        mine = {str(os.getpid())}
        while not self._stop.is_set():
            self.looks += 1
            for process in os.listdir("/proc"):
                if not process.isdecimal() or process in mine:
                    continue
                for what in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        text = Path(f"/proc/{process}/{what}").read_bytes()
                        self.found += [f"{process} {what}" for form in self._forms if form in text]
            time.sleep(0.001)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize(("name", "entry"), ENTRIES[:1], ids=ids(ENTRIES[:1]))
def test_the_watcher_sees(name: str, entry: Mapping[str, Any]) -> None:
    """Proof of the proof: a program that does carry the secret is caught."""
    with Watcher(CANARY) as watcher, subprocess.Popen(["sh", "-c", "sleep 5; :", CANARY]) as careless:
        deadline = time.monotonic() + 5
        while not watcher.found and time.monotonic() < deadline:
            time.sleep(0.01)
        careless.kill()
    assert watcher.found


@pytest.mark.lab
@pytest.mark.parametrize(("name", "entry"), ON_HOSTS, ids=ids(ON_HOSTS))
def test_on_a_real_host(name: str, entry: Mapping[str, Any], subject_host: Subject) -> None:
    """Its processes are seen from outside; its own journal and files are searched afterwards."""
    digest = hashlib.sha512(entry["name"].encode()).digest()
    secret = {  # passwords are hashes
        "hash": f"$6$canary${digest.hex()[:86]}",
        "hex": digest[:20].hex(),
        "hex6": digest[:6].hex(),
        "hex16": digest[:16].hex(),
        "base32": base64.b32encode(digest[:20]).decode(),
        "base64": base64.b64encode(digest[:20]).decode(),
    }[entry["canary"]]
    kind = default().type_of(name)
    one = resource(kind, entry["spec"])
    keep = subject_host.secrets
    try:
        use(subject_host, secret)
        if entry.get("setup"):
            # The laws may have set the same up on this host before.
            subject_host.sh(f"set +e\n{entry['setup']}\n:")
        with Watcher(secret) as watcher:
            made = subject_host.plan(one)
            result = subject_host.apply(made)
            assert result.ok, result.ended
            made_again = subject_host.plan(one)
            failed = _apply_with(
                subject_host, replace(made, changes=made.changes), replace(kind, steps=_failing(kind.steps))
            )
        assert watcher.looks > 1
        assert watcher.found == []
        assert made_again.empty
        assert_nowhere(traces(subject_host, made, result), secret)
        assert_nowhere(traces(subject_host, made, failed), secret)
        subject_host.sh(f"! journalctl --boot --output=cat | grep -F {secret!r}")
    finally:
        subject_host.settle(resource(kind, entry["spec"], absent=True))
        subject_host.secrets = keep


DOCUMENTS = """\
apiVersion: reconciler/v1
kind: Host
metadata: {{name: canary}}
spec:
  address: {address}
  user: root
  configFile: {configFile}
  identityFile: {identityFile}
  knownHosts: {knownHosts}
---
apiVersion: reconciler/v1
kind: File
metadata: {{name: canary}}
spec:
  hosts: [canary]
  path: /etc/canary-token
  mode: "0600"
  content: {{secretRef: canary/token}}
---
apiVersion: reconciler/v1
kind: File
metadata: {{name: canary-lines}}
spec:
  hosts: [canary]
  path: /etc/canary-lines
  mode: "0600"
  content: {{secretRef: canary/deep/lines}}
---
apiVersion: reconciler/v1
kind: User
metadata: {{name: canary}}
spec:
  hosts: [canary]
  password: {{secretRef: canary/hash}}
"""
CANARIES = {
    "canary/token": "canary with 'quotes' $(id) & \\ spaces",
    "canary/deep/lines": LINES,
    "canary/hash": "$6$canary$" + "s" * 86,
}


@pytest.mark.lab
def test_from_the_store_to_a_real_host(subject_host: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way by the command line: from a SOPS file of the repo to files and accounts, and what goes wrong."""
    from reconciler.secret_store import SecretStore
    from reconciler.sops import age, rules

    private, public = age.new_identity()
    identity = tmp_path / "identity.txt"
    identity.write_text(f"{private}\n")
    root = tmp_path / "repo/desired-state"
    (root / "secrets").mkdir(parents=True)
    (root / ".sops.yaml").write_text(rules.new_configuration(public))
    (root / "all.yaml").write_text(DOCUMENTS.format(**subject_host.target.settings))
    monkeypatch.chdir(root.parent)
    environ = {**os.environ, "SOPS_AGE_KEY_FILE": str(identity), "HOME": str(tmp_path)}
    SecretStore(root, environ).set(CANARIES)
    shown: dict[str, bytes | str] = {}

    def reconciler(*argv: str, status: int = 0, stdin: bytes = b"") -> None:
        command = [sys.executable, "-m", "reconciler.cli.main", *argv]
        done = subprocess.run(command, input=stdin, env=environ, capture_output=True, check=False)
        shown[f"{len(shown)}: {' '.join(argv)}"] = done.stdout + done.stderr
        assert done.returncode == status, (done.stdout + done.stderr).decode()

    with Watcher(*CANARIES.values(), private) as watcher:
        try:
            reconciler("validate")
            reconciler("plan", "--out", "plan.json", status=2)
            reconciler("apply", "plan.json", "--yes", "--output", "json")
            reconciler("plan")
            subject_host.sh("! grep -q canary-first /etc/canary-token; grep -q canary-first /etc/canary-lines")
            # Another value: the plan says so by its digest alone, and a step that fails shows nothing, either.
            reconciler("secrets", "set", "canary/token", "--force", stdin=b"another-canary-7Qx")
            reconciler("plan", "--output", "json", status=2)
            # Nothing can be renamed to a mount point.
            subject_host.sh("mount --bind /etc/canary-token /etc/canary-token")
            reconciler("apply", "--yes", status=1)
            subject_host.sh("umount /etc/canary-token")
            reconciler("apply", "--yes")
            subject_host.sh("grep -qx another-canary-7Qx /etc/canary-token")
            # Without an identity, and with a file that was tampered with.
            environ["SOPS_AGE_KEY_FILE"] = ""
            reconciler("plan", status=1)
            environ["SOPS_AGE_KEY_FILE"] = str(identity)
            file = root / "secrets/canary.sops.yaml"
            file.write_text(file.read_text().replace("token: ENC[AES256_GCM,data:", "token: ENC[AES256_GCM,data:AAAA"))
            reconciler("plan", status=1)
        finally:
            subject_host.sh(
                "umount /etc/canary-token || :; rm -f /etc/canary-token /etc/canary-lines; userdel canary || :"
            )
    assert any(b"(secret" in text for text in shown.values() if isinstance(text, bytes))
    kept = {str(p): p.read_bytes() for p in root.parent.rglob("*") if p.is_file()}
    assert {"plan.json", "state.db", "canary.sops.yaml"} <= {Path(name).name for name in kept}
    for secret in (*CANARIES.values(), private, "another-canary-7Qx"):
        assert_nowhere(shown | kept, secret)
        subject_host.sh(f"! journalctl --boot --output=cat | grep -F -e {shlex.quote(secret.splitlines()[0])}")
    assert watcher.looks > 1
    assert watcher.found == []
