"""Writes `reconciler/lab/kubernetes/types.json`: the fields of the built-in kinds that the emulator serves.

Names and types of fields are read from the installed Python client; what that does not know (merge keys, atomic
maps, quantities, what Go's encoder leaves out) stands in the tables below, from the API reference.

    python tests/kubernetes/make_types.py > reconciler/lab/kubernetes/types.json

Notation of a field: a scalar (`string int bool number quantity intstr time bytes any`), the name of a type, `[T]` for
a list followed by its merge keys or `set`, `{T}` for a map. Then flags: `*` a Go pointer (zero and `{}` are kept),
`!` always written, also when it is empty, `~` atomic although it is a map.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from kubernetes.client import models

ROOTS = [
    "V1ConfigMap",
    "V1Secret",
    "V1Service",
    "V1ServiceAccount",
    "V1Namespace",
    "V1Pod",
    "V1PersistentVolumeClaim",
    "CoreV1Event",
    "V1Deployment",
    "V1ReplicaSet",
    "V1StatefulSet",
    "V1DaemonSet",
    "V1Job",
    "V1CronJob",
    "V1Role",
    "V1RoleBinding",
    "V1ClusterRole",
    "V1ClusterRoleBinding",
    "V1Ingress",
    "V1NetworkPolicy",
    "V1CustomResourceDefinition",
    "V1Scale",
    "V1SelfSubjectAccessReview",
    "AuthenticationV1TokenRequest",
]

# Structs that are owned as a whole (x-kubernetes-map-type: atomic).
ATOMIC = [
    "LocalObjectReference",
    "SecretKeySelector",
    "ConfigMapKeySelector",
    "FileKeySelector",
    "ObjectFieldSelector",
    "ResourceFieldSelector",
    "LabelSelector",
    "ObjectReference",
    "TypedLocalObjectReference",
    "NodeSelector",
    "NodeSelectorTerm",
    "RoleRef",
    "Subject",
    "OwnerReference",
]

# Type.field -> merge keys of a list, or `set`. Lists that are not here are atomic.
LISTS = {
    "PodSpec.containers": "name",
    "PodSpec.initContainers": "name",
    "PodSpec.ephemeralContainers": "name",
    "PodSpec.volumes": "name",
    "PodSpec.imagePullSecrets": "name",
    "PodSpec.hostAliases": "ip",
    "PodSpec.topologySpreadConstraints": "topologyKey,whenUnsatisfiable",
    "PodSpec.schedulingGates": "name",
    "PodSpec.resourceClaims": "name",
    "Container.ports": "containerPort,protocol",
    "Container.env": "name",
    "Container.volumeMounts": "mountPath",
    "Container.volumeDevices": "devicePath",
    "EphemeralContainer.ports": "containerPort,protocol",
    "EphemeralContainer.env": "name",
    "EphemeralContainer.volumeMounts": "mountPath",
    "EphemeralContainer.volumeDevices": "devicePath",
    "ResourceRequirements.claims": "name",
    "ServiceSpec.ports": "port,protocol",
    "ServiceStatus.conditions": "type",
    "ServiceAccount.secrets": "name",
    "PodStatus.conditions": "type",
    "PodStatus.podIPs": "ip",
    "PodStatus.resourceClaimStatuses": "name",
    "DeploymentStatus.conditions": "type",
    "ReplicaSetStatus.conditions": "type",
    "StatefulSetStatus.conditions": "type",
    "DaemonSetStatus.conditions": "type",
    "NamespaceStatus.conditions": "type",
    "PersistentVolumeClaimStatus.conditions": "type",
    "ObjectMeta.ownerReferences": "uid",
    "ObjectMeta.finalizers": "set",
    "CustomResourceDefinitionStatus.conditions": "type",
    "JobSpec.podFailurePolicy.rules": "",
    "ContainerStatus.volumeMounts": "mountPath",
}

# Maps that are owned as a whole.
ATOMIC_MAPS = {"ServiceSpec.selector", "PodSpec.nodeSelector"}

QUANTITIES = {
    "ResourceRequirements.limits",
    "ResourceRequirements.requests",
    "VolumeResourceRequirements.limits",
    "VolumeResourceRequirements.requests",
    "EmptyDirVolumeSource.sizeLimit",
    "ResourceFieldSelector.divisor",
    "PodSpec.overhead",
    "PersistentVolumeClaimStatus.capacity",
    "PersistentVolumeClaimStatus.allocatedResources",
    "ContainerStatus.allocatedResources",
}

INT_OR_STRING = {
    "NetworkPolicyPort.port",
    "TCPSocketAction.port",
    "HTTPGetAction.port",
    "RollingUpdateDaemonSet.maxSurge",
    "RollingUpdateDaemonSet.maxUnavailable",
    "RollingUpdateStatefulSetStrategy.maxUnavailable",
    "RollingUpdateDeployment.maxSurge",
    "RollingUpdateDeployment.maxUnavailable",
    "ServicePort.targetPort",
}

# Scalars behind a Go pointer: zero is a value of its own.
POINTERS = """
PodSpec: terminationGracePeriodSeconds activeDeadlineSeconds automountServiceAccountToken shareProcessNamespace
  priority hostUsers setHostnameAsFQDN enableServiceLinks preemptionPolicy runtimeClassName hostnameOverride
SecurityContext: privileged runAsUser runAsGroup runAsNonRoot readOnlyRootFilesystem allowPrivilegeEscalation procMount
PodSecurityContext: runAsUser runAsGroup runAsNonRoot fsGroup fsGroupChangePolicy supplementalGroupsPolicy
  seLinuxChangePolicy
SeccompProfile: localhostProfile
AppArmorProfile: localhostProfile
Probe: terminationGracePeriodSeconds
Container: restartPolicy
EphemeralContainer: restartPolicy
GRPCAction: service
DeploymentSpec: replicas revisionHistoryLimit progressDeadlineSeconds
DeploymentStatus: terminatingReplicas collisionCount
StatefulSetSpec: replicas revisionHistoryLimit
StatefulSetStatus: collisionCount
RollingUpdateStatefulSetStrategy: partition
ReplicaSetSpec: replicas
ReplicaSetStatus: terminatingReplicas
DaemonSetSpec: revisionHistoryLimit
DaemonSetStatus: collisionCount
JobSpec: parallelism completions activeDeadlineSeconds backoffLimit manualSelector ttlSecondsAfterFinished suspend
  completionMode backoffLimitPerIndex maxFailedIndexes podReplacementPolicy managedBy
JobStatus: ready terminating
CronJobSpec: suspend startingDeadlineSeconds successfulJobsHistoryLimit failedJobsHistoryLimit timeZone
Secret: immutable
ConfigMap: immutable
ServiceAccount: automountServiceAccountToken
ServiceSpec: ipFamilyPolicy allocateLoadBalancerNodePorts internalTrafficPolicy loadBalancerClass trafficDistribution
ServicePort: appProtocol
ClientIPConfig: timeoutSeconds
ConfigMapVolumeSource: optional defaultMode
SecretVolumeSource: optional defaultMode
DownwardAPIVolumeSource: defaultMode
ProjectedVolumeSource: defaultMode
KeyToPath: mode
DownwardAPIVolumeFile: mode
ConfigMapProjection: optional
SecretProjection: optional
SecretKeySelector: optional
ConfigMapKeySelector: optional
ConfigMapEnvSource: optional
SecretEnvSource: optional
ServiceAccountTokenProjection: expirationSeconds
HostPathVolumeSource: type
CSIVolumeSource: readOnly fsType
Toleration: tolerationSeconds
OwnerReference: controller blockOwnerDeletion
ObjectMeta: deletionGracePeriodSeconds
PersistentVolumeClaimSpec: storageClassName volumeMode volumeAttributesClassName
IngressSpec: ingressClassName
HTTPIngressPath: pathType
TypedLocalObjectReference: apiGroup
TypedObjectReference: apiGroup namespace
VolumeMount: mountPropagation recursiveReadOnly subPathExpr
ContainerStatus: started
TokenRequestSpec: expirationSeconds
NetworkPolicyPort: protocol endPort
TopologySpreadConstraint: minDomains nodeAffinityPolicy nodeTaintsPolicy
PodDNSConfigOption: value
CustomResourceSubresourceScale: labelSelectorPath
JSONSchemaProps: maximum minimum maxLength minLength maxItems minItems maxProperties minProperties multipleOf
  x-kubernetes-preserve-unknown-fields x-kubernetes-list-type x-kubernetes-map-type
ValidationRule: reason optionalOldSelf
"""

# Struct fields that Go holds by value: the encoder writes them always, as `{}` when empty.
VALUES = """
Deployment: spec status
DeploymentSpec: template strategy
ReplicaSet: spec status
ReplicaSetSpec: template
StatefulSet: spec status
StatefulSetSpec: template updateStrategy
DaemonSet: spec status
DaemonSetSpec: template updateStrategy
Job: spec status
JobSpec: template
CronJob: spec status
CronJobSpec: jobTemplate
JobTemplateSpec: metadata spec
PodTemplateSpec: metadata spec
Pod: spec status
Container: resources
EphemeralContainer: resources
Service: spec status
ServiceStatus: loadBalancer
Namespace: spec status
PersistentVolumeClaim: metadata spec status
PersistentVolumeClaimSpec: resources
PersistentVolumeClaimTemplate: metadata spec
RoleBinding: roleRef
ClusterRoleBinding: roleRef
Ingress: spec status
IngressStatus: loadBalancer
HTTPIngressPath: backend
NetworkPolicy: spec
NetworkPolicySpec: podSelector
CustomResourceDefinition: spec status
CustomResourceDefinitionSpec: names
CustomResourceDefinitionStatus: acceptedNames
ContainerStatus: state lastState
WeightedPodAffinityTerm: podAffinityTerm
PreferredSchedulingTerm: preference
Event: metadata involvedObject source
Scale: metadata spec status
SelfSubjectAccessReview: metadata spec status
TokenRequest: metadata spec status
ConfigMap: metadata
Secret: metadata
ServiceAccount: metadata
Role: metadata
ClusterRole: metadata
"""

# Written although empty: Go fields without omitempty.
ALWAYS = """
StatefulSetStatus: availableReplicas
ScaleStatus: replicas
TokenRequestSpec: boundObjectRef audiences
TokenRequestStatus: token expirationTimestamp
CustomResourceDefinitionStatus: conditions storedVersions
Role: rules
ClusterRole: rules
RoleRef: apiGroup
Event: eventTime reportingComponent reportingInstance
SubjectAccessReviewStatus: allowed
"""

# Optional in the API reference, yet required in the client's models, or the other way round.
NOT_ALWAYS = {"DeploymentSpec.selector", "ServicePort.targetPort", "CSIVolumeSource.nodePublishSecretRef"}


def table(text: str) -> set[str]:
    """Reads `Type: field field` lines, continued by indentation."""
    found: set[str] = set()
    for line in text.strip().replace("\n  ", " ").splitlines():
        name, _, fields = line.partition(":")
        found.update(f"{name}.{field}" for field in fields.split())
    return found


POINTER, VALUE, EVER = table(POINTERS), table(VALUES), table(ALWAYS)
SCALARS = {"str": "string", "int": "int", "float": "number", "bool": "bool", "datetime": "time", "object": "any"}


def short(name: str) -> str:
    """A model's name without its version."""
    return re.sub(r"^(V\d+|AuthenticationV1|RbacV1|ApiextensionsV1|CoreV1)(?=[A-Z])", "", name)


def spell(owner: str, field: str, type_: str, required: bool) -> str:
    """One field in the notation of the docstring."""
    here = f"{owner}.{field}"
    if match := re.fullmatch(r"List\[(.*)\]", type_):
        inner = match[1]
        text = f"[{SCALARS.get(inner) or ('bytes' if inner == 'bytes' else short(inner))}]{LISTS.get(here, '')}"
    elif match := re.fullmatch(r"Dict\[str, (.*)\]", type_):
        inner = match[1]
        if inner == "List[str]":
            item = "[string]"
        elif here in QUANTITIES:
            item = "quantity"
        else:
            item = SCALARS.get(inner) or ("bytes" if inner == "bytes" else short(inner))
        text = "{" + item + "}" + ("~" if here in ATOMIC_MAPS else "")
    elif here in QUANTITIES:
        text = "quantity"
    elif here in INT_OR_STRING:
        text = "intstr"
    elif type_ in SCALARS:
        text = SCALARS[type_]
    elif type_ == "bytes":
        text = "bytes"
    else:
        return short(type_) + ("!" if here in VALUE or field == "metadata" else "*")
    if here in POINTER:
        text += "*"
    if here in EVER or (required and here not in NOT_ALWAYS):
        text += "!"
    return text


def main() -> None:
    """Prints the table."""
    types: dict[str, Any] = {}
    todo = list(ROOTS)
    while todo:
        name = todo.pop()
        own = short(name)
        if own in types:
            continue
        model = getattr(models, name)
        required = {
            field.serialization_alias or key for key, field in model.model_fields.items() if field.is_required()
        }
        fields = {}
        for python_name, type_ in model.openapi_types.items():
            if "alpha" in type_:
                continue
            field = model.attribute_map[python_name]
            fields[field] = spell(own, field, type_, field in required)
            todo.extend(word for word in re.findall(r"[A-Z]\w+", type_) if hasattr(models, word))
        types[own] = {"atomic": True, "fields": fields} if own in ATOMIC else {"fields": fields}
    json.dump(dict(sorted(types.items())), sys.stdout, indent=0, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
