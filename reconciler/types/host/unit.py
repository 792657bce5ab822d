"""host.unit: whether a systemd unit is enabled, runs, and has started since its files changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.fields import AbsolutePath, Rule
from reconciler.model import (
    CONTROL,
    IDENTITY,
    UNOBSERVABLE,
    Change,
    Keep,
    Probe,
    Readiness,
    Reply,
    ResourceType,
    Risk,
    Script,
    Sh,
    Spec,
    State,
    Step,
)
from reconciler.probe import expect
from reconciler.types.host import parse_meta

UnitInstance = Annotated[
    str,
    Rule(
        r"(?!@)(?!.*@\.)[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*"
        r"\.(?:service|socket|timer|path|mount|automount|swap|target|slice)",
        "the full name of a unit, such as nginx.service; of a template an instance, such as getty@tty7.service",
        255,
    ),
]
"""`reconciler.fields.UnitName` without templates, which cannot be enabled or run by themselves."""


class Unit(Spec):
    """What a systemd unit does: starts at boot, runs, is masked.

    The object is what the unit does, not its file. It is absent where nothing is true of what is declared as true, so
    an object that goes leaves the software in place: what we enabled is disabled, what we started is stopped, what
    we masked is unmasked. A unit that was enabled, running or masked before us is left as it is.
    """

    unit: Annotated[UnitInstance, IDENTITY]
    enabled: bool | None = Field(None, description="Starts at boot.")
    masked: bool | None = Field(None, description="Cannot be started by anything.")
    running: bool | None = Field(None, description="Runs now.")
    watch: Annotated[tuple[AbsolutePath, ...], CONTROL] = Field(
        (),
        description="Files that it reads when it starts, or reloads. Name each: a folder does not stand for its files.",
    )
    on_change: Annotated[Literal["restart", "reload", "none"], CONTROL] = Field(
        "restart", description="What to do when one of them has changed and the unit runs."
    )
    after: Annotated[tuple[str, ...], CONTROL] = Field(
        (), description="Tokens of what its files speak of and what therefore comes first, such as `user:www`."
    )
    fresh: Literal[True] | None = Field(
        default_factory=lambda fields: True if fields.get("watch") and fields.get("on_change") != "none" else None,
        description="It has started, or reloaded, since the last change of `watch`. Follows from `watch`.",
    )


# ---------------------------------------------------------------------------------------------- probe

# The state of the unit file comes from `is-enabled`, which looks at the disk; `show` would tell what systemd
# remembers. Old versions of `is-enabled` stop at the first unit that they do not find.
_SHOW: Final = """\
command -v systemctl >/dev/null || { echo "there is no systemctl: not a systemd host"; exit 1; }
files=
[ -n "$OFFLINE" ] || files=$(systemctl is-enabled -- "$@")
[ "$(printf '%s\\n' "$files" | wc -l)" = $# ] && [ -n "$files" ] ||
    files=$(for u; do f=$(systemctl is-enabled -- "$u" | head -n 1); printf '%s\\n' "${f:-not-found}"; done)
printf '%s\\n' "$files"
[ -n "$OFFLINE" ] || { echo; systemctl show --timestamp=us+utc -p "$PROPERTIES" -- "$@" 2>&1; }
"""
_PROPERTIES: Final = (
    "Id,LoadState,ActiveState,SubState,Type,RemainAfterExit,UnitFileState,NeedDaemonReload,WantedBy,RequiredBy,"
    "ActiveEnterTimestamp,InactiveExitTimestamp,ExecMainStartTimestamp,StateChangeTimestamp"
)
_RUNNING: Final = frozenset({"active", "reloading", "refreshing", "activating"})
_MISSING: Final = {"LoadState": "not-found", "ActiveState": "inactive"}


def probe(units: Sequence[Unit]) -> Probe:
    """One `systemctl is-enabled`, one `systemctl show`, one `stat` for all."""
    names = [u.unit for u in units]
    paths = sorted({path for u in units if u.fresh for path in u.watch})
    reads = [Script(f"PROPERTIES={_PROPERTIES}\n{_SHOW}", names)]
    (shown, *metas) = yield [*reads, Script('meta "$@"', paths)] if paths else reads
    lines = expect(shown, "systemctl").split("\n")
    files, rest = lines[: len(units)], lines[len(units) :]
    offline = not any(rest)
    blocks = "\n".join(rest).strip().split("\n\n") if not offline else [""] * len(units)
    if len(files) != len(units) or len(blocks) != len(units):
        expect(Reply(shown.text, 1), "systemctl show")
    changed = {path: meta.changed for path, meta in parse_meta(expect(metas[0], "stat") if metas else "").items()}
    states = []
    for unit, file, block in zip(units, files, blocks, strict=True):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        states.append(_offline(unit, file) if offline else _live(unit, file, properties, changed))
    return states


def _offline(unit: Unit, file: str) -> State | None:
    state = {
        "enabled": _enabled(unit, file, {}),
        "masked": _masked(file),
        "running": UNOBSERVABLE,
        "fresh": UNOBSERVABLE,
    }
    return _present(unit, state)


def _live(unit: Unit, file: str, properties: Mapping[str, str], changed: Mapping[str, float]) -> State | None:
    active = properties["ActiveState"]
    running = active in _RUNNING
    state: dict[str, Any] = {
        "enabled": _enabled(unit, file, properties),
        "masked": _masked(file),
        "running": running,
        "fresh": True,
        "activeState": active if unit.running else "",
    }
    if unit.fresh:
        state["fresh"] = properties["NeedDaemonReload"] != "yes" and (
            not running or _since(unit, properties) >= max((changed.get(p, 0.0) for p in unit.watch), default=0.0)
        )
    return _present(unit, state)


def _present(unit: Unit, state: dict[str, Any]) -> State | None:
    """`None` where nothing is true of what is declared as true."""
    claims = [n for n in ("enabled", "masked", "running") if getattr(unit, n) and state[n] is not UNOBSERVABLE]
    return state if not claims or any(state[n] is not False for n in claims) else None


def _enabled(unit: Unit, file: str, properties: Mapping[str, str]) -> bool | str:
    """Whether it starts at boot, or the word for why that cannot be said of it."""
    if file == "alias":
        file = properties.get("UnitFileState") or "enabled"
    if file == "enabled":
        return True
    if file == "generated" and (properties.get("WantedBy") or properties.get("RequiredBy")):
        return True
    if file in ("static", "generated", "transient", "indirect") and unit.enabled:
        return file
    return False


def _masked(file: str) -> bool | str:
    return "until the next boot" if file == "masked-runtime" else file == "masked"


def _since(unit: Unit, properties: Mapping[str, str]) -> float:
    """When it read its files for the last time, in seconds since the epoch."""
    started = _seconds(properties.get("ExecMainStartTimestamp", "")) or _seconds(properties["ActiveEnterTimestamp"])
    if properties["ActiveState"] == "activating":
        # It is at its ExecStartPre: what comes after that reads the files as they are now.
        started = max(started, _seconds(properties.get("InactiveExitTimestamp", "")))
    if unit.on_change == "reload":
        return max(started, _seconds(properties["StateChangeTimestamp"]))
    return started


def _seconds(timestamp: str) -> float:
    """`Sun 2026-11-22 06:58:57.634216 UTC` in seconds since the epoch; 0 for never."""
    if not timestamp or timestamp == "n/a":
        return 0.0
    _, _, moment = timestamp.removesuffix(" UTC").partition(" ")
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


def ready(state: State) -> Readiness:
    """Whether it is up, still coming up, or broken."""
    match state.get("activeState"):
        case "activating" | "reloading" | "refreshing" | "deactivating" | "maintenance":
            return Readiness.WAITING
        case "failed":
            return Readiness.FAILED
    return Readiness.READY


# ---------------------------------------------------------------------------------------------- steps

# Lets systemd see new files, and says what is wrong where there is no such unit.
_FOUND: Final = r"""
unit=$1
property() { systemctl show -p "$1" --value -- "$unit"; }
found() {
    if [ -z "$OFFLINE" ]; then
        # What failed, lost its file and got it back is in the state `error` until then.
        case $(property NeedDaemonReload)/$(property LoadState) in
            yes/*|*/not-found|*/error) systemctl daemon-reload ;;
        esac
        case $(property LoadState) in
            not-found) missing ;;
            bad-setting|error)
                echo "systemd cannot load $unit:"
                systemctl status --no-pager --full -- "$unit" 2>&1 | head -n 20
                exit 1 ;;
        esac
    else
        file=$(systemctl is-enabled -- "$unit" 2>/dev/null | head -n 1)
        [ -n "$file" ] && [ "$file" != not-found ] || missing
    fi
}
missing() {
    echo "There is no unit $unit on this host. Check its name, or let its document require that of its package."
    exit 1
}
# Words of the journal for a unit that does not work.
why() {
    systemctl show -p ActiveState,SubState,Result,ExecMainStatus -- "$unit" | paste -s -d ' '
    journalctl --quiet --no-pager --output=cat --unit="$unit" --lines=12 2>/dev/null || :
}
"""

_ENABLE: Final = (
    _FOUND
    + r"""
found
file=$(systemctl is-enabled -- "$unit" 2>/dev/null | head -n 1) || :
case $file in
    static|indirect)
        echo "$unit cannot be enabled: it has no [Install] section of its own ($file)."
        echo "Other units start it. Leave \`enabled\` out, or enable the timer, socket or target that it belongs to."
        exit 1 ;;
    generated|transient)
        echo "$unit cannot be enabled: its file is $file. Change what it is made from, or leave \`enabled\` out."
        exit 1 ;;
    masked*)
        echo "$unit is masked. Add \`masked: false\`, or leave \`enabled\` out."
        exit 1 ;;
    alias) [ -n "$OFFLINE" ] || unit=$(property Id) ;;
esac
systemctl enable -- "$unit"
"""
)

_DISABLE: Final = (
    _FOUND
    + """
file=$(systemctl is-enabled -- "$unit" 2>/dev/null | head -n 1) || :
if [ "$file" = generated ]; then
    echo "$unit cannot be disabled: its file is generated. Change what it is made from, or mask it."
    exit 1
fi
[ -n "$OFFLINE" ] || [ "$file" != alias ] || unit=$(property Id)
# Without its file, too: that leaves links behind.
systemctl disable -- "$unit" || [ "${file:-not-found}" = not-found ]
"""
)

_MASK: Final = 'systemctl mask -- "$1"'

_UNMASK: Final = """
systemctl unmask -- "$1"
[ -n "$OFFLINE" ] || systemctl unmask --runtime -- "$1"
"""

_STOP: Final = (
    _FOUND
    + """
[ -z "$OFFLINE" ] || { echo "nothing runs in an image"; exit 0; }
[ "$(property LoadState)" = not-found ] || systemctl stop -- "$unit"
systemctl reset-failed -- "$unit" 2>/dev/null || :
"""
)

# How: start, restart, reload. A program that ends right after its start would still look well at first, so a unit of
# a type that does not tell when it is up has to run for half a second.
_START: Final = (
    _FOUND
    + r"""
how=$2 must=$3
[ -z "$OFFLINE" ] || { echo "nothing runs in an image"; exit 0; }
found
if [ "$(property LoadState)" = masked ]; then
    echo "$unit is masked. Add \`masked: false\`, or leave \`running\` out."
    exit 1
elif [ -z "$must" ]; then
    # It need not run: what does not run has nothing to read again.
    case $(property ActiveState) in active|reloading|refreshing) ;; *) exit 0 ;; esac
elif [ "$(property Type)/$(property RemainAfterExit)" = oneshot/no ]; then
    echo "$unit is of Type=oneshot: it ends by itself, so it cannot be kept running."
    echo "Leave \`running\` out; \`enabled\`, or a timer, starts it."
    exit 1
fi
systemctl reset-failed -- "$unit" 2>/dev/null || :
case $how in
    start) systemctl start -- "$unit" ;;
    restart) systemctl restart -- "$unit" ;;
    reload) systemctl reload-or-restart -- "$unit" ;;
esac 2>&1 || { why; exit 1; }
case $(property Type) in simple|exec|idle) ;; *) exit 0 ;; esac
well=0 looks=0
while [ "$well" -lt 5 ]; do
    sleep 0.1
    looks=$((looks + 1))
    case $(property ActiveState) in
        active) well=$((well + 1)) ;;
        activating) well=0 ;;
        *) looks=99 ;;
    esac
    [ "$looks" -lt 50 ] || { echo "$unit was started and does not stay up:"; why; exit 1; }
done
"""
)


def steps(change: Change[Unit]) -> Iterable[Step]:
    """Unmask; enable or disable; start, restart, reload or stop; mask."""
    unit = change.spec
    name = unit.unit
    if change.after is None:
        # Only what was declared as true is taken back. Where that is nothing, there is nothing to do.
        if unit.running:
            yield Sh(_STOP, (name,), title=f"stop {name}")
        if unit.enabled:
            yield Sh(_DISABLE, (name,), title=f"disable {name}")
        if unit.masked:
            yield Sh(_UNMASK, (name,), title=f"unmask {name}")
        return
    changed = change.changed
    if "masked" in changed and unit.masked is False:
        yield Sh(_UNMASK, (name,), title=f"unmask {name}")
    if "enabled" in changed:
        if unit.enabled:
            yield Sh(_ENABLE, (name,), title=f"enable {name}")
        else:
            yield Sh(_DISABLE, (name,), title=f"disable {name}")
    if "running" in changed and not unit.running:
        yield Sh(_STOP, (name,), title=f"stop {name}")
    elif change.before is not None and "fresh" in changed:
        # What does not run is started by this, too.
        title = f"{unit.on_change} {name}"
        if unit.running:
            yield Sh(_START, (name, unit.on_change, "must"), title=title)
        else:
            yield Sh(_START, (name, unit.on_change, ""), title=f"{title} if it runs")
    elif "running" in changed:
        # A start where it runs already, from its package's installation, would leave it with its old files.
        how = "restart" if change.before is None and unit.fresh else "start"
        yield Sh(_START, (name, how, "must"), title=f"{how} {name}")
    if "masked" in changed and unit.masked:
        yield Sh(_MASK, (name,), title=f"mask {name}")


LOCK_OUT: Final = (
    "ssh.",
    "ssh@",
    "sshd.",
    "sshd@",
    "systemd-networkd.",
    "networking.",
    "NetworkManager.",
    "dbus.",
    "polkit.",
)


def risk(change: Change[Unit]) -> Risk | None:
    """Units without which nobody gets in; services that pause."""
    unit = change.spec
    gone = change.after is None
    stops = bool(unit.running) if gone else unit.running is False and "running" in change.changed
    off = bool(unit.enabled) if gone else "enabled" in change.changed and not unit.enabled
    off = off or (not gone and bool(unit.masked) and "masked" in change.changed)
    if unit.unit.startswith(LOCK_OUT) and (stops or off):
        return Risk("lock-out", "without this unit nobody may get into the host any more")
    if change.before is None:
        return None
    if stops:
        return Risk("downtime", "it stops")
    if "fresh" in change.changed and unit.on_change == "restart":
        return Risk("downtime", "it restarts" if unit.running else "it restarts if it runs")
    return None


def _needs(unit: Unit) -> Iterable[str]:
    yield from unit.after
    yield f"path:/etc/systemd/system/{unit.unit}"
    name, at, rest = unit.unit.partition("@")
    if at:
        yield f"path:/etc/systemd/system/{name}@.{rest.rpartition('.')[2]}"


TYPE = ResourceType(
    "host.unit",
    Unit,
    probe,
    steps,
    ready=ready,
    provides=lambda u: (f"unit:{u.unit}",),
    needs=_needs,
    watches=lambda u: [f"{how}:{path}" for path in u.watch for how in ("path", "edit")],
    stale={"fresh": False},
    risk=risk,
    keeps=lambda change: Keep(units=(change.spec.unit,)),
)
