"""A world in memory for the tests of the engine: servers, objects on them, connections, and ways to break all three.

`World` is what the servers hold. `Lab` joins it with everything that a run needs (registry, store, secrets, pool).
Nothing here sleeps, starts a program or opens a socket.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from reconciler import apply as apply_stage
from reconciler import inventory, journal
from reconciler import plan as plan_stage
from reconciler.connections import Pool
from reconciler.errors import ConnectError, ConnectionLost, Position, ProbeFailed, TargetMoved
from reconciler.expand import Catalog, expand
from reconciler.model import (
    CONTROL,
    Change,
    Document,
    Identity,
    Kind,
    Lifecycle,
    Metadata,
    Probe,
    Read,
    Reply,
    Resource,
    ResourceType,
    Run,
    Script,
    Secret,
    Sha256,
    Spec,
    State,
    Step,
    StepResult,
    Target,
    Work,
)
from reconciler.probe import Look, probe_all
from reconciler.registry import Registry
from reconciler.resolve import Desired, resolve
from reconciler.secrets import Secrets
from reconciler.store import Store


class Killed(BaseException):
    """The tool dies here, as by `kill -9`: no `except Exception` may stop it."""


# ------------------------------------------------------------------------------------------------- resource types


class Item(Spec):
    """An object that one step changes as a whole."""

    name: Identity
    value: str | None = None
    size: int | None = None
    label: str | Secret | None = None
    fixed: str | None = None
    needs: Annotated[tuple[str, ...], CONTROL] = ()


class Parts(Spec):
    """An object each of whose attributes takes a step of its own."""

    name: Identity
    value: str | None = None
    size: int | None = None
    needs: Annotated[tuple[str, ...], CONTROL] = ()


class Service(Spec):
    """Something that must be started again after what it watches has changed."""

    name: Identity
    fresh: Literal[True] = True
    watches: Annotated[tuple[str, ...], CONTROL] = ()
    needs: Annotated[tuple[str, ...], CONTROL] = ()


class Job(Spec):
    """An object that the server makes by a task of its own, which goes on whether somebody waits for it or not."""

    name: Identity
    value: str | None = None
    needs: Annotated[tuple[str, ...], CONTROL] = ()


class Inspection(Spec):
    """An audit: the value that an object should have."""

    name: Identity
    value: str
    needs: Annotated[tuple[str, ...], CONTROL] = ()


def _tokens(spec: Any) -> Iterable[str]:
    return [f"item:{name}" for name in spec.needs]


def _probe(specs: Sequence[Any]) -> Probe:
    (reply,) = yield [Script("show", [s.name for s in specs])]
    if reply.status:
        raise ProbeFailed(reply.text)
    states: list[State | None] = json.loads(reply.text)
    return [
        {**s, "label": Sha256.of(str(s.get("label")))} if s and _hidden(spec) else s
        for s, spec in zip(states, specs, strict=True)
    ]


def _hidden(spec: Any) -> Iterable[str]:
    return ("label",) if isinstance(getattr(spec, "label", None), Secret) else ()


def _probe_services(specs: Sequence[Service]) -> Probe:
    (reply,) = yield [Script("fresh", [json.dumps([s.name, *s.watches]) for s in specs])]
    states: list[State | None] = json.loads(reply.text)
    return states


def _set_whole(change: Change[Item]) -> Iterable[Step]:
    if change.after is None:
        yield Run(("delete", change.spec.name))
        return
    declared = {n: getattr(change.spec, n) for n in ("value", "size", "fixed")}
    yield Run(("set", change.spec.name, json.dumps({n: v for n, v in declared.items() if v is not None})))
    if isinstance(change.spec.label, Secret):
        yield Run(("stdin", change.spec.name, "label"), stdin=change.spec.label)
    elif change.spec.label is not None:
        yield Run(("set", change.spec.name, json.dumps({"label": change.spec.label})))


def _set_parts(change: Change[Parts]) -> Iterable[Step]:
    if change.after is None:
        yield Run(("delete", change.spec.name))
        return
    if change.before is None:
        yield Run(("set", change.spec.name, "{}"))
    for name in sorted(change.changed):
        yield Run(("set", change.spec.name, json.dumps({name: change.after[name]})))


def _start(change: Change[Service]) -> Iterable[Step]:
    yield Run(("delete" if change.after is None else "start", change.spec.name))


def _launch(change: Change[Job]) -> Iterable[Step]:
    if change.after is None:
        yield Run(("delete", change.spec.name))
    else:
        yield Run(("launch", change.spec.name, json.dumps(dict(change.after))))


def _findings(change: Change[Inspection]) -> Iterable[tuple[str, str, str]]:
    for difference in change.differences:
        yield "wrong-value", f"{change.spec.name} is {difference.before}", "Correct it."


ITEM: ResourceType[Item] = ResourceType(
    "sim.item",
    Item,
    _probe,
    _set_whole,
    immutable=frozenset({"fixed"}),
    hidden=_hidden,
    provides=lambda s: (f"item:{s.name}",),
    needs=_tokens,
)
PARTS: ResourceType[Parts] = ResourceType(
    "sim.parts", Parts, _probe, _set_parts, provides=lambda s: (f"item:{s.name}",), needs=_tokens
)
SERVICE: ResourceType[Service] = ResourceType(
    "sim.service",
    Service,
    _probe_services,
    _start,
    provides=lambda s: (f"item:{s.name}",),
    needs=_tokens,
    watches=lambda s: [f"item:{name}" for name in s.watches],
    stale={"fresh": False},
)
JOB: ResourceType[Job] = ResourceType(
    "sim.job", Job, _probe, _launch, provides=lambda s: (f"item:{s.name}",), needs=_tokens
)
INSPECTION: ResourceType[Inspection] = ResourceType(
    "sim.inspection", Inspection, _probe, None, findings=_findings, needs=_tokens
)
TYPES = {t.name.removeprefix("sim."): t for t in (ITEM, PARTS, SERVICE, JOB, INSPECTION)}


# ------------------------------------------------------------------------------------------------- kinds


class ServerSpec(Spec):
    """A server in memory."""


class ThingSpec(Spec):
    """One object of a type on some servers."""

    on: tuple[str, ...]
    type: Literal["item", "parts", "service", "job", "inspection"] = "item"
    name: str = ""
    absent: bool = False
    fields: dict[str, Any] = {}


def _things(document: Document[ThingSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    spec = document.spec
    for server in spec.on:
        yield TYPES[spec.type](server, absent=spec.absent, name=spec.name or document.name, **spec.fields)


SERVER: Kind[ServerSpec] = Kind(
    "Server", ServerSpec, lambda d, c: (), target=lambda d: Target(d.name, "simulated", {}, d.metadata.labels)
)
THING: Kind[ThingSpec] = Kind("Thing", ThingSpec, _things)
REGISTRY = Registry.of([SERVER, THING], TYPES.values())


def server(name: str, **labels: str) -> Document[Any]:
    """A document of kind Server."""
    return Document("Server", Metadata(name=name, labels=labels), ServerSpec(), Lifecycle(), Position("servers.yaml"))


def thing(
    name: str,
    on: str | Sequence[str] = "s1",
    type: Literal["item", "parts", "service", "job", "inspection"] = "item",
    *,
    lifecycle: Mapping[str, Any] | None = None,
    absent: bool = False,
    labels: Mapping[str, str] | None = None,
    key: str = "",
    **fields: Any,
) -> Document[Any]:
    """A document of kind Thing: `thing("a", "s1", value="x", needs=["b"], lifecycle={"adopt": "Never"})`."""
    spec = ThingSpec(on=(on,) if isinstance(on, str) else tuple(on), type=type, name=key, absent=absent, fields=fields)
    life = Lifecycle.model_validate(lifecycle or {})
    return Document("Thing", Metadata(name=name, labels=dict(labels or {})), spec, life, Position("things.yaml"))


# ------------------------------------------------------------------------------------------------- the world

StepHook = Callable[[str, Step, Literal["before", "after"]], None]


class World:
    """What the servers hold, and what befalls those who talk to them.

    Attributes:
        servers: server -> object -> attributes. Keys that begin with `_` are logical times.
        down: servers that cannot be reached.
        broken: (server, object) whose steps fail.
        effects: (server, argv) of each step that ran, in order.
        goes_on: when a batch is cut off, the server carries on with the rest of it, as a real shell may.
        tasks: witness -> (server, object, attributes) of each task that still goes on.
        tells_tasks: whether a server can be asked for the tasks that we began, or knows only what is named.
        on_step: called around each step; may raise.
        on_task: called while a task goes on, after its witness was told; may raise.
        on_read: called before each read; may raise.
        rounds: round trips to each server.
        settled: the witnesses that were waited for.
    """

    def __init__(self, servers: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None) -> None:
        self.servers: dict[str, dict[str, dict[str, Any]]] = {
            s: {n: {**a, "_changed": 0, "_started": 0} for n, a in objects.items()}
            for s, objects in (servers or {}).items()
        }
        self.down: set[str] = set()
        self.broken: set[tuple[str, str]] = set()
        self.effects: list[tuple[str, tuple[str, ...]]] = []
        self.goes_on = False
        self.tasks: dict[str, tuple[str, str, dict[str, Any]]] = {}
        self.tells_tasks = True
        self.on_step: StepHook = lambda server, step, when: None
        self.on_task: Callable[[str], None] = lambda witness: None
        self.on_read: Callable[[str], None] = lambda server: None
        self.settled: list[str] = []
        self.rounds: Counter[str] = Counter()
        self.lock = threading.RLock()
        self._now = 0

    def snapshot(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The world without its logical times; a service tells whether it started after everything else changed."""
        return {
            s: {n: {k: v for k, v in a.items() if k[0] != "_"} for n, a in objects.items()}
            for s, objects in self.servers.items()
        }

    def fresh(self, server: str, name: str, watched: Iterable[str]) -> bool:
        """Whether a service was started after everything that it watches has changed."""
        objects = self.servers.get(server, {})
        started: int = objects[name]["_started"]
        return all(started >= objects[w]["_changed"] for w in watched if w in objects)

    def edit(self, server: str, name: str, attributes: Mapping[str, Any] | None) -> None:
        """Change an object behind the tool's back; `None` removes it."""
        with self.lock:
            self._now += 1
            objects = self.servers.setdefault(server, {})
            if attributes is None:
                objects.pop(name, None)
            else:
                objects.setdefault(name, {"_started": 0}).update(attributes, _changed=self._now)

    def run(self, server: str, step: Step, reveal: Callable[[Secret], str]) -> int:
        """One step's effect; gives its exit status."""
        assert isinstance(step, Run)
        verb, name, *rest = step.argv
        with self.lock:
            if (server, name) in self.broken:
                return 1
            self.effects.append((server, step.argv))
            objects = self.servers.setdefault(server, {})
            match verb:
                case "set":
                    self.edit(server, name, json.loads(rest[0]))
                case "stdin":
                    text = reveal(step.stdin) if isinstance(step.stdin, Secret) else step.stdin
                    self.edit(server, name, {rest[0]: text})
                case "delete":
                    self.edit(server, name, None)
                case "start":
                    self._now += 1
                    objects.setdefault(name, {"_changed": self._now})["_started"] = self._now
                case "launch":
                    self.tasks[f"task-{len(self.effects)}"] = (server, name, json.loads(rest[0]))
            return 0

    def finish(self, server: str, witnesses: Sequence[str]) -> None:
        """The tasks of a server come to their end: those that are named, and all where it can be asked for them."""
        with self.lock:
            for witness, (where, name, attributes) in list(self.tasks.items()):
                if where == server and (witness in witnesses or self.tells_tasks):
                    del self.tasks[witness]
                    self.edit(server, name, attributes)


class SimulatedConnection:
    """A connection to a server of a `World`."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name
        self.closed = False

    def read(self, reads: Sequence[Read]) -> Sequence[Reply]:
        """See `Connection.read`."""
        world = self._world
        world.on_read(self._name)
        if self._name in world.down:
            raise ConnectError(f"{self._name}: there is no route to it.")
        with world.lock:
            world.rounds[self._name] += 1
            objects = world.servers.get(self._name, {})
            out = []
            for one in reads:
                assert isinstance(one, Script)
                found: list[Any] = []
                if one.sh == "show":
                    found = [_visible(objects.get(n)) for n in one.args]
                else:
                    for name, *watched in map(json.loads, one.args):
                        found.append({"fresh": world.fresh(self._name, name, watched)} if name in objects else None)
                out.append(Reply(json.dumps(found)))
            return out

    def execute(self, batch: Sequence[Work], reveal: Callable[[Secret], str]) -> Iterator[StepResult]:
        """See `Connection.execute`."""
        world, failed = self._world, set[str]()
        if self._name in world.down:
            raise ConnectError(f"{self._name}: there is no route to it.")
        world.rounds[self._name] += 1
        todo = [(work, index, step) for work in batch for index, step in enumerate(work.steps)]
        for number, (work, index, step) in enumerate(todo):
            if work.address in failed or any(a in failed for a in work.after):
                failed.add(work.address)
                yield StepResult(work.address, index, None)
                continue
            next_one = number
            try:
                world.on_step(self._name, step, "before")
                next_one += 1
                status = world.run(self._name, step, reveal)
                if status:
                    failed.add(work.address)
                if isinstance(step, Run) and step.argv[0] == "launch" and not status:
                    witness = f"task-{len(world.effects)}"
                    yield StepResult(work.address, index, None, witness=witness)
                    world.on_task(witness)
                    world.finish(self._name, [witness])
                world.on_step(self._name, step, "after")
            except (Killed, ConnectionLost):
                if world.goes_on:
                    self._finish_alone(todo[next_one:], failed, reveal)
                raise
            yield StepResult(work.address, index, status, "the disk is on fire" if status else "")

    def _finish_alone(
        self, todo: Sequence[tuple[Work, int, Step]], failed: set[str], reveal: Callable[[Secret], str]
    ) -> None:
        for work, _, step in todo:
            if (
                work.address in failed
                or any(a in failed for a in work.after)
                or self._world.run(self._name, step, reveal)
            ):
                failed.add(work.address)

    def settle(self, witnesses: Sequence[str]) -> None:
        """See `Connection.settle`."""
        if self._name in self._world.down:
            raise ConnectError(f"{self._name}: there is no route to it.")
        self._world.settled += witnesses
        self._world.finish(self._name, witnesses)

    def close(self) -> None:
        """See `Connection.close`."""
        self.closed = True


class TransactingConnection(SimulatedConnection):
    """A connection to a server that compares by itself, and does everything in one round trip."""

    def transact(
        self,
        expected: Sequence[tuple[Read, Reply]],
        batch: Sequence[Work],
        reveal: Callable[[Secret], str],
        reads: Sequence[Read],
    ) -> Iterator[StepResult | Sequence[Reply]]:
        """See `Transacting.transact`."""
        with self._world.lock:
            before = self._world.rounds[self._name]
            if expected and [*self.read([one for one, _ in expected])] != [reply for _, reply in expected]:
                raise TargetMoved(f"{self._name} has moved")
            yield from self.execute(batch, reveal)
            replies = self.read(reads)
            self._world.rounds[self._name] = before + 1
        yield replies


def _visible(attributes: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if attributes is None else {k: v for k, v in attributes.items() if k[0] != "_"}


# ------------------------------------------------------------------------------------------------- kills


class Fuse:
    """Counts moments and kills the tool at the one that is asked for, and for good: the dead write nothing more."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.count, self.blown, self.where = at, 0, False, ""

    def tick(self, where: str) -> None:
        """One moment passes."""
        if self.blown:
            raise Killed(self.where)
        self.count += 1
        if self.count == self.at:
            self.blown, self.where = True, where
            raise Killed(where)


class FusedStore(Store):
    """A store whose every transaction has three moments: before it, before its commit, after its commit."""

    def __init__(self, folder: Path, fuse: Fuse) -> None:
        super().__init__(folder)
        self.fuse = fuse

    @contextlib.contextmanager
    def write(self) -> Iterator[Any]:
        """See `Store.write`."""
        self.fuse.tick("before a transaction")
        with super().write() as db:
            yield db
            self.fuse.tick("before a commit")
        self.fuse.tick("after a commit")


# ------------------------------------------------------------------------------------------------- all together


@dataclass
class Rig:
    """A world with all that a run of the engine needs. The state folder outlives the `Rig`, as a process's does.

    Attributes:
        transacts: whether the servers compare by themselves before they change anything.
    """

    folder: Path
    world: World
    documents: Sequence[Document[Any]] = ()
    fuse: Fuse = field(default_factory=Fuse)
    parallel: int = 1
    environ: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    registry: Registry = REGISTRY
    transacts: bool = False

    def __post_init__(self) -> None:
        self.store = FusedStore(self.folder, self.fuse)
        self.secrets = Secrets(lambda: b"k" * 32, self.environ)

    def emit(self, event: str, **fields: Any) -> None:
        """Keeps what happened."""
        self.events.append((event, fields))

    def desired(self) -> Desired:
        """Stages 3 and 4 over the documents."""
        catalog = Catalog(self.documents, self.registry, self.folder, {})
        return resolve(expand(catalog), catalog)

    def pool(self, *, read_only: bool = False) -> Pool:
        """Connections into the world."""
        return Pool(
            self.desired().targets,
            parallel=self.parallel,
            read_only=read_only,
            opener=lambda t, reveal: (TransactingConnection if self.transacts else SimulatedConnection)(
                self.world, t.name
            ),
        )

    def plan(
        self, scope: plan_stage.Scope | None = None, *, force: bool = False, now: datetime | None = None
    ) -> plan_stage.Plan:
        """Stages 3 to 7, on connections that cannot write."""
        desired = self.desired()
        owned = inventory.load(self.store)
        gone, release = plan_stage.to_prune(desired, owned, self.registry)
        chosen = (scope or plan_stage.Scope()).select([*desired.resources.values(), *gone], desired.edges)
        gone = [r for r in gone if r.address in chosen]
        by_target: dict[str, list[Resource[Any]]] = {}
        for resource in (*desired.resources.values(), *gone):
            if resource.address in chosen:
                by_target.setdefault(resource.target, []).append(resource)
        with self.pool(read_only=True) as pool:
            looks: dict[str, Look] = {}
            executor = cast(Executor, OneAtATime())
            observed = probe_all(by_target, self.registry, pool.get, executor, looks=looks)
        return plan_stage.make(
            desired,
            gone,
            release,
            observed,
            owned,
            self.registry,
            self.secrets.seal,
            key_id_of=lambda: self.secrets.key_id,
            force=force,
            now=now,
            looks=looks,
        )

    def means(self, pool: Pool, **means: Any) -> apply_stage.Means:
        """What `apply` works with; it never really sleeps."""
        defaults: dict[str, Any] = {"sleep": lambda seconds: None}
        return apply_stage.Means(self.registry, pool, self.store, self.secrets, self.emit, **defaults | means)

    def apply(self, made: plan_stage.Plan | None = None, run: str = "run-1", **means: Any) -> apply_stage.Result:
        """Stage 8."""
        made = made or self.plan()
        with self.pool() as pool:
            return apply_stage.apply(made, run, self.means(pool, **means))

    def resume(self, run: str = "run-1", **means: Any) -> apply_stage.Result:
        """Finish a killed run."""
        with self.pool() as pool:
            return apply_stage.resume(journal.find_run(self.store, run), self.means(pool, **means))

    def reborn(self, at: int | None = None) -> Rig:
        """The same world and state folder, and a new process of the tool."""
        self.store.close()
        return Rig(
            self.folder,
            self.world,
            self.documents,
            Fuse(at),
            self.parallel,
            self.environ,
            transacts=self.transacts,
        )


class OneAtATime:
    """An executor without threads: probes happen in the order in which they are asked for."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """See `Executor.submit`."""
        from concurrent.futures import Future

        future: Future[Any] = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def fuse_steps(rig: Rig) -> None:
    """Make the moments around each step count as well."""
    rig.world.on_step = lambda server, step, when: rig.fuse.tick(f"{when} {step} on {server}")
