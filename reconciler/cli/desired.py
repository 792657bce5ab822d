"""Commands that look at the desired state alone: validate, graph."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption, PathArgument, project

app = typer.Typer()


@app.command()
def validate(path: PathArgument = DESIRED, output: OutputOption = Output.TEXT) -> None:
    """Check all documents: shape, values, references, order. Needs no network and no secrets."""
    checked = project(path, None)
    catalog = checked.validate()
    desired = checked.desired(catalog)
    if output is Output.JSON:
        import json

        typer.echo(
            json.dumps(
                {
                    "version": 1,
                    "valid": True,
                    "documents": [d.address for d in catalog],
                    "resources": len(desired.resources),
                    "problems": [],
                }
            )
        )
        return
    from reconciler.render.terminal import console, many

    console().print(
        f"Valid: {many(len(catalog), 'document')}, {many(len(desired.resources), 'object')}, "
        f"{many(len(desired.targets), 'target')}.",
        style="green",
        highlight=False,
    )


class GraphFormat(StrEnum):
    """How a graph is drawn."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


@app.command()
def graph(
    path: PathArgument = DESIRED,
    output: Annotated[GraphFormat, typer.Option("--output", "--format", help="The notation.")] = GraphFormat.TEXT,
    resources: Annotated[bool, typer.Option("--resources", help="Every object instead of documents.")] = False,
) -> None:
    """Draw what comes before what."""
    from reconciler.render import graph as drawing

    desired = project(path, None).desired()
    edges = drawing.of_resources(desired) if resources else drawing.of_documents(desired)
    typer.echo(getattr(drawing, f"to_{output.value}")(edges), nl=False)
