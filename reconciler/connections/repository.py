"""A folder of files on the machine that the tool runs on, below which audits read. Nothing is ever written there.

Two reads: `Get("files", {include, exclude})` for what can be examined, and `Get("texts", {paths})` for more texts by
name. Links are not followed. Where the desired state lies in a Git working tree, the folder has to lie there, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.connections import Reveal, no_secrets
from reconciler.errors import ConnectError, ContractError
from reconciler.model import Get, Read, Reply, Secret, StepResult, Target, Work


def connect(target: Target, reveal: Reveal = no_secrets) -> Repository:
    """The folder `root` of the settings; `beside` is the folder of the document that names it."""
    return Repository(target.name, Path(target.settings["root"]), Path(target.settings["beside"]))


class Repository:
    """A folder that is only read."""

    def __init__(self, name: str, root: Path, beside: Path) -> None:
        self._name, self._root, self._beside = name, root, beside

    def read(self, reads: Sequence[Read]) -> Sequence[Reply]:
        """See `Connection.read`.

        Raises:
            ConnectError: there is no such folder, or it lies outside of the working tree.
        """
        root = self._checked()
        return [self._answer(root, one) for one in reads]

    def execute(self, batch: Sequence[Work], reveal: Callable[[Secret], str]) -> Iterable[StepResult]:
        """Never.

        Raises:
            ContractError: always.
        """
        raise ContractError("the caller", f"{self._name} is a folder that is only read, and was asked to write.")

    def settle(self, witnesses: Sequence[str]) -> None:
        """Nothing is ever begun here."""

    def close(self) -> None:
        """Nothing is held."""

    def _checked(self) -> Path:
        root = self._root.resolve()
        if not root.is_dir():
            raise ConnectError(
                f"{self._name}: {self._root} is no folder. Mend spec.path of NonRootPolicy/{self._name}."
            )
        tree = working_tree(self._beside.resolve())
        if tree is not None and not root.is_relative_to(tree):
            raise ConnectError(f"{self._name}: {self._root} lies outside of {tree}. Name a folder of this repository.")
        return root

    def _answer(self, root: Path, one: Read) -> Reply:
        from reconciler.tools.nonroot import files

        if not isinstance(one, Get):
            raise ContractError("the caller", f"A folder of files was asked for {type(one).__name__}.")
        try:
            match one.path:
                case "files":
                    found = files.read(root, one.params["include"], one.params["exclude"])
                    images = [[i.file, i.name, i.text] for i in found.images]
                    seen: Any = {"texts": found.texts, "images": images, "unreadable": found.unreadable}
                    seen["today"] = datetime.now(UTC).date().isoformat()
                case "texts":
                    seen = files.scripts(root, one.params["paths"])
                case _:
                    raise ContractError("the caller", f"A folder of files has no {one.path}.")
        except OSError as error:
            raise ConnectError(f"{self._name}: {self._root} cannot be read: {error.strerror}.") from None
        return Reply(json.dumps(seen))


def working_tree(folder: Path) -> Path | None:
    """The Git working tree that a folder lies in; None outside of any."""
    return next((f for f in (folder, *folder.parents) if (f / ".git").exists()), None)
