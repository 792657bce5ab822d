"""Hostile input that a loader, a plan file or a host can meet: a clear error with its place, and nothing written.

Each case carries the number that it has in the list of inputs that break such tools.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler import validate as validation
from reconciler.cli.main import run as main
from reconciler.errors import InvalidInput
from reconciler.expand import expand
from reconciler.load import RawDocument, load, parse
from reconciler.model import Kind
from reconciler.registry import default
from reconciler.resolve import resolve
from reconciler.schema import schema
from reconciler.validate import validate
from tests.contract.laws import Subject, image, tree
from tests.contract.tables import resource
from tests.contract.test_kinds import example_of, systems
from tests.texts import FILE, HOST, desired_of, only_resource, problems_of

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{now}: &{now} [{', '.join([f'*{before}'] * 9)}]\n" for before, now in zip("abcdefgh", "bcdefghi", strict=True)
)
NUMBER = HOST.replace("root: /srv/web1", "port: %s")

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "1 duplicate key": (HOST + FILE + "  mode: '0644'\n  mode: '0600'\n", '14:3: the key "mode" is there twice'),
    "2 alias bomb": (LAUGHS, "5:8: uses too many YAML aliases"),
    "3 self-alias in a list": ("a: &a [*a]\n", "1:8: the alias *a contains itself"),
    "3 self-alias in a mapping": ("a: &a {b: *a}\n", "1:11: the alias *a contains itself"),
    "4 nested 3,000 deep in flow style": ("[" * 3000 + "]" * 3000, "1:65: is nested deeper than 64 levels"),
    "4 nested 3,000 deep in block style": ("".join(" " * i + "a:\n" for i in range(3000)), "nested deeper than 64"),
    "5 python tag": ("a: !!python/object/apply:os.system ['id']\n", "1:4: has the tag tag:yaml.org,2002:python/object"),
    "6 octal mode": (HOST + FILE + "  mode: 0755\n", '13:9: File/motd: spec.mode is 755, not text. Quote it: "0755".'),
    "6 version as content": (HOST + FILE + "  content: 1.10\n", 'as text: "1.10"'),
    "6 yes as a truth value": (HOST + FILE + "  content: x\n  sensitive: yes\n", 'is "yes", not true or false'),
    "7 number as a key": (HOST + FILE + "  1: a\n", '13:3: the key 1 is not text. Quote it: "1".'),
    "7 number beside text as keys": ('a: {1: x, "1": y}\n', "1:5: the key 1 is not text"),
    "8 not a number": (NUMBER % ".nan" + FILE, "4:33: .nan is not a number that means anything here"),
    "8 infinity": (NUMBER % "-.inf" + FILE, "4:33: -.inf is not a number"),
    "8 a float that overflows": (NUMBER % "1e999" + FILE, "4:33: is a number that is too large"),
    "8 integer of 5,000 digits": (NUMBER % ("9" * 5000) + FILE, "4:33: is a number with too many digits"),
    "9 NUL": (HOST + FILE + "  content: a\0b\n", "13:13: is not YAML: unacceptable character #x0000"),
    "9 invalid UTF-8": ((HOST + FILE).encode() + b"  content: caf\xe9\n", "13:15: is not UTF-8"),
    "9 UTF-16": ((HOST + FILE).encode("utf-16"), "1:1: is not UTF-8"),
    "9 lone surrogate": (HOST + FILE + "  content: \ud800\n", "13:12: is not UTF-8"),
    "9 byte order mark in the middle": (
        HOST + FILE + "  content: a\ufeffb\n",
        "13:13: holds the invisible character U+FEFF",
    ),
    "10 right-to-left override": (HOST + FILE + "  content: a\u202eb\n", "13:13: holds the invisible character U+202E"),
    "10 zero-width space in a host name": (
        HOST.replace("web1,", "we\u200bb1,") + FILE,
        "3:20: holds the invisible character U+200B",
    ),
    "10 escaped override in a host name": (HOST.replace("web1,", '"we\\u202eb1",') + FILE, "3:18: Host/"),
    "10 homoglyph in a host name": (
        HOST.replace("web1,", "w\u0435b1,") + FILE,
        '3:18: Host/"w\\u0435b1": metadata.name is "w\\u0435b1"',
    ),
    "10 homoglyph in a reference": (
        HOST + FILE.replace("[web1]", "[w\u0435b1]") + "  content: x\n",
        '11:11: File/motd: there is no Host/"w\\u0435b1". Did you mean web1?',
    ),
    "11 a document that is no mapping": ("hello\n", "1:1: is not a mapping"),
    "12 command as a name": (HOST + FILE.replace("name: motd", 'name: "$(id)"'), "9:9: File/"),
    "12 shell separator in a name": (HOST + FILE.replace("name: motd", 'name: "a;rm -rf"'), "9:9: File/"),
    "12 newline in a name": (HOST + FILE.replace("name: motd", 'name: "a\\nb"'), "9:9: File/"),
    "12 leading dash in a name": (HOST + FILE.replace("name: motd", 'name: "-rf"'), "9:9: File/"),
    "12 newline in a path": (HOST + FILE.replace("/etc/motd", '"/etc/a\\nb"'), "12:9: File/motd: spec.path"),
    "12 command as an owner": (HOST + FILE + '  owner: "$(id)"\n', "13:10: File/motd: spec.owner"),
    "12 leading dash in an owner": (HOST + FILE + '  owner: "-R"\n', "13:10: File/motd: spec.owner"),
    "12 leading dash in a host address": (
        HOST.replace("connection: image, root: /srv/web1", 'address: "-oProxyCommand=id"') + FILE,
        "Host/web1: spec.address",
    ),
    "13 parent folder in a path": (HOST + FILE.replace("/etc/motd", "/etc/../shadow"), "12:9: File/motd: spec.path"),
    "13 relative path": (HOST + FILE.replace("/etc/motd", "etc/motd"), "12:9: File/motd: spec.path"),
    "13 source outside the repo": (
        HOST + FILE + "  source: ../../etc/passwd\n",
        "13:11: File/motd: ../../etc/passwd lies outside",
    ),
    "13 absolute source": (HOST + FILE + "  source: /etc/passwd\n", "13:11: File/motd: /etc/passwd lies outside"),
    "17 newline in a mode": (HOST + FILE + '  mode: "0644\\n"\n', "13:9: File/motd: spec.mode"),
    "23 document that requires itself": (
        HOST + FILE + "  content: x\nlifecycle: {requires: [File/motd]}\n",
        "needs itself, by way of",
    ),
    "23 duplicate document": (
        HOST + FILE + "  content: x\n---\n" + FILE + "  content: x\n",
        "18:9: File/motd: is there twice; the other stands at",
    ),
    "23 duplicate address": (
        HOST + FILE + "  content: x\n---\n" + FILE.replace("name: motd", "name: other") + "  content: y\n",
        "14:1: File/other: wants host.file[web1:/etc/motd]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_place_and_nothing_written(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, wanted = REFUSED[case]
    repo = tmp_path / "repo"
    repo.mkdir()
    found = problems_of(repo, text)
    assert any(one.startswith("a.yaml:") and wanted in one for one in found), found
    before = tree(tmp_path)
    for command in ("validate", "plan"):
        assert main([command, str(repo)]) == 1
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err + shown.out
        assert "a.yaml:" in shown.err
        assert "\x1b" not in shown.err
    assert tree(tmp_path) == before, "something was written"


HARMLESS: dict[str, tuple[str | bytes, Any]] = {
    "2 aliases within reason": (
        HOST
        + FILE.replace("[web1]", "&h [web1]")
        .replace("name: motd", "name: &n motd")
        .replace("path: /etc/motd", "path: /etc/motd\n  content: *n"),
        "motd",
    ),
    "6 Norway": (HOST + FILE + "  content: no\n", "no"),
    "6 on": (HOST + FILE + "  content: on\n", "on"),
    "6 sexagesimal": (HOST + FILE + "  content: 12:30:45\n", "12:30:45"),
    "6 date": (HOST + FILE + "  content: 2026-11-22\n", "2026-11-22"),
    "9 CRLF": ((HOST + FILE + "  content: |\n    a\n    b\n").replace("\n", "\r\n"), "a\nb\n"),
    "9 byte order mark": (b"\xef\xbb\xbf" + (HOST + FILE + "  content: x\n").encode(), "x"),
    "11 several documents with empty ones between": (
        HOST + "---\n---\n# nothing\n---\n" + FILE + "  content: x\n---\n",
        "x",
    ),
    "12 command as content": (HOST + FILE + "  content: $(id);`id`\n", "$(id);`id`"),
    "14 template text": (HOST + FILE + "  content: '{{ x }}{% y %}${z}%(a)s'\n", "{{ x }}{% y %}${z}%(a)s"),
    "19 escapes in content": (HOST + FILE + '  content: "\\e[31m::set-output x"\n', "\x1b[31m::set-output x"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_means_what_it_says(case: str, tmp_path: Path) -> None:
    text, content = HARMLESS[case]
    assert only_resource(desired_of(tmp_path, text)).content == content


def test_11_a_file_of_100_mb_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(100_000_000)
    assert problems_of(tmp_path) == ["huge.yaml:1:1: is larger than 10 MiB. Split it into several files."]


def test_11_and_22_an_empty_repo_is_no_wish_to_delete_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed checkout: an empty folder, an empty file, a folder that is not there."""
    root = tmp_path / "image"
    (root / "etc").mkdir(parents=True)
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "a.yaml").write_text(HOST.replace("/srv/web1", str(root)) + FILE + "  content: x\n")
    assert main(["apply", str(repo), "--yes"]) == 0
    (repo / "a.yaml").write_text("")
    capsys.readouterr()
    for command in (["plan"], ["apply", "--yes"]):
        assert main([*command, str(repo)]) == 1
        assert "desired state is empty" in capsys.readouterr().err
    (repo / "a.yaml").write_text("a: [\n")
    assert main(["plan", str(repo)]) == 1
    assert main(["plan", str(tmp_path / "nowhere")]) == 1
    assert (root / "etc/motd").read_text() == "x"


def test_13_a_link_out_of_the_repo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text(HOST)
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "a.yaml").symlink_to(tmp_path / "outside.yaml")
    assert problems_of(repo) == ["a.yaml:1:1: is a link that leads out of the desired state. Copy the file."]


# ------------------------------------------------------------------------------------------------ on a target


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    one = image(tmp_path / "image", tmp_path / "state")
    one.sh("mkdir -p $ROOT/etc")
    yield one
    one.close()


def file_at(path: str, **fields: Any) -> Any:
    return resource(default().type_of("host.file"), {"path": path, "content": "x\n", **fields})


@pytest.mark.parametrize(
    ("name", "setup"),
    [
        ("12 $(touch pwned)", ""),
        ("12 ;touch pwned", ""),
        ("12 `touch pwned`", ""),
        ("12 -rf", ""),
        ("12 a b\tc", ""),
        ("12 'single' \"double\" \\back", ""),
        ("12 *?[x]", ""),
        ("12 ~root ${IFS} $HOME", ""),
        ("12 |pipe|7|x", ""),
        ("12 naïve 😀", ""),
        ("12 " + "n" * 200, ""),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_12_a_path_is_only_a_path(name: str, setup: str, subject: Subject, tmp_path: Path) -> None:
    if "\t" in name:
        with pytest.raises(ValueError, match="is not allowed here"):
            file_at(f"/etc/{name}")
        return
    one = file_at(f"/etc/{name}")
    before = set(os.listdir(tmp_path / "image/etc"))
    subject.settle(one)
    assert set(os.listdir(tmp_path / "image/etc")) - before == {name}
    assert not list(tmp_path.rglob("*pwned"))[1:]
    assert not Path("pwned").exists()
    subject.settle(resource(default().type_of("host.file"), {"path": f"/etc/{name}"}, absent=True))
    assert set(os.listdir(tmp_path / "image/etc")) == before


def test_13_a_link_out_of_the_image_is_not_followed(subject: Subject, tmp_path: Path) -> None:
    """Neither in the last part of a path nor in a folder on the way."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "shadow").write_text("precious")
    root = tmp_path / "image"
    (root / "etc/folder").symlink_to(outside)
    (root / "etc/shadow").symlink_to(outside / "shadow")
    for path in ("/etc/folder/new", "/etc/folder/shadow", "/etc/shadow"):
        result = subject.apply(subject.plan(file_at(path)))
        assert not result.ok, path
        (end,) = result.ended.values()
        assert "symbolic link" in end.reason
    assert [p.name for p in outside.iterdir()] == ["shadow"]
    assert (outside / "shadow").read_text() == "precious"


@pytest.mark.parametrize("obstacle", ["mkdir $ROOT/etc/x", "ln -s y $ROOT/etc/x", "mkfifo $ROOT/etc/x"])
def test_what_is_in_the_way_is_not_destroyed(obstacle: str, subject: Subject, tmp_path: Path) -> None:
    subject.sh(obstacle)
    made = subject.plan(file_at("/etc/x"))
    assert made.changes[0].risk
    result = subject.apply(made)
    if "mkfifo" not in obstacle:
        assert not result.ok
        assert not (tmp_path / "image/etc/x").is_file()


def test_14_content_arrives_as_it_is(subject: Subject, tmp_path: Path) -> None:
    content = "{{ x }} $HOME `id` $(id) %s \\n \\0 ' \" \r\n\t\x1b[31m\n.\nEOF\n😀 no end"
    subject.settle(file_at("/etc/x", content=content))
    assert (tmp_path / "image/etc/x").read_bytes().decode() == content
    subject.settle(file_at("/etc/nul", content="a\0b"))
    assert (tmp_path / "image/etc/nul").read_bytes() == b"a\0b"


def test_19_what_a_host_says_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ANSI escapes, workflow commands and Markdown in a file's old content, shown as a difference in the plan."""
    root, repo = tmp_path / "image", tmp_path / "repo"
    (root / "etc").mkdir(parents=True)
    repo.mkdir()
    (root / "etc/motd").write_text("\x1b[2J\x1b]0;title\x07old\r\n::set-output name=x::y\n\u202e[red]x[/red]\n")
    (repo / "a.yaml").write_text(HOST.replace("/srv/web1", str(root)) + FILE + '  content: "\\e[31mnew\\a\\n"\n')
    assert main(["plan", str(repo)]) == 2
    shown = capsys.readouterr().out
    assert not set("\x1b\x07\r\u202e") & set(shown)
    assert not any(line.startswith("::") for line in shown.splitlines())
    assert "[red]x[/red]" in shown
    assert main(["plan", str(repo), "--output", "json"]) == 2
    for line in capsys.readouterr().out.splitlines():
        json.loads(line)
        assert not set("\x1b\x07\r") & set(line)


def test_21_plan_files_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Edited, cut off, replayed, not a plan at all: refused before anything is done."""
    root, repo, plan = tmp_path / "image", tmp_path / "repo", tmp_path / "plan.json"
    (root / "etc").mkdir(parents=True)
    repo.mkdir()
    (repo / "a.yaml").write_text(HOST.replace("/srv/web1", str(root)) + FILE + "  content: good\n")
    assert main(["plan", str(repo), "-o", str(plan)]) == 2
    text = plan.read_text()
    edited = {
        "edited": (text.replace("good", "evil"), "it was edited"),
        "cut off": (text[: len(text) // 2], "cut off"),
        "empty": ("", "not a plan file"),
        "not JSON": ("kind: File\n", "not a plan file"),
    }
    for content, wanted in edited.values():
        plan.write_text(content)
        capsys.readouterr()
        assert main(["apply", str(plan), "--yes", "--state", str(repo.parent / ".reconciler")]) == 1
        shown = capsys.readouterr()
        assert wanted in shown.err
        assert "Traceback" not in shown.err
        assert not (root / "etc/motd").exists()


# ------------------------------------------------------------------------------------------------ every text field

STRINGS = {
    "newline": "a\nb",
    "final newline": "a\n",
    "NUL": "a\0b",
    "command": "$(id)",
    "separator": ";rm -rf /",
    "dash": "-rf",
    "parents": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "quotes": "a'b\"c`d\\e",
    "override": "a\u202eb",
    "escape": "\x1b[31m",
    "workflow": "::set-output name=x::y",
    "long": "a" * 100_000,
    "empty": "",
    "space": " ",
    "template": "{{ x }}",
    "comment": "*/ // # --",
    "colon": "a:b:c|d",
}


def text_fields(node: Any, definitions: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all text fields of a schema, with 0 for the items of lists."""
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    if len(path) > 8:
        return
    if node.get("type") == "string" and "enum" not in node and "const" not in node:
        yield path
    for choice in node.get("anyOf", ()):
        yield from text_fields(choice, definitions, path)
    for name, inner in node.get("properties", {}).items():
        yield from text_fields(inner, definitions, (*path, name))
    if isinstance(node.get("items"), dict):
        yield from text_fields(node["items"], definitions, (*path, 0))
    if isinstance(node.get("additionalProperties"), dict):
        yield from text_fields(node["additionalProperties"], definitions, (*path, "key"))


def put_at(data: Any, path: tuple[str | int, ...], value: str) -> Any:
    """A copy of plain data with a value at a path; what is on the way is made."""
    if not path:
        return value
    first, *rest = path
    if isinstance(first, int):
        items = list(data) if isinstance(data, list) else []
        items[:1] = [put_at(items[0] if items else None, tuple(rest), value)]
        return items
    return {
        **(data if isinstance(data, dict) else {}),
        first: put_at((data or {}).get(first) if isinstance(data, dict) else None, tuple(rest), value),
    }


def fields_of_all_kinds() -> list[tuple[Kind[Any], tuple[str | int, ...]]]:
    out = []
    for kind in default().kinds.values():
        whole = schema(kind)
        found = dict.fromkeys(
            text_fields({"properties": {"spec": whole["properties"]["spec"]}}, whole.get("definitions", {}))
        )
        out += [(kind, path) for path in found]
    for kind in list(default().kinds.values())[:1]:
        out += [
            (kind, p)
            for p in (
                ("metadata", "name"),
                ("metadata", "labels", "key"),
                ("metadata", "annotations", "key"),
                ("lifecycle", "requires", 0),
                ("lifecycle", "ignoreChanges", 0),
            )
        ]
    return out


FIELDS = fields_of_all_kinds()


@pytest.mark.parametrize(("kind", "path"), FIELDS, ids=[f"{k.name}.{'.'.join(map(str, p))}" for k, p in FIELDS])
def test_every_text_field_refuses_hostile_text_with_a_place_or_bears_it(
    kind: Kind[Any], path: tuple[str | int, ...], tmp_path: Path
) -> None:
    """From the schemas, so that a new field is tested by itself."""
    documents = [d.data for d in parse(example_of(kind))]
    hosts = [
        d.data
        for d in systems()
        if d.data["metadata"]["name"] not in {d["metadata"]["name"] for d in documents if d["kind"] == "Host"}
    ]
    for name, text in STRINGS.items():
        changed = put_at(documents[-1], path, text)
        # JSON is YAML; a value that is invisible in a file can still be written as an escape.
        parts = [json.dumps(d) for d in (*hosts, *documents[:-1], changed)]
        (tmp_path / "a.yaml").write_text("\n---\n".join(parts) + "\n")
        try:
            catalog = validate(load(tmp_path), default())
            found = resolve(expand(catalog), catalog)
        except InvalidInput as error:
            for problem in error.problems:
                assert problem.position, (name, problem)
                assert problem.position.file.endswith("a.yaml")
                assert str(problem).isprintable() or "\n" not in str(problem), (name, problem)
            continue
        for one in found.resources.values():
            assert_harmless(one, name)


LITERALS: tuple[Any, ...] = ("1", "true", 5, 1.0, True, None, [], ["a", "a"], [None], {}, {"a": None}, {"a": "b"})


@pytest.mark.parametrize(("kind", "path"), FIELDS, ids=[f"{k.name}.{'.'.join(map(str, p))}" for k, p in FIELDS])
def test_what_a_model_takes_to_the_letter_its_schema_takes_too(kind: Kind[Any], path: tuple[str | int, ...]) -> None:
    """The short way through `validate` and the long one never disagree."""
    documents = [d.data for d in parse(example_of(kind))]
    for value in (*STRINGS.values(), *LITERALS):
        raw = RawDocument(put_at(documents[-1], path, value), "a.yaml", 0, 1, "")
        short = validation._at_once(kind, raw)
        if short is not None:
            assert not list(validation._validator(kind).iter_errors(raw.data)), value
            assert repr(validation._typed(kind, raw, "")) == repr(short), value


@pytest.mark.parametrize("kind", default().kinds.values(), ids=lambda k: k.name)
def test_examples_take_the_short_way(kind: Kind[Any]) -> None:
    for raw in parse(example_of(kind)):
        one = default().kinds[raw.data["kind"]]
        short = validation._at_once(one, raw)
        assert repr(short) == repr(validation._typed(one, raw, ""))


IMPLIED = {
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxProperties",
    "minProperties",
    "$ref",
    "$schema",
    "additionalProperties",
    "anyOf",
    "const",
    "default",
    "definitions",
    "description",
    "enum",
    "examples",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "patternErrorMessage",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "required",
    "title",
    "type",
}
"""What a schema may ask for, because a model that generates it asks for the same."""


@pytest.mark.parametrize("kind", default().kinds.values(), ids=lambda k: k.name)
def test_no_schema_asks_for_more_than_its_model(kind: Kind[Any]) -> None:
    """`uniqueItems`, for one: it stands for a set, and a set takes what is there twice."""

    def keywords(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                yield key
                for inner in value.values() if key in ("properties", "definitions", "patternProperties") else [value]:
                    yield from keywords(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from keywords(inner)

    def without_values(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: without_values(v) for k, v in node.items() if k not in ("default", "const", "enum", "examples")}
        return [without_values(v) for v in node] if isinstance(node, list) else node

    assert set(keywords(without_values(schema(kind)))) <= IMPLIED


def assert_harmless(one: Any, name: str) -> None:
    """What a resource would do can be spelled: words without NUL, titles of one line."""
    from reconciler.apply import spell
    from reconciler.diff import diff
    from reconciler.model import Sealed
    from tests.contract.tables import words_of_read, words_of_step

    kind = default().type_of(one.type)
    assert "\n" not in one.address, (name, one.address)
    assert "\0" not in one.address, (name, one.address)
    reads = next(kind.probe([one.spec]))
    assert not any("\0" in word for read in reads for word in words_of_read(read)), (name, one.address)
    if kind.steps is None:
        return
    for step in spell(diff(one, None, kind, lambda secret: Sealed("0")), kind.steps) if not one.absent else ():
        assert "\n" not in str(step), (name, step)
        assert not any("\0" in word for word in words_of_step(step)), (name, step)


def test_16_and_17_generated_files_stay_one_statement() -> None:
    """Names that are code in the language of a generated file are refused before it is written."""
    kind = default().kinds.get("PolkitRule")
    if kind is None:
        pytest.skip("there is no PolkitRule")
    documents = [d.data for d in parse(example_of(kind))]
    for evil in ('"); evil(("', "a'b", "x\n});\n", "*/", "\u2028", "</script>"):
        whole = schema(kind)
        for path in dict.fromkeys(text_fields(whole["properties"]["spec"], whole.get("definitions", {}), ("spec",))):
            changed = put_at(documents[-1], path, evil)
            parts = [*(d.data for d in systems()), *documents[:-1], changed]
            from reconciler.load import Loaded

            raws = tuple(RawDocument(d, "a.yaml", i, 1, json.dumps(d)) for i, d in enumerate(parts))
            try:
                catalog = validate(Loaded(Path(), raws), default())
                resources = expand(catalog)
            except InvalidInput:
                continue
            for one in resources:
                content = getattr(one.spec, "content", None)
                if isinstance(content, str):
                    assert evil not in content, (path, content)
                    if one.spec.path.endswith(".rules") and _node():
                        checked = subprocess.run(
                            [_node(), "--check", "-"], input=content, text=True, capture_output=True, check=False
                        )
                        assert checked.returncode == 0, content


def _node() -> str:
    import shutil

    return shutil.which("node") or ""
