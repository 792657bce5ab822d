"""Pods: defaults, validation, admission, what may change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.lab.kubernetes import metadata
from reconciler.lab.kubernetes.kinds import Behaviour
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import (
    Problem,
    duplicate,
    forbidden_field,
    invalid,
    quoted,
    required,
    unsupported,
)

_ID_LIMIT = 2**31 - 1
_CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")


def service_account(spec: Object) -> None:
    """`serviceAccount` is an old name of `serviceAccountName`: both are written."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def pod_spec_defaults(spec: Object) -> None:
    """What the server fills in for the Pod of any workload."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    for name in _CONTAINER_LISTS:
        for container in spec.get(name) or []:
            _container_defaults(container, bool(spec.get("hostNetwork")))
    for volume in spec.get("volumes") or []:
        _volume_defaults(volume)


def _container_defaults(container: Object, host_network: bool) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = "Always" if _latest(container.get("image", "")) else "IfNotPresent"
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
        if host_network and not port.get("hostPort"):
            port["hostPort"] = port["containerPort"]
    for variable in container.get("env") or []:
        source = variable.get("valueFrom") or {}
        if "fieldRef" in source:
            source["fieldRef"].setdefault("apiVersion", "v1")
        if "resourceFieldRef" in source:
            source["resourceFieldRef"].setdefault("divisor", "0")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(name):
            for key, default in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1)):
                probe.setdefault(key, default)
            probe.setdefault("failureThreshold", 3)
            _handler_defaults(probe)
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _handler_defaults(hook)


def _handler_defaults(handler: Object) -> None:
    if request := handler.get("httpGet"):
        request.setdefault("path", "/")
        request.setdefault("scheme", "HTTP")
    if call := handler.get("grpc"):
        call.setdefault("service", "")


def _latest(image: str) -> bool:
    if "@" in image:
        return False
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag in ("", "latest")


_MODE = 0o644


def _volume_defaults(volume: Object) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    for source in ("configMap", "secret", "downwardAPI", "projected"):
        if source in volume:
            volume[source].setdefault("defaultMode", _MODE)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    items = list((volume.get("downwardAPI") or {}).get("items") or [])
    for part in (volume.get("projected") or {}).get("sources") or []:
        if "serviceAccountToken" in part:
            part["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        items += (part.get("downwardAPI") or {}).get("items") or []
    for item in items:
        if "fieldRef" in item:
            item["fieldRef"].setdefault("apiVersion", "v1")


def pod_problems(spec: Object, at: str) -> list[Problem]:
    """What is wrong with the spec of a Pod."""
    found: list[Problem] = []
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or []):
        name = volume.get("name", "")
        where = f"{at}.volumes[{index}].name"
        found += [required(where)] if not name else [invalid(where, name, text) for text in metadata.dns_label(name)]
        if name in volumes:
            found.append(duplicate(where, name))
        volumes.add(name)
    if not spec.get("containers"):
        found.append(required(f"{at}.containers"))
    names: set[str] = set()
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind) or []):
            found += _container(container, f"{at}.{kind}[{index}]", names, volumes)
    found += _ids(spec.get("securityContext") or {}, f"{at}.securityContext", ("runAsUser", "runAsGroup", "fsGroup"))
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        policies = ("Always", "OnFailure", "Never")
        found.append(unsupported(f"{at}.restartPolicy", spec.get("restartPolicy"), policies))
    return found


def _container(container: Object, at: str, names: set[str], volumes: set[str]) -> list[Problem]:
    found: list[Problem] = []
    name = container.get("name", "")
    if not name:
        found.append(required(f"{at}.name"))
    else:
        found += [invalid(f"{at}.name", name, text) for text in metadata.dns_label(name)]
        if name in names:
            found.append(duplicate(f"{at}.name", name))
        names.add(name)
    if not container.get("image"):
        found.append(required(f"{at}.image"))
    elif container["image"] != container["image"].strip():
        found.append(invalid(f"{at}.image", container["image"], "must not have leading or trailing whitespace"))
    for index, port in enumerate(container.get("ports") or []):
        where = f"{at}.ports[{index}]"
        number = port.get("containerPort", 0)
        if not number:
            found.append(required(f"{where}.containerPort"))
        elif not 1 <= number <= 65535:
            found.append(invalid(f"{where}.containerPort", number, "must be between 1 and 65535, inclusive"))
        if port.get("protocol") not in ("SCTP", "TCP", "UDP"):
            found.append(unsupported(f"{where}.protocol", port.get("protocol"), ["SCTP", "TCP", "UDP"]))
    for index, variable in enumerate(container.get("env") or []):
        where = f"{at}.env[{index}]"
        if not variable.get("name"):
            found.append(required(f"{where}.name"))
        if variable.get("value") and variable.get("valueFrom"):
            text = "may not be specified when `value` is not empty"
            found.append(invalid(f"{where}.valueFrom", "", text))
    paths: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        found += _mount(mount, f"{at}.volumeMounts[{index}]", volumes, paths)
    if container.get("imagePullPolicy") not in ("Always", "IfNotPresent", "Never"):
        policies = ("Always", "IfNotPresent", "Never")
        found.append(unsupported(f"{at}.imagePullPolicy", container.get("imagePullPolicy"), policies))
    security = container.get("securityContext") or {}
    if security.get("privileged"):
        found.append(forbidden_field(f"{at}.securityContext.privileged", "disallowed by cluster policy"))
    return [*found, *_ids(security, f"{at}.securityContext", ("runAsUser", "runAsGroup"))]


def _mount(mount: Object, at: str, volumes: set[str], paths: set[str]) -> list[Problem]:
    found: list[Problem] = []
    name, path = mount.get("name", ""), mount.get("mountPath", "")
    if not name:
        found.append(required(f"{at}.name"))
    elif name not in volumes:
        found.append(Problem(f"{at}.name", "FieldValueNotFound", f"Not found: {quoted(name)}"))
    if not path:
        found.append(required(f"{at}.mountPath"))
    elif path in paths:
        found.append(invalid(f"{at}.mountPath", path, "must be unique"))
    paths.add(path)
    if mount.get("subPath", "").startswith("/"):
        found.append(invalid(f"{at}.subPath", mount["subPath"], "must be a relative path"))
    return found


def _ids(security: Object, at: str, keys: tuple[str, ...]) -> list[Problem]:
    text = f"must be between 0 and {_ID_LIMIT}, inclusive"
    return [
        invalid(f"{at}.{key}", security[key], text)
        for key in keys
        if security.get(key) is not None and not 0 <= security[key] <= _ID_LIMIT
    ]


_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def _pod_defaults(value: Object) -> None:
    spec = value["spec"]
    pod_spec_defaults(spec)
    spec.setdefault("enableServiceLinks", True)
    for container in containers(spec):
        resources = container["resources"]
        for key, amount in (resources.get("limits") or {}).items():
            resources.setdefault("requests", {}).setdefault(key, amount)


def pod_admission(value: Object) -> None:
    """What admission adds to a new Pod: tolerations of a node that fails, a priority."""
    spec = value["spec"]
    tolerations = spec.setdefault("tolerations", [])
    for key in _TOLERATED:
        if not any(entry.get("key") == key for entry in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _pod_create(value: Object) -> None:
    value["status"] = {"phase": "Pending", "qosClass": _quality(value["spec"])}


def _quality(spec: Object) -> str:
    every = list(containers(spec))
    if not any((one["resources"].get("limits") or one["resources"].get("requests")) for one in every):
        return "BestEffort"
    for one in every:
        limits, requests = one["resources"].get("limits") or {}, one["resources"].get("requests") or {}
        if any(key not in limits or limits[key] != requests.get(key, limits[key]) for key in ("cpu", "memory")):
            return "Burstable"
    return "Guaranteed"


def containers(spec: Object) -> Iterator[Object]:
    """All containers of a Pod."""
    for name in _CONTAINER_LISTS:
        yield from spec.get(name) or []


def _pod_update(new: Object, old: Object) -> None:
    new["status"] = old["status"]


def _mutable_part(spec: Object) -> Object:
    def cut(container: Object) -> Object:
        return {key: part for key, part in container.items() if key != "image"}

    kept: dict[str, Any] = {
        key: part
        for key, part in spec.items()
        if key not in ("activeDeadlineSeconds", "tolerations", "containers", "initContainers")
    }
    return {**kept, "containers": [cut(one) for one in containers(spec)]}


def _pod_validate_update(new: Object, old: Object) -> list[Problem]:
    if _mutable_part(new["spec"]) != _mutable_part(old["spec"]):
        text = (
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
        )
        return [forbidden_field("spec", text)]
    return []


POD = Behaviour(
    convert=lambda value: service_account(value["spec"]),
    defaults=_pod_defaults,
    create=_pod_create,
    update=_pod_update,
    validate=lambda value: pod_problems(value["spec"], "spec"),
    validate_update=_pod_validate_update,
    generation=True,
    answers_object=True,
)
