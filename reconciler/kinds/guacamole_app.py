"""GuacamoleApp: a desktop program as a web page, by Apache Guacamole on Kubernetes.

Formats: https://guacamole.apache.org/doc/1.6.0/gug/ (user-mapping.xml, guacamole.properties, the container images).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import AbsolutePath, Line, Ref, Rule, Word
from reconciler.model import Composed, Document, Kind, Resource, Secret, Spec
from reconciler.types.kubernetes.names import DnsLabel, Namespace, ObjectName
from reconciler.types.kubernetes.object import TYPE as kubernetes_object

VERSION: Final = "1.6.0"
PORT: Final = 8080
GUACD_PORT: Final = 4822
PORTS: Final = {"vnc": 5900, "rdp": 3389, "ssh": 22, "telnet": 23}
IDS: Final = {"guacamole": 1001, "guacd": 1000}
"""Accounts in the images, which name them only by name: plain Kubernetes wants numbers."""
NODE_PORTS: Final = range(30000, 32768)
SETTINGS: Final = "/etc/guacamole"
_SECRET: Final = re.compile(r"pass(word|phrase|wd)$|private-key$|secret(-key)?$|token$")
"""How properties and parameters end that hold something secret."""

Image = Annotated[
    str,
    Rule(
        r"[a-z0-9][a-z0-9._:/-]*(?:[:@][A-Za-z0-9._:-]+)?",
        "the name of an image with its tag or digest, such as registry.example.org/kate:1.0",
        500,
    ),
]
EnvName = Annotated[str, Rule(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable", 200)]
Property = Annotated[str, Rule(r"[a-z][a-z0-9.-]*", "the name of a property, such as api-session-timeout", 200)]
Parameter = Annotated[str, Rule(r"[a-z][a-z0-9-]*", "the name of a connection parameter, such as color-depth", 100)]
Quantity = Annotated[str, Rule(r"[0-9]+(?:\.[0-9]+)?(?:m|k|M|G|Ki|Mi|Gi)?", 'a quantity, such as "250m" or 512Mi')]
HostName = Annotated[str, Rule(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", "a host name, such as kate.example.org", 253)]
Context = Annotated[str, Rule(r"ROOT|[A-Za-z0-9_-]+", "ROOT, or one word of a path", 100)]


class Resources(Spec):
    """What a container gets: both asked for and at most."""

    cpu: Quantity = Field("250m", description="Processor time; 1000m is one core.")
    memory: Quantity = Field("512Mi", description="Memory.")


class App(Spec):
    """The container of the program."""

    image: Image = Field(description="An image that shows the program on a VNC, RDP or SSH server on loopback.")
    env: dict[EnvName, Line | Secret] = Field(
        default_factory=dict, description="Environment variables; those that are secret as references."
    )
    writable: tuple[AbsolutePath, ...] = Field(
        ("/tmp",),  # noqa: S108 (a path in a container)
        description="Folders that it writes to, each an empty volume that goes with the Pod. The rest is read-only.",
    )
    run_as_user: int | None = Field(
        None, ge=1, le=65533, description="A numeric user, where the image names none. Not on OpenShift."
    )
    resources: Resources = Field(default_factory=Resources, description="Processor time and memory.")


class User(Spec):
    """Somebody who may log in, with file authentication."""

    name: Annotated[str, Rule(r"[^\u0000-\u001f\u007f\u2028\u2029\ufffe\uffff]{1,200}", "a name in one line")] = Field(
        description="The user's name."
    )
    password: Secret = Field(description="The password; its SHA-256 is what goes into the file.")


class Connection(Spec):
    """How Guacamole reaches the program inside the Pod."""

    protocol: Literal["vnc", "rdp", "ssh", "telnet"] = Field("vnc", description="What the program's container speaks.")
    port: int | None = Field(None, ge=1, le=65535, description="Its port on loopback; the protocol's own by default.")
    name: Line | None = Field(None, min_length=1, description="What users see; the document's name by default.")
    parameters: dict[Parameter, Line | Secret] = Field(
        default_factory=dict, description="More parameters of the protocol, such as `password` or `color-depth`."
    )


class Postgresql(Spec):
    """A database that holds users and connections. Its tables come from Guacamole's own scripts."""

    hostname: HostName = Field(description="Where it is.")
    port: int = Field(5432, ge=1, le=65535, description="Its port.")
    database: Word = Field("guacamole", description="The database.")
    username: Word = Field("guacamole", description="The account.")
    password: Secret = Field(description="Its password.")


class Service(Spec):
    """How the Service is reached."""

    type: Literal["ClusterIP", "NodePort"] = Field("ClusterIP", description="Inside the cluster, or at each node too.")
    node_port: int | None = Field(None, description="The port at each node, 30000 to 32767; with `type: NodePort`.")


class Ingress(Spec):
    """An Ingress, with TLS."""

    host: HostName = Field(description="The host name.")
    class_name: DnsLabel | None = Field(None, description="The class of the controller.")
    tls_secret: ObjectName | None = Field(None, description="A Secret with the certificate; without, no TLS here.")


class Route(Spec):
    """An OpenShift Route with TLS at the router; plain HTTP is redirected."""

    host: HostName | None = Field(None, description="The host name; OpenShift makes one up by default.")


class GuacamoleAppSpec(Spec):
    """A desktop program as a web page: Apache Guacamole, its proxy and the program in one Pod.

    The program's container shows the program on loopback, for example by x11vnc; guacd listens on loopback, too, since
    it asks nobody for a password. All containers run without root, without capabilities and on a read-only root file
    system. The Pods are replaced when the properties change; users and connections are read again by themselves.

    With `users` they stand in a file, passwords as SHA-256: enough for a demo, since such digests have no salt. For
    more, keep them in PostgreSQL.

    Example:

        apiVersion: reconciler/v1
        kind: GuacamoleApp
        metadata:
          name: web-based-kate
        spec:
          cluster: prod
          namespace: kate
          app:
            image: registry.example.org/own-app/web-based-kate:1.0.0
            env: {VNC_RESOLUTION_WIDTH: "1280", VNC_RESOLUTION_HEIGHT: "720"}
            writable: [/home/kate, /tmp]
          users:
            - name: admin
              password: {secretRef: env:KATE_PASSWORD}
          service: {type: NodePort, nodePort: 30000}
    """

    cluster: Annotated[str, Ref("KubernetesCluster")] = Field(description="The KubernetesCluster.")
    namespace: Namespace = Field("default", description="Where it stands.")
    app: App = Field(description="The program.")
    connection: Connection = Field(default_factory=Connection, description="How Guacamole reaches it.")
    users: tuple[User, ...] = Field((), description="Who may log in, kept in a file.")
    postgresql: Postgresql | None = Field(None, description="A database of users and connections, in place of `users`.")
    properties: dict[Property, Line | Secret] = Field(
        default_factory=dict,
        description="More properties of Guacamole, such as `api-session-timeout`; those that are secret as references.",
    )
    context: Context = Field("ROOT", description="The path in the address; ROOT is `/`.")
    service: Service = Field(default_factory=Service, description="How it is reached inside the cluster.")
    ingress: Ingress | None = Field(None, description="An Ingress, to reach it from outside.")
    route: Route | None = Field(None, description="A Route of OpenShift, to reach it from outside.")
    platform: Literal["kubernetes", "openshift"] | None = Field(
        None,
        description="OpenShift gives users to containers by itself; plain Kubernetes wants numbers. `openshift` where "
        "there is a `route`.",
    )
    guacamole_image: Image = Field(f"docker.io/guacamole/guacamole:{VERSION}", description="Guacamole itself.")
    guacd_image: Image = Field(f"docker.io/guacamole/guacd:{VERSION}", description="Its proxy.")
    resources: Resources = Field(default_factory=Resources, description="Of Guacamole and of its proxy, each.")


# ------------------------------------------------------------------------------------------------ the files


def user_mapping(spec: GuacamoleAppSpec, name: str) -> Composed:
    """`user-mapping.xml`. Guacamole takes nobody's login while it cannot read this file, so all that comes from
    outside is escaped here, or, where it is a secret, when it is revealed."""
    parts: list[str | Secret] = ["<user-mapping>\n"]
    connection = spec.connection
    port = connection.port or PORTS[connection.protocol]
    parameters: dict[str, str | Secret] = {"hostname": "127.0.0.1", "port": str(port), **connection.parameters}
    for user in spec.users:
        parts += [f'  <authorize username={quoteattr(user.name)} password="']
        parts += [Composed(parts=(user.password,), form="sha256"), '" encoding="sha256">\n']
        parts += [f"    <connection name={quoteattr(connection.name or name)}>\n"]
        parts += [f"      <protocol>{connection.protocol}</protocol>\n"]
        for key, value in parameters.items():
            shown = Composed(parts=(value,), form="xml") if isinstance(value, Secret) else escape(value)
            parts += [f"      <param name={quoteattr(key)}>", shown, "</param>\n"]
        parts += ["    </connection>\n", "  </authorize>\n"]
    return Composed(parts=tuple(_joined([*parts, "</user-mapping>\n"])))


def _joined(parts: Sequence[str | Secret]) -> Iterator[str | Secret]:
    """Neighbouring texts as one."""
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        yield text
        yield part
        text = ""
    yield text


def properties(spec: GuacamoleAppSpec) -> str:
    """`guacamole.properties`, in the format of Java. Those that are secret come by environment variables."""
    lines = {"enable-environment-properties": "true", **spec.properties}
    return "".join(f"{key}: {_java(value)}\n" for key, value in lines.items() if isinstance(value, str))


def secret_properties(spec: GuacamoleAppSpec) -> dict[str, Secret]:
    """Environment variable -> value, for the properties that are secret."""
    return {key.upper().replace("-", "_"): value for key, value in spec.properties.items() if isinstance(value, Secret)}


def _java(value: str) -> str:
    """Backslashes are escaped, and a space at the begin, which would be skipped."""
    text = value.replace("\\", "\\\\")
    text = f"\\{text}" if text.startswith(" ") else text
    return "".join(c if c.isascii() else "".join(f"\\u{u:04x}" for u in _utf16(c)) for c in text)


def _utf16(character: str) -> Iterable[int]:
    raw = character.encode("utf-16-be")
    return (int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2))


# ------------------------------------------------------------------------------------------------ the objects


def expand(document: Document[GuacamoleAppSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """Secret, Deployment, Service, and what makes it reachable from outside."""
    for manifest in manifests(document.spec, document.name):
        yield kubernetes_object(
            document.spec.cluster,
            api_version=manifest["apiVersion"],
            kind=manifest["kind"],
            namespace=document.spec.namespace,
            name=manifest["metadata"]["name"],
            manifest=manifest,
            fixed={},
            client_side=False,
        )


def manifests(spec: GuacamoleAppSpec, name: str) -> Iterator[Mapping[str, Any]]:
    """The objects, as the API has them."""
    labels = {"app": name}
    config: dict[str, Any] = {"guacamole.properties": properties(spec)}
    if spec.users:
        config["user-mapping.xml"] = user_mapping(spec, name)
    if spec.postgresql:
        config["postgresql-password"] = spec.postgresql.password
    config |= secret_properties(spec) | {_app_key(k): v for k, v in spec.app.env.items() if isinstance(v, Secret)}
    secret = f"{name}-guacamole"
    yield {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret, "labels": labels}, "stringData": config}
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            # Two Pods at once would show two programs, and a user would meet either of them.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {"reconciler/properties": _digest(spec)}},
                "spec": _pod(spec, name, secret),
            },
        },
    }
    port: dict[str, Any] = {"name": "http", "protocol": "TCP", "port": PORT, "targetPort": "http"}
    if spec.service.node_port is not None:
        port["nodePort"] = spec.service.node_port
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        "spec": {"type": spec.service.type, "selector": labels, "ports": [port]},
    }
    if spec.ingress:
        yield _ingress(spec.ingress, name, labels, spec.context)
    if spec.route:
        yield _route(spec.route, name, labels)


def _digest(spec: GuacamoleAppSpec) -> Composed | str:
    """Changes with what is read only when a container starts. Everybody who sees the Pod sees it, so it is keyed where
    a secret is among that; else it is the same whoever applies."""
    password: list[str | Secret] = [spec.postgresql.password] if spec.postgresql else []
    environment = [value for _, value in sorted(spec.app.env.items()) if isinstance(value, Secret)]
    kept = [part for one in [*password, *secret_properties(spec).values(), *environment] for part in ("\n", one)]
    if not kept:
        return hashlib.sha256(properties(spec).encode()).hexdigest()
    return Composed(parts=(properties(spec), *kept), form="sealed")


def _app_key(variable: str) -> str:
    """Where the Secret keeps a variable of the program."""
    return f"app.{variable}"


def _from(secret: str, key: str) -> dict[str, Any]:
    return {"valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _pod(spec: GuacamoleAppSpec, name: str, secret: str) -> dict[str, Any]:
    files = ["guacamole.properties", *(["user-mapping.xml"] if spec.users else [])]
    writable = {f"app-{index}": path for index, path in enumerate(spec.app.writable)}
    empty = ("guacamole-tmp", "guacd-tmp", *writable)
    environment = [
        {"name": key, **(_from(secret, _app_key(key)) if isinstance(value, Secret) else {"value": value})}
        for key, value in sorted(spec.app.env.items())
    ]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "guacamole",
                "image": spec.guacamole_image,
                "env": [{"name": key, **value} for key, value in _environment(spec, secret).items()],
                "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
                "readinessProbe": {
                    "httpGet": {"path": "/" if spec.context == "ROOT" else f"/{spec.context}/", "port": "http"},
                    "periodSeconds": 5,
                },
                "volumeMounts": [
                    {"name": "config", "mountPath": SETTINGS, "readOnly": True},
                    {"name": "guacamole-tmp", "mountPath": "/tmp"},  # noqa: S108 (a path in a container)
                ],
                **_hardened(spec, "guacamole", spec.resources),
            },
            {
                "name": "guacd",
                "image": spec.guacd_image,
                "args": ["-b", "127.0.0.1"],
                "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108
                "volumeMounts": [{"name": "guacd-tmp", "mountPath": "/tmp"}],  # noqa: S108
                **_hardened(spec, "guacd", spec.resources),
            },
            {
                "name": name if name not in IDS else f"{name}-app",
                "image": spec.app.image,
                **({"env": environment} if environment else {}),
                "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in writable.items()],
                **_hardened(spec, "app", spec.app.resources),
            },
        ],
        "volumes": [
            {"name": "config", "secret": {"secretName": secret, "items": [{"key": f, "path": f} for f in files]}},
            *({"name": volume, "emptyDir": {}} for volume in empty),
        ],
    }


def _environment(spec: GuacamoleAppSpec, secret: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        "GUACAMOLE_HOME": {"value": SETTINGS},
        "GUACD_HOSTNAME": {"value": "127.0.0.1"},
        "GUACD_PORT": {"value": str(GUACD_PORT)},
        "WEBAPP_CONTEXT": {"value": spec.context},
    }
    if spec.postgresql:
        base = spec.postgresql
        found |= {
            "POSTGRESQL_HOSTNAME": {"value": base.hostname},
            "POSTGRESQL_PORT": {"value": str(base.port)},
            "POSTGRESQL_DATABASE": {"value": base.database},
            "POSTGRESQL_USERNAME": {"value": base.username},
            "POSTGRESQL_PASSWORD": _from(secret, "postgresql-password"),
        }
    for name in secret_properties(spec):
        found[name] = _from(secret, name)
    return found


def _hardened(spec: GuacamoleAppSpec, container: str, resources: Resources) -> dict[str, Any]:
    context: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    user = IDS.get(container, spec.app.run_as_user)
    if user is not None and _platform(spec) == "kubernetes":
        context["runAsUser"] = user
    limits = {"cpu": resources.cpu, "memory": resources.memory}
    return {"securityContext": context, "resources": {"limits": limits, "requests": limits}}


def _platform(spec: GuacamoleAppSpec) -> str:
    return spec.platform or ("openshift" if spec.route else "kubernetes")


def _ingress(ingress: Ingress, name: str, labels: Mapping[str, str], context: str) -> dict[str, Any]:
    backend = {"service": {"name": name, "port": {"name": "http"}}}
    path = "/" if context == "ROOT" else f"/{context}"
    rule = {"host": ingress.host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}
    tls = {"tls": [{"hosts": [ingress.host], "secretName": ingress.tls_secret}]} if ingress.tls_secret else {}
    classed = {"ingressClassName": ingress.class_name} if ingress.class_name else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "labels": labels},
        "spec": {**classed, "rules": [rule], **tls},
    }


def _route(route: Route, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    host = {"host": route.host} if route.host else {}
    return {
        "apiVersion": "route.openshift.io/v1",
        "kind": "Route",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            **host,
            "to": {"kind": "Service", "name": name},
            "port": {"targetPort": "http"},
            "tls": {"termination": "edge", "insecureEdgeTerminationPolicy": "Redirect"},
        },
    }


# ------------------------------------------------------------------------------------------------ checks


def check(document: Document[GuacamoleAppSpec], catalog: Catalog) -> Iterable[Problem]:
    """What Guacamole or the cluster would find out too late."""
    spec = document.spec

    def problem(path: tuple[str | int, ...], message: str, fix: str) -> Problem:
        return catalog.problem(document, ("spec", *path), message, fix)

    if bool(spec.users) == bool(spec.postgresql):
        yield problem(("app",), "needs `users` or `postgresql`, and not both.", "Say who may log in.")
    names = [user.name for user in spec.users]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield problem(("users", index, "name"), f"{name} is there twice.", "Keep one.")
    if spec.ingress and spec.route:
        yield problem(("route",), "takes an Ingress or a Route, not both.", "Keep one.")
    if _platform(spec) == "openshift" and spec.app.run_as_user is not None:
        message = "OpenShift gives each namespace its own users, and refuses others."
        yield problem(("app", "runAsUser"), message, "Leave it out.")
    if spec.service.node_port is not None and spec.service.node_port not in NODE_PORTS:
        # A dry run does not see this.
        yield problem(("service", "nodePort"), "is no port of nodes.", "Write one from 30000 to 32767.")
    if spec.service.node_port is not None and spec.service.type != "NodePort":
        yield problem(("service", "nodePort"), "goes with `type: NodePort`.", "Add it, or take the port out.")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?", document.name):
        message = "cannot name a Service: at most 52 lower-case letters, digits and dashes, a letter first."
        yield catalog.problem(document, ("metadata", "name"), message, "Choose another name.")
    if spec.connection.port in (PORT, GUACD_PORT):
        whose = "Guacamole" if spec.connection.port == PORT else "guacd"
        yield problem(("connection", "port"), f"is the one of {whose} in the same Pod.", "Choose another.")
    texts = {("app", "env"): spec.app.env, ("properties",): spec.properties}
    for where, found in {**texts, ("connection", "parameters"): spec.connection.parameters}.items():
        for key, value in found.items():
            if isinstance(value, str) and value and _SECRET.search(key.lower().replace("_", "-")):
                yield problem((*where, key), f"has a secret in the clear: {key}.", "Write `{secretRef: path/key}`.")
    for index, folder in enumerate(spec.app.writable):
        if folder in spec.app.writable[:index]:
            yield problem(("app", "writable", index), f"{folder} is there twice.", "Keep one.")
    taken = {"hostname", "port"} & spec.connection.parameters.keys()
    for key in sorted(taken):
        message = "is set by this kind: the program runs in the same Pod."
        yield problem(("connection", "parameters", key), message, "Take it out; write `connection.port`.")
    try:
        text = "".join(p if isinstance(p, str) else "0" for p in user_mapping(spec, document.name).parts)
        ElementTree.fromstring(text)  # noqa: S314 (our own text)
    except ElementTree.ParseError as error:
        message = f"would make a user-mapping.xml that Guacamole cannot read: {error}."
        yield problem(("users",), message, "Look for unusual characters in names and parameters.")


KIND = Kind("GuacamoleApp", GuacamoleAppSpec, expand, check)
