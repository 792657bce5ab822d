"""Examines the config of an image: the OCI image configuration, which Docker's archives hold in the same form.

https://github.com/opencontainers/image-spec/blob/main/config.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.tools.nonroot import shell
from reconciler.tools.nonroot.rules import Flaw
from reconciler.tools.nonroot.users import judge, user_of
from reconciler.tools.nonroot.yamlfile import items, mapping


def examine(file: str, text: str, name: str = "") -> list[Flaw]:
    """The flaws of one image config.

    Args:
        file: the layout or archive that holds it.
        name: its tag, if it has one.

    Raises:
        ValueError: it is no image config.
    """
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict) or not isinstance(data.get("config", {}), dict | None):
        raise ValueError("it is no image config")
    if data.get("os") == "windows":
        return []
    subject = f"image {name}" if name else "image"
    return list(_flaws(file, mapping(data.get("config")), subject))


def _flaws(file: str, config: Mapping[str, Any], subject: str) -> Iterator[Flaw]:
    def flaw(rule: str, message: str, **more: Any) -> Flaw:
        return Flaw(rule, file, 1, f"{subject}: {message}", subject, **more)

    written = str(config.get("User") or "")
    user = user_of(written)
    if not written:
        yield flaw("user-missing", "User is empty, so it runs as root")
    elif user is None:
        yield flaw("user-malformed", f"User {written[:80]} cannot be understood")
    else:
        for rule, message in judge(user):
            yield flaw(rule, message)
    env = dict(str(e).partition("=")[::2] for e in items(config.get("Env")))
    home = env.get("HOME", "")
    if not home:
        yield flaw("home-missing", "HOME is not set", platforms=("openshift",))
    elif home == "/root" or home.startswith("/root/"):
        yield flaw("home-not-writable", f"HOME is {home}")
    for port in mapping(config.get("ExposedPorts")):
        number = str(port).partition("/")[0]
        if number.isdecimal() and len(number) < 6 and 0 < int(number) < 1024:
            yield flaw("privileged-port", f"it exposes {port}")
    for volume in mapping(config.get("Volumes")):
        if str(volume).startswith("/root"):
            yield flaw("home-not-writable", f"the volume {volume} belongs to root")
    argv = [str(w) for key in ("Entrypoint", "Cmd") for w in items(config.get(key))]
    for rule, _, message in shell.at_start(shell.called(argv)):
        yield flaw(rule, f"it {message}")
