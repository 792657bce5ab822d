"""The Dockerfile grammar, and that no text at all makes the reader or the rules fail."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.tools.nonroot import shell
from reconciler.tools.nonroot.containerfile import examine
from reconciler.tools.nonroot.dockerfile import assignments, expand, parse, words
from reconciler.tools.nonroot.mend import mend
from reconciler.tools.nonroot.permissions import mode_of


def names(text: str) -> list[tuple[str, str, int]]:
    return [(i.name, i.text, i.line) for s in parse(text).stages for i in s.instructions]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FROM x\nuser 1\n", [("USER", "1", 2)]),
        ("FROM x\nUSER\t1:0\n", [("USER", "1:0", 2)]),
        ("FROM x\nRUN a \\\n  b\nUSER 1", [("RUN", "a   b", 2), ("USER", "1", 4)]),
        ("FROM x\nRUN a \\  \t\n  b\n", [("RUN", "a   b", 2)]),
        ("FROM x\nRUN a \\\n# a comment\n\n  b\n", [("RUN", "a   b", 2)]),
        ("FROM x\nRUN a \\\\\nUSER 2\n", [("RUN", "a \\\\", 2), ("USER", "2", 3)]),
        ("# escape=`\nFROM x\nRUN a `\n  b \\\nUSER 2\n", [("RUN", "a   b \\", 3), ("USER", "2", 5)]),
        ("# comment\n# escape=`\nFROM x\nRUN a \\\nb\n", [("RUN", "a b", 4)]),
        ("\ufeffFROM x\r\nUSER 2\r\n", [("USER", "2", 2)]),
        ("FROM x\nRUN <<EOF\nUSER root\nEOF\nUSER 3\n", [("RUN", "<<EOF", 2), ("USER", "3", 5)]),
        ("FROM x\nRUN <<-'E O'\nx\nEOF\n", [("RUN", "<<-'E O'", 2)]),
        ("FROM x\nRUN echo '<<EOF'\nUSER 3\n", [("RUN", "echo '<<EOF'", 2), ("USER", "3", 3)]),
        ("FROM x\nCOPY <<A <<B /\n1\nA\n2\nB\nUSER 3\n", [("COPY", "<<A <<B /", 2), ("USER", "3", 7)]),
        ("FROM x\nCOPY --chown=1:0 --chmod=g=u a b\n", [("COPY", "a b", 2)]),
        ("FROM x\nUSER 1 \\", [("USER", "1", 2)]),
    ],
)
def test_instructions(text: str, wanted: list[tuple[str, str, int]]) -> None:
    assert names(text) == wanted


def test_here_documents_keep_their_text_and_place() -> None:
    one = parse("FROM x\nRUN <<-EOF sh\n\tchown a b\n\tEOF\n").stages[0].instructions[0]
    assert [(h.name, h.text, h.line) for h in one.heredocs] == [("EOF", "chown a b", 3)]


def test_stages_are_followed_by_name_and_in_order() -> None:
    text = "ARG B=base\nFROM alpine AS Base\nUSER 1\nFROM other\nUSER 2\nFROM ${B} AS last\nRUN x\n"
    assert [s.line for s in parse(text).chain()] == [2, 6]
    assert parse("FROM a AS a\nUSER 1\nFROM a AS a\n").chain()[0].line == 1
    assert len(parse("FROM a AS a\n").chain()) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", "x"),
        ("${A}:0", "x:0"),
        ("${U:-1001}", "1001"),
        ("${E-1}", ""),
        ("${E:-1}", "1"),
        ("${A:+y}", "y"),
        ("${U:+y}", ""),
        ("${U:-${A}}", "x"),
        ("'$A'", "$A"),
        ('"$A b"', "x b"),
        (r"\$A", "$A"),
        ("$U", None),
        ("${U:?no}", None),
        ("${", None),
        ("${A#x}", None),
        ("$", "$"),
    ],
)
def test_variables(text: str, value: str | None) -> None:
    assert expand(text, {"A": "x", "E": ""}) == value


def test_assignments_in_both_forms() -> None:
    assert assignments('A=1 B="2 3" C') == [("A", "1"), ("B", '"2 3"'), ("C", None)]
    assert assignments("HOME /srv app") == [("HOME", "/srv app")]
    assert words(r"a\ b 'c d'") == [r"a\ b", "'c d'"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a b && c | d; e", [("a", "b"), ("c",), ("d",), ("e",)]),
        ("if x; then chown a b; fi", [("x",), ("chown", "a", "b")]),
        ("A=1 B=2 cmd 'x y'", [("cmd", "x y")]),
        ("echo hi >/etc/passwd 2>&1", [("echo", "hi")]),
        ("cmd # chown\nnext", [("cmd",), ("next",)]),
        ("(cd / && ls)", [("cd", "/"), ("ls",)]),
        ("echo 'a; chown b'", [("echo", "a; chown b")]),
        ("exec gosu app x", [("gosu", "app", "x")]),
    ],
)
def test_commands_of_shell_text(text: str, wanted: list[tuple[str, ...]]) -> None:
    assert [c.words for c in shell.commands(text)] == wanted


def test_commands_know_their_line_and_what_they_write() -> None:
    found = shell.commands("a\nb \\\n c\nd > x >> /etc/passwd")
    assert [(c.words[0], c.line, c.redirected) for c in found] == [
        ("a", 0, ()),
        ("b", 1, ()),
        ("d", 3, ("x", "/etc/passwd")),
    ]


@pytest.mark.parametrize(
    ("mode", "writes", "lacks", "world", "special"),
    [
        ("g=u", True, False, False, False),
        ("g+w", True, False, False, False),
        ("g+rwX", True, False, False, False),
        ("ug=rwX,o=", True, False, False, False),
        ("775", True, False, False, False),
        ("0770", True, False, False, False),
        ("755", False, False, False, False),
        ("700", False, True, False, False),
        ("1777", True, False, False, False),
        ("777", True, False, True, False),
        ("a+w", True, False, True, False),
        ("4755", False, False, False, True),
        ("u+s", None, False, False, True),
        ("g-w", False, False, False, False),
        ("+x", None, False, False, False),
    ],
)
def test_modes(mode: str, writes: bool | None, lacks: bool, world: bool, special: bool) -> None:
    found = mode_of(mode)
    assert found is not None
    assert (found.group_writes, found.group_lacks, found.world_writes, found.special) == (writes, lacks, world, special)
    assert mode_of("u=") is not None
    assert mode_of("/etc") is None


# ------------------------------------------------------------------------------------------------ any text at all

SHORT = """FROM RUN USER COPY ENV ARG ONBUILD EXPOSE ENTRYPOINT CMD HOME= --chown --chown= --chmod= --from= <<EOF
<<-'E' EOF \\ ` $ ${ } ${A:- " ' [ ] , : 0 1001 root nobody chown chmod -R g=u / /app && ; sudo adduser -u #"""
LONG = [
    "9" * 30,
    "# escape=`",
    "\n",
    "\\\n",
    "\t",
    " ",
    "\0",
    "\ud7ff",
    "é",
    "\u2028",
    "\x0c",
    "RUN ",
    "USER ",
    "COPY ",
]
PIECES = st.sampled_from([*SHORT.split(), *LONG])
TEXTS = st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=60).map("".join))


@given(TEXTS)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_makes_it_fail(text: str) -> None:
    parsed = parse(text)
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").count("\n") + 1
    for stage in parsed.stages:
        for one in stage.instructions:
            assert 1 <= one.line <= one.end <= lines
    for flaw in examine("Containerfile", "FROM x\n" + text):
        assert 1 <= flaw.line <= lines + 1
        assert flaw.mended


@given(TEXTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_mended_has_fewer_flaws_and_mending_ends(text: str) -> None:
    def flaws(now: str) -> list[object]:
        return list(examine("Containerfile", now))

    before = "FROM x\n" + text
    after, mended = mend(before, lambda now: examine("Containerfile", now))
    if mended:
        assert len(flaws(after)) < len(flaws(before)) + len(mended)
        assert mend(after, lambda now: examine("Containerfile", now))[1] == []
    else:
        assert after == before


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        "FROM x\nRUN " + "\\\n" * 100_000,
        "FROM x\nUSER " + "${A:-" * 50_000,
        "FROM x\nUSER " + "${A:-${B:-${C}}}" * 5_000,
        "FROM x\nRUN chmod g=u " + " ".join(f"/a{i}" for i in range(60_000)),
        "FROM x\nRUN chown 5:5 " + " ".join(f"/a{i}" for i in range(20_000)),
        "FROM x\n" + "COPY <<A /\n" * 50_000,
        "FROM x\nRUN " + "\\ " * 200_000,
        "FROM x AS x\n" * 20_000,
        "FROM x\nRUN " + "'" * 500_001,
        "FROM x\nENTRYPOINT " + "[" * 100_000,
        "FROM x\nUSER " + "9" * 100_000,
        "FROM x\nENV A=xx\n" + "ENV A=$A$A\n" * 2_000,
        "FROM x\nRUN chown 5:5 " + "/a" * 200_000,
    ],
    ids=range(13),
)
def test_hostile_files_come_to_an_end(text: str) -> None:
    """What doubles, nests or repeats itself: moments each, or the test runs into its limit."""
    assert examine("Containerfile", text)
