"""A person with an identity, and a desired state with a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.cli.main import run
from reconciler.secret_store import SecretStore
from reconciler.sops import age, rules
from tests.secrets.prepare import missing

Cli = Callable[..., tuple[int, str, str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs Debian's age is marked `lab`, and skipped with the reason where it is not there."""
    reason = missing()
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("lab") and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; no identity is found anywhere else."""
    folder = tmp_path / "home"
    folder.mkdir()
    names = ("SOPS_AGE_KEY", "SOPS_AGE_KEY_CMD", "SOPS_AGE_KEY_FILE", "SOPS_AGE_SSH_PRIVATE_KEY_FILE")
    for name in (*names, "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def me(home: Path) -> tuple[str, str]:
    """An identity where sops looks: private and public side."""
    private, public = age.new_identity()
    file = home / ".config/sops/age/keys.txt"
    file.parent.mkdir(parents=True)
    file.write_text(f"# public key: {public}\n{private}\n")
    return private, public


@pytest.fixture
def store(tmp_path: Path, me: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> SecretStore:
    """An empty store whose new files I can read; the current folder is the one above the desired state."""
    root = tmp_path / "repo/desired-state"
    (root / "secrets").mkdir(parents=True)
    (root / ".sops.yaml").write_text(rules.new_configuration(me[1]))
    monkeypatch.chdir(root.parent)
    return SecretStore(root)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line; gives status, output and errors."""

    def call(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(argv)
        out, err = capsys.readouterr()
        return status, out, err

    return call
