"""Definitions of storages, and what the nodes say about them."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import secrets
from typing import Any, Final

from reconciler.lab.proxmox.pve import known, volumes
from reconciler.lab.proxmox.pve.refusal import bad_parameters, failed
from reconciler.lab.proxmox.pve.routes import Call, route
from reconciler.lab.proxmox.pve.state import State, sealed
from reconciler.lab.proxmox.pve.verify import TABLES, split_list
from reconciler.lab.proxmox.pve.world import BackupServer, World, prefixed, sha1

SEEN: Final = "Datastore.Audit|Datastore.AllocateSpace"
TOTAL: Final = 1 << 40
USED: Final = 1 << 36


def digest(world: World) -> str:
    """The digest of storage.cfg. It changes with every write, as the real one may: lists are written in any order."""
    return sha1([world.state["storages"], world.state["storage_writes"]])


def _shown(world: World, name: str, entry: State) -> State:
    return {"storage": name, "digest": digest(world), **entry}


def _written(world: World) -> None:
    """The file is written: another digest, and `local` no longer looks as if it had come back by itself."""
    world.state["storage_writes"] += 1
    world.state["storages"].get("local", {}).pop("priority", None)


def _come_back(world: World) -> None:
    """`local` can be deleted, and is there again at once with other settings."""
    if "local" not in world.state["storages"]:
        world.state["storages"]["local"] = {
            "type": "dir",
            "path": "/var/lib/vz",
            "content": "backup,images,iso,rootdir,snippets,vztmpl",
            "priority": 0,
            "prune-backups": "keep-all=1",
        }


@route("GET /storage")
def storages(call: Call) -> list[State]:
    """The storages that the caller may see."""
    return [
        _shown(call.world, name, entry)
        for name, entry in sorted(call.state["storages"].items())
        if call.get("type") in (None, entry["type"]) and call.may(f"/storage/{name}", SEEN)
    ]


@route("GET /storage/{storage}")
def storage(call: Call) -> State:
    """One storage."""
    name = call.text("storage")
    return _shown(call.world, name, volumes.storage(call.world, name))


# writing


def _typed(key: str, text: str) -> Any:
    parameter = TABLES.method("POST", "/storage").parameters[key]
    return int(text) if parameter.type in ("boolean", "integer") else text


def _allowed(kind: known.StorageType, keys: list[str]) -> None:
    for key in sorted(keys):
        if key not in kind.required and key not in kind.optional:
            raise failed(f"unexpected property '{key}'")


def _content(kind: known.StorageType, text: str) -> str:
    wanted = split_list(text)
    if "none" in wanted and len(wanted) > 1:
        raise failed("unable to combine 'none' with other content types")
    kept = [word for word in dict.fromkeys(wanted) if word in kind.content] or ["none"]
    if kept == ["none"] and "none" not in kind.content:
        raise failed("storage does not support content type 'none'")
    return ",".join(kept)


def _put(entry: State, kind: known.StorageType, given: dict[str, str]) -> None:
    """Write options into a definition, in the form in which they are kept."""
    for key, text in given.items():
        if key in kind.secret:
            continue
        if key == "content":
            entry[key] = _content(kind, text)
        elif text == "" or (key == "disable" and text == "0"):
            entry.pop(key, None)
        else:
            entry[key] = _typed(key, text)


def _settle(name: str, entry: State, kind: known.StorageType) -> None:
    """What is filled in by itself."""
    entry.setdefault("content", ",".join(kind.content_default))
    if kind.shared:
        entry["shared"] = 1
    if entry["type"] == "zfspool":
        entry.setdefault("mountpoint", f"/{entry['pool']}")


def _keep_secrets(call: Call, name: str, entry: State, given: dict[str, str]) -> dict[str, str]:
    """Put secrets away; the answer's `config` tells a generated key, once."""
    kept = call.state["storage_secrets"].setdefault(name, {})
    config: dict[str, str] = {}
    for key in known.STORAGE_TYPES[entry["type"]].secret & set(given):
        value = given[key]
        if key == "encryption-key":
            value, entry[key] = _encryption_key(call.world, value)
            if given[key] == "autogen":
                config[key] = value
        kept[key] = sealed(value)
    return config


def _encryption_key(world: World, value: str) -> tuple[str, str]:
    """The key as JSON, and its fingerprint."""
    if value == "autogen":
        moment = datetime.datetime.fromtimestamp(world.now(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        plain = secrets.token_bytes(64)
        mark = hashlib.sha256(plain).digest()[:8].hex(":")
        key = {"kdf": None, "created": moment, "modified": moment, "data": base64.b64encode(plain).decode()}
        return json.dumps({**key, "fingerprint": mark}), mark
    try:
        key = json.loads(value)
        return value, str(key.get("fingerprint") or hashlib.sha256(key["data"].encode()).digest()[:8].hex(":"))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise failed("Value does not seems like a valid, JSON formatted encryption key!") from None


def _answer(name: str, entry: State, config: dict[str, str]) -> State:
    return {"storage": name, "type": entry["type"], **({"config": config} if entry["type"] == "pbs" else {})}


@route("POST /storage")
def create_storage(call: Call) -> State:
    """A new definition. Unless it is disabled, it is tried out at once; if that fails, nothing stays."""
    name, kind = call.text("storage"), known.STORAGE_TYPES[call.text("type")]
    given = {key: call.text(key) for key in call.parameters if key not in ("storage", "type")}
    _allowed(kind, list(given))
    entry: State = {"type": call.text("type")}
    if entry["type"] in ("nfs", "cifs", "cephfs"):
        given.setdefault("path", f"/mnt/pve/{name}")
    for key in sorted(kind.required):
        if not given.get(key):
            raise failed(f"missing value for required option '{key}'")
    _put(entry, kind, given)
    _settle(name, entry, kind)
    with prefixed("create storage failed"):
        call.world.require_quorum("storage_cfg")
        if name in call.state["storages"]:
            raise failed(f"storage ID '{name}' already defined")
        config = _keep_secrets(call, name, entry, given)
        try:
            if not entry.get("disable") and volumes.on_node(entry, call.asked):
                activate(call.world, call.asked, name, entry)
        except Exception:
            call.state["storage_secrets"].pop(name, None)
            raise
        _written(call.world)
        call.state["storages"][name] = entry
    return _answer(name, entry, config)


@route("PUT /storage/{storage}")
def change_storage(call: Call) -> State:
    """Change a definition. Nothing is tried out."""
    name = call.text("storage")
    given = {key: call.text(key) for key in call.parameters if key not in ("storage", "delete", "digest")}
    with prefixed("update storage failed"):
        call.world.require_quorum("storage_cfg")
        entry = volumes.storage(call.world, name)
        kind = known.STORAGE_TYPES[entry["type"]]
        if call.has("digest") and call.text("digest") != digest(call.world):
            raise failed("detected modified configuration - file changed by other user? Try again.")
        gone = call.list("delete")
        for key in gone:
            _deletable(key, kind, given)
        _allowed(kind, list(given))
        for key, text in given.items():
            if key in kind.fixed and str(entry.get(key)) != text:
                raise failed(f"can't change value of fixed parameter '{key}'")
        changed = dict(entry)
        for key in gone:
            changed.pop(key, None)
        _put(changed, kind, given)
        _settle(name, changed, kind)
        config = _keep_secrets(call, name, changed, given)
        for key in gone:
            call.state["storage_secrets"].get(name, {}).pop(key, None)
        entry.clear()
        entry.update(changed)
        _written(call.world)
    return _answer(name, entry, config)


def _deletable(key: str, kind: known.StorageType, given: dict[str, str]) -> None:
    if key not in kind.required and key not in kind.optional:
        raise failed(f"no such option '{key}'")
    if key in kind.required:
        raise failed(f"unable to delete required option '{key}'")
    if key in kind.fixed:
        raise failed(f"unable to delete fixed option '{key}'")
    if key in given:
        raise failed(f"cannot set and delete property '{key}' at the same time!")


@route("DELETE /storage/{storage}")
def delete_storage(call: Call) -> None:
    """Delete a definition. Volumes stay."""
    name = call.text("storage")
    with prefixed("delete storage failed"):
        call.world.require_quorum("storage_cfg")
        volumes.storage(call.world, name)
        del call.state["storages"][name]
        call.state["storage_secrets"].pop(name, None)
        _written(call.world)
        _come_back(call.world)


# trying out


def activate(world: World, node: str, name: str, entry: State) -> None:
    """Reach what is behind a storage. Refused: it cannot be reached."""
    kind = entry["type"]
    if kind == "zfspool":
        _activate_pool(world, node, name, entry)
    elif kind == "pbs":
        _activate_pbs(world, name, entry)
    elif kind not in ("dir", "btrfs") and not world.state["trusting"]:
        place = str(entry.get("server") or entry.get("portal") or entry.get("vgname") or entry.get("monhost") or kind)
        if place not in world.state["reachable"]:
            raise failed(f"storage '{name}' is not online")


def _activate_pool(world: World, node: str, name: str, entry: State) -> None:
    there = world.nodes()[node]
    if entry["pool"].partition("/")[0] not in there["pools"]:
        raise failed(f"could not activate storage '{name}', zfs error: no pools available to import\n")
    if entry["pool"] not in there["datasets"]:
        raise failed(f"zfs error: cannot open '{entry['pool']}': dataset does not exist")


class _Described:
    """A backup server that exists only as a description in the state: fingerprint, logins, datastores."""

    def __init__(self, entry: State) -> None:
        self._entry = entry

    @property
    def fingerprint(self) -> str:
        return str(self._entry["fingerprint"])

    def admits(self, auth_id: str, secret: str) -> bool:
        return bool(self._entry["sealed"].get(auth_id) == secret)

    def shows(self, auth_id: str) -> list[str]:
        return list(self._entry["datastores"])


def _server(world: World, entry: State) -> tuple[str, BackupServer | None]:
    place = f"{entry['server']}:{entry.get('port', 8007)}"
    live = world.backup_servers.get(place) or (None if "port" in entry else world.backup_servers.get(entry["server"]))
    described = world.state["peers"].get(place)
    return place, live or (_Described(described) if described else None)


def _activate_pbs(world: World, name: str, entry: State) -> None:
    place, server = _server(world, entry)
    if server is None:
        if world.state["trusting"]:
            return
        raise failed(f"{name}: error fetching datastores - 500 Can't connect to {place} (Connection refused)")
    if str(entry.get("fingerprint", "")).upper() != server.fingerprint.upper():
        raise failed(f"{name}: error fetching datastores - fingerprint '{server.fingerprint}' not verified, abort!")
    user = str(entry.get("username", "root@pam"))
    if not server.admits(user, world.state["storage_secrets"].get(name, {}).get("password", "")):
        raise failed(f"{name}: error fetching datastores - 401 Unauthorized")
    if entry["datastore"] not in server.shows(user):
        raise failed(f"{name}: Cannot find datastore '{entry['datastore']}', check permissions and existence!")


def is_active(world: World, node: str, name: str, entry: State) -> bool:
    """The storage is enabled, meant for the node, and reached."""
    if entry.get("disable") or not volumes.on_node(entry, node):
        return False
    try:
        activate(world, node, name, entry)
    except Exception:
        return False
    return True


# as nodes see them


def on_node(world: World, node: str, name: str, entry: State) -> State:
    """What a node says about a storage."""
    active = is_active(world, node, name, entry)
    enabled = not entry.get("disable") and volumes.on_node(entry, node)
    figures = {"total": TOTAL, "used": USED, "avail": TOTAL - USED} if active else {"total": 0, "used": 0, "avail": 0}
    return {
        "type": entry["type"],
        "content": entry["content"],
        "enabled": int(enabled),
        "active": int(active),
        "shared": int(volumes.is_shared(entry)),
        **figures,
    }


@route("GET /nodes/{node}/storage")
def node_storages(call: Call) -> list[State]:
    """The storages as a node sees them; also those that are disabled or belong to other nodes."""
    answer = []
    for name, entry in sorted(call.state["storages"].items()):
        if call.get("storage") not in (None, name) or not call.may(f"/storage/{name}", SEEN):
            continue
        if call.has("content") and not set(call.list("content")) & set(volumes.contents(entry)):
            continue
        if call.has("target") and not volumes.on_node(entry, call.text("target")):
            continue
        shown = {"storage": name, **on_node(call.world, call.node, name, entry)}
        if call.flag("enabled") and not shown["enabled"]:
            continue
        if shown["active"]:
            shown["used_fraction"] = shown["used"] / shown["total"]
        answer.append(shown)
    return answer


@route("GET /nodes/{node}/storage/{storage}")
def node_storage(call: Call) -> list[State]:
    """What there is to ask about a storage."""
    volumes.storage(call.world, call.text("storage"))
    return [
        {"subdir": name} for name in ("content", "file-restore", "import-metadata", "prunebackups", "rrd", "status")
    ]


@route("GET /nodes/{node}/storage/{storage}/status")
def node_storage_status(call: Call) -> State:
    """One storage as a node sees it."""
    name = call.text("storage")
    entry = call.state["storages"].get(name)
    if entry is None:
        raise bad_parameters({"storage": "No such storage."})
    return on_node(call.world, call.node, name, entry)


def _usable(call: Call) -> State:
    name = call.text("storage")
    entry = volumes.storage(call.world, name)
    if entry.get("disable"):
        raise failed(f"storage '{name}' is disabled")
    if not volumes.on_node(entry, call.node):
        raise failed(f"storage '{name}' is not available on node '{call.node}'")
    activate(call.world, call.node, name, entry)
    return entry


@route("GET /nodes/{node}/storage/{storage}/content")
def node_content(call: Call) -> list[State]:
    """The volumes in a storage."""
    entry = _usable(call)
    found = {**volumes.shelf(call.world, call.node, entry), **volumes.imports(call.world, call.node, entry)}
    answer = []
    for volume, about in sorted(found.items()):
        if call.get("content") not in (None, about["content"]) or call.get("vmid") not in (
            None,
            str(about.get("vmid")),
        ):
            continue
        shown = {"volid": f"{call.text('storage')}:{volume}", **about}
        for key in ("path", "split"):
            shown.pop(key, None)
        if entry["type"] == "zfspool":
            shown |= {"name": volume, "parent": None}
            shown.pop("ctime", None)
        elif about["content"] != "import":
            shown |= {"parent": None, "used": about["size"]}
        answer.append(shown)
    return answer


@route("POST /nodes/{node}/storage/{storage}/content")
def create_volume(call: Call) -> str:
    """A new volume."""
    _usable(call)
    size = int(volumes.bytes_of(call.text("size")) if call.text("size")[-1:] in "MG" else int(call.text("size")) << 10)
    return volumes.allocate(call.world, call.node, call.text("storage"), call.text("vmid"), size, call.get("format"))


def _volid(call: Call) -> str:
    volume = call.text("volume")
    return volume if ":" in volume else f"{call.text('storage')}:{volume}"


@route("GET /nodes/{node}/storage/{storage}/content/{volume}")
def volume(call: Call) -> State:
    """One volume."""
    _usable(call)
    about = volumes.find(call.world, call.node, _volid(call))
    return {"format": about["format"], "path": _volid(call), "size": about["size"], "used": about["size"]}


@route("PUT /nodes/{node}/storage/{storage}/content/{volume}")
def annotate_volume(call: Call) -> None:
    """Notes and protection of a backup."""
    _usable(call)
    about = volumes.find(call.world, call.node, _volid(call))
    if about["content"] != "backup":
        raise failed("attribute updates are only supported for backups")
    about |= {key: call.text(key) for key in ("notes",) if call.has(key)}
    if call.has("protected"):
        about["protected"] = call.number("protected")


@route("DELETE /nodes/{node}/storage/{storage}/content/{volume}")
def delete_volume(call: Call) -> str:
    """Destroy a volume, as a task."""
    call.require(f"/storage/{call.text('storage')}", "Datastore.Allocate")
    _usable(call)
    volumes.find(call.world, call.node, _volid(call))
    volumes.free(call.world, call.node, _volid(call))
    return call.world.start_task(
        call.node, "imgdel", f"{_volid(call)}@{call.node}".replace(":", "\\x3a"), call.caller.name
    )
