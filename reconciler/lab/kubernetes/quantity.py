"""Quantities (`100m`, `0.5Gi`) in the form in which the server writes them.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from fractions import Fraction

_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FORM = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:([KMGTPE]i)|([eE][+-]?[0-9]+)|([numkMGTPE]?))$")


def canonical(text: object) -> str:
    """The canonical spelling: no fraction, the largest suffix. Raises ValueError for what is no quantity."""
    shown = str(text)
    match = _FORM.match(shown)
    if not match:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    value = Fraction(match[1])
    if match[2]:
        value *= 2 ** _BINARY[match[2]]
        if value.denominator == 1 and abs(value) >= 1024:
            return _largest(value, [(suffix, Fraction(2) ** power) for suffix, power in _BINARY.items()])
    elif match[3]:
        return _exponent(value * Fraction(10) ** int(match[3][1:]))
    else:
        value *= Fraction(10) ** _DECIMAL[match[4]]
    return _largest(value, [(suffix, Fraction(10) ** power) for suffix, power in _DECIMAL.items()])


def _largest(value: Fraction, units: list[tuple[str, Fraction]]) -> str:
    if value == 0:
        return "0"
    for suffix, unit in sorted(units, key=lambda pair: -pair[1]):
        if (value / unit).denominator == 1:
            return f"{value / unit}{suffix}"
    if value.denominator == 1:
        return str(value)
    return f"{-(-value // Fraction(1, 10**9))}n"  # finer than nano is rounded up


def _exponent(value: Fraction) -> str:
    if value == 0:
        return "0"
    for power in range(18, -10, -3):
        scaled = value / Fraction(10) ** power
        if scaled.denominator == 1:
            return f"{scaled}e{power}" if power else str(scaled)
    return f"{-(-value // Fraction(1, 10**9))}e-9"
