"""Plan files: one line of canonical JSON.

The `digest` of a plan file covers everything else in it, and is verified before anything else is looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from reconciler import __version__
from reconciler.errors import PlanError, PlanExpired, PlanTampered
from reconciler.model import (
    Action,
    Change,
    Difference,
    Finding,
    Lifecycle,
    Resource,
    Risk,
    Sealed,
    Target,
    canonical,
    digest,
)
from reconciler.plan import Plan
from reconciler.registry import Registry

FORMAT: Final = 1
"""Grows when an older version could not apply the plan rightly."""
MAX_FILE_BYTES: Final = 512 * 1024 * 1024


def _body(plan: Plan) -> dict[str, Any]:
    """The plan, as `canonical` takes it."""
    drifted = frozenset(plan.drifted)
    return {
        "format": FORMAT,
        "tool": __version__,
        "created": plan.created,
        "expires": plan.expires,
        "commit": plan.commit,
        "keyId": plan.key_id,
        "source": plan.source,
        "summary": {
            **{a.value: plan.count(a) for a in Action if a is not Action.NOOP},
            "unchanged": plan.unchanged,
            "unknown": len(plan.unknown),
            "findings": len(plan.findings),
        },
        "changes": [
            _resource_json(c.resource)
            | {
                "action": c.action.value,
                "before": c.before,
                "after": c.after,
                "differences": [
                    {"attribute": d.attribute, "before": d.before, "after": d.after} for d in c.differences
                ],
                "why": list(c.why),
                "risk": {"kind": c.risk.kind, "text": c.risk.text, "guard": c.risk.guard} if c.risk else None,
                "drift": c.address in drifted,
                "observed": c.digest,
            }
            for c in plan.changes
        ],
        "adopt": [_resource_json(r) for r in plan.adopt],
        "audits": [_resource_json(r) for r in plan.audits],
        "release": dict(plan.release),
        "unknown": dict(plan.unknown),
        "findings": [finding_json(f) for f in plan.findings],
        "targets": {n: {"connection": t.connection, "settings": t.settings} for n, t in plan.targets.items()},
        "edges": plan.edges,
    }


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values, with its digest."""
    values: dict[str, Any] = json.loads(to_text(plan))
    return values


def finding_json(finding: Finding) -> dict[str, str]:
    """A finding as plans and results show it."""
    return {k: getattr(finding, k) for k in ("address", "rule", "message", "fix", "severity", "origin")}


def to_text(plan: Plan) -> str:
    """The plan file. Each part is written once, however many times it is needed."""
    parts = {key: canonical(value) for key, value in _body(plan).items()}
    whole = _together(parts)
    parts["digest"] = canonical(hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest())
    return _together(parts) + "\n"


def _together(parts: Mapping[str, str]) -> str:
    """Canonical JSON of a mapping, from that of its values."""
    return "{" + ",".join(f"{canonical(key)}:{parts[key]}" for key in sorted(parts)) + "}"


def from_text(text: str, registry: Registry, *, now: datetime | None = None, resume: bool = False) -> Plan:
    """Read a plan file.

    Args:
        resume: the plan of a run that was begun; it cannot expire any more.

    Raises:
        PlanTampered: it is not what this tool wrote.
        PlanExpired: it is too old.
        PlanError: another version wrote it.
    """
    try:
        values = json.loads(text)
        claimed = values.pop("digest")
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError):
        raise PlanTampered("This is not a plan file, or it is cut off. Make a new one with `plan -o`.") from None
    if digest(values) != claimed:
        raise PlanTampered("The plan does not match its digest: it was edited. Make a new one with `plan -o`.")
    try:
        if values["format"] != FORMAT or _version(values["tool"]) > _version(__version__):
            raise PlanError(
                f"The plan was made by version {values['tool']} (format {values['format']}), this is {__version__}. "
                "Make it anew with this version."
            )
        if not resume and datetime.fromisoformat(values["expires"]) < (now or datetime.now(UTC)):
            raise PlanExpired(f"The plan expired at {values['expires']}. Make a new one with `plan -o`.")
        return _plan(values, registry)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PlanError(f"The plan is not one that reconciler makes ({error!r}). Make it anew.") from None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3])


def _plan(values: Mapping[str, Any], registry: Registry) -> Plan:
    def resource(entry: Mapping[str, Any]) -> Resource[Any]:
        spec = registry.type_of(entry["type"]).spec.model_validate(entry["spec"])
        lifecycle = Lifecycle.model_validate(entry["lifecycle"])
        return Resource(
            entry["type"],
            entry["target"],
            entry["key"],
            spec,
            entry["origin"],
            entry["absent"],
            lifecycle,
            entry["labels"],
        )

    changes = [
        Change(
            resource(c),
            Action(c["action"]),
            _unsealed(c["before"]),
            _unsealed(c["after"]),
            tuple(Difference(d["attribute"], _value(d["before"]), _value(d["after"])) for d in c["differences"]),
            tuple(c["why"]),
            Risk(**c["risk"]) if c["risk"] else None,
        )
        for c in values["changes"]
    ]
    edges = {node: [*before] for node, before in values["edges"].items()}
    strays = {c.address for c in changes} | {b for before in edges.values() for b in before}
    if not strays <= edges.keys() or not {c.resource.target for c in changes} <= values["targets"].keys():
        raise ValueError("it names what is not in it")
    return Plan(
        created=values["created"],
        expires=values["expires"],
        commit=values["commit"],
        changes=changes,
        targets={n: Target(n, t["connection"], t["settings"]) for n, t in values["targets"].items()},
        edges=edges,
        drifted=[c.address for c, v in zip(changes, values["changes"], strict=True) if v["drift"]],
        adopt=[resource(r) for r in values["adopt"]],
        release=values["release"],
        unknown=values["unknown"],
        findings=[Finding(**f) for f in values["findings"]],
        audits=[resource(r) for r in values["audits"]],
        unchanged=values["summary"]["unchanged"],
        key_id=values["keyId"],
        source=values["source"],
    )


def _resource_json(resource: Resource[Any]) -> dict[str, Any]:
    return {
        "address": resource.address,
        "type": resource.type,
        "target": resource.target,
        "key": resource.key,
        "spec": resource.declared,
        "origin": resource.origin,
        "absent": resource.absent,
        "lifecycle": _lifecycle_json(resource.lifecycle),
        "labels": dict(resource.labels),
    }


@lru_cache(maxsize=256)
def _lifecycle_json(lifecycle: Lifecycle) -> dict[str, Any]:
    return lifecycle.model_dump(mode="json", by_alias=True)


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"sealed"} and isinstance(value["sealed"], str):
            return Sealed(value["sealed"])
        return {k: _value(v) for k, v in value.items()}
    return [_value(v) for v in value] if isinstance(value, list) else value


def _unsealed(state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if state is None else {k: _value(v) for k, v in state.items()}
