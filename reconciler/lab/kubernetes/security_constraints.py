"""OpenShift's security context constraints: which Pods are admitted, and what is filled in.

The default constraints, as far as they decide about users, groups, capabilities, privileges and host access. Sources:
https://docs.redhat.com/en/documentation/openshift_container_platform (Managing security context constraints), and for
wording and order the recorded exchanges (`scc-openshift.json`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reconciler.lab.kubernetes.kinds.pod import containers
from reconciler.lab.kubernetes.schema import Object
from reconciler.lab.kubernetes.status import ApiError, forbidden, quoted

RANGE = "openshift.io/sa.scc.uid-range"
GROUPS = "openshift.io/sa.scc.supplemental-groups"
LEVEL = "openshift.io/sa.scc.mcs"
REQUIRED = "openshift.io/required-scc"


@dataclass(frozen=True)
class Constraint:
    """One SCC. `users`: `range` of the namespace, `nonroot`, `any`, or a fixed range."""

    name: str
    users: str = "range"
    fixed: tuple[int, int] = (0, 0)
    group: bool = True  # fsGroup must be the first of the namespace's range
    drop: tuple[str, ...] = ("ALL",)
    add: tuple[str, ...] = ("NET_BIND_SERVICE",)
    escalation: bool = False  # allowed
    seccomp: bool = True  # RuntimeDefault is filled in
    privileged: bool = False
    host: frozenset[str] = frozenset()  # network, pid, ipc, ports, path
    own_users: bool = False  # hostUsers must be false
    open: bool = False  # for all authenticated users


_OLD = ("KILL", "MKNOD", "SETUID", "SETGID")
_EVERYTHING = frozenset({"network", "pid", "ipc", "ports", "path"})
# In the order in which the server tries them: priority, then how much they restrict.
CONSTRAINTS = (
    Constraint("anyuid", users="any", group=False, drop=("MKNOD",), add=(), escalation=True, seccomp=False),
    Constraint("restricted-v2", open=True),
    Constraint("restricted-v3", users="fixed", fixed=(1000, 65534), own_users=True, open=True),
    Constraint("restricted", drop=_OLD, add=(), escalation=True, seccomp=False),
    Constraint("nonroot-v2", users="nonroot", group=False),
    Constraint("nonroot", users="nonroot", group=False, drop=_OLD, add=(), escalation=True, seccomp=False),
    Constraint(
        "hostmount-anyuid",
        users="any",
        group=False,
        drop=("MKNOD",),
        add=(),
        escalation=True,
        seccomp=False,
        host=frozenset({"path"}),
    ),
    Constraint("hostnetwork-v2", host=frozenset({"network", "ports"})),
    Constraint("hostnetwork", drop=_OLD, add=(), escalation=True, seccomp=False, host=frozenset({"network", "ports"})),
    Constraint("hostaccess", drop=_OLD, add=(), escalation=True, seccomp=False, host=_EVERYTHING),
    Constraint(
        "privileged",
        users="any",
        group=False,
        drop=(),
        add=("*",),
        escalation=True,
        seccomp=False,
        privileged=True,
        host=_EVERYTHING,
    ),
)


def _first_and_last(text: str) -> tuple[int, int]:
    """`1000680000/10000` as the first and the last id."""
    start, _, size = text.partition("/")
    return int(start), int(start) + int(size or 1) - 1


def _security(part: Object) -> Object:
    return part.get("securityContext") or {}


class _Review:
    """A Pod and its namespace before one constraint."""

    def __init__(self, constraint: Constraint, pod: Object, annotations: dict[str, str]) -> None:
        self.constraint = constraint
        self.spec = pod["spec"]
        self.users = _first_and_last(annotations.get(RANGE, "1000/1"))
        if constraint.users == "fixed":
            self.users = constraint.fixed
        self.groups = _first_and_last(annotations.get(GROUPS) or annotations.get(RANGE, "1000/1"))
        self.level = annotations.get(LEVEL, "")

    def problems(self) -> Iterator[str]:
        """What the constraint does not allow."""
        rule, spec = self.constraint, self.spec
        group = _security(spec).get("fsGroup")
        if rule.group and group is not None and group != self.groups[0]:
            text = f"Invalid value: [{group}]: {group} is not an allowed group"
            yield f".spec.securityContext.fsGroup: {text}"
        for key, name in (("hostNetwork", "network"), ("hostPID", "pid"), ("hostIPC", "ipc")):
            if spec.get(key) and name not in rule.host:
                shown = {"network": "Host network is", "pid": "Host PID is", "ipc": "Host IPC is"}[name]
                yield f".spec.securityContext.{key}: Invalid value: true: {shown} not allowed to be used"
        for index, volume in enumerate(spec.get("volumes") or []):
            if "hostPath" in volume and "path" not in rule.host:
                text = "hostPath volumes are not allowed to be used"
                yield f'.spec.volumes[{index}]: Invalid value: "hostPath": {text}'
        if rule.own_users and spec.get("hostUsers") is not False:
            yield f".spec.hostUsers: Invalid value: {quoted(spec.get('hostUsers'))}: Host Users must be set to false"
        for kind in ("initContainers", "containers"):
            for index, container in enumerate(spec.get(kind) or []):
                for problem in self._container(container):
                    yield f".{kind}[{index}].{problem}"

    def _container(self, container: Object) -> Iterator[str]:
        rule, security = self.constraint, _security(container)
        user = security.get("runAsUser", _security(self.spec).get("runAsUser"))
        if user is not None:
            if rule.users in ("range", "fixed") and not self.users[0] <= user <= self.users[1]:
                yield f"runAsUser: Invalid value: {user}: must be in the ranges: [{self.users[0]}, {self.users[1]}]"
            elif rule.users == "nonroot" and user == 0:
                yield "runAsUser: Invalid value: 0: running with the root UID is forbidden"
        if security.get("privileged") and not rule.privileged:
            yield "privileged: Invalid value: true: Privileged containers are not allowed"
        for capability in (security.get("capabilities") or {}).get("add") or []:
            if capability not in rule.add and "*" not in rule.add:
                yield f"capabilities.add: Invalid value: {quoted(capability)}: capability may not be added"
        if security.get("allowPrivilegeEscalation") and not rule.escalation:
            text = "Allowing privilege escalation for containers is not allowed"
            yield f"allowPrivilegeEscalation: Invalid value: true: {text}"
        if "ports" not in rule.host:
            for port in container.get("ports") or []:
                if port.get("hostPort"):
                    text = "Host ports are not allowed to be used"
                    yield f"ports: Invalid value: {port['hostPort']}: {text}"

    def fill(self) -> None:
        """Fills in what the constraint wants and the Pod leaves out."""
        rule = self.constraint
        pod = self.spec.setdefault("securityContext", {})
        if self.level and "seLinuxOptions" not in pod:
            pod["seLinuxOptions"] = {"level": self.level}
        if rule.group and "fsGroup" not in pod:
            pod["fsGroup"] = self.groups[0]
        if rule.seccomp and "seccompProfile" not in pod:
            pod["seccompProfile"] = {"type": "RuntimeDefault"}
        for container in containers(self.spec):
            security = container.setdefault("securityContext", {})
            user = security.get("runAsUser", pod.get("runAsUser"))
            if user is None and rule.users in ("range", "fixed"):
                user = security["runAsUser"] = self.users[0]
            non_root = security.get("runAsNonRoot", pod.get("runAsNonRoot"))
            if non_root is None and (user or (user is None and rule.users == "nonroot")):
                security["runAsNonRoot"] = True
            if not rule.escalation:
                security.setdefault("allowPrivilegeEscalation", False)
            if rule.drop:
                capabilities = security.setdefault("capabilities", {})
                dropped = capabilities.get("drop") or []
                capabilities["drop"] = [*dropped, *(name for name in rule.drop if name not in dropped)]
            if not security:
                del container["securityContext"]


def admit(pod: Object, annotations: dict[str, str], may_use: Callable[[str], str]) -> None:
    """Finds a constraint for a Pod and fills it in. Raises ApiError 403 where there is none.

    `may_use` tells who may use a constraint: "user", "serviceaccount", or "" for nobody. `annotations` are those of
    the namespace.
    """
    given = pod["metadata"].get("annotations") or {}
    required = given.get(REQUIRED)
    name = pod["metadata"].get("name") or pod["metadata"].get("generateName", "")
    chosen = [one for one in CONSTRAINTS if required in (None, one.name)]
    if not chosen:
        missing = f'securitycontextconstraints.security.openshift.io "{required}" not found'
        raise forbidden("pods", "", name, f'failed to retrieve the required SCC "{required}": {missing}')
    refused: list[str] = []
    for constraint in chosen:
        who = may_use(constraint.name)
        if not who:
            refused.append(f'provider "{constraint.name}": Forbidden: not usable by user or serviceaccount')
            continue
        review = _Review(constraint, pod, annotations)
        problems = [f"provider {constraint.name}: {problem}" for problem in review.problems()]
        if not problems:
            review.fill()
            added = {"openshift.io/scc": constraint.name, "security.openshift.io/validated-scc-subject-type": who}
            if constraint.seccomp:
                added["seccomp.security.alpha.kubernetes.io/pod"] = "runtime/default"
            pod["metadata"]["annotations"] = {**given, **added}
            return
        refused += problems
    raise _refusal(name, refused)


def _refusal(name: str, refused: list[str]) -> ApiError:
    shown = refused[0] if len(refused) == 1 else f"[{', '.join(refused)}]"
    return forbidden("pods", "", name, f"unable to validate against any security context constraint: {shown}")


def service_account(pod: Object, account: Object, suffix: Callable[[], str]) -> None:
    """What admission does for a Pod's ServiceAccount: pull secrets, and the token as a projected volume."""
    spec = pod["spec"]
    if account.get("imagePullSecrets") and not spec.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(one) for one in account["imagePullSecrets"]]
    if not spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)):
        return
    volume = f"kube-api-access-{suffix()}"
    field = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", **field}]}},
        {
            "configMap": {
                "name": "openshift-service-ca.crt",
                "items": [{"key": "service-ca.crt", "path": "service-ca.crt"}],
            }
        },
    ]
    spec.setdefault("volumes", []).append({"name": volume, "projected": {"sources": sources, "defaultMode": 420}})
    mount = {"name": volume, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    for container in containers(spec):
        container.setdefault("volumeMounts", []).append(dict(mount))
