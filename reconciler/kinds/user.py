"""User: an account on hosts, with its groups and SSH keys."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Account, HostSelector
from reconciler.model import Document, Kind, Resource, Secret, Spec
from reconciler.types.host.authorized_key import TYPE as host_authorized_key
from reconciler.types.host.authorized_key import TYPES
from reconciler.types.host.directory import TYPE as host_directory
from reconciler.types.host.file import TYPE as host_file
from reconciler.types.host.group import LAST_ID
from reconciler.types.host.user import TYPE as host_user
from reconciler.types.host.user import Comment, ExpiryDate, PasswdPath

KEY_OPTIONS: Final = (
    "agent-forwarding",
    "cert-authority",
    "command",
    "environment",
    "expiry-time",
    "from",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-touch-required",
    "no-user-rc",
    "no-x11-forwarding",
    "permitlisten",
    "permitopen",
    "port-forwarding",
    "principals",
    "pty",
    "restrict",
    "tunnel",
    "user-rc",
    "verify-required",
    "x11-forwarding",
)
_OPTION = r'[A-Za-z0-9-]+(?:="(?:[^"\\]|\\.)*")?'
_KEY_LINE = re.compile(
    rf"(?:(?P<options>{_OPTION}(?:,{_OPTION})*)[ \t]+)?(?P<type>[a-z0-9@.-]+)[ \t]+(?P<blob>[A-Za-z0-9+/]+={{0,2}})"
    r"(?:[ \t]+(?P<comment>[^\x00-\x1f\x7f]*))?"
)


class UserBody(Spec):
    """One account."""

    name: Account | None = Field(None, description="The login name; by default the document's name.")
    uid: int | None = Field(None, ge=0, le=LAST_ID, description="Its number; the next free one by default.")
    group: Account | None = Field(None, description="Primary group; by default a group of the account's own.")
    groups: tuple[Account, ...] | None = Field(
        None, description="Further groups, in any order. A HostProfile makes groups."
    )
    exclusive_groups: bool = Field(False, description="Leave every group that is not listed in `groups`.")
    home: PasswdPath | None = Field(None, description="Home folder; `/home/NAME` by default. A change moves no files.")
    create_home: bool | None = Field(
        None, description="Make the home folder from /etc/skel where it is missing; `false` by default for `system`."
    )
    shell: PasswdPath | None = Field(None, description="Login shell, such as /bin/bash.")
    comment: Comment | None = Field(None, description="The full name, or what the account is for (GECOS).")
    expires: ExpiryDate | None = Field(
        None, description='The day from which on nobody can log in, such as "2027-03-31", or `never`.'
    )
    password: Secret | None = Field(
        None, description="The crypt(3) hash of the password, as `mkpasswd` prints it; never the password itself."
    )
    locked: bool | None = Field(
        None, description='Lock the password. Keys still work: to close an account, set `expires: "1970-01-02"`.'
    )
    system: bool = Field(False, description="An account for a service: it gets a number for system accounts.")
    authorized_keys: tuple[str, ...] = Field((), description="Lines of authorized_keys: public keys, with options.")
    exclusive_keys: bool = Field(
        False,
        description="No other keys: authorized_keys is written as a whole. It is looked for below `home`, or else "
        "/home/NAME, so give `home` where that is not the home folder.",
    )
    ensure: Literal["present", "absent"] = Field("present", description="`absent` removes the account.")
    remove_home: bool = Field(False, description="With `ensure: absent`: remove the home folder as well.")


class UserSpec(UserBody):
    """An account on hosts, with its groups, expiry and SSH keys.

    Only what is written here is looked at: an account keeps its shell where `shell` is not given. Passwords come as
    hashes, from a secret. Keys are public keys, one line each, with the options of authorized_keys if wished.

    Example:

        apiVersion: reconciler/v1
        kind: User
        metadata:
          name: alice
        spec:
          hosts: {matchLabels: {team: ops}}
          comment: Alice Example
          groups: [adm, systemd-journal]
          shell: /bin/bash
          expires: "2027-03-31"
          authorizedKeys:
            - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILLC7u/rhg9nprc/jcF5As5udG0tC7TEy+BPCxl9WH/G alice@laptop
    """

    hosts: HostSelector


def login_name(body: UserBody, document: Document[Any]) -> str:
    """The account's name."""
    return body.name or document.name


def resources(host: str, body: UserBody, document: Document[Any], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The objects of one account on one host."""
    name = login_name(body, document)
    absent = body.ensure == "absent"
    if absent:
        yield host_user(host, absent=True, name=name, remove_home=body.remove_home)
    else:
        wanted = not body.system or bool(body.authorized_keys)
        yield host_user(
            host,
            name=name,
            uid=body.uid,
            group=body.group,
            groups=body.groups,
            exclusive_groups=body.exclusive_groups,
            home=body.home,
            create_home=True if (wanted if body.create_home is None else body.create_home) else None,
            shell=body.shell,
            comment=body.comment,
            expires=body.expires,
            password=body.password,
            locked=body.locked,
            system=body.system,
        )
    if not body.exclusive_keys:
        for line in body.authorized_keys:
            match = _KEY_LINE.fullmatch(line.strip())
            assert match is not None  # `check` has seen it
            key = f"{match['type']} {match['blob']}"
            if absent:
                yield host_authorized_key(host, absent=True, user=name, key=key)
            else:
                options = match["options"] or ""
                yield host_authorized_key(host, user=name, key=key, comment=match["comment"] or None, options=options)
        return
    folder = f"{home_of(body, name).rstrip('/')}/.ssh"
    if not absent:
        yield host_directory(host, path=folder, mode="0700", owner=name, group=body.group)
    yield host_file(
        host,
        absent=absent,
        path=f"{folder}/authorized_keys",
        content="".join(f"{line.strip()}\n" for line in body.authorized_keys),
        mode="0600",
        owner=name,
        group=body.group,
    )


def home_of(body: UserBody, name: str) -> str:
    """Where the home folder is, as far as the document tells."""
    return body.home or ("/root" if name == "root" else f"/home/{name}")


def expand(document: Document[UserSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The account on every selected host."""
    for host in catalog.hosts(document.spec.hosts):
        yield from resources(host, document.spec, document, catalog)


def check(document: Document[UserSpec], catalog: Catalog) -> Iterable[Problem]:
    """See `check_body`."""
    yield from check_body(catalog.hosts(document.spec.hosts), document.spec, document, catalog, ("spec",))


def check_body(
    hosts: Sequence[str], body: UserBody, document: Document[Any], catalog: Catalog, path: Sequence[str | int]
) -> Iterator[Problem]:
    """What is wrong with one account beyond its shape. `path` is where it stands in the document."""

    def problem(message: str, fix: str, *field: str | int) -> Problem:
        return catalog.problem(document, (*path, *field), message, fix)

    name = login_name(body, document)
    try:
        TypeAdapter(Account).validate_python(name)
    except ValidationError:
        message = f"{name} cannot be the name of an account."
        yield problem(message, "Give `name:` with lower-case letters, digits, - and _, starting with a letter or _.")
    if body.uid == 0 and name != "root":
        yield problem(
            f"the uid 0 would make {name} a second root.", "Choose another uid; give rights by groups.", "uid"
        )
    if body.exclusive_groups and body.groups is None:
        yield problem("exclusiveGroups needs `groups`.", "Add `groups:`; `[]` means none.", "exclusiveGroups")
    if body.ensure == "absent":
        if name == "root":
            yield problem("root cannot be removed.", "To close it, set `locked: true`.", "ensure")
        for host in hosts:
            login = catalog.get(f"Host/{host}")
            if login is not None and login.spec.user == name:
                message = f"{name} is whom reconciler logs in to {host} as; it would lock itself out."
                yield problem(message, f"Give Host/{host} another `user` first.", "ensure")
    seen: set[str] = set()
    for index, line in enumerate(body.authorized_keys):
        wrong = mistake(line)
        if wrong is None:
            match = _KEY_LINE.fullmatch(line.strip())
            assert match is not None
            if match["blob"] in seen:
                wrong = "is there twice.", "Delete one."
            seen.add(match["blob"])
        if wrong is not None:
            yield problem(f"key {index + 1} {wrong[0]}", wrong[1], "authorizedKeys", index)


def mistake(line: str) -> tuple[str, str] | None:
    """What is wrong with a line of authorized_keys, and how to mend it. Never repeats the line.

    Examples:
        >>> mistake("ssh-ed25519 AAAA")
        ('is cut off or damaged.', 'Copy the whole line of the .pub file.')
    """
    whole = "Copy the whole line of the .pub file."
    line = line.strip()
    if re.search(r"PRIVATE KEY|PuTTY-User-Key-File|b3BlbnNzaC1rZXktdjEA", line):
        fix = "Put the line of the .pub file here. Treat this private key as lost: make a new pair."
        return "is a private key, which must never stand here.", fix
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f\u2028\u2029]", line):
        return "has more than one line, or control characters.", "Write one line for each key."
    match = _KEY_LINE.fullmatch(line)
    if match is None:
        return "is no public key.", f"{whole} It looks like: ssh-ed25519 AAAA... comment"
    kind = match["type"]
    if kind not in TYPES:
        if kind == "ssh-dss":
            return "is of the type ssh-dss, which OpenSSH does not take any more.", "Make an ed25519 key."
        near = get_close_matches(kind, TYPES, 1, 0.75)
        return "is of no known type.", f"Did you mean {near[0]}?" if near else f"Known: {', '.join(TYPES)}."
    for option in re.findall(r'([A-Za-z0-9-]+)(?:="(?:[^"\\]|\\.)*")?', match["options"] or ""):
        if option.lower() not in KEY_OPTIONS:
            near = get_close_matches(option.lower(), KEY_OPTIONS, 1)
            return f"has the unknown option {option}.", f"Did you mean {near[0]}?" if near else "See sshd(8)."
    try:
        blob = base64.b64decode(match["blob"], validate=True)
    except binascii.Error:
        return "is cut off or damaged.", whole
    return None if _is_whole(blob, kind.encode()) else ("is cut off or damaged.", whole)


def _is_whole(blob: bytes, kind: bytes) -> bool:
    """Whether a decoded key is a list of fields with their lengths (RFC 4251), of which the first is its type."""
    fields = []
    while blob:
        size = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + size:
            return False
        fields.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    return len(fields) > 1 and fields[0] == kind


KIND = Kind("User", UserSpec, expand, check)
