"""Pods and what makes Pods: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob."""

from __future__ import annotations

import re
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


def _service_account(spec: Object) -> None:
    """`serviceAccount` is an old name of `serviceAccountName`: both are written."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def _convert_template(value: Object) -> None:
    _service_account(value["spec"]["template"]["spec"])


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


def _percent(kind: str) -> Object:
    return {"type": kind, "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}


def _deployment_defaults(value: Object) -> None:
    spec = value["spec"]
    spec.setdefault("replicas", 1)
    pod_spec_defaults(spec["template"]["spec"])
    strategy = spec["strategy"]
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _empty_status(value: Object) -> None:
    value["status"] = {}


def _keep_status(new: Object, old: Object) -> None:
    new["status"] = old["status"]


def matches(selector: Object | None, labels: Object) -> bool:
    """Whether labels match a label selector; an empty one matches all, none matches nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or []:
        value = labels.get(rule["key"])
        operator, values = rule["operator"], rule.get("values") or []
        if operator == "In" and value not in values:
            return False
        if operator == "NotIn" and value in values:
            return False
        if operator == "Exists" and value is None:
            return False
        if operator == "DoesNotExist" and value is not None:
            return False
    return True


def _selected(spec: Object) -> list[Problem]:
    found: list[Problem] = []
    selector = spec.get("selector")
    empty = not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))
    if selector is None:
        found.append(required("spec.selector"))
    elif empty:
        found.append(invalid("spec.selector", selector, "empty selector is invalid for deployment"))
    labels = spec["template"]["metadata"].get("labels")
    if empty or not matches(selector, labels or {}):
        text = "`selector` does not match template `labels`"
        found.append(invalid("spec.template.metadata.labels", labels, text))
    return found


def _template(spec: Object, policies: tuple[str, ...] = ("Always",)) -> list[Problem]:
    template = spec["template"]
    found = metadata.labels(template["metadata"].get("labels") or {}, "spec.template.labels")
    found += pod_problems(template["spec"], "spec.template.spec")
    policy = template["spec"].get("restartPolicy")
    if policy not in policies:
        found.append(unsupported("spec.template.spec.restartPolicy", policy, policies))
    return found


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


def _replicas(spec: Object) -> list[Problem]:
    if (spec.get("replicas") or 0) < 0:
        return [invalid("spec.replicas", spec["replicas"], "must be greater than or equal to 0")]
    return []


def _deployment(value: Object) -> list[Problem]:
    spec = value["spec"]
    found = [*_replicas(spec), *_selected(spec), *_template(spec)]
    strategy = spec["strategy"]
    if strategy["type"] == "Recreate" and strategy.get("rollingUpdate") is not None:
        text = "may not be specified when strategy `type` is 'Recreate'"
        found.append(forbidden_field("spec.strategy.rollingUpdate", text))
    elif strategy["type"] not in ("Recreate", "RollingUpdate"):
        found.append(unsupported("spec.strategy.type", strategy["type"], ["Recreate", "RollingUpdate"]))
    elif strategy["type"] == "RollingUpdate":
        rolling = strategy["rollingUpdate"]
        if _is_zero(rolling["maxUnavailable"]) and _is_zero(rolling["maxSurge"]):
            text = "may not be 0 when `maxSurge` is 0"
            found.append(invalid("spec.strategy.rollingUpdate.maxUnavailable", rolling["maxUnavailable"], text))
    if (spec.get("progressDeadlineSeconds") or 0) <= spec.get("minReadySeconds", 0):
        text = "must be greater than minReadySeconds"
        found.append(invalid("spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"], text))
    return found


def _is_zero(value: int | str) -> bool:
    return value in (0, "0%")


def _selector_kept(new: Object, old: Object) -> list[Problem]:
    if new["spec"].get("selector") != old["spec"].get("selector"):
        return [invalid("spec.selector", new["spec"].get("selector"), "field is immutable")]
    return []


DEPLOYMENT = Behaviour(
    convert=_convert_template,
    defaults=_deployment_defaults,
    create=_empty_status,
    update=_keep_status,
    validate=_deployment,
    validate_update=lambda new, old: [*_deployment(new), *_selector_kept(new, old)],
    generation=True,
)


def _replica_set_defaults(value: Object) -> None:
    value["spec"].setdefault("replicas", 1)
    pod_spec_defaults(value["spec"]["template"]["spec"])


def _zero_replicas(value: Object) -> None:
    value["status"] = {"replicas": 0}


REPLICA_SET = Behaviour(
    convert=_convert_template,
    defaults=_replica_set_defaults,
    create=_zero_replicas,
    update=_keep_status,
    validate=lambda value: [*_replicas(value["spec"]), *_selected(value["spec"]), *_template(value["spec"])],
    validate_update=lambda new, old: [*_replicas(new["spec"]), *_template(new["spec"]), *_selector_kept(new, old)],
    generation=True,
)


def _stateful_defaults(value: Object) -> None:
    spec = value["spec"]
    spec.setdefault("replicas", 1)
    pod_spec_defaults(spec["template"]["spec"])
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = spec["updateStrategy"]
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    kept = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    kept.setdefault("whenDeleted", "Retain")
    kept.setdefault("whenScaled", "Retain")
    for claim in spec.get("volumeClaimTemplates") or []:
        claim.setdefault("kind", "PersistentVolumeClaim")
        claim.setdefault("apiVersion", "v1")
        claim["spec"].setdefault("volumeMode", "Filesystem")
        claim["status"].setdefault("phase", "Pending")


_STATEFUL_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def _stateful_update(new: Object, old: Object) -> list[Problem]:
    found = [*_replicas(new["spec"]), *_template(new["spec"])]
    ours, theirs = (
        {key: part for key, part in value["spec"].items() if key not in _STATEFUL_MUTABLE} for value in (new, old)
    )
    if ours != theirs:
        names = ", ".join(f"'{name}'" for name in _STATEFUL_MUTABLE[:-1]) + f" and '{_STATEFUL_MUTABLE[-1]}'"
        found.append(
            forbidden_field("spec", f"updates to statefulset spec for fields other than {names} are forbidden")
        )
    return found


def _stateful_status(value: Object) -> None:
    value["status"] = {"replicas": 0, "availableReplicas": 0}


STATEFUL_SET = Behaviour(
    convert=_convert_template,
    defaults=_stateful_defaults,
    create=_stateful_status,
    update=_keep_status,
    validate=lambda value: [*_replicas(value["spec"]), *_selected(value["spec"]), *_template(value["spec"])],
    validate_update=_stateful_update,
    generation=True,
)


def _daemon_defaults(value: Object) -> None:
    spec = value["spec"]
    pod_spec_defaults(spec["template"]["spec"])
    strategy = spec["updateStrategy"]
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)


def _daemon_status(value: Object) -> None:
    keys = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady")
    value["status"] = dict.fromkeys(keys, 0)


DAEMON_SET = Behaviour(
    convert=_convert_template,
    defaults=_daemon_defaults,
    create=_daemon_status,
    update=_keep_status,
    validate=lambda value: [*_selected(value["spec"]), *_template(value["spec"])],
    validate_update=lambda new, old: [*_template(new["spec"]), *_selector_kept(new, old)],
    generation=True,
)


def _job_spec_defaults(spec: Object) -> None:
    pod_spec_defaults(spec["template"]["spec"])


def _job_defaults(value: Object) -> None:
    spec = value["spec"]
    _job_spec_defaults(spec)
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")


def _job_create(value: Object) -> None:
    value["status"] = {}
    if not value["spec"].get("manualSelector"):
        labels = {
            "batch.kubernetes.io/controller-uid": value["metadata"]["uid"],
            "batch.kubernetes.io/job-name": value["metadata"]["name"],
            "controller-uid": value["metadata"]["uid"],
            "job-name": value["metadata"]["name"],
        }
        template = value["spec"]["template"]["metadata"]
        template["labels"] = {**(template.get("labels") or {}), **labels}
        value["spec"]["selector"] = {
            "matchLabels": {"batch.kubernetes.io/controller-uid": value["metadata"]["uid"]},
        }


def _job(value: Object) -> list[Problem]:
    return _template(value["spec"], ("OnFailure", "Never"))


def _job_update(new: Object, old: Object) -> list[Problem]:
    found = [*_job(new), *_selector_kept(new, old)]
    if new["spec"]["template"] != old["spec"]["template"]:
        found.append(invalid("spec.template", new["spec"]["template"], "field is immutable"))
    return found


JOB = Behaviour(
    convert=_convert_template,
    defaults=_job_defaults,
    create=_job_create,
    update=_keep_status,
    validate=_job,
    validate_update=_job_update,
    generation=True,
)


def _cron_convert(value: Object) -> None:
    _service_account(value["spec"]["jobTemplate"]["spec"]["template"]["spec"])


def _cron_defaults(value: Object) -> None:
    spec = value["spec"]
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    _job_spec_defaults(spec["jobTemplate"]["spec"])


def _cron(value: Object) -> list[Problem]:
    schedule = value["spec"].get("schedule", "")
    words = schedule.split()
    found: list[Problem] = []
    if not schedule:
        found.append(required("spec.schedule"))
    elif not re.match(r"@\w+", schedule) and len(words) != 5:
        text = f"expected exactly 5 fields, found {len(words)}: [{' '.join(words)}]"
        found.append(invalid("spec.schedule", schedule, text))
    at = "spec.jobTemplate.spec.template.spec"
    return [*found, *pod_problems(value["spec"]["jobTemplate"]["spec"]["template"]["spec"], at)]


CRON_JOB = Behaviour(
    convert=_cron_convert,
    defaults=_cron_defaults,
    create=_empty_status,
    update=_keep_status,
    validate=_cron,
    validate_update=lambda new, old: _cron(new),
    generation=True,
)

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
    convert=lambda value: _service_account(value["spec"]),
    defaults=_pod_defaults,
    create=_pod_create,
    update=_pod_update,
    validate=lambda value: pod_problems(value["spec"], "spec"),
    validate_update=_pod_validate_update,
    generation=True,
    answers_object=True,
)
