"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

RANGE = range(20_000, 32_000)
"""Below what the kernel gives to outgoing connections: one of those might take the port before the server does."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    for port in random.SystemRandom().sample(RANGE, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
