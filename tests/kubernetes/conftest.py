"""What tests of clusters share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.world import World, world


@pytest.fixture
def one(tmp_path: Path) -> Iterator[World]:
    """An emulated cluster; a module whose tests need another one makes its own."""
    with world(tmp_path) as made:
        yield made
