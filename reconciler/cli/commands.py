"""The commands, known before their modules are imported.

A module beside this one has an `app`. Its text tells the commands: a function below `@app.command()` is called like it,
or as the decorator says, and its docstring is the help; a group is what `app.add_typer(lock, name="lock")` adds, and
`lock = typer.Typer(help="...")` has the help. A module `otp_keys` belongs to `otp`: it adds to the groups that are made
there. There is no list to edit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

_SIGNATURE: Final = r"(?P<function>\w+)\((?:(?!\n\S).|\n\) )*?"  # up to the next line without indentation
_COMMAND: Final = re.compile(
    rf'\n@app\.command\((?:"(?P<name>[^"]+)")?[^\n]*\)\ndef {_SIGNATURE}\n    \"{{3}}(?P<help>.*?)\"{{3}}', re.DOTALL
)
_GROUP: Final = re.compile(r'\napp\.add_typer\((?P<group>\w+), name="(?P<name>[^"]+)"')
_HELP: Final = r'\n{group} = typer\.Typer\(\s*help=(?P<help>(?:\s*"(?:[^"\\\n]|\\.)*")+)'


@dataclass(frozen=True)
class Named:
    """A command, or a group of commands, that is known by its name.

    Attributes:
        module: the name of the module that makes it.
        help: all that its help says about it, before the options.
    """

    name: str
    module: str
    help: str


@cache
def known() -> Mapping[str, Named]:
    """All commands and groups by name, in the order of their modules and, there, commands first."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return {one.name: one for file in files for one in named(file.stem, file.read_text(encoding="utf-8"))}


def named(module: str, text: str) -> Iterator[Named]:
    """The commands and groups that the text of a module makes."""
    from ast import literal_eval
    from inspect import cleandoc

    for found in _COMMAND.finditer(text):
        yield Named(found["name"] or found["function"].replace("_", "-"), module, cleandoc(found["help"]))
    for found in _GROUP.finditer(text):
        words = re.search(_HELP.format(group=found["group"]), text)
        yield Named(found["name"], module, literal_eval(f"({words['help']})") if words else "")


def load(name: str) -> Any:
    """Import the module of a command, and those that belong to it, and make what reads its arguments."""
    module = known()[name].module
    part: typer.Typer = import_module(f"{__package__}.{module}").app
    for file in sorted(Path(__file__).parent.glob(f"{module}_*.py")):
        import_module(f"{__package__}.{file.stem}")
    only = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    only.registered_commands = [c for c in part.registered_commands if name in (c.name, _spelled(c.callback))]
    only.registered_groups = [g for g in part.registered_groups if g.name == name]
    command = typer.main.get_group(only).commands[name]
    spare(command)
    return command


def _spelled(callback: Callable[..., Any] | None) -> str:
    return typer.main.get_command_name(callback.__name__) if callback else ""


class Commands(TyperGroup):
    """The group of all commands. To list, complete or correct names takes no module; to run one takes only its own."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update((name, TyperCommand(name, help=one.help)) for name, one in known().items())

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names; without one, an error that knows what was meant."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else command, rest


def spare(command: Any) -> None:
    """Let plain values reach a command as they are, here and in the commands of a group.

    Typer checks every parameter with pydantic, also one that was not given, and to load that takes longer than the
    rest of the command line. What was not given is right already, text is text, and a choice is one of a few.
    Versions of typer that use no pydantic are left alone.
    """
    parameters = command.get_params

    def get_params(ctx: Any) -> Any:
        found = parameters(ctx)
        for parameter in found:
            if hasattr(parameter, "type_descriptor") and not isinstance(parameter.process_value, _Plain):
                parameter.process_value = _Plain(parameter, parameter.process_value)
        return found

    command.get_params = get_params
    for one in getattr(command, "commands", {}).values():
        spare(one)


@dataclass(frozen=True)
class _Plain:
    parameter: Any
    checked: Callable[[Any, Any], Any]

    def __call__(self, ctx: Any, value: Any) -> Any:
        parameter = self.parameter
        source = ctx.get_parameter_source(parameter.name)
        if source is not None and source.name == "DEFAULT" and not parameter.required:
            return parameter.callback(ctx, parameter, value) if parameter.callback else value
        wanted = parameter.type_descriptor.annotation
        if type(value) is str and isinstance(wanted, type) and parameter.callback is None:
            if wanted is str:
                return value
            if issubclass(wanted, StrEnum) and value in {str(choice) for choice in wanted}:
                return wanted(value)
        return self.checked(ctx, value)
