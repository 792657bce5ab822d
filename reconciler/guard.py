"""Guard: changes that may lock people out are taken back by the host itself unless a new login confirms them in time.

What Junos calls commit confirm. On the host, before anything is changed: what the changes touch is copied into a folder
of root's, a systemd unit that puts it back at the next boot is written, and a transient timer that does so after
`confirmWithin` is started. Then the changes; then a new login, by the same way and with the same `become`, has to get
the same user number as before; only then timer, unit and copies go. Whoever dies in between, tool, connection or host,
the old state comes back.

Everything here is decided from the plan (which changes, in what groups, which hosts first); `Window` is one such
interval on one host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from reconciler.connections import Pool, no_secrets
from reconciler.errors import ConnectError, ConnectionLost
from reconciler.guard_scripts import ARM, DISARM, REVERT, REVERT_NOW, STATE, STILL
from reconciler.model import Change, Connection, Guard, Keep, Risk, Script, Sh, StepResult, Target, Work, keeps_nothing
from reconciler.registry import Registry
from reconciler.resolve import Edges, topological
from reconciler.schedule import Batch

LIVE: Final = frozenset({"ssh", "local"})
"""Connections to hosts that run. Nobody is logged in to an image, so that nobody can be locked out of it."""

SETTLE_SECONDS: Final = 2.0
"""What reads its files a moment after they change (sshd that reloads, polkitd that watches its folder) has done so by
then; a login that is tried before would still be judged by the old ones."""

IMMEDIATE: Final = (
    "~",
    "/etc/doas.conf",
    "/etc/group",
    "/etc/gshadow",
    "/etc/pam.",
    "/etc/passwd",
    "/etc/security/",
    "/etc/shadow",
    "/etc/sub",
    "/etc/sudoers",
    "/root/.ssh/",
    "/usr/share/pam-configs/",
    "/var/lib/pam",
)
"""Beginnings of paths that each login reads anew; for others there is a wait of `SETTLE_SECONDS`."""

AGAIN_SECONDS: Final = 2.0
"""A login that does not work is tried once more after so long: sshd may be just restarting. More attempts would only
make sshd refuse us for a while (its PerSourcePenalties)."""

GRACE_SECONDS: Final = 20.0
"""After its time a host may take so long to have put everything back."""

CHECKS: Final[Mapping[str, Script]] = {
    "/etc/ssh/sshd_config": Script("sshd -t 2>&1"),
    "/etc/sudoers": Script("! command -v visudo >/dev/null || visudo -c 2>&1"),
}
"""Beginnings of paths, and what must end well before a change there is confirmed: such files may be read much later."""


# ------------------------------------------------------------------------------------------------ what is guarded


@dataclass(frozen=True)
class Guarding:
    """Which changes of a plan are guarded, and how.

    Attributes:
        changes: by address.
    """

    changes: Mapping[str, Change[Any]]
    targets: Mapping[str, Target]
    registry: Registry

    @cached_property
    def guards(self) -> Mapping[str, Guard]:
        """Address -> how its change is guarded, where it is."""
        types = {change.resource.type for change in self.changes.values()}
        keeping = {name for name in types if self.registry.type_of(name).keeps is not keeps_nothing}
        candidates = ((a, c) for a, c in self.changes.items() if c.resource.type in keeping)
        return {a: guard for a, change in candidates if (guard := self._guard(change)) is not None}

    def _guard(self, change: Change[Any]) -> Guard | None:
        chosen = change.resource.lifecycle.guard
        target = self.targets.get(change.resource.target)
        if chosen == "Never" or target is None or target.connection not in LIVE:
            return None
        keep = self.keep(change)
        if keep is None:
            return None
        return chosen or (Guard() if self._locks_out(change, keep, target) else None)

    def keep(self, change: Change[Any]) -> Keep | None:
        """What the host has to keep in order to take a change back."""
        return self.registry.type_of(change.resource.type).keeps(change)

    @staticmethod
    def _locks_out(change: Change[Any], keep: Keep, target: Target) -> bool:
        risky = change.risk is not None and change.risk.kind == "lock-out"
        return risky or target.settings.get("user", "root") in keep.accounts

    def canaries(self) -> dict[str, tuple[list[str], list[str]]]:
        """For each document with guarded changes on several hosts: the hosts that go first, and those that wait."""
        hosts: dict[str, set[str]] = {}
        first: dict[str, int] = {}
        for address, guard in self.guards.items():
            resource = self.changes[address].resource
            hosts.setdefault(resource.origin, set()).add(resource.target)
            first[resource.origin] = guard.canary
        out = {}
        for origin, names in sorted(hosts.items()):
            count = first[origin]
            if 0 < count < len(names):
                out[origin] = sorted(names)[:count], sorted(names)[count:]
        return out

    def marked(self) -> dict[str, Change[Any]]:
        """The changes, each with a word about its guard where there is one, or should be."""
        canaries = self.canaries()
        return {a: self._marked(change, canaries) for a, change in self.changes.items()}

    def _marked(self, change: Change[Any], canaries: Mapping[str, tuple[list[str], list[str]]]) -> Change[Any]:
        guard, risk, origin = self.guards.get(change.address), change.risk, change.resource.origin
        if guard is None:
            why = self._why_not(change)
            return replace(change, risk=replace(risk, guard=why)) if risk and why else change
        text = f"guarded: the host takes it back unless a new login works within {guard.confirm_within}"
        if origin in canaries:
            first, rest = canaries[origin]
            text += f"; {', '.join(first)} first, then {len(rest)} more"
        if risk is None:
            risk = Risk("lock-out", f"it concerns how we log in, or {origin} asks for a guard")
        return replace(change, risk=replace(risk, guard=text))

    def _why_not(self, change: Change[Any]) -> str:
        if not change.risk or change.risk.kind != "lock-out":
            return ""
        keep, target = self.keep(change), self.targets.get(change.resource.target)
        if keep is None or target is None:
            return ""
        if target.connection not in LIVE:
            return "needs no guard: nobody is logged in to an image"
        return f"not guarded: {change.resource.origin} says `guard: Never`"

    # -------------------------------------------------------------------------------------------- order

    def ordered(self, edges: Edges) -> tuple[Edges, Mapping[str, str]]:
        """The edges of a plan with those by which hosts wait for canaries.

        A document whose changes would wait for each other in a circle gets none.

        Returns:
            the edges; and for each change that waits the canaries that it waits for.
        """
        canaries = self.canaries()
        if not canaries:
            return edges, {}
        members: dict[tuple[str, str], list[str]] = {}
        for address in self.guards:
            resource = self.changes[address].resource
            if resource.origin in canaries:
                members.setdefault((resource.origin, resource.target), []).append(address)
        waits: dict[str, str] = {}
        result = dict(edges)
        for origin, (first, rest) in canaries.items():
            gate = f"{origin} on {', '.join(first)}"
            tried = {**result, gate: sorted(a for host in first for a in members[origin, host])}
            waiting = [a for host in rest for a in members[origin, host]]
            for address in waiting:
                tried[address] = [*result[address], gate]
            if len(topological(tried)) == len(tried):
                result = tried
                waits |= dict.fromkeys(waiting, ", ".join(first))
        return result, waits

    def first_part(self, batch: Batch) -> Batch:
        """What of a batch goes out now: first all that has nothing to do with a guard; then, as one, what is guarded,
        with what makes it effective (such as a reload); then the rest. So that nothing slow goes on meanwhile."""
        guarded = {address for address, _ in batch if address in self.guards}
        if not guarded:
            return batch
        behind = set(guarded)
        for address, nearest in batch:
            if not behind.isdisjoint(nearest):
                behind.add(address)
        plain = [(address, nearest) for address, nearest in batch if address not in behind]
        if plain:
            return plain
        before = dict(batch)
        kept = {token for a in guarded for token in self._provided(a)}
        chosen = guarded | {a for a in before if not kept.isdisjoint(self._watched(a))}
        todo = list(chosen)
        while todo:  # what they stand on, which stands on something guarded: else it would have gone before
            for one in before[todo.pop()]:
                if one not in chosen:
                    chosen.add(one)
                    todo.append(one)
        return [(address, nearest) for address, nearest in batch if address in chosen]

    def _provided(self, address: str) -> Iterable[str]:
        change = self.changes[address]
        return self.registry.type_of(change.resource.type).provides(change.spec)

    def _watched(self, address: str) -> Iterable[str]:
        change = self.changes[address]
        return self.registry.type_of(change.resource.type).watches(change.spec)


# ------------------------------------------------------------------------------------------------ one window


@dataclass(frozen=True, slots=True)
class Closed:
    """How a window ended.

    Attributes:
        confirmed: True; False = the old state is back; `None` = that cannot be said now.
        cause: why it was not confirmed.
        now: how things are on the host.
    """

    confirmed: bool | None
    cause: str = ""
    now: str = ""


class Window:
    """The interval on one host in which a change can still be taken back.

    Args:
        name: names it on the host: letters, digits and `-`.
        keep: what the host keeps meanwhile, and the seconds that it waits.
        sleep: waits.
        emit: is told what happens.
    """

    def __init__(
        self,
        name: str,
        target: str,
        pool: Pool,
        *,
        keep: Sequence[Keep] = (),
        seconds: int = 0,
        sleep: Callable[[float], None] = time.sleep,
        emit: Callable[..., None] = lambda event, **fields: None,
    ) -> None:
        self.name, self._target, self._pool = name, target, pool
        self._keep, self._seconds, self._sleep, self._emit = keep, seconds, sleep, emit
        self.address = f"guard[{target}:{name}]"
        self._user = ""
        self._ends = 0.0
        self._disarming = False
        self._before: dict[str, str] = {}
        self.refused = False

    @property
    def armed(self) -> bool:
        """The host said that it is ready to take everything back."""
        return bool(self._user)

    @property
    def opened(self) -> bool:
        """The host was told to arm."""
        return self._ends > 0

    def forget(self) -> None:
        """The host was not reached: it was not told to arm."""
        self._ends = 0.0

    def around(self, works: Sequence[Work]) -> list[Work]:
        """The changes with what goes before each of them in the same message: without that none of them begins."""
        out = [] if self.armed else [self._arming()]
        for number, work in enumerate(works):
            first = self.address
            if number or self.armed:
                first = f"{self.address}/{len(self._before)}"
                self._before[first] = work.address
                step = Sh(STILL, (self.name,), title="see that the guard is armed", quick=True)
                out.append(Work(first, [step], [one.address for one in out[:1]]))
            out.append(replace(work, after=[*work.after, first]))
        return out

    def _arming(self) -> Work:
        self._ends = time.monotonic() + self._seconds
        paths = sorted({path for keep in self._keep for path in keep.paths}, key=lambda p: (p[0] == "~", p))
        units = sorted({unit for keep in self._keep for unit in keep.units})
        words = (*(f"path:{path}" for path in paths), *(f"unit:{unit}" for unit in units))
        title = f"arm the guard: back in {self._seconds} s unless it is confirmed"
        return Work(self.address, [Sh(ARM, (self.name, str(self._seconds), *words), REVERT, title)])

    def told(self, result: StepResult, addresses: Iterable[str]) -> dict[str, str]:
        """Take note of how a step of the guard's own ended.

        Args:
            addresses: the changes that it guards.

        Returns:
            those that do not begin for it, and why.
        """
        if result.address != self.address:
            late = "the host took it back before this was done. Give it more time (`confirmWithin`)."
            return {self._before[result.address]: late} if result.status else {}
        words = result.output.split()
        if result.status == 0 and words[-2:-1] == ["user"]:
            self._user = words[-1]
            self._emit("guard_armed", target=self._target, guard=self.name, seconds=self._seconds)
            return {}
        self.refused = True
        why = result.output.strip() or "no reason given"
        return dict.fromkeys(addresses, f"its guard could not be armed: {why}. Nothing was changed.")

    def knows(self, address: str) -> bool:
        """A step of the guard's own goes by this name."""
        return address == self.address or address in self._before

    def close(self, cause: str) -> Closed:
        """Confirm by a new login, or take back.

        Args:
            cause: why it must not be confirmed; empty where the changes went well.
        """
        late = time.monotonic() > self._ends
        cause = cause or self._confirmed()
        closed = self._take_back(cause, late) if cause else Closed(True)
        event = {True: "guard_confirmed", False: "guard_reverted", None: "guard_lost"}[closed.confirmed]
        self._emit(event, target=self._target, guard=self.name)
        return closed

    def _confirmed(self) -> str:
        """Log in anew, see that we are who we were, disarm. Why that does not work; empty if it does."""
        if any(keep.units or not all(p.startswith(IMMEDIATE) for p in keep.paths) for keep in self._keep):
            self._sleep(SETTLE_SECONDS)
        try:
            return self._log_in()
        except (ConnectError, ConnectionLost):
            self._sleep(AGAIN_SECONDS)
        try:
            return self._log_in()
        except (ConnectError, ConnectionLost) as error:
            return f"a new login did not work ({str(error).rstrip('.')})."

    def _log_in(self) -> str:
        paths = [path for keep in self._keep for path in keep.paths]
        checks = [check for start, check in CHECKS.items() if any(path.startswith(start) for path in paths)]
        fresh = self._pool.fresh(self._target)
        try:
            user, *checked = fresh.read([Script("id -u"), *checks])
            if user.text.strip() != self._user:
                return f"a new login has the rights of user {user.text.strip() or '?'}, not of {self._user}."
            for reply in checked:
                if reply.status:
                    return f"the host says: {' '.join(reply.text.split())[-300:]}"
            self._disarming = True
            result = _do(fresh, DISARM, self.name, self.address)
            return "" if result.status == 0 else f"it was too late: {result.output.strip()[-300:]}."
        finally:
            fresh.close()

    def _take_back(self, cause: str, late: bool) -> Closed:
        """At once by the connection that is there; else wait until the host has done it by itself.

        Args:
            late: the host may have done it while steps were under way.
        """
        found = self.ask_back()
        left = max(0.0, self._ends - time.monotonic()) + 2
        # Seldom: each login that fails makes sshd like us less. It may just have rebooted.
        for pause in (min(left, 15.0), max(left - 15.0, 0.0), *[GRACE_SECONDS / 3] * 3):
            if found in _KNOWN:
                break
            self._sleep(pause)
            found = self.look()
        if found == "confirmed" or (found == "gone" and self._disarming):
            # Only the answer got lost, and perhaps what makes it tidy.
            with suppress(ConnectError, ConnectionLost):
                _do(self._pool.get(self._target), DISARM, self.name, self.address)
            return Closed(True)
        if found == "reverted" and late:
            return Closed(False, cause, "It was reverted; what a step wrote after that may still be there: plan again.")
        if found == "reverted":
            return Closed(False, cause, "It was reverted: the old state is back.")
        if found == "gone" and not self.armed:
            return Closed(False, cause, "Nothing was changed.")
        return Closed(
            None,
            cause,
            "Whether the host has taken it back is not known, because nobody gets in. It does so by itself, "
            "at the latest when it boots; `reconciler resume` looks again.",
        )

    def ask_back(self) -> str:
        """Have the host take everything back now; what became of it, as `look` says, or empty."""
        try:
            result = _do(self._pool.get(self._target), REVERT_NOW, self.name, self.address)
        except (ConnectError, ConnectionLost):
            return ""
        return result.output.split()[-1] if result.output.split() else ""

    def look(self) -> str:
        """`armed`, `reverting`, `reverted`, `confirmed` or `gone`; empty where the host does not answer."""
        try:
            (reply,) = self._pool.get(self._target).read([Script(STATE, (self.name,))])
        except (ConnectError, ConnectionLost):
            return ""
        return reply.text.strip()


def _do(connection: Connection, script: str, name: str, address: str) -> StepResult:
    """One of the guard's scripts, by itself."""
    (result,) = connection.execute([Work(address, [Sh(script, (name,), title="guard")])], no_secrets)
    return result


_KNOWN: Final[Collection[str]] = ("reverted", "confirmed", "gone")


def reopened(name: str, target: str, pool: Pool) -> str:
    """What became of the window of a run that was killed: `reverted`, or `gone` where it was confirmed, or never
    opened. One that is still open is closed: nobody knows any more what was seen in it.

    Raises:
        ConnectError, ConnectionLost: that cannot be found out.
    """
    window = Window(name, target, pool)
    (reply,) = pool.get(target).read([Script(STATE, (name,))])
    found = reply.text.strip()
    if found in ("armed", "reverting"):
        found = window.ask_back()
        if found not in _KNOWN:
            raise ConnectionLost(f"{target}: the host could not take a guarded change back. {found}".rstrip())
    if found == "confirmed":
        _do(pool.get(target), DISARM, name, window.address)
        found = "gone"
    return found
