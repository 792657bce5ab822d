"""One batch of apply: everything that happens to one target in one go, so that a kill at any moment loses nothing.

Is the plan still true (probe) -> intents on disk -> steps -> did it work (probe) -> ends on disk. One transaction for
the intents, one round trip for the steps. A target that can compare by itself takes both looks along with the steps in
one round trip: it begins only if it still answers what it answered when the plan was made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from reconciler import inventory as inventory_of
from reconciler.connections import Pool
from reconciler.diff import diff
from reconciler.errors import (
    ConnectError,
    ConnectionLost,
    ContractError,
    LeaseLost,
    ReconcilerError,
    SecretError,
    StepFailed,
    TargetMoved,
)
from reconciler.guard import Guarding, Window, reopened
from reconciler.journal import Journal
from reconciler.lease import Leases
from reconciler.model import (
    CONFLICT,
    Absent,
    Action,
    Change,
    Outcome,
    Read,
    Readiness,
    Reply,
    Request,
    Resource,
    Sealed,
    State,
    Step,
    StepResult,
    Transacting,
    Unprobed,
    Work,
)
from reconciler.plan import Plan
from reconciler.probe import Observed, probe_target
from reconciler.registry import Registry
from reconciler.secrets import Secrets
from reconciler.store import Store

LOOK_SECONDS: Final = 60.0
"""After so long, a connection that nobody used may be dead: then it is looked at first, which opens it anew."""


CLASHES: Final = 3
"""How often changes that clashed with somebody else's write are decided anew."""


class Emit(Protocol):
    """Is told what happens, as it happens; must be quick and safe to call from several threads."""

    def __call__(self, event: str, **fields: Any) -> None:
        """One event, such as `change_finished`, with its fields."""


def silent(event: str, **fields: Any) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a change ended, and why if not well.

    Attributes:
        again: the target could not be asked; the run stays open, so that `resume` looks again.
        clash: somebody else wrote at the same time, and the target refused to overwrite that.
    """

    outcome: Outcome
    reason: str = ""
    again: bool = False
    clash: bool = False


@dataclass(frozen=True)
class Means:
    """What a run works with.

    Attributes:
        stop: when set, no new batch starts.
        sleep: waits; replaced in tests.
    """

    registry: Registry
    pool: Pool
    store: Store
    secrets: Secrets
    emit: Emit = silent
    stop: threading.Event = field(default_factory=threading.Event)
    sleep: Callable[[float], None] = time.sleep


class Batches:
    """Carries out the batches of one run.

    Args:
        ended: how the changes of the run ended, as they end.
        begun: changes that an earlier part of this run began, with the witnesses of what may still go on.
        windows: the names of the guards that some of those were under.
        guarding: says what is guarded.
    """

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        leases: Leases,
        means: Means,
        ended: Mapping[str, Ended],
        begun: Mapping[str, Sequence[str]],
        windows: Mapping[str, str],
        guarding: Guarding,
    ) -> None:
        self._plan, self._journal, self._leases, self._means = plan, journal, leases, means
        self._ended, self._begun, self._windows, self._guarding = ended, begun, windows, guarding
        self._looks = dict(plan.looks)
        self._opened, self._lock = 0, threading.Lock()
        # Attributes that objects never show are compared with what was last sent.
        self._sent: dict[str, Mapping[str, str]] = {}
        if any(means.registry.type_of(c.resource.type).write_only for c in plan.changes):
            self._sent = {a: e.sent for a, e in inventory_of.load(means.store).items() if e.sent}

    def carry_out(self, target: str, batch: Sequence[tuple[Change[Any], list[str]]]) -> dict[str, Ended]:
        """Everything that happens to one target in one go."""
        for change, _ in batch:
            self._means.emit("change_started", address=change.address, action=change.action.value, target=target)
        try:
            return self._carry_out(target, batch)
        except LeaseLost as error:
            ended = {c.address: Ended(Outcome.SKIPPED, str(error)) for c, _ in batch}
            self._announce(ended)
            return ended

    def _carry_out(self, target: str, batch: Sequence[tuple[Change[Any], list[str]]]) -> dict[str, Ended]:
        changes = {c.address: c for c, _ in batch}
        after = {c.address: near for c, near in batch}
        expected = self._expected(target, changes.values())
        if expected:
            # Where it has moved: change by change, is the plan still true?
            with suppress(TargetMoved):
                return self.finish(
                    target,
                    self._under(self._window(target, changes.values()), target, changes, after, expected),
                    changes,
                )
        try:
            begun = [a for a in changes if a in self._begun]
            if begun:
                self._means.pool.get(target).settle([w for a in begun for w in self._begun[a]])
            ended = self._taken_back(target, begun)
            observed = self._probe(target, changes.values())
        except (ConnectError, ConnectionLost) as error:
            reason = f"{error} Nothing was changed."
            ended = {a: Ended(Outcome.UNKNOWN, str(error), again=True) for a in changes if a in self._begun}
            ended |= {a: Ended(Outcome.SKIPPED, reason) for a in changes if a not in self._begun}
            return self.finish(target, ended, changes)
        todo: dict[str, Change[Any]] = {}
        for address, change in changes.items():
            if address in ended:
                continue
            pending = any(a in todo for a in after[address])
            verdict = self._still_true(change, observed[address], bool(after[address]), pending)
            if isinstance(verdict, Ended):
                ended[address] = verdict
            else:
                todo[address] = verdict
        # Whatever stands on a change that is refused here is not tried either.
        for address in list(todo):
            cause = next((b for b in after[address] if b in ended and ended[b].outcome is not Outcome.DONE), None)
            if cause:
                del todo[address]
                ended[address] = skipped(cause, ended)
        ended |= self._under(self._window(target, todo.values()), target, todo, after)
        return self.finish(target, ended, changes)

    # -------------------------------------------------------------------------------------------- guard

    def _window(self, target: str, changes: Iterable[Change[Any]]) -> Window | None:
        """The guard that a batch goes under, if one of its changes needs one. See `Guarding.first_part`."""
        changes = list(changes)
        guards = [self._guarding.guards[c.address] for c in changes if c.address in self._guarding.guards]
        if not guards:
            return None
        keep = [kept for c in changes if (kept := self._guarding.keep(c)) is not None]
        with self._lock:
            self._opened += 1
            name = f"{self._journal.run}-{self._opened}"
        seconds = max(guard.seconds for guard in guards)
        means = self._means
        return Window(name, target, means.pool, keep=keep, seconds=seconds, sleep=means.sleep, emit=means.emit)

    def _under(
        self,
        window: Window | None,
        target: str,
        todo: Mapping[str, Change[Any]],
        after: Mapping[str, list[str]],
        expected: Sequence[tuple[Read, Reply]] = (),
    ) -> dict[str, Ended]:
        """As `_steps`; under a guard all of them work and are confirmed, or none of them stays.

        Raises:
            TargetMoved: it is not as expected; nothing was done.
        """
        ended = self._steps(target, todo, after, expected, window)
        if window is None or not window.opened or window.refused:
            return ended
        bad = next((a for a, e in ended.items() if e.outcome is not Outcome.DONE), None)
        closed = window.close(f"{bad}: {ended[bad].reason}" if bad else "")
        with self._means.store.write() as db:
            self._journal.write(db, "guard", None, target=target, guard=window.name, confirmed=closed.confirmed)
        if closed.confirmed:
            return ended
        unknown = closed.confirmed is None
        outcome = Outcome.UNKNOWN if unknown else Outcome.FAILED
        for address, end in ended.items():
            if unknown or end.outcome in (Outcome.DONE, Outcome.UNKNOWN):
                ended[address] = Ended(outcome, f"{closed.cause} {closed.now}", again=unknown)
            elif address == bad:
                ended[address] = replace(end, reason=f"{end.reason} {closed.now}")
        return ended

    def _taken_back(self, target: str, begun: Iterable[str]) -> dict[str, Ended]:
        """Of the changes that were under a guard when the run was killed, those that are not there any more.

        Raises:
            ConnectError, ConnectionLost: that cannot be found out.
        """
        windows: dict[str, list[str]] = {}
        for address in begun:
            if address in self._windows:
                windows.setdefault(self._windows[address], []).append(address)
        ended: dict[str, Ended] = {}
        for name, addresses in windows.items():
            if reopened(name, target, self._means.pool) == "reverted":
                reason = "the run was killed before this was confirmed, so it was reverted: the old state is back."
                ended |= {address: Ended(Outcome.FAILED, f"{reason} Plan again.") for address in addresses}
        return ended

    # -------------------------------------------------------------------------------------------- probe and steps

    def _expected(self, target: str, changes: Iterable[Change[Any]]) -> Sequence[tuple[Read, Reply]]:
        """What the target has to answer for the plan to be true, if it can compare that by itself before it changes
        anything: what it answered when the plan was made, a moment ago. None after a first batch."""
        look = self._looks.pop(target, None)
        if look is None or self._begun or time.monotonic() - look.at > LOOK_SECONDS:
            return ()
        if not isinstance(self._means.pool.get(target), Transacting):
            return ()
        return [pair for name in sorted({c.resource.type for c in changes}) for pair in look.heard.get(name, ())]

    def _still_true(self, planned: Change[Any], state: Observed, follows: bool, pending: bool) -> Change[Any] | Ended:
        """What to do with a planned change now that we have looked again; `Ended` where there is nothing to do.

        Args:
            follows: it stands on another change of its batch.
            pending: one of those is still to be done.
        """
        if isinstance(state, Unprobed):
            return Ended(Outcome.FAILED, f"{state.reason} Nothing was changed.")
        try:
            fresh = self._diff(planned.resource, state)
        except ReconcilerError as error:
            return Ended(Outcome.FAILED, f"{error} Nothing was changed.")
        same = fresh.digest == planned.digest
        if fresh.seen.keys() - (planned.before or {}).keys():
            planned = replace(planned, seen=fresh.seen)
        if planned.address in self._begun:
            if same and pending:
                # It looks as desired only because what it watches has not changed yet.
                return planned
            if fresh.action is Action.NOOP:
                return Ended(Outcome.DONE, "it was done before the run was killed")
            if same or _is_between(planned, fresh, self._means.registry):
                return planned if same else fresh
            return Ended(
                Outcome.UNKNOWN,
                "the run was killed here, and the object is now neither as before nor as desired "
                f"({_differing(fresh)}). Look at it, then plan again.",
            )
        if same:
            return planned
        if fresh.action is Action.NOOP:
            return Ended(Outcome.DONE, "it is as desired already")
        moved = follows or any(self._changed_before(b) for b in self._plan.edges.get(planned.address, ()))
        if moved:
            return fresh
        return Ended(Outcome.FAILED, f"it changed since the plan was made ({_differing(fresh)}). Plan again.")

    def _changed_before(self, node: str) -> bool:
        """Whether this run changed a node, or something that it stands on."""
        todo, seen = [node], set()
        while todo:
            node = todo.pop()
            if node in self._ended:
                return True
            if node not in seen:
                seen.add(node)
                todo.extend(self._plan.edges.get(node, ()))
        return False

    def _steps(
        self,
        target: str,
        todo: Mapping[str, Change[Any]],
        after: Mapping[str, list[str]],
        expected: Sequence[tuple[Read, Reply]] = (),
        window: Window | None = None,
    ) -> dict[str, Ended]:
        """Intents, steps, verification; once more for what something else in the batch has moved meanwhile.

        Raises:
            TargetMoved: it is not as expected; nothing was done.
        """
        ended: dict[str, Ended] = {}
        moved: set[str] = set()
        clashes = 0
        while todo:
            failed, lost, going, observed = self._execute(target, todo, after, expected, window)
            expected = ()
            left = {a: c for a, c in todo.items() if a not in failed}
            again: dict[str, Change[Any]] = {}
            if not lost and clashes < CLASHES and any(e.clash for e in failed.values()):
                clashes += 1
                again = self._decide_again(target, todo, after, failed)
            ended |= failed
            self._note_sent(left.values())
            verdicts = self._verify(target, left, going, observed)
            for address in left:
                verdict = verdicts[address]
                cause = next((a for a in after[address] if a in ended and ended[a].outcome is not Outcome.DONE), None)
                if lost and cause and not (isinstance(verdict, Ended) and verdict.again):
                    # Its steps did not run; what it watches did not change, so that it may look as desired.
                    ended[address] = skipped(cause, ended)
                elif isinstance(verdict, Ended):
                    ended[address] = verdict
                elif lost:
                    text = f"{lost} It was not finished ({_differing(verdict)}); plan again."
                    ended[address] = Ended(Outcome.FAILED, text)
                elif after[address] and address not in moved:
                    moved.add(address)
                    again[address] = verdict
                else:
                    text = f"its steps ended well, but it is still not as desired ({_differing(verdict)})."
                    ended[address] = Ended(Outcome.FAILED, text)
            todo = again
        return ended

    def _decide_again(
        self,
        target: str,
        todo: Mapping[str, Change[Any]],
        after: Mapping[str, list[str]],
        failed: dict[str, Ended],
    ) -> dict[str, Change[Any]]:
        """Look at what clashed with somebody else's write: what is still wanted and still true is tried again, and so
        is what stands on it. Takes those out of `failed`."""
        clashed = [a for a, e in failed.items() if e.clash]
        try:
            observed = self._probe(target, [todo[a] for a in clashed])
        except (ConnectError, ConnectionLost):
            return {}
        again: dict[str, Change[Any]] = {}
        for address in clashed:
            verdict = self._still_true(todo[address], observed[address], False, False)
            if isinstance(verdict, Ended):
                failed[address] = verdict
            else:
                again[address] = verdict
                del failed[address]
        freed = {a for a in clashed if a in again or failed[a].outcome is Outcome.DONE}
        for address in todo:
            skipped = address in failed and failed[address].outcome is Outcome.SKIPPED
            if skipped and not freed.isdisjoint(after[address]):
                freed.add(address)
                again[address] = todo[address]
                del failed[address]
        return {a: again[a] for a in todo if a in again}

    def _execute(
        self,
        target: str,
        todo: Mapping[str, Change[Any]],
        after: Mapping[str, list[str]],
        expected: Sequence[tuple[Read, Reply]],
        window: Window | None,
    ) -> tuple[dict[str, Ended], str, Collection[str], Mapping[str, Observed] | None]:
        """Write the intents, run the steps.

        Returns:
            those that did not work, why the connection broke if it did, witnesses of what then still goes on, and
            what a probe saw that came along.
        """
        ended: dict[str, Ended] = {}
        going: dict[tuple[str, int], str] = {}
        works = self._works(todo, after, ended)
        if not works:
            return ended, "", (), None
        self._intend(target, works, todo, window)
        sent = {work.address: work for work in works}
        if window is not None:
            works = window.around(works)
        connection = self._means.pool.get(target)
        reveal = self._means.secrets.reveal
        begun = False

        def told(result: StepResult) -> None:
            nonlocal begun
            begun = True
            if window is not None and window.knows(result.address):
                late = window.told(result, sent)
                ended.update({a: Ended(Outcome.FAILED, why) for a, why in late.items()})
            elif result.status is None and result.witness:
                going[result.address, result.index] = result.witness
                self._step_begun(result, sent[result.address])
            else:
                going.pop((result.address, result.index), None)
                self._step_ended(result, sent[result.address], ended)

        def read(reads: Sequence[Read]) -> Sequence[Reply]:
            """The first reads of the probe that verifies travel with the steps, behind them."""
            nonlocal begun
            if begun or not isinstance(connection, Transacting):
                return connection.read(reads)
            for result in connection.transact(expected, works, reveal, reads):
                if not isinstance(result, StepResult):
                    begun = True
                    return result
                told(result)
            raise ContractError(f"the connection to {target}", "It did not answer what it was asked.")

        observed = None
        try:
            if isinstance(connection, Transacting):
                observed = probe_target([todo[a].resource for a in sent], self._means.registry, read)
            if not begun:
                for result in connection.execute(works, reveal):
                    told(result)
        except (ConnectError, ConnectionLost) as error:
            if window is not None and isinstance(error, ConnectError) and not begun:
                window.forget()
            if expected and isinstance(error, ConnectError) and not begun:
                raise TargetMoved(str(error)) from None
            self._means.emit("connection_lost", target=target, reason=str(error))
            return ended, str(error), going.values(), None
        except ReconcilerError as error:
            if begun or isinstance(error, TargetMoved):
                raise
            # A secret that cannot be revealed, for example.
            ended |= {address: Ended(Outcome.FAILED, f"{error} Nothing was changed.") for address in sent}
            if window is not None:
                window.forget()
        return ended, "", going.values(), observed

    def _works(
        self, todo: Mapping[str, Change[Any]], after: Mapping[str, list[str]], ended: dict[str, Ended]
    ) -> list[Work]:
        """The steps of all changes; those that cannot be spelled, and what stands on them, go to `ended`."""
        works = []
        for address, change in todo.items():
            try:
                works.append(Work(address, self._spell(change), [a for a in after[address] if a in todo]))
            except ReconcilerError as error:
                ended[address] = Ended(Outcome.FAILED, f"{error} Nothing was changed.")
        for work in works if ended else ():
            cause = next((a for a in after[work.address] if a in ended), None)
            if cause:
                ended[work.address] = skipped(cause, ended)
        return [w for w in works if w.address not in ended]

    def _intend(
        self, target: str, works: Sequence[Work], todo: Mapping[str, Change[Any]], window: Window | None
    ) -> None:
        """Put on disk what will be done, and under which guard, as long as the target is ours."""
        guard = {"guard": window.name} if window else {}
        with self._means.store.write() as db:
            self._leases.check(db, target)
            self._journal.write_all(
                db,
                "intent",
                {
                    work.address: {
                        "action": todo[work.address].action,
                        "observed": todo[work.address].digest,
                        "steps": [str(step) for step in work.steps],
                        **guard,
                    }
                    for work in works
                },
            )

    def _step_begun(self, result: StepResult, work: Work) -> None:
        """Its witness is on disk before it is waited for: whoever resumes waits for it instead of doing it again."""
        with self._means.store.write() as db:
            self._journal.write(db, "witness", result.address, step=result.index, witness=result.witness)
        step = str(work.steps[result.index])
        self._means.emit("step_started", address=result.address, step=step, witness=result.witness)

    def _step_ended(self, result: StepResult, work: Work, ended: dict[str, Ended]) -> None:
        output = self._means.secrets.redact(result.output)
        step = work.steps[result.index]
        if result.status is None:
            if result.address not in ended:
                cause = next((a for a in work.after if a in ended), "")
                ended[result.address] = skipped(cause, ended) if cause else Ended(Outcome.SKIPPED, "it was left out")
            return
        self._means.emit(
            "step_finished", address=result.address, step=str(step), status=result.status, output=output[-2000:]
        )
        for secret, value in result.kept:
            try:
                self._means.secrets.keep(secret, value)
            except SecretError as error:
                ended[result.address] = Ended(Outcome.FAILED, f"what the target made could not be kept: {error}")
        if result.status != 0:
            reason = str(StepFailed(str(step), result.status, output))
            ended[result.address] = Ended(Outcome.FAILED, reason, clash=result.status == CONFLICT)

    def _verify(
        self,
        target: str,
        changes: Mapping[str, Change[Any]],
        going: Collection[str],
        observed: Mapping[str, Observed] | None,
    ) -> dict[str, Ended | Change[Any]]:
        """Look whether it worked: `Ended` where that is certain, else the change that is still needed.

        Args:
            going: witnesses of what must come to its end before.
            observed: what was seen already, after the steps.
        """
        verdicts: dict[str, Ended | Change[Any]] = {}
        waiting = dict(changes)
        began = time.monotonic()
        while waiting:
            try:
                if going:
                    self._means.pool.get(target).settle(list(going))
                    going = ()
                if observed is None:
                    observed = self._probe(target, waiting.values())
            except (ConnectError, ConnectionLost) as error:
                reason = f"{error} What became of it is not known; `reconciler resume` looks again."
                return verdicts | {a: Ended(Outcome.UNKNOWN, reason, again=True) for a in waiting}
            for address, change in list(waiting.items()):
                verdict = self._judge(change, observed[address], began)
                if verdict is not None:
                    verdicts[address] = verdict
                    del waiting[address]
            observed = None
            if waiting:
                self._means.sleep(0.3)
        return verdicts

    def _note_sent(self, changes: Iterable[Change[Any]]) -> None:
        """The steps of these ran: what they sent of attributes that are never shown is what holds now."""
        for change in changes:
            names = self._means.registry.type_of(change.resource.type).write_only
            after = change.after or {}
            sent = {name: after[name].digest for name in names if isinstance(after.get(name), Sealed)}
            if sent:
                self._sent[change.address] = sent

    def _judge(self, change: Change[Any], state: Observed, began: float) -> Ended | Change[Any] | None:
        """`None` = not ready yet, look again."""
        if isinstance(state, Unprobed):
            return Ended(Outcome.UNKNOWN, state.reason)
        # Where the plan was made just now, what is desired is known already.
        fresh = self._diff(change.resource, state, change.after if self._plan.looks else None)
        kind = self._means.registry.type_of(change.resource.type)
        readiness = Readiness.READY if state is None or isinstance(state, Absent) else kind.ready(state)
        if (
            readiness is Readiness.WAITING
            and time.monotonic() < began + kind.patience
            and not self._means.stop.is_set()
        ):
            return None
        if fresh.action is not Action.NOOP:
            return fresh
        if readiness is Readiness.READY:
            return Ended(Outcome.DONE)
        trouble = state.get("trouble") if isinstance(state, Mapping) else None
        return Ended(Outcome.FAILED, f"it is as desired, but it does not work{f': {trouble}' if trouble else ''}.")

    # -------------------------------------------------------------------------------------------- small parts

    def _probe(self, target: str, changes: Iterable[Change[Any]]) -> dict[str, Observed]:
        resources = [c.resource for c in changes]
        return probe_target(resources, self._means.registry, self._means.pool.get(target).read)

    def _diff(self, resource: Resource[Any], state: Any, desired: State | None = None) -> Change[Any]:
        kind = self._means.registry.type_of(resource.type)
        return diff(resource, state, kind, self._means.secrets.seal, self._sent.get(resource.address, {}), desired)

    def _spell(self, change: Change[Any]) -> list[Step]:
        kind = self._means.registry.type_of(change.resource.type)
        assert kind.steps is not None
        steps = spell(change, kind.steps)
        for step in steps:
            if isinstance(step, Request) and step.keep:
                self._means.secrets.check_keep(step.keep[1])
        return steps

    def finish(self, target: str, ended: Mapping[str, Ended], changes: Mapping[str, Change[Any]]) -> dict[str, Ended]:
        """Put outcomes and ownership on disk, in one transaction."""
        done = [changes[a] for a, end in ended.items() if a in changes and end.outcome is Outcome.DONE]
        kept = [
            (c.resource, c.action in (Action.CREATE, Action.REPLACE), self._sent.get(c.address))
            for c in done
            if c.action is not Action.DELETE
        ]
        ends = {
            a: {"outcome": end.outcome, "reason": self._means.secrets.redact(end.reason), "again": end.again}
            for a, end in ended.items()
        }
        with self._means.store.write() as db:
            self._journal.write_all(db, "end", ends)
            inventory_of.record_all(db, kept, self._journal.run)
            inventory_of.forget(db, [c.address for c in done if c.action is Action.DELETE])
        self._announce(ended)
        return dict(ended)

    def _announce(self, ended: Mapping[str, Ended]) -> None:
        for address, end in ended.items():
            reason = self._means.secrets.redact(end.reason)
            self._means.emit("change_finished", address=address, outcome=end.outcome.value, reason=reason)


def spell(change: Change[Any], steps: Callable[[Change[Any]], Iterable[Step]]) -> list[Step]:
    """The steps of a change; a replacement is a deletion and a creation."""
    if change.action is not Action.REPLACE:
        return list(steps(change))
    gone = Change(change.resource, Action.DELETE, change.before, None, seen=change.seen)
    made = Change(change.resource, Action.CREATE, None, change.after, change.differences, seen=change.seen)
    return [*steps(gone), *steps(made)]


def _is_between(planned: Change[Any], fresh: Change[Any], registry: Registry) -> bool:
    """Whether a killed change can have left this: every attribute that still differs is as it was before, or the
    object was being created or removed in several steps."""
    if planned.action is Action.REPLACE and fresh.before is None:
        return True
    if planned.before is None or fresh.before is None:
        steps = registry.type_of(planned.resource.type).steps
        return steps is not None and len(spell(planned, steps)) > 1
    seen = {d.attribute: d.before for d in planned.differences}
    return all(
        d.before == planned.before.get(d.attribute) or (d.attribute in seen and d.before == seen[d.attribute])
        for d in fresh.differences
    )


def skipped(cause: str, ended: Mapping[str, Ended]) -> Ended:
    """Left out, because what it stands on did not work."""
    return Ended(Outcome.SKIPPED, f"it needs {cause}, which is {ended[cause].outcome.value}")


def _differing(change: Change[Any]) -> str:
    return ", ".join(sorted(change.changed)) or change.action.value
