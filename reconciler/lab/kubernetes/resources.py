"""The resources that are served: built-in ones from a table, custom ones from CustomResourceDefinitions."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from reconciler.lab.kubernetes.kinds import Behaviour, access, core, custom, network, pod, route, service, workload
from reconciler.lab.kubernetes.schema import Object, Struct, builtin
from reconciler.lab.kubernetes.schema import custom as custom_type

ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_CHANGE = ("get", "patch", "update")


@dataclass(frozen=True)
class Subresource:
    """A part of an object with a path of its own; `group` and `version` where it is of another kind."""

    name: str
    verbs: tuple[str, ...]
    kind: str = ""
    group: str = ""
    version: str = ""


@dataclass(frozen=True, eq=False)
class Resource:
    """One resource: `deployments.apps` at version v1."""

    group: str
    version: str
    plural: str
    kind: str
    type: Struct
    behaviour: Behaviour
    namespaced: bool = True
    singular: str = ""
    list_kind: str = ""
    verbs: tuple[str, ...] = ALL
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    stored: bool = True  # False: a request is answered, nothing is kept (reviews)
    definition: Object = field(default_factory=dict)  # the CRD's version, for custom resources
    given_hash: str = ""

    @property
    def api_version(self) -> str:
        """`apps/v1`, `v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def place(self) -> str:
        """Its key in the store."""
        return f"{self.group}/{self.plural}"

    @property
    def custom(self) -> bool:
        """Whether a CustomResourceDefinition made it."""
        return bool(self.definition)

    def subresource(self, name: str) -> Subresource | None:
        """A subresource by its name."""
        return next((one for one in self.subresources if one.name == name), None)

    @property
    def storage_hash(self) -> str:
        """What discovery shows as storageVersionHash."""
        text = f"{self.group}/{self.version}/{self.kind}"
        return self.given_hash or base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


_STATUS = Subresource("status", _CHANGE)
_SCALE = Subresource("scale", _CHANGE, "Scale", "autoscaling", "v1")
_PROXY = ("create", "delete", "get", "patch", "update")
_POD_PARTS = (
    Subresource("attach", ("create", "get"), "PodAttachOptions"),
    Subresource("binding", ("create",), "Binding"),
    Subresource("ephemeralcontainers", _CHANGE),
    Subresource("eviction", ("create",), "Eviction", "policy", "v1"),
    Subresource("exec", ("create", "get"), "PodExecOptions"),
    Subresource("log", ("get",)),
    Subresource("portforward", ("create", "get"), "PodPortForwardOptions"),
    Subresource("proxy", _PROXY, "PodProxyOptions"),
    Subresource("resize", _CHANGE),
    _STATUS,
)


def _builtin(group: str, plural: str, kind: str, behaviour: Behaviour, **more: object) -> Resource:
    values: dict[str, object] = {"singular": kind.lower(), "list_kind": f"{kind}List", **more}
    return Resource(group, "v1", plural, kind, builtin(kind), behaviour, **values)  # type: ignore[arg-type]


def builtins() -> list[Resource]:
    """The built-in resources in the order of discovery."""
    rbac = access.GROUP
    return [
        _builtin("", "configmaps", "ConfigMap", core.CONFIG_MAP, short_names=("cm",)),
        _builtin("", "events", "Event", Behaviour(), short_names=("ev",)),
        _builtin(
            "",
            "namespaces",
            "Namespace",
            core.NAMESPACE,
            namespaced=False,
            short_names=("ns",),
            verbs=tuple(verb for verb in ALL if verb != "deletecollection"),
            subresources=(Subresource("finalize", ("update",)), _STATUS),
        ),
        _builtin(
            "",
            "persistentvolumeclaims",
            "PersistentVolumeClaim",
            network.CLAIM,
            short_names=("pvc",),
            subresources=(_STATUS,),
        ),
        _builtin("", "pods", "Pod", pod.POD, short_names=("po",), categories=("all",), subresources=_POD_PARTS),
        _builtin("", "secrets", "Secret", core.SECRET),
        _builtin(
            "",
            "serviceaccounts",
            "ServiceAccount",
            core.SERVICE_ACCOUNT,
            short_names=("sa",),
            subresources=(Subresource("token", ("create",), "TokenRequest", "authentication.k8s.io", "v1"),),
        ),
        _builtin(
            "",
            "services",
            "Service",
            service.SERVICE,
            short_names=("svc",),
            categories=("all",),
            subresources=(Subresource("proxy", _PROXY, "ServiceProxyOptions"), _STATUS),
        ),
        _builtin(
            "apps",
            "daemonsets",
            "DaemonSet",
            workload.DAEMON_SET,
            short_names=("ds",),
            categories=("all",),
            subresources=(_STATUS,),
        ),
        _builtin(
            "apps",
            "deployments",
            "Deployment",
            workload.DEPLOYMENT,
            short_names=("deploy",),
            categories=("all",),
            subresources=(_SCALE, _STATUS),
        ),
        _builtin(
            "apps",
            "replicasets",
            "ReplicaSet",
            workload.REPLICA_SET,
            short_names=("rs",),
            categories=("all",),
            subresources=(_SCALE, _STATUS),
        ),
        _builtin(
            "apps",
            "statefulsets",
            "StatefulSet",
            workload.STATEFUL_SET,
            short_names=("sts",),
            categories=("all",),
            subresources=(_SCALE, _STATUS),
        ),
        Resource(
            "authorization.k8s.io",
            "v1",
            "selfsubjectaccessreviews",
            "SelfSubjectAccessReview",
            builtin("SelfSubjectAccessReview"),
            Behaviour(),
            namespaced=False,
            singular="selfsubjectaccessreview",
            verbs=("create",),
            stored=False,
        ),
        _builtin(
            "batch",
            "cronjobs",
            "CronJob",
            workload.CRON_JOB,
            short_names=("cj",),
            categories=("all",),
            subresources=(_STATUS,),
        ),
        _builtin("batch", "jobs", "Job", workload.JOB, categories=("all",), subresources=(_STATUS,)),
        _builtin(
            "networking.k8s.io",
            "ingresses",
            "Ingress",
            network.INGRESS,
            short_names=("ing",),
            subresources=(_STATUS,),
        ),
        _builtin(
            "networking.k8s.io", "networkpolicies", "NetworkPolicy", network.NETWORK_POLICY, short_names=("netpol",)
        ),
        _builtin(rbac, "clusterrolebindings", "ClusterRoleBinding", access.CLUSTER_ROLE_BINDING, namespaced=False),
        _builtin(rbac, "clusterroles", "ClusterRole", access.ROLE, namespaced=False),
        _builtin(rbac, "rolebindings", "RoleBinding", access.ROLE_BINDING),
        _builtin(rbac, "roles", "Role", access.ROLE),
        _builtin(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            "CustomResourceDefinition",
            custom.DEFINITION,
            namespaced=False,
            short_names=("crd", "crds"),
            categories=("api-extensions",),
            subresources=(_STATUS,),
            given_hash="jfWCUB31mvA=",
        ),
    ]


def from_definition(definition: Object) -> list[Resource]:
    """The resources that a CustomResourceDefinition serves."""
    spec = definition["spec"]
    names = spec["names"]
    found = []
    for version in spec.get("versions") or []:
        if not version.get("served"):
            continue
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
        parts = version.get("subresources") or {}
        subresources = tuple(one for one in (_STATUS, _SCALE) if one.name in parts)
        is_route = (spec["group"], names["plural"]) == (route.GROUP, "routes")
        found.append(
            Resource(
                spec["group"],
                version["name"],
                names["plural"],
                names["kind"],
                custom_type(names["kind"], schema),
                route.ROUTE if is_route else custom.behaviour(schema),
                namespaced=spec.get("scope") == "Namespaced",
                singular=names.get("singular") or names["kind"].lower(),
                list_kind=names.get("listKind") or f"{names['kind']}List",
                verbs=CUSTOM_VERBS,
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                subresources=subresources,
                definition=version,
            )
        )
    return found
