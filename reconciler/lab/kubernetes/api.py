"""The API server without HTTP: from a request to an answer."""

from __future__ import annotations

import json
import threading

from reconciler.lab.kubernetes import authorization, discovery, patches, subresources
from reconciler.lab.kubernetes.authorization import ANONYMOUS, Deed
from reconciler.lab.kubernetes.decode import DecodeError, as_object, load_json, load_yaml
from reconciler.lab.kubernetes.deletion import DeleteOptions, delete_options
from reconciler.lab.kubernetes.negotiation import negotiated
from reconciler.lab.kubernetes.reads import DEFINITIONS, Reads, is_watch
from reconciler.lab.kubernetes.resources import Resource, builtins, from_definition
from reconciler.lab.kubernetes.schema import Json, Object
from reconciler.lab.kubernetes.status import (
    ApiError,
    bad_request,
    conflict,
    forbidden,
    no_such_path,
    no_such_resource,
    unprocessable,
)
from reconciler.lab.kubernetes.store import Store
from reconciler.lab.kubernetes.typed import go_text
from reconciler.lab.kubernetes.wire import (
    APPLY,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    Goal,
    Request,
    Response,
    WriteOptions,
)
from reconciler.lab.kubernetes.writes import Writes

BODY_LIMIT = 3 * 1024 * 1024
_PLAIN_PATHS = ("/healthz", "/livez", "/readyz")
_MISMATCH = "the server does not allow this method on the requested resource"


class ApiServer:
    """Answers requests. One at a time: `lock` is held while a request or a controller works."""

    def __init__(self, store: Store, writes: Writes, address: str = "127.0.0.1:6443") -> None:
        self.store = store
        self.writes = writes
        self.address = address
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        self.reads = Reads(store, self.stopping)
        self._builtins = builtins()
        self._customs: tuple[int, list[Resource]] = (-1, [])

    # ---- what is served

    def resources(self) -> list[Resource]:
        """All resources that are served now."""
        definitions = self.store.view(DEFINITIONS)
        key = hash(tuple((one["metadata"]["uid"], one["metadata"]["resourceVersion"]) for one in definitions))
        if self._customs[0] != key:
            found = [resource for one in definitions if _established(one) for resource in from_definition(one)]
            self._customs = (key, found)
        return [*self._builtins, *self._customs[1]]

    def resource(self, group: str, plural: str) -> Resource:
        """A resource by group and plural name. Raises KeyError."""
        for one in self.resources():
            if (one.group, one.plural) == (group, plural):
                return one
        raise KeyError(f"{plural}.{group}")

    # ---- dispatch

    def answer(self, request: Request) -> Response:
        """Answers a request; refusals are answers, too."""
        with self.lock:
            self.writes.sink.clear()
            try:
                response = self._answer(request)
            except ApiError as error:
                if error.text is not None:
                    return Response(error.code, text=error.text, content_type="text/plain; charset=utf-8")
                response = Response(error.code, error.body, headers=error.headers)
            response.warnings += self.writes.sink
            self.writes.sink.clear()
            return response

    def _answer(self, request: Request) -> Response:
        path = request.path
        if path in _PLAIN_PATHS:
            return Response(200, text="ok", content_type="text/plain; charset=utf-8")
        if path == "/version":
            if request.method != "GET":
                raise ApiError(405, _MISMATCH, "MethodNotAllowed", {})
            return Response(200, dict(discovery.VERSION))
        parts = path.strip("/").split("/")
        if parts[0] not in ("api", "apis"):
            raise no_such_path()
        if len(parts) <= (2 if parts[0] == "api" else 3):
            return self._discovery(request, parts)
        goal = self._goal(parts)
        self._authorize(request, goal)
        return self._dispatch(request, goal)

    def _discovery(self, request: Request, parts: list[str]) -> Response:
        if request.user == ANONYMOUS:
            text = f'User "{ANONYMOUS}" cannot get path "{request.path}"'
            raise ApiError(403, f"forbidden: {text}", "Forbidden", {})
        if request.method != "GET":
            raise ApiError(405, _MISMATCH, "MethodNotAllowed", {})
        resources = self.resources()
        core = parts[0] == "api"
        accept = request.headers.get("accept", "")
        body: Object | None
        if len(parts) == 1:
            if "as=APIGroupDiscoveryList" in accept and "v=v2;" in accept.replace(" ", "") + ";":
                found = discovery.aggregated(resources, core)
                return Response(200, found, content_type=discovery.AGGREGATED)
            body = discovery.api_versions(self.address) if core else discovery.groups(resources)
        elif core:
            body = discovery.resource_list(resources, "", parts[1])
            if body is None:
                raise no_such_resource()
        elif len(parts) == 2:
            found_group = discovery.group(resources, parts[1])
            body = None if found_group is None else {"kind": "APIGroup", "apiVersion": "v1", **found_group}
        else:
            body = discovery.resource_list(resources, parts[1], parts[2])
            if body is None and discovery.group(resources, parts[1]) is not None:
                raise no_such_resource()
        if body is None:
            raise no_such_path()
        return negotiated(request, Response(200, body))

    def _goal(self, parts: list[str]) -> Goal:
        if parts[0] == "api":
            group, version, rest = "", parts[1], parts[2:]
        else:
            group, version, rest = parts[1], parts[2], parts[3:]
        if group and discovery.group(self.resources(), group) is None:
            raise no_such_path()
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and not (len(rest) == 3 and rest[2] in ("status", "finalize")):
            namespace, rest = rest[1], rest[2:]
        for one in self.resources():
            if (one.group, one.version, one.plural) == (group, version, rest[0]):
                break
        else:
            raise no_such_resource()
        name = rest[1] if len(rest) > 1 else ""
        part = rest[2] if len(rest) > 2 else ""
        if len(rest) > 3 or (part and one.subresource(part) is None) or (namespace and not one.namespaced):
            raise no_such_resource()
        return Goal(one, namespace, name, part)

    def _authorize(self, request: Request, goal: Goal) -> None:
        resource = goal.resource
        verbs = {"GET": "get" if goal.name else "list", "POST": "create", "PUT": "update", "PATCH": "patch"}
        verb = verbs.get(request.method, "delete" if goal.name else "deletecollection")
        if verb == "list" and is_watch(request):
            verb = "watch"
        plural = f"{resource.plural}/{goal.part}" if goal.part else resource.plural
        if resource.kind == "SelfSubjectAccessReview" and request.user != ANONYMOUS:
            return
        deed = Deed(verb, resource.group, plural, goal.namespace, goal.name)
        if not self.writes.may(request.user, deed):
            why = authorization.refusal(request.user, deed)
            raise forbidden(resource.plural, resource.group, goal.name, why)

    def _dispatch(self, request: Request, goal: Goal) -> Response:
        method, resource = request.method, goal.resource
        if goal.part:
            return self._part(request, goal)
        if not goal.name:
            if method == "GET":
                if "list" not in resource.verbs:
                    raise ApiError(405, _MISMATCH, "MethodNotAllowed", {})
                return self.reads.watch(request, goal) if is_watch(request) else self.reads.page(request, goal)
            if method == "POST" and (goal.namespace or not resource.namespaced):
                return self._post(request, goal)
            if method == "DELETE" and "deletecollection" in resource.verbs:
                return self._delete_collection(request, goal)
            raise ApiError(405, _MISMATCH, "MethodNotAllowed", {})
        if method == "GET":
            return negotiated(request, Response(200, self.reads.found(goal)))
        if method == "PUT":
            return self._put(request, goal)
        if method == "PATCH":
            return self._patch(request, goal)
        if method == "DELETE":
            return self._delete(request, goal)
        raise ApiError(405, _MISMATCH, "MethodNotAllowed", {})

    def _part(self, request: Request, goal: Goal) -> Response:
        part = goal.resource.subresource(goal.part)
        assert part is not None
        verb = {"GET": "get", "PUT": "update", "PATCH": "patch", "POST": "create"}.get(request.method, "delete")
        if verb not in part.verbs:
            raise ApiError(405, _MISMATCH, "MethodNotAllowed", {})
        old = self.reads.found(goal)
        if goal.part == "status":
            if request.method == "GET":
                return negotiated(request, Response(200, old))
            return self._put(request, goal) if request.method == "PUT" else self._patch(request, goal)
        return subresources.answer(self.writes, request, goal, old, self._text(request))

    # ---- bodies

    def _read_object(self, request: Request, goal: Goal, options: WriteOptions) -> Object:
        """The object of a POST or PUT in its stored form."""
        resource = goal.resource
        raw = self._text(request)
        doubled: list[str] = []
        if request.content_type in ("application/json", ""):
            try:
                value, doubled_keys = load_json(raw)
            except ValueError as error:
                shown = f"({raw})" if raw else "(<empty>)"
                raise bad_request(
                    f"the object provided is unrecognized (must be of type {resource.kind}): couldn't get "
                    f"version/kind; json parse error: {error} {shown}"
                ) from error
            doubled = [f'duplicate field "{key}"' for key in doubled_keys]
        elif request.content_type == "application/yaml":
            value, doubled = load_yaml(raw)
        else:
            raise unsupported_media("application/json, application/yaml, application/vnd.kubernetes.protobuf")
        return self._decoded(resource, value, options, doubled)

    def _decoded(self, resource: Resource, value: Json, options: WriteOptions, doubled: list[str]) -> Object:
        value = value if isinstance(value, dict) else {}
        version = str(value.get("apiVersion") or resource.api_version)
        kind = str(value.get("kind") or resource.kind)
        own_version = version.rpartition("/")[2]
        start = f'{kind} in version "{own_version}" cannot be handled as a {resource.kind}'
        if version != resource.api_version:
            why = f'no kind "{kind}" is registered for version "{version}" in scheme "pkg/runtime/scheme.go:111"'
            raise bad_request(f"{start}: {why}")
        if kind != resource.kind:
            why = f"converting (v1.{kind}) to (core.{resource.kind}): unknown conversion"
            raise bad_request(f"{start}: {why}")
        unknown: list[str] = []
        try:
            found = self.writes.stored_form(resource, value, unknown)
        except DecodeError as error:
            if resource.custom:
                return self._untyped(resource, value)
            raise bad_request(f"{start}: {error}") from error
        strict = [*doubled, *(f'unknown field "{name}"' for name in unknown)]
        if strict and options.validation == "Strict":
            raise bad_request(f"{start}: strict decoding error: {', '.join(strict)}")
        if options.validation == "Warn":
            for text in strict:
                self.writes.warn(text)
        return found

    def _untyped(self, resource: Resource, value: Object) -> Object:
        """A custom resource with wrong types goes on to validation, which says what is wrong."""
        problems = resource.behaviour.validate(value)
        name = str((value.get("metadata") or {}).get("name") or "")
        raise unprocessable(resource.kind, resource.group, name, problems)

    def _text(self, request: Request) -> str:
        if len(request.body) > BODY_LIMIT:
            text = f"Request entity too large: limit is {BODY_LIMIT}"
            raise ApiError(413, text, "RequestEntityTooLarge")
        return request.body.decode("utf-8", "replace")

    # ---- writes

    def _post(self, request: Request, goal: Goal) -> Response:
        resource = goal.resource
        options = WriteOptions.read(request, "CreateOptions")
        value = self._read_object(request, goal, options)
        self.writes.check_namespace(resource, value, goal.namespace)
        if not resource.stored:
            return self._review(request, goal, value, options)
        for key in ("uid", "creationTimestamp", "managedFields"):
            value["metadata"].pop(key, None)
        value = self.writes.tracker(resource).updated(None, value, options.manager)
        return Response(201, self.writes.create(resource, value, user=request.user, dry_run=options.dry_run))

    def _review(self, request: Request, goal: Goal, value: Object, options: WriteOptions) -> Response:
        asked = value["spec"].get("resourceAttributes") or {}
        plural = asked.get("resource", "")
        if asked.get("subresource"):
            plural += f"/{asked['subresource']}"
        deed = Deed(
            asked.get("verb", ""), asked.get("group", ""), plural, asked.get("namespace", ""), asked.get("name", "")
        )
        value = self.writes.tracker(goal.resource).updated(None, value, options.manager)
        value["status"] = {"allowed": self.writes.may(request.user, deed)}
        return Response(201, value)

    def _put(self, request: Request, goal: Goal) -> Response:
        resource = goal.resource
        options = WriteOptions.read(request, "UpdateOptions")
        new = self._read_object(request, goal, options)
        self.writes.check_place(resource, new, goal.namespace, goal.name)
        old = self.reads.found(goal)
        uid = new["metadata"].get("uid")
        if uid and uid != old["metadata"]["uid"]:
            raise self._wrong_uid(goal, uid, old)
        tracked = self.writes.tracker(resource, goal.part).updated(old, self._uid(new, old), options.manager)
        done = self.writes.update(
            resource, old, tracked, user=request.user, dry_run=options.dry_run, subresource=goal.part
        )
        return Response(200, done)

    def _uid(self, new: Object, old: Object) -> Object:
        """An update is none of a new object, whatever its body leaves out."""
        return {**new, "metadata": {**new["metadata"], "uid": old["metadata"]["uid"]}}

    def _wrong_uid(self, goal: Goal, uid: str, old: Object) -> ApiError:
        place = "/".join(filter(None, ("registry", goal.resource.plural, goal.namespace, goal.name)))
        why = (
            f"StorageError: invalid object, Code: 4, Key: /{place}, ResourceVersion: 0, AdditionalErrorMsg: "
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
        )
        return conflict(goal.resource.plural, goal.resource.group, goal.name, why)

    def _patch(self, request: Request, goal: Goal) -> Response:
        resource, kind = goal.resource, request.content_type
        accepted = [JSON_PATCH, MERGE_PATCH, *([] if resource.custom else [STRATEGIC_PATCH]), APPLY]
        if kind not in accepted:
            if not resource.custom:
                raise ApiError(415, "415: Unsupported Media Type", "UnsupportedMediaType", {})
            raise unsupported_media(", ".join(accepted))
        options = WriteOptions.read(request, "PatchOptions")
        if kind == APPLY:
            return self._apply(request, goal, options)
        text = self._text(request)
        old = self.reads.found(goal)
        try:
            patch, _ = load_json(text)
        except ValueError as error:
            raise bad_request(f"error decoding patch: {error}") from error
        new = self._patched(resource, kind, old, patch, options)
        self.writes.check_place(resource, new, goal.namespace, goal.name)
        tracked = self.writes.tracker(resource, goal.part).updated(old, new, options.manager)
        done = self.writes.update(
            resource, old, tracked, user=request.user, dry_run=options.dry_run, subresource=goal.part
        )
        return Response(200, done)

    def _patched(self, resource: Resource, kind: str, old: Object, patch: Json, options: WriteOptions) -> Object:
        if kind == JSON_PATCH:
            merged = patches.json_patch(old, patch)
        elif kind == MERGE_PATCH:
            merged = patches.merge_patch(old, patch)
        else:
            merged = patches.strategic_merge(old, patch, resource.type)
        unknown: list[str] = []
        try:
            new = self.writes.stored_form(resource, merged, unknown)
        except DecodeError as error:
            shown = go_text(patch) if kind == STRATEGIC_PATCH else _sorted_json(merged)
            raise _invalid_patch(shown, str(error)) from error
        if unknown and options.validation == "Strict":
            text = ", ".join(f'unknown field "{name}"' for name in unknown)
            shown = go_text(patch) if kind == STRATEGIC_PATCH else _sorted_json(merged)
            raise _invalid_patch(shown, f"strict decoding error: {text}")
        if options.validation == "Warn":
            for name in unknown:
                self.writes.warn(f'unknown field "{name}"')
        if merged["metadata"].get("managedFields") == []:
            new["metadata"]["managedFields"] = []
        return new

    def _apply(self, request: Request, goal: Goal, options: WriteOptions) -> Response:
        text = self._text(request)
        try:
            value, doubled = load_yaml(text)
        except ValueError as error:
            raise bad_request(f"error decoding YAML: error converting YAML to JSON: {error}") from error
        patch = as_object(value)
        if not patch:
            raise bad_request("invalid object type: /, Kind=")
        if doubled and options.validation == "Strict":
            lines = "".join(f"\n  {line}" for line in doubled)
            raise bad_request(
                f"error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:{lines}"
            )
        if options.validation == "Warn":
            for line in doubled:
                self.writes.warn(line)
        done, created = self.writes.apply(
            goal.resource,
            goal.namespace,
            goal.name,
            patch,
            options.manager,
            force=options.force,
            dry_run=options.dry_run,
            user=request.user,
            subresource=goal.part,
        )
        return Response(201 if created else 200, done)

    def _delete(self, request: Request, goal: Goal) -> Response:
        resource = goal.resource
        options = self._delete_options(request)
        done, gone = self.writes.delete(resource, goal.namespace, goal.name, options)
        if not gone or resource.behaviour.answers_object:
            return Response(200, done)
        details: Object = {"name": goal.name}
        if resource.group:
            details["group"] = resource.group
        details |= {"kind": resource.plural, "uid": done["metadata"]["uid"]}
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return Response(200, body)

    def _delete_options(self, request: Request) -> DeleteOptions:
        text = self._text(request)
        body: Json = {}
        if text.strip():
            try:
                body, _ = load_json(text)
            except ValueError as error:
                raise bad_request(f"error decoding options: {error}") from error
        return delete_options(body if isinstance(body, dict) else {}, request.query, request.raw_dry_run)

    def _delete_collection(self, request: Request, goal: Goal) -> Response:
        resource = goal.resource
        matches = self.reads.selector(request, resource)
        options = self._delete_options(request)
        items = [one for one in self.store.all(resource.place, goal.namespace) if matches(one)]
        for one in items:
            meta = one["metadata"]
            self.writes.delete(resource, meta.get("namespace", ""), meta["name"], options)
        return Response(200, self.reads.list_body(resource, items, {"resourceVersion": str(self.store.revision)}))


def _established(definition: Object) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def unsupported_media(accepted: str) -> ApiError:
    """415."""
    text = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    return ApiError(415, text, "UnsupportedMediaType")


def _invalid_patch(shown: str, why: str) -> ApiError:
    message = f"Invalid value: {json.dumps(shown)}: {why}"
    causes = [{"reason": "FieldValueInvalid", "message": message, "field": "patch"}]
    return ApiError(422, f' "" is invalid: patch: {message}', "Invalid", {"causes": causes})


def _sorted_json(value: Object) -> str:
    return json.dumps({key: value[key] for key in sorted(value)}, separators=(",", ":"), ensure_ascii=False)
