"""Fixtures on real hosts. Whatever is collected below this folder is marked `lab` by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import btrfs
from tests.lab.hosts import Lab, LabHost
from tests.lab.prepare import missing

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them with the reason where no lab can run."""
    mine = [item for item in items if item.path.is_relative_to(HERE)]
    reason = missing() if mine else None
    for item in mine:
        item.add_marker(pytest.mark.lab)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Three hosts, booted once for all tests of a worker. What a test changes there, the next one finds."""
    with Lab("web1", "web2", "db1") as three:
        yield three


@pytest.fixture
def pristine(lab: Lab) -> Callable[..., LabHost]:
    """`pristine("web1")`: that host as on its first day, with a new disk, in about half a second.

    Ask for it in each test that needs it: nothing is reset for those that do not.
    """
    return lab.fresh


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A Btrfs for the tests of snapshots: the image, and where it is mounted."""
    with btrfs.file_system(tmp_path_factory.mktemp("btrfs")) as made:
        yield made


@pytest.fixture(scope="session")
def nas(disk: tuple[Path, Path]) -> Iterator[LabHost]:
    """A host with that Btrfs."""
    with btrfs.host_on(disk[1]) as host:
        yield host
