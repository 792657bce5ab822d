"""The URI by which authenticator apps take a secret in, with no more in it than is needed.

    otpauth://totp/LABEL?secret=BASE32

What a QR code says about account and service lies wherever the code or the app's data end up, and helps whoever finds
it. So nothing goes in but the secret and what cannot be left out, unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from reconciler.tools.otp.oath import ALGORITHMS, Algorithm, OathKey, format_secret, parse_secret

NEUTRAL: Final = "-"
"""The label that says nothing. An empty one is refused by Google Authenticator and FreeOTP."""
_LONGEST: Final = 100
_KNOWN: Final = frozenset({"secret", "issuer", "algorithm", "digits", "period", "counter"})


def uri(key: OathKey, label: str = NEUTRAL, issuer: str = "") -> str:
    """The URI of a key.

    Args:
        label: shown by the app; empty only where the app is known to take it.
        issuer: shown by the app; left out by default.

    Raises:
        ValueError: label or issuer hold what apps misread.
    """
    for name, text in (("label", label), ("issuer", issuer)):
        if ":" in text:
            raise ValueError(f"the {name} must not hold a colon: apps take what stands before it for the issuer")
        if not text.isprintable() or len(text) > _LONGEST:
            raise ValueError(f"the {name} must be one line of at most {_LONGEST} characters")
        if text in (".", ".."):
            raise ValueError(f"the {name} must not be a dot: readers of URIs take it away")
    parameters = {"secret": format_secret(key.secret)}
    if issuer:
        parameters["issuer"] = issuer
    if key.algorithm != "SHA1":
        parameters["algorithm"] = key.algorithm
    if key.digits != 6:
        parameters["digits"] = str(key.digits)
    if key.type == "hotp":
        parameters["counter"] = str(key.counter)
    elif key.period != 30:
        parameters["period"] = str(key.period)
    # Not urlencode: apps do not read a plus sign as a space.
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    return f"otpauth://{key.type}/{quote(label, safe='')}?{query}"


def disclosures(key: OathKey, label: str = NEUTRAL, issuer: str = "") -> list[str]:
    """What whoever sees the code learns, a sentence for each; the secret is the first and the worst."""
    found = ["the secret: whoever photographs this code can make the same passwords"]
    if label not in ("", NEUTRAL):
        found.append(f"the label {label!r}")
    if issuer:
        found.append(f"the issuer {issuer!r}")
    if key.algorithm != "SHA1":
        found.append(f"the algorithm {key.algorithm}, which is not the default")
    if key.digits != 6:
        found.append(f"{key.digits} digits, which is not the default")
    if key.type == "hotp":
        found.append(f"the counter, {key.counter}")
    elif key.period != 30:
        found.append(f"a period of {key.period} s, which is not the default")
    return found


@dataclass(frozen=True)
class Scanned:
    """What a URI says.

    Attributes:
        key: the secret and its parameters.
        label, issuer: as shown by an app; empty if missing.
        others: names of parameters that mean nothing here.
    """

    key: OathKey
    label: str
    issuer: str
    others: Sequence[str] = ()


def parse(text: str) -> Scanned:
    """Read a URI.

    Raises:
        ValueError: it is none, or a parameter is wrong. Never carries the secret.
    """
    try:
        parts = urlsplit(text.strip())
        pairs = parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True, errors="strict", max_num_fields=20)
        path = unquote(parts.path.removeprefix("/"), errors="strict")
    except ValueError:
        raise ValueError("this is no URI") from None
    parameters = dict(pairs)
    if parts.scheme != "otpauth" or parts.netloc not in ("totp", "hotp") or len(parameters) != len(pairs):
        raise ValueError("the URI must begin with otpauth://totp/ or otpauth://hotp/, and name each parameter once")
    kind = "hotp" if parts.netloc == "hotp" else "totp"
    if kind == "hotp" and "counter" not in parameters:
        raise ValueError("a URI for HOTP needs a counter")
    prefix, colon, account = path.partition(":")
    key = OathKey(
        parse_secret(parameters.get("secret", "")),
        "hotp" if kind == "hotp" else "totp",
        _algorithm(parameters.get("algorithm", "SHA1")),
        _number(parameters, "digits", 6),
        _number(parameters, "period", 30),
        _number(parameters, "counter", 0),
    )
    issuer = parameters.get("issuer", prefix if colon else "")
    return Scanned(key, account.strip() if colon else path, issuer, sorted(parameters.keys() - _KNOWN))


def _algorithm(text: str) -> Algorithm:
    for algorithm in ALGORITHMS:
        if text.upper().replace("-", "") == algorithm:
            return algorithm
    raise ValueError("the algorithm must be SHA1, SHA256 or SHA512")


def _number(parameters: dict[str, str], name: str, default: int) -> int:
    text = parameters.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > 20:
        raise ValueError(f"{name} must be a number")
    return int(text)
