"""A simulated DiskStation: what is known of DSM's web API for snapshots, as strictly as it is known.

Sessions with a token, versions and methods of each API, error numbers, schedules that DSM stores but never fires for,
retention that counts the `adv*` copy, and snapshots that cannot be removed in their period. Nothing moves by itself:
`advance` lets time pass. Where nobody knows what a real DSM does, the simulator refuses, so that nothing is built on a
guess; parameters that nobody was seen to send are refused, too, though a real DSM ignores them.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from reconciler.lab.proxmox.wire import Answer, Asked, Certificate, Endpoint, Faults, self_signed
from reconciler.model import Secret, Target
from reconciler.tools.snapshots.retention import Policy, Snapshot, keep

if TYPE_CHECKING:
    from reconciler.lab.stage import Stage

LIMIT: Final = 1024
DAY: Final = 86_400
NO_SUCH_SHARE: Final = 402
PROTECTED: Final = 105

APIS: Final = {
    "SYNO.API.Info": ("query.cgi", 1, 1),
    "SYNO.API.Auth": ("entry.cgi", 1, 7),
    "SYNO.Core.System.Utilization": ("entry.cgi", 1, 1),
    "SYNO.Core.Share.Snapshot": ("entry.cgi", 1, 2),
    "SYNO.DisasterRecovery.Retention": ("entry.cgi", 1, 1),
}
METHODS: Final[Mapping[tuple[str, int, str], tuple[frozenset[str], frozenset[str]]]] = {
    (api, version, method): (frozenset(must.split()), frozenset(may.split()))
    for api, version, method, must, may in (
        ("SYNO.Core.System.Utilization", 1, "get", "", ""),
        ("SYNO.Core.Share.Snapshot", 2, "list", "name", "offset limit filter additional"),
        ("SYNO.Core.Share.Snapshot", 1, "create", "name", "snapinfo"),
        ("SYNO.Core.Share.Snapshot", 1, "delete", "name snapshots", ""),
        ("SYNO.Core.Share.Snapshot", 1, "set", "name snapshot snapinfo", ""),
        ("SYNO.Core.Share.Snapshot", 1, "get_schedule", "name", ""),
        ("SYNO.Core.Share.Snapshot", 1, "set_schedule", "name enable_snapshot_schedule schedule task_id", ""),
        ("SYNO.DisasterRecovery.Retention", 1, "get", "type name", ""),
        (
            "SYNO.DisasterRecovery.Retention",
            1,
            "set",
            "type name tid policyType",
            "recently retainDay advRetainDay advHourly advDaily advWeekly advMonthly advYearly advMinimum "
            "advPolicyType schedule",
        ),
        ("SYNO.DisasterRecovery.Retention", 1, "get_worm_lock", "type name", ""),
        ("SYNO.DisasterRecovery.Retention", 1, "set_worm_lock", "type name worm_lock_enable worm_lock_day", ""),
    )
}
"""API, version, method -> the parameters that it needs, and may have."""
TIMES: Final = ("date_type", "week_name", "hour", "min", "repeat_hour", "repeat_min", "last_work_hour")
DEFAULTS: Final = {
    "policyType": 0,
    "recently": 0,
    "retainDay": 7,
    "advRetainDay": 1,
    "advHourly": 24,
    "advDaily": 7,
    "advWeekly": 2,
    "advMonthly": 1,
    "advYearly": 0,
    "advMinimum": 5,
    "advPolicyType": 95,
    "tid": -1,
    "schedule": None,
}


class Refused(Exception):
    """An answer with an error number."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Share:
    """A shared folder: its snapshots (`list` rows with `at`), its schedule, retention and protection period."""

    snapshots: list[dict[str, Any]] = field(default_factory=list)
    enabled: bool = False
    task: int = -1
    schedule: dict[str, Any] = field(default_factory=dict)
    retention: dict[str, Any] = field(default_factory=lambda: dict(DEFAULTS))
    protect: bool = False
    protect_days: int = 7


class DsmSimulator:
    """A context manager that listens on loopback.

    Args:
        users: name -> password; all are administrators but those in `plain`.
        shares: names of shared folders.
        now: seconds since the epoch at the start.
        offset: hours by which the NAS's time is ahead of GMT.
        refusals: name -> the number with which its login is refused, such as 403.
    """

    def __init__(
        self,
        users: Mapping[str, str],
        shares: tuple[str, ...] = (),
        *,
        now: int = 1_795_341_600,
        offset: int = 1,
        plain: tuple[str, ...] = (),
        refusals: Mapping[str, int] | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.users, self.plain, self.refusals = dict(users), plain, dict(refusals or {})
        self.shares = {name: Share() for name in shares}
        self.now, self.offset, self.zone = now, offset, timezone(timedelta(hours=offset))
        self.certificate = certificate or self_signed("nas.test")
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        """API, method and parameters of what was asked, logins and looks included."""
        self.sessions: dict[str, tuple[str, str]] = {}
        self.faults = Faults()
        self._tasks = 0
        self._lock = threading.Lock()
        self._endpoint = Endpoint(self._answer, self.certificate)

    def __enter__(self) -> DsmSimulator:
        self._endpoint.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._endpoint.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._endpoint.url

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate."""
        return self.certificate.fingerprint

    # -------------------------------------------------------------------------------------------- time

    def advance(self, seconds: int) -> None:
        """Let time pass: schedules fire minute by minute, and once an hour what retention does not keep goes."""
        with self._lock:
            until = self.now + seconds
            self.now += -self.now % 60
            while self.now <= until:
                for share in self.shares.values():
                    if share.enabled and self._due(share.schedule):
                        self._take(share, scheduled=True)
                if self.now % 3600 == 0:
                    for share in self.shares.values():
                        self._prune(share)
                self.now += 60
            self.now = until

    def _due(self, times: Mapping[str, Any]) -> bool:
        """Whether a schedule fires in this minute. What the dialog cannot write never does."""
        local = datetime.fromtimestamp(self.now, self.zone)
        if str(local.isoweekday() % 7) not in str(times["week_name"]).split(","):
            return False
        every = times["repeat_hour"] * 60 + times["repeat_min"]
        begin = times["hour"] * 60 + times["min"]
        if every == 0:
            possible = times["last_work_hour"] == times["hour"]
            return bool(possible and local.hour * 60 + local.minute == begin)
        if times["repeat_min"]:
            possible = times["repeat_hour"] == 0 and times["repeat_min"] in (5, 15, 30) and times["min"] == 0
            end = times["last_work_hour"] * 60 + 60 - times["repeat_min"]
        else:
            possible = times["repeat_hour"] in (1, 2, 3, 4, 6, 8, 12) and times["hour"] + times["repeat_hour"] <= 23
            end = times["last_work_hour"] * 60 + times["min"]
        minute = local.hour * 60 + local.minute
        return bool(possible and begin <= minute <= end and (minute - begin) % every == 0)

    def _take(self, share: Share, *, scheduled: bool, lock: bool = False, description: str = "") -> str:
        if len(share.snapshots) >= LIMIT:
            if scheduled:
                return ""
            raise Refused(100)
        local = datetime.fromtimestamp(self.now, self.zone)
        hours = self.offset
        name = f"GMT{'-' if hours < 0 else '+'}{abs(hours):02}-{local:%Y.%m.%d-%H.%M.%S}"
        row: dict[str, Any] = {"time": name, "desc": description, "lock": lock, "schedule_snapshot": scheduled}
        row |= {"worm_lock": share.protect, "at": self.now}
        if share.protect:
            days = share.protect_days
            row |= {"worm_lock_day": str(days), "worm_lock_begin": str(self.now)}
            row["worm_lock_end"] = str(self.now + days * DAY)
        share.snapshots.append(row)
        return name

    def _protected(self, row: Mapping[str, Any]) -> bool:
        return bool(row["worm_lock"]) and int(row["worm_lock_end"]) > self.now

    def _prune(self, share: Share) -> None:
        """What a policy does not keep; never what is locked or protected."""
        rules = share.retention
        newest = sorted(share.snapshots, key=lambda r: r["at"], reverse=True)
        match rules["policyType"]:
            case 20:
                stay = {r["time"] for r in newest[: rules["recently"]]}
            case 64:
                stay = {r["time"] for r in newest if r["at"] > self.now - rules["retainDay"] * DAY}
            case 128:
                bits = rules["advPolicyType"]
                counts = {
                    name: rules[f"adv{name.capitalize()}"] if bits & bit else 0
                    for name, bit in (("hourly", 2), ("daily", 4), ("weekly", 8), ("monthly", 16), ("yearly", 32))
                }
                policy = Policy(last=rules["advMinimum"] if bits & 1 else 0, zone=self.zone, **counts)
                if bits & 64:
                    policy = replace(policy, min_age=rules["advRetainDay"] * DAY)
                found = keep(self.now, [Snapshot(r["time"], r["at"]) for r in newest], policy)
                stay = {v.snapshot.name for v in found if v.kept}
            case _:
                return
        share.snapshots = [r for r in share.snapshots if r["time"] in stay or r["lock"] or self._protected(r)]

    # -------------------------------------------------------------------------------------------- requests

    def _answer(self, asked: Asked) -> Answer:
        if not asked.path.startswith("/webapi/"):
            return Answer(404, b"not found", "text/plain")
        text = asked.body.decode() if asked.verb == "POST" else asked.query
        form = dict(parse_qsl(text, keep_blank_values=True))
        with self._lock, self.faults.around(asked.verb, f"{form.get('api')}/{form.get('method')}") as fault:
            try:
                if fault is not None and fault.status:
                    raise Refused(fault.status)
                found = {"data": self._call(asked, form), "success": True}
            except Refused as refused:
                found = {"error": {"code": refused.code}, "success": False}
        return Answer(200, json.dumps(found).encode())

    def _call(self, asked: Asked, form: dict[str, str]) -> Any:
        api, method = form.pop("api", ""), form.pop("method", "")
        if not api or not method or "version" not in form:
            raise Refused(101)
        if api not in APIS:
            raise Refused(102)
        where, lowest, highest = APIS[api]
        if asked.path != f"/webapi/{where}":
            raise Refused(102)
        version = form.pop("version")
        if not version.isdigit() or not lowest <= int(version) <= highest:
            raise Refused(104)
        shown = {k: v for k, v in form.items() if k not in ("passwd", "_sid")}
        self.requests.append((api, method, shown))
        if api == "SYNO.API.Info":
            wanted = form.get("query", "").split(",")
            return {
                name: {"path": path, "minVersion": low, "maxVersion": high, "requestFormat": "JSON"}
                for name, (path, low, high) in APIS.items()
                if name in wanted or wanted == ["all"]
            }
        if api == "SYNO.API.Auth":
            return self._auth(method, form)
        user, token = self.sessions.get(form.pop("_sid", ""), ("", ""))
        if not user or (token and asked.headers.get("x-syno-token") != token):
            raise Refused(119)
        if (api, int(version), method) not in METHODS:
            raise Refused(103)
        if user in self.plain:
            raise Refused(105)
        must, may = METHODS[api, int(version), method]
        if must - form.keys():
            raise Refused(114)
        if form.keys() - must - may:
            raise Refused(120)
        params = {name: _parsed(name, value) for name, value in form.items()}
        if api == "SYNO.Core.System.Utilization":
            return {"time": self.now, "cpu": {}, "memory": {}}
        if params.get("type", "Share") != "Share":
            raise Refused(120)
        share = self.shares.get(params["name"])
        if share is None:
            raise Refused(NO_SUCH_SHARE)
        mine = f"_{method}" if "Snapshot" in api or "worm" in method else f"_{method}_retention"
        call: Callable[[Share, Mapping[str, Any]], Any] = getattr(self, mine)
        return call(share, params)

    def _auth(self, method: str, form: Mapping[str, str]) -> Any:
        if method == "logout":
            self.sessions.pop(form.get("_sid", ""), None)
            return {}
        if method != "login":
            raise Refused(103)
        account = form.get("account", "")
        if account in self.refusals:
            raise Refused(self.refusals[account])
        if account not in self.users or form.get("passwd") != self.users[account]:
            raise Refused(400)
        if form.get("format") != "sid":
            raise Refused(101)
        sid = secrets.token_urlsafe(32)
        token = secrets.token_urlsafe(12) if form.get("enable_syno_token") == "yes" else ""
        self.sessions[sid] = (account, token)
        return {"sid": sid, "is_portal_port": False} | ({"synotoken": token} if token else {})

    # -------------------------------------------------------------------------------------------- snapshots

    def _list(self, share: Share, params: Mapping[str, Any]) -> Any:
        start, limit = params.get("offset", 0), params.get("limit", -1)
        rows = share.snapshots[start:] if limit < 0 else share.snapshots[start : start + limit]
        return {"snapshots": [{k: v for k, v in r.items() if k != "at"} for r in rows], "total": len(share.snapshots)}

    def _create(self, share: Share, params: Mapping[str, Any]) -> Any:
        about = params.get("snapinfo") or {}
        return self._take(share, scheduled=False, lock=bool(about.get("lock")), description=str(about.get("desc", "")))

    def _delete(self, share: Share, params: Mapping[str, Any]) -> Any:
        rows = {r["time"]: r for r in share.snapshots}
        if set(params["snapshots"]) - rows.keys():
            raise Refused(NO_SUCH_SHARE)
        if any(self._protected(rows[name]) for name in params["snapshots"]):
            raise Refused(PROTECTED)
        share.snapshots = [r for r in share.snapshots if r["time"] not in params["snapshots"]]
        return []

    def _set(self, share: Share, params: Mapping[str, Any]) -> Any:
        for row in share.snapshots:
            if row["time"] == params["snapshot"]:
                row.update({k: v for k, v in params["snapinfo"].items() if k in ("lock", "desc")})
                return {}
        raise Refused(NO_SUCH_SHARE)

    def _get_schedule(self, share: Share, params: Mapping[str, Any]) -> Any:
        found: dict[str, Any] = {"enable_snapshot_schedule": share.enabled, "task_id": share.task}
        if share.schedule:
            found["schedule"] = {**share.schedule, "repeat": 0, "next_trigger_time": self._next(share.schedule)}
        return found

    def _next(self, times: Mapping[str, Any]) -> str:
        """What DSM reports, whether it will fire or not."""
        local = datetime.fromtimestamp(self.now, self.zone)
        at = local.replace(hour=times["hour"], minute=times["min"], second=0)
        return f"{at if at > local else at + timedelta(days=1):%Y-%m-%d %H:%M}"

    def _set_schedule(self, share: Share, params: Mapping[str, Any]) -> Any:
        times = params["schedule"]
        if not isinstance(times, dict) or set(times) != set(TIMES) or not isinstance(times["week_name"], str):
            raise Refused(120)
        if not all(isinstance(times[n], int) and not isinstance(times[n], bool) for n in TIMES if n != "week_name"):
            raise Refused(120)
        if params["task_id"] != share.task or not isinstance(params["enable_snapshot_schedule"], bool):
            raise Refused(120)
        if share.task == -1:
            self._tasks += 1
            share.task = self._tasks
        share.enabled = params["enable_snapshot_schedule"]
        share.schedule = {**times, "last_work_hour": max(times["hour"], times["last_work_hour"])}
        return {}

    # -------------------------------------------------------------------------------------------- retention

    def _get_retention(self, share: Share, params: Mapping[str, Any]) -> Any:
        again = {name: share.retention[f"adv{name.capitalize()}"] for name in ("hourly", "daily", "weekly", "monthly")}
        return {**share.retention, **again, "yearly": 0, "name": params["name"], "prefix": "Share#"}

    def _set_retention(self, share: Share, params: Mapping[str, Any]) -> Any:
        if params["tid"] != share.retention["tid"]:
            raise Refused(120)
        numbers = {k: v for k, v in params.items() if k not in ("type", "name", "tid", "schedule")}
        if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in numbers.values()):
            raise Refused(120)
        if share.retention["tid"] == -1:
            self._tasks += 1
            share.retention["tid"] = self._tasks
        share.retention.update(numbers)
        return {}

    def _get_worm_lock(self, share: Share, params: Mapping[str, Any]) -> Any:
        return {"worm_lock_enable": share.protect, "worm_lock_day": share.protect_days}

    def _set_worm_lock(self, share: Share, params: Mapping[str, Any]) -> Any:
        enable, days = params["worm_lock_enable"], params["worm_lock_day"]
        # A real one stored 0, 31 and 400 while protection was off; nobody tried it while it was on.
        if not isinstance(enable, bool) or not isinstance(days, int) or (enable and not 1 <= days <= 30):
            raise Refused(120)
        share.protect, share.protect_days = enable, days
        return {}


def _parsed(name: str, value: str) -> Any:
    """Parameters are JSON; names are taken bare, too."""
    try:
        return json.loads(value)
    except ValueError:
        if name == "name":
            return value
        raise Refused(120) from None


def stand_in(target: Target, stage: Stage) -> Target:
    """Start a simulator that takes the target's login and has the shared folders that documents name."""
    names = {
        share
        for document in stage.catalog
        if document.kind == "SnapshotPolicy" and document.spec.synology == target.name
        for share in document.spec.shares
    }
    password = stage.reveal(Secret(**target.settings["password"]))
    now = int(datetime.now(UTC).timestamp())
    simulator = DsmSimulator({target.settings["user"]: password}, tuple(sorted(names)), now=now)
    stage.open.enter_context(simulator)
    settings = {k: v for k, v in target.settings.items() if k != "ca"}
    return replace(target, settings={**settings, "url": simulator.url, "fingerprint": simulator.fingerprint})
