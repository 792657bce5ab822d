"""Every resource type keeps the contract of `model.ResourceType`, and does what its tables say."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args
from urllib.parse import quote

import pytest

from reconciler.apply import spell
from reconciler.diff import desired_state, diff
from reconciler.model import (
    CONTROL,
    IDENTITY,
    UNOBSERVABLE,
    Action,
    Put,
    Read,
    Reply,
    Request,
    ResourceType,
    Run,
    Script,
    Secret,
    Sh,
)
from reconciler.registry import default
from tests.contract.laws import PLACES, places_of
from tests.contract.tables import (
    CANARY,
    assert_reads,
    change_of,
    drive,
    entries,
    ids,
    is_of_host,
    resource,
    secrets,
    state,
    table,
    words_of_step,
)

TYPES = list(default().types.values())
every_type = pytest.mark.parametrize("kind", TYPES, ids=[t.name for t in TYPES])
PROBES, STEPS = list(entries("probe")), list(entries("steps"))


def specs_of(kind: ResourceType[Any]) -> Iterator[Mapping[str, Any]]:
    """Every spec in a type's tables."""
    tables = table("types", kind.name)
    for entry in tables.get("probe") or ():
        yield from entry["specs"]
    for key in ("steps", "laws", "audit"):
        for entry in tables.get(key) or ():
            yield entry["spec"]


@every_type
def test_it_has_tables(kind: ResourceType[Any]) -> None:
    """Law 10: no type is without contract tests."""
    tables = table("types", kind.name)
    assert tables, f"tests/fixtures/types/{kind.name}.yaml is missing"
    wanted = {"probe", "audit"} if kind.is_audit else {"probe", "steps", "laws"}
    assert not wanted - {k for k, v in tables.items() if v}
    assert not tables.keys() - {"probe", "steps", "laws", "audit", "unmutable"}, (
        "an unknown key is a table that no test reads"
    )


@every_type
def test_the_spec_is_strict_and_says_what_it_is(kind: ResourceType[Any]) -> None:
    config = kind.spec.model_config
    assert config["extra"] == "forbid"
    assert config["frozen"] is True
    assert kind.summary, "the spec needs a docstring"
    assert kind.identity, "no field names the object"
    assert kind.name.count(".") == 1
    for name, field in kind.spec.model_fields.items():
        assert not (IDENTITY in field.metadata and CONTROL in field.metadata), f"{name} is both"
        if name in kind.compared and name not in _constants(kind):
            assert not field.is_required() or kind.is_audit, f"{name}: what is compared can be left undeclared"
    assert kind.immutable <= set(kind.compared.values())
    assert set(kind.stale) <= set(kind.compared.values())


def _constants(kind: ResourceType[Any]) -> set[str]:
    return {n for n, f in kind.spec.model_fields.items() if get_args(f.annotation) and f.default is not None}


@every_type
def test_probe_and_steps_are_pure_generators_of_documented_functions(kind: ResourceType[Any]) -> None:
    assert inspect.isgeneratorfunction(kind.probe), "a probe yields its reads"
    module = inspect.getmodule(kind.probe)
    assert module is not None
    for name, member in inspect.getmembers(module):
        if (
            inspect.isfunction(member)
            and member.__module__ == module.__name__
            and not name.startswith("_")
            and name != "<lambda>"
        ):
            assert member.__doc__, f"{module.__name__}.{name} has no docstring"
    assert module.__doc__


@every_type
def test_a_probe_of_many_asks_no_more_than_it_must(kind: ResourceType[Any]) -> None:
    """On a host, all objects are read together: the number of programs must not grow with the number of objects. An API
    may have to be asked for each object, but not twice for one."""
    specs = [kind.spec.model_validate(s) for s in specs_of(kind)]
    assert specs
    once = next(kind.probe(specs))
    many = next(kind.probe(specs * 20))
    assert_reads(kind, many)
    if is_of_host(kind):
        assert len(many) <= len(once)
        assert _script_size(many) <= 2 * _script_size(once)
    else:
        assert len(many) <= 20 * len(once)
        assert {repr(one) for one in many} == {repr(one) for one in once}


def _script_size(reads: Sequence[Read]) -> int:
    return sum(len(one.sh) for one in reads if isinstance(one, Script))


@every_type
def test_values_travel_as_arguments(kind: ResourceType[Any]) -> None:
    """The text of a script is constant: the same for every object. In a path of an API, names are percent-encoded."""
    specs = [kind.spec.model_validate(s) for s in specs_of(kind)]
    reads = [one for spec in specs for one in next(kind.probe([spec]))]
    names = {str(getattr(spec, name)) for spec in specs for name in kind.identity}
    for name in names:
        for one in reads:
            if isinstance(one, Script):
                assert len(name) <= 5 or name not in one.sh, f"{name} stands in the text of a script"
            elif quote(name, safe="") != name and "/" not in name:
                assert name not in one.path, f"{name} stands in a path as it is"


@pytest.mark.parametrize(("name", "entry"), PROBES, ids=ids(PROBES))
def test_replies_become_states(name: str, entry: Mapping[str, Any]) -> None:
    kind = default().type_of(name)
    specs = [kind.spec.model_validate(s) for s in entry["specs"]]
    rounds = [[Reply(r["text"], r.get("status", 0)) for r in replies] for replies in entry["rounds"]]
    _, states = drive(kind, specs, rounds)
    assert len(states) == len(specs)
    if "findings" in entry:
        found = []
        for written, seen in zip(entry["specs"], states, strict=True):
            change = diff(resource(kind, written), seen, kind, secrets().seal)
            found += [rule for rule, _, _ in kind.findings(change)] if change.action is not Action.NOOP else []
        assert sorted(found) == sorted(entry["findings"])
    for seen, wanted in zip(states, entry.get("states") or (), strict=False):
        expected = state(wanted)
        if not isinstance(expected, Mapping) or not isinstance(seen, Mapping):
            assert seen == expected
        else:
            # A table names the attributes that it is about.
            assert {k: seen.get(k) for k in expected} == expected
    assert "states" not in entry or len(entry["states"]) == len(states)


@pytest.mark.parametrize(("name", "entry"), PROBES, ids=ids(PROBES))
def test_states_hold_every_compared_attribute(name: str, entry: Mapping[str, Any]) -> None:
    """What a probe leaves out would look like a difference that never goes away."""
    kind = default().type_of(name)
    specs = [kind.spec.model_validate(s) for s in entry["specs"]]
    rounds = [[Reply(r["text"], r.get("status", 0)) for r in replies] for replies in entry["rounds"]]
    _, states = drive(kind, specs, rounds)
    for spec, seen in zip(specs, states, strict=True):
        if isinstance(seen, Mapping):
            assert set(desired_state(spec, kind, secrets().seal)) <= seen.keys()


@pytest.mark.parametrize(("name", "entry"), STEPS, ids=ids(STEPS))
def test_changes_become_steps(name: str, entry: Mapping[str, Any]) -> None:
    kind = default().type_of(name)
    assert kind.steps is not None
    change = change_of(kind, entry)
    assert change.action is not Action.NOOP, "the table's change is none"
    steps = spell(change, kind.steps)
    assert [str(step) for step in steps] == entry["steps"]
    for step in steps:
        assert "\n" not in str(step), "a title is one line"
        assert isinstance(step, (Run, Put, Sh) if is_of_host(kind) else Request), f"{kind.name} does {step!r}"
        for word in words_of_step(step):
            assert "\0" not in word


@pytest.mark.parametrize(("name", "entry"), STEPS, ids=ids(STEPS))
def test_steps_are_the_same_when_asked_again(name: str, entry: Mapping[str, Any]) -> None:
    """`steps` is pure: a plan that is shown and a plan that is applied must not differ."""
    kind = default().type_of(name)
    assert kind.steps is not None
    assert spell(change_of(kind, entry), kind.steps) == spell(change_of(kind, entry), kind.steps)


@every_type
def test_every_compared_attribute_is_changed_behind_our_back_in_some_law(kind: ResourceType[Any]) -> None:
    """Law 3 holds for each attribute, or the table says why it cannot."""
    if kind.is_audit:
        return
    tables = table("types", kind.name)
    mutated = {name for law in tables.get("laws") or () for name in law.get("mutate") or ()}
    excused = set(tables.get("unmutable") or ())
    compared = set(kind.compared.values())
    assert not compared - mutated - excused, "neither mutated nor excused"
    assert not mutated - compared, "not an attribute"
    assert not excused - compared, "not an attribute"
    assert not excused & mutated, "excused, and mutated all the same"


@every_type
def test_every_law_has_a_place_where_it_is_tried(kind: ResourceType[Any]) -> None:
    """A place that nobody knows would be a law that nobody tries."""
    for key in ("laws", "audit"):
        for entry in table("types", kind.name).get(key) or ():
            assert places_of(kind.name, entry), f"{entry['name']}: say `on:`"
            assert set(places_of(kind.name, entry)) <= PLACES, entry["name"]


@every_type
def test_secrets_go_nowhere_but_into_standard_input_and_content(kind: ResourceType[Any]) -> None:
    """Law 8, for every field that takes a secret and every way to change it."""
    if kind.steps is None:
        return
    fields = [n for n, f in kind.spec.model_fields.items() if _takes(f.annotation)]
    seal = secrets().seal
    for written in specs_of(kind):
        for name in fields:
            alias = kind.spec.model_fields[name].alias or name
            spec = {**written, alias: {"secretRef": "env:CANARY"}}
            try:
                one = resource(kind, spec)
            except ValueError:
                continue  # this spec does not go together with a secret
            desired = desired_state(one.spec, kind, seal)
            changed = {**desired, alias: seal("something else")}
            for before in (None, changed, dict.fromkeys(desired)):
                change = diff(one, before, kind, seal)
                steps = spell(change, kind.steps)
                for step in steps:
                    for word in words_of_step(step):
                        assert "CANARY" not in word
                        assert CANARY not in word
            gone = diff(resource(kind, spec, absent=True), changed, kind, seal)
            assert all("CANARY" not in word for step in spell(gone, kind.steps) for word in words_of_step(step))


def _takes(annotation: Any) -> bool:
    return annotation is Secret or any(_takes(a) for a in get_args(annotation))


@every_type
def test_as_desired_means_no_change(kind: ResourceType[Any]) -> None:
    """Law 2, as far as data can show it: equal states, and what cannot be seen, never differ."""
    seal = secrets().seal
    for written in specs_of(kind):
        one = resource(kind, written)
        desired = desired_state(one.spec, kind, seal)
        assert diff(one, desired, kind, seal).action is Action.NOOP
        assert diff(one, dict.fromkeys(desired, UNOBSERVABLE), kind, seal).action is Action.NOOP
        assert dict(kind.normalize(desired, desired)) == desired
        assert dict(kind.normalize({}, desired)) == {}


@every_type
def test_tokens_are_words_with_a_kind(kind: ResourceType[Any]) -> None:
    for written in specs_of(kind):
        spec = kind.spec.model_validate(written)
        provided = list(kind.provides(spec))
        for token in (*provided, *kind.needs(spec), *kind.watches(spec)):
            before, colon, after = token.partition(":")
            assert before.isalpha(), token
            assert colon, token
            assert after, token
