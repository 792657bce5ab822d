"""A real host for the contract tests: one, booted once for each worker."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.model import Target
from reconciler.tools.otp.single_file import single_file
from reconciler.types.host.otp_roster import PROGRAM
from tests.contract.laws import PRELUDE, Subject
from tests.lab.base import layer
from tests.lab.hosts import Lab, LabHost, Setup
from tests.lab.prepare import missing

HERE = Path(__file__).parent
# Not what a running system writes by itself all the time.
WATCHED = "/etc /home /root /opt /srv /usr/local /var/spool /var/mail /var/lib/dpkg"
NAMESPACES = ("--mount", "--net", "--uts", "--ipc", "--pid")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a host, with the reason, where no lab can run."""
    mine = [i for i in items if i.path.is_relative_to(HERE) and i.get_closest_marker("lab")]
    reason = missing() if mine else None
    for item in mine:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def contract_host() -> Iterator[LabHost]:
    """A real host of our own. What a test changes there, the next one finds."""
    # For the types that talk to them: what the validation server for Yubico OTP stands on, and AppArmor's parser.
    layers = [layer("contract", ["apparmor", "python3-cryptography"])]
    with Lab("contract", setups={"contract": Setup(layers=layers)}) as lab:
        lab["contract"].write(PROGRAM, single_file())
        yield lab["contract"]


@pytest.fixture(scope="session")
def subject_host(contract_host: LabHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """That host as the contract tests use it: one connection that writes, one that cannot."""
    lab = contract_host.lab
    settings = {"address": contract_host.address, "user": "root", "configFile": str(lab.ssh_config)}
    settings |= {"identityFile": str(lab.key), "knownHosts": str(lab.known_hosts)}
    preludes = (PRELUDE / "prelude.sh").read_text()
    enter = ["nsenter", f"--target={contract_host.leader()}", *NAMESPACES, "--root", "--wd", "--", "sh", "-e"]

    def inside(script: str) -> str:
        done = subprocess.run(enter, input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def sh(script: str) -> None:
        inside(f"ROOT= OFFLINE=\n{preludes}\n{script}\n")

    def listing() -> str:
        """Names, owners and times of what a probe must not touch."""
        return inside(f"find {WATCHED} -xdev -printf '%p %y %m %u %g %T@ %s\\n' | sort")

    with lab.inside():
        subject = Subject(
            "host", Target("contract", "ssh", settings), sh, listing, tmp_path_factory.mktemp("contract") / "state"
        )
        yield subject
        subject.close()
