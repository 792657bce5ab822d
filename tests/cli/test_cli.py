"""What somebody at the command line gets."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import run
from reconciler.registry import default

HOST = """\
apiVersion: reconciler/v1
kind: Host
metadata: {{name: {name}, labels: {{role: web}}}}
spec: {{connection: image, root: {root}}}
---
"""
MOTD = """\
apiVersion: reconciler/v1
kind: File
metadata:
  name: motd
  labels: {team: ops}
spec:
  hosts: {matchLabels: {role: web}}
  path: /etc/motd
  content: |
    managed
"""


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A desired state for one offline host, in the current folder."""
    (tmp_path / "web1/etc").mkdir(parents=True)
    (tmp_path / "desired-state").mkdir()
    (tmp_path / "desired-state/all.yaml").write_text(HOST.format(name="web1", root=tmp_path / "web1") + MOTD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECONCILER_STATE", raising=False)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line; gives status, output and errors."""

    def call(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(argv)
        out, err = capsys.readouterr()
        return status, out, err

    return call


Cli = Callable[..., tuple[int, str, str]]


def test_the_whole_loop(repo: Path, cli: Cli) -> None:
    """validate, plan, apply, plan, tamper, drift, repair: with the exit statuses of the field."""
    assert cli("validate")[:2] == (0, "Valid: 2 documents, 1 object, 1 target.\n")
    status, out, _ = cli("plan")
    assert status == 2
    assert "+ host.file[web1:/etc/motd]" in out
    assert "> write /etc/motd" in out
    assert "Plan: 1 to create; 0 unchanged." in out
    assert not (repo / "web1/etc/motd").exists()
    assert cli("apply", "--yes")[0] == 0
    assert (repo / "web1/etc/motd").read_text() == "managed\n"
    assert cli("plan")[:2] == (0, "No changes. 1 object is as desired.\n")
    assert cli("drift")[:2] == (0, "No drift. 1 object is as desired.\n")
    (repo / "web1/etc/motd").write_text("by hand\n")
    status, out, _ = cli("drift")
    assert status == 2
    assert "~ host.file[web1:/etc/motd]  changed outside" in out
    assert "-by hand" in out
    assert (repo / "web1/etc/motd").read_text() == "by hand\n", "drift changes nothing"
    assert cli("apply", "--yes")[0] == 0
    assert cli("plan")[0] == 0


def test_a_plan_file_is_what_gets_applied(repo: Path, cli: Cli) -> None:
    assert cli("plan", "-o", "plan.json")[0] == 2
    assert (repo / "plan.json").stat().st_mode & 0o777 == 0o600
    (repo / "desired-state/all.yaml").write_text("nonsense: [")
    status, out, _ = cli("apply", "plan.json", "--yes")
    assert (status, (repo / "web1/etc/motd").read_text()) == (0, "managed\n")
    assert "✓ host.file[web1:/etc/motd] done" in out
    status, out, _ = cli("show", "plan.json")
    assert "+ host.file[web1:/etc/motd]" in out


def test_a_plan_file_without_changes_says_so(repo: Path, cli: Cli) -> None:
    (repo / "web1").rename(repo / "away")
    assert cli("plan", "-o", "plan.json")[0] == 1
    status, out, _ = cli("apply", "plan.json", "--yes")
    assert status == 1
    assert "web1: there is no folder" in out
    status, out, _ = cli("apply", "plan.json", "--yes", "--output", "json")
    assert (status, [json.loads(line)["event"] for line in out.splitlines()]) == (1, ["plan"])


def test_a_plan_printed_as_json_is_a_plan_file(repo: Path, cli: Cli) -> None:
    _, out, _ = cli("plan", "--output", "json")
    (repo / "p.json").write_text(out)
    assert cli("apply", "p.json", "--yes")[0] == 0


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("managed", "hacked!"), "The plan does not match its digest: it was edited."),
        (lambda text: text[:-40], "This is not a plan file, or it is cut off."),
        (lambda text: "", "This is not a plan file, or it is cut off."),
        (lambda text: "[" * 100_000, "This is not a plan file, or it is cut off."),
    ],
    ids=["edited", "cut off", "empty", "deep"],
)
def test_a_bad_plan_file_changes_nothing(repo: Path, cli: Cli, edit: Callable[[str], str], message: str) -> None:
    cli("plan", "-o", "plan.json")
    (repo / "plan.json").write_text(edit((repo / "plan.json").read_text()))
    status, _, err = cli("apply", "plan.json", "--yes")
    assert status == 1
    assert message in err
    assert not (repo / "web1/etc/motd").exists()


@pytest.mark.parametrize("option", [["--target", "web1"], ["--exclude", "web1"], ["--images", "x"], ["--force"]])
def test_a_plan_file_is_not_reshaped_by_options(repo: Path, cli: Cli, option: list[str]) -> None:
    """Whoever believes that only a part is applied, or that it is a rehearsal, must not change everything."""
    cli("plan", "-o", "plan.json")
    status, _, err = cli("apply", "plan.json", "--yes", *option)
    assert status == 1
    assert err == f"{option[0]} does not go with a plan file. Give it to `plan -o` instead.\n"
    assert not (repo / "web1/etc/motd").exists()


def test_nothing_is_applied_unasked(repo: Path, cli: Cli) -> None:
    """Without a terminal and without --yes."""
    status, _, err = cli("apply")
    assert status == 1
    assert "Nobody is here to confirm. Use --yes" in err
    assert not (repo / "web1/etc/motd").exists()


def test_all_problems_at_once(repo: Path, cli: Cli) -> None:
    (repo / "desired-state/bad.yaml").write_text(
        MOTD.replace("name: motd", "name: other").replace("hosts:", "hsots:") + "  mode: 0644\n---\nkind: Flie\n"
    )
    status, _, err = cli("validate")
    assert status == 1
    assert "desired-state/bad.yaml:7:3: File/other: spec.hsots is not known. Did you mean hosts?" in err
    assert 'desired-state/bad.yaml:11:9: File/other: spec.mode is 644, not text. Quote it: "0644".' in err
    assert "desired-state/bad.yaml:13:7: Flie/?: there is no kind Flie. Did you mean File?" in err
    assert "4 problems. Nothing was changed." in err
    status, out, _ = cli("validate", "--output", "json")
    assert status == 1
    assert {"file": "desired-state/bad.yaml", "line": 7, "column": 3}.items() <= json.loads(out)["problems"][1].items()


@pytest.mark.parametrize(
    "argv",
    [
        ("validate",),
        ("plan",),
        ("drift",),
        ("history",),
        ("show",),
        ("inventory",),
        ("lock", "ls"),
        ("kinds",),
        ("explain", "File"),
        ("explain", "File.mode"),
        ("graph",),
    ],
    ids=" ".join,
)
def test_every_answer_can_be_json(repo: Path, cli: Cli, argv: tuple[str, ...]) -> None:
    cli("apply", "--yes")
    status, out, err = cli(*argv, "--output", "json")
    assert status == 0, err
    assert isinstance(json.loads(out), dict | list)


def test_apply_as_json_is_a_stream_of_versioned_events(repo: Path, cli: Cli) -> None:
    status, out, _ = cli("apply", "--yes", "--output", "json")
    events = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert all(e["version"] == 1 and e["at"] for e in events)
    names = [e["event"] for e in events]
    assert names == [
        "plan",
        "apply_started",
        "change_started",
        "step_finished",
        "change_finished",
        "apply_finished",
        "result",
    ]
    assert events[-1]["changes"] == [{"address": "host.file[web1:/etc/motd]", "outcome": "done", "reason": ""}]


def test_findings_after_an_apply_are_those_of_the_plan(repo: Path, cli: Cli) -> None:
    """The same words in the same order, whether their host was looked at again or not."""
    forbidden = "apiVersion: reconciler/v1\nkind: ForbiddenSoftware\nmetadata: {name: no-tmate}\nspec:\n"
    forbidden += (
        "  hosts: {matchLabels: {role: web}}\n  software: [{name: tmate, reason: old, binaries: [/usr/bin/tmate]}]\n"
    )
    (repo / "desired-state/b.yaml").write_text(HOST.format(name="web0", root=repo / "web0") + forbidden)
    for host in ("web0", "web1"):
        (repo / host / "usr/bin").mkdir(parents=True)
        (repo / host / "usr/bin/tmate").write_text("")
        (repo / host / "etc").mkdir(exist_ok=True)
    (repo / "web0/etc/motd").write_text("managed\n")
    planned = json.loads(cli("plan", "--output", "json")[1])["findings"]
    assert [f["address"].partition("[")[2].partition(":")[0] for f in planned] == ["web0", "web1"]
    result = json.loads(cli("apply", "--yes", "--output", "json")[1].splitlines()[-1])
    assert [c["address"] for c in result["changes"]] == ["host.file[web1:/etc/motd]"], "nothing happens on web0"
    assert result["findings"] == planned


def test_kinds_for_programs(cli: Cli) -> None:
    found = json.loads(cli("kinds", "--output", "json")[1])
    assert {k["kind"] for k in found} == set(default().kinds)
    assert all(k["summary"] for k in found)


@pytest.mark.parametrize("kind", sorted(default().kinds))
def test_explain_teaches_every_kind(cli: Cli, kind: str) -> None:
    status, out, _ = cli("explain", kind)
    assert status == 0
    assert f"kind: {kind}" in out, "the example"
    assert "Fields of spec" in out
    assert cli("explain", kind.lower())[1] == out


def test_explain_helps_with_typos(cli: Cli) -> None:
    assert cli("explain", "Fiel")[0::2] == (1, "there is no kind Fiel. Did you mean File?\n")
    assert cli("explain", "File.mod")[0::2] == (1, "File has no field mod. Did you mean mode?\n")


def test_graph_in_every_notation(repo: Path, cli: Cli) -> None:
    second = MOTD.replace("name: motd", "name: note").replace("/etc/motd", "/etc/note")
    (repo / "desired-state/b.yaml").write_text(second + "lifecycle: {requires: [File/motd]}\n")
    assert cli("graph")[1] == "File/motd\nFile/note\n    after File/motd\n"
    assert '    "File/motd" -> "File/note";' in cli("graph", "--output", "dot")[1]
    assert "n0 --> n1" in cli("graph", "--output", "mermaid")[1]
    assert "host.file[web1:/etc/note]\n    after File/motd@web1\n" in cli("graph", "--resources")[1]


def test_scope(repo: Path, cli: Cli) -> None:
    (repo / "desired-state/b.yaml").write_text(
        MOTD.replace("name: motd", "name: note").replace("/etc/motd", "/etc/note").replace("team: ops", "team: db")
    )
    for term in ("File/note", "name=note", "team=db", "host.file?web1:/etc/note?"):
        out = cli("plan", "--target", term)[1]
        assert "/etc/note" in out, term
        assert "/etc/motd" not in out, term
    assert "/etc/note" not in cli("plan", "--exclude", "team=db")[1]
    status, _, err = cli("plan", "--target", "nmae=note")
    assert status == 1
    assert "Nothing matches nmae=note." in err


def test_rehearse_on_images(repo: Path, cli: Cli) -> None:
    """--images leaves the described hosts alone."""
    (repo / "images/web1/etc").mkdir(parents=True)
    assert cli("apply", "--yes", "--images", "images", "--state", "other")[0] == 0
    assert (repo / "images/web1/etc/motd").exists()
    assert not (repo / "web1/etc/motd").exists()
    assert not (repo / ".reconciler").exists()


def test_a_missing_target_is_unknown_and_the_rest_goes_on(repo: Path, cli: Cli) -> None:
    (repo / "desired-state/c.yaml").write_text(HOST.format(name="web2", root=repo / "nowhere"))
    status, out, _ = cli("plan")
    assert status == 2
    assert f"web2: there is no folder {repo / 'nowhere'}." in out
    assert "+ host.file[web1:/etc/motd]" in out
    status, out, _ = cli("apply", "--yes")
    assert status == 1, "not everything could be seen"
    assert (repo / "web1/etc/motd").exists()


def test_wrong_usage_is_an_error_not_a_change(cli: Cli) -> None:
    """Exit status 2 means changes, so a typing mistake must not end with it."""
    status, _, err = cli("plan", "--no-such-option")
    assert status == 1
    assert "No such option" in err
    assert cli("no-such-command")[0] == 1


def test_wrong_usage_is_json_where_json_is_asked_for(cli: Cli) -> None:
    status, out, err = cli("plan", "--output", "json", "--traget", "x")
    assert (status, err) == (1, "")
    (problem,) = json.loads(out)["problems"]
    assert problem["message"].startswith("No such option: --traget")
    assert json.loads(cli("explain", "Fiel", "--output=JSON")[1])["event"] == "error"
    assert cli("explain", "json")[1] == "", "a word like any other"
    assert "Value error" not in cli("plan", "--output", "jsn")[2]


def test_what_may_not_be_read_is_an_error_without_a_traceback(
    repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists, is_file = Path.exists, Path.is_file

    def allowed(path: Path) -> Path:
        if "closed" in path.parts or path.name == "state.db":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return path

    monkeypatch.setattr(Path, "exists", lambda path: exists(allowed(path)))
    monkeypatch.setattr(Path, "is_file", lambda path: is_file(allowed(path)))
    assert cli("validate", "closed/x")[::2] == (1, "closed/x: Permission denied.\n")
    status, out, _ = cli("validate", "closed/x", "--output", "json")
    assert (status, json.loads(out)["problems"]) == (1, [{"message": "closed/x: Permission denied."}])
    status, _, err = cli("plan")
    assert (status, err) == (1, f"the state folder {repo}/.reconciler cannot be read: Permission denied.\n")


def test_text_from_a_host_cannot_steer_the_terminal(repo: Path, cli: Cli) -> None:
    (repo / "web1/etc/motd").write_text("\x1b]0;owned\x07\x1b[31m::set-output name=x::y [bold]markup[/bold]\n")
    out = cli("plan")[1]
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]markup[/bold]" in out


def _program(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reconciler.cli.main", *argv],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
    )


def test_colours_follow_no_color(repo: Path) -> None:
    assert "\x1b[" in _program("plan", FORCE_COLOR="1", TERM="xterm-256color").stdout
    coloured = _program("plan", FORCE_COLOR="1", NO_COLOR="1", TERM="xterm-256color").stdout
    assert not any(code in coloured for code in ("\x1b[3", "\x1b[1;3", "\x1b[9"))


def test_completion_script() -> None:
    done = _program("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_RECONCILER_COMPLETE" in done.stdout


def _imported(*argv: str) -> set[str]:
    code = f"import sys; from reconciler.cli.main import run; run({list(argv)!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


def test_help_loads_nothing_heavy() -> None:
    """`--help` answers at once because it imports the command line alone."""
    heavy = {"pydantic", "rich", "ruamel", "jsonschema", "paramiko", "deepdiff", "kubernetes", "proxmoxer", "psycopg"}
    assert not _imported("--help") & heavy


def test_validate_loads_no_sdk(repo: Path) -> None:
    """Not with a thousand documents either."""
    one = MOTD.replace("{matchLabels: {role: web}}", "[web1]")
    many = "---\n".join(one.replace("motd", f"motd-{i}") for i in range(1000))
    (repo / "desired-state/many.yaml").write_text(many)
    sdks = {"paramiko", "kubernetes", "proxmoxer", "psycopg", "pglast", "deepdiff", "cryptography"}
    assert not _imported("validate") & sdks


def test_locks(repo: Path, cli: Cli) -> None:
    from reconciler.lease import Leases
    from reconciler.store import Store

    leases = Leases(Store(repo / ".reconciler"), "20260101-000000-abcd")
    leases.take(["web1"])
    try:
        assert "web1  held by" in cli("lock", "ls")[1]
        status, _, err = cli("apply", "--yes")
        assert status == 1
        assert "web1 is locked by run 20260101-000000-abcd" in err
        assert "reconciler lock break web1" in err
        assert "is broken" in cli("lock", "break", "web1")[1]
        assert cli("apply", "--yes")[0] == 0
    finally:
        leases.free()
    assert cli("lock", "ls")[1] == "No locks.\n"
    assert cli("lock", "break", "web1")[0] == 1


def test_history_and_show(repo: Path, cli: Cli) -> None:
    assert cli("history")[1] == "No runs yet.\n"
    cli("apply", "--yes")
    (run_line,) = cli("history")[1].splitlines()
    assert "apply    done       1 done" in run_line
    run_id = run_line.split()[0]
    out = cli("show", run_id[:15])[1]
    assert "✓ host.file[web1:/etc/motd] done" in out
    assert cli("show", "1999")[0::2] == (1, "There is no run 1999. `reconciler history` lists them.\n")
    assert "host.file[web1:/etc/motd]  File/motd  created" in cli("inventory")[1]


def test_secrets_stay_out_of_sight(repo: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo / "desired-state/all.yaml").write_text(
        HOST.format(name="web1", root=repo / "web1")
        + MOTD.split("  content:", maxsplit=1)[0]
        + "  content: {secretRef: env:MOTD_SECRET}\n"
    )
    monkeypatch.delenv("MOTD_SECRET", raising=False)
    status, out, _ = cli("plan")
    assert status == 1, "without its secret an object cannot be compared"
    assert "the secret env:MOTD_SECRET is not there. Set the environment variable MOTD_SECRET." in out
    assert "No changes in what could be seen." in out
    monkeypatch.setenv("MOTD_SECRET", "correct horse battery staple")
    texts: list[Any] = [cli("plan"), cli("plan", "--output", "json"), cli("apply", "--yes"), cli("show")]
    assert (repo / "web1/etc/motd").read_text() == "correct horse battery staple"
    assert "correct horse" not in repr(texts)
    assert cli("plan")[0] == 0
    monkeypatch.setenv("MOTD_SECRET", "another")
    assert "content: (secret " in cli("plan")[1]
