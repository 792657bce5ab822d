"""What the articles get wrong, and what other tools miss: each row of the table in docs/non-root.md."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest

from reconciler.tools.nonroot.containerfile import KnownImage
from reconciler.tools.nonroot.scan import Found, Policy, scan

DOCS = Path(__file__).parents[2] / "docs" / "non-root.md"
TODAY = date(2026, 11, 22)
HOME = "ENV HOME=/tmp\n"
END = HOME + "USER 1001:0\n"


def rules(texts: dict[str, str], policy: Policy | None = None) -> set[str]:
    return {f.rule for f in scan(Found(texts), policy or Policy(), TODAY, texts).flaws}


def build(text: str) -> dict[str, str]:
    return {"Containerfile": text}


def pod(pod_level: str = "", container: str = "", more: str = "") -> dict[str, str]:
    """A pod that is right but for what is given."""
    context = f"{{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}{pod_level}}}"
    drop = "" if "capabilities" in container else ", capabilities: {drop: [ALL]}"
    own = f"{{allowPrivilegeEscalation: false{drop}{container}}}"
    one = f"{{name: a, image: registry.example.org/app, securityContext: {own}{more}}}"
    spec = f"{{securityContext: {context}, containers: [{one}]}}"
    return {"pod.yaml": f"{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {spec}}}\n"}


BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "x"},
    "roleRef": {"kind": "ClusterRole", "name": "system:openshift:scc:anyuid"},
    "subjects": [{"kind": "ServiceAccount", "name": "default"}],
}
CHART = {"c/Chart.yaml": "name: c\n"}

CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    "user-0": (build(f"FROM x\n{HOME}USER 0\n"), {"user-root"}),
    "user-00": (build(f"FROM x\n{HOME}USER 00\n"), {"user-root"}),
    "user-arg": (build(f"FROM x\nARG U=root\n{HOME}USER ${{U}}\n"), {"user-root"}),
    "builder-user": (build(f"FROM b AS b\nUSER 1001:0\nFROM x\n{HOME}"), {"user-missing"}),
    "user-name": (build(f"FROM x\n{HOME}USER app:0\n"), {"user-by-name"}),
    "user-65534": (build(f"FROM x\n{HOME}USER 65534:0\n"), {"user-reserved"}),
    "user-999": (build(f"FROM x\n{HOME}USER 999:0\n"), {"user-low"}),
    "user-group": (build(f"FROM x\n{HOME}USER 3000:3000\n"), {"group-not-root"}),
    "group-0": (build(f"FROM x\nRUN chown -R 3000:3000 /app\n{END}"), {"group-access"}),
    "home": (build("FROM x\nRUN adduser -D -u 1001 -h /home/a a\nUSER 1001:0\n"), {"user-created", "home-missing"}),
    "passwd": (build(f"FROM x\nRUN chmod g=u /etc/passwd\n{END}"), {"passwd-writable"}),
    "account": (build(f"FROM x\nRUN useradd -l -u 1001 a\n{END}"), {"user-created"}),
    "expose": (build(f"FROM x\nEXPOSE 80\n{END}"), {"privileged-port"}),
    "start": (
        build(f'FROM x\nCOPY start.sh /\n{END}ENTRYPOINT ["/start.sh"]\n')
        | {"start.sh": "chown -R app /data\ngosu app x\n"},
        {"root-at-start"},
    ),
    "fixed-uid": (pod(", runAsUser: 10001"), {"uid-outside-range"}),
    "fixed-group": (pod(", fsGroup: 10001"), {"group-outside-range"}),
    "pod-65534": (pod(", runAsUser: 65534"), {"uid-outside-range", "user-reserved"}),
    "drop-all": (pod(container=", capabilities: {drop: [all]}"), {"capabilities-drop"}),
    "contradiction": (pod(container=", runAsUser: 0"), {"run-as-root"}),
    "named-image": (pod(), {"run-as-user-needed"}),
    "read-only-home": (
        pod(container=", readOnlyRootFilesystem: true", more=", env: [{name: HOME, value: /home/a}]"),
        {"home-not-mounted"},
    ),
    "anyuid": ({"rbac.json": json.dumps(BINDING)}, {"scc-granted"}),
    "helm-null": (CHART | {"c/templates/d.yaml": "runAsUser: {{ .Values.u | default 1001 }}\n"}, {"helm-not-nullable"}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_others_miss_is_found(case: str) -> None:
    texts, wanted = CASES[case]
    policy = Policy(images=[KnownImage("registry.example.org/*", "app")]) if case == "named-image" else None
    assert rules(texts, policy) == wanted


def test_the_table_of_the_docs_has_exactly_these_rows() -> None:
    rows = re.findall(r"^\|.*<!-- ([a-z0-9-]+) -->.*\|$", DOCS.read_text(), re.MULTILINE)
    assert rows == list(CASES)


def test_what_openshift_needs_is_not_flagged() -> None:
    """No user at all in the pod; an image with a numeric user in group 0."""
    assert rules(pod()) == set()
    assert rules(build(f"FROM x\n{END}")) == set()


# ------------------------------------------------------------------------------------------------ the articles

FOO = """\
FROM alpine:3.14
RUN addgroup -S -g 3000 group
RUN adduser -S -u 3000 -G group someone
COPY --chown 3000:3000 app/foo /app/foo
USER 3000
ENTRYPOINT [ "/app/foo/start.sh" ]
"""
"""A build in the form that the article on non-root containers shows first."""

KATE = """\
FROM debian:12
RUN apt update && apt install -y kate
RUN adduser kate --system --home /home/kate -uid 999
COPY entrypoint.sh /opt
USER 999
ENTRYPOINT [ "/opt/entrypoint.sh" ]
"""
"""A build in the form that the article on Guacamole shows."""


def test_the_mistakes_of_the_articles_builds() -> None:
    assert rules(build(FOO)) == {"user-created", "flag-syntax", "group-access", "group-unset", "home-missing"}
    assert rules(build(KATE)) == {"user-created", "user-low", "group-unset", "home-missing"}


def test_65535_is_reserved_and_so_is_nobody_who_is_65534() -> None:
    for user in (65534, 65535):
        assert rules(build(f"FROM x\n{HOME}USER {user}:0\n")) == {"user-reserved"}


def test_the_articles_pods() -> None:
    """A fixed user and group for the whole pod; a misspelled field; `all` in small letters; nothing enforced."""
    spec = "{securityContext: {runAsUser: 3000, runAsGroup: 3000}, containers: [{name: a}]}"
    found = rules({"a.yaml": f"{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {spec}}}\n"})
    assert found == {"uid-outside-range", "run-as-non-root", "seccomp", "privilege-escalation", "capabilities-drop"}
    guacd = ", readOnlyRootFileSystem: true, capabilities: {drop: [all]}"
    texts = pod(container=guacd)
    texts["pod.yaml"] = texts["pod.yaml"].replace("Escalation: false", "Escalation: true")
    assert rules(texts) == {"unknown-field", "capabilities-drop", "privilege-escalation"}


def test_nothing_to_do_on_kubernetes_is_not_enough() -> None:
    """An image that is right does not enforce anything: the pod has to say runAsNonRoot."""
    texts = pod()
    texts["pod.yaml"] = texts["pod.yaml"].replace("runAsNonRoot: true, ", "")
    assert rules(texts) == {"run-as-non-root"}
