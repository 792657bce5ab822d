"""The rules of a profile, as a document spells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from reconciler.fields import Line, Rule
from reconciler.model import Spec

_CAPABILITIES: Final = (
    "audit_control audit_read audit_write block_suspend bpf checkpoint_restore chown dac_override dac_read_search "
    "fowner fsetid ipc_lock ipc_owner kill lease linux_immutable mac_admin mac_override mknod net_admin "
    "net_bind_service net_broadcast net_raw perfmon setfcap setgid setpcap setuid sys_admin sys_boot sys_chroot "
    "sys_module sys_nice sys_pacct sys_ptrace sys_rawio sys_resource sys_time sys_tty_config syslog wake_alarm"
)
CAPABILITIES: Final = tuple(_CAPABILITIES.split())
"""The kernel's capabilities (capabilities(7)), as AppArmor spells them."""

PathPattern = Annotated[
    str,
    Rule(
        r'(?:/|@\{[A-Za-z][A-Za-z0-9_]*\})[^"\u0000-\u001f\u007f]*',
        "a path that starts with / or a variable such as @{HOME}, without quotes; *, **, ?, [] and {,} are patterns",
        4095,
    ),
]
Access = Annotated[
    str,
    Rule(
        r"(?!.*(.).*\1)(?!.*w.*a|.*a.*w)[rwamkl]+",
        "letters, each once: r read, w write or a append, m map as code, k lock, l link",
    ),
]
ProfileName = Annotated[
    str, Rule(r"[A-Za-z0-9_/@{][A-Za-z0-9_./@{}*?,+:~-]*", "the name of a profile, without spaces and quotes", 255)
]
ChildName = Annotated[str, Rule(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", "a name of letters, digits and . _ + -", 128)]
Peer = Annotated[str, Rule(r"[^\s\"(),=\u0000-\u001f\u007f]+", "the name of a profile, or unconfined", 255)]
Include = Annotated[
    str,
    Rule(
        r"(?!(?:.*/)?\.\.?(?:/|$))[A-Za-z0-9_][A-Za-z0-9_.+/-]*",
        "a path below /etc/apparmor.d, such as abstractions/base",
        255,
    ),
]
VariableName = Annotated[str, Rule(r"[A-Za-z][A-Za-z0-9_]*", "the name of a variable, without @{}", 64)]
VariableValue = Annotated[str, Rule(r"[^\s\"#\u0000-\u001f\u007f]+", "a value without spaces, quotes and #", 1024)]
DBusName = Annotated[str, Rule(r"[A-Za-z0-9_.*?:{},@/\[\]-]+", "a D-Bus name, path or pattern", 255)]
Flag = Literal[
    "attach_disconnected", "mediate_deleted", "chroot_relative", "namespace_relative", "unconfined", "default_allow"
]
Capability = Annotated[str, Field(json_schema_extra={"enum": list(CAPABILITIES)})]
Comment = Annotated[Line | None, Field(description="Stands above the rule, after a # and a space.")]


class Qualified(Spec):
    """What may stand before a rule."""

    deny: bool = Field(False, description="Refuse it, whatever other rules say. Refused without a log entry.")
    audit: bool = Field(False, description="Log it every time; with `deny`, log the refusals.")
    comment: Comment = None


def pattern_mistake(pattern: str) -> str:
    r"""What is wrong with the braces, brackets and backslashes of a path, and how to mend it; empty where all is well.

    >>> pattern_mistake("/srv/{a,b}/[cd]"), pattern_mistake(r"/srv/\{a")
    ('', '')
    >>> pattern_mistake("/srv/{a,b")
    'with a { that is never closed. Close it, or write \\{ for the character itself.'
    """
    itself = "or write \\{} for the character itself."
    commas: list[int] = []
    i = 0
    while i < len(pattern):
        char = pattern[i]
        if char == "\\":
            if i + 1 == len(pattern):
                return "which ends with a backslash. Take it out, " + itself.format("\\")
            i += 1
        elif char == "[":
            end = pattern.find("]", i + 2)
            if end < 0:
                return "with a [ that is never closed. Close it, " + itself.format("[")
            i = end
        elif char == "{" and not pattern.startswith("@{", i - 1):
            commas.append(0)
        elif char == "{":
            i = pattern.find("}", i) if "}" in pattern[i:] else i
        elif char == "," and commas:
            commas[-1] += 1
        elif char == "}" and (not commas or not commas.pop()):
            return "with a } that closes no choice such as {a,b}. Name two or more, " + itself.format("}")
        i += 1
    return "with a { that is never closed. Close it, " + itself.format("{") if commas else ""


class Located(Qualified):
    """A rule about paths."""

    path: PathPattern | None = Field(None, description="The path, or a pattern.")
    paths: tuple[PathPattern, ...] = Field((), description="Several paths with the same rule.")
    owner: bool = Field(False, description="Only where the file belongs to the user of the process.")

    @model_validator(mode="after")
    def _about_something(self) -> Self:
        if (self.path is None) == (not self.paths):
            raise ValueError("needs `path` or `paths`, one of them.")
        for one in self.all_paths:
            if wrong := pattern_mistake(one):
                raise ValueError(f"has the path {one}, {wrong}")
        return self

    @property
    def all_paths(self) -> Sequence[str]:
        """Every path."""
        return self.paths or (self.path or "",)


class FileRule(Located):
    """Access to files."""

    access: Access = Field(description="Letters: r read, w write, a append, m map as code, k lock, l link.")


class ExecRule(Located):
    """Programs that may be started, and the profile in which they run."""

    to: Literal["inherit", "child", "profile", "unconfined"] = Field(
        "inherit",
        description="`inherit`: under this profile, too. `child`: under a child profile of this one. `profile`: under "
        "a profile of its own. `unconfined`: under none.",
    )
    name: ProfileName | None = Field(None, description="Which child or profile, where the path does not tell.")
    fallback: Literal["inherit", "unconfined"] | None = Field(
        None, description="What else, where the child or profile does not exist; refused by default."
    )
    keep_environment: bool = Field(
        False, description="Hand dangerous variables such as LD_PRELOAD on. `inherit` always does."
    )
    access: Annotated[str, Rule(r"r|m|mr|rm", "r, m or mr")] | None = Field(
        None, description="What else may be done with the file: `r`, `mr`."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.to in ("inherit", "unconfined") and (self.name or self.fallback):
            raise ValueError(f"has `name` or `fallback`, which mean nothing with `to: {self.to}`. Leave them out.")
        if self.deny and (self.name or self.fallback or self.access or self.keep_environment):
            raise ValueError("denies the start, so only the path counts. Leave the rest out.")
        return self

    @property
    def letters(self) -> str:
        """The letters of the transition, such as `Pix`."""
        if self.deny:
            return "x"
        if self.to == "inherit":
            return "ix"
        letter = {"child": "c", "profile": "p", "unconfined": "u"}[self.to]
        rest = {"inherit": "i", "unconfined": "u", None: ""}[self.fallback]
        # A capital letter cleans the environment.
        return f"{letter if self.keep_environment else letter.upper()}{rest}x"


class NetworkRule(Qualified):
    """Sockets of a family."""

    family: Annotated[str, Rule(r"[a-z][a-z0-9_]*", "a family of addresses, such as inet, inet6, unix or netlink", 32)]
    type: Literal["stream", "dgram", "seqpacket", "rdm", "raw", "packet"] | None = Field(
        None, description="All types by default."
    )


class SignalRule(Qualified):
    """Signals between processes."""

    access: tuple[Literal["send", "receive"], ...] = Field((), description="`send`, `receive`; both by default.")
    signals: tuple[Annotated[str, Rule(r"[a-z0-9+]+", "a signal in lower case without SIG, such as term", 16)], ...] = (
        Field((), description="Such as `term`, `hup`; all by default.")
    )
    peer: Peer | None = Field(None, description="Profile of the other process, or `unconfined`; any by default.")


class PtraceRule(Qualified):
    """Tracing of processes, and reading of their state."""

    access: tuple[Literal["read", "trace", "readby", "tracedby"], ...] = Field((), description="All by default.")
    peer: Peer | None = Field(None, description="Profile of the other process, or `unconfined`; any by default.")


class MountRule(Qualified):
    """Mounting of file systems."""

    action: Literal["mount", "remount", "umount", "pivot_root"] = "mount"
    options: tuple[Annotated[str, Rule(r"[a-z-]+", "a mount option, such as ro or bind", 32)], ...] = Field(
        (), description="Exactly these options."
    )
    fstype: Annotated[str, Rule(r"[A-Za-z0-9_.*-]+", "a type of file system, such as ext4", 64)] | None = None
    source: PathPattern | None = Field(None, description="Where it comes from (of `mount`), or the old root.")
    target: PathPattern | None = Field(None, description="Where it is mounted.")


class DBusRule(Qualified):
    """Messages on D-Bus."""

    access: tuple[Literal["send", "receive", "bind", "eavesdrop"], ...] = ()
    bus: Literal["system", "session"] | None = None
    name: DBusName | None = Field(None, description="The name that `bind` takes.")
    path: DBusName | None = None
    interface: DBusName | None = None
    member: DBusName | None = None
    peer_name: DBusName | None = None
    peer_label: Peer | None = None


Section = Literal[
    "includes", "capabilities", "network", "signals", "ptrace", "mount", "dbus", "files", "exec", "extraRules"
]


class ChildBody(Spec):
    """The rules of a profile."""

    flags: tuple[Flag, ...] = Field((), description="Flags of the profile, but for its mode.")
    includes: tuple[Include, ...] = Field((), description="Abstractions, such as `abstractions/base`.")
    capabilities: tuple[Capability, ...] = Field((), description="Capabilities, such as `net_bind_service`.")
    deny_capabilities: tuple[Capability, ...] = Field(
        (), description="Capabilities to be refused, and logged, whatever abstractions say."
    )
    network: tuple[NetworkRule, ...] = Field((), description="Sockets.")
    signals: tuple[SignalRule, ...] = Field((), description="Signals.")
    ptrace: tuple[PtraceRule, ...] = Field((), description="Tracing.")
    mount: tuple[MountRule, ...] = Field((), description="Mounts.")
    dbus: tuple[DBusRule, ...] = Field((), description="Messages on D-Bus.")
    files: tuple[FileRule, ...] = Field((), description="Files, in the order in which they shall be read.")
    exec: tuple[ExecRule, ...] = Field((), description="Programs that may be started.")
    extra_rules: tuple[Annotated[Line, Field(min_length=1)], ...] = Field(
        (), description="Further rules as text, such as `userns,`; the comma at the end may be left out."
    )
    comments: dict[Section, Line] = Field(default_factory=dict, description="A comment above each part, by its name.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in (*self.capabilities, *self.deny_capabilities):
            if name not in CAPABILITIES:
                raise ValueError(
                    f'knows no capability "{name[:40]}". See capabilities(7); without CAP_, in lower case.'
                )
        return self


class ProfileBody(ChildBody):
    """A profile with what belongs to it."""

    abi: Annotated[str, Rule(r"[0-9]+\.[0-9]+", 'a version, quoted, such as "4.0"')] | None = Field(
        None, description="Which features of the kernel the rules know: `abi <abi/4.0>`. The parser's own by default."
    )
    tunables: tuple[Include, ...] = Field(("tunables/global",), description="Files with variables.")
    variables: dict[VariableName, tuple[VariableValue, ...]] = Field(
        default_factory=dict, description="Variables of this file: name (without @{}) and values."
    )
    children: dict[ChildName, ChildBody] = Field(
        default_factory=dict, description="Child profiles, by name, for `exec` with `to: child`."
    )
    hats: dict[ChildName, ChildBody] = Field(
        default_factory=dict, description="Hats, by name, into which the program changes by itself."
    )
    local: bool = Field(False, description="Let people add rules on the host, in local/ followed by the file's name.")
