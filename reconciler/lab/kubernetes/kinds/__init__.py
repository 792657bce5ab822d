"""What the server does for single kinds: defaults, conversions, validation. One module per group of kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconciler.lab.kubernetes import metadata
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import Problem


def _nothing(value: Object) -> None:
    """Changes nothing."""


def _unchanged(new: Object, old: Object) -> None:
    """Changes nothing."""


def _no_problems(value: Object) -> list[Problem]:
    return []


def _no_update_problems(new: Object, old: Object) -> list[Problem]:
    return []


def _no_warnings(value: Object) -> list[str]:
    return []


@dataclass(frozen=True)
class Behaviour:
    """How the server treats one kind. All functions but `validate*` and `warnings` change the object in place."""

    convert: Callable[[Object], None] = _nothing  # after decoding, before defaults: fields that stand for others
    defaults: Callable[[Object], None] = _nothing
    create: Callable[[Object], None] = _nothing  # what a create sets whatever the client says
    update: Callable[[Object, Object], None] = _unchanged  # the same for an update: (new, old)
    validate: Callable[[Object], list[Problem]] = _no_problems
    validate_update: Callable[[Object, Object], list[Problem]] = _no_update_problems
    warnings: Callable[[Object], list[str]] = _no_warnings
    name: metadata.NameRule = metadata.dns_subdomain
    generation: bool = False  # counts changes of spec
    answers_object: bool = False  # DELETE answers the object instead of a Status
    metadata_checks: int = 1  # how often an update repeats the checks of metadata (the server does so)
