"""ContainerPod to Kubernetes YAML and back: the part of it that `podman kube play` reads as well.

Export says what it leaves out, and so does import: nothing is lost silently. A secret never travels: Kubernetes gets a
reference to a Secret, whose key is named like it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from reconciler.fields import seconds
from reconciler.tools.podman.pod import Container, HealthCheck, Mount, Pod
from reconciler.tools.podman.words import object_name

UPDATE: Final = "io.containers.autoupdate"
"""Podman's annotation; followed by /CONTAINER."""
_POLICIES: Final = {"always": "Always", "on-failure": "OnFailure"}
_SHORT_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


@dataclass
class Translation:
    """What became of a document, and what has no place in the other language.

    Attributes:
        documents: what was made, as plain mappings.
        left_out: sentences.
    """

    documents: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


# ---------------------------------------------------------------------------------------------- export


def exported(document: str, pod: Pod) -> Translation:
    """A pod as Kubernetes sees it: a Pod, and a claim for each volume.

    Args:
        document: the name of the ContainerPod.
    """
    out = Translation()
    volumes: dict[str, dict[str, Any]] = {}
    containers = [_exported(document, one, volumes, out) for one in pod.containers]
    spec: dict[str, Any] = {"containers": containers}
    policies = {one.restart for one in pod.containers}
    spec["restartPolicy"] = _POLICIES["always" if "always" in policies else "on-failure"]
    if len(policies) > 1:
        out.left_out.append("restart differs between containers; a Kubernetes pod has one policy, here Always.")
    if pod.host_network:
        spec["hostNetwork"] = True
    if volumes:
        spec["volumes"] = [{"name": name, **source} for name, source in volumes.items()]
    if pod.networks:
        out.left_out.append("networks: a Kubernetes pod joins that of its cluster.")
    if not pod.shared:
        out.left_out.append("shared: false; the containers of a Kubernetes pod share its network.")
    updates = {f"{UPDATE}/{one.name}": one.auto_update for one in pod.containers if one.auto_update}
    metadata: dict[str, Any] = {"name": document, "labels": {"app": document}}
    if updates:
        metadata["annotations"] = updates
    out.documents = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": object_name(document, volume.name)},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        for volume in pod.volumes
    ]
    if pod.volumes:
        out.left_out.append("the size of volumes: Podman's have none; the claims ask for 1Gi.")
    out.documents.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return out


def _exported(document: str, one: Container, volumes: dict[str, dict[str, Any]], out: Translation) -> dict[str, Any]:
    container: dict[str, Any] = {"name": one.name, "image": one.image}
    if one.command:
        container["command"] = list(one.command)
    if one.args:
        container["args"] = list(one.args)
    if one.working_dir:
        container["workingDir"] = one.working_dir
    variables: list[dict[str, Any]] = [{"name": n, "value": v} for n, v in sorted(one.environment.items())]
    mounts: list[dict[str, Any]] = []
    for secret in one.secrets:
        name = object_name(document, secret.name) if secret.value is not None else secret.name
        if secret.env is not None:
            source = {"secretKeyRef": {"name": name, "key": secret.name}}
            variables.append({"name": secret.env, "valueFrom": source})
        else:
            path = secret.path or f"/run/secrets/{secret.name}"
            volumes.setdefault(name, {"secret": {"secretName": name}})
            mounts.append({"name": name, "mountPath": path, "subPath": secret.name, "readOnly": True})
            if secret.mode:
                out.left_out.append(f"{one.name}: the mode of the secret {secret.name}.")
    if variables:
        container["env"] = variables
    mounts += [_exported_mount(document, one, mount, volumes, out) for mount in one.mounts]
    if mounts:
        container["volumeMounts"] = mounts
    if one.ports:
        container["ports"] = [
            {
                "containerPort": port.container,
                "hostPort": port.host or port.container,
                "protocol": port.protocol.upper(),
            }
            | ({"hostIP": port.address.strip("[]")} if port.address else {})
            for port in one.ports
        ]
    if one.health_check is not None:
        container["livenessProbe"] = _exported_check(one, one.health_check, out)
    rights = _exported_rights(one)
    if rights:
        container["securityContext"] = rights
    limits = {}
    if one.resources.memory:
        limits["memory"] = f"{one.resources.memory}i"
    if one.resources.cpus:
        limits["cpu"] = one.resources.cpus
    if limits:
        container["resources"] = {"limits": limits}
    container["imagePullPolicy"] = "IfNotPresent" if one.pull == "missing" else "Never"
    for name, given in (
        ("archive", one.archive),
        ("stopTimeout", one.stop_timeout),
        ("resources.processes", one.resources.processes),
    ):
        if given is not None:
            out.left_out.append(f"{one.name}: {name}, which a container in Kubernetes does not have.")
    return container


def _exported_mount(
    document: str, one: Container, mount: Mount, volumes: dict[str, dict[str, Any]], out: Translation
) -> dict[str, Any]:
    if mount.volume is not None:
        name, source = mount.volume, {"persistentVolumeClaim": {"claimName": object_name(document, mount.volume)}}
    elif mount.host_path is not None:
        name, source = f"{one.name}{_named(mount.host_path)}", {"hostPath": {"path": mount.host_path}}
    else:
        size = {"sizeLimit": f"{mount.memory}i"} if mount.memory else {}
        name, source = f"{one.name}{_named(mount.path)}", {"emptyDir": {"medium": "Memory", **size}}
    volumes.setdefault(name, source)
    if mount.relabel:
        out.left_out.append(f"{one.name}: relabel of {mount.path}.")
    return {"name": name, "mountPath": mount.path} | ({"readOnly": True} if mount.read_only else {})


def _named(path: str) -> str:
    """A path as a part of a name: `/srv/My data` -> `-srv-my-data`."""
    return re.sub(r"[^a-z0-9]+", "-", path.lower()).rstrip("-")


def _exported_check(one: Container, check: HealthCheck, out: Translation) -> dict[str, Any]:
    probe: dict[str, Any] = {"exec": {"command": list(check.command)}, "periodSeconds": seconds(check.interval)}
    probe["timeoutSeconds"] = seconds(check.timeout) if check.timeout else 30
    probe["failureThreshold"] = check.retries or 3
    if check.start_period:
        probe["initialDelaySeconds"] = seconds(check.start_period)
    if check.on_failure not in (None, "kill", "restart"):
        out.left_out.append(f"{one.name}: healthCheck.onFailure; Kubernetes restarts what is unhealthy.")
    return probe


def _exported_rights(one: Container) -> dict[str, Any]:
    rights: dict[str, Any] = {}
    if one.run_as_user is not None:
        rights["runAsUser"] = one.run_as_user
    if one.run_as_group is not None:
        rights["runAsGroup"] = one.run_as_group
    if one.read_only:
        rights["readOnlyRootFilesystem"] = True
    if one.no_new_privileges:
        rights["allowPrivilegeEscalation"] = False
    changed = {"add": list(one.add_capabilities), "drop": list(one.drop_capabilities)}
    given = {name: names for name, names in changed.items() if names}
    return rights | ({"capabilities": given} if given else {})


# ---------------------------------------------------------------------------------------------- import


def imported(documents: Sequence[Any], hosts: Sequence[str], secrets: str | None = None) -> Translation:
    """ContainerPods of Kubernetes documents: of each Pod, and of each Deployment with one replica.

    Args:
        documents: the plain content of a YAML file.
        hosts: names of the hosts that shall run them.
        secrets: where references to their secrets begin; by default the name of each pod.

    Raises:
        ValueError: there is no pod in it, or one that makes no sense; the text says why.
    """
    out = Translation()
    for document in documents:
        if not isinstance(document, Mapping):
            raise ValueError("a document is no mapping")
        kind, metadata = document.get("kind"), document.get("metadata") or {}
        name = str(metadata.get("name", ""))
        match kind:
            case "Pod":
                spec, about = document.get("spec") or {}, metadata
            case "Deployment":
                outer = document.get("spec") or {}
                template = outer.get("template") or {}
                spec, about = template.get("spec") or {}, template.get("metadata") or {}
                if outer.get("replicas", 1) != 1:
                    out.left_out.append(f"Deployment/{name}: replicas; each host runs one.")
            case "PersistentVolumeClaim":
                continue
            case _:
                out.left_out.append(f"{kind}/{name}: ContainerPod has nothing like it.")
                continue
        out.documents.append(_Import(name, spec, about, secrets or name, out).document(hosts))
    if not out.documents:
        raise ValueError("there is neither a Pod nor a Deployment in it")
    return out


class _Import:
    """The import of one pod. Takes what it knows out of copies; what is left over has no place."""

    def __init__(
        self, name: str, spec: Mapping[str, Any], metadata: Mapping[str, Any], secrets: str, out: Translation
    ) -> None:
        self._name, self._spec, self._out, self._secrets = name, dict(spec), out, secrets
        self._annotations = dict(metadata.get("annotations") or {})
        self._volumes = {v["name"]: {k: s for k, s in v.items() if k != "name"} for v in self._spec.pop("volumes", [])}
        self._claims: dict[str, None] = {}

    def document(self, hosts: Sequence[str]) -> dict[str, Any]:
        """The ContainerPod."""
        policy = self._spec.pop("restartPolicy", "Always")
        restart = {"Always": "always", "OnFailure": "on-failure"}.get(policy)
        if restart is None:
            self._lost(f"restartPolicy {policy}; systemd starts it again")
        containers = [self._container(dict(c), restart or "always") for c in self._spec.pop("containers", [])]
        spec: dict[str, Any] = {"hosts": list(hosts)}
        if self._spec.pop("hostNetwork", False):
            spec["hostNetwork"] = True
        if self._claims:
            spec["volumes"] = [{"name": name} for name in self._claims]
        self._rest(self._spec, "", ignore={"enableServiceLinks", "automountServiceAccountToken"})
        spec["containers"] = containers
        return {
            "apiVersion": "reconciler/v1",
            "kind": "ContainerPod",
            "metadata": {"name": self._name},
            "spec": spec,
        }

    def _lost(self, what: str) -> None:
        self._out.left_out.append(f"Pod/{self._name}: {what}.")

    def _rest(self, given: Mapping[str, Any], where: str, ignore: set[str] | frozenset[str] = frozenset()) -> None:
        """Name what nobody took."""
        for key, value in given.items():
            if key not in ignore and value not in (None, {}, [], ""):
                self._lost(f"{where}{key}, {json.dumps(value, default=str)[:60]}")

    def _own(self, name: str) -> str:
        """A name of Podman without that of the document, if it has it in front."""
        return name.removeprefix(f"{self._name}-")

    def _container(self, given: dict[str, Any], restart: str) -> dict[str, Any]:
        name = given.pop("name")
        where = f"{name}: "
        out: dict[str, Any] = {"name": name, "image": given.pop("image")}
        update = self._annotations.get(f"{UPDATE}/{name}") or self._annotations.get(UPDATE)
        if update in ("registry", "local"):
            out["autoUpdate"] = update
        for key in ("command", "args"):
            if words := given.pop(key, None):
                out[key] = list(words)
        if folder := given.pop("workingDir", None):
            out["workingDir"] = folder
        environment, secrets = self._variables(given.pop("env", None) or (), where)
        mounts, files = self._mounts(given.pop("volumeMounts", None) or (), where)
        ports = list(self._ports(given.pop("ports", None) or (), where))
        for key, value in (("environment", environment), ("secrets", secrets + files), ("mounts", mounts)):
            if value:
                out[key] = value
        if ports:
            out["ports"] = ports
        if probe := given.pop("livenessProbe", None):
            check = self._check(dict(probe), where)
            out |= {"healthCheck": check} if check else {}
        out |= self._rights(dict(given.pop("securityContext", None) or {}), where)
        limits = dict((given.pop("resources", None) or {}).get("limits") or {})
        resources = self._resources(limits, where)
        out |= {"resources": resources} if resources else {}
        if given.pop("imagePullPolicy", None) == "Never":
            out["pull"] = "never"
        if restart != "always":
            out["restart"] = restart
        self._rest(given, where, ignore={"terminationMessagePath", "terminationMessagePolicy", "tty", "stdin"})
        return out

    def _variables(self, given: Sequence[Any], where: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
        environment: dict[str, str] = {}
        secrets = []
        for one in given:
            reference = (one.get("valueFrom") or {}).get("secretKeyRef")
            if reference:
                secrets.append({**self._secret(reference["name"], reference["key"]), "env": one["name"]})
            elif "valueFrom" in one:
                self._lost(f"{where}the variable {one['name']}, which comes from elsewhere")
            else:
                environment[one["name"]] = str(one.get("value", ""))
        return environment, secrets

    def _secret(self, name: str, key: str) -> dict[str, Any]:
        own = self._own(name)
        short = own if own == key or not _SHORT_NAME.fullmatch(key) else key if own == name else own
        return {
            "name": short,
            "value": {"secretRef": f"{self._secrets}/{own}" if own == key else f"{self._secrets}/{own}.{key}"},
        }

    def _mounts(self, given: Sequence[Any], where: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        mounts, secrets = [], []
        for one in given:
            source = self._volumes.get(one["name"], {})
            mount: dict[str, Any] = {"path": one["mountPath"]}
            if claim := source.get("persistentVolumeClaim"):
                name = self._own(claim["claimName"])
                self._claims.setdefault(name)
                mount["volume"] = name
            elif path := source.get("hostPath"):
                mount["hostPath"] = path["path"]
            elif "emptyDir" in source:
                size = str((source["emptyDir"] or {}).get("sizeLimit") or "64Mi")
                mount["memory"] = size.removesuffix("i")
                if (source["emptyDir"] or {}).get("medium") != "Memory":
                    self._lost(f"{where}the place of {one['mountPath']}, which is in memory here")
            elif (secret := source.get("secret")) and one.get("subPath"):
                secrets.append({**self._secret(secret["secretName"], one["subPath"]), "path": one["mountPath"]})
                continue
            else:
                self._lost(f"{where}what {one['mountPath']} shows")
                continue
            if one.get("readOnly"):
                mount["readOnly"] = True
            mounts.append(mount)
        return mounts, secrets

    def _ports(self, given: Sequence[Any], where: str) -> Iterator[dict[str, Any]]:
        for one in given:
            if not one.get("hostPort"):
                self._lost(f"{where}the port {one.get('containerPort')}, which no port of the host leads to")
                continue
            port = {"container": one["containerPort"]}
            if one["hostPort"] != one["containerPort"]:
                port["host"] = one["hostPort"]
            if address := one.get("hostIP"):
                port["address"] = f"[{address}]" if ":" in address else address
            if str(one.get("protocol", "TCP")).lower() != "tcp":
                port["protocol"] = str(one["protocol"]).lower()
            yield port

    def _check(self, probe: dict[str, Any], where: str) -> dict[str, Any] | None:
        command = (probe.pop("exec", None) or {}).get("command")
        if not command:
            self._lost(f"{where}a livenessProbe that runs no program in the container")
            return None
        check: dict[str, Any] = {"command": list(command), "interval": f"{probe.pop('periodSeconds', 10)}s"}
        check["timeout"] = f"{probe.pop('timeoutSeconds', 1)}s"
        check["retries"] = probe.pop("failureThreshold", 3)
        if delay := probe.pop("initialDelaySeconds", 0):
            check["startPeriod"] = f"{delay}s"
        check["onFailure"] = "kill"
        self._rest(probe, f"{where}livenessProbe.", ignore={"successThreshold"})
        return check

    def _rights(self, given: dict[str, Any], where: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key in ("runAsUser", "runAsGroup"):
            if (number := given.pop(key, None)) is not None:
                out[key] = number
        if given.pop("readOnlyRootFilesystem", False):
            out["readOnly"] = True
        if given.pop("allowPrivilegeEscalation", True) is False:
            out["noNewPrivileges"] = True
        changed = given.pop("capabilities", None) or {}
        for key, ours in (("add", "addCapabilities"), ("drop", "dropCapabilities")):
            if names := changed.get(key):
                out[ours] = [str(name).removeprefix("CAP_") for name in names]
        self._rest({k: v for k, v in given.items() if v is not False}, f"{where}securityContext.")
        return out

    def _resources(self, limits: dict[str, Any], where: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        memory = str(limits.pop("memory", ""))
        if re.fullmatch(r"[1-9][0-9]{0,8}[KMG]i", memory):
            out["memory"] = memory[:-1]
        elif memory:
            self._lost(f"{where}resources.limits.memory {memory}; write it as 512Mi")
        cpu = str(limits.pop("cpu", ""))
        if re.fullmatch(r"[0-9]+m", cpu):
            out["cpus"] = f"{int(cpu[:-1]) / 1000:g}"
        elif cpu:
            out["cpus"] = cpu
        self._rest(limits, f"{where}resources.limits.")
        return out
