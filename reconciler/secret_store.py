"""The store of secrets: SOPS files below `secrets/` in the desired state.

`otp/alice` is the key `alice` of `secrets/otp.sops.yaml`. Of the parts of a reference, the file takes as many as there
is a file for, and the rest are keys inside each other (`~1` stands for a `/` in a key, `~0` for a `~`, as in
RFC 6901); what no file has yet goes to the file of all parts but the last. Keys are plain in such files, so that
references are checked without an identity.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import secrets as random
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from reconciler.errors import InvalidInput, Position, Problem, SecretError
from reconciler.load import MAX_FILE_BYTES, Loaded
from reconciler.secret_mentions import conflicts, mentions
from reconciler.sops import age, document, rules
from reconciler.sops.cipher import NULL, Scalar, is_encrypted
from reconciler.sops.cipher import Path as KeyPath
from reconciler.sops.document import Encrypted, Opened, dotted

FOLDER: Final = "secrets"
ENDINGS: Final = (".sops.yaml", ".sops.yml", ".sops.json")


@dataclass(frozen=True)
class Place:
    """What a reference means.

    Attributes:
        file: of the store, whether it is there or not.
        keys: the parts of the reference inside the file.
        exists: whether the file is there.
    """

    file: Path
    keys: tuple[str, ...]
    exists: bool


class SecretStore:
    """The SOPS files of one desired state.

    Args:
        path: the folder or file of the desired state.
        environ: where identities are looked for.
    """

    def __init__(self, path: Path, environ: Mapping[str, str] | None = None) -> None:
        self.root = path if path.is_dir() else path.parent
        self.folder = self.root / FOLDER
        self._environ = os.environ if environ is None else environ
        self._encrypted: dict[Path, Encrypted] = {}
        self._opened: dict[Path, Opened] = {}
        self._lock = threading.Lock()

    # -------------------------------------------------------------------------------------------- references

    def locate(self, reference: str) -> Place:
        """The file and the key of a reference.

        Raises:
            SecretError: two files have it.
        """
        parts = reference.split("/")
        found = []
        for end in range(len(parts) - 1, 0, -1):
            for ending in ENDINGS:
                file = self.folder.joinpath(*parts[: end - 1], parts[end - 1] + ending)
                if file.is_file():
                    found.append(Place(file, tuple(map(_unescaped, parts[end:])), True))
        holders = [place for place in found if self._holds(place)] if len(found) > 1 else found
        if len(holders) > 1:
            names = " and ".join(rules.shown(place.file) for place in holders)
            raise SecretError(f"the secret {reference} is in {names}. Rename one of them.")
        if found:
            return (holders or found)[0]
        *folders, name, key = parts
        return Place(self.folder.joinpath(*folders, name + ENDINGS[0]), (_unescaped(key),), False)

    def _holds(self, place: Place) -> bool:
        with contextlib.suppress(InvalidInput, SecretError):
            return _path(self.encrypted(place.file), place.keys) is not None
        return False

    def file(self, name: str) -> Path:
        """The file of this name (`otp`, or its path), whether it is there or not.

        Raises:
            SecretError: it would lie outside the store.
        """
        for file in (self.folder / f"{name}{ending}" for ending in ENDINGS):
            if file.is_file():
                return file
        given = Path(name)
        if given.name.endswith(ENDINGS) and given.absolute().is_relative_to(self.folder.absolute()):
            return given
        file = self.folder / f"{name}{ENDINGS[0]}"
        if ".." in file.parts or name.startswith("/"):
            raise SecretError(f"{name} lies outside {rules.shown(self.folder)}. Name a file of the store, such as otp.")
        return file

    def files(self) -> list[Path]:
        """Every SOPS file of the store, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.rglob("*") if p.name.endswith(ENDINGS) and not p.name.startswith("."))

    def name_of(self, file: Path) -> str:
        """A file as references begin: `otp`."""
        relative = file.relative_to(self.folder).as_posix()
        return next(relative.removesuffix(ending) for ending in ENDINGS if relative.endswith(ending))

    def references(self) -> dict[str, Position]:
        """Every secret of the store, by reference: where it stands. Files that cannot be read are left out."""
        found = {}
        for file in self.files():
            with contextlib.suppress(InvalidInput, SecretError):
                encrypted = self.encrypted(file)
                for leaf in encrypted.text.leaves:
                    if leaf.written.type != "null":
                        parts = (self.name_of(file), *map(_escaped, leaf.path))
                        found["/".join(parts)] = encrypted.text.position(leaf.path)
        return found

    # -------------------------------------------------------------------------------------------- reading

    def encrypted(self, file: Path) -> Encrypted:
        """A file with its keys, without its values.

        Raises:
            SecretError: it cannot be read.
            InvalidInput: it is no SOPS file.
        """
        found = self._encrypted.get(file)
        if found is None:
            found = self._encrypted[file] = Encrypted(self.read(file), rules.shown(file))
        return found

    def forget(self, file: Path) -> None:
        """Read a file anew when it is needed next."""
        self._encrypted.pop(file, None)
        self._opened.pop(file, None)

    def read(self, file: Path) -> str:
        """The text of a file of the store.

        Raises:
            SecretError: it cannot be read, is no text, or leads out of the desired state.
        """
        name = rules.shown(file)
        try:
            if not self._is_inside(file):
                raise SecretError(f"{name} is a link that leads out of the desired state. Copy the file.")
            if file.stat().st_size > MAX_FILE_BYTES:
                raise SecretError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB. Split it.")
            return file.read_bytes().decode()
        except OSError as error:
            raise SecretError(f"{name} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise SecretError(f"{name} is not UTF-8 text. Restore it from Git.") from None

    def _is_inside(self, file: Path) -> bool:
        try:
            return file.absolute().resolve().is_relative_to(self.root.resolve())
        except RuntimeError:  # what Python before 3.13 says to a link that leads to itself
            raise SecretError(f"{rules.shown(file)} is a link that leads to itself. Remove it.") from None

    def identities(self) -> age.Identities:
        """Ours. Looked for anew each time.

        Raises:
            SecretError: one that was named is no identity.
        """
        return age.identities(self._environ)

    def open(self, file: Path) -> Opened:
        """A file with its values, verified.

        Raises:
            SecretError: it cannot be opened, or was tampered with.
        """
        with self._lock:
            found = self._opened.get(file)
            if found is None:
                try:
                    found = self._opened[file] = self.encrypted(file).unlock(self.identities)
                except InvalidInput as error:
                    raise SecretError(str(error)) from None
            return found

    def value(self, reference: str) -> str:
        """A secret.

        Raises:
            SecretError: it is not there, or cannot be read.
        """
        place = self.locate(reference)
        problem = self._absent(reference, place)
        if problem:
            raise SecretError(f"the secret {reference} {problem.message} {problem.fix}".rstrip())
        opened = self.open(place.file)
        path = _path(self.encrypted(place.file), place.keys)
        found = opened.value(path) if path is not None else None
        if found is None:
            raise SecretError(f"the secret {reference} is not in {rules.shown(place.file)}.")
        try:
            found.text.encode()
        except UnicodeEncodeError:
            raise SecretError(f"the secret {reference} is no UTF-8 text.") from None
        return found.shown

    def has(self, reference: str) -> bool:
        """Whether the store has a value for it; needs no identity.

        Raises:
            SecretError: that cannot be said, for example because the file is damaged.
        """
        return self._is_there(self.locate(reference))

    def _is_there(self, place: Place) -> bool:
        if not place.exists:
            return False
        try:
            encrypted = self.encrypted(place.file)
        except InvalidInput as error:
            raise SecretError(str(error)) from None
        path = _path(encrypted, place.keys)
        return path is not None and encrypted.text.written.get(path, NULL) != NULL

    def _absent(self, reference: str, place: Place) -> Problem | None:
        """Why a secret is not in the store, by the plain keys alone."""
        if self._is_there(place):
            return None
        name = rules.shown(place.file)
        if not place.exists:
            return Problem(f"is not there: there is no {name}.", f"Run `reconciler secrets set {reference}`.")
        encrypted = self.encrypted(place.file)
        path = _path(encrypted, place.keys)
        inside = encrypted.text.keys(path) if path is not None else None
        if inside is not None:
            some = ", ".join(f"{reference}/{_escaped(key)}" for key in inside[:3])
            return Problem(f"is a whole section of {name}.", f"Name one key of it: {some}." if some else "")
        from reconciler.validate import did_you_mean

        near = did_you_mean(reference, self.references())
        return Problem(f"is not in {name}.", near or f"Run `reconciler secrets set {reference}`.")

    # -------------------------------------------------------------------------------------------- checking

    def problems(self, loaded: Loaded, *, typed: bool) -> list[Problem]:
        """What is wrong with references and with the store itself, without an identity.

        Args:
            typed: every document fits its kind, so that what is left stands in mappings of free form.
        """
        found = list(self._damaged())
        found += conflicts(loaded)
        for subject, secret, place in mentions(loaded):
            if isinstance(secret, str):
                if typed:
                    found.append(Problem(secret, "", subject, place()))
                continue
            if secret.in_store:
                try:
                    where = self.locate(secret.secret_ref)
                    fine = self._is_there(where) or (secret.generate and self._is_free(secret.secret_ref))
                    problem = None if fine else self._absent(secret.secret_ref, where)
                except SecretError as error:
                    # A file that is damaged is reported once, above.
                    problem = None
                    if "Rename one of them" in str(error):
                        found.append(Problem(str(error), "", subject, place()))
                if problem:
                    message = f"the secret {secret.secret_ref} {problem.message}"
                    found.append(Problem(message, problem.fix, subject, place()))
        return found

    def _is_free(self, reference: str) -> bool:
        """Whether a value may be generated here: the place is empty, and no section of other values."""
        place = self.locate(reference)
        if not place.exists:
            return True
        encrypted = self.encrypted(place.file)
        path = _path(encrypted, place.keys)
        return path is None or encrypted.text.keys(path) is None

    def _damaged(self) -> Iterator[Problem]:
        for file in self.files():
            try:
                encrypted = self.encrypted(file)
            except InvalidInput as error:
                yield from error.problems
                continue
            except SecretError as error:
                name = rules.shown(file)
                yield Problem(str(error).removeprefix(f"{name} "), position=Position(name))
                continue
            if encrypted.rule.name not in ("unencrypted_suffix", "encrypted_suffix") or encrypted.rule_by_comment:
                continue  # a pattern of a stranger may take for ever
            plain = (
                path
                for path, written in encrypted.text.written.items()
                if written.text and not is_encrypted(written.text) and encrypted.rule.encrypts(path)
            )
            for path in islice(plain, 20):
                yield Problem(
                    f"{dotted(path)} is not encrypted.",
                    "Whoever can read the repository knows it: change it, with `reconciler secrets set`.",
                    position=encrypted.text.position(path),
                )

    # -------------------------------------------------------------------------------------------- writing

    def set(self, values: Mapping[str, str], *, force: bool = False) -> list[Path]:
        """Write secrets, each file once.

        Args:
            values: by reference; none is empty.
            force: overwrite values that are there.

        Returns:
            the files that were written.

        Raises:
            SecretError: one of them is there already, or a file cannot be opened; then nothing is written to it.
            InvalidInput: a file is damaged.
        """
        written = []
        with self.locked():
            for file in self.files():
                self.forget(file)
            by_file: dict[Path, dict[KeyPath, Scalar]] = {}
            # The shorter ones first: a file that one of them makes takes the longer ones as its sections.
            for reference, value in sorted(values.items(), key=lambda item: item[0].count("/")):
                place = self._planned(reference, by_file)
                if place.exists and not force and self.has(reference):
                    raise SecretError(f"the secret {reference} is there already. To overwrite it, use --force.")
                path: KeyPath = place.keys
                if place.exists:
                    path = _path(self.encrypted(place.file), place.keys) or place.keys
                by_file.setdefault(place.file, {})[path] = Scalar("str", value)
            for file, new in by_file.items():
                text = self.open(file).with_values(new) if file.is_file() else self._new(file, new)
                self.write(file, text)
                written.append(file)
        return written

    def check_writable(self, reference: str) -> None:
        """Make sure, before something makes a secret that is shown once, that there is a place for it.

        Raises:
            SecretError: nobody is named for whom it would be encrypted, or its file cannot be opened.
            InvalidInput: its file is damaged.
        """
        file = self.locate(reference).file
        if file.is_file():
            self.open(file)
        else:
            self.rule_for(file)

    def _planned(self, reference: str, new: Container[Path]) -> Place:
        """Where a secret will be written: in a file that is there, or in one that will be."""
        place = self.locate(reference)
        parts = reference.split("/")
        for end in range(len(parts) - 1, 0, -1) if not place.exists else ():
            file = self.folder.joinpath(*parts[: end - 1], parts[end - 1] + ENDINGS[0])
            if file in new:
                return Place(file, tuple(map(_unescaped, parts[end:])), False)
        return place

    def _new(self, file: Path, values: Mapping[KeyPath, Scalar]) -> str:
        return self.new(file, document.parse("", file.name).inserted(values))

    def rule_for(self, file: Path) -> rules.Creation:
        """For whom a new file is encrypted, and which of its values.

        Raises:
            SecretError: no `.sops.yaml` says so.
        """
        found = rules.creation(file)
        if found is None:
            raise SecretError(
                f"{rules.shown(file)} has no recipients: no {rules.NAME} names any. Run `reconciler secrets init`."
            )
        return found

    def new(self, file: Path, plain: str) -> str:
        """The text of a new file, for the recipients of the `.sops.yaml` above it.

        Raises:
            SecretError: no rule names any.
        """
        found = self.rule_for(file)
        text = document.new(plain, rules.shown(file), found.recipients, found.rule)
        clear = [leaf for leaf in document.parse(plain, file.name).leaves if not found.rule.encrypts(leaf.path)]
        if clear and len(clear) == len(document.parse(plain, file.name).leaves):
            raise SecretError(
                f"{rules.shown(file)}: {dotted(clear[0].path)} would not be encrypted "
                f"({found.rule.name}: {found.rule.value} in {rules.shown(found.config)})."
            )
        return text

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in the store while files are read, changed and written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise SecretError(f"{rules.shown(self.folder)} cannot be used: {error.strerror}.") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def replace(self, file: Path, change: Callable[[Opened], str]) -> bool:
        """Open a file, change it, and write it; alone in the store.

        Returns:
            whether anything changed.

        Raises:
            SecretError, InvalidInput: it cannot be opened or changed; then it is as it was.
        """
        with self.locked():
            self.forget(file)
            before = self.read(file)
            after = change(self.open(file))
            if after != before:
                self.write(file, after)
            return after != before

    def write(self, file: Path, text: str) -> None:
        """Write a file of the store, all or nothing, readable for its owner only; inside `locked`.

        Raises:
            SecretError: it cannot be written; then it is as it was.
        """
        if not self._is_inside(file):
            raise SecretError(f"{rules.shown(file)} leads out of the desired state.")
        self.forget(file)
        # What a writer left behind that was killed; we are alone here.
        for draft in file.parent.glob(f".{glob.escape(file.name)}.*"):
            with contextlib.suppress(OSError):
                draft.unlink()
        write_private(file, text)


def write_private(file: Path, text: str, mode: int = 0o600, *, new: bool = False) -> None:
    """Write a file, all or nothing.

    Args:
        new: never over one that is there.

    Raises:
        SecretError: it cannot be written; then it is as it was.
    """
    draft = file.with_name(f".{file.name}.{random.token_hex(6)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        if new:
            os.link(draft, file)
            draft.unlink()
        else:
            draft.replace(file)
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise SecretError(f"{rules.shown(file)} cannot be written: {error.strerror}.") from None


def fingerprint(text: str) -> str:
    """Tells whether a file changed since it was read."""
    return hashlib.sha256(text.encode()).hexdigest()


def _path(encrypted: Encrypted, keys: tuple[str, ...]) -> KeyPath | None:
    """Keys of a reference as a path of the file: a number is an index where a list stands."""
    path: KeyPath = ()
    for key in keys:
        known = encrypted.text.keys(path)
        if known is None or key not in known:
            return None
        path = (*path, key if encrypted.text.is_map(path) else int(key))
    return path


def _escaped(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
