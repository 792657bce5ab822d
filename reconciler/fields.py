"""Field types that several kinds share: text with a rule, a hint for people, and a pattern for editors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from reconciler.model import Spec


@dataclass(frozen=True)
class Rule:
    """Constrains a string, the same way in pydantic and in the JSON Schema; used inside `Annotated`.

    Attributes:
        pattern: a regular expression that means the same in Python and ECMAScript; matched in full.
        hint: what the text should be, completing the sentence "Write ...".
        max_length: in characters.
    """

    pattern: str
    hint: str
    max_length: int = 0

    @cached_property
    def _match(self) -> re.Pattern[str]:
        return re.compile(rf"^(?:{self.pattern})\Z")

    def check(self, value: str) -> str:
        """The value itself.

        Raises:
            ValueError: it breaks the rule.
        """
        if not self._match.match(value) or (self.max_length and len(value) > self.max_length):
            raise ValueError(f"is not allowed here. Write {self.hint}.")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        out = handler(schema) | {"pattern": f"^(?:{self.pattern})$", "patternErrorMessage": f"Write {self.hint}."}
        return out | ({"maxLength": self.max_length} if self.max_length else {})


_PRINTABLE = r"[^\u0000-\u001f\u007f\u2028\u2029]"

AbsolutePath = Annotated[
    str,
    Rule(
        r"(?!(?:.*/)?\.\.?(?:/|$))/(?:[^/\u0000-\u001f\u007f]+(?:/[^/\u0000-\u001f\u007f]+)*)?",
        'an absolute path without "..", double or trailing slashes and control characters, such as /etc/motd',
        4095,
    ),
]
Mode = Annotated[str, Rule(r"0?[0-7]{3,4}", 'the permissions as a quoted octal number, such as "0644"')]
Account = Annotated[
    str,
    Rule(
        r"[a-z_][a-z0-9_-]*\$?",
        "a user or group name: lower-case letters, digits, - and _, starting with a letter or _",
        32,
    ),
]
PackageName = Annotated[str, Rule(r"[a-z0-9][a-z0-9+.-]+", "the name of a Debian package, such as nginx-light", 128)]
UnitName = Annotated[
    str,
    Rule(
        r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.(?:service|socket|timer|path|mount|automount|swap|target|slice)",
        "the full name of a systemd unit, such as nginx.service",
        255,
    ),
]
Line = Annotated[str, Rule(rf"{_PRINTABLE}*", "one line, without control characters")]
LocalPath = Annotated[str, Rule(rf"{_PRINTABLE}+", "a path on the machine that runs reconciler", 4095)]
Word = Annotated[str, Rule(r"[^\s\u0000-\u001f\u007f]+", "one word, without spaces and control characters")]


Duration = Annotated[str, Rule(r"[1-9][0-9]{0,5}(?:s|min|h|d|w)", 'a duration, such as "90s", "15min", "3h" or "2d"')]
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds(duration: str) -> int:
    """A `Duration` in seconds.

    >>> seconds("3h")
    10800
    """
    number = duration.rstrip("smindhw")
    return int(number) * _UNITS[duration[len(number) :]]


@dataclass(frozen=True)
class Ref:
    """Marks a field that holds the name of a document, or names of documents, of one kind; `validate` looks them up.

    Use it as the outermost `Annotated`: `Annotated[str | None, Ref("ProxmoxCluster")]`.
    """

    kind: str


class HostLabels(Spec):
    """Hosts by their labels."""

    match_labels: dict[str, str] = Field(description="Every label that a host must carry; `{}` selects every host.")


HostSelector = Annotated[
    Annotated[tuple[str, ...], Field(min_length=1)] | HostLabels,
    Field(description="The hosts: a list of names, or `{matchLabels: {role: web}}`."),
]
