"""Reads and steps over one POSIX shell that stays open: the common part of ssh, local and image connections.

One program is started on the target: a loop that reads a length, then that many bytes of script, and evaluates them.
Each message asks for a round of reads or a batch of steps; its answers come back as text between marks that carry a
random number of 128 bits, so that no output can be taken for a mark. So a host is probed and changed over one
connection and one exec, with one round trip per message, and no value ever stands in the process list.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, Protocol

from reconciler.errors import ConnectError, ConnectionLost, ContractError, TargetMoved
from reconciler.model import Put, Read, Reply, Request, Run, Script, Secret, Sh, Step, StepResult, Work

LOOP: Final = 'while read -r n k; do m=$(head -c "$n"); case $m in *"#$k") eval "$m" ;; *) exit 1 ;; esac; done'
"""What runs on the target. A message that was cut off (we were killed, or the connection was) lacks its last word, and
nothing of it is run."""

# mark: say at once that a part has ended. begin, tell, flush: say it together with others that end within 0.4 seconds
# (and 32 KiB). The clock costs no program; where there is none, everything is said at once.
_WORDS: Final = """\
mark() { printf '\\nNONCE %s %s\\n' "$1" "$2"; }
clock() { read -r c _ 2>/dev/null </proc/uptime && c=1${c%.*}${c#*.}; }
begin() { clock; b= t=$c; tell start 0; }
flush() { printf %s "$b"; b= t=$c; }
tell() {
    b="$b
NONCE $1 $2
"
    clock && [ $((c - t)) -lt 40 ] && [ ${#b} -lt 32768 ] || flush
}
"""

_MOVED: Final = "begin; tell moved 1; tell end 0; flush"

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
        script = self._together(reads, 0)
        used, began = self._channel is not None, time.monotonic()
        try:
            answers = list(self._ask(f"begin\n{script}", sys.maxsize))
        except ConnectionLost:
            if not used or time.monotonic() - began > STALE_SECONDS:
                raise
            # It died while nobody used it, which shows at once; and looking twice does no harm.
            answers = list(self._ask(f"begin\n{script}", sys.maxsize))
        return [Reply(text, status) for _, status, text in answers]

    def execute(self, batch: Sequence[Work], reveal: Callable[[Secret], str]) -> Iterator[StepResult]:
        """See `Connection.execute`."""
        for result in self.transact((), batch, reveal, ()):
            if isinstance(result, StepResult):
                yield result

    def transact(
        self,
        expected: Sequence[tuple[Read, Reply]],
        batch: Sequence[Work],
        reveal: Callable[[Secret], str],
        reads: Sequence[Read],
    ) -> Iterator[StepResult | list[Reply]]:
        """See `Transacting.transact`. The host itself compares the digest of what it reads now."""
        script, steps = _steps(batch, reveal)
        # What became of the steps is told before the reads, which may hang.
        script = f"begin\n{script}flush\n{self._together(reads, len(steps))}"
        if expected:
            nonce = secrets.token_hex(16)
            look = "".join(f"{self._isolated(one)}; printf '\\n{nonce} %s\\n' $?\n" for one, _ in expected)
            seen = hashlib.sha256()
            for _, reply in expected:
                seen.update(f"{reply.text}\n{nonce} {reply.status}\n".encode("utf-8", "surrogateescape"))
            same = f'[ "$(glance | sha256sum)" = "{seen.hexdigest()}  -" ]'
            script = f"glance() {{\n{look}}}\nif {same}; then\n{script}else {_MOVED}; fi\n"
        replies: list[Reply] = []
        moved = False
        for number, status, text in self._ask(script, MAX_OUTPUT, len(steps)):
            if number < 0:
                moved = True
                continue
            if number >= len(steps):
                replies.append(Reply(text, status))
                continue
            address, position, secret = steps[number]
            output = WITHHELD if secret and text.strip() else text
            yield StepResult(address, position, None if status < 0 else status, output)
        if moved:
            raise TargetMoved(f"{self._name}: it is not as it was when the plan was made.")
        yield replies

    def _isolated(self, read: Read) -> str:
        """A read as shell text that cannot disturb the next one."""
        if not isinstance(read, Script):
            raise ContractError("a resource type", f"{self._name} is a host; it answers scripts, not {read}.")
        return f"( set -- {' '.join(map(_quote, read.args))}\n{read.sh}\n) </dev/null 2>/dev/null"

    def _together(self, reads: Sequence[Read], first: int) -> str:
        """The end of a message: the reads, all of whose answers travel together, and the last mark."""
        if not reads:
            return "tell end 0; flush\n"
        parts = (f"{self._isolated(one)}; mark {first + i} $?\n" for i, one in enumerate(reads))
        return f"{{ flush; {''.join(parts)}mark end 0; }} | dd ibs=65536 obs=1048576 2>/dev/null\n"

    def settle(self, witnesses: Sequence[str]) -> None:
        """See `Connection.settle`. Steps on a host end with their message, so that there is nothing to wait for."""

    def close(self) -> None:
        """See `Connection.close`."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._greeted = False

    def _ask(self, script: str, keep: int, steps: int = 0) -> Iterator[tuple[int, int, str]]:
        """Send one message; yield `(number, status, text)` of each part, -1 where the target has moved.

        A channel that was not read to the end of the answer is closed: what is left in it would spoil the next one.

        Args:
            keep: bytes of the text of a step: its end. The text of a read is kept whole.
            steps: how many of the first parts are steps, which may take as long as they take.
        """
        nonce = secrets.token_hex(16)
        prelude = "" if self._greeted else _prelude()
        words = _WORDS.replace("NONCE", nonce)
        message = f"{self._settings}\n{prelude}{words}{script}#{nonce}".encode("utf-8", "surrogateescape")
        if self._channel is None:
            try:
                self._channel = self._start()
            except ConnectError as error:
                # Whoever finds what is wrong with a configuration or a program does not know for whom.
                if str(error).startswith(self._name):
                    raise
                raise type(error)(f"{self._name}: {error}") from None
        complete = False
        try:
            self._channel.send(f"{len(message)} {nonce}\n".encode() + message)
            parts = _Parts(self._channel, f"\n{nonce} ".encode())
            while not complete:
                running = steps > 0 and parts.started
                number, status, text = parts.next(
                    keep if running or not parts.started else sys.maxsize, None if running else READ_SECONDS
                )
                self._greeted = True
                complete = number == "end"
                # Before the start there is only noise: a login script's greetings, a daemon that kept our output.
                if number == "moved":
                    yield -1, 1, ""
                elif number not in ("start", "end"):
                    steps -= 1
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


class _Parts:
    """Cuts a stream at its marks."""

    def __init__(self, channel: Channel, mark: bytes) -> None:
        self._channel, self._mark = channel, mark
        self._buffer = bytearray()
        self._from = 0
        self.started = False

    def next(self, keep: int, seconds: float | None) -> tuple[str, str, str]:
        """Number, status and text of the next part.

        Args:
            keep: how many bytes of the text.
            seconds: how long to wait for more of it.
        """
        buffer, mark = self._buffer, self._mark
        if self._from > 65536:
            del buffer[: self._from]
            self._from = 0
        searched = self._from
        while True:
            found = buffer.find(mark, searched)
            end = buffer.find(b"\n", found + len(mark)) if found >= 0 else -1
            if end >= 0:
                break
            searched = max(self._from, len(buffer) - len(mark)) if found < 0 else found
            if found < 0 and len(buffer) - self._from > 2 * keep:
                del buffer[:-keep]
                self._from = searched = 0
            chunk = self._channel.receive(seconds)
            if not chunk:
                raise _Ended(bytes(buffer[-300:]).decode("utf-8", "replace").strip())
            buffer += chunk
            if len(buffer) > MAX_REPLY:
                raise ConnectionLost(f"it answers with more than {MAX_REPLY >> 20} MiB.")
        number, status = buffer[found + len(mark) : end].decode().split()
        text = buffer[max(self._from, found - keep) : found].decode("utf-8", "surrogateescape")
        self._from = end + 1
        self.started = True
        return number, status, text


def _steps(batch: Sequence[Work], reveal: Callable[[Secret], str]) -> tuple[str, list[tuple[str, int, bool]]]:
    """A batch as shell text, and for each of its steps the address, the position, and whether it handles a secret.

    What a quick step prints is kept, so that its answer travels with those of its neighbours; of any other step it is
    passed on as it comes, after all that was kept.
    """
    index_of = {work.address: i for i, work in enumerate(batch)}
    steps: list[tuple[str, int, bool]] = []
    parts = []
    for number, work in enumerate(batch):
        broken = "".join(f"${{f{index_of[a]}}}" for a in work.after if a in index_of)
        parts.append(f"f{number}={broken}\n")
        for position, step in enumerate(work.steps):
            text = _spell(step, reveal)
            if _is_quick(step):
                parts.append(f"quick() {{\n{text}\n}}\n")
                run = "o=$(quick 2>&1); s=$?; b=$b$o"
            else:
                run = f"flush; ( {text}\n) 2>&1; s=$?"
            run += f"; [ $s -eq 0 ] || f{number}=1"
            parts.append(f'if [ -z "$f{number}" ]; then {run}; else s=-1; fi; tell {len(steps)} $s\n')
            steps.append((work.address, position, _is_secret(step)))
    return "".join(parts), steps


def _is_quick(step: Step) -> bool:
    return isinstance(step, Put) or (isinstance(step, Run | Sh) and step.quick)


def _spell(step: Step, reveal: Callable[[Secret], str]) -> str:
    """A step as shell text; every value goes through `shlex.quote` or base64."""
    match step:
        case Put(path, content, mode, owner, group):
            arguments = " ".join(_quote(v or "") for v in (path, mode, owner, group))
            return f"put {arguments} <<'.'\n{_base64(content, reveal)}\n."
        case Run(argv, stdin, _):
            if not all(isinstance(word, str) for word in argv):
                raise ContractError("a resource type", f"A word of `{argv[0]} ...` is no text.")
            command = " ".join(map(_quote, argv))
            return _fed("", command, stdin, reveal)
        case Sh(text, args, stdin, _):
            arguments = " ".join(map(_quote, args))
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
    return base64.b64encode(raw).decode()


def _is_secret(step: Step) -> bool:
    match step:
        case Put(content=value) | Run(stdin=value) | Sh(stdin=value):
            return isinstance(value, Secret)
        case Request():
            raise ContractError("a resource type", f"A host takes no requests to an API: {step}.")


# The same paths come again and again: in each look at each host.
_quote = lru_cache(maxsize=16384)(shlex.quote)


@cache
def _prelude() -> str:
    return (Path(__file__).parent / "prelude.sh").read_text()
