"""host.apparmorProfile: a file of AppArmor profiles: its text, its mode, and whether the kernel has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from reconciler.fields import UnitName
from reconciler.model import (
    CONTROL,
    IDENTITY,
    UNOBSERVABLE,
    Change,
    Probe,
    ResourceType,
    Risk,
    Script,
    Sh,
    Sha256,
    Spec,
    State,
    Step,
)
from reconciler.probe import expect
from reconciler.tools.apparmor.globs import matches
from reconciler.types.host import folders_above, printable
from reconciler.types.host.apparmor_host import (
    CONTENT,
    FACTS,
    FOLDER,
    LOG,
    PROCESSES,
    RECORDS,
    Facts,
    KernelName,
    Log,
    ProfileFile,
    Running,
    contents,
    facts,
    log,
    mode_in_files,
    mode_in_kernel,
    processes,
    soak_state,
)


class AppArmorFile(Spec):
    """A file of AppArmor profiles, checked by the host's own parser before it is written.

    With `soak`, `enforce` means: complain first, and enforce when the log has held no new access for so long. Until
    then complain mode is as desired. A profile that was enforced once is not sent back to complain mode by a new text.
    """

    name: Annotated[ProfileFile, IDENTITY] = Field(description=f"Its file in {FOLDER}.")
    text: str | None = Field(None, description="All of the text.")
    mode: Literal["enforce", "complain"] | None = Field(None, description="`complain` only logs what it would refuse.")
    loaded: Literal[True] | None = Field(None, description="The kernel has it, as it is in the file.")
    confined: Literal[True] | None = Field(None, description="No process of its programs runs without it.")
    profiles: Annotated[tuple[KernelName, ...], CONTROL] = Field(
        (), description="Its profiles, as the kernel names them."
    )
    programs: Annotated[tuple[str, ...], CONTROL] = Field((), description="Patterns of the programs that it is for.")
    soak: Annotated[int | None, CONTROL] = Field(
        None, description="Seconds without a new access before it is enforced."
    )
    restart: Annotated[tuple[UnitName, ...], CONTROL] = Field(
        (), description="Units that are restarted where a process runs without the profile."
    )
    lines: Annotated[str, CONTROL] = Field("", exclude=True, description="Where the lines of the text come from.")
    after: Annotated[tuple[str, ...], CONTROL] = Field((), description="Tokens of what comes first.")

    @field_validator("text")
    @classmethod
    def _ended(cls, text: str | None) -> str | None:
        if text is not None and "\0" in text:
            raise ValueError("holds a NUL character. Take it out.")
        return text if text is None or text.endswith("\n") else f"{text}\n"

    @property
    def path(self) -> str:
        """Its file."""
        return f"{FOLDER}/{self.name}"


def probe(files: Sequence[AppArmorFile]) -> Probe:
    """Digests, links, records and the kernel's list in one read; processes and the log where somebody asks for them."""
    names = [f.name for f in files]
    wanted = [Script(FACTS, names)]
    asks = [any(f.confined for f in files), any(f.soak is not None for f in files)]
    wanted += [Script(text) for text, asked in ((PROCESSES, asks[0]), (LOG, asks[1])) if asked]
    replies = list((yield wanted))
    found = facts(expect(replies.pop(0), "the probe of AppArmor profiles"))
    running = processes(expect(replies.pop(0), "the list of processes")) if asks[0] else []
    heard = log(expect(replies.pop(0), "the log of AppArmor")) if asks[1] else log("")
    digests = {f.name: Sha256.of(f.text).hex for f in files if f.text is not None}
    other = sorted({n for n in names if n in found.digests and found.digests[n] != digests.get(n)})
    texts: dict[str, str] = {}
    if other:
        (reply,) = yield [Script(CONTENT, other)]
        texts = contents(other, expect(reply, "reading AppArmor profiles"))
    return [_state(f, found, texts, running, heard) for f in files]


def _state(
    file: AppArmorFile, found: Facts, texts: dict[str, str], running: Sequence[Running], heard: Log
) -> State | None:
    kind = found.files.get(file.name)
    if kind is None:
        return None
    text = texts.get(file.name, file.text or "")
    state: dict[str, Any] = {"text": text if text == file.text else printable(text), "soaking": ""}
    if kind != "file":
        state["text"] = "(a symbolic link)" if kind == "link" else "(no regular file)"
    later = mode_in_files(file.name, text, found)
    if found.kernel is None:
        state |= {"mode": later, "loaded": UNOBSERVABLE, "confined": UNOBSERVABLE}
    else:
        state |= _live(file, found, later, running)
    if file.soak is not None:
        record, digest = found.records.get(file.name), found.digests.get(file.name, "")
        soaking = soak_state(record, digest, file.soak, heard, file.profiles, found)
        # An edit by hand does not end a soak; mending it begins a new one.
        is_edited = record is not None and state["text"] != file.text
        state["soaking"] = "running" if soaking == "none" and is_edited else soaking
    return state


def _live(file: AppArmorFile, found: Facts, later: str, running: Sequence[Running]) -> dict[str, Any]:
    kernel = found.kernel or {}
    now = mode_in_kernel(file.profiles, found)
    record = found.records.get(file.name)
    there = all(p in kernel for p in file.profiles if "@{" not in p)
    stale = record is not None and record.digest != found.digests.get(file.name)
    return {
        "mode": later if now in (None, later) else f"{now} until the next boot, then {later}",
        "loaded": there and not stale,
        "confined": not any(unconfined(file.programs, running)),
    }


def unconfined(programs: Sequence[str], running: Sequence[Running]) -> list[Running]:
    """Processes of these programs that run without any profile."""
    return [r for r in running if r.label == "unconfined" and any(matches(p, r.program) for p in programs)]


def normalize(desired: State, observed: State) -> State:
    """A profile that soaks is as desired in complain mode."""
    if desired.get("mode") == "enforce" and observed.get("mode") == "complain" and observed.get("soaking") == "running":
        return {**desired, "mode": "complain"}
    return desired


# ---------------------------------------------------------------------------------------------- steps

_HEAD: Final = f"""\
name=$1
path={FOLDER}/$name d=$ROOT{FOLDER} record={RECORDS}/$name
inside "$path"
inside "$record"
inside "{FOLDER}/force-complain/x"
inside "{FOLDER}/disable/x"
w=$(mktemp -d)
trap 'rm -rf -- "$w"' EXIT
live() {{ [ -z "$OFFLINE" ] && [ -e /sys/kernel/security/apparmor/profiles ]; }}
"""

# $1 = name, $2 = write or keep the text, $3 = mode, $4 = lines as `apparmor_host.as_lines` makes them; then units. The
# parser is asked before anything changes. Complain mode comes before the text, enforcing after it: whenever this is
# killed, nothing is stricter than it was.
SET: Final = f"""{_HEAD}
how=$2 mode=$3 lines=$4
shift 4
cat >"$w/text"
if [ "$how" = keep ]; then
    [ -f "$ROOT$path" ] && [ ! -L "$ROOT$path" ] || {{ echo "$path is no regular file"; exit 1; }}
    cat "$ROOT$path" >"$w/text"
fi
if [ -z "$ROOT" ] && command -v apparmor_parser >/dev/null; then
    mkdir -p {FOLDER}
    (cd {FOLDER} && apparmor_parser -QTK) <"$w/text" >"$w/said" 2>&1 || {{
        echo "apparmor_parser refuses the profile, so nothing was changed:"
        printf '%s\\n' "$lines" | awk '
            NR == FNR {{ if (FNR == 1) file = $0; else n = split($0, at); next }}
            /^Cache read\\/write disabled/ {{ next }}
            match($0, /^AppArmor parser error at line [0-9]+: /) {{
                number = $6 + 0; message = substr($0, RLENGTH + 1)
                where = number <= n && at[number] ? file ":" at[number] ": " : "line " number " of the text: "
                hint = message ~ /syntax error/ ? " (if a comma is missing, it is in the line before)" : ""
                $0 = where message hint
            }}
            {{ print }}' - "$w/said"
        exit 1
    }}
elif [ -z "$OFFLINE" ]; then
    echo "there is no apparmor_parser on this host. Install the package apparmor, or let a document of it come first."
    exit 1
fi
mkdir -p "$d" "$ROOT{RECORDS}"
[ ! -f "$ROOT$path" ] || cat "$ROOT$path" >"$w/old"
[ ! -L "$d/force-complain/$name" ] || : >"$w/complained"
complain() {{ mkdir -p "$d/force-complain" && ln -sfn "../$name" "$d/force-complain/$name"; }}
[ "$mode" != complain ] || complain
write() {{ base64 "$1" >"$w/64" && put "$path" 0644 root root <"$w/64"; }}
[ "$how" = keep ] || write "$w/text"
[ "$mode" = complain ] || rm -f -- "$d/force-complain/$name"
rm -f -- "$d/disable/$name"
if live; then
    apparmor_parser --replace --write-cache -- "$path" >"$w/said" 2>&1 || {{
        grep -v '^Warning: found' "$w/said" || :
        echo "the kernel does not take the profile; the file is as it was"
        if [ -e "$w/old" ]; then write "$w/old"; else rm -f -- "$path"; fi
        if [ -e "$w/complained" ]; then complain; else rm -f -- "$d/force-complain/$name"; fi
        exit 1
    }}
    # What the old text had and the new one has not stays in the kernel otherwise.
    if [ -e "$w/old" ]; then
        apparmor_parser -N "$w/text" >"$w/now" 2>/dev/null || :
        (cd {FOLDER} && apparmor_parser -N "$w/old" 2>/dev/null || :) | while read -r gone; do
            grep -qxF -e "$gone" "$w/now" || printf %s "$gone" >/sys/kernel/security/apparmor/.remove || :
        done
    fi
fi
sum=$(sha256sum <"$w/text")
boot=
[ -n "$OFFLINE" ] || boot=" $(cat /proc/sys/kernel/random/boot_id) $(cut -d. -f1 /proc/uptime)"
printf '%s %s %s%s\\n' "${{sum%% *}}" "$mode" "$(date +%s)" "$boot" | base64 >"$w/64"
put "$record" 0644 root root <"$w/64"
if live; then for unit; do systemctl try-restart -- "$unit"; done; fi
"""
RESTART: Final = 'for unit; do systemctl try-restart -- "$unit"; done'
REMOVE: Final = f"""{_HEAD}
[ -d "$d" ] || exit 0
if live && [ -f "$path" ]; then
    apparmor_parser --remove -- "$path" >"$w/said" 2>&1 || grep -q "doesn't exist" "$w/said" || {{
        cat "$w/said"
        exit 1
    }}
fi
rm -f -- "$d/force-complain/$name" "$d/disable/$name"
if [ -d "$ROOT$path" ]; then echo "$path is a directory; it stays"; exit 1; fi
rm -f -- "$ROOT$path" "$ROOT$record"
"""


def steps(change: Change[AppArmorFile]) -> Iterable[Step]:
    """One step: ask the parser, write, load, note when."""
    file = change.spec
    if change.after is None:
        yield Sh(REMOVE, (file.name,), title=f"unload the profile {file.name} and remove it")
        return
    if change.before is not None and change.changed == {"confined"}:
        yield Sh(RESTART, file.restart, title=f"restart {', '.join(file.restart)}, to run under {file.name}")
        return
    writes = file.text is not None and (change.before is None or "text" in change.changed)
    mode = _mode(change)
    restarts = file.restart if change.before is None or "confined" in change.changed else ()
    what = "write" if writes else "load"
    title = f"{what} the profile {file.name} in {mode} mode, if apparmor_parser takes it"
    if file.soak is not None and mode == "complain":
        title += "; its soak begins"
    if restarts:
        title += f"; restart {', '.join(restarts)}"
    text = file.text if writes and file.text is not None else ""
    arguments = (file.name, "write" if writes else "keep", mode, file.lines, *restarts)
    yield Sh(SET, arguments, stdin=text, title=title)


def _mode(change: Change[AppArmorFile]) -> str:
    """The mode to set now. With a soak, only what has passed it is enforced; a new text begins a new one."""
    file = change.spec
    if file.soak is None or file.mode == "complain":
        return file.mode or "enforce"
    soaking = change.seen.get("soaking")
    if soaking == "enforced" or (soaking == "over" and "text" not in change.changed):
        return "enforce"
    return "complain"


def risk(change: Change[AppArmorFile]) -> Risk | None:
    """Programs that need more than an enforced profile gives them."""
    if change.after is None or change.changed == {"confined"}:
        return Risk("downtime", "services restart") if change.after is not None else None
    if _mode(change) == "enforce":
        return Risk("downtime", "what the profile does not allow fails from now on; a `soak` finds that out first")
    return None


TYPE = ResourceType(
    "host.apparmorProfile",
    AppArmorFile,
    probe,
    steps,
    normalize=normalize,
    provides=lambda f: (f"path:{f.path}",),
    needs=lambda f: (*folders_above(f.path), "package:apparmor", *f.after),
    risk=risk,
)
