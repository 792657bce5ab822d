"""TotpKey: one-time passwords of authenticator apps for users of PAM services."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

from pydantic import Field

from reconciler.errors import Problem
from reconciler.expand import Catalog
from reconciler.fields import Account, HostSelector
from reconciler.model import Composed, Document, Kind, Resource, Secret, Spec
from reconciler.types.host.google_authenticator import DEFAULT as HOME_FILE
from reconciler.types.host.google_authenticator import TYPE as host_google_authenticator
from reconciler.types.host.google_authenticator import HomeOrPath, RateLimit
from reconciler.types.host.oath_user import TYPE as host_oath_user
from reconciler.types.host.package import TYPE as host_package
from reconciler.types.host.pam_profile import TYPE as host_pam_profile
from reconciler.types.host.pam_service import TYPE as host_pam_service
from reconciler.types.host.pam_service import PamServiceName

USERS_FILE: Final = "/etc/users.oath"
OATH: Final = "pam_oath.so"
GOOGLE: Final = "pam_google_authenticator.so"
PACKAGES: Final = {"oath": "libpam-oath", "google-authenticator": "libpam-google-authenticator"}
REST: Final = "@include common-auth\n@include common-account\n@include common-session-noninteractive\n"
"""What follows our rules in the file of a service that has none of its own."""


class KeyOfUser(Spec):
    """The key of one account."""

    user: Account = Field(description="The account.")
    secret: Secret = Field(
        description="Its secret, as base32 text. `generate: base32` lets `reconciler secrets generate` make one."
    )


class PamRules(Spec):
    """Which services ask for the code."""

    services: tuple[PamServiceName, ...] = Field(
        (),
        description="PAM services, such as sshd, openvpn or sudo: the code is asked for before anything else. A "
        "service without a file in /etc/pam.d gets one.",
    )
    all_services: bool = Field(
        False, description="All services, by Debian's pam-auth-update: the code is asked for after the password."
    )
    prompt: Literal["separate", "joined", "code"] = Field(
        "separate",
        description="`separate`: the code, and then the password. `joined`: both in one answer, the password first, as "
        "OpenVPN's clients send it. `code`: the code alone lets in.",
    )
    without_key: Literal["refuse", "pass"] | None = Field(
        None,
        description="Users that have no key: `refuse`, or `pass` on to what the service asked for before. By default "
        "`refuse`, and `pass` with `allServices`.",
    )


class TotpKeySpec(Spec):
    """One-time passwords of authenticator apps (TOTP, HOTP) for users of PAM services.

    Writes the secrets to the hosts, and keeps what the PAM module holds beside them: counters and used passwords. Show
    a secret to its owner as QR code with `reconciler otp qr NAME`.

    Example:

        apiVersion: reconciler/v1
        kind: TotpKey
        metadata:
          name: vpn
        spec:
          hosts: [bastion]
          users:
            - user: alice
              secret: {secretRef: otp/alice, generate: base32}
          pam:
            services: [openvpn]
            prompt: joined
    """

    hosts: HostSelector
    users: tuple[KeyOfUser, ...] = Field(min_length=1, description="Accounts with their secrets.")
    format: Literal["oath", "google-authenticator"] = Field(
        "oath",
        description="`oath`: one file of libpam-oath for all users. `google-authenticator`: a file for each user.",
    )
    factor: Literal["totp", "hotp"] = Field("totp", description="What a code depends on: the time, or a counter.")
    digits: Literal[6, 7, 8] = Field(6, description="Of a code.")
    period: Literal[30, 60] = Field(30, description="Seconds for which a code of TOTP holds.")
    algorithm: Literal["SHA1", "SHA256", "SHA512"] = Field("SHA1", description="Both PAM modules know SHA1 only.")
    window: int | None = Field(
        None, ge=1, le=100, description="How many codes around the right one are accepted, for clocks that are wrong."
    )
    rate_limit: RateLimit | None = Field(
        None, description="With google-authenticator: at most so many logins within so many seconds, such as 3/30."
    )
    path: HomeOrPath | None = Field(
        None,
        description=f"With oath the file, {USERS_FILE} by default. With google-authenticator `~/` and a file name, by "
        f"default {HOME_FILE}; or a folder of root's that is there, in which each user's file has the user's name.",
    )
    pam: PamRules | None = Field(None, description="Services that ask for the code. By default no service is changed.")
    ensure: Literal["present", "absent"] = Field(
        "present", description="`absent` removes the keys with their state; and no service may ask for them any more."
    )


def expand(document: Document[TotpKeySpec], catalog: Catalog) -> Iterable[Resource[Any]]:
    """The keys, the module, and the rules that use it, on every selected host."""
    spec = document.spec
    absent = spec.ensure == "absent"
    for host in catalog.hosts(spec.hosts):
        if spec.pam is not None and not absent:
            yield host_package(host, name=PACKAGES[spec.format])
            yield from _rules(host, spec, spec.pam)
        for key in spec.users:
            if spec.format == "oath":
                secret = Composed(parts=(key.secret,), form="base32AsHex")
                fields: dict[str, Any] = {} if absent else {"token": _token(spec), "secret": secret}
                if spec.pam is not None and spec.pam.prompt == "joined":
                    fields["pin"] = "+"
                yield host_oath_user(host, absent=absent, path=spec.path or USERS_FILE, user=key.user, **fields)
            else:
                path = spec.path or HOME_FILE
                fields = {"secret": Composed(parts=(key.secret,), form="base32"), "factor": spec.factor}
                fields |= {"reuse": "refused", "window": spec.window, "rate_limit": spec.rate_limit}
                fields |= {"period": spec.period if spec.factor == "totp" else None}
                yield host_google_authenticator(
                    host,
                    absent=absent,
                    path=path if path.startswith("~/") else f"{path}/{key.user}",
                    user=key.user,
                    **({} if absent else fields),
                )


def _token(spec: TotpKeySpec) -> str:
    return f"HOTP/{'E' if spec.factor == 'hotp' else f'T{spec.period}'}/{spec.digits}"


def _rules(host: str, spec: TotpKeySpec, pam: PamRules) -> Iterable[Resource[Any]]:
    """Of services, and of all services. The same for every document that means the same file."""
    oath = spec.format == "oath"
    module = OATH if oath else GOOGLE
    after = [f"package:{PACKAGES[spec.format]}"] + ([f"edit:{spec.path or USERS_FILE}"] if oath else [])
    passing = (pam.without_key or ("pass" if pam.all_services else "refuse")) == "pass"
    words = " ".join(_words(spec, pam, passing))
    skip = ("user_unknown=ignore " if oath else "ignore=ignore ") if passing else ""
    success = "done" if pam.prompt == "code" else "ok"
    rule = f"[success={success} {skip}default=die] {module} {words}".rstrip()
    lines = [f"auth {rule}"]
    if pam.prompt == "joined":
        lines.append("auth [success=done new_authtok_reqd=done default=die] pam_unix.so use_first_pass")
    for service in pam.services:
        yield host_pam_service(
            host, service=service, name=spec.format, rules="\n".join(lines), modules=(module,), rest=REST, after=after
        )
    if pam.all_services:
        text = (
            f"Name: One-time passwords ({spec.format}, by reconciler)\nDefault: no\nPriority: 128\n"
            f"Auth-Type: Additional\nAuth:\n\t{rule}\n"
        )
        name = f"reconciler-{spec.format}"
        yield host_pam_profile(host, name=name, text=text, enabled=True, modules=(module,), after=after)


def _words(spec: TotpKeySpec, pam: PamRules, passing: bool) -> Iterable[str]:
    if spec.format == "oath":
        yield f"usersfile={spec.path or USERS_FILE}"
        if spec.window is not None:
            yield f"window={spec.window}"
        if pam.prompt == "joined":
            yield f"digits={spec.digits}"
        return
    path = spec.path or HOME_FILE
    if not path.startswith("~/"):
        yield f"secret={path}/${{USER}}"
        yield "user=root"
    elif path != HOME_FILE:
        yield f"secret=${{HOME}}/{path.removeprefix('~/')}"
    if passing:
        yield "nullok"
    if pam.prompt == "joined":
        yield "forward_pass"


def check(document: Document[TotpKeySpec], catalog: Catalog) -> Iterable[Problem]:
    """What the modules cannot do, and what would lock people out."""
    spec = document.spec

    def problem(message: str, fix: str, *path: str | int) -> Problem:
        return catalog.problem(document, ("spec", *path), message, fix)

    oath = spec.format == "oath"
    if spec.algorithm != "SHA1":
        message = f"spec.algorithm is {spec.algorithm}, and the PAM modules know SHA1 only."
        yield problem(message, "Leave it out; that SHA1 is broken for signatures does not matter here.", "algorithm")
    if not oath and spec.digits != 6:
        yield problem("google-authenticator knows codes of 6 digits only.", "Choose `format: oath`.", "digits")
    if not oath and spec.factor == "hotp" and spec.period != 30:
        yield problem("a code of HOTP depends on no time.", "Leave `period` out.", "period")
    if oath and spec.rate_limit is not None:
        yield problem("libpam-oath knows no limit of logins.", "Choose `format: google-authenticator`.", "rateLimit")
    if oath and spec.path is not None and spec.path.startswith("~/"):
        message = "with oath one file of root's holds the keys of all users."
        yield problem(message, f"Write an absolute path such as {USERS_FILE}.", "path")
    if spec.path is not None and any(c in " []\\#" for c in spec.path):
        yield problem("the path holds a character that PAM gives a meaning to.", "Use another path.", "path")
    if oath and spec.window is not None and spec.pam is None:
        yield problem("libpam-oath takes the window from its PAM rule.", "Add `pam:`, or leave it out.", "window")
    seen: set[str] = set()
    for index, key in enumerate(spec.users):
        if key.user in seen:
            message = f"{key.user} is there twice; a user has one key in a file."
            yield problem(message, "Keep one of them.", "users", index, "user")
        seen.add(key.user)
    if spec.pam is not None:
        yield from _check_pam(spec, spec.pam, problem)


def _check_pam(spec: TotpKeySpec, pam: PamRules, problem: Any) -> Iterable[Problem]:
    if spec.ensure == "absent":
        yield problem("a key that must be absent is asked for by no service.", "Delete `pam:`.", "pam")
    if not pam.services and not pam.all_services:
        yield problem("spec.pam names no service.", "Add `services: [sshd]`, or `allServices: true`.", "pam")
    if pam.services and pam.all_services:
        message = "with allServices, these services would ask for a code twice."
        yield problem(message, "Delete `services`, or `allServices`.", "pam", "services")
    for index, service in enumerate(pam.services):
        if service.startswith("common-"):
            message = f"pam-auth-update writes {service}."
            yield problem(message, "Write `allServices: true` instead.", "pam", "services", index)
    if pam.all_services and pam.without_key == "refuse":
        message = "with allServices, nobody without a key could log in any more, not even root at the console."
        yield problem(message, "Leave `withoutKey` out, or name the services.", "pam", "withoutKey")
    if pam.all_services and pam.prompt != "separate":
        message = f"with allServices the password is asked for as before, so spec.pam.prompt cannot be {pam.prompt}."
        yield problem(message, "Leave `prompt` out, or name the services.", "pam", "prompt")
    if pam.prompt == "joined" and pam.without_key == "pass":
        message = "who has no key cannot be told from who gives a wrong code, where both come in one answer."
        yield problem(message, "Leave `withoutKey` out, or choose another `prompt`.", "pam", "withoutKey")


KIND = Kind("TotpKey", TotpKeySpec, expand, check)
