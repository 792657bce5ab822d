"""Which of Debian's abstractions brings access to what: the ones that a person would reach for.

A test compares the table with the abstractions of a real Debian: each path here is allowed there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reconciler.tools.apparmor.globs import TUNABLES, Patterns

TABLE: Final[dict[str, Sequence[tuple[str, str]]]] = {
    "abstractions/base": (
        ("/etc/ld.so.cache", "mr"),
        ("/etc/ld.so.preload", "r"),
        ("/etc/localtime", "r"),
        ("/etc/locale.alias", "r"),
        ("/{usr/,}lib{,32,64}/**", "r"),
        ("/{usr/,}lib{,32,64}/**.so*", "mr"),
        ("/usr/share/locale/**", "r"),
        ("/usr/share/zoneinfo/**", "r"),
        ("/dev/{null,zero,full}", "rw"),
        ("/dev/{random,urandom}", "r"),
        ("/dev/log", "w"),
        ("/run/systemd/journal/{dev-log,socket}", "w"),
        ("/proc/{meminfo,stat,cpuinfo,filesystems}", "r"),
        ("/proc/sys/vm/overcommit_memory", "r"),
        ("/proc/@{pid}/{maps,auxv,status}", "r"),
        ("/sys/devices/system/cpu/{online,possible}", "r"),
    ),
    "abstractions/nameservice": (
        ("/etc/{passwd,group,hosts,host.conf,resolv.conf,nsswitch.conf,services,protocols,gai.conf}", "r"),
        ("/run/systemd/resolve/{resolv.conf,stub-resolv.conf}", "r"),
        ("/var/lib/sss/mc/{passwd,group,initgroups}", "r"),
        ("/run/nscd/socket", "rw"),
    ),
    "abstractions/openssl": (("/etc/ssl/openssl.cnf", "r"),),
    "abstractions/ssl_certs": (
        ("/etc/ssl/", "r"),
        ("/etc/ssl/certs/", "r"),
        ("/etc/ssl/certs/*", "r"),
        ("/usr/share/ca-certificates/**", "r"),
        ("/usr/local/share/ca-certificates/**", "r"),
    ),
    "abstractions/ssl_keys": (("/etc/ssl/private/", "r"), ("/etc/ssl/private/**", "r")),
    "abstractions/python": (
        ("/usr/lib{,32,64}/python3.[0-9]*/**.pyc", "mr"),
        ("/usr/lib{,32,64}/python3.[0-9]*/**.py", "r"),
        ("/usr/local/lib/python3.[0-9]*/dist-packages/**.py", "r"),
    ),
    "abstractions/perl": (
        ("/usr/share/perl/**", "r"),
        ("/usr/share/perl5/**", "r"),
    ),
    "abstractions/bash": (("/etc/profile.d/*", "r"), ("/etc/bash.bashrc", "r"), ("/etc/inputrc", "r")),
    "abstractions/fonts": (("/usr/share/fonts/**", "r"), ("/etc/fonts/**", "r"), ("/var/cache/fontconfig/**", "r")),
    "abstractions/mysql": (("/run/mysqld/mysqld.sock", "rw"),),
    "abstractions/dbus-strict": (("/run/dbus/system_bus_socket", "rw"),),
    "abstractions/terminfo": (("/usr/share/terminfo/**", "r"), ("/etc/terminfo/**", "r")),
}
"""Abstraction -> patterns of paths, and letters that it allows there."""
NETWORK: Final = {
    "abstractions/nameservice": frozenset(
        {("inet", "stream"), ("inet6", "stream"), ("inet", "dgram"), ("inet6", "dgram")}
    )
}
"""Abstraction -> families and types of sockets."""


_PATTERNS: Final = Patterns(TUNABLES)


def brings(name: str, path: str, letters: str) -> bool:
    """Whether an abstraction allows all of this."""
    missing = set(letters)
    for pattern, allowed in TABLE.get(name, ()):
        if _PATTERNS.matches(pattern, path):
            missing -= set(allowed)
            missing -= {"a"} if "w" in allowed else set()
    return not missing


def best(path: str, letters: str, included: Sequence[str]) -> str | None:
    """The abstraction for an access: one that is included already, or the first of the table that has it."""
    return next((name for name in (*included, *TABLE) if brings(name, path, letters)), None)
