"""host.process: a program that must not run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal

from reconciler.fields import AbsolutePath
from reconciler.model import IDENTITY, UNOBSERVABLE, Change, Probe, ResourceType, Risk, Script, Sh, Spec, Step
from reconciler.probe import expect


class Process(Spec):
    """A program that must not run, by the file that it runs from.

    Only the exact path counts, never a name: other programs may bear that, too. What runs in a container or in
    another root folder is left alone.
    """

    path: Annotated[AbsolutePath, IDENTITY]
    running: Literal[False] = False


# The root is compared only for the few processes whose path fits.
_RUNNING: Final = r"""
running() {
    find /proc/[0-9]*/exe -maxdepth 0 -printf '%h\t%l\n' 2>/dev/null | awk -F '\t' '
        BEGIN { for (i = 1; i < ARGC; i++) wanted[ARGV[i]]; ARGC = 1 }
        { path = $2; sub(/ \(deleted\)$/, "", path) }
        path in wanted { sub(/^\/proc\//, "", $1); print $1, path }' "$@" |
        while read -r pid path; do [ ! "/proc/$pid/root/." -ef / ] || printf '%s %s\n' "$pid" "$path"; done
}
"""


def probe(processes: Sequence[Process]) -> Probe:
    """One look at all processes."""
    script = f'[ -z "$OFFLINE" ] || {{ echo offline; exit; }}\n{_RUNNING}running "$@"'
    (reply,) = yield [Script(script, [p.path for p in processes])]
    text = expect(reply, "find /proc")
    if text == "offline\n":
        return [{"running": UNOBSERVABLE} for _ in processes]
    seen = {line.partition(" ")[2] for line in text.splitlines()}
    return [{"running": p.path in seen} for p in processes]


# A number may belong to another process by now, so the file is looked at once more right before each signal.
_END: Final = (
    _RUNNING
    + r"""
path=$1
[ -z "$OFFLINE" ] || exit 0
for signal in TERM KILL; do
    running "$path" | while read -r pid _; do
        [ "$pid" != 1 ] || { echo "$path is process 1; it is never ended"; exit 1; }
        case $(readlink -- "/proc/$pid/exe") in
            "$path" | "$path (deleted)") kill -s "$signal" "$pid" 2>/dev/null || : ;;
        esac
    done
    looks=0
    while [ "$looks" -lt 50 ]; do
        [ -n "$(running "$path")" ] || exit 0
        sleep 0.1
        looks=$((looks + 1))
    done
done
echo "still running:" $(running "$path")
exit 1
"""
)


def steps(change: Change[Process]) -> Iterable[Step]:
    """SIGTERM, five seconds, SIGKILL."""
    if change.after is not None and change.changed:
        yield Sh(_END, (change.spec.path,), title=f"end what runs {change.spec.path}")


def risk(change: Change[Process]) -> Risk | None:
    """People may be working with it."""
    return Risk("data-loss", "what these processes have not saved is lost") if change.changed else None


def needs(process: Process) -> Iterable[str]:
    """The unit named like the program is stopped first, or it would start it again."""
    yield f"unit:{PurePosixPath(process.path).name}.service"


TYPE = ResourceType("host.process", Process, probe, steps, needs=needs, risk=risk)
