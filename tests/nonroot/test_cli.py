"""`reconciler nonroot`, and the policy in plan and drift."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli.main import run
from reconciler.render.sarif import SCHEMA, Result, RuleText, sarif
from reconciler.tools.nonroot.rules import RULES
from tests.contract.laws import tree

GOOD = "FROM x\nENV HOME=/tmp\nUSER 1001:0\n"
BAD = "FROM x\nENV HOME=/tmp\nUSER 3000\n"
POLICY = """\
apiVersion: reconciler/v1
kind: NonRootPolicy
metadata: {name: containers}
spec:
  path: ../apps
  exceptions:
    - {rule: group-unset, path: old/**, reason: it goes, expires: 2999-12-31}
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    for name, text in {"good": GOOD, "bad": BAD, "old": BAD}.items():
        (tmp_path / "apps" / name).mkdir(parents=True)
        (tmp_path / "apps" / name / "Containerfile").write_text(text)
    (tmp_path / "desired").mkdir()
    (tmp_path / "desired/policy.yaml").write_text(POLICY)
    return tmp_path


def test_findings_and_exit_status(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(repo)
    assert run(["nonroot", str(repo / "apps/good")]) == 0
    assert "1 file examined: 0 errors, 0 warnings." in capsys.readouterr().out
    assert run(["nonroot", str(repo / "apps/bad/Containerfile")]) == 2
    out = capsys.readouterr().out
    assert "Containerfile\n  3: warning: group-unset: USER 3000 names no group\n" in out
    assert "Kubernetes: the group comes from" in out
    assert run(["nonroot", str(repo / "apps"), "--platform", "openshift"]) == 0
    assert run(["nonroot", str(repo / "missing")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert tree(repo) == before


def test_json_and_rules(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nonroot", str(repo / "apps"), "--output", "json"]) == 2
    shown = json.loads(capsys.readouterr().out)
    assert shown["version"] == 1
    assert [(f["rule"], f["file"], f["line"], f["fixable"]) for f in shown["findings"]] == [
        ("group-unset", "bad/Containerfile", 3, True),
        ("group-unset", "old/Containerfile", 3, True),
    ]
    assert set(shown["findings"][0]["why"]) == {"docker", "kubernetes"}
    assert run(["nonroot", "--rules", "--output", "json"]) == 0
    assert {r["id"] for r in json.loads(capsys.readouterr().out)["rules"]} == RULES.keys()
    assert run(["nonroot", "--rules"]) == 0
    assert all(f"{rule} (" in shown["out"] for shown in [{"out": capsys.readouterr().out}] for rule in RULES)


def test_a_policy_gives_folder_and_exceptions(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = str(repo / "desired/policy.yaml")
    assert run(["nonroot", "--policy", policy, "--output", "json"]) == 2
    shown = json.loads(capsys.readouterr().out)
    assert [f["file"] for f in shown["findings"]] == ["bad/Containerfile"]
    assert [(f["file"], f["reason"]) for f in shown["accepted"]] == [("old/Containerfile", "it goes")]
    assert run(["nonroot", "--policy", str(repo / "apps/good/Containerfile")]) == 1
    assert "NonRootPolicy" in capsys.readouterr().err


def test_findings_show_in_plan_and_drift_and_nothing_changes(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(repo / "apps")
    desired, state = str(repo / "desired"), str(repo / "state")
    assert run(["plan", desired, "--state", state]) == 0
    out = capsys.readouterr().out
    assert "group-unset" in out
    assert "bad/Containerfile:3: USER 3000 names no group (warning)" in out
    assert "old/Containerfile" not in out
    assert run(["drift", desired, "--state", state]) == 2
    assert run(["apply", desired, "--state", state, "--yes"]) == 0
    (repo / "images").mkdir()
    capsys.readouterr()
    assert run(["plan", desired, "--state", state, "--images", str(repo / "images")]) == 0
    assert "group-unset" in capsys.readouterr().out
    assert tree(repo / "apps") == before
    (repo / "apps/bad/Containerfile").write_text(GOOD)
    assert run(["drift", desired, "--state", state]) == 0


def test_a_folder_that_is_not_there_is_unknown(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(repo / "apps")
    assert run(["drift", str(repo / "desired"), "--state", str(repo / "state")]) == 1
    out = capsys.readouterr().out
    assert "is no folder" in out


# ------------------------------------------------------------------------------------------------ fixing


def test_fix_shows_a_diff_and_asks(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(repo)
    assert run(["nonroot", str(repo / "apps"), "--fix"]) == 1
    shown = capsys.readouterr()
    assert "-USER 3000\n+USER 3000:0\n" in shown.out
    assert "Use --yes" in shown.err
    assert tree(repo) == before
    (repo / "apps/bad/Containerfile").chmod(0o640)
    assert run(["nonroot", str(repo / "apps"), "--fix", "--yes"]) == 0
    file = repo / "apps/bad/Containerfile"
    assert file.read_text() == BAD.replace("3000", "3000:0")
    assert file.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in file.parent.iterdir()] == ["Containerfile"]
    capsys.readouterr()
    assert run(["nonroot", str(repo / "apps"), "--fix", "--yes"]) == 0
    assert "Nothing here can be mended" in capsys.readouterr().err


def test_fix_leaves_accepted_findings_alone(repo: Path) -> None:
    assert run(["nonroot", "--policy", str(repo / "desired/policy.yaml"), "--fix", "--yes"]) == 0
    assert (repo / "apps/old/Containerfile").read_text() == BAD
    assert (repo / "apps/bad/Containerfile").read_text() == BAD.replace("3000", "3000:0")


# ------------------------------------------------------------------------------------------------ images


def test_images(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"config": {"User": "app", "Env": ["HOME=/tmp"]}}))
    (tmp_path / "manifest.json").write_text(json.dumps([{"Config": "c.json", "RepoTags": ["web:1"]}]))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("manifest.json", "c.json"):
            archive.add(tmp_path / name, name)
    assert run(["nonroot", "--image", str(tmp_path / "a.tar")]) == 2
    assert "user-by-name: image web:1: USER app is a name" in capsys.readouterr().out
    assert run(["nonroot", "--image", str(config)]) == 1
    assert "no image that can be read" in capsys.readouterr().err
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert run(["nonroot", "--image", "localhost/web:1"]) == 1
    assert "skopeo is needed" in capsys.readouterr().err


def test_images_of_a_store_by_skopeo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for skopeo: what it is called with, and what it prints, are as its manual says."""
    program = tmp_path / "bin/skopeo"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ "$*" = "inspect --config -- containers-storage:web" ] || { echo no such image >&2; exit 1; }\n'
        'echo \'{"config": {"User": "0", "Env": ["HOME=/tmp"]}}\'\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    assert run(["nonroot", "--image", "web"]) == 2
    assert "user-root" in capsys.readouterr().out
    assert run(["nonroot", "--image", "containers-storage:other"]) == 1
    assert "no such image" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ SARIF


def assert_sarif(log: Any) -> list[Any]:
    """What the standard asks for, of all that we write (SARIF 2.1.0, sections 3.13 to 3.52)."""
    assert log["version"] == "2.1.0"
    assert log["$schema"] == SCHEMA
    (one,) = log["runs"]
    driver = one["tool"]["driver"]
    assert driver["name"] == "reconciler"
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(ids) == len(set(ids))
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
    for result in one["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert not physical["artifactLocation"]["uri"].startswith(("/", ".."))
        assert physical["region"]["startLine"] >= 1
        assert all(s["kind"] in ("inSource", "external") for s in result.get("suppressions", ()))
    marks = [json.dumps(r["partialFingerprints"]) for r in one["results"]]
    assert len(marks) == len(set(marks))
    return list(one["results"])


def test_sarif(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    assert run(["nonroot", "--policy", str(repo / "desired/policy.yaml"), "--output", "sarif"]) == 2
    results = assert_sarif(json.loads(capsys.readouterr().out))
    assert [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results] == [
        "apps/bad/Containerfile",
        "apps/old/Containerfile",
    ]
    assert "suppressions" not in results[0]
    assert results[1]["suppressions"][0]["justification"] == "it goes (until 2999-12-31)"
    assert run(["nonroot", str(repo / "apps/good"), "--output", "sarif"]) == 0
    assert assert_sarif(json.loads(capsys.readouterr().out)) == []


def test_sarif_of_an_image_that_lies_elsewhere(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative place must be one of the repository; anything else is named as a whole."""
    config = json.dumps({"config": {}}).encode()
    for name in ("apps/old/a image.tar", "outside.tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            for member, raw in (("c.json", config), ("manifest.json", b'[{"Config": "c.json", "RepoTags": ["x"]}]')):
                entry = tarfile.TarInfo(member)
                entry.size = len(raw)
                archive.addfile(entry, io.BytesIO(raw))
    monkeypatch.chdir(repo / "apps")
    both = ["--image", str(repo / "apps/old/a image.tar"), "--image", "../outside.tar"]
    assert run(["nonroot", *both, "--output", "sarif"]) == 2
    results = assert_sarif(json.loads(capsys.readouterr().out))
    places = [one["locations"][0]["physicalLocation"]["artifactLocation"] for one in results]
    assert {"uri": "old/a%20image.tar", "uriBaseId": "%SRCROOT%"} in places
    assert {"uri": f"file://{tmp_path}/outside.tar"} in places


def test_sarif_of_odd_names_and_twins() -> None:
    rules = [RuleText("b", "B", "b", "b", "error"), RuleText("a", "A", "a", "a", "warning", ["x"])]
    twin = Result("b", "error", "same", "a b/ü#?.yaml", 0, "Pod/x")
    results = assert_sarif(sarif(rules, [twin, twin]))
    assert results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a%20b/%C3%BC%23%3F.yaml"
    assert results[0]["ruleIndex"] == 1


def test_hostile_names_and_texts_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Containerfile").write_text("FROM x\nUSER \x1b[31mroot\x07\n\x1b]0;x\x07 y\n")
    assert run(["nonroot", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert not {"\x1b", "\x07"} & set(shown.out + shown.err)


def test_our_own_samples_have_no_flaw(capsys: pytest.CaptureFixture[str]) -> None:
    samples = Path(__file__).parents[2] / "desired-state"
    assert run(["nonroot", str(samples)]) == 0, capsys.readouterr().out
