"""Reads and steps over one POSIX shell that stays open: the common part of ssh, local and image connections.

One program is started on the target: a loop that reads a length, then that many bytes of script, and evaluates them.
Each message asks for a round of reads or a batch of steps; its answers come back as text between marks that carry a
random number of 128 bits, so that no output can be taken for a mark. So a host is probed and changed over one
connection and one exec, with one round trip per message, and no value ever stands in the process list.
"""

from __future__ import annotations

import base64
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from reconciler.errors import ConnectError, ConnectionLost, ContractError
from reconciler.model import Put, Read, Reply, Request, Run, Script, Secret, Sh, Step, StepResult, Work

LOOP: Final = 'while read -r n k; do m=$(head -c "$n"); case $m in *"#$k") eval "$m" ;; *) exit 1 ;; esac; done'
"""What runs on the target. A message that was cut off (we were killed, or the connection was) lacks its last word, and
nothing of it is run."""

WITHHELD: Final = "(output withheld: this step handles a secret)"
READ_SECONDS: Final = 300.0
"""A host that looks for longer hangs (on a dead network file system, for example), and must not hold up the rest."""
STALE_SECONDS: Final = 5.0
MAX_REPLY: Final = 512 * 1024 * 1024
"""Bytes of an answer; a host that sends more does not mean well."""
MAX_OUTPUT: Final = 64 * 1024
"""Bytes kept of one step's output: the end of it."""


class Channel(Protocol):
    """Two byte streams to a shell that runs `LOOP`."""

    def send(self, content: bytes) -> None:
        """Write all of it.

        Raises:
            ConnectionLost: it cannot be written.
        """

    def receive(self, seconds: float | None) -> bytes:
        """Some bytes, at least one; none at the end.

        Args:
            seconds: how long to wait for them; `None` = as long as it takes.

        Raises:
            ConnectionLost: the stream broke, or nothing came in time.
        """

    def complaint(self) -> str:
        """What the shell or its way printed as errors so far."""

    def close(self) -> None:
        """Free it. Never raises."""


class Shell:
    """A connection to a host by way of a shell.

    Args:
        name: the target, for messages.
        start: opens the channel; called when it is first needed.
        settings: shell assignments that go before every message, such as `ROOT`.
    """

    def __init__(self, name: str, start: Callable[[], Channel], settings: str = "ROOT= OFFLINE=") -> None:
        self._name, self._start, self._settings = name, start, settings
        self._channel: Channel | None = None
        self._greeted = False

    def read(self, reads: Sequence[Read]) -> list[Reply]:
        """See `Connection.read`."""
        if not reads:
            return []
        parts = []
        for index, one in enumerate(reads):
            if not isinstance(one, Script):
                raise ContractError("a resource type", f"{self._name} is a host; it answers scripts, not {one}.")
            arguments = " ".join(map(shlex.quote, one.args))
            parts.append(f"( set -- {arguments}\n{one.sh}\n) </dev/null 2>/dev/null; mark {index} $?\n")
        script = "".join(parts)
        used, began = self._channel is not None, time.monotonic()
        try:
            answers = list(self._ask(script))
        except ConnectionLost:
            if not used or time.monotonic() - began > STALE_SECONDS:
                raise
            # It died while nobody used it, which shows at once; and looking twice does no harm.
            answers = list(self._ask(script))
        return [Reply(text, status) for _, status, text in answers]

    def execute(self, batch: Sequence[Work], reveal: Callable[[Secret], str]) -> Iterator[StepResult]:
        """See `Connection.execute`."""
        index_of = {work.address: i for i, work in enumerate(batch)}
        steps: list[tuple[str, int, bool]] = []
        parts = []
        for number, work in enumerate(batch):
            broken = "".join(f"${{f{index_of[a]}}}" for a in work.after if a in index_of)
            parts.append(f"f{number}={broken}\n")
            for position, step in enumerate(work.steps):
                parts.append(
                    f'if [ -z "$f{number}" ]; then ( {_spell(step, reveal)}\n) 2>&1; s=$?; '
                    f"[ $s -eq 0 ] || f{number}=1; else s=-1; fi; mark {len(steps)} $s\n"
                )
                steps.append((work.address, position, _is_secret(step)))
        for number, status, text in self._ask("".join(parts), as_it_comes=True):
            address, position, secret = steps[number]
            output = WITHHELD if secret and text.strip() else text
            yield StepResult(address, position, None if status < 0 else status, output)

    def settle(self, witnesses: Sequence[str]) -> None:
        """See `Connection.settle`. Steps on a host end with their message, so that there is nothing to wait for."""

    def close(self) -> None:
        """See `Connection.close`."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._greeted = False

    def _ask(self, script: str, *, as_it_comes: bool = False) -> Iterator[tuple[int, int, str]]:
        """Send one message; yield `(number, status, text)` of each part.

        Either each part as soon as it ends, with the last bytes of its text; or all of all parts at once: that is one
        packet or two instead of one for each part, and packets are what a connection costs us.

        A channel that was not read to the end of the answer is closed: what is left in it would spoil the next one.
        """
        nonce = secrets.token_hex(16)
        body = f"mark start 0\n{script}mark end 0\n"
        if not as_it_comes:
            body = f"{{ {body}}} | dd ibs=65536 obs=1048576 2>/dev/null\n"
        prelude = "" if self._greeted else _prelude()
        mark = f'mark() {{ printf \'\\n{nonce} %s %s\\n\' "$1" "$2"; }}\n'
        message = f"{self._settings}\n{prelude}{mark}{body}#{nonce}".encode("utf-8", "surrogateescape")
        keep = MAX_OUTPUT if as_it_comes else sys.maxsize
        if self._channel is None:
            self._channel = self._start()
        complete = False
        try:
            self._channel.send(f"{len(message)} {nonce}\n".encode() + message)
            seconds = None if as_it_comes else READ_SECONDS
            for number, status, text in _parts(self._channel, f"\n{nonce} ".encode(), keep, seconds):
                self._greeted = True
                complete = number == "end"
                # Before the start there is only noise: a login script's greetings, a daemon that kept our output.
                if number not in ("start", "end"):
                    yield int(number), int(status), text
        except _Ended as end:
            raise self._translated(end.rest) from None
        except ConnectionLost as error:
            raise self._translated(str(error)) from None
        finally:
            if not complete:
                self.close()

    def _translated(self, why: str) -> Exception:
        """Why there is no answer: the shell's own words, or else `why`."""
        words = self._channel.complaint().strip()[-500:] if self._channel else ""
        if self._greeted:
            return ConnectionLost(f"{self._name}: the session ended in the middle. {words or why}".strip())
        return ConnectError(f"{self._name}: no shell: {words or why or 'the session ended at once'}")


class _Ended(Exception):
    """The stream ended before the answer was complete."""

    def __init__(self, rest: str) -> None:
        self.rest = rest


def _parts(channel: Channel, mark: bytes, keep: int, seconds: float | None) -> Iterator[tuple[str, str, str]]:
    """Cut a stream at its marks, up to and with the one that says `end`."""
    buffer = bytearray()
    searched = 0
    while True:
        found = buffer.find(mark, searched)
        end = buffer.find(b"\n", found + len(mark)) if found >= 0 else -1
        if end < 0:
            searched = max(0, len(buffer) - len(mark)) if found < 0 else found
            if found < 0 and len(buffer) > 2 * keep:
                del buffer[:-keep]
                searched = 0
            chunk = channel.receive(seconds)
            if not chunk:
                raise _Ended(bytes(buffer[-300:]).decode("utf-8", "replace").strip())
            buffer += chunk
            if len(buffer) > MAX_REPLY:
                raise ConnectionLost(f"it answers with more than {MAX_REPLY >> 20} MiB.")
            continue
        number, status = bytes(buffer[found + len(mark) : end]).decode().split()
        yield number, status, bytes(buffer[max(0, found - keep) : found]).decode("utf-8", "surrogateescape")
        if number == "end":
            return
        del buffer[: end + 1]
        searched = 0


def _spell(step: Step, reveal: Callable[[Secret], str]) -> str:
    """A step as shell text; every value goes through `shlex.quote` or base64."""
    match step:
        case Put(path, content, mode, owner, group):
            arguments = " ".join(shlex.quote(v or "") for v in (path, mode, owner, group))
            return f"put {arguments} <<'.'\n{_base64(content, reveal)}\n."
        case Run(argv, stdin, _):
            if not all(isinstance(word, str) for word in argv):
                raise ContractError("a resource type", f"A word of `{argv[0]} ...` is no text.")
            command = " ".join(map(shlex.quote, argv))
            return _fed("", command, stdin, reveal)
        case Sh(text, args, stdin, _):
            arguments = " ".join(map(shlex.quote, args))
            return _fed(f"step() {{ set -e; set -- {arguments}\n{text}\n}}\n", "step", stdin, reveal)
        case Request():
            raise ContractError("a resource type", f"A host takes no requests to an API: {step}.")


def _fed(before: str, command: str, stdin: str | bytes | Secret | None, reveal: Callable[[Secret], str]) -> str:
    if stdin is None:
        return f"{before}{command} </dev/null"
    return f"{before}base64 -d <<'.' | {command}\n{_base64(stdin, reveal)}\n."


def _base64(content: str | bytes | Secret, reveal: Callable[[Secret], str]) -> str:
    if isinstance(content, Secret):
        content = reveal(content)
    raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    return base64.encodebytes(raw).decode().rstrip("\n")


def _is_secret(step: Step) -> bool:
    match step:
        case Put(content=value) | Run(stdin=value) | Sh(stdin=value):
            return isinstance(value, Secret)
        case Request():
            raise ContractError("a resource type", f"A host takes no requests to an API: {step}.")


@cache
def _prelude() -> str:
    return (Path(__file__).parent / "prelude.sh").read_text()
