"""What AppArmor's types ask a host: files and links, the kernel's list, processes, the log, and the parser."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

from reconciler.fields import Rule
from reconciler.model import Script
from reconciler.tools.apparmor.reading import read
from reconciler.types.host import printable

FOLDER: Final = "/etc/apparmor.d"
RECORDS: Final = "/var/lib/reconciler/apparmor"
"""What a host remembers of each profile: digest of the text that was loaded last, its phase, when that was."""
ProfileFile = Annotated[
    str, Rule(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*", "the name of a file in /etc/apparmor.d, such as usr.sbin.httpd", 200)
]
KernelName = Annotated[
    str, Rule(r"[^\s\u0000-\u001f\u007f]+", "the name of a profile as the kernel shows it, such as httpd//child", 512)
]

# Sections begin with a line that starts with @. Names are plain words, so every line is one fact.
FACTS: Final = r"""
d=$ROOT/etc/apparmor.d
echo @files
for p; do
    if [ -L "$d/$p" ]; then echo "link $p"; elif [ -f "$d/$p" ]; then echo "file $p"
    elif [ -e "$d/$p" ]; then echo "other $p"; fi
done
echo @sums
for p; do [ -L "$d/$p" ] || [ ! -f "$d/$p" ] || printf '%s\0' "$d/$p"; done | look xargs -0 -r sha256sum -- || exit 1
echo @links
look find "$d/disable" "$d/force-complain" -mindepth 1 -maxdepth 1 -printf '%h/%f\n' || exit 1
echo @records
for p; do
    r=$ROOT/var/lib/reconciler/apparmor/$p
    [ ! -r "$r" ] || { read -r record <"$r" || :; printf '%s %s\n' "$p" "$record"; }
done
[ -n "$OFFLINE" ] || echo "@up $(cat /proc/sys/kernel/random/boot_id) $(cut -d. -f1 /proc/uptime)"
k=/sys/kernel/security/apparmor/profiles
if [ -n "$OFFLINE" ]; then echo @blind; elif [ -e "$k" ]; then echo @kernel; look cat "$k"; else echo @none; fi
"""
CONTENT: Final = 'for p; do base64 -- "$ROOT/etc/apparmor.d/$p"; echo .; done'
# "PID LABEL" of every process, then "PID PROGRAM", then "PID UNIT"; nothing where the kernel has no AppArmor.
PROCESSES: Final = r"""
[ -z "$OFFLINE" ] && [ -e /sys/kernel/security/apparmor/profiles ] || exit 0
cd /proc || exit 1
echo @labels
grep -s '' [0-9]*/attr/current | sed 's|/attr/current:| |'
echo @programs
find [0-9]* -maxdepth 1 -name exe -printf '%h %l\n'
echo @units
grep -s '\.service' [0-9]*/cgroup | sed -n 's|^\([0-9]*\)/cgroup:.*/\([^/]*\.service\).*|\1 \2|p' | sort -u
exit 0
"""
# "now SECONDS", "source WORD", "from SECONDS" (how far back the log goes), "heard" (AppArmor's records come there at
# all, such as those of loads), "lost SECONDS" (when the kernel last dropped records, which it does under load where no
# auditd takes them), "last SECONDS COUNT PROFILE" (ALLOWED only).
LOG: Final = r"""
echo "now $(date +%s)"
[ -z "$OFFLINE" ] || { echo "source none"; exit 0; }
newest='
    function stamp(line) { return match(line, /audit\([0-9]+/) ? substr(line, RSTART + 6, RLENGTH - 6) : "" }
    { t = stamp($0); if (t == "" && $1 ~ /^[0-9]+\.[0-9]+$/) { t = $1; sub(/\..*/, "", t) } }
    t != "" && first == "" { first = t; print "from " t }
    /apparmor="/ && !heard { heard = 1; print "heard" }
    /apparmor="ALLOWED"/ && t != "" && match($0, /(profile|label)="[^"]*"/) {
        p = substr($0, RSTART, RLENGTH); sub(/^[a-z]*="/, "", p); sub(/"$/, "", p); last[p] = t; count[p]++ }
    t != "" && /kauditd_printk_skb: [0-9]+ callbacks suppressed/ { lost = t }
    END { if (lost != "") print "lost " lost
        for (p in last) print "last " last[p] " " count[p] " " p }'
if [ -r /var/log/audit/audit.log ]; then
    echo "source audit.log"
    ls -tr /var/log/audit | grep '^audit\.log' | sed 's|^|/var/log/audit/|' | xargs cat -- | awk "$newest"
elif command -v journalctl >/dev/null; then
    echo "source journal"
    journalctl --quiet --no-pager --output=short-unix _TRANSPORT=audit + _TRANSPORT=kernel | awk "$newest"
else
    echo "source none"
fi
"""
RECORDS_READ: Final = Script(
    r"""
[ -z "$OFFLINE" ] || exit 0
if [ -r /var/log/audit/audit.log ]; then
    ls -tr /var/log/audit | grep '^audit\.log' | sed 's|^|/var/log/audit/|' | xargs cat -- | grep 'apparmor="[AD]'
elif command -v journalctl >/dev/null; then
    journalctl --quiet --no-pager --output=short-unix _TRANSPORT=audit + _TRANSPORT=kernel | grep 'apparmor="[AD]'
else
    echo "there is neither auditd nor a journal on this host"
    exit 1
fi
exit 0
"""
)
"""Every record of AppArmor in the log of a host, from the oldest on."""
# $1 = name, $2 = text, three by three with $3 = its digest: what the host's parser says of texts that are not there
# yet. "@NAME", then its words; nothing of a text that it takes.
PARSE: Final = r"""
[ -z "$ROOT" ] && command -v apparmor_parser >/dev/null && cd /etc/apparmor.d || exit 0
while [ $# -ge 3 ]; do
    case $(sha256sum -- "$1" 2>/dev/null) in "$3 "*) shift 3; continue ;; esac
    said=$(printf %s "$2" | apparmor_parser -QTK 2>&1 >/dev/null) || printf '@%s\n%s\n' "$1" "$said"
    shift 3
done
exit 0
"""


@dataclass(frozen=True)
class Remembered:
    """The record of a profile on its host.

    Attributes:
        phase: `complain` or `enforce`.
        at: when it was loaded, in seconds since the epoch.
        boot: the boot in which that was; empty in records of older releases.
        up: seconds that the host had been up then.
    """

    digest: str
    phase: str
    at: int
    boot: str = ""
    up: int = 0


@dataclass
class Facts:
    """What `FACTS` told. `kernel`: profile -> mode; None where the kernel has no AppArmor. `blind`: nothing runs.
    `boot`, `up`: which boot this is, and for how many seconds the host has been up."""

    files: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    complaining: set[str] = field(default_factory=set)
    records: dict[str, Remembered] = field(default_factory=dict)
    kernel: dict[str, str] | None = None
    blind: bool = False
    boot: str = ""
    up: int = 0


def facts(text: str) -> Facts:
    """Read what `FACTS` printed."""
    out = Facts()
    for section, row in _rows(text):
        match section:
            case "files":
                kind, _, name = row.partition(" ")
                out.files[name] = kind
            case "sums":
                digest, _, path = row.lstrip("\\").partition("  ")
                out.digests[path.rpartition("/")[2]] = digest
            case "links":
                folder, _, name = row.rpartition("/")
                (out.disabled if folder.endswith("/disable") else out.complaining).add(name)
            case "records":
                words = row.split()
                if len(words) >= 4 and words[3].isdigit():
                    when = (words[4], int(words[5])) if len(words) == 6 and words[5].isdigit() else ("", 0)
                    out.records[words[0]] = Remembered(words[1], words[2], int(words[3]), *when)
            case "kernel" if row.endswith(")"):
                name, _, mode = row[:-1].rpartition(" (")
                out.kernel = {**(out.kernel or {}), name: mode}
    heads = {line for line in text.split("\n") if line.startswith("@")}
    out.blind = "@blind" in heads
    for words in (head.split() for head in heads if head.startswith("@up ")):
        if len(words) == 3 and words[2].isdigit():
            out.boot, out.up = words[1], int(words[2])
    if "@kernel" in heads and out.kernel is None:
        out.kernel = {}
    return out


def _rows(text: str) -> Iterable[tuple[str, str]]:
    section = ""
    for row in text.split("\n"):
        if row.startswith("@"):
            section = row[1:]
        elif row:
            yield section, row


def contents(names: Sequence[str], text: str) -> dict[str, str]:
    """The files that `CONTENT` printed, by name."""
    parts = text.split(".\n")
    return {
        name: base64.b64decode(raw).decode("utf-8", "surrogateescape") for name, raw in zip(names, parts, strict=False)
    }


@dataclass(frozen=True)
class Running:
    """A process: its number, profile (or `unconfined`), program, and the service that it belongs to, if any."""

    pid: int
    label: str
    program: str
    unit: str


def processes(text: str) -> list[Running]:
    """Read what `PROCESSES` printed. Threads of the kernel have no program, and are left out."""
    found: dict[str, dict[str, str]] = {"labels": {}, "programs": {}, "units": {}}
    for section, row in _rows(text):
        pid, _, value = row.partition(" ")
        found[section][pid] = value
    out = []
    for pid, program in found["programs"].items():
        label = found["labels"].get(pid)
        if program and label is not None and pid.isdigit():
            shown = program.removesuffix(" (deleted)")
            out.append(Running(int(pid), label.rpartition(" (")[0] or label, shown, found["units"].get(pid, "")))
    return out


@dataclass(frozen=True)
class Log:
    """What `LOG` told, in seconds since the epoch.

    Attributes:
        begins: how far back it goes.
        lost: when the kernel last dropped records; 0 for never.
        heard: it holds records of AppArmor, of whatever sort: they come there.
        last: profile -> time and number of accesses it did not know.
    """

    now: int
    source: str
    begins: int | None
    last: Mapping[str, tuple[int, int]]
    heard: bool = False
    lost: int = 0

    def newest(self, profile: str) -> tuple[int, int]:
        """When a profile (or a child of it) was last asked for what it does not know, and how often; 0 for never."""
        mine = [v for name, v in self.last.items() if name == profile or name.startswith(f"{profile}//")]
        return max((at for at, _ in mine), default=0), sum(count for _, count in mine)


def log(text: str) -> Log:
    """Read what `LOG` printed."""
    now, source, begins, last, heard, lost = 0, "none", None, {}, False, 0
    for row in text.splitlines():
        word, _, rest = row.partition(" ")
        if word == "now" and rest.isdigit():
            now = int(rest)
        elif word == "source":
            source = rest
        elif word == "heard":
            heard = True
        elif word == "lost" and rest.isdigit():
            lost = int(rest)
        elif word == "from" and rest.isdigit():
            begins = int(rest)
        elif word == "last":
            at, count, name = rest.split(" ", 2)
            last[name] = (int(at), int(count))
    return Log(now, source, begins, last, heard, lost)


def quiet_since(record: Remembered, found: Log, profiles: Sequence[str]) -> int | None:
    """Since when a profile that was loaded in complain mode has not been asked for anything new; None where the log
    cannot tell. What the log does not reach back to does not count as quiet."""
    if not found.heard or found.begins is None:
        return None
    tops = [p for p in profiles if "//" not in p] or list(profiles)
    return max(record.at, found.begins, found.lost, *(found.newest(p)[0] for p in tops))


def soak_state(
    record: Remembered | None, digest: str, soak: int, found: Log, profiles: Sequence[str], now: Facts
) -> str:
    """Where the soak of a profile stands: `none` (of this text), `running`, `over`, or `enforced` already.

    Args:
        digest: of the file as it is.
        soak: seconds.
        now: tells how long the host has been up. A clock that jumps ahead, such as one that was never set before the
            network came, ends no soak.
    """
    if record is None:
        return "none"
    if record.phase == "enforce":
        return "enforced"
    if record.digest != digest:
        return "none"
    since = quiet_since(record, found, profiles)
    if since is None or found.now - since < soak:
        return "running"
    return "running" if record.boot and record.boot == now.boot and now.up - record.up < soak else "over"


def mode_in_files(name: str, text: str, found: Facts) -> str:
    """The mode in which a file is loaded at the next boot, as its flags and the links tell."""
    if name in found.disabled:
        return "disabled"
    if name in found.complaining:
        return "complain"
    content = read(text)
    if content.complain:
        return "complain"
    return "partly complain" if content.some_complain else "enforce"


def mode_in_kernel(profiles: Sequence[str], found: Facts) -> str | None:
    """The mode in which profiles are loaded; None where they are not, or cannot be."""
    modes = {found.kernel[p] for p in profiles if found.kernel and p in found.kernel} - {"unconfined"}
    if not modes:
        return None
    return next(iter(modes)) if len(modes) == 1 else "partly " + " and ".join(sorted(modes))


def explained(said: str, lines: str) -> list[str]:
    """The parser's words with the lines of the document that they are about.

    Args:
        lines: name of the document's file in the first line; then, for each line of the text, the line there, or 0.
    """
    file, _, numbers = lines.partition("\n")
    places = [int(word) for word in numbers.split()]
    out = []
    for row in said.splitlines():
        if row.startswith("Cache read/write disabled") or not row.strip():
            continue
        before, at, rest = row.partition(" at line ")
        number, _, message = rest.partition(": ")
        if at and before == "AppArmor parser error" and number.isdigit():
            index = int(number) - 1
            place = places[index] if 0 <= index < len(places) else 0
            where = f"{file}:{place}: " if place else f"line {number} of the text: "
            hint = " (if a comma is missing, it is in the line before)" if "syntax error" in message else ""
            out.append(printable(f"{where}{message}{hint}"))
        else:
            out.append(printable(row))
    return out


def as_lines(file: str, places: Sequence[int]) -> str:
    """What `explained` takes, and what the step that writes a profile takes."""
    return f"{file}\n{' '.join(map(str, places))}"
