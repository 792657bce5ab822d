"""Options that several commands share, spelled once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reconciler.model import Target
    from reconciler.project import Project


class Output(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


PathArgument = Annotated[
    Path, typer.Argument(metavar="[PATH]", help="The folder (or one file) of the desired state.", show_default=True)
]
DESIRED = Path("desired-state")

OutputOption = Annotated[Output, typer.Option("--output", help="`json` for programs.", case_sensitive=False)]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        envvar="RECONCILER_STATE",
        help="Folder for inventory, journal and locks; by default .reconciler beside the desired state.",
    ),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        help="Only this and what it stands on: Kind/name, kind=, name=, target= or a label such as team=ops; "
        "* matches anything. May be repeated.",
    ),
]
ExcludeOption = Annotated[list[str] | None, typer.Option("--exclude", help="Not this; spelled like --target.")]
ParallelOption = Annotated[int, typer.Option("--parallel", min=1, help="How many targets are worked on at once.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Let plans pass that delete more than 30% of a target, or everything.")
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        help="Rehearse: use the offline images FOLDER/<host> instead of the real hosts.",
        metavar="FOLDER",
    ),
]


def project(path: Path, state: Path | None, images: Path | None = None, **settings: Any) -> Project:
    """The project at a path, as the options ask for it."""
    import os
    from dataclasses import replace

    from reconciler.project import Project, state_folder

    _tune()
    if images is not None:
        folder = images.absolute()

        def retarget(target: Target) -> Target:
            if target.connection == "repository":
                return target  # a folder that is only read has no image
            return replace(target, connection="image", settings={"root": str(folder / target.name)})

        settings["retarget"] = retarget
    return Project(path, state_folder(path, state, os.environ), **settings)


def _tune() -> None:
    """The threads of a command mostly wait for hosts: to switch between them as often as Python does by itself is work
    for nothing."""
    import sys

    sys.setswitchinterval(0.02)
