"""Lint, patterns and the reader of profiles, without any parser; tests/lab/test_apparmor.py asks the real one."""

from __future__ import annotations

import doctest
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.kinds.apparmor_profile import Accepted
from reconciler.tools import apparmor
from reconciler.tools.apparmor import globs, rules
from reconciler.tools.apparmor import suggest as suggesting
from reconciler.tools.apparmor.globs import covers, matches, overlap, values
from reconciler.tools.apparmor.lint import FATAL, RULES, by_rule, lint
from reconciler.tools.apparmor.reading import read
from reconciler.tools.apparmor.render import profile, text
from reconciler.tools.apparmor.rules import ExecRule, FileRule, ProfileBody
from reconciler.types.host.apparmor_host import explained, mode_in_files
from reconciler.types.host.apparmor_host import facts as read_facts
from tests.apparmor.texts import REFUSED, TAKEN

PATHS = st.text(alphabet="ab/.*", min_size=1, max_size=12).map(lambda s: f"/{s}")


@pytest.mark.parametrize("module", [apparmor, globs, rules, suggesting], ids=lambda m: m.__name__)
def test_the_examples_in_the_docstrings_hold(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("name", REFUSED)
def test_the_line_of_a_mistake_is_named(name: str) -> None:
    content, line = REFUSED[name]
    assert [m.line for m in lint(content) if m.rule in FATAL] == [line]


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_right_has_no_fatal_mistake(name: str) -> None:
    assert [m for m in lint(TAKEN[name]) if m.rule in FATAL] == []


FOUND = {
    "/etc/hosts r, /etc/** r": {"duplicate"},
    "/etc/** r, owner /etc/a r": {"duplicate"},
    "owner /etc/** r, /etc/a r": set(),
    "/etc/** w, /etc/a r": {"wide-file"},
    "/etc/a w, /etc/a a": {"duplicate"},
    "/** r": {"wide-file"},
    "owner /home/*/** rw": set(),
    "/usr/lib/x.so r": {"missing-map"},
    "/usr/lib/x.so.1 mr": set(),
    "/etc/x.source r": set(),
    "/bin/x Ux": {"unconfined-exec"},
    "/bin/x PUx": {"unconfined-exec"},
    "/bin/x px": set(),
    "/bin/** Px": {"wide-exec"},
    "capability": {"wide-capability"},
    "capability mac_override": {"wide-capability"},
    "deny capability mac_admin": {"silent-deny"},
    "audit deny capability mac_admin": set(),
    "deny network": {"silent-deny"},
    "network": {"wide-network"},
    "network inet": set(),
    "mount": {"wide-rule"},
    "all": {"wide-rule"},
    "file": {"wide-rule"},
    "include <abstractions/base>\n include <abstractions/base>\n": {"duplicate"},
    "#include <abstractions/base>\n": {"include-in-comment"},
    "# include <abstractions/base>\n": set(),
    "  #  just words\n": set(),
    "capability chown, capability chown": {"duplicate"},
}


@pytest.mark.parametrize("rules", FOUND)
def test_what_the_parser_is_silent_about(rules: str) -> None:
    ended = rules if rules.endswith("\n") else f"{rules},"
    wrapped = f"include <tunables/global>\nprofile a {{\n{re.sub(', (?=[/a-z])', f',{chr(10)}', ended)}\n}}\n"
    assert {m.rule for m in lint(wrapped)} == FOUND[rules]


def test_every_rule_of_the_lint_is_tried_and_can_be_accepted_or_not() -> None:
    tried = {rule for rules in FOUND.values() for rule in rules} | {
        m.rule for content, _ in REFUSED.values() for m in lint(content)
    }
    assert tried | {"no-profile"} == set(RULES)
    assert set(Accepted.__args__) == set(RULES) - FATAL  # type: ignore[attr-defined]
    everything = lint("profile a /a { /x r\n /b r, deny /c r, }\n")
    assert {m.rule for m in by_rule(everything, ["silent-deny", "syntax"])} == {"syntax", "missing-map"}
    assert {m.rule for m in lint("")} == {"no-profile"}


@given(PATHS, PATHS)
def test_what_covers_matches_too(wide: str, narrow: str) -> None:
    """A pattern that means all of another one means each path of it."""
    literal = narrow.replace("*", "q")
    if covers(wide, narrow) and "//" not in narrow and "//" not in wide:
        assert matches(wide, literal) or not matches(narrow, literal)
    assert covers(wide, wide)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/dir/*", "/dir/", False),
        ("/dir/*", "/dir/.hidden", True),
        ("/dir/*", "/dir/a/b", False),
        ("/dir/**", "/dir/", False),
        ("/dir/**", "/dir/a/b", True),
        ("/dir/???", "/dir/abc", True),
        ("/dir/???", "/dir/ab", False),
        ("/dir/*.{png,jpg}", "/dir/x.jpg", True),
        ("/dir/*.{png,jpg}", "/dir/x.gif", False),
        ("/dir/[abc]*", "/dir/bx", True),
        ("/dir/[abc]*", "/dir/dx", False),
        ("/dir/[^abc]*", "/dir/dx", True),
        (r"/dir/\*", "/dir/*", True),
        (r"/dir/\*", "/dir/a", False),
        ("@{PROC}/@{pid}/maps", "/proc/17/maps", True),
        ("@{PROC}/@{pid}/maps", "/proc/self/maps", False),
        ("@{HOME}/.bashrc", "/root/.bashrc", True),
        ("@{HOME}/.bashrc", "/home/eve/.bashrc", True),
        ("/a{,/}", "/a", True),
        ("/a+(b)", "/a+(b)", True),
    ],
)
def test_patterns_mean_what_the_manual_says(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


def test_patterns_that_overlap() -> None:
    assert overlap("/bin/b*", "/bin/*c")
    assert overlap("/bin/{a,b}", "/bin/b")
    assert not overlap("/bin/a*", "/bin/b*")
    assert values("@{UNKNOWN}/x", {}) == ["*/x"]


@given(st.text(alphabet='abx/{}(),@"#\n ^-=*r', max_size=60))
def test_no_text_makes_the_reader_fail(content: str) -> None:
    found = read(f"profile a {{\n{content}\n}}\n")
    assert len(found.profiles) >= 1
    lint(content)


def test_what_is_written_is_read_again() -> None:
    body = ProfileBody.model_validate(
        {
            "variables": {"A": ["/a", "/b"]},
            "includes": ["abstractions/base"],
            "capabilities": ["setuid", "chown"],
            "files": [{"paths": ["/a b", "/c"], "access": "rw", "owner": True, "comment": "odd, {names}"}],
            "exec": [{"path": "/bin/x", "to": "child", "name": "x", "access": "r"}],
            "children": {"x": {"files": [{"path": "/bin/x", "access": "mr"}]}},
        }
    )
    lines = profile(body, "a", "/usr/bin/a", "usr.bin.a", ["Top."])
    found = read(text(lines))
    assert not found.mistakes
    assert found.variables == {"A": ["/a", "/b"]}
    top, child = found.profiles
    assert (top.name, top.attachment, child.full_name) == ("a", "/usr/bin/a", "a//x")
    assert [r.words[1] for r in top.rules if r.kind == "capability"] == ["chown", "setuid"]
    assert [(r.path, r.access, r.exec, r.target, r.owner) for r in top.rules if r.kind == "file"] == [
        ("/a b", "rw", "", "", True),
        ("/c", "rw", "", "", True),
        ("/bin/x", "r", "Cx", "x", False),
    ]
    for number, line in enumerate(lines, 1):
        for rule in top.rules:
            if rule.line == number:
                assert line.path, "every rule knows its place in the document"


def test_modes_as_files_tell_them() -> None:
    found = read_facts("@files\nfile a\n@links\n/x/disable/off\n/x/force-complain/linked\n@none\n")
    one = "profile a flags=(complain) { }\n"
    assert mode_in_files("off", one, found) == "disabled"
    assert mode_in_files("linked", "profile a { }", found) == "complain"
    assert mode_in_files("a", one, found) == "complain"
    assert mode_in_files("a", f"{one}profile b {{ }}\n", found) == "partly complain"
    assert mode_in_files("a", "profile a flags=(attach_disconnected) { }\n", found) == "enforce"


def test_words_of_the_parser_find_their_document() -> None:
    said = "Cache read/write disabled: x\nAppArmor parser error at line 2: syntax error, y\n"
    said += "AppArmor parser error at line 9: z\n"
    assert explained(said, "a b.yaml\n0 14") == [
        "a b.yaml:14: syntax error, y (if a comma is missing, it is in the line before)",
        "line 9 of the text: z",
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/srv/{a,b", "a { that is never closed"),
        ("/srv/a}", "closes no choice"),
        ("/srv/{a}", "closes no choice"),
        ("/srv/[ab", "a [ that is never closed"),
        ("/srv/a\\", "ends with a backslash"),
        ("@{HOME}/{a,{b,c}}/[^x]/\\{", ""),
        ("/{,var/}run/x,y", ""),
    ],
)
def test_a_pattern_that_no_parser_takes_is_refused(path: str, words: str) -> None:
    """A brace that is open swallows the rule's letters, and a last backslash the space before them."""
    if words:
        with pytest.raises(ValueError, match=re.escape(words)):
            FileRule(path=path, access="r")
        with pytest.raises(ValueError, match=re.escape(words)):
            ExecRule(paths=("/bin/x", path))
    else:
        assert FileRule(path=path, access="r").path == path
