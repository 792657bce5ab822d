"""Validate: all problems at once, each with line, column and a fix."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import InvalidInput
from reconciler.kinds.file import KIND as FILE_KIND
from reconciler.kinds.host import KIND as HOST_KIND
from reconciler.load import load
from reconciler.registry import Registry, default
from reconciler.validate import _document, validate
from tests.texts import FILE, HEAD, HOST, problems_of

MOTD = "a.yaml:%s: File/motd: "


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (HOST + FILE + "  mod: '0644'\n", ["13:3: File/motd: spec.mod is not known. Did you mean mode?"]),
        (
            HOST + FILE.replace("kind: File", "kind: Fiel"),
            ["7:7: Fiel/motd: there is no kind Fiel. Did you mean File?"],
        ),
        (HOST + FILE.replace("kind: File\n", ""), ["6:1: has no kind. Add `kind:`"]),
        (
            HOST + FILE.replace("v1", "v2"),
            ['6:13: File/motd: apiVersion is "reconciler/v2". This version reads reconciler/v1.'],
        ),
        (
            HOST + FILE.replace("[web1]", "[wbe1]") + "  content: x\n",
            ["11:11: File/motd: there is no Host/wbe1. Did you mean web1?"],
        ),
        (HOST + FILE.replace("[web1]", "5"), ["11:10: File/motd: spec.hosts is 5. Write a list or a mapping."]),
        (HOST + FILE.replace("[web1]", ""), ["11:9: File/motd: spec.hosts is empty. Write a list or a mapping"]),
        (HOST + FILE.replace("[web1]", "[5]"), ['11:11: File/motd: spec.hosts[0] is 5, not text. Quote it: "5".']),
        (
            HOST + FILE.replace("[web1]", "{matchLabels: {role: db}}") + "  content: x\n",
            ["11:24: File/motd: no host carries the labels role: db."],
        ),
        (
            HOST + FILE.replace("[web1]", "{matchLabel: {}}"),
            [
                "spec.hosts.matchLabels is missing",
                "11:11: File/motd: spec.hosts.matchLabel is not known. Did you mean matchLabels?",
            ],
        ),
        (HOST + FILE + "  mode: 0755\n", ['13:9: File/motd: spec.mode is 755, not text. Quote it: "0755".']),
        (
            HOST + FILE + "  mode: rwx\n",
            ['13:9: File/motd: spec.mode is "rwx", which is not allowed here. Write the permissions'],
        ),
        (HOST + FILE + "  mode: '0855'\n", ["13:9: File/motd: spec.mode"]),
        (
            HOST + FILE + "  content: yes\n  sensitive: yes\n",
            ['14:14: File/motd: spec.sensitive is "yes", not true or false'],
        ),
        (
            HOST + FILE + "  content: 1.10\n",
            ['13:12: File/motd: spec.content is 1.1. Write text or a mapping; as text: "1.10".'],
        ),
        (HOST + FILE + "  content: {secretRfe: x}\n", ["secretRef is missing", "Did you mean secretRef?"]),
        (
            HOST + FILE + "  content: x\nlifecycle: {adopt: never}\n",
            ['14:20: File/motd: lifecycle.adopt is "never". Did you mean Never?'],
        ),
        (
            HOST + FILE + "  content: x\nlifecycle: {requires: [File/mtod]}\n",
            ["14:24: File/motd: there is no File/mtod. Did you mean File/motd?"],
        ),
        (HOST + FILE + "  content: x\nstatus: {}\n", ["14:1: File/motd: status is not known."]),
        (
            HOST + FILE.replace("  name: motd", "  name: Motd"),
            ['9:9: File/Motd: metadata.name is "Motd", which is not allowed here.'],
        ),
        ("- a\n", ["1:1: is not a mapping."]),
        ("text\n", ["1:1: is not a mapping."]),
        ("kind: [a]\n", ["1:1: has no kind."]),
        (f"{HEAD}kind: File\nmetadata: 5\n", ["3:11: File/?: metadata is 5, not a mapping.", "spec is missing"]),
        (f"{HEAD}kind: Host\nmetadata: {{name: a}}\nspec: {{connection: image}}\n", ["an image needs `root`"]),
        (f"{HEAD}kind: Host\nmetadata: {{name: a}}\nspec: {{port: 70000}}\n", ["4:14: Host/a: spec.port"]),
    ],
)
def test_mistakes(text: str, wanted: list[str], tmp_path: Path) -> None:
    found = problems_of(tmp_path, text)
    assert len(found) == len(wanted), found
    for one in wanted:
        assert any(one in shown for shown in found), found


def test_all_problems_of_all_files_at_once_in_file_order(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(HOST + FILE + "  mod: x\n  onwer: y\n")
    (tmp_path / "a.yaml").write_text(FILE.replace("motd", "issue") + "  group: 5\n---\n" + FILE.replace("File", "Flie"))
    found = problems_of(tmp_path)
    assert [p.split(": ")[0] for p in found] == ["a.yaml:8:10", "a.yaml:11:7", "b.yaml:13:3", "b.yaml:14:3"]


def test_a_broken_document_is_not_reported_as_a_missing_one(tmp_path: Path) -> None:
    """One cause, one problem: the host is misspelt, and its files do not complain that there is no host."""
    found = problems_of(tmp_path, HOST.replace("connection", "connecton") + FILE)
    assert found == ["a.yaml:4:8: Host/web1: spec.connecton is not known. Did you mean connection?"]


def test_duplicate_documents_name_each_other(tmp_path: Path) -> None:
    (tmp_path / "z.yaml").write_text(FILE + "  content: other\n")
    assert problems_of(tmp_path, HOST + FILE + "  content: x\n") == [
        "z.yaml:4:9: File/motd: is there twice; the other stands at a.yaml:9:9. Rename or delete one."
    ]


def test_strange_text_in_messages_cannot_forge_lines_or_steer_a_terminal(tmp_path: Path) -> None:
    evil = '"\\e[31m\\n::set-output name=x::y\\u202e"'
    texts = [
        HOST + FILE.replace("name: motd", f"name: {evil}"),
        HOST + FILE.replace("[web1]", f"[{evil}]"),
        HOST + FILE.replace("kind: File", f"kind: {evil}"),
        HOST + FILE + f"  {evil}: x\n",
        HOST + FILE + f"  mode: {evil}\n",
        HOST + FILE + f"  content: x\nlifecycle: {{requires: [{evil}]}}\n",
        HOST + FILE + f"  content: x\nlifecycle: {{adopt: {evil}}}\n",
    ]
    for text in texts:
        found = problems_of(tmp_path, text)
        assert found
        for one in found:
            assert one.isprintable(), one
            assert len(one) < 400


def test_long_values_are_cut(tmp_path: Path) -> None:
    (one,) = problems_of(tmp_path, HOST + FILE + f"  mode: {'7' * 15}x{'a' * 100_000}\n")
    assert len(one) < 300


def test_systems_to_connect_to_share_one_space_of_names(tmp_path: Path) -> None:
    """Of whatever kinds they are; all at once with what else is wrong."""
    cluster = replace(HOST_KIND, name="Cluster")
    known = Registry.of([FILE_KIND, HOST_KIND, cluster], default().types.values())
    text = HOST + HOST.replace("kind: Host", "kind: Cluster") + FILE.replace("[web1]", "[web2]") + "  content: x\n"
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InvalidInput) as found:
        validate(load(tmp_path), known)
    assert [str(p).replace(f"{tmp_path}/", "") for p in found.value.problems] == [
        "a.yaml:3:18: Host/web1: Cluster/web1 is a system to connect to of the same name. Rename one of them.",
        "a.yaml:16:11: File/motd: there is no Host/web2. Did you mean web1?",
    ]
    (tmp_path / "a.yaml").write_text(text.replace("Cluster\nmetadata: {name: web1", "Cluster\nmetadata: {name: web2"))
    with pytest.raises(InvalidInput, match="there is no Host/web2"):
        validate(load(tmp_path), known)
    (tmp_path / "a.yaml").write_text(HOST + FILE.replace("name: motd", "name: web1") + "  content: x\n")
    assert len(list(validate(load(tmp_path), known))) == 2, "only systems to connect to count"


PACKAGE = f"{HEAD}kind: Package\nmetadata: {{name: p}}\nspec: {{hosts: [web1], packages: %s}}\n"
PROFILE = f"{HEAD}kind: HostProfile\nmetadata: {{name: p}}\nspec: {{hosts: [web1], sysctls: %s}}\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (HOST + PACKAGE % "[]", ["9:33: Package/p: spec.packages is empty. Give at least one."]),
        (HOST + FILE.replace("[web1]", "[]"), ["11:10: File/motd: spec.hosts is empty. Give at least one."]),
        (
            HOST + PACKAGE % f"[{'a' * 200}]",
            ["9:34: Package/p: spec.packages[0] is too long: 200 characters. Write at most 128."],
        ),
        (HOST + PROFILE % "{a: }", ["9:33: HostProfile/p: spec.sysctls.a is not allowed here."]),
        (
            f'{HEAD}kind: ReplicationJob\nmetadata: {{name: j}}\nspec: {{cluster: c, guest: "100", between: [a]}}\n',
            ["4:43: ReplicationJob/j: spec.between has 1. Give exactly 2."],
        ),
    ],
)
def test_each_mistake_is_told_once_in_our_words(text: str, wanted: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InvalidInput) as caught:
        validate(load(tmp_path), default())
    found = [str(p).removeprefix(f"{tmp_path}/") for p in caught.value.problems]
    found = [one for one in found if "missing" not in one and "not known" not in one]
    assert len(found) == len(wanted), found
    for one, start in zip(found, wanted, strict=True):
        assert one.removeprefix("a.yaml:").startswith(start), found


def test_the_rules_on_values_are_told_with_the_shape(tmp_path: Path) -> None:
    """All at once: a day that does not exist beside a key that is not known and a value of the wrong type."""
    spec = '{hosts: [web1], expires: "2027-02-30", uid: x, grops: [a], comment: ["2027-02-30"]}'
    (tmp_path / "a.yaml").write_text(f"{HOST}{HEAD}kind: User\nmetadata: {{name: u}}\nspec: {spec}\n")
    with pytest.raises(InvalidInput) as caught:
        validate(load(tmp_path), default())
    assert [str(p).removeprefix(f"{tmp_path}/a.yaml:9:") for p in caught.value.problems] == [
        "32: User/u: spec.expires is not allowed here: there is no day 2027-02-30.",
        '51: User/u: spec.uid is "x", not a whole number.',
        "54: User/u: spec.grops is not known. Did you mean groups?",
        "75: User/u: spec.comment is a list, not text.",
    ]


def test_no_library_speaks_in_messages(tmp_path: Path) -> None:
    """Every value of the sample data centre in turn is empty, or of another type."""
    foreign = re.compile(r"[Ii]nput should|should (?:have|be)|Tuple|is not of type|non-empty|under any|pydantic")
    known = default()
    told = 0
    for raw in load(Path(__file__).parents[2] / "desired-state").documents:
        for path in places(raw.data["spec"]):
            for value in ([], {}, "", None, 1e300, [None], {"a": None}):
                changed = copy.deepcopy(raw.data)
                node = changed["spec"]
                for part in path[:-1]:
                    node = node[part]
                node[path[-1]] = value
                found = _document(replace(raw, data=changed), known)
                for problem in found if isinstance(found, list) else ():
                    told += 1
                    assert not foreign.search(problem.message), (raw.data["kind"], path, value, problem.message)
                    assert len(problem.message) < 300
    assert told > 1000


def test_a_secret_that_is_written_out_is_not_repeated(tmp_path: Path) -> None:
    """In place of each reference of the sample data centre stands what may be the secret itself."""
    known = default()
    told = 0
    for raw in load(Path(__file__).parents[2] / "desired-state").documents:
        for path in places(raw.data["spec"]):
            changed = copy.deepcopy(raw.data)
            node = changed["spec"]
            for part in path[:-1]:
                node = node[part]
            if not isinstance(node[path[-1]], dict) or "secretRef" not in node[path[-1]]:
                continue
            node[path[-1]] = "hunter2-is-secret"
            found = _document(replace(raw, data=changed), known)
            for problem in found if isinstance(found, list) else ():
                told += 1
                assert "hunter2" not in f"{problem.message} {problem.fix}", (raw.data["kind"], path)
    assert told > 10


def places(node: Any) -> Iterator[tuple[str | int, ...]]:
    """The path of everything in a value."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (key,)
        for path in places(value):
            yield (key, *path)
