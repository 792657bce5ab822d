"""Our tables of the APIs are complete and right: compared to the schemas, where these lie beside the project."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reconciler.lab.proxmox import calendar
from reconciler.lab.proxmox.pbs import known as pbs_known
from reconciler.lab.proxmox.pbs import simulator as _pbs  # noqa: F401 - importing makes the routes
from reconciler.lab.proxmox.pbs import verify as pbs_verify
from reconciler.lab.proxmox.pbs.world import ROUTES as PBS_ROUTES
from reconciler.lab.proxmox.pve import formats, known
from reconciler.lab.proxmox.pve import simulator as _pve  # noqa: F401 - importing makes the routes
from reconciler.lab.proxmox.pve import verify as pve_verify
from reconciler.lab.proxmox.pve.routes import ROUTES as PVE_ROUTES
from reconciler.lab.proxmox.schema import Parameter, Tables, lines_of, parse_parameter

SCHEMAS = Path(__file__).parents[3] / "shared" / "proxmox"
TYPES = {"s": "string", "i": "integer", "n": "number", "b": "boolean", "a": "array"}
LEFT_OUT = {
    ("POST", "/access/domains"),
    ("PUT", "/access/domains/{realm}"),
    ("DELETE", "/access/domains/{realm}"),
    ("GET", "/access/domains/{realm}"),
}
"""Methods of Proxmox VE that the tables leave out: realms are nobody's kind."""
NOT_SIMULATED = {
    ("GET", "/nodes/{node}/storage/{storage}/import-metadata"),
    ("POST", "/nodes/{node}/storage/{storage}/content/{volume}"),
}
PBS_NOT_SIMULATED = {
    ("DELETE", "/admin/datastore/{store}/groups"),
    ("DELETE", "/admin/datastore/{store}/snapshots"),
}
SAMPLES = [
    *("", "a", "ab", "abc", "a b", "a/b", "/a/b", "/", "//", "-x", "_x", "a.b-c_d", "9x", "x9", "ü", "a\nb", "ab\n"),
    *("root@pam", "a@b!c", "a@b!", "root@pam!tok", "100-0", "012-0", "99-1", "1000000000-1", "4G", "+1G", "1X", "1.5T"),
    *("now", "2022-01-01", "2022-1-1T1:2:3", "/dev/parport0", "socket", "/dev/ttyS0", "0x1234", "a" * 65, "A" * 300),
    *("a:b", ":".join(["ab"] * 32), ":".join(["ab"] * 31), "0" * 64, "0" * 40, "12345678-1234-1234-1234-123456789abc"),
    *("1", "0", "02:00", "2:0", "x,y", "UPID:pbs:00001000:000ABC00:00000001:60000000:type:id:root@pam:", "UPID:x"),
    *("a/b/c/d/e/f/g", "a/b/c/d/e/f/g/h", "a/b/c/d/e/f/g/h/i", "net0=1500", "a=b", "noatime;nodev", "0000:00:02.0"),
    *("none", "0-3;5", "scsi0"),
]


def schema(name: str) -> dict[str, Any]:
    path = SCHEMAS / f"{name}-api.json"
    if not path.is_file():
        pytest.skip("the schemas are not beside the project")
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def expanded(parameters: dict[str, Any], sets: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a method, with those of the sets that it includes."""
    found: dict[str, Any] = {}
    include = parameters.get("$include", [])
    for name in [include] if isinstance(include, str) else include:
        found |= sets[name]
    found |= {name: about for name, about in parameters.items() if name != "$include"}
    return found


def numbered(parameters: dict[str, Any], lxc: bool) -> dict[str, Any]:
    """`net[n]` written out."""
    found: dict[str, Any] = {}
    for name, about in parameters.items():
        if name.endswith("[n]"):
            key = f"{name}.2" if lxc and name in ("net[n]", "unused[n]") else name
            found |= {f"{name[:-3]}{number}": about for number in range(known.SLOTS[key])}
        else:
            found[name] = about
    return found


def compare(ours: Parameter, theirs: dict[str, Any], where: str) -> list[str]:
    """Where a parameter differs."""
    items = theirs.get("items", {}) if theirs.get("type") == "array" else theirs
    low, high = items.get("minimum"), items.get("maximum")
    pairs = {
        "type": (ours.type, theirs.get("type", "string")),
        "optional": (ours.optional, bool(theirs.get("optional"))),
        "enum": (list(ours.enum), items.get("enum", [])),
        "length": (ours.length, (items.get("minLength"), items.get("maxLength"))),
        "range": (ours.range, (low, high)),
        "requires": (ours.requires, theirs.get("requires")),
    }
    if ours.format != "host":
        pairs["format"] = (ours.format, items.get("format"))
    default = theirs.get("default")
    text = default if isinstance(default, str) else json.dumps(default)
    if default not in (None, "") and " " not in text:
        pairs["default"] = (ours.default, text)
    problems = [f"{where}: {what} {a!r}, in the schema {b!r}" for what, (a, b) in pairs.items() if a != b]
    return problems + patterns_differ(ours, items, where)


def patterns_differ(ours: Parameter, theirs: dict[str, Any], where: str) -> list[str]:
    """Both patterns take and refuse the same samples."""
    if "pattern" not in theirs:
        return [f"{where}: a pattern too many"] if ours.pattern else []
    if ours.format == "host":
        return []
    newline = "\n?" if theirs["pattern"].endswith("\\n?\\Z") else ""
    return [
        f"{where}: the patterns differ for {sample!r}"
        for sample in SAMPLES
        if bool(re.match(theirs["pattern"], sample)) != bool(re.fullmatch(f"(?:{ours.pattern}){newline}", sample))
    ]


def test_methods_of_pve() -> None:
    """The same methods, the same parameters with the same types, limits, enumerations and patterns."""
    read = schema("pve")
    sets = read["parameter_sets"]
    wanted = {(verb, path) for path, verbs in read["paths"].items() for verb in verbs} - LEFT_OUT
    assert set(pve_verify.TABLES.all()) == wanted
    problems: list[str] = []
    for verb, path in sorted(wanted):
        about = read["paths"][path][verb]
        theirs = numbered(expanded(about["parameters"], sets), "lxc" in path)
        ours = pve_verify.TABLES.method(verb, path)
        assert set(ours.parameters) == set(theirs), (verb, path)
        assert ours.open == bool(about.get("additionalProperties"))
        assert ours.tokens == bool(about.get("allowtoken", 1))
        for name, one in theirs.items():
            problems += compare(ours.parameters[name], one, f"{verb} {path} {name}")
        problems += rights_differ(ours.who, about["permissions"], f"{verb} {path}")
    assert problems == []


def rights_differ(who: str, theirs: dict[str, Any], where: str) -> list[str]:
    """Declared checks are the same, as far as they are of the simple form."""
    check = theirs.get("check")
    if "user" in theirs:
        return [] if who == theirs["user"] else [f"{where}: {who} instead of {theirs['user']}"]
    if not isinstance(check, list) or check[0] != "perm":
        return [] if who in ("root", *_SPECIAL) else [f"{where}: {who}"]
    privileges = ("|" if len(check) > 3 else "&").join(check[2])
    template, _, ours = who.partition(" ")
    ours = known.GROUPS_OF_PRIVILEGES.get(ours, ours)
    return [] if (template, ours) == (check[1], privileges) else [f"{where}: {who}"]


_SPECIAL = ("create-user", "read-user", "update-user", "delete-user", "own-token", "modify-acl", "password")


def test_methods_of_pbs() -> None:
    """The same methods, the same parameters with the same types, limits, enumerations and patterns."""
    read = schema("pbs")
    wanted = {(verb, path) for path, verbs in read["paths"].items() for verb in verbs}
    assert set(pbs_verify.TABLES.all()) == wanted
    problems: list[str] = []
    for verb, path in sorted(wanted):
        theirs = read["paths"][path][verb]
        ours = pbs_verify.TABLES.method(verb, path)
        assert set(ours.parameters) == set(theirs["parameters"]), (verb, path)
        for name, one in theirs["parameters"].items():
            problems += compare(ours.parameters[name], one, f"{verb} {path} {name}")
    assert problems == []


@pytest.mark.parametrize(("name", "tables"), [("pve", pve_verify.TABLES), ("pbs", pbs_verify.TABLES)])
def test_property_strings(name: str, tables: Tables) -> None:
    """The same property strings with the same keys."""
    read = schema(name)["formats"]
    groups = (
        read["property_strings"] if name == "pve" else {key: one for key, one in read.items() if "items" not in one}
    )
    assert set(tables.groups()) - {"drive"} == set(groups)
    problems: list[str] = []
    for group, keys in groups.items():
        ours = tables.group(group)
        assert ours is not None
        bare = keys.get("#default_key")
        theirs = {key: about for key, about in keys.items() if not key.startswith("#")}
        assert set(ours) == set(theirs), group
        for key, about in theirs.items():
            where = f"{group} {key}"
            if "alias" in about:
                same = (ours[key].alias, ours[key].key_alias) == (about["alias"], about.get("keyAlias"))
                problems += [] if same else [where]
            else:
                problems += compare(ours[key], about, where)
                problems += [] if ours[key].bare == (bool(about.get("default_key")) or bare == key) else [where]
    assert problems == []


def test_storage_types() -> None:
    """The same storage types with the same options."""
    for name, theirs in schema("pve")["storage_types"].items():
        ours = known.STORAGE_TYPES[name]
        assert ours.required == set(theirs["required"]), name
        assert ours.optional == set(theirs["optional"]), name
        assert ours.fixed == set(theirs["fixed"]), name
        assert ours.content == set(theirs["content"]), name
        assert list(ours.content_default) == theirs["content_default"], name
        assert ours.secret == set(theirs.get("write_only", [])), name
        assert set(ours.formats) == set(theirs.get("format", {}).get("allowed", [])), name
        if ours.formats:
            assert ours.formats[0] == theirs["format"]["default"], name


def test_roles_and_paths() -> None:
    """The same roles, and rights on the same paths."""
    read = schema("pve")
    assert {name: sorted(privileges) for name, privileges in known.ROLES.items()} == read["roles"]
    paths = [
        "/",
        "/access",
        "/access/x",
        "/access/groups/a",
        "/vms/1",
        "/vms/100",
        "/vms/100/x",
        "/pool/a/b/c",
        "/pool/a/b/c/d",
    ]
    paths += [
        "/storage/a",
        "/storage/a/b",
        "/nodes/x",
        "/sdn",
        "/sdn/zones/z",
        "/mapping/pci/x",
        "/mapping/a/b/c",
        "/bogus",
    ]
    for path in paths:
        assert bool(re.fullmatch(known.ACL_PATH, path)) == bool(re.match(read["acl_paths"]["regex"], path)), path
    assert {name: sorted(privileges) for name, privileges in pbs_known.ROLES.items()} == schema("pbs")["roles"]


def test_named_formats() -> None:
    """Formats that the schema describes by a regular expression take and refuse the same samples."""
    for name, about in schema("pve")["formats"]["named"].items():
        if "regex" not in about:
            continue
        for sample in SAMPLES:
            theirs = bool(re.match(about["regex"], sample))
            if name in ("pve-storage-id", "pve-userid", "pve-replication-job-id") and len(sample) < 3:
                continue  # a check of the length comes first there
            if name == "pve-userid" and len(sample) > 64:
                continue
            if name == "pve-replication-job-id" and theirs and int(sample.partition("-")[0]) < 100:
                continue
            assert (formats.complaint(name, sample) is None) == theirs, (name, sample)


def test_every_format_of_the_tables_is_known() -> None:
    """No parameter names a format that nobody checks."""
    for verb, path in pve_verify.TABLES.all():
        for name, parameter in pve_verify.TABLES.method(verb, path).parameters.items():
            if parameter.format:
                try:
                    pve_verify.check_format(parameter.format, "x", name)
                except pve_verify.BadFormat:
                    continue


def test_every_method_is_answered() -> None:
    """What stands in a table has its function, but for those that are listed; and the other way round."""
    assert set(pve_verify.TABLES.all()) - set(PVE_ROUTES) == NOT_SIMULATED
    assert set(PVE_ROUTES) <= set(pve_verify.TABLES.all())
    assert set(pbs_verify.TABLES.all()) - set(PBS_ROUTES) == PBS_NOT_SIMULATED
    assert set(PBS_ROUTES) <= set(pbs_verify.TABLES.all())


def test_calendar_events() -> None:
    """The same events are taken and refused, with the same next time."""
    read = schema("pve")["calendar_event"]
    for text in read["accepted"]:
        calendar.parse(text)
    for text in read["refused"]:
        with pytest.raises(calendar.BadEvent):
            calendar.parse(text)
    following = read["next"]
    assert {text: calendar.next_event(text, following["after"]) for text in following["events"]} == following["events"]


def test_notation() -> None:
    """The notation of the tables, on its own."""
    parameter = parse_parameter("s @pve-node len=2..9 {a|b|x0..2} =a requires=y bare ~ [a-z ]+ x", {})
    assert parameter.enum == ("a", "b", "x0", "x1", "x2")
    assert (parameter.length, parameter.format, parameter.default) == ((2, 9), "pve-node", "a")
    assert (parameter.requires, parameter.bare, parameter.pattern) == ("y", True, "[a-z ]+ x")
    assert parse_parameter("i range=..5", {}).range == (None, 5)
    assert parse_parameter("s ~ID", {"ID": "x+"}).pattern == "x+"
    assert list(lines_of("a {b|\n    c}\nd s\n", 0)) == ["a {b|c}", "d s"]
    with pytest.raises(ValueError, match="'colour' in"):
        parse_parameter("s colour", {})
    tables = Tables(
        "a s\nb[n] i\nc s", "GET /x/{a} : all\n    a b[n]? c?\nGET /x/y : world ; open\n", slots={"b[n]": 2}
    )
    found = tables.find("GET", ["x", "1"])
    assert found is not None
    assert set(found[0].parameters) == {"a", "b0", "b1", "c"}
    assert found[1] == {"a": "1"}
    special = tables.find("GET", ["x", "y"])
    assert special is not None
    assert special[0].who == "world"
    assert special[0].open
    assert tables.find("PUT", ["x", "1"]) is None
    assert tables.find("GET", ["x", "1", "2"]) is None
