"""Stage 8, apply: carry a plan out, so that a kill at any moment loses nothing.

Here is the run as a whole: locks, order, ownership, audits. `reconciler.batch` has what happens to one target in one
go. Changes of one target that wait for nothing elsewhere go out together; independent changes go on after a failure,
and what stands on a failed one is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

from reconciler import inventory as inventory_of
from reconciler.batch import Batches, Emit, Ended, Means, silent, skipped, spell
from reconciler.errors import ConnectError, ConnectionLost, PlanError, ProbeFailed
from reconciler.guard import Guarding
from reconciler.journal import Journal, RunRecord, records
from reconciler.lease import Leases
from reconciler.model import Finding, Outcome, Resource, Unprobed
from reconciler.plan import Plan, audit
from reconciler.planfile import from_text, to_text
from reconciler.probe import Observed, probe_target
from reconciler.schedule import Schedule

__all__ = ["Emit", "Ended", "Means", "Result", "apply", "resume", "silent", "spell"]


@dataclass
class Result:
    """What came of a run. `left` = how many changes were not begun, because it was interrupted."""

    run: str
    ended: dict[str, Ended] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    left: int = 0

    def count(self, outcome: Outcome) -> int:
        """How many changes ended like this."""
        return sum(e.outcome is outcome for e in self.ended.values())

    @property
    def ok(self) -> bool:
        """Everything was done."""
        return not self.left and all(e.outcome is Outcome.DONE for e in self.ended.values())

    @property
    def summary(self) -> str:
        """`3 done, 1 failed`."""
        counts = [f"{self.count(o)} {o.value}" for o in Outcome if self.count(o)]
        return ", ".join(counts + [f"{self.left} not begun"] * bool(self.left)) or "nothing to do"


def apply(plan: Plan, run: str, means: Means, *, command: str = "apply") -> Result:
    """Carry out a plan.

    Raises:
        PlanRefused: another run holds a lock on one of the targets.
        StoreError: the journal cannot be written; what was not journalled was not done.
    """
    return _Run(plan, Journal(means.store, run), means, {}, {}, {}).go(command)


def resume(record: RunRecord, means: Means) -> Result:
    """Finish a run that was killed, or that lost a target: look at every change that was begun, and go on.

    Raises:
        PlanError: the run came to its end already.
    """
    if record.ended is not None:
        raise PlanError(f"Run {record.id} came to its end ({record.status}). Make a new plan instead.")
    plan = from_text(record.plan, means.registry, resume=True)
    begun: set[str] = set()
    witnesses: dict[str, list[str]] = {}
    windows: dict[str, str] = {}
    ended: dict[str, Ended] = {}
    for entry in records(means.store, record.id):
        if entry.address and entry.event == "intent":
            begun.add(entry.address)
            if "guard" in entry.body:
                windows[entry.address] = entry.body["guard"]
        elif entry.address and entry.event == "witness":
            witnesses.setdefault(entry.address, []).append(entry.body["witness"])
        elif entry.address and entry.event == "end":
            end = Ended(Outcome(entry.body["outcome"]), entry.body["reason"], entry.body["again"])
            # What was left out may be possible now; it is left out again if not.
            if not end.again and end.outcome is not Outcome.SKIPPED:
                ended[entry.address] = end
    open_ended = {address: witnesses.get(address, []) for address in begun - ended.keys()}
    return _Run(plan, Journal(means.store, record.id), means, ended, open_ended, windows).go(None)


class _Run:
    """One run: what is waiting, what is under way, what ended.

    Args:
        begun: changes that an earlier part of this run began, with the witnesses of what may still go on.
        windows: the names of the guards that some of those were under.
    """

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        means: Means,
        ended: Mapping[str, Ended],
        begun: Mapping[str, Sequence[str]],
        windows: Mapping[str, str],
    ) -> None:
        self._plan, self._journal, self._means = plan, journal, means
        self._leases = Leases(means.store, journal.run)
        self._result = Result(journal.run, dict(ended), unknown=dict(plan.unknown))
        self._changes = {c.address: c for c in plan.changes}
        self._check_key()
        self._guarding = Guarding(self._changes, plan.targets, means.registry)
        self._edges, self._waits = self._guarding.ordered(plan.edges)
        self._batches = Batches(plan, journal, self._leases, means, self._result.ended, begun, windows, self._guarding)

    def _check_key(self) -> None:
        if self._plan.key_id and self._plan.key_id != self._means.secrets.key_id:
            raise PlanError(
                "The plan seals secrets with another key than this state folder has. Make the plan here, or share the "
                "folder's `key` file."
            )

    def go(self, command: str | None) -> Result:
        """All of it. `command` names a run that begins; without, it is one that goes on."""
        means, plan = self._means, self._plan
        targets = sorted({c.resource.target for c in plan.changes})
        self._leases.take(targets)
        status = "failed"
        try:
            # Only now: a run that is refused because of a lock was never begun, and there is nothing to resume.
            if command is not None:
                self._journal.begin(command, to_text(plan))
            means.emit("apply_started", run=self._journal.run, changes=len(self._changes), targets=targets)
            self._schedule()
            self._result.left = len(self._changes) - len(self._result.ended)
            self._note_ownership()
            self._audit()
            status = "done" if self._result.ok else "failed"
        finally:
            self._leases.free()
            # A run that was interrupted, that could not write its journal or not look at a target stays open.
            open_ended = any(e.again for e in self._result.ended.values())
            if len(self._result.ended) == len(self._changes) and not open_ended:
                self._journal.end(status, self._result.summary)
        means.emit("apply_finished", run=self._journal.run, **{o.value: self._result.count(o) for o in Outcome})
        return self._result

    # -------------------------------------------------------------------------------------------- order

    def _schedule(self) -> None:
        """Give each target its next batch as soon as what that waits for elsewhere is done."""
        running: dict[Future[dict[str, Ended]], tuple[int, str]] = {}
        try:
            self._keep_going(running)
        finally:
            wait(running)  # whatever happened: who gives the locks back has nothing under way any more

    def _keep_going(self, running: dict[Future[dict[str, Ended]], tuple[int, str]]) -> None:
        """Args:
        running: what is under way: the number of its island, and its target.
        """
        schedule = Schedule(self._edges, {a: c.resource.target for a, c in self._changes.items()})
        submit = self._means.pool.executor.submit
        busy: set[str] = set()
        started: set[str] = set(self._result.ended)
        to_look_at = set(range(len(schedule.islands)))
        while True:
            for index in sorted(to_look_at):
                island = schedule.islands[index]
                hopeless = schedule.hopeless(island, started, self._verdict)
                started.update(hopeless)
                self._skip(hopeless)
                for target, possible in schedule.batches(island, busy, started, self._verdict).items():
                    if self._means.stop.is_set():
                        continue
                    busy.add(target)
                    batch = self._guarding.first_part(possible)
                    started.update(address for address, _ in batch)
                    work = [(self._changes[address], nearest) for address, nearest in batch]
                    running[submit(self._batches.carry_out, target, work)] = (index, target)
            to_look_at.clear()
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                index, target = running.pop(future)
                busy.discard(target)
                to_look_at.add(index)
                self._result.ended.update(future.result())

    def _verdict(self, address: str) -> bool | None:
        end = self._result.ended.get(address)
        return None if end is None else end.outcome is Outcome.DONE

    def _skip(self, hopeless: Mapping[str, str]) -> None:
        """What stands on something that did not work is not tried."""
        ended = {address: self._left_out(address, cause) for address, cause in hopeless.items()}
        if ended:
            self._result.ended.update(self._batches.finish("", ended, {}))

    def _left_out(self, address: str, cause: str) -> Ended:
        if address in self._waits and cause not in self._above(address):
            text = f"{self._waits[address]} goes first and was not confirmed: {cause} is "
            return Ended(Outcome.SKIPPED, f"{text}{self._result.ended[cause].outcome.value}")
        return skipped(cause, self._result.ended)

    def _above(self, address: str) -> set[str]:
        """All that a change stands on, canaries apart."""
        todo, seen = [address], set[str]()
        while todo:
            for before in self._plan.edges.get(todo.pop(), ()):
                if before not in seen:
                    seen.add(before)
                    todo.append(before)
        return seen

    def _note_ownership(self) -> None:
        with self._means.store.write() as db:
            inventory_of.record_all(db, [(r, False, None) for r in self._plan.adopt], self._journal.run)
            inventory_of.forget(db, self._plan.release)

    def _audit(self) -> None:
        """Look at the audits again, now that things have changed."""
        by_target: dict[str, list[Resource[Any]]] = {}
        touched = {self._changes[a].resource.target for a in self._result.ended if a in self._changes}
        for resource in self._plan.audits:
            if resource.target in touched:
                by_target.setdefault(resource.target, []).append(resource)

        def one(target: str) -> dict[str, Observed]:
            return probe_target(by_target[target], self._means.registry, self._means.pool.get(target).read)

        futures = {target: self._means.pool.executor.submit(one, target) for target in by_target}
        wait(futures.values())
        for target, future in futures.items():
            try:
                states = future.result()
            except (ConnectError, ConnectionLost, ProbeFailed) as error:
                self._result.unknown |= {r.address: str(error) for r in by_target[target]}
                continue
            for resource in by_target[target]:
                state = states[resource.address]
                if isinstance(state, Unprobed):
                    self._result.unknown[resource.address] = state.reason
                    continue
                kind = self._means.registry.type_of(resource.type)
                self._result.findings += audit(resource, state, kind, self._means.secrets.seal)
        looked_at = {r.address for resources in by_target.values() for r in resources}
        self._result.findings += [f for f in self._plan.findings if f.address not in looked_at]
        place = {resource.address: number for number, resource in enumerate(self._plan.audits)}
        self._result.findings.sort(key=lambda f: place.get(f.address, -1))
