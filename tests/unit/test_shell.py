"""The shell that reads and steps go through, over a process on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.connections import shell
from reconciler.connections.local import connect
from reconciler.connections.process import ProcessChannel
from reconciler.connections.shell import Shell
from reconciler.errors import ConnectError, ConnectionLost, TargetMoved
from reconciler.model import Action, Change, Put, Reply, Run, Script, Sh, Step, StepResult, Target, Work
from reconciler.types.host.directory import TYPE as DIRECTORY


def test_a_host_that_hangs_while_it_looks_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "READ_SECONDS", 0.5)
    monkeypatch.setattr(shell, "STALE_SECONDS", 0.4)
    here = connect(Target("here", "local"))
    assert here.read([Script("echo up")]) == [Reply("up\n")]
    with pytest.raises(ConnectionLost, match=r"^here: the session ended in the middle. no answer within 0 s."):
        here.read([Script("sleep 20")])
    assert here.read([Script("echo again")]) == [Reply("again\n")], "the next look gets a new session"
    here.close()


def test_a_step_may_take_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "READ_SECONDS", 0.2)
    here = connect(Target("here", "local"))
    done = list(here.execute([Work("a", [Sh("sleep 1; echo slow", title="wait")])], lambda secret: ""))
    assert done == [StepResult("a", 0, 0, "slow\n")]
    here.close()


def test_a_host_that_answers_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "MAX_REPLY", 1 << 20)
    here = connect(Target("here", "local"))
    with pytest.raises(ConnectionLost, match="it answers with more than 1 MiB"):
        here.read([Script("yes")])
    here.close()


def test_what_cannot_be_started_names_its_target() -> None:
    shell = Shell("web1", lambda: ProcessChannel(["/no/such/program"]))
    with pytest.raises(ConnectError, match=r"^web1: /no/such/program cannot be started: No such file or directory\.$"):
        shell.read([Script("true")])


def test_a_folder_below_nothing_says_what_is_missing(tmp_path: Path, here: Shell) -> None:
    assert DIRECTORY.steps is not None
    made = Change(DIRECTORY("here", path=f"{tmp_path}/no/sub"), Action.CREATE, None, {})
    (result,) = here.execute([Work("a", list(DIRECTORY.steps(made)))], reveal)
    assert (result.status, result.output) == (1, f"there is no folder {tmp_path}/no; describe it, too")


# ------------------------------------------------------------------------------------------------ one round trip


@pytest.fixture
def here() -> Iterator[Shell]:
    one = connect(Target("here", "local"))
    yield one
    one.close()


def reveal(secret: object) -> str:
    return ""


def quick(text: str, title: str = "step") -> Sh:
    return Sh(text, title=title, quick=True)


def test_a_target_that_answers_as_expected_is_changed_and_read_again(here: Shell, tmp_path: Path) -> None:
    """Bytes of any kind, an exit status, no line end at the end: the digest is over exactly what was answered."""
    reads = [
        Script('printf "a\\0\\377\\n"; exit 3'),
        Script('for p; do case $p in x) cat "$2" ;; esac; done', ["x", str(tmp_path / "f")]),
    ]
    (tmp_path / "f").write_text("before")
    expected = list(zip(reads, here.read(reads), strict=True))
    batch = [Work("a", [Put(str(tmp_path / "f"), "after\n")])]
    *results, replies = here.transact(expected, batch, reveal, reads)
    assert results == [StepResult("a", 0, 0)]
    assert replies == [Reply("a\0\udcff\n", 3), Reply("after\n")]


@pytest.mark.parametrize("now", ["after", "before\n", "", None])
def test_a_target_that_has_moved_is_not_touched_and_can_be_asked_again(
    here: Shell, now: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "f"
    file.write_text("before")
    look = [Script('cat "$1"', [str(file)])]
    expected = list(zip(look, here.read(look), strict=True))
    file.unlink()
    if now is not None:
        file.write_text(now)
    batch = [Work("a", [quick(f"touch {tmp_path}/quick"), Run(("touch", f"{tmp_path}/slow"))])]
    channel = here._channel
    with pytest.raises(TargetMoved):
        list(here.transact(expected, batch, reveal, look))
    assert {p.name for p in tmp_path.iterdir()} <= {"f"}
    assert here._channel is channel, "the session goes on"
    assert here.read(look) == [Reply(now or "", 0 if now is not None else 1)]


def test_quick_steps_keep_their_outputs_apart_and_stop_what_stands_on_them(here: Shell, tmp_path: Path) -> None:
    steps: list[Step] = [
        quick("echo one; case a in a) echo ')' ;; esac"),
        Put(str(tmp_path / "no/f"), "x"),
        quick("echo never"),
    ]
    batch = [
        Work("a", steps),
        Work("b", [quick("echo b"), Run(("echo", "b"))], ["a"]),
        Work("c", [quick("false; echo not after a failure"), Sh("echo slow", title="c")]),
        Work("d", [Sh("printf loud; exit 5", title="d"), quick("echo no")]),
        Work("e", [quick("printf '\\n\\n'; echo last")]),
    ]
    *results, replies = here.transact((), batch, reveal, [Script("echo read")])
    assert [(r.address, r.index, r.status) for r in results if isinstance(r, StepResult)] == [
        ("a", 0, 0),
        ("a", 1, 1),
        ("a", 2, None),
        ("b", 0, None),
        ("b", 1, None),
        ("c", 0, 1),
        ("c", 1, None),
        ("d", 0, 5),
        ("d", 1, None),
        ("e", 0, 0),
    ]
    assert [r.output for r in results if isinstance(r, StepResult) and r.output] == [
        "one\n)",
        f"there is no folder {tmp_path}/no; describe it, too",
        "loud",
        "\n\nlast",
    ]
    assert replies == [Reply("read\n")]


class Recorded(ProcessChannel):
    """Keeps what each receive brought."""

    def __init__(self, argv: list[str]) -> None:
        super().__init__(argv)
        self.received: list[bytes] = []

    def receive(self, seconds: float | None) -> bytes:
        content = super().receive(seconds)
        self.received.append(content)
        return content


def recorded(prelude: str = "") -> tuple[Shell, list[Recorded]]:
    channels: list[Recorded] = []

    def start() -> Recorded:
        channels.append(Recorded(["sh", "-c", shell.LOOP]))
        return channels[-1]

    return Shell("here", start, f"ROOT= OFFLINE=\n{prelude}"), channels


def test_the_answers_of_quick_steps_travel_together(tmp_path: Path) -> None:
    """Of a hundred that take a second: a packet for each fraction of that second, and not a hundred."""
    here, channels = recorded()
    batch = [Work(str(i), [quick(f"echo {i}")]) for i in range(100)]
    results = list(here.execute(batch, reveal))
    here.close()
    assert [r.output for r in results] == [str(i) for i in range(100)]
    assert len(channels[0].received) < 50


def test_a_quick_answer_does_not_wait_for_a_step_that_takes_its_time(tmp_path: Path) -> None:
    """What was kept goes out before a step that may take long; else nobody could tell what hangs."""
    here, _ = recorded()
    gate = tmp_path / "gate"
    wait = Sh('while [ ! -e "$1" ]; do sleep 0.01; done', (str(gate),), title="wait")
    seen = []
    for result in here.execute([Work("a", [quick("echo a")]), Work("b", [wait])], reveal):
        seen.append(result.address)
        gate.touch()
    here.close()
    assert seen == ["a", "b"], "without the first answer, nobody would have opened the gate"


def test_where_there_is_no_clock_every_answer_goes_out_at_once() -> None:
    """An image without /proc."""
    here, channels = recorded("read() { return 1; }")
    results = list(here.execute([Work(str(i), [quick(f"echo {i}")]) for i in range(5)], reveal))
    here.close()
    assert [r.output for r in results] == list("01234")
    assert b"".join(channels[0].received).count(b"start") == 1


def test_a_daemon_that_keeps_the_output_of_a_slow_step_holds_nothing_up(here: Shell) -> None:
    batch = [Work("a", [Sh("sleep 20 & echo started", title="start")]), Work("b", [quick("echo b")])]
    results = list(here.execute(batch, reveal))
    assert [(r.address, r.output) for r in results] == [("a", "started\n"), ("b", "b")]
