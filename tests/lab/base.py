"""The file system that every lab host starts from, and layers with more packages on top of it.

Built once by debootstrap into a cache folder. The name of a tree carries a hash of this file, so a changed
recipe gives a new tree and never a half-updated one. Each build runs in its own mount and PID namespaces:
when it ends, however it ends, its mounts and processes are gone with them.

A booted host sees one apt source only, the small repository in `/srv/apt`; that works without a network.
The machine's own mirror is used while building, and its address stays in the cache folder, which may be
deleted whenever no lab is open.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.prepare import KEYRING, SEARCH

CACHE = Path(os.environ.get("RECONCILER_LAB_CACHE", "/var/cache/reconciler-lab"))
SUITE = "trixie"  # the first Debian with run0 (systemd 256) and Quadlet (podman 4.4)

PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "libpam-systemd",  # user managers and logind sessions, as on any real server
    "openssh-server",
    "pkexec",
    "polkitd",
    "procps",
    "python3",  # for tests that look around; the reconciler itself needs POSIX sh only
    "sudo",
    "systemd",
    "systemd-sysv",
)

MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "sshd-keygen.service",  # each host is given its key; making an RSA one would cost seconds
    "systemd-firstboot.service",
    "systemd-modules-load.service",  # a container may not load any, and would be `degraded` for it
)

SSHD = """\
# The lab counts sessions by what sshd logs at this level.
LogLevel VERBOSE
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
# Tests break connections on purpose; being locked out for it afterwards would make them depend on each other.
PerSourcePenalties no
HostKey /etc/ssh/ssh_host_ed25519_key
"""

REPOSITORY = "/srv/apt"


@dataclass(frozen=True)
class Deb:
    """A Debian package made here: its control fields, maintainer scripts and files (path -> text, mode)."""

    name: str
    version: str
    summary: str
    files: Mapping[str, tuple[str, int]]
    scripts: Mapping[str, str] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()
    depends: str = ""

    @property
    def filename(self) -> str:
        return f"{self.name}_{self.version}_all.deb"

    def control(self) -> str:
        depends = f"Depends: {self.depends}\n" if self.depends else ""
        return (
            f"Package: {self.name}\nVersion: {self.version}\nArchitecture: all\n"
            f"Maintainer: Lab <lab@example.invalid>\nPriority: optional\nSection: misc\n{depends}"
            f"Description: {self.summary}\n"
        )

    def build(self, folder: Path) -> Path:
        """Write the package into `folder` with dpkg's own builder; return its path."""
        with tempfile.TemporaryDirectory() as scratch:
            tree = Path(scratch, self.name)
            scripts = {f"/DEBIAN/{name}": (text, 0o755) for name, text in self.scripts.items()}
            control = {"/DEBIAN/control": (self.control(), 0o644)}
            if self.conffiles:
                control["/DEBIAN/conffiles"] = ("".join(f"{path}\n" for path in self.conffiles), 0o644)
            for path, (text, mode) in {**self.files, **scripts, **control}.items():
                write(tree / path.lstrip("/"), text, mode)
            for directory in [tree, *(path for path in tree.rglob("*") if path.is_dir())]:
                directory.chmod(0o755)
            archive = folder / self.filename
            _run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(archive)])
        return archive


def _hello(version: str) -> Deb:
    program = f"#!/bin/sh\necho 'hello from lab-hello {version}'\n"
    files = {"/usr/bin/lab-hello": (program, 0o755)}
    return Deb("lab-hello", version, "says hello, for tests of packages", files)


# What debhelper's dh_installsystemd puts into the maintainer scripts of a package with a service, so that
# installing, upgrading, masking, removing and purging act as with any other Debian package.
POSTINST = """\
#!/bin/sh
set -e
case $1 in configure | abort-*)
    deb-systemd-helper unmask lab-daemon.service >/dev/null || true
    if deb-systemd-helper --quiet was-enabled lab-daemon.service; then
        deb-systemd-helper enable lab-daemon.service >/dev/null || true
    else
        deb-systemd-helper update-state lab-daemon.service >/dev/null || true
    fi
    if [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload >/dev/null || true
        if [ -n "$2" ]; then action=restart; else action=start; fi
        deb-systemd-invoke $action lab-daemon.service >/dev/null || true
    fi
    ;;
esac
"""
PRERM = """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ] && [ "$1" = remove ]; then
    deb-systemd-invoke stop lab-daemon.service >/dev/null || true
fi
"""
POSTRM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ] && [ -x /usr/bin/deb-systemd-helper ]; then
    deb-systemd-helper purge lab-daemon.service >/dev/null || true
fi
"""
DAEMON_UNIT = """\
[Unit]
Description=Lab daemon

[Service]
EnvironmentFile=-/etc/lab-daemon.conf
ExecStart=/usr/bin/sleep infinity

[Install]
WantedBy=multi-user.target
"""
TMATE_UNIT = """\
[Unit]
Description=tmate (a harmless stand-in that only sleeps)

[Service]
ExecStart=/usr/bin/tmate -F
{user}
[Install]
WantedBy={wanted}
"""
DEBS = (
    _hello("1.0"),
    _hello("1.1"),
    Deb(
        "lab-daemon",
        "1.0",
        "sleeps as a service, for tests of units",
        {
            "/usr/lib/systemd/system/lab-daemon.service": (DAEMON_UNIT, 0o644),
            "/etc/lab-daemon.conf": ("# read by lab-daemon.service\nGREETING=hello\n", 0o644),
        },
        scripts={"postinst": POSTINST, "prerm": PRERM, "postrm": POSTRM},
        conffiles=("/etc/lab-daemon.conf",),
        depends="init-system-helpers",
    ),
    Deb(
        "tmate",
        "2.4.0",
        "a harmless stand-in for software that must be gone",
        {
            "/usr/bin/tmate": ("#!/bin/sh\nexec sleep infinity\n", 0o755),
            "/usr/lib/systemd/user/tmate.service": (
                TMATE_UNIT.format(user="", wanted="default.target"),
                0o644,
            ),
            "/usr/lib/systemd/system/tmate.service": (
                TMATE_UNIT.format(user="User=admin\n", wanted="multi-user.target"),
                0o644,
            ),
        },
    ),
)

# $1 = tree, $2 = the machine's apt settings; the rest runs in the chroot. Its /run is a tmpfs, so nothing of
# this stays in the tree, and the resolver is borrowed by a mount for as long as this namespace lives.
CHROOT = """\
set -e
tree=$1 machine=$2
shift 2
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount -t tmpfs -o mode=755 tmpfs "$tree/run"
mkdir "$tree/run/machine-apt"
mount --bind "$machine" "$tree/run/machine-apt"
if [ -e /etc/resolv.conf ] && [ -e "$tree/etc/resolv.conf" ]; then
    mount --bind /etc/resolv.conf "$tree/etc/resolv.conf"
fi
exec chroot "$tree" "$@"
"""

# The same on an overlay: $1 = lower folders, $2 = upper, $3 = work, $4 = where to mount it, then as above.
OVERLAY = """\
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
shift 3
"""


class BuildError(Exception):
    """A tree could not be built; the text ends with the last lines that the failing command printed."""


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file with exactly this mode, whatever the umask, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    result = subprocess.run(
        command,
        env=environment or os.environ | {"PATH": SEARCH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-25:])
        raise BuildError(f"{' '.join(command)[:200]} ended with {result.returncode}:\n{tail}")
    return result.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One builder at a time, over all processes; the kernel lets go when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a deb822 file: folded lines joined, comments dropped, keys in lower case."""
    for block in re.split(r"\n[ \t]*\n", text):
        entry: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in " \t" and key:
                entry[key] += " " + line.strip()
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                entry[key] = value.strip()
        if entry:
            yield entry


def sources(folder: Path = Path("/etc/apt")) -> Iterator[tuple[str, str, frozenset[str]]]:
    """What the machine's apt reads binary packages from: (URI, suite, components), from both file formats."""
    for path in sorted((folder / "sources.list.d").glob("*.sources")):
        for entry in _stanzas(path.read_text(encoding="utf-8", errors="replace")):
            enabled = entry.get("enabled", "yes").lower() not in {"no", "false", "0"}
            if not enabled or "deb" not in entry.get("types", "").split():
                continue
            for uri in entry.get("uris", "").split():
                for suite in entry.get("suites", "").split():
                    yield uri, suite, frozenset(entry.get("components", "").split())
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))]:
        if not path.exists():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            words = re.sub(r"^deb\s+\[[^\]]*\]", "deb", line.split("#", 1)[0].strip()).split()
            if len(words) >= 3 and words[0] == "deb":
                yield words[1], words[2], frozenset(words[3:])


def mirror(folder: Path = Path("/etc/apt")) -> str:
    """The Debian archive that this machine itself uses: the source of its own release's plain suite."""
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    codename = re.search(r"^VERSION_CODENAME=\"?(\w+)", release, re.MULTILINE)
    plain = {"stable", "testing", "unstable", "sid", SUITE} | ({codename[1]} if codename else set())
    for uri, suite, components in sources(folder):
        if suite in plain and "main" in components and "security" not in uri:
            return uri.rstrip("/")
    raise BuildError(f"no source in {folder} names a Debian archive: the lab takes its mirror from there")


def _machine_apt() -> Path:
    """A folder with the machine's way to its mirror (proxy, certificates, leniency about dates), for chroots.

    Package lists and archives stay in it, so that later layers download only what is new.
    """
    folder = CACHE / "apt"
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    kept = []
    for line in _run(["apt-config", "dump"]).splitlines():
        key = line.split(" ", 1)[0]
        wanted = key.startswith(("Acquire::http", "Acquire::Check-", "Acquire::Retries"))
        if wanted and not re.search(r"auto-?detect|cainfo|sslcert|sslkey", key, re.IGNORECASE):
            kept.append(line)
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        shutil.copyfile(certificates, folder / "ca.crt")
        kept.append('Acquire::https::CAInfo "/run/machine-apt/ca.crt";')
    settings = [
        'Dir::Etc::sourcelist "/run/machine-apt/sources.list";',
        'Dir::Etc::sourceparts "-";',
        'Dir::State::lists "/run/machine-apt/lists";',
        'Dir::Cache::archives "/run/machine-apt/archives";',
        'Dir::Cache::pkgcache "";',
        'Dir::Cache::srcpkgcache "";',
        'Acquire::Languages "none";',
        'APT::Install-Recommends "false";',
        'APT::Sandbox::User "root";',
        'APT::Keep-Downloaded-Packages "true";',
        'Dpkg::Options { "--force-confdef"; "--force-confold"; "--force-unsafe-io"; };',
    ]
    write(folder / "apt.conf", "\n".join([*settings, *kept, ""]))
    write(folder / "sources.list", f"deb [signed-by={KEYRING}] {mirror()} {SUITE} main\n")
    return folder


def _environment() -> dict[str, str]:
    proxies = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    return proxies | {
        "APT_CONFIG": "/run/machine-apt/apt.conf",
        "DEBIAN_FRONTEND": "noninteractive",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


NAMESPACES = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")


def _chroot(tree: Path, *command: str) -> str:
    """Run a command inside `tree`, with the machine's network and apt settings."""
    machine = str(_machine_apt())
    return _run([*NAMESPACES, "sh", "-c", CHROOT, "chroot", str(tree), machine, *command], _environment())


INSTALL = """\
set -e
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -q update
apt-get -q -y install "$@"
rm /usr/sbin/policy-rc.d
"""


def _publish(tree: Path) -> None:
    """Fill the local repository and make it the only source that a booted host has."""
    folder = tree / REPOSITORY.lstrip("/")
    folder.mkdir(parents=True)
    index = []
    for deb in DEBS:
        archive = deb.build(folder)
        archive.chmod(0o644)
        content = archive.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        index.append(f"{deb.control()}Filename: ./{deb.filename}\nSize: {len(content)}\nSHA256: {digest}\n")
    write(folder / "Packages", "\n".join(index))
    (tree / "etc/apt/sources.list").unlink(missing_ok=True)
    shutil.rmtree(tree / "etc/apt/sources.list.d", ignore_errors=True)
    (tree / "etc/apt/sources.list.d").mkdir()
    write(tree / "etc/apt/sources.list.d/lab.list", f"deb [trusted=yes] file:{REPOSITORY} ./\n")
    for leftover in (tree / "var/lib/apt/lists").glob("*_*"):
        leftover.unlink()
    _chroot(tree, "env", "-u", "APT_CONFIG", "apt-get", "-q", "update")


def _configure(tree: Path) -> None:
    """People, sshd, and nothing that slows a boot down or makes it `degraded`."""
    # No password rather than a locked account: sshd without PAM, as in the light endpoints, refuses that.
    _chroot(tree, "usermod", "--password", "*", "root")
    for name, uid in (("admin", 1000), ("deploy", 1001)):
        account = ["--create-home", "--shell", "/bin/bash", "--user-group", "--uid", str(uid)]
        _chroot(tree, "useradd", *account, name)
        _chroot(tree, "usermod", "--password", "*", name)
    write(tree / "etc/sudoers.d/deploy", "deploy ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)
    write(tree / "etc/ssh/sshd_config.d/10-lab.conf", SSHD)
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for unit in MASKED:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for path in ("etc/hostname", "etc/machine-id", "etc/resolv.conf", "etc/fstab"):
        write(tree / path, "")
    (tree / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    shutil.rmtree(tree / "var/log/journal", ignore_errors=True)
    (tree / "var/log/journal").mkdir()  # logs are kept on disk, as Debian's own default


def recipe() -> str:
    """What names a tree: a hash of this file and of nothing else that could differ between two machines."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]


def base() -> Path:
    """The base tree, built if it is not there yet. Never write into it: booted hosts lie on top of it."""
    final = CACHE / f"{SUITE}-{recipe()}"
    if final.exists():
        return final
    with _locked(CACHE / "lock"):
        if final.exists():  # somebody else built it while we waited
            return final
        building = CACHE / f"{final.name}.building"
        _remove(building)
        archives = _machine_apt() / "archives"
        bootstrap = ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", f"--cache-dir={archives}"]
        _run([*NAMESPACES, *bootstrap, SUITE, str(building), mirror()])
        write(building / "etc/resolv.conf", "")
        _chroot(building, "sh", "-c", INSTALL, "install", *PACKAGES)
        _configure(building)
        _publish(building)
        building.rename(final)
    return final


def layer(name: str, packages: Sequence[str], on: Sequence[Path] = ()) -> Path:
    """An overlay layer with further Debian packages, to be given to a host's `layers`; built once.

    `on` names layers that it is built upon, lowest first; a host that uses this one then needs those, too,
    below it. Two layers that do not know of each other cannot be combined: each has its own dpkg database.
    """
    below = base()
    content = "\n".join([below.name, *(path.parent.name for path in on), *sorted(packages)])
    final = CACHE / "layers" / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    if final.exists():
        return final / "upper"
    with _locked(CACHE / "lock"):
        if final.exists():
            return final / "upper"
        building = final.with_name(f"{final.name}.building")
        _remove(building)
        for part in ("upper", "work", "tree"):
            (building / part).mkdir(parents=True)
        lower = ":".join(str(path) for path in [*reversed(on), below])
        parts = [str(building / part) for part in ("upper", "work", "tree")]
        inside = [str(_machine_apt()), "sh", "-c", INSTALL, "install", *packages]
        _run([*NAMESPACES, "sh", "-c", OVERLAY + CHROOT, "layer", lower, *parts, *inside], _environment())
        shutil.rmtree(building / "work")
        (building / "tree").rmdir()
        building.rename(final)
    return final / "upper"


def _remove(tree: Path) -> None:
    """Delete a build that was killed half-way; refuses while anything is mounted below it."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    for point in (line.split()[1] for line in mounts):
        if Path(point).is_relative_to(tree):
            raise BuildError(f"{point} is still mounted: unmount it first")
    if tree.exists():
        shutil.rmtree(tree)
