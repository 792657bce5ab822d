"""Yubico OTP credentials in the files that programs exchange, and the commands that put one into a YubiKey.

Three formats are read, and told apart by their content:
    `# ykksm 1`     of the key storage modules: `seqno,public id,private uid,AES key,...`
    ykman's         of `ykman otp yubiotp -O`: `serial,public id,private uid,AES key,access code,timestamp,`
    the traditional log of the personalization tool, `configuration_log.csv`: event and time in the user's language,
                    the time with commas of its own; 16 fields from slot to the last one. So they are counted from
                    the end.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from reconciler.errors import InvalidInput, Position, Problem
from reconciler.tools.otp.server import modhex

KSM_HEADER: Final = "# ykksm 1"
_LOG_FIELDS: Final = 16
_OTHER_EVENTS: Final = ("static password", "oath-hotp", "challenge-response", "configuration ", "logging start")
_LARGEST: Final = 16 << 20

Format = Literal["ykksm", "ykman", "log"]
Programmer = Literal["ykman", "ykpersonalize"]


@dataclass(frozen=True)
class YubikeyCredential:
    """What a YubiKey and its server share.

    Attributes:
        public_id: 2 to 16 letters of ModHex.
        private_id: 12 hexadecimal digits, lower case.
        aes_key: 32 hexadecimal digits, lower case.
        line: of the file that it was read from.
    """

    public_id: str
    private_id: str = field(repr=False)
    aes_key: str = field(repr=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Parsed:
    """What a file holds.

    Attributes:
        credentials: in the order of the file.
        skipped: (line, why) of rows that are no Yubico OTP credentials, and need not be.
    """

    format: Format
    credentials: tuple[YubikeyCredential, ...]
    skipped: tuple[tuple[int, str], ...] = ()


def parse(text: str, file: str, existing: Collection[str] = ()) -> Parsed:
    """Read a file in any of the three formats.

    Args:
        file: for messages.
        existing: public ids that are in use and must not come again.

    Raises:
        InvalidInput: with all problems, each with its line. A message never quotes a secret.
    """
    if len(text) > _LARGEST:
        raise InvalidInput([Problem("The file is too large for a list of keys.", position=Position(file))])
    rows = list(_rows(text))
    reader = _Reader(file, existing)
    if rows and rows[0][1].startswith("# ykksm"):
        return reader.ksm(rows)
    if any(len(row.split(",")) >= _LOG_FIELDS + 2 for _, row in rows):
        return reader.log(rows)
    if any(len(row.split(",")) >= 6 for _, row in rows):
        return reader.ykman(rows)
    raise InvalidInput(
        [
            Problem(
                "This is none of the formats that are known.",
                f"It must begin with the line {KSM_HEADER!r}, or be a file of ykman or of the personalization tool.",
                position=Position(file),
            )
        ]
    )


def _rows(text: str) -> Iterator[tuple[int, str]]:
    for number, row in enumerate(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"), 1):
        if row.strip():
            yield number, row.strip()


class _Reader:
    """Collects problems and what it read."""

    def __init__(self, file: str, existing: Collection[str]) -> None:
        self._file, self._existing = file, existing
        self._problems: list[Problem] = []
        self._found: dict[str, YubikeyCredential] = {}
        self._skipped: list[tuple[int, str]] = []

    def ksm(self, rows: Sequence[tuple[int, str]]) -> Parsed:
        if rows[0] != (1, KSM_HEADER):
            self._problem(rows[0][0], f"The first line must be exactly {KSM_HEADER!r}.")
        for number, row in rows[1:]:
            if row.startswith("#"):
                continue
            fields = _fields(row)
            if len(fields) < 4:
                self._problem(number, f"{len(fields)} fields instead of at least 4.")
            else:
                self._take(number, *fields[1:4])
        return self._result("ykksm")

    def ykman(self, rows: Sequence[tuple[int, str]]) -> Parsed:
        for number, row in rows:
            fields = _fields(row)
            if len(fields) not in (6, 7):
                self._problem(number, f"{len(fields)} fields instead of the 7 of ykman.")
            else:
                self._take(number, *fields[1:4])
        return self._result("ykman")

    def log(self, rows: Sequence[tuple[int, str]]) -> Parsed:
        for number, row in rows:
            fields = _fields(row)
            if len(fields) < _LOG_FIELDS + 2:
                # "LOGGING START,<time>", in whatever language.
                if _LOGGING_START.fullmatch(row):
                    self._skipped.append((number, "no credential"))
                else:
                    self._problem(number, f"{len(fields)} fields instead of at least {_LOG_FIELDS + 2}.")
                continue
            slot, public_id, private_id, aes_key = fields[-_LOG_FIELDS : -_LOG_FIELDS + 4]
            digits = fields[-_LOG_FIELDS + 9]
            if row.lower().startswith(_OTHER_EVENTS):
                self._skipped.append((number, f"{fields[0]}, no Yubico OTP"))
            elif digits in ("6", "8") or (len(aes_key) == 40 and not public_id):
                self._skipped.append((number, "OATH-HOTP or challenge-response, no Yubico OTP"))
            elif slot not in ("1", "2"):
                self._problem(number, "The 16th field from the end must be the slot, 1 or 2.")
            else:
                self._take(number, public_id, private_id, aes_key)
        return self._result("log")

    def _take(self, number: int, public_id: str, private_id: str, aes_key: str) -> None:
        known = len(self._problems)
        public_id, private_id, aes_key = public_id.lower(), private_id.lower(), aes_key.lower()
        if not public_id:
            self._problem(number, "The public id is empty.", "Give this YubiKey one: without it no server can find it.")
        elif not modhex.is_public_id(public_id):
            self._problem(
                number,
                f"{public_id!r} is no public id.",
                f"Write 2 to 16 of the letters {modhex.ALPHABET}, an even number of them.",
            )
        elif public_id in self._found:
            first = self._found[public_id].line
            self._problem(number, f"The public id {public_id} was in line {first} already.", "Keep one of the two.")
        elif public_id in self._existing:
            self._problem(
                number,
                f"The public id {public_id} is in use already, and is not overwritten.",
                "Leave the line out, or remove the old key first.",
            )
        for name, value, size in (("private uid", private_id, 12), ("AES key", aes_key, 32)):
            if not re.fullmatch(f"[0-9a-f]{{{size}}}", value, re.ASCII):
                what = f"has {len(value)} characters" if len(value) != size else "has other characters"
                self._problem(number, f"The {name} must be {size} hexadecimal digits, and {what}.")
        if len(self._problems) == known:
            self._found[public_id] = YubikeyCredential(public_id, private_id, aes_key, number)

    def _problem(self, number: int, message: str, fix: str = "") -> None:
        self._problems.append(Problem(message, fix, position=Position(self._file, number)))

    def _result(self, kind: Format) -> Parsed:
        if self._problems:
            raise InvalidInput(self._problems)
        if not self._found:
            raise InvalidInput([Problem("There is no Yubico OTP credential in it.", position=Position(self._file))])
        return Parsed(kind, tuple(self._found.values()), tuple(self._skipped))


_LOGGING_START: Final = re.compile(r"[^,]*[^\W\d_][^,]*,.*[0-9].*")


def _fields(row: str) -> list[str]:
    # The personalization tool shows ids and keys in groups; none of the programs quotes a field.
    return [re.sub(r"[\s\"]", "", field) if i else field for i, field in enumerate(row.split(","))]


def format_ksm(credentials: Sequence[YubikeyCredential]) -> str:
    """A file for the import of a key storage module."""
    rows = [f"{n},{c.public_id},{c.private_id},{c.aes_key},,,," for n, c in enumerate(credentials, 1)]
    return "\n".join([KSM_HEADER, *rows]) + "\n"


def commands(credential: YubikeyCredential, programmer: Programmer, slot: Literal[1, 2] = 1) -> str:
    """A POSIX sh script that programs a YubiKey: pipe it into `sh`.

    Private id and AES key go to the program's standard input, where it asks for them, and so into no list of processes
    and no history of a shell.
    """
    if programmer == "ykman":
        # Without --force it asks for private id and key, and whether it should. Before version 5 it asked first whether
        # to upload them to Yubico, so that the answers would mean something else.
        guard = [
            'case "$(ykman --version)" in',
            "*'version: '[5-9].* | *'version: '[1-9][0-9].*) ;;",
            "*) echo 'This needs ykman 5 or newer.' >&2; exit 1 ;;",
            "esac",
        ]
        argv = f"ykman otp yubiotp {slot} --public-id {credential.public_id}"
        answers = [credential.private_id, credential.aes_key, "y"]
    else:
        guard = []
        # -2 alone means a static password: those flags are taken back.
        flags = "" if slot == 1 else " -o-static-ticket -o-strong-pw1 -o-strong-pw2 -o-man-update"
        argv = f"ykpersonalize -{slot}{flags} -ofixed=m:{credential.public_id} -ouid -a -y"
        answers = [credential.private_id, credential.aes_key]
    return "\n".join([*guard, f"{argv} <<'END'", *answers, "END", ""])
