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

from reconciler.apply import Ended, Result
from reconciler.errors import ConnectError, ConnectionLost, PlanError, SecretError
from reconciler.lab.stage import Stage
from reconciler.model import Outcome, Target
from reconciler.plan import Plan
from reconciler.project import Project
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
        unseen: targets that were left out, and why.
    """

    live: Plan
    result: Result | None = None
    left: Plan | None = None
    unseen: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, Ended]:
        """Changes that did not end well, by address."""
        ended = self.result.ended if self.result else {}
        return {a: e for a, e in ended.items() if e.outcome is not Outcome.DONE}

    @property
    def converges(self) -> bool:
        """Everything was done, and nothing would be left."""
        return not self.failed and (self.left is None or (not self.left.changes and not self.left.unknown))


def rehearse(project: Project, say: Callable[[str], None] = lambda sentence: None) -> Rehearsal:
    """Carry out the plan of a project on likenesses of its systems.

    Args:
        say: is told what happens, for people.

    Raises:
        InvalidInput, PlanError: no plan can be made.
    """
    catalog = project.validate()
    desired = project.desired(catalog)
    folder = Path(tempfile.mkdtemp(prefix="reconciler-rehearsal-"))
    stage = Stage(folder, catalog, project.secrets.reveal)
    unseen: dict[str, str] = {}
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
                except (ConnectError, ConnectionLost, SecretError) as error:
                    unseen[name] = str(error)
        if not found:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in unseen.items())
            raise PlanError(f"There is nothing to rehearse. {reasons}".strip())
        return _carry_out(project, folder, found, unseen, say)
    finally:
        stage.close()
        shutil.rmtree(folder, ignore_errors=True)


def _carry_out(
    project: Project, folder: Path, found: dict[str, Target], unseen: dict[str, str], say: Callable[[str], None]
) -> Rehearsal:
    """Plan, apply, plan: on the likenesses alone."""
    excluded = _scope(project, set(found))
    state = folder / "state"
    if project.state.is_dir():
        shutil.copytree(project.state, state)
    stage_of = replace(project, state=state, retarget=lambda target: found.get(target.name, target))
    stage_of.secrets = _read_only(project)
    say("Planning on the likenesses")
    made = stage_of.plan(excluded)
    rehearsal = Rehearsal(made, unseen=unseen)
    if made.changes:
        say(f"Carrying out {len(made.changes)} changes there")
        with stage_of.pool(made.targets) as pool:
            rehearsal.result = stage_of.apply(made, pool, command="rehearse")
        say("Planning again")
        rehearsal.left = stage_of.plan(excluded)
    return rehearsal


def _scope(project: Project, seen: set[str]) -> Any:
    from reconciler.plan import Scope

    targets = sorted({r.target for r in project.desired().resources.values()})
    wanted = [f"target={name}" for name in targets if name in seen]
    if not wanted:
        raise PlanError("There is nothing to rehearse: no system of this desired state can be simulated and reached.")
    return Scope(targets=wanted)


def _read_only(project: Project) -> Secrets:
    """The same secrets; what the likenesses make is kept nowhere."""
    inner = project.secrets

    class Looking(Secrets):
        def reveal(self, secret: Any) -> str:
            return inner.reveal(secret)

        def keep(self, secret: Any, value: str) -> None:
            return None

    return Looking(lambda: inner._key)
