"""Hosts over SSH, by paramiko or (for host certificates, hardware keys and other specialities) the OpenSSH client.

`~/.ssh/config` is honoured. Host keys are verified strictly and never added. paramiko's own socket would wait about
40 ms in each round trip (Nagle's algorithm against delayed acknowledgements); ours does not.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import paramiko

from reconciler.connections.process import BECOME, ProcessChannel
from reconciler.connections.shell import LOOP, Shell
from reconciler.errors import ConnectError, ConnectionLost, HostKeyError
from reconciler.model import Target

CONNECT_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 20
"""A peer that acknowledges nothing for so long is dead."""
ATTEMPTS: Final = 3
"""A server that is just starting, or limits its startups, may drop a connection before its banner."""


def connect(target: Target) -> Shell:
    """A shell on a host.

    Settings: address, port, user, identityFile, knownHosts, configFile, become, client (`paramiko` or `openssh`).
    """
    settings = target.settings
    command = shlex.join([*BECOME[settings.get("become", "none")], "sh", "-c", LOOP])
    if settings.get("client") == "openssh":
        return Shell(target.name, lambda: ProcessChannel(_openssh(target.name, settings, command)))
    return Shell(target.name, lambda: _paramiko(target.name, settings, command))


def _openssh(name: str, settings: Mapping[str, Any], command: str) -> list[str]:
    argv = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    argv += ["-o", f"ConnectTimeout={CONNECT_SECONDS:.0f}", "-o", "ServerAliveInterval=5"]
    for option, key in (("-F", "configFile"), ("-l", "user"), ("-i", "identityFile"), ("-p", "port")):
        if settings.get(key):
            argv += [option, str(settings[key])]
    if settings.get("knownHosts"):
        argv += ["-o", f"UserKnownHostsFile={settings['knownHosts']}"]
    return [*argv, "--", settings.get("address") or name, command]


@dataclass(frozen=True)
class _Way:
    """All that is needed to reach one host."""

    name: str
    address: str
    port: int
    user: str
    keys: Sequence[str]
    known_hosts: Sequence[str]
    key_name: str
    jump: Sequence[str]
    proxy: str | None
    agent: bool
    config: str | None


def _way(name: str, settings: Mapping[str, Any]) -> _Way:
    config_file = settings.get("configFile")
    alias = settings.get("address") or name
    found = _config(config_file).lookup(alias)
    address = found.get("hostname", alias)
    port = int(settings.get("port") or found.get("port", 22))
    only = found.get("identitiesonly", "no") == "yes"
    keys = [settings["identityFile"]] if settings.get("identityFile") else found.get("identityfile", [])
    if not keys:
        keys = [f"~/.ssh/id_{kind}" for kind in ("ed25519", "ecdsa", "rsa")]
    known = [settings["knownHosts"]] if settings.get("knownHosts") else found.get("userknownhostsfile", "").split()
    jump = found.get("proxyjump", "none")
    return _Way(
        name,
        address,
        port,
        settings.get("user") or found.get("user") or os.environ.get("USER") or "root",
        [os.path.expanduser(k) for k in keys],
        [os.path.expanduser(k) for k in known or ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")]
        + found.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts").split(),
        found.get("hostkeyalias", address),
        [] if jump == "none" else jump.split(","),
        None if found.get("proxycommand", "none") == "none" else found["proxycommand"],
        agent=not only and not settings.get("identityFile"),
        config=config_file,
    )


def _paramiko(name: str, settings: Mapping[str, Any], command: str) -> _SshChannel:
    transports: list[paramiko.Transport] = []
    try:
        transport = _transport(_way(name, settings), transports, None)
        channel = transport.open_session(timeout=CONNECT_SECONDS)
        channel.exec_command(command)
    except (paramiko.SSHException, OSError, EOFError) as error:
        for one in transports:
            one.close()
        raise ConnectError(f"{name}: {_reason(error)}") from None
    except BaseException:
        for one in transports:
            one.close()
        raise
    return _SshChannel(channel, transports)


def _transport(way: _Way, opened: list[paramiko.Transport], through: paramiko.Transport | None) -> paramiko.Transport:
    """An authenticated transport. Every transport that was opened is noted in `opened`, jump hosts first."""
    for hop in way.jump:
        user, _, rest = hop.rpartition("@")
        host, _, port = rest.partition(":")
        settings = {"address": host, "user": user or None, "port": port or None, "configFile": way.config}
        through = _transport(_way(f"{way.name} (by way of {host})", settings), opened, through)
    for attempt in range(1, ATTEMPTS + 1):
        transport = paramiko.Transport(_socket(way, through))
        opened.append(transport)
        label, known = _known_keys(way)
        if known:
            # Ask for a key of a kind that we know, as OpenSSH does.
            options = transport.get_security_options()
            options.key_types = [k for k in options.key_types if _family(k) in known] or options.key_types
        try:
            transport.start_client(timeout=CONNECT_SECONDS)
            break
        except (paramiko.SSHException, EOFError, OSError) as error:
            transport.close()
            opened.remove(transport)
            if attempt == ATTEMPTS or "banner" not in str(error).lower() and not isinstance(error, EOFError):
                raise
            time.sleep(0.2 * attempt)
    _verify(way, label, known, transport.get_remote_server_key())
    _authenticate(way, transport)
    return transport


def _socket(way: _Way, through: paramiko.Transport | None) -> Any:
    if through is not None:
        return through.open_channel("direct-tcpip", (way.address, way.port), ("127.0.0.1", 0), timeout=CONNECT_SECONDS)
    if way.proxy:
        return paramiko.ProxyCommand(way.proxy)
    inner = socket.create_connection((way.address, way.port), CONNECT_SECONDS)
    inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    inner.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", SILENT_SECONDS // 5),
        ("TCP_USER_TIMEOUT", SILENT_SECONDS * 1000),
    ):
        if hasattr(socket, option):
            inner.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return _PromptSocket(inner)


class _PromptSocket:
    """A socket that acknowledges at once what it receives."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner

    def recv(self, size: int) -> bytes:
        content = self._inner.recv(size)
        self._inner.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_QUICKACK", socket.TCP_NODELAY), 1)
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


# ------------------------------------------------------------------------------------------------ who is there


def _known_keys(way: _Way) -> tuple[str, dict[str, paramiko.PKey]]:
    """The name under which a host is known, and its keys by family."""
    label = way.key_name if way.port == 22 else f"[{way.key_name}]:{way.port}"
    keys: dict[str, paramiko.PKey] = {}
    for file in way.known_hosts:
        found = _host_keys(file).lookup(label)
        for kind in found.keys() if found else ():
            keys.setdefault(_family(kind), found[kind])
    return label, keys


def _verify(way: _Way, label: str, known: Mapping[str, paramiko.PKey], key: paramiko.PKey) -> None:
    expected = known.get(_family(key.get_name()))
    if expected is not None and expected == key:
        return
    files = ", ".join(way.known_hosts)
    if expected is not None:
        raise HostKeyError(
            f"{way.name}: the host key of {label} CHANGED: known is {_fingerprint(expected)}, "
            f"the host shows {_fingerprint(key)}. If it was reinstalled, update {files}; else find out who answers."
        )
    raise HostKeyError(
        f"{way.name}: the host key of {label} is not known: it shows {_fingerprint(key)}. "
        f"Compare it with the host's own (ssh-keygen -lf) and add it to {way.known_hosts[0]}."
    )


def _authenticate(way: _Way, transport: paramiko.Transport) -> None:
    tried = []
    for load in _credentials(way):
        try:
            key = load()
            if key is None:
                continue
            transport.auth_publickey(way.user, key)
            return
        except paramiko.PasswordRequiredException as error:
            tried.append(f"a key that needs a passphrase ({error})")
        except paramiko.AuthenticationException:
            tried.append("refused")
    files = ", ".join(way.keys)
    raise ConnectError(f"{way.name}: {way.user}@{way.address} takes none of our keys ({files}, agent: {way.agent}).")


def _credentials(way: _Way) -> list[Callable[[], paramiko.PKey | None]]:
    loaders: list[Callable[[], paramiko.PKey | None]] = [lambda file=file: _private_key(file) for file in way.keys]  # type: ignore[misc]
    if way.agent and os.environ.get("SSH_AUTH_SOCK"):
        loaders = [lambda key=key: key for key in _agent_keys()] + loaders  # type: ignore[misc]
    return loaders


@cache
def _agent_keys() -> tuple[paramiko.PKey, ...]:
    return tuple(paramiko.Agent().get_keys())


@cache
def _private_key(file: str) -> paramiko.PKey | None:
    if not Path(file).exists():
        return None
    try:
        return paramiko.PKey.from_path(file)
    except paramiko.UnknownKeyType:
        return None


@cache
def _host_keys(file: str) -> paramiko.HostKeys:
    keys = paramiko.HostKeys()
    if Path(file).exists():
        keys.load(file)
    return keys


@cache
def _config(file: str | None) -> paramiko.SSHConfig:
    path = Path(file).expanduser() if file else Path("~/.ssh/config").expanduser()
    if not path.exists():
        if file:
            raise ConnectError(f"there is no SSH configuration {file}.")
        return paramiko.SSHConfig()
    try:
        return paramiko.SSHConfig.from_path(str(path))
    except paramiko.ConfigParseError as error:
        raise ConnectError(f"{path}: {error}") from None


def _family(kind: str) -> str:
    return "ssh-rsa" if kind.startswith("rsa-sha2") else kind


def _fingerprint(key: paramiko.PKey) -> str:
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"its address is not known ({error.strerror})."
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:.0f} s."
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be reached: {error.strerror}."
    return f"SSH failed: {error or type(error).__name__}."


class _SshChannel:
    """One exec on an SSH connection."""

    def __init__(self, channel: paramiko.Channel, transports: Sequence[paramiko.Transport]) -> None:
        self._channel, self._transports = channel, transports

    def send(self, content: bytes) -> None:
        try:
            self._channel.sendall(content)
        except (OSError, paramiko.SSHException) as error:
            raise ConnectionLost(f"the connection broke ({error or 'closed'})") from None

    def receive(self) -> bytes:
        try:
            content: bytes = self._channel.recv(65536)
        except (OSError, paramiko.SSHException) as error:
            raise ConnectionLost(f"the connection broke ({error})") from None
        return content

    def complaint(self) -> str:
        out = b""
        while self._channel.recv_stderr_ready() and len(out) < 4096:
            out += self._channel.recv_stderr(4096)
        return out.decode("utf-8", "replace")

    def close(self) -> None:
        for transport in reversed(self._transports):
            transport.close()
