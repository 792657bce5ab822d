"""SOPS files by the book, on their own: no line of `reconciler` takes part. YAML by ruamel, age by Debian's program."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from ruamel.yaml import YAML

VALUE = re.compile(r"ENC\[AES256_GCM,data:(.*?),iv:(.*?),tag:(.*?),type:(\w+)\]")


def age(*argv: str, text: bytes) -> bytes:
    """Run Debian's age."""
    return subprocess.run(["age", *argv], input=text, capture_output=True, check=True).stdout


def leaves(node: Any, keys: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """(additional data, value) of each value in order."""
    if isinstance(node, dict):
        for key, inner in node.items():
            yield from leaves(inner, [*keys, key])
    elif isinstance(node, list):
        for inner in node:
            yield from leaves(inner, keys)
    else:
        yield "".join(f"{key}:" for key in keys), node


def spelled(value: Any) -> tuple[bytes, str]:
    """Bytes and type of a value."""
    match value:
        case bool():
            return (b"True" if value else b"False"), "bool"
        case int():
            return str(value).encode(), "int"
        case float():
            return repr(value).encode(), "float"
    return str(value).encode(), "str"


def seal(value: Any, key: bytes, bound: str) -> str:
    """One value, encrypted."""
    if value in ("", None):
        return ""
    plain, name = spelled(value)
    nonce = os.urandom(32)
    out = AESGCM(key).encrypt(nonce, plain, bound.encode())
    data, tag = out[:-16], out[-16:]
    d, i, t = (base64.b64encode(part).decode() for part in (data, nonce, tag))
    return f"ENC[AES256_GCM,data:{d},iv:{i},tag:{t},type:{name}]"


def unseal(text: str, key: bytes, bound: str) -> str:
    """One value, decrypted: as text."""
    found = VALUE.fullmatch(text)
    assert found, text
    data, nonce, tag = (base64.b64decode(part) for part in found.groups()[:3])
    return AESGCM(key).decrypt(nonce, data + tag, bound.encode()).decode()


def digest(values: Sequence[Any], seed: bytes = b"") -> str:
    """The MAC before encryption."""
    return hashlib.sha512(seed + b"".join(spelled(v)[0] for v in values if v is not None)).hexdigest().upper()


def write(
    tree: dict[str, Any],
    recipient: str,
    *,
    encrypts: Callable[[str], bool] = lambda bound: "_unencrypted:" not in bound,
    rule: dict[str, Any] | None = None,
) -> str:
    """A SOPS file of a tree, wrapped by Debian's age."""
    key = os.urandom(32)

    def sealed(node: Any, keys: Sequence[str]) -> Any:
        bound = "".join(f"{key}:" for key in keys)
        if isinstance(node, dict):
            return {name: sealed(inner, [*keys, name]) for name, inner in node.items()}
        if isinstance(node, list):
            return [sealed(inner, keys) for inner in node]
        return seal(node, key, bound) if encrypts(bound) and node is not None else node

    only = bool((rule or {}).get("mac_only_encrypted"))
    covered = [v for bound, v in leaves(tree) if not only or encrypts(bound)]
    now = "2026-11-22T09:00:00Z"
    mac = digest(covered, hashlib.sha256(b"sops").digest() if only else b"")
    metadata = {
        "kms": [],
        "age": [{"recipient": recipient, "enc": age("-a", "-r", recipient, text=key).decode()}],
        "lastmodified": now,
        "mac": _seal_mac(mac, key, now),
        **(rule or {"unencrypted_suffix": "_unencrypted"}),
        "version": "3.9.0",
    }
    out = io.StringIO()
    yaml = YAML()
    yaml.width = 1 << 20
    yaml.indent(mapping=4, sequence=6, offset=4)
    yaml.dump(sealed(tree, []) | {"sops": metadata}, out)
    return out.getvalue()


def _seal_mac(mac: str, key: bytes, now: str) -> str:
    nonce = os.urandom(32)
    out = AESGCM(key).encrypt(nonce, mac.encode(), now.encode())
    d, i, t = (base64.b64encode(part).decode() for part in (out[:-16], nonce, out[-16:]))
    return f"ENC[AES256_GCM,data:{d},iv:{i},tag:{t},type:str]"


def read(text: str, identity: Path) -> dict[str, str]:
    """The encrypted values of a SOPS file by additional data, as text, after checking its MAC; with Debian's age."""
    tree = YAML(typ="safe").load(text)
    metadata = tree.pop("sops")
    key = age("-d", "-i", str(identity), text=metadata["age"][0]["enc"].encode())
    assert len(key) == 32
    plain: list[bytes] = []
    out = {}
    for bound, value in leaves(tree):
        if isinstance(value, str) and VALUE.fullmatch(value):
            out[bound] = unseal(value, key, bound)
            plain.append(out[bound].encode())
        elif value is not None:
            plain.append(spelled(value)[0])
    wanted = unseal(metadata["mac"], key, str(metadata["lastmodified"]))
    assert wanted == hashlib.sha512(b"".join(plain)).hexdigest().upper()
    return out
