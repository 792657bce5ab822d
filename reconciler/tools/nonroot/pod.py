"""Examines one pod: its own security context, and those of its containers, which come first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from reconciler.tools.nonroot import shell
from reconciler.tools.nonroot.rules import Edit, Flaw, Platform, SetField
from reconciler.tools.nonroot.users import LOWEST, RESERVED
from reconciler.tools.nonroot.yamlfile import Document, Where, items, mapping, number, truth

BOTH: Final = frozenset(
    ["runAsUser", "runAsGroup", "runAsNonRoot", "seLinuxOptions", "windowsOptions", "seccompProfile", "appArmorProfile"]
)
POD: Final = BOTH | frozenset(
    [
        "fsGroup",
        "fsGroupChangePolicy",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "sysctls",
        "seLinuxChangePolicy",
    ]
)
CONTAINER: Final = BOTH | frozenset(
    ["capabilities", "privileged", "readOnlyRootFilesystem", "allowPrivilegeEscalation", "procMount"]
)
"""Fields of the API (core/v1, Kubernetes 1.36)."""
LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
HARMLESS_CAPABILITIES: Final = frozenset(("NET_BIND_SERVICE",))
UNPRIVILEGED_PORTS: Final = "net.ipv4.ip_unprivileged_port_start"


@dataclass(frozen=True)
class Container:
    """One container.

    Attributes:
        at: where it stands in its document.
        title: `container app`.
        context: its own security context.
    """

    spec: Mapping[str, Any]
    at: Where
    title: str
    context: Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod to examine.

    Attributes:
        name: the object that makes it, `Deployment/web`.
        at: where its spec stands in the document.
        range_text: the range of users of its namespace, as text; empty where it is not known.
        outside_users, outside_groups: whether a number is outside of the namespace's range; None: perhaps.
        named_user: whether the USER of an image is known to be a name.
    """

    file: str
    document: Document
    name: str
    spec: Mapping[str, Any]
    at: Where
    range_text: str
    outside_users: Callable[[int], bool | None]
    outside_groups: Callable[[int], bool | None]
    namespace: str
    named_user: Callable[[str], bool]

    def flaws(self) -> Iterator[Flaw]:
        """All of them."""
        if mapping(self.spec.get("os")).get("name") == "windows":
            return
        context = mapping(self.spec.get("securityContext"))
        containers = list(self._containers())
        yield from self._fields(context, (*self.at, "securityContext"), POD, "pod")
        yield from self._groups(context)
        yield from self._host()
        yield from self._inherited(context, containers)
        for one in containers:
            yield from self._fields(one.context, (*one.at, "securityContext"), CONTAINER, one.title)
            yield from self._user(one, context)
            yield from self._rights(one)
            yield from self._rest(one)

    def _containers(self) -> Iterator[Container]:
        for kind in LISTS:
            for index, spec in enumerate(items(self.spec.get(kind))):
                if isinstance(spec, Mapping):
                    title = {"initContainers": "init ", "ephemeralContainers": "ephemeral "}.get(kind, "") + "container"
                    at = (*self.at, kind, index)
                    named = f"{title} {spec.get('name') or index}"
                    yield Container(spec, at, named, mapping(spec.get("securityContext")))

    def _flaw(self, rule: str, at: Where, message: str, title: str = "", *edits: Edit, **more: Any) -> Flaw:
        subject = f"{self.name}, {title}" if title else self.name
        return Flaw(rule, self.file, self.document.line(at), f"{subject}: {message}", subject, edits=edits, **more)

    def _set(self, at: Where, *more: str, value: object) -> SetField:
        return SetField(self.document.index, (*at, *more), value)

    # ---------------------------------------------------------------- the pod's own

    def _fields(self, context: Mapping[str, Any], at: Where, known: frozenset[str], title: str) -> Iterator[Flaw]:
        """Fields that are spelled wrong, or stand at the wrong level."""
        for name in context:
            if name in known:
                continue
            elsewhere = POD if known is CONTAINER else CONTAINER
            if name in elsewhere:
                where = "the pod's" if known is CONTAINER else "each container's"
                message, fix = f"{name} has no meaning here", f"Move it to {where} securityContext."
            else:
                near = get_close_matches(str(name), known, 1) or get_close_matches(str(name), elsewhere, 1)
                message = f"securityContext has no field {str(name)[:60]}"
                fix = f"Write {near[0]}." if near else "Remove it."
            yield self._flaw("unknown-field", (*at, name), message, title if title != "pod" else "", fix=fix)

    def _groups(self, context: Mapping[str, Any]) -> Iterator[Flaw]:
        at = (*self.at, "securityContext")
        if (group := number(context.get("fsGroup"))) is not None:
            if group == 0:
                yield self._flaw("group-root", (*at, "fsGroup"), "fsGroup is 0", fix="Leave fsGroup out.")
            elif self.outside_groups(group) is not False:
                yield self._flaw(
                    "group-outside-range",
                    (*at, "fsGroup"),
                    f"fsGroup {group} {self._where(self.outside_groups(group))}",
                    severity=None if self.outside_groups(group) else "warning",
                )
        for index, group in enumerate(items(context.get("supplementalGroups"))):
            if number(group) == 0:
                where = (*at, "supplementalGroups", index)
                yield self._flaw("group-root", where, "supplementalGroups holds 0", platforms=("kubernetes",))
        if number(context.get("runAsGroup")) == 0:
            yield self._flaw("group-root", (*at, "runAsGroup"), "runAsGroup is 0", platforms=("kubernetes",))

    def _where(self, outside: bool | None) -> str:
        if outside is None:
            return f"suits only a namespace with that range, and the one of {self.namespace} is not known"
        known = f" ({self.range_text})" if self.range_text else ""
        return f"is outside of the range of the namespace {self.namespace}{known}"

    def _host(self) -> Iterator[Flaw]:
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if truth(self.spec.get(name)):
                yield self._flaw("host-access", (*self.at, name), f"{name} is true")
        for index, volume in enumerate(items(self.spec.get("volumes"))):
            path = mapping(volume).get("hostPath")
            if path is not None:
                where = (*self.at, "volumes", index, "hostPath")
                yield self._flaw("host-access", where, f"a volume is the path {mapping(path).get('path')} of the node")

    def _inherited(self, context: Mapping[str, Any], containers: list[Container]) -> Iterator[Flaw]:
        """What the pod may say for all containers: runAsNonRoot and the seccomp profile."""
        at = (*self.at, "securityContext")
        lacking = [c for c in containers if truth(c.context.get("runAsNonRoot", context.get("runAsNonRoot"))) is None]
        if lacking:
            user = all(number(c.context.get("runAsUser", context.get("runAsUser"))) for c in lacking)
            # Where somebody wrote root on purpose, the container would not start any more.
            root = any(number(c.context.get("runAsUser", context.get("runAsUser"))) == 0 for c in lacking)
            edits = [] if root else [self._set(at, "runAsNonRoot", value=True)]
            names = ", ".join(c.title for c in lacking[:5])
            yield self._flaw(
                "run-as-non-root",
                at,
                f"runAsNonRoot is not set ({names})",
                "",
                *edits,
                severity="warning" if user else None,
            )
        bare = [c for c in containers if not mapping(c.context.get("seccompProfile", context.get("seccompProfile")))]
        if bare:
            edit = self._set(at, "seccompProfile", value={"type": "RuntimeDefault"})
            names = ", ".join(c.title for c in bare[:5])
            yield self._flaw("seccomp", at, f"seccompProfile is not set ({names})", "", edit, platforms=("kubernetes",))
        for where, one in ((at, context), *(((*c.at, "securityContext"), c.context) for c in containers)):
            kind = mapping(one.get("seccompProfile")).get("type")
            if kind == "Unconfined":
                yield self._flaw("seccomp", (*where, "seccompProfile"), "seccompProfile is Unconfined")
            elif kind == "Localhost":
                what = "seccompProfile is Localhost, which restricted-v2 does not admit"
                yield self._flaw("seccomp", (*where, "seccompProfile"), what, platforms=("openshift",))

    # ---------------------------------------------------------------- a container's user

    def _user(self, one: Container, pod: Mapping[str, Any]) -> Iterator[Flaw]:
        own, shared = (*one.at, "securityContext"), (*self.at, "securityContext")
        at = (*(own if "runAsUser" in one.context else shared), "runAsUser")
        user = number(one.context.get("runAsUser", pod.get("runAsUser")))
        non_root = truth(one.context.get("runAsNonRoot", pod.get("runAsNonRoot")))
        if user == 0:
            rest = ", and with runAsNonRoot: true it does not start" if non_root else ""
            yield self._flaw("run-as-root", at, f"runAsUser is 0{rest}", one.title)
        elif non_root is False:
            where = (*(own if "runAsNonRoot" in one.context else shared), "runAsNonRoot")
            yield self._flaw("run-as-root", where, "runAsNonRoot is false", one.title, platforms=("kubernetes",))
        if user:
            if user in RESERVED:
                yield self._flaw("user-reserved", at, f"runAsUser {user} is reserved for nobody", one.title)
            elif 0 < user < LOWEST:
                yield self._flaw("user-low", at, f"runAsUser {user} is below {LOWEST}", one.title)
            outside = self.outside_users(user)
            if outside is not False:
                yield self._flaw(
                    "uid-outside-range",
                    at,
                    f"runAsUser {user} {self._where(outside)}",
                    one.title,
                    severity=None if outside else "warning",
                )
        elif user is None and non_root and self.named_user(str(one.spec.get("image"))):
            message = f"the USER of {one.spec.get('image')} is a name"
            yield self._flaw("run-as-user-needed", one.at, message, one.title)
        if number(one.context.get("runAsGroup")) == 0:
            yield self._flaw(
                "group-root", (*own, "runAsGroup"), "runAsGroup is 0", one.title, platforms=("kubernetes",)
            )

    # ---------------------------------------------------------------- a container's rights

    def _rights(self, one: Container) -> Iterator[Flaw]:
        at, context = (*one.at, "securityContext"), one.context
        privileged = truth(context.get("privileged"))
        if privileged:
            yield self._flaw("privileged", (*at, "privileged"), "privileged is true", one.title)
        escalate = truth(context.get("allowPrivilegeEscalation"))
        if escalate is not False:
            what = "is true" if escalate else "is not set"
            platforms: tuple[Platform, ...] = () if escalate else ("kubernetes",)
            # Somebody wanted an explicit true; and the API refuses false next to privileged.
            edits = () if privileged or escalate else (self._set(at, "allowPrivilegeEscalation", value=False),)
            message = f"allowPrivilegeEscalation {what}"
            where = (*at, "allowPrivilegeEscalation")
            yield self._flaw("privilege-escalation", where, message, one.title, *edits, platforms=platforms)
        yield from self._capabilities(one, at)
        if context.get("procMount") not in (None, "Default"):
            yield self._flaw("privileged", (*at, "procMount"), "procMount is not Default", one.title)

    def _capabilities(self, one: Container, at: Where) -> Iterator[Flaw]:
        capabilities = mapping(one.context.get("capabilities"))
        drop = [str(c) for c in items(capabilities.get("drop"))]
        where = (*at, "capabilities", "drop")
        if "ALL" not in drop:
            spelled = [c for c in drop if c.upper() in ("ALL", "CAP_ALL")]
            message = f"capabilities.drop spells ALL as {spelled[0]}" if spelled else "capabilities.drop lacks ALL"
            kept = [c for c in drop if c not in spelled]
            edit = self._set(at, "capabilities", "drop", value=["ALL", *kept])
            yield self._flaw("capabilities-drop", where, message, one.title, edit)
        added = [str(c) for c in items(capabilities.get("add"))]
        wrong = [c for c in added if c.upper().removeprefix("CAP_") not in HARMLESS_CAPABILITIES]
        if wrong:
            message = f"capabilities.add holds {', '.join(wrong[:8])}"
            yield self._flaw("capabilities-add", (*at, "capabilities", "add"), message, one.title)

    # ---------------------------------------------------------------- ports, home, start

    def _rest(self, one: Container) -> Iterator[Flaw]:
        sysctls = {mapping(s).get("name") for s in items(mapping(self.spec.get("securityContext")).get("sysctls"))}
        for index, port in enumerate(items(one.spec.get("ports"))):
            at = (*one.at, "ports", index)
            bound = number(mapping(port).get("containerPort"))
            if bound is not None and 0 < bound < 1024 and UNPRIVILEGED_PORTS not in sysctls:
                yield self._flaw("privileged-port", (*at, "containerPort"), f"containerPort {bound}", one.title)
            if number(mapping(port).get("hostPort")):
                yield self._flaw("host-access", (*at, "hostPort"), "a hostPort is set", one.title)
        yield from self._home(one)
        own = number(one.context.get("runAsUser", mapping(self.spec.get("securityContext")).get("runAsUser")))
        if own == 0:
            return  # that is the flaw; what it does with it follows
        argv = [str(w) for name in ("command", "args") for w in items(one.spec.get(name))]
        at = (*one.at, "command" if "command" in one.spec else "args")
        for rule, _, message in shell.at_start(shell.called(argv)):
            yield self._flaw(rule, at, f"it {message}", one.title)

    def _home(self, one: Container) -> Iterator[Flaw]:
        if not truth(one.context.get("readOnlyRootFilesystem")):
            return
        found = [e for e in items(one.spec.get("env")) if mapping(e).get("name") == "HOME"]
        home = mapping(found[-1]).get("value") if found else None
        if not isinstance(home, str) or not home.startswith("/"):
            return
        mounts = [mapping(m) for m in items(one.spec.get("volumeMounts")) if not truth(mapping(m).get("readOnly"))]
        paths = [str(m.get("mountPath")).rstrip("/") for m in mounts]
        if not any(home == p or home.startswith(p + "/") for p in paths):
            yield self._flaw(
                "home-not-mounted", (*one.at, "env"), f"nothing writable is mounted at HOME={home}", one.title
            )
