"""Secrets in the repo: secrets init, set, get, edit, list, generate, rotate, recipients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption

if TYPE_CHECKING:
    from reconciler.secret_store import SecretStore

app = typer.Typer()
secrets = typer.Typer(
    help="Write and read the secrets of the repo: SOPS files with age recipients, below secrets/ in the desired "
    "state.\n\nStart with `reconciler secrets init`, then `secrets set otp/alice`, and name it in a document: "
    "`{secretRef: otp/alice}`. `otp/alice` is the key alice of secrets/otp.sops.yaml.",
    no_args_is_help=True,
)
app.add_typer(secrets, name="secrets")
recipients = typer.Typer(help="Who may read the secrets.", no_args_is_help=True)
secrets.add_typer(recipients, name="recipients")

PathOption = Annotated[Path, typer.Option("--path", help="The desired state.")]
ReferenceArgument = Annotated[str, typer.Argument(metavar="PATH/KEY", help="The secret, such as otp/alice.")]
NamesArgument = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Files, such as otp; or all.")]
RecipientArgument = Annotated[str, typer.Argument(help="A public key: age1... or `ssh-ed25519 AAAA...`.")]


@secrets.command()
def init(
    path: PathOption = DESIRED,
    identity: Annotated[
        Path | None, typer.Option("--identity", help="Where your private key shall be; by default where sops looks.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make an age identity for you (outside of the repo) and a .sops.yaml that says who may read new files."""
    import os

    from reconciler.errors import SecretError
    from reconciler.sops import age, rules

    store = _store(path)
    if not store.root.is_dir():
        raise SecretError(f"{path} does not exist. Name the folder that holds your desired state.")
    file, made = identity or age.default_key_file(os.environ), False
    mine: tuple[str, ...] = ()
    if identity is None or identity.exists():
        environ = dict(os.environ) | ({"SOPS_AGE_KEY_FILE": str(identity)} if identity else {})
        if not (environ.get("SOPS_AGE_KEY_FILE") and not Path(environ["SOPS_AGE_KEY_FILE"]).exists()):
            mine = tuple(r for r in age.identities(environ).recipients if age.is_recipient(r))
    if not mine:
        if file is None:
            raise SecretError("there is no home folder for an identity. Name a file: --identity FILE.")
        mine, made = (_new_identity(file, store.root),), True
    config = store.root / rules.NAME
    found = rules.creation(store.folder / "new.sops.yaml")
    if found is None:
        if config.exists():
            raise SecretError(
                f"{rules.shown(config)} has no rule for files below secrets/. Add one: "
                f"path_regex: {rules.PATH_REGEX}, age: {mine[0]}"
            )
        from reconciler.secret_store import write_private

        write_private(config, rules.new_configuration(mine[0]), 0o644)
    store.folder.mkdir(exist_ok=True)
    readers = list(found.recipients) if found else [mine[0]]
    if output is Output.JSON:
        _json(
            identity=str(file) if made else None,
            recipient=mine[0],
            configuration=rules.shown(found.config if found else config),
            recipients=readers,
        )
        return
    if made:
        typer.echo(f"Your identity: {file}. Back it up: without it, or another recipient, the secrets are lost.")
        if identity is not None and identity != age.default_key_file({**os.environ, "SOPS_AGE_KEY_FILE": ""}):
            typer.echo(f"It is found only by name: export SOPS_AGE_KEY_FILE={identity}")
    typer.echo(f"Your recipient: {mine[0]}")
    where = rules.shown(found.config if found else config)
    typer.echo(f"New secrets are encrypted for {', '.join(readers)} ({where}).")
    if not set(readers) & set(mine):
        typer.echo("You are none of them. Ask one of them to run: reconciler secrets recipients add " + mine[0])


@secrets.command("set")
def set_(
    reference: ReferenceArgument,
    path: PathOption = DESIRED,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a value that is there.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write one secret. It is read from standard input (one line end at its end is cut), or asked for, unseen."""
    import sys

    from reconciler.errors import SecretError
    from reconciler.sops import rules

    _check(reference)
    store = _store(path)
    if not force and store.has(reference):
        raise SecretError(f"the secret {reference} is there already. To overwrite it, use --force.")
    place = store.locate(reference)
    if not place.exists:
        store.rule_for(place.file)
    if sys.stdin.isatty():
        value = typer.prompt(reference, hide_input=True, confirmation_prompt=True, err=True)
    else:
        try:
            value = sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise SecretError("the value on standard input is not UTF-8 text. Write it in base64.") from None
    if not value:
        raise SecretError("the value is empty: nothing would be encrypted. Nothing was written.")
    (written,) = store.set({reference: value}, force=force)
    _told(output, f"{reference} is written to {rules.shown(written)}.", secret=reference, file=rules.shown(written))


@secrets.command()
def get(
    reference: ReferenceArgument,
    path: PathOption = DESIRED,
    show: Annotated[bool, typer.Option("--show", help="Print it even to a terminal.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print one secret to a pipe or a file, exactly. To a terminal only with --show."""
    import sys

    from reconciler.errors import SecretError

    _check(reference)
    seen = sys.stdout.isatty()
    if seen and not show:
        raise SecretError("this would show a secret on the terminal. Pipe it to a program, or use --show.")
    value = _store(path).value(reference)
    if output is Output.JSON:
        _json(secret=reference, value=value)
    else:
        typer.echo(value, nl=seen)


@secrets.command()
def edit(
    name: Annotated[str, typer.Argument(help="A file of the store, such as otp for secrets/otp.sops.yaml.")],
    path: PathOption = DESIRED,
    draft: Annotated[Path | None, typer.Option("--draft", help="Go on with a draft that was kept.")] = None,
) -> None:
    """Edit a file of secrets in $EDITOR, as plain YAML in memory. What you do not touch keeps its ciphertext."""
    import os
    import sys

    from reconciler.errors import SecretError
    from reconciler.secret_store import fingerprint
    from reconciler.sops import rules
    from reconciler.tools.editing import edited, editor, shred

    store = _store(path)
    file = store.file(name)
    there = file.is_file()
    if not there:
        store.rule_for(file)
    before = fingerprint(store.read(file)) if there else ""
    plain = store.open(file).plaintext() if there else ""
    if draft is not None:
        try:
            begin = draft.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise SecretError(f"{draft} cannot be read.") from None
    else:
        begin = plain or "# key: value\n"

    def take(text: str) -> bool:
        if not text.strip() or (not there and text == begin):
            return False
        with store.locked():
            if (fingerprint(store.read(file)) if file.is_file() else "") != before:
                raise SecretError(f"{rules.shown(file)} was changed by somebody else meanwhile.")
            after = store.open(file).with_plaintext(text) if there else store.new(file, text)
            if there and fingerprint(after) == before:
                return False
            store.write(file, after)
        return True

    def again(reason: str) -> bool:
        if not sys.stdin.isatty():
            return False
        typer.echo(reason, err=True)
        return typer.confirm("Edit it again?", default=True, err=True)

    argv = editor(os.environ)
    ending = next(e for e in (".sops.json", ".yaml") if e == ".yaml" or file.name.endswith(e))
    changed = edited(begin, f"{file.name.partition('.sops.')[0]}{ending}", argv, take, again, _warn)
    if draft is not None and draft.parent.name.startswith("reconciler-"):
        shred(draft.parent)
    typer.echo(f"{rules.shown(file)} is written." if changed else "Nothing was changed.")


@secrets.command("list")
def list_(path: PathOption = DESIRED, output: OutputOption = Output.TEXT) -> None:
    """List the secrets that the store has and that documents name; never a value. Needs no identity."""
    from reconciler.load import load
    from reconciler.model import Secret
    from reconciler.secret_mentions import mentions

    store = _store(path)
    stored = store.references()
    used: dict[str, set[str]] = {}
    forms: dict[str, str] = {}
    for subject, secret, _ in mentions(load(path)):
        if isinstance(secret, Secret):
            used.setdefault(secret.secret_ref, set()).add(subject)
            if secret.generate:
                forms[secret.secret_ref] = secret.generate
    rows = []
    for reference in sorted(stored.keys() | used.keys()):
        elsewhere = reference.startswith(("env:", "file:", "command:"))
        state = "stored" if reference in stored else "elsewhere" if elsewhere else "missing"
        if state == "missing" and reference in forms:
            state = "to be generated"
        rows.append({"secret": reference, "state": state, "usedBy": sorted(used.get(reference, ()))})
    if output is Output.JSON:
        _json(secrets=rows)
        return
    width = max((len(str(row["secret"])) for row in rows), default=0)
    for row in rows:
        users = ", ".join(row["usedBy"]) or "nobody"
        typer.echo(f"{row['secret']:<{width}}  {row['state']:<15}  used by {users}")
    if not rows:
        typer.echo("No secrets.")


@secrets.command()
def generate(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH/KEY]...", help="Only these; by default all that are missing.")
    ] = None,
    path: PathOption = DESIRED,
    force: Annotated[
        bool, typer.Option("--force", help="Make the named ones anew, and overwrite what is there.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make every secret that a document asks for with `generate:` and that the store does not have."""
    from reconciler.errors import InvalidInput, SecretError
    from reconciler.generated import FORMS
    from reconciler.load import load
    from reconciler.registry import default
    from reconciler.secret_mentions import conflicts, to_generate
    from reconciler.sops import rules

    if force and not references:
        raise SecretError("--force makes new values for secrets that are in use. Name them.")
    store = _store(path)
    loaded = load(path)
    problems = list(conflicts(loaded))
    if problems:
        raise InvalidInput(problems)
    wanted = to_generate(loaded, default())
    for reference in references or ():
        if reference not in wanted:
            from reconciler.validate import did_you_mean

            raise SecretError(f"no document asks to generate {reference}. {did_you_mean(reference, wanted)}".strip())
    chosen = {r: f for r, f in wanted.items() if r in (references or wanted)}
    new = {r: FORMS[f]() for r, f in sorted(chosen.items()) if force or not store.has(r)}
    written = store.set(new, force=force) if new else []
    if output is Output.JSON:
        _json(generated=[{"secret": r, "form": chosen[r]} for r in new], files=[rules.shown(f) for f in written])
        return
    for reference in new:
        typer.echo(f"{reference}: {chosen[reference]}")
    files = ", ".join(rules.shown(f) for f in written)
    typer.echo(f"{len(new)} made, in {files}. Commit them." if new else "Nothing was missing.")


@secrets.command()
def rotate(names: NamesArgument = None, path: PathOption = DESIRED, output: OutputOption = Output.TEXT) -> None:
    """Make new data keys and encrypt everything anew, for the same recipients. The values stay as they are."""
    from reconciler.sops import rules

    store = _store(path)
    done = []
    for file in _files(store, names):
        store.replace(file, lambda opened: opened.rotated())
        done.append({"file": rules.shown(file), "recipients": store.encrypted(file).recipients})
    if output is Output.JSON:
        _json(rotated=done)
        return
    for row in done:
        typer.echo(f"{row['file']}: new data key for {', '.join(row['recipients'])}")
    typer.echo("Who could read the old files still can, in Git's history: change the values, too, if that matters.")


@recipients.command("list")
def list_recipients(path: PathOption = DESIRED, output: OutputOption = Output.TEXT) -> None:
    """List who may read each file, and new files. Needs no identity."""
    from reconciler.sops import rules

    store = _store(path)
    rows: list[dict[str, Any]] = []
    for file in store.files():
        encrypted = store.encrypted(file)
        rows.append({"file": rules.shown(file), "recipients": encrypted.recipients, "otherKeys": encrypted.other_keys})
    found = rules.creation(store.folder / "new.sops.yaml")
    if output is Output.JSON:
        _json(files=rows, newFiles=list(found.recipients) if found else [])
        return
    for row in rows:
        typer.echo(f"{row['file']}: {', '.join([*row['recipients'], *row['otherKeys']])}")
    typer.echo(f"new files: {', '.join(found.recipients) if found else 'nobody; run `reconciler secrets init`'}")


@recipients.command("add")
def add_recipient(
    recipient: RecipientArgument,
    names: NamesArgument = None,
    path: PathOption = DESIRED,
    output: OutputOption = Output.TEXT,
) -> None:
    """Let somebody read the files, and new files. Values keep their ciphertext."""
    from reconciler.sops import age

    store, added = _store(path), age.check_recipient(age.bare(recipient))
    files = [f for f in _files(store, names, empty=True) if added not in map(age.bare, store.encrypted(f).recipients)]
    for file in files:
        store.replace(file, lambda opened: opened.with_recipients([added]))
    note = "" if names else _new_files(store, lambda readers: _with(readers, added))
    _changed(output, files, f"{added} may read", note)


@recipients.command("remove")
def remove_recipient(
    recipient: RecipientArgument,
    names: NamesArgument = None,
    path: PathOption = DESIRED,
    force: Annotated[bool, typer.Option("--force", help="Even if you cannot read the files afterwards.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Encrypt the files anew, without somebody. What is in Git's history stays readable for them."""
    from reconciler.errors import SecretError
    from reconciler.sops import age, rules

    store, removed = _store(path), age.bare(recipient)
    mine = set(store.identities().recipients)
    left = {}
    for file in _files(store, names, empty=True):
        readers = store.encrypted(file).recipients
        if removed in map(age.bare, readers):
            left[file] = _without(readers, removed)
            if not left[file]:
                raise SecretError(f"{rules.shown(file)}: {removed} is the last recipient. Add another one first.")
            if not force and not mine & set(map(age.bare, left[file])):
                raise SecretError(f"you could not read {rules.shown(file)} any more. If that is meant, use --force.")
    for file in left:
        # Whoever was added meanwhile, by somebody else, stays.
        store.replace(file, lambda opened: opened.rotated(_without(opened.recipients, removed)))
    note = "" if names else _new_files(store, lambda readers: _without(readers, removed))
    if not left and not note:
        raise SecretError(f"{removed} is no recipient. `reconciler secrets recipients list` shows them.")
    history = "What they could read so far is in Git's history, and they may know it: change those values."
    _changed(output, list(left), f"{removed} may not read", f"{note}\n{history}".strip())


# ------------------------------------------------------------------------------------------------ parts


def _store(path: Path) -> SecretStore:
    from reconciler.secret_store import SecretStore

    return SecretStore(path)


def _check(reference: str) -> None:
    """A reference as it may stand in a document."""
    from pydantic import ValidationError

    from reconciler.errors import SecretError
    from reconciler.model import Secret

    try:
        if Secret(secret_ref=reference).in_store:
            return
    except ValidationError:
        pass
    raise SecretError(f"{reference} names no secret of the store. Write path/key, such as otp/alice.")


def _new_identity(file: Path, root: Path) -> str:
    """Make an identity that only its owner can read, outside of the repo; gives its public side."""
    from datetime import UTC, datetime

    from reconciler.errors import SecretError
    from reconciler.secret_store import write_private
    from reconciler.sops import age

    there = file.absolute().resolve()
    folder = root.absolute().resolve()
    repository = next((p for p in (folder, *folder.parents) if (p / ".git").exists()), folder)
    if there.is_relative_to(repository):
        raise SecretError(f"{file} is inside the repository, where an identity must never be. Name another place.")
    private, public = age.new_identity()
    made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SecretError(f"{file} cannot be made: {error.strerror}.") from None
    write_private(file, f"# created: {made}\n# public key: {public}\n{private}\n", new=True)
    return public


def _files(store: SecretStore, names: list[str] | None, *, empty: bool = False) -> list[Path]:
    from reconciler.errors import SecretError
    from reconciler.sops import rules

    if not names:
        if not store.files() and not empty:
            raise SecretError(f"there are no files of secrets in {rules.shown(store.folder)}.")
        return store.files()
    files = [store.file(name) for name in names]
    for file in files:
        if not file.is_file():
            raise SecretError(f"there is no {rules.shown(file)}.")
    return files


def _with(readers: list[str], recipient: str) -> list[str]:
    return readers if _without(readers, recipient) != readers else [*readers, recipient]


def _without(readers: list[str], recipient: str) -> list[str]:
    from reconciler.sops import age

    return [reader for reader in readers if age.bare(reader) != recipient]


def _new_files(store: SecretStore, change: Any) -> str:
    """Change who may read new files; what was done, or what is left to do."""
    from reconciler.errors import SecretError
    from reconciler.secret_store import write_private
    from reconciler.sops import rules

    found = rules.creation(store.folder / "new.sops.yaml")
    if found is None:
        return ""
    readers = change(list(found.recipients))
    if readers == list(found.recipients):
        return ""
    if not readers:
        return f"{rules.shown(found.config)} still names the last recipient: new files need one."
    try:
        write_private(found.config, rules.with_recipients(found, readers), 0o644)
    except SecretError as error:
        return str(error)
    return f"New files: {', '.join(readers)} ({rules.shown(found.config)})."


def _changed(output: Output, files: list[Path], what: str, note: str) -> None:
    from reconciler.sops import rules

    names = [rules.shown(file) for file in files]
    if output is Output.JSON:
        _json(files=names, note=note)
        return
    typer.echo(f"{what} {', '.join(names)}." if names else "No file was changed.")
    if note:
        typer.echo(note)


def _told(output: Output, text: str, **fields: Any) -> None:
    if output is Output.JSON:
        _json(**fields)
    else:
        typer.echo(text)


def _json(**fields: Any) -> None:
    import json

    typer.echo(json.dumps({"version": 1, **fields}, ensure_ascii=False))


def _warn(text: str) -> None:
    typer.echo(text, err=True)
