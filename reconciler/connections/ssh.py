"""Hosts over SSH, by paramiko or (for host certificates, hardware keys and other specialities) the OpenSSH client.

`~/.ssh/config` is honoured. Host keys are verified strictly and never added. paramiko's own socket would wait about
40 ms in each round trip (Nagle's algorithm against delayed acknowledgements); ours does not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from reconciler.connections import Reveal, no_secrets
from reconciler.connections.known_hosts import HostKey, KnownHosts
from reconciler.connections.lean_paramiko import UnknownKeyType, paramiko
from reconciler.connections.process import BECOME, ProcessChannel
from reconciler.connections.shell import LOOP, Shell
from reconciler.errors import ConnectError, ConnectionLost, HostKeyError
from reconciler.model import Target

CONNECT_SECONDS: Final = 10.0
"""To connect, to agree on keys, to log in: each."""
SILENT_SECONDS: Final = 20
"""A peer that acknowledges nothing for so long is dead."""
POLL_SECONDS: Final = 1.0
IDLE_POLL_SECONDS: Final = 60.0
"""How often a transport that hears nothing looks around: while it connects, and later, when the kernel tells of a peer
that died. A hundred of them that look every second cost more than what they are there for."""
PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between attempts: a server that is just starting, or limits its startups, drops connections at once."""
MAX_JUMPS: Final = 8

# What goes wrong is raised to the caller; nothing is logged on the way.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

T = TypeVar("T")
Stamp = tuple[int, int, int] | None


def connect(target: Target, reveal: Reveal = no_secrets) -> Shell:
    """A shell on a host.

    Settings: address, port, user, identityFile, knownHosts, configFile, become, client (`paramiko` or `openssh`),
    fresh (a login of its own, whatever the SSH configuration says).
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
    if settings.get("fresh"):
        argv += ["-o", "ControlPath=none"]  # a shared connection would be no new login
    return [*argv, "--", settings.get("address") or name, command]


@dataclass(frozen=True)
class _Way:
    """All that is needed to reach one host. `only` = of the agent's keys, just those that `keys` names."""

    name: str
    address: str
    port: int
    user: str
    keys: Sequence[str]
    only: bool
    known_hosts: Sequence[str]
    label: str
    jump: Sequence[str]
    proxy: str | None
    settings: Mapping[str, Any]


def _way(name: str, settings: Mapping[str, Any]) -> _Way:
    """What the document says, else what the SSH configuration says, else what OpenSSH would do."""
    alias = settings.get("address") or name
    found = _looked_up(settings.get("configFile"), alias)
    address = found.get("hostname", alias)
    port = int(settings.get("port") or found.get("port", 22))
    key_name = found.get("hostkeyalias", address)
    keys = [settings["identityFile"]] if settings.get("identityFile") else found.get("identityfile", [])
    known = [settings["knownHosts"]] if settings.get("knownHosts") else found.get("userknownhostsfile", "").split()
    jump = found.get("proxyjump", "none")
    return _Way(
        name,
        address,
        port,
        settings.get("user") or found.get("user") or os.environ.get("USER") or "root",
        [_home(k) for k in keys or [f"~/.ssh/id_{kind}" for kind in ("ed25519", "ecdsa", "rsa")]],
        bool(settings.get("identityFile")) or found.get("identitiesonly", "no") == "yes",
        [_home(k) for k in known or ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")]
        + found.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts").split(),
        key_name if port == 22 or "hostkeyalias" in found else f"[{key_name}]:{port}",
        [] if jump == "none" else jump.split(","),
        None if found.get("proxycommand", "none") == "none" else found["proxycommand"],
        settings,
    )


def _hops(way: _Way, depth: int = 0) -> Iterator[_Way]:
    """The hosts on the way, the nearest first; of the first one also those that its own configuration names."""
    if depth > MAX_JUMPS:
        raise ConnectError(f"more than {MAX_JUMPS} hosts on the way; ProxyJump runs in circles.")
    for number, hop in enumerate(way.jump):
        user, _, where = hop.removeprefix("ssh://").rpartition("@")
        host, port = where, ""
        if where.startswith("["):
            host, _, port = where[1:].partition("]")
        elif where.count(":") == 1:
            host, _, port = where.partition(":")
        if host in (way.address, way.settings.get("address")):
            continue  # `Host *` with ProxyJump names the jump host itself, too
        settings = {k: v for k, v in way.settings.items() if k in ("configFile", "knownHosts")}
        known = _looked_up(settings.get("configFile"), host)
        if "identityfile" not in known:
            settings["identityFile"] = way.settings.get("identityFile")
        settings |= {"address": host, "user": user, "port": port.removeprefix(":")}
        found = _way(f"{way.name} (by way of {host})", settings)
        if number == 0:
            yield from _hops(found, depth + 1)
        yield found


def _paramiko(name: str, settings: Mapping[str, Any], command: str) -> _SshChannel:
    transports: list[paramiko.Transport] = []
    one: _Way | None = None
    try:
        through = None
        way = _way(name, settings)
        for one in (*_hops(way), way):
            known = _known_keys(one)
            through = _transport(one, known, through)
            transports.append(through)
            _verify(one, known, through.get_remote_server_key())
            _authenticate(one, through)
        channel = transports[-1].open_session(timeout=CONNECT_SECONDS)
        channel.exec_command(command)
        for transport in transports:
            if isinstance(transport.sock, _PromptSocket):
                transport.sock.be_patient()
    except (paramiko.SSHException, OSError, EOFError) as error:
        _close(transports)
        raise ConnectError(f"{one.name}: {_reason(error, one)}" if one else f"{name}: {error}") from None
    except BaseException:
        _close(transports)
        raise
    return _SshChannel(channel, transports)


def _close(transports: Sequence[paramiko.Transport]) -> None:
    for transport in reversed(transports):
        transport.close()


def _transport(way: _Way, known: Sequence[HostKey], through: paramiko.Transport | None) -> paramiko.Transport:
    """A transport that has agreed on keys with a server. Who that is, and who we are, comes next."""
    deadline = time.monotonic() + CONNECT_SECONDS
    kinds = {key.kind for key in known if not key.marker}
    for pause in (*PAUSES, None):
        transport = paramiko.Transport(_socket(way, through))
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = CONNECT_SECONDS
        options = transport.get_security_options()
        # These check their packets by themselves, in C; the others need a loop over bytes in Python.
        options.ciphers = sorted(options.ciphers, key=lambda cipher: "-gcm" not in cipher)
        # Ask for a key of a kind that we know, as OpenSSH does.
        options.key_types = [k for k in options.key_types if _family(k) in kinds] or options.key_types
        try:
            transport.start_client(timeout=CONNECT_SECONDS)
            if not transport.initial_kex_done:
                raise TimeoutError
            return transport
        except (paramiko.SSHException, EOFError, OSError) as error:
            transport.close()
            dropped = "banner" in str(error).lower() or isinstance(error, EOFError | ConnectionResetError)
            if not dropped or pause is None or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  spreads attempts, protects nothing
        except BaseException:
            transport.close()
            raise
    raise AssertionError("unreachable")


def _socket(way: _Way, through: paramiko.Transport | None) -> Any:
    if through is not None:
        return through.open_channel("direct-tcpip", (way.address, way.port), ("127.0.0.1", 0), timeout=CONNECT_SECONDS)
    if way.proxy:
        return paramiko.ProxyCommand(way.proxy)
    inner = socket.create_connection((way.address, way.port), CONNECT_SECONDS)
    inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    inner.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", SILENT_SECONDS // 4),
        ("TCP_KEEPINTVL", SILENT_SECONDS // 4),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", SILENT_SECONDS * 1000),
    ):
        if hasattr(socket, option):
            inner.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return _PromptSocket(inner)


class _PromptSocket:
    """A socket that acknowledges at once what it receives, and whose reader notices at once that it was closed.

    It also reads ahead: paramiko asks for each packet in three pieces, and each would be a system call or three. And it
    lets paramiko look around less often while nothing comes: that is only needed for new keys, after gigabytes.
    """

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._ahead = b""
        self._read = 0

    def recv(self, size: int) -> bytes:
        if self._read == len(self._ahead):
            self._ahead = self._inner.recv(max(size, 65536))
            self._read = 0
            self._inner.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_QUICKACK", socket.TCP_NODELAY), 1)
        start, self._read = self._read, min(self._read + size, len(self._ahead))
        return self._ahead[start : self._read]

    def settimeout(self, seconds: float | None) -> None:
        self._inner.settimeout(seconds and max(seconds, POLL_SECONDS))

    def be_patient(self) -> None:
        self._inner.settimeout(IDLE_POLL_SECONDS)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it is broken already
            self._inner.shutdown(socket.SHUT_RDWR)
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


# ------------------------------------------------------------------------------------------------ who is there


def _known_keys(way: _Way) -> list[HostKey]:
    return [key for file in way.known_hosts for key in _once(_known_hosts, file).lookup(way.label)]


def _verify(way: _Way, known: Sequence[HostKey], key: paramiko.PKey) -> None:
    """Make sure that the host is who it was.

    Raises:
        HostKeyError: its key is unknown, changed or revoked.
    """
    shown = HostKey(key.get_name(), key.get_base64())
    same = [k for k in known if k.text == shown.text and k.marker in ("", "@revoked")]
    revoked = next((k for k in same if k.marker), None)
    if revoked:
        raise HostKeyError(
            f"{way.name}: the host key of {way.label} is revoked by {revoked.place}: {shown.fingerprint}."
        )
    if same:
        return
    other = [k for k in known if not k.marker and k.kind == shown.kind]
    if other:
        was = ", ".join(f"{k.fingerprint} ({k.place})" for k in other)
        raise HostKeyError(
            f"{way.name}: the host key of {way.label} CHANGED: known is {was}, the host shows {shown.fingerprint}. "
            "If it was reinstalled, correct that line; else find out who answers."
        )
    if any(k.marker == "@cert-authority" for k in known):
        raise HostKeyError(
            f"{way.name}: {way.label} is known by a certificate authority, which only the OpenSSH client can verify. "
            "Write `client: openssh` in its Host document."
        )
    raise HostKeyError(
        f"{way.name}: the host key of {way.label} is not known: it shows {shown.fingerprint}. Compare that with what "
        f"`ssh-keygen -lf` says on the host itself, then add this line to {way.known_hosts[0]}: "
        f"{way.label} {shown.kind} {shown.text}"
    )


# ------------------------------------------------------------------------------------------------ who we are


def _authenticate(way: _Way, transport: paramiko.Transport) -> None:
    """Log in by a key.

    Raises:
        ConnectError: none is accepted; says what was tried.
    """
    who = f"{way.name}: {way.user}@{way.address}"
    notes: list[str] = []
    agent = paramiko.Agent() if os.environ.get("SSH_AUTH_SOCK") else None
    try:
        for title, key in _keys(way, agent, notes):
            try:
                left = transport.auth_publickey(way.user, key)
            except paramiko.BadAuthenticationType as error:
                raise ConnectError(f"{who} takes no keys, only {', '.join(error.allowed_types)}.") from None
            except paramiko.AuthenticationException:
                notes.append(f"{title}: refused")
                if not transport.is_active():
                    notes.append("then the host hung up")
                    break
                continue
            if left:
                raise ConnectError(f"{who} took {title}, but also wants {', '.join(left)}, which we cannot give.")
            return
    finally:
        if agent is not None:
            agent.close()
    raise ConnectError(f"{who} takes none of our keys ({'; '.join(notes) or 'we have none'}).")


def _keys(way: _Way, agent: paramiko.Agent | None, notes: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """The agent's keys, then those in files, each with a title. What cannot be read is noted."""
    offered = agent.get_keys() if agent else ()
    named = {text for text in (_once(_public_text, file) for file in way.keys) if text}
    for key in offered:
        if not way.only or key.get_base64() in named:
            yield f"{key.comment or key.get_name()} of the agent", key
    have = {key.get_base64() for key in offered}
    for file in way.keys:
        if _once(_public_text, file) in have:
            continue
        try:
            loaded = _once(_private_key, file)
        except paramiko.PasswordRequiredException:
            notes.append(f"{file}: needs a passphrase; add it to the agent")
        except (paramiko.SSHException, OSError, ValueError) as error:
            notes.append(f"{file}: {getattr(error, 'strerror', None) or 'not a private key that we can read'}")
        else:
            if loaded is None:
                notes.append(f"{file}: not there")
            else:
                yield file, loaded


# ------------------------------------------------------------------------------------------------ files, read once


_reading = threading.Lock()


def _once(read: Callable[[str, Stamp], T], file: str) -> T:
    """What a cached function reads from a file, as the file is now: by one thread, while the others wait for it."""
    with _reading:
        return read(file, _stamp(file))


def _stamp(file: str) -> Stamp:
    """Tells whether a file is another one than before."""
    try:
        seen = os.stat(file)  # noqa: PTH116  four of them a host, and a Path costs more than the look
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


@cache
def _known_hosts(file: str, stamp: Stamp) -> KnownHosts:
    return KnownHosts(file)


@cache
def _private_key(file: str, stamp: Stamp) -> paramiko.PKey | None:
    if not Path(file).exists():
        return None
    try:
        return paramiko.PKey.from_path(file)
    except TypeError:  # what cryptography says
        raise paramiko.PasswordRequiredException from None
    except UnknownKeyType:
        raise paramiko.SSHException from None


@cache
def _public_text(file: str, stamp: Stamp) -> str | None:
    """The public half of a key, in base64, from the file beside it."""
    try:
        return Path(f"{file}.pub").read_text().split()[1]
    except (OSError, UnicodeDecodeError, IndexError):
        return None


@cache
def _config(file: str, stamp: Stamp) -> paramiko.SSHConfig:
    return paramiko.SSHConfig.from_path(file)


def _looked_up(file: str | None, alias: str) -> dict[str, Any]:
    """What the SSH configuration says of a host.

    Raises:
        ConnectError: it cannot be read.
    """
    path = _home(file or "~/.ssh/config")
    try:
        return dict(_once(_config, path).lookup(alias))
    except FileNotFoundError:
        if file:
            raise ConnectError(f"there is no SSH configuration {file}.") from None
        return {}
    except OSError as error:
        raise ConnectError(f"the SSH configuration {path} cannot be read: {error.strerror}.") from None
    except (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize, ImportError, UnicodeDecodeError) as error:
        raise ConnectError(f"the SSH configuration {path}: {error}") from None


def _home(path: str) -> str:
    """A path with `~` replaced; one that names an unknown user stays as it is."""
    return os.path.expanduser(path)  # noqa: PTH111  Path.expanduser raises there


def _family(kind: str) -> str:
    return "ssh-rsa" if kind.startswith("rsa-sha2") else kind


def _reason(error: Exception, way: _Way) -> str:
    where = f"{way.address} port {way.port}"
    if isinstance(error, socket.gaierror):
        return f"its address is not known: {way.address} ({error.strerror})."
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:.0f} s from {where}."
    if isinstance(error, paramiko.ChannelException):
        return f"the jump host cannot reach {where} ({error.text})."
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be reached: {error.strerror} ({where})."
    if isinstance(error, EOFError) or "banner" in str(error).lower():
        return "something answers, but hangs up or is no SSH server."
    return f"SSH failed: {error or type(error).__name__}."


class _SshChannel:
    """One exec on an SSH connection."""

    def __init__(self, channel: paramiko.Channel, transports: Sequence[paramiko.Transport]) -> None:
        self._channel, self._transports = channel, transports

    def send(self, content: bytes) -> None:
        try:
            self._channel.sendall(content)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise ConnectionLost(f"the connection broke ({error})") from None

    def receive(self, seconds: float | None) -> bytes:
        try:
            self._channel.settimeout(seconds)
            content: bytes = self._channel.recv(65536)
        except TimeoutError:
            raise ConnectionLost(f"no answer within {seconds:.0f} s.") from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise ConnectionLost(f"the connection broke ({error})") from None
        return content

    def complaint(self) -> str:
        out = b""
        while self._channel.recv_stderr_ready() and len(out) < 4096:
            out += self._channel.recv_stderr(4096)
        return out.decode("utf-8", "replace")

    def close(self) -> None:
        _close(self._transports)
