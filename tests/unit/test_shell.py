"""The shell that reads and steps go through, over a process on this machine."""

from __future__ import annotations

import pytest

from reconciler.connections import shell
from reconciler.connections.local import connect
from reconciler.errors import ConnectionLost
from reconciler.model import Reply, Script, Sh, StepResult, Target, Work


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
