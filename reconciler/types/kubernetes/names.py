"""Words of Kubernetes that several models share.

Sources: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and .../labels/.
"""

from __future__ import annotations

from typing import Annotated, Final

from reconciler.fields import Rule

ApiVersion = Annotated[
    str,
    Rule(
        r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?v[0-9]+(?:(?:alpha|beta)[0-9]+)?",
        "the apiVersion, such as v1 or apps/v1",
    ),
]
KindName = Annotated[str, Rule(r"[A-Z][A-Za-z0-9]{0,62}", "the kind of the object, such as Deployment")]
Namespace = Annotated[
    str,
    Rule(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", "a namespace: up to 63 lower-case letters, digits and dashes"),
]
NoNamespace = Annotated[
    str,
    Rule(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)?", "a namespace: up to 63 lower-case letters, digits and dashes"),
]
"""A namespace, or nothing for what stands in none."""
ObjectName = Annotated[
    str,
    Rule(
        r"[a-z0-9A-Z](?:[a-zA-Z0-9:._-]{0,251}[a-zA-Z0-9])?",
        "the name of the object: letters, digits, dots and dashes",
    ),
]
DnsLabel = Annotated[
    str, Rule(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", "a name of up to 63 lower-case letters, digits and dashes")
]
FieldPath = Annotated[str, Rule(r"[^\s\u0000-\u001f\u007f]{1,500}", "the path of a field, such as spec.replicas")]

MANAGER: Final = "reconciler"
"""Our field manager."""
LABEL: Final = "reconciler/managed"
"""Objects that we made carry this label; without it nothing is pruned."""
KEEP: Final = "reconciler/keep"
"""An annotation: `"true"` keeps an object from being pruned."""
CLUSTER_SCOPED: Final = frozenset(
    (
        "APIService",
        "CertificateSigningRequest",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "Project",
        "RuntimeClass",
        "SecurityContextConstraints",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
        "VolumeSnapshotClass",
    )
)
"""Well-known kinds that stand in no namespace. What a cluster says of other kinds counts when they are read."""
