"""A command costs its own module, and what the help says of commands is what their modules say."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from reconciler import cli
from reconciler.cli.commands import Named, known, load, named
from reconciler.cli.main import run
from reconciler.lease import Leases
from reconciler.store import Store
from tests.bench.start import PROGRAM, cpu

MODULE = '''\
"""Commands of a test."""

app = typer.Typer()
many = typer.Typer(
    help="Several words "
    "in \\"two\\" lines.",
    no_args_is_help=True,
)
app.add_typer(many, name="several")


@app.command()
def one_word(path: Path = HERE, output: Annotated[str, typer.Option(help="(x) -> None")] = "") -> None:
    """Does this. And that."""


def between() -> None:
    """Is none."""


@app.command("two")
def anything(
    path: Path = HERE,
) -> None:
    """Does two things.

    At length.
    """


@many.command()
def three() -> None:
    """Is inside."""
'''


def _whole() -> Any:
    """All commands as typer makes them when every module is imported."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    for found in sorted(pkgutil.iter_modules(cli.__path__), key=lambda m: m.name):
        module = importlib.import_module(f"reconciler.cli.{found.name}")
        if found.name != "main" and hasattr(module, "app"):
            app.add_typer(module.app)
    return typer.main.get_group(app)


def _tree(command: Any) -> Any:
    inside = {name: _tree(one) for name, one in getattr(command, "commands", {}).items()}
    return command.name, command.help, command.hidden, [(p.name, p.opts, p.help) for p in command.params], inside


def test_the_text_tells_what_typer_makes() -> None:
    """The names, the order, the help, and each command with all its options."""
    whole = _whole().commands
    assert [(n, one.help) for n, one in known().items()] == [(n, one.help) for n, one in whole.items()]
    assert [_tree(load(name)) for name in known()] == [_tree(one) for one in whole.values()]


def test_what_a_text_tells() -> None:
    assert list(named("test", MODULE)) == [
        Named("one-word", "test", "Does this. And that."),
        Named("two", "test", "Does two things.\n\nAt length."),
        Named("several", "test", 'Several words in "two" lines.'),
    ]
    assert list(named("test", "")) == []


def _modules(*argv: str) -> set[str]:
    """What a command has imported at its end."""
    code = f"import sys; from reconciler.cli.main import run; run({list(argv)!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("argv", "modules"),
    [
        (("--help",), set()),
        (("no-such-command",), set()),
        (("validate", "--help"), {"desired", "options"}),
        (("otp", "--help"), {"otp", "otp_keys", "options"}),
        (("sqlreduce", "--output", "json", "--dsn", "host=/nowhere", "SELECT 1"), {"sqlreduce", "options"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_only_the_module_of_a_command_is_imported(argv: tuple[str, ...], modules: set[str]) -> None:
    """And what typer checks values with only where there is something to check."""
    found = _modules(*argv)
    ours = {n.removeprefix("reconciler.cli.") for n in found if n.startswith("reconciler.cli.")}
    assert ours == {"main", "commands"} | modules
    assert not found & {"pydantic", "rich", "ruamel", "jsonschema", "reconciler.registry", "reconciler.model"}


@pytest.mark.parametrize("argv", [("--help",), ("plan", "--help"), ("sqlreduce", "--help")], ids=" ".join)
def test_help_takes_less_than_a_fifth_of_a_second(argv: tuple[str, ...]) -> None:
    """Of CPU, start of Python included; on a busy machine it may need more than one attempt."""
    assert any(cpu((*PROGRAM, *argv)) < 0.2 for _ in range(5))


def test_a_typing_error_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["valdiate"]) == 1
    assert "No such command 'valdiate'. Did you mean 'validate'?" in capsys.readouterr().err
    assert run(["otp", "veryfy"]) == 1
    assert "Did you mean 'verify'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("sn", ["snapshots"]),
        ("s", ["schema", "show", "secrets", "snapshots", "sqlreduce"]),
        ("otp k", ["keygen"]),
        ("explain ReplicationJ", ["ReplicationJob"]),
        ("plan --fo", ["--force"]),
        ("plan --output j", ["json"]),
    ],
)
def test_completion(words: str, wanted: list[str]) -> None:
    line = f"reconciler {words}"
    asked = {"_RECONCILER_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run(PROGRAM, capture_output=True, text=True, check=True, env={**os.environ, **asked})
    assert set(wanted) <= set(done.stdout.split())
    assert all(word.startswith(words.rsplit(maxsplit=1)[-1]) for word in done.stdout.split())


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("history", "--output", "xml"), "'xml' is not one of 'text', 'json'"),
        (("history", "--limit", "0"), "greater than or equal to 1"),
        (("history", "--limit", "some"), "integer"),
        (("history", "--limit"), "requires an argument"),
        (("explain",), "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_values_are_checked(argv: tuple[str, ...], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All but those that were not given, and those that are right as they are."""
    assert run(argv) == 1
    assert error in capsys.readouterr().err


def test_values_arrive_as_they_always_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given, by default (beside the desired state, even where there is none yet), and from the environment."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (tmp_path / ".reconciler").mkdir()
    (tmp_path / ".reconciler/state.db").write_text("of somebody else")
    assert run(["history"]) == 0
    assert capsys.readouterr().out == "No runs yet.\n"
    for word in ("json", "JSON"):
        assert run(["history", "--output", word]) == 0
        assert capsys.readouterr().out == '{"version": 1, "runs": []}\n'
    monkeypatch.setenv("RECONCILER_STATE", str(tmp_path / "elsewhere"))
    leases = Leases(Store(tmp_path / "elsewhere"), "20260101-000000-abcd")
    leases.take(["web1"])
    try:
        assert run(["lock", "ls"]) == 0
        assert "web1  held by" in capsys.readouterr().out
    finally:
        leases.free()
