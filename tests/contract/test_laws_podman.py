"""Law 3 and 4 for Podman's types, on a real systemd host with Podman. One host and one connection for all of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.model import Target
from tests.contract.conftest import NAMESPACES
from tests.contract.laws import PRELUDE, Subject, law_ids, laws, obey
from tests.lab.hosts import Lab
from tests.podman.hosts import podman_setup, prepare
from tests.podman.images import archive

pytestmark = pytest.mark.lab

LAWS = laws("laws", "podman")
# Podman's own folders are no configuration: it touches its locks whenever it is asked anything.
LISTING = """find /etc /root /home /srv /usr/local -xdev -path '*/containers/storage' -prune -o \
-printf '%p %y %m %u %g %T@ %s\\n' | sort"""


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with Lab("podlaw", setups={"podlaw": podman_setup()}) as lab:
        host = lab["podlaw"]
        program = prepare(host)
        for name, tag in (("law-image", 1), ("law-image-2", 2), ("law-other", 1)):
            image = f"localhost/{name.removesuffix('-2')}:{tag}"
            archive(host.path("/srv") / f"{name}.tar", program, image, note=name)
        settings = {"address": host.address, "user": "root", "configFile": str(lab.ssh_config)}
        settings |= {"identityFile": str(lab.key), "knownHosts": str(lab.known_hosts)}
        preludes = Path(PRELUDE / "prelude.sh").read_text()
        enter = ["nsenter", f"--target={host.leader()}", *NAMESPACES, "--cgroup", "--root", "--wd", "--"]

        def sh(script: str) -> None:
            host.run(f"ROOT= OFFLINE=\n{preludes}\nset -e\n{script}\n")

        def inside(script: str) -> str:
            done = subprocess.run([*enter, "sh", "-e"], input=script, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
            return done.stdout

        with lab.inside():
            one = Subject(
                "podman",
                Target("podlaw", "ssh", settings),
                sh,
                lambda: inside(LISTING),
                tmp_path_factory.mktemp("podlaw") / "state",
            )
            yield one
            one.close()


@pytest.mark.parametrize(("name", "entry"), LAWS, ids=law_ids(LAWS))
def test_what_is_applied_holds_and_drift_is_repaired(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    obey(subject, name, entry)
