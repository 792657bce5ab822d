"""The guard's decisions, and its protocol with hosts that are folders: tests/lab/test_guard.py has the real ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler import guard_scripts, journal
from reconciler.apply import Result
from reconciler.connections import Pool, Reveal, image
from reconciler.connections.shell import Shell
from reconciler.errors import ConnectError, ConnectionLost
from reconciler.guard import Guarding
from reconciler.model import (
    Action,
    Change,
    Guard,
    Lifecycle,
    Outcome,
    Read,
    Reply,
    Resource,
    Risk,
    Script,
    Secret,
    Sh,
    StepResult,
    Target,
    Work,
)
from reconciler.plan import Plan
from reconciler.planfile import from_text, to_text
from reconciler.project import Project
from reconciler.registry import default
from reconciler.types.host.group import TYPE as GROUP
from tests.simulated import Killed
from tests.texts import HEAD, problems_of, registry

LOCK_OUT = Risk("lock-out", "nobody gets in")
PAM = "/etc/pam.d/sshd"


# ------------------------------------------------------------------------------------------------ decisions


def change(
    kind: str,
    host: str,
    *,
    risk: Risk | None = None,
    guard: Any = None,
    origin: str = "File/f",
    **fields: Any,
) -> Change[Any]:
    bare = default().type_of(kind)(host, **fields)
    lifecycle = Lifecycle.model_validate({"guard": guard})
    resource = Resource(bare.type, bare.target, bare.key, bare.spec, origin, lifecycle=lifecycle)
    return Change(resource, Action.CREATE, None, {}, risk=risk)


def guarding(*changes: Change[Any], **targets: Target) -> Guarding:
    hosts = {c.resource.target for c in changes}
    found = {name: targets.get(name, Target(name, "ssh", {"user": "admin"})) for name in hosts}
    return Guarding({c.address: c for c in changes}, found, default())


ALICE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILLC7u/rhg9nprc/jcF5As5udG0tC7TEy+BPCxl9WH/G"
DEFAULT = Guard()
CHOSEN = {"canary": 2, "confirmWithin": "3min"}
GUARDED: dict[str, tuple[Change[Any], Target | None, Guard | None]] = {
    "a lock-out": (change("host.file", "h", path=PAM, risk=LOCK_OUT), None, DEFAULT),
    "no risk": (change("host.file", "h", path="/etc/motd"), None, None),
    "another risk": (change("host.file", "h", path="/x", risk=Risk("data-loss", "x")), None, None),
    "an image": (change("host.file", "h", path=PAM, risk=LOCK_OUT), Target("h", "image"), None),
    "this machine": (change("host.file", "h", path=PAM, risk=LOCK_OUT), Target("h", "local"), DEFAULT),
    "never": (change("host.file", "h", path=PAM, risk=LOCK_OUT, guard="Never"), None, None),
    "asked for": (change("host.file", "h", path="/etc/motd", guard=CHOSEN), None, Guard.model_validate(CHOSEN)),
    "our own account": (change("host.user", "h", name="admin"), None, DEFAULT),
    "another account": (change("host.user", "h", name="alice"), None, None),
    "our own key": (change("host.authorizedKey", "h", user="admin", key=ALICE), None, DEFAULT),
    "root's key, by default": (change("host.authorizedKey", "h", user="root", key=ALICE), Target("h", "ssh"), DEFAULT),
    "nothing to put back": (change("host.package", "h", name="sudo", guard=CHOSEN), None, None),
    "a second factor": (
        change("host.oathUser", "h", user="alice", path="/etc/users.oath", risk=LOCK_OUT),
        None,
        None,
    ),
}


@pytest.mark.parametrize("case", GUARDED)
def test_what_is_guarded(case: str) -> None:
    one, target, wanted = GUARDED[case]
    found = guarding(one, **({"h": target} if target else {}))
    assert found.guards.get(one.address) == wanted
    marked = found.marked()[one.address]
    assert (marked.risk is not None and marked.risk.guard.startswith("guarded: ")) == (wanted is not None)


def test_a_batch_goes_out_in_parts() -> None:
    """What has nothing to do with a guard, then the guarded ones with their reload, then what stands on them."""
    unit = change("host.unit", "h", unit="ssh.service", watch=(PAM,), on_change="reload")
    changes = {
        "plain": change("host.file", "h", path="/etc/a"),
        "risky": change("host.file", "h", path=PAM, risk=LOCK_OUT),
        "between": change("host.file", "h", path="/etc/b"),
        "risky too": change("host.file", "h", path="/etc/sudoers", risk=LOCK_OUT),
        "reload": unit,
        "later": change("host.file", "h", path="/etc/c"),
    }
    name_of = {one.address: name for name, one in changes.items()}
    stands_on = {"between": ["risky"], "risky too": ["between", "plain"], "reload": ["risky"], "later": ["reload"]}
    batch = [(one.address, [changes[b].address for b in stands_on.get(name, ())]) for name, one in changes.items()]
    ours = guarding(*changes.values())
    parts = []
    while batch:
        part = ours.first_part(batch)
        parts.append([name_of[address] for address, _ in part])
        gone = {address for address, _ in part}
        batch = [(a, [b for b in nearest if b not in gone]) for a, nearest in batch if a not in gone]
    assert parts == [["plain"], ["risky", "between", "risky too", "reload"], ["later"]]


def risky(host: str, origin: str = "File/f", path: str = PAM, **guard: Any) -> Change[Any]:
    return change("host.file", host, path=path, risk=LOCK_OUT, origin=origin, guard=guard or None)


def test_hosts_wait_for_their_canaries() -> None:
    changes = [risky(h, canary=2) for h in ("c", "a", "d", "b")] + [risky("a", "File/g", "/etc/sudoers")]
    plain = {c.address: list[str]() for c in changes}
    edges, waits = guarding(*changes).ordered(plain)
    a, b, c, d = (f"host.file[{h}:{PAM}]" for h in "abcd")
    assert waits == {c: "a, b", d: "a, b"}
    assert edges[c] == edges[d] == ["File/f on a, b"]
    assert edges["File/f on a, b"] == [a, b]
    assert not edges[a]
    assert not edges[b]


def test_no_canary_where_it_is_not_wanted_or_all_are() -> None:
    for count in (0, 3, 4):
        changes = [risky(h, canary=count) for h in "abc"]
        plain = {c.address: list[str]() for c in changes}
        assert guarding(*changes).ordered(plain) == (plain, {})


def test_canaries_that_would_wait_in_a_circle_are_left_out() -> None:
    """On host a something waits for host b, which would wait for host a."""
    changes = [risky("a"), risky("b"), risky("a", "File/g", "/etc/sudoers"), risky("b", "File/g", "/etc/sudoers")]
    edges: dict[str, list[str]] = {c.address: [] for c in changes}
    edges[changes[0].address] = [changes[1].address]
    found, waits = guarding(*changes).ordered(edges)
    assert waits == {changes[3].address: "a"}
    assert found[changes[1].address] == []


def test_a_guard_that_gives_no_time_is_refused(tmp_path: Path) -> None:
    text = (
        f"{HEAD}kind: Host\nmetadata: {{name: web1}}\nspec: {{}}\n---\n{HEAD}kind: File\nmetadata: {{name: f}}\n"
        "spec: {hosts: [web1], path: /a, content: a}\nlifecycle: {guard: {confirmWithin: 2s}}\n"
    )
    (problem,) = problems_of(tmp_path, text)
    assert "at least 5s" in problem
    (problem,) = problems_of(tmp_path, text.replace("2s", "soon"))
    assert "confirmWithin" in problem


@pytest.mark.parametrize("name", ["ARM", "DISARM", "REVERT", "REVERT_NOW", "STATE", "STILL"])
def test_the_scripts_are_posix_sh(name: str) -> None:
    text = getattr(guard_scripts, name)
    shell = shutil.which("dash") or "sh"
    assert subprocess.run([shell, "-n"], input=text, text=True, capture_output=True, check=False).stderr == ""


# ------------------------------------------------------------------------------------------------ protocol


@dataclass
class Fleet:
    """Hosts that are folders, but count as live ones: what the scripts of the guard would do is done here.

    Attributes:
        states: window -> what `STATE` says of it.
        log: (host, what happened), in order.
        on: what happens before a moment; may raise.
    """

    folder: Path
    states: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Path] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    on: Callable[[str, str], None] = lambda host, moment: None
    users: Counter[str] = field(default_factory=Counter)

    def open(self, target: Target, reveal: Reveal) -> FolderHost:
        root = self.folder / target.name
        inner = image.connect(Target(target.name, "image", {"root": str(root)}))
        if target.settings.get("fresh"):
            self.event(target.name, "login")
        return FolderHost(self, target.name, root, inner)

    def event(self, host: str, moment: str) -> None:
        self.log.append((host, moment))
        self.on(host, moment)

    def revert(self, host: str, name: str) -> None:
        """The host takes everything back, by itself or because it is told to."""
        if self.states.get(name) == "armed":
            shutil.rmtree(self.folder / host / "etc")
            shutil.copytree(self.kept[name], self.folder / host / "etc")
            self.states[name] = "reverted"

    def names(self, host: str) -> list[str]:
        return [moment for where, moment in self.log if where == host]


class FolderHost:
    """A connection to one of them."""

    def __init__(self, fleet: Fleet, name: str, root: Path, inner: Shell) -> None:
        self._fleet, self._name, self._root, self._inner = fleet, name, root, inner

    def read(self, reads: Sequence[Read]) -> Sequence[Reply]:
        out = []
        for one in reads:
            assert isinstance(one, Script)
            if one.sh == "id -u":
                out.append(Reply(f"{self._fleet.users[self._name]}\n"))
            elif one.sh == guard_scripts.STATE:
                self._fleet.event(self._name, "look")
                out.append(Reply(self._fleet.states.get(one.args[0], "gone") + "\n"))
            elif one.sh.startswith(("sshd -t", "! command -v visudo")):
                out.append(Reply("", 0))
            else:
                out += self._inner.read([one])
        return out

    def execute(self, batch: Sequence[Work], reveal: Callable[[Secret], str]) -> Iterator[StepResult]:
        failed = set[str]()
        for work in batch:
            if failed & {*work.after}:
                failed.add(work.address)
                yield from (StepResult(work.address, i, None) for i in range(len(work.steps)))
            elif work.address.startswith("guard["):
                (step,) = work.steps
                assert isinstance(step, Sh)
                result = self._guard(work.address, step)
                if result.status:
                    failed.add(work.address)
                yield result
            else:
                self._fleet.event(self._name, "change")
                for result in self._inner.execute([Work(work.address, work.steps)], reveal):
                    if result.status:
                        failed.add(work.address)
                    yield result

    def _guard(self, address: str, step: Sh) -> StepResult:
        fleet, name = self._fleet, step.args[0]
        moments = {
            guard_scripts.ARM: "arm",
            guard_scripts.STILL: "still",
            guard_scripts.DISARM: "disarm",
            guard_scripts.REVERT_NOW: "revert",
        }
        moment = moments[step.sh]
        fleet.event(self._name, moment)
        state = fleet.states.get(name, "gone")
        if moment == "arm":
            if "armed" in fleet.states.values() and self._name in (n for n, m in fleet.log if m == "other"):
                return StepResult(address, 0, 1, "another guarded change of this host is not confirmed yet\n")
            fleet.kept[name] = self._root.parent / f"kept-{name}"
            shutil.copytree(self._root / "etc", fleet.kept[name])
            fleet.states[name] = "armed"
            fleet.event(self._name, "armed")
            return StepResult(address, 0, 0, "user 0\n")
        if moment == "still":
            return StepResult(address, 0, int(state != "armed"))
        if moment == "disarm":
            if state not in ("armed", "confirmed"):
                return StepResult(address, 0, 1, "the host has taken it back already\n")
            fleet.states[name] = "confirmed"
            fleet.event(self._name, "disarmed")
            del fleet.states[name]
            return StepResult(address, 0, 0)
        fleet.revert(self._name, name)
        return StepResult(address, 0, 0, fleet.states.get(name, "gone") + "\n")

    def settle(self, witnesses: Sequence[str]) -> None:
        self._inner.settle(witnesses)

    def close(self) -> None:
        self._inner.close()


class Site:
    """A desired state of hosts that are folders."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        self.folder = folder
        self.fleet = Fleet(folder)
        (folder / "desired").mkdir()
        for host in hosts:
            (folder / host / "etc/pam.d").mkdir(parents=True)
            (folder / host / PAM[1:]).write_text("old\n")
            self.put("Host", host, {})
        self.reborn()

    def put(self, kind: str, name: str, spec: Mapping[str, Any], **lifecycle: Any) -> None:
        document = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        (self.folder / f"desired/{kind}-{name}.yaml").write_text(json.dumps(document | {"lifecycle": lifecycle}))

    def file(self, name: str, path: str, *hosts: str, content: str = "new\n", **lifecycle: Any) -> None:
        self.put("File", name, {"hosts": hosts, "path": path, "content": content}, **lifecycle)

    def reborn(self) -> None:
        """A new process of the tool."""
        self.project = Project(self.folder / "desired", self.folder / "state", registry())
        self.project.parallel = 1

    def pool(self) -> Pool:
        return Pool(self.project.desired().targets, parallel=self.project.parallel, opener=self.fleet.open)

    def plan(self) -> Plan:
        with self.pool() as pool:
            return self.project.plan(pool=pool)

    def apply(self) -> Result:
        with self.pool() as pool:
            made = self.project.plan(pool=pool)
            return self.project.apply(made, pool, sleep=lambda seconds: self.fleet.event("-", "sleep"))

    def resume(self) -> Result:
        from reconciler import apply as apply_stage

        with self.pool() as pool:
            record = journal.find_run(self.project.store, None, unfinished=True)
            return apply_stage.resume(record, self.project._means(pool, sleep=lambda seconds: None))

    def pam(self, host: str = "a") -> str:
        return (self.folder / host / PAM[1:]).read_text()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    one = Site(tmp_path, "a")
    one.file("pam", PAM, "a")
    return one


def only(result: Result) -> tuple[Outcome, str]:
    ((_, end),) = result.ended.items()
    return end.outcome, end.reason


def raising(moment: str, error: Callable[[], BaseException], times: int = 1) -> Callable[[str, str], None]:
    left = [times]

    def hook(host: str, now: str) -> None:
        if now == moment and left[0]:
            left[0] -= 1
            raise error()

    return hook


def refused() -> ConnectError:
    return ConnectError("a: takes none of our keys.")


def test_arm_change_log_in_disarm(site: Site) -> None:
    assert only(site.apply()) == (Outcome.DONE, "")
    assert site.fleet.names("a") == ["arm", "armed", "change", "login", "disarm", "disarmed"]
    assert site.pam() == "new\n"
    assert site.plan().empty


def test_each_further_change_looks_whether_the_guard_still_stands(site: Site) -> None:
    site.file("sudo", "/etc/sudoers", "a")

    def late(host: str, moment: str) -> None:
        if moment == "change":
            site.fleet.revert("a", next(iter(site.fleet.states)))

    site.fleet.on = late
    result = site.apply()
    assert site.fleet.names("a").count("change") == 1
    assert {e.outcome for e in result.ended.values()} == {Outcome.FAILED}
    assert any("`confirmWithin`" in e.reason for e in result.ended.values())
    assert not (site.folder / "a/etc/sudoers").exists()


def test_a_step_that_outlasts_the_guard_is_not_said_to_be_taken_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes after the host has put the old state back."""
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0], sleep=time.sleep)
    monkeypatch.setattr("reconciler.guard.time", clock)

    def slow(host: str, moment: str) -> None:
        if moment == "change":
            passed[0] = 1000
            site.fleet.revert("a", next(iter(site.fleet.states)))

    site.fleet.on = slow
    outcome, reason = only(site.apply())
    assert outcome is Outcome.FAILED
    assert site.pam() == "new\n"
    assert reason.endswith("It was reverted; what a step wrote after that may still be there: plan again.")
    assert "too late" in reason


def test_a_login_that_does_not_work_reverts_over_the_old_connection(site: Site) -> None:
    site.fleet.on = raising("login", refused, 2)
    outcome, reason = only(site.apply())
    assert outcome is Outcome.FAILED
    assert reason == ("a new login did not work (a: takes none of our keys). It was reverted: the old state is back.")
    assert site.pam() == "old\n"
    assert site.fleet.names("a") == ["arm", "armed", "change", "login", "login", "revert"]
    assert [c.action for c in site.plan().changes] == [Action.UPDATE]
    assert not [r for r in journal.runs(site.project.store) if r.ended is None]


def test_a_login_that_works_at_the_second_attempt_is_enough(site: Site) -> None:
    site.fleet.on = raising("login", refused)
    assert only(site.apply())[0] is Outcome.DONE


def test_a_login_without_the_rights_that_we_had_reverts(site: Site) -> None:
    site.fleet.users["a"] = 1000
    outcome, reason = only(site.apply())
    assert outcome is Outcome.FAILED
    assert "a new login has the rights of user 1000, not of 0" in reason
    assert site.pam() == "old\n"


def test_one_that_fails_takes_the_others_with_it(site: Site) -> None:
    site.file("bad", "/etc/sudoers.d/none", "a")
    result = site.apply()
    reasons = {a.rpartition(":")[2]: e.reason for a, e in result.ended.items()}
    assert {e.outcome for e in result.ended.values()} == {Outcome.FAILED}
    assert "there is no folder /etc/sudoers.d" in reasons["/etc/sudoers.d/none]"]
    assert "the old state is back" in reasons[f"{PAM}]"]
    assert "login" not in site.fleet.names("a")
    assert site.pam() == "old\n"


def test_without_arming_nothing_is_changed(site: Site) -> None:
    site.fleet.states["other-1"] = "armed"
    site.fleet.log.append(("a", "other"))
    outcome, reason = only(site.apply())
    assert outcome is Outcome.FAILED
    assert reason == (
        "its guard could not be armed: another guarded change of this host is not confirmed yet. Nothing was changed."
    )
    assert site.pam() == "old\n"
    assert "change" not in site.fleet.names("a")


def lost() -> ConnectionLost:
    return ConnectionLost("a: the session ended in the middle.")


@pytest.mark.parametrize("moment", ["arm", "armed", "change"])
def test_a_connection_that_is_lost_on_the_way(site: Site, moment: str) -> None:
    """Whether the host had armed or not: the old state is there, and the outcome says so."""
    site.fleet.on = raising(moment, lost)
    outcome, reason = only(site.apply())
    assert outcome is Outcome.FAILED
    assert ("Nothing was changed" if moment == "arm" else "the old state is back") in reason
    assert site.pam() == "old\n"


def test_a_disarming_whose_answer_is_lost_counts(site: Site) -> None:
    site.fleet.on = raising("disarmed", lost)
    assert only(site.apply())[0] is Outcome.DONE
    assert site.pam() == "new\n"


def test_a_host_that_nobody_reaches_any_more_is_asked_again_by_resume(site: Site) -> None:
    """Until then the run is open, and the outcome unknown."""

    def gone(host: str, moment: str) -> None:
        if moment in ("login", "revert", "look"):
            raise refused()

    site.fleet.on = gone
    outcome, reason = only(site.apply())
    assert outcome is Outcome.UNKNOWN
    assert "`reconciler resume` looks again" in reason
    assert site.fleet.names("a").count("look") <= 5
    site.fleet.on = lambda host, moment: None
    site.fleet.revert("a", next(iter(site.fleet.states)))
    site.reborn()
    outcome, reason = only(site.resume())
    assert outcome is Outcome.FAILED
    assert "the old state is back" in reason


@pytest.mark.parametrize("then", ["at once", "after the host reverted"])
@pytest.mark.parametrize("moment", ["arm", "armed", "change", "login", "disarm", "disarmed"])
def test_a_tool_that_is_killed_in_the_window(site: Site, moment: str, then: str) -> None:
    """Resume finds out what became of it: confirmed stays, all else is taken back or was never begun."""
    site.fleet.on = raising(moment, lambda: Killed(moment))
    with pytest.raises(Killed):
        site.apply()
    site.fleet.on = lambda host, now: None
    site.project.store.close()
    site.reborn()
    names = list(site.fleet.states)
    if then != "at once":
        for name in names:
            site.fleet.revert("a", name)
    outcome, reason = only(site.resume())
    if moment == "disarmed":
        assert (outcome, site.pam()) == (Outcome.DONE, "new\n")
    elif moment == "arm":
        # It had not begun on the host, and is done now, under a guard of its own.
        assert (outcome, site.pam()) == (Outcome.DONE, "new\n")
        assert site.fleet.names("a").count("armed") == 1
    else:
        assert (outcome, site.pam()) == (Outcome.FAILED, "old\n")
        assert "it was reverted: the old state is back. Plan again." in reason
    assert "armed" not in site.fleet.states.values()


def test_the_canary_goes_first_and_stops_the_rest(tmp_path: Path) -> None:
    site = Site(tmp_path, "a", "b", "c")
    site.file("pam", PAM, "a", "b", "c")
    site.file("motd", "/etc/motd", "a", "b", "c")
    site.fleet.on = lambda host, moment: raising("login", refused)(host, moment) if host == "a" else None
    result = site.apply()
    ended = {a: (e.outcome.value, e.reason) for a, e in result.ended.items()}
    assert {a for a, (outcome, _) in ended.items() if outcome == "done"} == {f"host.file[{h}:/etc/motd]" for h in "abc"}
    assert ended[f"host.file[b:{PAM}]"] == (
        "skipped",
        f"a goes first and was not confirmed: host.file[a:{PAM}] is failed",
    )
    assert [site.pam(h) for h in "abc"] == ["old\n"] * 3
    assert "arm" not in site.fleet.names("b")
    site.fleet.on, site.fleet.log = lambda host, moment: None, []
    assert site.apply().ok
    disarmed = site.fleet.log.index(("a", "disarmed"))
    assert disarmed < min(site.fleet.log.index((h, "arm")) for h in "bc")


def test_the_plan_says_so_and_keeps_it(tmp_path: Path) -> None:
    site = Site(tmp_path, "a", "b")
    site.file("pam", PAM, "a", "b", guard={"confirmWithin": "30s"})
    made = site.plan()
    words = {c.address: c.risk.guard for c in made.changes if c.risk}
    assert set(words.values()) == {
        "guarded: the host takes it back unless a new login works within 30s; a first, then 1 more"
    }
    again = from_text(to_text(made), registry())
    assert {c.address: c.risk.guard for c in again.changes if c.risk} == words
    assert again.changes[0].resource.lifecycle.guard == Guard(confirm_within="30s")


def test_a_fresh_connection_is_one_of_its_own() -> None:
    """On this machine that is another process, with the same rights."""
    with Pool({"me": Target("me", "local")}) as pool:
        fresh = pool.fresh("me")
        first, again, other = (
            connection.read([Script("echo $$; id -u")])[0].text.split()
            for connection in (pool.get("me"), pool.get("me"), fresh)
        )
        fresh.close()
        assert first == again
        assert other[0] != first[0]
        assert other[1] == first[1]
        assert pool.get("me").read([Script("echo still here")])[0].text == "still here\n"


def test_the_end_of_a_way_to_root_may_lock_out() -> None:
    """So it is guarded, and the files of accounts are kept for that."""
    for name, kind in (("sudo", "lock-out"), ("release", None)):
        change = Change(GROUP("web1", absent=True, name=name), Action.DELETE, {"gid": 27}, None)
        risk, keep = GROUP.risk(change), GROUP.keeps(change)
        assert (risk and risk.kind) == kind
        assert keep is not None
        assert "/etc/group" in keep.paths
