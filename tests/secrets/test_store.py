"""The store: which file and key a reference means, what is checked without an identity, and how files are written."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from reconciler.errors import InvalidInput, SecretError
from reconciler.load import load
from reconciler.secret_store import SecretStore
from reconciler.sops import age, rules

DOCUMENT = """\
apiVersion: reconciler/v1
kind: File
metadata: {{name: {name}}}
spec:
  hosts: [web1]
  path: /etc/{name}
  content: {{{content}}}
---
"""


def documents(store: SecretStore, **contents: str) -> None:
    text = "".join(DOCUMENT.format(name=name, content=content) for name, content in contents.items())
    (store.root / "all.yaml").write_text(text)


def problems(store: SecretStore, **contents: str) -> list[str]:
    documents(store, **contents)
    return [str(p) for p in store.problems(load(store.root), typed=True)]


# ------------------------------------------------------------------------------------------------ references


@pytest.mark.parametrize(
    "reference",
    [
        "otp/alice",
        "otp/0",
        "otp/a b",
        "otp/.dockerconfigjson",
        "otp/a~1b",
        "otp/a~0b",
        "otp/ünï",
        "otp/true",
        "otp/a:b",
        "otp/sub/key",
        "folder/otp/key",
        "a.b/c",
        "otp/-",
        "otp/#x",
    ],
)
def test_what_is_set_is_found(store: SecretStore, reference: str) -> None:
    (file,) = store.set({reference: "s3cret"})
    assert SecretStore(store.root).value(reference) == "s3cret"
    assert reference in SecretStore(store.root).references()
    assert "s3cret" not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_takes_as_many_parts_as_there_is_a_file_for(store: SecretStore) -> None:
    assert store.locate("a/b/c").file == store.folder / "a/b.sops.yaml"
    store.set({"a/x": "1"})
    place = store.locate("a/b/c")
    assert (place.file, place.keys, place.exists) == (store.folder / "a.sops.yaml", ("b", "c"), True)
    store.set({"a/b/c": "2"})
    assert store.value("a/b/c") == "2"


def test_what_is_written_at_once_is_where_it_would_be_one_by_one(store: SecretStore) -> None:
    files = store.set({"a/b/c": "1", "a/x": "2", "z/y/x": "3"})
    assert sorted(files) == [store.folder / "a.sops.yaml", store.folder / "z/y.sops.yaml"]
    assert [store.value(r) for r in ("a/b/c", "a/x", "z/y/x")] == ["1", "2", "3"]


def test_a_reference_that_two_files_have_is_refused(store: SecretStore) -> None:
    store.set({"a/b/c": "1"})
    plain = store.new(store.folder / "a.sops.yaml", "x: 2\n")
    store.write(store.folder / "a.sops.yaml", plain)
    assert store.value("a/b/c") == "1", "the other file has no such key"
    assert store.value("a/x") == "2"
    store.write(store.folder / "a.sops.yaml", store.new(store.folder / "a.sops.yaml", "b: {c: other}\n"))
    message = r"is in desired-state/secrets/a/b\.sops\.yaml and desired-state/secrets/a\.sops\.yaml\. Rename one"
    with pytest.raises(SecretError, match=message):
        store.value("a/b/c")
    assert len([p for p in problems(store, x="secretRef: a/b/c") if "Rename one of them" in p]) == 1


def test_lists_and_types(store: SecretStore) -> None:
    text = store.new(store.folder / "x.sops.yaml", 'users: [{pw: one}, {pw: two}]\nport: 8080\non: true\n"0": zero\n')
    store.write(store.folder / "x.sops.yaml", text)
    found = {ref: store.value(f"x/{ref}") for ref in ("users/1/pw", "port", "on", "0")}
    assert found == {"users/1/pw": "two", "port": "8080", "on": "true", "0": "zero"}
    with pytest.raises(
        SecretError, match=r"is a whole section of .*x\.sops\.yaml. Name one key of it: x/users/0, x/us"
    ):
        store.value("x/users")
    store.set({"x/users/1/pw": "new"}, force=True)
    assert store.value("x/users/1/pw") == "new"
    for reference in ("x/users/2/pw", "x/users/one", "x/port/deeper"):
        with pytest.raises(SecretError, match=f"the secret {reference} is not in"):
            store.value(reference)


def test_json_files_and_yml(store: SecretStore) -> None:
    store.write(store.folder / "j.sops.json", store.new(store.folder / "j.sops.json", '{"a": {"b": "c"}}'))
    store.write(store.folder / "y.sops.yml", store.new(store.folder / "y.sops.yml", "a: b\n"))
    assert (store.value("j/a/b"), store.value("y/a")) == ("c", "b")
    store.set({"j/new": "x", "y/new": "y"})
    assert (store.value("j/new"), store.value("y/new")) == ("x", "y")


# ------------------------------------------------------------------------------------------------ without an identity


@pytest.fixture
def blind(store: SecretStore, me: tuple[str, str], home: Path) -> SecretStore:
    """A store with secrets, and no identity any more."""
    store.set({"otp/alice": "x", "otp/vpn/bob": "y"})
    (home / ".config/sops/age/keys.txt").unlink()
    return SecretStore(store.root)


def test_references_are_checked_without_an_identity(blind: SecretStore) -> None:
    assert problems(blind, a="secretRef: otp/alice", b="secretRef: otp/vpn/bob", c="secretRef: env:X") == []
    assert problems(blind, a="secretRef: otp/alcie", b="secretRef: otpp/alice", c="secretRef: otp/vpn") == [
        "desired-state/all.yaml:7:24: File/a: the secret otp/alcie is not in desired-state/secrets/otp.sops.yaml. "
        "Did you mean otp/alice?",
        "desired-state/all.yaml:15:24: File/b: the secret otpp/alice is not there: there is no "
        "desired-state/secrets/otpp.sops.yaml. Run `reconciler secrets set otpp/alice`.",
        "desired-state/all.yaml:23:24: File/c: the secret otp/vpn is a whole section of "
        "desired-state/secrets/otp.sops.yaml. Name one key of it: otp/vpn/bob.",
    ]


def test_what_is_to_be_generated_may_be_missing(blind: SecretStore) -> None:
    assert problems(blind, a="secretRef: otp/new, generate: base32", b="secretRef: totp/x, generate: hex6") == []
    assert len(problems(blind, a="secretRef: otp/vpn, generate: hex6")) == 1, "a section is in the way"
    (message,) = problems(blind, a="secretRef: otp/n, generate: base32", b="secretRef: otp/n, generate: hex6")
    assert "File/b: asks for otp/n as hex6, and desired-state/all.yaml:7:24 asks for base32" in message


def test_what_is_no_reference_is_told_in_mappings_of_free_form(blind: SecretStore) -> None:
    (message,) = problems(blind, a="deep: {secretRef: TOKEN}")
    assert "secretRef is not allowed here. Write path/key" in message
    assert problems(blind, a="deep: {secretRef: {name: of-kubernetes}}, other: {secretRef: x, more: y}") == []


def test_a_file_that_is_not_encrypted_is_told(blind: SecretStore) -> None:
    (blind.folder / "new.sops.yaml").write_text("a: plain-as-day\n")
    text = (blind.folder / "otp.sops.yaml").read_text().splitlines(keepends=True)
    (blind.folder / "half.sops.yaml").write_text("".join(["carol: plain-as-day\n", *text]))
    found = problems(blind, a="secretRef: env:X")
    assert len(found) == 2
    assert "half.sops.yaml:1:1: carol is not encrypted. Whoever can read the repository knows it" in found[0]
    assert "new.sops.yaml:1:1: is not encrypted: it has no sops section" in found[1]
    assert "plain-as-day" not in "".join(found)


def test_without_an_identity_the_error_says_what_to_set(blind: SecretStore, me: tuple[str, str]) -> None:
    with pytest.raises(SecretError) as caught:
        blind.value("otp/alice")
    assert f"is encrypted for {me[1]}, and there is no age identity here. Set SOPS_AGE_KEY_FILE" in str(caught.value)


def test_the_loader_leaves_files_of_secrets_alone(blind: SecretStore) -> None:
    documents(blind, a="secretRef: otp/alice")
    (blind.root / "hosts/secrets").mkdir(parents=True)
    (blind.root / "hosts/secrets/x.sops.yaml").write_text("no: document\n")
    (blind.root / "hosts/secrets/y.yaml").write_text("is: one\n")
    files = {d.file for d in load(blind.root).documents}
    assert files == {"desired-state/all.yaml", "desired-state/hosts/secrets/y.yaml"}


def test_a_store_leads_nowhere_else(store: SecretStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.sops.yaml").write_text("a: b\n")
    (store.folder / "x.sops.yaml").symlink_to(tmp_path / "elsewhere.sops.yaml")
    with pytest.raises(SecretError, match="is a link that leads out of the desired state"):
        store.value("x/a")
    with pytest.raises(SecretError, match="lies outside"):
        store.file("../../etc/x")


def test_a_link_that_leads_to_itself(store: SecretStore) -> None:
    store.set({"otp/alice": "x"})
    loop = store.folder / "loop.sops.yaml"
    loop.symlink_to(loop.name)
    for use in (lambda: store.read(loop), lambda: store.set({"loop/x": "y"})):
        with pytest.raises(SecretError, match=r"loop\.sops\.yaml is a link that leads to itself"):
            use()
    assert "otp/alice" in store.references()
    (problem,) = store.problems(load(store.root), typed=True)
    assert "loop.sops.yaml:1:1: is a link" in str(problem)


@pytest.mark.parametrize(
    ("where", "variable"),
    [
        ("key", "SOPS_AGE_KEY"),
        ("command", "SOPS_AGE_KEY_CMD"),
        ("file", "SOPS_AGE_KEY_FILE"),
        ("xdg", "XDG_CONFIG_HOME"),
        ("home", "HOME"),
    ],
)
def test_identities_are_found_where_sops_looks(
    blind: SecretStore, me: tuple[str, str], tmp_path: Path, where: str, variable: str
) -> None:
    file = {"file": "my.txt", "xdg": "sops/age/keys.txt", "home": ".config/sops/age/keys.txt"}.get(where)
    if file:
        (tmp_path / "there" / file).parent.mkdir(parents=True)
        (tmp_path / "there" / file).write_text(f"# mine\n\n{me[0]}\n")
    (tmp_path / "my key").write_text(me[0])
    values = {"key": me[0], "command": f"cat '{tmp_path}/my key'", "file": str(tmp_path / "there/my.txt")}
    value = values.get(where, str(tmp_path / "there"))
    assert SecretStore(blind.root, {variable: value}).value("otp/alice") == "x"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SOPS_AGE_KEY": "hunter2"}, r"SOPS_AGE_KEY, line 1: is no age identity"),
        ({"SOPS_AGE_KEY": "AGE-PLUGIN-YUBIKEY-1XXX"}, r"identities of age plugins are not supported"),
        ({"SOPS_AGE_KEY_CMD": "echo hunter2"}, r"SOPS_AGE_KEY_CMD, line 1: is no age identity"),
        ({"SOPS_AGE_KEY_CMD": "false"}, r"SOPS_AGE_KEY_CMD cannot be read: exit status 1"),
        ({"SOPS_AGE_KEY_FILE": "/does/not/exist"}, r"/does/not/exist cannot be read: No such file"),
    ],
)
def test_identities_that_are_none(blind: SecretStore, environ: dict[str, str], message: str) -> None:
    with pytest.raises(SecretError, match=message) as caught:
        SecretStore(blind.root, environ).value("otp/alice")
    assert "hunter2" not in str(caught.value).replace("echo hunter2", "")


# ------------------------------------------------------------------------------------------------ writing


def test_nothing_is_overwritten_silently(store: SecretStore) -> None:
    store.set({"otp/alice": "one"})
    with pytest.raises(SecretError, match=r"otp/alice is there already\. To overwrite it, use --force"):
        store.set({"otp/bob": "x", "otp/alice": "two"})
    assert store.value("otp/alice") == "one"
    assert not store.has("otp/bob")
    store.set({"otp/alice": "two"}, force=True)
    assert store.value("otp/alice") == "two"


@pytest.mark.parametrize("damage", ["value", "order", "identity", "yaml"])
def test_a_file_that_cannot_be_verified_is_never_overwritten(store: SecretStore, home: Path, damage: str) -> None:
    store.set({"otp/alice": "one", "otp/bob": "two"})
    file = store.folder / "otp.sops.yaml"
    first, second, *rest = file.read_text().splitlines(keepends=True)
    match damage:
        case "value":
            file.write_text("".join([first.replace("alice", "carol"), second, *rest]))
        case "order":
            file.write_text("".join([second, first, *rest]))
        case "identity":
            (home / ".config/sops/age/keys.txt").write_text(f"{age.new_identity()[0]}\n")
        case "yaml":
            file.write_text("".join([first, second, "  x: [", *rest]))
    before = file.read_bytes()
    fresh = SecretStore(store.root)
    for change in (
        lambda: fresh.set({"otp/new": "x"}),
        lambda: fresh.replace(file, lambda opened: opened.rotated()),
        lambda: fresh.replace(file, lambda opened: opened.with_recipients([age.new_identity()[1]])),
    ):
        with pytest.raises((SecretError, InvalidInput)):
            change()
        assert file.read_bytes() == before
    assert [p.name for p in store.folder.iterdir()] == ["otp.sops.yaml"]


def test_a_full_disk_leaves_the_old_file(store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.set({"otp/alice": "one"})
    before = (store.folder / "otp.sops.yaml").read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SecretError, match=r"otp\.sops\.yaml cannot be written: No space left on device"):
            store.set({"otp/bob": "two"})
    assert (store.folder / "otp.sops.yaml").read_bytes() == before
    assert [p.name for p in store.folder.iterdir()] == ["otp.sops.yaml"]


def test_what_a_killed_writer_left_goes(store: SecretStore) -> None:
    (store.folder / ".otp.sops.yaml.0123456789ab").write_text("alice: ENC[")
    (store.folder / ".gitignore").write_text("")
    store.set({"otp/alice": "one"})
    assert sorted(p.name for p in store.folder.iterdir()) == [".gitignore", "otp.sops.yaml"]


def _write(root: Path, number: int) -> None:
    for turn in range(3):
        SecretStore(root).set({f"otp/{number}-{turn}": str(number)})


def test_many_programs_write_at_once(store: SecretStore) -> None:
    """None of their values is lost, and the file is whole."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(store.root, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [w.exitcode for w in writers] == [0] * 3
    fresh = SecretStore(store.root)
    assert {fresh.value(f"otp/{n}-{t}") for n in range(3) for t in range(3)} == {"0", "1", "2"}


# ------------------------------------------------------------------------------------------------ .sops.yaml


def test_new_files_follow_the_rule_above_them(store: SecretStore, me: tuple[str, str]) -> None:
    other = age.new_identity()[1]
    (store.root / ".sops.yaml").write_text(
        "creation_rules:\n"
        f"    - path_regex: secrets/shared\n      key_groups:\n        - age: [{me[1]}, {other}]\n"
        f"    - path_regex: secrets/manifests/\n      encrypted_regex: ^data$\n"
        f"      age: >-\n        {me[1]},\n        {other}\n"
        "    - path_regex: secrets/cloud\n      kms: arn:aws\n"
    )
    store.set({"shared/a": "x"})
    store.write(store.folder / "manifests/m.sops.yaml", store.new(store.folder / "manifests/m.sops.yaml", "data: {}\n"))
    store.set({"manifests/m/data/k": "y"})
    assert store.encrypted(store.folder / "shared.sops.yaml").recipients == [me[1], other]
    manifest = store.encrypted(store.folder / "manifests/m.sops.yaml")
    assert (manifest.recipients, manifest.rule.name) == ([me[1], other], "encrypted_regex")
    for reference, message in {
        "cloud/a": "would also be encrypted by kms, which only sops can do",
        "mine/a": "has no recipients: no .sops.yaml names any. Run `reconciler secrets init`",
        "manifests/other/kind": r"kind would not be encrypted \(encrypted_regex: \^data\$",
    }.items():
        with pytest.raises(SecretError, match=message):
            store.set({reference: "v"})
    assert sorted(store.references()) == ["manifests/m/data/k", "shared/a"]


def test_an_identity_among_the_recipients_is_named_and_not_shown(store: SecretStore, me: tuple[str, str]) -> None:
    (store.root / ".sops.yaml").write_text(f"creation_rules:\n- age: {me[0]}\n")
    with pytest.raises(SecretError, match="a recipient is a private identity") as caught:
        store.set({"otp/alice": "x"})
    assert me[0] not in str(caught.value)


def test_recipients_of_new_files_change_in_place(store: SecretStore, me: tuple[str, str]) -> None:
    found = rules.creation(store.folder / "x.sops.yaml")
    assert found
    text = rules.with_recipients(found, [me[1], "age1other"])
    assert text == rules.new_configuration(f"{me[1]},age1other").replace(f"{me[1]},age1other", f'"{me[1]},age1other"')
