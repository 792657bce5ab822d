"""OpenShift's router: it admits Routes, and refuses a host that an older Route of another namespace has.

Source: https://docs.redhat.com/en/documentation/openshift_container_platform (Route status). Never compared with a
recording: the recorded cluster had no router.
"""

from __future__ import annotations

import copy

from reconciler.lab.kubernetes.controllers import Cluster
from reconciler.lab.kubernetes.schema import Object

MANAGER = "openshift-router"
ROUTER = "default"


def _host(route: Object, domain: str) -> str:
    spec = route["spec"]
    return spec.get("host") or f"{spec.get('subdomain', route['metadata']['name'])}.{domain}"


def router(cluster: Cluster) -> float | None:
    """Writes `status.ingress` of every Route."""
    resource = cluster.resource("route.openshift.io", "routes")
    domain = cluster.writes.ingress_domain
    routes = cluster.store.view(resource.place)
    routes.sort(key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["uid"]))
    taken: dict[str, Object] = {}
    for old in routes:
        host = _host(old, domain)
        first = taken.setdefault(host, old)
        condition = {"type": "Admitted", "status": "True"}
        if first["metadata"]["namespace"] != old["metadata"]["namespace"]:
            condition = {
                "type": "Admitted",
                "status": "False",
                "reason": "HostAlreadyClaimed",
                "message": f"route {first['metadata']['name']} already exposes {host} and is older",
            }
        _admit(cluster, old, host, condition)
    return None


def _admit(cluster: Cluster, old: Object, host: str, condition: dict[str, str]) -> None:
    ingress = list((old.get("status") or {}).get("ingress") or [])
    mine = next((one for one in ingress if one.get("routerName") == ROUTER), None)
    before = (mine.get("conditions") or [{}])[0] if mine else {}
    at = before.get("lastTransitionTime")
    if mine is None or before.get("status") != condition["status"] or at is None:
        at = cluster.writes.now()
    entry = {
        "host": host,
        "routerName": ROUTER,
        "conditions": [{**condition, "lastTransitionTime": at}],
        "wildcardPolicy": old["spec"].get("wildcardPolicy", "None"),
        "routerCanonicalHostname": f"router-default.{cluster.writes.ingress_domain}",
    }
    if mine == entry:
        return
    new = copy.deepcopy(old)
    new["status"] = {"ingress": [*(one for one in ingress if one.get("routerName") != ROUTER), entry]}
    resource = cluster.resource("route.openshift.io", "routes")
    cluster.writes.controller_update(resource, old, new, MANAGER, "status")
