"""Lists, pages and watches.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/ (resource versions, chunks, watches).
"""

from __future__ import annotations

import base64
import copy
import json
import threading
import time
from collections.abc import Iterator

from reconciler.lab.kubernetes import selectors
from reconciler.lab.kubernetes.negotiation import negotiated
from reconciler.lab.kubernetes.resources import Resource
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import ApiError, bad_request, forbidden_field, not_found, unprocessable
from reconciler.lab.kubernetes.store import Change, Store
from reconciler.lab.kubernetes.wire import Goal, Request, Response

DEFINITIONS = "apiextensions.k8s.io/customresourcedefinitions"


class Reads:
    """The reading half of the server."""

    def __init__(self, store: Store, stopping: threading.Event) -> None:
        self.store = store
        self.stopping = stopping

    def found(self, goal: Goal) -> Object:
        """The object that a path names. Raises ApiError 404."""
        value = self.store.get(goal.resource.place, goal.namespace, goal.name)
        if value is None:
            raise not_found(goal.resource.plural, goal.resource.group, goal.name)
        return value

    def page(self, request: Request, goal: Goal) -> Response:
        """Answers a LIST."""
        resource, query = goal.resource, request.query
        matches = self.selector(request, resource)
        limit = _number(query.get("limit") or "0")
        at, start = self._revision(query)
        token = query.get("continue")
        if token:
            at, start = _read_token(token)
        if at is not None and at < self.store.compacted:
            raise expired_list(_write_token(self.store.revision, start) if token else "")
        revision = self.store.revision if at is None else at
        found = [one for one in self.store.all(resource.place, goal.namespace, at) if matches(one)]
        items = [one for one in found if _key(one) > start] if start else found
        meta: Object = {"resourceVersion": str(revision)}
        if limit and len(items) > limit:
            rest = len(items) - limit
            items = items[:limit]
            meta["continue"] = _write_token(revision, _key(items[-1]))
            if not query.get("labelSelector") and not query.get("fieldSelector"):
                meta["remainingItemCount"] = rest
        elif resource.custom:
            meta["continue"] = ""
        body = self.list_body(resource, items, meta)
        return negotiated(request, Response(200, body))

    def list_body(self, resource: Resource, items: list[Object], meta: Object) -> Object:
        """A list; items of built-in kinds go without kind and apiVersion."""
        if not resource.custom:
            items = [{key: part for key, part in one.items() if key not in ("kind", "apiVersion")} for one in items]
        return {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": meta, "items": items}

    def selector(self, request: Request, resource: Resource) -> selectors.Predicate:
        """What the label and field selectors of a request let through. Raises ApiError 400."""
        by_label = selectors.labels(request.query.get("labelSelector", ""))
        by_field = selectors.fields(request.query.get("fieldSelector", ""), resource.kind)
        return lambda value: by_label(value) and by_field(value)

    def _revision(self, query: dict[str, str]) -> tuple[int | None, str]:
        given, how = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
        if how and not given:
            text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            raise unprocessable("ListOptions", "meta.k8s.io", "", [forbidden_field("resourceVersionMatch", text)])
        if not given or given == "0":
            return None, ""
        revision = _number(given)
        if revision > self.store.revision:
            text = "Too large resource version"
            message = f"Timeout: {text}: {revision}, current: {self.store.revision}"
            causes = [{"reason": "ResourceVersionTooLarge", "message": text}]
            details = {"causes": causes, "retryAfterSeconds": 1}
            raise ApiError(504, message, "Timeout", details, headers={"retry-after": "1"})
        return (revision if how == "Exact" else None), ""

    def watch(self, request: Request, goal: Goal) -> Response:
        """Answers a WATCH by a stream of events."""
        resource, query = goal.resource, request.query
        matches = self.selector(request, resource)
        given = query.get("resourceVersion", "")
        initial = query.get("sendInitialEvents") == "true"
        if initial and query.get("resourceVersionMatch") != "NotOlderThan":
            text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise unprocessable("ListOptions", "meta.k8s.io", "", [forbidden_field("resourceVersionMatch", text)])
        begin: list[Object] = []
        if given in ("", "0") or initial:
            begin = [
                {"type": "ADDED", "object": one}
                for one in self.store.all(resource.place, goal.namespace)
                if matches(one)
            ]
            if initial and query.get("allowWatchBookmarks") == "true":
                begin.append(self._bookmark(resource, {"k8s.io/initial-events-end": "true"}))
            since = self.store.revision
        else:
            since = _number(given)
            oldest = max(self.store.compacted, self._served_since(resource))
            if since < oldest:
                text = f"too old resource version: {since} ({oldest})"
                return Response(200, stream=iter([{"type": "ERROR", "object": ApiError(410, text, "Expired").body}]))
        seconds = float(query.get("timeoutSeconds") or 1800)
        bookmarks = query.get("allowWatchBookmarks") == "true" and not initial
        stream = self._events(goal, matches, since, seconds, begin, bookmarks)
        return Response(200, stream=stream)

    def _served_since(self, resource: Resource) -> int:
        """The revision from which on a custom resource can be watched: that of its definition."""
        if not resource.custom:
            return 0
        found = self.store.get(DEFINITIONS, "", f"{resource.plural}.{resource.group}")
        return int(found["metadata"]["resourceVersion"]) if found else 0

    def _bookmark(self, resource: Resource, annotations: dict[str, str] | None = None) -> Object:
        meta: Object = {"resourceVersion": str(self.store.revision)}
        if annotations:
            meta["annotations"] = annotations
        value = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
        return {"type": "BOOKMARK", "object": value}

    def _events(
        self,
        goal: Goal,
        matches: selectors.Predicate,
        since: int,
        seconds: float,
        begin: list[Object],
        bookmarks: bool,
    ) -> Iterator[Object]:
        end = time.monotonic() + seconds
        yield from begin
        while not self.stopping.is_set():
            with self.store.changed:
                changes = self.store.since(since, goal.resource.place)
                if not changes:
                    left = end - time.monotonic()
                    if left <= 0:
                        break
                    self.store.changed.wait(min(left, 0.5))
                    continue
            for change in changes:
                since = change.revision
                if goal.namespace and change.namespace != goal.namespace:
                    continue
                if event := _event(change, matches):
                    yield event
        if bookmarks:
            yield self._bookmark(goal.resource)


def _event(change: Change, matches: selectors.Predicate) -> Object | None:
    """A change as a watch with a selector sees it: leaving the selection is a deletion."""
    before = change.before is not None and matches(change.before)
    after = change.type != "DELETED" and matches(change.after)
    if after:
        return {"type": "MODIFIED" if before else "ADDED", "object": copy.deepcopy(change.after)}
    if not before:
        return None
    assert change.before is not None
    value = copy.deepcopy(change.after if change.type == "DELETED" else change.before)
    value["metadata"]["resourceVersion"] = str(change.revision)
    return {"type": "DELETED", "object": value}


def _number(text: str) -> int:
    if not text.lstrip("-").isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _key(value: Object) -> str:
    return f"{value['metadata'].get('namespace', '')}/{value['metadata']['name']}"


def _write_token(revision: int, key: str) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": key}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, str]:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError as error:
        raise bad_request("invalid continue token: continue key is not valid") from error
    try:
        found = json.loads(raw)
        return int(found["rv"]), str(found["start"])
    except (ValueError, KeyError, TypeError) as error:
        shown = chr(raw[0]) if raw else ""
        why = f"invalid character '{shown}' looking for beginning of value"
        raise bad_request(f"invalid continue token: continue key is not valid: {why}") from error


def expired_list(token: str) -> ApiError:
    """410: the history does not go back that far. For a page of a list with a token to go on with."""
    if not token:
        return ApiError(410, "The resourceVersion for the provided list is too old.", "Expired")
    error = ApiError(
        410,
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
        "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
        "modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        "Expired",
    )
    error.body["metadata"] = {"continue": token}
    return error


def is_watch(request: Request) -> bool:
    """Whether a GET of a collection is a watch."""
    return request.query.get("watch", "").lower() in ("true", "1")
