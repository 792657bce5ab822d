"""The refusals of Proxmox VE, by the form in which they are told."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.lab.proxmox.world import TaskFailed


class Refused(TaskFailed):
    """A request is refused. `errors`: by parameter, for refusals of parameters; `plain`: the body instead of JSON.

    Inside a task it is the task's failure.
    """

    def __init__(
        self, status: int, text: str, errors: Mapping[str, str] | None = None, *, plain: str | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.errors = dict(errors or {})
        self.plain = plain


def failed(text: str) -> Refused:
    """The form of most refusals, also of "does not exist": status 500."""
    return Refused(500, text)


def bad_parameters(errors: Mapping[str, str]) -> Refused:
    """Parameters that do not fit the schema, or a check that is told in the same form: status 400."""
    return Refused(400, "Parameter verification failed.", errors)


def bad_inside(errors: Mapping[str, str]) -> Refused:
    """The odd form of /cluster/backup: status 500, a text that begins with 400, no errors."""
    lines = "".join(f"{name}: {text}\n" for name, text in errors.items())
    return Refused(500, f"400 Parameter verification failed.\n{lines}".rstrip("\n"))


def denied(text: str = "") -> Refused:
    """A privilege is missing: status 403. `text` in brackets says where and which."""
    return Refused(403, f"Permission check failed ({text})" if text else "Permission check failed")


__all__ = ["Refused", "TaskFailed", "bad_inside", "bad_parameters", "denied", "failed"]
