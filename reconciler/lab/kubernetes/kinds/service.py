"""Service: defaults, what belongs to a type, validation. Addresses and node ports are allocated by `Allocator`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

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

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
NODE_PORTS = range(30000, 32768)
_PORT_TEXT = "must be between 1 and 65535, inclusive"


def _has_node_ports(spec: Object) -> bool:
    return spec.get("type") == "NodePort" or (
        spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
    )


def _defaults(value: Object) -> None:
    spec = value["spec"]
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {}).setdefault("timeoutSeconds", 10800)
    kind = spec.setdefault("type", "ClusterIP")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port["port"]
    if kind in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind in ("NodePort", "LoadBalancer", "ClusterIP"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)


def _families(spec: Object) -> None:
    if spec.get("type") != "ExternalName":
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("ipFamilies", ["IPv4"])


def _create(value: Object) -> None:
    spec = value["spec"]
    value["status"] = {"loadBalancer": {}}
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    _families(spec)


def _update(new: Object, old: Object) -> None:
    """Clears what another type does not have, and takes over what was allocated before."""
    spec, before = new["spec"], old["spec"]
    new["status"] = old["status"]
    if spec.get("clusterIP") != before.get("clusterIP") and spec.get("clusterIPs") == before.get("clusterIPs"):
        if not spec.get("clusterIP"):
            spec.pop("clusterIPs", None)
        else:
            spec["clusterIPs"] = [spec["clusterIP"]]
    addressed, was_addressed = spec.get("type") != "ExternalName", before.get("type") != "ExternalName"
    if addressed and was_addressed:
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
        if not spec.get("clusterIPs") and spec.get("clusterIP") == before.get("clusterIP"):
            spec["clusterIPs"] = list(before.get("clusterIPs") or [])
    elif was_addressed:
        for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            if spec.get(key) == before.get(key):
                spec.pop(key, None)
    _node_port_update(spec, before)
    kinds = ("NodePort", "LoadBalancer")
    kept = spec.get("externalTrafficPolicy") == before.get("externalTrafficPolicy")
    if kept and spec.get("type") not in kinds and before.get("type") in kinds:
        spec.pop("externalTrafficPolicy", None)
    if spec.get("type") != "LoadBalancer" and before.get("type") == "LoadBalancer":
        spec.pop("allocateLoadBalancerNodePorts", None)
    _families(spec)


def _node_port_update(spec: Object, before: Object) -> None:
    ports, old_ports = spec.get("ports") or [], before.get("ports") or []
    if not _has_node_ports(before):
        return
    if _has_node_ports(spec):
        numbers = {port.get("nodePort") for port in ports} & {port.get("nodePort") for port in old_ports}
        known = {port.get("name", ""): port.get("nodePort") for port in old_ports}
        for port in ports:
            number = known.get(port.get("name", ""))
            if not port.get("nodePort") and number and number not in numbers:
                port["nodePort"] = number
    elif [port.get("nodePort") for port in ports] == [port.get("nodePort") for port in old_ports]:
        for port in ports:
            port.pop("nodePort", None)


def _validate(value: Object) -> list[Problem]:
    spec = value["spec"]
    found: list[Problem] = []
    kind = spec.get("type")
    ports = spec.get("ports") or []
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and kind != "ExternalName":
        found.append(required("spec.ports"))
    if headless and kind in ("NodePort", "LoadBalancer"):
        found.append(invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    names: set[str] = set()
    for index, port in enumerate(ports):
        found += _port(port, f"spec.ports[{index}]", len(ports) > 1, names)
    if spec.get("sessionAffinity") not in ("None", "ClientIP"):
        found.append(unsupported("spec.sessionAffinity", spec.get("sessionAffinity"), ["ClientIP", "None"]))
    if kind not in TYPES:
        found.append(unsupported("spec.type", kind, TYPES))
    if kind == "ExternalName":
        name = (spec.get("externalName") or "").rstrip(".")
        if not name:
            found.append(required("spec.externalName"))
        else:
            found += [invalid("spec.externalName", name, text) for text in metadata.dns_subdomain(name)]
    for index, port in enumerate(ports):
        if port.get("nodePort") and kind in ("ClusterIP", "ExternalName"):
            text = f"may not be used when `type` is '{kind}'"
            found.append(forbidden_field(f"spec.ports[{index}].nodePort", text))
    for index, address in enumerate(spec.get("clusterIPs") or []):
        if address not in ("None", "") and not _is_address(address):
            text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            found.append(invalid(f"spec.clusterIPs[{index}]", address, text))
    return found


def _port(port: Object, at: str, several: bool, names: set[str]) -> list[Problem]:
    found: list[Problem] = []
    name = port.get("name", "")
    if not name:
        if several:
            found.append(required(f"{at}.name"))
    else:
        found += [invalid(f"{at}.name", name, text) for text in metadata.dns_label(name)]
        if name in names:
            found.append(duplicate(f"{at}.name", name))
        names.add(name)
    if not 1 <= port["port"] <= 65535:
        found.append(invalid(f"{at}.port", port["port"], _PORT_TEXT))
    if port.get("protocol") not in ("SCTP", "TCP", "UDP"):
        found.append(unsupported(f"{at}.protocol", port.get("protocol"), ["SCTP", "TCP", "UDP"]))
    target = port.get("targetPort", 0)
    if isinstance(target, int) and not 1 <= target <= 65535:
        found.append(invalid(f"{at}.targetPort", target, _PORT_TEXT))
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _validate_update(new: Object, old: Object) -> list[Problem]:
    found: list[Problem] = []
    before, after = old["spec"].get("clusterIPs") or [], new["spec"].get("clusterIPs") or []
    addressed = "ExternalName" not in (old["spec"].get("type"), new["spec"].get("type"))
    if addressed and before and after and before[0] != after[0]:
        found.append(invalid("spec.clusterIPs[0]", after, "may not change once set"))
    return [*found, *_validate(new)]


SERVICE = Behaviour(
    defaults=_defaults,
    create=_create,
    update=_update,
    validate=_validate,
    validate_update=_validate_update,
    name=metadata.dns_label,
    answers_object=True,
    metadata_checks=2,
)


class Allocator:
    """Gives out cluster IPs and node ports. It reads from the Services that exist what is taken."""

    def __init__(self, addresses: str) -> None:
        self.network = ipaddress.ip_network(addresses)
        self._next_address = 256
        self._next_port = 1000

    def fill(self, service: Object, others: Iterable[Object], dry_run: bool) -> list[Problem]:
        """Fills in what is missing; says what cannot be had. A dry-run checks less, as the server does."""
        spec = service["spec"]
        taken_ips: set[str] = set()
        taken_ports: set[tuple[int, str]] = set()
        for other in others:
            taken_ips.update(other["spec"].get("clusterIPs") or [])
            for port in other["spec"].get("ports") or []:
                if port.get("nodePort"):
                    taken_ports.add((port["nodePort"], port.get("protocol", "TCP")))
        found = self._addresses(spec, taken_ips, dry_run) if spec.get("type") != "ExternalName" else []
        return found or (self._node_ports(spec, taken_ports, dry_run) if _has_node_ports(spec) else [])

    def _addresses(self, spec: Object, taken: set[str], dry_run: bool) -> list[Problem]:
        given = spec.get("clusterIPs") or []
        if not given:
            if dry_run:
                address = str(self.network[1])
            else:
                while (address := str(self.network[self._next_address])) in taken:
                    self._next_address += 1
                self._next_address += 1
            spec["clusterIP"], spec["clusterIPs"] = address, [address]
            return []
        if given[0] == "None" or dry_run:
            return []
        if given[0] in taken:
            why = "provided IP is already allocated"
        elif ipaddress.ip_address(given[0]) not in self.network:
            why = "the provided network does not match the current range"
        else:
            return []
        return [invalid("spec.clusterIPs", given, f"failed to allocate IP {given[0]}: {why}")]

    def _node_ports(self, spec: Object, taken: set[tuple[int, str]], dry_run: bool) -> list[Problem]:
        found = []
        numbers = {number for number, _ in taken}
        for index, port in enumerate(spec.get("ports") or []):
            at = f"spec.ports[{index}].nodePort"
            number = port.get("nodePort")
            if not number:
                number = NODE_PORTS[0] if dry_run else self._free_port(numbers)
                port["nodePort"] = number
                numbers.add(number)
            elif (number, port.get("protocol", "TCP")) in taken:
                found.append(invalid(at, number, "provided port is already allocated"))
            elif number not in NODE_PORTS and not dry_run:
                text = f"{NODE_PORTS[0]}-{NODE_PORTS[-1]}"
                why = f"provided port is not in the valid range. The range of valid ports is {text}"
                found.append(invalid(at, number, why))
        return found

    def _free_port(self, taken: set[int]) -> int:
        while NODE_PORTS[self._next_port % len(NODE_PORTS)] in taken:
            self._next_port += 1
        self._next_port += 1
        return NODE_PORTS[(self._next_port - 1) % len(NODE_PORTS)]


__all__ = ["SERVICE", "Allocator", "quoted"]
