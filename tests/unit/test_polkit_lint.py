"""The reader of polkit's JavaScript, and the mistakes that it finds. That polkit sees it the same way is proven in
tests/lab/test_polkit.py, on the same tables."""

from __future__ import annotations

import random
import tarfile
from base64 import b64encode
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ProbeFailed
from reconciler.kinds.polkit_rule import Grant, rules_js
from reconciler.types.host import Meta
from reconciler.types.host.polkit_lint import is_script, lint
from reconciler.types.host.polkit_rules import problems, unpack
from reconciler.types.host.polkit_script import ScriptError, parse

# One script each. polkit's engine compiles them.
COMPILES = {
    "nothing": "",
    "constant": "const A = 1;",
    "short property": "var a = 1; var o = {a};",
    "method": "var o = {f() { return 1 }};",
    "computed property": 'var k = "a"; var o = {[k]: 1};',
    "power": "var a = 2 ** 3;",
    "numbers": "var a = [0b11, 0o17, 017, 0x1F, .5, 5., 5e3, 1.5E-3];",
    "escapes": r'var a = "\u0041\u{41}\x41\101\0\n\q";',
    "last comma": "var a = [1, 2, ]; var o = {a: 1, };",
    "holes": "var a = [, 1, , 2];",
    "reserved words as names of properties": "var o = {if: 1, class: 2}; o.new = 3; o.default = o.if;",
    "getter": 'var o = {get a() { return 1 }, set a(x) {}, get: 1, set: 2, "b": 3, 4: 5};',
    "regular expressions": 'var r = /[/]x\\//g.test("a"); if (true) /(?:a)(?=b)/im.test("a"); var n = 4 / 2 / 1;',
    "no semicolons": "var a = 1, b = 2\na\n++b\na++\nb\nvar c = a\n",
    "label": "outer: for (;;) { for (;;) { break outer } }",
    "loops": "for (var i = 0; i < 1; i++) continue; for (var k in {}) {} do ; while (false) var a = 1; while (0);",
    "html comments": "var a = 1; <!-- x\n--> y\nvar b;",
    "continued string": 'var a = "x\\\ny";',
    "byte order mark": "\ufeffvar a = 1;",
    "later keywords as names": "var let = 1; var yield = 2; var of = 3, async = 4, static = 5, get = 6;",
    "switch": "switch (1) { case 1: break; default: 2; case 3: }",
    "try": "try { throw 1 } catch (e) { } finally { }",
    "function in a block": "if (true) { function f() {} }",
    "names": "var \\u0061b = 1; var é = 1, $ = 2, _x1 = 3;",
    "return on its own line": "function f() { return\n1 }",
    "new": "new Date; new (function () {})(); new Date(1).getTime();",
    "operators": 'var o = {}; delete o.a; void 0; typeof x; "a" in o; o instanceof Object; !~-+1; (1, 2); 1 ? 2 : 3;',
    "other line ends": "var a = 1;\u2028var b = 2\r\nvar c\r",
    "calls": "(function () { return this })(); (function f(a, b) { return f })(1, 2); [].concat([1])[0];",
    "parentheses instead of precedence": "var a = (1 + 2) * 3 << 1 > 2 == true & 1 | 2 ^ 3 && 4 || 5;",
    "with": "with ({}) { }",
}
# polkit's engine refuses these: the line that we name, and whether it is newer JavaScript.
REFUSED: dict[str, tuple[str, int, bool]] = {
    "let": ("let a = 1;", 1, True),
    "let in a loop": ("for (let i = 0; i < 1; i++) {}", 1, True),
    "arrow function": ("\npolkit.addRule((action, subject) => { return null; });", 2, True),
    "template string": ("var a = `x`;", 1, True),
    "class": ("class A {}", 1, True),
    "for of": ("for (var x of [1]) {}", 1, True),
    "default value": ("function f(a = 1) {}", 1, True),
    "spread": ("var a = [...[1]];", 1, True),
    "destructuring": ("var {a} = {a: 1};", 1, True),
    "optional chaining": ("var a; a?.b;", 1, True),
    "nullish": ("var a = null ?? 1;", 1, True),
    "async": ("async function f() {}", 1, True),
    "module": ('import x from "y";', 1, True),
    "if without a parenthesis": ("polkit.addRule(function (a, s) {\n  if (true {\n  }\n});", 2, False),
    "brace not closed": ("function f() {\n  if (true) {\n}\n", 4, False),
    "too many braces": ("function f() {\n}\n}", 3, False),
    "string not closed": ('var a = 1;\nvar b = "x;\n', 2, False),
    "string over two lines": ('var a = "\n";', 1, False),
    "comment not closed": ("var a;\n/* x\n", 2, False),
    "missing semicolon": ("var a = 1 var b = 2", 1, False),
    "missing comma": ("f(1 2);", 1, False),
    "comma at the end of arguments": ("f(1, );", 1, False),
    "comma at the end of parameters": ("function f(a, ) {}", 1, False),
    "typographic quotes": ("var a = ‘x’;", 1, False),
    "and": ("if (1 and 2) {}", 1, False),
    "elseif": ("if (1) {} elseif (2) {}", 1, False),
    "shell": ("#!/usr/bin/polkit\nvar a;", 1, False),
    "return outside": ("return 1;", 1, False),
    "break outside": ("break;", 1, False),
    "unknown label": ("for (;;) { break y }", 1, False),
    "half a choice": ("var a = true ? 1;", 1, False),
    "two defaults": ("switch (1) { default: default: }", 1, False),
    "constant without a value": ("const A;", 1, False),
    "number with a name": ("var a = 3x;", 1, False),
    "big number": ("var a = 1n;", 1, False),
    "bad escape": (r'var a = "\xZZ";', 1, False),
    "regular expression not closed": ("var r = /(/;", 1, False),
    "unknown group": ("var r = /(?<a>x)/;", 1, False),
    "unknown flags": ("var r = /a/s;", 1, False),
    "function without a name": ("function () {}", 1, False),
    "catch nothing": ("try {} catch {}", 1, False),
    "reserved name": ("var enum = 1;", 1, False),
}


def rule(body: str) -> str:
    return f"polkit.addRule(function(action, subject) {{\n{body}\n}});"


ARTICLE = """\
polkit.addRule(function(action, subject) {
  if (action.id = "org.freedesktop.systemd1.manage-units") {
  if (subject.user === "admin") {
  return polkit.Result.YES;
  }
  }
});
"""
# Script -> "line: rule" of each problem.
MISTAKES = {
    "the published how-to": (ARTICLE, ["2: assignment-in-condition"]),
    "assignment, then and": (
        rule('if (action.id = "x" && subject.user == "a") return "yes";'),
        ["2: assignment-in-condition"],
    ),
    "assignment after and": (
        rule('if (action.id == "x" && (subject.user = "a")) return "yes";'),
        ["2: assignment-in-condition"],
    ),
    "assignment to an and": (
        rule('if (action.id == "x" && subject.user = "a") return "yes";'),
        ["2: assignment-in-condition"],
    ),
    "assignment in or": (
        rule('if (subject.user == "a" || (subject.user = "b")) {\n return "yes" }'),
        ["2: assignment-in-condition"],
    ),
    "assignment of the user": (rule('if (subject.user = "a")\n  return "yes";'), ["2: assignment-in-condition"]),
    "assignment in a function that a rule calls": (
        'function is(it) {\n return it.id = "x" }\n'
        + rule('if (is(action) && subject.user == "a") return "yes";')
        + "\nfunction note(list) { list.last = 1; var own = {}; own.id = 2 }",
        ["2: assignment-in-condition"],
    ),
    "assignment in a choice": (
        rule('return (action.id = "x") ? (subject.active ? "yes" : "no") : null;'),
        ["2: assignment-in-condition"],
    ),
    "assignment in an inner if": (
        rule('if (subject.active) {\n if (subject.local) {\n  if (!(action.id = "x")) { return "yes" } } }'),
        ["4: assignment-in-condition"],
    ),
    "assignment in a loop": (
        rule('while (subject.user = "a") { return "yes" }'),
        ["2: assignment-in-condition"],
    ),
    "assignment with brackets": (
        rule('if (action["id"] = "x") return "no";'),
        ["2: assignment-in-condition"],
    ),
    "assignment as a statement": (rule('action.id = "x";\nreturn "no";'), ["2: assignment-in-condition"]),
    "assignment in a named function": (
        'function f(a, s) {\n if (a.id = "x" && s.active) return "no" }\npolkit.addRule(f);',
        ["2: assignment-in-condition"],
    ),
    "assignment of a variable": (rule('var m = 1;\nif (m = "x") return "no";'), ["3: assignment-in-condition"]),
    "assignment that is meant": (
        rule(
            'var m; if ((m = /x/.exec(action.id)) && subject.active) return "yes";\n'
            "while ((m = f())) {}\nfunction f() {}"
        ),
        [],
    ),
    "text and comments": (
        rule('// if (action.id = "x") return "yes"\n/* let a => `b` */ var s = "action.id = 1 => polkit.Result.Yes";'),
        [],
    ),
    "result with a typing mistake": (rule("if (subject.active) return polkit.Result.Yes;"), ["2: unknown-result"]),
    "result that does not exist": (rule("if (subject.active) return polkit.Result.ALLOW;"), ["2: unknown-result"]),
    "results that exist": (
        "".join(
            rule(f"if (subject.active) return polkit.Result.{name};")
            for name in ("NO", "YES", "AUTH_SELF", "AUTH_SELF_KEEP", "AUTH_ADMIN", "AUTH_ADMIN_KEEP", "NOT_HANDLED")
        ),
        [],
    ),
    "result of the wrong object": (rule("if (subject.active) return polkit.result.YES;"), ["2: unknown-property"]),
    "wrong text": (rule('if (subject.active) return "YES";'), ["2: invalid-result"]),
    "good texts": (rule('return subject.active ? "yes" : subject.local ? "auth_admin_keep" : "no";'), []),
    "true": (rule("if (subject.active) return true;"), ["2: invalid-result"]),
    "a number": (rule("if (subject.active) return 1;"), ["2: invalid-result"]),
    "a list": (rule('if (subject.active) return ["yes"];'), ["2: invalid-result"]),
    "a comparison": (rule('return subject.user == "a";'), ["2: invalid-result"]),
    "an answer of the subject": (rule('return subject.isInGroup("a");'), ["2: invalid-result"]),
    "nothing that counts as true": (
        rule('if (subject.pid) return; if (subject.local) return false; return subject.isInGroup("a") && "yes";'),
        [],
    ),
    "everybody": (rule('if (action.id == "x") {\n return polkit.Result.YES; }'), ["3: everybody"]),
    "everybody, by choice": (rule('return action.id == "x" ? "yes" : null;'), ["2: everybody"]),
    "everybody, by and": (rule('return action.id == "x" && polkit.Result.YES;'), ["2: everybody"]),
    "everybody, without arguments": ('polkit.addRule(function () { return "yes" });', ["1: everybody"]),
    "everybody, in one of the cases": (
        rule('switch (action.id) {\ncase "a": return subject.active ? "yes" : "no";\ncase "b": return "yes"; }'),
        ["4: everybody"],
    ),
    "everybody, after some": (
        rule('if (action.id == "a" && subject.active) { return "yes"; }\nif (action.id == "b") return "yes";'),
        ["3: everybody"],
    ),
    "others were turned away": (
        rule('if (subject.user != "a") { return null; }\nif (action.id == "b") return "yes";'),
        [],
    ),
    "others were turned away, inside": (
        rule('if (action.id != "b" || !subject.active) return;\nreturn "yes";'),
        [],
    ),
    "asked before, and kept": (rule('var ok = subject.isInGroup("a");\nif (ok && action.id == "b") return "yes";'), []),
    "asked in a loop": (
        rule('var us = ["a"], ok; us.forEach(function (u) { if (subject.user == u) ok = 1; }); if (ok) return "yes";'),
        [],
    ),
    "asked by another function": (
        "function ok(s) { return s.active }\n" + rule('if (ok(subject)) return "yes";'),
        [],
    ),
    "asked by a case": (rule('switch (subject.user) { case "a": return "yes"; }'), []),
    "administrators": ('polkit.addAdminRule(function(action, subject) { return ["unix-group:sudo"]; });', []),
    "unknown name": (rule('if (subjct.user == "a") return "no";'), ["2: undefined-name"]),
    "unknown result": (rule("if (subject.active) return YES;"), ["2: undefined-name"]),
    "unknown global": (rule("console.log(1); return null;"), ["2: undefined-name"]),
    "asked whether it is known": (rule('if (typeof admins !== "undefined") return null;'), []),
    "all sorts of names": (
        "x = 5; var y = x;\n"
        + rule(
            "try { z(1) } catch (e) { polkit.log(e) } function z(q) { return arguments.length + y + q } x++; return;"
        ),
        [],
    ),
    "method with a typing mistake": (rule('if (subject.isIngroup("a")) return "yes";'), ["2: unknown-property"]),
    "property that does not exist": (
        rule('if (subject.username == "a" && action.Id != "b") return "yes";'),
        ["2: unknown-property", "2: unknown-property"],
    ),
    "addRule with a typing mistake": ("polkit.addRules(function () {});", ["1: unknown-property"]),
    "methods that are there": (
        rule(
            'if (subject.active && action.id.indexOf("a") == 0 && action.id.startsWith("b") && "x".includes("y"))\n'
            ' return "yes";'
        ),
        [],
    ),
    "methods that are not there": (
        rule('subject.groups.includes("a");\n["a"].find(f);\nObject.values({});\nfunction f() {}'),
        ["2: newer-javascript", "3: newer-javascript", "4: newer-javascript"],
    ),
}


@pytest.mark.parametrize("script", COMPILES.values(), ids=COMPILES)
def test_what_the_engine_compiles_is_read(script: str) -> None:
    parse(script)


@pytest.mark.parametrize(("script", "line", "newer"), REFUSED.values(), ids=REFUSED)
def test_what_the_engine_refuses_is_refused_with_its_line(script: str, line: int, newer: bool) -> None:
    with pytest.raises(ScriptError) as caught:
        parse(script)
    assert (caught.value.line, caught.value.newer) == (line, newer), caught.value
    ((rule_name, message, fix),) = lint({"/x": script})
    assert rule_name == ("newer-javascript" if newer else "syntax-error")
    assert message.startswith(f"/x:{line}: ")
    assert fix


@pytest.mark.parametrize(("script", "wanted"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_found_with_their_line_and_nothing_else_is(script: str, wanted: list[str]) -> None:
    found = lint({"/x": script})
    assert [f"{message.split(':')[1]}: {name}" for name, message, _ in found] == wanted, found
    assert all(fix for _, _, fix in found)


def test_the_message_names_what_to_write() -> None:
    ((_, message, fix),) = lint({"/etc/polkit-1/rules.d/99-run0.rules": ARTICLE})
    assert message.startswith(
        '/etc/polkit-1/rules.d/99-run0.rules:2: `action.id = "org.freedesktop.systemd1.manage-units"`'
    )
    assert fix == 'Write `action.id === "org.freedesktop.systemd1.manage-units"`.'
    ((_, _, fix),) = lint({"/x": MISTAKES["result with a typing mistake"][0]})
    assert fix == "Did you mean polkit.Result.YES?"


def test_files_share_their_global_names() -> None:
    """polkit runs all of them in one engine."""
    user = rule("if (isAdmin(subject)) return polkit.Result.YES;")
    assert [name for name, _, _ in lint({"/b": user})] == ["undefined-name"]
    assert not lint({"/a": "function isAdmin(s) { return s.active }", "/b": user})


def test_hostile_text_ends_in_a_problem_and_not_in_a_crash() -> None:
    for script in ("(" * 100_000, "[" * 5000, "a" + "+a" * 5000, "!" * 5000, "if(1)" * 5000, "{" * 5000, "a?" * 5000):
        lint({"/x": script})
    for script in (
        "f" + ".a" * 5000 + "();",
        "f" + "()" * 5000,
        "f" + "[0]" * 5000 + "();",
        "f(1" + "*1" * 5000 + ");",
    ):
        lint({"/x": rule(script)})
    lint({"/x": rule("return " + " || ".join(["subject.active"] * 3000) + ";")})
    ((_, message, _),) = lint({"/x": rule('if (subject.active) return "\x1b[31mred\u202e";')})
    assert "\x1b" not in message
    assert "\u202e" not in message


@given(st.text(alphabet=st.sampled_from(list("(){}[];,.=!&|+/*'\"\\\n ab1:?<>-`$%^~")), max_size=60))
def test_any_text_is_read_or_refused(script: str) -> None:
    lint({"/x": script})


@given(st.integers())
def test_a_good_rule_that_is_damaged_never_crashes_the_lint(seed: int) -> None:
    chosen = random.Random(seed)
    text = list(chosen.choice([script for script, _ in MISTAKES.values()]))
    for _ in range(3):
        start = chosen.randrange(len(text))
        del text[start : start + chosen.randrange(1, 4)]
        text.insert(chosen.randrange(len(text) + 1), chosen.choice("(){};=&|\"'"))
    lint({"/x": "".join(text)})


HOSTILE = st.text(max_size=30) | st.sampled_from(
    ['"', "'", "\\", "\n", "\u2028", "*/", '" || true || "', "</script>", "\\u0022"]
)


@given(st.lists(HOSTILE, min_size=1, max_size=3), st.lists(HOSTILE, max_size=3), st.lists(HOSTILE, max_size=2))
def test_generated_rules_hold_text_only_as_text(users: list[str], groups: list[str], units: list[str]) -> None:
    """Even of values that the fields would refuse, none becomes code, and the rule is for nobody else."""
    grant = Grant.model_construct(
        action="org.example.x", actions=(), users=tuple(users), groups=tuple(groups), units=tuple(units), verbs=(),
        result="yes", active=None, local=True,
    )  # fmt: skip
    script = rules_js("x", [grant])
    assert script.isascii()
    tree = parse(script)
    strings = [n.text for n in tree.walk() if n.kind == "string"]
    expected = ["org.example.x", *users, *groups, *(x for unit in units for x in ("unit", unit))]
    assert [s.encode("utf-16", "surrogatepass") for s in strings] == [
        e.encode("utf-16", "surrogatepass") for e in expected
    ]
    names = {n.text for n in tree.walk() if n.kind == "name"}
    assert names <= {"polkit", "action", "subject"}
    assert not lint({"/x": script})


def test_a_grant_for_nobody_is_for_nobody() -> None:
    """`check` refuses it before; the generator is safe by itself, too."""
    assert "false" in rules_js("x", [Grant(action="org.example.x")])


# ------------------------------------------------------------------------------------------------ files


def meta(path: str, kind: str = "regular file", mode: str = "0644", owner: str = "root", group: str = "root") -> Meta:
    return Meta(kind, mode, owner, group, 1, 0.0, 0.0, path)


RULES = "/etc/polkit-1/rules.d"
READER = [".", "polkitd", "shared"]
ACCESS = [
    (meta(f"{RULES}/a.rules"), []),
    (meta(f"{RULES}/a.rules", mode="0600"), ["unreadable"]),
    (meta(f"{RULES}/a.rules", mode="0640", group="polkitd"), []),
    (meta(f"{RULES}/a.rules", mode="0640", group="shared"), []),
    (meta(f"{RULES}/a.rules", mode="0640", group="adm"), ["unreadable"]),
    (meta(f"{RULES}/a.rules", mode="0400", owner="polkitd"), []),
    (meta(f"{RULES}/a.rules", mode="0044", owner="polkitd"), ["unreadable"]),
    (meta(f"{RULES}/a.rules", mode="0646"), ["writable"]),
    (meta(f"{RULES}/a.rules", mode="0664"), []),
    (meta(f"{RULES}/a.rules", mode="0664", group="adm"), ["writable"]),
    (meta(f"{RULES}/a.rules", owner="alice"), ["writable"]),
    (meta(f"{RULES}/a.rules", "symbolic link", "0777"), []),
    (meta(RULES, "directory", "0750", group="polkitd"), []),
    (meta(RULES, "directory", "0750"), ["unreadable"]),
    (meta(RULES, "directory", "0777"), ["writable"]),
    (meta(f"{RULES}/d.rules", "directory", "0700"), []),
]


@pytest.mark.parametrize(("one", "wanted"), ACCESS, ids=[f"{m.kind} {m.mode} {m.owner}:{m.group}" for m, _ in ACCESS])
def test_who_may_read_and_write(one: Meta, wanted: list[str]) -> None:
    assert [name for name, _, _ in problems({one.path: one}, {one.path: b""}, READER)] == wanted


def test_without_polkit_nothing_is_unreadable() -> None:
    one = meta(f"{RULES}/a.rules", mode="0600")
    assert not list(problems({one.path: one}, {one.path: b""}, []))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("50-x.rule", ["ignored-name"]),
        ("50-x.rules.txt", ["ignored-name"]),
        ("50-x", ["ignored-name"]),
        ("50-x.rules~", []),
        ("50-x.rules.bak", []),
        ("50-x.rules.dpkg-new", []),
        (".reconciler.Xb3d1Z", []),
    ],
)
def test_rules_that_polkit_does_not_read(name: str, wanted: list[str]) -> None:
    path = f"{RULES}/{name}"
    assert [r for r, _, _ in problems({path: meta(path)}, {path: ARTICLE.encode()}, READER)] == wanted
    assert not list(problems({path: meta(path)}, {path: b"How to write polkit.addRule(...) rules"}, READER))
    assert is_script(ARTICLE)


def test_other_text_and_things_that_are_no_files() -> None:
    latin, gone, pipe = (f"{RULES}/{n}.rules" for n in ("latin", "gone", "pipe"))
    found = {latin: meta(latin), gone: meta(gone, "symbolic link", "0777"), pipe: meta(pipe, "fifo")}
    ((first, a, _), (second, b, _), (third, c, _)) = problems(found, {latin: b"\n// caf\xe9\n", pipe: None}, READER)
    assert (first, second, third) == ("unreadable", "not-utf8", "unreadable")
    assert a.startswith(f"{gone}: ")
    assert b.startswith(f"{latin}:2: ")
    assert "polkitd waits at it" in c


def test_the_archive_of_a_host_is_read_and_a_cut_one_refused() -> None:
    raw = BytesIO()
    with tarfile.open(fileobj=raw, mode="w:") as archive:
        for name, content in (("etc/a.rules", b"x" * 2000), ("etc/we ird\n.rules", b"y")):
            one = tarfile.TarInfo(name)
            one.size = len(content)
            archive.addfile(one, BytesIO(content))
        pipe = tarfile.TarInfo("etc/p.rules")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    text = b64encode(raw.getvalue()).decode()
    assert unpack(text) == {"/etc/a.rules": b"x" * 2000, "/etc/we ird\n.rules": b"y", "/etc/p.rules": None}
    assert unpack("") == {}
    for broken in (b64encode(raw.getvalue()[:1500]).decode(), b64encode(b"x" * 600).decode()):
        with pytest.raises(ProbeFailed):
            unpack(broken)


def test_an_assignment_says_whom_it_opens_the_door_for() -> None:
    def said(condition: str) -> str:
        (_, message, _), *_ = lint({"a.rules": rule(f"if ({condition}) return polkit.Result.YES;")})
        return message.rpartition(": ")[2]

    assert said('action.id = "x"') == "the rule answers for every action."
    assert said('subject.user = "a"') == "the rule answers for every user."
    assert said('action.id == "x" && (subject.user = "a")') == "the rule answers for every user."
