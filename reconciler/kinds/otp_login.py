"""OtpLogin: PAM services that ask for the OTP of a YubiKey."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import AbsolutePath, Account, HostSelector, Rule
from reconciler.kinds.otp_server import PATH, DocumentName, address
from reconciler.kinds.totp_key import REST
from reconciler.model import Composed, Document, Kind, Resource, Secret, Spec
from reconciler.types.host.file import TYPE as host_file
from reconciler.types.host.otp_roster import UNIT
from reconciler.types.host.package import TYPE as host_package
from reconciler.types.host.pam_service import TYPE as host_pam_service
from reconciler.types.host.pam_service import PamServiceName
from reconciler.validate import did_you_mean

MODULE: Final = "pam_yubico.so"
PACKAGE: Final = "libpam-yubico"
MAPPINGS: Final = "/etc/yubikey_mappings"
Url = Annotated[
    str, Rule(r"https?://[A-Za-z0-9.:\[\]_-]+(?:/[A-Za-z0-9._/-]*)?", f"a URL such as http://127.0.0.1:8580{PATH}")
]


class OtpLoginSpec(Spec):
    """PAM services on hosts that ask for the OTP of a YubiKey, by pam_yubico and an OtpServer.

    Who may log in with which key follows from the owners of all active YubikeyOtps of the client's server. Only the
    files of single services are changed, never common-auth: they hold the client's key, so they become readable by
    root only.

    Example:

        apiVersion: reconciler/v1
        kind: OtpServer
        metadata:
          name: otp
        spec:
          hosts: [bastion]
          ksmKeys:
            "1": {secretRef: otp-server/ksm-1, generate: hex16}
        ---
        apiVersion: reconciler/v1
        kind: OtpClient
        metadata:
          name: bastion
        spec:
          server: otp
          id: 1
          secret: {secretRef: otp-server/client-1, generate: base64-20}
        ---
        apiVersion: reconciler/v1
        kind: YubikeyOtp
        metadata:
          name: alice-1
        spec:
          server: otp
          owner: alice
          publicId: vvccccbbtvhl
          privateId: {secretRef: yubikeys/alice-1-private, generate: hex6}
          aesKey: {secretRef: yubikeys/alice-1-aes, generate: hex16}
        ---
        apiVersion: reconciler/v1
        kind: OtpLogin
        metadata:
          name: bastion
        spec:
          hosts: [bastion]
          client: bastion
          services: [sshd]
    """

    hosts: HostSelector
    client: DocumentName = Field(description="Name of the OtpClient that the hosts ask as.")
    services: tuple[PamServiceName, ...] = Field(
        min_length=1,
        description="PAM services, such as sshd, openvpn or sudo: the OTP is asked for before anything else. A service "
        "without a file in /etc/pam.d gets one.",
    )
    prompt: Literal["separate", "joined", "code"] = Field(
        "separate",
        description="`separate`: the OTP, and then the password. `joined`: both in one answer, the password first. "
        "`code`: the OTP alone lets in.",
    )
    without_key: Literal["refuse", "pass"] = Field(
        "refuse", description="Users that own no key: `refuse`, or `pass` on to what the service asked for before."
    )
    users: tuple[Account, ...] | None = Field(
        None, description="Only these owners; by default all who own an active key of the server."
    )
    urls: tuple[Url, ...] = Field(
        (), description="Where the server is asked; by default its first address, on the server's host itself."
    )
    mappings: AbsolutePath = Field(MAPPINGS, description="The file that says whose the keys are.")


def expand(document: Document[OtpLoginSpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The module, the owners of keys, and the rules of each service, on every selected host."""
    spec = document.spec
    client = catalog.get(f"OtpClient/{spec.client}")
    server = catalog.get(f"OtpServer/{client.spec.server}") if client else None
    if client is None or server is None:
        return
    content = mapping(owned(client.spec.server, spec.users, catalog))
    rules = _rules(spec, client.spec.id, client.spec.secret, spec.urls or (url_of(server.spec.listen[0]),))
    after = (f"package:{PACKAGE}", f"path:{spec.mappings}", f"unit:{UNIT}", f"otpclient:{client.spec.id}")
    for host in catalog.hosts(spec.hosts):
        yield host_package(host, name=PACKAGE)
        yield host_file(host, path=spec.mappings, content=content, mode="0644", owner="root", group="root")
        for service in spec.services:
            yield host_pam_service(
                host,
                service=service,
                name="yubico",
                rules=rules,
                mode="0600",
                modules=(MODULE,),
                rest=REST,
                after=after,
            )


def owned(server: str, users: Sequence[str] | None, catalog: Catalog) -> dict[str, list[str]]:
    """Account -> public ids of its active keys, in order."""
    out: dict[str, list[str]] = {}
    for document in catalog:
        spec = document.spec
        if document.kind != "YubikeyOtp" or spec.server != server or spec.state != "active" or not spec.owner:
            continue
        if users is None or spec.owner in users:
            out.setdefault(spec.owner, []).append(spec.public_id)
    return {user: sorted(out[user]) for user in sorted(out)}


def mapping(keys: dict[str, list[str]]) -> str:
    """The text of a mapping file."""
    lines = "".join(f"{':'.join((user, *ids))}\n" for user, ids in keys.items())
    return f"# Written by reconciler from the owners of YubikeyOtps.\n{lines}"


def url_of(listen: str) -> str:
    """Where a server that listens there is asked on its own host."""
    found = address(listen)
    host, _, port = listen.rpartition(":")
    if found is not None and found.is_unspecified:
        host = "127.0.0.1" if found.version == 4 else "[::1]"
    return f"http://{host}:{port}{PATH}"


def _rules(spec: OtpLoginSpec, number: int, secret: Secret, urls: Sequence[str]) -> Composed:
    skip = "ignore=ignore " if spec.without_key == "pass" else ""
    success = "done" if spec.prompt == "code" else "ok"
    words = f"urllist={';'.join(urls)} authfile={spec.mappings}" + (" nullok" if skip else "")
    tail = ""
    if spec.prompt == "joined":
        tail = "\nauth [success=done new_authtok_reqd=done default=die] pam_unix.so use_first_pass"
    head = f"auth [success={success} {skip}default=die] {MODULE} id={number} key="
    return Composed(parts=(head, secret, f" {words}{tail}"), form="base64")


def check(document: Document[OtpLoginSpec], catalog: Catalog) -> Iterable[Problem]:
    """References, and what would lock everybody out."""
    spec = document.spec

    def problem(message: str, fix: str, *path: str | int) -> Problem:
        return catalog.problem(document, ("spec", *path), message, fix)

    client = catalog.get(f"OtpClient/{spec.client}")
    if client is None:
        fix = did_you_mean(spec.client, [d.name for d in catalog if d.kind == "OtpClient"]) or "Add such a document."
        yield problem(f"there is no OtpClient/{spec.client}.", fix, "client")
        return
    if client.spec.ensure == "absent" or not client.spec.active:
        message = f"OtpClient/{spec.client} gets no answers, so nobody could log in."
        yield problem(message, "Name an active one.", "client")
    server = catalog.get(f"OtpServer/{client.spec.server}")
    away = sorted(set(catalog.hosts(spec.hosts)) - set(catalog.hosts(server.spec.hosts))) if server else []
    if away and not spec.urls:
        message = f"OtpServer/{client.spec.server} does not run on {away[0]}."
        yield problem(message, f"Add `urls: [http://SERVER:8580{PATH}]`.", "hosts")
    keys = owned(client.spec.server, spec.users, catalog)
    if not keys and spec.without_key == "refuse":
        message = "nobody owns an active key of the server, so nobody could log in."
        yield problem(message, "Give a YubikeyOtp an `owner`.", "client")
    for index, user in enumerate(spec.users or ()):
        if user not in keys:
            message = f"{user} owns no active key of OtpServer/{client.spec.server}."
            yield problem(message, "Give a YubikeyOtp that `owner`, or leave the user out.", "users", index)
    for index, service in enumerate(spec.services):
        if service.startswith("common-"):
            message = f"{service} is read by everybody, and the rules hold the key of the client."
            yield problem(message, "Name the services themselves.", "services", index)
    if spec.prompt == "joined" and spec.without_key == "pass":
        message = "who has no key cannot be told from who gives a wrong OTP, where both come in one answer."
        yield problem(message, "Leave `withoutKey` out, or choose another `prompt`.", "withoutKey")
    if any(c in spec.mappings for c in " []\\#"):
        yield problem("the path holds a character that PAM gives a meaning to.", "Use another path.", "mappings")


KIND = Kind("OtpLogin", OtpLoginSpec, expand, check)
