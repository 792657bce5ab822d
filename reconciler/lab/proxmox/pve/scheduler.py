"""The round of the replication scheduler: removes what is marked, runs what is due, turns round what has moved."""

from __future__ import annotations

import datetime
from typing import Any, Final

from reconciler.lab.proxmox.pve import volumes
from reconciler.lab.proxmox.pve.refusal import Refused, TaskFailed
from reconciler.lab.proxmox.pve.replication import next_sync, replicated
from reconciler.lab.proxmox.pve.state import State
from reconciler.lab.proxmox.pve.world import World

MOST: Final = 2000
"""Rounds that are caught up after a long time without requests; the ones before are skipped."""


def catch_up(world: World) -> None:
    """End the runs and hold the rounds whose time has come."""
    now = world.clock()
    due = world.state["next_round"]
    if due is None:
        due = now + world.pace.scheduler
    if now - due > MOST * world.pace.scheduler:
        due = now - MOST * world.pace.scheduler
    while due <= now:
        _end_runs(world, due)
        if world.quorate():
            _round(world, due)
        due += world.pace.scheduler
    _end_runs(world, now)
    world.state["next_round"] = due


def _end_runs(world: World, now: float) -> None:
    for name, job in world.state["replication"].items():
        if job["state"].get("ends", now + 1) <= now:
            _end(world, name, job)


def _round(world: World, now: float) -> None:
    jobs: dict[str, State] = world.state["replication"]
    for name, job in list(jobs.items()):
        guest = world.guest(name.partition("-")[0])
        if "ends" in job["state"] or not world.online(job["source"]):
            continue
        if guest is None:
            del jobs[name]
        elif "remove_job" in job:
            if world.online(job["target"]):
                if job["remove_job"] == "full":
                    _remove_copies(world, guest, job["target"])
                del jobs[name]
        elif guest["node"] == job["target"]:
            turn_round(job)
        elif not job.get("disable") and (job.get("marked") or next_sync(world, job) <= now):
            _begin(job, now, world.serial(), world.pace.replication)


def turn_round(job: State) -> None:
    """Source and target change places."""
    job["source"], job["target"] = job["target"], job["source"]


def _remove_copies(world: World, guest: State, target: str) -> None:
    try:
        for volid in replicated(world, guest):
            volumes.free(world, target, volid)
    except Refused:
        return  # a volume that cannot be replicated has no copy


def _begin(job: State, now: float, pid: int, seconds: float) -> None:
    job.pop("marked", None)
    state = job["state"]
    state.update(before=state["last_sync"], began=now, last_try=int(now), last_sync=int(now))
    state.update(pid=0x2000 + pid, ends=now + seconds)


def _end(world: World, name: str, job: State) -> None:
    state = job["state"]
    began, before = state.pop("began"), state.pop("before")
    state["duration"] = round(state.pop("ends") - began, 6)
    del state["pid"]
    guest = world.guest(name.partition("-")[0])
    if guest is None:
        return
    log = Log(began, f"{name}: ")
    try:
        log.add("start replication job")
        run(world, name, job, guest, log, full=not before)
        log.add("end replication job")
    except (Refused, TaskFailed) as error:
        log.add(f"end replication job with error: {error}")
        state.update(last_sync=before, fail_count=state["fail_count"] + 1, error=str(error))
    else:
        state["fail_count"] = 0
        state.pop("error", None)
    job["log"] = log.lines


class Log:
    """Lines with a time before each, as the logs of replication and migration have them."""

    def __init__(self, moment: float, prefix: str = "") -> None:
        self.lines: list[str] = []
        self._stamp = datetime.datetime.fromtimestamp(int(moment), datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
        self._prefix = prefix

    def add(self, text: str) -> None:
        """One more line."""
        self.lines.append(f"{self._stamp} {self._prefix}{text}")


def run(world: World, name: str, job: State, guest: State, log: Log, *, full: bool) -> None:
    """Copy a guest's volumes to the target of a job. TaskFailed, Refused: it does not work."""
    vmid = name.partition("-")[0]
    log.add(
        f"guest => {'VM' if guest['type'] == 'qemu' else 'CT'} {vmid}, running => {int(guest['status'] == 'running')}"
    )
    copied = replicated(world, guest)
    log.add(f"volumes => {','.join(copied)}")
    _injected(world, name)
    if not world.online(job["target"]):
        raise TaskFailed(f"target node '{job['target']}' is offline")
    mark = f"__replicate_{name}_{job['state']['last_try']}__"
    rate = f"{job['rate']} MByte/s" if "rate" in job else "none"
    old = job["state"].get("mark")
    for volid in copied:
        log.add(f"create snapshot '{mark}' on {volid}")
        log.add(f"using secure transmission, rate limit: {rate}")
        _copy(world, job, volid)
        log.add(f"full sync '{volid}' ({mark})" if full or not old else f"incremental sync '{volid}' ({old} => {mark})")
        log.add(f"successfully imported '{volid}'")
        if not full and old:
            log.add(f"delete previous replication snapshot '{old}' on {volid}")
            log.add(f"(remote_finalize_local_job) delete stale replication snapshot '{old}' on {volid}")
    job["state"]["mark"] = mark


def _copy(world: World, job: State, volid: str) -> None:
    name, volume = volumes.parse(volid)
    entry = volumes.storage(world, name)
    there = world.nodes()[job["target"]]
    if not volumes.on_node(entry, job["target"]) or entry["pool"] not in there["datasets"]:
        text = f"cannot open '{entry['pool']}': dataset does not exist"
        raise TaskFailed(f"command 'zfs recv' failed on '{job['target']}': {text}")
    copy: dict[str, Any] = dict(volumes.find(world, job["source"], volid))
    volumes.shelf(world, job["target"], entry)[volume] = copy


def _injected(world: World, name: str) -> None:
    entry = world.failing_replications.get(name)
    if entry:
        entry["times"] -= 1
        if entry["times"] <= 0:
            del world.failing_replications[name]
        raise TaskFailed(entry["text"])
