"""Runs the `laws` and `audit` entries of the types' tables on a real target, be it a folder or a host.

create -> plan empty -> for each attribute: change it behind the tool's back -> the plan names exactly that ->
apply repairs it -> plan empty -> delete -> gone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reconciler import apply as apply_stage
from reconciler import inventory
from reconciler import plan as plan_stage
from reconciler.connections import Pool
from reconciler.expand import Catalog
from reconciler.model import Action, Resource, Target
from reconciler.probe import probe_target
from reconciler.registry import default
from reconciler.resolve import resolve
from reconciler.secrets import Secrets
from reconciler.store import Store
from tests.contract.tables import entries, resource, secrets

PRELUDE = Path(__file__).parents[2] / "reconciler" / "connections"
TOOLBOX = PRELUDE / "toolbox"
PLACES = {"image", "host", "repo", "podman", "pve", "pbs", "dsm", "kubernetes"}
"""What may stand under `on:`. A simulated API adds its own word here, and a module `test_laws_WORD.py` that obeys all
`laws("laws", WORD)` on a `Subject` of that place."""


@dataclass
class Subject:
    """A target under test.

    Attributes:
        place: one of `PLACES`, as in `on:` of the tables.
        sh: does behind the tool's back what a table says under `setup`, `mutate` and `cleanup`: on hosts a script that
            runs as root; for an API whatever its place takes.
        listing: everything that is on it, for a comparison.
    """

    place: str
    target: Target
    sh: Callable[[Any], None]
    listing: Callable[[], Any]
    state: Path
    secrets: Secrets = field(default_factory=secrets)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    runs: int = 0

    def __post_init__(self) -> None:
        targets = {self.target.name: self.target}
        self.pool, self.looking = Pool(targets), Pool(targets, read_only=True)
        self.store = Store(self.state)

    def close(self) -> None:
        """Hang up."""
        for one in (self.pool, self.looking):
            one.__exit__()
        self.store.close()

    def emit(self, event: str, **fields: Any) -> None:
        """Keeps what happened."""
        self.events.append((event, fields))

    def plan(self, *wanted: Resource[Any]) -> plan_stage.Plan:
        """What would be done for just these objects; on a connection that cannot write (law 4)."""
        registry = default()
        catalog = Catalog((), registry, self.state, {})
        desired = resolve([replace(r, target=self.target.name) for r in wanted], catalog)
        desired = replace(desired, targets={self.target.name: self.target})
        observed = probe_target(desired.resources.values(), registry, self.looking.get(self.target.name).read)
        owned = {a: e for a, e in inventory.load(self.store).items() if a in desired.resources}
        seal = self.secrets.seal
        return plan_stage.make(desired, (), {}, observed, owned, registry, seal, key_id_of=lambda: self.secrets.key_id)

    def apply(self, made: plan_stage.Plan) -> apply_stage.Result:
        """Carry it out."""
        self.runs += 1
        means = apply_stage.Means(default(), self.pool, self.store, self.secrets, self.emit)
        return apply_stage.apply(made, f"run-{self.runs}", means)

    def settle(self, one: Resource[Any]) -> None:
        """Plan and apply; then nothing is left to do (law 3)."""
        result = self.apply(self.plan(one))
        assert result.ok, result.ended
        self.assert_nothing_to_do(one)

    def assert_nothing_to_do(self, one: Resource[Any]) -> None:
        """The plan is empty."""
        again = self.plan(one)
        assert not again.unknown
        assert [(c.action, c.differences) for c in again.changes] == []


def image(root: Path, state: Path) -> Subject:
    """A folder without a shell in it, which is managed in folder mode, whoever runs this."""
    root.mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, "ROOT": str(root), "OFFLINE": "1", "PATH": f"{TOOLBOX}:{os.environ['PATH']}"}
    preludes = f". {PRELUDE}/prelude.sh; . {TOOLBOX}/prelude.sh\n"

    def sh(script: str) -> None:
        done = subprocess.run(
            ["sh", "-ec", preludes + script], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"

    return Subject("image", Target("image", "image", {"root": str(root)}), sh, lambda: tree(root), state)


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """Every path below a folder with its kind, mode, owner, time and content."""
    out: dict[str, tuple[Any, ...]] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            seen = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            # The time of a folder also moves where something was made and removed again.
            out[str(path.relative_to(root))] = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, content)
    return out


def laws(key: str, place: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The entries of all types that are meant for a place."""
    assert place in PLACES
    return [(n, e) for n, e in entries(key) if place in places_of(n, e)]


def places_of(name: str, entry: Mapping[str, Any]) -> Sequence[str]:
    """Where an entry is tried: for types of hosts everywhere unless it says `on:`; others always have to say it."""
    return entry.get("on") or (("image", "host") if name.startswith("host.") else ())


def obey(subject: Subject, name: str, entry: Mapping[str, Any]) -> None:
    """One entry of `laws`, from creation to deletion."""
    kind = default().type_of(name)
    one = resource(kind, entry["spec"])
    if entry.get("setup"):
        subject.sh(entry["setup"])
    before = subject.listing()
    made = subject.plan(one)
    assert subject.listing() == before, "the probe wrote something"
    assert len(made.changes) == 1, f"nothing to create: the object is there already, as desired {made.unknown}"
    subject.settle(one)
    for attribute, script in (entry.get("mutate") or {}).items():
        subject.sh(script)
        made = subject.plan(one)
        assert [sorted(c.changed) for c in made.changes] == [[attribute]], f"{attribute}: {script}"
        assert made.changes[0].action in (Action.UPDATE, Action.REPLACE)
        assert made.drifted == [made.changes[0].address]
        subject.settle(one)
    if entry.get("delete", True):
        gone = resource(kind, entry["spec"], absent=True)
        made = subject.plan(gone)
        assert [c.action for c in made.changes] == [Action.DELETE]
        subject.settle(gone)
        subject.settle(gone)


def prune_together(subject: Subject) -> None:
    """What goes by the deletion of something else is gone: `userdel` takes the group of the same name with it."""
    kinds = default().type_of("host.user"), default().type_of("host.group")
    wanted = [resource(kind, {"name": "law-pair"}) for kind in kinds]
    made = subject.plan(*wanted)
    assert [c.address.partition("[")[0] for c in made.changes] == ["host.group", "host.user"]
    assert subject.apply(made).ok
    gone = subject.plan(*(resource(kind, {"name": "law-pair"}, absent=True) for kind in kinds))
    assert [c.address.partition("[")[0] for c in gone.changes] == ["host.user", "host.group"]
    result = subject.apply(gone)
    assert result.ok, result.ended
    assert not subject.plan(*(resource(kind, {"name": "law-pair"}, absent=True) for kind in kinds)).changes


def examine(subject: Subject, name: str, entry: Mapping[str, Any]) -> None:
    """One entry of `audit`: what it finds is shown, and nothing is changed."""
    kind = default().type_of(name)
    one = resource(kind, entry["spec"])
    if entry.get("setup"):
        subject.sh(entry["setup"])
    before = subject.listing()
    made = subject.plan(one)
    assert not made.changes
    assert not made.unknown
    assert sorted(f.rule for f in made.findings) == sorted(entry["findings"])
    for finding in made.findings:
        assert finding.message
        assert finding.fix
    assert subject.listing() == before, "the audit wrote something"
    if entry.get("cleanup"):
        subject.sh(entry["cleanup"])


def law_ids(found: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Test ids."""
    return [f"{name}: {entry['name']}" for name, entry in found]
