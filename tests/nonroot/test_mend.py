"""What is mended: exactly the line or the field that is meant, and nothing that is not safe."""

from __future__ import annotations

import pytest

from reconciler.tools.nonroot import containerfile, workloads
from reconciler.tools.nonroot.mend import apply, mend
from reconciler.tools.nonroot.rules import Insert, Replace, SetField
from reconciler.tools.nonroot.yamledit import set_field


def mended(text: str) -> tuple[str, list[str]]:
    after, done = mend(text, lambda now: containerfile.examine("Containerfile", now))
    return after, sorted(f.rule for f in done)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FROM x\nENV HOME=/tmp\n", "FROM x\nENV HOME=/tmp\nUSER 1001:0\n"),
        ("FROM x\nENV HOME=/tmp\nCMD x", "FROM x\nENV HOME=/tmp\nCMD x\nUSER 1001:0\n"),
        ("FROM x\nENV HOME=/tmp\nUSER 3000\n", "FROM x\nENV HOME=/tmp\nUSER 3000:0\n"),
        ("FROM x\nENV HOME=/tmp\nUSER 3000:3000 \n", "FROM x\nENV HOME=/tmp\nUSER 3000:0 \n"),
        ("FROM x\r\nENV HOME=/tmp\r\nUSER 3000\r\n", "FROM x\r\nENV HOME=/tmp\r\nUSER 3000:0\r\n"),
        ("FROM x\nENV HOME=/tmp\nUSER root\nRUN y\n", "FROM x\nENV HOME=/tmp\nUSER root\nRUN y\nUSER 1001:0\n"),
        (
            "FROM x\nENV HOME=/tmp\nRUN useradd -u 4000 app\nUSER app\n",
            "FROM x\nENV HOME=/tmp\nRUN useradd -u 4000 app\nUSER 4000:0\n",
        ),
        (
            "FROM x\nENV HOME=/tmp\nCOPY --chown=3000:3000 a /a\nUSER 3000:0\n",
            "FROM x\nENV HOME=/tmp\nCOPY --chown=3000:0 a /a\nUSER 3000:0\n",
        ),
        (
            "FROM x\nENV HOME=/tmp\nCOPY --chown 3000:3000 a /a\nUSER 3000:0\n",
            "FROM x\nENV HOME=/tmp\nCOPY --chown=3000:0 a /a\nUSER 3000:0\n",
        ),
        (
            "FROM x\nENV HOME=/tmp\nRUN chown -R 3000:3000 /a\nUSER 3000:0\n",
            "FROM x\nENV HOME=/tmp\nRUN chown -R 3000:3000 /a\nRUN chgrp -R 0 /a && chmod -R g=u /a\nUSER 3000:0\n",
        ),
        (
            "FROM x\nUSER 1001:0\n",
            "FROM x\nRUN mkdir -p /home/app && chgrp -R 0 /home/app && chmod -R g=u /home/app\n"
            "ENV HOME=/home/app\nUSER 1001:0\n",
        ),
    ],
)
def test_containerfiles(before: str, after: str) -> None:
    assert mended(before)[0] == after
    assert mended(after) == (after, [])
    remaining = [f.rule for f in containerfile.examine("Containerfile", after) if f.edits]
    assert remaining == []


@pytest.mark.parametrize(
    "text",
    [
        "FROM x\nENV HOME=/tmp\nUSER 999:0\n",  # its files belong to 999
        "FROM x\nENV HOME=/tmp\nUSER app:0\n",  # nobody knows which number that is
        "FROM scratch\nUSER 1001:0\n",  # there is no shell for a RUN
        "FROM gcr.io/distroless/static\nUSER 1001:0\n",
        "FROM x\nUSER 5000\nRUN y\nUSER 1001:0\n",  # a RUN would not be root
        "FROM x\nENV HOME=/root\nUSER 1001:0\n",
        "FROM x\nENV HOME=/tmp\nRUN chown -R 5000:5000 '/a b;c'\nUSER 1001:0\n",
        "FROM x\nENV HOME=/tmp\nARG U\nUSER $U\n",
    ],
)
def test_what_needs_a_person_is_left_alone(text: str) -> None:
    assert mended(text) == (text, [])
    assert containerfile.examine("Containerfile", text)


def test_edits_that_do_not_fit_do_nothing() -> None:
    assert apply("a\n", [Replace(5, "a", "b")]) is None
    assert apply("a\n", [Replace(1, "x", "b")]) is None
    assert apply("FROM a", [Insert(1, "USER 1")]) == "FROM a\nUSER 1\n"


@pytest.mark.parametrize("end", ["\\", "\\\n", "\\\n# more\n"])
def test_nothing_is_put_after_a_line_that_goes_on(end: str) -> None:
    """It would become a part of that instruction."""
    text = f"FROM x\nRUN echo a {end}"
    assert mended(text) == (text, [])


def test_each_line_keeps_its_own_end() -> None:
    text = "FROM x\r\nRUN echo a\nUSER 3000\r\nCMD x\n"
    after, _ = mended(text)
    assert [line for line in after.splitlines(keepends=True) if line in text.splitlines(keepends=True)] == [
        "FROM x\r\n",
        "RUN echo a\n",
        "CMD x\n",
    ]
    assert "USER 3000:0\r\n" in after
    assert mended("FROM x\r\nENV HOME=/tmp")[0] == "FROM x\r\nENV HOME=/tmp\r\nUSER 1001:0\r\n"


def test_a_container_that_is_root_on_purpose_is_not_kept_from_starting() -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n    - name: a\n      image: x\n"
        "      securityContext:\n        runAsUser: 0\n"
    )
    after, done = mend(text, lambda now: workloads.examine("x.yaml", now))
    assert "runAsNonRoot" not in after
    assert "run-as-non-root" not in [flaw.rule for flaw in done]
    assert "allowPrivilegeEscalation: false" in after


POD = """\
# Ours.
apiVersion: v1
kind: Pod   # one
metadata: {name: p}
spec:
  containers:
  - name: a   # the dash stands left
    securityContext:
      # why
      readOnlyRootFilesystem: true
      capabilities:
        drop: ["all"]
    args:
      - 'x: "y"'
  -   name: b
      image: i
---
a: 1
"""


def test_manifests_keep_comments_quotes_and_odd_indentation() -> None:
    after, done = mend(POD, lambda now: workloads.examine("p.yaml", now))
    assert sorted(f.rule for f in done) == [
        "capabilities-drop",
        "capabilities-drop",
        "privilege-escalation",
        "privilege-escalation",
        "run-as-non-root",
        "seccomp",
    ]
    assert workloads.examine("p.yaml", after) == []
    assert [line for line in POD.splitlines() if line not in after.splitlines()] == ['        drop: ["all"]']
    assert after.splitlines().index("      allowPrivilegeEscalation: false") > after.splitlines().index(
        "  - name: a   # the dash stands left"
    )


def test_an_explicit_wish_is_no_oversight() -> None:
    text = POD.replace("readOnly", "allowPrivilegeEscalation: true\n      readOnly")
    after, _ = mend(text, lambda now: workloads.examine("p.yaml", now))
    assert "allowPrivilegeEscalation: true" in after


@pytest.mark.parametrize(
    ("text", "path", "value", "after"),
    [
        ("a: 1\n", ("b",), True, "b: true\na: 1\n"),
        ("x:\n    a: 1\n", ("x", "b", "c"), True, "x:\n    b:\n      c: true\n    a: 1\n"),
        ("a: {b: 1}\n", ("a", "c"), True, "a: {b: 1, c: true}\n"),
        ("a: true # why\n", ("a",), False, "a: false # why\n"),
        ("l:\n- a: 1\n", ("l", 0, "b"), True, "l:\n- a: 1\n  b: true\n"),
        ("l:\n- a: 1\n  c: 2\n", ("l", 0, "b"), True, "l:\n- a: 1\n  b: true\n  c: 2\n"),
        ("d:\n  - all\n", ("d",), ["ALL"], "d:\n  - ALL\n"),
        ("a: [\n", ("a",), 1, None),
        ("a: 1\n", ("a", "b"), 1, None),
        ("a: [1]\n", ("a", 3), 1, None),
    ],
)
def test_fields(text: str, path: tuple[str | int, ...], value: object, after: str | None) -> None:
    assert set_field(text, SetField(0, path, value)) == after


def test_a_round_trip_that_would_change_more_is_refused() -> None:
    """Flow style with odd spaces: ruamel would write it anew, so nothing is done."""
    assert set_field("a:   {b:   1}\n", SetField(0, ("a", "c"), True)) is None
