"""Load: YAML 1.2 without surprises, positions, limits, and every problem of every file at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import InvalidInput
from reconciler.load import MAX_FILE_BYTES, load, parse


def problem(text: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse(text, "a.yaml")
    (one,) = caught.value.problems
    return str(one)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("NO", "NO"),
        ("true", True),
        ("12:30:45", "12:30:45"),
        ("190:20:30", "190:20:30"),
        ("2026-11-22", "2026-11-22"),
        ("0755", 755),
        ("0o755", 0o755),
        ("0x1f", 31),
        ("1.10", 1.1),
        ("1_000", "1_000"),
        ("~", None),
        ("null", None),
        ("", None),
        ("Null", None),
        ('"null"', "null"),
        ("'0755'", "0755"),
        ("-1", -1),
        ("+1", 1),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("=", "="),
        ("-", [None]),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">-\n  a\n  b\n", "a b"),
        ("!!str 5", "5"),
        ("! 5", "5"),
    ],
)
def test_scalars_follow_yaml_1_2(written: str, value: object) -> None:
    """Norway stays Norway."""
    separator = "\n  " if written == "-" else " "
    (document,) = parse(f"key:{separator}{written}\n")
    assert document.data == {"key": value}
    assert type(document.data["key"]) is type(value)


def test_anchors_and_merge_keys_within_the_budget() -> None:
    (document,) = parse("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: *x\nf: [*x, *x]\n")
    assert document.data["d"] == {"b": 1, "c": 3}
    assert document.data["e"] == {"b": 1, "c": 2}


def test_a_merge_takes_a_list_of_aliases_or_says_that_it_does_not() -> None:
    text = "a: &x {b: 1}\nc: &y {d: 2}\ne: {<<: [*x, *y]}\n"
    try:
        (document,) = parse(text, "a.yaml")
    except InvalidInput as error:
        assert "a.yaml:3:9: the merge key" in str(error)  # noqa: PT017
    else:
        assert document.data["e"] == {"b": 1, "d": 2}


def test_positions_of_values_keys_and_what_is_missing() -> None:
    document = parse("---\na:\n  - b: 1\n    c: {d: e}\n---\nf: g\n")
    first, second = document
    assert (first.line, second.line) == (1, 5)
    assert str(first.position(("a", 0, "c", "d"))) == "<text>:4:12"
    assert str(first.position(("a", 0, "c", "d"), key=True)) == "<text>:4:9"
    assert str(first.position(("a", 0, "nothing", "at", "all"))) == "<text>:3:5"
    assert str(second.position(("f",))) == "<text>:6:4"
    assert str(first.position()) == "<text>:2:1"


def test_what_was_written_is_shown_again() -> None:
    (document,) = parse("a: {mode: 0755, n: 1.10}\n")
    assert document.written(("a", "mode")) == "0755"
    assert document.written(("a", "n")) == "1.10"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: 1\nb: 2\na: 3\n", 'a.yaml:3:1: the key "a" is there twice. Keep one of them.'),
        ("a: b: c\n", "a.yaml:1:5: is not YAML: mapping values are not allowed in this context. Quote the text"),
        ("a:\n\tb: 1\n", "a.yaml:2:1: is not YAML: a tab in the indentation. Indent with spaces."),
        ("a: 'b\n", "a.yaml:2:1: is not YAML: "),
        ("a: [b\n", "a.yaml:2:1: is not YAML: "),
        ("a: *b\n", "a.yaml:1:4: refers to the unknown anchor &b. Define it above."),
        ("a: !!python/name:os.system x\n", "a.yaml:1:4: has the tag tag:yaml.org,2002:python/name:os.system."),
        ("a: !vault x\n", "a.yaml:1:4: has the tag !vault."),
        ("!!map {a: b}\n", "a.yaml:1:1: has the tag"),
        ("a: .nan\n", "a.yaml:1:4: .nan is not a number"),
        ("[1, [2]]: x\n", "a.yaml:1:1: the key this is not text."),
        ("? {a: b}\n: x\n", "a.yaml:1:3: the key this is not text."),
        ("null: x\n", "a.yaml:1:1: the key null is not text."),
    ],
)
def test_mistakes_have_a_position_and_a_fix(text: str, wanted: str) -> None:
    assert problem(text).startswith(wanted)


def test_all_files_are_read_before_anything_is_said(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text("a: 1\na: 2\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text("a: [\n")
    (tmp_path / "fine.yaml").write_text("a: 1\n")
    with pytest.raises(InvalidInput) as caught:
        load(tmp_path)
    assert [p.position.file.removeprefix(f"{tmp_path}/") for p in caught.value.problems if p.position] == [
        "b.yml",
        "sub/a.yaml",
    ]


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """Hidden files and folders, other suffixes; documents come in the order of file names."""
    for name in (".git/config.yaml", ".hidden.yaml", "notes.txt", "values.json", "b.yaml", "a/z.yml", "c.yaml~"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"file: {name}\n")
    assert [d.data["file"] for d in load(tmp_path).documents] == ["a/z.yml", "b.yaml"]


def test_one_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n---\nb: 2\n---\n---\n# nothing\n")
    assert [d.data for d in load(tmp_path / "a.yaml").documents] == [{"a": 1}, {"b": 2}]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It must not look like an empty desired state."""
    with pytest.raises(InvalidInput, match="does not exist"):
        load(tmp_path / "nowhere")


def test_links_that_lead_out_are_refused_and_links_inside_are_fine(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("a: 1\n")
    inside = tmp_path / "repo"
    inside.mkdir()
    (inside / "real.yaml").write_text("b: 1\n")
    (inside / "link.yaml").symlink_to("real.yaml")
    assert len(load(inside).documents) == 2
    (inside / "out.yaml").symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(InvalidInput, match=r"out.yaml:1:1: is a link that leads out"):
        load(inside)


def test_a_dangling_link_and_a_pipe_are_problems_and_do_not_hang(tmp_path: Path) -> None:
    (tmp_path / "dangling.yaml").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InvalidInput) as caught:
        load(tmp_path)
    dangling, pipe = caught.value.problems
    assert "cannot be read: No such file" in str(dangling)
    assert "is not a regular file" in str(pipe)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(InvalidInput, match=r"is larger than 10 MiB. Split it"):
        load(tmp_path)


def test_bytes_that_are_no_utf_8_have_a_position(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: b\nc: caf" + b"\xe9\n")
    with pytest.raises(InvalidInput, match=r"a\.yaml:2:7: is not UTF-8"):
        load(tmp_path)


def test_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: |\r\n  x\r\n  y\r\n")
    assert load(tmp_path).documents[0].data == {"a": 1, "b": "x\ny\n"}


def test_positions_are_those_an_editor_shows(tmp_path: Path) -> None:
    """A byte order mark, accents and emoji before it count as an editor counts them."""
    (tmp_path / "a.yaml").write_text('\ufeffä: "😀é"\nkey: {"ä😀": .nan}\n')
    with pytest.raises(InvalidInput, match=r"a\.yaml:2:13:"):
        load(tmp_path)


def test_a_folder_that_cannot_be_read_is_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its documents would look as if nobody wanted them any more, and their objects would be deleted."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.yaml").write_text("kind: a\n")
    scandir = os.scandir

    def closed(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InvalidInput, match=r"closed:1:1: cannot be read: Permission denied\."):
        load(tmp_path)


def test_a_link_to_a_folder_is_refused_unless_it_is_hidden(tmp_path: Path) -> None:
    """It is not followed, and what lies behind it must not be missing silently."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.yaml").write_text("kind: a\n")
    (tmp_path / ".hidden").symlink_to("real")
    assert len(load(tmp_path).documents) == 1
    (tmp_path / "shared").symlink_to("real")
    with pytest.raises(InvalidInput, match=r"shared:1:1: is a link to a folder\."):
        load(tmp_path)
