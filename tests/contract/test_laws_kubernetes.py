"""Laws 3 and 4 for the types of Kubernetes, on an emulator of its API; on a real cluster, too, where
RECONCILER_TEST_KUBECONFIG names a kubeconfig (its current context, a namespace `contract` that is made and removed).

In the tables `setup`, `mutate` and `cleanup` are lists of requests: method, path, parameters, body.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from reconciler.connections.kubernetes import Kubernetes
from reconciler.lab.kubernetes import KubernetesEmulator
from reconciler.model import Get, Request, Target, Work
from reconciler.secrets import Secrets
from tests.contract.laws import Subject, examine, law_ids, laws, obey
from tests.contract.tables import CANARY, FIXTURES, AnyEnvironment

REAL = os.environ.get("RECONCILER_TEST_KUBECONFIG", "")
WHERE = ["emulator", *(["real"] if REAL else [])]
LAWS = [(where, *law) for where in WHERE for law in laws("laws", "kubernetes")]
AUDITS = [("emulator", *law) for law in laws("audit", "kubernetes")]
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "contract"}}
LISTED = ("/api/v1/namespaces/contract/configmaps", "/api/v1/namespaces/contract/secrets")
CA_KEY = FIXTURES / "kubernetes" / "contract-ca-key.pem"
GONE_SECONDS = 60


def requests(connection: Kubernetes) -> Callable[[Any], None]:
    """Does what a table says, as somebody else. What was deleted is waited for."""

    def do(script: Sequence[Sequence[Any]]) -> None:
        for method, path, params, body in script:
            work = Work("table", [Request(method, path, params, body)])
            for result in connection.execute([work], lambda secret: CANARY):
                assert not result.status, f"{method} {path}: {result.output}"
            if method == "DELETE":
                left = GONE_SECONDS * 10
                while left and connection.read([Get(path)])[0].status != 404:
                    time.sleep(0.1)
                    left -= 1
                assert left, f"{path} does not go"

    return do


def subject_at(place: str, kubeconfig: Path, folder: Path, log: list[tuple[str, str, int]] | None) -> Subject:
    """A cluster under test.

    Args:
        log: every request, where the cluster keeps one.
    """
    settings = {"kubeconfig": str(kubeconfig)}
    behind = Kubernetes(place, settings, lambda secret: CANARY)

    def listing() -> Any:
        if log is not None:
            return [r for r in log if r[0] != "GET" and "dryRun=All" not in r[1]]
        found = [json.loads(reply.text)["items"] for reply in behind.read([Get(path) for path in LISTED])]
        return [(one["metadata"]["name"], one["metadata"]["resourceVersion"]) for items in found for one in items]

    known = AnyEnvironment(CONTRACT_CA_KEY=CA_KEY.read_text())
    here = Target(place, "kubernetes", settings)
    one = Subject(place, here, requests(behind), listing, folder / "state", Secrets(lambda: b"k" * 32, known))
    one.pool._reveal = one.looking._reveal = one.secrets.reveal
    return one


@pytest.fixture(scope="module")
def real_cluster() -> Iterator[Path]:
    """A namespace on the real cluster; it goes with everything in it."""
    connection = Kubernetes("real", {"kubeconfig": REAL}, lambda secret: CANARY)
    do = requests(connection)
    do([["POST", "/api/v1/namespaces", {}, NAMESPACE]])
    yield Path(REAL)
    do([["DELETE", "/api/v1/namespaces/contract", {}, None]])
    connection.close()


@pytest.fixture
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    if request.param == "real":
        one = subject_at("real", request.getfixturevalue("real_cluster"), tmp_path, None)
        yield one
        one.close()
        return
    with KubernetesEmulator(openshift=True, pod_start_seconds=0.05) as emulator:
        emulator.apply(NAMESPACE)
        one = subject_at("emulator", emulator.write_kubeconfig(tmp_path / "kubeconfig"), tmp_path, emulator.log)
        yield one
        one.close()


@pytest.mark.parametrize(
    ("subject", "name", "entry"),
    LAWS,
    indirect=["subject"],
    ids=[
        f"{where} {one}"
        for where, one in zip([w for w, *_ in LAWS], law_ids([(n, e) for _, n, e in LAWS]), strict=True)
    ],
)
def test_what_is_applied_holds_and_drift_is_repaired(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    obey(subject, name, entry)


@pytest.mark.parametrize(
    ("subject", "name", "entry"),
    AUDITS,
    indirect=["subject"],
    ids=law_ids([(name, entry) for _, name, entry in AUDITS]),
)
def test_audits_find_what_is_wrong_and_change_nothing(name: str, entry: Mapping[str, Any], subject: Subject) -> None:
    examine(subject, name, entry)
