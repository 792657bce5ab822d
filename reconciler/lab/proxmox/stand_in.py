"""Stand-ins for the clusters and backup servers of a desired state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reconciler.lab.proxmox import PbsSimulator, PveSimulator
from reconciler.lab.proxmox.mirror import place
from reconciler.lab.proxmox.pve.state import node as fresh_node
from reconciler.model import Document, Request, Secret, Target, Work

if TYPE_CHECKING:
    from reconciler.lab.stage import Stage

FREE_FROM = 9000
"""Numbers of guests that documents know by name only."""


class _Pinned:
    """A backup server as clusters see it, with the certificate that its document pins."""

    def __init__(self, inner: PbsSimulator, fingerprint: str) -> None:
        self._inner, self.fingerprint = inner, fingerprint

    def admits(self, auth_id: str, secret: str) -> bool:
        return self._inner.admits(auth_id, secret)

    def shows(self, auth_id: str) -> list[str]:
        return self._inner.shows(auth_id)


def stand_in(target: Target, stage: Stage) -> Target:
    """Start a simulator that takes the target's login, with full rights, and holds what the documents count on."""
    if target.settings["service"] == "PBS":
        return _server(target, stage)[0]
    servers = {t.name: t for t in stage.catalog.targets.values() if t.settings.get("service") == "PBS"}
    known: dict[str, Any] = {}
    for one in servers.values():
        simulator = _server(one, stage)[1]
        for endpoint in one.settings["endpoints"]:
            known[place(endpoint)] = _Pinned(simulator, one.settings.get("fingerprint", ""))
    state = {**_login(target, stage), "nodes": dict(_nodes(target.name, stage)), "trusting": True}
    cluster = stage.open.enter_context(PveSimulator(state, backup_servers=known))
    found = _behind(target, list(cluster.urls.values()), cluster.fingerprint)
    _populate(found, stage)
    return found


def _server(target: Target, stage: Stage) -> tuple[Target, PbsSimulator]:
    """The clusters of a stage see the same servers as its plans."""
    known: dict[str, tuple[Target, PbsSimulator]] = stage.shared.setdefault("backup servers", {})
    if target.name not in known:
        server = stage.open.enter_context(PbsSimulator({"name": target.name, **_login(target, stage)}))
        known[target.name] = _behind(target, [server.url], server.fingerprint), server
    return known[target.name]


def _behind(target: Target, endpoints: list[str], fingerprint: str) -> Target:
    settings = {k: v for k, v in target.settings.items() if k != "ca"}
    return replace(target, settings={**settings, "endpoints": endpoints[:1], "fingerprint": fingerprint})


def _login(target: Target, stage: Stage) -> dict[str, Any]:
    """The account that the document logs in with, as one that may do everything."""
    settings, user = target.settings, target.settings["user"]
    account: dict[str, Any] = {"enable": 1, "expire": 0}
    holders = [user]
    if settings.get("token"):
        secret = stage.reveal(Secret(**settings["secret"]))
        account["tokens"] = {settings["token"]: {"secret": secret, "privsep": 0}}
        holders.append(f"{user}!{settings['token']}")
    else:
        account["password"] = stage.reveal(Secret(**settings["password"]))
    admin = "Administrator" if settings["service"] == "PVE" else "Admin"
    users = {"root@pam": {"enable": 1, "expire": 0, "password": "secret123"}, user: account}
    return {"users": users, "acl": [_entry(holder, admin, settings["service"]) for holder in holders]}


def _entry(who: str, role: str, service: str) -> dict[str, Any]:
    kind = "token" if "!" in who else "user"
    kinds = {"type": kind} if service == "PVE" else {"ugid_type": "user"}
    return {"path": "/", "ugid": who, "roleid": role, "propagate": 1, **kinds}


def _specs(cluster: str, stage: Stage) -> Iterator[Document[Any]]:
    for document in stage.catalog:
        if getattr(document.spec, "cluster", None) == cluster:
            yield document


def _nodes(cluster: str, stage: Stage) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The nodes that documents name, with the ZFS datasets that they name."""
    names, datasets = {"pve1", "pve2"}, {"tank/vm"}
    for document in _specs(cluster, stage):
        names.update(getattr(document.spec, "between", ()))
        names.update(getattr(document.spec, "nodes", None) or ())
        if document.kind == "ProxmoxStorage" and document.spec.type == "zfspool":
            datasets.add(document.spec.pool)
    pools = ("rpool", *sorted({name.partition("/")[0] for name in datasets} - {"rpool"}))
    for number, name in enumerate(sorted(names), 1):
        yield name, fresh_node(number, pools=pools, datasets=tuple(sorted(d for d in datasets if "/" in d)))


def _populate(target: Target, stage: Stage) -> None:
    """Make the guests that documents name, each with a disk that can be replicated."""
    from reconciler.connections.proxmox import connect

    wanted: dict[str, str] = {}
    for document in _specs(target.name, stage):
        guest = getattr(document.spec, "guest", None)
        if guest is not None:
            wanted.setdefault(guest, (getattr(document.spec, "between", None) or ("pve1",))[0])
    steps = (
        [Request("POST", "/storage", {"storage": "local-zfs", "type": "zfspool", "pool": "rpool"})] if wanted else []
    )
    for number, (guest, where) in enumerate(sorted(wanted.items())):
        vmid, name = (guest, f"guest{guest}") if guest.isdigit() else (str(FREE_FROM + number), guest)
        params = {"vmid": vmid, "name": name, "scsi0": "local-zfs:1"}
        steps.append(Request("POST", f"/nodes/{where}/qemu", params))
    if not wanted:
        return
    connection = connect(target, stage.reveal)
    try:
        for result in connection.execute([Work("stage", steps)], stage.reveal):
            assert not result.status, result.output
    finally:
        connection.close()
