"""The file of pam_google_authenticator (`~/.google_authenticator`).

A base32 secret, lines `" OPTION arguments`, and 8-digit scratch codes, each good for one login. The module writes what
it remembers into the same file: which codes were used, how often somebody tried, how far a clock is off. That memory
stays as long as the secret stays, and scratch codes that were used up never come back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

_SECRET: Final = re.compile(r"[A-Z2-7]{16,}", re.ASCII)
_SCRATCH_CODE: Final = re.compile(r"[0-9]{8}", re.ASCII)
_OPTION: Final = re.compile(r'" ([A-Z0-9_]+)(?: (.*))?')
_MEMORY: Final = re.compile(r"RATE_LIMIT|DISALLOW_REUSE|HOTP_COUNTER|TIME_SKEW|RESETTING_TIME_SKEW|LAST[0-9]+")


class FileDamaged(ValueError):
    """The file has no secret in its first line. Never carries its content."""


@dataclass(frozen=True)
class UserFile:
    """A file as it should be.

    Attributes:
        secret: base32 without `=`.
        counter: HOTP starts with it; `None` = TOTP.
        window: codes that are right at one time; TOTP 3 = one before and one after.
        period: seconds; TOTP only.
        disallow_reuse: a code is good once. Without it replays succeed.
        rate_limit: (attempts, seconds), or None.
        scratch_codes: 8 digits each; written where there is no file yet.

    Raises:
        ValueError: a value does not fit. Never carries a secret.
    """

    secret: str = field(repr=False)
    counter: int | None = None
    window: int = 3
    period: int = 30
    disallow_reuse: bool = True
    rate_limit: tuple[int, int] | None = (3, 30)
    scratch_codes: Sequence[str] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not _SECRET.fullmatch(self.secret):
            raise ValueError("the secret must be at least 16 letters A to Z and digits 2 to 7, without =")
        if any(not _SCRATCH_CODE.fullmatch(code) for code in self.scratch_codes):
            raise ValueError("a scratch code has 8 digits")
        if len(set(self.scratch_codes)) != len(self.scratch_codes):
            raise ValueError("a scratch code is there twice")
        if not 1 <= self.window <= 100 or not 1 <= self.period <= 60:
            raise ValueError("the window must be from 1 to 100, the period from 1 to 60 seconds")
        if self.counter is not None and self.counter < 1:
            raise ValueError("the counter starts at 1")
        if self.rate_limit and not (1 <= self.rate_limit[0] <= 100 and 1 <= self.rate_limit[1] <= 3600):
            raise ValueError("the rate limit must be 1 to 100 attempts in 1 to 3600 seconds")

    @property
    def options(self) -> dict[str, str]:
        """Option -> arguments, in the order in which they are written; memory is empty."""
        found: dict[str, str] = {}
        if self.rate_limit:
            found["RATE_LIMIT"] = f"{self.rate_limit[0]} {self.rate_limit[1]}"
        if self.window != 3:
            found["WINDOW_SIZE"] = str(self.window)
        if self.counter is not None:
            found["HOTP_COUNTER"] = str(self.counter)
            return found
        if self.period != 30:
            found["STEP_SIZE"] = str(self.period)
        if self.disallow_reuse:
            found["DISALLOW_REUSE"] = ""
        # Without it the module refuses every code.
        found["TOTP_AUTH"] = ""
        return found


@dataclass(frozen=True)
class Parsed:
    """A file as it is."""

    secret: str = field(repr=False)
    options: dict[str, str]
    scratch_codes: tuple[str, ...] = field(repr=False)


def parse(text: str) -> Parsed:
    """Read a file.

    Raises:
        FileDamaged: there is no secret.
    """
    lines = text.split("\n")
    if not _SECRET.fullmatch(lines[0].strip()):
        raise FileDamaged("there is no secret in the first line")
    options: dict[str, str] = {}
    codes: list[str] = []
    for line in lines[1:]:
        if match := _OPTION.fullmatch(line.rstrip("\r")):
            options.setdefault(match[1], (match[2] or "").strip())
        elif _SCRATCH_CODE.fullmatch(line.strip()):
            codes.append(line.strip())
    return Parsed(lines[0].strip(), options, tuple(codes))


def merge(text: str | None, wanted: UserFile, *, new_scratch_codes: bool = False) -> str:
    """The file as it should be.

    With the same secret everything that the module remembers stays, and so do its remaining scratch codes and options
    that are not known here. With another secret memory starts anew; of the wanted scratch codes those remain that the
    old file still has, because the others may have been used.

    Args:
        text: the file as it is, or None if there is none.
        new_scratch_codes: the scratch codes were made just now, and were never in a file: write all.

    Raises:
        FileDamaged: the file is there and has no secret. Nothing can be kept of it: look at it, then remove it.
    """
    if text is None:
        return _format(wanted.secret, wanted.options, wanted.scratch_codes)
    old = parse(text)
    codes: Sequence[str] = old.scratch_codes
    if new_scratch_codes:
        codes = wanted.scratch_codes
    elif old.secret != wanted.secret:
        codes = [code for code in wanted.scratch_codes if code in old.scratch_codes]
    if old.secret != wanted.secret:
        return _format(wanted.secret, wanted.options, codes)
    options = {name: _remembered(name, value, old.options) for name, value in wanted.options.items()}
    managed = {"RATE_LIMIT", "WINDOW_SIZE", "HOTP_COUNTER", "STEP_SIZE", "DISALLOW_REUSE", "TOTP_AUTH"}
    others = {name: value for name, value in old.options.items() if name not in managed}
    return _format(old.secret, options | others, codes)


def _remembered(name: str, wanted: str, old: dict[str, str]) -> str:
    """The arguments of an option with what the module added to them."""
    if name not in old or not _MEMORY.fullmatch(name):
        return wanted
    if name == "RATE_LIMIT":
        # Behind attempts and seconds stand the times of the last attempts.
        return " ".join([*wanted.split()[:2], *old[name].split()[2:]])
    return old[name]


def _format(secret: str, options: dict[str, str], codes: Sequence[str]) -> str:
    lines = [secret, *(f'" {name} {value}'.rstrip() for name, value in options.items()), *codes]
    return "\n".join(lines) + "\n"
