"""The command `import`: documents for what a live system has already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption, PathArgument, StateOption, project

app = typer.Typer()

KindOption = Annotated[list[str] | None, typer.Option("--kind", help="Only documents of this kind. May be repeated.")]


@app.command("import")
def import_(
    path: PathArgument = DESIRED,
    source: Annotated[
        str, typer.Option("--from", metavar="KIND/NAME", help="The system to read, such as ProxmoxCluster/dc01.")
    ] = "",
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Only documents of this kind. May be repeated.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Write one file for each kind there, all new.")
    ] = None,
    state: StateOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write documents for what a live system has and the desired state does not say yet. Changes nothing there.

    Prints them, or writes them with --to. A plan over them is empty. Secrets cannot be read back and are left out.
    """
    from reconciler.discover import discover, text_of
    from reconciler.errors import PlanError
    from reconciler.render.terminal import errors_console, many
    from reconciler.validate import did_you_mean

    here = project(path, state)
    catalog = here.validate()
    targets = {d.address: d.name for d in catalog if catalog.registry.kinds[d.kind].target}
    if source not in targets:
        fix = did_you_mean(source, targets) or f"There are: {', '.join(targets) or 'none'}."
        raise PlanError(f"--from {source or 'is missing'}: no such system in the desired state. {fix}")
    for name in kind or ():
        if name not in catalog.registry.kinds:
            raise PlanError(
                f"--kind {name}: there is no such kind. {did_you_mean(name, catalog.registry.kinds)}".strip()
            )
    target = here.retarget(catalog.targets[targets[source]])
    with here.pool({target.name: target}, read_only=True) as pool:
        found, left = discover(target, catalog, pool.get(target.name).read, kind or ())
    if output is Output.JSON:
        import json

        rows = [{"kind": f.kind, "name": f.name, "spec": f.spec} for f in found]
        typer.echo(json.dumps({"version": 1, "from": source, "documents": rows, "left": left}, ensure_ascii=False))
        return
    if to is None:
        typer.echo(text_of(found), nl=False)
    else:
        files = {name: to / f"{_file_name(name)}.yaml" for name in dict.fromkeys(f.kind for f in found)}
        there = [str(file) for file in files.values() if file.exists()]
        if there:
            raise PlanError(f"--to {to}: {', '.join(there)} exists already. Nothing was written; name a new folder.")
        to.mkdir(parents=True, exist_ok=True)
        for name, file in files.items():
            file.write_text(text_of(f for f in found if f.kind == name))
    for sentence in left:
        errors_console().print(sentence, highlight=False, markup=False, style="yellow")
    words = f"{many(len(found), 'document')} for what {source} has and the desired state does not say."
    errors_console().print(words, highlight=False, markup=False)


def _file_name(kind: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in kind).strip("-")
