"""What all tests share: hypothesis is derandomized and bounded, so that a run costs the same every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.register_profile("long", parent=settings.get_profile("ci"), derandomize=False, max_examples=1500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

_left_out: list[str] = []


def _own() -> dict[str, object]:
    umask = os.umask(0o022)
    os.umask(umask)
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return {"umask": oct(umask), "directory": os.getcwd(), "environment": environment}


@pytest.fixture(autouse=True)
def leaves_the_process_as_it_was() -> Iterator[None]:
    """What a test changes of its process (umask, directory, environment) meets whichever test comes next there."""
    before = _own()
    yield
    after = _own()
    os.umask(int(str(before["umask"]), 8))
    assert after == before


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the lab tests that were left out."""
    if report.skipped and "lab" in report.keywords and not hasattr(report, "wasxfail"):
        _left_out.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a lab test that was left out is a failure: `.ci/run` sets RECONCILER_LAB=required."""
    if _left_out and os.environ.get("RECONCILER_LAB") == "required":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say it."""
    if _left_out and os.environ.get("RECONCILER_LAB") == "required":
        terminalreporter.section("lab tests that were left out, and must not be")
        for name in _left_out:
            terminalreporter.line(name)
