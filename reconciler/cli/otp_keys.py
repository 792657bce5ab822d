"""YubiKeys of the desired state: otp import, keygen, export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption
from reconciler.cli.otp import PathOption, find_document, new_file, open_project, otp, print_json, yubikey_of

if TYPE_CHECKING:
    from reconciler.expand import Catalog
    from reconciler.tools.otp.enrolment import Enrolment

ServerOption = Annotated[str, typer.Option("--server", help="Name of the OtpServer that shall know them.")]
ToOption = Annotated[
    Path | None, typer.Option("--to", help="The new file for the documents; by default below yubikeys/.")
]


class Programmer(StrEnum):
    """What an export is for."""

    YKMAN = "ykman"
    YKPERSONALIZE = "ykpersonalize"
    KSM = "ksm"


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

    catalog = open_project(path).validate()
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
        print_json(format=found.format, documents=list(keys), file=str(target), skipped=skipped)
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

    catalog = open_project(path).validate()
    try:
        made = new_credentials(count, public_id, _public_ids(catalog))
    except ValueError as error:
        raise ReconcilerError(f"{error}.") from None
    names = [name] if count == 1 else [f"{name}-{n}" for n in range(1, count + 1)]
    keys = dict(zip(names, made, strict=True))
    target = _enrol(path, catalog, server, enrol(keys, server, folder, owner), names, to, owner)
    if output is Output.JSON:
        print_json(documents={n: key.public_id for n, key in keys.items()}, file=str(target))
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
    key = yubikey_of(path, find_document(open_project(path).validate(), name, "YubikeyOtp"))
    if programmer is Programmer.KSM:
        typer.echo(credentials.format_ksm([key]), nl=False)
        return
    tool: credentials.Programmer = "ykman" if programmer is Programmer.YKMAN else "ykpersonalize"
    chosen: Literal[1, 2] = 2 if slot == 2 else 1
    typer.echo(credentials.commands(key, tool, chosen), nl=False)


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
    project = open_project(path)
    root = project.secret_store.root
    target = to or root / "yubikeys" / f"{names[0]}.yaml"
    if target.exists():
        raise ReconcilerError(f"{target} exists already. Name another file: --to FILE.")
    taken = [reference for reference in made.secrets if project.secret_store.has(reference)]
    if taken:
        raise ReconcilerError(f"the secret {taken[0]} exists already. Choose another place: --secrets NAME.")
    if not target.absolute().is_relative_to(root.absolute()):
        raise ReconcilerError(f"{target} lies outside the desired state. Name a file below {root}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReconcilerError(f"{target.parent} cannot be made: {error.strerror}.") from None
    with new_file(target, made.documents.encode(), 0o644):
        project.secret_store.set(dict(made.secrets))
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
