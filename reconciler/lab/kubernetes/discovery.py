"""What a client learns first: versions, groups, resources; plain and aggregated.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.lab.kubernetes.resources import Resource, Subresource
from reconciler.lab.kubernetes.schema import Object

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "go1.26",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def api_versions(address: str) -> Object:
    """`/api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_names(resources: Iterable[Resource]) -> list[str]:
    """The named groups in their order."""
    return list(dict.fromkeys(one.group for one in resources if one.group))


def group(resources: Iterable[Resource], name: str) -> Object | None:
    """`/apis/GROUP`, without kind and apiVersion; None for an unknown group."""
    versions = list(dict.fromkeys(one.version for one in resources if one.group == name))
    if not versions:
        return None
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def groups(resources: list[Resource]) -> Object:
    """`/apis`."""
    found = [group(resources, name) for name in group_names(resources)]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def resource_list(resources: list[Resource], group_name: str, version: str) -> Object | None:
    """`/api/v1` or `/apis/GROUP/VERSION`; None where nothing is served."""
    served = [one for one in resources if (one.group, one.version) == (group_name, version)]
    if not served:
        return None
    entries: list[Object] = []
    for one in served:
        entries.append(_entry(one))
        entries += [_part(one, part) for part in one.subresources]
    start: Object = {"kind": "APIResourceList"}
    if group_name:
        start["apiVersion"] = "v1"
    return {**start, "groupVersion": served[0].api_version, "resources": entries}


def _entry(one: Resource) -> Object:
    entry: Object = {
        "name": one.plural,
        "singularName": one.singular,
        "namespaced": one.namespaced,
        "kind": one.kind,
        "verbs": list(one.verbs),
    }
    if one.short_names:
        entry["shortNames"] = list(one.short_names)
    if one.categories:
        entry["categories"] = list(one.categories)
    if one.stored:
        entry["storageVersionHash"] = one.storage_hash
    return entry


def _part(one: Resource, part: Subresource) -> Object:
    entry: Object = {"name": f"{one.plural}/{part.name}", "singularName": "", "namespaced": one.namespaced}
    if part.group:
        entry.update(group=part.group, version=part.version)
    return {**entry, "kind": part.kind or one.kind, "verbs": list(part.verbs)}


def aggregated(resources: list[Resource], core: bool) -> Object:
    """Aggregated discovery of the core group, or of all named ones."""
    names = [""] if core else group_names(resources)
    items = []
    for name in names:
        versions: list[Object] = []
        for version in dict.fromkeys(one.version for one in resources if one.group == name):
            served = [_discovered(one) for one in resources if (one.group, one.version) == (name, version)]
            versions.append({"version": version, "resources": served, "freshness": "Current"})
        items.append({"metadata": {"name": name} if name else {}, "versions": versions})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _discovered(one: Resource) -> Object:
    own = {"group": one.group, "version": one.version} if one.custom else {"group": "", "version": ""}
    entry: Object = {
        "resource": one.plural,
        "responseKind": {**own, "kind": one.kind},
        "scope": "Namespaced" if one.namespaced else "Cluster",
        "singularResource": one.singular,
        "verbs": list(one.verbs),
    }
    if one.short_names:
        entry["shortNames"] = list(one.short_names)
    if one.categories:
        entry["categories"] = list(one.categories)
    if one.subresources:
        entry["subresources"] = [
            {
                "subresource": part.name,
                "responseKind": {
                    **({"group": part.group, "version": part.version} if part.group else own),
                    "kind": part.kind or one.kind,
                },
                "verbs": list(part.verbs),
            }
            for part in one.subresources
        ]
    return entry
