"""Objects of the APIs of Proxmox VE and Proxmox Backup Server: entries of lists, described by their fields.

The field of a spec says by an `Api` marker which parameter it is and how its value is written there; reading a list,
and writing one entry, follow from that. Two things of these APIs decide how: a list is filtered by what the caller may
see, so that an empty one proves nothing without a look at the caller's rights; and values come back in another form
than they were given (`content` in any order, `disable` in place of `enabled`, numbers as text).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import Field
from pydantic.alias_generators import to_camel

from reconciler.errors import ProbeFailed
from reconciler.model import Absent, Change, Get, Read, Reply, Request, Secret, Spec, State, Unprobed

S = TypeVar("S", bound=Spec)


# ------------------------------------------------------------------------------------------------ values


@dataclass(frozen=True)
class Codec:
    """How a value of YAML stands in a parameter, and what an answer's value means in YAML."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any]
    same: Callable[[Any, Any], bool] = lambda desired, observed: bool(desired == observed)


def _truth(value: Any) -> bool:
    return str(value).lower() in ("1", "true", "yes", "on")


def _words(value: Any) -> list[str]:
    parts = value if isinstance(value, list) else re.split(r"[,; ]+", str(value))
    return sorted({str(p) for p in parts if str(p).strip()})


def _number(value: Any) -> Any:
    number = float(value)
    return int(number) if number.is_integer() else number


def _keep(value: Any) -> dict[str, Any]:
    pairs = value.items() if isinstance(value, dict) else (p.partition("=")[::2] for p in str(value).split(",") if p)
    found = {str(key): int(number) for key, number in pairs}
    kept = {to_camel(key.replace("-", "_")): number for key, number in found.items() if number}
    if kept.pop("keepAll", 0):
        return {"keepAll": True}
    return kept or {"keepAll": True}


TEXT: Final = Codec(str, str)
NUMBER: Final = Codec(_number, lambda value: value)
FLAG: Final = Codec(_truth, int)
NOT: Final = Codec(lambda value: not _truth(value), lambda value: int(not value))
WORDS: Final = Codec(_words, ",".join, lambda desired, observed: sorted(desired) == sorted(observed or ()))
"""A comma list whose order means nothing."""


class Retention(Spec):
    """How many backups are kept. Without any number everything is kept."""

    keep_last: int | None = Field(None, ge=1, description="The newest ones.")
    keep_hourly: int | None = Field(None, ge=1, description="The last of each hour.")
    keep_daily: int | None = Field(None, ge=1, description="The last of each day.")
    keep_weekly: int | None = Field(None, ge=1, description="The last of each week.")
    keep_monthly: int | None = Field(None, ge=1, description="The last of each month.")
    keep_yearly: int | None = Field(None, ge=1, description="The last of each year.")
    keep_all: Literal[True] | None = Field(None, description="Keep everything; alone.")


def written_retention(keep: Mapping[str, Any]) -> str:
    """A retention as PVE's property string, in a fixed order.

    >>> written_retention({"keepLast": 3, "keepDaily": 7})
    'keep-daily=7,keep-last=3'
    """
    if keep.get("keepAll") or not keep:
        return "keep-all=1"
    return ",".join(sorted(f"{kebab(name)}={number}" for name, number in keep.items()))


KEEP: Final = Codec(_keep, written_retention, lambda desired, observed: (desired or {"keepAll": True}) == observed)


@dataclass(frozen=True)
class Api:
    """Marks a field of a spec as a parameter of an API, inside the outermost `Annotated`.

    Attributes:
        name: of the parameter; by default the field's name with dashes.
        codec: the form of its value.
        default: what it means in YAML when the API does not show it.
        unset: its default is not written but deleted; empty texts and lists always are.
        hidden: the API never shows it.
    """

    name: str = ""
    codec: Codec = TEXT
    default: Any = None
    unset: bool = False
    hidden: bool = False


def kebab(name: str) -> str:
    """`keepDaily` and `keep_daily` -> `keep-daily`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"-\1", name).replace("_", "-").lower()


# ------------------------------------------------------------------------------------------------ rights

PERMISSIONS: Final = Get("/access/permissions")


def may(permissions: Mapping[str, Mapping[str, Any]], path: str, privileges: Sequence[str]) -> bool:
    """Whether the caller has one of these privileges on an ACL path, by what `/access/permissions` said.

    An entry of the path itself counts; of the paths above it what propagates (1) counts.
    """
    if any(privilege in permissions.get(path, ()) for privilege in privileges):
        return True
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        found = permissions.get(path)
        if found is not None and any(int(found.get(privilege, 0)) for privilege in privileges):
            return True
    return False


def require(reply: Reply, what: str, paths: Sequence[str], privileges: Sequence[str]) -> None:
    """Refuse to take a list at its word that is filtered by rights which the caller lacks. Without privileges
    everybody may see everything.

    Raises:
        ProbeFailed: a right is missing.
    """
    if not privileges:
        return
    permissions = answer(reply, "the rights of the login")
    missing = [path for path in dict.fromkeys(paths) if not may(permissions, path, privileges)]
    if missing:
        raise ProbeFailed(
            f"the login may not see {what}: it needs {' or '.join(privileges)} on {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}. Without it lists come back empty, and everything would look "
            "as if it had to be created. Grant the right, with propagation."
        )


def answer(reply: Reply, what: str) -> Any:
    """The `data` of an answer.

    Raises:
        ProbeFailed: it was refused, or is no JSON.
    """
    if reply.status:
        raise ProbeFailed(f"{what} cannot be read: {reply.status} {reply.text}")
    try:
        return json.loads(reply.text)["data"]
    except (ValueError, KeyError, TypeError):
        raise ProbeFailed(f"{what} cannot be read: the answer is no JSON with `data`.") from None


# ------------------------------------------------------------------------------------------------ entries


Discovering = Generator[Sequence[Read], Sequence[Reply], list[tuple[str, dict[str, Any]]]]
"""Yields reads, gets the replies, returns names and values of what exists."""


def document_name(*parts: str) -> str:
    """The name of a document for something that exists: what names may not hold becomes a dash.

    >>> document_name("dc01", "ops@pve!ci")
    'dc01-ops-pve-ci'
    """
    return re.sub(r"[^a-z0-9.]+", "-", "-".join(parts).lower()).strip("-.") or "unnamed"


@dataclass(frozen=True)
class Entries(Generic[S]):
    """One list of an API whose entries are objects of one resource type.

    Attributes:
        what: the entries, for messages: `storages`.
        spec: the model; its fields with an `Api` marker are parameters.
        listing: path of the list.
        key: what a row is found by: the parameter that names it.
        privileges: one of them lets the caller see an entry.
        acl: the ACL path of an entry.
        item: path of one entry, by default the list's with the identity at its end.
        unset: how a value goes back to its default: a `delete` parameter as comma list or repeated, or the empty
            value.
        digest: the API refuses to overwrite what changed since the last look.
        params: query parameters of the list.
    """

    what: str
    spec: type[S]
    listing: str
    key: str
    privileges: tuple[str, ...]
    acl: Callable[[S], str]
    item: Callable[[S], str] | None = None
    unset: Literal["comma", "repeat", "empty"] = "comma"
    digest: bool = True
    params: Mapping[str, Any] | None = None

    def path(self, spec: S) -> str:
        """Where one entry is read and written."""
        if self.item is not None:
            return self.item(spec)
        return f"{self.listing}/{quote(self.name(spec), safe='@!')}"

    def name(self, spec: S) -> str:
        """The entry's name in the API."""
        return str(getattr(spec, self.key.replace("-", "_")))

    def fields(self) -> Mapping[str, tuple[str, Api]]:
        """Python name -> (YAML name, marker)."""
        return fields_of(self.spec)

    def probe(
        self, specs: Sequence[S]
    ) -> Generator[Sequence[Read], Sequence[Reply], list[State | Absent | Unprobed | None]]:
        """One list for all, and the caller's rights."""
        rights, rows = yield [PERMISSIONS, Get(self.listing, self.params or {})]
        require(rights, self.what, [self.acl(s) for s in specs], self.privileges)
        known = {str(row.get(self.key)): row for row in answer(rows, self.what)}
        return [observe(self.spec, known.get(self.name(spec))) for spec in specs]

    def steps(self, change: Change[S], *, names: str | None = None, **more: Any) -> list[Request]:
        """One request: POST, PUT or DELETE.

        Args:
            names: the parameter that names a new entry, `key` by default.
            more: further parameters of a creation.
        """
        spec, path = change.spec, self.path(change.spec)
        guard = path if self.digest else ""
        if change.after is None:
            return [Request("DELETE", path, title=f"remove {self.name(spec)} from {self.what}")]
        if change.before is None:
            title = f"create {self.name(spec)} among {self.what}"
            return [
                Request(
                    "POST", self.listing, {names or self.key: self.name(spec), **created(spec), **more}, title=title
                )
            ]
        title = f"set {', '.join(sorted(change.changed))} of {self.name(spec)}"
        return [Request("PUT", path, updated(spec, change, self.unset), digest_from=guard, title=title)]

    def discover(self, named: Callable[[Mapping[str, Any]], bool] = lambda row: True) -> Discovering:
        """What the list holds: `(name, declared values by YAML name)` of each entry, defaults left out.

        Args:
            named: which rows count; others are built in.

        Raises:
            ProbeFailed: the login may not see all of them.
        """
        rights, reply = yield [PERMISSIONS, Get(self.listing, self.params or {})]
        # What lies above the paths of all entries: an entry without a name says which.
        nameless: Any = self.spec.model_construct(None, **{self.key.replace("-", "_"): ""})
        require(rights, f"all {self.what}", [self.acl(nameless).rstrip("/") or "/"], self.privileges)
        defaults = {alias: api.default for alias, api in self.fields().values()}
        found = []
        for row in sorted(answer(reply, self.what), key=lambda row: str(row[self.key])):
            if named(row):
                state = observe(self.spec, row) or {}
                values = {k: v for k, v in state.items() if v is not None and v != defaults.get(k)}
                found.append((str(row[self.key]), values))
        return found

    def normalize(self, desired: State, observed: State) -> State:
        """Desired values that mean the same as the observed ones."""
        codecs = {alias: api.codec for alias, api in self.fields().values()}
        return {
            name: observed[name]
            if name in codecs and observed.get(name) is not None and codecs[name].same(value, observed[name])
            else value
            for name, value in desired.items()
        }


def fields_of(spec: type[Spec]) -> Mapping[str, tuple[str, Api]]:
    """Python name -> (YAML name, marker) of the fields that are parameters."""
    found = {}
    for name, field in spec.model_fields.items():
        marker = next((m for m in field.metadata if isinstance(m, Api)), None)
        if marker is not None:
            found[name] = (field.alias or name, marker)
    return found


def observe(spec: type[Spec], row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The state that a row of a list shows."""
    if row is None:
        return None
    state: dict[str, Any] = {}
    for name, (alias, api) in fields_of(spec).items():
        if api.hidden:
            continue
        value = row.get(api.name or kebab(name))
        state[alias] = api.default if value is None else api.codec.read(value)
    return state


def created(spec: Spec) -> dict[str, Any]:
    """The parameters of a creation: all that is declared."""
    out = {}
    for name, (_, api) in fields_of(type(spec)).items():
        value = getattr(spec, name)
        if value is None or _is_default(value, api):
            continue
        out[api.name or kebab(name)] = _spelt(value, api)
    return out


def updated(spec: Spec, change: Change[Any], unset: str) -> dict[str, Any]:
    """The parameters of an update: what differs."""
    out: dict[str, Any] = {}
    gone = []
    for name, (alias, api) in fields_of(type(spec)).items():
        if alias not in change.changed:
            continue
        value, parameter = getattr(spec, name), api.name or kebab(name)
        if unset != "empty" and _is_default(value, api) and (api.unset or api.default in ("", [])):
            gone.append(parameter)
        else:
            out[parameter] = _spelt(value, api)
    if gone:
        out["delete"] = ",".join(sorted(gone)) if unset == "comma" else sorted(gone)
    return out


def _is_default(value: Any, api: Api) -> bool:
    return value is not None and api.default is not None and _plain(value) == api.default


def _spelt(value: Any, api: Api) -> Any:
    return value if isinstance(value, Secret) else api.codec.write(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.model_dump(by_alias=True, exclude_none=True)
    return list(value) if isinstance(value, tuple) else value
