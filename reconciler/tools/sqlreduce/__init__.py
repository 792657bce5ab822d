"""The smallest query that still fails the same way.

>>> with PostgresOracle("dbname=shop") as oracle:   # doctest: +SKIP
...     print(reduce("SELECT ...", oracle).minimal)
"""

from __future__ import annotations

from reconciler.tools.sqlreduce.oracle import (
    Failure,
    Match,
    NoError,
    Oracle,
    Refused,
    ServerUnavailable,
    SqlReduceError,
    Trial,
    Unparsable,
    Unstable,
    WrongTarget,
)
from reconciler.tools.sqlreduce.postgres import PostgresOracle
from reconciler.tools.sqlreduce.reduction import Reduction, Statistics, reduce

__all__ = [
    "Failure",
    "Match",
    "NoError",
    "Oracle",
    "PostgresOracle",
    "Reduction",
    "Refused",
    "ServerUnavailable",
    "SqlReduceError",
    "Statistics",
    "Trial",
    "Unparsable",
    "Unstable",
    "WrongTarget",
    "reduce",
]
