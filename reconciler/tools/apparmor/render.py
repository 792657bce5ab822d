"""The text of a profile, as a person would write it: parts in a fixed order, permissions in a column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from reconciler.tools.apparmor.rules import (
    ChildBody,
    DBusRule,
    ExecRule,
    FileRule,
    MountRule,
    NetworkRule,
    ProfileBody,
    PtraceRule,
    Qualified,
    SignalRule,
)

Path = tuple[str | int, ...]
COLUMN: Final = 48
"""No permission stands further right than this, but for those of longer paths."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9/._@{}*?\[\]^,+:%~$!-]*[^,]")


@dataclass(frozen=True, slots=True)
class Written:
    """A line of the text, and the place in the profile's spec that it comes from."""

    text: str
    path: Path = ()


def profile(body: ProfileBody, name: str, attachment: str, file: str, header: Sequence[str] = ()) -> list[Written]:
    """The lines of a profile.

    Args:
        name: of the profile; may be the attachment.
        attachment: pattern of the programs that it is for; may be empty.
        file: its file in /etc/apparmor.d.
        header: lines of a comment at the top.
    """
    out = [Written(f"# {line}") for line in header]
    if header:
        out.append(Written(""))
    if body.abi:
        out += [Written(f"abi <abi/{body.abi}>,", ("abi",)), Written("")]
    out += [Written(f"include <{one}>", ("tunables", i)) for i, one in enumerate(body.tunables)]
    out += [Written("")] if body.tunables else []
    for variable, values in body.variables.items():
        out.append(Written(f"@{{{variable}}} = {' '.join(values)}", ("variables", variable)))
    out += [Written("")] if body.variables else []
    words = [f"profile {_quoted(name)}", *([_quoted(attachment)] if attachment not in ("", name) else [])]
    out.append(Written(f"{' '.join(words)}{_flags(body)} {{", ("program",)))
    inner = _block(body)
    for kind, children in (("profile ", body.children), ("^", body.hats)):
        key = "children" if kind == "profile " else "hats"
        for child, rules in children.items():
            opening = Written(f"{kind}{child}{_flags(rules)} {{", (key, child))
            deeper = [Written(f"  {w.text}" if w.text else "", (key, child, *w.path)) for w in _block(rules)]
            inner += [Written(""), opening, *deeper, Written("}")]
    if body.local:
        inner += [Written(""), Written(f"include if exists <local/{file}>", ("local",))]
    if inner and not inner[0].text:
        del inner[0]
    out += [Written(f"  {w.text}" if w.text else "", w.path) for w in inner]
    return [*out, Written("}")]


def text(lines: Iterable[Written]) -> str:
    """The lines as one text."""
    return "".join(f"{line.text}\n" for line in lines)


def _flags(body: ChildBody) -> str:
    return f" flags=({', '.join(body.flags)})" if body.flags else ""


def _quoted(word: str) -> str:
    return word if _PLAIN.fullmatch(word) else f'"{word}"'


def _block(body: ChildBody) -> list[Written]:
    """The rules, without the braces around them; parts are set off by empty lines."""
    out: list[Written] = []
    for name, lines in _parts(body):
        if not lines:
            continue
        if out:
            out.append(Written(""))
        if comment := body.comments.get(name):  # type: ignore[call-overload]
            out.append(Written(f"# {comment}", ("comments", name)))
        out += lines
    return out


def _parts(body: ChildBody) -> Iterator[tuple[str, list[Written]]]:
    yield "includes", [Written(f"include <{one}>", ("includes", i)) for i, one in enumerate(body.includes)]
    allowed = sorted((one, i) for i, one in enumerate(body.capabilities))
    denied = sorted((one, i) for i, one in enumerate(body.deny_capabilities))
    yield (
        "capabilities",
        [Written(f"capability {one},", ("capabilities", i)) for one, i in allowed]
        + [Written(f"audit deny capability {one},", ("denyCapabilities", i)) for one, i in denied],
    )
    rules: tuple[tuple[str, Sequence[Qualified]], ...] = (
        ("network", body.network),
        ("signals", body.signals),
        ("ptrace", body.ptrace),
        ("mount", body.mount),
        ("dbus", body.dbus),
    )
    for name, found in rules:
        yield name, [w for i, rule in enumerate(found) for w in _commented(rule, f"{_spell(rule)},", (name, i))]
    yield "files", _aligned([(rule, rule.access, ("files", i)) for i, rule in enumerate(body.files)])
    yield "exec", _aligned([(rule, _transition(rule), ("exec", i)) for i, rule in enumerate(body.exec)])
    yield (
        "extraRules",
        [
            Written(rule if rule.endswith((",", "}")) else f"{rule},", ("extraRules", i))
            for i, rule in enumerate(body.extra_rules)
        ],
    )


def _commented(rule: Qualified, line: str, path: Path) -> list[Written]:
    above = [Written(f"# {rule.comment}", (*path, "comment"))] if rule.comment else []
    return [*above, Written(line, path)]


def _before(rule: Qualified) -> str:
    return f"{'audit ' if rule.audit else ''}{'deny ' if rule.deny else ''}"


def _transition(rule: ExecRule) -> str:
    return f"{rule.access or ''}{rule.letters}" + (f" -> {_quoted(rule.name)}" if rule.name else "")


def _aligned(rules: Sequence[tuple[FileRule | ExecRule, str, Path]]) -> list[Written]:
    """Rules about paths: a column of permissions for each run of rules without a comment between them."""
    out: list[Written] = []
    run: list[tuple[str, str, Path]] = []

    def end() -> None:
        width = max((len(left) for left, _, _ in run if len(left) < COLUMN), default=0)
        out.extend(Written(f"{left:<{width}} {right},", path) for left, right, path in run)
        run.clear()

    for rule, right, path in rules:
        if rule.comment:
            end()
            if out:
                out.append(Written(""))
            out.append(Written(f"# {rule.comment}", (*path, "comment")))
        before = f"{_before(rule)}{'owner ' if rule.owner else ''}"
        for index, one in enumerate(rule.all_paths):
            place = (*path, "paths", index) if rule.paths else (*path, "path")
            run.append((f"{before}{_quoted(one)}", right, place))
    end()
    return out


def _set(words: Sequence[str]) -> str:
    return f"({', '.join(words)})"


def _spell(rule: Qualified) -> str:
    """A rule that is not about a path, without its comma."""
    words: list[str]
    match rule:
        case NetworkRule():
            words = ["network", rule.family, rule.type or ""]
        case SignalRule():
            words = ["signal", _set(rule.access) if rule.access else ""]
            words += [f"set={_set(rule.signals)}" if rule.signals else "", f"peer={rule.peer}" if rule.peer else ""]
        case PtraceRule():
            words = ["ptrace", _set(rule.access) if rule.access else "", f"peer={rule.peer}" if rule.peer else ""]
        case MountRule():
            words = _mount(rule)
        case DBusRule():
            words = ["dbus", _set(rule.access) if rule.access else ""]
            named = {n: getattr(rule, n) for n in ("bus", "name", "path", "interface", "member")}
            words += [
                f'{name}="{value}"' if name != "bus" else f"bus={value}" for name, value in named.items() if value
            ]
            peer = [f'{n}="{v}"' for n, v in (("name", rule.peer_name), ("label", rule.peer_label)) if v]
            words.append(f"peer={_set(peer)}" if peer else "")
        case _:
            raise TypeError(f"no text for {type(rule).__name__}")
    return _before(rule) + " ".join(filter(None, words))


def _mount(rule: MountRule) -> list[str]:
    words: list[str] = [rule.action]
    if rule.action == "pivot_root":
        words += [f"oldroot={_quoted(rule.source)}" if rule.source else "", _quoted(rule.target) if rule.target else ""]
        return words
    words += [f"fstype={rule.fstype}" if rule.fstype else "", f"options={_set(rule.options)}" if rule.options else ""]
    if rule.action == "mount":
        words += [_quoted(rule.source) if rule.source else "", f"-> {_quoted(rule.target)}" if rule.target else ""]
    else:
        words.append(_quoted(rule.target) if rule.target else "")
    return words
