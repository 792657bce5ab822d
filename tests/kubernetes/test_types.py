"""The table of types, and the operations on typed values that server-side apply is made of."""

from __future__ import annotations

import contextlib
import io
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.lab.kubernetes import typed
from reconciler.lab.kubernetes.decode import DecodeError, decode, load_yaml
from reconciler.lab.kubernetes.fieldset import decode as read_fields
from reconciler.lab.kubernetes.fieldset import encode
from reconciler.lab.kubernetes.quantity import canonical
from reconciler.lab.kubernetes.schema import builtin, custom
from tests.kubernetes import make_types

SPEC = builtin("PodSpec")


def test_the_table_is_what_its_maker_writes() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        make_types.main()
    assert (files("reconciler.lab.kubernetes") / "types.json").read_text("utf-8") == out.getvalue()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("100m", "100m"),
        ("0.1", "100m"),
        ("1000m", "1"),
        ("0.5Gi", "512Mi"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1e3", "1e3"),
        ("1500", "1500"),
        ("2000", "2k"),
        ("0", "0"),
        ("-1", "-1"),
        (1, "1"),
        ("0.5Ki", "512"),
    ],
)
def test_quantities_are_canonical(text: object, wanted: str) -> None:
    assert canonical(text) == wanted


@pytest.mark.parametrize("text", ["", "1x", "one", "1 Gi", "--1", "1gi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        canonical(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: yes", {"a": True}),
        ("a: 'yes'", {"a": "yes"}),
        ("n: 1", {"false": 1}),
        ("a: 0644", {"a": 420}),
        ("a: 1.5", {"a": 1.5}),
        ("a: ~", {"a": None}),
        ("a: 1_000", {"a": 1000}),
        ("a: 12:30", {"a": "12:30"}),
        ("- 1\n- x", [1, "x"]),
        ("", None),
    ],
)
def test_yaml_is_of_version_1_1(text: str, wanted: Any) -> None:
    assert load_yaml(text)[0] == wanted


NAME: dict[str, st.SearchStrategy[Any]] = {"name": st.sampled_from("abcd")}
containers: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.fixed_dictionaries(
        NAME,
        optional={
            "image": st.sampled_from(["i:1", "i:2"]),
            "env": st.lists(
                st.fixed_dictionaries({"name": st.sampled_from("XYZ"), "value": st.sampled_from("123")}),
                unique_by=lambda one: one["name"],
                max_size=3,
            ),
            "args": st.lists(st.sampled_from("pq"), max_size=2),
        },
    ),
    unique_by=lambda one: one["name"],
    max_size=4,
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "containers": containers,
        "nodeSelector": st.dictionaries(st.sampled_from("kl"), st.sampled_from("12")),
        "hostNetwork": st.booleans(),
    },
)


@given(specs)
def test_fields_are_written_and_read_alike(spec: dict[str, Any]) -> None:
    paths = typed.fields(spec, SPEC)
    assert read_fields(encode(paths)) == paths


@given(specs)
def test_nothing_differs_from_itself(spec: dict[str, Any]) -> None:
    found = typed.compare(spec, spec, SPEC)
    assert found == typed.Comparison()


@given(specs, specs)
def test_what_is_applied_is_there_afterwards(live: dict[str, Any], config: dict[str, Any]) -> None:
    merged = typed.merge(live, config, SPEC)
    merged = {} if merged is typed.MISSING else merged
    again = typed.merge(merged, config, SPEC)
    assert again == merged or (again is typed.MISSING and not merged)
    assert typed.fields(config, SPEC) <= typed.fields(merged, SPEC) | _emptied(config)


def _emptied(config: dict[str, Any]) -> frozenset[Any]:
    """An empty map or list in an apply leaves what is there."""
    return typed.fields({key: value for key, value in config.items() if not value}, SPEC)


@given(specs, specs)
def test_names_of_live_items_keep_their_order(live: dict[str, Any], config: dict[str, Any]) -> None:
    merged = typed.merge(live, config, SPEC)
    names = [one["name"] for one in (merged or {}).get("containers") or []]
    assert len(names) == len(set(names))
    mine = [one["name"] for one in config.get("containers") or []]
    assert [name for name in names if name in mine] == mine
    theirs = [one["name"] for one in live.get("containers") or [] if one["name"] not in mine]
    assert [name for name in names if name not in mine] == theirs


@pytest.mark.parametrize(
    ("live", "config", "wanted"),
    [
        ("ab", "ba", "ba"),
        ("axb", "ab", "axb"),
        ("axb", "ba", "xba"),
        ("xa", "an", "xan"),
        ("x", "n", "xn"),
        ("axbyc", "cb", "axycb"),
    ],
)
def test_items_are_merged_in_the_order_of_the_server(live: str, config: str, wanted: str) -> None:
    def value(names: str) -> dict[str, Any]:
        return {"containers": [{"name": name} for name in names]}

    assert typed.merge(value(live), value(config), SPEC) == value(wanted)


@given(specs)
def test_without_everything_nothing_is_left(spec: dict[str, Any]) -> None:
    paths = typed.named_members(typed.fields(spec, SPEC), SPEC)
    assert not typed.fields(typed.without(spec, SPEC, paths) or {}, SPEC) - typed.fields({"containers": []}, SPEC)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"containers": [], "x": 1}, [".x: field not declared in schema"]),
        ({"containers": {}}, [".containers: expected list, got &{map[]}"]),
        ({"hostNetwork": "true"}, [".hostNetwork: expected boolean, got &{true}"]),
        ({"priority": "1"}, [".priority: expected numeric (int or float), got string"]),
        (
            {"containers": [{"name": "a"}, {"name": "a"}]},
            ['.containers: duplicate entries for key [name="a"]'],
        ),
        (
            {"containers": [{"name": 1}]},
            [".containers[name=1].name: expected string, got &value.valueUnstructured{Value:1}"],
        ),
    ],
)
def test_what_does_not_fit_is_named(value: dict[str, Any], wanted: list[str]) -> None:
    assert typed.errors(value, SPEC) == wanted


def test_a_custom_type_keeps_what_it_is_told_to_keep() -> None:
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    made = custom("Thing", schema)
    unknown: list[str] = []
    value = decode({"spec": {"any": [1, {"x": None}]}, "other": 1}, made, unknown)
    assert value["spec"] == {"any": [1, {"x": None}]}
    assert unknown == ["other"]
    with pytest.raises(DecodeError, match="cannot unmarshal number"):
        decode({"metadata": {"name": 1}}, made)
