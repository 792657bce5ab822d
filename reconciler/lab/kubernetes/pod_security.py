"""Pod security admission: the checks of the levels `baseline` and `restricted`, in the server's words.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Callable

from reconciler.lab.kubernetes.kinds.pod import containers
from reconciler.lab.kubernetes.schema import Object

Finding = tuple[str, str]  # what, and which part of the Pod
_BASELINE_CAPABILITIES = {
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
}
_RESTRICTED_VOLUMES = {
    "name",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
LABEL = "pod-security.kubernetes.io/"


def _names(found: list[str], noun: str = "container") -> str:
    return f"{noun}{'s' if len(found) > 1 else ''} " + ", ".join(f'"{name}"' for name in found)


def _security(part: Object) -> Object:
    return part.get("securityContext") or {}


def _containers(spec: Object, holds: Callable[[Object], bool]) -> list[str]:
    return [one["name"] for one in containers(spec) if holds(one)]


def _host_namespaces(spec: Object) -> list[Finding]:
    used = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    return [("host namespaces", ", ".join(used))] if used else []


def _host_path(spec: Object) -> list[Finding]:
    names = [volume["name"] for volume in spec.get("volumes") or [] if "hostPath" in volume]
    return [("hostPath volumes", _names(names, "volume"))] if names else []


def _host_ports(spec: Object) -> list[Finding]:
    def uses(one: Object) -> bool:
        return any(port.get("hostPort") for port in one.get("ports") or [])

    names = _containers(spec, uses)
    ports = sorted({p["hostPort"] for one in containers(spec) for p in one.get("ports") or [] if p.get("hostPort")})
    shown = f"hostPort{'s' if len(ports) > 1 else ''} " + ", ".join(map(str, ports))
    return [("hostPort", f"{_names(names)} uses {shown}")] if names else []


def _privileged(spec: Object) -> list[Finding]:
    names = _containers(spec, lambda one: bool(_security(one).get("privileged")))
    return [("privileged", f"{_names(names)} must not set securityContext.privileged=true")] if names else []


def _capabilities_baseline(spec: Object) -> list[Finding]:
    def extra(one: Object) -> set[str]:
        return set((_security(one).get("capabilities") or {}).get("add") or []) - _BASELINE_CAPABILITIES

    names = _containers(spec, lambda one: bool(extra(one)))
    added = ", ".join(f'"{name}"' for name in sorted(set().union(*(extra(one) for one in containers(spec)))))
    text = f"{_names(names)} must not include {added} in securityContext.capabilities.add"
    return [("non-default capabilities", text)] if names else []


def _escalation(spec: Object) -> list[Finding]:
    names = _containers(spec, lambda one: _security(one).get("allowPrivilegeEscalation") is not False)
    text = f"{_names(names)} must set securityContext.allowPrivilegeEscalation=false"
    return [("allowPrivilegeEscalation != false", text)] if names else []


def _capabilities_restricted(spec: Object) -> list[Finding]:
    def lists(one: Object, key: str) -> list[str]:
        return (_security(one).get("capabilities") or {}).get(key) or []

    undropped = _containers(spec, lambda one: "ALL" not in lists(one, "drop"))
    adding = _containers(spec, lambda one: bool(set(lists(one, "add")) - {"NET_BIND_SERVICE"}))
    parts = []
    if undropped:
        parts.append(f'{_names(undropped)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        every = set().union(*(lists(one, "add") for one in containers(spec))) - {"NET_BIND_SERVICE"}
        added = ", ".join(f'"{name}"' for name in sorted(every))
        parts.append(f"{_names(adding)} must not include {added} in securityContext.capabilities.add")
    return [("unrestricted capabilities", "; ".join(parts))] if parts else []


def _volumes(spec: Object) -> list[Finding]:
    found = []
    for volume in spec.get("volumes") or []:
        kinds = [key for key in volume if key not in _RESTRICTED_VOLUMES]
        if kinds:
            found.append(f'volume "{volume["name"]}" uses restricted volume type "{kinds[0]}"')
    return [("restricted volume types", ", ".join(found))] if found else []


def _non_root(spec: Object) -> list[Finding]:
    pod = _security(spec).get("runAsNonRoot")
    explicit = _containers(spec, lambda one: _security(one).get("runAsNonRoot") is False)
    missing = _containers(spec, lambda one: _security(one).get("runAsNonRoot") is None)
    if explicit:
        text = f"{_names(explicit)} must not set securityContext.runAsNonRoot=false"
        return [("runAsNonRoot != true", text)]
    if pod is False and missing:
        return [("runAsNonRoot != true", "pod must not set securityContext.runAsNonRoot=false")]
    if pod is None and missing:
        text = f"pod or {_names(missing)} must set securityContext.runAsNonRoot=true"
        return [("runAsNonRoot != true", text)]
    return []


def _user(spec: Object) -> list[Finding]:
    parts = ["pod must not set runAsUser=0"] if _security(spec).get("runAsUser") == 0 else []
    if names := _containers(spec, lambda one: _security(one).get("runAsUser") == 0):
        parts.append(f"{_names(names)} must not set runAsUser=0")
    return [("runAsUser=0", " and ".join(parts))] if parts else []


_SECCOMP = ("RuntimeDefault", "Localhost")


def _seccomp(spec: Object) -> list[Finding]:
    def kind(part: Object) -> str | None:
        found: str | None = (_security(part).get("seccompProfile") or {}).get("type")
        return found

    pod = kind(spec)
    wrong = _containers(spec, lambda one: kind(one) not in (None, *_SECCOMP))
    parts = []
    if pod not in (None, *_SECCOMP):
        parts.append(f'pod must not set securityContext.seccompProfile.type to "{pod}"')
    if wrong:
        parts.append(f'{_names(wrong)} must not set securityContext.seccompProfile.type to "Unconfined"')
    missing = _containers(spec, lambda one: kind(one) is None)
    if not parts and pod is None and missing:
        wanted = '"RuntimeDefault" or "Localhost"'
        parts.append(f"pod or {_names(missing)} must set securityContext.seccompProfile.type to {wanted}")
    return [("seccompProfile", " and ".join(parts))] if parts else []


def violations(level: str, spec: Object) -> list[Finding]:
    """What a Pod's spec does that a level does not allow."""
    if level == "privileged":
        return []
    found = []
    if level == "baseline":
        found += _capabilities_baseline(spec)
    found += _host_namespaces(spec)
    if level == "baseline":
        found += _host_path(spec)
    found += _host_ports(spec) + _privileged(spec)
    if level == "restricted":
        for check in (_escalation, _capabilities_restricted, _volumes, _non_root, _user, _seccomp):
            found += check(spec)
    return found


def text(found: list[Finding]) -> str:
    """Findings in one line."""
    return ", ".join(f"{what} ({where})" for what, where in found)


def level_of(namespace: Object | None, mode: str, default: str) -> tuple[str, str]:
    """The level and its version for a mode (`enforce`, `warn`) of a namespace."""
    labels = ((namespace or {}).get("metadata") or {}).get("labels") or {}
    return labels.get(LABEL + mode, default), labels.get(f"{LABEL}{mode}-version", "latest")
