"""Kinds and resource types are found by being there, and imported when they are asked for."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import reconciler.kinds
import reconciler.types
from reconciler import registry
from reconciler.errors import ContractError
from reconciler.registry import KINDS, TYPES, Installed, default

KIND = """\
from reconciler.kinds.file import KIND as file
from reconciler.model import Kind

KIND = Kind("{}", file.spec, file.expand)
"""
MADE = """\
from dataclasses import replace

from reconciler.kinds.file import KIND as file

KIND = replace(file, name="Ma" + "de")
"""
TYPE = """\
from typing import Any

from reconciler.model import ResourceType, Spec

TYPE: ResourceType[Any] = ResourceType(
    "test.nameless",
    Spec,
    lambda specs: iter(()),
    None,
)
"""
Tree = Callable[..., None]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    """Writes modules below `reconciler.kinds` and `reconciler.types`, which hold nothing else."""
    before = set(sys.modules)
    monkeypatch.setattr(reconciler.kinds, "__path__", [*reconciler.kinds.__path__, str(tmp_path / "kinds")])
    monkeypatch.setattr(reconciler.types, "__path__", [*reconciler.types.__path__, str(tmp_path / "types")])
    importlib.import_module("reconciler.kinds.file")

    def write(**files: str) -> None:
        for name, text in files.items():
            file = tmp_path / f"{name.replace('__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f'"""KIND and TYPE are words here."""\n\n{text}')
        importlib.invalidate_caches()

    (tmp_path / "kinds").mkdir()
    (tmp_path / "types").mkdir()
    yield write
    for name in set(sys.modules) - before:
        if name.startswith(("reconciler.kinds.test_", "reconciler.types.test_")):
            del sys.modules[name]


def _loaded(code: str) -> set[str]:
    """What of kinds and types a program has imported at its end."""
    code += "\nimport sys\nprint(*(n for n in sys.modules if n.startswith(('reconciler.kinds.', 'reconciler.types.'))))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_names_cost_no_import() -> None:
    """So a plan of files loads nothing of clusters, and a typing error is explained without loading all."""
    start = "from reconciler.registry import default; known = default();"
    assert _loaded(f"{start} assert 'File' in known.kinds and 'x' not in known.types; len(known.kinds)") == set()
    assert _loaded(f"{start} known.kinds.get('Fiel'); list(known.types)") == set()
    assert "reconciler.types.host.package" in _loaded(f"{start} known.kinds['Package']")
    assert not [n for n in _loaded(f"{start} known.kinds['Package']") if "proxmox" in n or "dsm" in n]


def _holders(package: ModuleType, attribute: str) -> dict[str, str]:
    """Module by the name of its kind or type, by importing everything."""
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    modules = [importlib.import_module(m.name) for m in found]
    return {getattr(m, attribute).name: m.__name__ for m in modules if hasattr(m, attribute)}


def test_the_names_that_are_read_are_those_that_are_held() -> None:
    """A name that is not written in its module costs everybody the import of that module at every start."""
    assert {n: m for m, n in registry._modules(KINDS)} == _holders(reconciler.kinds, "KIND")
    assert {n: m for m, n in registry._modules(TYPES)} == _holders(reconciler.types, "TYPE")
    assert list(default().kinds) == sorted(default().kinds)
    assert [t.name for t in default().types.values()] == sorted(default().types)


def test_a_name_that_is_made_is_found_by_importing(tree: Tree) -> None:
    tree(kinds__test_made=MADE, kinds__test_deep__test_plain=KIND.format("Plain"), kinds__test_none="KINDS = ()\n")
    found = Installed(KINDS)
    assert set(found) == {*default().kinds, "Made", "Plain"}
    assert (found["Made"].name, found["Plain"].name) == ("Made", "Plain")
    assert len(found) == len(list(found.values())) == len(default().kinds) + 2


def test_a_name_is_taken_once(tree: Tree) -> None:
    tree(kinds__test_twin=KIND.format("File"))
    with pytest.raises(ContractError, match="Two kinds are called File"):
        Installed(KINDS)


def test_a_module_holds_what_it_says(tree: Tree) -> None:
    tree(kinds__test_liar=KIND.format("Liar") + "KIND = file\n")
    found = Installed(KINDS)
    with pytest.raises(ContractError, match=r"reconciler\.kinds\.test_liar speaks of Liar, but holds File"):
        found["Liar"]


def test_a_type_has_an_identity(tree: Tree) -> None:
    tree(types__test_nameless=TYPE)
    found = Installed(TYPES)
    with pytest.raises(ContractError, match=r"test\.nameless has no IDENTITY field"):
        found["test.nameless"]


@pytest.mark.parametrize("name", ["Mine", "File"])
def test_plugins_are_found_by_their_entry_points(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The metadata of packages is read only if any of them speaks of us."""
    monkeypatch.setattr(registry, "_announced", registry._announced.__wrapped__)
    assert not registry._announced()
    (tmp_path / "mine-1.0.dist-info").mkdir()
    (tmp_path / "mine-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (tmp_path / "mine-1.0.dist-info/entry_points.txt").write_text("[reconciler.kinds]\nany = test_mine:KIND\n")
    tree(test_mine=KIND.format(name))
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        if name == "File":
            with pytest.raises(ContractError, match="Two kinds are called File"):
                Installed(KINDS)
        else:
            assert Installed(KINDS)["Mine"].spec is default().kinds["File"].spec
    finally:
        sys.modules.pop("test_mine", None)
