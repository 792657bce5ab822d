"""What the docs say is true: their commands run, their code works, their links and options exist.

Conventions in docs/*.md:

- A fenced block whose language is followed by a path is a file of that name.
- A `console` block is run, in the page's own folder, after the files of the page were written. A line `$ command` is
  run by sh (with the lines that follow, while a quote is open); it must end with status 0, or with N where
  `# exit status N` follows. The lines below it must be in its output, in that order; `...` stands for anything.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer

from reconciler.cli.commands import known, load
from reconciler.cli.main import app
from reconciler.model import Kind, Secret, Spec
from reconciler.registry import Registry, default
from reconciler.render.reference import kinds_markdown
from tests.sqlreduce.server import binaries, running

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = [p for p in PAGES if p.name != "kinds.md"]
FENCE = re.compile(r"^```(\w*)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STATUS = re.compile(r"\s+# exit status (\d+)$")
BIN = str(Path(sys.executable).parent)


@dataclass(frozen=True)
class Command:
    """One `$` line of a page, and what must come of it."""

    line: int
    text: str
    status: int
    output: tuple[str, ...]


def files(page: Path) -> Iterator[tuple[str, str]]:
    """Name and content of each file that a page shows."""
    for _, name, content in FENCE.findall(page.read_text()):
        if name:
            yield name, content


def commands(page: Path) -> Iterator[Command]:
    """The commands of a page."""
    text = page.read_text()
    for block in FENCE.finditer(text):
        if block[1] != "console":
            continue
        line = text[: block.start()].count("\n") + 1
        found: list[tuple[int, str, list[str]]] = []
        for number, shown in enumerate(block[3].splitlines(), line + 1):
            if shown.startswith("$ "):
                found.append((number, shown[2:], []))
            elif found and found[-1][1].count("'") % 2:
                found[-1] = (found[-1][0], f"{found[-1][1]}\n{shown}", [])
            else:
                assert found, f"{page.name}:{number}: output without a command"
                found[-1][2].append(shown.strip())
        for number, shown, output in found:
            status = STATUS.search(shown)
            yield Command(number, STATUS.sub("", shown), int(status[1]) if status else 0, tuple(output))


def play(page: Path, folder: Path, **environ: str) -> None:
    """Write the files of a page, then run its commands."""
    for name, content in files(page):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RECONCILER_", "PYTEST_", "SSH_"))}
    clean |= {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
    } | environ
    for one in commands(page):
        done = subprocess.run(
            ["sh", "-c", one.text], cwd=folder, env=clean, capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
        output = (done.stdout + done.stderr).decode()
        place = f"{page.name}:{one.line}: $ {one.text}\n{output}"
        assert done.returncode == one.status, f"status {done.returncode}, not {one.status}: {place}"
        at = 0
        for wanted in (part.strip() for line in one.output for part in line.split("...")):
            found = output.find(wanted, at)
            assert found >= 0, f"not in the output: {wanted!r}\n{place}"
            at = found + len(wanted)


# ------------------------------------------------------------------------------------------------ pages that run


SPECIAL = ("adding-a-kind", "sqlreduce")


@pytest.mark.parametrize("page", [p for p in WRITTEN if p.stem not in SPECIAL], ids=lambda p: p.stem)
def test_commands_of_the_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    play(page, tmp_path)


@pytest.mark.skipif(binaries() is None, reason="no PostgreSQL server is installed")
def test_the_page_of_sqlreduce_does_what_it_says(tmp_path: Path) -> None:
    """On a PostgreSQL of our own, with the database that the page names."""
    with running() as server:
        with psycopg.connect(server.dsn("postgres", "postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
        place = {"PGHOST": str(server.directory), "PGPORT": str(server.port), "PGUSER": "postgres"}
        play(ROOT / "docs" / "sqlreduce.md", tmp_path, **place)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, for a page that adds to it."""
    copy = tmp_path_factory.mktemp("tree")
    unwanted = shutil.ignore_patterns("__pycache__")
    for folder in ("reconciler", "tests", "docs", "schemas", "desired-state"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, copy / folder, ignore=unwanted)
    for file in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / file, copy / file)
    return copy


def test_a_contributor_gets_from_nothing_to_a_working_type(tree: Path) -> None:
    """Every file and command of the page, in a copy of the tree, up to the contract tests of the new type."""
    play(ROOT / "docs" / "adding-a-kind.md", tree, PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1")


def test_the_same_files_work_as_a_plugin(tmp_path: Path) -> None:
    """As the page says: the same files in a package of one's own, announced by two entry points."""
    shown = dict(files(ROOT / "docs" / "adding-a-kind.md"))
    project = tomllib.loads(shown["plugin/pyproject.toml"])["project"]
    package = tmp_path / "site" / "acme_reconciler"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "module.py").write_text(shown["reconciler/types/host/module.py"])
    kind = shown["reconciler/kinds/kernel_module.py"]
    (package / "kernel_module.py").write_text(kind.replace("reconciler.types.host.module", "acme_reconciler.module"))
    # What pip would write from pyproject.toml.
    installed = package.parent / "acme_reconciler-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in entries.items())
        for group, entries in project["entry-points"].items()
    )
    (installed / "entry_points.txt").write_text(points)
    (tmp_path / "desired-state").mkdir()
    document = shown["playground/desired-state/web1.yaml"]
    (tmp_path / "desired-state" / "web1.yaml").write_text(document)
    for folder in ("modules-load.d", "modprobe.d"):
        (tmp_path / "web1" / "etc" / folder).mkdir(parents=True)
    environ = {**os.environ, "PYTHONPATH": str(package.parent), "PATH": f"{BIN}:{os.environ['PATH']}"}

    def reconciler(*argv: str) -> tuple[int, str]:
        done = subprocess.run(
            ["reconciler", *argv], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    assert "KernelModule" in reconciler("kinds")[1]
    assert reconciler("plan")[0] == 2
    status, output = reconciler("apply", "--yes")
    assert (status, "1 done" in output) == (0, True), output
    assert reconciler("plan")[0] == 0
    assert (tmp_path / "web1/etc/modules-load.d/nf_conntrack.conf").read_text() == "nf_conntrack\n"


# ------------------------------------------------------------------------------------------------ links


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.casefold()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "README.md"], ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: there is no {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {target.name} has no heading #{anchor}"


def test_every_page_can_be_reached() -> None:
    """From the README or another page."""
    text = "".join(p.read_text() for p in (*PAGES, ROOT / "README.md"))
    assert [p.name for p in PAGES if f"{p.name})" not in text and f"{p.name}#" not in text] == []


# ------------------------------------------------------------------------------------------------ the command line


@cache
def cli() -> Mapping[str, frozenset[str]]:
    """Every command, such as `lock ls`, with its options."""

    whole = typer.main.get_command(app)
    whole.commands.update((name, load(name)) for name in known())  # type: ignore[attr-defined]

    def walk(command: Any, name: str) -> Iterator[tuple[str, frozenset[str]]]:
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
        yield name, frozenset(options | {"--help", "-h"})
        for word, sub in getattr(command, "commands", {}).items():
            yield from walk(sub, f"{name} {word}".strip())

    return dict(walk(whole, ""))


def mentions(page: Path) -> Iterator[tuple[str, str]]:
    """Each command line of ours in a page (command, rest), and each option that stands alone ("", option)."""
    text = page.read_text()
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", text))
    lines = [c.text for c in commands(page)]
    for language, _, content in FENCE.findall(text):
        if language in ("sh", "yaml", "ini", "text"):
            lines += content.splitlines()
    for span in spans:
        # Tables of commands leave the name of the program out.
        words = span.split()
        yield from ((c, span) for c in (" ".join(words[:n]) for n in (3, 2)) if c in cli() and len(words) > 1)
    for span in [*spans, *lines]:
        for found in re.finditer(r"(?<![\w/.-])reconciler ([a-z][^|;&>#]*)", span):
            words = found[1].split()
            command = next((c for c in (" ".join(words[:n]) for n in (3, 2)) if c in cli()), words[0])
            yield command, found[1]
        if re.fullmatch(r"--?[a-z-]+( [A-Za-z./=_<>*-]+)?", span):
            yield "", span


@pytest.mark.parametrize("page", [*WRITTEN, ROOT / "README.md"], ids=lambda p: p.stem)
def test_commands_and_options_exist(page: Path) -> None:
    everything = frozenset().union(*cli().values())
    for command, text in mentions(page):
        assert command in cli(), f"{page.name}: there is no command `{text}`"
        known = cli()[command] if command else everything
        for option in re.findall(r"(?<!\S)(--?[a-zA-Z][a-z-]*)", text):
            assert option in known, f"{page.name}: `{command}` has no option {option}"


def test_every_command_is_documented() -> None:
    shown = {command for page in WRITTEN for command, _ in mentions(page)}
    groups = {c.rpartition(" ")[0] for c in cli()}
    assert sorted(c for c in cli() if c and c not in groups and c not in shown) == []


# ------------------------------------------------------------------------------------------------ generated, and events


def test_the_page_of_kinds_is_what_the_models_generate() -> None:
    """Run `reconciler kinds --output markdown > docs/kinds.md` after a change of a model."""
    assert (ROOT / "docs" / "kinds.md").read_text() == kinds_markdown(default())


def test_the_page_of_kinds_shows_every_field_of_every_kind() -> None:
    text = kinds_markdown(default())
    for kind in default().kinds.values():
        section = text.partition(f"\n### {kind.name}\n")[2].partition("\n### ")[0]
        assert kind.summary.split("`")[0] in section
        assert "```yaml\n" in section
        for name, field in kind.spec.model_fields.items():
            assert f"| `{field.alias or name}` |" in section, f"{kind.name}.{name}"
    for one in default().types.values():
        section = text.partition(f"\n### {one.name}\n")[2].partition("\n### ")[0]
        assert one.summary.split("`")[0] in section
        for alias in one.compared.values():
            assert f"| `{alias}` |" in section, f"{one.name}.{alias}"


class Inner(Spec):
    """A part."""

    token: Secret | None = None
    again: tuple[Inner, ...] = ()


class Outer(Spec):
    """A thing with <angles> and `<code>`.

    Example:

        kind: Thing
    """

    parts: dict[str, Inner]
    pipe: str = "a|b"


def test_nested_fields_are_shown_once_and_nothing_breaks_the_tables() -> None:
    text = kinds_markdown(Registry.of([Kind("Thing", Outer, lambda document, catalog: ())], []))
    assert "```yaml\nkind: Thing\n```" in text
    assert "A thing with &lt;angles> and `<code>`." in text
    assert "| `parts.*.token` | [secret](documents.md#secrets) |" in text
    assert text.count("again[]") == 0, "a model inside itself is not followed"
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


def emitted() -> Iterator[tuple[str, set[str]]]:
    """Every event in the code, with the names of its fields."""
    for file in (ROOT / "reconciler").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            called = ast.unparse(node.func)
            if called.endswith("emit") or called == "JsonLines()":
                yield str(node.args[0].value), {k.arg for k in node.keywords if k.arg}


def test_every_event_and_its_fields_are_documented() -> None:
    page = (ROOT / "docs" / "output.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", page, re.MULTILINE))
    found = dict(emitted())
    assert {"apply_started", "change_finished", "result"} <= found.keys()
    for event, fields in found.items():
        if event.startswith("probe_"):
            continue  # for the progress bar only; never written as JSON
        assert event in rows, f"docs/output.md does not list the event {event}"
        assert fields <= set(re.findall(r"`(\w+)`", rows[event])), event
