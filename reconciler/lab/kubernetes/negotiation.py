"""The form of an answer that `Accept` asks for: JSON, YAML, or metadata only."""

from __future__ import annotations

from io import StringIO
from typing import Any

from ruamel.yaml.main import YAML

from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import ApiError
from reconciler.lab.kubernetes.wire import Request, Response


def negotiated(request: Request, response: Response) -> Response:
    """The answer in the form that `Accept` asks for: JSON, YAML, or metadata only."""
    accept = request.headers.get("accept", "")
    choices = [part.strip() for part in accept.split(",")] if accept else ["*/*"]
    for choice in choices:
        kind, _, rest = choice.partition(";")
        options: dict[str, str] = {}
        for option in rest.split(";"):
            key, _, text = option.strip().partition("=")
            options[key] = text
        if options.get("as", "").startswith("PartialObjectMetadata") and kind == "application/json":
            assert response.body is not None
            response.body = _partial(response.body)
            return response
        if "as" in options:
            continue
        if kind in ("application/json", "*/*", "application/*"):
            return response
        if kind == "application/yaml":
            response.text, response.content_type = _yaml(response.body), "application/yaml"
            response.body = None
            return response
    accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    text = f"406: Not Acceptable\n\nAvailable representations: {accepted}"
    raise ApiError(406, text, "NotAcceptable", {})


def _partial(value: Object) -> Object:
    kind: dict[str, Any] = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    if "items" in value:
        items = [{**kind, "metadata": one["metadata"]} for one in value["items"]]
        return {**kind, "kind": "PartialObjectMetadataList", "metadata": value["metadata"], "items": items}
    return {**kind, "metadata": value["metadata"]}


def _yaml(value: Object | None) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    out = StringIO()
    yaml.dump(value, out)
    return out.getvalue()
