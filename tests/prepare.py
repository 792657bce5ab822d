"""Sets up what the tests need beyond Python: Debian packages and the lab. `make test` runs it first."""

from __future__ import annotations

import importlib
import sys

PARTS = ("tests.lab.prepare", "tests.sqlreduce.prepare", "tests.secrets.prepare", "tests.otp.prepare")


def main() -> int:
    """Prepare every part; each says itself what it leaves out and why."""
    return max(int(importlib.import_module(part).main() or 0) for part in PARTS)


if __name__ == "__main__":
    sys.exit(main())
