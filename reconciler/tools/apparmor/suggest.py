"""From records to rules: what a profile lacks, as rules of a document; abstractions and patterns where they fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from reconciler.tools.apparmor.abstractions import NETWORK, best, brings
from reconciler.tools.apparmor.globs import TUNABLES, Patterns
from reconciler.tools.apparmor.reading import ReadProfile, ReadRule, ReadText
from reconciler.tools.apparmor.records import Access

LETTERS: Final = "rwamkl"
SIBLINGS: Final = 4
"""So many files of one folder, with one ending and one access, become a pattern."""
_OWNED: Final = ("@{HOME}/", "/tmp/", "/var/tmp/", "/dev/shm/", "@{PROC}/@{pid}/")  # noqa: S108  patterns, not files
"""Where a rule is better off with `owner`, if the files belonged to the process's user."""


@dataclass(frozen=True)
class Proposal:
    """One new rule.

    Attributes:
        section: where it goes in the document, such as `files`.
        value: the entry: an object, or a name.
        count: how many records ask for it.
        example: one of them, in words.
        denied: some were refused.
        instead: a rule that is there already, and that this one widens.
    """

    section: str
    value: Any
    count: int
    example: str
    denied: bool = False
    instead: str = ""


@dataclass
class Suggestion:
    """What one profile lacks. `covered`: records that need nothing new. `unclear`: in words, what becomes no rule."""

    profile: str
    proposals: list[Proposal] = field(default_factory=list)
    records: int = 0
    covered: int = 0
    unclear: list[str] = field(default_factory=list)

    @property
    def spec(self) -> dict[str, list[Any]]:
        """The proposals as a part of a document's spec."""
        out: dict[str, list[Any]] = {}
        for one in self.proposals:
            out.setdefault(one.section, []).append(one.value)
        return out


def suggest(found: Iterable[Access], profile: str, existing: ReadText | None = None) -> Suggestion:
    """What a profile lacks to allow all that the records are about.

    Args:
        found: records, also of other profiles, which are left out.
        profile: as the kernel calls it; a child as `httpd//child`.
        existing: the text in which the profile is now.
    """
    # What is in a policy namespace, such as that of a container, has a profile of its own by the same name.
    mine = [one for one in found if one.confined == profile and not one["namespace"]]
    now = next((p for p in existing.profiles if p.full_name == profile), None) if existing else None
    known = Patterns({**TUNABLES, **(existing.variables if existing else {})})
    out = Suggestion(profile, records=len(mine))
    files: dict[tuple[str, bool], _Files] = {}
    others: dict[tuple[str, str], tuple[Any, list[Access]]] = {}
    for one in mine:
        asked = _asked(one)
        if asked is None:
            out.unclear.append(_words(one) + (f": {one['info']}" if one["info"] else ""))
        elif asked[0] == "files":
            pattern = general(one["name"])
            owned = bool(one["fsuid"]) and one["fsuid"] == one["ouid"] and pattern.startswith(_OWNED)
            files.setdefault((pattern, owned), _Files()).add(one, str(asked[1]))
        else:
            section, value = asked
            others.setdefault((section, repr(value)), (value, []))[1].append(one)
    _propose_files(_grouped(files), now, known, out)
    for (section, _), (value, records) in others.items():
        if _is_there(section, value, now, known):
            out.covered += len(records)
        else:
            out.proposals.append(_proposal(section, value, records))
    order = {name: i for i, name in enumerate(_ORDER)}
    out.proposals.sort(key=lambda p: (order[p.section], str(p.value)))
    return out


_ORDER: Final = (
    "includes",
    "capabilities",
    "network",
    "signals",
    "ptrace",
    "mount",
    "dbus",
    "files",
    "exec",
    "extraRules",
)


def _words(one: Access) -> str:
    what = one["name"] or one["capname"] or one["family"] or one["target"] or one["peer"]
    verb = "allowed" if one.allowed else "denied"
    return " ".join(filter(None, (verb, one["requested_mask"] or one["denied_mask"], one.operation, what))) + (
        f" by {one['comm']}" if one["comm"] else ""
    )


def _proposal(section: str, value: Any, records: Sequence[Access], instead: str = "") -> Proposal:
    denied = any(not r.allowed for r in records)
    return Proposal(section, value, len(records), _words(records[0]), denied, instead)


# ------------------------------------------------------------------------------------------------ one record


def letters_of(mask: str) -> str:
    """The kernel's letters as a profile spells them: creating and deleting is writing. In the usual order."""
    found = {{"c": "w", "d": "w"}.get(letter, letter) for letter in mask if letter in "rwacdmklx"}
    if "w" in found:
        found.discard("a")
    return "".join(letter for letter in LETTERS if letter in found)


def _asked(one: Access) -> tuple[str, Any] | None:
    """The section and the entry that a record asks for; of files only the letters. None where there is no telling."""
    mask = one["denied_mask"] or one["requested_mask"]
    operation = one.operation
    if operation == "capable":
        return ("capabilities", one["capname"]) if one["capname"] else None
    if operation == "signal":
        value = {"access": mask.split(), "signals": [one["signal"]] if one["signal"] else [], "peer": one["peer"]}
        return "signals", _given(value)
    if operation == "ptrace":
        return "ptrace", _given({"access": mask.split(), "peer": one["peer"]})
    if operation.startswith("dbus_"):
        return _dbus(one)
    if operation in ("mount", "remount", "umount", "pivotroot"):
        return _mount(one)
    if one["family"] and one["family"] != "unix":
        return "network", _given({"family": one["family"], "type": one["sock_type"]})
    if one["family"] == "unix":
        access = ", ".join(mask.split())
        peer = f" peer=(label={one['peer']})" if one["peer"] else ""
        return "extraRules", f"unix{f' ({access})' if access else ''} type={one['sock_type'] or 'stream'}{peer}"
    if operation in ("change_profile", "change_onexec") and _PROFILE.fullmatch(one["target"] or one["name"]):
        return "extraRules", f"change_profile -> {one['target'] or one['name']}"
    if operation == "userns_create":
        return "extraRules", "userns create"
    if one["name"].startswith("/"):
        if operation == "exec" or "x" in mask:
            return "exec", {"path": general(one["name"]), "to": "inherit", "access": "mr"}
        letters = letters_of(mask)
        return ("files", letters) if letters else None
    return None


_PROFILE: Final = re.compile(r"[A-Za-z0-9_/.@:+~-]+")
"""Names of profiles that need no quotes in a rule."""


def _given(value: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in value.items() if v}


def _dbus(one: Access) -> tuple[str, Any]:
    named = {"access": [one["mask"]] if one["mask"] else [], "bus": one["bus"]}
    if one["mask"] == "bind":
        return "dbus", _given({**named, "name": one["name"]})
    rest = {"path": one["path"], "interface": one["interface"], "member": one["member"]}
    return "dbus", _given({**named, **rest, "peerLabel": one["peer_label"]})


def _mount(one: Access) -> tuple[str, Any]:
    action = {"pivotroot": "pivot_root"}.get(one.operation, one.operation)
    options = [word for word in re.split(r"[,\s]+", one["flags"]) if re.fullmatch(r"[a-z-]+", word)]
    source = one["srcname"] if one["srcname"].startswith("/") else ""
    return "mount", _given(
        {"action": action, "options": options, "fstype": one["fstype"], "source": source, "target": one["name"]}
    )


# ------------------------------------------------------------------------------------------------ files


@dataclass
class _Files:
    letters: str = ""
    records: list[Access] = field(default_factory=list)

    def add(self, one: Access, letters: str) -> None:
        self.letters = letters_of(self.letters + letters)
        self.records.append(one)


def _grouped(files: Mapping[tuple[str, bool], _Files]) -> dict[tuple[str, bool], _Files]:
    """Many files of one folder that are used alike become one pattern."""
    families: dict[tuple[str, str, str, bool], list[str]] = {}
    for (pattern, owned), one in files.items():
        folder, _, name = pattern.rpartition("/")
        suffix = re.search(r"\.[A-Za-z0-9]{1,8}$", name)
        if name and "*" not in name:
            families.setdefault((folder, suffix[0] if suffix else "", one.letters, owned), []).append(pattern)
    out = dict(files)
    for (folder, ending, letters, owned), patterns in families.items():
        if len(patterns) >= SIBLINGS and folder:
            merged = out.setdefault((f"{folder}/*{ending}", owned), _Files())
            for pattern in patterns:
                one = out.pop((pattern, owned))
                merged.letters = letters_of(merged.letters + letters)
                merged.records += one.records
    return out


def _propose_files(
    files: Mapping[tuple[str, bool], _Files], now: ReadProfile | None, known: Patterns, out: Suggestion
) -> None:
    included = [one.name for one in now.includes] if now else []
    includes: dict[str, list[Access]] = {}
    for (pattern, owned), one in files.items():
        rules = [r for r in now.rules if r.kind == "file" and not r.deny] if now else []
        refused = [r for r in now.rules if r.kind == "file" and r.deny] if now else []
        sample = one.records[0]["name"]
        blocking = next(
            (r for r in refused if known.matches(r.path, sample) and set(r.access) & set(one.letters)), None
        )
        if blocking is not None:
            out.unclear.append(f"{_words(one.records[0])}: the profile denies it, `{blocking.path} {blocking.access}`")
            continue
        different = {(r["name"], r["fsuid"] == r["ouid"]): r for r in one.records}.values()
        if all(_is_allowed(record["name"], one.letters, rules, included, known, record) for record in different):
            out.covered += len(one.records)
            continue
        abstraction = best(sample, one.letters, included)
        if abstraction is not None and all(brings(abstraction, r["name"], one.letters) for r in different):
            includes.setdefault(abstraction, []).extend(one.records)
            continue
        same = next((r for r in rules if r.path == pattern and r.owner == owned and not r.exec), None)
        letters = letters_of(one.letters + same.access) if same else one.letters
        value = {"path": pattern, "access": letters, **({"owner": True} if owned else {})}
        out.proposals.append(_proposal("files", value, one.records, f"{same.path} {same.access}" if same else ""))
    for name, records in includes.items():
        out.proposals.append(_proposal("includes", name, records))


def _is_allowed(
    path: str, letters: str, rules: Sequence[ReadRule], included: Sequence[str], known: Patterns, record: Access
) -> bool:
    missing = set(letters)
    for rule in rules:
        if (not rule.owner or record["fsuid"] == record["ouid"]) and known.matches(rule.path, path):
            missing -= set(rule.access) | ({"a"} if "w" in rule.access else set())
    return not missing or any(brings(name, path, "".join(missing)) for name in included)


def _is_there(section: str, value: Any, now: ReadProfile | None, known: Patterns) -> bool:
    """Whether the profile has it already, so that the record is older than the rule."""
    if now is None:
        return False
    rules = [r for r in now.rules if not r.deny]
    if section == "capabilities":
        return any(r.kind == "capability" and (value in r.words or len(r.words) == 1) for r in rules)
    if section == "network":
        wanted = (value["family"], value.get("type", ""))
        if any(wanted in NETWORK.get(one.name, ()) for one in now.includes):
            return True
        found = [r.words[1:] for r in rules if r.kind == "network"]
        return any(not words or words == wanted or words == (wanted[0],) for words in found)
    if section == "exec":
        return any(r.exec and known.matches(r.path, value["path"]) for r in rules)
    if section == "extraRules":
        return any(" ".join(r.words).replace(" ", "") == value.replace(" ", "") for r in rules)
    if section in ("signals", "ptrace"):
        kind = {"signals": "signal"}.get(section, section)
        return any(r.kind == kind and _allows(r, value) for r in rules)
    return False


def _allows(rule: ReadRule, value: Mapping[str, Any]) -> bool:
    """Whether a signal or ptrace rule has the access, the signals and the peer of a proposal."""
    words = rule.words[1:]
    access = next((re.findall(r"\w+", w) for w in words if w.startswith("(")), None)
    signals = next((re.findall(r"[a-z0-9+]+", w[4:]) for w in words if w.startswith("set=")), None)
    peer = next((w[5:].strip('"') for w in words if w.startswith("peer=")), None)
    return (
        (access is None or set(value.get("access", ())) <= set(access))
        and (signals is None or set(value.get("signals", ())) <= set(signals))
        and (peer is None or peer == value.get("peer"))
    )


# ------------------------------------------------------------------------------------------------ patterns

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_HEX: Final = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{16,}(?![0-9A-Za-z])")
_LIBRARY: Final = re.compile(r"\.so(\.\d+)+$")
_PYTHON: Final = re.compile(r"(python)\d+(?:\.\d+)?")
_VERSION: Final = re.compile(r"(?<=[-_])v?\d+(?:\.\d+)+(?:[-+~][0-9A-Za-z.+~]+)?")
_SCRATCH: Final = re.compile(r"/(?:tmp|var/tmp|dev/shm|run|var/run|var/cache|var/lib)/")


def general(path: str) -> str:
    """A path with what changes from time to time as a pattern: process ids, versions, random names, homes.

    >>> general("/proc/4711/status"), general("/home/eve/.vimrc")
    ('@{PROC}/@{pid}/status', '@{HOME}/.vimrc')
    >>> general("/usr/lib/x86_64-linux-gnu/libfoo.so.1.2.3"), general("/tmp/tmpa8Xk2_q1")
    ('/usr/lib/@{multiarch}/libfoo.so*', '/tmp/tmp*')
    """
    escaped = re.sub(r"([*?\[\]{}^\\])", r"\\\1", path)
    # What cannot stand in a document: quotes, control characters, and bytes that are no UTF-8.
    escaped = re.sub(r'["\x00-\x1f\x7f\ud800-\udfff]', "?", escaped)
    escaped = re.sub(r"^/proc/\d+/task/\d+(?=/|$)", "@{PROC}/@{pid}/task/@{tid}", escaped)
    escaped = re.sub(r"^/proc/\d+(?=/|$)", "@{PROC}/@{pid}", escaped)
    escaped = re.sub(r"^/proc(?=/)", "@{PROC}", escaped)
    escaped = re.sub(r"^(@\{PROC\}/(?:.*/)?fd(?:info)?/)\d+$", r"\1[0-9]*", escaped)
    escaped = re.sub(r"^/sys(?=/)", "@{sys}", escaped)
    escaped = re.sub(r"^/(?:var/)?run/user/\d+(?=/|$)", "@{run}/user/@{uid}", escaped)
    escaped = re.sub(r"^/(?:home/[^/]+|root)(?=/.)", "@{HOME}", escaped)
    escaped = re.sub(
        r"/(?:x86_64|aarch64|i386|arm|powerpc64le|riscv64|s390x)-linux-gnu[a-z]*(?=/)", "/@{multiarch}", escaped
    )
    escaped = re.sub(r"^(/(?:usr/)?lib/modules)/[^/]+", r"\1/*", escaped)
    head, slash, rest = escaped.rpartition("}/") if escaped.startswith("@{") else ("", "", escaped)
    parts = rest.split("/")
    scratch = bool(_SCRATCH.match(path))
    return head + slash + "/".join(_part(part, scratch and i == len(parts) - 1) for i, part in enumerate(parts))


def _part(part: str, scratch: bool) -> str:
    if part.startswith("@{"):
        return part
    part = _UUID.sub("*", part)
    part = _HEX.sub("*", part)
    part = _LIBRARY.sub(".so*", part)
    part = _PYTHON.sub(r"\g<1>3.*" if "." in part else r"\g<1>3", part) if _PYTHON.search(part) else part
    part = _VERSION.sub("*", part)
    if scratch:
        part = re.sub(r"(?<=[-._])\d{2,}(?=$|\.)", "*", part)
        part = _random(part)
    return re.sub(r"\*{2,}", "*", part)


def _random(name: str) -> str:
    """A temporary name without its random part: digits and letters of both cases in no order."""
    known = re.fullmatch(r"(tmp|sess_|systemd-private-|\.X)([A-Za-z0-9_]{4,})", name)
    if known:
        return f"{known[1]}*"
    stem, dot, ending = name.rpartition(".")
    if not dot:
        stem, ending = name, ""
    for cut in re.finditer(r"(?:^|[-._])([A-Za-z0-9]{6,16})$", stem if dot and not _mixed(ending) else name):
        if _mixed(cut[1]):
            # A word before it, as in sort8sKd2X, stays.
            word = re.match(r"[a-z]{3,}(?=[A-Z0-9])", cut[1])
            kept = name[: cut.start(1) + (word.end() if word else 0)]
            return f"{kept}*{dot}{ending}" if dot and not _mixed(ending) else f"{kept}*"
    return name


def _mixed(word: str) -> bool:
    """Whether it looks random: of three sorts of characters two, more than once mixed."""
    sorts = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in word]
    turns = sum(a != b for a, b in pairwise(sorts))
    return len(word) >= 6 and turns >= 2 and len(set(sorts)) >= 2
