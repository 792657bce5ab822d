"""Where documents name secrets: for checks, for lists, and for what has to be generated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reconciler.errors import InvalidInput, Position, Problem
from reconciler.load import Loaded
from reconciler.model import GenerateForm, Secret
from reconciler.registry import Registry
from reconciler.secrets import places, references


def mentions(loaded: Loaded) -> Iterator[tuple[str, Secret | str, Callable[[], Position]]]:
    """Every `secretRef` of every document: `Kind/name`, the secret (or what is wrong with it), where it stands."""
    for raw in loaded.documents:
        if "secretRef" not in raw.text or not isinstance(raw.data, dict):
            continue
        metadata = raw.data.get("metadata")
        subject = f"{raw.data.get('kind')}/{metadata.get('name') if isinstance(metadata, dict) else '?'}"
        for path, written in places(raw.data.get("spec")):
            full = ("spec", *path, "secretRef")
            yield subject, parsed(written), lambda raw=raw, full=full: raw.position(full)  # type: ignore[misc]


def parsed(written: Mapping[str, Any]) -> Secret | str:
    """A mapping that looks like a reference, as one; or what is wrong with it."""
    from pydantic import ValidationError

    try:
        return Secret.model_validate(written)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        if detail["type"] == "string_pattern_mismatch":
            return "secretRef is not allowed here. Write path/key, env:NAME, file:PATH or command:PROGRAM ARGUMENTS."
        return f"secretRef {detail['msg'].removeprefix('Value error, ')}"


def to_generate(loaded: Loaded, registry: Registry) -> dict[str, GenerateForm]:
    """What documents ask to be generated, by themselves or by what their kinds make of them: the form by reference."""
    from reconciler.expand import expand
    from reconciler.validate import validate

    wanted = {s.secret_ref: s.generate for _, s, _ in mentions(loaded) if isinstance(s, Secret) and s.generate}
    # Documents that are wrong still get what they ask for themselves: `validate` tells about the rest.
    with contextlib.suppress(InvalidInput):
        for resource in expand(validate(loaded, registry)):
            for secret in references(resource.spec):
                if secret.generate:
                    wanted.setdefault(secret.secret_ref, secret.generate)
    return wanted


def conflicts(loaded: Loaded) -> Iterator[Problem]:
    """Secrets that two documents want in two forms."""
    forms: dict[str, tuple[str, Callable[[], Position]]] = {}
    for subject, secret, place in mentions(loaded):
        if isinstance(secret, Secret) and secret.generate:
            form, first = forms.setdefault(secret.secret_ref, (secret.generate, place))
            if form != secret.generate:
                message = f"asks for {secret.secret_ref} as {secret.generate}, and {first()} asks for {form}."
                yield Problem(message, "Give both the same `generate`.", subject, place())
