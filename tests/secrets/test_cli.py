"""`reconciler secrets`, as somebody at the command line gets it."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from reconciler.secret_store import SecretStore
from reconciler.sops import age
from reconciler.tools.editing import in_memory
from tests.secrets.conftest import Cli

DOCUMENTS = """\
apiVersion: reconciler/v1
kind: Host
metadata: {name: web1}
spec: {connection: image, root: ../images/web1}
---
apiVersion: reconciler/v1
kind: File
metadata: {name: token}
spec:
  hosts: [web1]
  path: /etc/token
  content: {secretRef: web/token}
---
apiVersion: reconciler/v1
kind: File
metadata: {name: totp}
spec:
  hosts: [web1]
  path: /etc/totp
  content: {secretRef: totp/alice, generate: base32}
---
apiVersion: reconciler/v1
kind: File
metadata: {name: motd}
spec:
  hosts: [web1]
  path: /etc/motd
  content: hello
"""


@pytest.fixture
def repo(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git repository with documents that want secrets, and nothing else."""
    folder = tmp_path / "repo"
    (folder / "desired-state").mkdir(parents=True)
    (folder / "desired-state/all.yaml").write_text(DOCUMENTS)
    (folder / "images/web1/etc").mkdir(parents=True)
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RECONCILER_STATE", raising=False)
    return folder


def feed(monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    raw = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


def typed(argv: Sequence[str], *answers: str) -> tuple[int, str]:
    """Run a command on a terminal, answer its questions; gives status and what the terminal showed."""
    main, other = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "reconciler.cli.main", *argv],
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
    )
    os.close(other)
    left, shown = list(answers), b""
    try:
        while select.select([main], [], [], 30)[0] and (chunk := os.read(main, 4096)):
            shown += chunk
            if left and shown.endswith(b": "):
                os.write(main, f"{left.pop(0)}\n".encode())
    except OSError:
        pass  # the terminal is closed when the program is gone
    finally:
        os.close(main)
        done.kill()
    return done.wait(), shown.decode()


def test_from_nothing_to_applied(repo: Path, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of docs/secrets.md."""
    status, _, err = cli("validate")
    assert status == 1
    assert "File/token: the secret web/token is not there" in err
    assert "totp/alice" not in err
    assert cli("secrets", "init")[0] == 0
    key = home / ".config/sops/age/keys.txt"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().splitlines()[-1].startswith("AGE-SECRET-KEY-1")
    assert stat.S_IMODE((home / ".config/sops/age").stat().st_mode) == 0o700
    feed(monkeypatch, "hunter22\n")
    assert cli("secrets", "set", "web/token") == (
        0,
        "web/token is written to desired-state/secrets/web.sops.yaml.\n",
        "",
    )
    assert cli("validate")[0] == 0
    status, out, _ = cli("plan")
    assert status == 2
    assert "the secret totp/alice is not there" in out
    assert "2 to create" in out
    assert "1 unknown" in out
    assert cli("secrets", "generate")[1].splitlines()[0] == "totp/alice: base32"
    assert cli("secrets", "generate")[1] == "Nothing was missing.\n"
    status, out, _ = cli("apply", "--yes")
    assert status == 0
    assert (repo / "images/web1/etc/token").read_text() == "hunter22"
    totp = (repo / "images/web1/etc/totp").read_text()
    assert len(totp) == 32
    everything = out + "".join(p.read_text(errors="replace") for p in (repo / ".reconciler").iterdir() if p.is_file())
    assert "hunter22" not in everything
    assert totp not in everything
    assert cli("plan")[0] == 0


def test_without_an_identity_only_what_needs_it_is_unknown(
    repo: Path, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("secrets", "init")
    feed(monkeypatch, "hunter22")
    cli("secrets", "set", "web/token")
    (home / ".config/sops/age/keys.txt").unlink()
    assert cli("validate")[0] == 0
    assert cli("secrets", "list")[0] == 0
    status, out, _ = cli("plan")
    assert status == 2
    assert "1 to create" in out
    assert "2 unknown" in out
    assert "there is no age identity here. Set SOPS_AGE_KEY_FILE" in out


def test_init_never_writes_an_identity_into_the_repo(repo: Path, cli: Cli) -> None:
    status, _, err = cli("secrets", "init", "--identity", str(repo / "key.txt"))
    assert (status, "is inside the repository, where an identity must never be" in err) == (1, True)
    assert not (repo / "key.txt").exists()
    assert not (repo / "desired-state/.sops.yaml").exists()


def test_init_keeps_what_is_there(repo: Path, home: Path, cli: Cli, tmp_path: Path) -> None:
    cli("secrets", "init")
    key, config = home / ".config/sops/age/keys.txt", repo / "desired-state/.sops.yaml"
    before = (key.read_bytes(), config.read_bytes())
    status, out, _ = cli("secrets", "init")
    assert (status, (key.read_bytes(), config.read_bytes())) == (0, before)
    assert "Your identity" not in out
    status, out, _ = cli("secrets", "init", "--identity", str(tmp_path / "second.txt"))
    assert "You are none of them. Ask one of them to run: reconciler secrets recipients add age1" in out
    assert config.read_bytes() == before[1]


def test_a_value_is_never_an_argument(repo: Path, cli: Cli) -> None:
    status, _, err = cli("secrets", "set", "web/token", "hunter22")
    assert status == 1
    assert "unexpected extra argument" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [("", "the value is empty"), ("\n", "the value is empty"), (b"\xff\xfe", "is not UTF-8 text")],
)
def test_values_that_make_no_sense(
    repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, given: str | bytes, message: str
) -> None:
    cli("secrets", "init")
    feed(monkeypatch, given)
    status, _, err = cli("secrets", "set", "web/token")
    assert (status, message in err) == (1, True)
    assert not (repo / "desired-state/secrets/web.sops.yaml").exists()


@pytest.mark.parametrize("reference", ["token", "env:X", "a/../b", "command:id"])
def test_what_is_no_secret_of_the_store(repo: Path, cli: Cli, reference: str) -> None:
    for command in ("set", "get"):
        status, _, err = cli("secrets", command, reference)
        assert (status, "names no secret of the store. Write path/key" in err) == (1, True)


def test_set_and_get_keep_every_byte(repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("secrets", "init")
    value = "  two\nlines\twith 'quotes' \\ and ü\n\n"
    feed(monkeypatch, value + "\n")
    cli("secrets", "set", "web/odd")
    assert cli("secrets", "get", "web/odd") == (0, value, "")
    assert json.loads(cli("secrets", "get", "web/odd", "--output", "json")[1])["value"] == value


def test_on_a_terminal(repo: Path, cli: Cli) -> None:
    """The value is asked for twice and not echoed, and shown only if somebody insists."""
    cli("secrets", "init")
    status, shown = typed(["secrets", "set", "web/token"], "hunter22", "hunter22")
    assert status == 0, shown
    assert "hunter22" not in shown
    assert SecretStore(repo / "desired-state").value("web/token") == "hunter22"
    status, shown = typed(["secrets", "get", "web/token"])
    assert (status, "use --show" in shown, "hunter22" in shown) == (1, True, False)
    status, shown = typed(["secrets", "get", "web/token", "--show"])
    assert (status, shown.strip()) == (0, "hunter22")


# ------------------------------------------------------------------------------------------------ edit


def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """An editor that leaves what it saw, and where."""
    program = tmp_path / "editor"
    program.write_text(
        f'#!/bin/sh\nseen={tmp_path}/seen\nprintf %s "$1" >$seen.path\ncp "$1" $seen\n'
        'stat -c "%a %u" "$1" >$seen.mode\n'
        f'cp "$1" "$1~"\n{script}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(program))
    return tmp_path / "seen"


def drafts() -> set[Path]:
    return set((in_memory() or Path("/tmp")).glob("reconciler-*"))


def test_edit(repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cli("secrets", "init")
    for key in ("one", "two"):
        feed(monkeypatch, f"value-{key}")
        cli("secrets", "set", f"web/{key}")
    file = repo / "desired-state/secrets/web.sops.yaml"
    before, left = file.read_text(), drafts()
    seen = editor(tmp_path, monkeypatch, 'sed -i "s/value-two/value-new/" "$1"; echo "# new comment" >>"$1"')
    assert cli("secrets", "edit", "web") == (0, "desired-state/secrets/web.sops.yaml is written.\n", "")
    assert seen.read_text() == "one: value-one\ntwo: value-two\n"
    assert (tmp_path / "seen.mode").read_text().startswith("600 ")
    edited = Path((tmp_path / "seen.path").read_text())
    assert in_memory() is None or edited.is_relative_to(in_memory() or "")
    assert not edited.parent.exists()
    assert drafts() == left
    after = file.read_text()
    assert after.splitlines()[0] == before.splitlines()[0], "the value that was not touched kept its ciphertext"
    assert "value-new" not in after
    assert "new comment" not in after
    assert SecretStore(repo / "desired-state").value("web/two") == "value-new"
    editor(tmp_path, monkeypatch, ":")
    assert cli("secrets", "edit", "web") == (0, "Nothing was changed.\n", "")
    assert file.read_text() == after


def test_an_edit_that_is_no_yaml_loses_nothing(
    repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cli("secrets", "init")
    feed(monkeypatch, "value-one")
    cli("secrets", "set", "web/one")
    file = repo / "desired-state/secrets/web.sops.yaml"
    before, left = file.read_text(), drafts()
    editor(tmp_path, monkeypatch, 'echo "two: [value-two" >>"$1"')
    status, _, err = cli("secrets", "edit", "web")
    assert status == 1
    assert "web.sops.yaml:3:1: is not YAML" in err
    assert "value-" not in err
    (kept,) = drafts() - left
    assert f"go on with `--draft {kept}/web.yaml`" in " ".join(err.split())
    assert (kept / "web.yaml").read_text() == "one: value-one\ntwo: [value-two\n"
    assert file.read_text() == before
    editor(tmp_path, monkeypatch, 'sed -i "s/.value-two/value-two/" "$1"')
    assert cli("secrets", "edit", "web", "--draft", str(kept / "web.yaml"))[0] == 0
    assert SecretStore(repo / "desired-state").value("web/two") == "value-two"
    assert drafts() == left


@pytest.mark.parametrize(("script", "message"), [("exit 3", "ended with exit status 3"), ("kill $PPID; sleep 1", "")])
def test_an_editor_that_fails_leaves_nothing(
    repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, message: str
) -> None:
    cli("secrets", "init")
    feed(monkeypatch, "value-one")
    cli("secrets", "set", "web/one")
    before, left = (repo / "desired-state/secrets/web.sops.yaml").read_text(), drafts()
    editor(tmp_path, monkeypatch, f'echo "two: x" >>"$1"; {script}')
    done = subprocess.run(
        [sys.executable, "-m", "reconciler.cli.main", "secrets", "edit", "web"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (1, 130)
    assert message in done.stderr
    assert (repo / "desired-state/secrets/web.sops.yaml").read_text() == before
    assert drafts() == left


def test_an_edit_does_not_undo_what_somebody_else_wrote(
    repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cli("secrets", "init")
    feed(monkeypatch, "value-one")
    cli("secrets", "set", "web/one")
    left = drafts()
    other = f"printf other | {sys.executable} -m reconciler.cli.main secrets set web/other"
    editor(tmp_path, monkeypatch, f'echo "two: x" >>"$1"; {other}')
    status, _, err = cli("secrets", "edit", "web")
    assert (status, "was changed by somebody else meanwhile" in err) == (1, True)
    assert sorted(SecretStore(repo / "desired-state").references()) == ["web/one", "web/other"]
    for kept in drafts() - left:
        for file in kept.iterdir():
            file.unlink()
        kept.rmdir()


def test_edit_makes_a_new_file(repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cli("secrets", "init")
    editor(tmp_path, monkeypatch, 'printf "a:\\n  b: deep\\n" >"$1"')
    assert cli("secrets", "edit", "new")[0] == 0
    assert SecretStore(repo / "desired-state").value("new/a/b") == "deep"
    editor(tmp_path, monkeypatch, ":")
    assert cli("secrets", "edit", "other")[1] == "Nothing was changed.\n"
    assert not (repo / "desired-state/secrets/other.sops.yaml").exists()


# ------------------------------------------------------------------------------------------------ the rest


def test_list(repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("secrets", "init")
    feed(monkeypatch, "hunter22")
    cli("secrets", "set", "web/spare")
    _, out, _ = cli("secrets", "list", "--output", "json")
    assert json.loads(out) == {
        "version": 1,
        "secrets": [
            {"secret": "totp/alice", "state": "to be generated", "usedBy": ["File/totp"]},
            {"secret": "web/spare", "state": "stored", "usedBy": []},
            {"secret": "web/token", "state": "missing", "usedBy": ["File/token"]},
        ],
    }
    assert "web/spare   stored           used by nobody" in cli("secrets", "list")[1]


def test_generate_makes_anew_only_what_is_named(repo: Path, cli: Cli) -> None:
    cli("secrets", "init")
    cli("secrets", "generate")
    first = cli("secrets", "get", "totp/alice")[1]
    assert cli("secrets", "generate", "--force")[0] == 1
    assert cli("secrets", "generate", "totp/alcie")[2].startswith(
        "no document asks to generate totp/alcie. Did you mean totp/alice?"
    )
    assert json.loads(cli("secrets", "generate", "totp/alice", "--force", "--output", "json")[1])["generated"] == [
        {"secret": "totp/alice", "form": "base32"}
    ]
    assert cli("secrets", "get", "totp/alice")[1] != first


def test_recipients(repo: Path, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("secrets", "init")
    for name in ("web/token", "db/password"):
        feed(monkeypatch, "hunter22")
        cli("secrets", "set", name)
    mine = json.loads(cli("secrets", "recipients", "list", "--output", "json")[1])["newFiles"][0]
    private, public = age.new_identity()
    files = sorted((repo / "desired-state/secrets").iterdir())
    before = [f.read_text().split("sops:")[0] for f in files]
    status, out, _ = cli("secrets", "recipients", "add", public)
    assert (status, f"New files: {mine}, {public}" in out) == (0, True)
    assert [f.read_text().split("sops:")[0] for f in files] == before
    other = SecretStore(repo / "desired-state", {"SOPS_AGE_KEY": private})
    assert other.value("web/token") == "hunter22"
    assert cli("secrets", "rotate", "web")[1].startswith(
        f"desired-state/secrets/web.sops.yaml: new data key for {mine}, {public}"
    )
    assert SecretStore(repo / "desired-state", {"SOPS_AGE_KEY": private}).value("web/token") == "hunter22"
    status, out, _ = cli("secrets", "recipients", "remove", public)
    assert status == 0
    assert "Git's history" in out
    for reference in ("web/token", "db/password"):
        assert cli("secrets", "get", reference)[1] == "hunter22"
        with pytest.raises(Exception, match="no identity of yours"):
            SecretStore(repo / "desired-state", {"SOPS_AGE_KEY": private}).value(reference)
    assert json.loads(cli("secrets", "recipients", "list", "--output", "json")[1])["newFiles"] == [mine]
    assert "is no recipient" in cli("secrets", "recipients", "remove", public)[2]
    assert "is the last recipient" in cli("secrets", "recipients", "remove", mine)[2]
    cli("secrets", "recipients", "add", public)
    assert "you could not read" in cli("secrets", "recipients", "remove", mine)[2]
    assert "no recipient that we can encrypt for" in cli("secrets", "recipients", "add", "age1nonsense")[2]
    assert "is a private identity" in cli("secrets", "recipients", "add", private)[2]
    assert private not in cli("secrets", "recipients", "add", private)[2]


def test_who_is_added_while_another_is_removed_stays(repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("secrets", "init")
    feed(monkeypatch, "hunter22")
    cli("secrets", "set", "web/token")
    leaves, (private, comes) = age.new_identity()[1], age.new_identity()
    cli("secrets", "recipients", "add", leaves)
    replace = SecretStore.replace

    def slow(store: SecretStore, *arguments: Any) -> bool:
        replace(SecretStore(store.root), arguments[0], lambda opened: opened.with_recipients([comes]))
        return replace(store, *arguments)

    monkeypatch.setattr(SecretStore, "replace", slow)
    assert cli("secrets", "recipients", "remove", leaves, "web")[0] == 0
    assert SecretStore(repo / "desired-state", {"SOPS_AGE_KEY": private}).value("web/token") == "hunter22"


def test_recipients_of_ssh_are_known_with_and_without_their_comment(
    repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """sops writes them into files as they stand in .sops.yaml, often with the comment."""
    cli("secrets", "init")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice@desk", "-f", tmp_path / "k"], check=True
    )
    public = (tmp_path / "k.pub").read_text().strip()
    assert public.endswith(" alice@desk")
    config = repo / "desired-state/.sops.yaml"
    config.write_text(f"{config.read_text().rstrip()},{public}\n")
    feed(monkeypatch, "hunter22")
    cli("secrets", "set", "web/token")
    file = repo / "desired-state/secrets/web.sops.yaml"
    before = (file.read_bytes(), config.read_bytes())
    assert "alice@desk" in file.read_text()
    status, out, _ = cli("secrets", "recipients", "add", public)
    assert (status, out) == (0, "No file was changed.\n")
    assert (file.read_bytes(), config.read_bytes()) == before
    assert cli("secrets", "recipients", "remove", public)[0] == 0
    assert "ssh-ed25519" not in file.read_text() + config.read_text()


def test_an_identity_is_made_whole_or_not(repo: Path, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of one would keep the next `init` from making another."""

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        status, _, err = cli("secrets", "init")
    assert (status, "keys.txt cannot be written: No space left on device" in err) == (1, True)
    assert list((home / ".config/sops/age").iterdir()) == []
    assert not (repo / "desired-state/.sops.yaml").exists()
    assert cli("secrets", "init")[0] == 0
    assert stat.S_IMODE((home / ".config/sops/age/keys.txt").stat().st_mode) == 0o600


def test_a_tampered_store_is_told_with_file_and_key(repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("secrets", "init")
    for key in ("token", "other"):
        feed(monkeypatch, f"hunter22-{key}")
        cli("secrets", "set", f"web/{key}")
    file = repo / "desired-state/secrets/web.sops.yaml"
    first, _, rest = file.read_text().split("\n", 2)
    file.write_text("\n".join([first, f"other:{first.partition(':')[2]}", rest]))
    status, out, _ = cli("plan")
    assert status == 2
    assert "desired-state/secrets/web.sops.yaml:2:1: other was changed, or was moved here from another key" in out
    before = file.read_text()
    for command in (["set", "web/new"], ["rotate"], ["recipients", "add", age.new_identity()[1]]):
        feed(monkeypatch, "x")
        assert cli("secrets", *command)[0] == 1
        assert file.read_text() == before


def test_validate_runs_no_command_and_reads_no_file(repo: Path, cli: Cli, tmp_path: Path) -> None:
    """What a stranger's documents name is run by `plan`, and not before."""
    marker = tmp_path / "marker"
    documents = repo / "desired-state/all.yaml"
    documents.write_text(DOCUMENTS.replace("secretRef: web/token", f'secretRef: "command:tee {marker}"'))
    for command in (["validate"], ["graph"], ["secrets", "list"]):
        assert cli(*command)[0] == 0
        assert not marker.exists()
    cli("plan")
    assert marker.exists()


def test_validate_and_help_need_no_library() -> None:
    """They start fast, and work where pyrage is not installed."""
    code = (
        "import sys; sys.modules['pyrage'] = None\n"
        "from reconciler.cli.main import run\n"
        "status = run(['secrets', '--help']) + run(['validate', sys.argv[1]])\n"
        "print([m for m in ('cryptography', 'paramiko', 'pyrage') if sys.modules.get(m)])\n"
        "sys.exit(status)"
    )
    sample = Path(__file__).parents[2] / "desired-state"
    done = subprocess.run([sys.executable, "-c", code, str(sample)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_the_library_the_error_says_what_to_install(repo: Path) -> None:
    code = (
        "import sys; sys.modules['pyrage'] = None\n"
        "from reconciler.cli.main import run\n"
        "sys.exit(run(['secrets', 'init']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "pip install 'reconciler[secrets]'" in done.stderr) == (1, True)
