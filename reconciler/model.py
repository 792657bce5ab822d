"""The vocabulary of the project and the contracts of resource types and kinds.

Nothing here does input or output. The words are explained in docs/words.md.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Literal, Protocol, Self, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator
from pydantic.alias_generators import to_camel

from reconciler.errors import Position, Problem

if TYPE_CHECKING:
    from reconciler.expand import Catalog

API_VERSION: Final = "reconciler/v1"

PATIENCE: Final = 60.0
"""Seconds that an object may take from being as desired to working, where its type does not say otherwise."""

State = Mapping[str, Any]
"""Attributes of one object, by their YAML names. `None` in place of a State means absent."""


@dataclass(frozen=True, slots=True)
class Absent:
    """What a probe may return in place of `None`: the object is absent, and this was learned about its surroundings,
    for example the node that it has to be made on."""

    around: State


@dataclass(frozen=True, slots=True)
class Unprobed:
    """Stands for the state of an object that could not be read, and says why. A probe may return it for one object."""

    reason: str


class Unobservable:
    """Stands for an attribute that this connection cannot see, for example a running process in an offline image."""

    def __repr__(self) -> str:
        return "not visible here"


UNOBSERVABLE: Final = Unobservable()


@dataclass(frozen=True, slots=True)
class Sha256:
    """What a probe reports of sensitive content: its plain digest (hex), never the content.

    Lives in memory only; the engine turns it into `Sealed` before anybody looks at it.
    """

    hex: str

    @classmethod
    def of(cls, text: str) -> Sha256:
        """The digest of a text in UTF-8."""
        return cls(hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret as plans, diffs and journals show it: a keyed digest that tells change, not content."""

    digest: str

    def __str__(self) -> str:
        return f"(secret {self.digest[:8]})"


class Spec(BaseModel):
    """Base of every model that a user or a kind fills in: frozen, no unknown fields, camelCase in YAML."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, defer_build=True
    )


GenerateForm = Literal["password", "base32", "hex16", "hex6", "base64-20", "base64-32", "proxmox-key"]
"""What `reconciler secrets generate` can make; `reconciler.generated` says how."""

_STORE_REFERENCE: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/\.{0,2}[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]*)+"


class Secret(Spec):
    """A reference to a secret. It carries a name, never a value, so it may be shown anywhere."""

    secret_ref: str = Field(
        pattern=rf"^(env:[A-Za-z_][A-Za-z0-9_]*|(file|command):[^\x00-\x1f\x7f]+|{_STORE_REFERENCE})$",
        json_schema_extra={
            "patternErrorMessage": "Write path/key (a key of secrets/path.sops.yaml), env:NAME, file:PATH or "
            "command:PROGRAM ARGUMENTS."
        },
        description="`path/key` (a key of secrets/path.sops.yaml), `env:NAME` (environment variable), `file:PATH` (a "
        "file outside the repo), or `command:PROGRAM ARGUMENTS` (what it prints).",
        examples=["otp/alice", "env:ALICE_PASSWORD_HASH"],
    )
    generate: GenerateForm | None = Field(
        None,
        description="What `reconciler secrets generate` makes where the store has no such secret: `password` (32 "
        "characters), `base32` (160-bit TOTP secret), `hex16` and `hex6` (AES key and private id of a YubiKey), "
        "`base64-20` (key of an OTP client), `base64-32`, `proxmox-key` (encryption key of Proxmox backups).",
    )

    @model_validator(mode="after")
    def _generated_into_the_store(self) -> Self:
        if self.generate and not self.in_store:
            source = self.secret_ref.partition(":")[0]
            raise ValueError(f"has generate, which writes to the store, but names {source}:. Write path/key.")
        return self

    @property
    def in_store(self) -> bool:
        """It names a key of a SOPS file of the repo, and no other source."""
        return not self.secret_ref.startswith(("env:", "file:", "command:"))

    def __str__(self) -> str:
        return f"(secret {self.secret_ref})"


class Composed(Secret):
    """Text with secrets in it, put together where a secret is revealed; may stand wherever a `Secret` may.

    Kinds make it; users write `Secret`s.
    """

    secret_ref: Literal["composed"] = "composed"  # noqa: S105 - a marker, no secret
    parts: tuple[str | SerializeAsAny[Secret], ...]
    form: Literal[
        "verbatim", "json", "base32", "base32AsHex", "base64", "hex6", "hex16", "hexAes", "sha256", "xml", "sealed"
    ] = Field("verbatim", description="What each secret has to be, and how it is spelled; see `reconciler.composed`.")

    @property
    def in_store(self) -> bool:
        """Its secrets may be, it is not."""
        return False

    def __str__(self) -> str:
        return f"(text with {', '.join(str(p) for p in self.parts if isinstance(p, Secret))})"


@dataclass(frozen=True, slots=True)
class Role:
    """What a field of a resource's spec is for, as a marker in `Annotated`."""

    name: Literal["identity", "control"]


IDENTITY: Final = Role("identity")
"""The field that names the object on its target."""
CONTROL: Final = Role("control")
"""A field that steers the work and is not compared with the live object."""


class Action(StrEnum):
    """What a change does."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    NOOP = "noop"


class Outcome(StrEnum):
    """How a change ended."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Risk:
    """What may go wrong when a change is applied; shown in the plan.

    Attributes:
        guard: how a change is guarded, or why it is not; the plan fills it in.
    """

    kind: Literal["lock-out", "data-loss", "downtime"]
    text: str
    guard: str = ""


@dataclass(frozen=True, slots=True)
class Keep:
    """What a host keeps of itself before a guarded change, to put it back by itself. See `reconciler.guard`.

    Attributes:
        paths: files, links and whole folders, or their absence; `~alice/.ssh/authorized_keys` lies in a home folder.
        units: systemd units: whether they are enabled, masked, running. Those that run are restarted once all else is
            back.
        accounts: whose login depends on it.
    """

    paths: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------- documents


class Guard(Spec):
    """Changes that the host takes back by itself unless a new login confirms them in time."""

    canary: int = Field(1, ge=0, le=1000, description="How many hosts go first; the others wait until they are well.")
    confirm_within: str = Field(
        "120s",
        pattern=r"^(([5-9]|[1-9][0-9]{1,3})s|[1-9][0-9]{0,2}min)$",
        json_schema_extra={"patternErrorMessage": 'Write a duration of at least 5s, such as "90s" or "10min".'},
        description="How long the host waits for the confirmation, from the moment before the change.",
    )

    @property
    def seconds(self) -> int:
        """`confirm_within` in seconds."""
        return int(self.confirm_within.rstrip("smin")) * (60 if self.confirm_within.endswith("min") else 1)


class Lifecycle(Spec):
    """How the objects of a document are treated over their life."""

    prevent_destroy: bool = Field(False, description="Refuse every plan that would delete an object of this document.")
    ignore_changes: tuple[str, ...] = Field(
        (), description="Attributes that others may change: set at creation, not compared afterwards."
    )
    adopt: Literal["Never", "IfUnowned", "Always"] = Field(
        "IfUnowned",
        description="What to do with an object that exists already. `Never`: refuse. `IfUnowned`: take it over, and "
        "leave it in place when the document goes. `Always`: take it over as if we had created it.",
    )
    requires: tuple[str, ...] = Field((), description="Documents (`Kind/name`) whose objects come first.")
    guard: Guard | Literal["Never"] | None = Field(
        None,
        description="How changes on hosts are guarded: taken back unless a new login confirms them. Those that may "
        "lock people out are guarded anyway; given here, all of this document are. `Never`: none is.",
    )


class Metadata(Spec):
    """Name and labels of a document."""

    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        description="Unique among documents of one kind: lower-case letters, digits, `-` and `.`.",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="For selectors, `--target` and reports.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Free text for people and other tools.")


K = TypeVar("K", bound=Spec)
S = TypeVar("S", bound=Spec)


@dataclass(frozen=True, slots=True)
class Document(Generic[K]):
    """One validated YAML document."""

    kind: str
    metadata: Metadata
    spec: K
    lifecycle: Lifecycle
    position: Position

    @property
    def name(self) -> str:
        """The document's name."""
        return self.metadata.name

    @property
    def address(self) -> str:
        """`Kind/name`."""
        return f"{self.kind}/{self.metadata.name}"


# ---------------------------------------------------------------------------------------------- resources


@dataclass(frozen=True, slots=True)
class Target:
    """A system that we connect to.

    Attributes:
        name: the name of the document that describes it.
        connection: the module in `reconciler.connections` that reaches it.
        settings: what that module needs, JSON values only.
    """

    name: str
    connection: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Resource(Generic[S]):
    """One object on one target, as it should be.

    Attributes:
        type: name of the resource type.
        target: name of the target.
        spec: the desired attributes.
        absent: the object must not exist.
        origin: `Kind/name` of the document that it comes from.
    """

    type: str
    target: str
    key: str
    spec: S
    origin: str = ""
    absent: bool = False
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    labels: Mapping[str, str] = field(default_factory=dict)
    position: Position | None = None

    @cached_property
    def address(self) -> str:
        """`type[target:key]`, unique in a plan."""
        return f"{self.type}[{self.target}:{self.key}]"

    @cached_property
    def declared(self) -> dict[str, Any]:
        """What was declared in the spec, by YAML names. Not to be changed."""
        return dump(self.spec)


# ---------------------------------------------------------------------------------------------- reads and steps


@dataclass(frozen=True, slots=True)
class Script:
    """A read on a host: POSIX sh that only looks. `$ROOT` is the prefix of every path; arguments are `"$@"`."""

    sh: str
    args: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Get:
    """A read of an API: GET a path below the API's root, with query parameters."""

    path: str
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class DryRun:
    """A read of an API: a request that the server answers without carrying it out. The path's API must have such
    requests; a connection that knows none refuses it. A body may hold `Secret`s."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    body: Any = field(default=None, hash=False)


Read = Script | Get | DryRun
"""All that a probe may ask for: `Script` of hosts, the others of APIs."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a read.

    Attributes:
        text: what a script printed (bytes that are no UTF-8 as surrogates), or the body of an API's answer.
        status: the exit status of a script; for an API 0 where it answered 2xx, else the HTTP status.
    """

    text: str
    status: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A step: run a program. Values travel as arguments or standard input, never in shell text; secrets only in
    standard input.

    Attributes:
        quick: it takes moments and leaves nothing running behind, so that its answer may wait for the next ones.
    """

    argv: tuple[str, ...]
    stdin: str | Secret | None = None
    title: str = ""
    quick: bool = False

    def __str__(self) -> str:
        return self.title or shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class Put:
    """A step: write a file atomically. Mode, owner and group of `None` keep what is there (or 0644 root:root)."""

    path: str
    content: str | bytes | Secret
    mode: str | None = None
    owner: str | None = None
    group: str | None = None

    def __str__(self) -> str:
        detail = " ".join(x for x in (self.mode, ":".join(filter(None, (self.owner, self.group)))) if x)
        return f"write {self.path}" + (f" ({detail})" if detail else "")


@dataclass(frozen=True, slots=True)
class Sh:
    """A step: constant POSIX sh text, for what no single program does atomically. Values are `"$@"` or standard
    input; they never reach the process list, because the text runs in the shell that is there already.

    Attributes:
        quick: it takes moments and leaves nothing running behind, so that its answer may wait for the next ones.
    """

    sh: str
    args: tuple[str, ...] = ()
    stdin: str | bytes | Secret | None = None
    title: str = ""
    quick: bool = False

    def __str__(self) -> str:
        return self.title


@dataclass(frozen=True, slots=True)
class Request:
    """A step: one request to an API that changes something. Where the API answers with a task, the step ends when
    the task ends.

    Attributes:
        params: query or form parameters; a value may be a `Secret`.
        body: a JSON body; may hold `Secret`s at any depth.
        headers: more headers, never secrets.
        digest_from: a path whose GET carries the `digest` of the configuration that is written. It is sent along, so
            that the server refuses to overwrite what somebody else wrote since the last look.
        again_while: as long as the server refuses with this text, the request is repeated, for a few minutes: the
            object of an earlier step is still on its way out.
        keep: a key of the answer's data, and where its value goes: what the server shows once is put into the secret
            store, and nowhere else.
    """

    method: Literal["POST", "PUT", "PATCH", "DELETE"]
    path: str
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    body: Any = field(default=None, hash=False)
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    digest_from: str = ""
    again_while: str = ""
    keep: tuple[str, Secret] | None = None
    title: str = ""

    def __str__(self) -> str:
        return self.title or f"{self.method} {self.path}"


Step = Run | Put | Sh | Request


def run(*argv: str, stdin: str | Secret | None = None, title: str = "") -> Run:
    """Spell a `Run` the short way."""
    return Run(argv, stdin, title)


# ---------------------------------------------------------------------------------------------- changes


@dataclass(frozen=True, slots=True)
class Difference:
    """One attribute that is not as desired. Secrets are `Sealed` here."""

    attribute: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Change(Generic[S]):
    """A resource and what has to happen to it.

    Attributes:
        before: what the probe saw of the declared attributes; `None` = absent.
        after: what is desired; `None` = absent. Secrets are references or `Sealed`.
        why: sentences for the reader.
        seen: all that the probe saw, undeclared attributes too: for `steps` that need to know where an object is. It
            lives in memory only, and is as fresh as the last look before the steps.
    """

    resource: Resource[S]
    action: Action
    before: State | None
    after: State | None
    differences: tuple[Difference, ...] = ()
    why: tuple[str, ...] = ()
    risk: Risk | None = None
    seen: State = field(default_factory=dict, repr=False, compare=False)

    @property
    def spec(self) -> S:
        """The desired spec."""
        return self.resource.spec

    @property
    def address(self) -> str:
        """The resource's address."""
        return self.resource.address

    @cached_property
    def changed(self) -> frozenset[str]:
        """Names of the attributes that differ."""
        return frozenset(d.attribute for d in self.differences)

    @cached_property
    def digest(self) -> str:
        """Digest of `before`: what must still hold when the change is applied."""
        return digest(self.before)


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit saw: shown in plan and drift, never changed."""

    address: str
    rule: str
    message: str
    fix: str = ""
    severity: Literal["error", "warning"] = "error"
    origin: str = ""


Probe = Generator[Sequence[Read], Sequence[Reply], Sequence[State | Absent | Unprobed | None]]


class Readiness(StrEnum):
    """Whether an object that is as desired also works."""

    READY = "ready"
    WAITING = "waiting"
    FAILED = "failed"


def as_written(desired: State, observed: State) -> State:
    """The default `normalize`: desired values mean what they say."""
    return desired


def always_ready(state: State) -> Readiness:
    """The default `ready`."""
    return Readiness.READY


def no_risk(change: Change[Any]) -> Risk | None:
    """The default `risk`."""
    return None


def no_tokens(spec: Any) -> Iterable[str]:
    """The default of `provides`, `needs` and `watches`."""
    return ()


def alone(spec: S, tokens: Collection[str]) -> S:
    """The default `among`: what else is on the target does not matter."""
    return spec


def no_fields(spec: Any) -> Iterable[str]:
    """The default of `hidden`."""
    return ()


def keeps_nothing(change: Change[Any]) -> Keep | None:
    """The default `keeps`."""
    return None


def no_words(change: Change[Any]) -> Iterable[str]:
    """The default `why`."""
    return ()


def no_findings(change: Change[Any]) -> Iterable[tuple[str, str, str]]:
    """The default `findings`."""
    return ()


@dataclass(frozen=True)
class ResourceType(Generic[S]):
    """How to probe and change one type of object: reads and steps as data, no input or output of its own.

    Attributes:
        name: `host.file`.
        spec: a `Spec` whose fields carry `IDENTITY` and `CONTROL` markers; the rest is compared.
        probe: a generator that yields reads for all resources of a target and returns their states in order.
        steps: what to do for a change. `None` makes the type an audit: its differences are findings.
        findings: for an audit, `(rule, message, fix)` for each thing that is wrong.
        normalize: may replace desired values by observed ones where both mean the same, and nothing else.
        ready: whether an object that is as desired works already.
        patience: seconds that an object may take from its last step to being ready, or gone.
        immutable: attributes whose change means replace.
        write_only: attributes (secrets) that the live object never shows. They are compared with a keyed digest of what
            was last sent, which the inventory keeps; of objects that were never written nothing is compared.
        hidden: attributes of this spec whose values must not be shown.
        provides, needs, watches: tokens such as `path:/etc/motd`. A resource comes after whatever provides what it
            needs; when something that it watches changes, `stale` is laid over what the probe saw. What is needed on
            another target is written `@TARGET/TOKEN`. What is one thing behind several targets, such as a row of a
            database that they share, provides `@NAME/TOKEN`: it is deleted when none of them wants it any more.
        among: completes a spec by the tokens that everything on its target provides.
        risk: what may go wrong.
        keeps: what the host has to keep in order to take a change back by itself; `None` where it could not.
        why: more sentences for the reader of a plan, such as who changed the object, from what the probe saw.
        parts: names inside attributes, such as `spec.replicas`, that `lifecycle.ignoreChanges` may name as well; the
            kind passes them on, and the type leaves them alone.
        summary: what the type is, in one line.
    """

    name: str
    spec: type[S]
    probe: Callable[[Sequence[S]], Probe]
    steps: Callable[[Change[S]], Iterable[Step]] | None
    findings: Callable[[Change[S]], Iterable[tuple[str, str, str]]] = no_findings
    normalize: Callable[[State, State], State] = as_written
    ready: Callable[[State], Readiness] = always_ready
    patience: float = PATIENCE
    immutable: frozenset[str] = frozenset()
    write_only: frozenset[str] = frozenset()
    hidden: Callable[[S], Iterable[str]] = no_fields
    provides: Callable[[S], Iterable[str]] = no_tokens
    needs: Callable[[S], Iterable[str]] = no_tokens
    watches: Callable[[S], Iterable[str]] = no_tokens
    stale: Mapping[str, Any] = field(default_factory=dict)
    among: Callable[[S, Collection[str]], S] = alone
    risk: Callable[[Change[S]], Risk | None] = no_risk
    keeps: Callable[[Change[S]], Keep | None] = keeps_nothing
    why: Callable[[Change[S]], Iterable[str]] = no_words
    parts: Callable[[S], Iterable[str]] = no_fields

    @property
    def is_audit(self) -> bool:
        """Audits look and never change."""
        return self.steps is None

    @property
    def summary(self) -> str:
        """First line of the spec's docstring."""
        return (self.spec.__doc__ or "").strip().partition("\n")[0]

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """Python names of the identifying fields."""
        return tuple(n for n, f in self.spec.model_fields.items() if IDENTITY in f.metadata)

    @cached_property
    def compared(self) -> Mapping[str, str]:
        """Python name -> YAML name of the fields that are compared with the live object."""
        return {
            name: f.alias or name
            for name, f in self.spec.model_fields.items()
            if IDENTITY not in f.metadata and CONTROL not in f.metadata
        }

    def key(self, spec: S) -> str:
        """The identity of an object on its target, as text."""
        return ":".join(str(getattr(spec, name)) for name in self.identity)

    def __call__(self, target: str, *, absent: bool = False, **fields: Any) -> Resource[S]:
        """A resource of this type, spelled the short way in kinds. What many targets have alike is one spec."""
        values = tuple(fields.items())
        if all(type(value) in _ATOMS for value in fields.values()):
            spec, key = self._same(values, tuple(map(type, fields.values())))
        else:
            spec, key = self._new(values)
        return Resource(self.name, target, key, spec, absent=absent)

    def _new(self, fields: Iterable[tuple[str, Any]]) -> tuple[S, str]:
        spec = self.spec(**dict(fields))
        return spec, self.key(spec)

    @cached_property
    def _same(self) -> Callable[[tuple[tuple[str, Any], ...], tuple[type, ...]], tuple[S, str]]:
        # With their types, because 1 and True are equal.
        return lru_cache(maxsize=4096)(lambda fields, types: self._new(fields))


_ATOMS: Final = frozenset((str, int, bool, float, type(None)))


Discovery = Generator[Sequence[Read], Sequence[Reply], Iterable[tuple[str, Mapping[str, Any]]]]
"""Yields reads, gets the replies, returns `(document name, spec as in YAML)` of what exists."""


def no_checks(document: Document[Any], catalog: Catalog) -> Iterable[Problem]:
    """The default `check`."""
    return ()


@dataclass(frozen=True)
class Kind(Generic[K]):
    """What a user writes: a pure function from a document to resources.

    Attributes:
        name: `PolkitRule`.
        spec: its fields; the docstring is what `reconciler explain` prints, with one example.
        expand: the resources that a document means.
        check: problems beyond the schema: lint and cross-references.
        target: for kinds that describe a system to connect to. Names of targets are unique across such kinds.
        discover: for `reconciler import`: the documents of this kind that describe what a target has. Gets the
            target; `None` in place of a generator where such a target has nothing of the kind.
    """

    name: str
    spec: type[K]
    expand: Callable[[Document[K], Catalog], Iterable[Resource[Any]]]
    check: Callable[[Document[K], Catalog], Iterable[Problem]] = no_checks
    target: Callable[[Document[K]], Target] | None = None
    discover: Callable[[Target], Discovery | None] | None = None

    @property
    def summary(self) -> str:
        """First line of the spec's docstring."""
        return (self.spec.__doc__ or "").strip().partition("\n")[0]


# ---------------------------------------------------------------------------------------------- connections


@dataclass(frozen=True, slots=True)
class Work:
    """The steps of one change, and the earlier works of the same batch that it stands on."""

    address: str
    steps: Sequence[Step]
    after: Sequence[str] = ()


CONFLICT: Final = 409
"""The status of a step that was refused because its object is no longer what the last look saw."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """How one step of a batch ended.

    Attributes:
        status: 0 = well. `None` where a step was left out because one before it failed. `CONFLICT` = somebody else
            was faster: look again, and decide again.
        witness: names an effect that goes on by itself, such as a task of a server. A result with a witness and
            without status says that the step has begun; it is journalled before the step is waited for.
        kept: secrets that the target made, and where they go.
    """

    address: str
    index: int
    status: int | None
    output: str = ""
    witness: str = ""
    kept: Sequence[tuple[Secret, str]] = field(default=(), repr=False)


class Connection(Protocol):
    """A way to a target. `read` only looks; `execute` is the only thing in this project that changes a target."""

    def read(self, reads: Sequence[Read]) -> Sequence[Reply]:
        """Answer all reads in one round trip.

        Raises:
            ConnectError: the target cannot be reached.
            ConnectionLost: it went away meanwhile.
        """

    def execute(self, batch: Sequence[Work], reveal: Callable[[Secret], str]) -> Iterable[StepResult]:
        """Run a batch in order, in one round trip, and report each step as it ends.

        Raises:
            ConnectError: the target cannot be reached; nothing was done.
            ConnectionLost: it went away; what is not reported has an unknown outcome.
        """

    def settle(self, witnesses: Sequence[str]) -> None:
        """Wait until effects that were begun and lost sight of have ended, well or not.

        Args:
            witnesses: of those that told one. There may be none: who is killed at the wrong moment has not heard it. A
                connection that can list what it began itself waits for that as well.

        Raises:
            ConnectError, ConnectionLost: that cannot be found out.
        """

    def close(self) -> None:
        """Free what the connection holds. Never raises."""


@runtime_checkable
class Transacting(Protocol):
    """A connection that can look, change and look again in one round trip."""

    def transact(
        self,
        expected: Sequence[tuple[Read, Reply]],
        batch: Sequence[Work],
        reveal: Callable[[Secret], str],
        reads: Sequence[Read],
    ) -> Iterable[StepResult | Sequence[Reply]]:
        """Run a batch as `Connection.execute` does, if the target still gives the expected replies; then read.

        Yields:
            the result of each step as it ends, and last the replies to `reads`.

        Raises:
            TargetMoved: a reply is another one now; nothing was done.
            ConnectError, ConnectionLost: as for `Connection.execute`.
        """


# ---------------------------------------------------------------------------------------------- text fields


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, secrets sealed. Equal values give equal bytes."""
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """SHA-256 (hex) over the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def plain(value: Any) -> Any:
    """A JSON value for the few classes of ours that states and specs hold.

    Raises:
        TypeError: the value has no JSON form.
    """
    match value:
        case Sealed():
            return {"sealed": value.digest}
        case Unobservable():
            return {"unobservable": True}
        case BaseModel():
            return dump(value)
        case tuple() | frozenset() | set():
            return list(value) if isinstance(value, tuple) else sorted(value)
        case Sha256():
            raise TypeError("a plain digest of a secret must not be written")
        case Mapping():
            return dict(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=plain)


def dump(spec: BaseModel) -> dict[str, Any]:
    """What was declared in a spec, by YAML names; undeclared fields are left out."""
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)


def declared(spec: BaseModel, *names: str) -> dict[str, Any]:
    """These fields of a spec by their Python names, without those that were left out."""
    found = ((name, getattr(spec, name)) for name in names)
    return {name: value for name, value in found if value is not None}


Identity = Annotated[str, IDENTITY]
