"""SARIF 2.1.0: what code scanning of forges reads.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote

from reconciler import __version__

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class RuleText:
    """A rule as readers of results see it; `help_` in Markdown."""

    id: str
    title: str
    text: str
    help_: str
    level: Level
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """One result.

    Attributes:
        file: relative to the root of the repository, with slashes; absolute where it lies elsewhere.
        line: counted from 1.
        subject: the object inside the file; may be empty.
        accepted: why somebody accepted it; empty where nobody did.
    """

    rule: str
    level: Level
    message: str
    file: str
    line: int
    subject: str = ""
    accepted: str = ""


def sarif(rules: Iterable[RuleText], results: Sequence[Result]) -> dict[str, Any]:
    """The log of one run, as JSON data. Rules that nothing breaks are listed, too."""
    listed = sorted(rules, key=lambda rule: rule.id)
    places = {rule.id: index for index, rule in enumerate(listed)}
    seen: dict[str, int] = {}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "reconciler",
                        "version": __version__,
                        "rules": [_rule(rule) for rule in listed],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(one, places, seen) for one in results],
            }
        ],
    }


def _rule(rule: RuleText) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.text},
        "help": {"text": rule.text, "markdown": rule.help_},
        "defaultConfiguration": {"level": rule.level},
        "properties": {"tags": list(rule.tags)},
    }


def _place(file: str) -> dict[str, str]:
    """A file of the repository, or, by its whole path, one that lies elsewhere, such as an image."""
    if file.startswith("/"):
        return {"uri": f"file://{quote(file)}"}
    return {"uri": quote(file), "uriBaseId": "%SRCROOT%"}


def _result(one: Result, places: Mapping[str, int], seen: dict[str, int]) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": _place(one.file),
            "region": {"startLine": max(1, one.line)},
        }
    }
    if one.subject:
        location["logicalLocations"] = [{"fullyQualifiedName": one.subject}]
    # The same through edits elsewhere in the file: without the line, but counted.
    same = "\0".join((one.rule, one.file, one.subject, one.message))
    seen[same] = seen.get(same, 0) + 1
    mark = hashlib.sha256(f"{same}\0{seen[same]}".encode("utf-8", "surrogateescape")).hexdigest()
    return {
        "ruleId": one.rule,
        "ruleIndex": places[one.rule],
        "level": one.level,
        "message": {"text": one.message},
        "locations": [location],
        "partialFingerprints": {"reconciler/v1": mark},
        **(
            {"suppressions": [{"kind": "external", "status": "accepted", "justification": one.accepted}]}
            if one.accepted
            else {}
        ),
    }
