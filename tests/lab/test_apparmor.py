"""AppArmorProfile on a real Debian with AppArmor's own tools. Its kernel has no AppArmor: see test_apparmor_vm.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reconciler.cli.main import run as main
from reconciler.connections import Pool
from reconciler.kinds.apparmor_profile import compose
from reconciler.load import load
from reconciler.model import Finding, Outcome
from reconciler.plan import Plan
from reconciler.project import Project
from reconciler.registry import default
from reconciler.tools.apparmor.abstractions import NETWORK, TABLE
from reconciler.tools.apparmor.globs import GLOBAL_NAMES, TUNABLES, matches
from reconciler.tools.apparmor.lint import FATAL, lint
from reconciler.tools.apparmor.reading import ReadRule, read
from reconciler.validate import validate
from tests.apparmor.texts import REFUSED, TAKEN
from tests.lab.base import layer
from tests.lab.hosts import Lab, LabHost, Setup

FIXTURES = Path(__file__).parents[1] / "fixtures"
DESIRED = Path(__file__).parents[2] / "desired-state"
FOLDER = "/etc/apparmor.d"
FILE = f"{FOLDER}/usr.bin.app"
RECORD = "/var/lib/reconciler/apparmor/usr.bin.app"
APP: dict[str, Any] = {
    "program": "/usr/bin/app",
    "profile": "app",
    "includes": ["abstractions/base"],
    "files": [{"path": "/usr/bin/app", "access": "mr"}, {"path": "/etc/app.conf", "access": "r"}],
}
ARTICLE = (FIXTURES / "apparmor/httpd.profile").read_text()


@pytest.fixture(scope="module")
def debian() -> Iterator[LabHost]:
    """A host with AppArmor's packages."""
    setup = Setup(layers=[layer("apparmor", ["apparmor", "apparmor-utils"])])
    with Lab("aa1", setups={"aa1": setup}) as lab:
        yield lab["aa1"]


class Site:
    """A desired state for that host."""

    def __init__(self, host: LabHost, folder: Path) -> None:
        self.host, self.folder = host, folder / "desired"
        self.folder.mkdir()
        lab = host.lab
        access = {"identityFile": str(lab.key), "knownHosts": str(lab.known_hosts)}
        self.put("Host", host.name, {"address": host.address, "user": "root", **access})
        self.project = Project(self.folder, folder / "state")

    def put(self, kind: str, name: str, spec: Any) -> None:
        document = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        (self.folder / f"{kind}-{name}.yaml").write_text(json.dumps(document, indent=1))

    def profile(self, **fields: Any) -> None:
        spec = {"hosts": [self.host.name], **({} if "text" in fields else APP), **fields}
        self.put("AppArmorProfile", "app", {k: v for k, v in spec.items() if v is not None})

    def plan(self) -> Plan:
        """On connections that cannot write."""
        with self.host.lab.inside():
            made = self.project.plan()
        assert not made.unknown
        return made

    def try_apply(self) -> Any:
        with self.host.lab.inside(), Pool(self.project.desired().targets) as pool:
            return self.project.apply(self.project.plan(pool=pool), pool)

    def apply(self) -> Sequence[Finding]:
        """Everything is done, and nothing is left to do; what the audits then find."""
        result = self.try_apply()
        assert {e.outcome for e in result.ended.values()} <= {Outcome.DONE}, result.ended
        assert self.plan().empty
        return [f for f in result.findings if f.rule != "no-apparmor"]

    def findings(self) -> set[str]:
        """What the audits find, but for the kernel of this host."""
        return {f.rule for f in self.plan().findings} - {"no-apparmor"}


@pytest.fixture
def site(debian: LabHost, tmp_path: Path) -> Iterator[Site]:
    one = Site(debian.lab.fresh(debian.name), tmp_path)
    yield one
    one.project.store.close()


def compiled(host: LabHost, text: str) -> str:
    """The digest of what the parser makes of a text: the policy as the kernel would get it."""
    script = "set -e; apparmor_parser -QTK -S >/root/policy 2>/dev/null; sha256sum </root/policy"
    return host.run(script, input=text).stdout


# ------------------------------------------------------------------------------------------------ texts


def test_the_published_profile_and_ours_are_one_policy(debian: LabHost) -> None:
    catalog = validate(load(DESIRED), default())
    document = catalog.get("AppArmorProfile/httpd")
    assert document is not None
    ours = compose(document, catalog).text
    assert ours != ARTICLE
    assert compiled(debian, ours) == compiled(debian, ARTICLE)
    less = ours.replace("/run/httpd.pid        rw,", "/run/httpd.pid        r,")
    assert less != ours
    assert compiled(debian, less) != compiled(debian, ARTICLE), "the comparison sees a single letter"


def test_the_parser_takes_all_that_we_write(debian: LabHost, tmp_path: Path) -> None:
    """The samples, and every sort of rule in the kind's tables."""
    texts = []
    catalog = validate(load(DESIRED), default())
    texts += [compose(d, catalog).text for d in catalog if d.kind == "AppArmorProfile"]
    tables = YAML(typ="safe").load(FIXTURES / "kinds/AppArmorProfile.yaml")
    debian.write(f"{FOLDER}/tunables/site", "@{SITE} = /srv\n")
    for entry in tables["expand"]:
        for fields in entry["resources"].values():
            if fields.get("text", "!any text") != "!any text":
                texts.append(fields["text"])
    assert len(texts) >= 6
    for text in texts:
        done = debian.run("apparmor_parser -QTK", input=text, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{text}"


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_parser_refuses_our_lint_refuses_too(debian: LabHost, name: str) -> None:
    text, line = REFUSED[name]
    done = debian.run("apparmor_parser -QTK", input=text, check=False)
    assert done.returncode != 0, "the parser takes it"
    found = [one for one in lint(text) if one.rule in FATAL]
    assert [one.line for one in found] == [line], found


@pytest.mark.parametrize("name", TAKEN)
def test_what_the_parser_takes_our_lint_does_not_call_fatal(debian: LabHost, name: str) -> None:
    done = debian.run("apparmor_parser -QTK", input=TAKEN[name], check=False)
    assert done.returncode == 0, done.stderr
    assert [one for one in lint(TAKEN[name]) if one.rule in FATAL] == []


def test_what_debian_ships_can_be_read(debian: LabHost) -> None:
    """No profile and no abstraction of Debian has anything that our reader takes for a mistake of syntax."""
    mark = "=====reconciler====="
    one = f'echo "{mark}$f"; cat "$f"; echo "{mark}"; apparmor_parser -N "$f" 2>/dev/null'
    said = debian.run(f'cd {FOLDER}; for f in *; do [ ! -f "$f" ] || {{ {one}; }}; done').stdout.split(mark)[1:]
    assert len(said) >= 100
    for named, names in zip(said[::2], said[1::2], strict=True):
        name, _, text = named.partition("\n")
        assert [m for m in lint(text) if m.rule in FATAL] == [], name
        assert sorted(p.full_name for p in read(text).profiles) == sorted(filter(None, names.split("\n"))), name


def test_our_table_of_variables_is_debians(debian: LabHost) -> None:
    """`GLOBAL_NAMES` is what `include <tunables/global>` declares, and nothing else."""
    script = rf"cd {FOLDER}/tunables; cat $(grep -ho '<tunables/[a-z-]*>' global | tr -d '<>' | sed 's|tunables/||')"
    included = debian.run(f"{script}; cat {FOLDER}/tunables/*.d/* 2>/dev/null || :").stdout
    declared = set(re.findall(r"^@\{([A-Za-z0-9_]+)\}\s*=", included, re.MULTILINE))
    assert declared - GLOBAL_NAMES == set()
    text = r"include <tunables/global>\nprofile a { /x@{%s} r, }\n"
    script = f"for v; do printf '{text}' \"$v\" | apparmor_parser -QTK 2>&1 >/dev/null; done"
    said = debian.run("sh", "-c", script, "each", *sorted(GLOBAL_NAMES), "nosuch", check=False).stdout
    assert re.findall("variable (.*), but is never declared", said) == ["nosuch"]


def test_our_table_of_abstractions_is_debians(debian: LabHost) -> None:
    """Each path of the table is allowed by the abstraction that we would propose for it."""
    wanted = 0
    for name, entries in TABLE.items():
        rules, network = _abstraction(debian, name, set())
        for pattern, letters in entries:
            for path in _examples(pattern):
                allowed = {x for r in rules if not r.deny and matches(r.path, path, TUNABLES) for x in r.access}
                assert set(letters) <= allowed, f"{name}: {path} {letters}, but {allowed}"
                wanted += 1
        for family, kind in NETWORK.get(name, ()):
            assert ("network", family, kind) in network, name
    assert wanted > 60


def _abstraction(debian: LabHost, name: str, seen: set[str]) -> tuple[list[ReadRule], set[tuple[str, ...]]]:
    """The rules of an abstraction with all that it includes."""
    if name in seen or not debian.exists(f"{FOLDER}/{name}") or debian.path(f"{FOLDER}/{name}").is_dir():
        return [], set()
    seen.add(name)
    (profile,) = read(f"profile x {{\n{debian.read(f'{FOLDER}/{name}')}\n}}\n").profiles
    rules = [r for r in profile.rules if r.kind == "file"]
    network = {r.words for r in profile.rules if r.kind == "network"}
    for one in profile.includes:
        more, also = _abstraction(debian, one.name, seen)
        rules += more
        network |= also
    return rules, network


def _examples(pattern: str) -> list[str]:
    """Paths that a pattern of our table means."""
    plain = pattern.replace("@{pid}", "4711").replace("python3.[0-9]*", "python3.13")
    plain = plain.replace("**.so*", "a/b.so.1").replace("**", "a/b").replace("*", "a")
    found = re.search(r"\{([^{}]*)\}", plain)
    if not found:
        return [plain]
    return [e for part in found[1].split(",") for e in _examples(plain[: found.start()] + part + plain[found.end() :])]


# ------------------------------------------------------------------------------------------------ the loop


def test_plan_apply_and_then_nothing_to_do(site: Site) -> None:
    host = site.host
    site.profile()
    made = site.plan()
    (change,) = made.changes
    assert change.risk
    assert change.risk.kind == "downtime"
    assert not site.apply()
    assert "  /etc/app.conf r,\n" in host.read(FILE)
    assert host.run(f"stat -c '%a %U %G' {FILE}").stdout == "644 root root\n"
    assert host.read(RECORD).split()[1] == "enforce"
    assert {f.rule for f in site.plan().findings} == {"no-apparmor"}, "whoever relies on it must know"
    site.profile(mode="complain")
    (change,) = site.plan().changes
    assert change.changed == {"mode"}
    assert not site.apply()
    assert host.run(f"readlink -e {FOLDER}/force-complain/usr.bin.app").stdout == f"{FILE}\n"
    said = host.run(f"apparmor_parser -QTK {FILE} 2>&1").stdout
    assert "forcing complain mode" in said, "the parser itself reads the link"
    site.profile(ensure="absent")
    assert not site.apply()
    for path in (FILE, RECORD, f"{FOLDER}/force-complain/usr.bin.app"):
        assert not host.exists(path)


def test_a_refused_profile_leaves_the_old_one(site: Site) -> None:
    """The plan says it already, with the line of the document; the step says it again, and writes nothing."""
    site.profile()
    site.apply()
    old = site.host.read(FILE)
    site.profile(extraRules=["userns create", "signal (fly) peer=x"])
    line = next(
        n
        for n, row in enumerate((site.folder / "AppArmorProfile-app.yaml").read_text().splitlines(), 1)
        if "signal" in row
    )
    (refusal,) = [f for f in site.plan().findings if f.rule == "parser-refuses"]
    assert f"AppArmorProfile-app.yaml:{line}: " in refusal.message
    result = site.try_apply()
    (ended,) = result.ended.values()
    assert ended.outcome is Outcome.FAILED
    assert "so nothing was changed" in str(ended)
    assert f"AppArmorProfile-app.yaml:{line}: " in str(ended)
    assert site.host.read(FILE) == old
    site.profile(text="include <tunables/global>\nprofile app /usr/bin/app {\n  include <abstractions/nothing>\n}\n")


def test_edits_by_hand_are_named_and_repaired(site: Site) -> None:
    host = site.host
    site.profile()
    site.apply()
    link = f"{FOLDER}/force-complain/usr.bin.app"
    cases: list[tuple[str, set[str]]] = [
        (f"sed -i 's|/etc/app.conf r|/etc/** rw|' {FILE}", {"text"}),
        (f"ln -s ../usr.bin.app {link}", {"mode"}),
        (f"ln -s ../usr.bin.app {FOLDER}/disable/usr.bin.app", {"mode"}),
        (f"sed -i 's|{{$|flags=(complain) {{|' {FILE}", {"text", "mode"}),
        (f"mv {FILE} /root/x; ln -s /root/x {FILE}", {"text"}),
    ]
    for script, changed in cases:
        host.run(script)
        made = site.plan()
        assert [c.changed for c in made.changes] == [changed], script
        assert made.drifted == [made.changes[0].address]
        if "/root/x" in script:
            result = site.try_apply()
            assert {e.outcome for e in result.ended.values()} == {Outcome.FAILED}, "a link is not replaced by a file"
            assert host.run(f"readlink {FILE}").stdout == "/root/x\n"
        else:
            assert not site.apply()


def test_without_the_parser_nothing_is_written(site: Site) -> None:
    site.host.run("mv /usr/sbin/apparmor_parser /root/")
    site.profile()
    (ended,) = site.try_apply().ended.values()
    assert ended.outcome is Outcome.FAILED
    assert "Install the package apparmor" in str(ended)
    assert not site.host.exists(FILE)


# ------------------------------------------------------------------------------------------------ the soak

HOUR = 3600


def access(at: int, profile: str = "app", name: str = "/srv/new", serial: int = 1) -> str:
    """A line of audit.log."""
    return (
        f'type=AVC msg=audit({at}.123:{serial}): apparmor="ALLOWED" operation="open" class="file" profile="{profile}" '
        f'name="{name}" pid=9 comm="app" requested_mask="r" denied_mask="r" fsuid=0 ouid=0\n'
    )


@pytest.fixture
def soaking(site: Site) -> tuple[Site, Callable[..., None]]:
    """A profile that soaks for a day, and what turns the clock of that: hours since it was loaded, since the log began,
    and hours ago of accesses."""
    site.profile(soak="24h")
    assert not [f for f in site.apply() if f.rule != "soak-blind"]
    assert site.host.read(RECORD).split()[1] == "complain"

    def clock(loaded: float, begins: float, *accesses: tuple[float, str]) -> None:
        now = int(site.host.run("date +%s").stdout)
        digest, phase, *_ = site.host.read(RECORD).split()
        site.host.write(RECORD, f"{digest} {phase} {now - int(loaded * HOUR)}\n")
        start = f'type=AVC msg=audit({now - int(begins * HOUR)}.001:7): apparmor="STATUS" operation="profile_load"\n'
        lines = [access(now - int(ago * HOUR), profile) for ago, profile in accesses]
        site.host.run("mkdir -p /var/log/audit; cat >/var/log/audit/audit.log", input="".join([start, *lines]))

    return site, clock


def test_a_soak_ends_when_the_log_was_quiet_long_enough(soaking: tuple[Site, Callable[..., None]]) -> None:
    site, clock = soaking
    quiet: Mapping[str, Any] = {
        "just loaded": (1, 100),
        "another profile is busy": (20, 100, (1, "other"), (1, "app2")),
    }
    for name, moments in quiet.items():
        clock(*moments)
        assert site.plan().empty, name
        assert site.findings() == set(), name
    for moments in (
        (100, 200, (2, "app")),
        (100, 200, (90, "app"), (3, "app//null-/bin/x")),
        (100, 200, (4, "app//c")),
    ):
        clock(*moments)
        assert site.plan().empty, moments
        assert site.findings() == {"soak-new-access"}, moments
    clock(100, 3)
    assert site.plan().empty, "what the log does not reach back to does not count"
    assert site.findings() == {"soak-log-short"}
    site.host.run("sed -i 's/ apparmor=.*//' /var/log/audit/audit.log")
    assert site.plan().empty, "a log that AppArmor's records do not come to proves nothing"
    assert site.findings() == {"soak-blind"}
    clock(100, 200, (99, "app"), (110, "app"))
    (change,) = site.plan().changes
    assert change.changed == {"mode"}
    assert change.risk
    assert not site.apply()
    assert not site.host.exists(f"{FOLDER}/force-complain/usr.bin.app")
    assert site.host.read(RECORD).split()[1] == "enforce"


def test_a_clock_that_jumps_ahead_ends_no_soak(soaking: tuple[Site, Callable[..., None]]) -> None:
    """The host has not been up for as long as its clock says. After a reboot, only the clock is left."""
    site, clock = soaking
    words = site.host.read(RECORD).split()
    assert len(words) == 5
    clock(100, 200)
    site.host.write(RECORD, f"{' '.join([*site.host.read(RECORD).split(), *words[3:]])}\n")
    assert site.plan().empty
    site.host.reboot()
    assert [c.changed for c in site.plan().changes] == [{"mode"}]


def test_what_has_soaked_is_not_sent_back(soaking: tuple[Site, Callable[..., None]]) -> None:
    """Neither by hand nor by a new text; but a new text during the soak begins a new one."""
    site, clock = soaking
    clock(30, 200, (26, "app"))
    site.profile(soak="24h", files=[*APP["files"], {"path": "/srv/new", "access": "r"}])
    (change,) = site.plan().changes
    assert change.changed == {"mode", "text"}
    site.apply()
    digest, phase, at, *_ = site.host.read(RECORD).split()
    assert phase == "complain"
    assert int(at) > int(site.host.run("date +%s").stdout) - HOUR, "the clock begins anew"
    clock(25, 200)
    site.apply()
    assert site.host.read(RECORD).split()[1] == "enforce"
    site.host.run(f"ln -s ../usr.bin.app {FOLDER}/force-complain/usr.bin.app")
    assert [c.changed for c in site.plan().changes] == [{"mode"}]
    site.apply()
    site.profile(soak="24h")
    site.apply()
    assert site.host.read(RECORD).split()[1] == "enforce"
    assert site.host.read(RECORD).split()[0] != digest


def test_a_profile_that_complains_already_begins_to_soak(site: Site) -> None:
    site.profile(mode="complain")
    site.apply()
    site.profile(soak="1h")
    assert site.plan().empty, "it was loaded by us in complain mode, which is where its soak begins"
    site.host.run(f"rm {RECORD}")
    assert [c.changed for c in site.plan().changes] == [{"mode"}]
    site.apply()
    assert site.host.read(RECORD).split()[1] == "complain"


def test_suggest_reads_the_log_of_the_host(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    host = site.host
    site.profile(mode="complain")
    site.apply()
    rows = [
        access(1700000000, name="/etc/app.conf", serial=1),
        access(1700000001, name="/etc/ssl/certs/ca-certificates.crt", serial=2),
        access(1700000002, name="/proc/4711/status", serial=3),
        access(1700000003, name="/proc/4711/mountinfo", serial=4),
        access(1700000004, name="/srv/app-1.2.3/x", serial=5),
        access(1700000005, profile="other", name="/srv/other", serial=6),
    ]
    host.run("mkdir -p /var/log/audit; cat >/var/log/audit/audit.log.1", input="".join(rows[:3]))
    host.run("cat >/var/log/audit/audit.log", input="".join(rows[3:]))
    look = f"find {FOLDER} /var/lib/reconciler /root -printf '%p %T@ %s\\n' | sort"
    before = host.run(look).stdout
    capsys.readouterr()
    with host.lab.inside():
        status = main(["apparmor", "suggest", "app", "--path", str(site.folder)])
    assert status == 2
    said = capsys.readouterr().out
    assert host.run(look).stdout == before, "it writes nothing on the host"
    document = YAML(typ="safe").load(said)
    assert document == {
        "spec": {
            "includes": ["abstractions/ssl_certs"],
            "files": [
                {"path": "/srv/app-*/x", "access": "r"},
                {"path": "@{PROC}/@{pid}/mountinfo", "access": "r", "owner": True},
            ],
        }
    }
    spec = document["spec"]
    site.profile(
        mode="complain",
        includes=["abstractions/base", *spec["includes"]],
        files=[*APP["files"], *spec["files"]],
    )
    assert not site.apply(), "what it proposes is a document that holds"
    with host.lab.inside():
        assert main(["apparmor", "suggest", "app", "--path", str(site.folder)]) == 0
    assert "Nothing new." in capsys.readouterr().out
