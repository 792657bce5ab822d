"""Containers of the desired state and Kubernetes YAML: podman export, import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconciler.cli.options import DESIRED, Output, OutputOption
from reconciler.cli.otp import PathOption, find_document, open_project, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer()
podman = typer.Typer(
    help="Containers (ContainerPod) as Kubernetes YAML, and the other way round. Nothing is changed anywhere.",
    no_args_is_help=True,
)
app.add_typer(podman, name="podman")


@podman.command()
def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A ContainerPod of the desired state.")],
    path: PathOption = DESIRED,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print a ContainerPod as Kubernetes YAML, for `podman kube play` or a cluster.

    Secrets are only referred to: a Secret DOCUMENT-NAME with the key NAME. What Kubernetes has no place for is listed.
    """
    from reconciler.tools.podman.kubernetes import exported

    document = find_document(open_project(path).validate(), name, "ContainerPod")
    _print(exported(document.name, document.spec), output)


@podman.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="Kubernetes YAML, as `podman kube generate` writes it; - for standard input.", metavar="FILE"
        ),
    ],
    hosts: Annotated[list[str], typer.Option("--host", help="Who shall run it. May be repeated.")],
    secrets: Annotated[
        str | None, typer.Option("--secrets", help="Where references of the secrets begin; by default the pod's name.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print ContainerPods for the pods of a Kubernetes file: `reconciler podman import FILE --host db1 >pod.yaml`.

    What a ContainerPod has no place for is listed. Images named by tag, and references of secrets, are for you to mend.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from reconciler.errors import ReconcilerError
    from reconciler.tools.podman.kubernetes import imported

    try:
        documents = [document for document in YAML(typ="safe").load_all(_text(file)) if document is not None]
    except OSError as error:
        raise ReconcilerError(f"{file} cannot be read: {error.strerror}.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ReconcilerError(f"{file} is not YAML: {str(error).splitlines()[0]}.") from None
    try:
        found = imported(documents, hosts, secrets)
    except ValueError as error:
        raise ReconcilerError(f"{file}: {error}.") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ReconcilerError(f"{file} is no Kubernetes YAML that can be read: {error} is missing or wrong.") from None
    _print(found, output)


def _text(file: Path) -> str:
    if str(file) == "-":
        import sys

        return sys.stdin.buffer.read().decode()
    return file.read_text(encoding="utf-8")


def _print(found: Any, output: Output) -> None:
    if output is Output.JSON:
        print_json(documents=found.documents, leftOut=found.left_out)
        return
    typer.echo(_yaml(found.documents), nl=False)
    for sentence in found.left_out:
        typer.echo(f"left out: {sentence}", err=True)


def _yaml(documents: Sequence[Any]) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = StringIO()
    yaml.dump_all(documents, out)
    return out.getvalue()
