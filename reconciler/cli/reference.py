"""Commands that explain the language of documents: kinds, explain, schema."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from reconciler.cli.options import Output, OutputOption

app = typer.Typer()


def _complete_kind(incomplete: str) -> list[str]:
    from reconciler.registry import default

    return [name for name in default().kinds if name.lower().startswith(incomplete.lower())]


class KindsOutput(StrEnum):
    """How kinds are listed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


@app.command()
def kinds(
    output: Annotated[
        KindsOutput, typer.Option("--output", help="`json` for programs; `markdown` is docs/kinds.md, all of it.")
    ] = KindsOutput.TEXT,
) -> None:
    """List the kinds of documents."""
    from reconciler.registry import default

    found = default().kinds.values()
    if output is KindsOutput.MARKDOWN:
        from reconciler.render.reference import kinds_markdown

        typer.echo(kinds_markdown(default()), nl=False)
        return
    if output is KindsOutput.JSON:
        import json

        typer.echo(
            json.dumps(
                [
                    {
                        "kind": k.name,
                        "summary": k.summary,
                        "target": k.target is not None,
                        "fields": list(_properties(k)),
                    }
                    for k in found
                ],
                indent=2,
            )
        )
        return
    width = max(len(k.name) for k in found)
    for kind in found:
        typer.echo(f"{kind.name:<{width}}  {kind.summary}")


@app.command()
def explain(
    what: Annotated[
        str,
        typer.Argument(metavar="KIND[.FIELD]", help="For example File or File.mode.", autocompletion=_complete_kind),
    ],
    output: OutputOption = Output.TEXT,
) -> None:
    """Explain a kind with an example, or one of its fields."""
    from reconciler.errors import InvalidInput, Problem
    from reconciler.registry import default
    from reconciler.schema import schema
    from reconciler.validate import did_you_mean

    name, *path = what.split(".")
    known = default().kinds
    kind = known.get(name) or next((k for k in known.values() if k.name.casefold() == name.casefold()), None)
    if kind is None:
        fix = did_you_mean(name, known) or "`reconciler kinds` lists them."
        raise InvalidInput([Problem(f"there is no kind {name}.", fix)])
    whole = schema(kind)
    node: dict[str, Any] = whole["properties"]["spec"]
    for part in path[1:] if path[:1] == ["spec"] else path:
        fields = _fields(node, whole)
        if part not in fields:
            fix = did_you_mean(part, fields) or f"Known here: {', '.join(fields) or 'nothing'}."
            raise InvalidInput([Problem(f"{kind.name} has no field {what.partition('.')[2]}.", fix)])
        node = fields[part]
    if output is Output.JSON:
        import json

        typer.echo(json.dumps(node if path else whole, indent=2, ensure_ascii=False))
        return
    if path:
        typer.echo(f"{what}  {_type_text(node, whole)}\n")
        typer.echo(f"    {node.get('description', '')}\n")
    else:
        import inspect

        typer.echo(f"{kind.name}\n\n{inspect.cleandoc(kind.spec.__doc__ or '')}\n")
    fields = _fields(node, whole)
    if fields:
        typer.echo("Fields" if path else "Fields of spec")
        required = _resolved(node, whole).get("required", ())
        for field, value in fields.items():
            mark = ", required" if field in required else ""
            typer.echo(f"  {field}  ({_type_text(value, whole)}{mark})")
            if value.get("description"):
                typer.echo(f"      {value['description']}")


def _properties(kind: Any) -> dict[str, Any]:
    from reconciler.schema import schema

    return _fields(schema(kind)["properties"]["spec"], schema(kind))


def _resolved(node: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Follow references and lists to the mapping inside, if there is one."""
    while True:
        if "$ref" in node:
            node = whole["definitions"][node["$ref"].rpartition("/")[2]]
        elif node.get("type") == "array" and isinstance(node.get("items"), dict):
            node = node["items"]
        elif "anyOf" in node:
            node = next((c for c in node["anyOf"] if "$ref" in c or "items" in c or "properties" in c), {})
        else:
            return node


def _fields(node: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _resolved(node, whole).get("properties", {})
    return found


def _type_text(node: dict[str, Any], whole: dict[str, Any]) -> str:
    if "$ref" in node:
        return "mapping"
    if "enum" in node:
        return " | ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_type_text(c, whole) for c in node["anyOf"]))
    if node.get("type") == "array":
        items = node.get("items", {})
        return f"list of {_type_text(items, whole)}" if items else "list"
    default = f", default {node['default']!r}" if node.get("default") not in (None, [], {}, "") else ""
    name = str(node.get("type", "any"))
    return {"string": "text", "object": "mapping", "boolean": "true/false"}.get(name, name) + default


@app.command("schema")
def schema_(
    kind: Annotated[str | None, typer.Argument(help="A kind; all by default.", autocompletion=_complete_kind)] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write FOLDER/KIND.json for editors.", metavar="FOLDER")
    ] = None,
) -> None:
    """Print or write the JSON Schemas (draft-07) that editors use to check and complete documents."""
    from reconciler.errors import InvalidInput, Problem
    from reconciler.registry import default
    from reconciler.schema import text
    from reconciler.validate import did_you_mean

    known = default().kinds
    if kind is not None and kind not in known:
        raise InvalidInput([Problem(f"there is no kind {kind}.", did_you_mean(kind, known))])
    chosen = [known[kind]] if kind else list(known.values())
    if write is None:
        typer.echo("".join(text(k) for k in chosen), nl=False)
        return
    write.mkdir(parents=True, exist_ok=True)
    for one in chosen:
        (write / f"{one.name}.json").write_text(text(one))
    typer.echo(f"{len(chosen)} schemas in {write}")
