"""Reads AppArmor's records in a log: what was allowed in complain mode, and what was denied.

They look alike wherever they are: in auditd's audit.log (`type=AVC msg=audit(SECONDS:SERIAL): apparmor="ALLOWED" ...`),
in the kernel's own log (`audit: type=1400 audit(...): apparmor=...`), in the journal, and in what D-Bus logs
(`type=USER_AVC ... msg='apparmor="DENIED" ...`). Values are quoted; a name with odd characters is bare hex.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_START: Final = re.compile(r'apparmor="(ALLOWED|DENIED)"')
_FIELD: Final = re.compile(r"([A-Za-z_]+)=(\"[^\"]*\"|'[^']*'|[^\s\"']+)")
_STAMP: Final = re.compile(r"audit\((\d+)\.(\d+):(\d+)\)")
_NAMES: Final = (
    "name comm profile target peer peer_profile peer_label label srcname info fstype flags bus path interface member "
    "addr peer_addr"
)
_TEXTS: Final = frozenset(_NAMES.split())
"""Fields whose value may be bare hex."""
NULL: Final = re.compile(r"//null-.*")
"""What complain mode calls a program that was started without a rule for it."""


@dataclass(frozen=True, slots=True)
class Access:
    """One record.

    Attributes:
        allowed: it happened, because the profile is in complain mode; otherwise it was refused.
        profile: as the kernel calls it, such as `httpd` or `httpd//child`.
        time: in seconds since the epoch; 0 where the record has none.
        fields: everything else, by the kernel's names.
    """

    allowed: bool
    operation: str
    profile: str
    time: float = 0.0
    fields: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.fields.get(name, "")

    @property
    def confined(self) -> str:
        """The profile whose matter it is: without what complain mode puts behind its name for a program that was
        started without a rule."""
        return NULL.sub("", self.profile)


def accesses(lines: Iterable[str]) -> Iterator[Access]:
    """The records in a log, in its order; other lines are left out, and so is what comes twice."""
    seen: set[tuple[str, str]] = set()
    for line in lines:
        found = _START.search(line)
        if not found:
            continue
        stamp = _STAMP.search(line)
        if stamp:
            # The kernel's log and auditd's may both hold it; both give it the same stamp and serial number.
            key = (stamp[0], line[found.start() :].split("\x1d")[0].strip())
            if key in seen:
                continue
            seen.add(key)
        fields = {name: _value(name, raw) for name, raw in _FIELD.findall(line[found.start() :].rstrip("'\n"))}
        time = float(f"{stamp[1]}.{stamp[2]}") if stamp else 0.0
        profile = fields.get("profile") or fields.get("label", "")
        yield Access(found[1] == "ALLOWED", fields.get("operation", ""), profile, time, fields)


def _value(name: str, raw: str) -> str:
    if raw[0] in "\"'":
        return raw[1:-1]
    if name in _TEXTS and len(raw) % 2 == 0 and re.fullmatch(r"[0-9A-F]{2,}", raw):
        return bytes.fromhex(raw).decode("utf-8", "surrogateescape")
    return raw
