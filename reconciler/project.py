"""The stages in their order: what the command line and other programs drive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from reconciler import apply as apply_stage
from reconciler import inventory, journal, planfile
from reconciler import plan as plan_stage
from reconciler.connections import Pool
from reconciler.errors import InvalidInput, Problem
from reconciler.expand import Catalog, expand
from reconciler.load import load
from reconciler.model import Target, Unprobed
from reconciler.probe import Look, Observations, probe_all
from reconciler.registry import Registry, default
from reconciler.resolve import Desired, resolve
from reconciler.secret_store import SecretStore
from reconciler.secrets import Secrets, key_in
from reconciler.store import Store
from reconciler.validate import validate


@dataclass
class Project:
    """A desired state and where its runs are kept.

    Attributes:
        path: the folder (or file) of the desired state.
        state: the state folder.
        retarget: replaces targets, for example by simulated ones.
    """

    path: Path
    state: Path
    registry: Registry = field(default_factory=default)
    emit: apply_stage.Emit = apply_stage.silent
    parallel: int = 20
    retarget: Callable[[Target], Target] = lambda target: target

    def __post_init__(self) -> None:
        self.store = Store(self.state)
        self.secret_store = SecretStore(self.path)
        store = self.secret_store
        self.secrets = Secrets(
            key_in(self.state),
            store=store.value,
            write=lambda reference, value: store.set({reference: value}, force=True),
            check_writable=store.check_writable,
        )

    def validate(self) -> Catalog:
        """Load and check all documents, and that the store has the secrets that they name. No secret is read.

        Raises:
            InvalidInput: with all problems.
        """
        loaded = load(self.path)
        problems: list[Problem] = []
        try:
            catalog = validate(loaded, self.registry)
        except InvalidInput as error:
            problems.extend(error.problems)
        problems.extend(self.secret_store.problems(loaded, typed=not problems))
        if problems:
            raise InvalidInput(problems)
        return catalog

    def desired(self, catalog: Catalog | None = None) -> Desired:
        """Everything that should be, in order.

        Args:
            catalog: documents that were validated already.

        Raises:
            InvalidInput: with all problems.
        """
        catalog = catalog or self.validate()
        found = resolve(expand(catalog), catalog)
        return replace(found, targets={name: self.retarget(t) for name, t in found.targets.items()})

    def plan(
        self,
        scope: plan_stage.Scope | None = None,
        *,
        force: bool = False,
        refuse: bool = True,
        pool: Pool | None = None,
        now: datetime | None = None,
    ) -> plan_stage.Plan:
        """Probe everything in scope and say what would be done. Nothing is changed.

        Args:
            force, refuse: see `plan.make`.
            pool: connections to use and leave open; by default read-only ones that are closed again.

        Raises:
            InvalidInput, PlanError: no plan can be made.
        """
        desired = self.desired()
        owned = inventory.load(self.store)
        gone, release = plan_stage.to_prune(desired, owned, self.registry)
        chosen = (scope or plan_stage.Scope()).select([*desired.resources.values(), *gone], desired.edges)
        gone = [r for r in gone if r.address in chosen]
        if scope:
            release = {a: r for a, r in release.items() if a in chosen}
        # Without its secret an object cannot be compared; the others can.
        missing = self.secrets.missing(r for a, r in desired.resources.items() if a in chosen)
        looks: dict[str, Look] = {}
        if pool is None:
            with self.pool(desired.targets, read_only=True) as own:
                observed = self.probe(desired, chosen, gone, own)
        else:
            pool.targets = desired.targets
            observed = self.probe(desired, chosen, gone, pool, looks)
        return plan_stage.make(
            desired,
            gone,
            release,
            {**observed, **{address: Unprobed(reason) for address, reason in missing.items()}},
            owned,
            self.registry,
            self.secrets.seal,
            key_id_of=lambda: self.secrets.key_id,
            force=force,
            refuse=refuse,
            commit=plan_stage.git_commit(self.path),
            source=str(self.path),
            now=now,
            looks=looks,
        )

    def probe(
        self, desired: Desired, chosen: set[str], gone: list[Any], pool: Pool, looks: dict[str, Look] | None = None
    ) -> Observations:
        """The live state of what is in scope.

        Args:
            looks: where to note what was heard of each target.
        """
        by_target: dict[str, list[Any]] = {}
        for resource in (*desired.resources.values(), *gone):
            if resource.address in chosen:
                by_target.setdefault(resource.target, []).append(resource)
        self.emit("probe_started", targets=sorted(by_target))

        def seen(target: str, error: str | None) -> None:
            self.emit("probe_finished", target=target, objects=len(by_target[target]), error=error)

        return probe_all(by_target, self.registry, pool.get, pool.executor, seen, looks)

    def pool(self, targets: Mapping[str, Target] | None = None, *, read_only: bool = False) -> Pool:
        """Connections to these targets, which may look up the secrets that they log in with."""
        return Pool(targets or {}, parallel=self.parallel, read_only=read_only, reveal=self.secrets.reveal)

    def apply(self, made: plan_stage.Plan, pool: Pool, *, command: str = "apply", **means: Any) -> apply_stage.Result:
        """Carry a plan out.

        Raises:
            PlanError, StoreError: it cannot be begun.
        """
        return apply_stage.apply(made, journal.new_run_id(), self._means(pool, **means), command=command)

    def resume(self, record: journal.RunRecord, **means: Any) -> apply_stage.Result:
        """Finish a run that was killed.

        Raises:
            PlanError, StoreError: it cannot be resumed.
        """
        made = planfile.from_text(record.plan, self.registry, resume=True)
        with self.pool(made.targets) as pool:
            return apply_stage.resume(record, self._means(pool, **means))

    def _means(self, pool: Pool, **means: Any) -> apply_stage.Means:
        return apply_stage.Means(self.registry, pool, self.store, self.secrets, self.emit, **means)


def state_folder(path: Path, chosen: Path | None, environ: Mapping[str, str]) -> Path:
    """Where runs are kept: what was chosen, `RECONCILER_STATE`, or `.reconciler` beside the desired state."""
    if chosen:
        return chosen
    if environ.get("RECONCILER_STATE"):
        return Path(environ["RECONCILER_STATE"])
    folder = path.parent if path.is_file() else path
    return folder.absolute().parent / ".reconciler"
