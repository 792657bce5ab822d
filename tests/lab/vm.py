"""A virtual machine under software emulation, for what a container cannot show: a kernel with AppArmor in it.

Debian's cloud kernel and a Debian root file system, emulated instruction by instruction (no KVM is needed), reached by
SSH at a port of 127.0.0.1. The image is built once from Debian packages into the lab's cache folder; each machine runs
on a throw-away snapshot of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import base
from tests.lab.base import write
from tests.lab.hosts import Slot, close_at_exit, closed
from tests.lab.prepare import SEARCH, install, missing
from tests.ports import free_port

PACKAGES = ("apparmor", "apparmor-utils", "auditd", "initramfs-tools", "linux-image-cloud-amd64", "zstd")
PROGRAM = "qemu-system-x86_64"
MASKED = (
    "apparmor-early.service",
    "e2scrub_reap.service",
    "getty@tty1.service",
    "ldconfig.service",
    "serial-getty@ttyS0.service",
    "systemd-binfmt.service",
    "systemd-journal-catalog-update.service",
    "systemd-networkd-wait-online.service",
    "systemd-pcrmachine.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
)
NETWORK = "[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\n"
# Debian's own profiles are for programs that are not here; loading them takes the emulated machine a minute.
TRIM = """\
set -e
find /etc/apparmor.d -maxdepth 1 -type f -delete
printf 'MODULES=list\\nCOMPRESS=gzip\\n' >/etc/initramfs-tools/conf.d/lab
printf 'virtio_pci\\nvirtio_blk\\next4\\n' >>/etc/initramfs-tools/modules
version=$(ls /lib/modules)
mkinitramfs -o /boot/initrd.lab "$version"
"""
# $1 = lower folders, $2 = scratch, $3 = where the image goes; the rest runs in the chroot before the image is made.
MAKE = """\
set -e
lower=$1 scratch=$2 out=$3
shift 3
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
cp -a "$scratch/files/." "$scratch/root/"
mount -t proc proc "$scratch/root/proc"
chroot "$scratch/root" "$@"
umount "$scratch/root/proc"
cp "$scratch/root/boot/"vmlinuz-* "$out/vmlinuz"
mv "$scratch/root/boot/initrd.lab" "$out/initrd"
rm -rf "$scratch/root/boot/"*
truncate -s 2G "$out/root.img"
mkfs.ext4 -q -F -O ^has_journal -d "$scratch/root" "$out/root.img"
"""


class VmError(Exception):
    """The machine could not be built or did not come up; the text ends with what its console said last."""


def unfit() -> str | None:
    """Why no machine can be emulated here, or None."""
    if reason := missing():
        return reason
    if os.uname().machine != "x86_64":
        return f"the virtual machine needs an x86_64 kernel, and this is {os.uname().machine}"
    if shutil.which(PROGRAM, path=SEARCH) is None:
        return "the virtual machine needs qemu-system-x86: run `python -m tests.lab.vm`"
    return None


def image() -> Path:
    """The folder with kernel, initrd, root file system and keys; built if it is not there yet."""
    layer = base.layer("vm", PACKAGES)
    content = "\n".join([layer.parent.name, TRIM, MAKE, NETWORK, *MASKED])
    final = base.CACHE / "vm" / hashlib.sha256(content.encode()).hexdigest()[:16]
    if final.exists():
        return final
    with base._locked(base.CACHE / "vm.lock"):
        if final.exists():
            return final
        building = final.with_name(f"{final.name}.building")
        base._remove(building)
        building.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=building) as name:
            scratch = Path(name)
            _files(scratch / "files", building)
            arguments = [f"{layer}:{base.base()}", name, str(building), "sh", "-c", TRIM]
            base._run([*base.NAMESPACES, "sh", "-c", MAKE, "make", *arguments])
        building.rename(final)
    return final


def _files(tree: Path, keys: Path) -> None:
    """What makes the image this machine, and lets us in."""
    public = Slot.make_key(keys / "key")
    host = Slot.make_key(keys / "host_key")
    write(tree / "etc/ssh/ssh_host_ed25519_key", (keys / "host_key").read_text(encoding="ascii"), 0o600)
    write(tree / "etc/ssh/ssh_host_ed25519_key.pub", f"{host}\n")
    write(tree / "root/.ssh/authorized_keys", f"{public}\n", 0o600)
    (tree / "root").chmod(0o700)
    (tree / "root/.ssh").chmod(0o700)
    write(tree / "etc/hostname", "vm\n")
    write(tree / "etc/machine-id", f"{hashlib.md5(host.encode()).hexdigest()}\n", 0o444)
    write(tree / "etc/systemd/network/10-lab.network", NETWORK)
    units = tree / "etc/systemd/system"
    (units / "multi-user.target.wants").mkdir(parents=True)
    (units / "multi-user.target.wants/systemd-networkd.service").symlink_to(
        "/usr/lib/systemd/system/systemd-networkd.service"
    )
    for unit in MASKED:
        (units / unit).symlink_to("/dev/null")


class Vm:
    """One machine. A context manager: outside of it nothing of the machine exists."""

    def __enter__(self) -> Self:
        if reason := unfit():
            raise VmError(reason)
        self.image = image()
        self._scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self._scratch.name)
        self.key = self.folder / "key"
        shutil.copy(self.image / "key", self.key)
        self.key.chmod(0o600)
        self.port = free_port()
        public = (self.image / "host_key.pub").read_text(encoding="ascii").strip()
        self.known_hosts = self.folder / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}\n", encoding="ascii")
        self._start()
        close_at_exit(self, self.close)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        # One processor, all of it in one thread, without 57-bit addresses: other settings panic the guest's kernel. So
        # does cmpxchg16b, sooner or later: QEMU 7.2 gets its flags wrong when an interrupt comes in between.
        machine = (
            "-accel tcg,thread=single -cpu max,la57=off,cx16=off -smp 1 -m 768 -nographic -no-reboot -monitor none"
        )
        network = f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        append = (
            "root=/dev/vda rw console=ttyS0 quiet panic=-1 apparmor=1 security=apparmor net.ifnames=0 mitigations=off"
        )
        with (self.folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                [
                    *(PROGRAM, *machine.split()),
                    *("-kernel", str(self.image / "vmlinuz"), "-initrd", str(self.image / "initrd")),
                    *("-append", append),
                    *("-drive", f"file={self.image / 'root.img'},if=virtio,format=raw,snapshot=on"),
                    *("-netdev", network, "-device", "virtio-net-pci,netdev=n,romfile="),
                    *("-device", "virtio-rng-pci"),
                ],
                env=os.environ | {"PATH": SEARCH},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests
            )

    def _wait(self, timeout: float = 600) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise VmError(f"the machine went down while it started:\n{self.console()}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.run("true", check=False, timeout=30).returncode == 0:
                    return
            time.sleep(1)
        raise VmError(f"the machine did not come up within {timeout:g} s:\n{self.console()}")

    def console(self, lines: int = 25) -> str:
        """The last lines of its console."""
        text = (self.folder / "console").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def run(
        self, script: str, *, check: bool = True, input: str = "", timeout: float | None = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script as root, over SSH."""
        options = ["-i", str(self.key), "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "IdentitiesOnly=yes"]
        options += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]
        # The client's own default protects against quantum computers, which takes the emulated machine seconds.
        options += ["-o", "KexAlgorithms=curve25519-sha256"]
        command = ["ssh", "-F", "/dev/null", *options, "-p", str(self.port), "root@127.0.0.1", "--", script]
        result = subprocess.run(
            command, input=input, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
        if check and result.returncode:
            error = subprocess.CalledProcessError(result.returncode, script, result.stdout, result.stderr)
            error.add_note(f"in the machine: {result.stdout}{result.stderr}")
            raise error
        return result

    def close(self) -> None:
        """Cut the power; nothing that the machine wrote stays."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._scratch.cleanup()
        closed(self)


def main() -> int:
    """Install the emulator and build the image, where that can work at all."""
    if (reason := missing()) or os.uname().machine != "x86_64":
        print(f"the virtual machine is left out: {reason or os.uname().machine}")
        return 0
    if shutil.which(PROGRAM, path=SEARCH) is None:
        install(["qemu-system-x86"])
    print(f"virtual machine: {image()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
