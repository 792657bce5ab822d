"""Path patterns of AppArmor: which paths they mean, and whether one means all that another one does.

The patterns are those of apparmor.d(5), "Globbing": `*` and `?` do not cross a slash, `**` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Final

_NUMBER: Final = "{[0-9],[1-9][0-9],[1-9][0-9][0-9],[1-9][0-9][0-9][0-9],[1-9][0-9][0-9][0-9][0-9],[1-9][0-9][0-9][0-9][0-9][0-9],[1-9][0-9][0-9][0-9][0-9][0-9][0-9]}"  # noqa: E501  the pattern language has no repetition
Variables = Mapping[str, Sequence[str]]

TUNABLES: Final[Variables] = {
    "HOMEDIRS": ["/home/"],
    "HOME": ["@{HOMEDIRS}/*/", "/root/"],
    "PROC": ["/proc/"],
    "sys": ["/sys/"],
    "securityfs": ["@{sys}/kernel/security/"],
    "apparmorfs": ["@{securityfs}/apparmor/"],
    "run": ["/run/", "/var/run/"],
    "etc_ro": ["/etc/", "/usr/etc/"],
    "etc_rw": ["/etc/"],
    "multiarch": ["*-linux-gnu*"],
    "pid": [_NUMBER],
    "pids": [_NUMBER],
    "tid": [_NUMBER],
    "uid": [_NUMBER],
    "uids": [_NUMBER],
    "system_share_dirs": ["/usr/share", "/usr/local/share"],
    "user_share_dirs": ["@{HOME}/.local/share"],
    "flatpak_exports_root": ["flatpak/exports"],
    **{
        f"XDG_{name.upper()}_DIR": [name]
        for name in ("Desktop", "Documents", "Download", "Music", "Pictures", "Templates")
    },
    "XDG_PUBLICSHARE_DIR": ["Public"],
    "XDG_VIDEOS_DIR": ["Videos"],
}
"""Variables that `include <tunables/global>` brings, with roughly what they stand for on Debian."""
_SIZES: Final = {
    "int": (2, 4, 6, 8, 9, 10, 12, 15, 16, 32, 64),
    "hex": (2, 4, 6, 8, 9, 10, 12, 15, 16, 32, 38, 64),
    "rand": (2, 4, 6, 8, 9, 10, 12, 15, 16, 32, 64),
    "word": (2, 4, 6, 8, 9, 10, 12, 15, 16, 32, 64),
}
GLOBAL_NAMES: Final = frozenset(
    (
        *(TUNABLES.keys() - {"apparmorfs", "securityfs"}),
        *("d", "l", "c", "w", "h", "u8", "u16", "u32", "u64"),
        *_SIZES,
        *(f"{n}{s}" for n, sizes in _SIZES.items() for s in sizes),
    )
)
"""Every name that `include <tunables/global>` declares in AppArmor 4.1; those without a value above are just known."""
BUILT_IN: Final = frozenset({"profile_name", "exec_path", "attach_path"})
"""Names that the parser itself knows."""
_MANY: Final = 64
_REFERENCE: Final = re.compile(r"@\{([A-Za-z][A-Za-z0-9_]*)\}")


def variables_in(pattern: str) -> list[str]:
    """Names of the variables of a pattern, each once.

    >>> variables_in("@{PROC}/@{pid}/maps")
    ['PROC', 'pid']
    """
    return list(dict.fromkeys(_REFERENCE.findall(pattern)))


def values(pattern: str, known: Variables, depth: int = 8) -> list[str]:
    """What a pattern is with its variables put in; unknown ones become `*`. Many values are cut off at 64.

    >>> values("@{run}/x", TUNABLES)
    ['/run/x', '/var/run/x']
    """
    names = variables_in(pattern)
    if not names or depth == 0:
        return [re.sub(r"/{2,}", "/", _REFERENCE.sub("*", pattern))]
    out: list[str] = []
    for chosen in product(*(known.get(name) or ("*",) for name in names)):
        put = dict(zip(names, chosen, strict=True))
        out += values(_REFERENCE.sub(lambda m, put=put: put[m[1]], pattern), known, depth - 1)  # type: ignore[misc]
        if len(out) > _MANY:
            break
    return out[:_MANY]


@lru_cache(maxsize=4096)
def _expression(pattern: str) -> str:
    out: list[str] = []
    i, depth = 0, 0
    while i < len(pattern):
        char = pattern[i]
        at_start = i == 0 or pattern[i - 1] == "/"
        if char == "\\" and i + 1 < len(pattern):
            i += 1
            out.append(re.escape(pattern[i]))
        elif pattern.startswith("**", i):
            while pattern.startswith("*", i + 1):
                i += 1
            # `/dir/**` is all below the folder, and not the folder itself.
            out.append(".+" if at_start and i + 1 == len(pattern) else ".*")
        elif char == "*":
            out.append("[^/]+" if at_start and pattern[i + 1 : i + 2] in ("", "/") else "[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and "]" in pattern[i + 2 :]:
            end = pattern.index("]", i + 2)
            body = pattern[i + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            out.append(f"[{body}]")
            i = end
        elif char == "{":
            depth += 1
            out.append("(?:")
        elif char == "}" and depth:
            depth -= 1
            out.append(")")
        elif char == "," and depth:
            out.append("|")
        else:
            out.append(re.escape(char))
        i += 1
    return "".join(out) + ")" * depth


@lru_cache(maxsize=4096)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    try:
        return re.compile("|".join(f"(?:{_expression(one)})" for one in patterns), re.DOTALL)
    except re.error:
        return None


class Patterns:
    """Compares patterns under given variables, and works each pattern out once."""

    def __init__(self, known: Variables) -> None:
        self.known = known
        self._expressions: dict[str, re.Pattern[str] | None] = {}
        self._all_samples: dict[str, Sequence[str]] = {}

    def _compiled(self, pattern: str) -> re.Pattern[str] | None:
        if pattern not in self._expressions:
            self._expressions[pattern] = _compiled(tuple(values(pattern, self.known)))
        return self._expressions[pattern]

    def _samples(self, pattern: str) -> Sequence[str]:
        if pattern not in self._all_samples:
            found = (s for value in values(pattern, self.known) for s in _samples(value))
            self._all_samples[pattern] = tuple(dict.fromkeys(found))
        return self._all_samples[pattern]

    def matches(self, pattern: str, path: str) -> bool:
        """Whether a path is one that the pattern means."""
        found = self._compiled(pattern)
        return found is not None and found.fullmatch(path) is not None

    def covers(self, wide: str, narrow: str) -> bool:
        """Whether the first pattern means all that the second one does; False in doubt."""
        if wide == narrow:
            return True
        found, samples = self._compiled(wide), self._samples(narrow)
        return found is not None and bool(samples) and all(found.fullmatch(sample) for sample in samples)

    def overlap(self, one: str, other: str) -> bool:
        """Whether there is a path that both patterns mean. A class such as [a-c] counts as any character."""
        left = [_tokens(s) for v in values(one, self.known) for s in _without_braces(v)]
        right = [_tokens(s) for v in values(other, self.known) for s in _without_braces(v)]
        return any(_meet(a, b) for a in left[:_MANY] for b in right[:_MANY])


def matches(pattern: str, path: str, known: Variables = TUNABLES) -> bool:
    """Whether a path is one that the pattern means.

    >>> matches("/etc/*.conf", "/etc/a.conf"), matches("/etc/*", "/etc/a/b"), matches("/etc/**", "/etc/a/b")
    (True, False, True)
    """
    return Patterns(known).matches(pattern, path)


def covers(wide: str, narrow: str, known: Variables = TUNABLES) -> bool:
    """Whether the first pattern means all that the second one does; False in doubt.

    >>> covers("/etc/**", "/etc/ssl/*.pem"), covers("/etc/*", "/etc/**"), covers("/a/*", "/a/b")
    (True, False, True)
    """
    return Patterns(known).covers(wide, narrow)


def overlap(one: str, other: str, known: Variables = TUNABLES) -> bool:
    """Whether there is a path that both patterns mean.

    >>> overlap("/bin/*sh", "/bin/b*"), overlap("/bin/a*", "/bin/b*")
    (True, False)
    """
    return Patterns(known).overlap(one, other)


def is_literal(pattern: str) -> bool:
    """Whether it means one path only."""
    return not re.search(r"[*?\[{]|@\{", pattern)


def _without_braces(pattern: str) -> list[str]:
    start = next((i for i, c in enumerate(pattern) if c == "{" and pattern[i - 1 : i] != "\\"), -1)
    if start < 0:
        return [pattern]
    end = _closing(pattern, start)
    parts = _alternatives(pattern[start + 1 : end])
    return [s for part in parts for s in _without_braces(pattern[:start] + part + pattern[end + 1 :])][:_MANY]


def _tokens(pattern: str) -> tuple[str, ...]:
    found = re.findall(r"\\.|\*{2,}|\[[^\]]+\]|.", pattern, re.DOTALL)
    return tuple(
        "**" if t.startswith("**") else "?" if t[0] == "[" and len(t) > 1 else t[-1] if t[0] == "\\" else t
        for t in found
    )


def _meet(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether two patterns have a path in common: walks through both at once, each pair of places once."""
    todo, seen = [(0, 0)], set()
    while todo:
        i, j = place = todo.pop()
        if place in seen:
            continue
        seen.add(place)
        if i == len(left) and j == len(right):
            return True
        a, b = left[i : i + 1], right[j : j + 1]
        for mine, here, there in ((a, (i + 1, j), (i, j + 1)), (b, (i, j + 1), (i + 1, j))):
            other = b if mine is a else a
            if mine and mine[0] in ("*", "**"):
                todo.append(here)
                if other and (mine[0] == "**" or other[0] not in ("/", "**")):
                    todo.append(there)
        if a and b and (a == b or (a[0] == "?" and b[0] != "/") or (b[0] == "?" and a[0] != "/")):
            todo.append((i + 1, j + 1))
    return False


def _samples(pattern: str) -> list[str]:
    """Paths that a pattern without variables means, which stand for all of them: its stars as one odd word, and as
    several folders where they may be that."""
    out = [""]
    i = 0
    while i < len(pattern):
        char = pattern[i]
        choices: Iterable[str] = (char,)
        if char == "\\" and i + 1 < len(pattern):
            i += 1
            choices = (pattern[i],)
        elif pattern.startswith("**", i):
            i += 1
            choices = ("\x01q", "\x01q/\x02w.z")
        elif char == "*":
            choices = ("\x01q",)
        elif char == "?":
            choices = ("\x01",)
        elif char == "[" and "]" in pattern[i + 2 :]:
            end = pattern.index("]", i + 2)
            body = pattern[i + 1 : end]
            choices = ("\x01",) if body.startswith("^") else tuple({body[0], body[-1]})
            i = end
        elif char == "{":
            end = _closing(pattern, i)
            inner = [s for part in _alternatives(pattern[i + 1 : end]) for s in _samples(part)]
            choices = inner[:_MANY]
            i = end
        out = [f"{before}{choice}" for before in out for choice in choices][: 4 * _MANY]
        i += 1
    return out


def _closing(pattern: str, start: int) -> int:
    depth = 0
    for i in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[i], 0)
        if depth == 0:
            return i
    return len(pattern)


def _alternatives(inner: str) -> list[str]:
    out, depth, start = [], 0, 0
    for i, char in enumerate(inner):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            out.append(inner[start:i])
            start = i + 1
    return [*out, inner[start:]]
