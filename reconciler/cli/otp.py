"""One-time passwords: otp qr, show, verify, serve. Import, keygen and export are in `otp_keys`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption

if TYPE_CHECKING:
    from reconciler.expand import Catalog
    from reconciler.model import Document
    from reconciler.project import Project
    from reconciler.tools.otp.credentials import YubikeyCredential
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
            with new_file(file, getattr(_drawing(), draw)(text)):
                pass
    if output is Output.JSON:
        files = [str(file) for file in (png, svg) if file is not None]
        print_json(**({"uri": text} if uri else {}), files=files, discloses=found)
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
        print_json(code=key.code(now), seconds=key.seconds_left(now))
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
    document = find_document(open_project(path).validate(), name, "TotpKey", "YubikeyOtp")
    if document.kind == "YubikeyOtp":
        detail, why = _verify_yubikey(yubikey_of(path, document), code.strip())
    else:
        detail, why = _verify_oath(_oath_key(path, document.address, user), code.strip(), window)
    if output is Output.JSON:
        print_json(right=not why, detail=detail or why)
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


@otp.command()
def serve(
    config: Annotated[Path, typer.Option("--config", help="The configuration file (JSON), see docs/otp.md.")],
) -> None:
    """Run a key storage and validation server for Yubico OTP here. On hosts, an OtpServer does it."""
    from reconciler.tools.otp.server.__main__ import run

    raise typer.Exit(run(["serve", "--config", str(config)]))


# ---------------------------------------------------------------------------------------------- the desired state


def open_project(path: Path) -> Project:
    """The project of a desired state."""
    from reconciler.cli.options import project

    return project(path, None)


def find_document(catalog: Catalog, name: str, *kinds: str) -> Document[Any]:
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

    project = open_project(path)
    document = find_document(project.validate(), name, "TotpKey")
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


def yubikey_of(path: Path, document: Document[Any]) -> YubikeyCredential:
    """The public id and the secrets of a YubikeyOtp."""
    from reconciler.errors import SecretError
    from reconciler.tools.otp.credentials import YubikeyCredential

    project, values = open_project(path), []
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


@contextmanager
def new_file(file: Path, content: bytes, mode: int = 0o600) -> Iterator[None]:
    """Write a file that is not there yet; by default for its owner only, because it holds a secret.

    It is on disk, under another name, before what is done inside begins, and gets its name if that goes well.

    Raises:
        ReconcilerError: it is there, or cannot be written.
    """
    import os
    from secrets import token_hex

    from reconciler.errors import ReconcilerError

    exists = ReconcilerError(f"{file} exists already. Name another file, or remove it.")
    if os.path.lexists(file):
        raise exists
    draft = file.with_name(f".{file.name}.{token_hex(6)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        yield
        os.link(draft, file)
    except FileExistsError:
        raise exists from None
    except OSError as error:
        raise ReconcilerError(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)


def _drawing() -> Any:
    from reconciler.errors import ReconcilerError

    try:
        import segno  # noqa: F401

        from reconciler.tools.otp import qr as drawing
    except ImportError:
        raise ReconcilerError("QR codes need the extra `otp` (segno). Or use --uri.") from None
    return drawing


def print_json(**fields: Any) -> None:
    """Print a result for programs."""
    import json

    typer.echo(json.dumps({"version": 1, **fields}, ensure_ascii=False))
