"""Work on the snapshots of policies from here: list, lock, restore, drill, over the project's connections.

The program travels along, so this also works on a host that lost it. What writes takes the target's lock and is
journalled like any other run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from reconciler import journal
from reconciler.connections import Pool
from reconciler.errors import PlanError, ProbeFailed, StepFailed
from reconciler.expand import Catalog
from reconciler.kinds.snapshot_policy import SnapshotPolicySpec, policy
from reconciler.lease import Leases
from reconciler.model import Script, Sh, Work
from reconciler.plan import Plan
from reconciler.planfile import to_text
from reconciler.project import Project
from reconciler.tools.snapshots import program_text

# In an image that is managed from outside, this machine's own python3 would look at this machine's own files.
RUN: Final = """
[ -z "$OFFLINE" ] || { echo '{"error": "Nothing runs in an image, so it has no snapshots."}'; exit 1; }
command -v python3 >/dev/null || { echo '{"error": "There is no python3 on this host. Install it."}'; exit 1; }
exec python3 -I - "$@"
"""


@dataclass(frozen=True)
class Place:
    """One subvolume of one policy on one host."""

    policy: str
    host: str
    subvolume: str
    written: str

    def __str__(self) -> str:
        return f"{self.host}:{self.subvolume}"


def places(
    catalog: Catalog, name: str | None = None, *, host: str | None = None, subvolume: str | None = None
) -> list[Place]:
    """The subvolumes that policies are about.

    Args:
        name: of one policy; all by default.

    Raises:
        PlanError: there is nothing like that.
    """
    found = []
    for document in catalog:
        if document.kind == "SnapshotPolicy" and name in (None, document.name):
            spec: SnapshotPolicySpec = document.spec
            written = json.dumps(policy(document.name, spec), sort_keys=True)
            for one in catalog.hosts(spec.hosts) if spec.hosts is not None else ():
                found += [Place(document.name, one, path, written) for path in spec.subvolumes]
    if name is not None and catalog.get(f"SnapshotPolicy/{name}") is None:
        known = sorted(d.name for d in catalog if d.kind == "SnapshotPolicy")
        raise PlanError(f"There is no SnapshotPolicy/{name}. There are: {', '.join(known) or 'none'}.")
    if name is not None and catalog.get(f"SnapshotPolicy/{name}").spec.synology is not None:  # type: ignore[union-attr]
        raise PlanError(f"SnapshotPolicy/{name} is about a Synology. Restore in DSM: Snapshot Replication, Recovery.")
    chosen = [p for p in found if host in (None, p.host) and subvolume in (None, p.subvolume)]
    if found and not chosen:
        raise PlanError(f"Nothing matches. There are: {', '.join(map(str, found))}.")
    return chosen


def only(found: Sequence[Place]) -> Place:
    """The one place that is meant.

    Raises:
        PlanError: there are several, or none.
    """
    if len(found) != 1:
        many = ", ".join(map(str, found)) or "none"
        raise PlanError(f"Say which one by --host and --subvolume. There are: {many}.")
    return found[0]


def listing(pool: Pool, found: Iterable[Place]) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Each place with `snapshots` or `error`, in one round trip for each host.

    Raises:
        ConnectError, ConnectionLost: a host cannot be reached.
        ProbeFailed: it gave no answer that makes sense.
    """
    by_host: dict[str, list[Place]] = {}
    for place in found:
        by_host.setdefault(place.host, []).append(place)
    for host, here in by_host.items():
        policies = list(dict.fromkeys(place.written for place in here))
        text = f"{{\n{RUN}\n}} <<'{_END}'\n{program_text()}\n{_END}\n"
        replies = pool.get(host).read([Script(text, ["list", written]) for written in policies])
        paths = {}
        for written, reply in zip(policies, replies, strict=True):
            answer = _answer(reply.text)
            if "paths" not in answer:
                raise ProbeFailed(f"{host}: {answer.get('error', 'the list of snapshots cannot be read.')}")
            paths[written] = answer["paths"]
        for place in here:
            yield place, paths[place.written][place.subvolume]


_END: Final = "END-OF-THE-PROGRAM"


def _answer(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


class Session:
    """Commands that change something on one host: under its lock, and in the journal.

    Args:
        say: is told each step, before and after: its title, and the answer or `None`.
    """

    def __init__(
        self, project: Project, pool: Pool, place: Place, say: Callable[[str, Mapping[str, Any] | None], None]
    ) -> None:
        self._project, self._pool, self._place, self._say = project, pool, place, say
        self._journal = journal.Journal(project.store, journal.new_run_id())
        self._leases = Leases(project.store, self._journal.run)

    @contextmanager
    def run(self, command: str) -> Iterator[Session]:
        """A run in the journal. It ends well, or with the error that leaves this block.

        Raises:
            PlanRefused: another run holds the host's lock.
        """
        self._leases.take([self._place.host])
        now = datetime.now(UTC).isoformat(timespec="seconds")
        status, reason = "failed", ""
        try:
            nothing = Plan(now, now, "", (), {}, {}, source=str(self._project.path))
            self._journal.begin(f"snapshots {command}", to_text(nothing))
            yield self
            status = "done"
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise
        finally:
            self._leases.free()
            self._journal.end(status, f"{self._place.policy}, {self._place}" + (f": {reason}" if reason else ""))

    def step(self, title: str, command: str, *words: str) -> Mapping[str, Any]:
        """One command of the program on the host; gives its answer.

        Raises:
            StepFailed: it could not be done; the text says why.
            ConnectError, ConnectionLost: the host went away.
            LeaseLost: another run took over.
        """
        place = self._place
        address = f"snapshots[{place}]"
        step = Sh(RUN, (command, place.written, place.subvolume, *words), program_text(), title)
        with self._project.store.write() as db:
            self._leases.check(db, place.host)
            self._journal.write(db, "intent", address, action=command, steps=[title])
        self._say(title, None)
        answer: Mapping[str, Any] = {}
        status: int | None = None
        for result in self._pool.get(place.host).execute([Work(address, [step])], self._project.secrets.reveal):
            answer, status = _answer(result.output), result.status
            if "error" in answer or status != 0:
                text = str(answer.get("error") or result.output.strip()[-500:])
                answer = {"error": text}
        outcome = "done" if status == 0 and "error" not in answer else "failed"
        with self._project.store.write() as db:
            self._journal.write(
                db, "end", address, outcome=outcome, reason=answer.get("error", ""), again=False, answer=answer
            )
        if outcome != "done":
            raise StepFailed(f"{place}: {title}", status or 1, str(answer.get("error", "")))
        self._say(title, answer)
        return answer


def restore(session: Session, snapshot: str, *, inside: str = "", to: str = "", in_place: bool = False) -> str:
    """Bring data back; gives the path where they are.

    A snapshot of how things are now comes first, also where nothing is overwritten.

    Args:
        snapshot: its name, or `latest`.
        inside: a path in the subvolume; all of it by default.
        to: a new path; one beside the original by default.

    Raises:
        StepFailed, ConnectError, ConnectionLost, LeaseLost: see `Session.step`.
    """
    if snapshot == "latest":
        # The snapshot that is taken first would be the latest then.
        snapshot = session.step("look for the latest snapshot", "find", snapshot)["name"]
    session.step("take a snapshot of how it is now", "take", "restore")
    what = inside or "everything"
    if not in_place:
        return str(session.step(f"restore {what} from {snapshot}", "copy-new", snapshot, inside, to)["path"])
    session.step(f"copy {what} from {snapshot}", "copy", snapshot, inside)
    path = session.step("exchange it for what is there", "swap", snapshot, inside)["path"]
    session.step("remove what was there", "finish", snapshot, inside)
    return str(path)


def drill(session: Session, snapshot: str) -> Mapping[str, Any]:
    """Restore into a scratch place and compare every byte; the host keeps the outcome for the policy's audit.

    Raises:
        StepFailed, ConnectError, ConnectionLost, LeaseLost: see `Session.step`.
    """
    return session.step(f"restore {snapshot} into a scratch place and compare", "drill", snapshot)
