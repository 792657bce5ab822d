"""An offline host: a folder that is managed as a root file system.

As root, with a shell inside the folder, everything runs in a chroot with the image's own programs. Otherwise paths
get the folder as a prefix, ownership is kept in `.owners` inside the folder (as fakeroot does in memory), and a small
toolbox stands in for programs that need root. Nothing runs in an image, so processes are "not visible here".
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from reconciler.connections import Reveal, no_secrets
from reconciler.connections.process import ProcessChannel
from reconciler.connections.shell import LOOP, Shell
from reconciler.errors import ConnectError
from reconciler.model import Target

TOOLBOX = Path(__file__).parent / "toolbox"


def connect(target: Target, reveal: Reveal = no_secrets) -> Shell:
    """A shell in, or with its paths in, the folder `root`."""
    root = Path(target.settings["root"]).expanduser().absolute()

    def start() -> ProcessChannel:
        if not root.is_dir():
            raise ConnectError(f"{target.name}: there is no folder {root}.")
        if _can_chroot(root):
            return ProcessChannel(["chroot", str(root), "/bin/sh", "-c", LOOP])
        path = f"{TOOLBOX}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        return ProcessChannel(["sh", "-c", LOOP], {**os.environ, "PATH": path, "ROOT": str(root), "OFFLINE": "1"})

    if _can_chroot(root):
        return Shell(target.name, start, "ROOT= OFFLINE=1")
    return Shell(
        target.name, start, f"ROOT={shlex.quote(str(root))} OFFLINE=1\n. {shlex.quote(str(TOOLBOX / 'prelude.sh'))}"
    )


def _can_chroot(root: Path) -> bool:
    return os.geteuid() == 0 and os.access(root / "bin/sh", os.X_OK)
