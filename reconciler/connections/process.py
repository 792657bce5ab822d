"""A shell channel to a program on this machine: a local shell, or the OpenSSH client."""

from __future__ import annotations

import contextlib
import select
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Final

from reconciler.errors import ConnectError, ConnectionLost

BECOME: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "sudo": ("sudo", "-n", "--"),
    "run0": ("run0", "--background=", "--"),
    "doas": ("doas", "-n", "--"),
}
"""How to get root. None of them may ask for anything."""


class ProcessChannel:
    """The standard streams of a child process.

    Raises:
        ConnectError: the program cannot be started.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the channel
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environ,
                bufsize=0,
                process_group=0,  # the terminal's Ctrl-C is for us; what has begun comes to its end
            )
        except OSError as error:
            self._errors.close()
            raise ConnectError(f"{argv[0]} cannot be started: {error.strerror}.") from None

    def send(self, content: bytes) -> None:
        """See `Channel.send`."""
        assert self._process.stdin is not None
        view = memoryview(content)
        try:
            while view:
                view = view[self._process.stdin.write(view) :]
        except (OSError, ValueError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)  # so that its last words are there
            raise ConnectionLost(f"the shell went away ({error})") from None

    def receive(self, seconds: float | None) -> bytes:
        """See `Channel.receive`."""
        assert self._process.stdout is not None
        try:
            if not select.select([self._process.stdout], [], [], seconds)[0]:
                raise ConnectionLost(f"no answer within {seconds:.0f} s.")
            return self._process.stdout.read(65536) or b""
        except (OSError, ValueError) as error:
            raise ConnectionLost(f"the shell went away ({error})") from None

    def complaint(self) -> str:
        """See `Channel.complaint`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._errors.seek(0)
        return self._errors.read(4096).decode("utf-8", "replace")

    def close(self) -> None:
        """See `Channel.close`."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
