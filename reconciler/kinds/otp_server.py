"""OtpServer: a key storage and validation server for Yubico OTP of our own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import HostSelector, Rule
from reconciler.model import Composed, Document, Kind, Resource, Secret, Spec
from reconciler.tools.otp.single_file import single_file
from reconciler.types.host.directory import TYPE as host_directory
from reconciler.types.host.file import TYPE as host_file
from reconciler.types.host.otp_key import Handle
from reconciler.types.host.otp_roster import CONFIG, FOLDER, KEYS, PACKAGE, PROGRAM, STORE, UNIT, USER
from reconciler.types.host.package import TYPE as host_package
from reconciler.types.host.unit import TYPE as host_unit
from reconciler.types.host.user import TYPE as host_user

DocumentName = Annotated[
    str, Rule(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", "the name of a document: lower-case letters, digits, - and .")
]
AEADS: Final = f"{STORE}/aeads"
SQLITE: Final = f"sqlite:{STORE}/ykval.sqlite"
POSTGRESQL: Final = "python3-psycopg2"
PATH: Final = "/wsapi/2.0/verify"
Listen = Annotated[
    str,
    Rule(r"(?:[0-9.]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}", "an address and a port, such as 127.0.0.1:8580 or [::1]:8580"),
]
Network = Annotated[str, Rule(r"[0-9A-Fa-f.:]+/[0-9]{1,3}", "a network such as 192.0.2.0/24 or 2001:db8::/64")]

ACCOUNT: Final[Mapping[str, Any]] = {
    "name": USER,
    "system": True,
    "home": STORE,
    "shell": "/usr/sbin/nologin",
}

UNIT_FILE: Final = f"""\
[Unit]
Description=Key storage and validation server for Yubico OTP
After=network.target postgresql.service

[Service]
Type=notify
ExecStart=/usr/bin/python3 -I {PROGRAM} serve --config {CONFIG}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
User={USER}
Group={USER}
UMask=0077
StateDirectory={USER}
StateDirectoryMode=0700
LimitCORE=0
TasksMax=128
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateDevices=yes
PrivateTmp=yes
DevicePolicy=closed
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


class OtpServerSpec(Spec):
    """A server that tells whether an OTP of a YubiKey is right, on hosts of your own.

    Installs a key storage (the secrets of YubiKeys, each sealed in a file) and a validation server (WSAPI 2.0) with its
    database as one hardened systemd unit. Who may ask are OtpClients; which YubiKeys it knows are YubikeyOtps; which
    services ask it are OtpLogins. A host has one such server. When the document goes, its counters stay on the host.

    Example:

        apiVersion: reconciler/v1
        kind: OtpServer
        metadata:
          name: otp
        spec:
          hosts: [bastion]
          ksmKeys:
            "1": {secretRef: otp-server/ksm-1, generate: hex16}
    """

    hosts: HostSelector
    listen: tuple[Listen, ...] = Field(
        ("127.0.0.1:8580",),
        min_length=1,
        description="Where the validation server answers. It speaks HTTP: beyond the host itself put a proxy with TLS "
        "before it, or a tunnel.",
    )
    ksm_keys: dict[Handle, Secret] = Field(
        min_length=1,
        description="Keys that seal the secrets of YubiKeys, by handle, as hexadecimal digits. To change one, add a "
        "new handle, name it in `handle`, and take the old one out after an apply.",
    )
    handle: Handle | None = Field(None, description="The handle that is used now; by default the first.")
    ksm_listen: tuple[Listen, ...] = Field(
        (), description="Where the key storage answers for an old validation server; on the host itself only."
    )
    database: Secret | None = Field(
        None,
        description="Address of a PostgreSQL database with its password, such as postgresql://otp:...@db1/otp. Without "
        "it, the server keeps a SQLite file of its own; several hosts need one PostgreSQL.",
    )
    signatures: Literal["required", "optional"] = Field(
        "required", description="Whether requests must be signed by their client's key. Answers always are."
    )
    allow_from: tuple[Network, ...] = Field((), description="Networks that may ask; by default all that get through.")

    @property
    def shared(self) -> str | None:
        """A name of the database, where other hosts may use it, too."""
        return self.database.secret_ref if self.database else None

    @property
    def current(self) -> str:
        """The handle that is used now."""
        return self.handle or next(iter(self.ksm_keys))


def expand(document: Document[OtpServerSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """Account, program, configuration, keys and unit, on every selected host."""
    spec = document.spec
    unit_file = f"/etc/systemd/system/{UNIT}"
    for host in catalog.hosts(spec.hosts):
        yield host_package(host, name=PACKAGE)
        if spec.database is not None:
            yield host_package(host, name=POSTGRESQL)
        yield host_user(host, **ACCOUNT)
        yield host_directory(host, path=FOLDER, mode="0750", owner="root", group=USER)
        yield host_directory(host, path=PROGRAM.rpartition("/")[0], mode="0755", owner="root", group="root")
        yield host_file(host, path=PROGRAM, content=single_file(), mode="0644", owner="root", group="root")
        yield host_file(host, path=CONFIG, content=config(spec), mode="0640", owner="root", group=USER)
        yield host_file(host, path=KEYS, content=keys_json(spec.ksm_keys), mode="0400", owner=USER, group=USER)
        yield host_file(host, path=unit_file, content=UNIT_FILE, mode="0644", owner="root", group="root")
        packages = (PACKAGE,) if spec.database is None else (PACKAGE, POSTGRESQL)
        files = (unit_file, PROGRAM, CONFIG)
        after = (f"user:{USER}", f"path:{KEYS}", *(f"package:{name}" for name in packages))
        yield host_unit(host, unit=UNIT, enabled=True, running=True, watch=files, after=after)


def config(spec: OtpServerSpec) -> str | Composed:
    """The configuration file; it holds a secret where the database has a password."""
    handles = [spec.current, *(handle for handle in spec.ksm_keys if handle != spec.current)]
    ksm = {"keys": KEYS, "aeads": AEADS, "handles": handles, "listen": list(spec.ksm_listen)}
    fields = {"listen": list(spec.listen), "ksm": ksm, "user": USER, "signatures": spec.signatures}
    if spec.allow_from:
        fields["allowFrom"] = list(spec.allow_from)
    if spec.database is None:
        return json.dumps({**fields, "database": SQLITE}, indent=2) + "\n"
    head = json.dumps(fields, indent=2).removesuffix("\n}")
    return Composed(parts=(f'{head},\n  "database": ', spec.database, "\n}\n"), form="json")


def keys_json(keys: Mapping[str, Secret]) -> Composed:
    """The file with the keys that seal secrets."""
    parts: list[str | Secret] = []
    for handle, secret in keys.items():
        parts += [f'{"," if parts else "{"}\n  "{handle}": "', secret, '"']
    return Composed(parts=(*parts, "\n}\n"), form="hexAes")


def check(document: Document[OtpServerSpec], catalog: Catalog) -> Iterable[Problem]:
    """Addresses, handles, and servers that do not know of each other."""
    spec = document.spec

    def problem(message: str, fix: str, *path: str | int) -> Problem:
        return catalog.problem(document, ("spec", *path), message, fix)

    if spec.handle is not None and spec.handle not in spec.ksm_keys:
        yield problem(f"there is no key {spec.handle} in spec.ksmKeys.", "Add it, or name another handle.", "handle")
    taken: set[tuple[IPv4Address | IPv6Address | None, str]] = set()
    for field, addresses in (("listen", spec.listen), ("ksmListen", spec.ksm_listen)):
        for index, text in enumerate(addresses):
            found = address(text)
            listening = (found, text.rpartition(":")[2])
            if found is not None and listening in taken:
                yield problem(f"{text} is there twice, and can be listened on once.", "Keep one.", field, index)
            taken.add(listening)
            if found is None:
                yield problem(f"{text} is no address with a port.", "Write 127.0.0.1:8580.", field, index)
            elif field == "ksmListen" and not found.is_loopback:
                message = f"{text} can be reached from elsewhere, and the key storage answers everybody."
                yield problem(message, "Write an address of the host itself, such as 127.0.0.1:8002.", field, index)
    for index, text in enumerate(spec.allow_from):
        try:
            ip_network(text)
        except ValueError:
            message = f"{text} is no network: with it, the server would not start."
            yield problem(message, _network_like(text), "allowFrom", index)
    if spec.database is None and len(catalog.hosts(spec.hosts)) > 1:
        message = "each of several servers with a database of its own would accept the same OTP once."
        yield problem(message, "Name one host, or a PostgreSQL that they share in `database`.", "hosts")


def _network_like(text: str) -> str:
    """What somebody may have meant who wrote this."""
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        return "Write 192.0.2.0/24 or 2001:db8::/64."
    return f"Write {meant}, or {text.partition('/')[0]}/{meant.max_prefixlen} for one address."


def address(text: str) -> IPv4Address | IPv6Address | None:
    """The address of `address:port`, if both are right."""
    host, _, port = text.rpartition(":")
    try:
        return ip_address(host.strip("[]")) if 0 < int(port) < 65536 else None
    except ValueError:
        return None


KIND = Kind("OtpServer", OtpServerSpec, expand, check)
