"""The format: against Debian's age and a second implementation, against vectors, and as a property."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reconciler.errors import InvalidInput, SecretError
from reconciler.sops import age, document
from reconciler.sops.cipher import Path as KeyPath
from reconciler.sops.cipher import Scalar, decrypt, encrypt, float_text
from reconciler.sops.document import Encrypted, Opened, Rule
from reconciler.sops.yamltext import YamlText
from tests.secrets import reference

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sops"
VECTORS = sorted(FIXTURES.glob("*.sops.*"))
PRIVATE, PUBLIC = age.new_identity()
PLAIN = """\
# who may log in
alice: s3cret   # until May
"0": zero
vpn:
    # of the office
    users:
        - name: bob
          pw: "x: y # z"
        - name: eve
          pw: |
              line 1
              line 2
    n: 12
    f: 1.5
    b: true
    empty: ""
    nothing: null
name_unencrypted: plain text
list: [one, {c: d}]
# the end
"""


def mine() -> age.Identities:
    return age.identities({"SOPS_AGE_KEY": PRIVATE})


def opened(text: str, file: str = "x.sops.yaml") -> Opened:
    return Encrypted(text, file).unlock(mine)


def changed(before: str, after: str) -> list[str]:
    """Lines that are not in both."""
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


def text(value: str) -> Scalar:
    return Scalar("str", value)


# ------------------------------------------------------------------------------------------------ others read and write


@pytest.mark.lab
def test_age_and_another_implementation_read_what_we_write(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(f"{PRIVATE}\n")
    assert reference.read(document.new(PLAIN, "x.sops.yaml", [PUBLIC]), key) == {
        "alice:": "s3cret",
        "0:": "zero",
        "vpn:users:name:": "eve",
        "vpn:users:pw:": "line 1\nline 2\n",
        "vpn:n:": "12",
        "vpn:f:": "1.5",
        "vpn:b:": "True",
        "list:": "one",
        "list:c:": "d",
    }


TREE = {"b": {"x": "1", "y": [1, 2.5, True, {"z": "ü"}]}, "a_unencrypted": ["p", 7, False], "e": "", "n": None}


@pytest.mark.lab
@pytest.mark.parametrize(
    ("rule", "encrypts"),
    [
        ({}, lambda bound: "_unencrypted:" not in bound),
        ({"unencrypted_suffix": "_unencrypted"}, lambda bound: "_unencrypted:" not in bound),
        ({"encrypted_regex": "^(x|z)$"}, lambda bound: "x:" in bound or "z:" in bound),
        ({"unencrypted_regex": "^a_"}, lambda bound: not bound.startswith("a_")),
        ({"encrypted_suffix": "y"}, lambda bound: "y:" in bound),
        (
            {"encrypted_regex": "^b$", "mac_only_encrypted": True},
            lambda bound: bound.startswith("b:"),
        ),
    ],
    ids=lambda value: " ".join(value) or "none" if isinstance(value, dict) else "",
)
def test_we_read_what_age_and_another_implementation_write(
    rule: dict[str, Any], encrypts: Callable[[str], bool]
) -> None:
    one = opened(reference.write(TREE, PUBLIC, encrypts=encrypts, rule=rule or {"version": "3.9.0"}))
    assert YAML(typ="safe").load(one.plaintext()) == TREE
    if encrypts("b:new:"):
        again = opened(one.with_values({("b", "new"): text("later")}))
        assert YAML(typ="safe").load(again.plaintext()) == {**TREE, "b": {**TREE["b"], "new": "later"}}  # type: ignore[dict-item]


@pytest.mark.lab
def test_age_reads_for_ssh_keys_what_we_wrap_for_them(tmp_path: Path) -> None:
    key = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = " ".join((tmp_path / "id.pub").read_text().split()[:2])
    written = document.new("a: value\n", "x.sops.yaml", [public])
    assert reference.read(written, key) == {"a:": "value"}
    have = age.identities({"SOPS_AGE_SSH_PRIVATE_KEY_FILE": str(key)})
    assert Encrypted(written, "x.sops.yaml").unlock(lambda: have).values == {("a",): text("value")}


@pytest.mark.parametrize("file", VECTORS, ids=lambda p: p.name)
def test_vectors(file: Path) -> None:
    """Files that were written once, for the identity beside them, and that every later version must read."""
    have = age.identities({"SOPS_AGE_KEY_FILE": str(FIXTURES / "identity.txt")})
    one = Encrypted(file.read_text(), file.name).unlock(lambda: have)
    assert one.plaintext() == (FIXTURES / f"{file.name.partition('.')[0]}.plain").read_text()


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 4


# ------------------------------------------------------------------------------------------------ what stays


def test_one_value_changes_three_lines() -> None:
    before = document.new(PLAIN, "x.sops.yaml", [PUBLIC])
    after = opened(before).with_values({("vpn", "users", 0, "pw"): text("new")})
    lines = changed(before, after)
    assert sorted(line[2:].split(":")[0].strip() for line in lines if line[0] == "+") in (
        ["mac", "pw"],
        ["lastmodified", "mac", "pw"],
    )
    assert opened(after).plaintext() == opened(before).plaintext().replace('"x: y # z"', "new")


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_many_new_keys_are_written_as_if_one_by_one(ending: str) -> None:
    """And the text is read a few times, however many they are."""
    file = f"x.sops.{ending}"
    start = PLAIN if ending == "yaml" else '{"vpn": {"n": 1}, "a": "b"}'
    new: dict[KeyPath, Scalar] = {
        **{(f"k{n}",): text(str(n)) for n in range(50)},
        **{("vpn", f"k{n}"): text("two\nlines") for n in range(50)},
        **{("fresh", "deep", f"k{n}"): text(str(n)) for n in range(50)},
        ("other", "x"): text("y"),
    }
    one = opened(document.new(start, file, [PUBLIC]), file)
    at_once = opened(one.with_values(new), file)
    single = one
    for path, value in new.items():
        single = opened(single.with_values({path: value}), file)
    assert at_once.plaintext() == single.plaintext()
    assert at_once.values == {**one.values, **new}


def test_a_large_change_reads_the_text_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened(document.new(PLAIN, "x.sops.yaml", [PUBLIC]))
    read = YamlText._read
    counted: list[str] = []

    def count(self: YamlText) -> None:
        counted.append(self.file)
        read(self)

    monkeypatch.setattr(YamlText, "_read", count)
    one.with_values({("fresh", f"k{n}"): text("x") for n in range(200)} | {(f"k{n}",): text("x") for n in range(200)})
    assert len(counted) < 10


def test_a_new_key_is_one_line_more() -> None:
    before = document.new(PLAIN, "x.sops.yaml", [PUBLIC])
    after = opened(before).with_values({("vpn", "carol"): text("x"), ("new", "sub", "key"): text("two\nlines\n")})
    added = [line for line in changed(before, after) if line[0] == "+" and "mac:" not in line and "lastmod" not in line]
    assert [line[2:].split(":")[0] for line in added] == ["    carol", "new", "    sub", "        key"]
    values = opened(after).values
    assert values["vpn", "carol"] == text("x")
    assert values["new", "sub", "key"] == text("two\nlines\n")


def test_an_edit_keeps_what_was_not_edited() -> None:
    before = document.new(PLAIN, "x.sops.yaml", [PUBLIC])
    plain = opened(before).plaintext()
    assert opened(before).with_plaintext(plain) == before
    edited = plain.replace("s3cret", "other").replace('        - name: bob\n          pw: "x: y # z"\n', "")
    after = opened(before).with_plaintext(edited)
    assert opened(after).plaintext() == edited
    # All but the values of alice and of bob, whose `mac` and `lastmodified` are not counted.
    sealed = [line for line in before.partition("sops:")[0].splitlines() if "ENC[" in line]
    assert len([line for line in sealed if line in after]) == len(sealed) - 3


def test_comments_are_encrypted_and_come_back() -> None:
    written = document.new(PLAIN, "x.sops.yaml", [PUBLIC])
    for comment in ("who may log in", "until May", "of the office", "the end"):
        assert comment not in written
        assert comment in opened(written).plaintext()
    assert "type:comment" in written


def test_what_a_rule_leaves_plain_stays_readable() -> None:
    written = document.new(
        "# note\na: 1\nkind: Secret\ndata: {k: v}\n", "x.sops.yaml", [PUBLIC], Rule("encrypted_regex", "^data$")
    )
    assert "# note\na: 1\nkind: Secret\n" in written
    assert "k: v" not in written
    with pytest.raises(SecretError, match=r"b would not be encrypted \(encrypted_regex: \^data\$\)"):
        opened(written).with_values({("b",): text("x")})


def test_json() -> None:
    plain = json.dumps({"a": "b", "n": 3, "f": 1.5, "t": True, "z": None, "l": [1, {"k": "v"}]}, indent="\t") + "\n"
    written = document.new(plain, "x.sops.json", [PUBLIC])
    assert json.loads(written)["a"].startswith("ENC[")
    one = opened(written, "x.sops.json")
    assert one.plaintext() == plain
    after = one.with_values({("l", 1, "k"): text("w"), ("q", "r"): text("new")})
    again = json.loads(opened(after, "x.sops.json").plaintext())
    assert again == json.loads(plain) | {"l": [1, {"k": "w"}], "q": {"r": "new"}}
    assert json.loads(after)["a"] == json.loads(written)["a"]


def test_more_and_fewer_recipients() -> None:
    private, public = age.new_identity()
    other = age.identities({"SOPS_AGE_KEY": private})
    first = document.new(PLAIN, "x.sops.yaml", [PUBLIC])
    both = opened(first).with_recipients([public])
    assert both.split("sops:")[0] == first.split("sops:")[0]
    assert "mac" not in "".join(changed(first, both))
    assert Encrypted(both, "x").unlock(lambda: other).values == opened(first).values
    rotated = opened(both).rotated()
    assert Encrypted(rotated, "x").recipients == [PUBLIC, public]
    assert not {line for line in both.splitlines() if "ENC[" in line} & set(rotated.splitlines())
    alone = opened(rotated).rotated([PUBLIC])
    assert opened(alone).values == opened(first).values
    assert opened(both).with_recipients([public]) == both, "somebody else was faster"
    with pytest.raises(SecretError, match="would be encrypted for nobody"):
        opened(both).rotated([])
    with pytest.raises(SecretError, match=f"is encrypted for {PUBLIC}, and no identity of yours \\({public}\\) opens"):
        Encrypted(alone, "x").unlock(lambda: other)


def test_metadata_of_others_is_kept_and_not_rotated() -> None:
    written = document.new("a: b\n", "x.sops.yaml", [PUBLIC])
    pgp = "    pgp:\n        - fp: ABCD\n          enc: x\n    future_field: {deep: [1]}\n"
    with_pgp = written + pgp
    after = opened(with_pgp).with_values({("a",): text("c")})
    assert after.endswith(pgp)
    added = opened(with_pgp).with_recipients([age.new_identity()[1]])
    metadata = YAML(typ="safe").load(added)["sops"]
    assert (metadata["pgp"], metadata["future_field"]) == ([{"fp": "ABCD", "enc": "x"}], {"deep": [1]})
    with pytest.raises(SecretError, match="is also encrypted by pgp: a new data key cannot be wrapped"):
        opened(with_pgp).rotated()


# ------------------------------------------------------------------------------------------------ tampering


def _swap(written: str, first: str, second: str) -> str:
    lines = written.splitlines(keepends=True)
    i, j = (next(n for n, line in enumerate(lines) if line.strip().startswith(f"{k}:")) for k in (first, second))
    lines[i], lines[j] = lines[j], lines[i]
    return "".join(lines)


def _value_of(written: str, key: str) -> str:
    return next(li.split(": ", 1)[1] for li in written.splitlines() if li.strip().startswith(f"{key}:"))


FLAT = "alice: a-secret\nbob: b-secret\ncarol_unencrypted: open\nn: 5\n"
TAMPERED: dict[str, tuple[Callable[[str], str], str]] = {
    "a bit of a value": (
        lambda t: t.replace(v := _value_of(t, "bob"), v.replace("data:", "data:AA", 1).replace("=,iv", ",iv", 1)),
        r"x\.sops\.yaml:2:1: bob was changed, or was moved here",
    ),
    "a value moved to another key": (
        lambda t: t.replace(_value_of(t, "bob"), _value_of(t, "alice")),
        r"x\.sops\.yaml:2:1: bob was changed, or was moved here",
    ),
    "the type of a value": (lambda t: t.replace("type:int", "type:foo"), r"x\.sops\.yaml:4:1: n is not encrypted"),
    "a value in the clear": (
        lambda t: t.replace(_value_of(t, "bob"), "guess"),
        r"x\.sops\.yaml:2:1: bob is not encrypted",
    ),
    "a number in the clear": (
        lambda t: t.replace(_value_of(t, "bob"), "12"),
        r"x\.sops\.yaml:2:1: bob is not encrypted",
    ),
    "the order": (lambda t: _swap(t, "alice", "bob"), r"x\.sops\.yaml:\d+:5: sops\.mac does not fit.*another place"),
    "a removed key": (
        lambda t: "".join(li for li in t.splitlines(keepends=True) if not li.startswith("bob")),
        r"sops\.mac does not fit the values: a key was removed",
    ),
    "an added plain key": (lambda t: "x_unencrypted: 1\n" + t, r"sops\.mac does not fit"),
    "a plain value": (lambda t: t.replace("open", "shut"), r"sops\.mac does not fit.*plain value"),
    "lastmodified": (
        lambda t: t.replace('lastmodified: "2', 'lastmodified: "1'),
        r"x\.sops\.yaml:\d+:5: sops\.mac or sops\.lastmodified was changed",
    ),
    "a mac of another file": (
        lambda t: t.replace(_value_of(t, "mac"), _value_of(document.new(FLAT, "y", [PUBLIC]), "mac")),
        r"sops\.mac or sops\.lastmodified was changed",
    ),
    "no mac": (lambda t: t.replace(f"    mac: {_value_of(t, 'mac')}\n", ""), r"sops\.mac is missing"),
    "the rule": (
        lambda t: t.replace("unencrypted_suffix: _unencrypted", "unencrypted_suffix: ob"),
        r"carol_unencrypted is not encrypted",
    ),
    "a rule that leaves more in the clear": (
        lambda t: t.replace("unencrypted_suffix: _unencrypted", 'unencrypted_regex: "(_unencrypted|ob)$"'),
        r"sops\.mac does not fit.*rule",
    ),
    "the wrapped key": (
        lambda t: t.replace("\n              YWdlLWVuY3J5", "\n              AAAALWVuY3J5"),
        r"x\.sops\.yaml is encrypted for age1",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_named(name: str) -> None:
    tamper, message = TAMPERED[name]
    written = document.new(FLAT, "x.sops.yaml", [PUBLIC])
    opened(written)
    damaged = tamper(written)
    assert damaged != written, "the tampering did nothing"
    with pytest.raises((SecretError, InvalidInput), match=message) as caught:
        opened(damaged)
    assert "secret" not in str(caught.value).replace("reconciler secrets", "")


def test_only_encrypted_values_count_where_the_file_says_so() -> None:
    """But that it says so counts, too: the setting cannot be switched on for a file that does without."""
    written = document.new(FLAT, "x.sops.yaml", [PUBLIC])
    with pytest.raises(SecretError, match="does not fit"):
        opened(written + "    mac_only_encrypted: true\n")


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ("a: &x 1\nb: *x\n", r"x:2:4: is a YAML alias\. Write it out"),
        ("a: 1\n---\nb: 2\n", "a second document begins"),
        ("1: one\n", r'the key 1 is not text\. Quote it: "1"'),
        ("a: 1\na: 2\n", r'x:2:1: the key "a" is there twice'),
        ("- a\n", "is not a mapping"),
        ("a: !vault x\n", "has the tag !vault"),
        ("pin: 0123\n", r'x:1:1: pin would be read as the number 83\. Quote it: "0123"'),
        ("day: 2026-11-22\n", r"day would be read as a date"),
        ("n: 9223372036854775808\n", r'n would be read as the number 9223372036854775808\. Quote it: "92233'),
        ("n: -9223372036854775809\n", r"n would be read as the number -9223372036854775809"),
        ("sops: {a: 1}\n", r"the key sops is reserved"),
        ("a: [1\n", "is not YAML"),
        ("a:\n\t- b\n", "is not YAML"),
        ("<<: {a: 1}\n", "is a YAML merge"),
    ],
)
def test_what_cannot_be_encrypted_rightly_is_refused_with_its_place(plain: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        document.new(plain, "x", [PUBLIC])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("a: b\n", "is not encrypted: it has no sops section"),
        ("sops: {mac: x, lastmodified: y, key_groups: [{age: []}]}\n", "has key groups"),
        ("sops: {mac: x, lastmodified: y, encrypted_regex: a, encrypted_suffix: b}\n", "has both"),
        ("sops: {mac: x, lastmodified: y, encrypted_regex: '('}\n", "is no regular expression"),
        ("sops: {mac: x}\n", r"sops\.lastmodified is missing"),
    ],
)
def test_files_that_we_cannot_open_say_why(metadata: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Encrypted(metadata, "x.sops.yaml")


def test_rules_by_comments_are_read_and_not_written() -> None:
    written = document.new("a: b\n", "x.sops.yaml", [PUBLIC]).replace(
        "unencrypted_suffix: _unencrypted", "encrypted_comment_regex: secret"
    )
    assert opened(written).values == {("a",): text("b")}
    with pytest.raises(SecretError, match="comments decide what is encrypted"):
        opened(written).with_values({("a",): text("c")})


@pytest.mark.parametrize("file", ["x.sops.yaml", "x.sops.json"])
def test_large_and_deep_files_of_strangers_cost_little(file: str) -> None:
    """`validate` reads them: 20,000 keys, as many items of metadata, and a depth that recursion would not survive."""
    keys = {f"k{n}": "" for n in range(20_000)}
    many = json.dumps(keys | {"sops": {"mac": "x", "lastmodified": "y"} | keys}, indent=0)
    one = Encrypted(many, file)
    assert len(one.text.leaves) == len(one.text.written) == 20_000
    assert one.text.position(("k19999",)).line == 20_001
    with pytest.raises(InvalidInput, match="nested"):
        Encrypted('{"a":' * 900 + "1" + "}" * 900, file)


# ------------------------------------------------------------------------------------------------ properties

KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda k: k != "sops"
)
SCALARS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(
        ["", " ", "a\nb\n", "a\n\nb", "\ta", "x ", "null", "True", "1.0", "- a", "#x", "a: b", "ENC[x]", "\x00\x7f\x85"]
    ),
    st.integers(-(10**12), 10**12),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: repr(x) == float_text(repr(x))),
)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)


def _ascii_only(text: str) -> str:
    """JSON as YAML: what YAML wants escaped, escaped."""
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda m: f"\\u{ord(m.group()):04x}", text)


@given(TREES, KEYS, st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_tree_comes_back(tree: dict[str, Any], key: str, value: str) -> None:
    """In JSON and in YAML; and after a value was set, all others are as they were."""
    block = "".join(
        f"{json.dumps(k, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}\n" for k, v in tree.items()
    )
    for file, plain in (("x.json", json.dumps(tree)), ("x.yaml", _ascii_only(block))):
        one = opened(document.new(plain, file, [PUBLIC]), file)
        assert one.with_plaintext(one.plaintext()) == one._text.text
        if isinstance(tree.get(key), dict | list):
            continue
        after = opened(one.with_values({(key,): text(value)}), file)
        assert after.values == one.values | {(key,): text(value)}
        assert opened(document.new(after.plaintext(), file, [PUBLIC]), file).values == after.values


@given(TREES, st.randoms(use_true_random=False))
def test_block_yaml_comes_back(tree: dict[str, Any], chance: Any) -> None:
    """What we insert line by line is read back as it was meant, whatever the keys and values are."""
    plain = ""
    wanted = {}
    for key, value in tree.items():
        for inner in value.values() if isinstance(value, dict) else [value]:
            if isinstance(inner, str) and inner:
                path = (key, "sub", inner[:4] or "k") if chance.random() < 0.5 else (key, "top")
                if path not in wanted and path[:2] not in wanted:
                    plain = YamlText(plain, "x").inserted({path: text(inner)})
                    wanted[path] = text(inner)
    assert {leaf.path: leaf.written for leaf in YamlText(plain, "x").leaves} == wanted


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1), st.binary(min_size=1, max_size=20))
def test_a_value_opens_only_in_its_place(value: str, place: bytes) -> None:
    key = b"k" * 32
    sealed = encrypt(text(value), key, place)
    assert decrypt(sealed, key, place) == text(value)
    with pytest.raises(ValueError, match="was changed, or was moved"):
        decrypt(sealed, key, place + b"x")
    assert encrypt(text(value), key, place) != sealed


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("1e21", "1000000000000000000000"), ("1e-7", "0.0000001"), ("3.0", "3"), ("-0.50", "-0.5"), ("1.", "1")],
)
def test_floats_are_spelled_as_sops_spells_them(written: str, wanted: str) -> None:
    assert float_text(written) == wanted
