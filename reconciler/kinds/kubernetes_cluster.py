"""KubernetesCluster: a Kubernetes or OpenShift cluster, by its API."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Annotated, Any, Final

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Line, LocalPath, Rule
from reconciler.model import Document, Kind, Resource, Secret, Spec, Target, dump

ServerUrl = Annotated[
    str,
    Rule(
        r"https?://[A-Za-z0-9._\[\]:-]+(?:/[A-Za-z0-9._/-]*)?",
        "the address of the API, such as https://api.example.org:6443",
        300,
    ),
]
_LOOPBACK: Final = re.compile(r"http://(?:127\.0\.0\.1|\[::1\])(?::[0-9]+)?(?:/|$)")


class KubernetesClusterSpec(Spec):
    """A Kubernetes or OpenShift cluster that other documents put objects on.

    Name a kubeconfig and a context of it, or the address with a token, or `inCluster: true` where reconciler runs in a
    Pod of the cluster. Logins by exec plugins and client certificates work as in kubectl. That a cluster is OpenShift
    is seen by itself. What rights plan and apply need is in docs/kubernetes.md.

    Example:

        apiVersion: reconciler/v1
        kind: KubernetesCluster
        metadata:
          name: prod
        spec:
          kubeconfig: ~/.kube/config
          context: prod
    """

    kubeconfig: LocalPath | None = Field(
        None, description="A kubeconfig, relative to the document. Without any way in, `$KUBECONFIG` or ~/.kube/config."
    )
    context: Line | None = Field(None, min_length=1, description="Its context; the current one by default.")
    in_cluster: bool = Field(False, description="Use the service account of the Pod that reconciler runs in.")
    server: ServerUrl | None = Field(None, description="The address of the API; `token` goes with it.")
    token: Secret | None = Field(None, description="A bearer token, such as that of a service account.")
    ca: LocalPath | None = Field(None, description="Trust what this CA signed: a PEM file, relative to the document.")


def expand(document: Document[Any], catalog: Catalog) -> Iterable[Resource[Any]]:
    """A cluster is a target; it means no objects by itself."""
    return ()


def check(document: Document[KubernetesClusterSpec], catalog: Catalog) -> Iterable[Problem]:
    """One way in."""
    spec = document.spec
    ways = {"kubeconfig": spec.kubeconfig or spec.context, "inCluster": spec.in_cluster, "server": spec.server}
    named = [name for name, value in ways.items() if value]
    if len(named) > 1:
        message = f"has several ways in: {' and '.join(named)}."
        yield catalog.problem(document, ("spec", named[-1]), message, "Keep one.")
    if spec.server is not None and spec.token is None:
        message, fix = "has no way to log in.", "Add `token: {secretRef: ...}`, or use a kubeconfig."
        yield catalog.problem(document, ("spec", "server"), message, fix)
    if spec.server is None and (spec.token is not None or spec.ca is not None):
        name = "token" if spec.token is not None else "ca"
        message, fix = f"{name} goes with `server:`.", "A kubeconfig names its own."
        yield catalog.problem(document, ("spec", name), message, fix)
    if spec.server is not None and spec.server.startswith("http:") and not _LOOPBACK.match(spec.server):
        message, fix = "would send the token in the clear.", "Write https://."
        yield catalog.problem(document, ("spec", "server"), message, fix)


def target(document: Document[KubernetesClusterSpec]) -> Target:
    """How to reach the cluster; paths are made relative to the document."""
    found = dump(document.spec)
    for name in ("kubeconfig", "ca"):
        if name in found and not str(found[name]).startswith("~"):
            found[name] = str(PurePath(document.position.file).parent / found[name])
    return Target(document.name, "kubernetes", found, document.metadata.labels)


KIND = Kind("KubernetesCluster", KubernetesClusterSpec, expand, check, target)
