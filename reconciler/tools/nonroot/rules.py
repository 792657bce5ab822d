"""The rules: what each one is called, how bad it is, why on which platform, and how it is mended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Platform = Literal["docker", "kubernetes", "openshift"]
"""`docker` stands for Docker and Podman alike."""
PLATFORMS: Final[tuple[Platform, ...]] = get_args(Platform)
NAMES: Final[Mapping[Platform, str]] = {
    "docker": "Docker/Podman",
    "kubernetes": "Kubernetes",
    "openshift": "OpenShift",
}
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: stays for ever, because people search for it and suppress it.
        title: what must not be, as a short sentence without a full stop.
        why: the reason on each platform where it matters; on others it is not reported.
        fix: what to do, unless the flaw knows it better.
    """

    id: str
    severity: Severity
    title: str
    why: Mapping[Platform, str]
    fix: str


@dataclass(frozen=True)
class Insert:
    """An edit: a new line of text after a line (counted from 1; 0 = before all)."""

    after: int
    text: str


@dataclass(frozen=True)
class Replace:
    """An edit: other text in place of the first occurrence of `old` in a line."""

    line: int
    old: str
    new: str


@dataclass(frozen=True)
class SetField:
    """An edit: a value at a path of a YAML document (counted from 0); missing mappings on the way are made."""

    document: int
    path: tuple[str | int, ...]
    value: object = field(hash=False)


Edit = Insert | Replace | SetField


@dataclass(frozen=True)
class Flaw:
    """A rule that is broken at a place.

    Attributes:
        file: the path below the folder that is examined.
        line: counted from 1.
        message: what is wrong there.
        subject: the object inside the file, such as `Deployment/web, container app`.
        fix: in place of the rule's.
        platforms: where it matters here, if not everywhere that the rule says.
        edits: what mends it, if that can be done without a person.
    """

    rule: str
    file: str
    line: int
    message: str
    subject: str = ""
    fix: str = ""
    severity: Severity | None = None
    platforms: tuple[Platform, ...] = ()
    edits: tuple[Edit, ...] = field(default=(), compare=False)

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"

    @property
    def level(self) -> Severity:
        """The flaw's severity, or its rule's."""
        return self.severity or RULES[self.rule].severity

    @property
    def mended(self) -> str:
        """How to mend it."""
        return self.fix or RULES[self.rule].fix

    def matters_on(self, platforms: Iterable[Platform]) -> list[Platform]:
        """Those of the platforms where it matters."""
        rule = RULES[self.rule]
        return [p for p in platforms if p in rule.why and (not self.platforms or p in self.platforms)]

    def reasons(self, platforms: Iterable[Platform]) -> list[str]:
        """`Kubernetes: because.` for each of the platforms where it matters."""
        rule = RULES[self.rule]
        return [f"{NAMES[p]}: {rule.why[p]}" for p in self.matters_on(platforms)]


def _everywhere(why: str) -> dict[Platform, str]:
    return dict.fromkeys(PLATFORMS, why)


_RULES: Final = (
    # ---------------------------------------------------------------- who runs
    Rule(
        "user-missing",
        "error",
        "An image must say which user it runs as",
        {
            "docker": "without USER the container runs as root, unless the base image says otherwise.",
            "kubernetes": "with runAsNonRoot the pod does not start, without it the container runs as root.",
        },
        "End the last stage with USER 1001:0, or say under `images` of the policy which user the base image sets.",
    ),
    Rule(
        "user-root",
        "error",
        "An image must not run as root",
        {
            "docker": "the container runs as root.",
            "kubernetes": "with runAsNonRoot the pod does not start, without it the container runs as root.",
            "openshift": "the program expects to be root and gets an arbitrary user.",
        },
        "End the last stage with USER 1001:0.",
    ),
    Rule(
        "user-by-name",
        "error",
        "USER must be a number",
        {"kubernetes": "the kubelet cannot tell that a name is not root, so with runAsNonRoot the pod does not start."},
        "Write the number of that user, and group 0: USER 1001:0.",
    ),
    Rule(
        "user-malformed",
        "error",
        "USER must be what container engines understand",
        _everywhere("the build fails, or the container does not start as the user that is meant."),
        "Write USER 1001:0, in one word.",
    ),
    Rule(
        "user-unresolved",
        "error",
        "USER must not depend on what is not in the file",
        _everywhere("whoever builds without that argument gets another user, or none."),
        "Give the ARG a default, or write USER 1001:0.",
    ),
    Rule(
        "user-reserved",
        "error",
        "No container may use the overflow users 65534 and 65535",
        {
            "docker": "65534 is nobody, whom NFS and user namespaces take for everybody unknown; 65535 is -1.",
            "kubernetes": "65534 is nobody, whom NFS and user namespaces take for everybody unknown; 65535 is -1.",
            "openshift": "it is outside the range of every namespace.",
        },
        "Take a number from 1000 to 65533.",
    ),
    Rule(
        "user-low",
        "warning",
        "A container's user must not have a number below 1000",
        {
            "docker": "numbers below 1000 belong to services of the host; who breaks out is one of them.",
            "kubernetes": "numbers below 1000 belong to services of the node; who breaks out is one of them.",
        },
        "Take a number from 1000 to 65533.",
    ),
    Rule(
        "user-too-high",
        "warning",
        "An image's user must fit into 16 bits",
        {"docker": "rootless engines map 65536 users as a rule, and cannot start a container as a higher one."},
        "Take a number from 1000 to 65533.",
    ),
    Rule(
        "group-unset",
        "warning",
        "USER should name the group",
        {
            "docker": "the group comes from the image's /etc/passwd, and is 0 only where the user has no entry there.",
            "kubernetes": "the group comes from the image's /etc/passwd, and is 0 only where the user has no entry "
            "there.",
        },
        "Append :0 to USER; group 0 gives no rights by itself.",
    ),
    Rule(
        "group-not-root",
        "warning",
        "The group of USER should be 0",
        {"openshift": "the arbitrary user is in group 0, not in this one, so the image behaves differently there."},
        "Write USER UID:0, and give group 0 the rights of the owner (chgrp -R 0, chmod -R g=u).",
    ),
    Rule(
        "user-created",
        "warning",
        "An image should not need an account in /etc/passwd",
        {
            "docker": "useradd and adduser differ between distributions and are missing in small images; USER needs no "
            "account.",
            "openshift": "the process runs as an arbitrary user and never as this account.",
        },
        "Leave the account out: USER 1001:0, ENV HOME=/some/folder.",
    ),
    Rule(
        "passwd-needed",
        "warning",
        "A program must not need the name of its user",
        {"openshift": "the arbitrary user need not have an entry in /etc/passwd, so the look-up of its name fails."},
        "Use `id -u`, and set HOME with ENV.",
    ),
    Rule(
        "passwd-writable",
        "error",
        "/etc/passwd must not be writable for a group",
        _everywhere("whoever may write it can make himself root in the container."),
        "Leave /etc/passwd alone; the engine adds the entry of an arbitrary user where one is needed.",
    ),
    # ---------------------------------------------------------------- files
    Rule(
        "group-access",
        "error",
        "Files given to a user must be open to group 0, too",
        {"openshift": "the arbitrary user is neither this user nor in this group, so it has only others' rights."},
        "Add: RUN chgrp -R 0 PATH && chmod -R g=u PATH.",
    ),
    Rule(
        "group-mode",
        "warning",
        "The group must be able to read and run what the owner can",
        {"openshift": "the arbitrary user has the rights of group 0, not those of the owner."},
        "Give the group the bits of the owner: chmod g=u.",
    ),
    Rule(
        "world-writable",
        "warning",
        "Files must not be writable for everybody",
        _everywhere("every user in the container can change them; group 0 is enough."),
        "Use chgrp -R 0 PATH && chmod -R g=u PATH in its place.",
    ),
    Rule(
        "home-missing",
        "warning",
        "HOME must be set",
        {
            "docker": "a user without an account gets HOME=/, which it cannot write.",
            "openshift": "the arbitrary user has no home in the image and gets HOME=/, which it cannot write.",
        },
        "Set ENV HOME to a folder that group 0 can write.",
    ),
    Rule(
        "home-not-writable",
        "warning",
        "HOME must be writable for group 0",
        {"openshift": "the arbitrary user can write only what group 0 can."},
        "Add: RUN mkdir -p $HOME && chgrp -R 0 $HOME && chmod -R g=u $HOME.",
    ),
    Rule(
        "home-not-mounted",
        "warning",
        "HOME on a read-only root needs a volume",
        {
            "kubernetes": "with readOnlyRootFilesystem nothing can be written below HOME.",
            "openshift": "with readOnlyRootFilesystem nothing can be written below HOME.",
        },
        "Mount an emptyDir there.",
    ),
    Rule(
        "flag-syntax",
        "error",
        "Flags of instructions take their value after =",
        {"docker": "the build fails: `--chown 1001:0` has to be `--chown=1001:0`."},
        "Write --chown=1001:0.",
    ),
    # ---------------------------------------------------------------- start
    Rule(
        "privileged-port",
        "warning",
        "Programs must not listen on ports below 1024",
        {
            "docker": "rootless Podman and older engines refuse it to other users than root.",
            "kubernetes": "whether others than root may do so depends on the node.",
            "openshift": "others than root may not, and restricted-v2 has no user that may.",
        },
        "Listen on a port from 1024, such as 8080, and map it with -p or a Service.",
    ),
    Rule(
        "root-at-start",
        "error",
        "A container must not need root when it starts",
        _everywhere("chown, gosu, su and the like fail for others than root, and the container ends."),
        "Prepare the files in the image for group 0, or check `id -u` first.",
    ),
    Rule(
        "sudo",
        "error",
        "sudo has no place in an image",
        {
            "docker": "it is a way back to root.",
            "kubernetes": "with allowPrivilegeEscalation: false it cannot work, without that it is a way back to root.",
            "openshift": "restricted-v2 forbids privilege escalation, so it cannot work.",
        },
        "Do at build time what needs root, before USER.",
    ),
    Rule(
        "setuid",
        "error",
        "No setuid or setgid programs, no file capabilities",
        {
            "docker": "they are a way back to root.",
            "kubernetes": "with allowPrivilegeEscalation: false they do not work.",
            "openshift": "restricted-v2 forbids privilege escalation, so they do not work.",
        },
        "Leave the bit or the capability out.",
    ),
    # ---------------------------------------------------------------- workloads
    Rule(
        "run-as-non-root",
        "error",
        "A pod must say runAsNonRoot: true",
        {"kubernetes": "nothing else keeps an image that runs as root from starting; the USER of an image can change."},
        "Set spec.securityContext.runAsNonRoot: true.",
    ),
    Rule(
        "run-as-root",
        "error",
        "A container must not be told to run as root",
        {
            "kubernetes": "it runs as root, or does not start where runAsNonRoot is set as well.",
            "openshift": "restricted-v2 refuses the pod.",
        },
        "Leave runAsUser out, or take a number from 1000; set runAsNonRoot: true.",
    ),
    Rule(
        "run-as-user-needed",
        "error",
        "An image whose USER is a name needs a numeric runAsUser",
        {"kubernetes": "the kubelet cannot tell that a name is not root: CreateContainerConfigError."},
        "Build the image with a numeric USER; until then set runAsUser for plain Kubernetes alone.",
    ),
    Rule(
        "uid-outside-range",
        "error",
        "runAsUser must lie in the namespace's range",
        {"openshift": "restricted-v2 refuses every user outside the range of the namespace, which differs everywhere."},
        "Leave runAsUser out: OpenShift chooses one, and elsewhere the image's numeric USER counts.",
    ),
    Rule(
        "group-outside-range",
        "error",
        "fsGroup must lie in the namespace's range",
        {"openshift": "restricted-v2 refuses every fsGroup outside the range of the namespace."},
        "Leave fsGroup out: OpenShift chooses one.",
    ),
    Rule(
        "group-root",
        "warning",
        "A pod should not ask for group 0",
        {
            "kubernetes": "policies against root groups refuse it; group 0 of the image's USER needs no field here.",
            "openshift": "as fsGroup it is outside the range of every namespace; as runAsGroup it is there anyway.",
        },
        "Leave it out, and put the group into the image: USER 1001:0.",
    ),
    Rule(
        "privilege-escalation",
        "error",
        "allowPrivilegeEscalation must be false",
        {
            "kubernetes": "it is true by default: setuid programs make root out of any user.",
            "openshift": "restricted-v2 refuses a pod that asks for it.",
        },
        "Set securityContext.allowPrivilegeEscalation: false.",
    ),
    Rule(
        "capabilities-drop",
        "error",
        "All capabilities must be dropped",
        {"kubernetes": "Pod Security `restricted` wants exactly ALL among capabilities.drop, of every container."},
        "Set securityContext.capabilities.drop: [ALL].",
    ),
    Rule(
        "capabilities-add",
        "error",
        "No capabilities must be added, but NET_BIND_SERVICE",
        {
            "kubernetes": "Pod Security `restricted` refuses it.",
            "openshift": "restricted-v2 refuses it.",
        },
        "Leave it out.",
    ),
    Rule(
        "seccomp",
        "error",
        "A seccomp profile must be set",
        {
            "kubernetes": "without one the container may make any system call, unless the kubelet has a default.",
            "openshift": "restricted-v2 admits no profile but RuntimeDefault, and sets it where there is none.",
        },
        "Set spec.securityContext.seccompProfile.type: RuntimeDefault.",
    ),
    Rule(
        "privileged",
        "error",
        "No container may be privileged",
        {
            "kubernetes": "it is root on the node in all but name.",
            "openshift": "restricted-v2 refuses it.",
        },
        "Leave it out.",
    ),
    Rule(
        "host-access",
        "error",
        "Pods must not reach into the node",
        {
            "kubernetes": "namespaces, ports and paths of the node are open to the container.",
            "openshift": "restricted-v2 refuses it.",
        },
        "Use a Service in place of host ports, and volumes in place of host paths.",
    ),
    Rule(
        "unknown-field",
        "error",
        "A security context must hold only fields that exist",
        {
            "kubernetes": "a field of another name is dropped or refused, and protects nothing.",
            "openshift": "a field of another name is dropped or refused, and protects nothing.",
        },
        "Spell it as the API does.",
    ),
    Rule(
        "scc-granted",
        "warning",
        "No service account should get a wider SCC",
        {"openshift": "whoever may use it runs as any user; it is mostly given to images that need not have it."},
        "Build the image for an arbitrary user in group 0, and remove the binding.",
    ),
    # ---------------------------------------------------------------- Helm
    Rule(
        "helm-fixed-id",
        "warning",
        "A chart's default should name no user or group",
        {"openshift": "the default is outside the namespace's range, and everybody there has to find and null it."},
        "Let the default be null, and let the image's numeric USER count.",
    ),
    Rule(
        "helm-hard-coded",
        "error",
        "A chart must not hold a fixed user or group in a template",
        {"openshift": "it is outside the namespace's range, and no value can take it away."},
        "Take the whole context from a value: {{- with .Values.podSecurityContext }} ... {{- toYaml . | nindent 8 }}.",
    ),
    Rule(
        "helm-not-nullable",
        "error",
        "A chart's user and group must be removable with null",
        {"openshift": "null becomes a default or 0 again, so the field cannot be taken away."},
        "Write {{- with .Values.podSecurityContext }} around the field, without default and int.",
    ),
    # ---------------------------------------------------------------- the examination itself
    Rule(
        "unreadable",
        "warning",
        "Every file that is examined must be readable",
        _everywhere("what cannot be read is not examined."),
        "Mend the file, or exclude it.",
    ),
    Rule(
        "exception-expired",
        "error",
        "Exceptions end",
        _everywhere("the exception's day is over, and what it covered is reported again."),
        "Mend what it covered, or decide again and give it a new day.",
    ),
    Rule(
        "exception-unused",
        "warning",
        "Exceptions must cover something",
        _everywhere("it covers nothing any more, and would hide what comes next."),
        "Remove it.",
    ),
)
RULES: Final[Mapping[str, Rule]] = {rule.id: rule for rule in _RULES}
"""By id."""
