"""The verdict about one request of WSAPI 2.0.

Any doubt is a refusal: a storage or database that does not work gives BACKEND_ERROR, never OK. An OTP counts as
accepted only when the database says that exactly one row took its counters.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Protocol

from .database import Client, Counters, DatabaseError
from .ksm import KsmError, UnknownPublicId
from .signature import NO_SECRET, decode_secret, matches, sign
from .token import InvalidOtp, Token

_CLIENT_ID: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_NONCE: Final = re.compile(r"[A-Za-z0-9]{16,40}", re.ASCII)
_OTP: Final = re.compile(r"[A-Za-z.]{1,64}", re.ASCII)
_LEVEL: Final = re.compile(r"[0-9]{1,3}|fast|secure", re.ASCII)
_TIMEOUT: Final = re.compile(r"[0-9]{1,6}", re.ASCII)
_LARGEST_ID: Final = 0x7FFFFFFF


class Status(StrEnum):
    """The answers of WSAPI 2.0 that this server gives."""

    OK = "OK"
    BAD_OTP = "BAD_OTP"
    REPLAYED_OTP = "REPLAYED_OTP"
    REPLAYED_REQUEST = "REPLAYED_REQUEST"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    MISSING_PARAMETER = "MISSING_PARAMETER"
    NO_SUCH_CLIENT = "NO_SUCH_CLIENT"
    OPERATION_NOT_ALLOWED = "OPERATION_NOT_ALLOWED"
    BACKEND_ERROR = "BACKEND_ERROR"


class Decrypting(Protocol):
    """What decrypts OTPs: the key storage."""

    def decrypt(self, typed: str) -> tuple[str, Token]:
        """See `KeyStorage.decrypt`."""


class Counting(Protocol):
    """What knows clients and counters: the database."""

    def client(self, number: int) -> Client | None:
        """See `Database.client`."""

    def counters(self, public_id: str) -> Counters | None:
        """See `Database.counters`."""

    def accept(self, public_id: str, token: Token, nonce: str, now: int) -> bool:
        """See `Database.accept`."""


@dataclass(frozen=True)
class Policy:
    """What this server asks of its clients.

    Attributes:
        signed: all requests must be signed; otherwise only those of `signed_clients`. A wrong signature is refused
            always.
        signed_clients: ids of clients whose requests must be signed.
        allowed: networks from which requests are answered; empty means all.
    """

    signed: bool = False
    signed_clients: frozenset[int] = frozenset()
    allowed: tuple[IPv4Network | IPv6Network, ...] = ()

    def admits(self, address: str) -> bool:
        """Whether requests from this address are answered."""
        if not self.allowed:
            return True
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found.version == network.version and found in network for network in self.allowed)


@dataclass(frozen=True)
class Answer:
    """A signed response, and what may be logged of it.

    Attributes:
        text: the body, in CRLF lines.
        reason: why, for the log; without OTP and without secrets.
    """

    status: Status
    text: str
    client: str = "-"
    public_id: str = "-"
    reason: str = ""


class _Refusal(Exception):
    """Leaves the examination with a verdict."""

    def __init__(self, status: Status, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(reason)


class Validator:
    """Answers requests to verify an OTP.

    Args:
        clock: seconds since 1970.
    """

    def __init__(
        self, storage: Decrypting, database: Counting, policy: Policy, clock: Callable[[], float] = time.time
    ) -> None:
        self._storage, self._database, self._policy, self._clock = storage, database, policy, clock

    def verify(self, parameters: Mapping[str, str], address: str) -> Answer:
        """Examine a request.

        Args:
            parameters: of the query, decoded; each once.
            address: of whoever asks.
        """
        examination = _Examination(self._storage, self._database, self._policy, parameters, int(self._clock()))
        try:
            examination.run(address)
            status, reason = Status.OK, ""
        except _Refusal as refusal:
            status, reason = refusal.status, refusal.reason
        except (DatabaseError, KsmError) as error:
            status, reason = Status.BACKEND_ERROR, str(error)
        text = respond(status, self._clock(), examination.echo, examination.secret)
        return Answer(status, text, examination.client, examination.public_id, reason)


class _Examination:
    """One request, step by step; knows at each step what the answer may say and how it is signed."""

    def __init__(
        self, storage: Decrypting, database: Counting, policy: Policy, parameters: Mapping[str, str], now: int
    ) -> None:
        self._storage, self._database, self._policy, self._now = storage, database, policy, now
        self._given = parameters
        self.secret = NO_SECRET
        self.client = self.public_id = "-"
        self.echo: dict[str, str] = {}

    def run(self, address: str) -> None:
        if not self._policy.admits(address):
            raise _Refusal(Status.OPERATION_NOT_ALLOWED, "not from this address")
        otp, nonce = self._given.get("otp", ""), self._given.get("nonce", "")
        # Only what cannot break the answer's lines goes back.
        if _OTP.fullmatch(otp):
            self.echo["otp"] = otp
        if _NONCE.fullmatch(nonce):
            self.echo["nonce"] = nonce
        self._check_client()
        self._check_form()
        if not otp:
            raise _Refusal(Status.MISSING_PARAMETER, "no otp")
        if "otp" not in self.echo:
            raise _Refusal(Status.BAD_OTP, "no ModHex")
        token = self._decrypt(otp)
        self._count(token, nonce)
        self.echo["sl"] = "100"
        if self._given.get("timestamp") == "1":
            self.echo |= {
                "timestamp": str(token.timestamp),
                "sessioncounter": str(token.session),
                "sessionuse": str(token.use),
            }

    def _check_form(self) -> None:
        if "nonce" not in self.echo:
            raise _Refusal(Status.MISSING_PARAMETER, "no nonce of 16 to 40 letters and digits")
        level = self._given.get("sl", "")
        if level and (not _LEVEL.fullmatch(level) or (level.isdecimal() and int(level) > 100)):
            raise _Refusal(Status.MISSING_PARAMETER, "sl is neither 0 to 100, fast nor secure")
        timeout = self._given.get("timeout", "")
        if timeout and not _TIMEOUT.fullmatch(timeout):
            raise _Refusal(Status.MISSING_PARAMETER, "timeout is no number of seconds")

    def _check_client(self) -> None:
        given = self._given.get("id", "")
        if not _CLIENT_ID.fullmatch(given) or not 0 < int(given) <= _LARGEST_ID:
            raise _Refusal(Status.MISSING_PARAMETER, "no id of a client")
        number = int(given)
        client = self._database.client(number)
        if client is None or not client.active:
            raise _Refusal(Status.NO_SUCH_CLIENT, "inactive client" if client else "unknown client")
        self.client = str(number)
        try:
            self.secret = decode_secret(client.secret)
        except ValueError as error:
            raise _Refusal(Status.BACKEND_ERROR, str(error)) from None
        if "h" in self._given:
            if not self.secret or not matches(self._given, self.secret):
                raise _Refusal(Status.BAD_SIGNATURE, "wrong signature")
        elif self._policy.signed or number in self._policy.signed_clients:
            raise _Refusal(Status.BAD_SIGNATURE, "not signed")

    def _decrypt(self, otp: str) -> Token:
        try:
            self.public_id, token = self._storage.decrypt(otp)
        except InvalidOtp as error:
            raise _Refusal(Status.BAD_OTP, str(error)) from None
        except UnknownPublicId:
            raise _Refusal(Status.BAD_OTP, "unknown YubiKey") from None
        return token

    def _count(self, token: Token, nonce: str) -> None:
        self._refuse_replay(token, nonce)
        if not self._database.accept(self.public_id, token, nonce, self._now):
            # Somebody else was faster: what he left behind tells which verdict is right.
            self._refuse_replay(token, nonce)
            raise _Refusal(Status.BACKEND_ERROR, "the counters could not be stored")

    def _refuse_replay(self, token: Token, nonce: str) -> None:
        known = self._database.counters(self.public_id)
        if known is None:
            raise _Refusal(Status.BAD_OTP, "the YubiKey is not enrolled")
        if not known.active:
            raise _Refusal(Status.BAD_OTP, "the YubiKey is not active")
        if (known.counter, known.use) == (token.session, token.use) and known.nonce == nonce:
            raise _Refusal(Status.REPLAYED_REQUEST, "the same request again")
        if (known.counter, known.use) >= (token.session, token.use):
            raise _Refusal(Status.REPLAYED_OTP, "not newer than the last OTP")


def respond(status: Status, now: float, echo: Mapping[str, str], secret: bytes) -> str:
    """The body of a response: signed, in CRLF lines, an empty one at the end.

    Args:
        now: seconds since 1970.
        echo: otp, nonce and what else the answer says.
        secret: the client's.
    """
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    fields = {"t": f"{moment}{int(now * 1000) % 1000:04d}", **echo, "status": str(status)}
    return "".join(f"{name}={value}\r\n" for name, value in ({"h": sign(fields, secret)} | fields).items()) + "\r\n"
