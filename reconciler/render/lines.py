"""JSON lines: one event a line, each with `version`, `event` and `at`. For programs."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from reconciler.model import canonical

VERSION: Final = 1
"""Grows when an event changes its meaning or loses a field; new events and fields do not count."""


class JsonLines:
    """Writes events as they happen."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._lock = threading.Lock()

    def __call__(self, event: str, **fields: Any) -> None:
        """See `Emit`."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = canonical({"version": VERSION, "event": event, "at": at, **fields})
        with self._lock:
            self._out.write(line + "\n")
            self._out.flush()
