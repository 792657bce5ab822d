"""Odd shapes, bombs and nonsense in manifests, values, images and archives: findings or nothing, never an exception."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.tools.nonroot.mend import mend
from reconciler.tools.nonroot.scan import Found, ImageConfig, Policy, is_containerfile, matches, scan
from reconciler.tools.nonroot.workloads import examine, range_of

TODAY = date(2026, 11, 22)
WORDS = """apiVersion kind metadata name namespace annotations spec template jobTemplate securityContext containers
initContainers ephemeralContainers runAsUser runAsGroup runAsNonRoot fsGroup supplementalGroups seccompProfile type
capabilities drop add privileged allowPrivilegeEscalation ports containerPort hostPort env value volumeMounts mountPath
volumes hostPath command args image sysctls items objects roleRef subjects config User Env Entrypoint Volumes
openshift.io/sa.scc.uid-range readOnlyRootFilesystem properties os"""
KEYS = WORDS.split()
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "yes", "ALL", "all", "0", "Pod", "/", "HOME", "Unconfined", "1-0", "chown", "x" * 50]),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)),
    max_leaves=25,
)
KINDS = st.sampled_from(
    ["Pod", "Deployment", "CronJob", "List", "RoleBinding", "Namespace", "SecurityContextConstraints"]
)


def at(kind: str, tree: Any) -> dict[str, Any]:
    """An object that has the tree at many places."""
    pod = {"securityContext": tree, "containers": [{"name": "a", "securityContext": tree, "ports": tree}, tree]}
    pod |= {"initContainers": tree, "volumes": tree, "os": tree}
    whole = {"template": {"spec": pod}, "jobTemplate": {"spec": {"template": {"spec": pod}}}, **pod}
    return {"apiVersion": "v1", "kind": kind, "metadata": tree, "spec": whole, "items": tree, "roleRef": tree}


@given(KINDS, TREES)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_objects_of_any_shape(kind: str, tree: Any) -> None:
    text = json.dumps(at(kind, tree))
    texts = {
        "a.json": text,
        "c/Chart.yaml": "",
        "c/values.yaml": json.dumps(tree),
        "c/values.schema.json": json.dumps(tree),
    }
    images = [ImageConfig("a.tar", "", json.dumps({"config": tree})), ImageConfig("b.tar", "", json.dumps(tree))]
    for flaw in scan(Found(texts, images), Policy(), TODAY).flaws:
        assert flaw.line >= 1
        assert flaw.message


@given(KINDS, TREES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mending_objects_of_any_shape_gives_what_can_be_read(kind: str, tree: Any) -> None:
    text = json.dumps(at(kind, tree), indent=2)
    after, mended = mend(text, lambda now: examine("a.yaml", now))
    assert (after == text) == (not mended)


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_in_any_file(text: str) -> None:
    names = ("a.yaml", "a.json", "c/Chart.yaml", "c/values.yaml", "c/values.schema.json", "c/templates/a.yaml")
    texts = {name: f"kind: Pod\n{text}" if name == "a.yaml" else text for name in names}
    scan(Found(texts, [ImageConfig("a", "", text)]), Policy(), TODAY)
    matches(text, text)
    is_containerfile(text)
    range_of(text)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        "kind: Pod\na: &a [1]\n" + "".join(f"b{i}: &b{i} [*a,*a,*a,*a,*a,*a,*a,*a]\n" for i in range(80)),
        "kind: Pod\na: " + "[" * 50_000,
        "kind: Pod\na: " + "{a: " * 5_000,
        "kind: Pod\n" * 20_000,
        "---\nkind: Pod\napiVersion: v1\nspec: {containers: [{name: a}]}\n" * 3_000,
        "kind: Pod\n!!python/object/apply:os.system ['id']\n",
        "kind: Pod\nx: \t{{ .Values }}\n",
    ],
    ids=range(7),
)
def test_bombs_come_to_an_end(text: str) -> None:
    assert scan(Found({"a.yaml": text}), Policy(), TODAY).flaws


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("a/b/c", "a", True),
        ("a/b/c", "a/**", True),
        ("a/b/c", "**/c", True),
        ("c", "**/c", True),
        ("a/b/c", "*/c", False),
        ("a/b/c", "a/*/c", True),
        ("ab", "a", False),
        ("a.b", "a?b", True),
        ("axb", "a.b", False),
        ("a/b", "**", True),
    ],
)
def test_patterns(path: str, pattern: str, fits: bool) -> None:
    assert matches(path, pattern) is fits


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("Dockerfile", True),
        ("Containerfile", True),
        ("web.Dockerfile", True),
        ("Dockerfile.web", True),
        ("a/b/Containerfile-debug", True),
        ("Dockerfile.dockerignore", False),
        ("Dockerfile.md", False),
        ("MyDockerfiles", False),
        ("Dockerfiles/x", False),
    ],
)
def test_names_of_containerfiles(name: str, is_one: bool) -> None:
    assert is_containerfile(name) is is_one
