"""A text in an editor without leaving it on a disk: a private file in memory, shredded afterwards."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from reconciler.errors import InvalidInput, SecretError

T = TypeVar("T")


def editor(environ: Mapping[str, str]) -> list[str]:
    """The editor that the environment names.

    Raises:
        SecretError: there is none.
    """
    for name in ("SOPS_EDITOR", "VISUAL", "EDITOR"):
        if environ.get(name):
            return shlex.split(environ[name])
    for program in ("sensible-editor", "nano", "vi"):
        if shutil.which(program):
            return [program]
    raise SecretError("there is no editor. Set EDITOR.")


def in_memory() -> Path | None:
    """A folder whose files never reach a disk (but swap), if this machine has one."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return None
    kinds = {fields[1]: fields[2] for fields in mounts}
    for folder in (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"):  # noqa: S108 (in a folder of our own in it)
        above = [folder, *map(str, Path(folder).parents)] if folder else []
        mounted = next((kinds[place] for place in above if place in kinds), "")
        if mounted in ("tmpfs", "ramfs") and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    return None


def edited(
    text: str,
    name: str,
    argv: list[str],
    take: Callable[[str], T],
    again: Callable[[str], bool],
    warn: Callable[[str], None],
) -> T:
    """Let a person edit a text until it can be taken.

    Args:
        text: to begin with.
        name: of the file, so that the editor knows the language.
        argv: the editor.
        take: what to do with the result; raises InvalidInput or SecretError if it is not right.
        again: told what is wrong; says whether to edit on.
        warn: told what the person should know.

    Returns:
        what `take` returned.

    Raises:
        SecretError: it is not right, and was not edited on; the text says where the draft is kept.
    """
    memory = in_memory()
    if memory is None:
        warn("This machine has no file system in memory: the text is on disk while you edit it, and overwritten after.")
    folder = Path(tempfile.mkdtemp(prefix="reconciler-", dir=memory))
    draft = folder / name
    keep = False
    ends = contextlib.ExitStack()
    ends.enter_context(_to_the_end())
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
        while True:
            _run([*argv, str(draft)])
            try:
                return take(draft.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                reason = "the text is not UTF-8."
            except (InvalidInput, SecretError) as error:
                reason = str(error).replace(f"{draft}", name)
            if not again(reason):
                keep = True
                raise SecretError(
                    f"{reason}\nNothing was written. Your draft is kept in {draft}: go on with `--draft {draft}`, or "
                    f"shred it."
                )
    finally:
        if not keep:
            shred(folder)
        ends.close()


def _run(argv: list[str]) -> None:
    # Ctrl-C is for the editor while it runs. A handler of ours is not inherited by it, as SIG_IGN would be.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        status = subprocess.run(argv, check=False).returncode
    except OSError as error:
        raise SecretError(f"the editor {argv[0]} cannot be started: {error.strerror}. Set EDITOR.") from None
    finally:
        signal.signal(signal.SIGINT, before)
    if status:
        raise SecretError(f"{argv[0]} ended with exit status {status}. Nothing was written.")


@contextlib.contextmanager
def _to_the_end() -> Iterator[None]:
    """Turn a kill into an exception, so that the draft is shredded."""

    def ended(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, ended) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def shred(folder: Path) -> None:
    """Overwrite and delete all files of a folder, also those that an editor left (swap, backup), and the folder."""
    for file in sorted(folder.rglob("*"), reverse=True):
        if file.is_file() and not file.is_symlink():
            with contextlib.suppress(OSError), file.open("r+b") as out:
                out.write(b"\0" * file.stat().st_size)
                out.flush()
                os.fsync(out.fileno())
    shutil.rmtree(folder, ignore_errors=True)
