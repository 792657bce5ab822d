"""host.software: an audit that finds software which must not be on a host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from reconciler.fields import PackageName, Rule
from reconciler.model import CONTROL, IDENTITY, UNOBSERVABLE, Change, Probe, ResourceType, Script, Spec
from reconciler.probe import expect
from reconciler.types.host import printable

ProgramName = Annotated[
    str, Rule(r"[A-Za-z0-9][A-Za-z0-9._+-]*", "the name of a program: letters, digits and . _ + -", 128)
]
UnitStem = Annotated[
    str,
    Rule(
        r"[A-Za-z0-9:_][A-Za-z0-9:_.\\@-]*",
        "a unit such as tmate.service, or the first part of its name, such as tmate",
        255,
    ),
]
Binary = Annotated[
    str,
    Rule(
        r"[A-Za-z0-9][A-Za-z0-9._+-]*|(?!(?:.*/)?\.\.?(?:/|$))(?:/[^/\u0000-\u001f\u007f]+)+",
        "the name of a program, or an absolute path, with * ? [] as in a shell if wished",
        4095,
    ),
]
Reason = Annotated[str, Rule(r"[^\u0000-\u001f\u007f\u2028\u2029]+", "why it is forbidden, in one line", 1000)]

SUFFIXES: Final = (".service", ".socket", ".timer", ".path")
"""What a unit that is given by the first part of its name may be."""
PROGRAM_FOLDERS: Final = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
"""Where a process runs from that is recognised by its name alone."""


def is_exact(binary: str) -> bool:
    """Whether this is one absolute path, not a name or a pattern."""
    return binary.startswith("/") and not set(binary) & set("*?[]")


class SoftwareItem(Spec):
    """One piece of software, and by what it is recognised."""

    name: ProgramName = Field(description="What it is called, and the default for everything below.")
    reason: Reason = Field(description="Why it is forbidden; shown with every finding.")
    packages: tuple[PackageName, ...] | None = Field(None, description="Debian packages.")
    units: tuple[UnitStem, ...] | None = Field(
        None, description="systemd units; `tmate` means tmate.service, tmate.socket, tmate.timer and tmate.path."
    )
    binaries: tuple[Binary, ...] | None = Field(
        None, description="Programs: names, looked for where programs lie, also in home folders; or absolute paths."
    )
    processes: tuple[ProgramName, ...] | None = Field(
        None, description="Running programs, by the name of the file that runs or the name that the process has."
    )

    def package_names(self) -> Sequence[str]:
        """The packages, by default the one of its name."""
        return (self.name.lower(),) if self.packages is None else self.packages

    def unit_names(self) -> Sequence[str]:
        """Full names of the units."""
        stems = (self.name,) if self.units is None else self.units
        return [u for s in stems for u in ([s] if s.endswith(_UNIT_SUFFIXES) else [s + suffix for suffix in SUFFIXES])]

    def binary_names(self) -> Sequence[str]:
        """Names and patterns of programs."""
        return (self.name,) if self.binaries is None else self.binaries

    def process_names(self) -> Sequence[str]:
        """Names of running programs."""
        return (self.name,) if self.processes is None else self.processes

    def process_paths(self) -> Sequence[str]:
        """Where these programs usually lie."""
        return [f"{folder}/{name}" for name in self.process_names() for folder in PROGRAM_FOLDERS]


_UNIT_SUFFIXES: Final = (*SUFFIXES, ".mount", ".automount", ".swap", ".target", ".slice")


class Software(Spec):
    """Software that must not be there (an audit)."""

    name: Annotated[str, IDENTITY]
    items: Annotated[tuple[SoftwareItem, ...], CONTROL]
    enforce: Annotated[bool, CONTROL] = Field(False, description="Whether other resources of the document remove it.")
    packages: tuple[str, ...] = Field((), description="Forbidden packages that are installed: none.")
    units: tuple[str, ...] = Field((), description="Forbidden units that could be started: none.")
    binaries: tuple[str, ...] = Field((), description="Forbidden programs: none.")
    processes: tuple[str, ...] = Field((), description="Forbidden programs that run: none.")


# The database itself, because it is the same with and without dpkg, on a live host and in an image.
PACKAGES: Final = r"""
[ -e "$ROOT/var/lib/dpkg/status" ] || exit 0
awk 'BEGIN { for (i = 2; i < ARGC; i++) { wanted[ARGV[i]]; ARGV[i] = "" } }
    function told() { if (name in wanted && status != "not-installed" && status != "config-files")
        print name "\t" version "\t" status; name = "" }
    /^Package: / { name = $2 }
    /^Status: / { status = $4 }
    /^Version: / { version = $2 }
    /^$/ { told() }
    END { told() }' "$ROOT/var/lib/dpkg/status" "$@"
"""

# A masked unit cannot be started, so it is no finding.
UNITS: Final = r"""
masked() { [ -L "$1" ] && [ "$(readlink -- "$1")" = /dev/null ]; }
cd "$ROOT/" || exit
[ -L lib ] && old= || old=lib/systemd/system
for folder in etc/systemd/system run/systemd/system usr/local/lib/systemd/system usr/lib/systemd/system $old \
    etc/systemd/user usr/local/lib/systemd/user usr/lib/systemd/user \
    root/.config/systemd/user root/.local/share/systemd/user \
    home/*/.config/systemd/user home/*/.local/share/systemd/user
do
    [ -d "$folder" ] || continue
    for unit; do
        if [ -e "$folder/$unit" ] || [ -L "$folder/$unit" ]; then
            ! masked "$folder/$unit" || continue
            case $folder in */system) ! masked "etc/systemd/system/$unit" || continue ;; esac
            printf '%s\t/%s\n' "$unit" "$folder/$unit"
        fi
    done
done
exit 0
"""

# Patterns are expanded below the root, where IFS keeps names with spaces in one piece.
BINARIES: Final = r"""
cd "$ROOT/" || exit
[ -L bin ] && old= || old=bin/
[ -L sbin ] && olds= || olds=sbin/
IFS='
'
tell() { if [ -f "$2" ] || { [ -L "$2" ] && [ ! -d "$2" ]; }; then printf '%s\t/%s\n' "$1" "$2"; fi; }
for wanted; do
    case $wanted in
        /*) for file in ${wanted#/}; do tell "$wanted" "$file"; done ;;
        *)
            for folder in usr/local/sbin/ usr/local/bin/ usr/sbin/ usr/bin/ $old $olds usr/local/games/ usr/games/ \
                opt/bin/ snap/bin/ root/bin/ root/.local/bin/ home/*/bin/ home/*/.local/bin/ opt/*/bin/
            do tell "$wanted" "$folder$wanted"; done
            ;;
    esac
done
exit 0
"""

# A name from /proc/N/comm has 15 characters at most, and programs such as tmux write "tmux: server" there.
PROCESSES: Final = r"""
[ -z "$OFFLINE" ] || { echo offline; exit 0; }
{
    for folder in /proc/[0-9]*; do
        read -r name <"$folder/comm" && printf '%s\t%s\n' "${folder#/proc/}" "$name"
    done
    find /proc/[0-9]*/exe -maxdepth 0 -printf '%h\t%l\t\n'
} | awk -F '\t' '
    BEGIN { for (i = 1; i < ARGC; i++) wanted[ARGV[i]]; ARGC = 1 }
    { sub(/^\/proc\//, "", $1) }
    NF == 2 { for (name in wanted)
        if ($2 == substr(name, 1, 15) || index($2, name ":") == 1) print $1 "\t" name "\t" }
    NF == 3 { plain = $2; sub(/ \(deleted\)$/, "", plain); sub(/.*\//, "", plain)
        if (plain in wanted) print $1 "\t" plain "\t" $2 }' "$@"
exit 0
"""


def probe(audits: Sequence[Software]) -> Probe:
    """Four looks, whatever the number of items."""
    items = [item for audit in audits for item in audit.items]

    def names(of: Callable[[SoftwareItem], Sequence[str]]) -> list[str]:
        return sorted({name for item in items for name in of(item)})

    replies = yield [
        Script(PACKAGES, names(SoftwareItem.package_names)),
        Script(UNITS, names(SoftwareItem.unit_names)),
        Script(BINARIES, names(SoftwareItem.binary_names)),
        Script(PROCESSES, names(SoftwareItem.process_names)),
    ]
    what = ("dpkg's database", "unit files", "programs", "processes")
    packages, units, binaries, processes = (expect(r, w) for r, w in zip(replies, what, strict=True))
    seen_packages = [{"name": n, "version": v} for n, v, _ in _table(packages, 3)]
    seen_units = [{"name": n, "path": p} for n, p in _table(units, 2)]
    seen_binaries = [{"name": n, "path": p} for n, p in _table(binaries, 2)]
    running = None if processes == "offline\n" else _processes(processes)
    states = []
    for audit in audits:

        def mine(
            found: Iterable[dict[str, Any]], of: Callable[[SoftwareItem], Sequence[str]], audit: Software = audit
        ) -> list[dict[str, Any]]:
            item_of = {name: item.name for item in audit.items for name in of(item)}
            return [{"item": item_of[f["name"]], **f} for f in found if f["name"] in item_of]

        states.append(
            {
                "packages": mine(seen_packages, SoftwareItem.package_names),
                "units": mine(seen_units, SoftwareItem.unit_names),
                "binaries": mine(seen_binaries, SoftwareItem.binary_names),
                "processes": UNOBSERVABLE if running is None else mine(running, SoftwareItem.process_names),
            }
        )
    return states


def _table(text: str, columns: int) -> list[list[str]]:
    return sorted(row for line in text.splitlines() if len(row := line.split("\t")) == columns)


def _processes(text: str) -> list[dict[str, Any]]:
    """One entry for each process and name; the file that runs, if it could be read."""
    found: dict[tuple[int, str], str] = {}
    for pid, name, exe in _table(text, 3):
        found[int(pid), name] = exe or found.get((int(pid), name), "")
    return [{"name": name, "pid": pid, "path": exe} for (pid, name), exe in sorted(found.items())]


def findings(change: Change[Software]) -> Iterable[tuple[str, str, str]]:
    """One for each thing that was found."""
    spec, host = change.spec, change.resource.target
    reasons = {item.name: item.reason.rstrip(".") for item in spec.items}
    purged = {seen["item"] for seen in (change.before or {}).get("packages") or () if spec.enforce}
    removed = {path for item in spec.items for path in item.binary_names() if spec.enforce and is_exact(path)}
    ended = removed | {p for item in spec.items if spec.enforce for p in item.process_paths()}
    for difference in change.differences:
        for seen in difference.before:
            name, path = seen["name"], printable(seen.get("path", ""))
            gone = "It goes with its package." if seen["item"] in purged else ""
            match difference.attribute:
                case "packages":
                    what = f"the package {name} {seen['version']} is installed"
                    fix = "The plan removes it." if spec.enforce else f"Run `apt-get purge {name}`."
                    rule = "forbidden-package"
                case "units":
                    what = f"the unit {name} is there as {path}"
                    fix = (
                        gone
                        or f"Run `systemctl disable --now {name}` and remove the file, or the package that it is of."
                    )
                    rule = "forbidden-unit"
                case "binaries":
                    what = f"the program {path} is there"
                    fix = "The plan removes it." if seen["path"] in removed else gone
                    fix = fix or f"Remove {path}, or the package that it is of."
                    rule = "forbidden-binary"
                case _:
                    what = f"the process {seen['pid']} runs {path or name}"
                    plain = seen["path"].removesuffix(" (deleted)")
                    fix = "The plan ends it." if plain in ended else f"End it: `kill {seen['pid']}`."
                    rule = "forbidden-process"
            yield rule, f"{host}: {what}, which is forbidden ({seen['item']}: {reasons[seen['item']]}).", fix


TYPE = ResourceType("host.software", Software, probe, None, findings=findings)
