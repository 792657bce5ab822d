"""Rehearse: apply a plan to likenesses of the live systems, and plan again, before anything is touched.

The live systems are read only. Each one whose API can be simulated gets a simulator in its likeness; the same plan is
made and carried out there, with a copy of the inventory, and then a second plan says what would be left.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from reconciler import inventory
from reconciler.apply import Ended, Result
from reconciler.errors import ConnectError, ConnectionLost, PlanError, ProbeFailed, SecretError
from reconciler.lab.stage import Stage
from reconciler.model import Outcome, Target
from reconciler.plan import Plan, Scope
from reconciler.project import Project
from reconciler.resolve import Desired
from reconciler.secrets import Secrets

MIRRORS: Final = {"proxmox": "reconciler.lab.proxmox.mirror", "kubernetes": "reconciler.lab.kubernetes.mirror"}
"""Connection -> the module whose `mirror` makes a likeness of such a system."""


@dataclass
class Rehearsal:
    """What came of it.

    Attributes:
        live: the plan for the live systems.
        result: how its changes ended on the likenesses.
        left: what a second plan there would still do.
        unseen: targets that were left out because nothing can stand in for them, and why.
        unreached: targets that should have been rehearsed and could not be looked at, and why.
    """

    live: Plan
    result: Result | None = None
    left: Plan | None = None
    unseen: dict[str, str] = field(default_factory=dict)
    unreached: dict[str, str] = field(default_factory=dict)

    @property
    def unknown(self) -> dict[str, str]:
        """Objects of which nothing can be said, by address, and why."""
        return dict((self.left or self.live).unknown)

    @property
    def failed(self) -> dict[str, Ended]:
        """Changes that did not end well, by address."""
        ended = self.result.ended if self.result else {}
        return {a: e for a, e in ended.items() if e.outcome is not Outcome.DONE}

    @property
    def converges(self) -> bool:
        """Everything could be looked at and was done, and nothing would be left."""
        return not (self.failed or self.unknown or self.unreached or (self.left is not None and self.left.changes))


def rehearse(project: Project, say: Callable[[str], None] = lambda sentence: None, *, force: bool = False) -> Rehearsal:
    """Carry out the plan of a project on likenesses of its systems.

    Args:
        say: is told what happens, for people.
        force: let plans pass that delete much.

    Raises:
        InvalidInput, PlanError: no plan can be made.
    """
    catalog = project.validate()
    desired = project.desired(catalog)
    folder = Path(tempfile.mkdtemp(prefix="reconciler-rehearsal-"))
    stage = Stage(folder, catalog, project.secrets.reveal)
    unseen: dict[str, str] = {}
    unreached: dict[str, str] = {}
    found: dict[str, Target] = {}
    try:
        with project.pool(desired.targets, read_only=True) as pool:
            # Backup servers first: storages of clusters log in to them.
            for name, target in sorted(desired.targets.items(), key=lambda one: one[1].settings.get("service", "")):
                module = MIRRORS.get(target.connection)
                if module is None:
                    unseen[name] = f"there is no simulator for what is reached by {target.connection}"
                    continue
                say(f"Looking at {name}")
                try:
                    found[name] = importlib.import_module(module).mirror(target, pool.get(name).read, stage)
                except (ConnectError, ConnectionLost, ProbeFailed, SecretError) as error:
                    unreached[name] = str(error)
        scope = _scope(project, desired, set(found))
        if scope is None:
            reasons = "; ".join(
                f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in (unreached | unseen).items()
            )
            raise PlanError(f"There is nothing to rehearse. {reasons}".strip())
        rehearsal = _carry_out(project, folder, found, scope, say, force)
        rehearsal.unseen, rehearsal.unreached = unseen, unreached
        return rehearsal
    finally:
        stage.close()
        shutil.rmtree(folder, ignore_errors=True)


def _carry_out(
    project: Project, folder: Path, found: dict[str, Target], scope: Scope, say: Callable[[str], None], force: bool
) -> Rehearsal:
    """Plan, apply, plan: on the likenesses alone."""
    state = folder / "state"
    if project.state.is_dir():
        shutil.copytree(project.state, state)
    stage_of = replace(project, state=state, retarget=lambda target: found.get(target.name, target))
    stage_of.secrets = _read_only(project)
    say("Planning on the likenesses")
    made = stage_of.plan(scope, force=force)
    rehearsal = Rehearsal(made)
    if made.changes:
        say(f"Carrying out {len(made.changes)} changes there")
        with stage_of.pool(made.targets) as pool:
            rehearsal.result = stage_of.apply(made, pool, command="rehearse")
        say("Planning again")
        # What was pruned is in no scope any more; and this plan is never carried out.
        rest = _scope(stage_of, stage_of.desired(), set(found))
        rehearsal.left = stage_of.plan(rest, force=True) if rest else None
    return rehearsal


def _scope(project: Project, desired: Desired, found: set[str]) -> Scope | None:
    """All that is wanted on these targets, and all that would be pruned there; `None` where that is nothing."""
    owned = {entry.target for entry in inventory.load(project.store).values()}
    targets = sorted(found & (owned | {r.target for r in desired.resources.values()}))
    return Scope(targets=[f"target={name}" for name in targets]) if targets else None


def _read_only(project: Project) -> Secrets:
    """The same secrets; what the likenesses make is kept nowhere."""
    inner = project.secrets

    class Looking(Secrets):
        def reveal(self, secret: Any) -> str:
            return inner.reveal(secret)

        def keep(self, secret: Any, value: str) -> None:
            return None

    return Looking(lambda: inner._key)
