"""The machine that the tool runs on."""

from __future__ import annotations

from reconciler.connections import Reveal, no_secrets
from reconciler.connections.process import BECOME, ProcessChannel
from reconciler.connections.shell import LOOP, Shell
from reconciler.model import Target


def connect(target: Target, reveal: Reveal = no_secrets) -> Shell:
    """A shell on this machine, by way of sudo, run0 or doas where `become` says so."""
    argv = [*BECOME[target.settings.get("become", "none")], "sh", "-c", LOOP]
    return Shell(target.name, lambda: ProcessChannel(argv))
