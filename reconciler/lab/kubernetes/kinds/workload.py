"""What makes Pods: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob."""

from __future__ import annotations

import re

from reconciler.lab.kubernetes import metadata
from reconciler.lab.kubernetes.kinds import Behaviour
from reconciler.lab.kubernetes.kinds.pod import pod_problems, pod_spec_defaults, service_account
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import Problem, forbidden_field, invalid, required, unsupported


def _convert_template(value: Object) -> None:
    service_account(value["spec"]["template"]["spec"])


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
    found = metadata.label_problems(template["metadata"].get("labels") or {}, "spec.template.labels")
    found += pod_problems(template["spec"], "spec.template.spec")
    policy = template["spec"].get("restartPolicy")
    if policy not in policies:
        found.append(unsupported("spec.template.spec.restartPolicy", policy, policies))
    return found


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
    service_account(value["spec"]["jobTemplate"]["spec"]["template"]["spec"])


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
