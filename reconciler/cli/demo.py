"""The demo: the main job on simulated hosts, with nothing installed and nothing touched but a temporary folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconciler.cli.options import DESIRED

if TYPE_CHECKING:
    from reconciler.model import Secret
    from reconciler.plan import Plan
    from reconciler.project import Project
    from reconciler.secrets import Secrets

app = typer.Typer()


@app.command()
def demo(
    path: Annotated[Path | None, typer.Argument(help="A desired state; the sample data centre by default.")] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="A new folder for the simulated hosts, left in place to look at.")
    ] = None,
) -> None:
    """Run the main job on a simulated data centre: validate, plan, apply, drift, repair. Touches no real host."""
    import shutil
    import tempfile

    from reconciler.errors import PlanError

    folder = Path(tempfile.mkdtemp(prefix="reconciler-demo-"))
    if keep is not None:
        folder.rmdir()
        folder = keep.absolute()
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise PlanError(f"--keep needs a new folder: {keep}: {error.strerror}.") from None
    demo = None
    try:
        demo = _Demo(_sample(path), folder)
        demo.go()
    finally:
        if demo is not None:
            demo.close()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _sample(path: Path | None) -> Path:
    """The sample of the clone that we run in, or the one that came with the package."""
    packaged = Path(__file__).parents[1] / "lab" / "sample"
    cloned = Path(__file__).parents[2] / "desired-state"
    return path or (packaged if packaged.is_dir() else cloned if cloned.is_dir() else DESIRED)


def _throwaway(sample: Path, state: Path) -> Secrets:
    """Secrets of the right form, made up now: simulated hosts get no real ones, and nobody needs an identity."""
    from reconciler.generated import FORMS
    from reconciler.load import load
    from reconciler.registry import default
    from reconciler.secret_mentions import to_generate
    from reconciler.secrets import Secrets, key_in

    forms = to_generate(load(sample), default())

    class Throwaway(Secrets):
        def _look_up(self, secret: Secret) -> str:
            return FORMS[secret.generate or forms.get(secret.secret_ref, "password")]()

    return Throwaway(key_in(state), {})


class _Demo:
    """The acts, in order; each checks that what it shows is true."""

    def __init__(self, sample: Path, folder: Path) -> None:
        from reconciler.cli.options import project
        from reconciler.lab.stage import Stage
        from reconciler.render.terminal import console

        self._out = console()
        self._images = folder / "hosts"
        self._project: Project = project(sample, folder / "state")
        self._project.secrets = _throwaway(sample, folder / "state")
        self._stage = Stage(self._images, self._project.validate(), self._project.secrets.reveal)
        self._project.retarget = self._stage.stand_in

    def close(self) -> None:
        """Stop what was started."""
        self._stage.close()

    def go(self) -> None:
        """All acts."""
        self._say("1. Validate the desired state")
        desired = self._project.desired()
        self._out.print(f"{len(desired.resources)} objects on {len(desired.targets)} simulated systems, no problems.")
        self._say("2. Plan: compare it with the live systems")
        self._show(self._plan())
        self._say("3. Apply")
        self._apply()
        self._say("4. Plan again")
        self._expect_empty()
        self._say("5. Three things change behind the tool's back")
        tampered = self._tamper()
        self._say("6. Drift report")
        made = self._plan()
        self._show(made, drift=True)
        self._check({c.address for c in made.changes} == tampered, "The report names exactly these three.")
        self._say("7. Repair")
        self._apply()
        self._expect_empty()
        self._out.print(
            "\nThat was the whole loop. README.md tells how to point it at a host of your own.",
            style="bold",
            markup=False,
        )

    def _say(self, title: str) -> None:
        self._out.print(f"\n{title}", style="bold cyan")

    def _plan(self) -> Plan:
        return self._project.plan()

    def _show(self, made: Plan, *, drift: bool = False) -> None:
        from reconciler.render.terminal import show_plan

        show_plan(made, self._project.registry, self._out, drift=drift, steps=False)

    def _apply(self) -> None:
        from reconciler.apply import silent
        from reconciler.render.terminal import Live, show_result

        made = self._plan()
        live = Live(self._out)
        self._project.emit = live
        with self._project.pool(made.targets) as pool, live.running():
            result = self._project.apply(made, pool)
        self._project.emit = silent
        show_result(result, self._out)
        self._check(result.ok, "Everything was done.")

    def _expect_empty(self) -> None:
        made = self._plan()
        self._show(made)
        self._check(made.empty and not made.unknown, "Nothing is left to do.")

    def _check(self, true: bool, claim: str) -> None:
        from reconciler.errors import ReconcilerError

        if not true:
            raise ReconcilerError(f"The demo failed; this should be true and is not: {claim}")
        self._out.print(claim, style="green")

    def _tamper(self) -> set[str]:
        """Change one file's content, one mode and one account by hand; gives what must be reported."""
        resources = sorted(self._project.desired().resources.items())
        done: dict[str, str] = {}

        def first(type_: str, test: Any) -> tuple[str, Any]:
            for address, resource in resources:
                host_done = {a.partition("[")[2].partition(":")[0] for a in done}
                fits = resource.type == type_ and not resource.absent and test(resource.spec)
                if fits and address not in done and resource.target not in host_done:
                    return address, resource
            raise LookupError(type_)

        address, resource = first("host.file", lambda s: isinstance(s.content, str) and s.content)
        file = self._images / resource.target / resource.spec.path.lstrip("/")
        file.write_text(file.read_text() + "# edited by hand at three in the morning\n")
        done[address] = f"somebody edits {resource.spec.path} on {resource.target}"

        address, resource = first("host.file", lambda s: s.mode is not None)
        file = self._images / resource.target / resource.spec.path.lstrip("/")
        file.chmod(0o666)
        done[address] = f"somebody opens {resource.spec.path} on {resource.target} to everybody"

        address, resource = first("host.user", lambda s: s.shell is not None)
        file = self._images / resource.target / "etc/passwd"
        lines = file.read_text().splitlines()
        mine = f"{resource.spec.name}:"
        file.write_text(
            "".join((li.rpartition(":")[0] + ":/bin/sh" if li.startswith(mine) else li) + "\n" for li in lines)
        )
        done[address] = f"somebody gives {resource.spec.name} another shell on {resource.target}"
        for what in done.values():
            self._out.print(f"  {what}", markup=False)
        return set(done)
