"""Stage 6, diff: the one place that decides whether an object changes, and how.

Only what was declared is compared. An attribute that the connection cannot see is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from reconciler.errors import ContractError
from reconciler.model import (
    UNOBSERVABLE,
    Absent,
    Action,
    Change,
    Difference,
    Resource,
    ResourceType,
    Sealed,
    Secret,
    Sha256,
    Spec,
    State,
    dump,
)
from reconciler.secrets import as_secret, references

Seal = Callable[[Secret | Sha256 | str], Sealed]


_NOTHING: Mapping[str, str] = {}
SCALARS = (str, int, bool, float, type(None))
"""What most attributes are, and what needs no second look."""


def diff(
    resource: Resource[Any],
    observed: State | Absent | None,
    kind: ResourceType[Any],
    seal: Seal,
    sent: Mapping[str, str] = _NOTHING,
    desired: State | None = None,
) -> Change[Any]:
    """Compare one object with what the probe saw of it.

    Args:
        resource: the desired object.
        observed: its live state; `None` = absent.
        kind: the resource's type.
        seal: turns secrets into keyed digests.
        sent: keyed digests of what was last sent of the attributes that the object never shows.
        desired: what `desired_state` gives, if somebody has asked it before.

    Raises:
        ContractError: the type's `normalize` did more than replace equal values.
    """
    around: State = {}
    if isinstance(observed, Absent):
        around, observed = observed.around, None
    elif observed is not None:
        around = observed
    if resource.absent:
        change = Change(resource, Action.DELETE, _sealed(resource, observed, kind, seal), None, seen=around)
        # What has no steps for it cannot be removed, or leaves nothing to remove.
        if observed is None or (kind.steps is not None and not any(True for _ in kind.steps(change))):
            change = replace(change, action=Action.NOOP)
        return _with_risk(change, kind)
    if desired is None:
        desired = desired_state(resource.spec, kind, seal)
    if observed is None:
        differences = tuple(Difference(name, None, value) for name, value in desired.items())
        return _with_risk(Change(resource, Action.CREATE, None, desired, differences, seen=around), kind)
    seen = dict(_sealed(resource, observed, kind, seal) or {})
    for name in kind.write_only:
        seen[name] = Sealed(sent[name]) if name in sent else UNOBSERVABLE
    compared = {name: value for name, value in desired.items() if seen.get(name) is not UNOBSERVABLE}
    wanted = kind.normalize(compared, seen)
    _check_normalized(compared, wanted, seen, kind)
    ignored = resource.lifecycle.ignore_changes
    differences = tuple(
        Difference(name, seen.get(name), value)
        for name, value in wanted.items()
        if name not in ignored and seen.get(name) != value
    )
    before = {name: seen.get(name) for name in compared}
    if not differences:
        action = Action.NOOP
    elif kind.immutable.isdisjoint(d.attribute for d in differences):
        action = Action.UPDATE
    else:
        action = Action.REPLACE
    return _with_risk(Change(resource, action, before, desired, differences, seen=around), kind)


def desired_state(spec: Spec, kind: ResourceType[Any], seal: Seal) -> dict[str, Any]:
    """The declared attributes by YAML name, as JSON values, secrets sealed. `None` = not declared."""
    hidden = set(kind.hidden(spec))
    out: dict[str, Any] = {}
    for name, alias in kind.compared.items():
        value = getattr(spec, name)
        if value is None:
            continue
        out[alias] = seal(value) if alias in hidden and isinstance(value, str) else as_json(value, seal)
    return out


def as_json(value: Any, seal: Seal) -> Any:
    """Nested models and tuples as plain JSON values; secrets sealed at any depth, also `{"secretRef": ...}`."""
    if type(value) in SCALARS:
        return value
    secret = as_secret(value)
    if secret is not None:
        return seal(secret)
    if isinstance(value, Spec):
        out = dump(value)
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            if any(True for _ in references(inner)):
                out[field.alias or name] = as_json(inner, seal)
        return out
    if isinstance(value, tuple | list):
        return [as_json(v, seal) for v in value]
    if isinstance(value, Mapping):
        return {k: as_json(v, seal) for k, v in value.items()}
    return value


def _sealed(resource: Resource[Any], observed: State | None, kind: ResourceType[Any], seal: Seal) -> State | None:
    """What the probe saw, with all that must not be shown sealed."""
    if observed is None:
        return None
    hidden = set(kind.hidden(resource.spec))
    return {
        name: seal(value) if name in hidden and isinstance(value, str) else _digests_sealed(value, seal)
        for name, value in observed.items()
    }


def _digests_sealed(value: Any, seal: Seal) -> Any:
    if type(value) in SCALARS:
        return value
    if isinstance(value, Sha256):
        return seal(value)
    if isinstance(value, tuple | list):
        return [_digests_sealed(v, seal) for v in value]
    if isinstance(value, Mapping):
        return {k: _digests_sealed(v, seal) for k, v in value.items()}
    return value


def _check_normalized(desired: State, wanted: State, seen: State, kind: ResourceType[Any]) -> None:
    if wanted is desired:
        return
    for name in desired.keys() | wanted.keys():
        value = wanted.get(name)
        if value != desired.get(name) and (name not in desired or value != seen.get(name)):
            raise ContractError(
                kind.name, f"{kind.name} turned {name} into neither the desired nor the observed value."
            )


def _with_risk(change: Change[Any], kind: ResourceType[Any]) -> Change[Any]:
    if change.action is Action.NOOP:
        return change
    risk = kind.risk(change)
    if risk is None:
        return change
    return replace(change, risk=risk)
