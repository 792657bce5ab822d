"""One-time passwords: otp qr, show, verify, import, export, keygen, serve."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption

if TYPE_CHECKING:
    from reconciler.expand import Catalog
    from reconciler.model import Document
    from reconciler.project import Project
    from reconciler.tools.otp.credentials import YubikeyCredential
    from reconciler.tools.otp.enrolment import Enrolment
    from reconciler.tools.otp.oath import OathKey

app = typer.Typer()
otp = typer.Typer(
    help="One-time passwords: QR codes and codes of authenticator apps (TotpKey), secrets of YubiKeys (YubikeyOtp).",
    no_args_is_help=True,
)
app.add_typer(otp, name="otp")

PathOption = Annotated[Path, typer.Option("--path", help="The desired state.")]
TotpName = Annotated[str, typer.Argument(metavar="NAME", help="A TotpKey of the desired state.")]
UserOption = Annotated[str | None, typer.Option("--user", "-u", help="Whose key, if there are several.")]
ServerOption = Annotated[str, typer.Option("--server", help="Name of the OtpServer that shall know them.")]
ToOption = Annotated[
    Path | None, typer.Option("--to", help="The new file for the documents; by default below yubikeys/.")
]


class Programmer(StrEnum):
    """What an export is for."""

    YKMAN = "ykman"
    YKPERSONALIZE = "ykpersonalize"
    KSM = "ksm"


@otp.command()
def qr(
    name: TotpName,
    user: UserOption = None,
    label: Annotated[str | None, typer.Option("--label", help="What the app shows; by default a dash.")] = None,
    no_label: Annotated[
        bool, typer.Option("--no-label", help="An empty label. Google Authenticator and FreeOTP refuse it.")
    ] = False,
    issuer: Annotated[str, typer.Option("--issuer", help="Who the app says it is for; by default nobody.")] = "",
    counter: Annotated[
        int | None, typer.Option("--counter", min=0, help="Of the next code (HOTP); by default that of a new key.")
    ] = None,
    uri: Annotated[bool, typer.Option("--uri", help="Print the URI instead of the code.")] = False,
    png: Annotated[Path | None, typer.Option("--png", help="Write the code to this PNG file.", metavar="FILE")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Write the code to this SVG file.", metavar="FILE")] = None,
    path: PathOption = DESIRED,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show a key as QR code for an authenticator app: on the terminal, or as a picture.

    The code holds the secret and nothing else that could be left out; what it does hold is listed as a warning.
    """
    import os
    import sys
    from dataclasses import replace

    from reconciler.errors import ReconcilerError
    from reconciler.tools.otp import otpauth

    if no_label and label is not None:
        raise ReconcilerError("--label and --no-label contradict each other. Give one of them.")
    chosen = "" if no_label else otpauth.NEUTRAL if label is None else label
    key = _oath_key(path, name, user)
    if counter is not None:
        if key.type != "hotp":
            raise ReconcilerError(f"TotpKey/{name} depends on the time and has no counter. Leave --counter out.")
        key = replace(key, counter=counter)
    try:
        text = otpauth.uri(key, chosen, issuer)
    except ValueError as error:
        raise ReconcilerError(f"{error}.") from None
    found = otpauth.disclosures(key, chosen, issuer)
    for file, draw in ((png, "png"), (svg, "svg")):
        if file is not None:
            _write_new(file, getattr(_drawing(), draw)(text))
    if output is Output.JSON:
        files = [str(file) for file in (png, svg) if file is not None]
        _json(**({"uri": text} if uri else {}), files=files, discloses=found)
        return
    typer.echo("This discloses to whoever sees it:", err=True)
    for datum in found:
        typer.echo(f"  - {datum}", err=True)
    if key.is_weak:
        typer.echo("The secret has less than 128 bits; some apps refuse it.", err=True)
    if uri:
        typer.echo(text)
    elif png is None and svg is None:
        colors = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        typer.echo(_drawing().terminal(text, colors=colors), nl=False)


@otp.command()
def show(
    name: TotpName, user: UserOption = None, path: PathOption = DESIRED, output: OutputOption = Output.TEXT
) -> None:
    """Print the code of this moment and how long it is good."""
    import time

    from reconciler.errors import ReconcilerError

    key = _oath_key(path, name, user)
    if key.type == "hotp":
        raise ReconcilerError(
            f"TotpKey/{name} counts logins, and the counter is on its hosts only. Use the app that counts along."
        )
    now = time.time()
    if output is Output.JSON:
        _json(code=key.code(now), seconds=key.seconds_left(now))
        return
    typer.echo(key.code(now))
    typer.echo(f"{key.seconds_left(now)} s left", err=True)


@otp.command()
def verify(
    name: Annotated[str, typer.Argument(help="A TotpKey or YubikeyOtp of the desired state.")],
    code: Annotated[str | None, typer.Argument(help="The code; without it, it is asked for or read.")] = None,
    user: UserOption = None,
    window: Annotated[int, typer.Option("--window", min=0, max=100, help="Codes before and after that pass.")] = 1,
    path: PathOption = DESIRED,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say whether a code is right now. Uses nothing up, and does not know what was used.

    Exit status: 0 it is right, 1 it is not.
    """
    import sys

    if code is None:
        code = typer.prompt("Code", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    document = _document(_project(path).validate(), name, "TotpKey", "YubikeyOtp")
    if document.kind == "YubikeyOtp":
        detail, why = _verify_yubikey(_yubikey(path, document), code.strip())
    else:
        detail, why = _verify_oath(_oath_key(path, document.address, user), code.strip(), window)
    if output is Output.JSON:
        _json(right=not why, detail=detail or why)
    else:
        typer.echo(f"Right: {detail}." if not why else f"Wrong: {why}.")
    raise typer.Exit(1 if why else 0)


def _verify_oath(key: OathKey, code: str, window: int) -> tuple[str, str]:
    """(what is right, what is wrong); one of them is empty."""
    import time

    now = time.time()
    if key.type == "hotp":
        # Where the counter is, only the hosts know: any code of the first thousand shows that the secret is right.
        found = key.verify(code, window=1000)
        return (f"the code of counter {found}", "") if found is not None else ("", "no code of the first 1000")
    found = key.verify(code, now, window=window)
    if found is None:
        return "", "no code of this time; look at the clock of the device, and at the key"
    steps = found - key.step(now)
    return "the code of now" if steps == 0 else f"off by {steps * key.period:+d} s", ""


def _verify_yubikey(key: YubikeyCredential, typed: str) -> tuple[str, str]:
    from reconciler.tools.otp.server import modhex
    from reconciler.tools.otp.server.token import InvalidOtp, decrypt, split

    why = "no OTP of a YubiKey"
    for reading in modhex.readings(typed):
        try:
            public_id, block = split(reading)
            if public_id != key.public_id:
                why = f"an OTP of {public_id}, and not of {key.public_id}"
                continue
            token = decrypt(bytes.fromhex(key.aes_key), bytes.fromhex(key.private_id), block)
        except InvalidOtp:
            why = "no OTP of this YubiKey, or its secrets are others"
        else:
            return f"power-up {token.session}, use {token.use}", ""
    return "", why


@otp.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="A `# ykksm 1` file, the output of ykman, or configuration_log.csv.", metavar="FILE")
    ],
    server: ServerOption,
    to: ToOption = None,
    folder: Annotated[str, typer.Option("--secrets", help="Where references of the secrets begin.")] = "yubikeys",
    path: PathOption = DESIRED,
    output: OutputOption = Output.TEXT,
) -> None:
    """Take YubiKeys from a file over: a document for each, and its secrets into the store.

    Nothing is written unless every line is right. What exists is never overwritten.
    """
    from reconciler.errors import ReconcilerError
    from reconciler.tools.otp import credentials
    from reconciler.tools.otp.enrolment import enrol

    catalog = _project(path).validate()
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise ReconcilerError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ReconcilerError(f"{file} is not UTF-8 text. Convert it: iconv -f latin1 -t utf-8.") from None
    found = credentials.parse(text, str(file), _public_ids(catalog))
    keys = {key.public_id: key for key in found.credentials}
    target = _enrol(path, catalog, server, enrol(keys, server, folder), list(keys), to)
    if output is Output.JSON:
        skipped = [{"line": line, "why": why} for line, why in found.skipped]
        _json(format=found.format, documents=list(keys), file=str(target), skipped=skipped)
        return
    for line, why in found.skipped:
        typer.echo(f"{file}:{line}: left out: {why}", err=True)
    typer.echo(f"{len(keys)} imported, in {target}; the secrets are in the store. Commit both.")
    typer.echo(f"{file} still holds the secrets: shred it.", err=True)


@otp.command()
def keygen(
    name: Annotated[str, typer.Argument(help="Name of the document; with --count, of the first part of each.")],
    server: ServerOption,
    count: Annotated[int, typer.Option("--count", "-c", min=1, max=10000, help="How many.")] = 1,
    public_id: Annotated[
        str | None, typer.Option("--public-id", help="The first one; others count on. By default random, from vv.")
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="The account that OtpLogin lets in with it.")] = None,
    to: ToOption = None,
    folder: Annotated[str, typer.Option("--secrets", help="Where references of the secrets begin.")] = "yubikeys",
    path: PathOption = DESIRED,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make secrets for new YubiKeys: a document for each, and its secrets into the store. Then `otp export`."""
    from reconciler.errors import ReconcilerError
    from reconciler.tools.otp.enrolment import enrol, new_credentials

    catalog = _project(path).validate()
    try:
        made = new_credentials(count, public_id, _public_ids(catalog))
    except ValueError as error:
        raise ReconcilerError(f"{error}.") from None
    names = [name] if count == 1 else [f"{name}-{n}" for n in range(1, count + 1)]
    keys = dict(zip(names, made, strict=True))
    target = _enrol(path, catalog, server, enrol(keys, server, folder, owner), names, to, owner)
    if output is Output.JSON:
        _json(documents={n: key.public_id for n, key in keys.items()}, file=str(target))
        return
    for each, key in keys.items():
        typer.echo(f"{each}: {key.public_id}")
    typer.echo(f"{count} made, in {target}; the secrets are in the store. Commit both.")
    typer.echo(f"Put one into a YubiKey: reconciler otp export {names[0]} --for ykman | sh", err=True)


@otp.command()
def export(
    name: Annotated[str, typer.Argument(help="A YubikeyOtp of the desired state.")],
    programmer: Annotated[
        Programmer, typer.Option("--for", help="Commands for a programmer, or a file for an old key storage module.")
    ],
    slot: Annotated[int, typer.Option("--slot", min=1, max=2, help="Of the YubiKey: 1 short touch, 2 long touch.")] = 1,
    show_: Annotated[bool, typer.Option("--show", help="Print it even to a terminal.")] = False,
    path: PathOption = DESIRED,
) -> None:
    """Print the commands that put a key into a YubiKey: `reconciler otp export NAME --for ykman | sh`.

    The programmer reads the secrets from its standard input, so that no list of processes shows them.
    """
    import sys

    from reconciler.errors import SecretError
    from reconciler.tools.otp import credentials

    if sys.stdout.isatty() and not show_:
        raise SecretError("this would show secrets on the terminal. Pipe it into sh, or use --show.")
    key = _yubikey(path, _document(_project(path).validate(), name, "YubikeyOtp"))
    if programmer is Programmer.KSM:
        typer.echo(credentials.format_ksm([key]), nl=False)
        return
    tool: credentials.Programmer = "ykman" if programmer is Programmer.YKMAN else "ykpersonalize"
    chosen: Literal[1, 2] = 2 if slot == 2 else 1
    typer.echo(credentials.commands(key, tool, chosen), nl=False)


@otp.command()
def serve(
    config: Annotated[Path, typer.Option("--config", help="The configuration file (JSON), see docs/otp.md.")],
) -> None:
    """Run a key storage and validation server for Yubico OTP here. On hosts, an OtpServer does it."""
    from reconciler.tools.otp.server.__main__ import run

    raise typer.Exit(run(["serve", "--config", str(config)]))


# ---------------------------------------------------------------------------------------------- the desired state


def _project(path: Path) -> Project:
    from reconciler.cli.options import project

    return project(path, None)


def _document(catalog: Catalog, name: str, *kinds: str) -> Document[Any]:
    """The document of one of these kinds with this name, or with this `Kind/name`."""
    from reconciler.errors import ReconcilerError
    from reconciler.validate import did_you_mean

    found = [d for d in catalog if d.kind in kinds and name in (d.name, d.address)]
    if len(found) > 1:
        raise ReconcilerError(f"{name} may be {' or '.join(d.address for d in found)}. Write it so.")
    if not found:
        near = did_you_mean(name, [d.name for d in catalog if d.kind in kinds])
        raise ReconcilerError(f"there is no {' or '.join(kinds)} {name}. {near}".rstrip())
    return found[0]


def _oath_key(path: Path, name: str, user: str | None) -> OathKey:
    """The key of one user of a TotpKey, with its secret."""
    from reconciler.errors import ReconcilerError
    from reconciler.tools.otp.oath import OathKey, parse_secret

    project = _project(path)
    document = _document(project.validate(), name, "TotpKey")
    spec = document.spec
    users = {each.user: each.secret for each in spec.users}
    if user is None and len(users) > 1:
        raise ReconcilerError(
            f"{document.address} has keys of {', '.join(users)}. Choose one: --user {next(iter(users))}."
        )
    chosen = user or next(iter(users))
    if chosen not in users:
        raise ReconcilerError(f"{document.address} has no key of {chosen}; it has those of {', '.join(users)}.")
    try:
        # pam_google_authenticator counts from 1, pam_oath from 0.
        first = 1 if spec.format == "google-authenticator" else 0
        return OathKey(
            parse_secret(project.secrets.reveal(users[chosen])),
            spec.factor,
            spec.algorithm,
            spec.digits,
            spec.period,
            first if spec.factor == "hotp" else 0,
        )
    except ValueError as error:
        raise ReconcilerError(f"{document.address}, user {chosen}: {error}.") from None


def _yubikey(path: Path, document: Document[Any]) -> YubikeyCredential:
    """The public id and the secrets of a YubikeyOtp."""
    from reconciler.errors import SecretError
    from reconciler.tools.otp.credentials import YubikeyCredential

    project, values = _project(path), []
    for secret, size, what in ((document.spec.private_id, 6, "private id"), (document.spec.aes_key, 16, "AES key")):
        value = project.secrets.reveal(secret).strip()
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raw = b""
        if len(raw) != size:
            raise SecretError(f"{document.address}: the {what} must be {2 * size} hexadecimal digits.")
        values.append(raw.hex())
    private_id, aes_key = values
    return YubikeyCredential(document.spec.public_id, private_id, aes_key)


def _public_ids(catalog: Catalog) -> set[str]:
    return {d.spec.public_id for d in catalog if d.kind == "YubikeyOtp"}


def _enrol(
    path: Path,
    catalog: Catalog,
    server: str,
    made: Enrolment,
    names: list[str],
    to: Path | None,
    owner: str | None = None,
) -> Path:
    """Write documents and secrets; refuses before the first byte whatever can be refused.

    Raises:
        ReconcilerError: a document, secret or file exists, or the documents would be wrong.
    """
    from reconciler.errors import ReconcilerError
    from reconciler.validate import did_you_mean

    _check_words(names, owner, list(made.secrets))
    servers = [d.name for d in catalog if d.kind == "OtpServer"]
    if server not in servers:
        raise ReconcilerError(f"there is no OtpServer {server}. {did_you_mean(server, servers)}".rstrip())
    for name in names:
        if catalog.get(f"YubikeyOtp/{name}") is not None:
            raise ReconcilerError(f"YubikeyOtp/{name} exists already. Choose another name, or remove it first.")
    project = _project(path)
    root = project.secret_store.root
    target = to or root / "yubikeys" / f"{names[0]}.yaml"
    if target.exists():
        raise ReconcilerError(f"{target} exists already. Name another file: --to FILE.")
    taken = [reference for reference in made.secrets if project.secret_store.has(reference)]
    if taken:
        raise ReconcilerError(f"the secret {taken[0]} exists already. Choose another place: --secrets NAME.")
    if not target.absolute().is_relative_to(root.absolute()):
        raise ReconcilerError(f"{target} lies outside the desired state. Name a file below {root}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    project.secret_store.set(dict(made.secrets))
    _write_new(target, made.documents.encode(), 0o644)
    return target


def _check_words(names: list[str], owner: str | None, references: list[str]) -> None:
    """Names, account and references come from the command line: hold them to what documents are held to."""
    from pydantic import TypeAdapter, ValidationError

    from reconciler.errors import ReconcilerError
    from reconciler.fields import Account
    from reconciler.model import Metadata, Secret

    def check(kind: Any, value: Any, message: str) -> None:
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError:
            raise ReconcilerError(message) from None

    for name in names:
        message = f"{name!r} is no name of a document. Write lower-case letters, digits, - and a dot."
        check(Metadata, {"name": name}, message)
    if owner is not None:
        check(Account, owner, f"{owner!r} is no account. Write lower-case letters, digits, - and _.")
    for reference in references:
        check(Secret, {"secretRef": reference}, f"{reference!r} is no place for a secret. Write --secrets yubikeys.")


def _write_new(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that is not there yet; by default for its owner only, because it holds a secret."""
    import os

    from reconciler.errors import ReconcilerError

    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(content)
    except FileExistsError:
        raise ReconcilerError(f"{file} exists already. Name another file, or remove it.") from None
    except OSError as error:
        raise ReconcilerError(f"{file} cannot be written: {error.strerror}.") from None


def _drawing() -> Any:
    from reconciler.errors import ReconcilerError

    try:
        import segno  # noqa: F401

        from reconciler.tools.otp import qr as drawing
    except ImportError:
        raise ReconcilerError("QR codes need the extra `otp` (segno). Or use --uri.") from None
    return drawing


def _json(**fields: Any) -> None:
    import json

    typer.echo(json.dumps({"version": 1, **fields}, ensure_ascii=False))
