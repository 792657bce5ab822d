"""Reads the tables in `tests/fixtures`: what every resource type and every kind ships."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from reconciler.diff import diff
from reconciler.model import (
    UNOBSERVABLE,
    Absent,
    Change,
    DryRun,
    Get,
    Put,
    Read,
    Reply,
    Request,
    Resource,
    ResourceType,
    Run,
    Script,
    Sh,
    Sha256,
    State,
    Step,
    Unprobed,
)
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


def state(written: Mapping[str, Any] | None) -> State | Absent | Unprobed | None:
    """A state as tables spell it: `{absent: {...}}` and `{unprobed: reason}` stand for what probes may return, too."""
    if written is None:
        return None
    if written.keys() == {"absent"}:
        return Absent(written["absent"])
    if written.keys() == {"unprobed"}:
        return Unprobed(written["unprobed"])
    return {name: value(v) for name, v in written.items()}


def value(written: Any) -> Any:
    """`!unobservable` and `{sha256: hex}` stand for what YAML cannot say."""
    if written == "!unobservable":
        return UNOBSERVABLE
    if isinstance(written, dict) and written.keys() == {"sha256"}:
        return Sha256(written["sha256"])
    if isinstance(written, dict):
        return {name: value(inner) for name, inner in written.items()}
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
        assert_reads(kind, wanted)
        assert len(wanted) == len(replies), f"the probe asks for {len(wanted)} reads, the table answers {len(replies)}"
        try:
            wanted = probe.send(replies)
        except StopIteration as stop:
            assert len(reads) == len(rounds), f"the probe takes {len(reads)} rounds, the table has {len(rounds)}"
            return reads, stop.value
    raise AssertionError(f"the probe wants a round more than the {len(rounds)} of the table: {wanted}")


def assert_reads(kind: ResourceType[Any], wanted: Sequence[Read]) -> None:
    """A probe asks a host for scripts, and an API for its own reads; never for anything else."""
    world = (Script,) if is_of_host(kind) else (Get, DryRun)
    assert all(isinstance(one, world) for one in wanted), f"{kind.name} asks for {wanted}"


def is_of_host(kind: ResourceType[Any]) -> bool:
    """Whether its objects stand on hosts, and not behind an API."""
    return kind.name.startswith("host.")


def plain_words(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys included. A `Secret` in it is no text."""
    match value:
        case str():
            yield value
        case Mapping():
            for key, inner in value.items():
                yield str(key)
                yield from plain_words(inner)
        case list() | tuple():
            for inner in value:
                yield from plain_words(inner)


def words_of_read(read: Read) -> list[str]:
    """Every value that a read carries."""
    match read:
        case Script():
            return [*read.args]
        case Get():
            return [read.path, *plain_words(read.params)]
        case DryRun():
            return [read.path, *plain_words(read.params), *plain_words(read.body)]


def words_of_step(step: Step) -> list[str]:
    """Everything of a step that may show up in a process list, a script, a file name, a log of requests. What stands
    there in place of a secret is no word."""
    match step:
        case Run():
            words: list[Any] = [*step.argv]
        case Sh():
            words = [step.sh, *step.args]
        case Put():
            words = [step.path, step.mode or "", step.owner or "", step.group or ""]
        case Request():
            words = [step.path, *step.headers, *step.headers.values()]
            words += [*plain_words(step.params), *plain_words(step.body)]
    words.append(str(step))
    assert all(isinstance(word, str) for word in words), f"a word of {step} is no text"
    return words


def change_of(kind: ResourceType[Any], entry: Mapping[str, Any]) -> Change[Any]:
    """The engine's change for an entry of `steps`."""
    absent = "after" in entry and entry["after"] is None
    before = state(entry.get("before"))
    assert not isinstance(before, Unprobed), "there are no steps for what could not be read"
    return diff(resource(kind, entry["spec"], absent=absent), before, kind, secrets().seal)
