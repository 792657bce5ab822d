"""Simulators in the likeness of live systems: what a rehearsal works on.

The likeness is made of what the API shows to the login: definitions, accounts, rights, jobs, guests. Passwords and
secrets are not shown; logins of the rehearsal itself work, and those of storages are taken to be right. Servers that
storages point to are taken for granted, unless they are rehearsed, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from reconciler.errors import ProbeFailed
from reconciler.lab.proxmox import PbsSimulator, PveSimulator
from reconciler.lab.proxmox.pbs.seed import server_from_answers
from reconciler.lab.proxmox.pbs.seed import wanted as wanted_of_server
from reconciler.lab.proxmox.pve.seed import cluster_from_answers
from reconciler.lab.proxmox.pve.seed import wanted as wanted_of_cluster
from reconciler.lab.stage import Stage
from reconciler.model import Get, Read, Reply, Secret, Target

ReadAll = Callable[[Sequence[Read]], Sequence[Reply]]


def mirror(target: Target, read: ReadAll, stage: Stage) -> Target:
    """A simulator that shows what a live system shows.

    Args:
        read: answers reads of the live system.

    Raises:
        ConnectError: the live system cannot be reached.
        ProbeFailed: it does not show enough of itself.
    """
    if target.settings["service"] == "PBS":
        return _server(target, read, stage)
    servers: dict[str, tuple[Target, Any]] = stage.shared.setdefault("mirrored servers", {})
    known = {
        place(endpoint): _Known(simulator, live.settings.get("fingerprint", ""))
        for live, simulator in servers.values()
        for endpoint in live.settings["endpoints"]
    }
    answers = _answers(read, wanted_of_cluster)
    state = cluster_from_answers(answers)
    if not state["nodes"]:
        raise ProbeFailed(
            f"the login may not see the nodes of {target.name}, so that nothing like it can be made. Grant it "
            "Sys.Audit on /, with propagation; the role PVEAuditor has it."
        )
    _admit(state, target, stage)
    simulator = stage.open.enter_context(PveSimulator(state, backup_servers=known))
    return _behind(target, simulator.url, simulator.fingerprint)


def _server(target: Target, read: ReadAll, stage: Stage) -> Target:
    state = server_from_answers(_answers(read, wanted_of_server))
    state["name"] = target.name
    _admit(state, target, stage)
    simulator = stage.open.enter_context(PbsSimulator(state))
    stage.shared.setdefault("mirrored servers", {})[target.name] = target, simulator
    return _behind(target, simulator.url, simulator.fingerprint)


def place(endpoint: str) -> str:
    """How a cluster's storage names the server at an address: HOST:PORT."""
    parts = urlsplit(endpoint)
    return f"{parts.hostname}:{parts.port or 8007}"


class _Known:
    """A rehearsed backup server as clusters see it, with the certificate that its document pins."""

    def __init__(self, inner: PbsSimulator, fingerprint: str) -> None:
        self._inner, self.fingerprint = inner, fingerprint

    def admits(self, auth_id: str, secret: str) -> bool:
        # What the live server did not show is taken to be right; an account must be there and active all the same.
        entry = self._inner.rights.active(auth_id)
        return entry is not None and ("sealed" not in entry or self._inner.admits(auth_id, secret))

    def shows(self, auth_id: str) -> list[str]:
        return self._inner.shows(auth_id)


def _behind(target: Target, url: str, fingerprint: str) -> Target:
    settings = {k: v for k, v in target.settings.items() if k != "ca"}
    return replace(target, settings={**settings, "endpoints": [url], "fingerprint": fingerprint})


def _admit(state: dict[str, Any], target: Target, stage: Stage) -> None:
    """The login works as it does there: with its own rights, whatever they are."""
    settings = target.settings
    account = state["users"].setdefault(settings["user"], {"enable": 1, "expire": 0})
    if settings.get("token"):
        token = account.setdefault("tokens", {}).setdefault(settings["token"], {"privsep": 0})
        token["secret"] = stage.reveal(Secret(**settings["secret"]))
    else:
        account["password"] = stage.reveal(Secret(**settings["password"]))


def _answers(read: ReadAll, wanted: Callable[[Mapping[str, Any]], list[str]]) -> dict[str, Any]:
    """What a live system answers to all that a simulator has to know; what is refused is `None`."""
    answers: dict[str, Any] = {}
    while paths := wanted(answers):
        replies = read([_get(path) for path in paths])
        for path, reply in zip(paths, replies, strict=True):
            answers[path] = None if reply.status else json.loads(reply.text).get("data")
    return answers


def _get(path: str) -> Get:
    parts = urlsplit(path)
    return Get(parts.path, dict(parse_qsl(parts.query)))
