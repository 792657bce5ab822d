"""How an object of a Kubernetes API is seen: its fields as a dry run of the apply compares them, and who set them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from reconciler.model import Absent, DryRun, Get, Probe, Reply, Sha256, State, Unprobed, canonical
from reconciler.secrets import as_secret
from reconciler.types.kubernetes import fieldpaths as paths
from reconciler.types.kubernetes import places
from reconciler.types.kubernetes.fieldpaths import MISSING, Path
from reconciler.types.kubernetes.manifest import KubernetesObject, compared_leaves, complete, declared_leaves
from reconciler.types.kubernetes.names import KEEP, LABEL, MANAGER
from reconciler.types.kubernetes.readiness import readiness

BEFORE: Final = "before-first-apply"
"""What the server calls those who set fields while nobody was noted."""
CLIENT_SIDE: Final = frozenset(("kubectl-client-side-apply", BEFORE))
"""Managers of tools that did not apply on the server: their fields are taken over, or what is dropped would stay."""
_LAST_APPLIED: Final = ("metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
_IMMUTABLE: Final = re.compile(
    r"immutable|may not change once set|cannot change roleRef|updates to .* (?:are |is )?forbidden"
    r"|Forbidden: updates to",
    re.IGNORECASE,
)


def probe(objects: Sequence[KubernetesObject]) -> Probe:
    """What the cluster serves, then the objects, then a dry run of each."""
    known = places.served(objects, (yield places.catalogues(objects)))
    states: list[Any] = [_place(one, known) for one in objects]
    there = [index for index, state in enumerate(states) if isinstance(state, str)]
    lives: dict[int, Mapping[str, Any] | None] = {}
    if there:
        for index, reply in zip(there, (yield [Get(states[i]) for i in there]), strict=True):
            if reply.status == 0:
                lives[index] = places.parsed(reply)
            elif reply.status == 404:
                lives[index] = None
            else:
                states[index] = Unprobed(places.refusal(reply, f"show {places.display(objects[index])}"))
    if lives:
        runs = [_dry_run(objects[i], states[i], live) for i, live in lives.items()]
        for (index, live), reply in zip(lives.items(), (yield runs), strict=True):
            states[index] = _state(objects[index], states[index], live, reply)
    return states


def _place(one: KubernetesObject, known: Mapping[tuple[str, str], places.Served | Reply]) -> str | Absent | Unprobed:
    refused = known.get((one.api_version, ""))
    if isinstance(refused, Reply):
        return Unprobed(places.refusal(refused, f"tell what {one.api_version} holds"))
    how = known.get((one.api_version, one.kind))
    if isinstance(how, places.Served):
        return places.path_of(one, how)
    for token in one.given:
        if token.startswith("resource:"):
            plural, scope = token.rsplit("/", 2)[1:]
            return Absent({"path": places.path_of(one, places.Served(plural, scope == "Namespaced"))})
    return Unprobed(
        f"the cluster serves no {one.kind} of {one.api_version}. Install what defines it (a CustomResourceDefinition "
        "or an operator), or correct apiVersion and kind."
    )


def _dry_run(one: KubernetesObject, path: str, live: Mapping[str, Any] | None) -> DryRun:
    return DryRun("PATCH", path, {"fieldManager": MANAGER, "force": "true"}, body(one, *_left(one, live)))


def body(one: KubernetesObject, omitted: Sequence[str], kept: Mapping[str, Any]) -> Any:
    """What is sent of an object that is there.

    Args:
        omitted: paths of fields that are left to others.
        kept: path -> value of fields that are sent as they are.
    """
    return paths.without(complete(one), omitted, kept)


def _left(one: KubernetesObject, live: Mapping[str, Any] | None) -> tuple[list[str], dict[str, Any]]:
    """Of the fields that are left to others: those that are not sent, and those that are sent as they are, because
    they would go if nobody owned them."""
    omitted: list[str] = []
    kept: dict[str, Any] = {}
    if live is None or not one.leave:
        return omitted, kept
    for path, _ in declared_leaves(one):
        text = paths.spelled(path)
        if not any(paths.covers(left, text) for left in one.leave):
            continue
        value = paths.value_at(live, path)
        alone = {owner.name for owner in paths.owners(live, path)} == {MANAGER}
        sent = ("stringData", *path[1:])
        if path[0] == "data" and paths.value_at(one.manifest, sent) is not MISSING:
            # It goes out in clear, and is encoded on its way.
            text = paths.spelled(sent)
            value = _decoded(value)
        if alone and value is not MISSING:
            kept[text] = value
        else:
            omitted.append(text)
    return omitted, kept


def _decoded(value: Any) -> Any:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (ValueError, TypeError):
        return MISSING


def _state(
    one: KubernetesObject, path: str, live: Mapping[str, Any] | None, reply: Reply
) -> State | Absent | Unprobed | None:
    body = places.parsed(reply)
    if live is None:
        return _absent(one, path, reply, body)
    metadata = places.meta(live)
    works, reason = readiness(live)
    taken = [entry for entry in paths.entries(live) if entry.get("manager") in CLIENT_SIDE]
    omitted, kept = _left(one, live)
    taken_over: list[Mapping[str, Any]] | None = None
    if one.client_side is False and (taken or _by_nobody(live)):
        # Nothing where nobody is noted: the apply will note the mark of the server, which goes then.
        taken_over = _taken_over(live, taken) if taken else []
    around: dict[str, Any] = {
        "path": path,
        "uid": metadata.get("uid"),
        "resourceVersion": metadata.get("resourceVersion"),
        "omitted": omitted,
        "kept": kept,
        "works": works,
        "trouble": reason,
        "warnings": body.get("warnings") or [],
        "managedFields": taken_over,
        "keep": _may_go(metadata),
    }
    if reply.status == 0:
        fields, changed, dropped = _compared(one, live, body)
        fixed: Mapping[str, Any] = {}
    elif (found := _fixed(one, live, reply, body)) is not None:
        fields, fixed, dropped = found[0], found[1], []
        changed = [
            p for p, _ in compared_leaves(one) if found[0][paths.spelled(p)] != (one.fields or {})[paths.spelled(p)]
        ]
        stays = _may_go(metadata)
        if one.fixed is None or stays:
            names = ", ".join(fixed) or "a field"
            fix = f"It is not deleted to make it anew: {stays}. Delete it yourself." if stays else ""
            return Unprobed(
                f"{names} of {places.display(one)} cannot be changed in place: {_words(body)} "
                f"{fix or 'Delete the object yourself, or say `immutable: replace`.'}"
            )
    else:
        return Unprobed(places.refusal(reply, _applying(one, reply)))
    around["owners"] = {paths.spelled(p): _others(live, p) for p in changed if _others(live, p)}
    around["dropped"] = [paths.spelled(p) for p in dropped]
    around["leftovers"] = _leftovers(one, taken)
    return {**around, "fields": fields, "fixed": fixed, "clientSide": bool(taken)}


def _absent(one: KubernetesObject, path: str, reply: Reply, body: Mapping[str, Any]) -> Absent | Unprobed:
    """What there is to know of an object that is not there."""
    around = {"path": path, "warnings": body.get("warnings") or []}
    if reply.status in (0, 409):
        return Absent(around)
    if reply.status == 404 and (body.get("details") or {}).get("kind") == "namespaces":
        if f"namespace:{one.namespace}" in one.given:
            return Absent(around)
        return Unprobed(f"there is no namespace {one.namespace}. Declare it, or correct `namespace:`.")
    return Unprobed(places.refusal(reply, _applying(one, reply)))


def _applying(one: KubernetesObject, reply: Reply) -> str:
    return f"{'apply (a dry run needs the right, too)' if reply.status == 403 else 'take this'} {places.display(one)}"


def _compared(
    one: KubernetesObject, live: Mapping[str, Any], made: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Path], list[Path]]:
    """The fields as they are: those that an apply would not change count as declared.

    Returns:
        path -> value, the paths that differ, and the paths that are not declared any more and would go.
    """
    fields: dict[str, Any] = {}
    changed: list[Path] = []
    declared = list(compared_leaves(one))
    for path, value in declared:
        now, then = paths.value_at(live, path), paths.value_at(made, path)
        if now == then:
            hidden = as_secret(value) is not None and now is not MISSING
            fields[paths.spelled(path)] = _shown(one, path, value, now) if hidden else value
            continue
        changed.append(path)
        if now is not MISSING:
            fields[paths.spelled(path)] = _shown(one, path, value, now)
    held = [paths.spelled(path) for path, _ in declared_leaves(one)]
    dropped = []
    for path, now in paths.lost(live, made):
        text = paths.spelled(path)
        if any(paths.covers(one_, text) or paths.covers(text, one_) for one_ in held):
            continue
        if _in_declared_list(one, path) or any(owner.name == MANAGER for owner in paths.owners(live, path)):
            dropped.append(path)
            fields[text] = _shown(one, path, None, now)
    return fields, changed, dropped


def _in_declared_list(one: KubernetesObject, path: Path) -> bool:
    return any(
        isinstance(path[end], tuple) and isinstance(paths.value_at(one.manifest, path[:end]), list)
        for end in range(1, len(path))
    )


def _shown(one: KubernetesObject, path: Path, declared: Any, now: Any) -> Any:
    """A live value as a state may hold it: of secrets the digest only."""
    if one.kind == "Secret" and path[0] in ("data", "stringData"):
        if isinstance(now, str) and ("stringData", *path[1:]) in {p for p, _ in paths.leaves(one.manifest)}:
            try:
                return Sha256.of(base64.b64decode(now, validate=True).decode())
            except ValueError:
                return Sha256.of(now)
        return Sha256.of(now if isinstance(now, str) else canonical(now))
    if as_secret(declared) is not None:
        return Sha256.of(now if isinstance(now, str) else canonical(now))
    return now


def _fixed(
    one: KubernetesObject, live: Mapping[str, Any], reply: Reply, body: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Where the server refuses because a field cannot be changed in place: the other fields as they are, and these.
    `None` where it refuses for another reason."""
    causes = (body.get("details") or {}).get("causes") or []
    if reply.status != 422 or not causes or not all(_IMMUTABLE.search(str(c.get("message", ""))) for c in causes):
        return None
    roots = [re.sub(r"\[\d+\].*", "", str(cause.get("field", ""))) for cause in causes]
    fields: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for path, value in compared_leaves(one):
        text, now = paths.spelled(path), paths.value_at(live, path)
        if any(paths.covers(name, text) for name in roots) and now != value:
            fixed[text] = None if now is MISSING else _shown(one, path, value, now)
            fields[text] = value
        elif now is MISSING or now == value or as_secret(value) is not None or one.kind == "Secret":
            fields[text] = value
        else:
            fields[text] = now
    return fields, fixed or dict.fromkeys(roots, "(cannot be changed in place)")


def _words(body: Mapping[str, Any]) -> str:
    return str(body.get("message", "")).rstrip(".") + "."


def _others(live: Mapping[str, Any], path: Path) -> str:
    """Who else set a field, or nothing."""
    found = [owner for owner in paths.owners(live, path) if owner.name != MANAGER]
    return ", ".join(f"{owner.name} ({owner.time})" if owner.time else owner.name for owner in found)


def _may_go(metadata: Mapping[str, Any]) -> str:
    """Why an object is not pruned; nothing where it may be."""
    if (metadata.get("labels") or {}).get(LABEL) != "true":
        return f"it does not carry our label {LABEL}"
    if metadata.get("ownerReferences"):
        return "another object owns it"
    if (metadata.get("annotations") or {}).get(KEEP) == "true":
        return f"its annotation {KEEP} says so"
    return ""


def _taken_over(live: Mapping[str, Any], taken: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """`managedFields` with the fields of client-side tools as ours, and without the mark of the server."""
    ours: dict[str, Any] = {
        "manager": MANAGER,
        "operation": "Apply",
        "apiVersion": live.get("apiVersion"),
        "fieldsType": "FieldsV1",
        "fieldsV1": {},
    }
    rest = []
    for entry in places.meta(live).get("managedFields") or ():
        mine = entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource")
        if entry in taken and not _of_a_tool(entry):
            continue
        if mine or entry in taken:
            ours |= {k: entry[k] for k in ("apiVersion", "time") if k in entry}
            ours["fieldsV1"] = paths.united(ours["fieldsV1"], entry.get("fieldsV1") or {})
        else:
            rest.append(entry)
    return [ours, *rest]


def _by_nobody(live: Mapping[str, Any]) -> bool:
    """Whether it has fields, and nobody is noted who set them."""
    metadata = places.meta(live)
    if metadata.get("managedFields"):
        return False
    own = any(metadata.get(name) for name in ("labels", "annotations", "finalizers", "ownerReferences"))
    return own or bool(live.keys() - {"apiVersion", "kind", "metadata", "status"})


def _of_a_tool(entry: Mapping[str, Any]) -> bool:
    """Whether a client-side tool set these fields. Of others nobody knows who meant them, so what nobody declares
    stays."""
    return entry.get("manager") != BEFORE or paths.owns(entry.get("fieldsV1") or {}, _LAST_APPLIED)


def _leftovers(one: KubernetesObject, taken: Sequence[Mapping[str, Any]]) -> list[str]:
    """What client-side tools own and nobody declares: it goes with the take-over."""
    held = list(one.fields or {})
    found = dict.fromkeys(
        paths.spelled(p)
        for entry in taken
        if _of_a_tool(entry)
        for p in paths.owned_leaves(entry.get("fieldsV1") or {})
    )
    return [text for text in found if not any(paths.covers(h, text) or paths.covers(text, h) for h in held)]
