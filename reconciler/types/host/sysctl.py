"""host.sysctl: a kernel parameter, now and at the next boot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from reconciler.fields import Rule
from reconciler.model import (
    IDENTITY,
    UNOBSERVABLE,
    Change,
    Probe,
    ResourceType,
    Risk,
    Script,
    Sh,
    Spec,
    State,
    Step,
)
from reconciler.probe import expect
from reconciler.types.host import printable

SysctlKey = Annotated[
    str,
    Rule(
        r"[a-z0-9_]+(?:\.[A-Za-z0-9_:@-]+(?:/[A-Za-z0-9_:@-]+)*)+",
        "the name of a kernel parameter with dots, such as net.ipv4.ip_forward; a dot in an interface's name as /",
        200,
    ),
]
SysctlValue = Annotated[str, Rule(r"[^\u0000-\u0008\u000a-\u001f\u007f\u0085\u2028\u2029]+", "one line of text", 1024)]


class Sysctl(Spec):
    """A kernel parameter, set at once and at every boot. White space between words does not matter."""

    key: Annotated[SysctlKey, IDENTITY]
    value: SysctlValue | None = Field(None, description="What the running kernel uses.")
    persisted: SysctlValue | None = Field(None, description="What is set at boot; the same by default.")

    @model_validator(mode="before")
    @classmethod
    def _at_boot_too(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("persisted") is None and fields.get("value"):
            return {**fields, "persisted": fields["value"]}
        return fields

    @property
    def file(self) -> str:
        """Where it is kept for the next boot."""
        return f"/etc/sysctl.d/90-reconciler-{self.key.replace('/', '+')}.conf"

    @property
    def kernel_file(self) -> str:
        """Where the kernel shows it. As for sysctl(8), `/` stands for a dot inside a word."""
        return "/proc/sys/" + self.key.translate({ord("."): "/", ord("/"): "."})


def probe(sysctls: Sequence[Sysctl]) -> Probe:
    """All running and all kept values in one grep."""
    (reply,) = yield [
        Script(
            'echo "${OFFLINE:-0} $ROOT"; [ -z "$ROOT" ] || for p; do set -- "$@" "$ROOT$p"; shift; done; '
            'grep -asH "" -- "$@"; exit 0',
            [path for s in sysctls for path in (s.file, s.kernel_file)],
        )
    ]
    first, *rows = expect(reply, "grep").split("\n")
    offline, _, root = first.partition(" ")
    known = {root + path: path for s in sysctls for path in (s.file, s.kernel_file)}
    text: dict[str, list[str]] = {}
    for row in rows:
        # A path may hold a colon, so it ends at the first one that makes it a path that we asked for.
        end = row.find(":")
        while end >= 0 and row[:end] not in known:
            end = row.find(":", end + 1)
        if end >= 0:
            text.setdefault(known[row[:end]], []).append(row[end + 1 :])
    return [_state(s, text, offline == "1") for s in sysctls]


def _state(sysctl: Sysctl, text: dict[str, list[str]], offline: bool) -> State | None:
    if sysctl.file not in text:
        return None
    kept = [
        value.strip()
        for name, equals, value in (row.partition("=") for row in text[sysctl.file])
        if equals and name.strip() == sysctl.key
    ]
    running = text.get(sysctl.kernel_file)
    return {
        "value": UNOBSERVABLE if offline else printable("\n".join(running)) if running else None,
        "persisted": printable(kept[-1]) if kept else None,
    }


def normalize(desired: State, observed: State) -> State:
    """The kernel writes tabs between words."""
    same = {
        name: observed[name]
        for name, value in desired.items()
        if isinstance(observed.get(name), str) and value.split() == observed[name].split()
    }
    return {**desired, **same} if same else desired


def steps(change: Change[Sysctl]) -> Iterable[Step]:
    """The kernel first: what it refuses is not kept either."""
    sysctl = change.spec
    if change.after is None:
        yield Sh(
            'rm -f -- "$ROOT$1"', (sysctl.file,), title=f"remove {sysctl.file} (the value stays until the next boot)"
        )
        return
    if sysctl.value and (change.before is None or "value" in change.changed):
        yield Sh(
            '[ "$OFFLINE" != 1 ] || exit 0\n'
            '[ -e "$1" ] || { echo "this kernel has no $1; is the module loaded?"; exit 1; }\n'
            'printf "%s\\n" "$2" >"$1"',
            (sysctl.kernel_file, sysctl.value),
            title=f"sysctl {sysctl.key}={sysctl.value}",
        )
    if sysctl.persisted and (change.before is None or "persisted" in change.changed):
        yield Sh(
            'inside "$1"\nmkdir -p -- "$ROOT${1%/*}"\nprintf "%s = %s\\n" "$2" "$3" | base64 | put "$1" 0644 root root',
            (sysctl.file, sysctl.key, sysctl.persisted),
            title=f"write {sysctl.file}",
        )


def risk(change: Change[Sysctl]) -> Risk | None:
    """Parameters that can cut a host off."""
    if (
        change.spec.key.startswith(("net.ipv4.ip_forward", "net.ipv6.conf.all.disable_ipv6"))
        and change.after is not None
    ):
        return Risk("downtime", "traffic that depends on this parameter stops if it is wrong")
    return None


TYPE = ResourceType(
    "host.sysctl",
    Sysctl,
    probe,
    steps,
    normalize=normalize,
    provides=lambda s: (f"path:{s.file}",),
    needs=lambda s: ("path:/etc/sysctl.d",),
    risk=risk,
)
