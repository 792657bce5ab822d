"""Reads the tables in `tests/fixtures`: what every resource type and every kind ships."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from reconciler.diff import diff
from reconciler.model import UNOBSERVABLE, Change, Read, Reply, Resource, ResourceType, Script, Sha256, State
from reconciler.registry import default
from reconciler.secrets import Secrets

FIXTURES = Path(__file__).parents[1] / "fixtures"
CANARY = "canary-Zq7!-secret"


class AnyEnvironment(dict[str, str]):
    """Every variable is set, to a secret that must never be seen."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return CANARY


def secrets() -> Secrets:
    """Secrets with a known key, for which every `env:` reference exists."""
    return Secrets(lambda: b"k" * 32, AnyEnvironment())


@cache
def table(folder: str, name: str) -> Mapping[str, Any]:
    """One fixture; empty where there is none (a test of its own says so)."""
    file = FIXTURES / folder / f"{name}.yaml"
    return (YAML(typ="safe").load(file) or {}) if file.exists() else {}


def entries(key: str, *, folder: str = "types") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All entries `key` of all types or kinds, with the name of the type or kind."""
    names = default().types if folder == "types" else default().kinds
    for name in names:
        for entry in table(folder, name).get(key) or ():
            yield name, entry


def ids(found: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Test ids: `host.file: plain`."""
    return [f"{name}: {entry['name']}" for name, entry in found]


def state(written: Mapping[str, Any] | None) -> State | None:
    """A state as tables spell it."""
    if written is None:
        return None
    return {name: value(v) for name, v in written.items()}


def value(written: Any) -> Any:
    """`!unobservable` and `{sha256: hex}` stand for what YAML cannot say."""
    if written == "!unobservable":
        return UNOBSERVABLE
    if isinstance(written, dict) and written.keys() == {"sha256"}:
        return Sha256(written["sha256"])
    return written


def resource(
    kind: ResourceType[Any], written: Mapping[str, Any], *, target: str = "web1", absent: bool = False
) -> Resource[Any]:
    """A resource from a spec as tables spell it."""
    spec = kind.spec.model_validate(written)
    return Resource(kind.name, target, kind.key(spec), spec, "File/contract", absent)


def drive(
    kind: ResourceType[Any], specs: Sequence[Any], rounds: Sequence[Sequence[Reply]]
) -> tuple[list[Sequence[Read]], Any]:
    """Run a probe against given replies; gives the reads of each round and the states."""
    probe = kind.probe(specs)
    reads: list[Sequence[Read]] = []
    wanted = next(probe)
    for replies in rounds:
        reads.append(wanted)
        assert all(isinstance(one, Script) for one in wanted), "a probe may only ask for reads"
        assert len(wanted) == len(replies), f"the probe asks for {len(wanted)} reads, the table answers {len(replies)}"
        try:
            wanted = probe.send(replies)
        except StopIteration as stop:
            assert len(reads) == len(rounds), f"the probe takes {len(reads)} rounds, the table has {len(rounds)}"
            return reads, stop.value
    raise AssertionError(f"the probe wants a round more than the {len(rounds)} of the table: {wanted}")


def change_of(kind: ResourceType[Any], entry: Mapping[str, Any]) -> Change[Any]:
    """The engine's change for an entry of `steps`."""
    absent = "after" in entry and entry["after"] is None
    return diff(resource(kind, entry["spec"], absent=absent), state(entry.get("before")), kind, secrets().seal)
