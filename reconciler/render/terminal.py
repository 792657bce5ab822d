"""Plans, progress and results for people: a tree of document -> objects -> steps, colours, diffs, progress bars.

Colours follow the terminal and NO_COLOR (https://no-color.org); text from targets cannot steer the terminal.
"""

from __future__ import annotations

import difflib
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from reconciler.apply import Ended, Result, spell
from reconciler.inventory import Entry
from reconciler.model import Action, Change, Finding, Outcome, Sealed, Secret
from reconciler.plan import Plan
from reconciler.registry import Registry

if TYPE_CHECKING:
    from rich.progress import Progress

_SIGN = {
    Action.CREATE: ("+", "green"),
    Action.UPDATE: ("~", "yellow"),
    Action.REPLACE: ("±", "magenta"),
    Action.DELETE: ("-", "red"),
}
_END = {
    Outcome.DONE: ("✓", "green"),
    Outcome.FAILED: ("✗", "red"),
    Outcome.SKIPPED: ("·", "yellow"),
    Outcome.UNKNOWN: ("?", "magenta"),
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
TITLE = 60
"""Characters of what is under way, beside the bar."""
DIFF_LINES = 60
"""Longer diffs are cut in the terminal; the plan file holds all."""


UNBROKEN = 32_000
"""Columns where nobody looks: lines that go to a file or a program are not broken."""


def console() -> Console:
    """Standard output."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else UNBROKEN)


def errors_console() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else UNBROKEN)


def clean(text: str) -> str:
    """Text with control characters made visible, so that it cannot steer a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub(
        lambda m: f"\\x{ord(m.group()):02x}" if ord(m.group()) < 256 else f"\\u{ord(m.group()):04x}", text
    )


def show(what: Tree | Text, out: Console) -> None:
    """Print a tree or a line. Where there are no colours, without rich, whose layout costs more than the whole plan."""
    if not is_plain(out):
        out.print(what)
    elif isinstance(what, Text):
        out.file.write(f"{what.plain}\n")
        out.file.flush()
    else:
        lines: list[str] = []
        _plain(what, "", "", lines)
        out.file.write("\n".join(lines) + "\n")


def is_plain(out: Console) -> bool:
    """Whether a console shows nothing but text."""
    return out.color_system is None and out.encoding.startswith("utf")


def _plain(node: Tree, first: str, rest: str, lines: list[str]) -> None:
    """Add the lines of a tree; `first` stands before its label, `rest` before everything below that."""
    head, *more = str(node.label).split("\n")
    lines.append(first + head)
    lines.extend(rest + line for line in more)
    for child in node.children:
        last = child is node.children[-1]
        _plain(child, rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "), lines)


# ------------------------------------------------------------------------------------------------ plans


def show_plan(plan: Plan, registry: Registry, out: Console, *, steps: bool = True, drift: bool = False) -> None:
    """A plan (or, with `drift`, a drift report) as a tree, and a summary line."""
    drifted = frozenset(plan.drifted)
    plain = is_plain(out)
    by_origin: dict[str, list[Change[Any]]] = {}
    for change in plan.changes:
        by_origin.setdefault(change.resource.origin, []).append(change)
    for origin, changes in by_origin.items():
        tree = Tree(Text(clean(origin), style="bold"), guide_style="dim")
        shown: dict[tuple[str, str, Action], Change[Any]] = {}
        for change in changes:
            resource = change.resource
            first = shown.setdefault((resource.type, resource.key, change.action), change)
            label = _label(change, change.address in drifted)
            if first is not change and _is_twin(first, change):
                label.append((f"  as on {first.resource.target}", "dim"))
                # On a fleet there are many of them; what would carry colours costs more than finding them.
                tree.add("".join(text for text, _ in label) if plain else Text.assemble(*label))
            else:
                _add_change(tree.add(Text.assemble(*label)), change, registry, steps=steps and not drift)
        show(tree, out)
    show_findings(plan.findings, out)
    _show_unknown(plan.unreachable, out)
    for address, reason in plan.release.items():
        show(Text(f"  {clean(address)} is not ours any more: {clean(reason)}.", style="dim"), out)
    show(_drift_summary(plan) if drift else _summary(plan), out)


def _label(change: Change[Any], drifted: bool) -> list[tuple[str, str]]:
    """Texts with their styles."""
    sign, style = _SIGN[change.action]
    label = [(f"{sign} {clean(change.address)}", style)]
    if drifted:
        label.append(("  changed outside", "bold magenta"))
    return label


def _is_twin(first: Change[Any], other: Change[Any]) -> bool:
    """Whether two hosts get the very same change, so that it need not be spelled out twice."""
    return first.spec == other.spec and all(
        getattr(first, part) == getattr(other, part) for part in ("differences", "before", "after", "why", "risk")
    )


def _add_change(branch: Tree, change: Change[Any], registry: Registry, *, steps: bool) -> None:
    if change.risk:
        branch.add(Text(f"! {change.risk.kind}: {clean(change.risk.text)}", style="bold red"))
        if change.risk.guard:
            branch.add(Text(f"  {clean(change.risk.guard)}", style="yellow"))
    for reason in change.why:
        branch.add(Text(f"because {clean(reason)}", style="dim"))
    for difference in change.differences:
        if change.action is Action.CREATE and difference.attribute == "type":
            continue
        for line in _difference(difference.attribute, difference.before, difference.after, change.action):
            branch.add(line)
    kind = registry.types.get(change.resource.type)
    if steps and kind and kind.steps:
        for step in spell(change, kind.steps):
            branch.add(Text(f"> {clean(str(step))}", style="cyan"))


def _difference(name: str, before: Any, after: Any, action: Action) -> Iterator[Text]:
    texts = [v for v in (before, after) if isinstance(v, str)]
    if any("\n" in t for t in texts) and all(isinstance(v, str) or v is None for v in (before, after)):
        yield Text(f"{name}:")
        yield from _text_diff(before or "", after or "")
    elif action is Action.CREATE:
        yield Text(f"{name}: {_shown(after)}")
    elif (
        isinstance(before, dict | list)
        and isinstance(after, dict | list)
        and not (_is_flat(before) and _is_flat(after))
    ):
        yield Text(f"{name}:")
        yield from _nested(before, after)
    else:
        yield _arrow(name, before, after)


def _arrow(name: str, before: Any, after: Any) -> Text:
    line = Text(f"{name}: ")
    return line.append(_shown(before), style="red").append(" -> ", style="dim").append(_shown(after), style="green")


def _is_flat(value: Any) -> bool:
    """A list that reads well in one line."""
    return isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)


@lru_cache(maxsize=64)
def _text_diff(before: str, after: str) -> Sequence[Text]:
    """A unified diff. The same one is mostly wanted for many hosts."""
    return tuple(_diff_lines(before, after))


def _diff_lines(before: str, after: str) -> Iterator[Text]:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    lines = list(difflib.unified_diff(old, new, n=2))[2:]
    if not old:
        lines = lines[1:]  # where nothing was before, the place of the change says nothing
    for line in lines[:DIFF_LINES]:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[0], "dim")
        end = "" if line.endswith("\n") else "  (no newline at the end)"
        yield Text(f"  {clean(line.rstrip(chr(10)))}{end}", style=style)
    if len(lines) > DIFF_LINES:
        yield Text(f"  ... {len(lines) - DIFF_LINES} more lines", style="dim")


def _nested(before: Any, after: Any) -> Iterator[Text]:
    from deepdiff import DeepDiff

    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys(), key=str):
            if before.get(key) != after.get(key):
                yield from (
                    Text("  ") + line
                    for line in _difference(clean(str(key)), before.get(key), after.get(key), Action.UPDATE)
                )
        return
    found = DeepDiff(_readable(before), _readable(after), verbose_level=2, ignore_order=False)
    for line in str(found.pretty()).splitlines():
        yield Text(f"  {clean(line)}")


def _shown(value: Any) -> str:
    match value:
        case None:
            return "(absent)"
        case Sealed() | Secret():
            return str(value)
        case bool():
            return str(value).lower()
        case str():
            return clean(value) if value else '""'
        case _:
            from reconciler.model import canonical

            return clean(canonical(_readable(value)))


def _readable(value: Any) -> Any:
    """Sealed secrets inside a value as the short text that stands for them."""
    if isinstance(value, Mapping):
        return {k: _readable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(v) for v in value]
    return str(value) if isinstance(value, Sealed) else value


def show_findings(findings: Sequence[Finding], out: Console) -> None:
    """What audits saw."""
    if not findings:
        return
    tree = Tree(Text(f"Findings ({len(findings)})", style="bold"), guide_style="dim")
    for finding in findings:
        style = "red" if finding.severity == "error" else "yellow"
        branch = tree.add(Text(f"! {clean(finding.rule)}  {clean(finding.address)}", style=style))
        branch.add(Text(clean(finding.message)))
        if finding.fix:
            branch.add(Text(clean(finding.fix), style="dim"))
    show(tree, out)


def _show_unknown(unreachable: Mapping[str, Sequence[str]], out: Console) -> None:
    if unreachable:
        tree = Tree(Text("Unknown", style="bold magenta"), guide_style="dim")
        for reason, addresses in unreachable.items():
            branch = tree.add(Text(clean(reason), style="magenta"))
            shown = addresses if len(addresses) <= 5 else [*addresses[:4], f"and {len(addresses) - 4} more"]
            for address in shown:
                branch.add(Text(clean(address)))
        show(tree, out)


def _summary(plan: Plan) -> Text:
    extras = _extras(plan)
    if plan.empty:
        what = "No changes." if not plan.unknown else "No changes in what could be seen."
        return Text(
            f"{what} {_as_desired(plan.unchanged)}{extras}.",
            style="bold green" if not plan.unknown else "bold",
        )
    counts = ", ".join(f"{plan.count(a)} to {a.value}" for a in _SIGN if plan.count(a))
    return Text(f"Plan: {counts}; {plan.unchanged} unchanged{extras}.", style="bold")


def _drift_summary(plan: Plan) -> Text:
    drifted = len(plan.drifted)
    pending = len(plan.changes) - drifted
    extras = _extras(plan)
    if plan.empty and not plan.findings and not plan.unknown:
        return Text(f"No drift. {_as_desired(plan.unchanged)}.", style="bold green")
    waiting = f", {pending} not applied yet" if pending else ""
    return Text(f"Drift: {drifted} changed outside{waiting}; {plan.unchanged} unchanged{extras}.", style="bold")


def _extras(plan: Plan) -> str:
    out = ""
    if plan.unknown:
        out += f", {len(plan.unknown)} unknown"
    if plan.findings:
        out += f", {many(len(plan.findings), 'finding')}"
    return out


def many(count: int, what: str) -> str:
    """`1 object`, `2 objects`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _as_desired(count: int) -> str:
    return f"{many(count, 'object')} {'is' if count == 1 else 'are'} as desired"


# ------------------------------------------------------------------------------------------------ progress


_SAID: Final = frozenset({"change_finished", "connection_lost"})
"""The events that are worth a line; the others move the bar."""


class Live:
    """Events -> a progress bar on a terminal, and a line for each change that ends.

    Args:
        out: where lines go. The bar is drawn below them if that is a terminal, else on standard error if that is one.
    """

    def __init__(self, out: Console) -> None:
        self._out = out
        place = out if out.is_terminal else errors_console()
        self._progress = _bar(place) if place.is_terminal else None
        self._task: Any = None
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[Live]:
        """Show the bar for as long as the block runs."""
        with self._progress or nullcontext():
            yield self

    def __call__(self, event: str, **fields: Any) -> None:
        """See `Emit`."""
        if self._progress is None and event not in _SAID:
            return
        with self._lock:
            if self._progress is not None:
                self._move(self._progress, event, fields)
            if event == "change_finished":
                self._show_ended(fields["address"], Outcome(fields["outcome"]), fields["reason"])
            elif event == "connection_lost":
                show(Text(f"  {clean(fields['reason'])}", style="magenta"), self._out)

    def _move(self, progress: Progress, event: str, fields: Mapping[str, Any]) -> None:
        match event:
            case "probe_started":
                self._begin(progress, "Looking at the targets", len(fields["targets"]))
            case "apply_started":
                self._begin(progress, "Applying", fields["changes"])
            case "change_started":
                title = f"{fields['action']} {clean(fields['address'])}"
                title = title if len(title) <= TITLE else title[: TITLE - 1] + "…"
                progress.update(self._task, description=title)
            case "probe_finished" | "change_finished":
                progress.advance(self._task)

    def _show_ended(self, address: str, outcome: Outcome, reason: str) -> None:
        if is_plain(self._out):
            # There are many of them; building what would carry colours costs more than all else of a line.
            self._out.file.write(f"{_END[outcome][0]} {clean(address)} {outcome.value}{_because(reason)}\n")
            self._out.file.flush()
        else:
            show(_ended(address, outcome, reason), self._out)

    def _begin(self, progress: Progress, title: str, total: int) -> None:
        if self._task is not None:
            progress.remove_task(self._task)
        self._task = progress.add_task(title, total=total)


def _bar(place: Console) -> Progress:
    """A bar; loaded only where somebody sees it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=place,
        transient=True,
    )


def _ended(address: str, outcome: Outcome, reason: str) -> Text:
    sign, style = _END[outcome]
    line = Text(f"{sign} ", style=style)
    line.append(f"{clean(address)} ", style="")
    line.append(outcome.value, style=style)
    return line.append(_because(reason))


def _because(reason: str) -> str:
    return f": {clean(reason)}" if reason else ""


def show_result(result: Result, out: Console) -> None:
    """The end of an apply."""
    show_findings(result.findings, out)
    unreachable: dict[str, list[str]] = {}
    for address, reason in result.unknown.items():
        unreachable.setdefault(reason, []).append(address)
    _show_unknown(unreachable, out)
    style = "bold green" if result.ok else "bold red"
    show(Text(f"Run {result.run}: {result.summary}.", style=style), out)


def show_ended(ended: Iterable[tuple[str, Ended]], out: Console) -> None:
    """How changes ended, a line each."""
    for address, end in ended:
        show(_ended(address, end.outcome, end.reason), out)


def show_inventory(entries: Iterable[Entry], out: Console) -> None:
    """What is ours."""
    for entry in entries:
        origin = "created" if entry.created else "taken over"
        show(Text(f"{clean(entry.address)}  {clean(entry.origin)}  {origin}  {entry.at}"), out)


def is_interactive() -> bool:
    """Somebody sits there who can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()
