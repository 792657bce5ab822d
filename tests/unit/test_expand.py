"""Expand: documents become objects; two that contradict each other are a problem, two that agree are one object."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from reconciler.errors import ContractError
from reconciler.expand import MAX_SOURCE_BYTES, Catalog, expand
from reconciler.fields import HostLabels
from reconciler.model import Document, Kind, Resource
from reconciler.registry import Registry
from tests.simulated import ITEM, SERVER, ThingSpec, server, thing
from tests.texts import FILE, HOST, catalog_of, desired_of, only_resource, problems_of


def test_a_document_means_an_object_on_every_host(tmp_path: Path) -> None:
    text = HOST + HOST.replace("web1", "web2") + FILE.replace("[web1]", "{matchLabels: {role: web}}") + "  content: x\n"
    assert list(desired_of(tmp_path, text).resources) == ["host.file[web1:/etc/motd]", "host.file[web2:/etc/motd]"]


def test_a_selector_of_nothing_means_every_host(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, HOST + HOST.replace("web1", "a"))
    assert catalog.hosts(HostLabels(match_labels={})) == ["a", "web1"]
    assert catalog.hosts(["web1", "web1", "nobody"]) == ["web1"]


def test_an_object_knows_where_it_comes_from(tmp_path: Path) -> None:
    text = (
        HOST
        + FILE.replace("  name: motd", "  name: motd\n  labels: {team: ops}")
        + "  content: x\nlifecycle: {adopt: Never}\n"
    )
    (resource,) = desired_of(tmp_path, text).resources.values()
    assert resource.origin == "File/motd"
    assert dict(resource.labels) == {"team": "ops"}
    assert resource.lifecycle.adopt == "Never"
    assert str(resource.position).endswith("a.yaml:5:1")


def test_two_documents_that_agree_are_one_object(tmp_path: Path) -> None:
    text = HOST + FILE + "  content: x\n---\n" + FILE.replace("name: motd", "name: other") + "  content: x\n"
    assert len(desired_of(tmp_path, text).resources) == 1


def test_two_documents_that_contradict_each_other_name_both_places(tmp_path: Path) -> None:
    text = HOST + FILE + "  content: x\n---\n" + FILE.replace("name: motd", "name: other") + "  content: y\n"
    (one,) = problems_of(tmp_path, text)
    assert one == (
        "a.yaml:14:1: File/other: wants host.file[web1:/etc/motd], which File/motd (a.yaml:5:1) describes differently. "
        "Keep one of them."
    )


def test_all_contradictions_at_once(tmp_path: Path) -> None:
    parts = [FILE.replace("name: motd", f"name: f{i}") + f"  content: '{i}'\n" for i in range(4)]
    assert len(problems_of(tmp_path, HOST + "---\n".join(parts))) == 3


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("../outside.txt", "../outside.txt lies outside the desired state."),
        ("/etc/passwd", "/etc/passwd lies outside the desired state."),
        ("link-out", "link-out lies outside the desired state."),
        ("mtod.txt", "mtod.txt cannot be read: No such file or directory. Did you mean motd.txt?"),
        ("folder", "folder cannot be read: Is a directory."),
        ("binary", "binary is not UTF-8 text."),
        ("huge", "huge is larger than 10 MiB."),
    ],
)
def test_sources_stay_inside_and_are_text(name: str, wanted: str, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("x")
    repo = tmp_path / "repo"
    (repo / "folder").mkdir(parents=True)
    (repo / "motd.txt").write_text("x")
    (repo / "link-out").symlink_to("../outside.txt")
    (repo / "binary").write_bytes(b"\xff\xfe")
    with (repo / "huge").open("wb") as file:
        file.truncate(MAX_SOURCE_BYTES + 1)
    (one,) = problems_of(repo, HOST + FILE + f"  source: {name}\n")
    assert one.startswith(f"a.yaml:13:11: File/motd: {wanted}")


def test_a_source_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "motd.txt").write_bytes("ä\r\n{{ x }}\n".encode())
    assert only_resource(desired_of(tmp_path, HOST + FILE + "  source: motd.txt\n")).content == "ä\r\n{{ x }}\n"


def test_a_kind_that_uses_an_unknown_type_is_named_as_the_culprit(tmp_path: Path) -> None:
    def wrong(document: Document[ThingSpec], catalog: Catalog) -> list[Resource[ThingSpec]]:
        return [Resource("sim.nothing", "s1", "x", document.spec)]

    registry = Registry.of([SERVER, Kind("Thing", ThingSpec, wrong)], [ITEM])
    with pytest.raises(ContractError, match=r"uses the unknown type sim.nothing. This is a bug in Thing"):
        expand(Catalog([server("s1"), thing("a")], registry, tmp_path, {}))


def test_what_many_targets_have_alike_is_one_spec() -> None:
    """And 1 is not true, although they are equal."""
    one, two, other = ITEM("s1", name="a", size=1), ITEM("s2", name="a", size=1), ITEM("s1", name="a", size=2)
    assert one.spec is two.spec
    assert (one.address, two.address) == ("sim.item[s1:a]", "sim.item[s2:a]")
    assert other.spec.size == 2
    with pytest.raises(ValidationError):
        ITEM("s1", name=1)
    with pytest.raises(ValidationError):
        ITEM("s1", name=True)
    assert ITEM("s1", name="a", needs=["b"]).spec.needs == ("b",), "lists are taken, too"
