"""Every kind keeps the contract of `model.Kind`, does what its tables say, and is documented."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import InvalidInput
from reconciler.expand import expand
from reconciler.load import Loaded, RawDocument, load, parse
from reconciler.model import Kind, dump
from reconciler.registry import default
from reconciler.resolve import resolve
from reconciler.schema import text
from reconciler.validate import validate
from tests.contract.tables import entries, ids, table

ROOT = Path(__file__).parents[2]
KINDS = list(default().kinds.values())
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[k.name for k in KINDS])
EXPANDS = list(entries("expand", folder="kinds"))
PROBLEMS = list(entries("problems", folder="kinds"))

ANY_TEXT = "!any text"
INVENTORY = """\
apiVersion: reconciler/v1
kind: Host
metadata: {{name: {name}, labels: {{role: {role}, team: ops}}}}
spec: {{connection: image, root: /srv/{name}}}
"""
HOSTS = "---\n".join(
    INVENTORY.format(name=n, role=r)
    for n, r in (("web1", "web"), ("web2", "web"), ("db1", "db"), ("bastion", "bastion"))
)


@cache
def sample() -> Loaded:
    """The sample data centre."""
    return load(ROOT / "desired-state")


def systems() -> list[RawDocument]:
    """What examples may name: some hosts, and the other systems of the sample data centre."""
    others = [d for d in sample().documents if d.data["kind"] != "Host" and default().kinds[d.data["kind"]].target]
    return [*parse(HOSTS, "hosts.yaml"), *others]


@every_kind
def test_it_has_tables(kind: Kind[Any]) -> None:
    """Law 10."""
    tables = table("kinds", kind.name)
    assert tables, f"tests/fixtures/kinds/{kind.name}.yaml is missing"
    assert not tables.keys() - {"expand", "problems"}
    assert tables.get("expand")
    assert tables.get("problems")


@pytest.mark.parametrize(("name", "entry"), EXPANDS, ids=ids(EXPANDS))
def test_documents_become_resources(name: str, entry: Mapping[str, Any], tmp_path: Path) -> None:
    for file, content in (entry.get("files") or {}).items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    (tmp_path / "test.yaml").write_text(entry["documents"])
    catalog = validate(load(tmp_path), default())
    assert name in {d.kind for d in catalog}
    everything = {r.address: r for r in expand(catalog)}
    # What documents of other kinds mean is the matter of their own tables.
    resources = {a: r for a, r in everything.items() if r.origin.startswith(f"{name}/") or a in entry["resources"]}
    # A table need not hold a program that we ship.
    texts = {
        a: {f: getattr(resources[a].spec, f) for f, v in fields.items() if v == ANY_TEXT and a in resources}
        for a, fields in entry["resources"].items()
    }
    assert all(isinstance(text, str) and text for found in texts.values() for text in found.values())
    wanted = {a: {**fields, **texts[a]} for a, fields in entry["resources"].items()}
    assert {a: dump(r.spec) for a, r in resources.items()} == {
        a: dump(default().type_of(resources[a].type).spec.model_validate(fields)) if a in resources else fields
        for a, fields in wanted.items()
    }
    assert sorted(a for a, r in resources.items() if r.absent) == sorted(entry.get("absent") or [])
    assert resolve(everything.values(), catalog)


@pytest.mark.parametrize(("name", "entry"), PROBLEMS, ids=ids(PROBLEMS))
def test_mistakes_become_problems(name: str, entry: Mapping[str, Any], tmp_path: Path) -> None:
    """Each expected problem is there, with a position, and there is no other."""
    for file, content in (entry.get("files") or {}).items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
    (tmp_path / "test.yaml").write_text(entry["documents"])
    with pytest.raises(InvalidInput) as caught:
        catalog = validate(load(tmp_path), default())
        resolve(expand(catalog), catalog)
    shown = []
    for problem in caught.value.problems:
        assert problem.position, problem
        shown.append(str(problem).removeprefix(f"{problem.position.file}:"))
    missing = [w for w in entry["problems"] if not any(_matches(w, one) for one in shown)]
    extra = [one for one in shown if not any(_matches(w, one) for w in entry["problems"])]
    assert not missing, shown
    assert not extra, shown


def _matches(wanted: str, shown: str) -> bool:
    return shown.startswith(wanted) if re.match(r"\d+:\d+: ", wanted) else wanted in shown


@every_kind
def test_an_example_is_in_the_sample_data_centre(kind: Kind[Any]) -> None:
    """Law 9."""
    catalog = validate(sample(), default())
    assert any(d.kind == kind.name for d in catalog), f"desired-state/ has no {kind.name}"
    resolve(expand(catalog), catalog)


def example_of(kind: Kind[Any]) -> str:
    """The YAML under `Example:` in the docstring of a kind's spec."""
    _, found, after = inspect.cleandoc(kind.spec.__doc__ or "").partition("Example:\n")
    assert found, "the docstring has no Example"
    lines = []
    for line in after.splitlines():
        if line.strip() and not line.startswith(" "):
            break
        lines.append(line)
    return textwrap.dedent("\n".join(lines)).strip() + "\n"


@every_kind
def test_the_example_in_the_docstring_validates(kind: Kind[Any], tmp_path: Path) -> None:
    example = example_of(kind)
    documents = parse(example, "example.yaml")
    assert [d.data["kind"] for d in documents][-1] == kind.name
    named = {d.data["metadata"]["name"] for d in documents if default().kinds[d.data["kind"]].target}
    others = [d for d in systems() if d.data["metadata"]["name"] not in named]
    for file in re.findall(r"source: (\S+)", example):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("content\n")
    catalog = validate(Loaded(tmp_path, (*documents, *others)), default())
    assert any(d.kind == kind.name for d in catalog)


@every_kind
def test_the_spec_is_strict_and_every_field_is_described(kind: Kind[Any]) -> None:
    assert kind.spec.model_config["extra"] == "forbid"
    assert kind.spec.model_config["frozen"] is True
    assert kind.summary
    assert kind.summary.endswith(".")
    for name, field in kind.spec.model_fields.items():
        described = field.description or any(getattr(m, "description", None) for m in field.metadata)
        assert described, f"{kind.name}.{name} has no description for `explain`"


@every_kind
def test_the_schema_in_the_repo_is_what_the_model_generates(kind: Kind[Any]) -> None:
    """Law 9. Run `reconciler schema --write` after a change of a model."""
    file = ROOT / "schemas" / f"{kind.name}.json"
    assert file.exists(), f"{file.relative_to(ROOT)} is missing: run `reconciler schema --write`"
    assert file.read_text() == text(kind)


def test_no_schema_is_left_over() -> None:
    assert {p.stem for p in (ROOT / "schemas").glob("*.json")} <= default().kinds.keys()


@every_kind
def test_the_schema_is_valid_draft_07(kind: Kind[Any]) -> None:
    import json

    from jsonschema import Draft7Validator

    schema = json.loads(text(kind))
    Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"


@every_kind
def test_the_docs_mention_it(kind: Kind[Any]) -> None:
    """Law 9."""
    docs = ROOT / "docs" / "kinds.md"
    assert docs.exists(), "docs/kinds.md is missing"
    assert re.search(rf"^#+ {kind.name}\b", docs.read_text(), re.MULTILINE), f"docs/kinds.md has no heading {kind.name}"


def test_every_document_of_the_sample_is_listed_with_its_schema() -> None:
    """Editors complete and check what carries the schema's line."""
    for document in sample().documents:
        kind = document.data["kind"]
        before = document.text.splitlines()
        assert any(line.startswith("# yaml-language-server: $schema=") for line in before), f"{document.file} ({kind})"
