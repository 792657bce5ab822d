"""The configuration file: JSON, because Python reads it and any program can write it.

    {"listen": ["127.0.0.1:8580", "[::1]:8580"],
     "database": "sqlite:/var/lib/otp-server/ykval.sqlite",
     "ksm": {"keys": "/etc/yubico/yhsm/keys.json", "aeads": "/var/cache/yubikey-ksm/aeads", "handles": ["1"],
             "listen": ["127.0.0.1:8002"]},
     "user": "otp-server",
     "signatures": "optional",
     "signedClients": [3],
     "allowFrom": ["127.0.0.0/8", "::1/128"],
     "requests": 32,
     "requestSeconds": 10}

`listen`, `database` and the first three of `ksm` are needed; the rest has defaults: the key storage listens nowhere,
`user` is whoever runs it, signatures are checked where they are and not demanded, everybody may ask.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final

from .ksm import handle_number
from .verification import Policy

_KINDS: Final = {str: "text", int: "a number", list: "a list", dict: "an object"}


class SettingsError(Exception):
    """The configuration file is wrong.

    Attributes:
        problems: all of them.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """What the configuration file says.

    Attributes:
        listen: addresses of the validation server.
        database: see `Database`; may hold a password.
        keys_file, aeads, handles: see `KeyStorage`.
        ksm_listen: addresses of the key storage, on this host only.
        user: whom the administrative commands become when root runs them.
        requests: requests at once; more wait.
        request_seconds: how long a request may take from the first byte to the last.
    """

    listen: tuple[Address, ...]
    database: str = field(repr=False)
    keys_file: Path
    aeads: Path
    handles: tuple[str, ...]
    ksm_listen: tuple[Address, ...] = ()
    user: str = ""
    policy: Policy = field(default_factory=Policy)
    requests: int = 32
    request_seconds: int = 10


def load(path: Path) -> Settings:
    """Read the configuration file.

    Raises:
        SettingsError: with all that is wrong.
    """
    try:
        raw = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise SettingsError([f"{path} cannot be read: {error.strerror}."]) from None
    except (ValueError, RecursionError):
        raise SettingsError([f"{path} is no JSON in UTF-8."]) from None
    return parse(raw)


def parse(raw: Any) -> Settings:
    """Check what a configuration file holds.

    Raises:
        SettingsError: with all that is wrong.
    """
    reader = _Reader()
    if not isinstance(raw, dict):
        raise SettingsError(["The configuration must be a JSON object."])
    top = dict(raw)
    ksm = dict(reader.take(top, "ksm", dict, {}))
    signatures = reader.take(top, "signatures", str, "optional")
    if signatures not in ("optional", "required"):
        reader.problems.append("signatures must be optional or required")
    settings = Settings(
        listen=reader.addresses(top, "listen", needed=True),
        database=reader.database(top),
        keys_file=reader.path(ksm, "keys"),
        aeads=reader.path(ksm, "aeads"),
        handles=reader.handles(ksm),
        ksm_listen=reader.addresses(ksm, "listen", loopback=True),
        user=reader.take(top, "user", str, ""),
        policy=Policy(signatures == "required", reader.clients(top), reader.networks(top)),
        requests=reader.number(top, "requests", 32, 256),
        request_seconds=reader.number(top, "requestSeconds", 10, 120),
    )
    reader.problems.extend(f"{name!r} is not known" for name in top)
    reader.problems.extend(f"ksm: {name!r} is not known" for name in ksm)
    if reader.problems:
        raise SettingsError(reader.problems)
    return settings


class _Reader:
    """Collects problems while it takes the configuration apart."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def take(self, source: dict[str, Any], name: str, kind: type, default: Any) -> Any:
        value = source.pop(name, default)
        if type(value) is kind:
            return value
        self.problems.append(f"{name} must be {_KINDS[kind]}")
        return default

    def database(self, source: dict[str, Any]) -> str:
        url: str = self.take(source, "database", str, "")
        sqlite = url.startswith("sqlite:/")
        if not sqlite and not url.startswith(("postgresql:", "postgres:")):
            self.problems.append("database must be sqlite:/path/to/file, postgresql://... or postgresql:dbname=...")
        return url

    def path(self, source: dict[str, Any], name: str) -> Path:
        text: str = self.take(source, name, str, "")
        if not text.startswith("/") or "\0" in text:
            self.problems.append(f"ksm: {name} must be an absolute path")
        return Path(text.replace("\0", "") or "/")

    def handles(self, source: dict[str, Any]) -> tuple[str, ...]:
        found: list[str] = []
        for handle in self.take(source, "handles", list, []):
            try:
                handle_number(handle)
            except (ValueError, TypeError, AttributeError):
                self.problems.append(f"ksm: handles: {handle!r} is no key handle; write a number as text")
            else:
                found.append(handle)
        if not found:
            self.problems.append('ksm: handles must name at least one, such as ["1"]')
        return tuple(found)

    def addresses(
        self, source: dict[str, Any], name: str, *, needed: bool = False, loopback: bool = False
    ) -> tuple[Address, ...]:
        found = []
        for text in self.take(source, name, list, []):
            try:
                host, _, port = text.rpartition(":")
                address = ip_address(host.removeprefix("[").removesuffix("]"))
                if not 0 < int(port) < 65536 or (":" in str(address)) != host.startswith("["):
                    raise ValueError
            except (ValueError, AttributeError):
                self.problems.append(f"{name}: {text!r} is no address; write 127.0.0.1:8580 or [::1]:8580")
                continue
            if loopback and not address.is_loopback:
                self.problems.append(
                    f"ksm: {name}: {text} is reachable from elsewhere. The key storage tells anybody who asks whether "
                    "an OTP is right, so it listens on 127.0.0.0/8 or ::1 only."
                )
            found.append(Address(str(address), int(port)))
        if needed and not found:
            self.problems.append(f"{name} must name at least one address, such as 127.0.0.1:8580")
        return tuple(found)

    def clients(self, source: dict[str, Any]) -> frozenset[int]:
        found = self.take(source, "signedClients", list, [])
        if any(type(number) is not int for number in found):
            self.problems.append("signedClients must be a list of numbers")
            return frozenset()
        return frozenset(found)

    def networks(self, source: dict[str, Any]) -> tuple[IPv4Network | IPv6Network, ...]:
        found = []
        for text in self.take(source, "allowFrom", list, []):
            try:
                if not isinstance(text, str):
                    raise ValueError
                found.append(ip_network(text))
            except ValueError:
                self.problems.append(f"allowFrom: {text!r} is no network; write 192.0.2.0/24 or 2001:db8::/64")
        return tuple(found)

    def number(self, source: dict[str, Any], name: str, default: int, largest: int) -> int:
        value: int = self.take(source, name, int, default)
        if not 1 <= value <= largest:
            self.problems.append(f"{name} must be from 1 to {largest}")
        return value
